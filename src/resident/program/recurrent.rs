//! LSTM and GRU: over a window, and its newest step.

use super::bands::row_outputs;
use super::numbers::Numbers;
use super::plan::{IN_STATE, Plan, Whole};
use super::stages::Matrix;
use super::unsupported;
use crate::error::Result;
use crate::resident::network::{Cell, Emit, Recurrent, RecurrentStep, ValueId};

/// Weights of a thread that are loaded into its registers when a window begins, beside those that stay there.
const LATE_WEIGHTS: u32 = 48;
/// Weights of a thread that has half of a unit's, at most.
const PAIR_WEIGHTS: u32 = 128;

/// Weights of a thread of two that have a unit, where one block can have all units so.
pub(super) fn weights_in_pairs(units: u32) -> Option<u32> {
    Some(2 * units.next_multiple_of(8)).filter(|&weights| weights <= PAIR_WEIGHTS)
}
/// Bytes up to which rows times weights lie in shared memory.
const PROJECTED: u32 = 65536;

impl Plan<'_> {
    pub(super) fn recurrent(&mut self, of: &Recurrent, from: ValueId, into: ValueId) -> Result<()> {
        let gru = is_gru(of.cell)?;
        // Of rows in bands block 0 alone has the state.
        let band = self.turned_band(from);
        let alone = band.is_some();
        let blocks = if alone { 1 } else { self.blocks };
        let (threads, units, inputs) = (self.threads, of.units as u32, of.inputs as u32);
        let each = units.div_ceil(blocks);
        let lanes = self.lanes(each, blocks);
        if alone && lanes != 2 {
            return Err(unsupported(format!("{units} units over rows in bands")));
        }
        let state_bytes = (each * blocks).next_multiple_of(4 * lanes) * 4;
        let (state4, per_group) = (state_bytes / 16 / lanes, each.div_ceil(threads / lanes));
        let count = 16 * state4 * per_group;
        let (rows, input4) = (4 * each, inputs.div_ceil(4));
        let source = if alone { Whole { offset: 0, copy_bytes: 0 } } else { self.whole_everywhere(from)? };

        let weights = self.state_weights(of, [blocks, each, lanes], state4, per_group)?;
        let row_weights = if alone { 0 } else { self.row_weights(of, each)? };
        let (words, row_words) = (self.words(count), self.words(4 * input4));
        let [bias, initial] = self.bias_and_initial(of, gru);
        // What comes before rows in bands wants its registers, too.
        let loads_late = alone || (self.is_ahead && words <= LATE_WEIGHTS);
        let kept = if loads_late { GLOBAL.to_owned() } else { self.weights_of_threads(words) };
        let rows_global = self.is_ahead || rows > threads || alone;
        let together = if !rows_global && self.has_registers(row_words) { 1 } else { 2 };
        let tile = tile(of.steps as u32, together * threads / rows, threads);
        let row_kept = if rows_global { GLOBAL.to_owned() } else { self.weights_of(row_words, rows) };
        let row_kept = row_kept.replace(" where", " row_where").replace(" kept", " row_kept");

        let padded_bytes = of.steps as u32 * input4 * 16;
        let pads =
            !alone && inputs % 4 != 0 && source.copy_bytes != IN_STATE && !self.is_ahead && padded_bytes <= PROJECTED;
        let padded = if pads { self.room(padded_bytes) } else { 0 };
        let projected_bytes = of.steps as u32 * rows * 4;
        let projected_in_state = alone || projected_bytes > PROJECTED;
        let projected = match band {
            Some(band) => self.band_rows(of, gru, band)?,
            None if projected_in_state => self.in_state(projected_bytes),
            None => self.room(projected_bytes),
        };
        let (state, first) = (self.room(2 * state_bytes), self.room(state_bytes));
        let barriers = if blocks > 1 { self.barriers()? } else { 0 };
        // Every block sends its units, if of no use.
        self.hears(blocks);
        if alone {
            self.lies_in_block_0(into);
            // They are not there all the time, but what comes behind must leave room for them.
            self.take_registers(words);
        }
        // One block writes its share, which is all; of several each writes all for itself.
        let out = if blocks > 1 { self.own_whole(into) } else { Whole { offset: self.share(into), copy_bytes: 0 } };
        let numbers = Numbers::default()
            .int("threads", threads)
            .int("blocks", blocks)
            .int("each", each)
            .int("steps", of.steps)
            .int("inputs", inputs)
            .int("units", units)
            .truth("gru", gru)
            .int("lanes", lanes)
            .int("in", source.offset)
            .int("in_bytes", source.copy_bytes)
            .truth("pads", pads)
            .int("padded", padded)
            .int("tile", tile)
            .int("projected", projected)
            .truth("projected_in_state", projected_in_state)
            .truth("half", self.in_halves())
            .int("row_weights", row_weights)
            .int("row_weights_each", if alone { 0 } else { rows * row_words * 4 })
            .text(&row_kept)
            .int("weights", weights)
            .int("weights_each", if alone { 0 } else { words * threads * 4 })
            .text(&kept)
            .truth("loads_late", loads_late)
            .truth("alone", alone)
            .truth("is_projected", alone)
            .int("row_pitch", row_outputs(of))
            .int("bias", bias)
            .int("initial", initial)
            .int("state", state)
            .int("state_bytes", state_bytes)
            .int("first", first)
            .int("barriers", barriers)
            .truth("emits_all", of.emit != Emit::Last)
            .truth("emits_cell", of.emit == Emit::AllAndCell && !gru)
            .int("out", out.offset)
            .truth("out_in_state", out.copy_bytes == IN_STATE);
        let name = if gru { "GRU" } else { "LSTM" };
        let note = format!("{name} of {units} units, {} steps of {inputs}, {lanes} lanes a unit", of.steps);
        self.step("Recurrent", numbers, blocks > 1, true, note);
        Ok(())
    }

    /// Where the biases of each unit's rows are, and where the outputs and cells that the first step finds.
    pub(super) fn bias_and_initial(&mut self, of: &Recurrent, gru: bool) -> [u32; 2] {
        let bias = self.constant((0..of.units).flat_map(|unit| biases(of, gru, unit)));
        let cell = of.initial_cell.iter().copied().chain(std::iter::repeat(0.0)).take(of.units);
        [bias, self.constant(of.initial.iter().copied().chain(cell))]
    }

    /// Lanes that have a unit. A pair is the fastest in one block, where a thread has registers for half of a unit's weights.
    fn lanes(&self, each: u32, blocks: u32) -> u32 {
        let fits = |weights| 2 * each <= self.threads && self.has_registers(self.words(weights));
        if blocks == 1 && weights_in_pairs(each).is_some_and(fits) {
            return 2;
        }
        [32, 16, 8].into_iter().find(|lanes| each * lanes <= self.threads).unwrap_or(4)
    }

    /// By thread: of each of its units, gate by gate, the lane's share of the state's weights.
    fn state_weights(
        &mut self,
        of: &Recurrent,
        [blocks, each, lanes]: [u32; 3],
        state4: u32,
        per_group: u32,
    ) -> Result<u32> {
        let (threads, gates) = (self.threads, of.cell.gates() as u32);
        let weight = |block: u32, thread: u32, n: u32| {
            let (n, e) = (n / 4, n % 4);
            let (i, gate, k) = (n / (4 * state4), n / state4 % 4, n % state4);
            let own = thread / lanes + i * (threads / lanes);
            let (unit, from) = ((block * each + own) as usize, ((k * lanes + thread % lanes) * 4 + e) as usize);
            let there = own < each && unit < of.units && gate < gates && from < of.units;
            if there { of.recurrent[(gate as usize * of.units + unit) * of.units + from] } else { 0.0 }
        };
        let all = self.by_thread(blocks, [threads, 16 * state4 * per_group], &weight)?;
        Ok(self.constant(all))
    }

    /// By block: fours of inputs, and of each the block's rows, four a unit.
    fn row_weights(&mut self, of: &Recurrent, each: u32) -> Result<u32> {
        let gates = of.cell.gates();
        let weight = |block: u32, row: u32, input: u32| {
            let (unit, gate, input) = ((block * each + row / 4) as usize, row as usize % 4, input as usize);
            let there = unit < of.units && gate < gates && input < of.inputs;
            if there { of.weights[(gate * of.units + unit) * of.inputs + input] } else { 0.0 }
        };
        let all = self.by_thread(self.blocks, [4 * each, of.inputs.next_multiple_of(4) as u32], &weight)?;
        Ok(self.constant(all))
    }

    pub(super) fn recurrent_step(&mut self, of: &RecurrentStep, reads: &[ValueId], into: ValueId) -> Result<()> {
        let gru = is_gru(of.cell)?;
        let each = self.place(into).each;
        let (units, gates) = (of.units as u32, of.cell.gates() as u32);
        // Row by row: the unit of the network and its gate, where they are.
        let place = |row: u32| {
            let (unit, gate) = (row / 4, row % 4);
            (unit < units && gate < gates).then_some((gate * units + unit) as usize)
        };
        let rows = units.div_ceil(each) * each * 4;
        let bias = (0..rows).map(|row| place(row).map_or(0.0, |place| of.bias[place])).collect();
        let matrix = Matrix { inputs: of.inputs as u32, rows, each_out: 4 * each, wide: false, bias };
        let weight = |row: u32, input: usize| place(row).map_or(0.0, |place| of.weights[place * of.inputs + input]);
        let (numbers, how) = self.product(&matrix, reads[0], &weight)?;
        let (product, state) = (self.whole(reads[1], into)?, self.whole(reads[2], into)?);
        let out = self.share(into);
        let cell = if of.keeps_cell { self.in_state(each * 4) } else { 0 };
        if of.keeps_cell {
            self.cells.push((into, cell));
        }
        let numbers = numbers
            .int("units", units)
            .truth("keeps_cell", of.keeps_cell)
            .int("cell", cell)
            .truth("gru", gru)
            .truth("sums_only", true)
            .truth("softmax", false)
            .function(None)
            .int("product", product.offset)
            .int("product_bytes", product.copy_bytes)
            .int("state", state.offset)
            .int("state_bytes", state.copy_bytes)
            .int("out", out);
        let name = if gru { "GRU" } else { "LSTM" };
        let note = format!("newest step of {} of {name} of {units} units, {how}", of.inputs);
        self.step("RecurrentStep", numbers, self.blocks > 1, false, note);
        Ok(())
    }
}

/// Steps whose rows a thread multiplies at a time: the most, where few of what a round does are behind the last step.
fn tile(steps: u32, spread: u32, threads: u32) -> u32 {
    let at_most = if threads <= 256 { 12 } else { 8 };
    let done = |tile: u32| steps.next_multiple_of(tile * spread.max(1));
    (2..=at_most).rev().min_by_key(|&tile| done(tile)).expect("there are tiles")
}

const GLOBAL: &str = "  static constexpr Weights where = Weights::Global;\n  static constexpr u32 kept = 0;\n";

pub(super) fn is_gru(cell: Cell) -> Result<bool> {
    match cell {
        Cell::Lstm => Ok(false),
        Cell::Gru { linear_before_reset: true } => Ok(true),
        Cell::Gru { linear_before_reset: false } => {
            Err(unsupported("a GRU with its reset gate before the matrix".into())
                .advice("export it as PyTorch does (linear_before_reset = 1)"))
        }
    }
}

/// Which of the network's gates one of a unit's four rows has that its inputs are multiplied with. A GRU's candidate has its inputs' part in
/// the third row, and its state's in the fourth.
pub(super) fn gate_of_inputs(of: &Recurrent, row: usize) -> Option<usize> {
    (row < of.cell.gates()).then_some(row)
}

/// Likewise of the row that its state is multiplied with.
pub(super) fn gate_of_state(gru: bool, row: usize) -> Option<usize> {
    if gru { [Some(0), Some(1), None, Some(2)][row] } else { Some(row) }
}

/// Of the four rows of a unit. A GRU's fourth is what the candidate has of the state.
pub(super) fn biases(of: &Recurrent, gru: bool, unit: usize) -> [f32; 4] {
    let row = |gate: usize| of.bias[gate * of.units + unit];
    let state = |gate: usize| of.recurrent_bias[gate * of.units + unit];
    if gru {
        [row(0) + state(0), row(1) + state(1), row(2), state(2)]
    } else {
        [0, 1, 2, 3].map(|gate| row(gate) + state(gate))
    }
}

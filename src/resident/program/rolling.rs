//! Recurrent layers whose windows are on their way side by side.

use std::fmt::Write as _;

use super::numbers::Numbers;
use super::plan::{IN_STATE, Plan, SHARED_STATE, rounded_to_half};
use super::recurrent::{gate_of_inputs, gate_of_state, is_gru};
use super::unsupported;
use crate::error::Result;
use crate::resident::network::Recurrent;
use crate::resident::stream::Layer;

/// Lanes that have a unit of some windows.
const LANES: u32 = 4;
/// Windows of a thread, at most: each takes eight registers, beside weights that stay there (with seven lstm_b spills 200 bytes).
const MOST_TOGETHER: u32 = 6;
/// Their number has 16 bits.
const MOST_WINDOWS: u32 = 1 << 16;
/// Floats of a chunk. Rows of it that lie beside each other are in other banks: sixteen more than a multiple of 32.
const CHUNKS: [u32; 4] = [112, 80, 48, 16];
/// Bytes of shared memory for both of a layer's buffers.
const STAGED: u32 = 64 * 1024;

/// How a layer's units, windows and inputs fall into threads and chunks.
struct Shares {
    /// Units of a block.
    each: u32,
    /// Threads that have a unit, four lanes each, and windows of a thread.
    apart: u32,
    together: u32,
    /// Floats of a chunk.
    chunk: u32,
    /// Of both buffers.
    staged: u32,
}

impl Shares {
    fn of(layer: &Recurrent, blocks: u32, threads: u32) -> Result<Self> {
        let (units, windows) = (layer.units as u32, layer.steps as u32);
        // Of all blocks together whole fours: what lies behind the last unit is read.
        let mut each = units.div_ceil(blocks);
        while !(each * blocks).is_multiple_of(4) {
            each += 1;
        }
        let apart = threads / LANES / each;
        if apart == 0 || windows >= MOST_WINDOWS {
            return Err(unsupported(format!("{each} units a block of {threads} threads, {windows} windows at once")));
        }
        // The fewest loads from shared memory; of two the fewer passes.
        let passes = |together: u32| windows.div_ceil(apart * together);
        let together = (1..=MOST_TOGETHER)
            .rev()
            .min_by_key(|&together| passes(together) * (together + 4))
            .expect("there are some");
        let bytes = |chunk: u32| 2 * 4 * chunk * (4 * each + apart * together);
        let wanted = layer.units.max(layer.inputs) as u32;
        let chunk = CHUNKS.into_iter().filter(|&chunk| bytes(chunk) <= STAGED).min_by_key(|&chunk| {
            // The fewest chunks, and of those the smallest.
            (wanted.div_ceil(chunk), chunk)
        });
        let chunk = chunk.ok_or_else(|| unsupported(format!("{} bytes of weights at a time", bytes(CHUNKS[3]))))?;
        Ok(Self { each, apart, together, chunk, staged: bytes(chunk) })
    }
}

/// Where a layer's outputs are: floats from window to window, and where those of the first copy begin.
#[derive(Clone, Copy)]
struct Outputs {
    units: u32,
    pitch: u32,
    state: u32,
}

impl Plan<'_> {
    /// All of them, as one step, and where it leaves what the oldest window has.
    pub(super) fn rolling(&mut self, layers: &[Layer]) -> Result<()> {
        let (threads, blocks) = (self.threads, self.blocks);
        let windows = layers[0].of.steps as u32;
        let shares = layers.iter().map(|layer| Shares::of(&layer.of, blocks, threads)).collect::<Result<Vec<_>>>()?;
        let staged = self.room(shares.iter().map(|shares| shares.staged).max().unwrap_or(0));
        let row_sums = self.room(4 * shares[0].each * 4);
        let begun = self.in_shared_state(8);
        let (mut structures, mut steps, mut behind, mut gives) =
            (String::new(), String::new(), String::new(), String::new());
        let (mut before, mut notes) = (None, Vec::new());
        for (number, (layer, shares)) in layers.iter().zip(&shares).enumerate() {
            let (numbers, outputs) = self.rolling_layer(&layer.of, shares, before)?;
            let numbers = numbers.int("staged", staged).int("row_sums", row_sums);
            let _ = writeln!(structures, "  struct Layer{number} {{\n{}  }};", numbers.0);
            let _ = writeln!(steps, "    RollingLayer<Layer{number}>::run(b, turn, memory, step);");
            let _ = writeln!(steps, "    if (!meet()) return false;");
            let _ = writeln!(behind, "    layer_behind<Layer{number}, {number}>(b, turn, memory, step);");
            let output = self.own_whole(layer.output);
            let mut to = vec![(output.offset, output.copy_bytes)];
            if let Some(cell) = layer.cell {
                let cell = self.own_whole(cell);
                to.push((cell.offset, cell.copy_bytes));
            }
            let place = |&(offset, copy)| match copy {
                IN_STATE => format!("in_state(b, {offset})"),
                _ => format!("shared({offset})"),
            };
            let places = to.iter().map(place).chain(["nullptr".to_owned()]).take(2).collect::<Vec<_>>().join(", ");
            let _ = writeln!(gives, "    give_oldest<Layer{number}>(b, memory, step, {places});");
            let name = if is_gru(layer.of.cell)? { "GRU" } else { "LSTM" };
            notes.push(format!("{name} of {} units", layer.of.units));
            before = Some(outputs);
        }
        let most = shares.iter().map(|shares| shares.apart * shares.together).min().unwrap_or(1).min(windows);
        let (words, barriers) = if blocks > 1 { (self.room(2 * 4 * blocks), self.barriers()?) } else { (0, 0) };
        self.hears(blocks);
        let numbers = Numbers::default()
            .int("threads", threads)
            .int("blocks", blocks)
            .int("windows", windows)
            .text(&format!("  static constexpr u64 memory = {SHARED_STATE};\n"))
            .int("state", begun)
            .int("words", words)
            .int("barriers", barriers)
            .text(&structures)
            .int("layers", layers.len())
            .int("most", most)
            .text(&format!(
                "  template <class Meet>\n  static __device__ bool each_layer(const Block& b, const Turn& turn, u64 memory, const \
                 Step& step, const Meet& meet) {{\n{steps}    return true;\n  }}\n  static __device__ void each_behind(const Block& \
                 b, const Turn& turn, u64 memory, const Step& step) {{\n{behind}  }}\n  static __device__ void give(const Block& b, \
                 u64 memory, const Step& step) {{\n{gives}  }}\n"
            ));
        let note = format!("{windows} windows one row further, {}", notes.join(", "));
        self.step("Rolling", numbers, blocks > 1, true, note);
        Ok(())
    }

    fn rolling_layer(
        &mut self,
        of: &Recurrent,
        shares: &Shares,
        before: Option<Outputs>,
    ) -> Result<(Numbers, Outputs)> {
        let &Shares { each, together, chunk, .. } = shares;
        let (units, inputs, blocks) = (of.units as u32, of.inputs as u32, self.blocks);
        let gru = is_gru(of.cell)?;
        let pitch = each * blocks * if gru { 1 } else { 2 };
        let state = self.in_shared_state(2 * of.steps as u32 * pitch * 4);
        let [bias, initial] = self.bias_and_initial(of, gru);
        let mut all = Vec::new();
        let (mut row_weights, mut row_weights_each) = (0, 0);
        let input_chunks = if before.is_some() { inputs.div_ceil(chunk) } else { 0 };
        let state_chunks = units.div_ceil(chunk);
        let unit_of = |block: u32, row: u32| (block * each + row / 4) as usize;
        for block in 0..blocks {
            for (number, row) in (0..input_chunks + state_chunks).flat_map(|n| (0..4 * each).map(move |row| (n, row))) {
                let (unit, gate) = (unit_of(block, row), row as usize % 4);
                for place in 0..chunk {
                    all.push(if number < input_chunks {
                        let input = (number * chunk + place) as usize;
                        self.weight(&of.weights, of.inputs, of.units, gate_of_inputs(of, gate), unit, input)?
                    } else {
                        let input = ((number - input_chunks) * chunk + place) as usize;
                        self.weight(&of.recurrent, of.units, of.units, gate_of_state(gru, gate), unit, input)?
                    });
                }
            }
        }
        let weights_each = all.len() as u32 / blocks * 4;
        let weights = self.constant(all);
        if before.is_none() {
            let pitch = inputs.next_multiple_of(32);
            let mut all = Vec::new();
            for (block, row) in (0..blocks).flat_map(|block| (0..4 * each).map(move |row| (block, row))) {
                let (unit, gate) = (unit_of(block, row), row as usize % 4);
                for input in 0..pitch as usize {
                    all.push(self.weight(&of.weights, of.inputs, of.units, gate_of_inputs(of, gate), unit, input)?);
                }
            }
            (row_weights, row_weights_each) = (self.constant(all), 4 * each * pitch * 4);
        }
        let from = before.unwrap_or(Outputs { units: 1, pitch: 0, state: 0 });
        let numbers = Numbers::default()
            .int("threads", self.threads)
            .int("blocks", blocks)
            .int("windows", of.steps)
            .int("each", each)
            .int("units", units)
            .truth("gru", gru)
            .truth("is_first", before.is_none())
            .int("inputs", inputs)
            .int("in", from.state)
            .int("in_units", from.units)
            .int("in_pitch", from.pitch)
            .int("state", state)
            .int("pitch", pitch)
            .int("weights", weights)
            .int("weights_each", weights_each)
            .int("row_weights", row_weights)
            .int("row_weights_each", row_weights_each)
            .int("bias", bias)
            .int("initial", initial)
            .int("together", together)
            .int("chunk", chunk);
        Ok((numbers, Outputs { units, pitch, state }))
    }

    /// Of a unit's gate, as the others have it that multiply the same.
    fn weight(
        &self,
        weights: &[f32],
        inputs: usize,
        units: usize,
        gate: Option<usize>,
        unit: usize,
        input: usize,
    ) -> Result<f32> {
        match gate {
            Some(gate) if unit < units && input < inputs => {
                let weight = weights[(gate * units + unit) * inputs + input];
                if self.in_halves() { rounded_to_half(weight) } else { Ok(weight) }
            }
            _ => Ok(0.0),
        }
    }
}

//! A stack of recurrent layers on a grid of blocks, more than one cluster has, its weights in half precision.
//!
//! Each block has so many units of every layer; blocks give each other outputs through the device's
//! memory. What comes behind the last layer is block 0's alone: to it the plan is one of a single block.

use std::cmp::Reverse;

use super::numbers::Numbers;
use super::plan::{Plan, half, rounded_to_half};
use super::recurrent::{gate_of_inputs, gate_of_state, is_gru};
use super::stages::bias_of;
use super::unsupported;
use crate::error::Result;
use crate::resident::budget::Hardware;
use crate::resident::network::{Cell, Dense, Network, Operation, Recurrent};

/// Threads of a block.
pub(super) const THREADS: u32 = 256;
/// Words of a thread's registers in which a layer's state weights are while its steps are computed ahead.
const STATE_WORDS: u32 = 64;
/// Rows of a dense layer up to which blocks send parts of its sums and not what it reads.
const FEW_SUMS: usize = 8;
/// Of a state's beginning: outputs are handed on as so many parts of the greatest.
const MOST_INITIAL: f32 = 16.0;
/// Registers that its stages take beside those that other stages do.
const OTHER_REGISTERS: u32 = 24;
/// Units of the rows that two warps multiply at a time, four rows each, and inputs that tensor cores take at a time.
const UNITS: u32 = 8;
const STEP: u32 = 16;

/// A grid, and where its layers find each other.
#[derive(Clone)]
pub(super) struct Grid {
    pub(super) blocks: u32,
    /// Units of the newest row.
    row: u32,
    layers: Vec<Layer>,
}

/// Of a layer that has been planned: what runs in time.
#[derive(Clone)]
struct Layer {
    number: usize,
    note: String,
    /// Where its newest outputs go, or the blocks' parts of their sums.
    newest: u32,
    units: u32,
    bound: u32,
}

impl Grid {
    /// As few units a block as the GPU has room for, on as few blocks as those need.
    pub(super) fn of(network: &Network, hardware: Hardware, blocks: Option<u32>, threads: u32) -> Result<Self> {
        let units = |stage| match stage {
            &Operation::Recurrent(Recurrent { units, .. }) => Some(units as u32),
            _ => None,
        };
        let most = network.stages.iter().filter_map(|stage| units(&stage.operation)).max().unwrap_or(1);
        let room = hardware.multiprocessors as u32;
        let each = most.div_ceil(UNITS * blocks.unwrap_or(room).max(1));
        // Each has units: an answer waits for all of them.
        let asked = blocks.unwrap_or(room);
        let blocks = most.div_ceil(UNITS * each);
        if !threads.is_multiple_of(64) || each > threads / 32 {
            return Err(unsupported(format!("{most} units on {blocks} blocks of {threads} threads"))
                .expected("a multiple of 64 threads, at most 8 units for each 32 of them"));
        }
        if blocks > room {
            return Err(unsupported(format!("{asked} blocks")).expected(format!("at most {room} multiprocessors")));
        }
        Ok(Self { blocks, row: 0, layers: Vec::new() })
    }
}

impl<'network> Plan<'network> {
    /// All layers, as far as they are computed ahead.
    pub(super) fn grid_layers(&mut self) -> Result<()> {
        let network = self.network;
        let layers: Vec<&Recurrent> = network
            .stages
            .iter()
            .map_while(|stage| match &stage.operation {
                Operation::Recurrent(of) => Some(of),
                _ => None,
            })
            .collect();
        let room = |of: &dyn Fn(&Recurrent) -> usize| {
            let most = layers.iter().map(|layer| of(layer)).max().unwrap_or(0) as u32;
            most.next_multiple_of(STEP * self.parts()) * 4
        };
        let (x_bytes, h_bytes) = (room(&|layer| layer.inputs), room(&|layer| layer.units));
        let (x, h) = (self.room(2 * x_bytes), self.room(h_bytes));
        let most = layers.iter().map(|layer| self.groups(layer)).max().unwrap_or(1);
        let parts = self.room(self.parts() * 4 * UNITS * most * 4);
        let (row, from_row) = (self.units_of_device(layers[0].inputs as u32), self.share(network.inputs[0]));
        let sums = self.sums_behind(layers.len());
        self.take_registers(
            layers.iter().map(|layer| self.state_words(layer).min(STATE_WORDS)).max().unwrap_or(0) + OTHER_REGISTERS,
        );
        // Of the layers whose weights have the choice, the largest has the registers.
        let mut by_size: Vec<usize> = (0..layers.len()).collect();
        by_size.sort_by_key(|&number| Reverse(self.input_words(layers[number])));
        let mut kept = vec![String::new(); layers.len()];
        for number in by_size {
            kept[number] = self.weights_of_threads(self.input_words(layers[number]));
        }
        let (mut from, mut in_pitch, mut in_bound, mut newest, mut planned) = (0, 0, 1, row, Vec::new());
        for (number, &of) in layers.iter().enumerate() {
            let (steps, units) = (of.steps as u32, of.units as u32);
            // Of four outputs 16 bytes; of a block always whole ones.
            let outputs = UNITS * self.groups(of) * self.grid_blocks();
            let (pitch, sums) = ((outputs * 4).next_multiple_of(128), sums.filter(|_| number + 1 == layers.len()));
            let newest_out = match sums {
                Some(dense) => self.units_of_device(dense.outputs as u32 * self.sum_parts(of)),
                None => self.in_state(pitch),
            };
            let out = self.in_state(steps * pitch);
            let bound = bound(of)?;
            let sum_weights = match sums {
                Some(dense) => {
                    let rounded = dense.weights.iter().map(|&x| rounded_to_half(x)).collect::<Result<Vec<_>>>()?;
                    self.constant(rounded)
                }
                None => 0,
            };
            let numbers = self
                .grid_layer(of)?
                .text(&kept[number])
                .truth("is_first", number == 0)
                .int("in", from)
                .int("in_pitch", in_pitch)
                .int("in_bound", in_bound)
                .int("bound", bound)
                .int("row", from_row)
                .int("sums", sums.map_or(0, |dense| dense.outputs))
                .int("sum_weights", sum_weights)
                .int("newest_in", newest)
                .int("out", out)
                .int("out_pitch", pitch)
                .int("newest_out", newest_out)
                .int("x", x)
                .int("x_bytes", x_bytes)
                .int("h", h)
                .int("parts", parts)
                .int("newest", x + number as u32 % 2 * x_bytes);
            let name = if is_gru(of.cell)? { "GRU" } else { "LSTM" };
            let (blocks, each) = (self.grid_blocks(), self.groups(of));
            let shared = format!("{units} units, {} a block of {blocks}", UNITS * each);
            let note = format!("{name} of {shared}, {} steps of {}", steps - 1, of.inputs);
            let number = self.step_ahead("GridLayer", numbers, note);
            let note = format!("newest step of {} of {name} of {shared}", of.inputs);
            planned.push(Layer { number, note, newest: newest_out, units, bound });
            (from, in_pitch, in_bound, newest) = (out, pitch, bound, newest_out);
        }
        let grid = self.grid.as_mut().expect("asked for on a grid alone");
        (grid.row, grid.layers) = (row, planned);
        Ok(())
    }

    /// The dense layer behind so many recurrent ones, if it is that of few sums and alone reads the last one's output.
    fn sums_behind(&self, layers: usize) -> Option<&'network Dense> {
        let network = self.network;
        let last = network.stages[layers - 1].writes;
        match network.stages.get(layers).map(|stage| (&stage.operation, &stage.reads[..])) {
            Some((Operation::Dense(dense), &[read]))
                if read == last && dense.rows == 1 && dense.outputs <= FEW_SUMS && network.uses(last) == 1 =>
            {
                Some(dense)
            }
            _ => None,
        }
    }

    /// Parts of a sum over a layer's outputs: one of each eight units.
    fn sum_parts(&self, of: &Recurrent) -> u32 {
        self.grid_blocks() * self.groups(of)
    }

    /// From the newest row to the last layer's newest output, or what is added up of it, in block 0; how many of the stages behind the
    /// layers that was.
    pub(super) fn grid_in_time(&mut self) -> usize {
        let id = self.network.inputs[0];
        let grid = self.grid.as_mut().expect("asked for on a grid alone");
        let (to, layers) = (grid.row, std::mem::take(&mut grid.layers));
        let from = self.share(id);
        let numbers = self.common(id).int("from", from).int("to", to);
        self.step("GridRow", numbers, false, true, "the row to every block".into());
        for layer in &layers {
            self.step_again(layer.number, layer.note.clone());
        }
        let (stage, layer) = (&self.network.stages[layers.len() - 1], &layers[layers.len() - 1]);
        let Operation::Recurrent(of) = &stage.operation else { unreachable!("the layers are recurrent") };
        let numbers = Numbers::default().int("threads", self.threads).int("from", layer.newest);
        self.guard = "b.rank == 0 && ";
        let Some(dense) = self.sums_behind(layers.len()) else {
            let out = self.share(stage.writes);
            let numbers = numbers.int("count", layer.units).int("bound", layer.bound).int("out", out);
            self.step("GridOutputs", numbers, false, false, format!("{} floats to block 0", layer.units));
            return 0;
        };
        let (parts, rows) = (self.sum_parts(of), dense.outputs as u32);
        let out = self.share(self.network.stages[layers.len()].writes);
        let to = self.room(rows * parts * 4);
        let bias = self.constant(bias_of(dense.bias.as_deref(), dense.outputs));
        let numbers = numbers.int("rows", rows).int("parts", parts).int("to", to).int("out", out).int("bias", bias);
        let note = format!("dense {} to {rows}, {parts} parts of each sum", dense.inputs);
        self.step("GridSums", numbers.function(dense.activation), false, true, note);
        1
    }

    fn grid_layer(&mut self, of: &Recurrent) -> Result<Numbers> {
        let gru = is_gru(of.cell)?;
        let (threads, each) = (self.threads, self.groups(of));
        let weights = self.halves(of, of.inputs, &of.weights, &|row| gate_of_inputs(of, row))?;
        let state_weights = self.halves(of, of.units, &of.recurrent, &|row| gate_of_state(gru, row))?;
        let [bias, initial] = self.bias_and_initial(of, gru);
        let late = if self.state_words(of) <= STATE_WORDS { "Registers" } else { "Global" };
        let ahead = self.room(2 * 4 * UNITS * each * 4);
        Ok(Numbers::default()
            .int("threads", threads)
            .int("blocks", self.grid_blocks())
            .int("steps", of.steps)
            .int("inputs", of.inputs)
            .int("units", of.units)
            .truth("gru", gru)
            .int("each", each)
            .int("weights", weights)
            .int("weights_each", self.input_words(of) * threads * 4)
            .int("state_weights", state_weights)
            .int("state_weights_each", self.state_words(of) * threads * 4)
            .text(&format!("  static constexpr Weights state_where = Weights::{late};\n"))
            .int("bias", bias)
            .int("initial", initial)
            .int("ahead", ahead))
    }

    fn grid_blocks(&self) -> u32 {
        self.grid.as_ref().map_or(1, |grid| grid.blocks)
    }

    /// Eights of units of a block.
    fn groups(&self, of: &Recurrent) -> u32 {
        (of.units as u32).div_ceil(UNITS * self.grid_blocks())
    }

    /// Into how many the inputs of a sum are parted.
    fn parts(&self) -> u32 {
        self.threads / 64
    }

    /// Steps of a thread over so many inputs.
    fn steps_over(&self, inputs: usize) -> u32 {
        (inputs as u32).div_ceil(STEP * self.parts())
    }

    /// Words of a thread of the weights that a layer's inputs have, and of those that its state has.
    fn input_words(&self, of: &Recurrent) -> u32 {
        4 * self.steps_over(of.inputs) * self.groups(of)
    }
    fn state_words(&self, of: &Recurrent) -> u32 {
        4 * self.steps_over(of.units) * self.groups(of)
    }

    /// Room for so many units, in lines of their own.
    fn units_of_device(&mut self, count: u32) -> u32 {
        self.in_state((count * 8).next_multiple_of(128))
    }

    /// By block and thread, as kernels/resident/grid_layers.cuh has them. `row_of`: which gate of the network's a unit's row has.
    fn halves(
        &mut self,
        of: &Recurrent,
        inputs: usize,
        weights: &[f32],
        row_of: &dyn Fn(usize) -> Option<usize>,
    ) -> Result<u32> {
        let (blocks, groups) = (self.grid_blocks(), self.groups(of));
        let (threads, steps) = (self.threads, self.steps_over(inputs));
        let mut words = Vec::with_capacity((blocks * groups * steps * threads * 4) as usize);
        for block in 0..blocks {
            for (group, step) in (0..groups).flat_map(|group| (0..steps).map(move |step| (group, step))) {
                for (thread, word) in (0..threads).flat_map(|thread| (0..4).map(move |word| (thread, word))) {
                    let (warp, lane) = (thread / 32, thread % 32);
                    // Two warps have 16 rows each, of one part of the inputs. A lane has of two rows, 8 apart, four inputs beside each other.
                    let row = (2 * group + warp % 2) * 16 + lane / 4 + word % 2 * 8;
                    let first = ((warp / 2 * steps + step) * STEP + lane % 4 * 4 + word / 2 * 2) as usize;
                    let unit = (block * groups * UNITS + row / 4) as usize;
                    let gate = row_of(row as usize % 4).filter(|_| unit < of.units);
                    let weight = |input: usize| match gate {
                        Some(gate) if input < inputs => half(weights[(gate * of.units + unit) * inputs + input]),
                        _ => Ok(0),
                    };
                    words.push(weight(first)? | weight(first + 1)? << 16);
                }
            }
        }
        Ok(self.constant(words.into_iter().map(f32::from_bits)))
    }
}

/// A power of two that a layer's outputs are within: 1, unless a GRU begins beyond it, whose outputs lie between that and 1.
fn bound(of: &Recurrent) -> Result<u32> {
    let most = of.initial.iter().fold(1.0, |most: f32, x| most.max(x.abs()));
    if most > MOST_INITIAL || of.initial.iter().any(|x| !x.is_finite()) {
        return Err(
            unsupported(format!("a state that begins with {most}")).expected(format!("numbers up to {MOST_INITIAL}"))
        );
    }
    Ok(if of.cell == Cell::Lstm { 1 } else { (most.ceil() as u32).next_power_of_two() })
}

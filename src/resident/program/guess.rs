//! What a program is expected to take.

use super::job::Job;
use super::recurrent::weights_in_pairs;
use crate::resident::network::{Operation, Stage};

/// What blocks take to send each other parts of sums and to add them up, whatever their number, and what one block takes instead.
const SUMS: u64 = 850;
const ALONE: u64 = 250;
/// A step of an LSTM in one block whose units have two lanes each.
const IN_PAIRS: u64 = 430;

/// The same of planes in bands, fitted to deeplob (`benches/probes/resident.md`): a stage costs 2000 cycles however little it computes,
/// for instructions that come from afar and rows from other blocks.
pub(super) fn predicted_cycles_in_bands(job: &Job, blocks: u32) -> u64 {
    let (network, b) = (&job.network, u64::from(blocks));
    let of = |stage: &Stage| {
        let written = network.value(stage.writes).count() as u64;
        match &stage.operation {
            Operation::Conv(conv) => 2000 + written / conv.outputs as u64 * conv.weights.len() as u64 / (b * 50),
            Operation::Pool(_) => 800,
            Operation::Recurrent(of) => of.steps as u64 * (of.weights.len() as u64 / (b * 50) + IN_PAIRS) + 6000,
            Operation::Dense(dense) => dense.weights.len() as u64 / 128 + ALONE,
            Operation::Concat { .. } | Operation::Transpose { .. } => 0,
            _ => written / 32 + ALONE,
        }
    };
    network.stages.iter().map(of).sum()
}

/// The same on a grid of so many blocks, fitted to lstm_c (`benches/record/h100/2026-11-27e-resident.md`): most of it is what blocks take to
/// bring a value together through the L2 cache.
pub(super) fn predicted_cycles_on_grid(job: &Job, blocks: u32) -> u64 {
    const THROUGH_L2: u64 = 2200;
    let (mut kept, mut layers) = (0, 0);
    for stage in &job.network.stages[..job.ahead] {
        if let Operation::Recurrent(of) = &stage.operation {
            let bytes = of.weights.len() as u64 * 2 / u64::from(blocks);
            kept += bytes;
            // What finds no room in a block comes from the cache of the whole GPU.
            layers += THROUGH_L2 + if kept > ROOM_OF_GRID { bytes / 24 } else { bytes / 80 };
        }
    }
    layers + THROUGH_L2 + ALONE * job.in_time().len() as u64
}
/// Bytes of weights that a block of a grid has room for, in registers and shared memory.
const ROOM_OF_GRID: u64 = 256 * 1024;

/// A guess, to choose the number of blocks by, and for people: fitted to the stages of the zoo's networks on an H100, whose totals it
/// meets within 15 % (`benches/record/h100/2026-11-27c-resident.md`).
pub(super) fn predicted_cycles(job: &Job, blocks: u32) -> u64 {
    let network = &job.network;
    let (b, several) = (u64::from(blocks), blocks > 1);
    let halves = 4 / job.weights.size();
    let stages = job.in_time();
    let of = |(number, stage): (usize, &Stage)| {
        let written = network.value(stage.writes).count() as u64;
        match &stage.operation {
            Operation::Dense(dense) if dense.rows == 1 => {
                let products = dense.weights.len() as u64;
                // What one block cannot keep it reads from the cache.
                let per_cycle = if products / b > 80_000 * halves { 8 * halves } else { 128 };
                products / (b * per_cycle) + if several { SUMS } else { ALONE }
            }
            Operation::Dense(dense) => dense.rows as u64 * dense.weights.len() as u64 / (b * 20),
            Operation::Conv(conv) => {
                let products = written / conv.outputs as u64 * conv.weights.len() as u64;
                // One block has no zeros around its planes, and its lanes meet in the same banks.
                let per_cycle = if several { 64 } else { 22 };
                // Another one needs all of what this one has written, of which a pool has left a quarter.
                let is_for_another =
                    stages[number + 1..].iter().any(|next| matches!(next.operation, Operation::Conv(_)));
                let sent = if several && is_for_another { 780 + written / 10 } else { 0 };
                products / (b * per_cycle) + 250 + sent
            }
            Operation::Pool(_) => written / (b * 32) + 60,
            Operation::RecurrentStep(of) => of.weights.len() as u64 / (b * 24) + if several { 880 } else { 650 },
            Operation::Recurrent(of) => {
                let (state, row) = (of.recurrent.len() as u64 / b, of.weights.len() as u64 / b);
                // What does not fit registers is read in each step.
                let read = if state > 32_768 * halves { state / (16 * halves) } else { 0 };
                let in_pairs = !several && weights_in_pairs(of.units as u32).is_some();
                let step = match (several, in_pairs) {
                    (true, _) => 1_300,
                    (_, true) => IN_PAIRS,
                    _ => 720,
                };
                of.steps as u64 * (row / 60 + read + step)
            }
            _ => written / (b * 32) + ALONE + if several && written > 32 { 450 } else { 0 },
        }
    };
    stages.iter().enumerate().map(of).sum::<u64>() + if several { 150 } else { 0 }
}

//! What a program is expected to take.

use super::job::Job;
use crate::resident::network::{Operation, Stage};

/// A guess, to choose the number of blocks by; benches/probes/resident.md has what it was made from.
pub(super) fn predicted_cycles(job: &Job, blocks: u32) -> u64 {
    let network = &job.network;
    let (b, several) = (u64::from(blocks), blocks > 1);
    let of = |stage: &Stage| {
        let written = network.value(stage.writes).count() as u64;
        match &stage.operation {
            Operation::Dense(dense) if dense.rows == 1 => {
                let products = dense.weights.len() as u64;
                // What one block cannot keep it reads from the cache.
                let per_cycle = if products / b > 80_000 { 8 } else { 64 };
                products / (b * per_cycle) + if several { 400 } else { 120 }
            }
            Operation::Dense(dense) => dense.rows as u64 * dense.weights.len() as u64 / (b * 20),
            Operation::Conv(conv) => {
                let products = written / conv.outputs as u64 * conv.weights.len() as u64;
                // One block has no zeros around its planes, and its lanes meet in the same banks.
                let per_cycle = if several { 64 } else { 22 };
                products / (b * per_cycle) + 100 + if several { 450 + written / 4 } else { 0 }
            }
            Operation::RecurrentStep(of) => of.weights.len() as u64 / (b * 64) + if several { 500 } else { 250 },
            Operation::Recurrent(of) => {
                let (state, row) = (of.recurrent.len() as u64 / b, of.weights.len() as u64 / b);
                // What does not fit registers is read in each step.
                let read = if state > 32_768 { state / 16 } else { 0 };
                of.steps as u64 * (row / 60 + read + if several { 1_000 } else { 500 })
            }
            _ => written / (b * 32) + 60 + if several && written > 32 { 450 } else { 0 },
        }
    };
    job.in_time().iter().map(of).sum::<u64>() + if several { 100 } else { 0 }
}

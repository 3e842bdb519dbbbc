//! What a turn of a resident kernel is handed, and what it reports: `kernels/resident/turn.cuh` has the same.

use bytemuck::{Pod, Zeroable};

/// A turn's one parameter: addresses on the device, and sizes.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct Turn {
    /// The program's constants, in device memory.
    pub constants: u64,
    /// Mapped: the units of slot 0's input, each a word with its call's number above it.
    pub input: u64,
    /// Mapped: the units of slot 0's answer.
    pub answer: u64,
    /// In device memory: the number of the call that comes next; then what blocks of a grid meet by, zeros at first.
    /// [`PROGRESS_WORDS`] in all.
    pub progress: u64,
    /// Mapped: [`Report`].
    pub report: u64,
    /// How long the turn lasts at most.
    pub limit_ns: u64,
    /// In device memory: what outlives a turn, [`Program::state_bytes`](super::program::Program::state_bytes).
    pub state: u64,
    /// Bytes from a slot's input to the next one's.
    pub input_stride: u32,
    /// Bytes from a slot's answer to the next one's.
    pub answer_stride: u32,
    /// Call `n` lies in slot `(n - 1) % depth`.
    pub depth: u32,
    /// [`INPUT_NEAR`] or 0.
    pub flags: u32,
    /// Mapped: the rows of slot 0, where a call brings a whole window.
    pub rows: u64,
    /// Bytes from a slot's rows to the next one's.
    pub rows_stride: u32,
    /// 0.
    pub reserved: u32,
}

/// Words of 8 bytes that turns add up, in mapped memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Report {
    /// Turns that have ended; written last, with release order.
    Turns,
    /// The call that the last turn left to the next.
    Next,
    /// Turns that found their first call waiting.
    Met,
    /// Turns that were stopped.
    Stopped,
    /// The first of [`STAGES`] sums of cycles, where the program takes stamps.
    Cycles,
}

/// What the turns that have ended add up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sums {
    /// Turns that have ended.
    pub turns: u64,
    /// Calls that they have computed.
    pub calls: u64,
    /// Turns that found their first call waiting.
    pub met: u64,
    /// Turns that were stopped.
    pub stopped: u64,
    /// How often a known answer was right; see [`ResidentConfig::known_answer_every`](crate::ResidentConfig::known_answer_every).
    pub known_answers: u64,
    /// Cycles of each stage that a call waits for, from the second one on; zeros where the program takes no stamps.
    pub cycles: [u64; STAGES],
}

impl Sums {
    /// Of a report, whose words `word` reads: the first of them is written last.
    pub(crate) fn read(word: impl Fn(usize) -> u64) -> Self {
        loop {
            let turns = word(Report::Turns as usize);
            let sums = Self {
                turns,
                // The number of the next call, which is 0 before a turn has ended.
                calls: word(Report::Next as usize).saturating_sub(1),
                met: word(Report::Met as usize),
                stopped: word(Report::Stopped as usize),
                known_answers: 0,
                cycles: std::array::from_fn(|stage| word(Report::Cycles as usize + stage)),
            };
            // A turn that ended meanwhile has been read in part. The next one will not end as soon.
            if word(Report::Turns as usize) == turns {
                return sums;
            }
        }
    }

    /// What has been added since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            turns: self.turns - earlier.turns,
            calls: self.calls - earlier.calls,
            met: self.met - earlier.met,
            stopped: self.stopped - earlier.stopped,
            known_answers: self.known_answers - earlier.known_answers,
            cycles: std::array::from_fn(|stage| self.cycles[stage] - earlier.cycles[stage]),
        }
    }
}

/// In [`Turn::flags`]: the host writes calls into the device's memory.
pub const INPUT_NEAR: u32 = 1;
/// Words of 8 bytes at [`Turn::progress`].
pub const PROGRESS_WORDS: usize = 6;
/// Sums of cycles in a report.
pub const STAGES: usize = 24;
/// Words of a report.
pub const REPORT_WORDS: usize = Report::Cycles as usize + STAGES;

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn sums_are_read_again_when_a_turn_ends_meanwhile() {
        let reads = Cell::new(0);
        let word = |place: usize| {
            reads.set(reads.get() + 1);
            // All words change behind the third read.
            let turns = if reads.get() > 3 { 8 } else { 7 };
            if place == 0 { turns } else { turns * 100 + place as u64 }
        };
        let sums = Sums::read(word);
        assert_eq!((sums.turns, sums.calls, sums.met, sums.stopped), (8, 800, 802, 803));
        assert_eq!(sums.cycles[STAGES - 1], 804 + STAGES as u64 - 1);
        assert_eq!(sums.since(&Sums { turns: 3, ..Sums::default() }).turns, 5);
    }
}

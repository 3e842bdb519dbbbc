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
    /// In device memory: the number of the call that comes next.
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
    /// 0.
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

/// Sums of cycles in a report.
pub const STAGES: usize = 12;
/// Words of a report.
pub const REPORT_WORDS: usize = Report::Cycles as usize + STAGES;

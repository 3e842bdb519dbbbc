//! Every call of a session or predictor, kept in a file: when, by whom, what was asked and what was answered.
//!
//! The hot path copies each call into a ring made at start; a thread of its own writes the ring to the file. The file is a
//! header, then one record a call, all little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `tickrtJ\n` |
//! | 4 | version of the format, 1 |
//! | 4 | length of what follows |
//! | that many | JSON: the tensors of each announced shape, when the journal began, what outcomes are called |
//! | 4 | CRC-32 of the JSON |
//!
//! A record:
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `CALL` |
//! | 4 | length of the whole record, a multiple of 8 |
//! | 4 | CRC-32 of all that follows |
//! | 4, 4 | bytes of the inputs and of the outputs |
//! | 2, 1, 1 | places of the shape, the backend and the outcome among those that the header names; outcome 0 is an answer, others count from 1 |
//! | 8, 8 | the caller's tag; the call's number in its session |
//! | 8, 8 | submitted and ended, in nanoseconds since the journal began |
//! | 8 | calls left out before this one, in all |
//! | 32 | SHA-256 of the plan or model |
//! | | the inputs as they were handed over, the outputs as they were delivered, zeros |
//!
//! A process that dies leaves whole records and at most the beginning of one, which the [reader](JournalReader) tells from
//! damage.

mod read;
mod ring;
mod write;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

pub use self::read::{JournalReader, JournaledCall, Tail};
pub(crate) use self::ring::Writer;
pub use self::write::{Journal, Written};
use crate::backend::Signature;
use crate::counters::REASONS;
use crate::tensor::DataType;

const MAGIC: &[u8; 8] = b"tickrtJ\n";
const VERSION: u32 = 1;
const MARK: u32 = u32::from_le_bytes(*b"CALL");
/// The bytes of a record that its CRC-32 does not cover.
const UNCHECKED: usize = 12;

/// How a journal is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalConfig {
    /// Bytes of the ring between the calls and the file, made and touched at start: what the disk may be behind by.
    pub ring_bytes: usize,
    /// What a call does that finds the ring full.
    pub when_full: WhenFull,
}

/// What a call does that finds the journal's ring full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenFull {
    /// It is left out of the journal, and counted.
    #[default]
    Drop,
    /// It spins until the disk has caught up: nothing is left out, and a slow disk is a slow call.
    Block,
}

impl Default for JournalConfig {
    fn default() -> Self {
        Self { ring_bytes: 64 << 20, when_full: WhenFull::Drop }
    }
}

/// What stands before a call's tensors. As in memory, so in the file.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct Head {
    pub(crate) mark: u32,
    /// Of the whole record, a multiple of 8.
    pub(crate) bytes: u32,
    /// Set by whoever writes the file.
    pub(crate) crc: u32,
    pub(crate) input_bytes: u32,
    pub(crate) output_bytes: u32,
    /// Place in the announced shapes.
    pub(crate) shape: u16,
    /// Place in the backends that the file's header names.
    pub(crate) backend: u8,
    /// 0 for an answer, else one more than the place in the outcomes that the file's header names.
    pub(crate) outcome: u8,
    pub(crate) tag: u64,
    pub(crate) sequence: u64,
    /// Nanoseconds since the journal began; 0 for a call that was submitted before.
    pub(crate) submitted_ns: u64,
    pub(crate) done_ns: u64,
    /// Calls that were left out before this one, in all.
    pub(crate) dropped: u64,
    pub(crate) engine: [u8; 32],
}

impl Default for Head {
    fn default() -> Self {
        bytemuck::Zeroable::zeroed()
    }
}

const HEAD: usize = size_of::<Head>();
const _: () = assert!(HEAD == 96 && cfg!(target_endian = "little"));

/// What the file's header says.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct About {
    tickrt: String,
    /// When the records' times begin, in nanoseconds since 1970.
    started_unix_ns: u64,
    /// Of the longest record.
    record_bytes: usize,
    backends: Vec<String>,
    outcomes: Vec<String>,
    shapes: Vec<JournaledShape>,
}

/// The tensors of one announced shape, in the order in which a record has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournaledShape {
    /// As they are handed over, before normalisation.
    pub inputs: Vec<JournaledTensor>,
    /// As they are delivered.
    pub outputs: Vec<JournaledTensor>,
}

/// One tensor of a journal's records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournaledTensor {
    /// In the network.
    pub name: String,
    /// Of its elements.
    pub data_type: DataType,
    /// Its number of elements.
    pub count: usize,
}

impl JournaledTensor {
    /// Its size.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.count * self.data_type.size()
    }
}

impl About {
    fn new(signature: &Signature) -> Self {
        let shapes = signature.shapes.iter().map(|shape| JournaledShape {
            inputs: tensors(&signature.inputs, shape.inputs.iter().map(|input| (input.input_type(), input.count()))),
            outputs: tensors(&signature.outputs, shape.outputs.iter().map(|output| (output.data_type, output.count))),
        });
        let shapes: Vec<JournaledShape> = shapes.collect();
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self {
            tickrt: env!("CARGO_PKG_VERSION").to_owned(),
            started_unix_ns: u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX),
            record_bytes: shapes.iter().map(JournaledShape::record_bytes).max().unwrap_or(HEAD),
            backends: crate::counters::BACKENDS.map(|backend| backend.to_string()).into(),
            outcomes: REASONS.map(str::to_owned).into(),
            shapes,
        }
    }
}

fn tensors(named: &[crate::TensorInfo], sizes: impl Iterator<Item = (DataType, usize)>) -> Vec<JournaledTensor> {
    let tensors = named.iter().zip(sizes);
    tensors
        .map(|(tensor, (data_type, count))| JournaledTensor { name: tensor.name.clone(), data_type, count })
        .collect()
}

impl JournaledShape {
    fn record_bytes(&self) -> usize {
        let tensors = self.inputs.iter().chain(&self.outputs).map(JournaledTensor::bytes).sum::<usize>();
        (HEAD + tensors).next_multiple_of(8)
    }
}

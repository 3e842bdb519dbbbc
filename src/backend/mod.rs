//! What a session runs on: one trait, one file a backend.
//!
//! A backend owns the memory of a fixed ring of slots. The session writes a call into a slot's input memory, launches
//! it, and watches the slot's [`Done`]; what happens between is the backend's own.

use std::fmt;
use std::ptr::NonNull;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::completion::{Done, Unit};
use crate::error::Result;
use crate::normalize::Normalizer;
use crate::resident::turn::Sums;
use crate::tensor::{DataType, TensorInfo};

pub mod ort;
pub mod resident;
mod slots;
mod staged;
pub mod tensorrt;

/// The first call on a GPU may load kernels.
const FIRST_CALL: Duration = Duration::from_secs(30);
/// How long a backend on a GPU that is dropped waits for its calls; what still runs then is leaked.
const LAST_CALL: Duration = Duration::from_secs(2);

/// Which backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackendKind {
    /// A kernel of tickrt's own that stays on the GPU and polls for calls.
    Resident,
    /// TensorRT, from a captured CUDA graph.
    #[serde(rename = "tensorrt")]
    TensorRt,
    /// ONNX Runtime's CUDA provider.
    OrtCuda,
    /// ONNX Runtime on the CPU.
    OrtCpu,
    /// One that the caller wrote.
    Custom,
}

impl BackendKind {
    /// Whether it needs the GPU, and so ends with it.
    #[must_use]
    pub fn on_gpu(self) -> bool {
        matches!(self, Self::Resident | Self::TensorRt | Self::OrtCuda)
    }
}

impl fmt::Display for BackendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Resident => "resident",
            Self::TensorRt => "tensorrt",
            Self::OrtCuda => "ort-cuda",
            Self::OrtCpu => "ort-cpu",
            Self::Custom => "custom",
        })
    }
}

/// What a backend computes: its inputs as they are handed over, its outputs as they are delivered, for each shape
/// announced at start.
#[derive(Debug, Clone, Default)]
pub struct Signature {
    /// The network's inputs.
    pub inputs: Vec<TensorInfo>,
    /// The network's outputs.
    pub outputs: Vec<TensorInfo>,
    /// One entry for each shape announced at start, in that order; never empty.
    pub shapes: Vec<CallShape>,
}

/// The sizes of one call.
#[derive(Debug, Clone, Default)]
pub struct CallShape {
    /// For each input, in the signature's order: how it is normalised, which tells its type and length as well.
    pub inputs: Vec<Normalizer>,
    /// For each output, in the signature's order.
    pub outputs: Vec<OutputShape>,
}

/// One output of one call, as it is delivered: f16 and bf16 arrive as f32.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputShape {
    /// Type of the delivered elements.
    pub data_type: DataType,
    /// Dimensions.
    pub shape: Vec<i64>,
    /// Number of elements.
    pub count: usize,
}

impl CallShape {
    /// Elements of all outputs: the units of an answer in band.
    #[must_use]
    pub fn words(&self) -> usize {
        self.outputs.iter().map(|output| output.count).sum()
    }
}

impl OutputShape {
    /// Its size as it is delivered.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.count * self.data_type.size()
    }
}

/// The type in which an output of type `network` is delivered.
#[must_use]
pub fn delivered_type(network: DataType) -> DataType {
    match network {
        DataType::F16 | DataType::Bf16 => DataType::F32,
        other => other,
    }
}

/// From f16 or bf16 to what is delivered.
pub(crate) fn widen(from_type: DataType, from: &[u16], to: &mut [f32]) {
    for (to, &bits) in to.iter_mut().zip(from) {
        *to = match from_type {
            DataType::Bf16 => half::bf16::from_bits(bits).to_f32(),
            _ => half::f16::from_bits(bits).to_f32(),
        };
    }
}

/// What the session tells the device about a call, in mapped memory just before its input. `kernels/params.h` has the
/// same.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, Default)]
pub struct SlotHeader {
    /// The call's number, to be published with its answer. Written last: to a launch ahead of its call, this is the sign
    /// to begin.
    pub sequence: u64,
    /// The number that a launch ahead of its call waits for.
    pub awaited: u64,
    /// 1 for a call on a rolling window.
    pub window: u32,
    /// Which symbol's ring.
    pub symbol: u32,
    /// Rows handed over with this call: the newest ones, at the end of the slot's input memory.
    pub new_rows: u32,
    /// Place of the window's oldest row in the ring.
    pub oldest: u32,
}

/// A piece of a slot's memory.
#[derive(Debug, Clone, Copy)]
pub struct Region {
    /// Its first byte, aligned to 64.
    pub start: NonNull<u8>,
    /// Bytes, for the largest shape. The memory reaches to the end of its last line of 64.
    pub bytes: usize,
}

/// The memory of one slot. It lives, and stays where it is, as long as its backend.
#[derive(Debug, Clone)]
pub struct SlotMemory {
    /// Written by the session before a launch.
    pub header: NonNull<SlotHeader>,
    /// One region an input, as handed over (before normalisation). Written by the session before a launch.
    pub inputs: Vec<Region>,
    /// Where the first input goes once more where the device takes it in band: a [`Unit`] for each word of it, and one more
    /// if that is an odd number. Written by the session before or after a launch, for each call anew.
    pub input_units: Option<NonNull<Unit>>,
    /// Bytes of a row, where the device keeps one window and takes its newest row in band: then there are two more units in
    /// front of the row's, the first of which has the number of rows that the call brings. That is 1, or all of the window's,
    /// which then lie in the first input's memory. Of a device that carries state the input is one row, and the number is 1, or
    /// [`BEGINS_ANEW`](crate::resident::program::BEGINS_ANEW). Rows are whole words.
    pub newest_row: Option<usize>,
    /// One region an output, as delivered. Read by the session once `done` says so.
    pub outputs: Vec<Region>,
    /// Says which call's answer is there, and brings it where it comes in band.
    pub done: Done,
}

// SAFETY: addresses only; whoever follows them keeps the contract of `Backend`, which asks for one user at a time.
unsafe impl Send for SlotMemory {}

/// What became of a call that has not come back in time.
#[derive(Debug, Clone)]
pub enum Health {
    /// Everything launched has finished.
    Idle,
    /// Something is still running.
    Running,
    /// The device says why it failed.
    Failed(crate::Error),
}

/// What a [`Session`](crate::Session) runs on.
///
/// # Safety
/// The pointers of [`slots`](Self::slots) must stay valid and in place as long as the backend, and no two of them may
/// overlap. A launched slot's outputs must be complete before its `done` shows the call's number, and nothing may
/// write them, or read its header and inputs, from then until the next launch of that slot. In band, `done` points to a
/// unit for each word of the largest shape, and nothing but the session writes `outputs`. With `input_units` there is one
/// shape and one input, the input's memory reaches to the end of its last word of 4 bytes, and there is an even number of
/// units, one for each word at least; with `newest_row` an even number of them behind two more, one for each word of a row, and
/// the input is whole rows of as many bytes, a multiple of 4. A backend that takes calls in order reads a slot's units
/// whenever they carry the number of the call that is due.
pub unsafe trait Backend: Send {
    /// Which one.
    fn kind(&self) -> BackendKind;

    /// Library, version and device, for people: `TensorRT 8.6.1 on NVIDIA H100`.
    fn description(&self) -> &str;

    /// SHA-256 of what answers: the plan, or the ONNX model.
    fn engine_id(&self) -> [u8; 32];

    /// What it computes.
    fn signature(&self) -> &Signature;

    /// The ring, allocated at start, and behind its [`depth`](crate::SessionConfig::depth) slots one more if the device
    /// can be kept warm: see [`Session::keep_warm`](crate::Session::keep_warm).
    fn slots(&self) -> &[SlotMemory];

    /// Whether calls run from a captured CUDA graph; if not, why.
    fn graph(&self) -> Result<(), &str>;

    /// Whether the rings of the rolling windows lie on the device: then the session hands over new rows only, otherwise
    /// whole windows.
    fn keeps_windows(&self) -> bool;

    /// Whether the device carries state from call to call: each call hands over one step, and its answer depends on those before.
    fn carries_state(&self) -> bool {
        false
    }

    /// Starts the call in `slot`, with the shapes announced as number `shape`. Data plane: allocates nothing.
    ///
    /// A backend that computes on the CPU does it here and has finished when this returns.
    ///
    /// # Errors
    /// [`ErrorKind::DeviceLost`](crate::ErrorKind::DeviceLost) when CUDA is finished in this process, other kinds when
    /// only this call is.
    fn launch(&mut self, slot: usize, shape: usize) -> Result<()>;

    /// Whether a launch may come before its call's input, for a backend of one shape: it then waits until the header's
    /// `sequence` is what it awaits, or until each unit of the slot's `input_units` carries that number, and ends with
    /// [`Status::EXPIRED`](crate::Status::EXPIRED) if that does not happen in time.
    fn launches_ahead(&self) -> bool {
        false
    }

    /// Whether the device takes calls by their numbers: call `n` in slot `(n - 1) % slots().len()`, none left out. Then it
    /// takes inputs by `input_units` alone, which it reads before [`launch`](Self::launch), and there are as many slots as
    /// [`depth`](crate::SessionConfig::depth) says.
    fn takes_calls_in_order(&self) -> bool {
        false
    }

    /// How many calls the device takes for made: the first one's number is one more.
    #[doc(hidden)]
    fn calls_before(&self) -> u64 {
        0
    }

    /// Whether the device says [`Status::NON_FINITE_INPUT`](crate::Status::NON_FINITE_INPUT) where the normalisation refuses
    /// NaN; else the session looks at the input itself.
    fn refuses_non_finite(&self) -> bool {
        true
    }

    /// Ends what waits on the device for calls, so that nothing keeps it busy until the next one, which will have number `next`;
    /// its slot is in use still unless `is_free`. Calls before it are answered all the same.
    fn rest(&mut self, _next: u64, _is_free: bool) {}

    /// Has the device wait for calls again.
    ///
    /// # Errors
    /// Those of [`launch`](Self::launch).
    fn wake(&mut self) -> Result<()> {
        Ok(())
    }

    /// What the turns of a resident engine that have ended add up to; `None` of any other backend.
    #[doc(hidden)]
    fn turns(&self) -> Option<Sums> {
        None
    }

    /// For tests: where a resident engine's weights lie on the GPU, and their bytes.
    #[doc(hidden)]
    fn weights(&self) -> Option<(u64, usize)> {
        None
    }

    /// Asks the device what became of its calls. Control plane: may call the driver.
    fn health(&mut self) -> Health;

    /// Bytes of device memory that this backend holds; 0 on a CPU.
    fn device_memory(&self) -> u64;

    /// Called instead of any other method, `Drop`'s driver calls included, once CUDA is finished in this process: from
    /// here on the backend makes no driver call, and its slots' memory stays readable.
    fn quarantine(&mut self);
}

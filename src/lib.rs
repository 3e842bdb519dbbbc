//! TensorRT at batch 1 with the lowest, steadiest latency, and an answer even when the GPU is gone.
//!
//! An ONNX model becomes a plan ([`Builder`]), a plan an [`Engine`], an engine a [`Session`] that answers in
//! microseconds:
//!
//! ```no_run
//! # fn main() -> tickrt::Result<()> {
//! let mut session = tickrt::Session::load("models/toy_cnn.engine")?;
//! let mut scores = [0.0_f32; 3];
//! session.infer(&[0.0_f32; 256], &mut scores)?;
//! # Ok(()) }
//! ```
//!
//! A [`Predictor`] holds a chain of backends, TensorRT first, ONNX Runtime behind it, and says at any time which one
//! answers and why each earlier one does not.
//!
//! TensorRT and ONNX Runtime are looked for when they are first used, not when the program is linked. TensorRT: in
//! `$TENSORRT_ROOT`, then (TensorRT-RTX) in `$TICKRT_SDK`, the folder `.sdk` that `scripts/setup` fills, then where the
//! dynamic linker looks. ONNX Runtime: the library that `$ORT_DYLIB_PATH` names and no other, else in `$TICKRT_SDK`, else where the
//! dynamic linker looks. NVRTC, which is needed to build a resident engine and not to run one: the library that `$TICKRT_NVRTC` names
//! and no other, else in `$TICKRT_SDK`, `$CUDA_HOME/lib64`, `/usr/local/cuda/lib64`, else where the dynamic linker looks. The feature `tool`, on by default, adds the command-line tool with the packages that it alone
//! needs, `data` and `stats`; a program that links the library turns it off.
//!
//! The control plane (build, load, start) validates everything, allocates and explains. The data plane (`submit`,
//! `poll`, `wait`) allocates nothing, locks nothing, logs nothing and calls no C++.

/// What the completion protocol is made of; tests/completion_model puts loom's in its place.
mod atomic {
    pub(crate) use std::sync::atomic::{AtomicU64, Ordering, fence};
}
mod autotune;
pub mod backend;
mod bridge;
mod builder;
mod calibration;
mod completion;
mod config;
mod counters;
#[cfg(feature = "tool")]
pub mod data;
mod device;
mod engine;
mod error;
mod files;
mod fork;
pub mod journal;
mod library;
mod logging;
#[cfg(feature = "metrics")]
mod metrics;
mod native;
mod normalize;
#[cfg(feature = "metrics")]
#[doc(hidden)]
pub mod nvml;
mod nvtx;
pub mod onnx;
mod plan;
mod predictor;
#[doc(hidden)]
pub mod resident;
mod sealed;
mod session;
#[cfg(feature = "tool")]
pub mod stats;
mod tensor;
#[cfg(test)]
mod test_support;
pub mod thread;
pub mod trust;
#[doc(hidden)]
pub mod untrusted;
mod window;

pub use autotune::{Candidate, autotune};
pub use backend::{Backend, BackendKind};
pub use builder::*;
pub use calibration::{Calibration, CalibrationMethod, CalibrationSource, CalibrationTable, Ranges, observe};
#[cfg(feature = "tool")]
pub use calibration::{FileSamples, read_files};
pub use completion::{Completion, Done, Status, Unit};
pub use config::{GapPolicy, ResidentConfig, SessionConfig, WaitStrategy, WindowConfig};
pub use counters::Counters;
pub use device::{Device, MemoryInfo};
pub use engine::Engine;
pub use error::{Error, ErrorKind, Result};
pub use library::{Flavour, Library, LogLevel, Place, Preference, SkippedLibrary, Surveyed, Version, set_log_level};
#[cfg(feature = "metrics")]
pub use metrics::Metrics;
pub use normalize::{Layout, NonFinite, Normalization, Normalizer, Stats};
pub use plan::{Gpu, Plan, Sidecar, Target};
pub use predictor::{
    Checked, KnownAnswer, Outgoing, PassedOver, Predictor, PredictorBuilder, PredictorSlot, SwapRefused,
};
pub use session::{Answer, InputSlot, Outputs, Session, Ticket};
pub use tensor::{DataType, Element, IoMode, Shapes, TensorInfo, elements, format_shape};

/// The book's examples in Rust, compiled with the documentation's own. tests/docs.rs has the rest of the book.
#[cfg(doctest)]
mod book {
    #[doc = include_str!("../docs/src/quick-start.md")]
    mod quick_start {}
    #[doc = include_str!("../docs/src/rust.md")]
    mod rust {}
    #[doc = include_str!("../docs/src/host.md")]
    mod host {}
    #[doc = include_str!("../docs/src/watching.md")]
    mod watching {}
    #[doc = include_str!("../docs/src/signatures.md")]
    mod signatures {}
    #[doc = include_str!("../docs/src/resident.md")]
    mod resident {}
}

//! TensorRT's objects as Rust values: thin wrappers over the bridge that return this crate's [`Error`].
//!
//! Ownership is C++'s: a context keeps its engine, an engine its runtime and its library (`shared_ptr` inside), so
//! the order in which these values are dropped does not matter.

use cxx::{SharedPtr, UniquePtr};

use crate::bridge::ffi;
use crate::builder::{HardwareCompatibility, Observer, OptimizationProfile, ProfileShape};
use crate::calibration::Calibrator;
use crate::error::{Error, ErrorKind, Result};
use crate::library::{Flavour, LogLevel, Version};
use crate::tensor::{DataType, IoMode, TensorInfo};

/// A loaded library with its flavour's shim.
pub(crate) struct NativeLibrary {
    library: SharedPtr<ffi::Library>,
}

// SAFETY: `api::Library` is immutable after `open_library`, apart from the lazily opened parser (behind std::call_once,
// cpp/loader.cc) and the logger (behind a mutex, cpp/log.cc); TensorRT's factories may be called from any thread.
unsafe impl Send for NativeLibrary {}
// SAFETY: as for Send: every method of `api::Library` is const or guarded.
unsafe impl Sync for NativeLibrary {}

/// What opening a library tells.
pub(crate) struct Opened {
    pub native: NativeLibrary,
    pub flavour: Flavour,
    pub version: Version,
    pub path: String,
}

impl NativeLibrary {
    /// `name` is a path or a soname.
    pub fn open(name: &str) -> Result<Opened> {
        Self::opened(ffi::open_library(name))
    }

    /// Whether a TensorRT is linked in.
    pub fn is_linked() -> bool {
        ffi::has_linked_library()
    }

    /// The one that is linked in.
    pub fn linked() -> Result<Opened> {
        Self::opened(ffi::open_linked_library())
    }

    fn opened(reply: ffi::OpenReply) -> Result<Opened> {
        check(reply.failure)?;
        Ok(Opened {
            native: Self { library: reply.library },
            flavour: reply.flavour.into(),
            version: reply.version.into(),
            path: reply.path,
        })
    }

    /// The reply's failure and parser errors are the caller's to read.
    pub fn build_onnx(
        &self,
        onnx: &[u8],
        path: &str,
        options: &ffi::BuildOptions,
        timing_cache: &[u8],
        observer: &Observer,
        calibrator: &Calibrator,
    ) -> ffi::BuildReply {
        ffi::build_onnx(&self.library, onnx, path, options, timing_cache, observer, calibrator)
    }

    pub fn build_smoke(&self, options: &ffi::BuildOptions, observer: &Observer) -> ffi::BuildReply {
        ffi::build_smoke(&self.library, options, observer, &Calibrator::none())
    }

    /// Only for bytes that were checked before: TensorRT has crashed on damaged plans. `allow_host_code` is for
    /// version-compatible plans, which carry code that then runs in this process.
    pub fn deserialize(&self, plan: &[u8], allow_host_code: bool) -> Result<NativeEngine> {
        let reply = ffi::deserialize(&self.library, plan, allow_host_code);
        check(reply.failure)?;
        Ok(NativeEngine { engine: reply.engine })
    }
}

/// An `ICudaEngine`. It keeps the runtime and the library alive.
pub(crate) struct NativeEngine {
    engine: SharedPtr<ffi::Engine>,
}

// SAFETY: TensorRT documents ICudaEngine as usable from several threads for const methods and for creating
// contexts; `api::Engine` has no others.
unsafe impl Send for NativeEngine {}
// SAFETY: as for Send.
unsafe impl Sync for NativeEngine {}

/// An input or output of an engine.
#[derive(Debug, Clone)]
pub(crate) struct EngineTensor {
    pub info: TensorInfo,
    /// TensorRT reads or writes it on the host (a shape tensor).
    pub on_host: bool,
    /// TensorRT's words for the layout where it is not plain row-major.
    pub layout: Option<String>,
}

/// What an engine says of itself.
#[derive(Debug, Clone)]
#[allow(dead_code, reason = "all that TensorRT tells; not everything is shown yet")]
pub(crate) struct EngineFacts {
    pub name: String,
    pub tensors: Vec<EngineTensor>,
    pub profiles: Vec<OptimizationProfile>,
    pub layers: u32,
    pub device_memory_bytes: u64,
    pub aux_streams: u32,
    pub hardware_compatibility: HardwareCompatibility,
    pub refittable: bool,
}

impl NativeEngine {
    pub fn facts(&self) -> Result<EngineFacts> {
        let facts = ffi::engine_facts(&self.engine);
        Ok(EngineFacts {
            name: facts.name,
            tensors: facts.tensors.into_iter().map(EngineTensor::try_from).collect::<Result<_>>()?,
            profiles: facts.profiles.into_iter().map(OptimizationProfile::from).collect(),
            layers: facts.layers,
            device_memory_bytes: facts.device_memory_bytes,
            aux_streams: facts.aux_streams,
            hardware_compatibility: facts.hardware_compatibility.into(),
            refittable: facts.refittable,
        })
    }

    /// TensorRT's own description of the layers (`IEngineInspector`), JSON; how much it tells depends on the
    /// profiling verbosity at build time. Empty where TensorRT gives none.
    pub fn layers_json(&self) -> String {
        ffi::engine_layers_json(&self.engine)
    }

    /// A context on `profile`, chosen on `stream` (a `CUstream` as a number; profile 0 needs none). With
    /// `caller_gives_memory` it has no activation memory until [`NativeContext::set_device_memory`].
    pub fn create_context(&self, profile: u32, stream: usize, caller_gives_memory: bool) -> Result<NativeContext> {
        let reply = ffi::create_context(&self.engine, profile, stream, caller_gives_memory);
        check(reply.failure)?;
        Ok(NativeContext { context: reply.context })
    }
}

/// An `IExecutionContext`. It keeps its engine alive.
pub(crate) struct NativeContext {
    context: UniquePtr<ffi::Context>,
}

// SAFETY: TensorRT's contexts are bound to no thread, only not to be used by two at once: every method that changes
// one takes `&mut self`, and the type is not Sync.
unsafe impl Send for NativeContext {}

impl NativeContext {
    /// Gives the context its activation memory: at least the engine's `device_memory_bytes`, 256-byte aligned.
    ///
    /// # Safety
    /// `address` is device memory of `bytes` bytes that outlives the context's last execution.
    pub unsafe fn set_device_memory(&mut self, address: u64, bytes: u64) {
        ffi::set_device_memory(self.context.pin_mut(), address as usize, bytes);
    }

    pub fn set_input_shape(&mut self, tensor: &str, shape: &[i64]) -> Result<()> {
        check(ffi::set_input_shape(self.context.pin_mut(), tensor, shape))
    }

    /// The shape as far as it is known: −1 where it is not yet, empty also for a tensor that doesn't exist.
    pub fn tensor_shape(&self, tensor: &str) -> Vec<i64> {
        ffi::tensor_shape(self.context.as_ref().expect("never null"), tensor)
    }

    /// # Safety
    /// `address` is memory where TensorRT expects the tensor (device or host), of its size for the shape in force,
    /// that outlives the context's last execution.
    pub unsafe fn set_tensor_address(&mut self, tensor: &str, address: u64) -> Result<()> {
        check(ffi::set_tensor_address(self.context.pin_mut(), tensor, address as usize))
    }

    pub fn all_shapes_specified(&mut self) -> bool {
        ffi::all_shapes_specified(self.context.pin_mut())
    }

    /// `enqueueV3`. On `false`, [`Self::take_log`] tells what TensorRT said.
    ///
    /// # Safety
    /// `stream` is a live `CUstream` of the context's device, and every address set is still valid.
    pub unsafe fn enqueue(&mut self, stream: usize) -> bool {
        self.context.pin_mut().enqueue(stream)
    }

    /// TensorRT's lines since the last call: for the control plane, it allocates.
    pub fn take_log(&mut self) -> Vec<String> {
        ffi::take_log(self.context.pin_mut())
    }

    /// From here on each [`enqueue`](Self::enqueue) waits for the GPU and tells what every layer took; captured graphs are void.
    pub fn profile_layers(&mut self) {
        ffi::profile_layers(self.context.pin_mut());
    }

    /// Names and milliseconds in the order of execution, since the last call.
    pub fn take_layer_times(&mut self) -> Vec<(String, f32)> {
        ffi::take_layer_times(self.context.pin_mut()).into_iter().map(|time| (time.name, time.ms)).collect()
    }
}

/// Sends TensorRT's lines up to `level` to [`crate::library::native_log_line`].
pub(crate) fn forward_log(level: LogLevel) {
    let least = match level {
        LogLevel::Off | LogLevel::Error => ffi::Severity::Error,
        LogLevel::Warning => ffi::Severity::Warning,
        LogLevel::Info => ffi::Severity::Info,
        LogLevel::Verbose => ffi::Severity::Verbose,
    };
    ffi::forward_log(level != LogLevel::Off, least);
}

/// Turns the bridge's outcome into this crate's.
fn check(failure: ffi::Failure) -> Result<()> {
    if failure.kind == ffi::FailureKind::None { Ok(()) } else { Err(error(failure)) }
}

/// The error of a call that did fail.
pub(crate) fn error(failure: ffi::Failure) -> Error {
    let kind = match failure.kind {
        ffi::FailureKind::InvalidArgument => ErrorKind::InvalidArgument,
        ffi::FailureKind::Onnx => ErrorKind::Onnx,
        ffi::FailureKind::UnsupportedOperator => ErrorKind::UnsupportedOperator,
        ffi::FailureKind::Cancelled => ErrorKind::Cancelled,
        ffi::FailureKind::Unsupported => ErrorKind::Unsupported,
        ffi::FailureKind::PlanRefused => ErrorKind::PlanRefused,
        ffi::FailureKind::Shape => ErrorKind::Shape,
        ffi::FailureKind::LibraryMissing => ErrorKind::TensorRtMissing,
        ffi::FailureKind::NoGpu => ErrorKind::NoGpu,
        ffi::FailureKind::OutOfMemory => ErrorKind::OutOfMemory,
        ffi::FailureKind::Execution => ErrorKind::Execution,
        _ => ErrorKind::Build,
    };
    Error::new(kind, failure.operation)
        .expected(failure.expected)
        .got(failure.got)
        .advice(failure.advice)
        .log(failure.log)
}

impl From<ffi::Flavour> for Flavour {
    fn from(flavour: ffi::Flavour) -> Self {
        match flavour {
            ffi::Flavour::Trt8 => Self::Trt8,
            ffi::Flavour::Trt10 => Self::Trt10,
            ffi::Flavour::Trt11 => Self::Trt11,
            _ => Self::Rtx,
        }
    }
}

impl From<ffi::Version> for Version {
    fn from(version: ffi::Version) -> Self {
        Self { major: version.major, minor: version.minor, patch: version.patch }
    }
}

impl From<ffi::HardwareCompatibility> for HardwareCompatibility {
    fn from(level: ffi::HardwareCompatibility) -> Self {
        match level {
            ffi::HardwareCompatibility::AmperePlus => Self::AmperePlus,
            ffi::HardwareCompatibility::SameComputeCapability => Self::SameComputeCapability,
            _ => Self::None,
        }
    }
}

impl From<ffi::Profile> for OptimizationProfile {
    fn from(profile: ffi::Profile) -> Self {
        let ranges = profile.ranges.into_iter();
        Self {
            shapes: ranges
                .map(|range| (range.tensor, ProfileShape { min: range.min, opt: range.opt, max: range.max }))
                .collect(),
        }
    }
}

impl TryFrom<ffi::Tensor> for EngineTensor {
    type Error = Error;

    fn try_from(tensor: ffi::Tensor) -> Result<Self> {
        let data_type = data_type(tensor.element).ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, format!("read the type of tensor `{}`", tensor.name))
                .got("one of FP8, INT4, FP4, E8M0")
                .advice("cast it to f32 or f16 inside the model")
        })?;
        let mode = if tensor.is_input { IoMode::Input } else { IoMode::Output };
        Ok(Self {
            info: TensorInfo { name: tensor.name, mode, data_type, shape: tensor.shape },
            on_host: tensor.on_host,
            layout: Some(tensor.layout).filter(|layout| !layout.is_empty()),
        })
    }
}

fn data_type(element: ffi::ElementType) -> Option<DataType> {
    Some(match element {
        ffi::ElementType::F32 => DataType::F32,
        ffi::ElementType::F16 => DataType::F16,
        ffi::ElementType::Bf16 => DataType::Bf16,
        ffi::ElementType::F64 => DataType::F64,
        ffi::ElementType::I8 => DataType::I8,
        ffi::ElementType::U8 => DataType::U8,
        ffi::ElementType::I16 => DataType::I16,
        ffi::ElementType::I32 => DataType::I32,
        ffi::ElementType::I64 => DataType::I64,
        ffi::ElementType::Bool => DataType::Bool,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::path::PathBuf;

    use crate::{ErrorKind, Library, Preference};

    #[test]
    fn plan_that_is_none_is_refused_with_tensorrts_words() {
        let sdk = env::var_os("TICKRT_SDK").map_or_else(|| PathBuf::from(".sdk"), PathBuf::from);
        let library = match Library::open_any(&Preference::Path(sdk.join("lib/tensorrt-rtx"))) {
            Ok(library) => library,
            Err(error) if env::var("TICKRT_REQUIRE_SDK").as_deref() == Ok("1") => panic!("{error}"),
            Err(error) => return eprintln!("skipped: {error}"),
        };
        for bytes in [&[0_u8; 64][..], &[]] {
            let error = library.native().deserialize(bytes, false).err().expect("no plan");
            // Without a GPU TensorRT doesn't come as far as the bytes.
            assert!(matches!(error.kind(), ErrorKind::PlanRefused | ErrorKind::NoGpu), "{error:?}");
            assert!(!error.log_lines().is_empty(), "{error:?}");
        }
    }
}

//! What a build is asked for (`IBuilderConfig`).

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::profile::OptimizationProfile;
use crate::bridge::ffi;
use crate::library::Flavour;

/// Memory that a build or an engine may use (`MemoryPoolType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemoryPool {
    /// Scratch memory of layers on the GPU.
    Workspace,
    /// DLA's fast memory.
    DlaManagedSram,
    /// DLA's host memory for intermediate tensors.
    DlaLocalDram,
    /// DLA's host memory for weights.
    DlaGlobalDram,
    /// Memory that tactics may use while they are timed.
    TacticDram,
    /// Shared memory a tactic may use; from TensorRT 10 on.
    TacticSharedMemory,
}

/// How much TensorRT 8 and 10 may depart from the types set on layers. The others never do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PrecisionConstraints {
    /// They are hints.
    #[default]
    None,
    /// Keep them where an implementation exists, warn where none does.
    Prefer,
    /// Keep them or fail.
    Obey,
}

/// How a network comes to compute in INT8.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Int8Mode {
    /// As TensorRT does it itself where it does, which is TensorRT 8 and 10 without strong typing; else by nodes in the
    /// model.
    #[default]
    Auto,
    /// TensorRT's own calibrator, and its own choice of what is INT8.
    Native,
    /// QuantizeLinear and DequantizeLinear nodes in the model, with scales that tickrt finds.
    Qdq,
}

/// Which other GPUs an engine is to run on (`HardwareCompatibilityLevel`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HardwareCompatibility {
    /// None but the model that it was built on.
    #[default]
    None,
    /// Ampere and everything newer.
    AmperePlus,
    /// Those of the same compute capability; from TensorRT 10 on.
    SameComputeCapability,
}

/// How much an engine can tell of its layers (`ProfilingVerbosity`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ProfilingVerbosity {
    /// Names.
    #[default]
    LayerNamesOnly,
    /// Nothing.
    None,
    /// Everything.
    Detailed,
}

/// The GPUs that TensorRT-RTX builds for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ComputeCapabilities {
    /// 8.0, 8.6, 8.9 and 12.0: one plan for them all, built on any machine.
    ///
    /// 7.5 must be asked for: TensorRT-RTX cannot compile FP32 matrix products for it.
    #[default]
    All,
    /// The GPU at hand; needs one.
    Current,
    /// These: 75 for 7.5, 120 for 12.0.
    List(Vec<u32>),
}

/// The lowest precision that a network may compute in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit float throughout.
    Fp32,
    /// 32-bit float, matrix products with 10 bits of mantissa (TensorRT's default on Ampere and newer).
    Tf32,
    /// 16-bit float somewhere.
    Fp16,
    /// 16-bit brain float somewhere.
    Bf16,
    /// 8-bit integers somewhere.
    Int8,
    /// 8-bit float (E4M3) somewhere.
    Fp8,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Fp32 => "fp32",
            Self::Tf32 => "tf32",
            Self::Fp16 => "fp16",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
            Self::Fp8 => "fp8",
        })
    }
}

/// Options of a build (`IBuilderConfig`). What is not set is left to TensorRT.
///
/// An option that the library's version lacks is refused before the build, with what to do instead; it is never
/// silently dropped.
#[derive(Debug, Clone)]
pub struct BuilderConfig {
    pub(super) name: String,
    pub(super) pools: BTreeMap<MemoryPool, u64>,
    pub(super) profiles: Vec<OptimizationProfile>,
    pub(super) optimization_level: Option<u8>,
    pub(super) max_aux_streams: Option<u32>,
    pub(super) avg_timing_iterations: Option<u32>,
    pub(super) fp16: bool,
    pub(super) bf16: bool,
    pub(super) int8: bool,
    pub(super) fp8: bool,
    pub(super) int8_mode: Int8Mode,
    pub(super) keep_fp32: Vec<String>,
    pub(super) tf32: bool,
    pub(super) strongly_typed: bool,
    pub(super) precision_constraints: PrecisionConstraints,
    pub(super) version_compatible: bool,
    pub(super) hardware_compatibility: HardwareCompatibility,
    pub(super) profiling_verbosity: ProfilingVerbosity,
    pub(super) compute_capabilities: ComputeCapabilities,
    pub(super) timing_cache: Option<PathBuf>,
    pub(super) verbose: bool,
}

impl Default for BuilderConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            pools: BTreeMap::new(),
            profiles: Vec::new(),
            optimization_level: None,
            max_aux_streams: None,
            avg_timing_iterations: None,
            fp16: false,
            bf16: false,
            int8: false,
            fp8: false,
            int8_mode: Int8Mode::Auto,
            keep_fp32: Vec::new(),
            tf32: true,
            strongly_typed: false,
            precision_constraints: PrecisionConstraints::None,
            version_compatible: false,
            hardware_compatibility: HardwareCompatibility::None,
            profiling_verbosity: ProfilingVerbosity::LayerNamesOnly,
            compute_capabilities: ComputeCapabilities::All,
            timing_cache: None,
            verbose: false,
        }
    }
}

/// The setters.
impl BuilderConfig {
    /// TensorRT's defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Names the network, for logs and inspection.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Limits the layers' scratch memory to `bytes`.
    #[must_use]
    pub fn workspace(self, bytes: u64) -> Self {
        self.memory_pool(MemoryPool::Workspace, bytes)
    }

    /// Limits a memory pool to `bytes`.
    #[must_use]
    pub fn memory_pool(mut self, pool: MemoryPool, bytes: u64) -> Self {
        self.pools.insert(pool, bytes);
        self
    }

    /// Adds an optimization profile; their order is their index.
    #[must_use]
    pub fn profile(mut self, profile: OptimizationProfile) -> Self {
        self.profiles.push(profile);
        self
    }

    /// How long TensorRT may search, 0 to 5; TensorRT's default is 3.
    #[must_use]
    pub fn builder_optimization_level(mut self, level: u8) -> Self {
        self.optimization_level = Some(level);
        self
    }

    /// The most auxiliary streams that an engine may use; 0 keeps everything on one.
    #[must_use]
    pub fn max_aux_streams(mut self, streams: u32) -> Self {
        self.max_aux_streams = Some(streams);
        self
    }

    /// How often a tactic is timed.
    #[must_use]
    pub fn avg_timing_iterations(mut self, iterations: u32) -> Self {
        self.avg_timing_iterations = Some(iterations);
        self
    }

    /// Lets layers compute in FP16: by a flag with TensorRT 8 and 10, where the fastest is chosen, and by casts in the
    /// model where networks are strongly typed, where every layer does that can ([`Model::to_half`]).
    ///
    /// [`Model::to_half`]: crate::onnx::Model::to_half
    #[must_use]
    pub fn fp16(mut self, on: bool) -> Self {
        self.fp16 = on;
        self
    }

    /// Lets layers compute in BF16, likewise; TensorRT 8 has none.
    #[must_use]
    pub fn bf16(mut self, on: bool) -> Self {
        self.bf16 = on;
        self
    }

    /// Lets layers compute in INT8. The model must have been quantised (Q/DQ nodes), or the builder be given a
    /// [`Calibration`](crate::Calibration).
    #[must_use]
    pub fn int8(mut self, on: bool) -> Self {
        self.int8 = on;
        self
    }

    /// Lets layers compute in FP8 (E4M3), by Q/DQ nodes in the model, which need a [`Calibration`](crate::Calibration) as
    /// INT8's do. TensorRT 8 has none, nor has a GPU before compute capability 8.9.
    #[must_use]
    pub fn fp8(mut self, on: bool) -> Self {
        self.fp8 = on;
        self
    }

    /// How a model without Q/DQ nodes comes to compute in INT8.
    #[must_use]
    pub fn int8_mode(mut self, mode: Int8Mode) -> Self {
        self.int8_mode = mode;
        self
    }

    /// Has these nodes, or all nodes of these operators, compute in FP32 whatever else is asked for. With TensorRT 8 and
    /// 10 that binds as [`precision_constraints`](Self::precision_constraints) says, [`PrecisionConstraints::Prefer`] at
    /// least.
    #[must_use]
    pub fn keep_fp32<Word: Into<String>>(mut self, nodes: impl IntoIterator<Item = Word>) -> Self {
        self.keep_fp32.extend(nodes.into_iter().map(Into::into));
        self
    }

    /// Lets FP32 layers use TF32 where the GPU has it: TensorRT's default.
    #[must_use]
    pub fn tf32(mut self, on: bool) -> Self {
        self.tf32 = on;
        self
    }

    /// Takes every type from the model. TensorRT 10 has the choice; 11 and RTX always do; 8 cannot.
    #[must_use]
    pub fn strongly_typed(mut self, on: bool) -> Self {
        self.strongly_typed = on;
        self
    }

    /// How binding the types set on layers are. A strongly typed network keeps them in any case.
    #[must_use]
    pub fn precision_constraints(mut self, constraints: PrecisionConstraints) -> Self {
        self.precision_constraints = constraints;
        self
    }

    /// Makes a plan that later versions of TensorRT can load (it then carries code).
    #[must_use]
    pub fn version_compatible(mut self, on: bool) -> Self {
        self.version_compatible = on;
        self
    }

    /// Makes a plan that other GPUs can run, for some speed.
    #[must_use]
    pub fn hardware_compatibility(mut self, level: HardwareCompatibility) -> Self {
        self.hardware_compatibility = level;
        self
    }

    /// How much the engine can tell of its layers.
    #[must_use]
    pub fn profiling_verbosity(mut self, verbosity: ProfilingVerbosity) -> Self {
        self.profiling_verbosity = verbosity;
        self
    }

    /// TensorRT-RTX: the GPUs to build for.
    #[must_use]
    pub fn compute_capabilities(mut self, capabilities: ComputeCapabilities) -> Self {
        self.compute_capabilities = capabilities;
        self
    }

    /// Reads tactics' timings from this file and writes them back, with their SHA-256 beside them (`FILE.sha256`). A
    /// stale or damaged file is reported and replaced. One without that hash, from trtexec, is taken at its word:
    /// TensorRT 8.6 sees another GPU's and another version's, and begins anew without a word where it finds rubbish.
    #[must_use]
    pub fn timing_cache_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.timing_cache = Some(path.into());
        self
    }

    /// Keeps TensorRT's info and verbose lines in [`BuiltPlan::log`](super::BuiltPlan::log).
    #[must_use]
    pub fn verbose(mut self, on: bool) -> Self {
        self.verbose = on;
        self
    }
}

/// What the builder asks of it.
impl BuilderConfig {
    pub(super) fn profiles(&self) -> &[OptimizationProfile] {
        &self.profiles
    }

    pub(super) fn timing_cache_path(&self) -> Option<&Path> {
        self.timing_cache.as_deref()
    }

    /// Options that have no effect here, though nothing is wrong.
    pub(super) fn notes(&self, flavour: Flavour) -> Vec<String> {
        let cache = self.timing_cache.as_ref().filter(|_| flavour == Flavour::Rtx);
        let note = |path: &PathBuf| {
            format!("TensorRT-RTX uses no timing cache: {} was neither read nor written", path.display())
        };
        cache.map(note).into_iter().collect()
    }

    pub(super) fn precision(&self, reply: &ffi::BuildReply) -> Precision {
        if self.fp8 {
            Precision::Fp8
        } else if self.int8 || reply.has_quantized {
            Precision::Int8
        } else if self.fp16 || reply.has_half {
            Precision::Fp16
        } else if self.bf16 || reply.has_bfloat {
            Precision::Bf16
        } else if self.tf32 {
            Precision::Tf32
        } else {
            Precision::Fp32
        }
    }
}

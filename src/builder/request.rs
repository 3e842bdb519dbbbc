//! The configuration in the bridge's words.

use super::config::{
    BuilderConfig, ComputeCapabilities, HardwareCompatibility, MemoryPool, PrecisionConstraints, ProfilingVerbosity,
};
use super::profile::OptimizationProfile;
use crate::bridge::ffi;
use crate::library::Flavour;

/// What TensorRT-RTX builds for when nobody says: the same plan on every machine, with or without a GPU. Turing (75) is
/// not among them: TensorRT-RTX 1.7 cannot compile a matrix product in FP32 for it, and the whole build would fail.
const RTX_COMPUTE_CAPABILITIES: [u32; 4] = [80, 86, 89, 120];
impl BuilderConfig {
    pub(super) fn to_bridge(&self, flavour: Flavour) -> ffi::BuildOptions {
        let count = |value: Option<u32>| value.map_or(-1, |value| i32::try_from(value).unwrap_or(i32::MAX));
        ffi::BuildOptions {
            network_name: self.name.clone(),
            pools: self.pools.iter().map(|(&pool, &bytes)| ffi::PoolLimit { pool: pool.into(), bytes }).collect(),
            profiles: self.profiles.iter().map(to_bridge).collect(),
            optimization_level: count(self.optimization_level.map(u32::from)),
            max_aux_streams: count(self.max_aux_streams),
            avg_timing_iterations: count(self.avg_timing_iterations),
            fp16: self.fp16,
            bf16: self.bf16,
            int8: self.int8,
            fp8: self.fp8,
            tf32: self.tf32,
            strongly_typed: self.strongly_typed,
            precision_constraints: self.precision_constraints.into(),
            keep_fp32: Vec::new(),
            calibration: ffi::CalibrationAlgorithm::None,
            calibration_quantile: 1.0,
            calibration_shapes: ffi::Profile { ranges: Vec::new() },
            version_compatible: self.version_compatible,
            hardware_compatibility: match self.hardware_compatibility {
                HardwareCompatibility::None => ffi::HardwareCompatibility::None,
                HardwareCompatibility::AmperePlus => ffi::HardwareCompatibility::AmperePlus,
                HardwareCompatibility::SameComputeCapability => ffi::HardwareCompatibility::SameComputeCapability,
            },
            profiling_verbosity: match self.profiling_verbosity {
                ProfilingVerbosity::LayerNamesOnly => ffi::ProfilingVerbosity::LayerNamesOnly,
                ProfilingVerbosity::None => ffi::ProfilingVerbosity::None,
                ProfilingVerbosity::Detailed => ffi::ProfilingVerbosity::Detailed,
            },
            compute_capabilities: match &self.compute_capabilities {
                _ if flavour != Flavour::Rtx => Vec::new(),
                ComputeCapabilities::All => RTX_COMPUTE_CAPABILITIES.to_vec(),
                ComputeCapabilities::Current => Vec::new(),
                ComputeCapabilities::List(list) => list.clone(),
            },
            use_timing_cache: flavour != Flavour::Rtx && self.timing_cache.is_some(),
            verbose: self.verbose,
        }
    }
}

fn to_bridge(profile: &OptimizationProfile) -> ffi::Profile {
    let ranges = profile.shapes.iter().map(|(tensor, shape)| ffi::ShapeRange {
        tensor: tensor.clone(),
        min: shape.min.clone(),
        opt: shape.opt.clone(),
        max: shape.max.clone(),
    });
    ffi::Profile { ranges: ranges.collect() }
}

impl From<PrecisionConstraints> for ffi::PrecisionConstraints {
    fn from(constraints: PrecisionConstraints) -> Self {
        match constraints {
            PrecisionConstraints::None => Self::None,
            PrecisionConstraints::Prefer => Self::Prefer,
            PrecisionConstraints::Obey => Self::Obey,
        }
    }
}

impl From<MemoryPool> for ffi::MemoryPool {
    fn from(pool: MemoryPool) -> Self {
        match pool {
            MemoryPool::Workspace => Self::Workspace,
            MemoryPool::DlaManagedSram => Self::DlaManagedSram,
            MemoryPool::DlaLocalDram => Self::DlaLocalDram,
            MemoryPool::DlaGlobalDram => Self::DlaGlobalDram,
            MemoryPool::TacticDram => Self::TacticDram,
            MemoryPool::TacticSharedMemory => Self::TacticSharedMemory,
        }
    }
}

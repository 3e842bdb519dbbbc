//! What each version cannot do: refused before anything is built, with what to do instead.

use super::config::{BuilderConfig, ComputeCapabilities, HardwareCompatibility, MemoryPool};
use super::profile::{OptimizationProfile, ProfileShape};
use crate::error::{Error, ErrorKind, Result};
use crate::library::{Flavour, Version};
use crate::tensor::format_shape;

/// Those that TensorRT-RTX knows at all.
const RTX_KNOWN: [u32; 6] = [75, 80, 86, 89, 120, 121];

impl BuilderConfig {
    /// Ends in an error for everything that this version can't do: nothing that was asked for is dropped.
    pub(super) fn refuse_what_cannot_be(&self, flavour: Flavour, version: Version) -> Result<()> {
        self.profiles.iter().try_for_each(OptimizationProfile::check)?;
        self.refuse_types(flavour, version)?;
        self.refuse_compatibility(flavour, version)?;
        self.refuse_capabilities(flavour, version)?;
        if let Some(level @ 6..) = self.optimization_level {
            return Err(Error::new(ErrorKind::InvalidArgument, "set the builder optimization level")
                .expected("0 to 5")
                .got(level.to_string()));
        }
        if flavour == Flavour::Trt8 && self.pools.contains_key(&MemoryPool::TacticSharedMemory) {
            return Err(unsupported(
                version,
                "limit tactics' shared memory",
                "leave the limit out, or use TensorRT 10",
            ));
        }
        Ok(())
    }

    fn refuse_types(&self, flavour: Flavour, version: Version) -> Result<()> {
        if self.bf16 && flavour == Flavour::Trt8 {
            return Err(unsupported(version, "build in BF16", "use FP16, or TensorRT 10"));
        }
        if self.fp8 && flavour == Flavour::Trt8 {
            return Err(unsupported(version, "build in FP8", "use INT8, or TensorRT 10"));
        }
        if self.strongly_typed && flavour == Flavour::Trt8 {
            return Err(unsupported(
                version,
                "build a strongly typed network",
                "use PrecisionConstraints::Obey, or TensorRT 10",
            ));
        }
        Ok(())
    }

    fn refuse_compatibility(&self, flavour: Flavour, version: Version) -> Result<()> {
        if flavour == Flavour::Rtx && self.version_compatible {
            return Err(unsupported(
                version,
                "build a version-compatible plan",
                "a plan of TensorRT-RTX runs with the release that built it: build again after an update",
            ));
        }
        if flavour == Flavour::Rtx && self.hardware_compatibility != HardwareCompatibility::None {
            return Err(unsupported(
                version,
                "build a hardware-compatible plan",
                "name the GPUs as compute capabilities instead; by default one plan serves 8.0 to 12.0",
            ));
        }
        if flavour == Flavour::Trt8 && self.hardware_compatibility == HardwareCompatibility::SameComputeCapability {
            return Err(unsupported(
                version,
                "build for every GPU of one compute capability",
                "use HardwareCompatibility::AmperePlus, or TensorRT 10",
            ));
        }
        Ok(())
    }

    fn refuse_capabilities(&self, flavour: Flavour, version: Version) -> Result<()> {
        let ComputeCapabilities::List(list) = &self.compute_capabilities else { return Ok(()) };
        if flavour != Flavour::Rtx {
            return Err(unsupported(
                version,
                "build for named compute capabilities",
                "build on the GPU that will run it, or ask for hardware compatibility",
            ));
        }
        if list.is_empty() || !list.iter().all(|capability| RTX_KNOWN.contains(capability)) {
            let got = list.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
            return Err(Error::new(ErrorKind::Unsupported, format!("build with {version} for compute capabilities"))
                .expected("some of 75, 80, 86, 89, 120, 121")
                .got(if got.is_empty() { "none".to_owned() } else { got })
                .advice("other GPUs, such as an H100 (90), need TensorRT 8, 10 or 11"));
        }
        Ok(())
    }
}

impl OptimizationProfile {
    /// Checks what needs no network: equal ranks and min ≤ opt ≤ max.
    fn check(&self) -> Result<()> {
        for (name, ProfileShape { min, opt, max }) in &self.shapes {
            let got = || format!("{}, {}, {}", format_shape(min), format_shape(opt), format_shape(max));
            let refused = |expected: &str| {
                let operation = format!("set the optimization profile of `{name}`");
                Error::new(ErrorKind::Shape, operation).expected(expected).got(got())
            };
            if min.len() != opt.len() || opt.len() != max.len() {
                return Err(refused("min, opt and max of the same rank"));
            }
            let in_order = |index| 0 <= min[index] && min[index] <= opt[index] && opt[index] <= max[index];
            if !(0..min.len()).all(in_order) {
                return Err(refused("0 ≤ min ≤ opt ≤ max in every dimension"));
            }
        }
        Ok(())
    }
}

fn unsupported(version: Version, what: &str, advice: &str) -> Error {
    Error::new(ErrorKind::Unsupported, what).got(format!("{version}, which cannot")).advice(advice)
}

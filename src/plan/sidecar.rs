//! The file beside a plan that says what it was built from and for.

use std::path::Path;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::{Plan, digest, dotted, quoted, rebuild};
use crate::autotune::{self, Candidate};
use crate::builder::{BuiltPlan, HardwareCompatibility, OptimizationProfile, Precision, profile_for};
use crate::config::SessionConfig;
use crate::error::{Error, Result};
use crate::library::{Flavour, Version};
use crate::normalize::Normalization;
use crate::sealed::{self, NO_CHECKSUM};
use crate::tensor::{IoMode, Shapes, TensorInfo, format_shape};
use crate::trust::Trust;

/// The layout of the sidecar that this version writes, and the only one that it reads.
const FORMAT: u32 = 1;

/// What a plan was built from and for. Its JSON form lies beside the plan, as `x.engine.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Sidecar {
    /// SHA-256 of the JSON text with zeros in this place. First, so that it is the first to be found in the text.
    sidecar_sha256: String,
    /// The layout of this file.
    format: u32,
    /// Version of tickrt that wrote it.
    pub tickrt: String,
    /// Flavour of the TensorRT that built the plan.
    pub flavour: Flavour,
    /// Its version.
    pub version: Version,
    /// The same for people: `TensorRT-RTX 1.7.1`.
    pub library: String,
    /// The GPU it was built on; none where TensorRT-RTX built it without one.
    pub gpu: Option<Gpu>,
    /// TensorRT-RTX: the compute capabilities it was built for (89 is 8.9); empty for the GPU it was built on.
    pub compute_capabilities: Vec<u32>,
    /// Whether newer versions of TensorRT may load it.
    pub version_compatible: bool,
    /// Which other GPUs may run it.
    pub hardware_compatibility: HardwareCompatibility,
    /// The lowest precision that it may compute in.
    pub precision: Precision,
    /// Inputs and outputs.
    pub tensors: Vec<TensorInfo>,
    /// Ranges of the dynamic shapes; empty when every shape is fixed.
    pub profiles: Vec<OptimizationProfile>,
    /// What happens to the inputs before the network.
    pub normalizations: Vec<Normalization>,
    /// Elements of a row, for a network that takes rolling windows.
    pub window_row: Option<usize>,
    /// The ONNX file's path as it was given.
    pub onnx_file: Option<String>,
    /// SHA-256 of the ONNX file, in hexadecimal.
    pub onnx_sha256: Option<String>,
    /// SHA-256 of the plan, in hexadecimal.
    pub plan_sha256: String,
    /// Length of the plan.
    pub plan_bytes: u64,
    /// What `tickrt build` was told besides `--onnx` and `--engine`: `--fp16`, `--max_workspace=256M`.
    pub options: Vec<String>,
    /// The plans that it was chosen from for its latency, where it was: `tickrt build --autotune`.
    #[serde(default)]
    pub autotune: Vec<Candidate>,
    /// When it was built, in UTC: `2026-11-23T18:28:47Z`.
    pub built_at: String,
}

/// The GPU that a plan was built on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// Its name: `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// Its compute capability: 90 is 9.0.
    pub compute_capability: u32,
}

impl From<&BuiltPlan> for Sidecar {
    /// What the builder knows. Left to be filled in: the GPU, the normalisations, the window's row, the ONNX file's
    /// name and the options. The time is now.
    fn from(built: &BuiltPlan) -> Self {
        Self {
            sidecar_sha256: NO_CHECKSUM.to_owned(),
            format: FORMAT,
            tickrt: env!("CARGO_PKG_VERSION").to_owned(),
            flavour: built.flavour,
            version: built.version,
            library: built.version.to_string(),
            gpu: None,
            compute_capabilities: built.compute_capabilities.clone(),
            version_compatible: built.version_compatible,
            hardware_compatibility: built.hardware_compatibility,
            precision: built.precision,
            tensors: built.tensors.clone(),
            profiles: built.profiles.clone(),
            normalizations: Vec::new(),
            window_row: None,
            onnx_file: None,
            onnx_sha256: built.onnx_sha256.clone(),
            plan_sha256: String::new(),
            plan_bytes: 0,
            options: Vec::new(),
            autotune: Vec::new(),
            built_at: sealed::utc(SystemTime::now()),
        }
    }
}

impl Sidecar {
    /// The sidecar of the plan at `plan`, without looking at the plan; none if there is no such file.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io), [`SidecarDamaged`](crate::ErrorKind::SidecarDamaged), [`Untrusted`](crate::ErrorKind::Untrusted).
    pub fn beside(plan: impl AsRef<Path>) -> Result<Option<Self>> {
        let (plan, path) = (plan.as_ref(), Plan::sidecar_path(&plan));
        let Some((sidecar, sha256)) = Self::read(&path, plan)? else {
            if let Some(trust) = Trust::enforced().filter(|_| plan.exists()) {
                trust.check_never_was(plan, &path)?;
            }
            return Ok(None);
        };
        // Whoever could change the normalisation could choose the answers of every backend of a chain.
        if let Some(trust) = Trust::enforced() {
            trust.check(plan, &[(path, sha256)])?;
        }
        Ok(Some(sidecar))
    }

    /// Whether the engine takes calls of these shapes: its tensors and profiles tell, no TensorRT is asked.
    ///
    /// # Errors
    /// [`Shape`](crate::ErrorKind::Shape) with the profiles' ranges, [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for a
    /// name that is no input.
    pub fn check_shapes(&self, shapes: &Shapes) -> Result<()> {
        let config =
            SessionConfig { shapes: vec![shapes.clone()], normalizations: Some(Vec::new()), ..Default::default() };
        let resolved = config.resolve(&self.tensors, |tensor| {
            self.profiles.first()?.shapes.get(&tensor.name).map(|range| range.opt.clone())
        })?;
        let inputs: Vec<&TensorInfo> = self.tensors.iter().filter(|tensor| tensor.mode == IoMode::Input).collect();
        resolved.iter().try_for_each(|shape| profile_for(&self.profiles, &inputs, &shape.dimensions).map(drop))
    }

    /// The JSON text, checksum included.
    pub(super) fn to_json(&self) -> String {
        sealed::to_json(&Self { sidecar_sha256: NO_CHECKSUM.to_owned(), ..self.clone() })
    }

    /// Reads the sidecar at `path` of the plan at `plan`, and the hash of its bytes; none if there is no such file.
    pub(super) fn read(path: &Path, plan: &Path) -> Result<Option<(Self, [u8; 32])>> {
        let operation = || format!("read the plan's sidecar {}", path.display());
        let Some(text) = sealed::read(path, operation)? else { return Ok(None) };
        Ok(Some((Self::explained(&text, operation, plan)?, digest(&text))))
    }

    /// Reads the text of the sidecar of the plan at `plan`.
    pub(crate) fn from_bytes(text: &[u8], plan: &Path) -> Result<Self> {
        Self::explained(text, || "read a plan's sidecar".to_owned(), plan)
    }

    fn explained(text: &[u8], operation: impl Fn() -> String, plan: &Path) -> Result<Self> {
        sealed::parse(text, FORMAT, "a plan").map_err(|(kind, expected, got)| {
            let advice =
                format!("{}, or remove the sidecar and see what --allow-unverified says", rebuild(None, Some(plan)));
            Error::new(kind, operation()).expected(expected).got(got).advice(advice)
        })
    }

    pub(super) fn add_facts(&self, facts: &mut Vec<(&'static str, String)>) {
        facts.push(("built at", self.built_at.clone()));
        facts.push(("tickrt", self.tickrt.clone()));
        facts.push((
            "built on",
            match &self.gpu {
                Some(gpu) => format!("{} (compute capability {})", gpu.name, dotted(gpu.compute_capability)),
                None => "no GPU".to_owned(),
            },
        ));
        let list: Vec<String> = self.compute_capabilities.iter().map(|&one| dotted(one)).collect();
        facts.push((
            "runs on",
            match self.hardware_compatibility {
                HardwareCompatibility::AmperePlus => "compute capability 8.0 or newer".to_owned(),
                _ if !list.is_empty() => format!("compute capability {}", list.join(", ")),
                _ => "the GPU it was built on".to_owned(),
            },
        ));
        if self.version_compatible {
            facts.push(("version compatible", "yes".to_owned()));
        }
        facts.push(("precision", self.precision.to_string()));
        if let Some(kept) = autotune::fastest(&self.autotune).map(|place| self.autotune[place]) {
            let (slowest, count) =
                (self.autotune.iter().map(|one| one.p50_us).fold(0.0, f64::max), self.autotune.len());
            facts.push((
                "autotune",
                format!("level {}, {:.1} µs, of {count} plans up to {slowest:.1} µs", kept.level, kept.p50_us),
            ));
        }
        facts.push((
            "onnx",
            format!(
                "{} (sha256 {})",
                self.onnx_file.as_deref().unwrap_or("unknown"),
                self.onnx_sha256.as_deref().unwrap_or("unknown")
            ),
        ));
        for (number, profile) in self.profiles.iter().enumerate() {
            for (name, shape) in &profile.shapes {
                let [min, opt, max] = [&shape.min, &shape.opt, &shape.max].map(|shape| format_shape(shape));
                facts.push(("profile", format!("{number}: {name} {min} to {max}, tuned for {opt}")));
            }
        }
        for normalization in &self.normalizations {
            facts.push(("normalisation", format!("of {}, from {}", normalization.input, normalization.input_type)));
        }
        if let Some(row) = self.window_row {
            facts.push(("window row", row.to_string()));
        }
        let options: Vec<String> = self.options.iter().map(|option| quoted(option)).collect();
        facts.push(("options", if options.is_empty() { "none".to_owned() } else { options.join(" ") }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Plan;

    #[test]
    fn sidecar_path_appends_json() {
        assert_eq!(Plan::sidecar_path("a/x.engine"), Path::new("a/x.engine.json"));
        assert_eq!(Plan::sidecar_path("x"), Path::new("x.json"));
    }
}

//! The file beside a plan that says what it was built from and for.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{Plan, digest, dotted, hex, quoted, rebuild};
use crate::autotune::{self, Candidate};
use crate::builder::{BuiltPlan, HardwareCompatibility, OptimizationProfile, Precision, profile_for};
use crate::config::SessionConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::files;
use crate::library::{Flavour, Version};
use crate::normalize::Normalization;
use crate::tensor::{IoMode, Shapes, TensorInfo, format_shape};
use crate::trust::Trust;

/// The layout of the sidecar that this version writes, and the only one that it reads.
const FORMAT: u32 = 1;
/// Stands for the checksum while it is computed.
const NO_CHECKSUM: &str = "0000000000000000000000000000000000000000000000000000000000000000";
const CHECKSUM_FIELD: &str = "\"sidecar_sha256\": \"";

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
            built_at: utc(SystemTime::now()),
        }
    }
}

impl Sidecar {
    /// The sidecar of the plan at `plan`, without looking at the plan; none if there is no such file.
    ///
    /// # Errors
    /// [`ErrorKind::Io`], [`ErrorKind::SidecarDamaged`], [`ErrorKind::Untrusted`].
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
    /// [`ErrorKind::Shape`] with the profiles' ranges, [`ErrorKind::InvalidArgument`] for a name that is no input.
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
        let unsigned = Self { sidecar_sha256: NO_CHECKSUM.to_owned(), ..self.clone() };
        let text = serde_json::to_string_pretty(&unsigned).expect("strings, numbers and finite floats") + "\n";
        let checksum = hex(&digest(text.as_bytes()));
        text.replacen(NO_CHECKSUM, &checksum, 1)
    }

    /// Reads the sidecar at `path` of the plan at `plan`, and the hash of its bytes; none if there is no such file.
    pub(super) fn read(path: &Path, plan: &Path) -> Result<Option<(Self, [u8; 32])>> {
        if !path.try_exists().unwrap_or(true) {
            return Ok(None);
        }
        let operation = || format!("read the plan's sidecar {}", path.display());
        let text = files::read(path, operation)?;
        Ok(Some((Self::explained(&text, operation, plan)?, digest(&text))))
    }

    /// Reads the text of the sidecar of the plan at `plan`.
    pub(crate) fn from_bytes(text: &[u8], plan: &Path) -> Result<Self> {
        Self::explained(text, || "read a plan's sidecar".to_owned(), plan)
    }

    /// The text with the checksum that fits it, if it has a place for one.
    pub(crate) fn with_its_checksum(text: &[u8]) -> Option<Vec<u8>> {
        let text = std::str::from_utf8(text).ok()?;
        let at = text.find(CHECKSUM_FIELD)? + CHECKSUM_FIELD.len();
        let (before, after) = (&text[..at], text.get(at + NO_CHECKSUM.len()..)?);
        let checksum = hex(&digest([before, NO_CHECKSUM, after].concat().as_bytes()));
        Some([before, &checksum, after].concat().into_bytes())
    }

    fn explained(text: &[u8], operation: impl Fn() -> String, plan: &Path) -> Result<Self> {
        Self::parse(text).map_err(|(kind, expected, got)| {
            let advice =
                format!("{}, or remove the sidecar and see what --allow-unverified says", rebuild(None, Some(plan)));
            Error::new(kind, operation()).expected(expected).got(got).advice(advice)
        })
    }

    /// What is wrong, as kind, expected and got.
    fn parse(text: &[u8]) -> Result<Self, (ErrorKind, String, String)> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let damaged = |got: String| (ErrorKind::SidecarDamaged, "the JSON that tickrt wrote".to_owned(), got);
        if text.is_empty() {
            return Err(damaged("an empty file".to_owned()));
        }
        let text = std::str::from_utf8(text).map_err(|error| damaged(error.to_string()))?;
        let Format { format } = serde_json::from_str(text).map_err(|error| damaged(error.to_string()))?;
        if format > FORMAT {
            let expected = format!("format {FORMAT}, which tickrt {} knows", env!("CARGO_PKG_VERSION"));
            return Err((ErrorKind::Unsupported, expected, format!("{format}, of a newer tickrt")));
        }
        // The text is hashed, not what it means: numbers may not survive reading and writing to the last digit.
        let at = text.find(CHECKSUM_FIELD).map(|at| at + CHECKSUM_FIELD.len());
        let (checksum, unsigned) = at
            .and_then(|at| {
                let checksum = text.get(at..at + NO_CHECKSUM.len())?;
                Some((checksum, [&text[..at], NO_CHECKSUM, &text[at + NO_CHECKSUM.len()..]].concat()))
            })
            .ok_or_else(|| damaged("one without sidecar_sha256".to_owned()))?;
        if checksum != hex(&digest(unsigned.as_bytes())) {
            return Err(damaged("one that was changed since (its sidecar_sha256 does not fit)".to_owned()));
        }
        serde_json::from_str(text).map_err(|error| damaged(error.to_string()))
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

/// `2026-11-23T18:28:47Z`.
fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (day, second) = (seconds / 86_400, seconds % 86_400);
    // Years begin in March here, so that the leap day is the last one: then a month's first day is a straight line.
    let day = day + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + next;
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Plan;

    #[test]
    fn utc_matches_known_dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_704_067_199, "2023-12-31T23:59:59Z"),
            (1_795_458_527, "2026-11-23T18:28:47Z"),
        ] {
            assert_eq!(utc(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn sidecar_path_appends_json() {
        assert_eq!(Plan::sidecar_path("a/x.engine"), Path::new("a/x.engine.json"));
        assert_eq!(Plan::sidecar_path("x"), Path::new("x.json"));
    }
}

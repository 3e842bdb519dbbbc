//! The file beside an artefact that says what it was built from and for.

use std::path::Path;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::{Artefact, rebuild};
use crate::error::{Error, ErrorKind, Result};
use crate::normalize::{Normalization, Normalizer};
use crate::plan::{digest, dotted, quoted};
use crate::resident::Semantics;
use crate::resident::program::{AHEAD, BEHIND, ROW_KEPT};
use crate::resident::turn::{STAGES, Sums};
use crate::sealed::{self, NO_CHECKSUM};
use crate::tensor::{TensorInfo, elements, format_shape};
use crate::trust::Trust;

/// The layout of the sidecar that this version writes, and the only one that it reads.
const FORMAT: u32 = 1;
/// More of an input or an output lies in no cluster's shared memory: 16 blocks of 256 KiB.
const MOST_ELEMENTS: usize = 16 * 256 * 1024 / 4;
/// More multiprocessors than any GPU has.
const MOST_CLUSTERS: u32 = 1024;
const MOST_SHARED_BYTES: u32 = 256 * 1024;
const MOST_STATE_BYTES: u64 = 1 << 30;

/// What an artefact was built from and for. Its JSON form lies beside it, as `x.resident.json`.
///
/// What is read of it has been checked for what cannot be: sizes are within those of the largest GPU, and fit each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Facts {
    /// SHA-256 of the JSON text with zeros in this place. First, so that it is the first to be found in the text.
    pub(super) sidecar_sha256: String,
    /// The layout of this file.
    pub(super) format: u32,
    /// Version of tickrt that wrote it.
    pub tickrt: String,
    /// Of the structure that the kernel takes: [`TURN_LAYOUT`](crate::resident::program::TURN_LAYOUT).
    pub turn_layout: u32,
    /// The kernel's name.
    pub entry: String,
    /// Of a cluster: 1, 2, 4, 8 or 16.
    pub blocks: u32,
    /// One; more are a grid of clusters of one block each.
    #[serde(default = "one")]
    pub clusters: u32,
    /// Of a block.
    pub threads: u32,
    /// Dynamic shared memory of a block.
    pub shared_bytes: u32,
    /// The only one that it runs on: 90 is 9.0.
    pub compute_capability: u32,
    /// What an answer is of.
    pub semantics: Semantics,
    /// The one input, as the network takes it, with the shape of a call.
    pub inputs: Vec<TensorInfo>,
    /// The outputs as the model has them, in the order in which an answer has them; −1 where a dimension is dynamic.
    pub outputs: Vec<TensorInfo>,
    /// Their shapes of a call.
    pub output_shapes: Vec<Vec<i64>>,
    /// What happens to the input before the network; the kernel does it, but for refusing what is not finite.
    pub normalization: Normalization,
    /// Elements of a row, where the input is a window of rows.
    pub window_row: Option<usize>,
    /// Device memory that outlives turns.
    pub state_bytes: u64,
    /// Words of 4 bytes of the input as it is handed over, the last perhaps not whole.
    pub input_words: u32,
    /// Registers of a thread, as ptxas told.
    pub registers: Option<u32>,
    /// Bytes of registers that a thread keeps in memory, stores and loads, as ptxas told.
    pub spilled_bytes: Option<u32>,
    /// Length of the constants.
    pub constants_bytes: u64,
    /// For people: a line a stage.
    pub stages: Vec<String>,
    /// The planner's guess for one call, from its input's arrival to its answer's departure.
    pub predicted_cycles: u64,
    /// Whether it sums up the cycles of each stage.
    pub stamps: bool,
    /// The ONNX file's path as it was given.
    pub onnx_file: Option<String>,
    /// SHA-256 of the ONNX file, in hexadecimal.
    pub onnx_sha256: String,
    /// SHA-256 of the artefact, in hexadecimal.
    pub artefact_sha256: String,
    /// Length of the artefact.
    pub artefact_bytes: u64,
    /// What `tickrt build` was told besides `--resident`, `--onnx` and `--engine`.
    pub options: Vec<String>,
    /// The CUDA whose compiler made it: `13.0`.
    pub cuda: String,
    /// When it was built, in UTC: `2026-11-23T18:28:47Z`.
    pub built_at: String,
}

/// Of what was written before there were grids.
fn one() -> u32 {
    1
}

/// A program's stages by when they are computed: before their call comes, between its input's arrival and its answer's
/// departure, and after that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts<'facts> {
    /// Computed ahead; nothing where calls hand over the whole input.
    pub before: Vec<&'facts str>,
    /// What a call waits for.
    pub within: Vec<&'facts str>,
    /// Before the next call can come.
    pub after: Vec<&'facts str>,
}

impl Parts<'_> {
    /// The mean cycles a call of each stage within it but the first, which waits for the input; the last may stand for several.
    /// Nothing where no call was computed.
    #[must_use]
    pub fn mean_cycles(&self, sums: &Sums) -> Vec<(String, f64)> {
        let stages = self.within.get(1..).unwrap_or_default();
        if sums.calls == 0 {
            return Vec::new();
        }
        let names = stages.iter().take(STAGES).enumerate().map(|(place, &stage)| {
            let others = stages.len().saturating_sub(STAGES);
            // A program adds up in the last word what there is no other one for.
            if place + 1 == STAGES && others > 0 { format!("{stage}, and {others} more") } else { stage.to_owned() }
        });
        names.zip(sums.cycles).map(|(name, cycles)| (name, cycles as f64 / sums.calls as f64)).collect()
    }
}

impl Facts {
    /// Of this version and this moment; the rest is to be filled in.
    pub(super) fn new() -> Self {
        Self {
            sidecar_sha256: NO_CHECKSUM.to_owned(),
            format: FORMAT,
            tickrt: env!("CARGO_PKG_VERSION").to_owned(),
            turn_layout: 0,
            entry: String::new(),
            blocks: 0,
            clusters: 1,
            threads: 0,
            shared_bytes: 0,
            compute_capability: 0,
            semantics: Semantics::Whole,
            inputs: Vec::new(),
            outputs: Vec::new(),
            output_shapes: Vec::new(),
            normalization: Normalization::new("", crate::DataType::F32),
            window_row: None,
            state_bytes: 0,
            input_words: 0,
            registers: None,
            spilled_bytes: None,
            constants_bytes: 0,
            stages: Vec::new(),
            predicted_cycles: 0,
            stamps: false,
            onnx_file: None,
            onnx_sha256: String::new(),
            artefact_sha256: String::new(),
            artefact_bytes: 0,
            options: Vec::new(),
            cuda: String::new(),
            built_at: sealed::utc(SystemTime::now()),
        }
    }

    /// What becomes of the input, as a caller hands it over.
    ///
    /// # Errors
    /// Those of [`Normalizer::new`]; none of facts that were read.
    pub fn normalizer(&self) -> Result<Normalizer> {
        let input = self.inputs.first().ok_or_else(|| {
            Error::new(ErrorKind::SidecarDamaged, "read a resident engine's input").expected("one").got("none")
        })?;
        Normalizer::new(&self.normalization, input, &input.shape, self.window_row)
    }

    /// The input and the outputs, with the shapes of a call.
    #[must_use]
    pub fn tensors(&self) -> Vec<TensorInfo> {
        let outputs = self.outputs.iter().zip(&self.output_shapes);
        let outputs = outputs.map(|(output, shape)| TensorInfo { shape: shape.clone(), ..output.clone() });
        self.inputs.iter().cloned().chain(outputs).collect()
    }

    /// Elements of all outputs together: the words of an answer.
    #[must_use]
    pub fn output_elements(&self) -> usize {
        self.output_shapes.iter().filter_map(|shape| elements(shape)).sum()
    }

    /// Its stages by when they are computed.
    #[must_use]
    pub fn parts(&self) -> Parts<'_> {
        let mut parts = Parts { before: Vec::new(), within: Vec::new(), after: Vec::new() };
        for stage in &self.stages {
            match stage.strip_prefix(AHEAD) {
                Some(stage) => parts.before.push(stage),
                // As a version wrote it that said no more of it.
                None if stage == ROW_KEPT => parts.after.push(stage),
                None => match stage.strip_prefix(BEHIND) {
                    Some(stage) => parts.after.push(stage),
                    None => parts.within.push(stage),
                },
            }
        }
        parts
    }

    /// Blocks in all, each of which has a multiprocessor for itself.
    #[must_use]
    pub fn all_blocks(&self) -> u32 {
        self.blocks * self.clusters
    }

    /// As names and values for people.
    #[must_use]
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = vec![
            ("built at", self.built_at.clone()),
            ("built by", format!("tickrt {}, with the compiler of CUDA {}", self.tickrt, self.cuda)),
            ("runs on", format!("compute capability {}", dotted(self.compute_capability))),
            ("semantics", self.semantics.to_string()),
            ("blocks", format!("{} of {} threads", self.all_blocks(), self.threads)),
            ("shared memory", format!("{} bytes a block", self.shared_bytes)),
            ("constants", format!("{} bytes", self.constants_bytes)),
        ];
        if let Some(registers) = self.registers {
            let spilled = self.spilled_bytes.unwrap_or(0);
            let spilled = if spilled == 0 { "none spilled".to_owned() } else { format!("{spilled} bytes spilled") };
            lines.push(("registers", format!("{registers} a thread, {spilled}")));
        }
        lines.push(("predicted", format!("{} cycles a call", self.predicted_cycles)));
        let normalization = &self.normalization;
        let untouched = Normalization {
            output_type: normalization.output_type,
            ..Normalization::new(normalization.input.clone(), crate::DataType::F32)
        };
        lines.push((
            "normalisation",
            match *normalization == untouched {
                true => format!("none of {}", normalization.input),
                false => format!("of {}, from {}", normalization.input, normalization.input_type),
            },
        ));
        lines.extend(self.window_row.map(|row| ("window row", row.to_string())));
        let onnx = self.onnx_file.as_deref().unwrap_or("unknown");
        lines.push(("onnx", format!("{onnx} (sha256 {})", self.onnx_sha256)));
        let options: Vec<String> = self.options.iter().map(|option| quoted(option)).collect();
        lines.push(("options", if options.is_empty() { "none".to_owned() } else { options.join(" ") }));
        lines
    }

    /// As the sidecar of a plan has them: nothing where the input is taken as the network has it.
    #[must_use]
    pub fn normalizations(&self) -> Vec<Normalization> {
        let what = &self.normalization;
        let untouched = Normalization::new(what.input.clone(), crate::DataType::F32);
        if *what == untouched { Vec::new() } else { vec![what.clone()] }
    }

    /// The sidecar of the artefact at `artefact`, without looking at that; none if there is no such file.
    ///
    /// # Errors
    /// [`ErrorKind::Io`], [`ErrorKind::SidecarDamaged`], [`ErrorKind::Untrusted`].
    pub fn beside(artefact: impl AsRef<Path>) -> Result<Option<Self>> {
        let (artefact, path) = (artefact.as_ref(), Artefact::sidecar_path(&artefact));
        let Some((facts, sha256)) = Self::read(&path, artefact)? else { return Ok(None) };
        // Whoever could change the normalisation could choose the answers of every backend of a chain.
        if let Some(trust) = Trust::enforced() {
            trust.check(artefact, &[(path, sha256)])?;
        }
        Ok(Some(facts))
    }

    /// The JSON text, checksum included.
    pub(super) fn to_json(&self) -> String {
        sealed::to_json(&Self { sidecar_sha256: NO_CHECKSUM.to_owned(), ..self.clone() })
    }

    /// Reads the sidecar at `path` of `artefact`, and the hash of its bytes; none if there is no such file.
    pub(super) fn read(path: &Path, artefact: &Path) -> Result<Option<(Self, [u8; 32])>> {
        let operation = || format!("read the resident engine's sidecar {}", path.display());
        let Some(text) = sealed::read(path, operation)? else { return Ok(None) };
        Ok(Some((Self::explained(&text, operation, artefact)?, digest(&text))))
    }

    /// Reads the text of a sidecar.
    pub(crate) fn from_bytes(text: &[u8]) -> Result<Self> {
        Self::explained(text, || "read a resident engine's sidecar".to_owned(), Path::new("MODEL.resident"))
    }

    fn explained(text: &[u8], operation: impl Fn() -> String, artefact: &Path) -> Result<Self> {
        let impossible = |got: String| (ErrorKind::SidecarDamaged, "what a resident engine can be".to_owned(), got);
        let read = sealed::parse::<Self>(text, FORMAT, "a resident engine");
        let read = read.and_then(|facts| facts.impossible().map_or(Ok(facts), |got| Err(impossible(got))));
        read.map_err(|(kind, expected, got)| {
            Error::new(kind, operation()).expected(expected).got(got).advice(rebuild(None, Some(artefact)))
        })
    }

    /// What of it cannot be. Whoever loads it makes buffers of these sizes; the checksum keeps nobody out.
    fn impossible(&self) -> Option<String> {
        let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        if self.entry.is_empty() || self.entry.len() > 255 || !self.entry.chars().all(is_name) {
            return Some(format!("a kernel called {:?}", self.entry.chars().take(40).collect::<String>()));
        }
        if !matches!(self.blocks, 1 | 2 | 4 | 8 | 16) {
            return Some(format!("{} blocks", self.blocks));
        }
        if self.clusters == 0 || self.clusters > MOST_CLUSTERS || (self.clusters > 1 && self.blocks > 1) {
            return Some(format!("{} clusters of {} blocks", self.clusters, self.blocks));
        }
        if self.threads == 0 || !self.threads.is_multiple_of(32) || self.threads > 1024 {
            return Some(format!("{} threads in a block", self.threads));
        }
        if self.shared_bytes > MOST_SHARED_BYTES {
            return Some(format!("{} bytes of shared memory a block", self.shared_bytes));
        }
        if self.state_bytes > MOST_STATE_BYTES {
            return Some(format!("{} bytes of state", self.state_bytes));
        }
        if self.inputs.len() != 1 {
            return Some(format!("{} inputs", self.inputs.len()));
        }
        if self.outputs.is_empty() || self.outputs.len() != self.output_shapes.len() {
            return Some(format!("{} shapes of {} outputs", self.output_shapes.len(), self.outputs.len()));
        }
        let shapes = self.inputs.iter().map(|input| &input.shape).chain(&self.output_shapes);
        let mut total = 0;
        for shape in shapes {
            match elements(shape) {
                Some(count @ 1..=MOST_ELEMENTS) => total += count,
                _ => return Some(format!("a tensor of {}", format_shape(shape))),
            }
            if total > 2 * MOST_ELEMENTS {
                return Some(format!("{total} elements in and out"));
            }
        }
        if let Some(output) = self.outputs.iter().find(|output| output.data_type != crate::DataType::F32) {
            return Some(format!("an output of {}", output.data_type));
        }
        if self.semantics == Semantics::Window {
            let (row, count) = (self.window_row.unwrap_or(0), self.inputs[0].elements().unwrap_or(0));
            if row == 0 || !count.is_multiple_of(row) || count / row < 2 {
                return Some(format!("rows of {row} in a window of {count} elements"));
            }
        }
        if self.semantics == Semantics::Stateful && self.window_row != self.inputs[0].elements() {
            return Some(format!(
                "a step of {:?} elements of rows of {:?}",
                self.inputs[0].elements(),
                self.window_row
            ));
        }
        match self.normalizer() {
            Ok(normalizer) if normalizer.input_words() as u64 == u64::from(self.input_words) => None,
            Ok(normalizer) => Some(format!("{} words of input for {}", self.input_words, normalizer.input_words())),
            Err(error) => Some(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(stages: &[String]) -> Facts {
        Facts { stages: stages.to_vec(), ..Facts::new() }
    }

    #[test]
    fn stages_are_parted_by_when_they_are_computed() {
        let stages =
            ["ahead: LSTM", "input", "ahead: floats to every block", "newest step", ROW_KEPT].map(str::to_owned);
        let facts = facts(&stages);
        let parts = facts.parts();
        assert_eq!(parts.before, ["LSTM", "floats to every block"]);
        assert_eq!((&parts.within[..], &parts.after[..]), (&["input", "newest step"][..], &[ROW_KEPT][..]));
        let sums = Sums { calls: 10, cycles: [5000; STAGES], ..Sums::default() };
        assert_eq!(parts.mean_cycles(&sums), [("newest step".to_owned(), 500.0)]);
        assert_eq!(parts.mean_cycles(&Sums::default()), []);
    }

    #[test]
    fn last_sum_of_cycles_stands_for_all_stages_that_are_left() {
        let stages: Vec<String> = (0..=STAGES + 2).map(|stage| format!("stage {stage}")).collect();
        let means = facts(&stages).parts().mean_cycles(&Sums { calls: 1, ..Sums::default() });
        assert_eq!(means.len(), STAGES);
        assert_eq!(means[0].0, "stage 1");
        assert_eq!(means[STAGES - 1].0, format!("stage {STAGES}, and 2 more"));
    }
}

//! A network's kernel as a file: compiled once, where it is built, shipped like a plan, and loaded without a compiler.
//!
//! `x.resident` holds the machine code and the constants, `x.resident.json` beside it what both were built from and for, with
//! the hash of the file and a checksum of its own. As with plans, nothing is handed to the driver before [`Artefact::read`] has
//! seen that the bytes are those that were written, and [`Artefact::check`] that they fit the GPU.

mod container;
mod facts;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub(crate) use self::container::MAGIC;
pub use self::facts::Facts;
use super::budget::{Hardware, WeightType};
use super::nvrtc::{Compiled, Nvrtc};
use super::program::{self, Asks, Program, TURN_LAYOUT, program_with};
use super::semantics::Semantics;
use super::{lower, network::Network};
use crate::error::{Error, ErrorKind, Result};
use crate::files;
use crate::normalize::{Normalization, Normalizer};
use crate::onnx::Model;
use crate::plan::{Fault, digest, dotted, hex, quoted, same_bytes};
use crate::tensor::{Shapes, TensorInfo};
use crate::trust::Trust;

/// Files longer than this are neither written nor read: weights of such a size lie beyond every cache of a GPU.
const LARGEST: u64 = 1 << 30;
/// Blocks that a cluster can have.
const CLUSTERS: [u32; 5] = [1, 2, 4, 8, 16];
const GOES_ON: &str = "the chain goes on to TensorRT";

/// A resident engine as it is kept: machine code, constants, and what is known of them.
#[derive(Debug, Clone)]
pub struct Artefact {
    /// The whole file.
    bytes: Vec<u8>,
    parts: container::Parts,
    facts: Facts,
    sha256: [u8; 32],
    path: Option<PathBuf>,
    /// What was read is what was signed.
    signed: bool,
    compile_time: Option<Duration>,
}

/// What an artefact is built for, and what is not left to the planner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArtefactOptions {
    /// Of the GPU that runs it, major and minor: it runs on no other.
    pub compute_capability: (u32, u32),
    /// Blocks of the cluster, one multiprocessor each: 1, 2, 4, 8 or 16. Any other number, with weights in half precision and window semantics, is
    /// that of a grid, at most. The planner's choice without.
    pub blocks: Option<u32>,
    /// Threads of a block, a multiple of 32 up to 1024. The planner's choice without.
    pub threads: Option<u32>,
    /// In what matrices times one vector and recurrent layers have their weights; sums are in f32 either way, and convolutions have f32. Stacks
    /// of LSTM or GRU layers that no cluster has room for go on up to all multiprocessors with [`WeightType::F16`] and [`Semantics::Window`].
    pub weights: WeightType,
    /// Of the GPU that runs it: a grid has no more blocks. Those of an H100 SXM, 132, without.
    pub multiprocessors: Option<u32>,
    /// Sums up the cycles of each stage, for reports. It costs some.
    pub stamps: bool,
    /// Elements of a row, for a network whose input is a window of rows: what a normalisation by feature goes by. But with
    /// [`Semantics::Whole`] it follows from the input's shape.
    pub window_row: Option<usize>,
    /// What an answer is of.
    pub semantics: Semantics,
    /// Who asks the host for a call.
    pub asks: Asks,
}

impl Default for ArtefactOptions {
    /// For an H100 or H200, the rest left to the planner.
    fn default() -> Self {
        Self {
            compute_capability: (9, 0),
            blocks: None,
            threads: None,
            weights: WeightType::F32,
            multiprocessors: None,
            stamps: false,
            window_row: None,
            semantics: Semantics::Whole,
            asks: Asks::First,
        }
    }
}

impl Artefact {
    /// Makes the model's network, writes its kernel and compiles it with [NVRTC](Nvrtc). A dynamic first dimension is 1, other
    /// dynamic ones are as `shapes` has them. Without a normalisation the input is taken as the network has it, in f32.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] with the operator that resident engines do not have, with the bytes that are missing, or
    /// where no NVRTC is found; [`ErrorKind::InvalidArgument`] for options and a normalisation that cannot be;
    /// [`ErrorKind::Shape`]; [`ErrorKind::Build`] with the compiler's words; [`ErrorKind::Untrusted`] where signatures are
    /// [enforced](crate::trust).
    pub fn build(
        model: &Model,
        normalization: Option<&Normalization>,
        shapes: &Shapes,
        options: &ArtefactOptions,
    ) -> Result<Self> {
        let shown = model.path().map_or_else(|| "an ONNX model".to_owned(), |path| path.display().to_string());
        let operation = format!("build a resident engine of {shown}");
        crate::trust::refuse_in_production(&operation, "build and sign it elsewhere")?;
        let hardware = options.hardware(&operation)?;
        let network = lower(model, shapes).map_err(|error| error.within(&operation))?;
        let source =
            Source::new(model, network, normalization, options, hardware).map_err(|error| error.within(&operation))?;
        let nvrtc = Nvrtc::open().map_err(|error| error.within(&operation))?;
        let started = Instant::now();
        let compiled =
            nvrtc.compile(&source.program.source, options.number()).map_err(|error| error.within(&operation))?;
        let facts = source.facts(model, options, &nvrtc, &compiled);
        let mut made =
            Self::new(&compiled.cubin, &source.program.constants, facts).map_err(|error| error.within(&operation))?;
        made.compile_time = Some(started.elapsed());
        Ok(made)
    }

    /// Hash and length of the file are put into the facts here.
    fn new(cubin: &[u8], constants: &[u8], mut facts: Facts) -> Result<Self> {
        let bytes = container::write(cubin, constants);
        if bytes.len() as u64 > LARGEST {
            return Err(Error::new(ErrorKind::Unsupported, "keep the compiled kernel")
                .expected(format!("at most {LARGEST} bytes with its constants"))
                .got(bytes.len().to_string())
                .advice(GOES_ON));
        }
        let refused = |fault: Fault| fault.into_error("keep the compiled kernel".to_owned(), String::new());
        let parts = container::read(&bytes).map_err(refused)?;
        let sha256 = digest(&bytes);
        facts.artefact_sha256 = hex(&sha256);
        facts.artefact_bytes = bytes.len() as u64;
        Ok(Self { bytes, parts, facts, sha256, path: None, signed: false, compile_time: None })
    }

    /// Where the sidecar of the artefact at `path` lies: `x.resident.json` for `x.resident`.
    #[must_use]
    pub fn sidecar_path(path: impl AsRef<Path>) -> PathBuf {
        files::with_ending(path.as_ref(), ".json")
    }

    /// Whether the file begins as an artefact does; nothing more is looked at. One too short to tell is taken at its name's word.
    #[must_use]
    pub fn is_at(path: impl AsRef<Path>) -> bool {
        let path = path.as_ref();
        let named = || path.extension().is_some_and(|extension| extension == "resident");
        files::read_at_most(path, MAGIC.len(), String::new)
            .is_ok_and(|bytes| bytes == MAGIC || (MAGIC.starts_with(&bytes) && named()))
    }

    /// Reads an artefact and its sidecar, and makes sure that the bytes are those that were written; where signatures are
    /// [enforced](crate::trust), that both are what was signed.
    ///
    /// # Errors
    /// [`ErrorKind::Io`]; [`ErrorKind::Untrusted`]; [`ErrorKind::PlanUnverified`] without a sidecar;
    /// [`ErrorKind::SidecarDamaged`]; [`ErrorKind::NotAPlan`], [`ErrorKind::PlanTruncated`], [`ErrorKind::PlanAltered`],
    /// [`ErrorKind::PlanVersion`] for a later format. Each with the command that builds it again.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let operation = || format!("read the resident engine {}", path.display());
        let sidecar_path = Self::sidecar_path(path);
        let bytes = files::read_up_to(path, LARGEST, operation, (ErrorKind::NotAPlan, "a resident engine"))?;
        let refused = |fault: Fault, facts: Option<&Facts>| fault.into_error(operation(), rebuild(facts, Some(path)));
        if !bytes.starts_with(&MAGIC) {
            // What lies beside it may be another's sidecar, and no reason to speak of that.
            let sidecar = Facts::read(&sidecar_path, path).ok().flatten().map(|(facts, _)| facts);
            let fault = container::read(&bytes).err().unwrap_or_else(|| container::foreign(&bytes));
            return Err(refused(fault, sidecar.as_ref()));
        }
        let sha256 = digest(&bytes);
        let sidecar = Facts::read(&sidecar_path, path)?;
        if let Some(trust) = Trust::enforced() {
            let found = sidecar.as_ref().map(|(_, sha256)| (sidecar_path.clone(), *sha256));
            trust.check(path, &[(path.to_path_buf(), sha256)].into_iter().chain(found).collect::<Vec<_>>())?;
        }
        let Some((facts, _)) = sidecar else {
            container::read(&bytes).map_err(|fault| refused(fault, None))?;
            return Err(Error::new(ErrorKind::PlanUnverified, operation())
                .expected(format!("its sidecar {}", sidecar_path.display()))
                .got("none")
                .advice(format!("copy both files, or {}", rebuild(None, Some(path)))));
        };
        let parts = same_bytes((bytes.len() as u64, &sha256), (facts.artefact_bytes, &facts.artefact_sha256))
            .and_then(|()| container::read(&bytes))
            .map_err(|fault| refused(fault, Some(&facts)))?;
        let signed = Trust::enforced().is_some();
        Ok(Self { bytes, parts, facts, sha256, path: Some(path.to_path_buf()), signed, compile_time: None })
    }

    /// Writes the artefact and its sidecar, as [`Plan::write`](crate::Plan::write) does: a crash or a failure at any moment
    /// leaves what was there before, or a pair that [`read`](Self::read) refuses.
    ///
    /// # Errors
    /// [`ErrorKind::Io`]: nothing is left behind then.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        files::write_with_sidecar(path, &self.bytes, &Self::sidecar_path(path), self.facts.to_json().as_bytes())
    }

    /// Whether it can run here: on a GPU of this compute capability, whose blocks can have so many bytes of shared memory when
    /// a kernel asks for them (`cudaDevAttrMaxSharedMemoryPerBlockOptin`), by this version of tickrt. The driver is not asked.
    ///
    /// # Errors
    /// [`ErrorKind::PlanVersion`] and [`ErrorKind::PlanGpu`], with the command that builds it for this GPU;
    /// [`ErrorKind::Untrusted`] where signatures are [enforced](crate::trust) and it was not read from a signed file.
    pub fn check(&self, compute_capability: (u32, u32), shared_bytes_per_block_optin: u64) -> Result<()> {
        let facts = &self.facts;
        if !self.signed {
            crate::trust::refuse_in_production(
                &self.operation(),
                "sign it with `tickrt sign`, and load it by its path",
            )?;
        }
        if facts.turn_layout != TURN_LAYOUT {
            return Err(Error::new(ErrorKind::PlanVersion, self.operation())
                .expected(format!("a kernel of turn layout {TURN_LAYOUT}, as tickrt {} has", env!("CARGO_PKG_VERSION")))
                .got(format!("{}, of tickrt {}", facts.turn_layout, facts.tickrt))
                .advice(self.rebuild()));
        }
        let here = number(compute_capability);
        if facts.compute_capability != here {
            let mut others = facts.clone();
            others.options.retain(|option| !option.starts_with("--compute-capability"));
            others.options.push(format!("--compute-capability={}", dotted(here)));
            return Err(Error::new(ErrorKind::PlanGpu, self.operation())
                .expected(format!("compute capability {}", dotted(facts.compute_capability)))
                .got(dotted(here))
                .advice(rebuild(Some(&others), self.path())));
        }
        if u64::from(facts.shared_bytes) > shared_bytes_per_block_optin {
            return Err(Error::new(ErrorKind::PlanGpu, self.operation())
                .expected(format!("{} bytes of shared memory a block", facts.shared_bytes))
                .got(format!("at most {shared_bytes_per_block_optin}"))
                .advice(GOES_ON));
        }
        Ok(())
    }

    /// The machine code, an ELF file, for `cuModuleLoadData`.
    #[must_use]
    pub fn cubin(&self) -> &[u8] {
        &self.bytes[self.parts.cubin.clone()]
    }

    /// The bytes that `Turn::constants` is the address of, once they lie in device memory, aligned to 16.
    #[must_use]
    pub fn constants(&self) -> &[u8] {
        &self.bytes[self.parts.constants.clone()]
    }

    /// What the sidecar says.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// SHA-256 of the file.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        self.sha256
    }

    /// Length of the file, header included.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The file it was read from.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// What compiling took, of one that was built here.
    #[must_use]
    pub fn compile_time(&self) -> Option<Duration> {
        self.compile_time
    }

    /// With what `tickrt build` was told besides `--resident`, `--onnx` and `--engine`: what builds the same again.
    #[must_use]
    pub fn with_options(mut self, options: Vec<String>) -> Self {
        self.facts.options = options;
        self
    }

    /// The command that builds it again: `tickrt build --resident --onnx ... --engine ...`.
    #[must_use]
    pub fn rebuild_command(&self) -> String {
        rebuild_command(Some(&self.facts), self.path.as_deref())
    }

    /// Whether the header of a file that lies in memory fits its bytes.
    pub(crate) fn check_bytes(bytes: &[u8]) -> Result<()> {
        container::read(bytes)
            .map(drop)
            .map_err(|fault| fault.into_error("read a resident engine".to_owned(), String::new()))
    }

    fn operation(&self) -> String {
        match &self.path {
            Some(path) => format!("load the resident engine {}", path.display()),
            None => "load the resident engine".to_owned(),
        }
    }

    fn rebuild(&self) -> String {
        rebuild(Some(&self.facts), self.path.as_deref())
    }
}

impl ArtefactOptions {
    /// 90 for 9.0.
    fn number(&self) -> u32 {
        number(self.compute_capability)
    }

    /// What the planner may reckon with, once the options can be.
    fn hardware(&self, operation: &str) -> Result<Hardware> {
        let refused = |kind| Error::new(kind, operation);
        let Some((shared_kib, largest_cluster)) = limits(self.number()).filter(|_| self.compute_capability.1 < 10)
        else {
            let (major, minor) = self.compute_capability;
            return Err(refused(ErrorKind::Unsupported)
                .expected("a compute capability that is known here, as 9.0")
                .got(format!("{major}.{minor}"))
                .advice(GOES_ON));
        };
        if self.weights == WeightType::F16 && self.compute_capability < (8, 0) {
            return Err(refused(ErrorKind::Unsupported)
                .expected("compute capability 8.0 or later for weights in half precision")
                .got(dotted(self.number()))
                .advice(GOES_ON));
        }
        // The planner knows how many blocks a grid can have.
        let of_grid = |blocks: u32| self.weights == WeightType::F16 && blocks > 0 && !CLUSTERS.contains(&blocks);
        if let Some(blocks) = self.blocks.filter(|&blocks| !of_grid(blocks)) {
            if !CLUSTERS.contains(&blocks) {
                return Err(refused(ErrorKind::InvalidArgument)
                    .expected("1, 2, 4, 8 or 16 blocks")
                    .got(blocks.to_string()));
            }
            if u64::from(blocks) > largest_cluster {
                let advice = if largest_cluster == 1 {
                    "only compute capability 9.0 and later has clusters; ask for 1"
                } else {
                    "ask for fewer"
                };
                return Err(refused(ErrorKind::Unsupported)
                    .expected(format!("at most {largest_cluster} on compute capability {}", dotted(self.number())))
                    .got(format!("{blocks} blocks"))
                    .advice(advice));
            }
        }
        if let Some(threads) =
            self.threads.filter(|&threads| threads == 0 || !threads.is_multiple_of(32) || threads > 1024)
        {
            return Err(refused(ErrorKind::InvalidArgument)
                .expected("a multiple of 32 up to 1024 threads in a block")
                .got(threads.to_string()));
        }
        let multiprocessors = self.multiprocessors.map_or(Hardware::H100.multiprocessors, u64::from);
        // The planner asks for these alone.
        Ok(Hardware { shared_bytes: shared_kib * 1024, largest_cluster, multiprocessors, ..Hardware::H100 })
    }
}

fn number((major, minor): (u32, u32)) -> u32 {
    major.saturating_mul(10).saturating_add(minor)
}

/// KiB of shared memory that a block can have, and blocks of the largest cluster (more than 8 where a kernel may ask for them):
/// CUDA's table of technical specifications by compute capability.
fn limits(compute_capability: u32) -> Option<(u64, u64)> {
    Some(match compute_capability {
        70 | 72 => (96, 1),
        75 => (64, 1),
        80 | 87 => (163, 1),
        86 | 89 => (99, 1),
        90 | 100 | 103 => (227, 16),
        110 => (227, 8),
        120 | 121 => (99, 8),
        _ => return None,
    })
}

/// All that the compiler is not asked for.
struct Source {
    network: Network,
    tensor: TensorInfo,
    normalization: Normalization,
    normalizer: Normalizer,
    window_row: Option<usize>,
    program: Program,
}

impl Source {
    fn new(
        model: &Model,
        network: Network,
        normalization: Option<&Normalization>,
        options: &ArtefactOptions,
        hardware: Hardware,
    ) -> Result<Self> {
        let ([input], [shape]) = (model.inputs(), &network.input_shapes[..]) else {
            return Err(Error::new(ErrorKind::Unsupported, "take its input")
                .expected("one")
                .got(format!("{} inputs", model.inputs().len()))
                .advice(GOES_ON));
        };
        let shape: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
        let tensor = TensorInfo { shape, ..input.clone() };
        let normalization =
            normalization.cloned().unwrap_or_else(|| Normalization::new(input.name.clone(), input.data_type));
        if normalization.input != input.name {
            return Err(Error::new(ErrorKind::InvalidArgument, "normalise its input")
                .expected(format!("a normalisation of `{}`", input.name))
                .got(format!("one of `{}`", normalization.input)));
        }
        let window_row = match options.semantics {
            Semantics::Window | Semantics::Stateful => Some(row_of_window(&tensor.shape, options.window_row)?),
            Semantics::Whole => options.window_row,
        };
        let tensor = if options.semantics == Semantics::Stateful { of_one_row(tensor) } else { tensor };
        let normalizer = Normalizer::new(&normalization, &tensor, &tensor.shape, window_row)?;
        let ArtefactOptions { blocks, threads, weights, stamps, semantics, asks, .. } = *options;
        // Any number of blocks but those of a cluster are a grid's.
        let on_grid = weights == WeightType::F16 && blocks.is_some_and(|blocks| !CLUSTERS.contains(&blocks));
        let wanted = program::Options { blocks, threads, weights, stamps, semantics, asks, on_grid, in_bands: false };
        let program = program_with(&network, &normalizer, hardware, wanted)?;
        Ok(Self { network, tensor, normalization, normalizer, window_row, program })
    }

    /// Left to be filled in: the command's options.
    fn facts(&self, model: &Model, options: &ArtefactOptions, nvrtc: &Nvrtc, compiled: &Compiled) -> Facts {
        let shape = |shape: &Vec<usize>| shape.iter().map(|&size| size as i64).collect();
        let program = &self.program;
        Facts {
            entry: program::ENTRY.to_owned(),
            turn_layout: TURN_LAYOUT,
            blocks: program.blocks,
            clusters: program.clusters,
            threads: program.threads,
            shared_bytes: program.shared_bytes,
            compute_capability: options.number(),
            inputs: vec![self.tensor.clone()],
            outputs: model.outputs().to_vec(),
            output_shapes: self.network.output_shapes.iter().map(shape).collect(),
            normalization: self.normalization.clone(),
            window_row: self.window_row,
            semantics: program.semantics,
            state_bytes: program.state_bytes,
            input_words: self.normalizer.input_words() as u32,
            registers: compiled.registers,
            spilled_bytes: compiled.spilled_bytes,
            constants_bytes: program.constants.len() as u64,
            stages: program.notes.clone(),
            predicted_cycles: program.predicted_cycles,
            stamps: options.stamps,
            onnx_file: model.path().map(|path| path.display().to_string()),
            onnx_sha256: hex(&model.sha256()),
            cuda: format!("{}.{}", nvrtc.version().0, nvrtc.version().1),
            ..Facts::new()
        }
    }
}

/// What a call with state hands over.
fn of_one_row(mut tensor: TensorInfo) -> TensorInfo {
    if let Some(rows) = tensor.shape.iter_mut().find(|size| **size > 1) {
        *rows = 1;
    }
    tensor
}

/// Elements of a row: all dimensions but that of the rows, which is the first one that is more than 1.
fn row_of_window(shape: &[i64], given: Option<usize>) -> Result<usize> {
    let rows = shape.iter().copied().find(|&size| size > 1).unwrap_or(1).max(1);
    let row = shape.iter().product::<i64>() / rows;
    match given {
        Some(given) if given as i64 != row => Err(Error::new(ErrorKind::InvalidArgument, "part its window into rows")
            .expected(format!("rows of {row}, by the input's shape {}", crate::tensor::format_shape(shape)))
            .got(given.to_string())),
        _ => Ok(row as usize),
    }
}

fn rebuild(facts: Option<&Facts>, path: Option<&Path>) -> String {
    format!("rebuild it with `{}`", rebuild_command(facts, path))
}

fn rebuild_command(facts: Option<&Facts>, path: Option<&Path>) -> String {
    let onnx = facts.and_then(|facts| facts.onnx_file.as_deref()).unwrap_or("MODEL.onnx");
    let engine = path.map_or_else(|| "MODEL.resident".to_owned(), |path| path.display().to_string());
    let mut command = format!("tickrt build --resident --onnx {} --engine {}", quoted(onnx), quoted(&engine));
    for option in facts.iter().flat_map(|facts| &facts.options) {
        command.push(' ');
        command.push_str(&quoted(option));
    }
    command
}

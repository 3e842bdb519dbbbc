//! From an ONNX model to a TensorRT plan: `IBuilder`, `INetworkDefinition`, the ONNX parser.
//!
//! ```no_run
//! use tickrt::{Builder, BuilderConfig, Library, OptimizationProfile, Preference};
//!
//! let library = Library::open_any(&Preference::Any)?;
//! let config = BuilderConfig::new().workspace(256 << 20).tf32(false);
//! let plan = Builder::new(&library).build_file("models/toy_cnn.onnx", &config)?;
//! println!("{} bytes by {}", plan.bytes.len(), plan.version);
//! # Ok::<(), tickrt::Error>(())
//! ```

mod config;
mod limits;
mod precision;
mod profile;
mod progress;
mod request;
mod timing_cache;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

pub use self::config::{
    BuilderConfig, ComputeCapabilities, HardwareCompatibility, Int8Mode, MemoryPool, Precision, PrecisionConstraints,
    ProfilingVerbosity,
};
pub(crate) use self::profile::profile_for;
pub use self::profile::{OptimizationProfile, ProfileShape};
pub use self::progress::{CancelToken, Progress};
pub(crate) use self::progress::{Observer, message as panic_message};
use crate::bridge::ffi;
use crate::calibration::Calibration;
use crate::error::Result;
use crate::library::{Flavour, Library, Version};
use crate::logging::say;
use crate::native;
use crate::onnx::proto::NodeProto;
use crate::onnx::{Model, NodePrecision};
use crate::tensor::TensorInfo;

/// Whose turn it is to build. Two builds at once time each other's kernels, and TensorRT-RTX 1.7 mixes up their compute
/// capabilities ("Target SM 80 is not found in the accelerator list").
static TURN: Mutex<()> = Mutex::new(());

/// Elements of the smoke network's input and output.
pub const SMOKE_ELEMENTS: usize = 8;

/// What [`Builder::build_smoke_network`]'s network answers for one element: `max(0, 2·x − 1)`.
#[must_use]
pub fn smoke_answer(x: f32) -> f32 {
    (2.0 * x - 1.0).max(0.0)
}

/// A plan fresh from TensorRT, with everything that its sidecar wants to know.
#[derive(Debug, Clone)]
pub struct BuiltPlan {
    /// The serialised engine.
    pub bytes: Vec<u8>,
    /// Which library built it.
    pub flavour: Flavour,
    /// That library's version.
    pub version: Version,
    /// Inputs and outputs of the network, −1 where a dimension is dynamic.
    pub tensors: Vec<TensorInfo>,
    /// The optimization profiles that were asked for; empty when every shape is fixed.
    pub profiles: Vec<OptimizationProfile>,
    /// The lowest precision that the network may compute in.
    pub precision: Precision,
    /// Whether other versions of TensorRT may load it.
    pub version_compatible: bool,
    /// Which other GPUs may run it.
    pub hardware_compatibility: HardwareCompatibility,
    /// TensorRT-RTX: the compute capabilities that it was built for (75 is 7.5); empty for the GPU at hand.
    pub compute_capabilities: Vec<u32>,
    /// The network's layers as the parser made them: a JSON array of objects with `index`, `name`, `type` and `precision`,
    /// the type of what comes out.
    pub layers_json: String,
    /// What became of each node, where the model was lowered to the precision that was asked for.
    pub nodes: Option<Vec<NodePrecision>>,
    /// The model that TensorRT was given, where it was lowered.
    pub lowered: Option<Model>,
    /// The timing cache after the build, if the flavour has one.
    pub timing_cache: Option<Vec<u8>>,
    /// SHA-256 of the ONNX bytes, in hexadecimal; none for the smoke network.
    pub onnx_sha256: Option<String>,
    /// How long the build took.
    pub build_time: Duration,
    /// What the caller should know: a stale timing cache, an option without effect, TensorRT's warnings.
    pub notes: Vec<String>,
    /// TensorRT's lines: warnings and errors, and everything when [`BuilderConfig::verbose`] was set.
    pub log: Vec<String>,
}

/// Builds plans with one TensorRT library (`IBuilder`).
///
/// A build takes milliseconds to many minutes, uses all cores and, other than with TensorRT-RTX, the GPU. Any thread
/// may build, but a process builds one plan at a time: the others wait for their turn.
pub struct Builder {
    library: Library,
    observer: Observer,
    calibration: Option<Calibration>,
}

impl Builder {
    /// A builder that uses `library`.
    #[must_use]
    pub fn new(library: &Library) -> Self {
        Self { library: library.clone(), observer: Observer::default(), calibration: None }
    }

    /// Calls `callback` as the build moves on; [`ControlFlow::Break`] ends it with [`Cancelled`](crate::ErrorKind::Cancelled).
    ///
    /// It is called from TensorRT's threads, never by two at once, and must not build itself. A panic in it ends the
    /// build with an error.
    /// TensorRT 8 reports only its two outer phases and can be stopped only between them.
    #[must_use]
    pub fn progress(mut self, callback: impl FnMut(&Progress<'_>) -> ControlFlow<()> + Send + 'static) -> Self {
        self.observer.listen(Box::new(callback));
        self
    }

    /// Lets `token` end the build from another thread.
    #[must_use]
    pub fn cancel_token(mut self, token: &CancelToken) -> Self {
        self.observer.watch(token.clone());
        self
    }

    /// Calibrates for INT8 in the next build, which uses it up.
    #[must_use]
    pub fn calibration(mut self, calibration: Calibration) -> Self {
        self.calibration = Some(calibration);
        self
    }

    /// Builds the model in an ONNX file; weights in files beside it are found.
    ///
    /// # Errors
    /// Those of [`Model::read`] and of [`Self::build_model`].
    pub fn build_file(&mut self, path: impl AsRef<Path>, config: &BuilderConfig) -> Result<BuiltPlan> {
        self.build_model(&Model::read(path)?, config)
    }

    /// Builds the model in `onnx`; weights in other files are looked for in the working directory.
    ///
    /// # Errors
    /// Those of [`Model::from_bytes`] and of [`Self::build_model`].
    pub fn build_bytes(&mut self, onnx: &[u8], config: &BuilderConfig) -> Result<BuiltPlan> {
        self.build_model(&Model::from_bytes(onnx.to_vec())?, config)
    }

    /// Builds a model that was read before.
    ///
    /// # Errors
    /// [`UnsupportedOperator`](crate::ErrorKind::UnsupportedOperator) and [`Onnx`](crate::ErrorKind::Onnx) with the node's name and operator,
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for an option that this version lacks (before anything is built),
    /// [`Shape`](crate::ErrorKind::Shape) for profiles, [`NoGpu`](crate::ErrorKind::NoGpu), [`OutOfMemory`](crate::ErrorKind::OutOfMemory),
    /// [`Cancelled`](crate::ErrorKind::Cancelled), [`Io`](crate::ErrorKind::Io) for the timing cache, [`Build`](crate::ErrorKind::Build) for the rest.
    pub fn build_model(&mut self, model: &Model, config: &BuilderConfig) -> Result<BuiltPlan> {
        let shown = model.path().map_or_else(|| "an ONNX model".to_owned(), |path| path.display().to_string());
        refuse_in_production(&shown)?;
        let (flavour, version) = (self.library.flavour(), self.library.version());
        config.refuse_what_cannot_be(flavour, version)?;
        let calibration = self.calibration.take();
        let prepared = precision::prepare(model, config, calibration, flavour, version)
            .map_err(|error| error.within(&format!("build {shown}")))?;
        let given: &Model = &prepared.model;
        let path = given.path().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
        self.observer.abort_with(prepared.calibrator.abort_token());
        let mut options = config.to_bridge(flavour);
        prepared.put_into(&mut options);
        let calibrator = &prepared.calibrator;
        let built = self.run(&given.graph().node, config, &options, &shown, |library, cache, observer| {
            library.build_onnx(given.bytes(), &path, &options, cache, observer, calibrator)
        });
        if let Some(error) = calibrator.take_failure() {
            return Err(error.within(&format!("build {shown}")));
        }
        let mut plan = built?;
        prepared.keep_calibration()?;
        plan.notes.splice(0..0, prepared.notes);
        plan.onnx_sha256 = Some(model.origin_sha256().iter().map(|byte| format!("{byte:02x}")).collect());
        plan.lowered = prepared.nodes.as_ref().map(|_| prepared.model.into_owned());
        plan.nodes = prepared.nodes;
        Ok(plan)
    }

    /// Builds a network of a constant scale, a constant shift and a ReLU, made by hand, to see whether TensorRT
    /// works at all: f32 `input` and `output` of `[1, 8]`, [`smoke_answer`] for each element.
    ///
    /// # Errors
    /// As [`Self::build_model`], other than those about the model. The timing cache is written but not read.
    pub fn build_smoke_network(&mut self, config: &BuilderConfig) -> Result<BuiltPlan> {
        refuse_in_production("the smoke network")?;
        self.observer.abort_with(&CancelToken::new());
        let flavour = self.library.flavour();
        config.refuse_what_cannot_be(flavour, self.library.version())?;
        let options = config.to_bridge(flavour);
        self.run(&[], config, &options, "the smoke network", |library, _, observer| {
            library.build_smoke(&options, observer)
        })
    }

    /// Reads the timing cache, builds, and turns the reply into a plan or an error.
    fn run(
        &mut self,
        nodes: &[NodeProto],
        config: &BuilderConfig,
        options: &ffi::BuildOptions,
        shown: &str,
        build: impl FnOnce(&native::NativeLibrary, &[u8], &Observer) -> ffi::BuildReply,
    ) -> Result<BuiltPlan> {
        let (flavour, version) = (self.library.flavour(), self.library.version());
        let mut notes = config.notes(flavour);
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let cache_file = config.timing_cache_path().filter(|_| flavour != Flavour::Rtx);
        let cache = cache_file.map(timing_cache::read).transpose()?;
        if let (Some(file), Some(timing_cache::Read { altered: true, .. })) = (cache_file, &cache) {
            // For whoever changed it.
            crate::files::put_aside(file, "the timing cache")?;
            notes.push(timing_cache::altered_note(file));
        }
        let cache = cache.map(|cache| cache.bytes).unwrap_or_default();

        self.observer.begin(shown)?;
        let started = Instant::now();
        let reply = build(self.library.native(), &cache, &self.observer);
        let build_time = started.elapsed();
        say!(debug, "building {shown} with {version} took {} ms", build_time.as_millis());
        self.observer.finish(shown)?;
        let mut reply = explain(reply, nodes, shown)?;

        if let Some(file) = cache_file {
            if reply.timing_cache_state == ffi::TimingCacheState::Stale {
                notes.push(timing_cache::stale_note(file, version));
            }
            if !reply.timing_cache.is_empty() {
                timing_cache::write(file, &reply.timing_cache)?;
            }
        }
        notes.append(&mut reply.warnings);
        Ok(BuiltPlan {
            precision: config.precision(&reply),
            tensors: tensors(reply.tensors)?,
            bytes: reply.plan,
            flavour,
            version,
            profiles: config.profiles().to_vec(),
            version_compatible: options.version_compatible,
            hardware_compatibility: options.hardware_compatibility.into(),
            compute_capabilities: options.compute_capabilities.clone(),
            nodes: None,
            lowered: None,
            layers_json: reply.layers_json,
            timing_cache: Some(reply.timing_cache).filter(|cache| !cache.is_empty()),
            onnx_sha256: None,
            build_time,
            notes,
            log: reply.log,
        })
    }
}

fn tensors(tensors: Vec<ffi::Tensor>) -> Result<Vec<TensorInfo>> {
    tensors.into_iter().map(|tensor| Ok(native::EngineTensor::try_from(tensor)?.info)).collect()
}

/// Lets a good reply pass; makes the parser's errors part of the error's text.
fn explain(mut reply: ffi::BuildReply, nodes: &[NodeProto], shown: &str) -> Result<ffi::BuildReply> {
    if reply.failure.kind == ffi::FailureKind::None {
        return Ok(reply);
    }
    let described: Vec<String> = reply.parser_errors.iter().map(|error| describe(error, nodes)).collect();
    if let Some(first) = described.first() {
        reply.failure.got = first.clone();
        reply.failure.log.splice(0..0, described.into_iter().skip(1));
    }
    reply.failure.operation = format!("build {shown}: {}", reply.failure.operation);
    Err(native::error(reply.failure))
}

/// `node 3 \`conv1\` (Conv): reason [kUNSUPPORTED_NODE, importer.cpp:12 in function]`.
fn describe(error: &ffi::ParserError, nodes: &[NodeProto]) -> String {
    let known = usize::try_from(error.node).ok().and_then(|index| nodes.get(index));
    // TensorRT 8 tells the index alone; the model has the rest.
    let name = or_else(&error.node_name, known.map(NodeProto::name));
    let operator = or_else(&error.operator_name, known.map(NodeProto::op_type));
    let mut text = String::new();
    if error.node >= 0 {
        text += &format!("node {}", error.node);
        if !name.is_empty() {
            text += &format!(" `{name}`");
        }
        if !operator.is_empty() {
            text += &format!(" ({operator})");
        }
        text += ": ";
    }
    text += error.description.trim();
    text += &format!(" [{}", error.code);
    if !error.file.is_empty() {
        let file = error.file.rsplit('/').next().unwrap_or_default();
        text += &format!(", {file}:{}", error.line);
    }
    if !error.function.is_empty() {
        text += &format!(" in {}", error.function);
    }
    text + "]"
}

fn or_else<'a>(told: &'a str, known: Option<&'a str>) -> &'a str {
    if told.is_empty() { known.unwrap_or_default() } else { told }
}

/// Before anything is calibrated or timed.
fn refuse_in_production(shown: &str) -> Result<()> {
    crate::trust::refuse_in_production(&format!("build {shown}"), "build and sign it elsewhere")
}

//! `tickrt build`: from an ONNX model to an engine and its sidecar.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tickrt::onnx::Model;
use tickrt::{
    BuilderConfig, BuiltPlan, ComputeCapabilities, Device, Error, ErrorKind, Flavour, Gpu, HardwareCompatibility, IoMode,
    Library, Normalization, Normalizer, OptimizationProfile, Plan, PrecisionConstraints, Preference, ProfilingVerbosity,
    Shapes, Sidecar, TensorInfo, format_shape,
};

use crate::args::{self, Capability, Pool, Typed};
use crate::exit::{self, Failure, Outcome};
use crate::{progress, table};

const EXAMPLE: &str = "\
Example:
  tickrt build --onnx models/toy_cnn.onnx --engine models/toy_cnn.engine --max_workspace=256M --fp16
  tickrt build --onnx models/mlp_dynamic.onnx --engine mlp.engine \\
      --minShapes=input:1x256 --optShapes=input:8x256 --maxShapes=input:64x256 \\
      --normalization models/mlp_dynamic.normalization.json

Beside x.engine it writes x.engine.json, which says what the engine was built from and for. Ctrl-C stops a build and
leaves no file. What the TensorRT at hand cannot do is refused, never left out: 11 and RTX have no --fp16.";

/// Build an engine from an ONNX model
#[derive(clap::Args, Default)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// The model
    #[arg(long, value_name = "FILE")]
    pub onnx: PathBuf,
    /// Where the engine goes
    #[arg(long, visible_alias = "saveEngine", value_name = "FILE")]
    pub engine: PathBuf,
    /// Which TensorRT: trt8, trt10, trt11, rtx, or a library or folder; the first that is installed without
    #[arg(long, value_name = "WHICH", value_parser = Typed::parser(args::preference))]
    pub tensorrt: Option<Typed<Preference>>,
    /// Scratch memory of layers: 256M, 1G; a bare number is MiB
    #[arg(long = "max_workspace", visible_aliases = ["max-workspace", "workspace"], value_name = "SIZE", value_parser = Typed::parser(args::size))]
    pub max_workspace: Option<Typed<u64>>,
    /// Limits of memory pools, as workspace:256M,tacticSharedMem:64K
    #[arg(long = "memPoolSize", value_name = "LIST", value_parser = Typed::parser(args::pools))]
    pub pools: Vec<Typed<Vec<Pool>>>,
    /// Let layers compute in FP16 (TensorRT 8 and 10)
    #[arg(long)]
    pub fp16: bool,
    /// Let layers compute in BF16 (TensorRT 10)
    #[arg(long)]
    pub bf16: bool,
    /// Let layers compute in INT8; the model must have been quantised
    #[arg(long)]
    pub int8: bool,
    /// Keep FP32 layers from using TF32
    #[arg(long = "noTF32", alias = "no-tf32")]
    pub no_tf32: bool,
    /// Take every type from the model (TensorRT 10; 11 and RTX always do)
    #[arg(long = "stronglyTyped", alias = "strongly-typed")]
    pub strongly_typed: bool,
    /// Keep the types set on layers, or fail: --precisionConstraints=obey
    #[arg(long = "strict-types", visible_alias = "strict_types", conflicts_with = "constraints")]
    pub strict_types: bool,
    /// How binding the types set on layers are: none, prefer, obey
    #[arg(long = "precisionConstraints", value_name = "HOW", value_parser = Typed::parser(args::constraints))]
    pub constraints: Option<Typed<PrecisionConstraints>>,
    /// Least shapes of dynamic inputs, as in0:1x3x8,in1:1x2; given again for a second optimization profile
    #[arg(long = "minShapes", alias = "min-shapes", value_name = "SHAPES", value_parser = Typed::parser(args::shapes))]
    pub min_shapes: Vec<Typed<Shapes>>,
    /// Usual shapes, which TensorRT tunes for
    #[arg(long = "optShapes", alias = "opt-shapes", value_name = "SHAPES", value_parser = Typed::parser(args::shapes))]
    pub opt_shapes: Vec<Typed<Shapes>>,
    /// Greatest shapes
    #[arg(long = "maxShapes", alias = "max-shapes", value_name = "SHAPES", value_parser = Typed::parser(args::shapes))]
    pub max_shapes: Vec<Typed<Shapes>>,
    /// Tactics' timings, read and written back
    #[arg(long = "timingCacheFile", alias = "timing-cache-file", value_name = "FILE")]
    pub timing_cache: Option<PathBuf>,
    /// How long to search, 0 to 5
    #[arg(long = "builderOptimizationLevel", alias = "builder-optimization-level", value_name = "N", value_parser = clap::value_parser!(u8).range(0..=5))]
    pub level: Option<u8>,
    /// The most auxiliary streams
    #[arg(long = "maxAuxStreams", alias = "max-aux-streams", value_name = "N")]
    pub aux_streams: Option<u32>,
    /// How often a tactic is timed
    #[arg(long = "avgTiming", alias = "avg-timing", value_name = "N")]
    pub avg_timing: Option<u32>,
    /// Let later versions of TensorRT load it
    #[arg(long = "versionCompatible", visible_alias = "vc", alias = "version-compatible")]
    pub version_compatible: bool,
    /// Which other GPUs may run it: none, ampere+, sameComputeCapability
    #[arg(long = "hardwareCompatibilityLevel", visible_alias = "hc", value_name = "LEVEL", value_parser = Typed::parser(args::hardware))]
    pub hardware: Option<Typed<HardwareCompatibility>>,
    /// TensorRT-RTX: the GPUs to build for, as 8.6,8.9,12.0, or `current`; all it knows without
    #[arg(long = "computeCapability", visible_alias = "computeCapabilities", value_name = "LIST", value_delimiter = ',')]
    pub capabilities: Vec<Capability>,
    /// How much the engine can tell of its layers: layer_names_only, none, detailed
    #[arg(long = "profilingVerbosity", value_name = "HOW", value_parser = Typed::parser(args::verbosity))]
    pub verbosity: Option<Typed<ProfilingVerbosity>>,
    /// A *.normalization.json for an input, kept in the sidecar; may be given again
    #[arg(long, value_name = "FILE")]
    pub normalization: Vec<PathBuf>,
    /// Elements of a row, for a network that is to take rolling windows; kept in the sidecar
    #[arg(long = "window-row", visible_alias = "window_row", value_name = "N")]
    pub window_row: Option<usize>,
    /// Which GPU builds, in CUDA's order
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub device: usize,
    /// Print all that TensorRT says
    #[arg(long, short)]
    pub verbose: bool,
}

/// An engine that was written.
pub struct Engine {
    /// What it is.
    pub plan: Plan,
    /// How long TensorRT took.
    pub build_time: Duration,
    /// What the caller should know.
    pub notes: Vec<String>,
}

/// Runs it.
pub fn main(args: &Args) -> Outcome {
    if args.verbose {
        tickrt::set_log_level(tickrt::LogLevel::Verbose);
    }
    let library = Library::open_any(&args.preference())?;
    let engine = build(args, &library, false)?;
    engine.notes.iter().for_each(exit::note);
    offer_normalization(args);
    let sidecar = engine.plan.sidecar();
    let mut facts = vec![
        ("engine", format!("{} ({})", args.engine.display(), table::bytes(engine.plan.bytes().len() as u64))),
        ("sidecar", Plan::sidecar_path(&args.engine).display().to_string()),
        ("built by", format!("{} in {:.2} s ({})", library.version(), engine.build_time.as_secs_f64(), library.path().display())),
    ];
    // Of the sidecar's own facts, those that the command line has not said.
    facts.extend(engine.plan.facts().into_iter().filter(|(name, _)| {
        matches!(*name, "built on" | "runs on" | "version compatible" | "precision" | "profile" | "normalisation" | "window row")
    }));
    facts.extend(sidecar.iter().flat_map(|sidecar| &sidecar.tensors).map(tensor_fact));
    table::facts(facts);
    Ok(())
}

/// A tensor on one line.
pub fn tensor_fact(tensor: &TensorInfo) -> (&'static str, String) {
    let mode = if tensor.mode == IoMode::Input { "input" } else { "output" };
    (mode, format!("{} {} {}", tensor.name, tensor.data_type, format_shape(&tensor.shape)))
}

/// Builds and writes. Everything that can be known to fail is refused before TensorRT starts.
pub fn build(args: &Args, library: &Library, quiet: bool) -> Outcome<Engine> {
    let model = Model::read(&args.onnx)?;
    let normalizations = args.normalization.iter().map(Normalization::read).collect::<tickrt::Result<Vec<_>>>()?;
    check_normalizations(args, &model, &normalizations)?;
    let config = args.config(library.flavour())?;
    if same_file(&args.onnx, &args.engine) {
        return Err(Failure::usage(format!("--engine {} would overwrite the model", args.engine.display())));
    }
    Plan::check_writable(&args.engine)?;
    let built = progress::watch(library, quiet, |builder| builder.build_file(&args.onnx, &config))?;
    let plan = Plan::new(built.bytes.clone(), args.sidecar(&built, normalizations))?;
    plan.write(&args.engine)?;
    Ok(Engine { plan, build_time: built.build_time, notes: built.notes })
}

/// Whether the normalisations name inputs and fit them, window included; shapes that are dynamic are tried with their
/// optimum.
fn check_normalizations(args: &Args, model: &Model, normalizations: &[Normalization]) -> Outcome {
    let inputs = model.inputs();
    for (place, normalization) in normalizations.iter().enumerate() {
        let names: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
        let refused = |got: String| {
            Error::new(ErrorKind::InvalidArgument, format!("use the normalisation {}", args.normalization[place].display()))
                .expected(format!("one for each input at most: {}", names.join(", ")))
                .got(got)
        };
        if normalizations[..place].iter().any(|earlier| earlier.input == normalization.input) {
            return Err(refused(format!("a second one for `{}`", normalization.input)).into());
        }
        let Some(input) = inputs.iter().find(|input| input.name == normalization.input) else {
            return Err(refused(format!("one for `{}`", normalization.input)).into());
        };
        Normalizer::new(normalization, input, &args.usual_shape(input), args.window_row)?;
    }
    if let (Some(row), [input]) = (args.window_row, inputs) {
        let elements = tickrt::elements(&args.usual_shape(input)).unwrap_or(0);
        if row == 0 || elements % row != 0 {
            return Err(Failure::usage(format!("--window-row: expected a divisor of the input's {elements} elements, got {row}")));
        }
    } else if args.window_row.is_some() {
        return Err(Failure::usage(format!("--window-row: expected a network of one input, got {}", inputs.len())));
    }
    Ok(())
}

fn same_file(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// Without it the engine takes what the network takes, which is seldom what a caller has.
fn offer_normalization(args: &Args) {
    let beside = args.onnx.with_extension("normalization.json");
    if args.normalization.is_empty() && beside.exists() {
        exit::note(format!(
            "the engine takes normalised input; to put the normalisation into its sidecar, add --normalization {}",
            beside.display()
        ));
    }
}

impl Args {
    fn preference(&self) -> Preference {
        self.tensorrt.as_ref().map(|it| it.value.clone()).unwrap_or_default()
    }

    fn config(&self, flavour: Flavour) -> Outcome<BuilderConfig> {
        let mut config = BuilderConfig::new()
            .fp16(self.fp16)
            .bf16(self.bf16)
            .int8(self.int8)
            .tf32(!self.no_tf32)
            .strongly_typed(self.strongly_typed)
            .version_compatible(self.version_compatible)
            .verbose(self.verbose);
        for &(pool, bytes) in self.pools.iter().flat_map(|pools| &pools.value) {
            config = config.memory_pool(pool, bytes);
        }
        if let Some(bytes) = &self.max_workspace {
            config = config.workspace(bytes.value);
        }
        for profile in self.profiles() {
            config = config.profile(profile);
        }
        if let Some(level) = self.level {
            config = config.builder_optimization_level(level);
        }
        if let Some(streams) = self.aux_streams {
            config = config.max_aux_streams(streams);
        }
        if let Some(iterations) = self.avg_timing {
            config = config.avg_timing_iterations(iterations);
        }
        if let Some(file) = &self.timing_cache {
            config = config.timing_cache_file(file);
        }
        let constraints = self.constraints.as_ref().map(|it| it.value).unwrap_or_default();
        let constraints = if self.strict_types { PrecisionConstraints::Obey } else { constraints };
        config = config.precision_constraints(constraints);
        config = config.hardware_compatibility(self.hardware.as_ref().map(|it| it.value).unwrap_or_default());
        config = config.profiling_verbosity(self.verbosity.as_ref().map(|it| it.value).unwrap_or_default());
        Ok(config.compute_capabilities(self.compute_capabilities(flavour)?))
    }

    /// One profile for each time that the shapes were given.
    fn profiles(&self) -> Vec<OptimizationProfile> {
        let lists = [&self.min_shapes, &self.opt_shapes, &self.max_shapes];
        let count = lists.iter().map(|list| list.len()).max().unwrap_or(0);
        let none = Shapes::new();
        (0..count)
            .map(|number| {
                let [min, opt, max] = lists.map(|list| list.get(number).map_or(&none, |shapes| &shapes.value));
                OptimizationProfile::from_shapes(min, opt, max)
            })
            .collect()
    }

    fn compute_capabilities(&self, flavour: Flavour) -> Outcome<ComputeCapabilities> {
        let numbers = self.capabilities.iter().filter_map(|capability| match capability {
            Capability::Number(number) => Some(*number),
            Capability::Current => None,
        });
        let numbers: Vec<u32> = numbers.collect();
        match (self.capabilities.len(), numbers.len()) {
            (0, _) => Ok(ComputeCapabilities::All),
            (all, some) if all == some => Ok(ComputeCapabilities::List(numbers)),
            (1, 0) if flavour == Flavour::Rtx => Ok(ComputeCapabilities::Current),
            (1, 0) => Ok(ComputeCapabilities::All),
            _ => Err(Failure::usage("--computeCapability: expected `current` alone or a list without it")),
        }
    }

    /// The input's shape, from the first profile where it is dynamic, 1 where that does not tell.
    fn usual_shape(&self, input: &TensorInfo) -> Vec<i64> {
        let profiles = self.profiles();
        let range = profiles.first().and_then(|profile| profile.shapes.get(&input.name));
        let usual = range.filter(|range| range.opt.len() == input.shape.len()).map(|range| range.opt.clone());
        usual.unwrap_or_else(|| input.shape.iter().map(|&dimension| dimension.max(1)).collect())
    }

    /// All that a later reader wants to know, the flags that build it again included.
    fn sidecar(&self, built: &BuiltPlan, normalizations: Vec<Normalization>) -> Sidecar {
        let mut sidecar = Sidecar::from(built);
        sidecar.gpu = Device::open(self.device).ok().map(|device| {
            let (major, minor) = device.compute_capability();
            Gpu { name: device.name().to_owned(), compute_capability: major * 10 + minor }
        });
        sidecar.normalizations = normalizations;
        sidecar.window_row = self.window_row;
        sidecar.onnx_file = Some(self.onnx.display().to_string());
        sidecar.options = self.options();
        sidecar
    }

    /// The flags besides `--onnx`, `--engine`, `--device` and `--verbose`: what builds the same again.
    fn options(&self) -> Vec<String> {
        let mut options = Vec::new();
        let set = [
            (self.fp16, "fp16"),
            (self.bf16, "bf16"),
            (self.int8, "int8"),
            (self.no_tf32, "noTF32"),
            (self.strongly_typed, "stronglyTyped"),
            (self.strict_types, "strict-types"),
            (self.version_compatible, "versionCompatible"),
        ];
        options.extend(set.into_iter().filter(|(set, _)| *set).map(|(_, name)| format!("--{name}")));
        let mut value = |name: &str, text: &dyn Display| options.push(format!("--{name}={text}"));
        self.tensorrt.iter().for_each(|it| value("tensorrt", it));
        self.max_workspace.iter().for_each(|it| value("max_workspace", it));
        self.pools.iter().for_each(|it| value("memPoolSize", it));
        self.constraints.iter().for_each(|it| value("precisionConstraints", it));
        self.min_shapes.iter().for_each(|it| value("minShapes", it));
        self.opt_shapes.iter().for_each(|it| value("optShapes", it));
        self.max_shapes.iter().for_each(|it| value("maxShapes", it));
        self.timing_cache.iter().for_each(|it| value("timingCacheFile", &it.display()));
        self.level.iter().for_each(|it| value("builderOptimizationLevel", it));
        self.aux_streams.iter().for_each(|it| value("maxAuxStreams", it));
        self.avg_timing.iter().for_each(|it| value("avgTiming", it));
        self.hardware.iter().for_each(|it| value("hardwareCompatibilityLevel", it));
        self.capabilities.iter().for_each(|it| value("computeCapability", it));
        self.verbosity.iter().for_each(|it| value("profilingVerbosity", it));
        self.normalization.iter().for_each(|it| value("normalization", &it.display()));
        self.window_row.iter().for_each(|it| value("window-row", it));
        options
    }
}

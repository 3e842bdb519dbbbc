//! The flags of `tickrt build`, and what they ask of the builder.

use std::fmt::Display;
use std::path::PathBuf;

use tickrt::resident::{Asks, Semantics};
use tickrt::{
    BuilderConfig, Calibration, CalibrationMethod, ComputeCapabilities, Flavour, HardwareCompatibility, Int8Mode,
    Normalization, OptimizationProfile, PrecisionConstraints, Preference, ProfilingVerbosity, Shapes, TensorInfo,
};

use tickrt::onnx::Model;

use super::EXAMPLE;
use crate::args::{self, Capability, Pool, Typed};
use crate::calibration::CalibrationArgs;
use crate::exit::{Failure, Outcome};

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
    /// Build a resident engine: one kernel for the whole network, compiled by NVRTC, in place of TensorRT's plan
    #[arg(long)]
    pub resident: bool,
    /// With --resident: blocks of its cluster, one multiprocessor each: 1, 2, 4, 8 or 16; any other number, with --fp16 and a window, is
    /// that of a grid, at most. Whichever is predicted to be the fastest without
    #[arg(long = "resident-blocks", alias = "resident_blocks", value_name = "N", requires = "resident")]
    pub resident_blocks: Option<u32>,
    /// With --resident: threads of a block, a multiple of 32 up to 1024; the planner's choice without
    #[arg(long = "resident-threads", alias = "resident_threads", value_name = "N", requires = "resident")]
    pub resident_threads: Option<u32>,
    /// With --resident: what an answer is of. whole: of the input handed over; window: of the full window, of which calls hand
    /// over the newest row alone, and what does not depend on it is computed before; stateful: of every row since the state was reset, the
    /// state being carried on the GPU from call to call
    #[arg(long, value_name = "WHICH", value_parser = semantics, requires = "resident")]
    pub semantics: Option<Semantics>,
    /// With --resident: which blocks look for a call. first: one for all where each needs a share of the input alone, so that no call
    /// waits for the last to look (without this flag, too); each: every one for its own share; all: every one for all of it, for
    /// --resident-bar1
    #[arg(long = "resident-asks", alias = "resident_asks", value_name = "WHO", value_parser = asks, requires = "resident")]
    pub resident_asks: Option<Asks>,
    /// With --resident: sum up the cycles of each stage, for whoever looks for what takes the time
    #[arg(long, requires = "resident")]
    pub stamps: bool,
    /// Which TensorRT: trt8, trt10, trt11, rtx, or a library or folder; the first that is installed without
    #[arg(long, value_name = "WHICH", value_parser = Typed::parser(args::preference))]
    pub tensorrt: Option<Typed<Preference>>,
    /// Scratch memory of layers: 256M, 1G; a bare number is MiB
    #[arg(long = "max_workspace", visible_aliases = ["max-workspace", "workspace"], value_name = "SIZE", value_parser = Typed::parser(args::size))]
    pub max_workspace: Option<Typed<u64>>,
    /// Limits of memory pools, as workspace:256M,tacticSharedMem:64K
    #[arg(long = "memPoolSize", value_name = "LIST", value_parser = Typed::parser(args::pools))]
    pub pools: Vec<Typed<Vec<Pool>>>,
    /// Let layers compute in FP16; with --resident: keep the weights of matrices, LSTM and GRU layers in FP16, and sum up in FP32
    #[arg(long)]
    pub fp16: bool,
    /// Let layers compute in BF16 (not with TensorRT 8)
    #[arg(long)]
    pub bf16: bool,
    /// Let layers compute in INT8: with --calib or --calib-cache, or from a model that was quantised
    #[arg(long)]
    pub int8: bool,
    /// Let layers compute in FP8, with --calib (not with TensorRT 8; compute capability 8.9 or newer)
    #[arg(long)]
    pub fp8: bool,
    #[command(flatten)]
    pub calibration: CalibrationArgs,
    /// How ranges are chosen: entropy (without), minmax, percentile[:99.99], mse (not with --int8-mode=native)
    #[arg(long = "calib-method", alias = "calib_method", value_name = "HOW", value_parser = Typed::parser(args::method))]
    pub calib_method: Option<Typed<CalibrationMethod>>,
    /// Who calibrates: native (TensorRT 8 and 10 themselves), qdq (tickrt, into the model); whichever can without
    #[arg(long = "int8-mode", alias = "int8_mode", value_name = "WHO", value_parser = Typed::parser(args::int8_mode))]
    pub int8_mode: Option<Typed<Int8Mode>>,
    /// Write an INT8 or FP8 engine even where its answers to the calibration's samples are not those of FP32
    #[arg(long = "allow-inaccurate", alias = "allow_inaccurate")]
    pub allow_inaccurate: bool,
    /// Nodes that compute in FP32 all the same; an operator's name stands for all of its nodes
    #[arg(long = "keep-fp32", alias = "keep_fp32", value_name = "NODE", num_args = 1..)]
    pub keep_fp32: Vec<String>,
    /// Write the model as it was lowered to --fp16, --bf16, --int8 or --fp8
    #[arg(long = "save-onnx", alias = "save_onnx", value_name = "FILE")]
    pub save_onnx: Option<PathBuf>,
    /// Print in which precision each layer ended
    #[arg(long = "precision-report", alias = "precision_report")]
    pub precision_report: bool,
    /// Keep FP32 layers from using TF32
    #[arg(long = "noTF32", alias = "no-tf32")]
    pub no_tf32: bool,
    /// Take every type from the model (TensorRT 10; 11 and RTX always do)
    #[arg(long = "stronglyTyped", alias = "strongly-typed")]
    pub strongly_typed: bool,
    /// Keep the types set on layers, or fail: --precisionConstraints=obey (TensorRT 11 and RTX always do)
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
    /// The one shape of dynamic inputs, least, usual and greatest: of an engine that has no other
    #[arg(long, value_name = "SHAPES", value_parser = Typed::parser(args::shapes), conflicts_with_all = ["min_shapes", "opt_shapes", "max_shapes"])]
    pub shapes: Option<Typed<Shapes>>,
    /// Tactics' timings, read and written back
    #[arg(long = "timingCacheFile", alias = "timing-cache-file", value_name = "FILE")]
    pub timing_cache: Option<PathBuf>,
    /// How long to search, 0 to 5
    #[arg(long = "builderOptimizationLevel", alias = "builder-optimization-level", value_name = "N", value_parser = clap::value_parser!(u8).range(0..=5))]
    pub level: Option<u8>,
    /// Build so many plans, at several optimization levels, and keep the one whose calls are the fastest; 4 without a number
    #[arg(long, value_name = "PLANS", num_args = 0..=1, default_missing_value = "4", require_equals = true, conflicts_with = "level", value_parser = clap::value_parser!(u8).range(2..=32))]
    pub autotune: Option<u8>,
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
    /// TensorRT-RTX: the GPUs to build for, as 8.6,8.9,12.0, or `current`; all it knows without. With --resident: the one; this
    /// machine's without, or else 9.0
    #[arg(
        long = "computeCapability",
        visible_aliases = ["computeCapabilities", "compute-capability"],
        value_name = "LIST",
        value_delimiter = ','
    )]
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
}

impl Args {
    /// Which library.
    pub fn preference(&self) -> Preference {
        self.tensorrt.as_ref().map(|it| it.value.clone()).unwrap_or_default()
    }

    /// What INT8 is calibrated with, if anything is.
    pub fn calibration(
        &self,
        model: &Model,
        normalizations: &[Normalization],
        quiet: bool,
    ) -> Outcome<Option<Calibration>> {
        let method = self.calib_method.as_ref().map(|it| it.value).unwrap_or_default();
        self.calibration.open(model, normalizations, method, self.device, quiet)
    }

    /// What the builder is asked for.
    pub fn config(&self, flavour: Flavour) -> Outcome<BuilderConfig> {
        let mut config = BuilderConfig::new()
            .fp16(self.fp16)
            .bf16(self.bf16)
            .int8(self.int8)
            .fp8(self.fp8)
            .int8_mode(self.int8_mode.as_ref().map(|it| it.value).unwrap_or_default())
            .keep_fp32(self.keep_fp32.iter().map(String::as_str))
            .tf32(!self.no_tf32)
            .strongly_typed(self.strongly_typed)
            .version_compatible(self.version_compatible)
            .verbose(crate::log::is_verbose());
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
        // Else an engine does not tell its layers' types.
        let detailed = Some(ProfilingVerbosity::Detailed).filter(|_| self.precision_report);
        let verbosity = self.verbosity.as_ref().map(|it| it.value).or(detailed);
        config = config.profiling_verbosity(verbosity.unwrap_or_default());
        Ok(config.compute_capabilities(self.compute_capabilities(flavour)?))
    }

    /// One profile for each time that the shapes were given.
    fn profiles(&self) -> Vec<OptimizationProfile> {
        let lists = [&self.min_shapes, &self.opt_shapes, &self.max_shapes];
        let count = lists.iter().map(|list| list.len()).max().unwrap_or(0);
        let none = Shapes::new();
        if let Some(Typed { value, .. }) = &self.shapes {
            return vec![OptimizationProfile::from_shapes(value, value, value)];
        }
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
    pub fn usual_shape(&self, input: &TensorInfo) -> Vec<i64> {
        let profiles = self.profiles();
        let range = profiles.first().and_then(|profile| profile.shapes.get(&input.name));
        let usual = range.filter(|range| range.opt.len() == input.shape.len()).map(|range| range.opt.clone());
        usual.unwrap_or_else(|| input.shape.iter().map(|&dimension| dimension.max(1)).collect())
    }

    /// The flags besides `--onnx`, `--engine`, `--device` and `--verbose`: what builds the same again.
    pub fn options(&self) -> Vec<String> {
        let mut options = Vec::new();
        let set = [
            (self.fp16, "fp16"),
            (self.bf16, "bf16"),
            (self.int8, "int8"),
            (self.fp8, "fp8"),
            (self.no_tf32, "noTF32"),
            (self.strongly_typed, "stronglyTyped"),
            (self.strict_types, "strict-types"),
            (self.version_compatible, "versionCompatible"),
            (self.allow_inaccurate, "allow-inaccurate"),
        ];
        options.extend(set.into_iter().filter(|(set, _)| *set).map(|(_, name)| format!("--{name}")));
        let mut value = |name: &str, text: &dyn Display| options.push(format!("--{name}={text}"));
        self.tensorrt.iter().for_each(|it| value("tensorrt", it));
        self.max_workspace.iter().for_each(|it| value("max_workspace", it));
        self.calibration.calib.iter().for_each(|it| value("calib", it));
        self.calib_method.iter().for_each(|it| value("calib-method", it));
        self.calibration.calib_cache.iter().for_each(|it| value("calib-cache", &it.display()));
        self.calibration.calib_batches.iter().for_each(|it| value("calib-batches", it));
        self.calibration.calib_batch.iter().for_each(|it| value("calib-batch", it));
        self.int8_mode.iter().for_each(|it| value("int8-mode", it));
        self.keep_fp32.iter().for_each(|it| value("keep-fp32", it));
        self.pools.iter().for_each(|it| value("memPoolSize", it));
        self.constraints.iter().for_each(|it| value("precisionConstraints", it));
        self.min_shapes.iter().for_each(|it| value("minShapes", it));
        self.opt_shapes.iter().for_each(|it| value("optShapes", it));
        self.max_shapes.iter().for_each(|it| value("maxShapes", it));
        self.shapes.iter().for_each(|it| value("shapes", it));
        self.timing_cache.iter().for_each(|it| value("timingCacheFile", &it.display()));
        self.level.iter().for_each(|it| value("builderOptimizationLevel", it));
        self.autotune.iter().for_each(|it| value("autotune", it));
        self.aux_streams.iter().for_each(|it| value("maxAuxStreams", it));
        self.avg_timing.iter().for_each(|it| value("avgTiming", it));
        self.hardware.iter().for_each(|it| value("hardwareCompatibilityLevel", it));
        self.capabilities.iter().for_each(|it| value("computeCapability", it));
        self.verbosity.iter().for_each(|it| value("profilingVerbosity", it));
        self.normalization.iter().for_each(|it| value("normalization", &it.display()));
        self.window_row.iter().for_each(|it| value("window-row", it));
        self.resident_blocks.iter().for_each(|it| value("resident-blocks", it));
        self.resident_threads.iter().for_each(|it| value("resident-threads", it));
        self.semantics.iter().for_each(|it| value("semantics", it));
        match self.resident_asks {
            Some(Asks::Each) => value("resident-asks", &"each"),
            Some(Asks::All) => value("resident-asks", &"all"),
            Some(Asks::First) | None => {}
        }
        if self.stamps {
            options.push("--stamps".to_owned());
        }
        options
    }
}

fn semantics(text: &str) -> Result<Semantics, String> {
    match text {
        "whole" => Ok(Semantics::Whole),
        "window" => Ok(Semantics::Window),
        "stateful" => Ok(Semantics::Stateful),
        _ => Err(format!("`{text}` is none of whole, window, stateful")),
    }
}

/// Who looks for a call.
fn asks(text: &str) -> Result<Asks, String> {
    match text {
        "each" => Ok(Asks::Each),
        "all" => Ok(Asks::All),
        "first" => Ok(Asks::First),
        _ => Err(format!("`{text}` is none of each, all, first")),
    }
}

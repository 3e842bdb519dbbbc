//! `tickrt build --resident`: from an ONNX model to the kernel that computes all of it.

use tickrt::onnx::Model;
use tickrt::resident::budget::WeightType;
use tickrt::resident::{Artefact, ArtefactOptions, Semantics};
use tickrt::{Device, Normalization, Plan};

use super::Args;
use crate::args::Capability;
use crate::exit::{self, Failure, Outcome};
use crate::table::{self, Table};

/// What an H100 runs at under such a load, as the probe saw it: benches/probes/resident.md.
const CYCLES_PER_US: f64 = 1900.0;

/// Runs it.
pub fn main(args: &Args) -> Outcome {
    refuse_others_flags(args)?;
    if super::same_file(&args.onnx, &args.engine) {
        return Err(Failure::usage(format!("--engine {} would overwrite the model", args.engine.display())));
    }
    let model = Model::read(&args.onnx)?;
    let normalization = args.normalization.first().map(Normalization::read).transpose()?;
    let shapes =
        args.shapes.as_ref().or(args.opt_shapes.first()).map(|shapes| shapes.value.clone()).unwrap_or_default();
    super::check_normalizations(args, &model, normalization.as_slice())?;
    Plan::check_writable(&args.engine)?;
    let compute_capability = compute_capability(args)?;
    let options = ArtefactOptions {
        compute_capability,
        multiprocessors: multiprocessors(args, compute_capability),
        blocks: args.resident_blocks,
        threads: args.resident_threads,
        weights: if args.fp16 { WeightType::F16 } else { WeightType::F32 },
        window_row: args.window_row,
        stamps: args.stamps,
        asks: args.resident_asks.unwrap_or_default(),
        semantics: args.semantics.unwrap_or(Semantics::Whole),
    };
    let artefact = Artefact::build(&model, normalization.as_ref(), &shapes, &options)?;
    let artefact = artefact.with_options(flags(args, options.compute_capability));
    artefact.write(&args.engine)?;
    super::offer_normalization(args);
    if let Some(spilled) = artefact.facts().spilled_bytes.filter(|&bytes| bytes > 0) {
        exit::note(format!(
            "a thread keeps {spilled} bytes of its registers in memory, which takes time; see whether more --resident-blocks, or \
             another --resident-threads, needs fewer"
        ));
    }
    print(args, &artefact);
    Ok(())
}

fn print(args: &Args, artefact: &Artefact) {
    let facts = artefact.facts();
    let stages = facts.stages.iter().enumerate();
    let mut table = Table::new(&[">stage", "what it computes"]);
    stages.for_each(|(number, stage)| table.row([number.to_string(), stage.clone()]));
    table.print();
    println!();
    let compiled = artefact.compile_time().unwrap_or_default().as_secs_f64();
    let mut lines = vec![
        ("resident engine", format!("{} ({})", args.engine.display(), table::bytes(artefact.file_bytes()))),
        ("sidecar", Artefact::sidecar_path(&args.engine).display().to_string()),
        (
            "compiled",
            format!("in {compiled:.2} s with NVRTC {}, {} of machine code", facts.cuda, size(artefact.cubin())),
        ),
    ];
    lines.extend(facts.lines().into_iter().filter(|(name, _)| {
        matches!(
            *name,
            "runs on"
                | "semantics"
                | "blocks"
                | "shared memory"
                | "constants"
                | "registers"
                | "normalisation"
                | "window row"
        )
    }));
    lines.push(("predicted", predicted(facts.predicted_cycles)));
    lines.extend(facts.tensors().iter().map(super::tensor_fact));
    table::facts(lines);
}

/// A guess, and of what.
pub fn predicted(cycles: u64) -> String {
    let us = cycles as f64 / CYCLES_PER_US;
    format!("{us:.1} µs a call on an H100 ({cycles} cycles), from the input's arrival to the answer's departure")
}

fn size(bytes: &[u8]) -> String {
    table::bytes(bytes.len() as u64)
}

/// The one that was named; else that of the GPU at hand; else 9.0.
fn compute_capability(args: &Args) -> Outcome<(u32, u32)> {
    match &args.capabilities[..] {
        [Capability::Number(number)] => Ok((number / 10, number % 10)),
        [Capability::Current] => Ok(Device::open(args.device)?.compute_capability()),
        [] => Ok(Device::open(args.device).map_or((9, 0), |device| device.compute_capability())),
        several => Err(Failure::usage(format!(
            "--compute-capability: expected one, got {}; a resident engine runs on one alone: build it once for each",
            several.len()
        ))),
    }
}

/// Of the GPU at hand, if it is of the compute capability that is built for.
fn multiprocessors(args: &Args, wanted: (u32, u32)) -> Option<u32> {
    let here = Device::open(args.device).ok().filter(|device| device.compute_capability() == wanted);
    here.and_then(|device| device.multiprocessors().ok())
}

/// What builds the same again, on a machine with another GPU, too.
fn flags(args: &Args, (major, minor): (u32, u32)) -> Vec<String> {
    let others = args.options().into_iter().filter(|flag| !flag.starts_with("--computeCapability"));
    others.chain([format!("--compute-capability={major}.{minor}")]).collect()
}

/// Refuses what TensorRT alone can do.
fn refuse_others_flags(args: &Args) -> Outcome {
    const FP32: &str = "a resident engine sums up in fp32, of weights in fp32 or, with --fp16, in fp16";
    const TENSORRTS: &str = "it is for TensorRT, which builds no resident engine";
    const ONE_SHAPE: &str = "a resident engine has one shape, which --shapes or --optShapes gives";
    let calibration = &args.calibration;
    let given = [
        (args.bf16, "--bf16", FP32),
        (args.int8, "--int8", FP32),
        (args.fp8, "--fp8", FP32),
        (!calibration.calib.is_empty(), "--calib", FP32),
        (calibration.calib_cache.is_some(), "--calib-cache", FP32),
        (calibration.calib_batches.is_some(), "--calib-batches", FP32),
        (calibration.calib_batch.is_some(), "--calib-batch", FP32),
        (args.allow_inaccurate, "--allow-inaccurate", FP32),
        (args.calib_method.is_some(), "--calib-method", FP32),
        (args.int8_mode.is_some(), "--int8-mode", FP32),
        (!args.keep_fp32.is_empty(), "--keep-fp32", FP32),
        (args.save_onnx.is_some(), "--save-onnx", FP32),
        (args.precision_report, "--precision-report", FP32),
        (args.no_tf32, "--noTF32", "a resident engine never uses TF32"),
        (args.strongly_typed, "--stronglyTyped", FP32),
        (args.strict_types, "--strict-types", FP32),
        (args.constraints.is_some(), "--precisionConstraints", FP32),
        (args.tensorrt.is_some(), "--tensorrt", TENSORRTS),
        (args.max_workspace.is_some(), "--max_workspace", TENSORRTS),
        (!args.pools.is_empty(), "--memPoolSize", TENSORRTS),
        (args.timing_cache.is_some(), "--timingCacheFile", TENSORRTS),
        (args.level.is_some(), "--builderOptimizationLevel", TENSORRTS),
        (args.autotune.is_some(), "--autotune", TENSORRTS),
        (args.aux_streams.is_some(), "--maxAuxStreams", TENSORRTS),
        (args.avg_timing.is_some(), "--avgTiming", TENSORRTS),
        (args.version_compatible, "--versionCompatible", TENSORRTS),
        (args.hardware.is_some(), "--hardwareCompatibilityLevel", TENSORRTS),
        (args.verbosity.is_some(), "--profilingVerbosity", TENSORRTS),
        (!args.min_shapes.is_empty(), "--minShapes", ONE_SHAPE),
        (!args.max_shapes.is_empty(), "--maxShapes", ONE_SHAPE),
        (args.opt_shapes.len() > 1, "--optShapes a second time", ONE_SHAPE),
        (args.normalization.len() > 1, "--normalization a second time", "a resident engine has one input"),
    ];
    match given.into_iter().find(|(given, ..)| *given) {
        Some((_, flag, why)) => Err(Failure::usage(format!("--resident and {flag}: {why}; leave one of them out"))),
        None => Ok(()),
    }
}

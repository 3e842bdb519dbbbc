//! `tickrt build`: from an ONNX model to an engine and its sidecar.

mod accuracy;
mod args;
mod report;
pub mod resident;

use std::path::Path;
use std::time::Duration;

use tickrt::onnx::{Keep, Model, NodePrecision};
use tickrt::{
    BuilderConfig, BuiltPlan, Device, Error, ErrorKind, Gpu, IoMode, Library, Normalization, Normalizer, Plan,
    Precision, Sidecar, TensorInfo, format_shape,
};

use self::accuracy::Accuracy;
pub use self::args::Args;
use crate::exit::{self, Failure, Outcome};
use crate::table::Table;
use crate::{progress, table};

const EXAMPLE: &str = "\
Example:
  tickrt build --onnx models/toy_cnn.onnx --engine models/toy_cnn.engine \\
      --max_workspace=256M --fp16
  tickrt build --onnx models/mlp_dynamic.onnx --engine mlp.engine \\
      --minShapes=input:1x256 --optShapes=input:8x256 \\
      --maxShapes=input:64x256 \\
      --normalization models/mlp_dynamic.normalization.json

  tickrt build --onnx models/mlp.onnx --engine mlp.engine --autotune=6

  tickrt build --onnx models/toy_cnn.onnx --engine toy_cnn.engine --fp16 --int8 \\
      --normalization models/toy_cnn.normalization.json \\
      --calib models/data/sp500_calibration_windows.npy --precision-report

TensorRT 8 and 10 choose layer by layer what --fp16 and --int8 allow, and calibrate themselves. TensorRT 11 and RTX take \
every type from the model: there, and with --stronglyTyped, the model is lowered first, by casts and by \
QuantizeLinear and DequantizeLinear nodes. What the TensorRT or the GPU at hand cannot do is refused, never left out. \
`tickrt validate --precision` says what a precision costs and brings.

  tickrt build --resident --onnx models/mlp.onnx --engine mlp.resident \\
      --normalization models/mlp.normalization.json

--resident makes one kernel of the whole network, which stays on the GPU and answers call after call: for small FP32 networks of \
one input. It is compiled here, by NVRTC, and needs no compiler where it runs.

Beside x.engine it writes x.engine.json, which says what the engine was built from and for. Ctrl-C stops a build and \
leaves no file.";

/// An engine that was written.
pub struct Engine {
    /// What it is.
    pub plan: Plan,
    /// How long TensorRT took.
    pub build_time: Duration,
    /// What the caller should know.
    pub notes: Vec<String>,
    /// What became of the model's nodes, where it was lowered.
    pub nodes: Option<Vec<NodePrecision>>,
    /// The network's layers, as the parser made them.
    pub layers_json: String,
    /// How far its answers are from FP32's, where it was calibrated and both could be asked.
    pub accuracy: Option<Accuracy>,
}

/// Runs it.
pub fn main(args: &Args) -> Outcome {
    if args.resident {
        return resident::main(args);
    }
    check(args)?;
    let library = Library::open_any(&args.preference())?;
    let engine = build(args, &library, false)?;
    engine.notes.iter().for_each(exit::note);
    offer_normalization(args);
    let sidecar = engine.plan.sidecar();
    let mut facts = vec![
        ("engine", format!("{} ({})", args.engine.display(), table::bytes(engine.plan.bytes().len() as u64))),
        ("sidecar", Plan::sidecar_path(&args.engine).display().to_string()),
        (
            "built by",
            format!("{} in {:.2} s ({})", library.version(), engine.build_time.as_secs_f64(), library.path().display()),
        ),
    ];
    // Of the sidecar's own facts, those that the command line has not said.
    facts.extend(engine.plan.facts().into_iter().filter(|(name, _)| {
        matches!(
            *name,
            "built on"
                | "runs on"
                | "version compatible"
                | "precision"
                | "autotune"
                | "profile"
                | "normalisation"
                | "window row"
        )
    }));
    facts.extend(engine.accuracy.iter().map(|accuracy| ("accuracy", accuracy.to_string())));
    facts.extend(sidecar.iter().flat_map(|sidecar| &sidecar.tensors).map(tensor_fact));
    table::facts(facts);
    if args.precision_report {
        report::print(engine.nodes.as_deref(), &engine.layers_json, &engine.plan, args.device);
    }
    Ok(())
}

/// A tensor on one line.
pub fn tensor_fact(tensor: &TensorInfo) -> (&'static str, String) {
    let mode = if tensor.mode == IoMode::Input { "input" } else { "output" };
    (mode, format!("{} {} {}", tensor.name, tensor.data_type, format_shape(&tensor.shape)))
}

/// Refuses what can be known to fail, before TensorRT is looked for or spends an hour. The normalisations.
fn check(args: &Args) -> Outcome<Vec<Normalization>> {
    let model = Model::read(&args.onnx)?;
    let normalizations = args.normalization.iter().map(Normalization::read).collect::<tickrt::Result<Vec<_>>>()?;
    check_normalizations(args, &model, &normalizations)?;
    check_precision(args, &model)?;
    if same_file(&args.onnx, &args.engine) {
        return Err(Failure::usage(format!("--engine {} would overwrite the model", args.engine.display())));
    }
    // First: the check writes a file and removes it.
    progress::catch_ctrl_c();
    Plan::check_writable(&args.engine)?;
    Ok(normalizations)
}

/// Builds and writes.
pub fn build(args: &Args, library: &Library, quiet: bool) -> Outcome<Engine> {
    let normalizations = check(args)?;
    let config = args.config(library.flavour())?;
    let mut engine = match args.autotune {
        Some(plans) => autotuned(args, library, quiet, &config, plans, &normalizations)?,
        None => one(args, library, quiet, &config, &normalizations)?,
    };
    engine.accuracy = accuracy::check(args, &engine.plan, &normalizations, &mut engine.notes)?;
    engine.plan.write(&args.engine)?;
    Ok(engine)
}

fn one(
    args: &Args,
    library: &Library,
    quiet: bool,
    config: &BuilderConfig,
    normalizations: &[Normalization],
) -> Outcome<Engine> {
    let model = Model::read(&args.onnx)?;
    let calibration = args.calibration(&model, normalizations, quiet)?;
    let mut built = progress::watch(library, quiet, calibration, |builder| builder.build_model(&model, config))?;
    if let Some(file) = &args.save_onnx {
        save_lowered(args, &model, &mut built, file)?;
    }
    // What TensorRT has just made of a model that it was given is as trusted as TensorRT.
    let plan = Plan::new(built.bytes.clone(), sidecar(args, &built, normalizations.to_vec()))?.allow_host_code();
    Ok(Engine {
        plan,
        build_time: built.build_time,
        notes: built.notes,
        nodes: built.nodes,
        layers_json: built.layers_json,
        accuracy: None,
    })
}

/// Writes the lowered model. Where TensorRT took the precision as a flag, FP16 or BF16 in the graph is what other runtimes
/// need for the same.
fn save_lowered(args: &Args, model: &Model, built: &mut BuiltPlan, file: &Path) -> Outcome {
    if let Some(lowered) = &built.lowered {
        return Ok(lowered.write(file)?);
    }
    let half = if args.bf16 { Precision::Bf16 } else { Precision::Fp16 };
    let (file_name, version) = (file.display(), built.version);
    let note = if args.int8 {
        format!(
            "{file_name} was not written: {version} calibrates by itself (--int8-mode=qdq writes it into the model)"
        )
    } else {
        model.to_half(half, &Keep::new(model, &args.keep_fp32)?)?.model.write(file)?;
        format!("{file_name} has {half} in the model; {version} built from the model as it was, and from flags")
    };
    built.notes.push(note);
    Ok(())
}

/// The fastest of several plans. Levels come in the order of how often they win; of one level, two builds differ, too.
fn autotuned(
    args: &Args,
    library: &Library,
    quiet: bool,
    config: &BuilderConfig,
    plans: u8,
    normalizations: &[Normalization],
) -> Outcome<Engine> {
    const LEVELS: [u8; 8] = [3, 2, 4, 3, 1, 2, 3, 5];
    // What cannot run here is known before the first of many builds.
    Device::open(args.device)?;
    let (mut built, mut build_time, mut notes) = (Vec::new(), Duration::ZERO, Vec::new());
    let (mut nodes, mut layers_json) = (None, String::new());
    for number in 0..plans {
        let level = LEVELS[usize::from(number) % LEVELS.len()];
        if !quiet {
            eprintln!("plan {} of {plans}, optimization level {level}", number + 1);
        }
        let engine = one(args, library, quiet, &config.clone().builder_optimization_level(level), normalizations)?;
        build_time += engine.build_time;
        notes.extend(engine.notes);
        built.push((level, engine.plan));
        (nodes, layers_json) = (engine.nodes, engine.layers_json);
    }
    notes.sort();
    notes.dedup();
    let (fastest, candidates) = tickrt::autotune(&built, args.device)?;
    if !quiet {
        let mut table = Table::new(&[">plan", ">level", ">p50 µs", ">p99 µs", ""]);
        for (number, candidate) in candidates.iter().enumerate() {
            let kept = if number == fastest { "kept" } else { "" };
            let us = |time: f64| format!("{time:.1}");
            table.row([
                (number + 1).to_string(),
                candidate.level.to_string(),
                us(candidate.p50_us),
                us(candidate.p99_us),
                kept.to_owned(),
            ]);
        }
        table.print();
        println!();
    }
    let plan = built.swap_remove(fastest).1;
    let mut sidecar = plan.sidecar().cloned().unwrap_or_else(|| unreachable!("`one` gives each its sidecar"));
    sidecar.autotune = candidates;
    let plan = Plan::new(plan.bytes().to_vec(), sidecar)?.allow_host_code();
    Ok(Engine { plan, build_time, notes, nodes, layers_json, accuracy: None })
}

/// Whether the normalisations name inputs and fit them, window included; shapes that are dynamic are tried with their
/// optimum.
fn check_normalizations(args: &Args, model: &Model, normalizations: &[Normalization]) -> Outcome {
    let inputs = model.inputs();
    for (place, normalization) in normalizations.iter().enumerate() {
        let names: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
        let refused = |got: String| {
            Error::new(
                ErrorKind::InvalidArgument,
                format!("use the normalisation {}", args.normalization[place].display()),
            )
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
        if row == 0 || !elements.is_multiple_of(row) {
            return Err(Failure::usage(format!(
                "--window-row: expected a divisor of the input's {elements} elements, got {row}"
            )));
        }
    } else if args.window_row.is_some() {
        return Err(Failure::usage(format!("--window-row: expected a network of one input, got {}", inputs.len())));
    }
    Ok(())
}

/// Whether what was said of precision can be meant; TensorRT and the GPU are not asked yet.
fn check_precision(args: &Args, model: &Model) -> Outcome {
    Keep::new(model, &args.keep_fp32)?;
    let quantizes = args.int8 || args.fp8;
    if quantizes && !args.calibration.is_given() && !model.is_quantized() {
        return Err(Failure::usage(
            "--int8 and --fp8: expected calibration data or the cache of an earlier calibration, got neither; add --calib \
             FILE with some hundreds of samples from the training data, or --calib-cache FILE, or give a model that was \
             quantised in training",
        ));
    }
    if !quantizes && args.calibration.is_given() {
        return Err(Failure::usage("--calib and --calib-cache are for --int8 and --fp8: add one, or leave them out"));
    }
    if args.allow_inaccurate && !quantizes {
        return Err(Failure::usage("--allow-inaccurate is for --int8 and --fp8: add one, or leave it out"));
    }
    if args.save_onnx.is_some() && !(args.fp16 || args.bf16 || args.int8) {
        return Err(Failure::usage("--save-onnx writes the model as it is lowered: add --fp16, --bf16 or --int8"));
    }
    if let Some(file) = args.save_onnx.as_ref().filter(|file| same_file(file, &args.onnx)) {
        return Err(Failure::usage(format!("--save-onnx {} would overwrite the model", file.display())));
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

/// All that a later reader wants to know, the flags that build it again included.
fn sidecar(args: &Args, built: &BuiltPlan, normalizations: Vec<Normalization>) -> Sidecar {
    let mut sidecar = Sidecar::from(built);
    sidecar.gpu = Device::open(args.device).ok().map(|device| {
        let (major, minor) = device.compute_capability();
        Gpu { name: device.name().to_owned(), compute_capability: major * 10 + minor }
    });
    sidecar.normalizations = normalizations;
    sidecar.window_row = args.window_row;
    sidecar.onnx_file = Some(args.onnx.display().to_string());
    sidecar.options = args.options();
    sidecar
}

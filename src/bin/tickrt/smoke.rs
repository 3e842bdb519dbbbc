//! `tickrt smoke`: is TensorRT there and working? Step by step, each said before the next.

use std::path::{Path, PathBuf};

use tickrt::backend::ort::{OnnxRuntime, OrtBackend};
use tickrt::data::Array;
use tickrt::onnx::Model;
use tickrt::{
    Builder, BuilderConfig, Device, Engine, Library, Normalization, Plan, Preference, SMOKE_ELEMENTS, Session,
    SessionConfig, Sidecar, smoke_answer,
};

use crate::args;
use crate::exit::{self, Failure, Outcome};
use crate::table;

const EXAMPLE: &str = "\
Example:
  tickrt smoke
  tickrt smoke --tensorrt /opt/tensorrt-8.6.1 --models /srv/models

Builds and runs a three-layer network and models/toy_cnn.onnx. Ends with 0 if all of it works, with 3 if something is not \
there (without a GPU it can only build), with 1 if an answer is wrong.";

/// See whether TensorRT is there and works
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// Which TensorRT: trt8, trt10, trt11, rtx, or a library or folder; the first that is installed without
    #[arg(long, value_name = "WHICH", value_parser = args::preference)]
    tensorrt: Option<Preference>,
    /// The folder with toy_cnn.onnx; $TICKRT_TEST_ROOT/models or ./models without
    #[arg(long, value_name = "DIR")]
    models: Option<PathBuf>,
    /// Which GPU, in CUDA's order
    #[arg(long, value_name = "N", default_value_t = 0)]
    device: usize,
}

/// How close answers must be: TF32 keeps three digits.
const TOLERANCE: f32 = 1e-2;
const WINDOWS: usize = 64;
/// 32 days of 8 features.
const WINDOW: usize = 256;

/// Runs it.
pub fn main(args: &Args) -> Outcome {
    let library = library_for(args.tensorrt.as_ref(), true)?;
    step("library", format!("{} ({})", library.version(), library.path().display()));
    let gpu = Device::open(args.device);
    match &gpu {
        Ok(gpu) => {
            let (major, minor) = gpu.compute_capability();
            step("gpu", format!("{} (compute capability {major}.{minor})", gpu.name()));
        }
        Err(error) => step("gpu", format!("none: {error}")),
    }
    match OnnxRuntime::load(None) {
        Ok(runtime) => step("onnx runtime", format!("{} ({})", runtime.version(), runtime.path().display())),
        Err(error) => step("onnx runtime", format!("none: {error}")),
    }
    let models = models_folder(args.models.as_deref())?;
    let three_layers = three_layers(&library, args)?;
    let toy_cnn = toy_cnn(&library, &models, args)?;
    match (three_layers, toy_cnn) {
        (None, None) => {
            println!("TensorRT works here.");
            Ok(())
        }
        (Some(reason), _) | (_, Some(reason)) => {
            Err(Failure::environment(format!("both networks were built, but not run: {reason}")))
        }
    }
}

fn step(name: &str, text: impl std::fmt::Display) {
    println!("  {name:<13} {text}");
}

/// The library that was asked for; where none was, and there is no GPU for a TensorRT that needs one to build,
/// TensorRT-RTX.
pub fn library_for(preference: Option<&Preference>, say: bool) -> Outcome<Library> {
    let library = Library::open_any(preference.unwrap_or(&Preference::Any))?;
    if preference.is_some() || library.flavour().builds_without_gpu() || Device::count().is_ok() {
        return Ok(library);
    }
    match Library::open_any(&Preference::Flavour(tickrt::Flavour::Rtx)) {
        Ok(rtx) => {
            if say {
                exit::note(format!("{} cannot build without a GPU, so {} does", library.version(), rtx.version()));
            }
            Ok(rtx)
        }
        Err(_) => Ok(library),
    }
}

/// The folder with the models and their data.
pub fn models_folder(named: Option<&Path>) -> Outcome<PathBuf> {
    let root = std::env::var_os("TICKRT_TEST_ROOT").map(|root| PathBuf::from(root).join("models"));
    let candidates: Vec<PathBuf> = match named {
        Some(named) => vec![named.to_path_buf()],
        None => root.into_iter().chain([PathBuf::from("models")]).collect(),
    };
    candidates.iter().find(|folder| folder.join("toy_cnn.onnx").exists()).cloned().ok_or_else(|| {
        let tried = candidates.iter().map(|folder| folder.join("toy_cnn.onnx").display().to_string());
        Failure::usage(format!(
            "find the model: expected {}, got no such file; name the folder with --models DIR",
            tried.collect::<Vec<_>>().join(" or ")
        ))
    })
}

/// Builds and runs the network made by hand. The reason why it could not be run, if it could not.
fn three_layers(library: &Library, args: &Args) -> Outcome<Option<tickrt::Error>> {
    let built = Builder::new(library).build_smoke_network(&BuilderConfig::new())?;
    let (size, time) = (table::bytes(built.bytes.len() as u64), built.build_time.as_secs_f64() * 1e3);
    step("three layers", format!("built in {time:.0} ms, {size}"));
    let plan = Plan::new(built.bytes.clone(), Sidecar::from(&built))?;
    let mut session = match start(&plan, args.device)? {
        Ok(session) => session,
        Err(reason) => return Ok(Some(reason)),
    };
    let input: [f32; SMOKE_ELEMENTS] = std::array::from_fn(|index| index as f32 * 0.5 - 1.0);
    let mut output = [0.0_f32; SMOKE_ELEMENTS];
    let answer = session.infer(&input, &mut output)?;
    for (x, got) in input.into_iter().zip(output) {
        let expected = smoke_answer(x);
        // So few operations on such numbers are exact in every precision.
        if got != expected {
            return Err(Failure::check(format!("run three layers: expected {expected} for {x}, got {got}")));
        }
    }
    step("", format!("ran in {:.1} µs, answers right{}", answer.latency().as_secs_f64() * 1e6, graph(&session)));
    Ok(None)
}

/// Builds the toy CNN, and compares its answers with ONNX Runtime's, or with says that it cannot.
fn toy_cnn(library: &Library, models: &Path, args: &Args) -> Outcome<Option<tickrt::Error>> {
    let onnx = models.join("toy_cnn.onnx");
    let normalization = Normalization::read(models.join("toy_cnn.normalization.json"))?;
    let built = Builder::new(library).build_file(&onnx, &BuilderConfig::new())?;
    let (size, time) = (table::bytes(built.bytes.len() as u64), built.build_time.as_secs_f64() * 1e3);
    step("toy_cnn", format!("built in {time:.0} ms, {size}"));
    let mut sidecar = Sidecar::from(&built);
    sidecar.normalizations = vec![normalization.clone()];
    let plan = Plan::new(built.bytes.clone(), sidecar)?;
    let mut session = match start(&plan, args.device)? {
        Ok(session) => session,
        Err(reason) => return Ok(Some(reason)),
    };
    let windows = Array::read_npy(models.join("data/nasdaq_windows.npy"))?;
    let tickrt::data::Values::F32(windows) = windows.values else {
        return Err(Failure::usage("nasdaq_windows.npy: expected f32"));
    };
    let config = SessionConfig { normalizations: Some(vec![normalization]), ..SessionConfig::default() };
    let mut reference = match OrtBackend::cpu(&Model::read(&onnx)?, &config) {
        Ok(backend) => Session::start(Box::new(backend), &config)?,
        Err(error) => {
            step("", "ran; its answers were compared with nothing: there is no ONNX Runtime");
            return Ok(Some(error));
        }
    };
    let (mut got, mut expected, mut furthest) = ([0.0_f32; 3], [0.0_f32; 3], 0.0_f32);
    for window in windows.chunks_exact(WINDOW).take(WINDOWS) {
        session.infer(window, &mut got)?;
        reference.infer(window, &mut expected)?;
        furthest = got.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(furthest, f32::max);
    }
    if furthest > TOLERANCE {
        return Err(Failure::check(format!(
            "run toy_cnn: expected ONNX Runtime's answers within {TOLERANCE}, got one that is {furthest} away"
        )));
    }
    step("", format!("ran {WINDOWS} windows, answers right within {furthest:.1e}{}", graph(&session)));
    Ok(None)
}

/// Starts a session; the inner error says what this machine lacks for it.
fn start(plan: &Plan, device: usize) -> Outcome<Result<Session, tickrt::Error>> {
    use tickrt::ErrorKind::{NoGpu, OutOfMemory, PlanGpu};
    let config = SessionConfig { device, ..SessionConfig::default() };
    match Engine::from_plan(plan, device).and_then(|engine| engine.session(&config)) {
        Ok(session) => Ok(Ok(session)),
        Err(error) if matches!(error.kind(), NoGpu | PlanGpu | OutOfMemory) => {
            step("", "not run");
            Ok(Err(error))
        }
        Err(error) => Err(error.into()),
    }
}

fn graph(session: &Session) -> String {
    session
        .why_no_graph()
        .map_or_else(|| ", from a CUDA graph".to_owned(), |why| format!(", without a CUDA graph: {why}"))
}

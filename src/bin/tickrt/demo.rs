//! `tickrt demo`: the main job from end to end, on the sample market data.

use std::path::{Path, PathBuf};

use serde::Serialize;
use tickrt::data::{Array, Feed, Values};
use tickrt::stats::Latencies;
use tickrt::{BackendKind, Predictor, SessionConfig, WindowConfig};

use crate::answers::{self, Answers};
use crate::chain::ChainArgs;
use crate::exit::{Failure, Outcome};
use crate::run::{self, Classes};
use crate::{build, smoke, table};

const EXAMPLE: &str = "\
Example:
  scripts/demo
  tickrt demo --models models --engine target/demo/toy_cnn.engine

Builds an engine from toy_cnn.onnx, sends every window of the sample data through tensorrt, ort-cuda, ort-cpu, and prints \
who answers, how well and how fast. The last line is one JSON object.";

/// Features of a day, and what the classes are called: see models/README.md.
const ROW: usize = 8;
const CLASSES: [&str; 3] = ["uptrend", "downtrend", "range"];

/// Show the main job: build an engine, answer on market data, fall back
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// The folder with toy_cnn.onnx and data/; $TICKRT_TEST_ROOT/models or ./models without
    #[arg(long, value_name = "DIR")]
    models: Option<PathBuf>,
    /// Where the engine goes
    #[arg(long, value_name = "FILE", default_value = "target/demo/toy_cnn.engine")]
    engine: PathBuf,
}

/// Runs it.
pub fn main(args: &Args) -> Outcome {
    let models = smoke::models_folder(args.models.as_deref())?;
    let onnx = models.join("toy_cnn.onnx");
    let library = smoke::library_for(None, true)?;
    let built = build_engine(args, &onnx, &models, &library)?;
    println!("engine");
    table::facts([
        ("model", onnx.display().to_string()),
        ("library", format!("{} ({})", library.version(), library.path().display())),
        ("size", format!("{} bytes", built.plan.bytes().len())),
        ("built in", format!("{:.0} ms", built.build_time.as_secs_f64() * 1e3)),
        ("written to", args.engine.display().to_string()),
    ]);

    let chain = ChainArgs { engine: Some(args.engine.clone()), onnx: Some(onnx), threads: 1, ..ChainArgs::default() };
    let config = SessionConfig { windows: Some(WindowConfig::new(1, ROW)), ..chain.config()? };
    let mut predictor =
        chain.predictor(&[BackendKind::TensorRt, BackendKind::OrtCuda, BackendKind::OrtCpu], &config)?;
    println!("\nchain: tensorrt, ort-cuda, ort-cpu");
    table::facts(answers::who_answers(&predictor));

    let windows = Array::read_npy(models.join("data/nasdaq_windows.npy"))?;
    let labels = Array::read_npy(models.join("data/nasdaq_labels.npy"))?;
    let feed = Feed::new(predictor.session().signature(), vec![(None, windows.clone())])?;
    let answers = answers::answer(&mut predictor, &feed)?;
    let classes = run::classes(&answers.outputs[0], Some(&labels), &CLASSES)?;
    let rolled = roll(&mut predictor, &windows, &answers)?;
    print_answers(&feed, &answers, &classes, rolled);
    let summary = Summary::new(&built, &predictor, &answers.latencies, classes.accuracy);
    println!("\n{}", serde_json::to_string(&summary).expect("strings and finite numbers"));
    Ok(())
}

fn build_engine(args: &Args, onnx: &Path, models: &Path, library: &tickrt::Library) -> Outcome<build::Engine> {
    let folder = args.engine.parent().unwrap_or(Path::new(""));
    std::fs::create_dir_all(folder)
        .map_err(|error| Failure::usage(format!("make the folder {}: {error}", folder.display())))?;
    let recipe = build::Args {
        onnx: onnx.to_path_buf(),
        engine: args.engine.clone(),
        normalization: vec![models.join("toy_cnn.normalization.json")],
        window_row: Some(ROW),
        ..build::Args::default()
    };
    build::build(&recipe, library, true)
}

/// The same windows again as a feed has them, one new row at a time. The number of rows pushed; an answer that differs
/// from the whole window's is an error.
fn roll(predictor: &mut Predictor, windows: &Array, whole: &Answers) -> Outcome<usize> {
    let (Values::F32(rows), Values::F32(expected)) = (&windows.values, &whole.outputs[0].values) else {
        return Err(Failure::usage("nasdaq_windows.npy: expected f32"));
    };
    let window = rows.len() / windows.shape[0];
    let mut scores = vec![0.0_f32; expected.len() / windows.shape[0]];
    let mut pushed = 0;
    for (number, expected) in expected.chunks_exact(scores.len()).enumerate() {
        let start = number * window;
        let follows = number > 0 && rows[start..start + window - ROW] == rows[start - window + ROW..start];
        let new = if follows { &rows[start + window - ROW..start + window] } else { &rows[start..start + window] };
        if !follows {
            predictor.reset(0)?;
        }
        for row in new.chunks_exact(ROW) {
            predictor.push(0, row)?;
            pushed += 1;
        }
        let ticket = predictor.submit_window(0)?;
        predictor.wait(ticket, &mut scores)?;
        if scores != expected {
            return Err(Failure::check(format!(
                "answer window {number} row by row: expected {expected:?}, as for the whole window, got {scores:?}"
            )));
        }
    }
    Ok(pushed)
}

fn print_answers(feed: &Feed, answers: &Answers, classes: &Classes, rolled: usize) {
    println!("\nanswers");
    let mut facts = vec![("windows", feed.calls().to_string())];
    facts.extend(classes.facts.iter().cloned());
    facts.push(("latency", answers::latency_line(&answers.latencies)));
    facts.push(("throughput", format!("{:.0} windows/s, one after the other", answers.latencies.calls_per_s())));
    facts.push(("rolling", format!("{rolled} rows pushed one by one give the same {} answers", feed.calls())));
    table::facts(facts);
}

/// The last line.
#[derive(Serialize)]
struct Summary {
    model: &'static str,
    engine_library: String,
    engine_version: String,
    engine_bytes: usize,
    engine_build_ms: f64,
    active_backend: BackendKind,
    passed_over: Vec<PassedOver>,
    windows: u64,
    /// A share of 1.
    accuracy: Option<f64>,
    p50_us: f64,
    p95_us: f64,
    p99_us: f64,
    p999_us: f64,
    max_us: f64,
    inferences_per_s: f64,
}

#[derive(Serialize)]
struct PassedOver {
    backend: BackendKind,
    reason: String,
}

impl Summary {
    fn new(built: &build::Engine, predictor: &Predictor, latencies: &Latencies, accuracy: Option<f64>) -> Self {
        let passed_over = predictor.passed_over().iter();
        let us = |share| latencies.quantile_us(share);
        Self {
            model: "toy_cnn",
            engine_library: built.plan.flavour().to_string(),
            engine_version: built.plan.version().number(),
            engine_bytes: built.plan.bytes().len(),
            engine_build_ms: (built.build_time.as_secs_f64() * 1e4).round() / 10.0,
            active_backend: predictor.active(),
            passed_over: passed_over
                .map(|passed| PassedOver { backend: passed.backend, reason: passed.reason.to_string() })
                .collect(),
            windows: latencies.calls(),
            accuracy,
            p50_us: us(0.5),
            p95_us: us(0.95),
            p99_us: us(0.99),
            p999_us: us(0.999),
            max_us: latencies.max_us(),
            inferences_per_s: latencies.calls_per_s(),
        }
    }
}

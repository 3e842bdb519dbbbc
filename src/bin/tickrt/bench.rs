//! `tickrt bench`: latency of each path that is there, measured in turns and with every answer checked.

mod machine;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tickrt::data::{Feed, Values};
use tickrt::stats::{Comparison, Latencies, Record};
use tickrt::{BackendKind, Session};

use self::machine::Machine;
use crate::args::{self, NamedFile};
use crate::chain::{self, ChainArgs};
use crate::exit::{Failure, Outcome};
use crate::table::Table;

const EXAMPLE: &str = "\
Example:
  tickrt bench --engine models/mlp.engine --onnx models/mlp.onnx --jsonl latency.jsonl
  tickrt bench --onnx models/toy_cnn.onnx --chain ort-cpu --duration 2

Host to host: from before the first byte of input is written to after the last byte of output is read. Paths take turns
of 100 calls; input is new every call, its answer computed beforehand and compared. Ends with 1 if an answer was wrong.";

/// Calls a path makes before the next one's turn.
const TURN: usize = 100;

/// Measure the latency of the paths that are there
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    #[command(flatten)]
    chain: ChainArgs,
    /// Samples, as for `run`; random ones without
    #[arg(long, visible_alias = "loadInputs", value_name = "FILE", value_delimiter = ',')]
    input: Vec<NamedFile>,
    /// How many random samples
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    samples: u32,
    /// What the random samples follow from
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Calls a path, at most
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    iterations: u64,
    /// Seconds a path, at most
    #[arg(long, value_name = "S", default_value_t = 20.0, value_parser = args::tolerance)]
    duration: f64,
    /// Milliseconds of calls a path before anything is measured
    #[arg(long = "warmUp", alias = "warm-up", value_name = "MS", default_value_t = 200)]
    warm_up: u64,
    /// Absolute tolerance of an answer
    #[arg(long, value_name = "X", default_value_t = 1e-2, value_parser = args::tolerance)]
    atol: f64,
    /// Relative tolerance of an answer
    #[arg(long, value_name = "X", default_value_t = 1e-2, value_parser = args::tolerance)]
    rtol: f64,
    /// Append one record a path to this file
    #[arg(long, value_name = "FILE")]
    jsonl: Option<PathBuf>,
}

/// Runs it.
pub fn main(args: &Args) -> Outcome {
    let kinds = args.chain.kinds()?;
    let config = args.chain.config()?;
    let mut paths = Vec::new();
    for kind in kinds {
        match args.chain.session(kind, &config) {
            Ok(session) => paths.push(Path::new(kind, session)?),
            Err(reason) => println!("  {kind} is not measured: {reason}"),
        }
    }
    if paths.is_empty() {
        return Err(Failure::environment("measure latency: none of the chain's entries could start"));
    }
    let feed = feed(args, &paths[0].session)?;
    let reference = expected(&mut paths, &feed)?;
    warm_up(args, &mut paths, &feed)?;
    measure(args, &mut paths, &feed)?;
    print(&paths, &reference);
    if let Some(file) = &args.jsonl {
        Record::append(&records(args, &paths)?, file)?;
        println!("\n  a record a path was appended to {}", file.display());
    }
    let wrong: Vec<String> = paths
        .iter()
        .filter(|path| path.found.beyond > 0)
        .map(|path| format!("{} of {} elements by {}", path.found.beyond, path.found.elements, path.name()))
        .collect();
    if wrong.is_empty() { Ok(()) } else { Err(Failure::check(format!("wrong answers: {}", wrong.join("; ")))) }
}

/// One way to an answer, and what was seen of it.
struct Path {
    kind: BackendKind,
    session: Session,
    latencies: Latencies,
    /// Including what is between the calls.
    spent: Duration,
    /// The first output of the last call.
    got: Values,
    /// The first output of every sample, one after the other.
    expected: Values,
    found: Comparison,
}

impl Path {
    fn new(kind: BackendKind, session: Session) -> Outcome<Self> {
        let output = &session.signature().shapes[0].outputs[0];
        let none = chain::empty(output)?;
        let zeros = vec![0; output.count * output.data_type.size()];
        let got = Values::from_bytes(output.data_type, &zeros).unwrap_or_else(|| none.clone());
        Ok(Self {
            kind,
            session,
            latencies: Latencies::new(),
            spent: Duration::ZERO,
            got,
            expected: none,
            found: Comparison::default(),
        })
    }

    /// As records have it.
    fn name(&self) -> &'static str {
        match self.kind {
            BackendKind::TensorRt => "tickrt",
            BackendKind::OrtCuda => "ort-cuda",
            _ => "ort-cpu",
        }
    }

    /// One call, from before the first byte of input is written to after the last byte of output is read.
    #[inline]
    fn call(&mut self, feed: &Feed, sample: usize) -> tickrt::Result<Duration> {
        let started = Instant::now();
        let mut slot = self.session.input()?;
        feed.write(sample, &mut slot)?;
        let ticket = slot.submit()?;
        let got = &mut self.got;
        self.session.wait_into(ticket, |outputs| got.copy_from(0, outputs, 0))?;
        Ok(started.elapsed())
    }

    /// A turn of measured calls.
    fn turn(&mut self, feed: &Feed, calls: usize, tolerance: [f64; 2]) -> tickrt::Result<()> {
        let started = Instant::now();
        let count = self.got.len();
        for _ in 0..calls {
            let sample = self.latencies.calls() as usize % feed.calls();
            let latency = self.call(feed, sample)?;
            self.latencies.record(latency);
            self.found.add((&self.got, 0), (&self.expected, sample * count), count, tolerance);
        }
        self.spent += started.elapsed();
        Ok(())
    }

    /// How much of its measurement is done, of 1.
    fn done(&self, args: &Args) -> f64 {
        let by_calls = self.latencies.calls() as f64 / args.iterations as f64;
        by_calls.max(self.spent.as_secs_f64() / args.duration).min(1.0)
    }
}

fn feed(args: &Args, session: &Session) -> Outcome<Feed> {
    if args.input.is_empty() {
        return Ok(Feed::random(session.signature(), args.samples as usize, args.seed)?);
    }
    chain::read_inputs(&args.input, session.signature())
}

/// Computes every sample's answer: by ONNX Runtime on the CPU if it is there, else by each path itself, which then shows
/// only mixed-up answers. Says by whom.
fn expected(paths: &mut [Path], feed: &Feed) -> Outcome<String> {
    let reference = paths.iter().position(|path| path.kind == BackendKind::OrtCpu);
    for place in 0..paths.len() {
        if reference.is_some_and(|reference| reference != place) {
            continue;
        }
        let path = &mut paths[place];
        for sample in 0..feed.calls() {
            let mut slot = path.session.input()?;
            feed.write(sample, &mut slot)?;
            let ticket = slot.submit()?;
            let expected = &mut path.expected;
            path.session.wait_into(ticket, |outputs| expected.extend_from(outputs, 0))?;
        }
    }
    let Some(reference) = reference else { return Ok("each path's own, computed beforehand".to_owned()) };
    let answers = paths[reference].expected.clone();
    paths.iter_mut().for_each(|path| path.expected = answers.clone());
    Ok("ONNX Runtime's on the CPU, computed beforehand".to_owned())
}

fn warm_up(args: &Args, paths: &mut [Path], feed: &Feed) -> Outcome {
    for path in paths {
        let end = Instant::now() + Duration::from_millis(args.warm_up);
        let mut sample = 0;
        while Instant::now() < end {
            path.call(feed, sample)?;
            sample = (sample + 1) % feed.calls();
        }
    }
    Ok(())
}

fn measure(args: &Args, paths: &mut [Path], feed: &Feed) -> Outcome {
    let progress = Progress::new();
    loop {
        let done = paths.iter().map(|path| path.done(args)).sum::<f64>() / paths.len() as f64;
        progress.show(done);
        if done >= 1.0 {
            return Ok(());
        }
        for path in paths.iter_mut().filter(|path| path.done(args) < 1.0) {
            let left = args.iterations - path.latencies.calls();
            path.turn(feed, TURN.min(usize::try_from(left).unwrap_or(TURN)), [args.atol, args.rtol])?;
        }
    }
}

/// A bar on a terminal; elsewhere nothing, for it would be in the way of whatever reads stderr.
struct Progress(ProgressBar);

impl Progress {
    fn new() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let bar = ProgressBar::new(1000);
        let style = ProgressStyle::with_template("measuring [{bar:40}] {percent:>3} %, {eta} left");
        bar.set_style(style.expect("a template that indicatif takes").progress_chars("=> "));
        Self(bar)
    }

    fn show(&self, done: f64) {
        if done < 1.0 { self.0.set_position((done * 1000.0) as u64) } else { self.0.finish_and_clear() }
    }
}

fn print(paths: &[Path], reference: &str) {
    for path in paths {
        println!("  {}: {}", path.name(), path.session.description());
        if path.kind == BackendKind::TensorRt && let Some(why) = path.session.why_no_graph() {
            println!("  {}: without a CUDA graph: {why}", path.name());
        }
    }
    println!("\nlatency in µs, host to host, batch {}; answers compared with {reference}", batch(&paths[0].session));
    let mut table = Table::new(&[
        "path", ">calls", ">mean", ">p50", ">p95", ">p99", ">p99.9", ">p99.99", ">max", ">calls/s", ">device MB", ">wrong",
    ]);
    for path in paths {
        let latencies = &path.latencies;
        let quantiles = [0.5, 0.95, 0.99, 0.999, 0.9999].map(|share| format!("{:.1}", latencies.quantile_us(share)));
        let mut row = vec![path.name().to_owned(), latencies.calls().to_string(), format!("{:.1}", latencies.mean_us())];
        row.extend(quantiles);
        row.push(format!("{:.1}", latencies.max_us()));
        row.push(format!("{:.0}", latencies.calls_per_s()));
        row.push(format!("{:.1}", path.session.device_memory() as f64 / 1e6));
        row.push(path.found.beyond.to_string());
        table.row(row);
    }
    table.print();
    say_where_the_cpu_wins(paths);
}

/// Below some size no launch of a kernel pays.
fn say_where_the_cpu_wins(paths: &[Path]) {
    let p50 = |path: &&Path| path.latencies.quantile_us(0.5);
    let cpu = paths.iter().find(|path| !path.kind.on_gpu()).map(|path| p50(&path));
    let gpu = paths.iter().filter(|path| path.kind.on_gpu()).map(|path| p50(&path)).reduce(f64::min);
    if let (Some(cpu), Some(gpu)) = (cpu, gpu)
        && cpu < gpu
    {
        println!("\n  this network is so small that the CPU answers before the GPU: {cpu:.1} against {gpu:.1} µs");
    }
}

/// The first dimension of the first input, as calls have it.
fn batch(session: &Session) -> u64 {
    let signature = session.signature();
    let (tensor, normalizer) = (&signature.inputs[0], &signature.shapes[0].inputs[0]);
    let rest: i64 = tensor.shape.iter().skip(1).filter(|&&dimension| dimension > 0).product();
    match tensor.shape.first() {
        Some(&batch) if batch >= 0 => batch as u64,
        Some(_) => normalizer.count() as u64 / rest.max(1) as u64,
        None => 1,
    }
}

fn records(args: &Args, paths: &[Path]) -> Outcome<Vec<Record>> {
    let machine = Machine::look(args.chain.device);
    let model = machine::model(&args.chain)?;
    let run_id = machine::run_id();
    let record = |path: &Path| {
        let latencies = &path.latencies;
        let batch = batch(&path.session);
        let on_tensorrt = path.kind == BackendKind::TensorRt;
        let of = |applies: bool, version: &str| if applies { version.to_owned() } else { "none".to_owned() };
        Record {
            run_id: run_id.clone(),
            model: model.name.clone(),
            model_sha256: model.sha256.clone(),
            path: path.name().to_owned(),
            precision: if on_tensorrt { model.precision.clone() } else { "fp32".to_owned() },
            semantics: "whole input, host to host".to_owned(),
            batch,
            threads: 1,
            sessions: 1,
            idle_ms: 0,
            load: "closed".to_owned(),
            p50_us: latencies.quantile_us(0.5),
            p95_us: latencies.quantile_us(0.95),
            p99_us: latencies.quantile_us(0.99),
            p999_us: latencies.quantile_us(0.999),
            p9999_us: latencies.quantile_us(0.9999),
            max_us: latencies.max_us(),
            calls: latencies.calls(),
            inferences_per_s: latencies.calls_per_s() * batch as f64,
            device_mb: path.session.device_memory() as f64 / 1e6,
            gpu: machine.gpu.clone(),
            driver: machine.driver.clone(),
            tensorrt: of(on_tensorrt, &model.tensorrt),
            onnxruntime: of(!on_tensorrt, &machine.onnxruntime),
            commit: machine.commit.clone(),
        }
    };
    Ok(paths.iter().map(record).collect())
}

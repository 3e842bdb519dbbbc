//! `tickrt bench`: latency of each path that is there, measured in turns and with every answer checked.

mod check;
mod html;
mod idle;
pub mod machine;
mod newest;
mod open_loop;
mod path;
mod plot;
mod report;
mod soak;
mod stages;
mod throughput;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tickrt::data::Feed;
use tickrt::resident::Semantics;
use tickrt::{BackendKind, Device, Engine, Metrics, Precision, Session, SessionConfig};

pub use self::check::read as records;
use self::open_loop::Arrivals;
pub use self::path::{Path, Way};
pub use self::soak::duration;
use crate::answers;
use crate::args::{self, NamedFile};
use crate::chain::{self, ChainArgs};
use crate::exit::{self, Failure, Outcome};

const EXAMPLE: &str = "\
Example:
  tickrt bench --engine models/mlp.engine --onnx models/mlp.onnx \\
      --jsonl latency.jsonl
  tickrt bench --onnx models/toy_cnn.onnx --paths ort-cpu --duration 2
  tickrt bench --engine models/mlp.engine --paths tickrt,tickrt-ahead \\
      --sessions 1,2,4 --idle 1,100

Host to host: from before the first byte of input is written to after the last byte of output is read. Paths take turns \
of 50 ms, of which the first 5 are not measured, because a GPU that has idled while others had their turn is slow at first \
(--idle measures that); input is new every call, its answer computed beforehand and compared. Ends with 1 if an answer was wrong.

With a resident engine built with --semantics window, samples are the windows of one series: every path gets them whole but \
tickrt-resident, which gets the newest row within the clock and has the rows before it on the GPU.

Paths:
  tickrt-resident a kernel of tickrt's own that stays on the GPU (--resident)
  tickrt          the session as it is by default
  tickrt-ahead    the same, each graph launched ahead of its call
  trt-graph-sync  TensorRT: copies and network in a CUDA graph, then a synchronise
  trt-textbook    TensorRT as its samples run it: copies, enqueueV3, a synchronise
  ort-cuda-graph  ONNX Runtime CUDA with its graph, bound tensors, one synchronise
  ort-cuda        ONNX Runtime CUDA, run()
  ort-cpu         ONNX Runtime on --threads CPU threads
  ort-cpu-all     ONNX Runtime on as many threads as it likes";

/// ONNX Runtime's helpers spin for 2²⁰ rounds after a call, 20 ms to more than 150 where they share a core, on the cores on
/// which the others are measured.
const SPINNING_ON: Duration = Duration::from_millis(300);
/// How long a path calls before the next one's turn.
const TURN: Duration = Duration::from_millis(50);
/// How much of that is not measured: a GPU that was idle raises its clocks first.
const SETTLING: Duration = Duration::from_millis(5);

/// Measure the latency of the paths that are there
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    #[command(flatten)]
    chain: ChainArgs,
    /// What is measured, of the paths below; without, all that the files allow (or the chain, if one is named)
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = Way::parse)]
    paths: Vec<Way>,
    /// Then, how many sessions answer together, each on a thread of its own: numbers, as 1,2,4,8
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=256))]
    sessions: Vec<u16>,
    /// Keep the measuring thread on this core; `near` takes one near the GPU
    #[arg(long, value_name = "CORE", value_parser = pin)]
    pin: Option<Pin>,
    /// Then, an open loop: so many calls a second at Poisson times, each path for --duration, at most 20 s
    #[arg(long, value_name = "CALLS_PER_S", value_parser = args::tolerance, conflicts_with = "arrivals")]
    rate: Option<f64>,
    /// How many calls of the open loop come at once
    #[arg(long, value_name = "N", default_value_t = 1, requires = "rate", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    burst: u32,
    /// Then, an open loop of calls at these times: microseconds in an .npy
    #[arg(long, value_name = "FILE")]
    arrivals: Option<PathBuf>,
    /// Then, call the first path for so long, 10m or 2h: how its latency moves, its worst calls, and what the GPU did then
    #[arg(long, value_name = "TIME", value_parser = soak::duration)]
    soak: Option<Duration>,
    /// Evict the processor's caches before every call of the closed loop
    #[arg(long)]
    cold: bool,
    /// Seconds for each number of sessions
    #[arg(long, value_name = "S", default_value_t = 2.0, value_parser = args::tolerance)]
    sessions_duration: f64,
    /// Then, the first call after pauses of so many milliseconds, as 1,100; 0: right after `keep_warm`, which it waits for
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = clap::value_parser!(u64).range(0..=60_000))]
    idle: Vec<u64>,
    /// How many pauses of each length, instead of 2000 up to 10 ms, 100 up to a second, else 10
    #[arg(long, value_name = "N", requires = "idle", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pauses: Option<u32>,
    /// Samples, as for `run`; random ones without
    #[arg(long, visible_alias = "loadInputs", value_name = "FILE", value_delimiter = ',')]
    input: Vec<NamedFile>,
    /// How many random samples; of a series' windows, with a resident engine that takes the newest row alone, how many at most
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    samples: u32,
    /// What the random samples follow from
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Calls a path, at most
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    iterations: u64,
    /// How long a path, at most: seconds, or 10m, 2h
    #[arg(long, value_name = "TIME", default_value = "20", value_parser = seconds)]
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
    /// Write the records as one JSON array
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the records as CSV
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Draw every path's latency by percentile: a .png or .svg
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Write a report as one page, with tables and plots
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Serve metrics for Prometheus at this address while it measures, as 127.0.0.1:9464: each path's calls are counted
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<String>,
    /// Say which chain is the fastest for this model on this machine
    #[arg(long)]
    recommend: bool,
    /// Compare with the records of this file: ends with 1 where ours has lost of its lead over another path
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
    /// How much of its lead it may lose: 0.15 is 15 %
    #[arg(long, value_name = "SHARE", default_value_t = 0.15, value_parser = args::tolerance)]
    check_tolerance: f64,
}

/// Runs it.
pub fn main(args: &Args) -> Outcome {
    let config = args.chain.config()?;
    let Started { mut paths, missing, engine } = start(args, &config)?;
    let _metrics = serve_metrics(args, &mut paths)?;
    let ways: Vec<Way> = paths.iter().map(|path| path.way).chain(missing.iter().map(|(way, _)| *way)).collect();
    let feed = feed(args, &ways, &paths[0].session)?;
    let arrivals = arrivals(args)?;
    let before = args.check.as_deref().map(check::read).transpose()?;
    // Whether they can be written, before minutes are spent on measuring.
    if let Some(file) = &args.plot {
        plot::check(file)?;
    }
    for file in args.jsonl.iter().chain(&args.json).chain(&args.csv).chain(&args.plot).chain(&args.html) {
        report::try_to_write(file)?;
    }
    let reference = expected(&mut paths, &feed)?;
    let cores = args.pin.map(|pin| pin.cores(args.chain.device));
    if let Some(&core) = cores.as_ref().and_then(|cores| cores.first()) {
        // Now: threads that were started before keep their freedom.
        tickrt::thread::pin(core)?;
    }
    warm_up(args, &mut paths, &feed)?;
    paths.iter_mut().try_for_each(|path| newest::measure(path, &feed, [args.atol, args.rtol]))?;
    paths.iter_mut().for_each(stages::begin);
    measure(args, &mut paths, &feed)?;
    report::print(&paths, &missing, &reference);
    paths.iter().for_each(stages::print);
    let mut paused = Vec::new();
    if !args.idle.is_empty() {
        for path in paths.iter_mut().filter(|path| matches!(path.way, Way::Resident | Way::Tickrt | Way::TickrtAhead)) {
            paused.extend(idle::measure(path, &args.idle, args.pauses, &feed, [args.atol, args.rtol])?);
        }
        if paused.is_empty() {
            exit::note("--idle is of tickrt's own paths, and none of them was measured");
        } else {
            idle::print(&paused);
        }
    }
    let mut together = Vec::new();
    if let (false, Some(engine)) = (args.sessions.is_empty(), &engine) {
        let numbers: Vec<usize> = args.sessions.iter().map(|&number| number.into()).collect();
        let how = throughput::How {
            engine,
            config: &config,
            feed: &feed,
            expected: &paths[0].expected,
            duration: Duration::from_secs_f64(args.sessions_duration),
            tolerance: [args.atol, args.rtol],
            cores: cores.as_deref(),
        };
        together = numbers.iter().map(|&sessions| throughput::measure(sessions, &how)).collect::<Outcome<_>>()?;
        throughput::print(&together);
    }
    let mut open = Vec::new();
    if let Some(arrivals) = &arrivals {
        for path in &mut paths {
            open.push(open_loop::measure(path, arrivals, &feed, [args.atol, args.rtol])?);
        }
        open_loop::print(&open);
    }
    if let Some(duration) = args.soak {
        soak::run(&mut paths[0], &feed, duration, args.chain.device, [args.atol, args.rtol])?;
    }
    if args.recommend {
        report::recommend(&paths);
    }
    let records = report::records(args, &paths, &report::Beside { paused, together, open })?;
    report::write(args, &records)?;
    if let Some(file) = &args.plot {
        plot::draw(&paths, &report::title(&records), file)?;
        println!("\n  drawn in {}", file.display());
    }
    if let Some(file) = &args.html {
        html::write(file, &paths, &missing, &reference, &records)?;
    }
    let wrong: Vec<String> = paths
        .iter()
        .filter(|path| path.found.beyond > 0)
        .map(|path| format!("{} of {} elements by {}", path.found.beyond, path.found.elements, path.way.name()))
        .collect();
    if !wrong.is_empty() {
        return Err(Failure::check(format!("wrong answers: {}", wrong.join("; "))));
    }
    match (&args.check, &before) {
        (Some(file), Some(before)) => check::against(&records, before, file, args.check_tolerance),
        _ => Ok(()),
    }
}

/// Of every path, if that was asked for; without, nothing is counted.
fn serve_metrics(args: &Args, paths: &mut [Path]) -> Outcome<Option<Metrics>> {
    if args.metrics.is_none() {
        return Ok(None);
    }
    let watched = paths.iter_mut().map(|path| (path.way.name().to_owned(), path.session.counters())).collect();
    chain::serve_metrics(args.metrics.as_deref(), watched, args.chain.device)
}

/// The open loop's, if one was asked for.
fn arrivals(args: &Args) -> Outcome<Option<Arrivals>> {
    if let Some(file) = &args.arrivals {
        return Arrivals::read(file).map(Some);
    }
    let Some(rate) = args.rate else { return Ok(None) };
    if rate < 0.01 {
        return Err(Failure::usage("--rate: at least 0.01 calls a second"));
    }
    let duration = Duration::from_secs_f64(args.duration.min(20.0));
    Ok(Some(Arrivals::poisson(rate, args.burst, duration, args.seed)))
}

fn seconds(text: &str) -> Result<f64, String> {
    soak::duration(text).map(|duration| duration.as_secs_f64())
}

/// Where the measuring thread stays.
#[derive(Debug, Clone, Copy)]
enum Pin {
    Core(usize),
    Near,
}

fn pin(text: &str) -> Result<Pin, String> {
    if text == "near" {
        return Ok(Pin::Near);
    }
    text.parse().map(Pin::Core).map_err(|_| format!("`{text}` is no core: a number, or near"))
}

impl Pin {
    /// Where to measure, and behind it where further threads go. Near the GPU, from the last core on: the first ones are
    /// where interrupts go.
    fn cores(self, device: usize) -> Vec<usize> {
        let near = Device::open(device).map(|device| tickrt::thread::cores_near(&device));
        let mut cores = near.unwrap_or_else(|_| tickrt::thread::allowed_cores());
        cores.reverse();
        if let Self::Core(first) = self {
            cores.retain(|&core| core != first);
            cores.insert(0, first);
        }
        cores
    }
}

/// What could be started.
struct Started {
    paths: Vec<Path>,
    /// The other paths, each with its reason.
    missing: Vec<(Way, String)>,
    engine: Option<Engine>,
}

fn start(args: &Args, config: &SessionConfig) -> Outcome<Started> {
    let kinds = args.chain.kinds()?;
    let ways = if args.paths.is_empty() { Way::of(&kinds) } else { args.paths.clone() };
    for way in &ways {
        match way.kind() {
            BackendKind::Resident if args.chain.resident.is_none() => {
                return Err(Failure::usage(format!("{} is to be measured: add --resident FILE", way.name())));
            }
            BackendKind::TensorRt if args.chain.engine.is_none() => {
                return Err(Failure::usage(format!("{} is to be measured: add --engine FILE", way.name())));
            }
            BackendKind::OrtCuda | BackendKind::OrtCpu if args.chain.onnx.is_none() => {
                return Err(Failure::usage(format!("{} is to be measured: add --onnx FILE", way.name())));
            }
            _ => {}
        }
    }
    if ways.len() > 1 && args.chain.facts()?.is_some_and(|facts| facts.semantics == Semantics::Stateful) {
        return Err(Failure::usage(
            "the resident engine carries state from call to call, and no other path does: measure it alone, with --paths \
             tickrt-resident",
        ));
    }
    let mut engine = None;
    let mut why_no_engine = None;
    if args.chain.engine.is_some() && ways.iter().any(|way| way.kind() == BackendKind::TensorRt) {
        match Engine::from_plan(&args.chain.plan()?, args.chain.device) {
            Ok(started) => engine = Some(started),
            Err(error) => why_no_engine = Some(error.to_string()),
        }
    }
    // Equal precision: what the engine may do, ONNX Runtime may.
    let tf32 = args.chain.sidecar()?.is_some_and(|sidecar| sidecar.precision == Precision::Tf32);
    let (mut paths, mut missing) = (Vec::new(), Vec::new());
    for way in ways {
        let started = match &why_no_engine {
            Some(why) if way.kind() == BackendKind::TensorRt => Err(why.clone()),
            _ => way.start(&args.chain, config, engine.as_ref(), tf32).map_err(|error| error.to_string()),
        };
        match started {
            Ok(session) => paths.push(match args.chain.facts()?.filter(|_| way == Way::Resident) {
                Some(facts) => Path::resident(session, facts)?,
                None => Path::new(way, session)?,
            }),
            Err(reason) => missing.push((way, reason)),
        }
    }
    if paths.is_empty() {
        let reasons: Vec<String> = missing.iter().map(|(way, why)| format!("{}: {why}", way.name())).collect();
        return Err(Failure::environment(format!(
            "measure latency: none of the paths could start\n  {}",
            reasons.join("\n  ")
        )));
    }
    Ok(Started { paths, missing, engine })
}

/// What is asked. With a resident engine to which the newest row alone is handed over, the windows of one circular series: those
/// that it answers fast are of one sequence, and every path answers the same.
fn feed(args: &Args, ways: &[Way], session: &Session) -> Outcome<Feed> {
    let (signature, samples) = (session.signature(), args.samples as usize);
    let facts = if ways.contains(&Way::Resident) { args.chain.facts()? } else { None };
    let row = facts.as_ref().and_then(path::row_alone);
    let Some(row) = row else {
        return if args.input.is_empty() {
            Ok(Feed::random(signature, samples, args.seed)?)
        } else {
            answers::read_inputs(&args.input, signature)
        };
    };
    let rows = signature.shapes[0].inputs[0].count() / row;
    let calls = if args.input.is_empty() {
        Feed::random(signature, samples.div_ceil(rows), args.seed)?
    } else {
        answers::read_inputs(&args.input, signature)?
    };
    Ok(calls.sliding(row, samples)?)
}

/// Computes every sample's answer: by ONNX Runtime on the CPU if it is there, else by each path itself, which then shows
/// only mixed-up answers. Says by whom.
fn expected(paths: &mut [Path], feed: &Feed) -> Outcome<String> {
    let reference = paths.iter().position(|path| path.way.kind() == BackendKind::OrtCpu);
    for (place, path) in paths.iter_mut().enumerate() {
        if reference.is_some_and(|reference| reference != place) {
            continue;
        }
        path.expect(feed)?;
        path.session.rest();
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
        path.session.rest();
    }
    Ok(())
}

/// How much of a path's measurement is done, of 1.
fn done(path: &Path, args: &Args) -> f64 {
    let by_calls = path.latencies.calls() as f64 / args.iterations as f64;
    by_calls.max(path.spent.as_secs_f64() / args.duration).min(1.0)
}

fn measure(args: &Args, paths: &mut [Path], feed: &Feed) -> Outcome {
    let progress = Progress::new();
    let mut evict = args.cold.then(Evictor::new);
    let mut between = || {
        if let Some(evict) = &mut evict {
            evict.run();
        }
    };
    loop {
        let all = paths.iter().map(|path| done(path, args)).sum::<f64>() / paths.len() as f64;
        progress.show(all);
        if all >= 1.0 {
            return Ok(());
        }
        for path in paths.iter_mut().filter(|path| done(path, args) < 1.0) {
            let left = args.iterations - path.latencies.calls();
            path.turn(feed, left, [args.atol, args.rtol], &mut between)?;
            if path.way.spins_on() {
                std::thread::sleep(SPINNING_ON);
            }
        }
    }
}

/// Memory larger than any processor's caches, to push everything else out of them.
struct Evictor(Vec<u64>);

impl Evictor {
    fn new() -> Self {
        const BYTES: usize = 256 << 20;
        Self(vec![1; BYTES / size_of::<u64>()])
    }

    /// Writes one word of each line.
    fn run(&mut self) {
        const LINE: usize = 64 / size_of::<u64>();
        self.0.iter_mut().step_by(LINE).for_each(|word| *word = word.wrapping_add(1));
        std::hint::black_box(&mut self.0);
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

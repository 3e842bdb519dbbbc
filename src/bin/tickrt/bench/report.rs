//! What was measured, as a table for people and as records.

use tickrt::stats::{Latencies, Record};
use tickrt::{BackendKind, Session};

use super::Args;
use super::idle::Paused;
use super::machine::{self, Machine};
use super::path::{Path, Way};
use super::throughput::Together;
use crate::exit::Outcome;
use crate::table::Table;

/// Prints the table.
pub fn print(paths: &[Path], missing: &[(Way, String)], reference: &str) {
    for path in paths {
        println!("  {}: {}", path.way.name(), path.session.description());
        if matches!(path.way, Way::Tickrt | Way::TickrtAhead)
            && let Some(why) = path.session.why_no_graph()
        {
            println!("  {}: without a CUDA graph: {why}", path.way.name());
        }
    }
    for (way, reason) in missing {
        println!("  {} is not measured: {reason}", way.name());
    }
    println!("\nlatency in µs, host to host, batch {}; answers compared with {reference}", batch(&paths[0].session));
    let mut table = Table::new(&[
        "path",
        ">calls",
        ">mean",
        ">p50",
        ">p95",
        ">p99",
        ">p99.9",
        ">p99.99",
        ">max",
        ">calls/s",
        ">device MB",
        ">wrong",
    ]);
    for path in paths {
        let latencies = &path.latencies;
        let quantiles = [0.5, 0.95, 0.99, 0.999, 0.9999].map(|share| us(latencies.quantile_us(share)));
        let mut row =
            vec![path.way.name().to_owned(), latencies.calls().to_string(), format!("{:.1}", latencies.mean_us())];
        row.extend(quantiles);
        row.push(format!("{:.1}", latencies.max_us()));
        row.push(format!("{:.0}", latencies.calls_per_s()));
        row.push(format!("{:.1}", path.session.device_memory() as f64 / 1e6));
        row.push(path.found.beyond.to_string());
        table.row(row);
    }
    for (way, _) in missing {
        let mut row = vec![way.name().to_owned()];
        row.resize(12, "-".to_owned());
        table.row(row);
    }
    table.print();
    say_how_much_faster(paths);
    say_where_the_cpu_wins(paths);
}

/// Microseconds, as all tables have them.
pub fn us(microseconds: f64) -> String {
    format!("{microseconds:.1}")
}

/// Ours against the others' best.
fn say_how_much_faster(paths: &[Path]) {
    let best = |ways: &[Way], share: f64| {
        let of = paths.iter().filter(|path| ways.contains(&path.way));
        of.map(|path| path.latencies.quantile_us(share)).reduce(f64::min)
    };
    for ours in [Way::Tickrt, Way::TickrtAhead] {
        for (theirs, name) in [
            (&[Way::OrtCuda, Way::OrtCudaGraph][..], "the best of ONNX Runtime CUDA"),
            (&[Way::TrtTextbook], "trt-textbook"),
        ] {
            let ratio = |share| Some(best(theirs, share)? / best(&[ours], share)?);
            if let (Some(p50), Some(p99)) = (ratio(0.5), ratio(0.99)) {
                println!("  {} against {name}: {p50:.2} times as fast at p50, {p99:.2} at p99", ours.name());
            }
        }
    }
}

/// Below some size no launch of a kernel pays.
fn say_where_the_cpu_wins(paths: &[Path]) {
    let p50 = |path: &&Path| path.latencies.quantile_us(0.5);
    let best = |on_gpu: bool| {
        let of = paths.iter().filter(|path| path.way.kind().on_gpu() == on_gpu);
        of.map(|path| p50(&path)).reduce(f64::min)
    };
    let (cpu, gpu) = (best(false), best(true));
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

/// Threads that ONNX Runtime computes with; left to itself it takes all.
fn cpu_threads(asked: usize) -> u64 {
    let all = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (if asked == 0 { all() } else { asked }) as u64
}

/// One a path, a pause and a number of sessions.
pub fn records(args: &Args, paths: &[Path], paused: &[Paused], together: &[Together]) -> Outcome<Vec<Record>> {
    let machine = Machine::look(args.chain.device);
    let model = machine::model(&args.chain)?;
    let run_id = machine::run_id();
    let record = |path: &Path| {
        let latencies = &path.latencies;
        let batch = batch(&path.session);
        let on_tensorrt = path.way.kind() == BackendKind::TensorRt;
        let of = |applies: bool, version: &str| if applies { version.to_owned() } else { "none".to_owned() };
        Record {
            run_id: run_id.clone(),
            model: model.name.clone(),
            model_sha256: model.sha256.clone(),
            path: path.way.record_name().to_owned(),
            precision: match path.way.kind() {
                BackendKind::TensorRt => model.precision.clone(),
                BackendKind::OrtCuda if model.precision == "tf32" => model.precision.clone(),
                _ => "fp32".to_owned(),
            },
            semantics: "window".to_owned(),
            batch,
            threads: match path.way {
                Way::OrtCpu => cpu_threads(args.chain.threads),
                Way::OrtCpuAll => cpu_threads(0),
                _ => 1,
            },
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
    let mut records: Vec<Record> = paths.iter().map(record).collect();
    let like = |way: Way, latencies: &Latencies| {
        let path = paths.iter().find(|path| path.way == way).unwrap_or(&paths[0]);
        Record {
            p50_us: latencies.quantile_us(0.5),
            p95_us: latencies.quantile_us(0.95),
            p99_us: latencies.quantile_us(0.99),
            p999_us: latencies.quantile_us(0.999),
            p9999_us: latencies.quantile_us(0.9999),
            max_us: latencies.max_us(),
            calls: latencies.calls(),
            ..record(path)
        }
    };
    records.extend(paused.iter().map(|one| {
        let alike = like(one.way, &one.latencies);
        let path = if one.kept_warm { format!("{} kept warm", alike.path) } else { alike.path.clone() };
        Record { path, idle_ms: one.idle_ms, inferences_per_s: 0.0, ..alike }
    }));
    records.extend(together.iter().map(|one| Record {
        path: Way::Tickrt.name().to_owned(),
        sessions: one.sessions as u64,
        threads: one.sessions as u64,
        inferences_per_s: (one.calls_per_s * batch(&paths[0].session) as f64).round(),
        device_mb: one.device_bytes as f64 / 1e6,
        ..like(Way::Tickrt, &one.latencies)
    }));
    Ok(records)
}

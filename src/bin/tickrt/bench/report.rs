//! What was measured, as a table for people and as records.

use tickrt::stats::Record;
use tickrt::{BackendKind, Session};

use super::Args;
use super::machine::{self, Machine};
use super::path::Path;
use crate::exit::Outcome;
use crate::table::Table;

/// Prints the table.
pub fn print(paths: &[Path], reference: &str) {
    for path in paths {
        println!("  {}: {}", path.name(), path.session.description());
        if path.kind == BackendKind::TensorRt
            && let Some(why) = path.session.why_no_graph()
        {
            println!("  {}: without a CUDA graph: {why}", path.name());
        }
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
        let quantiles = [0.5, 0.95, 0.99, 0.999, 0.9999].map(|share| format!("{:.1}", latencies.quantile_us(share)));
        let mut row =
            vec![path.name().to_owned(), latencies.calls().to_string(), format!("{:.1}", latencies.mean_us())];
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

/// Threads that ONNX Runtime computes with; left to itself it takes all.
fn cpu_threads(asked: usize) -> u64 {
    let all = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (if asked == 0 { all() } else { asked }) as u64
}

/// One a path.
pub fn records(args: &Args, paths: &[Path]) -> Outcome<Vec<Record>> {
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
            semantics: "window".to_owned(),
            batch,
            threads: if path.kind == BackendKind::OrtCpu { cpu_threads(args.chain.threads) } else { 1 },
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

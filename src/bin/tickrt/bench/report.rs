//! What was measured, as a table for people and as records.

use tickrt::stats::{Latencies, Record};
use tickrt::{BackendKind, Session};

use super::Args;
use super::idle::Paused;
use super::machine::{self, Machine};
use super::open_loop::Open;
use super::path::{Path, Way};
use super::throughput::Together;
use crate::exit::{Failure, Outcome};
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
    paths.iter().for_each(say_what_is_before_the_clock);
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
        row.push(format!("{:.0}", path.calls_per_s(latencies)));
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

/// Which backend to name first, and whether a second one is worth its place.
pub fn recommend(paths: &[Path]) {
    let p99 = |path: &&Path| path.latencies.quantile_us(0.99);
    let mut best: Vec<&Path> = Vec::new();
    for kind in [BackendKind::Resident, BackendKind::TensorRt, BackendKind::OrtCuda, BackendKind::OrtCpu] {
        // Baselines are for comparison, not for use.
        let for_use = [Way::Resident, Way::Tickrt, Way::TickrtAhead, Way::OrtCuda, Way::OrtCpu, Way::OrtCpuAll];
        let of = paths.iter().filter(|path| path.way.kind() == kind && for_use.contains(&path.way));
        best.extend(of.min_by(|a, b| p99(a).total_cmp(&p99(b))));
    }
    best.sort_by(|a, b| p99(a).total_cmp(&p99(b)));
    let chain: Vec<String> = best.iter().map(|path| path.way.kind().to_string()).collect();
    println!("\nfor this model on this machine, by p99: --chain {}", chain.join(","));
    for path in best {
        let how = match path.way {
            Way::TickrtAhead => ", with launch_ahead",
            Way::OrtCpuAll => ", with --threads 0",
            _ => "",
        };
        let at = |share| us(path.latencies.quantile_us(share));
        println!("  {}: p50 {}, p99 {} µs{how}", path.way.kind(), at(0.5), at(0.99));
    }
}

/// The plot's.
pub fn title(records: &[Record]) -> String {
    let Some(first) = records.first() else { return String::new() };
    let with = records.iter().find(|record| record.tensorrt != "none");
    let on = with.map_or_else(String::new, |record| format!(", {}, TensorRT {}", record.gpu, record.tensorrt));
    format!("{}, batch {}{on}", first.model, first.batch)
}

/// Opens it as it will be written, and leaves no trace.
pub fn try_to_write(file: &std::path::Path) -> Outcome {
    let was_there = file.exists();
    Record::append(&[], file)?;
    if !was_there {
        let _ = std::fs::remove_file(file);
    }
    Ok(())
}

/// The files that were asked for.
pub fn write(args: &Args, records: &[Record]) -> Outcome {
    let failed =
        |file: &std::path::Path, error: std::io::Error| Failure::usage(format!("write {}: {error}", file.display()));
    if let Some(file) = &args.jsonl {
        Record::append(records, file)?;
        println!("\n  a record a path was appended to {}", file.display());
    }
    if let Some(file) = &args.json {
        let text = serde_json::to_string_pretty(records).expect("finite numbers and strings") + "\n";
        std::fs::write(file, text).map_err(|error| failed(file, error))?;
    }
    if let Some(file) = &args.csv {
        std::fs::write(file, as_csv(records)).map_err(|error| failed(file, error))?;
    }
    Ok(())
}

/// Every row with every column, also that which a record in JSON leaves out.
fn as_csv(records: &[Record]) -> Vec<u8> {
    #[derive(serde::Serialize)]
    struct Last {
        input: Option<String>,
        ready_again_us: Option<f64>,
    }
    let mut writer = csv::Writer::from_writer(Vec::new());
    for record in records {
        let last = Last { input: record.input.clone(), ready_again_us: record.ready_again_us };
        let row = (Record { input: None, ready_again_us: None, ..record.clone() }, last);
        writer.serialize(row).expect("columns of numbers and strings");
    }
    writer.into_inner().expect("memory takes it")
}

/// Microseconds, as all tables have them.
pub fn us(microseconds: f64) -> String {
    format!("{microseconds:.1}")
}

/// Where the newest row alone is handed over: what is computed when, and how far calls are apart for it.
fn say_what_is_before_the_clock(path: &Path) {
    let (Some(facts), Some(newest)) = (&path.facts, &path.newest) else { return };
    let (name, parts) = (path.way.name(), facts.parts());
    let list = |stages: &[&str]| if stages.is_empty() { "nothing".to_owned() } else { stages.join("; ") };
    println!("  {name}: each call hands over the newest row of a window; the rows before it are on the GPU");
    println!("  {name}: computed before the clock: {}", list(&parts.before));
    println!("  {name}: within it: {}", list(&parts.within));
    if let Some(ready_again) = newest.ready_again_us() {
        println!(
            "  {name}: after the answer: {}; the next row can be taken after {ready_again:.1} µs, and comes after {:.1}",
            list(&parts.after),
            newest.pause_us()
        );
    }
}

/// Ours against the others' best.
fn say_how_much_faster(paths: &[Path]) {
    let best = |ways: &[Way], share: f64| {
        let of = paths.iter().filter(|path| ways.contains(&path.way));
        of.map(|path| path.latencies.quantile_us(share)).reduce(f64::min)
    };
    for ours in [Way::Resident, Way::Tickrt, Way::TickrtAhead] {
        let row_alone = paths.iter().any(|path| path.way == ours && path.newest.is_some());
        let of_what = if row_alone { ", of a row against whole windows within the clock" } else { "" };
        for (theirs, name) in [
            (&[Way::OrtCuda, Way::OrtCudaGraph][..], "the best of ONNX Runtime CUDA"),
            (&[Way::TrtTextbook], "trt-textbook"),
        ] {
            let ratio = |share| Some(best(theirs, share)? / best(&[ours], share)?);
            if let (Some(p50), Some(p99)) = (ratio(0.5), ratio(0.99)) {
                println!("  {} against {name}: {p50:.2} times as fast at p50, {p99:.2} at p99{of_what}", ours.name());
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

/// What was measured beside call after call.
pub struct Beside {
    pub paused: Vec<Paused>,
    pub together: Vec<Together>,
    pub open: Vec<Open>,
}

/// One a path, a pause, a number of sessions and an open loop.
pub fn records(args: &Args, paths: &[Path], beside: &Beside) -> Outcome<Vec<Record>> {
    let machine = Machine::look(args.chain.device);
    let model = machine::model(&args.chain)?;
    let run_id = machine::run_id();
    let record = |path: &Path, latencies: &Latencies| {
        let batch = batch(&path.session);
        let on_tensorrt = path.way.kind() == BackendKind::TensorRt;
        let on_onnxruntime = matches!(path.way.kind(), BackendKind::OrtCuda | BackendKind::OrtCpu);
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
            semantics: match (&path.newest, path.step) {
                (Some(_), _) => "window, newest row last",
                (_, Some(_)) => "stateful",
                _ => "window",
            }
            .to_owned(),
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
            inferences_per_s: path.calls_per_s(latencies) * batch as f64,
            device_mb: path.session.device_memory() as f64 / 1e6,
            gpu: machine.gpu.clone(),
            driver: machine.driver.clone(),
            tensorrt: of(on_tensorrt, &model.tensorrt),
            onnxruntime: of(on_onnxruntime, &machine.onnxruntime),
            commit: machine.commit.clone(),
            input: (path.way == Way::Resident && args.chain.resident_bar1).then(|| "bar1".to_owned()),
            ready_again_us: path.newest.as_ref().and_then(|newest| newest.ready_again_us()),
        }
    };
    let mut records: Vec<Record> = paths.iter().map(|path| record(path, &path.latencies)).collect();
    let like = |way: Way, latencies: &Latencies| {
        record(paths.iter().find(|path| path.way == way).unwrap_or(&paths[0]), latencies)
    };
    records.extend(beside.paused.iter().map(|one| {
        let alike = like(one.way, &one.latencies);
        let path = if one.kept_warm { format!("{} kept warm", alike.path) } else { alike.path.clone() };
        Record { path, idle_ms: one.idle_ms, inferences_per_s: 0.0, ..alike }
    }));
    records.extend(beside.together.iter().map(|one| Record {
        path: Way::Tickrt.name().to_owned(),
        sessions: one.sessions as u64,
        threads: one.sessions as u64,
        inferences_per_s: (one.calls_per_s * batch(&paths[0].session) as f64).round(),
        device_mb: one.device_bytes as f64 / 1e6,
        ..like(Way::Tickrt, &one.latencies)
    }));
    records.extend(beside.open.iter().map(|one| Record {
        load: "open".to_owned(),
        inferences_per_s: (one.rate * batch(&paths[0].session) as f64).round(),
        ..like(one.way, &one.latencies)
    }));
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::super::check::tests::record;
    use super::*;

    #[test]
    fn csv_has_one_head_for_records_with_and_without_the_optional_column() {
        let plain = record("1", "tickrt", 10.0, 20.0);
        let input = Some("bar1".to_owned());
        let other = Record { input, ready_again_us: Some(31.5), ..record("1", "tickrt-resident", 3.0, 4.0) };
        for records in [[plain.clone(), other.clone()], [other, plain]] {
            let text = String::from_utf8(as_csv(&records)).unwrap();
            let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
            assert_eq!(lines.len(), 3, "{text}");
            assert_eq!(lines[0].last(), Some(&"ready_again_us"));
            assert!(lines.iter().all(|line| line.len() == lines[0].len()), "{text}");
            assert!(lines[1..].iter().any(|line| line.ends_with(&["bar1", "31.5"])), "{text}");
        }
    }

    #[test]
    fn record_of_before_is_read_and_written_as_it_was() {
        let plain = record("1", "tickrt", 10.0, 20.0);
        assert_eq!((&plain.input, plain.ready_again_us), (&None, None));
        let text = serde_json::to_string(&plain).unwrap();
        assert!(!text.contains("ready_again") && !text.contains("input"), "{text}");
    }
}

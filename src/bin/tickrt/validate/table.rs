//! The table of precisions, its rows as records, and what it says in words.

use serde::Serialize;
use tickrt::Precision;
use tickrt::data::Values;

use super::candidate::{Answered, Bench, Candidate, Kind, Place};
use crate::bench::machine::Machine;
use crate::table::{self as printed, Table};

/// What was found of a candidate.
#[derive(Debug, Clone)]
pub struct Row {
    pub candidate: Candidate,
    pub by: &'static str,
    pub kept: Vec<String>,
    pub found: Option<Found>,
    /// Why there is nothing.
    pub why_not: String,
}

/// Against the labels and against FP32.
#[derive(Debug, Clone)]
pub struct Found {
    /// A share; none without labels.
    pub top1: Option<f64>,
    /// The share of samples with FP32's class.
    pub agreement: f64,
    pub max_error: f64,
    pub mean_error: f64,
    pub non_finite: u64,
    pub engine_bytes: u64,
    pub speed: Option<Speed>,
    /// What `--max-drop` holds against FP32's.
    pub score: f64,
}

/// What only a GPU tells.
#[derive(Debug, Clone, Copy)]
pub struct Speed {
    pub p50_us: f64,
    pub p99_us: f64,
    pub calls: u64,
    pub device_bytes: u64,
    pub layers: u32,
}

impl Row {
    pub fn without(candidate: &Candidate, why: &str) -> Self {
        Self { candidate: candidate.clone(), by: "", kept: Vec::new(), found: None, why_not: why.to_owned() }
    }

    pub fn new(bench: &Bench<'_>, candidate: &Candidate, keep: &[String], answered: &Answered) -> Self {
        let expected = bench.reference.as_ref().unwrap_or(&answered.scores);
        let samples = bench.samples();
        let classes = |scores: &Values| -> Vec<usize> {
            let count = scores.len() / samples.max(1);
            (0..samples).map(|sample| scores.argmax(sample * count..(sample + 1) * count)).collect()
        };
        let (got, wanted) = (classes(&answered.scores), classes(expected));
        let share = |same: usize| same as f64 / samples.max(1) as f64;
        let (mut max_error, mut sum, mut non_finite) = (0.0_f64, 0.0, 0);
        for place in 0..answered.scores.len() {
            let (value, right) = (answered.scores.get(place), expected.get(place));
            if value.is_finite() {
                max_error = max_error.max((value - right).abs());
                sum += (value - right).abs();
            } else {
                non_finite += 1;
            }
        }
        let same = got.iter().zip(&wanted).filter(|(one, other)| one == other).count();
        let agreement = share(same);
        let top1 = bench.labels.as_ref().map(|labels| share(got.iter().zip(labels).filter(|(a, b)| a == b).count()));
        Self {
            candidate: candidate.clone(),
            by: answered.by,
            kept: if candidate.kind == Kind::Fp32 { Vec::new() } else { keep.to_vec() },
            found: Some(Found {
                top1,
                agreement,
                max_error,
                mean_error: sum / (answered.scores.len() as f64 - non_finite as f64).max(1.0),
                non_finite,
                engine_bytes: answered.engine_bytes,
                speed: answered.speed,
                score: top1.unwrap_or(agreement),
            }),
            why_not: String::new(),
        }
    }
}

/// Prints the table, and below it what a reader might miss.
pub fn print(bench: &Bench<'_>, rows: &[Row]) {
    match &bench.place {
        Place::Gpu(library) => {
            printed::facts([("runs on", format!("{} on GPU {}", library.version(), bench.chain.device))])
        }
        Place::Cpu(why) => printed::facts([
            ("runs on", "ONNX Runtime on the CPU: lowered models, weights and tensors rounded as on a GPU".to_owned()),
            ("because", why.lines().next().unwrap_or_default().to_owned()),
        ]),
    }
    println!();
    let size = if matches!(bench.place, Place::Gpu(_)) { ">engine MB" } else { ">model MB" };
    let mut table = Table::new(&[
        "precision",
        "method",
        "by",
        ">top-1",
        ">as fp32",
        ">max error",
        ">mean error",
        ">NaN/Inf",
        ">p50 µs",
        ">p99 µs",
        ">device MB",
        size,
    ]);
    let dash = || "-".to_owned();
    let percent = |share: f64| format!("{:.2} %", 100.0 * share);
    for row in rows {
        let Some(found) = &row.found else { continue };
        let speed =
            |tell: fn(&Speed) -> f64| found.speed.as_ref().map_or_else(dash, |speed| format!("{:.1}", tell(speed)));
        table.row([
            row.candidate.kind.to_string(),
            row.candidate.method.map_or_else(String::new, |method| method.to_string()),
            row.by.to_owned(),
            found.top1.map_or_else(dash, percent),
            percent(found.agreement),
            format!("{:.2e}", found.max_error),
            format!("{:.2e}", found.mean_error),
            found.non_finite.to_string(),
            speed(|speed| speed.p50_us),
            speed(|speed| speed.p99_us),
            speed(|speed| speed.device_bytes as f64 / 1e6),
            format!("{:.2}", found.engine_bytes as f64 / 1e6),
        ]);
    }
    table.print();
    println!();
    for row in rows.iter().filter(|row| row.found.is_none()) {
        println!("{}: not there: {}", row.candidate, row.why_not);
    }
    if let Place::Cpu(_) = bench.place {
        println!(
            "Latency and device memory are a GPU's: none here. model MB is the ONNX file: weights to be INT8 lie there in FP32."
        );
    }
    words_on_speed(rows).iter().for_each(|words| println!("{words}"));
}

/// Where a precision brings no speed, why.
fn words_on_speed(rows: &[Row]) -> Vec<String> {
    const WORTH_IT: f64 = 1.1;
    /// A kernel of a few microseconds is mostly its launch.
    const LAUNCH_BOUND_US: f64 = 6.0;
    let speed = |row: &Row| row.found.as_ref().and_then(|found| found.speed);
    let full = |row: &&Row| matches!(row.candidate.kind, Kind::Fp32 | Kind::Tf32);
    let full = rows.iter().filter(full).filter_map(speed).min_by(|one, other| one.p50_us.total_cmp(&other.p50_us));
    let Some(full) = full else { return Vec::new() };
    let mut words = Vec::new();
    for row in rows.iter().filter(|row| !matches!(row.candidate.kind, Kind::Fp32 | Kind::Tf32)) {
        let Some(speed) = speed(row).filter(|speed| full.p50_us / speed.p50_us < WORTH_IT) else { continue };
        let cause = if speed.p50_us / f64::from(speed.layers.max(1)) < LAUNCH_BOUND_US {
            format!("{} layers, launch-bound: precision does not help", speed.layers)
        } else {
            "its layers gain nothing here".to_owned()
        };
        words.push(format!(
            "{} brings no speed: {:.1} µs, {:.1} in FP32 or TF32 ({cause})",
            row.candidate, speed.p50_us, full.p50_us
        ));
    }
    words
}

/// For each precision that loses more than `most` of FP32's score, its best row and how much it loses.
pub fn failed(rows: &[Row], reference: f64, most: f64) -> Vec<(Row, f64)> {
    let mut best: Vec<(Row, f64)> = Vec::new();
    for row in rows {
        // What could not be had at all is no better than what fails.
        let drop = row.found.as_ref().map_or(f64::INFINITY, |found| loss(found, reference));
        if row.found.is_none() && matches!(row.candidate.kind, Kind::Tf32 | Kind::Bf16) {
            continue;
        }
        match best.iter_mut().find(|(other, _)| other.candidate.kind == row.candidate.kind) {
            Some(other) if drop < other.1 => *other = (row.clone(), drop),
            Some(_) => {}
            None => best.push((row.clone(), drop)),
        }
    }
    best.retain(|(_, drop)| *drop > most);
    best
}

/// How much a row loses; all, with NaN among its answers.
pub fn loss(found: &Found, reference: f64) -> f64 {
    if found.non_finite > 0 { f64::INFINITY } else { reference - found.score }
}

pub fn why_failed(failed: &[(Row, f64)], most: f64) -> String {
    let told = failed.iter().map(|(row, drop)| {
        if drop.is_finite() {
            format!("{} loses {:.2} %", row.candidate, 100.0 * drop)
        } else if row.found.is_some() {
            format!("{} answers NaN or infinity", row.candidate)
        } else {
            format!("{} is not there ({})", row.candidate, row.why_not)
        }
    });
    format!(
        "hold precisions against FP32: expected each to lose at most {:.2} %, but {}; try another --calib-method, or let \
         --search find the nodes to keep in FP32",
        100.0 * most,
        told.collect::<Vec<_>>().join("; ")
    )
}

/// One line of `benches/record/<gpu>/<date>-precision.jsonl`. Null: not measured.
#[derive(Debug, Serialize)]
pub struct Record {
    run_id: String,
    model: String,
    model_sha256: String,
    precision: Precision,
    /// `fp16` where what is not INT8 may be FP16, else `fp32`; empty but for INT8.
    fallback: &'static str,
    method: String,
    /// `native`, `qdq`, `flag`, `cast`, `given`.
    by: &'static str,
    /// `tensorrt` or `ort-cpu`.
    backend: &'static str,
    batch: usize,
    samples: usize,
    top1: Option<f64>,
    agreement: f64,
    max_abs_error: f64,
    mean_abs_error: f64,
    non_finite: u64,
    p50_us: Option<f64>,
    p99_us: Option<f64>,
    calls: Option<u64>,
    layers: Option<u32>,
    device_mb: Option<f64>,
    engine_mb: f64,
    keep_fp32: Vec<String>,
    gpu: String,
    driver: String,
    tensorrt: String,
    onnxruntime: String,
    commit: String,
}

/// The rows of run `run_id` that were measured.
pub fn records(bench: &Bench<'_>, run_id: &str, rows: &[Row]) -> Vec<Record> {
    let Machine { gpu, driver, onnxruntime, commit } = Machine::look(bench.chain.device);
    let name = bench.model.path().and_then(|path| path.file_stem()).map(|name| name.to_string_lossy().into_owned());
    let record = |row: &Row| {
        let found = row.found.as_ref()?;
        let kind = row.candidate.kind;
        Some(Record {
            run_id: run_id.to_owned(),
            model: name.clone().unwrap_or_default(),
            model_sha256: bench.model.sha256().iter().map(|byte| format!("{byte:02x}")).collect(),
            precision: match kind {
                Kind::Fp32 => Precision::Fp32,
                Kind::Tf32 => Precision::Tf32,
                Kind::Fp16 => Precision::Fp16,
                Kind::Bf16 => Precision::Bf16,
                Kind::Int8 | Kind::Int8Fp16 => Precision::Int8,
                Kind::Fp8 => Precision::Fp8,
            },
            fallback: match kind {
                Kind::Int8 => "fp32",
                Kind::Int8Fp16 => "fp16",
                _ => "",
            },
            method: row.candidate.method.map_or_else(String::new, |method| method.to_string()),
            by: row.by,
            backend: if matches!(bench.place, Place::Gpu(_)) { "tensorrt" } else { "ort-cpu" },
            batch: bench.batch(),
            samples: bench.samples(),
            top1: found.top1,
            agreement: found.agreement,
            max_abs_error: found.max_error,
            mean_abs_error: found.mean_error,
            non_finite: found.non_finite,
            p50_us: found.speed.map(|speed| speed.p50_us),
            p99_us: found.speed.map(|speed| speed.p99_us),
            calls: found.speed.map(|speed| speed.calls),
            layers: found.speed.map(|speed| speed.layers),
            device_mb: found.speed.map(|speed| speed.device_bytes as f64 / 1e6),
            engine_mb: found.engine_bytes as f64 / 1e6,
            keep_fp32: row.kept.clone(),
            gpu: gpu.clone(),
            driver: driver.clone(),
            tensorrt: match &bench.place {
                Place::Gpu(library) => library.version().number(),
                Place::Cpu(_) => "none".to_owned(),
            },
            onnxruntime: onnxruntime.clone(),
            commit: commit.clone(),
        })
    };
    rows.iter().filter_map(record).collect()
}

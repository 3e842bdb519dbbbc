//! `tickrt validate --precision`: what each precision costs in accuracy and brings in speed, in one table.

use std::path::PathBuf;
use std::str::FromStr;

use tickrt::data::{Array, Feed, Values};
use tickrt::onnx::Model;
use tickrt::stats::append_lines;
use tickrt::{BackendKind, CalibrationMethod, Int8Mode, Preference};

use super::candidate::{Bench, Candidate, Kind};
use super::search;
use super::table::{self, Row};
use crate::args::{self, Typed};
use crate::bench::machine;
use crate::calibration::CalibrationArgs;
use crate::chain::ChainArgs;
use crate::exit::{self, Failure, Outcome};

/// Flags of the comparison of precisions.
#[derive(clap::Args, Debug, Clone)]
pub struct PrecisionArgs {
    /// Compare precisions: fp32, tf32, fp16, bf16, int8, int8+fp16, fp8; one may be an engine, as fp16=x.engine
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub precision: Vec<Wanted>,
    /// The samples' classes, i32 or i64 in a .npy file
    #[arg(long, value_name = "FILE", requires = "precision")]
    pub labels: Option<PathBuf>,
    #[command(flatten)]
    pub calibration: CalibrationArgs,
    /// Methods to compare for INT8; entropy without
    #[arg(long = "calib-method", alias = "calib_method", value_name = "LIST", value_delimiter = ',', value_parser = Typed::parser(args::method))]
    pub calib_method: Vec<Typed<CalibrationMethod>>,
    /// Who calibrates: native, qdq, or both; whichever can without
    #[arg(long = "int8-mode", alias = "int8_mode", value_name = "LIST", value_delimiter = ',', value_parser = Typed::parser(args::int8_mode))]
    pub int8_mode: Vec<Typed<Int8Mode>>,
    /// Nodes that compute in FP32 all the same
    #[arg(long = "keep-fp32", alias = "keep_fp32", value_name = "NODE", num_args = 1..)]
    pub keep_fp32: Vec<String>,
    /// Have kept nodes bind, or fail (TensorRT 8 and 10; the others always do)
    #[arg(long = "strict-types", alias = "strict_types")]
    pub strict_types: bool,
    /// End with 1 if a precision loses more top-1 than this (agreement, without labels), by the best of its methods: 1%, 0.01
    #[arg(long = "max-drop", alias = "max_drop", value_name = "SHARE", requires = "precision", value_parser = share)]
    pub max_drop: Option<f64>,
    /// Where a precision fails, find the nodes to keep in FP32 and print the flags that pass
    #[arg(long, requires = "max_drop")]
    pub search: bool,
    /// Add a line a row to this file
    #[arg(long, value_name = "FILE", requires = "precision")]
    pub jsonl: Option<PathBuf>,
    /// Calls that are timed for each engine
    #[arg(long, value_name = "N", default_value_t = 2000, requires = "precision")]
    pub calls: usize,
    /// Tactics' timings, read and written back: the engines share most of them
    #[arg(long = "timingCacheFile", alias = "timing-cache-file", value_name = "FILE", requires = "precision")]
    pub timing_cache: Option<PathBuf>,
    /// Which TensorRT: trt8, trt10, trt11, rtx, or a library or folder; the first that is installed without
    #[arg(long, value_name = "WHICH", requires = "precision", value_parser = Typed::parser(args::preference))]
    pub tensorrt: Option<Typed<Preference>>,
}

/// A precision to be looked at, by an engine that is there or one that is built.
#[derive(Debug, Clone)]
pub struct Wanted {
    kind: Kind,
    engine: Option<PathBuf>,
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, engine) = text.split_once('=').map_or((text, None), |(kind, engine)| (kind, Some(engine.into())));
        Ok(Self { kind: kind.parse()?, engine })
    }
}

/// A share: `1%`, `0.5%` or `0.01`.
fn share(text: &str) -> Result<f64, String> {
    let (number, unit) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 100.0));
    let share = number.trim().parse::<f64>().ok().map(|number| number / unit);
    share.filter(|share| (0.0..=1.0).contains(share)).ok_or_else(|| format!("`{text}` is no share, as 1% or 0.01"))
}

/// Runs the comparison.
pub fn main(
    args: &PrecisionArgs,
    chain: &ChainArgs,
    feed: impl FnOnce(&tickrt::backend::Signature) -> Outcome<Feed>,
) -> Outcome {
    if chain.engine.is_some() {
        return Err(Failure::usage(
            "--precision builds its engines: name one as --precision fp16=FILE, and not by --engine",
        ));
    }
    if args.calibration.calib_cache.is_some() {
        return Err(Failure::usage(
            "--calib-cache has the ranges of one method, and --precision compares several: give the samples, --calib FILE",
        ));
    }
    let model = Model::read(chain.onnx()?)?;
    tickrt::onnx::Keep::new(&model, &args.keep_fp32)?;
    let candidates = candidates(args)?;
    let calibrated = candidates.iter().find(|candidate| candidate.method.is_some());
    if let Some(candidate) = calibrated.filter(|_| args.calibration.calib.is_empty() && !model.is_quantized()) {
        return Err(candidate.kind.without_data());
    }
    let cpu_asked = chain.chain == [BackendKind::OrtCpu];
    let mut bench = Bench::open(args, chain, &model, cpu_asked)?;
    let feed = feed(&bench.signature()?)?;
    let labels = args.labels.as_ref().map(Array::read_npy).transpose()?;
    let labels = labels.map(|labels| labels_for(&labels, feed.calls() * bench.batch())).transpose()?;
    bench.give(feed, labels)?;

    let run_id = machine::run_id();
    let mut rows: Vec<Row> = Vec::new();
    for candidate in &candidates {
        let row = bench.row(candidate, &args.keep_fp32)?;
        // Each is recorded when it is measured: what ends the run takes none of those before with it.
        if let Some(path) = &args.jsonl {
            append_lines(&table::records(&bench, &run_id, std::slice::from_ref(&row)), path)?;
        }
        rows.push(row);
    }
    table::print(&bench, &rows);
    let failed = args.max_drop.map_or(Vec::new(), |most| table::failed(&rows, bench.reference_score, most));
    if failed.is_empty() {
        return Ok(());
    }
    let most = args.max_drop.unwrap_or(0.0);
    if args.search {
        return search::run(&mut bench, &failed, most, &args.keep_fp32);
    }
    Err(Failure::check(table::why_failed(&failed, most)))
}

/// One row each: the methods and modes of INT8 multiply, and the methods of FP8.
fn candidates(args: &PrecisionArgs) -> Outcome<Vec<Candidate>> {
    let methods: Vec<CalibrationMethod> = args.calib_method.iter().map(|it| it.value).collect();
    let methods = if methods.is_empty() { vec![CalibrationMethod::Entropy] } else { methods };
    let modes: Vec<Int8Mode> = args.int8_mode.iter().map(|it| it.value).collect();
    let modes = if modes.is_empty() { vec![Int8Mode::Auto] } else { modes };
    let mut candidates = Vec::new();
    for Wanted { kind, engine } in &args.precision {
        let plain = Candidate { kind: *kind, method: None, mode: Int8Mode::Auto, engine: engine.clone() };
        if !kind.is_calibrated() || engine.is_some() {
            candidates.push(plain);
            continue;
        }
        // FP8 has no calibrator of TensorRT's.
        let modes = if *kind == Kind::Fp8 { &[Int8Mode::Auto][..] } else { &modes };
        for &mode in modes {
            // TensorRT has no such calibrator: one row less, and no failure of all the others.
            let has = |method: &&CalibrationMethod| mode != Int8Mode::Native || **method != CalibrationMethod::Mse;
            for &method in methods.iter().filter(has) {
                candidates.push(Candidate { method: Some(method), mode, ..plain.clone() });
            }
        }
    }
    if !candidates.iter().any(|candidate| candidate.kind == Kind::Fp32) {
        exit::note("fp32 is added: the others are compared with it");
        candidates.insert(0, Candidate { kind: Kind::Fp32, method: None, mode: Int8Mode::Auto, engine: None });
    }
    // What the others are compared with comes first.
    candidates.sort_by_key(|candidate| candidate.kind != Kind::Fp32);
    Ok(candidates)
}

fn labels_for(labels: &Array, samples: usize) -> Outcome<Vec<usize>> {
    let integers = matches!(labels.values, Values::I32(_) | Values::I64(_) | Values::U8(_) | Values::I8(_));
    if !integers || labels.values.len() < samples {
        return Err(Failure::usage(format!(
            "--labels: expected {samples} integers, one a sample, got {} of {}",
            labels.values.len(),
            labels.values.data_type()
        )));
    }
    Ok((0..samples).map(|sample| labels.values.get(sample) as usize).collect())
}

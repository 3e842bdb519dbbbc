//! `tickrt validate`: the same samples to a chain and to ONNX Runtime on the CPU, and how far the answers are apart; or one
//! model in several precisions.

mod candidate;
mod precision;
mod search;
mod table;

use serde_json::json;
use tickrt::backend::Signature;
use tickrt::data::{Array, Feed};
use tickrt::stats::Comparison;
use tickrt::{BackendKind, Predictor};

use crate::answers::{self, Answers};
use crate::args::{self, NamedFile};
use crate::chain::ChainArgs;
use crate::exit::{self, Failure, Outcome};
use crate::table::Table;

const EXAMPLE: &str = "\
Example:
  tickrt validate --engine models/toy_cnn.engine \\
      --onnx models/toy_cnn.onnx --input models/data/nasdaq_windows.npy
  tickrt validate --onnx models/mlp.onnx --chain ort-cuda \\
      --samples 500 --atol 1e-5 --rtol 1e-5

An element is close when |got - expected| <= atol + rtol * |expected|, as in numpy.allclose; NaN never is. \
Ends with 1 if one is not, and with 3 if nothing but the CPU itself is there to be compared with the CPU.

  tickrt validate --onnx models/toy_cnn.onnx --precision fp32,fp16,int8 --max-drop 1% \\
      --normalization models/toy_cnn.normalization.json \\
      --input models/data/nasdaq_windows.npy --labels models/data/nasdaq_labels.npy \\
      --calib models/data/sp500_calibration_windows.npy --calib-method entropy,minmax

builds an engine for each precision and holds their answers against FP32's and the labels. Without a GPU the lowered \
models run in ONNX Runtime on the CPU: their accuracy is told, their latency is not.";

/// Compare an engine, or any chain, with ONNX Runtime on the CPU
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    #[command(flatten)]
    chain: ChainArgs,
    /// Samples, as for `run`; random ones without
    #[arg(long, visible_alias = "loadInputs", value_name = "FILE", value_delimiter = ',')]
    input: Vec<NamedFile>,
    /// How many samples: random ones, or the first of the input
    #[arg(long, value_name = "N")]
    samples: Option<usize>,
    /// What the random samples follow from
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Absolute tolerance
    #[arg(long, value_name = "X", default_value_t = 1e-3, value_parser = args::tolerance)]
    atol: f64,
    /// Relative tolerance
    #[arg(long, value_name = "X", default_value_t = 1e-3, value_parser = args::tolerance)]
    rtol: f64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    precision: precision::PrecisionArgs,
}

/// Runs it.
pub fn main(args: &Args) -> Outcome {
    if !args.precision.precision.is_empty() {
        return precision::main(&args.precision, &args.chain, |signature| feed(args, signature));
    }
    let mut chain = args.chain.clone();
    if chain.onnx.is_none() {
        chain.onnx = Some(model_of_engine(&chain)?);
    }
    if chain.chain.is_empty() {
        // What is to be validated, and not the CPU that it is compared with.
        chain.chain = vec![if chain.engine.is_some() { BackendKind::TensorRt } else { BackendKind::OrtCuda }];
    }
    warn_of_other_model(&chain)?;
    let kinds = chain.kinds()?;
    // NaN is to be counted here, not to end the run.
    let config = tickrt::SessionConfig { check_finite: false, ..chain.config()? };
    let mut predictor = chain.predictor(&kinds, &config)?;
    if predictor.active() == BackendKind::OrtCpu && kinds != [BackendKind::OrtCpu] {
        return Err(nothing_to_compare(&predictor));
    }
    let mut reference = chain.predictor(&[BackendKind::OrtCpu], &config)?;
    let feed = feed(args, predictor.session().signature())?;
    let (got, expected) = (answers::answer(&mut predictor, &feed)?, answers::answer(&mut reference, &feed)?);
    if got.answered.iter().any(|(kind, _)| *kind == BackendKind::OrtCpu) && kinds != [BackendKind::OrtCpu] {
        return Err(nothing_to_compare(&predictor));
    }
    report(args, &predictor, &reference, feed.calls(), &compare(&got, &expected, [args.atol, args.rtol]))
}

/// The ONNX file that the sidecar names.
fn model_of_engine(chain: &ChainArgs) -> Outcome<std::path::PathBuf> {
    let named = chain.sidecar()?.and_then(|sidecar| sidecar.onnx_file).map(std::path::PathBuf::from);
    named
        .filter(|file| file.exists())
        .ok_or_else(|| Failure::usage("name the model that the answers are compared with: add --onnx FILE"))
}

fn warn_of_other_model(chain: &ChainArgs) -> Outcome {
    let built_from = chain.sidecar()?.and_then(|sidecar| sidecar.onnx_sha256);
    if let (Some(built_from), Some(onnx)) = (built_from, &chain.onnx)
        && tickrt::onnx::Model::read(onnx)?.sha256().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
            != built_from
    {
        exit::note(format!(
            "the engine was built from another file than {}: its sha256 was {built_from}",
            onnx.display()
        ));
    }
    Ok(())
}

fn nothing_to_compare(predictor: &Predictor) -> Failure {
    let reasons = predictor.passed_over().iter().map(|passed| format!("\n    {}: {}", passed.backend, passed.reason));
    Failure::environment(format!(
        "compare with ONNX Runtime on the CPU: expected another backend, got none but the CPU itself; ask for that with \
         --chain ort-cpu{}",
        reasons.collect::<String>()
    ))
}

fn feed(args: &Args, signature: &Signature) -> Outcome<Feed> {
    const SAMPLES: usize = 100;
    if args.samples == Some(0) {
        return Err(Failure::usage("--samples: expected one at least, got 0"));
    }
    if args.input.is_empty() {
        return Ok(Feed::random(signature, args.samples.unwrap_or(SAMPLES), args.seed)?);
    }
    let mut arrays = answers::read_arrays(&args.input, signature)?;
    if !args.precision.precision.is_empty() {
        whole_batches(&mut arrays, signature)?;
    }
    let mut feed = Feed::new(signature, arrays)?;
    feed.truncate(args.samples.unwrap_or(usize::MAX));
    Ok(feed)
}

/// Leaves out the samples that do not fill a batch.
fn whole_batches(arrays: &mut [(Option<String>, Array)], signature: &Signature) -> Outcome {
    for (name, array) in arrays {
        let place = signature.inputs.iter().position(|input| name.as_ref().is_none_or(|name| *name == input.name));
        let count = signature.shapes[0].inputs[place.unwrap_or(0)].count();
        let (has, samples) = (array.values.len(), array.shape.first().copied().unwrap_or(1));
        let whole = has / count * count;
        if whole == 0 || whole == has || array.shape.len() < 2 || !whole.is_multiple_of(has / samples) {
            continue;
        }
        let kept = whole / (has / samples);
        exit::note(format!("{} of {samples} samples do not fill a batch and are left out", samples - kept));
        let shape = [&[kept], &array.shape[1..]].concat();
        *array = Array::new(&shape, array.values.slice(0..whole))?;
    }
    Ok(())
}

/// One comparison an output.
fn compare(got: &Answers, expected: &Answers, tolerance: [f64; 2]) -> Vec<Comparison> {
    let outputs = got.outputs.iter().zip(&expected.outputs);
    let outputs = outputs.map(|(got, expected)| {
        let mut comparison = Comparison::default();
        let samples = expected.shape[0];
        let count = expected.values.len() / samples.max(1);
        for sample in 0..samples {
            let at = sample * count;
            comparison.add((&got.values, at), (&expected.values, at), count, tolerance);
        }
        comparison
    });
    outputs.collect()
}

fn report(args: &Args, got: &Predictor, expected: &Predictor, calls: usize, found: &[Comparison]) -> Outcome {
    let outputs = &got.session().signature().outputs;
    let close = found.iter().all(Comparison::all_close);
    if args.json {
        let outputs = outputs.iter().zip(found).map(|(output, found)| json!({ "output": output.name, "found": found }));
        println!(
            "{}",
            json!({
                "got": got.session().description(), "expected": expected.session().description(), "calls": calls,
                "atol": args.atol, "rtol": args.rtol, "close": close, "outputs": outputs.collect::<Vec<_>>(),
            })
        );
    } else {
        let given = if args.input.is_empty() { format!("random, seed {}", args.seed) } else { "as given".to_owned() };
        let mut facts = answers::who_answers(got);
        facts.push(("compared with", format!("{}: {}", expected.active(), expected.session().description())));
        facts.push(("samples", format!("{calls}, {given}")));
        facts.push(("tolerance", format!("atol {:e}, rtol {:e}", args.atol, args.rtol)));
        crate::table::facts(facts);
        let mut table =
            Table::new(&["output", ">elements", ">max absolute", ">max relative", ">NaN", ">beyond", ">top-1 same"]);
        for (output, found) in outputs.iter().zip(found) {
            table.row([
                output.name.clone(),
                found.elements.to_string(),
                format!("{:.3e}", found.max_absolute),
                format!("{:.3e}", found.max_relative),
                found.nan_got.to_string(),
                found.beyond.to_string(),
                crate::table::percent(found.top1_same as usize, found.samples as usize),
            ]);
        }
        println!();
        table.print();
    }
    if close { Ok(()) } else { Err(Failure::check(what_differs(outputs, found))) }
}

fn what_differs(outputs: &[tickrt::TensorInfo], found: &[Comparison]) -> String {
    let differing = outputs.iter().zip(found).filter(|(_, found)| !found.all_close());
    let differing = differing.map(|(output, found)| {
        let (sample, element, got, expected) = found.worst.unwrap_or_default();
        format!(
            "{} of {} elements of `{}` are beyond the tolerance; the worst is element {element} of sample {sample}: \
             expected {expected:e}, got {got:e}",
            found.beyond, found.elements, output.name
        )
    });
    format!("compare with ONNX Runtime on the CPU: {}", differing.collect::<Vec<_>>().join("; "))
}

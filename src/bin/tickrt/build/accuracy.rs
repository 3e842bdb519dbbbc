//! What INT8 or FP8 costs, told before the engine is written: its answers to the calibration's own samples beside the
//! model's in FP32. An engine that answers something else is refused: TensorRT has built such, and said nothing.

use std::fmt;
use std::time::Duration;

use tickrt::backend::ort::OrtBackend;
use tickrt::data::{Feed, Values};
use tickrt::onnx::Model;
use tickrt::stats::SignalToNoise;
use tickrt::{DataType, Engine, ErrorKind, Int8Mode, Normalization, Plan, Session, SessionConfig, read_files};

use super::Args;
use crate::answers;
use crate::exit::{Failure, Outcome};

/// Enough to tell right from wrong; how much accuracy is lost, `tickrt validate --precision` measures.
const SAMPLES: usize = 64;

/// An error of half of what the answers vary by. Networks that keep their top-1 in INT8 have 15 dB and more, an engine that always
/// gives the mean answer has 0.
const LEAST_DECIBELS: f64 = 6.0;

/// How far the engine's answers are from FP32's.
#[derive(Debug, PartialEq)]
pub struct Accuracy {
    output: String,
    decibels: f64,
    samples: usize,
    batch: usize,
}

impl fmt::Display for Accuracy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { output, decibels, samples, batch } = self;
        match *decibels {
            f64::NEG_INFINITY => write!(f, "`{output}` is NaN or infinite where FP32's is not")?,
            f64::INFINITY => write!(f, "`{output}` is FP32's")?,
            decibels => write!(f, "`{output}` varies {decibels:.1} dB above its distance from FP32's")?,
        }
        write!(f, " ({samples} calibration samples")?;
        if *batch > 1 { write!(f, ", batch {batch})") } else { f.write_str(")") }
    }
}

/// Compares the engine with FP32. Where that cannot be done a note says why.
pub fn check(
    args: &Args,
    plan: &Plan,
    normalizations: &[Normalization],
    notes: &mut Vec<String>,
) -> Outcome<Option<Accuracy>> {
    if !args.int8 && !args.fp8 {
        return Ok(None);
    }
    let why_not = if args.calibration.calib.is_empty() {
        "there are no samples; add --calib FILE".to_owned()
    } else {
        match compare(args, plan, normalizations) {
            Ok(Some(accuracy)) if accuracy.decibels < LEAST_DECIBELS && !args.allow_inaccurate => {
                return Err(refused(args, &accuracy));
            }
            Ok(Some(accuracy)) => return Ok(Some(accuracy)),
            Ok(None) => "of its outputs of floating point none varies from sample to sample".to_owned(),
            Err(error) if is_engines(error.kind()) && !args.allow_inaccurate => return Err(error.into()),
            Err(error) => error.to_string(),
        }
    };
    notes.push(format!("the engine's answers were not compared with FP32's: {why_not}"));
    Ok(None)
}

/// Whether the engine itself has failed; all else is a want of something to compare it with or by: a GPU, samples, ONNX Runtime,
/// the model's operators in that.
fn is_engines(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Execution | ErrorKind::Cuda { .. } | ErrorKind::DeviceLost { .. })
}

fn refused(args: &Args, accuracy: &Accuracy) -> Failure {
    let by_nodes = args.fp8 || args.int8_mode.as_ref().is_some_and(|mode| mode.value == Int8Mode::Qdq);
    let qdq = if by_nodes { "" } else { "--int8-mode=qdq, " };
    let cache = args.calibration.calib_cache.as_ref();
    let cache = cache.map_or(String::new(), |cache| format!("; remove {}, which has its ranges", cache.display()));
    Failure::check(format!(
        "build for INT8 or FP8: expected answers that follow FP32's, with {LEAST_DECIBELS} dB at least; got an engine that does \
         not: {accuracy}; try another --calib-method, {qdq}or --keep-fp32 with the nodes that `tickrt validate --precision … \
         --search` finds{cache}; --allow-inaccurate writes the engine all the same"
    ))
}

/// The worst of the outputs that can be compared.
fn compare(args: &Args, plan: &Plan, normalizations: &[Normalization]) -> tickrt::Result<Option<Accuracy>> {
    let model = Model::read(&args.onnx)?;
    let usual = |input: &tickrt::TensorInfo| (input.name.clone(), args.usual_shape(input));
    let shapes: tickrt::Shapes = model.inputs().iter().map(usual).collect();
    let files: Vec<_> = args.calibration.calib.iter().map(|file| (file.name.clone(), file.path.clone())).collect();
    let config = SessionConfig {
        depth: 1,
        normalizations: Some(normalizations.to_vec()),
        shapes: vec![shapes.clone()],
        wait_limit: Duration::from_secs(60),
        warm_up: 1,
        device: args.device,
        cpu_threads: 0,
        // It counts, and does not end the comparison.
        check_finite: false,
        ..SessionConfig::default()
    };
    let mut engine = Engine::from_plan(plan, args.device)?.session(&config)?;
    let mut reference = Session::start(Box::new(OrtBackend::cpu(&model, &config)?), &config)?;
    let batch = shapes.values().next().and_then(|shape| usize::try_from(*shape.first()?).ok()).unwrap_or(1).max(1);
    let samples = read_files(&model, normalizations, &shapes, &files)?;
    let feed = samples.to_feed(reference.signature(), SAMPLES.div_ceil(batch))?;
    let worst = worst(&mut engine, &mut reference, &feed, batch)?;
    Ok(worst.map(|(output, decibels)| Accuracy { output, decibels, samples: feed.calls() * batch, batch }))
}

/// The output whose answers are the worst, in decibels.
fn worst(
    got: &mut Session,
    expected: &mut Session,
    feed: &Feed,
    batch: usize,
) -> tickrt::Result<Option<(String, f64)>> {
    let floating = |session: &Session, output: usize| {
        let data_type = session.signature().shapes[0].outputs[output].data_type;
        matches!(data_type, DataType::F32 | DataType::F64 | DataType::F16)
    };
    // An engine may have its outputs in another order.
    let mut names = Vec::new();
    let mut places: [Vec<usize>; 2] = Default::default();
    for (place, output) in expected.signature().outputs.iter().enumerate() {
        let other = got.signature().outputs.iter().position(|other| other.name == output.name);
        if let Some(other) = other.filter(|&other| floating(got, other) && floating(expected, place)) {
            names.push(output.name.clone());
            places[0].push(other);
            places[1].push(place);
        }
    }
    let (got, expected) = (answers_of(got, feed, &places[0])?, answers_of(expected, feed, &places[1])?);
    let mut worst: Option<(String, f64)> = None;
    for ((got, expected), name) in got.iter().zip(&expected).zip(names) {
        if got.len() != expected.len() {
            let kind = ErrorKind::WrongLength { expected: expected.len(), got: got.len() };
            return Err(tickrt::Error::new(kind, format!("compare the engine's output `{name}` with the model's"))
                .expected(format!("{} elements", expected.len()))
                .got(got.len().to_string()));
        }
        // An output without a batch is one sample a call.
        let samples = feed.calls() * batch;
        let samples = if expected.len().is_multiple_of(samples) { samples } else { feed.calls() };
        let count = expected.len() / samples;
        let mut ratio = SignalToNoise::default();
        (0..samples).for_each(|sample| ratio.add((got, sample * count), (expected, sample * count), count));
        let Some(decibels) = ratio.decibels() else { continue };
        if worst.as_ref().is_none_or(|(_, least)| decibels < *least) {
            worst = Some((name, decibels));
        }
    }
    Ok(worst)
}

/// Every call's answers, an array for each of `outputs`.
fn answers_of(session: &mut Session, feed: &Feed, outputs: &[usize]) -> tickrt::Result<Vec<Values>> {
    let types = outputs.iter().map(|&output| session.signature().shapes[0].outputs[output].data_type);
    let mut answers: Vec<Values> =
        types.map(|data_type| Values::empty(data_type).expect("a type with values")).collect();
    for call in 0..feed.calls() {
        answers::ask(session, feed, call, |from| {
            answers.iter_mut().zip(outputs).try_for_each(|(values, &output)| values.extend_from(from, output))
        })?;
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use tickrt::onnx::Keep;
    use tickrt::{Calibration, CalibrationMethod, observe};

    use super::*;

    fn file(name: &str) -> std::path::PathBuf {
        let root = std::env::var_os("TICKRT_TEST_ROOT").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        std::path::Path::new(&root).join("models").join(name)
    }

    /// ONNX Runtime stands in for TensorRT: what is compared is the same.
    #[test]
    fn model_quantised_by_its_own_scales_is_far_above_the_limit_and_one_by_other_scales_below() {
        let model = Model::read(file("toy_cnn.onnx")).unwrap();
        let normalizations = vec![Normalization::read(file("toy_cnn.normalization.json")).unwrap()];
        let config =
            SessionConfig { normalizations: Some(normalizations.clone()), warm_up: 1, ..SessionConfig::default() };
        let start = |model: &Model| match OrtBackend::cpu(model, &config) {
            Ok(backend) => Some(Session::start(Box::new(backend), &config).unwrap()),
            Err(error) if error.kind() == ErrorKind::OnnxRuntimeMissing => None,
            Err(error) => panic!("{error}"),
        };
        let Some(mut reference) = start(&model) else { return eprintln!("skipped: no ONNX Runtime") };
        let files = [(None, file("data/sp500_calibration_windows.npy"))];
        let samples = read_files(&model, &normalizations, &tickrt::Shapes::new(), &files).unwrap();
        let feed = samples.to_feed(reference.signature(), SAMPLES).unwrap();
        assert_eq!(feed.calls(), SAMPLES);
        let calibration =
            Calibration::new(CalibrationMethod::Entropy).source(samples).normalizations(normalizations.clone());
        let scales = observe(&model, calibration).unwrap().table(CalibrationMethod::Entropy).scales;
        let mut of = |factor: f32| {
            let scales = scales.iter().map(|(tensor, scale)| (tensor.clone(), scale * factor)).collect();
            let quantised = model.quantize(&scales, &Keep::new(&model, [""; 0]).unwrap()).unwrap().model;
            worst(&mut start(&quantised).unwrap(), &mut reference, &feed, 1).unwrap().unwrap()
        };
        let (output, right) = of(1.0);
        let (_, clipped) = of(0.01);
        let (_, coarse) = of(100.0);
        println!("{output}: {right:.1} dB, clipped {clipped:.1} dB, coarse {coarse:.1} dB");
        assert!(right > LEAST_DECIBELS + 6.0 && clipped < LEAST_DECIBELS && coarse < LEAST_DECIBELS);
    }
    #[test]
    fn batches_are_compared_sample_by_sample_and_a_model_with_itself_is_its_own() {
        let model = Model::read(file("mlp_dynamic.onnx")).unwrap();
        let normalizations = vec![Normalization::read(file("mlp_dynamic.normalization.json")).unwrap()];
        let shapes = tickrt::Shapes::from([("input".to_owned(), vec![24, 256])]);
        let config = SessionConfig {
            normalizations: Some(normalizations.clone()),
            shapes: vec![shapes.clone()],
            warm_up: 1,
            ..SessionConfig::default()
        };
        let backend = match OrtBackend::cpu(&model, &config) {
            Ok(backend) => backend,
            Err(error) if error.kind() == ErrorKind::OnnxRuntimeMissing => return eprintln!("skipped: {error}"),
            Err(error) => panic!("{error}"),
        };
        let mut one = Session::start(Box::new(backend), &config).unwrap();
        let mut other = Session::start(Box::new(OrtBackend::cpu(&model, &config).unwrap()), &config).unwrap();
        let files = [(None, file("data/sp500_calibration_windows.npy"))];
        let samples = read_files(&model, &normalizations, &shapes, &files).unwrap();
        let feed = samples.to_feed(one.signature(), SAMPLES.div_ceil(24)).unwrap();
        assert_eq!(feed.calls(), 3);
        let found = worst(&mut one, &mut other, &feed, 24).unwrap();
        assert_eq!(found, Some(("probabilities".to_owned(), f64::INFINITY)));
    }
}

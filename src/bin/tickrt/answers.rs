//! Samples in, answers out: reading inputs, asking a chain about each, and who answered.

use std::time::Instant;

use tickrt::backend::{OutputShape, Signature};
use tickrt::data::{Array, Feed, Values};
use tickrt::stats::Latencies;
use tickrt::{BackendKind, Error, Outputs, Predictor, Session};

use crate::args::NamedFile;
use crate::exit::{Failure, Outcome};

/// Reads the input files: `.npy` as it says itself, anything else raw, in the type that the network takes.
pub fn read_inputs(files: &[NamedFile], signature: &Signature) -> Outcome<Feed> {
    Ok(Feed::new(signature, read_arrays(files, signature)?)?)
}

/// As [`read_inputs`], before they become calls.
pub fn read_arrays(files: &[NamedFile], signature: &Signature) -> Outcome<Vec<(Option<String>, Array)>> {
    let mut arrays = Vec::new();
    for NamedFile { name, path } in files {
        let array = if path.extension().is_some_and(|extension| extension == "npy") {
            Array::read_npy(path)?
        } else {
            let place = signature.inputs.iter().position(|input| name.as_ref().is_none_or(|name| *name == input.name));
            let normalizer = &signature.shapes[0].inputs[place.unwrap_or(0)];
            Array::read_raw(path, normalizer.input_type(), normalizer.count())?
        };
        arrays.push((name.clone(), array));
    }
    Ok(arrays)
}

/// The first output of every call of the feed, added to `into`.
pub fn first_outputs(session: &mut Session, feed: &Feed, into: &mut Values) -> tickrt::Result<()> {
    (0..feed.calls()).try_for_each(|call| ask(session, feed, call, |outputs| into.extend_from(outputs, 0)))
}

/// Hands call number `call` of the feed over and its outputs to `take`.
pub fn ask(
    session: &mut Session,
    feed: &Feed,
    call: usize,
    take: impl FnOnce(&Outputs<'_>) -> tickrt::Result<()>,
) -> tickrt::Result<()> {
    let mut slot = session.input()?;
    feed.write(call, &mut slot)?;
    let ticket = slot.submit()?;
    session.wait_into(ticket, take)?;
    Ok(())
}

/// Every call's answer.
pub struct Answers {
    /// One array an output, calls along axis 0.
    pub outputs: Vec<Array>,
    /// Before the first byte of input is written to after the last byte of output is read.
    pub latencies: Latencies,
    /// Who answered how many calls.
    pub answered: Vec<(BackendKind, usize)>,
}

/// Asks the chain about every call of the feed.
pub fn answer(predictor: &mut Predictor, feed: &Feed) -> Outcome<Answers> {
    let shapes = predictor.session().signature().shapes[0].outputs.clone();
    let mut outputs = shapes.iter().map(empty).collect::<Outcome<Vec<Values>>>()?;
    let mut latencies = Latencies::new();
    let mut answered: Vec<(BackendKind, usize)> = Vec::new();
    for call in 0..feed.calls() {
        let backend = answer_one(predictor, feed, call, &mut outputs, &mut latencies).map_err(|error| {
            let which =
                if feed.calls() > 1 { format!("answer sample {call} of 0..{}", feed.calls()) } else { "answer".into() };
            Error::new(error.kind(), which).got(error.to_string())
        })?;
        match answered.iter_mut().find(|(kind, _)| *kind == backend) {
            Some((_, count)) => *count += 1,
            None => answered.push((backend, 1)),
        }
    }
    let arrays =
        outputs.into_iter().zip(&shapes).map(|(values, shape)| Array::new(&stacked(shape, feed.calls()), values));
    Ok(Answers { outputs: arrays.collect::<tickrt::Result<_>>()?, latencies, answered })
}

fn answer_one(
    predictor: &mut Predictor,
    feed: &Feed,
    call: usize,
    outputs: &mut [Values],
    latencies: &mut Latencies,
) -> tickrt::Result<BackendKind> {
    let started = Instant::now();
    let mut slot = predictor.input()?;
    feed.write(call, &mut slot)?;
    let ticket = slot.submit()?;
    let answer = predictor.wait_into(ticket, |from| {
        outputs.iter_mut().enumerate().try_for_each(|(number, values)| values.extend_from(from, number))
    })?;
    latencies.record(started.elapsed());
    Ok(answer.backend)
}

/// No values yet, of an output's type: a bool's are bytes.
pub fn empty(output: &OutputShape) -> Outcome<Values> {
    Values::empty(output.data_type)
        .ok_or_else(|| Failure::environment(format!("an output of {} cannot be read by the tool", output.data_type)))
}

/// The shape of `calls` outputs along axis 0.
fn stacked(output: &OutputShape, calls: usize) -> Vec<usize> {
    let shape: Vec<usize> = output.shape.iter().map(|&dimension| usize::try_from(dimension).unwrap_or(0)).collect();
    match shape.split_first() {
        Some((batch, rest)) => [&[batch * calls], rest].concat(),
        None => vec![calls],
    }
}

/// What is printed about who answers: one line for the active backend, one for each that was passed over.
pub fn who_answers(predictor: &Predictor) -> Vec<(&'static str, String)> {
    let active = format!("{}: {}", predictor.active(), predictor.session().description());
    let passed =
        predictor.passed_over().iter().map(|passed| ("passed over", format!("{}: {}", passed.backend, passed.reason)));
    let mut facts: Vec<_> = passed.collect();
    facts.push(("answers", active));
    facts
}

/// `p50 7.1, p95 7.9, p99 8.4, p99.9 20.1, max 35.0 µs`.
pub fn latency_line(latencies: &Latencies) -> String {
    let quantiles = [("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("p99.9", 0.999)];
    let quantiles = quantiles.map(|(name, share)| format!("{name} {:.1}", latencies.quantile_us(share)));
    format!("{}, max {:.1} µs", quantiles.join(", "), latencies.max_us())
}

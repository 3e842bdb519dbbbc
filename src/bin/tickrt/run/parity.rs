//! `tickrt run --parity`: what a backtest, which computes in large batches, may assume about production, which answers one
//! sample at a time.

use tickrt::backend::Signature;
use tickrt::data::{Array, Feed};
use tickrt::{BackendKind, SessionConfig, Shapes};

use crate::answers::{self, Answers};
use crate::chain::ChainArgs;
use crate::exit::{Failure, Outcome};
use crate::table;

/// ONNX Runtime takes any batch.
const DEFAULT_BATCH: i64 = 64;

/// The shapes of a call of `batch` samples.
pub fn shapes(signature: &Signature, batch: i64) -> Outcome<Shapes> {
    let of = |tensor: &tickrt::TensorInfo| match tensor.shape.split_first() {
        Some((&first, rest)) if first < 0 && rest.iter().all(|&dimension| dimension > 0) => {
            Ok((tensor.name.clone(), [&[batch], rest].concat()))
        }
        _ => Err(Failure::usage(format!(
            "input `{}` is {}: it needs a batch that is dynamic, and nothing else; export the model so and build \
             with --minShapes and --maxShapes",
            tensor.name,
            tickrt::format_shape(&tensor.shape)
        ))),
    };
    signature.inputs.iter().map(of).collect()
}

/// The largest batch of the engine's profiles; that of a model without an engine is any.
pub fn largest_batch(chain: &ChainArgs, kind: BackendKind, asked: Option<u32>) -> Outcome<i64> {
    if let Some(asked) = asked.filter(|&asked| asked > 0) {
        return Ok(asked.into());
    }
    let sidecar = if kind == BackendKind::TensorRt { chain.sidecar()? } else { None };
    let profiles = sidecar.map(|sidecar| sidecar.profiles).unwrap_or_default();
    let largest = |profile: &tickrt::OptimizationProfile| {
        profile.shapes.values().filter_map(|shape| shape.max.first().copied()).min()
    };
    Ok(profiles.iter().filter_map(largest).max().unwrap_or(DEFAULT_BATCH))
}

/// What both ways have in common.
struct Found {
    samples: usize,
    elements: usize,
    same_bits: usize,
    largest: f64,
    flips: Vec<usize>,
}

/// Computes the same samples in batches, as `config` announces them, on the backend that answered, and compares with `single`, the live path's answers.
/// Fails if a decision differs.
pub fn check(
    chain: &ChainArgs,
    kind: BackendKind,
    config: &SessionConfig,
    batch: i64,
    arrays: &[(Option<String>, Array)],
    single: &Answers,
) -> Outcome {
    let size = usize::try_from(batch).unwrap_or(1);
    let samples = single.outputs[0].shape[0] / size * size;
    if samples == 0 {
        return Err(Failure::usage(format!(
            "--parity: {} samples do not fill a batch of {batch}; ask for a smaller one: --parity=N",
            single.outputs[0].shape[0]
        )));
    }
    let mut session = chain.session(kind, config)?;
    let batched = arrays.iter().map(|(name, array)| {
        let count = array.values.len() / array.shape[0].max(1);
        let flat = Array::new(&[samples / size, size * count], array.values.slice(0..samples * count))?;
        Ok((name.clone(), flat))
    });
    let feed = Feed::new(session.signature(), batched.collect::<tickrt::Result<_>>()?)?;
    let mut values = answers::empty(&session.signature().shapes[0].outputs[0])?;
    answers::first_outputs(&mut session, &feed, &mut values)?;
    let found = compare(&single.outputs[0].values, &values, samples);
    println!();
    table::facts([
        ("parity", format!("{samples} samples one at a time against batches of {batch}, by {kind}")),
        ("same bits", table::percent(found.same_bits, found.elements)),
        ("max absolute", format!("{:.3e}", found.largest)),
        ("decisions", format!("{} of {} differ{}", found.flips.len(), found.samples, which(&found.flips))),
    ]);
    if found.flips.is_empty() {
        return Ok(());
    }
    Err(Failure::check(format!(
        "parity: {} of {} decisions depend on the batch: a backtest in batches is not what production answers",
        found.flips.len(),
        found.samples
    )))
}

fn which(flips: &[usize]) -> String {
    if flips.is_empty() {
        return String::new();
    }
    let first: Vec<String> = flips.iter().take(5).map(ToString::to_string).collect();
    format!(": samples {}{}", first.join(", "), if flips.len() > 5 { ", ..." } else { "" })
}

fn compare(single: &tickrt::data::Values, batched: &tickrt::data::Values, samples: usize) -> Found {
    let count = batched.len() / samples.max(1);
    let (a, b) = (single.slice(0..samples * count), batched.slice(0..samples * count));
    let width = a.as_bytes().len() / a.len().max(1);
    let same_bits = a.as_bytes().chunks(width).zip(b.as_bytes().chunks(width)).filter(|(a, b)| a == b).count();
    let differences = (0..a.len()).map(|place| (a.get(place) - b.get(place)).abs());
    let decision = |values: &tickrt::data::Values, sample: usize| match count {
        // A single number decides by its sign.
        1 => usize::from(values.get(sample) > 0.0),
        _ => values.argmax(sample * count..(sample + 1) * count),
    };
    Found {
        samples,
        elements: a.len(),
        same_bits,
        largest: differences.fold(0.0, f64::max),
        flips: (0..samples).filter(|&sample| decision(&a, sample) != decision(&b, sample)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use tickrt::data::Values;

    use super::*;

    #[test]
    fn flips_and_bits_are_counted() {
        let single = Values::F32(vec![1.0, 2.0, 3.0, 1.0, 0.0, -0.0]);
        let batched = Values::F32(vec![1.0, 2.0, 1.0, 3.0, 0.0, 0.0]);
        let found = compare(&single, &batched, 3);
        assert_eq!((found.samples, found.elements, found.same_bits, found.flips), (3, 6, 3, vec![1]));
        assert!((found.largest - 2.0).abs() < 1e-12);
        let signs = compare(&Values::F32(vec![0.1, -0.1]), &Values::F32(vec![-0.1, -0.1]), 2);
        assert_eq!(signs.flips, [0]);
    }
}

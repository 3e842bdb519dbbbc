//! The scalar normalisation against a naive one, written again from its description.
#[path = "common/cases.rs"]
mod cases;
mod common;

use cases::{Case, cases};
use half::f16;
use tickrt::{DataType, ErrorKind, IoMode, Layout, NonFinite, Normalization, Normalizer, Stats, TensorInfo};

/// One element at a time, by indices of its axes.
/// Each value with the size of what was subtracted to get it, on which its rounding depends.
fn naive(case: &Case) -> Option<Vec<(f64, f64)>> {
    let Case { what, shape, input, .. } = case;
    let size = what.input_type.size();
    let raw = |place: usize| -> f64 {
        let bytes = &input[place * size..(place + 1) * size];
        match what.input_type {
            DataType::F32 => f64::from(f32::from_le_bytes(bytes.try_into().unwrap())),
            DataType::F64 => f64::from_le_bytes(bytes.try_into().unwrap()),
            DataType::F16 => f16::from_le_bytes(bytes.try_into().unwrap()).to_f64(),
            DataType::U8 => f64::from(bytes[0]),
            DataType::I16 => f64::from(i16::from_le_bytes(bytes.try_into().unwrap())),
            _ => f64::from(i32::from_le_bytes(bytes.try_into().unwrap())),
        }
    };
    let (batch, channels) = (shape[0] as usize, shape[1] as usize);
    let spatial: usize = shape[2..].iter().map(|&d| d as usize).product();
    let last = *shape.last().unwrap() as usize;
    let mut out = Vec::new();
    for sample in 0..batch {
        for channel in 0..channels {
            for position in 0..spatial {
                let inside = match what.layout {
                    Layout::AsIs => channel * spatial + position,
                    Layout::ChannelsLastToFirst => position * channels + channel,
                };
                let x = raw(sample * channels * spatial + inside);
                let feature = match what.layout {
                    Layout::AsIs => (channel * spatial + position) % last,
                    Layout::ChannelsLastToFirst => channel,
                };
                let (mean, std) = match &what.stats {
                    Stats::None => (0.0, 1.0),
                    Stats::PerTensor { mean, std } => (mean[0], std[0]),
                    Stats::PerFeature { mean, std } => (mean[feature], std[feature]),
                    Stats::PerChannel { mean, std } => (mean[channel], std[channel]),
                };
                let mut y = (x - mean) / std;
                if let Some([lowest, highest]) = what.clamp
                    && !y.is_nan()
                {
                    y = y.clamp(f64::from(lowest), f64::from(highest));
                }
                match what.non_finite {
                    _ if x.is_finite() => {}
                    NonFinite::Pass => {}
                    NonFinite::Replace(value) => y = f64::from(value),
                    NonFinite::Refuse => return None,
                }
                out.push((y, (x.abs() + mean.abs()) / std));
            }
        }
    }
    Some(out)
}

#[test]
fn scalar_normalisation_agrees_with_a_naive_one() {
    let (mut refused, mut compared) = (0, 0);
    for (number, case) in cases(600).iter().enumerate() {
        let mut bytes = vec![0_u8; case.normalizer.output_bytes()];
        // Aligned for f64, as the backends' memory is.
        let mut input = vec![0_u64; case.input.len().div_ceil(8)];
        bytemuck::cast_slice_mut(&mut input)[..case.input.len()].copy_from_slice(&case.input);
        let outcome = case.normalizer.apply(&bytemuck::cast_slice(&input)[..case.input.len()], &mut bytes);
        let Some(expected) = naive(case) else {
            assert_eq!(outcome.unwrap_err().kind(), ErrorKind::NonFiniteInput, "case {number}");
            refused += 1;
            continue;
        };
        outcome.unwrap();
        let half = case.normalizer.output_type() == DataType::F16;
        for (place, (expected, scale)) in expected.into_iter().enumerate() {
            let (got, tolerance) = if half {
                (f16::from_le_bytes([bytes[place * 2], bytes[place * 2 + 1]]).to_f64(), 1e-3)
            } else {
                let at = place * 4;
                (f64::from(f32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())), 1e-6)
            };
            let largest = if half { 65504.0 } else { f64::from(f32::MAX) };
            let close = got == expected
                || (got.is_nan() && expected.is_nan())
                || (expected.abs() > largest && got.is_infinite())
                || (got - expected).abs() <= tolerance * expected.abs().max(1.0) + 2e-7 * scale;
            assert!(close, "case {number} {:?} place {place}: {got} instead of {expected}", case.what);
            compared += 1;
        }
    }
    assert!(refused > 20 && compared > 50_000, "{refused} refused, {compared} compared");
}

fn refusal(what: &Normalization, shape: &[i64]) -> String {
    let tensor =
        TensorInfo { name: "input".into(), mode: IoMode::Input, data_type: DataType::F32, shape: shape.to_vec() };
    let error = Normalizer::new(what, &tensor, shape, None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    error.to_string()
}

#[test]
fn normalisation_that_cannot_be_is_refused_with_its_reason() {
    let base = || Normalization::new("input", DataType::F32);
    let per_feature = |std: Vec<f64>| Stats::PerFeature { mean: vec![0.0; std.len()], std };
    let cases: [(Normalization, &str); 8] = [
        (base().stats(Stats::PerTensor { mean: [0.0], std: [0.0] }), "standard deviations above zero, got 0"),
        (base().stats(Stats::PerTensor { mean: [0.0], std: [1e-60] }), "standard deviations above zero"),
        (base().stats(Stats::PerTensor { mean: [f64::NAN], std: [1.0] }), "finite means"),
        (base().stats(per_feature(vec![1.0; 3])), "expected 8 means"),
        (base().stats(per_feature(vec![1.0, 1.0, 1.0, 1.0, -1.0, 1.0, 1.0, 1.0])), "-1 at place 4"),
        (base().clamp(1.0, -1.0), "a clamp [lowest, highest]"),
        (base().non_finite(NonFinite::Replace(f32::NAN)), "finite value"),
        (Normalization::new("input", DataType::I64), "f32, f64, f16, u8, i16 or i32"),
    ];
    for (what, words) in cases {
        let text = refusal(&what, &[1, 4, 8]);
        assert!(text.contains(words), "{text}");
    }
    let text = refusal(&base().layout(Layout::ChannelsLastToFirst), &[1, 7]);
    assert!(text.contains("channels"), "{text}");
}

#[test]
fn normalisations_of_the_models_are_read() {
    for name in ["toy_cnn", "mlp", "lstm", "cnn_small", "cnn_large"] {
        let read = common::normalization(name);
        assert_eq!(read.input, "input", "{name}");
        let again: Normalization = serde_json::from_str(&serde_json::to_string(&read).unwrap()).unwrap();
        assert_eq!(read, again);
    }
    let error = Normalization::read(common::model("README.md")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

#[test]
fn tensors_of_one_axis_and_of_none_are_taken() {
    let pairs = || (vec![0.0; 4], vec![2.0; 4]);
    let (mean, std) = pairs();
    let scaled = |stats, shape: &[i64]| {
        let tensor =
            TensorInfo { name: "input".into(), mode: IoMode::Input, data_type: DataType::F32, shape: shape.to_vec() };
        let normalizer =
            Normalizer::new(&Normalization::new("input", DataType::F32).stats(stats), &tensor, shape, None).unwrap();
        let mut out = vec![0.0_f32; normalizer.count()];
        let input = vec![6.0_f32; normalizer.count()];
        normalizer.apply(bytemuck::cast_slice(&input), bytemuck::cast_slice_mut(&mut out)).unwrap();
        out
    };
    assert_eq!(scaled(Stats::PerFeature { mean: mean.clone(), std: std.clone() }, &[4]), [3.0; 4]);
    assert_eq!(scaled(Stats::PerChannel { mean, std }, &[4]), [3.0; 4]);
    assert_eq!(scaled(Stats::PerTensor { mean: [0.0], std: [3.0] }, &[]), [2.0]);
}

#[test]
fn windows_that_would_be_laid_out_wrongly_are_refused() {
    let moved = Normalization::new("input", DataType::F32).layout(Layout::ChannelsLastToFirst);
    for (shape, row) in [(vec![1, 8, 32], 16), (vec![4, 8, 32], 8), (vec![1, 8, 32], 32)] {
        let tensor =
            TensorInfo { name: "input".into(), mode: IoMode::Input, data_type: DataType::F32, shape: shape.clone() };
        let error = Normalizer::new(&moved, &tensor, &shape, Some(row)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{shape:?} {row}");
    }
}

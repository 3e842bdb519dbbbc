//! Functions of single numbers and of rows.

use std::f64::consts::{PI, SQRT_2};

use crate::resident::network::{Activation, Affine, Elementwise, LayerNorm};

pub(super) fn activate(activation: Activation, x: f32) -> f32 {
    let wide = f64::from(x);
    let result = match activation {
        Activation::Relu => wide.max(0.0),
        Activation::Tanh => wide.tanh(),
        Activation::Sigmoid => 1.0 / (1.0 + (-wide).exp()),
        Activation::Gelu => 0.5 * wide * (1.0 + erf(wide / SQRT_2)),
        Activation::GeluTanh => 0.5 * wide * (1.0 + ((2.0 / PI).sqrt() * (wide + 0.044_715 * wide.powi(3))).tanh()),
        Activation::LeakyRelu(alpha) => {
            if wide < 0.0 {
                f64::from(alpha) * wide
            } else {
                wide
            }
        }
        Activation::Elu(alpha) => {
            if wide < 0.0 {
                f64::from(alpha) * wide.exp_m1()
            } else {
                wide
            }
        }
    };
    result as f32
}

/// The error function, by a series without cancellation (Abramowitz and Stegun 7.1.6).
pub(super) fn erf(x: f64) -> f64 {
    // Beyond, 1 − erf(x) is less than a f64's last bit.
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut sum, mut n) = (x, x, 0.0);
    while term.abs() > sum.abs() * f64::EPSILON {
        n += 1.0;
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
    }
    2.0 / PI.sqrt() * (-x * x).exp() * sum
}

pub(super) fn softmax(row: &[f32]) -> Vec<f32> {
    let greatest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = row.iter().map(|&x| f64::from(x - greatest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|power| (power / sum) as f32).collect()
}

pub(super) fn layer_norm(norm: &LayerNorm, row: &[f32]) -> Vec<f32> {
    let mean = |numbers: &mut dyn Iterator<Item = f64>| numbers.sum::<f64>() / row.len() as f64;
    let middle = mean(&mut row.iter().map(|&x| f64::from(x)));
    let variance = mean(&mut row.iter().map(|&x| (f64::from(x) - middle).powi(2)));
    let deviation = (variance + f64::from(norm.epsilon)).sqrt();
    let scale = |place: usize| norm.scale.as_ref().map_or(1.0, |scale| f64::from(scale[place]));
    let shift = |place: usize| norm.shift.as_ref().map_or(0.0, |shift| f64::from(shift[place]));
    let normal =
        |(place, &x): (usize, &f32)| ((f64::from(x) - middle) / deviation * scale(place) + shift(place)) as f32;
    row.iter().enumerate().map(normal).collect()
}

pub(super) fn affine(affine: &Affine, value: &[f32]) -> Vec<f32> {
    let along = affine.along;
    let constants = |place: usize| {
        let at = place / along.inner % along.length;
        (affine.scale[at], affine.shift[at])
    };
    let moved = |(place, &x): (usize, &f32)| {
        let (scale, shift) = constants(place);
        x * scale + shift
    };
    value.iter().enumerate().map(moved).collect()
}

pub(super) fn of_two(operation: Elementwise, a: f32, b: f32) -> f32 {
    match operation {
        Elementwise::Add => a + b,
        Elementwise::Subtract => a - b,
        Elementwise::Multiply => a * b,
    }
}

#[cfg(test)]
mod tests {
    use super::erf;

    #[test]
    fn erf_has_the_values_of_the_tables() {
        for (x, expected) in [
            (0.0, 0.0),
            (0.1, 0.112_462_916_018_284_9),
            (0.5, 0.520_499_877_813_046_5),
            (1.0, 0.842_700_792_949_714_9),
            (2.0, 0.995_322_265_018_952_7),
            (4.0, 0.999_999_984_582_742_1),
            (7.0, 1.0),
        ] {
            assert!((erf(x) - expected).abs() < 1e-14, "{x}: {}", erf(x));
            assert_eq!(erf(-x), -erf(x));
        }
    }
}

//! Dense layers, convolutions and pools.

use super::Accumulation;
use super::functions::activate;
use crate::resident::network::{Activation, Conv, Dense, Pool, PoolKind, Sliding};

/// `bias + weights · vector`, row by row of the weights.
pub(super) fn matrix_vector(
    weights: &[f32],
    bias: Option<&[f32]>,
    vector: &[f32],
    accumulation: Accumulation,
) -> Vec<f32> {
    let rows = weights.chunks(vector.len()).enumerate();
    rows.map(|(output, row)| {
        let start = bias.map_or(0.0, |bias| bias[output]);
        accumulation.sum(start, row.iter().copied().zip(vector.iter().copied()))
    })
    .collect()
}

pub(super) fn dense(dense: &Dense, value: &[f32], accumulation: Accumulation) -> Vec<f32> {
    let row = |row| matrix_vector(&dense.weights, dense.bias.as_deref(), row, accumulation);
    value.chunks(dense.inputs).flat_map(row).map(|sum| then(dense.activation, sum)).collect()
}

pub(super) fn conv(conv: &Conv, value: &[f32], accumulation: Accumulation) -> Vec<f32> {
    let sliding = &conv.sliding;
    let (in_group, out_group) = (sliding.channels / conv.groups, conv.outputs / conv.groups);
    let kernel = sliding.kernel[0] * sliding.kernel[1];
    let mut result = Vec::new();
    for output in 0..conv.outputs {
        let bias = conv.bias.as_ref().map_or(0.0, |bias| bias[output]);
        let first_channel = output / out_group * in_group;
        for at in places(sliding.output()) {
            let terms = (0..in_group).flat_map(|channel| {
                under(sliding, at).map(move |(tap, place)| {
                    let weight = (output * in_group + channel) * kernel + tap;
                    (weight, (first_channel + channel) * sliding.size[0] * sliding.size[1] + place)
                })
            });
            let sum = accumulation.sum(bias, terms.map(|(weight, place)| (conv.weights[weight], value[place])));
            result.push(then(conv.activation, sum));
        }
    }
    result
}

pub(super) fn pool(pool: &Pool, value: &[f32], accumulation: Accumulation) -> Vec<f32> {
    let sliding = &pool.sliding;
    let mut result = Vec::new();
    for channel in value.chunks(sliding.size[0] * sliding.size[1]) {
        for at in places(sliding.output()) {
            let numbers = under(sliding, at).map(|(_, place)| channel[place]);
            let all = match pool.kind {
                PoolKind::Max => None,
                PoolKind::Average => Some(under(sliding, at).count()),
                PoolKind::AverageWithPadding => Some(sliding.kernel[0] * sliding.kernel[1]),
            };
            result.push(match all {
                None => numbers.fold(f32::NEG_INFINITY, f32::max),
                Some(count) => accumulation.sum(0.0, numbers.map(|number| (number, 1.0))) / count as f32,
            });
        }
    }
    result
}

fn places([rows, columns]: [usize; 2]) -> impl Iterator<Item = [usize; 2]> {
    (0..rows).flat_map(move |row| (0..columns).map(move |column| [row, column]))
}

/// The places of one channel under the window that gives the result `at`, and which of the window's each is. Those that
/// are padding are left out.
fn under(sliding: &Sliding, at: [usize; 2]) -> impl Iterator<Item = (usize, usize)> {
    places(sliding.kernel).filter_map(move |tap| {
        let place = |axis: usize| {
            let padded = at[axis] * sliding.strides[axis] + tap[axis] * sliding.dilations[axis];
            padded.checked_sub(sliding.before[axis]).filter(|&place| place < sliding.size[axis])
        };
        Some((tap[0] * sliding.kernel[1] + tap[1], place(0)? * sliding.size[1] + place(1)?))
    })
}

fn then(activation: Option<Activation>, sum: f32) -> f32 {
    activation.map_or(sum, |activation| activate(activation, sum))
}

//! Data moved, none computed.

use crate::resident::network::{Along, Pad, Slice, transposed_places};

pub(super) fn concat(outer: usize, parts: &[usize], reads: &[Vec<f32>]) -> Vec<f32> {
    let part = |o: usize| parts.iter().zip(reads).flat_map(move |(part, read)| &read[o * part..(o + 1) * part]);
    (0..outer).flat_map(part).copied().collect()
}

pub(super) fn transpose(shape: &[usize], order: &[usize], value: &[f32]) -> Vec<f32> {
    transposed_places(shape, order).into_iter().map(|place| value[place]).collect()
}

pub(super) fn slice(slice: &Slice, value: &[f32]) -> Vec<f32> {
    let Along { outer, length, inner } = slice.along;
    let run = |o: usize| slice.places().map(move |place| (o * length + place) * inner);
    (0..outer).flat_map(run).flat_map(|start| &value[start..start + inner]).copied().collect()
}

pub(super) fn pad(pad: &Pad, value: &[f32]) -> Vec<f32> {
    let Along { length, inner, .. } = pad.along;
    let padding = |places: usize| std::iter::repeat_n(pad.value, places * inner);
    let whole = |run: &[f32]| -> Vec<f32> {
        padding(pad.before).chain(run.iter().copied()).chain(padding(pad.behind)).collect()
    };
    value.chunks(length * inner).flat_map(whole).collect()
}

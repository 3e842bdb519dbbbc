//! What a network computes, one number after the other: the oracle that kernels are compared with, right rather than fast.
//!
//! Values are f32 between stages. Sums run from the first term to the last, in f32 or f64 as asked; functions such as
//! tanh are computed in f64 and rounded.

mod functions;
mod moves;
mod recurrent;
mod sums;

use super::network::{Network, Operation, Stage, ValueId};
use crate::error::{Error, ErrorKind, Result};

/// In which type sums are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accumulation {
    /// As kernels do.
    F32,
    /// For an answer to measure them by.
    F64,
}

impl Accumulation {
    /// `start` plus the products, in their order.
    fn sum(self, start: f32, products: impl Iterator<Item = (f32, f32)>) -> f32 {
        match self {
            Self::F32 => products.fold(start, |sum, (a, b)| sum + a * b),
            Self::F64 => products.fold(f64::from(start), |sum, (a, b)| sum + f64::from(a) * f64::from(b)) as f32,
        }
    }
}

/// The network's outputs for these inputs.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] if there are more or fewer inputs, or one has another number of elements.
pub fn run(network: &Network, inputs: &[&[f32]], accumulation: Accumulation) -> Result<Vec<Vec<f32>>> {
    check(network, inputs)?;
    let mut values: Vec<Option<Vec<f32>>> = vec![None; network.values.len()];
    for (id, input) in network.inputs.iter().zip(inputs) {
        values[id.0] = Some(input.to_vec());
    }
    let of = |values: &[Option<Vec<f32>>], id: ValueId| values[id.0].clone().expect("stages lie in topological order");
    for stage in &network.stages {
        let reads: Vec<Vec<f32>> = stage.reads.iter().map(|&id| of(&values, id)).collect();
        let written = compute(stage, &reads, accumulation);
        debug_assert_eq!(written.len(), network.value(stage.writes).count(), "{:?}", stage.nodes);
        values[stage.writes.0] = Some(written);
    }
    Ok(network.outputs.iter().map(|&id| of(&values, id)).collect())
}

fn check(network: &Network, inputs: &[&[f32]]) -> Result<()> {
    let expected: Vec<usize> = network.inputs.iter().map(|&id| network.value(id).count()).collect();
    let got: Vec<usize> = inputs.iter().map(|input| input.len()).collect();
    if expected == got {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidArgument, "compute a network plainly")
        .expected(format!("inputs of {expected:?} elements"))
        .got(format!("{got:?}")))
}

fn compute(stage: &Stage, reads: &[Vec<f32>], accumulation: Accumulation) -> Vec<f32> {
    let value = &reads[0];
    match &stage.operation {
        Operation::Dense(dense) => sums::dense(dense, value, accumulation),
        Operation::Conv(conv) => sums::conv(conv, value, accumulation),
        Operation::Pool(pool) => sums::pool(pool, value, accumulation),
        Operation::Softmax { columns, .. } => value.chunks(*columns).flat_map(functions::softmax).collect(),
        Operation::LayerNorm(norm) => {
            value.chunks(norm.width).flat_map(|row| functions::layer_norm(norm, row)).collect()
        }
        Operation::Activation(activation) => value.iter().map(|&x| functions::activate(*activation, x)).collect(),
        Operation::Affine(affine) => functions::affine(affine, value),
        Operation::Elementwise(operation) => {
            value.iter().zip(&reads[1]).map(|(&a, &b)| functions::of_two(*operation, a, b)).collect()
        }
        Operation::Concat { outer, parts } => moves::concat(*outer, parts, reads),
        Operation::Transpose { shape, order } => moves::transpose(shape, order, value),
        Operation::Slice(slice) => moves::slice(slice, value),
        Operation::Pad(pad) => moves::pad(pad, value),
        Operation::Recurrent(recurrent) => recurrent::window(recurrent, value, accumulation),
        Operation::RecurrentStep(step) => recurrent::step(step, value, &reads[1], &reads[2], accumulation),
    }
}

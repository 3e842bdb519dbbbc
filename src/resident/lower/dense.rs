//! Gemm and MatMul by weights.

use super::node::Node;
use super::{Lowering, Tensor};
use crate::error::Result;
use crate::resident::network::{Dense, Operation, Weights};

impl<'graph> Lowering<'graph> {
    pub(super) fn gemm(&mut self, node: &Node<'graph>) -> Result<()> {
        node.only(&["alpha", "beta", "transA", "transB"])?;
        let value = self.tensor(node, 0)?;
        let weights = self.weights(node, 1)?.ok_or_else(|| node.refuse("no weights"))?;
        let [rows, inputs] = self::matrix(node, &value, node.int("transA", 0) != 0)?;
        let transposed = node.int("transB", 0) != 0;
        let (outputs, matrix) = match weights.shape[..] {
            [outputs, own] if transposed && own == inputs => (outputs, weights),
            [own, outputs] if !transposed && own == inputs => (outputs, weights.transposed(&[1, 0])),
            _ => return Err(node.refuse(format!("weights of {:?} for {inputs} inputs", weights.shape))),
        };
        let floats = matrix.as_floats().expect("`weights` has seen it");
        let bias = match self.weights(node, 2)? {
            None => None,
            Some(bias) => {
                let across = bias.shape.len() < 2 || bias.shape[0] == 1 || rows == 1;
                let bias = bias.broadcast(&[rows, outputs]).filter(|_| across);
                let bias = bias.ok_or_else(|| node.refuse("a bias that differs from row to row"))?;
                let bias = &bias.as_floats().expect("`weights` has seen it")[..outputs];
                Some(scaled(bias, node.float("beta", 1.0)))
            }
        };
        let weights = scaled(floats, node.float("alpha", 1.0));
        let dense = Dense { rows, inputs, outputs, weights, bias, activation: None };
        self.stage(node, Operation::Dense(dense), &[value.id], vec![rows, outputs]);
        Ok(())
    }

    pub(super) fn matmul(&mut self, node: &Node<'graph>) -> Result<()> {
        node.only(&[])?;
        let value = self.tensor(node, 0)?;
        let weights = self.weights(node, 1)?.ok_or_else(|| node.refuse("no weights"))?;
        let (batch, matrix) = weights.shape.split_at(weights.shape.len().saturating_sub(2));
        let inputs = value.shape.last().copied().unwrap_or(1);
        let [own, outputs] = *matrix else { return Err(node.refuse("a vector of weights; they have matrices")) };
        if batch.iter().any(|&size| size != 1) || batch.len() + 2 > value.shape.len() || own != inputs {
            return Err(node.refuse(format!("weights of {:?} for {:?}", weights.shape, value.shape)));
        }
        let matrix = weights.reshaped(vec![inputs, outputs]).transposed(&[1, 0]);
        let weights = matrix.as_floats().expect("`weights` has seen it").clone();
        let mut shape = value.shape.clone();
        *shape.last_mut().expect("a matrix of weights asks for a dimension") = outputs;
        let rows = value.count() / inputs;
        let dense = Dense { rows, inputs, outputs, weights, bias: None, activation: None };
        self.stage(node, Operation::Dense(dense), &[value.id], shape);
        Ok(())
    }
}

/// Rows and columns of the value. A transposed one is as good as another if one of both is 1.
fn matrix(node: &Node<'_>, value: &Tensor, transposed: bool) -> Result<[usize; 2]> {
    match value.shape[..] {
        [rows, columns] if !transposed => Ok([rows, columns]),
        [columns, rows] if columns == 1 || rows == 1 => Ok([rows, columns]),
        _ => Err(node.refuse(format!("a value of {:?}, transposed: {transposed}", value.shape))),
    }
}

fn scaled(numbers: &[f32], by: f32) -> Weights {
    numbers.iter().map(|number| number * by).collect()
}

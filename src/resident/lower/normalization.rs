//! Softmax, LayerNormalization and BatchNormalization.

use super::constant::Constant;
use super::node::Node;
use super::{Known, Lowering, Tensor, shapes};
use crate::error::Result;
use crate::resident::network::{Affine, Along, LayerNorm, Operation, Weights};

/// From here on Softmax is over one dimension; before, over all from it on.
const SOFTMAX_OF_ONE_DIMENSION: i64 = 13;

impl<'graph> Lowering<'graph> {
    pub(super) fn softmax(&mut self, node: &Node<'graph>) -> Result<()> {
        node.only(&["axis"])?;
        let Tensor { id, shape } = self.tensor(node, 0)?;
        let rank = shape.len();
        if self.opset < SOFTMAX_OF_ONE_DIMENSION {
            let axis = shapes::axis(node, node.int("axis", 1), rank)?;
            let (rows, columns) = (shape[..axis].iter().product(), shape[axis..].iter().product());
            self.stage(node, Operation::Softmax { rows, columns }, &[id], shape);
            return Ok(());
        }
        let axis = shapes::axis(node, node.int("axis", -1), rank)?;
        // The axis is brought last, and back.
        let there: Vec<usize> = (0..rank).filter(|&other| other != axis).chain([axis]).collect();
        let back: Vec<usize> =
            (0..rank).map(|other| there.iter().position(|&at| at == other).unwrap_or(other)).collect();
        let (id, moved) = self.transposed(node, id, &shape, &there);
        let columns = shape[axis];
        let rows = shape.iter().product::<usize>() / columns;
        let id = self.step(node, Operation::Softmax { rows, columns }, &[id], &moved);
        let (id, shape) = self.transposed(node, id, &moved, &back);
        self.is(node, Known::Tensor(Tensor { id, shape }));
        Ok(())
    }

    pub(super) fn layer_norm(&mut self, node: &Node<'graph>) -> Result<()> {
        node.only(&["axis", "epsilon", "stash_type"])?;
        node.no_output_from(1, |name| self.is_used(name))?;
        let Tensor { id, shape } = self.tensor(node, 0)?;
        let axis = shapes::axis(node, node.int("axis", -1), shape.len())?;
        let row = &shape[axis..];
        let of = |constant: Option<Constant>| -> Result<Option<Weights>> {
            let Some(constant) = constant else { return Ok(None) };
            let whole =
                constant.broadcast(row).ok_or_else(|| node.refuse(format!("{:?} for {row:?}", constant.shape)))?;
            Ok(whole.as_floats().cloned())
        };
        let (scale, shift) = (of(self.weights(node, 1)?)?, of(self.weights(node, 2)?)?);
        let width = row.iter().product();
        let rows = shape[..axis].iter().product();
        let norm = LayerNorm { rows, width, epsilon: node.float("epsilon", 1e-5), scale, shift };
        self.stage(node, Operation::LayerNorm(norm), &[id], shape);
        Ok(())
    }

    /// A scale and a shift by channel, which `fuse` puts into the Conv or Gemm before it.
    pub(super) fn batch_norm(&mut self, node: &Node<'graph>) -> Result<()> {
        node.only(&["epsilon", "momentum", "spatial", "training_mode"])?;
        node.no_output_from(1, |name| self.is_used(name))?;
        if node.int("training_mode", 0) != 0 || node.int("spatial", 1) == 0 {
            return Err(node.refuse("a training mode, or statistics for each place"));
        }
        let Tensor { id, shape } = self.tensor(node, 0)?;
        if shape.len() < 2 {
            return Err(node.refuse(format!("a value of {shape:?} without channels")));
        }
        let along = Along::new(&shape, 1);
        let of = |place: usize| -> Result<Weights> {
            let constant = self.weights(node, place)?.and_then(|constant| constant.as_floats().cloned());
            constant
                .filter(|numbers| numbers.len() == along.length)
                .ok_or_else(|| node.refuse("statistics of another length"))
        };
        let (scale, shift, mean, variance) = (of(1)?, of(2)?, of(3)?, of(4)?);
        let epsilon = f64::from(node.float("epsilon", 1e-5));
        // In f64, rounded once: four roundings less than channel by channel in f32.
        let factor = |c: usize| f64::from(scale[c]) / (f64::from(variance[c]) + epsilon).sqrt();
        let affine = Affine {
            along,
            scale: (0..along.length).map(|c| factor(c) as f32).collect(),
            shift: (0..along.length).map(|c| (f64::from(shift[c]) - f64::from(mean[c]) * factor(c)) as f32).collect(),
        };
        self.stage(node, Operation::Affine(affine), &[id], shape);
        Ok(())
    }
}

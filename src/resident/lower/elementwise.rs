//! Activations, and sums, differences and products of values with values or constants.

use super::constant::Constant;
use super::node::Node;
use super::{Known, Lowering, Tensor, shapes};
use crate::error::Result;
use crate::resident::network::{Activation, Affine, Along, Elementwise, Operation, Weights};

/// How a constant meets a value.
#[derive(Clone, Copy)]
enum With {
    Plus,
    Minus,
    /// The constant minus the value.
    From,
    Times,
    Over,
}

impl<'graph> Lowering<'graph> {
    pub(super) fn activation(&mut self, node: &Node<'graph>) -> Result<()> {
        node.only(&["alpha", "approximate"])?;
        let activation = match node.operator() {
            "Relu" => Activation::Relu,
            "Tanh" => Activation::Tanh,
            "Sigmoid" => Activation::Sigmoid,
            "LeakyRelu" => Activation::LeakyRelu(node.float("alpha", 0.01)),
            "Elu" => Activation::Elu(node.float("alpha", 1.0)),
            _ => match node.text("approximate").as_deref() {
                None | Some("none") => Activation::Gelu,
                Some("tanh") => Activation::GeluTanh,
                Some(other) => return Err(node.refuse(format!("the approximation `{other}`"))),
            },
        };
        let Tensor { id, shape } = self.tensor(node, 0)?;
        self.stage(node, Operation::Activation(activation), &[id], shape);
        Ok(())
    }

    pub(super) fn elementwise(&mut self, node: &Node<'graph>) -> Result<()> {
        node.only(&[])?;
        match (self.known(node, 0)?.clone(), self.known(node, 1)?.clone()) {
            (Known::Tensor(a), Known::Tensor(b)) => self.of_two(node, &a, &b),
            (Known::Tensor(value), Known::Constant(constant)) => {
                let with = match node.operator() {
                    "Add" => With::Plus,
                    "Sub" => With::Minus,
                    "Mul" => With::Times,
                    _ => With::Over,
                };
                self.with_constant(node, &value, &constant, with)
            }
            (Known::Constant(constant), Known::Tensor(value)) => {
                let with = match node.operator() {
                    "Add" => With::Plus,
                    "Sub" => With::From,
                    "Mul" => With::Times,
                    _ => return Err(node.refuse("a constant divided by a value")),
                };
                self.with_constant(node, &value, &constant, with)
            }
            (Known::Constant(_), Known::Constant(_)) => Err(node.refuse("constants that do not fit each other")),
        }
    }

    fn of_two(&mut self, node: &Node<'graph>, a: &Tensor, b: &Tensor) -> Result<()> {
        let operation = match node.operator() {
            "Add" => Elementwise::Add,
            "Sub" => Elementwise::Subtract,
            "Mul" => Elementwise::Multiply,
            _ => return Err(node.refuse("a value divided by a value")),
        };
        let shape = shapes::broadcast(&a.shape, &b.shape).unwrap_or_default();
        let count: usize = shape.iter().product();
        if a.count() != count || b.count() != count {
            return Err(node.refuse(format!("{:?} and {:?}, of which one is repeated", a.shape, b.shape)));
        }
        self.stage(node, Operation::Elementwise(operation), &[a.id, b.id], shape);
        Ok(())
    }

    fn with_constant(&mut self, node: &Node<'graph>, value: &Tensor, constant: &Constant, with: With) -> Result<()> {
        let shape = shapes::broadcast(&value.shape, &constant.shape);
        let shape = shape.filter(|shape| shape.iter().product::<usize>() == value.count());
        let shape =
            shape.ok_or_else(|| node.refuse(format!("a constant that repeats a value of {:?}", value.shape)))?;
        if constant.as_floats().is_none() {
            return Err(node.refuse("a constant of integers"));
        }
        let (along, numbers) = self::compact(constant, &shape);
        let constants = |of: fn(f32) -> f32| -> Weights { numbers.iter().map(|&number| of(number)).collect() };
        let (scale, shift) = match with {
            With::Plus => (constants(|_| 1.0), constants(|c| c)),
            With::Minus => (constants(|_| 1.0), constants(|c| -c)),
            With::From => (constants(|_| -1.0), constants(|c| c)),
            With::Times => (constants(|c| c), constants(|_| 0.0)),
            With::Over => (constants(|c| 1.0 / c), constants(|_| 0.0)),
        };
        if scale.iter().any(|scale| !scale.is_finite()) {
            return Err(node.refuse("a division by a constant without a finite inverse"));
        }
        self.stage(node, Operation::Affine(Affine { along, scale, shift }), &[value.id], shape);
        Ok(())
    }
}

/// A constant without the repetitions that broadcasting to `shape` gives it: it changes along one run of neighbouring
/// dimensions and is repeated along those before and behind it. Where it is not so, it is written out.
fn compact(constant: &Constant, shape: &[usize]) -> (Along, Weights) {
    let missing = shape.len() - constant.shape.len();
    let changes = |axis: usize| axis >= missing && constant.shape[axis - missing] != 1;
    let first = (0..shape.len()).find(|&axis| changes(axis));
    let Some(first) = first else {
        let all = constant.as_floats().expect("checked by the caller").clone();
        return (Along { outer: 1, length: 1, inner: shape.iter().product() }, all);
    };
    let last = (0..shape.len()).rfind(|&axis| changes(axis)).expect("the first is one");
    let along = Along {
        outer: shape[..first].iter().product(),
        length: shape[first..=last].iter().product(),
        inner: shape[last + 1..].iter().product(),
    };
    let run = constant.reshaped(constant.shape[first.saturating_sub(missing)..=last - missing].to_vec());
    let run = run.broadcast(&shape[first..=last]).expect("the shape is what it was broadcast to");
    (along, run.as_floats().expect("checked by the caller").clone())
}

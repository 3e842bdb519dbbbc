//! Numbers that are known before the first call, and the nodes that compute more of them.

use std::sync::Arc;

use half::{bf16, f16};

use super::node::Node;
use super::shapes;
use crate::error::Result;
use crate::onnx::proto::TensorProto;
use crate::resident::network::{Along, Weights, transposed_places};

#[derive(Debug, Clone)]
pub(super) struct Constant {
    pub(super) shape: Vec<usize>,
    pub(super) numbers: Numbers,
}

#[derive(Debug, Clone)]
pub(super) enum Numbers {
    Floats(Weights),
    Integers(Arc<[i64]>),
}

/// `TensorProto.DataType`.
const F32: i32 = 1;
const I32: i32 = 6;
const I64: i32 = 7;
const F16: i32 = 10;
const F64: i32 = 11;
const BF16: i32 = 16;

impl Constant {
    pub(super) fn floats(shape: Vec<usize>, numbers: impl Into<Weights>) -> Self {
        Self { shape, numbers: Numbers::Floats(numbers.into()) }
    }

    pub(super) fn integers(shape: Vec<usize>, numbers: impl Into<Arc<[i64]>>) -> Self {
        Self { shape, numbers: Numbers::Integers(numbers.into()) }
    }

    /// A tensor of the model; none if its type is one that nothing here reads or its data are not as long as its shape.
    pub(super) fn read(tensor: &TensorProto) -> Option<Self> {
        let shape: Vec<usize> = tensor.dims.iter().map(|&size| usize::try_from(size).ok()).collect::<Option<_>>()?;
        let raw = tensor.raw_data.as_deref().filter(|raw| !raw.is_empty());
        let numbers = match tensor.data_type() {
            F32 => Numbers::Floats(
                raw.map_or_else(|| tensor.float_data.clone(), |raw| numbers(raw, f32::from_le_bytes)).into(),
            ),
            I64 => Numbers::Integers(
                raw.map_or_else(|| tensor.int64_data.clone(), |raw| numbers(raw, i64::from_le_bytes)).into(),
            ),
            I32 => {
                let given = || tensor.int32_data.iter().map(|&number| i64::from(number)).collect();
                let read = |raw| numbers(raw, |bytes| i64::from(i32::from_le_bytes(bytes)));
                Numbers::Integers(raw.map_or_else(given, read).into())
            }
            F64 => {
                let given = || tensor.double_data.iter().map(|&number| number as f32).collect();
                Numbers::Floats(
                    raw.map_or_else(given, |raw| numbers(raw, |bytes| f64::from_le_bytes(bytes) as f32)).into(),
                )
            }
            // Given as numbers they are bits in `int32_data`, which no exporter writes.
            F16 => Numbers::Floats(numbers(raw?, |bytes| f16::from_le_bytes(bytes).to_f32()).into()),
            BF16 => Numbers::Floats(numbers(raw?, |bytes| bf16::from_le_bytes(bytes).to_f32()).into()),
            _ => return None,
        };
        let read = Self { shape, numbers };
        (read.count() == read.shape.iter().product::<usize>()).then_some(read)
    }

    pub(super) fn count(&self) -> usize {
        match &self.numbers {
            Numbers::Floats(numbers) => numbers.len(),
            Numbers::Integers(numbers) => numbers.len(),
        }
    }

    pub(super) fn as_floats(&self) -> Option<&Weights> {
        match &self.numbers {
            Numbers::Floats(numbers) => Some(numbers),
            Numbers::Integers(_) => None,
        }
    }

    pub(super) fn as_integers(&self) -> Option<&[i64]> {
        match &self.numbers {
            Numbers::Integers(numbers) => Some(numbers),
            Numbers::Floats(_) => None,
        }
    }

    /// The one float that it holds.
    pub(super) fn scalar(&self) -> Option<f32> {
        self.as_floats().filter(|numbers| numbers.len() == 1).map(|numbers| numbers[0])
    }

    pub(super) fn reshaped(&self, shape: Vec<usize>) -> Self {
        Self { shape, numbers: self.numbers.clone() }
    }

    /// The numbers at these places.
    pub(super) fn at(&self, shape: Vec<usize>, places: impl Iterator<Item = usize>) -> Self {
        match &self.numbers {
            Numbers::Floats(numbers) => Self::floats(shape, places.map(|place| numbers[place]).collect::<Vec<_>>()),
            Numbers::Integers(numbers) => Self::integers(shape, places.map(|place| numbers[place]).collect::<Vec<_>>()),
        }
    }

    pub(super) fn transposed(&self, order: &[usize]) -> Self {
        let shape = order.iter().map(|&axis| self.shape[axis]).collect();
        self.at(shape, transposed_places(&self.shape, order).into_iter())
    }

    /// What lies at these places along an axis.
    pub(super) fn along(&self, axis: usize, places: &[usize], shape: Vec<usize>) -> Self {
        let Along { outer, length, inner } = Along::new(&self.shape, axis);
        let all = (0..outer).flat_map(|o| {
            places.iter().flat_map(move |place| (0..inner).map(move |i| (o * length + place) * inner + i))
        });
        self.at(shape, all)
    }

    /// As ONNX broadcasts it to a shape; none if it does not fit.
    pub(super) fn broadcast(&self, shape: &[usize]) -> Option<Self> {
        let missing = shape.len().checked_sub(self.shape.len())?;
        let own: Vec<usize> = std::iter::repeat_n(1, missing).chain(self.shape.iter().copied()).collect();
        if !own.iter().zip(shape).all(|(&own, &wanted)| own == wanted || own == 1) {
            return None;
        }
        let mut places = vec![0];
        for (axis, (&own_size, &size)) in own.iter().zip(shape).enumerate() {
            let stride = if own_size == 1 { 0 } else { own[axis + 1..].iter().product() };
            places = places.iter().flat_map(|place| (0..size).map(move |i| place + i * stride)).collect();
        }
        Some(self.at(shape.to_vec(), places.into_iter()))
    }
}

fn numbers<const SIZE: usize, T>(raw: &[u8], read: impl Fn([u8; SIZE]) -> T) -> Vec<T> {
    raw.chunks_exact(SIZE).map(|bytes| read(bytes.try_into().expect("a chunk has its size"))).collect()
}

/// What a node makes of constants; none if that is not known here.
pub(super) fn fold(node: &Node<'_>, inputs: &[Constant]) -> Result<Option<Constant>> {
    let refused = |got: String| node.refuse(got);
    Ok(match (node.operator(), inputs) {
        ("Identity", [of]) => Some(of.clone()),
        ("Cast", [of]) => cast(of, node.int("to", 0)),
        ("Transpose", [of]) => Some(of.transposed(&shapes::order(node, of.shape.len())?)),
        ("Concat", [first, ..]) => {
            let axis = shapes::axis(node, node.int("axis", 0), first.shape.len())?;
            inputs[1..].iter().try_fold(first.clone(), |all, next| joined(&all, next, axis))
        }
        ("Add" | "Sub" | "Mul" | "Div", [a, b]) => arithmetic(node.operator(), a, b),
        ("ConstantOfShape", [shape]) => {
            let value = match node.tensor("value") {
                Some(tensor) => Constant::read(tensor).ok_or_else(|| refused("a value of another type".to_owned()))?,
                None => Constant::floats(vec![1], vec![0.0]),
            };
            shapes::sizes(shape).and_then(|shape| value.reshaped(Vec::new()).broadcast(&shape))
        }
        ("Expand", [of, shape]) => {
            let Some(wanted) = shapes::sizes(shape) else { return Ok(None) };
            shapes::broadcast(&of.shape, &wanted).and_then(|shape| of.broadcast(&shape))
        }
        _ => None,
    })
}

fn cast(of: &Constant, to: i64) -> Option<Constant> {
    let to = i32::try_from(to).ok()?;
    match (&of.numbers, to) {
        (Numbers::Floats(_), F32 | F64) | (Numbers::Integers(_), I64 | I32) => Some(of.clone()),
        (Numbers::Floats(numbers), I64 | I32) => {
            Some(Constant::integers(of.shape.clone(), numbers.iter().map(|&n| n as i64).collect::<Vec<_>>()))
        }
        (Numbers::Integers(numbers), F32 | F64) => {
            Some(Constant::floats(of.shape.clone(), numbers.iter().map(|&n| n as f32).collect::<Vec<_>>()))
        }
        _ => None,
    }
}

fn joined(one: &Constant, other: &Constant, axis: usize) -> Option<Constant> {
    if one.shape.len() != other.shape.len() {
        return None;
    }
    let (a, b) = (Along::new(&one.shape, axis), Along::new(&other.shape, axis));
    if (a.outer, a.inner) != (b.outer, b.inner) {
        return None;
    }
    let mut shape = one.shape.clone();
    shape[axis] += b.length;
    let (from_a, from_b) = (a.length * a.inner, b.length * b.inner);
    // The places of the second are counted behind all of the first.
    let places = (0..a.outer).flat_map(|o| {
        let second = one.count() + o * from_b;
        (o * from_a..(o + 1) * from_a).chain(second..second + from_b)
    });
    Some(match (&one.numbers, &other.numbers) {
        (Numbers::Floats(a), Numbers::Floats(b)) => {
            Constant::floats(vec![a.len() + b.len()], [&a[..], &b[..]].concat()).at(shape, places)
        }
        (Numbers::Integers(a), Numbers::Integers(b)) => {
            Constant::integers(vec![a.len() + b.len()], [&a[..], &b[..]].concat()).at(shape, places)
        }
        _ => return None,
    })
}

fn arithmetic(operator: &str, a: &Constant, b: &Constant) -> Option<Constant> {
    let shape = shapes::broadcast(&a.shape, &b.shape)?;
    let (a, b) = (a.broadcast(&shape)?, b.broadcast(&shape)?);
    match (&a.numbers, &b.numbers) {
        (Numbers::Floats(a), Numbers::Floats(b)) => {
            let result = a.iter().zip(&b[..]).map(|(a, b)| match operator {
                "Add" => a + b,
                "Sub" => a - b,
                "Mul" => a * b,
                _ => a / b,
            });
            Some(Constant::floats(shape, result.collect::<Vec<_>>()))
        }
        (Numbers::Integers(a), Numbers::Integers(b)) => {
            let result = a.iter().zip(&b[..]).map(|(a, b)| match operator {
                "Add" => a.checked_add(*b),
                "Sub" => a.checked_sub(*b),
                "Mul" => a.checked_mul(*b),
                _ => a.checked_div(*b),
            });
            Some(Constant::integers(shape, result.collect::<Option<Vec<_>>>()?))
        }
        _ => None,
    }
}

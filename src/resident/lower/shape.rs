//! Operators that move data or only its name: reshapes, transposes, slices, gathers, pads and concatenations.

use super::constant::{Constant, fold};
use super::node::Node;
use super::{Known, Lowering, Tensor, shapes};
use crate::error::Result;
use crate::resident::network::{Along, Operation, Pad, Slice, ValueId, without_ones};

/// Places along one axis that a Slice or Gather keeps.
struct Kept {
    axis: usize,
    start: usize,
    count: usize,
    step: isize,
}

impl<'graph> Lowering<'graph> {
    /// A node that needs no call to be computed. Whether it was one.
    pub(super) fn constant_node(&mut self, node: &Node<'graph>) -> Result<bool> {
        let constant = match node.operator() {
            "Constant" => Some(self::given(node)?),
            "Shape" => Some(self.shape_of(node)?),
            _ => {
                let inputs = node.inputs().iter().map(|name| match self.known.get(name.as_str()) {
                    Some(Known::Constant(constant)) => Some(constant.clone()),
                    _ => None,
                });
                match inputs.collect::<Option<Vec<_>>>() {
                    Some(inputs) if !inputs.is_empty() => fold(node, &inputs)?,
                    _ => None,
                }
            }
        };
        let was_one = constant.is_some();
        if let Some(constant) = constant {
            self.is(node, Known::Constant(constant));
        }
        Ok(was_one)
    }

    fn shape_of(&self, node: &Node<'_>) -> Result<Constant> {
        node.only(&["start", "end"])?;
        let shape = match self.known(node, 0)? {
            Known::Constant(constant) => &constant.shape,
            Known::Tensor(tensor) => &tensor.shape,
        };
        let rank = shape.len() as i64;
        let place = |given: i64| (if given < 0 { given + rank } else { given }).clamp(0, rank) as usize;
        let (start, end) = (place(node.int("start", 0)), place(node.int("end", rank)));
        let sizes: Vec<i64> = shape[start..end.max(start)].iter().map(|&size| size as i64).collect();
        Ok(Constant::integers(vec![sizes.len()], sizes))
    }

    /// A node that moves no data. Whether it was one.
    pub(super) fn rename(&mut self, node: &Node<'graph>) -> Result<bool> {
        if !matches!(node.operator(), "Identity" | "Dropout" | "Flatten" | "Reshape" | "Squeeze" | "Unsqueeze") {
            return Ok(false);
        }
        node.only(&["axis", "axes", "allowzero", "seed", "ratio"])?;
        node.no_output_from(1, |name| self.is_used(name))?;
        let is_dropout = node.operator() == "Dropout";
        let second = if is_dropout { None } else { self.constant(node, 1)? };
        if is_dropout && node.input(2).is_some() {
            return Err(node.refuse("a training mode"));
        }
        let known = match self.known(node, 0)?.clone() {
            Known::Tensor(Tensor { id, shape }) => {
                let renamed = shapes::renamed(node, &shape, second.as_ref())?;
                renamed.map(|shape| Known::Tensor(Tensor { id, shape }))
            }
            Known::Constant(constant) => shapes::renamed(node, &constant.shape, second.as_ref())?
                .map(|shape| Known::Constant(constant.reshaped(shape))),
        };
        let was_one = known.is_some();
        if let Some(known) = known {
            self.is(node, known);
        }
        Ok(was_one)
    }

    pub(super) fn transpose(&mut self, node: &Node<'graph>) -> Result<()> {
        node.only(&["perm"])?;
        let Tensor { id, shape } = self.tensor(node, 0)?;
        let order = shapes::order(node, shape.len())?;
        let (id, shape) = self.transposed(node, id, &shape, &order);
        self.is(node, Known::Tensor(Tensor { id, shape }));
        Ok(())
    }

    /// The value with its dimensions in another order: a stage only where data moves.
    pub(super) fn transposed(
        &mut self,
        node: &Node<'graph>,
        id: ValueId,
        shape: &[usize],
        order: &[usize],
    ) -> (ValueId, Vec<usize>) {
        let result: Vec<usize> = order.iter().map(|&axis| shape[axis]).collect();
        let moved: Vec<usize> = order.iter().copied().filter(|&axis| shape[axis] != 1).collect();
        if moved.is_sorted() {
            return (id, result);
        }
        // The axes are counted anew without those of one.
        let place = |axis: usize| shape[..axis].iter().filter(|&&size| size != 1).count();
        let order = moved.into_iter().map(place).collect();
        let operation = Operation::Transpose { shape: without_ones(shape), order };
        (self.step(node, operation, &[id], &result), result)
    }

    pub(super) fn concat(&mut self, node: &Node<'graph>) -> Result<()> {
        node.only(&["axis"])?;
        let tensors = (0..node.inputs().len()).map(|place| self.tensor(node, place)).collect::<Result<Vec<_>>>()?;
        let [first, ..] = &tensors[..] else { return Err(node.refuse("no input")) };
        let axis = shapes::axis(node, node.int("axis", 0), first.shape.len())?;
        let mut shape = first.shape.clone();
        shape[axis] = 0;
        for tensor in &tensors {
            let alike = tensor.shape.len() == shape.len()
                && (0..shape.len()).all(|other| other == axis || tensor.shape[other] == shape[other]);
            if !alike {
                return Err(node.refuse(format!("{:?} beside {:?}", tensor.shape, first.shape)));
            }
            shape[axis] += tensor.shape[axis];
        }
        let outer = shape[..axis].iter().product();
        let parts = tensors.iter().map(|tensor| tensor.shape[axis..].iter().product()).collect();
        let ids: Vec<ValueId> = tensors.iter().map(|tensor| tensor.id).collect();
        self.stage(node, Operation::Concat { outer, parts }, &ids, shape);
        Ok(())
    }

    pub(super) fn slice(&mut self, node: &Node<'graph>) -> Result<()> {
        node.only(&["starts", "ends", "axes"])?;
        let shape = match self.known(node, 0)? {
            Known::Constant(constant) => constant.shape.clone(),
            Known::Tensor(tensor) => tensor.shape.clone(),
        };
        let list = |place: usize, name: &str| -> Result<Option<Vec<i64>>> {
            let input = self.constant(node, place)?;
            let attribute = node.ints(name).map(<[i64]>::to_vec);
            Ok(input.and_then(|input| input.as_integers().map(<[i64]>::to_vec)).or(attribute))
        };
        let (starts, ends) = (list(1, "starts")?.unwrap_or_default(), list(2, "ends")?.unwrap_or_default());
        let axes = list(3, "axes")?.unwrap_or_else(|| (0..starts.len() as i64).collect());
        let steps = list(4, "")?.unwrap_or_else(|| vec![1; starts.len()]);
        if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
            return Err(node.refuse("starts, ends, axes and steps of different lengths"));
        }
        let mut kept = Vec::new();
        for (((&start, &end), &axis), &step) in starts.iter().zip(&ends).zip(&axes).zip(&steps) {
            let axis = shapes::axis(node, axis, shape.len())?;
            let taken = self::taken(shape[axis], start, end, step);
            let (start, count) = taken.ok_or_else(|| node.refuse("a slice of nothing, or with a step of 0"))?;
            kept.push(Kept { axis, start, count, step: step as isize });
        }
        self.keep(node, &kept, |shape| shape)
    }

    pub(super) fn gather(&mut self, node: &Node<'graph>) -> Result<()> {
        node.only(&["axis"])?;
        let index = self.constant(node, 1)?.ok_or_else(|| node.refuse("no index"))?;
        let rank = match self.known(node, 0)? {
            Known::Constant(constant) => constant.shape.len(),
            Known::Tensor(tensor) => tensor.shape.len(),
        };
        let axis = shapes::axis(node, node.int("axis", 0), rank)?;
        let Some([given]) = index.as_integers() else {
            return Err(node.refuse(format!("{} indices; they have one", index.count())));
        };
        let length = match self.known(node, 0)? {
            Known::Constant(constant) => constant.shape[axis],
            Known::Tensor(tensor) => tensor.shape[axis],
        };
        let start = shapes::axis(node, *given, length)?;
        let index_shape = index.shape.clone();
        let reshape = |mut shape: Vec<usize>| {
            shape.splice(axis..=axis, index_shape.iter().copied());
            shape
        };
        self.keep(node, &[Kept { axis, start, count: 1, step: 1 }], reshape)
    }

    /// Takes places along axes, one after the other.
    fn keep(
        &mut self,
        node: &Node<'graph>,
        kept: &[Kept],
        reshape: impl FnOnce(Vec<usize>) -> Vec<usize>,
    ) -> Result<()> {
        let known = match self.known(node, 0)?.clone() {
            Known::Constant(constant) => {
                let taken = kept.iter().fold(constant, |constant, kept| {
                    let mut shape = constant.shape.clone();
                    shape[kept.axis] = kept.count;
                    let along = Along::new(&constant.shape, kept.axis);
                    let places: Vec<usize> = kept.of(along).places().collect();
                    constant.along(kept.axis, &places, shape)
                });
                let shape = reshape(taken.shape.clone());
                Known::Constant(taken.reshaped(shape))
            }
            Known::Tensor(Tensor { mut id, mut shape }) => {
                for kept in kept {
                    let slice = kept.of(Along::new(&shape, kept.axis));
                    shape[kept.axis] = kept.count;
                    // All of it in order is no slice.
                    if slice.count != slice.along.length || slice.step != 1 {
                        id = self.step(node, Operation::Slice(slice), &[id], &shape);
                    }
                }
                Known::Tensor(Tensor { id, shape: reshape(shape) })
            }
        };
        self.is(node, known);
        Ok(())
    }

    pub(super) fn pad(&mut self, node: &Node<'graph>) -> Result<()> {
        node.only(&["mode", "pads", "value"])?;
        if let Some(mode) = node.text("mode").filter(|mode| mode != "constant") {
            return Err(node.refuse(format!("the mode `{mode}`; they have `constant`")));
        }
        let Tensor { mut id, mut shape } = self.tensor(node, 0)?;
        let given = self.constant(node, 1)?;
        let pads = given.as_ref().and_then(Constant::as_integers).or(node.ints("pads")).unwrap_or_default().to_vec();
        let value = self.constant(node, 2)?.and_then(|value| value.scalar()).unwrap_or(node.float("value", 0.0));
        let axes = match self.constant(node, 3)?.as_ref().and_then(Constant::as_integers) {
            Some(axes) => axes.iter().map(|&axis| shapes::axis(node, axis, shape.len())).collect::<Result<_>>()?,
            None => (0..shape.len()).collect::<Vec<_>>(),
        };
        if pads.len() != 2 * axes.len() || pads.iter().any(|&pad| pad < 0) {
            return Err(node.refuse(format!("the pads {pads:?}")));
        }
        for (place, &axis) in axes.iter().enumerate() {
            let (before, behind) = (pads[place] as usize, pads[place + axes.len()] as usize);
            if before + behind > 0 {
                let pad = Pad { along: Along::new(&shape, axis), before, behind, value };
                shape[axis] += before + behind;
                id = self.step(node, Operation::Pad(pad), &[id], &shape);
            }
        }
        self.is(node, Known::Tensor(Tensor { id, shape }));
        Ok(())
    }
}

impl Kept {
    fn of(&self, along: Along) -> Slice {
        Slice { along, start: self.start, count: self.count, step: self.step }
    }
}

fn given(node: &Node<'_>) -> Result<Constant> {
    let read = if let Some(tensor) = node.tensor("value") {
        Constant::read(tensor)
    } else if let Some(value) = node.attribute("value_float") {
        Some(Constant::floats(Vec::new(), vec![value.f()]))
    } else if let Some(value) = node.attribute("value_int") {
        Some(Constant::integers(Vec::new(), vec![value.i()]))
    } else if let Some(values) = node.attribute("value_floats") {
        Some(Constant::floats(vec![values.floats.len()], values.floats.clone()))
    } else {
        node.ints("value_ints").map(|values| Constant::integers(vec![values.len()], values.to_vec()))
    };
    read.ok_or_else(|| node.refuse("a constant of a type that they do not have"))
}

/// The first place and how many, of a slice as ONNX clamps it.
fn taken(length: usize, start: i64, end: i64, step: i64) -> Option<(usize, usize)> {
    let length = length as i64;
    let from_end = |place: i64| if place < 0 { place.saturating_add(length) } else { place };
    let (start, end) = if step > 0 {
        (from_end(start).clamp(0, length), from_end(end).clamp(0, length))
    } else {
        (from_end(start).clamp(0, length - 1), from_end(end).clamp(-1, length - 1))
    };
    let count = match step {
        0 => 0,
        1.. => (end - start + step - 1) / step,
        _ => (start - end - step - 1) / -step,
    };
    (count > 0).then_some((usize::try_from(start).ok()?, usize::try_from(count).ok()?))
}

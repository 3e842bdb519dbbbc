//! What ONNX's operators on shapes and axes make of them. All shapes have ONNX's own dimensions here, ones included.

use super::constant::Constant;
use super::node::Node;
use crate::error::{Error, Result};

/// An axis that may count from the end.
pub(super) fn axis(node: &Node<'_>, axis: i64, rank: usize) -> Result<usize> {
    let counted = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(counted)
        .ok()
        .filter(|&axis| axis < rank)
        .ok_or_else(|| node.refuse(format!("axis {axis} of {rank}")))
}

/// A transpose's order; without one, backwards.
pub(super) fn order(node: &Node<'_>, rank: usize) -> Result<Vec<usize>> {
    let Some(given) = node.ints("perm") else { return Ok((0..rank).rev().collect()) };
    let order = given.iter().map(|&given| axis(node, given, rank)).collect::<Result<Vec<_>>>()?;
    let mut sorted = order.clone();
    sorted.sort_unstable();
    let whole = sorted.into_iter().eq(0..rank);
    if whole { Ok(order) } else { Err(node.refuse(format!("the order {given:?} of {rank} dimensions"))) }
}

/// The numbers of a constant as a shape.
pub(super) fn sizes(constant: &Constant) -> Option<Vec<usize>> {
    constant.as_integers()?.iter().map(|&size| usize::try_from(size).ok()).collect()
}

/// The shape that both broadcast to.
pub(super) fn broadcast(one: &[usize], other: &[usize]) -> Option<Vec<usize>> {
    let rank = one.len().max(other.len());
    let size = |shape: &[usize], axis: usize| (axis + shape.len()).checked_sub(rank).map_or(1, |own| shape[own]);
    (0..rank)
        .map(|axis| match (size(one, axis), size(other, axis)) {
            (a, b) if a == b => Some(a),
            (1, size) | (size, 1) => Some(size),
            _ => None,
        })
        .collect()
}

/// What an operator that moves no data makes of a shape; none if the operator moves data.
pub(super) fn renamed(node: &Node<'_>, shape: &[usize], second: Option<&Constant>) -> Result<Option<Vec<usize>>> {
    let axes = || match (node.ints("axes"), second.and_then(Constant::as_integers)) {
        (Some(axes), _) | (None, Some(axes)) => Some(axes.to_vec()),
        (None, None) => None,
    };
    Ok(Some(match node.operator() {
        "Identity" | "Dropout" => shape.to_vec(),
        "Flatten" => {
            let at = node.int("axis", 1);
            let at = if at == shape.len() as i64 { shape.len() } else { axis(node, at, shape.len())? };
            vec![shape[..at].iter().product(), shape[at..].iter().product()]
        }
        "Reshape" => reshaped(node, shape, second)?,
        "Squeeze" => squeezed(node, shape, axes())?,
        "Unsqueeze" => unsqueezed(node, shape, &axes().ok_or_else(|| unknown(node, "its axes"))?)?,
        _ => return Ok(None),
    }))
}

fn unknown(node: &Node<'_>, what: &str) -> Error {
    node.refuse(format!("{what} to be computed by the network"))
}

fn reshaped(node: &Node<'_>, shape: &[usize], target: Option<&Constant>) -> Result<Vec<usize>> {
    let wanted = target.and_then(Constant::as_integers).ok_or_else(|| unknown(node, "its shape"))?;
    let bad = || node.refuse(format!("the shape {wanted:?} for {shape:?}"));
    let keeps_zeros = node.int("allowzero", 0) != 0;
    let fixed = wanted.iter().enumerate().map(|(place, &size)| match size {
        -1 => Some(1),
        0 if !keeps_zeros => shape.get(place).copied(),
        size => usize::try_from(size).ok(),
    });
    let mut result = fixed.collect::<Option<Vec<usize>>>().ok_or_else(bad)?;
    let (count, known) = (shape.iter().product::<usize>(), result.iter().product::<usize>());
    if let Some(open) = wanted.iter().position(|&size| size == -1) {
        result[open] = count.checked_div(known).ok_or_else(bad)?;
    }
    if result.iter().product::<usize>() == count { Ok(result) } else { Err(bad()) }
}

fn squeezed(node: &Node<'_>, shape: &[usize], axes: Option<Vec<i64>>) -> Result<Vec<usize>> {
    let Some(axes) = axes else { return Ok(shape.iter().copied().filter(|&size| size != 1).collect()) };
    let axes = axes.into_iter().map(|given| axis(node, given, shape.len())).collect::<Result<Vec<_>>>()?;
    if let Some(axis) = axes.iter().find(|&&axis| shape[axis] != 1) {
        return Err(node.refuse(format!("axis {axis} of {shape:?}, which is not 1")));
    }
    Ok(shape.iter().enumerate().filter(|(axis, _)| !axes.contains(axis)).map(|(_, &size)| size).collect())
}

fn unsqueezed(node: &Node<'_>, shape: &[usize], axes: &[i64]) -> Result<Vec<usize>> {
    let rank = shape.len() + axes.len();
    let axes = axes.iter().map(|&given| axis(node, given, rank)).collect::<Result<Vec<_>>>()?;
    let mut rest = shape.iter();
    let next = |axis: usize| if axes.contains(&axis) { Some(1) } else { rest.next().copied() };
    (0..rank).map(next).collect::<Option<_>>().ok_or_else(|| node.refuse("an axis that is named twice"))
}

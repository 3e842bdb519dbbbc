//! The element type of every tensor in a graph, as far as it can be told without shape inference.

use std::collections::HashMap;

use super::proto::{AttributeProto, GraphProto, NodeProto, TypeValue, ValueInfoProto};

/// Numbers of `TensorProto.DataType`.
pub(crate) const F32: i32 = 1;
pub(crate) const I8: i32 = 3;
const I64: i32 = 7;
const BOOL: i32 = 9;
pub(crate) const F16: i32 = 10;
pub(crate) const BF16: i32 = 16;
/// FLOAT8E4M3FN.
pub(crate) const FP8: i32 = 17;

/// By tensor; those that nothing tells are missing.
pub(crate) fn of_graph(graph: &GraphProto) -> HashMap<String, i32> {
    let values = graph.input.iter().chain(&graph.value_info).chain(&graph.output);
    let mut types: HashMap<String, i32> =
        values.filter_map(|value| Some((value.name().to_owned(), of_value(value)?))).collect();
    types.extend(graph.initializer.iter().map(|tensor| (tensor.name().to_owned(), tensor.data_type())));
    for node in &graph.node {
        for (place, output) in node.output.iter().enumerate().filter(|(_, output)| !output.is_empty()) {
            if let Some(kind) = of_output(node, place, &types) {
                types.entry(output.clone()).or_insert(kind);
            }
        }
    }
    types
}

fn of_value(value: &ValueInfoProto) -> Option<i32> {
    match value.r#type.as_ref()?.value.as_ref()? {
        TypeValue::Tensor(tensor) => tensor.elem_type,
        _ => None,
    }
}

fn of_output(node: &NodeProto, place: usize, types: &HashMap<String, i32>) -> Option<i32> {
    let input = |place: usize| types.get(node.input.get(place)?).copied();
    if !matches!(node.domain(), "" | "ai.onnx") {
        return None;
    }
    match node.op_type() {
        "Cast" => attribute(node, "to").and_then(|to| i32::try_from(to.i()).ok()),
        "Constant" => of_constant(node),
        "ConstantOfShape" => {
            Some(attribute(node, "value").and_then(|value| value.t.as_deref()).map_or(F32, |tensor| tensor.data_type()))
        }
        "Shape" | "Size" | "NonZero" | "ArgMax" | "ArgMin" => Some(I64),
        "Equal" | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual" | "And" | "Or" | "Xor" | "Not" | "IsNaN"
        | "IsInf" => Some(BOOL),
        "QuantizeLinear" => input(2).or(Some(2)),
        "DequantizeLinear" => input(1),
        "Where" => input(1),
        "MaxPool" | "TopK" if place == 1 => Some(I64),
        "Dropout" if place == 1 => Some(BOOL),
        // Their outputs are those of inner graphs.
        "If" | "Loop" | "Scan" => None,
        "RandomNormal"
        | "RandomUniform"
        | "EyeLike"
        | "Multinomial"
        | "Bernoulli"
        | "QLinearConv"
        | "QLinearMatMul"
        | "MatMulInteger"
        | "ConvInteger"
        | "DynamicQuantizeLinear"
        | "OneHot"
        | "SequenceAt"
        | "CastLike" => None,
        _ => input(0),
    }
}

fn of_constant(node: &NodeProto) -> Option<i32> {
    let [value, ..] = &node.attribute[..] else { return None };
    match value.name() {
        "value" => value.t.as_deref().map(super::proto::TensorProto::data_type),
        "value_float" | "value_floats" => Some(F32),
        "value_int" | "value_ints" => Some(I64),
        _ => None,
    }
}

/// The attribute of this name.
pub(super) fn attribute<'node>(node: &'node NodeProto, name: &str) -> Option<&'node AttributeProto> {
    node.attribute.iter().find(|attribute| attribute.name() == name)
}

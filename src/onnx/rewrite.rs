//! What every rewriting of a model needs: a copy to work on, fresh names, and what became of each node.

use std::collections::HashSet;
use std::path::Path;

use super::proto::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto};
use super::{Model, keep, types, weights};
use crate::builder::Precision;
use crate::error::{Error, ErrorKind, Result};

/// A model whose graph says in which precision it computes.
#[derive(Debug, Clone)]
pub struct Lowered {
    /// The rewritten model. Its [`origin_sha256`](Model::origin_sha256) is the hash of the one it was made from.
    pub model: Model,
    /// What became of each node, in the order of the graph; constants are left out.
    pub nodes: Vec<NodePrecision>,
    /// What the caller should know.
    pub notes: Vec<String>,
}

/// In which precision a node computes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodePrecision {
    /// The node.
    pub name: String,
    /// Its operator.
    pub operator: String,
    /// In which precision it computes.
    pub precision: Precision,
    /// Why it is not the one that was asked for; empty where it is.
    pub why: String,
}

/// `AttributeProto.AttributeType`.
const INT: i32 = 2;

/// A copy of the model to be rewritten: its weights are in it, and constants of f32 are weights.
pub(super) fn copy(model: &Model) -> Result<ModelProto> {
    let mut proto = model.proto().clone();
    let directory = model.path().and_then(Path::parent).unwrap_or(Path::new(""));
    weights::bring_in(&mut proto, directory)?;
    if let Some(graph) = &mut proto.graph {
        constants_become_weights(graph);
    }
    Ok(proto)
}

fn constants_become_weights(graph: &mut GraphProto) {
    let is_output: HashSet<String> = graph.output.iter().map(|output| output.name().to_owned()).collect();
    let mut made = Vec::new();
    graph.node.retain(|node| {
        let tensor = (node.op_type() == "Constant").then(|| types::attribute(node, "value")?.t.as_deref()).flatten();
        match (tensor, &node.output[..]) {
            (Some(tensor), [output]) if tensor.data_type() == types::F32 && !is_output.contains(output) => {
                made.push(TensorProto { name: Some(output.clone()), ..tensor.clone() });
                false
            }
            _ => true,
        }
    });
    graph.initializer.extend(made);
}

/// Names that no tensor and no node of a model has.
pub(super) struct Names(HashSet<String>);

impl Names {
    pub(super) fn of(graph: &GraphProto) -> Self {
        let mut taken = HashSet::new();
        collect(graph, &mut taken);
        Self(taken)
    }

    /// `wanted`, or with a number behind it if there is one already.
    pub(super) fn fresh(&mut self, wanted: &str) -> String {
        let numbered = (2..).map(|number| format!("{wanted}_{number}"));
        let free = std::iter::once(wanted.to_owned()).chain(numbered).find(|name| !self.0.contains(name));
        let name = free.expect("there are more numbers than names");
        self.0.insert(name.clone());
        name
    }
}

fn collect(graph: &GraphProto, into: &mut HashSet<String>) {
    let values = graph.input.iter().chain(&graph.output).chain(&graph.value_info).map(|value| value.name());
    into.extend(values.chain(graph.initializer.iter().map(|tensor| tensor.name())).map(str::to_owned));
    for node in &graph.node {
        into.extend(node.input.iter().chain(&node.output).cloned());
        into.insert(node.name().to_owned());
        inner_graphs(node).for_each(|inner| collect(inner, into));
    }
}

/// The graphs inside a node: the branches of an If, the body of a Loop.
pub(super) fn inner_graphs(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute.iter().flat_map(|attribute| attribute.g.as_deref().into_iter().chain(&attribute.graphs))
}

/// Every tensor that a node reads, those that its inner graphs take from outside among them. (What an inner graph makes
/// itself may be among them, too: nothing outside has its name.)
pub(super) fn reads(node: &NodeProto) -> Vec<String> {
    let mut names = node.input.clone();
    for inner in inner_graphs(node) {
        names.extend(inner.node.iter().flat_map(reads));
        names.extend(inner.output.iter().map(|output| output.name().to_owned()));
    }
    names.retain(|name| !name.is_empty());
    names
}

/// A node of ONNX's own operators.
pub(super) fn node(name: &str, operator: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        name: Some(name.to_owned()),
        op_type: Some(operator.to_owned()),
        input: inputs.iter().map(ToString::to_string).collect(),
        output: vec![output.to_owned()],
        ..NodeProto::default()
    }
}

/// An attribute of one integer.
pub(super) fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { name: Some(name.to_owned()), r#type: Some(INT), i: Some(value), ..AttributeProto::default() }
}

/// Weights that nothing reads any more are taken out, and what was said about tensors that are others now.
pub(super) fn tidy(graph: &mut GraphProto) {
    let mut read: HashSet<String> = graph.node.iter().flat_map(reads).collect();
    read.extend(graph.output.iter().map(|output| output.name().to_owned()));
    let (kept, gone) = std::mem::take(&mut graph.initializer).into_iter().partition(|w| read.contains(w.name()));
    graph.initializer = kept;
    // Before IR version 4 every weight is listed among the inputs, too.
    let gone: HashSet<String> = Vec::into_iter(gone).map(|weight: TensorProto| weight.name().to_owned()).collect();
    graph.input.retain(|input| !gone.contains(input.name()));
    graph.value_info.clear();
}

/// What became of a node.
pub(super) fn became(node: &NodeProto, precision: Precision, why: impl Into<String>) -> NodePrecision {
    NodePrecision { name: keep::name(node), operator: node.op_type().to_owned(), precision, why: why.into() }
}

/// The error of a model that cannot be lowered.
pub(super) fn refused(to: &str, expected: impl Into<String>, got: impl Into<String>, advice: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("lower an ONNX model to {to}"))
        .expected(expected)
        .got(got)
        .advice(advice)
}

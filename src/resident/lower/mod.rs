//! From an ONNX model to a [`Network`]: node by node, constants folded, what cannot be computed refused by name.

mod constant;
mod dense;
mod elementwise;
mod node;
mod normalization;
mod patterns;
mod recurrent;
mod shape;
mod shapes;
mod spatial;

use std::collections::{HashMap, HashSet};

use self::constant::Constant;
use self::node::{Node, refusal};
use self::patterns::{Pattern, Patterns};
use super::fuse;
use super::network::{Network, Operation, Value, ValueId, without_ones};
use crate::error::{Error, ErrorKind, Result};
use crate::onnx::Model;
use crate::onnx::proto::GraphProto;
use crate::tensor::{DataType, Shapes, TensorInfo};

/// The oldest operator set whose broadcasting is that of today, and the newest that was read for differences.
const OPSETS: std::ops::RangeInclusive<i64> = 7..=23;

/// Makes the network that a model is for one call: a dynamic first dimension is 1, other dynamic ones are as `shapes`
/// has them.
///
/// # Errors
/// [`ErrorKind::Unsupported`] if a resident engine cannot compute it: names operator, node and what about it;
/// [`ErrorKind::Shape`] if a shape is missing or does not fit; [`ErrorKind::Onnx`] and [`ErrorKind::Io`] for weights in
/// other files.
pub fn lower(model: &Model, shapes: &Shapes) -> Result<Network> {
    if !OPSETS.contains(&model.opset()) {
        return Err(refusal(
            "lower a model for a resident engine".to_owned(),
            format!("opset {}, not one of {} to {}", model.opset(), OPSETS.start(), OPSETS.end()),
        ));
    }
    let proto = model.with_weights()?;
    let graph = proto.graph.as_ref().expect("`decode` has seen it");
    let mut lowering = Lowering::new(graph, model.opset());
    lowering.constants(graph)?;
    for input in model.inputs() {
        lowering.input(input, shapes)?;
    }
    lowering.nodes(graph)?;
    for output in model.outputs() {
        lowering.output(output)?;
    }
    let network = fuse::fuse(lowering.network);
    network.check().map_err(|what| Error::new(ErrorKind::Onnx, "lower a model for a resident engine").got(what))?;
    Ok(network)
}

struct Lowering<'graph> {
    opset: i64,
    /// By their names in the model.
    known: HashMap<&'graph str, Known>,
    /// What something reads; other outputs of nodes need not be computed.
    used: HashSet<&'graph str>,
    network: Network,
}

#[derive(Debug, Clone)]
enum Known {
    Constant(Constant),
    Tensor(Tensor),
}

/// A value of the network with its shape in ONNX, dimensions of one included.
#[derive(Debug, Clone)]
struct Tensor {
    id: ValueId,
    shape: Vec<usize>,
}

impl Tensor {
    fn count(&self) -> usize {
        self.shape.iter().product()
    }
}

impl<'graph> Lowering<'graph> {
    fn new(graph: &'graph GraphProto, opset: i64) -> Self {
        let read = graph.node.iter().flat_map(|node| &node.input).map(String::as_str);
        let used = read.chain(graph.output.iter().map(|output| output.name())).collect();
        Self { opset, known: HashMap::new(), used, network: Network::default() }
    }

    fn constants(&mut self, graph: &'graph GraphProto) -> Result<()> {
        for tensor in &graph.initializer {
            // One that cannot be read is missing only where a node reads it.
            if let Some(constant) = Constant::read(tensor) {
                self.known.insert(tensor.name(), Known::Constant(constant));
            }
        }
        Ok(())
    }

    fn input(&mut self, input: &TensorInfo, shapes: &Shapes) -> Result<()> {
        let operation = || format!("lower the input `{}` for a resident engine", input.name);
        if input.data_type != DataType::F32 {
            return Err(refusal(operation(), format!("elements of {}", input.data_type)));
        }
        let shape = self::input_shape(input, shapes, operation)?;
        let id = self.network.add_value(&input.name, without_ones(&shape));
        self.network.inputs.push(id);
        self.network.input_shapes.push(shape.clone());
        let name = self.used.iter().copied().find(|&used| used == input.name);
        // An input that nothing reads is still one that the call gives.
        if let Some(name) = name {
            self.known.insert(name, Known::Tensor(Tensor { id, shape }));
        }
        Ok(())
    }

    fn output(&mut self, output: &TensorInfo) -> Result<()> {
        let operation = || format!("lower the output `{}` for a resident engine", output.name);
        match self.known.get(output.name.as_str()) {
            Some(Known::Tensor(tensor)) if output.data_type == DataType::F32 => {
                self.network.outputs.push(tensor.id);
                self.network.output_shapes.push(tensor.shape.clone());
                Ok(())
            }
            Some(Known::Tensor(_)) => Err(refusal(operation(), format!("elements of {}", output.data_type))),
            Some(Known::Constant(_)) => Err(refusal(operation(), "an output that is the same for every call")),
            None => Err(refusal(operation(), "an output that no node writes")),
        }
    }

    fn nodes(&mut self, graph: &'graph GraphProto) -> Result<()> {
        let patterns = Patterns::find(graph);
        for (place, node) in graph.node.iter().enumerate() {
            let node = Node::new(node);
            match patterns.at(place) {
                Some(Pattern::Within) => {}
                Some(Pattern::Ends(pattern)) => self.pattern(pattern, &node)?,
                None => self.node(&node)?,
            }
        }
        Ok(())
    }

    fn node(&mut self, node: &Node<'graph>) -> Result<()> {
        if !matches!(node.domain(), "" | "ai.onnx") {
            return Err(node.refuse(format!("an operator of `{}`", node.domain())));
        }
        if self.constant_node(node)? || self.rename(node)? {
            return Ok(());
        }
        match node.operator() {
            "Gemm" => self.gemm(node),
            "MatMul" => self.matmul(node),
            "Conv" => self.conv(node),
            "MaxPool" | "AveragePool" => self.pool(node),
            "GlobalAveragePool" | "GlobalMaxPool" => self.global_pool(node),
            "Relu" | "Tanh" | "Sigmoid" | "Gelu" | "LeakyRelu" | "Elu" => self.activation(node),
            "Add" | "Sub" | "Mul" | "Div" => self.elementwise(node),
            "Softmax" => self.softmax(node),
            "LayerNormalization" => self.layer_norm(node),
            "BatchNormalization" => self.batch_norm(node),
            "Concat" => self.concat(node),
            "Transpose" => self.transpose(node),
            "Slice" => self.slice(node),
            "Gather" => self.gather(node),
            "Pad" => self.pad(node),
            "LSTM" | "GRU" => self.recurrent(node),
            _ => Err(node.refuse("an operator that they do not have")),
        }
    }

    // What the operators' own files share.

    /// What an input of a node is.
    fn known(&self, node: &Node<'_>, place: usize) -> Result<&Known> {
        let name = node.input(place).ok_or_else(|| node.refuse(format!("no input {place}")))?;
        let what = || node.refuse(format!("`{name}`, which is of a type that they do not have"));
        self.known.get(name).ok_or_else(what)
    }

    /// An input that the network computes or a call gives.
    fn tensor(&self, node: &Node<'_>, place: usize) -> Result<Tensor> {
        match self.known(node, place)? {
            Known::Tensor(tensor) => Ok(tensor.clone()),
            Known::Constant(_) => Err(node.refuse(format!("a constant as input {place}"))),
        }
    }

    /// An input that is known before the first call, if it is given.
    fn constant(&self, node: &Node<'_>, place: usize) -> Result<Option<Constant>> {
        if node.input(place).is_none() {
            return Ok(None);
        }
        match self.known(node, place)? {
            Known::Constant(constant) => Ok(Some(constant.clone())),
            Known::Tensor(_) => Err(node.refuse(format!("an input {place} that the network computes"))),
        }
    }

    /// Weights: floats of this shape.
    fn weights(&self, node: &Node<'_>, place: usize) -> Result<Option<Constant>> {
        let constant = self.constant(node, place)?;
        match constant {
            Some(constant) if constant.as_floats().is_none() => {
                Err(node.refuse(format!("an input {place} of integers")))
            }
            constant => Ok(constant),
        }
    }

    /// A stage that becomes the node's first output.
    fn stage(&mut self, node: &Node<'graph>, operation: Operation, reads: &[ValueId], shape: Vec<usize>) {
        let name = node.output(0).unwrap_or_default();
        let id = self.step(node, operation, reads, &shape);
        self.known.insert(name, Known::Tensor(Tensor { id, shape }));
    }

    /// A stage whose value the next one reads.
    fn step(&mut self, node: &Node<'graph>, operation: Operation, reads: &[ValueId], shape: &[usize]) -> ValueId {
        let value = Value { name: node.output(0).unwrap_or_default().to_owned(), shape: without_ones(shape) };
        self.network.add_stage(operation, reads, value, &[node.name()])
    }

    /// The node's first output is something that is there.
    fn is(&mut self, node: &Node<'graph>, known: Known) {
        if let Some(name) = node.output(0) {
            self.known.insert(name, known);
        }
    }

    fn is_used(&self, name: &str) -> bool {
        self.used.contains(name)
    }
}

/// The input's shape for one call.
fn input_shape(input: &TensorInfo, shapes: &Shapes, operation: impl Fn() -> String) -> Result<Vec<usize>> {
    let given = shapes.get(&input.name);
    if given.is_some_and(|given| given.len() != input.shape.len()) {
        return Err(Error::new(ErrorKind::Shape, operation())
            .expected(format!("{} dimensions", input.shape.len()))
            .got(format!("{given:?}")));
    }
    let size = |(axis, &own): (usize, &i64)| {
        let wanted = given.map(|given| given[axis]);
        match (own, wanted) {
            (-1, Some(wanted)) => usize::try_from(wanted).ok().filter(|&wanted| wanted > 0),
            (-1, None) if axis == 0 => Some(1),
            (own, wanted) if wanted.is_none_or(|wanted| wanted == own) => {
                usize::try_from(own).ok().filter(|&own| own > 0)
            }
            _ => None,
        }
    };
    input.shape.iter().enumerate().map(size).collect::<Option<_>>().ok_or_else(|| {
        Error::new(ErrorKind::Shape, operation())
            .expected("a size for every dimension, as the model has it")
            .got(format!("{:?} for {:?}", given.map_or(&[][..], |given| &given[..]), input.shape))
            .advice("give the session the shape")
    })
}

//! FP16 and BF16 in the graph: casts around what computes in 16 bits, and its weights in 16 bits.
//!
//! Inputs and outputs of the model keep their types, so that a caller sees no difference.

use std::collections::{HashMap, HashSet};

use super::keep::Keep;
use super::proto::{GraphProto, ModelProto, NodeProto};
use super::rewrite::{self, Lowered, Names, NodePrecision};
use super::{Model, keep, types, weights};
use crate::builder::Precision;
use crate::error::Result;

/// What computes in 16 bits. The rest stays in FP32, such as what adds up or raises to a power (Softmax, ReduceSum, Pow,
/// LayerNormalization), whose values leave FP16's range, and what this list does not know.
const LOWERED: &[&str] = &[
    "Abs",
    "Add",
    "AveragePool",
    "BatchNormalization",
    "Clip",
    "Concat",
    "Conv",
    "ConvTranspose",
    "Div",
    "Dropout",
    "Elu",
    "Expand",
    "Flatten",
    "GRU",
    "Gather",
    "Gelu",
    "Gemm",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "LSTM",
    "LeakyRelu",
    "MatMul",
    "Max",
    "MaxPool",
    "Min",
    "Mul",
    "Neg",
    "PRelu",
    "Pad",
    "RNN",
    "Relu",
    "Reshape",
    "Selu",
    "Sigmoid",
    "Slice",
    "Softplus",
    "Softsign",
    "Split",
    "Squeeze",
    "Sub",
    "Sum",
    "Tanh",
    "Tile",
    "Transpose",
    "Unsqueeze",
    "Where",
];
/// Q/DQ nodes take and give FP16 from this opset on.
const OPSET_OF_HALF_QUANTIZATION: i64 = 19;
/// Convolutions and the like may be in BF16 from this opset on.
const OPSET_OF_BF16: i64 = 22;
/// Before it operators such as Softmax meant something else.
const OPSET_OF_CHANNELS: i64 = 13;
/// The smallest normal f16: a smaller scale would lose digits.
const SMALLEST_SCALE: f32 = 6.103_515_6e-5;

impl Model {
    /// The model in FP16, or in BF16 (which ONNX Runtime cannot run on a CPU), but for what `keep` names and for operators that are better kept in FP32.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) for a model that computes in 16 bits already, and for
    /// one whose operators are all kept.
    ///
    /// # Panics
    /// If `precision` is neither [`Precision::Fp16`] nor [`Precision::Bf16`].
    pub fn to_half(&self, precision: Precision, keep: &Keep) -> Result<Lowered> {
        let to = match precision {
            Precision::Fp16 => types::F16,
            Precision::Bf16 => types::BF16,
            other => panic!("to_half makes fp16 or bf16, not {other}"),
        };
        if let Some(tensor) = self.half_tensor() {
            return Err(rewrite::refused(
                &precision.to_string(),
                "a model in FP32",
                format!("one that computes in 16 bits already (`{tensor}`)"),
                "leave the flag out: the model's own types are kept where networks are typed; or export it in FP32",
            ));
        }
        let mut proto = rewrite::copy(self)?;
        // TensorRT takes it at older opsets, too; ONNX's checker does not.
        if precision == Precision::Bf16 && self.opset() >= OPSET_OF_CHANNELS {
            raise_opset(&mut proto, OPSET_OF_BF16);
        }
        let opset = opset_of(&proto);
        let graph = proto.graph.as_mut().expect("Model::decode has seen it");
        let mut lowering = Lowering::new(graph, precision, to, opset, keep);
        lowering.run(graph);
        let Lowering { became, notes, .. } = lowering;
        if !became.iter().any(|node| node.precision == precision) {
            return Err(rewrite::refused(
                &precision.to_string(),
                "a node that may compute in 16 bits",
                "none: every one is kept in FP32",
                "keep fewer nodes, or leave the flag out",
            ));
        }
        Ok(Lowered { model: self.rewritten(proto)?, nodes: became, notes })
    }

    /// A tensor of 16-bit floats, if there is one.
    pub(crate) fn half_tensor(&self) -> Option<String> {
        let types = types::of_graph(self.graph());
        let mut found: Vec<String> = types
            .into_iter()
            .filter(|(_, kind)| matches!(*kind, types::F16 | types::BF16))
            .map(|(name, _)| name)
            .collect();
        found.sort();
        found.into_iter().next()
    }
}

struct Lowering<'a> {
    precision: Precision,
    /// The number of its element type.
    to: i32,
    opset: i64,
    keep: &'a Keep,
    types: HashMap<String, i32>,
    names: Names,
    /// FP32 tensors that there is a 16-bit version of, and its name.
    halves: HashMap<String, String>,
    /// Tensors that there is only a 16-bit version of, so far.
    only_half: HashSet<String>,
    nodes: Vec<NodeProto>,
    became: Vec<NodePrecision>,
    notes: Vec<String>,
}

impl<'a> Lowering<'a> {
    fn new(graph: &GraphProto, precision: Precision, to: i32, opset: i64, keep: &'a Keep) -> Self {
        Self {
            precision,
            to,
            opset,
            keep,
            types: types::of_graph(graph),
            names: Names::of(graph),
            halves: HashMap::new(),
            only_half: HashSet::new(),
            nodes: Vec::new(),
            became: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// The nodes come in an order in which each is after those that it reads from: so do the casts.
    fn run(&mut self, graph: &mut GraphProto) {
        for node in std::mem::take(&mut graph.node) {
            match self.why_kept(&node, graph) {
                None => self.lower(node, graph),
                Some(why) => self.leave(node, why),
            }
        }
        for output in &graph.output {
            self.widen(output.name());
        }
        graph.node = std::mem::take(&mut self.nodes);
        rewrite::tidy(graph);
    }

    /// Why the node stays as it is; none if it does not.
    fn why_kept(&mut self, node: &NodeProto, graph: &GraphProto) -> Option<String> {
        let floats = node.input.iter().filter(|name| self.is_f32(name)).count();
        let quantization = matches!(node.op_type(), "QuantizeLinear" | "DequantizeLinear");
        let lowers = LOWERED.contains(&node.op_type()) || quantization && self.opset >= OPSET_OF_HALF_QUANTIZATION;
        if floats == 0 || !matches!(node.domain(), "" | "ai.onnx") {
            return Some(String::new());
        }
        if self.keep.has(node) {
            return Some("as asked".to_owned());
        }
        if !lowers {
            return Some(format!("{} is better kept", node.op_type()));
        }
        for name in &node.input {
            let Some(weight) = graph.initializer.iter().find(|weight| weight.name() == name) else { continue };
            if !self.is_f32(name) {
                continue;
            }
            if weights::halved(weight, "", self.to).is_none() {
                let why = format!("the weight `{name}` leaves the range of {}", self.precision);
                self.notes.push(format!("node `{}` stays in FP32: {why}", keep::name(node)));
                return Some(why);
            }
            let small = |scale: &f32| *scale < SMALLEST_SCALE;
            if quantization && Some(name) == node.input.get(1) && weights::floats(weight).iter().any(small) {
                return Some(format!("the scale `{name}` is too small for {}", self.precision));
            }
        }
        None
    }

    fn lower(&mut self, mut node: NodeProto, graph: &mut GraphProto) {
        self.became.push(rewrite::became(&node, self.precision, ""));
        for input in &mut node.input {
            if self.is_f32(input) {
                *input = self.half(input, graph);
            }
        }
        for output in &mut node.output {
            if self.is_f32(output) {
                let half = self.names.fresh(&format!("{output}_{}", self.precision));
                self.halves.insert(output.clone(), half.clone());
                self.only_half.insert(std::mem::replace(output, half));
            }
        }
        self.nodes.push(node);
    }

    fn leave(&mut self, node: NodeProto, why: String) {
        if node.op_type() != "Constant" {
            self.became.push(rewrite::became(&node, Precision::Fp32, why));
        }
        for name in rewrite::reads(&node) {
            self.widen(&name);
        }
        self.nodes.push(node);
    }

    fn is_f32(&self, name: &str) -> bool {
        self.types.get(name) == Some(&types::F32)
    }

    /// The name of the tensor's 16-bit version, which is made if there is none.
    fn half(&mut self, name: &str, graph: &mut GraphProto) -> String {
        if let Some(half) = self.halves.get(name) {
            return half.clone();
        }
        let half = self.names.fresh(&format!("{name}_{}", self.precision));
        let weight = graph.initializer.iter().find(|weight| weight.name() == name);
        match weight.and_then(|weight| weights::halved(weight, &half, self.to)) {
            Some(weight) => graph.initializer.push(weight),
            None => self.cast(name, &half, self.to),
        }
        self.halves.insert(name.to_owned(), half.clone());
        half
    }

    /// Sees to it that the tensor is there in FP32.
    fn widen(&mut self, name: &str) {
        if self.only_half.remove(name) {
            let half = self.halves[name].clone();
            self.cast(&half, name, types::F32);
        }
    }

    fn cast(&mut self, from: &str, into: &str, to: i32) {
        let name = self.names.fresh(&format!("cast_{into}"));
        let mut cast = rewrite::node(&name, "Cast", &[from], into);
        cast.attribute.push(rewrite::int("to", to.into()));
        self.nodes.push(cast);
    }
}

/// Operators that mean the same from opset 13 to 22, so that the model's opset may be raised in between.
const UNCHANGED: &[&str] = &[
    "Abs",
    "Add",
    "BatchNormalization",
    "Cast",
    "Clip",
    "Concat",
    "Constant",
    "Conv",
    "ConvTranspose",
    "DequantizeLinear",
    "Div",
    "Dropout",
    "Elu",
    "Erf",
    "Exp",
    "Expand",
    "Flatten",
    "GRU",
    "Gather",
    "Gemm",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "LSTM",
    "LeakyRelu",
    "Log",
    "LogSoftmax",
    "MatMul",
    "Max",
    "MaxPool",
    "Min",
    "Mul",
    "Neg",
    "PRelu",
    "Pow",
    "QuantizeLinear",
    "RNN",
    "Reciprocal",
    "Relu",
    "Reshape",
    "Selu",
    "Shape",
    "Sigmoid",
    "Slice",
    "Softmax",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Sum",
    "Tanh",
    "Tile",
    "Transpose",
    "Unsqueeze",
    "Where",
];

/// Raises the opset to one in which nodes may have a type that they may not have now, if every operator of the model means
/// the same there.
fn raise_opset(proto: &mut ModelProto, to: i64) -> bool {
    let Some(graph) = &proto.graph else { return false };
    let plain = |node: &NodeProto| {
        matches!(node.domain(), "" | "ai.onnx")
            && UNCHANGED.contains(&node.op_type())
            && node.attribute.iter().all(|a| a.g.is_none())
    };
    if !graph.node.iter().all(plain) || !proto.functions.is_empty() {
        return false;
    }
    for opset in proto.opset_import.iter_mut().filter(|opset| matches!(opset.domain(), "" | "ai.onnx")) {
        opset.version = Some(opset.version().max(to));
    }
    // The IR versions that came with them.
    proto.ir_version = Some(proto.ir_version().max(if to > OPSET_OF_HALF_QUANTIZATION { 10 } else { 9 }));
    true
}

/// Lets Q/DQ nodes be in FP16, if that can be.
pub(super) fn allow_half_quantization(proto: &mut ModelProto) -> bool {
    opset_of(proto) >= OPSET_OF_CHANNELS && raise_opset(proto, OPSET_OF_HALF_QUANTIZATION)
}

fn opset_of(proto: &ModelProto) -> i64 {
    let default = proto.opset_import.iter().find(|opset| matches!(opset.domain(), "" | "ai.onnx"));
    default.map_or(0, super::proto::OperatorSetIdProto::version)
}

//! INT8 and FP8 in the graph: QuantizeLinear and DequantizeLinear around what computes in them.
//!
//! As TensorRT demands: symmetric, zero points of 0, a scale for each output channel of a weight and one for each other
//! tensor, biases left in FP32. Weights stay in FP32 before their own pair of nodes, because TensorRT 8 takes no weight in
//! INT8; TensorRT folds the pair.

use std::collections::{BTreeMap, HashMap};

use super::half::allow_half_quantization;
use super::keep::Keep;
use super::proto::{GraphProto, ModelProto, NodeProto, TensorProto};
use super::rewrite::{self, Lowered, Names, NodePrecision};
use super::{Model, types, weights};
use crate::builder::Precision;
use crate::error::{Error, ErrorKind, Result};

/// QuantizeLinear has an axis from this opset on.
const OPSET_OF_CHANNELS: i64 = 13;
/// Whole numbers of an INT8 on each side of zero.
const STEPS: f32 = 127.0;

/// What values are quantised to.
#[derive(Clone, Copy)]
struct Format {
    precision: Precision,
    /// The number of its element type.
    element: i32,
    /// The largest value: the scale is this part of the range.
    largest: f32,
}

const INT8: Format = Format { precision: Precision::Int8, element: types::I8, largest: STEPS };
/// E4M3 without infinities.
const FP8: Format = Format { precision: Precision::Fp8, element: types::FP8, largest: 448.0 };

impl Model {
    /// The model with Q/DQ nodes around its convolutions and matrix products by weights, but for what `keep` names.
    /// `scales` has the scale of each of their inputs: a hundred and twenty-seventh of its range, as calibration found it.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for a model that is quantised already, for one of an opset before 13, and for one in
    /// which nothing can be quantised; [`ErrorKind::InvalidArgument`] if a scale is missing.
    pub fn quantize(&self, scales: &BTreeMap<String, f32>, keep: &Keep) -> Result<Lowered> {
        self.check_quantizable()?;
        self.quantize_as(INT8, rewrite::copy(self)?, scales, keep)
    }

    /// As [`quantize`](Self::quantize), to FP8 (E4M3). `scales` are the same, of INT8. ONNX Runtime 1.31 runs such a model on a
    /// CPU only with its optimisations off: it takes the nodes for INT8's.
    ///
    /// # Errors
    /// Those of [`quantize`](Self::quantize), and [`ErrorKind::Unsupported`] for a model of an opset before 19 that cannot
    /// be raised to it.
    pub fn quantize_to_fp8(&self, scales: &BTreeMap<String, f32>, keep: &Keep) -> Result<Lowered> {
        self.check_quantizable()?;
        let mut proto = rewrite::copy(self)?;
        if !allow_half_quantization(&mut proto) {
            return Err(rewrite::refused(
                "fp8",
                "opset 19 or newer, or operators that mean the same there",
                format!("opset {}", self.opset()),
                "export the model again with opset_version=19",
            ));
        }
        self.quantize_as(FP8, proto, scales, keep)
    }

    fn quantize_as(
        &self,
        format: Format,
        mut proto: ModelProto,
        scales: &BTreeMap<String, f32>,
        keep: &Keep,
    ) -> Result<Lowered> {
        let graph = proto.graph.as_mut().expect("Model::decode has seen it");
        let mut quantizing = Quantizing {
            format,
            scales,
            keep,
            types: types::of_graph(graph),
            names: Names::of(graph),
            pairs: HashMap::new(),
            nodes: Vec::new(),
            became: Vec::new(),
            notes: Vec::new(),
        };
        quantizing.run(graph)?;
        let Quantizing { became, notes, .. } = quantizing;
        if !became.iter().any(|node| node.precision == format.precision) {
            return Err(rewrite::refused(
                &format.precision.to_string(),
                "a convolution or a matrix product by a weight",
                "none that is not kept in FP32",
                "keep fewer nodes, calibrate with data that the network reacts to, or leave the flag out",
            ));
        }
        Ok(Lowered { model: self.rewritten(proto)?, nodes: became, notes })
    }

    /// As [`quantize`](Self::quantize), and what is not INT8 in FP16.
    ///
    /// # Errors
    /// Those of [`quantize`](Self::quantize) and [`to_half`](Self::to_half).
    pub fn quantize_to_half(&self, scales: &BTreeMap<String, f32>, keep: &Keep) -> Result<Lowered> {
        if let Some(tensor) = self.half_tensor() {
            return Err(rewrite::refused("int8", "a model in FP32", format!("one with `{tensor}` in 16 bits"), EXPORT));
        }
        let Lowered { model, nodes: quantized, mut notes } = self.quantize(scales, keep)?;
        let mut proto = model.proto().clone();
        let mut keep = keep.clone();
        let model = if allow_half_quantization(&mut proto) {
            model.rewritten(proto)?
        } else {
            notes.push(
                "what is INT8 has FP32 on both sides: Q/DQ nodes in FP16 need opset 19, and an operator of this model \
                 means something else there"
                    .to_owned(),
            );
            quantized.iter().filter(|node| node.precision == Precision::Int8).for_each(|node| keep.add(&node.name));
            model
        };
        let half = model.to_half(Precision::Fp16, &keep)?;
        notes.extend(half.notes);
        let precisions: HashMap<&str, &NodePrecision> =
            half.nodes.iter().map(|node| (node.name.as_str(), node)).collect();
        let nodes = quantized.into_iter().map(|node| match precisions.get(node.name.as_str()) {
            Some(half) if node.precision != Precision::Int8 => (*half).clone(),
            _ => node,
        });
        Ok(Lowered { nodes: nodes.collect(), model: half.model, notes })
    }

    /// The inputs of nodes that can be quantised, of which calibration has to tell the range.
    pub(crate) fn check_quantizable(&self) -> Result<()> {
        if let Some(node) = self.graph().node.iter().find(|node| is_quantization(node)) {
            return Err(rewrite::refused(
                "int8",
                "a model in floating point",
                format!("one that is quantised already (`{}`, {})", super::keep::name(node), node.op_type()),
                "leave calibration out: its own Q/DQ nodes say what is INT8; or export it unquantised",
            ));
        }
        if self.opset() < OPSET_OF_CHANNELS {
            return Err(rewrite::refused(
                "int8",
                format!("opset {OPSET_OF_CHANNELS} or newer, for Q/DQ nodes with a scale for each channel"),
                format!("opset {}", self.opset()),
                "export the model again with opset_version=17, or convert it with onnx.version_converter; with TensorRT \
                 8 and 10, --int8-mode=native does without",
            ));
        }
        Ok(())
    }

    /// Whether a node of it quantises.
    #[must_use]
    pub fn is_quantized(&self) -> bool {
        self.graph().node.iter().any(is_quantization)
    }
}

const EXPORT: &str = "export the model in FP32";

fn is_quantization(node: &NodeProto) -> bool {
    let operator = node.op_type();
    matches!(operator, "QuantizeLinear" | "DequantizeLinear" | "DynamicQuantizeLinear")
        || operator.starts_with("QLinear")
        || operator.ends_with("Integer")
}

struct Quantizing<'a> {
    format: Format,
    scales: &'a BTreeMap<String, f32>,
    keep: &'a Keep,
    types: HashMap<String, i32>,
    names: Names,
    /// What stands in for a tensor: the output of its pair of nodes. A weight may have one for each axis.
    pairs: HashMap<(String, Option<i64>), String>,
    nodes: Vec<NodeProto>,
    became: Vec<NodePrecision>,
    notes: Vec<String>,
}

impl Quantizing<'_> {
    fn run(&mut self, graph: &mut GraphProto) -> Result<()> {
        for mut node in std::mem::take(&mut graph.node) {
            match self.plan(&node, graph)? {
                Plan::Quantize { axis, scale } => {
                    self.became.push(rewrite::became(&node, self.format.precision, ""));
                    node.input[0] = self.activation(&node.input[0], scale, graph);
                    node.input[1] = self.weight(&node.input[1], axis, graph);
                }
                Plan::Leave(why) if node.op_type() != "Constant" => {
                    self.became.push(rewrite::became(&node, Precision::Fp32, why));
                }
                Plan::Leave(_) => {}
            }
            self.nodes.push(node);
        }
        graph.node = std::mem::take(&mut self.nodes);
        rewrite::tidy(graph);
        Ok(())
    }

    fn plan(&mut self, node: &NodeProto, graph: &GraphProto) -> Result<Plan> {
        let leave = |why: &str| Ok(Plan::Leave(why.to_owned()));
        let Some(axis) = channel_axis(node) else { return leave("") };
        let (activation, weight) = (&node.input[0], &node.input[1]);
        let is_weight = |name: &str| graph.initializer.iter().find(|weight| weight.name() == name);
        let Some(weight) = is_weight(weight) else { return leave("its weight is computed") };
        if self.types.get(activation) != Some(&types::F32) || weight.data_type() != types::F32 {
            return leave("it is not in FP32");
        }
        if is_weight(activation).is_some() {
            return leave("its input is constant");
        }
        if node.op_type() == "MatMul" && weight.dims.len() != 2 {
            return leave("its weight is no matrix");
        }
        if self.keep.has(node) {
            return leave("as asked");
        }
        if weights::floats(weight).iter().any(|value| !value.is_finite()) {
            return leave("its weight has NaN or infinity");
        }
        let scale = self.scales.get(activation).copied().ok_or_else(|| {
            Error::new(ErrorKind::InvalidArgument, format!("quantise node `{}`", super::keep::name(node)))
                .expected(format!("a scale for its input `{activation}`"))
                .got(format!("none among {}", self.scales.len()))
                .advice("calibrate this very model")
        })?;
        if scale.is_normal() && scale > 0.0 {
            // Given as INT8's.
            return Ok(Plan::Quantize { axis, scale: scale * STEPS / self.format.largest });
        }
        let why = format!("its input `{activation}` was zero in every sample of the calibration");
        self.notes.push(format!("node `{}` stays in FP32: {why}", super::keep::name(node)));
        Ok(Plan::Leave(why))
    }

    fn activation(&mut self, tensor: &str, scale: f32, graph: &mut GraphProto) -> String {
        if let Some(pair) = self.pairs.get(&(tensor.to_owned(), None)) {
            return pair.clone();
        }
        self.pair(tensor, None, &[], &[scale], graph)
    }

    fn weight(&mut self, name: &str, axis: i64, graph: &mut GraphProto) -> String {
        if let Some(pair) = self.pairs.get(&(name.to_owned(), Some(axis))) {
            return pair.clone();
        }
        let weight = graph.initializer.iter().find(|weight| weight.name() == name).expect("`plan` has seen it");
        let (scales, zero) = channel_scales(weight, axis, self.format.largest);
        if zero > 0 {
            let channels = scales.len();
            self.notes.push(format!(
                "{zero} of {channels} channels of the weight `{name}` are zero: their scale is 1, which keeps them zero"
            ));
        }
        self.pair(name, Some(axis), &[scales.len() as i64], &scales, graph)
    }

    /// QuantizeLinear and DequantizeLinear behind each other; the name of what comes out.
    fn pair(
        &mut self,
        tensor: &str,
        axis: Option<i64>,
        dims: &[i64],
        scales: &[f32],
        graph: &mut GraphProto,
    ) -> String {
        let [scale, zero, quantized, dequantized, first, second] =
            ["scale", "zero_point", &self.format.precision.to_string(), "dequantized", "quantize", "dequantize"]
                .map(|what| self.names.fresh(&format!("{tensor}_{what}")));
        graph.initializer.push(weights::of_floats(&scale, dims, scales));
        graph.initializer.push(weights::of_zeros(&zero, dims, self.format.element));
        let mut quantize = rewrite::node(&first, "QuantizeLinear", &[tensor, &scale, &zero], &quantized);
        let mut dequantize = rewrite::node(&second, "DequantizeLinear", &[&quantized, &scale, &zero], &dequantized);
        for node in [&mut quantize, &mut dequantize] {
            node.attribute.extend(axis.map(|axis| rewrite::int("axis", axis)));
        }
        self.nodes.extend([quantize, dequantize]);
        self.pairs.insert((tensor.to_owned(), axis), dequantized.clone());
        dequantized
    }
}

enum Plan {
    Quantize { axis: i64, scale: f32 },
    Leave(String),
}

/// The weight's axis of output channels; none for an operator that is not quantised.
fn channel_axis(node: &NodeProto) -> Option<i64> {
    let transposed = || types::attribute(node, "transB").is_some_and(|attribute| attribute.i() != 0);
    if node.input.len() < 2 || !matches!(node.domain(), "" | "ai.onnx") {
        return None;
    }
    match node.op_type() {
        "Conv" => Some(0),
        // One scale for each output channel of each group is not what the axis says: groups are left alone.
        "ConvTranspose" if types::attribute(node, "group").is_none_or(|group| group.i() == 1) => Some(1),
        "Gemm" => Some(i64::from(!transposed())),
        "MatMul" => Some(1),
        _ => None,
    }
}

/// A scale for each channel, and how many channels are zero.
fn channel_scales(weight: &TensorProto, axis: i64, largest: f32) -> (Vec<f32>, usize) {
    let size = |dims: &[i64]| dims.iter().map(|&size| usize::try_from(size).unwrap_or(0)).product::<usize>();
    let axis = usize::try_from(axis).unwrap_or(0);
    let (channels, inner) = (size(&weight.dims[axis..=axis]), size(&weight.dims[axis + 1..]));
    let mut ranges = vec![0.0_f32; channels];
    for (place, value) in weights::floats(weight).iter().enumerate() {
        let range = &mut ranges[place / inner % channels];
        *range = range.max(value.abs());
    }
    // A range so small that its scale is no normal number is as good as zero.
    let zero = |range: &f32| !(range / largest).is_normal();
    let count = ranges.iter().filter(|range| zero(range)).count();
    (ranges.iter().map(|range| if zero(range) { 1.0 } else { range / largest }).collect(), count)
}

#[cfg(test)]
mod tests {
    use super::*;
    fn toy() -> Model {
        Model::read(crate::test_support::root().join("models/toy_cnn.onnx")).unwrap()
    }

    fn changed(change: impl FnOnce(&mut ModelProto)) -> Model {
        let toy = toy();
        let mut proto = toy.proto().clone();
        change(&mut proto);
        toy.rewritten(proto).unwrap()
    }

    fn scales(value: f32) -> BTreeMap<String, f32> {
        let toy = toy();
        let tensors = toy.graph().node.iter().flat_map(|node| node.input.iter().cloned());
        tensors.map(|tensor| (tensor, value)).collect()
    }

    fn weight<'a>(model: &'a Model, name: &str) -> &'a TensorProto {
        model.graph().initializer.iter().find(|weight| weight.name() == name).unwrap()
    }

    #[test]
    fn weights_have_a_scale_for_each_channel_and_biases_stay() {
        let lowered = toy().quantize(&scales(0.05), &Keep::nothing()).unwrap();
        assert_eq!(lowered.nodes.iter().filter(|node| node.precision == Precision::Int8).count(), 4);
        // Two pairs for each of two Conv and two Gemm.
        assert_eq!(lowered.model.operators()["QuantizeLinear"], 8);
        let original = toy();
        let values = weights::floats(weight(&original, "0.weight"));
        let scales = weights::floats(weight(&lowered.model, "0.weight_scale"));
        for (channel, scale) in values.chunks_exact(8 * 3).zip(&scales) {
            assert_eq!(channel.iter().fold(0.0_f32, |range, value| range.max(value.abs())) / 127.0, *scale);
        }
        assert_eq!(weights::floats(weight(&lowered.model, "/1/Relu_output_0_scale")), [0.05]);
        assert_eq!(weight(&lowered.model, "0.bias"), weight(&original, "0.bias"));
        assert!(weight(&lowered.model, "0.weight_zero_point").raw_data().iter().all(|&byte| byte == 0));
    }

    #[test]
    fn fp8_has_its_own_scales_zero_points_and_opset() {
        let lowered = toy().quantize_to_fp8(&scales(0.05), &Keep::nothing()).unwrap();
        assert_eq!(lowered.nodes.iter().filter(|node| node.precision == Precision::Fp8).count(), 4);
        assert_eq!(lowered.model.opset(), 19);
        assert_eq!(weight(&lowered.model, "input_zero_point").data_type(), types::FP8);
        assert_eq!(weights::floats(weight(&lowered.model, "input_scale")), [0.05 * 127.0 / 448.0]);
    }

    #[test]
    fn channel_of_zeros_has_scale_1_and_is_told() {
        let model = changed(|proto| {
            let graph = proto.graph.as_mut().unwrap();
            let weight = graph.initializer.iter_mut().find(|weight| weight.name() == "0.weight").unwrap();
            let mut values = weights::floats(weight);
            values[5 * 24..6 * 24].fill(0.0);
            *weight = weights::of_floats("0.weight", &weight.dims.clone(), &values);
        });
        let lowered = model.quantize(&scales(0.05), &Keep::nothing()).unwrap();
        let scales = weights::floats(weight(&lowered.model, "0.weight_scale"));
        assert_eq!((scales[5], scales.iter().filter(|&&scale| scale == 1.0).count()), (1.0, 1));
        assert!(lowered.notes[0].contains("1 of 32 channels of the weight `0.weight` are zero"), "{:?}", lowered.notes);
    }

    #[test]
    fn input_that_was_always_zero_leaves_its_node_in_fp32_and_says_so() {
        let mut scales = scales(0.05);
        scales.insert("/1/Relu_output_0".to_owned(), 0.0);
        let lowered = toy().quantize(&scales, &Keep::nothing()).unwrap();
        let node = lowered.nodes.iter().find(|node| node.name == "/2/Conv").unwrap();
        assert_eq!(node.precision, Precision::Fp32);
        assert!(node.why.contains("`/1/Relu_output_0` was zero"), "{}", node.why);
        assert!(lowered.notes.iter().any(|note| note.contains("`/2/Conv` stays in FP32")), "{:?}", lowered.notes);
        let error = toy().quantize(&self::scales(0.0), &Keep::nothing()).unwrap_err();
        assert!(error.to_string().contains("none that is not kept in FP32"), "{error}");
    }

    #[test]
    fn missing_scale_old_opset_and_quantised_model_are_refused() {
        let error = toy().quantize(&BTreeMap::new(), &Keep::nothing()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains("a scale for its input `input`"), "{error}");
        let old = changed(|proto| proto.opset_import[0].version = Some(12));
        let error = old.quantize(&scales(0.05), &Keep::nothing()).unwrap_err();
        assert!(error.to_string().contains("expected opset 13 or newer"), "{error}");
        let quantized = toy().quantize(&scales(0.05), &Keep::nothing()).unwrap().model;
        let error = quantized.quantize(&scales(0.05), &Keep::nothing()).unwrap_err();
        assert!(error.to_string().contains("quantised already"), "{error}");
    }

    #[test]
    fn weight_beyond_fp16_stays_in_fp32_and_is_told() {
        let model = changed(|proto| {
            let graph = proto.graph.as_mut().unwrap();
            let weight = graph.initializer.iter_mut().find(|weight| weight.name() == "7.bias").unwrap();
            *weight = weights::of_floats("7.bias", &[3], &[1e6, 0.0, 0.0]);
        });
        let lowered = model.to_half(Precision::Fp16, &Keep::nothing()).unwrap();
        assert!(lowered.notes[0].contains("`/7/Gemm` stays in FP32: the weight `7.bias` leaves the range of fp16"));
    }
}

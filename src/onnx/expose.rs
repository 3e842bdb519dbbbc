//! A model whose intermediate tensors are outputs, so that calibration sees them.

use super::proto::ValueInfoProto;
use super::rewrite;
use super::{Model, types};
use crate::error::Result;

/// The model with more outputs.
pub(crate) struct Exposed {
    /// The encoded model. Its outputs have names and no types: ONNX Runtime infers them.
    pub(crate) bytes: Vec<u8>,
    /// The outputs that were added.
    pub(crate) tensors: Vec<String>,
}

impl Model {
    /// Makes an output of every f32 tensor that a node makes.
    pub(crate) fn expose(&self) -> Result<Exposed> {
        let mut proto = rewrite::copy(self)?;
        let graph = proto.graph.as_mut().expect("Model::decode has seen it");
        let types = types::of_graph(graph);
        let made = graph.node.iter().flat_map(|node| &node.output);
        let tensors: Vec<String> = made.filter(|name| types.get(*name) == Some(&types::F32)).cloned().collect();
        let is_output = |name: &String| graph.output.iter().any(|output| output.name() == name);
        let more: Vec<_> = tensors.iter().filter(|name| !is_output(name)).collect();
        let more =
            more.into_iter().map(|name| ValueInfoProto { name: Some(name.clone()), ..ValueInfoProto::default() });
        let more: Vec<_> = more.collect();
        graph.output.extend(more);
        Ok(Exposed { bytes: prost::Message::encode_to_vec(&proto), tensors })
    }
}

//! An ONNX node as the lowering reads it: attributes with their defaults, and refusals that name it.

use crate::error::{Error, ErrorKind};
use crate::onnx::keep;
use crate::onnx::proto::{AttributeProto, NodeProto, TensorProto};

pub(super) struct Node<'graph> {
    proto: &'graph NodeProto,
}

impl<'graph> Node<'graph> {
    pub(super) fn new(proto: &'graph NodeProto) -> Self {
        Self { proto }
    }

    pub(super) fn name(&self) -> String {
        keep::name(self.proto)
    }

    pub(super) fn operator(&self) -> &'graph str {
        self.proto.op_type()
    }

    pub(super) fn domain(&self) -> &'graph str {
        self.proto.domain()
    }

    pub(super) fn inputs(&self) -> &'graph [String] {
        &self.proto.input
    }

    /// The input at this place, if it is given.
    pub(super) fn input(&self, place: usize) -> Option<&'graph str> {
        self.proto.input.get(place).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// The output at this place, if it is wanted.
    pub(super) fn output(&self, place: usize) -> Option<&'graph str> {
        self.proto.output.get(place).map(String::as_str).filter(|name| !name.is_empty())
    }

    pub(super) fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).map_or(default, AttributeProto::i)
    }

    pub(super) fn float(&self, name: &str, default: f32) -> f32 {
        self.attribute(name).map_or(default, AttributeProto::f)
    }

    pub(super) fn ints(&self, name: &str) -> Option<&'graph [i64]> {
        self.attribute(name).map(|attribute| &attribute.ints[..])
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.attribute(name).map(|attribute| String::from_utf8_lossy(attribute.s()).into_owned())
    }

    pub(super) fn texts(&self, name: &str) -> Vec<String> {
        let strings = self.attribute(name).map_or(&[][..], |attribute| &attribute.strings[..]);
        strings.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect()
    }

    pub(super) fn tensor(&self, name: &str) -> Option<&'graph TensorProto> {
        self.attribute(name)?.t.as_deref()
    }

    /// That it has no attribute but these: one that is not understood may change what is computed.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), Error> {
        let unknown = self.proto.attribute.iter().find(|attribute| !known.contains(&attribute.name()));
        unknown.map_or(Ok(()), |attribute| Err(self.refuse(format!("the attribute `{}`", attribute.name()))))
    }

    /// That the outputs from `first` on are not wanted.
    pub(super) fn no_output_from(&self, first: usize, used: impl Fn(&str) -> bool) -> Result<(), Error> {
        let wanted = (first..self.proto.output.len()).find(|&place| self.output(place).is_some_and(&used));
        wanted.map_or(Ok(()), |place| Err(self.refuse(format!("a use of its output {place}"))))
    }

    /// Why no resident engine can be made of a model with this node.
    pub(super) fn refuse(&self, got: impl Into<String>) -> Error {
        refusal(format!("lower {} `{}` for a resident engine", self.operator(), self.name()), got)
    }

    pub(super) fn attribute(&self, name: &str) -> Option<&'graph AttributeProto> {
        self.proto.attribute.iter().find(|attribute| attribute.name() == name)
    }
}

/// No resident engine can be made of the model.
pub(super) fn refusal(operation: String, got: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unsupported, operation)
        .expected("what resident engines can compute")
        .got(got)
        .advice("the chain goes on to TensorRT")
}

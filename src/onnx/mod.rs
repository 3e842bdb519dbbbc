//! Reading ONNX models: what goes in, what comes out, and whether all of it is there; and rewriting them in another
//! precision.
//!
//! ```no_run
//! let model = tickrt::onnx::Model::read("models/toy_cnn.onnx")?;
//! println!("{} nodes, opset {}, {:?}", model.node_count(), model.opset(), model.inputs());
//! # Ok::<(), tickrt::Error>(())
//! ```

mod expose;
mod external;
mod half;
pub(crate) mod keep;
pub(crate) mod proto;
mod quantize;
mod rewrite;
mod types;
mod weights;

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use prost::Message;
use sha2::{Digest, Sha256};

pub(crate) use self::expose::Exposed;
pub use self::keep::Keep;
use self::proto::{DimensionValue, GraphProto, ModelProto, TypeValue, ValueInfoProto};
pub use self::rewrite::{Lowered, NodePrecision};
use crate::error::{Error, ErrorKind, Result};
use crate::files;
use crate::tensor::{DataType, IoMode, TensorInfo};

const EXPORT_AGAIN: &str = "export the model again";

/// An ONNX model, decoded and found whole.
#[derive(Debug, Clone)]
pub struct Model {
    path: Option<PathBuf>,
    bytes: Vec<u8>,
    sha256: [u8; 32],
    /// Of the model that this one was made from, if it was.
    origin: Option<[u8; 32]>,
    proto: ModelProto,
    tensors: Vec<TensorInfo>,
    external_files: Vec<PathBuf>,
}

impl Model {
    /// Reads a model from a file, and makes sure that files with further weights are there and long enough.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if the file cannot be read; [`ErrorKind::Onnx`] if it is empty, truncated or no ONNX model,
    /// or if a file with its weights is missing or too short; [`ErrorKind::Unsupported`] for an input or output that
    /// is not a tensor of a [`DataType`].
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let operation = format!("read the ONNX model {}", path.display());
        let bytes = files::read(path, || operation.clone())?;
        let directory = path.parent().unwrap_or(Path::new("")).to_path_buf();
        Self::decode(bytes, Some(path.to_path_buf()), &directory, &operation)
    }

    /// Decodes a model that lies in memory. Files with further weights are looked for in the working directory.
    ///
    /// # Errors
    /// As [`read`](Self::read), but for [`ErrorKind::Io`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self> {
        Self::decode(bytes, None, Path::new(""), "read an ONNX model from memory")
    }

    fn decode(bytes: Vec<u8>, path: Option<PathBuf>, directory: &Path, operation: &str) -> Result<Self> {
        let bad = |got: String, advice: &str| {
            Error::new(ErrorKind::Onnx, operation).expected("an ONNX model").got(got).advice(advice)
        };
        if bytes.is_empty() {
            return Err(bad("an empty file".to_owned(), EXPORT_AGAIN));
        }
        if let Some((what, advice)) = mistaken_for_model(&bytes) {
            return Err(bad(what.to_owned(), advice));
        }
        if is_text(&bytes) {
            return Err(bad(format!("{} bytes of text", bytes.len()), "name the .onnx file"));
        }
        let proto = ModelProto::decode(&bytes[..]).map_err(|error| match truncated(&bytes) {
            Some(missing) => bad(
                format!("a truncated one of {} bytes ({missing} or more are missing)", bytes.len()),
                "copy the file again or export the model again",
            ),
            None => bad(format!("{} bytes that are none ({error})", bytes.len()), EXPORT_AGAIN),
        })?;
        let lacks = match &proto {
            ModelProto { ir_version: None | Some(0), .. } => "the IR version",
            ModelProto { graph: None, .. } => "the graph",
            ModelProto { opset_import, .. } if opset_import.is_empty() => "the opset",
            ModelProto { graph: Some(graph), .. } if graph.node.is_empty() => "any node",
            ModelProto { graph: Some(graph), .. } if graph.output.is_empty() => "any output",
            _ => "",
        };
        if !lacks.is_empty() {
            let got = format!("{} bytes without {lacks}: truncated, or not ONNX at all", bytes.len());
            return Err(bad(got, "copy the file again or export the model again"));
        }
        let tensors = tensors(&proto, operation)?;
        let external_files = external::check(&proto, directory, operation)?;
        let sha256 = Sha256::digest(&bytes).into();
        Ok(Self { path, bytes, sha256, origin: None, proto, tensors, external_files })
    }

    /// The file it was read from.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The bytes as they were read.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// SHA-256 of [`bytes`](Self::bytes). Weights in files of their own are not in it.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        self.sha256
    }

    /// SHA-256 of the model that this one was lowered from; of itself where it was not.
    #[must_use]
    pub fn origin_sha256(&self) -> [u8; 32] {
        self.origin.unwrap_or(self.sha256)
    }

    /// Writes it as an ONNX file: all of it or nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Io`]: nothing is left behind then.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        files::write_atomically(path.as_ref(), &self.bytes)
    }

    /// The names and operators of the main graph's nodes. One without a name is `node_of_` and its first output.
    #[must_use]
    pub fn nodes(&self) -> Vec<(String, &str)> {
        self.graph().node.iter().map(|node| (keep::name(node), node.op_type())).collect()
    }

    /// The inputs, then the outputs; −1 where a dimension is dynamic.
    #[must_use]
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The inputs that a caller must give: those that are no weights.
    #[must_use]
    pub fn inputs(&self) -> &[TensorInfo] {
        &self.tensors[..self.first_output()]
    }

    /// The outputs.
    #[must_use]
    pub fn outputs(&self) -> &[TensorInfo] {
        &self.tensors[self.first_output()..]
    }

    /// Version of the default operator set; 0 if the model imports none but custom ones.
    #[must_use]
    pub fn opset(&self) -> i64 {
        let default = |domain: &str| domain.is_empty() || domain == "ai.onnx";
        let opset = self.proto.opset_import.iter().find(|opset| default(opset.domain()));
        opset.map_or(0, proto::OperatorSetIdProto::version)
    }

    /// Number of nodes in the main graph.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.proto.graph.as_ref().map_or(0, |graph| graph.node.len())
    }

    /// The operators of the main graph's nodes, and how many nodes have each.
    #[must_use]
    pub fn operators(&self) -> std::collections::BTreeMap<&str, usize> {
        let mut operators = std::collections::BTreeMap::new();
        for node in self.proto.graph.iter().flat_map(|graph| &graph.node) {
            *operators.entry(node.op_type()).or_default() += 1;
        }
        operators
    }

    /// Files that hold weights outside the model, each once.
    #[must_use]
    pub fn external_files(&self) -> &[PathBuf] {
        &self.external_files
    }

    /// The whole model.
    pub(crate) fn proto(&self) -> &ModelProto {
        &self.proto
    }

    /// The whole model, the weights that lie in other files brought in.
    pub(crate) fn with_weights(&self) -> Result<Cow<'_, ModelProto>> {
        if self.external_files.is_empty() {
            Ok(Cow::Borrowed(&self.proto))
        } else {
            rewrite::copy(self).map(Cow::Owned)
        }
    }

    /// Its main graph.
    pub(crate) fn graph(&self) -> &GraphProto {
        self.proto.graph.as_ref().expect("`decode` has seen it")
    }

    /// What it became. No file has it, and its weights are all in it.
    fn rewritten(&self, proto: ModelProto) -> Result<Self> {
        let rewritten = Self::decode(proto.encode_to_vec(), None, Path::new(""), "rewrite an ONNX model")?;
        Ok(Self { origin: Some(self.origin_sha256()), ..rewritten })
    }

    fn first_output(&self) -> usize {
        self.tensors.partition_point(|tensor| tensor.mode == IoMode::Input)
    }
}

/// Files that people name by mistake, and what to do instead.
fn mistaken_for_model(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    let known: [(&[u8], _, _); 6] = [
        (b"version https://git-lfs", "a Git LFS pointer", "fetch the file with `git lfs pull`"),
        (b"ftrt", "a TensorRT plan", "name the model, not the engine"),
        (b"vtrt", "a TensorRT-RTX plan", "name the model, not the engine"),
        (b"PK\x03\x04", "a zip archive, as torch.save writes", "export it with torch.onnx.export"),
        (b"\x89HDF", "an HDF5 file, as Keras writes", "export it with tf2onnx"),
        (b"<", "a web page", "download the file itself"),
    ];
    known.into_iter().find(|(magic, ..)| bytes.starts_with(magic)).map(|(_, what, advice)| (what, advice))
}

/// A model never is: the tag of its IR version is a control character.
fn is_text(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b'\t' | b'\n' | b'\r' | b' '..)) && std::str::from_utf8(bytes).is_ok()
}

/// How many bytes are missing, if the outermost fields are well formed as far as they go.
fn truncated(mut bytes: &[u8]) -> Option<u64> {
    while !bytes.is_empty() {
        let tag = match prost::encoding::decode_varint(&mut bytes) {
            Ok(tag) => tag,
            // Nothing but a varint cut short begins so.
            Err(_) => return (bytes.len() < 10).then_some(1),
        };
        // Fields of a model have numbers from 1 to 26 (proto.rs); anything else is no model.
        if !(1..=26).contains(&(tag >> 3)) {
            return None;
        }
        let length = match tag & 7 {
            0 => match prost::encoding::decode_varint(&mut bytes) {
                Ok(_) => 0,
                Err(_) => return (bytes.len() < 10).then_some(1),
            },
            2 => match prost::encoding::decode_varint(&mut bytes) {
                Ok(length) => length,
                Err(_) => return (bytes.len() < 10).then_some(1),
            },
            _ => return None,
        };
        let rest = usize::try_from(length).ok().and_then(|length| bytes.get(length..));
        match rest {
            Some(rest) => bytes = rest,
            None => return Some(length - bytes.len() as u64),
        }
    }
    None
}

fn tensors(proto: &ModelProto, operation: &str) -> Result<Vec<TensorInfo>> {
    let graph = proto.graph.as_ref().expect("checked by the caller");
    // Old exporters list the weights among the inputs.
    let weight = |name: &str| {
        graph.initializer.iter().any(|tensor| tensor.name() == name)
            || graph.sparse_initializer.iter().any(|s| s.values.as_ref().is_some_and(|tensor| tensor.name() == name))
    };
    let inputs = graph.input.iter().filter(|value| !weight(value.name()));
    let inputs = inputs.map(|value| tensor(value, IoMode::Input, operation));
    inputs.chain(graph.output.iter().map(|value| tensor(value, IoMode::Output, operation))).collect()
}

fn tensor(value: &ValueInfoProto, mode: IoMode, operation: &str) -> Result<TensorInfo> {
    let name = value.name();
    let what = if mode == IoMode::Input { "input" } else { "output" };
    let unsupported = |got: String| {
        Error::new(ErrorKind::Unsupported, operation)
            .expected(format!("{what} `{name}` to be a tensor of numbers"))
            .got(got)
            .advice("change the model so that it takes and gives such tensors")
    };
    let Some(TypeValue::Tensor(tensor)) = value.r#type.as_ref().and_then(|kind| kind.value.as_ref()) else {
        return Err(unsupported("no tensor, or one without a type".to_owned()));
    };
    let number = tensor.elem_type();
    let data_type = data_type(number).ok_or_else(|| unsupported(format!("ONNX's element type {number}")))?;
    let Some(shape) = &tensor.shape else { return Err(unsupported("a tensor of unknown rank".to_owned())) };
    let shape = shape.dim.iter().map(|dimension| match dimension.value {
        Some(DimensionValue::Value(value)) if value >= 0 => value,
        _ => -1,
    });
    Ok(TensorInfo { name: name.to_owned(), mode, data_type, shape: shape.collect() })
}

/// The type that `TensorProto.DataType` has this number for.
pub(crate) fn data_type(number: i32) -> Option<DataType> {
    Some(match number {
        1 => DataType::F32,
        2 => DataType::U8,
        3 => DataType::I8,
        5 => DataType::I16,
        6 => DataType::I32,
        7 => DataType::I64,
        9 => DataType::Bool,
        10 => DataType::F16,
        11 => DataType::F64,
        16 => DataType::Bf16,
        _ => return None,
    })
}

#[cfg(test)]
mod tests;

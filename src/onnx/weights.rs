//! Weights as numbers, and numbers as weights.

use std::path::Path;

use half::{bf16, f16};

use super::proto::{GraphProto, ModelProto, TensorProto};
use super::{external, types};
use crate::error::{Error, ErrorKind, Result};
use crate::files;

/// The elements of an f32 tensor that lies in the model itself.
pub(super) fn floats(tensor: &TensorProto) -> Vec<f32> {
    match &tensor.raw_data {
        Some(raw) if !raw.is_empty() => {
            raw.chunks_exact(4).map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).collect()
        }
        _ => tensor.float_data.clone(),
    }
}

/// A tensor of f32.
pub(super) fn of_floats(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    of_bytes(name, dims, types::F32, values.iter().flat_map(|value| value.to_le_bytes()).collect())
}

/// A tensor of zeros of one byte each.
pub(super) fn of_zeros(name: &str, dims: &[i64], data_type: i32) -> TensorProto {
    let count = dims.iter().product::<i64>();
    of_bytes(name, dims, data_type, vec![0; usize::try_from(count).unwrap_or(0)])
}

/// An f32 tensor in a type of 16 bits, rounded to nearest; none if an element leaves the type's range.
pub(super) fn halved(tensor: &TensorProto, name: &str, to: i32) -> Option<TensorProto> {
    let mut raw = Vec::new();
    for value in floats(tensor) {
        let (bits, finite) = if to == types::BF16 {
            (bf16::from_f32(value).to_bits(), bf16::from_f32(value).is_finite())
        } else {
            (f16::from_f32(value).to_bits(), f16::from_f32(value).is_finite())
        };
        if value.is_finite() && !finite {
            return None;
        }
        raw.extend(bits.to_le_bytes());
    }
    Some(of_bytes(name, &tensor.dims, to, raw))
}

fn of_bytes(name: &str, dims: &[i64], data_type: i32, raw: Vec<u8>) -> TensorProto {
    TensorProto {
        name: Some(name.to_owned()),
        dims: dims.to_vec(),
        data_type: Some(data_type),
        raw_data: Some(raw),
        ..TensorProto::default()
    }
}

/// Brings the weights of the main graph that lie in other files into the model.
///
/// # Errors
/// [`ErrorKind::Io`]; [`ErrorKind::Unsupported`] if they are more than a protobuf holds.
pub(super) fn bring_in(proto: &mut ModelProto, directory: &Path) -> Result<()> {
    let Some(graph) = &mut proto.graph else { return Ok(()) };
    let bytes: u64 = graph.initializer.iter().filter(|tensor| is_outside(tensor)).map(wanted).sum();
    if bytes > LARGEST {
        return Err(Error::new(ErrorKind::Unsupported, "rewrite an ONNX model")
            .expected(format!("at most {LARGEST} bytes of weights, which a protobuf holds"))
            .got(format!("{bytes} in other files"))
            .advice("export the model in the wanted precision"));
    }
    bring_in_graph(graph, directory)
}

/// A protobuf's limit is 2³¹; the graph itself wants room, too.
const LARGEST: u64 = 2_000_000_000;

fn bring_in_graph(graph: &mut GraphProto, directory: &Path) -> Result<()> {
    for tensor in graph.initializer.iter_mut().filter(|tensor| is_outside(tensor)) {
        let (location, offset) = external::place(tensor);
        let path = directory.join(location);
        let operation = || format!("read the weights of `{}` from {}", tensor.name(), path.display());
        let file = files::read(&path, operation)?;
        let wanted = wanted(tensor);
        let end = offset.checked_add(wanted).and_then(|end| usize::try_from(end).ok());
        let bytes = end.and_then(|end| file.get(usize::try_from(offset).ok()?..end)).ok_or_else(|| {
            Error::new(ErrorKind::Onnx, operation())
                .expected(format!("{wanted} bytes from byte {offset} on"))
                .got(format!("a file of {}", file.len()))
                .advice(super::EXPORT_AGAIN)
        })?;
        tensor.raw_data = Some(bytes.to_vec());
        tensor.external_data.clear();
        tensor.data_location = None;
    }
    Ok(())
}

fn is_outside(tensor: &TensorProto) -> bool {
    tensor.data_location() == external::EXTERNAL
}

fn wanted(tensor: &TensorProto) -> u64 {
    let count: u64 = tensor.dims.iter().map(|&size| u64::try_from(size).unwrap_or(0)).product();
    let size = super::data_type(tensor.data_type()).map_or(0, |data_type| data_type.size() as u64);
    external::length(tensor).unwrap_or(count * size)
}

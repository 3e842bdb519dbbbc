//! Weights that lie in files beside the model.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::EXPORT_AGAIN;
use super::proto::{AttributeProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto};
use crate::error::{Error, ErrorKind, Result};

/// `TensorProto.DataLocation.EXTERNAL`.
pub(super) const EXTERNAL: i32 = 1;

/// The files that the model's weights lie in, all of them there and long enough.
pub(super) fn check(model: &ModelProto, directory: &Path, operation: &str) -> Result<Vec<PathBuf>> {
    let mut needed = BTreeMap::<PathBuf, (u64, String)>::new();
    let mut failed = None;
    visit_model(model, &mut |tensor| {
        if tensor.data_location() == EXTERNAL && failed.is_none() {
            failed = note(tensor, directory, operation, &mut needed).err();
        }
    });
    failed.map_or(Ok(()), Err)?;
    for (path, (length, tensor)) in &needed {
        let bad = |got: String| {
            Error::new(ErrorKind::Onnx, operation)
                .expected(format!("the weights of `{tensor}` in {}, {length} bytes or more", path.display()))
                .got(got)
                .advice("copy the file beside the model, or export the model again")
        };
        match std::fs::metadata(path) {
            Err(_) => return Err(bad("no such file".to_owned())),
            Ok(meta) if !meta.is_file() => return Err(bad("something that is not a file".to_owned())),
            Ok(meta) if meta.len() < *length => return Err(bad(format!("{} bytes", meta.len()))),
            Ok(_) => {}
        }
    }
    Ok(needed.into_keys().collect())
}

/// The file in the model's folder, and where in it the tensor begins. [`check`] has seen that it is sane.
pub(super) fn place(tensor: &TensorProto) -> (&str, u64) {
    let offset = entry(tensor, "offset").and_then(|text| text.trim().parse().ok());
    (entry(tensor, "location").unwrap_or_default(), offset.unwrap_or(0))
}

/// How many bytes it has there, if the model says so.
pub(super) fn length(tensor: &TensorProto) -> Option<u64> {
    entry(tensor, "length")?.trim().parse().ok()
}

fn entry<'tensor>(tensor: &'tensor TensorProto, key: &str) -> Option<&'tensor str> {
    tensor.external_data.iter().find(|entry| entry.key() == key).map(|entry| entry.value())
}

/// Notes how far into which file the tensor reaches.
fn note(
    tensor: &TensorProto,
    directory: &Path,
    operation: &str,
    needed: &mut BTreeMap<PathBuf, (u64, String)>,
) -> Result<()> {
    let entry = |key: &str| entry(tensor, key);
    let bad = |expected: &str, got: String| {
        Error::new(ErrorKind::Onnx, operation)
            .expected(format!("{expected} for the weights of `{}`", tensor.name()))
            .got(got)
            .advice(EXPORT_AGAIN)
    };
    let location = entry("location").unwrap_or_default();
    // Readers differ in which of two entries counts: what was checked here must be what they read.
    for (place, one) in tensor.external_data.iter().enumerate() {
        if tensor.external_data[..place].iter().any(|earlier| earlier.key() == one.key()) {
            return Err(bad("one entry of each name", format!("`{}` twice", one.key())));
        }
    }
    // The format asks for a path within the model's folder; ONNX Runtime and TensorRT refuse any other.
    let inside = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    if location.is_empty() || !Path::new(location).components().all(inside) {
        return Err(bad("a file in the model's folder", format!("`{location}`")));
    }
    let number = |key: &str| match entry(key).map(str::trim) {
        None | Some("") => Ok(None),
        Some(text) => {
            text.parse::<u64>().map(Some).map_err(|_| bad(&format!("a number as {key}"), format!("`{text}`")))
        }
    };
    let reach = number("offset")?
        .unwrap_or(0)
        .checked_add(number("length")?.unwrap_or(0))
        .ok_or_else(|| bad("a sane offset and length", "one past the end of all files".to_owned()))?;
    let (length, name) = needed.entry(directory.join(location)).or_default();
    if reach >= *length {
        (*length, *name) = (reach, tensor.name().to_owned());
    }
    Ok(())
}

fn visit_model(model: &ModelProto, visit: &mut dyn FnMut(&TensorProto)) {
    let training = model.training_info.iter().flat_map(|info| [&info.initialization, &info.algorithm]);
    for graph in std::iter::once(&model.graph).chain(training).flatten() {
        visit_graph(graph, visit);
    }
    for function in &model.functions {
        visit_nodes(&function.node, visit);
        visit_attributes(&function.attribute_proto, visit);
    }
}

fn visit_graph(graph: &GraphProto, visit: &mut dyn FnMut(&TensorProto)) {
    graph.initializer.iter().for_each(&mut *visit);
    graph.sparse_initializer.iter().for_each(|sparse| visit_sparse(sparse, visit));
    visit_nodes(&graph.node, visit);
}

fn visit_nodes(nodes: &[NodeProto], visit: &mut dyn FnMut(&TensorProto)) {
    for node in nodes {
        visit_attributes(&node.attribute, visit);
    }
}

/// Ends, because prost decodes no more than 100 levels.
fn visit_attributes(attributes: &[AttributeProto], visit: &mut dyn FnMut(&TensorProto)) {
    for attribute in attributes {
        attribute.t.as_deref().into_iter().chain(&attribute.tensors).for_each(&mut *visit);
        let sparse = attribute.sparse_tensor.as_deref().into_iter().chain(&attribute.sparse_tensors);
        sparse.for_each(|sparse| visit_sparse(sparse, visit));
        for graph in attribute.g.as_deref().into_iter().chain(&attribute.graphs) {
            visit_graph(graph, visit);
        }
    }
}

fn visit_sparse(sparse: &SparseTensorProto, visit: &mut dyn FnMut(&TensorProto)) {
    sparse.values.iter().chain(&sparse.indices).for_each(visit);
}

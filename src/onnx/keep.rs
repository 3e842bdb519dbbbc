//! Which nodes of a model stay in FP32.

use std::collections::BTreeSet;

use super::Model;
use super::proto::NodeProto;
use crate::error::{Error, ErrorKind, Result};

/// Nodes and operators of one model that stay in FP32.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keep {
    nodes: BTreeSet<String>,
    operators: BTreeSet<String>,
}

impl Keep {
    /// Nothing stays.
    #[must_use]
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Each word is the name of a node (one without a name is `node_of_` and its first output, as TensorRT's parser has
    /// it) or else an operator: `Softmax`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for a word that is neither, with the names that come nearest.
    pub fn new<Word: AsRef<str>>(model: &Model, words: impl IntoIterator<Item = Word>) -> Result<Self> {
        let nodes = &model.graph().node;
        let mut keep = Self::default();
        for word in words {
            let word = word.as_ref();
            if nodes.iter().any(|node| name(node) == word) {
                keep.nodes.insert(word.to_owned());
            } else if nodes.iter().any(|node| node.op_type() == word) {
                keep.operators.insert(word.to_owned());
            } else {
                return Err(unknown(nodes, word));
            }
        }
        Ok(keep)
    }

    /// Whether this node stays.
    pub(crate) fn has(&self, node: &NodeProto) -> bool {
        self.operators.contains(node.op_type()) || self.nodes.contains(&name(node))
    }

    /// Another node stays.
    pub(crate) fn add(&mut self, name: &str) {
        self.nodes.insert(name.to_owned());
    }

    /// Whether nothing stays.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.operators.is_empty()
    }

    /// The names of the model's nodes that stay.
    pub(crate) fn names(&self, model: &Model) -> Vec<String> {
        model.graph().node.iter().filter(|node| self.has(node)).map(name).collect()
    }
}

/// A node's name, as TensorRT's parser has it.
pub(crate) fn name(node: &NodeProto) -> String {
    match (node.name(), node.output.first()) {
        ("", Some(output)) => format!("node_of_{output}"),
        (name, _) => name.to_owned(),
    }
}

fn unknown(nodes: &[NodeProto], word: &str) -> Error {
    const SHOWN: usize = 5;
    let mut names: Vec<String> = nodes.iter().filter(|node| node.op_type() != "Constant").map(name).collect();
    // The nearest first; of equally near ones, the order of the graph stays.
    names.sort_by_key(|name| distance(name, word));
    names.truncate(SHOWN);
    Error::new(ErrorKind::InvalidArgument, "keep a node in FP32")
        .expected(format!("a node or an operator of the model, such as {}", names.join(", ")))
        .got(format!("`{word}`"))
        .advice("`tickrt inspect MODEL.onnx --nodes` lists them")
}

/// How many letters have to be put in, taken out or exchanged (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.chars().count()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, b) in other.chars().enumerate() {
            let exchanged = corner + usize::from(a != b);
            corner = row[j + 1];
            row[j + 1] = exchanged.min(corner + 1).min(row[j] + 1);
        }
    }
    row[other.chars().count()]
}

#[cfg(test)]
mod tests {
    use super::distance;

    #[test]
    fn distance_counts_letters_put_in_taken_out_or_exchanged() {
        for (one, other, expected) in [("", "", 0), ("", "ab", 2), ("Conv", "conv", 1), ("/0/Conv", "/2/Conv_1", 3)] {
            assert_eq!((distance(one, other), distance(other, one)), (expected, expected), "{one} {other}");
        }
    }
}

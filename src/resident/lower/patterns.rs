//! Operators that older exporters write as several: Gelu by the error function, LayerNormalization by means.

use std::collections::{HashMap, HashSet};

use super::constant::Constant;
use super::node::Node;
use super::{Known, Lowering, Tensor, shapes};
use crate::error::Result;
use crate::onnx::proto::GraphProto;
use crate::resident::network::{Activation, LayerNorm, Operation, Value, without_ones};

/// What the nodes of a graph are parts of, by their places.
pub(super) struct Patterns(HashMap<usize, Pattern>);

pub(super) enum Pattern {
    /// Computed with the node that ends the pattern.
    Within,
    /// Stands for all of it.
    Ends(Matched),
}

pub(super) struct Matched {
    value: String,
    what: What,
    nodes: Vec<String>,
}

enum What {
    Gelu,
    LayerNorm { axes: Vec<i64>, epsilon: f32 },
}

impl Patterns {
    pub(super) fn find(graph: &GraphProto) -> Self {
        let graph = Graph::new(graph);
        let mut found = HashMap::new();
        for place in 0..graph.nodes.len() {
            let Some((what, value, places)) = graph.gelu(place).or_else(|| graph.layer_norm(place)) else { continue };
            let end = *places.iter().max().expect("a pattern has nodes");
            let nodes = places.iter().map(|&place| graph.nodes[place].name()).collect();
            found.extend(places.iter().map(|&place| (place, Pattern::Within)));
            found.insert(end, Pattern::Ends(Matched { value: value.to_owned(), what, nodes }));
        }
        Self(found)
    }

    pub(super) fn at(&self, place: usize) -> Option<&Pattern> {
        self.0.get(&place)
    }
}

impl<'graph> Lowering<'graph> {
    /// The stage that a pattern is; `node` is its last one.
    pub(super) fn pattern(&mut self, matched: &Matched, node: &Node<'graph>) -> Result<()> {
        let Some(Known::Tensor(Tensor { id, shape })) = self.known.get(matched.value.as_str()).cloned() else {
            return Err(node.refuse(format!("`{}`, which no call changes", matched.value)));
        };
        let operation = match &matched.what {
            What::Gelu => Operation::Activation(Activation::Gelu),
            What::LayerNorm { axes, epsilon } => {
                let axes =
                    axes.iter().map(|&axis| shapes::axis(node, axis, shape.len())).collect::<Result<Vec<_>>>()?;
                let first = shape.len() - axes.len();
                if !(first..shape.len()).eq(axes) {
                    return Err(node.refuse("a mean over dimensions that are not the last ones"));
                }
                let (rows, width) = (shape[..first].iter().product(), shape[first..].iter().product());
                Operation::LayerNorm(LayerNorm { rows, width, epsilon: *epsilon, scale: None, shift: None })
            }
        };
        let value = Value { name: node.output(0).unwrap_or_default().to_owned(), shape: without_ones(&shape) };
        let id = self.network.add_stage(operation, &[id], value, &matched.nodes);
        self.is(node, Known::Tensor(Tensor { id, shape }));
        Ok(())
    }
}

/// Who writes and who reads what.
struct Graph<'graph> {
    nodes: Vec<Node<'graph>>,
    writers: HashMap<&'graph str, usize>,
    readers: HashMap<&'graph str, Vec<usize>>,
    outputs: HashSet<&'graph str>,
    constants: HashMap<&'graph str, Constant>,
}

type Match<'graph> = (What, &'graph str, Vec<usize>);

impl<'graph> Graph<'graph> {
    fn new(graph: &'graph GraphProto) -> Self {
        let nodes: Vec<Node<'graph>> = graph.node.iter().map(Node::new).collect();
        let mut readers = HashMap::<&str, Vec<usize>>::new();
        for (place, node) in graph.node.iter().enumerate() {
            node.input.iter().for_each(|input| readers.entry(input).or_default().push(place));
        }
        let writers = nodes.iter().enumerate().filter_map(|(place, node)| Some((node.output(0)?, place))).collect();
        // The constants that patterns have are small; weights are not read for them.
        let small = graph.initializer.iter().filter(|tensor| tensor.dims.iter().product::<i64>() <= 8);
        let small = small.filter_map(|tensor| Some((tensor.name(), Constant::read(tensor)?)));
        let given = nodes.iter().filter(|node| node.operator() == "Constant");
        let given = given.filter_map(|node| Some((node.output(0)?, Constant::read(node.tensor("value")?)?)));
        let constants = small.chain(given).collect();
        let outputs = graph.output.iter().map(|output| output.name()).collect();
        Self { writers, readers, outputs, constants, nodes }
    }

    /// `0.5 · x · (1 + erf(x / √2))`, its factors in any order.
    fn gelu(&self, erf: usize) -> Option<Match<'graph>> {
        const ROOT: f32 = std::f32::consts::SQRT_2;
        self.is(erf, "Erf")?;
        let scaled = self.writer(erf, 0)?;
        let value = match self.nodes[scaled].operator() {
            "Div" => self.nodes[scaled].input(0).filter(|_| self.scalar_near(scaled, 1, ROOT)),
            "Mul" => self.other_than_scalar(scaled, 1.0 / ROOT),
            _ => None,
        }?;
        let plus = self.reader(erf, "Add")?;
        self.other_than_scalar(plus, 1.0)?;
        let product = self.reader(plus, "Mul")?;
        let mut places = vec![scaled, erf, plus, product];
        let other = self.other(product, self.nodes[plus].output(0)?)?;
        if other == value {
            let halved = self.reader(product, "Mul")?;
            self.other_than_scalar(halved, 0.5)?;
            places.push(halved);
        } else if self.other_than_scalar(product, 0.5).is_some() {
            let last = self.reader(product, "Mul")?;
            (self.other(last, self.nodes[product].output(0)?)? == value).then_some(())?;
            places.push(last);
        } else {
            let half = *self.writers.get(other)?;
            self.is(half, "Mul")?;
            self.only_reader(half)?;
            (self.other_than_scalar(half, 0.5)? == value).then_some(())?;
            places.push(half);
        }
        self.only_reader(scaled)?;
        Some((What::Gelu, value, places))
    }

    /// `(x − mean) / √(mean of (x − mean)² + epsilon)`; scale and shift behind it are sums and products of their own.
    fn layer_norm(&self, root: usize) -> Option<Match<'graph>> {
        self.is(root, "Sqrt")?;
        let plus = self.writer(root, 0)?;
        self.is(plus, "Add")?;
        let (variance, epsilon) = [(0, 1), (1, 0)].into_iter().find_map(|(value, constant)| {
            let epsilon = self.constants.get(self.nodes[plus].input(constant)?)?.scalar()?;
            Some((self.writer(plus, value)?, epsilon))
        })?;
        let axes = self.mean_axes(variance)?;
        let square = self.writer(variance, 0)?;
        let difference = self.writer(square, 0)?;
        match self.nodes[square].operator() {
            "Pow" => self.scalar_near(square, 1, 2.0).then_some(())?,
            "Mul" => (self.nodes[square].input(0) == self.nodes[square].input(1)).then_some(())?,
            _ => return None,
        }
        self.is(difference, "Sub")?;
        let (value, mean) = (self.nodes[difference].input(0)?, self.writer(difference, 1)?);
        (self.mean_axes(mean)? == axes && self.nodes[mean].input(0)? == value).then_some(())?;
        let end = self.reader(root, "Div")?;
        let quotient = [self.nodes[end].input(0), self.nodes[end].input(1)];
        (quotient == [self.nodes[difference].output(0), self.nodes[root].output(0)]).then_some(())?;
        for within in [plus, variance, square, mean] {
            self.only_reader(within)?;
        }
        let others = self.readers.get(self.nodes[difference].output(0)?)?;
        others.iter().all(|reader| [square, end].contains(reader)).then_some(())?;
        let places = vec![mean, difference, square, variance, plus, root, end];
        Some((What::LayerNorm { axes, epsilon }, value, places))
    }

    /// The axes of a mean that keeps its dimensions.
    fn mean_axes(&self, mean: usize) -> Option<Vec<i64>> {
        self.is(mean, "ReduceMean")?;
        let node = &self.nodes[mean];
        (node.int("keepdims", 1) != 0).then_some(())?;
        let given = node.input(1).and_then(|name| self.constants.get(name)?.as_integers());
        node.ints("axes").or(given).map(<[i64]>::to_vec).filter(|axes| !axes.is_empty())
    }

    fn is(&self, place: usize, operator: &str) -> Option<()> {
        (self.nodes[place].operator() == operator).then_some(())
    }

    fn writer(&self, place: usize, input: usize) -> Option<usize> {
        self.writers.get(self.nodes[place].input(input)?).copied()
    }

    /// The one node that reads what the node writes.
    fn only_reader(&self, place: usize) -> Option<usize> {
        let output = self.nodes[place].output(0)?;
        let readers = self.readers.get(output)?;
        let first = *readers.first()?;
        (!self.outputs.contains(output) && readers.iter().all(|&reader| reader == first)).then_some(first)
    }

    fn reader(&self, place: usize, operator: &str) -> Option<usize> {
        self.only_reader(place).filter(|&reader| self.is(reader, operator).is_some())
    }

    /// The node's other input.
    fn other(&self, place: usize, one: &str) -> Option<&'graph str> {
        let (a, b) = (self.nodes[place].input(0)?, self.nodes[place].input(1)?);
        if a == one { Some(b) } else { (b == one).then_some(a) }
    }

    /// The input beside one that is this number.
    fn other_than_scalar(&self, place: usize, number: f32) -> Option<&'graph str> {
        let constant = (0..2).find(|&input| self.scalar_near(place, input, number))?;
        self.nodes[place].input(1 - constant)
    }

    fn scalar_near(&self, place: usize, input: usize, number: f32) -> bool {
        let constant = self.nodes[place].input(input).and_then(|name| self.constants.get(name)?.scalar());
        constant.is_some_and(|constant| (constant - number).abs() <= 1e-6)
    }
}

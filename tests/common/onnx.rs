//! As little of ONNX as a test model needs.
#![allow(dead_code)] // each test binary uses a part

use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub struct Model {
    #[prost(int64, tag = "1")]
    pub ir_version: i64,
    #[prost(message, optional, tag = "7")]
    pub graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    pub opsets: Vec<Opset>,
}
#[derive(Clone, PartialEq, Message)]
pub struct Opset {
    #[prost(string, tag = "1")]
    pub domain: String,
    #[prost(int64, tag = "2")]
    pub version: i64,
}
#[derive(Clone, PartialEq, Message)]
pub struct Graph {
    #[prost(message, repeated, tag = "1")]
    pub nodes: Vec<Node>,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(message, repeated, tag = "5")]
    pub initializers: Vec<Initializer>,
    #[prost(message, repeated, tag = "11")]
    pub inputs: Vec<Value>,
    #[prost(message, repeated, tag = "12")]
    pub outputs: Vec<Value>,
}
/// A tensor whose values lie in it or in another file.
#[derive(Clone, PartialEq, Message)]
pub struct Initializer {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub shape: Vec<i64>,
    #[prost(int32, tag = "2")]
    pub element: i32,
    #[prost(string, tag = "8")]
    pub name: String,
    #[prost(bytes = "vec", optional, tag = "9")]
    pub raw: Option<Vec<u8>>,
    #[prost(message, repeated, tag = "13")]
    pub external: Vec<Entry>,
    #[prost(int32, tag = "14")]
    pub location: i32,
}
#[derive(Clone, PartialEq, Message)]
pub struct Entry {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
}
#[derive(Clone, PartialEq, Message)]
pub struct Node {
    #[prost(string, repeated, tag = "1")]
    pub inputs: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub outputs: Vec<String>,
    #[prost(string, tag = "3")]
    pub name: String,
    #[prost(string, tag = "4")]
    pub operator: String,
    #[prost(message, repeated, tag = "5")]
    pub attributes: Vec<Attribute>,
}
/// One of `Node`; its type says which field is in use.
#[derive(Clone, PartialEq, Message)]
pub struct Attribute {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(float, tag = "2")]
    pub float: f32,
    #[prost(int64, tag = "3")]
    pub int: i64,
    #[prost(bytes = "vec", tag = "4")]
    pub text: Vec<u8>,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    pub ints: Vec<i64>,
    #[prost(int32, tag = "20")]
    pub kind: i32,
}

/// What an attribute can be given as.
pub trait Given {
    fn attribute(self) -> Attribute;
}
impl Given for f32 {
    fn attribute(self) -> Attribute {
        Attribute { float: self, kind: 1, ..Attribute::default() }
    }
}
impl Given for i64 {
    fn attribute(self) -> Attribute {
        Attribute { int: self, kind: 2, ..Attribute::default() }
    }
}
impl Given for &str {
    fn attribute(self) -> Attribute {
        Attribute { text: self.as_bytes().to_vec(), kind: 3, ..Attribute::default() }
    }
}
impl Given for &[usize] {
    fn attribute(self) -> Attribute {
        let ints = self.iter().map(|&int| int as i64).collect();
        Attribute { ints, kind: 7, ..Attribute::default() }
    }
}
impl Given for &[i64] {
    fn attribute(self) -> Attribute {
        Attribute { ints: self.to_vec(), kind: 7, ..Attribute::default() }
    }
}

impl Node {
    /// With one more attribute.
    pub fn with(mut self, name: &str, given: impl Given) -> Self {
        self.attributes.push(Attribute { name: name.to_owned(), ..given.attribute() });
        self
    }
}
#[derive(Clone, PartialEq, Message)]
pub struct Value {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub kind: Option<Kind>,
}
#[derive(Clone, PartialEq, Message)]
pub struct Kind {
    #[prost(message, optional, tag = "1")]
    pub tensor: Option<Tensor>,
}
#[derive(Clone, PartialEq, Message)]
pub struct Tensor {
    #[prost(int32, tag = "1")]
    pub element: i32,
    #[prost(message, optional, tag = "2")]
    pub shape: Option<Shape>,
}
#[derive(Clone, PartialEq, Message)]
pub struct Shape {
    #[prost(message, repeated, tag = "1")]
    pub dimensions: Vec<Dimension>,
}
#[derive(Clone, PartialEq, Message)]
pub struct Dimension {
    #[prost(oneof = "Extent", tags = "1, 2")]
    pub extent: Option<Extent>,
}
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Extent {
    #[prost(int64, tag = "1")]
    Fixed(i64),
    #[prost(string, tag = "2")]
    Named(String),
}

/// A float tensor; −1 is a dynamic dimension.
pub fn value(name: &str, shape: &[i64]) -> Value {
    let extent = |&size: &i64| if size < 0 { Extent::Named("n".to_owned()) } else { Extent::Fixed(size) };
    let dimensions = shape.iter().map(|size| Dimension { extent: Some(extent(size)) }).collect();
    let tensor = Tensor { element: 1, shape: Some(Shape { dimensions }) };
    Value { name: name.to_owned(), kind: Some(Kind { tensor: Some(tensor) }) }
}

pub fn node(name: &str, operator: &str, inputs: &[&str], outputs: &[&str]) -> Node {
    let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    let (name, operator) = (name.to_owned(), operator.to_owned());
    Node { inputs: owned(inputs), outputs: owned(outputs), name, operator, attributes: Vec::new() }
}

/// Weights in the model.
pub fn floats(name: &str, shape: &[usize], values: &[f32]) -> Initializer {
    assert_eq!(shape.iter().product::<usize>(), values.len(), "{name}");
    initializer(name, 1, shape, values.iter().flat_map(|value| value.to_le_bytes()).collect())
}

/// Integers in the model: shapes, axes, indices.
pub fn integers(name: &str, shape: &[usize], values: &[i64]) -> Initializer {
    assert_eq!(shape.iter().product::<usize>(), values.len(), "{name}");
    initializer(name, 7, shape, values.iter().flat_map(|value| value.to_le_bytes()).collect())
}

fn initializer(name: &str, element: i32, shape: &[usize], raw: Vec<u8>) -> Initializer {
    let shape = shape.iter().map(|&size| size as i64).collect();
    Initializer { shape, element, name: name.to_owned(), raw: Some(raw), ..Initializer::default() }
}

/// Weights of `count` floats, all of `file`.
pub fn external(name: &str, count: i64, file: &str) -> Initializer {
    let entry = |key: &str, value: String| Entry { key: key.to_owned(), value };
    let external = vec![entry("location", file.to_owned()), entry("length", (count * 4).to_string())];
    Initializer { shape: vec![1, count], element: 1, name: name.to_owned(), external, location: 1, raw: None }
}

/// A model of `nodes` between the values named.
pub fn model(nodes: Vec<Node>, inputs: Vec<Value>, outputs: Vec<Value>) -> Vec<u8> {
    model_with(Vec::new(), nodes, inputs, outputs)
}

/// As [`model`], with weights.
pub fn model_with(
    initializers: Vec<Initializer>,
    nodes: Vec<Node>,
    inputs: Vec<Value>,
    outputs: Vec<Value>,
) -> Vec<u8> {
    model_of_opset(17, initializers, nodes, inputs, outputs)
}

/// As [`model_with`], of another operator set.
pub fn model_of_opset(
    version: i64,
    initializers: Vec<Initializer>,
    nodes: Vec<Node>,
    inputs: Vec<Value>,
    outputs: Vec<Value>,
) -> Vec<u8> {
    let graph = Graph { nodes, name: "test".to_owned(), initializers, inputs, outputs };
    let opset = Opset { domain: String::new(), version };
    Model { ir_version: 8, graph: Some(graph), opsets: vec![opset] }.encode_to_vec()
}

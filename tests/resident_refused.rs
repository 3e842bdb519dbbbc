//! What resident engines cannot compute is refused by operator and node, with what about it, and what happens then.

mod common;
#[path = "common/onnx.rs"]
mod onnx;
#[path = "common/random_network.rs"]
mod random_network;

use onnx::{Node, node};
use random_network::Growing;
use tickrt::onnx::Model;
use tickrt::resident::lower;
use tickrt::{ErrorKind, Shapes};

/// The refusal of a network whose one node `what` makes on an input of this shape.
#[track_caller]
fn refused(shape: &[usize], what: impl FnOnce(&mut Growing) -> Node, words: &[&str]) {
    refused_of_opset(17, shape, what, words);
}

#[track_caller]
fn refused_of_opset(opset: i64, shape: &[usize], what: impl FnOnce(&mut Growing) -> Node, words: &[&str]) {
    let mut growing = Growing::new(1, shape);
    let made = what(&mut growing);
    growing.add(Node { name: "the_node".to_owned(), ..made });
    let error = lower(&Model::from_bytes(growing.model_of_opset(opset)).unwrap(), &Shapes::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    for word in [&["the chain goes on to TensorRT"], words].concat() {
        assert!(error.to_string().contains(word), "`{word}` is not in: {error}");
    }
}

#[test]
fn unknown_operators_are_named() {
    refused(&[1, 8], |g| g.node("Cosh", &[]), &["Cosh `the_node`", "an operator that they do not have"]);
    refused(&[1, 8], |g| g.node("Erf", &[]), &["Erf `the_node`"]);
    refused_of_opset(6, &[1, 8], |g| g.node("Relu", &[]), &["opset 6"]);
}

#[test]
fn matrices_that_are_no_weights_are_refused() {
    refused(&[4, 4], |g| g.node("MatMul", &["input"]), &["MatMul `the_node`", "an input 1 that the network computes"]);
    let vector = |g: &mut Growing| {
        let weights = g.weight(&[4], 4);
        g.node("MatMul", &[&weights])
    };
    refused(&[1, 4], vector, &["a vector of weights"]);
    let repeated = |g: &mut Growing| {
        let constant = g.weight(&[3, 4], 1);
        g.node("Add", &[&constant])
    };
    refused(&[1, 4], repeated, &["Add `the_node`", "a constant that repeats a value"]);
}

#[test]
fn convolutions_beyond_two_dimensions_and_one_image_are_refused() {
    let conv = |kernel: &'static [usize]| {
        move |g: &mut Growing| {
            let weights = g.weight(kernel, 9);
            g.node("Conv", &[&weights])
        }
    };
    refused(&[1, 2, 4, 4, 4], conv(&[3, 2, 2, 2, 2]), &["Conv `the_node`", "one and two dimensions"]);
    refused(&[2, 2, 4], conv(&[3, 2, 2]), &["Conv `the_node`", "the batch is 1"]);
    let ceil = |g: &mut Growing| g.node("MaxPool", &[]).with("ceil_mode", 1_i64).with("kernel_shape", &[2_usize][..]);
    refused(&[1, 2, 5], |g| ceil(g).with("strides", &[2_usize][..]), &["MaxPool `the_node`", "ceil_mode"]);
}

#[test]
fn recurrent_layers_say_which_of_their_options_it_is() {
    let lstm = |g: &mut Growing, directions: usize| {
        let weights = [[directions, 12, 4], [directions, 12, 3]].map(|shape| g.weight(&shape, 4));
        g.node("LSTM", &[&weights[0], &weights[1]]).with("hidden_size", 3_i64)
    };
    refused(&[5, 1, 4], |g| lstm(g, 2).with("direction", "bidirectional"), &["LSTM `the_node`", "`bidirectional`"]);
    refused(&[5, 1, 4], |g| lstm(g, 1).with("direction", "reverse"), &["`reverse`"]);
    refused(&[5, 1, 4], |g| lstm(g, 1).with("layout", 1_i64), &["layout 1"]);
    refused(&[5, 1, 4], |g| lstm(g, 1).with("clip", 3.0_f32), &["the attribute `clip`"]);
    refused(&[5, 1, 4], |g| lstm(g, 1).with("input_forget", 1_i64), &["coupled"]);
    refused(&[5, 2, 4], |g| lstm(g, 1), &["batch of 1"]);
    // Its cell is an output of the network.
    let mut growing = Growing::new(1, &[5, 1, 4]);
    let node = lstm(&mut growing, 1);
    let node = Node { outputs: ["every", "last", "the_cell"].map(str::to_owned).to_vec(), ..node };
    growing.add(Node { name: "the_node".to_owned(), ..node });
    growing.last = "the_cell".to_owned();
    let error = lower(&Model::from_bytes(growing.model()).unwrap(), &Shapes::new()).unwrap_err();
    assert!(error.to_string().contains("a use of its output 2"), "{error}");
}

#[test]
fn moves_by_numbers_that_are_computed_are_refused() {
    let several = |g: &mut Growing| {
        let indices = g.integers(&[0, 2]);
        g.node("Gather", &[&indices]).with("axis", 1_i64)
    };
    refused(&[1, 4], several, &["Gather `the_node`", "2 indices"]);
    let mirrored = |g: &mut Growing| {
        let pads = g.integers(&[0, 1, 0, 1]);
        g.node("Pad", &[&pads]).with("mode", "reflect")
    };
    refused(&[1, 4], mirrored, &["Pad `the_node`", "`reflect`"]);
    refused(&[1, 4], |g| g.node("Softmax", &[]).with("axis", 5_i64), &["Softmax `the_node`", "axis 5 of 2"]);
}

#[test]
fn dynamic_dimension_other_than_the_batch_needs_the_sessions_shape() {
    let bytes = onnx::model(
        vec![node("relu", "Relu", &["x"], &["y"])],
        vec![onnx::value("x", &[-1, -1, 4])],
        vec![onnx::value("y", &[-1, -1, 4])],
    );
    let model = Model::from_bytes(bytes).unwrap();
    assert_eq!(lower(&model, &Shapes::new()).unwrap_err().kind(), ErrorKind::Shape);
    let given = Shapes::from([("x".to_owned(), vec![1, 7, 4])]);
    let network = lower(&model, &given).unwrap();
    assert_eq!(network.value(network.inputs[0]).shape, [7, 4]);
    let wrong = Shapes::from([("x".to_owned(), vec![1, 7, 5])]);
    assert_eq!(lower(&model, &wrong).unwrap_err().kind(), ErrorKind::Shape);
}

//! Networks parted at their window's newest row: both parts together give the whole's bits, by the plain executor. No GPU,
//! no ONNX Runtime.

mod common;
#[path = "common/onnx.rs"]
mod onnx;
#[path = "common/random_network.rs"]
mod random_network;

use common::model;
use proptest::prelude::*;
use random_network::{Growing, Random};
use tickrt::onnx::Model;
use tickrt::resident::budget::count;
use tickrt::resident::lower;
use tickrt::resident::network::{Along, Network, Operation};
use tickrt::resident::reference::{self, Accumulation};
use tickrt::resident::stream::{Split, roll, split};
use tickrt::{ErrorKind, Shapes};

fn lowered(bytes: Vec<u8>) -> Network {
    lower(&Model::from_bytes(bytes).unwrap(), &Shapes::new()).unwrap()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// The network parted along `axis` of its input. Panics where the parts do not give the whole's bits.
fn parted(network: &Network, axis: usize, input: &[f32]) -> Split {
    let split = split(network, 0, axis).unwrap();
    for part in [&split.ahead, &split.remaining] {
        part.check().unwrap();
    }
    let along = Along::new(&network.value(network.inputs[0]).shape, axis);
    let (mut before, mut newest) = (Vec::new(), Vec::new());
    for rows in input.chunks(along.length * along.inner) {
        let (old, new) = rows.split_at((along.length - 1) * along.inner);
        before.extend_from_slice(old);
        newest.extend_from_slice(new);
    }
    for accumulation in [Accumulation::F32, Accumulation::F64] {
        let whole = reference::run(network, &[input], accumulation).unwrap();
        let carried = reference::run(&split.ahead, &[&before], accumulation).unwrap();
        let inputs: Vec<&[f32]> = std::iter::once(&newest).chain(&carried).map(Vec::as_slice).collect();
        let together = reference::run(&split.remaining, &inputs, accumulation).unwrap();
        assert_eq!(bits(&whole[0]), bits(&together[0]));
    }
    split
}

fn names(network: &Network) -> Vec<&'static str> {
    let name = |operation: &Operation| match operation {
        Operation::Dense(_) => "Dense",
        Operation::Conv(_) => "Conv",
        Operation::Recurrent(_) => "Recurrent",
        Operation::RecurrentStep(_) => "RecurrentStep",
        Operation::Concat { .. } => "Concat",
        Operation::Slice(_) => "Slice",
        _ => "another",
    };
    network.stages.iter().map(|stage| name(&stage.operation)).collect()
}

/// Random numbers for the network's input.
fn input(network: &Network) -> Vec<f32> {
    Random(11).floats(network.value(network.inputs[0]).count(), 2.0)
}

#[test]
fn stacked_lstms_have_one_product_a_layer_left() {
    for (name, features, units, layers) in [("lstm_a", 100, 100, 2), ("lstm_m", 50, 128, 2), ("lstm_s", 25, 64, 1)] {
        let network = lower(&Model::read(model(&format!("{name}.onnx"))).unwrap(), &Shapes::new()).unwrap();
        let split = parted(&network, 0, &input(&network));
        let expected: Vec<&str> = std::iter::repeat_n("RecurrentStep", layers).chain(["Dense"]).collect();
        assert_eq!(names(&split.remaining), expected, "{name}");
        // The row's part of the gates; the state's is computed ahead.
        let products = 4 * units * (features + (layers - 1) * units) + units;
        assert_eq!(count(&split.remaining).multiply_adds(), products as u64, "{name}");
    }
}

/// `layers` recurrent layers over `[1, steps, features]`, a dense layer on the last step.
fn stacked(is_lstm: bool, reset_last: bool, [steps, features, layers, units]: [usize; 4]) -> Network {
    let mut growing = Growing::new(5, &[1, steps, features]);
    for layer in 0..layers {
        growing.recurrent_of(is_lstm, units, reset_last, layer + 1 < layers);
    }
    growing.matmul();
    lowered(growing.model())
}

#[test]
fn shape_of_lstm_b_has_one_product_a_layer_left() {
    let network = stacked(true, false, [100, 250, 3, 200]);
    let split = parted(&network, 0, &input(&network));
    assert_eq!(names(&split.remaining)[..3], ["RecurrentStep"; 3]);
    assert!(!names(&split.remaining).contains(&"Recurrent"));
    let (whole, left) = (count(&network).multiply_adds(), count(&split.remaining).multiply_adds());
    assert!(left * 150 < whole, "{left} of {whole} are left");
}

/// What follows from the layers' last outputs and cells is what the parted network has of it, to the bit.
#[test]
fn rows_of_stacked_layers_go_through_all_windows() {
    for (is_lstm, layers) in [(true, 1), (true, 3), (false, 2)] {
        let network = stacked(is_lstm, true, [7, 5, layers, 6]);
        let window = input(&network);
        let split = parted(&network, 0, &window);
        let rolling = roll(&split).expect("a stack");
        assert_eq!(rolling.layers.len(), layers);
        assert!(rolling.layers.iter().all(|layer| layer.cell.is_some() == is_lstm));
        assert!(!names(&rolling.ahead).iter().any(|name| ["Recurrent", "Slice"].contains(name)));
        rolling.ahead.check().unwrap();
        let before = &window[..6 * 5];
        let mut layers = split.ahead.clone();
        layers.outputs.clone_from(&rolling.ahead.inputs);
        let given = reference::run(&layers, &[before], Accumulation::F32).unwrap();
        let given: Vec<&[f32]> = given.iter().map(Vec::as_slice).collect();
        let expected = reference::run(&split.ahead, &[before], Accumulation::F32).unwrap();
        assert_eq!(reference::run(&rolling.ahead, &given, Accumulation::F32).unwrap(), expected);
    }
}

#[test]
fn what_sees_earlier_rows_otherwise_does_not_roll() {
    let mut of_convolution = Growing::new(3, &[1, 6, 20]);
    of_convolution.conv_of(1, 4);
    // A layer whose outputs of all steps are the answer.
    let mut of_all = Growing::new(3, &[1, 6, 4]);
    of_all.recurrent_of(true, 3, true, true);
    // The last output of one step is all of them.
    let short = stacked(true, true, [2, 5, 1, 6]);
    for network in [lowered(of_convolution.model()), lowered(of_all.model()), short] {
        assert!(roll(&split(&network, 0, 0).unwrap()).is_none(), "{:?}", names(&network));
    }
}

#[test]
fn stacked_grus_keep_what_their_reset_gate_comes_before() {
    for reset_last in [true, false] {
        let network = stacked(false, reset_last, [9, 7, 3, 5]);
        let split = parted(&network, 0, &input(&network));
        assert_eq!(names(&split.remaining)[..3], ["RecurrentStep"; 3]);
        let matrices = split.remaining.stages.iter().filter_map(|stage| match &stage.operation {
            Operation::RecurrentStep(step) => Some(step.candidate.0.len()),
            _ => None,
        });
        let expected = if reset_last { 0 } else { 25 };
        assert_eq!(matrices.collect::<Vec<_>>(), [expected; 3]);
    }
}

#[test]
fn causal_convolutions_compute_their_last_place_alone() {
    // Two layers, the second with its places two apart, padded before the window's first row as exporters pad.
    let mut growing = Growing::new(3, &[1, 6, 20]);
    for (channels, dilation) in [(6, 1), (8, 2)] {
        let pads = growing.integers(&[0, 0, 2 * dilation, 0, 0, 0]);
        let node = growing.node("Pad", &[&pads]);
        growing.add(node);
        let weights = growing.weight(&[8, channels, 3], 3 * channels);
        let node = growing.node("Conv", &[&weights]).with("dilations", &[dilation as usize][..]);
        growing.add(node);
        let node = growing.node("Relu", &[]);
        growing.add(node);
        growing.shape = vec![1, 8, 20];
    }
    let (axis, last) = (growing.integers(&[2]), growing.integers(&[-1]));
    let end = growing.integers(&[i64::MAX]);
    let node = growing.node("Slice", &[&last, &end, &axis]);
    growing.add(node);
    growing.shape = vec![1, 8, 1];
    let network = lowered(growing.model());
    assert_eq!(names(&network), ["Conv", "Conv", "Slice"], "the pads are the convolutions' own");
    let split = parted(&network, 1, &input(&network));
    let left: u64 = count(&split.remaining).multiply_adds();
    assert_eq!(left, (8 * 6 * 3 + 8 * 8 * 3), "one place of twenty");
}

#[test]
fn places_behind_the_newest_row_stay_with_it() {
    // The last place's window is padding alone, or begins with the newest row.
    for (rows, stride) in [(3_usize, 4_usize), (4, 3)] {
        let mut growing = Growing::new(3, &[1, 2, rows]);
        let weights = growing.weight(&[3, 2, 1], 2);
        let node = growing.node("Conv", &[&weights]).with("pads", &[0_usize, 2][..]).with("strides", &[stride][..]);
        growing.add(node);
        growing.shape = vec![1, 3, 2];
        let network = lowered(growing.model());
        parted(&network, 1, &input(&network));
    }
}

#[test]
fn window_that_is_not_there_is_refused() {
    let network = lower(&Model::read(model("mlp.onnx")).unwrap(), &Shapes::new()).unwrap();
    assert_eq!(split(&network, 0, 1).unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(split(&network, 1, 0).unwrap_err().kind(), ErrorKind::InvalidArgument);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_networks_parted_anywhere_keep_every_bit(seed in any::<u64>(), layers in 1_usize..6, axis in 0_usize..3) {
        let (bytes, count) = Growing::random(seed, layers);
        let network = lowered(bytes);
        let dimensions = network.value(network.inputs[0]).shape.len();
        if dimensions > 0 {
            parted(&network, axis % dimensions, &Random(!seed).floats(count, 3.0));
        }
    }
}

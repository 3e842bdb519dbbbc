use super::*;
use crate::onnx::Model;
use crate::resident::lower;
use crate::resident::network::{Cell, Dense, Emit, Recurrent, Value};
use crate::resident::stream::split;
use crate::tensor::Shapes;
use crate::test_support::{assert_refused, root};

fn network(name: &str) -> Network {
    lower(&Model::read(root().join(format!("models/{name}.onnx"))).unwrap(), &Shapes::new()).unwrap()
}

fn placed(name: &str, kept_as: WeightType) -> (u64, u64, Activations) {
    let placement = count(&network(name)).place(Hardware::H100, kept_as).unwrap();
    (placement.clusters, placement.blocks, placement.activations)
}

#[test]
fn counts_are_those_of_the_layers() {
    let budget = count(&network("mlp"));
    // 256-512-512-256-3, biases too; the softmax has none.
    assert_eq!(budget.weight_bytes(WeightType::F32), 526_339 * 4);
    assert_eq!(budget.weight_bytes(WeightType::F16), 526_339 * 2);
    assert_eq!(budget.multiply_adds(), 256 * 512 + 512 * 512 + 512 * 256 + 256 * 3);
    assert_eq!(budget.activation_bytes, (512 + 512) * 4, "the widest layer's input and output");
    let written: Vec<u64> = budget.stages.iter().map(|stage| stage.written_bytes).collect();
    assert_eq!(written, [2048, 2048, 1024, 12, 12]);
    let lstm = count(&network("lstm_s"));
    assert_eq!(lstm.multiply_adds(), 50 * 4 * 64 * (25 + 64) + 64);
    let conv = count(&network("cnn_small"));
    assert_eq!(conv.stages[0].multiply_adds, 16 * 9 * 32 * 32);
    assert_eq!(conv.activation_bytes, 4 * (16 * 32 * 32 + 16 * 16 * 16));
}

#[test]
fn smallest_placement_is_found_by_size() {
    assert_eq!(placed("identity", WeightType::F32), (1, 1, Activations::Whole));
    assert_eq!(placed("lstm", WeightType::F32), (1, 1, Activations::Whole));
    assert_eq!(placed("toy_cnn", WeightType::F32), (1, 1, Activations::Whole));
    assert_eq!(placed("mlp_384", WeightType::F32), (1, 4, Activations::Whole));
    assert_eq!(placed("mlp", WeightType::F32), (1, 8, Activations::Whole));
    assert_eq!(placed("mlp", WeightType::F16), (1, 4, Activations::Whole));
    assert_eq!(placed("lstm_m", WeightType::F32), (1, 4, Activations::Whole));
    // 32 channels of 100 × 20 are more than one block's shared memory.
    assert_eq!(placed("deeplob", WeightType::F32).2, Activations::Spread);
}

/// `layers` LSTMs over a window, without the numbers of a trained one.
fn recurrent(steps: usize, features: usize, layers: usize, units: usize) -> Network {
    let zeros = |count: usize| vec![0.0; count].into();
    let mut network = Network::default();
    let mut last = network.add_value("input", vec![steps, features]);
    network.inputs.push(last);
    for layer in 0..layers {
        let inputs = if layer == 0 { features } else { units };
        let of = Recurrent {
            cell: Cell::Lstm,
            steps,
            inputs,
            units,
            weights: zeros(4 * units * inputs),
            recurrent: zeros(4 * units * units),
            bias: zeros(4 * units),
            recurrent_bias: zeros(4 * units),
            initial: zeros(units),
            initial_cell: zeros(units),
            emit: if layer + 1 == layers { Emit::Last } else { Emit::All },
        };
        let shape = if layer + 1 == layers { vec![units] } else { vec![steps, units] };
        let value = Value { name: format!("layer {layer}"), shape };
        last = network.add_stage(Operation::Recurrent(of), &[last], value, &[]);
    }
    network.outputs.push(last);
    network
}

#[test]
fn network_beyond_the_gpu_is_refused_with_its_bytes() {
    // lstm_c: with its recurrent matrices 60 MB in half precision.
    let budget = count(&recurrent(100, 500, 4, 1000));
    assert_eq!(budget.weight_bytes(WeightType::F16), 2 * (4000 * 1500 + 3 * 4000 * 2000 + 4 * 8000));
    assert_refused(
        budget.place(Hardware::H100, WeightType::F16),
        ErrorKind::Unsupported,
        &["60064000 bytes in F16", "more than the 52428800", "TensorRT"],
    );
    // What remains of it at its newest row has no recurrent matrices, and fits.
    let remaining = split(&recurrent(100, 500, 4, 1000), 0, 0).unwrap().remaining;
    let budget = count(&remaining);
    assert_eq!(budget.weight_bytes(WeightType::F16), 2 * (4000 * 500 + 3 * 4000 * 1000 + 4 * 4000));
    assert_eq!(budget.place(Hardware::H100, WeightType::F16).unwrap().clusters, 5);
    // lstm_b wants several blocks, and does fit.
    let placement = count(&recurrent(100, 250, 3, 200)).place(Hardware::H100, WeightType::F32).unwrap();
    assert_eq!((placement.clusters, placement.blocks), (1, 16));
}

#[test]
fn placement_grows_to_clusters_and_never_past_the_facts() {
    let dense = |inputs: usize| {
        let mut network = Network::default();
        let input = network.add_value("input", vec![inputs]);
        network.inputs.push(input);
        let weights = vec![0.0; inputs * 1000].into();
        let dense = Dense { rows: 1, inputs, outputs: 1000, weights, bias: None, activation: None };
        let value = Value { name: "output".to_owned(), shape: vec![1000] };
        let output = network.add_stage(Operation::Dense(dense), &[input], value, &[]);
        network.outputs.push(output);
        count(&network)
    };
    let mut before = 0;
    for inputs in [1, 50, 100, 300, 1000, 2000, 4000, 8000] {
        let budget = dense(inputs);
        let Placement { clusters, blocks, weight_bytes_each, spare_bytes_each, .. } =
            budget.place(Hardware::H100, WeightType::F32).unwrap();
        assert!(clusters * blocks >= before, "more weights never take fewer blocks");
        assert!(weight_bytes_each * clusters * blocks >= budget.weight_bytes(WeightType::F32));
        assert!(weight_bytes_each + spare_bytes_each <= 227 * 1024 + 128 * 1024);
        assert!(clusters == 1 || blocks == 16);
        before = clusters * blocks;
    }
    assert!(before > 16);
    assert!(dense(12_000).place(Hardware::H100, WeightType::F32).is_err());
}

#[test]
fn predicted_cycles_are_near_the_probe() {
    // 418 + 1187 + 1260 + 850 + 267 were measured.
    let predicted = predicted_cycles(&network("mlp"), 16) as f64;
    assert!((predicted / 3982.0 - 1.0).abs() < 0.1, "{predicted}");
}

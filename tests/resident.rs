//! Networks as resident engines will compute them, by the plain executor, against ONNX Runtime on the CPU: every model of
//! the zoo on real windows, random networks, extreme values. No GPU.

mod common;
#[path = "common/labelled.rs"]
mod labelled;
#[path = "common/onnx.rs"]
mod onnx;
#[path = "common/random_network.rs"]
mod random_network;

use common::{model, normalization, npy, root};
use labelled::onnx_runtime;
use proptest::prelude::*;
use random_network::{Growing, Random};
use tickrt::backend::ort::OrtBackend;
use tickrt::onnx::Model;
use tickrt::resident::lower;
use tickrt::resident::network::{Emit, Network, Operation};
use tickrt::resident::reference::{self, Accumulation};
use tickrt::{Normalizer, Session, SessionConfig, Shapes};

fn read(name: &str) -> Model {
    Model::read(model(&format!("{name}.onnx"))).unwrap()
}

/// ONNX Runtime's answer to one input.
fn runtime(model: &Model) -> impl FnMut(&[f32]) -> Vec<f32> {
    let config = SessionConfig { cpu_threads: 1, warm_up: 0, ..SessionConfig::default() };
    let mut session = Session::start(Box::new(OrtBackend::cpu(model, &config).unwrap()), &config).unwrap();
    let count = session.signature().shapes[0].outputs[0].count;
    move |input| {
        let mut output = vec![0.0; count];
        session.infer(input, &mut output).unwrap();
        output
    }
}

fn plain(network: &Network, input: &[f32]) -> Vec<f32> {
    reference::run(network, &[input], Accumulation::F64).unwrap().swap_remove(0)
}

/// The largest difference, in units of the largest number (of 1 if that is smaller).
fn difference(one: &[f32], other: &[f32]) -> f32 {
    assert_eq!(one.len(), other.len());
    let largest = other.iter().fold(1.0_f32, |largest, x| largest.max(x.abs()));
    let apart = |(a, b): (&f32, &f32)| if a == b || (a.is_nan() && b.is_nan()) { 0.0 } else { (a - b).abs() };
    // NaN on one side alone is not to be lost in `max`.
    let distances = one.iter().zip(other).map(apart).map(|apart| if apart.is_nan() { f32::INFINITY } else { apart });
    distances.fold(0.0, f32::max) / largest
}

// ---- the zoo ----

/// Real windows as the network takes them; every sixteenth.
fn windows(name: &str, model: &Model) -> Vec<Vec<f32>> {
    let input = &model.inputs()[0];
    let shape: Vec<i64> = input.shape.iter().map(|&size| size.abs()).collect();
    let normalizer = Normalizer::new(&normalization(name), input, &shape, None).unwrap();
    let data = root().join("models/data");
    let bytes = if name == "cnn_small" {
        npy::<u8>(data.join("nasdaq_images32.npy")).0
    } else {
        bytemuck::cast_slice(&npy::<f32>(data.join("nasdaq_windows.npy")).0).to_vec()
    };
    let window = |raw: &[u8]| {
        let mut normalized = vec![0.0_f32; normalizer.count()];
        normalizer.apply(raw, bytemuck::cast_slice_mut(&mut normalized)).unwrap();
        normalized
    };
    bytes.chunks_exact(normalizer.input_bytes()).step_by(16).map(window).collect()
}

#[test]
fn trained_models_answer_as_onnx_runtime_does_on_real_windows() {
    if !onnx_runtime() {
        return;
    }
    for name in ["toy_cnn", "mlp", "mlp_dynamic", "cnn_small", "lstm"] {
        let model = read(name);
        let network = lower(&model, &Shapes::new()).unwrap();
        let (mut runtime, windows) = (runtime(&model), windows(name, &model));
        assert!(windows.len() > 100);
        let worst = windows.iter().map(|window| difference(&plain(&network, window), &runtime(window)));
        let worst = worst.fold(0.0, f32::max);
        println!("{name}: {} windows, largest difference {worst:e}", windows.len());
        assert!(worst < 2e-6, "{name}: {worst}");
    }
}

#[test]
fn seeded_models_answer_as_onnx_runtime_does() {
    if !onnx_runtime() {
        return;
    }
    for name in ["mlp_384", "lstm_s", "lstm_m", "deeplob", "lstm_a", "identity"] {
        let model = read(name);
        let network = lower(&model, &Shapes::new()).unwrap();
        let mut runtime = runtime(&model);
        let mut random = Random(7);
        let worst = [0.1, 1.0, 10.0].map(|bound| {
            let input = random.floats(network.value(network.inputs[0]).count(), bound);
            difference(&plain(&network, &input), &runtime(&input))
        });
        println!("{name}: largest differences {worst:?}");
        assert!(worst.iter().all(|&worst| worst < 3e-6), "{name}: {worst:?}");
    }
}

/// What the stages of a network are, as the kernels will have them.
fn stages(name: &str) -> Vec<String> {
    let network = lower(&read(name), &Shapes::new()).unwrap();
    let name = |operation: &Operation| {
        let text = format!("{operation:?}");
        text.split(|c: char| !c.is_alphanumeric()).next().unwrap().to_owned()
    };
    network.stages.iter().map(|stage| name(&stage.operation)).collect()
}

#[test]
fn models_become_as_few_stages_as_they_have_layers() {
    assert_eq!(stages("toy_cnn"), ["Conv", "Conv", "Dense", "Dense", "Softmax"]);
    assert_eq!(stages("mlp"), ["Dense", "Dense", "Dense", "Dense", "Softmax"]);
    assert_eq!(stages("cnn_small"), ["Conv", "Pool", "Conv", "Pool", "Dense", "Dense", "Softmax"]);
    assert_eq!(stages("lstm"), ["Recurrent", "Dense", "Softmax"]);
    assert_eq!(stages("lstm_m"), ["Recurrent", "Recurrent", "Dense"]);
    assert!(stages("identity").is_empty(), "its output is its input");
    let network = lower(&read("lstm_m"), &Shapes::new()).unwrap();
    let emits = network.stages.iter().filter_map(|stage| match &stage.operation {
        Operation::Recurrent(recurrent) => Some(recurrent.emit),
        _ => None,
    });
    assert_eq!(emits.collect::<Vec<_>>(), [Emit::All, Emit::Last]);
}

// ---- what exporters write ----

/// A network of these nodes answers as ONNX Runtime does, and has these many stages.
fn written(opset: i64, shape: &[usize], stages: usize, write: impl FnOnce(&mut Growing)) {
    if !onnx_runtime() {
        return;
    }
    let mut growing = Growing::new(4, shape);
    write(&mut growing);
    let bytes = growing.model_of_opset(opset);
    let network = lower(&Model::from_bytes(bytes.clone()).unwrap(), &Shapes::new()).unwrap();
    assert_eq!(network.stages.len(), stages, "{:?}", network.stages);
    let input = Random(9).floats(shape.iter().product(), 2.0);
    answers_alike(bytes, &input, 2e-6).unwrap();
}

#[test]
fn state_of_zeros_made_from_the_inputs_shape_is_a_constant() {
    written(17, &[6, 1, 3], 1, |g| {
        let [w, r, b] = [vec![1, 20, 3], vec![1, 20, 5], vec![1, 40]].map(|shape| g.weight(&shape, 5));
        let (batch, one, units) = (g.integers(&[1]), g.integers(&[1]), g.integers(&[5]));
        g.add(onnx::node("shape", "Shape", &["input"], &["shape"]));
        g.add(onnx::node("batch", "Gather", &["shape", &batch], &["batch"]).with("axis", 0_i64));
        g.add(onnx::node("sizes", "Concat", &[&one, "batch", &units], &["sizes"]).with("axis", 0_i64));
        g.add(onnx::node("zeros", "ConstantOfShape", &["sizes"], &["zeros"]));
        let inputs = ["input", &w, &r, &b, "", "zeros", "zeros"];
        g.add(onnx::node("lstm", "LSTM", &inputs, &["", "last"]).with("hidden_size", 5_i64));
        g.last = "last".to_owned();
        g.shape = vec![1, 1, 5];
    });
}

#[test]
fn weights_transposed_in_the_graph_are_constants() {
    written(17, &[1, 6], 1, |g| {
        let (weights, bias) = (g.weight(&[4, 6], 6), g.weight(&[4], 6));
        g.add(onnx::node("turned", "Transpose", &[&weights], &["turned"]));
        g.add(onnx::node("product", "MatMul", &["input", "turned"], &["product"]));
        g.add(onnx::node("sum", "Add", &[&bias, "product"], &["sum"]));
        g.add(onnx::node("positive", "Relu", &["sum"], &["positive"]));
        g.shape = vec![1, 4];
    });
}

#[test]
fn gelu_in_any_order_of_its_factors_is_one_stage() {
    let before = |g: &mut Growing| {
        let [root, one, half] = [std::f32::consts::FRAC_1_SQRT_2, 1.0, 0.5].map(|number| g.floats(&[], &[number]));
        g.add(onnx::node("scaled", "Mul", &["input", &root], &["scaled"]));
        g.add(onnx::node("erf", "Erf", &["scaled"], &["erf"]));
        g.add(onnx::node("plus", "Add", &[&one, "erf"], &["plus"]));
        half
    };
    written(17, &[1, 30], 1, |g| {
        let half = before(g);
        g.add(onnx::node("half", "Mul", &["input", &half], &["half"]));
        g.add(onnx::node("product", "Mul", &["half", "plus"], &["product"]));
    });
    written(17, &[1, 30], 1, |g| {
        let half = before(g);
        g.add(onnx::node("half", "Mul", &["plus", &half], &["half"]));
        g.add(onnx::node("product", "Mul", &["half", "input"], &["product"]));
    });
}

#[test]
fn softmax_before_opset_13_is_over_all_dimensions_from_its_axis_on() {
    written(11, &[1, 3, 4], 1, |g| {
        let node = g.node("Softmax", &[]).with("axis", 1_i64);
        g.add(node);
    });
}

#[test]
fn batch_normalization_becomes_the_convolutions_weights() {
    written(17, &[1, 4, 9, 9], 1, |g| {
        g.conv();
        g.batch_norm();
        let node = g.node("Relu", &[]);
        g.add(node);
    });
    // Behind an activation it stays.
    written(17, &[1, 4, 9, 9], 2, |g| {
        g.conv();
        let node = g.node("Relu", &[]);
        g.add(node);
        g.batch_norm();
    });
}

#[test]
fn value_that_two_nodes_read_is_not_fused_away() {
    written(17, &[1, 12], 3, |g| {
        let weights = g.weight(&[12, 12], 12);
        g.add(onnx::node("product", "MatMul", &["input", &weights], &["product"]));
        g.add(onnx::node("positive", "Relu", &["product"], &["positive"]));
        g.add(onnx::node("sum", "Add", &["product", "positive"], &["sum"]));
    });
}

#[test]
fn weights_in_a_file_beside_the_model_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let weights = Random(2).floats(6, 1.0);
    std::fs::write(directory.path().join("w.bin"), bytemuck::cast_slice::<f32, u8>(&weights)).unwrap();
    let sum = onnx::node("sum", "Add", &["x", "w"], &["y"]);
    let values = [onnx::value("x", &[1, 6]), onnx::value("y", &[1, 6])];
    let [x, y] = values.map(|value| vec![value]);
    let bytes = onnx::model_with(vec![onnx::external("w", 6, "w.bin")], vec![sum], x, y);
    let path = directory.path().join("m.onnx");
    std::fs::write(&path, bytes).unwrap();
    let network = lower(&Model::read(&path).unwrap(), &Shapes::new()).unwrap();
    assert_eq!(plain(&network, &[0.0; 6]), weights);
}

// ---- random networks ----

fn answers_alike(bytes: Vec<u8>, input: &[f32], tolerance: f32) -> std::result::Result<(), TestCaseError> {
    let model = Model::from_bytes(bytes).unwrap();
    let network = lower(&model, &Shapes::new()).map_err(|error| TestCaseError::fail(error.to_string()))?;
    let (expected, got) = (runtime(&model)(input), plain(&network, input));
    let apart = difference(&got, &expected);
    prop_assert!(apart <= tolerance, "{apart}: {got:?} for {expected:?}, {:?}", model.operators());
    // The order of f32 sums may not cost more than that either.
    let plainly = reference::run(&network, &[input], Accumulation::F32).unwrap().swap_remove(0);
    let apart = difference(&plainly, &expected);
    prop_assert!(apart <= 4.0 * tolerance, "{apart} in f32");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_networks_answer_as_onnx_runtime_does(seed in any::<u64>(), layers in 1_usize..7) {
        if onnx_runtime() {
            let (bytes, count) = Growing::random(seed, layers);
            answers_alike(bytes, &Random(!seed).floats(count, 3.0), 1e-4)?;
        }
    }

    /// One layer, and large numbers of one sign: what is left where large numbers cancel is only rounding.
    #[test]
    fn single_layers_answer_as_onnx_runtime_does_on_extreme_values(seed in any::<u64>()) {
        if onnx_runtime() {
            let (bytes, count) = Growing::random(seed, 1);
            let mut random = Random(!seed);
            let sign = random.pick(&[1.0_f32, -1.0]);
            let extremes = [0.0, -0.0, 1e-40, -1e-40, f32::MIN_POSITIVE, 1.0, -1.0, 88.0, -88.0, sign * 1e4, sign * 1e12];
            let input: Vec<f32> = (0..count).map(|_| random.pick(&extremes)).collect();
            answers_alike(bytes, &input, 1e-4)?;
        }
    }
}

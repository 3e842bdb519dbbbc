//! FP16 and INT8 in the graph, on a machine without a GPU: lowered models run in ONNX Runtime on real windows and are built
//! by TensorRT-RTX. Without those libraries the tests say that they are skipped; `TICKRT_REQUIRE_SDK=1` makes that a failure.

mod common;
#[path = "common/labelled.rs"]
mod labelled;

use std::path::PathBuf;

use common::{model, normalization, root};
use labelled::{Labelled, onnx_runtime};
use tickrt::onnx::{Keep, Model};
use tickrt::{
    Builder, BuilderConfig, Calibration, CalibrationMethod, ComputeCapabilities, ErrorKind, Library, Precision,
    PrecisionConstraints, Preference, Ranges, Shapes, observe, read_files,
};

const ZOO: [&str; 4] = ["toy_cnn", "mlp", "cnn_small", "lstm"];

fn read(name: &str) -> Model {
    Model::read(model(&format!("{name}.onnx"))).unwrap()
}

fn calibration_file(name: &str) -> PathBuf {
    let kind = if name == "cnn_small" { "images32" } else { "windows" };
    root().join(format!("models/data/sp500_calibration_{kind}.npy"))
}

fn calibration(name: &str, model: &Model, method: CalibrationMethod) -> Calibration {
    let normalizations = vec![normalization(name)];
    let source = read_files(model, &normalizations, &Shapes::new(), &[(None, calibration_file(name))]).unwrap();
    Calibration::new(method).source(source).normalizations(normalizations)
}

fn ranges(name: &str, model: &Model) -> Ranges {
    observe(model, calibration(name, model, CalibrationMethod::Entropy)).unwrap()
}

fn rtx() -> Option<Library> {
    match Library::open_any(&Preference::Path(labelled::sdk().join("lib/tensorrt-rtx"))) {
        Ok(library) => Some(library),
        Err(error) if labelled::required() => panic!("{error}"),
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

/// One compute capability builds faster than four.
fn quick() -> BuilderConfig {
    BuilderConfig::new().compute_capabilities(ComputeCapabilities::List(vec![86]))
}

// ---- FP16 ----

#[test]
fn fp16_model_answers_as_fp32_does_on_real_windows() {
    if !onnx_runtime() {
        return;
    }
    for name in ZOO {
        let (data, fp32) = (Labelled::of(name), read(name));
        let lowered = fp32.to_half(Precision::Fp16, &Keep::nothing()).unwrap();
        assert_eq!(lowered.model.tensors(), fp32.tensors(), "{name}: inputs and outputs keep their types");
        assert_eq!(lowered.model.origin_sha256(), fp32.sha256());
        let (reference, got) = (data.run(&fp32), data.run(&lowered.model));
        assert!(got.iter().all(|score| score.is_finite()), "{name}");
        let (top1, top1_fp32, agreement) = (data.top1(&got), data.top1(&reference), data.agreement(&got, &reference));
        println!("{name}: fp16 {top1:.4}, fp32 {top1_fp32:.4}, agreement {agreement:.4}");
        assert!(top1 > top1_fp32 - 0.01 && agreement > 0.99, "{name}: {top1} {top1_fp32} {agreement}");
        assert_ne!(got, reference, "{name}: something was rounded");
    }
}

#[test]
fn bf16_model_keeps_its_signature_and_is_another() {
    let fp32 = read("mlp");
    let lowered = fp32.to_half(Precision::Bf16, &Keep::nothing()).unwrap();
    assert_eq!(lowered.model.tensors(), fp32.tensors());
    assert!(lowered.nodes.iter().filter(|node| node.precision == Precision::Bf16).count() >= 4, "{:?}", lowered.nodes);
}

#[test]
fn kept_nodes_and_operators_stay_in_fp32_and_say_why() {
    let fp32 = read("toy_cnn");
    let keep = Keep::new(&fp32, ["/0/Conv", "Gemm"]).unwrap();
    let lowered = fp32.to_half(Precision::Fp16, &keep).unwrap();
    let of = |name: &str| lowered.nodes.iter().find(|node| node.name == name).unwrap();
    for (name, precision, why) in [
        ("/0/Conv", Precision::Fp32, "as asked"),
        ("/2/Conv", Precision::Fp16, ""),
        ("/5/Gemm", Precision::Fp32, "as asked"),
        ("/8/Softmax", Precision::Fp32, "Softmax is better kept"),
    ] {
        assert_eq!((of(name).precision, of(name).why.as_str()), (precision, why), "{name}");
    }
}

#[test]
fn node_that_does_not_exist_is_refused_with_the_nearest() {
    let error = Keep::new(&read("toy_cnn"), ["/2/Conf"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("such as /2/Conv,") && error.to_string().contains("got `/2/Conf`"), "{error}");
}

#[test]
fn model_that_is_fp16_already_is_refused() {
    let half = read("toy_cnn").to_half(Precision::Fp16, &Keep::nothing()).unwrap().model;
    let error = half.to_half(Precision::Fp16, &Keep::nothing()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(
        error.to_string().contains("16 bits already") && error.to_string().contains("leave the flag out"),
        "{error}"
    );
}

#[test]
fn model_whose_every_node_is_kept_is_refused() {
    let fp32 = read("mlp");
    let error = fp32.to_half(Precision::Fp16, &Keep::new(&fp32, ["Gemm", "Relu"]).unwrap()).unwrap_err();
    assert!(error.to_string().contains("every one is kept in FP32"), "{error}");
}

// ---- INT8 ----

#[test]
fn int8_model_by_every_method_answers_as_fp32_does_on_real_windows() {
    if !onnx_runtime() {
        return;
    }
    for name in ["toy_cnn", "mlp", "cnn_small"] {
        let (data, fp32) = (Labelled::of(name), read(name));
        let (reference, ranges) = (data.run(&fp32), ranges(name, &fp32));
        let top1_fp32 = data.top1(&reference);
        let mut best = 0.0_f64;
        for method in CalibrationMethod::ALL {
            let lowered = fp32.quantize(&ranges.table(method).scales, &Keep::nothing()).unwrap();
            let got = data.run(&lowered.model);
            let (top1, agreement) = (data.top1(&got), data.agreement(&got, &reference));
            println!("{name}: int8 {method} {top1:.4}, fp32 {top1_fp32:.4}, agreement {agreement:.4}");
            assert!(agreement > 0.9, "{name}: {method} {agreement}");
            best = best.max(top1);
        }
        assert!(best > top1_fp32 - 0.01, "{name}: {best} of {top1_fp32}");
    }
}

#[test]
fn int8_and_fp16_together_answer_as_fp32_does() {
    if !onnx_runtime() {
        return;
    }
    let (data, fp32) = (Labelled::of("cnn_small"), read("cnn_small"));
    let table = ranges("cnn_small", &fp32).table(CalibrationMethod::Percentile(99.99));
    let lowered = fp32.quantize_to_half(&table.scales, &Keep::nothing()).unwrap();
    assert_eq!(lowered.model.opset(), 19, "Q/DQ nodes in FP16");
    for precision in [Precision::Int8, Precision::Fp16, Precision::Fp32] {
        assert!(lowered.nodes.iter().any(|node| node.precision == precision), "{precision}: {:?}", lowered.nodes);
    }
    let (got, reference) = (data.run(&lowered.model), data.run(&fp32));
    assert!(data.top1(&got) > data.top1(&reference) - 0.01);
}

#[test]
fn scales_follow_the_data_and_the_method() {
    if !onnx_runtime() {
        return;
    }
    let fp32 = read("toy_cnn");
    let ranges = ranges("toy_cnn", &fp32);
    let minmax = ranges.table(CalibrationMethod::MinMax).scales;
    // The normalisation clamps at 8.
    assert!(minmax["input"] > 0.0 && minmax["input"] <= 8.0 / 127.0, "{}", minmax["input"]);
    assert!(minmax["probabilities"] <= 1.0 / 127.0);
    for method in CalibrationMethod::ALL {
        let scales = ranges.table(method).scales;
        assert_eq!(scales.keys().collect::<Vec<_>>(), minmax.keys().collect::<Vec<_>>());
        assert!(scales.iter().all(|(tensor, &scale)| scale > 0.0 && scale <= minmax[tensor]), "{method}: {scales:?}");
    }
}

#[test]
fn dynamic_model_is_calibrated_in_batches() {
    if !onnx_runtime() {
        return;
    }
    let (fp32, normalizations) = (read("mlp_dynamic"), vec![normalization("mlp_dynamic")]);
    let shapes = Shapes::from([("input".to_owned(), vec![24, 256])]);
    let source = read_files(&fp32, &normalizations, &shapes, &[(None, calibration_file("mlp"))]).unwrap();
    assert_eq!(source.left_over(), 256 % 24);
    let calibration = Calibration::new(CalibrationMethod::MinMax).source(source).normalizations(normalizations);
    let batched = observe(&fp32, calibration.shapes(shapes).most_batches(4)).unwrap();
    let single = observe(&fp32, self::calibration("mlp_dynamic", &fp32, CalibrationMethod::MinMax).most_batches(96));
    let [batched, single] = [batched, single.unwrap()].map(|ranges| ranges.table(CalibrationMethod::MinMax).scales);
    assert!((batched["input"] / single["input"] - 1.0).abs() < 1e-6, "the same 96 samples");
}

// ---- built by TensorRT-RTX ----

#[test]
fn rtx_builds_fp16_int8_and_both() {
    let Some(library) = rtx().filter(|_| onnx_runtime()) else { return };
    for name in ["toy_cnn", "mlp", "cnn_small"] {
        let fp32 = read(name);
        let build = |config: BuilderConfig| {
            let calibration = calibration(name, &fp32, CalibrationMethod::Entropy);
            let built = Builder::new(&library).calibration(calibration).build_model(&fp32, &config);
            built.unwrap_or_else(|error| panic!("{name}: {error}"))
        };
        let fp16 = Builder::new(&library).build_model(&fp32, &quick().fp16(true)).unwrap();
        let (int8, both) = (build(quick().int8(true)), build(quick().int8(true).fp16(true)));
        for (built, precision) in [(&fp16, Precision::Fp16), (&int8, Precision::Int8), (&both, Precision::Int8)] {
            assert_eq!(built.precision, precision, "{name}");
            let nodes = built.nodes.as_ref().unwrap();
            assert!(nodes.iter().any(|node| node.precision == precision), "{name}: {nodes:?}");
            let sha256: String = fp32.sha256().iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(built.onnx_sha256.as_ref(), Some(&sha256), "{name}: of the file that the caller has");
        }
        assert!(int8.layers_json.contains("\"QUANTIZE\""), "{name}: {}", int8.layers_json);
        assert!(fp16.layers_json.contains("\"precision\":\"fp16\""), "{name}: {}", fp16.layers_json);
    }
}

#[test]
fn rtx_builds_fp8_where_the_gpu_has_it_and_refuses_it_elsewhere() {
    let Some(library) = rtx().filter(|_| onnx_runtime()) else { return };
    let fp32 = read("mlp");
    let build = |list: &[u32]| {
        let config = BuilderConfig::new().fp8(true).compute_capabilities(ComputeCapabilities::List(list.to_vec()));
        let calibration = calibration("mlp", &fp32, CalibrationMethod::MinMax);
        Builder::new(&library).calibration(calibration).build_model(&fp32, &config)
    };
    let built = build(&[89]).unwrap();
    assert_eq!(built.precision, Precision::Fp8);
    assert_eq!(built.lowered.unwrap().opset(), 19);
    let error = build(&[86, 89]).unwrap_err();
    assert!(error.to_string().contains("compute capability 8.9 or newer, got 8.6; use --int8"), "{error}");
}

#[test]
fn rtx_builds_bf16_and_keeps_what_is_asked() {
    let Some(library) = rtx() else { return };
    let mut builder = Builder::new(&library);
    let bf16 = builder.build_model(&read("mlp"), &quick().bf16(true)).unwrap();
    assert_eq!(bf16.precision, Precision::Bf16);
    let config = quick().fp16(true).keep_fp32(["/0/Gemm"]).precision_constraints(PrecisionConstraints::Obey);
    let kept = builder.build_model(&read("mlp"), &config).unwrap();
    let first = kept.nodes.unwrap().into_iter().find(|node| node.name == "/0/Gemm").unwrap();
    assert_eq!(first.precision, Precision::Fp32);
}

#[test]
fn rtx_refuses_what_would_not_do_what_was_asked() {
    let Some(library) = rtx() else { return };
    let build = |config| Builder::new(&library).build_model(&read("toy_cnn"), &config).unwrap_err();
    for (config, kind, words) in [
        (quick().int8(true), ErrorKind::InvalidArgument, "--calib"),
        (quick().fp16(true).bf16(true), ErrorKind::Unsupported, "fp16 and bf16 at once"),
        (quick().fp16(true).keep_fp32(["nowhere"]), ErrorKind::InvalidArgument, "got `nowhere`"),
        (quick().keep_fp32(["/0/Conv"]), ErrorKind::InvalidArgument, "add --fp16 or --int8"),
        (
            quick().bf16(true).compute_capabilities(ComputeCapabilities::List(vec![75, 86])),
            ErrorKind::Unsupported,
            "compute capability 8.0 or newer, got 7.5",
        ),
    ] {
        let error = build(config);
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
    let useless = Builder::new(&library)
        .calibration(Calibration::new(CalibrationMethod::MinMax).samples([vec![0.0_f32; 256]]))
        .build_model(&read("toy_cnn"), &quick());
    assert!(useless.unwrap_err().to_string().contains("add --int8"));
}

/// Writes lowered models where other programs can look at them: `TICKRT_TEST_LOWERED=DIR`.
#[test]
fn lowered_models_are_written_for_the_onnx_checker() {
    let Some(folder) = std::env::var_os("TICKRT_TEST_LOWERED").map(PathBuf::from).filter(|_| onnx_runtime()) else {
        return eprintln!("skipped: TICKRT_TEST_LOWERED names no folder");
    };
    for name in ["toy_cnn", "mlp", "cnn_small", "lstm", "mlp_dynamic"] {
        let fp32 = read(name);
        let half = |to| fp32.to_half(to, &Keep::nothing()).unwrap().model;
        half(Precision::Fp16).write(folder.join(format!("{name}.fp16.onnx"))).unwrap();
        half(Precision::Bf16).write(folder.join(format!("{name}.bf16.onnx"))).unwrap();
        let scales = ranges(name, &fp32).table(CalibrationMethod::Entropy).scales;
        let int8 = fp32.quantize(&scales, &Keep::nothing()).unwrap().model;
        int8.write(folder.join(format!("{name}.int8.onnx"))).unwrap();
        let fp8 = fp32.quantize_to_fp8(&scales, &Keep::nothing()).unwrap().model;
        fp8.write(folder.join(format!("{name}.fp8.onnx"))).unwrap();
        let both = fp32.quantize_to_half(&scales, &Keep::nothing()).unwrap().model;
        both.write(folder.join(format!("{name}.int8_fp16.onnx"))).unwrap();
    }
    for name in ["deeplob", "lstm_m", "lstm_s", "mlp_384"] {
        let half = read(name).to_half(Precision::Fp16, &Keep::nothing()).unwrap().model;
        half.write(folder.join(format!("{name}.fp16.onnx"))).unwrap();
    }
}

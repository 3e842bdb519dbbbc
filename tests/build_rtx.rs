//! Building plans for real, with TensorRT-RTX: it needs no GPU. Without the library each test says that it is skipped;
//! `TICKRT_REQUIRE_SDK=1` makes that a failure.

mod common;
#[path = "common/onnx.rs"]
mod onnx;

use std::env;
use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use common::root;
use tickrt::{
    Builder, BuilderConfig, CancelToken, ComputeCapabilities, ErrorKind, Flavour, HardwareCompatibility, IoMode,
    Library, OptimizationProfile, Precision, Preference,
};

fn rtx() -> Option<Library> {
    let sdk = env::var_os("TICKRT_SDK").map_or_else(|| root().join(".sdk"), PathBuf::from);
    match Library::open_any(&Preference::Path(sdk.join("lib/tensorrt-rtx"))) {
        Ok(library) => Some(library),
        Err(error) if env::var("TICKRT_REQUIRE_SDK").as_deref() == Ok("1") => panic!("{error}"),
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

macro_rules! rtx_or_skip {
    () => {
        match rtx() {
            Some(library) => library,
            None => return,
        }
    };
}

/// A model of `nodes` from `input` of `shape` to `output` of the same shape.
fn model(shape: &[i64], nodes: Vec<onnx::Node>) -> Vec<u8> {
    onnx::model(nodes, vec![onnx::value("input", shape)], vec![onnx::value("output", shape)])
}

fn relu(shape: &[i64]) -> Vec<u8> {
    model(shape, vec![onnx::node("relu", "Relu", &["input"], &["output"])])
}

/// One compute capability builds faster than four.
fn quick() -> BuilderConfig {
    BuilderConfig::new().compute_capabilities(ComputeCapabilities::List(vec![86]))
}

fn dynamic_profile(min: i64, opt: i64, max: i64) -> OptimizationProfile {
    OptimizationProfile::new().tensor("input", &[min, 4], &[opt, 4], &[max, 4])
}

// ---- what works ----

#[test]
fn toy_cnn_builds_a_plan_with_everything_a_sidecar_needs() {
    let library = rtx_or_skip!();
    let path = root().join("models/toy_cnn.onnx");
    let plan = Builder::new(&library).build_file(&path, &BuilderConfig::new().workspace(256 << 20)).unwrap();
    assert!(plan.bytes.len() > 1000);
    assert_eq!((plan.flavour, plan.version), (Flavour::Rtx, library.version()));
    assert!(plan.version.to_string().starts_with("TensorRT-RTX 1."));
    assert_eq!(plan.precision, Precision::Tf32);
    assert_eq!(plan.compute_capabilities, [80, 86, 89, 120]);
    let input = plan.tensors.iter().find(|tensor| tensor.mode == IoMode::Input).unwrap();
    assert_eq!(input.shape, [1, 8, 32]);
    assert_eq!(plan.onnx_sha256.as_ref().map(String::len), Some(64));
    let layers: serde_json::Value = serde_json::from_str(&plan.layers_json).unwrap();
    assert!(layers.as_array().is_some_and(|layers| layers.iter().any(|layer| layer["type"] == "CONVOLUTION")));
}

#[test]
fn every_model_of_the_zoo_builds() {
    let library = rtx_or_skip!();
    for name in ["toy_cnn", "mlp", "lstm", "cnn_small", "mlp_384", "lstm_s", "lstm_m", "deeplob"] {
        let onnx = root().join("models").join(format!("{name}.onnx"));
        let built =
            Builder::new(&library).build_file(&onnx, &quick()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let ends = [IoMode::Input, IoMode::Output].map(|mode| built.tensors.iter().filter(|t| t.mode == mode).count());
        assert_eq!(ends, [1, 1], "{name}");
    }
}

#[test]
fn smoke_network_builds() {
    let library = rtx_or_skip!();
    let plan = Builder::new(&library).build_smoke_network(&quick().name("smoke")).unwrap();
    let shapes: Vec<_> = plan.tensors.iter().map(|tensor| (tensor.name.as_str(), tensor.shape.as_slice())).collect();
    assert_eq!(shapes, [("input", &[1, 8][..]), ("output", &[1, 8][..])]);
}

#[test]
fn same_model_built_twice_gives_the_same_bytes() {
    let library = rtx_or_skip!();
    let build = || Builder::new(&library).build_bytes(&relu(&[1, 4]), &quick()).unwrap().bytes;
    assert_eq!(build(), build());
}

#[test]
fn dynamic_model_builds_with_two_profiles() {
    let library = rtx_or_skip!();
    let config = quick().profile(dynamic_profile(1, 2, 4)).profile(dynamic_profile(1, 8, 16));
    let plan = Builder::new(&library).build_bytes(&relu(&[-1, 4]), &config).unwrap();
    assert_eq!(plan.profiles.len(), 2);
    assert_eq!(plan.tensors[0].shape, [-1, 4]);
}

#[test]
fn tf32_switched_off_is_fp32() {
    let library = rtx_or_skip!();
    let plan = Builder::new(&library).build_bytes(&relu(&[1, 4]), &quick().tf32(false)).unwrap();
    assert_eq!(plan.precision, Precision::Fp32);
}

#[test]
fn verbose_keeps_tensorrts_lines() {
    let library = rtx_or_skip!();
    let build = |config| Builder::new(&library).build_bytes(&relu(&[1, 4]), &config).unwrap().log.len();
    assert!(build(quick().verbose(true)) > build(quick()));
}

#[test]
fn two_threads_build_at_once_each_with_its_own_errors() {
    let library = rtx_or_skip!();
    let bad = model(&[1, 4], vec![onnx::node("odd", "NoSuchOp", &["input"], &["output"])]);
    std::thread::scope(|scope| {
        let good = scope.spawn(|| Builder::new(&library).build_bytes(&relu(&[1, 4]), &quick()).unwrap());
        let error = Builder::new(&library).build_bytes(&bad, &quick()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnsupportedOperator);
        assert!(!good.join().unwrap().log.iter().any(|line| line.contains("NoSuchOp")));
    });
}

// ---- progress ----

#[test]
fn progress_tells_phases_and_ends_each() {
    let library = rtx_or_skip!();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let mut builder = Builder::new(&library).progress(move |progress| {
        log.lock().unwrap().push((progress.phase.to_owned(), progress.step, progress.steps));
        ControlFlow::Continue(())
    });
    builder.build_bytes(&relu(&[1, 4]), &quick()).unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!(seen[0], ("parse".to_owned(), 0, 1));
    assert_eq!(*seen.last().unwrap(), ("build".to_owned(), 1, 1));
    assert!(seen.iter().any(|(phase, ..)| phase != "parse" && phase != "build"), "{seen:?}");
}

#[test]
fn callback_that_breaks_cancels_at_any_step() {
    let library = rtx_or_skip!();
    for steps in [0, 1, 3, 5] {
        let mut left = steps;
        let mut builder = Builder::new(&library).progress(move |_| {
            left -= 1;
            if left < 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let error = builder.build_bytes(&relu(&[1, 4]), &quick()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
    }
}

#[test]
fn callback_that_panics_ends_the_build_with_its_message_and_the_builder_lives() {
    let library = rtx_or_skip!();
    let mut calls = 0;
    let mut builder = Builder::new(&library).progress(move |_| {
        calls += 1;
        assert!(calls != 4, "the fourth call was one too many");
        ControlFlow::Continue(())
    });
    let error = builder.build_bytes(&relu(&[1, 4]), &quick()).unwrap_err();
    assert!(error.to_string().contains("the fourth call was one too many"), "{error}");
    builder.build_bytes(&relu(&[1, 4]), &quick()).unwrap();
}

#[test]
fn pulled_token_cancels_before_anything_is_built() {
    let library = rtx_or_skip!();
    let token = CancelToken::new();
    token.cancel();
    let error = Builder::new(&library).cancel_token(&token).build_bytes(&relu(&[1, 4]), &quick()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
}

// ---- bad models ----

#[test]
fn unsupported_operator_is_named_with_its_node() {
    let library = rtx_or_skip!();
    let nodes = vec![
        onnx::node("fine", "Relu", &["input"], &["middle"]),
        onnx::node("the_odd_one", "NoSuchOp", &["middle"], &["output"]),
    ];
    let error = Builder::new(&library).build_bytes(&model(&[1, 4], nodes), &quick()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsupportedOperator, "{error}");
    let text = error.to_string();
    assert!(text.contains("node 1 `the_odd_one` (NoSuchOp)"), "{text}");
    assert!(text.contains("replace the operator"), "{text}");
}

#[test]
fn node_with_a_missing_input_is_named() {
    let library = rtx_or_skip!();
    let nodes = vec![onnx::node("lonely", "Relu", &["nowhere"], &["output"])];
    let error = Builder::new(&library).build_bytes(&model(&[1, 4], nodes), &quick()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Onnx, "{error}");
    assert!(error.to_string().contains("lonely") || error.to_string().contains("nowhere"), "{error}");
}

#[test]
fn model_missing_a_directory_empty_truncated_or_garbage_is_refused() {
    let library = rtx_or_skip!();
    let folder = tempfile::tempdir().unwrap();
    let build = |path: PathBuf| Builder::new(&library).build_file(path, &quick()).unwrap_err().kind();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let whole = relu(&[1, 4]);
    assert_eq!(build(folder.path().join("none.onnx")), ErrorKind::Io);
    assert_eq!(build(folder.path().to_path_buf()), ErrorKind::Io);
    assert_eq!(build(file("empty.onnx", b"")), ErrorKind::Onnx);
    assert_eq!(build(file("half.onnx", &whole[..whole.len() / 2])), ErrorKind::Onnx);
    assert_eq!(build(file("garbage.onnx", &[0xa5; 4096])), ErrorKind::Onnx);
}

// ---- bad profiles ----

#[test]
fn dynamic_model_without_a_profile_is_refused_by_input() {
    let library = rtx_or_skip!();
    let error = Builder::new(&library).build_bytes(&relu(&[-1, 4]), &quick()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Shape);
    assert!(error.to_string().contains("`input`") && error.to_string().contains("--minShapes"), "{error}");
}

#[test]
fn profiles_that_cannot_be_are_refused() {
    let library = rtx_or_skip!();
    let build = |profile| Builder::new(&library).build_bytes(&relu(&[-1, 4]), &quick().profile(profile)).unwrap_err();
    let shape = |min: &[i64], opt: &[i64], max: &[i64]| OptimizationProfile::new().tensor("input", min, opt, max);
    for (profile, expected) in [
        (dynamic_profile(4, 2, 1), "min ≤ opt ≤ max"),
        (shape(&[1, 4], &[1, 4, 1], &[1, 4]), "same rank"),
        (shape(&[1], &[1], &[1]), "-1x4"),
        (shape(&[1, 5], &[1, 5], &[1, 5]), "-1x4"),
    ] {
        let error = build(profile);
        assert_eq!(error.kind(), ErrorKind::Shape, "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    let unknown = build(dynamic_profile(1, 1, 1).tensor("inptu", &[1], &[1], &[1]));
    assert_eq!(unknown.kind(), ErrorKind::InvalidArgument);
    assert!(unknown.to_string().contains("`input`"), "{unknown}");
}

// ---- what TensorRT-RTX cannot do ----

#[test]
fn options_that_rtx_lacks_are_refused_with_what_to_do_instead() {
    let library = rtx_or_skip!();
    let build = |config| Builder::new(&library).build_bytes(&relu(&[1, 4]), &config).unwrap_err();
    for (config, advice) in [
        (quick().version_compatible(true), "build again after an update"),
        (quick().hardware_compatibility(HardwareCompatibility::AmperePlus), "compute capabilities"),
        (quick().compute_capabilities(ComputeCapabilities::List(vec![90])), "H100"),
        (quick().compute_capabilities(ComputeCapabilities::List(vec![])), "75, 80"),
    ] {
        let error = build(config);
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains(advice), "{error}");
    }
    assert_eq!(build(quick().builder_optimization_level(6)).kind(), ErrorKind::InvalidArgument);
}

#[test]
fn timing_cache_is_left_alone_and_said_so() {
    let library = rtx_or_skip!();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cache");
    fs::write(&file, b"not a timing cache").unwrap();
    let plan = Builder::new(&library).build_bytes(&relu(&[1, 4]), &quick().timing_cache_file(&file)).unwrap();
    assert!(plan.notes.iter().any(|note| note.contains("no timing cache")), "{:?}", plan.notes);
    assert_eq!(plan.timing_cache, None);
    assert_eq!(fs::read(&file).unwrap(), b"not a timing cache");
}

// ---- libraries that are not there ----

#[test]
fn library_that_is_missing_or_of_another_kind_is_named_with_dlopens_words() {
    let open = |path: &str| Library::open_any(&Preference::Path(path.into())).unwrap_err();
    for path in ["/nowhere/libnvinfer.so.10", "libc.so.6", "/tmp"] {
        let error = open(path);
        assert_eq!(error.kind(), ErrorKind::TensorRtMissing, "{error}");
        assert!(error.to_string().contains(path), "{error}");
    }
}

#[test]
fn flavours_are_read_by_name_and_major() {
    for flavour in Flavour::ALL {
        assert_eq!(flavour.name().parse::<Flavour>().unwrap(), flavour);
    }
    assert_eq!("10".parse::<Flavour>().unwrap(), Flavour::Trt10);
    assert_eq!("9".parse::<Flavour>().unwrap_err().kind(), ErrorKind::InvalidArgument);
}

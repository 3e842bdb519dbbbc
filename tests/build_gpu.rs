//! What only a TensorRT with a GPU shows of a build: timing caches, cancelling, errors of the parser. Without a GPU these
//! tests say so and pass, unless TRT_CI=1.
mod common;
#[path = "common/onnx.rs"]
mod onnx;

use std::ops::ControlFlow;

use common::model;
use tickrt::{Builder, BuilderConfig, ErrorKind, Flavour};

#[test]
fn timing_cache_is_written_read_and_begun_anew_when_damaged() {
    let Some((_, library)) = common::tensorrt() else { return };
    if library.flavour() == Flavour::Rtx {
        eprintln!("skipped: TensorRT-RTX has no timing cache");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("toy.cache");
    let config = BuilderConfig::new().builder_optimization_level(0).timing_cache_file(&file);
    let build = || Builder::new(&library).build_file(model("toy_cnn.onnx"), &config).unwrap();
    let stale = |notes: &[String]| notes.iter().any(|note| note.contains("was left aside"));

    let first = build();
    assert!(!stale(&first.notes), "{:?}", first.notes);
    let written = std::fs::read(&file).unwrap();
    assert!(!written.is_empty());
    let second = build();
    assert!(!stale(&second.notes), "{:?}", second.notes);
    println!("{} first, {:?}; with its timing cache {:?}", library.version(), first.build_time, second.build_time);

    let mut damaged = written.clone();
    damaged.truncate(written.len() / 2);
    let hash = folder.path().join("toy.cache.sha256");
    for (bytes, beside) in [(damaged, true), (b"not a timing cache".to_vec(), true), (vec![7; 200], false)] {
        if !beside {
            // As from trtexec, with no hash: TensorRT itself has to see it, and 8.6.1 takes no offence at rubbish.
            std::fs::remove_file(&hash).unwrap();
        }
        let length = bytes.len();
        std::fs::write(&file, &bytes).unwrap();
        let again = build();
        println!("{length} bytes: {:?}", again.notes);
        assert!(!beside || stale(&again.notes), "{:?}", again.notes);
        assert_ne!(std::fs::read(&file).unwrap(), bytes, "a new one was written");
        assert!(hash.exists(), "with its hash");
    }
}

#[test]
fn callback_that_breaks_cancels_the_build() {
    let Some((_, library)) = common::tensorrt() else { return };
    let mut builder = Builder::new(&library).progress(|_| ControlFlow::Break(()));
    let error = builder.build_file(model("toy_cnn.onnx"), &BuilderConfig::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    let panics = Builder::new(&library).progress(|_| panic!("in the callback"));
    let error = { panics }.build_file(model("toy_cnn.onnx"), &BuilderConfig::new()).unwrap_err();
    assert!(error.to_string().contains("in the callback"), "{error}");
}

#[test]
fn unsupported_operator_is_named_with_its_node() {
    let Some((_, library)) = common::tensorrt() else { return };
    let bytes = onnx::model(
        vec![onnx::node("the_odd_one", "NoSuchOp", &["input"], &["output"])],
        vec![onnx::value("input", &[1, 4])],
        vec![onnx::value("output", &[1, 4])],
    );
    let error = Builder::new(&library).build_bytes(&bytes, &BuilderConfig::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsupportedOperator);
    assert!(error.to_string().contains("NoSuchOp"), "{error}");
}

#[test]
fn smoke_network_builds_and_options_are_taken() {
    let Some((_, library)) = common::tensorrt() else { return };
    if library.flavour() == Flavour::Rtx {
        return;
    }
    let config =
        BuilderConfig::new().workspace(64 << 20).builder_optimization_level(1).max_aux_streams(0).verbose(true);
    let built = Builder::new(&library).build_smoke_network(&config).unwrap();
    assert!(!built.log.is_empty(), "verbose keeps TensorRT's lines");
}

//! Resident engines: built, shown, signed, and refused with what is wrong.

use std::fs;

use crate::support::{Tool, left_out, model};

/// Builds one of `name` for an H100; none where this machine has no NVRTC.
fn build(tool: &Tool, name: &str, more: &[&str]) -> Option<String> {
    let (engine, onnx) = (format!("{name}.resident"), model(&format!("{name}.onnx")));
    let arguments = ["build", "--resident", "--onnx", &onnx, "--engine", &engine, "--compute-capability", "9.0"];
    let ended = tool.run(&[&arguments, more].concat());
    if left_out(&ended) {
        return None;
    }
    let words = ["what it computes", "256 units of input", "blocks", "constants", "predicted", "compiled"];
    ended.must(0, &words);
    Some(engine)
}

#[test]
fn resident_engine_is_built_and_shown_with_what_builds_it_again() {
    let tool = Tool::new().without_gpu();
    let (onnx, normalization) = (model("mlp.onnx"), model("mlp.normalization.json"));
    let more = ["--normalization", &normalization, "--resident-blocks=8", "--resident-threads=256"];
    let Some(engine) = build(&tool, "mlp", &more) else { return };
    assert_eq!(tool.left(), ["mlp.resident", "mlp.resident.json"]);
    let options = "--resident-blocks=8 --resident-threads=256 --compute-capability=9.0";
    tool.run(&["inspect", &engine]).must(
        0,
        &[
            "mlp.resident",
            "compute capability 9.0",
            "whole",
            "8 of 256 threads",
            "dense 512 to 512",
            "probabilities",
            options,
        ],
    );
    let shown = tool.run(&["inspect", &engine, "--json"]);
    shown.must(0, &[]);
    let shown: serde_json::Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!(shown["sidecar"]["semantics"], "whole");
    let rebuild = shown["rebuild"].as_str().unwrap();
    assert!(rebuild.starts_with(&format!("tickrt build --resident --onnx {onnx} --engine mlp.resident")), "{rebuild}");

    // It says so itself, word for word.
    let bytes = fs::read(tool.path(&engine)).unwrap();
    tool.run(&rebuild.split(' ').skip(1).collect::<Vec<_>>()).must(0, &[]);
    assert!(fs::read(tool.path(&engine)).unwrap() == bytes, "two builds are the same to the byte");
}

#[test]
fn resident_engine_altered_is_refused_with_the_command_that_rebuilds_it() {
    let tool = Tool::new().without_gpu();
    let Some(engine) = build(&tool, "toy_cnn", &[]) else { return };
    let mut bytes = fs::read(tool.path(&engine)).unwrap();
    // What reads plans reads no resident engine.
    let input = model("data/nasdaq_windows.npy");
    tool.run(&["run", "--engine", &engine, "--input", &input])
        .must(2, &["expected a TensorRT plan, got a resident engine"]);
    bytes.truncate(1000);
    tool.file(&engine, &bytes);
    tool.run(&["inspect", &engine]).must(2, &["got 1000", "copy the file again", "tickrt build --resident --onnx"]);
    tool.file(&engine, b"");
    tool.run(&["inspect", &engine])
        .must(2, &["expected a resident engine, got an empty file", "tickrt build --resident"]);
    tool.file("other.engine", b"ftrt");
    fs::rename(tool.path("toy_cnn.resident.json"), tool.path("other.engine.json")).unwrap();
    tool.run(&["inspect", "other.engine"]).must(2, &["the sidecar of a plan, got that of a resident engine"]);
    tool.run(&["inspect", &engine]).must(2, &["got an empty file", "tickrt build --resident"]);
}

#[test]
fn resident_engine_is_signed_together_with_its_sidecar() {
    let tool = Tool::new().without_gpu();
    tool.run(&["keygen", "trading"]).must(0, &[]);
    let Some(engine) = build(&tool, "toy_cnn", &[]) else { return };
    tool.run(&["sign", "--key", "trading.key", &engine]).must(0, &["toy_cnn.resident.json"]);
    tool.run(&["verify", "--key", "trading.pub", &engine]).must(0, &["toy_cnn.resident.json"]);
    let sidecar = fs::read(tool.path("toy_cnn.resident.json")).unwrap();
    fs::remove_file(tool.path("toy_cnn.resident.json")).unwrap();
    tool.run(&["verify", "--key", "trading.pub", &engine]).must(1, &["toy_cnn.resident.json"]);
    tool.run(&["sign", "--key", "trading.key", &engine]).must(2, &["its sidecar"]);
    tool.file("toy_cnn.resident.json", &sidecar);
    let mut bytes = fs::read(tool.path(&engine)).unwrap();
    bytes[5000] ^= 1;
    tool.file(&engine, &bytes);
    tool.run(&["verify", "--key", "trading.pub", &engine]).must(1, &["toy_cnn.resident with sha256"]);
    tool.run(&["sign", "--key", "trading.key", &engine]).must(2, &["sha256"]);
}

#[test]
fn flags_that_do_not_go_with_resident_are_refused_with_the_reason() {
    let tool = Tool::new().without_gpu();
    let build = |more: &[&str]| {
        let arguments = ["build", "--onnx", &model("mlp.onnx"), "--engine", "x.resident"];
        tool.run(&[&arguments, more].concat())
    };
    for (more, words) in [
        (&["--fp16"][..], "--resident and --fp16: a resident engine computes in fp32"),
        (&["--int8"], "--int8: a resident engine computes in fp32"),
        (&["--calib", "x.npy"], "--calib: a resident engine computes in fp32"),
        (&["--autotune"], "--autotune: it is for TensorRT"),
        (&["--tensorrt=rtx"], "--tensorrt: it is for TensorRT"),
        (&["--minShapes=input:1x256"], "--optShapes gives"),
        (&["--compute-capability=9.0,8.0"], "expected one, got 2"),
        (&["--resident-blocks=3"], "1, 2, 4, 8 or 16 blocks, got 3"),
        (&["--resident-threads=40"], "a multiple of 32"),
        (&["--window-row=7"], "a divisor of the input's 256 elements"),
        (&["--normalization=none.json"], "no such file"),
    ] {
        build(&[&["--resident"], more].concat()).must(2, &[words]);
    }
    build(&["--resident-blocks=4"]).must(2, &["--resident"]);
    build(&["--resident", "--compute-capability=8.0", "--resident-blocks=2"]).must(3, &["ask for 1"]);
    build(&["--resident", "--compute-capability=5.0"]).must(3, &["got 5.0"]);
    assert!(tool.left().is_empty(), "{:?}", tool.left());
}

#[test]
fn resident_build_that_cannot_be_names_what_is_missing_and_leaves_nothing() {
    let tool = Tool::new().without_gpu().with("TICKRT_NVRTC", "/nonexistent/libnvrtc.so");
    let build = |name: &str| tool.run(&["build", "--resident", "--onnx", &model(name), "--engine", "x.resident"]);
    build("deeplob.onnx").must(3, &["1580064 bytes", "the chain goes on to TensorRT"]);
    build("mlp.onnx").must(3, &["open NVRTC", "$TICKRT_NVRTC: /nonexistent/libnvrtc.so", "scripts/setup"]);
    assert!(tool.left().is_empty(), "{:?}", tool.left());
    tool.run(&["versions"]).must(0, &["nvrtc"]);
}

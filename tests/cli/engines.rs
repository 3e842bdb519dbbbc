//! Engines that are not what they should be.

use tickrt::{ErrorKind, Plan, Sidecar, Target};

use crate::support::{Ended, Tool, model};

/// Runs the engine alone.
fn run(tool: &Tool, engine: &str, more: &[&str]) -> Ended {
    let input = model("data/nasdaq_windows.npy");
    tool.run(&[&["run", "--engine", engine, "--input", &input], more].concat())
}

#[test]
fn engine_missing_empty_or_a_directory_says_which() {
    let tool = Tool::new();
    run(&tool, "nowhere.engine", &[]).must(2, &["no such file", "check the path", "tickrt build"]);
    run(&tool, &tool.file("empty.engine", b""), &[])
        .must(2, &["expected a TensorRT plan, got an empty file", "tickrt build"]);
    run(&tool, ".", &[]).must(2, &["expected a file, got a directory"]);
    run(&tool, &model("toy_cnn.onnx"), &[]).must(2, &["what looks like an ONNX model", "name the engine"]);
}

#[test]
fn engine_truncated_altered_or_bare_is_refused_with_the_command_that_rebuilds_it() {
    let tool = Tool::new();
    let Some(engine) = tool.engine("toy_cnn", &[]) else { return };
    let rebuild = format!("tickrt build --onnx {}", model("toy_cnn.onnx"));
    let bytes = std::fs::read(tool.path(&engine)).unwrap();
    tool.file(&engine, &bytes[..bytes.len() / 2]);
    run(&tool, &engine, &[]).must(2, &[&format!("expected {} bytes", bytes.len()), "copy the file again", &rebuild]);
    let mut altered = bytes.clone();
    altered[bytes.len() / 2] ^= 1;
    tool.file(&engine, &altered);
    run(&tool, &engine, &[]).must(2, &["sha256", "copy file and sidecar together", &rebuild]);
    tool.file("bare.engine", &bytes);
    run(&tool, "bare.engine", &[]).must(2, &["bare.engine.json, got none", "--allow-unverified"]);
    tool.run(&["inspect", "bare.engine", "--allow-unverified"]).must(0, &["only the plan's own header was checked"]);
    tool.file("toy_cnn.engine.json", b"{}");
    run(&tool, &engine, &[]).must(2, &["toy_cnn.engine.json"]);
}

#[test]
fn engine_of_another_version_or_gpu_is_refused_with_both() {
    let tool = Tool::new();
    let Some(engine) = tool.engine("toy_cnn", &[]) else { return };
    let plan = Plan::read(tool.path(&engine)).unwrap();
    let here = plan.version();
    let mut sidecar = plan.sidecar().unwrap().clone();
    sidecar.version.patch += 1;
    Plan::new(plan.bytes().to_vec(), sidecar.clone()).unwrap().write(tool.path("newer.engine")).unwrap();
    run(&tool, "newer.engine", &[])
        .must(2, &[&here.to_string(), &sidecar.version.to_string(), "rebuild it with `tickrt build"]);

    // No machine has a GPU of 1.0: TensorRT never ran there.
    let target = Target {
        flavour: plan.flavour(),
        version: here,
        compute_capability: Some((1, 0)),
        gpu_name: Some("Old".into()),
    };
    let error = plan.check(&target).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PlanGpu);
    assert!(error.to_string().contains("1.0 (Old)") && error.to_string().contains("tickrt build"), "{error}");
}

#[test]
fn shape_outside_the_profile_is_refused_with_the_range() {
    let tool = Tool::new();
    let shapes = ["--minShapes=input:1x256", "--optShapes=input:8x256", "--maxShapes=input:64x256"];
    let Some(engine) = tool.engine("mlp_dynamic", &shapes) else { return };
    run(&tool, &engine, &["--shapes=input:65x256"])
        .must(2, &["from 1x256 to 64x256", "got input:65x256", "--maxShapes"]);
    run(&tool, &engine, &["--shapes=input:1x255"]).must(2, &["expected -1x256", "got 1x255"]);
    run(&tool, &engine, &["--shapes=output:1x256"]).must(2, &["\"input\"", "`output`"]);
}

#[test]
fn engine_of_one_shape_has_that_alone_and_no_range_beside_it() {
    let tool = Tool::new();
    let Some(engine) = tool.engine("mlp_dynamic", &["--shapes=input:16x256"]) else { return };
    let sidecar = Sidecar::beside(tool.path(&engine)).unwrap().unwrap();
    let range = &sidecar.profiles[0].shapes["input"];
    assert_eq!((&range.min, &range.opt, &range.max), (&vec![16, 256], &vec![16, 256], &vec![16, 256]));
    assert!(sidecar.options.contains(&"--shapes=input:16x256".to_owned()), "{:?}", sidecar.options);
    run(&tool, &engine, &["--shapes=input:8x256"]).must(2, &["from 16x256 to 16x256"]);
    let build = ["build", "--onnx", &model("mlp_dynamic.onnx"), "--engine", "x.engine", "--shapes=input:8x256"];
    tool.run(&[&build[..], &["--maxShapes=input:64x256"]].concat()).must(2, &["--maxShapes", "cannot be used with"]);
}

#[test]
fn engine_is_inspected_without_a_gpu() {
    let tool = Tool::new();
    let Some(engine) = tool.engine("toy_cnn", &["--max_workspace=256M"]) else { return };
    let tool = tool.without_gpu();
    tool.run(&["inspect", &engine]).must(0, &["probabilities", "1x8x32", "--max_workspace=256M", "not known here: "]);
    let ended = tool.run(&["inspect", &engine, "--json"]);
    let json: serde_json::Value = serde_json::from_str(&ended.must(0, &[]).stdout).unwrap();
    assert_eq!(json["tensors"][0]["shape"], serde_json::json!([1, 8, 32]));
    assert_eq!(json["layers"], serde_json::Value::Null);
    assert!(json["not_loaded"].as_str().unwrap().contains("GPU"));
    let sidecar = Sidecar::beside(tool.path(&engine)).unwrap().unwrap();
    assert_eq!(json["sidecar"]["plan_sha256"], sidecar.plan_sha256.as_str());
}

#[test]
fn model_is_inspected() {
    let tool = Tool::new();
    tool.run(&["inspect", &model("toy_cnn.onnx")]).must(0, &["opset", "Conv", "1x8x32"]);
    let ended = tool.run(&["inspect", &model("mlp_dynamic.onnx"), "--json"]);
    let json: serde_json::Value = serde_json::from_str(&ended.must(0, &[]).stdout).unwrap();
    assert_eq!(json["tensors"][0]["shape"], serde_json::json!([-1, 256]));
}

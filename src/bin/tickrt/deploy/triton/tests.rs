use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use super::*;
use crate::deploy::manifest::Deployed;

fn root() -> PathBuf {
    std::env::var_os("TICKRT_TEST_ROOT").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

/// Of an engine of TensorRT 10 for f32 `shape` to f32 `output`, with the range of a dynamic batch.
fn sidecar(flavour: &str, shape: &[i64], output: &[i64], profiles: &Value) -> Sidecar {
    let tensor =
        |name: &str, mode: &str, shape: &[i64]| json!({"name": name, "mode": mode, "type": "f32", "shape": shape});
    let normalization =
        json!({"input": "input", "input_type": "f32", "stats": {"kind": "per_tensor", "mean": [1.0], "std": [2.0]}});
    let text = json!({
        "sidecar_sha256": "", "format": 1, "tickrt": "0.1.0", "flavour": flavour,
        "version": {"major": 10, "minor": 16, "patch": 1}, "library": "TensorRT 10.16.1",
        "gpu": {"name": "NVIDIA \"H100\"", "compute_capability": 90}, "compute_capabilities": [],
        "version_compatible": false, "hardware_compatibility": "none", "precision": "fp32",
        "tensors": [tensor("input", "input", shape), tensor("scores", "output", output)],
        "profiles": profiles, "normalizations": [normalization], "window_row": null, "onnx_file": null,
        "onnx_sha256": null, "plan_sha256": "", "plan_bytes": 4, "options": [], "built_at": ""
    });
    serde_json::from_value(text).unwrap()
}

/// What Triton's own schema reads in the files; none where the packages of scripts/lint-tools are not there.
fn read_by_triton(files: &[PathBuf]) -> Option<Vec<Value>> {
    let python = root().join("target/tools/lint/bin/python");
    if !python.exists() {
        assert!(std::env::var("TICKRT_REQUIRE_TOOLS").as_deref() != Ok("1"), "{} is not there", python.display());
        eprintln!("skipped: scripts/lint-tools fetches Triton's model_config.proto");
        return None;
    }
    let output = Command::new(python).arg(root().join("scripts/check-triton-config")).args(files).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    Some(lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

/// Writes a repository of one engine, whose plan is four bytes, beside a copy of `model`; the folder and the configurations.
fn repository(model: &str, sidecar: &Sidecar, settings: &Settings) -> (tempfile::TempDir, Vec<PathBuf>) {
    let folder = tempfile::tempdir().unwrap();
    let mut manifest = Manifest::new("toy", &root().join("models").join(model), folder.path()).unwrap();
    std::fs::write(folder.path().join("fp32.engine"), b"plan").unwrap();
    let (target, file) = ("fp32".to_owned(), "fp32.engine".to_owned());
    manifest.engines.push(Deployed { target, file, sha256: String::new(), accuracy: None, latency: None });
    write(settings, 7, folder.path(), &manifest, std::slice::from_ref(sidecar)).unwrap();
    let configs = ["toy_fp32", "toy_cpu"].map(|name| folder.path().join("triton").join(name).join("config.pbtxt"));
    (folder, configs.to_vec())
}

#[test]
fn repository_of_fixed_shapes_is_what_triton_reads() {
    let sidecar = sidecar("trt10", &[1, 8, 32], &[1, 3], &json!([]));
    let (folder, configs) = repository("toy_cnn.onnx", &sidecar, &Settings { gpus: vec![0, 2], ..Settings::default() });
    let inode = |name: &str| std::fs::metadata(folder.path().join(name)).unwrap().ino();
    assert_eq!(inode("triton/toy_fp32/7/model.plan"), inode("fp32.engine"), "no second copy");
    assert_eq!(inode("triton/toy_cpu/7/model.onnx"), inode("toy_cnn.onnx"));
    let Some(read) = read_by_triton(&configs) else { return };
    let (plan, cpu) = (&read[0], &read[1]);
    assert_eq!((plan["name"].as_str(), plan["backend"].as_str()), (Some("toy_fp32"), Some("tensorrt")));
    assert_eq!(plan["max_batch_size"], Value::Null, "0: the batch is in the shapes");
    assert_eq!(plan["input"], json!([{"name": "input", "data_type": "TYPE_FP32", "dims": ["1", "8", "32"]}]));
    assert_eq!(plan["output"], json!([{"name": "scores", "data_type": "TYPE_FP32", "dims": ["1", "3"]}]));
    assert_eq!(plan["instance_group"], json!([{"kind": "KIND_GPU", "count": 1, "gpus": [0, 2]}]));
    assert_eq!(plan["optimization"]["cuda"], json!({"graphs": true, "busy_wait_events": true}));
    let warmup = &plan["model_warmup"][0];
    assert_eq!((&warmup["batch_size"], &warmup["count"]), (&json!(1), &json!(100)));
    assert_eq!(
        warmup["inputs"]["input"],
        json!({"data_type": "TYPE_FP32", "dims": ["1", "8", "32"], "zero_data": true})
    );
    assert_eq!(plan["dynamic_batching"], Value::Null);
    let normalization = plan["parameters"]["tickrt.normalization.input"]["string_value"].as_str().unwrap();
    let normalization: tickrt::Normalization = serde_json::from_str(normalization).unwrap();
    assert_eq!(normalization, sidecar.normalizations[0], "it comes through the quotes");
    assert_eq!((cpu["name"].as_str(), cpu["backend"].as_str()), (Some("toy_cpu"), Some("onnxruntime")));
    assert_eq!(cpu["instance_group"], json!([{"kind": "KIND_CPU", "count": 1}]));
    assert_eq!(cpu["parameters"]["intra_op_thread_count"]["string_value"], "1");
    assert_eq!(cpu["optimization"], Value::Null);
}

#[test]
fn dynamic_batch_is_counted_by_triton_up_to_the_profile() {
    let profiles = json!([{"input": {"min": [1, 256], "opt": [8, 256], "max": [64, 256]}}]);
    let sidecar = sidecar("trt10", &[-1, 256], &[-1, 3], &profiles);
    let settings =
        Settings { instances: 2, cpu_instances: 4, warmup: 0, max_queue_delay_us: 50, ..Settings::default() };
    let (_folder, configs) = repository("mlp_dynamic.onnx", &sidecar, &settings);
    let Some(read) = read_by_triton(&configs) else { return };
    for config in &read {
        assert_eq!(config["max_batch_size"], 64, "of the plan and of the CPU's model alike");
        assert_eq!(config["input"][0]["dims"], json!(["256"]));
        assert_eq!(config["output"][0]["dims"], json!(["3"]));
        assert_eq!(config["dynamic_batching"]["max_queue_delay_microseconds"], "50");
        assert_eq!(config["model_warmup"], Value::Null);
    }
    assert_eq!(read[0]["instance_group"], json!([{"kind": "KIND_GPU", "count": 2}]));
    assert_eq!(read[1]["instance_group"], json!([{"kind": "KIND_CPU", "count": 4}]));
}

#[test]
fn open_dimension_other_than_the_batch_is_warmed_up_at_its_usual_size() {
    let profiles = json!([{"input": {"min": [1, 4], "opt": [1, 16], "max": [1, 32]}}]);
    let sidecar = sidecar("trt8", &[1, -1], &[1, 3], &profiles);
    let config = config::of_engine("x", &sidecar, &Settings::default()).to_string();
    assert!(config.contains("max_batch_size: 0\n"), "{config}");
    assert!(config.contains("dims: [1, -1]") && config.contains("dims: [1, 16] zero_data: true"), "{config}");
}

#[test]
fn one_number_a_sample_is_told_to_triton_as_one_of_one_dimension() {
    let profiles = json!([{"input": {"min": [1, 256], "opt": [8, 256], "max": [64, 256]}}]);
    let sidecar = sidecar("trt10", &[-1, 256], &[-1], &profiles);
    let config = config::of_engine("x", &sidecar, &Settings::default());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.pbtxt");
    std::fs::write(&file, config.to_string()).unwrap();
    assert!(config.to_string().contains("dims: [1] reshape { shape: [] } }"), "{config}");
    let Some(read) = read_by_triton(&[file]) else { return };
    assert_eq!((&read[0]["max_batch_size"], &read[0]["output"][0]["dims"]), (&json!(64), &json!(["1"])));
    assert_eq!(read[0]["output"][0]["reshape"], json!({}));
    assert_eq!(read[0]["input"][0]["reshape"], Value::Null);
}

#[test]
fn scalar_is_refused() {
    let refused = check("fp32", &sidecar("trt10", &[1, 8], &[], &json!([]))).unwrap_err();
    assert!(refused.to_string().contains("got the scalar `scores`"), "{refused}");
}

#[test]
fn batch_that_may_not_be_one_is_left_in_the_shapes() {
    let profiles = json!([{"input": {"min": [8, 256], "opt": [16, 256], "max": [64, 256]}}]);
    let sidecar = sidecar("trt10", &[-1, 256], &[-1, 3], &profiles);
    let config = config::of_engine("x", &sidecar, &Settings::default()).to_string();
    assert!(config.contains("max_batch_size: 0\n") && config.contains("dims: [16, 256] zero_data: true"), "{config}");
}

#[test]
fn plan_of_tensorrt_rtx_is_refused_and_others_are_not() {
    assert!(check("fp32", &sidecar("trt8", &[1], &[1], &json!([]))).is_ok());
    let refused = check("fp32", &sidecar("rtx", &[1], &[1], &json!([]))).unwrap_err();
    assert!(refused.to_string().contains("Triton's TensorRT backend takes no other"), "{refused}");
}

#[test]
fn instances_of_none_are_refused() {
    assert!(Settings::default().check().is_ok());
    for settings in
        [Settings { instances: 0, ..Settings::default() }, Settings { cpu_instances: 0, ..Settings::default() }]
    {
        assert!(settings.check().unwrap_err().contains("expected 1 at least"));
    }
}

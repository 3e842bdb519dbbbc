//! Deployments: what moves into place, what does not, and the way back.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;

use serde_json::Value;

use crate::onnx;
use crate::support::{Ended, Tool, left_out, model};

/// A deployment of toy_cnn whose gates may stay unmeasured, for there may be no GPU. `extra` goes to its top.
fn configuration(tool: &Tool, extra: &str, gates: &str) -> String {
    let text = format!(
        "name = \"toy\"\nstore = \"store\"\nonnx = '{}'\nnormalization = ['{}']\n{extra}\n\
         [[target]]\nname = \"fp32\"\nbuild = [\"--tensorrt=rtx\"]\n{gates}",
        model("toy_cnn.onnx"),
        model("toy_cnn.normalization.json")
    );
    tool.file("deploy.toml", text.as_bytes())
}

const OPTIONAL: &str =
    "[accuracy]\natol = 1e-2\nrtol = 1e-2\noptional = true\n[latency]\np99_us = 1e6\noptional = true\n";

fn deploy(tool: &Tool, more: &[&str]) -> Ended {
    tool.run(&[&["deploy", "--config", "deploy.toml"], more].concat())
}

fn versions(tool: &Tool) -> Vec<String> {
    let entries = tool.path("store/toy/versions").read_dir().unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn current(tool: &Tool) -> String {
    let link = tool.path("store/toy/current").read_link().unwrap();
    link.file_name().unwrap().to_str().unwrap().to_owned()
}

fn staging(tool: &Tool) -> PathBuf {
    tool.path("store/toy/.staging")
}

#[test]
fn versions_move_into_place_the_last_are_kept_and_rolled_back_to() {
    let tool = Tool::new().without_gpu();
    configuration(&tool, "keep = 2\ntrain = \"echo trained > trained\"\nexport = \"test -e trained\"", OPTIONAL);
    let ended = deploy(&tool, &[]);
    if left_out(&ended) {
        return;
    }
    ended.must(0, &["deployed", "0001-", "fp32.engine: accuracy: not measured; latency: not measured"]);
    deploy(&tool, &[]).must(0, &["0002-"]);
    deploy(&tool, &[]).must(0, &["0003-", "removed", "0001-"]);
    assert_eq!(versions(&tool).len(), 2);
    assert!(current(&tool).starts_with("0003-"));
    let folder = tool.path("store/toy/current");
    let manifest: Value = serde_json::from_slice(&std::fs::read(folder.join("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["engines"][0]["latency"], "not_measured");
    for file in [manifest["model"].as_str().unwrap(), "fp32.engine", "fp32.engine.json"] {
        assert!(folder.join(file).exists(), "{file}");
    }
    let sidecar = tickrt::Sidecar::beside(folder.join("fp32.engine")).unwrap().unwrap();
    assert_eq!(
        sidecar.onnx_file,
        Some(model("toy_cnn.onnx")),
        "a file that is there, for the command that builds it again"
    );
    assert_eq!(sidecar.onnx_sha256.as_deref(), manifest["model_sha256"].as_str());
    deploy(&tool, &["--rollback"]).must(0, &["0002-", "answers again"]);
    assert!(current(&tool).starts_with("0002-"));
    deploy(&tool, &["--rollback"]).must(2, &["there is no version before 0002-"]);
    deploy(&tool, &[]).must(0, &["0004-"]);
    assert!(!staging(&tool).exists());
}

#[test]
fn version_that_was_rolled_back_does_not_push_the_good_one_out() {
    let tool = Tool::new().without_gpu();
    configuration(&tool, "keep = 2", OPTIONAL);
    if left_out(&deploy(&tool, &[])) {
        return;
    }
    deploy(&tool, &[]).must(0, &["0002-"]);
    deploy(&tool, &["--rollback"]).must(0, &["0001-", "answers again"]);
    // Two are kept: the new one and the good one that it replaces, not the bad one between them.
    deploy(&tool, &[]).must(0, &["0003-", "removed", "0002-"]);
    deploy(&tool, &["--rollback"]).must(0, &["0001-", "answers again"]);
    assert!(current(&tool).starts_with("0001-"));
    deploy(&tool, &["--rollback"]).must(2, &["there is no version before 0001-"]);
}

#[test]
fn gate_that_cannot_be_measured_is_an_error_unless_it_is_optional() {
    let tool = Tool::new().without_gpu();
    if left_out(&tool.run(&["build", "--onnx", &model("toy_cnn.onnx"), "--engine", "x.engine", "--tensorrt=rtx"])) {
        return;
    }
    for (gate, what) in [("[accuracy]\natol = 1\nrtol = 1\n", "accuracy"), ("[latency]\np99_us = 1e6\n", "latency")] {
        configuration(&tool, "", gate);
        deploy(&tool, &[]).must(3, &[&format!("{what} of fp32: this machine cannot measure it"), "optional = true"]);
        assert!(versions(&tool).is_empty() && !staging(&tool).exists() && !tool.path("store/toy/current").exists());
    }
}

#[test]
fn manifest_that_points_at_a_missing_or_other_engine_is_not_rolled_back_to() {
    let tool = Tool::new().without_gpu();
    configuration(&tool, "", OPTIONAL);
    if left_out(&deploy(&tool, &[])) {
        return;
    }
    deploy(&tool, &[]).must(0, &["0002-"]);
    let first = tool.path("store/toy/versions").join(&versions(&tool)[0]);
    std::fs::rename(first.join("fp32.engine"), first.join("away")).unwrap();
    deploy(&tool, &["--rollback"])
        .must(2, &["manifest.json", "points at an engine that cannot be used", "fp32.engine"]);
    std::fs::write(first.join("fp32.engine"), b"no engine").unwrap();
    deploy(&tool, &["--rollback"]).must(2, &["cannot be used"]);
    assert!(current(&tool).starts_with("0002-"), "it stays");
    std::fs::rename(first.join("away"), first.join("fp32.engine")).unwrap();
    std::fs::copy(model("mlp.onnx"), first.join("toy_cnn.onnx")).unwrap();
    deploy(&tool, &["--rollback"]).must(2, &["expected toy_cnn.onnx with sha256", "got another"]);
    std::fs::remove_file(first.join("toy_cnn.onnx")).unwrap();
    deploy(&tool, &["--rollback"]).must(2, &["points at a model that cannot be used", "toy_cnn.onnx"]);
    std::fs::remove_dir_all(&first).unwrap();
    deploy(&tool, &["--rollback"]).must(2, &["there is no version before 0002-"]);
    assert!(current(&tool).starts_with("0002-"), "it stays");
}

#[test]
fn configuration_that_cannot_be_is_refused_with_its_line_and_a_near_match() {
    let tool = Tool::new();
    let refused = |extra: &str, gates: &str, words: &[&str]| {
        configuration(&tool, extra, gates);
        deploy(&tool, &[]).must(2, words);
        assert!(!tool.path("store").exists(), "nothing was begun");
    };
    refused("kep = 2", "", &["deploy.toml: line 5", "unknown field `kep`", "did you mean `keep`?"]);
    refused("", "[latency]\np99 = 1\n", &["line 10", "did you mean `p99_us`?"]);
    refused("", "keep = 2\n", &["line 9", "unknown field `keep`", "it belongs above the first [table]"]);
    refused("", "[acuracy]\natol = 1\n", &["line 9", "did you mean `accuracy`?"]);
    refused("keep = \"two\"", "", &["line 5", "invalid type"]);
    refused("keep = 2 2", "", &["line 5"]);
    refused("keep = 0", "", &["expected 1 at least"]);
    refused("", "[[target]]\nname = \"fp32\"\n", &["two targets are named `fp32`"]);
    refused("", "[[target]]\nname = \"../x\"\n", &["letters, digits", "`../x`"]);
    refused("", "[latency]\np99_us = nan\n", &["expected a limit from 0 on"]);
    refused("", "[[target]]\nname = \"cpu\"\n", &["another name for a target than `cpu`"]);
    refused("", "[triton]\ninstance = 2\n", &["line 10", "did you mean `instances`?"]);
    refused("", "[triton]\ninstances = 0\n", &["triton.instances: expected 1 at least"]);
    deploy(&Tool::new(), &[]).must(2, &["read deploy.toml"]);
}

#[test]
fn plan_that_triton_does_not_take_is_refused_before_its_gates() {
    let tool = Tool::new().without_gpu();
    // No GPU: these gates would end with 3.
    configuration(&tool, "", "[accuracy]\natol = 1\nrtol = 1\n[triton]\ninstances = 2\n");
    let ended = deploy(&tool, &["--target", "triton"]);
    if left_out(&ended) {
        return;
    }
    ended.must(2, &["Triton's TensorRT backend takes no other, got one of TensorRT-RTX", "--tensorrt=trt10"]);
    assert!(versions(&tool).is_empty() && !staging(&tool).exists());
}

/// With whichever TensorRT is there, on its GPU: an H100 takes no TensorRT-RTX.
#[test]
fn repository_for_triton_lies_in_the_version() {
    let tool = Tool::new();
    configuration(&tool, "", "");
    let text = std::fs::read_to_string(tool.path("deploy.toml"))
        .unwrap()
        .replace("--tensorrt=rtx", "--tensorrt=trt11,trt10,trt8");
    tool.file("deploy.toml", text.as_bytes());
    let ended = deploy(&tool, &["--target", "triton"]);
    if left_out(&ended) {
        return;
    }
    ended.must(0, &["deployed", "0001-"]);
    let current = tool.path("store/toy/current");
    let same = |one: &str, other: &str| {
        assert!(std::fs::read(current.join(one)).unwrap() == std::fs::read(current.join(other)).unwrap(), "{one}");
    };
    same("triton/toy_fp32/1/model.plan", "fp32.engine");
    same("triton/toy_cpu/1/model.onnx", "toy_cnn.onnx");
    let config = std::fs::read_to_string(current.join("triton/toy_fp32/config.pbtxt")).unwrap();
    assert!(config.contains("backend: \"tensorrt\"") && config.contains("graphs: true"), "{config}");
}

#[test]
fn training_that_fails_and_a_model_that_is_not_there_deploy_nothing() {
    let tool = Tool::new();
    configuration(&tool, "train = \"exit 7\"", "");
    deploy(&tool, &[]).must(1, &["train: `exit 7` ended with 7"]);
    configuration(&tool, "", "");
    let text = std::fs::read_to_string(tool.path("deploy.toml")).unwrap().replace("toy_cnn.onnx", "absent.onnx");
    tool.file("deploy.toml", text.as_bytes());
    deploy(&tool, &[]).must(2, &["absent.onnx"]);
    assert!(versions(&tool).is_empty() && !staging(&tool).exists());
    deploy(&tool, &["--rollback"]).must(2, &["nothing is deployed there"]);
}

#[test]
fn second_deployment_at_the_same_time_is_refused() {
    let tool = Tool::new();
    configuration(&tool, "train = \"touch started; while [ ! -e go ]; do sleep 0.02; done; exit 7\"", "");
    let mut first = tool.command(&["deploy", "--config", "deploy.toml"]).spawn().unwrap();
    while !tool.path("started").exists() {
        assert!(first.try_wait().unwrap().is_none(), "it waits in its training");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    deploy(&tool, &[]).must(2, &["expected to be alone", &format!("process {}", first.id())]);
    tool.file("go", b"");
    assert_eq!(first.wait().unwrap().code(), Some(1));
    deploy(&tool, &[]).must(1, &["ended with 7"]);
}

/// Deploys where no file may grow beyond `bytes`: that stands in for a full disk.
fn deploy_on_full_disk(tool: &Tool, bytes: u64, more: &[&str]) -> Ended {
    let mut command = tool.command(&[&["deploy", "--config", "deploy.toml"], more].concat());
    // SAFETY: one call of the C library between fork and exec, with a valid argument.
    let output = unsafe {
        command.pre_exec(move || {
            libc::setrlimit(libc::RLIMIT_FSIZE, &libc::rlimit { rlim_cur: bytes, rlim_max: bytes });
            Ok(())
        })
    }
    .output()
    .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

#[test]
fn disk_that_is_full_leaves_the_current_version_and_nothing_else() {
    let tool = Tool::new().without_gpu();
    configuration(&tool, "", OPTIONAL);
    if left_out(&deploy(&tool, &[])) {
        return;
    }
    let model_bytes = std::fs::metadata(model("toy_cnn.onnx")).unwrap().len() + (4 << 10);
    // The model does not fit; it does, and the engine does not.
    for (bytes, step) in [(1 << 10, "toy_cnn.onnx"), (model_bytes, "fp32.engine")] {
        deploy_on_full_disk(&tool, bytes, &[]).must(2, &[step, "nothing was deployed"]);
        assert_eq!(versions(&tool).len(), 1);
        assert!(current(&tool).starts_with("0001-") && !staging(&tool).exists());
    }
    deploy(&tool, &[]).must(0, &["0002-"]);
    deploy_on_full_disk(&tool, 0, &["--rollback"]).must(0, &["0001-", "answers again"]);
}

#[test]
fn weights_beside_the_model_go_along() {
    let tool = Tool::new().without_gpu();
    std::fs::create_dir_all(tool.path("made/weights")).unwrap();
    let weights = bytemuck::bytes_of(&[10.0_f32, 20.0, 30.0, 40.0]).to_vec();
    tool.file("made/weights/data.bin", &weights);
    let made = onnx::model_with(
        vec![onnx::external("weights", 4, "weights/data.bin")],
        vec![onnx::node("add", "Add", &["input", "weights"], &["output"])],
        vec![onnx::value("input", &[1, 4])],
        vec![onnx::value("output", &[1, 4])],
    );
    tool.file("made/model.onnx", &made);
    let target = "[[target]]\nname = \"fp32\"\nbuild = [\"--tensorrt=rtx\"]\n";
    tool.file(
        "deploy.toml",
        format!("name = \"toy\"\nstore = \"store\"\nonnx = \"made/model.onnx\"\n{target}").as_bytes(),
    );
    let ended = deploy(&tool, &[]);
    if left_out(&ended) {
        return;
    }
    ended.must(0, &["deployed"]);
    let current = tool.path("store/toy/current");
    assert_eq!(std::fs::read(current.join("model.onnx")).unwrap(), made);
    assert_eq!(std::fs::read(current.join("weights/data.bin")).unwrap(), weights);
    assert_eq!(std::fs::read(tool.path("made/weights/data.bin")).unwrap(), weights, "and are still where they were");
    deploy(&tool, &[]).must(0, &["0002-"]);
    let others = bytemuck::bytes_of(&[10.0_f32, 20.0, 30.0, 41.0]).to_vec();
    std::fs::write(current.join("previous/weights/data.bin"), others).unwrap();
    deploy(&tool, &["--rollback"]).must(2, &["expected weights/data.bin with sha256", "got another"]);
    assert!(current.read_link().unwrap().to_str().unwrap().contains("0002-"));
}

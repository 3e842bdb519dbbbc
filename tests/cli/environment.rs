//! Machines that lack something, and the tool's manners.

use std::io::Read;
use std::process::{Command, Stdio};

use tickrt::backend::ort::OrtBackend;
use tickrt::onnx::Model;
use tickrt::{ErrorKind, Normalization, Session, SessionConfig, WindowConfig};

use crate::support::{Tool, model, root};

#[test]
fn gpu_missing_is_code_3_and_said_so() {
    let tool = Tool::new();
    let Some(engine) = tool.engine("toy_cnn", &[]) else { return };
    let tool = tool.without_gpu();
    let input = model("data/nasdaq_windows.npy");
    tool.run(&["run", "--engine", &engine, "--input", &input])
        .must(3, &["expected an NVIDIA driver and at least one GPU", "nvidia-smi"]);
    tool.run(&["validate", "--engine", &engine]).must(3, &["GPU"]);
    tool.run(&["smoke", "--tensorrt=rtx", "--models", &model("")]).must(3, &[]);
}

#[test]
fn tensorrt_missing_is_code_3_with_every_place_tried() {
    let tool = Tool::new().with("TICKRT_SDK", "/nowhere").with("TENSORRT_ROOT", "/nowhere").with("LD_LIBRARY_PATH", "");
    let onnx = model("toy_cnn.onnx");
    tool.run(&["build", "--onnx", &onnx, "--engine", "x.engine", "--tensorrt=rtx"]).must(3, &["TENSORRT_ROOT"]);
    tool.run(&["build", "--onnx", &onnx, "--engine", "x.engine", "--tensorrt=/"]).must(3, &["a folder without one"]);
    assert!(tool.left().is_empty());
}

#[test]
fn onnx_runtime_missing_or_too_old_is_code_3_and_says_which_is_needed() {
    let tool = Tool::new().with("ORT_DYLIB_PATH", "/nowhere/libonnxruntime.so");
    let run = |tool: &Tool| {
        tool.run(&[
            "run",
            "--onnx",
            &model("toy_cnn.onnx"),
            "--chain=ort-cpu",
            "--input",
            &model("data/nasdaq_windows.npy"),
        ])
    };
    run(&tool).must(3, &["/nowhere/libonnxruntime.so", "1.22 or newer"]);
    let old = tool.path("old.so");
    if old_onnx_runtime(&tool) {
        let tool = Tool::new().with("ORT_DYLIB_PATH", old.to_str().unwrap());
        run(&tool).must(3, &["1.22", "1.16.3"]);
    }
}

/// Compiles a library that says it is ONNX Runtime 1.16.3.
fn old_onnx_runtime(tool: &Tool) -> bool {
    let source = tool.file(
        "old.c",
        b"static const void *api(unsigned v) { static const void *t[512]; return v <= 16 ? t : 0; }\n\
          static const char *version(void) { return \"1.16.3\"; }\n\
          static const struct { const void *(*a)(unsigned); const char *(*v)(void); } base = { api, version };\n\
          const void *OrtGetApiBase(void) { return &base; }\n",
    );
    let compiled =
        Command::new("cc").args(["-shared", "-fPIC", "-o", "old.so", &source]).current_dir(tool.folder.path()).status();
    let compiled = compiled.is_ok_and(|status| status.success());
    if !compiled {
        eprintln!("skipped: no C compiler makes an old ONNX Runtime");
    }
    compiled
}

#[test]
fn chain_with_nothing_to_start_gives_every_reason() {
    let tool = Tool::new();
    let Some(engine) = tool.engine("toy_cnn", &[]) else { return };
    let tool = tool.without_gpu().with("ORT_DYLIB_PATH", "/nowhere");
    tool.run(&[
        "run",
        "--engine",
        &engine,
        "--onnx",
        &model("toy_cnn.onnx"),
        "--input",
        &model("data/nasdaq_windows.npy"),
    ])
    .must(3, &["tensorrt: ", "ort-cuda: ", "ort-cpu: "]);
}

#[test]
fn chain_that_cannot_be_is_wrong_use() {
    let tool = Tool::new();
    let (onnx, input) = (model("toy_cnn.onnx"), model("data/nasdaq_windows.npy"));
    let run = |more: &[&str]| tool.run(&[&["run", "--input", &input], more].concat());
    run(&[]).must(2, &["no network is named"]);
    run(&["--onnx", &onnx, "--chain=tensorrt"]).must(2, &["add --engine FILE"]);
    run(&["--onnx", &onnx, "--chain=ort-cpu,ort-cpu"]).must(2, &["ort-cpu twice"]);
    run(&["--onnx", &onnx, "--chain=tpu"]).must(2, &["none of resident, tensorrt, ort-cuda, ort-cpu"]);
}

#[test]
fn symbol_unknown_is_an_error_with_its_number() {
    if std::env::var_os("TICKRT_SDK").is_none() && std::env::var_os("ORT_DYLIB_PATH").is_none() {
        // SAFETY: no other thread of this test binary reads or writes the environment through C.
        unsafe { std::env::set_var("TICKRT_SDK", root().join(".sdk")) };
    }
    let config = SessionConfig {
        normalizations: Some(vec![Normalization::read(model("toy_cnn.normalization.json")).unwrap()]),
        windows: Some(WindowConfig::new(3, 8)),
        ..SessionConfig::default()
    };
    let backend = match OrtBackend::cpu(&Model::read(model("toy_cnn.onnx")).unwrap(), &config) {
        Ok(backend) => backend,
        Err(error) if matches!(error.kind(), ErrorKind::OnnxRuntimeMissing) => return eprintln!("skipped: {error}"),
        Err(error) => panic!("{error}"),
    };
    let mut session = Session::start(Box::new(backend), &config).unwrap();
    let error = session.push(3, &[0.0_f32; 8]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownSymbol { symbol: 3, symbols: 3 });
    assert!(error.to_string().contains("symbol 3") && error.to_string().contains("0..3"), "{error}");
    assert_eq!(session.submit_window(7).unwrap_err().kind(), ErrorKind::UnknownSymbol { symbol: 7, symbols: 3 });
}

#[test]
fn help_of_every_subcommand_has_an_example() {
    let tool = Tool::new();
    tool.run(&["--help"]).must(0, &["Exit codes:", "build", "validate"]);
    for command in ["build", "run", "validate", "bench", "inspect", "smoke", "deploy", "doctor", "demo"] {
        let ended = tool.run(&[command, "--help"]);
        let shown = if command == "demo" { "scripts/demo".to_owned() } else { format!("tickrt {command}") };
        let help = &ended.must(0, &["Example:", &shown]).stdout;
        // Wider, and an example is wrapped, and can no longer be pasted.
        let example = help.split("Example:\n").nth(1).unwrap().split("\n\n").next().unwrap();
        assert!(example.lines().all(|line| line.starts_with("  ") && line.len() <= 78), "{example}");
    }
}

#[test]
fn pipe_closed_by_the_reader_ends_the_tool_quietly() {
    let tool = Tool::new();
    let mut command = tool.command(&["inspect", &model("toy_cnn.onnx")]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    child.wait().unwrap();
    assert_eq!(said, "");
}

#[test]
fn doctor_without_a_gpu_says_so_and_looks_at_the_rest() {
    let tool = Tool::new().without_gpu();
    let ended = tool.run(&["doctor", "--duration", "0.2"]);
    ended.must(1, &["wrong here: ", "CUDA"]);
    for part in
        ["CPU governor", "huge pages", "locked memory", "TensorRT", "ONNX Runtime", "host jitter", "not measured"]
    {
        assert!(ended.stdout.contains(part), "`{part}` is not in: {}", ended.stdout);
    }
}

#[test]
fn doctor_tells_programs_a_verdict_and_a_fix_for_each_finding() {
    let tool = Tool::new().without_gpu();
    tool.file("bad.onnx", b"no model");
    let ended = tool.run(&["doctor", "--json", "--duration=0", "--onnx=bad.onnx", "--engine=absent.engine"]);
    ended.must(1, &["engine, model"]);
    let page: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    let findings = page["findings"].as_array().unwrap();
    for finding in findings {
        let bad = finding["verdict"] == "wrong" || finding["verdict"] == "tune";
        assert_eq!(bad, !finding["fix"].as_str().unwrap().is_empty(), "{finding}");
        assert!(!finding["seen"].as_str().unwrap().is_empty(), "{finding}");
    }
    assert!(!findings.iter().any(|finding| finding["area"] == "measured"), "nothing was to be measured");
}

#[test]
fn doctor_holds_engine_and_model_against_each_other() {
    let tool = Tool::new();
    let Some(engine) = tool.engine("toy_cnn", &[]) else { return };
    let tool = tool.without_gpu();
    let doctor = |onnx: &str| tool.run(&["doctor", "--duration=0", "--engine", &engine, "--onnx", &model(onnx)]);
    assert!(doctor("toy_cnn.onnx").stdout.contains("the engine was built from this model"));
    doctor("mlp.onnx").must(1, &["engine and model"]);
}

#[test]
fn profile_without_a_gpu_or_an_engine_says_so() {
    let tool = Tool::new().without_gpu();
    tool.run(&["profile"]).must(2, &["add --engine FILE"]);
    tool.run(&["profile", "--engine=nowhere.engine"]).must(2, &["nowhere.engine", "check the path"]);
    let Some(engine) = tool.engine("mlp", &[]) else { return };
    tool.run(&["profile", "--engine", &engine, "--trace=trace.json"])
        .must(3, &["expected an NVIDIA driver and at least one GPU"]);
    assert!(!tool.path("trace.json").exists());
}

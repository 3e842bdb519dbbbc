//! Resident engines: built, shown, signed, and refused with what is wrong.

use std::fs;

use tickrt::data::Values;

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
        (&["--bf16"][..], "--resident and --bf16: a resident engine sums up in fp32"),
        (&["--int8"], "--int8: a resident engine sums up in fp32"),
        (&["--calib", "x.npy"], "--calib: a resident engine sums up in fp32"),
        (&["--autotune"], "--autotune: it is for TensorRT"),
        (&["--tensorrt=rtx"], "--tensorrt: it is for TensorRT"),
        (&["--minShapes=input:1x256"], "--shapes or --optShapes gives"),
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
    let deeplob = model("deeplob.onnx");
    let in_one = ["build", "--resident", "--onnx", &deeplob, "--engine", "x.resident", "--resident-blocks=1"];
    tool.run(&in_one).must(3, &["bytes of activations in a block", "the chain goes on to TensorRT"]);
    build("mlp.onnx").must(3, &["open NVRTC", "$TICKRT_NVRTC: /nonexistent/libnvrtc.so", "scripts/setup"]);
    assert!(tool.left().is_empty(), "{:?}", tool.left());
    tool.run(&["versions"]).must(0, &["nvrtc"]);
}

#[test]
fn resident_engine_without_a_gpu_is_alone_an_error_and_in_a_chain_passed_over() {
    let tool = Tool::new().without_gpu();
    let (onnx, normalization) = (model("toy_cnn.onnx"), model("toy_cnn.normalization.json"));
    let Some(engine) = build(&tool, "toy_cnn", &["--normalization", &normalization]) else { return };
    let input = model("data/nasdaq_windows.npy");
    tool.run(&["run", "--resident", &engine, "--input", &input]).must(3, &["start CUDA", "at least one GPU"]);
    tool.run(&["bench", "--resident", &engine])
        .must(3, &["none of the paths could start", "tickrt-resident: start CUDA"]);
    if tool.on_cpu().is_none() {
        return;
    }
    let shared = ["--resident", &engine, "--onnx", &onnx, "--input", &input];
    let labels = ["--labels", &model("data/nasdaq_labels.npy")];
    // The artefact's normalisation is that of whoever answers in its place.
    let reason = "resident: start CUDA";
    tool.run(&[&["run"][..], &shared, &labels].concat())
        .must(0, &["passed over", reason, "answers        ort-cpu", "accuracy       98.4 %"]);
    let quick = ["--paths=tickrt-resident,ort-cpu", "--iterations=20"];
    tool.run(&[&["bench"][..], &shared, &quick].concat())
        .must(0, &["tickrt-resident is not measured: start CUDA", "ort-cpu  "]);
}

#[test]
fn resident_engine_of_a_window_has_other_paths_answer_the_windows_of_one_series() {
    let tool = Tool::new().without_gpu();
    let onnx = model("toy_cnn.onnx");
    let arguments = ["build", "--resident", "--onnx", &model("lstm_a.onnx"), "--engine", "lstm_a.resident"];
    let window = ["--semantics=window", "--stamps", "--compute-capability=9.0"];
    let ended = tool.run(&[&arguments[..], &window].concat());
    if left_out(&ended) || tool.on_cpu().is_none() {
        return;
    }
    ended.must(0, &["ahead: 49 windows one row further, LSTM of 100 units", "the row goes into the window"]);
    let bench = |more: &[&str]| tool.run(&[&["bench", "--resident=lstm_a.resident"], more].concat());
    let files = ["--json=r.json", "--samples=30", "--iterations=40", "--paths=tickrt-resident,ort-cpu"];
    bench(&[&["--onnx", &model("lstm_a.onnx")], &files[..]].concat()).must(0, &["tickrt-resident is not measured"]);
    let records = fs::read_to_string(tool.path("r.json")).unwrap();
    let records: serde_json::Value = serde_json::from_str(&records).unwrap();
    assert_eq!((&records[0]["path"], &records[0]["semantics"]), (&"ort-cpu".into(), &"window".into()));
    assert_eq!(records[0].get("ready_again_us"), None);
    // Another network has no such rows.
    bench(&["--onnx", &onnx, "--paths=tickrt-resident,ort-cpu"]).must(2, &["whole rows"]);
}

#[test]
fn resident_engine_with_state_is_measured_alone_and_stands_in_no_chain() {
    let tool = Tool::new().without_gpu();
    let onnx = model("lstm_a.onnx");
    let flags = ["--engine", "lstm_a.resident", "--semantics=stateful", "--compute-capability=9.0"];
    let ended = tool.run(&[&["build", "--resident", "--onnx", &onnx], &flags[..]].concat());
    if left_out(&ended) {
        return;
    }
    ended.must(0, &["newest step of 100 of LSTM of 100 units", "the state is kept"]);
    tool.run(&["inspect", "lstm_a.resident"]).must(0, &["stateful"]);
    let bench = ["bench", "--resident=lstm_a.resident", "--onnx", &onnx];
    tool.run(&[&bench[..], &["--paths=tickrt-resident,ort-cpu"]].concat())
        .must(2, &["measure it alone", "--paths tickrt-resident"]);
    let rows = tool.array("rows.npy", &[3, 100], Values::F32(vec![0.5; 300]));
    tool.run(&["run", "--resident=lstm_a.resident", "--input", &rows]).must(2, &["into a chain", "carries state"]);
    let cnn = ["build", "--resident", "--onnx", &model("toy_cnn.onnx"), "--engine=x.resident", "--semantics=stateful"];
    tool.run(&[&cnn[..], &["--compute-capability=9.0"]].concat()).must(3, &["LSTM or GRU layers", "`/0/Conv`"]);
    assert_eq!(tool.left(), ["lstm_a.resident", "lstm_a.resident.json", "rows.npy"]);
}

#[test]
fn resident_engine_that_was_not_named_or_has_another_normalisation_is_wrong_use() {
    let tool = Tool::new().without_gpu();
    let (onnx, input) = (model("toy_cnn.onnx"), model("data/nasdaq_windows.npy"));
    tool.run(&["run", "--chain=resident", "--onnx", &onnx, "--input", &input])
        .must(2, &["the chain has resident: add --resident FILE"]);
    tool.run(&["bench", "--paths=tickrt-resident", "--onnx", &onnx]).must(2, &["add --resident FILE"]);
    tool.run(&["run", "--resident=none.resident", "--input", &input]).must(2, &["none.resident"]);
    let normalization = model("toy_cnn.normalization.json");
    let Some(engine) = build(&tool, "toy_cnn", &["--normalization", &normalization]) else { return };
    let other = fs::read_to_string(&normalization).unwrap().replace("8.0", "7.0");
    let other = tool.file("other.json", other.as_bytes());
    tool.run(&["run", "--resident", &engine, "--normalization", &other, "--input", &input])
        .must(2, &["the normalisation that its kernel was built with", "build it again with that --normalization"]);
}

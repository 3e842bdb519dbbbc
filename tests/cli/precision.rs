//! `tickrt build --fp16 --int8` and `tickrt validate --precision`: what they make, what they say, what they refuse.

use tickrt::data::Values;
use tickrt::onnx::Model;
use tickrt::{DataType, Precision, Sidecar};

use crate::support::{Ended, Tool, left_out, model};

/// `tickrt build --int8` of a model with its normalisation.
fn int8(tool: &Tool, name: &str, more: &[&str]) -> Ended {
    let (onnx, normalization) = (model(&format!("{name}.onnx")), model(&format!("{name}.normalization.json")));
    let build = ["build", "--onnx", &onnx, "--engine", "x.engine", "--normalization", &normalization, "--int8"];
    tool.run(&[&build[..], more].concat())
}

fn windows() -> String {
    model("data/sp500_calibration_windows.npy")
}

/// Where the TensorRT at hand is RTX, whose models are lowered; another one may calibrate itself, on a GPU.
const LOWERED: [&str; 1] = ["--int8-mode=qdq"];

// ---- what works ----

#[test]
fn fp16_and_int8_engines_have_a_sidecar_that_says_so_and_a_model_that_can_be_saved() {
    let tool = Tool::new();
    for (flags, precision) in [
        (&["--fp16"][..], Precision::Fp16),
        (&["--int8", "--int8-mode=qdq", "--calib", &windows()], Precision::Int8),
        (
            &["--fp16", "--int8", "--int8-mode=qdq", "--calib", &windows(), "--calib-method=percentile:99.9"],
            Precision::Int8,
        ),
    ] {
        let Some(engine) = tool.engine("toy_cnn", &[flags, &["--save-onnx=low.onnx", "--tensorrt=rtx"]].concat())
        else {
            return;
        };
        let sidecar = Sidecar::beside(tool.path(&engine)).unwrap().unwrap();
        assert_eq!(sidecar.precision, precision);
        assert_eq!(sidecar.normalizations[0].input, "input");
        let original = Model::read(model("toy_cnn.onnx")).unwrap();
        let sha256: String = original.sha256().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(sidecar.onnx_sha256, Some(sha256));
        let saved = Model::read(tool.path("low.onnx")).unwrap();
        assert_eq!(saved.tensors(), original.tensors());
        assert_eq!(saved.is_quantized(), precision == Precision::Int8);
        let rebuild = tickrt::Plan::read(tool.path(&engine)).unwrap().rebuild_command();
        assert!(
            flags.iter().filter(|flag| flag.starts_with("--calib-") || **flag == "--fp16").all(|f| rebuild.contains(f))
        );
    }
}

#[test]
fn precision_report_names_every_node_with_its_precision_and_why() {
    let tool = Tool::new();
    let onnx = model("toy_cnn.onnx");
    let flags = ["--fp16", "--tensorrt=rtx", "--precision-report", "--keep-fp32", "/0/Conv", "Gemm", "--strict-types"];
    let ended = tool.run(&[&["build", "--onnx", &onnx, "--engine", "x.engine"], &flags[..]].concat());
    if left_out(&ended) {
        return;
    }
    ended.must(0, &["nodes, as the model was lowered", "as asked", "Softmax is better kept"]);
    let of = |node: &str| ended.stdout.lines().find(|line| line.trim().starts_with(node)).unwrap().to_owned();
    assert!(of("/0/Conv").contains("fp32") && of("/2/Conv").contains("fp16"), "{}", ended.stdout);
}

/// Half of the values clipped: an engine that TensorRT builds without a word.
const CLIPS_HALF: &str = "--calib-method=percentile:50";

#[test]
fn engine_that_does_not_answer_as_fp32_does_is_refused_unless_it_is_asked_for() {
    let tool = Tool::new();
    let calib = windows();
    let flags = ["--int8-mode=qdq", "--calib", &calib];
    let right = int8(&tool, "toy_cnn", &flags);
    if left_out(&right) {
        return;
    }
    right.must(0, &[]);
    if right.stderr.contains("the engine's answers were not compared with FP32's: ") {
        assert!(right.stderr.contains("GPU") && !right.stdout.contains("accuracy"), "{}", right.stderr);
        return eprintln!("skipped: {}", right.stderr);
    }
    right.must(0, &["accuracy", "dB above its distance from FP32's (64 calibration samples)"]);
    std::fs::remove_file(tool.path("x.engine")).unwrap();
    std::fs::remove_file(tool.path("x.engine.json")).unwrap();
    let wrong = [&flags[..], &[CLIPS_HALF]].concat();
    int8(&tool, "toy_cnn", &wrong)
        .must(1, &["expected answers that follow FP32's", "--keep-fp32", "--allow-inaccurate"]);
    assert!(tool.left().is_empty(), "{:?}", tool.left());
    int8(&tool, "toy_cnn", &[&wrong[..], &["--allow-inaccurate"]].concat()).must(0, &["accuracy"]);
    assert!(tool.path("x.engine").exists());
}

// ---- the cache ----

#[test]
fn calibration_cache_is_written_used_without_data_and_not_for_another_model() {
    let tool = Tool::new();
    let flags = ["--tensorrt=rtx", "--calib", &windows(), "--calib-cache=x.cache"];
    let ended = int8(&tool, "toy_cnn", &flags);
    if left_out(&ended) {
        return;
    }
    ended.must(0, &[]);
    let written = std::fs::read_to_string(tool.path("x.cache")).unwrap();
    assert!(written.starts_with("tickrt-EntropyCalibration\n") && written.contains("\ninput: 3d"), "{written}");
    let again = int8(&tool, "toy_cnn", &["--tensorrt=rtx", "--calib-cache=x.cache"]);
    again.must(0, &[]);
    assert!(!again.stderr.contains("calibration cache"), "{}", again.stderr);
    assert!(again.stderr.contains("were not compared with FP32's: there are no samples"), "{}", again.stderr);
    let same = int8(&tool, "toy_cnn", &flags);
    assert!(!same.must(0, &[]).stderr.contains("calibrating"), "{}", same.stderr);

    let other = int8(&tool, "mlp", &["--tensorrt=rtx", "--calib-cache=x.cache"]);
    other.must(2, &["of another model", "it was not used", "--calib FILE"]);
    let method = int8(&tool, "toy_cnn", &["--tensorrt=rtx", "--calib-cache=x.cache", "--calib-method=mse"]);
    method.must(2, &["of another method (entropy, not mse)"]);
    let data = int8(&tool, "toy_cnn", &[&flags[..], &["--calib-batches=9"]].concat());
    assert!(data.must(0, &[]).stderr.contains("of other data: it was not used"), "{}", data.stderr);
    assert_eq!(std::fs::read_to_string(tool.path("x.cache.old")).unwrap(), written, "put aside");
}

#[test]
fn calibration_cache_of_unknown_origin_or_changed_is_reported_and_not_used() {
    let tool = Tool::new();
    tool.file("x.cache", b"TRT-8601-EntropyCalibration2\ninput: 3c010a14\n");
    let ended = int8(&tool, "toy_cnn", &["--calib-cache=x.cache"]);
    if left_out(&ended) {
        return;
    }
    ended.must(2, &["of unknown origin (there is no x.cache.json)", "it was not used"]);
    if left_out(&int8(&tool, "toy_cnn", &["--tensorrt=rtx", "--calib", &windows(), "--calib-cache=y.cache"])) {
        return;
    }
    let mut bytes = std::fs::read(tool.path("y.cache")).unwrap();
    bytes.extend(b"more: 3c010a14\n");
    tool.file("y.cache", &bytes);
    int8(&tool, "toy_cnn", &["--tensorrt=rtx", "--calib-cache=y.cache"]).must(2, &["damaged or another program's"]);
}

// ---- what is refused ----

#[test]
fn int8_without_data_and_cache_is_refused_before_anything_is_looked_for() {
    let tool = Tool::new();
    int8(&tool, "toy_cnn", &[]).must(2, &["--int8 and --fp8: expected calibration data", "--calib FILE"]);
    let onnx = model("toy_cnn.onnx");
    let build = ["build", "--onnx", &onnx, "--engine", "x.engine", "--calib", &windows()];
    tool.run(&build).must(2, &["are for --int8 and --fp8: add one"]);
    let build = ["build", "--onnx", &onnx, "--engine", "x.engine", "--fp16", "--allow-inaccurate"];
    tool.run(&build).must(2, &["--allow-inaccurate is for --int8 and --fp8"]);
    let validate = ["validate", "--onnx", &onnx, "--precision=int8", "--calib-cache=x.cache"];
    tool.run(&validate).must(2, &["has the ranges of one method", "--calib FILE"]);
    assert!(tool.left().is_empty());
}

#[test]
fn calibration_data_that_cannot_be_is_refused_with_what_was_expected() {
    let tool = Tool::new();
    let empty = tool.array("empty.npy", &[0, 32, 8], Values::F32(vec![]));
    let wrong = tool.array("wrong.npy", &[4, 8, 31], Values::F32(vec![0.0; 4 * 8 * 31]));
    let kind = tool.array("kind.npy", &[4, 32, 8], Values::U8(vec![0; 4 * 256]));
    let mut values = vec![0.5; 4 * 256];
    values[2 * 256 + 7] = f32::NAN;
    let nan = tool.array("nan.npy", &[4, 32, 8], Values::F32(values));
    let (bin, npz) = (tool.file("odd.bin", &[0; 1000]), tool.file("not.npz", b"no zip"));
    std::fs::create_dir(tool.path("folder")).unwrap();
    if left_out(&int8(&tool, "toy_cnn", &["--calib", &windows(), "--tensorrt=rtx"])) {
        return;
    }
    for (data, says) in [
        (&empty, &["empty.npy", "expected an array of 32x8", "(0 elements)"][..]),
        (&wrong, &["wrong.npy", "expected an array of 32x8", "got 4x8x31"]),
        (&kind, &["kind.npy", "expected elements of f32, got u8"]),
        (&nan, &["batch 2", "`input`", "NaN or infinity", "take samples with NaN or infinity out"]),
        (&bin, &["odd.bin", "a multiple of 1024 bytes", "got 1000 bytes"]),
        (&npz, &["not.npz", "expected a .npz file", "numpy.savez"]),
        (&"folder".to_owned(), &["expected .npy files in the folder, got none"]),
        (&"nowhere.npy".to_owned(), &["nowhere.npy", "no such file"]),
        (&format!("other:{wrong}"), &["expected samples of input, got `other`"]),
    ] {
        std::fs::remove_file(tool.path("x.engine")).ok();
        int8(&tool, "toy_cnn", &[&["--tensorrt=rtx", "--calib", data.as_str()], &LOWERED[..]].concat()).must(2, says);
        assert!(!tool.path("x.engine").exists(), "{data}");
    }
    int8(&tool, "toy_cnn", &["--calib", &windows(), "--calib-batch=4"]).must(2, &["first dimension alone is dynamic"]);
    int8(&tool, "toy_cnn", &["--calib", &windows(), "--calib-method=kl"]).must(2, &["entropy, minmax, percentile"]);
}

#[test]
fn node_that_does_not_exist_is_refused_with_the_nearest_before_tensorrt_is_looked_for() {
    let tool = Tool::new();
    let onnx = model("toy_cnn.onnx");
    let build = ["build", "--onnx", &onnx, "--engine", "x.engine", "--fp16", "--keep-fp32", "/2/conv"];
    tool.run(&build).must(2, &["such as /2/Conv", "got `/2/conv`", "tickrt inspect"]);
    assert!(tool.left().is_empty());
    tool.run(&["inspect", &onnx, "--nodes"]).must(0, &["/2/Conv", "/8/Softmax"]);
}

#[test]
fn model_that_is_quantised_or_fp16_already_or_too_old_is_refused() {
    let tool = Tool::new();
    let calib = windows();
    let low = |flags: &[&str]| {
        let flags = [flags, &["--save-onnx=low.onnx", "--tensorrt=rtx"]].concat();
        tool.engine("toy_cnn", &flags)
    };
    let again = |flags: &[&str]| {
        let build = ["build", "--onnx", "low.onnx", "--engine", "again.engine", "--tensorrt=rtx"];
        tool.run(&[&build[..], flags].concat())
    };
    if low(&["--int8", "--calib", &calib]).is_none() {
        return;
    }
    let normalization = model("toy_cnn.normalization.json");
    again(&["--int8", "--calib", &calib, "--normalization", &normalization])
        .must(3, &["one that is quantised already (`", "leave calibration out"]);
    again(&["--int8"]).must(0, &["int8"]);
    low(&["--fp16"]).unwrap();
    again(&["--fp16"]).must(3, &["computes in 16 bits already", "leave the flag out"]);

    let mut bytes = std::fs::read(model("toy_cnn.onnx")).unwrap();
    let opset = bytes.windows(4).rposition(|bytes| bytes == [0x10, 17, 0x42, 2] || bytes == [0x42, 2, 0x10, 17]);
    let opset = opset.or_else(|| bytes.windows(6).rposition(|bytes| bytes == [0x42, 4, 0x0a, 0, 0x10, 17])).unwrap();
    let version = bytes[opset..].iter().position(|&byte| byte == 17).unwrap();
    bytes[opset + version] = 12;
    tool.file("low.onnx", &bytes);
    again(&["--int8", "--calib", &calib, "--normalization", &normalization])
        .must(3, &["opset 13 or newer", "got opset 12", "opset_version=17"]);
}

#[test]
fn bytes_of_every_kind_of_file_are_the_same_samples() {
    let tool = Tool::new();
    let Some(array) = std::fs::read(windows()).ok().filter(|_| {
        !left_out(&int8(&tool, "toy_cnn", &["--tensorrt=rtx", "--calib", &windows(), "--calib-cache=npy.cache"]))
    }) else {
        return;
    };
    let data = &array[array.len() - 256 * 1024..];
    tool.file("all.bin", data);
    std::fs::create_dir(tool.path("folder")).unwrap();
    for (number, sample) in data.chunks_exact(1024).enumerate() {
        let values = Values::from_bytes(DataType::F32, sample).unwrap();
        tool.array(&format!("folder/{number:04}.npy"), &[32, 8], values);
    }
    let scales = |cache: &str| std::fs::read_to_string(tool.path(cache)).unwrap();
    for (calib, cache) in [("all.bin", "bin.cache"), ("folder", "folder.cache")] {
        int8(&tool, "toy_cnn", &["--tensorrt=rtx", "--calib", calib, "--calib-cache", cache]).must(0, &[]);
        assert_eq!(scales(cache), scales("npy.cache"), "{calib}");
    }
}

// ---- validate --precision ----

/// `tickrt validate --precision` of a model on its test windows, in ONNX Runtime on the CPU; none where there is none.
fn validate(tool: &Tool, name: &str, more: &[&str]) -> Option<Ended> {
    let kind = if name == "cnn_small" { "images32" } else { "windows" };
    let [onnx, normalization] = ["onnx", "normalization.json"].map(|ending| model(&format!("{name}.{ending}")));
    let (input, labels) = (model(&format!("data/nasdaq_{kind}.npy")), model("data/nasdaq_labels.npy"));
    let calib = model(&format!("data/sp500_calibration_{kind}.npy"));
    let all = ["validate", "--onnx", &onnx, "--normalization", &normalization, "--input", &input, "--labels", &labels];
    let ended = tool.run(&[&all[..], &["--calib", &calib, "--chain=ort-cpu"], more].concat());
    (!left_out(&ended)).then_some(ended)
}

#[test]
fn table_of_precisions_has_a_row_each_and_says_why_there_is_no_latency() {
    let tool = Tool::new();
    let flags =
        ["--precision=fp16,int8,int8+fp16,tf32", "--calib-method=minmax,mse", "--max-drop=1%", "--jsonl=x.jsonl"];
    let Some(ended) = validate(&tool, "toy_cnn", &flags) else { return };
    ended.must(
        0,
        &["98.36 %", "cast", "qdq", "minmax", "mse", "Latency and device memory are a GPU's", "tf32 exists on a GPU"],
    );
    assert!(ended.stderr.contains("fp32 is added"), "{}", ended.stderr);
    validate(&tool, "toy_cnn", &["--precision=fp8"]).unwrap().must(0, &["fp8", "fp8 needs a GPU"]);
    let gated = validate(&tool, "toy_cnn", &["--precision=fp8", "--max-drop=1%"]).unwrap();
    gated.must(1, &["fp8 by entropy is not there"]);
    for kind in ["fp8", "int8+fp16"] {
        let without = tool.run(&["validate", "--onnx", &model("toy_cnn.onnx"), "--precision", kind, "--samples=3"]);
        without.must(2, &[&format!("--precision {kind}: expected calibration data, got none; add --calib")]);
    }
    let text = std::fs::read_to_string(tool.path("x.jsonl")).unwrap();
    let rows: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<_> = rows.iter().map(|row| [&row["precision"], &row["method"], &row["by"]]).collect();
    assert_eq!(told[0], ["fp32", "", ""]);
    assert_eq!(told[1], ["fp16", "", "cast"]);
    assert_eq!(told[3], ["int8", "mse", "qdq"]);
    assert_eq!(rows.len(), 6);
    for row in &rows {
        assert_eq!(
            (&row["samples"], &row["p50_us"], &row["backend"]),
            (&1709.into(), &serde_json::Value::Null, &"ort-cpu".into())
        );
        assert!(row["top1"].as_f64().unwrap() > 0.97 && row["agreement"].as_f64().unwrap() > 0.98, "{row}");
    }
}

#[test]
fn drop_beyond_the_gate_ends_with_1_and_search_finds_flags_that_pass() {
    let tool = Tool::new();
    let flags = ["--precision=int8", "--calib-method=mse", "--max-drop=0%"];
    let Some(ended) = validate(&tool, "toy_cnn", &flags) else { return };
    ended.must(1, &["expected each to lose at most 0.00 %", "int8 by mse loses 0.", "--search"]);
    let found = validate(&tool, "toy_cnn", &[&flags[..], &["--search"]].concat()).unwrap();
    found.must(0, &["each node alone", "passes with:", "--calib-method=mse", "--keep-fp32 /"]);
    let kept = found.stdout.split("--keep-fp32 ").nth(1).unwrap().trim().to_owned();
    let again = [&flags[..], &["--keep-fp32"], &kept.split(' ').collect::<Vec<_>>()].concat();
    validate(&tool, "toy_cnn", &again).unwrap().must(0, &[]);
}

#[test]
fn flags_of_the_comparison_that_cannot_be_are_wrong_use() {
    let tool = Tool::new();
    if validate(&tool, "toy_cnn", &["--precision=fp32"]).is_none() {
        return;
    }
    for (flags, says) in [
        (&["--precision=fp17"][..], "none of fp32, tf32, fp16, bf16, int8, int8+fp16, fp8"),
        (&["--precision=fp16", "--max-drop=200%"], "is no share"),
        (&["--precision=fp16", "--search"], "--max-drop"),
        (&["--max-drop=1%"], "--precision"),
        (&["--precision=fp16", "--keep-fp32", "nowhere"], "got `nowhere`"),
        (&["--precision=fp16", "--engine=x.engine"], "--precision fp16=FILE"),
    ] {
        validate(&tool, "toy_cnn", flags).unwrap().must(2, &[says]);
    }
    let onnx = model("toy_cnn.onnx");
    let bare = ["validate", "--onnx", &onnx, "--precision=int8", "--chain=ort-cpu"];
    tool.run(&bare).must(2, &["expected calibration data, got none"]);
    let short = tool.array("short.npy", &[5], Values::I32(vec![0; 5]));
    let labels =
        ["validate", "--onnx", &onnx, "--precision=fp16", "--chain=ort-cpu", "--samples=9", "--labels", &short];
    tool.run(&labels).must(2, &["expected 9 integers, one a sample, got 5 of i32"]);
}

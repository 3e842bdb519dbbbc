//! `tickrt run`, `validate`, `bench` and `demo`: samples in, answers out.

use std::collections::BTreeSet;

use tickrt::data::{Array, Values};
use tickrt::stats::Record;

use crate::support::{Ended, Tool, left_out, model};

/// Runs toy_cnn on the CPU on `input`.
fn run(tool: &Tool, input: &str, more: &[&str]) -> Option<Ended> {
    let mut arguments = vec!["run".to_owned(), "--input".to_owned(), input.to_owned()];
    arguments.extend(tool.on_cpu()?);
    arguments.extend(more.iter().map(|&argument| argument.to_owned()));
    Some(tool.run(&arguments))
}

#[test]
fn batch_of_windows_is_answered_and_kept() {
    let tool = Tool::new();
    let labels = model("data/nasdaq_labels.npy");
    let input = model("data/nasdaq_windows.npy");
    let Some(ended) = run(&tool, &input, &["--labels", &labels, "--output", "scores.npy"]) else { return };
    ended.must(0, &["ort-cpu: ONNX Runtime", "accuracy", "98.4 %", "1709"]);
    let scores = Array::read_npy(tool.path("scores.npy")).unwrap();
    assert_eq!(scores.shape, [1709, 3]);
    let Values::F32(values) = scores.values else { panic!("f32 scores") };
    assert!(values.chunks(3).all(|row| (row.iter().sum::<f32>() - 1.0).abs() < 1e-4));
}

#[test]
fn raw_samples_give_the_answers_of_the_same_npy() {
    let tool = Tool::new();
    let windows = Array::read_npy(model("data/nasdaq_windows.npy")).unwrap();
    let some = windows.values.slice(0..5 * 256);
    let raw = tool.file("some.bin", some.as_bytes());
    let npy = tool.array("some.npy", &[5, 32, 8], some);
    let Some(ended) = run(&tool, &raw, &["--output", "a.npy"]) else { return };
    ended.must(0, &[]);
    run(&tool, &npy, &["--output", "b.npy"]).unwrap().must(0, &[]);
    assert_eq!(std::fs::read(tool.path("a.npy")).unwrap(), std::fs::read(tool.path("b.npy")).unwrap());
}

#[test]
fn input_of_wrong_type_rank_or_length_says_what_was_expected() {
    let tool = Tool::new();
    let wide = tool.array("wide.npy", &[32, 8], Values::F64(vec![0.0; 256]));
    let Some(ended) = run(&tool, &wide, &[]) else { return };
    ended.must(2, &["expected elements of f32, got f64", "convert the array"]);
    let turned = tool.array("turned.npy", &[1, 8, 32], Values::F32(vec![0.0; 256]));
    run(&tool, &turned, &[]).unwrap().must(2, &["expected an array of 32x8", "got 1x8x32", "reshape"]);
    let deep = tool.array("deep.npy", &[2, 2, 32, 8], Values::F32(vec![0.0; 1024]));
    run(&tool, &deep, &[]).unwrap().must(2, &["expected an array of 32x8", "got 2x2x32x8"]);
    let short = tool.array("short.npy", &[31, 8], Values::F32(vec![0.0; 248]));
    run(&tool, &short, &[]).unwrap().must(2, &["expected an array of 32x8", "248 elements"]);
    run(&tool, &tool.file("short.bin", &[0; 1000]), &[])
        .unwrap()
        .must(2, &["multiple of 1024 bytes", "got 1000 bytes"]);
    run(&tool, &tool.file("text.npy", b"hello"), &[]).unwrap().must(2, &["expected a .npy file", "numpy.save"]);
    run(&tool, "nowhere.npy", &[]).unwrap().must(2, &["nowhere.npy", "check the path"]);
    run(&tool, "other:turned.npy", &[]).unwrap().must(2, &["`other`", "NAME:FILE"]);
}

#[test]
fn nan_under_refuse_names_the_sample_and_writes_nothing() {
    let tool = Tool::new();
    let mut values = vec![0.0_f32; 3 * 256];
    values[256 + 7] = f32::NAN;
    let input = tool.array("nan.npy", &[3, 32, 8], Values::F32(values));
    let Some(ended) = run(&tool, &input, &["--output", "scores.npy"]) else { return };
    ended.must(2, &["sample 1", "NaN", "refuse"]);
    assert_eq!(tool.left(), ["nan.npy"]);
}

#[test]
fn answers_that_cannot_be_written_leave_nothing() {
    let tool = Tool::new();
    let input = model("data/nasdaq_windows.npy");
    let Some(ended) = run(&tool, &input, &["--output", "nowhere/scores.npy"]) else { return };
    ended.must(2, &["make the folder nowhere first"]);
    run(&tool, &input, &["--output", "other:scores.npy"]).unwrap().must(2, &["no output `other`", "probabilities"]);
    let labels = tool.array("labels.npy", &[3], Values::I32(vec![0; 3]));
    run(&tool, &input, &["--labels", &labels]).unwrap().must(2, &["expected 1709", "got 3"]);
    assert_eq!(tool.left(), ["labels.npy"]);
}

#[test]
fn validate_compares_with_itself_only_when_told_to() {
    let tool = Tool::new().without_gpu();
    let onnx = model("toy_cnn.onnx");
    let Some(on_cpu) = tool.on_cpu() else { return };
    tool.run(&[&["validate".to_owned()][..], &on_cpu].concat()).must(0, &["ort-cpu", "100.0 %"]);
    tool.run(&["validate", "--onnx", &onnx]).must(3, &[]);
    tool.run(&["validate", "--onnx", &onnx, "--chain", "ort-cuda,ort-cpu"])
        .must(3, &["got none but the CPU itself", "ort-cuda: "]);
    tool.run(&["validate", "--onnx", &onnx, "--chain", "ort-cpu", "--samples=0"]).must(2, &["--samples"]);
    tool.run(&["validate", "--onnx", &onnx, "--chain", "ort-cpu", "--rtol=-1"]).must(2, &["from 0 on"]);
}

#[test]
fn nan_in_answers_fails_the_check_with_code_1() {
    let tool = Tool::new();
    if tool.on_cpu().is_none() {
        return;
    }
    let onnx = model("toy_cnn.onnx");
    let nan = tool.array("nan.npy", &[1, 8, 32], Values::F32(vec![f32::NAN; 256]));
    // Without a normalisation nothing refuses it.
    tool.run(&["validate", "--onnx", &onnx, "--chain=ort-cpu", "--input", &nan]).must(1, &["3 of 3 elements", "NaN"]);
    tool.run(&["run", "--onnx", &onnx, "--chain=ort-cpu", "--input", &nan]).must(1, &["element 0 is NaN"]);
}

#[test]
fn model_alone_says_whether_its_input_is_normalised() {
    let tool = Tool::new();
    let Some(ended) = run(&tool, &model("data/nasdaq_windows.npy"), &[]) else { return };
    assert!(!ended.must(0, &["normalisation", "of input, from f32"]).stderr.contains("normalised"), "{}", ended.stderr);
    let (onnx, input) = (model("toy_cnn.onnx"), tool.array("x.npy", &[1, 8, 32], Values::F32(vec![0.0; 256])));
    let ended = tool.run(&["run", "--onnx", &onnx, "--chain=ort-cpu", "--input", &input]);
    let normalisation = ended.must(0, &[]).stdout.lines().find(|line| line.contains("normalisation")).unwrap();
    assert!(normalisation.ends_with("none"), "{normalisation}");
    let says =
        format!("NOT normalised; to do that as the model was trained, add --normalization {}", &onnx[..onnx.len() - 5]);
    assert!(ended.stderr.contains(&says), "{}", ended.stderr);
}

#[test]
fn parity_compares_one_sample_at_a_time_with_batches() {
    let tool = Tool::new();
    if tool.on_cpu().is_none() {
        return;
    }
    let run = |name: &str, more: &[&str]| {
        let files = [
            format!("--onnx={}", model(&format!("{name}.onnx"))),
            format!("--normalization={}", model(&format!("{name}.normalization.json"))),
            format!("--input={}", model("data/nasdaq_windows.npy")),
        ];
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        tool.run(&[&["run", "--chain=ort-cpu"], &files[..], more].concat())
    };
    run("mlp_dynamic", &["--parity=64"])
        .must(0, &["1664 samples one at a time against batches of 64", "0 of 1664 differ"]);
    run("mlp_dynamic", &["--parity=5000"]).must(2, &["1709 samples do not fill a batch of 5000"]);
    run("mlp", &["--parity"]).must(2, &["input `input` is 1x256: it needs a batch that is dynamic"]);
}

#[test]
fn bench_refuses_a_file_it_cannot_write_before_it_measures() {
    let tool = Tool::new();
    let Some(on_cpu) = tool.on_cpu() else { return };
    let more = ["--duration=1000", "--iterations=1000000000", "--jsonl=nodir/x"].map(str::to_owned);
    let ended = tool.run(&[&["bench".to_owned()][..], &more, &on_cpu].concat());
    ended.must(2, &["write nodir/x: no such file or directory; make the folder nodir first"]);
}

#[test]
fn bench_goes_on_without_the_paths_that_are_not_there() {
    let tool = Tool::new().without_gpu();
    if tool.on_cpu().is_none() {
        return;
    }
    let (onnx, iterations) = (format!("--onnx={}", model("toy_cnn.onnx")), "--iterations=50");
    let bench = |more: &[&str]| tool.run(&[&["bench", &onnx, iterations][..], more].concat());
    bench(&["--paths=ort-cuda-graph,ort-cpu"]).must(0, &["ort-cuda-graph is not measured: ", "ort-cpu  "]);
    bench(&["--paths=ort-cuda,ort-cuda-graph"]).must(3, &["none of the paths could start", "ort-cuda-graph: "]);
    bench(&["--paths=tickrt"]).must(2, &["tickrt is to be measured: add --engine FILE"]);
    bench(&["--paths=fastest"])
        .must(2, &["there is no path `fastest`; the paths are tickrt-resident, tickrt, tickrt-ahead"]);
    let files = ["--plot=p.png", "--csv=p.csv", "--json=p.json", "--rate=5000", "--burst=2", "--duration=0.2"];
    bench(&[&["--paths=ort-cpu", "--recommend"], &files[..]].concat())
        .must(0, &["latency in µs from the scheduled arrival", "by p99: --chain ort-cpu", "drawn in p.png"]);
    assert_eq!(&std::fs::read(tool.path("p.png")).unwrap()[..4], b"\x89PNG");
    let csv = std::fs::read_to_string(tool.path("p.csv")).unwrap();
    let lines: Vec<&str> = csv.lines().collect();
    assert!(lines[0].starts_with("run_id,model,model_sha256,path,") && lines.len() == 3, "{csv}");
    let records: Vec<Record> = serde_json::from_slice(&std::fs::read(tool.path("p.json")).unwrap()).unwrap();
    assert_eq!([&records[0].load[..], &records[1].load], ["closed", "open"]);
    bench(&["--paths=ort-cpu", "--plot=p.svg"]).must(0, &[]);
    assert!(std::fs::read_to_string(tool.path("p.svg")).unwrap().contains("ort-cpu"));
    bench(&["--paths=ort-cpu", "--soak=1.2s"])
        .must(0, &["ort-cpu for 1.2s", "the last row is all of it", "the longest calls"]);
    bench(&["--paths=ort-cpu", "--soak=soon"]).must(2, &["`soon` is no duration"]);
    bench(&["--paths=ort-cpu", "--plot=p.gif"]).must(2, &["a picture ends in .png or .svg"]);
    bench(&["--paths=ort-cpu", "--plot=no/p.png"]).must(2, &["write no/p.png", "make the folder no first"]);
    bench(&["--paths=ort-cpu", "--check=none.jsonl"]).must(2, &["read the record none.jsonl"]);
    bench(&["--paths=ort-cpu", "--rate=0"]).must(2, &["--rate"]);
    let times = tool.array("times.npy", &[3], Values::F64(vec![0.0, 20.0, 10.0]));
    bench(&["--paths=ort-cpu", &format!("--arrivals={times}")]).must(2, &["never go back", "20 and then 10 at 2"]);
    bench(&["--paths=ort-cpu", "--pin=near"]).must(0, &["ort-cpu  "]);
    bench(&["--paths=ort-cpu", "--pin=99999"])
        .must(2, &["pin the thread to core 99999: expected a core that this process may run on"]);
    bench(&["--paths=ort-cpu", "--pin=all"]).must(2, &["`all` is no core"]);
    bench(&["--paths=ort-cpu", "--idle=60001"]).must(2, &["0..=60000"]);
    bench(&["--paths=ort-cpu", "--pauses=3"]).must(2, &["--idle"]);
    let idle = bench(&["--paths=ort-cpu", "--idle=0"]);
    assert!(idle.stderr.contains("--idle is of tickrt's own paths"), "{}", idle.stderr);
    idle.must(0, &["ort-cpu  "]);
}

#[test]
fn bench_appends_records_of_the_agreed_form() {
    let tool = Tool::new().with("TICKRT_COMMIT", "abc");
    let Some(on_cpu) = tool.on_cpu() else { return };
    let more = ["--iterations=200", "--warmUp=1", "--paths=ort-cpu", "--jsonl=records.jsonl"].map(str::to_owned);
    for _ in 0..2 {
        tool.run(&[&["bench".to_owned()][..], &on_cpu, &more].concat()).must(0, &["p99.99", "ort-cpu"]);
    }
    let text = std::fs::read_to_string(tool.path("records.jsonl")).unwrap();
    let records: Vec<Record> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records.len(), 2);
    assert_ne!(records[0].run_id, records[1].run_id);
    let Record { path, model, precision, calls, commit, .. } = &records[0];
    assert_eq!(
        (&path[..], &model[..], &precision[..], *calls, &commit[..]),
        ("ort-cpu", "toy_cnn", "fp32", 200, "abc")
    );
    let line: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    let names: BTreeSet<&str> = line.keys().map(String::as_str).collect();
    let agreed = "run_id model model_sha256 path precision semantics batch threads sessions idle_ms load p50_us p95_us \
                  p99_us p999_us p9999_us max_us calls inferences_per_s device_mb gpu driver tensorrt onnxruntime commit";
    assert_eq!(names, agreed.split_whitespace().collect());
}

#[test]
fn demo_ends_with_one_json_object() {
    let tool = Tool::new();
    let ended = tool.run(&["demo", "--models", &model("")]);
    if left_out(&ended) {
        return;
    }
    let last = ended.must(0, &["built in", "answers", "rolling"]).stdout.lines().last().unwrap();
    let summary: serde_json::Value = serde_json::from_str(last).unwrap();
    assert_eq!((&summary["model"], &summary["windows"]), (&"toy_cnn".into(), &1709.into()));
    assert!(summary["accuracy"].as_f64().unwrap() > 0.97, "{last}");
    for name in
        ["engine_library", "engine_version", "engine_bytes", "active_backend", "passed_over", "p50_us", "p99_us"]
    {
        assert!(!summary[name].is_null(), "{name} is not in {last}");
    }
    assert!(tool.path("target/demo/toy_cnn.engine.json").exists());
}

#[test]
fn bench_writes_a_page_that_needs_nothing_beside_it() {
    let tool = Tool::new();
    let Some(on_cpu) = tool.on_cpu() else { return };
    let bench = |html: &str| {
        tool.run(&[&["bench".to_owned(), "--duration=0.2".into(), format!("--html={html}")][..], &on_cpu].concat())
    };
    bench("report.html").must(0, &["the report is report.html"]);
    let page = std::fs::read_to_string(tool.path("report.html")).unwrap();
    for part in
        ["<title>tickrt bench: toy_cnn, batch 1</title>", "prefers-color-scheme: dark", "var(--paper)", "p99.99"]
    {
        assert!(page.contains(part), "`{part}` is not in the page");
    }
    assert_eq!(page.matches("<svg").count(), 2);
    for outside in ["src=", "href=", "@import", "url("] {
        assert!(!page.contains(outside), "the page asks for something: {outside}");
    }
    bench("nowhere/report.html").must(2, &["make the folder nowhere first"]);
}

//! `--metrics`, `--journal`, `tickrt journal`, `-v`: what a run says of itself.

use std::net::TcpListener;

use tickrt::data::Array;

use crate::support::{Ended, Tool, model, root};

fn run(tool: &Tool, more: &[&str]) -> Option<Ended> {
    let mut arguments = vec!["run".to_owned(), "--input".to_owned(), model("data/nasdaq_windows.npy")];
    arguments.extend(tool.on_cpu()?);
    arguments.extend(more.iter().map(|&argument| argument.to_owned()));
    Some(tool.run(&arguments))
}

#[test]
fn metrics_say_where_and_a_port_in_use_is_an_error() {
    let tool = Tool::new();
    let Some(ended) = run(&tool, &["--metrics=127.0.0.1:0"]) else { return };
    assert!(ended.must(0, &[]).stderr.contains("metrics at http://127.0.0.1:"), "{}", ended.stderr);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = format!("--metrics={}", taken.local_addr().unwrap());
    run(&tool, &[&taken]).unwrap().must(2, &["address already in use", "another program listens there"]);
    run(&tool, &["--metrics=9464"]).unwrap().must(2, &["an address and a port, as 127.0.0.1:9464"]);
}

#[test]
fn journal_holds_the_samples_and_the_answers() {
    let tool = Tool::new();
    let Some(ended) = run(&tool, &["--journal=calls", "--output=scores.npy"]) else { return };
    ended.must(0, &["1709 calls in calls"]);
    tool.run(&["journal", "calls", "--export", "out"])
        .must(0, &["1709, 0 of them not answered", "0 calls that found", "1709x256"]);
    let kept = |name: &str| Array::read_npy(tool.path(name)).unwrap().values;
    assert_eq!(kept("out/input.npy"), Array::read_npy(model("data/nasdaq_windows.npy")).unwrap().values);
    assert_eq!(kept("out/probabilities.npy"), kept("scores.npy"));
    let lines = tool.run(&["journal", "calls", "--json"]);
    let lines: Vec<serde_json::Value> =
        lines.must(0, &[]).stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 1709);
    assert_eq!((&lines[3]["backend"], &lines[3]["failure"]), (&"ort-cpu".into(), &serde_json::Value::Null));
    run(&tool, &["--journal=calls"]).unwrap().must(2, &["never written over"]);
}

#[test]
fn journal_that_is_none_or_damaged_says_so() {
    let tool = Tool::new();
    tool.run(&["journal", "nowhere"]).must(2, &["check the path"]);
    tool.run(&["journal", "."]).must(2, &["expected a file, got a directory"]);
    tool.run(&["journal", &tool.file("text", b"hello")]).must(2, &["expected a journal of tickrt"]);
    let Some(ended) = run(&tool, &["--journal=calls"]) else { return };
    ended.must(0, &[]);
    let whole = std::fs::read(tool.path("calls")).unwrap();
    tool.file("torn", &whole[..whole.len() - 100]);
    let torn = tool.run(&["journal", "torn"]);
    assert!(torn.must(0, &["1708, 0 of them"]).stderr.contains("the beginning of a call"), "{}", torn.stderr);
    let mut damaged = whole;
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    tool.run(&["journal", &tool.file("damaged", &damaged)]).must(2, &["expected a record at byte", "got damage"]);
    tool.run(&["journal", "calls", "--export=out", "--shape=1"]).must(2, &["--shape: expected one of 0..1"]);
}

#[test]
fn verbose_lines_carry_engine_and_session() {
    let tool = Tool::new();
    let Some(ended) = run(&tool, &["-v"]) else { return };
    let line = ended.must(0, &[]).stderr.lines().find(|line| line.contains("started on ort-cpu"));
    let line = line.unwrap_or_else(|| panic!("{}", ended.stderr)).to_owned();
    let engine = line.split("engine=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    assert!(engine.len() == 12 && engine.bytes().all(|digit| digit.is_ascii_hexdigit()), "{line}");
    assert!(line.contains("session=\"0\""), "{line}");
    assert!(!run(&tool, &[]).unwrap().stderr.contains("started on"), "nothing without -v");
}

/// NVML has an order of its own: asked by CUDA's number, it would tell of another GPU.
#[test]
fn nvml_is_asked_about_the_gpu_that_cuda_was_left() {
    let tool = Tool::new();
    let Some(arguments) = tool.on_cpu().filter(|_| root().join("tests/standin").exists()) else { return };
    let libraries = tool.path("libraries");
    std::fs::create_dir(&libraries).unwrap();
    for (source, library) in [("cuda.c", "libcuda.so"), ("cuda.c", "libcuda.so.1"), ("nvml.c", "libnvidia-ml.so.1")] {
        let mut compiler = std::process::Command::new("cc");
        compiler.args(["-std=gnu11", "-shared", "-fPIC", "-o"]).arg(libraries.join(library));
        let compiled = compiler.arg(root().join("tests/standin").join(source)).output().unwrap();
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    }
    let tool = tool.with("LD_LIBRARY_PATH", libraries.to_str().unwrap());
    let fixed = ["bench", "--paths=ort-cpu", "--duration=0.1", "--warmUp=0", "--samples=10", "--soak=0.3"];
    let soak = tool.run(&[&fixed.map(str::to_owned)[..], &arguments].concat());
    soak.must(0, &["SM 1980 MHz, 40 °C, 70 W"]);
    assert!(!soak.stdout.contains("SM 111 MHz"), "{}", soak.stdout);
    let doctor = tool.run(&["doctor", "--duration=0"]);
    assert!(doctor.stdout.contains("1980 of 1980 MHz"), "{}{}", doctor.stdout, doctor.stderr);
}

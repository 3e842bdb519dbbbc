//! `tickrt run --stream`: in pieces, killed in the middle, and taken up again.

use std::process::Stdio;
use std::time::{Duration, Instant};

use tickrt::data::{Array, Values};

use crate::onnx;
use crate::support::{Ended, Tool, model};

/// The arguments that run `name` on the CPU on `input`.
fn arguments(name: &str, input: &str, more: &[&str]) -> Vec<String> {
    let mut arguments = vec!["run".to_owned(), "--chain=ort-cpu".to_owned(), format!("--input={input}")];
    arguments.push(format!("--onnx={}", model(&format!("{name}.onnx"))));
    arguments.push(format!("--normalization={}", model(&format!("{name}.normalization.json"))));
    arguments.extend(more.iter().map(|&argument| argument.to_owned()));
    arguments
}

fn windows() -> Values {
    Array::read_npy(model("data/nasdaq_windows.npy")).unwrap().values
}

fn stream(tool: &Tool, name: &str, input: &str, more: &[&str]) -> Ended {
    tool.run(&arguments(name, input, &[&["--stream"], more].concat()))
}

#[test]
fn stream_gives_the_answers_of_one_after_the_other() {
    let tool = Tool::new();
    if tool.on_cpu().is_none() {
        return;
    }
    let input = model("data/nasdaq_windows.npy");
    stream(&tool, "toy_cnn", &input, &["--output=streamed.npy"]).must(0, &["1709, 0 of them before, in batches of 1"]);
    tool.run(&arguments("toy_cnn", &input, &["--output=whole.npy"])).must(0, &[]);
    let bytes = |name: &str| std::fs::read(tool.path(name)).unwrap();
    assert_eq!(bytes("streamed.npy"), bytes("whole.npy"));
    assert_eq!(tool.left(), ["streamed.npy", "whole.npy"], "nothing else is left");
}

#[test]
fn batch_that_does_not_divide_the_samples_gives_every_answer() {
    let tool = Tool::new();
    if tool.on_cpu().is_none() {
        return;
    }
    let input = model("data/nasdaq_windows.npy");
    stream(&tool, "mlp_dynamic", &input, &["--batch=100", "--output=a.npy"]).must(0, &["in batches of 100"]);
    stream(&tool, "mlp_dynamic", &input, &["--output=b.npy"]).must(0, &["in batches of 64"]);
    let [a, b] = ["a.npy", "b.npy"].map(|name| Array::read_npy(tool.path(name)).unwrap());
    assert_eq!((&a.shape[..], &b.shape[..]), (&[1709, 3][..], &[1709, 3][..]));
    let apart = (0..a.values.len()).map(|at| (a.values.get(at) - b.values.get(at)).abs()).fold(0.0, f64::max);
    assert!(apart < 1e-5, "{apart}");
}

/// Kills the run once it has said how far it is.
fn kill_in_the_middle(tool: &Tool, arguments: &[String]) {
    let mut run = tool.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let (resume, limit) = (tool.path("scores.npy.resume"), Instant::now() + Duration::from_secs(60));
    while !resume.exists() {
        assert!(run.try_wait().unwrap().is_none(), "it ended before it was killed");
        assert!(Instant::now() < limit, "nothing was saved in a minute");
        std::thread::sleep(Duration::from_millis(1));
    }
    run.kill().unwrap();
    run.wait().unwrap();
    assert!(!tool.path("scores.npy").exists() && tool.path("scores.npy.part").exists());
}

#[test]
fn run_killed_in_the_middle_goes_on_and_ends_with_the_same_bits() {
    let tool = Tool::new();
    if tool.on_cpu().is_none() {
        return;
    }
    const TIMES: usize = 16;
    let once = windows();
    let Values::F32(all) = &once else { panic!("f32 windows") };
    tool.array("years.npy", &[1709 * TIMES, 32, 8], Values::F32(all.repeat(TIMES)));
    let run = |output: &str| arguments("lstm", "years.npy", &["--stream", &format!("--output={output}")]);
    kill_in_the_middle(&tool, &run("scores.npy"));
    let other = ["--stream", "--output=scores.npy"];
    let refused = tool.run(&arguments("toy_cnn", "years.npy", &other));
    refused.must(2, &["is of another run", "the engine or model is not as it was", "remove it"]);
    let aside = || std::fs::rename(tool.path("scores.npy.part"), tool.path("aside")).unwrap();
    aside();
    let gone = tool.run(&run("scores.npy"));
    gone.must(2, &["go on with scores.npy.part: no such file", "scores.npy.resume", "remove that to begin anew"]);
    std::fs::rename(tool.path("aside"), tool.path("scores.npy.part")).unwrap();
    let ended = tool.run(&run("scores.npy"));
    assert!(ended.must(0, &[]).stderr.contains("goes on after sample"), "{}", ended.stderr);
    let before = ended.stdout.lines().find(|line| line.contains("of them before")).unwrap().to_owned();
    assert!(!before.contains(", 0 of them before"), "{before}");
    tool.run(&run("whole.npy")).must(0, &[", 0 of them before"]);
    let bytes = |name: &str| std::fs::read(tool.path(name)).unwrap();
    assert!(bytes("scores.npy") == bytes("whole.npy"), "the same bit for bit");
    assert_eq!(tool.left(), ["scores.npy", "whole.npy", "years.npy"]);
}

#[test]
fn stream_that_cannot_be_says_why() {
    let tool = Tool::new();
    if tool.on_cpu().is_none() {
        return;
    }
    let input = model("data/nasdaq_windows.npy");
    stream(&tool, "toy_cnn", &input, &[]).must(2, &["name where the answers go"]);
    stream(&tool, "toy_cnn", &input, &["--output=nowhere/a.npy"]).must(2, &["make its folder first"]);
    stream(&tool, "toy_cnn", &input, &["--output=a.npy", "--batch=8"]).must(2, &["takes 1 samples a call"]);
    stream(&tool, "toy_cnn", "missing.npy", &["--output=a.npy"]).must(2, &["check the path"]);
    let wide = tool.array("wide.npy", &[2, 32, 8], Values::F64(vec![0.0; 512]));
    stream(&tool, "toy_cnn", &wide, &["--output=a.npy"]).must(2, &["expected elements of f32, got f64"]);
    let short = tool.array("short.npy", &[2, 31, 8], Values::F32(vec![0.0; 496]));
    stream(&tool, "toy_cnn", &short, &["--output=a.npy"]).must(2, &["expected samples of 256 elements"]);
    let whole = std::fs::read(&input).unwrap();
    let cut = tool.file("cut.npy", &whole[..whole.len() - 1]);
    stream(&tool, "toy_cnn", &cut, &["--output=a.npy"]).must(2, &["a truncated file"]);
    let mut nothing = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    let shape = "(0, 1099511627776, 1099511627776)";
    let head = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
    nothing.extend(format!("{head:<117}\n").bytes());
    let nothing = tool.file("nothing.npy", &nothing);
    stream(&tool, "toy_cnn", &nothing, &["--output=a.npy"]).must(2, &["expected samples of 256 elements"]);
    stream(&tool, "toy_cnn", &input, &["--output=a.npy", "--output=nowhere/b.npy"]).must(2, &["make its folder first"]);
    assert!(!tool.path("a.npy.part").exists(), "the first output's, when the second cannot be");
    for way in [&["--stream"][..], &[]] {
        let twice = [way, &["--output=a.npy", "--output=./a.npy"]].concat();
        tool.run(&arguments("toy_cnn", &input, &twice)).must(2, &["./a.npy is named twice"]);
    }
    let mut values = vec![0.0_f32; 3 * 256];
    values[300] = f32::NAN;
    let nan = tool.array("nan.npy", &[3, 32, 8], Values::F32(values));
    stream(&tool, "toy_cnn", &nan, &["--output=a.npy"]).must(2, &["answer samples 1 to 1 of 0..3", "NaN"]);
    // Whether the sample before it had been saved by then, nobody knows.
    let left = tool.left();
    assert_eq!(left.contains(&"a.npy.part".to_owned()), left.contains(&"a.npy.resume".to_owned()), "{left:?}");
    tool.file("b.npy.resume", b"{}");
    stream(&tool, "toy_cnn", &input, &["--output=b.npy"]).must(2, &["read the resume file", "remove it to begin anew"]);
}

#[test]
fn run_of_another_output_is_not_gone_on_with() {
    let tool = Tool::new();
    if tool.on_cpu().is_none() {
        return;
    }
    let nodes = [onnx::node("a", "Abs", &["input"], &["one"]), onnx::node("b", "Neg", &["input"], &["two"])];
    let [input, outputs @ ..] = ["input", "one", "two"].map(|name| onnx::value(name, &[1, 4]));
    tool.file("two.onnx", &onnx::model_with(vec![], nodes.into(), vec![input], outputs.into()));
    const SAMPLES: usize = 300_000;
    tool.array("x.npy", &[SAMPLES, 4], Values::F32(vec![1.0; 4 * SAMPLES]));
    let run = |output: &str| {
        ["run", "--stream", "--chain=ort-cpu", "--onnx=two.onnx", "--input=x.npy"]
            .map(str::to_owned)
            .into_iter()
            .chain([format!("--output={output}:scores.npy")])
            .collect::<Vec<_>>()
    };
    kill_in_the_middle(&tool, &run("one"));
    tool.run(&run("two")).must(2, &["is of another run", "the output is not as it was"]);
    tool.run(&run("one")).must(0, &[]);
    assert_eq!(Array::read_npy(tool.path("scores.npy")).unwrap().values, Values::F32(vec![1.0; 4 * SAMPLES]));
}

#[test]
fn stream_replaces_regular_files_alone() {
    let tool = Tool::new();
    if tool.on_cpu().is_none() {
        return;
    }
    let input = model("data/nasdaq_windows.npy");
    let socket = std::os::unix::net::UnixListener::bind(tool.path("socket")).unwrap();
    std::fs::create_dir(tool.path("folder")).unwrap();
    for (name, what) in [("socket", "socket"), ("folder", "a directory")] {
        let ended = stream(&tool, "toy_cnn", &input, &[&format!("--output={name}")]);
        ended.must(2, &["expected a regular file", what]);
        assert!(!tool.path(name).is_file(), "{name} is still there");
    }
    drop(socket);
    std::os::unix::fs::symlink("folder/a.npy", tool.path("link.npy")).unwrap();
    tool.file("folder/a.npy", b"older");
    stream(&tool, "toy_cnn", &input, &["--output=link.npy"]).must(0, &[]);
    assert!(tool.path("link.npy").is_symlink(), "what it points at was replaced");
    assert_eq!(Array::read_npy(tool.path("folder/a.npy")).unwrap().shape, [1709, 3]);
}

#[test]
fn stream_of_bools_is_of_the_bytes_that_they_are() {
    let tool = Tool::new();
    if tool.on_cpu().is_none() {
        return;
    }
    let [mut flags, mut inverse] = ["flags", "inverse"].map(|name| onnx::value(name, &[1, 4]));
    for value in [&mut flags, &mut inverse] {
        value.kind.as_mut().unwrap().tensor.as_mut().unwrap().element = 9;
    }
    let not = vec![onnx::node("not", "Not", &["flags"], &["inverse"])];
    tool.file("not.onnx", &onnx::model(not, vec![flags], vec![inverse]));
    tool.array("flags.npy", &[2, 4], Values::U8(vec![0, 1, 0, 1, 1, 1, 0, 0]));
    for way in [&["--stream"][..], &[]] {
        let all =
            [&["run", "--chain=ort-cpu", "--onnx=not.onnx", "--input=flags.npy", "--output=out.npy"], way].concat();
        tool.run(&all).must(0, &[]);
        let out = Array::read_npy(tool.path("out.npy")).unwrap();
        assert_eq!((&out.shape[..], out.values), (&[2, 4][..], Values::U8(vec![1, 0, 1, 0, 0, 0, 1, 1])));
    }
}

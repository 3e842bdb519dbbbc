//! `tickrt build`: what is refused, and that nothing is left behind.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{Tool, left_out, model, one_node};

fn build(tool: &Tool, onnx: &str, more: &[&str]) -> crate::support::Ended {
    tool.run(&[&["build", "--onnx", onnx, "--engine", "x.engine"], more].concat())
}

#[test]
fn onnx_missing_says_which() {
    let tool = Tool::new();
    build(&tool, "nowhere.onnx", &[]).must(2, &["nowhere.onnx", "no such file", "check the path"]);
    assert!(tool.left().is_empty());
}

#[test]
fn onnx_truncated_empty_or_other_says_what_it_is() {
    let tool = Tool::new();
    let whole = std::fs::read(model("toy_cnn.onnx")).unwrap();
    for length in [10, 1000, whole.len() - 1] {
        let cut = tool.file("cut.onnx", &whole[..length]);
        build(&tool, &cut, &[]).must(2, &["expected an ONNX model, got", "export the model again"]);
    }
    build(&tool, &tool.file("empty.onnx", b""), &[]).must(2, &["expected an ONNX model, got an empty file"]);
    build(&tool, &tool.file("page.onnx", b"<html>"), &[]).must(2, &["got a web page", "download"]);
    build(&tool, &tool.file("text.onnx", b"# notes"), &[]).must(2, &["expected an ONNX model, got 7 bytes of text"]);
    build(&tool, ".", &[]).must(2, &["expected a file, got a directory"]);
    assert_eq!(tool.left(), ["cut.onnx", "empty.onnx", "page.onnx", "text.onnx"]);
}

#[test]
fn operator_unknown_is_named_with_its_node() {
    let tool = Tool::new();
    let ended = build(&tool, &tool.file("odd.onnx", &one_node("Frobnicate")), &[]);
    assert_eq!(tool.left(), ["odd.onnx"]);
    if !left_out(&ended) {
        ended.must(2, &["Frobnicate", "the_node"]);
    }
}

#[test]
fn standard_deviation_of_zero_is_refused_before_the_build() {
    let tool = Tool::new();
    let text = std::fs::read_to_string(model("toy_cnn.normalization.json")).unwrap();
    let zero = tool.file("zero.json", text.replace("0.013823339", "0.0").as_bytes());
    build(&tool, &model("toy_cnn.onnx"), &["--normalization", &zero])
        .must(2, &["expected finite standard deviations above zero, got 0 at place 0", "drop it or give it 1"]);
    assert_eq!(tool.left(), ["zero.json"]);
}

#[test]
fn normalization_that_is_none_or_of_another_input_is_refused() {
    let tool = Tool::new();
    let text = std::fs::read_to_string(model("toy_cnn.normalization.json")).unwrap();
    let other = tool.file("other.json", text.replace("\"input\": \"input\"", "\"input\": \"other\"").as_bytes());
    let onnx = model("toy_cnn.onnx");
    build(&tool, &onnx, &["--normalization", &other])
        .must(2, &["expected one for each input at most: input, got one for `other`"]);
    build(&tool, &onnx, &["--normalization", "none.json"])
        .must(2, &["read the normalisation none.json: no such file or directory; check the path"]);
    let broken = tool.file("broken.json", b"{\"input\": 3}");
    build(&tool, &onnx, &["--normalization", &broken]).must(2, &["broken.json", "expected"]);
    build(&tool, &onnx, &["--window-row=7"]).must(2, &["expected a divisor of the input's 256 elements, got 7"]);
    assert_eq!(tool.left(), ["broken.json", "other.json"]);
}

#[test]
fn values_of_flags_that_cannot_be_are_wrong_use() {
    let tool = Tool::new();
    let onnx = model("toy_cnn.onnx");
    for (flag, says) in [
        ("--max_workspace=lots", "256M"),
        ("--memPoolSize=heap:1G", "workspace"),
        ("--minShapes=1x8", "NAME:SHAPE"),
        ("--builderOptimizationLevel=6", "0..=5"),
        ("--tensorrt=trt7", "trt8"),
        ("--hardwareCompatibilityLevel=volta", "ampere+"),
        ("--computeCapability=new", "8.9"),
        ("--frobnicate", "unexpected"),
    ] {
        build(&tool, &onnx, &[flag]).must(2, &[says]);
    }
    build(&tool, &onnx, &["--autotune=1"]).must(2, &["2..=32"]);
    build(&tool, &onnx, &["--autotune", "--builderOptimizationLevel=3"]).must(2, &["cannot be used with"]);
    build(&tool, &onnx, &["--strict-types", "--precisionConstraints=none"]).must(2, &["cannot be used with"]);
    tool.run(&["build"]).must(2, &["--onnx", "--engine"]);
    tool.run(&["biuld"]).must(2, &["biuld"]);
    assert!(tool.left().is_empty());
}

#[test]
fn autotune_needs_a_gpu_to_measure_on() {
    let tool = Tool::new().without_gpu();
    build(&tool, &model("toy_cnn.onnx"), &["--autotune"]).must(3, &["error: "]);
    assert!(tool.left().is_empty());
}

#[test]
fn autotune_keeps_the_fastest_and_says_so() {
    let tool = Tool::new();
    let ended = build(&tool, &model("toy_cnn.onnx"), &["--autotune=2"]);
    if left_out(&ended) {
        return;
    }
    ended.must(0, &["kept", "of 2 plans up to"]);
    tool.run(&["inspect", "--engine", "x.engine"]).must(0, &["--autotune=2"]);
}

#[test]
fn output_that_cannot_be_written_is_refused_before_the_build() {
    let tool = Tool::new();
    let onnx = model("toy_cnn.onnx");
    let to = |engine: &str| tool.run(&["build", "--onnx", &onnx, "--engine", engine]);
    to("nowhere/x.engine").must(2, &["nowhere/x.engine", "make the folder nowhere first"]);
    to(".").must(2, &["expected the name of a file, got a directory"]);
    to("/proc/x.engine").must(2, &["/proc/x.engine", "the folder /proc takes no files; write elsewhere"]);
    assert!(std::process::Command::new("mkfifo").arg(tool.path("fifo")).status().unwrap().success());
    to("fifo").must(2, &["write fifo: expected a regular file, got a FIFO; name a file"]);
    let copy = tool.file("copy.onnx", &std::fs::read(&onnx).unwrap());
    tool.run(&["build", "--onnx", &copy, "--engine", &copy]).must(2, &["would overwrite the model"]);
    assert_eq!(tool.left(), ["copy.onnx", "fifo"]);
}

#[test]
fn disk_full_while_writing_leaves_nothing() {
    let tool = Tool::new();
    if tool.engine("toy_cnn", &[]).is_none() {
        return;
    }
    let onnx = model("toy_cnn.onnx");
    let mut command = tool.command(&["build", "--onnx", &onnx, "--engine", "full.engine"]);
    // SAFETY: between fork and exec, setrlimit is async-signal-safe, and nothing else happens.
    unsafe { command.pre_exec(|| limit_file_size(100_000)) };
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("write full.engine") && stderr.contains("nothing was left behind"), "{stderr}");
    assert_eq!(tool.left(), ["toy_cnn.engine", "toy_cnn.engine.json"]);
}

fn limit_file_size(bytes: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    // SAFETY: reads one struct.
    if unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[test]
fn disk_full_on_a_small_file_system_leaves_nothing() {
    let tool = Tool::new();
    std::fs::create_dir(tool.path("small")).unwrap();
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tickrt"]).arg(tool.path("small")).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: this user may not mount");
        return;
    }
    let ended = tool.run(&["build", "--onnx", &model("toy_cnn.onnx"), "--engine", "small/x.engine"]);
    let left = tool.path("small").read_dir().unwrap().count();
    Command::new("umount").arg(tool.path("small")).status().unwrap();
    assert_eq!(left, 0);
    if !left_out(&ended) {
        ended.must(2, &["no space left on device", "nothing was left behind"]);
    }
}

#[test]
fn build_stopped_by_ctrl_c_leaves_a_whole_engine_or_none() {
    for milliseconds in [5, 40, 80, 120] {
        let tool = Tool::new();
        let mut child = tool
            .command(&["build", "--onnx", &model("mlp.onnx"), "--engine", "x.engine"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        // SAFETY: signals the child, which has not been waited for.
        unsafe { libc::kill(i32::try_from(child.id()).unwrap(), libc::SIGINT) };
        child.wait().unwrap();
        let left = tool.left();
        assert!(left.is_empty() || left == ["x.engine", "x.engine.json"], "{left:?}");
    }
}

#[test]
fn guides_command_builds_or_says_that_this_tensorrt_has_no_fp16_flag() {
    let tool = Tool::new();
    let onnx = model("toy_cnn.onnx");
    let ended = tool.run(&["build", "--onnx", &onnx, "--engine", "models.engine", "--max_workspace=256M", "--fp16"]);
    match ended.code {
        Some(0) => assert_eq!(tool.left(), ["models.engine", "models.engine.json"]),
        _ => {
            ended.must(3, &[]);
            assert!(tool.left().is_empty());
        }
    }
}

#[test]
fn engine_built_twice_from_its_own_rebuild_command_has_the_same_options() {
    let tool = Tool::new();
    let flags = ["--memPoolSize=workspace:64M", "--noTF32", "--window-row=8"];
    let Some(engine) = tool.engine("toy_cnn", &flags) else { return };
    let rebuild = tickrt::Plan::read(tool.path(&engine)).unwrap().rebuild_command();
    let words: Vec<&str> = rebuild.split(' ').skip(1).collect();
    std::fs::remove_file(tool.path(&engine)).unwrap();
    tool.run(&words).must(0, &[]);
    assert_eq!(tickrt::Plan::read(tool.path(&engine)).unwrap().rebuild_command(), rebuild);
    let sidecar = tickrt::Sidecar::beside(tool.path(&engine)).unwrap().unwrap();
    assert_eq!((sidecar.window_row, sidecar.normalizations.len()), (Some(8), 1));
}

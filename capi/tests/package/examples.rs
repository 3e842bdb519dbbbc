//! The C, C++ and Rust programs over one file of ticks: each must act as often, and on the same classes, as a session
//! that is asked window by window.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use tickrt::backend::ort::OrtBackend;
use tickrt::onnx::Model;
use tickrt::{Normalization, Session, SessionConfig};

use crate::support::{capi, link, model, run};

const ROWS: usize = 32;
const FEATURES: usize = 8;
const SYMBOLS: usize = 3;

/// The first windows of the NASDAQ's test days, each a row further than the last.
fn windows() -> Vec<f32> {
    let bytes = std::fs::read(model("data/nasdaq_windows.npy")).unwrap();
    let header = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let values = bytes[header..].chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap()));
    values.take(40 * ROWS * FEATURES).collect()
}

/// A line a tick, the symbols by turns.
fn ticks(windows: &[f32]) -> String {
    let (first, later) = windows.split_at(ROWS * FEATURES);
    let later = later.chunks_exact(ROWS * FEATURES).flat_map(|window| &window[(ROWS - 1) * FEATURES..]);
    let rows: Vec<f32> = first.iter().chain(later).copied().collect();
    let mut lines = String::new();
    for row in rows.chunks_exact(FEATURES) {
        for symbol in 0..SYMBOLS {
            let features: Vec<String> = row.iter().map(f32::to_string).collect();
            writeln!(lines, "{symbol} {}", features.join(" ")).unwrap();
        }
    }
    lines
}

/// What the programs must print; none where there is no ONNX Runtime.
fn expected(windows: &[f32]) -> Option<String> {
    let normalization = Normalization::read(model("toy_cnn.normalization.json")).unwrap();
    let config = SessionConfig { normalizations: Some(vec![normalization]), ..SessionConfig::default() };
    let backend = match OrtBackend::cpu(&Model::read(model("toy_cnn.onnx")).unwrap(), &config) {
        Ok(backend) => backend,
        Err(error) => {
            assert!(std::env::var_os("TICKRT_REQUIRE_SDK").is_none(), "{error}");
            eprintln!("skipped: {error}");
            return None;
        }
    };
    let mut session = Session::start(Box::new(backend), &config).unwrap();
    let mut counts = [0; 3];
    for window in windows.chunks_exact(ROWS * FEATURES) {
        let mut scores = [0.0_f32; 3];
        session.infer(window, &mut scores).unwrap();
        counts[(1..3).fold(0, |best, class| if scores[class] > scores[best] { class } else { best })] += SYMBOLS;
    }
    Some(format!("acted {} {} {} late 0\n", counts[0], counts[1], counts[2]))
}

#[test]
fn programs_of_three_languages_act_on_the_same_ticks_alike() {
    let windows = windows();
    let Some(expected) = expected(&windows) else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ticks");
    std::fs::write(&file, ticks(&windows)).unwrap();
    for program in [link_example("infer.c", "gcc"), link_example("event_loop.cpp", "g++"), rust_example()] {
        let mut command = Command::new(&program);
        command.args([model("toy_cnn.onnx"), model("toy_cnn.normalization.json")]).arg(&file);
        assert_eq!(run(&mut command), expected, "{}", program.display());
    }
}

fn link_example(source: &str, compiler: &str) -> PathBuf {
    link(&capi().join("examples").join(source), compiler, &[])
}

/// Compiled by cargo with all other targets, or now.
fn rust_example() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(std::path::Path::parent).unwrap();
    let program = profile.join("examples/event_loop");
    if !program.exists() {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        run(cargo.current_dir(capi().join("..")).args(["build", "--locked", "--example", "event_loop"]));
    }
    program
}

#[test]
fn program_without_its_ticks_says_so_and_ends() {
    let program = link(&capi().join("examples/infer.c"), "gcc", &[]);
    let mut command = Command::new(&program);
    command.args([&model("toy_cnn.onnx"), "nothing.json", "nothing.ticks"]);
    let ran = command.output().unwrap();
    assert_eq!(ran.status.code(), Some(1), "{}", String::from_utf8_lossy(&ran.stderr));
    assert!(String::from_utf8_lossy(&ran.stderr).contains("nothing.ticks"));
}

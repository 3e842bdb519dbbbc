//! What a call asks of libc: of our own code nothing at all; what libcuda asks inside a launch is counted and told. A library
//! that is preloaded stands between them and counts, so the tests run in a process of their own.
mod common;
#[allow(dead_code)]
#[path = "common/engines.rs"]
mod engines;

use std::process::Command;
use std::time::Duration;

use common::{FakeBackend, model, npy};
use tickrt::{BackendKind, Engine, Session, SessionConfig, WindowConfig};

const KINDS: [&str; 5] = ["allocations", "frees", "locks", "yields", "ioctls"];
const CALLS: usize = 2000;

/// Runs `test` of this binary with the counting library before libc, and gives back what it printed.
fn counted(test: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let (source, library) = (folder.path().join("count.c"), folder.path().join("count.so"));
    std::fs::write(&source, include_str!("common/inside_the_launch.c")).unwrap();
    let compiled =
        Command::new("cc").args(["-O1", "-shared", "-fPIC", "-Wall", "-o"]).arg(&library).arg(&source).output();
    let compiled = compiled.unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let ran = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"])
        .env("LD_PRELOAD", &library)
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(ran.status.success(), "{out}{}", String::from_utf8_lossy(&ran.stderr));
    assert!(out.contains("1 passed"), "{out}");
    out
}

/// This thread's counts, from the preloaded library.
fn counts() -> [u64; 5] {
    // SAFETY: the library exports this one function of this type.
    unsafe {
        let counts = libc::dlsym(libc::RTLD_DEFAULT, c"tickrt_test_counts".as_ptr());
        assert!(!counts.is_null(), "run through its parent");
        let counts: extern "C" fn(*mut u64) = std::mem::transmute(counts);
        let mut out = [0; 5];
        counts(out.as_mut_ptr());
        out
    }
}

/// What `CALLS` rounds of a call with its own input and one on a window ask for.
fn rounds(session: &mut Session) -> [u64; 5] {
    let data = npy::<f32>(model("data/nasdaq_windows.npy")).0;
    let elements = session.signature().shapes[0].inputs[0].count();
    let mut output = vec![0.0_f32; session.signature().shapes[0].outputs[0].count];
    let windows: Vec<&[f32]> = data.chunks_exact(elements).collect();
    for row in windows[0].chunks_exact(8) {
        session.push(1, row).unwrap();
    }
    let before = counts();
    for call in 0..CALLS {
        let window = windows[call % windows.len()];
        session.infer(window, &mut output).unwrap();
        session.push(1, &window[..8]).unwrap();
        let ticket = session.submit_window(1).unwrap();
        session.wait(ticket, &mut output).unwrap();
        session.keep_warm().unwrap();
    }
    let after = counts();
    std::array::from_fn(|kind| after[kind] - before[kind])
}

fn told(what: &str, counts: [u64; 5]) -> String {
    let by_call = |count: u64| count as f64 / (2 * CALLS) as f64;
    let each: Vec<String> = KINDS.iter().zip(counts).map(|(kind, n)| format!("{kind} {:.3}", by_call(n))).collect();
    format!("{what}: a call, {}", each.join(", "))
}

#[test]
fn our_own_code_asks_for_nothing() {
    println!("{}", counted("child_without_a_gpu"));
}

#[test]
#[ignore = "runs with the counting library, as the child of our_own_code_asks_for_nothing"]
fn child_without_a_gpu() {
    // That it counts at all.
    let before = counts();
    drop(std::hint::black_box(vec![1_u8; 100]));
    std::thread::yield_now();
    let mut mutex = libc::PTHREAD_MUTEX_INITIALIZER;
    // SAFETY: a mutex of this function's own.
    unsafe { libc::pthread_mutex_lock(&raw mut mutex) };
    let after = counts();
    let seen: [u64; 4] = std::array::from_fn(|kind| after[kind] - before[kind]);
    assert_eq!(seen, [1, 1, 1, 1], "{KINDS:?}");

    for in_band in [true, false] {
        let config = SessionConfig { windows: Some(WindowConfig::new(4, 8)), ..SessionConfig::default() };
        let backend = FakeBackend::new(BackendKind::Custom, 0.0, 64, &config);
        let backend = if in_band { backend.in_band() } else { backend };
        let mut session = Session::start(Box::new(backend), &config).unwrap();
        let seen = rounds(&mut session);
        println!("{}", told("our own code", seen));
        assert_eq!(seen, [0; 5], "{KINDS:?}, in band: {in_band}");
    }
}

#[test]
fn libcuda_is_told_on_in_figures() {
    if common::tensorrt().is_none() {
        return;
    }
    engines::plan("toy_cnn");
    let out = counted("child_on_tensorrt");
    println!("{}", out.lines().filter(|line| line.contains("a call,")).collect::<Vec<_>>().join("\n"));
}

#[test]
#[ignore = "runs with the counting library, as the child of libcuda_is_told_on_in_figures"]
fn child_on_tensorrt() {
    let engine = Engine::load(engines::plan("toy_cnn")).unwrap();
    for launch_ahead in [None, Some(Duration::from_millis(20))] {
        let windows = Some(WindowConfig::new(4, 8));
        let mut session = engine.session(&SessionConfig { windows, launch_ahead, ..SessionConfig::default() }).unwrap();
        let seen = rounds(&mut session);
        println!("{}", told(&format!("libcuda, launched ahead {launch_ahead:?}"), seen));
        let [allocations, frees, ..] = seen;
        assert!(allocations.abs_diff(frees) < CALLS as u64 / 100, "{allocations} allocations, {frees} frees");
    }
}

//! Ranges for a profiler: what comes to a library that NVTX was told to load, as Nsight Systems does.
#![cfg(feature = "nvtx")]
mod common;
mod standin;

use common::{FakeBackend, root};
use standin::{Child, succeed};
use tickrt::{BackendKind, Session, SessionConfig};

#[test]
#[ignore = "run by the others, in a process of its own"]
fn child_calls_twice() {
    let config = SessionConfig { warm_up: 0, ..SessionConfig::default() };
    let backend = FakeBackend::new(BackendKind::Custom, 0.0, 8, &config);
    let mut session = Session::start(Box::new(backend), &config).unwrap();
    for _ in 0..2 {
        session.infer(&[1.0_f32; 8], &mut [0.0_f32]).unwrap();
    }
}

#[test]
fn profiler_sees_start_submission_and_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let profiler = folder.path().join("libprofiler.so");
    let mut compiler = std::process::Command::new("cc");
    compiler.args(["-std=gnu11", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&profiler);
    succeed(compiler.arg(root().join("tests/standin/nvtx.c")));
    let calls = Child::new("child_calls_twice").with("NVTX_INJECTION64_PATH", profiler.to_str().unwrap()).calls();
    let call = ["tickrt submit", "end", "tickrt wait", "end"];
    assert_eq!(calls, [&["tickrt start", "end"][..], &call, &call].concat());
}

#[test]
fn without_a_profiler_nothing_is_told() {
    assert_eq!(Child::new("child_calls_twice").calls(), [""; 0]);
}

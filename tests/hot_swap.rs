//! A new engine for a running predictor: no call is missed, whatever the successor is like.
mod common;
#[path = "common/engines.rs"]
#[allow(dead_code)] // one of its functions
mod engines;

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use common::{FakeBackend, Strings, model, normalization, npy};
use tempfile::TempDir;
use tickrt::backend::Health;
use tickrt::onnx::Model;
use tickrt::resident::{Artefact, ArtefactOptions};
use tickrt::{
    BackendKind, ErrorKind, Predictor, PredictorBuilder, ResidentConfig, SessionConfig, Shapes, WindowConfig,
};

fn config() -> SessionConfig {
    SessionConfig { depth: 2, warm_up: 0, wait_limit: Duration::from_millis(20), ..SessionConfig::default() }
}

fn windows(symbols: u32) -> SessionConfig {
    SessionConfig { windows: Some(WindowConfig::new(symbols, 2)), ..config() }
}

fn fake(kind: BackendKind, bias: f32, config: &SessionConfig) -> (PredictorBuilder, Arc<Strings>) {
    let mut backend = FakeBackend::new(kind, bias, 8, config).with_health(Health::Running);
    if config.windows.is_some() {
        backend = backend.with_rings();
    }
    let strings = Arc::clone(&backend.strings);
    (Predictor::builder().backend(Box::new(backend)).config(config.clone()), strings)
}

fn tensorrt(bias: f32, config: &SessionConfig) -> Predictor {
    fake(BackendKind::TensorRt, bias, config).0.build().unwrap()
}

fn infer(predictor: &mut Predictor, value: f32) -> f32 {
    let mut out = [0.0_f32];
    predictor.infer(&[value; 8], &mut out).unwrap();
    out[0]
}

fn submit(predictor: &mut Predictor, value: f32) -> tickrt::Ticket {
    let mut slot = predictor.input().unwrap();
    slot.write(0, &[value; 8]).unwrap();
    slot.submit().unwrap()
}

#[test]
fn successor_answers_from_the_next_call_on() {
    let mut predictor = tensorrt(1.0, &config());
    assert_eq!(infer(&mut predictor, 1.0), 9.0);
    assert!(predictor.take_outgoing().is_none(), "nothing was replaced");
    for bias in [2.0, 3.0] {
        predictor.swap(tensorrt(bias, &config())).unwrap();
        assert_eq!(infer(&mut predictor, 1.0), 8.0 + bias);
    }
    assert!(predictor.take_outgoing().is_some());
    assert!(predictor.take_outgoing().is_none(), "both were taken at once");
    assert_eq!(infer(&mut predictor, 2.0), 19.0);
}

#[test]
fn call_in_flight_is_answered_by_whom_it_was_asked_of() {
    let (builder, old) = fake(BackendKind::TensorRt, 1.0, &config());
    let mut predictor = builder.build().unwrap();
    old.hold.store(true, Ordering::SeqCst);
    let first = submit(&mut predictor, 1.0);
    old.hold.store(false, Ordering::SeqCst);
    let second = submit(&mut predictor, 2.0); // the fake computes what it held
    predictor.swap(tensorrt(2.0, &config())).unwrap();
    assert!(predictor.take_outgoing().is_none(), "two answers are to be collected");
    assert_eq!(infer(&mut predictor, 3.0), 26.0, "calls go on meanwhile");
    let mut out = [0.0_f32];
    assert_eq!(predictor.wait(first, &mut out).unwrap().engine, [1; 32]);
    assert_eq!(out[0], 9.0);
    assert!(predictor.take_outgoing().is_none(), "one answer is to be collected");
    predictor.wait(second, &mut out).unwrap();
    assert_eq!(out[0], 17.0);
    assert!(predictor.take_outgoing().is_some());
    assert_eq!(predictor.wait(second, &mut out).unwrap_err().kind(), ErrorKind::StaleTicket);
}

#[test]
fn call_in_flight_whose_backend_fails_is_answered_by_the_successor() {
    let (builder, old) = fake(BackendKind::OrtCpu, 1.0, &config());
    let mut predictor = builder.build().unwrap();
    old.hold.store(true, Ordering::SeqCst);
    let ticket = submit(&mut predictor, 1.0);
    predictor.swap(tensorrt(2.0, &config())).unwrap();
    let mut out = [0.0_f32];
    let answer = predictor.wait(ticket, &mut out).unwrap();
    assert_eq!((out[0], answer.backend), (10.0, BackendKind::TensorRt));
    assert_eq!(predictor.active(), BackendKind::TensorRt);
    assert_eq!(predictor.rearm().unwrap(), BackendKind::TensorRt, "what was replaced does not come back");
    assert_eq!(infer(&mut predictor, 1.0), 10.0);
}

#[test]
fn device_that_was_kept_warm_is_given_back_like_any_other() {
    let config = SessionConfig { depth: 1, ..config() };
    // One slot more than the ring has is for keeping warm.
    let backend = FakeBackend::new(BackendKind::TensorRt, 1.0, 8, &SessionConfig { depth: 2, ..config.clone() });
    let strings = Arc::clone(&backend.strings);
    let mut predictor = Predictor::builder().backend(Box::new(backend)).config(config.clone()).build().unwrap();
    predictor.keep_warm().unwrap();
    assert_eq!(strings.launches.load(Ordering::SeqCst), 1);
    predictor.swap(tensorrt(2.0, &config)).unwrap();
    assert!(predictor.take_outgoing().is_some(), "nobody collects that answer");
}

#[test]
fn windows_go_along_and_a_window_in_flight_stays_what_it_was() {
    let config = windows(3);
    let mut predictor = tensorrt(1.0, &config);
    for row in 1..=4 {
        predictor.push(2, &[row as f32; 2]).unwrap();
    }
    let before = predictor.submit_window(2).unwrap();
    predictor.swap(tensorrt(100.0, &config)).unwrap();
    let mut out = [0.0_f32];
    let after = predictor.submit_window(2).unwrap();
    predictor.wait(after, &mut out).unwrap();
    assert_eq!(out[0], 120.0, "no row was pushed twice or lost");
    predictor.push(2, &[5.0_f32; 2]).unwrap();
    let newest = predictor.submit_window(2).unwrap();
    predictor.wait(newest, &mut out).unwrap();
    assert_eq!(out[0], 128.0);
    predictor.wait(before, &mut out).unwrap();
    assert_eq!(out[0], 21.0, "asked before the swap");
    let empty = predictor.submit_window(0).unwrap_err();
    assert!(matches!(empty.kind(), ErrorKind::WindowNotFull { have: 0, .. }), "{empty}");
}

#[test]
fn successor_that_does_not_fit_is_given_back_and_the_old_engine_answers() {
    let mut predictor = tensorrt(1.0, &config());
    let other_input = {
        let backend = FakeBackend::new(BackendKind::TensorRt, 2.0, 16, &config());
        Predictor::builder().backend(Box::new(backend)).config(config()).build().unwrap()
    };
    let on_cpu = fake(BackendKind::OrtCpu, 2.0, &config()).0.build().unwrap();
    for (successor, words) in [
        (other_input, "take and give what"),
        (on_cpu, "a successor that answers from a GPU, as tensorrt does, got"),
        (tensorrt(2.0, &windows(3)), "the same rolling windows"),
    ] {
        let mut refused = predictor.swap(successor).unwrap_err();
        assert!(refused.to_string().starts_with("swap the engine of a predictor"), "{refused}");
        assert!(refused.to_string().contains(words), "{refused}");
        assert!(refused.successor.input().is_ok(), "whole");
        assert_eq!(infer(&mut predictor, 1.0), 9.0);
    }
    let mut predictor = tensorrt(1.0, &windows(3));
    assert!(predictor.swap(tensorrt(2.0, &windows(4))).is_err(), "other symbols");
}

/// Calls without a pause while another thread builds the successor, swaps, and calls on. Prints the longest call of each
/// part: a benchmark's figure, which no test may depend on.
fn swap_under_load(build: fn(&SessionConfig) -> tickrt::Result<Predictor>, what: &str) {
    let config = SessionConfig {
        normalizations: Some(vec![normalization("mlp")]),
        wait_limit: Duration::from_secs(10),
        ..SessionConfig::default()
    };
    let Some(mut predictor) = common::or_skip(build(&config)) else { return };
    let (samples, shape) = npy::<f32>(model("data/nasdaq_windows.npy"));
    let samples: Vec<&[f32]> = samples.chunks_exact(samples.len() / shape[0]).collect();
    let expected: Vec<[f32; 3]> = samples.iter().take(64).map(|sample| scores(&mut predictor, sample).0).collect();
    let call = |predictor: &mut Predictor, number: usize| {
        let (got, latency) = scores(predictor, samples[number % 64]);
        assert_eq!(got, expected[number % 64], "call {number}");
        latency
    };
    let (mut quiet, mut loading, mut after) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    for number in 0..2000 {
        quiet = quiet.max(call(&mut predictor, number));
    }
    let successor = thread::spawn(move || build(&config));
    let mut number = 0;
    while !successor.is_finished() {
        loading = loading.max(call(&mut predictor, number));
        number += 1;
    }
    let successor = successor.join().unwrap().unwrap();
    let start = Instant::now();
    predictor.swap(successor).unwrap();
    let swapping = start.elapsed();
    let outgoing = predictor.take_outgoing().expect("no call is in flight");
    let freeing = thread::spawn(move || drop(outgoing));
    for number in 0..2000 {
        after = after.max(call(&mut predictor, number));
    }
    freeing.join().unwrap();
    println!(
        "{what}: the longest call before {quiet:?}, of {number} while the successor was loaded {loading:?}, after the swap \
         {after:?}; the swap itself {swapping:?}"
    );
}

fn scores(predictor: &mut Predictor, sample: &[f32]) -> ([f32; 3], Duration) {
    let (mut out, start) = ([0.0_f32; 3], Instant::now());
    predictor.infer(sample, &mut out).unwrap();
    (out, start.elapsed())
}

#[test]
fn swap_on_onnx_runtime_misses_no_call() {
    fn build(config: &SessionConfig) -> tickrt::Result<Predictor> {
        Predictor::builder().ort_cpu(model("mlp.onnx")).config(config.clone()).build()
    }
    swap_under_load(build, "ONNX Runtime CPU");
}

#[test]
fn swap_on_tensorrt_misses_no_call() {
    fn build(config: &SessionConfig) -> tickrt::Result<Predictor> {
        Predictor::builder().tensorrt(engines::plan("mlp")).config(config.clone()).build()
    }
    if common::tensorrt().is_some() {
        swap_under_load(build, "TensorRT");
    }
}

/// Loading the successor waits for turns to end, and turns wait for it: the chain's resident engine answers all the same.
#[test]
fn swap_on_resident_engines_misses_no_call() {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    fn build(config: &SessionConfig) -> tickrt::Result<Predictor> {
        let resident = ResidentConfig { share_gpu: true, ..ResidentConfig::default() };
        let config = SessionConfig { resident, ..config.clone() };
        let artefact = FOLDER.get().expect("made before").path().join("mlp.resident");
        let predictor =
            Predictor::builder().resident(artefact).tensorrt(engines::plan("mlp")).config(config).build()?;
        assert_eq!(predictor.active(), BackendKind::Resident, "{:?}", predictor.passed_over());
        Ok(predictor)
    }
    let Some((device, _)) = common::tensorrt() else { return };
    if !common::has_clusters(&device) {
        return;
    }
    let options = ArtefactOptions { compute_capability: device.compute_capability(), ..ArtefactOptions::default() };
    let network = Model::read(model("mlp.onnx")).unwrap();
    let artefact = Artefact::build(&network, Some(&normalization("mlp")), &Shapes::new(), &options).unwrap();
    let folder = FOLDER.get_or_init(|| tempfile::tempdir().unwrap());
    artefact.write(folder.path().join("mlp.resident")).unwrap();
    swap_under_load(build, "a resident engine and TensorRT");
}

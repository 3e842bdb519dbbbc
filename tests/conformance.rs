//! One suite over every backend: whatever a session runs on, it behaves the same.
mod common;
#[path = "common/engines.rs"]
mod engines;

use std::time::{Duration, Instant};

use common::{model, normalization, npy};
use tickrt::backend::ort::{CudaOptions, OrtBackend};
use tickrt::onnx::Model;
use tickrt::{BackendKind, DataType, Engine, ErrorKind, Result, Session, SessionConfig, WindowConfig};

const WINDOW: usize = 256;
const ROW: usize = 8;

/// Sessions of one backend on toy_cnn, with rolling windows of three symbols.
trait Subject {
    fn kind(&self) -> BackendKind;
    fn start(&self, config: &SessionConfig) -> Result<Session>;
}

struct Cpu;
struct Cuda;
struct TensorRt(Engine);

impl Subject for Cpu {
    fn kind(&self) -> BackendKind {
        BackendKind::OrtCpu
    }
    fn start(&self, config: &SessionConfig) -> Result<Session> {
        Session::start(Box::new(OrtBackend::cpu(&Model::read(model("toy_cnn.onnx"))?, config)?), config)
    }
}
impl Subject for Cuda {
    fn kind(&self) -> BackendKind {
        BackendKind::OrtCuda
    }
    fn start(&self, config: &SessionConfig) -> Result<Session> {
        let model = Model::read(model("toy_cnn.onnx"))?;
        Session::start(Box::new(OrtBackend::cuda(&model, config, CudaOptions::default())?), config)
    }
}
impl Subject for TensorRt {
    fn kind(&self) -> BackendKind {
        BackendKind::TensorRt
    }
    fn start(&self, config: &SessionConfig) -> Result<Session> {
        self.0.session(config)
    }
}

fn config() -> SessionConfig {
    SessionConfig {
        depth: 3,
        normalizations: Some(vec![normalization("toy_cnn")]),
        windows: Some(WindowConfig::new(3, ROW)),
        warm_up: 10,
        // A sanitizer makes every call a thousand times slower.
        wait_limit: Duration::from_secs(20),
        ..SessionConfig::default()
    }
}

fn windows() -> Vec<f32> {
    npy::<f32>(model("data/nasdaq_windows.npy")).0
}

fn conformance(subject: &dyn Subject) {
    answers_are_the_references(subject);
    answers_are_the_same_bits_every_time(subject);
    calls_in_flight_do_not_mix(subject);
    bad_calls_are_refused(subject);
    windows_by_row_answer_as_whole_windows(subject);
    session_moves_between_threads(subject);
    session_dropped_in_the_middle_of_a_call_is_fine(subject);
}

fn answers_are_the_references(subject: &dyn Subject) {
    let mut session = subject.start(&config()).unwrap();
    let mut reference = engines::reference("toy_cnn", &SessionConfig::default());
    assert_eq!(session.backend(), subject.kind());
    for window in windows().chunks_exact(WINDOW).take(300) {
        let (mut out, mut expected) = ([0.0_f32; 3], [0.0_f32; 3]);
        let answer = session.infer(window, &mut out).unwrap();
        reference.infer(window, &mut expected).unwrap();
        assert_eq!(answer.backend, subject.kind());
        for (got, expected) in out.iter().zip(expected) {
            assert!((got - expected).abs() < 1e-4, "{}: {out:?} instead of {expected:?}", subject.kind());
        }
    }
}

fn answers_are_the_same_bits_every_time(subject: &dyn Subject) {
    let data = windows();
    let run = |session: &mut Session| -> Vec<[u32; 3]> {
        let mut out = [0.0_f32; 3];
        let windows = data.chunks_exact(WINDOW).take(100);
        windows.map(|window| session.infer(window, &mut out).map(|_| out.map(f32::to_bits)).unwrap()).collect()
    };
    let mut session = subject.start(&config()).unwrap();
    let first = run(&mut session);
    assert_eq!(first, run(&mut session), "{}: call after call", subject.kind());
    assert_eq!(first, run(&mut subject.start(&config()).unwrap()), "{}: session after session", subject.kind());
}

fn calls_in_flight_do_not_mix(subject: &dyn Subject) {
    let data = windows();
    let mut session = subject.start(&config()).unwrap();
    let depth = session.depth();
    let mut alone = Vec::new();
    for window in data.chunks_exact(WINDOW).take(40 * depth) {
        let mut out = [0.0_f32; 3];
        session.infer(window, &mut out).unwrap();
        alone.push(out);
    }
    for (round, group) in data.chunks_exact(WINDOW * depth).take(40).enumerate() {
        let tickets: Vec<_> = group
            .chunks_exact(WINDOW)
            .enumerate()
            .map(|(at, window)| {
                let mut slot = session.input().unwrap().tag(at as u64);
                slot.as_mut_slice::<f32>().unwrap().copy_from_slice(window);
                slot.submit().unwrap()
            })
            .collect();
        assert_eq!(session.input().map(|_| ()).unwrap_err().kind(), ErrorKind::Full { depth });
        for (at, ticket) in tickets.into_iter().enumerate().rev() {
            let mut out = [0.0_f32; 3];
            let answer = loop {
                if let Some(answer) = session.poll(ticket, &mut out).unwrap() {
                    break answer;
                }
            };
            assert_eq!((out, answer.tag), (alone[round * depth + at], at as u64), "{}", subject.kind());
        }
    }
}

fn bad_calls_are_refused(subject: &dyn Subject) {
    let data = windows();
    let mut session = subject.start(&config()).unwrap();
    let mut out = [0.0_f32; 3];
    let mut spoilt = data[..WINDOW].to_vec();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        spoilt[200] = bad;
        let kind = session.infer(&spoilt, &mut out).unwrap_err().kind();
        assert_eq!(kind, ErrorKind::NonFiniteInput, "{}", subject.kind());
        session.infer(&data[..WINDOW], &mut out).unwrap();
    }
    let kind = |result: Result<_>| result.map(|_| ()).unwrap_err().kind();
    assert_eq!(kind(session.infer(&data[..255], &mut out)), ErrorKind::WrongLength { expected: 256, got: 255 });
    let f64s = [0.0_f64; WINDOW];
    let wrong_type = ErrorKind::WrongType { expected: DataType::F32, got: DataType::F64 };
    assert_eq!(kind(session.infer(&f64s, &mut out)), wrong_type);
    assert_eq!(kind(session.infer(&data[..WINDOW], &mut [0.0_f32; 4])), ErrorKind::WrongLength { expected: 3, got: 4 });
    assert_eq!(session.submit_window(3).unwrap_err().kind(), ErrorKind::UnknownSymbol { symbol: 3, symbols: 3 });
    session.infer(&data[..WINDOW], &mut out).unwrap();
}

/// Two symbols' rows by turns, a third's calls in between, pauses without calls, a reset.
fn windows_by_row_answer_as_whole_windows(subject: &dyn Subject) {
    let data = windows();
    let mut rolling = subject.start(&config()).unwrap();
    let mut whole = subject.start(&config()).unwrap();
    // Any rows will do: those of windows far apart are as different as two symbols'.
    let feeds = [&data[..ROW * 120], &data[ROW * 5000..ROW * 5120]];
    let mut compared = 0;
    for step in 0..120 {
        for (symbol, feed) in feeds.iter().enumerate() {
            let row = &feed[step * ROW..(step + 1) * ROW];
            rolling.push(symbol as u32, row).unwrap();
            if step == 60 && symbol == 0 {
                rolling.reset(0).unwrap();
            }
            let since = if step >= 60 && symbol == 0 { 61 } else { 0 };
            let full = step + 1 >= since + 32;
            let asks = step % 7 != 3 && !(80..100).contains(&step) && !(40..55).contains(&step);
            if !full {
                assert!(matches!(
                    rolling.submit_window(symbol as u32).unwrap_err().kind(),
                    ErrorKind::WindowNotFull { .. }
                ));
            } else if asks {
                let (mut by_row, mut at_once) = ([0.0_f32; 3], [0.0_f32; 3]);
                let ticket = rolling.submit_window_tagged(symbol as u32, step as u64).unwrap();
                assert_eq!(rolling.wait(ticket, &mut by_row).unwrap().tag, step as u64);
                whole.infer(&feed[(step + 1 - 32) * ROW..(step + 1) * ROW], &mut at_once).unwrap();
                assert_eq!(by_row, at_once, "{} symbol {symbol} step {step}", subject.kind());
                // A whole window in between leaves the rings alone.
                rolling.infer(&data[WINDOW..2 * WINDOW], &mut at_once).unwrap();
                compared += 1;
            }
        }
    }
    assert!(compared > 70, "{compared}");
}

fn session_moves_between_threads(subject: &dyn Subject) {
    let data = windows();
    let mut session = subject.start(&config()).unwrap();
    let mut here = [0.0_f32; 3];
    session.infer(&data[..WINDOW], &mut here).unwrap();
    let there = std::thread::spawn(move || {
        let mut there = [0.0_f32; 3];
        session.infer(&data[..WINDOW], &mut there).unwrap();
        there
    });
    assert_eq!(here, there.join().unwrap(), "{}", subject.kind());
}

fn session_dropped_in_the_middle_of_a_call_is_fine(subject: &dyn Subject) {
    let data = windows();
    for _ in 0..5 {
        let mut session = subject.start(&config()).unwrap();
        for window in data.chunks_exact(WINDOW).take(session.depth()) {
            let mut slot = session.input().unwrap();
            slot.write(0, window).unwrap();
            slot.submit().unwrap();
        }
        drop(session);
    }
    // And one whose deadline was missed.
    let mut session = subject.start(&config()).unwrap();
    let mut slot = session.input().unwrap();
    slot.write(0, &data[..WINDOW]).unwrap();
    let ticket = slot.submit().unwrap();
    let outcome = session.wait_until(ticket, Instant::now() - Duration::from_secs(1), &mut [0.0_f32; 3]);
    assert!(outcome.is_ok() || outcome.unwrap_err().kind() == ErrorKind::DeadlineMissed);
    let mut out = [0.0_f32; 3];
    for window in data.chunks_exact(WINDOW).take(10) {
        session.infer(window, &mut out).unwrap();
    }
}

#[test]
fn ort_cpu_conforms() {
    conformance(&Cpu);
}

#[test]
fn ort_cuda_conforms() {
    if common::gpu().is_none() {
        return;
    }
    conformance(&Cuda);
}

#[test]
fn tensorrt_conforms() {
    if common::tensorrt().is_none() {
        return;
    }
    conformance(&TensorRt(Engine::load(engines::plan("toy_cnn")).unwrap()));
}

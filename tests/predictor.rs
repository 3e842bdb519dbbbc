//! The chain over backends of plain memory: who answers, who takes over, what is told.
mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::{FakeBackend, Strings};
use tickrt::backend::Health;
use tickrt::{BackendKind, ErrorKind, Predictor, PredictorBuilder, SessionConfig, WindowConfig};

const LOST: ErrorKind = ErrorKind::DeviceLost { code: 700 };

fn config() -> SessionConfig {
    SessionConfig { depth: 2, warm_up: 0, wait_limit: Duration::from_millis(20), ..SessionConfig::default() }
}

/// TensorRT that answers with 100 more and fails with `error` after `good` calls, ONNX Runtime CUDA with 10 more, ONNX
/// Runtime CPU with nothing more.
struct Chain {
    builder: PredictorBuilder,
    tensorrt: Arc<Strings>,
    cuda: Arc<Strings>,
    cpu: Arc<Strings>,
}

fn chain(error: Option<ErrorKind>, good: usize, health: Health, config: &SessionConfig) -> Chain {
    let mut tensorrt = FakeBackend::new(BackendKind::TensorRt, 100.0, 8, config).with_health(health);
    if let Some(error) = error {
        tensorrt = tensorrt.failing(error);
        tensorrt.strings.launches_left.store(good, Ordering::SeqCst);
    }
    let cuda = FakeBackend::new(BackendKind::OrtCuda, 10.0, 8, config);
    let cpu = FakeBackend::new(BackendKind::OrtCpu, 0.0, 8, config);
    let strings = [&tensorrt, &cuda, &cpu].map(|backend| Arc::clone(&backend.strings));
    let builder = Predictor::builder()
        .backend(Box::new(tensorrt))
        .backend(Box::new(cuda))
        .backend(Box::new(cpu))
        .config(config.clone());
    let [tensorrt, cuda, cpu] = strings;
    Chain { builder, tensorrt, cuda, cpu }
}

fn infer(predictor: &mut Predictor, value: f32) -> (f32, BackendKind) {
    let mut out = [0.0_f32];
    let answer = predictor.infer(&[value; 8], &mut out).unwrap();
    (out[0], answer.backend)
}

#[test]
fn chain_of_good_backends_answers_from_the_first() {
    let mut predictor = chain(None, 0, Health::Idle, &config()).builder.build().unwrap();
    assert_eq!(infer(&mut predictor, 1.0), (108.0, BackendKind::TensorRt));
    assert_eq!(predictor.active(), BackendKind::TensorRt);
    assert_eq!(predictor.standing_by(), [BackendKind::OrtCuda, BackendKind::OrtCpu]);
    assert!(predictor.passed_over().is_empty());
}

#[test]
fn error_that_leaves_cuda_alive_moves_to_the_next_in_the_same_call() {
    let mut predictor = chain(Some(ErrorKind::OutOfMemory), 1, Health::Idle, &config()).builder.build().unwrap();
    assert_eq!(infer(&mut predictor, 1.0).0, 108.0);
    assert_eq!(infer(&mut predictor, 2.0), (26.0, BackendKind::OrtCuda), "same input, next backend");
    let [passed] = predictor.passed_over() else { panic!("one reason") };
    assert_eq!((passed.backend, passed.reason.kind()), (BackendKind::TensorRt, ErrorKind::OutOfMemory));
    assert!(passed.restart_helps);
    assert_eq!(infer(&mut predictor, 2.0).1, BackendKind::OrtCuda, "latched");
    assert_eq!(predictor.rearm().unwrap(), BackendKind::TensorRt);
}

#[test]
fn sticky_error_quarantines_every_gpu_backend() {
    let Chain { builder, tensorrt, cuda, cpu } = chain(Some(LOST), 1, Health::Idle, &config());
    let mut predictor = builder.build().unwrap();
    infer(&mut predictor, 1.0);
    assert_eq!(infer(&mut predictor, 2.0), (16.0, BackendKind::OrtCpu));
    assert!(tensorrt.quarantined.load(Ordering::SeqCst) && cuda.quarantined.load(Ordering::SeqCst));
    let told: Vec<_> = predictor.passed_over().iter().map(|passed| (passed.backend, passed.reason.kind())).collect();
    assert_eq!(told, [(BackendKind::TensorRt, LOST), (BackendKind::OrtCuda, LOST)]);
    assert!(!cpu.quarantined.load(Ordering::SeqCst));
    assert_eq!(predictor.rearm().unwrap_err().kind(), LOST, "only a restart brings it back");
    assert_eq!(infer(&mut predictor, 3.0), (24.0, BackendKind::OrtCpu));
}

#[test]
fn device_that_never_answers_is_quarantined_and_its_calls_are_answered() {
    let Chain { builder, tensorrt, .. } = chain(None, 0, Health::Running, &config());
    let mut predictor = builder.build().unwrap();
    tensorrt.hold.store(true, Ordering::SeqCst);
    let submit = |predictor: &mut Predictor, value: f32, tag| {
        let mut slot = predictor.input().unwrap().tag(tag);
        slot.write(0, &[value; 8]).unwrap();
        slot.submit().unwrap()
    };
    let (first, second) = (submit(&mut predictor, 1.0, 11), submit(&mut predictor, 2.0, 22));
    let mut out = [0.0_f32];
    let answer = predictor.wait(first, &mut out).unwrap();
    assert_eq!((out[0], answer.backend, answer.tag), (8.0, BackendKind::OrtCpu, 11));
    assert!(answer.latency() >= Duration::from_millis(20), "counted from the caller's submission");
    assert_eq!(predictor.wait(first, &mut out).unwrap_err().kind(), ErrorKind::StaleTicket);
    // The other call was in flight on the lost device, too.
    let answer = predictor.poll(second, &mut out).unwrap().unwrap();
    assert_eq!((out[0], answer.backend, answer.tag), (16.0, BackendKind::OrtCpu, 22));
    assert!(tensorrt.quarantined.load(Ordering::SeqCst));
}

#[test]
fn missed_deadline_is_told_at_once_and_the_gpu_is_given_up_only_after_the_limit() {
    let Chain { builder, tensorrt, .. } = chain(None, 0, Health::Running, &config());
    let mut predictor = builder.build().unwrap();
    tensorrt.hold.store(true, Ordering::SeqCst);
    let mut slot = predictor.input().unwrap();
    slot.write(0, &[1.0_f32; 8]).unwrap();
    let ticket = slot.submit().unwrap();
    let missed = predictor.wait_until(ticket, Instant::now(), &mut [0.0_f32]).unwrap_err();
    assert_eq!(missed.kind(), ErrorKind::DeadlineMissed);
    assert_eq!(predictor.active(), BackendKind::TensorRt, "one late answer is no failure");
    std::thread::sleep(Duration::from_millis(25));
    assert_eq!(infer(&mut predictor, 2.0), (16.0, BackendKind::OrtCpu), "silence beyond the limit is");
}

#[test]
fn fallback_too_slow_for_the_deadline_is_unavailable_in_time() {
    // No warm-up, so no measured time: the deadline itself has passed.
    let config = SessionConfig { warm_up: 50, ..config() };
    let Chain { builder, tensorrt, .. } = chain(None, 0, Health::Failed(LOST.into()), &config);
    let mut predictor = builder.build().unwrap();
    tensorrt.hold.store(true, Ordering::SeqCst);
    let mut slot = predictor.input().unwrap();
    slot.write(0, &[1.0_f32; 8]).unwrap();
    let ticket = slot.submit().unwrap();
    let mut slot = predictor.input().unwrap();
    slot.write(0, &[1.0_f32; 8]).unwrap();
    let other = slot.submit().unwrap();
    predictor.wait(ticket, &mut [0.0_f32]).unwrap();
    assert_eq!(predictor.active(), BackendKind::OrtCpu);
    let late = predictor.wait_until(other, Instant::now() - Duration::from_secs(1), &mut [0.0_f32]).unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Unavailable);
}

#[test]
fn windows_go_along_to_the_backend_that_takes_over() {
    let config = SessionConfig { windows: Some(WindowConfig::new(2, 2)), ..config() };
    let mut predictor = chain(Some(LOST), 1, Health::Idle, &config).builder.build().unwrap();
    let answer_of = |predictor: &mut Predictor, symbol| {
        let ticket = predictor.submit_window(symbol).unwrap();
        let mut out = [0.0_f32];
        let answer = predictor.wait(ticket, &mut out).unwrap();
        (out[0], answer.backend)
    };
    for row in 0..4 {
        predictor.push(1, &[row as f32, 1.0]).unwrap();
    }
    assert_eq!(answer_of(&mut predictor, 1), (110.0, BackendKind::TensorRt));
    predictor.push(1, &[4.0_f32, 1.0]).unwrap();
    assert_eq!(answer_of(&mut predictor, 1), (14.0, BackendKind::OrtCpu), "1 + 2 + 3 + 4 and four ones");
    predictor.push(1, &[5.0_f32, 1.0]).unwrap();
    assert_eq!(answer_of(&mut predictor, 1), (18.0, BackendKind::OrtCpu));
}

#[test]
fn window_in_flight_is_answered_as_it_was_although_rows_came_since() {
    let config = SessionConfig { windows: Some(WindowConfig::new(1, 2)), ..config() };
    let Chain { builder, tensorrt, .. } = chain(None, 0, Health::Failed(LOST.into()), &config);
    let mut predictor = builder.build().unwrap();
    for row in 0..4 {
        predictor.push(0, &[row as f32, 0.0]).unwrap();
    }
    tensorrt.hold.store(true, Ordering::SeqCst);
    let ticket = predictor.submit_window(0).unwrap();
    predictor.push(0, &[100.0_f32, 0.0]).unwrap();
    let mut out = [0.0_f32];
    assert_eq!(predictor.wait(ticket, &mut out).unwrap().backend, BackendKind::OrtCpu);
    assert_eq!(out, [6.0]);
}

#[test]
fn last_backend_gone_is_unavailable() {
    let config = config();
    let backend = FakeBackend::new(BackendKind::TensorRt, 0.0, 8, &config).failing(LOST);
    backend.strings.launches_left.store(0, Ordering::SeqCst);
    let mut predictor = Predictor::builder().backend(Box::new(backend)).config(config).build();
    // The measuring call at start needs none of the failing launch: warm_up is 0.
    let predictor = predictor.as_mut().unwrap();
    assert_eq!(predictor.infer(&[1.0_f32; 8], &mut [0.0_f32]).unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(predictor.passed_over()[0].reason.kind(), LOST);
    // And stays so, without another call to what is lost.
    for _ in 0..5 {
        assert_eq!(predictor.infer(&[1.0_f32; 8], &mut [0.0_f32]).unwrap_err().kind(), ErrorKind::Unavailable);
    }
    assert_eq!(predictor.passed_over().len(), 1);
}

#[test]
fn nothing_that_starts_is_an_error_with_every_reason() {
    let error = Predictor::builder().ort_cpu("no/such/model.onnx").ort_cuda("no/such/other.onnx").build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoBackend);
    let text = error.to_string();
    assert!(text.contains("ort-cpu: ") && text.contains("ort-cuda: ") && text.contains("other.onnx"), "{text}");
    assert_eq!(Predictor::builder().build().unwrap_err().kind(), ErrorKind::InvalidArgument);
}

#[test]
fn backends_of_different_interfaces_are_refused() {
    let config = config();
    let error = Predictor::builder()
        .backend(Box::new(FakeBackend::new(BackendKind::TensorRt, 0.0, 8, &config)))
        .backend(Box::new(FakeBackend::new(BackendKind::OrtCpu, 0.0, 16, &config)))
        .config(config)
        .build()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

#[test]
fn plan_without_sidecar_leaves_the_fallback_without_normalisation_and_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let error = Predictor::builder()
        .tensorrt(folder.path().join("missing.engine"))
        .ort_cpu(common::model("toy_cnn.onnx"))
        .build()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("normalizations"), "{error}");
}

#[test]
fn resident_engine_that_is_not_there_is_passed_over_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let builder = || Predictor::builder().resident(folder.path().join("missing.resident"));
    let config = config();
    let cpu = || Box::new(FakeBackend::new(BackendKind::OrtCpu, 0.0, 8, &config));
    let normalizations = Some(Vec::new());
    let told = SessionConfig { normalizations, ..config.clone() };
    let mut predictor = builder().backend(cpu()).config(told).build().unwrap();
    assert_eq!(infer(&mut predictor, 1.0), (8.0, BackendKind::OrtCpu));
    let [passed] = predictor.passed_over() else { panic!("one reason") };
    assert_eq!((passed.backend, passed.reason.kind()), (BackendKind::Resident, ErrorKind::Io));
    assert!(passed.reason.to_string().contains("missing.resident"), "{}", passed.reason);
    // Nobody else in the chain says how the input is normalised.
    let error = builder().backend(cpu()).config(config.clone()).build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
}

#[test]
fn second_backend_that_fails_too_leaves_the_call_to_the_third() {
    let config = config();
    let broken = |kind| {
        let backend = FakeBackend::new(kind, 0.0, 8, &config).failing(ErrorKind::OutOfMemory);
        backend.strings.launches_left.store(0, Ordering::SeqCst);
        Box::new(backend)
    };
    let mut predictor = Predictor::builder()
        .backend(broken(BackendKind::TensorRt))
        .backend(broken(BackendKind::OrtCuda))
        .backend(Box::new(FakeBackend::new(BackendKind::OrtCpu, 0.0, 8, &config)))
        .config(config.clone())
        .build()
        .unwrap();
    assert_eq!(infer(&mut predictor, 1.0), (8.0, BackendKind::OrtCpu));
    assert_eq!(predictor.passed_over().len(), 2);
}

#[test]
fn cpu_answers_within_the_deadline_when_the_gpu_is_late_and_the_gpu_keeps_its_place() {
    let config = SessionConfig { warm_up: 50, wait_limit: Duration::from_secs(5), ..config() };
    for windows in [None, Some(WindowConfig::new(1, 2))] {
        let config = SessionConfig { windows: windows.clone(), ..config.clone() };
        let Chain { builder, tensorrt, .. } = chain(None, 0, Health::Running, &config);
        let mut predictor = builder.build().unwrap();
        tensorrt.hold.store(true, Ordering::SeqCst);
        let ticket = if windows.is_some() {
            for _ in 0..4 {
                predictor.push(0, &[1.0_f32, 1.0]).unwrap();
            }
            predictor.submit_window_tagged(0, 5).unwrap()
        } else {
            let mut slot = predictor.input().unwrap().tag(5);
            slot.write(0, &[1.0_f32; 8]).unwrap();
            slot.submit().unwrap()
        };
        let mut out = [0.0_f32];
        let answer = predictor.wait_until(ticket, Instant::now() + Duration::from_millis(100), &mut out).unwrap();
        assert_eq!((out[0], answer.backend, answer.tag), (8.0, BackendKind::OrtCpu, 5));
        assert_eq!(predictor.active(), BackendKind::TensorRt);
        tensorrt.hold.store(false, Ordering::SeqCst);
        assert_eq!(infer(&mut predictor, 2.0), (116.0, BackendKind::TensorRt), "never the late answer");
        assert!(predictor.passed_over().is_empty());
    }
}

#[test]
fn window_rescued_to_a_device_with_rings_leaves_them_right() {
    for disturb in ["push", "reset"] {
        let config = SessionConfig { windows: Some(WindowConfig::new(1, 2)), ..config() };
        let failed = Health::Failed(ErrorKind::Execution.into());
        let first = FakeBackend::new(BackendKind::TensorRt, 0.0, 8, &config).with_health(failed);
        let strings = Arc::clone(&first.strings);
        let second = FakeBackend::new(BackendKind::TensorRt, 0.0, 8, &config).with_rings();
        let mut predictor = Predictor::builder()
            .backend(Box::new(first))
            .backend(Box::new(second))
            .config(config.clone())
            .build()
            .unwrap();
        for row in 0..4 {
            predictor.push(0, &[row as f32, 0.0]).unwrap();
        }
        strings.hold.store(true, Ordering::SeqCst);
        let ticket = predictor.submit_window(0).unwrap();
        match disturb {
            "push" => predictor.push(0, &[100.0_f32, 0.0]).unwrap(),
            _ => predictor.reset(0).unwrap(),
        }
        let mut out = [0.0_f32];
        predictor.wait(ticket, &mut out).unwrap();
        assert_eq!(out, [6.0], "{disturb}: the window as it was");
        if disturb == "push" {
            let ticket = predictor.submit_window(0).unwrap();
            predictor.wait(ticket, &mut out).unwrap();
            assert_eq!(out, [106.0], "and as it is");
        }
    }
}

#[test]
fn models_or_normalisations_that_differ_are_refused() {
    let chain = || {
        let none = SessionConfig { normalizations: Some(vec![]), warm_up: 0, ..SessionConfig::default() };
        Predictor::builder().ort_cpu(common::model("mlp.onnx")).ort_cpu(common::model("mlp_dynamic.onnx")).config(none)
    };
    let error = chain().build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("one ONNX model"), "{error}");
    chain().allow_different_models().build().unwrap();
}

#[test]
fn backend_that_has_failed_can_still_turn_out_to_be_lost() {
    // The first call's error leaves CUDA alive; the second, in flight with it, finds the device lost.
    let Chain { builder, tensorrt, cuda, .. } =
        chain(Some(ErrorKind::OutOfMemory), 1, Health::Failed(LOST.into()), &config());
    let mut predictor = builder.build().unwrap();
    tensorrt.hold.store(true, Ordering::SeqCst);
    let mut slot = predictor.input().unwrap();
    slot.write(0, &[1.0_f32; 8]).unwrap();
    let in_flight = slot.submit().unwrap();
    assert_eq!(infer(&mut predictor, 2.0), (26.0, BackendKind::OrtCuda), "out of memory in the launch");
    let mut out = [0.0_f32];
    let answer = predictor.wait(in_flight, &mut out).unwrap();
    assert_eq!((out[0], answer.backend), (8.0, BackendKind::OrtCpu));
    assert!(tensorrt.quarantined.load(Ordering::SeqCst) && cuda.quarantined.load(Ordering::SeqCst));
    let told: Vec<_> = predictor.passed_over().iter().map(|passed| (passed.backend, passed.reason.kind())).collect();
    let (first, second) = (BackendKind::TensorRt, BackendKind::OrtCuda);
    assert_eq!(told, [(first, ErrorKind::OutOfMemory), (first, LOST), (second, LOST)]);
}

#[test]
fn rearm_that_moves_on_is_no_error_though_a_backend_ahead_is_lost() {
    let config = config();
    let lost = FakeBackend::new(BackendKind::TensorRt, 100.0, 8, &config).failing(LOST);
    let full = FakeBackend::new(BackendKind::OrtCpu, 10.0, 8, &config).failing(ErrorKind::OutOfMemory);
    for backend in [&lost, &full] {
        backend.strings.launches_left.store(0, Ordering::SeqCst);
    }
    let mut predictor = Predictor::builder()
        .backend(Box::new(lost))
        .backend(Box::new(full))
        .backend(Box::new(FakeBackend::new(BackendKind::Custom, 0.0, 8, &config)))
        .config(config.clone())
        .build()
        .unwrap();
    assert_eq!(infer(&mut predictor, 1.0), (8.0, BackendKind::Custom));
    assert_eq!(predictor.rearm().unwrap(), BackendKind::OrtCpu, "what was out of memory is back");
    assert_eq!(infer(&mut predictor, 1.0), (18.0, BackendKind::OrtCpu));
    assert_eq!(predictor.rearm().unwrap_err().kind(), LOST, "now nothing changes");
}

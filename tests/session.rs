//! The session over a backend of plain memory: slots, tickets, deadlines, windows.
mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::{FakeBackend, Strings};
use tickrt::backend::Health;
use tickrt::{
    BackendKind, DataType, ErrorKind, GapPolicy, NonFinite, Normalization, Session, SessionConfig, Stats, WindowConfig,
};

fn config() -> SessionConfig {
    SessionConfig { depth: 2, warm_up: 0, wait_limit: Duration::from_millis(20), ..SessionConfig::default() }
}

/// Its answers come in band; those of the predictor's tests have flags.
fn session(config: &SessionConfig) -> (Session, Arc<Strings>) {
    let backend = FakeBackend::new(BackendKind::Custom, 0.0, 8, config).with_health(Health::Running).in_band();
    let strings = Arc::clone(&backend.strings);
    (Session::start(Box::new(backend), config).unwrap(), strings)
}

fn kind<T: std::fmt::Debug>(result: tickrt::Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

#[test]
fn infer_sums_and_tells_where_from() {
    let (mut session, _) = session(&config());
    let mut out = [0.0_f32];
    let answer = session.infer(&[1.0_f32; 8], &mut out).unwrap();
    assert_eq!(out, [8.0]);
    assert_eq!((answer.sequence, answer.tag, answer.backend), (1, 0, BackendKind::Custom));
    assert!(answer.done >= answer.submitted);
}

#[test]
fn ring_full_is_an_error_at_once_and_free_after_collecting() {
    let (mut session, _) = session(&config());
    let submit = |session: &mut Session, value: f32| {
        let mut slot = session.input().unwrap().tag(value as u64);
        slot.write(0, &[value; 8]).unwrap();
        slot.submit().unwrap()
    };
    let first = submit(&mut session, 1.0);
    let second = submit(&mut session, 2.0);
    assert_eq!(kind(session.input().map(|_| ())), ErrorKind::Full { depth: 2 });
    let mut out = [0.0_f32];
    // Out of order.
    assert_eq!(session.wait(second, &mut out).unwrap().tag, 2);
    assert_eq!(out, [16.0]);
    let third = submit(&mut session, 3.0);
    assert_eq!(session.poll(first, &mut out).unwrap().unwrap().tag, 1);
    assert_eq!(out, [8.0]);
    session.wait(third, &mut out).unwrap();
    assert_eq!(out, [24.0]);
}

#[test]
fn ticket_used_twice_or_elsewhere_is_stale() {
    let (mut one, _) = session(&config());
    let (mut other, _) = session(&config());
    let mut out = [0.0_f32];
    let mut slot = one.input().unwrap();
    slot.write(0, &[1.0_f32; 8]).unwrap();
    let ticket = slot.submit().unwrap();
    assert_eq!(kind(other.wait(ticket, &mut out)), ErrorKind::StaleTicket);
    one.wait(ticket, &mut out).unwrap();
    assert_eq!(kind(one.wait(ticket, &mut out)), ErrorKind::StaleTicket);
    assert_eq!(kind(one.poll(ticket, &mut out)), ErrorKind::StaleTicket);
}

#[test]
fn answer_asked_for_wrongly_can_be_asked_for_again() {
    let (mut session, _) = session(&config());
    let mut slot = session.input().unwrap();
    slot.write(0, &[1.0_f32; 8]).unwrap();
    let ticket = slot.submit().unwrap();
    assert_eq!(kind(session.wait(ticket, &mut [0.0_f32; 3])), ErrorKind::WrongLength { expected: 1, got: 3 });
    let mut out = [0.0_f32];
    session.wait(ticket, &mut out).unwrap();
    assert_eq!(out, [8.0]);
}

#[test]
fn slot_dropped_without_submit_goes_back() {
    let (mut session, strings) = session(&config());
    for _ in 0..10 {
        let _lent = session.input().unwrap();
    }
    assert_eq!(strings.launches.load(Ordering::SeqCst), 0);
    session.infer(&[1.0_f32; 8], &mut [0.0_f32]).unwrap();
}

#[test]
fn write_of_wrong_type_or_length_is_refused() {
    let (mut session, strings) = session(&config());
    let mut slot = session.input().unwrap();
    assert_eq!(
        kind(slot.write(0, &[1.0_f64; 8])),
        ErrorKind::WrongType { expected: DataType::F32, got: DataType::F64 }
    );
    assert_eq!(kind(slot.write(0, &[1.0_f32; 9])), ErrorKind::WrongLength { expected: 8, got: 9 });
    assert_eq!(kind(slot.write(1, &[1.0_f32; 8])), ErrorKind::WrongLength { expected: 8, got: 9 });
    assert_eq!(kind(slot.write(usize::MAX, &[1.0_f32; 8])), ErrorKind::WrongLength { expected: 8, got: usize::MAX });
    assert_eq!(kind(slot.write_named("nothing", 0, &[1.0_f32; 8])), ErrorKind::UnknownTensor);
    assert!(slot.as_mut_slice::<f64>().is_none());
    slot.write(4, &[1.0_f32; 4]).unwrap();
    assert_eq!(kind(slot.submit()), ErrorKind::WrongLength { expected: 8, got: 0 }, "a hole at the front");
    let mut slot = session.input().unwrap();
    slot.write(0, &[1.0_f32; 4]).unwrap();
    slot.write(0, &[1.0_f32; 4]).unwrap();
    // Half an input would be answered with the rest of another call's.
    assert_eq!(kind(slot.submit()), ErrorKind::WrongLength { expected: 8, got: 4 });
    assert_eq!(strings.launches.load(Ordering::SeqCst), 0);
    assert!(session.input_for(1).is_err());
    for _ in 0..5 {
        // More often than the ring is deep: the slot goes back.
        assert_eq!(
            kind(session.infer(&[1.0_f32; 8], &mut [0.0_f32; 2])),
            ErrorKind::WrongLength { expected: 1, got: 2 }
        );
    }
    assert_eq!(
        kind(session.infer(&[1.0_f32; 8], &mut [0_i64; 1])),
        ErrorKind::WrongType { expected: DataType::F32, got: DataType::I64 }
    );
}

#[test]
fn deadline_missed_discards_the_late_answer_and_keeps_the_session() {
    let (mut session, strings) = session(&config());
    let mut out = [0.0_f32];
    strings.hold.store(true, Ordering::SeqCst);
    let mut slot = session.input().unwrap();
    slot.write(0, &[1.0_f32; 8]).unwrap();
    let late = slot.submit().unwrap();
    let started = Instant::now();
    assert_eq!(kind(session.wait_until(late, started + Duration::from_millis(2), &mut out)), ErrorKind::DeadlineMissed);
    assert!(started.elapsed() >= Duration::from_millis(2));
    assert_eq!(kind(session.poll(late, &mut out)), ErrorKind::StaleTicket);
    // The other slot is free, the late one is not until its answer is in: the launch below lets it come.
    strings.hold.store(false, Ordering::SeqCst);
    session.infer(&[2.0_f32; 8], &mut out).unwrap();
    assert_eq!(out, [16.0], "never the late answer");
    for _ in 0..4 {
        session.infer(&[3.0_f32; 8], &mut out).unwrap();
        assert_eq!(out, [24.0]);
    }
}

#[test]
fn slot_of_a_late_call_stays_out_of_the_ring() {
    let (mut session, strings) = session(&config());
    strings.hold.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        let mut slot = session.input().unwrap();
        slot.write(0, &[1.0_f32; 8]).unwrap();
        let late = slot.submit().unwrap();
        assert_eq!(kind(session.wait_until(late, Instant::now(), &mut [0.0_f32])), ErrorKind::DeadlineMissed);
    }
    assert_eq!(kind(session.input().map(|_| ())), ErrorKind::Full { depth: 2 });
}

#[test]
fn wait_beyond_the_limit_asks_the_device() {
    let mut idle = config();
    idle.wait_limit = Duration::from_millis(1);
    let lost = Health::Failed(ErrorKind::DeviceLost { code: 719 }.into());
    for (health, expected) in [
        (Health::Running, ErrorKind::DeadlineMissed),
        (Health::Idle, ErrorKind::Execution),
        (lost, ErrorKind::DeviceLost { code: 719 }),
    ] {
        let backend = FakeBackend::new(BackendKind::Custom, 0.0, 8, &idle).with_health(health);
        backend.strings.hold.store(true, Ordering::SeqCst);
        let mut session = Session::start(Box::new(backend), &idle).unwrap();
        assert_eq!(kind(session.infer(&[1.0_f32; 8], &mut [0.0_f32])), expected);
    }
}

#[test]
fn output_not_finite_or_out_of_range_is_an_error() {
    let (mut session, _) = session(&SessionConfig { output_range: Some([0.0, 10.0]), ..config() });
    let mut out = [0.0_f32];
    assert_eq!(kind(session.infer(&[f32::NAN; 8], &mut out)), ErrorKind::NonFiniteOutput { index: 0 });
    assert_eq!(kind(session.infer(&[2.0_f32; 8], &mut out)), ErrorKind::OutOfRange { index: 0 });
    assert_eq!(out, [0.0], "written only on success");
    session.infer(&[1.0_f32; 8], &mut out).unwrap();
    assert_eq!(out, [8.0]);
}

#[test]
fn input_not_finite_is_refused_where_asked() {
    let refuse = Normalization::new("input", DataType::F32)
        .stats(Stats::PerTensor { mean: [0.0], std: [1.0] })
        .non_finite(NonFinite::Refuse);
    let (mut session, _) = session(&SessionConfig { normalizations: Some(vec![refuse]), ..config() });
    let mut input = [1.0_f32; 8];
    input[5] = f32::INFINITY;
    assert_eq!(kind(session.infer(&input, &mut [0.0_f32])), ErrorKind::NonFiniteInput);
    session.infer(&[1.0_f32; 8], &mut [0.0_f32]).unwrap();
}

fn windowed(on_gap: GapPolicy) -> Session {
    let windows = WindowConfig { symbols: 3, row: 2, on_gap };
    session(&SessionConfig { windows: Some(windows), ..config() }).0
}

fn sum_of_window(session: &mut Session, symbol: u32) -> tickrt::Result<f32> {
    let ticket = session.submit_window(symbol)?;
    let mut out = [0.0_f32];
    session.wait(ticket, &mut out)?;
    Ok(out[0])
}

#[test]
fn window_answers_once_it_is_full_and_rolls_on() {
    let mut session = windowed(GapPolicy::Refill);
    assert_eq!(session.window_rows(), Some(4));
    for row in 0..4_u32 {
        let not_full = ErrorKind::WindowNotFull { symbol: 1, have: row, need: 4, after_gap: false };
        assert_eq!(kind(session.submit_window(1)), not_full);
        session.push(1, &[row as f32, 100.0]).unwrap();
    }
    assert_eq!(sum_of_window(&mut session, 1).unwrap(), 406.0);
    session.push(1, &[10.0_f32, 100.0]).unwrap();
    assert_eq!(sum_of_window(&mut session, 1).unwrap(), 416.0, "1 + 2 + 3 + 10");
    assert!(session.submit_window(0).is_err(), "symbols are apart");
}

#[test]
fn window_error_names_the_missing_rows() {
    let mut session = windowed(GapPolicy::Refill);
    session.push(2, &[1.0_f32, 1.0]).unwrap();
    let text = session.submit_window(2).unwrap_err().to_string();
    assert!(text.contains("symbol 2") && text.contains("expected 4 rows, got 1") && text.contains("3 more"), "{text}");
}

#[test]
fn gap_and_reset_do_what_was_configured() {
    for (policy, after) in [(GapPolicy::Refill, None), (GapPolicy::HoldLast, Some(12.0))] {
        let mut session = windowed(policy);
        for row in 0..4 {
            session.push(0, &[row as f32, 1.0]).unwrap();
        }
        session.gap(0).unwrap();
        match after {
            // 1 + 2 + 3 + 3 and four ones, without 0.
            Some(_) => assert_eq!(sum_of_window(&mut session, 0).unwrap(), 13.0),
            None => {
                let empty = ErrorKind::WindowNotFull { symbol: 0, have: 0, need: 4, after_gap: true };
                assert_eq!(kind(session.submit_window(0)), empty);
            }
        }
        session.reset(0).unwrap();
        let empty = ErrorKind::WindowNotFull { symbol: 0, have: 0, need: 4, after_gap: false };
        assert_eq!(kind(session.submit_window(0)), empty);
    }
}

#[test]
fn window_calls_with_bad_arguments_are_refused() {
    let mut with = windowed(GapPolicy::Refill);
    let unknown = ErrorKind::UnknownSymbol { symbol: 3, symbols: 3 };
    assert_eq!(kind(with.push(3, &[1.0_f32, 2.0])), unknown);
    assert_eq!(kind(with.submit_window(3)), unknown);
    assert_eq!(kind(with.reset(3)), unknown);
    assert_eq!(kind(with.gap(u32::MAX)), ErrorKind::UnknownSymbol { symbol: u32::MAX, symbols: 3 });
    assert_eq!(kind(with.push(0, &[1.0_f32])), ErrorKind::WrongLength { expected: 2, got: 1 });
    assert_eq!(
        kind(with.push(0, &[1.0_f64, 2.0])),
        ErrorKind::WrongType { expected: DataType::F32, got: DataType::F64 }
    );
    let (mut without, _) = session(&config());
    assert_eq!(kind(without.push(0, &[1.0_f32])), ErrorKind::NoWindows);
    assert_eq!(kind(without.submit_window(0)), ErrorKind::NoWindows);
}

#[test]
fn row_not_finite_is_not_taken_under_refuse() {
    let refuse = Normalization::new("input", DataType::F32)
        .stats(Stats::PerTensor { mean: [0.0], std: [1.0] })
        .non_finite(NonFinite::Refuse);
    let windows = Some(WindowConfig::new(1, 2));
    let (mut session, _) = session(&SessionConfig { windows, normalizations: Some(vec![refuse]), ..config() });
    for _ in 0..4 {
        session.push(0, &[1.0_f32, 1.0]).unwrap();
        assert_eq!(kind(session.push(0, &[1.0_f32, f32::NAN])), ErrorKind::NonFiniteInput);
    }
    assert_eq!(sum_of_window(&mut session, 0).unwrap(), 8.0);
}

#[test]
fn windows_that_do_not_fit_are_refused_at_start() {
    for (symbols, row) in [(1, 3), (1, 9)] {
        let config = SessionConfig { windows: Some(WindowConfig::new(symbols, row)), ..config() };
        let backend = FakeBackend::new(BackendKind::Custom, 0.0, 8, &config);
        assert_eq!(kind(Session::start(Box::new(backend), &config)), ErrorKind::InvalidArgument, "{symbols} x {row}");
    }
}

#[test]
fn windows_on_a_device_answer_as_those_on_the_host() {
    let config = SessionConfig { windows: Some(WindowConfig::new(5, 2)), ..config() };
    let start = |rings: bool| {
        let backend = FakeBackend::new(BackendKind::Custom, 0.0, 8, &config);
        let backend = if rings { backend.with_rings() } else { backend };
        Session::start(Box::new(backend), &config).unwrap()
    };
    let (mut device, mut host) = (start(true), start(false));
    let (mut random, mut compared) = (7_u64, 0);
    for step in 0..4000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let symbol = (random >> 33) as u32 % 5;
        match (random >> 40) % 16 {
            0 => [&mut device, &mut host].map(|session| session.reset(symbol).unwrap()),
            1 => [&mut device, &mut host].map(|session| session.gap(symbol).unwrap()),
            2..=10 => [&mut device, &mut host].map(|session| session.push(symbol, &[step as f32, 1.0]).unwrap()),
            _ => {
                let answers = [&mut device, &mut host].map(|session| sum_of_window(session, symbol));
                if let [Ok(device), Ok(host)] = answers {
                    assert_eq!(device, host, "step {step}");
                    compared += 1;
                } else {
                    let [device, host] = answers.map(|answer| answer.unwrap_err().kind());
                    assert_eq!(device, host, "step {step}");
                }
                [(), ()]
            }
        };
    }
    assert!(compared > 300, "{compared}");
}

#[test]
fn state_begins_anew_at_the_start_and_where_it_is_asked_for() {
    for warm_up in [0, 5] {
        let config = SessionConfig { warm_up, ..config() };
        let backend = FakeBackend::new(BackendKind::Custom, 0.0, 8, &config).with_state().in_band();
        let mut session = Session::start(Box::new(backend), &config).unwrap();
        assert!(session.carries_state());
        let mut answers = Vec::new();
        let mut out = [0.0_f32];
        for step in 0..6 {
            if step == 3 {
                session.reset_state().unwrap();
            }
            session.infer(&[1.0_f32; 8], &mut out).unwrap();
            answers.push(out[0]);
        }
        assert_eq!(answers, [8.0, 16.0, 24.0, 8.0, 16.0, 24.0], "{warm_up} calls to warm up");
        // An answer that nobody waits for is a step all the same; what was never launched is none.
        let ticket = session.input().unwrap().submit().map(drop);
        assert_eq!(kind(ticket), ErrorKind::WrongLength { expected: 8, got: 0 });
        let mut slot = session.input().unwrap();
        slot.write(0, &[1.0_f32; 8]).unwrap();
        let ticket = slot.submit().unwrap();
        session.give_up(ticket).unwrap();
        session.infer(&[1.0_f32; 8], &mut out).unwrap();
        assert_eq!(out, [40.0]);
    }
}

#[test]
fn session_without_state_has_none_to_reset() {
    let (mut session, _) = session(&config());
    assert!(!session.carries_state());
    let error = session.reset_state().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("--semantics stateful"), "{error}");
}

#[test]
fn row_that_is_refused_does_not_enter_the_state() {
    let normalization = Normalization::new("input", DataType::F32).non_finite(NonFinite::Refuse);
    let config = SessionConfig { normalizations: Some(vec![normalization]), ..config() };
    let backend = FakeBackend::new(BackendKind::Custom, 0.0, 8, &config).with_state().in_band();
    let mut session = Session::start(Box::new(backend), &config).unwrap();
    let mut out = [0.0_f32];
    session.infer(&[1.0_f32; 8], &mut out).unwrap();
    let mut bad = [1.0_f32; 8];
    bad[3] = f32::NAN;
    assert_eq!(kind(session.infer(&bad, &mut out)), ErrorKind::NonFiniteInput);
    session.infer(&[1.0_f32; 8], &mut out).unwrap();
    assert_eq!(out, [16.0]);
}

#[test]
fn answer_that_the_caller_could_not_take_is_counted_once_it_is_gone() {
    let (mut session, _) = session(&config());
    let counters = session.counters();
    let failures = || counters.failures();
    let mut slot = session.input().unwrap();
    slot.write(0, &[1.0_f32; 8]).unwrap();
    let ticket = slot.submit().unwrap();
    // Asked wrongly: it can be asked for again.
    assert_eq!(
        kind(session.wait(ticket, &mut [0.0_f64])),
        ErrorKind::WrongType { expected: DataType::F32, got: DataType::F64 }
    );
    assert_eq!(failures(), 0);
    let own = tickrt::Error::new(ErrorKind::Io, "send it on");
    assert_eq!(kind(session.wait_into(ticket, |_| Err(own))), ErrorKind::Io);
    assert_eq!(failures(), 1);
    assert_eq!(kind(session.wait(ticket, &mut [0.0_f32])), ErrorKind::StaleTicket);
}

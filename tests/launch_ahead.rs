//! Graphs launched ahead of their calls, on a device of threads: one that runs launches in order, as a stream does, and
//! waits in each for its call.
mod common;

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tickrt::backend::{CallShape, Health, OutputShape, Region, Signature, SlotHeader, SlotMemory};
use tickrt::{
    Backend, BackendKind, Completion, DataType, Done, ErrorKind, IoMode, Normalization, Normalizer, Predictor, Result,
    Session, SessionConfig, Status, TensorInfo, Unit, WaitStrategy, WindowConfig,
};

/// An odd number: in band, a unit more makes it even.
const ELEMENTS: usize = 5;

/// How calls and answers go.
#[derive(Debug, Clone, Copy)]
struct InBand {
    input: bool,
    answer: bool,
}

impl InBand {
    const BOTH: Self = Self { input: true, answer: true };
    const ALL: [Self; 4] = [
        Self::BOTH,
        Self { input: true, answer: false },
        Self { input: false, answer: true },
        Self { input: false, answer: false },
    ];
}

/// An input in which each element is another.
fn input(value: f32) -> [f32; ELEMENTS] {
    std::array::from_fn(|i| value + i as f32)
}

/// What the device makes of it: each element counts differently.
fn answer(input: [f32; ELEMENTS]) -> f32 {
    input.iter().enumerate().map(|(i, x)| (i + 1) as f32 * x).sum()
}

#[repr(C, align(64))]
struct Memory {
    header: SlotHeader,
    input: [f32; 16],
    output: [f32; 16],
    flag: Completion,
    unit: Unit,
    input_units: [Unit; ELEMENTS + 1],
}

struct ThreadDevice {
    signature: Signature,
    slots: Vec<SlotMemory>,
    launches: Option<Sender<usize>>,
    device: Option<JoinHandle<()>>,
    counts: Arc<Counts>,
    // Boxed one by one: the slots' addresses are out in the world.
    #[allow(clippy::vec_box)]
    _memory: Vec<Box<Memory>>,
}

#[derive(Default)]
struct Counts {
    launched: AtomicUsize,
    expired: AtomicUsize,
    /// Set: the device takes its time.
    held: AtomicBool,
    /// Set: the next launch fails.
    failing: AtomicBool,
}

impl ThreadDevice {
    fn new(depth: usize, patience: Duration, in_band: InBand) -> Self {
        let tensor = |name: &str, mode, count: i64| TensorInfo {
            name: name.into(),
            mode,
            data_type: DataType::F32,
            shape: vec![1, count],
        };
        let (input, output) = (tensor("input", IoMode::Input, ELEMENTS as i64), tensor("output", IoMode::Output, 1));
        let identity = Normalization::new("input", DataType::F32);
        let shape = CallShape {
            inputs: vec![Normalizer::new(&identity, &input, &input.shape, None).unwrap()],
            outputs: vec![OutputShape { data_type: DataType::F32, shape: vec![1, 1], count: 1 }],
        };
        #[allow(clippy::vec_box)]
        let mut memory: Vec<Box<Memory>> = (0..=depth)
            .map(|_| {
                Box::new(Memory {
                    header: SlotHeader::default(),
                    input: [0.0; 16],
                    output: [0.0; 16],
                    flag: Completion::default(),
                    unit: Unit::default(),
                    input_units: Default::default(),
                })
            })
            .collect();
        let slots: Vec<SlotMemory> = memory
            .iter_mut()
            .map(|slot| SlotMemory {
                header: NonNull::from(&mut slot.header),
                inputs: vec![Region { start: NonNull::from(&mut slot.input).cast(), bytes: ELEMENTS * 4 }],
                newest_row: None,
                input_units: in_band.input.then(|| NonNull::from(&mut slot.input_units).cast()),
                outputs: vec![Region { start: NonNull::from(&mut slot.output).cast(), bytes: 4 }],
                done: if in_band.answer {
                    Done::InBand(NonNull::from(&mut slot.unit))
                } else {
                    Done::Flag(NonNull::from(&mut slot.flag))
                },
            })
            .collect();
        let counts = Arc::new(Counts::default());
        let (launches, queue) = channel::<usize>();
        let device = std::thread::spawn({
            let (slots, counts) = (slots.clone(), Arc::clone(&counts));
            move || {
                for slot in queue {
                    // SAFETY: the slots outlive this thread: `drop` joins it.
                    unsafe { run(&slots[slot], patience, &counts) };
                }
            }
        });
        Self {
            signature: Signature { inputs: vec![input], outputs: vec![output], shapes: vec![shape] },
            slots,
            launches: Some(launches),
            device: Some(device),
            counts,
            _memory: memory,
        }
    }
}

/// What the kernels do: wait for the call, compute, publish.
unsafe fn run(slot: &SlotMemory, patience: Duration, counts: &Counts) {
    // SAFETY: the caller's; the session writes `sequence` and units atomically while this reads them; the rest of the
    // header is read only behind `sequence`.
    unsafe {
        let header = slot.header.as_ptr();
        let awaited = (*header).awaited;
        let until = Instant::now() + patience;
        let mut input = [0.0_f32; ELEMENTS];
        let came = loop {
            if let Some(units) = slot.input_units {
                let units = std::slice::from_raw_parts(units.as_ptr().cast::<AtomicU64>(), ELEMENTS + 1);
                let units: Vec<u64> = units.iter().map(|unit| unit.load(Ordering::Relaxed)).collect();
                if units.iter().all(|unit| unit >> 32 == awaited) {
                    input = std::array::from_fn(|i| f32::from_bits(units[i] as u32));
                    break true;
                }
            } else if AtomicU64::from_ptr(&raw mut (*header).sequence).load(Ordering::Acquire) == awaited {
                input = *slot.inputs[0].start.as_ptr().cast();
                break true;
            }
            if Instant::now() > until {
                break false;
            }
            std::thread::yield_now();
        };
        while counts.held.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        // Only what was acquired may be looked at: in band, nothing but the units is.
        let whole = slot.input_units.is_some() || (*header).window == 0;
        assert!(!came || whole, "it has no rings: each call brings its whole window");
        let sum = if came { answer(input) } else { f32::NAN };
        let status = Status(if came { 0 } else { Status::EXPIRED });
        match slot.done {
            Done::InBand(unit) => unit.as_ref().publish(awaited, status, sum.to_bits()),
            Done::Flag(flag) => {
                if came {
                    *slot.outputs[0].start.as_ptr().cast::<f32>() = sum;
                }
                flag.as_ref().publish(awaited, status);
            }
        }
        // Last: who counts on it finds the slot expired.
        counts.expired.fetch_add(usize::from(!came), Ordering::Release);
    }
}

impl Drop for ThreadDevice {
    fn drop(&mut self) {
        self.counts.held.store(false, Ordering::Relaxed);
        drop(self.launches.take());
        let _ = self.device.take().map(JoinHandle::join);
    }
}

// SAFETY: the slots are boxes that live as long as the backend, whose thread is joined before; a call's outputs are
// written before its number.
unsafe impl Backend for ThreadDevice {
    fn kind(&self) -> BackendKind {
        BackendKind::Custom
    }
    fn description(&self) -> &str {
        "a thread"
    }
    fn engine_id(&self) -> [u8; 32] {
        [0; 32]
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn slots(&self) -> &[SlotMemory] {
        &self.slots
    }
    fn graph(&self) -> Result<(), &str> {
        Ok(())
    }
    fn keeps_windows(&self) -> bool {
        true
    }
    fn launch(&mut self, slot: usize, _: usize) -> Result<()> {
        if self.counts.failing.swap(false, Ordering::Relaxed) {
            return Err(ErrorKind::Execution.into());
        }
        self.counts.launched.fetch_add(1, Ordering::Relaxed);
        self.launches.as_ref().unwrap().send(slot).unwrap();
        Ok(())
    }
    fn launches_ahead(&self) -> bool {
        true
    }
    fn health(&mut self) -> Health {
        Health::Running
    }
    fn device_memory(&self) -> u64 {
        0
    }
    fn quarantine(&mut self) {}
}

fn session(depth: usize, patience: Duration, in_band: InBand) -> (Session, Arc<Counts>) {
    let backend = ThreadDevice::new(depth, patience, in_band);
    let counts = Arc::clone(&backend.counts);
    let config = SessionConfig {
        depth,
        warm_up: 0,
        wait_limit: Duration::from_secs(5),
        // The device is a thread, which may need this one's core.
        wait_strategy: WaitStrategy::SpinThenYield,
        ..SessionConfig::default()
    };
    (Session::start(Box::new(backend), &config).unwrap(), counts)
}

fn submit(session: &mut Session, value: f32) -> tickrt::Ticket {
    let mut slot = session.input().unwrap();
    slot.write(0, &input(value)).unwrap();
    slot.submit().unwrap()
}

/// As long as it takes the device to give up what was launched ahead.
fn outlast(counts: &Counts, expired: usize) {
    let until = Instant::now() + Duration::from_secs(5);
    while counts.expired.load(Ordering::Acquire) < expired {
        assert!(Instant::now() < until, "the device waits on");
        std::thread::yield_now();
    }
}

#[test]
fn calls_find_their_graph_launched_and_get_their_answers() {
    for in_band in InBand::ALL {
        let (mut session, counts) = session(3, Duration::from_secs(2), in_band);
        let mut out = [0.0_f32];
        for call in 1..=500_u32 {
            let value = call as f32;
            let got = session.infer(&input(value), &mut out).unwrap();
            assert_eq!((out, got.sequence), ([answer(input(value))], u64::from(call)));
        }
        assert_eq!(counts.expired.load(Ordering::Relaxed), 0);
        assert_eq!(counts.launched.load(Ordering::Relaxed), 501, "one launch a call, and one ahead");
        let started = Instant::now();
        drop(session);
        assert!(started.elapsed() < Duration::from_secs(1), "what waits ahead is let go");
    }
}

#[test]
fn call_after_a_pause_is_launched_anew() {
    for in_band in InBand::ALL {
        let (mut session, counts) = session(2, Duration::from_millis(1), in_band);
        let mut out = [0.0_f32];
        for call in 1..=50_u32 {
            outlast(&counts, call as usize);
            let got = session.infer(&input(call as f32), &mut out).unwrap();
            assert_eq!((out, got.sequence), ([answer(input(call as f32))], u64::from(call)));
        }
    }
}

/// The device gives up at the very moment at which calls come, many thousand times.
#[test]
fn call_that_comes_as_its_graph_gives_up_is_answered() {
    for in_band in InBand::ALL {
        let patience = Duration::from_micros(40);
        let (mut session, counts) = session(3, patience, in_band);
        let mut out = [0.0_f32];
        let (mut calls, started) = (0_u32, Instant::now());
        let expired = || counts.expired.load(Ordering::Relaxed);
        // The machine's load decides how often which of the two is first.
        while calls < 1000 || expired() < 200 {
            assert!(started.elapsed() < Duration::from_secs(60), "{} of {calls} gave up", expired());
            calls += 1;
            let wait = Instant::now() + patience * (calls % 40);
            while Instant::now() < wait {}
            session.infer(&input(calls as f32), &mut out).unwrap();
            assert_eq!(out, [answer(input(calls as f32))], "call {calls}");
        }
        let launched = counts.launched.load(Ordering::Relaxed);
        assert!(launched < 3 * calls as usize, "{launched} launches for {calls} calls");
    }
}

#[test]
fn several_in_flight_a_full_ring_and_slots_not_submitted_keep_the_order() {
    let (mut session, _) = session(3, Duration::from_millis(200), InBand::BOTH);
    let mut out = [0.0_f32];
    for round in 0..100 {
        let _ = session.input().unwrap();
        let tickets: Vec<_> = (0..3).map(|i| submit(&mut session, (round * 3 + i) as f32)).collect();
        assert!(session.input().is_err(), "full");
        for (i, ticket) in tickets.into_iter().enumerate() {
            session.wait(ticket, &mut out).unwrap();
            assert_eq!(out, [answer(input((round * 3 + i) as f32))]);
        }
    }
}

#[test]
fn late_answer_under_launch_ahead_is_discarded() {
    let (mut session, counts) = session(3, Duration::from_millis(300), InBand::BOTH);
    let mut out = [0.0_f32];
    for call in 1..=200_u32 {
        let ticket = submit(&mut session, -1.0);
        let _ = session.wait_until(ticket, Instant::now(), &mut out);
        let value = call as f32;
        session.infer(&input(value), &mut out).unwrap();
        assert_eq!(out, [answer(input(value))]);
    }
    assert_eq!(counts.expired.load(Ordering::Relaxed), 0);
}

#[test]
fn keep_warm_launches_ahead_again_after_a_pause() {
    let (mut session, counts) = session(2, Duration::from_millis(1), InBand::BOTH);
    outlast(&counts, 1);
    let launched = || counts.launched.load(Ordering::Relaxed);
    // The device may publish a moment after it has counted.
    let until = Instant::now() + Duration::from_secs(5);
    while launched() == 1 {
        session.keep_warm().unwrap();
        assert!(Instant::now() < until);
    }
    assert_eq!(launched(), 2);
    let mut out = [0.0_f32];
    session.infer(&input(1.0), &mut out).unwrap();
    assert_eq!(out, [answer(input(1.0))]);
}

#[test]
fn rest_ends_what_waits_and_the_next_call_is_answered() {
    let (mut session, counts) = session(2, Duration::from_secs(2), InBand::BOTH);
    let mut out = [0.0_f32];
    for call in 1..=20_u32 {
        session.infer(&input(call as f32), &mut out).unwrap();
        assert_eq!(out, [answer(input(call as f32))]);
        session.rest();
        session.rest();
    }
    assert_eq!(counts.expired.load(Ordering::Relaxed), 0);
}

#[test]
fn every_wait_strategy_gets_the_answer_and_gives_up_in_time() {
    for wait_strategy in [WaitStrategy::Spin, WaitStrategy::SpinPause, WaitStrategy::SpinThenYield, WaitStrategy::Block]
    {
        let backend = ThreadDevice::new(2, Duration::from_secs(1), InBand::BOTH);
        let counts = Arc::clone(&backend.counts);
        let config = SessionConfig { depth: 2, warm_up: 0, wait_strategy, ..SessionConfig::default() };
        let mut session = Session::start(Box::new(backend), &config).unwrap();
        let mut out = [0.0_f32];
        for call in 1..=100_u32 {
            session.infer(&input(call as f32), &mut out).unwrap();
            assert_eq!(out, [answer(input(call as f32))], "{wait_strategy:?}");
        }
        counts.held.store(true, Ordering::Relaxed);
        let (deadline, ticket) = (Instant::now() + Duration::from_millis(5), submit(&mut session, 2.0));
        let missed = session.wait_until(ticket, deadline, &mut out).unwrap_err();
        assert_eq!(missed.kind(), ErrorKind::DeadlineMissed);
        let late = Instant::now() - deadline;
        assert!(late < Duration::from_millis(500), "{wait_strategy:?}: {late:?}");
        counts.held.store(false, Ordering::Relaxed);
        session.infer(&input(3.0), &mut out).unwrap();
        assert_eq!(out, [answer(input(3.0))], "the late answer is nobody's");
    }
}

/// A call that turned out void is launched again behind the next one: neither may count on the other's rows.
#[test]
fn windows_are_right_whatever_gave_up() {
    let patience = Duration::from_micros(40);
    let backend = ThreadDevice::new(3, patience, InBand::BOTH);
    let counts = Arc::clone(&backend.counts);
    let windows = Some(WindowConfig::new(1, 1));
    let wait_limit = Duration::from_secs(5);
    let config = SessionConfig { depth: 3, warm_up: 0, windows, wait_limit, ..SessionConfig::default() };
    let mut session = Session::start(Box::new(backend), &config).unwrap();
    for row in 1..ELEMENTS {
        session.push(0, &[row as f32 - ELEMENTS as f32 + 1.0]).unwrap();
    }
    let (mut out, started, mut calls) = ([0.0_f32], Instant::now(), 0_u32);
    while calls < 500 || counts.expired.load(Ordering::Relaxed) < 100 {
        assert!(started.elapsed() < Duration::from_secs(60));
        let wait = Instant::now() + patience * (calls % 40);
        while Instant::now() < wait {}
        let mut tickets = Vec::new();
        for _ in 0..2 {
            calls += 1;
            session.push(0, &[calls as f32]).unwrap();
            let expected = answer(input(calls as f32 - ELEMENTS as f32 + 1.0));
            tickets.push((session.submit_window(0).unwrap(), expected));
        }
        if calls % 3 == 0 {
            session.give_up(tickets.remove(0).0).unwrap();
        }
        for (ticket, sum) in tickets {
            session.wait(ticket, &mut out).unwrap();
            assert_eq!(out, [sum], "call {calls}");
        }
    }
}

#[test]
fn predictor_keeps_a_healthy_device_after_a_rest() {
    let wait_limit = Duration::from_millis(20);
    let config = SessionConfig { depth: 2, warm_up: 0, wait_limit, ..SessionConfig::default() };
    let backend = Box::new(ThreadDevice::new(2, Duration::from_secs(1), InBand::BOTH));
    let mut predictor = Predictor::builder().config(config).backend(backend).build().unwrap();
    let mut out = [0.0_f32];
    for call in 1..=5_u32 {
        predictor.infer(&input(call as f32), &mut out).unwrap();
        assert_eq!(out, [answer(input(call as f32))]);
        let until = Instant::now() + 2 * wait_limit;
        while Instant::now() < until {
            predictor.keep_warm().unwrap();
        }
        predictor.rest();
    }
    assert!(predictor.passed_over().is_empty(), "{:?}", predictor.passed_over());
}

#[test]
fn predictor_that_was_replaced_launches_nothing_ahead_any_more() {
    const PATIENCE: Duration = Duration::from_secs(5);
    let start = || {
        let backend = ThreadDevice::new(3, PATIENCE, InBand::BOTH);
        let counts = Arc::clone(&backend.counts);
        let config = SessionConfig { depth: 3, warm_up: 0, wait_limit: PATIENCE, ..SessionConfig::default() };
        (Predictor::builder().config(config).backend(Box::new(backend)).build().unwrap(), counts)
    };
    let ((mut predictor, old), (successor, _)) = (start(), start());
    let mut slot = predictor.input().unwrap();
    slot.write(0, &input(1.0)).unwrap();
    let in_flight = slot.submit().unwrap();
    let before = Instant::now();
    predictor.swap(successor).unwrap();
    let mut out = [0.0_f32];
    predictor.infer(&input(2.0), &mut out).unwrap();
    assert_eq!(out, [answer(input(2.0))]);
    predictor.wait(in_flight, &mut out).unwrap();
    assert_eq!(out, [answer(input(1.0))]);
    while predictor.take_outgoing().is_none() {
        assert!(before.elapsed() < PATIENCE, "what waited ahead was let go, and not outlasted");
        std::thread::yield_now();
    }
    assert_eq!(old.launched.load(Ordering::Relaxed), 2, "the call, and the one ahead of it");
    assert_eq!(old.expired.load(Ordering::Relaxed), 0);
}

#[test]
fn launch_that_failed_leaves_no_input_to_the_next_call() {
    let (mut session, counts) = session(1, Duration::from_millis(200), InBand::BOTH);
    let mut out = [0.0_f32];
    session.infer(&input(1.0), &mut out).unwrap();
    session.rest();
    counts.failing.store(true, Ordering::Relaxed);
    // The slot of what was let go is free once that has run.
    let failed = loop {
        match session.infer(&input(7.0), &mut out) {
            Err(error) if matches!(error.kind(), ErrorKind::Full { .. }) => {}
            other => break other,
        }
    };
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::Execution);
    session.keep_warm().unwrap();
    std::thread::sleep(Duration::from_millis(5));
    session.infer(&input(1.0), &mut out).unwrap();
    assert_eq!(out, [answer(input(1.0))], "not the sum of the input that was never launched");
}

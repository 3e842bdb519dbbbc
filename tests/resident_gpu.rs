//! Resident engines on a GPU: every window of the zoo against ONNX Runtime on the CPU, streams of rows, millions of calls whose
//! answers tell which call they are of, and what a kernel that stays must not do to others. Without a GPU these tests say so
//! and pass, unless TRT_CI=1. With TICKRT_TEST_BAR1=1 all calls go through the GPU's BAR1.
mod common;
#[path = "common/engines.rs"]
mod engines;
#[path = "common/onnx.rs"]
mod onnx;
#[path = "common/random_network.rs"]
mod random_network;

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::{model, normalization, npy, or_skip};
use random_network::{Growing, computed};
use tickrt::backend::ort::{CudaOptions, OrtBackend};
use tickrt::onnx::Model;
use tickrt::resident::budget::WeightType;
use tickrt::resident::reference::{self, Accumulation};
use tickrt::resident::{Artefact, ArtefactOptions, Asks, Semantics, lower};
use tickrt::{
    BackendKind, Device, Engine, ErrorKind, NonFinite, Normalization, Predictor, ResidentConfig, Session,
    SessionConfig, Shapes, WindowConfig,
};

/// One test at a time has the GPU: some of them fill it.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> Option<(MutexGuard<'static, ()>, Arc<Device>)> {
    let guard = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let device = common::gpu()?;
    common::has_clusters(&device).then_some((guard, device))
}

fn its_normalization(name: &str) -> Option<Normalization> {
    model(&format!("{name}.normalization.json")).exists().then(|| normalization(name))
}

fn artefact_with(name: &str, options: ArtefactOptions) -> Artefact {
    let network = Model::read(model(&format!("{name}.onnx"))).unwrap();
    let compute_capability = Device::open(0).unwrap().compute_capability();
    let asks = if through_bar1() { Asks::All } else { options.asks };
    let options = ArtefactOptions { compute_capability, asks, ..options };
    Artefact::build(&network, its_normalization(name).as_ref(), &Shapes::new(), &options)
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn artefact(name: &str) -> Artefact {
    artefact_with(name, ArtefactOptions::default())
}

fn config() -> SessionConfig {
    // Containers show the driver's other processes, or none: what is tested by itself is not asked for everywhere.
    let mut resident = ResidentConfig { share_gpu: true, bar1: through_bar1(), ..ResidentConfig::default() };
    if under_a_tool() {
        resident.turn = Duration::from_secs(1);
        resident.known_answer_every = Duration::ZERO;
        return SessionConfig { resident, wait_limit: Duration::from_secs(60), warm_up: 0, ..SessionConfig::default() };
    }
    SessionConfig { resident, wait_limit: Duration::from_secs(5), ..SessionConfig::default() }
}

fn through_bar1() -> bool {
    std::env::var_os("TICKRT_TEST_BAR1").is_some()
}

/// A call takes its time there: a turn must not end amid its first.
fn under_a_tool() -> bool {
    std::env::var_os("TICKRT_TEST_UNDER_A_TOOL").is_some()
}

fn short_turns() -> SessionConfig {
    if under_a_tool() {
        return config();
    }
    let turn = Duration::from_millis(2);
    SessionConfig { resident: ResidentConfig { turn, ..config().resident }, ..config() }
}

fn reference(name: &str, config: &SessionConfig) -> Session {
    let normalizations = Some(its_normalization(name).into_iter().collect());
    engines::reference(name, &SessionConfig { normalizations, cpu_threads: 4, warm_up: 0, ..config.clone() })
}

/// Numbers in [-2, 2) that follow from `seed`.
fn random(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 22) as f32 - 2.0
    };
    (0..count).map(|_| next()).collect()
}

fn outputs(session: &Session) -> usize {
    session.signature().shapes[0].outputs[0].count
}

fn furthest(got: &[f32], expected: &[f32]) -> f32 {
    let apart = got.iter().zip(expected).map(|(a, b)| if a == b { 0.0 } else { (a - b).abs() });
    apart.fold(0.0, |most, apart| if apart.is_nan() { f32::INFINITY } else { apart.max(most) })
}

/// The largest difference from the CPU's answers over `samples` inputs of type `T`.
fn compare<T: tickrt::Element>(name: &str, data: &[T], config: &SessionConfig) -> f32 {
    let mut session = Session::resident(&artefact(name), config).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut cpu = reference(name, config);
    assert_eq!(session.backend(), BackendKind::Resident);
    let elements = session.signature().shapes[0].inputs[0].count();
    let (mut got, mut expected) = (vec![0.0_f32; outputs(&session)], vec![0.0_f32; outputs(&session)]);
    let mut apart = 0.0_f32;
    for (number, sample) in data.chunks_exact(elements).enumerate() {
        session.infer(sample, &mut got).unwrap_or_else(|error| panic!("{name}, sample {number}: {error}"));
        cpu.infer(sample, &mut expected).unwrap();
        apart = apart.max(furthest(&got, &expected));
    }
    println!("{name}: {} samples, furthest from the CPU's by {apart:.1e}", data.len() / elements);
    apart
}

#[test]
fn every_window_of_the_zoo_has_the_cpus_answer() {
    let Some(_alone) = alone() else { return };
    let windows: Vec<f32> = npy(model("data/nasdaq_windows.npy")).0;
    let images: Vec<u8> = npy(model("data/nasdaq_images32.npy")).0;
    for name in ["toy_cnn", "mlp", "lstm"] {
        assert!(compare(name, &windows, &config()) < 1e-5, "{name}");
    }
    assert!(compare("cnn_small", &images, &config()) < 1e-5);
    for (name, elements) in [("identity", 8), ("mlp_384", 256), ("lstm_s", 50 * 25)] {
        assert!(compare(name, &random(7, 500 * elements), &config()) < 1e-5, "{name}");
    }
}

/// Each block computes some rows, and gets those beside them from its neighbours; calls come before the ones before are answered.
#[test]
fn planes_in_bands_have_the_cpus_answer_across_turns_and_calls_in_flight() {
    let Some(_alone) = alone() else { return };
    let (samples, rounds, depths) = if under_a_tool() { (4, 1, &[2][..]) } else { (200, 5, &[1, 4][..]) };
    let artefact = artefact("deeplob");
    assert_eq!(artefact.facts().blocks, 16);
    let inputs: Vec<Vec<f32>> = (0..samples).map(|seed| random(seed, 4000)).collect();
    let mut cpu = reference("deeplob", &config());
    let mut expected = vec![[0.0_f32; 3]; inputs.len()];
    for (input, answer) in inputs.iter().zip(&mut expected) {
        cpu.infer(input, answer).unwrap();
    }
    for &depth in depths {
        let mut session = Session::resident(&artefact, &SessionConfig { depth, ..short_turns() }).unwrap();
        let (mut apart, mut got, mut answered) = (0.0_f32, [0.0_f32; 3], 0);
        let mut flying = std::collections::VecDeque::new();
        for number in 0..rounds * inputs.len() + depth {
            if number >= depth {
                let (ticket, of) = flying.pop_front().expect("so many are in flight");
                session.wait(ticket, &mut got).unwrap();
                let of: usize = of;
                apart = apart.max(furthest(&got, &expected[of]));
                answered += 1;
            }
            if number < rounds * inputs.len() {
                let of = number % inputs.len();
                let mut slot = session.input().unwrap();
                slot.write(0, &inputs[of]).unwrap();
                flying.push_back((slot.submit().unwrap(), of));
            }
        }
        println!("deeplob, {depth} in flight: {answered} answers, furthest from the CPU's by {apart:.1e}");
        assert!(answered == rounds * inputs.len() && apart < 1e-5, "{answered} answers, {apart}");
    }
}

/// Networks of operators at random, odd sizes among them, each with large, small and ordinary inputs.
#[test]
fn random_networks_have_onnx_runtimes_answers() {
    let Some((_alone, device)) = alone() else { return };
    let count = std::env::var("TICKRT_TEST_NETWORKS").map_or(60, |count| count.parse().unwrap());
    let (mut built, mut refused) = (0, 0);
    for seed in 0..count {
        let (bytes, _) = Growing::random(seed * 13 + 5, 1 + seed as usize % 6);
        let network = Model::from_bytes(bytes).unwrap();
        let asks = [Asks::Each, Asks::First, Asks::All][(seed / 3 % 3) as usize];
        let compute_capability = device.compute_capability();
        let weights = if seed % 3 == 2 { WeightType::F16 } else { WeightType::F32 };
        let options = ArtefactOptions { compute_capability, weights, asks, ..ArtefactOptions::default() };
        let artefact = match Artefact::build(&network, None, &Shapes::new(), &options) {
            Ok(artefact) => artefact,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unsupported, "network {seed}: {error}");
                refused += 1;
                continue;
            }
        };
        let own = SessionConfig { check_finite: false, normalizations: Some(Vec::new()), warm_up: 0, ..config() };
        let mut session = Session::resident(&artefact, &own).unwrap();
        let mut cpu = Session::start(Box::new(OrtBackend::cpu(&network, &own).unwrap()), &own).unwrap();
        let elements = session.signature().shapes[0].inputs[0].count();
        let (mut got, mut expected) = (vec![0.0_f32; outputs(&session)], vec![0.0_f32; outputs(&session)]);
        for (number, scale) in [1.0, 1e-3, 30.0].into_iter().enumerate() {
            let input: Vec<f32> = random(seed + number as u64, elements).iter().map(|x| x * scale).collect();
            session.infer(&input, &mut got).unwrap();
            match weights {
                WeightType::F32 => {
                    cpu.infer(&input, &mut expected).unwrap();
                }
                // ONNX Runtime has other weights.
                WeightType::F16 => {
                    let network = computed(&lower(&network, &Shapes::new()).unwrap(), weights);
                    expected = reference::run(&network, &[&input], Accumulation::F64).unwrap().concat();
                }
            }
            let size = expected.iter().fold(1.0_f32, |most, x| most.max(x.abs()));
            let apart = furthest(&got, &expected) / size;
            let stages = &artefact.facts().stages;
            assert!(apart < 1e-4, "network {seed}, inputs up to {scale}: {apart:.1e} apart: {stages:?}");
        }
        built += 1;
    }
    println!("{built} networks, {refused} refused");
    assert!(built > count / 2, "{built} of {count}");
}

#[test]
fn block_that_asks_for_all_hands_out_what_each_needs() {
    let Some(_alone) = alone() else { return };
    let windows: Vec<f32> = npy(model("data/nasdaq_windows.npy")).0;
    let artefact = artefact_with("mlp", ArtefactOptions { asks: Asks::First, ..ArtefactOptions::default() });
    let (mut session, mut cpu) = (Session::resident(&artefact, &short_turns()).unwrap(), reference("mlp", &config()));
    let (mut got, mut expected, mut apart) = ([0.0_f32; 3], [0.0_f32; 3], 0.0_f32);
    for sample in windows.chunks_exact(256) {
        session.infer(sample, &mut got).unwrap();
        cpu.infer(sample, &mut expected).unwrap();
        apart = apart.max(furthest(&got, &expected));
    }
    assert!(apart < 1e-5, "{apart}");
}

#[test]
fn answers_are_right_across_turns_of_any_length_and_depth() {
    let Some(_alone) = alone() else { return };
    let windows: Vec<f32> = npy(model("data/nasdaq_windows.npy")).0;
    for (depth, micros) in [(1, 200), (3, 1000), (7, 100)] {
        let resident = ResidentConfig { turn: Duration::from_micros(micros), ..config().resident };
        assert!(compare("mlp", &windows, &SessionConfig { depth, resident, ..config() }) < 1e-5, "depth {depth}");
    }
}

/// A finite float that tells the call and the place.
fn payload(call: u64, place: usize) -> f32 {
    let mixed = (call.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (place as u64).wrapping_mul(0xd6e8_feb8_6659_fd93)) >> 32;
    f32::from_bits(mixed as u32 & 0xbfff_ffff)
}

#[test]
fn ten_million_calls_each_get_their_own_answer_across_the_wrap_of_their_numbers() {
    let Some(_alone) = alone() else { return };
    let calls: u64 = std::env::var("TICKRT_TEST_CALLS").map_or(10_000_000, |calls| calls.parse().unwrap());
    // Both the 24 bits of an answer's tag and the 32 of an input's wrap on the way.
    let calls_before = (1 << 32) - calls.min(1 << 20) / 2;
    let resident = ResidentConfig { calls_before, ..short_turns().resident };
    let config = SessionConfig { resident, depth: 4, ..config() };
    let mut session = Session::resident(&artefact("identity"), &config).unwrap();
    let count = outputs(&session);
    let (mut input, mut output) = (vec![0.0_f32; count], vec![0.0_f32; count]);
    let mut asked = std::collections::VecDeque::new();
    let (mut wrong, started) = (0_u64, Instant::now());
    for call in 0..calls {
        // One to four in flight, in turns.
        if asked.len() as u64 > call / 1000 % 4 {
            wrong += u64::from(!collect(&mut session, &mut asked, &mut output));
        }
        (0..count).for_each(|place| input[place] = payload(call, place));
        let mut slot = session.input().unwrap();
        slot.write(0, &input).unwrap();
        asked.push_back((call, slot.submit().unwrap()));
    }
    while !asked.is_empty() {
        wrong += u64::from(!collect(&mut session, &mut asked, &mut output));
    }
    println!("{calls} calls in {:.1} s, {wrong} wrong", started.elapsed().as_secs_f64());
    assert_eq!(wrong, 0, "stale or torn answers");
}

fn collect(
    session: &mut Session,
    asked: &mut std::collections::VecDeque<(u64, tickrt::Ticket)>,
    output: &mut [f32],
) -> bool {
    let (call, ticket) = asked.pop_front().unwrap();
    session.wait(ticket, output).unwrap();
    output.iter().enumerate().all(|(place, got)| got.to_bits() == payload(call, place).to_bits())
}

#[test]
fn rows_one_by_one_have_the_answers_of_their_windows() {
    let Some(_alone) = alone() else { return };
    // The sixteen blocks of lstm_a are so slow under racecheck that some take block 0 for dead and leave.
    // With rounded weights answers of about 0.1 are near; 3, 5 and 13 blocks are grids.
    let all = [
        ("lstm", 8, WeightType::F32, None, 1e-5),
        ("lstm", 8, WeightType::F16, Some(3), 1e-3),
        ("lstm_a", 100, WeightType::F32, None, 1e-5),
        ("lstm_a", 100, WeightType::F16, None, 1e-3),
        ("lstm_a", 100, WeightType::F16, Some(13), 1e-3),
        ("lstm_a", 100, WeightType::F16, Some(5), 1e-3),
    ];
    for &(name, row, weights, blocks, near) in if under_a_tool() { &all[..2] } else { &all } {
        let options = ArtefactOptions { weights, blocks, semantics: Semantics::Window, ..ArtefactOptions::default() };
        let artefact = artefact_with(name, options);
        assert_eq!(artefact.facts().window_row, Some(row));
        let windows = Some(WindowConfig::new(2, row));
        let mut session =
            Session::resident(&artefact, &SessionConfig { windows: windows.clone(), ..short_turns() }).unwrap();
        let mut cpu = reference(name, &SessionConfig { windows, ..config() });
        let other_rows = SessionConfig { windows: Some(WindowConfig::new(1, row / 2)), ..config() };
        assert_eq!(Session::resident(&artefact, &other_rows).unwrap_err().kind(), ErrorKind::InvalidArgument);
        let rows = session.window_rows().unwrap();
        let (mut got, mut expected) = (vec![0.0_f32; outputs(&session)], vec![0.0_f32; outputs(&session)]);
        let (mut apart, mut asked) = (0.0_f32, 0);
        let steps = if under_a_tool() { 110 } else { 600 };
        for step in 0..steps + rows as u64 {
            // Mostly one symbol; now and then the other, a reset, a window asked twice, rows that nobody asks about.
            let symbol = u32::from(step % 97 > 90);
            if step == steps / 2 {
                session.reset(0).unwrap();
                cpu.reset(0).unwrap();
            }
            let row = random(step + 1, row);
            for session in [&mut session, &mut cpu] {
                session.push(symbol, &row).unwrap();
            }
            if step % 13 == 5 {
                continue;
            }
            for _ in 0..=u64::from(step % 50 == 7) {
                let Ok(ticket) = session.submit_window(symbol) else { continue };
                session.wait(ticket, &mut got).unwrap_or_else(|error| panic!("{name}, row {step}: {error}"));
                let ticket = cpu.submit_window(symbol).unwrap();
                cpu.wait(ticket, &mut expected).unwrap();
                apart = apart.max(furthest(&got, &expected));
                asked += 1;
            }
        }
        println!("{name} in {weights:?} on {blocks:?} blocks: {asked} windows, furthest from the CPU's by {apart:.1e}");
        assert!(asked > steps / 2 && apart < near, "{name}: {asked} windows, {apart}");
    }
}

/// From its beginning the state is that of a window: the answer to a row is that of all rows since then.
#[test]
fn state_is_carried_from_row_to_row_and_turn_to_turn() {
    let Some(_alone) = alone() else { return };
    let name = "lstm_a";
    let options = ArtefactOptions { semantics: Semantics::Stateful, ..ArtefactOptions::default() };
    let mut session = Session::resident(&artefact_with(name, options), &short_turns()).unwrap();
    let mut cpu = reference(name, &config());
    let (mut got, mut expected) = (vec![0.0_f32; outputs(&session)], vec![0.0_f32; outputs(&session)]);
    let (mut apart, mut first) = (0.0_f32, Vec::new());
    for stream in 0..40_u64 {
        let rows: Vec<f32> = (0..50).flat_map(|step| random(stream / 2 * 50 + step + 1, 100)).collect();
        session.reset_state().unwrap();
        for row in rows.chunks(100) {
            session.infer(row, &mut got).unwrap();
        }
        cpu.infer(&rows, &mut expected).unwrap();
        apart = apart.max(furthest(&got, &expected));
        // The same stream once more has the same bits.
        if stream % 2 == 1 {
            assert_eq!(got, first);
        }
        first.clone_from(&got);
        if stream % 10 == 0 {
            std::thread::sleep(Duration::from_millis(30));
        }
    }
    println!("{name}: 2000 rows, furthest from the CPU's by {apart:.1e}");
    assert!(apart < 1e-5, "{apart}");
}

/// A caller that is pinned, spins and runs before all others takes nothing from the thread that queues turns.
#[test]
fn caller_with_a_core_of_its_own_is_answered_turn_after_turn() {
    let Some(_alone) = alone() else { return };
    std::thread::spawn(|| {
        tickrt::thread::pin(*tickrt::thread::allowed_cores().last().unwrap()).unwrap();
        if let Err(error) = tickrt::thread::raise(50) {
            println!("not before all others: {error}");
        }
        let mut session = Session::resident(&artefact("mlp"), &short_turns()).unwrap();
        let (input, mut output) = (random(1, 256), [0.0_f32; 3]);
        let until = Instant::now() + Duration::from_secs(2);
        while Instant::now() < until {
            session.infer(&input, &mut output).unwrap();
        }
    })
    .join()
    .unwrap();
}

#[test]
fn engine_that_rests_leaves_the_gpu_and_answers_again() {
    let Some(_alone) = alone() else { return };
    let mut session = Session::resident(&artefact("mlp"), &config()).unwrap();
    let (input, mut first, mut again) = (random(1, 256), [0.0_f32; 3], [0.0_f32; 3]);
    session.infer(&input, &mut first).unwrap();
    for pause in [0, 1, 30, 150] {
        session.rest();
        std::thread::sleep(Duration::from_millis(pause));
        let answer = session.infer(&input, &mut again).unwrap();
        println!("{pause} ms of rest: the call after it took {:?}", answer.latency());
        assert_eq!(first, again);
        session.rest();
        std::thread::sleep(Duration::from_millis(pause));
        session.keep_warm().unwrap();
        session.infer(&input, &mut again).unwrap();
        assert_eq!(first, again);
    }
    // With every slot in flight there is no room for the sign to end: the turn's length ends it.
    let mut asked = Vec::new();
    while let Ok(mut slot) = session.input() {
        slot.write(0, &input).unwrap();
        asked.push(slot.submit().unwrap());
    }
    session.rest();
    for ticket in asked {
        session.wait(ticket, &mut again).unwrap();
        assert_eq!(first, again);
    }
    session.infer(&input, &mut again).unwrap();
    assert_eq!(first, again);
}

/// Says so when it is dropped.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
fn other_users_of_cuda_in_the_process_get_their_turn() {
    let Some(_alone) = alone() else { return };
    // Built before: beside a resident engine, for which each timing of a tactic waits, that takes minutes.
    let plan = engines::plan("mlp");
    let mut session = Session::resident(&artefact("mlp"), &config()).unwrap();
    let (input, mut first) = (random(1, 256), [0.0_f32; 3]);
    session.infer(&input, &mut first).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Also when something in here fails: the calls below would go on for ever.
            let _ended = Ended(&done);
            let timed = |what: &str, work: &mut dyn FnMut()| {
                let started = Instant::now();
                work();
                println!("beside a resident engine: {what} took {:.1} ms", started.elapsed().as_secs_f64() * 1e3);
            };
            let mut cuda = None;
            let onnx = Model::read(model("mlp.onnx")).unwrap();
            let own = SessionConfig { normalizations: Some(vec![normalization("mlp")]), ..SessionConfig::default() };
            timed("starting ONNX Runtime CUDA", &mut || {
                let backend = OrtBackend::cuda(&onnx, &own, CudaOptions::default()).unwrap();
                cuda = Some(Session::start(Box::new(backend), &own).unwrap());
            });
            // It captures in CUDA's default mode, in which no other thread of the process may do what would wait.
            timed("three graphs that ONNX Runtime CUDA captured", &mut || {
                for _ in 0..3 {
                    let mut graph = OrtBackend::cuda_graph(&onnx, &own, CudaOptions::default()).unwrap();
                    graph.infer(&input, &mut [0.0_f32; 3]).unwrap();
                }
            });
            let mut engine = None;
            timed("loading a plan (allocation, modules)", &mut || {
                engine = Some(Engine::load(&plan).unwrap());
            });
            let mut tensorrt = None;
            timed("starting a TensorRT session", &mut || {
                tensorrt = Some(engine.take().unwrap().session(&SessionConfig::default()).unwrap());
            });
            let mut output = [0.0_f32; 3];
            timed("1000 calls of TensorRT", &mut || {
                for _ in 0..1000 {
                    tensorrt.as_mut().unwrap().infer(&input, &mut output).unwrap();
                }
            });
            timed("100 calls of ONNX Runtime CUDA", &mut || {
                for _ in 0..100 {
                    cuda.as_mut().unwrap().infer(&input, &mut output).unwrap();
                }
            });
            timed("freeing both", &mut || drop((tensorrt.take(), cuda.take())));
        });
        let (mut calls, mut worst) = (0_u64, Duration::ZERO);
        let mut output = [0.0_f32; 3];
        while !done.load(Ordering::Acquire) {
            let answer = session.infer(&input, &mut output).unwrap();
            assert_eq!(output, first);
            (calls, worst) = (calls + 1, worst.max(answer.latency()));
        }
        println!("{calls} calls meanwhile, the longest {worst:?}");
        assert!(calls > 100);
    });
}

/// What another library with a wild pointer would do.
#[test]
fn overwritten_weights_end_the_engine_and_not_the_chain() {
    let Some(_alone) = alone() else { return };
    let resident = ResidentConfig { known_answer_every: Duration::from_millis(20), ..short_turns().resident };
    for (name, semantics) in [("mlp", Semantics::Whole), ("lstm_a", Semantics::Window), ("lstm_a", Semantics::Stateful)]
    {
        let artefact = artefact_with(name, ArtefactOptions { semantics, ..ArtefactOptions::default() });
        let windows = (semantics == Semantics::Window).then(|| WindowConfig::new(1, 100));
        let config = SessionConfig { resident, windows, ..config() };
        let mut session = Session::resident(&artefact, &config).unwrap();
        let input = random(1, session.signature().shapes[0].inputs[0].count());
        let mut output = vec![0.0_f32; outputs(&session)];
        let until = Instant::now() + Duration::from_secs(20);
        while session.turns().unwrap().known_answers < 5 {
            session.infer(&input, &mut output).unwrap();
            assert!(Instant::now() < until, "{:?}", session.turns());
        }
        let (weights, bytes) = session.weights().unwrap();
        // SAFETY: the driver's own function on memory that the engine reads only, in the context that `Device::open` has bound.
        unsafe {
            let driver = libloading::Library::new("libcuda.so.1").unwrap();
            let set = driver.get::<unsafe extern "C" fn(u64, u8, usize) -> i32>(b"cuMemsetD8_v2").unwrap();
            // A quarter of each number, or less.
            assert_eq!(set(weights, 0x3c, bytes), 0);
        }
        let started = Instant::now();
        let error = loop {
            match session.infer(&input, &mut output) {
                Err(error) if error.kind() == ErrorKind::WrongAnswer => break error,
                other => other.map(drop).unwrap(),
            }
            assert!(started.elapsed() < Duration::from_secs(10), "still answers");
        };
        println!("{name} ({semantics:?}): after {:.0?}: {error}", started.elapsed());
        assert_eq!(session.infer(&input, &mut output).unwrap_err().kind(), ErrorKind::WrongAnswer);
        let before = device_free();
        drop(session);
        assert!(device_free() > before, "its memory is given back");
    }
}

fn device_free() -> u64 {
    Device::open(0).unwrap().memory().unwrap().free
}

#[test]
fn engines_live_side_by_side_until_the_gpu_is_full() {
    let Some(_alone) = alone() else { return };
    let artefact = artefact("mlp");
    let mut sessions = Vec::new();
    let refused = loop {
        match Session::resident(&artefact, &config()) {
            Ok(session) => sessions.push(session),
            Err(error) => break error,
        }
        assert!(sessions.len() < 64, "no GPU has room for so many");
    };
    println!("{} engines of {} blocks; then: {refused}", sessions.len(), artefact.facts().blocks);
    assert!(sessions.len() > 1);
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    let mut first = [0.0_f32; 3];
    sessions[0].infer(&random(1, 256), &mut first).unwrap();
    std::thread::scope(|scope| {
        for session in &mut sessions {
            scope.spawn(move || {
                let mut output = [0.0_f32; 3];
                for _ in 0..2000 {
                    session.infer(&random(1, 256), &mut output).unwrap();
                    assert_eq!(output, first, "the same bits from each");
                }
            });
        }
    });
    sessions.pop();
    sessions.push(Session::resident(&artefact, &config()).unwrap());
}

#[test]
fn nan_is_refused_where_the_normalisation_refuses_it() {
    let Some(_alone) = alone() else { return };
    let network = Model::read(model("mlp.onnx")).unwrap();
    let picky = normalization("mlp").non_finite(NonFinite::Refuse);
    let compute_capability = Device::open(0).unwrap().compute_capability();
    let options = ArtefactOptions { compute_capability, ..ArtefactOptions::default() };
    let artefact = Artefact::build(&network, Some(&picky), &Shapes::new(), &options).unwrap();
    let mut session = Session::resident(&artefact, &config()).unwrap();
    let (mut input, mut output) = (random(1, 256), [0.0_f32; 3]);
    session.infer(&input, &mut output).unwrap();
    input[200] = f32::NAN;
    assert_eq!(session.infer(&input, &mut output).unwrap_err().kind(), ErrorKind::NonFiniteInput);
    input[200] = 0.5;
    session.infer(&input, &mut output).unwrap();
    let windows = Some(WindowConfig::new(1, 8));
    let mut windowed = Session::resident(&artefact, &SessionConfig { windows, ..config() }).unwrap();
    input[3] = f32::INFINITY;
    assert_eq!(
        windowed.infer(&input, &mut output).unwrap_err().kind(),
        ErrorKind::NonFiniteInput,
        "beside windows, too"
    );
    let other = SessionConfig { normalizations: Some(vec![normalization("mlp").clamp(-1.0, 1.0)]), ..config() };
    assert_eq!(Session::resident(&artefact, &other).unwrap_err().kind(), ErrorKind::InvalidArgument);
}

#[test]
fn sessions_created_and_dropped_with_a_call_in_flight_leave_memory_where_it_was() {
    let Some((_alone, device)) = alone() else { return };
    let artefact = artefact("mlp");
    let cycle = |number: usize| {
        let mut session = Session::resident(&artefact, &SessionConfig { warm_up: 4, ..config() }).unwrap();
        let mut slot = session.input().unwrap();
        slot.write(0, &random(1, 256)).unwrap();
        slot.submit().unwrap();
        if number.is_multiple_of(2) { drop(session) } else { std::thread::spawn(move || drop(session)).join().unwrap() }
    };
    (0..10).for_each(cycle);
    let free = device.memory().unwrap().free;
    (0..100).for_each(cycle);
    let taken = free.saturating_sub(device.memory().unwrap().free);
    println!("100 cycles: {taken} bytes more on the GPU");
    assert!(taken <= 2 << 20, "{taken} bytes of the GPU's memory");
}

#[test]
fn chain_begins_with_the_resident_engine() {
    let Some(_alone) = alone() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mlp.resident");
    artefact("mlp").write(&path).unwrap();
    let chain = Predictor::builder().resident(&path).tensorrt(engines::plan("mlp")).ort_cpu(model("mlp.onnx"));
    let mut predictor = chain.config(config()).build().unwrap();
    assert_eq!(predictor.active(), BackendKind::Resident, "{:?}", predictor.passed_over());
    assert_eq!(predictor.standing_by(), [BackendKind::TensorRt, BackendKind::OrtCpu]);
    let mut output = [0.0_f32; 3];
    for _ in 0..1000 {
        predictor.infer(&random(1, 256), &mut output).unwrap();
    }
    let alone = Predictor::builder().resident(&path).ort_cpu(model("mlp.onnx")).config(config()).build().unwrap();
    assert_eq!(alone.active(), BackendKind::Resident, "the normalisation is the sidecar's");
}

/// This test's own binary again, as another process: `what` is a role below.
fn another(role: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["role", "--exact", "--nocapture", "--ignored"])
        .env("TICKRT_TEST_ROLE", role)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits for the line `ready`.
fn wait_until_ready(child: &mut Child) {
    use std::io::BufRead;
    let lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.ends_with("ready")), "the other process has ended");
}

/// What `another` runs; nothing by itself.
#[test]
#[ignore = "a part of other tests"]
fn role() {
    match std::env::var("TICKRT_TEST_ROLE").as_deref() {
        Ok("calls") => {
            let mut session = Session::resident(&artefact("mlp"), &config()).unwrap();
            let mut output = [0.0_f32; 3];
            session.infer(&random(1, 256), &mut output).unwrap();
            println!("ready");
            loop {
                session.infer(&random(1, 256), &mut output).unwrap();
            }
        }
        Ok("computes") => {
            let _session = Session::load(engines::plan("mlp")).unwrap();
            println!("ready");
            std::thread::sleep(Duration::from_secs(600));
        }
        _ => {}
    }
}

#[test]
fn host_that_is_killed_leaves_the_gpu_idle() {
    let Some(_alone) = alone() else { return };
    for _ in 0..3 {
        let mut other = another("calls");
        wait_until_ready(&mut other);
        std::thread::sleep(Duration::from_millis(100));
        let killed = Instant::now();
        other.kill().unwrap();
        other.wait().unwrap();
        let ended = killed.elapsed();
        // Works only once nothing of the other's holds the GPU.
        let mut session = Session::resident(&artefact("mlp"), &config()).unwrap();
        session.infer(&random(1, 256), &mut [0.0_f32; 3]).unwrap();
        println!("killed: gone after {ended:?}; another engine answers after {:?}", killed.elapsed());
    }
}

#[test]
fn gpu_on_which_another_process_computes_is_refused_unless_asked_for() {
    let Some(_alone) = alone() else { return };
    let mut other = another("computes");
    wait_until_ready(&mut other);
    let strict = SessionConfig { resident: ResidentConfig::default(), ..config() };
    let artefact = artefact("mlp");
    let refused = Session::resident(&artefact, &strict);
    let shared = Session::resident(&artefact, &config());
    other.kill().unwrap();
    other.wait().unwrap();
    let mut shared = shared.unwrap();
    shared.infer(&random(1, 256), &mut [0.0_f32; 3]).unwrap();
    drop(shared);
    match refused {
        Err(error) => {
            println!("{error}");
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            assert!(error.to_string().contains("other processes"), "{error}");
            or_skip(Session::resident(&artefact, &strict)).expect("alone again");
        }
        Ok(_) => println!("skipped: NVML does not tell this container of other processes"),
    }
}

//! The kernels of resident engines, compiled for the host and run with a fiber for each CUDA thread (`common/emulated.h`):
//! answers against the plain executor, turns that end and are followed by others, calls that come meanwhile. No GPU.

mod common;
#[path = "common/onnx.rs"]
mod onnx;
#[path = "common/probe_dump.rs"]
mod probe_dump;
#[path = "common/random_network.rs"]
mod random_network;

use std::ffi::{CString, c_void};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{model, normalization, root};
use random_network::{Growing, Random, computed};
use tickrt::onnx::Model;
use tickrt::resident::Semantics;
use tickrt::resident::budget::{Hardware, WeightType};
use tickrt::resident::lower;
use tickrt::resident::network::Network;
use tickrt::resident::program::{Asks, BEGINS_ANEW, Options, Program, program_with};
use tickrt::resident::reference::{self, Accumulation};
use tickrt::resident::stream::carry_state;
use tickrt::resident::turn::{INPUT_NEAR, PROGRESS_WORDS, REPORT_WORDS, Turn};
use tickrt::{DataType, Normalization, Normalizer, Shapes, Stats};

type RunTurn = unsafe extern "C" fn(*const Turn, u32, u32, u64) -> u32;

const UNITS: usize = 8192;
const DEPTH: usize = 2;

/// What host and kernel share.
struct Memory {
    constants: Vec<[u64; 2]>,
    input: Vec<AtomicU64>,
    answer: Vec<AtomicU64>,
    /// Whole windows, slot by slot.
    rows: Vec<AtomicU32>,
    state: Vec<AtomicU64>,
    progress: [AtomicU64; PROGRESS_WORDS],
    report: [AtomicU64; REPORT_WORDS],
}

/// A kernel whose turns run on a thread, one behind the other.
struct Emulated {
    memory: Arc<Memory>,
    ends: Arc<AtomicBool>,
    turns: Option<std::thread::JoinHandle<()>>,
    words: usize,
    answers: usize,
    call: u64,
}

fn compile(program: &Program) -> RunTurn {
    let folder = tempfile::tempdir().unwrap();
    let (source, library) = (folder.path().join("kernel.cc"), folder.path().join("kernel.so"));
    let include = |name: &str| {
        format!("#include \"{}\"\n", root().join("tests/common").join(name).canonicalize().unwrap().display())
    };
    let text = include("emulated.h") + &program.source + &include("emulated_run.h");
    std::fs::write(&source, text).unwrap();
    if let Some(kept) = std::env::var_os("TICKRT_KEEP_SOURCE") {
        std::fs::copy(&source, kept).unwrap();
    }
    let compiled = Command::new(std::env::var_os("CXX").unwrap_or_else(|| "c++".into()))
        .args([
            "-std=c++17",
            "-O1",
            "-ffp-contract=off",
            "-fno-strict-aliasing",
            "-shared",
            "-fno-gnu-unique",
            "-fPIC",
            "-Wall",
            "-Wextra",
        ])
        .args([
            "-Werror",
            "-Wno-unknown-pragmas",
            "-Wno-unused-parameter",
            "-Wno-type-limits",
            "-Wno-unused-but-set-variable",
        ])
        .arg(&source)
        .arg("-o")
        .arg(&library)
        .output()
        .unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let path = CString::new(library.to_str().unwrap()).unwrap();
    // SAFETY: opens the library just made, which has no initialisers, and leaves it open.
    unsafe {
        let handle: *mut c_void = libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
        assert!(!handle.is_null());
        let run = libc::dlsym(handle, c"tickrt_run_turn".as_ptr());
        assert!(!run.is_null());
        std::mem::transmute::<*mut c_void, RunTurn>(run)
    }
}

impl Emulated {
    fn start(program: &Program, words: usize, answers: usize, turn: Duration) -> Self {
        Self::start_at(program, words, answers, turn, 1)
    }

    /// Its first call has this number.
    fn start_at(program: &Program, words: usize, answers: usize, limit: Duration, first: u64) -> Self {
        let run = compile(program);
        let unit = |_| AtomicU64::new(0xdead_beef);
        let mut constants = vec![[0_u64; 2]; program.constants.len().div_ceil(16)];
        bytemuck::cast_slice_mut::<_, u8>(&mut constants)[..program.constants.len()]
            .copy_from_slice(&program.constants);
        let memory = Arc::new(Memory {
            constants,
            input: (0..DEPTH * UNITS).map(unit).collect(),
            answer: (0..DEPTH * UNITS).map(unit).collect(),
            rows: (0..DEPTH * UNITS).map(|_| AtomicU32::new(0x7fc0_dead)).collect(),
            state: (0..program.state_bytes.div_ceil(8)).map(|_| AtomicU64::new(u64::MAX)).collect(),
            // Of a grid three blocks have come to the end of a round that the others have left, in a turn before.
            progress: [first, 3, 0, 0, 0, 0].map(AtomicU64::new),
            report: Default::default(),
        });
        let ends = Arc::new(AtomicBool::new(false));
        let (blocks, threads) = (program.blocks * program.clusters, program.threads);
        // As if calls lay in the device's memory, for every second size of grid.
        let near = if program.clusters.is_multiple_of(2) { INPUT_NEAR } else { 0 };
        let (theirs, ended) = (Arc::clone(&memory), Arc::clone(&ends));
        let turns = std::thread::spawn(move || {
            let turn = Turn {
                constants: theirs.constants.as_ptr() as u64,
                input: theirs.input.as_ptr() as u64,
                answer: theirs.answer.as_ptr() as u64,
                progress: theirs.progress.as_ptr() as u64,
                report: theirs.report.as_ptr() as u64,
                limit_ns: limit.as_nanos() as u64,
                state: theirs.state.as_ptr() as u64,
                input_stride: (UNITS * 8) as u32,
                answer_stride: (UNITS * 8) as u32,
                depth: DEPTH as u32,
                flags: near,
                rows: theirs.rows.as_ptr() as u64,
                rows_stride: (UNITS * 4) as u32,
                reserved: 0,
            };
            for seed in 0.. {
                if ended.load(Ordering::Acquire) {
                    break;
                }
                // SAFETY: the library's function, with memory that lives as long as this thread.
                let left = unsafe { run(&raw const turn, blocks, threads, seed) };
                assert_eq!(left, 0, "threads that hang in turn {seed}");
            }
        });
        Self { memory, ends, turns: Some(turns), words, answers, call: first - 1 }
    }

    fn slot(&self, call: u64) -> usize {
        ((call - 1) % DEPTH as u64) as usize
    }

    fn submit(&mut self, words: &[u32]) -> u64 {
        assert_eq!(words.len(), self.words);
        self.call += 1;
        let units = &self.memory.input[self.slot(self.call) * UNITS..];
        for (i, unit) in units.iter().enumerate().take(self.words.next_multiple_of(2)) {
            let word = words.get(i).copied().unwrap_or(0);
            unit.store(self.call << 32 | u64::from(word), Ordering::Release);
        }
        self.call
    }

    fn wait(&self, call: u64) -> Vec<f32> {
        let units = &self.memory.answer[self.slot(call) * UNITS..][..self.answers];
        let until = Instant::now() + Duration::from_secs(60);
        let tag = u64::from((call << 8) as u32);
        let word = |unit: &AtomicU64| {
            let value = unit.load(Ordering::Acquire);
            (value >> 32 == tag).then_some(f32::from_bits(value as u32))
        };
        loop {
            if let Some(answer) = units.iter().map(word).collect::<Option<Vec<f32>>>() {
                return answer;
            }
            assert!(Instant::now() < until, "no answer to call {call}");
            assert!(!self.turns.as_ref().unwrap().is_finished(), "the turns have failed");
            std::thread::yield_now();
        }
    }

    /// `input` as it is handed over.
    fn infer(&mut self, input: &[u8]) -> Vec<f32> {
        let mut words = vec![0_u32; input.len().div_ceil(4)];
        bytemuck::cast_slice_mut(&mut words)[..input.len()].copy_from_slice(input);
        let call = self.submit(&words);
        self.wait(call)
    }

    /// A call of a stream: the newest row, in front of it the number of rows; a whole window lies apart.
    /// `row` bytes each, as they are handed over.
    fn submit_rows(&mut self, rows: &[u8], row: usize) -> u64 {
        if rows.len() > row {
            let slot = self.slot(self.call + 1) * UNITS;
            for (place, word) in self.memory.rows[slot..].iter().zip(words(rows)) {
                place.store(word, Ordering::Release);
            }
        }
        let count = [(rows.len() / row) as u32, 0];
        let words: Vec<u32> = count.into_iter().chain(words(&rows[rows.len() - row..])).collect();
        self.submit(&words)
    }

    /// A call with state: one row.
    fn submit_step(&mut self, row: &[f32], begins_anew: bool) -> u64 {
        let front = [if begins_anew { BEGINS_ANEW } else { 1 }, 0];
        let words: Vec<u32> = front.into_iter().chain(row.iter().map(|x| x.to_bits())).collect();
        self.submit(&words)
    }

    fn wait_for_the_end_of_a_turn(&self) {
        let (turns, started) = (self.report(0), Instant::now());
        while self.report(0) == turns {
            assert!(started.elapsed() < Duration::from_secs(30), "a turn that does not end");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn report(&self, word: usize) -> u64 {
        self.memory.report[word].load(Ordering::Acquire)
    }

    fn stop(&self) {
        let next = self.call + 1;
        let tag = u64::from(next as u32 ^ 0x8000_0000);
        self.memory.input[self.slot(next) * UNITS].store(tag << 32, Ordering::Release);
    }
}

impl Drop for Emulated {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        self.stop();
        let ended = self.turns.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

/// As it is handed over, nothing done to it.
fn untouched(network: &Network, model: &Model) -> Normalizer {
    let input = &model.inputs()[0];
    let shape: Vec<i64> = vec![network.value(network.inputs[0]).count() as i64];
    let tensor = tickrt::TensorInfo { shape: shape.clone(), ..input.clone() };
    Normalizer::new(&Normalization::new(input.name.clone(), DataType::F32), &tensor, &shape, None).unwrap()
}

fn plain(network: &Network, input: &[f32]) -> Vec<f32> {
    reference::run(network, &[input], Accumulation::F64).unwrap().concat()
}

fn difference(one: &[f32], other: &[f32]) -> f32 {
    assert_eq!(one.len(), other.len());
    let largest = other.iter().fold(1.0_f32, |largest, x| largest.max(x.abs()));
    let apart =
        one.iter().zip(other).map(|(a, b)| if a == b || (a.is_nan() && b.is_nan()) { 0.0 } else { (a - b).abs() });
    apart.map(|apart| if apart.is_nan() { f32::INFINITY } else { apart }).fold(0.0, f32::max) / largest
}

/// Answers of the kernel to inputs of several sizes, against the plain executor's.
fn agrees(name: &str, network: &Network, normalizer: &Normalizer, options: Options) {
    let program = match program_with(network, normalizer, Hardware::H100, options) {
        Ok(program) => program,
        Err(error) => panic!("{name}: {error}"),
    };
    let computed = computed(network, options.weights);
    let answers = network.outputs.iter().map(|&id| network.value(id).count()).sum();
    let words = normalizer.input_bytes().div_ceil(4);
    let mut kernel = Emulated::start(&program, words, answers, Duration::from_secs(20));
    let mut random = Random(5);
    for bound in [1.0, 0.1, 4.0] {
        let input: Vec<u8> = match normalizer.input_type() {
            DataType::F32 => bytemuck::cast_slice(&random.floats(normalizer.count(), bound)).to_vec(),
            DataType::F16 => {
                let halves = random.floats(normalizer.count(), bound).into_iter().map(half::f16::from_f32);
                halves.flat_map(half::f16::to_le_bytes).collect()
            }
            _ => (0..normalizer.input_bytes()).map(|_| random.of(0, 255) as u8).collect(),
        };
        let mut normalized = vec![0.0_f32; normalizer.count()];
        // The bytes must lie as their type does.
        let mut aligned = vec![0_u64; input.len().div_ceil(8)];
        bytemuck::cast_slice_mut::<_, u8>(&mut aligned)[..input.len()].copy_from_slice(&input);
        let raw = &bytemuck::cast_slice(&aligned)[..input.len()];
        normalizer.apply(raw, bytemuck::cast_slice_mut(&mut normalized)).unwrap();
        let (got, expected) = (kernel.infer(&input), plain(&computed, &normalized));
        let apart = difference(&got, &expected);
        let (blocks, notes) = (program.blocks, &program.notes);
        assert!(apart < 3e-5, "{name} on {blocks} blocks: {apart}\n{got:?}\n{expected:?}\n{notes:#?}");
    }
}

#[test]
fn models_of_the_zoo_answer_as_the_plain_executor_does() {
    for (name, blocks) in [
        ("identity", None),
        ("mlp_384", Some(16)),
        ("mlp", Some(16)),
        ("toy_cnn", Some(1)),
        ("toy_cnn", Some(8)),
        ("cnn_small", Some(16)),
        ("lstm", None),
        ("lstm_s", None),
        ("deeplob", None),
        ("deeplob", Some(8)),
    ] {
        let started = Instant::now();
        let model = Model::read(model(&format!("{name}.onnx"))).unwrap();
        let network = lower(&model, &Shapes::new()).unwrap();
        agrees(name, &network, &untouched(&network, &model), Options { blocks, ..Options::default() });
        println!("{name} on {blocks:?} blocks: {:.1?}", started.elapsed());
    }
}

/// As trained models take their windows: scaled, features first, as bytes.
#[test]
fn inputs_are_normalised_as_the_scalar_version_does_it() {
    for (name, blocks) in [("toy_cnn", 4), ("mlp", 8), ("mlp", 1), ("cnn_small", 16), ("cnn_small", 2), ("lstm", 1)] {
        let model = Model::read(model(&format!("{name}.onnx"))).unwrap();
        let network = lower(&model, &Shapes::new()).unwrap();
        let shape: Vec<i64> = model.inputs()[0].shape.iter().map(|size| size.abs()).collect();
        let normalizer = Normalizer::new(&normalization(name), &model.inputs()[0], &shape, None).unwrap();
        agrees(name, &network, &normalizer, Options { blocks: Some(blocks), ..Options::default() });
    }
    let model = Model::read(model("mlp_384.onnx")).unwrap();
    let (network, input) = (lower(&model, &Shapes::new()).unwrap(), &model.inputs()[0]);
    for input_type in [DataType::F16, DataType::I16] {
        let normalization = Normalization::new(input.name.clone(), input_type)
            .stats(Stats::PerTensor { mean: [0.25], std: [3.0] })
            .clamp(-0.5, 0.75);
        let normalizer = Normalizer::new(&normalization, input, &input.shape, None).unwrap();
        for asks in [Asks::Each, Asks::First, Asks::All] {
            agrees("mlp_384", &network, &normalizer, Options { blocks: Some(8), asks, ..Options::default() });
        }
    }
}

#[test]
fn random_networks_answer_as_the_plain_executor_does() {
    let mut refused = 0;
    for seed in 0..24_u64 {
        let (bytes, _) = Growing::random(seed * 7 + 1, 1 + seed as usize % 6);
        let model = Model::from_bytes(bytes).unwrap();
        let network = lower(&model, &Shapes::new()).unwrap();
        let normalizer = untouched(&network, &model);
        let blocks = Some([1, 2, 4][seed as usize % 3]);
        for options in [
            Options { blocks, threads: Some(64), stamps: seed % 2 == 0, asks: asks(seed / 3), ..Options::default() },
            Options { weights: in_turn(seed), ..Options::default() },
        ] {
            match program_with(&network, &normalizer, Hardware::H100, options) {
                Ok(program) => {
                    println!("network {seed} on {} blocks: {:?}", program.blocks, program.notes);
                    agrees(&format!("network {seed}"), &network, &normalizer, options);
                }
                Err(error) => {
                    println!("network {seed}: {error}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused <= 12, "{refused} of 48 were refused");
}

/// One or two convolutions and perhaps a pool, of many channels or few, in rows that are whole messages or not.
fn convolutions(seed: u64) -> (Network, Normalizer) {
    let mut random = Random(seed);
    let shapes: [&[usize]; 6] =
        [&[1, 8, 32], &[1, 16, 6, 8], &[1, 4, 9, 12], &[1, 32, 16], &[1, 6, 5, 7], &[1, 1, 16, 16]];
    let mut growing = Growing::new(seed, shapes[seed as usize % shapes.len()]);
    for _ in 0..random.of(1, 2) {
        let channels = growing.shape[1];
        let groups = if channels.is_multiple_of(2) { random.pick(&[1, 1, 2, channels]) } else { 1 };
        let outputs = groups * if groups == channels { 1 } else { random.pick(&[1, 3, 4, 8, 16]) };
        growing.conv_of(groups, outputs);
        if random.chance() {
            growing.pool();
        }
    }
    let model = Model::from_bytes(growing.model()).unwrap();
    let network = lower(&model, &Shapes::new()).unwrap();
    let normalizer = untouched(&network, &model);
    (network, normalizer)
}

#[test]
fn convolutions_answer_as_the_plain_executor_does_however_they_are_shared_out() {
    let mut notes = Vec::new();
    for seed in 0..36_u64 {
        let (network, normalizer) = convolutions(seed);
        let (blocks, threads) = ([1, 2, 4, 8][seed as usize / 2 % 4], [64, 160][seed as usize % 2]);
        let options = Options { blocks: Some(blocks), threads: Some(threads), ..Options::default() };
        agrees(&format!("convolutions {seed}"), &network, &normalizer, options);
        notes.extend(program_with(&network, &normalizer, Hardware::H100, options).unwrap().notes);
    }
    for way in ["4 channels a thread", "8 threads a sum, weights in registers", "1 threads a sum"] {
        assert!(notes.iter().any(|note| note.contains(way)), "no convolution with {way}: {notes:#?}");
    }
}

/// NaN and infinity reach what their windows reach, and nothing else.
#[test]
fn convolutions_hand_on_what_is_not_finite() {
    for seed in 0..6_u64 {
        let (network, normalizer) = convolutions(seed);
        let options = Options { blocks: Some(4), threads: Some(64), ..Options::default() };
        let program = program_with(&network, &normalizer, Hardware::H100, options).unwrap();
        let answers = network.outputs.iter().map(|&id| network.value(id).count()).sum();
        let mut kernel = Emulated::start(&program, normalizer.count(), answers, Duration::from_secs(20));
        for odd in [f32::NAN, f32::INFINITY] {
            let mut input = Random(seed).floats(normalizer.count(), 1.0);
            let middle = input.len() / 2;
            input[middle] = odd;
            let (got, expected) = (kernel.infer(bytemuck::cast_slice(&input)), plain(&network, &input));
            let is_same = |(a, b): (&f32, &f32)| a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() < 1e-4;
            assert!(got.iter().zip(&expected).all(is_same), "{seed}: {got:?}\n{expected:?}\n{:#?}", program.notes);
        }
    }
}

/// Now the one, now the other.
fn in_turn(number: u64) -> WeightType {
    if number.is_multiple_of(2) { WeightType::F32 } else { WeightType::F16 }
}

/// Likewise.
fn asks(number: u64) -> Asks {
    [Asks::First, Asks::Each, Asks::All][number as usize % 3]
}

/// Turns of a few milliseconds, calls at any time: each is answered once, whichever turn it meets.
#[test]
fn calls_across_turns_are_each_answered_once() {
    let model = Model::read(model("mlp_384.onnx")).unwrap();
    let network = lower(&model, &Shapes::new()).unwrap();
    for (blocks, asks) in [(1, Asks::Each), (4, Asks::Each), (4, Asks::First), (4, Asks::All)] {
        let options = Options { blocks: Some(blocks), threads: Some(128), stamps: true, asks, ..Options::default() };
        let program = program_with(&network, &untouched(&network, &model), Hardware::H100, options).unwrap();
        // The wrap of the units' 32 bits is among the calls.
        let first = (1 << 32) - 20;
        let mut kernel = Emulated::start_at(&program, 256, 128, Duration::from_millis(3), first);
        let mut random = Random(11);
        let mut waiting: Vec<(u64, Vec<f32>)> = Vec::new();
        for number in 0..60 {
            let input = random.floats(256, 1.0);
            let call = kernel.submit(bytemuck::cast_slice(&input));
            waiting.push((call, plain(&network, &input)));
            // Sometimes two are on their way.
            while waiting.len() > number % 2 {
                let (call, expected) = waiting.remove(0);
                assert!(difference(&kernel.wait(call), &expected) < 3e-5, "call {call} on {blocks} blocks");
            }
            if number % 7 == 0 {
                std::thread::sleep(Duration::from_millis(random.of(0, 25) as u64));
            }
        }
        let last = waiting.pop();
        last.into_iter().for_each(|(call, expected)| assert!(difference(&kernel.wait(call), &expected) < 3e-5));
        let (turns, next) = (kernel.report(0), kernel.report(1));
        assert!(turns > 2, "{turns} turns");
        assert!(next > first && next <= kernel.call + 1, "{next}");
        assert!(kernel.report(4) + kernel.report(5) > 0, "the stages take time");
        println!("{blocks} blocks: {turns} turns, {} of them met a call", kernel.report(2));
    }
}

/// A stop ends the turn and those behind it, and the next call begins anew.
#[test]
fn stop_ends_turns_at_once_and_the_next_call_is_answered() {
    let model = Model::read(model("mlp_384.onnx")).unwrap();
    let network = lower(&model, &Shapes::new()).unwrap();
    let options = Options { blocks: Some(2), threads: Some(64), stamps: false, ..Options::default() };
    let program = program_with(&network, &untouched(&network, &model), Hardware::H100, options).unwrap();
    let mut kernel = Emulated::start(&program, 256, 128, Duration::from_secs(30));
    let input = Random(3).floats(256, 1.0);
    for round in 1..=3 {
        assert!(difference(&kernel.infer(bytemuck::cast_slice(&input)), &plain(&network, &input)) < 3e-5);
        let stopped = kernel.report(3);
        kernel.stop();
        let started = Instant::now();
        while kernel.report(3) <= stopped + 1 {
            assert!(started.elapsed() < Duration::from_secs(10), "round {round}: the turn goes on");
            std::thread::yield_now();
        }
    }
    assert_eq!(kernel.report(1), 4, "the next call's number");
}

/// The last one perhaps not whole.
fn words(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.chunks(4).map(|bytes| {
        let mut word = [0; 4];
        word[..bytes.len()].copy_from_slice(bytes);
        u32::from_le_bytes(word)
    })
}

/// As a caller hands them over.
fn handed_over(floats: &[f32], input_type: DataType) -> Vec<u8> {
    match input_type {
        DataType::F16 => floats.iter().flat_map(|&x| half::f16::from_f32(x).to_le_bytes()).collect(),
        _ => floats.iter().flat_map(|x| x.to_le_bytes()).collect(),
    }
}

/// A stream of rows, some calls bringing a whole window: each answer is that of the full window from a zero state. Turns of
/// `turn` end meanwhile; the numbers of the calls pass the wrap of their 32 bits.
fn streams(name: &str, network: &Network, normalizer: &Normalizer, options: Options, calls: usize, turn: Duration) {
    let options = Options { semantics: Semantics::Window, ..options };
    let program = match program_with(network, normalizer, Hardware::H100, options) {
        Ok(program) => program,
        Err(error) => panic!("{name}: {error}"),
    };
    let computed = computed(network, options.weights);
    let shape = &network.value(network.inputs[0]).shape;
    let (steps, row) = (shape[0], shape[1..].iter().product::<usize>());
    let answers = network.outputs.iter().map(|&id| network.value(id).count()).sum();
    let row_bytes = row * normalizer.input_type().size();
    let mut kernel = Emulated::start_at(&program, row_bytes.div_ceil(4) + 2, answers, turn, (1 << 32) - 3);
    let mut random = Random(23);
    let mut window: Vec<u8> = Vec::new();
    let mut waiting: Vec<(u64, Vec<f32>)> = Vec::new();
    for number in 0..calls {
        let brings_all = number == 0 || random.of(0, 6) == 0;
        let rows = random.floats(if brings_all { steps * row } else { row }, 1.5);
        let rows = handed_over(&rows, normalizer.input_type());
        window.extend(&rows);
        window.drain(..window.len() - steps * row_bytes);
        let mut normalized = vec![0.0_f32; steps * row];
        normalizer.apply(&window, bytemuck::cast_slice_mut(&mut normalized)).unwrap();
        let call = kernel.submit_rows(&rows, row_bytes);
        waiting.push((call, plain(&computed, &normalized)));
        // Sometimes two are on their way.
        while waiting.len() > number % 2 || (number + 1 == calls && !waiting.is_empty()) {
            let (call, expected) = waiting.remove(0);
            let got = kernel.wait(call);
            let apart = difference(&got, &expected);
            let (blocks, notes) = (program.blocks, &program.notes);
            assert!(apart < 3e-5, "{name} on {blocks} blocks, {number}: {apart}\n{got:?}\n{expected:?}\n{notes:#?}");
        }
        if turn < Duration::from_secs(1) && number % 5 == 0 {
            kernel.wait_for_the_end_of_a_turn();
        }
    }
    let turns = kernel.report(0);
    println!("{name} on {} blocks: {turns} turns", program.blocks);
}

/// `layers` recurrent layers over `[1, steps, features]`, a dense layer on the last step.
fn stacked(is_lstm: bool, [steps, features, layers, units]: [usize; 4]) -> (Network, Normalizer) {
    let mut growing = Growing::new(5, &[1, steps, features]);
    for layer in 0..layers {
        growing.recurrent_of(is_lstm, units, true, layer + 1 < layers);
    }
    growing.matmul();
    let model = Model::from_bytes(growing.model()).unwrap();
    let network = lower(&model, &Shapes::new()).unwrap();
    let normalizer = untouched(&network, &model);
    (network, normalizer)
}

#[test]
fn recurrent_layers_answer_as_the_plain_executor_does_on_any_number_of_blocks() {
    for (is_lstm, sizes) in
        [(true, [5, 7, 2, 36]), (false, [5, 12, 2, 40]), (true, [4, 40, 1, 9]), (false, [3, 6, 1, 3])]
    {
        let (network, normalizer) = stacked(is_lstm, sizes);
        for blocks in [1, 2, 4, 8] {
            for (threads, weights) in [(64, WeightType::F32), (160, WeightType::F32), (96, WeightType::F16)] {
                let (blocks, threads) = (Some(blocks), Some(threads));
                let options = Options { blocks, threads, weights, ..Options::default() };
                agrees(&format!("{sizes:?} {options:?}"), &network, &normalizer, options);
            }
        }
    }
}

/// Units that are not all of a block's or a warp's, one and several a warp, inputs of more than a warp's lanes take, odd numbers.
#[test]
fn streams_are_answered_by_grids_as_their_windows() {
    let turn = Duration::from_secs(20);
    for (is_lstm, sizes, blocks, threads) in [
        (true, [5, 7, 2, 37], 3, 128),
        (false, [5, 36, 2, 40], 5, 256),
        (true, [4, 40, 1, 9], 2, 64),
        (false, [2, 6, 3, 3], 1, 64),
        (true, [2, 5, 1, 150], 4, 192),
        (true, [3, 131, 4, 20], 20, 64),
    ] {
        let (network, normalizer) = stacked(is_lstm, sizes);
        let (blocks, threads) = (Some(blocks), Some(threads));
        let options =
            Options { blocks, threads, weights: WeightType::F16, on_grid: true, stamps: true, ..Options::default() };
        streams(&format!("{sizes:?}"), &network, &normalizer, options, 8, turn);
    }
}

#[test]
fn grids_have_as_few_blocks_as_their_units_take_and_no_more_than_there_are_multiprocessors() {
    let (network, normalizer) = stacked(true, [3, 8, 1, 100]);
    let options =
        Options { semantics: Semantics::Window, weights: WeightType::F16, on_grid: true, ..Options::default() };
    for (multiprocessors, blocks, expected) in
        [(132, None, 13), (13, None, 13), (12, None, 7), (8, None, 7), (132, Some(120), 13), (132, Some(5), 5)]
    {
        let hardware = Hardware { multiprocessors, ..Hardware::H100 };
        let program = program_with(&network, &normalizer, hardware, Options { blocks, ..options }).unwrap();
        assert_eq!((program.blocks, program.clusters), (1, expected), "{multiprocessors} multiprocessors, {blocks:?}");
    }
    let refused = |options| program_with(&network, &normalizer, Hardware::H100, options).unwrap_err().to_string();
    let whole = refused(Options { semantics: Semantics::Whole, ..options });
    assert!(whole.contains("weights in half precision and window semantics"), "{whole}");
    let few = refused(Options { blocks: Some(1), ..options });
    assert!(few.contains("100 units on 1 blocks of 256 threads"), "{few}");
}

#[test]
fn turns_of_grids_that_end_leave_the_window_to_the_next() {
    for (is_lstm, blocks, layers) in [(true, 1, 2), (true, 4, 2), (false, 2, 2), (true, 4, 1)] {
        let (network, normalizer) = stacked(is_lstm, [3, 36, layers, 36]);
        let (blocks, threads) = (Some(blocks), Some(192));
        let options = Options { blocks, threads, weights: WeightType::F16, on_grid: true, ..Options::default() };
        streams("short turns", &network, &normalizer, options, 30, Duration::from_millis(4));
    }
}

/// Blocks with fewer rows than others and with none, halos on either side or both, planes side by side.
#[test]
fn planes_in_bands_answer_as_the_plain_executor_does() {
    let count = std::env::var("TICKRT_TEST_NETWORKS").map_or(24, |count| count.parse().unwrap());
    let (mut done, mut cores) = (0, 0_u64);
    for seed in 0..count {
        let (bytes, _) = Growing::in_bands(seed);
        let model = Model::from_bytes(bytes).unwrap();
        let network = lower(&model, &Shapes::new()).unwrap();
        let blocks = [16, 8, 4, 2][seed as usize % 4];
        let options = Options { blocks: Some(blocks), in_bands: true, ..Options::default() };
        let normalizer = untouched(&network, &model);
        match program_with(&network, &normalizer, Hardware::H100, options) {
            Ok(program) => {
                done += 1;
                cores += program.notes.iter().filter(|note| note.ends_with("warps") || note.contains("warps,")).count()
                    as u64;
            }
            Err(error) => {
                println!("{seed} on {blocks} blocks: {error}");
                continue;
            }
        }
        agrees(&format!("seed {seed}"), &network, &normalizer, options);
    }
    println!("{done} of {count} networks, {cores} convolutions by tensor cores");
    assert!(
        done * 2 > count && cores * 3 > count,
        "{done} of {count} went in bands, {cores} convolutions by tensor cores"
    );
}

#[test]
fn streams_of_rows_are_answered_as_their_windows() {
    let turn = Duration::from_secs(20);
    for (is_lstm, sizes) in
        [(true, [5, 7, 2, 36]), (false, [5, 36, 2, 40]), (true, [4, 40, 1, 9]), (false, [2, 6, 3, 3])]
    {
        let (network, normalizer) = stacked(is_lstm, sizes);
        for (number, (blocks, threads)) in [(1, 64), (2, 64), (4, 96), (8, 64)].into_iter().enumerate() {
            let asks = asks(number as u64 + u64::from(is_lstm));
            let weights = in_turn(number as u64 / 2 + u64::from(is_lstm));
            let (blocks, threads) = (Some(blocks), Some(threads));
            let options = Options { blocks, threads, weights, stamps: true, asks, ..Options::default() };
            streams(&format!("{sizes:?}"), &network, &normalizer, options, 8, turn);
        }
    }
}

/// Or block 0, two calls further, would write over what a block that sends nothing has not read. What costs nothing elsewhere: where every
/// block has a share, block 0 waits for it anyhow.
#[test]
fn blocks_without_a_share_acknowledge_each_call_and_others_need_not() {
    let acknowledges = |network: &Network, normalizer: &Normalizer, blocks, semantics| {
        let options = Options { blocks: Some(blocks), semantics, ..Options::default() };
        let program = program_with(network, normalizer, Hardware::H100, options).unwrap();
        program.notes.iter().any(|note| note.contains("say that they are through"))
    };
    let (small, of_small) = stacked(false, [1, 6, 1, 3]);
    for blocks in [1, 2, 8] {
        agrees("small", &small, &of_small, Options { blocks: Some(blocks), threads: Some(64), ..Options::default() });
    }
    for (name, blocks, semantics) in [
        ("identity", 1, Semantics::Whole),
        ("mlp_384", 16, Semantics::Whole),
        ("mlp", 16, Semantics::Whole),
        ("toy_cnn", 16, Semantics::Whole),
        ("cnn_small", 16, Semantics::Whole),
        ("lstm_s", 16, Semantics::Whole),
        ("lstm_a", 16, Semantics::Window),
    ] {
        let model = Model::read(model(&format!("{name}.onnx"))).unwrap();
        let network = lower(&model, &Shapes::new()).unwrap();
        assert!(!acknowledges(&network, &untouched(&network, &model), blocks, semantics), "{name}");
    }
    let mut growing = Growing::new(9, &[1, 20]);
    growing.matmul();
    growing.matmul();
    let narrow = Model::from_bytes(growing.model()).unwrap();
    let network = lower(&narrow, &Shapes::new()).unwrap();
    let normalizer = untouched(&network, &narrow);
    for blocks in [2, 4, 8] {
        assert!(acknowledges(&network, &normalizer, blocks, Semantics::Whole), "{blocks} blocks");
        let options = Options { blocks: Some(blocks), threads: Some(64), ..Options::default() };
        agrees("narrow", &network, &normalizer, options);
        // Two on their way.
        let program = program_with(&network, &normalizer, Hardware::H100, options).unwrap();
        let answers = network.value(network.outputs[0]).count();
        let mut kernel = Emulated::start(&program, 20, answers, Duration::from_secs(20));
        let inputs: Vec<Vec<f32>> = (0..9).map(|seed| Random(seed + 1).floats(20, 1.0)).collect();
        let mut before = None;
        for input in &inputs {
            let call = kernel.submit(bytemuck::cast_slice(input));
            if let Some((call, input)) = before.replace((call, input)) {
                assert!(
                    difference(&kernel.wait(call), &plain(&network, input)) < 3e-5,
                    "call {call} on {blocks} blocks"
                );
            }
        }
    }
}

/// Two recurrent layers side by side over `[1, steps, features]`, and a wide answer.
fn side_by_side(steps: usize, features: usize) -> (Network, Normalizer) {
    let mut growing = Growing::new(6, &[1, steps, features]);
    let (input, shape) = (growing.last.clone(), growing.shape.clone());
    growing.recurrent_of(true, 24, true, false);
    let one = growing.last.clone();
    (growing.last, growing.shape) = (input, shape);
    growing.recurrent_of(false, 20, true, false);
    let node = growing.node("Concat", &[&one]).with("axis", 2_i64);
    growing.add(node);
    growing.shape = vec![1, 1, 44];
    let model = Model::from_bytes(growing.model()).unwrap();
    let network = lower(&model, &Shapes::new()).unwrap();
    let normalizer = untouched(&network, &model);
    (network, normalizer)
}

/// State carried from row to row, now and then begun anew: each answer is that of all rows since then. `of_steps` makes the network of a
/// window of so many rows. Turns of `turn` end meanwhile.
fn carries_state(of_steps: impl Fn(usize) -> (Network, Normalizer), options: Options, calls: usize, turn: Duration) {
    let options = Options { semantics: Semantics::Stateful, ..options };
    let ((network, _), (_, of_row)) = (of_steps(4), of_steps(1));
    let program = program_with(&network, &of_row, Hardware::H100, options).unwrap();
    let (name, features) = (format!("{:#?} on {} blocks", program.notes, program.blocks), of_row.count());
    assert_eq!(program.semantics, Semantics::Stateful);
    let answers = network.outputs.iter().map(|&id| network.value(id).count()).sum();
    let mut kernel = Emulated::start_at(&program, features + 2, answers, turn, (1 << 32) - 3);
    let mut random = Random(29);
    let mut rows: Vec<f32> = Vec::new();
    let mut waiting: Vec<(u64, Vec<f32>)> = Vec::new();
    for number in 0..calls {
        let begins_anew = number == 0 || random.of(0, 4) == 0;
        if begins_anew {
            rows.clear();
        }
        let row = random.floats(features, 1.5);
        rows.extend(&row);
        let call = kernel.submit_step(&row, begins_anew);
        waiting.push((call, plain(&computed(&of_steps(rows.len() / features).0, options.weights), &rows)));
        // Sometimes two are on their way.
        while waiting.len() > number % 2 || (number + 1 == calls && !waiting.is_empty()) {
            let (call, expected) = waiting.remove(0);
            let got = kernel.wait(call);
            let apart = difference(&got, &expected);
            assert!(apart < 3e-5, "{name}, {number}: {apart}\n{got:?}\n{expected:?}");
        }
        if turn < Duration::from_secs(1) && number % 5 == 0 {
            kernel.wait_for_the_end_of_a_turn();
        }
    }
    println!("{name}: {} turns", kernel.report(0));
}

#[test]
fn state_is_carried_from_row_to_row() {
    let (mut outputs, mut cells) = (0, 0);
    for (is_lstm, [features, layers, units]) in
        [(true, [7, 2, 36]), (false, [36, 2, 40]), (true, [40, 1, 9]), (false, [6, 3, 3]), (true, [12, 1, 64])]
    {
        let of_steps = |steps| stacked(is_lstm, [steps, features, layers, units]);
        let states = carry_state(&of_steps(4).0, 0).unwrap().states;
        let is_given = |initial: &[f32]| usize::from(initial.iter().any(|&x| x != 0.0));
        outputs += states.iter().map(|state| is_given(&state.initial)).sum::<usize>();
        cells += states.iter().flat_map(|state| &state.initial_cell).map(|cell| is_given(cell)).sum::<usize>();
        for (number, (blocks, threads)) in [(1, 64), (2, 64), (4, 96), (8, 64)].into_iter().enumerate() {
            let asks = asks(number as u64 + u64::from(is_lstm));
            let weights = in_turn(number as u64 / 2 + u64::from(is_lstm));
            let (blocks, threads) = (Some(blocks), Some(threads));
            let options = Options { blocks, threads, weights, stamps: true, asks, ..Options::default() };
            carries_state(of_steps, options, 12, Duration::from_secs(20));
        }
    }
    assert!(outputs > 1 && cells > 1, "{outputs} initial outputs and {cells} initial cells are given");
}

#[test]
fn states_side_by_side_and_answers_of_several_blocks_are_kept() {
    for (blocks, asks) in [(1, Asks::First), (4, Asks::First), (4, Asks::Each), (8, Asks::First), (4, Asks::All)] {
        let options = Options { blocks: Some(blocks), threads: Some(64), asks, ..Options::default() };
        carries_state(|steps| side_by_side(steps, 9), options, 10, Duration::from_secs(20));
    }
}

#[test]
fn turns_that_end_leave_the_state_to_the_next() {
    for (is_lstm, blocks, asks) in [
        (true, 1, Asks::First),
        (true, 4, Asks::First),
        (false, 2, Asks::First),
        (true, 4, Asks::Each),
        (true, 2, Asks::All),
    ] {
        let options = Options { blocks: Some(blocks), threads: Some(64), asks, ..Options::default() };
        carries_state(|steps| stacked(is_lstm, [steps, 36, 2, 36]), options, 30, Duration::from_millis(4));
    }
}

/// Or the host would write the next call over one that a block has not seen, which no answer waits for.
#[test]
fn blocks_that_no_answer_waits_for_do_not_look_for_all_of_a_call() {
    let (small, of_small) = stacked(true, [4, 6, 1, 20]);
    let model = Model::read(model("mlp_384.onnx")).unwrap();
    let large = lower(&model, &Shapes::new()).unwrap();
    let of_large = untouched(&large, &model);
    // What is computed ahead brings its products from all blocks, but not in time.
    let (uneven, of_uneven) = stacked(true, [4, 6, 2, 100]);
    for (network, normalizer, semantics, all) in [
        (&uneven, &of_uneven, Semantics::Window, false),
        (&large, &of_large, Semantics::Whole, true),
        (&small, &of_small, Semantics::Whole, true),
        (&small, &of_small, Semantics::Window, false),
    ] {
        let options = Options { blocks: Some(16), semantics, asks: Asks::All, ..Options::default() };
        let program = program_with(network, normalizer, Hardware::H100, options).unwrap();
        let looks = program.notes.iter().any(|note| note.ends_with("units of input, each block all of them"));
        assert_eq!(looks, all, "{:#?}", program.notes);
    }
}

/// As trained models take their rows: scaled, clamped.
#[test]
fn streams_of_rows_are_normalised_row_by_row() {
    let model = Model::read(model("lstm.onnx")).unwrap();
    let network = lower(&model, &Shapes::new()).unwrap();
    let shape: Vec<i64> = model.inputs()[0].shape.iter().map(|size| size.abs()).collect();
    let normalizer = Normalizer::new(&normalization("lstm"), &model.inputs()[0], &shape, None).unwrap();
    for blocks in [1, 4] {
        let options = Options { blocks: Some(blocks), ..Options::default() };
        streams("lstm", &network, &normalizer, options, 5, Duration::from_secs(20));
    }
    let per_row = (0..shape[1]).map(|row| 1.0 + row as f64).collect::<Vec<_>>();
    let stats = Stats::PerChannel { mean: per_row.clone(), std: per_row };
    let normalization = Normalization::new(model.inputs()[0].name.clone(), DataType::F32).stats(stats);
    let normalizer = Normalizer::new(&normalization, &model.inputs()[0], &shape, None).unwrap();
    let options = Options { semantics: Semantics::Window, ..Options::default() };
    let refused = program_with(&network, &normalizer, Hardware::H100, options).unwrap_err().to_string();
    assert!(refused.contains("another mean or deviation for row 1"), "{refused}");
}

#[test]
fn streams_of_large_networks_are_answered_as_their_windows() {
    let model = Model::read(model("lstm_a.onnx")).unwrap();
    let network = lower(&model, &Shapes::new()).unwrap();
    let normalizer = untouched(&network, &model);
    // More fibers take minutes.
    let options = Options { blocks: Some(16), threads: Some(32), ..Options::default() };
    streams("lstm_a", &network, &normalizer, options, 3, Duration::from_secs(50));
}

/// Windows along the first dimension of whatever a random network takes.
#[test]
fn streams_of_random_networks_are_answered_as_their_windows() {
    let mut answered = 0;
    for seed in 0..40_u64 {
        let (bytes, _) = Growing::random(seed * 11 + 2, 1 + seed as usize % 5);
        let model = Model::from_bytes(bytes).unwrap();
        let network = lower(&model, &Shapes::new()).unwrap();
        let normalizer = untouched(&network, &model);
        let options = Options {
            blocks: Some([1, 2, 4][seed as usize % 3]),
            threads: Some(64),
            semantics: Semantics::Window,
            ..Options::default()
        };
        match program_with(&network, &normalizer, Hardware::H100, options) {
            Ok(_) => {
                streams(&format!("network {seed}"), &network, &normalizer, options, 4, Duration::from_secs(20));
                answered += 1;
            }
            Err(error) => println!("network {seed}: {error}"),
        }
    }
    assert!(answered >= 15, "{answered} of 40 were answered");
}

/// Rows of an odd number of halves: those of a whole window do not begin at words.
#[test]
fn streams_of_halves_are_answered_as_their_windows() {
    for (sizes, blocks) in [([4, 7, 1, 5], 1), ([4, 35, 1, 36], 4)] {
        let mut growing = Growing::new(7, &[1, sizes[0], sizes[1]]);
        growing.recurrent_of(true, sizes[3], true, false);
        let model = Model::from_bytes(growing.model()).unwrap();
        let network = lower(&model, &Shapes::new()).unwrap();
        let input = &model.inputs()[0];
        let normalization = Normalization::new(input.name.clone(), DataType::F16).clamp(-1.0, 1.25);
        let normalizer = Normalizer::new(&normalization, input, &input.shape, None).unwrap();
        let options = Options { blocks: Some(blocks), threads: Some(64), ..Options::default() };
        streams("halves", &network, &normalizer, options, 10, Duration::from_secs(20));
    }
}

#[test]
fn turns_that_end_leave_the_window_to_the_next() {
    for (is_lstm, blocks, asks) in
        [(true, 1, Asks::Each), (true, 4, Asks::First), (false, 2, Asks::Each), (true, 8, Asks::All)]
    {
        let (network, normalizer) = stacked(is_lstm, [3, 36, 2, 36]);
        let options = Options { blocks: Some(blocks), threads: Some(64), asks, ..Options::default() };
        streams("short turns", &network, &normalizer, options, 30, Duration::from_millis(4));
    }
}

/// A window's answer has the same bits whether its rows came one by one, and went through it beside others, or all at once. Streams longer than
/// their windows, some turns ending within.
#[test]
fn windows_side_by_side_have_the_bits_of_windows_that_came_whole() {
    for (is_lstm, sizes, blocks, threads, weights) in [
        (true, [5, 7, 2, 36], 2, 96, WeightType::F32),
        (true, [9, 33, 3, 20], 1, 128, WeightType::F16),
        (true, [4, 6, 2, 90], 4, 128, WeightType::F32),
        // More windows than threads have at a time.
        (true, [14, 5, 2, 20], 1, 128, WeightType::F32),
        (false, [11, 5, 3, 36], 2, 96, WeightType::F32),
        (false, [6, 12, 2, 18], 4, 64, WeightType::F32),
        (false, [3, 5, 1, 3], 8, 64, WeightType::F16),
    ] {
        let (network, normalizer) = stacked(is_lstm, sizes);
        let semantics = Semantics::Window;
        let (blocks, threads) = (Some(blocks), Some(threads));
        let options = Options { blocks, threads, weights, semantics, ..Options::default() };
        let program = program_with(&network, &normalizer, Hardware::H100, options).unwrap();
        let [steps, row, ..] = sizes;
        let ahead = format!("ahead: {} windows one row further", steps - 1);
        assert!(program.notes[0].starts_with(&ahead), "{:?}", program.notes);
        let answers = network.value(network.outputs[0]).count();
        let start = |turn| Emulated::start(&program, row + 2, answers, turn);
        let (mut by_rows, mut whole) = (start(Duration::from_millis(20)), start(Duration::from_secs(20)));
        let rows = Random(29).floats(row * 3 * steps, 1.5);
        let bytes: &[u8] = bytemuck::cast_slice(&rows);
        for (number, window) in rows.windows(steps * row).step_by(row).enumerate() {
            let newest = &bytes[..(number + steps) * row * 4];
            let taken = if number == 0 { steps } else { 1 };
            let calls = [
                by_rows.submit_rows(&newest[newest.len() - taken * row * 4..], row * 4),
                whole.submit_rows(bytemuck::cast_slice(window), row * 4),
            ];
            let got = [by_rows.wait(calls[0]), whole.wait(calls[1])]
                .map(|answer| answer.into_iter().map(f32::to_bits).collect::<Vec<_>>());
            assert_eq!(got[0], got[1], "{sizes:?}, window {number}");
            if number % 4 == 1 {
                by_rows.wait_for_the_end_of_a_turn();
            }
        }
        assert!(by_rows.report(0) > 1, "no turn has ended");
    }
}

/// Where a block has more units than fours of threads, what is computed ahead goes step by step through one window.
#[test]
fn windows_of_more_units_than_threads_are_computed_one_by_one() {
    let (network, normalizer) = stacked(true, [4, 6, 1, 40]);
    let options = Options { blocks: Some(1), threads: Some(128), semantics: Semantics::Window, ..Options::default() };
    let program = program_with(&network, &normalizer, Hardware::H100, options).unwrap();
    assert!(program.notes[0].starts_with("ahead: LSTM of 40 units, 3 steps"), "{:?}", program.notes);
    streams("one by one", &network, &normalizer, options, 8, Duration::from_secs(20));
}

/// What the stages took in all on an H100, in cycles (`benches/record/h100/2026-11-27c-resident.md`; deeplob: `2026-11-27e-resident.md`).
#[test]
fn guesses_are_near_what_was_measured() {
    for (name, semantics, measured) in [
        ("mlp_384", Semantics::Whole, 3111),
        ("mlp", Semantics::Whole, 4247),
        ("toy_cnn", Semantics::Whole, 3780),
        ("cnn_small", Semantics::Whole, 7277),
        ("lstm_s", Semantics::Whole, 27_700),
        ("lstm_a", Semantics::Window, 2903),
        ("deeplob", Semantics::Whole, 121_700),
    ] {
        let model = Model::read(model(&format!("{name}.onnx"))).unwrap();
        let network = lower(&model, &Shapes::new()).unwrap();
        let options = Options { semantics, ..Options::default() };
        let program = program_with(&network, &untouched(&network, &model), Hardware::H100, options).unwrap();
        let apart = program.predicted_cycles as f64 / f64::from(measured) - 1.0;
        assert!(apart.abs() < 0.15, "{name}: {} cycles, {:+.0} %", program.predicted_cycles, apart * 100.0);
    }
}

/// Not a test of anything: writes what benches/probes/engine.cu runs on a GPU into the folder that TICKRT_DUMP names. Models
/// that are not in the zoo (lstm_b, lstm_c) are looked for in TICKRT_DUMP_MODELS; models/seeded.py makes them. TICKRT_DUMP_ONLY: engines of
/// one model.
#[test]
#[ignore = "writes files for benches/probes/engine.cu"]
fn dump_for_the_probe() {
    let Some(folder) = std::env::var_os("TICKRT_DUMP") else {
        return println!("TICKRT_DUMP names no folder: nothing written");
    };
    let others = std::path::PathBuf::from(std::env::var_os("TICKRT_DUMP_MODELS").unwrap_or_default());
    let mut dump = probe_dump::Dump::new(folder.as_ref());
    let only = std::env::var("TICKRT_DUMP_ONLY").ok();
    let is_wanted = |name: &str| only.as_ref().is_none_or(|only| only == name);
    let path = |name: &str| {
        let file = format!("{name}.onnx");
        if model(&file).exists() { model(&file) } else { others.join(file) }
    };
    for name in ["identity", "mlp_384", "mlp", "toy_cnn", "cnn_small", "lstm_a", "lstm_b", "lstm_s", "deeplob"] {
        if is_wanted(name) {
            dump.whole(name, &path(name), None, None);
        }
    }
    for (name, threads) in [("mlp_384", 256), ("mlp", 256), ("mlp", 384), ("toy_cnn", 256)] {
        if is_wanted(name) {
            dump.whole(&format!("{name}_of_{threads}"), &path(name), None, Some(threads));
        }
    }
    for (name, sizes) in [("lstm_a", &[4, 8, 16][..]), ("lstm_b", &[8, 16]), ("lstm_s", &[1, 4, 8]), ("deeplob", &[16])]
    {
        for &blocks in sizes.iter().filter(|_| is_wanted(name)) {
            dump.window(&format!("{name}_window_{blocks}"), &path(name), Some(blocks), (WeightType::F32, 400));
        }
    }
    if is_wanted("lstm_c") {
        dump.window("lstm_c_grid", &path("lstm_c"), None, (WeightType::F16, 1500));
    }
}

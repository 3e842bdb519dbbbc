//! What the parts of a call cost: `cargo bench --bench stages`. Needs ONNX Runtime (`scripts/setup`) and `models/`; the parts
//! on the GPU are measured where TensorRT and a GPU are, on `$TICKRT_BENCH_ENGINE` (models/mlp.engine without).

use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use tickrt::backend::ort::OrtBackend;
use tickrt::backend::tensorrt::testing::session_without_network;
use tickrt::onnx::Model;
use tickrt::{Engine, Normalization, Normalizer, Session, SessionConfig, WindowConfig};

const WINDOW: usize = 256;
const ROW: usize = 8;

fn normalization() -> Normalization {
    Normalization::read("models/toy_cnn.normalization.json").expect("run it in the repository")
}

fn session() -> Session {
    let config = SessionConfig {
        normalizations: Some(vec![normalization()]),
        windows: Some(WindowConfig::new(4000, ROW)),
        ..SessionConfig::default()
    };
    let model = Model::read("models/toy_cnn.onnx").expect("run it in the repository");
    let backend = OrtBackend::cpu(&model, &config).expect("ONNX Runtime: run scripts/setup");
    Session::start(Box::new(backend), &config).expect("a session")
}

fn window() -> Vec<f32> {
    (0..WINDOW).map(|i| (i as f32 * 0.37).sin()).collect()
}

fn normalize(c: &mut Criterion) {
    let model = Model::read("models/toy_cnn.onnx").expect("run it in the repository");
    let tensor = &model.inputs()[0];
    let normalizer = Normalizer::new(&normalization(), tensor, &tensor.shape, None).expect("they belong together");
    let (input, mut output) = (window(), vec![0.0_f32; WINDOW]);
    c.bench_function("normalise 256 f32, scalar", |b| {
        b.iter(|| normalizer.apply(bytemuck::cast_slice(&input), bytemuck::cast_slice_mut(&mut output)));
    });
}

fn normalize_image(c: &mut Criterion) {
    const PIXELS: usize = 1024;
    let normalization = Normalization::read("models/cnn_small.normalization.json").expect("run it in the repository");
    let model = Model::read("models/cnn_small.onnx").expect("run it in the repository");
    let tensor = &model.inputs()[0];
    let normalizer = Normalizer::new(&normalization, tensor, &tensor.shape, None).expect("they belong together");
    let (input, mut output) = (vec![100_u8; PIXELS], vec![0.0_f32; PIXELS]);
    c.bench_function("normalise 1024 u8, scalar", |b| {
        b.iter(|| normalizer.apply(&input, bytemuck::cast_slice_mut(&mut output)));
    });
}

fn slot(c: &mut Criterion) {
    let (mut session, input) = (session(), window());
    c.bench_function("lend a slot and write 256 f32", |b| {
        b.iter(|| session.input().and_then(|mut slot| slot.write(0, &input)));
    });
}

fn push(c: &mut Criterion) {
    let (mut session, input) = (session(), window());
    let mut symbol = 0;
    c.bench_function("push a row of 8 f32, 4000 symbols by turns", |b| {
        b.iter(|| {
            symbol = if symbol == 3999 { 0 } else { symbol + 1 };
            session.push(symbol, &input[..ROW])
        });
    });
}

fn calls(c: &mut Criterion) {
    let (mut session, input) = (session(), window());
    let mut scores = [0.0_f32; 3];
    c.bench_function("infer toy_cnn, ONNX Runtime on 1 CPU thread", |b| {
        b.iter(|| session.infer(&input, &mut scores));
    });
    for row in input.chunks_exact(ROW) {
        session.push(7, row).expect("a known symbol");
    }
    c.bench_function("push, submit a window and wait, the same", |b| {
        b.iter(|| {
            session.push(7, &input[..ROW])?;
            let ticket = session.submit_window(7)?;
            session.wait(ticket, &mut scores)
        });
    });
}

/// The engine to take apart, if there is one and it starts.
fn engine() -> Option<Engine> {
    let path = std::env::var("TICKRT_BENCH_ENGINE").unwrap_or_else(|_| "models/mlp.engine".into());
    Engine::load(&path).inspect_err(|error| eprintln!("the stages on the GPU are left out: {error}")).ok()
}

/// From a point of a call to a later one, over many calls.
fn between(session: &mut Session, calls: u64, from: Point, to: Point) -> Duration {
    let input = vec![0.1_f32; session.signature().shapes[0].inputs[0].count()];
    let mut output = vec![0.0_f32; session.signature().shapes[0].outputs[0].count];
    let mut total = Duration::ZERO;
    for _ in 0..calls {
        let mut at = [Instant::now(); 4];
        let mut slot = session.input().expect("a free slot");
        slot.write(0, &input).expect("the network's input");
        at[Point::Written as usize] = Instant::now();
        let ticket = slot.submit().expect("a launch");
        at[Point::Submitted as usize] = Instant::now();
        session.wait(ticket, &mut output).expect("an answer");
        at[Point::Answered as usize] = Instant::now();
        total += at[to as usize] - at[from as usize];
    }
    total
}

#[derive(Clone, Copy)]
enum Point {
    Begun,
    Written,
    Submitted,
    Answered,
}

fn gpu(c: &mut Criterion) {
    let Some(engine) = engine() else { return };
    // The network's own input: every engine takes it.
    let config = SessionConfig { normalizations: Some(vec![]), ..SessionConfig::default() };
    let ahead = SessionConfig { launch_ahead: Some(Duration::from_millis(50)), ..config.clone() };
    let sessions = [
        ("session", engine.session(&config)),
        ("launched ahead", engine.session(&ahead)),
        ("without the network", session_without_network(&engine, &config)),
        ("without the network, launched ahead", session_without_network(&engine, &ahead)),
    ];
    for (name, session) in sessions {
        let mut session = session.expect("a session");
        for (stage, from, to) in [
            ("slot write", Point::Begun, Point::Written),
            ("submit", Point::Written, Point::Submitted),
            ("submitted to answered", Point::Submitted, Point::Answered),
            ("whole call", Point::Begun, Point::Answered),
        ] {
            c.bench_function(&format!("{name}: {stage}"), |b| {
                b.iter_custom(|calls| between(&mut session, calls, from, to));
            });
        }
    }
    c.bench_function("FFI: one call into C++", |b| b.iter(|| std::hint::black_box(engine.layer_count())));
}

criterion_group!(stages, gpu, normalize, normalize_image, slot, push, calls);
criterion_main!(stages);

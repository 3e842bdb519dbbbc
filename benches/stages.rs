//! What the parts of a call cost on the host: `cargo bench --bench stages`. Needs ONNX Runtime (`scripts/setup`) and
//! `models/`; what the GPU adds is measured by `tickrt bench`.

use criterion::{Criterion, criterion_group, criterion_main};
use tickrt::backend::ort::OrtBackend;
use tickrt::onnx::Model;
use tickrt::{Normalization, Normalizer, Session, SessionConfig, WindowConfig};

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

criterion_group!(stages, normalize, normalize_image, slot, push, calls);
criterion_main!(stages);

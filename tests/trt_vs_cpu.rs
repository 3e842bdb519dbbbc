//! TensorRT against ONNX Runtime on the CPU, on every test window; and what only a GPU can show. Without a GPU these
//! tests say so and pass, unless TRT_CI=1.
mod common;
#[path = "common/engines.rs"]
mod engines;

use std::time::{Duration, Instant};

use common::{model, npy};
use tickrt::{
    BackendKind, BuilderConfig, Device, Engine, ErrorKind, OptimizationProfile, Plan, Predictor, Session,
    SessionConfig, Shapes, WindowConfig,
};

/// Raw inputs of a model, one after the other.
enum Samples {
    F32(Vec<f32>),
    U8(Vec<u8>),
}

impl Samples {
    fn of(name: &str) -> Self {
        match name {
            "cnn_small" => Self::U8(npy(model("data/nasdaq_images32.npy")).0),
            "cnn_large" => Self::U8(npy(model("data/nasdaq_images128.npy")).0),
            _ => Self::F32(npy(model("data/nasdaq_windows.npy")).0),
        }
    }

    fn len(&self, elements: usize) -> usize {
        match self {
            Self::F32(data) => data.len() / elements,
            Self::U8(data) => data.len() / elements,
        }
    }

    fn infer(&self, session: &mut Session, elements: usize, number: usize) -> [f32; 3] {
        let range = number * elements..(number + 1) * elements;
        let mut out = [0.0_f32; 3];
        match self {
            Self::F32(data) => session.infer(&data[range], &mut out),
            Self::U8(data) => session.infer(&data[range], &mut out),
        }
        .unwrap_or_else(|error| panic!("sample {number}: {error}"));
        out
    }
}

fn top(scores: [f32; 3]) -> usize {
    (0..3).max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap()
}

/// Every sample on both; the largest difference, and how often the classes agree.
fn compare(name: &str, engine: &Engine, limit: usize) -> (f32, f64) {
    let mut session = engine.session(&SessionConfig::default()).unwrap();
    assert!(session.is_graph(), "{name}: {:?}", session.why_no_graph());
    let mut reference = engines::reference(name, &SessionConfig { cpu_threads: 0, ..SessionConfig::default() });
    let samples = Samples::of(name);
    let elements = session.signature().shapes[0].inputs[0].count();
    let count = samples.len(elements).min(limit);
    assert!(count > 0);
    let (mut worst, mut agree) = (0.0_f32, 0);
    for number in 0..count {
        let got = samples.infer(&mut session, elements, number);
        let expected = samples.infer(&mut reference, elements, number);
        worst = got.iter().zip(expected).map(|(got, expected)| (got - expected).abs()).fold(worst, f32::max);
        agree += usize::from(top(got) == top(expected));
    }
    let agreement = agree as f64 / count as f64;
    println!(
        "{name}: {count} samples, largest difference {worst:.2e}, same class {:.4}, {} layers, {:.1} MiB on the GPU",
        agreement,
        engine.layer_count(),
        session.device_memory() as f64 / f64::from(1 << 20),
    );
    (worst, agreement)
}

#[test]
fn every_test_window_gets_the_same_answer_as_on_the_cpu() {
    if common::tensorrt().is_none() {
        return;
    }
    for name in ["toy_cnn", "mlp", "lstm", "cnn_small"] {
        let (worst, agreement) = compare(name, &Engine::load(engines::plan(name)).unwrap(), usize::MAX);
        assert!(worst < 1e-4, "{name}: {worst}");
        assert!(agreement > 0.9995, "{name}: {agreement}");
    }
}

/// Its model is too large to be kept: models/README.md says how to make it.
#[test]
fn cnn_large_gets_the_same_answers_where_it_was_made() {
    if common::tensorrt().is_none() {
        return;
    }
    if !model("cnn_large.onnx").exists() || !model("data/nasdaq_images128.npy").exists() {
        eprintln!("skipped: models/cnn_large.onnx was not generated");
        return;
    }
    let (worst, agreement) = compare("cnn_large", &Engine::load(engines::plan("cnn_large")).unwrap(), 300);
    assert!(worst < 1e-3, "{worst}");
    assert!(agreement > 0.99, "{agreement}");
}

#[test]
fn fp16_stays_close() {
    let Some((_, library)) = common::tensorrt() else { return };
    if library.flavour().is_strongly_typed() {
        eprintln!("skipped: {} has no FP16 flag", library.version());
        return;
    }
    for name in ["toy_cnn", "cnn_small"] {
        let plan = engines::built(&format!("{name}_fp16"), name, BuilderConfig::new().fp16(true));
        let (worst, agreement) = compare(name, &Engine::load(plan).unwrap(), usize::MAX);
        assert!(worst < 0.05, "{name}: {worst}");
        assert!(agreement > 0.995, "{name}: {agreement}");
    }
}

#[test]
fn dynamic_shapes_have_a_graph_each() {
    if common::tensorrt().is_none() {
        return;
    }
    let profile = OptimizationProfile::new().tensor("input", &[1, 256], &[4, 256], &[8, 256]);
    let plan = engines::built("mlp_dynamic", "mlp_dynamic", BuilderConfig::new().tf32(false).profile(profile));
    let engine = Engine::load(plan).unwrap();
    let shape = |batch| Shapes::from([("input".to_owned(), vec![batch, 256])]);
    let config = SessionConfig { shapes: vec![shape(1), shape(8)], ..SessionConfig::default() };
    let mut session = engine.session(&config).unwrap();
    assert!(session.is_graph(), "{:?}", session.why_no_graph());
    let data = npy::<f32>(model("data/nasdaq_windows.npy")).0;
    let (mut one, mut eight) = ([0.0_f32; 3], [0.0_f32; 24]);
    for batch in data.chunks_exact(8 * 256).take(50) {
        let mut slot = session.input_for(1).unwrap();
        slot.write(0, batch).unwrap();
        let ticket = slot.submit().unwrap();
        session.wait(ticket, &mut eight).unwrap();
        for (window, eight) in batch.chunks_exact(256).zip(eight.chunks_exact(3)) {
            session.infer(window, &mut one).unwrap();
            assert!(one.iter().zip(eight).all(|(one, eight)| (one - eight).abs() < 1e-4), "{one:?} {eight:?}");
        }
    }
    let outside = engine.session(&SessionConfig { shapes: vec![shape(9)], ..SessionConfig::default() }).unwrap_err();
    assert_eq!(outside.kind(), ErrorKind::Shape);
    assert!(outside.to_string().contains("from 1x256 to 8x256"), "{outside}");
}

#[test]
fn same_bits_after_a_reload() {
    if common::tensorrt().is_none() {
        return;
    }
    let data = npy::<f32>(model("data/nasdaq_windows.npy")).0;
    let run = || -> Vec<[u32; 3]> {
        let mut session = Session::load(engines::plan("mlp")).unwrap();
        let mut out = [0.0_f32; 3];
        let windows = data.chunks_exact(256).take(200);
        windows.map(|window| session.infer(window, &mut out).map(|_| out.map(f32::to_bits)).unwrap()).collect()
    };
    assert_eq!(run(), run());
}

/// Launched ahead, after pauses that outlast the launch ahead, kept warm, and several at a time: the same bits.
#[test]
fn same_bits_however_calls_are_launched() {
    if common::tensorrt().is_none() {
        return;
    }
    let data = npy::<f32>(model("data/nasdaq_windows.npy")).0;
    let windows: Vec<&[f32]> = data.chunks_exact(256).collect();
    let engine = Engine::load(engines::plan("mlp")).unwrap();
    let bits = |session: &mut Session, window: &[f32]| {
        let mut out = [0.0_f32; 3];
        session.infer(window, &mut out).unwrap();
        out.map(f32::to_bits)
    };
    let mut plain = engine.session(&SessionConfig::default()).unwrap();
    let expected: Vec<_> = windows.iter().map(|window| bits(&mut plain, window)).collect();

    let patience = Duration::from_millis(1);
    let config = SessionConfig { launch_ahead: Some(patience), ..SessionConfig::default() };
    let mut ahead = engine.session(&config).unwrap();
    for (call, window) in windows.iter().enumerate() {
        match call % 40 {
            0 => std::thread::sleep(2 * patience),
            1..10 => {
                let until = Instant::now() + patience * (call % 10) as u32 / 5;
                while Instant::now() < until {
                    ahead.keep_warm().unwrap();
                }
            }
            10..20 => ahead.rest(),
            _ => {}
        }
        assert_eq!(bits(&mut ahead, window), expected[call], "launched ahead, window {call}");
    }
    for (call, window) in windows.iter().enumerate().take(500) {
        plain.keep_warm().unwrap();
        assert_eq!(bits(&mut plain, window), expected[call], "kept warm, window {call}");
    }
    for session in [&mut plain, &mut ahead] {
        for (group, windows) in windows.chunks_exact(4).enumerate() {
            let submit = |window: &&[f32]| {
                let mut slot = session.input().unwrap();
                slot.write(0, window).unwrap();
                slot.submit().unwrap()
            };
            let tickets: Vec<_> = windows.iter().map(submit).collect();
            for (place, ticket) in tickets.into_iter().enumerate().rev() {
                let mut out = [0.0_f32; 3];
                session.wait(ticket, &mut out).unwrap();
                assert_eq!(out.map(f32::to_bits), expected[group * 4 + place], "in flight, group {group}");
            }
        }
    }
}

#[test]
fn two_chains_on_one_gpu_answer_at_the_same_time() {
    if common::tensorrt().is_none() {
        return;
    }
    let plans = ["toy_cnn", "mlp"].map(|name| (name, engines::plan(name)));
    let data = std::sync::Arc::new(npy::<f32>(model("data/nasdaq_windows.npy")).0);
    let threads = plans.map(|(name, plan)| {
        let data = data.clone();
        std::thread::spawn(move || {
            let mut predictor = Predictor::builder()
                .tensorrt(&plan)
                .ort_cpu(model(&format!("{name}.onnx")))
                .build()
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(predictor.active(), BackendKind::TensorRt, "{:?}", predictor.passed_over());
            let mut reference = engines::reference(name, &SessionConfig::default());
            for window in data.chunks_exact(256).cycle().take(5000) {
                let (mut out, mut expected) = ([0.0_f32; 3], [0.0_f32; 3]);
                predictor.infer(window, &mut out).unwrap();
                reference.infer(window, &mut expected).unwrap();
                assert!(out.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-4), "{name}: {out:?} {expected:?}");
            }
        })
    });
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn chain_without_tensorrt_answers_from_onnx_runtime_cuda() {
    if common::gpu().is_none() {
        return;
    }
    let mut predictor = Predictor::builder()
        .ort_cuda(model("toy_cnn.onnx"))
        .ort_cpu(model("toy_cnn.onnx"))
        .config(SessionConfig {
            normalizations: Some(vec![common::normalization("toy_cnn")]),
            ..SessionConfig::default()
        })
        .build()
        .unwrap();
    if predictor.active() != BackendKind::OrtCuda {
        let reason = &predictor.passed_over()[0].reason;
        assert!(!common::must_run(), "TRT_CI=1 and {reason}");
        eprintln!("skipped: {reason}");
        return;
    }
    let data = npy::<f32>(model("data/nasdaq_windows.npy")).0;
    let answer = predictor.infer(&data[..256], &mut [0.0_f32; 3]).unwrap();
    assert_eq!(answer.backend, BackendKind::OrtCuda);
}

#[test]
fn memory_exhausted_says_how_much_was_asked_and_free_and_what_to_lower() {
    if common::tensorrt().is_none() {
        return;
    }
    let engine = Engine::load(engines::plan("mlp")).unwrap();
    let windows = Some(WindowConfig::new(200_000_000, 8));
    let error = engine.session(&SessionConfig { windows, ..SessionConfig::default() }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfMemory);
    let text = error.to_string();
    assert!(
        text.contains("MiB to be free") && text.contains("MiB free") && text.contains("number of symbols"),
        "{text}"
    );
    // The context lives: the next session works.
    engine.session(&SessionConfig::default()).unwrap();
}

#[test]
fn plan_for_another_gpu_is_refused_before_tensorrt_sees_it() {
    if common::tensorrt().is_none() {
        return;
    }
    let plan = Plan::read(engines::plan("mlp")).unwrap();
    let mut sidecar = plan.sidecar().unwrap().clone();
    sidecar.gpu.as_mut().unwrap().compute_capability = 75;
    let path = engines::folder().join("elsewhere.engine");
    Plan::new(plan.bytes().to_vec(), sidecar).unwrap().write(&path).unwrap();
    let error = Engine::load(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PlanGpu);
    let gpu = Device::open(0).unwrap();
    assert!(error.to_string().contains("7.5") && error.to_string().contains(gpu.name()), "{error}");
}

#[test]
fn plan_without_sidecar_loads_only_on_the_callers_word() {
    if common::tensorrt().is_none() {
        return;
    }
    let path = engines::folder().join("bare.engine");
    std::fs::copy(engines::plan("mlp"), &path).unwrap();
    assert_eq!(Engine::load(&path).unwrap_err().kind(), ErrorKind::PlanUnverified);
    let engine = Engine::load_unverified(&path).unwrap();
    assert!(engine.normalizations().is_empty());
    engine.session(&SessionConfig::default()).unwrap();
}

#[test]
fn version_compatible_plan_loads() {
    let Some((_, library)) = common::tensorrt() else { return };
    let config = BuilderConfig::new().tf32(false).version_compatible(true);
    let built = tickrt::Builder::new(&library).build_file(model("mlp.onnx"), &config);
    match built {
        // 8.6 needs its lean library for that, which not every installation has.
        Err(error) => println!("{} builds none: {error}", library.version()),
        Ok(_) => {
            let plan = Plan::read(engines::built("mlp_compatible", "mlp", config)).unwrap();
            // It carries code for the host.
            assert_eq!(Engine::from_plan(&plan, 0).unwrap_err().kind(), ErrorKind::Untrusted);
            let engine = Engine::from_plan(&plan.allow_host_code(), 0).unwrap();
            engine.session(&SessionConfig::default()).unwrap();
        }
    }
}

#[test]
fn windows_of_thousands_of_symbols_answer_as_on_the_cpu() {
    if common::tensorrt().is_none() {
        return;
    }
    const SYMBOLS: u32 = 4000;
    let windows = Some(WindowConfig::new(SYMBOLS, 8));
    let config = SessionConfig { windows, ..SessionConfig::default() };
    let mut session = Engine::load(engines::plan("toy_cnn")).unwrap().session(&config).unwrap();
    let mut reference = engines::reference("toy_cnn", &config);
    let rows = npy::<f32>(model("data/nasdaq_windows.npy")).0;
    let row_of = |symbol: u32, step: usize| {
        let at = (symbol as usize * 13 + step) * 8 % (rows.len() - 8);
        &rows[at..at + 8]
    };
    for step in 0..36 {
        for symbol in 0..SYMBOLS {
            session.push(symbol, row_of(symbol, step)).unwrap();
            reference.push(symbol, row_of(symbol, step)).unwrap();
        }
        if step < 31 {
            continue;
        }
        for symbol in (step as u32 % 3..SYMBOLS).step_by(3) {
            let (mut got, mut expected) = ([0.0_f32; 3], [0.0_f32; 3]);
            let ticket = session.submit_window(symbol).unwrap();
            session.wait(ticket, &mut got).unwrap();
            let ticket = reference.submit_window(symbol).unwrap();
            reference.wait(ticket, &mut expected).unwrap();
            assert!(
                got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-4),
                "{symbol} at {step}: {got:?} {expected:?}"
            );
        }
    }
}

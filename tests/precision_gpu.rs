//! What only a GPU shows of precision: TensorRT's own calibrators, kept nodes, engines' accuracy. Without a GPU these tests
//! say so and pass, unless TRT_CI=1.

mod common;
#[path = "common/labelled.rs"]
mod labelled;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{model, normalization, root};
use labelled::Labelled;
use tickrt::onnx::{Keep, Model};
use tickrt::{
    Builder, BuilderConfig, BuiltPlan, Calibration, CalibrationMethod, CalibrationSource, CalibrationTable, Engine,
    Error, ErrorKind, Int8Mode, Library, Plan, Precision, PrecisionConstraints, ProfilingVerbosity, Result,
    SessionConfig, Shapes, Sidecar, read_files,
};

/// TensorRT 8 or 10 on a GPU.
fn tensorrt() -> Option<Library> {
    let (_, library) = common::tensorrt()?;
    if library.flavour().is_strongly_typed() {
        eprintln!("skipped: {} has no calibrators", library.version());
        return None;
    }
    Some(library)
}

fn read(name: &str) -> Model {
    Model::read(model(&format!("{name}.onnx"))).unwrap()
}

fn calibration(name: &str, method: CalibrationMethod) -> Calibration {
    let kind = if name == "cnn_small" { "images32" } else { "windows" };
    let (file, normalizations) =
        (root().join(format!("models/data/sp500_calibration_{kind}.npy")), vec![normalization(name)]);
    let source = read_files(&read(name), &normalizations, &Shapes::new(), &[(None, file)]).unwrap();
    Calibration::new(method).source(source).normalizations(normalizations)
}

/// A low level: what these tests build need not be fast.
fn quick() -> BuilderConfig {
    BuilderConfig::new().builder_optimization_level(1)
}

fn engine(name: &str, built: &BuiltPlan) -> Engine {
    let mut sidecar = Sidecar::from(built);
    sidecar.normalizations = vec![normalization(name)];
    Engine::from_plan(&Plan::new(built.bytes.clone(), sidecar).unwrap(), 0).unwrap()
}

/// Top-1 of an engine, of FP32 on the CPU, and how often they agree.
fn accuracy(name: &str, built: &BuiltPlan) -> [f64; 3] {
    let data = Labelled::of(name);
    let got = data.run_on(&mut engine(name, built).session(&SessionConfig::default()).unwrap());
    let expected = data.run(&read(name));
    let found = [data.top1(&got), data.top1(&expected), data.agreement(&got, &expected)];
    println!("{name}: {:?} {found:.4?}", built.precision);
    found
}

#[test]
fn fp16_engine_answers_as_fp32_does() {
    let Some(library) = tensorrt() else { return };
    for name in ["toy_cnn", "mlp", "cnn_small"] {
        let built = Builder::new(&library).build_model(&read(name), &quick().fp16(true)).unwrap();
        assert_eq!(built.precision, Precision::Fp16);
        let [top1, fp32, agreement] = accuracy(name, &built);
        assert!(top1 > fp32 - 0.01 && agreement > 0.99, "{name}");
    }
}

#[test]
fn native_calibration_by_each_method_makes_an_engine_and_a_cache_of_tensorrts_own() {
    let Some(library) = tensorrt() else { return };
    let folder = tempfile::tempdir().unwrap();
    for name in ["toy_cnn", "cnn_small"] {
        let mut best = [0.0_f64, 1.0];
        for (method, made_by, kind) in [
            (CalibrationMethod::Entropy, "TRT-", "-EntropyCalibration2"),
            (CalibrationMethod::MinMax, "TRT-", "-MinMaxCalibration"),
            // Its parameters: a regression cut-off of 1 and the quantile, the bits of an f64 each.
            (CalibrationMethod::Percentile(99.99), "0 ", "3ff0000000000000 3fefff2e48e8a71d"),
        ] {
            let cache = folder.path().join(format!("{name}.{method}.cache"));
            let config = quick().int8(true).int8_mode(Int8Mode::Native);
            let first = calibration(name, method).cache_file(&cache);
            let built = Builder::new(&library).calibration(first).build_model(&read(name), &config).unwrap();
            assert_eq!((built.precision, built.lowered.is_none()), (Precision::Int8, true));
            let table = CalibrationTable::parse(&std::fs::read(&cache).unwrap()).unwrap();
            println!("{name} by {method}: {}, {:?}", table.header, table.scales);
            assert!(table.header.starts_with(made_by) && table.header.ends_with(kind), "{}", table.header);
            assert!(table.scales.contains_key("input") && table.scales.len() > 4, "{:?}", table.scales);
            let [top1, fp32, _] = accuracy(name, &built);
            best = if top1 > best[0] { [top1, fp32] } else { best };

            // The cache alone is enough from here on, and no batch is drawn with it.
            let again = Calibration::new(method).normalizations(vec![normalization(name)]).cache_file(&cache);
            let built = Builder::new(&library).calibration(again).build_model(&read(name), &config).unwrap();
            assert!(built.notes.iter().all(|note| !note.contains("calibration cache")), "{:?}", built.notes);
        }
        assert!(best[0] > best[1] - 0.01, "{name}: {best:?}");
    }
}

#[test]
fn q_dq_nodes_make_an_int8_engine_here_too() {
    let Some(library) = tensorrt() else { return };
    for name in ["toy_cnn", "mlp", "cnn_small"] {
        let calibration = calibration(name, CalibrationMethod::MinMax);
        let config = quick().int8(true).fp16(true).int8_mode(Int8Mode::Qdq);
        let built = Builder::new(&library).calibration(calibration).build_model(&read(name), &config).unwrap();
        assert_eq!((built.precision, built.lowered.is_some()), (Precision::Int8, true));
        let [top1, fp32, agreement] = accuracy(name, &built);
        assert!(top1 > fp32 - 0.01 && agreement > 0.97, "{name}");
    }
}

#[test]
fn dynamic_network_is_calibrated_natively_in_batches() {
    let Some(library) = tensorrt() else { return };
    let (fp32, normalizations) = (read("mlp_dynamic"), vec![normalization("mlp_dynamic")]);
    let shapes = Shapes::from([("input".to_owned(), vec![32, 256])]);
    let file = root().join("models/data/sp500_calibration_windows.npy");
    let source = read_files(&fp32, &normalizations, &shapes, &[(None, file)]).unwrap();
    assert_eq!(source.batches(), Some(8));
    let calibration = Calibration::new(CalibrationMethod::Entropy).source(source).normalizations(normalizations);
    let profile = tickrt::OptimizationProfile::new().tensor("input", &[1, 256], &[8, 256], &[64, 256]);
    let config = quick().int8(true).profile(profile);
    let built = Builder::new(&library).calibration(calibration.shapes(shapes)).build_model(&fp32, &config).unwrap();
    assert_eq!(built.precision, Precision::Int8);
}

/// TensorRT 8.6.1 reads a whole input of the one shape that a profile allows, whatever the calibration's is.
#[test]
fn ranges_are_those_of_the_samples_whatever_shapes_the_profile_allows() {
    let Some(library) = tensorrt() else { return };
    let folder = tempfile::tempdir().unwrap();
    let ranges = |[min, max]: [i64; 2]| {
        let cache = folder.path().join(format!("{min}.{max}.cache"));
        let file = root().join("models/data/sp500_calibration_windows.npy");
        let (fp32, normalizations) = (read("mlp_dynamic"), vec![normalization("mlp_dynamic")]);
        let source = read_files(&fp32, &normalizations, &Shapes::new(), &[(None, file)]).unwrap();
        let calibration = Calibration::new(CalibrationMethod::MinMax).source(source).normalizations(normalizations);
        let profile = tickrt::OptimizationProfile::new().tensor("input", &[min, 256], &[max, 256], &[max, 256]);
        let config = quick().int8(true).profile(profile);
        Builder::new(&library).calibration(calibration.cache_file(&cache)).build_model(&fp32, &config).unwrap();
        CalibrationTable::parse(&std::fs::read(cache).unwrap()).unwrap().scales
    };
    let expected = ranges([1, 1]);
    // What a calibration must not find: a session of the same size leaves it in memory.
    let profile = tickrt::OptimizationProfile::new().tensor("input", &[64, 256], &[64, 256], &[64, 256]);
    let built = Builder::new(&library).build_model(&read("mlp_dynamic"), &quick().profile(profile)).unwrap();
    let mut session = engine("mlp_dynamic", &built).session(&SessionConfig::default()).unwrap();
    let _ = session.infer(&[1e30_f32; 64 * 256], &mut [0.0_f32; 64 * 3]);
    drop(session);
    for limits in [[64, 64], [1, 64], [1, 8]] {
        for (tensor, scale) in ranges(limits) {
            let expected = expected[&tensor];
            // Of other kernels' sums, in another order.
            assert!((scale - expected).abs() <= 1e-3 * expected, "{tensor} at {limits:?}: {scale}, not {expected}");
        }
    }
}

/// Ends its third batch in an error or a panic.
struct Failing {
    panics: bool,
    drawn: Arc<AtomicUsize>,
}

impl CalibrationSource for Failing {
    fn next(&mut self, inputs: &mut [&mut [u8]]) -> Result<bool> {
        if self.drawn.fetch_add(1, Ordering::SeqCst) < 2 {
            bytemuck::cast_slice_mut::<u8, f32>(inputs[0]).fill(0.01);
            return Ok(true);
        }
        assert!(!self.panics, "the third batch fell over");
        Err(Error::new(ErrorKind::Io, "read the third batch").got("no more disk"))
    }
}

#[test]
fn source_that_fails_or_panics_ends_the_build_with_its_words_and_the_builder_lives() {
    let Some(library) = tensorrt() else { return };
    for (panics, words) in
        [(false, "read the third batch: no more disk"), (true, "panicked: the third batch fell over")]
    {
        let drawn = Arc::new(AtomicUsize::new(0));
        let source = Failing { panics, drawn: Arc::clone(&drawn) };
        let calibration = Calibration::new(CalibrationMethod::Entropy).source(source);
        let mut builder = Builder::new(&library).calibration(calibration);
        let error = builder.build_model(&read("toy_cnn"), &quick().int8(true)).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(drawn.load(Ordering::SeqCst), 3, "not asked again");
        builder.build_model(&read("toy_cnn"), &quick()).unwrap();
    }
}

#[test]
fn nan_in_a_batch_and_empty_data_end_the_build() {
    let Some(library) = tensorrt() else { return };
    for (samples, words) in [
        (vec![vec![0.0_f32; 256], vec![f32::NAN; 256]], "calibrate with batch 1: input `input`"),
        (Vec::new(), "expected at least one batch"),
    ] {
        let calibration = Calibration::new(CalibrationMethod::MinMax).samples(samples);
        let built = Builder::new(&library).calibration(calibration).build_model(&read("toy_cnn"), &quick().int8(true));
        let error = built.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn kept_node_computes_in_fp32_or_the_advice_says_how() {
    let Some(library) = tensorrt() else { return };
    let fp32 = read("mlp");
    assert!(!Keep::new(&fp32, ["/0/Gemm"]).unwrap().is_empty());
    let config = quick().fp16(true).keep_fp32(["/0/Gemm"]).profiling_verbosity(ProfilingVerbosity::Detailed);
    let obeyed = config.clone().precision_constraints(PrecisionConstraints::Obey);
    // TensorRT 8.6.1 has no kernel that obeys: "no supported formats for /0/Gemm + /1/Relu".
    if let Err(error) = Builder::new(&library).build_model(&fp32, &obeyed) {
        assert_eq!(error.kind(), ErrorKind::Build);
        assert!(error.to_string().contains("leave out --strict-types"), "{error}");
    }
    let built = Builder::new(&library).build_model(&fp32, &config).unwrap();
    let layers = engine("mlp", &built).layers_json();
    println!("{layers}");
    let [top1, reference, _] = accuracy("mlp", &built);
    assert!(top1 > reference - 0.01);
    assert!(layers.contains("/0/Gemm"), "{layers}");
}

#[test]
fn mse_is_refused_where_tensorrt_calibrates() {
    let Some(library) = tensorrt() else { return };
    let calibration = calibration("toy_cnn", CalibrationMethod::Mse);
    let config = quick().int8(true).int8_mode(Int8Mode::Native);
    let error = Builder::new(&library).calibration(calibration).build_model(&read("toy_cnn"), &config).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("--int8-mode=qdq"), "{error}");
}

//! Engines built once for all tests of a binary, on the GPU at hand.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};

use tickrt::backend::ort::OrtBackend;
use tickrt::onnx::Model;
use tickrt::{Builder, BuilderConfig, Device, Gpu, Library, Plan, Preference, Session, SessionConfig, Sidecar};

use crate::common::{model, normalization};

/// A folder that lasts as long as the process, or the one that `TICKRT_TEST_ENGINES` names: test binaries that run one
/// after the other then share what they build.
pub fn folder() -> PathBuf {
    if let Some(folder) = std::env::var_os("TICKRT_TEST_ENGINES") {
        return folder.into();
    }
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    FOLDER.get_or_init(|| tempfile::tempdir().unwrap()).path().to_owned()
}

/// The plan of `models/<name>.onnx` in FP32 without TF32, with the model's normalisation in its sidecar.
pub fn plan(name: &str) -> PathBuf {
    built(name, name, BuilderConfig::new().tf32(false))
}

/// As [`plan`], of another configuration: `key` names it.
pub fn built(key: &str, name: &str, config: BuilderConfig) -> PathBuf {
    static PLANS: OnceLock<Mutex<HashMap<String, PathBuf>>> = OnceLock::new();
    let mut plans = PLANS.get_or_init(Mutex::default).lock().unwrap();
    plans.entry(key.to_owned()).or_insert_with(|| build(key, name, &config)).clone()
}

fn build(key: &str, name: &str, config: &BuilderConfig) -> PathBuf {
    let path = folder().join(format!("{key}.engine"));
    if Plan::read(&path).is_ok() {
        return path;
    }
    let library = Library::open_any(&Preference::Any).unwrap();
    let built = Builder::new(&library).build_file(model(&format!("{name}.onnx")), config).unwrap();
    let mut sidecar = Sidecar::from(&built);
    let device = Device::open(0).unwrap();
    let (major, minor) = device.compute_capability();
    sidecar.gpu = Some(Gpu { name: device.name().to_owned(), compute_capability: major * 10 + minor });
    sidecar.normalizations = vec![normalization(name)];
    Plan::new(built.bytes, sidecar).unwrap().write(&path).unwrap();
    path
}

/// The reference: ONNX Runtime on the CPU, one thread, with the same normalisation.
pub fn reference(name: &str, config: &SessionConfig) -> Session {
    let mut config = config.clone();
    config.normalizations.get_or_insert_with(|| vec![normalization(name)]);
    let model = Model::read(model(&format!("{name}.onnx"))).unwrap();
    Session::start(Box::new(OrtBackend::cpu(&model, &config).unwrap()), &config).unwrap()
}

//! A model whose weights lie in a file of their own: on ONNX Runtime, built by TensorRT-RTX without a GPU, and on TensorRT.
mod common;
#[path = "common/onnx.rs"]
mod onnx;

use std::path::{Path, PathBuf};

use tickrt::backend::ort::OrtBackend;
use tickrt::onnx::Model;
use tickrt::{
    Builder, BuilderConfig, Engine, ErrorKind, Flavour, Library, Plan, Preference, Session, SessionConfig, Sidecar,
};

/// `output = input + weights`, with weights 10, 20, 30, 40 in `weights.bin`.
fn write(folder: &Path) -> PathBuf {
    let weights = [10.0_f32, 20.0, 30.0, 40.0];
    std::fs::write(folder.join("weights.bin"), bytemuck::cast_slice::<f32, u8>(&weights)).unwrap();
    let model = onnx::model_with(
        vec![onnx::external("weights", 4, "weights.bin")],
        vec![onnx::node("add", "Add", &["input", "weights"], &["output"])],
        vec![onnx::value("input", &[1, 4])],
        vec![onnx::value("output", &[1, 4])],
    );
    let path = folder.join("model.onnx");
    std::fs::write(&path, model).unwrap();
    path
}

fn check(mut session: Session) {
    let mut out = [0.0_f32; 4];
    session.infer(&[1.0_f32, 2.0, 3.0, 4.0], &mut out).unwrap();
    assert_eq!(out, [11.0, 22.0, 33.0, 44.0]);
}

#[test]
fn onnx_runtime_finds_them() {
    let folder = tempfile::tempdir().unwrap();
    let model = Model::read(write(folder.path())).unwrap();
    let config = SessionConfig::default();
    check(Session::start(Box::new(OrtBackend::cpu(&model, &config).unwrap()), &config).unwrap());
}

#[test]
fn tensorrt_rtx_builds_them_in() {
    let Ok(library) = Library::open_any(&Preference::Flavour(Flavour::Rtx)) else {
        assert!(std::env::var_os("TICKRT_REQUIRE_SDK").is_none(), "no TensorRT-RTX");
        eprintln!("skipped: no TensorRT-RTX");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path());
    let built = Builder::new(&library).build_file(&path, &BuilderConfig::new()).unwrap();
    // The values themselves are in the plan.
    let needle = bytemuck::bytes_of(&[10.0_f32, 20.0, 30.0, 40.0]).to_vec();
    assert!(built.bytes.windows(16).any(|bytes| bytes == needle), "weights in a plan of {} bytes", built.bytes.len());
    std::fs::write(folder.path().join("weights.bin"), [0_u8; 7]).unwrap();
    let error = Builder::new(&library).build_file(&path, &BuilderConfig::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Onnx);
    assert!(error.to_string().contains("weights.bin") && error.to_string().contains("7 bytes"), "{error}");
}

#[test]
fn tensorrt_answers_with_them() {
    let Some((_, library)) = common::tensorrt() else { return };
    let folder = tempfile::tempdir().unwrap();
    let built = Builder::new(&library).build_file(write(folder.path()), &BuilderConfig::new()).unwrap();
    let plan = Plan::new(built.bytes.clone(), Sidecar::from(&built)).unwrap();
    check(Engine::from_plan(&plan, 0).unwrap().session(&SessionConfig::default()).unwrap());
}

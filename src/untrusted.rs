//! What is read from outside, one function a format: for fuzz/ and tests/untrusted.rs. None of them may panic, or take memory out
//! of proportion to the bytes.

use std::path::Path;

use crate::calibration::CalibrationTable;
use crate::onnx::Model;
use crate::plan::{Plan, Sidecar};
use crate::resident::artefact::{Artefact, Facts};
use crate::trust::Signature;

/// A plan's sidecar, and what a caller does with it first.
pub fn sidecar(bytes: &[u8]) {
    let read = |bytes: &[u8]| {
        let Ok(sidecar) = Sidecar::from_bytes(bytes, Path::new("x.engine")) else { return };
        let _ = sidecar.check_shapes(&crate::Shapes::new());
    };
    read(bytes);
    // A checksum that fits keeps nobody out: anyone can compute it.
    if let Some(mended) = crate::sealed::with_its_checksum(bytes) {
        read(&mended);
    }
}

/// A plan's header: all that is looked at before TensorRT.
pub fn plan(bytes: &[u8]) {
    let Ok(plan) = Plan::unverified(bytes.to_vec()) else { return };
    let _ = (plan.version(), plan.flavour(), plan.facts(), plan.rebuild_command());
}

/// A resident engine's file, or its sidecar.
pub fn resident(bytes: &[u8]) {
    let _ = Artefact::check_bytes(bytes);
    let read = |bytes: &[u8]| {
        let Ok(facts) = Facts::from_bytes(bytes) else { return };
        let _ = (facts.normalizer(), facts.output_elements(), facts.lines());
    };
    read(bytes);
    if let Some(mended) = crate::sealed::with_its_checksum(bytes) {
        read(&mended);
    }
}

/// An ONNX model.
pub fn onnx(bytes: &[u8]) {
    let Ok(model) = Model::from_bytes(bytes.to_vec()) else { return };
    let _ = (model.inputs(), model.outputs(), model.opset(), model.node_count(), model.operators());
}

/// A calibration cache.
pub fn calibration_cache(bytes: &[u8]) {
    let Ok(table) = CalibrationTable::parse(bytes) else { return };
    // What is written of it is read as the same.
    let text = table.to_text();
    let again = CalibrationTable::parse(text.as_bytes()).map(|table| table.to_text());
    assert_eq!(again.ok().as_deref(), Some(&*text));
}

/// What lies beside a calibration cache and says what it was made from.
pub fn calibration_key(bytes: &[u8]) {
    let Some(key) = crate::calibration::parse_key(bytes) else { return };
    assert_eq!(key.difference(&key), None, "it is of what it says");
}

/// An `.npy` array.
#[cfg(feature = "tool")]
pub fn npy(bytes: &[u8]) {
    let _ = crate::data::Array::from_npy(bytes, std::path::Path::new("untrusted.npy"));
}

/// A signature file.
pub fn signature(bytes: &[u8]) {
    let Some(signature) = Signature::parse(bytes) else { return };
    let _ = signature.check(Path::new("x.engine"), &[signature.key()], &[]);
}

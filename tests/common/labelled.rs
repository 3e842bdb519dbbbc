//! A model's test windows with their labels, and a model's answers to them in ONNX Runtime on the CPU.
#![allow(dead_code)] // each test binary uses a part

use std::env;
use std::path::PathBuf;

use tickrt::backend::ort::{OnnxRuntime, OrtBackend};
use tickrt::onnx::Model;
use tickrt::{Normalization, Session, SessionConfig};

use crate::common::{normalization, npy, root};

pub fn sdk() -> PathBuf {
    env::var_os("TICKRT_SDK").map_or_else(|| root().join(".sdk"), PathBuf::from)
}

/// Whether a missing library is a failure.
pub fn required() -> bool {
    ["TICKRT_REQUIRE_SDK", "TRT_CI"].iter().any(|name| env::var(name).as_deref() == Ok("1"))
}

/// Whether there is an ONNX Runtime; says why if not.
pub fn onnx_runtime() -> bool {
    match OnnxRuntime::load(None) {
        Ok(_) => true,
        Err(error) if required() => panic!("{error}"),
        Err(error) => {
            eprintln!("skipped: {error}");
            false
        }
    }
}

/// The NASDAQ windows as a model takes them.
pub struct Labelled {
    bytes: Vec<u8>,
    labels: Vec<i32>,
    normalization: Normalization,
}

impl Labelled {
    pub fn of(name: &str) -> Self {
        let data = root().join("models/data");
        let (labels, _) = npy::<i32>(data.join("nasdaq_labels.npy"));
        let bytes = if name == "cnn_small" {
            npy::<u8>(data.join("nasdaq_images32.npy")).0
        } else {
            bytemuck::cast_slice(&npy::<f32>(data.join("nasdaq_windows.npy")).0).to_vec()
        };
        Self { bytes, labels, normalization: normalization(name) }
    }

    /// The three scores of every window.
    pub fn run(&self, model: &Model) -> Vec<f32> {
        let config =
            SessionConfig { normalizations: Some(vec![self.normalization.clone()]), ..SessionConfig::default() };
        self.run_on(&mut Session::start(Box::new(OrtBackend::cpu(model, &config).unwrap()), &config).unwrap())
    }

    /// As [`run`](Self::run), with a session that is there.
    pub fn run_on(&self, session: &mut Session) -> Vec<f32> {
        let mut scores = Vec::new();
        for window in self.bytes.chunks_exact(self.bytes.len() / self.labels.len()) {
            let mut answer = [0.0_f32; 3];
            if self.normalization.input_type == tickrt::DataType::U8 {
                session.infer(window, &mut answer).unwrap();
            } else {
                session.infer(bytemuck::cast_slice::<u8, f32>(window), &mut answer).unwrap();
            }
            scores.extend(answer);
        }
        scores
    }

    /// The share of windows whose greatest score is that of the label.
    pub fn top1(&self, scores: &[f32]) -> f64 {
        let right = classes(scores).zip(&self.labels).filter(|(class, label)| *class == **label as usize).count();
        right as f64 / self.labels.len() as f64
    }

    /// The share of windows whose greatest score is the same.
    pub fn agreement(&self, one: &[f32], other: &[f32]) -> f64 {
        let same = classes(one).zip(classes(other)).filter(|(one, other)| one == other).count();
        same as f64 / self.labels.len() as f64
    }
}

fn classes(scores: &[f32]) -> impl Iterator<Item = usize> {
    scores.chunks_exact(3).map(|three| (0..3).max_by(|&a, &b| three[a].total_cmp(&three[b])).unwrap())
}

//! A model repository for NVIDIA's Triton Inference Server, in a folder of the version: each engine as a model of its own, and
//! the ONNX model for the CPU. `tritonserver --model-repository=STORE/NAME/current/triton` serves it.

mod config;

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tickrt::onnx::Model;
use tickrt::{Flavour, Sidecar};

use self::config::ModelConfig;
use super::manifest::{self, Manifest, cannot_write};
use crate::exit::{Failure, Outcome};

/// What the ONNX model is called as a target is, and no target may be.
pub const CPU: &str = "cpu";
/// In the version's folder.
const FOLDER: &str = "triton";

/// How Triton runs the models.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Instances of an engine on each GPU.
    pub instances: u32,
    /// GPUs; all without.
    pub gpus: Vec<u32>,
    /// Instances of the ONNX model.
    pub cpu_instances: u32,
    /// Calls of each instance before it answers any.
    pub warmup: u32,
    /// How long a call may wait for others to make a batch with; for engines of a dynamic batch.
    pub max_queue_delay_us: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { instances: 1, gpus: Vec::new(), cpu_instances: 1, warmup: 100, max_queue_delay_us: 0 }
    }
}

impl Settings {
    /// What is wrong with them.
    pub fn check(&self) -> Result<(), String> {
        for (name, number) in [("instances", self.instances), ("cpu_instances", self.cpu_instances)] {
            if number == 0 {
                return Err(format!("triton.{name}: expected 1 at least, got 0"));
            }
        }
        Ok(())
    }
}

/// Whether Triton's backend takes the engine's plan. Before its gates: they take time.
pub fn check(target: &str, sidecar: &Sidecar) -> Outcome {
    if let Some(scalar) = sidecar.tensors.iter().find(|tensor| tensor.shape.is_empty()) {
        return Err(Failure::usage(format!(
            "write {target} for Triton: expected a dimension at least of every tensor, for Triton has no others, got the scalar `{}`; \
             export it with a shape of [1], or as one number for each sample of an open batch; nothing was deployed",
            scalar.name
        )));
    }
    if sidecar.flavour != Flavour::Rtx {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "write {target} for Triton: expected a plan of TensorRT 8, 10 or 11, for Triton's TensorRT backend takes no other, got one of \
         {}; build with --tensorrt=trt10, say, on the GPU that it is for; nothing was deployed",
        sidecar.library
    )))
}

/// Writes the repository into the version's `folder`; `number` is the version's in Triton, too. A sidecar for each engine.
pub fn write(settings: &Settings, number: u32, folder: &Path, manifest: &Manifest, sidecars: &[Sidecar]) -> Outcome {
    for (engine, sidecar) in manifest.engines.iter().zip(sidecars) {
        let name = format!("{}_{}", manifest.name, engine.target);
        let version = make(folder, &config::of_engine(&name, sidecar, settings), number)?;
        link(&folder.join(&engine.file), &version.join("model.plan"))?;
    }
    let Some(sidecar) = sidecars.first() else { return Ok(()) };
    let onnx = folder.join(&manifest.model);
    let model = Model::read(&onnx)?;
    let config = config::of_onnx(&format!("{}_{CPU}", manifest.name), &model, sidecar, settings);
    let version = make(folder, &config, number)?;
    link(&onnx, &version.join("model.onnx"))?;
    for weights in model.external_files() {
        // The model names them from its own folder.
        let relative = weights.strip_prefix(folder).unwrap_or(weights);
        link(weights, &version.join(relative))?;
    }
    Ok(())
}

/// Makes `triton/MODEL/NUMBER/` and the configuration beside it.
fn make(folder: &Path, config: &ModelConfig, number: u32) -> Outcome<PathBuf> {
    let model = folder.join(FOLDER).join(&config.name);
    let version = model.join(number.to_string());
    fs::create_dir_all(&version).map_err(|error| cannot_write(&version, &error))?;
    let path = model.join("config.pbtxt");
    let written = fs::write(&path, config.to_string()).and_then(|()| manifest::sync(&path));
    written.map_err(|error| cannot_write(&path, &error))?;
    Ok(version)
}

/// The same file by a second name: a container that sees the repository alone can still read it. A copy where there is no such
/// thing.
fn link(from: &Path, to: &Path) -> Outcome {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).map_err(|error| cannot_write(parent, &error))?;
    }
    fs::hard_link(from, to).or_else(|_| manifest::copy(from, to))
}

#[cfg(test)]
mod tests;

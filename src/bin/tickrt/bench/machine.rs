//! What a record says of the machine, the model and the code.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use tickrt::Device;
use tickrt::backend::ort::OnnxRuntime;
use tickrt::onnx::Model as Onnx;

use crate::chain::ChainArgs;
use crate::exit::Outcome;
use crate::table::hex;

/// The machine and the code; `none` or `unknown` where there is nothing to tell.
pub struct Machine {
    /// The GPU's name.
    pub gpu: String,
    /// The driver's version, or that of its CUDA.
    pub driver: String,
    /// ONNX Runtime's version.
    pub onnxruntime: String,
    /// The commit of tickrt.
    pub commit: String,
}

impl Machine {
    /// Looks around.
    pub fn look(device: usize) -> Self {
        let none = || "none".to_owned();
        Self {
            gpu: Device::open(device).map_or_else(|_| none(), |device| device.name().to_owned()),
            driver: driver().unwrap_or_else(none),
            onnxruntime: OnnxRuntime::load(None).map_or_else(|_| none(), |runtime| runtime.version().to_owned()),
            commit: commit().unwrap_or_else(|| "unknown".to_owned()),
        }
    }
}

/// The kernel module knows its own version; CUDA tells only what it is compatible with.
fn driver() -> Option<String> {
    let text = std::fs::read_to_string("/proc/driver/nvidia/version").unwrap_or_default();
    let version =
        |word: &&str| word.contains('.') && word.chars().all(|letter| letter.is_ascii_digit() || letter == '.');
    let module = text.split_whitespace().find(version).map(str::to_owned);
    module.or_else(|| Device::driver_version().map(|(major, minor)| format!("CUDA {major}.{minor}")))
}

fn commit() -> Option<String> {
    if let Ok(commit) = std::env::var("TICKRT_COMMIT") {
        return Some(commit);
    }
    let git =
        Command::new("git").args(["describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]).output().ok()?;
    let text = String::from_utf8(git.stdout).ok().filter(|_| git.status.success())?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// The network that was measured.
pub struct Model {
    /// The file name without its ending.
    pub name: String,
    /// SHA-256 of the ONNX file.
    pub sha256: String,
    /// The engine's precision.
    pub precision: String,
    /// The version of the engine's TensorRT.
    pub tensorrt: String,
}

/// From the model's file and the engine's sidecar, whichever there is.
pub fn model(chain: &ChainArgs) -> Outcome<Model> {
    let unknown = || "unknown".to_owned();
    let sidecar = chain.sidecar()?;
    let of_file = chain.onnx.as_ref().map(Onnx::read).transpose()?.map(|onnx| hex(&onnx.sha256()));
    let built_from = sidecar.as_ref().and_then(|sidecar| sidecar.onnx_file.clone()).map(std::path::PathBuf::from);
    let named = chain.onnx.clone().or(built_from).or_else(|| chain.engine.clone());
    let version = match &sidecar {
        Some(sidecar) if sidecar.version.is_rtx() => format!("RTX {}", sidecar.version.number()),
        Some(sidecar) => sidecar.version.number(),
        None if chain.engine.is_some() => chain.plan()?.version().number(),
        None => "none".to_owned(),
    };
    Ok(Model {
        name: named.and_then(|path| Some(path.file_stem()?.to_string_lossy().into_owned())).unwrap_or_else(unknown),
        sha256: of_file.or_else(|| sidecar.as_ref()?.onnx_sha256.clone()).unwrap_or_else(unknown),
        precision: sidecar.map_or_else(unknown, |sidecar| sidecar.precision.to_string()),
        tensorrt: version,
    })
}

/// Different for every process run: the time in seconds and the process.
pub fn run_id() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    format!("{seconds}-{}", std::process::id())
}

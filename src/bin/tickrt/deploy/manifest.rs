//! What a version consists of: written last, checked before anything is switched to it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tickrt::Plan;
use tickrt::onnx::Model;

use super::gates::Gate;
use crate::exit::{Failure, Outcome};
use crate::table::hex;

/// The file's name in a version's folder.
pub const FILE: &str = "manifest.json";

/// One version.
#[derive(Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// The deployment's name.
    pub name: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The tickrt that made it.
    pub tickrt: String,
    /// The model's file beside the manifest, for ONNX Runtime.
    pub model: String,
    /// SHA-256 of it.
    pub model_sha256: String,
    /// The files that hold its weights, as it names them, and SHA-256 of each.
    #[serde(default)]
    pub weights: BTreeMap<String, String>,
    /// In the order of the targets.
    pub engines: Vec<Deployed>,
}

/// One engine of a version.
#[derive(Debug, Serialize, Deserialize)]
pub struct Deployed {
    /// The target's name.
    pub target: String,
    /// The engine's file beside the manifest, with its sidecar.
    pub file: String,
    /// SHA-256 of it.
    pub sha256: String,
    /// What came of the gate; none where there was none.
    pub accuracy: Option<Gate>,
    /// What came of the gate; none where there was none.
    pub latency: Option<Gate>,
}

impl Manifest {
    /// Copies the model, with the files that hold its weights, into `folder`; no engines yet.
    pub fn new(name: &str, onnx: &Path, folder: &Path) -> Outcome<Self> {
        let model = Model::read(onnx)?;
        let file = onnx.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        copy(onnx, &folder.join(&file))?;
        let beside = onnx.parent().unwrap_or(Path::new(""));
        let mut hashes = BTreeMap::new();
        for weights in model.external_files() {
            // Named as the model does, from its own folder.
            let relative = weights.strip_prefix(beside).map_err(|_| {
                Failure::usage(format!("copy {}: expected it below {}", weights.display(), beside.display()))
            })?;
            let to = folder.join(relative);
            if let Some(parent) = to.parent() {
                std::fs::create_dir_all(parent).map_err(|error| cannot_write(parent, &error))?;
            }
            copy(weights, &to)?;
            hashes.insert(relative.to_string_lossy().into_owned(), sha256_of(&to)?);
        }
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Ok(Self {
            name: name.to_owned(),
            created,
            tickrt: env!("CARGO_PKG_VERSION").to_owned(),
            model: file,
            model_sha256: hex(&model.sha256()),
            weights: hashes,
            engines: Vec::new(),
        })
    }

    /// Writes it, synced to disk.
    pub fn write(&self, folder: &Path) -> Outcome {
        let path = folder.join(FILE);
        let text = serde_json::to_string_pretty(self).expect("strings and numbers") + "\n";
        let write = || {
            std::fs::write(&path, &text)?;
            sync(&path)
        };
        write().map_err(|error| cannot_write(&path, &error))
    }

    /// The first of the weights that are others in the model's `folder`.
    pub fn other_weights(&self, folder: &Path) -> Outcome<Option<&str>> {
        for (file, sha256) in &self.weights {
            if sha256_of(&folder.join(file))? != *sha256 {
                return Ok(Some(file));
            }
        }
        Ok(None)
    }

    /// Reads a version's, and sees whether all that it names is there and whole.
    pub fn read(folder: &Path) -> Outcome<Self> {
        let path = folder.join(FILE);
        let refused = |got: String| Failure::usage(format!("read the manifest {}: {got}", path.display()));
        let text = std::fs::read_to_string(&path).map_err(|error| refused(error.to_string()))?;
        let manifest: Self = serde_json::from_str(&text).map_err(|error| refused(error.to_string()))?;
        let model = Model::read(folder.join(&manifest.model))
            .map_err(|error| refused(format!("it points at a model that cannot be used: {error}")))?;
        if hex(&model.sha256()) != manifest.model_sha256 {
            let (file, sha256) = (&manifest.model, &manifest.model_sha256);
            return Err(refused(format!("expected {file} with sha256 {sha256}, got another")));
        }
        if let Some(file) = manifest.other_weights(folder)? {
            return Err(refused(format!("expected {file} with sha256 {}, got another", manifest.weights[file])));
        }
        for engine in &manifest.engines {
            let plan = Plan::read(folder.join(&engine.file))
                .map_err(|error| refused(format!("it points at an engine that cannot be used: {error}")))?;
            if hex(&plan.sha256()) != engine.sha256 {
                return Err(refused(format!("expected {} with sha256 {}, got another", engine.file, engine.sha256)));
            }
        }
        Ok(manifest)
    }
}

impl Deployed {
    /// From the engine's file.
    pub fn new(target: &str, engine: &Path, accuracy: Option<Gate>, latency: Option<Gate>) -> Outcome<Self> {
        let file = engine.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(Self { target: target.to_owned(), file, sha256: hex(&Plan::read(engine)?.sha256()), accuracy, latency })
    }
}

impl fmt::Display for Deployed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |gate: &Option<Gate>| gate.as_ref().map_or_else(|| "no gate".to_owned(), ToString::to_string);
        write!(f, "{}: accuracy: {}; latency: {}", self.file, of(&self.accuracy), of(&self.latency))
    }
}

fn sha256_of(path: &Path) -> Outcome<String> {
    let mut hash = Sha256::new();
    let read = std::fs::File::open(path).and_then(|mut file| std::io::copy(&mut file, &mut hash));
    read.map_err(|error| Failure::usage(format!("read {}: {error}", path.display())))?;
    Ok(hex(&hash.finalize()))
}

/// Copies a file, synced to disk.
pub fn copy(from: &Path, to: &Path) -> Outcome {
    std::fs::copy(from, to).and_then(|_| sync(to)).map_err(|error| cannot_write(to, &error))
}

/// A file's bytes, or a folder's names, reach the disk: a version that a power cut has emptied must not be the current one.
pub fn sync(path: &Path) -> std::io::Result<()> {
    std::fs::File::open(path)?.sync_all()
}

/// Of the store; `advice` by what the system says.
pub fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    let advice = match error.kind() {
        StorageFull | QuotaExceeded | FileTooLarge => "free some space, or lower `keep`; nothing was deployed",
        _ => "see whether the store can be written; nothing was deployed",
    };
    Failure::usage(format!("write {}: {error}; {advice}", path.display()))
}

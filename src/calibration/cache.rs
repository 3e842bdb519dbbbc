//! The calibration cache as a file, and beside it what it was made from.
//!
//! TensorRT takes any cache for its own if the first line fits: one of another model gives wrong ranges without a word.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::CalibrationMethod;
use crate::error::Result;
use crate::files;
use crate::normalize::Normalization;
use crate::onnx::Model;
use crate::plan::hex;
use crate::tensor::Shapes;

/// Who calibrates where TensorRT does not.
pub(super) const TICKRT: &str = "tickrt";

/// What a cache was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Key {
    /// SHA-256 of the ONNX file.
    model: String,
    /// SHA-256 of the data with how it was normalised and batched; none where nobody knows it.
    data: Option<String>,
    method: String,
    /// Who calibrated: `TensorRT 8.6.1`, `tickrt`.
    by: String,
    /// [`FILLED`] where it matters, else 0.
    #[serde(default)]
    revision: u32,
    /// SHA-256 of the cache itself.
    #[serde(default)]
    cache: String,
    /// Whether there is data at all in this run, to be held against.
    #[serde(skip)]
    has_data: bool,
}

/// Of a dynamic network's cache that TensorRT made from batches that fill their room: before, it could read what lay behind them.
const FILLED: u32 = 1;

impl Key {
    pub(super) fn new(
        model: &Model,
        data: Option<Option<[u8; 32]>>,
        method: CalibrationMethod,
        most: Option<usize>,
        shapes: &Shapes,
        normalizations: &[Normalization],
        by: &str,
    ) -> Self {
        let hashed = data.flatten().map(|data| {
            let how = serde_json::to_string(&(most, shapes, normalizations)).expect("numbers and strings");
            hex(&Sha256::new().chain_update(data).chain_update(how).finalize())
        });
        let is_dynamic = model.inputs().iter().any(|input| input.elements().is_none());
        Self {
            model: hex(&model.origin_sha256()),
            data: hashed,
            method: method.to_string(),
            by: by.to_owned(),
            revision: if is_dynamic && by != TICKRT { FILLED } else { 0 },
            cache: String::new(),
            has_data: data.is_some(),
        }
    }

    /// What of `made` is another; nothing if it fits. Without data at hand any data will do.
    pub(crate) fn difference(&self, made: &Self) -> Option<String> {
        let short = |hash: &str| hash.get(..12).unwrap_or(hash).to_owned();
        let pairs = [
            ("model", &made.model, &self.model),
            ("method", &made.method, &self.method),
            ("maker", &made.by, &self.by),
        ];
        let differing = pairs.into_iter().find(|(_, made, wanted)| made != wanted);
        if let Some((what, made, wanted)) = differing {
            return Some(format!("of another {what} ({}, not {})", short(made), short(wanted)));
        }
        if made.revision < self.revision {
            return Some("of an earlier tickrt, whose ranges may be of what lay in memory behind a batch".to_owned());
        }
        if self.has_data && (self.data.is_none() || made.data != self.data) {
            return Some("of other data".to_owned());
        }
        None
    }
}

/// What a file has for a build.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// None if there is no file, or not one that fits.
    pub(crate) bytes: Option<Vec<u8>>,
    /// What the caller should know.
    pub(crate) notes: Vec<String>,
    /// Whether the file is to be kept under another name before a new one is written.
    pub(crate) aside: bool,
}

/// Reads the file at `path` if it was made from `key`.
pub(super) fn read(path: &Path, key: &Key) -> Result<Found> {
    if !path.exists() {
        return Ok(Found::default());
    }
    let bytes = files::read(path, || format!("read the calibration cache {}", path.display()))?;
    let made = std::fs::read(key_file(path)).ok().and_then(|text| parse_key(&text));
    let wrong = match &made {
        None => Some(format!("of unknown origin (there is no {})", key_file(path).display())),
        Some(made) if made.cache != hex(&Sha256::digest(&bytes)) => {
            Some(format!("damaged or another program's: it is not what {} says", key_file(path).display()))
        }
        Some(made) => key.difference(made),
    };
    Ok(match wrong {
        None => Found { bytes: Some(bytes), ..Found::default() },
        Some(wrong) => Found {
            bytes: None,
            notes: vec![format!("the calibration cache {} is {wrong}: it was not used", path.display())],
            aside: true,
        },
    })
}

/// What a cache was made from, as the file beside it says.
pub(crate) fn parse_key(text: &[u8]) -> Option<Key> {
    serde_json::from_slice(text).ok()
}

/// Writes it, with its key. Between the two another build may write its own: the next one then finds a cache that it
/// takes for damaged, and calibrates anew.
pub(crate) fn write(path: &Path, bytes: &[u8], key: &Key, aside: bool) -> Result<()> {
    if aside {
        files::put_aside(path, "the calibration cache")?;
    }
    let key = Key { cache: hex(&Sha256::digest(bytes)), ..key.clone() };
    let _ = std::fs::remove_file(key_file(path));
    files::write_atomically(path, bytes)?;
    let text = serde_json::to_string_pretty(&key).expect("strings");
    files::write_atomically(&key_file(path), (text + "\n").as_bytes())
}

fn key_file(path: &Path) -> PathBuf {
    files::with_ending(path, ".json")
}

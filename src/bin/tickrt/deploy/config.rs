//! The TOML file that says what to deploy.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::triton;
use crate::exit::{Failure, Outcome};

/// What to deploy, where to, and what it must come up to. Paths are absolute once it is read.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Names the folder in the store.
    pub name: String,
    /// The folder of all deployments.
    pub store: PathBuf,
    /// How many versions stay.
    #[serde(default = "three")]
    pub keep: usize,
    /// A shell's command.
    pub train: Option<String>,
    /// A shell's command.
    pub export: Option<String>,
    /// The model, which `export` may write.
    pub onnx: PathBuf,
    /// Of `tickrt build`.
    #[serde(default)]
    pub normalization: Vec<PathBuf>,
    /// Engines.
    #[serde(rename = "target")]
    pub targets: Vec<Target>,
    /// How close answers must be.
    pub accuracy: Option<Accuracy>,
    /// How fast they must come.
    pub latency: Option<Latency>,
    /// Of `--target triton`.
    #[serde(default)]
    pub triton: triton::Settings,
    /// The folder of the file.
    #[serde(skip)]
    pub folder: PathBuf,
}

/// One engine.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Names its file.
    pub name: String,
    /// Flags of `tickrt build`.
    #[serde(default)]
    pub build: Vec<String>,
}

/// The gate that `tickrt validate` is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accuracy {
    /// Samples; random ones without.
    pub input: Option<PathBuf>,
    /// Absolute tolerance.
    pub atol: f64,
    /// Relative tolerance.
    pub rtol: f64,
    /// Whether it may stay unmeasured.
    #[serde(default)]
    pub optional: bool,
}

/// The gate that `tickrt bench` is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latency {
    /// The 99th percentile may be no longer.
    pub p99_us: f64,
    /// Of `tickrt bench`.
    #[serde(default = "five_seconds")]
    pub duration: String,
    /// Whether it may stay unmeasured.
    #[serde(default)]
    pub optional: bool,
}

fn three() -> usize {
    3
}

fn five_seconds() -> String {
    "5s".to_owned()
}

impl Config {
    /// Reads and checks it.
    pub fn read(path: &Path) -> Outcome<Self> {
        let refused = |got: String| Failure::usage(format!("read {}: {got}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| refused(error.to_string()))?;
        let mut config: Self = toml::from_str(&text).map_err(|error| refused(explain(&text, &error)))?;
        let folder = path.canonicalize().ok().and_then(|path| Some(path.parent()?.to_owned()));
        config.folder = folder.unwrap_or_default();
        config.check().map_err(refused)?;
        let Self { folder, store, onnx, normalization, accuracy, .. } = &mut config;
        let input = accuracy.iter_mut().filter_map(|gate| gate.input.as_mut());
        for path in [store, onnx].into_iter().chain(normalization).chain(input) {
            *path = folder.join(&*path);
        }
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        let names: Vec<&str> = self.targets.iter().map(|target| target.name.as_str()).collect();
        for name in names.iter().copied().chain([self.name.as_str()]) {
            let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-');
            if name.is_empty() || !name.chars().all(plain) {
                return Err(format!("expected a name of letters, digits, _ and -, got `{name}`"));
            }
        }
        if names.is_empty() {
            return Err("expected a [[target]] at least, got none".to_owned());
        }
        if let Some(twice) = names.iter().enumerate().find(|(place, name)| names[..*place].contains(name)) {
            return Err(format!("two targets are named `{}`", twice.1));
        }
        let tolerances = self.accuracy.iter().flat_map(|gate| [gate.atol, gate.rtol]);
        for number in tolerances.chain(self.latency.iter().map(|gate| gate.p99_us)) {
            // NaN compares with nothing: no gate would ever be missed.
            if !(number >= 0.0 && number.is_finite()) {
                return Err(format!("expected a limit from 0 on, got {number}"));
            }
        }
        if names.contains(&triton::CPU) {
            return Err(format!(
                "expected another name for a target than `{}`: in Triton it is the ONNX model's",
                triton::CPU
            ));
        }
        self.triton.check()?;
        if self.keep == 0 { Err("keep: expected 1 at least, got 0".to_owned()) } else { Ok(()) }
    }
}

/// The line, what is wrong there, and for a key that is unknown the nearest that is known, or where it belongs.
fn explain(text: &str, error: &toml::de::Error) -> String {
    let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
    let message = error.message().replace('\n', ", ");
    let hint = if message.starts_with("unknown field") { hint(&message) } else { None };
    format!("line {line}: {message}{}", hint.unwrap_or_default())
}

/// For "unknown field `kep`, expected one of `name`, `keep`".
fn hint(message: &str) -> Option<String> {
    // To TOML a key below a table's head is the table's, blank lines or not.
    const ABOVE: [&str; 6] = ["store", "keep", "train", "export", "onnx", "normalization"];
    let mut names = message.split('`').skip(1).step_by(2);
    let unknown = names.next()?;
    let likeness = |known: &str| strsim::jaro_winkler(unknown, known);
    let near =
        names.filter(|known| likeness(known) > 0.75).max_by(|one, other| likeness(one).total_cmp(&likeness(other)));
    match near {
        Some(known) => Some(format!("; did you mean `{known}`?")),
        None => ABOVE.contains(&unknown).then(|| "; it belongs above the first [table]".to_owned()),
    }
}

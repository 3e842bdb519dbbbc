//! Where NVRTC may lie.

use std::env;
use std::path::{Path, PathBuf};

use super::Nvrtc;
use super::library::Functions;
use crate::error::{Error, ErrorKind, Result};

/// Names the library or the folder that it lies in; then no other is looked for.
const TICKRT_NVRTC: &str = "TICKRT_NVRTC";
/// Where `scripts/setup` put its parts: `$TICKRT_SDK/lib/nvrtc` is searched first.
const TICKRT_SDK: &str = "TICKRT_SDK";
/// A CUDA toolkit, searched next.
const CUDA_HOME: &str = "CUDA_HOME";
/// The newest first. All of CUDA 11.2 to 11.8 is called 11.2.
const NAMES: [&str; 4] = ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so.11.2", "libnvrtc.so"];

pub(super) fn open() -> Result<Nvrtc> {
    let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(named) = variable(TICKRT_NVRTC) {
        return open_named(&named).map_err(|fault| missing(vec![format!("${TICKRT_NVRTC}: {fault}")]));
    }
    let sdk = variable(TICKRT_SDK).map(|sdk| sdk.join("lib/nvrtc"));
    let toolkits = [variable(CUDA_HOME), Some("/usr/local/cuda".into())].into_iter().flatten();
    let mut faults = Vec::new();
    for folder in sdk.into_iter().chain(toolkits.map(|toolkit| toolkit.join("lib64"))) {
        match in_folder(&folder) {
            Ok(found) => return Ok(found),
            Err(mut found) => faults.append(&mut found),
        }
    }
    in_linkers_path().map_err(|fault| {
        faults.push(fault);
        missing(faults)
    })
}

fn open_named(named: &Path) -> Result<Nvrtc, String> {
    if named.is_dir() {
        return in_folder(named).map_err(|faults| faults.join("; "));
    }
    // Without a slash the linker would take it for a name, and look elsewhere.
    let path = named.canonicalize().map_err(|error| format!("{}: {}", named.display(), crate::files::plain(&error)))?;
    at(&path).map_err(|said| line(&path, &said))
}

/// The first that opens, or a line for each that is there, or for the folder.
fn in_folder(folder: &Path) -> Result<Nvrtc, Vec<String>> {
    let mut faults = Vec::new();
    for path in NAMES.iter().map(|name| folder.join(name)).filter(|path| path.exists()) {
        match at(&path) {
            Ok(found) => return Ok(found),
            Err(said) => faults.push(line(&path, &said)),
        }
    }
    if faults.is_empty() {
        let what = if folder.is_dir() { "no libnvrtc.so in it" } else { "no such folder" };
        faults.push(format!("{}: {what}", folder.display()));
    }
    Err(faults)
}

fn in_linkers_path() -> Result<Nvrtc, String> {
    let mut last = String::new();
    for name in NAMES {
        match at(Path::new(name)) {
            Ok(found) => return Ok(found),
            Err(said) => last = said,
        }
    }
    Err(format!("where the dynamic linker looks: {last}"))
}

fn at(path: &Path) -> Result<Nvrtc, String> {
    let (functions, version) = Functions::open(path)?;
    Ok(Nvrtc { functions, version, path: path.display().to_string() })
}

/// The linker often begins with the path itself.
fn line(path: &Path, said: &str) -> String {
    let shown = path.display().to_string();
    let said = said.strip_prefix(&*shown).map_or(said, |rest| rest.trim_start_matches([':', ' ']));
    format!("{shown}: {said}")
}

fn missing(faults: Vec<String>) -> Error {
    Error::new(ErrorKind::Unsupported, "open NVRTC, which compiles resident engines")
        .expected("libnvrtc.so of CUDA 11.1 or newer")
        .got("none that can be used")
        .advice(
            "run scripts/setup and set TICKRT_SDK to the .sdk folder that it filled (. scripts/env), or name the library in \
             TICKRT_NVRTC; where artefacts run it is not needed",
        )
        .log(faults)
}

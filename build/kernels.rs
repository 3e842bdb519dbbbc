//! Compiling the kernels with nvcc, into one fatbin that the driver loads: no CUDA library is linked.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{is_file, leave_out, vars};

/// The sources, relative to `kernels/`. Headers lie beside them.
const KERNELS: [&str; 1] = ["tickrt.cu"];
/// Compute capabilities worth machine code of their own, of which the toolkit's are taken: Turing to Blackwell. Newer
/// GPUs compile the newest one's PTX when the kernels are loaded.
const CAPABILITIES: [u32; 7] = [75, 80, 86, 89, 90, 100, 120];
const PART: &str = "its CUDA kernels";

/// Writes `tickrt.fatbin` into `out`; false, and a warning, where that cannot be.
pub(crate) fn compile(out: &Path) -> bool {
    if vars::is_docs_rs() || !KERNELS.iter().all(|name| is_file(&Path::new("kernels").join(name))) {
        return false;
    }
    let Some(nvcc) = find_nvcc() else {
        leave_out(PART, "nvcc was not found", "run scripts/setup or set CUDA_HOME");
        return false;
    };
    compile_with(&nvcc, out).unwrap_or_else(|why| {
        leave_out(PART, &format!("{}: {why}", nvcc.display()), "see the message, or set CUDA_HOME to another toolkit");
        false
    })
}

fn find_nvcc() -> Option<PathBuf> {
    let homes = vars::cuda_home().into_iter().chain([PathBuf::from("/usr/local/cuda"), vars::sdk().join("cuda")]);
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&on_path).map(|folder| folder.join("nvcc")).collect::<Vec<_>>();
    homes.map(|home| home.join("bin/nvcc")).chain(on_path).find(|nvcc| is_file(nvcc))
}

fn compile_with(nvcc: &Path, out: &Path) -> Result<bool, String> {
    let text = |error: std::io::Error| error.to_string();
    // nvcc makes a fatbin of one source alone: this one includes them all.
    let source = out.join("kernels.cu");
    let includes: String = KERNELS.iter().map(|name| format!("#include \"{name}\"\n")).collect();
    let fatbin = out.join("tickrt.fatbin");
    let mut arguments = vec!["-O3", "-std=c++17", "--fatbin", "-Ikernels", "--threads=2"];
    let targets = targets(&capabilities_of(nvcc)?)?;
    arguments.extend(targets.iter().map(String::as_str));

    let stamp_file = out.join("kernels.stamp");
    let stamp = stamp(nvcc, &arguments)?;
    if is_file(&fatbin) && fs::read_to_string(&stamp_file).is_ok_and(|last| last == stamp) {
        return Ok(true);
    }
    fs::write(&source, includes).map_err(text)?;
    let ran = Command::new(nvcc).args(&arguments).arg("-o").arg(&fatbin).arg(&source).output().map_err(text)?;
    if !ran.status.success() {
        let said = String::from_utf8_lossy(&ran.stderr);
        // A cargo warning is one line.
        return Err(said.lines().filter(|line| !line.trim().is_empty()).take(4).collect::<Vec<_>>().join(" | "));
    }
    fs::write(&stamp_file, stamp).map_err(text)?;
    Ok(true)
}

/// What the toolkit can make machine code for.
fn capabilities_of(nvcc: &Path) -> Result<Vec<u32>, String> {
    let ran = Command::new(nvcc).arg("--list-gpu-code").output().map_err(|error| error.to_string())?;
    let listed = String::from_utf8_lossy(&ran.stdout).into_owned();
    let known: Vec<u32> = listed.split_whitespace().filter_map(|word| word.strip_prefix("sm_")?.parse().ok()).collect();
    Ok(CAPABILITIES.into_iter().filter(|capability| known.contains(capability)).collect())
}

/// `-gencode` for each, and PTX of the newest.
fn targets(capabilities: &[u32]) -> Result<Vec<String>, String> {
    let newest = capabilities.last().ok_or("it knows none of the GPUs that the kernels are for")?;
    let machine = capabilities.iter().map(|cc| format!("-gencode=arch=compute_{cc},code=sm_{cc}"));
    Ok(machine.chain([format!("-gencode=arch=compute_{newest},code=compute_{newest}")]).collect())
}

/// Changes when a recompilation is due: nvcc takes longer than all the rest, and cargo runs this for any change.
fn stamp(nvcc: &Path, arguments: &[&str]) -> Result<String, String> {
    let mut hasher = DefaultHasher::new();
    (nvcc, arguments).hash(&mut hasher);
    let mut files: Vec<PathBuf> =
        fs::read_dir("kernels").map_err(|error| error.to_string())?.flatten().map(|entry| entry.path()).collect();
    files.sort();
    for file in files.iter().filter(|file| is_file(file)) {
        (file, fs::read(file).map_err(|error| error.to_string())?).hash(&mut hasher);
    }
    Ok(format!("{:016x}", hasher.finish()))
}

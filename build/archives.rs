//! Linking TensorRT and ONNX Runtime in, for those who have their archives: the features tensorrt-static and ort-static.
//!
//! Linked with `-bundle`: archives of a gigabyte are not copied into the crate's own.

use std::path::{Path, PathBuf};

use crate::flavours::Flavour;
use crate::{is_file, leave_out, vars};

/// Those whose archives NVIDIA hands out.
const WITH_ARCHIVES: [&str; 2] = ["trt8", "trt10"];
/// Folders of an installation that hold archives.
const FOLDERS: [&str; 3] = ["lib", "lib64", "targets/x86_64-linux-gnu/lib"];
/// What must be there, in the order in which each refers to the next. libnvinfer registers parts of itself in constructors
/// that nothing refers to: it is linked whole.
const NEEDED: [(&str, bool); 2] = [("nvonnxparser_static", false), ("nvinfer_static", true)];
/// What these refer to in some versions, linked where it lies beside them.
const BESIDE: [(&str, bool); 4] =
    [("nvinfer_plugin_static", true), ("onnx_proto", false), ("protobuf-lite", false), ("protobuf", false)];

/// The folder of `$TENSORRT_ROOT` with the archives to link, if that was asked for and they are there.
pub(crate) fn tensorrt(compiled: &[Flavour]) -> Option<PathBuf> {
    if !vars::has_feature("TENSORRT_STATIC") || vars::is_docs_rs() {
        return None;
    }
    match find_tensorrt(compiled) {
        Ok(folder) => Some(folder),
        Err(why) => {
            leave_out("TensorRT linked in (tensorrt-static)", &why, "see LINKING.md");
            None
        }
    }
}

fn find_tensorrt(compiled: &[Flavour]) -> Result<PathBuf, String> {
    let root = vars::tensorrt_root().ok_or("TENSORRT_ROOT is not set")?;
    let include = root.join("include");
    let flavour = compiled.iter().find(|flavour| flavour.include() == include);
    let flavour = flavour.ok_or_else(|| format!("{} has no headers of a TensorRT that is known", include.display()))?;
    if !WITH_ARCHIVES.contains(&flavour.name()) {
        return Err(format!("NVIDIA has static archives of 8.6 to 10.x, not of {}", flavour.name()));
    }
    let holds = |folder: &Path| NEEDED.iter().all(|(name, _)| is_file(&archive(folder, name)));
    let folder = FOLDERS.map(|folder| root.join(folder)).into_iter().find(|folder| holds(folder));
    let names = NEEDED.map(|(name, _)| format!("lib{name}.a")).join(" and ");
    folder.ok_or_else(|| format!("{names} were not found in {}", root.display()))
}

/// To be called when everything that refers to them is linked.
pub(crate) fn link_tensorrt(folder: &Path) {
    println!("cargo:rustc-link-search=native={}", folder.display());
    let [parser, infer] = NEEDED;
    let beside = BESIDE.into_iter().filter(|(name, _)| is_file(&archive(folder, name)));
    for (name, whole) in [parser].into_iter().chain(beside).chain([infer]) {
        println!("cargo:rerun-if-changed={}", archive(folder, name).display());
        let modifiers = if whole { "+whole-archive,-bundle" } else { "-bundle" };
        println!("cargo:rustc-link-lib=static:{modifiers}={name}");
    }
    for name in vars::tensorrt_static_libraries() {
        println!("cargo:rustc-link-lib={name}");
    }
}

/// Links `$ORT_LIB_PATH/libonnxruntime.a` if that was asked for; whether it did.
pub(crate) fn onnx_runtime() -> bool {
    if !vars::has_feature("ORT_STATIC") || vars::is_docs_rs() {
        return false;
    }
    let part = "ONNX Runtime linked in (ort-static)";
    let Some(folder) = vars::ort_lib_path() else {
        leave_out(part, "ORT_LIB_PATH is not set", "see LINKING.md");
        return false;
    };
    let library = archive(&folder, "onnxruntime");
    if !is_file(&library) {
        leave_out(part, &format!("{} is not there", library.display()), "see LINKING.md");
        return false;
    }
    println!("cargo:rerun-if-changed={}", library.display());
    println!("cargo:rustc-link-search=native={}", folder.display());
    println!("cargo:rustc-link-lib=static:-bundle=onnxruntime");
    true
}

fn archive(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("lib{name}.a"))
}

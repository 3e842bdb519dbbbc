//! Every environment variable that the build reads.

use std::env;
use std::path::PathBuf;

/// Where scripts/setup puts what it fetches; `.sdk` beside Cargo.toml if unset.
const TICKRT_SDK: &str = "TICKRT_SDK";
/// A TensorRT installation; its headers win for their own flavour and displace no other.
const TENSORRT_ROOT: &str = "TENSORRT_ROOT";
/// TensorRT 8.6's headers alone.
const TICKRT_TRT8_INCLUDE: &str = "TICKRT_TRT8_INCLUDE";
/// With the feature tensorrt-static: what else is to be linked, as `cudart_static nvrtc_static`; where it lies is for
/// `RUSTFLAGS=-L...` to say.
const TICKRT_TENSORRT_STATIC_LIBS: &str = "TICKRT_TENSORRT_STATIC_LIBS";
/// With the feature ort-static: the folder of libonnxruntime.a.
const ORT_LIB_PATH: &str = "ORT_LIB_PATH";
/// A CUDA toolkit, for nvcc.
const CUDA_HOME: &str = "CUDA_HOME";
/// Set where docs.rs builds: only the bridge is compiled there.
const DOCS_RS: &str = "DOCS_RS";

pub(crate) fn watch() {
    let linking = [TICKRT_TENSORRT_STATIC_LIBS, ORT_LIB_PATH];
    for name in [TICKRT_SDK, TENSORRT_ROOT, TICKRT_TRT8_INCLUDE, CUDA_HOME, DOCS_RS].iter().chain(&linking) {
        println!("cargo:rerun-if-env-changed={name}");
    }
}

pub(crate) fn sdk() -> PathBuf {
    path(TICKRT_SDK).unwrap_or_else(|| PathBuf::from(required("CARGO_MANIFEST_DIR")).join(".sdk"))
}

pub(crate) fn tensorrt_root() -> Option<PathBuf> {
    path(TENSORRT_ROOT)
}

pub(crate) fn trt8_include() -> Option<PathBuf> {
    path(TICKRT_TRT8_INCLUDE)
}

pub(crate) fn cuda_home() -> Option<PathBuf> {
    path(CUDA_HOME)
}

pub(crate) fn tensorrt_static_libraries() -> Vec<String> {
    env::var(TICKRT_TENSORRT_STATIC_LIBS).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

pub(crate) fn ort_lib_path() -> Option<PathBuf> {
    path(ORT_LIB_PATH)
}

/// Whether a feature of the package is on; `name` as cargo writes it.
pub(crate) fn has_feature(name: &str) -> bool {
    env::var_os(format!("CARGO_FEATURE_{name}")).is_some()
}

pub(crate) fn is_docs_rs() -> bool {
    env::var_os(DOCS_RS).is_some()
}

/// One that cargo itself sets.
pub(crate) fn required(name: &str) -> String {
    env::var(name).unwrap_or_default()
}

fn path(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

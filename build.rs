//! Compiles the native parts: the bridge, one shim for each set of TensorRT headers that is found, and the kernels.
//!
//! Whatever is missing is left out and named in one cargo warning; nothing native that is missing fails the build.

#[path = "build/archives.rs"]
mod archives;
#[path = "build/flavours.rs"]
mod flavours;
#[path = "build/kernels.rs"]
mod kernels;
#[path = "build/vars.rs"]
mod vars;

use std::path::{Path, PathBuf};
use std::process::exit;
use std::thread;

/// What the bridge consists of beside src/bridge.rs. Every file of cpp/ is watched.
const BRIDGE_SOURCES: [&str; 4] = ["cpp/bridge.cc", "cpp/loader.cc", "cpp/log.cc", "cpp/outcome.cc"];

/// Static variables in inline functions stay ordinary symbols: capi/localise makes those local, unique ones it cannot.
const NO_UNIQUE: &str = "-fno-gnu-unique";

fn main() {
    vars::watch();
    for path in ["build.rs", "build", "cpp", "src/bridge.rs", "kernels"] {
        println!("cargo:rerun-if-changed={path}");
    }
    let out = PathBuf::from(vars::required("OUT_DIR"));
    let (compiled, kernels) = thread::scope(|scope| {
        let kernels = scope.spawn(|| kernels::compile(&out));
        (flavours::compile_all(&out), kernels.join())
    });
    let linked = archives::tensorrt(&compiled);
    if let Err(error) = compile_bridge(&compiled, linked.is_some()) {
        println!("cargo:warning=tickrt needs a C++17 compiler for its bridge (set CXX to name one): {error}");
        exit(1);
    }
    // After the bridge, which refers to them.
    for flavour in &compiled {
        println!("cargo:rustc-link-lib=static={}", flavour.library());
        println!("cargo:rustc-cfg=tickrt_{}", flavour.name());
        // For the tests: their stand-in libraries are compiled with the same headers.
        let include = flavour.include().display();
        println!("cargo:rustc-env=TICKRT_HEADERS_{}={include}", flavour.name().to_uppercase());
    }
    println!("cargo:rustc-link-search=native={}", out.display());
    if matches!(kernels, Ok(true)) {
        println!("cargo:rustc-cfg=tickrt_kernels");
    }
    // After the bridge and the flavours as well.
    if let Some(folder) = &linked {
        archives::link_tensorrt(folder);
    }
    if archives::onnx_runtime() {
        println!("cargo:rustc-cfg=tickrt_linked_ort");
    }
    println!("cargo:rustc-check-cfg=cfg(tickrt_trt8, tickrt_trt10, tickrt_trt11, tickrt_rtx, tickrt_kernels)");
    println!("cargo:rustc-check-cfg=cfg(tickrt_linked_ort)");
    // dlopen; a part of libc itself from glibc 2.34 on.
    println!("cargo:rustc-link-lib=dl");
}

fn compile_bridge(flavours: &[flavours::Flavour], linked: bool) -> Result<(), String> {
    let mut build = cxx_build::bridge("src/bridge.rs");
    build.files(BRIDGE_SOURCES).std("c++17").warnings(true).extra_warnings(true);
    build.flag_if_supported(NO_UNIQUE);
    for flavour in flavours {
        build.define(&format!("TICKRT_HAVE_{}", flavour.name().to_uppercase()), None);
    }
    if linked {
        build.define("TICKRT_LINKED_TENSORRT", None);
    }
    build.try_compile("tickrt_bridge").map_err(|error| error.to_string())
}

/// Says that a part is left out: what, why, and what brings it in.
fn leave_out(part: &str, why: &str, remedy: &str) {
    println!("cargo:warning=tickrt is built without {part}: {why}; {remedy}");
}

fn is_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|data| data.is_file())
}

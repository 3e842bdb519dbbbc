//! TensorRT, ONNX Runtime and CUDA: which are there, where, and whether they fit each other.

use tickrt::backend::ort::OnnxRuntime;
use tickrt::{Device, Error, Flavour, Library, Preference, Version};

use super::finding::Finding;

const AREA: &str = "library";

/// What TensorRT-RTX 1 builds for. It refuses every other GPU, those of data centres among them.
const RTX_CAPABILITIES: [(u32, u32); 6] = [(7, 5), (8, 0), (8, 6), (8, 9), (12, 0), (12, 1)];

/// All of it.
pub fn look(device: usize) -> Vec<Finding> {
    let gpu = Device::open(device);
    let capability = gpu.as_ref().ok().map(|gpu| gpu.compute_capability());
    let mut findings = vec![cuda(&gpu, Device::driver_version())];
    let libraries: Vec<(Flavour, Result<Library, Error>)> = Flavour::compiled_in()
        .iter()
        .map(|&flavour| (flavour, Library::open_any(&Preference::Flavour(flavour))))
        .collect();
    let found: Vec<(Version, String)> = libraries
        .iter()
        .filter_map(|(_, library)| library.as_ref().ok())
        .map(|library| (library.version(), library.path().display().to_string()))
        .collect();
    findings.push(tensorrt(&found, capability));
    findings.push(onnx_runtime(OnnxRuntime::load(None)));
    findings
}

fn cuda(gpu: &tickrt::Result<std::sync::Arc<Device>>, driver: Option<(u32, u32)>) -> Finding {
    const WHAT: &str = "CUDA";
    match gpu {
        Ok(gpu) => {
            let (major, minor) = gpu.compute_capability();
            let of_driver = driver.map_or_else(String::new, |(major, minor)| format!("CUDA {major}.{minor}, "));
            Finding::ok(AREA, WHAT, format!("{of_driver}{}, compute capability {major}.{minor}", gpu.name()))
        }
        Err(error) => Finding::wrong(AREA, WHAT, error.to_string())
            .expected("an NVIDIA driver and at least one GPU")
            .fix("see nvidia-smi; in a container, start it with --gpus all"),
    }
}

fn tensorrt(found: &[(Version, String)], capability: Option<(u32, u32)>) -> Finding {
    const WHAT: &str = "TensorRT";
    let seen: Vec<String> = found.iter().map(|(version, path)| format!("{version} ({path})")).collect();
    let seen = seen.join(", ");
    if found.is_empty() {
        return Finding::wrong(AREA, WHAT, "none that could be opened")
            .expected("one of the flavours that this build has a shim for")
            .fix(
                "set TENSORRT_ROOT to an installation, or run scripts/setup and source scripts/env; \
                  `tickrt smoke` lists every place that was tried",
            );
    }
    let only_rtx = found.iter().all(|(version, _)| version.is_rtx());
    match capability {
        Some((major, minor)) if only_rtx && !RTX_CAPABILITIES.contains(&(major, minor)) => {
            Finding::wrong(AREA, WHAT, seen)
                .expected(format!("a TensorRT for compute capability {major}.{minor}, which TensorRT-RTX is not"))
                .fix("install TensorRT 8.6, 10 or 11 and set TENSORRT_ROOT")
        }
        _ => Finding::ok(AREA, WHAT, seen),
    }
}

fn onnx_runtime(loaded: tickrt::Result<&OnnxRuntime>) -> Finding {
    const WHAT: &str = "ONNX Runtime";
    match loaded {
        Ok(runtime) => {
            let cuda = if runtime.has_provider("CUDAExecutionProvider") { "with" } else { "without" };
            let path = runtime.path().display();
            Finding::ok(AREA, WHAT, format!("{} {cuda} CUDA ({path})", runtime.version()))
        }
        Err(error) => Finding::wrong(AREA, WHAT, error.to_string())
            .expected("1.22 or newer: without it there is no fallback")
            .fix("set ORT_DYLIB_PATH to libonnxruntime.so, or run scripts/setup and source scripts/env"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    fn version(major: u32) -> Version {
        Version { major, minor: 0, patch: 0 }
    }

    #[test]
    fn tensorrt_rtx_alone_does_not_fit_a_data_centre_gpu() {
        let (rtx, trt) = ((version(1), "/rtx".to_owned()), (version(10), "/trt".to_owned()));
        assert_eq!(tensorrt(std::slice::from_ref(&rtx), Some((9, 0))).verdict, Verdict::Wrong);
        assert_eq!(tensorrt(std::slice::from_ref(&rtx), Some((8, 9))).verdict, Verdict::Ok);
        assert_eq!(tensorrt(&[trt, rtx.clone()], Some((9, 0))).verdict, Verdict::Ok);
        assert_eq!(tensorrt(&[rtx], None).verdict, Verdict::Ok);
        assert_eq!(tensorrt(&[], None).verdict, Verdict::Wrong);
    }
}

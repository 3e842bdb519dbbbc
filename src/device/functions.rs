//! What of the driver is there. Its functions are looked up by name when they are first called, and cudarc panics for one that
//! the installed driver lacks: so each is looked for here before.
//!
//! What no GPU works without is asked for when CUDA is started. What came later costs the feature that needs it.

use cudarc::driver::sys;

/// What nothing works without. All of it is in the drivers of CUDA 11.0 (450) and newer.
const REQUIRED: [&str; 33] = [
    "cuInit",
    "cuDriverGetVersion",
    "cuDeviceGetCount",
    "cuDeviceGet",
    "cuDeviceGetName",
    "cuDeviceGetAttribute",
    "cuDevicePrimaryCtxRetain",
    "cuDevicePrimaryCtxRelease_v2",
    "cuCtxSetCurrent",
    "cuMemGetInfo_v2",
    "cuMemAlloc_v2",
    "cuMemFree_v2",
    "cuMemHostAlloc",
    "cuMemFreeHost",
    "cuMemHostGetDevicePointer_v2",
    "cuMemsetD8_v2",
    "cuMemcpyHtoD_v2",
    "cuMemcpyDtoH_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuStreamCreateWithPriority",
    "cuStreamDestroy_v2",
    "cuStreamQuery",
    "cuStreamSynchronize",
    "cuThreadExchangeStreamCaptureMode",
    "cuModuleLoadData",
    "cuModuleUnload",
    "cuModuleGetFunction",
    "cuLaunchKernel",
    // Graphs' own, without which no graph is made and these are not called; in every driver that makes one.
    "cuGraphLaunch",
    "cuGraphDestroy",
    "cuGraphExecDestroy",
    "cuStreamEndCapture",
];

/// What a driver may lack, and what is done without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Feature {
    /// A graph captured once and launched with one call. Without it a call's parts are launched one by one.
    Graphs,
    /// Kernels launched before the one before them has ended. Without it they wait.
    LaunchAttributes,
    /// To know what a kernel was compiled for. Without it the least is assumed.
    FunctionAttributes,
    /// Kernels that have all of a multiprocessor's shared memory, in clusters, and how many of those fit the GPU. Without it
    /// there are no resident engines.
    Clusters,
    /// Memory that another library exports, and the device's UUID to find it by. Without it no memory of the GPU is written
    /// through BAR1.
    ExternalMemory,
}

impl Feature {
    /// What it needs, and with which CUDA's driver that came.
    const fn needs(self) -> (&'static [&'static str], &'static str) {
        match self {
            Self::Graphs => {
                (&["cuStreamBeginCapture_v2", "cuGraphInstantiateWithFlags", "cuGraphUpload"], "11.4 (470)")
            }
            Self::LaunchAttributes => (&["cuLaunchKernelEx"], "11.8 (520)"),
            Self::FunctionAttributes => (&["cuFuncGetAttribute"], "10.1 (418)"),
            Self::Clusters => (&["cuFuncSetAttribute", "cuOccupancyMaxActiveClusters"], "11.8 (520)"),
            Self::ExternalMemory => (
                &[
                    "cuDeviceGetUuid_v2",
                    "cuImportExternalMemory",
                    "cuExternalMemoryGetMappedBuffer",
                    "cuDestroyExternalMemory",
                ],
                "11.4 (470)",
            ),
        }
    }

    /// Whether the driver has it; else what it lacks, and what would have it.
    pub(crate) fn check(self) -> Result<(), String> {
        let (functions, since) = self.needs();
        match functions.iter().find(|name| !has(name)) {
            Some(name) => Err(format!("the driver lacks {name}, which came with CUDA {since}: update the driver")),
            None => Ok(()),
        }
    }

    pub(crate) fn is_there(self) -> bool {
        self.needs().0.iter().all(|name| has(name))
    }
}

/// The first of what nothing works without that the driver lacks.
pub(super) fn missing() -> Option<&'static str> {
    REQUIRED.into_iter().find(|name| !has(name))
}

/// Only where libcuda could be opened.
fn has(name: &str) -> bool {
    // SAFETY: opens what is open already; the symbol is looked for, and not called.
    unsafe { sys::culib().get::<*const ()>(name.as_bytes()).is_ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What cudarc's functions call of the driver's.
    const RESULT: [(&str, &str); 29] = [
        ("ctx::set_current", "cuCtxSetCurrent"),
        ("device::get", "cuDeviceGet"),
        ("device::get_attribute", "cuDeviceGetAttribute"),
        ("device::get_count", "cuDeviceGetCount"),
        ("device::get_name", "cuDeviceGetName"),
        ("free_host", "cuMemFreeHost"),
        ("free_sync", "cuMemFree_v2"),
        ("graph::destroy", "cuGraphDestroy"),
        ("graph::exec_destroy", "cuGraphExecDestroy"),
        ("graph::instantiate", "cuGraphInstantiateWithFlags"),
        ("graph::launch", "cuGraphLaunch"),
        ("graph::upload", "cuGraphUpload"),
        ("init", "cuInit"),
        ("malloc_host", "cuMemHostAlloc"),
        ("malloc_sync", "cuMemAlloc_v2"),
        ("mem_get_info", "cuMemGetInfo_v2"),
        ("memcpy_dtoh_sync", "cuMemcpyDtoH_v2"),
        ("memcpy_htod_sync", "cuMemcpyHtoD_v2"),
        ("memset_d8_sync", "cuMemsetD8_v2"),
        ("module::get_function", "cuModuleGetFunction"),
        ("module::load_data", "cuModuleLoadData"),
        ("module::unload", "cuModuleUnload"),
        ("primary_ctx::release", "cuDevicePrimaryCtxRelease_v2"),
        ("primary_ctx::retain", "cuDevicePrimaryCtxRetain"),
        ("stream::begin_capture", "cuStreamBeginCapture_v2"),
        ("stream::create_with_priority", "cuStreamCreateWithPriority"),
        ("stream::destroy", "cuStreamDestroy_v2"),
        ("stream::end_capture", "cuStreamEndCapture"),
        ("stream::synchronize", "cuStreamSynchronize"),
    ];

    /// The words that follow `prefix` in `text`, as far as they are paths.
    fn paths_after<'a>(text: &'a str, prefix: &str) -> Vec<&'a str> {
        let word = |rest: &'a str| {
            let end = rest.find(|letter: char| !(letter.is_alphanumeric() || letter == '_' || letter == ':'));
            &rest[..end.unwrap_or(rest.len())]
        };
        text.split(prefix).skip(1).map(word).collect()
    }

    fn is_known(function: &str) -> bool {
        let features = [
            Feature::Graphs,
            Feature::LaunchAttributes,
            Feature::FunctionAttributes,
            Feature::Clusters,
            Feature::ExternalMemory,
        ];
        REQUIRED.contains(&function) || features.iter().any(|feature| feature.needs().0.contains(&function))
    }

    #[test]
    fn every_function_that_is_called_is_looked_for_before() {
        let source = concat!(include_str!("../device.rs"), include_str!("bar1.rs"));
        let direct = paths_after(source, "sys::cu").into_iter().map(|name| format!("cu{name}"));
        let unknown: Vec<String> = direct.filter(|name| !is_known(name)).collect();
        assert!(unknown.is_empty(), "{unknown:?} must stand in REQUIRED or be a Feature's");
        // Functions begin small, types (`stream::StreamKind`) do not.
        let is_function =
            |path: &&str| path.rsplit("::").next().is_some_and(|last| last.starts_with(char::is_lowercase));
        for path in paths_after(source, "result::").into_iter().filter(is_function) {
            let function = RESULT.iter().find(|(known, _)| *known == path);
            let (_, function) = function.unwrap_or_else(|| panic!("what does result::{path} call?"));
            assert!(is_known(function), "{function} must stand in REQUIRED or be a Feature's");
        }
    }
}

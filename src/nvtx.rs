//! NVTX ranges: what Nsight Systems shows above the GPU's work. Without the feature `nvtx` they are nothing.
//!
//! NVTX 3 is headers in C, and no library any more: CUDA 13 ships no `libnvToolsExt.so`. The package `nvtx` carries the headers
//! and compiles them. A profiler puts its own library into the process with `NVTX_INJECTION64_PATH`, which the first range reads;
//! where there is none, a range is a load and a branch at its beginning and at its end.

/// Ends when it is dropped, on the thread that began it.
pub(crate) struct Range {
    /// Not for another thread.
    _own: std::marker::PhantomData<*const ()>,
}

/// Begins a range. Allocates nothing.
#[cfg(feature = "nvtx")]
#[inline]
pub(crate) fn range(name: &'static std::ffi::CStr) -> Range {
    // SAFETY: the text ends with a zero and outlives the call; a profiler copies it.
    unsafe { ffi_range_push(name.as_ptr()) };
    Range { _own: std::marker::PhantomData }
}

/// Nothing.
#[cfg(not(feature = "nvtx"))]
#[inline(always)]
pub(crate) fn range(_: &'static std::ffi::CStr) -> Range {
    Range { _own: std::marker::PhantomData }
}

#[cfg(feature = "nvtx")]
impl Drop for Range {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: this thread has pushed a range that it has not popped.
        unsafe { ffi_range_pop() };
    }
}

// Links what the package compiles. Its own Rust copies each name into a new allocation.
#[cfg(feature = "nvtx")]
use ::nvtx as _;

// Of its `export.c`; Cargo.toml names the one version whose functions these are.
#[cfg(feature = "nvtx")]
unsafe extern "C" {
    fn ffi_range_push(message: *const std::ffi::c_char) -> std::ffi::c_int;
    fn ffi_range_pop() -> std::ffi::c_int;
}

// Without the feature there is nothing to keep and nothing to do at the end.
#[cfg(not(feature = "nvtx"))]
const _: () = assert!(size_of::<Range>() == 0 && !std::mem::needs_drop::<Range>());

//! NVTX ranges: what Nsight Systems shows above the GPU's work. Without the feature `nvtx` they are nothing.

/// Ends when it is dropped, on the thread that began it.
pub(crate) struct Range {
    /// Not for another thread.
    _own: std::marker::PhantomData<*const ()>,
    #[cfg(feature = "nvtx")]
    begun: bool,
}

/// Begins a range; does nothing where NVTX's library (`libnvToolsExt.so.1`) is missing. Allocates nothing.
#[cfg(feature = "nvtx")]
#[inline]
pub(crate) fn range(name: &'static std::ffi::CStr) -> Range {
    let begun = is_there();
    if begun {
        // SAFETY: the library is there; it copies the text, which ends with a zero.
        unsafe { cudarc::nvtx::sys::nvtxRangePushA(name.as_ptr()) };
    }
    Range { _own: std::marker::PhantomData, begun }
}

/// Nothing.
#[cfg(not(feature = "nvtx"))]
#[inline(always)]
pub(crate) fn range(_: &'static std::ffi::CStr) -> Range {
    Range { _own: std::marker::PhantomData }
}

/// Looked for once: by the first range, which is that of a session's start.
#[cfg(feature = "nvtx")]
fn is_there() -> bool {
    static THERE: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    // SAFETY: opens NVTX's library, whose initialisers do nothing of note.
    *THERE.get_or_init(|| unsafe { cudarc::nvtx::sys::is_culib_present() })
}

#[cfg(feature = "nvtx")]
impl Drop for Range {
    #[inline]
    fn drop(&mut self) {
        if self.begun {
            // SAFETY: the library is there; this thread has pushed a range that it has not popped.
            unsafe { cudarc::nvtx::sys::nvtxRangePop() };
        }
    }
}

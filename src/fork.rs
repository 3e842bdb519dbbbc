//! Whether the process was forked since. CUDA does not survive a fork, threads do not either: what was started before belongs to
//! the parent alone.

use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

/// Forks between the first process and this one, since the first call of [`generation`].
static FORKS: AtomicU32 = AtomicU32::new(0);

extern "C" fn in_child() {
    // Relaxed, here and below: the child has one thread, which reads what it wrote.
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// Of this process; another one in a child.
pub(crate) fn generation() -> u32 {
    static WATCH: Once = Once::new();
    WATCH.call_once(|| {
        // SAFETY: the function does what may be done between fork and exec: it writes an atomic.
        let failed = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        debug_assert_eq!(failed, 0, "out of memory");
    });
    FORKS.load(Ordering::Relaxed)
}

/// Whether this process is a child of the one of that generation. One load: the data plane asks it.
#[inline]
pub(crate) fn since(generation: u32) -> bool {
    FORKS.load(Ordering::Relaxed) != generation
}

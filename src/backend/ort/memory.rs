//! Host memory that stays where it is.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

use crate::error::{Error, ErrorKind, Result};

/// A cache line of this size is also what AVX-512 likes to load.
pub(super) const ALIGNMENT: usize = 64;

/// Bytes of zeros at first, aligned to [`ALIGNMENT`]. Moving a block does not move them.
pub(super) struct Block {
    start: NonNull<u8>,
    layout: Layout,
}

impl Block {
    /// # Errors
    /// [`ErrorKind::OutOfMemory`].
    pub(super) fn new(bytes: usize) -> Result<Self> {
        let layout = Layout::from_size_align(bytes.max(1), ALIGNMENT).ok();
        // SAFETY: the size is not zero.
        let start = layout.and_then(|layout| NonNull::new(unsafe { alloc_zeroed(layout) }));
        let (Some(layout), Some(start)) = (layout, start) else {
            return Err(Error::new(ErrorKind::OutOfMemory, "allocate the memory of a call")
                .expected(format!("{bytes} bytes of host memory"))
                .advice("announce smaller shapes or make the ring less deep"));
        };
        Ok(Self { start, layout })
    }

    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, freed once.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// Hands out aligned pieces, one after the other.
#[derive(Default)]
pub(super) struct Pieces(usize);

impl Pieces {
    /// Where the next piece of `bytes` begins.
    pub(super) fn next(&mut self, bytes: usize) -> usize {
        let at = self.0;
        self.0 += bytes.next_multiple_of(ALIGNMENT);
        at
    }

    /// Bytes of all pieces so far.
    pub(super) fn total(&self) -> usize {
        self.0
    }
}

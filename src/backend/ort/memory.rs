//! Host memory that stays where it is.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// A cache line of this size is also what AVX-512 likes to load.
pub(super) const ALIGNMENT: usize = 64;

/// Bytes of zeros at first, aligned to [`ALIGNMENT`]. Moving a block does not move them.
pub(super) struct Block {
    start: NonNull<u8>,
    layout: Layout,
}

impl Block {
    /// # Panics
    /// If `bytes` is larger than any allocation can be.
    pub(super) fn new(bytes: usize) -> Self {
        let layout = Layout::from_size_align(bytes.max(1), ALIGNMENT).expect("a size that fits into memory");
        // SAFETY: the size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        Self { start: NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout)), layout }
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

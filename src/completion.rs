//! The mapped flag by which a device says that an answer is there: the only atomics of the data plane.

use std::sync::atomic::{AtomicU64, Ordering};

/// One slot's flag: the sequence number of the last finished call in the upper 48 bits, its [`Status`] in the lower 16.
///
/// It lies in memory that the device writes (or, for a CPU backend, that the same thread writes). 48 bits last for
/// 89 years of 100 000 calls a second.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct Completion(AtomicU64);

/// What the device saw while it computed an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Status(pub u16);

impl Status {
    /// The input held NaN or infinity, and the normalisation refuses them.
    pub const NON_FINITE_INPUT: u16 = 1;
}

impl Completion {
    /// The call's status if call `sequence` has finished.
    #[inline]
    #[must_use]
    pub fn finished(&self, sequence: u64) -> Option<Status> {
        // Acquire pairs with the device's `st.release.sys` in kernels/publish.cuh, and with the release below: whoever
        // sees the number sees the output that was written before it.
        let seen = self.0.load(Ordering::Acquire);
        (seen >> 16 == sequence).then_some(Status(seen as u16))
    }

    /// Says that call `sequence` has finished: what a CPU backend does where the device's kernel would.
    #[inline]
    pub fn publish(&self, sequence: u64, status: Status) {
        // Release pairs with the acquire above.
        self.0.store(sequence << 16 | u64::from(status.0), Ordering::Release);
    }
}

//! The completion protocol over loom's atomics.

mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering, fence};
}

/// As much of the backends as the protocol asks for.
#[doc(hidden)]
pub mod backend {
    /// The type of an output's elements.
    #[derive(Debug)]
    pub struct DataType(pub usize);

    impl DataType {
        /// Bytes an element.
        #[must_use]
        pub fn size(&self) -> usize {
            self.0
        }
    }

    /// An output.
    #[derive(Debug)]
    pub struct OutputShape {
        /// Its type.
        pub data_type: DataType,
        /// Its elements.
        pub count: usize,
    }
}

#[allow(dead_code)] // what the session uses besides
#[path = "../../src/completion.rs"]
mod completion;

pub use completion::{Completion, Status, Unit};

/// The call's status once all units are there, as the session asks.
#[must_use]
pub fn finished_in_band(units: &[Unit], sequence: u64) -> Option<Status> {
    completion::in_band::finished(units, sequence)
}

/// The words of an answer in band.
pub fn unpack(units: &[Unit], into: &mut [u32]) {
    completion::in_band::unpack(units, into);
}

/// Takes back what looks like the answer of a call that is yet to begin.
pub fn forget(units: &[Unit], sequence: u64) {
    completion::in_band::forget(units, sequence);
}

//! What the hot path counts: plain relaxed words that it alone writes and anybody may read at any time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use crate::backend::BackendKind;
use crate::error::{Error, ErrorKind, Result};

/// Calls, latencies, failures and fallbacks of one session or predictor, for another thread to read.
///
/// Counting costs the hot path some loads and stores: no lock, no allocation, no system call. One thread at a time counts,
/// the one that uses the session; any number may read.
#[derive(Debug)]
pub struct Counters {
    backends: [Answers; BACKENDS.len()],
    failures: [AtomicU64; REASONS.len()],
    fallbacks: [AtomicU64; REASONS.len()],
    known_answers: [AtomicU64; 2],
    /// Place in [`BACKENDS`].
    active: AtomicU8,
    /// The first eight bytes of the hash of what answers.
    engine: AtomicU64,
    /// The Xid that ends the GPU; 0 for none. The only word that the hot path reads and another thread writes.
    alarm: AtomicU64,
}

/// In the order of the arrays here. Journals have the places: a new one goes to the end.
pub(crate) const BACKENDS: [BackendKind; 5] =
    [BackendKind::TensorRt, BackendKind::OrtCuda, BackendKind::OrtCpu, BackendKind::Custom, BackendKind::Resident];

/// Why a call failed or a backend was left, in the order of the arrays here.
pub(crate) const REASONS: [&str; 17] = [
    "device_lost",
    "cuda",
    "out_of_memory",
    "execution",
    "onnx_runtime",
    "deadline_missed",
    "wrong_answer",
    "xid",
    "unavailable",
    "full",
    "non_finite_input",
    "non_finite_output",
    "out_of_range",
    "wrong_use",
    "window_not_full",
    "forked",
    "other",
];

/// Place of an error's reason, as a byte.
pub(crate) fn outcome(error: &Error) -> u8 {
    reason(error.kind()) as u8
}

fn reason(kind: ErrorKind) -> usize {
    match kind {
        ErrorKind::DeviceLost { .. } => 0,
        ErrorKind::Cuda { .. } => 1,
        ErrorKind::OutOfMemory => 2,
        ErrorKind::Execution => 3,
        ErrorKind::OnnxRuntime => 4,
        ErrorKind::DeadlineMissed => 5,
        ErrorKind::WrongAnswer => 6,
        ErrorKind::Xid { .. } => 7,
        ErrorKind::Unavailable => 8,
        ErrorKind::Full { .. } => 9,
        ErrorKind::NonFiniteInput => 10,
        ErrorKind::NonFiniteOutput { .. } => 11,
        ErrorKind::OutOfRange { .. } => 12,
        ErrorKind::WrongLength { .. } | ErrorKind::WrongType { .. } | ErrorKind::UnknownTensor => 13,
        ErrorKind::WindowNotFull { .. } => 14,
        ErrorKind::Forked => 15,
        _ => REASONS.len() - 1,
    }
}

/// The answers of one backend.
#[derive(Debug)]
struct Answers {
    buckets: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
    max_ns: AtomicU64,
}

/// Latencies up to 2⁹ ns share the first bucket; each power of two above it has four, up to 2³⁴ ns, 17 s.
const FIRST: u32 = 9;
const LAST: u32 = 34;
const STEPS: u32 = 4;
pub(crate) const BUCKETS: usize = ((LAST - FIRST) * STEPS) as usize + 2;

/// The bucket of a latency: the first whose bound it does not exceed; the last has no bound.
#[inline]
fn bucket(ns: u64) -> usize {
    // A latency that is a bound belongs below it.
    let ns = ns.saturating_sub(1);
    if ns < 1 << FIRST {
        return 0;
    }
    let power = ns.ilog2();
    let step = (ns >> (power - 2)) & u64::from(STEPS - 1);
    let place = (power - FIRST) * STEPS + step as u32 + 1;
    (place as usize).min(BUCKETS - 1)
}

/// The longest latency of a bucket in nanoseconds; `None` for the last, which has no bound.
#[cfg(any(test, feature = "metrics"))]
pub(crate) fn bound_ns(bucket: usize) -> Option<u64> {
    let bucket = bucket as u32;
    match bucket {
        0 => Some(1 << FIRST),
        _ if bucket as usize == BUCKETS - 1 => None,
        _ => {
            let (power, step) = (FIRST + (bucket - 1) / STEPS, (bucket - 1) % STEPS);
            Some((1_u64 << power) + ((1_u64 << power) / u64::from(STEPS)) * u64::from(step + 1))
        }
    }
}

/// Adds to a word that one thread alone writes: no locked instruction is needed.
#[inline]
fn add(word: &AtomicU64, more: u64) {
    word.store(word.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

fn zeros<const N: usize>() -> [AtomicU64; N] {
    std::array::from_fn(|_| AtomicU64::new(0))
}

impl Counters {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            backends: std::array::from_fn(|_| Answers {
                buckets: zeros(),
                sum_ns: AtomicU64::new(0),
                max_ns: AtomicU64::new(0),
            }),
            failures: zeros(),
            fallbacks: zeros(),
            known_answers: zeros(),
            active: AtomicU8::new(0),
            engine: AtomicU64::new(0),
            alarm: AtomicU64::new(0),
        })
    }

    // ---- The hot path's side.

    #[inline]
    pub(crate) fn answered(&self, backend: BackendKind, latency: Duration) {
        let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        let answers = &self.backends[backend_place(backend)];
        add(&answers.buckets[bucket(ns)], 1);
        add(&answers.sum_ns, ns);
        if ns > answers.max_ns.load(Ordering::Relaxed) {
            answers.max_ns.store(ns, Ordering::Relaxed);
        }
    }

    #[cold]
    pub(crate) fn failed(&self, error: &Error) {
        add(&self.failures[reason(error.kind())], 1);
    }

    #[cold]
    pub(crate) fn fell_back(&self, error: &Error) {
        add(&self.fallbacks[reason(error.kind())], 1);
    }

    pub(crate) fn knew(&self, right: bool) {
        add(&self.known_answers[usize::from(right)], 1);
    }

    /// Who answers from here on.
    pub(crate) fn active(&self, backend: BackendKind, engine: [u8; 32]) {
        let first = engine.first_chunk::<8>().copied().unwrap_or_default();
        self.engine.store(u64::from_be_bytes(first), Ordering::Relaxed);
        self.active.store(backend_place(backend) as u8, Ordering::Relaxed);
    }

    /// The Xid that was raised.
    #[inline]
    pub(crate) fn check_alarm(&self) -> Result<()> {
        match self.alarm.load(Ordering::Relaxed) {
            0 => Ok(()),
            number => Err(ErrorKind::Xid { number: number as u32 }.into()),
        }
    }

    // ---- Everybody else's.

    /// Says that the GPU has reported this Xid: the predictor asks no GPU backend any more, from its next call on. For
    /// watchers of the caller's own; [`Metrics`](crate::Metrics) does it by itself for those that end a GPU.
    pub fn raise_xid(&self, number: u32) {
        self.alarm.store(u64::from(number), Ordering::Relaxed);
    }

    /// Which backend answers.
    #[must_use]
    pub fn active_backend(&self) -> BackendKind {
        BACKENDS[usize::from(self.active.load(Ordering::Relaxed)) % BACKENDS.len()]
    }

    /// The first 16 digits of the SHA-256 of the plan or model that answers.
    #[must_use]
    pub fn engine(&self) -> String {
        format!("{:016x}", self.engine.load(Ordering::Relaxed))
    }

    /// Answers so far, of every backend.
    #[must_use]
    pub fn calls(&self) -> u64 {
        BACKENDS.into_iter().flat_map(|backend| self.buckets(backend)).sum()
    }

    /// Calls that ended in an error.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    pub(crate) fn buckets(&self, backend: BackendKind) -> [u64; BUCKETS] {
        let buckets = &self.backends[backend_place(backend)].buckets;
        std::array::from_fn(|bucket| buckets[bucket].load(Ordering::Relaxed))
    }

    #[cfg(feature = "metrics")]
    pub(crate) fn sum_ns(&self, backend: BackendKind) -> u64 {
        self.backends[backend_place(backend)].sum_ns.load(Ordering::Relaxed)
    }

    #[cfg(feature = "metrics")]
    pub(crate) fn max_ns(&self, backend: BackendKind) -> u64 {
        self.backends[backend_place(backend)].max_ns.load(Ordering::Relaxed)
    }

    #[cfg(feature = "metrics")]
    pub(crate) fn failures_by_reason(&self) -> [u64; REASONS.len()] {
        std::array::from_fn(|reason| self.failures[reason].load(Ordering::Relaxed))
    }

    #[cfg(feature = "metrics")]
    pub(crate) fn fallbacks_by_reason(&self) -> [u64; REASONS.len()] {
        std::array::from_fn(|reason| self.fallbacks[reason].load(Ordering::Relaxed))
    }

    /// Wrong and right ones.
    #[cfg(feature = "metrics")]
    pub(crate) fn known_answers(&self) -> [u64; 2] {
        std::array::from_fn(|right| self.known_answers[right].load(Ordering::Relaxed))
    }

    #[cfg(feature = "metrics")]
    pub(crate) fn xid(&self) -> u64 {
        self.alarm.load(Ordering::Relaxed)
    }
}

#[inline]
pub(crate) fn backend_place(backend: BackendKind) -> usize {
    match backend {
        BackendKind::TensorRt => 0,
        BackendKind::OrtCuda => 1,
        BackendKind::OrtCpu => 2,
        BackendKind::Custom => 3,
        BackendKind::Resident => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_what_their_bounds_say() {
        for bucket_number in 0..BUCKETS - 1 {
            let bound = bound_ns(bucket_number).unwrap();
            assert_eq!(bucket(bound), bucket_number, "{bound} ns");
            assert_eq!(bucket(bound + 1), bucket_number + 1, "{bound} ns and one more");
        }
        assert_eq!(bucket(0), 0);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert_eq!(bound_ns(BUCKETS - 1), None);
        assert_eq!(bound_ns(BUCKETS - 2), Some(1 << LAST));
    }

    #[test]
    fn backends_are_where_their_places_say() {
        for (number, backend) in BACKENDS.into_iter().enumerate() {
            assert_eq!(backend_place(backend), number);
        }
    }

    #[test]
    fn answers_are_counted_by_backend_and_latency() {
        let counters = Counters::new();
        counters.answered(BackendKind::OrtCpu, Duration::from_micros(7));
        counters.answered(BackendKind::OrtCpu, Duration::from_micros(9));
        counters.answered(BackendKind::TensorRt, Duration::from_secs(99));
        assert_eq!(counters.calls(), 3);
        let within_8_us = |&(bucket, _): &(usize, u64)| bound_ns(bucket).is_some_and(|bound| bound <= 8192);
        let cpu = counters.buckets(BackendKind::OrtCpu).into_iter().enumerate();
        assert_eq!(cpu.filter(within_8_us).map(|(_, count)| count).sum::<u64>(), 1);
        assert_eq!(counters.buckets(BackendKind::TensorRt)[BUCKETS - 1], 1);
    }
}

//! Latencies, records of them, and how far two networks' answers are apart.
//!
//! Stands behind the feature `tool`.

use std::path::Path;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::data::Values;
use crate::error::Result;
use crate::files;

/// Latencies with three digits, from a nanosecond to an hour.
#[derive(Debug, Clone)]
pub struct Latencies {
    histogram: Histogram<u64>,
}

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

impl Latencies {
    /// None yet. Recording allocates nothing.
    #[must_use]
    pub fn new() -> Self {
        const HOUR_NS: u64 = 3_600_000_000_000;
        Self { histogram: Histogram::new_with_bounds(1, HOUR_NS, 3).expect("bounds that HdrHistogram takes") }
    }

    /// Adds one.
    #[inline]
    pub fn record(&mut self, latency: Duration) {
        self.histogram.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Adds all of another's.
    pub fn add(&mut self, other: &Self) {
        self.histogram.add(&other.histogram).expect("the same bounds");
    }

    /// How many.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.histogram.len()
    }

    /// The latency that this share of the calls, 0 to 1, did not exceed, in microseconds.
    #[must_use]
    pub fn quantile_us(&self, share: f64) -> f64 {
        microseconds(self.histogram.value_at_quantile(share) as f64)
    }

    /// The longest, in microseconds.
    #[must_use]
    pub fn max_us(&self) -> f64 {
        microseconds(self.histogram.max() as f64)
    }

    /// The mean, in microseconds.
    #[must_use]
    pub fn mean_us(&self) -> f64 {
        microseconds(self.histogram.mean())
    }

    /// Calls a second, one after the other; 0 without calls.
    #[must_use]
    pub fn calls_per_s(&self) -> f64 {
        let mean = self.histogram.mean();
        if mean > 0.0 { (1e10 / mean).round() / 10.0 } else { 0.0 }
    }
}

/// With three decimals: the nanosecond is all that the clock tells.
fn microseconds(nanoseconds: f64) -> f64 {
    nanoseconds.round() / 1e3
}

/// One line of `benches/record/<gpu>/<date>-latency.jsonl`. A claim compares lines of one `run_id`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The same for all that was measured in one process run, interleaved.
    pub run_id: String,
    /// The model's file name without its ending.
    pub model: String,
    /// SHA-256 of the ONNX file.
    pub model_sha256: String,
    /// `ort-cpu`, `ort-cuda`, `ort-cuda-graph`, `trt-textbook`, `trt-graph-sync`, `tickrt`, `tickrt-ahead` (with
    /// [`launch_ahead`](crate::SessionConfig::launch_ahead)) or `tickrt-resident`; with ` kept warm` behind it where
    /// [`keep_warm`](crate::Session::keep_warm) was called in pauses.
    pub path: String,
    /// `fp32`, `tf32`, `fp16` or `int8`.
    pub precision: String,
    /// What one call is: `window`, the whole of it handed over; `window, newest row last`, the rows before it on the device; or
    /// `stateful`, a row after which the device carries the network's state.
    pub semantics: String,
    /// Samples a call.
    pub batch: u64,
    /// Threads that call.
    pub threads: u64,
    /// Sessions that answer.
    pub sessions: u64,
    /// Pause before each call.
    pub idle_ms: u64,
    /// `closed`: the next call follows the answer; `open`: calls follow a schedule.
    pub load: String,
    /// Latency, host to host.
    pub p50_us: f64,
    /// Latency, host to host.
    pub p95_us: f64,
    /// Latency, host to host.
    pub p99_us: f64,
    /// Latency, host to host.
    pub p999_us: f64,
    /// Latency, host to host.
    pub p9999_us: f64,
    /// Latency, host to host.
    pub max_us: f64,
    /// Calls measured.
    pub calls: u64,
    /// Samples a second.
    pub inferences_per_s: f64,
    /// Device memory that the session holds, in MB of 10⁶ bytes.
    pub device_mb: f64,
    /// The GPU's name; `none`.
    pub gpu: String,
    /// The driver's version; `none`.
    pub driver: String,
    /// TensorRT's version; `none` for a path without it.
    pub tensorrt: String,
    /// ONNX Runtime's version; `none` for a path without it.
    pub onnxruntime: String,
    /// The commit of tickrt.
    pub commit: String,
    /// `bar1` where calls go into the GPU's memory ([`ResidentConfig::bar1`](crate::ResidentConfig::bar1)); `None` where they lie in the
    /// host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
    /// How long after an answer the device can take the next row, where calls hand over the newest row alone. The calls of such a
    /// path are further apart than that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_again_us: Option<f64>,
}

impl Record {
    /// Adds lines to the file at `path`.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io).
    pub fn append(records: &[Self], path: &Path) -> Result<()> {
        append_lines(records, path)
    }
}

/// Adds each record as a line of JSON to the file at `path`.
///
/// # Errors
/// [`ErrorKind::Io`](crate::ErrorKind::Io).
///
/// # Panics
/// If a record cannot be JSON: a map whose keys are no strings.
pub fn append_lines<T: Serialize>(records: &[T], path: &Path) -> Result<()> {
    let lines = records.iter().map(|record| serde_json::to_string(record).expect("finite numbers and strings") + "\n");
    let lines: String = lines.collect();
    files::append(path, lines.as_bytes())
}

/// How far answers are from those expected. Add answers with [`add`](Self::add).
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Comparison {
    /// Elements compared.
    pub elements: u64,
    /// The greatest |got − expected|, NaN aside.
    pub max_absolute: f64,
    /// The greatest |got − expected| / |expected| where that is not 0, NaN aside.
    pub max_relative: f64,
    /// NaN among the elements that were got.
    pub nan_got: u64,
    /// NaN among those expected.
    pub nan_expected: u64,
    /// Elements further apart than atol + rtol · |expected|, NaN among them.
    pub beyond: u64,
    /// Samples whose greatest element is the same.
    pub top1_same: u64,
    /// Samples compared.
    pub samples: u64,
    /// Where the greatest distance, in tolerances, was seen: sample, element, got, expected.
    pub worst: Option<(u64, u64, f64, f64)>,
    #[serde(skip)]
    worst_excess: f64,
}

impl Comparison {
    /// Adds one sample: `got` and `expected` from `offset` on, `count` elements.
    ///
    /// An element is close when |got − expected| ≤ atol + rtol · |expected|, as numpy.allclose has it; NaN never is.
    pub fn add(&mut self, got: (&Values, usize), expected: (&Values, usize), count: usize, [atol, rtol]: [f64; 2]) {
        for element in 0..count {
            let (a, b) = (got.0.get(got.1 + element), expected.0.get(expected.1 + element));
            self.nan_got += u64::from(a.is_nan());
            self.nan_expected += u64::from(b.is_nan());
            // Infinities of one sign are equal, though their difference is NaN.
            let distance = if a == b { 0.0 } else { (a - b).abs() };
            let allowed = atol + rtol * b.abs();
            self.beyond += u64::from(distance.is_nan() || distance > allowed);
            self.max_absolute = self.max_absolute.max(distance);
            if b != 0.0 {
                self.max_relative = self.max_relative.max(distance / b.abs());
            }
            let excess = if distance.is_nan() { f64::INFINITY } else { distance / allowed.max(f64::MIN_POSITIVE) };
            if self.worst.is_none() || excess > self.worst_excess {
                self.worst = Some((self.samples, element as u64, a, b));
                self.worst_excess = excess;
            }
        }
        let same = got.0.argmax(got.1..got.1 + count) == expected.0.argmax(expected.1..expected.1 + count);
        self.top1_same += u64::from(same);
        self.elements += count as u64;
        self.samples += 1;
    }

    /// Whether every element was close.
    #[must_use]
    pub fn all_close(&self) -> bool {
        self.beyond == 0
    }
}

/// How much of what distinguishes the expected answers is left in those that were got: the power of what the expected ones
/// vary by, from one sample to the next, over the power of the difference (a signal-to-quantisation-noise ratio, SQNR). What all
/// answers have in common counts for nothing, and so do elements whose expected value is not finite.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SignalToNoise {
    samples: f64,
    noise: f64,
    /// Of each element of the expected answers.
    mean: Vec<f64>,
    /// Sum of squares about the mean, of all elements.
    signal: f64,
    /// Sum of squares of the expected elements.
    power: f64,
}

impl SignalToNoise {
    /// Adds one sample: `got` and `expected` from `offset` on, `count` elements, as many as every other sample has.
    pub fn add(&mut self, got: (&Values, usize), expected: (&Values, usize), count: usize) {
        self.mean.resize(count, 0.0);
        self.samples += 1.0;
        for (element, mean) in self.mean.iter_mut().enumerate() {
            let (got, expected) = (got.0.get(got.1 + element), expected.0.get(expected.1 + element));
            if !expected.is_finite() {
                continue;
            }
            self.noise += (got - expected).powi(2);
            self.power += expected.powi(2);
            // Welford's: no difference of two great sums.
            let from_mean = expected - *mean;
            *mean += from_mean / self.samples;
            self.signal += from_mean * (expected - *mean);
        }
    }

    /// In decibels. Minus infinity where what was got is not finite and what was expected is. `None` where the expected answers do
    /// not vary by more than rounding, so that there is nothing to lose: fewer than two samples, say.
    #[must_use]
    pub fn decibels(&self) -> Option<f64> {
        /// Of a variation of a ten-thousandth.
        const ROUNDING: f64 = 1e-8;
        if !self.noise.is_finite() {
            return Some(f64::NEG_INFINITY);
        }
        (self.signal > ROUNDING * self.power).then(|| 10.0 * (self.signal / self.noise).log10())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of samples of two elements.
    fn signal_to_noise(got: &[f32], expected: &[f32]) -> Option<f64> {
        let mut ratio = SignalToNoise::default();
        let (got, expected) = (Values::F32(got.to_vec()), Values::F32(expected.to_vec()));
        (0..expected.len() / 2).for_each(|sample| ratio.add((&got, sample * 2), (&expected, sample * 2), 2));
        ratio.decibels()
    }

    #[test]
    fn signal_to_noise_is_of_what_varies_and_has_no_value_where_nothing_does() {
        let expected = [100.0, -1.0, 102.0, 1.0];
        // Deviations of 1 and an error of 0.1: a hundredth of the power.
        let close = signal_to_noise(&[100.1, -1.1, 101.9, 1.1], &expected).unwrap();
        assert!((close - 20.0).abs() < 1e-3, "{close}");
        // The mean for an answer: nothing is left.
        let mean = signal_to_noise(&[101.0, 0.0, 101.0, 0.0], &expected).unwrap();
        assert!(mean.abs() < 1e-9, "{mean}");
        assert_eq!(signal_to_noise(&expected, &expected), Some(f64::INFINITY));
        for bad in [f32::NAN, f32::INFINITY] {
            assert_eq!(signal_to_noise(&[bad, -1.0, 102.0, 1.0], &expected), Some(f64::NEG_INFINITY));
        }
        assert_eq!(signal_to_noise(&[1.0, 2.0], &[1.0, 2.0]), None);
        assert_eq!(signal_to_noise(&[1.0, 2.0, 1.0, 3.0], &[1.0, 2.0, 1.0, 2.0]), None);
        assert_eq!(signal_to_noise(&[1.0, 2.0, 1.0, 3.0], &[1.0, 2.0, 1.0, 2.000_000_2]), None, "rounding");
        assert_eq!(signal_to_noise(&[1.0, f32::NAN], &[1.0, 2.0]), Some(f64::NEG_INFINITY), "even of one sample");
        let masked =
            signal_to_noise(&[100.1, f32::NAN, 101.9, 7.0], &[100.0, f32::NEG_INFINITY, 102.0, f32::NEG_INFINITY]);
        assert!((masked.unwrap() - 20.0).abs() < 1e-3, "{masked:?}");
    }

    fn compare(got: &[f32], expected: &[f32], tolerance: [f64; 2]) -> Comparison {
        let mut comparison = Comparison::default();
        let (a, b) = (Values::F32(got.to_vec()), Values::F32(expected.to_vec()));
        comparison.add((&a, 0), (&b, 0), got.len(), tolerance);
        comparison
    }

    #[test]
    fn comparison_counts_what_numpy_allclose_would_not_accept() {
        let found = compare(&[1.0, 2.5, -3.0], &[1.0, 2.0, -3.0], [0.1, 0.1]);
        assert_eq!((found.beyond, found.elements, found.top1_same), (1, 3, 1));
        assert_eq!((found.max_absolute, found.max_relative), (0.5, 0.25));
        assert_eq!(found.worst, Some((0, 1, 2.5, 2.0)));
        assert!(compare(&[1.0, 2.25], &[1.0, 2.0], [0.05, 0.1]).all_close());
    }

    #[test]
    fn comparison_never_accepts_nan_and_accepts_equal_infinities() {
        let nan = compare(&[f32::NAN, 1.0], &[f32::NAN, 1.0], [1e9, 1e9]);
        assert_eq!((nan.nan_got, nan.nan_expected, nan.beyond), (1, 1, 1));
        assert!(compare(&[f32::INFINITY], &[f32::INFINITY], [0.0, 0.0]).all_close());
        assert!(!compare(&[f32::INFINITY], &[1.0], [1.0, 1.0]).all_close());
    }

    #[test]
    fn latencies_tell_quantiles_in_microseconds() {
        let mut latencies = Latencies::new();
        (1..=1000).for_each(|us| latencies.record(Duration::from_micros(us)));
        assert!((latencies.quantile_us(0.5) - 500.0).abs() < 1.0);
        assert!((latencies.quantile_us(0.99) - 990.0).abs() < 2.0);
        assert!((latencies.max_us() - 1000.0).abs() < 1.0);
        assert!((latencies.calls_per_s() - 1998.0).abs() < 4.0);
        assert_eq!(latencies.calls(), 1000);
    }
}

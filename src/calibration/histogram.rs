//! How often a tensor had values of which size, and the range that follows from it.

use super::CalibrationMethod;

/// As many as TensorRT's own calibrators have.
const BINS: usize = 2048;
/// Sizes that a quantised value of one sign has.
const LEVELS: usize = 128;

/// Sizes of a tensor's values, without their signs: quantisation is symmetric. The range of the bins doubles when a value
/// does not fit, so that one pass over the data is enough.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    /// Of one bin; 0 as long as every value was.
    width: f64,
    largest: f32,
    total: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { counts: vec![0; BINS], width: 0.0, largest: 0.0, total: 0 }
    }

    /// Adds values; the place of the first that is no finite number, if there is one.
    pub(crate) fn add(&mut self, values: &[f32]) -> Result<(), usize> {
        let mut largest = 0.0_f32;
        for (place, value) in values.iter().enumerate() {
            if !value.is_finite() {
                return Err(place);
            }
            largest = largest.max(value.abs());
        }
        self.make_room(largest);
        let per_bin = if self.width > 0.0 { 1.0 / self.width } else { 0.0 };
        for value in values {
            let bin = (f64::from(value.abs()) * per_bin) as usize;
            self.counts[bin.min(BINS - 1)] += 1;
        }
        self.total += values.len() as u64;
        Ok(())
    }

    fn make_room(&mut self, largest: f32) {
        self.largest = self.largest.max(largest);
        if self.width == 0.0 {
            self.width = f64::from(largest) / BINS as f64;
            return;
        }
        while f64::from(largest) > self.width * BINS as f64 {
            self.width *= 2.0;
            let merged: Vec<u64> = self.counts.chunks_exact(2).map(|pair| pair[0] + pair[1]).collect();
            self.counts = merged;
            self.counts.resize(BINS, 0);
        }
    }

    /// The largest value that is to be told from others; 0 if every value was 0.
    pub(crate) fn range(&self, method: CalibrationMethod) -> f32 {
        let bins = match method {
            CalibrationMethod::MinMax => return self.largest,
            CalibrationMethod::Percentile(share) => self.percentile(share),
            CalibrationMethod::Entropy => self.least_divergence(),
            CalibrationMethod::Mse => self.least_squares(),
        };
        // The last bin goes as far as there were values.
        ((bins as f64 * self.width) as f32).min(self.largest)
    }

    /// The bins that hold this share of the values.
    fn percentile(&self, share: f64) -> usize {
        let wanted = (share / 100.0 * self.total as f64).ceil() as u64;
        let mut sum = 0;
        let reached = self.counts.iter().position(|count| {
            sum += count;
            sum >= wanted
        });
        reached.map_or(BINS, |last| last + 1)
    }

    /// The bins up to which the quantised distribution tells the most of the real one. The first bin counts no more than
    /// the second: zeros, which a ReLU makes by the million, are exact in any case.
    fn least_divergence(&self) -> usize {
        const ROUNDING: f64 = 1e-12;
        let mut counts: Vec<f64> = self.counts.iter().map(|&count| count as f64).collect();
        counts[0] = counts[0].min(counts[1]);
        let all: f64 = counts.iter().sum();
        let mut best = (self.used(), f64::INFINITY);
        let mut inside: f64 = counts[..LEVELS].iter().sum();
        for bins in LEVELS..=self.used() {
            let divergence = divergence(&counts[..bins], all - inside);
            // Of equals the widest: one occupied bin tells all of itself, however much lies outside of it.
            if divergence <= best.1 + ROUNDING {
                best = (bins, divergence.min(best.1));
            }
            inside += counts.get(bins).copied().unwrap_or(0.0);
        }
        best.0
    }

    /// The bins up to which values, quantised or cut off, are the least off.
    fn least_squares(&self) -> usize {
        const STEP: usize = 8;
        let error = |bins: &usize| {
            let (range, steps) = (*bins as f64, (LEVELS - 1) as f64);
            let counted = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
            let errors = counted.map(|(bin, &count)| {
                let value = bin as f64 + 0.5;
                let quantized = (value / range * steps).round().min(steps) / steps * range;
                count as f64 * (value - quantized).powi(2)
            });
            errors.sum::<f64>()
        };
        let used = self.used();
        let candidates = (LEVELS..used).step_by(STEP).chain([used]);
        candidates.map(|bins| (bins, error(&bins))).min_by(|a, b| a.1.total_cmp(&b.1)).map_or(used, |best| best.0)
    }

    /// Bins up to the last that is not empty.
    fn used(&self) -> usize {
        self.counts.iter().rposition(|&count| count > 0).map_or(1, |last| last + 1)
    }
}

/// Kullback and Leibler's divergence of the counts, with `outside` in the last of them, from the same in [`LEVELS`]
/// levels.
fn divergence(counts: &[f64], outside: f64) -> f64 {
    let total: f64 = counts.iter().sum::<f64>() + outside;
    let inside: f64 = total - outside;
    if inside <= 0.0 {
        return f64::INFINITY;
    }
    let bounds = |level: usize| level * counts.len() / LEVELS;
    let mut sum = 0.0;
    for level in 0..LEVELS {
        let (first, end) = (bounds(level), bounds(level + 1));
        let bins = &counts[first..end];
        let occupied = bins.iter().filter(|&&count| count > 0.0).count() as f64;
        let mean = bins.iter().sum::<f64>() / occupied;
        for (place, &count) in bins.iter().enumerate() {
            let real = if first + place + 1 == counts.len() { count + outside } else { count };
            if real == 0.0 {
                continue;
            }
            if count == 0.0 {
                return f64::INFINITY;
            }
            sum += real / total * ((real / total) / (mean / inside)).ln();
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[f32]) -> Histogram {
        let mut histogram = Histogram::new();
        histogram.add(values).unwrap();
        histogram
    }

    /// Values that a bell curve has, spread evenly by rank, and one far outlier.
    fn bell() -> Vec<f32> {
        let values = (0..20_000).map(|rank| {
            let share = (f64::from(rank) + 0.5) / 20_000.0;
            // The logistic distribution's quantiles: heavier tails than the normal one's.
            (share / (1.0 - share)).ln() as f32
        });
        values.chain([80.0]).collect()
    }

    #[test]
    fn range_by_minmax_is_the_largest_value() {
        assert_eq!(of(&[0.5, -3.0, 1.0]).range(CalibrationMethod::MinMax), 3.0);
    }

    #[test]
    fn range_by_entropy_and_percentile_cuts_the_outlier_off_and_keeps_the_bulk() {
        let histogram = of(&bell());
        for method in [CalibrationMethod::Entropy, CalibrationMethod::Percentile(99.9)] {
            let range = histogram.range(method);
            assert!((3.0..40.0).contains(&range), "{method}: {range}");
        }
        let percentile = histogram.range(CalibrationMethod::Percentile(99.9));
        assert!((7.0..7.8).contains(&percentile), "{percentile}: 2000 / 1 is the quantile of 99.95 %");
    }

    #[test]
    fn range_by_mse_is_no_worse_than_any_other_candidate() {
        let (histogram, values) = (of(&bell()), bell());
        let error = |range: f32| -> f64 {
            let quantized = |value: f32| (value / range * 127.0).round().clamp(-127.0, 127.0) / 127.0 * range;
            values.iter().map(|&value| f64::from(value - quantized(value)).powi(2)).sum()
        };
        let best = error(histogram.range(CalibrationMethod::Mse));
        for range in [2.0, 5.0, 10.0, 20.0, 40.0, 80.0] {
            assert!(best <= error(range) * 1.02, "{best} and {} at {range}", error(range));
        }
    }

    #[test]
    fn values_added_in_any_parts_give_about_the_same_ranges() {
        let values = bell();
        let whole = of(&values);
        let mut parts = Histogram::new();
        for part in values.chunks(777) {
            parts.add(part).unwrap();
        }
        assert_eq!((parts.total, parts.largest), (whole.total, whole.largest));
        for method in CalibrationMethod::ALL {
            let (one, other) = (whole.range(method), parts.range(method));
            assert!((one / other - 1.0).abs() < 0.1, "{method}: {one} and {other}");
        }
    }

    #[test]
    fn entropy_keeps_every_one_of_few_distinct_values() {
        // As a chart's pixels: background, wick, body.
        let pixels: Vec<f32> = (0..1000).map(|place| [0.47, 0.47, 0.47, 0.47, 1.58, 3.61][place % 6]).collect();
        assert_eq!(of(&pixels).range(CalibrationMethod::Entropy), 3.61);
    }

    #[test]
    fn zeros_have_no_range_and_few_values_have_one() {
        for method in CalibrationMethod::ALL {
            assert_eq!(of(&[0.0; 10]).range(method), 0.0, "{method}");
            assert_eq!(of(&[]).range(method), 0.0, "{method}");
            assert!(of(&[2.0]).range(method) > 1.9, "{method}");
        }
    }

    #[test]
    fn value_that_is_no_number_is_named_by_its_place() {
        assert_eq!(Histogram::new().add(&[0.0, f32::NAN]), Err(1));
        assert_eq!(Histogram::new().add(&[f32::INFINITY]), Err(0));
    }
}

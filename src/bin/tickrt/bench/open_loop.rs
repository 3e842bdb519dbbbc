//! Calls that come when they come, not when the last answer is there: at Poisson times with bursts, or as recorded. Latency
//! counts from the scheduled arrival, so that waiting behind another call is part of it.

use std::cmp::Ordering;
use std::time::{Duration, Instant};

use tickrt::data::{Array, Feed, Random};
use tickrt::stats::Latencies;

use super::path::{Path, Way};
use super::report;
use crate::exit::{Failure, Outcome};
use crate::table::Table;

/// When calls come, from the start on.
pub struct Arrivals(Vec<Duration>);

impl Arrivals {
    /// Poisson arrivals at `rate` a second for `duration`, `burst` calls at a time.
    pub fn poisson(rate: f64, burst: u32, duration: Duration, seed: u64) -> Self {
        let mut random = Random(seed);
        let (mut at, mut all) = (0.0, Vec::new());
        while at < duration.as_secs_f64() {
            // The gap between groups is exponential; the groups' rate is the calls' by their size.
            at -= random.uniform().ln() * f64::from(burst) / rate;
            all.extend((0..burst).map(|_| Duration::from_secs_f64(at)));
        }
        Self(all)
    }

    /// Recorded times in microseconds, from an .npy of one axis. The first is the start.
    pub fn read(file: &std::path::Path) -> Outcome<Self> {
        let array = Array::read_npy(file)?;
        let refuse = |got: String| {
            let file = file.display();
            Err(Failure::usage(format!(
                "{file}: arrivals are one axis of microseconds that never go back, at least two of them; it has {got}"
            )))
        };
        let count = array.values.len();
        if array.shape.len() != 1 || count < 2 {
            return refuse(format!("the shape {:?}", array.shape));
        }
        let times: Vec<f64> = (0..count).map(|place| array.values.get(place)).collect();
        if let Some(place) = times.iter().position(|time| !time.is_finite()) {
            return refuse(format!("{} at {place}", times[place]));
        }
        if let Some(place) = times.windows(2).position(|two| two[0].partial_cmp(&two[1]).is_none_or(Ordering::is_gt)) {
            return refuse(format!("{} and then {} at {}", times[place], times[place + 1], place + 1));
        }
        Ok(Self(times.iter().map(|time| Duration::from_secs_f64((time - times[0]) / 1e6)).collect()))
    }

    /// Calls a second.
    fn rate(&self) -> f64 {
        self.0.len() as f64 / self.0.last().map_or(1.0, |last| last.as_secs_f64().max(1e-9))
    }
}

/// One path under arrivals.
pub struct Open {
    pub way: Way,
    pub latencies: Latencies,
    pub rate: f64,
    /// Calls that came before the last answer was there.
    waited: u64,
}

/// Measures it; every answer is compared.
pub fn measure(path: &mut Path, arrivals: &Arrivals, feed: &Feed, tolerance: [f64; 2]) -> Outcome<Open> {
    let mut open = Open { way: path.way, latencies: Latencies::new(), rate: arrivals.rate(), waited: 0 };
    path.session.keep_warm()?;
    let start = Instant::now() + Duration::from_millis(1);
    for (call, &at) in arrivals.0.iter().enumerate() {
        let scheduled = start + at;
        if Instant::now() > scheduled {
            open.waited += 1;
        }
        while Instant::now() < scheduled {
            std::hint::spin_loop();
        }
        path.checked_call(feed, call % feed.calls(), tolerance)?;
        open.latencies.record(scheduled.elapsed());
    }
    path.session.rest();
    Ok(open)
}

/// Prints the table.
pub fn print(all: &[Open]) {
    println!("\nopen loop: latency in µs from the scheduled arrival");
    let mut table =
        Table::new(&["path", ">calls", ">calls/s", ">waited", ">p50", ">p95", ">p99", ">p99.9", ">p99.99", ">max"]);
    for one in all {
        let calls = one.latencies.calls();
        let waited = format!("{:.1} %", 100.0 * one.waited as f64 / calls.max(1) as f64);
        let mut row = vec![one.way.name().to_owned(), calls.to_string(), format!("{:.0}", one.rate), waited];
        row.extend([0.5, 0.95, 0.99, 0.999, 0.9999].map(|share| report::us(one.latencies.quantile_us(share))));
        row.push(report::us(one.latencies.max_us()));
        table.row(row);
    }
    table.print();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poisson_arrivals_have_their_rate_and_its_spread() {
        for burst in [1, 5] {
            let arrivals = Arrivals::poisson(1000.0, burst, Duration::from_secs(100), 7);
            assert!((arrivals.rate() - 1000.0).abs() < 30.0, "{}", arrivals.rate());
            let mut starts: Vec<f64> = arrivals.0.iter().map(Duration::as_secs_f64).collect();
            starts.dedup();
            let gaps: Vec<f64> = starts.windows(2).map(|two| two[1] - two[0]).collect();
            let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
            let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
            // An exponential's standard deviation is its mean.
            assert!((variance.sqrt() / mean - 1.0).abs() < 0.03, "{burst}");
        }
    }

    #[test]
    fn recorded_arrivals_are_read_from_their_first_on() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("times.npy");
        let write = |shape: &[usize], times: &[f64]| {
            let array = Array::new(shape, tickrt::data::Values::F64(times.to_vec())).unwrap();
            array.write_npy(&file).unwrap();
        };
        write(&[3], &[1e6, 1e6 + 50.0, 1e6 + 50.0]);
        assert_eq!(Arrivals::read(&file).unwrap().0, [0, 50, 50].map(Duration::from_micros));
        for times in [&[2.0, 1.0][..], &[1.0], &[0.0, f64::NAN], &[0.0, f64::INFINITY]] {
            write(&[times.len()], times);
            assert!(Arrivals::read(&file).is_err());
        }
    }
}

//! How often, and for how long, something else runs where a thread spins.

use std::time::{Duration, Instant};

use tickrt::stats::Latencies;

use super::finding::Finding;

/// What a spinning thread saw.
pub struct Jitter {
    /// Every step from one reading of the clock to the next.
    pub steps: Latencies,
    /// Steps of more than [`LONG`].
    pub long: u64,
    /// How long it was watched.
    pub watched: Duration,
}

/// A step that a call would feel.
const LONG: Duration = Duration::from_micros(10);

/// Reads the clock over and over.
pub fn measure(duration: Duration) -> Jitter {
    let (mut steps, mut long) = (Latencies::new(), 0);
    let start = Instant::now();
    let mut before = start;
    loop {
        let now = Instant::now();
        let step = now - before;
        steps.record(step);
        long += u64::from(step > LONG);
        if now - start >= duration {
            return Jitter { steps, long, watched: now - start };
        }
        // Recording is ours, not the machine's.
        before = Instant::now();
    }
}

/// Judged by itself: the records tell of calls, not of the host alone.
pub fn finding(jitter: &Jitter) -> Finding {
    const WHAT: &str = "host jitter";
    /// What a core of its own stays below.
    const QUIET_US: f64 = 50.0;
    const QUIET_A_SECOND: f64 = 10.0;
    let a_second = jitter.long as f64 / jitter.watched.as_secs_f64();
    let worst = jitter.steps.max_us();
    let seen = format!("{a_second:.0} stops a second of more than {LONG:?}, the longest {worst:.0} µs");
    if worst <= QUIET_US && a_second <= QUIET_A_SECOND {
        return Finding::ok("measured", WHAT, seen);
    }
    Finding::tune("measured", WHAT, seen)
        .expected(format!("at most {QUIET_A_SECOND} a second, none above {QUIET_US} µs, as on an isolated core"))
        .fix("run on an isolated core (taskset -c N tickrt doctor), and see the rows of host above")
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn clock_is_read_for_as_long_as_asked() {
        let jitter = measure(Duration::from_millis(20));
        assert!(jitter.watched >= Duration::from_millis(20));
        assert!(jitter.steps.calls() > 100);
    }

    #[test]
    fn long_stops_are_to_be_tuned() {
        let with = |long, worst| {
            let mut steps = Latencies::new();
            steps.record(worst);
            finding(&Jitter { steps, long, watched: Duration::from_secs(1) }).verdict
        };
        assert_eq!(with(1, Duration::from_micros(20)), Verdict::Ok);
        assert_eq!(with(1, Duration::from_millis(4)), Verdict::Tune);
        assert_eq!(with(1000, Duration::from_micros(20)), Verdict::Tune);
    }
}

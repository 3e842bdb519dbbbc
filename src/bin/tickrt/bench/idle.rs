//! Calls after a pause, as a market has them: with nothing done meanwhile, and with the session kept warm.

use std::time::{Duration, Instant};

use tickrt::data::Feed;
use tickrt::stats::Latencies;

use super::path::{Path, Way};
use super::report;
use crate::exit::Outcome;
use crate::table::Table;

/// The first call after pauses of one length.
pub struct Paused {
    pub way: Way,
    pub idle_ms: u64,
    pub kept_warm: bool,
    pub latencies: Latencies,
}

/// How many pauses of that length, unless the caller says.
fn pauses(idle_ms: u64) -> u32 {
    match idle_ms {
        0..=10 => 2000,
        11..=999 => 100,
        _ => 10,
    }
}

/// Measures `path` after `count` of each of the pauses, in both ways by turns.
pub fn measure(
    path: &mut Path,
    idle_ms: &[u64],
    count: Option<u32>,
    feed: &Feed,
    tolerance: [f64; 2],
) -> Outcome<Vec<Paused>> {
    let mut all = Vec::new();
    for &idle_ms in idle_ms {
        let new = |kept_warm| Paused { way: path.way, idle_ms, kept_warm, latencies: Latencies::new() };
        // Without a pause and without `keep_warm` it would be the closed loop again.
        let mut ways = if idle_ms == 0 { vec![new(true)] } else { vec![new(false), new(true)] };
        for call in 0..count.unwrap_or_else(|| pauses(idle_ms)) as usize {
            for paused in &mut ways {
                path.session.rest();
                rest(path, Duration::from_millis(idle_ms), paused.kept_warm)?;
                paused.latencies.record(path.checked_call(feed, call % feed.calls(), tolerance)?);
            }
        }
        all.extend(ways);
    }
    Ok(all)
}

/// The thread spins, as one does that waits for a market: a thread that slept would measure the scheduler.
fn rest(path: &mut Path, pause: Duration, keep_warm: bool) -> Outcome {
    const BETWEEN: Duration = Duration::from_micros(100);
    let end = Instant::now() + pause;
    if keep_warm {
        // A pause of 0 ends right behind it: the longest that a call can wait for it.
        path.session.keep_warm()?;
    }
    let mut next = Instant::now() + BETWEEN;
    while Instant::now() < end {
        if keep_warm && Instant::now() >= next {
            path.session.keep_warm()?;
            next = Instant::now() + BETWEEN;
        }
        std::hint::spin_loop();
    }
    Ok(())
}

/// Prints the table.
pub fn print(all: &[Paused]) {
    println!(
        "\nthe first call after a pause; latency in µs; kept warm: keep_warm() every 100 µs, after 0 ms right before it"
    );
    let mut table = Table::new(&["path", ">pause ms", "kept warm", ">pauses", ">p50", ">p95", ">p99", ">max"]);
    for one in all {
        let warm = if one.kept_warm { "yes" } else { "no" };
        let mut row = vec![
            one.way.name().to_owned(),
            one.idle_ms.to_string(),
            warm.to_owned(),
            one.latencies.calls().to_string(),
        ];
        row.extend([0.5, 0.95, 0.99].map(|share| report::us(one.latencies.quantile_us(share))));
        row.push(report::us(one.latencies.max_us()));
        table.row(row);
    }
    table.print();
}

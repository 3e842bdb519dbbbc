//! Many sessions of one engine at a time, each on a thread of its own: what they answer together, and how late.

use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use tickrt::data::{Feed, Values};
use tickrt::stats::{Comparison, Latencies};
use tickrt::{Engine, SessionConfig};

use super::path::{Path, Way};
use super::report;
use crate::exit::{Failure, Outcome};
use crate::table::Table;

/// What a number of sessions did together.
pub struct Together {
    pub sessions: usize,
    pub latencies: Latencies,
    pub calls_per_s: f64,
    /// Of all sessions, the engine included.
    pub device_bytes: u64,
    pub found: Comparison,
}

/// What all numbers of sessions have in common.
pub struct How<'run> {
    pub engine: &'run Engine,
    pub config: &'run SessionConfig,
    pub feed: &'run Feed,
    pub expected: &'run Values,
    pub duration: Duration,
    pub tolerance: [f64; 2],
    /// The threads go here, by turns; where the scheduler likes without.
    pub cores: Option<&'run [usize]>,
}

/// So many sessions at a time; every answer is compared.
pub fn measure(sessions: usize, how: &How<'_>) -> Outcome<Together> {
    let How { engine, config, feed, expected, duration, tolerance, cores } = *how;
    let mut paths = Vec::new();
    for _ in 0..sessions {
        let mut path = Path::new(Way::Tickrt, engine.session(config)?)?;
        path.expected = expected.clone();
        paths.push(path);
    }
    let of_sessions: u64 = paths.iter().map(|path| path.session.device_memory() - engine.device_memory()).sum();
    let start = Arc::new(Barrier::new(sessions + 1));
    let (paths, elapsed) = std::thread::scope(|scope| {
        let threads: Vec<_> = paths
            .into_iter()
            .enumerate()
            .map(|(thread, mut path)| {
                let start = Arc::clone(&start);
                scope.spawn(move || -> tickrt::Result<Path> {
                    let ready = warm_up(&mut path, feed, cores.map(|cores| cores[thread % cores.len()]));
                    // Whoever is not ready comes here, too, or the others would wait for ever.
                    start.wait();
                    ready?;
                    let end = Instant::now() + duration;
                    while Instant::now() < end {
                        path.measured_call(feed, tolerance)?;
                    }
                    Ok(path)
                })
            })
            .collect();
        start.wait();
        let started = Instant::now();
        let paths: Vec<_> = threads.into_iter().map(|thread| thread.join().expect("no thread panics")).collect();
        (paths, started.elapsed())
    });
    let mut all = Together {
        sessions,
        latencies: Latencies::new(),
        calls_per_s: 0.0,
        device_bytes: 0,
        found: Comparison::default(),
    };
    for path in paths {
        let path = path?;
        all.latencies.add(&path.latencies);
        all.found.beyond += path.found.beyond;
        all.found.elements += path.found.elements;
    }
    all.calls_per_s = all.latencies.calls() as f64 / elapsed.as_secs_f64();
    all.device_bytes = engine.device_memory() + of_sessions;
    if all.found.beyond > 0 {
        return Err(Failure::check(format!(
            "wrong answers with {sessions} sessions: {} of {} elements",
            all.found.beyond, all.found.elements
        )));
    }
    Ok(all)
}

fn warm_up(path: &mut Path, feed: &Feed, core: Option<usize>) -> tickrt::Result<()> {
    core.map_or(Ok(()), tickrt::thread::pin)?;
    (0..500).try_for_each(|sample| path.call(feed, sample % feed.calls()).map(|_| ()))
}

/// Prints the table.
pub fn print(all: &[Together]) {
    println!("\ntickrt, sessions of one engine at a time, a thread each; latency in µs");
    let mut table =
        Table::new(&[">sessions", ">answers/s", ">p50", ">p95", ">p99", ">p99.9", ">max", ">device MB in all"]);
    for one in all {
        let mut row = vec![one.sessions.to_string(), format!("{:.0}", one.calls_per_s)];
        row.extend([0.5, 0.95, 0.99, 0.999].map(|share| report::us(one.latencies.quantile_us(share))));
        row.push(report::us(one.latencies.max_us()));
        row.push(format!("{:.1}", one.device_bytes as f64 / 1e6));
        table.row(row);
    }
    table.print();
}

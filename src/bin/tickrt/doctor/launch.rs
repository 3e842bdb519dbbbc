//! The latency of calls here, beside what was recorded on the same GPU.

use std::path::Path;
use std::time::{Duration, Instant};

use tickrt::stats::{Latencies, Record};
use tickrt::{Builder, BuilderConfig, Device, Engine, Library, Plan, Preference, Session, SessionConfig, Sidecar};

use super::finding::Finding;
use crate::bench;
use crate::exit::Outcome;

const AREA: &str = "measured";
const WHAT: &str = "latency";
/// Slower than the record by more than this is worth a look.
const TOLERANCE: f64 = 1.25;

/// Calls the engine, or without one TensorRT's smallest network, whose latency is the floor of any.
pub fn look(engine: Option<&Path>, device: usize, duration: Duration, records: &Path) -> Finding {
    if let Err(error) = Device::open(device) {
        return Finding::unknown(AREA, WHAT, format!("not measured: {error}"));
    }
    let started = start(engine, device);
    let measured = started.and_then(|(session, plan)| Ok((measure(session, duration)?, plan)));
    let (latencies, plan) = match measured {
        Ok(measured) => measured,
        Err(error) => return Finding::wrong(AREA, WHAT, error.to_string()).fix("run `tickrt smoke`"),
    };
    let gpu = Device::open(device).map(|device| device.name().to_owned()).unwrap_or_default();
    let recorded = plan.sidecar().and_then(|sidecar| matching(&read(records), &gpu, sidecar));
    judge(&latencies, engine.is_none(), recorded.as_ref())
}

fn start(engine: Option<&Path>, device: usize) -> Outcome<(Session, Plan)> {
    let plan = match engine {
        Some(path) => Plan::read(path)?,
        None => {
            let library = Library::open_any(&Preference::Any)?;
            let built = Builder::new(&library).build_smoke_network(&BuilderConfig::new())?;
            Plan::new(built.bytes.clone(), Sidecar::from(&built))?
        }
    };
    let config = SessionConfig { device, ..SessionConfig::default() };
    Ok((Engine::from_plan(&plan, device)?.session(&config)?, plan))
}

fn measure(session: Session, duration: Duration) -> Outcome<Latencies> {
    let mut path = bench::Path::new(bench::Way::Tickrt, session)?;
    let feed = tickrt::data::Feed::random(path.session.signature(), 16, 1)?;
    let (mut latencies, start, mut sample) = (Latencies::new(), Instant::now(), 0);
    while start.elapsed() < duration {
        latencies.record(path.call(&feed, sample % feed.calls())?);
        sample += 1;
    }
    Ok(latencies)
}

/// All records below a folder; a file that cannot be read is none.
fn read(folder: &Path) -> Vec<Record> {
    let folders = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let files = folders.flat_map(|gpu| std::fs::read_dir(gpu.path()).into_iter().flatten().flatten());
    let mut files: Vec<_> =
        files.map(|file| file.path()).filter(|file| file.extension().is_some_and(|it| it == "jsonl")).collect();
    files.sort();
    files.iter().filter_map(|file| bench::records(file).ok()).flatten().collect()
}

/// The newest of the same network, precision and GPU, by the plain session, call after call.
fn matching(records: &[Record], gpu: &str, sidecar: &Sidecar) -> Option<Record> {
    let same = |record: &&Record| {
        record.path == "tickrt"
            && record.gpu == gpu
            && Some(&record.model_sha256) == sidecar.onnx_sha256.as_ref()
            && record.precision == sidecar.precision.to_string()
            && (record.load.as_str(), record.sessions, record.idle_ms) == ("closed", 1, 0)
    };
    records.iter().rev().find(same).cloned()
}

fn judge(latencies: &Latencies, is_floor: bool, recorded: Option<&Record>) -> Finding {
    let (p50, p99) = (latencies.quantile_us(0.5), latencies.quantile_us(0.99));
    let of = if is_floor { "launch floor (three-layer network)" } else { "engine" };
    let seen = format!("{of}: p50 {p50:.1} µs, p99 {p99:.1}, max {:.1}", latencies.max_us());
    match recorded {
        None => Finding::ok(AREA, WHAT, format!("{seen}; no record of it on this GPU")),
        Some(record) if p50 <= record.p50_us * TOLERANCE && p99 <= record.p99_us * TOLERANCE => {
            Finding::ok(AREA, WHAT, format!("{seen}; recorded {:.1}, {:.1}", record.p50_us, record.p99_us))
        }
        Some(record) => Finding::tune(AREA, WHAT, seen)
            .expected(format!(
                "p50 {:.1} µs, p99 {:.1} as recorded in run {}",
                record.p50_us, record.p99_us, record.run_id
            ))
            .fix("see the rows of host and gpu above; `tickrt bench` measures it at length"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn committed_records_are_read_and_compared_with() {
        let root = std::env::var_os("TICKRT_TEST_ROOT")
            .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), std::path::PathBuf::from);
        let records = read(&root.join("benches/record"));
        let record = records.iter().rev().find(|record| record.path == "tickrt").expect("a committed record");
        let with = |p50_us: f64| {
            let mut latencies = Latencies::new();
            latencies.record(Duration::from_secs_f64(p50_us / 1e6));
            judge(&latencies, false, Some(record)).verdict
        };
        assert_eq!(with(record.p50_us), Verdict::Ok);
        assert_eq!(with(record.p50_us * 2.0), Verdict::Tune);
    }
}

//! Whether a run is slower than a record: by the ratios of ours to the other paths of the same run, because those hold on
//! another day and another machine of the kind, as microseconds do not.

use std::path::Path as File;

use tickrt::stats::Record;

use crate::exit::{Failure, Outcome};
use crate::table::Table;

/// Compares `now`, one run's records, with those `before`, of `file`; fails where ours has lost more than `tolerance`
/// (0.15: 15 %) of its lead over another path, at p50 or p99.
pub fn against(now: &[Record], before: &[Record], file: &File, tolerance: f64) -> Outcome {
    let mut rows = Vec::new();
    let plain = call_after_call(now);
    for ours in plain.iter().filter(|record| is_ours(record)) {
        for other in plain.iter().filter(|record| !is_ours(record)) {
            rows.extend(lead(before, ours, other).map(|then| Row::new(ours, other, then)));
        }
    }
    if rows.is_empty() {
        return Err(Failure::usage(format!(
            "{}: no run in it has {} in the same precision on two of the paths that were measured now",
            file.display(),
            now.first().map_or("the model", |record| &record.model)
        )));
    }
    let mut table = Table::new(&["path", "against", ">p50 then", ">p50 now", ">p99 then", ">p99 now", "verdict"]);
    for row in &rows {
        let times = |ratio: f64| format!("{ratio:.2}x");
        let verdict = if row.slower(tolerance) { "slower" } else { "fine" };
        let [p50, p99] = row.ratios;
        let cells = [times(p50.0), times(p50.1), times(p99.0), times(p99.1)];
        table.row([&[row.ours.clone(), row.other.clone()][..], &cells, &[verdict.to_owned()]].concat());
    }
    println!("\nhow many times as fast, against {}", file.display());
    table.print();
    let slower = rows.iter().filter(|row| row.slower(tolerance)).count();
    if slower == 0 {
        return Ok(());
    }
    Err(Failure::check(format!(
        "slower than the record by more than {:.0} % in {slower} of {} comparisons",
        tolerance * 100.0,
        rows.len()
    )))
}

/// One path of ours against another, then and now.
struct Row {
    ours: String,
    other: String,
    /// At p50 and p99: how many times as fast, then and now.
    ratios: [(f64, f64); 2],
}

impl Row {
    fn new(ours: &Record, other: &Record, then: [f64; 2]) -> Self {
        let now = [other.p50_us / ours.p50_us, other.p99_us / ours.p99_us];
        Self { ours: ours.path.clone(), other: label(other), ratios: [(then[0], now[0]), (then[1], now[1])] }
    }

    fn slower(&self, tolerance: f64) -> bool {
        self.ratios.iter().any(|(then, now)| *now < then * (1.0 - tolerance))
    }
}

fn is_ours(record: &Record) -> bool {
    record.path.starts_with("tickrt")
}

/// Of one run's records those of a session that calls on its own, without a pause. Of one path the first: those of sessions
/// together, be it of one, come later.
pub fn call_after_call(records: &[Record]) -> Vec<&Record> {
    let first = |record: &&Record| records.iter().find(|one| same(one, record)) == Some(record);
    records.iter().filter(|record| is_plain(record)).filter(first).collect()
}

fn is_plain(record: &Record) -> bool {
    record.sessions == 1 && record.load == "closed" && !is_after_a_pause(record)
}

/// Whether it is of the first call after a pause, be it of 0 ms.
pub fn is_after_a_pause(record: &Record) -> bool {
    record.idle_ms > 0 || record.path.ends_with(" kept warm")
}

fn label(record: &Record) -> String {
    if record.threads > 1 { format!("{} ({} threads)", record.path, record.threads) } else { record.path.clone() }
}

fn same(a: &Record, b: &Record) -> bool {
    is_plain(a)
        && (&a.path, &a.precision, &a.semantics, &a.input) == (&b.path, &b.precision, &b.semantics, &b.input)
        && (a.batch, a.threads) == (b.batch, b.threads)
        && a.model_sha256 == b.model_sha256
}

/// How many times as fast ours was in the last run that has both.
fn lead(before: &[Record], ours: &Record, other: &Record) -> Option<[f64; 2]> {
    let mut runs: Vec<&str> = before.iter().map(|record| record.run_id.as_str()).collect();
    runs.dedup();
    runs.iter().rev().find_map(|run| {
        let of = |wanted: &Record| before.iter().find(|record| record.run_id == *run && same(record, wanted));
        let (ours, other) = (of(ours)?, of(other)?);
        Some([other.p50_us / ours.p50_us, other.p99_us / ours.p99_us])
    })
}

/// The records of a file.
pub fn read(file: &File) -> Outcome<Vec<Record>> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::usage(format!("read the record {}: {error}", file.display())))?;
    let line = |(number, line): (usize, &str)| {
        serde_json::from_str(line)
            .map_err(|error| Failure::usage(format!("{}, line {}: {error}", file.display(), number + 1)))
    };
    text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(line).collect()
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn record(run: &str, path: &str, p50_us: f64, p99_us: f64) -> Record {
        let text = serde_json::json!({
            "run_id": run, "model": "mlp", "model_sha256": "ab", "path": path, "precision": "tf32", "semantics": "window",
            "batch": 1, "threads": 1, "sessions": 1, "idle_ms": 0, "load": "closed", "p50_us": p50_us, "p95_us": p50_us,
            "p99_us": p99_us, "p999_us": p99_us, "p9999_us": p99_us, "max_us": p99_us, "calls": 1000,
            "inferences_per_s": 1.0, "device_mb": 1.0, "gpu": "H100", "driver": "1", "tensorrt": "8.6.1",
            "onnxruntime": "1", "commit": "c"
        });
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn ratios_of_the_last_run_that_has_both_are_compared() {
        let before = [
            record("1", "tickrt", 10.0, 20.0),
            record("1", "ort-cuda", 100.0, 200.0),
            record("2", "tickrt", 20.0, 25.0),
            record("2", "ort-cuda", 60.0, 100.0),
            record("3", "tickrt", 1.0, 1.0),
        ];
        // Another machine, twice as slow in everything: 3 and 4 times as fast, as in run 2.
        let now = [record("4", "tickrt", 40.0, 50.0), record("4", "ort-cuda", 120.0, 200.0)];
        let file = File::new("x.jsonl");
        against(&now, &before, file, 0.01).unwrap();
        for (p50, p99) in [(50.0, 50.0), (40.0, 60.0)] {
            let slower = [record("4", "tickrt", p50, p99), record("4", "ort-cuda", 120.0, 200.0)];
            assert!(against(&slower, &before, file, 0.10).is_err(), "{p50} {p99}");
            against(&slower, &before, file, 0.25).unwrap();
        }
        let together = Record { p99_us: 500.0, ..now[0].clone() };
        against(&[&now[..], &[together]].concat(), &before, file, 0.01).unwrap();
        let alone = [record("4", "tickrt", 40.0, 50.0)];
        assert!(against(&alone, &before, file, 0.5).is_err(), "nothing to compare is no pass");
        let other = Record { precision: "fp32".into(), ..record("4", "tickrt", 40.0, 50.0) };
        assert!(against(&[other, now[1].clone()], &before, file, 0.5).is_err(), "another precision");
        let other = Record { semantics: "window, newest row last".into(), ..record("4", "tickrt", 40.0, 50.0) };
        assert!(against(&[other, now[1].clone()], &before, file, 0.5).is_err(), "another call");
    }
}

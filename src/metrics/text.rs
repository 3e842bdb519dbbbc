//! The OpenMetrics text format, version 1.0.0.

use std::fmt::Write;

use super::Watched;
use super::gpu::State;
use crate::counters::{BACKENDS, REASONS, bound_ns};

pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything there is to tell.
pub(super) fn write(watched: &[Watched], gpu: Option<&State>) -> String {
    let mut text = Text::default();
    text.latencies(watched);
    text.longest(watched);
    text.by_reason(watched, "tickrt_failures", "Calls that ended in an error.", |counters| {
        counters.failures_by_reason()
    });
    text.by_reason(watched, "tickrt_fallbacks", "Times that a backend was left for the next.", |counters| {
        counters.fallbacks_by_reason()
    });
    text.active(watched);
    text.known_answers(watched);
    text.xid(watched);
    if let Some(gpu) = gpu {
        text.gpu(gpu);
    }
    text.0 + "# EOF\n"
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, unit: &str, help: &str) {
        self.line(format_args!("# TYPE {name} {kind}"));
        if !unit.is_empty() {
            self.line(format_args!("# UNIT {name} {unit}"));
        }
        self.line(format_args!("# HELP {name} {help}"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        self.0.write_fmt(line).expect("memory takes all text");
        self.0.push('\n');
    }

    fn latencies(&mut self, watched: &[Watched]) {
        const NAME: &str = "tickrt_call_duration_seconds";
        self.family(NAME, "histogram", "seconds", "Calls that were answered, from submission to answer.");
        for (session, counters) in watched {
            let session = escaped(session);
            for backend in BACKENDS {
                let buckets = counters.buckets(backend);
                let count: u64 = buckets.iter().sum();
                if count == 0 {
                    continue;
                }
                let labels = format!("session=\"{session}\",backend=\"{backend}\"");
                let mut below = 0;
                for (bucket, calls) in buckets.iter().enumerate() {
                    below += calls;
                    match bound_ns(bucket) {
                        Some(ns) => self.line(format_args!("{NAME}_bucket{{{labels},le=\"{}\"}} {below}", seconds(ns))),
                        None => self.line(format_args!("{NAME}_bucket{{{labels},le=\"+Inf\"}} {below}")),
                    }
                }
                self.line(format_args!("{NAME}_count{{{labels}}} {count}"));
                self.line(format_args!("{NAME}_sum{{{labels}}} {}", seconds(counters.sum_ns(backend))));
            }
        }
    }

    fn longest(&mut self, watched: &[Watched]) {
        const NAME: &str = "tickrt_call_duration_max_seconds";
        self.family(NAME, "gauge", "seconds", "The longest call since start.");
        for (session, counters) in watched {
            for backend in BACKENDS.into_iter().filter(|&backend| counters.max_ns(backend) > 0) {
                let longest = seconds(counters.max_ns(backend));
                let session = escaped(session);
                self.line(format_args!("{NAME}{{session=\"{session}\",backend=\"{backend}\"}} {longest}"));
            }
        }
    }

    fn by_reason(
        &mut self,
        watched: &[Watched],
        name: &str,
        help: &str,
        counts: impl Fn(&crate::Counters) -> [u64; REASONS.len()],
    ) {
        self.family(name, "counter", "", help);
        for (session, counters) in watched {
            for (reason, count) in REASONS.iter().zip(counts(counters)) {
                let session = escaped(session);
                self.line(format_args!("{name}_total{{session=\"{session}\",reason=\"{reason}\"}} {count}"));
            }
        }
    }

    fn active(&mut self, watched: &[Watched]) {
        const NAME: &str = "tickrt_active";
        self.family(NAME, "gauge", "", "1 for the backend that answers, with the start of its engine's SHA-256.");
        for (session, counters) in watched {
            let (session, active, engine) = (escaped(session), counters.active_backend(), counters.engine());
            self.line(format_args!("{NAME}{{session=\"{session}\",backend=\"{active}\",engine=\"{engine}\"}} 1"));
        }
    }

    fn known_answers(&mut self, watched: &[Watched]) {
        const NAME: &str = "tickrt_known_answers";
        self.family(NAME, "counter", "", "Questions asked whose answers are known.");
        for (session, counters) in watched {
            let ([wrong, right], session) = (counters.known_answers(), escaped(session));
            self.line(format_args!("{NAME}_total{{session=\"{session}\",answer=\"right\"}} {right}"));
            self.line(format_args!("{NAME}_total{{session=\"{session}\",answer=\"wrong\"}} {wrong}"));
        }
    }

    fn xid(&mut self, watched: &[Watched]) {
        const NAME: &str = "tickrt_xid";
        self.family(NAME, "gauge", "", "The Xid that has ended the GPU, 0 for none.");
        for (session, counters) in watched {
            self.line(format_args!("{NAME}{{session=\"{}\"}} {}", escaped(session), counters.xid()));
        }
    }

    fn gpu(&mut self, gpu: &State) {
        let label = format!("gpu=\"{}\"", escaped(&gpu.address));
        let mut gauge = |name: &str, unit: &str, help: &str, value: Option<u64>| {
            let Some(value) = value else { return };
            self.family(name, "gauge", unit, help);
            self.line(format_args!("{name}{{{label}}} {value}"));
        };
        let hertz = |mhz: u32| u64::from(mhz) * 1_000_000;
        gauge("tickrt_gpu_memory_used_bytes", "bytes", "In use on the GPU, by everybody.", gpu.memory.map(|it| it.0));
        gauge("tickrt_gpu_memory_total_bytes", "bytes", "Memory of the GPU.", gpu.memory.map(|it| it.1));
        gauge("tickrt_gpu_sm_clock_hertz", "hertz", "Clock of the multiprocessors.", gpu.sm_mhz.map(hertz));
        gauge("tickrt_gpu_memory_clock_hertz", "hertz", "Clock of the memory.", gpu.memory_mhz.map(hertz));
        gauge("tickrt_gpu_temperature_celsius", "celsius", "Temperature of the GPU.", gpu.celsius.map(u64::from));
        gauge("tickrt_gpu_power_watts", "watts", "What the GPU draws.", gpu.watts.map(u64::from));
        gauge("tickrt_gpu_throttled", "", "1 while something holds the clocks down.", gpu.throttled.map(u64::from));
    }
}

/// Nanoseconds as seconds, exactly.
fn seconds(ns: u64) -> String {
    let text = format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000);
    let text = text.trim_end_matches('0');
    if text.ends_with('.') { format!("{text}0") } else { text.to_owned() }
}

/// A label's value.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::Duration;

    use super::*;
    use crate::counters::Counters;
    use crate::{BackendKind, ErrorKind};

    fn values(text: &str) -> BTreeMap<&str, &str> {
        text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' ')).collect()
    }

    #[test]
    fn histogram_is_cumulative_and_ends_with_all() {
        let counters = Counters::new();
        for us in [1, 1, 30, 900] {
            counters.answered(BackendKind::OrtCpu, Duration::from_micros(us));
        }
        counters.failed(&ErrorKind::DeadlineMissed.into());
        let text = write(&[("a\"b".to_owned(), counters)], None);
        let values = values(&text);
        let labels = "session=\"a\\\"b\",backend=\"ort-cpu\"";
        let at = |le: &str| values[&*format!("tickrt_call_duration_seconds_bucket{{{labels},le=\"{le}\"}}")];
        assert_eq!((at("0.000000512"), at("0.000001024"), at("0.000032768"), at("+Inf")), ("0", "2", "3", "4"));
        assert_eq!(values[&*format!("tickrt_call_duration_seconds_count{{{labels}}}")], "4");
        assert_eq!(values[&*format!("tickrt_call_duration_seconds_sum{{{labels}}}")], "0.000932");
        assert_eq!(values[&*format!("tickrt_call_duration_max_seconds{{{labels}}}")], "0.0009");
        assert_eq!(values["tickrt_failures_total{session=\"a\\\"b\",reason=\"deadline_missed\"}"], "1");
        assert!(text.ends_with("\n# EOF\n"));
    }

    /// The names in the first column of the book's tables are those that are told, no more and no fewer; so are the reasons.
    #[test]
    fn book_has_every_name_and_every_reason() {
        let book = include_str!("../../docs/src/watching.md");
        let rows = book.lines().filter_map(|line| line.strip_prefix("| `tickrt_")?.split('`').next());
        let named: BTreeSet<String> = rows.map(|name| format!("tickrt_{name}")).collect();
        let counters = Counters::new();
        counters.answered(BackendKind::TensorRt, Duration::from_micros(20));
        let gpu = State {
            address: "0000:01:00.0".into(),
            memory: Some((1, 2)),
            sm_mhz: Some(1),
            memory_mhz: Some(1),
            celsius: Some(40),
            watts: Some(70),
            throttled: Some(false),
        };
        let text = write(&[("s".to_owned(), counters)], Some(&gpu));
        let told = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        let suffix = |kind: &str| if kind == "counter" { "_total" } else { "" };
        let told: BTreeSet<String> = told.map(|(name, kind)| format!("{name}{}", suffix(kind))).collect();
        assert_eq!(named, told);
        let reasons = book.split("A `reason` is one of ").nth(1).unwrap().split('.').next().unwrap();
        let reasons: Vec<&str> = reasons.split('`').skip(1).step_by(2).collect();
        assert_eq!(reasons, REASONS);
    }

    #[test]
    fn every_sample_belongs_to_the_family_above_it() {
        let counters = Counters::new();
        counters.answered(BackendKind::TensorRt, Duration::from_micros(20));
        let gpu = State { address: "0000:01:00.0".into(), memory: Some((1, 2)), celsius: Some(40), ..State::default() };
        let (mut family, mut seen) = (String::new(), Vec::new());
        for line in write(&[("s".to_owned(), counters)], Some(&gpu)).lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(["histogram", "gauge", "counter"].contains(&kind));
                family = name.to_owned();
                assert!(!seen.contains(&family), "{family} comes twice");
                seen.push(family.clone());
            } else if let Some(rest) = line.strip_prefix("# UNIT ") {
                let (name, unit) = rest.split_once(' ').unwrap();
                assert!(name == family && name.ends_with(&format!("_{unit}")), "{line}");
            } else if !line.starts_with('#') {
                let name = line.split('{').next().unwrap();
                let suffix = name.strip_prefix(&family).unwrap_or_else(|| panic!("{line} below {family}"));
                assert!(["", "_total", "_bucket", "_count", "_sum"].contains(&suffix), "{line}");
            }
        }
        assert!(seen.iter().any(|name| name == "tickrt_gpu_temperature_celsius"));
    }
}

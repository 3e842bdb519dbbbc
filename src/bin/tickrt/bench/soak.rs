//! Hours of calls: how the latency moves, the worst calls with their times, and what the GPU did then.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
use nvml_wrapper::error::NvmlError;
use tickrt::data::Feed;
use tickrt::nvml::Gpu;
use tickrt::stats::Latencies;

use super::path::Path;
use super::report;
use crate::exit::{self, Outcome};
use crate::table::Table;

/// How many of the worst calls are told.
const WORST: usize = 10;
/// Rows of the rolling table.
const ROWS: u32 = 20;

/// One of the longest calls.
struct Worst {
    at: Duration,
    latency: Duration,
}

/// Calls `path` for `duration` and prints what it sees while it goes on.
pub fn run(path: &mut Path, feed: &Feed, duration: Duration, device: usize, tolerance: [f64; 2]) -> Outcome {
    println!("\n{} for {duration:?}; latency in µs", path.way.name());
    let watch = Watch::start(device);
    if let Err(reason) = &watch {
        exit::note(format!("the GPU is not watched: {reason}"));
    }
    let mut head = Table::new(&[">at s", ">calls", ">p50", ">p99", ">p99.9", ">max"]);
    let (mut all, mut rolling, mut worst) = (Latencies::new(), Latencies::new(), Vec::<Worst>::new());
    let start = Instant::now();
    let every = (duration / ROWS).max(Duration::from_secs(1));
    let mut next = start + every;
    let mut sample = 0;
    while start.elapsed() < duration {
        path.get_ready();
        let latency = path.checked_call(feed, sample % feed.calls(), tolerance)?;
        sample += 1;
        rolling.record(latency);
        if worst.len() < WORST || worst.last().is_some_and(|least| latency > least.latency) {
            worst.push(Worst { at: start.elapsed(), latency });
            worst.sort_by_key(|call| std::cmp::Reverse(call.latency));
            worst.truncate(WORST);
        }
        if Instant::now() >= next {
            progress(start.elapsed(), &rolling);
            add(&mut head, start.elapsed(), &rolling);
            all.add(&rolling);
            rolling = Latencies::new();
            next += every;
        }
    }
    all.add(&rolling);
    add(&mut head, start.elapsed(), &all);
    path.session.rest();
    head.print();
    println!("  the last row is all of it");
    let seen = watch.map(Watch::stop).unwrap_or_default();
    tell(&worst, &seen, start);
    Ok(())
}

fn progress(at: Duration, latencies: &Latencies) {
    let [p50, p99] = [0.5, 0.99].map(|share| report::us(latencies.quantile_us(share)));
    eprintln!("{:>6.0} s: p50 {p50}, p99 {p99}, max {} µs", at.as_secs_f64(), report::us(latencies.max_us()));
}

fn add(table: &mut Table, at: Duration, latencies: &Latencies) {
    let mut row = vec![format!("{:.0}", at.as_secs_f64()), latencies.calls().to_string()];
    row.extend([0.5, 0.99, 0.999].map(|share| report::us(latencies.quantile_us(share))));
    row.push(report::us(latencies.max_us()));
    table.row(row);
}

/// What the GPU was seen to do, when.
struct Seen {
    at: Instant,
    state: State,
}

#[derive(Clone, PartialEq)]
enum State {
    Running { sm_mhz: u32, celsius: u32, watts: u32, throttled: ThrottleReasons },
    Xid(u64),
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Xid(number) => write!(f, "Xid {number}"),
            Self::Running { sm_mhz, celsius, watts, throttled } => {
                write!(f, "SM {sm_mhz} MHz, {celsius} °C, {watts} W")?;
                let names: Vec<String> = throttled.iter_names().map(|(name, _)| name.to_lowercase()).collect();
                if names.is_empty() { Ok(()) } else { write!(f, ", throttled: {}", names.join(", ")) }
            }
        }
    }
}

/// Asks NVML for the GPU's state ten times a second, on a thread of its own.
struct Watch {
    stop: std::sync::Arc<AtomicBool>,
    thread: JoinHandle<()>,
    seen: Receiver<Seen>,
}

impl Watch {
    fn start(device: usize) -> Result<Self, String> {
        let gpu = Gpu::open(device)?;
        let (stop, (tell, seen)) = (std::sync::Arc::new(AtomicBool::new(false)), channel());
        let stopped = std::sync::Arc::clone(&stop);
        let thread = std::thread::spawn(move || watch(&gpu, &stopped, &tell));
        Ok(Self { stop, thread, seen })
    }

    fn stop(self) -> Vec<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.join();
        self.seen.try_iter().collect()
    }
}

fn watch(gpu: &Gpu, stop: &AtomicBool, tell: &Sender<Seen>) {
    const EVERY_MS: u32 = 100;
    let Ok(device) = gpu.device() else { return };
    let events = gpu.nvml().create_event_set().and_then(|events| {
        gpu.device()?.register_events(EventTypes::CRITICAL_XID_ERROR, events).map_err(|error| error.error)
    });
    while !stop.load(Ordering::Relaxed) {
        let running = || {
            Ok::<_, NvmlError>(State::Running {
                sm_mhz: device.clock_info(Clock::SM)?,
                celsius: device.temperature(TemperatureSensor::Gpu)?,
                watts: device.power_usage()? / 1000,
                throttled: device.current_throttle_reasons()?,
            })
        };
        if let Ok(state) = running() {
            let _ = tell.send(Seen { at: Instant::now(), state });
        }
        // Waits for the event or the time.
        match events.as_ref().map(|events| events.wait(EVERY_MS)) {
            Ok(Ok(event)) => {
                let _ = tell.send(Seen { at: Instant::now(), state: State::Xid(event.event_data.map_or(0, xid)) });
            }
            Ok(Err(NvmlError::Timeout)) => {}
            _ => std::thread::sleep(Duration::from_millis(EVERY_MS.into())),
        }
    }
}

fn xid(error: nvml_wrapper::enums::event::XidError) -> u64 {
    match error {
        nvml_wrapper::enums::event::XidError::Value(number) => number,
        nvml_wrapper::enums::event::XidError::Unknown => 0,
    }
}

/// The worst calls, each with what was seen nearest to it, and every change of clock or throttling.
fn tell(worst: &[Worst], seen: &[Seen], start: Instant) {
    println!("\nthe longest calls, and the GPU as it was seen nearest to them");
    let mut table = Table::new(&[">at s", ">µs", "GPU"]);
    for call in worst {
        let at = start + call.at;
        let nearest = seen.iter().min_by_key(|seen| if seen.at > at { seen.at - at } else { at - seen.at });
        table.row([
            format!("{:.3}", call.at.as_secs_f64()),
            report::us(call.latency.as_secs_f64() * 1e6),
            nearest.map_or_else(|| "not watched".to_owned(), |seen| seen.state.to_string()),
        ]);
    }
    table.print();
    let events = changes(seen);
    if seen.is_empty() {
        return;
    }
    println!("\n  {} changes of SM clock or throttling, {} Xid", events.0, events.1);
}

/// How often clock or throttling changed between two looks, and how many Xid there were.
fn changes(seen: &[Seen]) -> (usize, usize) {
    let key = |seen: &Seen| match &seen.state {
        State::Running { sm_mhz, throttled, .. } => Some((*sm_mhz, *throttled)),
        State::Xid(_) => None,
    };
    let running: Vec<_> = seen.iter().filter_map(key).collect();
    let changed = running.windows(2).filter(|two| two[0] != two[1]).count();
    (changed, seen.len() - running.len())
}

/// `90s`, `10m`, `2h`; a bare number is seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration; write it as 90s, 10m or 2h");
    let (number, unit) = text.split_at(text.trim_end_matches(|letter: char| letter.is_alphabetic()).len());
    let unit = match unit {
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(wrong()),
    };
    let seconds = number.parse::<f64>().map_err(|_| wrong())? * unit;
    if (0.1..1e7).contains(&seconds) { Ok(Duration::from_secs_f64(seconds)) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_units() {
        assert_eq!(duration("10m").unwrap(), Duration::from_secs(600));
        assert_eq!(duration("1.5h").unwrap(), Duration::from_secs(5400));
        assert_eq!(duration("30").unwrap(), Duration::from_secs(30));
        for wrong in ["", "m", "10d", "-3s", "0", "1e9h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn changes_of_clock_and_xids_are_counted() {
        let running = |sm_mhz| State::Running { sm_mhz, celsius: 40, watts: 100, throttled: ThrottleReasons::empty() };
        let states = [running(1980), running(1980), State::Xid(79), running(1200), running(1980)];
        let seen: Vec<Seen> = states.map(|state| Seen { at: Instant::now(), state }).into();
        assert_eq!(changes(&seen), (2, 1));
    }
}

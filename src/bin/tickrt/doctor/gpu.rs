//! What NVML tells of the GPU.

use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{Clock, EccCounter, MemoryError, TemperatureSensor};
use tickrt::nvml::{self, Gpu, Nvml, NvmlDevice};

use super::finding::Finding;

const AREA: &str = "gpu";

/// The state of a GPU; `None` where this one does not tell.
#[derive(Debug, Default)]
struct State {
    name: String,
    persistent: Option<bool>,
    /// Now and at best.
    sm_mhz: Option<(u32, u32)>,
    celsius: Option<u32>,
    /// Now and at most.
    watts: Option<(u32, u32)>,
    throttled: Option<ThrottleReasons>,
    /// Process numbers, ours not among them.
    others: Option<Vec<u32>>,
    /// Free and in all.
    bytes: Option<(u64, u64)>,
    ecc: Option<bool>,
    uncorrected: Option<u64>,
    mig: Option<bool>,
}

/// Asks NVML, and judges.
pub fn look(device: usize) -> Vec<Finding> {
    let why = match Gpu::open(device) {
        Ok(gpu) => match gpu.device() {
            Ok(gpu) => return judge(&state(&gpu)),
            Err(error) => error.to_string(),
        },
        Err(why) => why,
    };
    let nvml = match Nvml::init() {
        Ok(nvml) => nvml,
        Err(error) => return vec![Finding::unknown(AREA, "NVML", format!("not there: {error}"))],
    };
    // Where CUDA itself finds no GPU, NVML may know more; then the number can only be its own.
    match tickrt::Device::open(device).err().and_then(|_| nvml.device_by_index(device as u32).ok()) {
        Some(gpu) => judge(&state(&gpu)),
        None => vec![Finding::wrong(AREA, "GPU", format!("number {device}: {why}")).fix("see nvidia-smi -L")],
    }
}

fn state(gpu: &NvmlDevice<'_>) -> State {
    let watts = |milliwatts: u32| milliwatts / 1000;
    let with_best = |now: u32, best: u32| (now, best);
    State {
        name: gpu.name().unwrap_or_default(),
        persistent: gpu.is_in_persistent_mode().ok(),
        sm_mhz: gpu.clock_info(Clock::SM).ok().zip(gpu.max_clock_info(Clock::SM).ok()),
        celsius: gpu.temperature(TemperatureSensor::Gpu).ok(),
        watts: gpu
            .power_usage()
            .ok()
            .zip(gpu.enforced_power_limit().ok())
            .map(|(now, most)| with_best(watts(now), watts(most))),
        throttled: gpu.current_throttle_reasons().ok(),
        others: nvml::other_processes(gpu),
        bytes: gpu.memory_info().ok().map(|memory| (memory.free, memory.total)),
        ecc: gpu.is_ecc_enabled().ok().map(|state| state.currently_enabled),
        uncorrected: gpu.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Aggregate).ok(),
        mig: gpu.mig_mode().ok().map(|mode| mode.current == 1),
    }
}

fn judge(state: &State) -> Vec<Finding> {
    let mut findings = vec![Finding::ok(AREA, "GPU", &state.name)];
    let mut tell = |what, finding: Option<Finding>| {
        findings.push(finding.unwrap_or_else(|| Finding::unknown(AREA, what, "this GPU does not say")));
    };
    tell("persistence mode", state.persistent.map(persistence));
    tell("SM clock", state.sm_mhz.map(|(now, best)| clock(now, best)));
    tell("throttling", state.throttled.map(|reasons| throttling(reasons, state)));
    tell("other processes", state.others.as_deref().map(others));
    tell("memory", state.bytes.map(|(free, total)| memory(free, total)));
    tell("ECC", state.ecc.map(|on| ecc(on, state.uncorrected)));
    tell("MIG", state.mig.map(mig));
    findings
}

fn persistence(on: bool) -> Finding {
    const WHAT: &str = "persistence mode";
    if on {
        return Finding::ok(AREA, WHAT, "on");
    }
    Finding::tune(AREA, WHAT, "off")
        .expected("on: without it the driver starts the GPU anew for each first process")
        .fix("nvidia-smi -pm 1, or run nvidia-persistenced")
}

fn clock(now: u32, best: u32) -> Finding {
    const WHAT: &str = "SM clock";
    let seen = format!("{now} of {best} MHz");
    if now * 10 >= best * 9 {
        return Finding::ok(AREA, WHAT, seen);
    }
    Finding::tune(AREA, WHAT, seen)
        .expected(format!("{best} MHz also when idle: the call after a pause waits for the clock"))
        .fix(format!("nvidia-smi --lock-gpu-clocks={best}, or Session::keep_warm between calls"))
}

fn throttling(reasons: ThrottleReasons, state: &State) -> Finding {
    const WHAT: &str = "throttling";
    let harmless = ThrottleReasons::GPU_IDLE
        | ThrottleReasons::APPLICATIONS_CLOCKS_SETTING
        | ThrottleReasons::SYNC_BOOST
        | ThrottleReasons::DISPLAY_CLOCK_SETTING;
    let of_heat = ThrottleReasons::SW_THERMAL_SLOWDOWN | ThrottleReasons::HW_THERMAL_SLOWDOWN;
    let celsius = state.celsius.map_or_else(String::new, |celsius| format!("{celsius} °C"));
    let watts = state.watts.map_or_else(String::new, |(now, most)| format!(", {now} of {most} W"));
    let bad = reasons - harmless;
    if bad.is_empty() {
        return Finding::ok(AREA, WHAT, format!("none; {celsius}{watts}"));
    }
    let names: Vec<String> = bad.iter_names().map(|(name, _)| name.to_lowercase()).collect();
    let fix = if bad.intersects(of_heat) {
        "cool it: airflow, fan curve, a lower power limit (nvidia-smi -pl)"
    } else {
        "raise the power limit (nvidia-smi -pl) or see to the power supply"
    };
    Finding::tune(AREA, WHAT, format!("{}; {celsius}{watts}", names.join(", "))).expected("none").fix(fix)
}

fn others(processes: &[u32]) -> Finding {
    const WHAT: &str = "other processes";
    if processes.is_empty() {
        return Finding::ok(AREA, WHAT, "none computes on it");
    }
    let numbers: Vec<String> = processes.iter().map(ToString::to_string).collect();
    Finding::tune(AREA, WHAT, format!("{}: {}", processes.len(), numbers.join(", ")))
        .expected("none: processes take turns on a GPU, and a turn lasts milliseconds")
        .fix("move them to another GPU")
}

fn memory(free: u64, total: u64) -> Finding {
    const WHAT: &str = "memory";
    /// The guide's target for one engine.
    const NEEDED: u64 = 512 << 20;
    let seen = format!("{} of {} free", crate::table::bytes(free), crate::table::bytes(total));
    if free >= NEEDED {
        return Finding::ok(AREA, WHAT, seen);
    }
    Finding::tune(AREA, WHAT, seen)
        .expected(format!("{} for an engine and its session", crate::table::bytes(NEEDED)))
        .fix("end what else uses it, or build with a smaller batch or --max_workspace=128M")
}

fn ecc(on: bool, uncorrected: Option<u64>) -> Finding {
    const WHAT: &str = "ECC";
    match (on, uncorrected.unwrap_or(0)) {
        (true, 0) => Finding::ok(AREA, WHAT, "on, no uncorrected error"),
        (true, errors) => Finding::tune(AREA, WHAT, format!("on, {errors} uncorrected errors in its life"))
            .expected("none")
            .fix("see nvidia-smi -q -d ECC,PAGE_RETIREMENT,ROW_REMAPPER; replace the GPU if rows can no longer be remapped"),
        (false, _) => Finding::ok(AREA, WHAT, "off: a flipped bit goes unseen"),
    }
}

fn mig(on: bool) -> Finding {
    const WHAT: &str = "MIG";
    if !on {
        return Finding::ok(AREA, WHAT, "off");
    }
    Finding::tune(AREA, WHAT, "on")
        .expected("off, unless others need a part of this GPU: an instance has some of its multiprocessors")
        .fix("use the largest instance, or nvidia-smi -mig 0 when nothing runs")
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    fn verdict(findings: &[Finding], what: &str) -> (Verdict, String) {
        let found = findings.iter().find(|finding| finding.what == what).unwrap();
        (found.verdict, format!("{} {}", found.seen, found.fix))
    }

    #[test]
    fn gpu_that_is_hot_shared_and_slow_has_a_fix_for_each() {
        let findings = judge(&State {
            name: "GPU".into(),
            persistent: Some(false),
            sm_mhz: Some((345, 1980)),
            celsius: Some(92),
            watts: Some((300, 700)),
            throttled: Some(ThrottleReasons::HW_THERMAL_SLOWDOWN | ThrottleReasons::GPU_IDLE),
            others: Some(vec![17, 18]),
            bytes: Some((100 << 20, 80 << 30)),
            ecc: Some(true),
            uncorrected: Some(2),
            mig: Some(true),
        });
        for (what, words) in [
            ("persistence mode", "nvidia-smi -pm 1"),
            ("SM clock", "345 of 1980 MHz nvidia-smi --lock-gpu-clocks=1980"),
            ("throttling", "hw_thermal_slowdown; 92 °C, 300 of 700 W cool it"),
            ("other processes", "2: 17, 18"),
            ("memory", "--max_workspace=128M"),
            ("ECC", "2 uncorrected"),
            ("MIG", "-mig 0"),
        ] {
            let (verdict, text) = verdict(&findings, what);
            assert_eq!(verdict, Verdict::Tune, "{what}");
            assert!(text.contains(words), "{text}");
        }
    }

    #[test]
    fn gpu_as_it_should_be_is_ok_and_one_that_tells_nothing_unknown() {
        let findings = judge(&State {
            name: "GPU".into(),
            persistent: Some(true),
            sm_mhz: Some((1980, 1980)),
            celsius: Some(40),
            watts: Some((70, 700)),
            throttled: Some(ThrottleReasons::GPU_IDLE),
            others: Some(vec![]),
            bytes: Some((79 << 30, 80 << 30)),
            ecc: Some(true),
            uncorrected: Some(0),
            mig: Some(false),
        });
        assert!(findings.iter().all(|finding| finding.verdict == Verdict::Ok), "{findings:?}");
        let findings = judge(&State::default());
        assert!(findings[1..].iter().all(|finding| finding.verdict == Verdict::Unknown), "{findings:?}");
    }
}

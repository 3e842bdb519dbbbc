//! The processor: its clock, its sleep, who else is on a core.

use tickrt::thread::parse_core_list;

use super::AREA;
use crate::doctor::finding::Finding;
use crate::doctor::root::Root;

const CPU: &str = "sys/devices/system/cpu";

/// `cpu0`, `cpu1`, ..., as folders.
fn cores(root: &Root) -> Vec<String> {
    let is_core = |name: &String| {
        let digits = name.strip_prefix("cpu");
        digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
    };
    root.names(CPU).into_iter().filter(is_core).collect()
}

/// A core whose clock follows its load starts each burst slowly.
pub fn governor(root: &Root) -> Finding {
    const WHAT: &str = "CPU governor";
    let of = |core: &String| root.read(format!("{CPU}/{core}/cpufreq/scaling_governor"));
    let mut governors: Vec<String> = cores(root).iter().filter_map(of).collect();
    governors.sort();
    governors.dedup();
    match &governors[..] {
        [] => Finding::unknown(AREA, WHAT, "the kernel offers none; a virtual machine's host decides"),
        [one] if one == "performance" => Finding::ok(AREA, WHAT, "performance"),
        _ => Finding::tune(AREA, WHAT, governors.join(", "))
            .expected("performance on every core")
            .fix("cpupower frequency-set --governor performance"),
    }
}

/// Waking from a deep state costs as much as a whole call.
pub fn idle_states(root: &Root) -> Finding {
    const WHAT: &str = "C-states";
    /// Microseconds to wake up. C1 takes 1 to 2.
    const DEEP: u64 = 10;
    let folder = format!("{CPU}/cpu0/cpuidle");
    let states: Vec<String> = root
        .names(&folder)
        .into_iter()
        .filter(|name| name.starts_with("state"))
        .map(|name| format!("{folder}/{name}"))
        .collect();
    let number = |path: String| root.read(path).and_then(|text| text.parse::<u64>().ok());
    let usable = states.iter().filter(|state| number(format!("{state}/disable")) != Some(1));
    let deepest = usable
        .filter_map(|state| Some((number(format!("{state}/latency"))?, root.read(format!("{state}/name"))?)))
        .max();
    match deepest {
        None => Finding::unknown(AREA, WHAT, "the kernel offers none"),
        Some((latency, name)) if latency <= DEEP => Finding::ok(AREA, WHAT, format!("{name}, {latency} µs to wake")),
        Some((latency, name)) => Finding::tune(AREA, WHAT, format!("down to {name}, {latency} µs to wake"))
            .expected(format!("none of more than {DEEP} µs"))
            .fix(format!(
                "cpupower idle-set --disable-by-latency {DEEP}, or a thread that spins; at boot: intel_idle.max_cstate=1 or \
                 processor.max_cstate=1"
            )),
    }
}

/// Two threads on one core share its caches and its units.
pub fn smt(root: &Root) -> Finding {
    const WHAT: &str = "SMT";
    match root.read(format!("{CPU}/smt/active")).as_deref() {
        Some("0") => Finding::ok(AREA, WHAT, "off"),
        Some("1") => Finding::tune(AREA, WHAT, "on")
            .expected("off, or the sibling of the calling core left idle")
            .fix("keep the sibling idle (thread_siblings_list in the core's topology folder), or boot with nosmt"),
        _ => Finding::unknown(AREA, WHAT, "the kernel does not say"),
    }
}

fn isolated_cores(root: &Root) -> Vec<usize> {
    parse_core_list(&root.read(format!("{CPU}/isolated")).unwrap_or_default())
}

/// On an isolated core the scheduler puts nothing but what asks for it.
pub fn isolated(root: &Root) -> Finding {
    const WHAT: &str = "isolated cores";
    let (isolated, online) = (isolated_cores(root), root.read(format!("{CPU}/online")).unwrap_or_default());
    let ticks = root.read(format!("{CPU}/nohz_full")).map(|text| parse_core_list(&text)).unwrap_or_default();
    let list = root.read(format!("{CPU}/isolated")).unwrap_or_default();
    let last = parse_core_list(&online).last().copied().unwrap_or(0);
    if isolated.is_empty() {
        return Finding::tune(AREA, WHAT, format!("none of {online}"))
            .expected("one for each thread that waits for answers")
            .fix(format!("boot with isolcpus={last} nohz_full={last} rcu_nocbs={last}, and pin the thread there"));
    }
    if isolated.iter().all(|core| ticks.contains(core)) {
        return Finding::ok(AREA, WHAT, format!("{list}, without the timer's tick"));
    }
    Finding::tune(AREA, WHAT, format!("{list}, with the timer's tick"))
        .expected("nohz_full for the same cores")
        .fix(format!("boot with nohz_full={list} rcu_nocbs={list}"))
}

/// An interrupt on the calling core is a call that waits for it.
pub fn interrupts(root: &Root) -> Finding {
    const WHAT: &str = "interrupts";
    let isolated = isolated_cores(root);
    if isolated.is_empty() {
        return Finding::unknown(AREA, WHAT, "no core is isolated that they could be kept from");
    }
    let effective = |irq: &String| {
        let where_to = root.read(format!("proc/irq/{irq}/effective_affinity_list"));
        where_to.or_else(|| root.read(format!("proc/irq/{irq}/smp_affinity_list"))).unwrap_or_default()
    };
    let numbered = root.names("proc/irq").into_iter().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    let there: Vec<String> =
        numbered.filter(|irq| parse_core_list(&effective(irq)).iter().any(|core| isolated.contains(core))).collect();
    if there.is_empty() {
        return Finding::ok(AREA, WHAT, "none goes to an isolated core");
    }
    Finding::tune(AREA, WHAT, format!("{} go to isolated cores: {}", there.len(), there.join(", ")))
        .expected("none")
        .fix("stop irqbalance or ban the cores from it, and write other cores into /proc/irq/N/smp_affinity_list")
}

/// A thread that spins uses its whole quota, and then stands still until the next period.
pub fn quota(root: &Root) -> Finding {
    const WHAT: &str = "CPU quota";
    let group = root.read("proc/self/cgroup").unwrap_or_default();
    let own = group.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default().to_owned();
    let limit = |folder: &str| root.read(format!("sys/fs/cgroup/{folder}/cpu.max"));
    match limit(&own).or_else(|| limit("")) {
        Some(limit) if !limit.starts_with("max") => Finding::tune(AREA, WHAT, format!("{limit} (µs of each period)"))
            .expected("none: a spinning thread uses it up and is then stopped for the rest of the period")
            .fix("give the container cores of its own (--cpuset-cpus) instead of a share (--cpus)"),
        Some(_) => Finding::ok(AREA, WHAT, "none"),
        None => Finding::ok(AREA, WHAT, "none that the cgroup tells"),
    }
}

/// With another source than tsc, reading the time is a system call.
pub fn clock_source(root: &Root) -> Finding {
    const WHAT: &str = "clock source";
    match root.read("sys/devices/system/clocksource/clocksource0/current_clocksource").as_deref() {
        Some("tsc") => Finding::ok(AREA, WHAT, "tsc"),
        Some(virtual_clock @ ("kvm-clock" | "hyperv_clocksource_tsc_page")) => Finding::ok(AREA, WHAT, virtual_clock),
        Some(other) => Finding::tune(AREA, WHAT, other)
            .expected("tsc, which is read without a system call")
            .fix("see dmesg for why tsc was found unstable; boot with tsc=reliable if the hardware's is sound"),
        None => Finding::unknown(AREA, WHAT, "the kernel does not say"),
    }
}

//! The checks over trees as machines have them.

use tempfile::TempDir;

use super::super::finding::{Finding, Verdict};
use super::super::root::Root;
use super::look;

const CPU: &str = "sys/devices/system/cpu";
const GPU: &str = "sys/bus/pci/devices/0000:3b:00.0";

/// A server tuned for latency, with an H100 on node 0 of 2.
fn tuned() -> Vec<(String, &'static str)> {
    let cpu = |file: &str| format!("{CPU}/{file}");
    let gpu = |file: &str| format!("{GPU}/{file}");
    vec![
        (cpu("cpu0/cpufreq/scaling_governor"), "performance\n"),
        (cpu("cpu1/cpufreq/scaling_governor"), "performance\n"),
        (cpu("cpu0/cpuidle/state0/name"), "POLL\n"),
        (cpu("cpu0/cpuidle/state0/latency"), "0\n"),
        (cpu("cpu0/cpuidle/state1/name"), "C1\n"),
        (cpu("cpu0/cpuidle/state1/latency"), "1\n"),
        (cpu("cpu0/cpuidle/state2/name"), "C6\n"),
        (cpu("cpu0/cpuidle/state2/latency"), "133\n"),
        (cpu("cpu0/cpuidle/state2/disable"), "1\n"),
        (cpu("smt/active"), "0\n"),
        (cpu("isolated"), "8-15\n"),
        (cpu("nohz_full"), "8-15\n"),
        (cpu("online"), "0-15\n"),
        ("proc/irq/24/effective_affinity_list".into(), "3\n"),
        ("proc/self/cgroup".into(), "0::/system.slice/trader.service\n"),
        ("sys/fs/cgroup/system.slice/trader.service/cpu.max".into(), "max 100000\n"),
        ("sys/devices/system/clocksource/clocksource0/current_clocksource".into(), "tsc\n"),
        ("sys/kernel/mm/transparent_hugepage/enabled".into(), "always [madvise] never\n"),
        (
            "proc/self/limits".into(),
            "Limit  Soft  Hard  Units\nMax locked memory         unlimited            unlimited            bytes\n",
        ),
        ("proc/sys/kernel/numa_balancing".into(), "0\n"),
        ("proc/cmdline".into(), "BOOT_IMAGE=/vmlinuz iommu=pt isolcpus=8-15\n"),
        ("sys/class/iommu/dmar0/name".into(), "dmar0\n"),
        ("sys/module/pcie_aspm/parameters/policy".into(), "default [performance] powersave powersupersave\n"),
        ("proc/driver/nvidia/version".into(), "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.159.04  Tue\n"),
        ("proc/812/comm".into(), "irqbalance\n"),
        ("var/log/kern.log".into(), "kernel: nvidia 0000:3b:00.0: enabling device\n"),
        (gpu("vendor"), "0x10de\n"),
        (gpu("class"), "0x030200\n"),
        (gpu("current_link_speed"), "32.0 GT/s PCIe\n"),
        (gpu("max_link_speed"), "32.0 GT/s PCIe\n"),
        (gpu("current_link_width"), "16\n"),
        (gpu("max_link_width"), "16\n"),
        (gpu("numa_node"), "0\n"),
        (gpu("local_cpulist"), "0-7\n"),
        ("sys/devices/system/node/node0/cpulist".into(), "0-7\n"),
        ("sys/devices/system/node/node1/cpulist".into(), "8-15\n"),
    ]
}

fn tree(files: &[(String, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (file, text) in files {
        let path = folder.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

fn findings(files: &[(String, &str)]) -> Vec<Finding> {
    look(&Root::at(tree(files).path()))
}

fn only<'a>(findings: &'a [Finding], what: &str) -> &'a Finding {
    let mut found = findings.iter().filter(|finding| finding.what == what);
    let first = found.next().unwrap_or_else(|| panic!("{what} is looked at"));
    assert!(found.next().is_none(), "{what} is one row");
    first
}

#[test]
fn host_that_is_tuned_has_nothing_to_be_tuned() {
    let findings = findings(&tuned());
    let bad: Vec<_> = findings.iter().filter(|finding| finding.verdict != Verdict::Ok).collect();
    assert!(bad.is_empty(), "{bad:#?}");
    assert_eq!(only(&findings, "driver").seen, "580.159.04");
    assert_eq!(only(&findings, "NUMA node").seen, "0000:3b:00.0: 0, cores 0-7");
    assert_eq!(only(&findings, "C-states").seen, "C1, 1 µs to wake", "C6 is disabled");
}

#[test]
fn each_setting_that_costs_latency_is_seen_alone() {
    for (file, text, what, seen, fix) in [
        (
            format!("{CPU}/cpu1/cpufreq/scaling_governor"),
            "powersave",
            "CPU governor",
            "performance, powersave",
            "cpupower",
        ),
        (format!("{CPU}/cpu0/cpuidle/state2/disable"), "0", "C-states", "down to C6, 133 µs", "cpupower idle-set"),
        (format!("{CPU}/smt/active"), "1", "SMT", "on", "nosmt"),
        (format!("{CPU}/nohz_full"), "", "isolated cores", "with the timer's tick", "nohz_full=8-15"),
        (
            "proc/irq/24/effective_affinity_list".into(),
            "9",
            "interrupts",
            "1 go to isolated cores: 24",
            "smp_affinity_list",
        ),
        (
            "sys/fs/cgroup/system.slice/trader.service/cpu.max".into(),
            "150000 100000",
            "CPU quota",
            "150000 100000",
            "cpuset",
        ),
        (
            "sys/devices/system/clocksource/clocksource0/current_clocksource".into(),
            "hpet",
            "clock source",
            "hpet",
            "tsc",
        ),
        (
            "sys/kernel/mm/transparent_hugepage/enabled".into(),
            "always madvise [never]",
            "huge pages",
            "never",
            "madvise",
        ),
        (
            "proc/self/limits".into(),
            "Max locked memory         8388608  8388608  bytes",
            "locked memory",
            "8388608",
            "memlock",
        ),
        ("proc/sys/kernel/numa_balancing".into(), "1", "NUMA balancing", "on", "sysctl"),
        ("proc/cmdline".into(), "quiet", "IOMMU", "translates", "iommu=pt"),
        ("sys/module/pcie_aspm/parameters/policy".into(), "[default] performance", "ASPM", "default", "pcie_aspm"),
        ("proc/812/comm".into(), "nvidia-cuda-mps-server", "MPS", "runs", "quit"),
        (format!("{GPU}/current_link_speed"), "2.5 GT/s PCIe", "PCIe link", "2.5 GT/s PCIe x16", "under load"),
        (format!("{GPU}/current_link_width"), "8", "PCIe link", "32.0 GT/s PCIe x8", "reseat"),
        (format!("{GPU}/numa_node"), "-1", "NUMA node", "unknown, of 2", "--pin"),
        (
            "var/log/kern.log".into(),
            "k: NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus",
            "Xid history",
            "1, the last: Xid (PCI:0000:3b:00): 79",
            "Xid",
        ),
    ] {
        let mut files = tuned();
        let place = files.iter().position(|(name, _)| *name == file).expect("a file of the tree");
        files[place].1 = text;
        let findings = findings(&files);
        let found = only(&findings, what);
        assert_eq!(found.verdict, Verdict::Tune, "{found:?}");
        assert!(found.seen.contains(seen) && found.fix.contains(fix), "{found:?}");
        let others = findings.iter().filter(|finding| finding.what != what && finding.verdict != Verdict::Ok).count();
        assert_eq!(others, 0, "{what} changes no other row");
    }
}

#[test]
fn gpu_without_a_driver_and_no_gpu_at_all_are_wrong() {
    let mut files = tuned();
    files.retain(|(name, _)| name != "proc/driver/nvidia/version");
    let seen = findings(&files);
    assert_eq!(only(&seen, "driver").verdict, Verdict::Wrong);
    assert!(only(&seen, "driver").fix.contains("modprobe nvidia"));
    files.retain(|(name, _)| !name.starts_with("sys/bus/pci"));
    let seen = findings(&files);
    assert!(only(&seen, "driver").seen.contains("no NVIDIA GPU"));
    assert!(!seen.iter().any(|finding| finding.what == "PCIe link"));
    let mut files = tuned();
    let place = files.iter().position(|(name, _)| name == "proc/driver/nvidia/version").unwrap();
    files[place].1 = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  450.80.02";
    assert_eq!(only(&findings(&files), "driver").verdict, Verdict::Wrong);
}

#[test]
fn tree_that_is_empty_is_unknown_and_no_panic() {
    let findings = findings(&[]);
    for what in ["CPU governor", "C-states", "SMT", "clock source", "huge pages", "locked memory", "Xid history"] {
        assert_eq!(only(&findings, what).verdict, Verdict::Unknown, "{what}");
    }
}

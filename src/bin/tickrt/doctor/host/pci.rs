//! The PCI bus and the driver, as far as files tell of them.

use super::AREA;
use crate::doctor::finding::Finding;
use crate::doctor::root::Root;

const DEVICES: &str = "sys/bus/pci/devices";

/// The addresses of NVIDIA's display and 3D controllers.
pub fn gpus(root: &Root) -> Vec<String> {
    let is_gpu = |address: &String| {
        let read = |what: &str| root.read(format!("{DEVICES}/{address}/{what}")).unwrap_or_default();
        read("vendor") == "0x10de" && read("class").starts_with("0x03")
    };
    root.names(DEVICES).into_iter().filter(is_gpu).collect()
}

/// Half the lanes is half the bandwidth; a lower generation adds to every crossing.
pub fn link(root: &Root, gpu: &str) -> Finding {
    const WHAT: &str = "PCIe link";
    let read = |what: &str| root.read(format!("{DEVICES}/{gpu}/{what}")).filter(|text| !text.starts_with("Unknown"));
    let (Some(speed), Some(width)) = (read("current_link_speed"), read("current_link_width")) else {
        return Finding::unknown(AREA, WHAT, format!("{gpu} does not say"));
    };
    let best = (read("max_link_speed").unwrap_or_default(), read("max_link_width").unwrap_or_default());
    let seen = format!("{gpu}: {speed} x{width}");
    if (&speed, &width) == (&best.0, &best.1) {
        return Finding::ok(AREA, WHAT, seen);
    }
    let fix = if width == best.1 {
        "an idle GPU lowers its link: look again under load; if it stays, set the slot's speed in the firmware"
    } else {
        "reseat the GPU, or use a slot whose lanes are not shared"
    };
    Finding::tune(AREA, WHAT, seen).expected(format!("{} x{}", best.0, best.1)).fix(fix)
}

/// Which cores are near it.
pub fn node(root: &Root, gpu: &str) -> Finding {
    const WHAT: &str = "NUMA node";
    let read = |what: &str| root.read(format!("{DEVICES}/{gpu}/{what}")).unwrap_or_default();
    let nodes = root
        .names("sys/devices/system/node")
        .into_iter()
        .filter(|name| name.strip_prefix("node").is_some_and(|number| number.parse::<u32>().is_ok()));
    match (nodes.count(), read("numa_node").as_str()) {
        (0 | 1, _) => Finding::ok(AREA, WHAT, format!("{gpu}: the machine has one")),
        (nodes, "" | "-1") => Finding::tune(AREA, WHAT, format!("{gpu}: unknown, of {nodes}"))
            .expected("the node that the GPU's slot belongs to")
            .fix("the firmware does not say: measure with `tickrt bench --pin CORE` on a core of each node"),
        (_, node) => Finding::ok(AREA, WHAT, format!("{gpu}: {node}, cores {}", read("local_cpulist"))),
    }
}

/// Translating every address of a transfer costs a little each time.
pub fn iommu(root: &Root) -> Finding {
    const WHAT: &str = "IOMMU";
    let types: Vec<String> =
        gpus(root).iter().filter_map(|gpu| root.read(format!("{DEVICES}/{gpu}/iommu_group/type"))).collect();
    if root.names("sys/class/iommu").is_empty() {
        return Finding::ok(AREA, WHAT, "none, or the host's");
    }
    let command_line = root.read("proc/cmdline").unwrap_or_default();
    let passes = command_line.split_whitespace().any(|word| word == "iommu=pt");
    if passes || (!types.is_empty() && types.iter().all(|one| one == "identity")) {
        return Finding::ok(AREA, WHAT, "passes through");
    }
    let seen = types.first().map_or_else(|| "translates".to_owned(), |one| format!("translates ({one})"));
    Finding::tune(AREA, WHAT, seen).expected("passing through").fix("boot with iommu=pt")
}

/// A link that sleeps between calls wakes in the next one.
pub fn aspm(root: &Root) -> Finding {
    const WHAT: &str = "ASPM";
    let text = root.read("sys/module/pcie_aspm/parameters/policy").unwrap_or_default();
    let chosen = text.split_whitespace().find_map(|word| word.strip_prefix('[')?.strip_suffix(']'));
    match chosen {
        Some("performance") => Finding::ok(AREA, WHAT, "performance"),
        Some(policy) => Finding::tune(AREA, WHAT, policy)
            .expected("performance: a link that sleeps between calls wakes in the next one")
            .fix("echo performance > /sys/module/pcie_aspm/parameters/policy, or boot with pcie_aspm=off"),
        None => Finding::ok(AREA, WHAT, "off"),
    }
}

/// A GPU on the bus without a driver, or a driver that is too old.
pub fn driver(root: &Root) -> Finding {
    const WHAT: &str = "driver";
    /// What CUDA 11.8, the oldest that TensorRT 8.6 is made for, runs on within a major.
    const OLDEST: u32 = 470;
    let text = root.read("proc/driver/nvidia/version").unwrap_or_default();
    let is_version =
        |word: &&str| word.contains('.') && word.chars().all(|letter| letter.is_ascii_digit() || letter == '.');
    let version = text.split_whitespace().find(is_version);
    let major = version.and_then(|version| version.split('.').next()?.parse::<u32>().ok());
    match (version, major, gpus(root).len()) {
        (Some(version), Some(major), _) if major < OLDEST => {
            Finding::wrong(AREA, WHAT, version).expected(format!("{OLDEST} or newer")).fix("install a newer driver")
        }
        (Some(version), ..) => Finding::ok(AREA, WHAT, version),
        (None, _, 0) => Finding::wrong(AREA, WHAT, "none, and no NVIDIA GPU on the PCI bus")
            .expected("a GPU, for TensorRT")
            .fix("use a machine that has one; in a container start with --gpus all; ONNX Runtime answers meanwhile"),
        (None, _, gpus) => Finding::wrong(AREA, WHAT, format!("none, and {gpus} NVIDIA GPU on the PCI bus"))
            .expected(format!("{OLDEST} or newer"))
            .fix("install the driver, or load it: modprobe nvidia; see dmesg"),
    }
}

/// What the driver has reported of the GPU's faults.
pub fn xid(root: &Root) -> Finding {
    const WHAT: &str = "Xid history";
    let logs = ["var/log/kern.log", "var/log/messages", "var/log/dmesg"];
    let texts: Vec<String> = logs.iter().filter_map(|log| root.read(log)).collect();
    if texts.is_empty() {
        return Finding::unknown(AREA, WHAT, "no kernel log that may be read; see journalctl -k | grep Xid");
    }
    let lines: Vec<&str> =
        texts.iter().flat_map(|text| text.lines()).filter(|line| line.contains("NVRM: Xid")).collect();
    let Some(last) = lines.last() else { return Finding::ok(AREA, WHAT, "none in the kernel's logs") };
    let last = last.split("NVRM: ").nth(1).unwrap_or(last);
    Finding::tune(AREA, WHAT, format!("{}, the last: {last}", lines.len()))
        .expected("none")
        .fix("look the number up in NVIDIA's list of Xid errors; 48, 63, 64, 79, 94 and 95 are the hardware's")
}

/// Clients of MPS share one context on the GPU: a fault of one is a fault of all.
pub fn mps(root: &Root) -> Finding {
    const WHAT: &str = "MPS";
    let processes = root.names("proc").into_iter().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    let server = processes
        .filter_map(|process| root.read(format!("proc/{process}/comm")))
        .find(|command| command.starts_with("nvidia-cuda-mps"));
    match server {
        None => Finding::ok(AREA, WHAT, "off"),
        Some(server) => Finding::tune(AREA, WHAT, format!("{server} runs"))
            .expected("off, where one process has the GPU: a fault of one client is a fault of all")
            .fix("echo quit | nvidia-cuda-mps-control"),
    }
}

//! Memory: huge pages, the right to lock it, and whether the kernel moves it about.

use super::AREA;
use crate::doctor::finding::Finding;
use crate::doctor::root::Root;

/// Windows of thousands of symbols lie in huge pages where the kernel has them: fewer misses of the TLB.
pub fn huge_pages(root: &Root) -> Finding {
    const WHAT: &str = "huge pages";
    let text = root.read("sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    let chosen = text.split_whitespace().find_map(|word| word.strip_prefix('[')?.strip_suffix(']'));
    match chosen {
        Some(mode @ ("always" | "madvise")) => Finding::ok(AREA, WHAT, format!("transparent, {mode}")),
        Some(mode) => Finding::tune(AREA, WHAT, format!("transparent, {mode}"))
            .expected("madvise: rolling windows ask for them")
            .fix("echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"),
        None => Finding::unknown(AREA, WHAT, "the kernel has none"),
    }
}

/// `tickrt::thread::lock_memory` needs it, and so does much pinned memory.
pub fn locked(root: &Root) -> Finding {
    const WHAT: &str = "locked memory";
    let limits = root.read("proc/self/limits").unwrap_or_default();
    let soft = limits.lines().find_map(|line| line.strip_prefix("Max locked memory")?.split_whitespace().next());
    match soft {
        Some("unlimited") => Finding::ok(AREA, WHAT, "unlimited"),
        Some(bytes) => Finding::tune(AREA, WHAT, format!("{bytes} bytes at most"))
            .expected("unlimited, for tickrt::thread::lock_memory")
            .fix("ulimit -l unlimited; LimitMEMLOCK=infinity in a unit; --ulimit memlock=-1 for a container"),
        None => Finding::unknown(AREA, WHAT, "/proc/self/limits does not say"),
    }
}

/// The kernel unmaps pages to see who touches them: a fault in the middle of a call.
pub fn numa_balancing(root: &Root) -> Finding {
    const WHAT: &str = "NUMA balancing";
    match root.read("proc/sys/kernel/numa_balancing").as_deref() {
        Some("0") | None => Finding::ok(AREA, WHAT, "off"),
        Some(_) => Finding::tune(AREA, WHAT, "on")
            .expected("off: it unmaps pages to see who touches them")
            .fix("sysctl kernel.numa_balancing=0"),
    }
}

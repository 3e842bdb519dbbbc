//! What /proc and /sys tell of the processor, the kernel and the PCI bus.
//!
//! Each check is a function of a root folder, so that the tests run it over recorded trees.

mod cpu;
mod memory;
mod pci;

use super::finding::Finding;
use super::root::Root;

const AREA: &str = "host";

/// All of it, in the order of the page.
pub fn look(root: &Root) -> Vec<Finding> {
    let mut findings = vec![
        cpu::governor(root),
        cpu::idle_states(root),
        cpu::smt(root),
        cpu::isolated(root),
        cpu::interrupts(root),
        cpu::quota(root),
        cpu::clock_source(root),
        memory::huge_pages(root),
        memory::locked(root),
        memory::numa_balancing(root),
        pci::iommu(root),
        pci::aspm(root),
        pci::driver(root),
        pci::xid(root),
        pci::mps(root),
    ];
    for gpu in pci::gpus(root) {
        findings.push(pci::link(root, &gpu));
        findings.push(pci::node(root, &gpu));
    }
    findings
}

#[cfg(test)]
mod tests;

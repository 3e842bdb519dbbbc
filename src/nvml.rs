//! NVML's GPU of a number of CUDA's: by its PCI address, for NVML has an order of its own and does not know
//! `CUDA_VISIBLE_DEVICES`.
//!
//! Public for the tool, which is compiled with this library; not a part of its interface.

pub use nvml_wrapper::{Device as NvmlDevice, Nvml, error::NvmlError};

/// NVML, and which of its GPUs.
pub struct Gpu {
    nvml: Nvml,
    address: String,
}

impl Gpu {
    /// Of CUDA's number `device`.
    ///
    /// # Errors
    /// What is not there: CUDA's GPU, NVML, or that GPU in NVML.
    pub fn open(device: usize) -> Result<Self, String> {
        let address = crate::Device::open(device).map_err(|error| error.to_string())?.pci_address();
        let nvml = Nvml::init().map_err(|error| format!("NVML: {error}"))?;
        nvml.device_by_pci_bus_id(&*address).map_err(|error| format!("NVML has no GPU at {address}: {error}"))?;
        Ok(Self { nvml, address })
    }

    /// Where it is, as `/sys/bus/pci/devices` has it.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// NVML itself, for its events.
    #[must_use]
    pub fn nvml(&self) -> &Nvml {
        &self.nvml
    }

    /// The GPU. Asked for anew each time: it borrows NVML.
    ///
    /// # Errors
    /// NVML's: it may have fallen off the bus.
    pub fn device(&self) -> Result<NvmlDevice<'_>, NvmlError> {
        self.nvml.device_by_pci_bus_id(&*self.address)
    }
}

/// The other processes that compute on the GPU; `None` where it does not say.
#[must_use]
pub fn other_processes(gpu: &NvmlDevice<'_>) -> Option<Vec<u32>> {
    let all = gpu.running_compute_processes().ok()?;
    Some(all.iter().map(|process| process.pid).filter(|&pid| pid != std::process::id()).collect())
}

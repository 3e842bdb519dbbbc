//! What NVML says of the GPU.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;

use crate::nvml::Gpu;

/// What the GPU is like now; `None` where this one does not tell.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) address: String,
    /// Used and in all.
    pub(super) memory: Option<(u64, u64)>,
    pub(super) sm_mhz: Option<u32>,
    pub(super) memory_mhz: Option<u32>,
    pub(super) celsius: Option<u32>,
    pub(super) watts: Option<u32>,
    pub(super) throttled: Option<bool>,
}

/// Those after which NVIDIA wants the GPU reset or the machine restarted before anyone goes on. After the others (a fault of an
/// application's kernel, a contained or corrected error) the GPU goes on, and CUDA itself says who cannot.
///
/// From the catalogue in NVIDIA's "XID Errors", for Ampere and later, as it was in 2026 up to Xid 172:
/// <https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html>. Of those with such an action 74, 136, 144 to 150 and 155
/// are left out: they are NVLink's, which a session does not use, and a healthy GPU reports them when the one at the other end
/// fails. 154 says again what another one has said.
pub(super) fn ends_the_gpu(xid: u32) -> bool {
    match xid {
        // Immediate action RESET_GPU.
        46 | 62 | 64 | 95 | 109 | 110 | 119 | 120 | 140 | 143 | 156 | 158 => true,
        // Immediate action RESTART_BM: off the bus.
        79 => true,
        // A workflow of its own, of which the catalogue says that a reset or a restart is needed: an uncorrectable ECC error.
        48 => true,
        _ => false,
    }
}

impl Gpu {
    pub(super) fn state(&self) -> State {
        let mut state = State { address: self.address().to_owned(), ..State::default() };
        // One that has fallen off the bus says nothing.
        let Ok(gpu) = self.device() else { return state };
        state.memory = gpu.memory_info().ok().map(|memory| (memory.used, memory.total));
        state.sm_mhz = gpu.clock_info(Clock::SM).ok();
        state.memory_mhz = gpu.clock_info(Clock::Memory).ok();
        state.celsius = gpu.temperature(TemperatureSensor::Gpu).ok();
        state.watts = gpu.power_usage().ok().map(|milliwatts| milliwatts / 1000);
        state.throttled = gpu.current_throttle_reasons().ok().map(holds_down);
        state
    }

    /// Tells each Xid as it comes, until `stop`; looks for that once every `look`.
    pub(super) fn watch(&self, look: Duration, stop: &AtomicBool, mut tell: impl FnMut(u32)) {
        let events = self.nvml().create_event_set().and_then(|events| {
            self.device()?.register_events(EventTypes::CRITICAL_XID_ERROR, events).map_err(|error| error.error)
        });
        // A GPU without events, as in some virtual machines.
        let Ok(events) = events else { return };
        while !stop.load(Ordering::Relaxed) {
            match events.wait(look.as_millis() as u32) {
                Ok(event) => {
                    if let Some(XidError::Value(number)) = event.event_data {
                        tell(u32::try_from(number).unwrap_or(u32::MAX));
                    }
                }
                Err(NvmlError::Timeout) => {}
                // NVML's own word for a GPU that has fallen off the bus.
                Err(NvmlError::GpuLost) => return tell(79),
                Err(_) => std::thread::sleep(look),
            }
        }
    }
}

/// Idle clocks and clocks that somebody has set are not held down.
fn holds_down(reasons: ThrottleReasons) -> bool {
    !(reasons - (ThrottleReasons::GPU_IDLE | ThrottleReasons::APPLICATIONS_CLOCKS_SETTING)).is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The catalogue's immediate action for every Xid that it does not call unused.
    const CATALOGUE: [(&str, &[u32]); 9] = [
        ("RESET_GPU", &[46, 62, 64, 95, 109, 110, 119, 120, 136, 140, 143, 155, 156, 158]),
        ("RESTART_BM", &[79]),
        ("WORKFLOW", &[45, 48, 74, 144, 145, 146, 147, 148, 149, 150]),
        (
            "RESTART_APP",
            &[
                8, 11, 13, 25, 31, 32, 39, 40, 41, 60, 68, 69, 70, 71, 72, 75, 76, 77, 80, 82, 83, 84, 85, 86, 88, 89,
                94, 96, 97, 98, 99, 100, 101, 102, 103, 104, 105, 126, 127, 128, 129, 130, 131, 132, 133, 134, 135,
                139,
            ],
        ),
        ("IGNORE", &[14, 37, 38, 43, 44, 63, 66, 67, 92, 93, 106, 107, 108, 121, 137, 141, 152, 153, 157, 160, 161]),
        ("CHECK_MECHANICALS or CHECK_UVM", &[54, 159]),
        ("UPDATE_SWFW, CONTACT_SUPPORT or RESTART_VM", &[78, 142, 151]),
        ("XID_154", &[154]),
        ("none named", &[162, 163, 164, 165, 166, 167, 168, 169, 170, 171, 172]),
    ];
    const NVLINK: [u32; 10] = [74, 136, 144, 145, 146, 147, 148, 149, 150, 155];

    #[test]
    fn xid_ends_the_gpu_if_the_catalogue_wants_it_reset_and_it_is_not_nvlinks() {
        let mut ending = 0;
        for (action, xids) in CATALOGUE {
            for &xid in xids {
                let reset = ["RESET_GPU", "RESTART_BM"].contains(&action) || xid == 48;
                assert_eq!(ends_the_gpu(xid), reset && !NVLINK.contains(&xid), "Xid {xid}: {action}");
                ending += usize::from(ends_the_gpu(xid));
            }
        }
        assert_eq!((0..1000).filter(|&xid| ends_the_gpu(xid)).count(), ending, "and none that the catalogue lacks");
    }

    #[test]
    fn idle_clocks_are_not_held_down() {
        assert!(!holds_down(ThrottleReasons::GPU_IDLE));
        assert!(holds_down(ThrottleReasons::GPU_IDLE | ThrottleReasons::HW_SLOWDOWN));
    }
}

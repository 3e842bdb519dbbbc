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

/// Those whose immediate action in NVIDIA's catalogue of Xids is to reset the GPU or to restart the machine. After the
/// others (a fault of an application's kernel, a corrected error) the GPU goes on, and CUDA itself says who cannot.
pub(super) fn ends_the_gpu(xid: u32) -> bool {
    matches!(xid, 48 | 62 | 64 | 74 | 79 | 95 | 109 | 110 | 119 | 120 | 140)
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

    #[test]
    fn fault_of_an_application_does_not_end_the_gpu() {
        for (xid, ends) in [(13, false), (31, false), (43, false), (94, false), (48, true), (79, true), (95, true)] {
            assert_eq!(ends_the_gpu(xid), ends, "Xid {xid}");
        }
    }

    #[test]
    fn idle_clocks_are_not_held_down() {
        assert!(!holds_down(ThrottleReasons::GPU_IDLE));
        assert!(holds_down(ThrottleReasons::GPU_IDLE | ThrottleReasons::HW_SLOWDOWN));
    }
}

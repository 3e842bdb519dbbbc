//! Who else is on the GPU: resident engines share it as far as there is room, and by themselves.

use std::sync::{Arc, Mutex, PoisonError};

use crate::device::{Clusters, Device};
use crate::error::{Error, ErrorKind, Result};

/// The clusters of this process's resident engines, by GPU.
static TAKEN: Mutex<Vec<Taken>> = Mutex::new(Vec::new());

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Taken {
    device: usize,
    /// Of a cluster.
    blocks: u32,
    clusters: u32,
}

impl Taken {
    fn wants(self) -> String {
        match self.clusters {
            1 => format!("{} free multiprocessors beside each other", self.blocks),
            several => format!("{} free multiprocessors", several * self.blocks),
        }
    }
}

/// One engine's place, until it is dropped.
#[derive(Debug)]
pub(super) struct Room(Taken);

impl Room {
    /// `most`: clusters like this one that an empty GPU has room for.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when this process's engines have taken them: another kernel would wait for ever for its turn.
    pub(super) fn take(device: &Arc<Device>, wanted: Clusters, most: u32) -> Result<Self> {
        let own = Taken { device: device.ordinal(), blocks: wanted.blocks, clusters: wanted.count };
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let of_others = taken.iter().filter(|other| other.device == own.device);
        let others: Vec<u32> =
            of_others.flat_map(|other| std::iter::repeat_n(other.blocks, other.clusters as usize)).collect();
        if clusters_left(most, own.blocks, &others) < own.clusters {
            return Err(Error::new(ErrorKind::Unavailable, "find room for a resident engine")
                .expected(format!("{} on {}", own.wants(), device.name()))
                .got(match most < own.clusters {
                    true => format!("{} of them, even on the empty GPU", most * own.blocks),
                    false => format!("resident engines that take {} multiprocessors", others.iter().sum::<u32>()),
                })
                .advice(
                    "end one of them, build with fewer blocks (--resident-blocks), or let the chain go on to TensorRT",
                ));
        }
        taken.push(own);
        Ok(Self(own))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = taken.iter().position(|taken| *taken == self.0) {
            taken.swap_remove(place);
        }
    }
}

/// How many clusters of `blocks` blocks still fit where `most` fitted, if each of the others is where it is most in the way.
fn clusters_left(most: u32, blocks: u32, others: &[u32]) -> u32 {
    let lost: u32 = others.iter().map(|other| other.div_ceil(blocks)).sum();
    most.saturating_sub(lost)
}

/// Refuses a GPU on which another process computes: it is given to one process after the other in slices of milliseconds, and
/// each has the other wait.
#[cfg(feature = "metrics")]
pub(super) fn refuse_company(device: &Device, allowed: bool) -> Result<()> {
    use crate::nvml;
    if allowed {
        return Ok(());
    }
    // Without NVML nothing is known of others, as in many containers.
    let Ok(gpu) = nvml::Gpu::open(device.ordinal()) else { return Ok(()) };
    let others = gpu.device().ok().and_then(|gpu| nvml::other_processes(&gpu)).unwrap_or_default();
    if others.is_empty() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Unavailable, "start a resident engine")
        .expected(format!("{} for this process alone", device.name()))
        .got(format!("other processes that compute on it: {others:?}"))
        .advice("end them, or say that it may share the GPU (ResidentConfig::share_gpu): calls then wait for their time slices"))
}

/// Without NVML nothing is known of others.
#[cfg(not(feature = "metrics"))]
pub(super) fn refuse_company(_: &Device, _allowed: bool) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_find_room_until_the_gpu_is_full() {
        assert_eq!(clusters_left(7, 16, &[]), 7);
        assert_eq!(clusters_left(7, 16, &[16, 16]), 5);
        assert_eq!(clusters_left(7, 16, &[1, 1]), 5, "a small one may lie in the middle of a large one's place");
        assert_eq!(clusters_left(132, 1, &[16, 8]), 108);
        assert_eq!(clusters_left(7, 16, &[16; 9]), 0);
    }
}

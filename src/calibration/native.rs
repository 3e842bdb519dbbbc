//! What TensorRT's own calibrators ask for: batches in device memory, and a cache.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Batches;
use super::batches::Input;
use crate::builder::{CancelToken, OptimizationProfile, panic_message};
use crate::device::{Device, DeviceBuffer};
use crate::error::{Error, ErrorKind, Result};
use crate::tensor::elements;

/// The Rust side of `IInt8Calibrator`. What goes wrong in it is kept for the end of the build, and the build is told to
/// end; nothing unwinds into C++.
pub(crate) struct Calibrator {
    state: Mutex<State>,
    /// Pulled when the calibration fails.
    abort: CancelToken,
}

#[derive(Default)]
struct State {
    batches: Option<Batches>,
    rooms: Vec<Room>,
    device: Option<Arc<Device>>,
    /// An earlier calibration's result, which makes data unnecessary.
    cache: Vec<u8>,
    /// This calibration's result.
    made: Option<Vec<u8>>,
    failure: Option<Error>,
}

impl Calibrator {
    /// Of a build that needs none.
    pub(crate) fn none() -> Self {
        Self { state: Mutex::default(), abort: CancelToken::new() }
    }

    /// From an earlier calibration's cache.
    pub(crate) fn from_cache(cache: Vec<u8>) -> Self {
        Self { state: Mutex::new(State { cache, ..State::default() }), abort: CancelToken::new() }
    }

    /// From data, whose batches go to GPU `device`, for an engine of these profiles.
    pub(crate) fn from_batches(batches: Batches, device: usize, profiles: &[OptimizationProfile]) -> Result<Self> {
        let device = Device::open(device)?;
        let rooms = batches.inputs().iter().map(|input| Room::new(&device, input, profiles));
        let rooms = rooms.collect::<Result<Vec<_>>>()?;
        let state = State { batches: Some(batches), rooms, device: Some(device), ..State::default() };
        Ok(Self { state: Mutex::new(state), abort: CancelToken::new() })
    }

    /// Is pulled when the calibration fails.
    pub(crate) fn abort_token(&self) -> &CancelToken {
        &self.abort
    }

    /// The calibration's own error, if it failed.
    pub(crate) fn take_failure(&self) -> Option<Error> {
        self.lock().failure.take()
    }

    /// What TensorRT found, if it calibrated in this build.
    pub(crate) fn take_made(&self) -> Option<Vec<u8>> {
        self.lock().made.take()
    }

    /// The bridge's entry: the next batch is in device memory; `false`: there is none.
    pub(crate) fn next_batch(&self) -> bool {
        let mut state = self.lock();
        if state.failure.is_some() {
            return false;
        }
        let drawn = catch_unwind(AssertUnwindSafe(|| state.next())).unwrap_or_else(|payload| {
            let what = format!("a panic: {}", panic_message(payload.as_ref()));
            Err(Error::new(ErrorKind::Build, "calibrate for INT8").got(what))
        });
        drawn.unwrap_or_else(|error| {
            state.failure = Some(error);
            self.abort.cancel();
            false
        })
    }

    /// The bridge's entry: where the batch of an input lies; 0 if the network has no such input.
    pub(crate) fn address(&self, tensor: &str) -> usize {
        let state = self.lock();
        let inputs = state.batches.iter().flat_map(Batches::inputs);
        let found = inputs.zip(&state.rooms).find(|(input, _)| input.tensor.name == tensor);
        found.map_or(0, |(_, room)| usize::try_from(room.buffer.address()).unwrap_or(0))
    }

    /// The bridge's entry: an earlier result, or nothing.
    pub(crate) fn cache(&self) -> Vec<u8> {
        self.lock().cache.clone()
    }

    /// The bridge's entry: TensorRT's result.
    pub(crate) fn keep_cache(&self, bytes: &[u8]) {
        self.lock().made = Some(bytes.to_vec());
    }

    /// A poisoned lock is as good as any: what panicked has put its failure here before.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn next(&mut self) -> Result<bool> {
        let (Some(batches), Some(device)) = (&mut self.batches, &self.device) else { return Ok(false) };
        if !batches.next()? {
            return Ok(false);
        }
        device.bind()?;
        batches.inputs().iter().zip(&mut self.rooms).try_for_each(|(input, room)| room.fill(input.bytes()))?;
        Ok(true)
    }
}

/// Where an input's batch lies, again and again until the greatest shape of the profiles is full. TensorRT 8.6.1 takes no notice of the
/// calibration's shape where the profile allows one shape alone, and reads a whole input of that: behind a smaller batch it
/// found what had lain in memory before, and chose ranges of 1e36 by it. Other profiles are not known to lead it astray, and not
/// trusted.
struct Room {
    buffer: DeviceBuffer,
    bytes: Vec<u8>,
}

impl Room {
    fn new(device: &Arc<Device>, input: &Input, profiles: &[OptimizationProfile]) -> Result<Self> {
        let greatest = profiles.iter().filter_map(|profile| elements(&profile.shapes.get(&input.tensor.name)?.max));
        let greatest = greatest.max().map_or(0, |elements| elements * input.tensor.data_type.size());
        let bytes = greatest.max(input.bytes().len());
        let what = "a calibration batch of the profile's greatest shape";
        Ok(Self { buffer: DeviceBuffer::new(device, bytes, what, "that shape")?, bytes: vec![0; bytes] })
    }

    fn fill(&mut self, batch: &[u8]) -> Result<()> {
        self.bytes.chunks_mut(batch.len().max(1)).for_each(|chunk| chunk.copy_from_slice(&batch[..chunk.len()]));
        self.buffer.fill(&self.bytes)
    }
}

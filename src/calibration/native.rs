//! What TensorRT's own calibrators ask for: batches in device memory, and a cache.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Batches;
use crate::builder::{CancelToken, panic_message};
use crate::device::{Device, DeviceBuffer};
use crate::error::{Error, ErrorKind, Result};

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
    buffers: Vec<DeviceBuffer>,
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

    /// From data, whose batches go to GPU `device`.
    pub(crate) fn from_batches(batches: Batches, device: usize) -> Result<Self> {
        let device = Device::open(device)?;
        let buffers = batches.inputs().iter().map(|input| {
            DeviceBuffer::new(&device, input.bytes().len(), "a batch for calibration", "the size of a batch")
        });
        let buffers = buffers.collect::<Result<Vec<_>>>()?;
        let state = State { batches: Some(batches), buffers, device: Some(device), ..State::default() };
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
        let found = inputs.zip(&state.buffers).find(|(input, _)| input.tensor.name == tensor);
        found.map_or(0, |(_, buffer)| usize::try_from(buffer.address()).unwrap_or(0))
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
        batches.inputs().iter().zip(&self.buffers).try_for_each(|(input, buffer)| buffer.fill(input.bytes()))?;
        Ok(true)
    }
}

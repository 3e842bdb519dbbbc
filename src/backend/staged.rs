//! The usual way to run a network on a GPU: normalise on the host, copy in, run, copy out, synchronise. What the baselines
//! have in common that `tickrt bench` holds the session against.

use std::sync::Arc;

use crate::backend::slots::SlotLayout;
use crate::backend::{Backend, BackendKind, FIRST_CALL, Health, LAST_CALL, Signature, SlotMemory, widen};
use crate::completion::{Done, Status};
use crate::device::{Device, DeviceBuffer, Graph, MappedBuffer, Quarantine, Settle, Stream};
use crate::error::{ErrorKind, Result};

/// The network between the copies.
pub(crate) trait Network: Send {
    /// Puts one run on `stream`, over the bindings that it was given.
    fn enqueue(&mut self, stream: &Stream) -> Result<()>;
}

/// What [`Staged::new`] takes.
pub(crate) struct Parts<N> {
    pub(crate) kind: BackendKind,
    pub(crate) description: String,
    pub(crate) engine_id: [u8; 32],
    /// One shape.
    pub(crate) signature: Signature,
    pub(crate) network: N,
    pub(crate) stream: Stream,
    pub(crate) bindings: Bindings,
}

/// The network's tensors on the device, in the signature's order and the network's types.
pub(crate) struct Bindings {
    pub(crate) inputs: Vec<DeviceBuffer>,
    pub(crate) outputs: Vec<DeviceBuffer>,
}

impl Bindings {
    pub(crate) fn new(device: &Arc<Device>, signature: &Signature) -> Result<Self> {
        let shape = &signature.shapes[0];
        let buffer = |bytes| DeviceBuffer::new(device, bytes, "a binding", "the announced shape");
        let outputs = shape.outputs.iter().zip(&signature.outputs);
        Ok(Self {
            inputs: shape.inputs.iter().map(|input| buffer(input.output_bytes())).collect::<Result<_>>()?,
            outputs: outputs
                .map(|(output, tensor)| buffer(output.count * tensor.data_type.size()))
                .collect::<Result<_>>()?,
        })
    }
}

/// A baseline: blocks in `launch` until the answer is there.
pub(crate) struct Staged<N> {
    kind: BackendKind,
    description: String,
    engine_id: [u8; 32],
    signature: Signature,
    slots: Vec<SlotMemory>,
    side: Quarantine<Side<N>>,
    pub(crate) device_memory: u64,
}

/// Everything whose drop calls the driver.
struct Side<N> {
    /// Copies and network in one.
    graph: Option<Graph>,
    network: N,
    stream: Stream,
    bindings: Bindings,
    /// What the copies read and write, pinned: the network's types.
    staging_in: Vec<MappedBuffer>,
    staging_out: Vec<MappedBuffer>,
    _slots: MappedBuffer,
}

impl<N: Network> Staged<N> {
    /// Runs once; captures copies and network in a graph where `graph` asks for that.
    pub(crate) fn new(device: &Arc<Device>, parts: Parts<N>, depth: usize, graph: bool) -> Result<Self> {
        let Parts { kind, description, engine_id, signature, network, stream, bindings } = parts;
        let pinned = |buffers: &[DeviceBuffer]| {
            buffers.iter().map(|buffer| MappedBuffer::new(device, buffer.bytes())).collect::<Result<Vec<_>>>()
        };
        let (staging_in, staging_out) = (pinned(&bindings.inputs)?, pinned(&bindings.outputs)?);
        let layout = SlotLayout { in_band: false, ..SlotLayout::new(&signature, false) };
        let memory = MappedBuffer::new(device, layout.bytes * depth)?;
        let slots = layout.slots(&memory, depth);
        let side = Side { graph: None, network, stream, bindings, staging_in, staging_out, _slots: memory };
        let mut side = Quarantine::new(side);
        side.enqueue()?;
        side.stream.settle(FIRST_CALL)?;
        if graph {
            side.graph = Some(side.capture()?);
        }
        Ok(Self { kind, description, engine_id, signature, slots, side, device_memory: 0 })
    }
}

impl<N: Network> Side<N> {
    fn enqueue(&mut self) -> Result<()> {
        let Self { network, stream, bindings, staging_in, staging_out, .. } = self;
        enqueue(network, stream, bindings, staging_in, staging_out)
    }

    fn capture(&mut self) -> Result<Graph> {
        let Self { network, stream, bindings, staging_in, staging_out, .. } = self;
        stream.capture(|| enqueue(network, stream, bindings, staging_in, staging_out))
    }
}

/// Copies in, the network, copies out.
fn enqueue<N: Network>(
    network: &mut N,
    stream: &Stream,
    bindings: &Bindings,
    staging_in: &[MappedBuffer],
    staging_out: &[MappedBuffer],
) -> Result<()> {
    for (from, to) in staging_in.iter().zip(&bindings.inputs) {
        // SAFETY: both have the same size and outlive the stream's work.
        unsafe { stream.copy_in(to.address(), from.host(0), to.bytes())? };
    }
    network.enqueue(stream)?;
    for (from, to) in bindings.outputs.iter().zip(staging_out) {
        // SAFETY: as above.
        unsafe { stream.copy_out(to.host(0), from.address(), from.bytes())? };
    }
    Ok(())
}

impl<N> Settle for Side<N> {
    fn settled(&self) -> bool {
        self.stream.settle(LAST_CALL).is_ok()
    }
}

// SAFETY: the slots lie in `_slots`, which is neither moved nor freed before the backend is; `SlotLayout` gives each its
// own lines. A call has ended when `launch` returns, its outputs written before its flag.
unsafe impl<N: Network> Backend for Staged<N> {
    fn kind(&self) -> BackendKind {
        self.kind
    }

    fn description(&self) -> &str {
        &self.description
    }

    fn engine_id(&self) -> [u8; 32] {
        self.engine_id
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn slots(&self) -> &[SlotMemory] {
        &self.slots
    }

    fn graph(&self) -> Result<(), &str> {
        if self.side.graph.is_some() { Ok(()) } else { Err("it is not asked for") }
    }

    fn keeps_windows(&self) -> bool {
        false
    }

    fn launch(&mut self, slot: usize, _: usize) -> Result<()> {
        if self.side.is_closed() {
            return Err(ErrorKind::Unavailable.into());
        }
        let (memory, shape) = (&self.slots[slot], &self.signature.shapes[0]);
        let Done::Flag(done) = memory.done else { unreachable!("`new` gives each a flag") };
        // SAFETY: header and flag are initialised memory of this slot, which the session does not write meanwhile.
        let (sequence, done) = unsafe { (memory.header.as_ref().sequence, done.as_ref()) };
        for ((normalizer, region), staging) in shape.inputs.iter().zip(&memory.inputs).zip(&self.side.staging_in) {
            // SAFETY: both have these sizes, are initialised and apart, and nothing runs on the device.
            let applied = unsafe {
                let from = std::slice::from_raw_parts(region.start.as_ptr(), normalizer.input_bytes());
                let to = std::slice::from_raw_parts_mut(staging.host(0).as_ptr(), normalizer.output_bytes());
                normalizer.apply(from, to)
            };
            if applied.is_err() {
                done.publish(sequence, Status(Status::NON_FINITE_INPUT));
                return Ok(());
            }
        }
        match &self.side.graph {
            Some(graph) => graph.launch(&self.side.stream)?,
            None => self.side.enqueue()?,
        }
        self.side.stream.synchronize()?;
        let outputs = shape.outputs.iter().zip(&self.signature.outputs);
        for (((output, tensor), region), staging) in outputs.zip(&memory.outputs).zip(&self.side.staging_out) {
            // SAFETY: as above; the copies have ended.
            unsafe {
                if tensor.data_type == output.data_type {
                    region.start.copy_from_nonoverlapping(staging.host(0), output.bytes());
                } else {
                    let from = std::slice::from_raw_parts(staging.host(0).as_ptr().cast::<u16>(), output.count);
                    let to = std::slice::from_raw_parts_mut(region.start.as_ptr().cast::<f32>(), output.count);
                    widen(tensor.data_type, from, to);
                }
            }
        }
        done.publish(sequence, Status::default());
        Ok(())
    }

    fn health(&mut self) -> Health {
        Health::Idle
    }

    fn device_memory(&self) -> u64 {
        self.device_memory
    }

    fn quarantine(&mut self) {
        self.side.close();
    }
}

//! How TensorRT's samples run an engine: copies, `enqueueV3` and a synchronise, as they are or captured in a CUDA graph.

use super::*;
use crate::backend::staged::{Bindings, Network, Parts, Staged};
use crate::session::Session;

/// TensorRT on the bindings that it was told at start.
struct Textbook {
    context: NativeContext,
    _activations: DeviceBuffer,
    _engine: Engine,
}

impl Network for Textbook {
    fn enqueue(&mut self, stream: &Stream) -> Result<()> {
        // SAFETY: the context was made for this stream, every binding was set, and they live beside each other.
        if unsafe { self.context.enqueue(stream.as_raw()) } {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Execution, "run the network (enqueueV3)")
            .got("TensorRT refused it")
            .log(self.context.take_log()))
    }
}

/// A session that runs the engine as TensorRT's samples do, for comparison: normalises on the host, copies, and blocks in
/// `submit` until the stream is synchronised. With `graph`, copies and network are one captured CUDA graph. Of several
/// announced shapes it takes the first.
///
/// # Errors
/// As [`Engine::session`]; and those of CUDA if a graph is asked for and cannot be captured.
pub fn session(engine: &Engine, config: &SessionConfig, graph: bool) -> Result<Session> {
    let device = engine.device();
    let mut config = config.clone();
    config.normalizations.get_or_insert_with(|| engine.normalizations().to_vec());
    let tensors = checked_tensors(engine)?;
    let (free_before, allocated_before) = (device.memory()?.free, device.allocated());
    let mut resolved = resolve(engine, &tensors, &config)?;
    resolved.truncate(1);
    let stream = Stream::new(device, config.stream_priority)?;
    let activations = activation_memory(engine)?;
    let mut context = context(engine, &tensors, &resolved[0], &stream, &activations)?;
    let signature = signature(&tensors, resolved, std::slice::from_ref(&context))?;
    check_sizes(&signature)?;
    let bindings = Bindings::new(device, &signature)?;
    let inputs = signature.inputs.iter().zip(&bindings.inputs);
    for (tensor, buffer) in inputs.chain(signature.outputs.iter().zip(&bindings.outputs)) {
        // SAFETY: the buffer has the tensor's size and lives as long as the context.
        unsafe { context.set_tensor_address(&tensor.name, buffer.address())? };
    }
    let parts = Parts {
        kind: BackendKind::TensorRt,
        description: format!("{} on {}", engine.library_version(), device.name()),
        engine_id: engine.id(),
        signature,
        network: Textbook { context, _activations: activations, _engine: engine.clone() },
        stream,
        bindings,
    };
    let mut backend = Staged::new(device, parts, config.depth, graph)?;
    let taken = free_before.saturating_sub(device.memory()?.free);
    backend.device_memory = engine.device_memory() + taken.max(device.allocated().saturating_sub(allocated_before));
    Session::start(Box::new(backend), &config)
}

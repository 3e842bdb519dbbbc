//! TensorRT behind a captured CUDA graph: normalise, the network, publish, one launch a call.
//!
//! At start every slot gets, for each announced shape, a graph of its own, because a graph's addresses are fixed. All of
//! them run on one stream, so they share the network's bindings and activation memory; each shape has an execution
//! context of its own, because a captured graph is void once its context changes.

mod input;
mod params;
mod profile;
#[doc(hidden)]
pub mod testing;
pub mod textbook;

use std::sync::Arc;

use self::input::{InputParams, Kind};
use self::params::{
    Addresses, Element, MAX_TENSORS, NormalizeParams, NormalizeTensor, PublishParams, PublishTensor, SmallParams, State,
};
pub use self::profile::LayerTimes;
use crate::backend::slots::SlotLayout;
use crate::backend::{
    Backend, BackendKind, CallShape, FIRST_CALL, Health, LAST_CALL, OutputShape, Signature, SlotMemory, delivered_type,
};
use crate::builder::profile_for;
use crate::config::{ResolvedShape, SessionConfig};
use crate::device::{Device, DeviceBuffer, Feature, Function, Graph, MappedBuffer, Module, Quarantine, Settle, Stream};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::native::NativeContext;
use crate::normalize::Normalizer;
use crate::tensor::{IoMode, TensorInfo, elements, format_shape};

/// The backend. Made by [`Engine::session`].
pub(crate) struct TensorRt {
    device_side: Quarantine<DeviceSide>,
    signature: Signature,
    slots: Vec<SlotMemory>,
    description: String,
    engine_id: [u8; 32],
    why_no_graph: Option<String>,
    launch_ahead: bool,
}

/// Everything whose drop calls the driver.
struct DeviceSide {
    /// One a shape and slot, shapes first.
    calls: Vec<Call>,
    contexts: Vec<NativeContext>,
    stream: Stream,
    /// Whether the publish kernel is launched before TensorRT's last kernel has ended, and waits for it itself.
    early_publish: bool,
    /// False only to measure what the rest takes.
    network: bool,
    _kernels: Module,
    memory: Memory,
    _engine: Engine,
    device_memory: u64,
}

/// How to start the call of one slot with one shape.
struct Call {
    /// `None` where capture is impossible: then the three parts are launched one by one.
    graph: Option<Graph>,
    input: InputParams,
    publish: PublishParams,
    input_kernel: Function,
    publish_kernel: Function,
    /// Blocks and threads of a block.
    input_grid: (u32, u32),
    publish_threads: u32,
    context: usize,
}

/// What the kernels and TensorRT read and write. Held, not touched: the addresses are in the graphs.
struct Memory {
    slots: MappedBuffer,
    inputs: Vec<DeviceBuffer>,
    outputs: Vec<DeviceBuffer>,
    layout: SlotLayout,
    /// Means and standard deviations, by shape and input.
    stats: Vec<Vec<[DeviceBuffer; 2]>>,
    /// By shape: what becomes of each element of a small input.
    elements: Vec<Option<DeviceBuffer>>,
    state: DeviceBuffer,
    rings: Option<DeviceBuffer>,
    _activations: DeviceBuffer,
}

impl TensorRt {
    /// Allocates everything, captures the graphs.
    pub(crate) fn new(engine: &Engine, config: &SessionConfig) -> Result<Self> {
        Self::with_network(engine, config, true)
    }

    /// Without its network a call is what remains: what that takes is the floor under every network.
    fn with_network(engine: &Engine, config: &SessionConfig, network: bool) -> Result<Self> {
        let device = engine.device();
        let tensors = checked_tensors(engine)?;
        let (free_before, allocated_before) = (device.memory()?.free, device.allocated());
        let resolved = resolve(engine, &tensors, config)?;
        let stream = Stream::new(device, config.stream_priority)?;
        let activations = activation_memory(engine)?;
        let mut contexts = resolved
            .iter()
            .map(|shape| context(engine, &tensors, shape, &stream, &activations))
            .collect::<Result<Vec<_>>>()?;
        let signature = signature(&tensors, resolved, &contexts)?;
        check_sizes(&signature)?;
        let memory = Memory::new(device, &signature, config, activations)?;
        for context in &mut contexts {
            memory.bind(&signature, context)?;
        }
        let kernels = load_kernels(device)?;
        let slots = memory.layout.slots(&memory.slots, ring_and_warm(config));
        let mut device_side = Quarantine::new(DeviceSide {
            calls: memory.calls(&signature, config, &kernels)?,
            contexts,
            stream,
            // `griddepcontrol` came with Hopper, and code made for less does not have it, wherever it runs.
            early_publish: Feature::LaunchAttributes.is_there()
                && device.compute_capability() >= (9, 0)
                && kernels.function(c"tickrt_publish")?.virtual_architecture() >= 90,
            network,
            _kernels: kernels,
            memory,
            _engine: engine.clone(),
            device_memory: 0,
        });
        let why_no_graph = device_side.capture()?;
        // What the driver took, module loading included; its pages are large, so a small session may seem to take none.
        let taken = free_before.saturating_sub(device.memory()?.free);
        device_side.device_memory =
            engine.device_memory() + taken.max(device.allocated().saturating_sub(allocated_before));
        Ok(Self {
            description: format!("{} on {}", engine.library_version(), device.name()),
            engine_id: engine.id(),
            device_side,
            signature,
            slots,
            why_no_graph,
            launch_ahead: config.launch_ahead.is_some(),
        })
    }
}

// SAFETY: the slots lie in `memory.slots`, which is neither moved nor freed before the backend is (quarantined, never);
// `SlotLayout` gives each its own lines. publish.cuh writes the flag after the outputs with release order, or every unit
// whole with its tag, and the kernels of a slot run only after its launch.
unsafe impl Backend for TensorRt {
    fn kind(&self) -> BackendKind {
        BackendKind::TensorRt
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
        self.why_no_graph.as_deref().map_or(Ok(()), Err)
    }

    fn keeps_windows(&self) -> bool {
        self.device_side.memory.rings.is_some()
    }

    #[inline]
    fn launch(&mut self, slot: usize, shape: usize) -> Result<()> {
        if self.device_side.is_closed() {
            return Err(ErrorKind::Unavailable.into());
        }
        let call = shape * self.slots.len() + slot;
        match &self.device_side.calls[call].graph {
            Some(graph) => graph.launch(&self.device_side.stream),
            None => self.device_side.launch_parts(call),
        }
    }

    fn launches_ahead(&self) -> bool {
        // Without a graph the launch itself does the work that should be ahead.
        self.launch_ahead && self.why_no_graph.is_none()
    }

    fn health(&mut self) -> Health {
        if self.device_side.is_closed() {
            return Health::Failed(ErrorKind::Unavailable.into());
        }
        match self.device_side.stream.is_idle() {
            Ok(true) => Health::Idle,
            Ok(false) => Health::Running,
            Err(error) => Health::Failed(error),
        }
    }

    fn device_memory(&self) -> u64 {
        self.device_side.device_memory
    }

    fn quarantine(&mut self) {
        self.device_side.close();
    }
}

impl DeviceSide {
    /// Runs every call once, then captures it. The reason, if TensorRT's work cannot be captured.
    fn capture(&mut self) -> Result<Option<String>> {
        for call in 0..self.calls.len() {
            self.launch_parts(call)?;
            self.stream.settle(FIRST_CALL)?;
        }
        let mut captured = self.capture_all();
        if self.early_publish && captured.as_ref().is_err_and(|error| !error.is_sticky()) {
            // Drivers before 12.3 know no such edge in a graph.
            self.early_publish = false;
            captured = self.capture_all();
        }
        if let Err(error) = captured {
            if error.is_sticky() {
                return Err(error);
            }
            // All or none: two ways of launching would have two latencies.
            self.calls.iter_mut().for_each(|call| call.graph = None);
            return Ok(Some(error.to_string()));
        }
        self.stream.settle(FIRST_CALL)?;
        Ok(None)
    }

    fn capture_all(&mut self) -> Result<()> {
        let Self { calls, contexts, stream, early_publish, network, .. } = self;
        for call in calls {
            let context = network.then(|| &mut contexts[call.context]);
            let graph = stream.capture(|| enqueue_parts(call, context, stream, *early_publish))?;
            call.graph = Some(graph);
        }
        Ok(())
    }

    fn launch_parts(&mut self, call: usize) -> Result<()> {
        let call = &self.calls[call];
        let context = self.network.then(|| &mut self.contexts[call.context]);
        let launched = enqueue_parts(call, context, &self.stream, self.early_publish);
        launched.inspect_err(|error| {
            // Half a call: its first kernel may still read the slot, and has left a status that no publish has cleared.
            if !error.is_sticky() && self.stream.settle(LAST_CALL).is_ok() {
                let _ = self.memory.state.clear();
            }
        })
    }
}

impl Settle for DeviceSide {
    /// A session may be dropped in the middle of a call: nothing may be freed under it.
    fn settled(&self) -> bool {
        self.stream.settle(LAST_CALL).is_ok()
    }
}

/// What a call is made of.
fn enqueue_parts(call: &Call, context: Option<&mut NativeContext>, stream: &Stream, early_publish: bool) -> Result<()> {
    // SAFETY: kernels/params.h and the structures below agree (`layout_matches_the_kernels`); every address lies in
    // `Memory`, which outlives the stream's work.
    unsafe {
        call.input.launch(call.input_kernel, stream, call.input_grid)?;
        if let Some(context) = context
            && !context.enqueue(stream.as_raw())
        {
            return Err(Error::new(ErrorKind::Execution, "run the network (enqueueV3)")
                .got("TensorRT refused it")
                .log(context.take_log()));
        }
        let threads = call.publish_threads;
        if early_publish {
            call.publish_kernel.launch_early(stream, 1, threads, &call.publish)
        } else {
            call.publish_kernel.launch(stream, 1, threads, &call.publish)
        }
    }
}

/// The engine's tensors, if they are all of a kind that this backend can feed.
fn checked_tensors(engine: &Engine) -> Result<Vec<TensorInfo>> {
    let facts = engine.facts();
    let unsupported = |what: String| Error::new(ErrorKind::Unsupported, "prepare the engine's tensors").got(what);
    for tensor in &facts.tensors {
        let name = &tensor.info.name;
        if tensor.on_host {
            return Err(unsupported(format!("`{name}`, a shape tensor on the host"))
                .advice("export the model with that shape fixed"));
        }
        if let Some(layout) = &tensor.layout {
            return Err(unsupported(format!("`{name}` in the layout {layout}"))
                .expected("plain row-major tensors")
                .advice("build without vectorised I/O formats"));
        }
    }
    for mode in [IoMode::Input, IoMode::Output] {
        let count = facts.tensors.iter().filter(|tensor| tensor.info.mode == mode).count();
        if count == 0 || count > MAX_TENSORS {
            return Err(unsupported(format!("{count} {mode:?} tensors")).expected(format!("1 to {MAX_TENSORS}")));
        }
    }
    Ok(facts.tensors.iter().map(|tensor| tensor.info.clone()).collect())
}

/// Every announced shape; a dynamic input that was not announced has the optimum of the first profile.
fn resolve(engine: &Engine, tensors: &[TensorInfo], config: &SessionConfig) -> Result<Vec<ResolvedShape>> {
    let profiles = &engine.facts().profiles;
    config.resolve(tensors, |tensor| {
        profiles.first().and_then(|profile| profile.shapes.get(&tensor.name)).map(|range| range.opt.clone())
    })
}

fn activation_memory(engine: &Engine) -> Result<DeviceBuffer> {
    DeviceBuffer::new(
        engine.device(),
        engine.facts().device_memory_bytes as usize,
        "the network's activation memory",
        "the workspace when the engine is built (--memPoolSize=workspace:128M), the largest shape of its profile or the \
         number of sessions",
    )
}

/// A context for one shape, on a profile that admits it.
fn context(
    engine: &Engine,
    tensors: &[TensorInfo],
    shape: &ResolvedShape,
    stream: &Stream,
    activations: &DeviceBuffer,
) -> Result<NativeContext> {
    let inputs: Vec<&TensorInfo> = tensors.iter().filter(|tensor| tensor.mode == IoMode::Input).collect();
    let profile = profile_for(&engine.facts().profiles, &inputs, &shape.dimensions)?;
    let _beside = engine.device().enter()?;
    let mut context = engine
        .native()
        .create_context(profile as u32, stream.as_raw(), true)
        .map_err(|error| engine.device().explain_memory(error, "an execution context was to be made"))?;
    // SAFETY: `activations` goes into the same `DeviceSide` and is as large as the engine asks.
    unsafe { context.set_device_memory(activations.address(), activations.bytes() as u64) };
    for (input, dimensions) in inputs.iter().zip(&shape.dimensions) {
        if input.elements().is_none() {
            context.set_input_shape(&input.name, dimensions)?;
        }
    }
    if !context.all_shapes_specified() {
        return Err(Error::new(ErrorKind::Shape, "settle the network's shapes")
            .expected("every dynamic input's shape")
            .advice(
                "TensorRT 8.6 lends a profile to one context only, unless the plan was built for sharing as tickrt \
                 does: build it again, or announce one shape in one session",
            )
            .log(context.take_log()));
    }
    Ok(context)
}

fn signature(tensors: &[TensorInfo], resolved: Vec<ResolvedShape>, contexts: &[NativeContext]) -> Result<Signature> {
    let of = |mode| tensors.iter().filter(move |tensor| tensor.mode == mode).cloned().collect::<Vec<_>>();
    let (inputs, outputs) = (of(IoMode::Input), of(IoMode::Output));
    let output_shape = |output: &TensorInfo, context: &NativeContext| {
        let shape = context.tensor_shape(&output.name);
        let count = elements(&shape).ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, format!("settle the shape of output `{}`", output.name))
                .expected("one that follows from the inputs' shapes")
                .got(format_shape(&shape))
        })?;
        Ok(OutputShape { data_type: delivered_type(output.data_type), shape, count })
    };
    let shapes = resolved
        .into_iter()
        .zip(contexts)
        .map(|(shape, context)| {
            let outputs = outputs.iter().map(|output| output_shape(output, context)).collect::<Result<_>>()?;
            Ok(CallShape { inputs: shape.normalizers, outputs })
        })
        .collect::<Result<_>>()?;
    Ok(Signature { inputs, outputs, shapes })
}

/// The kernels count bytes in 32 bits.
fn check_sizes(signature: &Signature) -> Result<()> {
    for shape in &signature.shapes {
        let inputs = shape.inputs.iter().map(|input| input.input_bytes().max(input.output_bytes()));
        let sizes = inputs.chain(shape.outputs.iter().map(OutputShape::bytes));
        if let Some(bytes) = sizes.max().filter(|&bytes| bytes > i32::MAX as usize) {
            return Err(Error::new(ErrorKind::Shape, "prepare the engine's tensors")
                .expected("tensors of less than 2 GiB")
                .got(format!("{bytes} bytes"))
                .advice("announce smaller shapes"));
        }
    }
    Ok(())
}

// ---- Memory.

/// How long a launch waits for its call; 0: the call is there.
fn patience_us(config: &SessionConfig) -> u32 {
    config.launch_ahead.map_or(0, |patience| patience.as_micros() as u32)
}

/// The ring's slots, and one to keep the device warm with.
fn ring_and_warm(config: &SessionConfig) -> usize {
    config.depth + 1
}

impl Memory {
    fn new(
        device: &Arc<Device>,
        signature: &Signature,
        config: &SessionConfig,
        activations: DeviceBuffer,
    ) -> Result<Self> {
        let lower = "the largest announced shape, or end other users of the GPU";
        let bindings = |count: usize, what: &str, bytes: &dyn Fn(&CallShape, usize) -> usize| {
            signature
                .largest(count, bytes)
                .map(|bytes| DeviceBuffer::new(device, bytes, what, lower))
                .collect::<Result<Vec<_>>>()
        };
        let rings = config.windows.as_ref().filter(|_| input::keeps_windows(config)).map(|windows| {
            let bytes = signature.shapes[0].inputs[0].input_bytes() * windows.symbols as usize;
            DeviceBuffer::new(device, bytes, "the rolling windows", "the number of symbols")
        });
        let stats = |normalizer: &Normalizer| {
            Ok([
                DeviceBuffer::from_slice(device, &normalizer.mean, "means")?,
                DeviceBuffer::from_slice(device, &normalizer.std, "standard deviations")?,
            ])
        };
        let elements = |shape: &CallShape| {
            let small = Kind::of(&shape.inputs, config) != Kind::Any;
            let table = if small { Element::table(&shape.inputs[0]) } else { Vec::new() };
            let filled = !table.is_empty();
            filled.then(|| DeviceBuffer::from_slice(device, &table, "an input's elements")).transpose()
        };
        let layout = SlotLayout::new(signature, input::comes_in_band(signature, config));
        Ok(Self {
            slots: MappedBuffer::new(device, layout.bytes * ring_and_warm(config))?,
            layout,
            inputs: bindings(signature.inputs.len(), "an input", &|shape, i| shape.inputs[i].output_bytes())?,
            outputs: bindings(signature.outputs.len(), "an output", &|shape, i| shape.outputs[i].bytes())?,
            stats: signature
                .shapes
                .iter()
                .map(|shape| shape.inputs.iter().map(stats).collect::<Result<Vec<_>>>())
                .collect::<Result<_>>()?,
            elements: signature.shapes.iter().map(elements).collect::<Result<_>>()?,
            state: DeviceBuffer::new(device, size_of::<State>(), "the call's state", lower)?,
            rings: rings.transpose()?,
            _activations: activations,
        })
    }

    fn bind(&self, signature: &Signature, context: &mut NativeContext) -> Result<()> {
        let inputs = signature.inputs.iter().zip(&self.inputs);
        for (tensor, buffer) in inputs.chain(signature.outputs.iter().zip(&self.outputs)) {
            // SAFETY: the buffer is as large as the largest shape and lives in the same `DeviceSide`.
            unsafe { context.set_tensor_address(&tensor.name, buffer.address())? };
        }
        Ok(())
    }

    fn calls(&self, signature: &Signature, config: &SessionConfig, kernels: &Module) -> Result<Vec<Call>> {
        let windows = self.rings.is_some();
        let mut calls = Vec::new();
        for (number, shape) in signature.shapes.iter().enumerate() {
            let kind = Kind::of(&shape.inputs, config);
            for slot in 0..ring_and_warm(config) {
                let base = slot * self.layout.bytes;
                let publish = self.publish_params(signature, shape, base);
                let input = match kind {
                    Kind::Any => InputParams::Any(Box::new(self.normalize_params(number, shape, base, config))),
                    Kind::Small | Kind::InBand => {
                        InputParams::Small(self.small_params(number, &shape.inputs[0], base, config))
                    }
                };
                calls.push(Call {
                    graph: None,
                    input,
                    input_kernel: kernels.function(kind.kernel(&shape.inputs, windows))?,
                    input_grid: kind.grid(&shape.inputs, windows),
                    publish,
                    publish_kernel: kernels.function(publish.kernel(self.layout.in_band))?,
                    publish_threads: publish.threads(self.layout.in_band),
                    context: number,
                });
            }
        }
        Ok(calls)
    }

    fn small_params(&self, number: usize, normalizer: &Normalizer, base: usize, config: &SessionConfig) -> SmallParams {
        let source = self.layout.input_units.unwrap_or(self.layout.inputs[0].0);
        let elements = self.elements[number].as_ref().map_or(0, DeviceBuffer::address);
        SmallParams {
            header: self.slots.address(base),
            state: self.state.address(),
            patience_us: patience_us(config),
            ..SmallParams::new(normalizer, self.slots.address(base + source), self.inputs[0].address(), elements)
        }
    }

    fn normalize_params(
        &self,
        number: usize,
        shape: &CallShape,
        base: usize,
        config: &SessionConfig,
    ) -> NormalizeParams {
        let mut params = NormalizeParams {
            header: self.slots.address(base),
            state: self.state.address(),
            tensor_count: shape.inputs.len() as u32,
            patience_us: patience_us(config),
            ..bytemuck::Zeroable::zeroed()
        };
        let row = config.windows.as_ref().filter(|_| self.rings.is_some()).map_or(0, |windows| windows.row);
        for (input, normalizer) in shape.inputs.iter().enumerate() {
            let [means, stds] = &self.stats[number][input];
            let addresses = Addresses {
                source: self.slots.address(base + self.layout.inputs[input].0),
                destination: self.inputs[input].address(),
                means: means.address(),
                stds: stds.address(),
                ring: self.rings.as_ref().map_or(0, DeviceBuffer::address),
            };
            params.tensors[input] = NormalizeTensor::new(normalizer, row, addresses);
        }
        params
    }

    fn publish_params(&self, signature: &Signature, shape: &CallShape, base: usize) -> PublishParams {
        let mut params = PublishParams {
            state: self.state.address(),
            done: self.slots.address(base + self.layout.done),
            tensor_count: shape.outputs.len() as u32,
            ..bytemuck::Zeroable::zeroed()
        };
        for (output, tensor) in signature.outputs.iter().enumerate() {
            let destination = self.slots.address(base + self.layout.outputs[output].0);
            let source = self.outputs[output].address();
            params.tensors[output] = PublishTensor::new(tensor.data_type, &shape.outputs[output], source, destination);
        }
        params
    }
}

// ---- Kernels.

#[cfg(tickrt_kernels)]
fn load_kernels(device: &Arc<Device>) -> Result<Module> {
    #[repr(align(64))]
    struct Aligned<T: ?Sized>(T);
    static FAT_BINARY: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/tickrt.fatbin")));
    Module::load(device, &FAT_BINARY.0)
}

#[cfg(not(tickrt_kernels))]
fn load_kernels(_: &Arc<Device>) -> Result<Module> {
    Err(Error::new(ErrorKind::Unsupported, "load the kernels")
        .expected("a tickrt that was built with nvcc")
        .got("one that was built without")
        .advice("run scripts/setup or set CUDA_HOME, and build again"))
}

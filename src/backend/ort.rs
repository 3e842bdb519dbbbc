//! ONNX Runtime, on a CPU and through its CUDA provider: the fallbacks of the chain.
//!
//! A call is computed inside [`Backend::launch`], on the calling thread. Everything is bound once at start: the tensors
//! lie in the slots themselves where nothing has to be converted, and in fixed memory beside them where something has.

mod exposed;
mod graph;
mod library;
mod memory;
mod raw;

use std::ffi::{CString, c_char};
use std::mem::ManuallyDrop;
use std::path::Path;
use std::ptr::{self, NonNull};

use ::ort as onnx_runtime;
use onnx_runtime::AsPointer;
use onnx_runtime::ep::{self, ArenaExtendStrategy, cuda::ConvAlgorithmSearch};
use onnx_runtime::session::Session;
use onnx_runtime::session::builder::{GraphOptimizationLevel, SessionBuilder};
use onnx_runtime::sys::{OrtApi, OrtSession, OrtValue};

pub(crate) use self::exposed::ExposedSession;
pub use self::library::OnnxRuntime;
use self::memory::{Block, Pieces};
use self::raw::{Binding, Value, check};
use crate::backend::{
    Backend, BackendKind, CallShape, Health, OutputShape, Region, Signature, SlotHeader, SlotMemory, delivered_type,
    widen,
};
use crate::completion::{Completion, Done, Status};
use crate::config::{ResolvedShape, SessionConfig};
use crate::device::{Device, Stream, is_sticky};
use crate::error::{Error, ErrorKind, Result};
use crate::onnx::{self, Model};
use crate::tensor::{TensorInfo, elements, format_shape};
use crate::trust::{self, Trust};

/// Of the CUDA provider, beside the library itself.
const SHARED: &str = "libonnxruntime_providers_shared.so";
const PROVIDER: &str = "libonnxruntime_providers_cuda.so";

const START: &str = "start ONNX Runtime";
const RUN: &str = "run ONNX Runtime";

/// Options of ONNX Runtime's CUDA provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CudaOptions {
    /// Whether matrix products and convolutions of f32 may compute in TF32. ONNX Runtime's own default is yes; here it
    /// is no, so that the fallback answers what the CPU would.
    pub tf32: bool,
}

/// A network in ONNX Runtime.
///
/// Dropped, it ends the session. After [`quarantine`](Backend::quarantine) it is leaked instead, memory and all, because
/// ending a CUDA session calls the driver and a lost device may still write.
pub struct OrtBackend {
    kind: BackendKind,
    description: String,
    engine_id: [u8; 32],
    signature: Signature,
    slots: Vec<SlotMemory>,
    device_memory: u64,
    /// The error that ended it, if one did.
    lost: Option<i32>,
    quarantined: bool,
    native: ManuallyDrop<Native>,
}

/// What belongs to ONNX Runtime, in drop order: what refers to the session, the session, the memory.
struct Native {
    /// One a slot and shape, those of a slot side by side.
    calls: Vec<Call>,
    names: Names,
    session: Session,
    api: &'static OrtApi,
    /// Where the network takes an input that is not handed over as the network wants it.
    input_staging: Vec<Option<Block>>,
    /// Where the network puts an output that is delivered in another type.
    output_staging: Vec<Option<Block>>,
    /// The slots' memory, one block each.
    _slots: Vec<Block>,
}

/// What one slot's calls of one shape hand to ONNX Runtime.
struct Call {
    /// On the CPU. On CUDA binding would copy the input once, at the time of binding.
    binding: Option<Binding>,
    input_pointers: Vec<*const OrtValue>,
    output_pointers: Vec<*mut OrtValue>,
    /// What the pointers point at.
    _values: Vec<Value>,
}

/// The tensors' names as the C API takes them.
struct Names {
    inputs: Vec<*const c_char>,
    outputs: Vec<*const c_char>,
    /// What the pointers point at: the inputs', then the outputs'.
    strings: Vec<CString>,
}

// SAFETY: nothing in it is tied to a thread: a session may run on any, one at a time suffices for the rest, and the
// pointers of `slots` and `native` point at memory that is owned by `native` and moves with it.
unsafe impl Send for OrtBackend {}

impl OrtBackend {
    /// Starts a session on the CPU.
    ///
    /// # Errors
    /// [`OnnxRuntime::load`]'s; [`ErrorKind::OnnxRuntime`] with ONNX Runtime's message; those of the configuration.
    pub fn cpu(model: &Model, config: &SessionConfig) -> Result<Self> {
        let runtime = OnnxRuntime::load(None)?;
        let builder = cpu_builder(config).map_err(|message| translate(START, &message))?;
        let threads = match config.cpu_threads {
            0 => "as many threads as it likes".to_owned(),
            1 => "1 thread".to_owned(),
            threads => format!("{threads} threads"),
        };
        let description = format!("ONNX Runtime {} on CPU, {threads}", runtime.version());
        Self::start(runtime, BackendKind::OrtCpu, description, builder, model, config)
    }

    /// Starts a session on the GPU `config.device`. There is no silent way to the CPU: without the provider or the GPU
    /// this is an error. (Nodes without a CUDA kernel do run on the CPU, as ONNX Runtime decides.)
    ///
    /// # Errors
    /// Like [`cpu`](Self::cpu); and [`ErrorKind::Unsupported`] or [`ErrorKind::OnnxRuntimeMissing`] if this ONNX Runtime
    /// has no CUDA provider, [`ErrorKind::NoGpu`], [`ErrorKind::OutOfMemory`], [`ErrorKind::DeviceLost`].
    pub fn cuda(model: &Model, config: &SessionConfig, options: CudaOptions) -> Result<Self> {
        let runtime = OnnxRuntime::load(None)?;
        has_cuda(runtime)?;
        let meter = Meter::start(config.device);
        let builder = cuda_builder(config, options, None).map_err(|message| translate(START, &message))?;
        let description = format!("ONNX Runtime {} on CUDA device {}", runtime.version(), config.device);
        let mut backend = Self::start(runtime, BackendKind::OrtCuda, description, builder, model, config)?;
        backend.device_memory = meter.map_or(0, |meter| meter.taken());
        Ok(backend)
    }

    fn start(
        runtime: &'static OnnxRuntime,
        kind: BackendKind,
        description: String,
        mut builder: SessionBuilder,
        model: &Model,
        config: &SessionConfig,
    ) -> Result<Self> {
        trust::check_model(model)?;
        let api = runtime.api;
        let shapes = config.resolve(model.tensors(), batch_of_one)?;
        let session = commit(&mut builder, model)?;
        let names = Names::new(model)?;
        let pointer = session.ptr().cast_mut();
        let shapes = shapes.into_iter().map(|shape| learn(api, pointer, &names, model, shape));
        let shapes = shapes.collect::<Result<Vec<_>>>()?;
        let calls: Vec<CallShape> = shapes.iter().map(|(_, call)| call.clone()).collect();
        let slots = (0..config.depth).map(|_| slot(&calls)).collect::<Result<Vec<_>>>()?;
        let (slots, blocks) = slots.into_iter().unzip::<_, _, Vec<_>, Vec<_>>();
        let input_staging = (0..model.inputs().len())
            .map(|i| {
                let bytes = calls.iter().filter(|call| !call.inputs[i].copy).map(|call| call.inputs[i].output_bytes());
                bytes.max().map(Block::new).transpose()
            })
            .collect::<Result<_>>()?;
        let output_staging = (0..model.outputs().len())
            .map(|i| {
                let network = model.outputs()[i].data_type;
                let bytes = calls.iter().map(|call| call.outputs[i].count * network.size()).max().unwrap_or(0);
                (delivered_type(network) != network).then(|| Block::new(bytes)).transpose()
            })
            .collect::<Result<_>>()?;
        let mut native =
            Native { calls: Vec::new(), names, session, api, input_staging, output_staging, _slots: blocks };
        for slot in &slots {
            for (dimensions, call) in &shapes {
                let call = native.bind(kind, model, slot, dimensions, call);
                native.calls.push(call.map_err(|message| translate(START, &message))?);
            }
        }
        Ok(Self {
            kind,
            description,
            engine_id: model.sha256(),
            signature: Signature { inputs: model.inputs().to_vec(), outputs: model.outputs().to_vec(), shapes: calls },
            slots,
            device_memory: 0,
            lost: None,
            quarantined: false,
            native: ManuallyDrop::new(native),
        })
    }
}

// SAFETY: the slots point into blocks that `native` owns until the backend is dropped, and for ever if it is
// quarantined; `slot` lays them out side by side. ONNX Runtime has finished with a call's memory when it returns, and
// `done` is published after that.
unsafe impl Backend for OrtBackend {
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
        Err("ONNX Runtime launches its kernels one by one")
    }

    fn keeps_windows(&self) -> bool {
        false
    }

    fn launch(&mut self, slot: usize, shape: usize) -> Result<()> {
        if let Some(code) = self.lost {
            return Err(ErrorKind::DeviceLost { code }.into());
        }
        if self.quarantined {
            return Err(ErrorKind::Unavailable.into());
        }
        let memory = &self.slots[slot];
        let call_shape = &self.signature.shapes[shape];
        let Done::Flag(done) = memory.done else { unreachable!("`slot` gives each a flag") };
        // SAFETY: header and flag are initialised memory of this slot, which the session does not write meanwhile.
        let (sequence, done) = unsafe { (memory.header.as_ref().sequence, done.as_ref()) };
        for (i, normalizer) in call_shape.inputs.iter().enumerate() {
            let Some(staging) = self.native.input_staging[i].as_ref().filter(|_| !normalizer.copy) else { continue };
            // SAFETY: both have these lengths for every shape (`slot` and `start` saw to it), are initialised, do not
            // overlap, and ONNX Runtime runs only below.
            let applied = unsafe {
                let from = std::slice::from_raw_parts(memory.inputs[i].start.as_ptr(), normalizer.input_bytes());
                let to = std::slice::from_raw_parts_mut(staging.start().as_ptr(), normalizer.output_bytes());
                normalizer.apply(from, to)
            };
            if applied.is_err() {
                // The one error that it knows is that of NaN under `refuse`.
                done.publish(sequence, Status(Status::NON_FINITE_INPUT));
                return Ok(());
            }
        }
        if let Err(message) = self.native.run(slot * self.signature.shapes.len() + shape) {
            let error = translate(RUN, &message);
            if let ErrorKind::DeviceLost { code } = error.kind() {
                self.lost = Some(code);
            }
            return Err(error);
        }
        for (i, output) in call_shape.outputs.iter().enumerate() {
            let Some(staging) = &self.native.output_staging[i] else { continue };
            // SAFETY: as above; the elements are 2 bytes here and 4 there.
            unsafe {
                let from = std::slice::from_raw_parts(staging.start().as_ptr().cast::<u16>(), output.count);
                let to = std::slice::from_raw_parts_mut(memory.outputs[i].start.as_ptr().cast::<f32>(), output.count);
                widen(self.signature.outputs[i].data_type, from, to);
            }
        }
        done.publish(sequence, Status::default());
        Ok(())
    }

    fn health(&mut self) -> Health {
        match self.lost {
            Some(code) => Health::Failed(ErrorKind::DeviceLost { code }.into()),
            None => Health::Idle,
        }
    }

    fn device_memory(&self) -> u64 {
        self.device_memory
    }

    fn quarantine(&mut self) {
        self.quarantined = true;
    }
}

impl Drop for OrtBackend {
    fn drop(&mut self) {
        if !self.quarantined && self.lost.is_none() {
            // SAFETY: dropped once, here, and not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.native) };
        }
    }
}

impl Native {
    /// The tensors of one slot for one shape.
    fn bind(
        &self,
        kind: BackendKind,
        model: &Model,
        slot: &SlotMemory,
        dimensions: &[Vec<i64>],
        call: &CallShape,
    ) -> Result<Call, String> {
        let mut values = Vec::new();
        for (i, (tensor, normalizer)) in model.inputs().iter().zip(&call.inputs).enumerate() {
            let staging = self.input_staging[i].as_ref().filter(|_| !normalizer.copy);
            let start = staging.map_or(slot.inputs[i].start, Block::start);
            // SAFETY: slots and staging have room for every shape, and live longer than the calls (see `Native`).
            values.push(unsafe {
                Value::over(self.api, start, normalizer.output_bytes(), tensor.data_type, &dimensions[i])?
            });
        }
        for (i, (tensor, output)) in model.outputs().iter().zip(&call.outputs).enumerate() {
            let start = self.output_staging[i].as_ref().map_or(slot.outputs[i].start, Block::start);
            let bytes = output.count * tensor.data_type.size();
            // SAFETY: as above.
            values.push(unsafe { Value::over(self.api, start, bytes, tensor.data_type, &output.shape)? });
        }
        let (inputs, outputs) = values.split_at(model.inputs().len());
        let (input_names, output_names) = self.names.strings.split_at(inputs.len());
        let binding = if kind == BackendKind::OrtCpu {
            // SAFETY: the calls are dropped before the session.
            let mut binding = unsafe { Binding::new(self.api, self.session.ptr().cast_mut())? };
            input_names.iter().zip(inputs).try_for_each(|(name, value)| binding.input(name, value))?;
            output_names.iter().zip(outputs).try_for_each(|(name, value)| binding.output(name, value))?;
            Some(binding)
        } else {
            None
        };
        Ok(Call {
            binding,
            input_pointers: inputs.iter().map(|value| value.as_ptr().cast_const()).collect(),
            output_pointers: outputs.iter().map(Value::as_ptr).collect(),
            _values: values,
        })
    }

    /// Runs the call of this number. Allocates nothing of ours unless it fails.
    fn run(&mut self, call: usize) -> Result<(), String> {
        let session = self.session.ptr().cast_mut();
        let call = &mut self.calls[call];
        // SAFETY: session, binding, names and values are alive, and `&mut self` keeps every other thread out of them.
        unsafe {
            check(match &call.binding {
                Some(binding) => (self.api.RunWithBinding)(session, ptr::null(), binding.as_ptr()),
                None => (self.api.Run)(
                    session,
                    ptr::null(),
                    self.names.inputs.as_ptr(),
                    call.input_pointers.as_ptr(),
                    call.input_pointers.len(),
                    self.names.outputs.as_ptr(),
                    call.output_pointers.len(),
                    call.output_pointers.as_mut_ptr(),
                ),
            })
        }
    }
}

impl Names {
    fn new(model: &Model) -> Result<Self> {
        let strings = model.tensors().iter().map(|tensor| CString::new(tensor.name.as_str()));
        let strings = strings.collect::<Result<Vec<_>, _>>().map_err(|_| {
            Error::new(ErrorKind::Onnx, START).expected("names of tensors").got("one with a zero byte in it")
        })?;
        let pointers: Vec<_> = strings.iter().map(|name| name.as_ptr()).collect();
        let (inputs, outputs) = pointers.split_at(model.inputs().len());
        Ok(Self { inputs: inputs.to_vec(), outputs: outputs.to_vec(), strings })
    }
}

/// The session of a model.
fn commit(builder: &mut SessionBuilder, model: &Model) -> Result<Session> {
    let session = match (model.path(), model.external_files()) {
        // With its weights beside it, ONNX Runtime has to know the model's folder.
        (Some(path), [_, ..]) => builder.commit_from_file(path),
        _ => builder.commit_from_memory(model.bytes()),
    };
    session.map_err(|error| translate(START, &error.to_string()))
}

/// No profile tells the size of a dynamic dimension. That of a batch is 1 unless it is announced.
fn batch_of_one(tensor: &TensorInfo) -> Option<Vec<i64>> {
    let mut shape = tensor.shape.clone();
    let batch = shape.first_mut().filter(|batch| **batch < 0)?;
    *batch = 1;
    elements(&shape).map(|_| shape)
}

/// Runs the network once on zeros: only so are the shapes of its outputs certain. On CUDA this is also where cuDNN's
/// algorithms are chosen.
fn learn(
    api: &'static OrtApi,
    session: *mut OrtSession,
    names: &Names,
    model: &Model,
    shape: ResolvedShape,
) -> Result<(Vec<Vec<i64>>, CallShape)> {
    let ResolvedShape { dimensions, normalizers } = shape;
    let outputs = try_run(api, session, names, model, &dimensions).map_err(|message| {
        let shapes: Vec<String> = dimensions.iter().map(|shape| format_shape(shape)).collect();
        translate(&format!("{RUN} once with inputs of {}", shapes.join(" and ")), &message)
    })?;
    let outputs = outputs.iter().zip(model.outputs()).map(|(value, tensor)| delivered(value, tensor));
    let outputs = outputs.collect::<Result<_>>()?;
    Ok((dimensions, CallShape { inputs: normalizers, outputs }))
}

fn try_run(
    api: &'static OrtApi,
    session: *mut OrtSession,
    names: &Names,
    model: &Model,
    dimensions: &[Vec<i64>],
) -> Result<Vec<Value>, String> {
    let mut blocks = Vec::new();
    let mut values = Vec::new();
    for (tensor, shape) in model.inputs().iter().zip(dimensions) {
        let bytes = elements(shape).unwrap_or(0) * tensor.data_type.size();
        let block = Block::new(bytes).map_err(|error| error.to_string())?;
        // SAFETY: the blocks live to the end of this function, and the values do not leave it.
        values.push(unsafe { Value::over(api, block.start(), bytes, tensor.data_type, shape)? });
        blocks.push(block);
    }
    let inputs: Vec<*const OrtValue> = values.iter().map(|value| value.as_ptr().cast_const()).collect();
    let mut outputs = vec![ptr::null_mut::<OrtValue>(); names.outputs.len()];
    // SAFETY: everything is alive and as long as it is said to be; outputs that are null are made.
    unsafe {
        check((api.Run)(
            session,
            ptr::null(),
            names.inputs.as_ptr(),
            inputs.as_ptr(),
            inputs.len(),
            names.outputs.as_ptr(),
            outputs.len(),
            outputs.as_mut_ptr(),
        ))?;
    }
    let outputs = outputs.into_iter().map(|value| NonNull::new(value).ok_or("an output is missing"));
    // SAFETY: they were made for us just now.
    outputs.map(|value| Ok(unsafe { Value::owned(api, value?) })).collect()
}

fn delivered(value: &Value, tensor: &TensorInfo) -> Result<OutputShape> {
    let (shape, number) = value.shape().map_err(|message| translate(START, &message))?;
    let refuse = |kind, expected: String, got: String| {
        Err(Error::new(kind, format!("{START}: output `{}`", tensor.name)).expected(expected).got(got))
    };
    if onnx::data_type(number) != Some(tensor.data_type) {
        let got = onnx::data_type(number).map_or_else(|| format!("type {number}"), |got| got.to_string());
        return refuse(ErrorKind::Onnx, format!("{}, as the model says", tensor.data_type), got);
    }
    match elements(&shape).filter(|&count| count > 0) {
        Some(count) => Ok(OutputShape { data_type: delivered_type(tensor.data_type), shape, count }),
        None => refuse(ErrorKind::Shape, "at least one element".to_owned(), format_shape(&shape)),
    }
}

/// A slot in one block: header, flag, inputs, outputs.
fn slot(shapes: &[CallShape]) -> Result<(SlotMemory, Block)> {
    let largest = |bytes: &dyn Fn(&CallShape) -> usize| shapes.iter().map(bytes).max().unwrap_or(0);
    let inputs = (0..shapes[0].inputs.len()).map(|i| largest(&|shape| shape.inputs[i].input_bytes()));
    let outputs = (0..shapes[0].outputs.len())
        .map(|i| largest(&|shape| shape.outputs[i].count * shape.outputs[i].data_type.size()));
    let mut pieces = Pieces::default();
    let header = pieces.next(size_of::<SlotHeader>());
    let done = pieces.next(size_of::<Completion>());
    let mut places = |bytes: usize| (pieces.next(bytes), bytes);
    let inputs: Vec<_> = inputs.map(&mut places).collect();
    let outputs: Vec<_> = outputs.map(&mut places).collect();
    let block = Block::new(pieces.total())?;
    // SAFETY: every place lies within the block.
    let at = |place: usize| unsafe { block.start().add(place) };
    let region = |(place, bytes): (usize, usize)| Region { start: at(place), bytes };
    let memory = SlotMemory {
        header: at(header).cast(),
        inputs: inputs.into_iter().map(region).collect(),
        input_units: None,
        newest_row: None,
        outputs: outputs.into_iter().map(region).collect(),
        done: Done::Flag(at(done).cast()),
    };
    // Zeros are a valid header and a flag that no call has raised.
    Ok((memory, block))
}

fn cpu_builder(config: &SessionConfig) -> Result<SessionBuilder, String> {
    let mut builder = common_builder()?;
    if config.cpu_threads > 0 {
        builder = builder.with_intra_threads(config.cpu_threads).map_err(|error| error.to_string())?;
    }
    // Helpers that sleep between calls take longer to wake than such a network takes.
    builder.with_intra_op_spinning(true).map_err(|error| error.to_string())
}

/// With `stream`, the network runs there, in a graph that ONNX Runtime captures.
fn cuda_builder(
    config: &SessionConfig,
    options: CudaOptions,
    stream: Option<&Stream>,
) -> Result<SessionBuilder, String> {
    let device = i32::try_from(config.device).map_err(|error| error.to_string())?;
    let mut cuda = ep::CUDA::default()
        .with_device_id(device)
        // The arena grows by what is asked for, not to the next power of two: TensorRT may share this GPU.
        .with_arena_extend_strategy(ArenaExtendStrategy::SameAsRequested)
        // Every algorithm is tried, with all the workspace it wants, in the run at start. Later calls have one of the
        // shapes seen there and find the choice made.
        .with_conv_algorithm_search(ConvAlgorithmSearch::Exhaustive)
        .with_conv_max_workspace(true)
        .with_tf32(options.tf32);
    if let Some(stream) = stream {
        // SAFETY: the stream lives as long as the session: both go into one `Staged`.
        cuda = unsafe { cuda.with_cuda_graph(true).with_compute_stream(stream.as_raw() as *mut ()) };
    }
    common_builder()?
        // The few nodes on the CPU are about shapes: helpers would only wake up for nothing.
        .with_intra_threads(1)
        .map_err(|error| error.to_string())?
        // Without error_on_failure a failed provider is a silent run on the CPU.
        .with_execution_providers([cuda.build().error_on_failure()])
        .map_err(|error| error.to_string())
}

fn common_builder() -> Result<SessionBuilder, String> {
    Session::builder()
        .map_err(|error| error.to_string())?
        .with_optimization_level(GraphOptimizationLevel::All)
        .map_err(|error| error.to_string())?
        // One node after the other: handing a node to another thread takes longer than most nodes do.
        .with_parallel_execution(false)
        .map_err(|error| error.to_string())?
        .with_inter_threads(1)
        .map_err(|error| error.to_string())?
        .with_no_environment_execution_providers()
        .map_err(|error| error.to_string())
}

/// Says clearly what is missing; ONNX Runtime's own answer would be "failed to load" at best.
fn has_cuda(runtime: &OnnxRuntime) -> Result<()> {
    let operation = "start ONNX Runtime's CUDA provider";
    if !runtime.has_provider("CUDAExecutionProvider") {
        return Err(Error::new(ErrorKind::Unsupported, operation)
            .expected("an ONNX Runtime with CUDA")
            .got(format!("{} ({}), which was built without", runtime.path().display(), runtime.version()))
            .advice("install onnxruntime-gpu and name its libonnxruntime.so in ORT_DYLIB_PATH"));
    }
    let provider = runtime.path().with_file_name(PROVIDER);
    if !provider.exists() {
        return Err(Error::new(ErrorKind::OnnxRuntimeMissing, operation)
            .expected(format!("{} beside the library", provider.display()))
            .got("no such file")
            .advice("copy it there from the same onnxruntime-gpu package, with libonnxruntime_providers_shared.so"));
    }
    Trust::enforced().map_or(Ok(()), |trust| check_providers(trust, runtime.path()))
}

/// ONNX Runtime opens both from its own folder, as they are: what they share first.
fn check_providers(trust: &Trust, library: &Path) -> Result<()> {
    [SHARED, PROVIDER].iter().try_for_each(|name| trust.check_library(&library.with_file_name(name)))
}

/// Tells from the words of ONNX Runtime what happened: it has no codes for what CUDA said.
fn translate(operation: &str, message: &str) -> Error {
    let code = cuda_code(message);
    let (kind, advice) = match code {
        // 101 says at start that there never was a device, and later that it is gone.
        Some(101) if operation == START => (ErrorKind::NoGpu, "check nvidia-smi and the driver's version"),
        Some(35 | 100) => (ErrorKind::NoGpu, "check nvidia-smi and the driver's version"),
        Some(code) if is_sticky(code) => {
            (ErrorKind::DeviceLost { code }, "CUDA is finished in this process: restart it")
        }
        Some(2) => (ErrorKind::OutOfMemory, "free GPU memory: fewer sessions, shapes or slots, or a smaller model"),
        Some(code) => (ErrorKind::Cuda { code }, ""),
        None if message.contains("Failed to allocate memory for requested buffer") => {
            (ErrorKind::OutOfMemory, "free memory: fewer sessions, shapes or slots, or a smaller model")
        }
        None if message.contains("libcuda.so") => (ErrorKind::NoGpu, "install the NVIDIA driver"),
        None if message.contains("cannot open shared object file") => (
            ErrorKind::OnnxRuntimeMissing,
            "install CUDA's libraries of the version that this ONNX Runtime was built for",
        ),
        None => (ErrorKind::OnnxRuntime, ""),
    };
    // What comes before is a line of ONNX Runtime's source.
    let message = message.split_once("[ONNXRuntimeError] : ").map_or(message, |(_, said)| said);
    let mut lines = message.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or("an error without a message").to_owned();
    Error::new(kind, operation).got(first).advice(advice).log(lines.map(str::to_owned).collect())
}

/// The number in `CUDA failure 700: an illegal memory access was encountered` or `CUDA error cudaErrorX:700`.
fn cuda_code(message: &str) -> Option<i32> {
    let failure = message.split("CUDA failure ").nth(1);
    let error = message.split("CUDA error cudaError").nth(1).and_then(|name| name.split(':').nth(1));
    let after = failure.or(error)?;
    after.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

/// How much device memory goes away while a session starts. An estimate: other processes take memory, too.
struct Meter {
    device: std::sync::Arc<Device>,
    free: u64,
}

impl Meter {
    fn start(device: usize) -> Option<Self> {
        let device = Device::open(device).ok()?;
        let free = device.memory().ok()?.free;
        Some(Self { device, free })
    }

    fn taken(self) -> u64 {
        self.device.memory().map_or(0, |memory| self.free.saturating_sub(memory.free))
    }
}

#[cfg(test)]
mod tests;

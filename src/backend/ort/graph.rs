//! ONNX Runtime CUDA at its fastest: tensors bound on the device, the network in a CUDA graph of its own, one stream for
//! copies and network, one synchronise a call.

use std::ffi::CString;
use std::ptr::{self, NonNull};

use onnx_runtime::AsPointer;
use onnx_runtime::session::Session as OrtSession;
use onnx_runtime::sys::{OrtApi, OrtRunOptions};

use super::raw::{Binding, Value, check};
use super::{
    CudaOptions, Meter, OnnxRuntime, OrtBackend, RUN, START, batch_of_one, commit, cuda_builder, has_cuda,
    onnx_runtime, translate,
};
use crate::backend::staged::{Bindings, Network, Parts, Staged};
use crate::backend::{Backend, BackendKind};
use crate::config::SessionConfig;
use crate::device::{Device, Stream};
use crate::error::Result;
use crate::onnx::Model;
use crate::session::Session;

/// What belongs to ONNX Runtime, in drop order.
struct Bound {
    binding: Binding,
    options: RunOptions,
    _values: Vec<Value>,
    session: OrtSession,
    api: &'static OrtApi,
}

// SAFETY: nothing in it is tied to a thread; a session, which owns it, is used by one at a time.
unsafe impl Send for Bound {}

impl Network for Bound {
    fn enqueue(&mut self, _: &Stream) -> Result<()> {
        let session = self.session.ptr().cast_mut();
        // SAFETY: three live objects; the stream is the one that the session was made for.
        unsafe { check((self.api.RunWithBinding)(session, self.options.pointer.as_ptr(), self.binding.as_ptr())) }
            .map_err(|message| translate(RUN, &message))
    }
}

/// Options of a run: ONNX Runtime leaves synchronising to the caller.
struct RunOptions {
    pointer: NonNull<OrtRunOptions>,
    api: &'static OrtApi,
}

impl RunOptions {
    fn without_synchronize(api: &'static OrtApi) -> Result<Self, String> {
        let mut pointer = ptr::null_mut();
        // SAFETY: the result is valid for writing.
        unsafe { check((api.CreateRunOptions)(&mut pointer))? };
        let options = Self { pointer: NonNull::new(pointer).ok_or("no run options were made")?, api };
        let (key, value) = (c"disable_synchronize_execution_providers", c"1");
        // SAFETY: the options are alive; both strings are copied.
        unsafe { check((api.AddRunConfigEntry)(pointer, key.as_ptr(), value.as_ptr()))? };
        Ok(options)
    }
}

impl Drop for RunOptions {
    fn drop(&mut self) {
        // SAFETY: made once, released once.
        unsafe { (self.api.ReleaseRunOptions)(self.pointer.as_ptr()) };
    }
}

impl OrtBackend {
    /// A session on ONNX Runtime's CUDA provider with its graph and a device binding, for comparison: the fastest that
    /// ONNX Runtime offers at batch 1. Of several announced shapes it takes the first.
    ///
    /// # Errors
    /// As [`OrtBackend::cuda`]; and ONNX Runtime's own for a network that it cannot capture, as one with nodes on the CPU.
    pub fn cuda_graph(model: &Model, config: &SessionConfig, options: CudaOptions) -> Result<Session> {
        let runtime = OnnxRuntime::load(None)?;
        has_cuda(runtime)?;
        // Only a run tells the outputs' shapes, and a run on other tensors must not be the one that is captured.
        let mut signature = Self::cpu(model, config)?.signature().clone();
        signature.shapes.truncate(1);
        let device = Device::open(config.device)?;
        let meter = Meter::start(config.device);
        let stream = Stream::new(&device, config.stream_priority)?;
        let bindings = Bindings::new(&device, &signature)?;
        let failed = |message: String| translate(START, &message);
        let mut builder = cuda_builder(config, options, Some(&stream)).map_err(failed)?;
        let session = commit(&mut builder, model)?;
        let mut shapes = config.resolve(model.tensors(), batch_of_one)?.remove(0).dimensions;
        shapes.extend(signature.shapes[0].outputs.iter().map(|output| output.shape.clone()));
        let network = bind(runtime.api, session, &signature, &shapes, &bindings, config.device).map_err(failed)?;
        let parts = Parts {
            kind: BackendKind::OrtCuda,
            description: format!("ONNX Runtime {} on CUDA device {}, its graph", runtime.version(), config.device),
            engine_id: model.sha256(),
            signature,
            network,
            stream,
            bindings,
        };
        let mut backend = Staged::new(&device, parts, config.depth, false)?;
        backend.device_memory = meter.map_or(0, |meter| meter.taken());
        Session::start(Box::new(backend), config)
    }
}

fn bind(
    api: &'static OrtApi,
    session: OrtSession,
    signature: &crate::backend::Signature,
    shapes: &[Vec<i64>],
    bindings: &Bindings,
    device: usize,
) -> Result<Bound, String> {
    // SAFETY: the binding is dropped before the session.
    let mut binding = unsafe { Binding::new(api, session.ptr().cast_mut())? };
    let mut values = Vec::new();
    let tensors = signature.inputs.iter().chain(&signature.outputs);
    let buffers = bindings.inputs.iter().chain(&bindings.outputs);
    for (number, ((tensor, buffer), shape)) in tensors.zip(buffers).zip(shapes).enumerate() {
        let (bytes, kind) = (buffer.bytes(), tensor.data_type);
        // SAFETY: the buffer lives beside the values, in `Staged`.
        let value = unsafe { Value::over_cuda(api, buffer.address(), bytes, kind, shape, device)? };
        let name = CString::new(tensor.name.as_str()).map_err(|error| error.to_string())?;
        if number < signature.inputs.len() {
            binding.input(&name, &value)?;
        } else {
            binding.output(&name, &value)?;
        }
        values.push(value);
    }
    Ok(Bound { binding, options: RunOptions::without_synchronize(api)?, _values: values, session, api })
}

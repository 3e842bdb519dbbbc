//! Triton's `config.pbtxt`: the message `inference.ModelConfig` of its `model_config.proto`, in protobuf's text format.

use std::fmt::{self, Write as _};

use tickrt::onnx::Model;
use tickrt::{DataType, IoMode, Sidecar, TensorInfo};

use super::Settings;

/// Of one model.
#[derive(Debug)]
pub struct ModelConfig {
    /// The model's name, and its folder's.
    pub name: String,
    /// What a reader should know.
    comment: String,
    backend: &'static str,
    file: &'static str,
    /// 0 where the shapes have the batch in them.
    max_batch_size: i64,
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
    instances: Instances,
    queue_delay_us: u64,
    warmup: u32,
    parameters: Vec<(String, String)>,
}

#[derive(Debug)]
enum Instances {
    Gpu { count: u32, gpus: Vec<u32> },
    Cpu { count: u32 },
}

/// Without the batch where Triton counts that apart.
#[derive(Debug)]
struct Tensor {
    name: String,
    data_type: &'static str,
    dims: Vec<i64>,
    /// A single number a sample: Triton has it as one of one dimension, for `dims` may not be empty.
    is_number: bool,
    /// Without −1.
    warmup_dims: Vec<i64>,
}

/// A TensorRT plan on GPUs, each call one launch of a CUDA graph.
pub fn of_engine(name: &str, sidecar: &Sidecar, settings: &Settings) -> ModelConfig {
    let inputs = of_mode(&sidecar.tensors, IoMode::Input);
    let outputs = of_mode(&sidecar.tensors, IoMode::Output);
    let instances = Instances::Gpu { count: settings.instances, gpus: settings.gpus.clone() };
    let mut config = config(name, &inputs, &outputs, sidecar, settings, instances);
    config.comment = format!("A plan of {}: the server's TensorRT must be the same.", sidecar.library);
    if let Some(gpu) = &sidecar.gpu {
        write!(config.comment, " Built on {}.", gpu.name).expect("a string takes all");
    }
    config
}

/// The ONNX model on the CPU: of the same batches as the plan, for a client that changes nothing but the name.
pub fn of_onnx(name: &str, model: &Model, sidecar: &Sidecar, settings: &Settings) -> ModelConfig {
    let (inputs, outputs): (Vec<_>, Vec<_>) = (model.inputs().iter().collect(), model.outputs().iter().collect());
    let instances = Instances::Cpu { count: settings.cpu_instances };
    let mut config = config(name, &inputs, &outputs, sidecar, settings, instances);
    "The same network by ONNX Runtime, for when no GPU answers.".clone_into(&mut config.comment);
    // Threads of a pool wait for each other; one computes a small network faster than several.
    for threads in ["intra_op_thread_count", "inter_op_thread_count"] {
        config.parameters.push((threads.to_owned(), "1".to_owned()));
    }
    config
}

fn config(
    name: &str,
    inputs: &[&TensorInfo],
    outputs: &[&TensorInfo],
    sidecar: &Sidecar,
    settings: &Settings,
    instances: Instances,
) -> ModelConfig {
    let max_batch_size = max_batch_size(inputs, outputs, sidecar);
    let (backend, file) = match instances {
        Instances::Gpu { .. } => ("tensorrt", "model.plan"),
        Instances::Cpu { .. } => ("onnxruntime", "model.onnx"),
    };
    let tensors =
        |of: &[&TensorInfo]| of.iter().map(|tensor| Tensor::new(tensor, sidecar, max_batch_size > 0)).collect();
    // Triton hands the network what the client sent: what tickrt does to an input before it, the client must do.
    let normalizations = sidecar.normalizations.iter().map(|normalization| {
        let json = serde_json::to_string(normalization).expect("strings and numbers");
        (format!("tickrt.normalization.{}", normalization.input), json)
    });
    ModelConfig {
        name: name.to_owned(),
        comment: String::new(),
        backend,
        file,
        max_batch_size,
        inputs: tensors(inputs),
        outputs: tensors(outputs),
        instances,
        queue_delay_us: settings.max_queue_delay_us,
        warmup: settings.warmup,
        parameters: normalizations.collect(),
    }
}

fn of_mode(tensors: &[TensorInfo], mode: IoMode) -> Vec<&TensorInfo> {
    tensors.iter().filter(|tensor| tensor.mode == mode).collect()
}

/// The largest batch that every input takes, where the first dimension of every tensor is open and one sample alone is taken,
/// too; else 0.
fn max_batch_size(inputs: &[&TensorInfo], outputs: &[&TensorInfo], sidecar: &Sidecar) -> i64 {
    let open = inputs.iter().chain(outputs).all(|tensor| tensor.shape.first() == Some(&-1));
    let Some(profile) = sidecar.profiles.first().filter(|_| open) else { return 0 };
    let largest = inputs.iter().map(|input| {
        let range = profile.shapes.get(&input.name)?;
        range.max.first().copied().filter(|_| range.min.first() == Some(&1))
    });
    largest.collect::<Option<Vec<_>>>().and_then(|sizes| sizes.into_iter().min()).unwrap_or(0)
}

impl Tensor {
    fn new(tensor: &TensorInfo, sidecar: &Sidecar, batched: bool) -> Self {
        let usual =
            sidecar.profiles.first().and_then(|profile| profile.shapes.get(&tensor.name)).map(|range| &range.opt);
        let closed = tensor.shape.iter().enumerate();
        let closed = closed.map(|(place, &size)| if size >= 0 { size } else { usual.map_or(1, |shape| shape[place]) });
        let skipped = usize::from(batched);
        let is_number = tensor.shape.len() == skipped;
        let or_one = |dims: Vec<i64>| if is_number { vec![1] } else { dims };
        Self {
            name: tensor.name.clone(),
            data_type: data_type(tensor.data_type),
            dims: or_one(tensor.shape[skipped..].to_vec()),
            is_number,
            warmup_dims: or_one(closed.skip(skipped).collect()),
        }
    }
}

fn data_type(data_type: DataType) -> &'static str {
    match data_type {
        DataType::F32 => "TYPE_FP32",
        DataType::F16 => "TYPE_FP16",
        DataType::Bf16 => "TYPE_BF16",
        DataType::F64 => "TYPE_FP64",
        DataType::I8 => "TYPE_INT8",
        DataType::U8 => "TYPE_UINT8",
        DataType::I16 => "TYPE_INT16",
        DataType::I32 => "TYPE_INT32",
        DataType::I64 => "TYPE_INT64",
        DataType::Bool => "TYPE_BOOL",
    }
}

impl fmt::Display for ModelConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# Written by tickrt deploy. {}", self.comment)?;
        if self.parameters.iter().any(|(key, _)| key.starts_with("tickrt.normalization.")) {
            writeln!(
                f,
                "# The network takes normalised input: what the parameters tickrt.normalization.* say, the client does."
            )?;
        }
        writeln!(f, "name: {}\nbackend: {}", quoted(&self.name), quoted(self.backend))?;
        writeln!(f, "default_model_filename: {}\nmax_batch_size: {}", quoted(self.file), self.max_batch_size)?;
        for (field, tensors) in [("input", &self.inputs), ("output", &self.outputs)] {
            for Tensor { name, data_type, dims, is_number, .. } in tensors {
                let reshape = if *is_number { " reshape { shape: [] }" } else { "" };
                writeln!(f, "{field} {{ name: {} data_type: {data_type} dims: {dims:?}{reshape} }}", quoted(name))?;
            }
        }
        writeln!(f, "version_policy {{ latest {{ num_versions: 1 }} }}")?;
        self.instances(f)?;
        if self.max_batch_size > 0 {
            writeln!(f, "dynamic_batching {{ max_queue_delay_microseconds: {} }}", self.queue_delay_us)?;
        }
        self.warmup(f)?;
        for (key, value) in &self.parameters {
            writeln!(f, "parameters {{ key: {} value {{ string_value: {} }} }}", quoted(key), quoted(value))?;
        }
        Ok(())
    }
}

impl ModelConfig {
    fn instances(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.instances {
            Instances::Gpu { count, gpus } => {
                let gpus = if gpus.is_empty() { String::new() } else { format!(" gpus: {gpus:?}") };
                writeln!(f, "instance_group {{ kind: KIND_GPU count: {count}{gpus} }}")?;
                writeln!(f, "optimization {{ cuda {{ graphs: true busy_wait_events: true }} }}")
            }
            Instances::Cpu { count } => writeln!(f, "instance_group {{ kind: KIND_CPU count: {count} }}"),
        }
    }

    fn warmup(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.warmup == 0 {
            return Ok(());
        }
        writeln!(f, "model_warmup {{\n  name: \"zeros\"\n  batch_size: 1\n  count: {}", self.warmup)?;
        for Tensor { name, data_type, warmup_dims, .. } in &self.inputs {
            let value = format!("data_type: {data_type} dims: {warmup_dims:?} zero_data: true");
            writeln!(f, "  inputs {{ key: {} value {{ {value} }} }}", quoted(name))?;
        }
        writeln!(f, "}}")
    }
}

/// A string of protobuf's text format.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            control if control.is_ascii_control() => {
                write!(quoted, "\\{:03o}", u32::from(control)).expect("a string takes all")
            }
            other => quoted.push(other),
        }
    }
    quoted + "\""
}

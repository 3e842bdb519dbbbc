use half::f16;

use super::*;
use crate::config::SessionConfig;
use crate::normalize::{NonFinite, Normalization, Stats};
use crate::onnx::proto::{
    AttributeProto, Dimension, DimensionValue, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorShapeProto,
    TensorType, TypeProto, TypeValue, ValueInfoProto,
};
use crate::tensor::DataType;
use crate::test_support::root;

/// Where models/ lies: tests are built here and run elsewhere, too.
/// Whether ONNX Runtime is there. Where it was set up, it must be.
fn runtime_is_there() -> bool {
    match OnnxRuntime::load(None) {
        Ok(_) => true,
        Err(error)
            if ["TICKRT_SDK", "ORT_DYLIB_PATH", "TRT_CI"].iter().any(|name| std::env::var_os(name).is_some()) =>
        {
            panic!("{error}")
        }
        Err(error) => {
            eprintln!("skipped: {error}");
            false
        }
    }
}

fn model(name: &str) -> Model {
    Model::read(root().join("models").join(name)).unwrap()
}

fn normalization(name: &str) -> Normalization {
    Normalization::read(root().join("models").join(name)).unwrap()
}

/// The elements of a .npy file, whose header is not looked at.
fn npy<T: bytemuck::Pod>(name: &str) -> Vec<T> {
    let bytes = std::fs::read(root().join("models/data").join(name)).unwrap();
    let header = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    bytes[header..].chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect()
}

fn write<T: bytemuck::Pod>(backend: &OrtBackend, slot: usize, input: usize, sequence: u64, data: &[T]) {
    let memory = &backend.slots()[slot];
    let bytes: &[u8] = bytemuck::cast_slice(data);
    assert!(bytes.len() <= memory.inputs[input].bytes);
    // SAFETY: within the region, which nobody else uses in a test.
    unsafe {
        ptr::copy_nonoverlapping(bytes.as_ptr(), memory.inputs[input].start.as_ptr(), bytes.len());
        (*memory.header.as_ptr()).sequence = sequence;
    }
}

fn read<T: bytemuck::Pod>(backend: &OrtBackend, slot: usize, shape: usize, output: usize) -> Vec<T> {
    let count = backend.signature().shapes[shape].outputs[output].count;
    let region = backend.slots()[slot].outputs[output];
    assert!(count * size_of::<T>() <= region.bytes);
    // SAFETY: within the region, whose zeros or results are valid.
    unsafe { std::slice::from_raw_parts(region.start.as_ptr().cast(), count).to_vec() }
}

fn status(backend: &OrtBackend, slot: usize, sequence: u64) -> Option<Status> {
    let Done::Flag(done) = backend.slots()[slot].done else { panic!("a CPU's answer has a flag") };
    // SAFETY: the flag lives as long as the backend.
    unsafe { done.as_ref() }.finished(sequence)
}

/// A model of one node from `input` to `output`.
fn one_node(op: &str, attributes: Vec<AttributeProto>, types: [i32; 2], shape: &[i64]) -> Model {
    let value = |name: &str, elem_type: i32| ValueInfoProto {
        name: Some(name.into()),
        r#type: Some(TypeProto {
            value: Some(TypeValue::Tensor(TensorType {
                elem_type: Some(elem_type),
                shape: Some(TensorShapeProto {
                    dim: shape
                        .iter()
                        .map(|&size| Dimension {
                            value: Some(match size {
                                -1 => DimensionValue::Param("n".into()),
                                _ => DimensionValue::Value(size),
                            }),
                            denotation: None,
                        })
                        .collect(),
                }),
            })),
            denotation: None,
        }),
        ..ValueInfoProto::default()
    };
    let node = NodeProto {
        input: vec!["input".into()],
        output: vec!["output".into()],
        op_type: Some(op.into()),
        attribute: attributes,
        ..NodeProto::default()
    };
    let proto = ModelProto {
        ir_version: Some(8),
        opset_import: vec![OperatorSetIdProto { domain: None, version: Some(17) }],
        graph: Some(GraphProto {
            name: Some("g".into()),
            node: vec![node],
            input: vec![value("input", types[0])],
            output: vec![value("output", types[1])],
            ..GraphProto::default()
        }),
        ..ModelProto::default()
    };
    Model::from_bytes(prost::Message::encode_to_vec(&proto)).unwrap()
}

fn cast_to(number: i64) -> Vec<AttributeProto> {
    vec![AttributeProto { name: Some("to".into()), r#type: Some(2), i: Some(number), ..AttributeProto::default() }]
}

#[test]
fn cpu_classifies_windows_as_trained() {
    if !runtime_is_there() {
        return;
    }
    let (windows, labels) = (npy::<f32>("nasdaq_windows.npy"), npy::<i32>("nasdaq_labels.npy"));
    for name in ["toy_cnn", "mlp"] {
        let config = SessionConfig {
            normalizations: Some(vec![normalization(&format!("{name}.normalization.json"))]),
            ..SessionConfig::default()
        };
        let model = model(&format!("{name}.onnx"));
        let mut backend = OrtBackend::cpu(&model, &config).unwrap();
        assert_eq!(backend.engine_id(), model.sha256());
        assert!(backend.description().starts_with("ONNX Runtime 1."), "{}", backend.description());
        assert!(backend.description().ends_with("on CPU, 1 thread"), "{}", backend.description());
        let mut right = 0;
        for (number, (window, &label)) in windows.chunks_exact(256).zip(&labels).enumerate() {
            let (slot, sequence) = (number % config.depth, number as u64 + 1);
            write(&backend, slot, 0, sequence, window);
            assert_eq!(status(&backend, slot, sequence), None);
            backend.launch(slot, 0).unwrap();
            assert_eq!(status(&backend, slot, sequence), Some(Status(0)));
            let scores = read::<f32>(&backend, slot, 0, 0);
            assert!((scores.iter().sum::<f32>() - 1.0).abs() < 1e-4, "{scores:?}");
            let best = (0..3).max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap();
            right += usize::from(best == usize::try_from(label).unwrap());
        }
        assert!(right * 10 > labels.len() * 8, "{name}: {right} of {}", labels.len());
    }
}

#[test]
fn cpu_slots_keep_their_own_answers() {
    if !runtime_is_there() {
        return;
    }
    let mut backend = OrtBackend::cpu(&one_node("Neg", vec![], [1, 1], &[1, 3]), &SessionConfig::default()).unwrap();
    for slot in 0..4 {
        write(&backend, slot, 0, 9 + slot as u64, &[slot as f32, 1.0, 2.0]);
    }
    for slot in [2, 0, 3, 1] {
        backend.launch(slot, 0).unwrap();
    }
    for slot in 0..4 {
        assert_eq!(read::<f32>(&backend, slot, 0, 0), [-(slot as f32), -1.0, -2.0]);
        assert_eq!(status(&backend, slot, 9 + slot as u64), Some(Status(0)));
    }
}

#[test]
fn cpu_refused_nan_is_published_as_such() {
    if !runtime_is_there() {
        return;
    }
    let refuse = Normalization::new("input", DataType::F64)
        .stats(Stats::PerTensor { mean: [1.0], std: [2.0] })
        .non_finite(NonFinite::Refuse);
    let config = SessionConfig { normalizations: Some(vec![refuse]), ..SessionConfig::default() };
    let mut backend = OrtBackend::cpu(&one_node("Neg", vec![], [1, 1], &[1, 2]), &config).unwrap();
    write(&backend, 0, 0, 1, &[f64::NAN, 3.0]);
    backend.launch(0, 0).unwrap();
    assert_eq!(status(&backend, 0, 1), Some(Status(Status::NON_FINITE_INPUT)));
    write(&backend, 0, 0, 2, &[5.0_f64, 3.0]);
    backend.launch(0, 0).unwrap();
    assert_eq!(status(&backend, 0, 2), Some(Status(0)));
    assert_eq!(read::<f32>(&backend, 0, 0, 0), [-2.0, -1.0]);
}

#[test]
fn cpu_half_types_are_taken_and_delivered_as_f32() {
    if !runtime_is_there() {
        return;
    }
    // f32 handed over, f16 into the network, bf16 out of it, f32 delivered.
    let network = one_node("Cast", cast_to(16), [10, 16], &[2, 2]);
    let from_f32 = Normalization::new("input", DataType::F32);
    let config = SessionConfig { normalizations: Some(vec![from_f32]), ..SessionConfig::default() };
    let mut backend = OrtBackend::cpu(&network, &config).unwrap();
    assert_eq!(backend.signature().shapes[0].outputs[0].data_type, DataType::F32);
    write(&backend, 1, 0, 1, &[1.0_f32, -2.5, 0.0, 256.0]);
    backend.launch(1, 0).unwrap();
    assert_eq!(read::<f32>(&backend, 1, 0, 0), [1.0, -2.5, 0.0, 256.0]);
    // f16 handed over as it is and delivered as f32.
    let network = one_node("Neg", vec![], [10, 10], &[1, 3]);
    let mut backend = OrtBackend::cpu(&network, &SessionConfig::default()).unwrap();
    write(&backend, 0, 0, 1, &[1.0, 0.5, -3.0].map(f16::from_f32));
    backend.launch(0, 0).unwrap();
    assert_eq!(read::<f32>(&backend, 0, 0, 0), [-1.0, -0.5, 3.0]);
}

#[test]
fn cpu_integers_pass_through() {
    if !runtime_is_there() {
        return;
    }
    let mut backend = OrtBackend::cpu(&one_node("Abs", vec![], [7, 7], &[3]), &SessionConfig::default()).unwrap();
    write(&backend, 0, 0, 1, &[i64::MIN + 1, -1, 7]);
    backend.launch(0, 0).unwrap();
    assert_eq!(read::<i64>(&backend, 0, 0, 0), [i64::MAX, 1, 7]);
}

#[test]
fn cpu_dynamic_shapes_are_those_announced() {
    if !runtime_is_there() {
        return;
    }
    let network = one_node("Neg", vec![], [1, 1], &[-1, 2]);
    let announce = |shapes: &[&[i64]]| SessionConfig {
        shapes: shapes.iter().map(|shape| [("input".to_owned(), shape.to_vec())].into()).collect(),
        ..SessionConfig::default()
    };
    let mut backend = OrtBackend::cpu(&network, &announce(&[&[1, 2], &[3, 2]])).unwrap();
    write(&backend, 0, 0, 1, &[1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0]);
    backend.launch(0, 1).unwrap();
    assert_eq!(read::<f32>(&backend, 0, 1, 0), [-1.0, -2.0, -3.0, -4.0, -5.0, -6.0]);
    write(&backend, 0, 0, 2, &[7.0_f32, 8.0]);
    backend.launch(0, 0).unwrap();
    assert_eq!(read::<f32>(&backend, 0, 0, 0), [-7.0, -8.0]);
    // A batch is 1 unless announced; nothing else is guessed.
    let backend = OrtBackend::cpu(&network, &SessionConfig::default()).unwrap();
    assert_eq!(backend.signature().shapes[0].outputs[0].shape, [1, 2]);
    let error = OrtBackend::cpu(&one_node("Neg", vec![], [1, 1], &[1, -1]), &SessionConfig::default()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Shape);
    let error = OrtBackend::cpu(&network, &announce(&[&[1, 3]])).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Shape);
}

#[test]
fn cpu_unknown_operator_is_an_error_with_onnx_runtimes_words() {
    if !runtime_is_there() {
        return;
    }
    let network = one_node("NoSuchOperator", vec![], [1, 1], &[1]);
    let error = OrtBackend::cpu(&network, &SessionConfig::default()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::OnnxRuntime);
    assert!(error.to_string().contains("NoSuchOperator"), "{error}");
}

#[test]
fn cpu_after_quarantine_answers_no_more_and_keeps_its_memory() {
    if !runtime_is_there() {
        return;
    }
    let mut backend = OrtBackend::cpu(&one_node("Neg", vec![], [1, 1], &[2]), &SessionConfig::default()).unwrap();
    write(&backend, 0, 0, 1, &[1.0_f32, 2.0]);
    backend.launch(0, 0).unwrap();
    backend.quarantine();
    assert_eq!(backend.launch(0, 0).unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(read::<f32>(&backend, 0, 0, 0), [-1.0, -2.0]);
}

#[test]
fn cuda_without_provider_says_what_to_install() {
    if !runtime_is_there() || OnnxRuntime::load(None).unwrap().has_provider("CUDAExecutionProvider") {
        return;
    }
    let network = one_node("Neg", vec![], [1, 1], &[2]);
    let error = OrtBackend::cuda(&network, &SessionConfig::default(), CudaOptions::default()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("install onnxruntime-gpu"), "{error}");
}

/// Where the provider and a GPU are there, its answers are the CPU's.
#[test]
fn cuda_answers_as_cpu_does() {
    if !runtime_is_there() || !OnnxRuntime::load(None).unwrap().has_provider("CUDAExecutionProvider") {
        return;
    }
    let windows = npy::<f32>("nasdaq_windows.npy");
    let config = SessionConfig {
        normalizations: Some(vec![normalization("toy_cnn.normalization.json")]),
        ..SessionConfig::default()
    };
    let model = model("toy_cnn.onnx");
    let mut gpu = match OrtBackend::cuda(&model, &config, CudaOptions::default()) {
        Ok(gpu) => gpu,
        Err(error) if std::env::var_os("TRT_CI").is_none() && error.kind() != ErrorKind::InvalidArgument => {
            eprintln!("skipped: {error}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let mut cpu = OrtBackend::cpu(&model, &config).unwrap();
    for (number, window) in windows.chunks_exact(256).enumerate() {
        let (slot, sequence) = (number % config.depth, number as u64 + 1);
        for backend in [&mut gpu, &mut cpu] {
            write(backend, slot, 0, sequence, window);
            backend.launch(slot, 0).unwrap();
            assert_eq!(status(backend, slot, sequence), Some(Status(0)));
        }
        let pairs = read::<f32>(&gpu, slot, 0, 0).into_iter().zip(read::<f32>(&cpu, slot, 0, 0));
        assert!(pairs.clone().all(|(gpu, cpu)| (gpu - cpu).abs() < 1e-4), "{number}: {:?}", pairs.collect::<Vec<_>>());
    }
    assert!(gpu.device_memory() > 0);
}

#[test]
fn translate_tells_lost_devices_from_lost_calls() {
    let said = |what: &str| format!("Non-zero status code returned while running Conv. Status Message: {what}");
    for (message, kind) in [
        ("CUDA failure 700: an illegal memory access was encountered ; GPU=0", ErrorKind::DeviceLost { code: 700 }),
        ("CUDA failure 719: unspecified launch failure", ErrorKind::DeviceLost { code: 719 }),
        ("CUDA failure 46: all devices are busy", ErrorKind::DeviceLost { code: 46 }),
        ("CUDA failure 999: unknown error", ErrorKind::DeviceLost { code: 999 }),
        ("CUDA failure 2: out of memory", ErrorKind::OutOfMemory),
        ("CUDA failure 35: CUDA driver version is insufficient", ErrorKind::NoGpu),
        ("CUDA failure 1: invalid argument", ErrorKind::Cuda { code: 1 }),
        ("Failed to allocate memory for requested buffer of size 9", ErrorKind::OutOfMemory),
        ("libcudnn.so.9: cannot open shared object file", ErrorKind::OnnxRuntimeMissing),
        ("bad shape", ErrorKind::OnnxRuntime),
    ] {
        assert_eq!(translate(RUN, &said(message)).kind(), kind, "{message}");
    }
}

#[test]
fn cuda_providers_are_opened_only_where_both_were_named_and_are_what_was_pinned() {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("libonnxruntime.so");
    let [shared, cuda] = [SHARED, PROVIDER].map(|name| folder.path().join(name));
    [&shared, &cuda].iter().for_each(|path| std::fs::write(path, b"provider").unwrap());
    let trust = || Trust::signed([crate::trust::SecretKey::generate().unwrap().public()]).library(&library, None);
    let refused = |trust: &Trust, part: &str| {
        let error = check_providers(trust, &library).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Untrusted);
        assert!(error.to_string().contains(part), "`{part}` is not in: {error}");
    };
    refused(&trust(), SHARED);
    refused(&trust().library(&shared, None), PROVIDER);
    let pinned = trust().library(&shared, None).library(&cuda, Some(crate::plan::digest(b"provider")));
    check_providers(&pinned, &library).unwrap();
    std::fs::write(&cuda, b"Provider").unwrap();
    refused(&pinned, "install the pinned library");
}

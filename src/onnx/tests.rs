use std::fs;

use proptest::prelude::*;

use super::proto::{GraphProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto};
use super::*;
use crate::test_support::{assert_refused, root};

fn models() -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join("models")).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "onnx")).collect()
}

#[test]
fn model_lists_what_goes_in_and_out() {
    let model = Model::read(root().join("models/toy_cnn.onnx")).unwrap();
    let [input] = model.inputs() else { panic!("{:?}", model.inputs()) };
    assert_eq!((input.name.as_str(), &input.shape[..], input.data_type), ("input", &[1, 8, 32][..], DataType::F32));
    let [output] = model.outputs() else { panic!("{:?}", model.outputs()) };
    assert_eq!(output.shape, [1, 3]);
    assert!(model.opset() >= 13 && model.node_count() > 3);
    assert!(model.external_files().is_empty());
    let model = Model::read(root().join("models/mlp_dynamic.onnx")).unwrap();
    assert_eq!(model.inputs()[0].shape, [-1, 256]);
}

#[test]
fn decoded_and_encoded_again_is_the_same_bytes() {
    let models = models();
    assert!(models.len() > 1);
    for path in models {
        let model = Model::read(&path).unwrap();
        assert!(model.proto().encode_to_vec() == model.bytes(), "{}", path.display());
    }
}

#[test]
fn read_of_bad_files_says_what_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("m.onnx");
    assert_refused(Model::read(&path), ErrorKind::Io, &["m.onnx", "no such file", "check the path"]);
    assert_refused(Model::read(directory.path()), ErrorKind::Io, &["expected a file, got a directory"]);
    let whole = fs::read(root().join("models/toy_cnn.onnx")).unwrap();
    let cases: [(&[u8], &[&str]); 8] = [
        (b"", &["an empty file", "export the model again"]),
        (&whole[..1000], &["a truncated one of 1000 bytes (", "or more are missing)", "copy the file again"]),
        (&whole[..2], &["without the graph"]),
        (b"hello, this is text", &["19 bytes of text", "name the .onnx file"]),
        (b"<!doctype html>", &["a web page"]),
        (b"ftrt\0\0\0\0", &["a TensorRT plan", "name the model, not the engine"]),
        (b"version https://git-lfs.github.com/spec/v1\n", &["git lfs pull"]),
        (b"PK\x03\x04....", &["torch.onnx.export"]),
    ];
    for (bytes, words) in cases {
        fs::write(&path, bytes).unwrap();
        assert_refused(Model::read(&path), ErrorKind::Onnx, &[&["m.onnx", "expected an ONNX model"], words].concat());
    }
}

/// A model of one node and one weight that lies outside.
fn with_external(entries: &[(&str, &str)]) -> Vec<u8> {
    let weight = TensorProto {
        name: Some("w".into()),
        data_type: Some(1),
        dims: vec![4],
        data_location: Some(1),
        external_data: entries
            .iter()
            .map(|&(key, value)| StringStringEntryProto { key: Some(key.into()), value: Some(value.into()) })
            .collect(),
        ..TensorProto::default()
    };
    let toy = Model::read(root().join("models/toy_cnn.onnx")).unwrap();
    let output = toy.proto().graph.as_ref().unwrap().output.clone();
    let model = ModelProto {
        ir_version: Some(8),
        opset_import: vec![OperatorSetIdProto { domain: None, version: Some(17) }],
        graph: Some(GraphProto {
            node: vec![NodeProto::default()],
            initializer: vec![weight],
            output,
            ..GraphProto::default()
        }),
        ..ModelProto::default()
    };
    model.encode_to_vec()
}

#[test]
fn external_weights_must_be_there_and_long_enough() {
    let directory = tempfile::tempdir().unwrap();
    let (path, data) = (directory.path().join("m.onnx"), directory.path().join("w.bin"));
    let write = |entries: &[(&str, &str)]| fs::write(&path, with_external(entries)).unwrap();
    let fine = [("location", "w.bin"), ("offset", "16"), ("length", "16")];
    write(&fine);
    let read = || Model::read(&path);
    let words = ["the weights of `w` in ", "w.bin, 32 bytes or more", "no such file"];
    assert_refused(read(), ErrorKind::Onnx, &words);
    fs::write(&data, [0; 31]).unwrap();
    assert_refused(read(), ErrorKind::Onnx, &["32 bytes or more, got 31 bytes"]);
    fs::write(&data, [0; 32]).unwrap();
    assert_eq!(read().unwrap().external_files(), [data]);
    for (entries, words) in [
        (
            &[("location", "../w.bin")][..],
            "expected a file in the model's folder for the weights of `w`, got `../w.bin`",
        ),
        (&[("location", "/etc/passwd")], "a file in the model's folder"),
        (&[("location", "w.bin"), ("location", "v.bin")], "one entry of each name"),
        (&[("location", "w.bin"), ("offset", "0"), ("offset", "0")], "one entry of each name"),
        (&[], "a file in the model's folder"),
        (&[("location", "w.bin"), ("offset", "x")], "a number as offset"),
        (&[("location", "w.bin"), ("offset", "18446744073709551615"), ("length", "9")], "a sane offset"),
    ] {
        write(entries);
        assert_refused(read(), ErrorKind::Onnx, &[words]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn truncated_model_is_refused(at in any::<prop::sample::Index>()) {
        let whole = fs::read(root().join("models/toy_cnn.onnx")).unwrap();
        let cut = whole[..at.index(whole.len())].to_vec();
        prop_assert!(matches!(Model::from_bytes(cut), Err(error) if error.kind() == ErrorKind::Onnx));
    }

    #[test]
    fn arbitrary_bytes_are_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Model::from_bytes(bytes).is_err());
    }
}

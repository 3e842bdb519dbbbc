//! `tickrt keygen`, `sign`, `verify`.

use std::fs;

use crate::support::{Tool, model};

#[test]
fn model_signed_is_verified_and_altered_is_not() {
    let tool = Tool::new();
    tool.run(&["keygen", "trading"]).must(0, &["trading.key", "trading.pub"]);
    tool.run(&["keygen", "trading"]).must(2, &["trading.pub", "name a file that is not there yet"]);
    fs::remove_file(tool.path("trading.pub")).unwrap();
    tool.run(&["keygen", "trading"]).must(2, &["trading.key", "name a file that is not there yet"]);
    fs::remove_file(tool.path("trading.key")).unwrap();
    tool.run(&["keygen", "trading"]).must(0, &[]);
    let lone = tool.file("lone.pub", b"another's");
    tool.run(&["keygen", "lone"]).must(2, &["lone.pub", "name a file that is not there yet"]);
    assert_eq!(fs::read(tool.path(&lone)).unwrap(), b"another's");
    assert!(!tool.path("lone.key").exists(), "nothing of the pair is made");
    tool.run(&["keygen", "other"]).must(0, &[]);
    let onnx = tool.file("toy_cnn.onnx", &fs::read(model("toy_cnn.onnx")).unwrap());
    let verify = |key: &str| tool.run(&["verify", "--key", key, &onnx]);

    verify("trading.pub").must(1, &["toy_cnn.onnx.sig", "tickrt sign"]);
    tool.run(&["sign", "--key", "trading.pub", &onnx]).must(2, &["secret key"]);
    tool.run(&["sign", "--key", "trading.key", &onnx]).must(0, &["toy_cnn.onnx"]);
    verify("trading.pub").must(0, &["toy_cnn.onnx"]);
    verify("other.pub").must(1, &["expected a signature of"]);
    tool.run(&["verify", "--key", "other.pub", "--key", "trading.pub", &onnx]).must(0, &[]);

    let mut bytes = fs::read(tool.path(&onnx)).unwrap();
    bytes.push(0);
    fs::write(tool.path(&onnx), bytes).unwrap();
    verify("trading.pub").must(1, &["toy_cnn.onnx with sha256"]);
}

#[test]
fn engine_is_signed_together_with_its_sidecar() {
    let tool = Tool::new().without_gpu();
    tool.run(&["keygen", "trading"]).must(0, &[]);
    let Some(engine) = tool.engine("toy_cnn", &[]) else { return };
    tool.run(&["sign", "--key", "trading.key", &engine]).must(0, &["toy_cnn.engine.json"]);
    tool.run(&["verify", "--key", "trading.pub", &engine]).must(0, &["toy_cnn.engine.json"]);
    fs::remove_file(tool.path("toy_cnn.engine.json")).unwrap();
    tool.run(&["verify", "--key", "trading.pub", &engine]).must(1, &["toy_cnn.engine.json"]);
    tool.run(&["sign", "--key", "trading.key", &engine]).must(2, &["expected its sidecar"]);
}

//! Networks of several inputs and outputs: by name, on every backend that takes them.
mod common;
#[path = "common/onnx.rs"]
mod onnx;

use tickrt::backend::ort::OrtBackend;
use tickrt::onnx::Model;
use tickrt::{
    Builder, BuilderConfig, DataType, Engine, ErrorKind, Normalization, Plan, Session, SessionConfig, Sidecar, Stats,
};

/// `sum = a + b` and `twice = b + b`.
fn model() -> Vec<u8> {
    let shape = [1, 4];
    onnx::model(
        vec![onnx::node("add", "Add", &["a", "b"], &["sum"]), onnx::node("double", "Add", &["b", "b"], &["twice"])],
        vec![onnx::value("a", &shape), onnx::value("b", &shape)],
        vec![onnx::value("sum", &shape), onnx::value("twice", &shape)],
    )
}

/// `b` comes as bytes, ten times too large.
fn config() -> SessionConfig {
    let tenth = Normalization::new("b", DataType::U8).stats(Stats::PerTensor { mean: [0.0], std: [10.0] });
    SessionConfig { normalizations: Some(vec![tenth]), ..SessionConfig::default() }
}

fn check(mut session: Session) {
    for round in 0..20_u8 {
        let mut slot = session.input().unwrap();
        let a = [1.0_f32, 2.0, 3.0, f32::from(round)];
        slot.write_named("b", 0, &[10_u8, 20, 30, 40]).unwrap();
        slot.write_named("a", 0, &a).unwrap();
        let ticket = slot.submit().unwrap();
        let (mut sum, mut twice) = ([0.0_f32; 4], [0.0_f32; 4]);
        session
            .wait_into(ticket, |outputs| {
                sum.copy_from_slice(outputs.named("sum")?);
                twice.copy_from_slice(outputs.named("twice")?);
                assert_eq!(outputs.named::<f32>("none").unwrap_err().kind(), ErrorKind::UnknownTensor);
                Ok(())
            })
            .unwrap();
        assert_eq!(sum, [2.0, 4.0, 6.0, 4.0 + f32::from(round)]);
        assert_eq!(twice, [2.0, 4.0, 6.0, 8.0]);
    }
    let mut slot = session.input().unwrap();
    slot.write_named("a", 0, &[1.0_f32; 4]).unwrap();
    assert_eq!(slot.submit().unwrap_err().kind(), ErrorKind::WrongLength { expected: 4, got: 0 }, "b is missing");
    let unknown = Normalization::new("c", DataType::F32);
    let wrong = SessionConfig { normalizations: Some(vec![unknown]), ..SessionConfig::default() };
    let refused = OrtBackend::cpu(&Model::from_bytes(model()).unwrap(), &wrong).err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
}

#[test]
fn onnx_runtime_takes_inputs_and_gives_outputs_by_name() {
    let model = Model::from_bytes(model()).unwrap();
    check(Session::start(Box::new(OrtBackend::cpu(&model, &config()).unwrap()), &config()).unwrap());
}

#[test]
fn bool_is_handed_over_as_the_byte_that_it_is() {
    let shape = [1, 4];
    let mut flags = onnx::value("flags", &shape);
    let mut inverse = onnx::value("inverse", &shape);
    for value in [&mut flags, &mut inverse] {
        value.kind.as_mut().unwrap().tensor.as_mut().unwrap().element = 9;
    }
    let model = onnx::model(vec![onnx::node("not", "Not", &["flags"], &["inverse"])], vec![flags], vec![inverse]);
    let model = Model::from_bytes(model).unwrap();
    let config = SessionConfig::default();
    let mut session = Session::start(Box::new(OrtBackend::cpu(&model, &config).unwrap()), &config).unwrap();
    let mut slot = session.input().unwrap();
    let signed = ErrorKind::WrongType { expected: DataType::Bool, got: DataType::I8 };
    assert_eq!(slot.write(0, &[1_i8; 4]).unwrap_err().kind(), signed);
    slot.write(0, &[1_u8, 0, 1, 0]).unwrap();
    let ticket = slot.submit().unwrap();
    let mut answer = [9_u8; 4];
    session
        .wait_into(ticket, |outputs| {
            answer.copy_from_slice(outputs.slice(0)?);
            assert_eq!(outputs.slice::<i8>(0).unwrap_err().kind(), signed);
            Ok(())
        })
        .unwrap();
    assert_eq!(answer, [0, 1, 0, 1]);
}

#[test]
fn tensorrt_takes_inputs_and_gives_outputs_by_name() {
    let Some((_, library)) = common::tensorrt() else { return };
    let built = Builder::new(&library).build_bytes(&model(), &BuilderConfig::new()).unwrap();
    let plan = Plan::new(built.bytes.clone(), Sidecar::from(&built)).unwrap();
    check(Engine::from_plan(&plan, 0).unwrap().session(&config()).unwrap());
}

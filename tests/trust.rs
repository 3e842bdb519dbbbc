//! Production mode, from its beginning to the end of the process: so all of it is one test.
mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::model;
use tickrt::backend::ort::{OnnxRuntime, OrtBackend};
use tickrt::onnx::Model;
use tickrt::resident::nvrtc::Nvrtc;
use tickrt::resident::{Artefact, ArtefactOptions};
use tickrt::trust::{SecretKey, Signature, Trust};
use tickrt::{
    Builder, BuilderConfig, Calibration, CalibrationMethod, Engine, Error, ErrorKind, Flavour, Library, Plan,
    Predictor, Preference, Session, SessionConfig, Shapes, Sidecar, observe,
};

/// The error must be of signatures, and say all of `parts`.
#[track_caller]
fn untrusted<T: std::fmt::Debug>(result: Result<T, Error>, parts: &[&str]) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Untrusted, "{error}");
    parts.iter().for_each(|part| assert!(error.to_string().contains(part), "`{part}` is not in: {error}"));
}

fn copy(name: &str, folder: &Path) -> PathBuf {
    let to = folder.join(name);
    fs::copy(model(name), &to).unwrap();
    to
}

fn calibration() -> Calibration {
    Calibration::new(CalibrationMethod::MinMax).samples(vec![vec![0.5_f32; 256]; 4])
}

fn int8() -> BuilderConfig {
    BuilderConfig::new().int8(true)
}

#[test]
fn production_loads_what_was_signed_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let key = SecretKey::generate().unwrap();
    // In development: a plan, as far as this machine can build one, and a model, signed.
    let library = Library::open_any(&Preference::Flavour(Flavour::Rtx)).ok();
    let built = library
        .as_ref()
        .map(|library| Builder::new(library).build_file(model("toy_cnn.onnx"), &BuilderConfig::new()).unwrap());
    let (engine, unsigned) = (folder.path().join("x.engine"), folder.path().join("unsigned.engine"));
    if let Some(built) = &built {
        let plan = Plan::new(built.bytes.clone(), Sidecar::from(built)).unwrap();
        plan.write(&engine).unwrap();
        plan.write(&unsigned).unwrap();
        Signature::make(&key, &engine, &[Plan::sidecar_path(&engine)]).unwrap().write(&engine).unwrap();
    }
    // A resident engine, where NVRTC is there to build one.
    let model = Model::read(model("identity.onnx")).unwrap();
    let resident = || Artefact::build(&model, None, &Shapes::new(), &ArtefactOptions::default());
    let (signed_resident, unsigned_resident) =
        (folder.path().join("x.resident"), folder.path().join("unsigned.resident"));
    let made = Nvrtc::open().ok().map(|_| resident().unwrap());
    if let Some(artefact) = &made {
        artefact.write(&signed_resident).unwrap();
        artefact.write(&unsigned_resident).unwrap();
        let also = [Artefact::sidecar_path(&signed_resident)];
        Signature::make(&key, &signed_resident, &also).unwrap().write(&signed_resident).unwrap();
    }
    let (signed_model, other_model) = (copy("toy_cnn.onnx", folder.path()), copy("mlp.onnx", folder.path()));
    Signature::make(&key, &signed_model, &[]).unwrap().write(&signed_model).unwrap();
    // The file alone: the library itself is not loaded yet.
    let sdk = std::env::var_os("TICKRT_SDK").map(|sdk| PathBuf::from(sdk).join("lib/onnxruntime/libonnxruntime.so"));
    let onnxruntime = sdk.and_then(|path| path.canonicalize().ok());

    let mut trust = Trust::signed([key.public()]);
    if let Some(path) = &onnxruntime {
        trust = trust.library(path, None);
    }
    trust.enforce().unwrap();
    assert_eq!(Trust::signed([key.public()]).enforce().unwrap_err().kind(), ErrorKind::InvalidArgument, "once");

    if let (Some(built), Some(library)) = (&built, &library) {
        let plan = Plan::read(&engine).unwrap();
        assert!(Sidecar::beside(&engine).unwrap().is_some());
        // Past the signature: what stops it is that no TensorRT was named.
        let missing = Engine::from_plan(&plan, 0).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::TensorRtMissing);
        assert!(missing.to_string().contains("signatures are enforced"), "{missing}");

        untrusted(Plan::read(&unsigned), &["unsigned.engine.sig", "tickrt sign"]);
        untrusted(Plan::read_unverified(&unsigned), &["unsigned.engine.sig"]);
        untrusted(Engine::load_unverified(&unsigned), &["unsigned.engine.sig"]);
        untrusted(Sidecar::beside(&unsigned), &["unsigned.engine"]);
        // From memory nobody knows where it comes from.
        let fresh = Plan::new(built.bytes.clone(), Sidecar::from(built)).unwrap();
        untrusted(Engine::from_plan(&fresh, 0), &["tickrt sign"]);
        untrusted(Builder::new(library).build_smoke_network(&BuilderConfig::new()), &["build"]);
        // Before the model is run to calibrate it.
        let calibrated = Builder::new(library).calibration(calibration()).build_file(&other_model, &int8());
        untrusted(calibrated.map(drop), &["build"]);
        untrusted(Library::open_any(&Preference::Path(library.path().into())), &["absolute path"]);

        // What was signed with it may not be taken away either.
        let (sidecar, aside) = (Plan::sidecar_path(&engine), folder.path().join("aside"));
        fs::rename(&sidecar, &aside).unwrap();
        untrusted(Plan::read_unverified(&engine), &["x.engine.json, which was signed with it"]);
        untrusted(Sidecar::beside(&engine), &["x.engine.json, which was signed with it"]);
        fs::rename(&aside, &sidecar).unwrap();
        Plan::read(&engine).unwrap();

        let mut bytes = fs::read(&engine).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&engine, bytes).unwrap();
        untrusted(Plan::read(&engine), &["x.engine with sha256"]);
    } else {
        assert!(std::env::var_os("TICKRT_REQUIRE_SDK").is_none(), "no TensorRT-RTX");
    }

    untrusted(resident(), &["build a resident engine of", "build and sign it elsewhere"]);
    untrusted(Nvrtc::open().map(drop), &["open NVRTC"]);
    if let Some(made) = &made {
        let read = Artefact::read(&signed_resident).unwrap();
        read.check((9, 0), 232_448).unwrap();
        // From memory nobody knows where it comes from.
        untrusted(made.check((9, 0), 232_448), &["tickrt sign"]);
        untrusted(Artefact::read(&unsigned_resident), &["unsigned.resident.sig", "tickrt sign"]);
        let sidecar = Artefact::sidecar_path(&signed_resident);
        let (bytes, text) = (fs::read(&signed_resident).unwrap(), fs::read(&sidecar).unwrap());
        fs::remove_file(&sidecar).unwrap();
        assert_eq!(Artefact::read(&signed_resident).unwrap_err().kind(), ErrorKind::PlanUnverified);
        // Whole, with a checksum that fits, and another's.
        read.clone().with_options(vec!["--resident-blocks=2".to_owned()]).write(&signed_resident).unwrap();
        untrusted(Artefact::read(&signed_resident), &["x.resident.json with sha256"]);
        fs::write(&sidecar, text).unwrap();
        Artefact::read(&signed_resident).unwrap();
        fs::write(&signed_resident, [&bytes[..], b"x"].concat()).unwrap();
        untrusted(Artefact::read(&signed_resident), &["x.resident with sha256"]);
    } else {
        assert!(std::env::var_os("TICKRT_REQUIRE_SDK").is_none(), "no NVRTC");
    }

    untrusted(OnnxRuntime::load(Some(Path::new("/tmp/libonnxruntime.so"))), &["absolute path"]);
    if onnxruntime.is_none() {
        assert!(std::env::var_os("TICKRT_REQUIRE_SDK").is_none(), "no ONNX Runtime");
        return;
    }
    let config = SessionConfig { normalizations: Some(Vec::new()), ..SessionConfig::default() };
    let start = |path: &Path| -> tickrt::Result<Session> {
        Session::start(Box::new(OrtBackend::cpu(&Model::read(path)?, &config)?), &config)
    };
    start(&signed_model).unwrap();
    untrusted(start(&other_model), &["mlp.onnx.sig"]);
    untrusted(observe(&Model::read(&other_model).unwrap(), calibration()).map(drop), &["calibrate"]);
    let from_memory = Model::from_bytes(fs::read(&signed_model).unwrap()).unwrap();
    untrusted(OrtBackend::cpu(&from_memory, &config).map(drop), &["tickrt sign"]);
    // An exchanged file is no reason to answer from another backend without a word.
    let chain = || Predictor::builder().ort_cpu(&other_model).ort_cpu(&signed_model).config(config.clone());
    untrusted(chain().build().map(drop), &["mlp.onnx.sig"]);
    let passed = chain().pass_over_untrusted().build().unwrap();
    assert_eq!(passed.passed_over()[0].reason.kind(), ErrorKind::Untrusted);
    let sidecar_of = |config: &SessionConfig| {
        let chain = Predictor::builder().tensorrt(folder.path().join("unsigned.engine")).ort_cpu(&signed_model);
        chain.config(config.clone()).build().map(drop)
    };
    if built.is_some() {
        untrusted(sidecar_of(&config), &["unsigned.engine"]);
        untrusted(sidecar_of(&SessionConfig::default()), &["unsigned.engine"]);
    }
}

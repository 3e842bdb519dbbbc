use std::fs;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::builder::{BuiltPlan, OptimizationProfile, Precision, ProfileShape};
use crate::normalize::{Normalization, Stats};
use crate::tensor::{DataType, IoMode, TensorInfo};
use crate::test_support::assert_refused;

const TRT: Version = Version { major: 10, minor: 16, patch: 1 };

/// Bytes that begin as a plan of `version` does.
fn bytes(version: Version, length: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..length).map(|i| (i * 31) as u8).collect();
    bytes[..4].copy_from_slice(if version.is_rtx() { b"vtrt" } else { b"ftrt" });
    bytes[4..8].fill(0);
    bytes[16..24].copy_from_slice(&(length as u64).to_le_bytes());
    bytes[24..27].copy_from_slice(&[version.major, version.minor, version.patch].map(|number| number as u8));
    bytes
}

fn flavour(version: Version) -> Flavour {
    match version.major {
        8 => Flavour::Trt8,
        10 => Flavour::Trt10,
        11 => Flavour::Trt11,
        _ => Flavour::Rtx,
    }
}

fn version(major: u32, minor: u32, patch: u32) -> Version {
    Version { major, minor, patch }
}

fn sidecar(version: Version) -> Sidecar {
    let built = BuiltPlan {
        bytes: Vec::new(),
        flavour: flavour(version),
        version,
        tensors: vec![TensorInfo {
            name: "input".into(),
            mode: IoMode::Input,
            data_type: DataType::F32,
            shape: vec![-1, 8, 32],
        }],
        profiles: vec![OptimizationProfile {
            shapes: [(
                "input".to_owned(),
                ProfileShape { min: vec![1, 8, 32], opt: vec![1, 8, 32], max: vec![4, 8, 32] },
            )]
            .into(),
        }],
        precision: Precision::Fp16,
        version_compatible: false,
        hardware_compatibility: HardwareCompatibility::None,
        compute_capabilities: Vec::new(),
        layers_json: "[]".into(),
        nodes: None,
        lowered: None,
        timing_cache: None,
        onnx_sha256: Some("ab".repeat(32)),
        build_time: Duration::ZERO,
        notes: Vec::new(),
        log: Vec::new(),
    };
    let mut sidecar = Sidecar::from(&built);
    sidecar.gpu = Some(Gpu { name: "NVIDIA H100".into(), compute_capability: 90 });
    // A number that has no short decimal form, to see that it comes back to the last digit.
    sidecar.normalizations = vec![
        Normalization::new("input", DataType::F64).stats(Stats::PerTensor { mean: [0.1 + 0.2], std: [1.0 / 3.0] }),
    ];
    sidecar.window_row = Some(8);
    sidecar.onnx_file = Some("models/toy_cnn.onnx".into());
    sidecar.options = vec!["--fp16".into(), "--max_workspace=256M".into()];
    sidecar
}

fn plan(version: Version) -> Plan {
    Plan::new(bytes(version, 400), sidecar(version)).unwrap()
}

fn target(version: Version, compute_capability: Option<(u32, u32)>) -> Target {
    Target { flavour: flavour(version), version, compute_capability, gpu_name: Some("NVIDIA A10".into()) }
}

/// A folder with a plan and its sidecar.
fn written() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.engine");
    plan(TRT).write(&path).unwrap();
    (directory, path)
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn plan_written_and_read_is_the_same() {
    let (directory, path) = written();
    assert_eq!(names(directory.path()), ["x.engine", "x.engine.json"]);
    let (before, after) = (plan(TRT), Plan::read(&path).unwrap());
    assert_eq!(after.bytes(), before.bytes());
    assert_eq!(after.sha256(), before.sha256());
    let (before, after) = (before.sidecar().unwrap(), after.sidecar().unwrap());
    assert_eq!(after.tensors, before.tensors);
    assert_eq!(after.profiles, before.profiles);
    assert_eq!(after.options, before.options);
    assert_eq!((after.plan_bytes, &after.plan_sha256), (400, &before.plan_sha256));
}

#[test]
fn facts_name_what_people_ask_for() {
    let facts = plan(TRT).facts();
    for (name, value) in [
        ("built by", "TensorRT 10.16.1"),
        ("bytes", "400"),
        ("built on", "NVIDIA H100 (compute capability 9.0)"),
        ("precision", "fp16"),
        ("profile", "0: input 1x8x32 to 4x8x32, tuned for 1x8x32"),
        ("options", "--fp16 --max_workspace=256M"),
    ] {
        assert!(facts.contains(&(name, value.to_owned())), "{name} in {facts:?}");
    }
}

#[test]
fn read_of_damage_says_which_and_how_to_rebuild() {
    let command = "`tickrt build --onnx models/toy_cnn.onnx --engine /";
    let options = "x.engine --fp16 --max_workspace=256M`";
    type Change = fn(&mut Vec<u8>);
    let changes: [(Change, ErrorKind, &[&str]); 7] = [
        (|plan| plan.truncate(399), ErrorKind::PlanTruncated, &["expected 400 bytes, got 399"]),
        (Vec::clear, ErrorKind::NotAPlan, &["expected a TensorRT plan, got an empty file"]),
        (|plan| plan[200] ^= 1, ErrorKind::PlanAltered, &["expected the 400 bytes that were built, sha256 "]),
        (|plan| plan[0] ^= 1, ErrorKind::PlanAltered, &["others"]),
        (|plan| plan.push(0), ErrorKind::PlanAltered, &["others of 401 bytes"]),
        (|plan| *plan = b"hello".to_vec(), ErrorKind::NotAPlan, &["begins with [68, 65, 6c, 6c]"]),
        (|plan| *plan = b"\x08\x08\x12\x07".to_vec(), ErrorKind::NotAPlan, &["ONNX model", "not the model"]),
    ];
    for (change, kind, words) in changes {
        let (_directory, path) = written();
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(&path, bytes).unwrap();
        for result in [Plan::read(&path), Plan::read_unverified(&path)] {
            assert_refused(result, kind, &[words, &[command, options]].concat());
        }
    }
}

#[test]
fn read_of_absent_things_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let missing = Plan::read(directory.path().join("x.engine"));
    assert_refused(missing, ErrorKind::Io, &["no such file", "tickrt build --onnx MODEL.onnx --engine /"]);
    assert_refused(Plan::read(directory.path()), ErrorKind::Io, &["expected a file, got a directory"]);
    let (_directory, path) = written();
    fs::remove_file(&path).unwrap();
    assert_refused(Plan::read(&path), ErrorKind::Io, &["no such file", "--onnx models/toy_cnn.onnx", "--fp16"]);
}

#[test]
fn read_without_sidecar_needs_permission() {
    let (_directory, path) = written();
    fs::remove_file(Plan::sidecar_path(&path)).unwrap();
    let words = [
        "expected its sidecar /",
        "x.engine.json, got none",
        "tickrt build",
        "Engine::load_unverified",
        "--allow-unverified",
    ];
    assert_refused(Plan::read(&path), ErrorKind::PlanUnverified, &words);
    let plan = Plan::read_unverified(&path).unwrap();
    assert_eq!((plan.flavour(), plan.version()), (Flavour::Trt10, TRT));
    assert!(plan.sidecar().is_none());
    plan.check(&target(TRT, Some((9, 0)))).unwrap();
    assert_refused(
        plan.check(&target(version(10, 16, 2), None)),
        ErrorKind::PlanVersion,
        &["TensorRT 10.16.1, got TensorRT 10.16.2"],
    );
    assert_refused(plan.write(&path), ErrorKind::PlanUnverified, &["copy its file"]);
}

#[test]
fn unverified_bytes_are_held_against_their_own_header() {
    let rtx = bytes(version(1, 7, 1), 400);
    assert_eq!(Plan::unverified(rtx.clone()).unwrap().flavour(), Flavour::Rtx);
    let wrapped = [&2_u32.to_le_bytes(), &b"{}"[..], &bytes(TRT, 100)].concat();
    let cases: [(Vec<u8>, ErrorKind, &str); 9] = [
        (vec![], ErrorKind::NotAPlan, "an empty file"),
        (b"ft".to_vec(), ErrorKind::PlanTruncated, "whose header alone has 28 bytes, got 2 bytes"),
        (rtx[..27].to_vec(), ErrorKind::PlanTruncated, "got 27 bytes"),
        (rtx[..399].to_vec(), ErrorKind::PlanTruncated, "expected 400 bytes, as its header says, got 399"),
        (b"<!doctype html>".to_vec(), ErrorKind::NotAPlan, "a web page"),
        (b"{\"format\": 1}".to_vec(), ErrorKind::NotAPlan, "name the engine, not its sidecar"),
        (b"version https://git-lfs.github.com/spec/v1".to_vec(), ErrorKind::NotAPlan, "git lfs pull"),
        (wrapped, ErrorKind::NotAPlan, "as ultralytics writes"),
        (bytes(version(9, 1, 0), 100), ErrorKind::PlanVersion, "whose header says version 9.1.0"),
    ];
    for (bytes, kind, words) in cases {
        assert_refused(Plan::unverified(bytes), kind, &[words]);
    }
}

#[test]
fn read_of_damaged_sidecar_says_so() {
    type Change = fn(String) -> String;
    let changes: [(Change, ErrorKind, &str); 6] = [
        (|_| String::new(), ErrorKind::SidecarDamaged, "got an empty file"),
        (|text| text[..text.len() / 2].to_owned(), ErrorKind::SidecarDamaged, "EOF"),
        (|text| text.replace("0.3", "0.4"), ErrorKind::SidecarDamaged, "was changed since"),
        (|text| text.replace("\"format\": 1", "\"format\": 2"), ErrorKind::Unsupported, "of a newer tickrt"),
        (|_| "{\"format\": 1}".to_owned(), ErrorKind::SidecarDamaged, "without sidecar_sha256"),
        (|_| "[]".to_owned(), ErrorKind::SidecarDamaged, "the JSON that tickrt wrote"),
    ];
    for (change, kind, words) in changes {
        let (_directory, path) = written();
        let sidecar = Plan::sidecar_path(&path);
        fs::write(&sidecar, change(fs::read_to_string(&sidecar).unwrap())).unwrap();
        assert_refused(Plan::read(&path), kind, &[words, "x.engine.json", "rebuild it with"]);
    }
    let (_directory, path) = written();
    let sidecar = Plan::sidecar_path(&path);
    fs::write(&sidecar, [0xff, 0xfe]).unwrap();
    assert_refused(Plan::read(&path), ErrorKind::SidecarDamaged, &["utf-8"]);
    fs::remove_file(&sidecar).unwrap();
    fs::create_dir(&sidecar).unwrap();
    assert_refused(Plan::read(&path), ErrorKind::Io, &["got a directory"]);
}

#[test]
fn write_that_fails_leaves_what_was_there() {
    let directory = tempfile::tempdir().unwrap();
    let taken = directory.path().join("taken");
    fs::create_dir(&taken).unwrap();
    assert_refused(plan(TRT).write(&taken), ErrorKind::Io, &["got a directory"]);
    assert_refused(plan(TRT).write(directory.path().join("no/x.engine")), ErrorKind::Io, &["make the folder"]);
    assert_eq!(names(directory.path()), ["taken"]);
    // The sidecar's name is a folder's: the plan does not appear either.
    fs::create_dir(directory.path().join("y.engine.json")).unwrap();
    assert_refused(plan(TRT).write(directory.path().join("y.engine")), ErrorKind::Io, &["got a directory"]);
    assert_eq!(names(directory.path()), ["taken", "y.engine.json"]);
}

#[test]
fn check_version_follows_tensorrts_rules() {
    let v = version;
    for (built, here, exact, compatible) in [
        (v(10, 16, 1), v(10, 16, 1), true, true),
        (v(10, 16, 1), v(10, 16, 2), false, true),
        (v(10, 16, 1), v(10, 17, 0), false, true),
        (v(10, 16, 1), v(10, 15, 9), false, false),
        (v(10, 16, 1), v(11, 0, 0), false, true),
        (v(8, 6, 1), v(10, 0, 0), false, true),
        (v(8, 6, 1), v(11, 4, 0), false, false),
        (v(11, 4, 0), v(10, 16, 1), false, false),
        (v(1, 7, 1), v(1, 7, 1), true, true),
        (v(1, 7, 1), v(1, 8, 0), false, false),
        (v(1, 7, 1), v(10, 16, 1), false, false),
        (v(8, 6, 1), v(1, 7, 1), false, false),
    ] {
        for (flag, fits) in [(false, exact), (true, compatible)] {
            let mut sidecar = sidecar(built);
            sidecar.version_compatible = flag;
            let result = Plan::new(bytes(built, 99), sidecar).unwrap().check(&target(here, None));
            if fits {
                result.unwrap();
            } else {
                let words = [&built.to_string(), &format!("got {here}"), "rebuild it with `tickrt build --onnx"];
                assert_refused(result, ErrorKind::PlanVersion, &words.map(|word| word as &str));
            }
        }
    }
}

#[test]
fn check_gpu_follows_what_the_plan_was_built_for() {
    let none = HardwareCompatibility::None;
    let ampere = HardwareCompatibility::AmperePlus;
    for (built_on, list, level, here, fits) in [
        (Some(90), vec![], none, (9, 0), true),
        (Some(90), vec![], none, (8, 6), false),
        (Some(86), vec![], HardwareCompatibility::SameComputeCapability, (8, 9), false),
        (Some(80), vec![], ampere, (12, 0), true),
        (Some(80), vec![], ampere, (7, 5), false),
        (None, vec![86, 120], none, (8, 6), true),
        (None, vec![86, 120], none, (12, 0), true),
        (None, vec![86, 120], none, (9, 0), false),
        (None, vec![], none, (9, 0), true),
    ] {
        let mut sidecar = sidecar(TRT);
        sidecar.gpu = built_on.map(|compute_capability| Gpu { name: "NVIDIA X".into(), compute_capability });
        (sidecar.compute_capabilities, sidecar.hardware_compatibility) = (list, level);
        let plan = Plan::new(bytes(TRT, 99), sidecar).unwrap();
        plan.check(&target(TRT, None)).unwrap();
        let result = plan.check(&target(TRT, Some(here)));
        if fits {
            result.unwrap();
        } else {
            let words = ["compute capability", &format!("got {}.{} (NVIDIA A10)", here.0, here.1), "tickrt build"];
            assert_refused(result, ErrorKind::PlanGpu, &words);
        }
    }
}

#[test]
fn rebuild_command_survives_a_shell() {
    let mut sidecar = sidecar(TRT);
    sidecar.onnx_file = Some("my model's.onnx".into());
    let plan = Plan::new(bytes(TRT, 99), sidecar).unwrap();
    assert!(
        plan.rebuild_command().starts_with(r"tickrt build --onnx 'my model'\''s.onnx' --engine MODEL.engine --fp16")
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_truncated_file_is_accepted(of_plan in any::<bool>(), at in any::<prop::sample::Index>()) {
        let (_directory, path) = written();
        let path = if of_plan { path } else { Plan::sidecar_path(path) };
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..at.index(bytes.len())]).unwrap();
        let plan = path.with_file_name("x.engine");
        prop_assert!(Plan::read(&plan).is_err());
        prop_assert!(Plan::read_unverified(&plan).is_err());
    }

    #[test]
    fn no_flipped_byte_is_accepted(of_plan in any::<bool>(), at in any::<prop::sample::Index>(), mask in 1_u8..) {
        let (_directory, path) = written();
        let path = if of_plan { path } else { Plan::sidecar_path(path) };
        let mut bytes = fs::read(&path).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= mask;
        fs::write(&path, bytes).unwrap();
        let plan = path.with_file_name("x.engine");
        prop_assert!(Plan::read(&plan).is_err());
        prop_assert!(Plan::read_unverified(&plan).is_err());
    }

    #[test]
    fn no_bytes_make_the_header_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64), tag in 0..3) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_chunk_mut::<4>() {
            *first = [*first, *b"ftrt", *b"vtrt"][tag as usize];
        }
        let _ = Plan::unverified(bytes);
    }
}

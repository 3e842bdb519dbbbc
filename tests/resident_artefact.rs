//! Resident engines as files: built with NVRTC, on any machine that has it; written, read, and refused when they are not what was
//! written. No GPU.

mod common;
#[path = "common/onnx.rs"]
mod onnx;
#[path = "common/random_network.rs"]
mod random_network;

use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

use common::{model, normalization};
use onnx::Node;
use random_network::Growing;
use tickrt::onnx::Model;
use tickrt::resident::nvrtc::Nvrtc;
use tickrt::resident::program::{ENTRY, TURN_LAYOUT};
use tickrt::resident::{Artefact, ArtefactOptions, Semantics};
use tickrt::{DataType, Error, ErrorKind, Normalization, Result, Shapes, Stats};

/// Whether this machine has the compiler; where `scripts/setup` ran it must.
fn has_nvrtc() -> bool {
    match Nvrtc::open() {
        Ok(_) => true,
        Err(error) if env::var("TICKRT_REQUIRE_SDK").as_deref() == Ok("1") => panic!("{error}"),
        Err(error) => {
            eprintln!("skipped: {error}");
            false
        }
    }
}

fn build(name: &str, options: &ArtefactOptions) -> Result<Artefact> {
    let model = Model::read(model(&format!("{name}.onnx")))?;
    Artefact::build(&model, None, &Shapes::new(), options)
}

/// The error must be of `kind`, and say all of `parts`.
#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T>, kind: ErrorKind, parts: &[&str]) -> Error {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    parts.iter().for_each(|part| assert!(error.to_string().contains(part), "`{part}` is not in: {error}"));
    error
}

#[test]
fn models_of_the_zoo_become_machine_code() {
    if !has_nvrtc() {
        return;
    }
    for name in ["identity", "toy_cnn", "mlp", "mlp_384", "cnn_small", "lstm_s"] {
        let artefact = build(name, &ArtefactOptions::default()).unwrap();
        let facts = artefact.facts();
        assert!(artefact.cubin().starts_with(b"\x7fELF"), "{name}");
        assert_eq!(artefact.constants().len() as u64, facts.constants_bytes, "{name}");
        assert_eq!((facts.entry.as_str(), facts.turn_layout, facts.compute_capability), (ENTRY, TURN_LAYOUT, 90));
        assert_eq!((facts.semantics, facts.spilled_bytes), (Semantics::Whole, Some(0)), "{name}");
        let registers = 1..=64 * 1024 / facts.threads;
        assert!(
            registers.contains(&facts.registers.unwrap()),
            "{name}: {} threads have {registers:?} each",
            facts.threads
        );
        let read = Model::read(model(&format!("{name}.onnx"))).unwrap();
        let count = |shape: &[i64]| shape.iter().product::<i64>() as usize;
        assert_eq!(facts.input_words as usize, count(&read.inputs()[0].shape), "{name}");
        assert_eq!(facts.output_shapes, [read.outputs()[0].shape.clone()], "{name}");
        assert_eq!(facts.output_elements(), count(&facts.output_shapes[0]), "{name}");
        artefact.check((9, 0), 227 * 1024).unwrap();
        println!(
            "{name}: {} bytes, {} of them code, {} blocks of {}, {} registers, compiled in {:.2?}",
            artefact.file_bytes(),
            artefact.cubin().len(),
            facts.blocks,
            facts.threads,
            facts.registers.unwrap(),
            artefact.compile_time().unwrap()
        );
    }
}

#[test]
fn network_with_state_takes_a_row_and_one_that_looks_back_otherwise_is_refused() {
    let stateful = ArtefactOptions { semantics: Semantics::Stateful, ..ArtefactOptions::default() };
    refused(
        build("toy_cnn", &stateful),
        ErrorKind::Unsupported,
        &["LSTM or GRU layers", "`/0/Conv`", "--semantics window"],
    );
    refused(build("mlp", &stateful), ErrorKind::Unsupported, &["`/0/Gemm`"]);
    refused(build("identity", &stateful), ErrorKind::Unsupported, &["an output that has them"]);
    if !has_nvrtc() {
        return;
    }
    let artefact = build("lstm_a", &stateful).unwrap();
    let facts = artefact.facts();
    assert_eq!((facts.semantics, facts.window_row, facts.input_words), (Semantics::Stateful, Some(100), 100));
    assert_eq!(facts.inputs[0].shape, [1, 1, 100]);
    let parts = facts.parts();
    let layers = parts.within.iter().filter(|stage| stage.starts_with("newest step of 100 of LSTM of 100 units"));
    assert_eq!(layers.count(), 2, "{parts:?}");
    assert_eq!(parts.after.last(), Some(&"the state is kept"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lstm_a.resident");
    artefact.write(&path).unwrap();
    let read = Artefact::read(&path).unwrap();
    assert_eq!((read.sha256(), read.facts().semantics), (artefact.sha256(), Semantics::Stateful));
    // With no GPU at hand, too: what cannot be is said first.
    let windows = Some(tickrt::WindowConfig::new(1, 100));
    let config = tickrt::SessionConfig { windows, ..tickrt::SessionConfig::default() };
    let session = tickrt::Session::load_resident(&path, &config).map(drop);
    refused(session, ErrorKind::InvalidArgument, &["no windows", "leave `SessionConfig::windows` out"]);
    let chain = tickrt::Predictor::builder().resident(&path).build().map(drop);
    refused(chain, ErrorKind::InvalidArgument, &["into a chain", "carries state", "Session::load_resident"]);
}

/// Or the same engine had another hash wherever it is built, and told where that was.
#[test]
fn code_has_no_path_of_where_it_was_built() {
    if !has_nvrtc() {
        return;
    }
    let artefact = build("identity", &ArtefactOptions::default()).unwrap();
    let holds = |text: &str| artefact.cubin().windows(text.len()).any(|bytes| bytes == text.as_bytes());
    assert!(holds("/tickrt") && holds("input.cuh"), "its lines are not told");
    assert!(!holds(env::current_dir().unwrap().to_str().unwrap()));
}

#[test]
fn options_and_normalisation_are_kept() {
    if !has_nvrtc() {
        return;
    }
    let dynamic = Model::read(model("mlp_dynamic.onnx")).unwrap();
    let options = ArtefactOptions { blocks: Some(4), threads: Some(256), stamps: true, ..ArtefactOptions::default() };
    let stated = normalization("mlp_dynamic");
    let artefact = Artefact::build(&dynamic, Some(&stated), &Shapes::new(), &options).unwrap();
    let facts = artefact.facts();
    assert_eq!((facts.blocks, facts.threads, facts.stamps), (4, 256, true));
    assert_eq!(facts.normalization, stated);
    assert_eq!(facts.inputs[0].shape, [1, 256], "a dynamic batch is 1");
    assert_eq!((&facts.outputs[0].shape[..], &facts.output_shapes[0][..]), (&[-1, 3][..], &[1, 3][..]));

    let bytes = Normalization::new("input", DataType::U8).stats(Stats::PerTensor { mean: [3.0], std: [2.0] });
    let artefact = Artefact::build(&dynamic, Some(&bytes), &Shapes::new(), &ArtefactOptions::default()).unwrap();
    assert_eq!(artefact.facts().input_words, 64);
    assert_eq!(artefact.facts().normalizer().unwrap().input_type(), DataType::U8);
}

/// Before compute capability 9.0 there are no clusters.
#[test]
fn older_gpus_get_one_block() {
    let old = ArtefactOptions { compute_capability: (8, 0), ..ArtefactOptions::default() };
    let two = ArtefactOptions { blocks: Some(2), ..old };
    refused(build("mlp_384", &two), ErrorKind::Unsupported, &["at most 1 on compute capability 8.0", "ask for 1"]);
    if !has_nvrtc() {
        return;
    }
    for compute_capability in [(7, 5), (8, 0), (8, 9), (12, 0)] {
        let artefact = build("toy_cnn", &ArtefactOptions { compute_capability, ..old }).unwrap();
        assert_eq!(artefact.facts().blocks == 1, compute_capability.0 < 9, "{compute_capability:?}");
    }
}

#[test]
fn what_cannot_be_built_says_why_and_what_happens_then() {
    let here = ArtefactOptions::default();
    let goes_on = "the chain goes on to TensorRT";
    let many = refused(
        build("deeplob", &ArtefactOptions { blocks: Some(1), ..here }),
        ErrorKind::Unsupported,
        &["deeplob.onnx", "bytes of activations in a block", "232448"],
    );
    assert!(many.to_string().contains(goes_on), "{many}");

    let mut growing = Growing::new(1, &[1, 8]);
    let node = growing.node("Cosh", &[]);
    growing.add(Node { name: "the_node".to_owned(), ..node });
    let unknown = Model::from_bytes(growing.model_of_opset(17)).unwrap();
    let built = Artefact::build(&unknown, None, &Shapes::new(), &here);
    refused(built, ErrorKind::Unsupported, &["Cosh `the_node`", goes_on]);

    let options = [
        (ArtefactOptions { blocks: Some(3), ..here }, ErrorKind::InvalidArgument, "1, 2, 4, 8 or 16 blocks, got 3"),
        (ArtefactOptions { threads: Some(100), ..here }, ErrorKind::InvalidArgument, "a multiple of 32"),
        (ArtefactOptions { threads: Some(0), ..here }, ErrorKind::InvalidArgument, "a multiple of 32"),
        (ArtefactOptions { compute_capability: (5, 0), ..here }, ErrorKind::Unsupported, "got 5.0"),
        (ArtefactOptions { compute_capability: (8, 10), ..here }, ErrorKind::Unsupported, "got 8.10"),
        (ArtefactOptions { compute_capability: (u32::MAX, 1), ..here }, ErrorKind::Unsupported, "is known here"),
    ];
    for (options, kind, words) in options {
        refused(build("mlp", &options), kind, &[words]);
    }
    let read = Model::read(model("mlp.onnx")).unwrap();
    let of_another = Normalization::new("price", DataType::F32);
    let built = Artefact::build(&read, Some(&of_another), &Shapes::new(), &here);
    refused(built, ErrorKind::InvalidArgument, &["a normalisation of `input`, got one of `price`"]);
    let wide = Normalization::new("input", DataType::F64);
    let built = Artefact::build(&read, Some(&wide), &Shapes::new(), &here);
    refused(built, ErrorKind::Unsupported, &["an input of f64", goes_on]);
}

/// The environment is the process's: the test runs itself again in one of its own.
#[test]
fn nvrtc_that_is_missing_or_something_else_says_where_it_was_looked_for() {
    const AGAIN: &str = "TICKRT_TEST_NVRTC_SAYS";
    if let Some(words) = env::var_os(AGAIN) {
        let said = build("mlp_384", &ArtefactOptions::default());
        let words = words.into_string().unwrap();
        refused(said, ErrorKind::Unsupported, &["mlp_384.onnx: open NVRTC", &words, "scripts/setup"]);
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("libnvrtc.so.13");
    fs::write(&text, "no library").unwrap();
    let libc = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/libc.so.6"]
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.exists());
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let mut cases = vec![
        (PathBuf::from("/nonexistent/libnvrtc.so"), "$TICKRT_NVRTC: /nonexistent/libnvrtc.so: no such file"),
        (text, "libnvrtc.so.13: "),
        (folder.path().to_path_buf(), "libnvrtc.so.13: "),
        (empty, "empty: no libnvrtc.so in it"),
    ];
    cases.extend(libc.map(|libc| (libc, "it has no nvrtcVersion")));
    for (named, words) in cases {
        let again = Command::new(env::current_exe().unwrap())
            .args(["nvrtc_that_is_missing_or_something_else_says_where_it_was_looked_for", "--exact"])
            .env("TICKRT_NVRTC", named)
            .env(AGAIN, words)
            .output()
            .unwrap();
        assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stdout));
    }
}

/// A folder with an artefact that was built here.
fn written() -> Option<(tempfile::TempDir, PathBuf)> {
    if !has_nvrtc() {
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.resident");
    let options = vec!["--resident-blocks=2".to_owned(), "--compute-capability=9.0".to_owned()];
    let blocks = ArtefactOptions { blocks: Some(2), ..ArtefactOptions::default() };
    build("identity", &blocks).unwrap().with_options(options).write(&path).unwrap();
    Some((folder, path))
}

#[test]
fn artefact_written_and_read_is_the_same() {
    let Some((folder, path)) = written() else { return };
    let mut names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["x.resident", "x.resident.json"]);
    let read = Artefact::read(&path).unwrap();
    assert_eq!(read.path(), Some(&*path));
    let again = folder.path().join("again.resident");
    read.write(&again).unwrap();
    let both = (Artefact::read(&again).unwrap(), read);
    assert_eq!(
        (both.0.sha256(), both.0.cubin(), both.0.constants()),
        (both.1.sha256(), both.1.cubin(), both.1.constants())
    );
    assert_eq!(fs::read(&again).unwrap(), fs::read(&path).unwrap());
    let sidecar = |path| fs::read(Artefact::sidecar_path(path)).unwrap();
    assert_eq!(sidecar(&again), sidecar(&path));
    assert!(Artefact::is_at(&path) && !Artefact::is_at(Artefact::sidecar_path(&path)));
}

#[test]
fn read_of_damage_says_which_and_how_to_rebuild() {
    let Some((_folder, path)) = written() else { return };
    let whole = fs::read(&path).unwrap();
    let rebuild = format!("--engine {} --resident-blocks=2 --compute-capability=9.0`", path.display());
    let case = |bytes: Vec<u8>, kind: ErrorKind, words: &[&str]| {
        fs::write(&path, bytes).unwrap();
        refused(Artefact::read(&path), kind, &[words, &["tickrt build --resident --onnx ", &rebuild]].concat());
    };
    let changed = |at: usize, byte: u8| {
        let mut bytes = whole.clone();
        bytes[at] = byte;
        bytes
    };
    let end = whole.len() - 1;
    case(whole[..end].to_vec(), ErrorKind::PlanTruncated, &[&format!("expected {} bytes, got {end}", whole.len())]);
    case(whole[..20].to_vec(), ErrorKind::PlanTruncated, &["got 20"]);
    case(Vec::new(), ErrorKind::NotAPlan, &["expected a resident engine, got an empty file"]);
    case(changed(end / 2, !whole[end / 2]), ErrorKind::PlanAltered, &["sha256", "copy file and sidecar together"]);
    case(changed(16, !whole[16]), ErrorKind::PlanAltered, &["sha256"]);
    case([&whole[..], b"x"].concat(), ErrorKind::PlanAltered, &[&format!("others of {} bytes", whole.len() + 1)]);
    case(b"ftrt and more of a plan".to_vec(), ErrorKind::NotAPlan, &["got a TensorRT plan", "load it as one"]);
    case(fs::read(model("identity.onnx")).unwrap(), ErrorKind::NotAPlan, &["what looks like an ONNX model"]);

    // No sidecar vouches for a header that lies.
    fs::remove_file(Artefact::sidecar_path(&path)).unwrap();
    let alone = |bytes: Vec<u8>, kind: ErrorKind, words: &[&str]| {
        fs::write(&path, bytes).unwrap();
        refused(Artefact::read(&path), kind, words);
    };
    alone(whole.clone(), ErrorKind::PlanUnverified, &["x.resident.json, got none", "copy both files"]);
    let mut endless = whole.clone();
    endless[16..32].fill(0xff);
    alone(endless, ErrorKind::PlanTruncated, &["expected more than 2^64 bytes after the header"]);
    let mut long = whole.clone();
    long[23] = 1;
    alone(long, ErrorKind::PlanTruncated, &["bytes after the header, as it says"]);
    alone(changed(8, 2), ErrorKind::PlanVersion, &["expected format 1", "got 2"]);
    alone(changed(40, 1), ErrorKind::PlanAltered, &["zeros"]);
    alone(changed(64, 0), ErrorKind::PlanAltered, &["an ELF file"]);
}

#[test]
fn file_too_long_to_be_one_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.resident");
    // Of nothing but a length.
    fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
    refused(Artefact::read(&path), ErrorKind::NotAPlan, &["expected a resident engine, got 1099511627776 bytes"]);
    refused(Artefact::read(folder.path()), ErrorKind::Io, &["a directory"]);
    refused(Artefact::read(folder.path().join("none")), ErrorKind::Io, &["no such file", "check the path"]);
}

#[test]
fn read_of_damaged_sidecar_says_so() {
    let Some((_folder, path)) = written() else { return };
    let sidecar = Artefact::sidecar_path(&path);
    let text = fs::read_to_string(&sidecar).unwrap();
    let changed = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    };
    for (bytes, kind, words) in [
        (String::new(), ErrorKind::SidecarDamaged, "an empty file"),
        (text[..text.len() / 2].to_owned(), ErrorKind::SidecarDamaged, "the JSON that tickrt wrote"),
        (changed("\"blocks\": 2", "\"blocks\": 4"), ErrorKind::SidecarDamaged, "changed since"),
        (changed("\"format\": 1", "\"format\": 2"), ErrorKind::Unsupported, "of a newer tickrt"),
        (changed("sidecar_sha256", "sidecar"), ErrorKind::SidecarDamaged, "without sidecar_sha256"),
    ] {
        fs::write(&sidecar, bytes).unwrap();
        refused(Artefact::read(&path), kind, &["x.resident.json", words, "tickrt build --resident"]);
    }
}

#[test]
fn gpu_that_it_was_not_built_for_is_refused_with_the_command_for_it() {
    let Some((_folder, path)) = written() else { return };
    let artefact = Artefact::read(&path).unwrap();
    artefact.check((9, 0), 232_448).unwrap();
    let other = artefact.check((8, 9), 101_376);
    let words = ["expected compute capability 9.0, got 8.9", "--resident-blocks=2 --compute-capability=8.9`"];
    refused(other, ErrorKind::PlanGpu, &words);
    refused(artefact.check((9, 0), 1000), ErrorKind::PlanGpu, &["bytes of shared memory a block, got at most 1000"]);
}

//! The real TensorRT 10, whose libraries are in no registry of Python's or Rust's: `TICKRT_TEST_TRT10` names the folder that
//! holds libnvinfer.so.10 and libnvonnxparser.so.10. As far as it goes where it is: without a GPU to the builder's error, with one
//! that it has no builder resources for, through parsing and configuring to the build's.
mod common;

use std::path::PathBuf;

use tickrt::{Builder, BuilderConfig, ErrorKind, Flavour, Library, Preference};

const FOLDER: &str = "TICKRT_TEST_TRT10";

fn library() -> Option<Library> {
    let Some(folder) = std::env::var_os(FOLDER) else {
        eprintln!("skipped: {FOLDER} names no folder with TensorRT 10");
        return None;
    };
    // Named, it must be there.
    Some(Library::open_any(&Preference::Path(PathBuf::from(folder))).unwrap())
}

#[test]
fn library_is_opened_and_tells_its_version() {
    let Some(library) = library() else { return };
    assert_eq!((library.flavour(), library.version().major), (Flavour::Trt10, 10));
    assert_eq!(library.path().file_name().unwrap(), Flavour::Trt10.soname());
    println!("{} of {}", library.version(), library.path().display());
}

#[test]
fn build_works_or_its_error_has_every_line_of_tensorrts() {
    let Some(library) = library() else { return };
    let built = Builder::new(&library).build_file(common::model("toy_cnn.onnx"), &BuilderConfig::new());
    let error = match built {
        Ok(built) => return assert!(!built.bytes.is_empty()),
        Err(error) => error,
    };
    println!("{error}");
    let log = error.log_lines();
    if tickrt::Device::count().is_err() {
        assert_eq!(error.kind(), ErrorKind::NoGpu);
        assert!(log.iter().any(|line| line.contains("CUDA initialization failure")), "{error}");
        assert!(log.len() >= 2, "the lines around it as well: {error}");
        return;
    }
    // Parsed and configured it is; what fails is the build itself.
    assert!(error.to_string().contains("serialize the network"), "{error}");
    assert!(!log.is_empty(), "{error}");
}

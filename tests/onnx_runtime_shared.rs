//! A program that uses `ort` itself: there is one ONNX Runtime a process, and a second is refused. So all of it is one test.

use std::path::PathBuf;

use tickrt::ErrorKind;
use tickrt::backend::ort::OnnxRuntime;

#[test]
fn library_other_than_the_programs_own_is_refused_and_its_own_is_taken() {
    let sdk = std::env::var_os("TICKRT_SDK").map(|sdk| PathBuf::from(sdk).join("lib/onnxruntime/libonnxruntime.so"));
    let Some(ours) = sdk.and_then(|path| path.canonicalize().ok()) else {
        assert!(std::env::var_os("TICKRT_REQUIRE_SDK").is_none(), "no ONNX Runtime");
        return eprintln!("skipped: no ONNX Runtime");
    };
    // The same bytes under another name are another library to the linker, and to us.
    let folder = tempfile::tempdir().unwrap();
    let programs = folder.path().join("libonnxruntime.so");
    std::fs::copy(&ours, &programs).unwrap();
    assert!(ort::init_from(&programs).unwrap().commit());
    assert!(!ort::info().is_empty(), "the program uses it");

    let error = OnnxRuntime::load(Some(&ours)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    for part in [ours.to_str().unwrap(), programs.to_str().unwrap()] {
        assert!(error.to_string().contains(part), "`{part}` is not in: {error}");
    }
    let taken = OnnxRuntime::load(Some(&programs)).unwrap();
    assert_eq!(taken.path(), programs.canonicalize().unwrap());
    let error = OnnxRuntime::load(Some(&ours)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "afterwards as well: {error}");
}

//! The features tensorrt-static and ort-static, linked with stand-in archives that are made here. The crate is compiled again for
//! each: `scripts/test-extended` runs it, `cargo test` does not.
mod common;
mod standin;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::root;
use standin::{CALLS, Installed};
use tickrt::Flavour;

const BUILDS_AGAIN: &str = "target/static-link";

/// An ONNX Runtime of which two functions work: those that tell the providers.
fn onnx_runtime(folder: &Path) {
    let place = |offset: usize| offset / size_of::<usize>();
    let functions = place(size_of::<ort::sys::OrtApi>());
    // Rust takes no function for null.
    let mut table = format!("[0 ... {}] = unexpected, ", functions - 1);
    for (name, offset) in [
        ("get_providers", std::mem::offset_of!(ort::sys::OrtApi, GetAvailableProviders)),
        ("release_providers", std::mem::offset_of!(ort::sys::OrtApi, ReleaseAvailableProviders)),
    ] {
        write!(table, "[{}] = {name}, ", place(offset)).unwrap();
    }
    let source = format!(
        "#include <stdlib.h>
         static void *unexpected(void) {{ abort(); }}
         static char *names[] = {{(char *)\"StandInProvider\"}};
         static void *get_providers(char ***list, int *count) {{ *list = names; *count = 1; return 0; }}
         static void *release_providers(char **list, int count) {{ (void)list; (void)count; return 0; }}
         static void *const table[{functions}] = {{{table}}};
         static const char *version(void) {{ return \"1.22.0\"; }}
         static const void *api(unsigned wanted) {{ return wanted <= 22 ? table : 0; }}
         static const struct {{ const void *(*api)(unsigned); const char *(*version)(void); }} base = {{api, version}};
         const void *OrtGetApiBase(void) {{ return &base; }}"
    );
    let (file, object) = (folder.join("ort.c"), folder.join("ort.o"));
    std::fs::write(&file, source).unwrap();
    standin::succeed(Command::new("cc").args(["-c", "-w", "-fPIC", "-o"]).arg(&object).arg(&file));
    standin::archive(&folder.join("libonnxruntime.a"), &object);
}

/// Compiles the program, and returns it with what cargo said.
fn build(variables: &[(&str, &Path)]) -> (PathBuf, String) {
    let target = root().join(BUILDS_AGAIN);
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--locked", "--features", "tensorrt-static,ort-static", "--manifest-path"]);
    cargo.arg(root().join("tests/static_link/Cargo.toml")).arg("--target-dir").arg(&target);
    for variable in ["TENSORRT_ROOT", "TICKRT_TRT8_INCLUDE", "ORT_LIB_PATH", "CUDA_HOME"] {
        cargo.env_remove(variable);
    }
    // Nothing but what is linked in: one flavour compiles in less time than four.
    cargo.env("TICKRT_SDK", "/nonexistent").envs(variables.iter().copied());
    let output = cargo.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    (target.join("debug/tickrt-static-link"), said)
}

fn run(program: &Path, variables: &[(&str, &Path)]) -> String {
    let mut command = Command::new(program);
    for variable in ["TENSORRT_ROOT", "TICKRT_TENSORRT", "TICKRT_SDK", "ORT_DYLIB_PATH", "LD_LIBRARY_PATH"] {
        command.env_remove(variable);
    }
    let output = command.arg(common::model("toy_cnn.onnx")).envs(variables.iter().copied()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn says(said: &str, parts: &[&str]) {
    parts.iter().for_each(|part| assert!(said.contains(part), "`{part}` is not in: {said}"));
}

#[test]
#[ignore = "compiles the crate again, several times"]
fn archives_are_linked_in_and_used_and_their_absence_is_told() {
    let with_archives = [Flavour::Trt8, Flavour::Trt10];
    for flavour in standin::flavours().into_iter().filter(|flavour| with_archives.contains(flavour)) {
        let folder = tempfile::tempdir().unwrap();
        Installed::archives(flavour, folder.path());
        onnx_runtime(folder.path());
        let (program, said) = build(&[("TENSORRT_ROOT", folder.path()), ("ORT_LIB_PATH", folder.path())]);
        assert!(!said.contains("linked in"), "nothing is left out: {said}");

        let calls = folder.path().join("calls");
        let printed = run(&program, &[(CALLS, &calls)]);
        let version = flavour.headers().unwrap();
        let itself = program.canonicalize().unwrap();
        let survey = format!("{flavour} (linked in) Ok(\"{}\")", version.number());
        assert_eq!(printed.lines().filter(|line| line.contains("(linked in)")).collect::<Vec<_>>(), [survey]);
        says(&printed, &[&format!("tensorrt {version} of "), "smoke Ok(64)", "parsed Ok(64)"]);
        says(
            &printed,
            &["onnxruntime 1.22.0 of ", "has true false", "another onnxruntime: load ONNX Runtime: expected the"],
        );
        let of_itself = printed.lines().filter_map(|line| line.split_once(" of ")).map(|(_, path)| path);
        let of_itself: Vec<_> = of_itself.map(|path| Path::new(path).canonicalize().unwrap()).collect();
        assert_eq!(of_itself, [itself.clone(), itself]);
        let calls = std::fs::read_to_string(calls).unwrap();
        says(&calls, &["createInferBuilder of the headers' version", "createNvOnnxParser of the headers' version"]);

        // What is linked in is the one ONNX Runtime of the process.
        let printed = run(&program, &[("ORT_DYLIB_PATH", Path::new("/other/libonnxruntime.so"))]);
        says(
            &printed,
            &["no onnxruntime", "expected the ONNX Runtime that is linked in, got /other/libonnxruntime.so"],
        );
    }
    let (program, said) = build(&[]);
    says(&said, &["TensorRT linked in (tensorrt-static): TENSORRT_ROOT is not set", "ORT_LIB_PATH is not set"]);
    says(&run(&program, &[]), &["no tensorrt: ", "no onnxruntime: "]);
    let empty = tempfile::tempdir().unwrap();
    let (_, said) = build(&[("TENSORRT_ROOT", empty.path()), ("ORT_LIB_PATH", empty.path())]);
    says(&said, &["has no headers of a TensorRT that is known", "libonnxruntime.a is not there"]);
}

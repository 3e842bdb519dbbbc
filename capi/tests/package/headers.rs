//! Every header compiles alone, and says what the library does.

use std::collections::BTreeMap;
use std::process::Command;

use crate::support::{WARNINGS, capi, has, run};

fn headers(ending: &str) -> Vec<String> {
    let folder = capi().join("include/tickrt").read_dir().unwrap();
    let mut names: Vec<String> = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name.ends_with(ending));
    names.sort();
    assert!(names.len() >= 8, "{names:?}");
    names
}

/// One file that includes the header twice, compiled to nothing, with warnings as errors.
fn compile(compiler: &str, language: &str, standard: &str, header: &str, more: &[&str]) {
    let source = std::env::temp_dir().join(format!("tickrt-{}-{compiler}-{language}-{header}.src", std::process::id()));
    std::fs::write(&source, format!("#include <tickrt/{header}>\n#include <tickrt/{header}>\nint used;\n")).unwrap();
    let mut command = Command::new(compiler);
    command.args([&format!("-std={standard}"), "-fsyntax-only", "-Wshadow", "-x", language]).args(WARNINGS).args(more);
    run(command.arg("-I").arg(capi().join("include")).arg(&source));
    std::fs::remove_file(source).unwrap();
}

#[test]
fn c_header_alone_compiles_as_c11_and_as_cpp17() {
    for compilers in [["gcc", "g++"], ["clang", "clang++"]] {
        if compilers.into_iter().all(has) {
            for header in headers(".h") {
                compile(compilers[0], "c", "c11", &header, &["-Wstrict-prototypes"]);
                compile(compilers[1], "c++", "c++17", &header, &[]);
            }
        }
    }
}

#[test]
fn cpp_header_alone_compiles_with_and_without_exceptions() {
    for compiler in ["g++", "clang++"].into_iter().filter(|compiler| has(compiler)) {
        for header in headers(".hpp") {
            compile(compiler, "c++", "c++17", &header, &[]);
            compile(compiler, "c++", "c++20", &header, &["-fno-exceptions", "-fno-rtti"]);
        }
    }
}

#[test]
fn codes_in_the_header_are_those_of_the_library() {
    let text = std::fs::read_to_string(capi().join("include/tickrt/error.h")).unwrap();
    let numbers = text.lines().filter_map(|line| {
        let (name, rest) = line.trim().split_once(" = ")?;
        let number = rest.split([',', ' ']).next()?.parse::<i32>().ok()?;
        Some((name.to_owned(), number))
    });
    let declared: BTreeMap<String, i32> = numbers.collect();
    let known: BTreeMap<String, i32> =
        tickrt_capi::CODES.iter().map(|&(name, number)| (name.to_owned(), number)).collect();
    assert_eq!(declared, known);
}

#[test]
fn version_in_the_header_is_the_packages() {
    let text = std::fs::read_to_string(capi().join("include/tickrt/version.h")).unwrap();
    assert!(text.contains(&format!("#define TICKRT_VERSION \"{}\"", env!("CARGO_PKG_VERSION"))), "{text}");
}

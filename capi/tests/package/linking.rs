//! What the archives export, what they need, and that both package files lead to them.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::support::{archive, capi, has, link, made_in, pkg_config, prefix, run, words};

/// What the headers declare.
fn declared() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in capi().join("include/tickrt").read_dir().unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for (at, _) in text.match_indices("tickrt_").filter(|_| path.extension().is_some_and(|end| end == "h")) {
            let rest = &text[at..];
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            if rest[end..].starts_with('(') {
                found.insert(rest[..end].to_owned());
            }
        }
    }
    found
}

/// The names that nm lists.
fn names(arguments: &[&str], file: &Path) -> BTreeSet<String> {
    let listed = run(Command::new("nm").args(arguments).arg("--format=posix").arg(file));
    let symbols = listed.lines().filter(|line| line.split_whitespace().count() > 1);
    symbols.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn archive_and_shared_library_export_what_the_headers_declare_and_nothing_else() {
    let declared = declared();
    assert!(declared.len() > 80, "{declared:?}");
    let lib = prefix().join("lib");
    assert_eq!(names(&["--extern-only", "--defined-only"], &lib.join("libtickrt.a")), declared);
    assert_eq!(names(&["--dynamic", "--defined-only"], &lib.join("libtickrt.so")), declared);
}

/// The libraries of `ldd`, without their versions and places.
fn needed(program: &Path) -> BTreeSet<String> {
    let listed = run(Command::new("ldd").arg(program));
    let files = listed.lines().filter_map(|line| line.split_whitespace().next());
    let names = files.filter_map(|file| file.rsplit('/').next()?.split(".so").next().map(str::to_owned));
    names.filter(|name| name != "linux-vdso").collect()
}

#[test]
fn program_linked_statically_needs_the_systems_libraries_alone() {
    let program = link(&capi().join("examples/event_loop.cpp"), "g++", &[]);
    let allowed = BTreeSet::from(["libc", "libm", "libstdc++", "libgcc_s", "ld-linux-x86-64"].map(str::to_owned));
    let needed = needed(&program);
    assert!(needed.is_subset(&allowed) && needed.contains("libc"), "{needed:?}");
}

#[test]
fn link_flags_are_those_that_rust_and_the_cpp_runtime_ask_for() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("empty.rs");
    std::fs::write(&source, "").unwrap();
    // What a static library of nothing but Rust's standard library asks for.
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.args(["--crate-type=staticlib", "--print=native-static-libs", "--out-dir"]).arg(folder.path()).arg(source);
    let said = String::from_utf8(rustc.output().unwrap().stderr).unwrap();
    let asked = said.split("native-static-libs: ").nth(1).unwrap_or_else(|| panic!("{said}")).lines().next().unwrap();
    let mut expected: BTreeSet<String> = words(asked).into_iter().collect();
    expected.insert("-lstdc++".to_owned());
    let pinned: BTreeSet<String> =
        words(&std::fs::read_to_string(capi().join("link-flags")).unwrap()).into_iter().collect();
    assert_eq!(pinned, expected);
    let flags: BTreeSet<String> = pkg_config("tickrt", &["--libs"]).into_iter().collect();
    assert!(pinned.is_subset(&flags), "{flags:?}");
    for package in ["tickrt", "tickrt-shared"] {
        assert_eq!(pkg_config(package, &["--modversion"]), [env!("CARGO_PKG_VERSION")]);
    }
    let shared = pkg_config("tickrt-shared", &["--libs"]);
    let folder = Path::new(shared[0].strip_prefix("-L").unwrap());
    assert_eq!(folder.canonicalize().unwrap(), prefix().join("lib").canonicalize().unwrap());
    assert_eq!(shared[1..], ["-ltickrt"]);
}

#[test]
fn package_does_not_name_the_folder_that_it_was_made_in() {
    let made = made_in().display().to_string();
    assert!(!made_in().exists(), "it was moved: no test here finds anything there");
    let mut looked_at = 0;
    for folder in ["lib/pkgconfig", "lib/cmake/tickrt"] {
        for entry in prefix().join(folder).read_dir().unwrap() {
            let path = entry.unwrap().path();
            assert!(!std::fs::read_to_string(&path).unwrap().contains(&made), "{}", path.display());
            looked_at += 1;
        }
    }
    assert_eq!(looked_at, 4);
}

#[test]
fn two_libraries_made_with_cxx_live_in_one_program() {
    // The neighbour exports cxx's runtime: if ours did as well, one would be taken for both.
    let neighbour = archive("tickrt_neighbour");
    let exported = names(&["--extern-only", "--defined-only", "--quiet"], &neighbour);
    assert!(exported.iter().any(|name| name.starts_with("cxxbridge1$")), "the neighbour is made with cxx");
    for order in [[1, 0], [0, 1]] {
        let libraries = [neighbour.clone(), prefix().join("lib/libtickrt.a")];
        let program = link(&capi().join("examples/neighbours.c"), "gcc", &order.map(|place| libraries[place].clone()));
        assert_eq!(run(&mut Command::new(program)), format!("tickrt {}, neighbour 5\n", env!("CARGO_PKG_VERSION")));
    }
}

#[test]
fn cmake_finds_the_package_and_links_both_libraries() {
    if !has("cmake") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let project = format!(
        "cmake_minimum_required(VERSION 3.16)\nproject(user C)\nfind_package(tickrt {} REQUIRED)\n\
         add_executable(static main.c)\ntarget_link_libraries(static tickrt::static)\n\
         add_executable(shared main.c)\ntarget_link_libraries(shared tickrt::shared)\n",
        env!("CARGO_PKG_VERSION")
    );
    let main =
        "#include <stdio.h>\n#include <tickrt/tickrt.h>\nint main(void) { return puts(tickrt_version()) < 0; }\n";
    std::fs::write(folder.path().join("CMakeLists.txt"), project).unwrap();
    std::fs::write(folder.path().join("main.c"), main).unwrap();
    let build = folder.path().join("build");
    let mut configure = Command::new("cmake");
    configure.arg("-S").arg(folder.path()).arg("-B").arg(&build);
    run(configure.arg(format!("-DCMAKE_PREFIX_PATH={}", prefix().display())));
    run(Command::new("cmake").arg("--build").arg(&build));
    for (program, shared) in [("static", false), ("shared", true)] {
        let program = build.join(program);
        assert_eq!(run(&mut Command::new(&program)).trim(), env!("CARGO_PKG_VERSION"));
        assert_eq!(needed(&program).contains("libtickrt"), shared);
    }
}

//! The package, made once of the archive that cargo has just built, and running compilers.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

pub const WARNINGS: [&str; 4] = ["-Wall", "-Wextra", "-Werror", "-pedantic"];

/// The folder `capi`.
pub fn capi() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

pub fn model(name: &str) -> String {
    capi().join("../models").join(name).display().to_string()
}

/// What `capi/package` installs, moved to a folder that stays: a run overwrites the last one's.
pub fn prefix() -> &'static Path {
    static PREFIX: LazyLock<PathBuf> = LazyLock::new(|| {
        let (made, moved) = (made_in(), PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("package"));
        let mut package = Command::new(capi().join("package"));
        run(package.arg(&made).arg(archive("tickrt_capi")).env("TICKRT_STRIP_DEBUG", "1"));
        if moved.exists() {
            std::fs::remove_dir_all(&moved).unwrap();
        }
        std::fs::rename(made, &moved).unwrap();
        moved
    });
    &PREFIX
}

/// Where it was installed before it was moved.
pub fn made_in() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("package-made")
}

/// The static library that cargo made of a package of this workspace, for this very test or for all.
pub fn archive(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let made = test.parent().unwrap().read_dir().unwrap().flatten().filter(|entry| {
        let file = entry.file_name().into_string().unwrap_or_default();
        file.starts_with(&format!("lib{name}-")) && file.ends_with(".a")
    });
    let age =
        |entry: &std::fs::DirEntry| entry.metadata().and_then(|data| data.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    made.max_by_key(age).unwrap_or_else(|| panic!("lib{name}-*.a beside {}", test.display())).path()
}

/// Runs a command that must succeed; its standard output.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{stdout}{stderr}");
    stdout
}

/// Whether a tool is on this machine. gcc and g++ are what the build needs anyway.
pub fn has(tool: &str) -> bool {
    let there = Command::new(tool).arg("--version").output().is_ok_and(|ran| ran.status.success());
    if !there {
        eprintln!("skipped: no {tool} on this machine");
    }
    there
}

/// The words of a file or of a command's output.
pub fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// Compiles and links `source` against the archive, as pkg-config says it, and gives the program's path.
pub fn link(source: &Path, compiler: &str, more: &[PathBuf]) -> PathBuf {
    // Several tests link the same program, at once.
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let name = format!("{}-{}", source.file_stem().unwrap().display(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let program = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let flags = pkg_config("tickrt", &["--cflags", "--libs"]);
    let standard = if compiler == "gcc" { "-std=c11" } else { "-std=c++17" };
    let mut command = Command::new(compiler);
    command.args([standard, "-O1"]).args(WARNINGS).arg(source).args(more).arg("-o").arg(&program);
    run(command.arg("-Wl,--as-needed,--gc-sections").args(flags));
    program
}

pub fn pkg_config(package: &str, arguments: &[&str]) -> Vec<String> {
    let mut command = Command::new("pkg-config");
    command.env("PKG_CONFIG_PATH", prefix().join("lib/pkgconfig")).args(arguments).arg(package);
    words(&run(&mut command))
}

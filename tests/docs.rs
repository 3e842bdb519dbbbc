//! The book in docs/, and README.md: its commands run, its links lead somewhere, its C++ compiles, its records are there. (Its Rust is compiled by
//! rustdoc, from the end of src/lib.rs.)
//!
//! A command's block is marked by what it needs:
//!
//! | fence | runs |
//! | --- | --- |
//! | `sh` | always |
//! | `sh,gpu` | where a GPU is; elsewhere, too, and may then end with 3, which says what is lacking |
//! | `sh,slow` | with `TICKRT_DOCS=all`, as scripts/test-extended sets: it compiles or fetches |
//! | `sh,torch` | where Python has PyTorch |
//! | `sh,curl` | where curl is |
//! | `sh,container`, `sh,root` | never here: it needs a container engine, or changes the machine |
//! | `sh,tests` | never here: it runs these tests |
//!
//! In README.md a blank stands for the comma: GitHub colours what it knows by the first word.
//!
//! All of a chapter's blocks run in one shell, in a folder of its own that looks like the repository's. Every block is parsed by the
//! shell, and every flag of `tickrt` in it must be one, whether it runs or not. Port
//! 9464 is another one here, that is free.
#![cfg(feature = "tool")]

use std::collections::BTreeSet;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const FENCES: [&str; 11] =
    ["sh", "sh,gpu", "sh,slow", "sh,torch", "sh,curl", "sh,container", "sh,root", "sh,tests", "text", "cpp", "cmake"];
/// That of metrics, as the book writes it.
const PORT: &str = "9464";

fn root() -> PathBuf {
    env::var_os("TICKRT_TEST_ROOT").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

fn tool() -> PathBuf {
    let built = option_env!("CARGO_BIN_EXE_tickrt").map(PathBuf::from);
    let tool = env::var_os("TICKRT_BIN").map(PathBuf::from).or(built).expect("TICKRT_BIN names the tool");
    tool.canonicalize().expect("the tool is there")
}

/// A fenced block.
struct Block {
    /// `docs/src/install.md:12`.
    place: String,
    fence: String,
    text: String,
}

struct Chapter {
    name: String,
    /// Without its blocks.
    prose: String,
    blocks: Vec<Block>,
}

/// The book's, without the list of them.
fn chapters() -> Vec<Chapter> {
    let folder = root().join("docs/src");
    let mut names: Vec<String> =
        folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name.ends_with(".md") && name != "SUMMARY.md");
    names.sort();
    names.iter().map(|name| chapter(&format!("docs/src/{name}"))).collect()
}

/// The book's chapters, and README.md.
fn chapters_and_readme() -> Vec<Chapter> {
    let mut all = chapters();
    all.push(chapter("README.md"));
    all
}

fn chapter(path: &str) -> Chapter {
    let text = fs::read_to_string(root().join(path)).unwrap();
    let name = path.rsplit('/').next().unwrap().to_owned();
    let mut chapter = Chapter { name, prose: String::new(), blocks: Vec::new() };
    let mut open: Option<Block> = None;
    for (number, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(fence), None) => {
                let (place, fence) = (format!("{path}:{}", number + 1), fence.replace(' ', ","));
                open = Some(Block { place, fence, text: String::new() });
            }
            (Some(_), Some(_)) => chapter.blocks.extend(open.take()),
            (None, Some(block)) => block.text += &format!("{line}\n"),
            (None, None) => chapter.prose += &format!("{line}\n"),
        }
    }
    assert!(open.is_none(), "{path}: a fence is not closed");
    chapter
}

/// A folder with everything of the repository's in it but what is built.
fn scratch() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in root().read_dir().unwrap().map(Result::unwrap).filter(|entry| entry.file_name() != "target") {
        symlink(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    folder
}

/// Other tests of this machine serve metrics, too.
fn free_port() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string()
}

fn output(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

fn has_gpu() -> bool {
    let (_, versions) = output(Command::new(tool()).arg("versions"));
    versions.lines().any(|line| line.trim_start().starts_with("gpu ") && !line.contains(" none:"))
}

/// What a shell gets: each block after its place, so that a failure names it.
fn shell_script(chapter: &Chapter, fences: &[&str], gpu: bool) -> String {
    let mut script = "set -euo pipefail\n".to_owned();
    for block in chapter.blocks.iter().filter(|block| fences.contains(&block.fence.as_str())) {
        writeln!(script, "echo '## {}' >&2", block.place).unwrap();
        if block.fence == "sh,gpu" {
            // Without a GPU, whatever the machine lacks is fine; what is wrong in the command is not. What doctor finds wrong is
            // the machine's.
            let lacking = if gpu { "0" } else { "0 | 3" };
            script += "(tickrt() { local code=0; command tickrt \"$@\" || code=$?\n";
            writeln!(script, "case $code in {lacking}) ;; 1) [ \"$1\" = doctor ] ;; *) return \"$code\" ;; esac; }}")
                .unwrap();
            writeln!(script, "{})", block.text).unwrap();
        } else {
            script += &block.text;
        }
    }
    script
}

#[test]
fn commands_run() {
    let sdk = env::var_os("TICKRT_SDK").map_or_else(|| root().join(".sdk"), PathBuf::from);
    let gpu = has_gpu();
    if !gpu && !sdk.join("lib/onnxruntime").exists() {
        assert!(env::var("TICKRT_REQUIRE_SDK").as_deref() != Ok("1"), "{} is not set up", sdk.display());
        eprintln!("skipped: run scripts/setup");
        return;
    }
    assert!(gpu || env::var("TRT_CI").as_deref() != Ok("1"), "TRT_CI=1, and no GPU");
    let mut fences = vec!["sh", "sh,gpu"];
    if env::var("TICKRT_DOCS").as_deref() == Ok("all") {
        fences.push("sh,slow");
    }
    if output(Command::new("python3").args(["-c", "import onnx, torch"])).0 {
        fences.push("sh,torch");
    }
    if Command::new("curl").arg("--version").output().is_ok_and(|ran| ran.status.success()) {
        fences.push("sh,curl");
    }
    let path = format!("{}:{}", tool().parent().unwrap().display(), env::var("PATH").unwrap());
    let mut ran = 0;
    for chapter in chapters_and_readme() {
        let (folder, port) = (scratch(), free_port());
        let mut shell = Command::new("bash");
        shell.arg("-c").arg(shell_script(&chapter, &fences, gpu).replace(PORT, &port)).current_dir(folder.path());
        shell.env("PATH", &path).env("TICKRT_SDK", &sdk).env("TICKRT_METRICS_PORT", &port).stdin(Stdio::null());
        // What is compiled goes where the repository's own goes, not into a folder that is thrown away.
        shell.env("CARGO_TARGET_DIR", root().join("target"));
        let (well, told) = output(&mut shell);
        let block = told.lines().rev().find_map(|line| line.strip_prefix("## ")).unwrap_or(&chapter.name);
        assert!(well, "{block}: {told}");
        ran += chapter.blocks.iter().filter(|block| fences.contains(&block.fence.as_str())).count();
    }
    assert!(ran > 15, "{ran} blocks ran");
}

#[test]
fn commands_parse_and_their_flags_are_flags() {
    for block in chapters_and_readme().into_iter().flat_map(|chapter| chapter.blocks) {
        let rust = block.fence.split(',').next() == Some("rust");
        assert!(rust || FENCES.contains(&block.fence.as_str()), "{}: {}", block.place, block.fence);
        if !block.fence.starts_with("sh") {
            continue;
        }
        let (well, told) = output(Command::new("bash").arg("-n").arg("-c").arg(&block.text));
        assert!(well, "{}: {told}", block.place);
        for line in block.text.replace("\\\n", " ").lines() {
            // What a container is to run is one as well.
            let quoted = line.strip_prefix("TICKRT_COMMAND=\"").and_then(|rest| rest.split('"').next());
            let mut words = quoted.unwrap_or(line).split_whitespace();
            if words.next() != Some("tickrt") {
                continue;
            }
            let command = words.next().unwrap();
            let (well, help) = output(Command::new(tool()).args([command, "--help"]));
            assert!(well, "{}: {help}", block.place);
            let known: BTreeSet<&str> =
                help.split(|letter: char| !letter.is_ascii_alphanumeric() && !"-_".contains(letter)).collect();
            for flag in words.filter(|word| word.starts_with("--")) {
                let flag = flag.split('=').next().unwrap();
                assert!(known.contains(flag), "{}: tickrt {command} has no {flag}", block.place);
            }
        }
    }
}

#[test]
fn chapters_with_rust_are_compiled() {
    let library = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs"));
    let Ok(library) = library else { return eprintln!("skipped: no sources beside the tests") };
    for chapter in chapters() {
        let rust = chapter.blocks.iter().any(|block| block.fence.starts_with("rust"));
        let compiled = library.contains(&format!("include_str!(\"../docs/src/{}\")", chapter.name));
        assert_eq!(rust, compiled, "{}: the end of src/lib.rs must name it", chapter.name);
    }
}

#[test]
fn cpp_compiles() {
    let include = root().join("capi/include");
    if !include.exists() {
        return eprintln!("skipped: no capi/ beside the tests");
    }
    let mut compiled = 0;
    for block in chapters().into_iter().flat_map(|chapter| chapter.blocks).filter(|block| block.fence == "cpp") {
        let mut compiler = Command::new("c++");
        compiler.args(["-std=c++17", "-Wall", "-Werror", "-fsyntax-only", "-x", "c++", "-I"]).arg(&include).arg("-");
        let mut child = compiler.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(block.text.as_bytes()).unwrap();
        let ended = child.wait_with_output().unwrap();
        assert!(ended.status.success(), "{}: {}", block.place, String::from_utf8_lossy(&ended.stderr));
        compiled += 1;
    }
    assert!(compiled > 0);
}

/// `## The second half` is `the-second-half`, as mdBook names it.
fn anchors(prose: &str) -> Vec<String> {
    let heading = |line: &str| {
        let text = line.strip_prefix('#')?.trim_start_matches('#').trim();
        let kept = text.chars().filter_map(|letter| match letter {
            ' ' => Some('-'),
            letter if letter.is_alphanumeric() || "-_".contains(letter) => Some(letter.to_ascii_lowercase()),
            _ => None,
        });
        Some(kept.collect())
    };
    prose.lines().filter_map(heading).collect()
}

/// The targets of `[text](target)`.
fn links(prose: &str) -> Vec<(&str, &str)> {
    let link = |(at, _): (usize, &str)| {
        let text = &prose[prose[..at].rfind('[')? + 1..at];
        Some((text, prose[at + 2..].split(')').next()?))
    };
    prose.match_indices("](").filter_map(link).collect()
}

#[test]
fn links_lead_somewhere_and_the_summary_has_every_chapter() {
    let chapters = chapters();
    for chapter in &chapters {
        for (_, target) in links(&chapter.prose).into_iter().filter(|(_, target)| !target.starts_with("https://")) {
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let to = chapters.iter().find(|other| other.name == if file.is_empty() { &chapter.name } else { file });
            let to = to.unwrap_or_else(|| panic!("{}: no chapter {target}", chapter.name));
            assert!(
                anchor.is_empty() || anchors(&to.prose).iter().any(|heading| heading == anchor),
                "{}: {target}",
                chapter.name
            );
        }
    }
    let summary = fs::read_to_string(root().join("docs/src/SUMMARY.md")).unwrap();
    let mut listed: Vec<(String, String)> =
        links(&summary).into_iter().map(|(title, file)| (file.to_owned(), title.to_owned())).collect();
    listed.sort();
    let title = |chapter: &Chapter| chapter.prose.lines().next().unwrap().strip_prefix("# ").unwrap().to_owned();
    let there: Vec<(String, String)> = chapters.iter().map(|chapter| (chapter.name.clone(), title(chapter))).collect();
    assert_eq!(listed, there, "each once, under its own title");
}

#[test]
fn readme_is_short_and_leads_to_what_is_there() {
    let (readme, book) = (chapter("README.md"), chapters());
    let lines = fs::read_to_string(root().join("README.md")).unwrap().lines().count();
    assert!(lines <= 120, "{lines} lines: the book has room");
    let mut followed = 0;
    for (_, target) in links(&readme.prose).into_iter().filter(|(_, target)| !target.starts_with("https://")) {
        let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
        // A bundle of tests has the book and the records, and no sources.
        let carried = file.starts_with("docs/") || file.starts_with("benches/");
        assert!((!carried && !root().join("src").exists()) || root().join(file).exists(), "README.md: {target}");
        let to = book.iter().find(|chapter| Path::new(file).file_name().is_some_and(|name| *name == *chapter.name));
        let known = |to: &Chapter| anchors(&to.prose).iter().any(|heading| heading == anchor);
        assert!(anchor.is_empty() || to.is_some_and(known), "README.md: {target}");
        followed += 1;
    }
    assert!(followed > 10, "{followed} links");
}

#[test]
fn figures_cite_records_that_are_there() {
    for chapter in chapters_and_readme() {
        let cited: Vec<&str> = chapter.prose.split('`').filter(|code| code.starts_with("benches/record/")).collect();
        assert!(
            !cited.is_empty() || !chapter.prose.contains("µs"),
            "{}: microseconds, and no record that they are from",
            chapter.name
        );
        for record in cited {
            assert!(root().join(record).exists(), "{}: {record}", chapter.name);
        }
    }
}

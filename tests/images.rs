//! Every script that an image of deploy/ is made with, and the check before a release, run in a folder of its own. No container
//! engine is needed; scripts/lint-deploy checks the Dockerfiles and the compose file themselves.
#![cfg(feature = "tool")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn script(name: &str) -> Command {
    Command::new(root().join("deploy").join(name))
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// An executable file.
fn executable(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Compiles a shared library; `links` are further arguments.
fn library(file: &Path, soname: &str, source: &str, links: &[&str]) {
    let code = file.with_extension("c");
    fs::write(&code, source).unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-o"]).arg(file).arg(&code).arg(format!("-Wl,-soname,{soname}")).args(links);
    assert!(cc.status().unwrap().success());
}

#[test]
fn dockerfiles_run_nothing_but_scripts_that_are_tested_here() {
    // scripts/test-extended runs `build`: it compiles the tool anew.
    let tested = ["install-packages", "collect-libraries", "build"];
    let mut run = 0;
    for file in ["Dockerfile", "Dockerfile.tensorrt"] {
        let text = fs::read_to_string(root().join("deploy").join(file)).unwrap();
        for line in text.lines().filter(|line| line.trim_start().to_ascii_uppercase().starts_with("RUN")) {
            let command = line.strip_prefix("RUN deploy/").unwrap_or_else(|| panic!("{file}: {line}"));
            let name = command.split_whitespace().next().unwrap();
            assert!(tested.contains(&name) && !command.contains(['&', ';', '|', '\\']), "{file}: {line}");
            let mode = fs::metadata(root().join("deploy").join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o111, 0o111, "{name} can be run");
            run += 1;
        }
    }
    assert_eq!(run, 4);
}

#[test]
fn packages_are_installed_and_their_index_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let (lists, log) = (folder.path().join("var/lib/apt/lists"), folder.path().join("log"));
    fs::create_dir_all(lists.join("partial")).unwrap();
    fs::write(lists.join("index"), b"").unwrap();
    executable(&folder.path().join("apt-get"), "#!/bin/sh\necho \"$@\" >> \"$ROOT/log\"\n[ \"$1\" != \"$FAILS\" ]\n");
    let run = |fails: &str| {
        let _ = fs::remove_file(&log);
        let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
        let run = script("install-packages").env("PATH", path).env("ROOT", folder.path()).env("FAILS", fails).output();
        (run.unwrap().status.success(), fs::read_to_string(&log).unwrap())
    };
    assert!(!run("install").0 && lists.join("index").exists());
    assert_eq!(run("update"), (false, "update -q\n".to_owned()), "nothing is installed from an old index");
    let (well, log) = run("");
    assert!(well && log.contains("--no-install-recommends build-essential"), "{log}");
    assert!(names(&lists).is_empty());
}

#[test]
fn installed_tool_finds_its_onnx_runtime_or_is_not_installed() {
    let tool = env!("CARGO_BIN_EXE_tickrt");
    let runtime = std::env::var_os("TICKRT_SDK").map_or_else(|| root().join(".sdk"), PathBuf::from);
    let runtime = runtime.join("lib/onnxruntime/libonnxruntime.so");
    let prefix = tempfile::tempdir().unwrap();
    if runtime.exists() {
        let output = script("install").arg(prefix.path()).arg(tool).env("ORT_DYLIB_PATH", &runtime).output().unwrap();
        assert!(output.status.success(), "{}", told(&output));
        assert_eq!(names(&prefix.path().join("bin")), ["healthcheck", "tickrt"]);
        assert_eq!(names(&prefix.path().join("lib")), ["libonnxruntime.so"]);
        assert!(prefix.path().join("share/doc/tickrt/LICENSE-MIT").exists());
        assert!(told(&output).contains(prefix.path().to_str().unwrap()), "{}", told(&output));
    } else {
        assert!(std::env::var("TICKRT_REQUIRE_SDK").as_deref() != Ok("1"), "{} is not there", runtime.display());
        eprintln!("skipped the good case: no ONNX Runtime");
    }
    let wrong = prefix.path().join("wrong.so");
    fs::write(&wrong, b"no library").unwrap();
    let output = script("install").arg(prefix.path()).arg(tool).env("ORT_DYLIB_PATH", &wrong).output().unwrap();
    assert!(!output.status.success() && told(&output).contains("does not find its ONNX Runtime"), "{}", told(&output));
}

#[test]
fn libraries_are_collected_with_what_they_need() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    fs::create_dir(&from).unwrap();
    library(&from.join("libneeded.so.1.2.3"), "libneeded.so.1", "int needed(void) { return 1; }", &[]);
    std::os::unix::fs::symlink("libneeded.so.1.2.3", from.join("libneeded.so.1")).unwrap();
    let needed = from.join("libneeded.so.1");
    for version in ["9", "10"] {
        let name = format!("libtickrt_test.so.{version}");
        let source = format!("int needed(void); int version(void) {{ return needed() * {version}; }}");
        library(&from.join(&name), &name, &source, &[needed.to_str().unwrap()]);
    }
    let collect =
        |name: &str| script("collect-libraries").arg(&to).arg(name).env("LD_LIBRARY_PATH", &from).output().unwrap();
    let output = collect("libtickrt_test.so");
    assert!(output.status.success(), "{}", told(&output));
    assert_eq!(names(&to), ["libneeded.so.1", "libtickrt_test.so.10"], "the highest, by its soname, and no libc");
    let unknown = collect("libabsent.so");
    assert!(!unknown.status.success() && told(&unknown).contains("libabsent.so: not found"), "{}", told(&unknown));
    fs::remove_file(&needed).unwrap();
    let lacking = collect("libtickrt_test.so");
    assert!(!lacking.status.success() && told(&lacking).contains("needs libneeded.so.1"), "{}", told(&lacking));
}

#[test]
fn health_is_that_the_metrics_answer() {
    let healthy = |port: u16| script("healthcheck").arg(port.to_string()).output().unwrap();
    let answers = |answer: &'static [u8]| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            stream.write_all(answer).unwrap();
            String::from_utf8(request).unwrap()
        });
        let output = healthy(port);
        (output.status.success(), told(&output), server.join().unwrap())
    };
    let (well, _, request) = answers(b"HTTP/1.1 200 OK\r\n\r\n# TYPE x counter\n");
    assert!(well && request.starts_with("GET /metrics HTTP/1.0\r\n"), "{request}");
    let (well, story, _) = answers(b"HTTP/1.1 503 Service Unavailable\r\n\r\n");
    assert!(!well && story.contains("503"), "{story}");
    assert!(!answers(b"SSH-2.0-OpenSSH\r\n").0);
    let (well, story, _) = answers(b"");
    assert!(!well && story.contains("does not answer"), "{story}");
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let output = healthy(free);
    assert!(!output.status.success() && told(&output).contains("nothing listens"), "{}", told(&output));
}

#[test]
fn compose_file_and_images_name_the_port_that_health_asks() {
    for file in ["Dockerfile", "docker-compose.gpu.yml", "healthcheck"] {
        let text = fs::read_to_string(root().join("deploy").join(file)).unwrap();
        assert!(text.contains("9464"), "{file}");
    }
}

/// The default of an input of a workflow.
fn default_of(workflow: &str, input: &str) -> String {
    let text = fs::read_to_string(root().join(".github/workflows").join(workflow)).unwrap();
    let rest =
        text.split(&format!("\n      {input}:\n")).nth(1).unwrap_or_else(|| panic!("{workflow}: no input {input}"));
    let own = rest.lines().take_while(|line| line.starts_with("        "));
    let default = own.filter_map(|line| line.trim().strip_prefix("default: ")).next();
    default.unwrap_or_else(|| panic!("{workflow}: {input} has no default")).trim_matches('"').to_owned()
}

#[test]
fn record_that_latency_is_held_against_is_the_newest_and_has_the_model() {
    let (record, model) = (default_of("tensorrt.yml", "record"), default_of("tensorrt.yml", "model"));
    let folder = Path::new(&record).parent().unwrap();
    let mut records = names(&root().join(folder));
    records.retain(|name| name.ends_with("-latency.jsonl"));
    assert_eq!(Some(record.as_str()), records.last().map(|name| folder.join(name)).as_deref().and_then(Path::to_str));
    let rows = fs::read_to_string(root().join(&record)).unwrap();
    let rows: Vec<serde_json::Value> = rows.lines().map(|row| serde_json::from_str(row).unwrap()).collect();
    let of_model = rows.iter().filter(|row| row["model"] == model.as_str());
    // A lead needs two.
    assert!(of_model.count() > 1, "{record} has no rows of {model}");
    assert!(root().join("models").join(model).with_extension("onnx").exists());
}

#[test]
fn release_by_hand_publishes_nothing() {
    let text = fs::read_to_string(root().join(".github/workflows/release.yml")).unwrap();
    let publish = text.split("\n  publish:\n").nth(1).unwrap();
    // Whoever starts it by hand may choose a tag: of what ref it is says nothing.
    assert!(publish.lines().any(|line| line.trim() == "if: github.event_name == 'push'"), "{publish}");
    assert!(!text.split("\n  publish:\n").next().unwrap().contains("publish "), "nothing is published before");
}

#[test]
fn changelog_begins_with_its_title_and_what_is_not_released() {
    let text = fs::read_to_string(root().join("CHANGELOG.md")).unwrap();
    assert!(text.starts_with("# Changelog\n\n## "), "{}", text.lines().take(3).collect::<Vec<_>>().join("\n"));
}

#[test]
fn release_is_of_the_version_that_packages_and_changelog_have() {
    let folder = tempfile::tempdir().unwrap();
    let write = |file: &str, text: &str| {
        fs::create_dir_all(folder.path().join("capi")).unwrap();
        fs::write(folder.path().join(file), text).unwrap();
    };
    let check = |tag: &str| {
        let script = root().join("scripts/release-check");
        let output = Command::new(script).arg(tag).env("TICKRT_ROOT", folder.path()).output().unwrap();
        (output.status.success(), told(&output))
    };
    for manifest in ["Cargo.toml", "capi/Cargo.toml"] {
        write(manifest, "[package]\nversion = \"1.2.3\"\n[dependencies]\nx = { version = \"9\" }\n");
    }
    write("CHANGELOG.md", "# Changelog\n\n## Unreleased\n\n- new\n\n## 1.2.3\n\n- of it\n\n## 1.2.2\n\n- old\n");
    let (well, notes) = check("v1.2.3");
    assert!(well && notes.contains("of it") && !notes.contains("new") && !notes.contains("old"), "{notes}");
    let (well, story) = check("v1.2.4");
    assert!(!well && story.contains("expected version 1.2.4, got 1.2.3"), "{story}");
    write("CHANGELOG.md", "# Changelog\n\n## Unreleased\n\n- new\n");
    assert!(check("v1.2.3").1.contains("expected a section"));
    write("capi/Cargo.toml", "[package]\nversion = \"1.2.2\"\n");
    assert!(check("v1.2.3").1.contains("capi/Cargo.toml: expected version 1.2.3, got 1.2.2"));
}

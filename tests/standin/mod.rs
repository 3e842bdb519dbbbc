//! Stand-in libraries, compiled in the test: TensorRT of each flavour from the headers that the crate itself was compiled with,
//! libcuda and libvulkan. They write down what is asked of them, one call a line, and compute nothing; but libcuda plays the
//! kernel of a resident engine.
#![allow(dead_code)] // each test binary uses a part

mod headers;

use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

use tempfile::TempDir;
use tickrt::Flavour;

use crate::common::root;

/// Names the file that the calls are written to.
pub const CALLS: &str = "TICKRT_STANDIN_CALLS";
/// What the stand-in TensorRT says of its version, as a number: 8601.
pub const VERSION: &str = "TICKRT_STANDIN_VERSION";
/// Names the step that the stand-in TensorRT is to fail in.
pub const FAIL: &str = "TICKRT_STANDIN_FAIL";
/// What the stand-in Vulkan lacks: see vulkan.c.
pub const VULKAN: &str = "TICKRT_STANDIN_VULKAN";
/// Names the file that, once it is there, has a resident engine's kernel answer wrongly.
pub const SPOILED: &str = "TICKRT_STANDIN_SPOILED";
/// Names the stand-in libcuda.
const CUDA: &str = "TICKRT_STANDIN_CUDA";

/// The headers that the crate was compiled with for a flavour.
pub fn headers(flavour: Flavour) -> Option<PathBuf> {
    let folder = match flavour {
        Flavour::Trt8 => option_env!("TICKRT_HEADERS_TRT8"),
        Flavour::Trt10 => option_env!("TICKRT_HEADERS_TRT10"),
        Flavour::Trt11 => option_env!("TICKRT_HEADERS_TRT11"),
        Flavour::Rtx => option_env!("TICKRT_HEADERS_RTX"),
    };
    folder.map(PathBuf::from).filter(|folder| folder.join("NvInfer.h").exists())
}

/// The flavours that can be stood in for here. The others are named: 8.6's headers are in no registry.
pub fn flavours() -> Vec<Flavour> {
    let (there, missing): (Vec<_>, Vec<_>) = Flavour::ALL.into_iter().partition(|&flavour| headers(flavour).is_some());
    for flavour in missing {
        assert!(flavour == Flavour::Trt8 || !must_be_set_up(), "{flavour}'s headers were not there for the build");
        eprintln!("skipped: {flavour}, whose headers were not there for the build");
    }
    there
}

/// Whether everything that `scripts/setup` fetches has to be there.
pub fn must_be_set_up() -> bool {
    std::env::var_os("TICKRT_REQUIRE_SDK").is_some_and(|value| value == "1")
}

/// The first of [`flavours`], where any will do.
pub fn any_flavour() -> Option<Flavour> {
    flavours().into_iter().next()
}

fn parser_soname(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Trt8 => "libnvonnxparser.so.8",
        Flavour::Trt10 => "libnvonnxparser.so.10",
        Flavour::Trt11 => "libnvonnxparser.so.11",
        Flavour::Rtx => "libtensorrt_onnxparser_rtx.so.1",
    }
}

/// What the libraries export.
const LIBRARY: [&str; 3] = ["getInferLibVersion", "createInferBuilder_INTERNAL", "createInferRuntime_INTERNAL"];
const PARSER: [&str; 1] = ["createNvOnnxParser_INTERNAL"];

/// A folder with stand-in libraries.
pub struct Installed {
    folder: TempDir,
    flavour: Flavour,
}

impl Installed {
    /// TensorRT and its parser.
    pub fn whole(flavour: Flavour) -> Self {
        Self::without(flavour, "")
    }

    /// As [`whole`](Self::whole), without one of the exported functions.
    pub fn without(flavour: Flavour, function: &str) -> Self {
        let (folder, objects) = (tempfile::tempdir().unwrap(), objects(flavour));
        let link = |object: &str, functions: &[&str], library: &str| {
            let kept: String =
                functions.iter().filter(|&&name| name != function).map(|name| format!("{name};")).collect();
            let global = if kept.is_empty() { String::new() } else { format!("global: {kept}") };
            let script = folder.path().join("exported");
            fs::write(&script, format!("{{ {global} local: *; }};")).unwrap();
            let mut compiler = Command::new("c++");
            compiler.arg("-shared").arg(format!("-Wl,--version-script={}", script.display()));
            succeed(compiler.arg("-o").arg(folder.path().join(library)).arg(objects.join(object)));
        };
        link("tensorrt.o", &LIBRARY, flavour.soname());
        link("parser.o", &PARSER, parser_soname(flavour));
        Self { folder, flavour }
    }

    /// Without the parser's library.
    pub fn without_parser(self) -> Self {
        fs::remove_file(self.folder.path().join(parser_soname(self.flavour))).unwrap();
        self
    }

    pub fn library(&self) -> PathBuf {
        self.folder.path().join(self.flavour.soname())
    }

    /// An installation in `folder` as NVIDIA's with archives: `include` and `lib`.
    pub fn archives(flavour: Flavour, folder: &Path) {
        std::os::unix::fs::symlink(headers(flavour).expect("checked by `flavours`"), folder.join("include")).unwrap();
        let (lib, objects) = (folder.join("lib"), objects(flavour));
        fs::create_dir(&lib).unwrap();
        archive(&lib.join("libnvinfer_static.a"), &objects.join("tensorrt.o"));
        archive(&lib.join("libnvonnxparser_static.a"), &objects.join("parser.o"));
    }
}

/// The compiled stand-ins, by place in [`Flavour::ALL`]: compiled once, and removed when the process ends.
static OBJECTS: Mutex<[Option<TempDir>; 4]> = Mutex::new([const { None }; 4]);

extern "C" fn remove_objects() {
    OBJECTS.lock().unwrap_or_else(PoisonError::into_inner).iter_mut().for_each(|folder| *folder = None);
}

/// The folder with tensorrt.o and parser.o of a flavour.
fn objects(flavour: Flavour) -> PathBuf {
    let place = Flavour::ALL.iter().position(|&known| known == flavour).unwrap();
    let mut objects = OBJECTS.lock().unwrap_or_else(PoisonError::into_inner);
    if objects.iter().all(Option::is_none) {
        // SAFETY: a function that takes nothing and lives as long as the process.
        assert_eq!(unsafe { libc::atexit(remove_objects) }, 0);
    }
    objects[place].get_or_insert_with(|| compile(flavour)).path().to_path_buf()
}

fn compile(flavour: Flavour) -> TempDir {
    let (folder, headers) = (tempfile::tempdir().unwrap(), headers(flavour).expect("checked by `flavours`"));
    let compiler = || {
        let mut compiler = Command::new("c++");
        compiler.args(["-std=c++17", "-w", "-fPIC", "-fvisibility=hidden", "-fno-gnu-unique"]);
        let own = ["cpp/standin", "tests/standin"].map(|folder| root().join(folder));
        for folder in [&headers, &own[0], &own[1], folder.path()] {
            compiler.arg("-I").arg(folder);
        }
        compiler
    };
    for (name, header, namespace, classes) in [
        ("tensorrt", "NvInferImpl.h", "apiv", &headers::LIBRARY[..]),
        ("parser", "NvOnnxParser.h", "nvonnxparser", &headers::PARSER),
    ] {
        let preprocessed = succeed(compiler().args(["-E", "-P"]).arg(headers.join(header)));
        let noted = headers::noted(&String::from_utf8_lossy(&preprocessed), namespace, classes);
        fs::write(folder.path().join("noted.inc"), noted).unwrap();
        let source = root().join("tests/standin").join(name).with_extension("cc");
        succeed(compiler().arg("-c").arg("-o").arg(folder.path().join(name).with_extension("o")).arg(source));
    }
    folder
}

/// Makes an archive of one object.
pub fn archive(archive: &Path, object: &Path) {
    succeed(Command::new("ar").arg("rcs").arg(archive).arg(object));
}

/// A stand-in libcuda that lacks some functions.
pub fn cuda(folder: &Path, without: &[&str]) -> PathBuf {
    let library = folder.join(format!("libcuda-{}.so", without.len()));
    let mut compiler = c_compiler();
    // cudarc opens `libcuda.so`: the linker takes what is loaded under this name already.
    compiler.arg("-Wl,-soname,libcuda.so").args(without.iter().map(|name| format!("-DWITHOUT_{name}")));
    succeed(compiler.arg("-o").arg(&library).arg(root().join("tests/standin/cuda.c")));
    library
}

/// A stand-in Vulkan: the loader and the driver in one.
fn vulkan(folder: &Path) {
    let mut compiler = c_compiler();
    compiler.arg("-o").arg(folder.join("libvulkan.so.1"));
    succeed(compiler.arg(root().join("tests/standin/vulkan.c")));
}

fn c_compiler() -> Command {
    let mut compiler = Command::new("cc");
    compiler.args(["-std=gnu11", "-shared", "-fPIC", "-pthread", "-Wall", "-Wextra", "-Werror"]);
    compiler
}

/// What the command prints, after it has succeeded.
#[track_caller]
pub fn succeed(command: &mut Command) -> Vec<u8> {
    let Output { status, stdout, stderr } = command.output().expect("a compiler");
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    stdout
}

/// Runs one ignored test of this program in a process of its own, and returns the calls that its stand-ins saw.
pub struct Child {
    command: Command,
    folder: TempDir,
}

impl Child {
    pub fn new(test: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let folder = tempfile::tempdir().unwrap();
        command.args(["--ignored", "--exact", test, "--nocapture"]).env(CALLS, folder.path().join("calls"));
        for variable in ["TENSORRT_ROOT", "TICKRT_TENSORRT", VERSION, FAIL, CUDA, VULKAN, SPOILED] {
            command.env_remove(variable);
        }
        Self { command, folder }
    }

    pub fn on(mut self, installed: &Installed) -> Self {
        self.command.env("TICKRT_TENSORRT", installed.library());
        self
    }

    pub fn with_cuda(mut self, without: &[&str]) -> Self {
        let library = cuda(self.folder.path(), without);
        self.command.env(CUDA, library);
        self
    }

    /// Where the loader looks first.
    pub fn with_vulkan(mut self) -> Self {
        vulkan(self.folder.path());
        let before = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
        let folders = std::iter::once(self.folder.path().to_path_buf()).chain(std::env::split_paths(&before));
        self.command.env("LD_LIBRARY_PATH", std::env::join_paths(folders).unwrap());
        self
    }

    pub fn with(mut self, variable: &str, value: &str) -> Self {
        self.command.env(variable, value);
        self
    }

    /// What the stand-ins were asked.
    #[track_caller]
    pub fn calls(self) -> Vec<String> {
        self.run().0
    }

    /// What it printed.
    #[track_caller]
    pub fn said(self) -> String {
        self.run().1
    }

    /// Both, after the test has passed.
    #[track_caller]
    pub fn run(mut self) -> (Vec<String>, String) {
        let output = self.command.output().unwrap();
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
        let calls = fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default();
        (calls.lines().map(str::to_owned).collect(), said)
    }
}

/// In a child: has the stand-in libcuda in the place of the machine's own.
pub fn load_cuda() {
    let path = CString::new(std::env::var(CUDA).expect("set by `with_cuda`")).unwrap();
    // SAFETY: a valid string, and a library whose constructors do nothing.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    assert!(!handle.is_null());
}

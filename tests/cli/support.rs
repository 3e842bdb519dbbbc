//! Runs the tool in a folder of its own and looks at what it leaves.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;
use tickrt::data::{Array, Values};

/// Where the repository's files lie.
pub fn root() -> PathBuf {
    env::var_os("TICKRT_TEST_ROOT").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

/// A file of `models/`.
pub fn model(name: &str) -> String {
    root().join("models").join(name).display().to_string()
}

/// How a run of the tool ended.
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// The run's exit code must be `code`, and its story must have all of `parts`.
    #[track_caller]
    pub fn must(&self, code: i32, parts: &[&str]) -> &Self {
        assert_eq!(self.code, Some(code), "{}{}", self.stdout, self.stderr);
        for part in parts {
            let said = if code == 0 { &self.stdout } else { &self.stderr };
            assert!(said.contains(part), "`{part}` is not in: {said}");
        }
        if code != 0 {
            assert!(self.stderr.contains("error: "), "{}", self.stderr);
        }
        for sign in ["panicked", "RUST_BACKTRACE", "tickrt itself failed"] {
            assert!(!self.stderr.contains(sign), "{}", self.stderr);
        }
        self
    }
}

/// The tool, about to run in a folder of its own.
pub struct Tool {
    pub folder: TempDir,
    variables: Vec<(String, String)>,
}

impl Tool {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), variables: Vec::new() }
    }

    /// Sets an environment variable for the runs to come.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// On a machine with a GPU as well, CUDA then sees none.
    pub fn without_gpu(self) -> Self {
        self.with("CUDA_VISIBLE_DEVICES", "")
    }

    pub fn command(&self, arguments: &[impl AsRef<OsStr>]) -> Command {
        let built = option_env!("CARGO_BIN_EXE_tickrt").map(PathBuf::from);
        let tool = env::var_os("TICKRT_BIN").map(PathBuf::from).or(built).expect("TICKRT_BIN names the tool");
        let tool = tool.canonicalize().expect("the tool is there");
        let mut command = Command::new(tool);
        command.args(arguments).current_dir(self.folder.path());
        if env::var_os("TICKRT_SDK").is_none() {
            command.env("TICKRT_SDK", root().join(".sdk"));
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    pub fn run(&self, arguments: &[impl AsRef<OsStr>]) -> Ended {
        let Output { status, stdout, stderr } = self.command(arguments).output().expect("the tool starts");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ended { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file into the folder.
    pub fn file(&self, name: &str, bytes: &[u8]) -> String {
        std::fs::write(self.path(name), bytes).unwrap();
        name.to_owned()
    }

    /// Writes an array into the folder.
    pub fn array(&self, name: &str, shape: &[usize], values: Values) -> String {
        Array::new(shape, values).unwrap().write_npy(self.path(name)).unwrap();
        name.to_owned()
    }

    /// The names in the folder, in order.
    pub fn left(&self) -> Vec<String> {
        let mut names: Vec<String> = entries(self.folder.path());
        names.sort();
        names
    }

    /// Builds an engine of `name`, with its normalisation; none where this machine can build none.
    pub fn engine(&self, name: &str, more: &[&str]) -> Option<String> {
        let (engine, onnx) = (format!("{name}.engine"), model(&format!("{name}.onnx")));
        let normalization = model(&format!("{name}.normalization.json"));
        let mut arguments = vec!["build", "--onnx", &onnx, "--engine", &engine, "--normalization", &normalization];
        arguments.extend(more);
        let ended = self.run(&arguments);
        if left_out(&ended) {
            return None;
        }
        ended.must(0, &[]);
        Some(engine)
    }

    /// The arguments that run toy_cnn on ONNX Runtime's CPU; none where there is no ONNX Runtime.
    pub fn on_cpu(&self) -> Option<Vec<String>> {
        let arguments = [
            "--onnx",
            &model("toy_cnn.onnx"),
            "--chain",
            "ort-cpu",
            "--normalization",
            &model("toy_cnn.normalization.json"),
        ]
        .map(str::to_owned);
        let ended = self.run(&[&["validate".to_owned(), "--samples=1".to_owned()][..], &arguments].concat());
        (!left_out(&ended)).then(|| arguments.to_vec())
    }
}

/// Whether the environment lacks what the test is about. With `TRT_CI=1` that is a failure.
pub fn left_out(ended: &Ended) -> bool {
    let lacks = ended.code == Some(3);
    if lacks {
        assert!(env::var("TRT_CI").as_deref() != Ok("1"), "{}", ended.stderr);
        eprintln!("skipped: {}", ended.stderr);
    }
    lacks
}

fn entries(folder: &Path) -> Vec<String> {
    folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// A model of one node, f32 [1, 8] to f32 [1, 8], in ONNX's protobuf.
pub fn one_node(operator: &str) -> Vec<u8> {
    let field = |number: u8, bytes: &[u8]| [&[number << 3 | 2, bytes.len() as u8], bytes].concat();
    let number = |field: u8, value: u8| vec![field << 3, value];
    let dimensions = [1, 8].map(|size| field(1, &number(1, size))).concat();
    let tensor = field(1, &[number(1, 1), field(2, &dimensions)].concat());
    let value = |name: &str| [field(1, name.as_bytes()), field(2, &tensor)].concat();
    let node = [field(1, b"x"), field(2, b"y"), field(3, b"the_node"), field(4, operator.as_bytes())].concat();
    let graph = [field(1, &node), field(2, b"graph"), field(11, &value("x")), field(12, &value("y"))].concat();
    [number(1, 8), field(7, &graph), field(8, &number(2, 17))].concat()
}

//! How a run ends: the exit codes, in one place, and the one message on stderr.

use std::process::ExitCode;

use tickrt::{Error, ErrorKind};

/// Shown at the end of `tickrt --help`.
pub const HELP: &str = "\
Exit codes:
    0  fine
    1  the check failed: an answer is wrong, NaN or out of range
    2  wrong use: an argument or a file that cannot be, or that does not fit the others
    3  the environment lacks something: a GPU, a library, a version that can do it, memory
    4  the device failed: a fault of the GPU, an error of CUDA, no answer in time
  130  stopped by Ctrl-C

Environment:
  TENSORRT_ROOT   a TensorRT installation, searched first
  TICKRT_TENSORRT which TensorRT, in which order: trt10,/opt/tensorrt-8.6,rtx
  TICKRT_SDK      what scripts/setup fetched: source scripts/env
  ORT_DYLIB_PATH  the ONNX Runtime library
  TICKRT_NVRTC    the NVRTC that compiles resident engines, a library or its folder
  TICKRT_LOG      error, warning, info or verbose: TensorRT's own lines on stderr";

/// What a subcommand returns.
pub type Outcome<T = ()> = Result<T, Failure>;

/// Why it ends otherwise than well.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// The check failed.
    pub fn check(message: impl Into<String>) -> Self {
        Self { code: 1, message: message.into() }
    }

    /// Wrong use.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { code: 2, message: message.into() }
    }

    /// With the code of a step that has told its story already.
    pub fn with_code(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The environment lacks something.
    pub fn environment(message: impl Into<String>) -> Self {
        Self { code: 3, message: message.into() }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { code: code_of(error.kind()), message: error.to_string() }
    }
}

/// The exit code of a library's error.
pub fn code_of(kind: ErrorKind) -> u8 {
    use ErrorKind as Kind;
    match kind {
        Kind::NonFiniteOutput { .. } | Kind::OutOfRange { .. } => 1,
        Kind::Cancelled => 130,
        Kind::NoGpu
        | Kind::TensorRtMissing
        | Kind::OnnxRuntimeMissing
        | Kind::OnnxRuntimeTooOld
        | Kind::OutOfMemory
        | Kind::Unsupported
        | Kind::NoBackend
        | Kind::Unavailable => 3,
        Kind::DeadlineMissed | Kind::DeviceLost { .. } | Kind::Cuda { .. } | Kind::Execution => 4,
        _ => 2,
    }
}

/// Ends with the failure's code, after its story on stderr.
pub fn code(result: Outcome) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}

/// Before anything else: a closed pipe ends the process quietly, and a panic is one readable line.
pub fn prepare() {
    // SAFETY: sets dispositions, before there is any other thread. Rust ignores SIGPIPE, and then `tickrt inspect | head`
    // would panic in println. SIGXFSZ would end the process in the middle of a file that exceeds its limit; ignored, the
    // write fails, and what was written is removed.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("error: tickrt itself failed, please report it with the command: {panic}");
    }));
}

/// Something that the reader should know, though all is well.
pub fn note(text: impl std::fmt::Display) {
    eprintln!("note: {text}");
}

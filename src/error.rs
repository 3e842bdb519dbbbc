//! The one error of this crate.

use std::fmt;

/// Short for a result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, in a form that a program can match on.
///
/// The variants that the data plane returns carry their figures themselves, so that building such an error
/// allocates nothing. The others carry their story in the [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    // The data plane's.
    /// Every slot of the ring is in flight or not yet collected.
    Full {
        /// How many slots the ring has.
        depth: usize,
    },
    /// The answer was not there at the deadline. The session stays usable; the late answer is discarded.
    DeadlineMissed,
    /// The ticket's answer was already collected, given up or never asked of this session.
    StaleTicket,
    /// The symbol's window has fewer rows than the model needs.
    WindowNotFull {
        /// Which symbol.
        symbol: u32,
        /// How many rows it has since it started, was reset or had a gap.
        have: u32,
        /// How many rows a window has.
        need: u32,
        /// Whether a gap emptied it.
        after_gap: bool,
    },
    /// The symbol is outside the number of symbols that the session was made for.
    UnknownSymbol {
        /// Which symbol.
        symbol: u32,
        /// The session's symbols are `0..symbols`.
        symbols: u32,
    },
    /// The session was made without rolling windows.
    NoWindows,
    /// The input holds NaN or infinity and the normalisation refuses them.
    NonFiniteInput,
    /// The output holds NaN or infinity.
    NonFiniteOutput {
        /// Which element.
        index: usize,
    },
    /// The output lies outside the range that the caller set.
    OutOfRange {
        /// Which element.
        index: usize,
    },
    /// Wrong number of elements.
    WrongLength {
        /// How many the tensor has.
        expected: usize,
        /// How many were given.
        got: usize,
    },
    /// Wrong element type.
    WrongType {
        /// The tensor's.
        expected: crate::DataType,
        /// The one given.
        got: crate::DataType,
    },
    /// No tensor has this place in the model.
    UnknownTensor,
    /// The backend answered a question whose answer is known otherwise.
    WrongAnswer,
    /// The GPU has reported an Xid that ends it.
    Xid {
        /// NVIDIA's number for it.
        number: u32,
    },
    /// No backend can answer in what is left of the deadline.
    Unavailable,
    /// A sticky CUDA error or a device that is gone: every CUDA user of the process is finished.
    DeviceLost {
        /// CUDA's error number.
        code: i32,
    },

    /// The process was forked after the session had started.
    Forked,

    // The control plane's.
    /// An argument that cannot be: the caller's mistake.
    InvalidArgument,
    /// The file system said no.
    Io,
    /// The ONNX model is missing, truncated or malformed.
    Onnx,
    /// The model has an operator that TensorRT's parser does not know.
    UnsupportedOperator,
    /// TensorRT refused to build.
    Build,
    /// The caller stopped a build.
    Cancelled,
    /// The version of the library cannot do what was asked.
    Unsupported,
    /// The bytes are not a TensorRT plan.
    NotAPlan,
    /// The plan is shorter than it was when it was written.
    PlanTruncated,
    /// The plan's bytes are not those that were written.
    PlanAltered,
    /// The plan was built by another version of TensorRT.
    PlanVersion,
    /// The plan was built for another GPU.
    PlanGpu,
    /// The plan has no sidecar, and the caller did not say that he trusts it.
    PlanUnverified,
    /// The plan's sidecar is not what was written.
    SidecarDamaged,
    /// Signatures are enforced, and this is not what was signed; or a plan carries host code that was not allowed.
    Untrusted,
    /// TensorRT refused the plan.
    PlanRefused,
    /// A shape outside the optimization profile, or none announced.
    Shape,
    /// No TensorRT library of a compiled-in flavour is to be found.
    TensorRtMissing,
    /// No CUDA driver or no GPU.
    NoGpu,
    /// The GPU's memory is exhausted.
    OutOfMemory,
    /// A CUDA call failed; the context lives.
    Cuda {
        /// CUDA's error number.
        code: i32,
    },
    /// TensorRT failed at run time.
    Execution,
    /// The ONNX Runtime library is missing.
    OnnxRuntimeMissing,
    /// The ONNX Runtime library is older than this crate needs.
    OnnxRuntimeTooOld,
    /// ONNX Runtime failed.
    OnnxRuntime,
    /// No entry of the chain could start.
    NoBackend,
}

/// Which operation failed, what it expected, what it got and what to do about it.
///
/// Its [`Display`](fmt::Display) is the whole story on one line, and the native library's own log lines below it.
/// Building one never calls native code.
#[derive(Clone)]
pub struct Error {
    kind: ErrorKind,
    story: Option<Box<Story>>,
}

#[derive(Clone, Default)]
struct Story {
    operation: String,
    expected: String,
    got: String,
    advice: String,
    log: Vec<String>,
}

impl Error {
    /// An error of the control plane: `operation` failed. Add the rest with the methods below.
    #[must_use]
    pub fn new(kind: ErrorKind, operation: impl Into<String>) -> Self {
        let story = Story { operation: operation.into(), ..Story::default() };
        Self { kind, story: Some(Box::new(story)) }
    }

    /// What was expected.
    #[must_use]
    pub fn expected(mut self, expected: impl Into<String>) -> Self {
        self.story_mut().expected = expected.into();
        self
    }

    /// What was found instead.
    #[must_use]
    pub fn got(mut self, got: impl Into<String>) -> Self {
        self.story_mut().got = got.into();
        self
    }

    /// What the reader can do about it.
    #[must_use]
    pub fn advice(mut self, advice: impl Into<String>) -> Self {
        self.story_mut().advice = advice.into();
        self
    }

    /// More that the reader can do about it.
    #[must_use]
    pub(crate) fn and_advice(mut self, more: &str) -> Self {
        let advice = &mut self.story_mut().advice;
        *advice = if advice.is_empty() { more.to_owned() } else { format!("{advice}; {more}") };
        self
    }

    /// What the failed operation was a part of.
    #[must_use]
    pub(crate) fn within(mut self, outer: &str) -> Self {
        let story = self.story_mut();
        story.operation = format!("{outer}: {}", story.operation);
        self
    }

    /// The native library's own lines for the failed call.
    #[must_use]
    pub fn log(mut self, lines: Vec<String>) -> Self {
        self.story_mut().log = lines;
        self
    }

    /// What went wrong, to match on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The native library's own lines for the failed call; empty where there are none.
    #[must_use]
    pub fn log_lines(&self) -> &[String] {
        self.story.as_ref().map_or(&[], |story| &story.log)
    }

    /// Whether CUDA is finished in this process: only a restart brings it back.
    #[must_use]
    pub fn is_sticky(&self) -> bool {
        matches!(self.kind, ErrorKind::DeviceLost { .. } | ErrorKind::Xid { .. })
    }

    fn story_mut(&mut self) -> &mut Story {
        self.story.get_or_insert_with(Box::default)
    }
}

impl From<ErrorKind> for Error {
    /// An error of the data plane: nothing is allocated.
    fn from(kind: ErrorKind) -> Self {
        Self { kind, story: None }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(story) = &self.story else { return write!(f, "{}", self.kind) };
        write!(f, "{}", story.operation)?;
        match (story.expected.is_empty(), story.got.is_empty()) {
            (false, false) => write!(f, ": expected {}, got {}", story.expected, story.got)?,
            (false, true) => write!(f, ": expected {}", story.expected)?,
            (true, false) => write!(f, ": {}", story.got)?,
            (true, true) => {}
        }
        if !story.advice.is_empty() {
            write!(f, "; {}", story.advice)?;
        }
        for line in &story.log {
            write!(f, "\n    {line}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.kind)
    }
}

impl std::error::Error for Error {}

impl fmt::Display for ErrorKind {
    /// The whole message for the data plane's kinds, the bare name of the kind for the control plane's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Full { depth } => write!(
                f,
                "lend an input slot: all {depth} slots of the ring are in flight or not yet collected; \
                 collect an answer first or make the ring deeper"
            ),
            Self::DeadlineMissed => write!(f, "wait for an answer: not there at the deadline; it will be discarded"),
            Self::StaleTicket => {
                write!(f, "collect an answer: the ticket was already collected or given up, or is another session's")
            }
            Self::WindowNotFull { symbol, have, need, after_gap } => {
                let since = if after_gap { " since its gap" } else { "" };
                write!(
                    f,
                    "submit the window of symbol {symbol}: expected {need} rows, got {have}{since}; \
                     {} more to push, the next one is row {have} of 0..{need}",
                    need - have
                )
            }
            Self::UnknownSymbol { symbol, symbols } => {
                write!(f, "look up symbol {symbol}: expected one of 0..{symbols}; make the session for more symbols")
            }
            Self::NoWindows => write!(f, "use a rolling window: the session was made without; set `windows`"),
            Self::NonFiniteInput => {
                write!(f, "normalise the input: it holds NaN or infinity, and the normalisation refuses them")
            }
            Self::NonFiniteOutput { index } => {
                write!(f, "check the output: element {index} is NaN or infinite")
            }
            Self::OutOfRange { index } => {
                write!(f, "check the output: element {index} is outside the range that was set")
            }
            Self::WrongLength { expected, got } => {
                write!(f, "move a tensor: expected {expected} elements, got {got}")
            }
            Self::WrongType { expected, got } => write!(f, "move a tensor: expected {expected}, got {got}"),
            Self::Shape => write!(f, "use a shape: it was not announced when the session was made; see `shapes`"),
            Self::UnknownTensor => write!(f, "look up a tensor: the model has none of this name or place"),
            Self::Unavailable => {
                write!(f, "answer a call: the GPU is out and no backend left can answer within the deadline")
            }
            Self::Forked => {
                write!(f, "use a session: it belongs to the process that forked this one; start another one here")
            }
            Self::WrongAnswer => {
                write!(
                    f,
                    "ask what is known: the answer is not the one expected; see the GPU's memory errors, then rearm"
                )
            }
            Self::Xid { number } => {
                write!(f, "use the GPU: it has reported Xid {number}, which ends it; reset it and restart the process")
            }
            Self::DeviceLost { code } => write!(
                f,
                "use the GPU: CUDA error {code} has ended every CUDA user of this process; restart the process"
            ),
            other => write!(f, "{other:?}"),
        }
    }
}

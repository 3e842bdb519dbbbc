//! error.h: owned errors with a code and a message.

use std::cell::Cell;
use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use tickrt::{Error, ErrorKind};

/// What a function that can fail returns: null is success.
pub type MaybeError = Option<Box<CError>>;

/// `tickrt_error`. The message is made when it is asked for: what the data plane returns costs no formatting.
#[derive(Debug)]
pub struct CError {
    fault: Fault,
    /// A C++ exception may be asked for it on several threads.
    message: OnceLock<CString>,
}

/// What went wrong: with the call, or in our own code.
#[derive(Debug)]
pub(crate) enum Fault {
    Error(Error),
    /// A panic, and what it said.
    Panic(String),
    /// A handle that a panic has left in the middle of something.
    Broken,
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<ErrorKind> for Fault {
    fn from(kind: ErrorKind) -> Self {
        Self::Error(kind.into())
    }
}

thread_local! {
    /// The last error that was freed, for the next one: a ring that is full must not cost an allocation each time.
    static SPARE: Cell<MaybeError> = const { Cell::new(None) };
}

impl CError {
    fn boxed(fault: Fault) -> Box<Self> {
        let error = Self { fault, message: OnceLock::new() };
        match SPARE.try_with(Cell::take).ok().flatten() {
            Some(mut spare) => {
                *spare = error;
                spare
            }
            None => Box::new(error),
        }
    }

    fn text(&self) -> String {
        match &self.fault {
            Fault::Error(error) => error.to_string(),
            Fault::Panic(said) => format!("tickrt itself failed, please report it: {said}"),
            Fault::Broken => "use a handle: tickrt itself failed in an earlier call on it; free it".to_owned(),
        }
    }

    /// `tickrt_error_code`.
    #[must_use]
    pub fn code(&self) -> i32 {
        match &self.fault {
            Fault::Error(error) => code_of(error.kind()),
            Fault::Panic(_) | Fault::Broken => PANIC,
        }
    }
}

/// Runs `body`; an error of its, or its panic, is what C gets. Says whether it panicked as well.
pub(crate) fn run(body: impl FnOnce() -> Result<(), Fault>) -> (MaybeError, bool) {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => (None, false),
        Ok(Err(fault)) => (Some(CError::boxed(fault)), false),
        Err(panic) => {
            let said = panic.downcast_ref::<&str>().map(|said| (*said).to_owned());
            let said = said.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            // What was thrown may panic when it is dropped.
            std::mem::forget(panic);
            (Some(CError::boxed(Fault::Panic(said))), true)
        }
    }
}

/// As [`run`], where a panic leaves nothing behind.
pub(crate) fn guard(body: impl FnOnce() -> Result<(), Fault>) -> MaybeError {
    run(body).0
}

/// Drops what C gives back. A panic in it is no more than a leak.
pub(crate) fn discard<T>(what: Option<Box<T>>) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(what)));
}

/// A string of ours as C takes it. No text of ours holds a zero byte; one that comes from outside is cut there.
pub(crate) fn c_string(text: impl Into<Vec<u8>>) -> CString {
    let mut text = text.into();
    text.truncate(text.iter().position(|&byte| byte == 0).unwrap_or(text.len()));
    CString::new(text).unwrap_or_default()
}

/// `error.h`: frees an error; NULL is fine.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_error_free(error: MaybeError) {
    let Some(mut error) = error else { return };
    let dropped = catch_unwind(AssertUnwindSafe(|| {
        error.fault = Fault::Broken;
        error.message.take();
    }));
    if dropped.is_ok() {
        let _ = SPARE.try_with(|spare| spare.set(Some(error)));
    }
}

/// `error.h`: what went wrong, to switch on; `TICKRT_OK` for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_error_code(error: Option<&CError>) -> i32 {
    error.map_or(OK, CError::code)
}

/// `error.h`: the whole story; lives as long as the error.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_error_message(error: Option<&CError>) -> *const c_char {
    let Some(error) = error else { return c"no error".as_ptr() };
    let made = catch_unwind(AssertUnwindSafe(|| error.message.get_or_init(|| c_string(error.text())).as_ptr()));
    made.unwrap_or(c"an error whose message cannot be made".as_ptr())
}

/// `error.h`: whether CUDA is finished in this process.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_error_is_sticky(error: Option<&CError>) -> bool {
    error.is_some_and(|error| matches!(&error.fault, Fault::Error(error) if error.is_sticky()))
}

const OK: i32 = 0;
const PANIC: i32 = 100;
/// An [`ErrorKind`] younger than this table.
const OTHER: i32 = 101;

macro_rules! codes {
    ($($number:literal $name:literal $kind:pat),* $(,)?) => {
        /// Every code and its name in error.h.
        pub const CODES: &[(&str, i32)] = &[
            ("TICKRT_OK", OK), $(($name, $number),)* ("TICKRT_PANIC", PANIC), ("TICKRT_OTHER", OTHER),
        ];

        fn code_of(kind: ErrorKind) -> i32 {
            match kind {
                $($kind => $number,)*
                _ => OTHER,
            }
        }
    };
}

// A number that was given out stays what it is. 1 to 39 are the data plane's.
codes! {
    1 "TICKRT_FULL" ErrorKind::Full { .. },
    2 "TICKRT_DEADLINE_MISSED" ErrorKind::DeadlineMissed,
    3 "TICKRT_STALE_TICKET" ErrorKind::StaleTicket,
    4 "TICKRT_WINDOW_NOT_FULL" ErrorKind::WindowNotFull { .. },
    5 "TICKRT_UNKNOWN_SYMBOL" ErrorKind::UnknownSymbol { .. },
    6 "TICKRT_NO_WINDOWS" ErrorKind::NoWindows,
    7 "TICKRT_NON_FINITE_INPUT" ErrorKind::NonFiniteInput,
    8 "TICKRT_NON_FINITE_OUTPUT" ErrorKind::NonFiniteOutput { .. },
    9 "TICKRT_OUT_OF_RANGE" ErrorKind::OutOfRange { .. },
    10 "TICKRT_WRONG_LENGTH" ErrorKind::WrongLength { .. },
    11 "TICKRT_WRONG_TYPE" ErrorKind::WrongType { .. },
    12 "TICKRT_UNKNOWN_TENSOR" ErrorKind::UnknownTensor,
    13 "TICKRT_UNAVAILABLE" ErrorKind::Unavailable,
    14 "TICKRT_DEVICE_LOST" ErrorKind::DeviceLost { .. },
    15 "TICKRT_FORKED" ErrorKind::Forked,
    16 "TICKRT_WRONG_ANSWER" ErrorKind::WrongAnswer,
    17 "TICKRT_XID" ErrorKind::Xid { .. },
    40 "TICKRT_INVALID_ARGUMENT" ErrorKind::InvalidArgument,
    41 "TICKRT_IO" ErrorKind::Io,
    42 "TICKRT_ONNX" ErrorKind::Onnx,
    43 "TICKRT_UNSUPPORTED_OPERATOR" ErrorKind::UnsupportedOperator,
    44 "TICKRT_BUILD" ErrorKind::Build,
    45 "TICKRT_CANCELLED" ErrorKind::Cancelled,
    46 "TICKRT_UNSUPPORTED" ErrorKind::Unsupported,
    47 "TICKRT_NOT_A_PLAN" ErrorKind::NotAPlan,
    48 "TICKRT_PLAN_TRUNCATED" ErrorKind::PlanTruncated,
    49 "TICKRT_PLAN_ALTERED" ErrorKind::PlanAltered,
    50 "TICKRT_PLAN_VERSION" ErrorKind::PlanVersion,
    51 "TICKRT_PLAN_GPU" ErrorKind::PlanGpu,
    52 "TICKRT_PLAN_UNVERIFIED" ErrorKind::PlanUnverified,
    53 "TICKRT_SIDECAR_DAMAGED" ErrorKind::SidecarDamaged,
    54 "TICKRT_PLAN_REFUSED" ErrorKind::PlanRefused,
    55 "TICKRT_SHAPE" ErrorKind::Shape,
    56 "TICKRT_TENSORRT_MISSING" ErrorKind::TensorRtMissing,
    57 "TICKRT_NO_GPU" ErrorKind::NoGpu,
    58 "TICKRT_OUT_OF_MEMORY" ErrorKind::OutOfMemory,
    59 "TICKRT_CUDA" ErrorKind::Cuda { .. },
    60 "TICKRT_EXECUTION" ErrorKind::Execution,
    61 "TICKRT_ONNXRUNTIME_MISSING" ErrorKind::OnnxRuntimeMissing,
    62 "TICKRT_ONNXRUNTIME_TOO_OLD" ErrorKind::OnnxRuntimeTooOld,
    63 "TICKRT_ONNXRUNTIME" ErrorKind::OnnxRuntime,
    64 "TICKRT_NO_BACKEND" ErrorKind::NoBackend,
    65 "TICKRT_UNTRUSTED" ErrorKind::Untrusted,
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    fn message(error: &CError) -> &str {
        // SAFETY: the function's own contract: a string that lives as long as the error.
        unsafe { CStr::from_ptr(tickrt_error_message(Some(error))) }.to_str().unwrap()
    }

    #[test]
    fn panic_becomes_an_error_that_says_what_it_said() {
        let (error, panicked) = run(|| panic!("number {}", 7));
        let error = error.unwrap();
        assert!(panicked);
        assert_eq!((error.code(), message(&error)), (PANIC, "tickrt itself failed, please report it: number 7"));
        tickrt_error_free(Some(error));
    }

    #[test]
    fn error_after_one_that_was_freed_takes_its_memory() {
        let full = || run(|| Err(ErrorKind::Full { depth: 4 }.into())).0.unwrap();
        let first = full();
        assert!(message(&first).contains("all 4 slots"), "{}", message(&first));
        let place: *const CError = &raw const *first;
        tickrt_error_free(Some(first));
        let second = full();
        assert_eq!(&raw const *second, place);
        assert_eq!(second.code(), 1);
    }

    #[test]
    fn null_error_is_success() {
        assert_eq!(tickrt_error_code(None), 0);
        assert!(!tickrt_error_is_sticky(None));
        tickrt_error_free(None);
    }
}

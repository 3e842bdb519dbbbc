//! version.h: what this is, and which TensorRT it can drive.

use std::ffi::{CString, c_char};
use std::sync::OnceLock;

use tickrt::{Flavour, LogLevel};

use crate::argument::invalid;
use crate::error::{MaybeError, c_string, guard};

/// `version.h`: tickrt's own version.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_version() -> *const c_char {
    static VERSION: OnceLock<CString> = OnceLock::new();
    VERSION.get_or_init(|| c_string(env!("CARGO_PKG_VERSION"))).as_ptr()
}

/// `version.h`: the TensorRT flavours that are compiled in.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_compiled_in() -> *const c_char {
    static COMPILED: OnceLock<CString> = OnceLock::new();
    let made = std::panic::catch_unwind(|| {
        COMPILED.get_or_init(|| {
            let headers = Flavour::compiled_in().iter().filter_map(|flavour| flavour.headers());
            c_string(headers.map(|version| version.to_string()).collect::<Vec<_>>().join(", "))
        })
    });
    made.map_or(c"".as_ptr(), |text| text.as_ptr())
}

/// `version.h`: which of TensorRT's own lines go to stderr.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_set_log_level(level: i32) -> MaybeError {
    guard(|| {
        tickrt::set_log_level(match level {
            0 => LogLevel::Off,
            1 => LogLevel::Error,
            2 => LogLevel::Warning,
            3 => LogLevel::Info,
            4 => LogLevel::Verbose,
            _ => return Err(invalid("level", "one of tickrt_log_level", level.to_string())),
        });
        Ok(())
    })
}

//! What C hands over, checked.

use std::ffi::{CStr, c_char, c_void};
use std::mem::MaybeUninit;

use tickrt::{DataType, Element, Error, ErrorKind};

use crate::error::Fault;

/// A place of C's for an output, which need not hold anything yet.
pub type Place<'a, T> = Option<&'a mut MaybeUninit<T>>;

#[cold]
pub(crate) fn invalid(what: &str, expected: &str, got: impl Into<String>) -> Fault {
    let operation = format!("read the argument `{what}`");
    Error::new(ErrorKind::InvalidArgument, operation).expected(expected).got(got).into()
}

/// What a pointer points at.
#[inline]
pub(crate) fn given<T>(argument: Option<T>, what: &str) -> Result<T, Fault> {
    argument.ok_or_else(|| invalid(what, "a pointer", "NULL"))
}

/// # Safety
/// A string of C's, or null, that lives as long as it is used.
pub(crate) unsafe fn string<'a>(text: *const c_char, what: &str) -> Result<&'a str, Fault> {
    if text.is_null() {
        return Err(invalid(what, "a string", "NULL"));
    }
    // SAFETY: the caller's contract.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|error| invalid(what, "UTF-8", error.to_string()))
}

/// # Safety
/// `data` points to `count` elements, or is null, and nobody writes them as long as the slice is used.
#[inline]
pub(crate) unsafe fn elements<'a, T: Element>(data: *const c_void, count: usize) -> Result<&'a [T], Fault> {
    check::<T>(data, count)?;
    // SAFETY: the caller's contract; neither null nor unaligned. Any bytes make a `T`, which is Pod.
    Ok(if count == 0 { &[] } else { unsafe { std::slice::from_raw_parts(data.cast(), count) } })
}

/// Where `count` elements of C's are to be written, which need not hold anything yet.
#[inline]
pub(crate) fn destination<T>(data: *mut c_void, count: usize) -> Result<*mut T, Fault> {
    check::<T>(data, count)?;
    Ok(data.cast())
}

#[inline]
fn check<T>(data: *const c_void, count: usize) -> Result<(), Fault> {
    if data.is_null() && count > 0 {
        return Err(invalid("data", "a pointer", "NULL"));
    }
    if !data.cast::<T>().is_aligned() || count > isize::MAX as usize / size_of::<T>() {
        let expected = format!("{} bytes' alignment and a count that memory can hold", align_of::<T>());
        return Err(invalid("data", &expected, format!("{data:p}, {count}")));
    }
    Ok(())
}

/// The numbers of `tickrt_type` in types.h.
#[inline]
pub(crate) fn data_type(number: i32) -> Result<DataType, Fault> {
    // What nearly everybody has takes no look into a table.
    if number == DataType::F32 as i32 {
        return Ok(DataType::F32);
    }
    other_type(number)
}

fn other_type(number: i32) -> Result<DataType, Fault> {
    use DataType::{Bf16, Bool, F16, F32, F64, I8, I16, I32, I64, U8};
    static ALL: [DataType; 10] = [F32, F16, Bf16, F64, I8, U8, I16, I32, I64, Bool];
    let found = usize::try_from(number).ok().and_then(|number| ALL.get(number));
    found.copied().ok_or_else(|| invalid("type", "one of tickrt_type", number.to_string()))
}

/// Runs `$body` with `$T` as the Rust type of `$number`, one of `tickrt_type`.
macro_rules! with_type {
    ($number:expr, $T:ident => $body:expr) => {
        match $crate::argument::data_type($number)? {
            tickrt::DataType::F32 => {
                type $T = f32;
                $body
            }
            tickrt::DataType::F16 => {
                type $T = half::f16;
                $body
            }
            tickrt::DataType::Bf16 => {
                type $T = half::bf16;
                $body
            }
            tickrt::DataType::F64 => {
                type $T = f64;
                $body
            }
            tickrt::DataType::I8 => {
                type $T = i8;
                $body
            }
            // A bool is a byte, 0 or 1.
            tickrt::DataType::U8 | tickrt::DataType::Bool => {
                type $T = u8;
                $body
            }
            tickrt::DataType::I16 => {
                type $T = i16;
                $body
            }
            tickrt::DataType::I32 => {
                type $T = i32;
                $body
            }
            tickrt::DataType::I64 => {
                type $T = i64;
                $body
            }
        }
    };
}
pub(crate) use with_type;

//! normalization.h: what happens to an input before the network.

use std::ffi::c_char;

use tickrt::{Layout, NonFinite, Normalization, Stats};

use crate::argument::{Place, data_type, given, invalid, string};
use crate::error::{Fault, MaybeError, discard, guard};

/// `normalization.h`: reads the JSON form.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tickrt_normalization_read(
    path: *const c_char,
    normalization: Place<'_, Box<Normalization>>,
) -> MaybeError {
    guard(|| {
        // SAFETY: the header's contract.
        let path = unsafe { string(path, "path") }?;
        given(normalization, "normalization")?.write(Box::new(Normalization::read(path)?));
        Ok(())
    })
}

/// `normalization.h`: converts `input` from a type, until more is set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tickrt_normalization_new(
    input: *const c_char,
    input_type: i32,
    normalization: Place<'_, Box<Normalization>>,
) -> MaybeError {
    guard(|| {
        // SAFETY: the header's contract.
        let input = unsafe { string(input, "input") }?;
        let made = Normalization::new(input, data_type(input_type)?);
        given(normalization, "normalization")?.write(Box::new(made));
        Ok(())
    })
}

/// `normalization.h`: frees it.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_normalization_free(normalization: Option<Box<Normalization>>) {
    discard(normalization);
}

/// `normalization.h`: sets means and standard deviations.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tickrt_normalization_set_stats(
    normalization: Option<&mut Normalization>,
    kind: i32,
    mean: *const f64,
    std: *const f64,
    count: usize,
) -> MaybeError {
    guard(|| {
        let normalization = given(normalization, "normalization")?;
        // SAFETY: the header's contract.
        let (mean, std) = unsafe { (numbers(mean, count, "mean")?, numbers(std, count, "std")?) };
        normalization.stats = match (kind, mean, std) {
            (0, &[mean], &[std]) => Stats::PerTensor { mean: [mean], std: [std] },
            (0, ..) => return Err(invalid("count", "1 for the whole tensor", count.to_string())),
            (1, ..) => Stats::PerFeature { mean: mean.to_vec(), std: std.to_vec() },
            (2, ..) => Stats::PerChannel { mean: mean.to_vec(), std: std.to_vec() },
            _ => return Err(invalid("kind", "one of tickrt_stats", kind.to_string())),
        };
        Ok(())
    })
}

/// # Safety
/// `from` points to `count` numbers, or is null.
unsafe fn numbers<'a>(from: *const f64, count: usize, what: &str) -> Result<&'a [f64], Fault> {
    if from.is_null() {
        return Err(invalid(what, "a pointer", "NULL"));
    }
    // SAFETY: the caller's contract.
    unsafe { crate::argument::elements(from.cast(), count) }
}

/// `normalization.h`: sets the lowest and highest value after the division.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_normalization_set_clamp(
    normalization: Option<&mut Normalization>,
    lowest: f32,
    highest: f32,
) -> MaybeError {
    guard(|| {
        given(normalization, "normalization")?.clamp = Some([lowest, highest]);
        Ok(())
    })
}

/// `normalization.h`: what to do with NaN and infinity.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_normalization_set_non_finite(
    normalization: Option<&mut Normalization>,
    policy: i32,
    replacement: f32,
) -> MaybeError {
    guard(|| {
        given(normalization, "normalization")?.non_finite = match policy {
            0 => NonFinite::Pass,
            1 => NonFinite::Replace(replacement),
            2 => NonFinite::Refuse,
            _ => return Err(invalid("policy", "one of tickrt_non_finite", policy.to_string())),
        };
        Ok(())
    })
}

/// `normalization.h`: how the input lies in memory.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_normalization_set_layout(
    normalization: Option<&mut Normalization>,
    layout: i32,
) -> MaybeError {
    guard(|| {
        given(normalization, "normalization")?.layout = match layout {
            0 => Layout::AsIs,
            1 => Layout::ChannelsLastToFirst,
            _ => return Err(invalid("layout", "one of tickrt_layout", layout.to_string())),
        };
        Ok(())
    })
}

//! Which kernel brings a call's input to the network, and with what.

use std::ffi::CStr;

use super::params::{NormalizeParams, SmallParams};
use crate::backend::Signature;
use crate::config::SessionConfig;
use crate::device::{Function, Stream};
use crate::error::Result;
use crate::normalize::Normalizer;
use crate::tensor::DataType;

/// An input of up to this many words has what becomes of each element in a table.
const SMALL: usize = 4096;
/// An input of up to this many words comes in band: the GPU asks for all of it over PCIe again and again while it waits.
const IN_BAND: usize = 1024;

/// The first kernel's parameters, by the kernel's kind.
pub(super) enum InputParams {
    /// `normalize.cuh`: any inputs.
    Any(Box<NormalizeParams>),
    /// `normalize_small.cuh`: one small input.
    Small(SmallParams),
}

/// Whether `normalize_small.cuh` takes these inputs, if they bring no rows of a window.
pub(super) fn is_small(inputs: &[Normalizer]) -> bool {
    let [input] = inputs else { return false };
    small_kernel(input, false).is_some() && input.input_words() <= SMALL
}

/// Whether calls bring their input in band: those that are launched ahead of it, where it is small.
pub(super) fn comes_in_band(signature: &Signature, config: &SessionConfig) -> bool {
    let fits = |input: &Normalizer| input.input_words() <= IN_BAND;
    config.launch_ahead.is_some()
        && signature.shapes.iter().all(|shape| is_small(&shape.inputs) && shape.inputs.iter().all(fits))
}

/// Whether rolling windows are kept on the device: where calls are launched ahead, the session hands whole windows over.
pub(super) fn keeps_windows(config: &SessionConfig) -> bool {
    config.windows.is_some() && config.launch_ahead.is_none()
}

/// The kernel for a small input.
pub(super) fn small_kernel(input: &Normalizer, in_band: bool) -> Option<&'static CStr> {
    if input.copy {
        let words = input.input_bytes().is_multiple_of(4);
        return words.then_some(if in_band { c"tickrt_small_in_band_copy" } else { c"tickrt_small_copy" });
    }
    Some(match (input.input_type, input.output_type, in_band) {
        (DataType::F32, DataType::F32, false) => c"tickrt_small_f32",
        (DataType::F16, DataType::F32, false) => c"tickrt_small_f16",
        (DataType::U8, DataType::F32, false) => c"tickrt_small_u8",
        (DataType::I16, DataType::F32, false) => c"tickrt_small_i16",
        (DataType::F32, DataType::F32, true) => c"tickrt_small_in_band_f32",
        (DataType::F16, DataType::F32, true) => c"tickrt_small_in_band_f16",
        (DataType::U8, DataType::F32, true) => c"tickrt_small_in_band_u8",
        (DataType::I16, DataType::F32, true) => c"tickrt_small_in_band_i16",
        _ => return None,
    })
}

/// The kernel for any inputs. Networks of one input have kernels by its type, which start sooner.
pub(super) fn any_kernel(inputs: &[Normalizer], windows: bool) -> &'static CStr {
    let [input] = inputs else { return c"tickrt_normalize_all" };
    match (input.copy, windows) {
        (true, false) => return c"tickrt_copy",
        (true, true) => return c"tickrt_copy_window",
        _ => {}
    }
    match (input.input_type, windows) {
        (DataType::F32, false) => c"tickrt_normalize_f32",
        (DataType::F64, false) => c"tickrt_normalize_f64",
        (DataType::F16, false) => c"tickrt_normalize_f16",
        (DataType::U8, false) => c"tickrt_normalize_u8",
        (DataType::I16, false) => c"tickrt_normalize_i16",
        (DataType::I32, false) => c"tickrt_normalize_i32",
        (DataType::F32, true) => c"tickrt_normalize_window_f32",
        (DataType::F64, true) => c"tickrt_normalize_window_f64",
        (DataType::F16, true) => c"tickrt_normalize_window_f16",
        (DataType::U8, true) => c"tickrt_normalize_window_u8",
        (DataType::I16, true) => c"tickrt_normalize_window_i16",
        (DataType::I32, true) => c"tickrt_normalize_window_i32",
        (other, _) => unreachable!("Normalizer::new refused {other}"),
    }
}

/// Blocks and threads of a block for any inputs; more work than that many threads is done in turns.
pub(super) fn any_grid(inputs: &[Normalizer], windows: bool) -> (u32, u32) {
    // As `Word<T>::kElements`; of a window, element by element.
    let threads = |input: &Normalizer| if windows { input.count } else { input.count.min(input.input_words()) };
    (inputs.iter().map(threads).max().unwrap_or(1).div_ceil(256).clamp(1, 256) as u32, 256)
}

/// The same for a small input: a thread a word, or one for two words in band.
pub(super) fn small_grid(input: &Normalizer, in_band: bool) -> (u32, u32) {
    let threads = input.input_words().div_ceil(if in_band { 2 } else { 1 });
    (threads.div_ceil(128) as u32, 128)
}

impl InputParams {
    /// Puts the kernel into the stream.
    ///
    /// # Safety
    /// As [`Function::launch`]; `kernel` must be the one for these parameters.
    pub(super) unsafe fn launch(&self, kernel: Function, stream: &Stream, (blocks, threads): (u32, u32)) -> Result<()> {
        // SAFETY: passed on to the caller.
        unsafe {
            match self {
                Self::Any(params) => kernel.launch(stream, blocks, threads, &**params),
                Self::Small(params) => kernel.launch(stream, blocks, threads, params),
            }
        }
    }
}

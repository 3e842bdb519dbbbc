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

/// How a shape's inputs reach the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Whatever they are. Waits for the call where that comes after the launch.
    Any,
    /// A small one that is there before the launch.
    Small,
    /// A small one that comes in band, after the launch.
    InBand,
}

impl Kind {
    /// The kind for these inputs.
    pub(super) fn of(inputs: &[Normalizer], config: &SessionConfig) -> Self {
        let [input] = inputs else { return Self::Any };
        let words = input.input_words();
        if keeps_windows(config) || small_kernel(input, false).is_none() {
            return Self::Any;
        }
        match config.launch_ahead {
            None if words <= SMALL => Self::Small,
            Some(_) if words <= IN_BAND => Self::InBand,
            // The kernel for small inputs that are there does not wait for them.
            _ => Self::Any,
        }
    }

    /// The kernel for inputs of this kind; `windows`: their rows are kept on the device.
    pub(super) fn kernel(self, inputs: &[Normalizer], windows: bool) -> &'static CStr {
        let small = |in_band| small_kernel(&inputs[0], in_band).expect("`of` has seen that there is one");
        match self {
            Self::Any => any_kernel(inputs, windows),
            Self::Small => small(false),
            Self::InBand => small(true),
        }
    }

    /// Blocks and threads of a block. Any inputs: more work than that many threads is done in turns; small ones: a thread
    /// a word, or one for two words in band.
    pub(super) fn grid(self, inputs: &[Normalizer], windows: bool) -> (u32, u32) {
        // As `Word<T>::kElements`; of a window, element by element.
        let elements = |input: &Normalizer| if windows { input.count } else { input.count.min(input.input_words()) };
        let small = |threads: usize| (threads.div_ceil(128) as u32, 128);
        match self {
            Self::Any => (inputs.iter().map(elements).max().unwrap_or(1).div_ceil(256).clamp(1, 256) as u32, 256),
            Self::Small => small(inputs[0].input_words()),
            Self::InBand => small(inputs[0].input_words().div_ceil(2)),
        }
    }
}

/// Whether slots have units for their input. Calls that are launched ahead have one shape.
pub(super) fn comes_in_band(signature: &Signature, config: &SessionConfig) -> bool {
    matches!(&signature.shapes[..], [shape] if Kind::of(&shape.inputs, config) == Kind::InBand)
}

/// Whether rolling windows are kept on the device: where calls are launched ahead, the session hands whole windows over.
pub(super) fn keeps_windows(config: &SessionConfig) -> bool {
    config.windows.is_some() && config.launch_ahead.is_none()
}

/// The kernel for a small input, if there is one for its type.
fn small_kernel(input: &Normalizer, in_band: bool) -> Option<&'static CStr> {
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
fn any_kernel(inputs: &[Normalizer], windows: bool) -> &'static CStr {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::WindowConfig;
    use crate::normalize::{Normalization, Stats};
    use crate::tensor::{IoMode, TensorInfo};

    fn input(input_type: DataType, elements: usize, copied: bool) -> Normalizer {
        let shape = vec![1, elements as i64];
        let data_type = if copied { input_type } else { DataType::F32 };
        let tensor = TensorInfo { name: "input".into(), mode: IoMode::Input, data_type, shape: shape.clone() };
        let scaled = Normalization::new("input", input_type).stats(Stats::PerTensor { mean: [0.5], std: [2.0] });
        let what = if copied { Normalization::new("input", input_type) } else { scaled };
        Normalizer::new(&what, &tensor, &shape, None).unwrap()
    }

    /// Only these wait for a call that comes after the launch.
    #[test]
    fn launched_ahead_every_input_has_a_kernel_that_waits() {
        use DataType::{F16, F32, F64, I16, I32, U8};
        let ahead = SessionConfig { launch_ahead: Some(Duration::from_millis(1)), ..SessionConfig::default() };
        let windows = Some(WindowConfig::new(4, 1));
        let mut in_band = 0;
        for data_type in [F32, F64, F16, U8, I16, I32] {
            for words in [1, 2, 255, 1023, 1024, 1025, 4095, 4096, 4097, 20_000] {
                for copied in [false, true] {
                    let inputs = [input(data_type, words * 4 / data_type.size().min(4), copied)];
                    let words = inputs[0].input_words();
                    for config in [ahead.clone(), SessionConfig { windows: windows.clone(), ..ahead.clone() }] {
                        let kind = Kind::of(&inputs, &config);
                        assert_ne!(kind, Kind::Small, "{data_type}, {words} words, copied {copied}");
                        assert!(kind == Kind::Any || words <= IN_BAND);
                        assert!(
                            kind.kernel(&inputs, false).to_str().unwrap().contains("in_band") == (kind == Kind::InBand)
                        );
                        in_band += usize::from(kind == Kind::InBand);
                    }
                    let there = Kind::of(&inputs, &SessionConfig::default());
                    assert!(there == Kind::Any || (there == Kind::Small && words <= SMALL));
                    let rows = SessionConfig { windows: windows.clone(), ..SessionConfig::default() };
                    assert_eq!(Kind::of(&inputs, &rows), Kind::Any, "rows on the device");
                }
            }
        }
        assert!(in_band > 40, "{in_band}");
        let two = [input(F32, 4, false), input(F32, 4, false)];
        assert_eq!(Kind::of(&two, &ahead), Kind::Any);
    }
}

//! The structures of `kernels/params.h`; `tests/kernels.rs` compares their sizes with those that nvcc gives them.

use std::ffi::CStr;

use crate::backend::OutputShape;
use crate::normalize::{NonFinite, Normalizer};
use crate::tensor::DataType;

/// Inputs, and outputs, that a network may have: `kMaxTensors`.
pub(super) const MAX_TENSORS: usize = 8;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct State {
    pub(super) sequence: u64,
    pub(super) status: u32,
    pub(super) unused: u32,
}

/// Division of numbers below 2³¹ by a number that is known beforehand: `(high half of n * multiplier + n) >> shift`.
/// Granlund and Montgomery, "Division by Invariant Integers using Multiplication", 1994.
#[repr(C)]
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct Divisor {
    pub(super) divisor: u32,
    pub(super) multiplier: u32,
    pub(super) shift: u32,
}

impl Divisor {
    pub(super) fn new(divisor: usize) -> Self {
        let divisor = u32::try_from(divisor).expect("check_sizes has seen to that").max(1);
        let shift = divisor.next_power_of_two().trailing_zeros();
        let multiplier = (1_u64 << 32) * ((1_u64 << shift) - u64::from(divisor)) / u64::from(divisor) + 1;
        Self { divisor, multiplier: multiplier as u32, shift }
    }

    #[cfg(test)]
    fn divide(self, n: u32) -> u32 {
        ((((u64::from(n) * u64::from(self.multiplier)) >> 32) + u64::from(n)) >> self.shift) as u32
    }
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct NormalizeTensor {
    pub(super) source: u64,
    pub(super) destination: u64,
    pub(super) means: u64,
    pub(super) stds: u64,
    pub(super) mean: f64,
    pub(super) std: f64,
    pub(super) ring: u64,
    pub(super) count: u32,
    pub(super) spatial: u32,
    pub(super) channels: Divisor,
    pub(super) sample: Divisor,
    pub(super) stat_inner: Divisor,
    pub(super) stat_count: Divisor,
    pub(super) input_type: u32,
    pub(super) output_type: u32,
    pub(super) non_finite: u32,
    pub(super) copy_bytes: u32,
    pub(super) lowest: f32,
    pub(super) highest: f32,
    pub(super) replacement: f32,
    pub(super) rows: u32,
    pub(super) row: Divisor,
    pub(super) unused: u32,
}

const _: () = assert!(size_of::<NormalizeTensor>() == 160, "the structure in kernels/params.h has this size");

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct NormalizeParams {
    pub(super) header: u64,
    pub(super) state: u64,
    pub(super) tensor_count: u32,
    pub(super) patience_us: u32,
    pub(super) tensors: [NormalizeTensor; MAX_TENSORS],
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct PublishTensor {
    pub(super) source: u64,
    pub(super) destination: u64,
    pub(super) count: u32,
    pub(super) convert_from: u32,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct PublishParams {
    pub(super) state: u64,
    pub(super) done: u64,
    pub(super) tensor_count: u32,
    pub(super) unused: u32,
    pub(super) tensors: [PublishTensor; MAX_TENSORS],
}

/// The normalise kernel for a call with these inputs. Networks of one input have kernels by its type, which start sooner.
pub(super) fn normalize_kernel(inputs: &[Normalizer], windows: bool) -> &'static CStr {
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

/// The publish kernel for an answer that comes in band, or else behind its flag.
pub(super) fn publish_kernel(in_band: bool) -> &'static CStr {
    if in_band { c"tickrt_publish_in_band" } else { c"tickrt_publish" }
}

/// Elements that a thread of the normalise kernel takes at once: `Word<T>::kElements`.
fn elements_a_thread(normalizer: &Normalizer, windows: bool) -> usize {
    if windows { 1 } else { (4 / normalizer.input_type.size()).max(1) }
}

/// Blocks of 256 threads for a call with these inputs; more work than that many threads is done in turns.
pub(super) fn blocks(inputs: &[Normalizer], windows: bool) -> u32 {
    let threads = |input: &Normalizer| input.count.div_ceil(elements_a_thread(input, windows));
    inputs.iter().map(threads).max().unwrap_or(1).div_ceil(256).clamp(1, 256) as u32
}

impl PublishParams {
    /// One warp is enough, and starts sooner than a block.
    pub(super) fn threads(&self) -> u32 {
        if self.tensors.iter().all(|tensor| tensor.count <= 512) { 32 } else { 256 }
    }
}

/// Where the memory of an input lies, as the kernel sees it.
#[derive(Clone, Copy)]
pub(super) struct Addresses {
    pub(super) source: u64,
    pub(super) destination: u64,
    pub(super) means: u64,
    pub(super) stds: u64,
    /// 0 without windows.
    pub(super) ring: u64,
}

impl NormalizeTensor {
    /// `row` is the length of a rolling window's row, 0 without.
    pub(super) fn new(normalizer: &Normalizer, row: usize, at: Addresses) -> Self {
        let (non_finite, replacement) = match normalizer.non_finite {
            NonFinite::Pass => (0, 0.0),
            NonFinite::Replace(value) => (1, value),
            NonFinite::Refuse => (2, 0.0),
        };
        Self {
            source: at.source,
            destination: at.destination,
            means: at.means,
            stds: at.stds,
            mean: normalizer.mean.first().copied().unwrap_or_default(),
            std: normalizer.std.first().copied().unwrap_or_default(),
            ring: at.ring,
            count: normalizer.count as u32,
            spatial: normalizer.spatial as u32,
            channels: Divisor::new(normalizer.channels),
            sample: Divisor::new(normalizer.spatial * normalizer.channels),
            stat_inner: Divisor::new(normalizer.stat_inner),
            stat_count: Divisor::new(normalizer.mean.len()),
            input_type: normalizer.input_type as u32,
            output_type: normalizer.output_type as u32,
            non_finite,
            copy_bytes: if normalizer.copy { normalizer.input_bytes() as u32 } else { 0 },
            lowest: normalizer.clamp[0],
            highest: normalizer.clamp[1],
            replacement,
            rows: normalizer.count.checked_div(row).unwrap_or(0) as u32,
            row: Divisor::new(row),
            unused: 0,
        }
    }
}

impl PublishTensor {
    /// Of a tensor of type `network`, delivered as `delivered`.
    pub(super) fn new(network: DataType, delivered: &OutputShape, source: u64, destination: u64) -> Self {
        let converts = delivered.data_type != network;
        Self {
            source,
            destination,
            count: if converts { delivered.count } else { delivered.bytes() } as u32,
            convert_from: if converts { network } else { DataType::F32 } as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn divisor_divides(n in 0_u32..1 << 31, divisor in 1_u32..1 << 31, small in 1_u32..5000) {
            for divisor in [divisor, small] {
                prop_assert_eq!(Divisor::new(divisor as usize).divide(n), n / divisor);
            }
        }
    }

    #[test]
    fn divisor_divides_at_the_edges() {
        for divisor in [1, 2, 3, 7, 8, 255, 256, 257, (1 << 31) - 1, 1 << 31, u32::MAX >> 1] {
            for n in [0, 1, divisor - 1, divisor, divisor.saturating_mul(2), (1 << 31) - 1] {
                let n = n.min((1 << 31) - 1);
                assert_eq!(Divisor::new(divisor as usize).divide(n), n / divisor, "{n} / {divisor}");
            }
        }
    }
}

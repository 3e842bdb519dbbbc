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
    pub(super) came: u64,
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
pub(super) struct Element {
    pub(super) mean: f32,
    pub(super) std: f32,
    pub(super) to: u32,
    pub(super) unused: u32,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct SmallParams {
    pub(super) header: u64,
    pub(super) state: u64,
    pub(super) source: u64,
    pub(super) destination: u64,
    pub(super) elements: u64,
    pub(super) count: u32,
    pub(super) patience_us: u32,
    pub(super) non_finite: u32,
    pub(super) lowest: f32,
    pub(super) highest: f32,
    pub(super) replacement: f32,
}

const _: () = assert!(size_of::<SmallParams>() == 64, "one line");

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

impl PublishParams {
    /// The kernel for an answer that comes in band, or else behind its flag.
    pub(super) fn kernel(&self, in_band: bool) -> &'static CStr {
        match in_band {
            true if self.is_one_of_words() => c"tickrt_publish_words",
            true => c"tickrt_publish_in_band",
            false => c"tickrt_publish",
        }
    }

    /// Threads for any of the kernels. One warp starts sooner than a block.
    pub(super) fn threads(&self, in_band: bool) -> u32 {
        match self.tensors.iter().map(|tensor| tensor.count).max() {
            Some(bytes) if in_band && self.is_one_of_words() => (bytes / 4).next_multiple_of(32),
            Some(0..=512) | None => 32,
            Some(_) => 256,
        }
    }

    fn is_one_of_words(&self) -> bool {
        self.tensor_count == 1 && self.tensors[0].convert_from == DataType::F32 as u32
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

/// How `kernels/params.h` says what is done with NaN and infinity, and what is put in their place.
fn non_finite(normalizer: &Normalizer) -> (u32, f32) {
    match normalizer.non_finite {
        NonFinite::Pass => (0, 0.0),
        NonFinite::Replace(value) => (1, value),
        NonFinite::Refuse => (2, 0.0),
    }
}

impl Element {
    /// What becomes of each element of an input that is not copied.
    pub(super) fn table(normalizer: &Normalizer) -> Vec<Self> {
        let elements = normalizer.elements().into_iter();
        elements.map(|(mean, std, to)| Self { mean, std, to, unused: 0 }).collect()
    }
}

impl SmallParams {
    /// Of an input that lies at `source`, all but where the call's own parts are.
    pub(super) fn new(normalizer: &Normalizer, source: u64, destination: u64, elements: u64) -> Self {
        let (non_finite, replacement) = non_finite(normalizer);
        Self {
            header: 0,
            state: 0,
            source,
            destination,
            elements,
            count: if normalizer.copy { normalizer.input_words() } else { normalizer.count } as u32,
            patience_us: 0,
            non_finite,
            lowest: normalizer.clamp[0],
            highest: normalizer.clamp[1],
            replacement,
        }
    }
}

impl NormalizeTensor {
    /// `row` is the length of a rolling window's row, 0 without.
    pub(super) fn new(normalizer: &Normalizer, row: usize, at: Addresses) -> Self {
        let (non_finite, replacement) = non_finite(normalizer);
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

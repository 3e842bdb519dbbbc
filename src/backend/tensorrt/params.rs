//! The structures of `kernels/params.h`; `tests/kernels.rs` compares their sizes with those that nvcc gives them.

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

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct NormalizeTensor {
    pub(super) source: u64,
    pub(super) destination: u64,
    pub(super) mean: u64,
    pub(super) std: u64,
    pub(super) ring: u64,
    pub(super) count: u32,
    pub(super) spatial: u32,
    pub(super) channels: u32,
    pub(super) stat_inner: u32,
    pub(super) stat_count: u32,
    pub(super) input_type: u32,
    pub(super) output_type: u32,
    pub(super) non_finite: u32,
    pub(super) copy_bytes: u32,
    pub(super) lowest: f32,
    pub(super) highest: f32,
    pub(super) replacement: f32,
    pub(super) rows: u32,
    pub(super) row: u32,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct NormalizeParams {
    pub(super) header: u64,
    pub(super) state: u64,
    pub(super) tensor_count: u32,
    pub(super) unused: u32,
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

impl PublishParams {
    /// One warp is enough, and starts sooner than a block.
    pub(super) fn is_small(&self) -> bool {
        self.tensors.iter().all(|tensor| tensor.count <= 512)
    }
}

/// Where the memory of an input lies, as the kernel sees it.
#[derive(Clone, Copy)]
pub(super) struct Addresses {
    pub(super) source: u64,
    pub(super) destination: u64,
    pub(super) mean: u64,
    pub(super) std: u64,
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
            mean: at.mean,
            std: at.std,
            ring: at.ring,
            count: normalizer.count as u32,
            spatial: normalizer.spatial as u32,
            channels: normalizer.channels as u32,
            stat_inner: normalizer.stat_inner as u32,
            stat_count: normalizer.mean.len() as u32,
            input_type: normalizer.input_type as u32,
            output_type: normalizer.output_type as u32,
            non_finite,
            copy_bytes: if normalizer.copy { normalizer.input_bytes() as u32 } else { 0 },
            lowest: normalizer.clamp[0],
            highest: normalizer.clamp[1],
            replacement,
            rows: normalizer.count.checked_div(row).unwrap_or(0) as u32,
            row: row as u32,
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

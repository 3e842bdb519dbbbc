//! Inputs made up, the same on every machine.

use super::Values;
use crate::error::{Error, ErrorKind, Result};
use crate::normalize::Normalizer;
use crate::tensor::{DataType, TensorInfo};

/// SplitMix64: short, and the same on every machine. Holds its seed.
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Above 0, up to 1.
    #[must_use = "it is made for its value"]
    pub fn uniform(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    /// Box and Muller's.
    fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }

    pub(super) fn normal_for(&mut self, normalizer: &Normalizer, element: usize) -> f64 {
        let pair = (element / normalizer.stat_inner) % normalizer.mean.len();
        normalizer.mean[pair] + normalizer.std[pair] * self.normal()
    }
}

/// Rounded and kept in range by `as`, where the type is an integer.
pub(super) fn typed(data_type: DataType, values: impl Iterator<Item = f64>, tensor: &TensorInfo) -> Result<Values> {
    Ok(match data_type {
        DataType::F32 => Values::F32(values.map(|value| value as f32).collect()),
        DataType::F64 => Values::F64(values.collect()),
        DataType::F16 => Values::F16(values.map(half::f16::from_f64).collect()),
        DataType::I8 => Values::I8(values.map(|value| value.round() as i8).collect()),
        DataType::U8 => Values::U8(values.map(|value| value.round() as u8).collect()),
        DataType::I16 => Values::I16(values.map(|value| value.round() as i16).collect()),
        DataType::I32 => Values::I32(values.map(|value| value.round() as i32).collect()),
        DataType::I64 => Values::I64(values.map(|value| value.round() as i64).collect()),
        DataType::Bf16 | DataType::Bool => {
            return Err(Error::new(ErrorKind::Unsupported, format!("make up numbers for input `{}`", tensor.name))
                .expected("an input of numbers other than bf16")
                .got(data_type.to_string())
                .advice("give the input as a file"));
        }
    })
}

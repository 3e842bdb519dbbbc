//! Element types, tensors' names and shapes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The type of a tensor's elements (`nvinfer1::DataType`, ONNX's `TensorProto.DataType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum DataType {
    /// 32-bit float.
    F32 = 0,
    /// 16-bit IEEE float.
    F16 = 1,
    /// 16-bit brain float.
    Bf16 = 2,
    /// 64-bit float.
    F64 = 3,
    /// 8-bit signed integer.
    I8 = 4,
    /// 8-bit unsigned integer.
    U8 = 5,
    /// 16-bit signed integer.
    I16 = 6,
    /// 32-bit signed integer.
    I32 = 7,
    /// 64-bit signed integer.
    I64 = 8,
    /// One byte, 0 or 1.
    Bool = 9,
}

impl DataType {
    /// Bytes an element.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::I8 | Self::U8 | Self::Bool => 1,
            Self::F16 | Self::Bf16 | Self::I16 => 2,
            Self::F32 | Self::I32 => 4,
            Self::F64 | Self::I64 => 8,
        }
    }

    /// Whether elements of it are handed over as `handed`: as themselves, and a bool, for which Rust has no type of which
    /// every byte is a value, as the byte that it is.
    #[must_use]
    pub const fn is_handed_over_as(self, handed: Self) -> bool {
        self as u32 == handed as u32 || matches!((self, handed), (Self::Bool, Self::U8))
    }

    /// Whether NaN and infinity exist in it.
    #[must_use]
    pub const fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F16 | Self::Bf16 | Self::F64)
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::F64 => "f64",
            Self::I8 => "i8",
            Self::U8 => "u8",
            Self::I16 => "i16",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::Bool => "bool",
        };
        f.pad(name)
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A Rust type that a tensor's elements can be handed over as: a bool's as `u8`, 0 or 1.
pub trait Element: bytemuck::Pod + sealed::Sealed {
    /// Its [`DataType`].
    const TYPE: DataType;
}

macro_rules! element {
    ($($rust:ty => $name:ident),* $(,)?) => {
        $(impl sealed::Sealed for $rust {}
        impl Element for $rust { const TYPE: DataType = DataType::$name; })*
    };
}
element! {
    f32 => F32, half::f16 => F16, half::bf16 => Bf16, f64 => F64,
    i8 => I8, u8 => U8, i16 => I16, i32 => I32, i64 => I64,
}

/// Whether a tensor goes into the network or comes out of it (`nvinfer1::TensorIOMode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IoMode {
    /// Goes in.
    Input,
    /// Comes out.
    Output,
}

/// An input or output of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorInfo {
    /// Its name in the ONNX model.
    pub name: String,
    /// Input or output.
    pub mode: IoMode,
    /// Type of its elements, as the network has it.
    #[serde(rename = "type")]
    pub data_type: DataType,
    /// Its dimensions; −1 where a dimension is dynamic.
    pub shape: Vec<i64>,
}

impl TensorInfo {
    /// Elements in it, if no dimension is dynamic.
    #[must_use]
    pub fn elements(&self) -> Option<usize> {
        elements(&self.shape)
    }
}

/// Elements in a shape, if no dimension is dynamic and the product fits.
#[must_use]
pub fn elements(shape: &[i64]) -> Option<usize> {
    shape.iter().try_fold(1_usize, |product, &dimension| product.checked_mul(usize::try_from(dimension).ok()?))
}

/// A shape as trtexec writes it: `1x8x32`.
#[must_use]
pub fn format_shape(shape: &[i64]) -> String {
    shape.iter().map(i64::to_string).collect::<Vec<_>>().join("x")
}

/// One shape for each named tensor, as `in0:1x3x8,in1:1x2`.
pub type Shapes = std::collections::BTreeMap<String, Vec<i64>>;

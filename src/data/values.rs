//! Elements of a type that is known at run time only.

use std::ops::Range;

use half::f16;

use crate::error::Result;
use crate::session::Outputs;
use crate::tensor::{DataType, Element};

macro_rules! values {
    ($($name:ident($rust:ty)),* $(,)?) => {
        /// Elements of one type.
        #[derive(Debug, Clone, PartialEq)]
        #[non_exhaustive]
        pub enum Values {
            $(#[doc = concat!("Of `", stringify!($rust), "`.")] $name(Vec<$rust>),)*
        }

        impl Values {
            /// None yet, of type `data_type`; `None` for a type that has no counterpart here (bf16).
            #[must_use]
            pub fn empty(data_type: DataType) -> Option<Self> {
                match data_type {
                    $(DataType::$name => Some(Self::$name(Vec::new())),)*
                    DataType::Bool => Some(Self::U8(Vec::new())),
                    _ => None,
                }
            }

            /// From little-endian bytes; `None` if they are no whole number of elements.
            #[must_use]
            pub fn from_bytes(data_type: DataType, bytes: &[u8]) -> Option<Self> {
                let (chunks, rest) = (bytes.chunks_exact(data_type.size()), bytes.len() % data_type.size());
                match Self::empty(data_type).filter(|_| rest == 0)? {
                    $(Self::$name(_) => {
                        Some(Self::$name(chunks.map(bytemuck::pod_read_unaligned::<$rust>).collect()))
                    })*
                }
            }

            /// Their type.
            #[must_use]
            pub fn data_type(&self) -> DataType {
                match self { $(Self::$name(_) => <$rust>::TYPE,)* }
            }

            /// How many.
            #[must_use]
            pub fn len(&self) -> usize {
                match self { $(Self::$name(values) => values.len(),)* }
            }

            /// As little-endian bytes.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8] {
                match self { $(Self::$name(values) => bytemuck::cast_slice(values),)* }
            }

            /// Some of them.
            #[must_use]
            pub fn slice(&self, range: Range<usize>) -> Self {
                match self { $(Self::$name(values) => Self::$name(values[range].to_vec()),)* }
            }

            /// One of them as f64, for comparing; i64 beyond 2⁵³ is rounded.
            #[must_use]
            pub fn get(&self, index: usize) -> f64 {
                match self { $(Self::$name(values) => ToF64::to_f64(values[index]),)* }
            }

            /// Adds the elements of output number `output`.
            ///
            /// # Errors
            /// [`ErrorKind::UnknownTensor`](crate::ErrorKind::UnknownTensor), and
            /// [`ErrorKind::WrongType`](crate::ErrorKind::WrongType) for another type.
            pub fn extend_from(&mut self, outputs: &Outputs<'_>, output: usize) -> Result<()> {
                match self { $(Self::$name(values) => values.extend_from_slice(outputs.slice::<$rust>(output)?),)* }
                Ok(())
            }

            /// Adds the elements of `others`, if they are of the same type.
            pub fn extend(&mut self, others: &Self) {
                match (self, others) {
                    $((Self::$name(values), Self::$name(others)) => values.extend_from_slice(others),)*
                    _ => {}
                }
            }

            /// Copies output number `output` into the elements from `offset` on: nothing is allocated.
            ///
            /// # Errors
            /// As [`extend_from`](Self::extend_from), and
            /// [`ErrorKind::WrongLength`](crate::ErrorKind::WrongLength) if they do not fit.
            #[inline]
            pub fn copy_from(&mut self, offset: usize, outputs: &Outputs<'_>, output: usize) -> Result<()> {
                match self { $(Self::$name(values) => outputs.copy(output, &mut values[offset..])?,)* }
                Ok(())
            }

            /// Writes some of them into an input.
            ///
            /// # Errors
            /// Those of [`InputSlot::write`](crate::InputSlot::write).
            #[inline]
            pub fn write_to(&self, range: Range<usize>, slot: &mut impl super::WriteInput, name: Option<&str>) -> Result<()> {
                match self { $(Self::$name(values) => slot.write_input(name, &values[range]),)* }
            }
        }
    };
}
values! { F32(f32), F64(f64), F16(f16), I8(i8), U8(u8), I16(i16), I32(i32), I64(i64) }

impl Values {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The place of the greatest of some of them: the class that a classifier answers. The first of equals; NaN is never
    /// it.
    #[must_use]
    pub fn argmax(&self, range: Range<usize>) -> usize {
        let first = range.start;
        let mut best = (0, f64::NEG_INFINITY);
        for index in range {
            if self.get(index) > best.1 {
                best = (index - first, self.get(index));
            }
        }
        best.0
    }
}

trait ToF64 {
    fn to_f64(self) -> f64;
}
macro_rules! to_f64 {
    ($($lossless:ty),*) => { $(impl ToF64 for $lossless { fn to_f64(self) -> f64 { self.into() } })* };
}
to_f64!(f32, f64, f16, i8, u8, i16, i32);
impl ToF64 for i64 {
    fn to_f64(self) -> f64 {
        self as f64
    }
}

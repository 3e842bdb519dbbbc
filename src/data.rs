//! Arrays on disk, and how they become calls: NumPy's `.npy` and raw bytes in, `.npy` out.
//!
//! For the tool, for calibration and for benchmarks; a program that answers live data has no use for it. Stands behind
//! the feature `tool`.

mod feed;
mod file;
mod npy;
mod random;
mod values;

use std::path::{Path, PathBuf};

pub(crate) use self::feed::check;
pub use self::feed::{Feed, WriteInput};
pub use self::file::{ArrayFile, ArrayWriter};
pub use self::random::Random;
pub use self::values::Values;
use crate::error::{Error, ErrorKind, Result};
use crate::files;
use crate::tensor::{DataType, format_shape};

/// Elements in C order and their shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Dimensions; none for a single number.
    pub shape: Vec<usize>,
    /// The elements.
    pub values: Values,
    /// The file they came from, for the text of errors.
    path: Option<PathBuf>,
}

impl Array {
    /// An array in memory.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if the shape has another number of elements.
    pub fn new(shape: &[usize], values: Values) -> Result<Self> {
        let count = shape.iter().try_fold(1_usize, |product, &dimension| product.checked_mul(dimension));
        if count != Some(values.len()) {
            return Err(Error::new(ErrorKind::InvalidArgument, "make an array")
                .expected(format!("the elements of shape {}", shown(shape)))
                .got(values.len().to_string()));
        }
        Ok(Self { shape: shape.to_vec(), values, path: None })
    }

    /// Reads a `.npy` file: C order, little-endian, f32, f64, f16, u8, i8, i16, i32, i64 or bool (as u8).
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if it cannot be read, [`ErrorKind::InvalidArgument`] if it is no such array.
    pub fn read_npy(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let operation = || format!("read the array {}", path.display());
        Self::from_npy(&files::read(path, operation)?, path)
    }

    /// The content of a `.npy` file; `path` is for the text of errors.
    pub(crate) fn from_npy(bytes: &[u8], path: &Path) -> Result<Self> {
        let (shape, values) = npy::decode(bytes).map_err(|fault| {
            Error::new(ErrorKind::InvalidArgument, format!("read the array {}", path.display()))
                .expected(fault.expected)
                .got(fault.got)
                .advice(fault.advice)
        })?;
        Ok(Self { shape, values, path: Some(path.to_path_buf()) })
    }

    /// Reads raw little-endian elements: as many samples of `sample` elements as the file holds.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if it cannot be read, [`ErrorKind::InvalidArgument`] if it does not hold whole samples.
    pub fn read_raw(path: impl AsRef<Path>, data_type: DataType, sample: usize) -> Result<Self> {
        let path = path.as_ref();
        let operation = || format!("read the raw array {}", path.display());
        let bytes = files::read(path, operation)?;
        let wants = sample.saturating_mul(data_type.size()).max(1);
        let values = Values::from_bytes(data_type, &bytes).filter(|_| !bytes.is_empty() && bytes.len() % wants == 0);
        let values = values.ok_or_else(|| {
            Error::new(ErrorKind::InvalidArgument, operation())
                .expected(format!("a multiple of {wants} bytes ({sample} {data_type} a sample)"))
                .got(format!("{} bytes", bytes.len()))
        })?;
        Ok(Self { shape: vec![values.len() / sample.max(1), sample], values, path: Some(path.to_path_buf()) })
    }

    /// Writes it as `.npy`: all of it or nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Io`]: nothing is left behind then.
    pub fn write_npy(&self, path: impl AsRef<Path>) -> Result<()> {
        files::write_atomically(path.as_ref(), &npy::encode(&self.shape, &self.values))
    }

    /// For the text of errors.
    fn name(&self) -> String {
        self.path.as_ref().map_or_else(|| "the array".to_owned(), |path| path.display().to_string())
    }
}

fn shown(shape: &[usize]) -> String {
    let shape: Vec<i64> = shape.iter().map(|&dimension| i64::try_from(dimension).unwrap_or(i64::MAX)).collect();
    if shape.is_empty() { "() (a single number)".to_owned() } else { format_shape(&shape) }
}

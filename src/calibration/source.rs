//! Where batches come from.

use crate::error::{Error, ErrorKind, Result};
use crate::tensor::Element;

/// A source of batches for calibration.
///
/// An error ends the build with that error, and a panic with its message; neither unwinds through TensorRT.
pub trait CalibrationSource: Send {
    /// Writes the next batch, one slice for each input of the network, in its order: the elements of one call as its
    /// caller would hand them over, before the normalisation, little-endian. The slices are aligned for any element.
    /// `false`: there are no more, and nothing was written.
    ///
    /// # Errors
    /// Whatever the source wants the build to end with.
    fn next(&mut self, inputs: &mut [&mut [u8]]) -> Result<bool>;

    /// How many there are in all, if that is known.
    fn batches(&self) -> Option<usize> {
        None
    }

    /// A hash of all the data, if that is known: without it a cache file is only ever written.
    fn identity(&mut self) -> Option<[u8; 32]> {
        None
    }
}

/// An iterator over the one input of a network.
pub(super) struct FromIterator<I>(pub(super) I);

impl<T: Element, I: Iterator<Item = Vec<T>> + Send> CalibrationSource for FromIterator<I> {
    fn next(&mut self, inputs: &mut [&mut [u8]]) -> Result<bool> {
        let [input] = inputs else {
            return Err(Error::new(ErrorKind::InvalidArgument, "calibrate from an iterator")
                .expected("a network of one input")
                .got(inputs.len().to_string())
                .advice("implement CalibrationSource"));
        };
        let Some(sample) = self.0.next() else { return Ok(false) };
        let bytes: &[u8] = bytemuck::cast_slice(&sample);
        if bytes.len() != input.len() {
            let (expected, got) = (input.len() / size_of::<T>(), sample.len());
            return Err(Error::new(ErrorKind::WrongLength { expected, got }, "calibrate from an iterator")
                .expected(format!("{expected} elements of {} a batch", T::TYPE))
                .got(got.to_string()));
        }
        input.copy_from_slice(bytes);
        Ok(true)
    }
}

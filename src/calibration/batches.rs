//! Batches as the network takes them: drawn from the source, normalised, looked at.

use std::panic::{AssertUnwindSafe, catch_unwind};

use half::f16;

use super::{Calibration, CalibrationSource, Listener};
use crate::builder::panic_message;
use crate::config::SessionConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::normalize::Normalizer;
use crate::onnx::Model;
use crate::tensor::{DataType, TensorInfo, elements};

/// Batches, one after the other.
pub(crate) struct Batches {
    source: Box<dyn CalibrationSource>,
    listener: Option<Listener>,
    most: usize,
    seen: usize,
    inputs: Vec<Input>,
}

/// An input of the network and its elements in the current batch.
pub(crate) struct Input {
    pub(crate) tensor: TensorInfo,
    /// As the network has it in a batch.
    pub(crate) shape: Vec<i64>,
    normalizer: Normalizer,
    handed_over: Aligned,
    normalized: Aligned,
}

impl Input {
    /// The current batch, normalised.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.normalized.bytes()
    }
}

/// Bytes that are aligned for any element.
struct Aligned {
    words: Vec<u64>,
    bytes: usize,
}

impl Aligned {
    fn new(bytes: usize) -> Self {
        Self { words: vec![0; bytes.div_ceil(8)], bytes }
    }

    fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.bytes]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.words)[..self.bytes]
    }
}

/// The shape of each input in a batch, and its normaliser: dynamic dimensions that nothing tells are a batch of 1.
pub(super) fn resolve(
    model: &Model,
    normalizations: &[crate::Normalization],
    shapes: &crate::Shapes,
) -> Result<Vec<(Vec<i64>, Normalizer)>> {
    let config = SessionConfig {
        shapes: vec![shapes.clone()],
        normalizations: Some(normalizations.to_vec()),
        ..SessionConfig::default()
    };
    let resolved = config.resolve(model.tensors(), |tensor| {
        let mut shape = tensor.shape.clone();
        shape.first_mut().filter(|batch| **batch < 0).map(|batch| *batch = 1)?;
        elements(&shape).map(|_| shape)
    })?;
    let shape = resolved.into_iter().next().expect("one shape was announced");
    Ok(shape.dimensions.into_iter().zip(shape.normalizers).collect())
}

impl Batches {
    /// Those of `calibration`, for `model`; none if it has no source.
    pub(crate) fn new(model: &Model, calibration: &mut Calibration) -> Result<Option<Self>> {
        let Some(source) = calibration.source.take() else { return Ok(None) };
        if calibration.most == Some(0) {
            return Err(empty("0 batches were asked for"));
        }
        let resolved = resolve(model, &calibration.normalizations, &calibration.shapes)?;
        let inputs = model.inputs().iter().zip(resolved).map(|(tensor, (shape, normalizer))| Input {
            tensor: tensor.clone(),
            shape,
            handed_over: Aligned::new(normalizer.input_bytes()),
            normalized: Aligned::new(normalizer.output_bytes()),
            normalizer,
        });
        Ok(Some(Self {
            source,
            listener: calibration.listener.take(),
            most: calibration.most.unwrap_or(usize::MAX),
            seen: 0,
            inputs: inputs.collect(),
        }))
    }

    /// The inputs with the current batch.
    pub(crate) fn inputs(&self) -> &[Input] {
        &self.inputs
    }

    /// Draws the next batch; `false` at the end, which is an error before the first one.
    pub(crate) fn next(&mut self) -> Result<bool> {
        let number = self.seen;
        if number == self.most || !self.draw()? {
            return if number == 0 { Err(empty("none")) } else { Ok(false) };
        }
        for input in &mut self.inputs {
            input.normalize().map_err(|error| {
                Error::new(error.kind(), format!("calibrate with batch {number}: input `{}`", input.tensor.name))
                    .expected("finite numbers")
                    .got(error.to_string())
                    .advice("take samples with NaN or infinity out, or have the normalisation replace them")
            })?;
        }
        self.seen += 1;
        let all = self.source.batches().map(|all| all.min(self.most));
        if let Some(listener) = &mut self.listener {
            listener(self.seen, all);
        }
        Ok(true)
    }

    fn draw(&mut self) -> Result<bool> {
        let mut slices: Vec<&mut [u8]> = self.inputs.iter_mut().map(|input| input.handed_over.bytes_mut()).collect();
        let source = &mut self.source;
        // After a panic the source is not asked again: a state that it broke is not seen.
        catch_unwind(AssertUnwindSafe(|| source.next(&mut slices))).unwrap_or_else(|payload| {
            Err(Error::new(ErrorKind::InvalidArgument, "calibrate")
                .got(format!("the source of the data panicked: {}", panic_message(payload.as_ref())))
                .advice("mend the source; the build itself did not fail"))
        })
    }
}

impl Input {
    fn normalize(&mut self) -> Result<()> {
        self.normalizer.apply(self.handed_over.bytes(), self.normalized.bytes_mut())?;
        let bytes = self.normalized.bytes();
        let bad = match self.tensor.data_type {
            DataType::F32 => bytemuck::cast_slice::<u8, f32>(bytes).iter().position(|value| !value.is_finite()),
            DataType::F16 => bytemuck::cast_slice::<u8, f16>(bytes).iter().position(|value| !value.is_finite()),
            _ => None,
        };
        bad.map_or(Ok(()), |place| {
            Err(Error::new(ErrorKind::NonFiniteInput, format!("NaN or infinity at element {place}")))
        })
    }
}

fn empty(got: &str) -> Error {
    Error::new(ErrorKind::InvalidArgument, "calibrate for INT8")
        .expected("at least one batch, better some hundreds")
        .got(got)
        .advice("give samples from the training data: a .npy file of some hundreds of them")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibration::CalibrationMethod;
    use crate::test_support::{assert_refused, root};

    fn batches(calibration: Calibration) -> Result<Batches> {
        let model = Model::read(root().join("models/mlp.onnx")).unwrap();
        Batches::new(&model, &mut { calibration }).map(|batches| batches.expect("a source"))
    }

    fn minmax() -> Calibration {
        Calibration::new(CalibrationMethod::MinMax)
    }

    #[test]
    fn batches_end_with_the_data_or_where_they_were_told_and_tell_how_far_they_are() {
        let told = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let tells = told.clone();
        let calibration = minmax().samples(vec![vec![1.0_f32; 256]; 3]).most_batches(2);
        let calibration = calibration.progress(move |done, all| tells.lock().unwrap().push((done, all)));
        let mut batches = batches(calibration).unwrap();
        assert!(batches.next().unwrap() && batches.next().unwrap() && !batches.next().unwrap());
        assert_eq!(*told.lock().unwrap(), [(1, None), (2, None)]);
        assert_eq!(batches.inputs()[0].bytes(), bytemuck::cast_slice::<f32, u8>(&[1.0; 256]));
    }

    #[test]
    fn empty_data_wrong_length_and_nan_are_refused() {
        let none = batches(minmax().samples(Vec::<Vec<f32>>::new())).unwrap().next();
        assert_refused(none, ErrorKind::InvalidArgument, &["at least one batch", "got none"]);
        let zero = batches(minmax().samples(vec![vec![1.0_f32; 256]]).most_batches(0));
        assert_refused(zero, ErrorKind::InvalidArgument, &["0 batches were asked for"]);
        let short = batches(minmax().samples(vec![vec![1.0_f32; 255]])).unwrap().next();
        let kind = ErrorKind::WrongLength { expected: 256, got: 255 };
        assert_refused(short, kind, &["256 elements of f32 a batch, got 255"]);
        let mut batches = batches(minmax().samples(vec![vec![1.0_f32; 256], vec![f32::NAN; 256]])).unwrap();
        assert!(batches.next().unwrap());
        let words = ["calibrate with batch 1: input `input`", "NaN or infinity at element 0"];
        assert_refused(batches.next(), ErrorKind::NonFiniteInput, &words);
    }

    #[test]
    fn source_that_panics_or_fails_is_an_error_with_its_words() {
        struct Broken(bool);
        impl CalibrationSource for Broken {
            fn next(&mut self, _: &mut [&mut [u8]]) -> Result<bool> {
                assert!(!self.0, "the disk is on fire");
                Err(Error::new(ErrorKind::Io, "read day 7"))
            }
        }
        let panicked = batches(minmax().source(Broken(true))).unwrap().next();
        assert_refused(panicked, ErrorKind::InvalidArgument, &["panicked: the disk is on fire", "mend the source"]);
        let failed = batches(minmax().source(Broken(false))).unwrap().next();
        assert_refused(failed, ErrorKind::Io, &["read day 7"]);
    }
}

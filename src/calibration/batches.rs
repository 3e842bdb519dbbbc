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

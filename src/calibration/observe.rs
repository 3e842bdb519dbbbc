//! The network run over the data in ONNX Runtime, and what its tensors were.

use std::collections::BTreeMap;

use super::histogram::Histogram;
use super::{Batches, Calibration, CalibrationMethod, CalibrationTable, no_data};
use crate::backend::ort::ExposedSession;
use crate::error::{Error, ErrorKind, Result};
use crate::onnx::Model;
use crate::tensor::DataType;

/// How large the values of every tensor were.
#[derive(Debug, Clone)]
pub struct Ranges {
    histograms: BTreeMap<String, Histogram>,
}

impl Ranges {
    /// The scales that `method` chooses.
    #[must_use]
    pub fn table(&self, method: CalibrationMethod) -> CalibrationTable {
        const STEPS: f32 = 127.0;
        let name = match method {
            CalibrationMethod::Entropy => "Entropy",
            CalibrationMethod::MinMax => "MinMax",
            CalibrationMethod::Percentile(_) => "Percentile",
            CalibrationMethod::Mse => "Mse",
        };
        let scales =
            self.histograms.iter().map(|(tensor, histogram)| (tensor.clone(), histogram.range(method) / STEPS));
        // Not TensorRT's name: it must not take this for one of its own, whose tensors may be named otherwise.
        CalibrationTable { header: format!("tickrt-{name}Calibration"), scales: scales.collect() }
    }
}

/// Runs `model` over the calibration's data on the CPU, every intermediate tensor exposed. One run serves all methods.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] without data, or for data with NaN in it; those of the source and of ONNX Runtime;
/// [`ErrorKind::OnnxRuntimeMissing`]; [`ErrorKind::Untrusted`] in production.
pub fn observe(model: &Model, mut calibration: Calibration) -> Result<Ranges> {
    crate::trust::refuse_in_production("calibrate an ONNX model", "calibrate, build and sign it elsewhere")?;
    model.check_quantizable()?;
    let mut batches = Batches::new(model, &mut calibration)?.ok_or_else(|| no_data("none"))?;
    let exposed = model.expose()?;
    let mut session = ExposedSession::new(model, &exposed)?;
    let mut histograms: BTreeMap<String, Histogram> = BTreeMap::new();
    let mut number = 0;
    while batches.next()? {
        let mut see = |tensor: &str, values: &[f32]| -> Result<()> {
            let histogram = histograms.entry(tensor.to_owned()).or_insert_with(Histogram::new);
            histogram.add(values).map_err(|place| {
                Error::new(ErrorKind::InvalidArgument, format!("calibrate with batch {number}"))
                    .expected("finite numbers")
                    .got(format!("NaN or infinity in tensor `{tensor}`, element {place}"))
                    .advice("look at the data, or at the network: it fails in FP32 already")
            })
        };
        for input in batches.inputs().iter().filter(|input| input.tensor.data_type == DataType::F32) {
            see(&input.tensor.name, bytemuck::cast_slice(input.bytes()))?;
        }
        let inputs = batches.inputs().iter().map(|input| (input.bytes(), input.tensor.data_type, &input.shape[..]));
        session.run(inputs, &mut see)?;
        number += 1;
    }
    Ok(Ranges { histograms })
}

//! How the precision that was asked for is brought about: by flags and TensorRT's own calibrator where there are any, else
//! in the model.

use std::borrow::Cow;
use std::path::PathBuf;

use super::config::{BuilderConfig, Int8Mode, Precision, PrecisionConstraints};
use super::profile::OptimizationProfile;
use crate::bridge::ffi;
use crate::calibration::{
    Batches, Calibration, CalibrationMethod, CalibrationTable, Calibrator, Found, Key, Scales, no_data, write_cache,
};
use crate::device::Device;
use crate::error::{Error, ErrorKind, Result};
use crate::library::{Flavour, Version};
use crate::onnx::{Keep, Lowered, Model, NodePrecision};

/// A model and all that TensorRT has to be told about its precision.
pub(super) struct Prepared<'model> {
    pub(super) model: Cow<'model, Model>,
    /// What became of each node; none where the model is what was given.
    pub(super) nodes: Option<Vec<NodePrecision>>,
    pub(super) calibrator: Calibrator,
    pub(super) notes: Vec<String>,
    flags: Flags,
    cache: Option<(PathBuf, Key, bool)>,
}

/// What goes to the builder's configuration, without strong typing.
#[derive(Default)]
struct Flags {
    fp16: bool,
    bf16: bool,
    int8: bool,
    fp8: bool,
    keep_fp32: Vec<String>,
    constraints: PrecisionConstraints,
    calibration: Option<CalibrationMethod>,
    /// Where the network is dynamic.
    calibration_shapes: Vec<(String, Vec<i64>)>,
}

impl BuilderConfig {
    /// Whether the network takes every type from the model.
    fn is_typed(&self, flavour: Flavour) -> bool {
        flavour.is_strongly_typed() || self.strongly_typed
    }

    fn int8_by_nodes(&self, flavour: Flavour) -> bool {
        match self.int8_mode {
            Int8Mode::Qdq => true,
            Int8Mode::Native => false,
            Int8Mode::Auto => self.is_typed(flavour),
        }
    }
}

/// Brings about what `config` asks for.
pub(super) fn prepare<'model>(
    model: &'model Model,
    config: &BuilderConfig,
    calibration: Option<Calibration>,
    flavour: Flavour,
    version: Version,
) -> Result<Prepared<'model>> {
    let keep = Keep::new(model, &config.keep_fp32)?;
    if config.fp8 && (config.int8 || config.bf16) {
        return Err(one_of("fp8 with int8 or bf16"));
    }
    refuse_idle_words(config, calibration.as_ref(), &keep)?;
    refuse_gpu(config, flavour, calibration.as_ref().map_or(0, |calibration| calibration.device))?;
    if config.is_typed(flavour) {
        return typed(model, config, calibration, &keep);
    }
    let flags = Flags {
        fp16: config.fp16,
        bf16: config.bf16,
        int8: config.int8,
        fp8: config.fp8,
        keep_fp32: keep.names(model),
        constraints: match config.precision_constraints {
            // Else a kept node would be a hint.
            PrecisionConstraints::None if !keep.is_empty() => PrecisionConstraints::Prefer,
            constraints => constraints,
        },
        ..Flags::default()
    };
    let mut prepared = Prepared::new(model, flags);
    if config.fp8 && !model.is_quantized() {
        let (scales, notes) = calibration.ok_or_else(|| no_data("neither"))?.scales(model)?;
        prepared.notes.extend(notes);
        prepared.take(model.quantize_to_fp8(&scales, &keep)?);
        return Ok(prepared);
    }
    if !config.int8 || model.is_quantized() {
        if let Some(calibration) = &calibration
            && config.int8
            && calibration.source.is_some()
        {
            model.check_quantizable()?;
        }
        return Ok(prepared);
    }
    let mut calibration = calibration.ok_or_else(|| no_data("neither"))?;
    if config.int8_by_nodes(flavour) {
        let (scales, notes) = calibration.scales(model)?;
        prepared.notes.extend(notes);
        prepared.take(model.quantize(&scales, &keep)?);
        return Ok(prepared);
    }
    if calibration.method == CalibrationMethod::Mse {
        return Err(Error::new(ErrorKind::Unsupported, "calibrate with TensorRT itself")
            .expected("entropy, minmax or percentile")
            .got("mse, which TensorRT does not have")
            .advice("choose one of these, or have tickrt calibrate: --int8-mode=qdq"));
    }
    prepared.calibrate_natively(model, &mut calibration, version, config.profiles())?;
    Ok(prepared)
}

/// Every type in the model.
fn typed<'model>(
    model: &'model Model,
    config: &BuilderConfig,
    calibration: Option<Calibration>,
    keep: &Keep,
) -> Result<Prepared<'model>> {
    let mut prepared = Prepared::new(model, Flags::default());
    let half = match (config.fp16, config.bf16) {
        (true, true) => return Err(one_of("fp16 and bf16 at once")),
        (true, false) => Some(Precision::Fp16),
        (false, true) => Some(Precision::Bf16),
        (false, false) => None,
    };
    let quantizes = config.int8 || config.fp8;
    if !quantizes || model.is_quantized() {
        if quantizes && calibration.is_some() {
            model.check_quantizable()?;
        }
        if let Some(half) = half {
            prepared.take(model.to_half(half, keep)?);
        }
        return Ok(prepared);
    }
    if config.int8_mode == Int8Mode::Native {
        return Err(Error::new(ErrorKind::Unsupported, "calibrate with TensorRT itself")
            .expected("TensorRT 8 or 10 without strong typing")
            .got("a network that takes every type from the model")
            .advice("leave --int8-mode out: tickrt calibrates and writes Q/DQ nodes"));
    }
    let calibration = calibration.ok_or_else(|| no_data("neither"))?;
    if half == Some(Precision::Bf16) {
        return Err(one_of("int8 and bf16 at once"));
    }
    let (scales, notes): (Scales, _) = calibration.scales(model)?;
    prepared.notes.extend(notes);
    prepared.take(if config.fp8 {
        if half.is_some() {
            return Err(one_of("fp8 with fp16"));
        }
        model.quantize_to_fp8(&scales, keep)?
    } else if half.is_some() {
        model.quantize_to_half(&scales, keep)?
    } else {
        model.quantize(&scales, keep)?
    });
    Ok(prepared)
}

fn one_of(got: &str) -> Error {
    Error::new(ErrorKind::Unsupported, "build a typed network")
        .expected("one of fp16, bf16, int8, fp8, or fp16 with int8")
        .got(got)
        .advice("each node computes in one type: choose")
}

/// What was said and would change nothing.
fn refuse_idle_words(config: &BuilderConfig, calibration: Option<&Calibration>, keep: &Keep) -> Result<()> {
    let quantizes = config.int8 || config.fp8;
    let lowered = config.fp16 || config.bf16 || quantizes;
    let idle = |what: &str, advice: &str| {
        Err(Error::new(ErrorKind::InvalidArgument, format!("use {what}")).got("nothing that it is for").advice(advice))
    };
    if calibration.is_some() && !quantizes {
        return idle("calibration data", "add --int8 or --fp8, or leave it out");
    }
    if !keep.is_empty() && !lowered {
        return idle("nodes to keep in FP32", "add --fp16 or --int8, or leave them out: all nodes are in FP32");
    }
    Ok(())
}

/// The least compute capability that computes in a precision, and what to do with less.
fn refuse_gpu(config: &BuilderConfig, flavour: Flavour, device: usize) -> Result<()> {
    let capabilities = match (&config.compute_capabilities, flavour) {
        (super::ComputeCapabilities::List(list), Flavour::Rtx) => list.clone(),
        // The first of TensorRT-RTX's own.
        (super::ComputeCapabilities::All, Flavour::Rtx) => vec![80],
        _ => {
            Device::open(device).map(|device| device.compute_capability()).map_or(Vec::new(), |(a, b)| vec![a * 10 + b])
        }
    };
    let asked = [
        (config.fp16, Precision::Fp16, 53, "leave --fp16 out"),
        (config.bf16, Precision::Bf16, 80, "use --fp16"),
        (config.int8, Precision::Int8, 61, "use --fp16"),
        (config.fp8, Precision::Fp8, 89, "use --int8 or --fp16"),
    ];
    for (_, precision, least, advice) in asked.into_iter().filter(|(is_asked, ..)| *is_asked) {
        if let Some(found) = capabilities.iter().find(|found| **found < least) {
            let dotted = |capability: u32| format!("{}.{}", capability / 10, capability % 10);
            return Err(Error::new(ErrorKind::Unsupported, format!("build in {precision}"))
                .expected(format!("a GPU of compute capability {} or newer", dotted(least)))
                .got(dotted(*found))
                .advice(advice));
        }
    }
    Ok(())
}

impl<'model> Prepared<'model> {
    /// The model as it is, with these flags.
    fn new(model: &'model Model, flags: Flags) -> Self {
        Self {
            model: Cow::Borrowed(model),
            nodes: None,
            calibrator: Calibrator::none(),
            notes: Vec::new(),
            flags,
            cache: None,
        }
    }

    fn take(&mut self, lowered: Lowered) {
        self.model = Cow::Owned(lowered.model);
        self.nodes = Some(lowered.nodes);
        self.notes.extend(lowered.notes);
    }

    fn calibrate_natively(
        &mut self,
        model: &Model,
        calibration: &mut Calibration,
        version: Version,
        profiles: &[OptimizationProfile],
    ) -> Result<()> {
        let key = calibration.key(model, &version.to_string());
        let Found { bytes, notes, aside } = calibration.find(&key)?;
        self.notes.extend(notes);
        self.flags.calibration = Some(calibration.method);
        if let Some(bytes) = bytes {
            CalibrationTable::parse(&bytes)?;
            self.calibrator = Calibrator::from_cache(bytes);
            return Ok(());
        }
        let batches = Batches::new(model, calibration)?.ok_or_else(|| no_data("none"))?;
        let dynamic = batches.inputs().iter().filter(|input| input.tensor.elements().is_none());
        self.flags.calibration_shapes = dynamic.map(|input| (input.tensor.name.clone(), input.shape.clone())).collect();
        self.calibrator = Calibrator::from_batches(batches, calibration.device, profiles)?;
        self.cache = calibration.cache.clone().map(|path| (path, key, aside));
        Ok(())
    }

    /// Puts it into the bridge's options.
    pub(super) fn put_into(&self, options: &mut ffi::BuildOptions) {
        let Flags { fp16, bf16, int8, fp8, keep_fp32, constraints, calibration, calibration_shapes } = &self.flags;
        (options.fp16, options.bf16, options.int8, options.fp8) = (*fp16, *bf16, *int8, *fp8);
        options.keep_fp32.clone_from(keep_fp32);
        options.precision_constraints = (*constraints).into();
        (options.calibration, options.calibration_quantile) = match calibration {
            None | Some(CalibrationMethod::Mse) => (ffi::CalibrationAlgorithm::None, 1.0),
            Some(CalibrationMethod::Entropy) => (ffi::CalibrationAlgorithm::Entropy, 1.0),
            Some(CalibrationMethod::MinMax) => (ffi::CalibrationAlgorithm::MinMax, 1.0),
            Some(CalibrationMethod::Percentile(share)) => (ffi::CalibrationAlgorithm::Percentile, share / 100.0),
        };
        let ranges = calibration_shapes.iter().map(|(tensor, shape)| ffi::ShapeRange {
            tensor: tensor.clone(),
            min: shape.clone(),
            opt: shape.clone(),
            max: shape.clone(),
        });
        options.calibration_shapes = ffi::Profile { ranges: ranges.collect() };
    }

    /// Looks at the ranges that TensorRT found and, if they are to be kept, writes them into the cache.
    pub(super) fn keep_calibration(&self) -> Result<()> {
        let Some(made) = self.calibrator.take_made() else { return Ok(()) };
        CalibrationTable::read(&made).map_err(|(_, got)| {
            Error::new(ErrorKind::Build, "calibrate for INT8")
                .expected("a finite range of every tensor from TensorRT")
                .got(got)
                .advice("look at the samples, or have tickrt calibrate: --int8-mode=qdq")
        })?;
        match &self.cache {
            Some((path, key, aside)) => write_cache(path, &made, key, *aside),
            None => Ok(()),
        }
    }
}

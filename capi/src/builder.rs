//! builder.h: from an ONNX model to a plan with its sidecar.

use std::ffi::c_char;
use std::path::Path;

use tickrt::{
    Builder, BuilderConfig, Device, Gpu, Library, Normalization, OptimizationProfile, Plan, Preference, Sidecar,
};

use crate::argument::{elements, given, string};
use crate::error::{Fault, MaybeError, discard, guard};

/// `tickrt_builder`: what a build is asked for.
#[derive(Debug)]
pub struct CBuilder {
    config: BuilderConfig,
    profile: OptimizationProfile,
    preference: Preference,
    normalizations: Vec<Normalization>,
    window_row: Option<usize>,
    device: usize,
    /// As `tickrt build` would be told, for the sidecar: the plan can be built again from it.
    options: Vec<String>,
}

/// `builder.h`: TensorRT's defaults.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_builder_new() -> Box<CBuilder> {
    Box::new(CBuilder {
        config: BuilderConfig::new(),
        profile: OptimizationProfile::default(),
        preference: Preference::Any,
        normalizations: Vec::new(),
        window_row: None,
        device: 0,
        options: Vec::new(),
    })
}

/// `builder.h`: frees it.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_builder_free(builder: Option<Box<CBuilder>>) {
    discard(builder);
}

impl CBuilder {
    fn with(&mut self, option: String, set: impl FnOnce(BuilderConfig) -> BuilderConfig) {
        self.config = set(std::mem::take(&mut self.config));
        self.options.push(option);
    }
}

fn set(builder: Option<&mut CBuilder>, what: impl FnOnce(&mut CBuilder) -> Result<(), Fault>) -> MaybeError {
    guard(|| what(given(builder, "builder")?))
}

/// `builder.h`: the layers' scratch memory.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_builder_set_workspace(builder: Option<&mut CBuilder>, bytes: u64) -> MaybeError {
    set(builder, |builder| {
        builder.with(format!("--max_workspace={bytes}"), |config| config.workspace(bytes));
        Ok(())
    })
}

/// `builder.h`: 16-bit floats.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_builder_set_fp16(builder: Option<&mut CBuilder>) -> MaybeError {
    set(builder, |builder| {
        builder.with("--fp16".to_owned(), |config| config.fp16(true));
        Ok(())
    })
}

/// `builder.h`: no TF32.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_builder_set_no_tf32(builder: Option<&mut CBuilder>) -> MaybeError {
    set(builder, |builder| {
        builder.with("--noTF32".to_owned(), |config| config.tf32(false));
        Ok(())
    })
}

/// `builder.h`: how long TensorRT may search.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_builder_set_optimization_level(builder: Option<&mut CBuilder>, level: u8) -> MaybeError {
    set(builder, |builder| {
        builder.with(format!("--builderOptimizationLevel={level}"), |config| config.builder_optimization_level(level));
        Ok(())
    })
}

/// `builder.h`: the file of measured kernels.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tickrt_builder_set_timing_cache(
    builder: Option<&mut CBuilder>,
    path: *const c_char,
) -> MaybeError {
    set(builder, |builder| {
        // SAFETY: the header's contract.
        let path = unsafe { string(path, "path") }?;
        builder.with(format!("--timingCacheFile={path}"), |config| config.timing_cache_file(path));
        Ok(())
    })
}

/// `builder.h`: the range of a dynamic input.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tickrt_builder_set_shapes(
    builder: Option<&mut CBuilder>,
    input: *const c_char,
    min: *const i64,
    opt: *const i64,
    max: *const i64,
    dimensions: usize,
) -> MaybeError {
    set(builder, |builder| {
        // SAFETY: the header's contract.
        let input = unsafe { string(input, "input") }?;
        let [min, opt, max] = [min, opt, max].map(|shape| {
            // SAFETY: the header's contract.
            unsafe { elements::<i64>(shape.cast(), dimensions) }
        });
        let (min, opt, max) = (min?, opt?, max?);
        for (flag, shape) in [("min", min), ("opt", opt), ("max", max)] {
            builder.options.push(format!("--{flag}Shapes={input}:{}", tickrt::format_shape(shape)));
        }
        builder.profile = std::mem::take(&mut builder.profile).tensor(input, min, opt, max);
        Ok(())
    })
}

/// `builder.h`: what happens to an input before the network.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_builder_add_normalization(
    builder: Option<&mut CBuilder>,
    normalization: Option<&Normalization>,
) -> MaybeError {
    set(builder, |builder| {
        builder.normalizations.push(given(normalization, "normalization")?.clone());
        Ok(())
    })
}

/// `builder.h`: elements of a row of a rolling window.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_builder_set_window_row(builder: Option<&mut CBuilder>, elements: usize) -> MaybeError {
    set(builder, |builder| {
        builder.window_row = Some(elements);
        builder.options.push(format!("--window-row={elements}"));
        Ok(())
    })
}

/// `builder.h`: which TensorRT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tickrt_builder_set_tensorrt(
    builder: Option<&mut CBuilder>,
    which: *const c_char,
) -> MaybeError {
    set(builder, |builder| {
        // SAFETY: the header's contract.
        let which = unsafe { string(which, "which") }?;
        builder.preference =
            which.parse().map_or_else(|_| Preference::Path(Path::new(which).into()), Preference::Flavour);
        builder.options.push(format!("--tensorrt={which}"));
        Ok(())
    })
}

/// `builder.h`: builds, and writes the plan and its sidecar.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tickrt_builder_build(
    builder: Option<&CBuilder>,
    onnx: *const c_char,
    engine: *const c_char,
) -> MaybeError {
    guard(|| {
        let builder = given(builder, "builder")?;
        // SAFETY: the header's contract.
        let (onnx, engine) = unsafe { (string(onnx, "onnx")?, string(engine, "engine")?) };
        Plan::check_writable(engine)?;
        let library = Library::open_any(&builder.preference)?;
        let mut config = builder.config.clone();
        if !builder.profile.shapes.is_empty() {
            config = config.profile(builder.profile.clone());
        }
        let built = Builder::new(&library).build_file(onnx, &config)?;
        let mut sidecar = Sidecar::from(&built);
        sidecar.gpu = Device::open(builder.device).ok().map(|device| {
            let (major, minor) = device.compute_capability();
            Gpu { name: device.name().to_owned(), compute_capability: major * 10 + minor }
        });
        sidecar.normalizations.clone_from(&builder.normalizations);
        sidecar.window_row = builder.window_row;
        sidecar.onnx_file = Some(onnx.to_owned());
        sidecar.options.clone_from(&builder.options);
        Ok(Plan::new(built.bytes, sidecar)?.write(engine)?)
    })
}

//! INT8 calibration: data, methods, and the ranges that they find.
//!
//! A [`Calibration`] goes to [`Builder::calibration`](crate::Builder::calibration). TensorRT 8 and 10 calibrate themselves
//! and are handed batches; for the others, and where [`Int8Mode::Qdq`](crate::Int8Mode) asks for it, the network runs in
//! ONNX Runtime with every intermediate tensor exposed, and what was seen becomes Q/DQ nodes in the model.
//!
//! ```no_run
//! # fn main() -> tickrt::Result<()> {
//! use tickrt::{Builder, BuilderConfig, Calibration, CalibrationMethod, Library, Preference};
//!
//! let days: Vec<Vec<f32>> = vec![vec![0.5; 256]; 100];
//! let calibration = Calibration::new(CalibrationMethod::Entropy).samples(days).cache_file("toy.cache");
//! let library = Library::open_any(&Preference::Any)?;
//! let config = BuilderConfig::new().fp16(true).int8(true);
//! let plan = Builder::new(&library).calibration(calibration).build_file("models/toy_cnn.onnx", &config)?;
//! # Ok(()) }
//! ```

mod batches;
mod cache;
#[cfg(feature = "tool")]
mod files;
mod histogram;
mod method;
mod native;
mod observe;
mod source;
mod table;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

pub(crate) use self::batches::Batches;
pub(crate) use self::cache::{Found, Key, parse_key, write as write_cache};
#[cfg(feature = "tool")]
pub use self::files::{FileSamples, read_files};
pub use self::method::CalibrationMethod;
pub(crate) use self::native::Calibrator;
pub use self::observe::{Ranges, observe};
pub use self::source::CalibrationSource;
pub use self::table::CalibrationTable;
use crate::error::{Error, ErrorKind, Result};
use crate::normalize::Normalization;
use crate::onnx::Model;
use crate::tensor::Shapes;

/// The scale of each tensor, by name.
pub(crate) type Scales = BTreeMap<String, f32>;

/// Called after each batch with how many there were, and how many there will be if that is known.
type Listener = Box<dyn FnMut(usize, Option<usize>) + Send>;

/// What a calibration is made from.
pub struct Calibration {
    pub(crate) method: CalibrationMethod,
    pub(crate) source: Option<Box<dyn CalibrationSource>>,
    pub(crate) normalizations: Vec<Normalization>,
    pub(crate) shapes: Shapes,
    pub(crate) most: Option<usize>,
    pub(crate) cache: Option<PathBuf>,
    pub(crate) device: usize,
    pub(crate) listener: Option<Listener>,
}

impl Calibration {
    /// By this method; from what, the other functions say.
    #[must_use]
    pub fn new(method: CalibrationMethod) -> Self {
        Self {
            method,
            source: None,
            normalizations: Vec::new(),
            shapes: Shapes::new(),
            most: None,
            cache: None,
            device: 0,
            listener: None,
        }
    }

    /// Batches from `source`.
    #[must_use]
    pub fn source(mut self, source: impl CalibrationSource + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// Batches from an iterator, for a network of one input: each item is one, of as many elements as the input of a call
    /// has, before the normalisation.
    #[must_use]
    pub fn samples<T: crate::tensor::Element>(
        self,
        samples: impl IntoIterator<Item = Vec<T>, IntoIter: Send + 'static>,
    ) -> Self {
        self.source(source::FromIterator(samples.into_iter()))
    }

    /// What happens to the inputs before the network: the same as at inference.
    #[must_use]
    pub fn normalizations(mut self, normalizations: Vec<Normalization>) -> Self {
        self.normalizations = normalizations;
        self
    }

    /// The shapes of a batch, for dynamic inputs: a batch of 1 without.
    #[must_use]
    pub fn shapes(mut self, shapes: Shapes) -> Self {
        self.shapes = shapes;
        self
    }

    /// At most so many batches.
    #[must_use]
    pub fn most_batches(mut self, most: usize) -> Self {
        self.most = Some(most);
        self
    }

    /// Reads the result from this file if it is of the same model, data and method, and else writes it there, with what
    /// it was made from beside it (`FILE.json`). One of another origin is reported, not used and, where there is data to
    /// begin anew, put aside as `FILE.old`.
    #[must_use]
    pub fn cache_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.cache = Some(path.into());
        self
    }

    /// The GPU that TensorRT calibrates on, in CUDA's order; 0 without.
    #[must_use]
    pub fn device(mut self, ordinal: usize) -> Self {
        self.device = ordinal;
        self
    }

    /// Calls `listener` after each batch.
    #[must_use]
    pub fn progress(mut self, listener: impl FnMut(usize, Option<usize>) + Send + 'static) -> Self {
        self.listener = Some(Box::new(listener));
        self
    }

    /// What the cache file has for `key`, and what the caller should know.
    pub(crate) fn find(&mut self, key: &Key) -> Result<Found> {
        let found = match &self.cache {
            Some(path) => cache::read(path, key)?,
            None => Found::default(),
        };
        if found.bytes.is_none() && self.source.is_none() {
            let got = found.notes.first().cloned().unwrap_or_else(|| "neither".to_owned());
            return Err(no_data(&got));
        }
        Ok(found)
    }

    /// What identifies this calibration of `model`.
    pub(crate) fn key(&mut self, model: &Model, by: &str) -> Key {
        let data = self.source.as_mut().map(|source| source.identity());
        Key::new(model, data, self.method, self.most, &self.shapes, &self.normalizations, by)
    }

    /// The scales of `model`'s tensors: from the cache file, or from running it in ONNX Runtime. With notes.
    pub(crate) fn scales(mut self, model: &Model) -> Result<(Scales, Vec<String>)> {
        let key = self.key(model, cache::TICKRT);
        let Found { bytes, notes, aside } = self.find(&key)?;
        if let Some(bytes) = bytes {
            return Ok((CalibrationTable::parse(&bytes)?.scales, notes));
        }
        let (method, cache) = (self.method, self.cache.clone());
        let table = observe(model, self)?.table(method);
        if let Some(path) = cache {
            cache::write(&path, table.to_text().as_bytes(), &key, aside)?;
        }
        Ok((table.scales, notes))
    }
}

impl fmt::Debug for Calibration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calibration").field("method", &self.method).field("cache", &self.cache).finish_non_exhaustive()
    }
}

/// The error of INT8 that nothing tells the ranges of.
pub(crate) fn no_data(got: &str) -> Error {
    Error::new(ErrorKind::InvalidArgument, "calibrate for INT8")
        .expected("calibration data, or the cache of an earlier calibration of this model")
        .got(got)
        .advice(
            "add --calib FILE with some hundreds of samples from the training data, or --calib-cache FILE; or give a model \
             that was quantised in training",
        )
}

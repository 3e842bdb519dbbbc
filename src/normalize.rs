//! What happens to an input between the caller and the network: convert, `(x - mean) / std`, clamp, lay out.
//!
//! [`Normalization`] says what, [`Normalizer`] is the plain scalar version: the reference that the kernel in
//! `kernels/normalize.cuh` must match bit for bit, and what the CPU backend uses. Both compute in f32, and in f64 where
//! the input is f64 or i32, whose values f32 cannot hold; both divide, because a product with `1 / std` rounds twice.

mod normalizer;

use serde::{Deserialize, Serialize};

pub use self::normalizer::Normalizer;
use crate::error::{Error, ErrorKind, Result};
use crate::files;
use crate::tensor::DataType;

/// The normalisation of one input tensor. Its JSON form is what `tickrt build --normalization` reads and what a plan's
/// sidecar carries.
///
/// ```
/// use tickrt::{DataType, Layout, NonFinite, Normalization, Stats};
///
/// let pixels = Normalization::new("input", DataType::U8)
///     .stats(Stats::PerChannel { mean: vec![120.0, 115.0, 104.0], std: vec![58.0, 57.0, 57.0] })
///     .layout(Layout::ChannelsLastToFirst)
///     .non_finite(NonFinite::Refuse);
/// assert_eq!(pixels.input_type, DataType::U8);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalization {
    /// Name of the input tensor.
    pub input: String,
    /// Type in which the caller hands it over: f32, f64, f16, u8, i16 or i32.
    pub input_type: DataType,
    /// Type in which the network takes it: f32 or f16. Absent: whichever the network has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_type: Option<DataType>,
    /// Mean and standard deviation, in the units of the input.
    #[serde(default)]
    pub stats: Stats,
    /// Lowest and highest value after the division.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clamp: Option<[f32; 2]>,
    /// What to do with NaN and infinity in the input.
    #[serde(default)]
    pub non_finite: NonFinite,
    /// How the input lies in memory, against how the network takes it.
    #[serde(default)]
    pub layout: Layout,
}

/// Means and standard deviations, and what they are for.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Stats {
    /// Nothing is subtracted or divided.
    #[default]
    None,
    /// One pair for the whole tensor.
    PerTensor {
        /// One mean.
        mean: [f64; 1],
        /// One standard deviation.
        std: [f64; 1],
    },
    /// One pair for each feature: along the last axis of the input as it is handed over.
    PerFeature {
        /// A mean a feature.
        mean: Vec<f64>,
        /// A standard deviation a feature.
        std: Vec<f64>,
    },
    /// One pair for each channel: axis 1 of the network's tensor (NCHW), wherever the input's layout keeps it.
    PerChannel {
        /// A mean a channel.
        mean: Vec<f64>,
        /// A standard deviation a channel.
        std: Vec<f64>,
    },
}

/// What to do with NaN and infinity in an input.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NonFinite {
    /// Hand them to the network as they are (a clamp still bounds infinities; NaN stays NaN).
    #[default]
    Pass,
    /// Put this value, in normalised units, in their place.
    Replace(f32),
    /// The call ends with [`ErrorKind::NonFiniteInput`].
    Refuse,
}

/// How the input lies in memory, against how the network takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// Element by element.
    #[default]
    AsIs,
    /// NHWC to NCHW, and likewise a window of rows (time × features) to features × time. A network that takes the
    /// window flat has it features first, too.
    ChannelsLastToFirst,
}

impl Normalization {
    /// Of the input tensor `input`, handed over as `input_type`: convert only, until more is set.
    #[must_use]
    pub fn new(input: impl Into<String>, input_type: DataType) -> Self {
        Self {
            input: input.into(),
            input_type,
            output_type: None,
            stats: Stats::None,
            clamp: None,
            non_finite: NonFinite::Pass,
            layout: Layout::AsIs,
        }
    }

    /// Sets mean and standard deviation.
    #[must_use]
    pub fn stats(mut self, stats: Stats) -> Self {
        self.stats = stats;
        self
    }

    /// Sets the lowest and highest value after the division.
    #[must_use]
    pub fn clamp(mut self, lowest: f32, highest: f32) -> Self {
        self.clamp = Some([lowest, highest]);
        self
    }

    /// Sets what to do with NaN and infinity.
    #[must_use]
    pub fn non_finite(mut self, policy: NonFinite) -> Self {
        self.non_finite = policy;
        self
    }

    /// Sets the layout.
    #[must_use]
    pub fn layout(mut self, layout: Layout) -> Self {
        self.layout = layout;
        self
    }

    /// Reads the JSON form.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if the file cannot be read, [`ErrorKind::InvalidArgument`] if it is not that form.
    pub fn read(path: impl AsRef<std::path::Path>) -> Result<Self> {
        let path = path.as_ref();
        let operation = format!("read the normalisation {}", path.display());
        let text = files::read(path, || operation.clone())?;
        serde_json::from_slice(&text).map_err(|error| {
            Error::new(ErrorKind::InvalidArgument, operation)
                .expected("the JSON form of a normalisation")
                .got(error.to_string())
                .advice("models/toy_cnn.normalization.json is an example")
        })
    }
}

impl Stats {
    fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::PerTensor { .. } => 1,
            Self::PerFeature { mean, .. } | Self::PerChannel { mean, .. } => mean.len(),
        }
    }

    fn pairs(&self) -> (Vec<f64>, Vec<f64>) {
        match self {
            Self::None => (vec![0.0], vec![1.0]),
            Self::PerTensor { mean, std } => (mean.to_vec(), std.to_vec()),
            Self::PerFeature { mean, std } | Self::PerChannel { mean, std } => (mean.clone(), std.clone()),
        }
    }
}

//! What happens to an input between the caller and the network: convert, `(x - mean) / std`, clamp, lay out.
//!
//! [`Normalization`] says what, [`Normalizer`] is the plain scalar version: the reference that the kernel in
//! `kernels/normalize.cuh` must match bit for bit, and what the CPU backend uses. Both compute in f32, and in f64 where
//! the input is f64 or i32, whose values f32 cannot hold; both divide, because a product with `1 / std` rounds twice.

use half::f16;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::tensor::{DataType, TensorInfo, elements, format_shape};

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
        let text = std::fs::read_to_string(path)
            .map_err(|error| Error::new(ErrorKind::Io, operation.clone()).got(error.to_string()))?;
        serde_json::from_str(&text).map_err(|error| {
            Error::new(ErrorKind::InvalidArgument, operation)
                .expected("the JSON form of a normalisation")
                .got(error.to_string())
                .advice("models/toy_cnn.normalization.json is an example")
        })
    }
}

/// A [`Normalization`] checked against a tensor and one shape: everything that the inner loop needs, in numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Normalizer {
    /// Type handed over.
    pub(crate) input_type: DataType,
    /// Type that the network takes.
    pub(crate) output_type: DataType,
    /// Elements in all.
    pub(crate) count: usize,
    /// Positions and channels of one sample when channels move to the front; 1 and 1 otherwise.
    pub(crate) spatial: usize,
    pub(crate) channels: usize,
    /// The pair of source element `i` is `(i / stat_inner) % mean.len()`.
    pub(crate) stat_inner: usize,
    pub(crate) mean: Vec<f64>,
    pub(crate) std: Vec<f64>,
    pub(crate) clamp: [f32; 2],
    pub(crate) non_finite: NonFinite,
    /// The bytes go through untouched.
    pub(crate) copy: bool,
}

impl Normalizer {
    /// An input that goes through as it is.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] if the shape has a dynamic dimension.
    pub fn identity(tensor: &TensorInfo, shape: &[i64]) -> Result<Self> {
        Self::new(&Normalization::new(tensor.name.as_str(), tensor.data_type), tensor, shape, None)
    }

    /// Checks `what` against the tensor and its shape. `row` is the length of a row of a rolling window, which is then
    /// the last axis of the input, whatever the network's shape.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] naming the field that cannot be, [`ErrorKind::Shape`] for a dynamic shape.
    pub fn new(what: &Normalization, tensor: &TensorInfo, shape: &[i64], row: Option<usize>) -> Result<Self> {
        let operation = || format!("prepare the normalisation of input `{}`", tensor.name);
        let invalid = || Error::new(ErrorKind::InvalidArgument, operation());
        let count = elements(shape).filter(|&count| count > 0).ok_or_else(|| {
            Error::new(ErrorKind::Shape, operation())
                .expected("a shape of positive dimensions")
                .got(format_shape(shape))
        })?;
        let output_type = tensor.data_type;
        if let Some(wanted) = what.output_type.filter(|&wanted| wanted != output_type) {
            return Err(invalid()
                .expected(format!("output_type {output_type}, which the network takes"))
                .got(wanted.to_string()));
        }
        let copy = what.input_type == output_type
            && what.stats == Stats::None
            && what.clamp.is_none()
            && what.layout == Layout::AsIs
            && (what.non_finite == NonFinite::Pass || !output_type.is_float());
        if !copy {
            use DataType::{F16, F32, F64, I16, I32, U8};
            if !matches!(what.input_type, F32 | F64 | F16 | U8 | I16 | I32) {
                return Err(invalid()
                    .expected("an input of f32, f64, f16, u8, i16 or i32")
                    .got(what.input_type.to_string())
                    .advice("convert it first, or let the network take it as it is"));
            }
            if !matches!(output_type, F32 | F16) {
                return Err(invalid().expected("a network that takes f32 or f16").got(output_type.to_string()));
            }
        }
        let batch = usize::try_from(shape[0]).unwrap_or(1);
        let per_sample = count / batch;
        let (spatial, channels) = match what.layout {
            Layout::AsIs => (1, 1),
            Layout::ChannelsLastToFirst => {
                // A flat tensor has no channel axis of its own: the window's row or the statistics tell it.
                let channels = match (row, shape.len()) {
                    (Some(row), _) => row,
                    (None, 3..) => usize::try_from(shape[1]).unwrap_or(0),
                    (None, _) => what.stats.len(),
                };
                if channels == 0 || per_sample % channels != 0 {
                    return Err(invalid()
                        .expected(format!("a number of channels that divides the {per_sample} elements of a sample"))
                        .got(channels.to_string())
                        .advice("channels come from axis 1, from the window's row or from the statistics"));
                }
                (per_sample / channels, channels)
            }
        };
        let (mean, std) = what.stats.pairs();
        let moved = what.layout == Layout::ChannelsLastToFirst;
        // Where the statistic's axis lies among the elements as they are handed over.
        let (stat_inner, axis) = match &what.stats {
            Stats::None | Stats::PerTensor { .. } => (1, 1),
            Stats::PerFeature { .. } if moved => (1, channels),
            Stats::PerFeature { .. } => {
                (1, row.unwrap_or_else(|| usize::try_from(*shape.last().unwrap_or(&1)).unwrap_or(0)))
            }
            Stats::PerChannel { .. } if moved => (1, channels),
            Stats::PerChannel { .. } => {
                let axis = if shape.len() > 1 { usize::try_from(shape[1]).unwrap_or(0) } else { count };
                (per_sample / axis.max(1), axis)
            }
        };
        if mean.len() != axis || std.len() != axis {
            return Err(invalid()
                .expected(format!("{axis} means and {axis} standard deviations for shape {}", format_shape(shape)))
                .got(format!("{} and {}", mean.len(), std.len())));
        }
        if let Some(place) = mean.iter().position(|mean| !mean.is_finite()) {
            return Err(invalid().expected("finite means").got(format!("{} at place {place}", mean[place])));
        }
        if let Some(place) = std.iter().position(|&std| !(std.is_finite() && (std as f32) > 0.0)) {
            return Err(invalid()
                .expected("finite standard deviations above zero")
                .got(format!("{} at place {place}", std[place]))
                .advice("a feature that never changes has no scale: drop it or give it 1"));
        }
        let clamp = what.clamp.unwrap_or([f32::NEG_INFINITY, f32::INFINITY]);
        if clamp[0].partial_cmp(&clamp[1]) != Some(std::cmp::Ordering::Less) {
            return Err(invalid().expected("a clamp [lowest, highest]").got(format!("{clamp:?}")));
        }
        if let NonFinite::Replace(value) = what.non_finite
            && !value.is_finite()
        {
            return Err(invalid().expected("a finite value to replace NaN with").got(value.to_string()));
        }
        Ok(Self {
            input_type: what.input_type,
            output_type,
            count,
            spatial,
            channels,
            stat_inner,
            mean,
            std,
            clamp,
            non_finite: what.non_finite,
            copy,
        })
    }

    /// Elements of the tensor.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Type in which the caller hands the input over.
    #[must_use]
    pub fn input_type(&self) -> DataType {
        self.input_type
    }

    /// Type in which the network takes it.
    #[must_use]
    pub fn output_type(&self) -> DataType {
        self.output_type
    }

    /// Bytes of the input as it is handed over.
    #[must_use]
    pub fn input_bytes(&self) -> usize {
        self.count * self.input_type.size()
    }

    /// Bytes of the tensor that the network takes.
    #[must_use]
    pub fn output_bytes(&self) -> usize {
        self.count * self.output_type.size()
    }

    /// The scalar version: from the bytes handed over to the bytes that the network takes.
    ///
    /// # Errors
    /// [`ErrorKind::NonFiniteInput`] under [`NonFinite::Refuse`]; `output` is then partly written.
    ///
    /// # Panics
    /// If a slice has not the length that [`input_bytes`](Self::input_bytes) and
    /// [`output_bytes`](Self::output_bytes) say, or is not aligned for its type.
    pub fn apply(&self, input: &[u8], output: &mut [u8]) -> Result<()> {
        assert_eq!(input.len(), self.input_bytes(), "input bytes");
        assert_eq!(output.len(), self.output_bytes(), "output bytes");
        if self.copy {
            output.copy_from_slice(input);
            return Ok(());
        }
        match self.input_type {
            DataType::F32 => self.apply_from::<f32>(input, output, |x, mean, std| (x - mean as f32) / std as f32),
            DataType::F16 => {
                self.apply_from::<f16>(input, output, |x, mean, std| (x.to_f32() - mean as f32) / std as f32)
            }
            DataType::U8 => {
                self.apply_from::<u8>(input, output, |x, mean, std| (f32::from(x) - mean as f32) / std as f32)
            }
            DataType::I16 => {
                self.apply_from::<i16>(input, output, |x, mean, std| (f32::from(x) - mean as f32) / std as f32)
            }
            DataType::I32 => self.apply_from::<i32>(input, output, |x, mean, std| ((f64::from(x) - mean) / std) as f32),
            DataType::F64 => self.apply_from::<f64>(input, output, |x, mean, std| ((x - mean) / std) as f32),
            other => unreachable!("Normalizer::new refused {other}"),
        }
    }

    fn apply_from<T: bytemuck::Pod + Finite>(
        &self,
        input: &[u8],
        output: &mut [u8],
        scale: impl Fn(T, f64, f64) -> f32,
    ) -> Result<()> {
        let input: &[T] = bytemuck::cast_slice(input);
        let value = |to: usize| -> Result<f32> {
            let from = self.source(to);
            let stat = (from / self.stat_inner) % self.mean.len();
            let x = input[from];
            if !x.finite() {
                match self.non_finite {
                    NonFinite::Pass => {}
                    NonFinite::Replace(value) => return Ok(value),
                    NonFinite::Refuse => return Err(ErrorKind::NonFiniteInput.into()),
                }
            }
            let y = scale(x, self.mean[stat], self.std[stat]);
            // As comparisons, not min and max, which would turn NaN into a bound.
            Ok(if y < self.clamp[0] {
                self.clamp[0]
            } else if y > self.clamp[1] {
                self.clamp[1]
            } else {
                y
            })
        };
        if self.output_type == DataType::F16 {
            for (to, out) in bytemuck::cast_slice_mut::<u8, f16>(output).iter_mut().enumerate() {
                *out = f16::from_f32(value(to)?);
            }
        } else {
            for (to, out) in bytemuck::cast_slice_mut::<u8, f32>(output).iter_mut().enumerate() {
                *out = value(to)?;
            }
        }
        Ok(())
    }

    /// Where the element that goes to place `to` lies in the input.
    fn source(&self, to: usize) -> usize {
        let sample = self.spatial * self.channels;
        let (base, inside) = (to - to % sample, to % sample);
        base + (inside % self.spatial) * self.channels + inside / self.spatial
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

trait Finite: Copy {
    fn finite(self) -> bool;
}
macro_rules! finite {
    ($($float:ty),*; $($integer:ty),*) => {
        $(impl Finite for $float { fn finite(self) -> bool { self.is_finite() } })*
        $(impl Finite for $integer { fn finite(self) -> bool { true } })*
    };
}
finite!(f32, f64, f16; u8, i16, i32);

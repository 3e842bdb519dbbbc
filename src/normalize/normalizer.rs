//! A normalisation checked against a tensor, and the scalar version of what it does.

use half::f16;

use super::{Layout, NonFinite, Normalization, Stats};
use crate::error::{Error, ErrorKind, Result};
use crate::tensor::{DataType, TensorInfo, elements, format_shape};
use crate::window::all_finite;

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
    /// Checks `what` against the tensor and its shape. `row` is the length of a row of a rolling window, which is then
    /// the last axis of the input, whatever the network's shape.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] naming the field that cannot be, [`ErrorKind::Shape`] for a dynamic shape.
    pub fn new(what: &Normalization, tensor: &TensorInfo, shape: &[i64], row: Option<usize>) -> Result<Self> {
        let check = Check { what, tensor, shape, row };
        let count = check.count()?;
        let copy = check.types()?;
        let (spatial, channels) = check.layout(count)?;
        let stat_inner = check.stats(count, channels)?;
        let clamp = check.bounds()?;
        let (mean, std) = what.stats.pairs();
        Ok(Self {
            input_type: what.input_type,
            output_type: tensor.data_type,
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

    /// Words of 4 bytes of the input as it is handed over, the last perhaps not whole.
    #[must_use]
    pub(crate) fn input_words(&self) -> usize {
        self.input_bytes().div_ceil(4)
    }

    /// Bytes of the tensor that the network takes.
    #[must_use]
    pub fn output_bytes(&self) -> usize {
        self.count * self.output_type.size()
    }

    /// What becomes of each element, in the order handed over: its mean, its standard deviation, its place. Nothing where
    /// the bytes go through untouched.
    pub(crate) fn elements(&self) -> Vec<(f32, f32, u32)> {
        if self.copy {
            return Vec::new();
        }
        let mut elements = vec![(0.0, 1.0, 0); self.count];
        // As the scalar version takes them.
        self.each(|to, from, stat| elements[from] = (self.mean[stat] as f32, self.std[stat] as f32, to as u32));
        elements
    }

    /// Whether both make the same of the same input, however they were described.
    pub(crate) fn does_as(&self, other: &Self) -> bool {
        let facts = |of: &Self| (of.input_type, of.output_type, of.count, of.clamp, of.is_picky(), of.elements());
        facts(self) == facts(other) && (self.copy || self.non_finite == other.non_finite)
    }

    /// Whether some inputs are refused.
    pub(crate) fn is_picky(&self) -> bool {
        self.non_finite == NonFinite::Refuse && !self.copy
    }

    /// Whether this input, as it is handed over, is refused.
    pub(crate) fn refuses(&self, input: &[u8]) -> bool {
        self.is_picky() && !all_finite(self.input_type, input)
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
        let value = |from: usize, stat: usize| -> Result<f32> {
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
            let output = bytemuck::cast_slice_mut::<u8, f16>(output);
            self.try_each(|to, from, stat| value(from, stat).map(|y| output[to] = f16::from_f32(y)))
        } else {
            let output = bytemuck::cast_slice_mut::<u8, f32>(output);
            self.try_each(|to, from, stat| value(from, stat).map(|y| output[to] = y))
        }
    }

    /// As [`try_each`](Self::try_each), of what cannot fail.
    pub(crate) fn each(&self, mut visit: impl FnMut(usize, usize, usize)) {
        let visited = self.try_each(|to, from, stat| {
            visit(to, from, stat);
            Ok(())
        });
        debug_assert!(visited.is_ok());
    }

    /// Calls `visit` with each element's place in the network's tensor, its place in the input and that of its
    /// statistic: counted up, since a division an element would take longer than all the rest.
    fn try_each(&self, mut visit: impl FnMut(usize, usize, usize) -> Result<()>) -> Result<()> {
        let stats = self.mean.len();
        if self.channels == 1 {
            let (mut stat, mut left) = (0, self.stat_inner);
            for place in 0..self.count {
                visit(place, place, stat)?;
                left -= 1;
                if left == 0 {
                    left = self.stat_inner;
                    stat = if stat + 1 == stats { 0 } else { stat + 1 };
                }
            }
            return Ok(());
        }
        let mut to = 0;
        for sample in (0..self.count).step_by(self.spatial * self.channels) {
            for channel in 0..self.channels {
                // Channels that move have one statistic each, or one for all.
                let stat = if stats == 1 { 0 } else { channel };
                for position in 0..self.spatial {
                    visit(to, sample + position * self.channels + channel, stat)?;
                    to += 1;
                }
            }
        }
        Ok(())
    }
}

/// What [`Normalizer::new`] holds against each other.
struct Check<'a> {
    what: &'a Normalization,
    tensor: &'a TensorInfo,
    shape: &'a [i64],
    row: Option<usize>,
}

impl Check<'_> {
    fn count(&self) -> Result<usize> {
        // The kernels count elements in 32 bits.
        let fits = |&count: &usize| (1..=i32::MAX as usize).contains(&count);
        elements(self.shape).filter(fits).ok_or_else(|| {
            Error::new(ErrorKind::Shape, self.operation())
                .expected("positive dimensions, at most 2147483647 elements in all")
                .got(format_shape(self.shape))
        })
    }

    /// Whether the bytes can go through untouched.
    fn types(&self) -> Result<bool> {
        use DataType::{F16, F32, F64, I16, I32, U8};
        let (input, output) = (self.what.input_type, self.tensor.data_type);
        if let Some(wanted) = self.what.output_type.filter(|&wanted| wanted != output) {
            return Err(self
                .invalid()
                .expected(format!("output_type {output}, which the network takes"))
                .got(wanted.to_string()));
        }
        let Normalization { stats, clamp, layout, non_finite, .. } = self.what;
        let untouched = input == output && *stats == Stats::None && clamp.is_none() && *layout == Layout::AsIs;
        if untouched && (*non_finite == NonFinite::Pass || !output.is_float()) {
            return Ok(true);
        }
        if !matches!(input, F32 | F64 | F16 | U8 | I16 | I32) {
            return Err(self
                .invalid()
                .expected("an input of f32, f64, f16, u8, i16 or i32")
                .got(input.to_string())
                .advice("convert it first, or let the network take it as it is"));
        }
        if !matches!(output, F32 | F16) {
            return Err(self.invalid().expected("a network that takes f32 or f16").got(output.to_string()));
        }
        Ok(false)
    }

    /// Positions and channels of one sample.
    fn layout(&self, count: usize) -> Result<(usize, usize)> {
        if self.row.is_some() && self.batch() != 1 {
            return Err(self.invalid().expected("a batch of 1 for rolling windows").got(format_shape(self.shape)));
        }
        if self.what.layout == Layout::AsIs {
            return Ok((1, 1));
        }
        // A flat tensor has no channel axis of its own: the window's row or the statistics tell it.
        let axis = (self.shape.len() > 2).then(|| self.dimension(1));
        let channels = axis.or(self.row).unwrap_or_else(|| self.what.stats.len());
        let per_sample = count / self.batch();
        let row = self.row.unwrap_or(channels);
        if channels == 0 || !per_sample.is_multiple_of(channels) || row != channels {
            return Err(self
                .invalid()
                .expected(format!("rows of as many channels as the network has, which divide {per_sample} elements"))
                .got(format!("{channels} channels, rows of {row}"))
                .advice("channels come from axis 1, from the window's row or from the statistics"));
        }
        Ok((per_sample / channels, channels))
    }

    /// How many neighbours share a pair of the statistics, among the elements as they are handed over.
    fn stats(&self, count: usize, channels: usize) -> Result<usize> {
        let moved = self.what.layout == Layout::ChannelsLastToFirst;
        let (inner, axis) = match &self.what.stats {
            Stats::None | Stats::PerTensor { .. } => (1, 1),
            _ if moved => (1, channels),
            Stats::PerFeature { .. } => {
                (1, self.row.unwrap_or_else(|| self.dimension(self.shape.len().saturating_sub(1))))
            }
            Stats::PerChannel { .. } => {
                let axis = if self.shape.len() > 1 { self.dimension(1) } else { count };
                (count / self.batch() / axis, axis)
            }
        };
        let (mean, std) = self.what.stats.pairs();
        if mean.len() != axis || std.len() != axis {
            return Err(self
                .invalid()
                .expected(format!("{axis} means and {axis} standard deviations for {}", format_shape(self.shape)))
                .got(format!("{} and {}", mean.len(), std.len())));
        }
        if let Some(place) = mean.iter().position(|&mean| !(mean as f32).is_finite()) {
            return Err(self.invalid().expected("finite means").got(format!("{} at place {place}", mean[place])));
        }
        // As f32, which is how the inner loop divides.
        if let Some(place) = std.iter().position(|&std| !((std as f32).is_finite() && (std as f32) > 0.0)) {
            return Err(self
                .invalid()
                .expected("finite standard deviations above zero")
                .got(format!("{} at place {place}", std[place]))
                .advice("a feature that never changes has no scale: drop it or give it 1"));
        }
        Ok(inner)
    }

    fn bounds(&self) -> Result<[f32; 2]> {
        let clamp = self.what.clamp.unwrap_or([f32::NEG_INFINITY, f32::INFINITY]);
        if clamp[0].partial_cmp(&clamp[1]) != Some(std::cmp::Ordering::Less) {
            return Err(self.invalid().expected("a clamp [lowest, highest]").got(format!("{clamp:?}")));
        }
        match self.what.non_finite {
            NonFinite::Replace(value) if !value.is_finite() => {
                Err(self.invalid().expected("a finite value to replace NaN with").got(value.to_string()))
            }
            _ => Ok(clamp),
        }
    }

    /// The first axis; a tensor of one axis is one sample.
    fn batch(&self) -> usize {
        if self.shape.len() > 1 { self.dimension(0) } else { 1 }
    }

    /// Positive, as `count` has made sure.
    fn dimension(&self, axis: usize) -> usize {
        self.shape.get(axis).map_or(1, |&dimension| dimension as usize)
    }

    fn invalid(&self) -> Error {
        Error::new(ErrorKind::InvalidArgument, self.operation())
    }

    fn operation(&self) -> String {
        format!("prepare the normalisation of input `{}`", self.tensor.name)
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

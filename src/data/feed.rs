//! Arrays as the inputs of calls, one after the other.

use super::random::{Random, typed};
use super::{Array, Values, shown};
use crate::backend::Signature;
use crate::error::{Error, ErrorKind, Result};
use crate::normalize::Normalizer;
use crate::predictor::PredictorSlot;
use crate::session::InputSlot;
use crate::tensor::{DataType, Element, TensorInfo};

/// A slot's input memory, of a session or of a predictor.
pub trait WriteInput {
    /// Writes the whole input `name`; `None` is the first one.
    ///
    /// # Errors
    /// Those of [`InputSlot::write_named`].
    fn write_input<T: Element>(&mut self, name: Option<&str>, data: &[T]) -> Result<()>;
}

impl WriteInput for InputSlot<'_> {
    #[inline]
    fn write_input<T: Element>(&mut self, name: Option<&str>, data: &[T]) -> Result<()> {
        match name {
            Some(name) => self.write_named(name, 0, data),
            None => self.write(0, data),
        }
    }
}

impl WriteInput for PredictorSlot<'_> {
    #[inline]
    fn write_input<T: Element>(&mut self, name: Option<&str>, data: &[T]) -> Result<()> {
        match name {
            Some(name) => self.write_named(name, 0, data),
            None => self.write(0, data),
        }
    }
}

/// The inputs of a number of calls, checked against what the network takes.
#[derive(Debug, Clone)]
pub struct Feed {
    inputs: Vec<Input>,
    calls: usize,
}

#[derive(Debug, Clone)]
struct Input {
    /// None where there is but one input.
    name: Option<String>,
    values: Values,
    /// Elements a call.
    count: usize,
    /// Elements from the start of one call's to the start of the next one's.
    stride: usize,
}

impl Feed {
    /// One array for each input, by name or, for a network of one input, without: a single sample, or samples along axis
    /// 0. Their shape is that of the input as it is handed over, ones aside, or flat.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for a name that the network does not have or lacks,
    /// [`ErrorKind::WrongType`], [`ErrorKind::WrongLength`] and [`ErrorKind::Shape`] with what was expected and got.
    pub fn new(signature: &Signature, arrays: Vec<(Option<String>, Array)>) -> Result<Self> {
        let names: Vec<&str> = signature.inputs.iter().map(|tensor| tensor.name.as_str()).collect();
        let mut given: Vec<Option<Array>> = names.iter().map(|_| None).collect();
        for (name, array) in arrays {
            let place = match &name {
                Some(name) => names.iter().position(|known| known == name),
                None => (names.len() == 1).then_some(0),
            };
            let free = place.filter(|&place| given[place].is_none());
            let place = free.ok_or_else(|| wrong_names(&names, name.as_deref(), &array, place.is_some()))?;
            given[place] = Some(array);
        }
        let mut inputs = Vec::new();
        let mut calls = None;
        let shapes = signature.inputs.iter().zip(&signature.shapes[0].inputs);
        for ((tensor, normalizer), array) in shapes.zip(given) {
            let array = array.ok_or_else(|| {
                Error::new(ErrorKind::InvalidArgument, "feed the network")
                    .expected(format!("an array for each of {}", names.join(", ")))
                    .got(format!("none for `{}`", tensor.name))
                    .advice(format!("add --input {}:FILE", tensor.name))
            })?;
            let has = check(tensor, normalizer, &array)?;
            if *calls.get_or_insert(has) != has {
                return Err(Error::new(
                    ErrorKind::WrongLength { expected: calls.unwrap_or(0), got: has },
                    "feed the network",
                )
                .expected(format!("{} calls for every input", calls.unwrap_or(0)))
                .got(format!("{has} in {}", array.name())));
            }
            let name = (names.len() > 1).then(|| tensor.name.clone());
            let count = normalizer.count();
            inputs.push(Input { name, values: array.values, count, stride: count });
        }
        Ok(Self { inputs, calls: calls.unwrap_or(0) })
    }

    /// Random inputs as the normalisation expects them: normally distributed with its means and deviations, or with 0
    /// and 1 where it has none. The same `seed` makes the same numbers everywhere.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for an input of bf16.
    pub fn random(signature: &Signature, calls: usize, seed: u64) -> Result<Self> {
        let mut random = Random(seed);
        let mut inputs = Vec::new();
        for (tensor, normalizer) in signature.inputs.iter().zip(&signature.shapes[0].inputs) {
            let name = (signature.inputs.len() > 1).then(|| tensor.name.clone());
            let count = normalizer.count();
            let values = (0..calls * count).map(|index| random.normal_for(normalizer, index % count));
            let values = typed(normalizer.input_type(), values, tensor)?;
            inputs.push(Input { name, values, count, stride: count });
        }
        Ok(Self { inputs, calls })
    }

    /// The windows of one circular series instead of the calls as they are. The series is the calls' rows of `row` elements, one
    /// call's after the other's, `windows` of them at most; call `k` is then the window whose oldest row is row `k`, and
    /// behind the last row comes the first.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for several inputs, and for rows of which no whole number makes a window.
    pub fn sliding(mut self, row: usize, windows: usize) -> Result<Self> {
        let refuse = |got: String| {
            let operation = "make windows of a series";
            Err(Error::new(ErrorKind::InvalidArgument, operation).expected("one input of whole rows").got(got))
        };
        let [input] = &mut self.inputs[..] else { return refuse(format!("{} inputs", self.inputs.len())) };
        if row == 0 || input.count % row != 0 {
            return refuse(format!("{} elements, and {row} a row", input.count));
        }
        let data_type = input.values.data_type();
        let row_bytes = row * data_type.size();
        let windows = windows.min(self.calls * input.count / row);
        let series = &input.values.as_bytes()[..windows * row_bytes];
        // As many rows again as the last window needs, so that each window lies in one piece.
        let rows = (windows + input.count / row).saturating_sub(1);
        let bytes: Vec<u8> = series.iter().copied().cycle().take(rows * row_bytes).collect();
        input.values = Values::from_bytes(data_type, &bytes).expect("whole rows of the type that they had");
        input.stride = row;
        self.calls = windows;
        Ok(self)
    }

    /// How many calls it is enough for.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.calls
    }

    /// Keeps the first `calls`.
    pub fn truncate(&mut self, calls: usize) {
        self.calls = self.calls.min(calls);
    }

    /// Writes the inputs of call number `call`. Allocates nothing.
    ///
    /// # Errors
    /// Those of [`InputSlot::write`].
    #[inline]
    pub fn write(&self, call: usize, slot: &mut impl WriteInput) -> Result<()> {
        for Input { name, values, count, stride } in &self.inputs {
            values.write_to(call * stride..call * stride + count, slot, name.as_deref())?;
        }
        Ok(())
    }

    /// Hands over row `row` of window `window`, of windows of a series ([`sliding`](Self::sliding)). Allocates nothing.
    ///
    /// # Errors
    /// Those of whoever takes it.
    #[inline]
    pub fn write_row(&self, window: usize, row: usize, to: &mut impl WriteInput) -> Result<()> {
        let Input { values, stride, .. } = &self.inputs[0];
        let start = (window + row) * stride;
        values.write_to(start..start + stride, to, None)
    }
}

fn wrong_names(names: &[&str], name: Option<&str>, array: &Array, twice: bool) -> Error {
    let got = match (name, twice) {
        (_, true) => format!("{}, a second one", array.name()),
        (Some(name), _) => format!("one for `{name}`"),
        (None, _) => format!("{} without an input's name", array.name()),
    };
    Error::new(ErrorKind::InvalidArgument, "feed the network")
        .expected(format!("one array for each of {}", names.join(", ")))
        .got(got)
        .advice("name the input: --input NAME:FILE")
}

/// How many calls the array is enough for.
pub(crate) fn check(tensor: &TensorInfo, normalizer: &Normalizer, array: &Array) -> Result<usize> {
    let operation = || format!("feed input `{}` from {}", tensor.name, array.name());
    let (wants, has) = (normalizer.input_type(), array.values.data_type());
    // The bytes of a bool are those of a u8.
    if wants != has && !(wants == DataType::Bool && has == DataType::U8) {
        return Err(Error::new(ErrorKind::WrongType { expected: wants, got: has }, operation())
            .expected(format!("elements of {wants}"))
            .got(has.to_string())
            .advice(format!("convert the array, or give a normalisation whose input_type is {has}")));
    }
    let (count, sample) = (normalizer.count(), sample_shape(tensor, normalizer));
    let flat = [array.shape.first().copied().unwrap_or(1), count];
    let whole = array.values.len() / count;
    let fits = whole > 0
        && (same(&array.shape, &sample)
            || same(array.shape.get(1..).unwrap_or(&[]), &sample)
            || array.shape == [count]
            || array.shape == flat
            // Samples along axis 0 that a batch takes several of at once.
            || (sample[0] > 1 && array.shape.len() > 1 && same(&array.shape[1..], &sample[1..])));
    let left_over = array.values.len() % count;
    if fits && left_over == 0 {
        return Ok(whole);
    }
    let one = if sample[0] == 1 && sample.len() > 1 { shown(&sample[1..]) } else { shown(&sample) };
    let expected = format!("an array of {one} or, for n calls, nx{one}");
    let expected = if sample[0] > 1 { format!("{expected} (a multiple of {} samples)", sample[0]) } else { expected };
    let kind = if fits || left_over != 0 {
        ErrorKind::WrongLength { expected: count, got: array.values.len() }
    } else {
        ErrorKind::Shape
    };
    Err(Error::new(kind, operation())
        .expected(expected)
        .got(format!("{} ({} elements)", shown(&array.shape), array.values.len()))
        .advice(if fits {
            format!("leave out the samples that are left over: {left_over} elements")
        } else {
            "reshape the array, or give the normalisation that it was made for (--normalization FILE)".to_owned()
        }))
}

/// The input's shape as it is handed over.
fn sample_shape(tensor: &TensorInfo, normalizer: &Normalizer) -> Vec<usize> {
    let count = normalizer.count();
    let known: usize = tensor.shape.iter().filter_map(|&dimension| usize::try_from(dimension).ok()).product();
    let dynamic = tensor.shape.iter().filter(|&&dimension| dimension < 0).count();
    let shape: Vec<usize> = match dynamic {
        0 | 1 => {
            tensor.shape.iter().map(|&dimension| usize::try_from(dimension).unwrap_or(count / known.max(1))).collect()
        }
        _ => vec![1, count],
    };
    let batch = shape.first().copied().unwrap_or(1);
    match (normalizer.channels, &shape[..]) {
        (1, []) => vec![1],
        (1, _) => shape,
        (channels, [_, _, rest @ ..]) if !rest.is_empty() => [&[batch], rest, &[channels]].concat(),
        (channels, _) => vec![batch, normalizer.spatial, channels],
    }
}

/// Whether two shapes are the same, dimensions of 1 aside.
fn same(one: &[usize], other: &[usize]) -> bool {
    let wide = |shape: &[usize]| shape.iter().copied().filter(|&dimension| dimension != 1).collect::<Vec<_>>();
    wide(one) == wide(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::CallShape;
    use crate::normalize::{Layout, Normalization, Stats};
    use crate::tensor::IoMode;

    /// A network that takes [1, 8, 32], fed as rows of 8 features.
    fn windows() -> Signature {
        let tensor =
            TensorInfo { name: "input".into(), mode: IoMode::Input, data_type: DataType::F32, shape: vec![1, 8, 32] };
        let what = Normalization::new("input", DataType::F32)
            .layout(Layout::ChannelsLastToFirst)
            .stats(Stats::PerFeature { mean: vec![0.0; 8], std: vec![1.0; 8] });
        let normalizer = Normalizer::new(&what, &tensor, &[1, 8, 32], None).unwrap();
        let shape = CallShape { inputs: vec![normalizer], outputs: Vec::new() };
        Signature { inputs: vec![tensor], outputs: Vec::new(), shapes: vec![shape] }
    }

    fn feed(shape: &[usize], data_type: DataType) -> Result<usize> {
        let count = shape.iter().product::<usize>() * data_type.size();
        let values = Values::from_bytes(data_type, &vec![0; count]).unwrap();
        Feed::new(&windows(), vec![(None, Array::new(shape, values)?)]).map(|feed| feed.calls())
    }

    #[test]
    fn samples_along_axis_0_are_counted() {
        let calls = |shape: &[usize]| feed(shape, DataType::F32).unwrap();
        assert_eq!(calls(&[32, 8]), 1);
        assert_eq!(calls(&[256]), 1);
        assert_eq!(calls(&[5, 32, 8]), 5);
        assert_eq!(calls(&[5, 256]), 5);
        assert_eq!(calls(&[5, 1, 32, 8]), 5);
    }

    #[test]
    fn transposed_samples_are_refused() {
        assert_eq!(feed(&[5, 8, 32], DataType::F32).unwrap_err().kind(), ErrorKind::Shape);
        assert_eq!(feed(&[8, 32], DataType::F32).unwrap_err().kind(), ErrorKind::Shape);
    }

    #[test]
    fn wrong_type_and_length_are_told_apart() {
        let kind = |shape: &[usize], data_type| feed(shape, data_type).unwrap_err().kind();
        assert_eq!(kind(&[32, 8], DataType::F64), ErrorKind::WrongType { expected: DataType::F32, got: DataType::F64 });
        assert_eq!(kind(&[31, 8], DataType::F32), ErrorKind::WrongLength { expected: 256, got: 248 });
        assert_eq!(kind(&[0, 32, 8], DataType::F32), ErrorKind::Shape);
    }

    /// Takes what is handed over and keeps it.
    struct Kept(Vec<f32>);

    impl WriteInput for Kept {
        fn write_input<T: Element>(&mut self, _name: Option<&str>, data: &[T]) -> Result<()> {
            self.0.extend_from_slice(bytemuck::cast_slice(data));
            Ok(())
        }
    }

    /// Rows of 8 elements, each of its number, as `calls` samples of 32 of them.
    fn numbered(calls: usize) -> Feed {
        let values = (0..calls * 32).flat_map(|row| [row as f32; 8]).collect();
        let array = Array::new(&[calls, 32, 8], Values::F32(values)).unwrap();
        Feed::new(&windows(), vec![(None, array)]).unwrap()
    }

    /// The rows of a window, each by its first element.
    fn rows(feed: &Feed, window: usize) -> Vec<usize> {
        let mut kept = Kept(Vec::new());
        feed.write(window, &mut kept).unwrap();
        kept.0.chunks(8).map(|row| row[0] as usize).collect()
    }

    #[test]
    fn windows_slide_over_one_series_that_begins_again_at_its_end() {
        let feed = numbered(2).sliding(8, 50).unwrap();
        assert_eq!(feed.calls(), 50);
        for window in [0, 1, 30, 49] {
            let expected: Vec<usize> = (window..window + 32).map(|row| row % 50).collect();
            assert_eq!(rows(&feed, window), expected);
            let mut newest = Kept(Vec::new());
            feed.write_row(window, 31, &mut newest).unwrap();
            assert_eq!(newest.0, [((window + 31) % 50) as f32; 8]);
        }
        assert_eq!(numbered(2).sliding(8, 1000).unwrap().calls(), 64, "no more than there are rows");
    }

    #[test]
    fn series_shorter_than_a_window_goes_round_in_it() {
        let feed = numbered(1).sliding(8, 3).unwrap();
        assert_eq!(feed.calls(), 3);
        assert_eq!(rows(&feed, 2), (2..34).map(|row| row % 3).collect::<Vec<_>>());
    }

    #[test]
    fn rows_that_make_no_whole_window_are_refused() {
        for row in [0, 7, 257] {
            assert_eq!(numbered(1).sliding(row, 10).unwrap_err().kind(), ErrorKind::InvalidArgument);
        }
    }

    #[test]
    fn random_inputs_of_one_seed_are_the_same() {
        let values = |seed| Feed::random(&windows(), 2, seed).unwrap().inputs.remove(0).values;
        assert_eq!(values(1), values(1));
        assert_ne!(values(1), values(2));
        let values = values(3);
        let mean = (0..values.len()).map(|index| values.get(index)).sum::<f64>() / values.len() as f64;
        assert!(mean.abs() < 0.2, "{mean}");
    }
}

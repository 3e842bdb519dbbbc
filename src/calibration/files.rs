//! Calibration data from files: `.npy`, `.npz`, a folder of `.npy`, raw bytes.

use std::io::{Cursor, Read as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::{CalibrationSource, batches};
use crate::backend::Signature;
use crate::data::{Array, Feed, Values, check};
use crate::error::{Error, ErrorKind, Result};
use crate::files;
use crate::normalize::{Normalization, Normalizer};
use crate::onnx::Model;
use crate::tensor::{DataType, Shapes, TensorInfo};

/// Samples that were read from files, cut into batches.
#[derive(Debug, Clone)]
pub struct FileSamples {
    inputs: Vec<Samples>,
    batches: usize,
    next: usize,
    left_over: usize,
}

/// One input's samples, one after the other.
#[derive(Debug, Clone)]
struct Samples {
    name: String,
    data_type: DataType,
    bytes: Vec<u8>,
    /// Of one batch.
    batch: usize,
}

/// Reads the samples of each input of `model`, before their normalisation, in batches of `shapes`: files by input, or
/// without a name for a network of one input.
///
/// A file is `.npy` with a sample or with samples along axis 0, `.npz` with such arrays (named as the inputs, or, for a
/// network of one input, anyhow and taken in the order of their names), a folder of `.npy` files in the order of their
/// names, or else raw elements of the type that the normalisation takes.
///
/// # Errors
/// [`ErrorKind::Io`]; [`ErrorKind::InvalidArgument`] for a file that is none of these and for none at all;
/// [`ErrorKind::WrongType`], [`ErrorKind::WrongLength`], [`ErrorKind::Shape`] with what was expected and got.
pub fn read_files(
    model: &Model,
    normalizations: &[Normalization],
    shapes: &Shapes,
    paths: &[(Option<String>, PathBuf)],
) -> Result<FileSamples> {
    // A file's samples are counted one by one, and a batch takes several of them.
    let single = batches::resolve(model, normalizations, &Shapes::new())
        .or_else(|_| batches::resolve(model, normalizations, shapes))?;
    let batched = batches::resolve(model, normalizations, shapes)?;
    let mut found: Vec<Vec<Array>> = vec![Vec::new(); model.inputs().len()];
    for (name, path) in paths {
        for (input, array) in read(model, &single, name.as_deref(), path)? {
            found[input].push(array);
        }
    }
    let mut inputs = Vec::new();
    let mut counted: Option<(usize, usize)> = None;
    for (place, arrays) in found.iter().enumerate() {
        let (tensor, (_, one), (_, batch)) = (&model.inputs()[place], &single[place], &batched[place]);
        let samples = join(tensor, one, batch, arrays)?;
        let (whole, rest) = (samples.bytes.len() / samples.batch, samples.bytes.len() % samples.batch);
        let this = (whole, rest / one.input_bytes());
        if *counted.get_or_insert(this) != this {
            return Err(Error::new(ErrorKind::InvalidArgument, "read calibration data")
                .expected("as many samples of each input")
                .got(format!("others of `{}`", tensor.name)));
        }
        inputs.push(samples);
    }
    let (batches, left_over) = counted.unwrap_or((0, 0));
    Ok(FileSamples { inputs, batches, next: 0, left_over })
}

impl FileSamples {
    /// How many samples were left over, because they did not fill a batch.
    #[must_use]
    pub fn left_over(&self) -> usize {
        self.left_over
    }

    /// Batches from all over the samples, `most` of them at most, as calls of a network that takes what these were read for.
    ///
    /// # Errors
    /// Those of [`Feed::new`]; [`ErrorKind::Unsupported`] for an input of bf16.
    pub fn to_feed(&self, signature: &Signature, most: usize) -> Result<Feed> {
        let calls = self.batches.min(most);
        let arrays = self.inputs.iter().map(|samples| {
            let Samples { name, data_type, bytes, batch } = samples;
            let batches = (0..calls).map(|call| &bytes[call * self.batches / calls * batch..][..*batch]);
            let values = Values::from_bytes(*data_type, &batches.collect::<Vec<_>>().concat()).ok_or_else(|| {
                Error::new(ErrorKind::Unsupported, format!("feed input `{name}` from calibration data"))
                    .expected("a type that Rust has")
                    .got(data_type.to_string())
            })?;
            let array = Array::new(&[calls, batch / data_type.size()], values)?;
            Ok((Some(name.clone()), array))
        });
        Feed::new(signature, arrays.collect::<Result<_>>()?)
    }
}

impl CalibrationSource for FileSamples {
    fn next(&mut self, inputs: &mut [&mut [u8]]) -> Result<bool> {
        if self.next == self.batches {
            return Ok(false);
        }
        for (samples, input) in self.inputs.iter().zip(inputs) {
            input.copy_from_slice(&samples.bytes[self.next * samples.batch..][..samples.batch]);
        }
        self.next += 1;
        Ok(true)
    }

    fn batches(&self) -> Option<usize> {
        Some(self.batches)
    }

    fn identity(&mut self) -> Option<[u8; 32]> {
        let mut hash = Sha256::new();
        for samples in &self.inputs {
            hash.update((samples.bytes.len() as u64).to_le_bytes());
            hash.update(&samples.bytes);
        }
        Some(hash.finalize().into())
    }
}

/// The arrays of a file, each with the input that it is for.
fn read(
    model: &Model,
    normalizers: &[(Vec<i64>, Normalizer)],
    name: Option<&str>,
    path: &Path,
) -> Result<Vec<(usize, Array)>> {
    let names: Vec<&str> = model.inputs().iter().map(|input| input.name.as_str()).collect();
    let wrong = |got: String| {
        Error::new(ErrorKind::InvalidArgument, format!("read calibration data from {}", path.display()))
            .expected(format!("samples of {}", names.join(", ")))
            .got(got)
            .advice("name the input: --calib NAME:FILE")
    };
    let place = match name {
        Some(name) => Some(names.iter().position(|known| *known == name).ok_or_else(|| wrong(format!("`{name}`")))?),
        None => (names.len() == 1).then_some(0),
    };
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    if ending == "npz" {
        return unzip(path)?
            .into_iter()
            .map(|(entry, array)| {
                let named = names.iter().position(|known| *known == entry).or(place);
                Ok((named.ok_or_else(|| wrong(format!("an array `{entry}`")))?, array))
            })
            .collect();
    }
    let place = place.ok_or_else(|| wrong("a file without an input's name".to_owned()))?;
    let arrays = if path.is_dir() {
        folder(path)?
    } else if ending == "npy" {
        vec![Array::read_npy(path)?]
    } else {
        let normalizer = &normalizers[place].1;
        vec![Array::read_raw(path, normalizer.input_type(), normalizer.count())?]
    };
    Ok(arrays.into_iter().map(|array| (place, array)).collect())
}

fn folder(path: &Path) -> Result<Vec<Array>> {
    let failed = |error: std::io::Error| {
        Error::new(ErrorKind::Io, format!("read calibration data from {}", path.display())).got(error.to_string())
    };
    let mut inside = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        inside.push(entry.map_err(failed)?.path());
    }
    inside.retain(|file| file.extension().is_some_and(|ending| ending == "npy"));
    inside.sort();
    if inside.is_empty() {
        return Err(Error::new(ErrorKind::InvalidArgument, format!("read calibration data from {}", path.display()))
            .expected(".npy files in the folder")
            .got("none"));
    }
    inside.iter().map(Array::read_npy).collect()
}

/// The arrays of a `.npz` file, in the order of their names.
fn unzip(path: &Path) -> Result<Vec<(String, Array)>> {
    let operation = || format!("read the arrays in {}", path.display());
    let bad = |got: String| {
        Error::new(ErrorKind::InvalidArgument, operation())
            .expected("a .npz file")
            .got(got)
            .advice("write it with numpy.savez")
    };
    let bytes = files::read(path, operation)?;
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(|error| bad(error.to_string()))?;
    let mut arrays = Vec::new();
    for number in 0..archive.len() {
        let mut file = archive.by_index(number).map_err(|error| bad(error.to_string()))?;
        let entry = file.name().to_owned();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|error| bad(format!("{entry}: {error}")))?;
        let array = Array::from_npy(&bytes, &path.join(&entry))?;
        arrays.push((entry.strip_suffix(".npy").unwrap_or(&entry).to_owned(), array));
    }
    arrays.sort_by(|one, other| one.0.cmp(&other.0));
    if arrays.is_empty() { Err(bad("one without arrays".to_owned())) } else { Ok(arrays) }
}

/// One input's arrays behind each other, each checked.
fn join(tensor: &TensorInfo, one: &Normalizer, batch: &Normalizer, arrays: &[Array]) -> Result<Samples> {
    if arrays.is_empty() {
        return Err(Error::new(ErrorKind::InvalidArgument, "read calibration data")
            .expected(format!("samples of `{}`", tensor.name))
            .got("none")
            .advice("add --calib NAME:FILE for each input"));
    }
    let mut bytes = Vec::new();
    for array in arrays {
        check(tensor, one, array)?;
        bytes.extend_from_slice(Values::as_bytes(&array.values));
    }
    if bytes.len() < batch.input_bytes() {
        let (expected, got) = (batch.input_bytes() / one.input_bytes(), bytes.len() / one.input_bytes());
        return Err(Error::new(ErrorKind::WrongLength { expected, got }, "read calibration data")
            .expected(format!("at least the {expected} samples of a batch"))
            .got(got.to_string())
            .advice("give more samples or ask for smaller batches"));
    }
    Ok(Samples { name: tensor.name.clone(), data_type: one.input_type(), bytes, batch: batch.input_bytes() })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use zip::write::SimpleFileOptions;

    use super::*;
    use crate::test_support::{assert_refused, root};

    fn npz(path: &Path, arrays: &[(&str, &Array)]) {
        let mut archive = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
        for (place, (name, array)) in arrays.iter().enumerate() {
            // numpy.savez stores, numpy.savez_compressed deflates.
            let method = if place % 2 == 0 { zip::CompressionMethod::Stored } else { zip::CompressionMethod::Deflated };
            let npy = path.with_extension("npy");
            array.write_npy(&npy).unwrap();
            archive.start_file(format!("{name}.npy"), SimpleFileOptions::default().compression_method(method)).unwrap();
            archive.write_all(&std::fs::read(npy).unwrap()).unwrap();
        }
        archive.finish().unwrap();
    }

    #[test]
    fn arrays_of_an_npz_are_taken_by_name_or_in_the_order_of_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.npz");
        let model = Model::read(root().join("models/mlp.onnx")).unwrap();
        let array =
            |value: f32, samples: usize| Array::new(&[samples, 256], Values::F32(vec![value; samples * 256])).unwrap();
        let (one, two, three) = (array(1.0, 1), array(2.0, 2), array(3.0, 1));
        npz(&path, &[("b", &two), ("input", &one), ("a", &three)]);
        let mut samples = read_files(&model, &[], &Shapes::new(), &[(None, path.clone())]).unwrap();
        assert_eq!(samples.batches(), Some(4));
        let mut seen = Vec::new();
        let mut bytes = [0_u64; 128];
        while samples.next(&mut [bytemuck::cast_slice_mut(&mut bytes)]).unwrap() {
            seen.push(bytemuck::cast_slice::<u64, f32>(&bytes)[0]);
        }
        assert_eq!(seen, [3.0, 2.0, 2.0, 1.0]);
        npz(&path, &[]);
        let empty = read_files(&model, &[], &Shapes::new(), &[(None, path)]);
        assert_refused(empty, ErrorKind::InvalidArgument, &["a .npz file", "one without arrays"]);
    }

    #[test]
    fn same_samples_have_the_same_identity_and_others_another() {
        let folder = tempfile::tempdir().unwrap();
        let model = Model::read(root().join("models/mlp.onnx")).unwrap();
        let identity = |value: f32| {
            let path = folder.path().join("x.npy");
            Array::new(&[2, 256], Values::F32(vec![value; 512])).unwrap().write_npy(&path).unwrap();
            read_files(&model, &[], &Shapes::new(), &[(None, path)]).unwrap().identity().unwrap()
        };
        assert_eq!(identity(1.0), identity(1.0));
        assert_ne!(identity(1.0), identity(2.0));
    }
}

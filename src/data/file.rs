//! Arrays that are larger than memory: read and written in pieces, by several threads at once.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{Values, npy, shown};
use crate::error::{Error, ErrorKind, Result};
use crate::files;
use crate::tensor::DataType;

/// An array on disk, of which pieces are read.
#[derive(Debug)]
pub struct ArrayFile {
    file: File,
    path: PathBuf,
    shape: Vec<usize>,
    data_type: DataType,
    /// Where the elements begin.
    data: u64,
}

impl ArrayFile {
    /// Opens a `.npy` file and reads its header.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if it cannot be read, [`ErrorKind::InvalidArgument`] if it is no array, or a truncated one.
    pub fn open_npy(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let (mut file, length) = open(path)?;
        let mut start = Vec::new();
        let read = file.by_ref().take(npy::LONGEST_HEAD as u64).read_to_end(&mut start);
        read.map_err(|error| failed("read", path, &error))?;
        let head = npy::head(&start).map_err(|fault| {
            let error = Error::new(ErrorKind::InvalidArgument, format!("read the array {}", path.display()));
            error.expected(fault.expected).got(fault.got).advice(fault.advice)
        })?;
        // A header may say whatever it likes.
        let whole = (head.data as u64).saturating_add(head.bytes as u64);
        if length < whole {
            return Err(Error::new(ErrorKind::InvalidArgument, format!("read the array {}", path.display()))
                .expected(format!("{whole} bytes"))
                .got(format!("{length}: a truncated file"))
                .advice("copy the file again"));
        }
        let (shape, data_type, data) = (head.shape, head.data_type, head.data as u64);
        Ok(Self { file, path: path.to_path_buf(), shape, data_type, data })
    }

    /// Opens a file of raw little-endian elements: samples of `sample` elements, as many as it holds.
    ///
    /// # Errors
    /// As [`open_npy`](Self::open_npy), and [`ErrorKind::InvalidArgument`] if it does not hold whole samples.
    pub fn open_raw(path: impl AsRef<Path>, data_type: DataType, sample: usize) -> Result<Self> {
        let path = path.as_ref();
        let (file, length) = open(path)?;
        let wants = (sample * data_type.size()).max(1) as u64;
        if length == 0 || length % wants != 0 {
            return Err(Error::new(ErrorKind::InvalidArgument, format!("read the raw array {}", path.display()))
                .expected(format!("a multiple of {wants} bytes ({sample} {data_type} a sample)"))
                .got(format!("{length} bytes")));
        }
        let shape = vec![(length / wants) as usize, sample];
        Ok(Self { file, path: path.to_path_buf(), shape, data_type, data: 0 })
    }

    /// Dimensions.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Of its elements.
    #[must_use]
    pub fn data_type(&self) -> DataType {
        self.data_type
    }

    /// Its number of elements.
    #[must_use]
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// Reads the bytes of elements from number `element` on, as many as `into` takes.
    ///
    /// # Errors
    /// [`ErrorKind::Io`], also if the file has become shorter since.
    pub fn read_at(&self, element: usize, into: &mut [u8]) -> Result<()> {
        let at = self.data + (element * self.data_type.size()) as u64;
        self.file.read_exact_at(into, at).map_err(|error| failed("read", &self.path, &error))
    }
}

/// A `.npy` file that is written in pieces, in any order.
#[derive(Debug)]
pub struct ArrayWriter {
    file: File,
    path: PathBuf,
    data_type: DataType,
    data: u64,
}

impl ArrayWriter {
    /// Makes the file at its whole size, with zeros for elements, or opens the one that is there and keeps its elements. Bools are
    /// written as the bytes that they are, as [`Values`] has them.
    ///
    /// # Errors
    /// [`ErrorKind::Io`]; [`ErrorKind::InvalidArgument`] if the one that is there is another array, or a type that NumPy lacks.
    pub fn open(path: impl AsRef<Path>, shape: &[usize], data_type: DataType, keep: bool) -> Result<Self> {
        let path = path.as_ref();
        let Some(data_type) = Values::empty(data_type).map(|values| values.data_type()) else {
            return Err(Error::new(ErrorKind::InvalidArgument, format!("write {}", path.display()))
                .expected("a type that NumPy has")
                .got(data_type.to_string()));
        };
        let head = npy::encode_head(shape, data_type);
        let bytes = (head.len() + shape.iter().product::<usize>() * data_type.size()) as u64;
        let file = OpenOptions::new().read(true).write(true).create(!keep).truncate(!keep).open(path);
        let file = file.map_err(|error| failed(if keep { "go on with" } else { "write" }, path, &error))?;
        if keep {
            let mut found = vec![0; head.len()];
            let same = file.read_exact_at(&mut found, 0).is_ok() && found == head;
            if !same || file.metadata().map_err(|error| failed("write", path, &error))?.len() != bytes {
                return Err(Error::new(ErrorKind::InvalidArgument, format!("go on with {}", path.display()))
                    .expected(format!("an array of {} of {data_type}, as it was begun", shown(shape)))
                    .got("something else"));
            }
        } else {
            let made = file.write_all_at(&head, 0).and_then(|()| file.set_len(bytes));
            made.map_err(|error| failed("write", path, &error))?;
        }
        Ok(Self { file, path: path.to_path_buf(), data_type, data: head.len() as u64 })
    }

    /// Writes elements from number `element` on.
    ///
    /// # Errors
    /// [`ErrorKind::Io`].
    ///
    /// # Panics
    /// If the elements are of another type.
    pub fn write_at(&self, element: usize, values: &Values) -> Result<()> {
        assert_eq!(values.data_type(), self.data_type, "elements of the array's type");
        let at = self.data + (element * self.data_type.size()) as u64;
        self.file.write_all_at(values.as_bytes(), at).map_err(|error| failed("write", &self.path, &error))
    }

    /// Returns when all that was written is on the disk.
    ///
    /// # Errors
    /// [`ErrorKind::Io`].
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|error| failed("write", &self.path, &error))
    }
}

fn open(path: &Path) -> Result<(File, u64)> {
    let file = File::open(path).map_err(|error| failed("read", path, &error))?;
    let about = file.metadata().map_err(|error| failed("read", path, &error))?;
    if about.is_dir() {
        return Err(Error::new(ErrorKind::Io, format!("read {}", path.display()))
            .expected("a file")
            .got("a directory"));
    }
    Ok((file, about.len()))
}

fn failed(what: &str, path: &Path, error: &std::io::Error) -> Error {
    let advice = match error.kind() {
        std::io::ErrorKind::NotFound if what == "read" => "check the path",
        std::io::ErrorKind::NotFound if what == "write" => "make its folder first",
        std::io::ErrorKind::StorageFull => "the disk is full: free some of it",
        _ => "",
    };
    Error::new(ErrorKind::Io, format!("{what} {}", path.display())).got(files::plain(error)).advice(advice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Array;

    #[test]
    fn pieces_written_in_any_order_make_the_array() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        let writer = ArrayWriter::open(&path, &[3, 2], DataType::F32, false).unwrap();
        writer.write_at(4, &Values::F32(vec![5.0, 6.0])).unwrap();
        writer.write_at(0, &Values::F32(vec![1.0, 2.0])).unwrap();
        let writer = ArrayWriter::open(&path, &[3, 2], DataType::F32, true).unwrap();
        writer.write_at(2, &Values::F32(vec![3.0, 4.0])).unwrap();
        let whole = Array::read_npy(&path).unwrap();
        assert_eq!((&whole.shape[..], &whole.values), (&[3, 2][..], &Values::F32(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0])));
        assert!(ArrayWriter::open(&path, &[2, 3], DataType::F32, true).is_err());
        let read = ArrayFile::open_npy(&path).unwrap();
        let mut two = [0; 8];
        read.read_at(3, &mut two).unwrap();
        assert_eq!(bytemuck::pod_read_unaligned::<[f32; 2]>(&two), [4.0, 5.0]);
        assert_eq!(read.shape(), [3, 2]);
    }

    #[test]
    fn bools_are_written_as_the_bytes_that_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        let flags = Values::from_bytes(DataType::Bool, &[1, 0, 1]).unwrap();
        ArrayWriter::open(&path, &[3], DataType::Bool, false).unwrap().write_at(0, &flags).unwrap();
        assert_eq!(Array::read_npy(&path).unwrap().values, flags);
    }

    #[test]
    fn truncated_array_is_refused_when_it_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        Array::new(&[4], Values::F32(vec![1.0; 4])).unwrap().write_npy(&path).unwrap();
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert!(ArrayFile::open_npy(&path).unwrap_err().to_string().contains("truncated"));
        // Whose last byte has no number.
        let head = npy::encode_head(&[usize::MAX / 4], DataType::F32);
        std::fs::write(&path, &head).unwrap();
        assert!(ArrayFile::open_npy(&path).unwrap_err().to_string().contains("truncated"));
    }
}

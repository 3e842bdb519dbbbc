//! NumPy's file format: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.
//!
//! Read here and not by a package, because f16 arrays are wanted, and errors that name what is there instead.

use super::values::Values;
use crate::tensor::DataType;

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// The elements begin at a multiple of this.
const ALIGNMENT: usize = 64;

/// Why a file is not read.
pub(super) struct Fault {
    pub(super) expected: &'static str,
    pub(super) got: String,
    pub(super) advice: &'static str,
}

fn fault<T>(expected: &'static str, got: impl Into<String>, advice: &'static str) -> Result<T, Fault> {
    Err(Fault { expected, got: got.into(), advice })
}

pub(super) fn decode(bytes: &[u8]) -> Result<(Vec<usize>, Values), Fault> {
    let Head { shape, data_type, data, bytes: wanted } = head(bytes)?;
    let values = bytes[data..].get(..wanted).and_then(|data| Values::from_bytes(data_type, data));
    Ok((shape, values.ok_or_else(|| cut(bytes.len()))?))
}

/// What stands before the elements.
pub(super) struct Head {
    pub(super) shape: Vec<usize>,
    pub(super) data_type: DataType,
    /// Where the elements begin.
    pub(super) data: usize,
    /// How many bytes they are.
    pub(super) bytes: usize,
}

/// The longest header that a file is expected to have.
pub(super) const LONGEST_HEAD: usize = 64 << 10;

fn cut(bytes: usize) -> Fault {
    let got = format!("a truncated one of {bytes} bytes");
    Fault { expected: "a whole .npy file", got, advice: "copy the file again" }
}

/// Reads the header at the beginning of `bytes`, which may lack the elements.
pub(super) fn head(bytes: &[u8]) -> Result<Head, Fault> {
    let Some(rest) = bytes.strip_prefix(MAGIC) else {
        let got = if bytes.is_empty() {
            "an empty file".to_owned()
        } else {
            format!("{} bytes of something else", bytes.len())
        };
        return fault("a .npy file", got, "write it with numpy.save; raw bytes must be named .bin");
    };
    let cut = || Err(cut(bytes.len()));
    let (length, rest) = match rest {
        [1, _, a, b, rest @ ..] => (usize::from(u16::from_le_bytes([*a, *b])), rest),
        [2 | 3, _, a, b, c, d, rest @ ..] => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, rest),
        [1..=3, ..] | [] => return cut(),
        [version, ..] => return fault(".npy version 1, 2 or 3", version.to_string(), "write it with numpy.save"),
    };
    let Some(header) = rest.get(..length) else { return cut() };
    let data = bytes.len() - rest.len() + length;
    let header = String::from_utf8_lossy(header);
    let (Some(descr), Some(order), Some(shape)) =
        (field(&header, "descr"), field(&header, "fortran_order"), shape(&header))
    else {
        return fault("a .npy header", header.trim().to_owned(), "write the array with numpy.save");
    };
    let Some(data_type) = data_type(descr) else {
        return fault(
            "an array of f32, f64, f16, u8, i8, i16, i32, i64 or bool",
            format!("dtype {descr}"),
            "convert it with .astype(numpy.float32)",
        );
    };
    if order == "True" && shape.iter().filter(|&&dimension| dimension > 1).count() > 1 {
        return fault("an array in C order", "Fortran order", "save numpy.ascontiguousarray(array)");
    }
    let wanted = shape.iter().try_fold(data_type.size(), |product, &dimension| product.checked_mul(dimension));
    let Some(wanted) = wanted else { return cut() };
    Ok(Head { shape, data_type, data, bytes: wanted })
}

pub(super) fn encode(shape: &[usize], values: &Values) -> Vec<u8> {
    let mut bytes = encode_head(shape, values.data_type());
    bytes.extend_from_slice(values.as_bytes());
    bytes
}

/// All that stands before the elements.
pub(super) fn encode_head(shape: &[usize], data_type: DataType) -> Vec<u8> {
    let descr = match data_type {
        DataType::F64 => "<f8",
        DataType::F16 => "<f2",
        DataType::U8 => "|u1",
        DataType::I8 => "|i1",
        DataType::I16 => "<i2",
        DataType::I32 => "<i4",
        DataType::I64 => "<i8",
        _ => "<f4",
    };
    let dimensions: String = shape.iter().map(|dimension| format!("{dimension}, ")).collect();
    let dimensions = if shape.len() > 1 { dimensions.trim_end_matches(", ") } else { dimensions.trim_end() };
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({dimensions}), }}");
    let prefix = MAGIC.len() + 4;
    let padding = (prefix + header.len() + 1).next_multiple_of(ALIGNMENT) - (prefix + header.len() + 1);
    header.extend(std::iter::repeat_n(' ', padding));
    header.push('\n');
    let length = u16::try_from(header.len()).expect("a shape of no more than some hundred dimensions");
    [&MAGIC[..], &[1, 0], &length.to_le_bytes(), header.as_bytes()].concat()
}

/// The word after `'name':`, without quotes.
fn field<'header>(header: &'header str, name: &str) -> Option<&'header str> {
    let after = header.split_once(&format!("'{name}':"))?.1.trim_start();
    let end = if let Some(quoted) = after.strip_prefix('\'') {
        return quoted.split('\'').next();
    } else {
        after.find([',', '}'])
    };
    after.get(..end?).map(str::trim)
}

fn shape(header: &str) -> Option<Vec<usize>> {
    let inside = header.split_once("'shape':")?.1.split_once('(')?.1.split_once(')')?.0;
    inside.split(',').map(str::trim).filter(|part| !part.is_empty()).map(|part| part.parse().ok()).collect()
}

fn data_type(descr: &str) -> Option<DataType> {
    Some(match descr {
        "<f4" => DataType::F32,
        "<f8" => DataType::F64,
        "<f2" => DataType::F16,
        "|u1" | "<u1" => DataType::U8,
        "|i1" | "<i1" => DataType::I8,
        "<i2" => DataType::I16,
        "<i4" => DataType::I32,
        "<i8" => DataType::I64,
        "|b1" => DataType::Bool,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn array_written_and_read_stays_the_same() {
        for (shape, values) in [
            (vec![2, 3], Values::F32(vec![0.0, -1.5, 2.0, f32::MAX, f32::MIN_POSITIVE, 5.0])),
            (vec![2], Values::I64(vec![i64::MIN, i64::MAX])),
            (vec![], Values::F64(vec![3.25])),
            (vec![1, 4], Values::F16([1.0, 2.0, 0.5, -8.0].map(half::f16::from_f32).to_vec())),
        ] {
            let bytes = encode(&shape, &values);
            assert_eq!((bytes.len() - values.as_bytes().len()) % ALIGNMENT, 0);
            assert_eq!(decode(&bytes).ok().unwrap(), (shape, values));
        }
    }

    #[test]
    fn array_cut_anywhere_is_refused() {
        let bytes = encode(&[4], &Values::F32(vec![1.0; 4]));
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn array_of_other_order_or_type_is_refused_with_its_name() {
        let bytes = encode(&[2, 2], &Values::F32(vec![1.0; 4]));
        let swapped = |from: &str, to: &str| {
            let text: Vec<u8> = bytes.clone();
            let at = text.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
            [&text[..at], to.as_bytes(), &text[at + from.len()..]].concat()
        };
        assert_eq!(decode(&swapped("False", "True ")).err().unwrap().got, "Fortran order");
        assert_eq!(decode(&swapped("<f4", ">f4")).err().unwrap().got, "dtype >f4");
    }
}

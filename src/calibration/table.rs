//! Scales as text: TensorRT's calibration cache.

use crate::calibration::Scales;
use crate::error::{Error, ErrorKind, Result};

/// What a calibration found: a scale for each tensor. Its text form is TensorRT's own, one line that says who made it and
/// then `tensor: 3c010a14`, the bits of an f32 in hexadecimal.
#[derive(Debug, Clone, PartialEq)]
pub struct CalibrationTable {
    /// Who made it, and how: `TRT-8601-EntropyCalibration2`. TensorRT's percentile calibrator writes its parameters instead,
    /// `0 3ff0000000000000 3fefff2e48e8a71d`: 8.6.1 with a regression cut-off of 1 and a quantile of 0.9999.
    pub header: String,
    /// A hundred and twenty-seventh of each tensor's range; 0 for one that was always zero.
    pub scales: Scales,
}

impl CalibrationTable {
    /// Reads the text form.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] with the line that is none.
    pub fn parse(text: &[u8]) -> Result<Self> {
        Self::read(text).map_err(|(expected, got)| {
            Error::new(ErrorKind::InvalidArgument, "read a calibration cache")
                .expected(expected)
                .got(got)
                .advice("remove the file and calibrate again")
        })
    }

    /// As [`parse`](Self::parse); of what is none, what was expected and got.
    pub(crate) fn read(text: &[u8]) -> Result<Self, (String, String)> {
        let bad = |expected: &str, got: String| (expected.to_owned(), got);
        let text = std::str::from_utf8(text).map_err(|error| bad("text", error.to_string()))?;
        let mut lines = text.lines();
        let header = lines.next().filter(|header| header.contains("Calibration") || is_of_percentiles(header));
        let header = header.ok_or_else(|| {
            bad("a first line like TRT-8601-EntropyCalibration2", format!("`{}`", text.lines().next().unwrap_or("")))
        })?;
        let mut scales = Scales::new();
        for line in lines.filter(|line| !line.trim().is_empty()) {
            // A tensor's name may have colons in it.
            let bits = line.rsplit_once(": ").and_then(|(name, bits)| {
                Some((name, u32::from_str_radix(bits.trim(), 16).ok().filter(|_| bits.trim().len() <= 8)?))
            });
            let (name, bits) = bits.ok_or_else(|| bad("`tensor: 3c010a14`", format!("`{line}`")))?;
            let scale = f32::from_bits(bits);
            if !scale.is_finite() || scale < 0.0 {
                return Err(bad("a scale that is no negative number", format!("{scale} for `{name}`")));
            }
            scales.insert(name.to_owned(), scale);
        }
        // A second carriage return would not come back from the text form.
        Ok(Self { header: header.trim_end().to_owned(), scales })
    }

    /// The text form.
    #[must_use]
    pub fn to_text(&self) -> String {
        let lines = self.scales.iter().map(|(name, scale)| format!("{name}: {:x}\n", scale.to_bits()));
        format!("{}\n{}", self.header, lines.collect::<String>())
    }
}

/// A number and the bits of two f64.
fn is_of_percentiles(header: &str) -> bool {
    let fields: Vec<&str> = header.split_whitespace().collect();
    let is_f64 = |bits: &&str| bits.len() == 16 && u64::from_str_radix(bits, 16).is_ok();
    matches!(fields.split_first(), Some((number, rest)) if number.parse::<u32>().is_ok() && rest.len() == 2 && rest.iter().all(is_f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_read_as_tensorrt_writes_it() {
        let table = CalibrationTable::parse(b"TRT-8601-EntropyCalibration2\ninput: 3c010a14\na:0: 3f800000\n").unwrap();
        assert_eq!(table.header, "TRT-8601-EntropyCalibration2");
        assert_eq!((table.scales["input"], table.scales["a:0"]), (f32::from_bits(0x3c01_0a14), 1.0));
        assert_eq!(CalibrationTable::parse(table.to_text().as_bytes()).unwrap(), table);
    }

    /// The beginning of what TensorRT 8.6.1's legacy calibrator wrote.
    #[test]
    fn percentile_calibrators_table_begins_with_its_parameters() {
        let text =
            "0 3ff0000000000000 3fefff2e48e8a71d\ninput: 3d811889\n(Unnamed Layer* 0) [Shuffle]_output: 3d811889\n";
        let table = CalibrationTable::parse(text.as_bytes()).unwrap();
        assert_eq!(table.header, "0 3ff0000000000000 3fefff2e48e8a71d");
        assert_eq!((table.scales.len(), table.scales["input"]), (2, f32::from_bits(0x3d81_1889)));
        for wrong in ["0 3ff0000000000000\n", "x 3ff0000000000000 3fefff2e48e8a71d\n", "0 1 2\n"] {
            assert!(CalibrationTable::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn table_that_is_none_is_refused_with_its_line() {
        for (text, words) in [
            (&b""[..], "expected a first line like TRT-8601-EntropyCalibration2"),
            (b"TRT-8601-EntropyCalibration2\ninput 3c010a14\n", "got `input 3c010a14`"),
            (b"TRT-8601-EntropyCalibration2\ninput: 7fc00000\n", "got NaN for `input`"),
            (b"TRT-8601-EntropyCalibration2\ninput: bf800000\n", "got -1 for `input`"),
            (b"\xff\xfe", "expected text"),
        ] {
            let error = CalibrationTable::parse(text).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}

//! How a range is chosen from what was seen of a tensor.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind};

/// How a tensor's range is chosen from the values that calibration saw.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum CalibrationMethod {
    /// The range that loses the least information (Kullback and Leibler's divergence), outliers cut off: TensorRT's
    /// `IInt8EntropyCalibrator2`.
    #[default]
    Entropy,
    /// All that was seen: `IInt8MinMaxCalibrator`.
    MinMax,
    /// What this share of the values, in percent, does not exceed: `IInt8LegacyCalibrator`.
    Percentile(f64),
    /// The range with the least mean squared error; TensorRT has none like it.
    Mse,
}

/// The share when none is named.
const PERCENTILE: f64 = 99.99;

impl CalibrationMethod {
    /// Every one, the percentile at its usual share.
    pub const ALL: [Self; 4] = [Self::Entropy, Self::MinMax, Self::Percentile(PERCENTILE), Self::Mse];
}

impl fmt::Display for CalibrationMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entropy => f.pad("entropy"),
            Self::MinMax => f.pad("minmax"),
            Self::Percentile(share) if *share == PERCENTILE => f.pad("percentile"),
            Self::Percentile(share) => f.pad(&format!("percentile:{share}")),
            Self::Mse => f.pad("mse"),
        }
    }
}

impl FromStr for CalibrationMethod {
    type Err = Error;

    /// `entropy`, `minmax`, `percentile`, `percentile:99.9` or `mse`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let share = |text: &str| text.parse().ok().filter(|share| (50.0..=100.0).contains(share)).map(Self::Percentile);
        let found = match text.to_ascii_lowercase().as_str() {
            "entropy" | "entropy2" => Some(Self::Entropy),
            "minmax" | "min-max" | "max" => Some(Self::MinMax),
            "percentile" => Some(Self::Percentile(PERCENTILE)),
            "mse" => Some(Self::Mse),
            other => other.strip_prefix("percentile:").and_then(share),
        };
        found.ok_or_else(|| {
            Error::new(ErrorKind::InvalidArgument, "choose a calibration method")
                .expected("entropy, minmax, percentile, percentile:50 to percentile:100, or mse")
                .got(format!("`{text}`"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn method_is_read_as_it_is_written() {
        for method in CalibrationMethod::ALL.into_iter().chain([CalibrationMethod::Percentile(99.9)]) {
            assert_eq!(method.to_string().parse::<CalibrationMethod>().unwrap(), method);
        }
        for text in ["", "kl", "percentile:", "percentile:49", "percentile:100.1", "percentile:x"] {
            assert!(text.parse::<CalibrationMethod>().is_err(), "{text}");
        }
    }
}

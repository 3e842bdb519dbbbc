//! The values of flags, as trtexec writes them.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use tickrt::{
    BackendKind, CalibrationMethod, HardwareCompatibility, Int8Mode, MemoryPool, PrecisionConstraints, Preference,
    ProfilingVerbosity, Shapes, elements,
};

/// A value and how it was typed: so it goes into the sidecar, for the command that builds the engine again.
#[derive(Debug, Clone)]
pub struct Typed<T> {
    /// What it means.
    pub value: T,
    text: String,
}

impl<T> Typed<T> {
    /// A parser that keeps the text.
    pub fn parser(parse: fn(&str) -> Result<T, String>) -> impl Fn(&str) -> Result<Self, String> + Clone {
        move |text| Ok(Self { value: parse(text)?, text: text.to_owned() })
    }
}

impl<T> fmt::Display for Typed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// `256M`, `1G`, `512K`, `64B`; a bare number is MiB, as in trtexec.
pub fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no size; write it as 256M, 1G, 512K or 64B, or as a number of MiB");
    let digits = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit: u64 = match unit.to_ascii_uppercase().as_str() {
        "B" => 1,
        "K" | "KB" | "KIB" => 1 << 10,
        "" | "M" | "MB" | "MIB" => 1 << 20,
        "G" | "GB" | "GIB" => 1 << 30,
        _ => return Err(wrong()),
    };
    let bytes = number.parse::<f64>().map_err(|_| wrong())? * unit as f64;
    if (1.0..1e15).contains(&bytes) { Ok(bytes as u64) } else { Err(wrong()) }
}

/// A memory pool and its limit.
pub type Pool = (MemoryPool, u64);

/// `workspace:256M,tacticSharedMem:64K`.
pub fn pools(text: &str) -> Result<Vec<Pool>, String> {
    let pool = |part: &str| {
        let (name, limit) =
            part.split_once(':').ok_or_else(|| format!("`{part}` is no POOL:SIZE, as workspace:256M"))?;
        let pool = match name {
            "workspace" => MemoryPool::Workspace,
            "dlaSRAM" => MemoryPool::DlaManagedSram,
            "dlaLocalDRAM" => MemoryPool::DlaLocalDram,
            "dlaGlobalDRAM" => MemoryPool::DlaGlobalDram,
            "tacticDRAM" => MemoryPool::TacticDram,
            "tacticSharedMem" => MemoryPool::TacticSharedMemory,
            _ => {
                return Err(format!(
                    "there is no pool `{name}`; the pools are workspace, tacticSharedMem, tacticDRAM, dlaSRAM, \
                     dlaLocalDRAM and dlaGlobalDRAM"
                ));
            }
        };
        Ok((pool, size(limit)?))
    };
    text.split(',').map(pool).collect()
}

/// `in0:1x3x8,in1:1x2`. A tensor's name may have colons in it.
pub fn shapes(text: &str) -> Result<Shapes, String> {
    let shape = |part: &str| {
        let wrong = || format!("`{part}` is no NAME:SHAPE, as input:1x3x8");
        let (name, shape) = part.rsplit_once(':').filter(|(name, _)| !name.is_empty()).ok_or_else(wrong)?;
        let shape = shape.split('x').map(|number| number.parse::<i64>().map_err(|_| wrong()));
        let shape = shape.collect::<Result<Vec<_>, _>>()?;
        if elements(&shape).is_none() { Err(wrong()) } else { Ok((name.to_owned(), shape)) }
    };
    let mut shapes = Shapes::new();
    for part in text.split(',') {
        let (name, shape) = shape(part)?;
        if shapes.insert(name.clone(), shape).is_some() {
            return Err(format!("`{name}` has two shapes"));
        }
    }
    Ok(shapes)
}

/// `75,89` or `8.9`; `current` is the GPU at hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Capability {
    /// Ask the GPU.
    Current,
    /// 89 is 8.9.
    Number(u32),
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Current => f.write_str("current"),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

impl FromStr for Capability {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |digits: &str| digits.parse().map(Self::Number).ok();
        match text.split_once('.') {
            _ if text == "current" => Some(Self::Current),
            Some((major, minor)) if minor.len() == 1 => number(&format!("{major}{minor}")),
            Some(_) => None,
            None => number(text),
        }
        .ok_or_else(|| format!("`{text}` is no compute capability; write it as 8.9 or 89, or `current`"))
    }
}

/// `trt8`, `trt10`, `trt11`, `rtx`, a library or a folder with one.
pub fn preference(text: &str) -> Result<Preference, String> {
    text.parse().map_err(|error: tickrt::Error| error.to_string())
}

/// An entry of a chain.
pub fn backend(text: &str) -> Result<BackendKind, String> {
    match text {
        "resident" => Ok(BackendKind::Resident),
        "tensorrt" | "trt" => Ok(BackendKind::TensorRt),
        "ort-cuda" | "cuda" => Ok(BackendKind::OrtCuda),
        "ort-cpu" | "cpu" => Ok(BackendKind::OrtCpu),
        _ => Err(format!("`{text}` is none of resident, tensorrt, ort-cuda, ort-cpu")),
    }
}

/// A calibration method.
pub fn method(text: &str) -> Result<CalibrationMethod, String> {
    text.parse().map_err(|error: tickrt::Error| error.to_string())
}

/// Who calibrates.
pub fn int8_mode(text: &str) -> Result<Int8Mode, String> {
    match text {
        "auto" => Ok(Int8Mode::Auto),
        "native" => Ok(Int8Mode::Native),
        "qdq" => Ok(Int8Mode::Qdq),
        _ => Err(format!("`{text}` is none of auto, native, qdq")),
    }
}

/// trtexec's `--precisionConstraints`.
pub fn constraints(text: &str) -> Result<PrecisionConstraints, String> {
    match text {
        "none" => Ok(PrecisionConstraints::None),
        "prefer" => Ok(PrecisionConstraints::Prefer),
        "obey" => Ok(PrecisionConstraints::Obey),
        _ => Err(format!("`{text}` is none of none, prefer, obey")),
    }
}

/// trtexec's `--hardwareCompatibilityLevel`.
pub fn hardware(text: &str) -> Result<HardwareCompatibility, String> {
    match text {
        "none" => Ok(HardwareCompatibility::None),
        "ampere+" => Ok(HardwareCompatibility::AmperePlus),
        "sameComputeCapability" => Ok(HardwareCompatibility::SameComputeCapability),
        _ => Err(format!("`{text}` is none of none, ampere+, sameComputeCapability")),
    }
}

/// trtexec's `--profilingVerbosity`.
pub fn verbosity(text: &str) -> Result<ProfilingVerbosity, String> {
    match text {
        "layer_names_only" | "default" => Ok(ProfilingVerbosity::LayerNamesOnly),
        "none" => Ok(ProfilingVerbosity::None),
        "detailed" | "verbose" => Ok(ProfilingVerbosity::Detailed),
        _ => Err(format!("`{text}` is none of layer_names_only, none, detailed")),
    }
}

/// `NAME:FILE` or `FILE`; a file that is there is one, colon or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFile {
    /// The tensor, if it is named.
    pub name: Option<String>,
    /// The file.
    pub path: PathBuf,
}

impl fmt::Display for NamedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.name {
            write!(f, "{name}:")?;
        }
        write!(f, "{}", self.path.display())
    }
}

impl FromStr for NamedFile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("no file is named".to_owned());
        }
        Ok(match text.rsplit_once(':') {
            Some((name, path)) if !name.is_empty() && !path.is_empty() && !PathBuf::from(text).exists() => {
                Self { name: Some(name.to_owned()), path: path.into() }
            }
            _ => Self { name: None, path: text.into() },
        })
    }
}

/// A tolerance: not negative, not NaN.
pub fn tolerance(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| *number >= 0.0);
    number.ok_or_else(|| format!("`{text}` is no number from 0 on"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_takes_units_and_bare_mebibytes() {
        for (text, bytes) in [
            ("256M", 256 << 20),
            ("256", 256 << 20),
            ("1G", 1 << 30),
            ("512KiB", 512 << 10),
            ("0.5g", 512 << 20),
            ("64B", 64),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "M", "-1", "1T", "1.2.3M", "0", "1e9", "256 M"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shapes_are_read_as_trtexec_writes_them() {
        let read = shapes("in0:1x3x8,a:0:1x2").unwrap();
        assert_eq!((&read["in0"], &read["a:0"]), (&vec![1, 3, 8], &vec![1, 2]));
        for text in ["", "1x3", ":1x3", "in0:", "in0:1xx3", "in0:1x-3", "in0:1,in0:2"] {
            assert!(shapes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn capability_is_read_with_and_without_dot() {
        assert_eq!("8.9".parse(), Ok(Capability::Number(89)));
        assert_eq!("120".parse(), Ok(Capability::Number(120)));
        assert!("8.10".parse::<Capability>().is_err());
    }
}

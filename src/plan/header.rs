//! The first 28 bytes of a plan.
//!
//! u32 tag, u32 zero, the length of the whole plan as u64 at byte 16, and the version of TensorRT at bytes 24 to 27:
//! seen in plans of TensorRT 8.6.1 (tag `ftrt`) and TensorRT-RTX 1.7.1 (tag `vtrt`).

use super::Fault;
use crate::error::ErrorKind;
use crate::library::{Flavour, Version};

const TENSORRT: [u8; 4] = *b"ftrt";
const TENSORRT_RTX: [u8; 4] = *b"vtrt";
const LENGTH: usize = 28;

/// What a plan says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) flavour: Flavour,
    pub(super) version: Version,
}

/// Whether as many bytes of the tag as are there are right.
pub(super) fn begins_as_plan(bytes: &[u8]) -> bool {
    let tag = &bytes[..bytes.len().min(4)];
    !tag.is_empty() && (TENSORRT.starts_with(tag) || TENSORRT_RTX.starts_with(tag))
}

/// Whether these are the bytes of a resident engine.
pub(super) fn begins_as_resident(bytes: &[u8]) -> bool {
    bytes.starts_with(&crate::resident::artefact::MAGIC)
}

/// Reads the header. Errors without looking further than it must.
pub(super) fn read(bytes: &[u8]) -> Result<Header, Fault> {
    if !begins_as_plan(bytes) {
        return Err(not_a_plan(bytes));
    }
    let truncated = |expected: String| Fault {
        kind: ErrorKind::PlanTruncated,
        expected,
        got: format!("{} bytes", bytes.len()),
        hint: "copy the file again",
    };
    let Some(header) = bytes.first_chunk::<LENGTH>() else {
        return Err(truncated(format!("a plan, whose header alone has {LENGTH} bytes")));
    };
    let rtx = header.starts_with(&TENSORRT_RTX);
    let length = u64::from_le_bytes(*header[16..].first_chunk().expect("28 bytes"));
    if length > bytes.len() as u64 {
        return Err(truncated(format!("{length} bytes, as its header says")));
    }
    let version = Version { major: header[24].into(), minor: header[25].into(), patch: header[26].into() };
    let flavour = match (rtx, version.major) {
        (true, 1..8) => Flavour::Rtx,
        (false, 8) => Flavour::Trt8,
        (false, 10) => Flavour::Trt10,
        (false, 11) => Flavour::Trt11,
        _ => {
            let product = if rtx { "TensorRT-RTX 1" } else { "TensorRT 8, 10 or 11" };
            return Err(Fault {
                kind: ErrorKind::PlanVersion,
                expected: format!("a plan of {product}"),
                got: format!("one whose header says version {}", version.number()),
                hint: "",
            });
        }
    };
    Ok(Header { flavour, version })
}

pub(super) fn not_a_plan(bytes: &[u8]) -> Fault {
    foreign_file(bytes, "a TensorRT plan")
}

/// Says what the bytes are instead of what was `expected`, where that can be told.
pub(crate) fn foreign_file(bytes: &[u8], expected: &str) -> Fault {
    let (got, hint) = match bytes {
        [] => ("an empty file".to_owned(), ""),
        _ if bytes.len() > 4 && begins_as_plan(bytes) => ("a TensorRT plan".to_owned(), "load it as one"),
        _ if begins_as_resident(bytes) => ("a resident engine".to_owned(), "load it as one"),
        _ if wrapped(bytes) => (
            "a plan with a JSON header before it, as ultralytics writes".to_owned(),
            "cut off the header (its length is the first four bytes, little-endian)",
        ),
        [b'<', ..] => ("a web page".to_owned(), "download the file itself"),
        [b'{', ..] => ("JSON text".to_owned(), "name the engine, not its sidecar"),
        _ if bytes.starts_with(b"version https://git-lfs") => {
            ("a Git LFS pointer".to_owned(), "fetch the file with `git lfs pull`")
        }
        // Field 1 (the IR version) and a small number: so every ONNX model begins.
        [8, 1..=20, ..] => ("what looks like an ONNX model".to_owned(), "name the engine, not the model"),
        _ => (format!("a file of {} bytes that begins with {:02x?}", bytes.len(), &bytes[..bytes.len().min(4)]), ""),
    };
    Fault { kind: ErrorKind::NotAPlan, expected: expected.to_owned(), got, hint }
}

fn wrapped(bytes: &[u8]) -> bool {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return false };
    let length = u32::from_le_bytes(*length) as usize;
    rest.first() == Some(&b'{') && rest.get(length..).is_some_and(|plan| plan.len() > 4 && begins_as_plan(plan))
}

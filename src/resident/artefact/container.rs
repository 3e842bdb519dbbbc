//! How machine code and constants lie in the one file.
//!
//! | bytes | what |
//! | --- | --- |
//! | 0..8 | [`MAGIC`] |
//! | 8..12 | the format, u32, little-endian as all that follows |
//! | 12..16 | zeros |
//! | 16..24 | length of the machine code, u64 |
//! | 24..32 | length of the constants, u64 |
//! | 32..64 | zeros |
//! | 64.. | the machine code, the constants, nothing |

use std::ops::Range;

use crate::error::ErrorKind;
use crate::plan::{Fault, foreign_file};

/// A line's end in it, so that whoever changes those is found out.
pub(crate) const MAGIC: [u8; 8] = *b"TICKRES\n";
const FORMAT: u32 = 1;
const HEADER: usize = 64;
const ELF: [u8; 4] = *b"\x7fELF";

/// Where the two lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) cubin: Range<usize>,
    pub(super) constants: Range<usize>,
}

pub(super) fn write(cubin: &[u8], constants: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + cubin.len() + constants.len());
    bytes.extend(MAGIC);
    bytes.extend(FORMAT.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend((cubin.len() as u64).to_le_bytes());
    bytes.extend((constants.len() as u64).to_le_bytes());
    bytes.resize(HEADER, 0);
    bytes.extend(cubin);
    bytes.extend(constants);
    bytes
}

/// Reads the header. What it says of lengths counts only where the bytes are there.
pub(super) fn read(bytes: &[u8]) -> Result<Parts, Fault> {
    let begins = MAGIC.starts_with(&bytes[..bytes.len().min(MAGIC.len())]) && !bytes.is_empty();
    if !begins {
        return Err(foreign(bytes));
    }
    let truncated = |expected: String| Fault {
        kind: ErrorKind::PlanTruncated,
        expected,
        got: format!("{} bytes", bytes.len()),
        hint: "copy the file again",
    };
    let altered = |expected: &str, got: String| Fault {
        kind: ErrorKind::PlanAltered,
        expected: expected.to_owned(),
        got,
        hint: "copy the file again",
    };
    let Some(header) = bytes.first_chunk::<HEADER>() else {
        return Err(truncated(format!("a resident engine, whose header alone has {HEADER} bytes")));
    };
    let format = u32::from_le_bytes(*header[8..].first_chunk().expect("64 bytes"));
    if format != FORMAT {
        return Err(Fault {
            kind: ErrorKind::PlanVersion,
            expected: format!("format {FORMAT}, which tickrt {} knows", env!("CARGO_PKG_VERSION")),
            got: format!("{format}"),
            hint: "",
        });
    }
    if header[12..16].iter().chain(&header[32..]).any(|&byte| byte != 0) {
        return Err(altered("zeros where the header has no field", "others".to_owned()));
    }
    let length = |at: usize| u64::from_le_bytes(*header[at..].first_chunk().expect("64 bytes"));
    let (cubin, constants) = (length(16), length(24));
    let there = (bytes.len() - HEADER) as u64;
    match cubin.checked_add(constants) {
        Some(said) if said < there => {
            return Err(altered(&format!("{said} bytes after the header, as it says"), there.to_string()));
        }
        Some(said) if said == there => {}
        said => {
            let said = said.map_or_else(|| "more than 2^64".to_owned(), |said| said.to_string());
            return Err(truncated(format!("{said} bytes after the header, as it says")));
        }
    }
    // Both are at most as long as what is there.
    let end = HEADER + cubin as usize;
    if !bytes[HEADER..end].starts_with(&ELF) {
        return Err(altered("machine code in an ELF file", "something else".to_owned()));
    }
    Ok(Parts { cubin: HEADER..end, constants: end..bytes.len() })
}

/// What the bytes are instead.
pub(super) fn foreign(bytes: &[u8]) -> Fault {
    foreign_file(bytes, "a resident engine")
}

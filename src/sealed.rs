//! JSON files that carry a checksum of themselves: what lies beside a plan or a resident engine and says what it is.
//!
//! The first field of such a file is `sidecar_sha256`, the SHA-256 of the text with zeros in its place, so that it is the first
//! to be found in the text; its `format` says which fields there are. The text is hashed, not what it means: numbers may not
//! survive reading and writing to the last digit.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{ErrorKind, Result};
use crate::files;
use crate::plan::{digest, hex};

/// Stands for the checksum while it is computed.
pub(crate) const NO_CHECKSUM: &str = "0000000000000000000000000000000000000000000000000000000000000000";
const CHECKSUM_FIELD: &str = "\"sidecar_sha256\": \"";
/// Longer files are not read: a normalisation of a million features has half of it.
const MOST_BYTES: u64 = 256 << 20;

/// What is wrong with such a text: kind, expected, got.
pub(crate) type Fault = (ErrorKind, String, String);

/// The text of something whose `sidecar_sha256` is [`NO_CHECKSUM`], checksum included.
pub(crate) fn to_json(unsealed: &impl Serialize) -> String {
    let text = serde_json::to_string_pretty(unsealed).expect("strings, numbers and finite floats") + "\n";
    let checksum = hex(&digest(text.as_bytes()));
    text.replacen(NO_CHECKSUM, &checksum, 1)
}

/// The bytes of the file at `path`; none if there is no such file.
pub(crate) fn read(path: &Path, operation: impl Fn() -> String) -> Result<Option<Vec<u8>>> {
    if !path.try_exists().unwrap_or(true) {
        return Ok(None);
    }
    let otherwise = (ErrorKind::SidecarDamaged, "the JSON that tickrt wrote");
    files::read_up_to(path, MOST_BYTES, operation, otherwise).map(Some)
}

/// Reads a text of the format `known`, of the sidecar of `what`.
pub(crate) fn parse<T: DeserializeOwned>(text: &[u8], known: u32, what: &str) -> Result<T, Fault> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    if text.is_empty() {
        return Err(damaged("an empty file".to_owned()));
    }
    let text = std::str::from_utf8(text).map_err(|error| damaged(error.to_string()))?;
    let Format { format } = serde_json::from_str(text).map_err(|error| damaged(error.to_string()))?;
    if format > known {
        let expected = format!("format {known}, which tickrt {} knows", env!("CARGO_PKG_VERSION"));
        return Err((ErrorKind::Unsupported, expected, format!("{format}, of a newer tickrt")));
    }
    let (checksum, fitting) = checksums(text).ok_or_else(|| damaged("one without sidecar_sha256".to_owned()))?;
    if checksum != fitting {
        return Err(damaged("one that was changed since (its sidecar_sha256 does not fit)".to_owned()));
    }
    serde_json::from_str(text).map_err(|error| match of_which(text) {
        Some(other) if other != what => {
            (ErrorKind::SidecarDamaged, format!("the sidecar of {what}"), format!("that of {other}"))
        }
        _ => damaged(error.to_string()),
    })
}

/// Whose sidecar a text is, by a field that only the one has.
fn of_which(text: &str) -> Option<&'static str> {
    let has = |field: &str| text.contains(&format!("\n  \"{field}\": "));
    match (has("flavour"), has("turn_layout")) {
        (true, false) => Some("a plan"),
        (false, true) => Some("a resident engine"),
        _ => None,
    }
}

fn damaged(got: String) -> Fault {
    (ErrorKind::SidecarDamaged, "the JSON that tickrt wrote".to_owned(), got)
}

/// The text with the checksum that fits it, if it has a place for one: for tests, and no obstacle to anyone.
pub(crate) fn with_its_checksum(text: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?;
    let (_, fitting) = checksums(text)?;
    let at = text.find(CHECKSUM_FIELD)? + CHECKSUM_FIELD.len();
    Some([&text[..at], &fitting, &text[at + NO_CHECKSUM.len()..]].concat().into_bytes())
}

/// The checksum that stands in a text, and the one that should.
fn checksums(text: &str) -> Option<(&str, String)> {
    let at = text.find(CHECKSUM_FIELD)? + CHECKSUM_FIELD.len();
    let end = at + NO_CHECKSUM.len();
    let (before, checksum, after) = (&text[..at], text.get(at..end)?, text.get(end..)?);
    Some((checksum, hex(&digest([before, NO_CHECKSUM, after].concat().as_bytes()))))
}

/// `2026-11-23T18:28:47Z`.
pub(crate) fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (day, second) = (seconds / 86_400, seconds % 86_400);
    // Years begin in March here, so that the leap day is the last one: then a month's first day is a straight line.
    let day = day + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + next;
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn utc_matches_known_dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_704_067_199, "2023-12-31T23:59:59Z"),
            (1_795_458_527, "2026-11-23T18:28:47Z"),
        ] {
            assert_eq!(utc(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }
}

//! The timing cache as a file: TensorRT's own bytes, so that trtexec's `--timingCacheFile` can share it, and beside it
//! their SHA-256, because TensorRT 8.6 takes half a cache without a word.

use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::error::Result;
use crate::files;
use crate::library::Version;
use crate::plan::hex;

/// What the file holds for the build.
pub(super) struct Read {
    /// None when the file is not there yet, or damaged.
    pub(super) bytes: Vec<u8>,
    /// Not what tickrt wrote.
    pub(super) altered: bool,
}

/// Reads it.
pub(super) fn read(path: &Path) -> Result<Read> {
    if !path.exists() {
        return Ok(Read { bytes: Vec::new(), altered: false });
    }
    let bytes = files::read(path, || format!("read the timing cache {}", path.display()))?;
    // A cache of trtexec's has none, and is taken as it is.
    let written = std::fs::read_to_string(hash_file(path)).ok();
    let altered = written.is_some_and(|written| written.trim() != sha256(&bytes));
    Ok(Read { bytes: if altered { Vec::new() } else { bytes }, altered })
}

/// Writes it whole or not at all. Between cache and hash another build may write its own two: the next one then finds a
/// cache that it takes for damaged, and times its tactics anew.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let hashed = hash_file(path);
    let _ = std::fs::remove_file(&hashed);
    files::write_atomically(path, bytes)?;
    files::write_atomically(&hashed, format!("{}\n", sha256(bytes)).as_bytes())
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hash_file(path: &Path) -> PathBuf {
    files::with_ending(path, ".sha256")
}

/// What the caller is told when TensorRT refused the file's content.
pub(super) fn stale_note(path: &Path, version: Version) -> String {
    let file = path.display();
    format!(
        "the timing cache {file} is damaged or not from {version} on this GPU; it was left aside and a new one begun"
    )
}

/// What the caller is told when the file is not what was written.
pub(super) fn altered_note(path: &Path) -> String {
    format!(
        "the timing cache {} is damaged, or another program has changed it: it is not what {} says; it was left aside \
         as {} and a new one begun; to take it as it is, put it back and remove the .sha256",
        path.display(),
        hash_file(path).display(),
        files::with_ending(path, ".old").display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_comes_back_as_written_and_altered_ones_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.cache");
        assert!(read(&file).unwrap().bytes.is_empty());
        write(&file, b"tactics").unwrap();
        let back = read(&file).unwrap();
        assert_eq!((&back.bytes[..], back.altered), (&b"tactics"[..], false));
        for altered in [&b"tact"[..], b"", b"tacticS"] {
            std::fs::write(&file, altered).unwrap();
            let back = read(&file).unwrap();
            assert_eq!((&back.bytes[..], back.altered), (&b""[..], true));
        }
        std::fs::remove_file(hash_file(&file)).unwrap();
        assert_eq!(read(&file).unwrap().bytes, b"tacticS", "trtexec writes none");
        write(&file, b"others").unwrap();
        assert_eq!(read(&file).unwrap().bytes, b"others");
    }
}

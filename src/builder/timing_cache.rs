//! The timing cache as a file: TensorRT's own bytes, so that trtexec's `--timingCacheFile` can share it.

use std::path::Path;

use crate::error::Result;
use crate::files;
use crate::library::Version;

/// Its bytes; none when the file is not there yet.
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    files::read(path, || format!("read the timing cache {}", path.display()))
}

/// Writes it whole or not at all: two builds may share one file.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    files::write_atomically(path, bytes)
}

/// What the caller is told when TensorRT refused the file's content.
pub(super) fn stale_note(path: &Path, version: Version) -> String {
    let file = path.display();
    format!(
        "the timing cache {file} is damaged or not from {version} on this GPU; it was left aside and a new one begun"
    )
}

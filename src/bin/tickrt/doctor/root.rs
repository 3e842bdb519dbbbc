//! Where /proc and /sys are read: the machine's own, or a recorded tree.

use std::path::{Path, PathBuf};

/// The folder that stands for `/`.
pub struct Root(PathBuf);

impl Root {
    /// The machine at hand.
    pub fn of_this_machine() -> Self {
        Self(PathBuf::from("/"))
    }

    /// A recorded tree.
    #[cfg(test)]
    pub fn at(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    /// The path below this root.
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.0.join(relative)
    }

    /// A file's text without blanks at its ends; `None` where it is not there or may not be read.
    pub fn read(&self, relative: impl AsRef<Path>) -> Option<String> {
        let bytes = std::fs::read(self.path(relative)).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// The names in a folder, sorted; none where it is not there.
    pub fn names(&self, relative: impl AsRef<Path>) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(relative)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }
}

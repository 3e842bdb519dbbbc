//! Versions in a folder, one of them current: `versions/0001-3b9c214cd95d/`, and `current`, a symbolic link.
//!
//! A version is made in a folder of its own and renamed into `versions/` when it is complete; `current` is another link
//! renamed over it. So a reader sees one version or the other, whenever it looks and wherever a deployment was stopped.
//!
//! Each version has a link `previous` to the one that was current when it was deployed. Going back follows these links, and
//! so does what is kept: a version that was rolled back is on the way of none, and never in the place of a good one.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use super::manifest::{Manifest, cannot_write, sync};
use crate::exit::{self, Failure, Outcome};

const STAGING: &str = ".staging";
const PREVIOUS: &str = "previous";

/// A deployment's folder, while nobody else changes it.
pub struct Store {
    folder: PathBuf,
    /// Its lock ends with it.
    _lock: File,
}

impl Store {
    /// Makes the folder where it is not there, and locks it.
    pub fn lock(store: &Path, name: &str) -> Outcome<Self> {
        let folder = store.join(name);
        fs::create_dir_all(folder.join("versions")).map_err(|error| cannot_write(&folder, &error))?;
        let path = folder.join(".lock");
        let open = File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let mut file = open.map_err(|error| cannot_write(&path, &error))?;
        // SAFETY: a descriptor of ours that is open.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
            let error = std::io::Error::last_os_error();
            if error.kind() != std::io::ErrorKind::WouldBlock {
                return Err(Failure::usage(format!(
                    "lock {}: {error}; put the store where files can be",
                    path.display()
                )));
            }
            let holder = fs::read_to_string(&path).unwrap_or_default();
            return Err(Failure::usage(format!(
                "deploy to {}: expected to be alone, got process {} that deploys there; wait for it",
                folder.display(),
                Some(holder.trim()).filter(|holder| !holder.is_empty()).unwrap_or("(unknown)")
            )));
        }
        // For the message above alone: a disk that is full must not keep anybody from going back.
        let _ = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
        // What a deployment that was killed has left.
        let _ = fs::remove_dir_all(folder.join(STAGING));
        Ok(Self { folder, _lock: file })
    }

    /// The link to the version that programs load.
    pub fn current(&self) -> PathBuf {
        self.folder.join("current")
    }

    /// A folder to make a version in, empty but for the link to the version before it.
    pub fn stage(&self) -> Outcome<Staging<'_>> {
        let path = self.folder.join(STAGING);
        fs::create_dir(&path).map_err(|error| cannot_write(&path, &error))?;
        let last = self.versions()?.last().and_then(|version| number(version)).unwrap_or(0);
        let staging = Staging { store: self, path, number: last + 1 };
        if let Some(current) = self.current_version() {
            let link = staging.path.join(PREVIOUS);
            std::os::unix::fs::symlink(Path::new("..").join(current), &link)
                .map_err(|error| cannot_write(&link, &error))?;
        }
        Ok(staging)
    }

    /// Switches to the version before the current one. From which, to which.
    pub fn roll_back(&self) -> Outcome<(String, String)> {
        let Some(from) = self.current_version() else {
            return Err(Failure::usage(format!("roll back {}: nothing is deployed there", self.folder.display())));
        };
        let Some(to) = self.before(&from) else {
            return Err(Failure::usage(format!(
                "roll back {}: there is no version before {from}; see `keep`",
                self.folder.display()
            )));
        };
        Manifest::read(&self.version(&to))?;
        self.switch_to(&to)?;
        Ok((from, to))
    }

    /// Removes all but the current version and those that lead back from it, `number` in all. Which.
    pub fn keep(&self, number: usize) -> Outcome<Vec<String>> {
        let mut versions = self.versions()?;
        let back = std::iter::successors(self.current_version(), |version| self.before(version));
        let kept: Vec<String> = back.take(number).collect();
        versions.retain(|version| !kept.contains(version));
        for version in &versions {
            let path = self.version(version);
            if let Err(error) = fs::remove_dir_all(&path) {
                // The new version is in place: an old one too many is no failure.
                exit::note(format!("remove {}: {error}", path.display()));
            }
        }
        Ok(versions)
    }

    /// In order.
    fn versions(&self) -> Outcome<Vec<String>> {
        let folder = self.folder.join("versions");
        let refused = |error: std::io::Error| Failure::usage(format!("read {}: {error}", folder.display()));
        let entries = fs::read_dir(&folder).map_err(refused)?;
        let mut names: Vec<String> =
            entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.retain(|name| number(name).is_some());
        // By number: as text 10000 comes before 9999.
        names.sort_by_key(|name| number(name));
        Ok(names)
    }

    fn version(&self, name: &str) -> PathBuf {
        self.folder.join("versions").join(name)
    }

    /// The version that was current when this one was deployed, if it is still there. Its number is lower: so the way back ends.
    fn before(&self, version: &str) -> Option<String> {
        let link = fs::read_link(self.version(version).join(PREVIOUS)).ok()?;
        let name = link.file_name()?.to_str()?.to_owned();
        (number(&name)? < number(version)? && self.version(&name).is_dir()).then_some(name)
    }

    fn current_version(&self) -> Option<String> {
        Some(fs::read_link(self.current()).ok()?.file_name()?.to_string_lossy().into_owned())
    }

    fn switch_to(&self, version: &str) -> Outcome {
        let (new, current) = (self.folder.join(".current"), self.current());
        let _ = fs::remove_file(&new);
        let switch = || {
            std::os::unix::fs::symlink(Path::new("versions").join(version), &new)?;
            fs::rename(&new, &current)
        };
        switch().and_then(|()| sync(&self.folder)).map_err(|error| cannot_write(&current, &error))
    }
}

/// `0007-3b9c214cd95d` is number 7.
fn number(version: &str) -> Option<u32> {
    version.split_once('-')?.0.parse().ok()
}

/// A version that is being made; removed when it is dropped.
pub struct Staging<'store> {
    store: &'store Store,
    path: PathBuf,
    number: u32,
}

impl Staging<'_> {
    /// Where its files go.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The number that it will have: higher than any that is there.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Makes it the current version; its name.
    pub fn move_into_place(self, manifest: &Manifest) -> Outcome<String> {
        let version = format!("{:04}-{}", self.number, &manifest.model_sha256[..12]);
        let path = self.store.version(&version);
        let moved = sync(&self.path).and_then(|()| fs::rename(&self.path, &path));
        // The new name before the link to it: a power cut leaves no link to nothing.
        let moved = moved.and_then(|()| sync(&self.store.folder.join("versions")));
        moved.map_err(|error| cannot_write(&path, &error))?;
        self.store.switch_to(&version).inspect_err(|_| {
            if self.store.current_version().as_ref() != Some(&version) {
                let _ = fs::remove_dir_all(&path);
            }
        })?;
        Ok(version)
    }
}

impl Drop for Staging<'_> {
    fn drop(&mut self) {
        // Nothing is there any more once it was moved.
        let _ = fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_after_9999_is_10000_and_the_next_one_higher() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::lock(folder.path(), "toy").unwrap();
        for (there, next) in [("9999-3b9c214cd95d", 10_000), ("10000-3b9c214cd95d", 10_001)] {
            fs::create_dir(store.version(there)).unwrap();
            assert_eq!(store.stage().unwrap().number(), next);
        }
    }
}

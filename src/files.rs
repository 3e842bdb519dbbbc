//! Reading files with errors that say what to do, and writing them so that a reader sees all of a file or none of it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::{Error, ErrorKind, Result};

/// Reads a whole file. `operation` opens the error: `read the plan x.engine`.
pub(crate) fn read(path: &Path, operation: impl Fn() -> String) -> Result<Vec<u8>> {
    if path.is_dir() {
        return Err(Error::new(ErrorKind::Io, operation()).expected("a file").got("a directory"));
    }
    fs::read(path).map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::NotFound => "check the path",
            io::ErrorKind::PermissionDenied => "check the file's permissions",
            _ => "",
        };
        Error::new(ErrorKind::Io, operation()).got(plain(&error)).advice(advice)
    })
}

/// As [`read`]; a file of more than `most` bytes is not what it should be, which `otherwise` says.
pub(crate) fn read_up_to(
    path: &Path,
    most: u64,
    operation: impl Fn() -> String,
    otherwise: (ErrorKind, &str),
) -> Result<Vec<u8>> {
    if let Some(length) = fs::metadata(path).ok().map(|meta| meta.len()).filter(|&length| length > most) {
        let (kind, expected) = otherwise;
        return Err(Error::new(kind, operation()).expected(expected).got(format!("{length} bytes")));
    }
    read(path, operation)
}

/// As [`read`], for a file of at most so many bytes that are worth reading: of a longer one only these.
pub(crate) fn read_at_most(path: &Path, most: usize, operation: impl Fn() -> String) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(most as u64).read_to_end(&mut bytes));
    read.map_err(|error| Error::new(ErrorKind::Io, operation()).got(plain(&error)))?;
    Ok(bytes)
}

/// Writes a file at `path` so that a crash at any moment leaves the old file or the new one, and a failure leaves
/// nothing behind.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    Staged::write(path, bytes)?.commit()
}

/// Writes a file and what lies beside it to vouch for it. A crash or a failure at any moment leaves what was there before, or a
/// pair whose hashes do not fit; never a file that passes for what it is not.
pub(crate) fn write_with_sidecar(path: &Path, bytes: &[u8], sidecar: &Path, text: &[u8]) -> Result<()> {
    // Both files are complete on the disk before either gets its name: a full disk shows here.
    let staged = Staged::write(path, bytes)?;
    let staged_sidecar = Staged::write(sidecar, text)?;
    let earlier = fs::read(sidecar).ok();
    // The sidecar first: once the file has its name, whoever waits for it finds the sidecar as well. Between the two renames
    // an earlier file lies beside the new sidecar, whose hash refuses it.
    staged_sidecar.commit()?;
    staged.commit().inspect_err(|_| {
        let _ = match earlier {
            Some(text) => write_atomically(sidecar, &text),
            None => fs::remove_file(sidecar).map_err(|_| ErrorKind::Io.into()),
        };
    })
}

/// Adds to the file at `path`, in one call: lines of two programs that share the file do not mix.
#[cfg(feature = "tool")]
pub(crate) fn append(path: &Path, bytes: &[u8]) -> Result<()> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    let mut file = file.map_err(|error| failure(path, bytes.len(), &error))?;
    file.write_all(bytes)
        .map_err(|error| Error::new(ErrorKind::Io, format!("append to {}", path.display())).got(plain(&error)))
}

/// A file completely written and synced under a temporary name beside its target. Dropped, it is removed.
#[derive(Debug)]
pub(crate) struct Staged {
    temporary: PathBuf,
    target: PathBuf,
    committed: bool,
}

impl Staged {
    /// Writes `bytes` beside `path`. Whatever can go wrong with the disk goes wrong here, before `path` is touched.
    pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<Self> {
        // A symbolic link stays one: what it points at is replaced.
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        let failed = |error: &io::Error| failure(path, bytes.len(), error);
        let refused = |expected, got, advice| {
            let error = Error::new(ErrorKind::Io, format!("write {}", path.display()));
            Err(error.expected(expected).got(got).advice(advice))
        };
        match fs::metadata(&target).map(|found| found.file_type()) {
            Ok(found) if found.is_dir() => return refused("the name of a file", "a directory", "name a file in it"),
            // The rename would put a file in its place: for root, in that of /dev/null.
            Ok(found) if !found.is_file() => return refused("a regular file", special(found), "name a file"),
            _ => {}
        }
        let (temporary, mut file) = create_beside(&target).map_err(|error| failed(&error))?;
        let staged = Self { temporary, target, committed: false };
        // A rename without the sync can reach the disk before the bytes do, and then a power cut leaves an empty file.
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|error| failed(&error))?;
        Ok(staged)
    }

    /// Gives the file its name.
    pub(crate) fn commit(mut self) -> Result<()> {
        fs::rename(&self.temporary, &self.target).map_err(|error| failure(&self.target, 0, &error))?;
        self.committed = true;
        // The name itself lies in the directory. A file system that cannot sync one has nothing better to offer.
        if let Some(directory) = directory_of(&self.target) {
            let _ = File::open(directory).and_then(|directory| directory.sync_all());
        }
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.committed {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Creates a new file of an unused name in `target`'s own directory: a rename does not cross file systems.
fn create_beside(target: &Path) -> io::Result<(PathBuf, File)> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = target.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidFilename))?;
    loop {
        let mut temporary = std::ffi::OsString::from(".");
        temporary.push(name);
        // Relaxed: only the numbers' being different matters.
        temporary.push(format!(".{}-{}.tmp", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        let temporary = target.with_file_name(temporary);
        match OpenOptions::new().write(true).create_new(true).open(&temporary) {
            Ok(file) => return Ok((temporary, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

/// What a file is that is neither regular nor a directory.
fn special(found: fs::FileType) -> &'static str {
    if found.is_fifo() {
        "a FIFO"
    } else if found.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

/// The file beside `path` whose name goes on with `ending`: `x.cache` and `.old` give `x.cache.old`.
pub(crate) fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Keeps a file that is about to be written anew: `FILE.old`. `what` it is opens the error: `the timing cache`.
pub(crate) fn put_aside(path: &Path, what: &str) -> Result<()> {
    fs::rename(path, with_ending(path, ".old")).map_err(|error| {
        Error::new(ErrorKind::Io, format!("put {what} {} aside", path.display())).got(error.to_string())
    })
}

fn directory_of(path: &Path) -> Option<&Path> {
    path.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
}

fn failure(path: &Path, bytes: usize, error: &io::Error) -> Error {
    let directory = directory_of(path).unwrap_or(Path::new("/"));
    let shown = directory.display();
    let advice = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            format!("free {bytes} bytes in {shown} or write elsewhere; nothing was left behind")
        }
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory if !directory.is_dir() => {
            format!("make the folder {shown} first")
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            format!("make the folder {shown} writable or write elsewhere")
        }
        io::ErrorKind::IsADirectory => "name a file in it".to_owned(),
        // As /proc says.
        io::ErrorKind::NotFound => format!("the folder {shown} takes no files; write elsewhere"),
        _ => "write elsewhere".to_owned(),
    };
    Error::new(ErrorKind::Io, format!("write {}", path.display())).got(plain(error)).advice(advice)
}

/// The system's words without `(os error 2)`, in lower case.
pub(crate) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn write_replaces_whole_file_and_leaves_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.bin");
        write_atomically(&path, b"first").unwrap();
        write_atomically(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(names(directory.path()), ["a.bin"]);
    }

    #[test]
    fn write_through_symbolic_link_keeps_the_link() {
        let directory = tempfile::tempdir().unwrap();
        let (real, link) = (directory.path().join("real"), directory.path().join("link"));
        fs::write(&real, b"old").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        write_atomically(&link, b"new").unwrap();
        assert_eq!(fs::read(&real).unwrap(), b"new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[test]
    fn write_to_impossible_places_says_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let there = directory.path();
        fs::write(there.join("file"), b"").unwrap();
        for (path, words) in [
            (there.to_path_buf(), "got a directory; name a file in it"),
            (there.join("absent/x"), "no such file or directory; make the folder"),
            (there.join("file/x"), "not a directory; make the folder"),
        ] {
            let error = write_atomically(&path, b"bytes").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Io);
            assert!(error.to_string().contains(words), "{error}");
            assert_eq!(names(there), ["file"]);
        }
    }

    #[test]
    fn write_over_what_is_no_regular_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (fifo, link) = (directory.path().join("fifo"), directory.path().join("link"));
        let made = std::process::Command::new("mkfifo").arg(&fifo).status();
        assert!(made.unwrap().success());
        std::os::unix::fs::symlink(&fifo, &link).unwrap();
        for path in [&fifo, &link] {
            let error = write_atomically(path, b"bytes").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Io);
            let words = "expected a regular file, got a FIFO; name a file";
            assert!(error.to_string().contains(words), "{error}");
        }
        assert!(fs::metadata(&fifo).unwrap().file_type().is_fifo());
        assert_eq!(names(directory.path()), ["fifo", "link"]);
    }

    #[test]
    fn staged_file_dropped_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        drop(Staged::write(&directory.path().join("x"), b"bytes").unwrap());
        assert_eq!(names(directory.path()), [""; 0]);
    }

    /// The limit on the size of a file stands in for a full disk: the same call fails in the same place. It is the
    /// process's, so the test runs itself again in a process of its own.
    #[test]
    fn write_on_full_disk_leaves_nothing_behind() {
        const AGAIN: &str = "TICKRT_TEST_FULL_DISK";
        if std::env::var_os(AGAIN).is_none() {
            let status = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["files::tests::write_on_full_disk_leaves_nothing_behind", "--exact"])
                .env(AGAIN, "1")
                .stdout(std::process::Stdio::null())
                .status()
                .unwrap();
            assert!(status.success());
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        fs::write(&path, b"old").unwrap();
        // SAFETY: two calls of the C library with valid arguments; this process runs this test alone.
        unsafe {
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            libc::setrlimit(libc::RLIMIT_FSIZE, &libc::rlimit { rlim_cur: 1 << 16, rlim_max: 1 << 16 });
        }
        let error = write_atomically(&path, &vec![7; 1 << 20]).unwrap_err();
        assert!(error.to_string().contains("free 1048576 bytes in"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(directory.path()), ["x"]);
    }
}

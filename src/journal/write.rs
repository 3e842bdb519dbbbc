//! From the ring to the file.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::ring::{Reader, Ring, Writer, ring};
use super::{About, JournalConfig, MAGIC, UNCHECKED, VERSION};
use crate::backend::Signature;
use crate::error::{Error, ErrorKind, Result};
use crate::{files, thread};

/// A journal that is being kept. Dropped, it writes what the ring holds and ends; [`finish`](Self::finish) says how that
/// went.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    ring: Arc<Ring>,
    stop: AtomicBool,
    calls: AtomicU64,
    bytes: AtomicU64,
    failed: std::sync::OnceLock<Error>,
}

/// What became of the calls of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Calls in the file.
    pub calls: u64,
    /// Calls that found the ring full and are not in the file.
    pub dropped: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

/// How long the thread sleeps when there is nothing to write: how much a process that is killed loses.
const PAUSE: Duration = Duration::from_millis(1);
/// Bytes that are collected before they are written.
const PIECE: usize = 1 << 20;

impl Journal {
    /// Begins the file at `path`, and the thread that writes it.
    pub(crate) fn start(path: &Path, signature: &Signature, config: &JournalConfig) -> Result<(Self, Writer)> {
        let about = About::new(signature);
        let header = header(&about);
        let (writer, reader) = ring(config.ring_bytes, about.record_bytes, config.when_full);
        let mut file = create(path)?;
        file.write_all(&header).map_err(|error| failure(path, &error))?;
        let journal = Self::keep(file, path, reader, header.len())?;
        Ok((journal, writer))
    }

    /// Writes what the ring brings to `file`, whose header of so many bytes is there.
    fn keep(mut file: File, path: &Path, reader: Reader, header: usize) -> Result<Self> {
        let shared = Arc::new(Shared {
            ring: reader.ring(),
            stop: AtomicBool::new(false),
            calls: AtomicU64::new(0),
            bytes: AtomicU64::new(header as u64),
            failed: std::sync::OnceLock::new(),
        });
        let (for_thread, to, cores) = (Arc::clone(&shared), path.to_path_buf(), thread::allowed_cores());
        let work = move || {
            thread::step_back(&cores);
            if let Err(error) = drain(&reader, &mut file, &for_thread) {
                // Nobody waits for room any more.
                reader.give_up();
                // Set here alone.
                let _ = for_thread.failed.set(failure(&to, &error));
            }
        };
        let thread = std::thread::Builder::new().name("tickrt-journal".into()).spawn(work);
        let thread = thread.map_err(|error| failure(path, &error))?;
        Ok(Self { path: path.to_path_buf(), shared, thread: Some(thread) })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What has been written so far.
    #[must_use]
    pub fn written(&self) -> Written {
        let Shared { ring, calls, bytes, .. } = &*self.shared;
        let (calls, bytes) = (calls.load(Ordering::Relaxed), bytes.load(Ordering::Relaxed));
        Written { calls, dropped: ring.dropped(), bytes }
    }

    /// Why nothing is written any more; `None` while all is well.
    #[must_use]
    pub fn error(&self) -> Option<&Error> {
        self.shared.failed.get()
    }

    /// Writes what the ring holds, to the disk itself, and ends. Later calls are not in it.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if something could not be written: the file holds what came before.
    pub fn finish(mut self) -> Result<Written> {
        self.end();
        match self.error() {
            Some(error) => Err(error.clone()),
            None => Ok(self.written()),
        }
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.end();
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("dropped", &self.dropped()).finish_non_exhaustive()
    }
}

fn create(path: &Path) -> Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => Error::new(ErrorKind::Io, format!("begin the journal {}", path.display()))
            .expected("a file that is not there yet")
            .got("one that is")
            .advice("move it away, or name another: a journal is never written over"),
        _ => failure(path, &error),
    })
}

fn failure(path: &Path, error: &std::io::Error) -> Error {
    let advice = match error.kind() {
        std::io::ErrorKind::NotFound => "make its folder first",
        std::io::ErrorKind::StorageFull => "the disk is full: free some of it; the journal ends here, the calls go on",
        _ => "",
    };
    Error::new(ErrorKind::Io, format!("write the journal {}", path.display())).got(files::plain(error)).advice(advice)
}

fn header(about: &About) -> Vec<u8> {
    let json = serde_json::to_vec(about).expect("numbers and strings");
    let mut header = [&MAGIC[..], &VERSION.to_le_bytes(), &(json.len() as u32).to_le_bytes(), &json].concat();
    header.extend(crc32fast::hash(&json).to_le_bytes());
    header
}

fn drain(reader: &Reader, file: &mut File, shared: &Shared) -> std::io::Result<()> {
    let mut piece = Vec::with_capacity(PIECE);
    loop {
        // Asked before the ring is looked at: what was there when it was set is written.
        let last = shared.stop.load(Ordering::Acquire);
        let ready = reader.ready();
        if ready.is_empty() {
            if last {
                return file.sync_all();
            }
            std::thread::park_timeout(PAUSE);
            continue;
        }
        let mut calls = 0;
        for number in ready.clone() {
            add(&mut piece, reader.record(number));
            calls += 1;
            if piece.len() >= PIECE {
                break;
            }
        }
        reader.free(ready.start + calls);
        file.write_all(&piece)?;
        shared.calls.fetch_add(calls, Ordering::Relaxed);
        shared.bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
        piece.clear();
    }
}

/// A record with its CRC-32.
fn add(piece: &mut Vec<u8>, record: &[u8]) {
    piece.extend_from_slice(&record[..UNCHECKED - 4]);
    piece.extend_from_slice(&crc32fast::hash(&record[UNCHECKED..]).to_le_bytes());
    piece.extend_from_slice(&record[UNCHECKED..]);
}

#[cfg(test)]
mod tests {
    use super::super::{Head, WhenFull};
    use super::*;

    #[test]
    fn disk_that_is_full_ends_the_journal_and_holds_up_no_call() {
        let (writer, reader) = ring(0, 128, WhenFull::Block);
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let journal = Journal::keep(full, Path::new("calls"), reader, 0).unwrap();
        (0..100).for_each(|_| writer.write(Head::default(), |_, _| {}));
        let error = journal.finish().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains("the disk is full"), "{error}");
    }
}

//! From the file back to calls.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{About, HEAD, Head, JournaledShape, MAGIC, MARK, UNCHECKED, VERSION};
use crate::error::{Error, ErrorKind, Result};
use crate::files;

/// Reads a journal, one call after the other, in the order in which they ended.
#[derive(Debug)]
pub struct JournalReader {
    path: PathBuf,
    file: BufReader<File>,
    about: About,
    /// Bytes read so far, and of the whole file.
    at: u64,
    length: u64,
    tail: Tail,
}

/// How a journal ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// With a whole record.
    Whole,
    /// With the beginning of one: the process or the machine died while it was written.
    Torn {
        /// How many bytes of it there are.
        bytes: u64,
    },
}

/// One call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournaledCall {
    /// The caller's number.
    pub tag: u64,
    /// The call's number in its session.
    pub sequence: u64,
    /// When it was submitted, in nanoseconds since 1970.
    pub submitted_unix_ns: u64,
    /// From submission to its end.
    pub latency: Duration,
    /// The name of the backend that was asked.
    pub backend: String,
    /// SHA-256 of the plan or model.
    pub engine: [u8; 32],
    /// Why there is no answer; `None` if there is one.
    pub failure: Option<String>,
    /// Place in [`JournalReader::shapes`].
    pub shape: usize,
    /// Calls that were left out before this one, since the journal began.
    pub dropped: u64,
    /// The inputs one after the other, as they were handed over; empty where a window had moved on.
    pub input: Vec<u8>,
    /// The outputs one after the other; empty without an answer.
    pub output: Vec<u8>,
}

impl JournalReader {
    /// Opens the file and checks its header.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if it cannot be read, [`ErrorKind::InvalidArgument`] if it is no journal, is of a later format, or
    /// its header is damaged.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let no_journal = |expected: &str, got: String, advice: &str| {
            let error = Error::new(ErrorKind::InvalidArgument, operation(path)).expected(expected).got(got);
            if advice.is_empty() { error } else { error.advice(advice) }
        };
        if path.is_dir() {
            return Err(no_journal("a file", "a directory".into(), ""));
        }
        let file = File::open(path).map_err(|error| unreadable(path, &error))?;
        let length = file.metadata().map_err(|error| unreadable(path, &error))?.len();
        let mut file = BufReader::with_capacity(1 << 20, file);
        let mut start = [0; 16];
        let got = read_up_to(&mut file, &mut start).map_err(|error| unreadable(path, &error))?;
        if got < start.len() || start[..8] != *MAGIC {
            return Err(no_journal("a journal of tickrt", "something else".into(), "check the path"));
        }
        let number = |at: usize| u32::from_le_bytes([start[at], start[at + 1], start[at + 2], start[at + 3]]);
        let (version, json_bytes) = (number(8), number(12) as usize);
        if version != VERSION {
            return Err(no_journal(
                &format!("version {VERSION} of the format"),
                version.to_string(),
                "read it with the tickrt that wrote it",
            ));
        }
        let damaged = || no_journal("a whole header", "a damaged one".into(), "nothing can be read without it");
        if json_bytes as u64 + 20 > length {
            return Err(damaged());
        }
        let mut json = vec![0; json_bytes + 4];
        file.read_exact(&mut json).map_err(|error| unreadable(path, &error))?;
        let crc = json.split_off(json_bytes);
        let about = serde_json::from_slice::<About>(&json).ok();
        let whole = crc == crc32fast::hash(&json).to_le_bytes();
        let about = about.filter(|about| whole && about.record_bytes <= 1 << 32).ok_or_else(damaged)?;
        let at = 20 + json_bytes as u64;
        Ok(Self { path: path.to_path_buf(), file, about, at, length, tail: Tail::Whole })
    }

    /// The tensors of each announced shape.
    #[must_use]
    pub fn shapes(&self) -> &[JournaledShape] {
        &self.about.shapes
    }

    /// The version of tickrt that wrote it.
    #[must_use]
    pub fn written_by(&self) -> &str {
        &self.about.tickrt
    }

    /// When it was begun, in nanoseconds since 1970.
    #[must_use]
    pub fn started_unix_ns(&self) -> u64 {
        self.about.started_unix_ns
    }

    /// How it ends, known after the last call.
    #[must_use]
    pub fn tail(&self) -> Tail {
        self.tail
    }

    /// The next call; `None` after the last.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] where the file is damaged before its end, with the place; nothing behind it can be
    /// read. [`ErrorKind::Io`].
    pub fn next_call(&mut self) -> Result<Option<JournaledCall>> {
        let left = self.length - self.at;
        if left == 0 || self.tail != Tail::Whole {
            return Ok(None);
        }
        let mut record = vec![0; HEAD];
        if left < HEAD as u64 {
            return Ok(self.torn(left));
        }
        self.fill(&mut record, 0)?;
        let head = bytemuck::pod_read_unaligned::<Head>(&record);
        let bytes = head.bytes as usize;
        if head.mark != MARK || bytes < HEAD || bytes > self.about.record_bytes {
            // What the kernel had promised room for and not yet written is zeros.
            return if record.iter().all(|&byte| byte == 0) { self.only_zeros() } else { Err(self.damaged()) };
        }
        if (bytes as u64) > left {
            return Ok(self.torn(left));
        }
        record.resize(bytes, 0);
        self.fill(&mut record, HEAD)?;
        if crc32fast::hash(&record[UNCHECKED..]) != head.crc || !self.fits(&head) {
            return if bytes as u64 == left { Ok(self.torn(left)) } else { Err(self.damaged()) };
        }
        self.at += bytes as u64;
        Ok(Some(self.call(&head, &record[HEAD..])))
    }

    fn fill(&mut self, record: &mut [u8], from: usize) -> Result<()> {
        self.file.read_exact(&mut record[from..]).map_err(|error| unreadable(&self.path, &error))
    }

    fn torn(&mut self, bytes: u64) -> Option<JournaledCall> {
        self.tail = Tail::Torn { bytes };
        None
    }

    /// Zeros up to the end are a torn tail, and otherwise damage.
    fn only_zeros(&mut self) -> Result<Option<JournaledCall>> {
        let mut piece = [0; 4096];
        loop {
            let got = read_up_to(&mut self.file, &mut piece).map_err(|error| unreadable(&self.path, &error))?;
            if piece[..got].iter().any(|&byte| byte != 0) {
                return Err(self.damaged());
            }
            if got == 0 {
                return Ok(self.torn(self.length - self.at));
            }
        }
    }

    fn fits(&self, head: &Head) -> bool {
        let tensors = (head.input_bytes as usize).checked_add(head.output_bytes as usize);
        let known = usize::from(head.shape) < self.about.shapes.len()
            && usize::from(head.backend) < self.about.backends.len()
            && usize::from(head.outcome) <= self.about.outcomes.len();
        known && tensors.is_some_and(|bytes| HEAD + bytes <= head.bytes as usize)
    }

    fn call(&self, head: &Head, tensors: &[u8]) -> JournaledCall {
        let (input, rest) = tensors.split_at(head.input_bytes as usize);
        JournaledCall {
            tag: head.tag,
            sequence: head.sequence,
            submitted_unix_ns: self.about.started_unix_ns.saturating_add(head.submitted_ns),
            latency: Duration::from_nanos(head.done_ns.saturating_sub(head.submitted_ns)),
            backend: self.about.backends[usize::from(head.backend)].clone(),
            engine: head.engine,
            failure: usize::from(head.outcome).checked_sub(1).map(|reason| self.about.outcomes[reason].clone()),
            shape: head.shape.into(),
            dropped: head.dropped,
            input: input.to_vec(),
            output: rest[..head.output_bytes as usize].to_vec(),
        }
    }

    fn damaged(&self) -> Error {
        Error::new(ErrorKind::InvalidArgument, operation(&self.path))
            .expected(format!("a record at byte {}", self.at))
            .got(format!("damage, {} bytes before the end", self.length - self.at))
            .advice("the calls before it are whole; those behind it cannot be told apart")
    }
}

fn operation(path: &Path) -> String {
    format!("read the journal {}", path.display())
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    let advice = if error.kind() == std::io::ErrorKind::NotFound { "check the path" } else { "" };
    Error::new(ErrorKind::Io, operation(path)).got(files::plain(error)).advice(advice)
}

/// As many bytes as there are.
fn read_up_to(file: &mut impl Read, into: &mut [u8]) -> std::io::Result<usize> {
    let mut got = 0;
    while got < into.len() {
        match file.read(&mut into[got..])? {
            0 => break,
            more => got += more,
        }
    }
    Ok(got)
}

//! What a session tells about its calls while they end, to those who asked for it: counts, and a journal.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::{Answer, Session};
use crate::backend::Region;
use crate::counters::{Counters, backend_place, outcome};
use crate::error::{Error, Result};
use crate::journal::{Head, Journal, JournalConfig, Writer};

/// Who has asked.
#[derive(Default)]
pub(crate) struct Observers {
    pub(crate) counters: Option<Arc<Counters>>,
    pub(crate) journal: Option<Writer>,
}

impl Observers {
    /// The same, for another session of the same predictor.
    pub(crate) fn share(&self) -> Self {
        Self { counters: self.counters.clone(), journal: self.journal.as_ref().map(Writer::share) }
    }
}

impl Session {
    /// From here on every call is counted: what it returned and how long it took, for another thread to read. The same
    /// counters each time.
    ///
    /// A session of a [`Predictor`](crate::Predictor) has that one's counters.
    pub fn counters(&mut self) -> Arc<Counters> {
        let counters = self.observers.counters.get_or_insert_with(Counters::new);
        counters.active(self.backend.kind(), self.backend.engine_id());
        Arc::clone(counters)
    }

    /// From here on every call that ends is kept in the file at `path`, which must not be there yet: one that was answered
    /// with its input and output, one that was not with its input and why. It takes the place of an earlier journal.
    ///
    /// Costs a call the copy of its tensors; neither lock nor allocation nor system call.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if the file is there or cannot be written.
    pub fn journal_to(&mut self, path: impl AsRef<Path>, config: &JournalConfig) -> Result<Journal> {
        let (journal, writer) = Journal::start(path.as_ref(), self.signature(), config)?;
        self.observers.journal = Some(writer);
        Ok(journal)
    }

    pub(crate) fn observe(&mut self, observers: Observers) {
        self.observers = observers;
    }

    /// Call `sequence`, which was asked in slot `index`, has ended so.
    #[inline]
    pub(super) fn ended(&self, index: usize, sequence: u64, result: Result<&Answer, &Error>) {
        let Observers { counters, journal } = &self.observers;
        if let Some(counters) = counters {
            match result {
                Ok(answer) => counters.answered(answer.backend, answer.latency()),
                Err(error) => counters.failed(error),
            }
        }
        if let Some(journal) = journal {
            self.enter(journal, index, sequence, result);
        }
    }

    /// As [`ended`](Self::ended), of a call without an answer.
    #[cold]
    pub(super) fn lost(&self, index: usize, sequence: u64, error: Error) -> Error {
        self.ended(index, sequence, Err(&error));
        error
    }

    /// A call could not begin.
    #[cold]
    pub(super) fn failed(&self, error: Error) -> Error {
        if let Some(counters) = &self.observers.counters {
            counters.failed(&error);
        }
        error
    }

    /// Enters a call into the journal: its input as it lies in the slot or, of a window, in the host's mirror.
    fn enter(&self, journal: &Writer, index: usize, sequence: u64, result: Result<&Answer, &Error>) {
        let (slot, memory) = (&self.slots[index], &self.backend.slots()[index]);
        let shape = &self.backend.signature().shapes[slot.shape];
        let window = slot.moment.map(|moment| (moment, self.windows.as_ref()));
        // Windows that another session has taken, or that have moved on, are gone.
        let has_input = window.is_none_or(|(moment, windows)| windows.is_some_and(|windows| windows.has(moment)));
        let input_bytes = shape.inputs.iter().map(|input| input.input_bytes()).sum::<usize>();
        let output_bytes = shape.outputs.iter().map(|output| output.bytes()).sum::<usize>();
        let (done, outcome) = match result {
            Ok(answer) => (answer.done, 0),
            Err(error) => (Instant::now(), 1 + outcome(error)),
        };
        let head = Head {
            input_bytes: if has_input { input_bytes as u32 } else { 0 },
            output_bytes: if result.is_ok() { output_bytes as u32 } else { 0 },
            shape: slot.shape as u16,
            backend: backend_place(self.backend.kind()) as u8,
            outcome,
            tag: slot.tag,
            sequence,
            submitted_ns: journal.ns(slot.submitted),
            done_ns: journal.ns(done),
            engine: self.backend.engine_id(),
            ..Head::default()
        };
        journal.write(head, |input, output| {
            match window {
                Some((moment, Some(windows))) if has_input => {
                    // A window is the first input.
                    let (first, others) = input.split_at_mut(shape.inputs[0].input_bytes());
                    windows.lay_out(moment, windows.rows() as u32, first);
                    others.fill(0);
                }
                _ => copy(&memory.inputs, shape.inputs.iter().map(|input| input.input_bytes()), input),
            }
            copy(&memory.outputs, shape.outputs.iter().map(|output| output.bytes()), output);
        });
    }
}

/// The tensors one after the other, as far as `into` goes: it has all of them or none.
fn copy(regions: &[Region], sizes: impl Iterator<Item = usize>, mut into: &mut [u8]) {
    if into.is_empty() {
        return;
    }
    for (region, bytes) in regions.iter().zip(sizes) {
        let (to, rest) = into.split_at_mut(bytes);
        // SAFETY: the backend's contract: valid and large enough for every announced shape; the call has ended, and nothing
        // writes the slot before its next one.
        to.copy_from_slice(unsafe { std::slice::from_raw_parts(region.start.as_ptr(), bytes) });
        into = rest;
    }
}

impl std::fmt::Debug for Observers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { counters, journal } = self;
        f.debug_struct("Observers").field("counters", counters).field("journal", &journal.is_some()).finish()
    }
}

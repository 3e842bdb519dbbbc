//! A new engine for a running predictor, without missing a call.
//!
//! The successor is a whole [`Predictor`], built and warmed up on another thread while this one answers. [`Predictor::swap`]
//! then moves handles between two calls and nothing else: no library is called but to end a graph that waits ahead of its
//! call. Calls in flight keep the sessions that they were asked of, which stay behind the new ones until they are taken.

use super::{Predictor, Started, same_interface};
use crate::error::{Error, ErrorKind, Result};
use crate::session::Observers;

/// Why a successor was not taken. The old engine goes on answering.
#[derive(Debug)]
pub struct SwapRefused {
    /// Why.
    pub reason: Error,
    /// The successor, to be dropped where that may take its time.
    pub successor: Box<Predictor>,
}

impl std::fmt::Display for SwapRefused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.reason.fmt(f)
    }
}

impl std::error::Error for SwapRefused {}

/// Sessions that a successor has replaced and that have no call in flight. Dropping it frees their memory, which takes
/// milliseconds and may wait for the whole GPU: send it to another thread.
#[derive(Debug)]
pub struct Outgoing {
    _entries: Vec<Started>,
}

impl Predictor {
    /// Has `successor` answer from the next call on. It takes over the rolling windows, which are sent to its device whole
    /// with each symbol's next call; calls in flight are still answered by whom they were asked of, or by the successor
    /// if that fails.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mut predictor = tickrt::Predictor::builder().tensorrt("models/toy_cnn.engine").build()?;
    /// let successor = std::thread::spawn(|| {
    ///     let chain = tickrt::Predictor::builder().tensorrt("models/new.engine").ort_cpu("models/new.onnx");
    ///     chain.build()
    /// });
    /// // ... calls; and when `successor.is_finished()`:
    /// if let Ok(successor) = successor.join().expect("it does not panic") {
    ///     predictor.swap(successor)?;
    /// }
    /// // ... calls; and now and then:
    /// if let Some(outgoing) = predictor.take_outgoing() {
    ///     std::thread::spawn(move || drop(outgoing));
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// A session that launches ahead ([`SessionConfig::launch_ahead`](crate::SessionConfig::launch_ahead)) holds up the
    /// loading of the successor's kernels by its patience each time, and a resident engine by its turn: tell it to
    /// [`rest`](Predictor::rest) while the successor starts.
    ///
    /// # Errors
    /// [`SwapRefused`] with the successor, where it takes other inputs, gives other outputs, keeps other windows, or
    /// would answer from a CPU where a GPU answers now. Nothing has changed then.
    pub fn swap(&mut self, mut successor: Predictor) -> Result<(), SwapRefused> {
        if let Err(reason) = self.check_successor(&successor) {
            return Err(SwapRefused { reason, successor: Box::new(successor) });
        }
        for entry in &mut self.entries {
            if !entry.quarantined {
                entry.session.leave();
            }
            entry.outgoing = true;
        }
        let old = &mut self.entries[self.active].session;
        let new = &mut successor.entries[successor.active].session;
        let (kept, unused) = (old.take_windows(), new.take_windows());
        // The unused rings are large: they are freed with the sessions that go.
        old.put_windows(unused);
        new.inherit_windows(kept, old);
        successor.entries.append(&mut self.entries);
        let own = std::mem::take(&mut successor.observers);
        let Observers { counters, journal } = std::mem::take(&mut self.observers);
        successor.observers = Observers { counters: counters.or(own.counters), journal: journal.or(own.journal) };
        // A new engine may know other answers.
        successor.question = successor.question.take().or(self.question.take());
        std::mem::swap(self, &mut successor);
        self.share_observers();
        Ok(())
    }

    /// The sessions that were replaced, once none of them has a call in flight; `None` until then, and if there are none.
    /// Collect every answer, or [`give_up`](Self::give_up) its ticket.
    pub fn take_outgoing(&mut self) -> Option<Outgoing> {
        let first = self.entries.iter().position(|entry| entry.outgoing)?;
        let busy = |entry: &Started| !entry.quarantined && entry.session.has_calls();
        if self.entries[first..].iter().any(busy) {
            return None;
        }
        Some(Outgoing { _entries: self.entries.split_off(first) })
    }

    fn check_successor(&self, successor: &Predictor) -> Result<()> {
        const OPERATION: &str = "swap the engine of a predictor";
        let (old, new) = (self.session(), successor.session());
        same_interface(old, new, OPERATION)?;
        if !old.keeps_windows_like(new) {
            return Err(Error::new(ErrorKind::InvalidArgument, OPERATION)
                .expected("a successor with the same rolling windows: symbols and elements a row")
                .got("other ones")
                .advice("give its builder the same `windows`"));
        }
        if old.backend().on_gpu() && !new.backend().on_gpu() && self.entries[self.active].usable() {
            let reasons = successor.passed_over.iter().map(|passed| format!("{}: {}", passed.backend, passed.reason));
            return Err(Error::new(ErrorKind::InvalidArgument, OPERATION)
                .expected(format!("a successor that answers from a GPU, as {} does", old.backend()))
                .got(new.backend().to_string())
                .advice("see why the first of its chain did not start")
                .log(reasons.collect()));
        }
        Ok(())
    }
}

//! The thread that keeps two turns of a kernel queued. Who makes calls has nothing to do with it: nothing here is waited for.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use super::known_answer::KnownAnswer;
use crate::backend::LAST_CALL;
use crate::device::{Clusters, Function, Module, Stream};
use crate::error::{Error, ErrorKind, Result};
use crate::resident::turn::{REPORT_WORDS, Report, Turn};
use crate::thread;

/// Turns on the stream: the one that runs and the one that follows it.
const QUEUED: u64 = 2;

/// What the thread takes with it.
pub(super) struct Parts {
    pub(super) stream: Stream,
    /// Held: the kernel is of it.
    pub(super) _module: Module,
    pub(super) kernel: Function,
    pub(super) clusters: Clusters,
    pub(super) turn: Turn,
    pub(super) report: ReportWords,
    /// Behind what its turns run on: dropped when they have ended.
    pub(super) known_answer: Option<KnownAnswer>,
}

/// The words that turns add up, where the device writes them.
#[derive(Clone, Copy)]
pub(super) struct ReportWords(NonNull<AtomicU64>);

// SAFETY: atomic words, which any thread may read.
unsafe impl Send for ReportWords {}

impl ReportWords {
    /// # Safety
    /// There must be [`REPORT_WORDS`] words of 8 bytes, aligned, as long as anybody reads them.
    pub(super) unsafe fn new(first: NonNull<u8>) -> Self {
        Self(first.cast())
    }

    /// The word at a [`Report`]'s place.
    pub(super) fn read(self, word: usize) -> u64 {
        assert!(word < REPORT_WORDS, "a word of the report");
        // SAFETY: who made this has promised that it is there. Acquire pairs with the release that ends a turn (`finish` in
        // kernels/resident/turn.cuh).
        unsafe { self.0.add(word).as_ref() }.load(Ordering::Acquire)
    }
}

/// A kernel's turns.
pub(super) struct Turns {
    shared: Arc<Shared>,
    thread: Thread,
    ended: Option<JoinHandle<()>>,
    last_turns: Duration,
}

#[derive(Default)]
struct Shared {
    asked: AtomicU8,
    /// The call that comes next: those before it are to be answered, whatever else is asked.
    next: AtomicU64,
    /// What the driver or the device said: nothing is given back then.
    failed: OnceLock<Error>,
    /// The known answer has changed: no turns are queued any more, and what is there ends as it does otherwise.
    distrusted: OnceLock<Error>,
    /// Everything on the stream has ended, and with it what the thread had.
    ended_well: AtomicBool,
    known_answers: AtomicU64,
}

/// What is asked of the thread, in [`Shared::asked`].
const GO_ON: u8 = 0;
const REST: u8 = 1;
const END: u8 = 2;
/// To end without another call of the driver.
const ABANDON: u8 = 3;

struct Queue {
    shared: Arc<Shared>,
    parts: Parts,
    queued: u64,
    last_turns: Duration,
}

impl Turns {
    /// Queues the first turns.
    pub(super) fn start(parts: Parts) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        // Those that are queued may have to run to their end, where no sign could be given.
        let last_turns = LAST_CALL + QUEUED as u32 * Duration::from_nanos(parts.turn.limit_ns);
        let mut queue = Queue { shared: Arc::clone(&shared), parts, queued: 0, last_turns };
        queue.fill()?;
        // Who starts a session may be pinned, spin and run before all others: turns would not be queued in time.
        let cores = thread::allowed_cores();
        let serve = move || {
            thread::step_back(&cores);
            queue.serve();
        };
        let ended = std::thread::Builder::new().name("tickrt-turns".into()).spawn(serve).map_err(|error| {
            Error::new(ErrorKind::Io, "start the thread that queues a resident engine's turns").got(error.to_string())
        })?;
        Ok(Self { shared, thread: ended.thread().clone(), ended: Some(ended), last_turns })
    }

    /// What the device or the driver said, once something has failed, or that the engine's answers are not to be trusted. Data plane:
    /// two loads.
    #[inline]
    pub(super) fn failed(&self) -> Option<Error> {
        self.shared.failed.get().or_else(|| self.shared.distrusted.get()).cloned()
    }

    /// How often what is known was answered rightly.
    pub(super) fn known_answers(&self) -> u64 {
        self.shared.known_answers.load(Ordering::Relaxed)
    }

    /// No further turns are queued once all calls before `next` are answered.
    pub(super) fn rest(&self, next: u64) {
        self.shared.next.store(next, Ordering::Relaxed);
        self.ask(REST);
    }

    /// Turns are queued again.
    pub(super) fn go_on(&self) {
        self.ask(GO_ON);
    }

    /// The thread ends and calls the driver no more.
    pub(super) fn abandon(&self) {
        self.ask(ABANDON);
    }

    /// The thread ends when the turns have. Whether they have, in time.
    pub(super) fn end(&self) -> bool {
        self.ask(END);
        let until = Instant::now() + 2 * self.last_turns;
        while self.ended.as_ref().is_some_and(|ended| !ended.is_finished()) {
            if Instant::now() > until {
                return false;
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        // Acquire pairs with the thread's release.
        self.shared.ended_well.load(Ordering::Acquire)
    }

    fn ask(&self, what: u8) {
        // Release pairs with the thread's acquire: of a rest it sees whose call comes next.
        self.shared.asked.store(what, Ordering::Release);
        self.thread.unpark();
    }
}

impl Drop for Turns {
    fn drop(&mut self) {
        // Who unloads the library next must find nothing of the thread.
        if let Some(ended) = self.ended.take_if(|ended| ended.is_finished()) {
            let _ = ended.join();
        }
    }
}

impl Queue {
    fn serve(mut self) {
        let pause = Duration::from_nanos(self.parts.turn.limit_ns) / 4;
        loop {
            let done = match self.shared.asked.load(Ordering::Acquire) {
                ABANDON => {
                    // Its drop would call the driver.
                    return std::mem::forget(self);
                }
                END => break,
                // What ended meanwhile may have left a call unanswered. A turn that finds the sign to end does so at once.
                REST if self.word(Report::Next) < self.shared.next.load(Ordering::Relaxed) => self.fill(),
                REST => self.parts.stream.is_idle().map(drop),
                _ => self.fill(),
            };
            if let Err(error) = done {
                if error.kind() == ErrorKind::WrongAnswer {
                    let _ = self.shared.distrusted.set(error);
                    break;
                }
                let _ = self.shared.failed.set(error);
                return std::mem::forget(self);
            }
            std::thread::park_timeout(pause);
        }
        let settled = self.parts.stream.settle(self.last_turns);
        if settled.is_err() || self.shared.asked.load(Ordering::Acquire) == ABANDON {
            settled.err().map(|error| self.shared.failed.set(error));
            return std::mem::forget(self);
        }
        let shared = Arc::clone(&self.shared);
        drop(self);
        shared.ended_well.store(true, Ordering::Release);
    }

    /// Queues turns until there are enough of them.
    fn fill(&mut self) -> Result<()> {
        let abandoned = |queue: &Self| queue.shared.asked.load(Ordering::Relaxed) == ABANDON;
        while self.queued < self.word(Report::Turns) + QUEUED {
            if abandoned(self) {
                return Ok(());
            }
            // Behind a rest a call waits for the first turn.
            let is_awaited = self.queued > 0 && self.queued == self.word(Report::Turns);
            let Parts { stream, kernel, clusters, turn, known_answer, .. } = &mut self.parts;
            // SAFETY: every address lies in the backend's `Memory`, which outlives this thread, or in what is asked, which the
            // thread drops behind the stream's work; the module is loaded.
            let launch = |turn: &Turn| unsafe { kernel.launch_clusters(stream, *clusters, turn) };
            known_answer.as_mut().filter(|_| !is_awaited).and_then(KnownAnswer::ask).map_or(Ok(()), launch)?;
            launch(turn)?;
            self.queued += 1;
        }
        if let Some(known_answer) = &mut self.parts.known_answer {
            self.shared.known_answers.store(known_answer.look()?, Ordering::Relaxed);
        }
        if abandoned(self) {
            return Ok(());
        }
        // A fault of the device shows here, whether or not anybody calls.
        self.parts.stream.is_idle().map(drop)
    }

    fn word(&self, word: Report) -> u64 {
        self.parts.report.read(word as usize)
    }
}

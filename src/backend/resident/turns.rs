//! The thread that keeps two turns of a kernel queued. Who makes calls has nothing to do with it: nothing here is waited for.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use crate::backend::LAST_CALL;
use crate::device::{Cluster, Function, Module, Stream};
use crate::error::{Error, ErrorKind, Result};
use crate::resident::turn::{Report, Turn};

/// Turns on the stream: the one that runs and the one that follows it.
const QUEUED: u64 = 2;

/// What the thread takes with it.
pub(super) struct Parts {
    pub(super) stream: Stream,
    /// Held: the kernel is of it.
    pub(super) _module: Module,
    pub(super) kernel: Function,
    pub(super) cluster: Cluster,
    pub(super) turn: Turn,
    /// Of the [`Report`]'s words, which live longer than the turns.
    pub(super) report: NonNull<u8>,
}

/// A kernel's turns.
pub(super) struct Turns {
    shared: Arc<Shared>,
    thread: Thread,
    /// Whether everything on the stream has ended when the thread has.
    ended: JoinHandle<bool>,
}

#[derive(Default)]
struct Shared {
    asked: AtomicU8,
    failed: OnceLock<Error>,
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
}

// SAFETY: `report` is memory that any thread may read; the rest is `Send` by itself.
unsafe impl Send for Queue {}

impl Turns {
    /// Queues the first turns.
    pub(super) fn start(parts: Parts) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut queue = Queue { shared: Arc::clone(&shared), parts, queued: 0 };
        queue.fill()?;
        let serve = move || queue.serve();
        let ended = std::thread::Builder::new().name("tickrt-turns".into()).spawn(serve).map_err(|error| {
            Error::new(ErrorKind::Io, "start the thread that queues a resident engine's turns").got(error.to_string())
        })?;
        Ok(Self { shared, thread: ended.thread().clone(), ended })
    }

    /// What the device or the driver said, once something has failed. Data plane: one load.
    #[inline]
    pub(super) fn failed(&self) -> Option<Error> {
        self.shared.failed.get().cloned()
    }

    /// No further turns are queued.
    pub(super) fn rest(&self) {
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

    /// The thread ends when the turns have. Whether they have, before `limit`.
    pub(super) fn end(&self, limit: Duration) -> bool {
        self.ask(END);
        let until = Instant::now() + limit + LAST_CALL;
        while !self.ended.is_finished() {
            if Instant::now() > until {
                return false;
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        self.shared.failed.get().is_none()
    }

    fn ask(&self, what: u8) {
        // Relaxed: the thread looks at nothing else that was written before.
        self.shared.asked.store(what, Ordering::Relaxed);
        self.thread.unpark();
    }
}

impl Queue {
    fn serve(mut self) -> bool {
        let pause = Duration::from_nanos(self.parts.turn.limit_ns) / 4;
        loop {
            let done = match self.shared.asked.load(Ordering::Relaxed) {
                ABANDON => {
                    // Its drop would call the driver.
                    std::mem::forget(self);
                    return false;
                }
                END => break,
                REST => self.parts.stream.is_idle().map(drop),
                _ => self.fill(),
            };
            if let Err(error) = done {
                let _ = self.shared.failed.set(error);
                std::mem::forget(self);
                return false;
            }
            std::thread::park_timeout(pause);
        }
        match self.parts.stream.settle(LAST_CALL) {
            Ok(()) => true,
            Err(error) => {
                let _ = self.shared.failed.set(error);
                std::mem::forget(self);
                false
            }
        }
    }

    /// Queues turns until there are enough of them.
    fn fill(&mut self) -> Result<()> {
        while self.queued < self.ended() + QUEUED {
            let Parts { stream, kernel, cluster, turn, .. } = &self.parts;
            // SAFETY: every address lies in the backend's `Memory`, which outlives this thread; the module is loaded.
            unsafe { kernel.launch_cluster(stream, *cluster, turn)? };
            self.queued += 1;
        }
        // A fault of the device shows here, whether or not anybody calls.
        self.parts.stream.is_idle().map(drop)
    }

    fn ended(&self) -> u64 {
        let words = self.parts.report.cast::<AtomicU64>();
        // SAFETY: the report's words live longer than this thread and are aligned; the device writes them whole. Acquire pairs
        // with the release that ends a turn (`finish` in kernels/resident/turn.cuh).
        unsafe { words.add(Report::Turns as usize).as_ref() }.load(Ordering::Acquire)
    }
}

//! How far a build is, and how to stop it.

use std::any::Any;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, ErrorKind, Result};

/// One step of a build (`IProgressMonitor`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// TensorRT's name of the phase.
    pub phase: &'a str,
    /// The phase that this one is part of.
    pub parent: Option<&'a str>,
    /// Steps done; equal to `steps` when the phase is over.
    pub step: u32,
    /// Steps in the phase; 0 where TensorRT doesn't say.
    pub steps: u32,
}

/// Stops a build from another thread. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// A token that nobody has pulled.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Stops every build that watches this token, at TensorRT's next step, for good.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was pulled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        // Relaxed: nothing is published through it, and one step more of the build does not matter.
        self.0.load(Ordering::Relaxed)
    }
}

type Callback = Box<dyn FnMut(&Progress<'_>) -> ControlFlow<()> + Send>;

/// What the bridge calls back. TensorRT calls from several threads; the mutex lets one in at a time.
#[derive(Default)]
pub(crate) struct Observer {
    callback: Mutex<Option<Callback>>,
    token: CancelToken,
    /// Pulled by what feeds the build, whose own error says why.
    abort: CancelToken,
    stopped: Mutex<Option<Stop>>,
}

/// Why a build was ended from our side.
enum Stop {
    Cancelled,
    Panicked(String),
}

impl Observer {
    pub fn listen(&mut self, callback: Callback) {
        self.callback = Mutex::new(Some(callback));
    }

    pub fn watch(&mut self, token: CancelToken) {
        self.token = token;
    }

    pub fn abort_with(&mut self, token: &CancelToken) {
        self.abort = token.clone();
    }

    /// Forgets the build before; refuses when the token was pulled already.
    pub fn begin(&self, shown: &str) -> Result<()> {
        *lock(&self.stopped) = self.token.is_cancelled().then_some(Stop::Cancelled);
        self.finish(shown)
    }

    /// The error of a build that was ended from our side.
    pub fn finish(&self, shown: &str) -> Result<()> {
        match lock(&self.stopped).take() {
            None => Ok(()),
            Some(Stop::Cancelled) => {
                Err(Error::new(ErrorKind::Cancelled, format!("build {shown}")).got("the caller stopped it"))
            }
            Some(Stop::Panicked(message)) => Err(Error::new(ErrorKind::Build, format!("build {shown}"))
                .got(format!("the progress callback panicked: {message}"))
                .advice("mend the callback; the build itself did not fail")),
        }
    }

    /// The bridge's entry: `false` ends the build. Nothing unwinds out of it, for C++ is above it.
    pub fn progress(&self, phase: &str, parent: &str, step: i32, steps: i32) -> bool {
        if lock(&self.stopped).is_some() {
            return false;
        }
        let progress = Progress {
            phase,
            parent: Some(parent).filter(|parent| !parent.is_empty()),
            step: u32::try_from(step).unwrap_or(0),
            steps: u32::try_from(steps).unwrap_or(0),
        };
        let pulled = || (self.token.is_cancelled() || self.abort.is_cancelled()).then_some(Stop::Cancelled);
        let stop = self.call(&progress).or_else(pulled);
        let goes_on = stop.is_none();
        if let Some(stop) = stop {
            lock(&self.stopped).get_or_insert(stop);
        }
        goes_on
    }

    fn call(&self, progress: &Progress<'_>) -> Option<Stop> {
        let mut callback = lock(&self.callback);
        let callback = callback.as_mut()?;
        // After a panic the callback is not called again in this build, so a state that it broke is not seen.
        match catch_unwind(AssertUnwindSafe(|| callback(progress))) {
            Ok(ControlFlow::Continue(())) => None,
            Ok(ControlFlow::Break(())) => Some(Stop::Cancelled),
            Err(payload) => Some(Stop::Panicked(message(payload.as_ref()))),
        }
    }
}

/// What a panic said.
pub(crate) fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

/// No code of ours panics while it holds one of these locks: a poisoned one is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Lines for `tracing`: TensorRT's own and a few of ours, each with the engine and the session that it is about as fields.
//!
//! The control plane alone writes them. A line of TensorRT's that comes from a thread of its own is about whatever the
//! control plane is doing, if that is one thing; else nobody can tell, and the fields are `-`.

use std::cell::Cell;
use std::sync::{Mutex, PoisonError};

use crate::bridge::ffi::Severity;

/// What a line is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Subject {
    /// The first bytes of its SHA-256.
    engine: Option<[u8; 6]>,
    session: Option<u32>,
}

thread_local! { static HERE: Cell<Subject> = const { Cell::new(Subject { engine: None, session: None }) }; }

/// What the control plane is doing now, on whichever thread.
static UNDER_WAY: Mutex<Vec<Subject>> = Mutex::new(Vec::new());

/// Until it is dropped, the calling thread's lines are about this.
pub(crate) struct About {
    before: Subject,
    now: Subject,
}

/// Lines are about this engine, of SHA-256 `engine`, from here on.
pub(crate) fn about_engine(engine: [u8; 32]) -> About {
    enter(|_| Subject { engine: engine.first_chunk().copied(), session: None })
}

/// Lines are about this session, on the engine of SHA-256 `engine`, from here on.
pub(crate) fn about_session(engine: [u8; 32], session: u32) -> About {
    enter(|_| Subject { engine: engine.first_chunk().copied(), session: Some(session) })
}

fn enter(subject: impl FnOnce(Subject) -> Subject) -> About {
    let before = HERE.get();
    let now = subject(before);
    HERE.set(now);
    UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner).push(now);
    About { before, now }
}

impl Drop for About {
    fn drop(&mut self) {
        HERE.set(self.before);
        let mut under_way = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = under_way.iter().rposition(|subject| *subject == self.now) {
            under_way.remove(place);
        }
    }
}

/// The fields `engine` and `session` of a line that the calling thread writes.
pub(crate) fn fields() -> (String, String) {
    let here = HERE.try_with(Cell::get).unwrap_or_default();
    let subject = if here == Subject::default() { the_only_one().unwrap_or_default() } else { here };
    let engine = subject.engine.map_or_else(|| "-".to_owned(), |first| crate::plan::hex(&first));
    (engine, subject.session.map_or_else(|| "-".to_owned(), |number| number.to_string()))
}

/// What is under way, if nothing else is. The innermost of what one thread does counts.
fn the_only_one() -> Option<Subject> {
    let under_way = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
    let last = *under_way.last()?;
    under_way.iter().all(|subject| subject.engine == last.engine).then_some(last)
}

/// `say!(info, "loaded in {ms} ms")`: a line of ours.
macro_rules! say {
    ($level:ident, $($text:tt)*) => {{
        let (engine, session) = $crate::logging::fields();
        tracing::$level!(target: "tickrt", engine, session, $($text)*);
    }};
}
pub(crate) use say;

/// A line of TensorRT's. Called from its threads.
pub(crate) fn native(severity: Severity, line: &str) {
    let (engine, session) = fields();
    match severity {
        Severity::Error => tracing::error!(target: "tensorrt", engine, session, "{line}"),
        Severity::Warning => tracing::warn!(target: "tensorrt", engine, session, "{line}"),
        Severity::Info => tracing::info!(target: "tensorrt", engine, session, "{line}"),
        _ => tracing::debug!(target: "tensorrt", engine, session, "{line}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_about_the_innermost_and_then_about_what_was_before() {
        let (one, other) = ([0xab; 32], [0xcd; 32]);
        let engine = about_engine(one);
        assert_eq!(fields(), ("abababababab".into(), "-".into()));
        let session = about_session(one, 7);
        assert_eq!(fields(), ("abababababab".into(), "7".into()));
        let from_elsewhere = || std::thread::spawn(fields).join().unwrap();
        assert_eq!(from_elsewhere(), ("abababababab".into(), "7".into()), "one thing is under way");
        let (told, wait) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let busy = std::thread::spawn(move || {
            let _engine = about_engine(other);
            told.send(fields()).unwrap();
            let _ = ended.recv();
        });
        assert_eq!(wait.recv().unwrap().0, "cdcdcdcdcdcd");
        assert_eq!(from_elsewhere(), ("-".into(), "-".into()), "two are");
        drop(end);
        busy.join().unwrap();
        drop(session);
        assert_eq!(fields().1, "-");
        drop(engine);
        assert_eq!(fields(), ("-".into(), "-".into()));
    }
}

//! A path whose calls hand over the newest row of a window alone: the rows before it are on the device, which has computed
//! ahead what it could. Its windows come in sequence, and far enough apart for that.

use std::time::{Duration, Instant};

use tickrt::data::{Feed, WriteInput};
use tickrt::{Element, Session};

use super::SETTLING;
use super::path::Path;

/// Where such a path is in the series, and when it can go on.
pub struct Newest {
    /// Rows of a window.
    rows: usize,
    /// The window that was answered last, if the device has it.
    last: Option<usize>,
    answered: Instant,
    /// What calls keep after an answer.
    pause: Duration,
    /// How long after an answer the device can take the next row; `None` before it was measured.
    pub ready_again: Option<Duration>,
}

impl Newest {
    /// Nothing is on the device yet.
    pub fn new(rows: usize) -> Self {
        Self { rows, last: None, answered: Instant::now(), pause: Duration::ZERO, ready_again: None }
    }

    /// The window that comes next, of `windows`; `wished` where there is none before it.
    pub fn next(&self, wished: usize, windows: usize) -> usize {
        self.last.map_or(wished, |last| (last + 1) % windows)
    }

    /// What has to have happened before the clock starts: nothing for the window behind the last one; for any other, which
    /// the device gets whole, its rows but the newest one.
    pub fn lead_up(&mut self, session: &mut Session, feed: &Feed, window: usize) -> tickrt::Result<()> {
        // Taken: after a call that fails nobody knows what the device has.
        if self.last.take().is_some_and(|last| (last + 1) % feed.calls() == window) {
            return Ok(());
        }
        session.reset(0)?;
        (0..self.rows - 1).try_for_each(|row| feed.write_row(window, row, &mut Push(session)))
    }

    /// Hands over the newest row of the window.
    #[inline]
    pub fn push(&self, session: &mut Session, feed: &Feed, window: usize) -> tickrt::Result<()> {
        feed.write_row(window, self.rows - 1, &mut Push(session))
    }

    /// The window was answered at `now`.
    pub fn answered(&mut self, window: usize, now: Instant) {
        (self.last, self.answered) = (Some(window), now);
    }

    /// Spins until the device can take the next row for certain.
    pub fn get_ready(&self) {
        while self.answered.elapsed() < self.pause {
            std::hint::spin_loop();
        }
    }

    /// How long after an answer the device can take the next row, in microseconds.
    pub fn ready_again_us(&self) -> Option<f64> {
        self.ready_again.map(|ready_again| ready_again.as_nanos() as f64 / 1e3)
    }

    /// What calls keep after an answer, in microseconds.
    pub fn pause_us(&self) -> f64 {
        self.pause.as_nanos() as f64 / 1e3
    }
}

/// Measures how long after an answer the device can take the next row: by how much calls that follow each other at once take
/// longer, from answer to answer, than calls after a long pause. From here on the path's calls are further apart than that.
pub fn measure(path: &mut Path, feed: &Feed, tolerance: [f64; 2]) -> tickrt::Result<()> {
    const AT_ONCE: usize = 400;
    const AFTER_A_PAUSE: usize = 100;
    if path.newest.is_none() {
        return Ok(());
    }
    path.session.keep_warm()?;
    let settled = Instant::now() + SETTLING;
    while Instant::now() < settled {
        path.checked_call(feed, 0, tolerance)?;
    }
    let mut before = Instant::now();
    let mut at_once = Vec::with_capacity(AT_ONCE);
    for _ in 0..AT_ONCE {
        path.checked_call(feed, 0, tolerance)?;
        at_once.push(before.elapsed());
        before = Instant::now();
    }
    let at_once = median(&mut at_once);
    set_pause(path, (at_once * 4).max(Duration::from_millis(1)));
    let mut after_a_pause = Vec::with_capacity(AFTER_A_PAUSE);
    for _ in 0..AFTER_A_PAUSE {
        path.get_ready();
        after_a_pause.push(path.checked_call(feed, 0, tolerance)?);
    }
    let ready_again = at_once.saturating_sub(median(&mut after_a_pause));
    set_pause(path, enough(ready_again));
    if let Some(newest) = &mut path.newest {
        newest.ready_again = Some(ready_again);
    }
    path.session.rest();
    Ok(())
}

fn set_pause(path: &mut Path, pause: Duration) {
    if let Some(newest) = &mut path.newest {
        newest.pause = pause;
    }
}

/// A pause that the median call does not outlast, nor one that is half as slow again.
fn enough(ready_again: Duration) -> Duration {
    ready_again * 3 / 2 + Duration::from_micros(5)
}

fn median(durations: &mut [Duration]) -> Duration {
    let middle = durations.len() / 2;
    *durations.select_nth_unstable(middle).1
}

/// What is written is pushed.
struct Push<'session>(&'session mut Session);

impl WriteInput for Push<'_> {
    #[inline]
    fn write_input<T: Element>(&mut self, _name: Option<&str>, row: &[T]) -> tickrt::Result<()> {
        self.0.push(0, row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_follow_each_other_whatever_is_wished_and_go_round() {
        let mut newest = Newest::new(3);
        assert_eq!(newest.next(7, 10), 7, "none before it");
        newest.answered(8, Instant::now());
        assert_eq!(newest.next(0, 10), 9);
        newest.answered(9, Instant::now());
        assert_eq!(newest.next(5, 10), 0);
    }

    #[test]
    fn pause_is_longer_than_the_device_needs() {
        for us in [0, 1, 30, 2000] {
            let ready_again = Duration::from_micros(us);
            assert!(enough(ready_again) > ready_again * 6 / 5, "{us}");
        }
        assert_eq!(median(&mut [3, 9, 1].map(Duration::from_micros)), Duration::from_micros(3));
    }
}

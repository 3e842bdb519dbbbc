//! clock.h: points in time, as nanoseconds of the system's monotonic clock.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// One moment on both clocks. They are one and the same, CLOCK_MONOTONIC, but Rust does not tell its number.
struct Moment {
    instant: Instant,
    ns: u64,
}

fn moment() -> &'static Moment {
    static MOMENT: OnceLock<Moment> = OnceLock::new();
    MOMENT.get_or_init(|| {
        // Of several tries the one in which least time has passed between the two looks.
        let tries = (0..16).map(|_| {
            let (before, instant, after) = (now_ns(), Instant::now(), now_ns());
            (after - before, Moment { instant, ns: before.midpoint(after) })
        });
        tries.min_by_key(|(uncertainty, _)| *uncertainty).expect("16 tries").1
    })
}

fn now_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a clock that Linux always has, and a place for its time.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The moment that C means. Beyond what the clock can show it is centuries away, and no different from never.
#[inline]
pub(crate) fn instant(ns: u64) -> Instant {
    const NEVER: Duration = Duration::from_secs(1 << 33);
    let start = moment();
    if ns >= start.ns {
        let after = Duration::from_nanos(ns - start.ns).min(NEVER);
        start.instant.checked_add(after).unwrap_or(start.instant)
    } else {
        // Before the first look at the clock: as long past as can be told.
        start.instant.checked_sub(Duration::from_nanos(start.ns - ns)).unwrap_or(start.instant)
    }
}

/// The number that C gets.
#[inline]
pub(crate) fn nanoseconds(instant: Instant) -> u64 {
    let start = moment();
    // In 64 bits: as_nanos computes in 128.
    let after = |duration: Duration| duration.as_secs() * 1_000_000_000 + u64::from(duration.subsec_nanos());
    match instant.checked_duration_since(start.instant) {
        Some(later) => start.ns + after(later),
        None => start.ns.saturating_sub(after(start.instant - instant)),
    }
}

/// `clock.h`: now.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_now_ns() -> u64 {
    now_ns()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moment_there_and_back_is_the_same() {
        let now = now_ns();
        for ns in [now, now + 5_000_000, now - 1_000_000] {
            assert_eq!(nanoseconds(instant(ns)), ns);
        }
        assert!(instant(u64::MAX) > Instant::now() + Duration::from_secs(3600));
    }

    #[test]
    fn both_clocks_show_one_time() {
        let before = now_ns();
        let between = nanoseconds(Instant::now());
        let after = now_ns();
        // The two looks at the start were some nanoseconds apart.
        assert!(before <= between + 1000 && between <= after + 1000, "{before} {between} {after}");
    }
}

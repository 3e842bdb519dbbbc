//! Choosing among plans of one model by the latency of whole calls.
//!
//! TensorRT's builder times kernels one by one, and not the chain: two builds of one model differ, and a higher optimization
//! level can be the slower one. What is chosen stays in the plan and its sidecar; nothing is tuned at load time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::SessionConfig;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::plan::Plan;

/// One plan that was measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// The builder optimization level that it was built with.
    pub level: u8,
    /// From submission to answer, in microseconds.
    pub p50_us: f64,
    /// From submission to answer, in microseconds.
    pub p99_us: f64,
}

/// Measures `plans`, each with the level it was built with, by turns on GPU `device`, and tells which one is the fastest, by
/// p50, and the figures of all.
///
/// # Errors
/// Those of [`Engine::from_plan`] and [`Engine::session`]; [`ErrorKind::InvalidArgument`] without a plan.
pub fn autotune(plans: &[(u8, Plan)], device: usize) -> Result<(usize, Vec<Candidate>)> {
    const ROUNDS: usize = 40;
    const CALLS: usize = 100;
    // Those at the start of a turn find the other plans in the caches.
    const SETTLING: usize = 20;
    let mut sessions = Vec::new();
    for (_, plan) in plans {
        sessions.push(Engine::from_plan(plan, device)?.session(&SessionConfig::default())?);
    }
    let mut times = vec![Vec::with_capacity(ROUNDS * CALLS); sessions.len()];
    for _ in 0..ROUNDS {
        for (session, times) in sessions.iter_mut().zip(&mut times) {
            for call in 0..SETTLING + CALLS {
                let time = session.time_one_call(0)?;
                if call >= SETTLING {
                    times.push(time);
                }
            }
        }
    }
    let candidates =
        plans.iter().zip(&mut times).map(|(&(level, _), times)| candidate(level, times)).collect::<Vec<_>>();
    let fastest = fastest(&candidates).ok_or_else(|| {
        Error::new(ErrorKind::InvalidArgument, "choose the fastest plan").expected("at least one").got("none")
    })?;
    Ok((fastest, candidates))
}

fn candidate(level: u8, times: &mut [Duration]) -> Candidate {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_nanos() as f64 / 1e3;
    Candidate { level, p50_us: at(0.5), p99_us: at(0.99) }
}

/// Which one was chosen.
pub(crate) fn fastest(candidates: &[Candidate]) -> Option<usize> {
    (0..candidates.len()).min_by(|&a, &b| candidates[a].p50_us.total_cmp(&candidates[b].p50_us))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fastest_is_the_one_of_the_least_median() {
        let mut times = [5, 1, 3, 2, 4, 100].map(Duration::from_micros);
        let slow = candidate(5, &mut times);
        assert_eq!((slow.level, slow.p50_us, slow.p99_us), (5, 3.0, 5.0));
        let quick = Candidate { level: 2, p50_us: 2.9, p99_us: 50.0 };
        assert_eq!(fastest(&[slow, quick, slow]), Some(1));
        assert_eq!(fastest(&[]), None);
    }
}

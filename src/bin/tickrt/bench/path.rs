//! One path: its session, its calls and what was seen of them.

use std::time::{Duration, Instant};

use tickrt::data::{Feed, Values};
use tickrt::stats::{Comparison, Latencies};
use tickrt::{BackendKind, Session};

use crate::answers;
use crate::exit::Outcome;

/// One way to an answer, and what was seen of it.
pub struct Path {
    pub kind: BackendKind,
    pub session: Session,
    pub latencies: Latencies,
    /// Including what is between the calls.
    pub spent: Duration,
    /// The first output of the last call.
    got: Values,
    /// The first output of every sample, one after the other.
    pub expected: Values,
    pub found: Comparison,
}

impl Path {
    /// Nothing measured yet.
    pub fn new(kind: BackendKind, session: Session) -> Outcome<Self> {
        let output = &session.signature().shapes[0].outputs[0];
        let none = answers::empty(output)?;
        let zeros = vec![0; output.count * output.data_type.size()];
        let got = Values::from_bytes(output.data_type, &zeros).unwrap_or_else(|| none.clone());
        Ok(Self {
            kind,
            session,
            latencies: Latencies::new(),
            spent: Duration::ZERO,
            got,
            expected: none,
            found: Comparison::default(),
        })
    }

    /// As records have it.
    pub fn name(&self) -> &'static str {
        match self.kind {
            BackendKind::TensorRt => "tickrt",
            BackendKind::OrtCuda => "ort-cuda",
            _ => "ort-cpu",
        }
    }

    /// One call, from before the first byte of input is written to after the last byte of output is read.
    #[inline]
    pub fn call(&mut self, feed: &Feed, sample: usize) -> tickrt::Result<Duration> {
        let started = Instant::now();
        let mut slot = self.session.input()?;
        feed.write(sample, &mut slot)?;
        let ticket = slot.submit()?;
        let got = &mut self.got;
        self.session.wait_into(ticket, |outputs| got.copy_from(0, outputs, 0))?;
        Ok(started.elapsed())
    }

    /// A turn of measured calls.
    pub fn turn(&mut self, feed: &Feed, calls: usize, tolerance: [f64; 2]) -> tickrt::Result<()> {
        let started = Instant::now();
        let count = self.got.len();
        for _ in 0..calls {
            let sample = self.latencies.calls() as usize % feed.calls();
            let latency = self.call(feed, sample)?;
            self.latencies.record(latency);
            self.found.add((&self.got, 0), (&self.expected, sample * count), count, tolerance);
        }
        self.spent += started.elapsed();
        Ok(())
    }
}

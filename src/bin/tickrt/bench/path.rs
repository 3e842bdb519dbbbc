//! One path: its session, its calls and what was seen of them.

use std::time::{Duration, Instant};

use tickrt::backend::ort::{CudaOptions, OrtBackend};
use tickrt::backend::tensorrt::textbook;
use tickrt::data::{Feed, Values};
use tickrt::onnx::Model;
use tickrt::resident::Semantics;
use tickrt::resident::artefact::Facts;
use tickrt::resident::turn::Sums;
use tickrt::stats::{Comparison, Latencies};
use tickrt::{BackendKind, Engine, Session, SessionConfig, WindowConfig};

use super::newest::Newest;
use super::{SETTLING, TURN};
use crate::answers;
use crate::chain::ChainArgs;
use crate::exit::{Failure, Outcome};

/// How an answer is got. In the table's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Resident,
    Tickrt,
    TickrtAhead,
    TrtGraphSync,
    TrtTextbook,
    OrtCudaGraph,
    OrtCuda,
    OrtCpu,
    OrtCpuAll,
}

impl Way {
    const ALL: [Self; 9] = [
        Self::Resident,
        Self::Tickrt,
        Self::TickrtAhead,
        Self::TrtGraphSync,
        Self::TrtTextbook,
        Self::OrtCudaGraph,
        Self::OrtCuda,
        Self::OrtCpu,
        Self::OrtCpuAll,
    ];

    /// For flags and the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Resident => "tickrt-resident",
            Self::Tickrt => "tickrt",
            Self::TickrtAhead => "tickrt-ahead",
            Self::TrtGraphSync => "trt-graph-sync",
            Self::TrtTextbook => "trt-textbook",
            Self::OrtCudaGraph => "ort-cuda-graph",
            Self::OrtCuda => "ort-cuda",
            Self::OrtCpu => "ort-cpu",
            Self::OrtCpuAll => "ort-cpu-all",
        }
    }

    /// For records, which tell the number of threads apart.
    pub fn record_name(self) -> &'static str {
        if self == Self::OrtCpuAll { Self::OrtCpu.name() } else { self.name() }
    }

    /// Whose code computes.
    pub fn kind(self) -> BackendKind {
        match self {
            Self::Resident => BackendKind::Resident,
            Self::Tickrt | Self::TickrtAhead | Self::TrtGraphSync | Self::TrtTextbook => BackendKind::TensorRt,
            Self::OrtCudaGraph | Self::OrtCuda => BackendKind::OrtCuda,
            Self::OrtCpu | Self::OrtCpuAll => BackendKind::OrtCpu,
        }
    }

    /// Whether threads of it go on after a call.
    pub fn spins_on(self) -> bool {
        self == Self::OrtCpuAll
    }

    /// One of the names.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|way| way.name() == text).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|way| way.name()).collect();
            format!("there is no path `{text}`; the paths are {}", names.join(", "))
        })
    }

    /// All paths of these backends.
    pub fn of(kinds: &[BackendKind]) -> Vec<Self> {
        Self::ALL.into_iter().filter(|way| kinds.contains(&way.kind())).collect()
    }

    /// Starts it; `engine` is there for TensorRT's. `tf32`: whether ONNX Runtime CUDA may compute as the engine does.
    pub fn start(
        self,
        chain: &ChainArgs,
        config: &SessionConfig,
        engine: Option<&Engine>,
        tf32: bool,
    ) -> Outcome<Session> {
        const PATIENCE: Duration = Duration::from_millis(50);
        let engine = || engine.ok_or_else(|| Failure::usage(format!("{} needs --engine FILE", self.name())));
        let model = || chain.onnx().and_then(|onnx| Ok(Model::read(onnx)?));
        Ok(match self {
            Self::Resident => {
                let artefact = chain.artefact()?;
                let windows = row_alone(artefact.facts()).map(|row| WindowConfig::new(1, row));
                Session::resident(&artefact, &SessionConfig { windows, ..config.clone() })?
            }
            Self::Tickrt => engine()?.session(config)?,
            Self::TickrtAhead => {
                engine()?.session(&SessionConfig { launch_ahead: Some(PATIENCE), ..config.clone() })?
            }
            Self::TrtGraphSync => textbook::session(engine()?, config, true)?,
            Self::TrtTextbook => textbook::session(engine()?, config, false)?,
            Self::OrtCudaGraph => OrtBackend::cuda_graph(&model()?, config, CudaOptions { tf32 })?,
            Self::OrtCuda => {
                Session::start(Box::new(OrtBackend::cuda(&model()?, config, CudaOptions { tf32 })?), config)?
            }
            Self::OrtCpu => Session::start(Box::new(OrtBackend::cpu(&model()?, config)?), config)?,
            Self::OrtCpuAll => {
                let config = SessionConfig { cpu_threads: 0, ..config.clone() };
                Session::start(Box::new(OrtBackend::cpu(&model()?, &config)?), &config)?
            }
        })
    }
}

/// Elements of a row, where a call of the resident engine hands over the newest row alone.
pub fn row_alone(facts: &Facts) -> Option<usize> {
    facts.window_row.filter(|_| facts.semantics == Semantics::Window)
}

/// One way to an answer, and what was seen of it.
pub struct Path {
    pub way: Way,
    pub session: Session,
    pub latencies: Latencies,
    /// Including what is between the calls.
    pub spent: Duration,
    /// The first output of the last call.
    got: Values,
    /// The first output of every sample, one after the other.
    pub expected: Values,
    pub found: Comparison,
    /// Of a resident engine.
    pub facts: Option<Facts>,
    /// Where calls hand over the newest row alone.
    pub newest: Option<Newest>,
    /// Where calls carry state: the sample that is next in their stream, which begins anew with the first.
    pub step: Option<usize>,
    /// Of a resident engine: what its turns added up to before anything was measured.
    pub sums_before: Sums,
}

impl Path {
    /// Nothing measured yet.
    pub fn new(way: Way, session: Session) -> Outcome<Self> {
        let output = &session.signature().shapes[0].outputs[0];
        let none = answers::empty(output)?;
        let zeros = vec![0; output.count * output.data_type.size()];
        let got = Values::from_bytes(output.data_type, &zeros).unwrap_or_else(|| none.clone());
        let step = session.carries_state().then_some(0);
        Ok(Self {
            way,
            session,
            latencies: Latencies::new(),
            spent: Duration::ZERO,
            got,
            expected: none,
            found: Comparison::default(),
            facts: None,
            newest: None,
            step,
            sums_before: Sums::default(),
        })
    }

    /// As [`new`](Self::new), of a resident engine.
    pub fn resident(session: Session, facts: Facts) -> Outcome<Self> {
        let newest = row_alone(&facts).and(session.window_rows()).map(Newest::new);
        Ok(Self { facts: Some(facts), newest, ..Self::new(Way::Resident, session)? })
    }

    /// One call, from before the first byte of input is written to after the last byte of output is read.
    #[inline]
    fn call_about(&mut self, feed: &Feed, sample: usize) -> tickrt::Result<Duration> {
        if self.newest.is_some() {
            return self.call_with_newest_row(feed, sample);
        }
        if let Some(next) = &mut self.step {
            if sample == 0 {
                self.session.reset_state()?;
            }
            *next = (sample + 1) % feed.calls();
        }
        let started = Instant::now();
        let mut slot = self.session.input()?;
        feed.write(sample, &mut slot)?;
        let ticket = slot.submit()?;
        let got = &mut self.got;
        self.session.wait_into(ticket, |outputs| got.copy_from(0, outputs, 0))?;
        Ok(started.elapsed())
    }

    /// As [`call_about`](Self::call_about): what is handed over is the newest row.
    #[inline]
    fn call_with_newest_row(&mut self, feed: &Feed, sample: usize) -> tickrt::Result<Duration> {
        let Self { newest: Some(newest), session, got, .. } = self else { return Ok(Duration::ZERO) };
        newest.lead_up(session, feed, sample)?;
        let started = Instant::now();
        newest.push(session, feed, sample)?;
        let ticket = session.submit_window(0)?;
        session.wait_into(ticket, |outputs| got.copy_from(0, outputs, 0))?;
        let now = Instant::now();
        newest.answered(sample, now);
        Ok(now - started)
    }

    /// The sample that is next: the one that is wished for, or, of those that come in sequence, the one behind the last.
    fn next(&self, feed: &Feed, wished: usize) -> usize {
        let wished = self.step.unwrap_or(wished);
        self.newest.as_ref().map_or(wished, |newest| newest.next(wished, feed.calls()))
    }

    /// Before a call that is to find the device ready: waits until it is, where a call's answer leaves it with work to do.
    #[inline]
    pub fn get_ready(&self) {
        if let Some(newest) = &self.newest {
            newest.get_ready();
        }
    }

    /// The first output of every sample, added to what is expected.
    pub fn expect(&mut self, feed: &Feed) -> tickrt::Result<()> {
        if self.newest.is_none() && self.step.is_none() {
            return answers::first_outputs(&mut self.session, feed, &mut self.expected);
        }
        for sample in 0..feed.calls() {
            self.call_about(feed, sample)?;
            self.expected.extend(&self.got);
        }
        Ok(())
    }

    /// Calls a second, one as soon as it can follow the other; 0 without calls.
    pub fn calls_per_s(&self, latencies: &Latencies) -> f64 {
        match self.newest.as_ref().and_then(Newest::ready_again_us) {
            Some(ready_again) if latencies.calls() > 0 => (1e7 / (latencies.mean_us() + ready_again)).round() / 10.0,
            _ => latencies.calls_per_s(),
        }
    }

    /// One call whose answer nobody looks at. Where windows have to come in sequence, it is about the next one and not about
    /// `sample`.
    #[inline]
    pub fn call(&mut self, feed: &Feed, sample: usize) -> tickrt::Result<Duration> {
        let sample = self.next(feed, sample);
        self.call_about(feed, sample)
    }

    /// As [`call`](Self::call), and the answer is compared.
    pub fn checked_call(&mut self, feed: &Feed, sample: usize, tolerance: [f64; 2]) -> tickrt::Result<Duration> {
        let (count, sample) = (self.got.len(), self.next(feed, sample));
        let latency = self.call_about(feed, sample)?;
        self.found.add((&self.got, 0), (&self.expected, sample * count), count, tolerance);
        Ok(latency)
    }

    /// One call that is measured and its answer compared.
    pub fn measured_call(&mut self, feed: &Feed, tolerance: [f64; 2]) -> tickrt::Result<()> {
        if self.step == Some(0) && feed.calls() > 1 {
            // The call that begins anew is computed twice.
            self.checked_call(feed, 0, tolerance)?;
        }
        let sample = self.latencies.calls() as usize % feed.calls();
        let latency = self.checked_call(feed, sample, tolerance)?;
        self.latencies.record(latency);
        Ok(())
    }

    /// A turn of measured calls, `most` of them. Between turns nothing of it waits on the GPU, where the other paths are
    /// measured.
    pub fn turn(
        &mut self,
        feed: &Feed,
        most: u64,
        tolerance: [f64; 2],
        between: &mut impl FnMut(),
    ) -> tickrt::Result<()> {
        if matches!(self.way, Way::TickrtAhead | Way::Resident) {
            self.session.keep_warm()?;
        }
        let settled = Instant::now() + SETTLING;
        let mut sample = 0;
        while Instant::now() < settled {
            between();
            self.get_ready();
            self.checked_call(feed, sample % feed.calls(), tolerance)?;
            sample += 1;
        }
        let started = Instant::now();
        for _ in 0..most {
            between();
            self.get_ready();
            self.measured_call(feed, tolerance)?;
            if started.elapsed() > TURN - SETTLING {
                break;
            }
        }
        self.spent += started.elapsed();
        self.session.rest();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::newest;
    use super::*;

    const ROW: usize = 2;
    const TOLERANCE: [f64; 2] = [0.0, 0.0];

    /// A network that answers with what it is handed: four rows of two. None where there is no ONNX Runtime.
    fn path(windows: Option<WindowConfig>) -> Option<Path> {
        let root = std::env::var_os("TICKRT_TEST_ROOT").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let model = Model::read(std::path::Path::new(&root).join("models/identity.onnx")).unwrap();
        let config = SessionConfig { windows, warm_up: 0, ..SessionConfig::default() };
        let backend = OrtBackend::cpu(&model, &config).map_err(|error| eprintln!("skipped: {error}")).ok()?;
        let session = Session::start(Box::new(backend), &config).unwrap();
        let newest = session.window_rows().map(Newest::new);
        Some(Path { newest, ..Path::new(Way::OrtCpu, session).unwrap_or_else(|_| unreachable!()) })
    }

    #[test]
    fn newest_row_alone_gets_the_answers_of_whole_windows_from_turn_to_turn() {
        let (Some(mut whole), Some(mut rows)) = (path(None), path(Some(WindowConfig::new(1, ROW)))) else { return };
        let feed = Feed::random(whole.session.signature(), 5, 3).unwrap().sliding(ROW, 17).unwrap();
        whole.expect(&feed).unwrap();
        rows.expect(&feed).unwrap();
        assert_eq!(rows.expected, whole.expected, "every row once, then the newest ones alone");
        // The series goes on at its beginning; and wherever another call begins, this path goes on where it was.
        for sample in [0, 9, 9, 3] {
            rows.checked_call(&feed, sample, TOLERANCE).unwrap();
        }
        assert_eq!(rows.next(&feed, 11), 4);
        newest::measure(&mut rows, &feed, TOLERANCE).unwrap();
        for _ in 0..2 {
            rows.turn(&feed, 40, TOLERANCE, &mut || ()).unwrap();
        }
        assert_eq!((rows.found.beyond, rows.latencies.calls()), (0, 80));
        assert!(rows.newest.as_ref().unwrap().ready_again_us().is_some());
    }

    #[test]
    fn window_out_of_sequence_is_led_up_to_before_the_clock() {
        let Some(mut rows) = path(Some(WindowConfig::new(1, ROW))) else { return };
        let feed = Feed::random(rows.session.signature(), 5, 3).unwrap().sliding(ROW, 17).unwrap();
        rows.expect(&feed).unwrap();
        for sample in [4, 16, 2, 3] {
            rows.call_about(&feed, sample).unwrap();
            let count = rows.got.len();
            assert_eq!(rows.got, rows.expected.slice(sample * count..(sample + 1) * count), "{sample}");
        }
    }
}

//! One path: its session, its calls and what was seen of them.

use std::time::{Duration, Instant};

use tickrt::backend::ort::{CudaOptions, OrtBackend};
use tickrt::backend::tensorrt::textbook;
use tickrt::data::{Feed, Values};
use tickrt::onnx::Model;
use tickrt::stats::{Comparison, Latencies};
use tickrt::{BackendKind, Engine, Session, SessionConfig};

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
            Self::Resident => Session::resident(&chain.artefact()?, config)?,
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
}

impl Path {
    /// Nothing measured yet.
    pub fn new(way: Way, session: Session) -> Outcome<Self> {
        let output = &session.signature().shapes[0].outputs[0];
        let none = answers::empty(output)?;
        let zeros = vec![0; output.count * output.data_type.size()];
        let got = Values::from_bytes(output.data_type, &zeros).unwrap_or_else(|| none.clone());
        Ok(Self {
            way,
            session,
            latencies: Latencies::new(),
            spent: Duration::ZERO,
            got,
            expected: none,
            found: Comparison::default(),
        })
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

    /// One call whose answer is compared.
    pub fn checked_call(&mut self, feed: &Feed, sample: usize, tolerance: [f64; 2]) -> tickrt::Result<Duration> {
        let count = self.got.len();
        let latency = self.call(feed, sample)?;
        self.found.add((&self.got, 0), (&self.expected, sample * count), count, tolerance);
        Ok(latency)
    }

    /// One call that is measured and its answer compared.
    pub fn measured_call(&mut self, feed: &Feed, tolerance: [f64; 2]) -> tickrt::Result<()> {
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
            self.checked_call(feed, sample % feed.calls(), tolerance)?;
            sample += 1;
        }
        let started = Instant::now();
        for _ in 0..most {
            between();
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

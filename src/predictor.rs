//! The chain: TensorRT, then ONNX Runtime CUDA, then ONNX Runtime CPU, or whatever the caller names.
//!
//! Every entry is started and warmed up at the beginning, so that taking over costs one call and no more. Which one
//! answers, and why each earlier one does not, can be asked at any time. When a backend fails in the middle of a call,
//! the next one answers that call from the same input, if it can in time:
//!
//! * after an error that leaves CUDA alive (out of memory, a failed execution) the next entry takes over, ONNX Runtime
//!   CUDA among them;
//! * after a sticky CUDA error, or when the device still computes at the end of [`SessionConfig::wait_limit`], every GPU
//!   backend is quarantined: no further driver call is made, and the CPU answers.
//!
//! The fallback latches: [`Predictor::rearm`] goes back to the first entry that still can.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::backend::ort::{CudaOptions, OrtBackend};
use crate::backend::{Backend, BackendKind, Signature};
use crate::config::SessionConfig;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::onnx::Model;
use crate::plan::Sidecar;
use crate::session::{Answer, AskedInput, Draft, Outputs, Session, Ticket};
use crate::tensor::Element;

/// Owns one warmed-up [`Session`] for each entry of its chain, and answers from the first that works.
///
/// ```no_run
/// # fn main() -> tickrt::Result<()> {
/// let mut predictor = tickrt::Predictor::builder()
///     .tensorrt("models/toy_cnn.engine")
///     .ort_cuda("models/toy_cnn.onnx")
///     .ort_cpu("models/toy_cnn.onnx")
///     .build()?;
/// println!("{} answers", predictor.active());
/// for passed in predictor.passed_over() {
///     println!("{} does not: {}", passed.backend, passed.reason);
/// }
/// let mut scores = [0.0_f32; 3];
/// predictor.infer(&[0.0_f32; 256], &mut scores)?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Predictor {
    entries: Vec<Started>,
    active: usize,
    passed_over: Vec<PassedOver>,
    wait_limit: Duration,
}

/// A backend that does not answer, and why.
#[derive(Debug, Clone)]
pub struct PassedOver {
    /// Which one.
    pub backend: BackendKind,
    /// Why.
    pub reason: Error,
    /// Whether a restart of the process could bring it back: it has worked here before.
    pub restart_helps: bool,
}

#[derive(Debug)]
struct Started {
    session: Session,
    /// No call of its may be made any more.
    quarantined: bool,
    /// Failed in a way that leaves CUDA alive.
    failed: bool,
    /// 99th percentile of its calls at start.
    p99: Duration,
}

/// Names the chain. Entries are tried in the order in which they are named.
#[derive(Default)]
pub struct PredictorBuilder {
    entries: Vec<Entry>,
    config: SessionConfig,
}

enum Entry {
    TensorRt { path: PathBuf, verified: bool },
    Engine(Engine),
    OrtCuda(PathBuf),
    OrtCpu(PathBuf),
    Own(Box<dyn Backend>),
}

impl PredictorBuilder {
    /// The plan in `path`, with its sidecar beside it, on TensorRT.
    #[must_use]
    pub fn tensorrt(mut self, path: impl AsRef<Path>) -> Self {
        self.entries.push(Entry::TensorRt { path: path.as_ref().into(), verified: true });
        self
    }

    /// As [`tensorrt`](Self::tensorrt), for a plan without a sidecar, on the caller's word.
    #[must_use]
    pub fn tensorrt_unverified(mut self, path: impl AsRef<Path>) -> Self {
        self.entries.push(Entry::TensorRt { path: path.as_ref().into(), verified: false });
        self
    }

    /// An engine that is loaded already.
    #[must_use]
    pub fn engine(mut self, engine: &Engine) -> Self {
        self.entries.push(Entry::Engine(engine.clone()));
        self
    }

    /// The model in `path` on ONNX Runtime's CUDA provider.
    #[must_use]
    pub fn ort_cuda(mut self, path: impl AsRef<Path>) -> Self {
        self.entries.push(Entry::OrtCuda(path.as_ref().into()));
        self
    }

    /// The model in `path` on ONNX Runtime's CPU provider.
    #[must_use]
    pub fn ort_cpu(mut self, path: impl AsRef<Path>) -> Self {
        self.entries.push(Entry::OrtCpu(path.as_ref().into()));
        self
    }

    /// A backend of the caller's own.
    #[must_use]
    pub fn backend(mut self, backend: Box<dyn Backend>) -> Self {
        self.entries.push(Entry::Own(backend));
        self
    }

    /// What every session is made for. Without it each has the default, with the normalisation that the plan's sidecar
    /// carries.
    #[must_use]
    pub fn config(mut self, config: SessionConfig) -> Self {
        self.config = config;
        self
    }

    /// Starts and warms up every entry.
    ///
    /// # Errors
    /// [`ErrorKind::NoBackend`] with every reason if none starts; [`ErrorKind::InvalidArgument`] if the chain is empty
    /// or its entries take different inputs or give different outputs.
    pub fn build(mut self) -> Result<Predictor> {
        if self.entries.is_empty() {
            return Err(Error::new(ErrorKind::InvalidArgument, "start a predictor")
                .expected("a chain of at least one backend")
                .got("none")
                .advice("name it: .tensorrt(..), .ort_cuda(..), .ort_cpu(..)"));
        }
        self.inherit_normalizations()?;
        let (mut started, mut passed_over) = (Vec::<Started>::new(), Vec::new());
        for entry in self.entries {
            let backend = entry.kind();
            match entry.start(&self.config) {
                Ok(entry) => {
                    if let Some(first) = started.first() {
                        same_interface(&first.session, &entry.session)?;
                    }
                    started.push(entry);
                }
                // Before a mistake of the caller's every later entry would stop, too, or worse, answer wrongly.
                Err(error) if error.kind() == ErrorKind::InvalidArgument => return Err(error),
                Err(reason) => passed_over.push(PassedOver { backend, reason, restart_helps: false }),
            }
        }
        if started.is_empty() {
            return Err(no_backend(&passed_over));
        }
        // One set of rings in all: the one that answers has it.
        started[1..].iter_mut().for_each(|entry| drop(entry.session.take_windows()));
        Ok(Predictor { entries: started, active: 0, passed_over, wait_limit: self.config.wait_limit })
    }

    /// ONNX Runtime has no sidecar: it gets the normalisation of the first plan, even of one that cannot be loaded here.
    /// Without it the fallback would answer, and answer wrongly.
    fn inherit_normalizations(&mut self) -> Result<()> {
        if self.config.normalizations.is_some() {
            return Ok(());
        }
        for entry in &self.entries {
            let inherited = match entry {
                Entry::Engine(engine) => engine.normalizations().to_vec(),
                Entry::TensorRt { path, verified } => match Sidecar::beside(path) {
                    Ok(Some(sidecar)) => sidecar.normalizations,
                    Ok(None) if !verified => Vec::new(),
                    Ok(None) => return Err(unknown_normalization(path, "no sidecar beside the plan".into())),
                    Err(error) => return Err(unknown_normalization(path, error.to_string())),
                },
                _ => continue,
            };
            self.config.normalizations = Some(inherited);
            return Ok(());
        }
        Ok(())
    }
}

fn unknown_normalization(plan: &Path, got: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("learn the normalisation of the plan {}", plan.display()))
        .expected("its sidecar, because the backends that follow in the chain need the same")
        .got(got)
        .advice("build the plan with `tickrt build`, or set `normalizations` (to an empty list for none)")
}

impl Entry {
    fn kind(&self) -> BackendKind {
        match self {
            Self::TensorRt { .. } | Self::Engine(_) => BackendKind::TensorRt,
            Self::OrtCuda(_) => BackendKind::OrtCuda,
            Self::OrtCpu(_) => BackendKind::OrtCpu,
            Self::Own(backend) => backend.kind(),
        }
    }

    fn start(self, config: &SessionConfig) -> Result<Started> {
        let session = match self {
            Self::TensorRt { path, verified: true } => Engine::load_on(path, config.device)?.session(config)?,
            Self::TensorRt { path, verified: false } => {
                Engine::load_unverified_on(path, config.device)?.session(config)?
            }
            Self::Engine(engine) => engine.session(config)?,
            Self::OrtCuda(path) => Session::start(
                Box::new(OrtBackend::cuda(&Model::read(path)?, config, CudaOptions::default())?),
                config,
            )?,
            Self::OrtCpu(path) => Session::start(Box::new(OrtBackend::cpu(&Model::read(path)?, config)?), config)?,
            Self::Own(backend) => Session::start(backend, config)?,
        };
        let mut started = Started { session, quarantined: false, failed: false, p99: Duration::ZERO };
        started.measure(config.warm_up.min(200))?;
        Ok(started)
    }
}

impl Started {
    /// What it takes when it answers in another's place: decides whether it can within a deadline.
    fn measure(&mut self, calls: usize) -> Result<()> {
        let mut times = Vec::with_capacity(calls);
        for _ in 0..calls {
            times.push(self.session.time_one_call()?);
        }
        times.sort_unstable();
        self.p99 = times.get(times.len().saturating_sub(1) * 99 / 100).copied().unwrap_or_default();
        Ok(())
    }

    fn usable(&self) -> bool {
        !self.quarantined && !self.failed
    }
}

fn same_interface(first: &Session, other: &Session) -> Result<()> {
    let interface = |session: &Session| {
        let Signature { inputs, outputs, shapes } = session.signature();
        let sizes = shapes.iter().map(|shape| {
            let inputs = shape.inputs.iter().map(|input| (input.input_type, input.count)).collect::<Vec<_>>();
            (inputs, shape.outputs.iter().map(|output| (output.data_type, output.count)).collect::<Vec<_>>())
        });
        let names = inputs.iter().chain(outputs).map(|tensor| tensor.name.clone()).collect::<Vec<_>>();
        (names, sizes.collect::<Vec<_>>())
    };
    let (expected, got) = (interface(first), interface(other));
    if expected == got {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidArgument, "start a predictor")
        .expected(format!("every backend to take and give what {} does: {expected:?}", first.backend()))
        .got(format!("{got:?} from {}", other.backend()))
        .advice("build the plan from the same ONNX model that ONNX Runtime gets"))
}

fn no_backend(passed_over: &[PassedOver]) -> Error {
    let reasons = passed_over.iter().map(|passed| format!("{}: {}", passed.backend, passed.reason));
    Error::new(ErrorKind::NoBackend, "start a predictor")
        .expected("at least one backend of the chain to start")
        .got("none")
        .advice("each one's reason follows")
        .log(reasons.collect())
}

impl Predictor {
    /// Names a chain.
    #[must_use]
    pub fn builder() -> PredictorBuilder {
        PredictorBuilder::default()
    }

    /// Which backend answers now.
    #[must_use]
    pub fn active(&self) -> BackendKind {
        self.session().backend()
    }

    /// The session that answers now.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.entries[self.active].session
    }

    /// The backends that were passed over or have failed, each with its reason, in the order in which it happened.
    #[must_use]
    pub fn passed_over(&self) -> &[PassedOver] {
        &self.passed_over
    }

    /// The backends that stand by after the active one.
    #[must_use]
    pub fn standing_by(&self) -> Vec<BackendKind> {
        let later = self.entries.iter().skip(self.active + 1);
        later.filter(|entry| entry.usable()).map(|entry| entry.session.backend()).collect()
    }

    /// Goes back to the first backend that still can, after a failure that left CUDA alive.
    ///
    /// # Errors
    /// [`ErrorKind::DeviceLost`] if a quarantined backend is ahead: only a restart of the process brings it back.
    pub fn rearm(&mut self) -> Result<BackendKind> {
        self.entries.iter_mut().for_each(|entry| entry.failed = false);
        let first = self.entries.iter().position(Started::usable).ok_or(ErrorKind::Unavailable)?;
        self.make_active(first);
        match self.passed_over.iter().rev().find(|passed| passed.reason.is_sticky()) {
            Some(lost) if self.entries[..first].iter().any(|entry| entry.quarantined) => Err(lost.reason.clone()),
            _ => Ok(self.active()),
        }
    }

    /// Computes one call from beginning to end: `input` is the only input, `output` takes the first output.
    ///
    /// # Errors
    /// As [`Session::infer`]; a failed backend is one only when no other could answer in its place
    /// ([`ErrorKind::Unavailable`]).
    #[inline]
    pub fn infer<T: Element, U: Element>(&mut self, input: &[T], output: &mut [U]) -> Result<Answer> {
        let mut slot = self.input()?;
        slot.write(0, input)?;
        let ticket = slot.submit()?;
        self.wait(ticket, output)
    }

    /// Lends a slot of the active backend, for the first announced shape.
    ///
    /// # Errors
    /// As [`Session::input`].
    #[inline]
    pub fn input(&mut self) -> Result<PredictorSlot<'_>> {
        self.input_for(0)
    }

    /// Lends a slot of the active backend, for the shape announced as number `shape`.
    ///
    /// # Errors
    /// As [`Session::input_for`].
    #[inline]
    pub fn input_for(&mut self, shape: usize) -> Result<PredictorSlot<'_>> {
        self.retire_stuck();
        let draft = self.entries[self.active].session.input_for(shape)?.detach();
        Ok(PredictorSlot { predictor: self, draft })
    }

    /// As [`Session::push`].
    ///
    /// # Errors
    /// As [`Session::push`].
    #[inline]
    pub fn push<T: Element>(&mut self, symbol: u32, row: &[T]) -> Result<()> {
        self.entries[self.active].session.push(symbol, row)
    }

    /// As [`Session::reset`].
    ///
    /// # Errors
    /// As [`Session::reset`].
    pub fn reset(&mut self, symbol: u32) -> Result<()> {
        self.entries[self.active].session.reset(symbol)
    }

    /// As [`Session::gap`].
    ///
    /// # Errors
    /// As [`Session::gap`].
    pub fn gap(&mut self, symbol: u32) -> Result<()> {
        self.entries[self.active].session.gap(symbol)
    }

    /// As [`Session::submit_window`].
    ///
    /// # Errors
    /// As [`Session::submit_window`].
    #[inline]
    pub fn submit_window(&mut self, symbol: u32) -> Result<Ticket> {
        self.submit_window_tagged(symbol, 0)
    }

    /// As [`Session::submit_window_tagged`].
    ///
    /// # Errors
    /// As [`Session::submit_window_tagged`].
    #[inline]
    pub fn submit_window_tagged(&mut self, symbol: u32, tag: u64) -> Result<Ticket> {
        self.retire_stuck();
        match self.entries[self.active].session.submit_window_tagged(symbol, tag) {
            Err(error) if ends_backend(&error) => {
                self.retire(self.active, error, None)?;
                self.entries[self.active].session.submit_window_tagged(symbol, tag)
            }
            other => other,
        }
    }

    /// As [`Session::poll`].
    ///
    /// # Errors
    /// As [`Session::poll`].
    #[inline]
    pub fn poll<T: Element>(&mut self, ticket: Ticket, output: &mut [T]) -> Result<Option<Answer>> {
        let entry = self.entry_of(ticket)?;
        if !self.entries[entry].quarantined {
            match self.entries[entry].session.poll(ticket, output) {
                Err(error) if ends_backend(&error) || error.kind() == ErrorKind::DeadlineMissed => {
                    self.retire(entry, error, None)?;
                }
                other => return other,
            }
        }
        self.rescue(entry, ticket, None, |outputs| outputs.copy(0, output)).map(Some)
    }

    /// As [`Session::wait`], and when the backend fails meanwhile, the next one's answer.
    ///
    /// # Errors
    /// As [`Session::wait`]; [`ErrorKind::Unavailable`] when no backend is left.
    #[inline]
    pub fn wait<T: Element>(&mut self, ticket: Ticket, output: &mut [T]) -> Result<Answer> {
        self.wait_into(ticket, |outputs| outputs.copy(0, output))
    }

    /// As [`Session::wait_into`], and when the backend fails meanwhile, the next one's answer.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    #[inline]
    pub fn wait_into(&mut self, ticket: Ticket, mut read: impl FnMut(&Outputs<'_>) -> Result<()>) -> Result<Answer> {
        let entry = self.entry_of(ticket)?;
        if !self.entries[entry].quarantined {
            match self.entries[entry].session.wait_into(ticket, &mut read) {
                Err(error) if ends_backend(&error) || error.kind() == ErrorKind::DeadlineMissed => {
                    self.retire(entry, error, None)?;
                }
                other => return other,
            }
        }
        self.rescue(entry, ticket, None, read)
    }

    /// As [`Session::wait_until`], and when the backend fails meanwhile, the next one's answer, if it can be expected
    /// before `deadline`.
    ///
    /// # Errors
    /// As [`Session::wait_until`]; [`ErrorKind::Unavailable`], in time, when no backend left can answer by then.
    #[inline]
    pub fn wait_until<T: Element>(&mut self, ticket: Ticket, deadline: Instant, output: &mut [T]) -> Result<Answer> {
        let entry = self.entry_of(ticket)?;
        if !self.entries[entry].quarantined {
            match self.entries[entry].session.wait_until(ticket, deadline, output) {
                Err(error) if ends_backend(&error) => self.retire(entry, error, Some(deadline))?,
                other => return other,
            }
        }
        self.rescue(entry, ticket, Some(deadline), |outputs| outputs.copy(0, output))
    }

    fn entry_of(&self, ticket: Ticket) -> Result<usize> {
        let of = self.entries.iter().position(|entry| entry.session.issued(ticket));
        of.ok_or_else(|| ErrorKind::StaleTicket.into())
    }

    /// A backend whose call was given up long ago and has still not come back will not.
    #[inline]
    fn retire_stuck(&mut self) {
        let entry = &self.entries[self.active];
        if entry.session.is_stuck() {
            // No backend left: the call that follows says so itself.
            let _ = self.retire(self.active, ErrorKind::DeadlineMissed.into(), None);
        }
    }

    /// Takes `entry` out of the chain, every other GPU backend with it if CUDA is finished, and makes the next one
    /// active.
    #[cold]
    fn retire(&mut self, entry: usize, reason: Error, deadline: Option<Instant>) -> Result<()> {
        let on_gpu = self.entries[entry].session.backend().on_gpu();
        // Still computing after the limit: whatever holds it may hold every other call to the driver as well.
        let finished = reason.is_sticky() || (on_gpu && reason.kind() == ErrorKind::DeadlineMissed);
        self.entries[entry].failed = true;
        for (index, other) in self.entries.iter_mut().enumerate() {
            let ends = index == entry || (finished && other.session.backend().on_gpu());
            if finished && ends && !other.quarantined {
                other.quarantined = true;
                other.session.quarantine();
            }
        }
        let backend = self.entries[entry].session.backend();
        self.passed_over.push(PassedOver { backend, reason, restart_helps: true });
        let next = self.entries.iter().position(Started::usable).ok_or(ErrorKind::Unavailable)?;
        self.make_active(next);
        self.in_time(deadline)
    }

    fn make_active(&mut self, next: usize) {
        if next != self.active {
            let windows = self.entries[self.active].session.take_windows();
            self.entries[next].session.put_windows(windows);
            self.active = next;
        }
    }

    /// Whether the active backend can be expected to answer before `deadline`.
    fn in_time(&self, deadline: Option<Instant>) -> Result<()> {
        let left = deadline.map_or(self.wait_limit, |deadline| deadline.saturating_duration_since(Instant::now()));
        if self.entries[self.active].p99 <= left { Ok(()) } else { Err(ErrorKind::Unavailable.into()) }
    }

    /// Answers a failed entry's call from the active one, from the same input.
    #[cold]
    fn rescue(
        &mut self,
        failed: usize,
        ticket: Ticket,
        deadline: Option<Instant>,
        read: impl FnMut(&Outputs<'_>) -> Result<()>,
    ) -> Result<Answer> {
        if !self.entries[self.active].usable() {
            return Err(ErrorKind::Unavailable.into());
        }
        self.in_time(deadline)?;
        let rescued = self.resubmit(failed, Asked::Ticket(ticket))?;
        let session = &mut self.entries[self.active].session;
        match deadline {
            Some(deadline) => session.wait_until_into(rescued, deadline, read),
            None => session.wait_into(rescued, read),
        }
    }

    /// Starts a failed entry's call on the active one.
    fn resubmit(&mut self, failed: usize, asked: Asked) -> Result<Ticket> {
        let [failed, active] =
            self.entries.get_disjoint_mut([failed, self.active]).map_err(|_| ErrorKind::Unavailable)?;
        let (input, tag) = match asked {
            Asked::Ticket(ticket) => failed.session.asked_input(ticket)?,
            Asked::Draft(draft) => failed.session.drafted_input(draft),
        };
        match input {
            AskedInput::Window(moment) => active.session.submit_moment(moment, tag),
            AskedInput::Slot { memory, shape } => active.session.submit_copy(memory, shape, tag),
        }
    }
}

enum Asked {
    Ticket(Ticket),
    Draft(Draft),
}

/// Whether the backend cannot be asked again.
fn ends_backend(error: &Error) -> bool {
    use ErrorKind::{Cuda, DeviceLost, Execution, OnnxRuntime, OutOfMemory};
    matches!(error.kind(), DeviceLost { .. } | Cuda { .. } | OutOfMemory | Execution | OnnxRuntime)
}

/// A slot's input memory, lent by a predictor's active backend: as [`InputSlot`](crate::InputSlot), but a backend that
/// fails in [`submit`](Self::submit) is replaced.
pub struct PredictorSlot<'predictor> {
    predictor: &'predictor mut Predictor,
    draft: Draft,
}

impl PredictorSlot<'_> {
    /// As [`InputSlot::write`](crate::InputSlot::write).
    ///
    /// # Errors
    /// As [`InputSlot::write`](crate::InputSlot::write).
    #[inline]
    pub fn write<T: Element>(&mut self, offset: usize, data: &[T]) -> Result<()> {
        self.with_slot(|slot| slot.write(offset, data))
    }

    /// As [`InputSlot::write_named`](crate::InputSlot::write_named).
    ///
    /// # Errors
    /// As [`InputSlot::write_named`](crate::InputSlot::write_named).
    pub fn write_named<T: Element>(&mut self, name: &str, offset: usize, data: &[T]) -> Result<()> {
        self.with_slot(|slot| slot.write_named(name, offset, data))
    }

    /// A number of the caller's that comes back with the answer.
    #[inline]
    #[must_use]
    pub fn tag(mut self, tag: u64) -> Self {
        self.draft.tag = tag;
        self
    }

    /// As [`InputSlot::submit`](crate::InputSlot::submit).
    ///
    /// # Errors
    /// As [`InputSlot::submit`](crate::InputSlot::submit); [`ErrorKind::Unavailable`] when no backend is left.
    #[inline]
    pub fn submit(self) -> Result<Ticket> {
        let Self { predictor, draft } = self;
        let active = predictor.active;
        match predictor.entries[active].session.attach(draft).submit() {
            Err(error) if ends_backend(&error) => {
                predictor.retire(active, error, None)?;
                predictor.resubmit(active, Asked::Draft(draft))
            }
            other => other,
        }
    }

    #[inline]
    fn with_slot(&mut self, write: impl FnOnce(&mut crate::session::InputSlot<'_>) -> Result<()>) -> Result<()> {
        let mut slot = self.predictor.entries[self.predictor.active].session.attach(self.draft);
        let written = write(&mut slot);
        self.draft = slot.detach();
        written
    }
}

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
//! * after a wrong answer to a question whose answer is known ([`KnownAnswer`]) the next entry takes over, and answers what
//!   was asked of that one as well.
//!
//! The fallback latches: [`Predictor::rearm`] goes back to the first entry that still can.
//!
//! A caller with a deadline gets the CPU's answer when the GPU's has not come by the last moment at which the CPU, by its
//! measured 99th percentile, can still answer in time. The GPU keeps its place: one late answer is no failure.

mod known_answer;
mod swap;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::backend::ort::{CudaOptions, OrtBackend};
use crate::backend::{Backend, BackendKind, Signature};
use crate::config::SessionConfig;
use crate::counters::Counters;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{Journal, JournalConfig};
use crate::logging::say;
use crate::normalize::Normalization;
use crate::onnx::Model;
use crate::plan::{Plan, Sidecar, hex};
use crate::resident::artefact::Facts;
use crate::resident::{Artefact, Semantics};
use crate::session::{Answer, AskedInput, Draft, Observers, Outputs, Session, Ticket};
use crate::tensor::Element;

use self::known_answer::Question;
pub use self::known_answer::{Checked, KnownAnswer};
pub use self::swap::{Outgoing, SwapRefused};

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
    /// Who asked to be told of calls; every session tells them.
    observers: Observers,
    /// What is asked now and then because the answer is known.
    question: Option<Question>,
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
    /// Has answered wrongly: what it was asked before is asked of another.
    distrusted: bool,
    /// Replaced: answers the calls that it was asked, and no further ones.
    outgoing: bool,
    /// 99th percentile of its calls at start, of the slowest shape; `None` without a warm-up.
    p99: Option<Duration>,
    /// Why it is out.
    reason: Option<Error>,
}

/// Names the chain. Entries are tried in the order in which they are named.
#[derive(Default)]
pub struct PredictorBuilder {
    entries: Vec<Entry>,
    config: SessionConfig,
    different_models: bool,
    host_code: bool,
    pass_over_untrusted: bool,
}

enum Entry {
    Resident(PathBuf),
    TensorRt { path: PathBuf, verified: bool },
    Engine(Engine),
    OrtCuda(PathBuf),
    OrtCpu(PathBuf),
    Own(Box<dyn Backend>),
}

impl PredictorBuilder {
    /// The resident engine in `path`, with its sidecar beside it: a kernel that stays on the GPU, built by
    /// `tickrt build --resident`. It stands at the head of a chain.
    #[must_use]
    pub fn resident(mut self, path: impl AsRef<Path>) -> Self {
        self.entries.push(Entry::Resident(path.as_ref().into()));
        self
    }

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

    /// Lets the backends run different ONNX models: a quantised one on the GPU, say, and the original behind it.
    #[must_use]
    pub fn allow_different_models(mut self) -> Self {
        self.different_models = true;
        self
    }

    /// As [`Plan::allow_host_code`], for every plan that is named by its path.
    #[must_use]
    pub fn allow_host_code(mut self) -> Self {
        self.host_code = true;
        self
    }

    /// Passes over what signatures forbid as it passes over what is missing, instead of refusing to start: for whom an
    /// answer of the next backend matters more than to learn that a file was exchanged.
    #[must_use]
    pub fn pass_over_untrusted(mut self) -> Self {
        self.pass_over_untrusted = true;
        self
    }

    /// Starts and warms up every entry. One that cannot start, for whatever reason, a missing file included, is passed
    /// over: look at [`Predictor::passed_over`] once, before the day on which the fallback is needed. Two reasons are not
    /// passed over: a mistake of the caller's, and, where signatures are [enforced](crate::trust), a file or library that is
    /// not what was signed or named.
    ///
    /// # Errors
    /// [`ErrorKind::NoBackend`] with every reason if none starts; [`ErrorKind::InvalidArgument`] if the chain is empty,
    /// or its entries run different models, take different inputs or normalise them differently;
    /// [`ErrorKind::Untrusted`], unless [`pass_over_untrusted`](Self::pass_over_untrusted) was said.
    pub fn build(mut self) -> Result<Predictor> {
        if self.entries.is_empty() {
            return Err(Error::new(ErrorKind::InvalidArgument, "start a predictor")
                .expected("a chain of at least one backend")
                .got("none")
                .advice("name it: .tensorrt(..), .ort_cuda(..), .ort_cpu(..)"));
        }
        let mut model = self.settle_sidecars()?;
        let (mut started, mut passed_over) = (Vec::<Started>::new(), Vec::new());
        for entry in std::mem::take(&mut self.entries) {
            let backend = entry.kind();
            let from_onnx = matches!(entry, Entry::OrtCuda(_) | Entry::OrtCpu(_));
            match entry.start(&self.config, self.host_code) {
                Ok(entry) => {
                    if let Some(first) = started.first() {
                        same_interface(&first.session, &entry.session, "start a predictor")?;
                    }
                    if from_onnx {
                        let own = hex(&entry.session.engine_id());
                        let expected = model.get_or_insert_with(|| own.clone());
                        if *expected != own && !self.different_models {
                            return Err(different_models(backend, expected, &own));
                        }
                    }
                    started.push(entry);
                }
                // A mistake of the caller's would stop every later entry, too, or worse, let it answer wrongly.
                Err(error) if error.kind() == ErrorKind::InvalidArgument || self.forbids(&error) => return Err(error),
                Err(reason) => {
                    say!(warn, "{backend} is passed over: {reason}");
                    passed_over.push(PassedOver { backend, reason, restart_helps: false });
                }
            }
        }
        if started.is_empty() {
            return Err(no_backend(&passed_over));
        }
        // One set of rings in all: the one that answers has it.
        started[1..].iter_mut().for_each(|entry| drop(entry.session.take_windows()));
        let observers = Observers::default();
        let mut predictor = Predictor { entries: started, active: 0, passed_over, observers, question: None };
        while let Err(error) = predictor.entries[predictor.active].session.wake() {
            let failed = predictor.active;
            predictor.retire(failed, error);
            if !predictor.entries[predictor.active].usable() {
                return Err(no_backend(&predictor.passed_over));
            }
        }
        Ok(predictor)
    }

    /// ONNX Runtime has no sidecar: it gets the normalisation of the plans, even of one that cannot be loaded here.
    /// Without it the fallback would answer, and answer wrongly. Returns the model that they were built from.
    fn settle_sidecars(&mut self) -> Result<Option<String>> {
        let (mut normalizations, mut model) = (None::<Vec<Normalization>>, None::<String>);
        let of_plan = |sidecar: Sidecar| (sidecar.normalizations, sidecar.onnx_sha256);
        let of_artefact = |facts: Facts| (facts.normalizations(), Some(facts.onnx_sha256));
        for entry in &self.entries {
            let sidecar = match entry {
                Entry::Engine(engine) => engine.sidecar().cloned().map(of_plan),
                Entry::Resident(path) => self.known(path, true, Facts::beside(path))?.map(of_artefact),
                Entry::TensorRt { path, verified } => self.known(path, *verified, Sidecar::beside(path))?.map(of_plan),
                _ => None,
            };
            let Some((its_normalizations, its_model)) = sidecar else { continue };
            if !self.different_models
                && let (Some(one), Some(other)) = (&model, &its_model)
                && one != other
            {
                return Err(different_models(entry.kind(), one, other));
            }
            model = model.or(its_model);
            match &normalizations {
                Some(first) if *first != its_normalizations && self.config.normalizations.is_none() => {
                    return Err(Error::new(ErrorKind::InvalidArgument, "start a predictor")
                        .expected("plans that normalise their inputs alike")
                        .got("different normalisations in their sidecars")
                        .advice("build them with the same --normalization, or set `normalizations`"));
                }
                Some(_) => {}
                None => normalizations = Some(its_normalizations),
            }
        }
        if self.config.normalizations.is_none() {
            self.config.normalizations = normalizations;
        }
        Ok(model.filter(|_| !self.different_models))
    }

    /// What lies beside an engine, as far as the chain can do without.
    fn known<T>(&self, engine: &Path, needed: bool, beside: Result<Option<T>>) -> Result<Option<T>> {
        let got = match beside {
            Err(error) if self.forbids(&error) => return Err(error),
            _ if self.config.normalizations.is_some() => return Ok(beside.ok().flatten()),
            Err(error) => error.to_string(),
            Ok(None) if needed && engine.exists() => "no sidecar beside it".to_owned(),
            Ok(None) if needed => "no such file; check the path".to_owned(),
            Ok(sidecar) => return Ok(sidecar),
        };
        Err(unknown_normalization(engine, got))
    }

    /// Whether the chain is not to start after this. Somebody may have exchanged a file in order to have another answer.
    fn forbids(&self, error: &Error) -> bool {
        error.kind() == ErrorKind::Untrusted && !self.pass_over_untrusted
    }
}

fn different_models(backend: BackendKind, expected: &str, got: &str) -> Error {
    Error::new(ErrorKind::InvalidArgument, "start a predictor")
        .expected(format!("one ONNX model for every backend, sha256 {}", &expected[..12]))
        .got(format!("{} for {backend}", &got[..12]))
        .advice("build the plan from the model that ONNX Runtime gets, or say allow_different_models()")
}

fn unknown_normalization(plan: &Path, got: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("learn the normalisation of {}", plan.display()))
        .expected("its sidecar, because the backends that follow in the chain need the same")
        .got(got)
        .advice("build it with `tickrt build`, or set `normalizations` (to an empty list for none)")
}

/// In a chain another backend may answer the next call, which has none of the state.
fn refuse_state(artefact: &Artefact, path: &Path) -> Result<()> {
    if artefact.facts().semantics != Semantics::Stateful {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidArgument, format!("put {} into a chain", path.display()))
        .expected("an engine whose calls know nothing of each other")
        .got("one that carries state from call to call, which no other backend has")
        .advice("load it by itself (Session::load_resident), or build it with --semantics window"))
}

impl Entry {
    fn kind(&self) -> BackendKind {
        match self {
            Self::Resident(_) => BackendKind::Resident,
            Self::TensorRt { .. } | Self::Engine(_) => BackendKind::TensorRt,
            Self::OrtCuda(_) => BackendKind::OrtCuda,
            Self::OrtCpu(_) => BackendKind::OrtCpu,
            Self::Own(backend) => backend.kind(),
        }
    }

    fn start(self, config: &SessionConfig, host_code: bool) -> Result<Started> {
        let session = match self {
            Self::Resident(path) => {
                let artefact = Artefact::read(&path)?;
                refuse_state(&artefact, &path)?;
                Session::resident(&artefact, config)?
            }
            Self::TensorRt { path, verified } => {
                let plan = if verified { Plan::read(path)? } else { Plan::read_unverified(path)? };
                let plan = if host_code { plan.allow_host_code() } else { plan };
                Engine::from_plan(&plan, config.device)?.session(config)?
            }
            Self::Engine(engine) => engine.session(config)?,
            Self::OrtCuda(path) => Session::start(
                Box::new(OrtBackend::cuda(&Model::read(path)?, config, CudaOptions::default())?),
                config,
            )?,
            Self::OrtCpu(path) => Session::start(Box::new(OrtBackend::cpu(&Model::read(path)?, config)?), config)?,
            Self::Own(backend) => Session::start(backend, config)?,
        };
        let (quarantined, failed, distrusted, outgoing) = (false, false, false, false);
        let mut started = Started { session, quarantined, failed, distrusted, outgoing, p99: None, reason: None };
        started.measure(config.warm_up.min(200))?;
        if started.session.backend() == BackendKind::Resident {
            // What starts next allocates and loads modules, which would wait for its turn.
            started.session.rest();
        }
        Ok(started)
    }
}

impl Started {
    /// What it takes when it answers in another's place: decides whether it can within a deadline.
    fn measure(&mut self, calls: usize) -> Result<()> {
        for shape in 0..self.session.signature().shapes.len() {
            let times = (0..calls).map(|_| self.session.time_one_call(shape));
            let mut times = times.collect::<Result<Vec<_>>>()?;
            times.sort_unstable();
            self.p99 = self.p99.max(times.get(times.len().saturating_sub(1) * 99 / 100).copied());
        }
        Ok(())
    }

    fn usable(&self) -> bool {
        !self.quarantined && !self.failed && !self.outgoing
    }

    /// Whether what it was asked before is still to be had of it.
    #[inline]
    fn believed(&self) -> bool {
        !self.quarantined && !self.distrusted
    }
}

fn same_interface(first: &Session, other: &Session, operation: &str) -> Result<()> {
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
    Err(Error::new(ErrorKind::InvalidArgument, operation)
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

    /// From here on every call is counted, for another thread to read, whichever backend answers: what it returned, how
    /// long it took, and why a backend was left. The same counters each time; a successor goes on with them.
    pub fn counters(&mut self) -> Arc<Counters> {
        let counters = Arc::clone(self.observers.counters.get_or_insert_with(Counters::new));
        self.share_observers();
        counters
    }

    /// As [`Session::journal_to`], whichever backend answers; a successor goes on with it. A call that one backend failed to
    /// answer and another answered is there twice, under the same tag.
    ///
    /// # Errors
    /// As [`Session::journal_to`].
    pub fn journal_to(&mut self, path: impl AsRef<Path>, config: &JournalConfig) -> Result<Journal> {
        let (journal, writer) = Journal::start(path.as_ref(), self.session().signature(), config)?;
        self.observers.journal = Some(writer);
        self.share_observers();
        Ok(journal)
    }

    /// Has every session tell the same.
    fn share_observers(&mut self) {
        for entry in &mut self.entries {
            entry.session.observe(self.observers.share());
        }
        self.tell_active();
    }

    fn tell_active(&self) {
        if let Some(counters) = &self.observers.counters {
            counters.active(self.active(), self.session().engine_id());
        }
    }

    /// The backends that stand by after the active one.
    #[must_use]
    pub fn standing_by(&self) -> Vec<BackendKind> {
        let later = self.entries.iter().skip(self.active + 1);
        later.filter(|entry| entry.usable()).map(|entry| entry.session.backend()).collect()
    }

    /// Goes back to the first backend that still can, after failures that left CUDA alive, and says which one that is.
    ///
    /// # Errors
    /// Nothing has changed, and why: the reason for which the backends ahead of the active one were quarantined, which only a
    /// restart of the process brings back; [`ErrorKind::Unavailable`] if none is left at all.
    pub fn rearm(&mut self) -> Result<BackendKind> {
        let before = self.active;
        self.entries.iter_mut().for_each(|entry| (entry.failed, entry.distrusted) = (false, false));
        for entry in &mut self.entries {
            // A kernel that has ended with an error does not come back.
            if let Some(error) = entry.session.resident_failure() {
                entry.distrusted = error.kind() == ErrorKind::WrongAnswer;
                (entry.failed, entry.reason) = (true, Some(error));
            }
        }
        let first = self.entries.iter().position(Started::usable).ok_or(ErrorKind::Unavailable)?;
        self.make_active(first);
        match self.entries[..first].iter().find_map(|entry| entry.reason.clone()) {
            Some(reason) if first == before => Err(reason.and_advice("restart the process to bring this backend back")),
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
        let answer = self.wait(ticket, output);
        if answer.is_err() {
            // Nobody else has the ticket; most errors have ended the call already.
            let _ = self.give_up(ticket);
        }
        answer
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
        self.check_usable()?;
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
        loop {
            self.check_usable()?;
            match self.entries[self.active].session.submit_window_tagged(symbol, tag) {
                Err(error) if ends_backend(&error) => self.retire(self.active, error),
                other => return other,
            }
        }
    }

    /// As [`Session::keep_warm`], of the backend that answers. Every GPU backend that is spared for later stays cold.
    ///
    /// # Errors
    /// As [`Session::keep_warm`].
    pub fn keep_warm(&mut self) -> Result<()> {
        self.entries[self.active].session.keep_warm()
    }

    /// As [`Session::rest`], of the backend that answers.
    pub fn rest(&mut self) {
        self.entries[self.active].session.rest();
    }

    /// As [`Session::give_up`].
    ///
    /// # Errors
    /// As [`Session::give_up`].
    pub fn give_up(&mut self, ticket: Ticket) -> Result<()> {
        let entry = self.entry_of(ticket)?;
        self.entries[entry].session.give_up(ticket)
    }

    /// As [`Session::poll`], and when the backend has failed meanwhile, the next one's answer.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    #[inline]
    pub fn poll<T: Element>(&mut self, ticket: Ticket, output: &mut [T]) -> Result<Option<Answer>> {
        self.poll_into(ticket, |outputs| outputs.copy(0, output))
    }

    /// As [`Session::poll_into`], and when the backend has failed meanwhile, the next one's answer.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    #[inline]
    pub fn poll_into(
        &mut self,
        ticket: Ticket,
        mut read: impl FnMut(&Outputs<'_>) -> Result<()>,
    ) -> Result<Option<Answer>> {
        let entry = self.entry_of(ticket)?;
        if self.entries[entry].believed() {
            match self.entries[entry].session.poll_into(ticket, &mut read) {
                Err(error) if ends_backend(&error) || error.kind() == ErrorKind::DeadlineMissed => {
                    self.retire(entry, error);
                }
                other => return other,
            }
        }
        self.rescue(entry, ticket, None, read).map(Some)
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
        if self.entries[entry].believed() {
            match self.entries[entry].session.wait_into(ticket, &mut read) {
                Err(error) if ends_backend(&error) || error.kind() == ErrorKind::DeadlineMissed => {
                    self.retire(entry, error);
                }
                other => return other,
            }
        }
        self.rescue(entry, ticket, None, read)
    }

    /// As [`Session::wait_until`]; when the backend fails, or its answer has not come by the last moment at which a CPU
    /// that stands by can still answer before `deadline`, the answer is that one's.
    ///
    /// # Errors
    /// As [`Session::wait_until`]; [`ErrorKind::Unavailable`], in time, when no backend left can answer by then.
    #[inline]
    pub fn wait_until<T: Element>(&mut self, ticket: Ticket, deadline: Instant, output: &mut [T]) -> Result<Answer> {
        self.wait_until_into(ticket, deadline, |outputs| outputs.copy(0, output))
    }

    /// As [`wait_until`](Self::wait_until), for several outputs: `read` takes what it wants of them.
    ///
    /// # Errors
    /// As [`wait_until`](Self::wait_until).
    #[inline]
    pub fn wait_until_into(
        &mut self,
        ticket: Ticket,
        deadline: Instant,
        mut read: impl FnMut(&Outputs<'_>) -> Result<()>,
    ) -> Result<Answer> {
        let entry = self.entry_of(ticket)?;
        if self.entries[entry].believed() {
            if let Some((cpu, last_moment)) = self.stand_in(entry, deadline)
                && !self.entries[entry].session.is_done_by(ticket, last_moment)?
            {
                return self.hedge(entry, cpu, ticket, deadline, read);
            }
            match self.entries[entry].session.wait_until_into(ticket, deadline, &mut read) {
                Err(error) if ends_backend(&error) => self.retire(entry, error),
                other => return other,
            }
        }
        self.rescue(entry, ticket, Some(deadline), read)
    }

    fn entry_of(&self, ticket: Ticket) -> Result<usize> {
        let of = self.entries.iter().position(|entry| entry.session.issued(ticket));
        of.ok_or_else(|| ErrorKind::StaleTicket.into())
    }

    /// Whether the active backend can be asked. One whose call was given up long ago and has still not come back will
    /// not answer another.
    #[inline]
    fn check_usable(&mut self) -> Result<()> {
        let active = &self.entries[self.active];
        if active.usable() && active.session.is_stuck() {
            self.retire(self.active, ErrorKind::DeadlineMissed.into());
        }
        self.heed_alarm();
        if self.entries[self.active].usable() { Ok(()) } else { Err(ErrorKind::Unavailable.into()) }
    }

    /// Asks no GPU any more that has reported its own end.
    #[inline]
    fn heed_alarm(&mut self) {
        if let Some(counters) = &self.observers.counters
            && let Err(error) = counters.check_alarm()
            && self.entries[self.active].usable()
            && self.session().backend().on_gpu()
        {
            self.retire(self.active, error);
        }
    }

    /// The CPU that can answer in the place of a GPU, and the last moment at which it can before `deadline`.
    #[inline]
    fn stand_in(&self, entry: usize, deadline: Instant) -> Option<(usize, Instant)> {
        if entry != self.active || !self.entries[entry].session.backend().on_gpu() {
            return None;
        }
        let later = self.entries.iter().enumerate().skip(entry + 1);
        let (cpu, p99) = later
            .filter(|(_, other)| other.usable() && !other.session.backend().on_gpu())
            .find_map(|(index, other)| Some((index, other.p99?)))?;
        let last_moment = deadline.checked_sub(p99)?;
        (last_moment > Instant::now()).then_some((cpu, last_moment))
    }

    /// Answers one call from the CPU; the GPU's answer is discarded when it comes.
    #[cold]
    fn hedge(
        &mut self,
        late: usize,
        cpu: usize,
        ticket: Ticket,
        deadline: Instant,
        read: impl FnMut(&Outputs<'_>) -> Result<()>,
    ) -> Result<Answer> {
        let [late, cpu] = self.entries.get_disjoint_mut([late, cpu]).map_err(|_| ErrorKind::Unavailable)?;
        let (input, origin) = late.session.asked_input(ticket)?;
        let stand_in = match input {
            AskedInput::Window(moment) => cpu.session.submit_window_of(&late.session, moment, origin),
            AskedInput::Slot { memory, shape } => cpu.session.submit_copy(memory, shape, origin),
        };
        late.session.answered_elsewhere(ticket);
        cpu.session.wait_until_into(stand_in?, deadline, read)
    }

    /// Takes `entry` out of the chain, every other GPU backend with it if CUDA is finished, and makes the next one
    /// active, if there is one.
    #[cold]
    fn retire(&mut self, entry: usize, reason: Error) {
        let on_gpu = self.entries[entry].session.backend().on_gpu();
        // Still computing after the limit: whatever holds it may hold every other call to the driver as well.
        let finished = reason.is_sticky() || (on_gpu && reason.kind() == ErrorKind::DeadlineMissed);
        if let Some(counters) = self.observers.counters.as_ref().filter(|_| self.entries[entry].usable()) {
            counters.fell_back(&reason);
        }
        for (index, other) in self.entries.iter_mut().enumerate() {
            let backend = other.session.backend();
            let ends = index == entry || (finished && backend.on_gpu());
            // One that has failed before can still turn out to be lost.
            if !ends || other.quarantined || (other.failed && !finished) {
                continue;
            }
            other.failed = true;
            other.distrusted = index == entry && reason.kind() == ErrorKind::WrongAnswer;
            if finished {
                other.quarantined = true;
                other.reason = Some(reason.clone());
                other.session.quarantine();
            }
            if !other.outgoing {
                self.passed_over.push(PassedOver { backend, reason: reason.clone(), restart_helps: true });
            }
        }
        if let Some(next) = self.entries.iter().position(Started::usable) {
            self.make_active(next);
        }
    }

    fn make_active(&mut self, next: usize) {
        if next != self.active {
            let windows = self.entries[self.active].session.take_windows();
            self.entries[next].session.put_windows(windows);
            self.active = next;
            self.tell_active();
        }
    }

    /// Whether the active backend can be expected to answer before `deadline`.
    fn check_in_time(&self, deadline: Option<Instant>) -> Result<()> {
        let Some(deadline) = deadline else { return Ok(()) };
        let left = deadline.saturating_duration_since(Instant::now());
        let fits = self.entries[self.active].p99.is_some_and(|p99| p99 <= left);
        if fits { Ok(()) } else { Err(ErrorKind::Unavailable.into()) }
    }

    /// Answers a failed entry's call from the active one, and from the next if that fails as well.
    #[cold]
    fn rescue(
        &mut self,
        failed: usize,
        ticket: Ticket,
        deadline: Option<Instant>,
        mut read: impl FnMut(&Outputs<'_>) -> Result<()>,
    ) -> Result<Answer> {
        loop {
            self.check_in_time(deadline)?;
            let rescued = self.resubmit(failed, Asked::Ticket(ticket))?;
            let session = &mut self.entries[self.active].session;
            let answer = match deadline {
                Some(deadline) => session.wait_until_into(rescued, deadline, &mut read),
                None => session.wait_into(rescued, &mut read),
            };
            match answer {
                Err(error) if ends_backend(&error) => self.retire(self.active, error),
                other => {
                    self.entries[failed].session.answered_elsewhere(ticket);
                    return other;
                }
            }
        }
    }

    /// Starts a failed entry's call on the active one, or on the first after it that takes it.
    fn resubmit(&mut self, failed: usize, asked: Asked) -> Result<Ticket> {
        loop {
            if !self.entries[self.active].usable() {
                return Err(ErrorKind::Unavailable.into());
            }
            let pair = self.entries.get_disjoint_mut([failed, self.active]);
            let [from, active] = pair.map_err(|_| ErrorKind::Unavailable)?;
            let (input, origin) = match asked {
                Asked::Ticket(ticket) => from.session.asked_input(ticket)?,
                Asked::Draft(draft) => from.session.drafted_input(draft),
            };
            let started = match input {
                AskedInput::Window(moment) => active.session.submit_moment(moment, origin),
                AskedInput::Slot { memory, shape } => active.session.submit_copy(memory, shape, origin),
            };
            match started {
                Err(error) if ends_backend(&error) => self.retire(self.active, error),
                other => return other,
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Asked {
    Ticket(Ticket),
    Draft(Draft),
}

/// Whether the backend cannot be asked again.
fn ends_backend(error: &Error) -> bool {
    use ErrorKind::{Cuda, DeviceLost, Execution, OnnxRuntime, OutOfMemory, WrongAnswer};
    matches!(error.kind(), DeviceLost { .. } | Cuda { .. } | OutOfMemory | Execution | OnnxRuntime | WrongAnswer)
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

    /// As [`InputSlot::as_mut_slice`](crate::InputSlot::as_mut_slice): `fill` gets the memory itself. `None` if `T` is
    /// not its type.
    #[inline]
    pub fn fill<T: Element>(&mut self, fill: impl FnOnce(&mut [T])) -> Option<()> {
        self.with_slot(|slot| slot.as_mut_slice::<T>().map(fill).ok_or_else(|| ErrorKind::UnknownTensor.into())).ok()
    }

    /// A number of the caller's that comes back with the answer.
    #[inline]
    #[must_use]
    pub fn tag(mut self, tag: u64) -> Self {
        self.draft = self.draft.tagged(tag);
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
                predictor.retire(active, error);
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

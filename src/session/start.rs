//! Starting a session and asking what it is.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::{Observers, Origin, Session, Slot, SlotState, after};
use crate::backend::resident::Resident;
use crate::backend::{Backend, BackendKind, CallShape, Signature};
use crate::config::SessionConfig;
use crate::error::Result;
use crate::fork;
use crate::logging::{self, say};
use crate::normalize::Normalizer;
use crate::nvtx;
use crate::resident::Artefact;
use crate::resident::turn::Sums;
use crate::window::Windows;

impl Session {
    /// Loads the plan in `path`, with the sidecar beside it, and starts a session on it: GPU 0, defaults for the rest.
    ///
    /// # Errors
    /// Those of [`Engine::load`](crate::Engine::load) and [`Engine::session`](crate::Engine::session).
    pub fn load(path: impl AsRef<std::path::Path>) -> Result<Self> {
        crate::Engine::load(path)?.session(&SessionConfig::default())
    }

    /// Loads the resident engine in `path`, with the sidecar beside it, and starts a session on it.
    ///
    /// # Errors
    /// Those of [`Artefact::read`] and [`resident`](Self::resident).
    pub fn load_resident(path: impl AsRef<std::path::Path>, config: &SessionConfig) -> Result<Self> {
        Self::resident(&Artefact::read(path)?, config)
    }

    /// Starts a session on a resident engine: its kernel is on the GPU until the session is dropped or told to
    /// [`rest`](Self::rest).
    ///
    /// # Errors
    /// [`ErrorKind::NoGpu`](crate::ErrorKind::NoGpu); [`ErrorKind::PlanGpu`](crate::ErrorKind::PlanGpu) for an artefact of
    /// another GPU; [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) where there is no room for it, or another
    /// process computes on the GPU; [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) for a configuration that
    /// does not fit it; those of CUDA.
    pub fn resident(artefact: &Artefact, config: &SessionConfig) -> Result<Self> {
        let number = Self::number();
        let _about = logging::about_session(artefact.sha256(), number);
        Self::start_numbered(number, Box::new(Resident::new(artefact, config)?), config)
    }

    /// Starts a session on `backend`: makes the windows and warms up every slot with every shape.
    ///
    /// # Errors
    /// Those of the backend during warm-up, and [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) for
    /// windows that do not fit the input.
    pub fn start(backend: Box<dyn Backend>, config: &SessionConfig) -> Result<Self> {
        Self::start_numbered(Self::number(), backend, config)
    }

    /// No other session of the process has it.
    pub(crate) fn number() -> u32 {
        static SESSIONS: AtomicU32 = AtomicU32::new(0);
        // Relaxed: only the numbers' being different matters.
        SESSIONS.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn start_numbered(id: u32, backend: Box<dyn Backend>, config: &SessionConfig) -> Result<Self> {
        let _range = nvtx::range(c"tickrt start");
        let (_about, started) = (logging::about_session(backend.engine_id(), id), Instant::now());
        let signature = backend.signature();
        let windows = match &config.windows {
            Some(windows) => Some(Windows::new(windows, &signature.shapes[0].inputs[0])?),
            None => None,
        };
        let (state, submitted) = (SlotState::Free, Instant::now());
        let free = Slot { state, shape: 0, words: 0, tag: 0, submitted, moment: None, taken: None };
        let mut session = Self {
            slots: vec![free; backend.slots().len()].into(),
            depth: config.depth.min(backend.slots().len()),
            words: signature.shapes.iter().map(CallShape::words).collect(),
            written: vec![0; backend.slots().len() * signature.inputs.len()].into(),
            next: 0,
            sequence: backend.calls_before(),
            id,
            ahead: None,
            launches_ahead: false,
            looks_at_input: (backend.carries_state() || !backend.refuses_non_finite())
                && signature.shapes.iter().flat_map(|shape| &shape.inputs).any(Normalizer::is_picky),
            windows,
            device_symbol: None,
            carries_state: backend.carries_state(),
            begins_anew: true,
            wait_limit: config.wait_limit,
            wait_strategy: config.wait_strategy,
            check_finite: config.check_finite,
            output_range: config.output_range,
            observers: Observers::default(),
            generation: fork::generation(),
            backend,
        };
        session.warm_up(config.warm_up)?;
        session.begins_anew = true;
        session.begin_launching_ahead();
        let (backend, description) = (session.backend(), session.description());
        say!(info, "started on {backend}: {description}, {} ms with warm-up", started.elapsed().as_millis());
        if let Some(why) = session.why_no_graph() {
            say!(debug, "calls do not run from a CUDA graph: {why}");
        }
        Ok(session)
    }

    /// Every slot with every shape once, and `calls` calls at least. What zeros make the network answer is no matter.
    fn warm_up(&mut self, calls: usize) -> Result<()> {
        const FIRST_CALL: Duration = Duration::from_secs(10); // may load kernels
        let shapes = self.backend.signature().shapes.len();
        let calls = if calls == 0 { 0 } else { calls.max(shapes * self.slots.len()) };
        for call in 0..calls {
            // A device that takes calls in order has one shape, and the slot of the next number.
            let in_order = self.backend.takes_calls_in_order();
            let slot = if in_order { self.sequence as usize } else { call } % self.slots.len();
            self.try_slot(slot, call / self.slots.len() % shapes, FIRST_CALL)?;
        }
        Ok(())
    }

    /// One call on whatever lies in a free slot, its answer dropped; how long it took.
    pub(super) fn try_slot(&mut self, index: usize, shape: usize, limit: Duration) -> Result<Duration> {
        let submitted = Instant::now();
        let ticket = self.launch(index, shape, Origin { tag: 0, submitted }, None)?;
        if self.spin(index, ticket.sequence, after(limit))?.is_none() {
            self.explain_silence(index, ticket.sequence)?;
        }
        self.slots[index].state = SlotState::Free;
        Ok(submitted.elapsed())
    }

    /// Which backend it runs on.
    #[must_use]
    pub fn backend(&self) -> BackendKind {
        self.backend.kind()
    }

    /// SHA-256 of the plan or ONNX model that it runs.
    #[must_use]
    pub fn engine(&self) -> [u8; 32] {
        self.backend.engine_id()
    }

    /// Library, version and device, for people.
    #[must_use]
    pub fn description(&self) -> &str {
        self.backend.description()
    }

    /// The network's inputs, as they are handed over, and its outputs, as they are delivered.
    #[must_use]
    pub fn signature(&self) -> &Signature {
        self.backend.signature()
    }

    /// Whether calls run from a captured CUDA graph.
    #[must_use]
    pub fn is_graph(&self) -> bool {
        self.backend.graph().is_ok()
    }

    /// Why calls do not run from a captured CUDA graph; `None` if they do.
    #[must_use]
    pub fn why_no_graph(&self) -> Option<&str> {
        self.backend.graph().err()
    }

    /// Slots in the ring.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Rows of a rolling window; `None` without windows.
    #[must_use]
    pub fn window_rows(&self) -> Option<usize> {
        self.windows.as_ref().map(Windows::rows)
    }

    /// What the turns of a resident engine that have ended add up to, as `tickrt bench` shows it; `None` of any other backend.
    #[doc(hidden)]
    #[must_use]
    pub fn turns(&self) -> Option<Sums> {
        self.backend.turns()
    }

    /// For tests: where a resident engine's weights lie on the GPU, and their bytes.
    #[doc(hidden)]
    #[must_use]
    pub fn weights(&self) -> Option<(u64, usize)> {
        self.backend.weights()
    }

    /// Bytes of device memory that the backend holds.
    #[must_use]
    pub fn device_memory(&self) -> u64 {
        self.backend.device_memory()
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("backend", &self.backend.kind())
            .field("description", &self.backend.description())
            .field("depth", &self.depth)
            .finish_non_exhaustive()
    }
}

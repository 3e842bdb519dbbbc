//! A plan, checked and handed to TensorRT.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crate::backend::tensorrt::{LayerTimes, TensorRt};
use crate::config::SessionConfig;
use crate::device::Device;
use crate::error::Result;
use crate::library::{Library, Preference, Version};
use crate::logging::{self, say};
use crate::native::{EngineFacts, NativeEngine};
use crate::normalize::Normalization;
use crate::plan::{Plan, Sidecar, Target};
use crate::session::Session;
use crate::tensor::TensorInfo;

/// A deserialised engine on one GPU (`nvinfer1::ICudaEngine`). Clones share it; any number of sessions, each on its own
/// thread, run on it and keep it alive.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

/// TensorRT's engine goes before the device that it lives on.
struct Inner {
    native: NativeEngine,
    facts: EngineFacts,
    tensors: Vec<TensorInfo>,
    sidecar: Option<Sidecar>,
    id: [u8; 32],
    device_memory: u64,
    library: Library,
    device: Arc<Device>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The last clone may go on a thread that has another GPU's context, or none.
        let _ = self.device.bind();
    }
}

impl Engine {
    /// Loads the plan in `path`, with the sidecar beside it, on GPU 0.
    ///
    /// # Errors
    /// Those of [`Plan::read`] and [`from_plan`](Self::from_plan).
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        Self::load_on(path, 0)
    }

    /// As [`load`](Self::load), on GPU number `device`.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_on(path: impl AsRef<Path>, device: usize) -> Result<Self> {
        Self::from_plan(&Plan::read(path)?, device)
    }

    /// Loads a plan that has no sidecar, such as trtexec's: only its own header is checked, and the caller vouches for
    /// the rest. Damaged plans have crashed TensorRT.
    ///
    /// # Errors
    /// Those of [`Plan::read_unverified`] and [`from_plan`](Self::from_plan).
    pub fn load_unverified(path: impl AsRef<Path>) -> Result<Self> {
        Self::load_unverified_on(path, 0)
    }

    /// As [`load_unverified`](Self::load_unverified), on GPU number `device`.
    ///
    /// # Errors
    /// As [`load_unverified`](Self::load_unverified).
    pub fn load_unverified_on(path: impl AsRef<Path>, device: usize) -> Result<Self> {
        Self::from_plan(&Plan::read_unverified(path)?, device)
    }

    /// Opens the library that the plan needs and GPU number `device`, checks that plan, library and GPU fit, and
    /// deserialises.
    ///
    /// # Errors
    /// [`Untrusted`](crate::ErrorKind::Untrusted) for a plan that is not signed where signatures are enforced, or that
    /// carries host code without [`Plan::allow_host_code`];
    /// [`TensorRtMissing`](crate::ErrorKind::TensorRtMissing), [`NoGpu`](crate::ErrorKind::NoGpu), those of
    /// [`Plan::check`], and [`PlanRefused`](crate::ErrorKind::PlanRefused) or
    /// [`OutOfMemory`](crate::ErrorKind::OutOfMemory) from TensorRT itself.
    pub fn from_plan(plan: &Plan, device: usize) -> Result<Self> {
        let (_about, started) = (logging::about_engine(plan.sha256()), Instant::now());
        let allow_host_code = plan.check_trust()?;
        let library = library_for(plan)?;
        plan.check(&Target {
            flavour: library.flavour(),
            version: library.version(),
            compute_capability: None,
            gpu_name: None,
        })?;
        let device = Device::open(device)?;
        plan.check(&Target {
            flavour: library.flavour(),
            version: library.version(),
            compute_capability: Some(device.compute_capability()),
            gpu_name: Some(device.name().to_owned()),
        })?;
        let free_before = device.memory()?.free;
        let _beside = device.enter()?;
        let native = library.native().deserialize(plan.bytes(), allow_host_code).map_err(|error| {
            let asked = format!("a plan of {} bytes was to be loaded: lower its precision or size", plan.bytes().len());
            device.explain_memory(error, &asked)
        })?;
        let facts = native.facts()?;
        let tensors = facts.tensors.iter().map(|tensor| tensor.info.clone()).collect();
        let inner = Inner {
            native,
            facts,
            tensors,
            sidecar: plan.sidecar().cloned(),
            id: plan.sha256(),
            device_memory: free_before.saturating_sub(device.memory()?.free),
            library,
            device,
        };
        let (library, gpu, ms) = (inner.library.version(), inner.device.name(), started.elapsed().as_millis());
        say!(info, "loaded a plan of {} layers with {library} on {gpu} in {ms} ms", inner.facts.layers);
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Starts a session: allocates everything, captures the graphs, warms up.
    ///
    /// # Errors
    /// [`OutOfMemory`](crate::ErrorKind::OutOfMemory), [`Shape`](crate::ErrorKind::Shape),
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for a configuration that does not fit the network, and
    /// those of CUDA and TensorRT.
    pub fn session(&self, config: &SessionConfig) -> Result<Session> {
        let mut config = config.clone();
        config.normalizations.get_or_insert_with(|| self.normalizations().to_vec());
        // Before the backend: what TensorRT says of a session comes while its backend is made.
        let number = Session::number();
        let _about = logging::about_session(self.id(), number);
        Session::start_numbered(number, Box::new(TensorRt::new(self, &config)?), &config)
    }

    /// What each layer takes on the GPU in `calls` calls after some to warm up, in the order of execution: `IProfiler`. Without
    /// a graph, one call after the other, on whatever lies in the input; the layers' times add up to more than a call takes,
    /// for TensorRT waits between them. The plan names its layers as its profiling verbosity was at build time.
    ///
    /// # Errors
    /// As [`session`](Self::session).
    pub fn profile_layers(&self, config: &SessionConfig, calls: usize) -> Result<Vec<LayerTimes>> {
        let mut config = config.clone();
        config.normalizations.get_or_insert_with(|| self.normalizations().to_vec());
        let _about = logging::about_engine(self.id());
        TensorRt::new(self, &config)?.profile_layers(calls)
    }

    /// Inputs and outputs.
    #[must_use]
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.inner.tensors
    }

    /// The normalisation that its sidecar carries, by input.
    #[must_use]
    pub fn normalizations(&self) -> &[Normalization] {
        self.inner.sidecar.as_ref().map_or(&[], |sidecar| &sidecar.normalizations)
    }

    /// What it was built from and for; `None` for a plan without a sidecar.
    #[must_use]
    pub fn sidecar(&self) -> Option<&Sidecar> {
        self.inner.sidecar.as_ref()
    }

    /// SHA-256 of the plan.
    #[must_use]
    pub fn id(&self) -> [u8; 32] {
        self.inner.id
    }

    /// The library that runs it.
    #[must_use]
    pub fn library_version(&self) -> Version {
        self.inner.library.version()
    }

    /// The GPU that it lives on.
    #[must_use]
    pub fn device(&self) -> &Arc<Device> {
        &self.inner.device
    }

    /// Number of layers after TensorRT's fusion.
    #[must_use]
    pub fn layer_count(&self) -> u32 {
        self.inner.facts.layers
    }

    /// Bytes of device memory that the engine took when it was loaded: weights and code, without any session's.
    #[must_use]
    pub fn device_memory(&self) -> u64 {
        self.inner.device_memory
    }

    /// Bytes of activation memory a session (`ICudaEngine::getDeviceMemorySize`).
    #[must_use]
    pub fn activation_bytes(&self) -> u64 {
        self.inner.facts.device_memory_bytes
    }

    /// TensorRT's own description of the layers as JSON (`IEngineInspector`); how much it tells depends on the profiling
    /// verbosity at build time.
    #[must_use]
    pub fn layers_json(&self) -> String {
        self.inner.native.layers_json()
    }

    pub(crate) fn facts(&self) -> &EngineFacts {
        &self.inner.facts
    }

    pub(crate) fn native(&self) -> &NativeEngine {
        &self.inner.native
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("library", &self.library_version().to_string())
            .field("gpu", &self.device().name())
            .field("tensors", &self.tensors())
            .finish_non_exhaustive()
    }
}

/// The library of the plan's own flavour; of a newer one where the plan says that it is version compatible.
fn library_for(plan: &Plan) -> Result<Library> {
    let own = Library::open_any(&Preference::Flavour(plan.flavour()));
    let compatible = plan.sidecar().is_some_and(|sidecar| sidecar.version_compatible);
    match own {
        Err(_) if compatible => Library::open_any(&Preference::Any).or(own),
        own => own,
    }
}

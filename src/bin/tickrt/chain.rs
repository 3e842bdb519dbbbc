//! Who answers: the flags that name files and a chain, and what is started from them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tickrt::backend::ort::{CudaOptions, OrtBackend};
use tickrt::onnx::Model;
use tickrt::resident::Artefact;
use tickrt::resident::artefact::Facts;
use tickrt::{
    BackendKind, Counters, Engine, ErrorKind, Metrics, Normalization, Plan, Predictor, ResidentConfig, Session,
    SessionConfig, Shapes, Sidecar,
};

use crate::args;
use crate::exit::{self, Failure, Outcome};

/// Flags that every subcommand takes which asks a network.
#[derive(clap::Args, Debug, Clone, Default)]
pub struct ChainArgs {
    /// The engine, for TensorRT
    #[arg(long, visible_alias = "loadEngine", value_name = "FILE")]
    pub engine: Option<PathBuf>,
    /// The resident engine, built by `build --resident`
    #[arg(long, value_name = "FILE")]
    pub resident: Option<PathBuf>,
    /// Calls of the resident engine go into the GPU's memory, through its BAR1: sooner, where the driver's Vulkan part is there
    #[arg(long = "resident-bar1", alias = "resident_bar1", requires = "resident")]
    pub resident_bar1: bool,
    /// The model, for ONNX Runtime
    #[arg(long, value_name = "FILE")]
    pub onnx: Option<PathBuf>,
    /// Who is asked, in this order: resident, tensorrt, ort-cuda, ort-cpu
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = args::backend)]
    pub chain: Vec<BackendKind>,
    /// Load an engine that has no sidecar, such as trtexec's: TensorRT runs code from it, so trust the file
    #[arg(long, alias = "allow_unverified")]
    pub allow_unverified: bool,
    /// Let an engine built with --versionCompatible run the code for the host that it carries
    #[arg(long, alias = "allow_host_code")]
    pub allow_host_code: bool,
    /// A *.normalization.json for an input, instead of what the engine's sidecar says; may be given again
    #[arg(long, value_name = "FILE")]
    pub normalization: Vec<PathBuf>,
    /// The shapes of a call's dynamic inputs, as in0:1x3x8,in1:1x2
    #[arg(long, value_name = "SHAPES", value_parser = args::shapes)]
    pub shapes: Option<Shapes>,
    /// Which GPU, in CUDA's order
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub device: usize,
    /// Threads that ONNX Runtime computes with on a CPU; 0 leaves it to ONNX Runtime
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub threads: usize,
}

impl ChainArgs {
    /// The chain that was named, or else the one that the files allow.
    pub fn kinds(&self) -> Outcome<Vec<BackendKind>> {
        let mut kinds = self.chain.clone();
        if kinds.is_empty() {
            kinds.extend(self.resident.as_ref().map(|_| BackendKind::Resident));
            kinds.extend(self.engine.as_ref().map(|_| BackendKind::TensorRt));
            kinds.extend(self.onnx.iter().flat_map(|_| [BackendKind::OrtCuda, BackendKind::OrtCpu]));
        }
        let lacks =
            |flag: &str, kind: BackendKind| Err(Failure::usage(format!("the chain has {kind}: add {flag} FILE")));
        for (place, &kind) in kinds.iter().enumerate() {
            if kinds[..place].contains(&kind) {
                return Err(Failure::usage(format!("the chain has {kind} twice")));
            }
            match kind {
                BackendKind::Resident if self.resident.is_none() => return lacks("--resident", kind),
                BackendKind::TensorRt if self.engine.is_none() => return lacks("--engine", kind),
                BackendKind::OrtCuda | BackendKind::OrtCpu if self.onnx.is_none() => return lacks("--onnx", kind),
                _ => {}
            }
        }
        if kinds.is_empty() {
            return Err(Failure::usage(
                "no network is named: add --engine FILE, --onnx FILE, --resident FILE or several of them",
            ));
        }
        self.check_files(&kinds)?;
        Ok(kinds)
    }

    /// A file that is damaged is the user's mistake and ends the run, fallback or not; an environment that lacks
    /// something moves the chain on.
    fn check_files(&self, kinds: &[BackendKind]) -> Outcome {
        if kinds.contains(&BackendKind::Resident) {
            self.artefact()?;
        }
        if kinds.contains(&BackendKind::TensorRt) {
            let plan = self.plan()?;
            if let (Some(sidecar), Some(shapes)) = (plan.sidecar(), &self.shapes) {
                sidecar.check_shapes(shapes)?;
            }
        }
        if kinds.iter().any(|kind| matches!(kind, BackendKind::OrtCuda | BackendKind::OrtCpu)) {
            Model::read(self.onnx()?)?;
        }
        Ok(())
    }

    /// The resident engine, checked.
    pub fn artefact(&self) -> Outcome<Artefact> {
        let path = self.resident.as_ref().ok_or_else(|| Failure::usage("add --resident FILE"))?;
        Ok(Artefact::read(path)?)
    }

    /// The engine's plan, checked.
    pub fn plan(&self) -> Outcome<Plan> {
        let path = self.engine.as_ref().ok_or_else(|| Failure::usage("add --engine FILE"))?;
        let plan = if self.allow_unverified { Plan::read_unverified(path)? } else { Plan::read(path)? };
        Ok(if self.allow_host_code { plan.allow_host_code() } else { plan })
    }

    /// The sidecar of the engine, if an engine is named and has one.
    pub fn sidecar(&self) -> Outcome<Option<Sidecar>> {
        Ok(self.engine.as_ref().map(Sidecar::beside).transpose()?.flatten())
    }

    /// The sidecar of the resident engine, if one is named and has one.
    pub fn facts(&self) -> Outcome<Option<Facts>> {
        Ok(self.resident.as_ref().map(Facts::beside).transpose()?.flatten())
    }

    /// The model's path.
    pub fn onnx(&self) -> Outcome<&Path> {
        self.onnx.as_deref().ok_or_else(|| Failure::usage("add --onnx FILE"))
    }

    /// What sessions are made for: every backend gets the normalisation that was named, or the sidecar's.
    pub fn config(&self) -> Outcome<SessionConfig> {
        let normalizations = if self.normalization.is_empty() {
            match (self.sidecar()?, &self.resident) {
                (Some(sidecar), _) => sidecar.normalizations,
                (None, Some(_)) => self.facts()?.map_or_else(Vec::new, |facts| facts.normalizations()),
                (None, None) => {
                    self.offer_normalization();
                    Vec::new()
                }
            }
        } else {
            self.normalization.iter().map(Normalization::read).collect::<tickrt::Result<_>>()?
        };
        Ok(SessionConfig {
            normalizations: Some(normalizations),
            shapes: self.shapes.iter().cloned().collect(),
            device: self.device,
            cpu_threads: self.threads,
            wait_limit: Duration::from_secs(10),
            resident: ResidentConfig { bar1: self.resident_bar1, ..ResidentConfig::default() },
            ..SessionConfig::default()
        })
    }

    /// Without an engine there is no sidecar that names it, and the answers to raw samples are plausible nonsense.
    fn offer_normalization(&self) {
        let beside = self.onnx.as_ref().map(|onnx| onnx.with_extension("normalization.json"));
        if let Some(beside) = beside.filter(|beside| self.engine.is_none() && beside.exists()) {
            exit::note(format!(
                "the input is NOT normalised; to do that as the model was trained, add --normalization {}",
                beside.display()
            ));
        }
    }

    /// Starts the chain.
    pub fn predictor(&self, kinds: &[BackendKind], config: &SessionConfig) -> Outcome<Predictor> {
        let mut builder = Predictor::builder().config(config.clone());
        if self.allow_host_code {
            builder = builder.allow_host_code();
        }
        for kind in kinds {
            builder = match (kind, &self.engine, &self.onnx) {
                (BackendKind::Resident, ..) => match &self.resident {
                    Some(resident) => builder.resident(resident),
                    None => return Err(Failure::usage("add --resident FILE")),
                },
                (BackendKind::TensorRt, Some(engine), _) if self.allow_unverified => {
                    builder.tensorrt_unverified(engine)
                }
                (BackendKind::TensorRt, Some(engine), _) => builder.tensorrt(engine),
                (BackendKind::OrtCuda, _, Some(onnx)) => builder.ort_cuda(onnx),
                (BackendKind::OrtCpu, _, Some(onnx)) => builder.ort_cpu(onnx),
                _ => return Err(Failure::usage(format!("{kind} lacks its file"))),
            };
        }
        builder.build().map_err(|error| match kinds {
            // The reason itself says it better than "none of the chain's one entries could start".
            [only] if error.kind() == ErrorKind::NoBackend => {
                self.session(*only, config).err().unwrap_or_else(|| error.into())
            }
            _ => error.into(),
        })
    }

    /// Starts one backend by itself.
    pub fn session(&self, kind: BackendKind, config: &SessionConfig) -> Outcome<Session> {
        Ok(match kind {
            BackendKind::Resident => Session::resident(&self.artefact()?, config)?,
            BackendKind::TensorRt => Engine::from_plan(&self.plan()?, self.device)?.session(config)?,
            BackendKind::OrtCuda => {
                let backend = OrtBackend::cuda(&Model::read(self.onnx()?)?, config, CudaOptions::default())?;
                Session::start(Box::new(backend), config)?
            }
            _ => Session::start(Box::new(OrtBackend::cpu(&Model::read(self.onnx()?)?, config)?), config)?,
        })
    }
}

/// Serves what is counted, if that was asked for, until the returned value is dropped.
pub fn serve_metrics(
    address: Option<&str>,
    watched: Vec<(String, Arc<Counters>)>,
    device: usize,
) -> Outcome<Option<Metrics>> {
    let Some(address) = address else { return Ok(None) };
    let metrics = Metrics::serve(address, watched, device)?;
    exit::note(format!("metrics at http://{}/metrics", metrics.address()));
    if let Some(why) = metrics.why_no_gpu() {
        exit::note(format!("nothing of the GPU in the metrics: {why}"));
    }
    Ok(Some(metrics))
}

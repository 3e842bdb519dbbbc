//! One precision of one model: how it is brought about, its answers and its latency.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Instant;

use tickrt::backend::ort::OrtBackend;
use tickrt::backend::{Backend, Signature};
use tickrt::data::{Feed, Values};
use tickrt::onnx::{Keep, Model};
use tickrt::stats::Latencies;
use tickrt::{
    BuilderConfig, CalibrationMethod, ComputeCapabilities, Device, Engine, Flavour, Int8Mode, Library,
    OptimizationProfile, Plan, Precision, PrecisionConstraints, Ranges, Session, SessionConfig, Sidecar, observe,
};

use super::precision::PrecisionArgs;
use super::table::{Row, Speed};
use crate::calibration::CalibrationArgs;
use crate::chain::ChainArgs;
use crate::exit::{Failure, Outcome};
use crate::{answers, progress};

/// A row's precision, in the words of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Fp32,
    Tf32,
    Fp16,
    Bf16,
    Int8,
    /// What is not INT8 may be FP16.
    Int8Fp16,
    /// E4M3, always by nodes.
    Fp8,
}

const KINDS: [(Kind, &str); 7] = [
    (Kind::Fp32, "fp32"),
    (Kind::Tf32, "tf32"),
    (Kind::Fp16, "fp16"),
    (Kind::Bf16, "bf16"),
    (Kind::Int8, "int8"),
    (Kind::Int8Fp16, "int8+fp16"),
    (Kind::Fp8, "fp8"),
];

impl Kind {
    pub fn is_int8(self) -> bool {
        matches!(self, Self::Int8 | Self::Int8Fp16)
    }

    /// Whether it takes scales, and so a row for each method.
    pub fn is_calibrated(self) -> bool {
        self.is_int8() || self == Self::Fp8
    }

    /// Of one that is calibrated.
    pub fn without_data(self) -> Failure {
        Failure::usage(format!("--precision {self}: expected calibration data, got none; add --calib FILE"))
    }

    /// The flags that build it.
    pub fn flags(self) -> &'static str {
        match self {
            Self::Fp32 => "--noTF32",
            Self::Tf32 => "",
            Self::Fp16 => "--fp16",
            Self::Bf16 => "--bf16",
            Self::Int8 => "--int8",
            Self::Int8Fp16 => "--int8 --fp16",
            Self::Fp8 => "--fp8",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(KINDS.iter().find(|(kind, _)| kind == self).map_or("", |(_, name)| name))
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let sorted = if text == "fp16+int8" { "int8+fp16" } else { text };
        let known = KINDS.iter().find(|(_, name)| *name == sorted).map(|(kind, _)| *kind);
        known.ok_or_else(|| format!("`{text}` is none of fp32, tf32, fp16, bf16, int8, int8+fp16, fp8"))
    }
}

/// What becomes a row.
#[derive(Debug, Clone)]
pub struct Candidate {
    pub kind: Kind,
    /// Of INT8 that is calibrated.
    pub method: Option<CalibrationMethod>,
    pub mode: Int8Mode,
    /// Taken instead of building one.
    pub engine: Option<PathBuf>,
}

/// Where candidates run.
pub enum Place {
    /// On the GPU, built by this library.
    Gpu(Library),
    /// In ONNX Runtime on the CPU, because of this.
    Cpu(String),
}

/// A model, its samples, and where its candidates run.
pub struct Bench<'a> {
    pub model: &'a Model,
    pub place: Place,
    pub chain: &'a ChainArgs,
    calibration: &'a CalibrationArgs,
    strict: bool,
    timing_cache: Option<&'a PathBuf>,
    calls: usize,
    config: SessionConfig,
    feed: Option<Feed>,
    pub labels: Option<Vec<usize>>,
    /// FP32's answers.
    pub reference: Option<Values>,
    /// What they score, which `--max-drop` holds the others against.
    pub reference_score: f64,
    ranges: Option<Ranges>,
}

/// A candidate's answers, and what was measured.
pub struct Answered {
    pub scores: Values,
    pub speed: Option<Speed>,
    pub engine_bytes: u64,
    pub by: &'static str,
}

impl<'a> Bench<'a> {
    pub fn open(args: &'a PrecisionArgs, chain: &'a ChainArgs, model: &'a Model, cpu_asked: bool) -> Outcome<Self> {
        let preference = args.tensorrt.as_ref().map(|it| it.value.clone()).unwrap_or_default();
        let place = match (cpu_asked, Device::open(chain.device), Library::open_any(&preference)) {
            (true, ..) => Place::Cpu("as asked".to_owned()),
            (_, Err(error), _) | (_, _, Err(error)) => Place::Cpu(error.to_string()),
            (_, Ok(_), Ok(library)) => Place::Gpu(library),
        };
        // NaN is to be counted here, not to end the run.
        let config = SessionConfig { check_finite: false, ..chain.config()? };
        Ok(Self {
            model,
            place,
            chain,
            calibration: &args.calibration,
            strict: args.strict_types,
            timing_cache: args.timing_cache.as_ref(),
            calls: args.calls,
            config,
            feed: None,
            labels: None,
            reference: None,
            reference_score: 1.0,
            ranges: None,
        })
    }

    /// Samples a call.
    pub fn batch(&self) -> usize {
        let shape = self.config.shapes.first().and_then(|shapes| shapes.values().next());
        let first = self.model.inputs().first().and_then(|input| input.shape.first());
        let batch = shape.and_then(|shape| shape.first()).or(first);
        batch.and_then(|&batch| usize::try_from(batch).ok()).filter(|&batch| batch > 0).unwrap_or(1)
    }

    /// What a caller hands over, which no precision changes.
    pub fn signature(&self) -> Outcome<Signature> {
        // No session: to warm up a large batch on a CPU takes minutes.
        Ok(OrtBackend::cpu(self.model, &self.config)?.signature().clone())
    }

    pub fn give(&mut self, feed: Feed, labels: Option<Vec<usize>>) -> Outcome {
        if feed.calls() == 0 {
            return Err(Failure::usage("--input: expected at least one sample, got none"));
        }
        (self.feed, self.labels) = (Some(feed), labels);
        Ok(())
    }

    /// Looks at a candidate. What cannot be built is a row that says why; only a damaged file or a lack of data ends all.
    pub fn row(&mut self, candidate: &Candidate, keep: &[String]) -> Outcome<Row> {
        if candidate.kind == Kind::Tf32 && matches!(self.place, Place::Cpu(_)) {
            return Ok(Row::without(candidate, "tf32 exists on a GPU alone"));
        }
        if matches!(self.place, Place::Cpu(_)) && candidate.kind == Kind::Fp8 {
            return Ok(Row::without(candidate, "fp8 needs a GPU: ONNX Runtime on a CPU takes its nodes for INT8's"));
        }
        if candidate.kind == Kind::Bf16 && matches!(self.place, Place::Cpu(_)) {
            return Ok(Row::without(candidate, "ONNX Runtime has no bf16 on a CPU"));
        }
        eprintln!("{candidate}");
        match self.answer(candidate, keep) {
            Ok(answered) => {
                let first = candidate.kind == Kind::Fp32 && self.reference.is_none();
                if first {
                    self.reference = Some(answered.scores.clone());
                }
                let row = Row::new(self, candidate, keep, &answered);
                if let (true, Some(found)) = (first, &row.found) {
                    self.reference_score = found.score;
                }
                Ok(row)
            }
            Err(error) if candidate.kind == Kind::Fp32 => Err(error),
            Err(error) => Ok(Row::without(candidate, &error.to_string())),
        }
    }

    fn answer(&mut self, candidate: &Candidate, keep: &[String]) -> Outcome<Answered> {
        match &self.place {
            Place::Cpu(_) => self.answer_on_cpu(candidate, keep),
            Place::Gpu(library) => {
                let library = library.clone();
                self.answer_on_gpu(candidate, keep, &library)
            }
        }
    }

    fn answer_on_cpu(&mut self, candidate: &Candidate, keep: &[String]) -> Outcome<Answered> {
        if candidate.engine.is_some() {
            return Err(Failure::environment("an engine runs on a GPU alone"));
        }
        if candidate.mode == Int8Mode::Native {
            return Err(Failure::environment("TensorRT's own calibrators need a GPU"));
        }
        let keep = Keep::new(self.model, keep)?;
        let lowered = match candidate.kind {
            Kind::Fp32 | Kind::Tf32 | Kind::Fp8 => None,
            Kind::Bf16 => Some(self.model.to_half(Precision::Bf16, &keep)?),
            Kind::Fp16 => Some(self.model.to_half(Precision::Fp16, &keep)?),
            Kind::Int8 => Some(self.model.quantize(&self.scales(candidate)?, &keep)?),
            Kind::Int8Fp16 => Some(self.model.quantize_to_half(&self.scales(candidate)?, &keep)?),
        };
        let by = lowered.as_ref().map_or("", |_| if candidate.kind.is_int8() { "qdq" } else { "cast" });
        let model = lowered.map_or_else(|| self.model.clone(), |lowered| lowered.model);
        let mut session = Session::start(Box::new(OrtBackend::cpu(&model, &self.config)?), &self.config)?;
        let scores = self.scores(&mut session)?;
        Ok(Answered { scores, speed: None, engine_bytes: model.bytes().len() as u64, by })
    }

    fn answer_on_gpu(&mut self, candidate: &Candidate, keep: &[String], library: &Library) -> Outcome<Answered> {
        let (plan, by) = match &candidate.engine {
            Some(engine) => (Plan::read(engine)?, "given"),
            None => self.build(candidate, keep, library)?,
        };
        let engine = Engine::from_plan(&plan, self.chain.device)?;
        let mut session = engine.session(&self.config)?;
        let scores = self.scores(&mut session)?;
        let latencies = self.time(&mut session)?;
        let speed = Speed {
            p50_us: latencies.quantile_us(0.5),
            p99_us: latencies.quantile_us(0.99),
            calls: latencies.calls(),
            device_bytes: session.device_memory(),
            layers: engine.layer_count(),
        };
        Ok(Answered { scores, speed: Some(speed), engine_bytes: plan.bytes().len() as u64, by })
    }

    fn build(&mut self, candidate: &Candidate, keep: &[String], library: &Library) -> Outcome<(Plan, &'static str)> {
        let typed = library.flavour().is_strongly_typed();
        let (half, int8) = (matches!(candidate.kind, Kind::Fp16 | Kind::Int8Fp16), candidate.kind.is_int8());
        let fp8 = candidate.kind == Kind::Fp8;
        let calibrates = candidate.kind.is_calibrated() && !self.model.is_quantized();
        let by_nodes = calibrates && (typed || fp8 || candidate.mode == Int8Mode::Qdq);
        let mut config = BuilderConfig::new().tf32(candidate.kind != Kind::Fp32).int8(int8).fp8(fp8);
        if let Some(shapes) = self.config.shapes.first() {
            config = config.profile(OptimizationProfile::from_shapes(shapes, shapes, shapes));
        }
        if library.flavour() == Flavour::Rtx {
            config = config.compute_capabilities(ComputeCapabilities::Current);
        }
        if let Some(file) = self.timing_cache {
            config = config.timing_cache_file(file);
        }
        if self.strict && !keep.is_empty() {
            config = config.precision_constraints(PrecisionConstraints::Obey);
        }
        let mut model = self.model.clone();
        let mut calibration = None;
        if by_nodes {
            let (keep_words, scales) = (keep, self.scales(candidate)?);
            let keep = Keep::new(self.model, keep)?;
            let lowered = match (fp8, typed && half) {
                (true, _) => model.quantize_to_fp8(&scales, &keep)?,
                (_, true) => model.quantize_to_half(&scales, &keep)?,
                _ => model.quantize(&scales, &keep)?,
            };
            model = lowered.model;
            config = config.fp16(half && !typed);
            if !typed {
                // The flag would let TensorRT take FP16 for them.
                config = config.keep_fp32(keep_words.iter().map(String::as_str));
            }
        } else {
            config = config.fp16(half).bf16(candidate.kind == Kind::Bf16).int8_mode(candidate.mode);
            if half || int8 || candidate.kind == Kind::Bf16 {
                config = config.keep_fp32(keep.iter().map(String::as_str));
            }
            if calibrates {
                let method = candidate.method.unwrap_or_default();
                let normalizations = self.config.normalizations.clone().unwrap_or_default();
                // A cache has one method's ranges, and here there are several.
                let data = CalibrationArgs { calib_cache: None, ..self.calibration.clone() };
                calibration = data.open(self.model, &normalizations, method, self.chain.device, true)?;
            }
        }
        let by = match (by_nodes, calibrates, typed) {
            (true, ..) => "qdq",
            (_, true, _) => "native",
            (_, _, true) if half => "cast",
            _ if half || candidate.kind == Kind::Bf16 => "flag",
            _ => "",
        };
        let built = progress::watch(library, true, calibration, |builder| builder.build_model(&model, &config))?;
        let mut sidecar = Sidecar::from(&built);
        sidecar.normalizations = self.config.normalizations.clone().unwrap_or_default();
        Ok((Plan::new(built.bytes, sidecar)?, by))
    }

    /// Of one run over the data, whichever the method.
    fn scales(&mut self, candidate: &Candidate) -> Outcome<std::collections::BTreeMap<String, f32>> {
        if self.ranges.is_none() {
            let normalizations = self.config.normalizations.clone().unwrap_or_default();
            let data = CalibrationArgs { calib_cache: None, ..self.calibration.clone() };
            let calibration =
                data.open(self.model, &normalizations, CalibrationMethod::Entropy, self.chain.device, false)?;
            let calibration = calibration.ok_or_else(|| candidate.kind.without_data())?;
            self.ranges = Some(observe(self.model, calibration)?);
        }
        let table = self.ranges.as_ref().map(|ranges| ranges.table(candidate.method.unwrap_or_default()));
        Ok(table.map(|table| table.scales).unwrap_or_default())
    }

    /// The first output of every call.
    fn scores(&self, session: &mut Session) -> Outcome<Values> {
        let mut scores = answers::empty(&session.signature().shapes[0].outputs[0])?;
        answers::first_outputs(session, self.feed(), &mut scores)?;
        Ok(scores)
    }

    /// Host to host, from before the input is written to after the answer is read.
    fn time(&self, session: &mut Session) -> Outcome<Latencies> {
        const WARM_UP: usize = 200;
        let feed = self.feed();
        let mut latencies = Latencies::new();
        let mut into = answers::empty(&session.signature().shapes[0].outputs[0])?;
        for call in 0..WARM_UP + self.calls {
            let started = Instant::now();
            let mut slot = session.input()?;
            feed.write(call % feed.calls(), &mut slot)?;
            let ticket = slot.submit()?;
            let first = into.is_empty();
            session.wait_into(ticket, |outputs| {
                if first { into.extend_from(outputs, 0) } else { into.copy_from(0, outputs, 0) }
            })?;
            if call >= WARM_UP {
                latencies.record(started.elapsed());
            }
        }
        Ok(latencies)
    }

    fn feed(&self) -> &Feed {
        self.feed.as_ref().expect("`give` comes before any row")
    }

    /// How many samples there are.
    pub fn samples(&self) -> usize {
        self.feed().calls() * self.batch()
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        if let Some(method) = &self.method {
            write!(f, " by {method}")?;
        }
        match self.mode {
            Int8Mode::Native => write!(f, ", native"),
            Int8Mode::Qdq => write!(f, ", Q/DQ"),
            Int8Mode::Auto => Ok(()),
        }
    }
}

//! What a session is made for: everything that is fixed at start.

use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::normalize::{Normalization, Normalizer};
use crate::tensor::{IoMode, Shapes, TensorInfo, format_shape};

/// What a [`Session`](crate::Session) is made for. The default suits a network of fixed shapes, fed in its own types.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionConfig {
    /// Slots in the ring: how many calls can be in flight or wait to be collected. 1 to 64.
    pub depth: usize,
    /// Normalisation by input; an input without one is handed over in the network's own type. `None`: those of the
    /// plan's sidecar, for every backend of a chain; `Some(vec![])`: none.
    pub normalizations: Option<Vec<Normalization>>,
    /// The shapes that calls will have, one graph each. Empty: the network's own, or the optimization profile's
    /// optimum. A shape names the dynamic inputs only, if it likes.
    pub shapes: Vec<Shapes>,
    /// Rolling windows, for calls that hand over only the newest row.
    pub windows: Option<WindowConfig>,
    /// How long `wait` waits at most.
    pub wait_limit: Duration,
    /// How `wait` spends its time.
    pub wait_strategy: WaitStrategy,
    /// Launches the next call's graph before the call comes, where its first kernel waits for the input, for this long at
    /// most: a call then costs no launch, about 2 µs less on an H100. TensorRT only, and one announced shape.
    ///
    /// While it waits it keeps one to a few of the GPU's multiprocessors busy, and holds up what waits for the whole
    /// device: cudaFree, cudaDeviceSynchronize, loading modules. Where a process has more streams than hardware connections
    /// (`CUDA_DEVICE_MAX_CONNECTIONS`, 8 unless set, at most 32), another stream's work may queue behind it, too. With
    /// rolling windows each call hands over its whole window. After an idle pause longer than this a call is launched
    /// as without; [`Session::keep_warm`](crate::Session::keep_warm) launches ahead again. 1 µs to 1 s.
    pub launch_ahead: Option<Duration>,
    /// What is only for resident engines.
    pub resident: ResidentConfig,
    /// Calls made at start, so that the first one is no slower than the thousandth.
    pub warm_up: usize,
    /// Which GPU, in CUDA's order.
    pub device: usize,
    /// Threads that ONNX Runtime computes with on a CPU; 0 leaves it to ONNX Runtime.
    pub cpu_threads: usize,
    /// Priority of the CUDA stream: lower is more urgent. 0 is the default; out of range is clamped by CUDA.
    pub stream_priority: i32,
    /// Whether every float output is checked for NaN and infinity.
    pub check_finite: bool,
    /// Lowest and highest value that a float output may have.
    pub output_range: Option<[f32; 2]>,
}

/// How a resident engine ([`PredictorBuilder::resident`](crate::PredictorBuilder::resident)) has the GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResidentConfig {
    /// How long its kernel stays on the GPU at a time, 50 ms unless set. Another turn follows at once; what waits for the whole
    /// device (cudaFree, cudaDeviceSynchronize, loading modules) gets its chance in between, and a call that comes then takes
    /// some 20 µs more. 100 µs to 1 s.
    pub turn: Duration,
    /// Whether it may start on a GPU on which other processes compute. Then the GPU is given to each for a while, and calls
    /// wait for that.
    pub share_gpu: bool,
    /// Whether calls are written into the GPU's memory, through its BAR1, instead of the host's, which the kernel polls across
    /// PCIe: a call is seen some 0.3 to 0.8 µs sooner, and always as soon (`benches/probes/resident.md`). It needs the driver's Vulkan
    /// part; where that is missing the engine does not start, with [`ErrorKind::Unavailable`]. The first such engine of a process
    /// takes half a second more to start. For engines that were built with `--resident-asks all`: blocks do not get in each
    /// other's way there, and need nothing of the input from each other.
    pub bar1: bool,
    /// How often a turn of its own asks, between two others, a question whose answer is known from the start, 1 s unless set; zero:
    /// never. If the answer has changed, something has overwritten the weights on the GPU: calls submitted from then on end with
    /// [`ErrorKind::WrongAnswer`], and a chain goes on to its next entry; what was submitted before may still be answered. A call
    /// that comes just then waits for one more launch, and for what is computed ahead where the engine keeps a window.
    pub known_answer_every: Duration,
    /// For tests: how many calls the numbers of the first ones are ahead.
    #[doc(hidden)]
    pub calls_before: u64,
}

impl Default for ResidentConfig {
    fn default() -> Self {
        Self {
            turn: Duration::from_millis(50),
            share_gpu: false,
            bar1: false,
            known_answer_every: Duration::from_secs(1),
            calls_before: 0,
        }
    }
}

/// How a thread that waits for an answer spends its time. What is kinder to the machine answers later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WaitStrategy {
    /// Looks at the flag again at once: the lowest latency, for a thread with a core of its own.
    #[default]
    Spin,
    /// As `Spin`, with the processor's pause instruction between looks: kinder to the core's other hyperthread. Some
    /// hypervisors take the processor away from a guest that pauses often.
    SpinPause,
    /// As `SpinPause` for 100 µs, then gives up the processor between looks (`sched_yield`).
    SpinThenYield,
    /// Sleeps between looks, 50 µs at a time: the latency of the operating system's timer, and hardly any load.
    Block,
}

/// Rolling windows: many symbols' newest rows, each kept in a ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowConfig {
    /// Symbols are numbered `0..symbols`.
    pub symbols: u32,
    /// Elements of a row: the features of one time step. The input's size divided by it is the window's length.
    pub row: usize,
    /// What a gap in a symbol's feed does.
    pub on_gap: GapPolicy,
}

/// What a gap in a symbol's feed does to its window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GapPolicy {
    /// The window must fill anew with rows after the gap.
    #[default]
    Refill,
    /// The last row stands in for the missing one.
    HoldLast,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            depth: 4,
            normalizations: None,
            shapes: Vec::new(),
            windows: None,
            wait_limit: Duration::from_millis(100),
            wait_strategy: WaitStrategy::default(),
            launch_ahead: None,
            resident: ResidentConfig::default(),
            warm_up: 200,
            device: 0,
            cpu_threads: 1,
            stream_priority: 0,
            check_finite: true,
            output_range: None,
        }
    }
}

impl WindowConfig {
    /// `symbols` rings of rows of `row` elements; a gap empties its window.
    #[must_use]
    pub fn new(symbols: u32, row: usize) -> Self {
        Self { symbols, row, on_gap: GapPolicy::Refill }
    }
}

/// One call's inputs, with every dimension known.
#[derive(Debug, Clone)]
pub(crate) struct ResolvedShape {
    /// For each input tensor, in order.
    pub(crate) dimensions: Vec<Vec<i64>>,
    /// For each input tensor, in order.
    pub(crate) normalizers: Vec<Normalizer>,
}

impl SessionConfig {
    /// Settles the shapes and normalisers of every announced shape. `optimum` gives the shape of a dynamic input that
    /// was not announced.
    pub(crate) fn resolve(
        &self,
        tensors: &[TensorInfo],
        optimum: impl Fn(&TensorInfo) -> Option<Vec<i64>>,
    ) -> Result<Vec<ResolvedShape>> {
        self.check(tensors)?;
        let announced = if self.shapes.is_empty() { &[Shapes::new()][..] } else { &self.shapes };
        announced.iter().map(|shapes| self.resolve_one(shapes, tensors, &optimum)).collect()
    }

    fn resolve_one(
        &self,
        shapes: &Shapes,
        tensors: &[TensorInfo],
        optimum: &impl Fn(&TensorInfo) -> Option<Vec<i64>>,
    ) -> Result<ResolvedShape> {
        let mut resolved = ResolvedShape { dimensions: Vec::new(), normalizers: Vec::new() };
        for tensor in tensors.iter().filter(|tensor| tensor.mode == IoMode::Input) {
            let dimensions = match shapes.get(&tensor.name) {
                Some(wanted) => matching(tensor, wanted)?,
                None if tensor.elements().is_some() => tensor.shape.clone(),
                None => optimum(tensor).ok_or_else(|| {
                    Error::new(ErrorKind::Shape, format!("settle the shape of input `{}`", tensor.name))
                        .expected("its dynamic dimensions")
                        .got(format_shape(&tensor.shape))
                        .advice(format!("announce it: --shapes {}:1x...", tensor.name))
                })?,
            };
            // Windows are for networks of one input; `check` has seen to that.
            let row = self.windows.as_ref().map(|windows| windows.row);
            let identity = Normalization::new(tensor.name.as_str(), tensor.data_type);
            let what = self.normalizations.iter().flatten().find(|n| n.input == tensor.name).unwrap_or(&identity);
            resolved.normalizers.push(Normalizer::new(what, tensor, &dimensions, row)?);
            resolved.dimensions.push(dimensions);
        }
        Ok(resolved)
    }

    fn check(&self, tensors: &[TensorInfo]) -> Result<()> {
        let invalid = |what: &str| Error::new(ErrorKind::InvalidArgument, format!("make a session: {what}"));
        if !(1..=64).contains(&self.depth) {
            return Err(invalid("depth").expected("1 to 64 slots").got(self.depth.to_string()));
        }
        let inputs: Vec<&str> = tensors.iter().filter(|t| t.mode == IoMode::Input).map(|t| t.name.as_str()).collect();
        let named =
            self.normalizations.iter().flatten().map(|n| &n.input).chain(self.shapes.iter().flat_map(|s| s.keys()));
        for name in named {
            if !inputs.contains(&name.as_str()) {
                return Err(invalid("normalizations and shapes name inputs")
                    .expected(format!("one of {inputs:?}"))
                    .got(format!("`{name}`")));
            }
        }
        if let Some(patience) = self.launch_ahead {
            if !(Duration::from_micros(1)..=Duration::from_secs(1)).contains(&patience) {
                return Err(invalid("launch_ahead").expected("1 µs to 1 s").got(format!("{patience:?}")));
            }
            if self.shapes.len() > 1 {
                return Err(invalid("launch_ahead, which must know the next call's shape")
                    .expected("one announced shape")
                    .got(self.shapes.len().to_string()));
            }
        }
        let turn = self.resident.turn;
        if !(Duration::from_micros(100)..=Duration::from_secs(1)).contains(&turn) {
            return Err(invalid("resident.turn").expected("100 µs to 1 s").got(format!("{turn:?}")));
        }
        if let Some([lowest, highest]) = self.output_range
            && (lowest.is_nan() || highest.is_nan() || lowest > highest)
        {
            return Err(invalid("output_range").expected("[lowest, highest]").got(format!("[{lowest}, {highest}]")));
        }
        let Some(windows) = &self.windows else { return Ok(()) };
        if inputs.len() != 1 {
            return Err(invalid("windows").expected("a network of one input").got(format!("{inputs:?}")));
        }
        if windows.symbols == 0 || windows.row == 0 {
            return Err(invalid("windows")
                .expected("at least one symbol and one element a row")
                .got(format!("{} symbols, {} elements a row", windows.symbols, windows.row)));
        }
        Ok(())
    }
}

/// `wanted`, if it is `tensor`'s shape with its dynamic dimensions filled in.
fn matching(tensor: &TensorInfo, wanted: &[i64]) -> Result<Vec<i64>> {
    let fits = wanted.len() == tensor.shape.len()
        && tensor.shape.iter().zip(wanted).all(|(&has, &wants)| wants > 0 && (has < 0 || has == wants));
    if fits {
        return Ok(wanted.to_vec());
    }
    Err(Error::new(ErrorKind::Shape, format!("settle the shape of input `{}`", tensor.name))
        .expected(format!("{} with positive dimensions for -1", format_shape(&tensor.shape)))
        .got(format_shape(wanted)))
}

//! For the tests that hold the kernels against the scalar version: on a GPU, and compiled for the host.

use std::ffi::{CStr, c_char, c_void};
use std::ptr::NonNull;

use super::*;
use crate::backend::SlotHeader;
use crate::completion::in_band;
use crate::tensor::DataType;

/// A session whose calls leave the network out, for `benches/stages.rs`: what a call of the same shapes takes without it.
/// Its answers are zeros.
///
/// # Errors
/// As [`Engine::session`].
pub fn session_without_network(engine: &Engine, config: &SessionConfig) -> Result<crate::Session> {
    let mut config = config.clone();
    config.normalizations.get_or_insert_with(|| engine.normalizations().to_vec());
    crate::Session::start(Box::new(TensorRt::with_network(engine, &config, false)?), &config)
}

/// The sizes of the structures here, and those that nvcc gave those of `kernels/params.h`.
///
/// # Errors
/// Those of CUDA.
pub fn layout(device: &Arc<Device>) -> Result<([u32; 8], [u32; 8])> {
    let kernels = load_kernels(device)?;
    let stream = Stream::new(device, 0)?;
    let out = DeviceBuffer::new(device, 32, "sizes", "")?;
    // SAFETY: the kernel writes eight numbers to its one parameter.
    unsafe { kernels.function(c"tickrt_layout")?.launch(&stream, 1, 1, &out.address())? };
    stream.settle(FIRST_CALL)?;
    let rust = [
        size_of::<SlotHeader>(),
        size_of::<State>(),
        size_of::<NormalizeTensor>(),
        size_of::<NormalizeParams>(),
        size_of::<PublishTensor>(),
        size_of::<PublishParams>(),
        size_of::<Element>(),
        size_of::<SmallParams>(),
    ];
    let device_side: Vec<u32> = out.read()?;
    Ok((rust.map(|size| size as u32), device_side.try_into().expect("eight numbers")))
}

/// Which kernel an input goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Through {
    /// The one for any input.
    Any,
    /// The one that a session takes.
    Session,
    /// The one that a session takes that launches ahead of its calls.
    SessionAhead,
}

/// `input` through a kernel: the network's bytes, or `None` where the kernel refused the input.
///
/// # Errors
/// Those of CUDA.
pub fn normalize(
    device: &Arc<Device>,
    normalizer: &Normalizer,
    input: &[u8],
    through: Through,
) -> Result<Option<Vec<u8>>> {
    const CALL: u64 = 7;
    let kernels = load_kernels(device)?;
    let shape = CallShape { inputs: vec![normalizer.clone()], outputs: Vec::new() };
    let tensor = |mode| TensorInfo { name: String::new(), mode, data_type: normalizer.output_type, shape: vec![] };
    let signature = Signature { inputs: vec![tensor(IoMode::Input)], outputs: vec![], shapes: vec![shape] };
    let launch_ahead = (through == Through::SessionAhead).then_some(std::time::Duration::from_secs(1));
    let config = SessionConfig { depth: 1, launch_ahead, ..SessionConfig::default() };
    let activations = DeviceBuffer::new(device, 1, "nothing", "")?;
    let memory = Memory::new(device, &signature, &config, activations)?;
    let stream = Stream::new(device, 0)?;
    let mut call = memory.calls(&signature, &config, &kernels)?.remove(0);
    if through == Through::Any {
        let inputs = &signature.shapes[0].inputs;
        call.input = InputParams::Any(Box::new(memory.normalize_params(0, &signature.shapes[0], 0, &config)));
        call.input_kernel = kernels.function(Kind::Any.kernel(inputs, false))?;
        call.input_grid = Kind::Any.grid(inputs, false);
    }
    let slot = memory.layout.slots(&memory.slots, 1).remove(0);
    // SAFETY: the region is as large as the input; nothing runs yet.
    unsafe {
        slot.inputs[0].start.copy_from_nonoverlapping(NonNull::from(input).cast(), input.len());
        (*slot.header.as_ptr()).sequence = CALL;
        (*slot.header.as_ptr()).awaited = CALL;
    }
    if let Some(units) = slot.input_units {
        let words = normalizer.input_words();
        // SAFETY: as in `Session::ring`.
        unsafe {
            let from = std::slice::from_raw_parts(slot.inputs[0].start.as_ptr().cast::<u32>(), words);
            in_band::send(from, std::slice::from_raw_parts(units.as_ptr(), words.next_multiple_of(2)), CALL);
        }
    }
    // SAFETY: as in `enqueue_parts`.
    unsafe { call.input.launch(call.input_kernel, &stream, call.input_grid)? };
    stream.settle(FIRST_CALL)?;
    let state: Vec<State> = memory.state.read()?;
    assert_eq!(state[0].sequence, CALL, "handed on");
    assert_eq!(state[0].status & u32::from(crate::Status::EXPIRED), 0, "it was there");
    let refused = state[0].status != 0;
    Ok((!refused).then_some(memory.inputs[0].read()?))
}

/// Runs a kernel compiled for the host: its name, its parameters, blocks, threads of a block. Whether there is such a one.
pub type HostRun = unsafe extern "C" fn(*const c_char, *const c_void, u32, u32) -> bool;

/// What a device would hold between the calls of one slot.
pub struct Host {
    host_run: HostRun,
    state: State,
    ring: Vec<u64>,
    /// How long a launch waits for its call; 0: the call is there.
    pub patience_us: u32,
}

impl Host {
    /// `ring_bytes` for all symbols together, 0 without windows.
    ///
    /// # Safety
    /// The function must be `tickrt_host_run` of `tests/common/kernels_on_host.cc`.
    #[must_use]
    pub unsafe fn new(run: HostRun, ring_bytes: usize) -> Self {
        Self {
            host_run: run,
            state: bytemuck::Zeroable::zeroed(),
            ring: vec![0; ring_bytes.div_ceil(8)],
            patience_us: 0,
        }
    }

    /// One call's input through the normalise kernel: what the network gets, and whether the kernel refused it. `row` is
    /// the length of a rolling window's row, 0 without.
    ///
    /// # Panics
    /// If the input has not the normaliser's size.
    pub fn normalize(
        &mut self,
        normalizer: &Normalizer,
        row: usize,
        header: &SlotHeader,
        input: &[u8],
    ) -> (Vec<u8>, bool) {
        assert_eq!(input.len(), normalizer.input_bytes());
        let aligned = |bytes: usize| vec![0_u64; bytes.div_ceil(8)];
        let (mut source, mut destination) = (aligned(input.len()), aligned(normalizer.output_bytes()));
        bytemuck::cast_slice_mut(&mut source)[..input.len()].copy_from_slice(input);
        let mut params: NormalizeParams = bytemuck::Zeroable::zeroed();
        (params.header, params.state) = (std::ptr::from_ref(header) as u64, &raw mut self.state as u64);
        (params.tensor_count, params.patience_us) = (1, self.patience_us);
        params.tensors[0] = NormalizeTensor::new(
            normalizer,
            row,
            Addresses {
                source: source.as_ptr() as u64,
                destination: destination.as_mut_ptr() as u64,
                means: normalizer.mean.as_ptr() as u64,
                stds: normalizer.std.as_ptr() as u64,
                ring: if row == 0 { 0 } else { self.ring.as_mut_ptr() as u64 },
            },
        );
        // Two blocks and few threads, so that elements are shared out and strides are taken.
        let kernel = Kind::Any.kernel(std::slice::from_ref(normalizer), row > 0);
        self.run(kernel, &params, (2, 32));
        if row == 0 {
            // The kernel for several inputs does the same with one.
            let mut again = aligned(normalizer.output_bytes());
            params.tensors[0].destination = again.as_mut_ptr() as u64;
            self.run(c"tickrt_normalize_all", &params, (2, 32));
            assert_eq!(destination, again, "tickrt_normalize_all");
        }
        let network = bytemuck::cast_slice(&destination)[..normalizer.output_bytes()].to_vec();
        (network, self.state.status != 0)
    }

    /// The same through the kernel for a small input that is there; `None` where there is none for this.
    pub fn normalize_small(
        &mut self,
        normalizer: &Normalizer,
        header: &SlotHeader,
        input: &[u8],
    ) -> Option<(Vec<u8>, bool)> {
        let config = SessionConfig::default();
        let words = words(normalizer, input);
        self.run_small(Kind::Small, &config, normalizer, header, words.as_ptr() as u64)
    }

    /// The same through the kernel for one in band, whose units carry the numbers that `number` gives them; the kernel
    /// compares them with the one that the header awaits.
    pub fn normalize_in_band(
        &mut self,
        normalizer: &Normalizer,
        header: &SlotHeader,
        input: &[u8],
        number: impl Fn(usize) -> u64,
    ) -> Option<(Vec<u8>, bool)> {
        let config =
            SessionConfig { launch_ahead: Some(std::time::Duration::from_millis(1)), ..SessionConfig::default() };
        let mut words = words(normalizer, input);
        words.resize(words.len().next_multiple_of(2), 0);
        let units: Vec<crate::Unit> = words.iter().map(|_| crate::Unit::default()).collect();
        for unit in 0..units.len() {
            in_band::send(&words[unit..=unit], &units[unit..=unit], number(unit));
        }
        self.run_small(Kind::InBand, &config, normalizer, header, units.as_ptr() as u64)
    }

    fn run_small(
        &mut self,
        kind: Kind,
        config: &SessionConfig,
        normalizer: &Normalizer,
        header: &SlotHeader,
        source: u64,
    ) -> Option<(Vec<u8>, bool)> {
        let inputs = std::slice::from_ref(normalizer);
        if Kind::of(inputs, config) != kind {
            return None;
        }
        let mut destination = vec![0_u64; normalizer.output_bytes().div_ceil(8)];
        let elements = Element::table(normalizer);
        let params = SmallParams {
            header: std::ptr::from_ref(header) as u64,
            state: &raw mut self.state as u64,
            patience_us: self.patience_us,
            ..SmallParams::new(normalizer, source, destination.as_mut_ptr() as u64, elements.as_ptr() as u64)
        };
        self.run(kind.kernel(inputs, false), &params, kind.grid(inputs, false));
        let network = bytemuck::cast_slice(&destination)[..normalizer.output_bytes()].to_vec();
        Some((network, self.state.status != 0))
    }

    fn run<P>(&mut self, kernel: &CStr, params: &P, (blocks, threads): (u32, u32)) {
        let params = std::ptr::from_ref(params).cast();
        // SAFETY: the caller of `new` has promised the kernels; every address is that of memory of the size they take.
        assert!(unsafe { (self.host_run)(kernel.as_ptr(), params, blocks, threads) }, "{kernel:?}");
    }

    /// One output through the publish kernel: what is delivered, and the flag.
    pub fn publish(&mut self, network: DataType, delivered: &OutputShape, output: &[u64]) -> (Vec<u8>, u64) {
        let (mut memory, mut done) = (vec![0_u64; delivered.bytes().div_ceil(8)], 0_u64);
        self.run_publish(network, delivered, output, memory.as_mut_ptr() as u64, &raw mut done as u64, false);
        (bytemuck::cast_slice(&memory)[..delivered.bytes()].to_vec(), done)
    }

    /// The same in band: the units, or `None` where the answer cannot come so.
    pub fn publish_in_band(
        &mut self,
        network: DataType,
        delivered: &OutputShape,
        output: &[u64],
    ) -> Option<Vec<crate::Unit>> {
        if !in_band::fits(std::slice::from_ref(delivered)) {
            return None;
        }
        let mut units: Vec<crate::Unit> = (0..delivered.count).map(|_| crate::Unit::default()).collect();
        self.run_publish(network, delivered, output, 0, units.as_mut_ptr() as u64, true);
        Some(units)
    }

    fn run_publish(
        &mut self,
        network: DataType,
        delivered: &OutputShape,
        output: &[u64],
        destination: u64,
        done: u64,
        in_band: bool,
    ) {
        let mut params: PublishParams = bytemuck::Zeroable::zeroed();
        (params.state, params.done, params.tensor_count) = (&raw mut self.state as u64, done, 1);
        params.tensors[0] = PublishTensor::new(network, delivered, output.as_ptr() as u64, destination);
        let kernel = params.kernel(in_band);
        self.run(kernel, &params, (1, params.threads(in_band)));
    }
}

fn words(normalizer: &Normalizer, input: &[u8]) -> Vec<u32> {
    let mut words = vec![0_u32; normalizer.input_words()];
    bytemuck::cast_slice_mut(&mut words)[..input.len()].copy_from_slice(input);
    words
}

/// What the session reads of units: the call's status and the words, once all are there.
#[must_use]
pub fn read_in_band(units: &[crate::Unit], sequence: u64) -> Option<(crate::Status, Vec<u32>)> {
    let status = in_band::finished(units, sequence)?;
    let mut words = vec![0; units.len()];
    in_band::unpack(units, &mut words);
    Some((status, words))
}

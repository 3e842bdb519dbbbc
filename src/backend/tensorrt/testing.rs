//! For the tests that hold the kernels against the scalar version: on a GPU, and compiled for the host.

use std::ffi::{c_char, c_void};
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
pub fn layout(device: &Arc<Device>) -> Result<([u32; 6], [u32; 6])> {
    let kernels = load_kernels(device)?;
    let stream = Stream::new(device, 0)?;
    let out = DeviceBuffer::new(device, 24, "sizes", "")?;
    // SAFETY: the kernel writes six numbers to its one parameter.
    unsafe { kernels.function(c"tickrt_layout")?.launch(&stream, 1, 1, &out.address())? };
    stream.settle(FIRST_CALL)?;
    let rust = [
        size_of::<SlotHeader>(),
        size_of::<State>(),
        size_of::<NormalizeTensor>(),
        size_of::<NormalizeParams>(),
        size_of::<PublishTensor>(),
        size_of::<PublishParams>(),
    ];
    let device_side: Vec<u32> = out.read()?;
    Ok((rust.map(|size| size as u32), device_side.try_into().expect("six numbers")))
}

/// `input` through the kernel: the network's bytes, or `None` where the kernel refused the input.
///
/// # Errors
/// Those of CUDA.
pub fn normalize(device: &Arc<Device>, normalizer: &Normalizer, input: &[u8]) -> Result<Option<Vec<u8>>> {
    let kernels = load_kernels(device)?;
    let shape = CallShape { inputs: vec![normalizer.clone()], outputs: Vec::new() };
    let tensor = |mode| TensorInfo { name: String::new(), mode, data_type: normalizer.output_type, shape: vec![] };
    let signature = Signature { inputs: vec![tensor(IoMode::Input)], outputs: vec![], shapes: vec![shape] };
    let config = SessionConfig { depth: 1, ..SessionConfig::default() };
    let activations = DeviceBuffer::new(device, 1, "nothing", "")?;
    let memory = Memory::new(device, &signature, &config, activations)?;
    let stream = Stream::new(device, 0)?;
    let call = memory.calls(&signature, &config, &kernels)?.remove(0);
    let slot = SlotLayout::new(&signature).slots(&memory.slots, 1).remove(0);
    // SAFETY: the region is as large as the input; nothing runs yet.
    unsafe { slot.inputs[0].start.copy_from_nonoverlapping(NonNull::from(input).cast(), input.len()) };
    // SAFETY: as in `enqueue_parts`.
    unsafe { call.normalize_kernel.launch(&stream, call.blocks, 256, &call.normalize)? };
    stream.settle(FIRST_CALL)?;
    let state: Vec<State> = memory.state.read()?;
    let refused = state[0].status != 0;
    Ok((!refused).then_some(memory.inputs[0].read()?))
}

/// Runs a kernel compiled for the host: its name, its parameters, blocks, threads of a block. Whether there is such a one.
pub type HostRun = unsafe extern "C" fn(*const c_char, *const c_void, u32, u32) -> bool;

/// What a device would hold between the calls of one slot.
pub struct Host {
    run: HostRun,
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
        Self { run, state: bytemuck::Zeroable::zeroed(), ring: vec![0; ring_bytes.div_ceil(8)], patience_us: 0 }
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
        let kernel = params::normalize_kernel(std::slice::from_ref(normalizer), row > 0);
        // SAFETY: the caller of `new` has promised the kernels; every address is that of memory of the size they take.
        assert!(unsafe { (self.run)(kernel.as_ptr(), (&raw const params).cast(), 2, 32) }, "{kernel:?}");
        if row == 0 {
            // The kernel for several inputs does the same with one.
            let mut again = aligned(normalizer.output_bytes());
            params.tensors[0].destination = again.as_mut_ptr() as u64;
            // SAFETY: as above.
            assert!(unsafe { (self.run)(c"tickrt_normalize_all".as_ptr(), (&raw const params).cast(), 2, 32) });
            assert_eq!(destination, again, "tickrt_normalize_all");
        }
        let network = bytemuck::cast_slice(&destination)[..normalizer.output_bytes()].to_vec();
        (network, self.state.status != 0)
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
        let kernel = params::publish_kernel(in_band);
        // SAFETY: as in `normalize`.
        assert!(unsafe { (self.run)(kernel.as_ptr(), (&raw const params).cast(), 1, params.threads()) }, "{kernel:?}");
    }
}

/// What the session reads of units: the call's status and the words, once all are there.
#[must_use]
pub fn read_in_band(units: &[crate::Unit], sequence: u64) -> Option<(crate::Status, Vec<u32>)> {
    let status = in_band::finished(units, sequence)?;
    let mut words = vec![0; units.len()];
    in_band::unpack(units, &mut words);
    Some((status, words))
}

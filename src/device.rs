//! The GPU, owned in Rust: context, stream, graph, device and pinned memory, over cudarc's driver layer.
//!
//! The driver is opened with dlopen when the first [`Device`] is, so a program that links this crate starts on a machine
//! that has none, and an older driver costs what it lacks (`functions`). Everything here but [`Graph::launch`] is control
//! plane.

mod bar1;
mod functions;

use std::ffi::{CStr, c_void};
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;
use once_cell::sync::OnceCell;

use crate::error::{Error, ErrorKind, Result};

pub(crate) use self::bar1::Bar1Buffer;
pub(crate) use self::functions::Feature;

/// A GPU with its primary context. Every handle below keeps its device alive.
#[derive(Debug)]
pub struct Device {
    ordinal: usize,
    handle: sys::CUdevice,
    context: sys::CUcontext,
    name: String,
    compute_capability: (u32, u32),
    allocated: AtomicU64,
}

// SAFETY: the CUDA driver API may be called from any thread; the handles are plain values that never change.
unsafe impl Send for Device {}
// SAFETY: as above; `allocated` is atomic.
unsafe impl Sync for Device {}

/// Free and total memory of a device, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct MemoryInfo {
    /// Free now, for all processes.
    pub free: u64,
    /// In all.
    pub total: u64,
}

impl Device {
    /// Opens GPU number `ordinal`, in CUDA's order, and retains its primary context.
    ///
    /// # Errors
    /// [`ErrorKind::NoGpu`] without a driver, without a device, or where there is none of that number.
    pub fn open(ordinal: usize) -> Result<Arc<Self>> {
        let count = Self::count()?;
        let no_gpu = || Error::new(ErrorKind::NoGpu, format!("open GPU {ordinal}"));
        if ordinal >= count {
            return Err(no_gpu()
                .expected(format!("one of the GPUs 0..{count}"))
                .got(ordinal.to_string())
                .advice("see nvidia-smi, and CUDA_VISIBLE_DEVICES, which hides and renumbers GPUs"));
        }
        let failed = |error| cuda_error(error, &format!("open GPU {ordinal}"));
        let handle = result::device::get(ordinal as i32).map_err(failed)?;
        // SAFETY: `handle` comes from `device::get`; the context is released in `Drop`.
        let context = unsafe { result::primary_ctx::retain(handle) }.map_err(failed)?;
        let attribute = |which| {
            // SAFETY: `handle` comes from `device::get`.
            unsafe { result::device::get_attribute(handle, which) }.map_err(failed)
        };
        let major = attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        let device = Self {
            ordinal,
            handle,
            context,
            name: result::device::get_name(handle).map_err(failed)?,
            compute_capability: (major as u32, minor as u32),
            allocated: AtomicU64::new(0),
        };
        device.bind()?;
        Ok(Arc::new(device))
    }

    /// How many GPUs CUDA sees.
    ///
    /// # Errors
    /// [`ErrorKind::NoGpu`] without a driver or a device.
    pub fn count() -> Result<usize> {
        static STARTED: OnceCell<()> = OnceCell::new();
        let no_gpu = |got: String| {
            Error::new(ErrorKind::NoGpu, "start CUDA")
                .expected("an NVIDIA driver and at least one GPU")
                .got(got)
                .advice("see nvidia-smi; in a container, start it with --gpus all")
        };
        STARTED.get_or_try_init(|| {
            // SAFETY: opens and closes libcuda; the loader runs its initialisers, as every CUDA program does.
            if !unsafe { sys::is_culib_present() } {
                return Err(no_gpu("no libcuda.so.1 on the library path".into()));
            }
            if let Some(name) = functions::missing() {
                return Err(no_gpu(format!("a libcuda without {name}"))
                    .and_advice("update the driver: 470 or newer has all that is needed"));
            }
            result::init().map_err(|error| no_gpu(name(error)))
        })?;
        match result::device::get_count() {
            Ok(count) if count > 0 => Ok(count as usize),
            Ok(_) => Err(no_gpu("a driver, and no GPU".into())),
            Err(error) => Err(no_gpu(name(error))),
        }
    }

    /// Version of the driver's CUDA, as (13, 0); `None` without a driver.
    #[must_use]
    pub fn driver_version() -> Option<(u32, u32)> {
        Self::count().ok()?;
        let mut version = 0;
        // SAFETY: writes one int; `count` has opened the library.
        unsafe { sys::cuDriverGetVersion(&raw mut version) }.result().ok()?;
        Some((version as u32 / 1000, version as u32 % 1000 / 10))
    }

    /// Its number, in CUDA's order.
    #[must_use]
    pub fn ordinal(&self) -> usize {
        self.ordinal
    }

    /// Its name, as nvidia-smi shows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its place on the PCI bus, as `/sys/bus/pci/devices` has it: `0000:3b:00.0`.
    #[must_use]
    pub fn pci_address(&self) -> String {
        use sys::CUdevice_attribute::{
            CU_DEVICE_ATTRIBUTE_PCI_BUS_ID, CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID, CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID,
        };
        let number = |which| {
            // SAFETY: `handle` comes from `device::get`.
            unsafe { result::device::get_attribute(self.handle, which) }.unwrap_or_default()
        };
        let domain = number(CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID);
        let (bus, device) = (number(CU_DEVICE_ATTRIBUTE_PCI_BUS_ID), number(CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID));
        format!("{domain:04x}:{bus:02x}:{device:02x}.0")
    }

    /// Its compute capability: (9, 0) for an H100.
    #[must_use]
    pub fn compute_capability(&self) -> (u32, u32) {
        self.compute_capability
    }

    /// Bytes of shared memory that one block can ask for.
    pub(crate) fn shared_bytes_per_block(&self) -> Result<u32> {
        let which = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
        // SAFETY: the handle is the device's.
        let bytes = unsafe { result::device::get_attribute(self.handle, which) }
            .map_err(|error| cuda_error(error, "ask for the GPU's shared memory"))?;
        Ok(bytes.max(0) as u32)
    }

    /// Its multiprocessors: 132 of an H100 SXM.
    ///
    /// # Errors
    /// Those of CUDA.
    pub fn multiprocessors(&self) -> Result<u32> {
        let which = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
        // SAFETY: the handle is the device's.
        let count = unsafe { result::device::get_attribute(self.handle, which) }
            .map_err(|error| cuda_error(error, "ask for the GPU's multiprocessors"))?;
        Ok(count.max(0) as u32)
    }

    /// Its memory, free and total.
    ///
    /// # Errors
    /// Those of CUDA.
    pub fn memory(&self) -> Result<MemoryInfo> {
        self.bind()?;
        let (free, total) = result::mem_get_info().map_err(|error| cuda_error(error, "ask for free GPU memory"))?;
        Ok(MemoryInfo { free: free as u64, total: total as u64 })
    }

    /// Adds to an error about exhausted memory how much is free; `what` says what was asked for.
    pub(crate) fn explain_memory(&self, error: Error, what: &str) -> Error {
        if error.kind() != ErrorKind::OutOfMemory {
            return error;
        }
        let free = self.memory().map_or_else(
            |_| "an unknown part".into(),
            |memory| format!("{} of {}", mib(memory.free), mib(memory.total)),
        );
        error.and_advice(&format!("{what}; {free} are free on GPU {} ({})", self.ordinal, self.name))
    }

    /// Bytes of device memory that this crate itself holds on it. TensorRT's own come on top.
    #[must_use]
    pub fn allocated(&self) -> u64 {
        self.allocated.load(Ordering::Relaxed)
    }

    /// As [`bind`](Self::bind), for what is no part of a call: it may be done while another library of the process captures a graph.
    pub(crate) fn enter(&self) -> Result<BesideCaptures> {
        self.bind()?;
        Ok(BesideCaptures::begin())
    }

    /// Makes its context the calling thread's: every call, because another library may have changed it behind our back.
    #[inline]
    pub(crate) fn bind(&self) -> Result<()> {
        // SAFETY: the context lives as long as `self`.
        unsafe { result::ctx::set_current(self.context) }.map_err(|error| cuda_error(error, "bind the context"))
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: retained in `open`. An error would mean that the process is going down: nothing to do about it.
        let _ = unsafe { result::primary_ctx::release(self.handle) };
    }
}

/// A non-blocking stream of its own.
#[derive(Debug)]
pub(crate) struct Stream {
    handle: sys::CUstream,
    device: Arc<Device>,
}

// SAFETY: a stream may be used from any thread; a session, which owns it, is used by one at a time.
unsafe impl Send for Stream {}

impl Stream {
    pub(crate) fn new(device: &Arc<Device>, priority: i32) -> Result<Self> {
        let _beside = device.enter()?;
        let handle = result::stream::create_with_priority(result::stream::StreamKind::NonBlocking, priority)
            .map_err(|error| cuda_error(error, "create a stream"))?;
        Ok(Self { handle, device: Arc::clone(device) })
    }

    /// For TensorRT.
    pub(crate) fn as_raw(&self) -> usize {
        self.handle as usize
    }

    /// Waits until everything launched has finished, but not for ever: a device that hangs must not take the thread
    /// with it.
    ///
    /// # Errors
    /// [`ErrorKind::DeadlineMissed`] after `limit`, or the device's own error.
    pub(crate) fn settle(&self, limit: Duration) -> Result<()> {
        let started = Instant::now();
        while !self.is_idle()? {
            if started.elapsed() > limit {
                return Err(ErrorKind::DeadlineMissed.into());
            }
            std::thread::yield_now();
        }
        Ok(())
    }

    /// `Ok(true)` if everything launched has finished.
    pub(crate) fn is_idle(&self) -> Result<bool> {
        let _beside = self.device.enter()?;
        // SAFETY: the handle lives as long as `self`.
        match unsafe { sys::cuStreamQuery(self.handle) } {
            sys::CUresult::CUDA_SUCCESS => Ok(true),
            sys::CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            error => Err(cuda_error(DriverError(error), "ask the stream what became of its work")),
        }
    }

    /// Waits until everything launched has finished, however long that takes.
    pub(crate) fn synchronize(&self) -> Result<()> {
        let _beside = self.device.enter()?;
        // SAFETY: the handle lives as long as `self`.
        unsafe { result::stream::synchronize(self.handle) }.map_err(|error| cuda_error(error, "synchronise the stream"))
    }

    /// Copies from pinned host memory.
    ///
    /// # Safety
    /// Both must be valid for that many bytes until the work is done, and the host leave them alone so long.
    pub(crate) unsafe fn copy_in(&self, to: u64, from: NonNull<u8>, bytes: usize) -> Result<()> {
        self.device.bind()?;
        // SAFETY: the caller's.
        unsafe { sys::cuMemcpyHtoDAsync_v2(to, from.as_ptr().cast(), bytes, self.handle) }
            .result()
            .map_err(|error| cuda_error(error, "copy to the GPU"))
    }

    /// Copies to pinned host memory.
    ///
    /// # Safety
    /// As [`copy_in`](Self::copy_in).
    pub(crate) unsafe fn copy_out(&self, to: NonNull<u8>, from: u64, bytes: usize) -> Result<()> {
        self.device.bind()?;
        // SAFETY: the caller's.
        unsafe { sys::cuMemcpyDtoHAsync_v2(to.as_ptr().cast(), from, bytes, self.handle) }
            .result()
            .map_err(|error| cuda_error(error, "copy from the GPU"))
    }

    /// Captures what `work` puts on this stream. The capture is ended whatever `work` does, or the stream would stay
    /// unusable.
    pub(crate) fn capture(&self, work: impl FnOnce() -> Result<()>) -> Result<Graph> {
        self.device.bind()?;
        Feature::Graphs
            .check()
            .map_err(|lacks| Error::new(ErrorKind::Unsupported, "capture a CUDA graph").got(lacks))?;
        let failed = |error| cuda_error(error, "capture a CUDA graph");
        // Thread-local, so that other threads may allocate meanwhile.
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the handle lives as long as `self`.
        unsafe { result::stream::begin_capture(self.handle, mode) }.map_err(failed)?;
        let worked = work();
        // SAFETY: as above, and a capture was begun.
        let captured = unsafe { result::stream::end_capture(self.handle) };
        let instantiated = captured.map_err(failed).and_then(|graph| {
            // SAFETY: `graph` was captured just above. It is not needed once it is instantiated.
            unsafe {
                let instantiated = result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0));
                let _ = result::graph::destroy(graph);
                instantiated.map_err(failed)
            }
        });
        worked?;
        let graph = Graph { handle: instantiated?, device: Arc::clone(&self.device) };
        // SAFETY: both handles live. Uploading now keeps it out of the first launch.
        unsafe { result::graph::upload(graph.handle, self.handle) }.map_err(failed)?;
        Ok(graph)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _beside = self.device.enter();
        // SAFETY: created in `new`, destroyed once. CUDA lets work that is still on it finish.
        let _ = unsafe { result::stream::destroy(self.handle) };
    }
}

/// While it lives its thread may do what CUDA forbids to every thread of a process while one of them captures a graph in the default
/// mode, as ONNX Runtime does: allocate, load modules, ask about streams. The call would be refused with error 900, and spoil that graph
/// besides.
pub(crate) struct BesideCaptures {
    before: sys::CUstreamCaptureMode,
    /// The mode is the thread's own.
    _own: std::marker::PhantomData<*const ()>,
}

impl BesideCaptures {
    pub(crate) fn begin() -> Self {
        let mut mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the thread's own mode, which is changed for the one already in `mode`; it cannot fail with a mode that exists.
        let _ = unsafe { sys::cuThreadExchangeStreamCaptureMode(&raw mut mode) };
        Self { before: mode, _own: std::marker::PhantomData }
    }
}

impl Drop for BesideCaptures {
    fn drop(&mut self) {
        // SAFETY: as above; `before` is what the thread had.
        let _ = unsafe { sys::cuThreadExchangeStreamCaptureMode(&raw mut self.before) };
    }
}

/// A captured and instantiated CUDA graph.
#[derive(Debug)]
pub(crate) struct Graph {
    handle: sys::CUgraphExec,
    device: Arc<Device>,
}

// SAFETY: launches of one graph must not overlap on the host; a session, which owns it, is used by one thread at a time.
unsafe impl Send for Graph {}

impl Graph {
    /// Data plane: one driver call, or two.
    #[inline]
    pub(crate) fn launch(&self, stream: &Stream) -> Result<()> {
        self.device.bind()?;
        // SAFETY: both handles live as long as their owners.
        unsafe { result::graph::launch(self.handle, stream.handle) }
            .map_err(|error| cuda_error(error, "launch the graph"))
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        let _beside = self.device.enter();
        // SAFETY: instantiated in `capture`, destroyed once.
        let _ = unsafe { result::graph::exec_destroy(self.handle) };
    }
}

/// Memory on the device, zeroed when it is made.
#[derive(Debug)]
pub(crate) struct DeviceBuffer {
    address: sys::CUdeviceptr,
    bytes: usize,
    device: Arc<Device>,
}

impl DeviceBuffer {
    /// `what` is for the error message; `lower` says what to lower if there is too little memory.
    pub(crate) fn new(device: &Arc<Device>, bytes: usize, what: &str, lower: &str) -> Result<Self> {
        let _beside = device.enter()?;
        // SAFETY: freed in `Drop`.
        let address = unsafe { result::malloc_sync(bytes.max(1)) }.map_err(|error| {
            if error.0 != sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY {
                return cuda_error(error, &format!("allocate {what} on the GPU"));
            }
            let free = device.memory().map_or_else(|_| "an unknown number of".into(), |memory| mib(memory.free));
            Error::new(ErrorKind::OutOfMemory, format!("allocate {what} on the GPU"))
                .expected(format!("{} to be free", mib(bytes as u64)))
                .got(format!("{free} free on GPU {} ({})", device.ordinal, device.name))
                .advice(format!("lower {lower}, or end other users of the GPU (nvidia-smi lists them)"))
        })?;
        device.allocated.fetch_add(bytes as u64, Ordering::Relaxed);
        let buffer = Self { address, bytes, device: Arc::clone(device) };
        buffer.clear()?;
        Ok(buffer)
    }

    /// Fills it with zeros.
    pub(crate) fn clear(&self) -> Result<()> {
        let _beside = self.device.enter()?;
        // SAFETY: allocated with that size.
        unsafe { result::memset_d8_sync(self.address, 0, self.bytes) }
            .and_then(|()| null_stream_settled())
            .map_err(|error| cuda_error(error, "clear GPU memory"))
    }

    pub(crate) fn from_slice<T: bytemuck::Pod>(device: &Arc<Device>, data: &[T], what: &str) -> Result<Self> {
        let buffer = Self::new(device, std::mem::size_of_val(data), what, "nothing of it: it is small")?;
        let _beside = device.enter()?;
        // SAFETY: the buffer has just that size; the call returns when `data` has been read.
        unsafe { result::memcpy_htod_sync(buffer.address, data) }
            .and_then(|()| null_stream_settled())
            .map_err(|error| cuda_error(error, "copy to the GPU"))?;
        Ok(buffer)
    }

    /// Copies `data` to its beginning.
    ///
    /// # Panics
    /// If there is no room for it.
    pub(crate) fn fill(&self, data: &[u8]) -> Result<()> {
        assert!(data.len() <= self.bytes, "{} bytes into a buffer of {}", data.len(), self.bytes);
        let _beside = self.device.enter()?;
        // SAFETY: the buffer has room, as was just seen; the call returns when `data` has been read.
        unsafe { result::memcpy_htod_sync(self.address, data) }
            .and_then(|()| null_stream_settled())
            .map_err(|error| cuda_error(error, "copy to the GPU"))
    }

    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The contents, for tests and checks.
    pub(crate) fn read<T: bytemuck::Pod>(&self) -> Result<Vec<T>> {
        let _beside = self.device.enter()?;
        let mut data = vec![T::zeroed(); self.bytes / size_of::<T>()];
        // SAFETY: `data` is no larger than the buffer.
        unsafe { result::memcpy_dtoh_sync(&mut data, self.address) }
            .map_err(|error| cuda_error(error, "copy from the GPU"))?;
        Ok(data)
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        let _beside = self.device.enter();
        // SAFETY: allocated in `new`, freed once.
        let _ = unsafe { result::free_sync(self.address) };
        self.device.allocated.fetch_sub(self.bytes as u64, Ordering::Relaxed);
    }
}

/// Where memory lies that host and device see.
#[derive(Debug)]
pub(crate) struct Mapping {
    host: NonNull<u8>,
    address: sys::CUdeviceptr,
    bytes: usize,
}

impl Mapping {
    /// Host address of byte `offset`.
    pub(crate) fn host(&self, offset: usize) -> NonNull<u8> {
        assert!(offset <= self.bytes, "inside the buffer");
        // SAFETY: inside, or one past the end of, what is mapped.
        unsafe { self.host.add(offset) }
    }

    /// Device address of byte `offset`.
    pub(crate) fn address(&self, offset: usize) -> u64 {
        self.address + offset as u64
    }
}

/// Pinned host memory that the device reads and writes over PCIe: write-back, not write-combined, because the host
/// reads it, too. Zeroed when it is made.
#[derive(Debug)]
pub(crate) struct MappedBuffer {
    mapping: Mapping,
    device: Arc<Device>,
}

// SAFETY: plain memory with one owner.
unsafe impl Send for MappedBuffer {}

impl MappedBuffer {
    pub(crate) fn new(device: &Arc<Device>, bytes: usize) -> Result<Self> {
        let _beside = device.enter()?;
        let failed = |error| cuda_error(error, &format!("allocate {} of pinned host memory", mib(bytes as u64)));
        // SAFETY: freed in `Drop`.
        let host = unsafe { result::malloc_host(bytes.max(1), sys::CU_MEMHOSTALLOC_DEVICEMAP) }.map_err(failed)?;
        let host = NonNull::new(host.cast::<u8>()).expect("CUDA gave memory");
        let mut buffer = Self { mapping: Mapping { host, address: 0, bytes }, device: Arc::clone(device) };
        // SAFETY: `host` is pinned, mapped and `bytes` long.
        unsafe {
            host.as_ptr().write_bytes(0, bytes);
            sys::cuMemHostGetDevicePointer_v2(&raw mut buffer.mapping.address, host.as_ptr().cast::<c_void>(), 0)
        }
        .result()
        .map_err(failed)?;
        Ok(buffer)
    }
}

impl std::ops::Deref for MappedBuffer {
    type Target = Mapping;
    fn deref(&self) -> &Mapping {
        &self.mapping
    }
}

impl Drop for MappedBuffer {
    fn drop(&mut self) {
        let _beside = self.device.enter();
        // SAFETY: allocated in `new`, freed once.
        let _ = unsafe { result::free_host(self.mapping.host.as_ptr().cast()) };
    }
}

/// A loaded fat binary.
#[derive(Debug)]
pub(crate) struct Module {
    handle: sys::CUmodule,
    device: Arc<Device>,
}

// SAFETY: a module may be used from any thread.
unsafe impl Send for Module {}

/// The shape of a kernel that is one cluster of blocks, or several side by side.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clusters {
    pub(crate) count: u32,
    /// Of a cluster.
    pub(crate) blocks: u32,
    /// Of a block.
    pub(crate) threads: u32,
    /// Dynamic shared memory of a block.
    pub(crate) shared_bytes: u32,
}

/// A kernel of a [`Module`], which must outlive it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Function(sys::CUfunction);

// SAFETY: a function may be launched from any thread.
unsafe impl Send for Function {}

#[cfg_attr(not(tickrt_kernels), allow(dead_code))]
impl Module {
    pub(crate) fn load(device: &Arc<Device>, fat_binary: &'static [u8]) -> Result<Self> {
        Self::load_image(device, fat_binary, "load the kernels", "build tickrt with a CUDA toolkit that knows this GPU")
    }

    /// A cubin or fat binary, aligned to 8, which CUDA copies.
    pub(crate) fn load_image(device: &Arc<Device>, image: &[u8], operation: &str, advice: &str) -> Result<Self> {
        assert!(image.as_ptr().addr().is_multiple_of(8), "an image is aligned");
        let _beside = device.enter()?;
        // SAFETY: who calls knows that it is an image, which tells its own length.
        let handle = unsafe { result::module::load_data(image.as_ptr().cast()) }.map_err(|error| {
            let (major, minor) = device.compute_capability;
            Error::new(ErrorKind::Cuda { code: error.0 as i32 }, operation)
                .expected(format!("machine code or PTX for compute capability {major}.{minor}"))
                .got(name(error))
                .advice(advice)
        })?;
        Ok(Self { handle, device: Arc::clone(device) })
    }

    pub(crate) fn function(&self, name: &CStr) -> Result<Function> {
        // SAFETY: the module is loaded.
        let function = unsafe { result::module::get_function(self.handle, name.to_owned()) };
        function
            .map(Function)
            .map_err(|error| cuda_error(error, &format!("find the kernel {}", name.to_string_lossy())))
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        let _beside = self.device.enter();
        // SAFETY: loaded in `load`, unloaded once.
        let _ = unsafe { result::module::unload(self.handle) };
    }
}

impl Function {
    /// What it was compiled for, machine code or PTX: 90 for compute capability 9.0; 0 where the driver does not say.
    pub(crate) fn virtual_architecture(self) -> i32 {
        if !Feature::FunctionAttributes.is_there() {
            return 0;
        }
        let (mut version, which) = (0, sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_PTX_VERSION);
        // SAFETY: writes one number; the module is loaded.
        let asked = unsafe { sys::cuFuncGetAttribute(&raw mut version, which, self.0) };
        if asked == sys::CUresult::CUDA_SUCCESS { version } else { 0 }
    }

    /// Launches on `stream`, with one parameter, once the work before it has ended.
    ///
    /// # Safety
    /// `parameter` must begin with what the kernel takes, and every address in it be valid until the work is done; the
    /// module must be loaded.
    pub(crate) unsafe fn launch<P>(self, stream: &Stream, blocks: u32, threads: u32, parameter: &P) -> Result<()> {
        // SAFETY: passed on to the caller.
        unsafe {
            self.launch_blocks(
                stream,
                Clusters { count: blocks, blocks: 1, threads, shared_bytes: 0 },
                parameter,
                "launch a kernel",
            )
        }
    }

    /// # Safety
    /// As [`launch`](Self::launch).
    unsafe fn launch_blocks<P>(self, stream: &Stream, of: Clusters, parameter: &P, operation: &str) -> Result<()> {
        let Clusters { count, blocks, threads, shared_bytes } = of;
        let blocks = count * blocks;
        stream.device.bind()?;
        let mut parameters = [std::ptr::from_ref(parameter).cast_mut().cast::<c_void>()];
        // Not cuLaunchKernelEx, which drivers before CUDA 11.8's lack.
        // SAFETY: passed on to the caller; the parameters are read before the call returns.
        unsafe {
            let (nothing, parameters) = (std::ptr::null_mut(), parameters.as_mut_ptr());
            sys::cuLaunchKernel(self.0, blocks, 1, 1, threads, 1, 1, shared_bytes, stream.handle, parameters, nothing)
        }
        .result()
        .map_err(|error| cuda_error(error, operation))
    }

    /// Lets it have `shared_bytes` of shared memory a block and, of a cluster of more than 8 blocks, that cluster: how many
    /// clusters of `blocks` blocks of `threads` threads the GPU has room for, if nothing else is there. The driver must have
    /// [`Feature::Clusters`].
    pub(crate) fn prepare_clusters(self, device: &Device, clusters: Clusters) -> Result<u32> {
        use sys::CUfunction_attribute as Attribute;
        let Clusters { count, blocks, threads, shared_bytes } = clusters;
        let _beside = device.enter()?;
        let failed =
            |error| cuda_error(error, &format!("prepare a kernel of {blocks} blocks and {shared_bytes} bytes"));
        let set = |attribute, value: u32| {
            // SAFETY: the module is loaded.
            unsafe { sys::cuFuncSetAttribute(self.0, attribute, value as i32) }.result().map_err(failed)
        };
        set(Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared_bytes)?;
        if blocks > 8 {
            set(Attribute::CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1)?;
        }
        let mut attribute = sys::CUlaunchAttribute {
            id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION,
            pad: [0; 4],
            value: sys::CUlaunchAttributeValue {
                clusterDim: sys::CUlaunchAttributeValue_union__bindgen_ty_1 { x: blocks, y: 1, z: 1 },
            },
        };
        let config = sys::CUlaunchConfig {
            gridDimX: count * blocks,
            gridDimY: 1,
            gridDimZ: 1,
            blockDimX: threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: shared_bytes,
            hStream: std::ptr::null_mut(),
            attrs: &raw mut attribute,
            numAttrs: 1,
        };
        let mut most = 0;
        // SAFETY: writes one number; the configuration is read before the call returns.
        unsafe { sys::cuOccupancyMaxActiveClusters(&raw mut most, self.0, &raw const config) }
            .result()
            .map_err(failed)?;
        // Of small blocks several fit a multiprocessor; each is to have its own.
        Ok((most.max(0) as u32).min(device.multiprocessors()? / blocks))
    }

    /// Launches its clusters on `stream`, with one parameter. [`prepare_clusters`](Self::prepare_clusters) came before, and the
    /// kernel itself says how many blocks a cluster of its has.
    ///
    /// # Safety
    /// As [`launch`](Self::launch).
    pub(crate) unsafe fn launch_clusters<P>(self, stream: &Stream, clusters: Clusters, parameter: &P) -> Result<()> {
        // SAFETY: passed on to the caller.
        unsafe { self.launch_blocks(stream, clusters, parameter, "launch a turn of a resident engine") }
    }

    /// As [`launch`](Self::launch), before the kernel before it has ended: this one waits for it by itself
    /// (`griddepcontrol.wait`), on GPUs from compute capability 9.0 on. The driver must have
    /// [`Feature::LaunchAttributes`].
    ///
    /// # Safety
    /// As [`launch`](Self::launch), and the kernel must wait so before it touches memory.
    pub(crate) unsafe fn launch_early<P>(
        self,
        stream: &Stream,
        blocks: u32,
        threads: u32,
        parameter: &P,
    ) -> Result<()> {
        let mut attribute = sys::CUlaunchAttribute {
            id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
            pad: [0; 4],
            value: sys::CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 },
        };
        stream.device.bind()?;
        let mut parameters = [std::ptr::from_ref(parameter).cast_mut().cast::<c_void>()];
        let config = sys::CUlaunchConfig {
            gridDimX: blocks,
            gridDimY: 1,
            gridDimZ: 1,
            blockDimX: threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: 0,
            hStream: stream.handle,
            attrs: &raw mut attribute,
            numAttrs: 1,
        };
        // SAFETY: passed on to the caller; configuration and parameters are read before the call returns.
        unsafe { sys::cuLaunchKernelEx(&raw const config, self.0, parameters.as_mut_ptr(), std::ptr::null_mut()) }
            .result()
            .map_err(|error| cuda_error(error, "launch a kernel"))
    }
}

/// Device memory is filled through the default stream, for which a non-blocking stream does not wait.
fn null_stream_settled() -> Result<(), DriverError> {
    // SAFETY: the default stream is always there.
    unsafe { result::stream::synchronize(std::ptr::null_mut()) }
}

/// Something whose drop calls the driver.
pub(crate) trait Settle {
    /// Whether nothing of it runs any more, so that it can be dropped. Waits for a while.
    fn settled(&self) -> bool;
}

/// Drops what it holds only where that is safe, and leaks it otherwise: dropping under a running kernel frees memory
/// that the kernel still writes, and dropping after CUDA is finished calls the driver.
#[derive(Debug)]
pub(crate) struct Quarantine<T: Settle> {
    inner: ManuallyDrop<T>,
    closed: bool,
}

impl<T: Settle> Quarantine<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self { inner: ManuallyDrop::new(inner), closed: false }
    }

    /// From here on the driver is not called any more.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }
}

impl<T: Settle> std::ops::Deref for Quarantine<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T: Settle> std::ops::DerefMut for Quarantine<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

impl<T: Settle> Drop for Quarantine<T> {
    fn drop(&mut self) {
        if !self.closed && self.inner.settled() {
            // SAFETY: dropped here only, once.
            unsafe { ManuallyDrop::drop(&mut self.inner) };
        }
    }
}

/// Whether CUDA's error means that no call of the process works any more. The runtime's numbers are the driver's.
pub(crate) fn is_sticky(code: i32) -> bool {
    matches!(
        code,
        4 // the driver is unloading
        | 46 | 101 // the device is unavailable or gone
        | 79 | 802 // the system is not ready
        | 214 | 220 | 226 // an uncorrectable error of the memory or NVLink, a contained one
        | 700 | 702 // an illegal address, a launch that ran too long
        | 708..=710 // the context is in use elsewhere or destroyed, an assertion in a kernel
        | 714..=719 // an illegal instruction, address or stack; a failed launch
        | 721..=729
        | 999 // unknown: what a device says that fell off the bus
    )
}

fn cuda_error(error: DriverError, operation: &str) -> Error {
    let code = error.0 as i32;
    if is_sticky(code) {
        // On the data plane, too: without a story nothing is allocated.
        return ErrorKind::DeviceLost { code }.into();
    }
    let kind = match error.0 {
        sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => ErrorKind::OutOfMemory,
        _ => ErrorKind::Cuda { code },
    };
    Error::new(kind, operation).got(format!("{} ({code})", name(error)))
}

/// CUDA's name for an error, from our own table: building an error never calls the driver.
fn name(error: DriverError) -> String {
    format!("{:?}", error.0)
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

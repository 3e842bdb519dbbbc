//! What the tests share: where files lie, what this machine has, and a backend made of plain memory.
#![allow(dead_code)] // each test binary uses a part

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tickrt::backend::{CallShape, Health, OutputShape, Region, Signature, SlotHeader, SlotMemory};
use tickrt::resident::program::BEGINS_ANEW;
use tickrt::{
    Backend, BackendKind, Completion, DataType, Device, Done, Error, ErrorKind, IoMode, Library, Normalization,
    Normalizer, Preference, Result, SessionConfig, Status, TensorInfo, Unit,
};

/// The repository, or what of it was carried to the machine that tests.
pub fn root() -> PathBuf {
    let named = std::env::var_os("TICKRT_TEST_ROOT").or_else(|| std::env::var_os("CARGO_MANIFEST_DIR"));
    named.map_or_else(|| PathBuf::from("."), PathBuf::from)
}

pub fn model(name: &str) -> PathBuf {
    root().join("models").join(name)
}

pub fn normalization(model_name: &str) -> Normalization {
    Normalization::read(model(&format!("{model_name}.normalization.json"))).unwrap()
}

/// Whether a missing GPU or library is a failure: set on GPU machines.
pub fn must_run() -> bool {
    std::env::var_os("TRT_CI").is_some_and(|value| value == "1")
}

/// `what`, or a printed reason why the test does nothing on this machine.
pub fn or_skip<T>(what: Result<T>) -> Option<T> {
    match what {
        Ok(what) => Some(what),
        Err(error) if must_run() => panic!("TRT_CI=1 and {error}"),
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

/// The GPU.
pub fn gpu() -> Option<Arc<Device>> {
    or_skip(Device::open(0))
}

/// Whether the GPU has clusters, which resident engines of several blocks need.
pub fn has_clusters(device: &Device) -> bool {
    let has = device.compute_capability() >= (9, 0);
    if !has {
        assert!(!must_run(), "TRT_CI=1, and a GPU without clusters");
        eprintln!("skipped: clusters came with compute capability 9.0");
    }
    has
}

/// The GPU, and a TensorRT for it.
pub fn tensorrt() -> Option<(Arc<Device>, Library)> {
    let device = gpu()?;
    Some((device, or_skip(Library::open_any(&Preference::Any))?))
}

/// The numbers of an .npy file of little-endian `T` in C order, and its shape.
pub fn npy<T: bytemuck::Pod>(path: impl AsRef<Path>) -> (Vec<T>, Vec<usize>) {
    let path = path.as_ref();
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(&bytes[..6], b"\x93NUMPY", "{} is an .npy file", path.display());
    let header = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let text = std::str::from_utf8(&bytes[10..10 + header]).unwrap();
    assert!(text.contains("'fortran_order': False"), "{text}");
    let shape = text.split("'shape': (").nth(1).unwrap().split(')').next().unwrap();
    let shape = shape.split(',').filter_map(|d| d.trim().parse().ok()).collect();
    let data = &bytes[10 + header..];
    (data.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect(), shape)
}

/// What a [`FakeBackend`] is told from outside, and what it tells.
#[derive(Debug, Default)]
pub struct Strings {
    /// Calls stay in flight until `release`.
    pub hold: AtomicBool,
    /// How many launches are still to succeed before `error` comes; `usize::MAX` for all.
    pub launches_left: AtomicUsize,
    pub quarantined: AtomicBool,
    /// Launches seen.
    pub launches: AtomicUsize,
}

/// A backend of plain memory: the output is the sum of the input, plus `bias`.
pub struct FakeBackend {
    pub strings: Arc<Strings>,
    kind: BackendKind,
    bias: f32,
    error: Option<ErrorKind>,
    health: Health,
    signature: Signature,
    slots: Vec<SlotMemory>,
    held: Vec<usize>,
    /// By symbol: what a device would keep.
    rings: Option<HashMap<u32, Vec<f32>>>,
    /// What calls carry: the sum of all inputs since it was begun anew.
    state: Option<f32>,
    row: usize,
    // Boxed one by one: the slots' addresses are out in the world.
    #[allow(clippy::vec_box)]
    _memory: Vec<Box<Slot>>,
}

#[repr(C, align(64))]
struct Slot {
    header: SlotHeader,
    done: Completion,
    unit: Unit,
    output: [f32; 16],
    input: [f32; 64],
}

impl FakeBackend {
    pub fn new(kind: BackendKind, bias: f32, elements: usize, config: &SessionConfig) -> Self {
        let tensor = |name: &str, mode, count: usize| TensorInfo {
            name: name.into(),
            mode,
            data_type: DataType::F32,
            shape: vec![1, count as i64],
        };
        let (input, output) = (tensor("input", IoMode::Input, elements), tensor("output", IoMode::Output, 1));
        let identity = Normalization::new("input", DataType::F32);
        let normalization = config.normalizations.iter().flatten().next().unwrap_or(&identity);
        let row = config.windows.as_ref().map(|windows| windows.row);
        let shape = CallShape {
            inputs: vec![Normalizer::new(normalization, &input, &input.shape, row).unwrap()],
            outputs: vec![OutputShape { data_type: DataType::F32, shape: vec![1, 1], count: 1 }],
        };
        #[allow(clippy::vec_box)]
        let mut memory: Vec<Box<Slot>> = (0..config.depth)
            .map(|_| {
                Box::new(Slot {
                    header: SlotHeader::default(),
                    done: Completion::default(),
                    unit: Unit::default(),
                    output: [0.0; 16],
                    input: [0.0; 64],
                })
            })
            .collect();
        let slots = memory
            .iter_mut()
            .map(|slot| SlotMemory {
                header: NonNull::from(&mut slot.header),
                inputs: vec![Region { start: NonNull::from(&mut slot.input).cast(), bytes: elements * 4 }],
                input_units: None,
                newest_row: None,
                outputs: vec![Region { start: NonNull::from(&mut slot.output).cast(), bytes: 4 }],
                done: Done::Flag(NonNull::from(&mut slot.done)),
            })
            .collect();
        let strings = Arc::new(Strings { launches_left: AtomicUsize::new(usize::MAX), ..Strings::default() });
        Self {
            strings,
            kind,
            bias,
            error: None,
            health: Health::Idle,
            signature: Signature { inputs: vec![input], outputs: vec![output], shapes: vec![shape] },
            slots,
            held: Vec::new(),
            rings: None,
            state: None,
            row: row.unwrap_or(0),
            _memory: memory,
        }
    }

    /// The error of the launch after `launches_left` have succeeded.
    pub fn failing(mut self, error: ErrorKind) -> Self {
        self.error = Some(error);
        self
    }

    /// Keeps rings of its own, as TensorRT's backend does.
    pub fn with_rings(mut self) -> Self {
        self.rings = Some(HashMap::new());
        self
    }

    /// Carries state from call to call, as a resident engine may.
    pub fn with_state(mut self) -> Self {
        self.state = Some(f32::NAN);
        self
    }

    /// Answers in band, as TensorRT's backend does where answers are small.
    pub fn in_band(mut self) -> Self {
        for (slot, memory) in self.slots.iter_mut().zip(&mut self._memory) {
            slot.done = Done::InBand(NonNull::from(&mut memory.unit));
        }
        self
    }

    /// What it answers when asked why a call does not come back.
    pub fn with_health(mut self, health: Health) -> Self {
        self.health = health;
        self
    }

    /// As `take` in kernels/normalize.cuh: the newest rows come with the call, the rest is in the ring.
    fn take_window(&mut self, slot: usize) {
        let (memory, count) = (&self.slots[slot], self.signature.shapes[0].inputs[0].count());
        let Some(rings) = &mut self.rings else { return };
        // SAFETY: as in `compute`.
        let (header, input) = unsafe {
            let input = memory.inputs[0].start.as_ptr().cast::<f32>();
            (memory.header.as_ref(), std::slice::from_raw_parts_mut(input, count))
        };
        if header.window == 0 {
            return;
        }
        let (rows, row) = (count / self.row, self.row);
        let ring = rings.entry(header.symbol).or_insert_with(|| vec![f32::NAN; count]);
        for time in 0..rows {
            let place = (header.oldest as usize + time) % rows * row;
            let (kept, given) = (&mut ring[place..place + row], &mut input[time * row..(time + 1) * row]);
            if time + (header.new_rows as usize) < rows {
                given.copy_from_slice(kept);
            } else {
                kept.copy_from_slice(given);
            }
        }
    }

    fn compute(&mut self, slot: usize) {
        self.take_window(slot);
        let (memory, count) = (&self.slots[slot], self.signature.shapes[0].inputs[0].count());
        // SAFETY: the slots live as long as `self`, and the session keeps to the contract of `Backend`.
        unsafe {
            let input = std::slice::from_raw_parts(memory.inputs[0].start.as_ptr(), count * 4);
            let mut normalized = [0.0_f32; 64];
            let normalized = &mut normalized[..count];
            let normalizer = &self.signature.shapes[0].inputs[0];
            let outcome = normalizer.apply(input, bytemuck::cast_slice_mut(normalized));
            let status = Status(if outcome.is_err() { Status::NON_FINITE_INPUT } else { 0 });
            let sequence = memory.header.as_ref().sequence;
            let mut answer = normalized.iter().sum::<f32>() + self.bias;
            if let Some(state) = &mut self.state {
                assert_eq!(memory.header.as_ref().window, 1);
                answer += if memory.header.as_ref().new_rows == BEGINS_ANEW { 0.0 } else { *state };
                *state = answer;
            }
            match memory.done {
                Done::Flag(done) => {
                    *memory.outputs[0].start.as_ptr().cast::<f32>() = answer;
                    done.as_ref().publish(sequence, status);
                }
                Done::InBand(unit) => unit.as_ref().publish(sequence, status, answer.to_bits()),
            }
        }
    }
}

// SAFETY: every slot is a box of its own that lives as long as the backend; a call is computed in `launch`, or by a later
// launch once it is no longer held.
unsafe impl Backend for FakeBackend {
    fn kind(&self) -> BackendKind {
        self.kind
    }
    fn description(&self) -> &str {
        "a fake"
    }
    fn engine_id(&self) -> [u8; 32] {
        [self.bias as u8; 32]
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn slots(&self) -> &[SlotMemory] {
        &self.slots
    }
    fn graph(&self) -> Result<(), &str> {
        Err("a fake has none")
    }
    fn keeps_windows(&self) -> bool {
        self.rings.is_some()
    }
    fn carries_state(&self) -> bool {
        self.state.is_some()
    }
    fn launch(&mut self, slot: usize, _: usize) -> Result<()> {
        assert!(!self.strings.quarantined.load(Ordering::SeqCst), "a quarantined backend is not called");
        self.strings.launches.fetch_add(1, Ordering::SeqCst);
        if let Some(error) = self.error
            && self.strings.launches_left.fetch_sub(1, Ordering::SeqCst) == 0
        {
            return Err(Error::from(error));
        }
        self.held.push(slot);
        if !self.strings.hold.load(Ordering::SeqCst) {
            // Their memory is kept: tests count allocations.
            for place in 0..self.held.len() {
                self.compute(self.held[place]);
            }
            self.held.clear();
        }
        Ok(())
    }
    fn health(&mut self) -> Health {
        self.health.clone()
    }
    fn device_memory(&self) -> u64 {
        0
    }
    fn quarantine(&mut self) {
        self.strings.quarantined.store(true, Ordering::SeqCst);
    }
}

/// Equal bits, but for the bits of a NaN, which no standard fixes.
pub fn same_bits(one: &[u8], other: &[u8], half: bool) -> bool {
    let nan = |bits: u32| if half { bits & 0x7fff > 0x7c00 } else { bits & 0x7fff_ffff > 0x7f80_0000 };
    let bits = |b: &[u8]| {
        if half { u32::from(u16::from_le_bytes([b[0], b[1]])) } else { u32::from_le_bytes([b[0], b[1], b[2], b[3]]) }
    };
    let size = if half { 2 } else { 4 };
    one.len() == other.len()
        && one.chunks_exact(size).zip(other.chunks_exact(size)).all(|(one, other)| {
            let (one, other) = (bits(one), bits(other));
            one == other || (nan(one) && nan(other))
        })
}

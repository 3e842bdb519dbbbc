//! Resident engines: a kernel of tickrt's own that stays on the GPU, polls its slots and answers in band. A call is a write, a
//! spin and a read: no launch, no call of the driver.
//!
//! The kernel runs in turns of a bounded length ([`ResidentConfig::turn`](crate::ResidentConfig::turn)), two of them queued one
//! behind the other, so that whatever becomes of the host the GPU is free again soon. `turns` has the thread that queues
//! them, `known_answer` what one of them asks now and then, `room` what keeps engines from taking more of the GPU
//! than there is.

mod known_answer;
mod room;
mod turns;

use std::ffi::CString;
use std::sync::Arc;

use self::known_answer::KnownAnswer;
use self::room::Room;
use self::turns::{ReportWords, Turns};
use crate::backend::slots::SlotLayout;
use crate::backend::{Backend, BackendKind, CallShape, Health, OutputShape, Signature, SlotMemory};
use crate::completion::in_band;
use crate::config::{SessionConfig, WindowConfig};
use crate::device::{
    Bar1Buffer, Clusters, Device, DeviceBuffer, Feature, MappedBuffer, Module, Quarantine, Settle, Stream,
};
use crate::error::{Error, ErrorKind, Result};
use crate::resident::artefact::Facts;
use crate::resident::turn::{INPUT_NEAR, PROGRESS_WORDS, REPORT_WORDS, Sums, Turn};
use crate::resident::{Artefact, Semantics};
use crate::tensor::IoMode;

/// The backend. Made from an [`Artefact`], with [`Session::resident`](crate::Session::resident) or
/// [`PredictorBuilder::resident`](crate::PredictorBuilder::resident).
pub(crate) struct Resident {
    device_side: Quarantine<DeviceSide>,
    signature: Signature,
    slots: Vec<SlotMemory>,
    /// The call in whose place the sign to end lies.
    marked: Option<u64>,
    resting: bool,
    semantics: Semantics,
    calls_before: u64,
    description: String,
    engine_id: [u8; 32],
}

/// Everything whose drop calls the driver.
struct DeviceSide {
    turns: Turns,
    memory: Memory,
    _room: Room,
    device_memory: u64,
}

/// What the kernel reads and writes. The addresses are in its parameter; only the report is looked at from here.
struct Memory {
    slots: MappedBuffer,
    /// The units of the slots' inputs, where they are the GPU's and not the slots'.
    inputs: Option<Bar1Buffer>,
    report: MappedBuffer,
    constants: DeviceBuffer,
    state: DeviceBuffer,
    /// The number of the next call, from turn to turn.
    progress: DeviceBuffer,
}

impl Resident {
    /// Loads the artefact's code, allocates everything and has the first turn wait for calls.
    pub(crate) fn new(artefact: &Artefact, config: &SessionConfig) -> Result<Self> {
        // First: what does not fit the artefact fits it on no machine.
        let signature = signature(artefact, config)?;
        let device = Device::open(config.device)?;
        Feature::Clusters.check().map_err(|got| {
            Error::new(ErrorKind::Unsupported, "start a resident engine")
                .expected("a driver that has clusters")
                .got(got)
        })?;
        artefact.check(device.compute_capability(), u64::from(device.shared_bytes_per_block()?))?;
        room::refuse_company(&device, config.resident.share_gpu)?;
        let (free_before, allocated_before) = (device.memory()?.free, device.allocated());
        let facts = artefact.facts();
        let clusters = Clusters {
            count: facts.clusters,
            blocks: facts.blocks,
            threads: facts.threads,
            shared_bytes: facts.shared_bytes,
        };
        let module = load(&device, artefact.cubin())?;
        let entry = CString::new(facts.entry.as_str()).map_err(|_| ErrorKind::SidecarDamaged)?;
        let kernel = module.function(&entry)?;
        let room = Room::take(&device, clusters, kernel.prepare_clusters(&device, clusters)?)?;
        let layout = SlotLayout::all_in_band(&signature, newest_row(facts)?);
        let memory = Memory::new(&device, artefact, &layout, config)?;
        let slots = memory.slots(&layout, config.depth);
        let turn = memory.turn(&layout, config);
        let every = config.resident.known_answer_every;
        let known_answer = (!every.is_zero())
            .then(|| KnownAnswer::new(&device, (facts, &signature), &layout, &turn, every))
            .transpose()?;
        let stream = Stream::new(&device, config.stream_priority)?;
        let turns = Turns::start(turns::Parts {
            stream,
            _module: module,
            kernel,
            clusters,
            turn,
            report: memory.report_words(),
            known_answer,
        })?;
        // Turns are on their way: nothing may fail any more.
        let taken = device.memory().map_or(0, |now| free_before.saturating_sub(now.free));
        let device_memory = taken.max(device.allocated().saturating_sub(allocated_before));
        Ok(Self {
            device_side: Quarantine::new(DeviceSide { turns, memory, _room: room, device_memory }),
            signature,
            slots,
            marked: None,
            resting: false,
            calls_before: config.resident.calls_before,
            semantics: facts.semantics,
            description: format!(
                "a resident kernel of {} on {}{}",
                match facts.all_blocks() {
                    1 => "one block".to_owned(),
                    several => format!("{several} blocks"),
                },
                device.name(),
                if config.resident.bar1 { ", calls through BAR1" } else { "" }
            ),
            engine_id: artefact.sha256(),
        })
    }

    /// Whether calls can be made. Data plane.
    #[inline]
    fn check(&self) -> Result<()> {
        if self.device_side.is_closed() {
            return Err(ErrorKind::Unavailable.into());
        }
        self.device_side.turns.failed().map_or(Ok(()), Err)
    }

    /// What has been written of inputs is on its way.
    #[inline]
    fn flush(&self) {
        if let Some(inputs) = &self.device_side.memory.inputs {
            inputs.flush();
        }
    }

    /// The first unit of the slot that call `sequence` has.
    fn first_unit(&self, sequence: u64) -> &crate::completion::Unit {
        let slot = ((sequence - 1) % self.slots.len() as u64) as usize;
        let units = self.slots[slot].input_units.expect("`SlotLayout::all_in_band` gives every slot units");
        // SAFETY: the slot's memory lives as long as `self`, and a unit is atomic.
        unsafe { units.as_ref() }
    }
}

// SAFETY: the slots lie in `memory.slots`, which is neither moved nor freed before the backend is (quarantined, never);
// `SlotLayout` gives each its own lines. The kernel writes every unit of an answer whole with its tag, once, after it has seen
// the number of that call in every unit of its input, and touches nothing else of a slot.
unsafe impl Backend for Resident {
    fn kind(&self) -> BackendKind {
        BackendKind::Resident
    }

    fn description(&self) -> &str {
        &self.description
    }

    fn engine_id(&self) -> [u8; 32] {
        self.engine_id
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn slots(&self) -> &[SlotMemory] {
        &self.slots
    }

    fn graph(&self) -> Result<(), &str> {
        Err("its kernel is on the GPU already")
    }

    fn keeps_windows(&self) -> bool {
        self.semantics == Semantics::Window
    }

    fn carries_state(&self) -> bool {
        self.semantics == Semantics::Stateful
    }

    /// The session has written the input's units: the kernel has seen them, or will.
    #[inline]
    fn launch(&mut self, _slot: usize, _shape: usize) -> Result<()> {
        self.flush();
        self.check()?;
        if self.resting {
            // The call lies where the sign lay.
            (self.resting, self.marked) = (false, None);
            self.device_side.turns.go_on();
        }
        Ok(())
    }

    fn takes_calls_in_order(&self) -> bool {
        true
    }

    fn calls_before(&self) -> u64 {
        self.calls_before
    }

    fn refuses_non_finite(&self) -> bool {
        false
    }

    fn rest(&mut self, next: u64, is_free: bool) {
        if self.device_side.is_closed() || self.resting {
            return;
        }
        self.resting = true;
        if is_free {
            in_band::stop(self.first_unit(next), next);
            self.flush();
            self.marked = Some(next);
        }
        self.device_side.turns.rest(next);
    }

    fn wake(&mut self) -> Result<()> {
        self.check()?;
        if self.resting {
            self.resting = false;
            if let Some(next) = self.marked.take() {
                in_band::take_back_stop(self.first_unit(next), next);
                self.flush();
            }
            self.device_side.turns.go_on();
        }
        Ok(())
    }

    fn health(&mut self) -> Health {
        self.check().map_or_else(Health::Failed, |()| Health::Running)
    }

    fn turns(&self) -> Option<Sums> {
        let words = self.device_side.memory.report_words();
        Some(Sums { known_answers: self.device_side.turns.known_answers(), ..Sums::read(|word| words.read(word)) })
    }

    fn weights(&self) -> Option<(u64, usize)> {
        let constants = &self.device_side.memory.constants;
        Some((constants.address(), constants.bytes()))
    }

    fn device_memory(&self) -> u64 {
        self.device_side.device_memory
    }

    fn quarantine(&mut self) {
        self.device_side.turns.abandon();
        self.device_side.close();
    }
}

impl Settle for DeviceSide {
    fn settled(&self) -> bool {
        self.turns.end()
    }
}

impl Memory {
    fn new(device: &Arc<Device>, artefact: &Artefact, layout: &SlotLayout, config: &SessionConfig) -> Result<Self> {
        let (constants, lower) = (artefact.constants(), "the number of resident engines");
        let first = config.resident.calls_before + 1;
        let inputs =
            config.resident.bar1.then(|| Bar1Buffer::new(device, layout.unit_bytes * config.depth)).transpose()?;
        Ok(Self {
            slots: MappedBuffer::new(device, layout.bytes * config.depth)?,
            inputs,
            report: MappedBuffer::new(device, REPORT_WORDS * 8)?,
            constants: DeviceBuffer::from_slice(device, constants, "a resident engine's constants")?,
            state: DeviceBuffer::new(
                device,
                artefact.facts().state_bytes as usize,
                "a resident engine's state",
                lower,
            )?,
            progress: DeviceBuffer::from_slice(device, &progress(first), "a resident engine's progress")?,
        })
    }

    fn report_words(&self) -> ReportWords {
        // SAFETY: `new` has made them, aligned, and the device writes them whole; the turns that look at them end before.
        unsafe { ReportWords::new(self.report.host(0)) }
    }

    fn slots(&self, layout: &SlotLayout, count: usize) -> Vec<SlotMemory> {
        match &self.inputs {
            Some(inputs) => layout.slots_with(&self.slots, count, |slot| Some(inputs.host(slot * layout.unit_bytes))),
            None => layout.slots(&self.slots, count),
        }
    }

    fn turn(&self, layout: &SlotLayout, config: &SessionConfig) -> Turn {
        let units = layout.input_units.expect("`SlotLayout::all_in_band` gives every slot units");
        let (input, input_stride) = match &self.inputs {
            Some(inputs) => (inputs.address(0), layout.unit_bytes),
            None => (self.slots.address(units), layout.bytes),
        };
        Turn {
            constants: self.constants.address(),
            input,
            answer: self.slots.address(layout.done),
            progress: self.progress.address(),
            report: self.report.address(0),
            limit_ns: config.resident.turn.as_nanos() as u64,
            state: self.state.address(),
            input_stride: input_stride as u32,
            answer_stride: layout.bytes as u32,
            depth: config.depth as u32,
            flags: if self.inputs.is_some() { INPUT_NEAR } else { 0 },
            rows: self.slots.address(layout.inputs[0].0),
            rows_stride: layout.bytes as u32,
            reserved: 0,
        }
    }
}

/// Before the first turn, whose first call is `first`.
fn progress(first: u64) -> [u64; PROGRESS_WORDS] {
    let mut words = [0; PROGRESS_WORDS];
    words[0] = first;
    words
}

/// Bytes of the row that a call hands over, where that is not the whole input, or a step.
fn newest_row(facts: &Facts) -> Result<Option<usize>> {
    if facts.semantics == Semantics::Whole {
        return Ok(None);
    }
    let bytes = facts.window_row.unwrap_or_default() * facts.normalizer()?.input_type().size();
    if bytes == 0 || !bytes.is_multiple_of(4) {
        return Err(Error::new(ErrorKind::Unsupported, "start a resident engine on rows")
            .expected("rows of whole words of 4 bytes")
            .got(format!("{bytes} bytes")));
    }
    Ok(Some(bytes))
}

/// What the artefact computes, for the one shape that it was built for.
fn signature(artefact: &Artefact, config: &SessionConfig) -> Result<Signature> {
    let facts = artefact.facts();
    let tensors = facts.tensors();
    // What is said of the input, or, where nothing is said, what the kernel does.
    let asked = SessionConfig {
        normalizations: Some(config.normalizations.clone().unwrap_or_else(|| facts.normalizations())),
        windows: config.windows.clone().or_else(|| facts.window_row.map(|row| WindowConfig::new(1, row))),
        ..config.clone()
    };
    let mut resolved = asked.resolve(&tensors, |_| None)?;
    let wrong = || Error::new(ErrorKind::InvalidArgument, "start a resident engine");
    if resolved.len() != 1 {
        return Err(wrong()
            .expected("one shape, that which it was built for")
            .got(format!("{} announced", resolved.len())));
    }
    if facts.semantics == Semantics::Stateful && config.windows.is_some() {
        return Err(wrong()
            .expected("no windows: its calls hand over one row, and the state stands for those before")
            .got("a configuration with windows")
            .advice("leave `SessionConfig::windows` out, or build it with --semantics window"));
    }
    if let (Semantics::Window, Some(windows)) = (facts.semantics, &config.windows)
        && Some(windows.row) != facts.window_row
    {
        return Err(wrong()
            .expected(format!("windows of rows of {} elements", facts.window_row.unwrap_or_default()))
            .got(format!("rows of {}", windows.row))
            .advice("give `WindowConfig` the row that the engine was built for"));
    }
    let normalizers = resolved.swap_remove(0).normalizers;
    if !normalizers[0].does_as(&facts.normalizer()?) {
        return Err(wrong()
            .expected("the normalisation that its kernel was built with")
            .got("another one in the session's configuration")
            .advice("build it again with that --normalization, or leave the configuration's out"));
    }
    let outputs = tensors.iter().filter(|tensor| tensor.mode == IoMode::Output).map(|output| {
        let count = output.elements().expect("`Artefact::read` has looked at the shapes of a call");
        OutputShape { data_type: output.data_type, shape: output.shape.clone(), count }
    });
    let shapes = vec![CallShape { inputs: normalizers, outputs: outputs.collect() }];
    Ok(Signature { inputs: facts.inputs.clone(), outputs: facts.outputs.clone(), shapes })
}

fn load(device: &Arc<Device>, cubin: &[u8]) -> Result<Module> {
    // Where it lies in the artefact it need not be aligned.
    let mut image = vec![0_u64; cubin.len().div_ceil(8)];
    bytemuck::cast_slice_mut::<_, u8>(&mut image)[..cubin.len()].copy_from_slice(cubin);
    Module::load_image(
        device,
        bytemuck::cast_slice(&image),
        "load a resident engine's kernel",
        "build it again for this GPU: tickrt build --resident --compute-capability",
    )
}

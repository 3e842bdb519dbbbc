//! Where values lie, and which exchange follows which stage.

mod input;
mod kernel;
mod state;

use std::fmt::Write as _;

use half::f16;

use super::bands::Bands;
use super::grid::Grid;
use super::job::Job;
use super::numbers::Numbers;
use super::{AHEAD, Asks, BEHIND, unsupported};
use crate::error::Result;
use crate::resident::budget::{Hardware, WeightType};
use crate::resident::network::{Network, Operation, Sliding, Stage, ValueId};
use crate::resident::semantics::Semantics;
use crate::resident::turn::STAGES;

/// What comes before values in shared memory: the words that end a turn, tell how many rows have come, and
/// that a call has come; then pairs of barriers.
const STOP_WORD: u32 = 0;
const ROWS_WORD: u32 = 4;
const COME_WORD: u32 = 8;
const FIRST_BARRIER: u32 = 16;
const BARRIERS: u32 = 64;
/// Registers of a multiprocessor, and the most that one thread can have.
const REGISTERS: u32 = 64 * 1024;
const REGISTERS_OF_THREAD: u32 = 255;
/// Registers of a thread that are for other things than weights: what has been seen to compile without spills. With 64 cnn_small kept 88
/// bytes of a thread in memory, which beside so much shared memory is far away: 7.8 instead of 7.4 µs.
const OTHER_REGISTERS: u32 = 72;
/// Bytes up to which each block keeps a value of its own in shared memory.
const OWN_WHOLE: u32 = 8192;
/// Messages of 16 bytes, of all threads of a block, from which a gather goes in runs: one message a thread is sooner there.
const RUNS_FROM: u32 = 2;
/// Stamps that a report has room for.
const STAMPS: usize = STAGES;

/// As kernels/resident/whole.cuh has them, instead of the bytes of a copy.
pub(super) const IN_STATE: u32 = u32::MAX;
const IS_WINDOW: u32 = u32::MAX - 1;
/// In a structure: behind all blocks' parts of the device's memory.
pub(super) const SHARED_STATE: &str = "@shared_state@";

/// A kernel being written.
pub(super) struct Plan<'network> {
    pub(super) network: &'network Network,
    job: &'network Job,
    pub(super) blocks: u32,
    asks: Asks,
    /// Whether long shares may go in runs.
    runs: bool,
    /// What lies in bands, if anything may.
    pub(super) bands: Option<Bands>,
    /// Whose recurrent layers are computed by a grid of blocks; everything else is block 0's, and to the plan there is no other.
    pub(super) grid: Option<Grid>,
    pub(super) threads: u32,
    pub(super) constants: Vec<u8>,
    hardware: Hardware,
    places: Vec<Place>,
    /// The input lies in the order in which it is handed over, if that is another: element `i` is the network's number `[i]`.
    input_order: Option<Vec<u32>>,
    shared: u32,
    barriers: u32,
    /// Blocks that block 0 waits for in each call, from itself on; and those without which no answer goes out.
    heard: u32,
    heard_in_time: u32,
    /// Whether each block looks for all of a call: then each must have seen it before the answer goes out, behind which the host may write over it.
    to_each: bool,
    registers: u32,
    structures: String,
    steps: Vec<Step>,
    /// Bytes of weights that look for a place, and whether a call waits for them.
    wanted: Vec<(u32, bool)>,
    /// Whether stages are computed before their call comes.
    pub(super) is_ahead: bool,
    /// Whether steps are done behind the answer.
    is_behind: bool,
    /// Which blocks of a grid do steps, as a condition in C++ and what follows it; nothing: all.
    pub(super) guard: &'static str,
    /// Cells that blocks keep of their own units, by the value of the step's output: where in the block's part of the device's memory.
    pub(super) cells: Vec<(ValueId, u32)>,
    /// Bytes of a block's part of the device's memory, and of what all blocks share.
    state: u32,
    shared_state: u32,
    notes: Vec<String>,
}

/// Where a value lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) count: u32,
    /// Elements of a block's share.
    pub(super) each: u32,
    share: Option<u32>,
    pub(super) whole: Option<Whole>,
    /// Zeros lie behind where it is whole, to a multiple of 64 elements, and never anything else.
    zeros_behind: bool,
}

/// Where a value lies that is whole in every block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whole {
    pub(super) offset: u32,
    /// How much further the second copy is; 0 if there is one. [`IN_STATE`]: it lies in the device's memory.
    pub(super) copy_bytes: u32,
}

/// How a value of planes of rows lies: floats from row to row and from plane to plane, and what of them is the value's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub(super) row: u32,
    pub(super) row_pitch: u32,
    pub(super) plane: u32,
    pub(super) plane_pitch: u32,
}

impl Layout {
    /// Where element `i` of the value lies, in floats.
    fn place(&self, i: u32) -> u32 {
        let Self { row, row_pitch, plane, plane_pitch } = *self;
        i / plane * plane_pitch + i % plane / row * row_pitch + i % row
    }

    /// Floats from the beginning to the end of a block's share of `each`, whole fours, of the longest.
    fn longest_share(&self, count: u32, each: u32, blocks: u32) -> u32 {
        let shares = (0..blocks).map(|rank| rank * each).filter(|&before| before < count);
        let floats = |before: u32| {
            let own = each.min(count - before).next_multiple_of(4);
            self.place(before + own - 4) + 4 - self.place(before)
        };
        shares.map(floats).max().unwrap_or(0)
    }
}

/// How a network is to be laid out.
#[derive(Clone)]
pub(super) struct Of {
    pub(super) blocks: u32,
    pub(super) threads: u32,
    /// Long shares may go in runs.
    pub(super) runs: bool,
    pub(super) bands: Option<Bands>,
    pub(super) grid: Option<Grid>,
}

impl Step {
    /// Its place in the kernel's loop.
    fn line(&self) -> String {
        self.line_if("")
    }

    /// Done only where `guard` holds.
    fn line_if(&self, guard: &str) -> String {
        let Self { number, verb, note, .. } = self;
        let turn = if self.takes_turn || self.template == "Input" { ", turn" } else { "" };
        let late = if self.is_another { String::new() } else { format!(", late{number}") };
        let own = self.guard;
        format!("    if ({guard}{own}!s{number}.{verb}(b{turn}{late})) break;  // {note}\n")
    }
}

struct Step {
    template: String,
    /// Its structure, which another step may have brought along.
    number: usize,
    is_another: bool,
    verb: &'static str,
    arms: bool,
    takes_turn: bool,
    is_ahead: bool,
    is_behind: bool,
    guard: &'static str,
    note: String,
}

impl<'network> Plan<'network> {
    /// Everything but the text around it.
    pub(super) fn new(job: &'network Job, hardware: Hardware, layout: &Of, asks: Asks) -> Result<Self> {
        let Of { blocks, threads, runs, bands, grid } = layout.clone();
        let network = &job.network;
        let share = |count: u32| match count {
            _ if blocks == 1 || count <= 32 => count,
            _ => count.div_ceil(blocks).next_multiple_of(4),
        };
        let place = |count: u32| Place { count, each: share(count), share: None, whole: None, zeros_behind: false };
        let places = network.values.iter().map(|value| place(value.count() as u32)).collect();
        let mut plan = Self {
            network,
            job,
            blocks,
            threads,
            asks,
            runs,
            bands,
            grid,
            constants: Vec::new(),
            hardware,
            places,
            input_order: None,
            shared: FIRST_BARRIER + BARRIERS * 16,
            barriers: 0,
            heard: 1,
            heard_in_time: 1,
            to_each: false,
            registers: 0,
            structures: String::new(),
            steps: Vec::new(),
            wanted: Vec::new(),
            is_ahead: false,
            is_behind: false,
            guard: "",
            cells: Vec::new(),
            state: 0,
            shared_state: 0,
            notes: Vec::new(),
        };
        match job.semantics {
            Semantics::Whole => {}
            Semantics::Window => plan.window(),
            Semantics::Stateful => plan.state(),
        }
        let mut behind = 0;
        if plan.grid.is_some() {
            plan.grid_layers()?;
            plan.guard = "(b.rank == 0 || is_near(turn)) && ";
            plan.input()?;
            plan.guard = "";
            behind = plan.grid_in_time();
        } else {
            plan.is_ahead = true;
            if !job.rolling.is_empty() {
                plan.rolling(&job.rolling)?;
            }
            plan.stages(&network.stages[..job.ahead])?;
            plan.is_ahead = false;
            plan.input()?;
        }
        plan.stages(&job.in_time()[behind..])?;
        Ok(plan)
    }

    /// The rows before the newest one, each twice.
    fn window(&mut self) {
        let rows = self.in_state(2 * self.job.steps * self.job.count * 4);
        debug_assert_eq!(rows, 0, "as kernels/resident/window.cuh has it");
        // Layers of a grid know where it is, and those of windows side by side.
        if let (Some(window), true) = (self.network.inputs.get(1), self.job.rolling.is_empty()) {
            self.places[window.0].whole = Some(Whole { offset: 0, copy_bytes: IS_WINDOW });
        }
    }

    /// The outputs of the step before, whole in every block.
    fn state(&mut self) {
        for place in 1..self.network.inputs.len() {
            let id = self.network.inputs[place];
            let offset = self.in_state(self.places[id.0].count * 4);
            self.places[id.0].whole = Some(Whole { offset, copy_bytes: IN_STATE });
        }
    }

    fn stages(&mut self, stages: &[Stage]) -> Result<()> {
        let mut next = 0;
        while let Some(stage) = stages.get(next) {
            let in_bands = |bands: &Bands| bands.has(stage.reads[0]);
            if self.bands.as_ref().is_some_and(in_bands) {
                self.band_stage(stage)?;
                next += 1;
                continue;
            }
            let behind = stages.get(next + 1);
            let behind = behind.filter(|next| self.pools_into(stage, next) || self.has_softmax(stage, next));
            self.stage(stage, behind)?;
            next += 1 + usize::from(behind.is_some());
        }
        Ok(())
    }

    /// Whether the value is there before its call comes.
    fn is_there_ahead(&self, id: ValueId) -> bool {
        self.network.inputs[1..].contains(&id)
            || self.network.stages[..self.job.ahead].iter().any(|stage| stage.writes == id)
    }

    // ---- Memory.

    /// Bytes of the block's part of the device's memory.
    pub(super) fn in_state(&mut self, bytes: u32) -> u32 {
        let offset = self.state;
        self.state = (offset + bytes).next_multiple_of(16);
        offset
    }

    /// Bytes of the device's memory that all blocks share, from where [`SHARED_STATE`] says.
    pub(super) fn in_shared_state(&mut self, bytes: u32) -> u32 {
        let offset = self.shared_state;
        self.shared_state = (offset + bytes).next_multiple_of(16);
        offset
    }

    pub(super) fn room(&mut self, bytes: u32) -> u32 {
        let offset = self.shared.next_multiple_of(16);
        self.shared = offset + bytes;
        offset
    }

    /// Two barriers, one for each copy.
    pub(super) fn barriers(&mut self) -> Result<u32> {
        if self.barriers == BARRIERS {
            return Err(unsupported(format!("more than {BARRIERS} exchanges between blocks")));
        }
        self.barriers += 1;
        Ok(FIRST_BARRIER + (self.barriers - 1) * 16)
    }

    /// Block 0 waits in each call for something that the first `blocks` blocks send.
    pub(super) fn hears(&mut self, blocks: u32) {
        self.hears_at(self.is_ahead, blocks);
    }

    fn hears_at(&mut self, is_ahead: bool, blocks: u32) {
        self.heard = self.heard.max(blocks);
        if !is_ahead && !self.is_behind {
            self.heard_in_time = self.heard_in_time.max(blocks);
        }
    }

    /// Which of the network's elements of this value lies at place `at`.
    pub(super) fn element(&self, id: ValueId, at: u32) -> usize {
        match &self.input_order {
            Some(order) if id == self.network.inputs[0] => order[at as usize] as usize,
            _ => at as usize,
        }
    }

    /// Nobody else has any of it.
    pub(super) fn lies_in_block_0(&mut self, id: ValueId) {
        debug_assert!(self.places[id.0].share.is_none(), "its share has no place yet");
        self.places[id.0].each = self.places[id.0].count;
    }

    pub(super) fn place(&self, id: ValueId) -> Place {
        self.places[id.0]
    }

    /// Where the block's share of the value lies: whole vectors of a thread, zeros behind it.
    pub(super) fn share(&mut self, id: ValueId) -> u32 {
        if let Some(offset) = self.places[id.0].share {
            return offset;
        }
        let offset = self.room(self.places[id.0].each.next_multiple_of(64) * 4);
        self.places[id.0].share = Some(offset);
        offset
    }

    /// Where the value is whole, for a stage that writes `into`; brings it together if it is not.
    pub(super) fn whole(&mut self, id: ValueId, into: ValueId) -> Result<Whole> {
        let place = self.places[id.0];
        if let Some(whole) = place.whole {
            return Ok(whole);
        }
        // Both in block 0 alone: nobody else needs it.
        let alone = place.each == place.count && self.places[into.0].each == self.places[into.0].count;
        if alone && place.share.is_some() {
            return Ok(Whole { offset: self.share(id), copy_bytes: 0 });
        }
        self.whole_everywhere(id)
    }

    /// Where the value is whole in every block.
    pub(super) fn whole_everywhere(&mut self, id: ValueId) -> Result<Whole> {
        let place = self.places[id.0];
        if let Some(whole) = place.whole {
            return Ok(whole);
        }
        if self.blocks == 1 {
            return Ok(Whole { offset: self.share(id), copy_bytes: 0 });
        }
        let whole = self.whole_room(id);
        let count = place.count;
        self.gather(id, whole, Layout { row: count, row_pitch: count, plane: count, plane_pitch: count })?;
        Ok(whole)
    }

    /// Every block gets all shares, its rows at `whole` as `layout` has them.
    fn gather(&mut self, id: ValueId, whole: Whole, layout: Layout) -> Result<()> {
        let (from, barriers) = (self.share(id), self.barriers()?);
        let Place { count, each, .. } = self.place(id);
        let is_ahead = self.is_ahead || self.is_there_ahead(id);
        self.hears_at(is_ahead, count.div_ceil(each));
        let staged_bytes = layout.longest_share(count, each, self.blocks) * 4;
        let runs = self.runs && self.blocks > 1 && count.div_ceil(4) >= RUNS_FROM * self.threads;
        let staged = if runs { self.room(2 * staged_bytes) } else { 0 };
        let numbers = self
            .common(id)
            .int("from", from)
            .int("staged", staged)
            .int("staged_bytes", staged_bytes)
            .int("to", whole.offset)
            .int("to_bytes", whole.copy_bytes)
            .int("row", layout.row)
            .int("row_pitch", layout.row_pitch)
            .int("plane", layout.plane)
            .int("plane_pitch", layout.plane_pitch)
            .int("barriers", barriers);
        let note = format!("{} floats to every block", self.place(id).count);
        self.step_at(is_ahead, if runs { "GatherRuns" } else { "Gather" }, numbers, true, false, note);
        Ok(())
    }

    /// The whole value for one convolution alone, with zeros around its planes so that windows need not look where they
    /// end; `None` if others see the value too, or its rows are not whole messages.
    pub(super) fn whole_padded(&mut self, id: ValueId, of: &Sliding) -> Result<Option<(Whole, Layout)>> {
        let place = self.places[id.0];
        let [rows, columns] = of.size.map(|size| size as u32);
        let is_whole = place.whole.is_some() || self.blocks == 1 || self.network.uses(id) != 1;
        if is_whole || self.network.inputs.contains(&id) && self.job.semantics != Semantics::Whole {
            return Ok(None);
        }
        if !columns.is_multiple_of(4) || place.each == place.count {
            return Ok(None);
        }
        // What lies behind a row is before the next one too; so with planes.
        let [zero_rows, zero_columns] = [0, 1].map(|axis| of.before[axis].max(of.behind[axis]) as u32);
        let zero_columns = zero_columns.next_multiple_of(4);
        let row_pitch = columns + zero_columns;
        // Threads side by side read planes side by side: an odd number of messages spreads those over the banks.
        let plane_pitch = ((rows + zero_rows) * row_pitch / 4) | 1;
        let layout = Layout { row: columns, row_pitch, plane: rows * columns, plane_pitch: plane_pitch * 4 };
        let before = zero_rows * row_pitch + zero_columns;
        let floats = before + of.channels as u32 * layout.plane_pitch + before + 4;
        let copy_bytes = floats.next_multiple_of(64) * 4;
        let whole = Whole { offset: self.room(copy_bytes * 2) + before * 4, copy_bytes };
        self.gather(id, whole, layout)?;
        Ok(Some((whole, layout)))
    }

    /// Where a stage puts a value of which every block makes all for itself.
    pub(super) fn own_whole(&mut self, id: ValueId) -> Whole {
        let bytes = self.places[id.0].count.next_multiple_of(64) * 4;
        let whole = if bytes <= OWN_WHOLE {
            self.places[id.0].zeros_behind = true;
            Whole { offset: self.room(bytes), copy_bytes: 0 }
        } else {
            Whole { offset: self.in_state(bytes), copy_bytes: IN_STATE }
        };
        self.places[id.0].whole = Some(whole);
        whole
    }

    /// Where every block has all of a value in its shared memory, so that it can multiply it with rows of its own.
    pub(super) fn whole_for_rows(&self, id: ValueId) -> Option<u32> {
        let Place { whole, zeros_behind, .. } = self.places[id.0];
        whole.filter(|_| zeros_behind && self.blocks > 1).map(|whole| whole.offset)
    }

    /// Puts a value `start` bytes behind where another begins; not so in the window, which moves.
    pub(super) fn lies_within(&mut self, whole: Whole, start: u32, id: ValueId) -> bool {
        if whole.copy_bytes == IS_WINDOW {
            return false;
        }
        self.places[id.0].whole = Some(Whole { offset: whole.offset + start, ..whole });
        true
    }

    fn whole_room(&mut self, id: ValueId) -> Whole {
        let copy_bytes = self.places[id.0].count.next_multiple_of(64) * 4;
        let whole = Whole { offset: self.room(copy_bytes * 2), copy_bytes };
        self.places[id.0].whole = Some(whole);
        whole
    }

    /// Received parts of sums, in as many copies as there are calls on their way.
    pub(super) fn received(&mut self, bytes: u32) -> (u32, u32) {
        let bytes = bytes.next_multiple_of(16);
        (self.room(bytes * if self.blocks > 1 { 2 } else { 1 }), bytes)
    }

    /// So many words of weights a thread: in registers while there are some, else wherever the text says in the end.
    pub(super) fn weights_of_threads(&mut self, count: u32) -> String {
        self.weights_of(count, self.threads)
    }

    /// The same where several threads have the weights of one of `threads`.
    pub(super) fn weights_of(&mut self, count: u32, threads: u32) -> String {
        if self.has_registers(count) {
            self.take_registers(count);
            return "  static constexpr Weights where = Weights::Registers;\n  static constexpr u32 kept = 0;\n".into();
        }
        let number = self.wanted.len();
        self.wanted.push((count * threads * 4, !self.is_ahead));
        format!("  static constexpr Weights where = @where{number}@;\n  static constexpr u32 kept = @kept{number}@;\n")
    }

    /// Whether so many weights of a thread can stay in registers.
    pub(super) fn has_registers(&self, count: u32) -> bool {
        !self.is_ahead && self.registers + count <= weight_registers(self.threads)
    }

    pub(super) fn take_registers(&mut self, count: u32) {
        self.registers += count;
    }

    /// `count` numbers that all threads read.
    pub(super) fn numbers_of_block(&mut self, count: u32) -> String {
        let number = self.wanted.len();
        self.wanted.push((count * 4, !self.is_ahead));
        format!(
            "  static constexpr bool is_kept = @is{number}@;\n  static constexpr u32 weights_kept = @kept{number}@;\n"
        )
    }

    pub(super) fn in_halves(&self) -> bool {
        self.job.weights == WeightType::F16
    }

    /// Words that so many weights of a thread take.
    pub(super) fn words(&self, count: u32) -> u32 {
        if self.in_halves() { count.next_multiple_of(8) / 2 } else { count }
    }

    /// `count` weights of each of `threads`, block by block, in the order in which threads load them, four or eight at a time. `weight` is asked
    /// for a block, a thread, and which of its weights.
    pub(super) fn by_thread(
        &self,
        blocks: u32,
        [threads, count]: [u32; 2],
        weight: &dyn Fn(u32, u32, u32) -> f32,
    ) -> Result<Vec<f32>> {
        let (at_once, halves) = if self.in_halves() { (8, true) } else { (4, false) };
        let mut all = Vec::with_capacity((blocks * threads * self.words(count)) as usize);
        for block in 0..blocks {
            for (load, thread) in
                (0..count.div_ceil(at_once)).flat_map(|load| (0..threads).map(move |thread| (load, thread)))
            {
                let of = |n: u32| if n < count { weight(block, thread, n) } else { 0.0 };
                let first = load * at_once;
                if halves {
                    for pair in 0..4 {
                        all.push(f32::from_bits(half(of(first + 2 * pair))? | half(of(first + 2 * pair + 1))? << 16));
                    }
                } else {
                    all.extend((0..4).map(|n| of(first + n)));
                }
            }
        }
        Ok(all)
    }

    /// Appends constants, aligned for vectors; where they begin.
    pub(super) fn constant(&mut self, numbers: impl IntoIterator<Item = f32>) -> u32 {
        self.constants.resize(self.constants.len().next_multiple_of(16), 0);
        let offset = self.constants.len() as u32;
        self.constants.extend(numbers.into_iter().flat_map(f32::to_le_bytes));
        offset
    }

    // ---- Text.

    /// What every stage is told of the value that it writes.
    pub(super) fn common(&self, id: ValueId) -> Numbers {
        let Place { count, each, .. } = self.places[id.0];
        let (threads, blocks) = (self.threads, self.blocks);
        Numbers::default().int("threads", threads).int("blocks", blocks).int("count", count).int("each", each)
    }

    /// One more thing to do in a call.
    pub(super) fn step(&mut self, template: &str, numbers: Numbers, arms: bool, takes_turn: bool, note: String) {
        self.step_at(self.is_ahead, template, numbers, arms, takes_turn, note);
    }

    fn step_at(
        &mut self,
        is_ahead: bool,
        template: &str,
        numbers: Numbers,
        arms: bool,
        takes_turn: bool,
        note: String,
    ) {
        let note = match (is_ahead, self.is_behind) {
            (true, _) => format!("{AHEAD}{note}"),
            (_, true) => format!("{BEHIND}{note}"),
            _ => note,
        };
        let number = self.steps.len();
        let _ = write!(self.structures, "// {note}\nstruct S{number} {{\n{}}};\n", numbers.0);
        self.notes.push(note.clone());
        let (is_behind, guard) = (self.is_behind, self.guard);
        let verb = if template == "Input" { "take" } else { "run" };
        let (template, is_another) = (template.to_owned(), true);
        let step = Step { template, number, is_another, verb, arms, takes_turn, is_ahead, is_behind, guard, note };
        self.steps.push(step);
    }

    /// One more thing of which a part is done ahead; its number, for [`step_again`](Self::step_again).
    pub(super) fn step_ahead(&mut self, template: &str, numbers: Numbers, note: String) -> usize {
        self.step_at(true, template, numbers, false, true, note);
        let step = self.steps.last_mut().expect("just made");
        step.verb = "run_ahead";
        step.number
    }

    /// What is left of it, in time, with what its structure has made of `in_time` behind what is computed ahead.
    pub(super) fn step_again(&mut self, number: usize, note: String) {
        let template = self.steps[number].template.clone();
        self.notes.push(note.clone());
        let (verb, is_another) = ("run", false);
        let (arms, takes_turn, is_ahead, is_behind, guard) = (false, true, false, self.is_behind, self.guard);
        let step = Step { template, number, is_another, verb, arms, takes_turn, is_ahead, is_behind, guard, note };
        self.steps.push(step);
    }

    /// The share of a value that came whole.
    pub(super) fn share_of_whole(&mut self, id: ValueId) -> u32 {
        if let (None, Some(whole)) = (self.places[id.0].share, self.places[id.0].whole) {
            let out = self.share(id);
            let text = format!(
                "  static __device__ float at(const Block& b, const Turn&, u32 i) {{ return whole<{}, {}>(b)[i]; }}\n",
                whole.offset, whole.copy_bytes
            );
            let numbers = self.common(id).int("out", out).text(&text);
            let is_ahead = self.is_ahead || self.is_there_ahead(id);
            self.step_at(is_ahead, "Each", numbers, false, true, "each block takes its share".into());
        }
        self.share(id)
    }

    /// A pool over windows that do not overlap, of a convolution that nothing else reads.
    fn pools_into(&self, conv: &Stage, pool: &Stage) -> bool {
        let (Operation::Conv(conv_of), Operation::Pool(of)) = (&conv.operation, &pool.operation) else { return false };
        let sliding = &of.sliding;
        let plain = sliding.before == [0, 0] && sliding.behind == [0, 0] && sliding.dilations == [1, 1];
        let apart = (0..2).all(|axis| sliding.strides[axis] >= sliding.kernel[axis]);
        plain
            && apart
            && pool.reads == [conv.writes]
            && self.network.uses(conv.writes) == 1
            && sliding.channels == conv_of.outputs
            && sliding.size == conv_of.sliding.output()
    }
}

/// A weight in half precision.
pub(super) fn half(x: f32) -> Result<u32> {
    let half = f16::from_f32(x);
    if x.is_finite() && x.abs() > 65504.0 {
        return Err(unsupported(format!("a weight of {x}")).expected("weights that half precision has, up to 65504"));
    }
    Ok(u32::from(half.to_bits()))
}

/// A weight as half precision has it.
pub(super) fn rounded_to_half(x: f32) -> Result<f32> {
    Ok(f16::from_bits(half(x)? as u16).to_f32())
}

/// Weights of one of so many threads that stay in registers.
fn weight_registers(threads: u32) -> u32 {
    ((REGISTERS / threads).min(REGISTERS_OF_THREAD) / 8 * 8).saturating_sub(OTHER_REGISTERS)
}

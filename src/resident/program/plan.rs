//! Where values lie, which exchange follows which stage, and the kernel's text around them.

use std::fmt::Write as _;

use super::job::Job;
use super::{AHEAD, Asks, Program, ROW_KEPT, templates, unsupported};
use crate::error::Result;
use crate::normalize::NonFinite;
use crate::resident::budget::Hardware;
use crate::resident::network::{Activation, Network, Operation, Sliding, Stage, ValueId};
use crate::resident::semantics::Semantics;
use crate::tensor::DataType;

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
/// Registers of a thread that are for other things than weights: what has been seen to compile without spills.
const OTHER_REGISTERS: u32 = 64;
/// Bytes up to which each block keeps a value of its own in shared memory.
const OWN_WHOLE: u32 = 8192;
/// Stamps that a report has room for.
const STAMPS: usize = 12;

/// As kernels/resident/whole.cuh has them, instead of the bytes of a copy.
pub(super) const IN_STATE: u32 = u32::MAX;
const IS_WINDOW: u32 = u32::MAX - 1;

/// A kernel being written.
pub(super) struct Plan<'network> {
    pub(super) network: &'network Network,
    job: &'network Job,
    pub(super) blocks: u32,
    asks: Asks,
    pub(super) threads: u32,
    pub(super) constants: Vec<u8>,
    hardware: Hardware,
    places: Vec<Place>,
    /// The input lies in the order in which it is handed over, if that is another: element `i` is the network's number `[i]`.
    input_order: Option<Vec<u32>>,
    shared: u32,
    barriers: u32,
    registers: u32,
    structures: String,
    steps: Vec<Step>,
    /// Bytes of weights that look for a place, and whether a call waits for them.
    wanted: Vec<(u32, bool)>,
    /// Whether stages are computed before their call comes.
    pub(super) is_ahead: bool,
    /// Bytes of a block's part of the device's memory.
    state: u32,
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

impl Step {
    /// Its place in the kernel's loop.
    fn line(&self, number: usize) -> String {
        let arguments = if self.takes_turn || self.template == "Input" { "b, turn" } else { "b" };
        let verb = if self.template == "Input" { "take" } else { "run" };
        format!("    if (!s{number}.{verb}({arguments})) break;  // {}\n", self.note)
    }
}

struct Step {
    template: String,
    arms: bool,
    takes_turn: bool,
    is_ahead: bool,
    note: String,
}

/// Numbers of a structure that a template takes.
#[derive(Default)]
pub(super) struct Numbers(String);

impl Numbers {
    pub(super) fn int(mut self, name: &str, value: impl TryInto<u32>) -> Self {
        let value = value.try_into().ok().expect("sizes that fit 32 bits");
        let _ = writeln!(self.0, "  static constexpr u32 {name} = {value};");
        self
    }

    pub(super) fn truth(mut self, name: &str, value: bool) -> Self {
        let _ = writeln!(self.0, "  static constexpr bool {name} = {value};");
        self
    }

    pub(super) fn float(mut self, name: &str, value: f32) -> Self {
        let _ = writeln!(self.0, "  static constexpr float {name} = {};", literal(value));
        self
    }

    pub(super) fn text(mut self, text: &str) -> Self {
        self.0 += text;
        self
    }

    pub(super) fn function(self, activation: Option<Activation>) -> Self {
        let (name, alpha) = function(activation);
        self.text(&format!("  static constexpr Function function = Function::{name};\n")).float("alpha", alpha)
    }
}

/// The function's name in functions.cuh, and its constant.
pub(super) fn function(activation: Option<Activation>) -> (&'static str, f32) {
    match activation {
        None => ("None", 0.0),
        Some(Activation::Relu) => ("Relu", 0.0),
        Some(Activation::Tanh) => ("Tanh", 0.0),
        Some(Activation::Sigmoid) => ("Sigmoid", 0.0),
        Some(Activation::Gelu) => ("Gelu", 0.0),
        Some(Activation::GeluTanh) => ("GeluTanh", 0.0),
        Some(Activation::LeakyRelu(alpha)) => ("LeakyRelu", alpha),
        Some(Activation::Elu(alpha)) => ("Elu", alpha),
    }
}

/// A float as C++ has it, to the bit.
pub(super) fn literal(x: f32) -> String {
    if !x.is_finite() {
        // What nvcc, NVRTC and host compilers all take for a constant.
        return format!("__builtin_bit_cast(float, {:#010x}u)", x.to_bits());
    }
    format!("{x:e}f")
}

impl<'network> Plan<'network> {
    /// Everything but the text around it.
    pub(super) fn new(job: &'network Job, hardware: Hardware, blocks: u32, threads: u32, asks: Asks) -> Result<Self> {
        let network = &job.network;
        let share = |count: u32| match count {
            _ if blocks == 1 || count <= 32 => count,
            _ => count.div_ceil(blocks).next_multiple_of(4),
        };
        let place = |count: u32| Place { count, each: share(count), share: None, whole: None };
        let places = network.values.iter().map(|value| place(value.count() as u32)).collect();
        let mut plan = Self {
            network,
            job,
            blocks,
            threads,
            asks,
            constants: Vec::new(),
            hardware,
            places,
            input_order: None,
            shared: FIRST_BARRIER + BARRIERS * 16,
            barriers: 0,
            registers: 0,
            structures: String::new(),
            steps: Vec::new(),
            wanted: Vec::new(),
            is_ahead: false,
            state: 0,
            notes: Vec::new(),
        };
        if job.semantics == Semantics::Window {
            plan.window();
        }
        plan.is_ahead = true;
        plan.stages(&network.stages[..job.ahead])?;
        plan.is_ahead = false;
        plan.input()?;
        plan.stages(job.in_time())?;
        Ok(plan)
    }

    /// The rows before the newest one, each twice.
    fn window(&mut self) {
        let rows = self.in_state(2 * self.job.steps * self.job.count * 4);
        debug_assert_eq!(rows, 0, "as kernels/resident/window.cuh has it");
        let window = self.network.inputs[1];
        self.places[window.0].whole = Some(Whole { offset: 0, copy_bytes: IS_WINDOW });
    }

    fn stages(&mut self, stages: &[Stage]) -> Result<()> {
        let mut next = 0;
        while let Some(stage) = stages.get(next) {
            let pooled = stages.get(next + 1).filter(|pool| self.pools_into(stage, pool));
            self.stage(stage, pooled)?;
            next += 1 + usize::from(pooled.is_some());
        }
        Ok(())
    }

    /// Whether the value is there before its call comes.
    fn is_there_ahead(&self, id: ValueId) -> bool {
        self.network.inputs.get(1) == Some(&id)
            || self.network.stages[..self.job.ahead].iter().any(|stage| stage.writes == id)
    }

    // ---- Memory.

    /// Bytes of the block's part of the device's memory.
    pub(super) fn in_state(&mut self, bytes: u32) -> u32 {
        let offset = self.state;
        self.state = (offset + bytes).next_multiple_of(16);
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

    /// Which of the network's elements of this value lies at place `at`.
    pub(super) fn element(&self, id: ValueId, at: u32) -> usize {
        match &self.input_order {
            Some(order) if id == self.network.inputs[0] => order[at as usize] as usize,
            _ => at as usize,
        }
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
        let numbers = self
            .common(id)
            .int("from", from)
            .int("to", whole.offset)
            .int("to_bytes", whole.copy_bytes)
            .int("row", layout.row)
            .int("row_pitch", layout.row_pitch)
            .int("plane", layout.plane)
            .int("plane_pitch", layout.plane_pitch)
            .int("barriers", barriers);
        let note = format!("{} floats to every block", self.place(id).count);
        let is_ahead = self.is_ahead || self.is_there_ahead(id);
        self.step_at(is_ahead, "Gather", numbers, true, false, note);
        Ok(())
    }

    /// The whole value for one convolution alone, with zeros around its planes so that windows need not look where they
    /// end; `None` if others see the value too, or its rows are not whole messages.
    pub(super) fn whole_padded(&mut self, id: ValueId, of: &Sliding) -> Result<Option<(Whole, Layout)>> {
        let place = self.places[id.0];
        let [rows, columns] = of.size.map(|size| size as u32);
        let is_whole = place.whole.is_some() || self.blocks == 1 || self.network.uses(id) != 1;
        if is_whole || self.network.inputs.contains(&id) && self.job.semantics == Semantics::Window {
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
            Whole { offset: self.room(bytes), copy_bytes: 0 }
        } else {
            Whole { offset: self.in_state(bytes), copy_bytes: IN_STATE }
        };
        self.places[id.0].whole = Some(whole);
        whole
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

    /// `count` weights a thread: in registers while there are some, else wherever the text says in the end.
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
        let note = if is_ahead { format!("{AHEAD}{note}") } else { note };
        let number = self.steps.len();
        let _ = write!(self.structures, "// {note}\nstruct S{number} {{\n{}}};\n", numbers.0);
        self.notes.push(note.clone());
        self.steps.push(Step { template: template.to_owned(), arms, takes_turn, is_ahead, note });
    }

    fn input(&mut self) -> Result<()> {
        let (id, input) = (self.network.inputs[0], &self.job.input);
        let kind = match input.input_type() {
            DataType::F32 => "F32",
            DataType::F16 => "F16",
            DataType::U8 => "U8",
            DataType::I16 => "I16",
            other => return Err(unsupported(format!("an input of {other}")).expected("f32, f16, u8 or i16")),
        };
        let place = self.place(id);
        if input.output_type() != DataType::F32 {
            return Err(unsupported(format!("a network that takes {}", input.output_type())).expected("f32"));
        }
        let mut table = self.job.table.clone();
        let in_place = table.iter().enumerate().all(|(from, &(.., to))| from == to as usize);
        // A matrix can have its columns in any order.
        let reads_input = |stage: &Stage| stage.reads.contains(&id);
        let dense = |stage: &Stage| matches!(&stage.operation, Operation::Dense(dense) if dense.rows == 1);
        let any_order = !self.network.outputs.contains(&id)
            && self.network.stages.iter().filter(|&stage| reads_input(stage)).all(dense);
        if !in_place && any_order {
            self.input_order = Some(table.iter().map(|&(.., to)| to).collect());
            table.iter_mut().enumerate().for_each(|(from, element)| element.2 = from as u32);
        }
        let in_place = in_place || any_order;
        let units = self.job.words().next_multiple_of(2);
        // Each block asks for its own share, or for a part that it sends to all.
        let whole = self.blocks > 1 && (kind != "F32" || !in_place);
        // Where what reads the shares sends sums to block 0: any matrix.
        let sums = |stage: &Stage| dense(stage) || matches!(&stage.operation, Operation::RecurrentStep(_));
        // One matrix alone lets block 0 go on when its own sums are there, and not yet the others'.
        let several_sums = self.job.semantics == Semantics::Window
            || self.network.stages.iter().filter(|&stage| sums(stage)).count() > 1;
        let is_read_for_sums = several_sums
            && !self.network.outputs.contains(&id)
            && self.network.stages.iter().filter(|&stage| reads_input(stage)).all(sums);
        let hands_out = self.asks == Asks::First && self.blocks > 1 && !whole && is_read_for_sums;
        let units_each = match () {
            () if self.blocks == 1 || hands_out => units,
            () if !whole => place.each.next_multiple_of(2),
            () if units >= 16 * self.blocks => units.div_ceil(self.blocks).next_multiple_of(16),
            () => units.div_ceil(self.blocks).next_multiple_of(2),
        };
        let (to, to_bytes, barriers) = if whole {
            let Whole { offset, copy_bytes } = self.whole_room(id);
            (offset, copy_bytes, self.barriers()?)
        } else {
            (self.share(id), 0, if hands_out { self.barriers()? } else { 0 })
        };
        let at = self.constant(table.iter().flat_map(|&(mean, std, to)| [mean, std, f32::from_bits(to), 0.0]));
        let (replaces, replacement) = match input.non_finite {
            NonFinite::Replace(value) => (true, value),
            NonFinite::Pass | NonFinite::Refuse => (false, 0.0),
        };
        let [lowest, highest] = input.clamp;
        let numbers = self.common(id).int("units", units).int("units_each", units_each);
        let numbers = numbers.int("lead", self.lead()).int("rows_word", ROWS_WORD).int("come_word", COME_WORD);
        let numbers = numbers.text(&format!("  static constexpr InputType type = InputType::{kind};\n"));
        let numbers =
            numbers.truth("scaled", !table.is_empty()).int("table", at).truth("whole", whole || self.blocks == 1);
        let numbers = numbers.truth("replaces", replaces).float("replacement", replacement);
        let numbers = numbers.truth("bounded", lowest > f32::NEG_INFINITY || highest < f32::INFINITY);
        let numbers = numbers.float("lowest", lowest).float("highest", highest);
        let numbers = numbers.int("to", to).int("to_bytes", to_bytes).int("barriers", barriers);
        let numbers = numbers.truth("hands_out", hands_out);
        let where_to = match (whole, hands_out) {
            (true, _) => ", each block's part to all",
            (_, true) => ", from block 0 to each its share",
            _ => "",
        };
        self.step("Input", numbers, whole || hands_out, false, format!("{units} units of input{where_to}"));
        Ok(())
    }

    fn lead(&self) -> u32 {
        if self.job.semantics == Semantics::Window { 2 } else { 0 }
    }

    /// What puts the newest row into the window, behind everything else.
    fn new_row(&mut self) -> Result<()> {
        let id = self.network.inputs[0];
        let place = self.place(id);
        let is_whole = self.blocks > 1 && place.whole.is_some();
        let from = if is_whole { 0 } else { self.share(id) };
        let copy_bytes = place.count.next_multiple_of(64) * 4;
        let several = self.blocks > 1;
        let to = if several && !is_whole { self.room(copy_bytes * 2) } else { 0 };
        let barriers = if several { self.barriers()? } else { 0 };
        let rows_to = self.room(16);
        let whole = place.whole.unwrap_or(Whole { offset: 0, copy_bytes: 0 });
        let input = self.steps.iter().position(|step| step.template == "Input").expect("`input` came before");
        let numbers = self
            .common(id)
            .int("from", from)
            .truth("is_whole", is_whole)
            .int("whole", whole.offset)
            .int("whole_bytes", whole.copy_bytes)
            .int("to", to)
            .int("to_bytes", copy_bytes)
            .int("barriers", barriers)
            .int("rows_word", ROWS_WORD)
            .int("rows_to", rows_to)
            .int("steps", self.job.steps)
            .text(&format!("  using Normal = S{input};\n  static constexpr InputType type = Normal::type;\n"));
        self.step("NewRow", numbers, several, true, ROW_KEPT.into());
        Ok(())
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

    /// The program, if it fits.
    pub(super) fn finish(mut self, stamps: bool) -> Result<Program> {
        let mut answers = String::new();
        let mut first = 0;
        for (number, &id) in self.network.outputs.iter().enumerate() {
            let from = self.share_of_whole(id);
            let numbers = self.common(id).int("from", from).int("first", first);
            let _ = write!(self.structures, "struct Answer{number} {{\n{}}};\n", numbers.0);
            let _ = writeln!(answers, "answer<Answer{number}>(b, turn);");
            first += self.place(id).count;
        }
        let alone = |&id: &ValueId| self.blocks == 1 || self.place(id).each == self.place(id).count;
        let answers_early = self.network.outputs.iter().all(alone);
        if self.job.semantics == Semantics::Window {
            self.new_row()?;
        }
        let mut source = templates();
        let room = (self.hardware.shared_bytes as u32).checked_sub(self.shared).ok_or_else(|| {
            unsupported(format!("{} bytes of activations in a block", self.shared))
                .expected(format!("at most {} of shared memory", self.hardware.shared_bytes))
        })?;
        let body = self.body(&answers, answers_early, stamps);
        let mut text = format!("\nnamespace tickrt {{\nnamespace resident {{\n{}\n}}\n}}\n{body}", self.structures);
        let mut left = room;
        let mut wanted: Vec<_> = self.wanted.iter().copied().enumerate().collect();
        // What a call waits for comes first.
        wanted.sort_by_key(|&(_, (_, in_time))| !in_time);
        for (number, (bytes, _)) in wanted {
            let fits = bytes + 16 <= left;
            let kept = if fits { self.room(bytes) } else { 0 };
            left = (self.hardware.shared_bytes as u32).saturating_sub(self.shared);
            let place = if fits { "Weights::Shared" } else { "Weights::Global" };
            text = text.replace(&format!("@where{number}@"), place);
            text = text.replace(&format!("@is{number}@"), if fits { "true" } else { "false" });
            text = text.replace(&format!("@kept{number}@"), &kept.to_string());
        }
        let shared_bytes = self.shared.next_multiple_of(16);
        source += &text.replace("@words@", &(shared_bytes / 4).to_string());
        let (lead_units, state_bytes) = (self.lead(), u64::from(self.state) * u64::from(self.blocks));
        let Self { constants, blocks, threads, notes, job, .. } = self;
        let (semantics, predicted_cycles) = (job.semantics, predicted_cycles(job, blocks));
        Ok(Program {
            source,
            constants,
            blocks,
            threads,
            shared_bytes,
            state_bytes,
            semantics,
            lead_units,
            notes,
            predicted_cycles,
        })
    }

    fn body(&self, answers: &str, answers_early: bool, stamps: bool) -> String {
        let (blocks, threads) = (self.blocks, self.threads);
        let cluster = if blocks > 1 { format!("__cluster_dims__({blocks}, 1, 1) ") } else { String::new() };
        let of_window = self.job.semantics == Semantics::Window;
        let mut made = String::new();
        let mut armed = String::new();
        for (number, step) in self.steps.iter().enumerate() {
            let template = &step.template;
            let _ = writeln!(made, "  const {template}<S{number}> s{number}(b, turn);");
            if step.arms {
                let _ = writeln!(armed, "  {template}<S{number}>::arm(b);");
            }
        }
        let (ahead, in_time): (Vec<_>, Vec<_>) = self.steps.iter().enumerate().partition(|(_, step)| step.is_ahead);
        let mut calls = String::new();
        if of_window {
            let (row, steps) = (self.job.count, self.job.steps);
            let _ = writeln!(calls, "    b.window = window_of<{row}, {steps}>(b);");
        }
        ahead.iter().for_each(|&(number, step)| calls += &step.line(number));
        let rehearses = of_window && in_time.iter().all(|(_, step)| step.template != "Recurrent");
        if rehearses {
            // What was computed ahead has driven the instructions of what follows out of their caches: they come back in a
            // rehearsal of the same instructions.
            calls += "    bool ends = true;\n#pragma unroll 1\n    for (b.rehearses = true;; b.rehearses = false) {\n";
        }
        let (row, in_time): (Vec<_>, Vec<_>) = in_time.iter().partition(|(_, step)| step.template == "NewRow");
        for (stage, &&(number, step)) in in_time.iter().enumerate() {
            calls += &step
                .line(number)
                .replace("if (!", if rehearses && stage == 0 { "if (!b.rehearses && !" } else { "if (!" });
            if stamps {
                let _ = match stage {
                    0 => writeln!(calls, "    u64 at = cycles();"),
                    _ => writeln!(calls, "    if (!b.rehearses) stamp(spent, {}, at);", stage.min(STAMPS) - 1),
                };
            }
        }
        if rehearses {
            calls += "    if (b.rehearses) continue;\n    ends = false;\n    break;\n    }\n    if (ends) break;\n";
        }
        // The newest row goes into its window behind the answer where it can: its time is none of the call's.
        for &&(number, step) in &row {
            if answers_early {
                let _ = writeln!(calls, "    if (is_final(b, {ROWS_WORD})) {{\n{answers}    }}");
            }
            calls += &step.line(number);
        }
        if !of_window {
            calls += answers;
        } else if !answers_early {
            let _ = writeln!(calls, "    if (!b.again) {{\n{answers}    }}");
        }
        let stamp = if stamps {
            "__device__ static void stamp(u64* spent, u32 stage, u64& at) {\n  const u64 now = cycles();\n  \
             spent[stage] += now - at;\n  at = now;\n}\n"
        } else {
            ""
        };
        let meet = if blocks > 1 { "sync_cluster();" } else { "sync_block();" };
        format!(
            "using namespace tickrt::resident;\n{stamp}\
extern \"C\" __global__ void {cluster}__launch_bounds__({threads}, 1) tickrt_resident(const __grid_constant__ Turn turn) {{
  for (u32 i = this_thread(); i < @words@; i += {threads}) shared(0)[i] = 0;
  sync_block();
  Block b = begin(turn, {STOP_WORD}, {state});
{made}  if (b.thread == 0)
    for (u32 i = 0; i < {barriers}; ++i) barrier_init({FIRST_BARRIER} + 8 * i);
  barriers_are_there();
  sync_block();
{armed}  {meet}
  u64 spent[kStages] = {{}};
  for (;; next_call(b, turn)) {{
{calls}    sync_block();
{leave}  }}
  finish<{blocks}>(b, turn, spent);
}}
",
            state = self.state,
            leave = if of_window { "    if (b.leaves) {\n      next_call(b, turn);\n      break;\n    }\n" } else { "" },
            barriers = self.barriers * 2
        )
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

/// Weights of one of so many threads that stay in registers.
fn weight_registers(threads: u32) -> u32 {
    (REGISTERS / threads).min(REGISTERS_OF_THREAD) / 8 * 8 - OTHER_REGISTERS
}

/// A guess, to choose the number of blocks by; benches/probes/resident.md has what it was made from.
pub(super) fn predicted_cycles(job: &Job, blocks: u32) -> u64 {
    let network = &job.network;
    let (b, several) = (u64::from(blocks), blocks > 1);
    let of = |stage: &Stage| {
        let written = network.value(stage.writes).count() as u64;
        match &stage.operation {
            Operation::Dense(dense) if dense.rows == 1 => {
                let products = dense.weights.len() as u64;
                // What one block cannot keep it reads from the cache.
                let per_cycle = if products / b > 80_000 { 8 } else { 64 };
                products / (b * per_cycle) + if several { 400 } else { 120 }
            }
            Operation::Dense(dense) => dense.rows as u64 * dense.weights.len() as u64 / (b * 20),
            Operation::Conv(conv) => {
                let products = written / conv.outputs as u64 * conv.weights.len() as u64;
                // One block has no zeros around its planes, and its lanes meet in the same banks.
                let per_cycle = if several { 64 } else { 22 };
                products / (b * per_cycle) + 100 + if several { 450 + written / 4 } else { 0 }
            }
            Operation::RecurrentStep(of) => of.weights.len() as u64 / (b * 64) + if several { 500 } else { 250 },
            Operation::Recurrent(of) => {
                let (state, row) = (of.recurrent.len() as u64 / b, of.weights.len() as u64 / b);
                // What does not fit registers is read in each step.
                let read = if state > 32_768 { state / 16 } else { 0 };
                of.steps as u64 * (row / 60 + read + if several { 1_000 } else { 500 })
            }
            _ => written / (b * 32) + 60 + if several && written > 32 { 450 } else { 0 },
        }
    };
    job.in_time().iter().map(of).sum::<u64>() + if several { 100 } else { 0 }
}

//! What a call begins with, and how a window's newest row is kept.

use super::{Asks, COME_WORD, Plan, ROWS_WORD, Whole, unsupported};
use crate::error::Result;
use crate::normalize::NonFinite;
use crate::resident::network::{Operation, Stage};
use crate::resident::program::ROW_KEPT;
use crate::resident::semantics::Semantics;
use crate::tensor::DataType;

impl Plan<'_> {
    pub(super) fn input(&mut self) -> Result<()> {
        let (id, input) = (self.network.inputs[0], &self.job.input);
        let kind = match input.input_type() {
            DataType::F32 => "F32",
            DataType::F16 => "F16",
            DataType::U8 => "U8",
            DataType::I16 => "I16",
            other => return Err(unsupported(format!("an input of {other}")).expected("f32, f16, u8 or i16")),
        };
        let planes_apart = self.bands.as_ref().is_some_and(|bands| bands.is_apart(id));
        if let (Some(bands), false) = (&self.bands, planes_apart) {
            self.places[id.0].each = bands.share(id);
        }
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
        // Each block asks for all, for its own share, or for a part that it sends to all.
        let stateful = self.job.semantics == Semantics::Stateful;
        let to_each = self.asks == Asks::All && self.blocks > 1 && self.bands.is_none() && !stateful;
        self.to_each = to_each;
        let whole = self.blocks > 1 && (kind != "F32" || !in_place || planes_apart);
        // Where what reads the shares sends sums to block 0: any matrix.
        let sums = |stage: &Stage| dense(stage) || matches!(&stage.operation, Operation::RecurrentStep(_));
        // One matrix alone lets block 0 go on when its own sums are there, and not yet the others'.
        let several_sums = self.job.semantics != Semantics::Whole
            || self.network.stages.iter().filter(|&stage| sums(stage)).count() > 1;
        let is_read_for_sums = several_sums
            && !self.network.outputs.contains(&id)
            && self.network.stages.iter().filter(|&stage| reads_input(stage)).all(sums);
        let hands_out = self.asks == Asks::First && self.blocks > 1 && !whole && is_read_for_sums;
        let units_each = match () {
            () if self.blocks == 1 || hands_out || to_each => units,
            () if !whole => place.each.next_multiple_of(2),
            () if units >= 16 * self.blocks => units.div_ceil(self.blocks).next_multiple_of(16),
            () => units.div_ceil(self.blocks).next_multiple_of(2),
        };
        let (to, to_bytes, barriers) = if to_each {
            let offset = self.room(place.count.next_multiple_of(64) * 4);
            self.places[id.0].whole = Some(Whole { offset, copy_bytes: 0 });
            self.places[id.0].zeros_behind = true;
            (offset, 0, 0)
        } else if whole {
            self.hears(units.div_ceil(units_each));
            let Whole { offset, copy_bytes } = self.whole_room(id);
            let behind = self.bands.as_ref().map_or(0, |bands| bands.bytes_behind(id, self.blocks));
            self.room(behind);
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
        let numbers = numbers.truth("scaled", !table.is_empty()).int("table", at);
        let numbers = numbers.truth("whole", whole || to_each || self.blocks == 1);
        let numbers = numbers.truth("replaces", replaces).float("replacement", replacement);
        let numbers = numbers.truth("bounded", lowest > f32::NEG_INFINITY || highest < f32::INFINITY);
        let numbers = numbers.float("lowest", lowest).float("highest", highest);
        let numbers = numbers.int("to", to).int("to_bytes", to_bytes).int("barriers", barriers);
        let numbers = numbers.truth("hands_out", hands_out).truth("to_each", to_each || self.grid.is_some());
        let where_to = match () {
            () if to_each => ", each block all of them",
            () if whole => ", each block's part to all",
            () if hands_out => ", from block 0 to each its share",
            () => "",
        };
        self.step(
            "Input",
            numbers,
            (whole || hands_out) && !to_each,
            false,
            format!("{units} units of input{where_to}"),
        );
        Ok(())
    }

    pub(super) fn lead(&self) -> u32 {
        if self.job.semantics == Semantics::Whole { 0 } else { 2 }
    }

    /// What puts the newest row into the window, behind everything else.
    pub(super) fn new_row(&mut self) -> Result<()> {
        let id = self.network.inputs[0];
        let place = self.place(id);
        let is_whole = self.blocks > 1 && place.whole.is_some();
        let from = if is_whole { 0 } else { self.share(id) };
        let copy_bytes = place.count.next_multiple_of(64) * 4;
        let several = self.blocks > 1;
        let to = if several && !is_whole { self.room(copy_bytes * 2) } else { 0 };
        let barriers = if several { self.barriers()? } else { 0 };
        if !is_whole {
            self.hears(place.count.div_ceil(place.each));
        }
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
        if let Some(grid) = self.grid.as_ref().map(|grid| grid.blocks) {
            let numbers = numbers.int("grid", grid).int("scratch", COME_WORD);
            self.step("GridEnd", numbers, false, true, ROW_KEPT.into());
        } else {
            self.step("NewRow", numbers, several, true, ROW_KEPT.into());
        }
        Ok(())
    }
}

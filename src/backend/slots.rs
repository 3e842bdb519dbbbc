//! Where the parts of a slot lie in mapped memory.

use std::ptr::NonNull;

use crate::backend::{CallShape, Region, Signature, SlotHeader, SlotMemory};
use crate::completion::{Completion, Done, Unit, in_band};
use crate::device::MappedBuffer;

/// What lies in front of a row's units: how many rows there are, and nothing.
const UNITS_BEFORE_A_ROW: usize = 2;

/// Slots, headers and flags start on a line of their own, so that no two calls share one.
const LINE: usize = 64;

/// Where the parts of one slot lie.
pub(crate) struct SlotLayout {
    pub(crate) inputs: Vec<(usize, usize)>,
    /// The units of an input in band.
    pub(crate) input_units: Option<usize>,
    /// Bytes of them, whole lines.
    pub(crate) unit_bytes: usize,
    pub(crate) newest_row: Option<usize>,
    pub(crate) outputs: Vec<(usize, usize)>,
    /// The flag, or the units of an answer in band.
    pub(crate) done: usize,
    pub(crate) in_band: bool,
    pub(crate) bytes: usize,
}

impl SlotLayout {
    pub(crate) fn new(signature: &Signature, input_in_band: bool) -> Self {
        let in_band = signature.shapes.iter().all(|shape| in_band::fits(&shape.outputs));
        Self::with(signature, input_in_band, in_band, None)
    }

    /// Inputs and answers in band, whatever their size; of an input that is a window, its newest row of so many bytes alone.
    pub(crate) fn all_in_band(signature: &Signature, newest_row: Option<usize>) -> Self {
        Self::with(signature, true, true, newest_row)
    }

    fn with(signature: &Signature, input_in_band: bool, in_band: bool, newest_row: Option<usize>) -> Self {
        let mut end = size_of::<SlotHeader>();
        let mut place = |bytes: usize| {
            let start = end;
            end += bytes.next_multiple_of(LINE);
            (start, bytes)
        };
        let inputs = signature
            .largest(signature.inputs.len(), |shape, input| shape.inputs[input].input_bytes())
            .map(&mut place)
            .collect();
        let input_words = || signature.shapes.iter().map(|shape| shape.inputs[0].input_words()).max().unwrap_or(0);
        let before = newest_row.map_or(0, |_| UNITS_BEFORE_A_ROW);
        let input_units = input_in_band.then(|| place((before + input_words()) * size_of::<Unit>()));
        let unit_bytes = input_units.map_or(0, |(_, bytes)| bytes.next_multiple_of(LINE));
        let input_units = input_units.map(|(start, _)| start);
        let outputs = signature
            .largest(signature.outputs.len(), |shape, output| shape.outputs[output].bytes())
            .map(&mut place)
            .collect();
        let words = signature.shapes.iter().map(CallShape::words).max().unwrap_or(0);
        let (done, _) = place(if in_band { words * size_of::<Unit>() } else { size_of::<Completion>() });
        Self { inputs, input_units, unit_bytes, newest_row, outputs, done, in_band, bytes: end }
    }

    /// The slots in `memory`, and with them the units of their inputs.
    pub(crate) fn slots(&self, memory: &MappedBuffer, slots: usize) -> Vec<SlotMemory> {
        self.slots_with(memory, slots, |slot| self.input_units.map(|units| memory.host(slot * self.bytes + units)))
    }

    /// The slots in `memory`, the units of their inputs elsewhere.
    pub(crate) fn slots_with(
        &self,
        memory: &MappedBuffer,
        slots: usize,
        input_units: impl Fn(usize) -> Option<NonNull<u8>>,
    ) -> Vec<SlotMemory> {
        let region = |slot: usize| {
            let base = slot * self.bytes;
            move |&(start, bytes): &(usize, usize)| Region { start: memory.host(base + start), bytes }
        };
        (0..slots)
            .map(|slot| SlotMemory {
                header: memory.host(slot * self.bytes).cast(),
                inputs: self.inputs.iter().map(region(slot)).collect(),
                newest_row: self.newest_row,
                input_units: input_units(slot).map(NonNull::cast),
                outputs: self.outputs.iter().map(region(slot)).collect(),
                done: {
                    let done = memory.host(slot * self.bytes + self.done);
                    if self.in_band { Done::InBand(done.cast()) } else { Done::Flag(done.cast()) }
                },
            })
            .collect()
    }
}

impl Signature {
    /// For each of `count` tensors its largest size over all shapes.
    pub(crate) fn largest(
        &self,
        count: usize,
        bytes: impl Fn(&CallShape, usize) -> usize,
    ) -> impl Iterator<Item = usize> {
        (0..count).map(move |tensor| self.shapes.iter().map(|shape| bytes(shape, tensor)).max().unwrap_or(0))
    }
}

//! A question whose answer is known, which a turn of its own asks between two others. Each turn loads the weights anew from the
//! GPU's memory: who has overwritten them there, another library with a wild pointer, say, would have wrong answers come as
//! fast as ever.
//!
//! The first answer is what the others have to be, to the last bit: it comes right behind the upload of what had its checksum.
//! The question has slots, state and a report of its own; the kernel, the weights and the stream are the engine's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::turns::ReportWords;
use crate::backend::slots::SlotLayout;
use crate::backend::{Signature, SlotMemory};
use crate::completion::{Done, Unit, in_band};
use crate::device::{Device, DeviceBuffer, MappedBuffer};
use crate::error::{Error, ErrorKind, Result};
use crate::resident::Semantics;
use crate::resident::artefact::Facts;
use crate::resident::program::BEGINS_ANEW;
use crate::resident::turn::{REPORT_WORDS, Report, Turn};
use crate::tensor::DataType;

/// The question, and the sign to end behind it.
const SLOTS: usize = 2;

/// Owns what its turns use: to be dropped when they have ended.
pub(super) struct KnownAnswer {
    every: Duration,
    /// `None`: never again.
    due: Option<Instant>,
    /// How often it was asked: the number of its last call.
    asked: u64,
    /// How often it was answered, rightly.
    answered: u64,
    /// Its turns that have ended.
    turns: u64,
    /// The first answer's words.
    known: Vec<u32>,
    turn: Turn,
    slots: Vec<SlotMemory>,
    question: Question,
    report: MappedBuffer,
    _memory: (MappedBuffer, DeviceBuffer, DeviceBuffer),
}

/// What a call hands over.
struct Question {
    words: Vec<u32>,
    row: Option<Row>,
    answer_words: usize,
}

/// Where a call hands over one.
#[derive(Clone, Copy)]
struct Row {
    words: usize,
    /// What the first call says of rows, and those after it. All rows of a window are the same one: with one more the window is what
    /// it was, and computing ahead, which may take a thousand times as long as an answer, is done once.
    first: u32,
    later: u32,
}

impl KnownAnswer {
    /// `turn` and `layout` are the engine's.
    pub(super) fn new(
        device: &Arc<Device>,
        (facts, signature): (&Facts, &Signature),
        layout: &SlotLayout,
        turn: &Turn,
        every: Duration,
    ) -> Result<Self> {
        let memory = MappedBuffer::new(device, layout.bytes * SLOTS)?;
        let report = MappedBuffer::new(device, REPORT_WORDS * 8)?;
        let progress = DeviceBuffer::from_slice(device, &super::progress(1), "a known answer's progress")?;
        let lower = "the number of resident engines";
        let state = DeviceBuffer::new(device, facts.state_bytes as usize, "a known answer's state", lower)?;
        let units = layout.input_units.expect("`SlotLayout::all_in_band` gives every slot units");
        let turn = Turn {
            input: memory.address(units),
            answer: memory.address(layout.done),
            progress: progress.address(),
            report: report.address(0),
            state: state.address(),
            input_stride: layout.bytes as u32,
            depth: SLOTS as u32,
            flags: 0,
            rows: memory.address(layout.inputs[0].0),
            // It ends behind its answer.
            limit_ns: 1,
            ..*turn
        };
        let slots = layout.slots(&memory, SLOTS);
        let question = Question::new(facts.semantics, signature, layout.newest_row);
        for slot in &slots {
            // SAFETY: the region has room for the input, to the end of its last word; nothing reads it yet.
            unsafe {
                let words = question.words.as_ptr();
                slot.inputs[0].start.cast::<u32>().as_ptr().copy_from_nonoverlapping(words, question.words.len());
            }
        }
        let (due, known) = (Some(Instant::now()), Vec::new());
        let _memory = (memory, progress, state);
        Ok(Self { every, due, asked: 0, answered: 0, turns: 0, known, turn, slots, question, report, _memory })
    }

    /// Where it is time again: the turn that asks, for which everything lies ready.
    pub(super) fn ask(&mut self) -> Option<&Turn> {
        if self.asked > self.answered || self.due.is_none_or(|due| Instant::now() < due) {
            return None;
        }
        self.due = Instant::now().checked_add(self.every);
        self.asked += 1;
        let (question, end) = (self.units(self.asked), self.units(self.asked + 1));
        self.question.send(question, self.asked);
        in_band::stop(&end[0], self.asked + 1);
        Some(&self.turn)
    }

    /// Takes the answer if it is there. How often there was a right one.
    ///
    /// # Errors
    /// [`ErrorKind::WrongAnswer`] if it is another than the first.
    pub(super) fn look(&mut self) -> Result<u64> {
        // SAFETY: made with so many words, and they live as long as `self`.
        let report = unsafe { ReportWords::new(self.report.host(0)) };
        if self.asked == self.answered || report.read(Report::Turns as usize) < self.turns + 1 {
            return Ok(self.answered);
        }
        self.turns += 1;
        if report.read(Report::Next as usize) == self.asked {
            // Something held the GPU up so long that the turn was broken off (`kGrace` in kernels/resident/turn.cuh): another time.
            self.asked -= 1;
            return Ok(self.answered);
        }
        let units = self.answer();
        let mut words = vec![0; units.len()];
        in_band::unpack(units, &mut words);
        if in_band::finished(units, self.asked).is_none() {
            return Err(wrong("an answer", "none, or one of another call".to_owned()));
        }
        if self.known.is_empty() {
            self.known = words;
        } else if let Some(place) = (0..words.len()).find(|&place| words[place] != self.known[place]) {
            let [known, got] = [self.known[place], words[place]].map(f32::from_bits);
            return Err(wrong(
                format!("{known:?} in element {place}, as when the engine was loaded"),
                format!("{got:?} (the {}th time)", self.asked),
            ));
        }
        self.answered = self.asked;
        Ok(self.answered)
    }

    fn slot(&self, call: u64) -> &SlotMemory {
        &self.slots[((call - 1) % SLOTS as u64) as usize]
    }

    /// The units of call `call`'s input.
    fn units(&self, call: u64) -> &[Unit] {
        let first = self.slot(call).input_units.expect("`SlotLayout::all_in_band` gives every slot units");
        // SAFETY: `SlotLayout` has made them so many; they live as long as `self`.
        unsafe { std::slice::from_raw_parts(first.as_ptr(), self.question.units()) }
    }

    fn answer(&self) -> &[Unit] {
        let Done::InBand(first) = self.slot(self.asked).done else { unreachable!("`SlotLayout::all_in_band`") };
        // SAFETY: a unit for each word of an answer, by `SlotLayout`; they live as long as `self`.
        unsafe { std::slice::from_raw_parts(first.as_ptr(), self.question.answer_words) }
    }
}

fn wrong(expected: impl Into<String>, got: String) -> Error {
    Error::new(ErrorKind::WrongAnswer, "ask a resident engine what is known")
        .expected(expected)
        .got(got)
        .advice("something has changed its weights or its code on the GPU: see the GPU's memory errors (tickrt doctor), and what else computes in this process")
}

impl Question {
    fn new(semantics: Semantics, signature: &Signature, newest_row: Option<usize>) -> Self {
        let shape = &signature.shapes[0];
        let (words, data_type) = (shape.inputs[0].input_words(), shape.inputs[0].input_type());
        let row = newest_row.map(|bytes| match semantics {
            Semantics::Stateful => Row { words: bytes / 4, first: BEGINS_ANEW, later: BEGINS_ANEW },
            _ => Row { words: bytes / 4, first: (4 * words / bytes) as u32, later: 1 },
        });
        let period = row.map_or(words, |row| row.words);
        let words = (0..words).map(|place| word(data_type, (place % period) as u32)).collect();
        Self { words, row, answer_words: shape.words() }
    }

    fn units(&self) -> usize {
        self.row.map_or(self.words.len().next_multiple_of(2), |row| 2 + row.words.next_multiple_of(2))
    }

    fn send(&self, units: &[Unit], call: u64) {
        match self.row {
            Some(row) => {
                let rows = if call == 1 { row.first } else { row.later };
                in_band::send_row(rows, &self.words[..row.words], units, call);
            }
            None => in_band::send(&self.words, units, call),
        }
    }
}

/// What lies at a place of the input: numbers between -1 and 1, or any of those that whole ones can be.
fn word(data_type: DataType, place: u32) -> u32 {
    let mixed = (place + 1).wrapping_mul(0x9e37_79b9);
    let number = |mixed: u32| (mixed >> 8) as f32 / (1 << 23) as f32 - 1.0;
    match data_type {
        DataType::F32 => number(mixed).to_bits(),
        DataType::F16 => {
            let [low, high] = [mixed, mixed.rotate_left(16)].map(|mixed| half::f16::from_f32(number(mixed)).to_bits());
            u32::from(high) << 16 | u32::from(low)
        }
        _ => mixed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn question_is_of_finite_numbers_that_differ() {
        let numbers: Vec<f32> = (0..1000).map(|place| f32::from_bits(word(DataType::F32, place))).collect();
        assert!(numbers.iter().all(|number| (-1.0..1.0).contains(number)));
        assert!((1..1000).all(|place| numbers[place] != numbers[place - 1]));
        let spread = numbers.iter().sum::<f32>() / 1000.0;
        assert!(spread.abs() < 0.05, "{spread}");
        let halves = |place| [word(DataType::F16, place) as u16, (word(DataType::F16, place) >> 16) as u16];
        assert!((0..1000).flat_map(halves).all(|half| half::f16::from_bits(half).to_f32().abs() <= 1.0));
    }
}

//! How stages fall into a part ahead and a part that remains. A stage without a rule, or whose geometry does not suit it,
//! remains whole.

use super::carry::{Part, Parted, Splitter};
use crate::resident::network::{
    Affine, Along, Cell, Conv, Dense, Emit, LayerNorm, Operation, Pool, Recurrent, RecurrentStep, Slice, Sliding,
    Stage, ValueId,
};

impl Splitter<'_> {
    /// What the stage writes, where some of it can be computed ahead.
    pub(super) fn parted(&mut self, stage: &Stage, reads: &[Part]) -> Option<Part> {
        let Part::Both(parted) = reads[0] else { return None };
        match &stage.operation {
            Operation::Elementwise(_) => match reads[1] {
                Part::Both(other) if (other.along, other.from) == (parted.along, parted.from) => {
                    Some(self.pieces(stage, &[parted, other], parted.along, |_| stage.operation.clone()))
                }
                _ => None,
            },
            Operation::Activation(_) => Some(self.pieces(stage, &[parted], parted.along, |_| stage.operation.clone())),
            Operation::Dense(Dense { rows, outputs, .. }) => self.rows(stage, parted, *rows, *outputs),
            Operation::Softmax { rows, columns } => self.rows(stage, parted, *rows, *columns),
            Operation::LayerNorm(LayerNorm { rows, width, .. }) => self.rows(stage, parted, *rows, *width),
            Operation::Affine(affine) => self.affine(stage, parted, affine),
            Operation::Transpose { shape, order } => self.transpose(stage, parted, shape, order),
            Operation::Slice(slice) => self.slice(stage, parted, *slice),
            Operation::Conv(Conv { sliding, outputs, .. }) => self.sliding(stage, parted, sliding, *outputs),
            Operation::Pool(Pool { sliding, .. }) => self.sliding(stage, parted, sliding, sliding.channels),
            Operation::Recurrent(recurrent) => self.recurrent(stage, parted, recurrent),
            Operation::Concat { .. } | Operation::Pad(_) | Operation::RecurrentStep(_) => None,
        }
    }

    /// The operation for the pieces of either part; `of` makes it for a length. The result is parted at the same place.
    fn pieces(&mut self, stage: &Stage, reads: &[Parted], along: Along, of: impl Fn(usize) -> Operation) -> Part {
        let from = reads[0].from;
        let (old, new) = (along.of_length(from), along.of_length(along.length - from));
        let ahead: Vec<_> = reads.iter().map(|read| read.old).collect();
        let remaining: Vec<_> = reads.iter().map(|read| read.new).collect();
        let old = self.add(true, stage, of(old.length), &ahead, old.shape());
        let new = self.add(false, stage, of(new.length), &remaining, new.shape());
        Part::Both(Parted { along, from, old, new })
    }

    /// A stage that makes `written` elements of each of `rows` rows, where each place has rows of its own.
    fn rows(&mut self, stage: &Stage, parted: Parted, rows: usize, written: usize) -> Option<Part> {
        let Along { outer, length, .. } = parted.along;
        let each = rows.is_multiple_of(outer * length).then_some(rows / (outer * length))?;
        let along = Along { outer, length, inner: each * written };
        Some(self.pieces(stage, &[parted], along, |length| {
            let rows = outer * length * each;
            match stage.operation.clone() {
                Operation::Dense(dense) => Operation::Dense(Dense { rows, ..dense }),
                Operation::LayerNorm(norm) => Operation::LayerNorm(LayerNorm { rows, ..norm }),
                Operation::Softmax { columns, .. } => Operation::Softmax { rows, columns },
                other => other,
            }
        }))
    }

    fn affine(&mut self, stage: &Stage, parted: Parted, affine: &Affine) -> Option<Part> {
        let (constants, along) = (affine.along, parted.along);
        let within = along.inner * along.length;
        // The dimension lies behind the one of the constants, or before it.
        let of: Box<dyn Fn(usize) -> Along> = if constants.inner.is_multiple_of(within) {
            Box::new(move |length| Along { inner: constants.inner / along.length * length, ..constants })
        } else if along.inner.is_multiple_of(constants.length * constants.inner) {
            Box::new(move |length| Along { outer: constants.outer / along.length * length, ..constants })
        } else {
            return None;
        };
        let operation = |length| Operation::Affine(Affine { along: of(length), ..affine.clone() });
        Some(self.pieces(stage, &[parted], along, operation))
    }

    fn transpose(&mut self, stage: &Stage, parted: Parted, shape: &[usize], order: &[usize]) -> Option<Part> {
        let axis = (0..shape.len()).find(|&axis| Along::new(shape, axis) == parted.along)?;
        let result: Vec<usize> = order.iter().map(|&axis| shape[axis]).collect();
        let moved = order.iter().position(|&from| from == axis)?;
        Some(self.pieces(stage, &[parted], Along::new(&result, moved), |length| {
            let mut shape = shape.to_vec();
            shape[axis] = length;
            Operation::Transpose { shape, order: order.to_vec() }
        }))
    }

    fn slice(&mut self, stage: &Stage, parted: Parted, slice: Slice) -> Option<Part> {
        if slice.along != parted.along || slice.step != 1 {
            return None;
        }
        let (end, along) = (slice.start + slice.count, slice.along.of_length(slice.count));
        let of_old = |count| Slice { along: parted.old_along(), count, ..slice };
        let of_new = |start, count| Slice { along: parted.new_along(), start, count, step: 1 };
        if end <= parted.from {
            let operation = Operation::Slice(of_old(slice.count));
            return Some(Part::Ahead(self.add(true, stage, operation, &[parted.old], along.shape())));
        }
        if slice.start >= parted.from {
            let operation = Operation::Slice(of_new(slice.start - parted.from, slice.count));
            return Some(Part::Remaining(self.add(false, stage, operation, &[parted.new], along.shape())));
        }
        let from = parted.from - slice.start;
        let (old, new) = (along.of_length(from), along.of_length(slice.count - from));
        let old = self.add(true, stage, Operation::Slice(of_old(from)), &[parted.old], old.shape());
        let new = self.add(false, stage, Operation::Slice(of_new(0, new.length)), &[parted.new], new.shape());
        Some(Part::Both(Parted { along, from, old, new }))
    }

    /// A convolution or pool along which the window slides: the places that reach no new row, and the others with as much
    /// of the old rows as they reach.
    fn sliding(&mut self, stage: &Stage, parted: Parted, sliding: &Sliding, channels: usize) -> Option<Part> {
        let shape = [sliding.channels, sliding.size[0], sliding.size[1]];
        let axis = (0..2).find(|&axis| Along::new(&shape, axis + 1) == parted.along)?;
        let (stride, reach) = (sliding.strides[axis], sliding.reach(axis));
        let output = sliding.output();
        let along = Along::new(&[channels, output[0], output[1]], axis + 1);
        let from = (parted.from + sliding.before[axis]).checked_sub(reach)? / stride + 1;
        let skipped = (from * stride).saturating_sub(sliding.before[axis]);
        if from < along.length && skipped >= sliding.size[axis] {
            // What is left lies in the padding behind the newest row.
            return None;
        }
        let of = |sliding: Sliding| match stage.operation.clone() {
            Operation::Conv(conv) => Operation::Conv(Conv { sliding, ..conv }),
            Operation::Pool(pool) => Operation::Pool(Pool { sliding, ..pool }),
            other => other,
        };
        let mut first = sliding.clone();
        first.size[axis] = parted.from;
        first.behind[axis] = 0;
        let old = self.add(true, stage, of(first), &[parted.old], along.of_length(from).shape());
        if from == along.length {
            return Some(Part::Ahead(old));
        }
        let mut second = sliding.clone();
        second.size[axis] -= skipped;
        second.before[axis] = sliding.before[axis].saturating_sub(from * stride);
        let reached = self.places_from(stage, parted, skipped);
        let new = self.add(false, stage, of(second), &[reached], along.of_length(along.length - from).shape());
        Some(Part::Both(Parted { along, from, old, new }))
    }

    /// The places of a value from `start` on, in what remains.
    fn places_from(&mut self, stage: &Stage, parted: Parted, start: usize) -> ValueId {
        let (old, new) = (parted.old_along(), parted.new_along());
        if start >= parted.from {
            let start = start - parted.from;
            let slice = Slice { along: new, start, count: new.length - start, step: 1 };
            let shape = new.of_length(slice.count).shape();
            return if start == 0 {
                parted.new
            } else {
                self.add(false, stage, Operation::Slice(slice), &[parted.new], shape)
            };
        }
        let count = parted.from - start;
        let slice = Slice { along: old, start, count, step: 1 };
        let kept = self.add(true, stage, Operation::Slice(slice), &[parted.old], old.of_length(count).shape());
        let kept = self.carry(kept);
        let parts = vec![count * old.inner, new.length * old.inner];
        let shape = old.of_length(count + new.length).shape();
        self.add(false, stage, Operation::Concat { outer: old.outer, parts }, &[kept, parted.new], shape)
    }

    /// All steps but the last, and the last one's part of the state.
    fn recurrent(&mut self, stage: &Stage, parted: Parted, of: &Recurrent) -> Option<Part> {
        let Recurrent { cell, steps, inputs, units, .. } = *of;
        let along = Along { outer: 1, length: steps, inner: inputs };
        if parted.along != along || parted.from + 1 != steps || steps == 1 || of.emit == Emit::AllAndCell {
            return None;
        }
        let before = Recurrent { steps: steps - 1, emit: Emit::AllAndCell, ..of.clone() };
        let rows = before.rows_written();
        let written = self.add(true, stage, Operation::Recurrent(before), &[parted.old], vec![rows, units]);
        let row = |start, count| Slice { along: Along { outer: 1, length: rows, inner: units }, start, count, step: 1 };
        let mut taken =
            |start, count, shape| self.add(true, stage, Operation::Slice(row(start, count)), &[written], shape);
        let every = taken(0, steps - 1, vec![steps - 1, units]);
        let output = taken(steps - 2, 1, vec![units]);
        let state = if cell == Cell::Lstm { taken(steps - 1, 1, vec![units]) } else { output };
        let of_state = cell.gates_ahead() * units;
        let (matrix, candidate) = of.recurrent.split_at(of_state * units);
        let (bias, candidate_bias) = of.recurrent_bias.split_at(of_state);
        let product = Dense {
            rows: 1,
            inputs: units,
            outputs: of_state,
            weights: matrix.into(),
            bias: Some(bias.into()),
            activation: None,
        };
        let product = self.add(true, stage, Operation::Dense(product), &[output], vec![of_state]);
        let (product, state) = (self.carry(product), self.carry(state));
        let step = RecurrentStep {
            cell,
            inputs,
            units,
            weights: of.weights.clone(),
            bias: of.bias.clone(),
            candidate: (candidate.into(), candidate_bias.into()),
            keeps_cell: false,
        };
        let new = self.add(false, stage, Operation::RecurrentStep(step), &[parted.new, product, state], vec![units]);
        Some(match of.emit {
            Emit::All => {
                let along = Along { outer: 1, length: steps, inner: units };
                Part::Both(Parted { along, from: steps - 1, old: every, new })
            }
            _ => Part::Remaining(new),
        })
    }
}

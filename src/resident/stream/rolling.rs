//! Windows that are on their way side by side: what is computed ahead of a stack of recurrent layers is the same for each
//! window, one row later. So each new row goes through all windows that have begun, at once, instead of all rows through the
//! next window.

use super::Split;
use crate::resident::network::{Along, Emit, Network, Operation, Recurrent, Slice, Stage, ValueId};

/// A network in two parts, of the first of which its recurrent layers are apart.
#[derive(Debug, Clone)]
pub struct Rolling {
    /// One behind the other, all rows but the newest. The first reads the window, each other all outputs of the one before.
    pub layers: Vec<Layer>,
    /// What follows from their last outputs and cells alone. Its inputs are those, and its outputs what
    /// [`remaining`](Self::remaining) takes.
    pub ahead: Network,
    /// As [`Split::remaining`].
    pub remaining: Network,
}

/// A recurrent layer of windows.
#[derive(Debug, Clone)]
pub struct Layer {
    /// What it computes.
    pub of: Recurrent,
    /// In [`Rolling::ahead`]: its output behind the last of its steps.
    pub output: ValueId,
    /// Likewise its cell, of an LSTM.
    pub cell: Option<ValueId>,
}

/// Takes the layers out of what is computed ahead; `None` if something else of it reads the window or all outputs of a layer.
#[must_use]
pub fn roll(split: &Split) -> Option<Rolling> {
    let mut ahead = split.ahead.clone();
    let (mut layers, mut rest) = (Vec::new(), Vec::new());
    let [mut rows] = ahead.inputs[..] else { return None };
    let mut hidden = vec![rows];
    let mut stages = ahead.stages.drain(..).peekable();
    while let Some(stage) = stages.next() {
        let Operation::Recurrent(of) = &stage.operation else {
            rest.push(stage);
            continue;
        };
        // Of one step the last output would be all of them.
        if stage.reads[..] != [rows] || of.emit != Emit::AllAndCell || of.steps < 2 {
            return None;
        }
        let (mut every, mut output, mut cell) = (None, None, None);
        while let Some(part) = stages.next_if(|part| part.reads[..] == [stage.writes]) {
            *match part_of(of, &part)? {
                Part::Every => &mut every,
                Part::Output => &mut output,
                Part::Cell => &mut cell,
            } = Some(part.writes);
        }
        layers.push(Layer { of: of.clone(), output: output?, cell });
        hidden.push(stage.writes);
        if let Some(every) = every {
            hidden.push(every);
            rows = every;
        }
    }
    drop(stages);
    let is_read =
        |id: &ValueId| ahead.outputs.contains(id) || rest.iter().any(|stage: &Stage| stage.reads.contains(id));
    if layers.is_empty() || hidden.iter().any(is_read) {
        return None;
    }
    ahead.inputs = layers.iter().flat_map(|layer| [Some(layer.output), layer.cell]).flatten().collect();
    ahead.stages = rest;
    Some(Rolling { layers, ahead, remaining: split.remaining.clone() })
}

enum Part {
    Every,
    Output,
    Cell,
}

fn part_of(of: &Recurrent, stage: &Stage) -> Option<Part> {
    let along = Along { outer: 1, length: of.rows_written(), inner: of.units };
    match stage.operation {
        Operation::Slice(slice) if slice.along == along && slice.step == 1 => match slice {
            Slice { start: 0, count, .. } if count == of.steps => Some(Part::Every),
            Slice { start, count: 1, .. } if start + 1 == of.steps => Some(Part::Output),
            Slice { start, count: 1, .. } if start == of.steps => Some(Part::Cell),
            _ => None,
        },
        _ => None,
    }
}

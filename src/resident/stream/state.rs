//! State that is carried from call to call: of each recurrent layer the output, and of an LSTM the cell, that the call before
//! left stand for all the steps before.

use super::split;
use crate::error::{Error, ErrorKind, Result};
use crate::resident::fuse::drop_unread;
use crate::resident::network::{Cell, Network, Operation, Recurrent, ValueId, Weights};

/// A network that computes one step a call.
#[derive(Debug, Clone)]
pub struct Carried {
    /// What the next step needs of the state alone. Its inputs are the [`states`](Self::states)' outputs, as the call before left
    /// them.
    pub ahead: Network,
    /// Its inputs are the row and the outputs of [`ahead`](Self::ahead); its outputs are the network's.
    pub remaining: Network,
    /// A layer's each, in the order of `ahead`'s inputs.
    pub states: Vec<State>,
}

/// What a recurrent layer carries.
#[derive(Debug, Clone)]
pub struct State {
    /// In [`Carried::remaining`]: the output of this call's step.
    pub after: ValueId,
    /// The output before the first step.
    pub initial: Weights,
    /// The cell before the first step, of an LSTM. It is kept by who computes the step
    /// ([`RecurrentStep::keeps_cell`](crate::resident::network::RecurrentStep::keeps_cell)).
    pub initial_cell: Option<Weights>,
}

/// Makes one step of a network whose one input is a window, its rows along dimension `axis` (dimensions of one not counted).
///
/// # Errors
/// Those of [`split`]; [`ErrorKind::Unsupported`] for a network that has no state, or that looks back at earlier rows otherwise
/// than by it.
pub fn carry_state(network: &Network, axis: usize) -> Result<Carried> {
    let parts = split(network, 0, axis)?;
    let (mut ahead, mut remaining) = (parts.ahead, parts.remaining);
    let window = ahead.inputs.remove(0);
    let mut states = Vec::new();
    for stage in &mut remaining.stages {
        let (Operation::RecurrentStep(step), [_, product, state]) = (&mut stage.operation, &stage.reads[..]) else {
            continue;
        };
        // The newest row comes first, then what is carried over.
        let carried = |id: &ValueId| remaining.inputs.iter().position(|input| input == id).map_or(0, |place| place - 1);
        let (product, state) = (carried(product), carried(state));
        let Some((reader, recurrent)) = source(&ahead, ahead.outputs[product]) else { continue };
        let Recurrent { units, initial, initial_cell, .. } = recurrent.clone();
        let name = remaining.values[stage.writes.0].name.clone();
        let before = ahead.add_value(name, vec![units]);
        ahead.inputs.push(before);
        ahead.stages[reader].reads[0] = before;
        ahead.outputs[state] = before;
        step.keeps_cell = step.cell == Cell::Lstm;
        let initial_cell = step.keeps_cell.then_some(initial_cell);
        states.push(State { after: stage.writes, initial, initial_cell });
    }
    drop_unread(&mut ahead);
    let unsupported = |got: String| {
        Error::new(ErrorKind::Unsupported, "carry a network's state from call to call")
            .expected("LSTM or GRU layers, and nothing else that looks back at earlier rows")
            .got(got)
            .advice("build it with --semantics window, which keeps the rows")
    };
    if ahead.uses(window) > 0 {
        let carried =
            ahead.outputs.iter().position(|&output| output == window).map(|place| remaining.inputs[place + 1]);
        let reader = reader(&ahead, window).or_else(|| reader(&remaining, carried?));
        return Err(unsupported(
            reader.map_or("an output that has them".into(), |node| format!("`{node}`, which reads them")),
        ));
    }
    if states.is_empty() {
        return Err(unsupported("a network without any".into()));
    }
    Ok(Carried { ahead, remaining, states })
}

/// The first node of the model that reads a value, or what is made of it without any.
fn reader(network: &Network, mut value: ValueId) -> Option<&str> {
    loop {
        let stage = network.stages.iter().find(|stage| stage.reads.contains(&value))?;
        match stage.nodes.first() {
            Some(node) => return Some(node),
            None => value = stage.writes,
        }
    }
}

/// The place of the stage that multiplies the state, and the layer whose last output that is.
fn source(ahead: &Network, product: ValueId) -> Option<(usize, &Recurrent)> {
    let writer = |id: ValueId| ahead.stages.iter().position(|stage| stage.writes == id);
    let reader = writer(product)?;
    let output = writer(ahead.stages[reader].reads[0])?;
    match &ahead.stages[writer(ahead.stages[output].reads[0])?].operation {
        Operation::Recurrent(recurrent) => Some((reader, recurrent)),
        _ => None,
    }
}

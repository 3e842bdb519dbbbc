//! LSTM and GRU.

use super::node::Node;
use super::{Known, Lowering, Tensor};
use crate::error::Result;
use crate::resident::network::{Along, Cell, Emit, Operation, Recurrent, Slice, Weights};

impl<'graph> Lowering<'graph> {
    pub(super) fn recurrent(&mut self, node: &Node<'graph>) -> Result<()> {
        node.only(&[
            "activations",
            "direction",
            "hidden_size",
            "input_forget",
            "layout",
            "linear_before_reset",
            "output_sequence",
        ])?;
        let cell = self::cell(node)?;
        let value = self.tensor(node, 0)?;
        let [steps, 1, inputs] = value.shape[..] else {
            return Err(node.refuse(format!("a value of {:?}; it is time, batch of 1, features", value.shape)));
        };
        let last_output = if cell == Cell::Lstm { 2 } else { 3 };
        node.no_output_from(last_output, |name| self.is_used(name))?;
        let recurrent = self.cell_weights(node, cell, steps, inputs)?;
        let units = recurrent.units;
        let every = self.step(node, Operation::Recurrent(recurrent), &[value.id], &[steps, units]);
        // `fuse` makes one of the two where only the last step is wanted.
        if let Some(name) = node.output(1).filter(|name| self.is_used(name)) {
            let along = Along { outer: 1, length: steps, inner: units };
            let last = Slice { along, start: steps - 1, count: 1, step: 1 };
            let id = if steps == 1 { every } else { self.step(node, Operation::Slice(last), &[every], &[units]) };
            self.known.insert(name, Known::Tensor(Tensor { id, shape: vec![1, 1, units] }));
        }
        self.is(node, Known::Tensor(Tensor { id: every, shape: vec![steps, 1, 1, units] }));
        Ok(())
    }

    fn cell_weights(&self, node: &Node<'_>, cell: Cell, steps: usize, inputs: usize) -> Result<Recurrent> {
        let units = usize::try_from(node.int("hidden_size", 0)).ok().filter(|&units| units > 0);
        let units = units.ok_or_else(|| node.refuse("no hidden_size"))?;
        let rows = cell.gates() * units;
        let of = |place: usize, shape: &[usize]| -> Result<Option<Weights>> {
            let Some(constant) = self.weights(node, place)? else { return Ok(None) };
            let fits = constant.shape == shape;
            let floats = constant.as_floats().filter(|_| fits).cloned();
            floats
                .map(Some)
                .ok_or_else(|| node.refuse(format!("{:?} for input {place}, not {shape:?}", constant.shape)))
        };
        let needed = |place: usize, shape: &[usize]| of(place, shape)?.ok_or_else(|| node.refuse("no weights"));
        let (weights, recurrent) = (needed(1, &[1, rows, inputs])?, needed(2, &[1, rows, units])?);
        let both = of(3, &[1, 2 * rows])?.unwrap_or_else(|| vec![0.0; 2 * rows].into());
        self.whole_window(node, steps)?;
        if let Some(peepholes) = of(7, &[1, 3 * units])?
            && peepholes.iter().any(|&weight| weight != 0.0)
        {
            return Err(node.refuse("peepholes"));
        }
        let zeros = || Weights::from(vec![0.0; units]);
        Ok(Recurrent {
            cell,
            steps,
            inputs,
            units,
            weights,
            recurrent,
            bias: both[..rows].into(),
            recurrent_bias: both[rows..].into(),
            initial: of(5, &[1, 1, units])?.unwrap_or_else(zeros),
            initial_cell: of(6, &[1, 1, units])?.unwrap_or_else(zeros),
            emit: Emit::All,
        })
    }

    /// That `sequence_lens` says what the shape says.
    fn whole_window(&self, node: &Node<'_>, steps: usize) -> Result<()> {
        let lengths = self.constant(node, 4)?;
        let whole =
            lengths.as_ref().and_then(|lengths| lengths.as_integers()).is_none_or(|lengths| lengths == [steps as i64]);
        if whole { Ok(()) } else { Err(node.refuse("sequence_lens other than the window's")) }
    }
}

fn cell(node: &Node<'_>) -> Result<Cell> {
    let is_lstm = node.operator() == "LSTM";
    let usual: &[&str] = if is_lstm { &["sigmoid", "tanh", "tanh"] } else { &["sigmoid", "tanh"] };
    let activations: Vec<String> = node.texts("activations").iter().map(|name| name.to_lowercase()).collect();
    if !activations.is_empty() && activations != usual {
        return Err(node.refuse(format!("the activations {activations:?}; they have {usual:?}")));
    }
    if let Some(direction) = node.text("direction").filter(|direction| direction != "forward") {
        return Err(node.refuse(format!("the direction `{direction}`; they have `forward`")));
    }
    if node.int("layout", 0) != 0 {
        return Err(node.refuse("layout 1; they have 0, time first"));
    }
    if node.int("input_forget", 0) != 0 {
        return Err(node.refuse("coupled input and forget gates"));
    }
    let linear_before_reset = node.int("linear_before_reset", 0) != 0;
    Ok(if is_lstm { Cell::Lstm } else { Cell::Gru { linear_before_reset } })
}

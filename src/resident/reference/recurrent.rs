//! LSTM and GRU. A step adds two sums, one over its row and one over the state, each rounded before: so the second may
//! be computed before the row is there, and the bits stay the same.

use super::Accumulation;
use super::functions::activate;
use super::sums::matrix_vector;
use crate::resident::network::{Activation, Cell, Emit, Recurrent, RecurrentStep};

/// What a step hands to the next; the cell is the LSTM's alone.
struct State {
    output: Vec<f32>,
    cell: Vec<f32>,
}

/// The matrices of one step.
struct Step<'of> {
    cell: Cell,
    units: usize,
    /// What a GRU with its reset gate first multiplies by: the last part of the recurrent matrix and bias.
    candidate: (&'of [f32], &'of [f32]),
    accumulation: Accumulation,
}

pub(super) fn window(recurrent: &Recurrent, value: &[f32], accumulation: Accumulation) -> Vec<f32> {
    let Recurrent { cell, units, .. } = *recurrent;
    let ahead = cell.gates_ahead() * units;
    let (matrix, candidate) = recurrent.recurrent.split_at(ahead * units);
    let (bias, candidate_bias) = recurrent.recurrent_bias.split_at(ahead);
    let step = Step { cell, units, candidate: (candidate, candidate_bias), accumulation };
    let mut state = State { output: recurrent.initial.to_vec(), cell: recurrent.initial_cell.to_vec() };
    let mut written = Vec::new();
    for row in value.chunks(recurrent.inputs) {
        let of_row = matrix_vector(&recurrent.weights, Some(&recurrent.bias), row, accumulation);
        let of_state = matrix_vector(matrix, Some(bias), &state.output, accumulation);
        state = step.next(&of_row, &of_state, &state);
        written.extend(&state.output);
    }
    match recurrent.emit {
        Emit::All => written,
        Emit::Last => state.output,
        Emit::AllAndCell if cell == Cell::Lstm => [written, state.cell].concat(),
        Emit::AllAndCell => written,
    }
}

/// The newest step: `of_state` and the state were computed before.
pub(super) fn step(
    of: &RecurrentStep,
    row: &[f32],
    of_state: &[f32],
    state: &[f32],
    accumulation: Accumulation,
) -> Vec<f32> {
    let step = Step { cell: of.cell, units: of.units, candidate: (&of.candidate.0, &of.candidate.1), accumulation };
    let of_row = matrix_vector(&of.weights, Some(&of.bias), row, accumulation);
    // It is the cell of an LSTM and the output of a GRU; neither looks at the other.
    let state = State { output: state.to_vec(), cell: state.to_vec() };
    step.next(&of_row, of_state, &state).output
}

impl Step<'_> {
    fn next(&self, of_row: &[f32], of_state: &[f32], state: &State) -> State {
        match self.cell {
            Cell::Lstm => self.lstm(of_row, of_state, state),
            Cell::Gru { linear_before_reset } => self.gru(of_row, of_state, state, linear_before_reset),
        }
    }

    fn lstm(&self, of_row: &[f32], of_state: &[f32], state: &State) -> State {
        let gate = |gate: usize, unit: usize| of_row[gate * self.units + unit] + of_state[gate * self.units + unit];
        let cell = |unit: usize| {
            let (input, forget) = (sigmoid(gate(0, unit)), sigmoid(gate(2, unit)));
            forget * state.cell[unit] + input * tanh(gate(3, unit))
        };
        let cell: Vec<f32> = (0..self.units).map(cell).collect();
        let output = (0..self.units).map(|unit| sigmoid(gate(1, unit)) * tanh(cell[unit])).collect();
        State { output, cell }
    }

    fn gru(&self, of_row: &[f32], of_state: &[f32], state: &State, linear_before_reset: bool) -> State {
        let units = self.units;
        let gate = |gate: usize, unit: usize| sigmoid(of_row[gate * units + unit] + of_state[gate * units + unit]);
        let reset: Vec<f32> = (0..units).map(|unit| gate(1, unit)).collect();
        let of_candidate: Vec<f32> = if linear_before_reset {
            (0..units).map(|unit| reset[unit] * of_state[2 * units + unit]).collect()
        } else {
            let kept: Vec<f32> = reset.iter().zip(&state.output).map(|(reset, output)| reset * output).collect();
            matrix_vector(self.candidate.0, Some(self.candidate.1), &kept, self.accumulation)
        };
        let output = |unit: usize| {
            let (update, candidate) = (gate(0, unit), tanh(of_row[2 * units + unit] + of_candidate[unit]));
            (1.0 - update) * candidate + update * state.output[unit]
        };
        State { output: (0..units).map(output).collect(), cell: Vec::new() }
    }
}

fn sigmoid(x: f32) -> f32 {
    activate(Activation::Sigmoid, x)
}

fn tanh(x: f32) -> f32 {
    activate(Activation::Tanh, x)
}

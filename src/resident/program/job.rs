//! What is to be computed: a network and what its calls hand over. Of a window it is both parts as one network, what is
//! computed ahead first.

use super::unsupported;
use crate::error::Result;
use crate::normalize::Normalizer;
use crate::resident::budget::WeightType;
use crate::resident::network::{Emit, Network, Operation, Stage, ValueId};
use crate::resident::semantics::Semantics;
use crate::resident::stream::{Carried, Layer, Rolling, Split, State, carry_state, roll, split};

pub(super) struct Job {
    /// Its first input is what a call hands over; with a window its second has the rows before, with state the others have the
    /// outputs of the step before.
    pub(super) network: Network,
    pub(super) semantics: Semantics,
    /// In what its matrices and recurrent layers have their weights.
    pub(super) weights: WeightType,
    /// Stages that are computed before the call comes.
    pub(super) ahead: usize,
    /// Rows of the window.
    pub(super) steps: u32,
    pub(super) input: Normalizer,
    /// Mean, standard deviation and place of each element that is handed over, if anything is done to it.
    pub(super) table: Vec<(f32, f32, u32)>,
    /// Elements that are handed over.
    pub(super) count: u32,
    /// What calls carry, in the order of the inputs behind the first.
    pub(super) states: Vec<State>,
    /// Recurrent layers of a window whose rows go through all windows at once. The inputs behind the first are their outputs and
    /// cells, and the rows before are nobody else's.
    pub(super) rolling: Vec<Layer>,
}

impl Job {
    pub(super) fn new(
        network: &Network,
        input: &Normalizer,
        semantics: Semantics,
        weights: WeightType,
    ) -> Result<Self> {
        let shape = &network.value(network.inputs[0]).shape;
        let steps = shape.first().copied().unwrap_or(1);
        if semantics != Semantics::Whole && steps < 2 {
            return Err(unsupported(format!("an input of shape {shape:?}")).expected("a window of at least two rows"));
        }
        let handed_over = if semantics == Semantics::Stateful { steps } else { 1 };
        let count = network.value(network.inputs[0]).count() / handed_over;
        if input.count() != count {
            return Err(
                unsupported(format!("a normalisation of {} elements", input.count())).expected(format!("{count}"))
            );
        }
        match semantics {
            Semantics::Whole => Ok(Self {
                network: network.clone(),
                semantics,
                weights,
                ahead: 0,
                steps: 1,
                input: input.clone(),
                table: input.elements(),
                count: count as u32,
                states: Vec::new(),
                rolling: Vec::new(),
            }),
            Semantics::Window => Self::of_window(network, input, steps, weights),
            Semantics::Stateful => Self::of_state(network, input, weights),
        }
    }

    /// A stack of recurrent layers on a grid of blocks: its first stages, of which the last one's newest output goes on. They read the
    /// window and hand on a row, so that values are those of the newest step.
    pub(super) fn of_grid(network: &Network, input: &Normalizer) -> Result<Self> {
        let refused = |got: String| {
            unsupported(got).expected("LSTM or GRU layers, one behind the other, the last one's newest output going on")
        };
        let shape = &network.value(network.inputs[0]).shape;
        let layers =
            network.stages.iter().take_while(|stage| matches!(stage.operation, Operation::Recurrent(_))).count();
        let (mut read, mut network) = (network.inputs[0], network.clone());
        let steps = shape.first().copied().unwrap_or(1);
        if layers == 0 || steps < 2 {
            return Err(refused(format!("{layers} of them over an input of shape {shape:?}")));
        }
        let row = input.count() / steps;
        let table = of_each_row(input.elements(), row)?;
        network.values[read.0].shape = vec![row];
        for number in 0..layers {
            let Stage { operation: Operation::Recurrent(of), reads, writes, .. } = &network.stages[number] else {
                unreachable!("they were counted")
            };
            let (emit, writes, units) = (if number + 1 == layers { Emit::Last } else { Emit::All }, *writes, of.units);
            let is_read_alone = network.uses(read) == 1 && !network.outputs.contains(&read);
            if reads[..] != [read] || of.emit != emit || !is_read_alone || network.outputs.contains(&writes) {
                return Err(refused(format!("layer {number} of another structure")));
            }
            network.values[writes.0].shape = vec![units];
            read = writes;
        }
        let behind = network.stages[layers..].iter().any(|stage| matches!(stage.operation, Operation::Recurrent(_)));
        if behind {
            return Err(refused("recurrent layers behind other operations".into()));
        }
        Ok(Self {
            network,
            semantics: Semantics::Window,
            weights: WeightType::F16,
            ahead: layers,
            steps: steps as u32,
            input: input.clone(),
            table,
            count: row as u32,
            states: Vec::new(),
            rolling: Vec::new(),
        })
    }

    fn of_window(network: &Network, input: &Normalizer, steps: usize, weights: WeightType) -> Result<Self> {
        let row = input.count() / steps;
        let table = of_each_row(input.elements(), row)?;
        Ok(Self::of_parts(split(network, 0, 0)?, input, (steps, row), table, weights))
    }

    /// The same job, its rows going through all windows at once, if it has nothing but recurrent layers to compute ahead.
    pub(super) fn rolling(&self, network: &Network) -> Option<Self> {
        if self.semantics != Semantics::Window {
            return None;
        }
        let Rolling { layers, ahead, remaining } = roll(&split(network, 0, 0).ok()?)?;
        let (steps, row) = (self.steps as usize, self.count as usize);
        let parts = Split { ahead, remaining };
        let job = Self::of_parts(parts, &self.input, (steps, row), self.table.clone(), self.weights);
        Some(Self { rolling: layers, ..job })
    }

    fn of_parts(
        parts: Split,
        input: &Normalizer,
        (steps, row): (usize, usize),
        table: Vec<(f32, f32, u32)>,
        weights: WeightType,
    ) -> Self {
        let (network, ahead, _) = joined(parts);
        Self {
            network,
            semantics: Semantics::Window,
            weights,
            ahead,
            steps: steps as u32,
            input: input.clone(),
            table,
            count: row as u32,
            states: Vec::new(),
            rolling: Vec::new(),
        }
    }

    /// `input` is of one row.
    fn of_state(network: &Network, input: &Normalizer, weights: WeightType) -> Result<Self> {
        let table = of_each_row(input.elements(), input.count())?;
        let Carried { ahead, remaining, mut states } = carry_state(network, 0)?;
        let (network, ahead, places) = joined(Split { ahead, remaining });
        states.iter_mut().for_each(|state| state.after = places[state.after.0]);
        Ok(Self {
            network,
            semantics: Semantics::Stateful,
            weights,
            ahead,
            steps: 1,
            input: input.clone(),
            table,
            count: input.count() as u32,
            states,
            rolling: Vec::new(),
        })
    }

    pub(super) fn words(&self) -> u32 {
        (self.count * self.input.input_type().size() as u32).div_ceil(4)
    }

    /// Stages that a call waits for.
    pub(super) fn in_time(&self) -> &[Stage] {
        &self.network.stages[self.ahead..]
    }
}

/// What becomes of each element of a row; it must be the same for all rows.
fn of_each_row(table: Vec<(f32, f32, u32)>, row: usize) -> Result<Vec<(f32, f32, u32)>> {
    let first = table.get(..row).unwrap_or_default().to_vec();
    for (place, &(mean, std, to)) in table.iter().enumerate() {
        if (mean, std) != (first[place % row].0, first[place % row].1) {
            return Err(unsupported(format!("another mean or deviation for row {}", place / row))
                .expected("the same for each row of the window"));
        }
        if to as usize != place {
            return Err(unsupported("rows that are not the network's".into())
                .expected("a network that takes the window row by row, as it is handed over"));
        }
    }
    Ok(first)
}

/// Both parts as one network, how many of its stages are ahead, and where the values of what remains are in it.
fn joined(split: Split) -> (Network, usize, Vec<ValueId>) {
    let Split { ahead, remaining } = split;
    let mut network = Network { values: ahead.values, ..Network::default() };
    let mut places = vec![None; remaining.values.len()];
    for (&there, &here) in remaining.inputs[1..].iter().zip(&ahead.outputs) {
        places[there.0] = Some(here);
    }
    for (place, value) in places.iter_mut().zip(remaining.values) {
        place.get_or_insert_with(|| {
            network.values.push(value);
            ValueId(network.values.len() - 1)
        });
    }
    let places: Vec<ValueId> = places.into_iter().map(|place| place.expect("each value has a place")).collect();
    let place = |id: &ValueId| places[id.0];
    network.inputs = std::iter::once(place(&remaining.inputs[0])).chain(ahead.inputs).collect();
    network.outputs = remaining.outputs.iter().map(place).collect();
    let stages = ahead.stages.len();
    network.stages = ahead.stages;
    network.stages.extend(remaining.stages.into_iter().map(|stage| Stage {
        reads: stage.reads.iter().map(place).collect(),
        writes: place(&stage.writes),
        ..stage
    }));
    (network, stages, places)
}

//! The two parts as they grow, and where each value of the whole network lies in them.

use std::collections::HashMap;

use super::Split;
use crate::resident::network::{Along, Network, Operation, Stage, Value, ValueId, without_ones};

/// Where a value of the whole network lies.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    /// All of it is known ahead.
    Ahead(ValueId),
    /// It is whole when the newest row is there.
    Remaining(ValueId),
    /// The places before `from` are known ahead.
    Both(Parted),
}

/// A value in two pieces along one dimension.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parted {
    pub(super) along: Along,
    pub(super) from: usize,
    /// The places before `from`, ahead.
    pub(super) old: ValueId,
    /// Those from there on, in what remains.
    pub(super) new: ValueId,
}

impl Parted {
    pub(super) fn old_along(&self) -> Along {
        self.along.of_length(self.from)
    }

    pub(super) fn new_along(&self) -> Along {
        self.along.of_length(self.along.length - self.from)
    }
}

pub(super) struct Splitter<'whole> {
    whole: &'whole Network,
    pub(super) ahead: Network,
    pub(super) remaining: Network,
    parts: HashMap<ValueId, Part>,
    /// Values of `ahead` by their place in what remains.
    carried: HashMap<ValueId, ValueId>,
    /// Values of the whole network that were put together in what remains.
    joined: HashMap<ValueId, ValueId>,
}

impl<'whole> Splitter<'whole> {
    pub(super) fn new(whole: &'whole Network, input: usize, along: Along) -> Self {
        let (ahead, remaining) = (Network::default(), Network::default());
        let (parts, carried, joined) = (HashMap::new(), HashMap::new(), HashMap::new());
        let mut splitter = Self { whole, ahead, remaining, parts, carried, joined };
        let window = whole.inputs[input];
        splitter.window(window, along);
        for &id in whole.inputs.iter().filter(|&&id| id != window) {
            let Value { name, shape } = whole.value(id).clone();
            let given = splitter.remaining.add_value(name, shape);
            splitter.remaining.inputs.push(given);
            splitter.parts.insert(id, Part::Remaining(given));
        }
        splitter
    }

    fn window(&mut self, id: ValueId, along: Along) {
        let name = &self.whole.value(id).name;
        let from = along.length - 1;
        let new = self.remaining.add_value(name, along.of_length(1).shape());
        let old = self.ahead.add_value(name, along.of_length(from).shape());
        self.remaining.inputs.push(new);
        self.ahead.inputs.push(old);
        self.parts.insert(id, Part::Both(Parted { along, from, old, new }));
    }

    pub(super) fn stage(&mut self, stage: &Stage) {
        let reads: Vec<Part> = stage.reads.iter().map(|id| self.parts[id]).collect();
        let ahead = reads.iter().map(|part| if let Part::Ahead(id) = part { Some(*id) } else { None });
        let part = match ahead.collect::<Option<Vec<_>>>() {
            Some(reads) => Part::Ahead(self.whole_stage(stage, &reads, true)),
            None => self.parted(stage, &reads).unwrap_or_else(|| {
                let reads: Vec<ValueId> = stage.reads.iter().map(|&id| self.whole_value(id)).collect();
                Part::Remaining(self.whole_stage(stage, &reads, false))
            }),
        };
        self.parts.insert(stage.writes, part);
    }

    fn whole_stage(&mut self, stage: &Stage, reads: &[ValueId], is_ahead: bool) -> ValueId {
        let value = self.whole.value(stage.writes).clone();
        let network = if is_ahead { &mut self.ahead } else { &mut self.remaining };
        network.add_stage(stage.operation.clone(), reads, value, &stage.nodes)
    }

    /// A piece of a stage.
    pub(super) fn add(
        &mut self,
        is_ahead: bool,
        stage: &Stage,
        operation: Operation,
        reads: &[ValueId],
        shape: Vec<usize>,
    ) -> ValueId {
        let name = self.whole.value(stage.writes).name.clone();
        let network = if is_ahead { &mut self.ahead } else { &mut self.remaining };
        network.add_stage(operation, reads, Value { name, shape: without_ones(&shape) }, &stage.nodes)
    }

    /// What is known ahead, as what remains reads it.
    pub(super) fn carry(&mut self, id: ValueId) -> ValueId {
        if let Some(&there) = self.carried.get(&id) {
            return there;
        }
        let Value { name, shape } = self.ahead.value(id).clone();
        let there = self.remaining.add_value(name, shape);
        self.ahead.outputs.push(id);
        self.remaining.inputs.push(there);
        self.carried.insert(id, there);
        there
    }

    /// All of a value, in what remains.
    fn whole_value(&mut self, id: ValueId) -> ValueId {
        let parted = match self.parts[&id] {
            Part::Ahead(id) => return self.carry(id),
            Part::Remaining(id) => return id,
            Part::Both(parted) => parted,
        };
        if let Some(&joined) = self.joined.get(&id) {
            return joined;
        }
        let old = self.carry(parted.old);
        let inner = parted.along.inner;
        let lengths = [parted.from, parted.along.length - parted.from];
        let concat =
            Operation::Concat { outer: parted.along.outer, parts: lengths.map(|length| length * inner).to_vec() };
        let joined = self.remaining.add_stage(concat, &[old, parted.new], self.whole.value(id).clone(), &[]);
        self.joined.insert(id, joined);
        joined
    }

    pub(super) fn finish(mut self) -> Split {
        for &output in &self.whole.outputs {
            let id = self.whole_value(output);
            self.remaining.outputs.push(id);
        }
        Split { ahead: self.ahead, remaining: self.remaining }
    }
}

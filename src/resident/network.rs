//! A network as stages over values, every dimension known, nothing of ONNX left but names.
//!
//! Values are f32, row-major, for one call. Dimensions of one, the batch's among them, are left out of their shapes:
//! they say nothing about how data lies. A stage has the geometry that it sees its values with, so that Reshape,
//! Squeeze and the like leave no trace.

use std::sync::Arc;

/// Numbers that a stage has from the model.
pub type Weights = Arc<[f32]>;

/// A network: what goes in, what is computed in which order, what comes out.
#[derive(Debug, Clone, Default)]
pub struct Network {
    /// Everything that stages read and write.
    pub values: Vec<Value>,
    /// The values that a call gives.
    pub inputs: Vec<ValueId>,
    /// In an order in which each reads only what is there.
    pub stages: Vec<Stage>,
    /// The values that a call gets.
    pub outputs: Vec<ValueId>,
    /// The inputs' shapes as ONNX has them, dimensions of one included.
    pub input_shapes: Vec<Vec<usize>>,
    /// The outputs'.
    pub output_shapes: Vec<Vec<usize>>,
}

/// A value's place in [`Network::values`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub usize);

/// What one stage writes or a call gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// In the ONNX model.
    pub name: String,
    /// Without dimensions of one.
    pub shape: Vec<usize>,
}

impl Value {
    /// Elements in it.
    #[must_use]
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }
}

/// One step of the computation.
#[derive(Debug, Clone)]
pub struct Stage {
    /// What it computes.
    pub operation: Operation,
    /// What it reads.
    pub reads: Vec<ValueId>,
    /// What it writes.
    pub writes: ValueId,
    /// The ONNX nodes that it came from.
    pub nodes: Vec<String>,
}

/// What a stage computes of the values that it reads.
#[derive(Debug, Clone)]
pub enum Operation {
    /// `rows` vectors times a matrix.
    Dense(Dense),
    /// A convolution.
    Conv(Conv),
    /// A maximum or mean over places.
    Pool(Pool),
    /// Over each of `rows` rows.
    Softmax {
        /// How many rows.
        rows: usize,
        /// Elements a row.
        columns: usize,
    },
    /// Each row brought to mean zero and variance one, then scaled and shifted.
    LayerNorm(LayerNorm),
    /// Each element by itself.
    Activation(Activation),
    /// Each element times a constant plus a constant.
    Affine(Affine),
    /// Two values, element by element.
    Elementwise(Elementwise),
    /// Several values side by side.
    Concat {
        /// How often each contributes.
        outer: usize,
        /// How many elements each contributes at a time.
        parts: Vec<usize>,
    },
    /// Data moved: dimension `i` of the result is dimension `order[i]` of `shape`.
    Transpose {
        /// Of what is read.
        shape: Vec<usize>,
        /// As ONNX's `perm`.
        order: Vec<usize>,
    },
    /// Some places along one dimension.
    Slice(Slice),
    /// More places along one dimension.
    Pad(Pad),
    /// An LSTM or GRU over a window.
    Recurrent(Recurrent),
    /// Its newest step, what of it does not depend on the newest row computed before. Reads the row, the
    /// [recurrent part](RecurrentStep) and the state; writes the unit's outputs.
    RecurrentStep(RecurrentStep),
}

/// A tensor as seen along one of its dimensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Along {
    /// The dimensions before it, multiplied.
    pub outer: usize,
    /// It.
    pub length: usize,
    /// The dimensions behind it, multiplied.
    pub inner: usize,
}

impl Along {
    /// Dimension `axis` of `shape`.
    #[must_use]
    pub fn new(shape: &[usize], axis: usize) -> Self {
        let (before, behind) = (&shape[..axis], &shape[axis + 1..]);
        Self { outer: before.iter().product(), length: shape[axis], inner: behind.iter().product() }
    }

    /// Elements in all.
    #[must_use]
    pub fn count(&self) -> usize {
        self.outer * self.length * self.inner
    }

    /// The same with another length.
    #[must_use]
    pub fn of_length(self, length: usize) -> Self {
        Self { length, ..self }
    }

    /// Its shape without dimensions of one.
    #[must_use]
    pub fn shape(&self) -> Vec<usize> {
        without_ones(&[self.outer, self.length, self.inner])
    }
}

/// `result[row][o] = activation(bias[o] + Σ weights[o][i] · row[i])`.
#[derive(Debug, Clone)]
pub struct Dense {
    /// How many vectors.
    pub rows: usize,
    /// Elements of a vector.
    pub inputs: usize,
    /// Elements of a result.
    pub outputs: usize,
    /// `[outputs][inputs]`.
    pub weights: Weights,
    /// `[outputs]`.
    pub bias: Option<Weights>,
    /// What becomes of each result.
    pub activation: Option<Activation>,
}

/// A window that slides over rows and columns; in one dimension there is one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sliding {
    /// Channels of what is read.
    pub channels: usize,
    /// Rows and columns of what is read.
    pub size: [usize; 2],
    /// Rows and columns of the window.
    pub kernel: [usize; 2],
    /// How far it moves.
    pub strides: [usize; 2],
    /// How far apart its places lie.
    pub dilations: [usize; 2],
    /// Places before the first row and column.
    pub before: [usize; 2],
    /// Places behind the last.
    pub behind: [usize; 2],
}

impl Sliding {
    /// How far the window reaches.
    #[must_use]
    pub fn reach(&self, axis: usize) -> usize {
        (self.kernel[axis] - 1) * self.dilations[axis] + 1
    }

    /// Rows and columns of the result.
    #[must_use]
    pub fn output(&self) -> [usize; 2] {
        [0, 1].map(|axis| {
            let room = self.before[axis] + self.size[axis] + self.behind[axis];
            (room - self.reach(axis)) / self.strides[axis] + 1
        })
    }
}

/// `result[m] = activation(bias[m] + Σ weights[m] · window)`, over the channels of m's group.
#[derive(Debug, Clone)]
pub struct Conv {
    /// What is read, and how.
    pub sliding: Sliding,
    /// Channels of the result.
    pub outputs: usize,
    /// Into how many independent parts the channels fall.
    pub groups: usize,
    /// `[outputs][channels / groups][kernel]`.
    pub weights: Weights,
    /// `[outputs]`.
    pub bias: Option<Weights>,
    /// What becomes of each result.
    pub activation: Option<Activation>,
}

/// A maximum or mean over a window's places, channel by channel.
#[derive(Debug, Clone)]
pub struct Pool {
    /// What is read, and how.
    pub sliding: Sliding,
    /// Which.
    pub kind: PoolKind,
}

/// What becomes of the places under a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolKind {
    /// The greatest.
    Max,
    /// The mean of those that are there.
    Average,
    /// The mean, padded places counted as zeros.
    AverageWithPadding,
}

/// `result = (row − mean) / √(variance + epsilon) · scale + shift`.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    /// How many rows.
    pub rows: usize,
    /// Elements a row.
    pub width: usize,
    /// Added to the variance.
    pub epsilon: f32,
    /// `[width]`.
    pub scale: Option<Weights>,
    /// `[width]`.
    pub shift: Option<Weights>,
}

/// A function of one number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    /// `max(x, 0)`.
    Relu,
    /// The hyperbolic tangent.
    Tanh,
    /// `1 / (1 + e⁻ˣ)`.
    Sigmoid,
    /// `x · Φ(x)`, by the error function.
    Gelu,
    /// The same by the usual approximation with tanh.
    GeluTanh,
    /// `x`, or `alpha · x` below zero.
    LeakyRelu(f32),
    /// `x`, or `alpha · (eˣ − 1)` below zero.
    Elu(f32),
}

/// `result[o][c][i] = value[o][c][i] · scale[c] + shift[c]`.
#[derive(Debug, Clone)]
pub struct Affine {
    /// Along which dimension the constants change.
    pub along: Along,
    /// `[length]`.
    pub scale: Weights,
    /// `[length]`.
    pub shift: Weights,
}

/// A function of two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Elementwise {
    /// `a + b`.
    Add,
    /// `a − b`.
    Subtract,
    /// `a · b`.
    Multiply,
}

/// `count` places from `start` on, `step` apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// Of what is read.
    pub along: Along,
    /// The first place.
    pub start: usize,
    /// How many.
    pub count: usize,
    /// Negative is backwards.
    pub step: isize,
}

impl Slice {
    /// The places along the dimension, in order.
    pub fn places(&self) -> impl Iterator<Item = usize> + Clone + use<> {
        let Self { start, count, step, .. } = *self;
        (0..count).map(move |i| start.wrapping_add_signed(step * i as isize))
    }

    /// Whether it takes the last place and no other.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.count == 1 && self.start + 1 == self.along.length
    }
}

/// Places of one value before and behind what is read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pad {
    /// Of what is read.
    pub along: Along,
    /// Places before the first.
    pub before: usize,
    /// Places behind the last.
    pub behind: usize,
    /// What they hold.
    pub value: f32,
}

/// Which recurrent cell, with ONNX's functions and its order of gates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell {
    /// Gates in the order i, o, f, c.
    Lstm,
    /// Gates in the order z, r, h.
    Gru {
        /// Whether the reset gate comes after the recurrent matrix, as PyTorch has it, or before it.
        linear_before_reset: bool,
    },
}

impl Cell {
    /// How many gates.
    #[must_use]
    pub fn gates(self) -> usize {
        match self {
            Self::Lstm => 4,
            Self::Gru { .. } => 3,
        }
    }

    /// Those whose recurrent part depends on the state before alone.
    #[must_use]
    pub fn gates_ahead(self) -> usize {
        match self {
            Self::Lstm => 4,
            Self::Gru { linear_before_reset: true } => 3,
            Self::Gru { linear_before_reset: false } => 2,
        }
    }
}

/// An LSTM or GRU over `steps` rows, oldest first, from a constant state.
#[derive(Debug, Clone)]
pub struct Recurrent {
    /// Which.
    pub cell: Cell,
    /// Rows of the window.
    pub steps: usize,
    /// Elements a row.
    pub inputs: usize,
    /// Elements of the output of one step.
    pub units: usize,
    /// `[gates · units][inputs]`.
    pub weights: Weights,
    /// `[gates · units][units]`.
    pub recurrent: Weights,
    /// `[gates · units]`, added to the input's part.
    pub bias: Weights,
    /// `[gates · units]`, added to the state's part.
    pub recurrent_bias: Weights,
    /// `[units]`.
    pub initial: Weights,
    /// `[units]`, of an LSTM.
    pub initial_cell: Weights,
    /// What it writes.
    pub emit: Emit,
}

/// What a [`Recurrent`] writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emit {
    /// The outputs of all steps.
    All,
    /// The last step's.
    Last,
    /// The outputs of all steps, then the cell behind the last one (of an LSTM).
    AllAndCell,
}

impl Recurrent {
    /// Rows of `units` that it writes.
    #[must_use]
    pub fn rows_written(&self) -> usize {
        match self.emit {
            Emit::All => self.steps,
            Emit::Last => 1,
            Emit::AllAndCell => self.steps + usize::from(self.cell == Cell::Lstm),
        }
    }
}

/// One step whose recurrent part was computed before: `recurrent · output + recurrent_bias` of the step before, for
/// [`Cell::gates_ahead`]. The state that it reads beside is the cell of an LSTM, the output of a GRU.
#[derive(Debug, Clone)]
pub struct RecurrentStep {
    /// Which.
    pub cell: Cell,
    /// Elements a row.
    pub inputs: usize,
    /// Elements of the output.
    pub units: usize,
    /// `[gates · units][inputs]`.
    pub weights: Weights,
    /// `[gates · units]`, added to the input's part.
    pub bias: Weights,
    /// `[units][units]` and `[units]`: what a GRU with its reset gate first needs of the recurrent matrix and bias; else
    /// empty.
    pub candidate: (Weights, Weights),
    /// The cell is not read: who computes the step has kept it since the call before, and keeps it for the next.
    pub keeps_cell: bool,
}

impl Network {
    /// The value at this place.
    #[must_use]
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.0]
    }

    /// One more value.
    pub(crate) fn add_value(&mut self, name: impl Into<String>, shape: Vec<usize>) -> ValueId {
        self.values.push(Value { name: name.into(), shape });
        ValueId(self.values.len() - 1)
    }

    /// One more stage; gives what it writes.
    pub(crate) fn add_stage(
        &mut self,
        operation: Operation,
        reads: &[ValueId],
        value: Value,
        nodes: &[String],
    ) -> ValueId {
        let writes = self.add_value(value.name, value.shape);
        self.stages.push(Stage { operation, reads: reads.to_vec(), writes, nodes: nodes.to_vec() });
        writes
    }

    /// How many stages and outputs read the value.
    #[must_use]
    pub fn uses(&self, id: ValueId) -> usize {
        let read = self.stages.iter().flat_map(|stage| &stage.reads);
        read.chain(&self.outputs).filter(|&&used| used == id).count()
    }

    /// What makes the network none, if anything: a value read before it is written or written twice, or a stage whose
    /// geometry does not fit its values.
    ///
    /// # Errors
    /// The first such thing, in words.
    pub fn check(&self) -> Result<(), String> {
        let mut there = vec![false; self.values.len()];
        self.inputs.iter().for_each(|id| there[id.0] = true);
        for Stage { operation, reads, writes, nodes } in &self.stages {
            let said = |what: &str| Err(format!("{what} ({})", nodes.join(", ")));
            if !reads.iter().all(|id| there[id.0]) {
                return said("a stage reads what is not there yet");
            }
            if std::mem::replace(&mut there[writes.0], true) {
                return said("a value is written twice");
            }
            let counts: Vec<usize> = reads.iter().map(|&id| self.value(id).count()).collect();
            if operation.reads() != counts.iter().map(|&count| Some(count)).collect::<Vec<_>>()
                && operation.reads() != vec![None; counts.len()]
            {
                return said("a stage reads values of another size");
            }
            if operation.writes().is_some_and(|count| count != self.value(*writes).count()) {
                return said("a stage writes a value of another size");
            }
        }
        if self.outputs.iter().all(|id| there[id.0]) { Ok(()) } else { Err("an output is never written".to_owned()) }
    }
}

impl Operation {
    /// Elements of what it reads; none where any number will do.
    fn reads(&self) -> Vec<Option<usize>> {
        let counts: Vec<usize> = match self {
            Self::Dense(dense) => vec![dense.rows * dense.inputs],
            Self::Conv(Conv { sliding, .. }) | Self::Pool(Pool { sliding, .. }) => {
                vec![sliding.channels * sliding.size[0] * sliding.size[1]]
            }
            Self::Softmax { rows, columns } => vec![rows * columns],
            Self::LayerNorm(norm) => vec![norm.rows * norm.width],
            Self::Affine(affine) => vec![affine.along.count()],
            Self::Activation(_) => return vec![None],
            Self::Elementwise(_) => return vec![None; 2],
            Self::Concat { outer, parts } => parts.iter().map(|part| outer * part).collect(),
            Self::Transpose { shape, .. } => vec![shape.iter().product()],
            Self::Slice(slice) => vec![slice.along.count()],
            Self::Pad(pad) => vec![pad.along.count()],
            Self::Recurrent(recurrent) => vec![recurrent.steps * recurrent.inputs],
            Self::RecurrentStep(step) => vec![step.inputs, step.cell.gates_ahead() * step.units, step.units],
        };
        counts.into_iter().map(Some).collect()
    }

    /// Elements of what it writes; none where it is what it reads.
    fn writes(&self) -> Option<usize> {
        Some(match self {
            Self::Dense(dense) => dense.rows * dense.outputs,
            Self::Conv(conv) => conv.outputs * conv.sliding.output().iter().product::<usize>(),
            Self::Pool(pool) => pool.sliding.channels * pool.sliding.output().iter().product::<usize>(),
            Self::Softmax { rows, columns } => rows * columns,
            Self::LayerNorm(norm) => norm.rows * norm.width,
            Self::Affine(affine) => affine.along.count(),
            Self::Activation(_) | Self::Elementwise(_) => return None,
            Self::Concat { outer, parts } => outer * parts.iter().sum::<usize>(),
            Self::Transpose { shape, .. } => shape.iter().product(),
            Self::Slice(slice) => slice.along.of_length(slice.count).count(),
            Self::Pad(pad) => pad.along.of_length(pad.before + pad.along.length + pad.behind).count(),
            Self::Recurrent(recurrent) => recurrent.rows_written() * recurrent.units,
            Self::RecurrentStep(step) => step.units,
        })
    }
}

/// The shape without dimensions of one.
#[must_use]
pub fn without_ones(shape: &[usize]) -> Vec<usize> {
    shape.iter().copied().filter(|&size| size != 1).collect()
}

/// Where each element of the transposed tensor lies in the one of `shape`.
#[must_use]
pub fn transposed_places(shape: &[usize], order: &[usize]) -> Vec<usize> {
    let stride = |axis: usize| shape[axis + 1..].iter().product::<usize>();
    let mut places = vec![0];
    for &axis in order {
        places = places.iter().flat_map(|place| (0..shape[axis]).map(move |i| place + i * stride(axis))).collect();
    }
    places
}

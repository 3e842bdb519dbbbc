//! Fewer stages for the same numbers: what can be done on the way is done on the way.

use super::network::{
    Affine, Conv, Dense, Emit, LayerNorm, Network, Operation, Pad, Recurrent, Stage, ValueId, Weights,
};

/// Puts activations, scales, pads and last steps into the stages beside them, and leaves out what nothing reads.
///
/// Scales change the weights, each rounded once from f64: the results may differ in their last bits from those of the
/// model's own order. Everything else keeps every bit.
pub(super) fn fuse(mut network: Network) -> Network {
    drop_unread(&mut network);
    let mut place = 1;
    while place < network.stages.len() {
        match joined(&network, place) {
            Some((before, stage)) => {
                network.stages[place] = stage;
                network.stages.remove(before);
                // What is now before this place may join what is now at it.
                place = before.max(1);
            }
            None => place += 1,
        }
    }
    drop_unread(&mut network);
    drop_values(&mut network);
    network
}

/// The stage before this one that can be done with it, and what both become.
fn joined(network: &Network, place: usize) -> Option<(usize, Stage)> {
    let stage = &network.stages[place];
    let [read] = stage.reads[..] else { return None };
    let before = network.stages.iter().position(|before| before.writes == read)?;
    if network.uses(read) != 1 {
        return None;
    }
    let operation = both(&network.stages[before].operation, &stage.operation)?;
    let nodes = network.stages[before].nodes.iter().chain(&stage.nodes).cloned().collect();
    let reads = network.stages[before].reads.clone();
    Some((before, Stage { operation, reads, writes: stage.writes, nodes }))
}

fn both(first: &Operation, second: &Operation) -> Option<Operation> {
    match (first, second) {
        (Operation::Dense(dense), Operation::Activation(activation)) if dense.activation.is_none() => {
            Some(Operation::Dense(Dense { activation: Some(*activation), ..dense.clone() }))
        }
        (Operation::Conv(conv), Operation::Activation(activation)) if conv.activation.is_none() => {
            Some(Operation::Conv(Conv { activation: Some(*activation), ..conv.clone() }))
        }
        (Operation::Dense(dense), Operation::Affine(affine)) => scaled_dense(dense, affine),
        (Operation::Conv(conv), Operation::Affine(affine)) => scaled_conv(conv, affine),
        (Operation::LayerNorm(norm), Operation::Affine(affine)) => scaled_norm(norm, affine),
        (Operation::Pad(pad), Operation::Conv(conv)) => padded_conv(pad, conv),
        (Operation::Recurrent(recurrent), Operation::Slice(slice))
            if recurrent.emit == Emit::All
                && slice.is_last()
                && slice.along.length == recurrent.steps
                && slice.along.outer == 1 =>
        {
            Some(Operation::Recurrent(Recurrent { emit: Emit::Last, ..recurrent.clone() }))
        }
        _ => None,
    }
}

fn scaled_dense(dense: &Dense, affine: &Affine) -> Option<Operation> {
    let by_output = constants_by(affine, dense.outputs, 1)?;
    dense.activation.is_none().then(|| {
        let (weights, bias) = scaled(&dense.weights, dense.bias.as_ref(), dense.outputs, by_output);
        Operation::Dense(Dense { weights, bias, ..dense.clone() })
    })
}

fn scaled_conv(conv: &Conv, affine: &Affine) -> Option<Operation> {
    let places = conv.sliding.output().iter().product();
    let by_channel = constants_by(affine, conv.outputs, places)?;
    conv.activation.is_none().then(|| {
        let (weights, bias) = scaled(&conv.weights, conv.bias.as_ref(), conv.outputs, by_channel);
        Operation::Conv(Conv { weights, bias, ..conv.clone() })
    })
}

fn scaled_norm(norm: &LayerNorm, affine: &Affine) -> Option<Operation> {
    let by_place = constants_by(affine, norm.width, 1)?;
    let numbers = (0..norm.width).map(|place| {
        let (scale, shift) = by_place(place);
        let own = norm.scale.as_ref().map_or(1.0, |own| f64::from(own[place]));
        let moved = norm.shift.as_ref().map_or(0.0, |own| f64::from(own[place]));
        ((own * scale) as f32, (moved * scale + shift) as f32)
    });
    let (scale, shift): (Vec<f32>, Vec<f32>) = numbers.unzip();
    Some(Operation::LayerNorm(LayerNorm { scale: Some(scale.into()), shift: Some(shift.into()), ..norm.clone() }))
}

/// An affine's constants by place in rows of `length`, each place repeated `inner` times; none if they do not lie so.
fn constants_by(affine: &Affine, length: usize, inner: usize) -> Option<impl Fn(usize) -> (f64, f64)> {
    let along = affine.along;
    let one = along.length == 1;
    if !one && (along.length, along.inner) != (length, inner) {
        return None;
    }
    let (scale, shift) = (affine.scale.clone(), affine.shift.clone());
    let place = move |place: usize| if one { 0 } else { place };
    Some(move |at: usize| (f64::from(scale[place(at)]), f64::from(shift[place(at)])))
}

/// Weights and bias of `outputs` results, each result scaled and shifted.
fn scaled(
    weights: &Weights,
    bias: Option<&Weights>,
    outputs: usize,
    by: impl Fn(usize) -> (f64, f64),
) -> (Weights, Option<Weights>) {
    let row = weights.len() / outputs;
    let product = |(place, &weight): (usize, &f32)| (f64::from(weight) * by(place / row).0) as f32;
    let moved = |output: usize| {
        let (scale, shift) = by(output);
        (bias.map_or(0.0, |bias| f64::from(bias[output])) * scale + shift) as f32
    };
    (weights.iter().enumerate().map(product).collect(), Some((0..outputs).map(moved).collect()))
}

/// Zeros around what a convolution reads are its own pads.
fn padded_conv(pad: &Pad, conv: &Conv) -> Option<Operation> {
    let mut sliding = conv.sliding.clone();
    let [rows, columns] = sliding.size;
    let padded = pad.along.of_length(pad.before + pad.along.length + pad.behind);
    let axis = match (padded.outer, padded.length, padded.inner) {
        at if at == (sliding.channels * rows, columns, 1) => 1,
        at if at == (sliding.channels, rows, columns) => 0,
        _ => return None,
    };
    // Where the convolution pads already, zeros inside and outside lie side by side all the same.
    sliding.size[axis] = pad.along.length;
    sliding.before[axis] += pad.before;
    sliding.behind[axis] += pad.behind;
    (pad.value == 0.0).then(|| Operation::Conv(Conv { sliding, ..conv.clone() }))
}

/// Leaves out stages whose results nothing reads.
pub(super) fn drop_unread(network: &mut Network) {
    for place in (0..network.stages.len()).rev() {
        if network.uses(network.stages[place].writes) == 0 {
            network.stages.remove(place);
        }
    }
}

/// Counts the values anew, without those that nothing reads or writes.
pub(super) fn drop_values(network: &mut Network) {
    let stages = network.stages.iter().flat_map(|stage| stage.reads.iter().chain([&stage.writes]));
    let mut kept = vec![false; network.values.len()];
    stages.chain(&network.inputs).chain(&network.outputs).for_each(|id| kept[id.0] = true);
    let place = |id: ValueId| ValueId(kept[..id.0].iter().filter(|&&kept| kept).count());
    for stage in &mut network.stages {
        stage.reads.iter_mut().for_each(|id| *id = place(*id));
        stage.writes = place(stage.writes);
    }
    network.inputs.iter_mut().chain(&mut network.outputs).for_each(|id| *id = place(*id));
    let mut kept = kept.iter();
    network.values.retain(|_| *kept.next().expect("one for each value"));
}

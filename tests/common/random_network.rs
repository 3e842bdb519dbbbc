//! Random networks of the operators that resident engines have: any sizes, odd ones too, the same for the same seed.
#![allow(dead_code)] // each test binary uses a part

use tickrt::resident::budget::WeightType;
use tickrt::resident::network::{Network, Operation, Weights};

use crate::onnx::{self, Initializer, Node};

/// SplitMix64: short, and the same on every machine.
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Of `from..=to`.
    pub fn of(&mut self, from: usize, to: usize) -> usize {
        from + (self.next() % (to - from + 1) as u64) as usize
    }

    pub fn chance(&mut self) -> bool {
        self.next() & 1 == 1
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.of(0, of.len() - 1)]
    }

    /// Within ±`bound`.
    pub fn floats(&mut self, count: usize, bound: f32) -> Vec<f32> {
        (0..count).map(|_| ((self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0) * bound).collect()
    }
}

/// A graph that grows at its end; its last value has `shape`, the batch of 1 in front.
pub struct Growing {
    pub random: Random,
    pub shape: Vec<usize>,
    pub last: String,
    input: Vec<usize>,
    nodes: Vec<Node>,
    weights: Vec<Initializer>,
}

const INPUT: &str = "input";

impl Growing {
    pub fn new(seed: u64, shape: &[usize]) -> Self {
        let shape = shape.to_vec();
        let (input, last) = (shape.clone(), INPUT.to_owned());
        Self { random: Random(seed), shape, last, input, nodes: Vec::new(), weights: Vec::new() }
    }

    /// A network of that many layers, and the length of its input.
    pub fn random(seed: u64, layers: usize) -> (Vec<u8>, usize) {
        let mut random = Random(seed);
        let shape = match random.of(0, 3) {
            0 => vec![1, random.of(1, 37)],
            1 => vec![1, random.of(1, 9), random.of(1, 19)],
            2 => vec![1, random.of(2, 8), random.of(3, 11)],
            _ => vec![1, random.of(1, 5), random.of(1, 9), random.of(1, 9)],
        };
        let mut growing = Self::new(random.next(), &shape);
        for _ in 0..layers {
            growing.grow();
        }
        (growing.model(), shape.iter().product())
    }

    pub fn model(self) -> Vec<u8> {
        self.model_of_opset(20)
    }

    pub fn model_of_opset(mut self, opset: i64) -> Vec<u8> {
        let shape = |shape: &[usize]| shape.iter().map(|&size| size as i64).collect::<Vec<_>>();
        let (given, got) = (onnx::value(INPUT, &shape(&self.input)), onnx::value("output", &shape(&self.shape)));
        self.nodes.push(onnx::node("output", "Identity", &[&self.last], &["output"]));
        onnx::model_of_opset(opset, self.weights, self.nodes, vec![given], vec![got])
    }

    /// One more layer of any kind that the shape allows.
    pub fn grow(&mut self) {
        match (self.shape.len(), self.random.of(0, 9)) {
            (_, 0) => self.activation(),
            (_, 1) => self.arithmetic(),
            (_, 2) => self.residual(),
            (_, 3) => self.softmax(),
            (_, 4) => self.slice(),
            (2, 5) => self.layer_norm(),
            (2, 6) => self.matmul(),
            (2, _) => self.gemm(),
            (_, 5) => self.batch_norm(),
            (3, 6) => self.recurrent(),
            (3, 7) => self.matmul(),
            (3 | 4, 8) => self.pool(),
            (3 | 4, 9) => self.pad_or_gather(),
            (4, 7) => self.global_pool_or_flatten(),
            _ => self.conv(),
        }
    }

    pub fn add(&mut self, node: Node) {
        self.last.clone_from(&node.outputs[0]);
        self.nodes.push(node);
    }

    /// A node on the last value; its name is new.
    pub fn node(&mut self, operator: &str, more: &[&str]) -> Node {
        let name = format!("{}_{}", operator.to_lowercase(), self.nodes.len());
        let inputs: Vec<&str> = [&[self.last.as_str()], more].concat();
        onnx::node(&name, operator, &inputs, &[&name])
    }

    pub fn weight(&mut self, shape: &[usize], fan_in: usize) -> String {
        let count = shape.iter().product();
        let values = self.random.floats(count, 1.5 / (fan_in as f32).sqrt());
        self.floats(shape, &values)
    }

    pub fn floats(&mut self, shape: &[usize], values: &[f32]) -> String {
        let name = format!("w{}", self.weights.len());
        self.weights.push(onnx::floats(&name, shape, values));
        name
    }

    pub fn integers(&mut self, values: &[i64]) -> String {
        let name = format!("w{}", self.weights.len());
        self.weights.push(onnx::integers(&name, &[values.len()], values));
        name
    }

    pub fn activation(&mut self) {
        let operator = self.random.pick(&["Relu", "Tanh", "Sigmoid", "Gelu", "LeakyRelu", "Elu", "erf"]);
        if operator == "erf" {
            return self.gelu_by_erf();
        }
        let alpha = self.random.pick(&[0.01_f32, 0.3, 1.0]);
        let node = self.node(operator, &[]);
        let approximate = if self.random.chance() { "none" } else { "tanh" };
        self.add(match operator {
            "LeakyRelu" | "Elu" => node.with("alpha", alpha),
            "Gelu" => node.with("approximate", approximate),
            _ => node,
        });
    }

    pub fn gelu_by_erf(&mut self) {
        let value = self.last.clone();
        let [root, one, half] = [std::f32::consts::SQRT_2, 1.0, 0.5].map(|number| self.floats(&[], &[number]));
        let node = self.node("Div", &[&root]);
        self.add(node);
        let node = self.node("Erf", &[]);
        self.add(node);
        let node = self.node("Add", &[&one]);
        self.add(node);
        let order = if self.random.chance() { [&value, &half] } else { [&half, &value] };
        for factor in order {
            let node = self.node("Mul", &[factor]);
            self.add(node);
        }
    }

    /// With a constant: one number, one for each channel or last place, or one for each element.
    pub fn arithmetic(&mut self) {
        let operator = self.random.pick(&["Add", "Sub", "Mul", "Div"]);
        let rank = self.shape.len();
        let shape: Vec<usize> = match self.random.of(0, 3) {
            0 => vec![],
            1 => vec![self.shape[rank - 1]],
            2 => (1..rank).map(|axis| if axis == 1 { self.shape[1] } else { 1 }).collect(),
            _ => self.shape.clone(),
        };
        let count = shape.iter().product();
        // Away from zero, to be divided by.
        let values: Vec<f32> = self.random.floats(count, 1.0).iter().map(|x| x + 0.5_f32.copysign(*x)).collect();
        let constant = self.floats(&shape, &values);
        let node = self.node(operator, &[&constant]);
        self.add(node);
    }

    /// A value, and what an activation made of it, put together again.
    pub fn residual(&mut self) {
        let value = self.last.clone();
        self.activation();
        let operator = self.random.pick(&["Add", "Mul", "Sub", "Concat"]);
        let node = self.node(operator, &[&value]);
        if operator == "Concat" {
            let axis = self.random.of(1, self.shape.len() - 1);
            self.shape[axis] *= 2;
            self.add(node.with("axis", axis as i64));
        } else {
            self.add(node);
        }
    }

    pub fn softmax(&mut self) {
        let axis = self.random.of(0, self.shape.len() - 1);
        let node = self.node("Softmax", &[]).with("axis", axis as i64);
        self.add(node);
    }

    pub fn slice(&mut self) {
        let axis = self.random.of(1, self.shape.len() - 1);
        let size = self.shape[axis];
        let (start, step) = (self.random.of(0, size - 1), self.random.of(1, 2));
        let end = self.random.of(start + 1, size);
        let backwards = self.random.chance();
        let (from, to, by) = if backwards {
            (end as i64 - 1, if start == 0 { i64::MIN } else { start as i64 - 1 }, -(step as i64))
        } else {
            (start as i64, end as i64, step as i64)
        };
        let inputs = [from, to, axis as i64, by].map(|number| self.integers(&[number]));
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let node = self.node("Slice", &inputs);
        self.add(node);
        self.shape[axis] = (end - start).div_ceil(step);
    }

    pub fn gemm(&mut self) {
        let (inputs, outputs) = (self.shape[1], self.random.of(1, 33));
        let transposed = self.random.chance();
        let shape = if transposed { [outputs, inputs] } else { [inputs, outputs] };
        let weights = self.weight(&shape, inputs);
        let bias = self.weight(&[outputs], inputs);
        let more: &[&str] = if self.random.chance() { &[&weights, &bias] } else { &[&weights] };
        let (alpha, beta) = (self.random.pick(&[1.0_f32, 0.75]), self.random.pick(&[1.0_f32, -0.5]));
        let node = self.node("Gemm", more).with("transB", i64::from(transposed));
        self.add(node.with("alpha", alpha).with("beta", beta));
        self.shape = vec![1, outputs];
    }

    /// On the last dimension, with or without a bias behind it.
    pub fn matmul(&mut self) {
        let inputs = *self.shape.last().unwrap();
        let outputs = self.random.of(1, 20);
        let weights = self.weight(&[inputs, outputs], inputs);
        let node = self.node("MatMul", &[&weights]);
        self.add(node);
        *self.shape.last_mut().unwrap() = outputs;
        if self.random.chance() {
            let bias = self.weight(&[outputs], inputs);
            let node = self.node("Add", &[&bias]);
            self.add(node);
        }
    }

    pub fn layer_norm(&mut self) {
        if self.random.chance() {
            return self.layer_norm_by_means();
        }
        let width = *self.shape.last().unwrap();
        let (scale, shift) = (self.weight(&[width], 1), self.weight(&[width], 1));
        let more: &[&str] = if self.random.chance() { &[&scale, &shift] } else { &[&scale] };
        let node = self.node("LayerNormalization", more).with("epsilon", 0.01_f32).with("axis", -1_i64);
        self.add(node);
    }

    /// As exporters wrote it before opset 17.
    pub fn layer_norm_by_means(&mut self) {
        let width = *self.shape.last().unwrap();
        let axes = self.integers(&[-1]);
        let (value, [two, epsilon]) = (self.last.clone(), [2.0, 0.01].map(|number| self.floats(&[], &[number])));
        let node = self.node("ReduceMean", &[&axes]);
        self.add(node);
        let name = format!("difference_{}", self.nodes.len());
        self.add(onnx::node(&name, "Sub", &[&value, &self.last], &[&name]));
        let difference = self.last.clone();
        for (operator, more) in [("Pow", &two), ("ReduceMean", &axes), ("Add", &epsilon)] {
            let node = self.node(operator, &[more]);
            self.add(node);
        }
        let node = self.node("Sqrt", &[]);
        self.add(node);
        let name = format!("normal_{}", self.nodes.len());
        self.add(onnx::node(&name, "Div", &[&difference, &self.last], &[&name]));
        for operator in ["Mul", "Add"] {
            let constant = self.weight(&[width], 1);
            let node = self.node(operator, &[&constant]);
            self.add(node);
        }
    }

    pub fn batch_norm(&mut self) {
        let channels = self.shape[1];
        let given = [1, 1, 1].map(|fan_in| self.weight(&[channels], fan_in));
        let variance: Vec<f32> = self.random.floats(channels, 0.4).iter().map(|x| x + 0.5).collect();
        let variance = self.floats(&[channels], &variance);
        let node = self.node("BatchNormalization", &[&given[0], &given[1], &given[2], &variance]);
        self.add(node);
    }

    /// More places along the last dimension, of zero or not, or one place of it.
    pub fn pad_or_gather(&mut self) {
        let (rank, size) = (self.shape.len(), *self.shape.last().unwrap());
        if self.random.of(0, 2) > 0 {
            let [before, behind] = [0; 2].map(|_| self.random.of(0, 2));
            let mut pads = vec![0; 2 * rank];
            (pads[rank - 1], pads[2 * rank - 1]) = (before as i64, behind as i64);
            let pads = self.integers(&pads);
            let value = self.random.pick(&[0.0_f32, -1.5]);
            let value = self.floats(&[], &[value]);
            let node = self.node("Pad", &[&pads, &value]);
            self.add(node);
            *self.shape.last_mut().unwrap() += before + behind;
            // ONNX Runtime 1.2x makes a pool of a pad and a pool, and then refuses its own pads: never one behind the other.
            if self.random.chance() { self.conv() } else { self.activation() }
        } else {
            let place = self.random.of(0, size - 1) as i64;
            let from_the_end = if self.random.chance() { size as i64 } else { 0 };
            let place = self.integers(&[place - from_the_end]);
            let node = self.node("Gather", &[&place]).with("axis", -1_i64);
            self.add(node);
            *self.shape.last_mut().unwrap() = 1;
        }
    }

    /// In as many dimensions as there are places.
    pub fn conv(&mut self) {
        let groups = if self.shape[1].is_multiple_of(2) && self.random.chance() { 2 } else { 1 };
        let outputs = groups * self.random.of(1, 5);
        self.conv_of(groups, outputs);
    }

    pub fn conv_of(&mut self, groups: usize, outputs: usize) {
        let channels = self.shape[1];
        let sliding = self.sliding(false);
        let shape: Vec<usize> = [&[outputs, channels / groups], &sliding.kernel[..]].concat();
        let fan_in = shape[1..].iter().product();
        let (weights, bias) = (self.weight(&shape, fan_in), self.weight(&[outputs], fan_in));
        let more: &[&str] = if self.random.chance() { &[&weights, &bias] } else { &[&weights] };
        let node = self.node("Conv", more).with("group", groups as i64);
        self.add(sliding.on(node));
        self.shape = [&[1, outputs], &sliding.output[..]].concat();
    }

    /// Planes whose windows move by one row and keep the number of rows, two branches of them side by side, and a recurrent layer over the
    /// rows: what goes in bands. The number of its input's elements beside it.
    pub fn in_bands(seed: u64) -> (Vec<u8>, usize) {
        let mut random = Random(seed);
        let (planes, rows, columns) = (random.pick(&[1, 1, 3]), random.of(9, 40), random.of(2, 9));
        let count = planes * rows * columns;
        let mut growing = Self::new(random.next(), &[1, planes, rows, columns]);
        growing.banded_conv(random.pick(&[1, 3, 7, 8, 9, 16]), [1, random.of(1, 2)], 1, random.of(1, 2));
        for _ in 0..random.of(0, 2) {
            growing.activation();
            growing.banded_conv(random.pick(&[2, 4, 5, 8, 16, 32]), [random.of(1, 4), 1], random.of(1, 2), 1);
        }
        let all = growing.shape[3];
        growing.banded_conv(random.pick(&[4, 6, 8, 16]), [1, all], 1, 1);
        let (trunk, shape) = (growing.last.clone(), growing.shape.clone());
        let mut branches = Vec::new();
        for _ in 0..random.of(1, 3) {
            growing.last.clone_from(&trunk);
            growing.shape.clone_from(&shape);
            match random.of(0, 2) {
                0 => growing.banded_pool(random.of(1, 3)),
                _ => growing.banded_conv(random.pick(&[4, 16, 64]), [1, 1], 1, 1),
            }
            growing.banded_conv(8 * random.of(1, 3), [random.of(1, 3), 1], 1, 1);
            branches.push((growing.last.clone(), growing.shape[1]));
        }
        if branches.len() == 3 && random.chance() {
            // Side by side with what is side by side already, which does not go in bands.
            let name = format!("concat_{}", growing.nodes.len());
            let parts = [branches[0].0.as_str(), branches[1].0.as_str()];
            growing.add(onnx::node(&name, "Concat", &parts, &[&name]).with("axis", 1));
            branches = vec![(name, branches[0].1 + branches[1].1), branches[2].clone()];
        }
        if branches.len() > 1 {
            let name = format!("concat_{}", growing.nodes.len());
            let parts: Vec<&str> = branches.iter().map(|(name, _)| name.as_str()).collect();
            growing.add(onnx::node(&name, "Concat", &parts, &[&name]).with("axis", 1));
            growing.shape[1] = branches.iter().map(|(_, planes)| planes).sum();
        }
        let axis = growing.integers(&[3]);
        let node = growing.node("Squeeze", &[&axis]);
        growing.add(node);
        let node = growing.node("Transpose", &[]).with("perm", &[0_usize, 2, 1][..]);
        growing.add(node);
        growing.shape = vec![1, rows, growing.shape[1]];
        growing.recurrent_of(random.chance(), random.of(1, 64), true, false);
        if random.chance() {
            growing.activation();
        }
        growing.matmul();
        (growing.model(), count)
    }

    fn banded_conv(&mut self, outputs: usize, [rows, columns]: [usize; 2], dilation: usize, stride: usize) {
        let columns = columns.min(self.shape[3]);
        let shape = [outputs, self.shape[1], rows, columns];
        let (weights, bias) = (self.weight(&shape, shape[1..].iter().product()), self.weight(&[outputs], 1));
        let (around, before) = ((rows - 1) * dilation, self.random.of(0, (rows - 1) * dilation));
        let node = self
            .node("Conv", &[&weights, &bias])
            .with("pads", &[before, 0, around - before, 0][..])
            .with("strides", &[1, stride][..])
            .with("dilations", &[dilation, 1][..]);
        self.add(node);
        self.shape = vec![1, outputs, self.shape[2], (self.shape[3] - columns) / stride + 1];
    }

    fn banded_pool(&mut self, rows: usize) {
        let operator = self.random.pick(&["MaxPool", "AveragePool"]);
        let before = self.random.of(0, rows - 1);
        let node = self
            .node(operator, &[])
            .with("kernel_shape", &[rows, 1][..])
            .with("strides", &[1_usize, 1][..])
            .with("pads", &[before, 0, rows - 1 - before, 0][..]);
        self.add(node);
    }

    pub fn pool(&mut self) {
        let operator = self.random.pick(&["MaxPool", "AveragePool"]);
        let mut sliding = self.sliding(true);
        sliding.dilations.fill(1);
        let node = self.node(operator, &[]);
        let including = i64::from(self.random.chance());
        let node = if operator == "AveragePool" { node.with("count_include_pad", including) } else { node };
        self.add(sliding.on(node));
        self.shape = [&self.shape[..2], &sliding.output[..]].concat();
    }

    /// A window that fits the last value. A pool's pads are smaller than its kernel.
    fn sliding(&mut self, is_pool: bool) -> Sliding {
        let mut sliding = Sliding::default();
        let same = !is_pool && self.random.of(0, 3) == 0;
        for size in self.shape[2..].iter().copied() {
            let kernel = self.random.of(1, size.min(4));
            let dilation = if is_pool || same || (kernel - 1) * 2 + 1 > size { 1 } else { self.random.of(1, 2) };
            let reach = (kernel - 1) * dilation + 1;
            let stride = self.random.of(1, 3);
            let [before, behind] = [0; 2].map(|_| if same { 0 } else { self.random.of(0, reach - 1) });
            sliding.kernel.push(kernel);
            sliding.dilations.push(dilation);
            sliding.strides.push(stride);
            sliding.before.push(before);
            sliding.behind.push(behind);
            let padded = (size + before + behind - reach) / stride + 1;
            sliding.output.push(if same { size.div_ceil(stride) } else { padded });
        }
        sliding.same = same.then(|| self.random.pick(&["SAME_UPPER", "SAME_LOWER"]));
        sliding
    }

    pub fn global_pool_or_flatten(&mut self) {
        if self.random.chance() {
            let node = self.node("GlobalAveragePool", &[]);
            self.add(node);
            self.shape[2..].fill(1);
        } else {
            let node = self.node("Flatten", &[]);
            self.add(node);
            self.shape = vec![1, self.shape.iter().product()];
        }
    }

    /// An LSTM or GRU over dimension 1; all steps or the last.
    pub fn recurrent(&mut self) {
        let units = self.random.of(1, 9);
        let is_lstm = self.random.chance();
        let (first, whole) = (self.random.chance(), self.random.chance());
        self.recurrent_of(is_lstm, units, first, whole);
    }

    pub fn recurrent_of(&mut self, is_lstm: bool, units: usize, reset_last: bool, every_step: bool) {
        let (steps, features) = (self.shape[1], self.shape[2]);
        let rows = if is_lstm { 4 } else { 3 } * units;
        let node = self.node("Transpose", &[]).with("perm", &[1_usize, 0, 2][..]);
        self.add(node);
        let given = [vec![1, rows, features], vec![1, rows, units], vec![1, 2 * rows]];
        let given = given.map(|shape| self.weight(&shape, units.max(features)));
        let initial = self.weight(&[1, 1, units], 1);
        // Of numbers of its own: those of the rest stay what they were.
        let cell: Vec<f32> = (0..units).map(|unit| (unit % 7) as f32 / 4.0 - 0.8).collect();
        let cell = self.floats(&[1, 1, units], &cell);
        let mut more: Vec<&str> = given.iter().map(String::as_str).collect();
        if self.random.chance() {
            more.extend(["", initial.as_str()]);
            if is_lstm {
                more.push(&cell);
            }
        }
        let mut node = self.node(if is_lstm { "LSTM" } else { "GRU" }, &more).with("hidden_size", units as i64);
        if !is_lstm {
            node = node.with("linear_before_reset", i64::from(reset_last));
        }
        let last = format!("{}_last", node.name);
        node.outputs.push(last.clone());
        self.add(node);
        self.shape = if every_step { vec![1, steps, units] } else { vec![1, 1, units] };
        if every_step {
            let axis = self.integers(&[1]);
            let node = self.node("Squeeze", &[&axis]);
            self.add(node);
            let node = self.node("Transpose", &[]).with("perm", &[1_usize, 0, 2][..]);
            self.add(node);
        } else {
            self.last = last;
        }
    }
}

#[derive(Default)]
struct Sliding {
    kernel: Vec<usize>,
    strides: Vec<usize>,
    dilations: Vec<usize>,
    before: Vec<usize>,
    behind: Vec<usize>,
    same: Option<&'static str>,
    output: Vec<usize>,
}

impl Sliding {
    fn on(&self, node: Node) -> Node {
        let pads = [&self.before[..], &self.behind].concat();
        let node = node.with("kernel_shape", &self.kernel[..]).with("strides", &self.strides[..]);
        let node = if self.dilations.iter().all(|&dilation| dilation == 1) {
            node
        } else {
            node.with("dilations", &self.dilations[..])
        };
        match self.same {
            Some(mode) => node.with("auto_pad", mode),
            None => node.with("pads", &pads[..]),
        }
    }
}

/// The network as it is computed: in half precision its matrices and recurrent layers have rounded weights.
pub fn computed(network: &Network, weights: WeightType) -> Network {
    let mut network = network.clone();
    if weights == WeightType::F32 {
        return network;
    }
    for stage in &mut network.stages {
        let rounded: Vec<&mut Weights> = match &mut stage.operation {
            Operation::Recurrent(of) => vec![&mut of.weights, &mut of.recurrent],
            Operation::Dense(dense) if dense.rows == 1 => vec![&mut dense.weights],
            _ => Vec::new(),
        };
        for weights in rounded {
            *weights = weights.iter().map(|&x| half::f16::from_f32(x).to_f32()).collect();
        }
    }
    network
}

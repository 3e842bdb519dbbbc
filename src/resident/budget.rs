//! What a network needs of a GPU, and the smallest part of one that holds it.
//!
//! Counted, not measured: bytes of weights and activations, multiply-adds, and where the weights fit. What a stage takes in
//! time is left to kernels and their clocks; [`predicted_cycles`] is the first guess that they are to be held against.

use super::network::{Network, Operation, Stage, ValueId};
use crate::error::{Error, ErrorKind, Result};

/// In what weights are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WeightType {
    /// Four bytes each.
    #[default]
    F32,
    /// Two bytes each, sums in f32.
    F16,
}

impl WeightType {
    /// Bytes of one.
    #[must_use]
    pub fn size(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }
}

/// What one stage needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageBudget {
    /// The ONNX nodes that it came from.
    pub nodes: Vec<String>,
    /// Numbers from the model: matrices, kernels, biases.
    pub weights: u64,
    /// Multiply-adds of one call.
    pub multiply_adds: u64,
    /// Bytes of f32 that it writes.
    pub written_bytes: u64,
}

/// What a network needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// In the order of the network.
    pub stages: Vec<StageBudget>,
    /// Bytes of f32 that are needed at the same time, at most: a stage's inputs, its output, and what later ones read.
    pub activation_bytes: u64,
}

/// Facts of a GPU, as its driver tells them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hardware {
    /// Multiprocessors; a block has one for itself.
    pub multiprocessors: u64,
    /// Bytes of registers of a multiprocessor.
    pub register_bytes: u64,
    /// Bytes of shared memory that a block can have.
    pub shared_bytes: u64,
    /// Blocks of the largest cluster.
    pub largest_cluster: u64,
    /// How many clusters of that size fit at once: fewer than multiprocessors / blocks, as a cluster lies within one GPC
    /// (`cuOccupancyMaxActiveClusters`).
    pub clusters: u64,
    /// Bytes of the L2 cache.
    pub l2_bytes: u64,
}

impl Hardware {
    /// An H100 SXM: 132 multiprocessors, 64 Ki registers each, 227 KiB of shared memory a block, clusters of 16 where a
    /// kernel asks for more than the portable 8, 50 MiB of L2 (NVIDIA's H100 white paper and CUDA's table of compute
    /// capability 9.0). Of its GPCs, which have 16 or 18 multiprocessors, seven are counted on for a cluster of 16.
    pub const H100: Self = Self {
        multiprocessors: 132,
        register_bytes: 64 * 1024 * 4,
        shared_bytes: 227 * 1024,
        largest_cluster: 16,
        clusters: 7,
        l2_bytes: 50 * 1024 * 1024,
    };

    /// Bytes of weights that one block keeps in registers: half of them. 512 threads of 64 weights each, as budgeted for mlp;
    /// the other half is for sums, addresses and what is on its way.
    fn weight_registers(self) -> u64 {
        self.register_bytes / 2
    }

    /// Bytes of shared memory that a block has for weights and activations. The rest is for barriers, input and output slots
    /// and partial sums.
    fn shared_room(self) -> u64 {
        self.shared_bytes - SHARED_KEPT_BACK
    }
}

const SHARED_KEPT_BACK: u64 = 4 * 1024;

/// Where a network's weights lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// Clusters side by side; 1 but for the largest networks.
    pub clusters: u64,
    /// Blocks of each, one multiprocessor a block.
    pub blocks: u64,
    /// How activations lie.
    pub activations: Activations,
    /// Bytes of weights in each block.
    pub weight_bytes_each: u64,
    /// Bytes left in each block.
    pub spare_bytes_each: u64,
}

/// How activations lie in the shared memory of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activations {
    /// All of them in every block: nothing is read from neighbours.
    Whole,
    /// Each block has a part and reads the others' from there.
    Spread,
}

/// Counts what each stage needs.
#[must_use]
pub fn count(network: &Network) -> Budget {
    let stages = network.stages.iter().map(|stage| StageBudget {
        nodes: stage.nodes.clone(),
        weights: weights(&stage.operation),
        multiply_adds: multiply_adds(network, stage),
        written_bytes: bytes(network, stage.writes),
    });
    Budget { stages: stages.collect(), activation_bytes: activation_bytes(network) }
}

impl Budget {
    /// Bytes of all weights.
    #[must_use]
    pub fn weight_bytes(&self, kept_as: WeightType) -> u64 {
        self.stages.iter().map(|stage| stage.weights * kept_as.size()).sum()
    }

    /// Multiply-adds of one call.
    #[must_use]
    pub fn multiply_adds(&self) -> u64 {
        self.stages.iter().map(|stage| stage.multiply_adds).sum()
    }

    /// The fewest blocks that hold all weights in registers and shared memory, activations beside them.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] with the bytes that are missing.
    pub fn place(&self, hardware: Hardware, kept_as: WeightType) -> Result<Placement> {
        let sizes = [1, 2, 4, 8, 16].into_iter().filter(|&blocks| blocks <= hardware.largest_cluster);
        let one = sizes.map(|blocks| (1, blocks));
        let several = (2..=hardware.clusters).map(|clusters| (clusters, hardware.largest_cluster));
        let placements = one.chain(several).filter(|(clusters, blocks)| clusters * blocks <= hardware.multiprocessors);
        let ways = [Activations::Whole, Activations::Spread];
        let mut tried = placements.flat_map(|(clusters, blocks)| ways.map(|way| (clusters, blocks, way)));
        let found = tried.find_map(|(clusters, blocks, way)| self.placed(hardware, kept_as, clusters, blocks, way));
        found.ok_or_else(|| self.refusal(hardware, kept_as))
    }

    fn placed(
        &self,
        hardware: Hardware,
        kept_as: WeightType,
        clusters: u64,
        blocks: u64,
        activations: Activations,
    ) -> Option<Placement> {
        let beside = match activations {
            Activations::Whole => self.activation_bytes,
            Activations::Spread => self.activation_bytes.div_ceil(blocks),
        };
        let shared = hardware.shared_room().checked_sub(beside)?;
        let weight_bytes_each = self.weight_bytes(kept_as).div_ceil(clusters * blocks);
        let spare_bytes_each = (shared + hardware.weight_registers()).checked_sub(weight_bytes_each)?;
        Some(Placement { clusters, blocks, activations, weight_bytes_each, spare_bytes_each })
    }

    fn refusal(&self, hardware: Hardware, kept_as: WeightType) -> Error {
        let weights = self.weight_bytes(kept_as);
        let largest = hardware.largest_cluster;
        let shared = (hardware.shared_room() * largest).saturating_sub(self.activation_bytes) / largest;
        let room = (shared + hardware.weight_registers()) * largest * hardware.clusters;
        let within = if weights <= hardware.l2_bytes { "within" } else { "more than" };
        Error::new(ErrorKind::Unsupported, "place a resident engine")
            .expected(format!("at most {room} bytes of weights beside {} of activations", self.activation_bytes))
            .got(format!("{weights} bytes in {kept_as:?}, {within} the {} of the L2 cache", hardware.l2_bytes))
            .advice("keep the weights in half precision, or let the chain go on to TensorRT")
    }
}

/// Cycles of one call on one cluster: a guess to compare kernels with.
///
/// The constants are those of benches/probes/resident.md, an H100, mlp on 16 blocks of 16 warps, a warp for a row of
/// weights at a time. A layer of one row a warp took 831 and 850 cycles, one of two rows 1187 to 1458; rows of 256 and of
/// 512 weights cost the same. So a stage is a fixed part, the exchange between blocks, and a part for each row that a warp
/// has. Pools and functions, which the probe has not, count as rows; a softmax is part of the last layer, as there.
#[must_use]
pub fn predicted_cycles(network: &Network, blocks: u64) -> u64 {
    let stages = network.stages.iter().map(|stage| {
        let (steps, rows) = rows(network, stage);
        match rows {
            0 => 0,
            few if few <= blocks => steps * LAST_CYCLES,
            many => steps * (EXCHANGE_CYCLES + ROW_CYCLES * many.div_ceil(blocks * WARPS)),
        }
    });
    INPUT_CYCLES + stages.sum::<u64>()
}

/// Until the input is whole in every block: the mean of 384 and 452.
const INPUT_CYCLES: u64 = 418;
/// One row a warp costs 850, two cost 1250.
const EXCHANGE_CYCLES: u64 = 450;
const ROW_CYCLES: u64 = 400;
/// 256 → 3 and the answer stored: 261 to 267. No more results than blocks need no exchange.
const LAST_CYCLES: u64 = 267;
const WARPS: u64 = 16;

/// How often the stage goes over its weights, one after the other, and how many results it has each time.
fn rows(network: &Network, stage: &Stage) -> (u64, u64) {
    let written = network.value(stage.writes).count() as u64;
    match &stage.operation {
        Operation::Recurrent(of) => (of.steps as u64, (of.cell.gates() * of.units) as u64),
        Operation::RecurrentStep(of) => (1, (of.cell.gates() * of.units) as u64),
        Operation::Dense(_) | Operation::Conv(_) | Operation::Pool(_) => (1, written),
        _ => (1, 0),
    }
}

fn bytes(network: &Network, id: ValueId) -> u64 {
    network.value(id).count() as u64 * 4
}

fn weights(operation: &Operation) -> u64 {
    let length = |weights: &[f32]| weights.len() as u64;
    let optional = |weights: &Option<std::sync::Arc<[f32]>>| weights.as_deref().map_or(0, length);
    match operation {
        Operation::Dense(dense) => length(&dense.weights) + optional(&dense.bias),
        Operation::Conv(conv) => length(&conv.weights) + optional(&conv.bias),
        Operation::LayerNorm(norm) => optional(&norm.scale) + optional(&norm.shift),
        Operation::Affine(affine) => length(&affine.scale) + length(&affine.shift),
        Operation::Recurrent(of) => {
            [&of.weights, &of.recurrent, &of.bias, &of.recurrent_bias].map(|w| length(w)).iter().sum()
        }
        Operation::RecurrentStep(of) => {
            [&of.weights, &of.bias, &of.candidate.0, &of.candidate.1].map(|w| length(w)).iter().sum()
        }
        Operation::Pool(_)
        | Operation::Softmax { .. }
        | Operation::Activation(_)
        | Operation::Elementwise(_)
        | Operation::Concat { .. }
        | Operation::Transpose { .. }
        | Operation::Slice(_)
        | Operation::Pad(_) => 0,
    }
}

/// Of matrices and kernels; functions and moves are not counted.
fn multiply_adds(network: &Network, stage: &Stage) -> u64 {
    let product = match &stage.operation {
        Operation::Dense(dense) => dense.rows * dense.weights.len(),
        Operation::Conv(conv) => {
            let written = network.value(stage.writes).count();
            written / conv.outputs * conv.weights.len()
        }
        Operation::Recurrent(of) => of.steps * (of.weights.len() + of.recurrent.len()),
        Operation::RecurrentStep(step) => step.weights.len() + step.candidate.0.len(),
        _ => 0,
    };
    product as u64
}

/// The most that lies in memory at once.
fn activation_bytes(network: &Network) -> u64 {
    let last_use = |id: ValueId| {
        let read = network.stages.iter().rposition(|stage| stage.reads.contains(&id));
        if network.outputs.contains(&id) { network.stages.len() } else { read.unwrap_or(0) }
    };
    let first = |id: ValueId| network.stages.iter().position(|stage| stage.writes == id).unwrap_or(0);
    let lives: Vec<_> =
        (0..network.values.len()).map(ValueId).map(|id| (first(id), last_use(id), bytes(network, id))).collect();
    let at = |place: usize| {
        lives.iter().filter(|(from, to, _)| (from..=to).contains(&&place)).map(|(.., bytes)| bytes).sum()
    };
    (0..network.stages.len().max(1)).map(at).max().unwrap_or(0)
}

#[cfg(test)]
mod tests;

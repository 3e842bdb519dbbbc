//! From a network to the source of its kernel: which block has what, where everything lies, and the constants in the order in
//! which threads load them.
//!
//! One cluster computes. Each value is shared out over its blocks, a contiguous share each (small ones lie in block 0 alone),
//! and a stage writes the shares of what it computes. A matrix reads shares, too, and sends parts of sums to where they
//! belong; what needs the whole of a value gets it from all blocks before. With one block everything is whole. Planes that are too
//! large for that go in bands of rows, and blocks get the rows beside their own from each other. Stacks of recurrent layers that no cluster
//! has room for go on a grid, as many clusters of one block as their units take, which give each other outputs through the device's memory.
//!
//! The stages themselves are templates in `kernels/resident`; what is written here is a structure of numbers for each and the
//! kernel that runs one after the other.

mod bands;
mod conv;
mod grid;
mod guess;
mod job;
mod numbers;
mod plan;
mod recurrent;
mod rolling;
mod stages;

use std::cmp::Reverse;

use self::bands::Bands;
use self::grid::Grid;
use self::job::Job;
use self::plan::{Of, Plan};
use super::budget::{Hardware, WeightType};
use super::network::{Network, Operation, Stage};
use super::semantics::Semantics;
use crate::error::{Error, ErrorKind, Result};
use crate::normalize::Normalizer;

/// The kernel's name.
pub const ENTRY: &str = "tickrt_resident";

/// Which structure `Turn` of kernels/resident/turn.cuh a kernel takes, and what lies behind its addresses: one more with each
/// change that a backend or an artefact of before would not survive.
pub const TURN_LAYOUT: u32 = 3;

/// In the first unit of a call with [`Semantics::Stateful`]: the state before it is the network's initial one.
pub const BEGINS_ANEW: u32 = 2;

/// What the note of a stage begins with that is computed before its call comes.
pub(crate) const AHEAD: &str = "ahead: ";
/// What the note of a stage begins with that is done behind the answer.
pub(crate) const BEHIND: &str = "behind: ";
/// The note of the stage behind the answer by which a window takes its newest row.
pub(crate) const ROW_KEPT: &str = "the row goes into the window";
/// The note of the stage behind the answer by which the next call finds the state.
pub(crate) const STATE_KEPT: &str = "the state is kept";

/// What becomes of a network on a GPU.
#[derive(Debug, Clone)]
pub struct Program {
    /// CUDA C++, nothing included.
    pub source: String,
    /// To be uploaded.
    pub constants: Vec<u8>,
    /// Of a cluster.
    pub blocks: u32,
    /// One; more are a grid of clusters of one block each.
    pub clusters: u32,
    /// Of a block.
    pub threads: u32,
    /// Dynamic shared memory of a block.
    pub shared_bytes: u32,
    /// Device memory that outlives turns: `Turn::state`.
    pub state_bytes: u64,
    /// Of which rows an answer is.
    pub semantics: Semantics,
    /// Units of the input before those of its words: two but with [`Semantics::Whole`], of which the first has, with
    /// [`Semantics::Window`], the number of rows that the call brings. It is 1, and the row lies in the units; or that of the
    /// whole window, which then lies at `Turn::rows`, as it is handed over, its newest row in the units as well. With
    /// [`Semantics::Stateful`] it is 1, or [`BEGINS_ANEW`].
    pub lead_units: u32,
    /// For people: a line a stage.
    pub notes: Vec<String>,
    /// The planner's guess for one call, from its input's arrival to its answer's departure.
    pub predicted_cycles: u64,
}

/// What to leave to the planner, and what not.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Blocks of the cluster: 1, 2, 4, 8 or 16; of a grid any number, at most.
    pub blocks: Option<u32>,
    /// Threads of a block, a multiple of 32.
    pub threads: Option<u32>,
    /// In what matrices times one vector and recurrent layers have their weights; everything else has f32.
    pub weights: WeightType,
    /// Sums up the cycles of each stage in the report.
    pub stamps: bool,
    /// Of which rows an answer is.
    pub semantics: Semantics,
    /// Who asks the host for a call.
    pub asks: Asks,
    /// A stack of recurrent layers goes on a grid of blocks although it would be sooner in a cluster: for tests of small ones.
    pub on_grid: bool,
    /// Planes go in bands of rows although they would fit whole, where they can: for tests of small ones.
    pub in_bands: bool,
}

/// Which blocks look for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Asks {
    /// Each for its own share, where it needs no more. Calls that follow each other may fall into step with all of them; any other call waits for the
    /// last of so many looks.
    Each,
    /// Each for all of it: what reads it needs nothing of it from other blocks. Of calls that the host writes into the GPU's memory
    /// (`ResidentConfig::bar1`); in the host's memory so many looks would get in each other's way. As [`Each`](Self::Each) where not every block
    /// takes part in each answer, where calls carry state, and of planes in bands; a grid has its own way.
    All,
    /// Block 0 for all of it where a block needs a share alone, its warps in step, and hands it out: a call waits for half a look on the mean. Where not every
    /// reader of the input adds up sums, each block asks all the same.
    #[default]
    First,
}

/// The program of a network whose one input is normalised by `input`.
///
/// # Errors
/// [`ErrorKind::Unsupported`] with the operation that no stage computes, or the bytes that are missing.
pub fn program(network: &Network, input: &Normalizer, hardware: Hardware) -> Result<Program> {
    program_with(network, input, hardware, Options::default())
}

/// The same, with some of it given.
///
/// # Errors
/// As [`program`].
pub fn program_with(network: &Network, input: &Normalizer, hardware: Hardware, options: Options) -> Result<Program> {
    if network.inputs.len() != 1 {
        return Err(unsupported(format!("{} inputs", network.inputs.len())).expected("one"));
    }
    let job = Job::new(network, input, options.semantics, options.weights)?;
    // On a grid, where all of it could be there and would be sooner.
    let on_grid = || program_on_grid(network, input, hardware, options);
    if options.on_grid {
        return on_grid();
    }
    let sizes = [1, 2, 4, 8, 16].into_iter().filter(|&blocks| u64::from(blocks) <= hardware.largest_cluster);
    let mut sizes: Vec<u32> = match options.blocks {
        Some(blocks) => vec![blocks],
        None => sizes.collect(),
    };
    // The fastest by the model first; what does not fit goes on to the next.
    sizes.sort_by_key(|&blocks| guess::predicted_cycles(&job, blocks));
    // Fewer threads have more weights each, whose sums go out in fewer messages: 4.6 to 4.8 µs for mlp instead of 4.8 to 5.0
    // (benches/probes/resident.md). Other stages want threads.
    // A window's newest step is a sum, too: 6.8 instead of 8.4 µs for lstm_b, whose weights then need no spills, though what is
    // computed ahead takes 615 instead of 446.
    let of_sums = |stage: &Stage| match &stage.operation {
        Operation::Dense(dense) => dense.rows == 1,
        Operation::Conv(_) | Operation::Pool(_) | Operation::Recurrent(_) => false,
        _ => true,
    };
    // So is each step of a network whose state one block keeps: a thread has half of a unit's weights.
    let in_pairs = |stage: &Stage| match &stage.operation {
        Operation::Recurrent(of) => recurrent::weights_in_pairs(of.units as u32).is_some(),
        _ => false,
    };
    let threads = |blocks: u32| {
        let few = job.in_time().iter().all(of_sums) || (blocks == 1 && job.in_time().iter().any(in_pairs));
        options.threads.unwrap_or(if few { 256 } else { 512 })
    };
    // Runs want room for shares that are laid out once more. Bands are for what does not fit otherwise.
    let plain = sizes.iter().flat_map(|&blocks| {
        [true, false].map(|runs| Of { blocks, threads: threads(blocks), runs, bands: None, grid: None })
    });
    let mut most_first: Vec<u32> = sizes.iter().copied().filter(|&blocks| blocks > 1).collect();
    most_first.sort_by_key(|&blocks| Reverse(blocks));
    let in_bands = most_first.into_iter().filter_map(|blocks| {
        if job.semantics != Semantics::Whole {
            return None;
        }
        let bands = Some(Bands::of(&job.network, blocks)?);
        Some(Of { blocks, threads: options.threads.unwrap_or(bands::THREADS), runs: false, bands, grid: None })
    });
    let may_go_on_grid =
        options.weights == WeightType::F16 && options.semantics == Semantics::Window && options.blocks.is_none();
    let mut grid = may_go_on_grid.then(on_grid).and_then(Result::ok);
    let least = sizes.first().map_or(u64::MAX, |&blocks| guess::predicted_cycles(&job, blocks));
    if let Some(program) = grid.take_if(|program| program.predicted_cycles < least) {
        return Ok(program);
    }
    let rolling = job.rolling(network);
    let mut refused = None;
    for layout in plain.filter(|_| !options.in_bands).chain(in_bands) {
        // Where not every block takes part in each answer, not all of them may look for all of a call.
        let plan = |job, layout: &Of, asks| Plan::new(job, hardware, layout, asks)?.finish(options.stamps);
        let planned = |job| match plan(job, &layout, options.asks) {
            Err(_) if options.asks == Asks::All => plan(job, &layout, Asks::Each),
            other => other,
        };
        if let Some(Ok(program)) = rolling.as_ref().filter(|_| layout.bands.is_none()).map(planned) {
            return Ok(program);
        }
        match planned(&job) {
            Ok(program) => return Ok(program),
            Err(error) => refused = Some(refused.unwrap_or(error)),
        }
    }
    grid.ok_or_else(|| {
        let refused = refused.unwrap_or_else(|| unsupported("no block".into()));
        let could = options.weights == WeightType::F32 && options.semantics == Semantics::Window;
        match could.then(|| Job::of_grid(network, input)) {
            Some(Ok(_)) => refused
                .advice("keep its weights in half precision (--fp16): then it goes on as many blocks as it takes"),
            _ => refused,
        }
    })
}

/// Weights in half precision, on as many blocks as they take.
fn program_on_grid(network: &Network, input: &Normalizer, hardware: Hardware, options: Options) -> Result<Program> {
    if options.semantics != Semantics::Window || options.weights != WeightType::F16 {
        return Err(unsupported(format!("{:?} and {} semantics on a grid", options.weights, options.semantics))
            .expected("weights in half precision and window semantics"));
    }
    let job = Job::of_grid(network, input)?;
    let threads = options.threads.unwrap_or(grid::THREADS);
    let grid = Some(Grid::of(&job.network, hardware, options.blocks, threads)?);
    let layout = Of { blocks: 1, threads, runs: false, bands: None, grid };
    Plan::new(&job, hardware, &layout, options.asks)?.finish(options.stamps)
}

fn unsupported(got: String) -> Error {
    Error::new(ErrorKind::Unsupported, "write a resident engine's kernel")
        .got(got)
        .advice("the chain goes on to TensorRT")
}

/// The templates, in an order in which each finds what it needs. Sanitizers, profilers and the compiler name the file: by a path
/// from the root, or the compiler would look for it where it runs, and that folder would be in the code.
fn templates() -> String {
    macro_rules! file {
        ($name:literal) => {
            concat!("#line 1 \"/tickrt/", $name, "\"\n", include_str!(concat!("../../kernels/resident/", $name)))
        };
    }
    [
        file!("primitives.cuh"),
        file!("turn.cuh"),
        file!("functions.cuh"),
        file!("input.cuh"),
        file!("dense.cuh"),
        file!("whole.cuh"),
        file!("recurrent.cuh"),
        file!("bands.cuh"),
        file!("window.cuh"),
        file!("rolling.cuh"),
        file!("state.cuh"),
        file!("grid.cuh"),
        file!("grid_layers.cuh"),
        "#line 1 \"/tickrt/network.cu\"\n",
    ]
    .concat()
}

//! Planes too large to be whole in every block: each block has a band of some rows of all of them, and gets the rows beside its own
//! from the blocks beside it. For convolutions and pools that move by one row and leave the number of rows as it is, and for the
//! LSTM or GRU behind them that takes the rows as its steps (DeepLOB).

use super::numbers::Numbers;
use super::plan::{Plan, Whole};
use super::recurrent::{biases, weights_in_pairs};
use super::stages::{bias_of, sliding};
use super::unsupported;
use crate::error::Result;
use crate::resident::network::{Conv, Emit, Network, Operation, Pool, PoolKind, Recurrent, Sliding, Stage, ValueId};

/// Threads of a block: so many have registers for half of a unit's weights each, and for the sums of convolutions. 320 would not:
/// three warps of one scheduler have 168 each.
pub(super) const THREADS: u32 = 256;
/// Sums that a thread has of a convolution.
const SUMS: u32 = 28;
const LANES: u32 = 32;
/// That a tensor core takes for 16 rows of 8 floats times 8 columns: what stages of deeplob took on an H100 (benches/probes/resident.md).
const PRODUCT_CYCLES: u32 = 16;
/// Of 16 channels and 8 places, of which a warp has the sums.
const MOST_TILES: u32 = 10;

/// What lies in bands.
#[derive(Debug, Clone)]
pub(super) struct Bands {
    /// Of all planes.
    height: u32,
    /// Of a block; those of the last ones may have fewer.
    rows: u32,
    values: Vec<Option<Shape>>,
    tiles: Vec<Option<Tile>>,
    /// Shared memory that no value needs any more: where, and how much.
    free: Vec<(u32, u32)>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Shape {
    planes: u32,
    columns: u32,
    /// Rows of others that some stage reads.
    before: u32,
    behind: u32,
    /// It is some planes of another value, from this one on, and lies there.
    part_of: Option<(ValueId, u32)>,
    /// Rows lie one behind the other, and not planes: what reads it takes row by row.
    by_row: bool,
}

/// Where a value lies in each block.
#[derive(Debug, Clone, Copy)]
struct Tile {
    own: u32,
    bytes: u32,
    halo: u32,
    halo_bytes: u32,
    barriers: u32,
}

impl Bands {
    /// Of a network that begins with planes and goes on with an LSTM or GRU over their rows; none of any other.
    pub(super) fn of(network: &Network, blocks: u32) -> Option<Self> {
        let input = network.inputs[0];
        let first = network.stages.iter().find(|stage| stage.reads == [input])?;
        let Operation::Conv(conv) = &first.operation else { return None };
        let height = conv.sliding.size[0] as u32;
        let rows = height.div_ceil(blocks);
        // A thread has a sum of each.
        (rows <= SUMS).then_some(())?;
        let mut values = vec![None; network.values.len()];
        values[input.0] = Some(Shape {
            planes: conv.sliding.channels as u32,
            columns: conv.sliding.size[1] as u32,
            ..Shape::default()
        });
        let mut bands = Self { height, rows, values, tiles: vec![None; network.values.len()], free: Vec::new() };
        let mut turned = vec![None; network.values.len()];
        let mut is_taken = false;
        for stage in &network.stages {
            let reads_bands = stage.reads.iter().any(|id| bands.values[id.0].is_some() || turned[id.0].is_some());
            match &stage.operation {
                _ if !reads_bands => {}
                Operation::Recurrent(of) => {
                    let from: ValueId = turned[stage.reads[0].0]?;
                    let shape = bands.values[from.0].as_mut().filter(|shape| shape.planes == of.inputs as u32)?;
                    shape.by_row = true;
                    (bands.takes(of) && network.uses(from) == 1).then_some(())?;
                    is_taken = true;
                }
                Operation::Transpose { shape, order } => {
                    let from = stage.reads[0];
                    let of = bands.values[from.0]?;
                    let is_turned =
                        of.columns == 1 && *shape == [of.planes as usize, height as usize] && *order == [1, 0];
                    (is_turned && network.uses(stage.writes) == 1).then_some(())?;
                    turned[stage.writes.0] = Some(from);
                }
                operation => bands.add(network, operation, stage)?,
            }
        }
        let outputs = network.outputs.iter().any(|id| bands.values[id.0].is_some() || turned[id.0].is_some());
        let shapes = || bands.values.iter().flatten();
        let beside =
            shapes().all(|shape| shape.before.max(shape.behind) <= rows && (!shape.by_row || shape.planes % 8 == 0));
        // Those of which others are part are sent when the parts are written, and the input by the host.
        let alone = |id: usize| bands.has_parts(ValueId(id)) || id == input.0;
        let halo = |shape: &Shape| shape.before + shape.behind > 0;
        let sent = bands.values.iter().enumerate().all(|(id, shape)| !alone(id) || !shape.as_ref().is_some_and(halo));
        (is_taken && !outputs && beside && sent).then_some(bands)
    }

    fn add(&mut self, network: &Network, operation: &Operation, stage: &Stage) -> Option<()> {
        let shape = match operation {
            Operation::Conv(conv) if conv.groups == 1 => {
                self.slides(stage.reads[0], &conv.sliding)?;
                Shape { planes: conv.outputs as u32, columns: conv.sliding.output()[1] as u32, ..Shape::default() }
            }
            Operation::Pool(pool) => {
                self.slides(stage.reads[0], &pool.sliding)?;
                let [planes, columns] = [pool.sliding.channels, pool.sliding.output()[1]].map(|size| size as u32);
                Shape { planes, columns, ..Shape::default() }
            }
            Operation::Concat { outer: 1, .. } => {
                let columns = self.values[stage.reads[0].0]?.columns;
                let mut planes = 0;
                for &id in &stage.reads {
                    let input = network.inputs.contains(&id) || self.has_parts(id);
                    let part =
                        self.values[id.0].as_mut().filter(|part| part.columns == columns && part.part_of.is_none())?;
                    (network.uses(id) == 1 && !input).then_some(())?;
                    part.part_of = Some((stage.writes, planes));
                    planes += part.planes;
                }
                Shape { planes, columns, ..Shape::default() }
            }
            _ => return None,
        };
        self.values[stage.writes.0] = Some(shape);
        Some(())
    }

    /// Whether a window moves over the value by one row and leaves as many; then the rows are noted that it needs of others.
    fn slides(&mut self, id: ValueId, of: &Sliding) -> Option<()> {
        let height = self.height;
        let shape = self.values[id.0].as_mut()?;
        let whole =
            [of.channels, of.size[0], of.size[1]].map(|size| size as u32) == [shape.planes, height, shape.columns];
        let moves = of.strides[0] == 1 && of.before[0] + of.behind[0] + 1 == of.reach(0);
        (whole && moves && shape.part_of.is_none()).then_some(())?;
        shape.before = shape.before.max(of.before[0] as u32);
        shape.behind = shape.behind.max(of.behind[0] as u32);
        Some(())
    }

    /// Whether others are some of its planes.
    fn has_parts(&self, id: ValueId) -> bool {
        self.values.iter().flatten().any(|shape| shape.part_of.is_some_and(|(of, _)| of == id))
    }

    fn takes(&self, of: &Recurrent) -> bool {
        weights_in_pairs(of.units as u32).is_some() && of.emit == Emit::Last && of.steps as u32 == self.height
    }

    pub(super) fn has(&self, id: ValueId) -> bool {
        self.values[id.0].is_some()
    }

    /// Whether a block's rows do not lie beside each other where the planes lie one behind the other, nor as whole messages.
    pub(super) fn is_apart(&self, id: ValueId) -> bool {
        self.shape(id).planes > 1 || !self.share(id).is_multiple_of(4)
    }

    /// What a block reads behind the last plane, without using it, where its rows are not there.
    pub(super) fn bytes_behind(&self, id: ValueId, blocks: u32) -> u32 {
        (blocks * self.rows - self.height) * self.shape(id).columns * 4
    }

    /// Elements of a block's rows of one plane.
    pub(super) fn share(&self, id: ValueId) -> u32 {
        self.rows * self.shape(id).columns
    }

    fn shape(&self, id: ValueId) -> Shape {
        self.values[id.0].expect("`has` was asked")
    }
}

/// How a convolution falls to threads.
#[derive(Clone, Copy)]
struct Tiling {
    channels: u32,
    splits: u32,
    /// Of the tiles that are left when the others have gone to all threads.
    last_splits: u32,
}

impl Plan<'_> {
    fn bands(&mut self) -> &mut Bands {
        self.bands.as_mut().expect("a stage in bands is of a plan with bands")
    }

    /// A stage whose value lies in bands.
    pub(super) fn band_stage(&mut self, stage: &Stage) -> Result<()> {
        match &stage.operation {
            Operation::Conv(conv) => self.band_conv(conv, stage)?,
            Operation::Pool(pool) => self.band_pool(pool, stage)?,
            // Its parts have been written where it lies.
            Operation::Concat { .. } => {}
            // What comes behind it reads the value as it lies.
            _ => return Ok(()),
        }
        for &id in &stage.reads {
            self.band_is_read(id, stage);
        }
        Ok(())
    }

    /// Its memory is free where nothing further reads it.
    fn band_is_read(&mut self, id: ValueId, by: &Stage) {
        let mut readers = self.network.stages.iter().filter(|stage| stage.reads.contains(&id));
        let is_last = readers.next_back().is_some_and(|stage| stage.writes == by.writes);
        let bands = self.bands();
        if let Some(tile) = bands.tiles[id.0].filter(|_| is_last && bands.shape(id).part_of.is_none()) {
            bands.free.push((tile.own, tile.bytes));
        }
    }

    fn tile(&mut self, id: ValueId) -> Result<Tile> {
        let bands = self.bands();
        let (shape, rows) = (bands.shape(id), bands.rows);
        if let Some(tile) = bands.tiles[id.0] {
            return Ok(tile);
        }
        let bytes = (shape.planes * rows * shape.columns * 4).next_multiple_of(16);
        let free = (0..bands.free.len())
            .filter(|&place| bands.free[place].1 >= bytes)
            .min_by_key(|&place| bands.free[place].1);
        let (own, bytes) = match free {
            Some(place) => bands.free.swap_remove(place),
            None => (self.room(bytes), bytes),
        };
        let halo_bytes = (shape.planes * (shape.before + shape.behind) * shape.columns * 4).next_multiple_of(16);
        let halo = self.room(2 * halo_bytes);
        let barriers = if halo_bytes > 0 { self.barriers()? } else { 0 };
        let tile = Tile { own, bytes, halo, halo_bytes, barriers };
        self.bands().tiles[id.0] = Some(tile);
        Ok(tile)
    }

    /// Floats from row to row and from plane to plane of a block's own rows.
    fn pitches(&mut self, id: ValueId) -> [u32; 2] {
        let bands = self.bands();
        let (shape, rows) = (bands.shape(id), bands.rows);
        if shape.by_row { [shape.planes, 1] } else { [shape.columns, rows * shape.columns] }
    }

    /// The structure `Out` of what writes the value.
    fn band_out(&mut self, id: ValueId) -> Result<String> {
        let (whole, first) = self.bands().shape(id).part_of.unwrap_or((id, 0));
        let tile = self.tile(whole)?;
        let [row_pitch, plane_pitch] = self.pitches(whole);
        let bands = self.bands();
        let of = bands.shape(whole);
        let numbers = Numbers::default()
            .int("height", bands.height)
            .int("rows", bands.rows)
            .int("columns", of.columns)
            .int("planes", of.planes)
            .int("own", tile.own)
            .int("at", first * plane_pitch)
            .int("row_pitch", row_pitch)
            .int("plane_pitch", plane_pitch)
            .int("halo", tile.halo)
            .int("halo_bytes", tile.halo_bytes)
            .int("before", of.before)
            .int("behind", of.behind)
            .int("barriers", tile.barriers);
        Ok(format!("  struct Out {{\n{}  }};\n", numbers.0))
    }

    /// The structure `In` of what reads the value.
    fn band_in(&mut self, id: ValueId) -> Result<String> {
        let (shape, [height, rows]) = (self.bands().shape(id), [self.bands().height, self.bands().rows]);
        let [mut row_pitch, mut plane_pitch] = self.pitches(id);
        let (own, tile) = if self.network.inputs.contains(&id) {
            let none = Tile { own: 0, bytes: 0, halo: 0, halo_bytes: 0, barriers: 0 };
            match self.place(id).whole {
                Some(Whole { offset, copy_bytes }) => {
                    [row_pitch, plane_pitch] = [shape.columns, height * shape.columns];
                    (format!("whole<{offset}, {copy_bytes}>(b) + b.rank * {}", rows * shape.columns), none)
                }
                None => (format!("shared({})", self.share(id)), none),
            }
        } else {
            let tile = self.tile(id)?;
            (format!("shared({})", tile.own), tile)
        };
        let numbers = Numbers::default()
            .int("rows", rows)
            .int("columns", shape.columns)
            .int("row_pitch", row_pitch)
            .int("plane_pitch", plane_pitch)
            .int("halo", tile.halo)
            .int("halo_bytes", tile.halo_bytes)
            .int("before", shape.before)
            .int("behind", shape.behind)
            .text(&format!(
                "  static __device__ const float* own_of([[maybe_unused]] const Block& b) {{ return {own}; }}\n"
            ));
        Ok(format!("  struct In {{\n{}  }};\n", numbers.0))
    }

    /// The same by tensor cores, where they can.
    fn band_conv_on_cores(&mut self, conv: &Conv, stage: &Stage, of: Cores) -> Result<()> {
        let (from, into) = (stage.reads[0], stage.writes);
        let input = self.band_in(from)?;
        let out = self.band_out(into)?;
        let (shape, rows) = (self.bands().shape(into), self.bands().rows);
        let Sliding { channels: planes, kernel: [kernel_rows, kernel_columns], .. } = conv.sliding;
        let taps = kernel_rows * kernel_columns;
        let weight = |output: usize, plane: usize, tap: usize| conv.weights[(output * planes + plane) * taps + tap];
        let bias = bias_of(conv.bias.as_deref(), conv.outputs);
        let sums = self.band_sums(of, [rows, shape.columns], [conv.outputs, planes, taps], &weight, &bias);
        let numbers = sliding(sums, &conv.sliding).text(&out).text(&input).function(conv.activation);
        let Cores { warps_rows, warps_columns, warps_planes } = of;
        let note = format!(
            "conv {kernel_rows}x{kernel_columns}, {planes} to {} channels, {rows} rows of {} a block, {warps_rows} by {warps_columns} by \
             {warps_planes} warps{}",
            conv.outputs,
            shape.columns,
            halo_of(shape)
        );
        self.step("BandConvOnCores", numbers, true, false, note);
        Ok(())
    }

    /// What `BandSums` is told: sums of `rows` times `columns` places, of so many outputs, planes and places of the window.
    fn band_sums(
        &mut self,
        of: Cores,
        [rows, columns]: [u32; 2],
        [outputs, planes, taps]: [usize; 3],
        weight: &dyn Fn(usize, usize, usize) -> f32,
        bias: &[f32],
    ) -> Numbers {
        let (each, parts) = (planes / 8 / of.warps_planes as usize, of.warps_planes as usize);
        let weights = (0..outputs * planes * taps).map(|place| {
            // Of a lane the numbers t and t + 4 of rows g and g + 8; of eight planes, a place of the window, a part of the planes, a tile of outputs.
            let (eights, lane, e) = (place / 128, place % 128 / 4, place % 4);
            let (tile, part, tap, eight) =
                (eights / (each * taps * parts), eights / (each * taps) % parts, eights / each % taps, eights % each);
            let (output, plane) = (tile * 16 + lane / 4 + e % 2 * 8, (part * each + eight) * 8 + lane % 4 + e / 2 * 4);
            weight(output, plane, tap)
        });
        let weights = weights.chain(bias.iter().copied()).collect::<Vec<_>>();
        let count = weights.len() as u32;
        let (weights, kept) = (self.constant(weights), self.numbers_of_block(count));
        let sums = self.room(of.sums_bytes(outputs as u32, rows * columns));
        let Cores { warps_rows, warps_columns, warps_planes } = of;
        // Of few tiles more can be on its way.
        let ahead = if of.tiles(outputs as u32, rows * columns).iter().product::<u32>() <= 2 { 8 } else { 4 };
        Numbers::default()
            .int("threads", self.threads)
            .int("result_rows", rows)
            .int("result_columns", columns)
            .int("planes", planes)
            .int("outputs", outputs)
            .int("warps_rows", warps_rows)
            .int("warps_columns", warps_columns)
            .int("warps_planes", warps_planes)
            .int("ahead", ahead)
            .int("sums", sums)
            .int("weights", weights)
            .text(&kept)
    }

    fn band_conv(&mut self, conv: &Conv, stage: &Stage) -> Result<()> {
        let places = self.bands().shape(stage.writes).columns * self.bands().rows;
        if let Some(cores) = Cores::of_conv(conv, places, self.threads) {
            return self.band_conv_on_cores(conv, stage, cores);
        }
        let (from, into) = (stage.reads[0], stage.writes);
        let input = self.band_in(from)?;
        let out = self.band_out(into)?;
        let (shape, rows) = (self.bands().shape(into), self.bands().rows);
        let Tiling { channels, splits, last_splits } = tiling(conv, shape.columns, rows, self.threads);
        let Sliding { channels: planes, kernel: [kernel_rows, kernel_columns], .. } = conv.sliding;
        let taps = kernel_rows * kernel_columns;
        // Lanes that share a sum have a plane each: four floats further they are in other banks.
        let pitch = taps * conv.outputs + if splits.max(last_splits) > 1 { 4 } else { 0 };
        let weights = (0..planes * pitch).map(|place| {
            let (plane, tap, output) = (place / pitch, place % pitch / conv.outputs, place % pitch % conv.outputs);
            if tap < taps { conv.weights[(output * planes + plane) * taps + tap] } else { 0.0 }
        });
        let weights = weights.chain(bias_of(conv.bias.as_deref(), conv.outputs)).collect::<Vec<_>>();
        let weights = self.constant(weights);
        let kept = self.numbers_of_block((planes * pitch + conv.outputs) as u32);
        let numbers = sliding(Numbers::default().int("threads", self.threads), &conv.sliding)
            .text(&out)
            .text(&input)
            .int("planes", planes)
            .int("outputs", conv.outputs)
            .int("channels", channels)
            .int("splits", splits)
            .int("last_splits", last_splits)
            .int("weights", weights)
            .int("weights_pitch", pitch)
            .text(&kept)
            .function(conv.activation);
        let note = format!(
            "conv {kernel_rows}x{kernel_columns}, {planes} to {} channels, {rows} rows of {} a block, {channels} channels a thread, \
             {splits} and {last_splits} threads a sum{}",
            conv.outputs,
            shape.columns,
            halo_of(shape)
        );
        self.step("BandConv", numbers, true, false, note);
        Ok(())
    }

    fn band_pool(&mut self, pool: &Pool, stage: &Stage) -> Result<()> {
        let input = self.band_in(stage.reads[0])?;
        let out = self.band_out(stage.writes)?;
        let numbers = sliding(Numbers::default().int("threads", self.threads), &pool.sliding)
            .text(&out)
            .text(&input)
            .int("planes", pool.sliding.channels)
            .int("behind_rows", pool.sliding.behind[0])
            .int("behind_columns", pool.sliding.behind[1])
            .truth("mean", pool.kind != PoolKind::Max)
            .truth("counts_padding", pool.kind == PoolKind::AverageWithPadding);
        let (shape, rows) = (self.bands().shape(stage.writes), self.bands().rows);
        let note = format!("pool of {} channels, {rows} rows a block{}", pool.sliding.channels, halo_of(shape));
        self.step("BandPool", numbers, true, false, note);
        Ok(())
    }

    /// The value in bands of which this one is the rows.
    pub(super) fn turned_band(&self, id: ValueId) -> Option<ValueId> {
        let bands = self.bands.as_ref()?;
        let from = self.network.stages.iter().find(|stage| stage.writes == id)?;
        from.reads.first().copied().filter(|&from| bands.has(from))
    }

    /// All rows times the weights of the network behind them, four of each unit; where they are in block 0's part of the device's memory.
    pub(super) fn band_rows(&mut self, of: &Recurrent, gru: bool, from: ValueId) -> Result<u32> {
        let input = self.band_in(from)?;
        let (threads, blocks) = (self.threads, self.blocks);
        let (inputs, outputs) = (of.inputs, row_outputs(of));
        let (height, rows) = (self.bands().height, self.bands().rows);
        let cores = Cores::of([outputs as u32, inputs as u32, 1], rows, threads).ok_or_else(|| {
            unsupported(format!("rows of {inputs} to {outputs} in bands, {threads} threads a block"))
                .expected("a multiple of 8, and of 32 threads a power of two that has room for their sums, as 256")
        })?;
        let gates = if gru { 3 } else { 4 };
        let unit_of = |output: usize| Some((output / 4, output % 4)).filter(|&(unit, _)| unit < of.units);
        let weight = |output: usize, input: usize, _: usize| match unit_of(output) {
            Some((unit, gate)) if gate < gates => of.weights[(gate * of.units + unit) * inputs + input],
            _ => 0.0,
        };
        let bias: Vec<f32> = (0..outputs)
            .map(|output| unit_of(output).map_or(0.0, |(unit, gate)| biases(of, gru, unit)[gate]))
            .collect();
        let sums = self.band_sums(cores, [rows, 1], [outputs, inputs, 1], &weight, &bias);
        let to = self.in_state(height * outputs as u32 * 4);
        let (words, said) = (self.room(2 * 4 * blocks), self.room(16));
        let (barriers, of_words) = (self.barriers()?, self.barriers()?);
        self.hears(blocks);
        let numbers = sums
            .text(&input)
            .int("blocks", blocks)
            .int("height", height)
            .int("to", to)
            .int("said", said)
            .int("barriers", barriers);
        let one_by_one = Sliding {
            channels: inputs,
            size: [height as usize, 1],
            kernel: [1, 1],
            strides: [1, 1],
            dilations: [1, 1],
            before: [0, 0],
            behind: [0, 0],
        };
        let numbers = sliding(numbers, &one_by_one).function(None);
        let note = format!("{height} rows of {} to {outputs}, to block 0 through the device's memory", of.inputs);
        self.step("BandRows", numbers, true, true, note);
        let numbers = Numbers::default().int("threads", threads).int("blocks", blocks);
        let numbers = numbers.int("words", words).int("barriers", of_words);
        self.step("BandRowsMeet", numbers, true, false, "block 0 waits for all rows".into());
        Ok(to)
    }
}

/// Four rows of each unit, whole tiles of them.
pub(super) fn row_outputs(of: &Recurrent) -> usize {
    (4 * of.units).next_multiple_of(16)
}

/// How warps share a convolution by tensor cores: its channels, the places of its result, the planes of its input.
#[derive(Clone, Copy)]
struct Cores {
    warps_rows: u32,
    warps_columns: u32,
    warps_planes: u32,
}

impl Cores {
    fn of_conv(conv: &Conv, places: u32, threads: u32) -> Option<Self> {
        let taps = conv.sliding.kernel.iter().product::<usize>() as u32;
        let of = Self::of([conv.outputs as u32, conv.sliding.channels as u32, taps], places, threads);
        of.filter(|_| conv.groups == 1)
    }

    /// The least work for one warp; `None` where outputs and planes are not whole tiles.
    fn of([outputs, planes, taps]: [u32; 3], places: u32, threads: u32) -> Option<Self> {
        let warps = threads / 32;
        if !planes.is_multiple_of(8) || !outputs.is_multiple_of(16) || !warps.is_power_of_two() {
            return None;
        }
        let powers = || (0..=warps.ilog2()).map(|power| 1 << power);
        let all = powers().flat_map(|warps_rows| powers().map(move |warps_columns| (warps_rows, warps_columns)));
        let all = all.filter(|(rows, columns)| rows * columns <= warps).map(|(warps_rows, warps_columns)| Self {
            warps_rows,
            warps_columns,
            warps_planes: warps / (warps_rows * warps_columns),
        });
        let fits = |of: &Self| {
            (outputs / 16).is_multiple_of(of.warps_rows)
                && (planes / 8).is_multiple_of(of.warps_planes)
                && of.tiles(outputs, places).iter().product::<u32>() <= MOST_TILES
        };
        let cost = |of: &Self| {
            let [rows, columns] = of.tiles(outputs, places);
            let (eights, several) = (planes / 8 / of.warps_planes, u32::from(of.warps_planes > 1));
            // Instructions of a step, of where its planes lie, of bringing parts together, and of writing what has been added up.
            let (step, places) = (9 * rows + 13 * columns + 3 * rows * columns, 20 * columns);
            let (parts, written) = (12 * rows * columns * several, 60 * rows * columns);
            let multiplied = 3 * rows * columns * PRODUCT_CYCLES;
            // A scheduler has two warps, and instructions come from afar.
            let summed = taps * (eights * step.max(multiplied) + places);
            2 * (summed + parts + written / (1 + several)) + 3 * (step + places + parts + written)
        };
        all.filter(fits).min_by_key(cost)
    }

    /// Of a warp.
    fn tiles(self, outputs: u32, places: u32) -> [u32; 2] {
        [outputs / 16 / self.warps_rows, places.div_ceil(8).div_ceil(self.warps_columns)]
    }

    fn sums_bytes(self, outputs: u32, places: u32) -> u32 {
        let tiles: u32 = self.tiles(outputs, places).iter().product();
        (self.warps_planes - 1) * tiles * self.warps_rows * self.warps_columns * 128 * 4
    }
}

fn halo_of(shape: Shape) -> String {
    match shape.before + shape.behind {
        0 => String::new(),
        rows => format!(", {rows} rows from those beside it"),
    }
}

/// The fastest by a count of what a block's schedulers issue and its shared memory serves.
fn tiling(conv: &Conv, columns: u32, rows: u32, threads: u32) -> Tiling {
    let of = &conv.sliding;
    let [planes, outputs] = [of.channels, conv.outputs].map(|size| size as u32);
    let [kernel_rows, kernel_columns] = of.kernel.map(|size| size as u32);
    let (taps, high) = (kernel_rows * kernel_columns, rows + of.reach(0) as u32 - 1);
    // So many tiles at a time, each of so many threads.
    let round = |channels: u32, tiles: u32, splits: u32| {
        let warps = (tiles * splits).div_ceil(LANES);
        let loads = kernel_columns * high + taps * channels.div_ceil(2);
        let issued = rows * taps * channels + loads + 8;
        // A scheduler with one warp waits for its loads.
        let plane = (issued * warps.div_ceil(4)).max(issued + 60) + loads * warps / 2;
        let levels = splits.ilog2();
        let shuffles = (0..levels).map(|level| (channels >> (level + 1)).max(1) * rows).sum::<u32>();
        let puts = 12 * rows * (channels / splits).max(1);
        planes.div_ceil(splits) * plane + (3 * shuffles + puts) * warps.div_ceil(4) + 30 * levels + 150
    };
    let cycles = |&Tiling { channels, splits, last_splits }: &Tiling| {
        let (tiles, at_once) = (columns * outputs / channels, threads / splits);
        let left = tiles % at_once;
        let last = if left > 0 { round(channels, left, last_splits) } else { 0 };
        // Its instructions come from afar.
        let instructions = 3 * (channels * rows * (taps.min(8) + 8) + 100);
        let written = u32::from(left > 0) + u32::from(tiles >= at_once);
        tiles / at_once * round(channels, at_once, splits) + last + written * instructions
    };
    let most = |tiles: u32| {
        (0..=5).rev().map(|power| 1 << power).find(|splits| tiles * splits <= threads && *splits <= planes)
    };
    let all = [1, 2, 4].into_iter().flat_map(|channels| {
        (0..=5).map(move |power| {
            let splits = 1 << power;
            let left = columns * outputs / channels % (threads / splits);
            Tiling { channels, splits, last_splits: most(left).unwrap_or(1) }
        })
    });
    let fits = |tiling: &Tiling| {
        outputs.is_multiple_of(tiling.channels)
            && (tiling.channels == 1 || tiling.channels * rows <= SUMS)
            && tiling.splits <= planes
    };
    all.filter(fits).min_by_key(cycles).expect("one channel and no splits always do")
}

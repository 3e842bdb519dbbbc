//! Convolutions: how a block's share of the result falls to its threads.

use super::numbers::Numbers;
use super::plan::{Layout, Plan, Whole};
use super::stages::{bias_of, sliding};
use crate::error::Result;
use crate::resident::network::{Conv, Pool, PoolKind, ValueId};

/// Weights that one convolution keeps in registers of a thread, positions and places of a plane that a tile has: what leaves
/// room for the layers behind it.
const WEIGHTS: u32 = 40;
const POSITIONS: u32 = 16;
const PATCH: u32 = 48;
const LANES: u32 = 32;

/// A convolution with the pool behind it, as the template sees them.
struct Shape {
    kernel: [u32; 2],
    /// Of the input, from one pooled place to the next.
    step: [u32; 2],
    /// Of the input, what one pooled place needs.
    patch: [u32; 2],
    positions: u32,
    group_channels: u32,
    group_outputs: u32,
    pooled_columns: u32,
    pooled: u32,
    each: u32,
    threads: u32,
}

/// How the input lies.
#[derive(Clone, Copy)]
struct Input {
    layout: Layout,
    is_padded: bool,
    pairs: bool,
}

/// A thread has `channels` of the result at one place; `splits` of them share the input's planes.
#[derive(Clone, Copy)]
struct Tiles {
    channels: u32,
    sets: u32,
    places: u32,
    splits: u32,
    in_registers: bool,
}

impl Shape {
    fn new(conv: &Conv, pool: Option<&Pool>, each: u32, threads: u32) -> Self {
        let of = &conv.sliding;
        let [rows, columns] = pool.map_or_else(|| of.output(), |pool| pool.sliding.output());
        let under = pool.map_or([1, 1], |pool| pool.sliding.kernel);
        let strides = pool.map_or([1, 1], |pool| pool.sliding.strides);
        Self {
            kernel: of.kernel.map(|size| size as u32),
            step: [0, 1].map(|axis| (strides[axis] * of.strides[axis]) as u32),
            patch: [0, 1].map(|axis| ((under[axis] - 1) * of.strides[axis] + of.reach(axis)) as u32),
            positions: (under[0] * under[1]) as u32,
            group_channels: (of.channels / conv.groups) as u32,
            group_outputs: (conv.outputs / conv.groups) as u32,
            pooled_columns: columns as u32,
            pooled: (rows * columns) as u32,
            each,
            threads,
        }
    }

    /// A tile fits a thread's registers, and a thread's tiles are of one channel.
    fn is_tiled(&self) -> bool {
        let whole_channels = self.each.is_multiple_of(self.pooled) && self.each / self.pooled <= self.threads;
        let one_channel = self.each <= self.threads || whole_channels;
        self.positions <= POSITIONS && self.patch[0] * (self.patch[1] + 1).next_multiple_of(2) <= PATCH && one_channel
    }

    fn taps(&self) -> u32 {
        self.kernel[0] * self.kernel[1]
    }

    /// The fastest by the count of [`Self::cycles`].
    fn tiles(&self, input: Input, has_registers: &dyn Fn(u32) -> bool) -> Tiles {
        let channels = [1, 2, 4].into_iter().filter(|channels| self.can_have(*channels));
        let all = channels.flat_map(|channels| {
            let splits = (0..=LANES.ilog2()).map(|power| 1 << power);
            splits.filter_map(move |splits| self.with(channels, splits, has_registers))
        });
        all.min_by_key(|&tiles| self.cycles(tiles, input)).expect("one channel and no splits always do")
    }

    /// Whether shares are whole tiles of so many channels of one group.
    fn can_have(&self, channels: u32) -> bool {
        let whole_channels = self.each.is_multiple_of(self.pooled);
        channels == 1
            || (whole_channels && [self.each / self.pooled, self.group_outputs].iter().all(|of| of % channels == 0))
                && channels * self.positions <= POSITIONS
    }

    fn with(&self, channels: u32, splits: u32, has_registers: &dyn Fn(u32) -> bool) -> Option<Tiles> {
        let whole_channels = self.each.is_multiple_of(self.pooled);
        let (sets, places) =
            if whole_channels { (self.each / self.pooled / channels, self.pooled) } else { (1, self.each) };
        let at_once = self.threads / splits / sets * sets;
        let fits = at_once > 0 && (whole_channels || places <= at_once);
        if !fits || !self.group_channels.is_multiple_of(splits) {
            return None;
        }
        let count = channels * self.group_channels / splits * self.taps();
        Some(Tiles { channels, sets, places, splits, in_registers: count <= WEIGHTS && has_registers(count) })
    }

    /// Of a block: what its schedulers issue or its shared memory serves, whichever is more, and what nothing hides.
    fn cycles(&self, tiles: Tiles, input: Input) -> u32 {
        let Tiles { channels, sets, places, splits, in_registers } = tiles;
        let at_once = (self.threads / splits / sets * sets).min(places * sets);
        let rounds = (places * sets).div_ceil(at_once);
        let warps = (at_once * splits).div_ceil(LANES);
        let planes = self.group_channels / splits;
        let places_read = self.patch[0] * self.patch[1].next_multiple_of(2);
        let loads = if input.pairs { places_read / 2 } else { places_read };
        let products = channels * self.positions * self.taps();
        let weights = if in_registers { 0 } else { channels * self.taps() };
        let look = if input.is_padded { 1 } else { 3 };
        let (mut shuffles, mut halved) = (0, channels);
        for _ in 0..splits.ilog2() {
            halved = halved.div_ceil(2);
            shuffles += halved * self.positions;
        }
        let issued = planes * (loads * look + products + weights) + 4 * shuffles;
        let served = planes * (loads * self.conflicts(tiles, input) + weights) + shuffles;
        let chain = planes * self.taps() * 4;
        let latency = 30 * (planes + splits.ilog2());
        rounds * ((issued * warps.div_ceil(4)).max(served * warps).max(chain) + latency)
    }

    /// How often shared memory is asked for one load of the first warp.
    fn conflicts(&self, tiles: Tiles, input: Input) -> u32 {
        let place = |lane: u32| {
            let at = lane / tiles.splits / tiles.sets;
            let (row, column) = (at / self.pooled_columns * self.step[0], at % self.pooled_columns * self.step[1]);
            lane % tiles.splits * input.layout.plane_pitch + row * input.layout.row_pitch + column
        };
        // Half a warp at a time where a lane asks for two words.
        let (words, together) = if input.pairs { (2, LANES / 2) } else { (1, LANES) };
        let worst = |first: u32| {
            let mut asked: Vec<u32> = (first..first + together).map(|lane| place(lane) / words).collect();
            asked.sort_unstable();
            asked.dedup();
            let banks = LANES / words;
            (0..banks).map(|bank| asked.iter().filter(|&word| word % banks == bank).count() as u32).max().unwrap_or(1)
        };
        (0..LANES).step_by(together as usize).map(worst).sum()
    }
}

impl Plan<'_> {
    pub(super) fn conv(&mut self, conv: &Conv, pool: Option<&Pool>, from: ValueId, into: ValueId) -> Result<()> {
        let shape = Shape::new(conv, pool, self.place(into).each, self.threads);
        let is_tiled = shape.is_tiled();
        let padded = if is_tiled { self.whole_padded(from, &conv.sliding)? } else { None };
        let [rows, columns] = conv.sliding.size.map(|size| size as u32);
        let plain = Layout { row: columns, row_pitch: columns, plane: rows * columns, plane_pitch: rows * columns };
        let (whole, layout) = match padded {
            Some(padded) => padded,
            None => (self.whole(from, into)?, plain),
        };
        let is_padded = padded.is_some();
        let pairs = is_padded && (shape.step[1].is_multiple_of(2) || shape.pooled_columns == 1);
        let tiles =
            is_tiled.then(|| shape.tiles(Input { layout, is_padded, pairs }, &|count| self.has_registers(count)));
        let numbers = self.conv_numbers(conv, pool, whole, &shape, into, tiles);
        let pooled = pool.map_or(String::new(), |pool| {
            let [rows, columns] = pool.sliding.kernel;
            format!(", pooled by {rows}x{columns}")
        });
        let how = tiles.map_or(String::new(), |Tiles { channels, splits, in_registers, .. }| {
            let kept = if in_registers { ", weights in registers" } else { "" };
            format!(", {channels} channels a thread, {splits} threads a sum{kept}")
        });
        let [height, width] = conv.sliding.kernel;
        let note = format!(
            "conv {height}x{width}, {} to {} channels of {}x{}{pooled}{how}",
            conv.sliding.channels,
            conv.outputs,
            shape.pooled / shape.pooled_columns,
            shape.pooled_columns
        );
        let Some(tiles) = tiles else {
            self.step("Conv", numbers, false, false, note);
            return Ok(());
        };
        let numbers = numbers
            .int("channels", tiles.channels)
            .int("sets", tiles.sets)
            .int("places", tiles.places)
            .int("splits", tiles.splits)
            .int("row_pitch", layout.row_pitch)
            .int("plane_pitch", layout.plane_pitch)
            .truth("padded", is_padded)
            .truth("pairs", pairs)
            .truth("in_registers", tiles.in_registers);
        self.step("TiledConv", numbers, false, false, note);
        Ok(())
    }

    fn conv_numbers(
        &mut self,
        conv: &Conv,
        pool: Option<&Pool>,
        whole: Whole,
        shape: &Shape,
        into: ValueId,
        tiles: Option<Tiles>,
    ) -> Numbers {
        let bias = bias_of(conv.bias.as_deref(), conv.outputs);
        let weights = self.constant(conv.weights.iter().copied().chain(bias));
        let kept = match tiles {
            Some(tiles) if tiles.in_registers => {
                self.take_registers(tiles.channels * shape.group_channels / tiles.splits * shape.taps());
                "  static constexpr bool is_kept = false;\n  static constexpr u32 weights_kept = 0;\n".to_owned()
            }
            _ => self.numbers_of_block((conv.weights.len() + conv.outputs) as u32),
        };
        let (kernel, step) = pool.map_or(([1, 1], [1, 1]), |pool| (pool.sliding.kernel, pool.sliding.strides));
        let pools = match pool.map(|pool| pool.kind) {
            None => 0,
            Some(PoolKind::Max) => 1,
            Some(PoolKind::Average | PoolKind::AverageWithPadding) => 2,
        };
        let out = self.share(into);
        sliding(self.common(into), &conv.sliding)
            .int("out", out)
            .int("in", whole.offset)
            .int("in_bytes", whole.copy_bytes)
            .int("group_channels", shape.group_channels)
            .int("group_outputs", shape.group_outputs)
            .int("pool_rows", kernel[0])
            .int("pool_columns", kernel[1])
            .int("pool_step_rows", step[0])
            .int("pool_step_columns", step[1])
            .int("pools", pools)
            .int("pooled_columns", shape.pooled_columns)
            .int("pooled", shape.pooled)
            .int("weights", weights)
            .text(&kept)
            .function(conv.activation)
    }
}

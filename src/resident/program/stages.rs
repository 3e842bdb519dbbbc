//! Each operation as numbers for its template, and its constants.

use std::fmt::Write as _;

use super::numbers::{Numbers, function, literal};
use super::plan::{Place, Plan};
use super::unsupported;
use crate::error::Result;
use crate::resident::network::{
    Along, Dense, Elementwise, LayerNorm, Operation, Pool, PoolKind, Slice, Sliding, Stage, ValueId,
};

/// Rows of a matrix up to which a warp has one.
const WIDE_ROWS: u32 = 16;
/// Outputs of a dense layer up to which each lane has all that a softmax goes over.
const SOFTMAX_ROWS: usize = 8;

/// A matrix whose rows are shared out over the blocks, `each_out` a block.
pub(super) struct Matrix {
    pub(super) inputs: u32,
    pub(super) rows: u32,
    pub(super) each_out: u32,
    /// A warp has a row.
    pub(super) wide: bool,
    /// Of each row.
    pub(super) bias: Vec<f32>,
}

impl Plan<'_> {
    /// One stage, and what comes behind it where they are one: a convolution's pool, a dense layer's softmax.
    pub(super) fn stage(&mut self, stage: &Stage, behind: Option<&Stage>) -> Result<()> {
        let (first, into) = (stage.reads[0], behind.map_or(stage.writes, |behind| behind.writes));
        match &stage.operation {
            Operation::Dense(dense) if dense.rows == 1 => self.dense(dense, behind.is_some(), first, into),
            Operation::Dense(dense) => self.matrix(dense, first, into),
            Operation::Conv(conv) => {
                let pool = behind.map(|pool| match &pool.operation {
                    Operation::Pool(pool) => pool,
                    _ => unreachable!("`pools_into` saw a pool"),
                });
                self.conv(conv, pool, first, into)
            }
            Operation::Pool(pool) => self.pool(pool, first, into),
            Operation::Recurrent(of) => self.recurrent(of, first, into),
            Operation::RecurrentStep(of) => self.recurrent_step(of, &stage.reads, into),
            Operation::Slice(slice) if self.is_in_place(slice, first, into) => Ok(()),
            other => self.each(other, &stage.reads, into),
        }
    }

    /// Neighbours of a value that is whole in every block: they are it, from another place on.
    fn is_in_place(&mut self, slice: &Slice, from: ValueId, into: ValueId) -> bool {
        let start = (slice.start * slice.along.inner * 4) as u32;
        let part =
            self.place(from).whole.filter(|_| slice.along.outer == 1 && slice.step == 1 && start.is_multiple_of(16));
        part.is_some_and(|whole| self.lies_within(whole, start, into))
    }

    /// A softmax over few sums that block 0 adds up, a lane each: nothing else reads them.
    pub(super) fn has_softmax(&self, stage: &Stage, softmax: &Stage) -> bool {
        let (Operation::Dense(dense), &Operation::Softmax { rows, columns }) = (&stage.operation, &softmax.operation)
        else {
            return false;
        };
        let Place { count, each, .. } = self.place(softmax.writes);
        (dense.rows, rows) == (1, 1)
            && columns == dense.outputs
            && columns <= SOFTMAX_ROWS
            && dense.activation.is_none()
            && softmax.reads == [stage.writes]
            && self.network.uses(stage.writes) == 1
            && self.blocks > 1
            && count == each
    }

    fn dense(&mut self, dense: &Dense, softmax: bool, from: ValueId, into: ValueId) -> Result<()> {
        let bias = bias_of(dense.bias.as_deref(), dense.outputs);
        let matrix = Matrix {
            inputs: dense.inputs as u32,
            rows: dense.outputs as u32,
            each_out: self.place(into).each,
            wide: dense.outputs as u32 <= WIDE_ROWS,
            bias,
        };
        let weight = |row: u32, input: usize| dense.weights[row as usize * dense.inputs + input];
        let (numbers, how) = self.product(&matrix, from, &weight)?;
        let out = self.share(into);
        let numbers = numbers.int("out", out).truth("sums_only", false).truth("softmax", softmax);
        let numbers = numbers.function(dense.activation);
        let with = if softmax { ", softmax" } else { "" };
        let note = format!("dense {} to {}{with}, {how}", dense.inputs, dense.outputs);
        self.step("Dense", numbers, self.blocks > 1, false, note);
        Ok(())
    }

    /// A vector that is shared out times a matrix: weights, bias and where parts of sums arrive, and in words how it is done.
    /// `weight` is asked for a row and an input of the network's.
    pub(super) fn product(
        &mut self,
        matrix: &Matrix,
        from: ValueId,
        weight: &dyn Fn(u32, usize) -> f32,
    ) -> Result<(Numbers, String)> {
        let &Matrix { inputs, rows, each_out, wide, .. } = matrix;
        let whole = self.whole_for_rows(from).filter(|_| !wide);
        let (blocks, threads) = (self.blocks, self.threads);
        // Without others' parts a block has its own rows, and all inputs of them.
        let (direct, by_rows) = (blocks == 1 || whole.is_some(), whole.is_some());
        let input = match whole {
            Some(offset) => offset,
            None => self.share_of_whole(from),
        };
        let share = if by_rows { inputs } else { self.place(from).each };
        let own_rows = if by_rows { each_out } else { rows };
        let senders = if direct { 1 } else { inputs.div_ceil(share) };
        let warps = threads / 32;
        let mut parts = 1;
        while !wide && parts * 2 * own_rows <= threads && parts < 16 && share >= parts * 8 {
            parts *= 2;
        }
        let (k, rows_each) = (share.div_ceil(4 * parts) * 4, own_rows.div_ceil(threads / parts));
        // Rows that are sent at once are fewer messages; they must lie in one share.
        let several = |together: u32| {
            !direct
                && rows.is_multiple_of(together)
                && each_out.is_multiple_of(together)
                && rows_each.is_multiple_of(together)
        };
        let together = [4, 2].into_iter().find(|&together| !wide && several(together)).unwrap_or(1);
        let (warps_rows, lanes) = (rows.div_ceil(warps), share.div_ceil(32));
        let count = if wide { (warps_rows * lanes).next_multiple_of(4) } else { rows_each * k };
        // The weight number `n` of a thread of a block.
        let of_thread = |block: u32, thread: u32, n: u32| {
            let (row, place) = if wide {
                (thread / 32 + n / lanes * warps, n % lanes * 32 + thread % 32)
            } else {
                let (columns, i, column) = (threads / parts, n / k, thread / parts);
                let row = i / together * columns * together + column * together + i % together;
                (row, (n % k / 4 * parts + thread % parts) * 4 + n % 4)
            };
            let (row, input) = if by_rows { (block * each_out + row, place) } else { (row, block * share + place) };
            let there = row < rows.min(if by_rows { (block + 1) * each_out } else { rows });
            let there = there && place < share && input < inputs && (!wide || n / lanes < warps_rows);
            if there { weight(row, self.element(from, input)) } else { 0.0 }
        };
        let having = if by_rows { blocks } else { senders };
        let (mut all, words) = (self.by_thread(having, [threads, count], &of_thread)?, self.words(count));
        // Blocks without inputs load what lies behind, and do not use it.
        all.resize(all.len() + ((blocks - having) * words * threads) as usize, 0.0);
        let weights = self.constant(all);
        let bias = self.constant(matrix.bias.iter().copied());
        let (received, received_bytes) = self.received(senders * each_out * 4);
        let barriers = if direct { 0 } else { self.barriers()? };
        if !direct {
            self.hears(senders);
        }
        let kept = self.weights_of_threads(words);
        let numbers = Numbers::default()
            .int("threads", threads)
            .int("blocks", blocks)
            .truth("direct", direct)
            .int("inputs", inputs)
            .int("each_in", share)
            .int("in", input)
            .int("rows", rows)
            .int("each_out", each_out)
            .int("senders", senders)
            .int("parts", parts)
            .int("k", k)
            .int("rows_each", rows_each)
            .int("together", together)
            .int("warps_rows", warps_rows)
            .truth("wide", wide)
            .truth("half", self.in_halves())
            .int("weights", weights)
            .int("weights_each", if blocks > 1 { words * threads * 4 } else { 0 })
            .text(&kept)
            .int("bias", bias)
            .int("received", received)
            .int("received_bytes", received_bytes)
            .int("barriers", barriers);
        let how = match () {
            () if wide => "a warp a row".to_owned(),
            () if by_rows => format!("{parts} threads a row, {own_rows} rows a block"),
            () => format!("{parts} threads a row of a block"),
        };
        Ok((numbers, format!("{how}, {count} weights a thread")))
    }

    fn matrix(&mut self, dense: &Dense, from: ValueId, into: ValueId) -> Result<()> {
        let whole = self.whole(from, into)?;
        let bias = bias_of(dense.bias.as_deref(), dense.outputs);
        let weights = self.constant(dense.weights.iter().copied().chain(bias));
        let kept = self.numbers_of_block((dense.weights.len() + dense.outputs) as u32);
        let out = self.share(into);
        let numbers = self
            .common(into)
            .int("out", out)
            .int("in", whole.offset)
            .int("in_bytes", whole.copy_bytes)
            .int("inputs", dense.inputs)
            .int("outputs", dense.outputs)
            .int("weights", weights)
            .text(&kept)
            .function(dense.activation);
        let note = format!("{} rows of {} to {}", dense.rows, dense.inputs, dense.outputs);
        self.step("Matrix", numbers, false, false, note);
        Ok(())
    }

    fn pool(&mut self, pool: &Pool, from: ValueId, into: ValueId) -> Result<()> {
        let whole = self.whole(from, into)?;
        let out = self.share(into);
        let [rows, columns] = pool.sliding.output();
        let numbers = sliding(self.common(into), &pool.sliding)
            .int("out", out)
            .int("in", whole.offset)
            .int("in_bytes", whole.copy_bytes)
            .int("out_columns", columns)
            .int("places", rows * columns)
            .int("behind_rows", pool.sliding.behind[0])
            .int("behind_columns", pool.sliding.behind[1])
            .truth("mean", pool.kind != PoolKind::Max)
            .truth("counts_padding", pool.kind == PoolKind::AverageWithPadding);
        self.step(
            "Pool",
            numbers,
            false,
            false,
            format!("pool to {} channels of {rows}x{columns}", pool.sliding.channels),
        );
        Ok(())
    }

    /// What writes each element from its place alone, or from its row.
    fn each(&mut self, operation: &Operation, reads: &[ValueId], into: ValueId) -> Result<()> {
        let mut values = Vec::new();
        for &id in reads {
            values.push(match operation {
                // Element by element, in the same order: shares will do, if they are the same.
                Operation::Activation(_) | Operation::Affine(_) | Operation::Elementwise(_)
                    if self.place(id).each == self.place(into).each =>
                {
                    let (offset, each) = (self.share_of_whole(id), self.place(id).each);
                    format!("(shared({offset}) - b.rank * {each}u)")
                }
                _ => {
                    let whole = self.whole(id, into)?;
                    format!("whole<{}, {}>(b)", whole.offset, whole.copy_bytes)
                }
            });
        }
        let (formula, note) = self.formula(operation, &values)?;
        let out = self.share(into);
        let text =
            format!("  static __device__ float at(const Block& b, const Turn& turn, u32 i) {{\n    {formula}\n  }}\n");
        let numbers = self.common(into).int("out", out).text(&text);
        self.step("Each", numbers, false, true, note);
        Ok(())
    }

    fn formula(&mut self, operation: &Operation, of: &[String]) -> Result<(String, String)> {
        Ok(match operation {
            Operation::Activation(activation) => {
                let (name, alpha) = function(Some(*activation));
                let text = format!("return apply<Function::{name}>({}[i], {});", of[0], literal(alpha));
                (text, name.to_string())
            }
            Operation::Affine(affine) => {
                let (scale, shift) =
                    (self.constant(affine.scale.iter().copied()), self.constant(affine.shift.iter().copied()));
                let Along { length, inner, .. } = affine.along;
                let text = format!(
                    "const u32 c = i / {inner} % {length};\n    return fmaf({}[i], constant(turn.constants + {scale} + 4 * c), constant(turn.constants + {shift} + 4 * c));",
                    of[0]
                );
                (text, "scale and shift".into())
            }
            Operation::Elementwise(kind) => {
                let (sign, name) = match kind {
                    Elementwise::Add => ("+", "sum"),
                    Elementwise::Subtract => ("-", "difference"),
                    Elementwise::Multiply => ("*", "product"),
                };
                (format!("return {}[i] {sign} {}[i];", of[0], of[1]), format!("{name} of two"))
            }
            Operation::Softmax { rows, columns } => {
                let text = format!("return softmax({} + i / {columns} * {columns}, {columns}, i % {columns});", of[0]);
                (text, format!("softmax over {rows} rows of {columns}"))
            }
            Operation::LayerNorm(LayerNorm { rows, width, epsilon, scale, shift }) => {
                let mut text = format!(
                    "const float x = layer_norm({} + i / {width} * {width}, {width}, i % {width}, {});\n    return ",
                    of[0],
                    literal(*epsilon)
                );
                let mut number = |of: &[f32]| {
                    let at = self.constant(of.iter().copied());
                    format!("constant(turn.constants + {at} + 4 * (i % {width}))")
                };
                let scaled = scale.as_deref().map_or("x".to_owned(), |scale| format!("x * {}", number(scale)));
                let shifted = shift.as_deref().map_or(String::new(), |shift| format!(" + {}", number(shift)));
                let _ = write!(text, "{scaled}{shifted};");
                (text, format!("layer norm over {rows} rows of {width}"))
            }
            Operation::Concat { parts, .. } => {
                let total: usize = parts.iter().sum();
                let mut text = format!("const u32 o = i / {total};\n    u32 r = i % {total};\n");
                for (value, part) in of.iter().zip(parts) {
                    let _ = write!(text, "    if (r < {part}) return {value}[o * {part} + r];\n    r -= {part};\n");
                }
                text += "    return 0.f;";
                (text, format!("{} values side by side", parts.len()))
            }
            Operation::Transpose { shape, order } => {
                let mut inner: usize = shape.iter().product();
                let terms = order.iter().map(|&axis| {
                    inner /= shape[axis];
                    let stride: usize = shape[axis + 1..].iter().product();
                    format!("i / {inner} % {} * {stride}", shape[axis])
                });
                (
                    format!("return {}[{}];", of[0], terms.collect::<Vec<_>>().join(" + ")),
                    format!("{shape:?} by {order:?}"),
                )
            }
            Operation::Slice(slice) => {
                let Along { length, inner, .. } = slice.along;
                let text = format!(
                    "const int at = {} + int(i / {inner} % {count}) * ({step});\n    return {}[(i / {} * {length} + u32(at)) * {inner} + i % {inner}];",
                    slice.start,
                    of[0],
                    slice.count * inner,
                    count = slice.count,
                    step = slice.step
                );
                (text, format!("{} of {length} places", slice.count))
            }
            Operation::Pad(pad) => {
                let Along { length, inner, .. } = pad.along;
                let padded = pad.before + length + pad.behind;
                let text = format!(
                    "const u32 at = i / {inner} % {padded} - {}u;\n    return at < {length}u ? {}[(i / {} * {length} + at) * {inner} + i % {inner}] : {};",
                    pad.before,
                    of[0],
                    padded * inner,
                    literal(pad.value)
                );
                (text, format!("{length} places padded to {padded}"))
            }
            other => return Err(unsupported(format!("{other:?}").chars().take(60).collect())),
        })
    }
}

/// A bias of each output, zeros where there is none.
pub(super) fn bias_of(bias: Option<&[f32]>, outputs: usize) -> Vec<f32> {
    bias.map_or_else(|| vec![0.0; outputs], <[f32]>::to_vec)
}

pub(super) fn sliding(numbers: Numbers, of: &Sliding) -> Numbers {
    let mut numbers = numbers;
    for (axis, name) in ["rows", "columns"].into_iter().enumerate() {
        numbers = numbers
            .int(name, of.size[axis])
            .int(&format!("kernel_{name}"), of.kernel[axis])
            .int(&format!("stride_{name}"), of.strides[axis])
            .int(&format!("dilation_{name}"), of.dilations[axis])
            .int(&format!("before_{name}"), of.before[axis]);
    }
    numbers
}

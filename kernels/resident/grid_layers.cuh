// A stack of LSTM or GRU layers on a grid of blocks, each of which has units of every layer and their weights, in half precision.
//
// Steps that do not depend on the newest row are computed ahead, layer by layer; the newest one goes through all layers when its row is
// there. Tensor cores multiply: 16 rows of weights are one side of a product, the other is the vector, taken apart into what half precision
// has of it and what that leaves, side by side. Sums are f32, the vector has 22 bits within half precision's range.

namespace tickrt {
namespace resident {

// The same block: addresses that follow from it are computed anew.
__device__ inline Block from_here(Block b) {
  from_here(b.state), from_here(b.rank), from_here(b.thread), from_here(b.warp), from_here(b.lane);
  return b;
}

// A layer. A block has 8 `each` units, 4 rows of each; of every 32 rows two warps have 16 each for one part of the inputs, two others for
// the next part. The parts of a sum meet in the first warps, which have a row a lane and compute gates.
//
// S: threads, blocks; steps, inputs, units, gru, each, bound (of its outputs), in_bound; is_first (it reads rows of the window, and then the
// newest one: `row`, in shared memory, or where it lies in `newest_in`'s units); in (outputs of the layer before, step by step), newest_in, out, newest_out (offsets in the device's
// memory), in_pitch, out_pitch (bytes from step to step); weights (of a thread: for each 32 rows, of each 16 inputs of its part, what it has of
// the product), weights_each, where, kept; state_weights (likewise, of the state), state_weights_each, state_where; bias (units times: four of the
// rows), initial (units of the output, then of the cell); x (two copies of x_bytes: the vector in halves), h (one), newest (one of x's copies);
// parts (of sums), ahead (of each row its sum, and of each unit what was before); sums (of its newest output: so many rows of a dense layer, no
// one wants the output itself; else 0), sum_weights (units of each).
template <class S>
struct GridLayer {
  static constexpr u32 kParts = S::threads / 64, kRows = 32 * S::each;
  static constexpr u32 kInput = (S::inputs + 16 * kParts - 1) / (16 * kParts), kState = (S::units + 16 * kParts - 1) / (16 * kParts);
  static constexpr u32 kInputs = kInput * kParts * 16, kUnits = kState * kParts * 16;
  // Those in registers are loaded for one layer at a time, and once more behind what is computed ahead: then there is room for them.
  using Kept = ThreadWeights<S::where == Weights::Registers ? Weights::Global : S::where, 4 * kInput * S::each, S::threads>;
  using InputWeights = ThreadWeights<S::where, 4 * kInput * S::each, S::threads>;
  using StateWeights = ThreadWeights<S::state_where, 4 * kState * S::each, S::threads>;
  using Inputs = TakenOutputs<S::threads, S::inputs, S::in_bound>;
  using State = TakenOutputs<S::threads, S::units, S::bound>;
  // Of four products, one behind the other, each goes on where it left off: it need not wait for those before.
  struct Sums {
    float of[S::each][4][4];
  };

  Kept kept;
  float bias;
  float sum_weights[S::sums ? S::sums : 1];

  __device__ GridLayer(const Block& b, const Turn& turn)
      : kept(b, turn, at(b), S::kept),
        bias(has_row(b) ? constant(turn.constants + S::bias + 4ull * (unit(b) * 4 + b.lane % 4)) : 0.f) {
#pragma unroll
    for (u32 i = 0; i < S::sums; ++i)
      sum_weights[i] = has_row(b) ? constant(turn.constants + S::sum_weights + 4ull * (i * S::units + unit(b))) : 0.f;
  }

  // What the newest step wants: made behind what is computed ahead.
  __device__ auto in_time(const Block& b, const Turn& turn) const { return input_weights(from_here(b), turn); }

  // All steps but the newest, and the state's part of that.
  __device__ bool run_ahead(const Block& block, const Turn& turn) const {
    const Block b = from_here(block);
    const auto weights = input_weights(b, turn);
    const StateWeights state_weights(b, turn, S::state_weights + u64(b.rank) * S::state_weights_each, 0);
    const auto initial = [&](u32 i) { return i < S::units ? constant(turn.constants + S::initial + 4ull * i) : 0.f; };
    InHalves<kUnits>::template fill<S::threads, S::units>(b, shared(S::h), initial);
    float h = has_row(b) ? initial(unit(b)) : 0.f;
    float c = has_row(b) && !S::gru ? constant(turn.constants + S::initial + 4ull * (S::units + unit(b))) : 0.f;
    bool over = !take_row(b, 0, 0);
    if (sync_block_or(over)) return false;
    Sums sums{};
    add<kInput, kInputs, S::where>(b, weights, shared(S::x), sums);
#pragma unroll 1
    for (u32 step = 0; step < S::steps; ++step) {
      const u32 next = (step + 1) & 1;
      const bool has_next = step + 2 < S::steps;
      if (step > 0) {
        State state(b, S::out + (step - 1) * S::out_pitch);
        over = (has_next && !take_row(b, step + 1, next)) || !state.template to_halves<kUnits>(b, shared(S::h));
      } else {
        over = has_next && !take_row(b, step + 1, next);
      }
      if (sync_block_or(over)) return false;
      add<kState, kUnits, S::state_where>(b, state_weights, shared(S::h), sums);
      bring_together(b, sums);
      if (b.warp < S::each) {
        const float sum = whole_sum(b) + bias;
        if (step + 1 < S::steps) {
          gates<S::gru>(b, sum, b.lane / 4 * 4, h, c);
          publish_outputs<S::bound>(b, S::out + step * S::out_pitch, unit(b) / 4, h);
        } else {
          shared(S::ahead)[b.thread] = sum;
          shared(S::ahead)[kRows + b.thread] = S::gru ? h : c;
        }
      }
      // While the other blocks' units come.
      sums = {};
      if (has_next) add<kInput, kInputs, S::where>(b, weights, shared(S::x + next * S::x_bytes), sums);
    }
    // The next layer writes where this one reads.
    sync_block();
    return true;
  }

  // The newest step.
  template <class W>
  __device__ bool run(const Block& block, const Turn& turn, const W& weights) const {
    const Block b = from_here(block);
    bool over = false;
    float* x = shared(S::newest);
    if constexpr (S::is_first) {
      // Block 0 has it.
      over = !b.rehearses && b.rank != 0 && !is_near(turn) && !TakenUnits<S::threads, S::inputs>(b, S::newest_in).to(b, shared(S::row));
      if (sync_block_or(over)) return false;
      InHalves<kInputs>::template fill<S::threads, S::inputs>(b, x, [](u32 i) { return shared(S::row)[i]; });
    } else {
      over = !b.rehearses && !Inputs(b, S::newest_in).template to_halves<kInputs>(b, x);
    }
    if (sync_block_or(over)) return false;
    Sums sums{};
    add<kInput, kInputs, S::where>(b, weights, x, sums);
    bring_together(b, sums);
    if (b.warp < S::each) {
      float before = shared(S::ahead)[kRows + b.thread], h = before;
      gates<S::gru>(b, whole_sum(b) + shared(S::ahead)[b.thread], b.lane / 4 * 4, h, before);
      if constexpr (S::sums == 0) {
        publish_outputs<S::bound>(b, S::newest_out, unit(b) / 4, h);
      } else {
#pragma unroll
        for (u32 i = 0; i < S::sums; ++i) {
          float sum = b.lane % 4 == 0 ? h * sum_weights[i] : 0.f;
          for (u32 mask = 4; mask < 32; mask *= 2) sum += across_lanes(sum, mask);
          if (b.lane == 0 && !b.rehearses) publish(b, S::newest_out, (i * S::blocks + b.rank) * S::each + b.warp, sum);
        }
      }
    }
    return true;
  }

 private:
  __device__ static u64 at(const Block& b) { return S::weights + u64(b.rank) * S::weights_each; }
  __device__ auto input_weights(const Block& b, const Turn& turn) const {
    if constexpr (S::where == Weights::Registers)
      return InputWeights(b, turn, at(b), 0);
    else
      return kept;
  }

  // Of the first warps, a row a lane.
  __device__ static u32 unit(const Block& b) { return b.rank * 8 * S::each + b.thread / 4; }
  __device__ static bool has_row(const Block& b) { return b.warp < S::each && unit(b) < S::units; }

  // The inputs of a step that is computed ahead.
  __device__ static bool take_row(const Block& b, u32 step, u32 copy) {
    float* to = shared(S::x + copy * S::x_bytes);
    if constexpr (S::is_first) {
      const float* row = b.window + step * S::inputs;
      InHalves<kInputs>::template fill<S::threads, S::inputs>(b, to, [&](u32 i) { return load_word4(row + i); });
      return true;
    } else {
      return Inputs(b, S::in + step * S::in_pitch).template to_halves<kInputs>(b, to);
    }
  }

  // This warp's rows times its part of a vector.
  template <u32 kSteps, u32 kPadded, Weights kWhere, class W>
  __device__ static void add(const Block& b, const W& weights, const float* vector, Sums& sums) {
    // Every second column has what the halves leave.
    const u32 from = (b.warp / 2 * kSteps * 16 + b.lane % 4 * 4 + (b.lane / 4 % 2 ? kPadded : 0)) / 2;
    const u32* columns = reinterpret_cast<const u32*>(vector) + from;
#pragma unroll(kWhere == Weights::Registers ? kSteps : 4)
    for (u32 k = 0; k < kSteps; ++k) {
      const u32 low = columns[k * 8], high = columns[k * 8 + 1];
#pragma unroll
      for (u32 i = 0; i < S::each; ++i) multiply_halves(sums.of[i][k % 4], weights(i * kSteps + k, b.thread), low, high);
    }
  }

  // Both columns' sums of a row, to where the row's lane finds them. All threads meet.
  __device__ static void bring_together(const Block& b, const Sums& sums) {
    const auto of = [&](u32 i, u32 j) {
      const auto& four = sums.of[i];
      return (four[0][j] + four[1][j]) + (four[2][j] + four[3][j]);
    };
#pragma unroll
    for (u32 i = 0; i < S::each; ++i) {
      float* parts = shared(S::parts) + b.warp / 2 * kRows + 32 * i + b.warp % 2 * 16 + b.lane / 4;
      const float row = of(i, 0) + of(i, 1), other = of(i, 2) + of(i, 3);
      if (b.lane % 4 == 0) parts[0] = row, parts[8] = other;
    }
    sync_block();
  }
  __device__ static float whole_sum(const Block& b) {
    float sum = 0;
#pragma unroll
    for (u32 part = 0; part < kParts; ++part) sum += shared(S::parts)[part * kRows + b.thread];
    return sum;
  }
};

// The newest row, from block 0 to all, unless each has looked for it. S: threads, count, from, to.
template <class S>
struct GridRow {
  __device__ GridRow(const Block&, const Turn&) {}
  __device__ bool run(const Block& b, const Turn& turn) const {
    // Layers have been rehearsed where the next ones write.
    sync_block();
    if (b.rank == 0 && !b.rehearses && !is_near(turn))
      for (u32 i = b.thread; i < S::count; i += S::threads) publish(b, S::to, i, shared(S::from)[i]);
    return true;
  }
};

// The last layer's newest outputs, in block 0 alone. S: threads, count, bound, from, out.
template <class S>
struct GridOutputs {
  __device__ GridOutputs(const Block&, const Turn&) {}
  __device__ bool run(const Block& b) const {
    bool over = false;
    const auto put = [](u32 i, const float(&x)[4]) { *reinterpret_cast<Words4*>(shared(S::out) + i) = {x[0], x[1], x[2], x[3]}; };
    if (!b.rehearses) over = !TakenOutputs<S::threads, S::count, S::bound>(b, S::from).to(b, put);
    return !sync_block_or(over);
  }
};

// A dense layer of few rows, whose sums the blocks have parts of: in block 0 alone. S: threads, rows, parts (of a row), from, to (where they
// come), out, bias, function, alpha.
template <class S>
struct GridSums {
  __device__ GridSums(const Block&, const Turn&) {}
  __device__ bool run(const Block& b, const Turn& turn) const {
    bool over = false;
    if (!b.rehearses) over = !TakenUnits<S::threads, S::rows * S::parts>(b, S::from).to(b, shared(S::to));
    if (sync_block_or(over)) return false;
    for (u32 row = b.warp; row < S::rows; row += S::threads / 32) {
      float sum = 0;
      for (u32 part = b.lane; part < S::parts; part += 32) sum += shared(S::to)[row * S::parts + part];
      for (u32 mask = 16; mask; mask /= 2) sum += across_lanes(sum, mask);
      if (b.lane == 0) shared(S::out)[row] = apply<S::function>(sum + constant(turn.constants + S::bias + 4ull * row), S::alpha);
    }
    sync_block();
    return true;
  }
};

// The end of a round: block 0 puts the row, or the window that the call brought, where all read it, and says how it goes on. S: as NewRow;
// grid, scratch.
template <class S>
struct GridEnd {
  NewRow<S> row;
  __device__ GridEnd(const Block& b, const Turn& turn) : row(b, turn) {}

  __device__ bool run(Block& b, const Turn& turn) const {
    if (b.rank == 0) {
      row.run(b, turn);
      if (b.thread == 0) store_word8(b.grid + 8 * kGoesOn, u64(b.again) | u64(b.leaves) << 1);
    }
    b.tag = meet_on_grid<S::grid>(b, S::scratch);
    if (b.rank != 0) {
      const u64 goes_on = load_word8(b.grid + 8 * kGoesOn);
      b.again = goes_on & 1, b.leaves = goes_on & 2;
    }
    return b.tag != 0;
  }
};

}  // namespace resident
}  // namespace tickrt

// A stack of LSTM or GRU layers on more multiprocessors than one cluster has: a grid of blocks, each of which has units of every layer
// and their weights, in half precision. Blocks give each other what they compute through the device's memory, which is its L2 cache, with
// the round's tag beside it, stored whole, so who sees the tag has the rest. Relaxed loads of the device's scope pair with relaxed stores of
// it: the tag is in the word, and no other word is meant by it. Outputs of layers, which have a bound, go four by four, 24 bits each and the
// tag in 16 bytes, anything else as a unit: a word and the tag.
//
// A round is a call, or a call computed again. All blocks meet before each round, so whatever a round stores has been read by all that
// read it before the next one stores there; within a round nothing is stored twice.
//
// Steps that do not depend on the newest row are computed ahead, layer by layer; the newest one goes through all layers when its row is
// there. Tensor cores multiply: 16 rows of weights are one side of a product, the other is the vector, taken apart into what half precision
// has of it and what that leaves, side by side. Sums are f32, the vector has 22 bits within half precision's range.

namespace tickrt {
namespace resident {

// Of a round: never 0.
__device__ inline u32 tag_of(u64 meeting) { return u32(meeting) | 1u << 31; }

// Adds the block to those that have come to a meeting, waits for all of them, and tells how many meetings there have been; 0: some have not
// come in time, or no more come, because the round does not take place. One thread of each block.
template <u32 kBlocks>
__device__ u64 come_together(const Block& b, u32 word) {
  // What the block has written is there for who sees it come; what the others have written, for the block. The fences are the release and
  // the acquire.
  fence_device();
  const u64 all = (add_on_device(b.grid + 8 * word, 1) / kBlocks + 1) * kBlocks;
  for (u32 looks = 0; load_word8(b.grid + 8 * word) < all; ++looks) {
    if (is_over(b, looks)) return 0;
    rest(20);
  }
  fence_device();
  return all / kBlocks;
}

// The end of a round, for all blocks: the next one's tag, or 0. `scratch`: a word of shared memory.
template <u32 kBlocks>
__device__ u32 meet_on_grid(const Block& b, u32 scratch) {
  sync_block();
  if (b.thread == 0) {
    const u64 meeting = come_together<kBlocks>(b, kArrived);
    *shared(scratch) = as_float(meeting ? tag_of(meeting) : 0);
  }
  sync_block();
  return as_bits(*shared(scratch));
}

// Every block comes to the beginning of every turn once, so that this counter is never out of step. That of the rounds can be: some blocks may
// have come to a meeting that the others have left. Block 0 sets it right, and a meeting further, before any block begins.
template <u32 kBlocks>
__device__ Block begin_on_grid(const Turn& turn, u32 stop_word, u32 scratch) {
  Block b = begin(turn, stop_word, 0);
  b.rank = this_cluster();
  b.grid = turn.progress;
  // All have read which call comes next.
  sync_block();
  if (b.thread == 0) {
    if (b.rank == 0) {
      const u64 rounds = (load_word8(b.grid + 8 * kArrived) + kBlocks - 1) / kBlocks + 1;
      store_word8(b.grid + 8 * kArrived, rounds * kBlocks);
      store_word8(b.grid + 8 * kFirst, rounds);
    }
    const bool all = come_together<kBlocks>(b, kBegun) != 0;
    *shared(scratch) = as_float(all ? tag_of(load_word8(b.grid + 8 * kFirst)) : 0);
  }
  sync_block();
  b.tag = as_bits(*shared(scratch));
  return b;
}

// Whether each block may look for a call in the host's units, which then lie in the device's memory: through PCIe, looks at one line are
// served one after the other.
__device__ inline bool is_near(const Turn& turn) { return turn.flags & kInputNear; }

__device__ inline void publish(const Block& b, u32 units, u32 i, float x) {
  store_unit_of_device(b.state + units + 8ull * i, u64(b.tag) << 32 | as_bits(x));
}

// Outputs of a layer, within a power of two, as whole numbers of 2^-23 of that; the least number stands for what is none.
constexpr u32 kNotANumber = 0x800000;
template <u32 kBound>
__device__ u32 in_24_bits(float x) {
  const int whole = nearest(x * (8388608.f / kBound)), most = 0x7fffff;
  return x != x ? kNotANumber : u32(whole > most ? most : whole < -most ? -most : whole) & 0xffffff;
}
template <u32 kBound>
__device__ float of_24_bits(u32 bits) {
  return bits == kNotANumber ? as_float(0x7fc00000) : float(int(bits << 8)) * (kBound / 2147483648.f);
}
// Four outputs, of which each lane that stores has one and three are those of lanes 4, 8 and 12 further on.
template <u32 kBound>
__device__ void publish_outputs(const Block& b, u32 quads, u32 quad, float x) {
  const u32 mine = in_24_bits<kBound>(x);
  u32 of[4] = {mine};
#pragma unroll
  for (u32 i = 1; i < 4; ++i) of[i] = as_bits(from_lane(as_float(mine), (b.lane + 4 * i) % 32));
  if (b.lane % 16 != 0 || b.rehearses) return;
  const u32 last = of[3];
  store_quad_of_device(b.state + quads + 16ull * quad,
                       {{of[0] | last << 24, of[1] | (last >> 8 & 0xff) << 24, of[2] | (last >> 16) << 24, b.tag}});
}

// A vector in shared memory as tensor cores take it: kPadded halves, then as many of what they leave.
template <u32 kPadded>
struct InHalves {
  // Numbers i to i + 3. What half precision has not in its range is taken to its end; what is not a number stays that.
  __device__ static void put(float* to, u32 i, const float (&x)[4]) {
    const u32 first = as_halves(bounded(x[0]), bounded(x[1])), second = as_halves(bounded(x[2]), bounded(x[3]));
    u64* const there = reinterpret_cast<u64*>(to);
    there[i / 4] = u64(second) << 32 | first;
    there[(kPadded + i) / 4] = u64(left(second, x[2], x[3])) << 32 | left(first, x[0], x[1]);
  }
  // So many numbers; behind them zeros: layers of other sizes have left theirs there, and zero times infinity is none.
  template <u32 kThreads, u32 kCount, class Number>
  __device__ static void fill(const Block& b, float* to, const Number& number) {
    for (u32 i = 4 * b.thread; i < kPadded; i += 4 * kThreads) {
      const auto at = [&](u32 k) { return i + k < kCount ? number(i + k) : 0.f; };
      put(to, i, {at(0), at(1), at(2), at(3)});
    }
  }

 private:
  __device__ static float bounded(float x) { return x < -65504.f ? -65504.f : x > 65504.f ? 65504.f : x; }
  __device__ static u32 left(u32 two, float first, float second) {
    const TwoHalves there = halves(two);
    return as_halves(bounded(first) - there.first, bounded(second) - there.second);
  }
};

// So many units, by all threads of a block: two a load, all loads on their way before the first is looked at.
template <u32 kThreads, u32 kCount>
class TakenUnits {
 public:
  __device__ TakenUnits(const Block& b, u32 units) : from_(b.state + units + 16ull * b.thread) {
#pragma unroll
    for (u32 k = 0; k < kEach; ++k)
      if (has(b, k)) of_[k] = load_units_of_device(from_ + 16ull * kThreads * k);
  }
  // To shared memory, once they are there; false: the turn is over.
  __device__ bool to(const Block& b, float* numbers) {
    u32 looks = 0;
#pragma unroll
    for (u32 k = 0; k < kEach; ++k) {
      if (!has(b, k)) continue;
      const u32 i = 2 * (b.thread + k * kThreads);
      while (u32(of_[k].first >> 32) != b.tag || (i + 1 < kCount && u32(of_[k].second >> 32) != b.tag)) {
        if ((++looks & 15) == 15 && is_over(b, looks)) return false;
        of_[k] = load_units_of_device(from_ + 16ull * kThreads * k);
      }
      numbers[i] = as_float(u32(of_[k].first));
      if (i + 1 < kCount) numbers[i + 1] = as_float(u32(of_[k].second));
    }
    return true;
  }

 private:
  static constexpr u32 kPairs = (kCount + 1) / 2, kEach = (kPairs + kThreads - 1) / kThreads;
  __device__ static bool has(const Block& b, u32 k) { return b.thread + k * kThreads < kPairs; }
  u64 from_;
  Units of_[kEach];
};

// So many outputs of a layer, likewise, four a load.
template <u32 kThreads, u32 kCount, u32 kBound>
class TakenOutputs {
 public:
  __device__ TakenOutputs(const Block& b, u32 quads) : from_(b.state + quads + 16ull * b.thread) {
#pragma unroll
    for (u32 k = 0; k < kEach; ++k)
      if (has(b, k)) of_[k] = load_quad_of_device(from_ + 16ull * kThreads * k);
  }
  // Four by four to `put(i, numbers)`; those behind the last one are 0.
  template <class Put>
  __device__ bool to(const Block& b, const Put& put) {
    u32 looks = 0;
#pragma unroll
    for (u32 k = 0; k < kEach; ++k) {
      if (!has(b, k)) continue;
      while (of_[k].of[3] != b.tag) {
        if ((++looks & 15) == 15 && is_over(b, looks)) return false;
        of_[k] = load_quad_of_device(from_ + 16ull * kThreads * k);
      }
      const u32(&of)[4] = of_[k].of;
      const u32 last = of[0] >> 24 | of[1] >> 24 << 8 | of[2] >> 24 << 16;
      put(4 * (b.thread + k * kThreads), {number(of[0]), number(of[1]), number(of[2]), number(last)});
    }
    return true;
  }
  template <u32 kPadded>
  __device__ bool to_halves(const Block& b, float* vector) {
    for (u32 i = 4 * (kQuads + b.thread); i < kPadded; i += 4 * kThreads) InHalves<kPadded>::put(vector, i, {0.f, 0.f, 0.f, 0.f});
    return to(b, [&](u32 i, const float(&x)[4]) { InHalves<kPadded>::put(vector, i, x); });
  }

 private:
  static constexpr u32 kQuads = (kCount + 3) / 4, kEach = (kQuads + kThreads - 1) / kThreads;
  __device__ static bool has(const Block& b, u32 k) { return b.thread + k * kThreads < kQuads; }
  __device__ static float number(u32 word) { return of_24_bits<kBound>(word & 0xffffff); }
  u64 from_;
  Quad of_[kEach];
};

// The same block: addresses that follow from it are computed anew.
__device__ inline Block from_here(Block b) {
  from_here(b.state), from_here(b.rank), from_here(b.thread), from_here(b.warp), from_here(b.lane);
  return b;
}

// A layer. A block has 8 `each` units, 4 rows of each; of every 32 rows two warps have 16 each for one part of the inputs, two others for
// the next part. The parts of a sum meet in the first warps, which have a row a lane and compute gates.
//
// S: threads, blocks; steps, inputs, units, gru, each, bound (of its outputs), in_bound; is_first (it reads rows of the window, and then the newest one: `row`, in shared memory,
// or where it lies in `newest_in`'s units); in (outputs of the layer before, step by step), newest_in, out, newest_out (offsets in the device's
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

// A stack of LSTM or GRU layers on more multiprocessors than one cluster has: a grid of blocks, each of which has units of every layer
// and their weights, in half precision. Blocks give each other what they compute through the device's memory, which is its L2 cache: a
// unit is a number with the round's tag above it, stored whole, so who sees the tag has the number. A relaxed load of the device's scope
// pairs with a relaxed store of it; the tag is in the word, and no other word is meant by it.
//
// A round is a call, or a call computed again. All blocks meet before each round, so whatever a round stores has been read by all that
// read it before the next one stores there; within a round nothing is stored twice.
//
// Steps that do not depend on the newest row are computed ahead, layer by layer; the newest one goes through all layers when its row is
// there. Tensor cores multiply: 16 rows of weights are one side of a product, the other is the vector, taken apart into what half precision
// has of it and what that leaves, side by side. Sums are f32, the vector has 22 bits within half precision's range.

namespace tickrt {
namespace resident {

// All blocks of the grid; the number of the meeting, from which the round's tag is. 0: some have not come in time. `scratch`: a word of
// shared memory.
template <u32 kBlocks>
__device__ u32 meet_on_grid(const Block& b, u32 scratch) {
  sync_block();
  if (b.thread == 0) {
    // What the block has written is there for who sees it come; what the others have written, for the block. The fences are the release and
    // the acquire; the counter only grows, so that it needs no one to set it back.
    fence_device();
    const u64 all = (add_on_device(b.grid + 8 * kArrived, 1) / kBlocks + 1) * kBlocks;
    bool missing = false;
    for (u32 looks = 0; load_word8(b.grid + 8 * kArrived) < all && !missing; ++looks) {
      missing = (looks & 255) == 255 && nanoseconds() > b.until + kGrace;
      rest(20);
    }
    fence_device();
    *shared(scratch) = as_float(missing ? 0 : u32(all / kBlocks) | 1u << 31);
  }
  sync_block();
  return as_bits(*shared(scratch));
}

template <u32 kBlocks>
__device__ Block begin_on_grid(const Turn& turn, u32 stop_word, u32 scratch) {
  Block b = begin(turn, stop_word, 0);
  b.rank = this_cluster();
  b.grid = turn.progress;
  b.tag = meet_on_grid<kBlocks>(b, scratch);
  return b;
}

__device__ inline void publish(const Block& b, u32 units, u32 i, float x) {
  store_unit_of_device(b.state + units + 8ull * i, u64(b.tag) << 32 | as_bits(x));
}

// A vector in shared memory as tensor cores take it: kPadded halves, then as many of what they leave.
template <u32 kCount, u32 kPadded>
struct InHalves {
  // Numbers i and i + 1. What half precision has not in its range is taken to its end; what is not a number stays that.
  __device__ static void put(float* to, u32 i, float first, float second) {
    const u32 high = as_halves(bounded(first), bounded(second));
    const TwoHalves there = halves(high);
    reinterpret_cast<u32*>(to)[i / 2] = high;
    reinterpret_cast<u32*>(to)[(kPadded + i) / 2] = as_halves(bounded(first) - there.first, bounded(second) - there.second);
  }
  // Behind the last number: layers of other sizes have left theirs there, and zero times infinity is none.
  template <u32 kThreads>
  __device__ static void zeros_behind(const Block& b, float* to) {
    for (u32 i = (kCount + 1) / 2 * 2 + 2 * b.thread; i < kPadded; i += 2 * kThreads) put(to, i, 0.f, 0.f);
  }

 private:
  __device__ static float bounded(float x) { return x < -65504.f ? -65504.f : x > 65504.f ? 65504.f : x; }
};

// So many units, by all threads of a block: two a load, all loads on their way before the first is looked at.
template <u32 kThreads, u32 kCount>
class Taken {
 public:
  __device__ Taken(const Block& b, u32 units) : from_(b.state + units + 16ull * b.thread) {
#pragma unroll
    for (u32 k = 0; k < kEach; ++k)
      if (has(b, k)) of_[k] = load_units_of_device(from_ + 16ull * kThreads * k);
  }
  // Two by two to `put(i, first, second)`, once they are there; false: the turn is over. What is behind the last one is 0.
  template <class Put>
  __device__ bool to(const Block& b, const Put& put) {
    u32 looks = 0;
#pragma unroll
    for (u32 k = 0; k < kEach; ++k) {
      if (!has(b, k)) continue;
      const u32 i = 2 * (b.thread + k * kThreads);
      while (u32(of_[k].first >> 32) != b.tag || (i + 1 < kCount && u32(of_[k].second >> 32) != b.tag)) {
        if ((++looks & 15) == 15 && is_over(b, looks)) return false;
        of_[k] = load_units_of_device(from_ + 16ull * kThreads * k);
      }
      put(i, as_float(u32(of_[k].first)), i + 1 < kCount ? as_float(u32(of_[k].second)) : 0.f);
    }
    return true;
  }
  template <u32 kPadded>
  __device__ bool to_halves(const Block& b, float* vector) {
    InHalves<kCount, kPadded>::template zeros_behind<kThreads>(b, vector);
    return to(b, [&](u32 i, float first, float second) { InHalves<kCount, kPadded>::put(vector, i, first, second); });
  }

 private:
  static constexpr u32 kPairs = (kCount + 1) / 2, kEach = (kPairs + kThreads - 1) / kThreads;
  __device__ static bool has(const Block& b, u32 k) { return b.thread + k * kThreads < kPairs; }
  u64 from_;
  Units of_[kEach];
};

// The same block: addresses that follow from it are computed anew.
__device__ inline Block from_here(Block b) {
  from_here(b.state), from_here(b.rank), from_here(b.thread), from_here(b.warp), from_here(b.lane);
  return b;
}

// A layer. A block has 8 `each` units, 4 rows of each; of every 32 rows two warps have 16 each for one part of the inputs, two others for
// the next part. The parts of a sum meet in the first warps, which have a row a lane and compute gates.
//
// S: threads, blocks; steps, inputs, units, gru, each; is_first (it reads rows of the window, and then the newest of `newest_in`'s units); in
// (units of the layer before, step by step), newest_in, out, newest_out (offsets in the device's memory), in_pitch, out_pitch (bytes from step
// to step); weights (of a thread: for each 32 rows, of each 16 inputs of its part, what it has of the product), weights_each, where, kept;
// state_weights (likewise, of the state), state_weights_each, state_where; bias (units times: four of the rows), initial (units of the output,
// then of the cell); x (two copies of x_bytes: the vector in halves), h (one), newest (one of x's copies); parts (of sums), ahead (of each row
// its sum, and of each unit what was before).
template <class S>
struct GridLayer {
  static constexpr u32 kParts = S::threads / 64, kRows = 32 * S::each;
  static constexpr u32 kInput = (S::inputs + 16 * kParts - 1) / (16 * kParts), kState = (S::units + 16 * kParts - 1) / (16 * kParts);
  static constexpr u32 kInputs = kInput * kParts * 16, kUnits = kState * kParts * 16;
  // Those in registers are loaded for one layer at a time, and once more behind what is computed ahead: then there is room for them.
  using Kept = ThreadWeights<S::where == Weights::Registers ? Weights::Global : S::where, 4 * kInput * S::each, S::threads>;
  using InputWeights = ThreadWeights<S::where, 4 * kInput * S::each, S::threads>;
  using StateWeights = ThreadWeights<S::state_where, 4 * kState * S::each, S::threads>;
  using Row = Taken<S::threads, S::inputs>;
  using State = Taken<S::threads, S::units>;
  // Of four products, one behind the other, each goes on where it left off: it need not wait for those before.
  struct Sums {
    float of[S::each][4][4];
  };

  Kept kept;
  float bias;

  __device__ GridLayer(const Block& b, const Turn& turn)
      : kept(b, turn, at(b), S::kept),
        bias(has_row(b) ? constant(turn.constants + S::bias + 4ull * (unit(b) * 4 + b.lane % 4)) : 0.f) {}

  // What the newest step wants: made behind what is computed ahead.
  __device__ auto in_time(const Block& b, const Turn& turn) const { return input_weights(from_here(b), turn); }

  // All steps but the newest, and the state's part of that.
  __device__ bool run_ahead(const Block& block, const Turn& turn) const {
    const Block b = from_here(block);
    const auto weights = input_weights(b, turn);
    const StateWeights state_weights(b, turn, S::state_weights + u64(b.rank) * S::state_weights_each, 0);
    const auto initial = [&](u32 i) { return i < S::units ? constant(turn.constants + S::initial + 4ull * i) : 0.f; };
    for (u32 i = 2 * b.thread; i < kUnits; i += 2 * S::threads)
      InHalves<S::units, kUnits>::put(shared(S::h), i, initial(i), initial(i + 1));
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
          if (b.lane % 4 == 0 && has_row(b)) publish(b, S::out + step * S::out_pitch, unit(b), h);
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
  __device__ bool run(const Block& block, const W& weights) const {
    const Block b = from_here(block);
    bool over = false;
    float* x = shared(S::newest);
    if (!b.rehearses) over = !Row(b, S::newest_in).template to_halves<kInputs>(b, x);
    if (sync_block_or(over)) return false;
    Sums sums{};
    add<kInput, kInputs, S::where>(b, weights, x, sums);
    bring_together(b, sums);
    if (b.warp < S::each) {
      float before = shared(S::ahead)[kRows + b.thread], h = before;
      gates<S::gru>(b, whole_sum(b) + shared(S::ahead)[b.thread], b.lane / 4 * 4, h, before);
      if (b.lane % 4 == 0 && has_row(b) && !b.rehearses) publish(b, S::newest_out, unit(b), h);
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
      const auto at = [&](u32 i) { return i < S::inputs ? load_word4(row + i) : 0.f; };
      for (u32 i = 2 * b.thread; i < kInputs; i += 2 * S::threads) InHalves<S::inputs, kInputs>::put(to, i, at(i), at(i + 1));
      return true;
    } else {
      return Row(b, S::in + step * S::in_pitch).template to_halves<kInputs>(b, to);
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

// The newest row, from block 0 to all. S: threads, count, from, to.
template <class S>
struct GridRow {
  __device__ GridRow(const Block&, const Turn&) {}
  __device__ bool run(const Block& b) const {
    // Layers have been rehearsed where the next ones write.
    if (b.rank != 0) sync_block();
    if (b.rank == 0 && !b.rehearses)
      for (u32 i = b.thread; i < S::count; i += S::threads) publish(b, S::to, i, shared(S::from)[i]);
    return true;
  }
};

// The last layer's newest units, in block 0 alone. S: threads, count, from, out.
template <class S>
struct GridAnswer {
  __device__ GridAnswer(const Block&, const Turn&) {}
  __device__ bool run(const Block& b) const {
    bool over = false;
    const auto put = [](u32 i, float first, float second) { shared(S::out)[i] = first, shared(S::out)[i + 1] = second; };
    if (!b.rehearses) over = !Taken<S::threads, S::count>(b, S::from).to(b, put);
    return !sync_block_or(over);
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

// A stack of LSTM or GRU layers on more multiprocessors than one cluster has: a grid of blocks, each of which has units of every layer
// and their weights, in half precision. Blocks give each other what they compute through the device's memory, which is its L2 cache: a
// unit is a number with the round's tag above it, stored whole, so who sees the tag has the number. A relaxed load of the device's scope
// pairs with a relaxed store of it; the tag is in the word, and no other word is meant by it.
//
// A round is a call, or a call computed again. All blocks meet before each round, so whatever a round stores has been read by all that
// read it before the next one stores there; within a round nothing is stored twice.
//
// Steps that do not depend on the newest row are computed ahead, layer by layer; the newest one goes through all layers when its row is
// there. A warp has a unit, its lanes the inputs: its four sums, its gates and the store follow without meeting another warp.

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

// Behind so many numbers up to a multiple of what the lanes of a warp take: layers of other sizes have left theirs there, and zero times
// infinity is none.
template <u32 kThreads, u32 kCount>
__device__ void zeros_behind(const Block& b, float* numbers) {
  for (u32 i = kCount + b.thread; i < (kCount + 127) / 128 * 128; i += kThreads) numbers[i] = 0;
}

// So many units, by all threads of a block: two a load, all loads on their way before the first is looked at.
template <u32 kThreads, u32 kCount>
class Taken {
 public:
  __device__ Taken(const Block& b, u32 units) : from_(b.state + units + 16ull * b.thread) {
#pragma unroll
    for (u32 k = 0; k < kEach; ++k)
      if (has(b, k)) of_[k] = load_units_of_device(from_ + 16ull * kThreads * k);
  }
  // To shared memory once they are there; false: the turn is over. All threads of the block meet behind it before they read.
  __device__ bool put(const Block& b, float* to) {
    u32 looks = 0;
#pragma unroll
    for (u32 k = 0; k < kEach; ++k) {
      if (!has(b, k)) continue;
      const u32 i = 2 * (b.thread + k * kThreads);
      while (u32(of_[k].first >> 32) != b.tag || (i + 1 < kCount && u32(of_[k].second >> 32) != b.tag)) {
        if ((++looks & 15) == 15 && is_over(b, looks)) return false;
        of_[k] = load_units_of_device(from_ + 16ull * kThreads * k);
      }
      to[i] = as_float(u32(of_[k].first));
      if (i + 1 < kCount) to[i + 1] = as_float(u32(of_[k].second));
    }
    zeros_behind<kThreads, kCount>(b, to);
    return true;
  }

 private:
  static constexpr u32 kPairs = (kCount + 1) / 2, kEach = (kPairs + kThreads - 1) / kThreads;
  __device__ static bool has(const Block& b, u32 k) { return b.thread + k * kThreads < kPairs; }
  u64 from_;
  Units of_[kEach];
};

// S: threads, blocks; steps, inputs, units, gru; each (units of a warp); is_first (it reads rows of the window, and the newest of `newest_in`'s
// units); in (units of the layer before: step by step), newest_in, out, newest_out (offsets in the device's memory), in_pitch, out_pitch (bytes
// from step to step); weights (of a thread: of each of its units, of every 128 inputs four of each gate's), weights_each, where, kept;
// state_weights (likewise, of the state), state_weights_each, state_where; bias (units times: four of the rows), initial (units of the output,
// then of the cell); x, h (two copies of x_bytes and h_bytes), newest (one of x's copies); ahead (8 numbers
// for each of the block's units).
template <class S>
struct GridLayer {
  static constexpr u32 kWarps = S::threads / 32;
  static constexpr u32 kInput = (S::inputs + 127) / 128, kState = (S::units + 127) / 128;
  using InputWeights = ThreadWeights<S::where, 8 * kInput * S::each, S::threads>;
  using StateWeights = ThreadWeights<S::state_where, 8 * kState * S::each, S::threads>;
  using Row = Taken<S::threads, S::inputs>;

  InputWeights weights;
  float bias[S::each];

  __device__ GridLayer(const Block& b, const Turn& turn) : weights(b, turn, S::weights + u64(b.rank) * S::weights_each, S::kept) {
#pragma unroll
    for (u32 i = 0; i < S::each; ++i)
      bias[i] = unit(b, i) < S::units ? constant(turn.constants + S::bias + 4ull * (unit(b, i) * 4 + b.lane % 4)) : 0.f;
  }

  // All steps but the newest, and the state's part of that.
  __device__ bool run_ahead(const Block& b, const Turn& turn) const {
    const StateWeights state_weights(b, turn, S::state_weights + u64(b.rank) * S::state_weights_each, 0);
    float h[S::each], c[S::each], projected[S::each];
    for (u32 i = b.thread; i < S::units; i += S::threads) shared(S::h)[i] = constant(turn.constants + S::initial + 4ull * i);
    zeros_behind<S::threads, S::units>(b, shared(S::h));
#pragma unroll
    for (u32 i = 0; i < S::each; ++i) {
      const bool there = unit(b, i) < S::units;
      h[i] = there ? constant(turn.constants + S::initial + 4ull * unit(b, i)) : 0.f;
      c[i] = there && !S::gru ? constant(turn.constants + S::initial + 4ull * (S::units + unit(b, i))) : 0.f;
    }
    bool over;
    if constexpr (S::is_first) {
      take_row(b, 0);
      over = false;
    } else {
      over = !Row(b, S::in).put(b, shared(S::x));
    }
    if (sync_block_or(over)) return false;
    project(b, shared(S::x), projected);
#pragma unroll 1
    for (u32 step = 0; step < S::steps; ++step) {
      const u32 copy = step & 1, next = (step + 1) & 1;
      float* state = shared(S::h + copy * S::h_bytes);
      const bool has_next = step + 2 < S::steps;
      over = false;
      if (step > 0) {
        Taken<S::threads, S::units> taken(b, S::out + (step - 1) * S::out_pitch);
        over = !next_row(b, has_next, step + 1, next) || !taken.put(b, state);
      } else {
        over = !next_row(b, has_next, step + 1, next);
      }
      if (sync_block_or(over)) return false;
#pragma unroll
      for (u32 i = 0; i < S::each; ++i) {
        const float sum = times<kState>(b, state_weights, i, state) + projected[i];
        if (step + 1 == S::steps) {
          keep(b, i, sum, S::gru ? h[i] : c[i]);
          continue;
        }
        gates<S::gru>(b, sum, 0, h[i], c[i]);
        if (b.lane == 0 && unit(b, i) < S::units) publish(b, S::out + step * S::out_pitch, unit(b, i), h[i]);
      }
      // While the other blocks' units come.
      if (has_next) {
        project(b, shared(S::x + next * S::x_bytes), projected);
      } else {
#pragma unroll
        for (u32 i = 0; i < S::each; ++i) projected[i] = bias[i];
      }
    }
    // The next layer writes where this one reads.
    sync_block();
    return true;
  }

  // The newest step.
  __device__ bool run(const Block& b) const {
    bool over = false;
    float* x = shared(S::newest);
    if (!b.rehearses) over = !Row(b, S::newest_in).put(b, x);
    if (sync_block_or(over)) return false;
#pragma unroll
    for (u32 i = 0; i < S::each; ++i) {
      const float* kept = shared(S::ahead) + 8 * own(b, i);
      float h = kept[4], c = kept[4];
      gates<S::gru>(b, times<kInput>(b, weights, i, x) + kept[b.lane % 4], 0, h, c);
      if (b.lane == 0 && unit(b, i) < S::units && !b.rehearses) publish(b, S::newest_out, unit(b, i), h);
    }
    return true;
  }

 private:
  __device__ static u32 own(const Block& b, u32 i) { return i * kWarps + b.warp; }
  __device__ static u32 unit(const Block& b, u32 i) { return b.rank * kWarps * S::each + own(b, i); }

  __device__ static void keep(const Block& b, u32 i, float sum, float before) {
    float* kept = shared(S::ahead) + 8 * own(b, i);
    if (b.lane < 4) kept[b.lane] = sum;
    if (b.lane == 4) kept[4] = before;
  }

  __device__ static bool next_row(const Block& b, bool there_is, u32 step, u32 copy) {
    if (!there_is) return true;
    if constexpr (S::is_first) {
      take_row(b, step, copy);
      return true;
    } else {
      return Row(b, S::in + step * S::in_pitch).put(b, shared(S::x + copy * S::x_bytes));
    }
  }
  __device__ static void take_row(const Block& b, u32 step, u32 copy = 0) {
    float* to = shared(S::x + copy * S::x_bytes);
    for (u32 i = b.thread; i < S::inputs; i += S::threads) to[i] = load_word4(b.window + step * S::inputs + i);
    zeros_behind<S::threads, S::inputs>(b, to);
  }

  __device__ void project(const Block& b, const float* x, float (&projected)[S::each]) const {
#pragma unroll
    for (u32 i = 0; i < S::each; ++i) projected[i] = times<kInput>(b, weights, i, x) + bias[i];
  }

  // A unit's four rows times x: each lane is left with the sum of gate lane % 4.
  template <u32 kFours, class W>
  __device__ static float times(const Block& b, const W& weights, u32 i, const float* x) {
    float a[4] = {};
#pragma unroll
    for (u32 k = 0; k < kFours; ++k) {
      const Words4 v = reinterpret_cast<const Words4*>(x)[k * 32 + b.lane];
      const Words4 low = weights(2 * (i * kFours + k), b.thread), high = weights(2 * (i * kFours + k) + 1, b.thread);
      add_halves(a[0], low.x, low.y, v);
      add_halves(a[1], low.z, low.w, v);
      add_halves(a[2], high.x, high.y, v);
      add_halves(a[3], high.z, high.w, v);
    }
    return of_gate<32>(b, a);
  }
  __device__ static void add_halves(float& a, float w01, float w23, const Words4& v) {
    const TwoHalves low = halves(as_bits(w01)), high = halves(as_bits(w23));
    a = fmaf(low.first, v.x, a), a = fmaf(low.second, v.y, a);
    a = fmaf(high.first, v.z, a), a = fmaf(high.second, v.w, a);
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
    if (!b.rehearses) over = !Taken<S::threads, S::count>(b, S::from).put(b, shared(S::out));
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

// A vector times a matrix, its inputs shared out over the blocks: each block multiplies its share of the inputs with all rows
// and sends the parts of each sum to the block that has the row in its share of the result, which adds them up. One exchange
// a layer, no shuffles where a thread has a row. Where every block has all of the inputs, it multiplies them with its own rows: no exchange.

namespace tickrt {
namespace resident {

enum class Weights : u32 { Registers, Shared, Global };

// The weights of one thread, four by four: `count` of them, thread by thread in the constants; in half precision eight by eight there.
template <Weights kWhere, u32 kCount, u32 kThreads, bool kHalf = false>
class ThreadWeights {
 public:
  // `at`: bytes into the constants, this block's; `kept`: where in shared memory.
  __device__ ThreadWeights(const Block& b, const Turn& turn, u64 at, u32 kept) : ThreadWeights(turn, at, kept, b.thread) {}
  // Where several threads have the same weights, `thread` is one of kThreads.
  __device__ ThreadWeights(const Turn& turn, u64 at, u32 kept, u32 thread) : at_(turn.constants + at), kept_(kept) {
    for (u32 k = 0; k < kLoads; ++k) {
      if (kWhere == Weights::Global) continue;
      const Words4 w = constant4(at_ + 16ull * (k * kThreads + thread));
      if (kWhere == Weights::Registers) registers_[k] = w;
      if (kWhere == Weights::Shared) reinterpret_cast<Words4*>(shared(kept))[k * kThreads + thread] = w;
    }
  }
  __device__ Words4 operator()(u32 k, u32 thread) const {
    if constexpr (!kHalf) {
      return loaded(k, thread);
    } else {
      const Words4 w = loaded(k / 2, thread);
      const TwoHalves low = halves_here(as_bits(k % 2 ? w.z : w.x)), high = halves_here(as_bits(k % 2 ? w.w : w.y));
      return {low.first, low.second, high.first, high.second};
    }
  }

 private:
  static constexpr u32 kLoads = kHalf ? (kCount + 7) / 8 : kCount / 4;
  __device__ Words4 loaded(u32 k, u32 thread) const {
    if (kWhere == Weights::Registers) return registers_[k];
    if (kWhere == Weights::Shared) return reinterpret_cast<const Words4*>(shared(kept_))[k * kThreads + thread];
    return constant4(at_ + 16ull * (k * kThreads + thread));
  }
  Words4 registers_[kWhere == Weights::Registers ? kLoads : 1];
  u64 at_;
  u32 kept_;
};

// S: threads, blocks; direct (every block has all inputs, and needs no parts from others: one block, too); inputs, each_in (of a block), in; rows, each_out,
// out; senders (blocks that have a share of the inputs; one that needs none); parts (lanes
// that share a row: each has every parts-th four of the block's inputs), k (inputs of a lane), rows_each (of a thread),
// together (rows beside each other that a thread sends at once); wide (few rows: a warp has one, its lanes the
// inputs); half (weights are in half precision); weights, weights_each (offset in the constants, and by how much that of the next block is further), where, kept;
// bias (offset in the constants); received (where parts arrive), received_bytes (of one copy), barriers; function, alpha;
// sums_only (somebody else adds the parts up: RecurrentStep); softmax (over the rows, which are few, all of one block, and have no function).
template <class S>
struct Dense {
  static constexpr u32 kColumns = S::threads / S::parts;  // rows at a time
  static constexpr u32 kParts = S::senders;               // of one sum
  static constexpr u32 kLanes = S::wide ? (S::each_in + 31) / 32 : 0;  // inputs of a lane
  // Lanes that add up one row, where that lets one warp do all of it.
  static constexpr u32 kAdders = (S::each_out == 8 || S::each_out == 16 || S::each_out == 4) ? 32 / S::each_out : 1;

  // Whoever has the sum writes the result.
  static constexpr bool kDirect = !S::sums_only && S::direct;
  // Rows that a thread finishes.
  static constexpr u32 kOwn = S::wide && kDirect ? S::warps_rows : kDirect ? S::rows_each : (S::each_out + S::threads - 1) / S::threads;

  ThreadWeights<S::where, S::wide ? 4 * ((S::warps_rows * kLanes + 3) / 4) : S::rows_each * S::k, S::threads, S::half> weights;
  float bias[kOwn];

  __device__ Dense(const Block& b, const Turn& turn)
      : weights(b, turn, S::weights + u64(b.rank) * S::weights_each, S::kept) {
#pragma unroll
    for (u32 i = 0; i < kOwn; ++i) {
      const u32 row = b.rank * S::each_out + own_row(b, i);
      bias[i] = row < S::rows ? constant(turn.constants + S::bias + 4ull * row) : 0.f;
    }
  }
  __device__ static u32 row_of(u32 column, u32 i) {
    return i / S::together * (kColumns * S::together) + column * S::together + i % S::together;
  }
  // The row of this block's share that the thread finishes as its number i.
  __device__ static u32 own_row(const Block& b, u32 i) {
    if (kDirect && S::wide) return b.warp + i * (S::threads / 32);
    if (kDirect) return row_of(b.thread / S::parts, i);
    return kAdders > 1 ? b.thread % S::each_out : b.thread + i * S::threads;
  }
  __device__ static void arm(const Block& b) {
    if (!S::direct && b.thread == 0) {
      const u32 bytes = share(b) * kParts * 4;
      if (bytes) expect(S::barriers, bytes), expect(S::barriers + 8, bytes);
    }
  }
  // Rows of this block.
  __device__ static u32 share(const Block& b) { return own_share(b, S::each_out, S::rows); }

  __device__ bool run(const Block& b) const {
    if (S::wide) multiply_wide(b); else multiply(b);
    if (kDirect) {
      sync_block();
      return true;
    }
    bool over = false;
    const u32 own = share(b);
    if (own && b.thread < (S::each_out * kAdders + 31) / 32 * 32) {
      over = !wait(b, S::barriers, own * kParts * 4);
#pragma unroll
      for (u32 i = 0; i < kOwn; ++i) add(b, own, i);
    }
    return !sync_block_or(over);
  }

  __device__ void multiply(const Block& b) const {
    if (!S::direct && b.rank >= S::senders) return;
    const u32 part = b.thread % S::parts, column = b.thread / S::parts;
    // Lanes beside each other read fours beside each other: no two from one bank.
    const Words4* x = reinterpret_cast<const Words4*>(shared(S::in)) + part;
    float a[S::rows_each] = {}, c[S::rows_each] = {};
#pragma unroll
    for (u32 k = 0; k < S::k / 4; ++k) {
      const Words4 v = x[k * S::parts];
#pragma unroll
      for (u32 i = 0; i < S::rows_each; ++i) {
        const Words4 w = weights(i * (S::k / 4) + k, b.thread);
        a[i] = fmaf(w.x, v.x, a[i]), c[i] = fmaf(w.y, v.y, c[i]);
        a[i] = fmaf(w.z, v.z, a[i]), c[i] = fmaf(w.w, v.w, c[i]);
      }
    }
#pragma unroll
    for (u32 i = 0; i < S::rows_each; ++i) {
      a[i] += c[i];
      for (u32 mask = 1; mask < S::parts; mask *= 2) a[i] += across_lanes(a[i], mask);
    }
    if (part != 0) return;
#pragma unroll
    for (u32 i = 0; i < S::rows_each; i += S::together) {
      const u32 row = row_of(column, i);
      if (row >= (S::direct ? share(b) : S::rows)) continue;
      if (kDirect)
        finish(row, a[i], bias[i < kOwn ? i : 0]);
      else
        hand_over<S::together>(b, row, S::direct ? 0 : b.rank, &a[i]);
    }
  }

 private:
  __device__ void multiply_wide(const Block& b) const {
    if (b.rank >= S::senders) return;
#pragma unroll
    for (u32 i = 0; i < S::warps_rows; ++i) {
      const u32 row = b.warp + i * (S::threads / 32);
      float a = 0;
#pragma unroll
      for (u32 j = 0; j < kLanes; ++j) {
        const u32 n = i * kLanes + j;
        const Words4 w = weights(n / 4, b.thread);
        const float of_four[4] = {w.x, w.y, w.z, w.w};
        if (j * 32 + b.lane < S::each_in) a = fmaf(of_four[n % 4], shared(S::in)[j * 32 + b.lane], a);
      }
      for (u32 mask = 16; mask; mask /= 2) a += across_lanes(a, mask);
      if (row >= S::rows || b.lane != 0) continue;
      if (kDirect)
        finish(row, a, bias[i < kOwn ? i : 0]);
      else
        hand_over<1>(b, row, b.rank, &a);
    }
  }

  // Rows that are sent together lie in one share.
  template <u32 kRows>
  __device__ static void hand_over(const Block& b, u32 row, u32 part, const float* x) {
    const u32 owner = row / S::each_out, place = row % S::each_out;
    const u32 at = S::received + 4 * (part * S::each_out + place);
    const u32 there = at + b.copy() * S::received_bytes, barrier = S::barriers + 8 * b.copy();
    if (b.rehearses) return;
    if (S::direct)
      for (u32 i = 0; i < kRows; ++i) shared(at)[i] = x[i];
    else if (kRows == 4)
      send4(peer(owner), there, barrier, {x[0], x[kRows > 1 ? 1 : 0], x[kRows > 2 ? 2 : 0], x[kRows > 3 ? 3 : 0]});
    else if (kRows == 2)
      send2(peer(owner), there, barrier, x[0], x[kRows > 1 ? 1 : 0]);
    else
      send(peer(owner), there, barrier, x[0]);
  }

  __device__ static void finish(u32 row, float sum, float bias) { shared(S::out)[row] = apply<S::function>(sum + bias, S::alpha); }

  // In an order that never changes.
  __device__ void add(const Block& b, u32 own, u32 i) const {
    const u32 row = own_row(b, i), adder = kAdders > 1 ? b.thread / S::each_out : 0;
    const float* parts = shared(S::received + b.copy() * S::received_bytes) + row;
    float a[4] = {};
    if (adder < kAdders && row < own) {
#pragma unroll
      for (u32 k = 0; k < (kParts + kAdders - 1) / kAdders; ++k) {
        const u32 part = k * kAdders + adder;
        if (part < kParts) a[k % 4] += parts[part * S::each_out];
      }
    }
    float all = (a[0] + a[1]) + (a[2] + a[3]);
    if (kAdders > 1)
      for (u32 mask = S::each_out; mask < 32; mask *= 2) all += across_lanes(all, mask);
    if constexpr (S::softmax) {
      const float x = softmax_across_lanes<S::rows>(all + bias[i]);
      if (adder == 0 && row < own) shared(S::out)[row] = x;
    } else {
      if (adder == 0 && row < own) finish(row, all, bias[i]);
    }
  }
};

}  // namespace resident
}  // namespace tickrt

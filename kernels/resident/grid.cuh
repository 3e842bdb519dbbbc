// A grid: more blocks than one cluster has, each a cluster of its own. They give each other what they compute through the device's memory,
// which is its L2 cache, with the round's tag beside it, stored whole, so who sees the tag has the rest. Relaxed loads of the device's scope pair with relaxed stores of
// it: the tag is in the word, and no other word is meant by it. Outputs of layers, which have a bound, go four by four, 24 bits each and the
// tag in 16 bytes, anything else as a unit: a word and the tag.
//
// A round is a call, or a call computed again. All blocks meet before each round, so whatever a round stores has been read by all that
// read it before the next one stores there; within a round nothing is stored twice.

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

}  // namespace resident
}  // namespace tickrt

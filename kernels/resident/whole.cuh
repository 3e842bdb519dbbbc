// Stages that read whole values and write the block's share of theirs, and what brings the shares together.

namespace tickrt {
namespace resident {

// Instead of the bytes of a copy: the value lies in the block's part of the device's memory; it is the window.
constexpr u32 kInState = ~0u, kIsWindow = ~0u - 1;
__device__ inline float* in_state(const Block& b, u32 offset) { return reinterpret_cast<float*>(b.state + offset); }

// Where a value lies that is whole in every block: by copy where others send it.
template <u32 kOffset, u32 kCopyBytes>
__device__ const float* whole(const Block& b) {
  if (kCopyBytes == kInState) return in_state(b, kOffset);
  if (kCopyBytes == kIsWindow) return b.window;
  return shared(kOffset + (kCopyBytes ? b.copy() * kCopyBytes : 0));
}

// Each block's share, sent to all. S: threads, blocks; count, each (a multiple of 4, or all of it in block 0), from, to,
// to_bytes (of one copy), barriers; row, row_pitch, plane, plane_pitch (floats; where they differ rows lie apart, with zeros
// between them).
template <class S>
struct Gather {
  static constexpr u32 kBytes = (S::count + 3) / 4 * 16;

  __device__ Gather(const Block&, const Turn&) {}
  __device__ static void arm(const Block& b) {
    if (b.thread == 0) expect(S::barriers, kBytes), expect(S::barriers + 8, kBytes);
  }
  __device__ bool run(const Block& b) const {
    const u32 before = b.rank * S::each;
    const u32 own = own_share(b, S::each, S::count);
    for (u32 i = b.thread; i < (own + 3) / 4 * S::blocks && !b.rehearses; i += S::threads) {
      const u32 chunk = i / S::blocks;
      // Not all blocks begin with the same receiver.
      const u32 block = (i + b.rank) % S::blocks;
      const Words4 v = reinterpret_cast<const Words4*>(shared(S::from))[chunk];
      send4(peer(block), S::to + b.copy() * S::to_bytes + 4 * place(before + 4 * chunk), S::barriers + 8 * b.copy(), v);
    }
    return !sync_block_or(!wait(b, S::barriers, kBytes));
  }
  // Where element i lies at its receivers.
  __device__ static constexpr u32 place(u32 i) {
    if (S::plane_pitch == S::plane) return i;
    return i / S::plane * S::plane_pitch + i % S::plane / S::row * S::row_pitch + i % S::row;
  }
};

// The same of long shares: each is laid out as its receivers have it, with zeros between rows, and goes to each of them as one
// run. 4096 floats to 16 blocks are 16 runs of a block instead of 1024 messages.
//
// S: as above; staged, staged_bytes (of one copy: where the block's share is laid out).
template <class S>
struct GatherRuns {
  __device__ static constexpr u32 place(u32 i) { return Gather<S>::place(i); }
  // Floats of a block's share, whole fours.
  __device__ static constexpr u32 fours(u32 rank) {
    const u32 before = rank * S::each;
    const u32 left = before >= S::count ? 0 : S::count - before;
    return ((left < S::each ? left : S::each) + 3) / 4 * 4;
  }
  __device__ static constexpr u32 bytes(u32 rank) {
    return fours(rank) ? (place(rank * S::each + fours(rank) - 4) + 4 - place(rank * S::each)) * 4 : 0;
  }
  __device__ static constexpr u32 all_bytes() {
    u32 all = 0;
    for (u32 rank = 0; rank < S::blocks; ++rank) all += bytes(rank);
    return all;
  }
  static constexpr u32 kBytes = all_bytes();

  __device__ GatherRuns(const Block&, const Turn&) {}
  __device__ static void arm(const Block& b) {
    if (b.thread == 0) expect(S::barriers, kBytes), expect(S::barriers + 8, kBytes);
  }
  __device__ bool run(const Block& b) const {
    const u32 before = b.rank * S::each, begin = place(before), staged = S::staged + b.copy() * S::staged_bytes;
    for (u32 i = 4 * b.thread; i < fours(b.rank) && !b.rehearses; i += 4 * S::threads)
      *reinterpret_cast<Words4*>(shared(staged) + place(before + i) - begin) = *reinterpret_cast<const Words4*>(shared(S::from) + i);
    written_for_runs();
    sync_block();
    // Not all blocks begin with the same receiver.
    if (b.thread < S::blocks && bytes(b.rank) && !b.rehearses)
      send_run(peer((b.thread + b.rank) % S::blocks), S::to + b.copy() * S::to_bytes + 4 * begin, S::barriers + 8 * b.copy(), staged,
               bytes(b.rank));
    return !sync_block_or(!wait(b, S::barriers, kBytes));
  }
};

// Blocks of which block 0 hears nothing in a call tell it that they have come to its end: two calls further it would write over what they
// have not read.
//
// S: threads, blocks, heard (blocks that it hears anyhow), acknowledged (a word of each of the others, for each copy), barriers.
template <class S>
struct Acknowledge {
  static constexpr u32 kOthers = S::blocks - S::heard, kBytes = 4 * kOthers;

  __device__ Acknowledge(const Block&, const Turn&) {}
  __device__ static void arm(const Block& b) {
    if (b.is_first_thread()) expect(S::barriers, kBytes), expect(S::barriers + 8, kBytes);
  }
  __device__ bool run(const Block& b) const {
    sync_block();
    if (b.rank >= S::heard && b.thread == 0)
      send(peer(0), S::acknowledged + 4 * (b.copy() * kOthers + b.rank - S::heard), S::barriers + 8 * b.copy(), 0.f);
    return !sync_block_or(b.rank == 0 && !wait(b, S::barriers, kBytes));
  }
};

// Numbers from the model, in shared memory where they fit, else from the constants through the cache.
template <bool kKept>
struct Numbers {
  u64 at;
  u32 kept;
  template <u32 kThreads>
  __device__ static Numbers load(const Block& b, const Turn& turn, u64 offset, u32 kept, u32 count) {
    if (kKept)
      for (u32 i = b.thread; i < count; i += kThreads) shared(kept)[i] = constant(turn.constants + offset + 4ull * i);
    return {turn.constants + offset, kept};
  }
  __device__ float operator[](u32 i) const { return kKept ? shared(kept)[i] : constant(at + 4ull * i); }
};

// What every stage here has: its elements are computed one by one, each block those of its share. S: threads, blocks, count,
// each, out.
template <class S, class Element>
__device__ void for_own_elements(const Block& b, Element element) {
  const u32 before = b.rank * S::each;
  for (u32 i = b.thread; i < S::each && before + i < S::count; i += S::threads) shared(S::out)[i] = element(before + i);
}

// A convolution, and a maximum or mean over windows of its results that do not overlap. S: as above; in, in_bytes (of one
// copy; 0: there is one), groups, group_channels, group_outputs, rows, columns (of the input), kernel_rows, kernel_columns,
// stride_rows, stride_columns, dilation_rows, dilation_columns, before_rows, before_columns; out_columns (of the result
// before pooling), pool_rows, pool_columns, pool_step_rows, pool_step_columns, pools (0: no, 1: the greatest, 2: the mean);
// pooled_columns, pooled (places of a channel of what is written); weights, bias (offsets in the constants), weights_kept,
// is_kept; function, alpha.
template <class S>
struct Conv {
  static constexpr u32 kTaps = S::group_channels * S::kernel_rows * S::kernel_columns;
  static constexpr u32 kOutputs = S::count / S::pooled;
  Numbers<S::is_kept> weights;

  __device__ Conv(const Block& b, const Turn& turn)
      : weights(Numbers<S::is_kept>::template load<S::threads>(b, turn, S::weights, S::weights_kept, kOutputs * (kTaps + 1))) {}

  __device__ bool run(const Block& b) const {
    const float* in = whole<S::in, S::in_bytes>(b);
    for_own_elements<S>(b, [&](u32 i) {
      const u32 channel = i / S::pooled, place = i % S::pooled;
      const int row = int(place / S::pooled_columns * S::pool_step_rows), column = int(place % S::pooled_columns * S::pool_step_columns);
      float pooled = 0;
#pragma unroll
      for (int r = 0; r < int(S::pool_rows); ++r) {
#pragma unroll
        for (int c = 0; c < int(S::pool_columns); ++c) {
          const float x = apply<S::function>(at(in, channel, row + r, column + c), S::alpha);
          pooled = r + c == 0 ? x : S::pools == 2 ? pooled + x : x > pooled || x != x ? x : pooled;
        }
      }
      return S::pools == 2 ? pooled / float(S::pool_rows * S::pool_columns) : pooled;
    });
    sync_block();
    return true;
  }

 private:
  __device__ float at(const float* in, u32 channel, int row, int column) const {
    const u32 first = channel / S::group_outputs * S::group_channels;
    const int top = row * int(S::stride_rows) - int(S::before_rows), left = column * int(S::stride_columns) - int(S::before_columns);
    // Two sums, so that one need not wait for the other.
    float a[2] = {weights[kOutputs * kTaps + channel], 0};
    for (u32 c = 0; c < S::group_channels; ++c) {
      const float* plane = in + (first + c) * S::rows * S::columns;
      const u32 tap = channel * kTaps + c * S::kernel_rows * S::kernel_columns;
#pragma unroll
      for (int r = 0; r < int(S::kernel_rows); ++r) {
        const int y = top + r * int(S::dilation_rows);
#pragma unroll
        for (int k = 0; k < int(S::kernel_columns); ++k) {
          const int x = left + k * int(S::dilation_columns);
          const bool inside = u32(y) < S::rows && u32(x) < S::columns;
          const float v = inside ? plane[y * int(S::columns) + x] : 0.f;
          float& sum = a[(r * int(S::kernel_columns) + k) % 2];
          sum = fmaf(weights[tap + r * S::kernel_columns + k], v, sum);
        }
      }
    }
    return a[0] + a[1];
  }
};

struct alignas(8) Pair {
  float x, y;
};

// Lanes beside each other have a part each of the sums of some channels, and in the end some channels' whole sums: halves of the channels
// change hands while there are several; then all lanes have the same.
template <u32 kChannels, u32 kSplits>
struct Halvings {
  static constexpr u32 kHalvings = kChannels < kSplits ? kChannels : kSplits;
  static constexpr u32 kOwn = kChannels / kHalvings;  // of a lane in the end

  // The first of them.
  __device__ static u32 first_own(const Block& b) {
    u32 own = 0;
    for (u32 mask = 1, half = kChannels / 2; mask < kHalvings; mask *= 2, half /= 2) own += b.lane & mask ? half : 0;
    return own;
  }
  template <u32 kSums>
  __device__ static void add_up(const Block& b, float (&sums)[kChannels][kSums]) {
#pragma unroll
    for (u32 mask = 1; mask < kSplits; mask *= 2) {
      const bool halves = mask < kHalvings, upper = halves && b.lane & mask;
      const u32 kept = halves ? kChannels / (2 * mask) : kOwn, behind = halves ? kept : 0;
#pragma unroll
      for (u32 o = 0; o < kept; ++o) {
#pragma unroll
        for (u32 p = 0; p < kSums; ++p) {
          const float mine = upper ? sums[o + behind][p] : sums[o][p], other = upper ? sums[o][p] : sums[o + behind][p];
          sums[o][p] = mine + across_lanes(other, mask);
        }
      }
    }
  }
};

// The same, tile by tile: a thread has some channels at one place of the result, all positions under its pool's window, and
// keeps what it needs of the input's plane in registers. Threads side by side have the planes of a group between them, and
// add their sums up by shuffles.
//
// S: as Conv; channels (of a tile, one group's), sets (of so many channels in a block's share; 1 where shares are not whole
// channels), places (of a channel in the share), splits (threads of a tile); row_pitch, plane_pitch (of the input), padded
// (zeros lie around its planes, `in` is behind the first of them), pairs (every tile begins at an even place, or each at an
// odd one), in_registers (a thread's weights are).
template <class S>
struct TiledConv {
  static constexpr u32 kTaps = S::kernel_rows * S::kernel_columns;
  static constexpr u32 kOutputs = S::count / S::pooled;
  static constexpr u32 kPlanes = S::group_channels / S::splits;  // of a thread
  static constexpr u32 kPositions = S::pool_rows * S::pool_columns;
  static constexpr u32 kTiles = S::places * S::sets;
  // A thread's tiles are of the same channels.
  static constexpr u32 kAtOnce = S::threads / S::splits / S::sets * S::sets;
  static constexpr u32 kBusy = (kTiles < kAtOnce ? kTiles : kAtOnce) * S::splits;  // threads
  using Lanes = Halvings<S::channels, S::splits>;
  static constexpr u32 kOwn = Lanes::kOwn;
  // What a tile needs of a plane. Pairs begin at an even place.
  static constexpr u32 kSkew = S::pairs ? S::before_columns % 2 : 0;
  static constexpr u32 kHigh = (S::pool_rows - 1) * S::stride_rows + (S::kernel_rows - 1) * S::dilation_rows + 1;
  static constexpr u32 kWide = (S::pool_columns - 1) * S::stride_columns + (S::kernel_columns - 1) * S::dilation_columns + 1;
  static constexpr u32 kLoaded = (kSkew + kWide + 1) / 2 * 2;

  Numbers<S::is_kept> weights;
  float held[S::in_registers ? S::channels * kPlanes * kTaps : 1];
  float bias[kOwn];

  __device__ TiledConv(const Block& b, const Turn& turn)
      : weights(Numbers<S::is_kept>::template load<S::threads>(b, turn, S::weights, S::weights_kept,
                                                               kOutputs * (S::group_channels * kTaps + 1))) {
    const u32 channel = channel_of(b, b.thread / S::splits);
    const Numbers<false> all{turn.constants + S::weights, 0};
    if (S::in_registers) {
#pragma unroll
      for (u32 n = 0; n < S::channels * kPlanes * kTaps; ++n) held[n] = all[number(b, channel, n)];
    }
#pragma unroll
    for (u32 o = 0; o < kOwn; ++o) bias[o] = all[kOutputs * S::group_channels * kTaps + channel + Lanes::first_own(b) + o];
  }

  __device__ bool run(const Block& b) const {
    const float* in = whole<S::in, S::in_bytes>(b);
    if (b.warp * 32 < kBusy)
      for (u32 round = 0; round < (kTiles + kAtOnce - 1) / kAtOnce; ++round) {
        const u32 tile = round * kAtOnce + b.thread / S::splits;
        const bool has = b.thread < kBusy && tile < kTiles && b.rank * S::each + first(tile) < S::count;
        float sums[S::channels][kPositions] = {};
        if (has) multiply(b, in, tile, sums);
        Lanes::add_up(b, sums);
        if (has && b.thread % S::splits < Lanes::kHalvings) {
#pragma unroll
          for (u32 o = 0; o < kOwn; ++o) shared(S::out)[first(tile) + (Lanes::first_own(b) + o) * S::places] = pool(sums[o], bias[o]);
        }
      }
    sync_block();
    return true;
  }

 private:
  // The place in the block's share of the tile's first channel.
  __device__ static u32 first(u32 tile) { return tile % S::sets * S::channels * S::places + tile / S::sets; }
  __device__ static u32 channel_of(const Block& b, u32 tile) {
    const u32 i = b.rank * S::each + first(tile);
    return tile < kTiles && i < S::count ? i / S::pooled : 0;
  }
  // Of all weights, the thread's number n.
  __device__ static u32 number(const Block& b, u32 channel, u32 n) {
    const u32 plane = n / kTaps % kPlanes * S::splits + b.thread % S::splits;
    return ((channel + n / kTaps / kPlanes) * S::group_channels + plane) * kTaps + n % kTaps;
  }
  __device__ float weight(const Block& b, u32 channel, u32 n) const {
    return S::in_registers ? held[n] : weights[number(b, channel, n)];
  }

  __device__ void multiply(const Block& b, const float* in, u32 tile, float (&sums)[S::channels][kPositions]) const {
    const u32 channel = channel_of(b, tile), place = (b.rank * S::each + first(tile)) % S::pooled;
    const int top = int(place / S::pooled_columns * S::pool_step_rows * S::stride_rows) - int(S::before_rows);
    const int left = int(place % S::pooled_columns * S::pool_step_columns * S::stride_columns) - int(S::before_columns + kSkew);
    const u32 plane = channel / S::group_outputs * S::group_channels + b.thread % S::splits;
    const float* corner = in + int(plane * S::plane_pitch) + top * int(S::row_pitch) + left;
#pragma unroll(S::in_registers ? kPlanes : 1)
    for (u32 j = 0; j < kPlanes; ++j) {
      float patch[kHigh][kLoaded];
      load(corner + j * S::splits * S::plane_pitch, top, left, patch);
#pragma unroll
      for (u32 t = 0; t < kTaps; ++t) {
        const u32 r = t / S::kernel_columns * S::dilation_rows, c = t % S::kernel_columns * S::dilation_columns + kSkew;
#pragma unroll
        for (u32 o = 0; o < S::channels; ++o) {
          const float w = weight(b, channel, (o * kPlanes + j) * kTaps + t);
#pragma unroll
          for (u32 p = 0; p < kPositions; ++p)
            sums[o][p] = fmaf(w, patch[p / S::pool_columns * S::stride_rows + r][p % S::pool_columns * S::stride_columns + c],
                              sums[o][p]);
        }
      }
    }
  }

  __device__ static void load(const float* corner, int top, int left, float (&patch)[kHigh][kLoaded]) {
#pragma unroll
    for (u32 r = 0; r < kHigh; ++r) {
      const float* row = corner + r * S::row_pitch;
#pragma unroll
      for (u32 c = 0; c < kLoaded; c += 2) {
        if (S::pairs) {
          const Pair two = *reinterpret_cast<const Pair*>(row + c);
          patch[r][c] = two.x, patch[r][c + 1] = two.y;
          continue;
        }
        const bool inside = S::padded || u32(top + int(r)) < S::rows;
        patch[r][c] = inside && (S::padded || u32(left + int(c)) < S::columns) ? row[c] : 0.f;
        const bool next = inside && c + 1 < kWide && (S::padded || u32(left + int(c) + 1) < S::columns);
        patch[r][c + 1] = next ? row[c + 1] : 0.f;
      }
    }
  }

  __device__ static float pool(const float (&sums)[kPositions], float bias) {
    float pooled = 0;
#pragma unroll
    for (u32 p = 0; p < kPositions; ++p) {
      const float x = apply<S::function>(sums[p] + bias, S::alpha);
      pooled = p == 0 ? x : S::pools == 2 ? pooled + x : x > pooled || x != x ? x : pooled;
    }
    return S::pools == 2 ? pooled / float(kPositions) : pooled;
  }
};

// A maximum or mean over windows. S: as above; in, in_bytes, rows, columns, kernel_rows, kernel_columns, stride_..., dilation_...,
// before_...; out_columns, places (of a channel of the result); mean, counts_padding, behind_rows, behind_columns.
template <class S>
struct Pool {
  __device__ Pool(const Block&, const Turn&) {}
  __device__ bool run(const Block& b) const {
    const float* in = whole<S::in, S::in_bytes>(b);
    for_own_elements<S>(b, [&](u32 i) {
      const u32 channel = i / S::places, place = i % S::places;
      const int top = int(place / S::out_columns * S::stride_rows) - int(S::before_rows);
      const int left = int(place % S::out_columns * S::stride_columns) - int(S::before_columns);
      const float* plane = in + channel * S::rows * S::columns;
      float pooled = 0;
      u32 seen = 0, counted = 0;
      for (int r = 0; r < int(S::kernel_rows); ++r) {
        for (int k = 0; k < int(S::kernel_columns); ++k) {
          const int y = top + r * int(S::dilation_rows), x = left + k * int(S::dilation_columns);
          counted += y < int(S::rows + S::behind_rows) && x < int(S::columns + S::behind_columns);
          if (u32(y) >= S::rows || u32(x) >= S::columns) continue;
          const float v = plane[y * int(S::columns) + x];
          pooled = S::mean ? pooled + v : seen == 0 || v > pooled || v != v ? v : pooled;
          ++seen;
        }
      }
      return S::mean ? pooled / float(S::counts_padding ? counted : seen) : pooled;
    });
    sync_block();
    return true;
  }
};

// Several vectors times a matrix. S: as above; in, in_bytes, inputs, outputs; weights ([outputs][inputs], then the bias),
// weights_kept, is_kept; function, alpha.
template <class S>
struct Matrix {
  Numbers<S::is_kept> weights;
  __device__ Matrix(const Block& b, const Turn& turn)
      : weights(Numbers<S::is_kept>::template load<S::threads>(b, turn, S::weights, S::weights_kept,
                                                              S::outputs * (S::inputs + 1))) {}
  __device__ bool run(const Block& b) const {
    const float* in = whole<S::in, S::in_bytes>(b);
    for_own_elements<S>(b, [&](u32 i) {
      const u32 row = i / S::outputs, output = i % S::outputs;
      float a[2] = {weights[S::outputs * S::inputs + output], 0};
      for (u32 k = 0; k < S::inputs; ++k) a[k % 2] = fmaf(weights[output * S::inputs + k], in[row * S::inputs + k], a[k % 2]);
      return apply<S::function>(a[0] + a[1], S::alpha);
    });
    sync_block();
    return true;
  }
};

// Each element from its place in one of several values, from up to two of them, or from all of a row. S: as above; and a
// static `float at(const Block&, const Turn&, u32)`, which the generator writes.
template <class S>
struct Each {
  __device__ Each(const Block&, const Turn&) {}
  __device__ bool run(const Block& b, const Turn& turn) const {
    for_own_elements<S>(b, [&](u32 i) { return S::at(b, turn, i); });
    sync_block();
    return true;
  }
};

// Over a row of a whole value: exp(x[i] - max) / sum.
__device__ inline float softmax(const float* row, u32 columns, u32 i) {
  float greatest = row[0];
  for (u32 k = 1; k < columns; ++k) greatest = row[k] > greatest || row[k] != row[k] ? row[k] : greatest;
  float all = 0;
  for (u32 k = 0; k < columns; ++k) all += exponential(row[k] - greatest);
  return exponential(row[i] - greatest) * reciprocal(all);
}

// (x[i] - mean) / sqrt(variance + epsilon).
__device__ inline float layer_norm(const float* row, u32 width, u32 i, float epsilon) {
  float total = 0;
  for (u32 k = 0; k < width; ++k) total += row[k];
  const float mean = total / float(width);
  float squares = 0;
  for (u32 k = 0; k < width; ++k) squares = fmaf(row[k] - mean, row[k] - mean, squares);
  return (row[i] - mean) / sqrtf(squares / float(width) + epsilon);
}

// The block's share of an output goes to the host, each word with the call's number. S: threads, blocks, count, each, from,
// first (units before this output's).
template <class S>
__device__ void answer(const Block& b, const Turn& turn) {
  const u64 units = turn.answer + u64(b.slot) * turn.answer_stride + 8ull * S::first;
  const u32 before = b.rank * S::each;
  const u64 tag = u64(u32(b.call << 8)) << 32;
  for (u32 i = b.thread; i < S::each && before + i < S::count; i += S::threads)
    store_unit(units + 8ull * (before + i), tag | as_bits(shared(S::from)[i]));
}

// In a rehearsal: what was computed ahead has driven the translation of the answer's address out of its caches, too, and a look
// at it brings that back.
template <class S>
__device__ void look_at_answer(const Block& b, const Turn& turn) {
  if (b.thread == 0 && b.rank * S::each < S::count)
    load_word4_of_host(turn.answer + u64(b.slot) * turn.answer_stride + 8ull * (S::first + b.rank * S::each));
}

}  // namespace resident
}  // namespace tickrt

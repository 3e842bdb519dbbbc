// Values of planes in bands: each block has some rows of all planes, one behind the other, and computes those of the next value.
// What windows need of the rows beside them, the two blocks beside it send: a halo of some rows before its own and behind them,
// in two copies. Rows beyond the first and the last one are zeros. A block of the last ones may have fewer rows, or none.
//
// Two calls never meet in a halo: of the next call but one, a block is sent nothing before those beside it have answered its halos
// of the next, and so have read all of this one's.

namespace tickrt {
namespace resident {

// A band that is written. B: height (rows in all), rows (of a block), columns, planes; own, row_pitch, plane_pitch (of the own
// rows: floats), at (where the first plane that is written is); halo, halo_bytes (of one copy), before, behind (its rows),
// barriers. Several may write planes of one band, which then has no halo.
template <class B>
struct Band {
  static constexpr u32 kHaloRows = B::before + B::behind, kHaloPlane = kHaloRows * B::columns;
  static constexpr bool kHasHalo = kHaloRows > 0;

  // Rows of a block.
  __device__ static u32 rows_of(u32 block) {
    const u32 from = block * B::rows;
    return from >= B::height ? 0 : B::height - from < B::rows ? B::height - from : B::rows;
  }
  // Bytes that a block is sent in a call.
  __device__ static u32 bytes(u32 block) {
    if (!kHasHalo || rows_of(block) == 0) return 0;
    const u32 behind = rows_of(block + 1) < B::behind ? rows_of(block + 1) : B::behind;
    return ((block ? B::before : 0) + behind) * B::columns * B::planes * 4;
  }
  __device__ static void arm(const Block& b) {
    const u32 all = bytes(b.rank);
    if (all && b.thread == 0) expect(B::barriers, all), expect(B::barriers + 8, all);
  }
  // An element of the block's rows. Where they end another value may have been: zeros. Of one column the blocks beside it get what
  // they need at once, of several when all is there: fewer messages, and far fewer instructions.
  __device__ static void put(const Block& b, u32 own_rows, u32 plane, u32 row, u32 column, float x) {
    shared(B::own)[B::at + plane * B::plane_pitch + row * B::row_pitch + column] = row < own_rows ? x : 0.f;
    if (!kAtOnce || row >= own_rows) return;
    const u32 there = B::halo + b.copy() * B::halo_bytes + 4 * plane * kHaloRows, barrier = B::barriers + 8 * b.copy();
    if (B::before && row + B::before >= B::rows && rows_of(b.rank + 1) > 0)
      send(peer(b.rank + 1), there + 4 * (row + B::before - B::rows), barrier, x);
    if (B::behind && row < B::behind && b.rank > 0) send(peer(b.rank - 1), there + 4 * (B::before + row), barrier, x);
  }
  // Behind what is written of it, by all threads: the blocks beside this one get their halos.
  template <u32 kThreads>
  __device__ static bool meet(const Block& b) {
    const u32 all = bytes(b.rank);
    if (kHasHalo && !kAtOnce) {
      sync_block();
      send_halos<kThreads>(b);
    }
    return !sync_block_or(all && !wait(b, B::barriers, all));
  }

 private:
  static constexpr bool kAtOnce = kHasHalo && B::columns == 1;
  // Columns that one message has.
  static constexpr u32 kWide = B::columns % 4 == 0 && B::plane_pitch % 4 == 0 ? 4 : B::columns % 2 == 0 && B::plane_pitch % 2 == 0 ? 2 : 1;

  // The last rows are before those of the next block, the first ones behind those of the block before: row h of their halos.
  template <u32 kThreads>
  __device__ static void send_halos(const Block& b) {
    const u32 own = rows_of(b.rank), barrier = B::barriers + 8 * b.copy();
    const bool is_next = rows_of(b.rank + 1) > 0;
    const u32 there = B::halo + b.copy() * B::halo_bytes;
#pragma unroll 1
    for (u32 i = b.thread; i < B::planes * kHaloRows * (B::columns / kWide); i += kThreads) {
      const u32 column = i % (B::columns / kWide) * kWide, line = i / (B::columns / kWide), h = line % kHaloRows, plane = line / kHaloRows;
      const bool to_next = h < B::before;
      const u32 row = to_next ? B::rows - B::before + h : h - B::before;
      if (to_next ? !is_next : b.rank == 0 || row >= own) continue;
      const float* from = shared(B::own) + plane * B::plane_pitch + row * B::row_pitch + column;
      const u32 block = peer(to_next ? b.rank + 1 : b.rank - 1), at = there + 4 * (line * B::columns + column);
      if constexpr (kWide == 4)
        send4(block, at, barrier, *reinterpret_cast<const Words4*>(from));
      else if constexpr (kWide == 2)
        send2(block, at, barrier, from[0], from[1]);
      else
        send(block, at, barrier, from[0]);
    }
  }
};

// A band that is read: rows before its own, and behind them, come from the halo.
template <class B>
struct BandRead {
  const float *own, *halo;
  __device__ explicit BandRead(const Block& b) : own(B::own_of(b)), halo(shared(B::halo + b.copy() * B::halo_bytes)) {}
  __device__ float operator()(u32 plane, int row, u32 column) const {
    constexpr u32 kHaloPlane = (B::before + B::behind) * B::columns;
    if (row < 0) return halo[plane * kHaloPlane + u32(row + int(B::before)) * B::columns + column];
    if (row >= int(B::rows)) return halo[plane * kHaloPlane + (u32(row) - B::rows + B::before) * B::columns + column];
    return own[plane * B::plane_pitch + u32(row) * B::row_pitch + column];
  }
  // Where it is in the first plane, and floats from plane to plane.
  struct Place {
    const float* first;
    u32 pitch;
  };
  __device__ Place at(int row, u32 column) const {
    constexpr u32 kHaloRows = B::before + B::behind;
    if (row >= 0 && row < int(B::rows)) return {own + u32(row) * B::row_pitch + column, B::plane_pitch};
    return {halo + (u32(row < 0 ? row : row - int(B::rows)) + B::before) * B::columns + column, kHaloRows * B::columns};
  }
};

// Numbers of the model that lie beside each other, some at a time.
template <u32 kCount, bool kKept>
__device__ void some(const Numbers<kKept>& numbers, u32 i, float (&to)[kCount]) {
  if constexpr (kCount == 4) {
    const Words4 v = kKept ? *reinterpret_cast<const Words4*>(shared(numbers.kept) + i) : constant4(numbers.at + 4ull * i);
    to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
  } else if constexpr (kCount == 2 && kKept) {
    const Pair v = *reinterpret_cast<const Pair*>(shared(numbers.kept) + i);
    to[0] = v.x, to[1] = v.y;
  } else {
#pragma unroll
    for (u32 k = 0; k < kCount; ++k) to[k] = numbers[i + k];
  }
}

// A convolution that moves by one row. A thread has all rows of the block at one column, and some channels of the result; threads
// beside each other share the planes of the input. Tiles that are left when the others have gone to all threads, so many at a time,
// go to more threads each.
//
// S: threads; Out (a Band), In (a BandRead); planes, kernel_rows, kernel_columns, dilation_rows,
// dilation_columns, stride_columns, before_rows, before_columns, outputs, channels (of a thread), splits (threads of a tile),
// last_splits; weights ([plane][row][column][output], weights_pitch from plane to plane, then the bias), weights_kept, is_kept;
// function, alpha.
template <class S>
struct BandConv {
  using Out = Band<typename S::Out>;
  static constexpr u32 kRows = S::Out::rows, kHigh = kRows + (S::kernel_rows - 1) * S::dilation_rows;
  static constexpr u32 kTiles = S::Out::columns * (S::outputs / S::channels), kWeights = S::planes * S::weights_pitch;
  static constexpr u32 kAtOnce = S::threads / S::splits, kBefore = kTiles / kAtOnce * kAtOnce;
  static constexpr bool kPads = S::before_columns > 0 ||
      (S::Out::columns - 1) * S::stride_columns + (S::kernel_columns - 1) * S::dilation_columns - S::before_columns >= S::In::columns;

  Numbers<S::is_kept> weights;
  __device__ BandConv(const Block& b, const Turn& turn)
      : weights(Numbers<S::is_kept>::template load<S::threads>(b, turn, S::weights, S::weights_kept, kWeights + S::outputs)) {}
  __device__ static void arm(const Block& b) { Out::arm(b); }

  __device__ bool run(const Block& b) const {
#pragma unroll 1
    for (u32 first = 0; first < kBefore; first += kAtOnce) compute<S::splits>(b, first + b.thread / S::splits);
    // Whole warps: lanes add up each other's sums.
    const u32 tile = kBefore + b.thread / S::last_splits;
    if (kBefore < kTiles && kBefore + b.warp * 32 / S::last_splits < kTiles) compute<S::last_splits>(b, tile);
    return Out::template meet<S::threads>(b);
  }

 private:
  template <u32 kSplits>
  __device__ void compute(const Block& b, u32 tile) const {
    using Lanes = Halvings<S::channels, kSplits>;
    const bool has = tile < kTiles;
    const u32 column = has ? tile % S::Out::columns : 0, channel = has ? tile / S::Out::columns * S::channels : 0;
    const u32 part = b.thread % kSplits;
    const BandRead<typename S::In> in(b);
    float sums[S::channels][kRows] = {};
    // Few instructions: those of a call that find no room in a multiprocessor's cache cost three cycles each.
#pragma unroll 1
    for (u32 plane = part; plane < S::planes; plane += kSplits) {
#pragma unroll(S::kernel_columns > 2 ? 1 : 2)
      for (u32 k = 0; k < S::kernel_columns; ++k) {
        const u32 at = column * S::stride_columns + k * S::dilation_columns - S::before_columns;
        const bool inside = !kPads || at < S::In::columns;
        float x[kHigh];
#pragma unroll
        for (u32 r = 0; r < kHigh; ++r) x[r] = inside ? in(plane, int(r) - int(S::before_rows), at) : 0.f;
#pragma unroll
        for (u32 r = 0; r < S::kernel_rows; ++r) {
          float w[S::channels];
          some<S::channels>(weights, plane * S::weights_pitch + (r * S::kernel_columns + k) * S::outputs + channel, w);
#pragma unroll
          for (u32 o = 0; o < S::channels; ++o) {
#pragma unroll
            for (u32 row = 0; row < kRows; ++row) sums[o][row] = fmaf(w[o], x[row + r * S::dilation_rows], sums[o][row]);
          }
        }
      }
    }
    Lanes::add_up(b, sums);
    // Lanes that have the same channels in the end hand on a row each.
    constexpr u32 kSame = kSplits / Lanes::kHalvings;
    const u32 own = channel + Lanes::first_own(b), own_rows = Out::rows_of(b.rank);
#pragma unroll
    for (u32 o = 0; o < Lanes::kOwn; ++o) {
      const float bias = weights[kWeights + own + o];
#pragma unroll
      for (u32 row = 0; row < kRows; ++row) {
        if (has && part / Lanes::kHalvings == row % kSame)
          Out::put(b, own_rows, own + o, row, column, apply<S::function>(sums[o][row] + bias, S::alpha));
      }
    }
  }
};

// Sums of a convolution that moves by one row, or of a matrix over rows, by tensor cores: 16 channels of the result are the rows of a
// product, 8 of its places the columns, and what is added up is planes, eight at a time, place by place of the window. A float is what its 11
// leading bits say and what they leave, and three products of those parts make one: about 21 bits. What is infinite ends as no number.
//
// S: threads; In (a BandRead); result_rows, result_columns; planes, kernel_rows, ..., as above; outputs; warps_rows, warps_columns (that share
// the channels and the places), warps_planes (that share the planes, and add their sums up: at `sums`); ahead (steps by which weights are on
// their way before they are wanted); weights (of each 16 channels, of each part of the planes, of each place of the window, of eight planes: four
// of a lane; then the bias), weights_kept, is_kept; function, alpha.
template <class S>
struct BandSums {
  using In = BandRead<typename S::In>;
  static constexpr u32 kPlaces = S::result_rows * S::result_columns, kTiles = (kPlaces + 7) / 8, kEights = S::planes / 8 / S::warps_planes;
  static constexpr u32 kRows = S::outputs / 16 / S::warps_rows, kColumns = (kTiles + S::warps_columns - 1) / S::warps_columns;
  static constexpr u32 kTaps = S::kernel_rows * S::kernel_columns, kWeights = S::planes * S::outputs * kTaps;
  static constexpr bool kPads = S::before_columns > 0 ||
      (S::result_columns - 1) * S::stride_columns + (S::kernel_columns - 1) * S::dilation_columns - S::before_columns >= S::In::columns;

  Numbers<S::is_kept> weights;
  __device__ BandSums(const Block& b, const Turn& turn)
      : weights(Numbers<S::is_kept>::template load<S::threads>(b, turn, S::weights, S::weights_kept, kWeights + S::outputs)) {}

  // Each to `put(channel, row, column, x)`.
  template <class Put>
  __device__ void run(const Block& b, const Put& put) const {
    const u32 row = b.warp % S::warps_rows * kRows, column = b.warp / S::warps_rows % S::warps_columns;
    const u32 part = b.warp / (S::warps_rows * S::warps_columns);
    float sums[kRows][kColumns][4] = {};
    add_up(b, row, column, part, sums);
    if (S::warps_planes > 1) bring_together(b, part, sums);
    if (part != 0) return;
#pragma unroll
    for (u32 i = 0; i < kRows; ++i) {
      const u32 channel = 16 * (row + i) + b.lane / 4;
      const float biases[2] = {weights[kWeights + channel], weights[kWeights + channel + 8]};
#pragma unroll
      for (u32 j = 0; j < kColumns; ++j) {
#pragma unroll
        for (u32 e = 0; e < 4; ++e) {
          const u32 place = 8 * (column + j * S::warps_columns) + b.lane % 4 * 2 + e % 2;
          if (place < kPlaces)
            put(channel + e / 2 * 8, place / S::result_columns, place % S::result_columns, apply<S::function>(sums[i][j][e] + biases[e / 2], S::alpha));
        }
      }
    }
  }

 private:
  // Eight planes at one place of the window: a step. Weights that come from the cache of the whole GPU are on their way some steps before they
  // are wanted; others are loaded then, and the loop is as short as can be: instructions come from afar.
  static constexpr u32 kSteps = kTaps * kEights, kAhead = S::is_kept ? 1 : S::ahead;
  __device__ void load(const Block& b, u32 row, u32 part, u32 step, Words4 (&to)[kRows]) const {
#pragma unroll
    for (u32 i = 0; i < kRows; ++i) {
      const u32 at = (((row + i) * S::warps_planes + part) * kSteps + (step < kSteps ? step : 0)) * 128 + 4 * b.lane;
      to[i] = S::is_kept ? *reinterpret_cast<const Words4*>(shared(weights.kept) + at) : constant4_ahead(weights.at + 4ull * at);
    }
  }
  __device__ void add_up(const Block& b, u32 row, u32 column, u32 part, float (&sums)[kRows][kColumns][4]) const {
    const In in(b);
    constexpr u32 kChains = kRows * kColumns < 4 ? 3 : 1;
    float apart[kChains][kRows][kColumns][4] = {};
    Words4 coming[kAhead][kRows];
#pragma unroll
    for (u32 k = 0; k < kAhead && kAhead > 1; ++k) load(b, row, part, k, coming[k]);
    const float* x[kColumns] = {};
    u32 pitch[kColumns] = {};
    bool inside[kColumns] = {};
#pragma unroll 1
    for (u32 first = 0; first < kSteps; first += kAhead) {
#pragma unroll
      for (u32 k = 0; k < kAhead; ++k) {
        const u32 step = first + k, tap = step / kEights;
        if (kSteps % kAhead != 0 && step >= kSteps) break;
        if (step % kEights == 0) {
#pragma unroll
          for (u32 j = 0; j < kColumns; ++j) {
            const u32 any = 8 * (column + j * S::warps_columns) + b.lane / 4, place = any < kPlaces ? any : 0;
            const u32 at = place % S::result_columns * S::stride_columns + tap % S::kernel_columns * S::dilation_columns - S::before_columns;
            inside[j] = !kPads || at < S::In::columns;
            const int in_row = int(place / S::result_columns + tap / S::kernel_columns * S::dilation_rows) - int(S::before_rows);
            const typename In::Place there = in.at(in_row, inside[j] ? at : 0);
            pitch[j] = there.pitch, x[j] = there.first + (8 * part * kEights + b.lane % 4) * there.pitch;
          }
        }
        if (kAhead == 1) load(b, row, part, step, coming[k]);
        Words4 high[kRows], low[kRows];
#pragma unroll
        for (u32 i = 0; i < kRows; ++i) {
          const Words4& w = coming[k][i];
          high[i] = {leading(w.x), leading(w.y), leading(w.z), leading(w.w)};
          low[i] = {w.x - high[i].x, w.y - high[i].y, w.z - high[i].z, w.w - high[i].w};
        }
        if (kAhead > 1) load(b, row, part, step + kAhead, coming[k]);
        float x_high[kColumns][2], x_low[kColumns][2];
#pragma unroll
        for (u32 j = 0; j < kColumns; ++j) {
          const float of[2] = {inside[j] ? x[j][0] : 0.f, inside[j] ? x[j][4 * pitch[j]] : 0.f};
          x[j] += 8 * pitch[j];
#pragma unroll
          for (u32 e = 0; e < 2; ++e) x_high[j][e] = leading(of[e]), x_low[j][e] = of[e] - x_high[j][e];
        }
        // A product waits for the one before it that adds to the same sum: those lie as far apart as can be.
#pragma unroll
        for (u32 product = 0; product < 3; ++product) {
#pragma unroll
          for (u32 j = 0; j < kColumns; ++j) {
            const float(&of)[2] = product == 1 ? x_low[j] : x_high[j];
#pragma unroll
            for (u32 i = 0; i < kRows; ++i)
              multiply_floats(apart[product % kChains][i][j], product == 0 ? low[i] : high[i], of[0], of[1]);
          }
        }
      }
    }
#pragma unroll
    for (u32 n = 0; n < kRows * kColumns * 4; ++n) {
      float& sum = sums[n / 4 / kColumns][n / 4 % kColumns][n % 4];
#pragma unroll
      for (u32 chain = 0; chain < kChains; ++chain) sum += apart[chain][n / 4 / kColumns][n / 4 % kColumns][n % 4];
    }
  }
  __device__ static float leading(float x) { return as_float(as_bits(x) & 0xffffe000); }

  // The sums of the other parts of the planes, to those of the first.
  __device__ static void bring_together(const Block& b, u32 part, float (&sums)[kRows][kColumns][4]) {
    constexpr u32 kEach = 4 * kRows * kColumns, kWarps = S::warps_rows * S::warps_columns;
    float* to = shared(S::sums) + (b.warp % kWarps * 32 + b.lane) * 4;
    const auto at = [&](u32 of, u32 n) { return to + ((of - 1) * (kEach / 4) + n) * kWarps * 128; };
    if (part > 0) {
#pragma unroll
      for (u32 n = 0; n < kEach / 4; ++n) {
        const float(&four)[4] = sums[n / kColumns][n % kColumns];
        *reinterpret_cast<Words4*>(at(part, n)) = {four[0], four[1], four[2], four[3]};
      }
    }
    sync_block();
    if (part > 0) return;
#pragma unroll
    for (u32 n = 0; n < kEach / 4; ++n) {
#pragma unroll
      for (u32 of = 1; of < S::warps_planes; ++of) {
        const Words4 v = *reinterpret_cast<const Words4*>(at(of, n));
        float(&four)[4] = sums[n / kColumns][n % kColumns];
        four[0] += v.x, four[1] += v.y, four[2] += v.z, four[3] += v.w;
      }
    }
  }
};

// A convolution of those. S: as above, and Out (a Band).
template <class S>
struct BandConvOnCores {
  using Out = Band<typename S::Out>;
  BandSums<S> sums;
  __device__ BandConvOnCores(const Block& b, const Turn& turn) : sums(b, turn) {}
  __device__ static void arm(const Block& b) { Out::arm(b); }
  __device__ bool run(const Block& b) const {
    const u32 own_rows = Out::rows_of(b.rank);
    sums.run(b, [&](u32 channel, u32 row, u32 column, float x) { Out::put(b, own_rows, channel, row, column, x); });
    return Out::template meet<S::threads>(b);
  }
};

// The greatest or mean of windows that move by one row. S: threads, Out, In; planes, kernel_rows, ..., as above; mean,
// counts_padding, behind_rows, behind_columns.
template <class S>
struct BandPool {
  using Out = Band<typename S::Out>;
  __device__ BandPool(const Block&, const Turn&) {}
  __device__ static void arm(const Block& b) { Out::arm(b); }
  __device__ bool run(const Block& b) const {
    const BandRead<typename S::In> in(b);
    const u32 own_rows = Out::rows_of(b.rank);
#pragma unroll 1
    for (u32 i = b.thread; i < S::planes * S::Out::columns; i += S::threads) {
      const u32 plane = i / S::Out::columns, column = i % S::Out::columns;
#pragma unroll
      for (u32 row = 0; row < S::Out::rows; ++row) Out::put(b, own_rows, plane, row, column, pooled(b, in, plane, row, column));
    }
    return Out::template meet<S::threads>(b);
  }

 private:
  __device__ static float pooled(const Block& b, const BandRead<typename S::In>& in, u32 plane, u32 row, u32 column) {
    float pooled = 0;
    u32 seen = 0, counted = 0;
#pragma unroll
    for (u32 r = 0; r < S::kernel_rows; ++r) {
      const int near = int(row + r * S::dilation_rows) - int(S::before_rows), far = int(b.rank * S::Out::rows) + near;
#pragma unroll
      for (u32 k = 0; k < S::kernel_columns; ++k) {
        const int at = int(column * S::stride_columns + k * S::dilation_columns) - int(S::before_columns);
        counted += far < int(S::Out::height + S::behind_rows) && at < int(S::In::columns + S::behind_columns);
        if (u32(far) >= S::Out::height || u32(at) >= S::In::columns) continue;
        const float v = in(plane, near, u32(at));
        pooled = S::mean ? pooled + v : seen == 0 || v > pooled || v != v ? v : pooled;
        ++seen;
      }
    }
    return S::mean ? pooled / float(S::counts_padding ? counted : seen) : pooled;
  }
};

// Each row of a band of one column times a matrix; the results go to block 0's part of the device's memory. Before that block 0 has said
// that it has begun the call, and so is through with the rows of the one before.
//
// S: as BandSums, and blocks, height; to (in block 0's part); said (a word: by copy), barriers.
template <class S>
struct BandRows {
  BandSums<S> sums;
  __device__ BandRows(const Block& b, const Turn& turn) : sums(b, turn) {}
  __device__ static void arm(const Block& b) {
    if (b.rank != 0 && b.thread == 0) expect(S::barriers, 4), expect(S::barriers + 8, 4);
  }

  __device__ bool run(const Block& b, const Turn& turn) const {
    if (b.rank == 0 && b.thread > 0 && b.thread < S::blocks)
      send(peer(b.thread), S::said + 4 * b.copy(), S::barriers + 8 * b.copy(), 0.f);
    if (b.rank != 0 && sync_block_or(!wait(b, S::barriers, 4))) return false;
    float* to = reinterpret_cast<float*>(turn.state + S::to) + b.rank * S::result_rows * S::outputs;
    sums.run(b, [&](u32 output, u32 row, u32, float x) {
      if (b.rank * S::result_rows + row < S::height) to[row * S::outputs + output] = x;
    });
    sync_block();
    return true;
  }
};

// Block 0 waits for a word of each other block, whose rows are there when it comes. S: threads, blocks; words (one of each block, by copy),
// barriers.
template <class S>
struct BandRowsMeet {
  static constexpr u32 kBytes = 4 * (S::blocks - 1);

  __device__ BandRowsMeet(const Block&, const Turn&) {}
  __device__ static void arm(const Block& b) {
    if (b.is_first_thread()) expect(S::barriers, kBytes), expect(S::barriers + 8, kBytes);
  }
  __device__ bool run(const Block& b) const {
    if (b.rank != 0 && b.thread == 0) {
      fence_cluster();
      send(peer(0), S::words + 4 * (b.copy() * S::blocks + b.rank), S::barriers + 8 * b.copy(), 0.f);
    }
    return !sync_block_or(b.rank == 0 && !wait(b, S::barriers, kBytes));
  }
};

}  // namespace resident
}  // namespace tickrt

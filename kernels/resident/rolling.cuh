// Windows that are on their way side by side. With each row of a stream a window begins; a new row goes through all that have begun, at
// once, layer by layer, and behind it the oldest of them lacks the newest row alone. So a row costs one step of many windows, and not all
// steps of one. A window's sums are the same, in the same order, whichever way it came to its rows: answers do not depend on that.
//
// Outputs and cells of all windows lie in the device's memory, in two copies: a step reads the one and writes the other. Each block computes
// its units for all windows; blocks meet behind each layer. Nothing of it is lost at the end of a turn.

namespace tickrt {
namespace resident {

// The windows of a round. Those that have begun are counted from the oldest on; `first` is the place of that one.
struct Rows {
  u32 first;
  u32 step;   // which row of the oldest
  u32 count;  // windows that the step is of
  u32 newest; // the one that begins with the row
  u32 into;   // the copy that is written
};

// A layer of them. Four lanes have a unit of some windows; each adds up a quarter of the inputs, for all four gates. Weights and states pass
// through shared memory a chunk at a time, the next one on its way meanwhile.
//
// S: threads, blocks, windows; each (units of a block), units, gru; is_first (it reads the row: the same for all windows), inputs; in, in_units,
// in_pitch (of the layer before; as state, units, pitch: offset of the outputs, floats from window to window, half of which are cells);
// weights (of a block: chunk by chunk, row by row, four rows a unit; those of the layer before, then those of the state), weights_each; row_weights (of a block: row by
// row, 32 inputs at a time), row_weights_each; bias, initial (as Recurrent has them); together (windows of a thread), chunk (floats); staged (two buffers), row_sums.
template <class S>
struct RollingLayer {
  static constexpr u32 kLanes = 4, kRows = 4 * S::each, kFours = S::chunk / 4;
  // Windows that lie beside each other are different threads', for other banks.
  static constexpr u32 kApart = S::threads / kLanes / S::each, kPass = kApart * S::together;
  static constexpr u32 kWeightBytes = kRows * S::chunk * 4, kBuffer = kWeightBytes + kPass * S::chunk * 4;
  static constexpr u32 kInChunks = S::is_first ? 0 : (S::in_units + S::chunk - 1) / S::chunk;
  static constexpr u32 kChunks = kInChunks + (S::units + S::chunk - 1) / S::chunk;

  static __device__ void run(const Block& b, const Turn& turn, u64 memory, const Rows& rows) {
    if (S::is_first) multiply_row(b, turn, rows);
    const u32 passes = (rows.count + kPass - 1) / kPass, stages = passes * kChunks;
    const u32 group = b.thread / kLanes;
    const bool has = group < S::each * kApart;
    const u32 own = has ? group / kApart : 0, window = has ? group % kApart : 0;
    float sums[S::together][4] = {};
    stage(b, turn, memory, rows, 0, 0);
#pragma unroll 1
    for (u32 at = 0, pass = 0, chunk = 0; at < stages; ++at) {
      const u32 buffer = S::staged + (at & 1) * kBuffer;
      copies_are_there();
      sync_block();
      const u32 next = chunk + 1 == kChunks ? 0 : chunk + 1;
      if (at + 1 < stages) stage(b, turn, memory, rows, next == 0 ? pass + 1 : pass, next);
      if (chunk < kInChunks)
        add<false, S::is_first ? 4 : S::in_units>(b, buffer, own, window, chunk, sums);
      else
        add<true, S::units>(b, buffer, own, window, chunk - kInChunks, sums);
      chunk = next;
      if (chunk != 0) continue;
      finish(b, turn, memory, rows, has, own, pass * kPass + window, sums);
      ++pass;
#pragma unroll
      for (u32 j = 0; j < S::together; ++j) {
#pragma unroll
        for (u32 gate = 0; gate < 4; ++gate) sums[j][gate] = 0;
      }
    }
  }

  // Where the outputs of a window are, and its cells behind them.
  static __device__ float* outputs(u64 memory, const Rows& rows, u32 copy, u32 window) {
    return reinterpret_cast<float*>(memory + S::state) + (copy * S::windows + place(rows, window)) * S::pitch;
  }

 private:
  static __device__ u32 place(const Rows& rows, u32 window) {
    const u32 place = rows.first + window;
    return place < S::windows ? place : place - S::windows;
  }

  // The row times its weights: a warp a row of them.
  static __device__ void multiply_row(const Block& b, const Turn& turn, const Rows& rows) {
    constexpr u32 kWarps = S::threads / 32, kLoads = (S::inputs + 31) / 32;
    const float* row = b.window + rows.step * S::inputs;
    float x[kLoads];
#pragma unroll
    for (u32 k = 0; k < kLoads; ++k) x[k] = 32 * k + b.lane < S::inputs ? row[32 * k + b.lane] : 0.f;
    const u64 weights = turn.constants + S::row_weights + u64(b.rank) * S::row_weights_each + 4 * b.lane;
#pragma unroll 4
    for (u32 i = b.warp; i < kRows; i += kWarps) {
      float a = 0;
#pragma unroll
      for (u32 k = 0; k < kLoads; ++k) a = fmaf(constant(weights + 4ull * (i * kLoads + k) * 32), x[k], a);
      for (u32 mask = 16; mask; mask /= 2) a += across_lanes(a, mask);
      if (b.lane == 0) shared(S::row_sums)[i] = a;
    }
  }

  // Sends for a chunk of weights, and of what they are multiplied with.
  static __device__ void stage(const Block& b, const Turn& turn, u64 memory, const Rows& rows, u32 pass, u32 chunk) {
    const u32 buffer = S::staged + ((pass * kChunks + chunk) & 1) * kBuffer;
    const u64 weights = turn.constants + S::weights + u64(b.rank) * S::weights_each + u64(chunk) * kWeightBytes;
    for (u32 i = b.thread; i < kRows * kFours; i += S::threads) copy4(buffer + 16 * i, weights + 16ull * i, true);
    const bool of_state = chunk >= kInChunks;
    const u32 four = (of_state ? chunk - kInChunks : chunk) * kFours, fours = ((of_state ? S::units : S::in_units) + 3) / 4;
    const u32 copy = of_state ? rows.into ^ 1 : rows.into;
    const u64 from = memory + (of_state ? S::state : S::in) + u64(copy) * S::windows * (of_state ? S::pitch : S::in_pitch) * 4;
    for (u32 i = b.thread; i < kPass * kFours; i += S::threads) {
      const u32 window = pass * kPass + i / kFours, k = four + i % kFours;
      if (window >= rows.count) break;
      const bool begins = of_state && window == rows.newest;
      const u64 at = begins ? turn.constants + S::initial : from + u64(place(rows, window)) * (of_state ? S::pitch : S::in_pitch) * 4;
      copy4(buffer + kWeightBytes + 16 * i, at + 16ull * (k < fours ? k : 0), k < fours);
    }
  }

  // A chunk's part of the sums. Of a GRU's rows the third has no state, and the fourth no input.
  template <bool kOfState, u32 kCount>
  static __device__ void add(const Block& b, u32 buffer, u32 own, u32 window, u32 chunk, float (&sums)[S::together][4]) {
    constexpr u32 kAll = (kCount + 15) / 16, kEach = kFours / kLanes;
    const u32 lane = b.thread % kLanes, steps = kAll - chunk * kEach < kEach ? kAll - chunk * kEach : kEach;
    const Words4* weights = reinterpret_cast<const Words4*>(shared(buffer)) + own * 4 * kFours + lane;
    const Words4* x = reinterpret_cast<const Words4*>(shared(buffer + kWeightBytes)) + window * kFours + lane;
#pragma unroll 1
    for (u32 i = 0; i < steps; ++i) {
      Words4 w[4];
#pragma unroll
      for (u32 gate = 0; gate < 4; ++gate) w[gate] = weights[gate * kFours + i * kLanes];
#pragma unroll
      for (u32 j = 0; j < S::together; ++j) {
        const Words4 v = x[j * kApart * kFours + i * kLanes];
#pragma unroll
        for (u32 gate = 0; gate < 4; ++gate) {
          if (S::gru && gate == (kOfState ? 2 : 3)) continue;
          float& sum = sums[j][gate];
          sum = fmaf(w[gate].x, v.x, sum), sum = fmaf(w[gate].y, v.y, sum);
          sum = fmaf(w[gate].z, v.z, sum), sum = fmaf(w[gate].w, v.w, sum);
        }
      }
    }
  }

  // From the sums to the outputs and cells of the thread's windows.
  static __device__ void finish(const Block& b, const Turn& turn, u64 memory, const Rows& rows, bool has, u32 own, u32 window,
                                const float (&sums)[S::together][4]) {
    const u32 unit = b.rank * S::each + own, lane = b.thread % kLanes;
    const bool there = has && unit < S::units;
    const float bias = there ? constant(turn.constants + S::bias + 4ull * (unit * 4 + lane)) : 0.f;
    const float of_row = S::is_first ? shared(S::row_sums)[own * 4 + lane] + bias : bias;
    float before[S::together];
#pragma unroll
    for (u32 j = 0; j < S::together; ++j) {
      const u32 of = window + j * kApart;
      before[j] = 0;
      if (there && of < rows.newest && of < rows.count)
        before[j] = load_word4(outputs(memory, rows, rows.into ^ 1, of) + (S::gru ? 0 : S::pitch / 2) + unit);
      else if (there && of == rows.newest)
        before[j] = constant(turn.constants + S::initial + 4ull * ((S::gru ? 0 : S::units) + unit));
    }
#pragma unroll
    for (u32 j = 0; j < S::together; ++j) {
      float h = before[j], c = before[j];
      gates<S::gru>(b, of_gate<kLanes>(b, sums[j]) + of_row, b.lane / kLanes * kLanes, h, c);
      const u32 of = window + j * kApart;
      if (!has || of >= rows.count) continue;
      float* to = outputs(memory, rows, rows.into, of) + unit;
      if (lane == 0) *to = h;
      if (!S::gru && lane == 1) to[S::pitch / 2] = c;
    }
  }
};

// All layers, from row to row. S: threads, blocks, windows; memory (offset in the device's, of all blocks), state (there: which call the windows are ready
// for); words (where blocks say that they have written: two copies, one each), barriers; each_layer(b, turn, memory, rows, meet), give(b, memory,
// rows): what the oldest window has to where what comes behind looks for it.
template <class S>
struct Rolling {
  static constexpr u32 kBytes = 4 * S::blocks;
  // Of the word in the device's memory: rows are there, and windows have to go through them all; else what `ready_for` says, or nothing is there.
  static constexpr u64 kRowsAlone = 2;
  static __device__ u64 ready_for(u64 call) { return call << 1 | 1; }

  // What all blocks know. Both change in a turn, of which the object outlives all rounds.
  mutable u64 state;
  mutable u32 meetings = 0;

  __device__ Rolling(const Block&, const Turn& turn) : state(load_word8(turn.state + S::memory + S::state)) {}
  __device__ static void arm(const Block& b) {
    if (S::blocks > 1 && b.thread == 0) expect(S::barriers, kBytes), expect(S::barriers + 8, kBytes);
  }

  __device__ bool run(const Block& b, const Turn& turn) const {
    const u64 memory = turn.state + S::memory;
    Rows rows{};
    rows.first = u32(b.call % S::windows);
    // A call that brought its window waits for that one alone.
    if (b.again || state == kRowsAlone || state == ready_for(b.call - 1)) {
      rows.step = !b.again && state == ready_for(b.call - 1) ? S::windows - 1 : 0;
      remember(b, memory, kRowsAlone);
#pragma unroll 1
      for (; rows.step < S::windows; ++rows.step) {
        rows.newest = rows.step;
        rows.count = b.again ? 1 : rows.step + 1;
        // The last one writes the copy that the call's number says.
        rows.into = u32(b.call + S::windows - 1 - rows.step) & 1;
        if (!S::each_layer(b, turn, memory, rows, [&] { return meet(b); })) return false;
      }
      if (!b.again) remember(b, memory, ready_for(b.call));
    }
    rows.into = u32(b.call) & 1;
    S::give(b, memory, rows);
    sync_block();
    return true;
  }

 private:
  __device__ void remember(const Block& b, u64 memory, u64 what) const {
    state = what;
    if (b.is_first_thread()) store_word8(memory + S::state, what);
  }

  // What blocks have written is there for all of them.
  __device__ bool meet(const Block& b) const {
    const u32 copy = meetings & 1, phase = meetings >> 1 & 1;
    ++meetings;
    sync_block();
    if (S::blocks == 1) return true;
    if (b.thread < S::blocks) {
      fence_cluster();
      send(peer(b.thread), S::words + 4 * (copy * S::blocks + b.rank), S::barriers + 8 * copy, 0.f);
    }
    return !sync_block_or(!wait_for(b, S::barriers + 8 * copy, phase, kBytes));
  }
};

// One layer's, at the end.
template <class S>
__device__ void give_oldest(const Block& b, u64 memory, const Rows& rows, float* output, float* cell) {
  const float* from = RollingLayer<S>::outputs(memory, rows, rows.into, 0);
  for (u32 i = b.thread; i < S::units; i += S::threads) {
    output[i] = load_word4(from + i);
    if (!S::gru) cell[i] = load_word4(from + S::pitch / 2 + i);
  }
}

}  // namespace resident
}  // namespace tickrt

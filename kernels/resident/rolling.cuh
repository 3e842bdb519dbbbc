// Windows that are on their way side by side. With each row of a stream a window begins; a new row goes through all that have begun, at
// once, layer by layer, and behind it the oldest of them lacks the newest row alone. So a row costs one step of many windows, and not all
// steps of one. Behind a call that brought all of its window none has begun: the rows go through as many of the oldest windows as threads have at
// a time, and through the next so many when those have been asked for, until those that begin with new rows follow. A window's sums are
// the same, in the same order, whichever way it came to its rows: answers do not depend on that.
//
// Outputs and cells of all windows lie in the device's memory, in two copies: a step reads the one and writes the other. Each block computes
// its units for all windows; blocks meet behind each layer. The next turn finds them, unless this one ends amid a step.

namespace tickrt {
namespace resident {

// A row, and the windows that it goes through: the first of all windows, and the last.
struct Step {
  u32 row;      // which one of the rows before the newest
  u32 oldest;   // place of the oldest window
  u32 count;    // windows of the step
  u32 split;    // so many of them are the first; between them and the last
  u32 skipped;  // lie so many others
  u32 begins;   // the one that begins with the row; none if it is not among them
  u32 into;     // the copy that is written
};

// A layer of them. Four lanes have a unit of some windows; each adds up a quarter of the inputs, for all gates. Weights and states pass
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

  static __device__ void run(const Block& b, const Turn& turn, u64 memory, const Step& step) {
    if (S::is_first) multiply_row(b, turn, step);
    const u32 passes = (step.count + kPass - 1) / kPass, stages = passes * kChunks;
    const u32 group = b.thread / kLanes;
    const bool has = group < S::each * kApart;
    const u32 own = has ? group / kApart : 0, window = has ? group % kApart : 0;
    float sums[S::together][4] = {};
    stage(b, turn, memory, step, 0, 0);
#pragma unroll 1
    for (u32 at = 0, pass = 0, chunk = 0; at < stages; ++at) {
      const u32 buffer = S::staged + (at & 1) * kBuffer;
      copies_are_there();
      sync_block();
      const u32 next = chunk + 1 == kChunks ? 0 : chunk + 1;
      if (at + 1 < stages) stage(b, turn, memory, step, next == 0 ? pass + 1 : pass, next);
      if (chunk < kInChunks)
        add<false, S::is_first ? 4 : S::in_units>(b, buffer, own, window, chunk, sums);
      else
        add<true, S::units>(b, buffer, own, window, chunk - kInChunks, sums);
      chunk = next;
      if (chunk != 0) continue;
      finish(b, turn, memory, step, has, own, pass * kPass + window, sums);
      ++pass;
#pragma unroll
      for (u32 j = 0; j < S::together; ++j) {
#pragma unroll
        for (u32 gate = 0; gate < 4; ++gate) sums[j][gate] = 0;
      }
    }
  }

  static __device__ float* outputs(u64 memory, const Step& step, u32 copy, u32 window) {
    return reinterpret_cast<float*>(memory + S::state) + place(step, copy, window) * S::pitch;
  }

 private:
  static __device__ u32 place(const Step& step, u32 copy, u32 window) {
    const u32 place = step.oldest + window + (window < step.split ? 0 : step.skipped);
    return copy * S::windows + (place < S::windows ? place : place - S::windows);
  }

  // The row times its weights: a warp a row of them.
  static __device__ void multiply_row(const Block& b, const Turn& turn, const Step& step) {
    constexpr u32 kWarps = S::threads / 32, kLoads = (S::inputs + 31) / 32;
    const float* row = b.window + step.row * S::inputs;
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
  static __device__ void stage(const Block& b, const Turn& turn, u64 memory, const Step& step, u32 pass, u32 chunk) {
    const u32 buffer = S::staged + ((pass * kChunks + chunk) & 1) * kBuffer;
    const u64 weights = turn.constants + S::weights + u64(b.rank) * S::weights_each + u64(chunk) * kWeightBytes;
    for (u32 i = b.thread; i < kRows * kFours; i += S::threads) copy4(buffer + 16 * i, weights + 16ull * i, true);
    const bool of_state = chunk >= kInChunks;
    const u32 four = (of_state ? chunk - kInChunks : chunk) * kFours, fours = ((of_state ? S::units : S::in_units) + 3) / 4;
    const u32 copy = of_state ? step.into ^ 1 : step.into, pitch = of_state ? S::pitch : S::in_pitch;
    const u64 from = memory + (of_state ? S::state : S::in);
    for (u32 i = b.thread; i < kPass * kFours; i += S::threads) {
      const u32 window = pass * kPass + i / kFours, k = four + i % kFours;
      if (window >= step.count) break;
      const bool begins = of_state && window == step.begins;
      const u64 at = begins ? turn.constants + S::initial : from + 4ull * place(step, copy, window) * pitch;
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
  static __device__ void finish(const Block& b, const Turn& turn, u64 memory, const Step& step, bool has, u32 own, u32 window,
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
      if (!there || of >= step.count) continue;
      if (of == step.begins)
        before[j] = constant(turn.constants + S::initial + 4ull * ((S::gru ? 0 : S::units) + unit));
      else
        before[j] = load_word4(outputs(memory, step, step.into ^ 1, of) + (S::gru ? 0 : S::pitch / 2) + unit);
    }
#pragma unroll
    for (u32 j = 0; j < S::together; ++j) {
      float h = before[j], c = before[j];
      gates<S::gru>(b, of_gate<kLanes>(b, sums[j]) + of_row, b.lane / kLanes * kLanes, h, c);
      const u32 of = window + j * kApart;
      if (!has || of >= step.count) continue;
      float* to = outputs(memory, step, step.into, of) + unit;
      // Behind the last unit zeros, whatever the row: they are read, if of no use.
      if (lane == 0) *to = there ? h : 0.f;
      if (!S::gru && lane == 1) to[S::pitch / 2] = there ? c : 0.f;
    }
  }
};

// All layers. S: threads, blocks, windows, layers, most (windows of which a step is no dearer than of one); memory (offset in the device's, of
// all blocks), state (there: a call, and how many of the first windows and of the last lack its row alone and those behind it); words (where
// blocks say that they have written: two copies, one each), barriers; each_layer(b, turn, memory, step, meet): one row; each_behind(b, turn,
// memory, step): each layer so many rows behind the first; give(b, memory, step): what the oldest window has, to where what comes behind looks for it.
template <class S>
struct Rolling {
  static constexpr u32 kBytes = 4 * S::blocks;

  // What all blocks know, of the whole turn: the object outlives its rounds.
  mutable u64 state;
  mutable u32 meetings = 0;

  __device__ Rolling(const Block&, const Turn& turn) : state(load_word8(turn.state + S::memory + S::state)) {}
  __device__ static void arm(const Block& b) {
    if (S::blocks > 1 && b.thread == 0) expect(S::barriers, kBytes), expect(S::barriers + 8, kBytes);
  }

  __device__ bool run(const Block& b, const Turn& turn) const {
    const u64 memory = turn.state + S::memory;
    const u32 number = u32(state >> 32);
    u32 first = u32(state) >> 16, last = u32(state) & 0xffff;
    Step step{};
    step.oldest = u32(b.call % S::windows);
    step.into = u32(b.call) & 1;
    if (!b.again && number + 1 == u32(b.call) && first + last > 0) {
      // One row more: the oldest window is no more, and one begins.
      last = last < S::windows ? last + 1 : last;
      first = first > 0 ? first - 1 : 0;
      first = first < S::windows - last ? first : S::windows - last;
      step.row = S::windows - 1;
      step.count = first + last;
      step.split = first;
      step.skipped = S::windows - step.count;
      step.begins = step.count - 1;
      // None, should the turn end on the way.
      remember(b, memory, 0, 0);
      if (!S::each_layer(b, turn, memory, step, [&] { return meet(b); })) return false;
      remember(b, memory, first, last);
    } else if (b.again || number != u32(b.call)) {
      first = last = 0;
      remember(b, memory, 0, 0);
    }
    if (first == 0 && last < S::windows) {
      first = S::most < S::windows - last ? S::most : S::windows - last;
      if (!go_through(b, turn, memory, step, first)) return false;
      remember(b, memory, first, last);
    }
    S::give(b, memory, step);
    sync_block();
    return true;
  }

 private:
  // All rows go through the first windows. Each layer is a row behind the one before it, so that blocks meet once a row.
  __device__ bool go_through(const Block& b, const Turn& turn, u64 memory, Step step, u32 first) const {
    // Who still reads what has been written there before?
    if (!meet(b)) return false;
    step.count = first;
    step.skipped = 0;
#pragma unroll 1
    for (step.row = 0; step.row < S::windows + S::layers - 1; ++step.row) {
      S::each_behind(b, turn, memory, step);
      if (!meet(b)) return false;
    }
    return true;
  }

  __device__ void remember(const Block& b, u64 memory, u32 first, u32 last) const {
    state = u64(u32(b.call)) << 32 | first << 16 | last;
    if (b.is_first_thread()) store_word8(memory + S::state, state);
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

// A layer that is so many rows behind the first, where it has a row. The last row's copy is that of `step`.
template <class S, u32 kBehind>
__device__ void layer_behind(const Block& b, const Turn& turn, u64 memory, Step step) {
  // Below zero there is none.
  step.row -= kBehind;
  if (step.row >= S::windows) return;
  step.begins = step.row < step.count ? step.row : S::windows;
  step.count = step.row < step.count ? step.row + 1 : step.count;
  step.into ^= (S::windows - 1 - step.row) & 1;
  // The layer before has used the same buffers.
  sync_block();
  RollingLayer<S>::run(b, turn, memory, step);
}

// A layer's, at the end.
template <class S>
__device__ void give_oldest(const Block& b, u64 memory, const Step& step, float* output, float* cell) {
  const float* from = reinterpret_cast<const float*>(memory + S::state) + (step.into * S::windows + step.oldest) * S::pitch;
  for (u32 i = b.thread; i < S::units; i += S::threads) {
    output[i] = load_word4(from + i);
    if (!S::gru) cell[i] = load_word4(from + S::pitch / 2 + i);
  }
}

}  // namespace resident
}  // namespace tickrt

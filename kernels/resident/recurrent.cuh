// An LSTM or GRU over a window, in one block. Eight (or four) lanes have a unit: each multiplies its share of row and state with
// all four gates' weights, which stay in its registers, so that a warp reads each float of row and state once; the sums cross the lanes, each
// lane of four computes one gate, and one barrier ends the step.

namespace tickrt {
namespace resident {

// S: threads, steps, inputs, units, gru; lanes (of a unit, 4 or 8); in, in_bytes; rows (where the rows lie with a stride of
// `stride` floats, zeros behind `inputs`), state (two copies of `state_stride` floats); weights (of a thread: gate by gate, row then state, as
// ThreadWeights has them), where, kept; bias (units times: four of the row's part, one more that a GRU adds within its reset
// gate); initial (units of the output, then of the cell); emits_all, emits_cell; out.
template <class S>
struct Recurrent {
  static constexpr u32 kRow4 = S::stride / 4 / S::lanes, kState4 = S::state_stride / 4 / S::lanes, k4 = kRow4 + kState4;
  ThreadWeights<S::where, 4 * 4 * k4, S::threads> weights;
  float bias;
  float output, cell;  // at first

  __device__ Recurrent(const Block& b, const Turn& turn) : weights(b, turn, S::weights, S::kept), bias(0), output(0), cell(0) {
    const u32 unit = b.thread / S::lanes;
    if (unit < S::units) {
      bias = constant(turn.constants + S::bias + 4ull * (unit * 4 + b.thread % 4));
      output = constant(turn.constants + S::initial + 4ull * unit);
      cell = constant(turn.constants + S::initial + 4ull * (S::units + unit));
    }
  }

  __device__ bool run(const Block& b) const {
    const float* in = whole<S::in, S::in_bytes>(b);
    for (u32 i = b.thread; i < S::steps * S::inputs; i += S::threads)
      shared(S::rows)[i / S::inputs * S::stride + i % S::inputs] = in[i];
    const u32 unit = b.thread / S::lanes, part = b.thread % S::lanes;
    const bool has = unit < S::units;
    if (has && part == 0) shared(S::state)[unit] = output;
    sync_block();
    float c = cell, h = output;
    for (u32 step = 0; step < S::steps; ++step) {
      const Words4* row = reinterpret_cast<const Words4*>(shared(S::rows) + step * S::stride) + part;
      const Words4* state = reinterpret_cast<const Words4*>(shared(S::state) + (step & 1) * S::state_stride) + part;
      float a[4] = {}, of_state[4] = {};
#pragma unroll
      for (u32 k = 0; k < kRow4; ++k) add(a, b, k, row[k * S::lanes]);
#pragma unroll
      for (u32 k = 0; k < kState4; ++k) add(of_state, b, kRow4 + k, state[k * S::lanes]);
      if (S::gru) {
        // Gates z, r; the candidate's row and, apart, its state.
        a[0] += of_state[0], a[1] += of_state[1];
        a[3] = of_state[2];
      } else {
        for (u32 g = 0; g < 4; ++g) a[g] += of_state[g];
      }
      const float sum = of_gate(b, a) + bias;
      const u32 first = b.lane / S::lanes * S::lanes;
      if (S::gru) {
        const float mine = b.lane % 4 < 2 ? sigmoid(sum) : sum;
        const float z = from_lane(mine, first), r = from_lane(mine, first + 1), x = from_lane(mine, first + 2),
                    s = from_lane(mine, first + 3);
        const float candidate = hyperbolic_tangent(fmaf(r, s, x));
        h = fmaf(z, h - candidate, candidate);
      } else {
        // Gates i, o, f, c.
        const float mine = b.lane % 4 == 3 ? hyperbolic_tangent(sum) : sigmoid(sum);
        const float i = from_lane(mine, first), o = from_lane(mine, first + 1), f = from_lane(mine, first + 2),
                    g = from_lane(mine, first + 3);
        c = fmaf(f, c, i * g);
        h = o * hyperbolic_tangent(c);
      }
      if (has && part == 0) {
        shared(S::state)[(~step & 1) * S::state_stride + unit] = h;
        if (S::emits_all) shared(S::out)[step * S::units + unit] = h;
      }
      sync_block();
    }
    if (has && part == 0 && !S::emits_all) shared(S::out)[unit] = h;
    if (has && part == 0 && S::emits_cell) shared(S::out)[S::steps * S::units + unit] = c;
    sync_block();
    return true;
  }

 private:
  __device__ void add(float (&a)[4], const Block& b, u32 k, const Words4& v) const {
#pragma unroll
    for (u32 gate = 0; gate < 4; ++gate) {
      if (S::gru && gate == 3) continue;
      const Words4 w = weights(gate * k4 + k, b.thread);
      a[gate] = fmaf(w.x, v.x, a[gate]), a[gate] = fmaf(w.y, v.y, a[gate]);
      a[gate] = fmaf(w.z, v.z, a[gate]), a[gate] = fmaf(w.w, v.w, a[gate]);
    }
  }

  // Lane j of each four is left with the sum of gate j over all lanes of its unit.
  __device__ static float of_gate(const Block& b, float (&a)[4]) {
    const bool upper = b.lane & 2, odd = b.lane & 1;
    float low = upper ? a[2] : a[0], high = upper ? a[3] : a[1];
    low += across_lanes(upper ? a[0] : a[2], 2);
    high += across_lanes(upper ? a[1] : a[3], 2);
    float mine = odd ? high : low;
    mine += across_lanes(odd ? low : high, 1);
    if (S::lanes == 8) mine += across_lanes(mine, 4);
    return mine;
  }
};

}  // namespace resident
}  // namespace tickrt

// An LSTM or GRU over a window, its units shared out over the blocks. First all rows are multiplied with their weights, which
// no step has to wait for; then, step by step, the state with its own. Some lanes have a unit: each multiplies its share of the
// state with all four gates' weights, the sums cross the lanes, each lane of four computes one gate; of two lanes each computes
// all. One block writes the new state and meets; several send it to each other, and no block's warps meet before the end.
//
// Of the two copies of the state one is read while the other is sent. A block sends the next but one only when the next has
// come from all blocks, and a warp sends its own part of the next when it has read all that it wants of the one: so nothing is
// overwritten that is still read. Every block has units, if of no use, for that reason.

namespace tickrt {
namespace resident {

// Each lane of four has the sum of one gate; `first` is the unit's first lane. All of them get the output and the cell.
template <bool kGru>
__device__ void gates(const Block& b, float sum, u32 first, float& h, float& c) {
  if (kGru) {
    // Gates z and r, the candidate's row and, apart, its state.
    const float mine = b.lane % 4 < 2 ? sigmoid(sum) : sum;
    const float z = from_lane(mine, first), r = from_lane(mine, first + 1), x = from_lane(mine, first + 2),
                s = from_lane(mine, first + 3);
    const float candidate = hyperbolic_tangent(fmaf(r, s, x));
    h = fmaf(z, h - candidate, candidate);
  } else {
    // Gates i, o, f, c: tanh x = 2 sigmoid(2 x) - 1, so that no lane takes another way.
    const bool is_cell = b.lane % 4 == 3;
    const float s = sigmoid(is_cell ? 2.f * sum : sum), mine = is_cell ? fmaf(2.f, s, -1.f) : s;
    const float i = from_lane(mine, first), o = from_lane(mine, first + 1), f = from_lane(mine, first + 2),
                g = from_lane(mine, first + 3);
    c = fmaf(f, c, i * g);
    h = o * hyperbolic_tangent(c);
  }
}

// Lane j of each four is left with the sum of gate j over all lanes of its unit.
template <u32 kLanes>
__device__ float of_gate(const Block& b, const float (&a)[4]) {
  const bool upper = b.lane & 2, odd = b.lane & 1;
  float low = upper ? a[2] : a[0], high = upper ? a[3] : a[1];
  low += across_lanes(upper ? a[0] : a[2], 2);
  high += across_lanes(upper ? a[1] : a[3], 2);
  float mine = odd ? high : low;
  mine += across_lanes(odd ? low : high, 1);
#pragma unroll
  for (u32 mask = 4; mask < kLanes; mask *= 2) mine += across_lanes(mine, mask);
  return mine;
}

// S: threads, blocks, steps, inputs, units, gru; each (units of a block), lanes (of a unit: 4 to 32, or 2 in one block); in, in_bytes; pads, padded (where rows
// are copied to, each a whole number of vectors); tile (steps whose rows a thread multiplies at a time); alone (block 0 has all units,
// and the others go on), is_projected (the rows have been multiplied, by all blocks: BandRows; row_pitch floats from one to the next); projected
// (where rows times weights go), projected_in_state; half (weights are in half precision); row_weights (of a block: fours of inputs, then four rows of each unit),
// row_weights_each, row_where, row_kept; weights (of a thread, of its unit: gate by gate), weights_each, where, kept,
// loads_late (in each call anew: nothing of it is kept while an answer is waited for); bias (units times: four of the
// row's part; a GRU's fourth is of its state's candidate), initial (units of the output, then of the cell); state (two copies
// of state_bytes, zeros behind the units), first (the state before the first step), barriers; emits_all, emits_cell; out,
// out_in_state.
template <class S>
struct Recurrent {
  static constexpr u32 kRows = 4 * S::each, kPitch = S::is_projected ? S::row_pitch : kRows, kInput4 = (S::inputs + 3) / 4;
  static constexpr u32 kState4 = S::state_bytes / 16 / S::lanes;
  static constexpr u32 kGroups = S::threads / S::lanes, kUnits = (S::each + kGroups - 1) / kGroups;
  // Threads that have units, whole warps of them.
  static constexpr u32 kActive = ((S::each < kGroups ? S::each : kGroups) * S::lanes + 31) / 32 * 32;
  static constexpr u32 kCount = 16 * kState4 * kUnits;
  static constexpr u32 kBytes = S::each * S::blocks * 4;  // of a state that is sent
  static constexpr bool kEmitsCell = S::emits_cell && !S::gru;
  static constexpr u32 kExchanges = S::steps + kEmitsCell;
  // Rows of weights that a thread multiplies at a time, so many from one to the next, and threads that have the same ones.
  static constexpr u32 kTogether = S::row_where == Weights::Registers ? 1 : 2, kApart = kRows / kTogether;
  static constexpr u32 kSpread = S::threads / kApart > 0 ? S::threads / kApart : 1;

  using RowWeights = ThreadWeights<S::row_where, 4 * kInput4, kRows, S::half>;
  using Late = ThreadWeights<Weights::Registers, kCount, S::threads, S::half>;
  ThreadWeights<S::loads_late ? Weights::Global : S::where, kCount, S::threads, S::half> weights;
  RowWeights row_weights;

  __device__ Recurrent(const Block& b, const Turn& turn)
      : weights(b, turn, at(b), S::kept),
        row_weights(turn, S::row_weights + u64(b.rank) * S::row_weights_each, S::row_kept, b.thread % kRows) {
    for (u32 i = b.thread; i < S::units; i += S::threads) shared(S::first)[i] = constant(turn.constants + S::initial + 4ull * i);
  }
  __device__ static void arm(const Block& b) {
    if (S::blocks > 1 && b.thread == 0) expect(S::barriers, kBytes), expect(S::barriers + 8, kBytes);
  }

  __device__ bool run(const Block& b, const Turn& turn) const {
    const float* in = whole<S::in, S::in_bytes>(b);
    if (S::pads) {
      for (u32 i = b.thread; i < S::steps * S::inputs; i += S::threads)
        shared(S::padded)[i / S::inputs * kInput4 * 4 + i % S::inputs] = in[i];
      in = shared(S::padded);
      sync_block();
    }
    if (S::alone && b.rank != 0) return true;
    if (!S::is_projected) {
      for (u32 row = b.thread % kApart; row < kApart; row += S::threads) project(b, turn, in, row);
      sync_block();
    }
    if constexpr (S::lanes == 2) {
      if constexpr (S::loads_late) steps_of_pairs(b, turn, Late(b, turn, at(b), 0)); else steps_of_pairs(b, turn, weights);
      sync_block();
      return true;
    } else {
      const bool whole = S::loads_late ? steps(b, turn, Late(b, turn, at(b), 0)) : steps(b, turn, weights);
      return !sync_block_or(!whole);
    }
  }

 private:
  __device__ static u64 at(const Block& b) { return S::weights + u64(b.rank) * S::weights_each; }
  __device__ static float* projected(const Block& b) {
    return S::projected_in_state ? in_state(b, S::projected) : shared(S::projected);
  }
  __device__ static float* out(const Block& b) { return S::out_in_state ? in_state(b, S::out) : shared(S::out); }

  // Rows of weights, this one and so many further on, times the inputs of some of the steps.
  __device__ void project(const Block& b, const Turn& turn, const float* in, u32 row) const {
    float bias[kTogether];
#pragma unroll
    for (u32 r = 0; r < kTogether; ++r) {
      const u32 of = row + r * kApart, unit = b.rank * S::each + of / 4;
      bias[r] = unit < S::units ? constant(turn.constants + S::bias + 4ull * (unit * 4 + of % 4)) : 0.f;
    }
    float* to = projected(b) + row;
    const u32 spread = b.thread / kApart;
    if (kApart < S::threads && spread >= kSpread) return;
    for (u32 step = (kApart < S::threads ? spread : 0) * S::tile; step < S::steps; step += kSpread * S::tile) {
      float a[kTogether][S::tile];
#pragma unroll
      for (u32 r = 0; r < kTogether; ++r) {
#pragma unroll
        for (u32 j = 0; j < S::tile; ++j) a[r][j] = bias[r];
      }
#pragma unroll(S::row_where == Weights::Registers ? kInput4 : 1)
      for (u32 k = 0; k < kInput4; ++k) {
        Words4 w[kTogether];
#pragma unroll
        for (u32 r = 0; r < kTogether; ++r) w[r] = row_weights(k, row + r * kApart);
#pragma unroll
        for (u32 j = 0; j < S::tile; ++j) {
          // What lies behind the last step's row is read, if anything, and not used.
          const u32 from = step + j < S::steps ? step + j : S::steps - 1;
          const Words4 x = four(in + from * (S::pads ? kInput4 * 4 : S::inputs), k);
#pragma unroll
          for (u32 r = 0; r < kTogether; ++r) {
            a[r][j] = fmaf(w[r].x, x.x, a[r][j]), a[r][j] = fmaf(w[r].y, x.y, a[r][j]);
            a[r][j] = fmaf(w[r].z, x.z, a[r][j]), a[r][j] = fmaf(w[r].w, x.w, a[r][j]);
          }
        }
      }
#pragma unroll
      for (u32 r = 0; r < kTogether; ++r) {
#pragma unroll
        for (u32 j = 0; j < S::tile; ++j)
          if (step + j < S::steps) to[(step + j) * kRows + r * kApart] = a[r][j];
      }
    }
  }
  __device__ static Words4 four(const float* row, u32 k) {
    if (S::pads || S::inputs % 4 == 0) return reinterpret_cast<const Words4*>(row)[k];
    const auto one = [&](u32 e) { return 4 * k + e < S::inputs ? row[4 * k + e] : 0.f; };
    return {one(0), one(1), one(2), one(3)};
  }

  // Two lanes have a unit, and both compute all of its gates: one shuffle a gate, and no other lane to wait for. The two copies of
  // the state are where the instructions say: between a barrier and the first load nothing is computed.
  template <class W>
  __device__ static void steps_of_pairs(const Block& b, const Turn& turn, const W& weights) {
    if (same_in_warp(b.warp) * 32 >= kActive) return;
    const u32 unit = b.thread / 2 < S::units ? b.thread / 2 : 0;
    const bool writes = b.thread < 2 * S::units && b.thread % 2 == 0;
    const Words4* read = reinterpret_cast<const Words4*>(shared(S::state)) + b.thread % 2;
    float* write = shared(S::state) + unit;
    const float* row = projected(b) + 4 * unit;
    const float* const last = row + (S::steps - 1) * kPitch;
    // A row of the device's memory is on its way a step before it is wanted.
    Words4 next{};
    if (S::is_projected) next = load_words4(row);
    float* to = out(b) + unit;
    float h = shared(S::first)[unit], c = S::gru ? 0.f : constant(turn.constants + S::initial + 4ull * (S::units + unit));
    constexpr u32 kCopy = S::state_bytes / 4;
    if (writes) write[kCopy] = h;
    sync_threads<kActive>();
    const auto step = [&](u32 from, u32 into) {
      const Words4 of_row = S::is_projected ? next : *reinterpret_cast<const Words4*>(row);
      if (row < last) row += kPitch;
      if (S::is_projected) next = load_words4(row);
      one_step(b, weights, read + from / 4, of_row, h, c);
      if (writes) {
        write[into] = h;
        if (S::emits_all) *to = h;
      }
      to += S::units;
      sync_threads<kActive>();
    };
#pragma unroll 1
    for (u32 two = 0; two < S::steps / 2; ++two) {
      step(kCopy, 0);
      step(0, kCopy);
    }
    if (S::steps % 2 != 0) step(kCopy, 0);
    if (!writes) return;
    if (!S::emits_all) out(b)[unit] = h;
    if (kEmitsCell) out(b)[S::steps * S::units + unit] = c;
  }

  template <class W>
  __device__ static void one_step(const Block& b, const W& weights, const Words4* of_state, const Words4& row, float& h, float& c) {
    Words4 v[kState4];
#pragma unroll
    for (u32 k = 0; k < kState4; ++k) v[k] = of_state[k * 2];
    float sums[3], of_output[1];
    if constexpr (S::gru) {
      multiply<3>(b, weights, v, {0, 1, 2}, sums);
      const float z = sigmoid(sums[0] + row.x), r = sigmoid(sums[1] + row.y);
      const float candidate = hyperbolic_tangent(fmaf(r, sums[2] + row.w, row.z));
      h = fmaf(z, h - candidate, candidate);
    } else {
      // The output's gate comes last: it is not wanted before the cell is there.
      multiply<3>(b, weights, v, {3, 0, 2}, sums);
      const float g = fmaf(2.f, sigmoid(2.f * (sums[0] + row.w)), -1.f);
      multiply<1>(b, weights, v, {1}, of_output);
      c = fmaf(sigmoid(sums[2] + row.z), c, sigmoid(sums[1] + row.x) * g);
      h = sigmoid(of_output[0] + row.y) * hyperbolic_tangent(c);
    }
  }

  struct Gates {
    u32 of[3];
  };
  // The state times the weights of some gates, a lane's share and then both.
  template <u32 kGates, class W>
  __device__ static void multiply(const Block& b, const W& weights, const Words4 (&v)[kState4], const Gates& gates, float (&sums)[kGates]) {
    float a[kGates] = {}, c[kGates] = {};
#pragma unroll
    for (u32 k = 0; k < kState4; ++k) {
#pragma unroll
      for (u32 i = 0; i < kGates; ++i) {
        const Words4 w = weights(gates.of[i] * kState4 + k, b.thread);
        a[i] = fmaf(w.x, v[k].x, a[i]), c[i] = fmaf(w.y, v[k].y, c[i]);
        a[i] = fmaf(w.z, v[k].z, a[i]), c[i] = fmaf(w.w, v[k].w, c[i]);
      }
    }
#pragma unroll
    for (u32 i = 0; i < kGates; ++i) {
      const float mine = a[i] + c[i];
      sums[i] = mine + across_lanes(mine, 1);
    }
  }

  template <class W>
  __device__ static bool steps(const Block& b, const Turn& turn, const W& weights) {
    if (S::blocks > 1 && b.thread / 32 * 32 >= kActive) return true;
    const u32 group = b.thread / S::lanes, part = b.thread % S::lanes;
    const float* of_rows = projected(b) + b.thread % 4;
    float c[kUnits], h[kUnits];
#pragma unroll
    for (u32 i = 0; i < kUnits; ++i) {
      const u32 unit = b.rank * S::each + group + i * kGroups;
      const bool there = group + i * kGroups < S::each && unit < S::units;
      h[i] = there ? shared(S::first)[unit] : 0.f;
      c[i] = there && !S::gru ? constant(turn.constants + S::initial + 4ull * (S::units + unit)) : 0.f;
    }
    for (u32 step = 0; step < S::steps; ++step) {
      const u32 exchange = b.round * kExchanges + step;
      float of_row[kUnits];
#pragma unroll
      for (u32 i = 0; i < kUnits; ++i)
        of_row[i] = group + i * kGroups < S::each ? of_rows[step * kRows + 4 * (group + i * kGroups)] : 0.f;
      if (step > 0 && !come(b, exchange - 1)) return false;
      const float* before = step == 0 ? shared(S::first) : state(exchange - 1);
      if (S::emits_all && S::blocks > 1 && step > 0) keep(b, step - 1, before);
      const Words4* of_state = reinterpret_cast<const Words4*>(before) + part;
#pragma unroll
      for (u32 i = 0; i < kUnits; ++i) {
        float a[4] = {};
#pragma unroll
        for (u32 k = 0; k < kState4; ++k) {
          const Words4 v = of_state[k * S::lanes];
#pragma unroll
          for (u32 gate = 0; gate < (S::gru ? 3 : 4); ++gate) {
            const Words4 w = weights((i * 4 + gate) * kState4 + k, b.thread);
            a[gate] = fmaf(w.x, v.x, a[gate]), a[gate] = fmaf(w.y, v.y, a[gate]);
            a[gate] = fmaf(w.z, v.z, a[gate]), a[gate] = fmaf(w.w, v.w, a[gate]);
          }
        }
        // Of a GRU's candidate the state's part is apart.
        if (S::gru) a[3] = a[2], a[2] = 0;
        gates<S::gru>(b, of_gate<S::lanes>(b, a) + of_row[i], b.lane / S::lanes * S::lanes, h[i], c[i]);
      }
      hand_on(b, exchange, h);
      if (S::blocks == 1 && part == 0) write_own(b, step, h);
      if (S::blocks == 1) sync_block();
    }
    return end(b, c);
  }

  // The last state, and the cell behind it.
  __device__ static bool end(const Block& b, const float (&c)[kUnits]) {
    if (S::blocks == 1) {
      if (kEmitsCell && b.thread % S::lanes == 0) write_own(b, S::steps, c);
      return true;
    }
    const u32 exchange = b.round * kExchanges + S::steps - 1;
    if (!come(b, exchange)) return false;
    keep(b, S::emits_all ? S::steps - 1 : 0, state(exchange));
    if (!kEmitsCell) return true;
    hand_on(b, exchange + 1, c);
    if (!come(b, exchange + 1)) return false;
    keep(b, S::steps, state(exchange + 1));
    return true;
  }

  __device__ static u32 copy_of(u32 exchange) { return S::state + (exchange & 1) * S::state_bytes; }
  __device__ static const float* state(u32 exchange) { return shared(copy_of(exchange)); }
  __device__ static bool come(const Block& b, u32 exchange) {
    return S::blocks == 1 || wait_for(b, S::barriers + 8 * (exchange & 1), exchange >> 1 & 1, kBytes);
  }

  // The block's units, to all blocks.
  __device__ static void hand_on(const Block& b, u32 exchange, const float (&x)[kUnits]) {
    const u32 part = b.thread % S::lanes;
#pragma unroll
    for (u32 i = 0; i < kUnits; ++i) {
      const u32 own = b.thread / S::lanes + i * kGroups;
      if (own >= S::each) continue;
      const u32 at = copy_of(exchange) + 4 * (b.rank * S::each + own);
      if (S::blocks == 1) {
        if (part == 0) *shared(at) = x[i];
        continue;
      }
#pragma unroll
      for (u32 block = 0; block < S::blocks; block += S::lanes)
        if (block + part < S::blocks) send(peer(block + part), at, S::barriers + 8 * (exchange & 1), x[i]);
    }
  }

  // Several blocks: each keeps all of what is written.
  __device__ static void keep(const Block& b, u32 place, const float* from) {
    for (u32 i = b.thread; i < S::units; i += kActive) out(b)[place * S::units + i] = from[i];
  }
  __device__ static void write_own(const Block& b, u32 step, const float (&x)[kUnits]) {
    const bool last = step + 1 == S::steps;
    if (!S::emits_all && !last) return;
#pragma unroll
    for (u32 i = 0; i < kUnits; ++i) {
      const u32 unit = b.thread / S::lanes + i * kGroups;
      if (unit < S::units) out(b)[(S::emits_all ? step : 0) * S::units + unit] = x[i];
    }
  }
};

// The newest step of a window, of a row that is shared out by inputs as Dense has it; the state's part was computed ahead.
// The rows of the matrix are four of each unit, so that the block that adds a unit's sums up computes its gates.
//
// S: as Dense, each_out being four times units_each, and units, gru; out (the block's share of the new state); product,
// product_bytes (the state's part, whole: gate by gate), state, state_bytes (an LSTM's cell or a GRU's output, whole; not read with
// keeps_cell: the block keeps the cells of its units from call to call, at `cell` of its part of the device's memory).
template <class S>
struct RecurrentStep {
  Dense<S> matrix;
  __device__ RecurrentStep(const Block& b, const Turn& turn) : matrix(b, turn) {}
  __device__ static void arm(const Block& b) { Dense<S>::arm(b); }

  __device__ bool run(const Block& b) const {
    matrix.multiply(b);
    bool over = false;
    if (S::direct) sync_block();
    const u32 own = Dense<S>::share(b);
    if (b.warp * 32 < own) {
      const float* product = whole<S::product, S::product_bytes>(b);
      const float* state = whole<S::state, S::state_bytes>(b);
      float ahead[Dense<S>::kOwn], before[Dense<S>::kOwn];
#pragma unroll
      for (u32 i = 0; i < Dense<S>::kOwn; ++i) {
        const u32 unit = unit_of(b, i), gate = b.thread % 4;
        const bool has = unit < S::units && b.thread + i * S::threads < own;
        // A GRU's candidate has its state's part in the fourth lane.
        const u32 of = S::gru ? (gate == 3 ? 2 : gate) : gate;
        ahead[i] = matrix.bias[i] + (has && !(S::gru && gate == 2) ? product[of * S::units + unit] : 0.f);
        before[i] = !has ? 0.f : S::keeps_cell ? in_state(b, S::cell)[(b.thread + i * S::threads) / 4] : state[unit];
      }
      if (!S::direct) over = !wait(b, S::barriers, own * Dense<S>::kParts * 4);
#pragma unroll
      for (u32 i = 0; i < Dense<S>::kOwn; ++i) {
        const u32 row = b.thread + i * S::threads;
        const float sum = (row < own ? parts(b, row) : 0.f) + ahead[i];
        float h = before[i], c = before[i];
        gates<S::gru>(b, sum, b.lane / 4 * 4, h, c);
        const u32 unit = unit_of(b, i);
        if (b.thread % 4 == 0 && row < own && unit < S::units) {
          shared(S::out)[row / 4] = h;
          // A call that this turn does not answer is no step.
          if (S::keeps_cell && !b.rehearses && !over) in_state(b, S::cell)[row / 4] = c;
        }
      }
    }
    return !sync_block_or(over);
  }

 private:
  __device__ static u32 unit_of(const Block& b, u32 i) { return (b.rank * S::each_out + b.thread + i * S::threads) / 4; }
  __device__ static float parts(const Block& b, u32 row) {
    const float* parts = shared(S::received + (S::direct ? 0 : b.copy() * S::received_bytes)) + row;
    float a[4] = {};
#pragma unroll
    for (u32 part = 0; part < Dense<S>::kParts; ++part) a[part % 4] += parts[part * S::each_out];
    return (a[0] + a[1]) + (a[2] + a[3]);
  }
};

}  // namespace resident
}  // namespace tickrt

// The beginning of a call: each block asks the host's memory, or its own device's, for its share of the units or for all, one load on its way
// a thread, and normalises what came. A block without a share asks nobody: loads of one line are served one after the other, a microsecond
// each (benches/probes/resident.md). Block 0 tells it that the call has come.

namespace tickrt {
namespace resident {

enum class InputType : u32 { F32, F16, U8, I16 };
constexpr u32 elements_of_word(InputType type) { return type == InputType::F32 ? 1 : type == InputType::U8 ? 4 : 2; }
__device__ inline float element(InputType type, u32 word, u32 k) {
  switch (type) {
    case InputType::F32: return as_float(word);
    case InputType::F16: return half_as_float(word >> (16 * k) & 0xffff);
    case InputType::U8: return float(word >> (8 * k) & 0xff);
    default: return float(short(word >> (16 * k) & 0xffff));
  }
}

// S: threads, blocks; lead (units before those of the input: none, or the number of rows that a call brings and one that
// means nothing; block 0 takes them), rows_word (where that number goes), come_word (where block 0 tells of a call); units (of
// all the others, even), units_each (of a block, even); type, count (elements); scaled (whether there is a table of mean, std
// and place an element), table (its offset in the constants); replaces, replacement (of what is not finite); bounded, lowest,
// highest; to (where the elements go), whole (to every block, or to the one that asks, as its share of `each`), to_bytes (of
// one copy), barriers; hands_out (block 0 alone asks, and sends each block its share); to_each
// (every block that asks wants all of it, for itself).
//
// Shares that are handed out have one copy: what reads them sends sums to block 0, so that this takes no further call before all
// have read the one before.
template <class S>
struct Input {
  static constexpr u32 kElements = elements_of_word(S::type);
  // Blocks that have a share.
  static constexpr u32 kAsking = S::units <= S::units_each ? 1 : (S::units + S::units_each - 1) / S::units_each;
  static constexpr bool kSends = S::whole && S::blocks > 1 && !S::to_each;
  // Blocks that know of a call without being told.
  static constexpr u32 kKnowing = S::hands_out ? (S::count + S::each - 1) / S::each : kAsking;

  // Whether block 0, which asks alone, has a load for every pair: then its warps look at the same time, or a call would wait for
  // the last of so many looks that are out of step.
  static constexpr bool kInStep = S::hands_out && (S::lead + S::units) / 2 <= S::threads;

  __device__ Input(const Block&, const Turn&) {}
  __device__ static void arm(const Block& b) {
    const u32 bytes = S::hands_out ? own(b) * 4 : 0;
    if (bytes && b.thread == 0) expect(S::barriers, bytes), expect(S::barriers + 8, bytes);
    if (kSends && b.thread == 0) expect(S::barriers, S::count * 4), expect(S::barriers + 8, S::count * 4);
  }

  // Whether the call has come; false: the turn is over.
  __device__ bool take(Block& b, const Turn& turn) const {
    bool over = part(b) < kAsking ? !(kInStep ? ask_in_step(b, turn) : ask(b, turn)) : b.rank >= kKnowing && b.warp == 0 && !is_told(b);
    if (over && b.is_first_thread()) end_for_all<S::blocks>(b);
    if (S::hands_out && !over && own(b)) over = !wait(b, S::barriers, own(b) * 4);
    if (kSends && !over) over = !wait(b, S::barriers, S::count * 4);
    return !sync_block_or(over);
  }

  // Element `from` of a row as it is handed over.
  __device__ static float of_row(const Turn& turn, u32 from, float x) {
    return S::scaled ? normalised(x, constant4(turn.constants + S::table + 16ull * from)) : x;
  }

 private:
  // What the table has of the elements of two units: looked up before a call is there.
  struct Scales {
    Words4 of[S::scaled ? 2 * kElements : 1];
    __device__ Scales(const Turn& turn, u32 unit) {
      if (!S::scaled) return;
#pragma unroll
      for (u32 k = 0; k < 2 * kElements; ++k) {
        const u32 from = unit * kElements + k;
        of[k] = constant4_ahead(turn.constants + S::table + 16ull * (from < S::count ? from : S::count - 1));
      }
    }
  };

  // Which of the parts that are asked for.
  __device__ static u32 part(const Block& b) { return S::to_each ? 0 : b.rank; }

  // Elements of the block's share.
  __device__ static u32 own(const Block& b) { return own_share(b, S::each, S::count); }

  __device__ static bool is_of_call(const Block& b, const Units& v) {
    return u32(v.first >> 32) == u32(b.call) && u32(v.second >> 32) == u32(b.call);
  }

  // Block 0's first warp has seen the call: those that ask nobody learn of it.
  __device__ static void tell_others(const Block& b) {
    if (!S::to_each && kKnowing + b.lane < S::blocks) tell(peer(kKnowing + b.lane), S::come_word, u32(b.call) << 1 | 1);
  }

  __device__ static bool ask(Block& b, const Turn& turn) {
    const u32 before = part(b) * S::units_each, lead = part(b) == 0 ? S::lead / 2 : 0;
    const u32 own = lead + (S::units - before < S::units_each ? S::units - before : S::units_each) / 2;
    const u64 units = turn.input + u64(b.slot) * turn.input_stride + (part(b) ? 8ull * (S::lead + before) : 0);
    for (u32 base = b.warp * 32; base < own; base += S::threads) {
      const u32 pair = base + b.lane;
      const bool mine = pair < own;
      const u32 unit = before + (pair < lead ? 0 : pair - lead) * 2;
      const Scales scales(turn, unit);
      Units v{0, 0};
      for (u32 looks = 0;; ++looks) {
        if (mine) v = load_units(units + 16ull * pair);
        if (all_of_warp(!mine || is_of_call(b, v))) {
          if (b.call == b.first && looks == 0 && pair == 0) b.met = true;
          break;
        }
        if (any_of_warp(ends(b, pair, looks, v))) return false;
      }
      if (pair < lead) *shared(S::rows_word) = as_float(u32(v.first));
      if (S::hands_out && pair >= lead && mine) hand_out(b, scales, unit, v);
      if (!S::hands_out && pair >= lead && mine) {
        put_word(b, scales.of, unit, u32(v.first));
        put_word(b, scales.of + (S::scaled ? kElements : 0), unit + 1, u32(v.second));
      }
      if (b.rank == 0 && base == 0) tell_others(b);
    }
    return true;
  }

  __device__ static bool ask_in_step(Block& b, const Turn& turn) {
    const u32 pair = b.thread, lead = S::lead / 2;
    const u64 units = turn.input + u64(b.slot) * turn.input_stride;
    const bool mine = pair < lead + S::units / 2;
    bool has = !any_of_warp(mine);
    const u32 unit = pair < lead ? 0 : (pair - lead) * 2;
    const Scales scales(turn, unit);
    Units v{0, 0};
    for (u32 looks = 0;; ++looks) {
      if (!has) {
        if (mine) v = load_units(units + 16ull * pair);
        has = all_of_warp(!mine || is_of_call(b, v));
        if (has) {
          if (b.call == b.first && looks == 0 && pair == 0) b.met = true;
          if (pair < lead) *shared(S::rows_word) = as_float(u32(v.first));
          if (mine && pair >= lead) hand_out(b, scales, unit, v);
          if (b.warp == 0) tell_others(b);
        }
      }
      if (!sync_block_or(!has)) return true;
      if (sync_block_or(!has && ends(b, pair, looks, v))) return false;
    }
  }

  // Two words beside each other lie in one share, whose blocks begin at multiples of four.
  __device__ static void hand_out(const Block& b, const Scales& scales, u32 from, const Units& v) {
    if (from >= S::count) return;
    const auto handed = [&](u32 k, u64 unit) { return S::scaled ? normalised(as_float(u32(unit)), scales.of[k]) : as_float(u32(unit)); };
    const float first = handed(0, v.first);
    const u32 there = peer(from / S::each), at = S::to + 4 * (from % S::each), barrier = S::barriers + 8 * b.copy();
    if (from + 1 < S::count)
      send2(there, at, barrier, first, handed(S::scaled ? 1 : 0, v.second));
    else
      send(there, at, barrier, first);
  }

  __device__ static bool is_told(const Block& b) {
    for (u32 looks = 0;; ++looks) {
      const u32 word = told(S::come_word);
      if (word && int((word & ~1u) - (u32(b.call) << 1)) >= 0) return true;
      if ((looks & 15) == 15 && is_over(b, looks)) return false;
      rest(20);
    }
  }

  __device__ static bool ends(Block& b, u32 pair, u32 looks, const Units& v) {
    if (b.rank == 0 && pair < 32) {
      if (pair != 0) return false;
      b.stopped = u32(v.first >> 32) == (u32(b.call) ^ kStop);
      return b.stopped || ((looks & 7) == 7 && nanoseconds() > b.until);
    }
    return is_over(b, looks);
  }

  // `scales`: of the word's elements.
  __device__ static void put_word(const Block& b, const Words4* scales, u32 unit, u32 word) {
#pragma unroll
    for (u32 k = 0; k < kElements; ++k) {
      const u32 from = unit * kElements + k;
      if (from >= S::count) return;
      float x = element(S::type, word, k);
      u32 to = from;
      if (S::scaled) {
        const Words4& e = scales[k];
        x = normalised(x, e);
        // Whatever has become of the table: not beyond the input.
        to = as_bits(e.z) < S::count ? as_bits(e.z) : 0;
      }
      if (kSends) {
        for (u32 block = 0; block < S::blocks; ++block)
          send(peer(block), S::to + b.copy() * S::to_bytes + 4 * to, S::barriers + 8 * b.copy(), x);
      } else {
        shared(S::to)[S::whole ? to : from - part(b) * S::each] = x;
      }
    }
  }

  __device__ static float normalised(float x, const Words4& e) {
    const bool finite = x - x == 0;
    return finite || !S::replaces ? bounded(scaled(x, e.x, e.y)) : S::replacement;
  }

  // NaN passes both comparisons.
  __device__ static float bounded(float x) {
    return !S::bounded ? x : x < S::lowest ? S::lowest : x > S::highest ? S::highest : x;
  }
};

}  // namespace resident
}  // namespace tickrt

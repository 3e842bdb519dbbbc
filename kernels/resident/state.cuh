// State that calls carry: of each recurrent layer the output of its last step, whole in every block's part of the device's memory, and of an
// LSTM the cells of the block's own units, which RecurrentStep keeps there. What is computed ahead reads the output; the next turn
// finds both.

namespace tickrt {
namespace resident {

// Behind the answer. A call that begins anew, which block 0 was told with its row and tells all, sets the state to the network's initial
// one instead, and is computed again.
//
// S: threads, blocks; rows_word, rows_to (two words, one for each copy), barriers; keep(b), begin_anew(b, turn).
template <class S>
struct KeepState {
  static constexpr bool kSends = S::blocks > 1;
  static constexpr u32 kBytes = 4;

  __device__ KeepState(const Block&, const Turn&) {}
  __device__ static void arm(const Block& b) {
    if (kSends && b.thread == 0) expect(S::barriers, kBytes), expect(S::barriers + 8, kBytes);
  }

  __device__ bool run(Block& b, const Turn& turn) const {
    // All have seen whether the answer is final.
    sync_block();
    if (kSends && b.rank == 0 && b.thread < S::blocks)
      send(peer(b.thread), S::rows_to + 4 * b.copy(), S::barriers + 8 * b.copy(), *shared(S::rows_word));
    if (sync_block_or(kSends && !wait(b, S::barriers, kBytes))) return false;
    const bool anew = as_bits(*shared(kSends ? S::rows_to + 4 * b.copy() : S::rows_word)) > 1;
    if (anew && !b.again) {
      S::begin_anew(b, turn);
      b.again = true;
    } else {
      S::keep(b);
      b.again = false;
    }
    sync_block();
    return true;
  }
};

template <u32 kThreads, u32 kUnits>
__device__ void keep_output(const Block& b, u32 state, const float* output) {
  for (u32 i = b.thread; i < kUnits; i += kThreads) in_state(b, state)[i] = output[i];
}

template <u32 kThreads>
__device__ void set_state(const Block& b, const Turn& turn, u32 state, u32 constants, u32 count) {
  for (u32 i = b.thread; i < count; i += kThreads) in_state(b, state)[i] = constant(turn.constants + constants + 4ull * i);
}

}  // namespace resident
}  // namespace tickrt

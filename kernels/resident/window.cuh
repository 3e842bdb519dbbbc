// A window whose newest row comes with the call. Each block keeps all rows of the window in its part of the device's memory:
// what is computed ahead reads them there, and the next turn finds them. A row lies at its call's place of a ring, and once
// more a window further, so that any window lies in one piece.

namespace tickrt {
namespace resident {

// Where the rows before the newest one of this call begin.
template <u32 kRow, u32 kSteps>
__device__ const float* window_of(const Block& b) {
  return in_state(b, 0) + u32((b.call + 1) % kSteps) * kRow;
}

// Behind the answer: the row, and the number of rows that block 0 was given with it, go to every block, which puts the row
// into its window. A call that brought a whole window is computed again: its rows are read from the host first.
//
// A turn of which half is over ends here, where the next one has the same to compute ahead as this one would have. While a call
// is awaited it would have to compute again what is there, and a row that came then would wait for that.
//
// S: threads, blocks; count (of a row), each, from (the block's share); whole, whole_bytes (where the row is whole already, if
// `is_whole`), to, to_bytes (of one copy), barriers; rows_word, rows_to (two words, one for each copy); steps; type; Normal
// (the input's structure).
template <class S>
struct NewRow {
  static constexpr bool kSends = S::blocks > 1;
  static constexpr u32 kLast = 0x80000000u;  // beside the number of rows
  static constexpr u32 kInWord = elements_of_word(S::type), kSize = 4 / kInWord;  // elements of a word, bytes of an element
  static constexpr u32 kBytes = (S::is_whole ? 0 : (S::count + 3) / 4 * 16) + 4;

  __device__ NewRow(const Block&, const Turn&) {}
  __device__ static void arm(const Block& b) {
    if (kSends && b.thread == 0) expect(S::barriers, kBytes), expect(S::barriers + 8, kBytes);
  }

  __device__ bool run(Block& b, const Turn& turn) const {
    // One thread decides for all, when all have seen whether the answer is final.
    sync_block();
    if (b.is_first_thread() && nanoseconds() + turn.limit_ns / 2 > b.until)
      *shared(S::rows_word) = as_float(as_bits(*shared(S::rows_word)) | kLast);
    sync_block();
    if (kSends) send_own(b);
    if (sync_block_or(kSends && !wait(b, S::barriers, kBytes))) return false;
    const u32 told = as_bits(*shared(kSends ? S::rows_to + 4 * b.copy() : S::rows_word)), rows = told & ~kLast;
    if (rows > 1 && !b.again) {
      take_window(b, turn);
      b.again = true;
    } else {
      const float* row = S::is_whole ? whole<S::whole, S::whole_bytes>(b)
                                     : kSends ? shared(S::to + b.copy() * S::to_bytes) : shared(S::from);
      for (u32 i = b.thread; i < S::count; i += S::threads) put(b, b.call, i, row[i]);
      b.again = false;
      b.leaves = told & kLast;
    }
    sync_block();
    return true;
  }

 private:
  __device__ static void send_own(const Block& b) {
    const u32 barrier = S::barriers + 8 * b.copy();
    if (b.rank == 0 && b.thread < S::blocks) send(peer(b.thread), S::rows_to + 4 * b.copy(), barrier, *shared(S::rows_word));
    if (S::is_whole) return;
    const u32 before = b.rank * S::each;
    const u32 own = own_share(b, S::each, S::count);
    for (u32 i = b.thread; i < (own + 3) / 4 * S::blocks; i += S::threads) {
      const u32 chunk = i / S::blocks, block = (i + b.rank) % S::blocks;
      const Words4 v = reinterpret_cast<const Words4*>(shared(S::from))[chunk];
      send4(peer(block), S::to + b.copy() * S::to_bytes + 4 * before + 16 * chunk, barrier, v);
    }
  }

  __device__ static void put(const Block& b, u64 call, u32 i, float x) {
    float* ring = in_state(b, 0) + u32(call % S::steps) * S::count + i;
    ring[0] = ring[S::steps * S::count] = x;
  }

  // All rows but the newest, which is among the units.
  __device__ static void take_window(const Block& b, const Turn& turn) {
    fence_system();
    const u64 rows = turn.rows + u64(b.slot) * turn.rows_stride;
    for (u32 i = b.thread; i < (S::steps - 1) * S::count; i += S::threads) {
      const u32 word = load_word4_of_host(rows + i * kSize / 4 * 4);
      const float x = element(S::type, word, i % kInWord);
      // Of the oldest row on; those before the stream's first call have no number, but a place.
      put(b, b.call + i / S::count + 1, i % S::count, Input<typename S::Normal>::of_row(turn, i % S::count, x));
    }
  }
};

// Whether the answer is the one: in block 0, which was told the number of rows.
__device__ inline bool is_final(const Block& b, u32 rows_word) { return b.rank != 0 || b.again || as_bits(*shared(rows_word)) <= 1; }

}  // namespace resident
}  // namespace tickrt

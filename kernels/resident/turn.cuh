// A turn of a resident engine: a bounded time in which its kernel answers calls. src/backend/resident.rs queues turns one
// behind the other; no turn lasts much longer than its limit, whatever becomes of the host.
//
// Block 0 alone decides that a turn is over, or a call could be begun by some blocks and left by others: it looks at the
// clock, and for a stop, while its own first units are not there, and tells the others. Those look at the clock, too, but
// with half a second of grace, in case block 0 is no more.

namespace tickrt {
namespace resident {

// What the host hands to a turn. src/backend/resident.rs has the same in Rust.
struct Turn {
  u64 constants;  // device memory: the artefact's constants
  u64 input;      // mapped: units of slot 0's input, each a word with its call's number above it
  u64 answer;     // mapped: units of slot 0's answer
  u64 progress;   // device memory: GridWord
  u64 report;     // mapped: Report
  u64 limit_ns;   // of %globaltimer
  u64 state;      // device memory: what outlives a turn, and room for large values; each block has its own part
  u32 input_stride, answer_stride;  // bytes from slot to slot
  u32 depth;      // call n lies in slot (n - 1) % depth
  u32 flags;      // kInputNear
  u64 rows;       // mapped: slot 0's rows, where a call brings a whole window
  u32 rows_stride;
  u32 reserved;
};
// In Turn::flags: the host writes calls into the device's memory.
constexpr u32 kInputNear = 1;
// At Turn::progress: the number of the call that comes next, and what blocks of a grid meet by (grid.cuh), zeros before the first turn: how
// many have come to the ends of rounds, the tag of the round that does not take place any more, how it goes on behind the round, how many have
// come to beginnings of turns, and the turn's first round.
enum GridWord : u32 { kNextCall, kArrived, kOver, kGoesOn, kBegun, kFirst };
constexpr u32 kStages = 24;
// Where its words lie in mapped memory; `turns` is written last.
enum ReportWord : u32 { kTurns, kNext, kMet, kStopped, kCycles };

constexpr u64 kGrace = 500000000;
// A call's number with this bit turned, in its first unit: end the turn.
constexpr u32 kStop = 0x80000000u;

// One thread's view of the turn.
struct Block {
  u32 rank, thread, warp, lane;
  u64 first;     // the turn's first call
  u64 call;      // the one awaited or computed
  u64 until;     // by nanoseconds()
  u32 stop_word; // offset of the word that says that the turn is over
  bool met, stopped;
  bool leaves;   // the turn ends behind this call
  bool again;    // the call is computed a second time, now of the window that it brought
  bool rehearses;  // what follows is computed of what lies there: nothing is sent, waited for or answered
  u32 slot;
  u32 round;     // calls computed in this turn, those computed again counted twice
  u64 state;     // this block's part of Turn::state; of a grid, all of it
  u64 grid;      // of a grid: its words; else 0
  u32 tag;       // of a grid: the round's
  const float* window;  // the rows before the newest one

  // Of the two copies of what blocks send each other, the one for this round, and the phase of its barriers.
  __device__ u32 copy() const { return round & 1; }
  __device__ u32 phase() const { return round >> 1 & 1; }
  __device__ bool is_first_thread() const { return (rank | thread) == 0; }
};

__device__ inline Block begin(const Turn& turn, u32 stop_word, u64 state_each) {
  Block b{};
  b.rank = this_block();
  b.thread = this_thread();
  b.warp = b.thread / 32;
  b.lane = b.thread % 32;
  b.first = b.call = load_word8(turn.progress);
  b.slot = u32((b.call - 1) % turn.depth);
  b.until = nanoseconds() + turn.limit_ns;
  b.stop_word = stop_word;
  b.state = turn.state + b.rank * state_each;
  return b;
}

__device__ inline void next_call(Block& b, const Turn& turn) {
  ++b.round;
  if (b.again) return;
  ++b.call;
  b.slot = b.slot + 1 == turn.depth ? 0 : b.slot + 1;
}

// Elements of the block's share, of `count` of which each block has `each`.
__device__ inline u32 own_share(const Block& b, u32 each, u32 count) {
  const u32 before = b.rank * each;
  return before >= count ? 0 : count - before < each ? count - before : each;
}

// One thread tells every block that the turn is over before this call. Those before it are computed to their end by all.
template <u32 kBlocks>
__device__ void end_for_all(const Block& b) {
  if (b.grid) return store_word8(b.grid + 8 * kOver, b.tag);
  for (u32 block = 0; block < kBlocks; ++block) tell(peer(block), b.stop_word, u32(b.call) << 1 | 1);
}

// Whether to leave off: asked once in a while by who waits.
__device__ inline bool is_over(const Block& b, u32 looks) {
  if (b.grid && b.tag && load_word8(b.grid + 8 * kOver) == b.tag) return true;
  const u32 word = b.grid ? 0 : told(b.stop_word);
  // Of two numbers of 31 bits, which is ahead.
  const bool ends = word && int((u32(b.call) << 1) - (word & ~1u)) >= 0;
  return ends || ((looks & 255) == 255 && nanoseconds() > b.until + kGrace);
}

// Waits for the bytes of a message; false: the turn is over. The first thread of the block arms the barrier for the next but
// one call; nothing for that can come before this call's answer is out.
__device__ inline bool wait_for(const Block& b, u32 barrier, u32 phase, u32 bytes) {
  if (b.rehearses) return true;
  for (u32 looks = 0; !arrived(barrier, phase); ++looks)
    if ((looks & 15) == 15 && is_over(b, looks)) return false;
  if (b.thread == 0) expect(barrier, bytes);
  return true;
}
__device__ inline bool wait(const Block& b, u32 barriers, u32 bytes) {
  return wait_for(b, barriers + 8 * b.copy(), b.phase(), bytes);
}

// The end, for all threads. What was sent to a block that has left would land in somebody else's memory: each is given the
// time to arrive. `spent`: the cycles of each stage, if anybody counted.
template <u32 kBlocks>
__device__ void finish(const Block& b, const Turn& turn, const u64* spent) {
  if (kBlocks > 1) {
    sync_cluster();
    rest(2000);
    sync_cluster();
  }
  if (!b.is_first_thread()) return;
  store_word8(turn.progress, b.call);
  const auto at = [&](u32 word) { return turn.report + 8ull * word; };
  for (u32 i = 0; i < kStages && spent; ++i) store_word8(at(kCycles + i), load_word8(at(kCycles + i)) + spent[i]);
  store_word8(at(kNext), b.call);
  if (b.met) store_word8(at(kMet), load_word8(at(kMet)) + 1);
  if (b.stopped) store_word8(at(kStopped), load_word8(at(kStopped)) + 1);
  store_unit_release(at(kTurns), load_word8(at(kTurns)) + 1);
}

}  // namespace resident
}  // namespace tickrt

// The primitives of kernels/resident/primitives.cuh on a CPU: one fiber a CUDA thread, one after the other, switched wherever
// a thread waits. What blocks send each other arrives late and in any order. Compiled with the source of a resident engine
// behind it (tests/resident_emulated.rs); it shows what a kernel computes and where it would hang, not what its memory orders.
#pragma once

#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <vector>

#define __device__
#define __global__
#define __grid_constant__
#define __launch_bounds__(...)
#define __cluster_dims__(...)

namespace tickrt {
namespace resident {

using u32 = unsigned int;
using u64 = unsigned long long;
struct alignas(16) Words4 {
  float x, y, z, w;
};
struct alignas(16) Units {
  u64 first, second;
};

namespace emulated {

constexpr size_t kSharedBytes = 232448, kStackBytes = 65536;

struct Meeting {
  u32 there = 0, generation = 0;
  bool any = false, any_before = false;
};
struct Warp {
  Meeting meeting;
  float values[32];
  Words4 rows[32];
  u32 columns[32][2];
};
struct Barrier {
  u32 phase = 0;
  int pending = 1;
  long bytes = 0;
};
struct Message {
  u32 block, offset, barrier, words, delay;
  float data[4];
  // A run's, which is read when it arrives.
  const unsigned char* from;
};
// On its way until its thread waits for it.
struct Copy {
  unsigned char* to;
  const void* from;
};
struct Fiber {
  ucontext_t context;
  u32 block, thread;
  bool ended;
  std::vector<Copy> copies;
};

struct Machine {
  u32 blocks, threads;
  std::vector<unsigned char*> shared;
  std::vector<Meeting> meetings, meetings_of_some;
  std::vector<std::vector<Warp>> warps;
  Meeting cluster;
  std::map<std::pair<u32, u32>, Barrier> barriers;
  std::vector<Message> messages;
  std::vector<Fiber> fibers;
  ucontext_t scheduler;
  Fiber* running = nullptr;
  u64 random = 1;
  u32 faults = 0;

  u32 next_random() {
    random = random * 6364136223846793005ull + 1442695040888963407ull;
    return u32(random >> 33);
  }
  void complete(Barrier& barrier) {
    if (barrier.pending == 0 && barrier.bytes == 0) ++barrier.phase, barrier.pending = 1;
  }
  void deliver() {
    size_t kept = 0;
    for (Message& message : messages) {
      if (message.delay > 0) {
        --message.delay;
        messages[kept++] = message;
        continue;
      }
      const void* from = message.from ? static_cast<const void*>(message.from) : message.data;
      memcpy(shared[message.block] + message.offset, from, 4 * message.words);
      Barrier& barrier = barriers[{message.block, message.barrier}];
      barrier.bytes -= 4 * message.words;
      complete(barrier);
    }
    messages.resize(kept);
  }
};
inline thread_local Machine* machine = nullptr;

inline void yield() { swapcontext(&machine->running->context, &machine->scheduler); }
inline bool meet(Meeting& meeting, u32 all, bool any = false) {
  const u32 generation = meeting.generation;
  meeting.any |= any;
  if (++meeting.there == all) {
    meeting.there = 0;
    meeting.any_before = meeting.any;
    meeting.any = false;
    ++meeting.generation;
  } else {
    while (meeting.generation == generation) yield();
  }
  return meeting.any_before;
}
inline Warp& warp() { return machine->warps[machine->running->block][machine->running->thread / 32]; }

}  // namespace emulated

inline u32 this_thread() { return emulated::machine->running->thread; }
inline u32 this_block() { return emulated::machine->running->block; }
inline u32 this_cluster() { return emulated::machine->running->block; }
inline void sync_block() {
  using namespace emulated;
  meet(machine->meetings[this_block()], machine->threads);
}
inline bool sync_block_or(bool any) {
  using namespace emulated;
  return meet(machine->meetings[this_block()], machine->threads, any);
}
template <u32 kThreads>
void sync_threads() {
  using namespace emulated;
  if (kThreads % 32 != 0 || this_thread() >= kThreads) abort();
  meet(machine->meetings_of_some[this_block()], kThreads);
}
inline void sync_cluster() {
  using namespace emulated;
  meet(machine->cluster, machine->threads * machine->blocks);
}
inline u32 same_in_warp(u32 x) { return x; }
inline bool any_of_warp(bool x) { return emulated::meet(emulated::warp().meeting, 32, x); }
inline bool all_of_warp(bool x) { return !any_of_warp(!x); }
inline float from_lane(float x, u32 lane) {
  auto& warp = emulated::warp();
  warp.values[this_thread() % 32] = x;
  emulated::meet(warp.meeting, 32);
  const float y = warp.values[lane % 32];
  emulated::meet(warp.meeting, 32);
  return y;
}
inline float across_lanes(float x, u32 mask) { return from_lane(x, this_thread() % 32 ^ mask); }

inline void from_here(u32&) {}
inline void from_here(u64&) {}

inline u64 nanoseconds() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return u64(t.tv_sec) * 1000000000 + t.tv_nsec;
}
inline u64 cycles() { return nanoseconds(); }
inline void rest(u32) { emulated::yield(); }

inline Units load_units(u64 address) {
  emulated::yield();
  const u64* units = reinterpret_cast<const u64*>(address);
  return {__atomic_load_n(units, __ATOMIC_ACQUIRE), __atomic_load_n(units + 1, __ATOMIC_ACQUIRE)};
}
inline void fence_system() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void fence_cluster() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void store_unit(u64 address, u64 value) { __atomic_store_n(reinterpret_cast<u64*>(address), value, __ATOMIC_RELEASE); }
inline void store_unit_release(u64 address, u64 value) { store_unit(address, value); }
inline u64 load_word8(u64 address) { return __atomic_load_n(reinterpret_cast<const u64*>(address), __ATOMIC_ACQUIRE); }
inline void store_word8(u64 address, u64 value) { store_unit(address, value); }
inline u32 load_word4_of_host(u64 address) { return __atomic_load_n(reinterpret_cast<const u32*>(address), __ATOMIC_ACQUIRE); }
inline Words4 load_words4(const float* from) {
  Words4 v;
  memcpy(&v, from, 16);
  return v;
}
inline float load_word4(const float* from) { return *from; }
inline Units load_units_of_device(u64 address) { return load_units(address); }
inline void store_unit_of_device(u64 address, u64 value) { store_unit(address, value); }
struct alignas(16) Quad {
  u32 of[4];
};
inline Quad load_quad_of_device(u64 address) {
  emulated::yield();
  Quad v;
  memcpy(&v, reinterpret_cast<const void*>(address), 16);
  return v;
}
inline void store_quad_of_device(u64 address, const Quad& v) {
  if (address % 16) abort();
  memcpy(reinterpret_cast<void*>(address), &v, 16);
}
inline u64 add_on_device(u64 address, u64 value) { return __atomic_fetch_add(reinterpret_cast<u64*>(address), value, __ATOMIC_SEQ_CST); }
inline void fence_device() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline float constant(u64 address) { return *reinterpret_cast<const float*>(address); }
inline Words4 constant4(u64 address);
inline Words4 constant4_ahead(u64 address) { return constant4(address); }
inline Words4 constant4(u64 address) {
  Words4 v;
  memcpy(&v, reinterpret_cast<const void*>(address), 16);
  return v;
}

inline float* shared(u32 offset) {
  if (offset >= emulated::kSharedBytes) abort();
  return reinterpret_cast<float*>(emulated::machine->shared[this_block()] + offset);
}
inline u32 peer(u32 block) {
  if (block >= emulated::machine->blocks) abort();
  return block;
}
inline void tell(u32 block, u32 offset, u32 value) { memcpy(emulated::machine->shared[block] + offset, &value, 4); }
inline u32 told(u32 offset) {
  u32 value;
  memcpy(&value, shared(offset), 4);
  return value;
}

inline void barrier_init(u32 barrier) { emulated::machine->barriers[{this_block(), barrier}] = {}; }
inline void barriers_are_there() {}
inline void expect(u32 offset, u32 bytes) {
  auto& barrier = emulated::machine->barriers.at({this_block(), offset});
  barrier.bytes += bytes;
  if (--barrier.pending < 0) abort();
  emulated::machine->complete(barrier);
}
inline bool arrived(u32 offset, u32 phase) {
  emulated::yield();
  return (emulated::machine->barriers.at({this_block(), offset}).phase & 1) != phase;
}
inline void send_words(u32 block, u32 offset, u32 barrier, const float* words, u32 count) {
  using namespace emulated;
  if (offset % (4 * count) || offset + 4 * count > kSharedBytes || block >= machine->blocks) abort();
  Message message{block, offset, barrier, count, machine->next_random() % 4, {}, nullptr};
  memcpy(message.data, words, 4 * count);
  machine->messages.push_back(message);
}
inline void send(u32 block, u32 offset, u32 barrier, float x) { send_words(block, offset, barrier, &x, 1); }
inline void send2(u32 block, u32 offset, u32 barrier, float x, float y) {
  const float both[2] = {x, y};
  send_words(block, offset, barrier, both, 2);
}
inline void send4(u32 block, u32 offset, u32 barrier, const Words4& v) { send_words(block, offset, barrier, &v.x, 4); }
inline void written_for_runs() {}
inline void send_run(u32 block, u32 offset, u32 barrier, u32 from, u32 bytes) {
  using namespace emulated;
  if (offset % 16 || from % 16 || bytes % 16 || from + bytes > kSharedBytes || offset + bytes > kSharedBytes || block >= machine->blocks) abort();
  const u32 delay = machine->next_random() % 4;
  machine->messages.push_back({block, offset, barrier, bytes / 4, delay, {}, machine->shared[this_block()] + from});
}

inline void copy4(u32 offset, u64 from, bool is_there) {
  using namespace emulated;
  if (offset % 16 || from % 16 || offset + 16 > kSharedBytes) abort();
  machine->running->copies.push_back({machine->shared[this_block()] + offset, is_there ? reinterpret_cast<const void*>(from) : nullptr});
}
inline void copies_are_there() {
  auto& copies = emulated::machine->running->copies;
  for (const auto& copy : copies) copy.from ? memcpy(copy.to, copy.from, 16) : memset(copy.to, 0, 16);
  copies.clear();
}

inline float as_float(u32 bits) {
  float x;
  memcpy(&x, &bits, 4);
  return x;
}
inline u32 as_bits(float x) {
  u32 bits;
  memcpy(&bits, &x, 4);
  return bits;
}
inline float half_as_float(u32 bits) {
  const u32 exponent = bits >> 10 & 31, fraction = bits & 1023;
  const float sign = bits & 0x8000 ? -1.f : 1.f;
  if (exponent == 31) return fraction ? NAN : sign * INFINITY;
  return sign * (exponent ? ldexpf(float(1024 + fraction), int(exponent) - 25) : ldexpf(float(fraction), -24));
}
inline int nearest(float x) { return int(nearbyintf(x)); }
struct TwoHalves {
  float first, second;
};
inline TwoHalves halves(u32 bits) { return {half_as_float(bits & 0xffff), half_as_float(bits >> 16)}; }
inline TwoHalves halves_here(u32 bits) { return halves(bits); }
inline u32 as_half(float x) {
  const u32 sign = as_bits(x) >> 16 & 0x8000;
  if (x != x) return 0x7fff;
  const float size = fabsf(x);
  if (size >= 65520.f) return sign | 0x7c00;
  // Whole units of the last place: of 2^-24 below the least normal half.
  const int exponent = size < 6.103515625e-5f ? -14 : ilogbf(size);
  const u32 units = u32(nearbyintf(ldexpf(size, 10 - exponent)));
  return sign | (units + (exponent == -14 ? 0 : u32(exponent + 14) << 10));
}
inline u32 as_halves(float first, float second) { return as_half(second) << 16 | as_half(first); }
inline void multiply_halves(float (&sums)[4], const Words4& rows, u32 low, u32 high) {
  auto& warp = emulated::warp();
  const u32 lane = this_thread() % 32;
  warp.rows[lane] = rows, warp.columns[lane][0] = low, warp.columns[lane][1] = high;
  emulated::meet(warp.meeting, 32);
  for (u32 j = 0; j < 4; ++j) {
    const u32 row = lane / 4, column = lane % 4 * 2 + j % 2;
    for (u32 k = 0; k < 16; ++k) {
      const Words4& of = warp.rows[row * 4 + k % 8 / 2];
      const float word = k < 8 ? (j < 2 ? of.x : of.y) : (j < 2 ? of.z : of.w);
      const TwoHalves a = halves(as_bits(word)), x = halves(warp.columns[column * 4 + k % 8 / 2][k / 8]);
      sums[j] += k % 2 ? a.second * x.second : a.first * x.first;
    }
  }
  emulated::meet(warp.meeting, 32);
}
inline void multiply_floats(float (&sums)[4], const Words4& rows, float low, float high) {
  auto& warp = emulated::warp();
  const u32 lane = this_thread() % 32;
  const auto leading = [](float x) { return as_float(as_bits(x) & 0xffffe000); };
  warp.rows[lane] = {leading(rows.x), leading(rows.y), leading(rows.z), leading(rows.w)};
  warp.columns[lane][0] = as_bits(leading(low)), warp.columns[lane][1] = as_bits(leading(high));
  emulated::meet(warp.meeting, 32);
  for (u32 j = 0; j < 4; ++j) {
    const u32 row = lane / 4, column = lane % 4 * 2 + j % 2;
    for (u32 k = 0; k < 8; ++k) {
      const Words4& of = warp.rows[row * 4 + k % 4];
      const float a = k < 4 ? (j < 2 ? of.x : of.y) : (j < 2 ? of.z : of.w);
      sums[j] += a * as_float(warp.columns[column * 4 + k % 4][k / 4]);
    }
  }
  emulated::meet(warp.meeting, 32);
}
inline float scaled(float x, float mean, float std) { return (x - mean) / std; }
inline float power_of_two(float x) { return exp2f(x); }
inline float reciprocal(float x) { return 1.f / x; }

}  // namespace resident
}  // namespace tickrt

#define TICKRT_EMULATED

namespace tickrt {
namespace resident {
struct Turn;
}
}  // namespace tickrt
extern "C" void tickrt_resident(const tickrt::resident::Turn turn);

namespace tickrt {
namespace resident {
namespace emulated {

inline const Turn* turn_to_run = nullptr;
void body(u32 low, u32 high);

}  // namespace emulated
}  // namespace resident
}  // namespace tickrt

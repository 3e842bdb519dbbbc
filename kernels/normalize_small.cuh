// Small inputs, a word a thread: what becomes of each element comes from a table. The less code and the fewer parameters
// there are to fetch, the sooner a kernel that nothing has cached is through: 1.4 us less on an H100 than normalize.cuh
// takes for 256 elements.
#pragma once

#include "normalize.cuh"

namespace tickrt {

// A word of the input, and what is known of it before it comes.
template <class T>
class ScaledWord {
 public:
  static __device__ uint32_t words(const SmallParams& p) { return (p.count + kElements - 1) / kElements; }
  __device__ ScaledWord(const SmallParams& p, uint32_t word) {
    for (uint32_t k = 0; k < kElements; ++k) {
      const uint32_t from = word * kElements + k;
      if (from < p.count) elements_[k] = reinterpret_cast<const Element*>(p.elements)[from];
    }
  }
  __device__ void put(const SmallParams& p, uint32_t word, uint32_t bits, State* state) const {
    for (uint32_t k = 0; k < kElements; ++k) {
      const T x = element(bits >> k * (32 / kElements));
      const Element& e = elements_[k];
      if (word * kElements + k < p.count) {
        reinterpret_cast<float*>(p.destination)[e.to] = normalized(p, x, e.mean, e.std, state);
      }
    }
  }

 private:
  static constexpr uint32_t kElements = 4 / sizeof(T);
  static __device__ T element(uint32_t bits);
  Element elements_[kElements];
};
template <>
__device__ inline float ScaledWord<float>::element(uint32_t bits) { return __uint_as_float(bits); }
template <>
__device__ inline __half ScaledWord<__half>::element(uint32_t bits) { return __ushort_as_half(uint16_t(bits)); }
template <>
__device__ inline uint8_t ScaledWord<uint8_t>::element(uint32_t bits) { return uint8_t(bits); }
template <>
__device__ inline int16_t ScaledWord<int16_t>::element(uint32_t bits) { return int16_t(bits); }

// A word that goes as it is.
class CopiedWord {
 public:
  static __device__ uint32_t words(const SmallParams& p) { return p.count; }
  __device__ CopiedWord(const SmallParams&, uint32_t) {}
  __device__ void put(const SmallParams& p, uint32_t word, uint32_t bits, State*) const {
    if (word < p.count) reinterpret_cast<uint32_t*>(p.destination)[word] = bits;
  }
};

__device__ inline void hand_on(State* state, uint32_t thread, uint64_t sequence) {
  if (thread == 0) state->sequence = sequence;
}

// The input is there.
template <class Word>
__device__ void normalize_small(const SmallParams& p) {
  State* state = reinterpret_cast<State*>(p.state);
  const uint32_t thread = blockIdx.x * blockDim.x + threadIdx.x;
  uint64_t sequence = 0;
  if (thread == 0) sequence = reinterpret_cast<const SlotHeader*>(p.header)->sequence;
  if (thread < Word::words(p)) {
    const Word word(p, thread);
    word.put(p, thread, reinterpret_cast<const uint32_t*>(p.source)[thread], state);
  }
  hand_on(state, thread, sequence);
}

// The input is awaited: each thread for its own two words, which carry the call's number (its lower 32 bits) above them, so
// that the call's beginning and its input cross PCIe at once: 2.4 us less on an H100 than one after the other. Pairs with
// src/completion.rs.
template <class Word>
__device__ void normalize_small_in_band(const SmallParams& p) {
  State* state = reinterpret_cast<State*>(p.state);
  const uint32_t thread = blockIdx.x * blockDim.x + threadIdx.x;
  const uint64_t sequence = reinterpret_cast<const SlotHeader*>(p.header)->awaited;
  if (thread * 2 < Word::words(p)) {
    const Word first(p, thread * 2), second(p, thread * 2 + 1);
    const uint64_t until = nanoseconds() + uint64_t(p.patience_us) * 1000;
    Pair pair;
    bool came;
    do {
      pair = load_relaxed_system(reinterpret_cast<const Pair*>(p.source) + thread);
      came = uint32_t(pair.first >> 32) == uint32_t(sequence) && uint32_t(pair.second >> 32) == uint32_t(sequence);
    } while (!came && nanoseconds() < until);
    if (came) {
      first.put(p, thread * 2, uint32_t(pair.first), state);
      second.put(p, thread * 2 + 1, uint32_t(pair.second), state);
    } else {
      // One thread that gave up makes the call void.
      atomicOr(&state->status, kStatusExpired);
    }
  }
  hand_on(state, thread, sequence);
}

}  // namespace tickrt

#define TICKRT_SMALL(name, word)                                               \
  extern "C" __global__ void __launch_bounds__(128)                            \
      tickrt_small_##name(const __grid_constant__ tickrt::SmallParams p) {     \
    tickrt::normalize_small<tickrt::word>(p);                                  \
  }                                                                            \
  extern "C" __global__ void __launch_bounds__(128)                            \
      tickrt_small_in_band_##name(const __grid_constant__ tickrt::SmallParams p) { \
    tickrt::normalize_small_in_band<tickrt::word>(p);                          \
  }
TICKRT_SMALL(f32, ScaledWord<float>)
TICKRT_SMALL(f16, ScaledWord<__half>)
TICKRT_SMALL(u8, ScaledWord<uint8_t>)
TICKRT_SMALL(i16, ScaledWord<int16_t>)
TICKRT_SMALL(copy, CopiedWord)
#undef TICKRT_SMALL

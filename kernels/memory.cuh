// Loads and stores that the host, or another block, takes part in: system scope, each named by its order.
#pragma once

#include <cstdint>

namespace tickrt {

__device__ inline uint64_t load_acquire_system(const uint64_t* address) {
#ifdef __CUDA_ARCH__
  uint64_t value;
  asm volatile("ld.acquire.sys.global.u64 %0, [%1];" : "=l"(value) : "l"(address) : "memory");
  return value;
#else
  return __atomic_load_n(address, __ATOMIC_ACQUIRE);
#endif
}

// Two words of 8 bytes, each loaded whole, whatever becomes of the other.
struct alignas(16) Pair {
  uint64_t first;
  uint64_t second;
};

__device__ inline Pair load_relaxed_system(const Pair* address) {
  Pair pair;
#ifdef __CUDA_ARCH__
  asm volatile("ld.relaxed.sys.global.v2.u64 {%0, %1}, [%2];"
               : "=l"(pair.first), "=l"(pair.second)
               : "l"(address)
               : "memory");
#else
  pair = {__atomic_load_n(&address->first, __ATOMIC_RELAXED), __atomic_load_n(&address->second, __ATOMIC_RELAXED)};
#endif
  return pair;
}

__device__ inline void store_release_system(uint64_t* address, uint64_t value) {
#ifdef __CUDA_ARCH__
  asm volatile("st.release.sys.global.u64 [%0], %1;" ::"l"(address), "l"(value) : "memory");
#else
  __atomic_store_n(address, value, __ATOMIC_RELEASE);
#endif
}

__device__ inline void store_relaxed_system(uint64_t* address, uint64_t value) {
#ifdef __CUDA_ARCH__
  asm volatile("st.relaxed.sys.global.u64 [%0], %1;" ::"l"(address), "l"(value) : "memory");
#else
  __atomic_store_n(address, value, __ATOMIC_RELAXED);
#endif
}

}  // namespace tickrt

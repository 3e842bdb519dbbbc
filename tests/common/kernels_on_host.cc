// The kernels compiled for the host: one thread of one block after the other. What CUDA provides is stood in for here; the
// kernels' own source is what is tested.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#undef __device__
#undef __global__
#undef __launch_bounds__
#undef __grid_constant__
#define __device__
#define __global__
#define __launch_bounds__(threads)
#define __grid_constant__

struct Dimensions {
  uint32_t x;
};
// By host thread: several tests run at once.
static thread_local Dimensions threadIdx, blockIdx, blockDim, gridDim;

using std::isfinite;
static float __fsub_rn(float a, float b) { return a - b; }
static float __fdiv_rn(float a, float b) { return a / b; }
static double __dsub_rn(double a, double b) { return a - b; }
static double __ddiv_rn(double a, double b) { return a / b; }
static float __double2float_rn(double a) { return static_cast<float>(a); }
static void atomicOr(uint32_t* address, uint32_t value) { *address |= value; }
static uint32_t __umulhi(uint32_t a, uint32_t b) { return static_cast<uint32_t>((static_cast<uint64_t>(a) * b) >> 32); }
static void __syncthreads() {}
// Threads come one after the other, the one that asks last: the others are told beforehand what it will find.
static thread_local bool call_comes = true;
static bool __syncthreads_or(bool mine) { return threadIdx.x == 0 ? mine : call_comes; }
[[maybe_unused]] static uint32_t __float_as_uint(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

[[maybe_unused]] static float __uint_as_float(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

#include "tickrt.cu"

template <class Params>
static void run(void (*kernel)(Params), const void* params, uint32_t blocks, uint32_t threads) {
  if constexpr (std::is_same_v<Params, const NormalizeOneParams> || std::is_same_v<Params, const NormalizeParams>) {
    const auto& p = *static_cast<const NormalizeOneParams*>(params);
    const auto* header = reinterpret_cast<const SlotHeader*>(p.header);
    call_comes = header->sequence == header->awaited;
  }
  gridDim.x = blocks;
  blockDim.x = threads;
  for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x) {
    // Backwards: thread 0 speaks for all of them and comes last.
    for (uint32_t thread = threads; thread-- > 0;) {
      threadIdx.x = thread;
      kernel(*static_cast<const Params*>(params));
    }
  }
}

// Whether there is a kernel of that name.
extern "C" bool tickrt_host_run(const char* name, const void* params, uint32_t blocks, uint32_t threads) {
#define KERNEL(kernel, Params)                       \
  if (std::strcmp(name, #kernel) == 0) {             \
    run<const Params>(kernel, params, blocks, threads); \
    return true;                                     \
  }
#define KERNELS(type)                                          \
  KERNEL(tickrt_normalize_##type, NormalizeOneParams)          \
  KERNEL(tickrt_normalize_window_##type, NormalizeOneParams)
  KERNELS(f32) KERNELS(f64) KERNELS(f16) KERNELS(u8) KERNELS(i16) KERNELS(i32)
  KERNEL(tickrt_copy, NormalizeOneParams)
  KERNEL(tickrt_copy_window, NormalizeOneParams)
  KERNEL(tickrt_normalize_all, NormalizeParams)
#define SMALL(word)                            \
  KERNEL(tickrt_small_##word, SmallParams)     \
  KERNEL(tickrt_small_in_band_##word, SmallParams)
  SMALL(f32) SMALL(f16) SMALL(u8) SMALL(i16) SMALL(copy)
  KERNEL(tickrt_publish, PublishParams)
  KERNEL(tickrt_publish_in_band, PublishParams)
  KERNEL(tickrt_publish_words, PublishOneParams)
  return false;
}

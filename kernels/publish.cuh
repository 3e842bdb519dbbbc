// From TensorRT's bindings to the slot's output in mapped host memory. A small answer goes in band, its number beside each
// word; a large one is written plainly, and its number after it.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "memory.cuh"
#include "params.h"

namespace tickrt {

// Waits for the kernel before this one, TensorRT's last, whose end the launch of this one did not wait for.
__device__ inline void wait_for_network() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

template <class T>
__device__ void copy_out(const PublishTensor& t) {
  for (uint32_t i = threadIdx.x; i < t.count / sizeof(T); i += blockDim.x) {
    reinterpret_cast<T*>(t.destination)[i] = reinterpret_cast<const T*>(t.source)[i];
  }
}

__device__ inline float f16_at(const PublishTensor& t, uint32_t i) {
  return __half2float(reinterpret_cast<const __half*>(t.source)[i]);
}
__device__ inline float bf16_at(const PublishTensor& t, uint32_t i) {
  return __bfloat162float(reinterpret_cast<const __nv_bfloat16*>(t.source)[i]);
}

__device__ inline void publish(const PublishTensor& t) {
  float* floats = reinterpret_cast<float*>(t.destination);
  switch (t.convert_from) {
    case DataType::F16:
      for (uint32_t i = threadIdx.x; i < t.count; i += blockDim.x) floats[i] = f16_at(t, i);
      break;
    case DataType::BF16:
      for (uint32_t i = threadIdx.x; i < t.count; i += blockDim.x) floats[i] = bf16_at(t, i);
      break;
    default:
      if (t.count % 16 == 0) {
        copy_out<uint4>(t);
      } else if (t.count % 4 == 0) {
        copy_out<uint32_t>(t);
      } else {
        copy_out<uint8_t>(t);
      }
  }
}

// A word of an answer whose elements are delivered in 4 bytes.
__device__ inline uint32_t word_at(const PublishTensor& t, uint32_t i) {
  switch (t.convert_from) {
    case DataType::F16: return __float_as_uint(f16_at(t, i));
    case DataType::BF16: return __float_as_uint(bf16_at(t, i));
    default: return reinterpret_cast<const uint32_t*>(t.source)[i];
  }
}

// What a unit of the answer has above its word.
__device__ inline uint64_t tag(const State& call) {
  return uint64_t(uint32_t(call.sequence << 8) | call.status) << 32;
}

// For the next call; the stream keeps calls in order. Every thread has read the status by now.
__device__ inline void clear_status(State* state) {
  __syncthreads();
  if (threadIdx.x == 0) state->status = 0;
}

}  // namespace tickrt

// One block: the answer is small, and one thread can then speak for all.
extern "C" __global__ void __launch_bounds__(256) tickrt_publish(const __grid_constant__ tickrt::PublishParams p) {
  using namespace tickrt;
  State* state = reinterpret_cast<State*>(p.state);
  wait_for_network();
  // On its way while the output is copied.
  const State call = *state;
  for (uint32_t i = 0; i < p.tensor_count; ++i) publish(p.tensors[i]);
  __syncthreads();
  if (threadIdx.x == 0) {
    if (call.status) state->status = 0;
    // The release covers every thread's output, which the barrier has put before it: one trip to the host's memory, and
    // no second for a fence of its own. Pairs with the acquire in src/completion.rs.
    store_release_system(reinterpret_cast<uint64_t*>(p.done), call.sequence << 16 | call.status);
  }
}

// No word needs another's order, so none waits for another's arrival: a microsecond less on an H100. Each unit is stored
// and read whole, because it is an aligned 8-byte word on both sides. Pairs with src/completion.rs.
extern "C" __global__ void __launch_bounds__(256)
    tickrt_publish_in_band(const __grid_constant__ tickrt::PublishParams p) {
  using namespace tickrt;
  State* state = reinterpret_cast<State*>(p.state);
  uint64_t* unit = reinterpret_cast<uint64_t*>(p.done);
  wait_for_network();
  const State call = *state;
  for (uint32_t i = 0; i < p.tensor_count; ++i) {
    const PublishTensor& t = p.tensors[i];
    const uint32_t words = t.convert_from == DataType::F32 ? t.count / 4 : t.count;
    for (uint32_t w = threadIdx.x; w < words; w += blockDim.x) store_relaxed_system(unit + w, tag(call) | word_at(t, w));
    unit += words;
  }
  if (call.status) clear_status(state);
}

// The same of one output whose words go as they are, a thread each.
extern "C" __global__ void __launch_bounds__(256)
    tickrt_publish_words(const __grid_constant__ tickrt::PublishOneParams p) {
  using namespace tickrt;
  State* state = reinterpret_cast<State*>(p.state);
  const uint32_t* word = reinterpret_cast<const uint32_t*>(p.tensor.source) + threadIdx.x;
  uint64_t* unit = reinterpret_cast<uint64_t*>(p.done) + threadIdx.x;
  wait_for_network();
  const State call = *state;
  if (threadIdx.x < p.tensor.count / 4) store_relaxed_system(unit, tag(call) | *word);
  if (call.status) clear_status(state);
}

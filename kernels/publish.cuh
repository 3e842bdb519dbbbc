// From TensorRT's bindings to the slot's output in mapped host memory, and then the sequence number behind it.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "params.h"

namespace tickrt {

__device__ inline void store_release_system(uint64_t address, uint64_t value) {
#ifdef __CUDA_ARCH__
  asm volatile("st.release.sys.global.u64 [%0], %1;" ::"l"(address), "l"(value) : "memory");
#else
  __atomic_store_n(reinterpret_cast<uint64_t*>(address), value, __ATOMIC_RELEASE);
#endif
}

template <class T>
__device__ void copy_out(const PublishTensor& t) {
  for (uint32_t i = threadIdx.x; i < t.count / sizeof(T); i += blockDim.x) {
    reinterpret_cast<T*>(t.destination)[i] = reinterpret_cast<const T*>(t.source)[i];
  }
}

__device__ inline void publish(const PublishTensor& t) {
  switch (t.convert_from) {
    case DataType::F16:
      for (uint32_t i = threadIdx.x; i < t.count; i += blockDim.x)
        reinterpret_cast<float*>(t.destination)[i] = __half2float(reinterpret_cast<const __half*>(t.source)[i]);
      break;
    case DataType::BF16:
      for (uint32_t i = threadIdx.x; i < t.count; i += blockDim.x)
        reinterpret_cast<float*>(t.destination)[i] =
            __bfloat162float(reinterpret_cast<const __nv_bfloat16*>(t.source)[i]);
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

}  // namespace tickrt

// One block: the answer is small, and one thread can then speak for all.
extern "C" __global__ void __launch_bounds__(256) tickrt_publish(const __grid_constant__ tickrt::PublishParams p) {
  using namespace tickrt;
  State* state = reinterpret_cast<State*>(p.state);
  // On its way while the output is copied.
  const State call = *state;
  for (uint32_t i = 0; i < p.tensor_count; ++i) publish(p.tensors[i]);
  __syncthreads();
  if (threadIdx.x == 0) {
    if (call.status) state->status = 0;  // for the next call: the stream keeps calls in order
    // The release covers every thread's output, which the barrier has put before it: one trip to the host's memory, and
    // no second for a fence of its own. Pairs with the acquire in src/completion.rs.
    store_release_system(p.done, call.sequence << 16 | call.status);
  }
}

// The kernels around the network: one fat binary, loaded through the driver.
#include <cstddef>

#include "normalize.cuh"
#include "normalize_small.cuh"
#include "publish.cuh"

using namespace tickrt;

// The sizes and offsets that Rust's copies of the structures in params.h must have.
extern "C" __global__ void tickrt_layout(uint32_t* out) {
  out[0] = sizeof(SlotHeader);
  out[1] = sizeof(State);
  out[2] = sizeof(NormalizeTensor);
  out[3] = sizeof(NormalizeParams);
  static_assert(offsetof(NormalizeOneParams, tensor) == offsetof(NormalizeParams, tensors), "one is the other's front");
  out[4] = sizeof(PublishTensor);
  out[5] = sizeof(PublishParams);
  static_assert(offsetof(PublishOneParams, tensor) == offsetof(PublishParams, tensors), "one is the other's front");
  out[6] = sizeof(Element);
  out[7] = sizeof(SmallParams);
}

// From the caller's input in mapped host memory to TensorRT's binding: fetch, convert, (x - mean) / std, clamp, lay out.
//
// Must agree bit for bit with Normalizer::apply in src/normalize.rs: IEEE subtraction and division, no contraction
// (there is no product to contract), f64 for inputs that f32 cannot hold.
#pragma once

#include <cuda_fp16.h>

#include "params.h"

namespace tickrt {

// A plain load. The host wrote the slot before the launch, so nothing older can be in a cache; and a volatile one would
// cross PCIe for each thread alone: 40 us for 256 elements on an H100, where this takes 2.
template <class T>
__device__ T fetch(const T* address) {
  return *address;
}

__device__ inline bool finite(float x) { return isfinite(x); }
__device__ inline bool finite(double x) { return isfinite(x); }
__device__ inline bool finite(__half x) { return !__hisinf(x) && !__hisnan(x); }
template <class Integer>
__device__ bool finite(Integer) {
  return true;
}

__device__ inline float scale(double x, double mean, double std) {
  return __double2float_rn(__ddiv_rn(__dsub_rn(x, mean), std));
}
__device__ inline float scale(float x, double mean, double std) {
  return __fdiv_rn(__fsub_rn(x, __double2float_rn(mean)), __double2float_rn(std));
}
__device__ inline float scale(__half x, double mean, double std) { return scale(__half2float(x), mean, std); }
__device__ inline float scale(uint8_t x, double mean, double std) { return scale(float(x), mean, std); }
__device__ inline float scale(int16_t x, double mean, double std) { return scale(float(x), mean, std); }
__device__ inline float scale(int32_t x, double mean, double std) { return scale(double(x), mean, std); }

// The element at place `from` of the call's input. Of a window only the newest rows come with the call; they are kept
// in the ring for the calls to come.
template <class T>
__device__ T take(const NormalizeTensor& t, const SlotHeader& header, uint32_t from) {
  const T* slot = reinterpret_cast<const T*>(t.source);
  // The header is on its way over PCIe, too: what is surely or likely needed of the slot must not wait for it.
  const bool likely = !t.ring || from + t.row >= t.rows * t.row;
  T x = T();
  if (likely) x = fetch(slot + from);
  if (!t.ring) return x;
  if (!header.window) return likely ? x : fetch(slot + from);
  const uint32_t time = from / t.row;
  uint32_t place = header.oldest + time;
  if (place >= t.rows) place -= t.rows;
  T* kept = reinterpret_cast<T*>(t.ring) + (size_t(header.symbol) * t.rows + place) * t.row + from % t.row;
  if (time + header.new_rows < t.rows) return *kept;
  if (!likely) x = fetch(slot + from);
  *kept = x;
  return x;
}

template <class T>
__device__ void normalize(const NormalizeTensor& t, const SlotHeader& header, State* state) {
  const double* means = reinterpret_cast<const double*>(t.mean);
  const double* stds = reinterpret_cast<const double*>(t.std);
  const uint32_t sample = t.spatial * t.channels;
  // Over the input's order, not the output's: reads cross PCIe and must be whole, writes land in the L2 cache.
  for (uint32_t from = blockIdx.x * blockDim.x + threadIdx.x; from < t.count; from += gridDim.x * blockDim.x) {
    const uint32_t inside = from % sample;
    const uint32_t to = from - inside + inside % t.channels * t.spatial + inside / t.channels;
    const uint32_t stat = from / t.stat_inner % t.stat_count;
    const T x = take<T>(t, header, from);
    float y;
    if (finite(x) || t.non_finite == NonFinite::Pass) {
      y = scale(x, means[stat], stds[stat]);
      y = y < t.lowest ? t.lowest : y > t.highest ? t.highest : y;  // NaN passes both comparisons
    } else {
      y = t.replacement;
      if (t.non_finite == NonFinite::Refuse) atomicOr(&state->status, kStatusNonFiniteInput);
    }
    if (t.output_type == DataType::F16) {
      reinterpret_cast<__half*>(t.destination)[to] = __float2half_rn(y);
    } else {
      reinterpret_cast<float*>(t.destination)[to] = y;
    }
  }
}

// As it is, in the widest units that the size and both addresses allow.
template <class T>
__device__ void copy(const NormalizeTensor& t, const SlotHeader& header) {
  for (uint32_t from = blockIdx.x * blockDim.x + threadIdx.x; from < t.copy_bytes / sizeof(T);
       from += gridDim.x * blockDim.x) {
    reinterpret_cast<T*>(t.destination)[from] = take<T>(t, header, from);
  }
}

}  // namespace tickrt

extern "C" __global__ void __launch_bounds__(256) tickrt_normalize(const __grid_constant__ tickrt::NormalizeParams p) {
  using namespace tickrt;
  const SlotHeader* in_slot = reinterpret_cast<const SlotHeader*>(p.header);
  SlotHeader header = {};
  if (blockIdx.x == 0 && threadIdx.x == 0) header.sequence = fetch(&in_slot->sequence);
  if (p.tensors[0].ring) {  // windows are for networks of one input
    header.window = fetch(&in_slot->window);
    header.symbol = fetch(&in_slot->symbol);
    header.new_rows = fetch(&in_slot->new_rows);
    header.oldest = fetch(&in_slot->oldest);
  }
  State* state = reinterpret_cast<State*>(p.state);

  for (uint32_t i = 0; i < p.tensor_count; ++i) {
    const NormalizeTensor& t = p.tensors[i];
    if (t.copy_bytes) {
      // A window's rows are counted in elements, so windows go element by element.
      switch (t.input_type) {
        case DataType::F64:
        case DataType::I64: copy<uint64_t>(t, header); break;
        case DataType::F32:
        case DataType::I32: copy<uint32_t>(t, header); break;
        case DataType::F16:
        case DataType::BF16:
        case DataType::I16: copy<uint16_t>(t, header); break;
        default: copy<uint8_t>(t, header);
      }
      continue;
    }
    switch (t.input_type) {
      case DataType::F32: normalize<float>(t, header, state); break;
      case DataType::F64: normalize<double>(t, header, state); break;
      case DataType::F16: normalize<__half>(t, header, state); break;
      case DataType::U8: normalize<uint8_t>(t, header, state); break;
      case DataType::I16: normalize<int16_t>(t, header, state); break;
      case DataType::I32: normalize<int32_t>(t, header, state); break;
      default: break;  // Normalizer::new lets no other type through
    }
  }
  // Last, because it waits for the header.
  if (blockIdx.x == 0 && threadIdx.x == 0) state->sequence = header.sequence;
}

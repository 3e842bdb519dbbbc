// From the caller's input in mapped host memory to TensorRT's binding: fetch, convert, (x - mean) / std, clamp, lay out.
//
// Must agree bit for bit with Normalizer::apply in src/normalize.rs: IEEE subtraction and division, no contraction
// (there is no product to contract), f64 for inputs that f32 cannot hold.
#pragma once

#include <cuda_fp16.h>

#include "memory.cuh"
#include "params.h"

namespace tickrt {

__device__ inline bool finite(float x) { return isfinite(x); }
__device__ inline bool finite(double x) { return isfinite(x); }
__device__ inline bool finite(__half x) { return !__hisinf(x) && !__hisnan(x); }
template <class Integer>
__device__ bool finite(Integer) {
  return true;
}

__device__ inline float wide(float x) { return x; }
__device__ inline float wide(__half x) { return __half2float(x); }
__device__ inline float wide(uint8_t x) { return x; }
__device__ inline float wide(int16_t x) { return x; }
__device__ inline double wide(int32_t x) { return x; }
__device__ inline double wide(double x) { return x; }

__device__ inline float scale(float x, float mean, float std) { return __fdiv_rn(__fsub_rn(x, mean), std); }
__device__ inline float scale(float x, double mean, double std) {
  return scale(x, __double2float_rn(mean), __double2float_rn(std));
}
__device__ inline float scale(double x, double mean, double std) {
  return __double2float_rn(__ddiv_rn(__dsub_rn(x, mean), std));
}

// What the network gets of an element. `Params` says what is done with NaN and infinity, and the bounds.
template <class Params, class T, class Statistic>
__device__ float normalized(const Params& p, T x, Statistic mean, Statistic std, State* state) {
  if (finite(x) || p.non_finite == NonFinite::Pass) {
    const float y = scale(wide(x), mean, std);
    return y < p.lowest ? p.lowest : y > p.highest ? p.highest : y;  // NaN passes both comparisons
  }
  if (p.non_finite == NonFinite::Refuse) atomicOr(&state->status, kStatusNonFiniteInput);
  return p.replacement;
}

__device__ inline uint32_t divide(uint32_t n, const Divisor& by) {
  return (__umulhi(n, by.multiplier) + n) >> by.shift;
}
__device__ inline uint32_t remainder(uint32_t n, const Divisor& by) { return n - divide(n, by) * by.divisor; }

// What a thread takes of the slot at once: a word, so that a warp's request is a whole line of 128 bytes on PCIe.
//
// Plain loads. The host wrote the slot before the launch, or before the number that `Call` has acquired, so nothing older
// is taken from a cache; and volatile ones would cross PCIe for each thread alone: 40 us for 256 elements on an H100, where
// these take 2.
template <class T>
struct alignas(sizeof(T) < 4 ? 4 : sizeof(T)) Word {
  static constexpr uint32_t kElements = sizeof(T) < 4 ? 4 / sizeof(T) : 1;
  T x[kElements];
};

// The element at place `from` of a window. Only the newest rows come with the call; they are kept in the ring for the
// calls to come. The header may say that this call brings its input whole.
template <class T>
__device__ T take(const NormalizeTensor& t, const SlotHeader& header, uint32_t from) {
  const T* slot = reinterpret_cast<const T*>(t.source);
  // The header is on its way over PCIe, too: what is likely needed of the slot must not wait for it.
  const bool likely = from + t.row.divisor >= t.rows * t.row.divisor;
  T x = T();
  if (likely) x = slot[from];
  if (!header.window) return likely ? x : slot[from];
  const uint32_t time = divide(from, t.row);
  uint32_t place = header.oldest + time;
  if (place >= t.rows) place -= t.rows;
  T* kept = reinterpret_cast<T*>(t.ring) + (size_t(header.symbol) * t.rows + place) * t.row.divisor +
            (from - time * t.row.divisor);
  if (time + header.new_rows < t.rows) return *kept;
  if (!likely) x = slot[from];
  *kept = x;
  return x;
}

// Element `from` of the input, scaled and stored.
template <class T>
__device__ void put(const NormalizeTensor& t, uint32_t from, T x, double mean, double std, State* state) {
  const float y = normalized(t, x, mean, std, state);
  uint32_t to = from;
  if (t.channels.divisor > 1) {
    const uint32_t inside = remainder(from, t.sample);
    const uint32_t position = divide(inside, t.channels);
    to = from - inside + (inside - position * t.channels.divisor) * t.spatial + position;
  }
  if (t.output_type == DataType::F16) {
    reinterpret_cast<__half*>(t.destination)[to] = __float2half_rn(y);
  } else {
    reinterpret_cast<float*>(t.destination)[to] = y;
  }
}

__device__ inline uint32_t stat_of(const NormalizeTensor& t, uint32_t from) {
  return remainder(divide(from, t.stat_inner), t.stat_count);
}

// Over the input's order, not the output's: reads cross PCIe and must be whole, writes land in the L2 cache. The
// statistics are asked for before the input, so that the two come together.
template <class T>
__device__ void normalize(const NormalizeTensor& t, State* state) {
  constexpr uint32_t kElements = Word<T>::kElements;
  const Word<T>* words = reinterpret_cast<const Word<T>*>(t.source);
  const double* means = reinterpret_cast<const double*>(t.means);
  const double* stds = reinterpret_cast<const double*>(t.stds);
  const uint32_t count = (t.count + kElements - 1) / kElements;
  for (uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) {
    double mean[kElements], std[kElements];
    for (uint32_t k = 0; k < kElements; ++k) {
      const bool own = t.stat_count.divisor > 1;
      mean[k] = own ? means[stat_of(t, i * kElements + k)] : t.mean;
      std[k] = own ? stds[stat_of(t, i * kElements + k)] : t.std;
    }
    // The slot's memory is whole lines: the last word may reach beyond the input, not beyond the slot.
    const Word<T> word = words[i];
    for (uint32_t k = 0; k < kElements; ++k) {
      const uint32_t from = i * kElements + k;
      if (from < t.count) put(t, from, word.x[k], mean[k], std[k], state);
    }
  }
}

// The same of a rolling window, element by element, because a row may have any length.
template <class T>
__device__ void normalize_window(const NormalizeTensor& t, const SlotHeader& header, State* state) {
  const double* means = reinterpret_cast<const double*>(t.means);
  const double* stds = reinterpret_cast<const double*>(t.stds);
  for (uint32_t from = blockIdx.x * blockDim.x + threadIdx.x; from < t.count; from += gridDim.x * blockDim.x) {
    const bool own = t.stat_count.divisor > 1;
    const double mean = own ? means[stat_of(t, from)] : t.mean;
    const double std = own ? stds[stat_of(t, from)] : t.std;
    put(t, from, take<T>(t, header, from), mean, std, state);
  }
}

// As it is, in words; in elements where a window's rows are counted in them.
template <class T>
__device__ void copy_window(const NormalizeTensor& t, const SlotHeader& header) {
  for (uint32_t from = blockIdx.x * blockDim.x + threadIdx.x; from < t.copy_bytes / sizeof(T);
       from += gridDim.x * blockDim.x) {
    reinterpret_cast<T*>(t.destination)[from] = take<T>(t, header, from);
  }
}

__device__ inline void copy(const NormalizeTensor& t) {
  const uint32_t* from = reinterpret_cast<const uint32_t*>(t.source);
  uint32_t* to = reinterpret_cast<uint32_t*>(t.destination);
  const uint32_t words = t.copy_bytes / 4;
  for (uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < words; i += gridDim.x * blockDim.x) to[i] = from[i];
  const uint32_t last = words * 4 + threadIdx.x;
  if (blockIdx.x == 0 && last < t.copy_bytes) {
    reinterpret_cast<uint8_t*>(to)[last] = reinterpret_cast<const uint8_t*>(from)[last];
  }
}

__device__ inline SlotHeader window_header(uint64_t address) { return *reinterpret_cast<const SlotHeader*>(address); }

__device__ inline uint64_t nanoseconds() {
#ifdef __CUDA_ARCH__
  uint64_t now;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
  return now;
#else
  static uint64_t now = 0;  // a clock that every look advances
  return now += 1000;
#endif
}

// Whether `number` becomes the awaited one in time: nothing on the GPU may wait for ever.
__device__ inline bool await_number(const uint64_t* number, uint64_t awaited, uint32_t patience_us) {
  const uint64_t until = nanoseconds() + uint64_t(patience_us) * 1000;
  do {
    if (load_acquire_system(number) == awaited) return true;
  } while (nanoseconds() < until);
  return false;
}

// The call that a launch is for. Its number goes with it to the publish kernel: one thread asks for it first, so that it
// crosses PCIe beside the input, and hands it on last.
class Call {
 public:
  __device__ Call(uint64_t address, uint32_t patience_us, State* state) : state_(state) {
    const SlotHeader* header = reinterpret_cast<const SlotHeader*>(address);
    if (patience_us == 0) {
      if (speaks_for_all()) sequence_ = header->sequence;
      return;
    }
    // One block asks the host, whose memory answers them one after the other, and tells the rest. Each decides for itself;
    // one that gave up makes the call void.
    bool came = false;
    if (threadIdx.x == 0) {
      sequence_ = header->awaited;
      const bool asks = blockIdx.x == 0;
      // Pairs with the release in src/session.rs, or with the one below, which hands on what that has released.
      came = await_number(asks ? &header->sequence : &state->came, sequence_, patience_us);
      if (!came) atomicOr(&state->status, kStatusExpired);
      if (came && asks && gridDim.x > 1) store_release_system(&state->came, sequence_);
    }
    came_ = __syncthreads_or(came);
  }
  __device__ bool came() const { return came_; }
  __device__ void hand_on() const {
    if (speaks_for_all()) state_->sequence = sequence_;
  }

 private:
  __device__ static bool speaks_for_all() { return blockIdx.x == 0 && threadIdx.x == 0; }
  State* state_;
  uint64_t sequence_ = 0;
  bool came_ = true;
};

}  // namespace tickrt

// Networks of one input have kernels by its type: the less code, the sooner a kernel that nothing has cached has begun.
#define TICKRT_NORMALIZE(name, type)                                                                           \
  extern "C" __global__ void __launch_bounds__(256)                                                            \
      tickrt_normalize_##name(const __grid_constant__ tickrt::NormalizeOneParams p) {                          \
    tickrt::State* state = reinterpret_cast<tickrt::State*>(p.state);                                          \
    const tickrt::Call call(p.header, p.patience_us, state);                                                   \
    if (call.came()) tickrt::normalize<type>(p.tensor, state);                                                 \
    call.hand_on();                                                                                            \
  }                                                                                                            \
  extern "C" __global__ void __launch_bounds__(256)                                                            \
      tickrt_normalize_window_##name(const __grid_constant__ tickrt::NormalizeOneParams p) {                   \
    tickrt::State* state = reinterpret_cast<tickrt::State*>(p.state);                                          \
    const tickrt::Call call(p.header, p.patience_us, state);                                                   \
    if (call.came()) tickrt::normalize_window<type>(p.tensor, tickrt::window_header(p.header), state);         \
    call.hand_on();                                                                                            \
  }
TICKRT_NORMALIZE(f32, float)
TICKRT_NORMALIZE(f64, double)
TICKRT_NORMALIZE(f16, __half)
TICKRT_NORMALIZE(u8, uint8_t)
TICKRT_NORMALIZE(i16, int16_t)
TICKRT_NORMALIZE(i32, int32_t)
#undef TICKRT_NORMALIZE

extern "C" __global__ void __launch_bounds__(256)
    tickrt_copy(const __grid_constant__ tickrt::NormalizeOneParams p) {
  const tickrt::Call call(p.header, p.patience_us, reinterpret_cast<tickrt::State*>(p.state));
  if (call.came()) tickrt::copy(p.tensor);
  call.hand_on();
}

extern "C" __global__ void __launch_bounds__(256)
    tickrt_copy_window(const __grid_constant__ tickrt::NormalizeOneParams p) {
  using namespace tickrt;
  const Call call(p.header, p.patience_us, reinterpret_cast<State*>(p.state));
  if (call.came()) {
    const SlotHeader header = window_header(p.header);
    switch (p.tensor.input_type) {
      case DataType::F64:
      case DataType::I64: copy_window<uint64_t>(p.tensor, header); break;
      case DataType::F32:
      case DataType::I32: copy_window<uint32_t>(p.tensor, header); break;
      case DataType::F16:
      case DataType::BF16:
      case DataType::I16: copy_window<uint16_t>(p.tensor, header); break;
      default: copy_window<uint8_t>(p.tensor, header);
    }
  }
  call.hand_on();
}

// Several inputs, and therefore no windows.
extern "C" __global__ void __launch_bounds__(256)
    tickrt_normalize_all(const __grid_constant__ tickrt::NormalizeParams p) {
  using namespace tickrt;
  State* state = reinterpret_cast<State*>(p.state);
  const Call call(p.header, p.patience_us, state);
  for (uint32_t i = 0; call.came() && i < p.tensor_count; ++i) {
    const NormalizeTensor& t = p.tensors[i];
    if (t.copy_bytes) {
      copy(t);
      continue;
    }
    switch (t.input_type) {
      case DataType::F32: normalize<float>(t, state); break;
      case DataType::F64: normalize<double>(t, state); break;
      case DataType::F16: normalize<__half>(t, state); break;
      case DataType::U8: normalize<uint8_t>(t, state); break;
      case DataType::I16: normalize<int16_t>(t, state); break;
      case DataType::I32: normalize<int32_t>(t, state); break;
      default: break;  // Normalizer::new lets no other type through
    }
  }
  call.hand_on();
}

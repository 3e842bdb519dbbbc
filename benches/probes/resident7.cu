// What the seventh look at resident kernels asks: what it takes to bring a value that is shared out over blocks together in each of
// them through the L2 cache, and not from shared memory to shared memory.
//
//   nvcc -O3 -std=c++17 -arch=sm_90a -o resident7 resident7.cu && ./resident7
//
// Every loop that waits has an end.
#include "probe.cuh"

enum class How { Units, FlagsAndLoads, FlagsAndCopies };

extern __shared__ __align__(128) float shared_values[];

__device__ __forceinline__ P2 load_of_gpu(const u64* p) {
  P2 v;
  asm volatile("ld.relaxed.gpu.global.v2.u64 {%0,%1}, [%2];" : "=l"(v.a), "=l"(v.b) : "l"(p) : "memory");
  return v;
}
__device__ __forceinline__ void store_for_gpu(u64* p, u64 a, u64 b) {
  asm volatile("st.relaxed.gpu.global.v2.u64 [%0], {%1,%2};" ::"l"(p), "l"(a), "l"(b) : "memory");
}
__device__ __forceinline__ u32 word_of_gpu(const u32* p) {
  u32 v;
  asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
  return v;
}
__device__ __forceinline__ u32 shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }

struct Wait {
  u64 until;
  bool over = false;
  u32 looks = 0;
  __device__ bool goes_on() {
    if ((++looks & 255) == 0 && ns() > until) over = true;
    return !over;
  }
};

// Two words with the round's number above them: who sees the number has the word.
template <u32 kThreads>
__device__ void units(u64* data, u32 count, u32 each, u32 round, Wait& wait) {
  constexpr u32 kInFlight = 4;
  u64* values = data + (round & 1) * count;
  const u64 tag = (u64)round << 32;
  for (u32 i = threadIdx.x * 2; i < each; i += 2 * kThreads) {
    const u32 at = blockIdx.x * each + i;
    store_for_gpu(values + at, tag | (at + round), tag | (at + 1 + round));
  }
  for (u32 base = 2 * threadIdx.x; base < count; base += 2 * kThreads * kInFlight) {
    P2 v[kInFlight];
#pragma unroll
    for (u32 j = 0; j < kInFlight; ++j)
      if (base + j * 2 * kThreads < count) v[j] = load_of_gpu(values + base + j * 2 * kThreads);
#pragma unroll
    for (u32 j = 0; j < kInFlight; ++j) {
      const u32 i = base + j * 2 * kThreads;
      if (i >= count) continue;
      while (((u32)(v[j].a >> 32) != round || (u32)(v[j].b >> 32) != round) && wait.goes_on()) v[j] = load_of_gpu(values + i);
      shared_values[i] = __uint_as_float((u32)v[j].a), shared_values[i + 1] = __uint_as_float((u32)v[j].b);
    }
  }
}

// Plain words, and a flag of each block behind them.
template <u32 kThreads>
__device__ void publish(float* values, u32* flags, u32 each, u32 round) {
  for (u32 i = threadIdx.x * 4; i < each; i += 4 * kThreads) {
    const u32 at = blockIdx.x * each + i;
    *reinterpret_cast<uint4*>(values + at) = make_uint4(at + round, at + 1 + round, at + 2 + round, at + 3 + round);
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  asm volatile("fence.acq_rel.gpu;" ::: "memory");
  asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(flags + blockIdx.x * 8), "r"(round) : "memory");
}

template <u32 kThreads>
__device__ void flags_and_loads(const float* values, const u32* flags, u32 count, u32 round, Wait& wait) {
  if (threadIdx.x < gridDim.x) {
    while (word_of_gpu(flags + threadIdx.x * 8) < round && wait.goes_on()) {
    }
    asm volatile("fence.acq_rel.gpu;" ::: "memory");
  }
  __syncthreads();
  constexpr u32 kInFlight = 4;
  for (u32 base = 4 * threadIdx.x; base < count; base += 4 * kThreads * kInFlight) {
    P2 v[kInFlight];
#pragma unroll
    for (u32 j = 0; j < kInFlight; ++j)
      if (base + j * 4 * kThreads < count) v[j] = load_of_gpu(reinterpret_cast<const u64*>(values + base + j * 4 * kThreads));
#pragma unroll
    for (u32 j = 0; j < kInFlight; ++j)
      if (base + j * 4 * kThreads < count) *reinterpret_cast<P2*>(shared_values + base + j * 4 * kThreads) = v[j];
  }
}

// By the copy engine, share by share, as its flag is seen.
__device__ void flags_and_copies(const float* values, const u32* flags, u32 count, u32 each, u32 round, u32 barrier, Wait& wait) {
  if (threadIdx.x == 0)
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(count * 4) : "memory");
  if (threadIdx.x < 32) {
    __syncwarp();
    for (u32 block = threadIdx.x; block < gridDim.x; block += 32) {
      while (word_of_gpu(flags + block * 8) < round && wait.goes_on()) {
      }
      asm volatile("fence.acq_rel.gpu;\nfence.proxy.async;" ::: "memory");
      asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                       shared_address(shared_values + block * each)),
                   "l"(values + block * each), "r"(each * 4), "r"(barrier)
                   : "memory");
    }
  }
  for (u32 there = 0; !there && wait.goes_on();)
    asm volatile(
        "{.reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p;}"
        : "=r"(there)
        : "r"(barrier), "r"((round - 1) & 1)
        : "memory");
}

template <How kHow, u32 kThreads>
__global__ void __launch_bounds__(kThreads, 1) exchange(u64* data, u32* flags, u32 count, u32 rounds, u32* wrong, u64* cycles) {
  __shared__ u64 barrier;
  if (threadIdx.x == 0) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(&barrier)) : "memory");
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();
  const u32 each = count / gridDim.x;
  Wait wait{ns() + 2000000000ull};
  u64 start = 0;
  u32 mistaken = 0;
  for (u32 round = 1; round <= rounds; ++round) {
    if (round == 11) start = clock64();
    float* values = reinterpret_cast<float*>(data) + (round & 1) * count;
    if constexpr (kHow == How::Units) {
      units<kThreads>(data, count, each, round, wait);
    } else {
      publish<kThreads>(values, flags, each, round);
      if constexpr (kHow == How::FlagsAndLoads)
        flags_and_loads<kThreads>(values, flags, count, round, wait);
      else
        flags_and_copies(values, flags, count, each, round, shared_address(&barrier), wait);
    }
    if (__syncthreads_or(wait.over)) {
      if (threadIdx.x == 0) atomicAdd(wrong, 1000000);
      return;
    }
    for (u32 i = threadIdx.x; i < count; i += kThreads * 16) mistaken += __float_as_uint(shared_values[i]) != i + round;
    __syncthreads();
  }
  if (mistaken) atomicAdd(wrong, mistaken);
  if (blockIdx.x == 0 && threadIdx.x == 0) *cycles = clock64() - start;
}

template <How kHow, u32 kThreads>
void measure(const char* name, u32 blocks, u32 count) {
  count = count / (4 * blocks) * (4 * blocks);
  u64 *data, *cycles;
  u32 *flags, *wrong, rounds = 2010;
  CK(cudaMalloc(&data, count * 16 + 256));
  CK(cudaMemset(data, 0, count * 16 + 256));
  CK(cudaMalloc(&flags, blocks * 32));
  CK(cudaMemset(flags, 0, blocks * 32));
  CK(cudaMallocManaged(&wrong, 4));
  CK(cudaMallocManaged(&cycles, 8));
  *wrong = 0;
  const auto kernel = exchange<kHow, kThreads>;
  CK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, count * 4));
  void* arguments[] = {&data, &flags, &count, &rounds, &wrong, &cycles};
  CK(cudaLaunchCooperativeKernel((void*)kernel, dim3(blocks), dim3(kThreads), arguments, count * 4, 0));
  CK(cudaDeviceSynchronize());
  printf("%-24s %3u blocks of %3u, %5u floats: %6.0f cycles, %u wrong\n", name, blocks, kThreads, count, double(*cycles) / (rounds - 10), *wrong);
  for (void* memory : {(void*)data, (void*)flags, (void*)wrong, (void*)cycles}) CK(cudaFree(memory));
}

int main() {
  for (u32 count : {256u, 1024u, 4096u, 8192u, 16384u, 32768u}) {
    measure<How::Units, 512>("numbered units", 16, count);
    measure<How::FlagsAndLoads, 512>("flags, loads", 16, count);
    measure<How::FlagsAndCopies, 512>("flags, the copy engine", 16, count);
  }
  for (u32 blocks : {64u, 128u}) {
    measure<How::Units, 512>("numbered units", blocks, 1024);
    measure<How::FlagsAndLoads, 512>("flags, loads", blocks, 1024);
  }
}

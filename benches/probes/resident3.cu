// What the third look at resident kernels asks: whether copies of a small input, each in a line of its own and polled by a warp of
// its own, are seen sooner than one; and whether memory-mapped-I/O loads and stores are.
//
//   nvcc -O3 -std=c++17 -arch=sm_90a -o resident3 resident3.cu && ./resident3 [CALLS]
//
// Every loop that waits has an end, and every kernel a time limit.

#include "probe.cuh"
template <int LOAD>
__device__ __forceinline__ P2 load(const void* p) {
  P2 r;
  if (LOAD == 0) asm volatile("ld.relaxed.sys.global.v2.u64 {%0,%1}, [%2];" : "=l"(r.a), "=l"(r.b) : "l"(p) : "memory");
  if (LOAD == 1) asm volatile("ld.volatile.global.v2.u64 {%0,%1}, [%2];" : "=l"(r.a), "=l"(r.b) : "l"(p) : "memory");
  if (LOAD == 2) {
    asm volatile("ld.mmio.relaxed.sys.global.u64 %0, [%1];" : "=l"(r.a) : "l"(p) : "memory");
    asm volatile("ld.mmio.relaxed.sys.global.u64 %0, [%1];" : "=l"(r.b) : "l"((const char*)p + 8) : "memory");
  }
  return r;
}
template <int STORE>
__device__ __forceinline__ void store(void* p, u64 v) {
  if (STORE == 0) asm volatile("st.relaxed.sys.global.u64 [%0], %1;" ::"l"(p), "l"(v) : "memory");
  if (STORE == 1) asm volatile("st.mmio.relaxed.sys.global.u64 [%0], %1;" ::"l"(p), "l"(v) : "memory");
}
// Warp w polls copy w, `gap` cycles behind warp w - 1 at first. Who sees a call first answers it.
template <int LOAD, int STORE>
__global__ void identity(const char* in, char* out, u64 calls, u64 limit_ns, u32 pairs, u32 gap, u32 copy_bytes, u64* firsts) {
  __shared__ unsigned long long done;
  if (threadIdx.x == 0) done = 0;
  __syncthreads();
  const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const u64 until = ns() + limit_ns;
  const long long t = clock64();
  while (clock64() - t < (long long)warp * gap) {}
  const char* mine = in + u64(warp) * copy_bytes;
  u64 first = 0;
  for (u64 s = 1; s <= calls;) {
    P2 v{0, 0};
    if (lane < pairs) v = load<LOAD>(mine + lane * 16);
    const bool ok = lane >= pairs || (u32(v.a >> 32) == u32(s) && u32(v.b >> 32) == u32(s));
    if (__all_sync(~0u, ok)) {
      unsigned long long before = 0;
      if (lane == 0) before = atomicMax(&done, (unsigned long long)s);
      before = __shfl_sync(~0u, before, 0);
      if (before < s) {
        if (lane < pairs) store<STORE>(out + lane * 16, v.a), store<STORE>(out + lane * 16 + 8, v.b);
        ++first;
      }
      ++s;
    } else {
      // Another warp has answered it: the next may already be there.
      const u64 d = *(volatile unsigned long long*)&done;
      if (d >= s) s = d + 1;
      if (ns() > until) break;
    }
  }
  if (lane == 0) firsts[warp] = first;
}
static char* host;
static u64* firsts;
static cudaStream_t st;
template <int LOAD, int STORE>
static void run(const char* what, u64 calls, u32 words, u32 copies, u32 gap) {
  CK(cudaStreamSynchronize(st));
  memset(host, 0, 1 << 20);
  memset(firsts, 0, 64 * 8);
  const u32 copy_bytes = (words * 8 + 255) / 256 * 256;
  identity<LOAD, STORE><<<1, 32 * copies, 0, st>>>(host, host + 524288, calls, 4000000000ull, words / 2, gap, copy_bytes, firsts);
  CK(cudaGetLastError());
  std::vector<float> us;
  const u64* out = (const u64*)(host + 524288);
  u64 wrong = 0;
  for (u64 n = 1; n <= calls; ++n) {
    const auto t0 = clk::now();
    for (u32 c = 0; c < copies; ++c)
      for (u32 i = 0; i < words; i += 2)
        _mm_store_si128((__m128i*)(host + c * copy_bytes + i * 8), _mm_set_epi32((int)n, (int)(n + i + 1), (int)n, (int)(n + i)));
    for (u32 i = 0; i < words; ++i) {
      u64 looks = 0, v;
      while (((v = __atomic_load_n(out + i, __ATOMIC_RELAXED)) >> 32) != (u32)n)
        if (++looks > 400000000ull) {
          printf("%s: no answer to %lu\n", what, n);
          return;
        }
      wrong += (u32)v != (u32)(n + i);
    }
    const auto t1 = clk::now();
    if (n > calls / 20) us.push_back(std::chrono::duration<float, std::micro>(t1 - t0).count());
  }
  CK(cudaStreamSynchronize(st));
  std::sort(us.begin(), us.end());
  auto at = [&](double q) { return us[size_t((us.size() - 1) * q)]; };
  printf("%-14s %2u words, %u copies, gap %4u  p50 %5.2f p99 %5.2f p99.9 %6.2f max %7.1f wrong %lu first", what, words, copies, gap, at(.5), at(.99),
         at(.999), at(1), wrong);
  for (u32 c = 0; c < copies; ++c) printf(" %lu", firsts[c]);
  printf("\n");
  fflush(stdout);
}
int main(int argc, char** argv) {
  const u64 calls = argc > 1 ? atoll(argv[1]) : 100000;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(3, &set);
  sched_setaffinity(0, sizeof set, &set);
  CK(cudaSetDevice(0));
  CK(cudaStreamCreateWithFlags(&st, cudaStreamNonBlocking));
  CK(cudaHostAlloc(&host, 1 << 20, cudaHostAllocMapped));
  CK(cudaHostAlloc(&firsts, 64 * 8, cudaHostAllocMapped));
  run<0, 0>("relaxed", calls, 8, 1, 0);
  run<1, 0>("volatile", calls, 8, 1, 0);
  run<2, 0>("mmio load", calls, 2, 1, 0);
  run<0, 1>("mmio store", calls, 8, 1, 0);
  for (u32 copies : {2u, 3u, 4u, 6u, 8u})
    for (u32 gap : {0u, 2000u / copies}) run<0, 0>("relaxed", calls, 8, copies, gap);
  for (u32 copies : {1u, 2u, 4u}) run<0, 0>("relaxed", calls, 16, copies, 2000 / copies);
  return 0;
}

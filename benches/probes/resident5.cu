// What the fifth look at resident kernels asks: warps that do nothing but look for calls, several to a block, each at a copy of
// the input of its own and one behind the other. Calls come at random times, so that one warp's look, a round trip of 1.27 us, is
// missed by half of that on the mean.
//
//   nvcc -O3 -std=c++17 -arch=sm_90a -o resident5 resident5.cu && ./resident5 [CALLS]
//
// Every loop that waits has an end, and every kernel a time limit.
#include "probe.cuh"

// Of each block, `lookers` warps, of which number w looks at copy w (or all at one), every `pace` cycles (0: as soon as the last
// look came back). The first that sees a call tells block 0, which answers when all blocks have, and `work` cycles later.
__global__ void ask(const char* in, char* out, u64 calls, u64 limit_ns, u32 pairs, u32 lookers, u32 pace, u32 work, u32 copy_bytes, u64* looked) {
  __shared__ __align__(8) u64 barrier;
  __shared__ unsigned long long done;
  const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, block = rank();
  const u32 bar = (u32)__cvta_generic_to_shared(&barrier);
  if (threadIdx.x == 0) {
    done = 0;
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(gridDim.x) : "memory");
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();
  cluster_sync();
  const long long base = clock64();
  const u64 until = ns() + limit_ns;
  if (warp < lookers) {
    u32 there;
    asm("mapa.shared::cluster.u32 %0, %1, 0;" : "=r"(there) : "r"(bar));
    const char* mine = in + u64(block) * pairs * 16 + u64(warp) * copy_bytes + lane * 16;
    const long long behind = (long long)warp * (pace ? pace : 2440) / lookers;
    while (clock64() - base < behind) {}
    u64 looks = 0;
    for (u64 s = 1; s <= calls;) {
      if (pace) {
        const long long now = clock64() - base - behind, due = (now + pace - 1) / pace * pace + behind;
        while (clock64() - base < due) {}
      }
      P2 v{0, 0};
      if (lane < pairs) v = load(mine);
      const bool ok = lane >= pairs || (u32(v.a >> 32) == u32(s) && u32(v.b >> 32) == u32(s));
      const bool seen = __all_sync(~0u, ok);
      ++looks;
      if (seen) {
        if (lane == 0 && atomicMax(&done, (unsigned long long)s) < s)
          asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(there) : "memory");
        ++s;
      } else {
        const u64 d = *(volatile unsigned long long*)&done;
        if (d >= s) s = d + 1;
        if ((looks & 7) == 0 && __any_sync(~0u, ns() > until)) break;
      }
    }
    if (lane == 0 && block == 0) looked[warp] = looks;
  } else if (block == 0) {
    for (u64 s = 1; s <= calls; ++s) {
      u32 yes = 0;
      for (u64 k = 0; !yes; ++k) {
        asm volatile("{.reg .pred p; mbarrier.test_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p;}"
                     : "=r"(yes) : "r"(bar), "r"(u32((s - 1) & 1)) : "memory");
        if ((k & 255) == 255 && ns() > until) break;
      }
      if (!yes) break;
      const long long t = clock64();
      while (clock64() - t < work) {}
      if (lane == 0) asm volatile("st.relaxed.sys.global.u64 [%0], %1;" ::"l"(out), "l"((s << 32) | 1) : "memory");
    }
  }
  cluster_sync();
}
static char* host;
static u64* looked;
static cudaStream_t st;
static void run(u64 calls, u32 words, u32 blocks, u32 lookers, bool copied, u32 pace, u32 work, float gap_us) {
  CK(cudaStreamSynchronize(st));
  memset(host, 0, 1 << 20);
  memset(looked, 0, 64 * 8);
  const u32 copy_bytes = copied ? (words * 8 + 255) / 256 * 256 : 0, copies = copied ? lookers : 1;
  char* out = host + 524288;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(blocks), config.blockDim = dim3(32 * (lookers + 1)), config.stream = st;
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = blocks, attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  config.attrs = &attribute, config.numAttrs = 1;
  CK(cudaFuncSetAttribute(ask, cudaFuncAttributeNonPortableClusterSizeAllowed, 1));
  CK(cudaLaunchKernelEx(&config, ask, (const char*)host, out, calls, (u64)4000000000ull, words / 2 / blocks, lookers, pace, work, copy_bytes,
                        looked));
  std::vector<float> us, wrote;
  u64 random = 88172645463325252ull;
  for (u64 n = 1; n <= calls; ++n) {
    random ^= random << 13, random ^= random >> 7, random ^= random << 17;
    const auto wait = std::chrono::nanoseconds(long(gap_us * 1000 * double(random % 1024) / 1024));
    for (const auto t = clk::now(); clk::now() - t < wait;) {}
    const auto t0 = clk::now();
    for (u32 c = 0; c < copies; ++c)
      for (u32 i = 0; i < words; i += 2)
        _mm_store_si128((__m128i*)(host + c * copy_bytes + i * 8), _mm_set_epi32((int)n, (int)(n + i + 1), (int)n, (int)(n + i)));
    const auto t2 = clk::now();
    u64 looks = 0;
    while ((__atomic_load_n((const u64*)out, __ATOMIC_RELAXED) >> 32) != n)
      if (++looks > 100000000ull) {
        printf("no answer to %lu\n", n);
        cudaStreamSynchronize(st);
        return;
      }
    const auto t1 = clk::now();
    if (n > calls / 20) {
      us.push_back(std::chrono::duration<float, std::micro>(t1 - t0).count());
      wrote.push_back(std::chrono::duration<float, std::micro>(t2 - t0).count());
    }
  }
  CK(cudaStreamSynchronize(st));
  std::sort(us.begin(), us.end());
  std::sort(wrote.begin(), wrote.end());
  auto at = [](const std::vector<float>& x, double q) { return x[size_t((x.size() - 1) * q)]; };
  printf("%3u words %2u blocks %2u lookers %s pace %4u work %4u gap %3.1f | %5.2f %5.2f p50 %5.2f %5.2f p99 %5.2f p99.9 %6.2f | written %4.2f, looks a call", words,
         blocks, lookers, copied ? "copies" : "shared", pace, work, gap_us, at(us, .001), at(us, .1), at(us, .5), at(us, .9), at(us, .99), at(us, .999), at(wrote, .5));
  for (u32 w = 0; w < lookers && w < 4; ++w) printf(" %.2f", double(looked[w]) / double(calls));
  printf("\n");
  fflush(stdout);
}
int main(int argc, char** argv) {
  const u64 calls = argc > 1 ? atoll(argv[1]) : 30000;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(3, &set);
  sched_setaffinity(0, sizeof set, &set);
  CK(cudaSetDevice(0));
  CK(cudaStreamCreateWithFlags(&st, cudaStreamNonBlocking));
  CK(cudaHostAlloc(&host, 1 << 20, cudaHostAllocMapped));
  CK(cudaHostAlloc(&looked, 64 * 8, cudaHostAllocMapped));
  run(calls / 4, 256, 16, 1, true, 0, 3000, 0);
  for (float gap : {4.f, 0.f}) {
    printf("-- gap %.0f: quantiles 0.1 %%, 10 %%, 50 %%, 90 %%, 99 %%, 99.9 %%\n", gap);
    for (u32 words : {2u, 64u})
      for (u32 lookers : {1u, 2u, 3u, 4u, 6u, 8u})
        for (u32 pace : {0u, 2640u}) run(calls, words, 1, lookers, true, pace, 0, gap);
    for (u32 lookers : {2u, 4u}) run(calls, 2, 1, lookers, false, 0, 0, gap);
    for (u32 lookers : {2u, 4u}) run(calls, 64, 1, lookers, false, 2640, 0, gap);
    for (u32 lookers : {1u, 2u, 3u, 4u, 6u})
      for (u32 pace : {0u, 2640u}) run(calls, 256, 16, lookers, true, pace, 3000, gap);
    for (u32 lookers : {1u, 2u, 3u, 4u})
      for (u32 pace : {0u, 2640u}) run(calls, 64, 16, lookers, true, pace, 3000, gap);
  }
  return 0;
}

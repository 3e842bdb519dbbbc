// What the fourth look at resident kernels asks: calls come when they come, not one right behind the other. What then do polls
// cost that are out of step, and what do polls in step (every block looks at the same time), a narrower share, copies of the
// input that are asked for by turns, and one block that asks for all of it bring?
//
//   nvcc -O3 -std=c++17 -arch=sm_90a -o resident4 resident4.cu && ./resident4 [CALLS]
//
// Every loop that waits has an end, and every kernel a time limit.
#include "probe.cuh"
struct Spent {
  u64 looks, cycles, late;  // in block 0's first warp
};
// Each warp of each block has `pairs` units of two words, and asks for them every `pace` cycles (0: as soon as the last came
// back), of `COPIES` copies by turns. When all have seen a call, and `work` cycles later, block 0 answers with one word.
template <int COPIES>
__global__ void ask(const char* in, char* out, u64 calls, u64 limit_ns, u32 pairs, u32 pace, u32 work, u32 copy_bytes, Spent* spent) {
  __shared__ __align__(8) u64 barrier;
  const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32, block = rank();
  const u32 bar = (u32)__cvta_generic_to_shared(&barrier);
  if (threadIdx.x == 0) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(gridDim.x * warps) : "memory");
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  cluster_sync();
  const long long base = clock64();
  const u64 until = ns() + limit_ns;
  u32 there;
  asm("mapa.shared::cluster.u32 %0, %1, 0;" : "=r"(there) : "r"(bar));
  const char* mine = in + u64(block * warps + warp) * pairs * 16 + lane * 16;
  const u32 step = pace / COPIES;
  u64 looks = 0, cycles = 0, late = 0;
  bool over = false;
  for (u64 s = 1; s <= calls && !over; ++s) {
    P2 v[COPIES];
    long long asked[COPIES];
#pragma unroll
    for (int c = 0; c < COPIES; ++c) v[c] = P2{0, 0}, asked[c] = 0;
    long long next = 0;
    for (bool seen = false; !seen && !over;) {
#pragma unroll
      for (int c = 0; c < COPIES; ++c) {
        if (seen || over) continue;
        if (step) {
          const long long now = clock64() - base;
          const long long due = (now + step - 1) / step * step;
          if (next && due > next) ++late;
          next = due + step;
          while (clock64() - base < due) {}
        }
        asked[c] = clock64();
        if (lane < pairs) v[c] = load(mine + u64(c) * copy_bytes);
        const int o = (c + 1) % COPIES;
        const bool ok = lane >= pairs || (u32(v[o].a >> 32) == u32(s) && u32(v[o].b >> 32) == u32(s));
        seen = __all_sync(~0u, ok);
        ++looks, cycles += clock64() - asked[o];
        if ((looks & 7) == 0) over = __any_sync(~0u, ns() > until);
      }
    }
    if (over) break;
    if (lane == 0) asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(there) : "memory");
    if (block == 0 && warp == 0) {
      u32 yes = 0;
      for (u64 k = 0; !yes && k < 100000000ull; ++k)
        asm volatile("{.reg .pred p; mbarrier.test_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p;}"
                     : "=r"(yes) : "r"(bar), "r"(u32((s - 1) & 1)) : "memory");
      const long long t = clock64();
      while (clock64() - t < work) {}
      if (lane == 0) asm volatile("st.relaxed.sys.global.u64 [%0], %1;" ::"l"(out), "l"((s << 32) | u32(v[0].a + s)) : "memory");
    } else {
      const long long t = clock64();
      while (clock64() - t < work) {}
    }
  }
  if (threadIdx.x == 0 && block == 0) *spent = Spent{looks, cycles, late};
  cluster_sync();
}
static char* host;
static Spent* spent;
static cudaStream_t st;
template <int COPIES>
static void run(u64 calls, u32 words, u32 blocks, u32 warps, u32 pace, u32 work, float gap_us) {
  CK(cudaStreamSynchronize(st));
  memset(host, 0, 1 << 20);
  memset(spent, 0, sizeof *spent);
  const u32 copy_bytes = (words * 8 + 255) / 256 * 256;
  char* out = host + 524288;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(blocks), config.blockDim = dim3(32 * warps), config.stream = st;
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = blocks, attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  config.attrs = &attribute, config.numAttrs = 1;
  CK(cudaFuncSetAttribute(ask<COPIES>, cudaFuncAttributeNonPortableClusterSizeAllowed, 1));
  CK(cudaLaunchKernelEx(&config, ask<COPIES>, (const char*)host, out, calls, (u64)4000000000ull, words / 2 / blocks / warps, pace, work,
                        copy_bytes, spent));
  std::vector<float> us, wrote;
  u64 random = 88172645463325252ull;
  for (u64 n = 1; n <= calls; ++n) {
    random ^= random << 13, random ^= random >> 7, random ^= random << 17;
    const auto wait = std::chrono::nanoseconds(long(gap_us * 1000 * double(random % 1024) / 1024));
    for (const auto t = clk::now(); clk::now() - t < wait;) {}
    const auto t0 = clk::now();
    for (u32 c = 0; c < COPIES; ++c)
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
  printf("%3u words %2u blocks %2u warps %d copies pace %4u work %4u gap %3.1f  p50 %5.2f p99 %5.2f p99.9 %6.2f  written %4.2f  a look %5.0f cycles, late %lu of %lu\n",
         words, blocks, warps, COPIES, pace, work, gap_us, at(us, .5), at(us, .99), at(us, .999), at(wrote, .5),
         double(spent->cycles) / double(spent->looks), spent->late, spent->looks);
  fflush(stdout);
}
int main(int argc, char** argv) {
  const u64 calls = argc > 1 ? atoll(argv[1]) : 40000;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(3, &set);
  sched_setaffinity(0, sizeof set, &set);
  CK(cudaSetDevice(0));
  CK(cudaStreamCreateWithFlags(&st, cudaStreamNonBlocking));
  CK(cudaHostAlloc(&host, 1 << 20, cudaHostAllocMapped));
  CK(cudaHostAlloc(&spent, sizeof *spent, cudaHostAllocMapped));
  run<1>(calls / 4, 256, 16, 1, 0, 3000, 0);
  for (float gap : {0.f, 4.f}) {
    printf("-- gap %.0f\n", gap);
    for (u32 work : {0u, 3000u}) {
      run<1>(calls, 256, 16, 1, 0, work, gap);
      for (u32 pace : {1600u, 1900u, 2200u, 2600u}) run<1>(calls, 256, 16, 1, pace, work, gap);
      for (u32 pace : {1600u, 1900u, 2200u, 2600u}) run<2>(calls, 256, 16, 1, pace, work, gap);
      for (u32 pace : {1900u, 2200u}) run<4>(calls, 256, 16, 1, pace, work, gap);
    }
    // One block asks for all of it; small networks.
    for (u32 warps : {4u, 8u}) {
      run<1>(calls, 256, 1, warps, 0, 3000, gap);
      run<1>(calls, 256, 1, warps, 1900, 3000, gap);
      run<2>(calls, 256, 1, warps, 1900, 3000, gap);
      run<4>(calls, 256, 1, warps, 2200, 3000, gap);
    }
    for (u32 words : {2u, 8u, 64u}) {
      run<1>(calls, words, 1, 1, 0, 0, gap);
      run<1>(calls, words, 1, 1, 1900, 0, gap);
      run<2>(calls, words, 1, 1, 1900, 0, gap);
      run<4>(calls, words, 1, 1, 1900, 0, gap);
    }
  }
  return 0;
}

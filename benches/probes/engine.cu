// Drives one resident engine without the library: turns queued two deep, calls one after the other, answers compared.
//
//   nvcc -O3 -std=c++17 -arch=sm_90a -o engine engine.cu -lcuda
//   ./engine NAME BLOCKS THREADS SHARED WORDS ANSWERS [CALLS [TURN_MS [STEPS [STATE_BYTES [GAP_US]]]]]
//
// reads NAME.cubin, NAME.bin (constants), NAME.in (samples of WORDS words) and NAME.out (their answers). With STEPS the samples are
// rows that come round again and again, and an answer is that of the STEPS rows that end with its own; the first call, and
// one of 1000, brings them all. GAP_US is left between a call and the next; without it the next waits for what is computed
// ahead. Every wait has an end.
#include <cuda.h>
#include <immintrin.h>
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>
using u32 = uint32_t;
using u64 = uint64_t;
#define CK(x)                                                                     \
  do {                                                                            \
    CUresult e_ = (x);                                                            \
    if (e_ != CUDA_SUCCESS) {                                                     \
      const char* name_ = "";                                                     \
      cuGetErrorName(e_, &name_);                                                 \
      printf("%s:%d %s: %s\n", __FILE__, __LINE__, #x, name_);                    \
      exit(1);                                                                    \
    }                                                                             \
  } while (0)
struct Turn {
  u64 constants, input, answer, progress, report, limit_ns, state;
  u32 input_stride, answer_stride, depth, flags;
  u64 rows;
  u32 rows_stride, reserved;
};
static std::vector<char> read(const std::string& path) {
  std::vector<char> bytes;
  FILE* f = fopen(path.c_str(), "rb");
  if (!f) return printf("no %s\n", path.c_str()), exit(1), bytes;
  char chunk[65536];
  for (size_t n; (n = fread(chunk, 1, sizeof chunk, f));) bytes.insert(bytes.end(), chunk, chunk + n);
  fclose(f);
  return bytes;
}
int main(int argc, char** argv) {
  if (argc < 7) return puts("see the head of engine.cu"), 2;
  const std::string name = argv[1];
  const u32 blocks = atoi(argv[2]), threads = atoi(argv[3]), shared = atoi(argv[4]), words = atoi(argv[5]), answers = atoi(argv[6]);
  const u64 calls = argc > 7 ? atoll(argv[7]) : 200000;
  const u64 turn_ns = (argc > 8 ? atoll(argv[8]) : 50) * 1000000ull;
  const u32 steps = argc > 9 ? atoi(argv[9]) : 0, lead = steps ? 2 : 0;
  const u64 state_bytes = argc > 10 ? atoll(argv[10]) : 0;
  const double gap_us = argc > 11 ? atof(argv[11]) : 0;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(3, &set);
  sched_setaffinity(0, sizeof set, &set);
  CK(cuInit(0));
  CUdevice device;
  CUcontext context;
  CK(cuDeviceGet(&device, 0));
  CK(cuDevicePrimaryCtxRetain(&context, device));
  CK(cuCtxSetCurrent(context));
  CUstream stream;
  CK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  CUmodule module;
  CUfunction kernel;
  CK(cuModuleLoadData(&module, read(name + ".cubin").data()));
  CK(cuModuleGetFunction(&kernel, module, "tickrt_resident"));
  if (blocks > 8) CK(cuFuncSetAttribute(kernel, CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1));
  CK(cuFuncSetAttribute(kernel, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared));
  const std::vector<char> constants = read(name + ".bin"), in = read(name + ".in"), expected = read(name + ".out");
  const size_t samples = in.size() / (words * 4);
  CUdeviceptr memory, progress, host_there;
  CK(cuMemAlloc(&memory, constants.size() + 64));
  if (constants.size()) CK(cuMemcpyHtoD(memory, constants.data(), constants.size()));
  CK(cuMemAlloc(&progress, 64));
  CK(cuMemsetD8(progress, 0, 64));
  CUdeviceptr state;
  CK(cuMemAlloc(&state, state_bytes + 64));
  CK(cuMemsetD8(state, 0, state_bytes + 64));
  const u64 one = 1;
  CK(cuMemcpyHtoD(progress, &one, 8));
  const u32 units = lead + (words + 1) / 2 * 2, stride = (units * 8 + 255) / 256 * 256, answer_stride = (answers * 8 + 255) / 256 * 256, depth = 2;
  const u32 rows_stride = steps * words * 4;
  const size_t rows_at = depth * (stride + answer_stride) + 4096, bytes = rows_at + depth * rows_stride;
  char* host;
  CK(cuMemHostAlloc((void**)&host, bytes, CU_MEMHOSTALLOC_DEVICEMAP));
  memset(host, 0, bytes);
  CK(cuMemHostGetDevicePointer(&host_there, host, 0));
  volatile u64* report = (volatile u64*)(host + depth * (stride + answer_stride));
  Turn turn{memory, host_there, host_there + depth * stride, progress, host_there + depth * (stride + answer_stride), turn_ns, state, stride,
            answer_stride, depth, 0, host_there + rows_at, rows_stride, 0};
  void* arguments[] = {&turn};
  u64 queued = 0;
  auto queue = [&] {
    CK(cuLaunchKernel(kernel, blocks, 1, 1, threads, 1, 1, shared, stream, arguments, nullptr));
    ++queued;
  };
  queue(), queue();
  std::vector<float> us;
  us.reserve(calls);
  double worst = 0;
  u64 wrong = 0;
  using clk = std::chrono::steady_clock;
  for (u64 n = 1; n <= calls; ++n) {
    if (report[0] + 2 > queued && n % 64 == 0) queue();
    const size_t sample = n % samples, slot = (n - 1) % depth;
    const u32* from = (const u32*)in.data() + sample * words;
    u64* to = (u64*)(host + slot * stride);
    const u64* out = (const u64*)(host + depth * stride + slot * answer_stride);
    const bool whole = steps && (n == 1 || n % 1000 == 0);
    if (whole)
      for (u32 row = 0; row < steps; ++row)
        memcpy(host + rows_at + slot * rows_stride + row * words * 4,
               (const u32*)in.data() + (sample + samples * steps + row + 1 - steps) % samples * words, words * 4);
    if (gap_us > 0)
      for (const auto from = clk::now(); std::chrono::duration<double, std::micro>(clk::now() - from).count() < gap_us;) _mm_pause();
    const auto t0 = clk::now();
    if (lead) {
      _mm_store_si128((__m128i*)to, _mm_set_epi32((int)n, 0, (int)n, whole ? (int)steps : 1));
      to += 2;
    }
    for (u32 i = 0; i < units - lead; i += 2)
      _mm_store_si128((__m128i*)(to + i), _mm_set_epi32((int)n, i + 1 < words ? (int)from[i + 1] : 0, (int)n, (int)from[i]));
    const u32 tag = (u32)(n << 8);
    for (u32 i = 0; i < answers; ++i) {
      u64 looks = 0;
      while ((__atomic_load_n(out + i, __ATOMIC_RELAXED) >> 32) != tag) {
        if ((++looks & 0xfffff) == 0 && report[0] + 2 > queued) queue();
        if (looks > 2000000000ull || (looks & 0xfffffff) == 0xfffffff) {
          printf("%s: no answer to call %lu, unit %u is %lx, turns %lu of %lu, next %lu, stream %d\n", name.c_str(), n, i, out[i],
                 (u64)report[0], queued, (u64)report[1], cuStreamQuery(stream));
          fflush(stdout);
          if (looks > 1000000000ull) return 1;
        }
      }
    }
    const auto t1 = clk::now();
    if (n > calls / 20 && !whole) us.push_back(std::chrono::duration<float, std::micro>(t1 - t0).count());
    const float* good = (const float*)expected.data() + sample * answers;
    for (u32 i = 0; i < answers; ++i) {
      float x;
      const u32 bits = (u32)out[i];
      memcpy(&x, &bits, 4);
      const double apart = std::abs(double(x) - good[i]) / std::max(1.0, (double)std::abs(good[i]));
      if (!(apart < 1e-4)) ++wrong;
      worst = std::max(worst, apart);
    }
  }
  // A stop for what still runs or waits.
  *(volatile u64*)(host + calls % depth * stride) = (u64)((u32)(calls + 1) ^ 0x80000000u) << 32;
  CK(cuStreamSynchronize(stream));
  std::sort(us.begin(), us.end());
  auto at = [&](double q) { return us[size_t((us.size() - 1) * q)]; };
  printf("%-22s p50 %6.2f p99 %6.2f p99.9 %6.2f p99.99 %7.2f max %7.1f worst %.1e wrong %lu turns %lu met %lu stopped %lu cycles", name.c_str(),
         at(.5), at(.99), at(.999), at(.9999), at(1), worst, wrong, (u64)report[0], (u64)report[2], (u64)report[3]);
  for (int i = 0; i < 12; ++i)
    if (report[4 + i]) printf(" %.0f", double(report[4 + i]) / calls);
  printf("\n");
  return wrong != 0;
}

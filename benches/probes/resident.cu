// What a persistent kernel takes host to host: an empty network, and mlp 256-512-512-256-3 with its weights in the registers
// of one cluster of 16 blocks. No part of the library: it was written to be measured (resident.md).
//
//   nvcc -O3 -std=c++17 -arch=sm_90a -o resident resident.cu && ./resident [CALLS]
//
// Input and answer go in band: 4 bytes of data and 4 of the call's number in a unit of 8. Blocks send each other what they
// have computed by st.async, counted by an mbarrier at the receiver. Every loop that waits has an end.
#include <cooperative_groups.h>
#include <cuda.h>
#include <unistd.h>

#include <cmath>
#include <random>

#include "probe.cuh"
namespace cg = cooperative_groups;
__device__ __forceinline__ void st1(void* p, u64 v) {
  asm volatile("st.relaxed.sys.global.u64 [%0], %1;" ::"l"(p), "l"(v) : "memory");
}
__device__ __forceinline__ u32 s32(const void* p) {
  return (u32)__cvta_generic_to_shared(p);
}
__device__ __forceinline__ u32 mapa(u32 addr, u32 rank) {
  u32 r;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(r) : "r"(addr), "r"(rank));
  return r;
}
__device__ __forceinline__ void mb_init(u64* b, u32 n) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(s32(b)), "r"(n) : "memory");
}
__device__ __forceinline__ void mb_expect(u64* b, u32 bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(s32(b)), "r"(bytes) : "memory");
}
__device__ __forceinline__ bool mb_try(u64* b, u32 par) {
  u32 ok;
  asm volatile("{.reg .pred p; mbarrier.test_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2; selp.u32 %0,1,0,p;}"
               : "=r"(ok)
               : "r"(s32(b)), "r"(par)
               : "memory");
  return ok;
}
__device__ __forceinline__ void sta2(u32 addr, u32 bar, float x, float y) {
  asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [%0], {%2,%3}, [%1];" ::"r"(addr), "r"(bar),
               "f"(x), "f"(y)
               : "memory");
}
__device__ __forceinline__ void sta1(u32 addr, u32 bar, float x) {
  asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.f32 [%0], %2, [%1];" ::"r"(addr), "r"(bar), "f"(x)
               : "memory");
}
__device__ __forceinline__ void sta4(u32 addr, u32 bar, float4 v) {
  asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%2,%3,%4,%5}, [%1];" ::"r"(addr),
               "r"(bar), "f"(v.x), "f"(v.y), "f"(v.z), "f"(v.w)
               : "memory");
}
// ---- identity: one warp, 8 floats each way
__global__ void identity(const u64* in, u64* out, u64 calls, u64 limit_ns) {
  const u32 lane = threadIdx.x;
  const u64 until = ns() + limit_ns;
  for (u32 s = 1; s <= calls; ++s) {
    P2 v;
    bool mine = lane < 4;
    for (u32 k = 0;; ++k) {
      bool ok = true;
      if (mine) {
        v = load(in + lane * 2);
        ok = u32(v.a >> 32) == s && u32(v.b >> 32) == s;
      }
      if (__all_sync(~0u, ok)) break;
      if ((k & 255) == 255 && ns() > until) return;
    }
    if (mine) {
      st1(out + lane * 2, v.a);
      st1(out + lane * 2 + 1, v.b);
    }
  }
}
__global__ void identity_thread(const u64* in, u64* out, u64 calls,
                                u64 limit_ns) {  // no agreement: each thread its own pair
  const u32 lane = threadIdx.x;
  const u64 until = ns() + limit_ns;
  for (u32 s = 1; s <= calls; ++s) {
    P2 v;
    for (u32 k = 0;; ++k) {
      v = load(in + lane * 2);
      if (u32(v.a >> 32) == s && u32(v.b >> 32) == s) break;
      if ((k & 255) == 255 && ns() > until) return;
    }
    asm volatile("st.relaxed.sys.global.v2.u64 [%0], {%1,%2};" ::"l"(out + lane * 2), "l"(v.a), "l"(v.b) : "memory");
  }
}
// ---- mlp
constexpr u32 C = 16, T = 512, WARPS = 16;
struct Smem {
  alignas(16) float x1[256], x2[512], x3[512], x4[256];
  u64 bar[4];
};
struct Net {
  const float *w1, *b1, *w2, *b2, *w3, *b3, *w4, *b4;
};
template <int K, int N>
__device__ __forceinline__ void load_w(float (&w)[N][K / 32], const float* W, u32 row, u32 lane) {
  for (int n = 0; n < N; ++n)
    for (int j = 0; j < K / 128; ++j) {
      float4 v = *(const float4*)(W + (row + n) * K + j * 128 + lane * 4);
      w[n][j * 4] = v.x;
      w[n][j * 4 + 1] = v.y;
      w[n][j * 4 + 2] = v.z;
      w[n][j * 4 + 3] = v.w;
    }
}
template <int K, int N>
__device__ __forceinline__ void dot(float (&acc)[N], const float (&w)[N][K / 32], const float* x, u32 lane) {
  for (int n = 0; n < N; ++n) acc[n] = 0;
#pragma unroll
  for (int j = 0; j < K / 128; ++j) {
    float4 v = *(const float4*)(x + j * 128 + lane * 4);
#pragma unroll
    for (int n = 0; n < N; ++n) {
      acc[n] = fmaf(v.x, w[n][j * 4], acc[n]);
      acc[n] = fmaf(v.y, w[n][j * 4 + 1], acc[n]);
      acc[n] = fmaf(v.z, w[n][j * 4 + 2], acc[n]);
      acc[n] = fmaf(v.w, w[n][j * 4 + 3], acc[n]);
    }
  }
}
__device__ __forceinline__ float sum(float a) {
  for (int o = 16; o; o >>= 1) a += __shfl_xor_sync(~0u, a, o);
  return a;
}
// MODE 0: each block polls 1/16 of the input and sends it to all. MODE 1: each block polls all of it. MODE 2: block 0 polls
// all and sends.
template <int MODE>
__global__ void __cluster_dims__(16, 1, 1) __launch_bounds__(512, 1)
    mlp(Net net, const u64* in, u64* out, u64 calls, u64 limit_ns, u64* stamps) {
  __shared__ Smem sm;
  auto cluster = cg::this_cluster();
  const u32 rank = cluster.block_rank(), warp = threadIdx.x / 32, lane = threadIdx.x % 32, gw = rank * WARPS + warp;
  float w1[2][8], w2[2][16], w3[1][16], w4[1][8];
  load_w<256, 2>(w1, net.w1, gw * 2, lane);
  load_w<512, 2>(w2, net.w2, gw * 2, lane);
  load_w<512, 1>(w3, net.w3, gw, lane);
  if (warp < 3) load_w<256, 1>(w4, net.w4, warp, lane);
  const float b1a = net.b1[gw * 2], b1b = net.b1[gw * 2 + 1], b2a = net.b2[gw * 2], b2b = net.b2[gw * 2 + 1],
              b3 = net.b3[gw], b4 = warp < 3 ? net.b4[warp] : 0;
  const u32 bytes[4] = {1024, 2048, 2048, 1024};
  if (threadIdx.x == 0) {
    for (int i = 0; i < 4; ++i) mb_init(&sm.bar[i], 1);
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    for (int i = 0; i < 4; ++i)
      if (MODE != 1 || i > 0) mb_expect(&sm.bar[i], bytes[i]);
  }
  cluster.sync();
  const u64 until = ns() + limit_ns;
  // where this lane sends
  const u32 dst = lane & 15;
  const u32 x1d = mapa(s32(sm.x1), dst), b0d = mapa(s32(&sm.bar[0]), dst), x2d = mapa(s32(sm.x2), dst),
            b1d = mapa(s32(&sm.bar[1]), dst), x3d = mapa(s32(sm.x3), dst), b2d = mapa(s32(&sm.bar[2]), dst),
            x4d = mapa(s32(sm.x4), 0), b3d = mapa(s32(&sm.bar[3]), 0);
  bool stop = false;
  u64 t[7];
  u64 acc[6] = {};
  auto wait = [&](int i, u32 par) {
    for (u32 k = 0; !mb_try(&sm.bar[i], par); ++k)
      if ((k & 1023) == 1023 && ns() > until) {
        stop = true;
        return;
      }
    if (threadIdx.x == 0 && (i < 3 || rank == 0)) mb_expect(&sm.bar[i], bytes[i]);
  };
  for (u32 s = 1; s <= calls && !stop; ++s) {
    const u32 par = (s - 1) & 1;
    if (MODE == 0) {
      if (warp == 0) {
        P2 v = {0, 0};
        for (u32 k = 0;; ++k) {
          bool ok = true;
          if (lane < 8) {
            v = load(in + rank * 16 + lane * 2);
            ok = u32(v.a >> 32) == s && u32(v.b >> 32) == s;
          }
          if (__all_sync(~0u, ok)) break;
          if ((k & 255) == 255 && ns() > until) {
            stop = true;
            break;
          }
        }
        stop = __any_sync(~0u, stop);
        if (stop) break;
        // 4 chunks of 4 floats; lane: destination lane & 15, chunks (lane >> 4) and + 2
        for (int h = 0; h < 2; ++h) {
          const int c = (lane >> 4) + h * 2;
          float4 q;
          q.x = __uint_as_float((u32)__shfl_sync(~0u, v.a, c * 2));
          q.y = __uint_as_float((u32)__shfl_sync(~0u, v.b, c * 2));
          q.z = __uint_as_float((u32)__shfl_sync(~0u, v.a, c * 2 + 1));
          q.w = __uint_as_float((u32)__shfl_sync(~0u, v.b, c * 2 + 1));
          sta4(x1d + (rank * 16 + c * 4) * 4, b0d, q);
        }
      }
      if (threadIdx.x == 0) t[0] = clock64();
      wait(0, par);
    } else if (MODE == 1) {
      if (threadIdx.x < 128) {
        P2 v;
        for (u32 k = 0;; ++k) {
          v = load(in + threadIdx.x * 2);
          if (u32(v.a >> 32) == s && u32(v.b >> 32) == s) break;
          if ((k & 255) == 255 && ns() > until) {
            stop = true;
            break;
          }
        }
        *(float2*)&sm.x1[threadIdx.x * 2] = make_float2(__uint_as_float((u32)v.a), __uint_as_float((u32)v.b));
      }
      if (threadIdx.x == 0) t[0] = clock64();
      stop = __syncthreads_or(stop);
    } else {
      if (rank == 0 && threadIdx.x < 128) {
        P2 v;
        for (u32 k = 0;; ++k) {
          v = load(in + threadIdx.x * 2);
          if (u32(v.a >> 32) == s && u32(v.b >> 32) == s) break;
          if ((k & 255) == 255 && ns() > until) {
            stop = true;
            break;
          }
        }
        if (threadIdx.x == 0) t[0] = clock64();
        if (!stop)
          for (u32 d = 0; d < 16; ++d)
            sta2(mapa(s32(sm.x1), d) + threadIdx.x * 8, mapa(s32(&sm.bar[0]), d), __uint_as_float((u32)v.a),
                 __uint_as_float((u32)v.b));
      }
      wait(0, par);
    }
    if (stop) break;
    if (threadIdx.x == 0) t[1] = clock64();
    {
      float a[2];
      dot<256, 2>(a, w1, sm.x1, lane);
      float p = sum(a[0]) + b1a, q = sum(a[1]) + b1b;
      if (lane < 16) sta2(x2d + gw * 8, b1d, fmaxf(p, 0), fmaxf(q, 0));
    }
    wait(1, par);
    if (stop) break;
    if (threadIdx.x == 0) t[2] = clock64();
    {
      float a[2];
      dot<512, 2>(a, w2, sm.x2, lane);
      float p = sum(a[0]) + b2a, q = sum(a[1]) + b2b;
      if (lane < 16) sta2(x3d + gw * 8, b2d, fmaxf(p, 0), fmaxf(q, 0));
    }
    wait(2, par);
    if (stop) break;
    if (threadIdx.x == 0) t[3] = clock64();
    {
      float a[1];
      dot<512, 1>(a, w3, sm.x3, lane);
      float p = sum(a[0]) + b3;
      if (lane == 0) sta1(x4d + gw * 4, b3d, fmaxf(p, 0));
    }
    if (rank == 0 && warp < 3) {
      wait(3, par);
      if (stop) break;
      if (threadIdx.x == 0) t[4] = clock64();
      float a[1];
      dot<256, 1>(a, w4, sm.x4, lane);
      float p = sum(a[0]) + b4;
      if (lane == 0) st1(out + warp, u64(s) << 32 | __float_as_uint(p));
      if (threadIdx.x == 0) {
        t[5] = clock64();
        for (int i = 0; i < 5; ++i) acc[i] += t[i + 1] - t[i];
      }
    }
  }
  if (rank == 0 && threadIdx.x == 0)
    for (int i = 0; i < 5; ++i) stamps[i] = acc[i];
  cluster.sync();
}
int main(int argc, char** argv) {
  u64 calls = argc > 1 ? atoll(argv[1]) : 200000;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(3, &set);
  sched_setaffinity(0, sizeof set, &set);
  CK(cudaSetDevice(0));
  CK(cudaFree(0));
  cudaStream_t st;
  CK(cudaStreamCreateWithFlags(&st, cudaStreamNonBlocking));
  char* host;
  CK(cudaHostAlloc(&host, 1 << 16, cudaHostAllocMapped));
  u64* stamps;
  CK(cudaHostAlloc(&stamps, 64, cudaHostAllocMapped));
  std::mt19937 g(1);
  std::normal_distribution<float> n01;
  const int D[5] = {256, 512, 512, 256, 3};
  std::vector<float> W[4], B[4];
  float* dev[8];
  for (int l = 0; l < 4; ++l) {
    W[l].resize(D[l] * D[l + 1]);
    B[l].resize(D[l + 1]);
    for (auto& w : W[l]) w = n01(g) / std::sqrt((float)D[l]);
    for (auto& b : B[l]) b = n01(g) * .1f;
    CK(cudaMalloc(&dev[l * 2], W[l].size() * 4));
    CK(cudaMalloc(&dev[l * 2 + 1], B[l].size() * 4));
    CK(cudaMemcpy(dev[l * 2], W[l].data(), W[l].size() * 4, cudaMemcpyDefault));
    CK(cudaMemcpy(dev[l * 2 + 1], B[l].data(), B[l].size() * 4, cudaMemcpyDefault));
  }
  Net net{dev[0], dev[1], dev[2], dev[3], dev[4], dev[5], dev[6], dev[7]};
  auto run = [&](const char* name, int nin, int nout, auto launch, bool check) {
    memset(host, 0, 1 << 16);
    memset(stamps, 0, 64);
    u64 *in = (u64*)host, *out = (u64*)(host + 32768);
    const u64 warm = 1000, total = calls + warm;
    launch(in, out, total, 20000000000ull);
    CK(cudaGetLastError());
    std::vector<float> x(nin, 0.1f), y(nout);
    std::vector<float> t;
    t.reserve(calls);
    double worst = 0;
    bool late = false;
    for (u64 s = 1; s <= total && !late; ++s) {
      auto t0 = clk::now();
      x[s % nin] = float(s % 97) * 0.01f;
      for (int i = 0; i < nin; i += 2) {
        u32 a, b;
        memcpy(&a, &x[i], 4);
        memcpy(&b, &x[i + 1], 4);
        _mm_store_si128((__m128i*)(in + i), _mm_set_epi32((int)s, (int)b, (int)s, (int)a));
      }
      for (int i = 0; i < nout; ++i) {
        u64 v;
        u64 k = 0;
        while (((v = __atomic_load_n(out + i, __ATOMIC_RELAXED)) >> 32) != (u32)s)
          if (++k > 2000000000ull) {
            late = true;
            break;
          }
        memcpy(&y[i], &v, 4);
      }
      auto t1 = clk::now();
      if (s > warm) t.push_back(std::chrono::duration<float, std::micro>(t1 - t0).count());
      if (check && s % 20011 == 5) {
        std::vector<double> a(x.begin(), x.end());
        for (int l = 0; l < 4; ++l) {
          std::vector<double> o(D[l + 1]);
          for (int r = 0; r < D[l + 1]; ++r) {
            double z = B[l][r];
            for (int k = 0; k < D[l]; ++k) z += a[k] * W[l][r * D[l] + k];
            o[r] = l < 3 ? std::max(z, 0.0) : z;
          }
          a = o;
        }
        for (int i = 0; i < 3; ++i) worst = std::max(worst, std::abs(a[i] - y[i]));
      }
      if (!check)
        for (int i = 0; i < nout; ++i) worst = std::max(worst, (double)std::abs(y[i] - x[i]));
    }
    CK(cudaStreamSynchronize(st));
    std::sort(t.begin(), t.end());
    auto at = [&](double q) { return t.empty() ? 0.f : t[size_t((t.size() - 1) * q)]; };
    printf("%-34s p50 %.2f p99 %.2f p99.9 %.2f max %.1f us, worst error %.2g%s;  cycles", name, at(.5), at(.99), at(.999),
           at(1), worst, late ? " LATE" : "");
    for (int i = 0; i < 5; ++i) printf(" %.0f", double(stamps[i]) / total);
    printf("\n");
    fflush(stdout);
  };
  for (int round = 0; round < 2; ++round) {
    run("identity 8, a warp", 8, 8, [&](u64* i, u64* o, u64 c, u64 l) { identity<<<1, 32, 0, st>>>(i, o, c, l); }, false);
    run(
        "identity 8, 4 threads", 8, 8, [&](u64* i, u64* o, u64 c, u64 l) { identity_thread<<<1, 4, 0, st>>>(i, o, c, l); },
        false);
    run(
        "identity 64, 32 threads", 64, 64,
        [&](u64* i, u64* o, u64 c, u64 l) { identity_thread<<<1, 32, 0, st>>>(i, o, c, l); }, false);
    auto big = [&](auto k) { CK(cudaFuncSetAttribute(k, cudaFuncAttributeNonPortableClusterSizeAllowed, 1)); };
    big(mlp<0>);
    big(mlp<1>);
    big(mlp<2>);
    run(
        "mlp, each polls a part and sends", 256, 3,
        [&](u64* i, u64* o, u64 c, u64 l) { mlp<0><<<16, 512, 0, st>>>(net, i, o, c, l, stamps); }, true);
    run(
        "mlp, each polls all", 256, 3,
        [&](u64* i, u64* o, u64 c, u64 l) { mlp<1><<<16, 512, 0, st>>>(net, i, o, c, l, stamps); }, true);
    run(
        "mlp, block 0 polls all and sends", 256, 3,
        [&](u64* i, u64* o, u64 c, u64 l) { mlp<2><<<16, 512, 0, st>>>(net, i, o, c, l, stamps); }, true);
  }
}

// What the second look at resident kernels asks (resident.md has the first): how the host's memory is best polled, whether the
// host can write into the GPU's memory, how a dense layer is best cut over a cluster, what a step of an LSTM takes on one
// SM, and what a turn's end costs. No part of the library.
//
//   nvcc -O3 -std=c++17 -arch=sm_90a -o resident2 resident2.cu && ./resident2 [CALLS]
//
// Every loop that waits has an end, and every kernel a time limit.
#include <cooperative_groups.h>
#include <cuda.h>
#include <dlfcn.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <functional>
#include <random>

#include "probe.cuh"
namespace cg = cooperative_groups;

// ---- the device's words
__device__ __forceinline__ void st1(void* p, u64 v) {
  asm volatile("st.relaxed.sys.global.u64 [%0], %1;" ::"l"(p), "l"(v) : "memory");
}
__device__ __forceinline__ u32 s32(const void* p) { return (u32)__cvta_generic_to_shared(p); }
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
__device__ __forceinline__ void sta1(u32 addr, u32 bar, float x) {
  asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.f32 [%0], %2, [%1];" ::"r"(addr), "r"(bar), "f"(x)
               : "memory");
}
__device__ __forceinline__ void sta4(u32 addr, u32 bar, float4 v) {
  asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%2,%3,%4,%5}, [%1];" ::"r"(addr),
               "r"(bar), "f"(v.x), "f"(v.y), "f"(v.z), "f"(v.w)
               : "memory");
}
__device__ __forceinline__ float shx(float a, int m) { return __shfl_xor_sync(~0u, a, m); }
__device__ __forceinline__ float word(u64 v) { return __uint_as_float((u32)v); }

// Polls with FLIGHT loads on their way, `gap` cycles apart: how long a number can lie unseen goes down with FLIGHT.
//
// A turn's end is one block's decision, or a call could be begun by some blocks and left by others: `stop` is null for the one
// that looks at the clock, and for the others the word by which it tells them. They look at the clock, too, but much later.
constexpr u64 GRACE = 500000000;
__device__ __forceinline__ bool over(u64 until, const volatile u32* stop) {
  return stop ? *stop || ns() > until + GRACE : ns() > until;
}
template <int FLIGHT>
__device__ __forceinline__ bool poll(const void* p, bool mine, u32 s, u32 gap, u64 until, P2& out,
                                     const volatile u32* stop = nullptr) {
  static_assert(FLIGHT == 1 || FLIGHT == 2 || FLIGHT == 4 || FLIGHT == 8);
  // By name: an array would go to local memory.
  P2 v0 = {0, 0}, v1 = v0, v2 = v0, v3 = v0, v4 = v0, v5 = v0, v6 = v0, v7 = v0;
  const long long t = clock64();
#define LATER(f) \
  while (clock64() - t < (long long)f * gap) {}
#define BEGIN(f) \
  if (FLIGHT > f) { \
    LATER(f) \
    if (mine) v##f = load(p); \
  }
  BEGIN(0) BEGIN(1) BEGIN(2) BEGIN(3) BEGIN(4) BEGIN(5) BEGIN(6) BEGIN(7)
#define LOOK(f) \
  if (FLIGHT > f) { \
    const bool ok = !mine || (u32(v##f.a >> 32) == s && u32(v##f.b >> 32) == s); \
    if (__all_sync(~0u, ok)) { \
      out = v##f; \
      return true; \
    } \
    if (mine) v##f = load(p); \
  }
  for (u32 k = 0;; ++k) {
    LOOK(0) LOOK(1) LOOK(2) LOOK(3) LOOK(4) LOOK(5) LOOK(6) LOOK(7)
    if ((k & 7) == 7 && over(until, stop)) return false;
  }
#undef LATER
#undef BEGIN
#undef LOOK
}

// ---- 1. the round trip: `pairs` lanes take 2 words each and give them back
template <int FLIGHT>
__global__ void identity(const u64* in, u64* out, u64 first, u64 calls, u64 limit_ns, u32 pairs, u32 gap, volatile u64* seen) {
  const u32 lane = threadIdx.x;
  const u64 until = ns() + limit_ns;
  u64 s = first;
  for (; s < first + calls; ++s) {
    P2 v;
    if (!poll<FLIGHT>(in + lane * 2, lane < pairs, (u32)s, gap, until, v)) break;
    if (lane < pairs) {
      st1(out + lane * 2, v.a);
      st1(out + lane * 2 + 1, v.b);
    }
  }
  if (seen && lane == 0) *seen = s;  // the next turn begins here
}
// The same in turns: the number to go on with lies in device memory.
template <int FLIGHT>
__global__ void identity_turn(const u64* in, u64* out, u64* state, u64 turn_ns, u32 pairs, u32 gap, u64 last) {
  const u32 lane = threadIdx.x;
  const u64 until = ns() + turn_ns;
  u64 s = *state;
  for (; s < last; ++s) {
    P2 v;
    if (!poll<FLIGHT>(in + lane * 2, lane < pairs, (u32)s, gap, until, v)) break;
    if (lane < pairs) {
      st1(out + lane * 2, v.a);
      st1(out + lane * 2 + 1, v.b);
    }
  }
  if (lane == 0) *state = s;
}

// ---- 3. mlp 256-512-512-256-3 on a cluster of 16 blocks
struct Net {
  const float *w1, *b1, *w2, *b2, *w3, *b3, *w4, *b4;
};
constexpr u32 C = 16;
struct Stamps {
  u64 at[8];
};
#define STAMP(i) \
  if (rank == 0 && threadIdx.x == 0) t[i] = clock64()

// Waits for a message; one thread arms the barrier for the next call. In the middle of a call nothing but a fault keeps it.
__device__ __forceinline__ void wait(u64* bar, u32 par, u32 bytes, bool arms, u64 until) {
  for (u32 k = 0; !mb_try(bar, par); ++k)
    if ((k & 1023) == 1023 && ns() > until + 2 * GRACE) asm volatile("trap;");
  if (arms) mb_expect(bar, bytes);
}
// The same for a call's beginning, which may be the end of the turn instead.
__device__ __forceinline__ bool begins(u64* bar, u32 par, u32 bytes, bool arms, u64 until, const volatile u32* stop) {
  for (u32 k = 0; !mb_try(bar, par); ++k)
    if ((k & 31) == 31 && (*stop || ns() > until + GRACE)) return false;
  if (arms) mb_expect(bar, bytes);
  return true;
}
// Tells every block that the turn is over.
__device__ __forceinline__ void end_turn(u32* stop, u32 lane) {
  if (lane < C) asm volatile("st.relaxed.cluster.shared::cluster.u32 [%0], 1;" ::"r"(mapa(s32(stop), lane)) : "memory");
}

// N-split: a block has R rows of a layer, a warp a sixteenth of the inputs for all of them. Lane: group i = lane / 8 of R / 4
// rows, part j = lane % 8 of the inputs.
template <int K, int R>
struct Rows {
  static constexpr int RL = R / 4, KL = K / 16 / 8;
  float w[RL][KL];
  __device__ void load(const float* W, u32 rank, u32 warp, u32 lane) {
    for (int r = 0; r < RL; ++r)
      for (int k = 0; k < KL; ++k)
        w[r][k] = W[(rank * R + (lane / 8) * RL + r) * K + warp * (K / 16) + (lane % 8) * KL + k];
  }
  // Leaves this warp's part of the sum of row `row_of` in each lane.
  __device__ float part(const float* x, u32 warp, u32 lane) const {
    float v[KL], a[RL];
    const float* from = x + warp * (K / 16) + (lane % 8) * KL;
    if constexpr (KL == 4) {
      const float4 q = *(const float4*)from;
      v[0] = q.x, v[1] = q.y, v[2] = q.z, v[3] = q.w;
    } else {
      const float2 q = *(const float2*)from;
      v[0] = q.x, v[1] = q.y;
    }
#pragma unroll
    for (int r = 0; r < RL; ++r) {
      a[r] = 0;
#pragma unroll
      for (int k = 0; k < KL; ++k) a[r] = fmaf(w[r][k], v[k], a[r]);
    }
    // Half of the rows go to the partner, until one is left; then plain sums.
    int m = 4;
#pragma unroll
    for (int n = RL / 2; n >= 1; n /= 2, m /= 2) {
#pragma unroll
      for (int r = 0; r < n; ++r) {
        const bool upper = lane & m;
        const float mine = upper ? a[r + n] : a[r], theirs = upper ? a[r] : a[r + n];
        a[r] = mine + shx(theirs, m);
      }
    }
    for (; m >= 1; m /= 2) a[0] += shx(a[0], m);
    return a[0];
  }
  static __device__ u32 row_of(u32 lane) {
    u32 row = 0, m = 4;
    for (u32 n = RL / 2; n >= 1; n /= 2, m /= 2) row += (lane & m) ? n : 0;
    return (lane / 8) * RL + row;
  }
};
struct SmemN {
  alignas(16) float x1[256], x2[512], x3[512], x4[256], part[16 * 34];
  u64 bar[4];
  u32 stop;
};
// Puts the parts together: 8 rows a warp, 4 lanes a row; sends 4 rows in a message to `dests` blocks.
template <int R>
__device__ __forceinline__ void combine(SmemN& sm, float part, u32 row, u32 warp, u32 lane, float bias, u32 xd, u32 bard,
                                        u32 rank, bool to_one) {
  sm.part[warp * 34 + row] = part;
  __syncthreads();
  if (warp < R / 8) {
    const u32 r = warp * 8 + lane / 4, q = lane % 4;
    float a = 0;
#pragma unroll
    for (int m = 0; m < 4; ++m) a += sm.part[(q * 4 + m) * 34 + r];
    a += shx(a, 1);
    a += shx(a, 2);
    a = fmaxf(a + bias, 0);
    const u32 chunk = lane / 16;
    float4 v;
    v.x = __shfl_sync(~0u, a, (chunk * 4 + 0) * 4);
    v.y = __shfl_sync(~0u, a, (chunk * 4 + 1) * 4);
    v.z = __shfl_sync(~0u, a, (chunk * 4 + 2) * 4);
    v.w = __shfl_sync(~0u, a, (chunk * 4 + 3) * 4);
    // xd and bard are those of block lane % 16; where one block is meant, its lanes alone send.
    if (!to_one || lane % 16 == 0) sta4(xd + (rank * R + warp * 8 + chunk * 4) * 4, bard, v);
  }
}
template <int FLIGHT>
__global__ void __cluster_dims__(16, 1, 1) __launch_bounds__(512, 1)
    mlp_n(Net net, const u64* in, u64* out, u64* state, u64 last, u64 turn_ns, u32 gap, Stamps* stamps) {
  __shared__ SmemN sm;
  auto cluster = cg::this_cluster();
  const u32 rank = cluster.block_rank(), warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  Rows<256, 32> l1;
  Rows<512, 32> l2;
  Rows<512, 16> l3;
  l1.load(net.w1, rank, warp, lane);
  l2.load(net.w2, rank, warp, lane);
  l3.load(net.w3, rank, warp, lane);
  float w4[8];
  for (int k = 0; k < 8; ++k) w4[k] = warp < 3 ? net.w4[warp * 256 + (k / 4) * 128 + lane * 4 + k % 4] : 0;
  const u32 r8 = warp * 8 + lane / 4;
  const float b1 = warp < 4 ? net.b1[rank * 32 + r8] : 0, b2 = warp < 4 ? net.b2[rank * 32 + r8] : 0,
              b3 = warp < 2 ? net.b3[rank * 16 + r8] : 0, b4 = warp < 3 ? net.b4[warp] : 0;
  const u32 bytes[4] = {1024, 2048, 2048, 1024};
  if (threadIdx.x == 0) {
    sm.stop = 0;
    for (int i = 0; i < 4; ++i) mb_init(&sm.bar[i], 1);
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    for (int i = 0; i < 4; ++i) mb_expect(&sm.bar[i], bytes[i]);
  }
  cluster.sync();
  const u64 until = ns() + turn_ns, first = *state;
  const volatile u32* stop = &sm.stop;
  const volatile u32* told = rank == 0 ? nullptr : stop;
  const u32 dst = lane & 15;
  const u32 x1d = mapa(s32(sm.x1), dst), b0d = mapa(s32(&sm.bar[0]), dst), x2d = mapa(s32(sm.x2), dst),
            b1d = mapa(s32(&sm.bar[1]), dst), x3d = mapa(s32(sm.x3), dst), b2d = mapa(s32(&sm.bar[2]), dst),
            x4d = mapa(s32(sm.x4), 0), b3d = mapa(s32(&sm.bar[3]), 0);
  u64 t[8] = {}, acc[8] = {};
  u64 s = first;
  for (; s < last; ++s) {
    const u32 par = (s - first) & 1;
    if (warp == 0) {
      P2 v;
      if (!poll<FLIGHT>(in + rank * 16 + lane * 2, lane < 8, (u32)s, gap, until, v, told)) {
        if (rank == 0) end_turn(&sm.stop, lane);
      } else {
        STAMP(0);
        for (int h = 0; h < 2; ++h) {
          const int c = (lane >> 4) + h * 2;
          float4 q;
          q.x = word(__shfl_sync(~0u, v.a, c * 2));
          q.y = word(__shfl_sync(~0u, v.b, c * 2));
          q.z = word(__shfl_sync(~0u, v.a, c * 2 + 1));
          q.w = word(__shfl_sync(~0u, v.b, c * 2 + 1));
          sta4(x1d + (rank * 16 + c * 4) * 4, b0d, q);
        }
      }
    }
    // Every thread comes to the same end: without block 0's share the barrier never completes.
    if (!begins(&sm.bar[0], par, bytes[0], threadIdx.x == 0, until, stop)) break;
    STAMP(1);
    combine<32>(sm, l1.part(sm.x1, warp, lane), l1.row_of(lane), warp, lane, b1, x2d, b1d, rank, false);
    wait(&sm.bar[1], par, bytes[1], threadIdx.x == 0, until);
    STAMP(2);
    combine<32>(sm, l2.part(sm.x2, warp, lane), l2.row_of(lane), warp, lane, b2, x3d, b2d, rank, false);
    wait(&sm.bar[2], par, bytes[2], threadIdx.x == 0, until);
    STAMP(3);
    combine<16>(sm, l3.part(sm.x3, warp, lane), l3.row_of(lane), warp, lane, b3, x4d, b3d, rank, true);
    if (rank == 0 && warp < 3) {
      wait(&sm.bar[3], par, bytes[3], threadIdx.x == 0, until);
      STAMP(4);
      float a = 0;
      for (int j = 0; j < 2; ++j) {
        const float4 q = *(const float4*)(sm.x4 + j * 128 + lane * 4);
        a = fmaf(q.x, w4[j * 4], a), a = fmaf(q.y, w4[j * 4 + 1], a), a = fmaf(q.z, w4[j * 4 + 2], a),
        a = fmaf(q.w, w4[j * 4 + 3], a);
      }
      for (int m = 16; m; m >>= 1) a += shx(a, m);
      if (lane == 0) st1(out + warp, s << 32 | __float_as_uint(a + b4));
      STAMP(5);
    }
    for (int i = 0; i < 5; ++i) acc[i] += t[i + 1] - t[i];
  }
  if (rank == 0 && threadIdx.x == 0) {
    for (int i = 0; i < 5; ++i) stamps->at[i] += acc[i];
    *state = s;
  }
  cluster.sync();
}

// K-split: a block has a sixteenth of a layer's inputs and all of its rows, a row a thread; parts go to the block that has
// the row as its input, which adds them up.
struct SmemK {
  alignas(16) float x[32];               // this block's share of the layer's input
  alignas(16) float r2[16 * 32], r3[16 * 32], r4[32 * 16], r5[16 * 4];
  u64 bar[4];
  u32 stop;
};
template <int N>
__device__ __forceinline__ float dot(const float (&w)[N], const float* x) {
  float a = 0, b = 0;
#pragma unroll
  for (int k = 0; k < N; k += 8) {
    const float4 p = *(const float4*)(x + k), q = *(const float4*)(x + k + 4);
    a = fmaf(w[k], p.x, a), b = fmaf(w[k + 4], q.x, b);
    a = fmaf(w[k + 1], p.y, a), b = fmaf(w[k + 5], q.y, b);
    a = fmaf(w[k + 2], p.z, a), b = fmaf(w[k + 6], q.z, b);
    a = fmaf(w[k + 3], p.w, a), b = fmaf(w[k + 7], q.w, b);
  }
  return a + b;
}
template <int FLIGHT>
__global__ void __cluster_dims__(16, 1, 1) __launch_bounds__(512, 1)
    mlp_k(Net net, const u64* in, u64* out, u64* state, u64 last, u64 turn_ns, u32 gap, Stamps* stamps) {
  __shared__ SmemK sm;
  auto cluster = cg::this_cluster();
  const u32 rank = cluster.block_rank(), warp = threadIdx.x / 32, lane = threadIdx.x % 32, tid = threadIdx.x;
  float w1[16], w2[32], w3[16], w4[3];
  for (int k = 0; k < 16; ++k) w1[k] = net.w1[tid * 256 + rank * 16 + k];
  for (int k = 0; k < 32; ++k) w2[k] = net.w2[tid * 512 + rank * 32 + k];
  for (int k = 0; k < 16; ++k) w3[k] = net.w3[(tid % 256) * 512 + rank * 32 + (tid / 256) * 16 + k];
  for (int r = 0; r < 3; ++r) w4[r] = warp == 0 && lane < 16 ? net.w4[r * 256 + rank * 16 + lane] : 0;
  const float b1 = warp == 0 ? net.b1[rank * 32 + lane] : 0, b2 = warp == 0 ? net.b2[rank * 32 + lane] : 0,
              b3 = warp == 0 && lane < 16 ? net.b3[rank * 16 + lane] : 0, b4 = lane < 3 ? net.b4[lane] : 0;
  const u32 bytes[4] = {2048, 2048, 2048, 192};
  if (tid == 0) {
    sm.stop = 0;
    for (int i = 0; i < 4; ++i) mb_init(&sm.bar[i], 1);
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    for (int i = 0; i < 4; ++i) mb_expect(&sm.bar[i], bytes[i]);
  }
  cluster.sync();
  const u64 until = ns() + turn_ns, first = *state;
  const volatile u32* stop = &sm.stop;
  const volatile u32* told = rank == 0 ? nullptr : stop;
  // Warp w has the rows of block w in layers 1 and 2; in layer 3 warps w and w + 8 have those of blocks 2w and 2w + 1.
  const u32 d3 = (tid % 256) / 16;
  const u32 r2d = mapa(s32(sm.r2), warp) + (rank * 32 + lane) * 4, b0d = mapa(s32(&sm.bar[0]), warp),
            r3d = mapa(s32(sm.r3), warp) + (rank * 32 + lane) * 4, b1d = mapa(s32(&sm.bar[1]), warp),
            r4d = mapa(s32(sm.r4), d3) + ((rank * 2 + tid / 256) * 16 + tid % 16) * 4, b2d = mapa(s32(&sm.bar[2]), d3),
            r5d = mapa(s32(sm.r5), 0), b3d = mapa(s32(&sm.bar[3]), 0);
  u64 t[8] = {}, acc[8] = {};
  u64 s = first;
  for (; s < last; ++s) {
    const u32 par = (s - first) & 1;
    bool gave_up = false;
    if (warp == 0) {
      P2 v;
      if (!poll<FLIGHT>(in + rank * 16 + lane * 2, lane < 8, (u32)s, gap, until, v, told)) {
        if (rank == 0) end_turn(&sm.stop, lane);
        gave_up = true;
      } else {
        STAMP(0);
        if (lane < 8) *(float2*)(sm.x + lane * 2) = make_float2(word(v.a), word(v.b));
      }
    }
    if (__syncthreads_or(gave_up)) break;
    STAMP(1);
    sta1(r2d, b0d, dot(w1, sm.x));
    if (warp == 0) {
      // The others' parts may be missing because the turn is over.
      gave_up = !begins(&sm.bar[0], par, bytes[0], lane == 0, until, stop);
      float a = b1;
#pragma unroll
      for (int i = 0; i < 16; ++i) a += sm.r2[i * 32 + lane];
      // Every warp has read the layer's input before its part came here: the parts of this block's own warps came, too.
      sm.x[lane] = fmaxf(a, 0);
    }
    if (__syncthreads_or(gave_up)) break;
    STAMP(2);
    sta1(r3d, b1d, dot(w2, sm.x));
    if (warp == 0) {
      wait(&sm.bar[1], par, bytes[1], lane == 0, until);
      float a = b2;
#pragma unroll
      for (int i = 0; i < 16; ++i) a += sm.r3[i * 32 + lane];
      sm.x[lane] = fmaxf(a, 0);
    }
    __syncthreads();
    STAMP(3);
    sta1(r4d, b2d, dot(w3, sm.x + (tid / 256) * 16));
    if (warp == 0) {
      wait(&sm.bar[2], par, bytes[2], lane == 0, until);
      float a = b3;
      if (lane < 16) {
#pragma unroll
        for (int i = 0; i < 32; ++i) a += sm.r4[i * 16 + lane];
      }
      a = lane < 16 ? fmaxf(a, 0) : 0;
      float p[3];
      for (int r = 0; r < 3; ++r) {
        p[r] = a * w4[r];
        for (int m = 8; m; m >>= 1) p[r] += shx(p[r], m);
      }
      STAMP(4);
      if (lane < 3) sta1(r5d + (rank * 4 + lane) * 4, b3d, lane == 0 ? p[0] : lane == 1 ? p[1] : p[2]);
      if (rank == 0) {
        wait(&sm.bar[3], par, bytes[3], lane == 0, until);
        if (lane < 3) {
          float o = b4;
#pragma unroll
          for (int i = 0; i < 16; ++i) o += sm.r5[i * 4 + lane];
          st1(out + lane, s << 32 | __float_as_uint(o));
        }
        STAMP(5);
      }
    }
    for (int i = 0; i < 5; ++i) acc[i] += t[i + 1] - t[i];
  }
  if (rank == 0 && tid == 0) {
    for (int i = 0; i < 5; ++i) stamps->at[i] += acc[i];
    *state = s;
  }
  cluster.sync();
}

// ---- 4. an LSTM of 64 units over 50 steps of 25 features on one SM, weights in registers: 8 lanes a unit (4 gates, 2 halves)
__device__ __forceinline__ float sigmoid(float x) { return __fdividef(1.f, 1.f + __expf(-x)); }
__device__ __forceinline__ float tanh_(float x) { return 1.f - __fdividef(2.f, __expf(2.f * x) + 1.f); }
constexpr int STEPS = 50, FEATURES = 25, PADDED = 32, UNITS = 64;
template <int FLIGHT>
__global__ void __launch_bounds__(512, 1)
    lstm(const float* wx, const float* wh, const float* bias, const float* head, const u64* in, u64* out, u64* state, u64 last,
         u64 turn_ns, u32 gap, Stamps* stamps) {
  __shared__ alignas(16) float x[STEPS * PADDED];
  __shared__ alignas(16) float h[2][UNITS];
  const u32 tid = threadIdx.x, lane = tid % 32, warp = tid / 32, rank = 0;
  const u32 unit = tid / 8, gate = (tid / 2) % 4, half = tid % 2, row = gate * UNITS + unit;  // i, f, g, o
  float vh[32], vx[16];
  for (int k = 0; k < 32; ++k) vh[k] = wh[row * UNITS + half * 32 + k];
  for (int k = 0; k < 16; ++k) vx[k] = half * 16 + k < FEATURES ? wx[row * FEATURES + half * 16 + k] : 0;
  const float b = half == 0 ? bias[row] : 0;
  const float hw0 = warp == 0 ? head[lane] : 0, hw1 = warp == 0 ? head[lane + 32] : 0;
  for (u32 i = tid; i < STEPS * PADDED; i += 512) x[i] = 0;
  const u64 until = ns() + turn_ns, first = *state;
  u64 s = first, t[8] = {}, acc[8] = {};
  __syncthreads();
  for (; s < last; ++s) {
    // 1250 words, 625 pairs: warp w has pairs 40 w to 40 w + 39, in two looks.
    bool stop = false;
    for (u32 part = 0; part < 2; ++part) {
      P2 v;
      const u32 pair = warp * 40 + part * 32 + lane;
      const bool mine = (part == 0 || lane < 8) && pair < STEPS * FEATURES / 2;
      if (!poll<FLIGHT>(in + pair * 2, mine, (u32)s, gap, until, v)) {
        stop = true;
        break;
      }
      if (mine) {
        const u32 i = pair * 2;
        x[i / FEATURES * PADDED + i % FEATURES] = word(v.a);
        x[(i + 1) / FEATURES * PADDED + (i + 1) % FEATURES] = word(v.b);
      }
    }
    if (tid < UNITS) h[0][tid] = 0;
    STAMP(0);
    if (__syncthreads_or(stop)) break;
    STAMP(1);
    float c = 0;
    for (int step = 0; step < STEPS; ++step) {
      const float* xs = x + step * PADDED + half * 16;
      const float* hs = h[step & 1] + half * 32;
      float a = b + dot(vx, xs) + dot(vh, hs);
      a += shx(a, 1);
      const float g = gate == 2 ? tanh_(a) : sigmoid(a);
      // This lane's gate and those of its unit: i f g o at lanes 0, 2, 4, 6 of eight.
      const u32 base = lane & 24;
      const float gi = __shfl_sync(~0u, g, base), gf = __shfl_sync(~0u, g, base + 2), gg = __shfl_sync(~0u, g, base + 4),
                  go = __shfl_sync(~0u, g, base + 6);
      c = fmaf(gf, c, gi * gg);
      if (lane % 8 == 0) h[(step + 1) & 1][unit] = go * tanh_(c);
      __syncthreads();
    }
    STAMP(2);
    if (warp == 0) {
      float o = hw0 * h[STEPS & 1][lane] + hw1 * h[STEPS & 1][lane + 32];
      for (int m = 16; m; m >>= 1) o += shx(o, m);
      if (lane == 0) st1(out, s << 32 | __float_as_uint(o));
    }
    STAMP(3);
    for (int i = 0; i < 3; ++i) acc[i] += t[i + 1] - t[i];
  }
  if (tid == 0) {
    for (int i = 0; i < 3; ++i) stamps->at[i] += acc[i];
    *state = s;
  }
}

// ---- the host
static char* host;      // mapped: input at 0, answers at 128 KiB
static u64* state;      // device: the next call's number
static Stamps* stamps;  // mapped
static cudaStream_t st;
static const u64 LIMIT = 4000000000ull;

struct Result {
  std::vector<float> us;
  double worst = 0;
  bool late = false;
};
// Calls `total` times; `in` may be elsewhere than in host memory. `expect` gives the answer for the input, or nothing.
static Result drive(volatile u64* in, int nin, int nout, u64 total, bool fence,
                    const std::function<std::vector<double>(const std::vector<float>&)>& expect, u64 every) {
  Result r;
  r.us.reserve(total);
  std::vector<float> x((nin + 1) & ~1, 0.1f), y(nout);
  u64* out = (u64*)(host + 131072);
  for (u64 s = 1; s <= total && !r.late; ++s) {
    const auto t0 = clk::now();
    x[s % nin] = float(s % 97) * 0.01f;
    for (size_t i = 0; i < x.size(); i += 2) {
      u32 a, b;
      memcpy(&a, &x[i], 4);
      memcpy(&b, &x[i + 1], 4);
      _mm_store_si128((__m128i*)(in + i), _mm_set_epi32((int)s, (int)b, (int)s, (int)a));
    }
    if (fence) _mm_sfence();
    for (int i = 0; i < nout; ++i) {
      u64 v, k = 0;
      while (((v = __atomic_load_n(out + i, __ATOMIC_RELAXED)) >> 32) != (u32)s)
        if (++k > 400000000ull) {
          r.late = true;
          break;
        }
      memcpy(&y[i], &v, 4);
    }
    const auto t1 = clk::now();
    if (s > total / 20) r.us.push_back(std::chrono::duration<float, std::micro>(t1 - t0).count());
    if (s % every == 1) {
      const std::vector<double> e = expect(std::vector<float>(x.begin(), x.begin() + nin));
      for (int i = 0; i < nout; ++i) r.worst = std::max(r.worst, std::abs(e[i] - y[i]));
    }
  }
  return r;
}
static void print(const char* name, Result& r, int nstamps, u64 total) {
  std::sort(r.us.begin(), r.us.end());
  auto at = [&](double q) { return r.us.empty() ? 0.f : r.us[size_t((r.us.size() - 1) * q)]; };
  printf("%-44s p50 %6.2f p99 %6.2f p99.9 %6.2f p99.99 %7.2f max %7.1f worst %.1e%s", name, at(.5), at(.99), at(.999), at(.9999),
         at(1), r.worst, r.late ? " LATE" : "");
  if (nstamps) printf(" cycles");
  for (int i = 0; i < nstamps; ++i) printf(" %.0f", double(stamps->at[i]) / total);
  printf("\n");
  fflush(stdout);
}
static void reset() {
  CK(cudaStreamSynchronize(st));
  memset(host, 0, 262144);
  memset(stamps, 0, sizeof *stamps);
  const u64 one = 1;
  CK(cudaMemcpy(state, &one, 8, cudaMemcpyDefault));
}
static std::vector<double> same(const std::vector<float>& x) { return {x.begin(), x.end()}; }
static sigjmp_buf back;
static void on_fault(int) { siglongjmp(back, 1); }

int main(int argc, char** argv) {
  const u64 calls = argc > 1 ? atoll(argv[1]) : 60000;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(3, &set);
  sched_setaffinity(0, sizeof set, &set);
  CK(cudaSetDevice(0));
  CK(cudaFree(0));
  CK(cudaStreamCreateWithFlags(&st, cudaStreamNonBlocking));
  CK(cudaHostAlloc(&host, 262144, cudaHostAllocMapped));
  CK(cudaHostAlloc(&stamps, sizeof *stamps, cudaHostAllocMapped));
  CK(cudaMalloc(&state, 64));
  u64 *in = (u64*)host, *out = (u64*)(host + 131072);
  char name[128];

  puts("-- 1. the round trip, by words, loads in flight and cycles between them");
  auto ident = [&](auto kernel, const char* what, u32 words, u32 gap) {
    reset();
    kernel<<<1, 32, 0, st>>>(in, out, 1, calls, LIMIT, words / 2, gap, nullptr);
    CK(cudaGetLastError());
    Result r = drive(in, words, words, calls, false, same, 101);
    snprintf(name, sizeof name, "%u words, %s, gap %u", words, what, gap);
    print(name, r, 0, calls);
  };
  for (u32 words : {2u, 8u, 64u}) {
    ident(identity<1>, "1 in flight", words, 0);
    for (u32 gap : {0u, 300u, 600u}) ident(identity<2>, "2 in flight", words, gap);
    for (u32 gap : {0u, 150u, 300u, 450u}) ident(identity<4>, "4 in flight", words, gap);
    for (u32 gap : {100u, 200u}) ident(identity<8>, "8 in flight", words, gap);
  }

  puts("-- 2. the host writing into the GPU's memory");
  {
    printf("/dev/gdrdrv: %s\n", access("/dev/gdrdrv", R_OK | W_OK) == 0 ? "there" : "not there");
    void* cuda = dlopen("libcuda.so.1", RTLD_NOW);
    auto get_handle = (CUresult(*)(void*, CUdeviceptr, size_t, CUmemRangeHandleType, unsigned long long))dlsym(
        cuda, "cuMemGetHandleForAddressRange");
    auto get_name = (CUresult(*)(CUresult, const char**))dlsym(cuda, "cuGetErrorName");
    void* block;
    CK(cudaMalloc(&block, 4 << 20));
    CUdeviceptr dev = (CUdeviceptr)block;
    dev = (dev + (2 << 20) - 1) & ~CUdeviceptr((2 << 20) - 1);
    for (unsigned long long flags : {0ull, 1ull}) {
      int fd = -1;
      const CUresult e = get_handle(&fd, dev, 2 << 20, CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD, flags);
      const char* text = "";
      get_name(e, &text);
      printf("dma-buf, flags %llu: %s, fd %d\n", flags, text, fd);
      if (e != CUDA_SUCCESS) continue;
      void* p = mmap(nullptr, 2 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
      printf("mmap: %s\n", p == MAP_FAILED ? strerror(errno) : "there");
      if (p == MAP_FAILED) continue;
      signal(SIGBUS, on_fault);
      signal(SIGSEGV, on_fault);
      if (sigsetjmp(back, 1)) {
        puts("it cannot be written");
      } else {
        for (u32 words : {2u, 8u, 64u}) {
          reset();
          cudaMemset((void*)dev, 0, 65536);
          identity<1><<<1, 32, 0, st>>>((u64*)dev, out, 1, calls, LIMIT, words / 2, 0, nullptr);
          Result r = drive((u64*)p, words, words, calls, true, same, 101);
          snprintf(name, sizeof name, "%u words, written into the GPU's memory", words);
          print(name, r, 0, calls);
        }
      }
      signal(SIGBUS, SIG_DFL);
      signal(SIGSEGV, SIG_DFL);
    }
  }

  puts("-- 3. mlp; cycles: input spread, layers 1 to 3, the last");
  std::mt19937 g(1);
  std::normal_distribution<float> n01;
  const int D[5] = {256, 512, 512, 256, 3};
  std::vector<float> W[4], B[4];
  float* dev[8];
  auto put = [&](const std::vector<float>& v) {
    float* p;
    CK(cudaMalloc(&p, v.size() * 4));
    CK(cudaMemcpy(p, v.data(), v.size() * 4, cudaMemcpyDefault));
    return p;
  };
  for (int l = 0; l < 4; ++l) {
    W[l].resize(D[l] * D[l + 1]);
    B[l].resize(D[l + 1]);
    for (auto& w : W[l]) w = n01(g) / std::sqrt((float)D[l]);
    for (auto& b : B[l]) b = n01(g) * .1f;
    dev[l * 2] = put(W[l]);
    dev[l * 2 + 1] = put(B[l]);
  }
  const Net net{dev[0], dev[1], dev[2], dev[3], dev[4], dev[5], dev[6], dev[7]};
  auto mlp = [&](const std::vector<float>& x) {
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
    return a;
  };
  auto big = [&](auto k) { CK(cudaFuncSetAttribute(k, cudaFuncAttributeNonPortableClusterSizeAllowed, 1)); };
  auto run_mlp = [&](auto kernel, const char* what, u32 gap) {
    big(kernel);
    reset();
    kernel<<<16, 512, 0, st>>>(net, in, out, state, calls + 1, LIMIT, gap, stamps);
    CK(cudaGetLastError());
    Result r = drive(in, 256, 3, calls, false, mlp, 20011);
    CK(cudaStreamSynchronize(st));
    snprintf(name, sizeof name, "%s, gap %u", what, gap);
    print(name, r, 5, calls);
  };
  for (int round = 0; round < 2; ++round) {
    run_mlp(mlp_n<1>, "N-split, 1 in flight", 0);
    run_mlp(mlp_n<2>, "N-split, 2 in flight", 600);
    run_mlp(mlp_n<4>, "N-split, 4 in flight", 300);
    run_mlp(mlp_k<1>, "K-split, 1 in flight", 0);
    run_mlp(mlp_k<2>, "K-split, 2 in flight", 600);
    run_mlp(mlp_k<4>, "K-split, 4 in flight", 300);
  }

  puts("-- 4. an LSTM, 50 x 25, 64 units, on one SM; cycles: input, steps, head");
  {
    std::vector<float> wx(4 * UNITS * FEATURES), wh(4 * UNITS * UNITS), b(4 * UNITS), head(UNITS);
    std::uniform_real_distribution<float> u(-0.125f, 0.125f);
    for (auto* v : {&wx, &wh, &b, &head})
      for (auto& f : *v) f = u(g);
    auto oracle = [&](const std::vector<float>& x) {
      std::vector<double> h(UNITS), c(UNITS);
      for (int s = 0; s < STEPS; ++s) {
        std::vector<double> a(4 * UNITS);
        for (int r = 0; r < 4 * UNITS; ++r) {
          a[r] = b[r];
          for (int k = 0; k < FEATURES; ++k) a[r] += wx[r * FEATURES + k] * x[s * FEATURES + k];
          for (int k = 0; k < UNITS; ++k) a[r] += wh[r * UNITS + k] * h[k];
        }
        for (int n = 0; n < UNITS; ++n) {
          auto sg = [](double z) { return 1 / (1 + std::exp(-z)); };
          c[n] = sg(a[UNITS + n]) * c[n] + sg(a[n]) * std::tanh(a[2 * UNITS + n]);
          h[n] = sg(a[3 * UNITS + n]) * std::tanh(c[n]);
        }
      }
      double o = 0;
      for (int n = 0; n < UNITS; ++n) o += head[n] * h[n];
      return std::vector<double>{o};
    };
    float *dx = put(wx), *dh = put(wh), *db = put(b), *dd = put(head);
    const u64 n = std::min<u64>(calls, 20000);
    auto run = [&](auto kernel, const char* what, u32 gap) {
      reset();
      kernel<<<1, 512, 0, st>>>(dx, dh, db, dd, in, out, state, n + 1, LIMIT, gap, stamps);
      CK(cudaGetLastError());
      Result r = drive(in, STEPS * FEATURES, 1, n, false, oracle, 4001);
      CK(cudaStreamSynchronize(st));
      print(what, r, 3, n);
    };
    run(lstm<1>, "1 in flight", 0);
    run(lstm<2>, "2 in flight, gap 600", 600);
  }

  puts("-- 5. turns, queued one behind the other");
  for (u64 turn : {1000000ull, 5000000ull}) {
    reset();
    const u64 n = calls, turns = n * 4000 / turn + 20;
    for (u64 i = 0; i < turns; ++i) identity_turn<2><<<1, 32, 0, st>>>(in, out, state, turn, 4, 600, n + 1);
    Result r = drive(in, 8, 8, n, false, same, 101);
    snprintf(name, sizeof name, "8 words, turns of %llu ms", turn / 1000000ull);
    print(name, r, 0, n);
    big(mlp_n<2>);
    reset();
    for (u64 i = 0; i < turns * 2; ++i) mlp_n<2><<<16, 512, 0, st>>>(net, in, out, state, n + 1, turn, 600, stamps);
    CK(cudaGetLastError());
    r = drive(in, 256, 3, n, false, mlp, 20011);
    snprintf(name, sizeof name, "mlp, N-split, turns of %llu ms", turn / 1000000ull);
    print(name, r, 0, n);
  }
  CK(cudaStreamSynchronize(st));
  return 0;
}

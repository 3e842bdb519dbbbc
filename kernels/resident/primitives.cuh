// What the kernels of resident engines are made of: threads that meet, shared memory of a cluster, words of the host's memory.
// Nothing else in this folder is PTX, so that the same source runs on a CPU, one fiber a thread (tests/common/emulated.h).
//
// Addresses of shared memory are offsets in bytes from its beginning, the same in every block.
//
// Who waits for whom. An input unit is written by the host with its call's number beside the word, whole: a relaxed load of
// system scope that sees the number has seen the word (the pair is two such words; each is looked at). An answer goes back the
// same way. Between blocks, `send` is st.async: its complete-tx on the receiver's barrier has release order at cluster scope,
// and `arrived` is the acquire that it pairs with. Within a block, `sync_block`.

namespace tickrt {
namespace resident {

#ifndef TICKRT_EMULATED

using u32 = unsigned int;
using u64 = unsigned long long;

struct alignas(16) Words4 {
  float x, y, z, w;
};
// Two units of a slot.
struct alignas(16) Units {
  u64 first, second;
};

extern __shared__ __align__(128) unsigned char shared_memory[];

__device__ inline u32 this_thread() { return threadIdx.x; }
// Below compute capability 9.0 there are no clusters: a program has one block there, and is its own only peer.
#define TICKRT_CLUSTERS (__CUDA_ARCH__ >= 900)
__device__ inline u32 this_block() {
#if TICKRT_CLUSTERS
  u32 rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
#else
  return 0;
#endif
}

// Where clusters of one block make a grid.
__device__ inline u32 this_cluster() { return blockIdx.x; }

// ---- meeting
__device__ inline void sync_block() { __syncthreads(); }
__device__ inline bool sync_block_or(bool any) { return __syncthreads_or(any); }
// The first threads of a block alone, a multiple of 32 of them.
template <u32 kThreads>
__device__ void sync_threads() {
  asm volatile("bar.sync 1, %0;" ::"n"(kThreads) : "memory");
}
__device__ inline void sync_cluster() {
  asm volatile("barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;" ::: "memory");
}
// What all lanes have the same of: so that the compiler knows, too.
__device__ inline u32 same_in_warp(u32 x) { return __shfl_sync(~0u, x, 0); }
__device__ inline bool all_of_warp(bool x) { return __all_sync(~0u, x); }
__device__ inline bool any_of_warp(bool x) { return __any_sync(~0u, x); }
__device__ inline float from_lane(float x, u32 lane) { return __shfl_sync(~0u, x, lane); }
__device__ inline float across_lanes(float x, u32 mask) { return __shfl_xor_sync(~0u, x, mask); }

// What follows from it is computed behind this, and not once for a whole turn, in registers that are wanted elsewhere.
__device__ inline void from_here(u32& x) { asm volatile("" : "+r"(x)); }
__device__ inline void from_here(u64& x) { asm volatile("" : "+l"(x)); }

// ---- time
__device__ inline u64 nanoseconds() {
  u64 t;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(t));
  return t;
}
__device__ inline u64 cycles() { return clock64(); }
__device__ inline void rest(u32 ns) { __nanosleep(ns); }

// ---- memory of the host, and of the device
__device__ inline Units load_units(u64 address) {
  Units v;
  asm volatile("ld.relaxed.sys.global.v2.u64 {%0, %1}, [%2];" : "=l"(v.first), "=l"(v.second) : "l"(address) : "memory");
  return v;
}
__device__ inline void fence_system() { asm volatile("fence.acq_rel.sys;" ::: "memory"); }
// What this thread has seen written, by its block or before, is there for who sees what it writes next.
__device__ inline void fence_cluster() {
#if TICKRT_CLUSTERS
  asm volatile("fence.acq_rel.cluster;" ::: "memory");
#endif
}
__device__ inline void store_unit(u64 address, u64 value) {
  asm volatile("st.relaxed.sys.global.u64 [%0], %1;" ::"l"(address), "l"(value) : "memory");
}
__device__ inline void store_unit_release(u64 address, u64 value) {
  asm volatile("st.release.sys.global.u64 [%0], %1;" ::"l"(address), "l"(value) : "memory");
}
__device__ inline u64 load_word8(u64 address) { return *reinterpret_cast<const volatile u64*>(address); }
__device__ inline void store_word8(u64 address, u64 value) { *reinterpret_cast<volatile u64*>(address) = value; }
__device__ inline u32 load_word4_of_host(u64 address) {
  u32 v;
  asm volatile("ld.relaxed.sys.global.u32 %0, [%1];" : "=r"(v) : "l"(address) : "memory");
  return v;
}
// Of the device's memory, what another block has written: not from this multiprocessor's cache.
__device__ inline Words4 load_words4(const float* from) {
  Words4 v;
  asm volatile("ld.relaxed.gpu.global.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
               : "l"(__cvta_generic_to_global(from))
               : "memory");
  return v;
}
__device__ inline float load_word4(const float* from) {
  float x;
  asm volatile("ld.relaxed.gpu.global.f32 %0, [%1];" : "=f"(x) : "l"(__cvta_generic_to_global(from)) : "memory");
  return x;
}
__device__ inline Units load_units_of_device(u64 address) {
  Units v;
  asm volatile("ld.relaxed.gpu.global.v2.u64 {%0, %1}, [%2];" : "=l"(v.first), "=l"(v.second) : "l"(address) : "memory");
  return v;
}
__device__ inline void store_unit_of_device(u64 address, u64 value) {
  asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" ::"l"(address), "l"(value) : "memory");
}
// Sixteen bytes, whole: a scalar to the memory model, as a vector is not.
struct alignas(16) Quad {
  u32 of[4];
};
__device__ inline Quad load_quad_of_device(u64 address) {
  Quad v;
  asm volatile(
      "{.reg .b128 q; .reg .b64 l, h; ld.relaxed.gpu.global.b128 q, [%4]; mov.b128 {l, h}, q; mov.b64 {%0, %1}, l; mov.b64 {%2, %3}, h;}"
      : "=r"(v.of[0]), "=r"(v.of[1]), "=r"(v.of[2]), "=r"(v.of[3])
      : "l"(address)
      : "memory");
  return v;
}
__device__ inline void store_quad_of_device(u64 address, const Quad& v) {
  asm volatile(
      "{.reg .b128 q; .reg .b64 l, h; mov.b64 l, {%1, %2}; mov.b64 h, {%3, %4}; mov.b128 q, {l, h}; st.relaxed.gpu.global.b128 [%0], q;}" ::"l"(
          address),
      "r"(v.of[0]), "r"(v.of[1]), "r"(v.of[2]), "r"(v.of[3])
      : "memory");
}
__device__ inline u64 add_on_device(u64 address, u64 value) {
  u64 before;
  asm volatile("atom.relaxed.gpu.global.add.u64 %0, [%1], %2;" : "=l"(before) : "l"(address), "l"(value) : "memory");
  return before;
}
__device__ inline void fence_device() { asm volatile("fence.acq_rel.gpu;" ::: "memory"); }
__device__ inline float constant(u64 address) { return __ldg(reinterpret_cast<const float*>(address)); }
__device__ inline Words4 constant4(u64 address) {
  const float4 v = __ldg(reinterpret_cast<const float4*>(address));
  return {v.x, v.y, v.z, v.w};
}
// The same, loaded here, while a call is awaited, and not where it is used.
__device__ inline Words4 constant4_ahead(u64 address) {
  Words4 v;
  asm volatile("ld.global.nc.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "l"(address));
  return v;
}

// ---- shared memory
__device__ inline float* shared(u32 offset) { return reinterpret_cast<float*>(shared_memory + offset); }
__device__ inline u32 address_of(u32 offset) { return static_cast<u32>(__cvta_generic_to_shared(shared_memory)) + offset; }
// Another block of the cluster, to send to.
__device__ inline u32 peer(u32 block) {
#if TICKRT_CLUSTERS
  u32 there;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address_of(0)), "r"(block));
  return there;
#else
  return address_of(0);
#endif
}
// A word in any block, without waiting for it; and what this block was told. Nothing orders one before the other: atomics, both,
// because racecheck takes a relaxed load beside a store for a hazard.
__device__ inline void tell(u32 peer, u32 offset, u32 value) {
  [[maybe_unused]] u32 before;
#if TICKRT_CLUSTERS
  asm volatile("atom.relaxed.cluster.shared::cluster.exch.b32 %0, [%1], %2;" : "=r"(before) : "r"(peer + offset), "r"(value) : "memory");
#else
  asm volatile("atom.relaxed.cta.shared.exch.b32 %0, [%1], %2;" : "=r"(before) : "r"(peer + offset), "r"(value) : "memory");
#endif
}
__device__ inline u32 told(u32 offset) {
  u32 word;
#if TICKRT_CLUSTERS
  asm volatile("atom.relaxed.cluster.shared::cta.or.b32 %0, [%1], 0;" : "=r"(word) : "r"(address_of(offset)) : "memory");
#else
  asm volatile("atom.relaxed.cta.shared.or.b32 %0, [%1], 0;" : "=r"(word) : "r"(address_of(offset)) : "memory");
#endif
  return word;
}

// ---- barriers that count bytes
__device__ inline void barrier_init(u32 barrier) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(address_of(barrier)) : "memory");
}
__device__ inline void barriers_are_there() {
#if TICKRT_CLUSTERS
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}
__device__ inline void expect(u32 barrier, u32 bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(address_of(barrier)), "r"(bytes) : "memory");
}
__device__ inline bool arrived(u32 barrier, u32 phase) {
  u32 yes;
  asm volatile(
      "{.reg .pred p; mbarrier.test_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p;}"
      : "=r"(yes)
      : "r"(address_of(barrier)), "r"(phase)
      : "memory");
  return yes;
}
__device__ inline void send(u32 peer, u32 offset, u32 barrier, float x) {
  asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.f32 [%0], %2, [%1];" ::"r"(peer + offset),
               "r"(peer + barrier), "f"(x)
               : "memory");
}
__device__ inline void send2(u32 peer, u32 offset, u32 barrier, float x, float y) {
  asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [%0], {%2, %3}, [%1];" ::"r"(peer + offset),
               "r"(peer + barrier), "f"(x), "f"(y)
               : "memory");
}
__device__ inline void send4(u32 peer, u32 offset, u32 barrier, const Words4& v) {
  asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%2, %3, %4, %5}, [%1];" ::"r"(
                   peer + offset),
               "r"(peer + barrier), "f"(v.x), "f"(v.y), "f"(v.z), "f"(v.w)
               : "memory");
}

// 16 bytes of the device's memory, or zeros, on their way into this block's shared memory while the thread goes on; and when those that it
// has sent for are there.
__device__ inline void copy4(u32 offset, u64 from, bool is_there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address_of(offset)), "l"(from), "r"(is_there ? 16 : 0) : "memory");
}
__device__ inline void copies_are_there() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// So many bytes, a multiple of 16, from this block's shared memory to that of another: by the copy engine, which sees what threads
// have written once they have said so and met.
__device__ inline void written_for_runs() {
#if TICKRT_CLUSTERS
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}
__device__ inline void send_run(u32 peer, u32 offset, u32 barrier, u32 from, u32 bytes) {
#if TICKRT_CLUSTERS
  asm volatile("cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(peer + offset),
               "r"(address_of(from)), "r"(bytes), "r"(peer + barrier)
               : "memory");
#endif
}

// ---- numbers
__device__ inline float as_float(u32 bits) { return __uint_as_float(bits); }
__device__ inline u32 as_bits(float x) { return __float_as_uint(x); }
__device__ inline float half_as_float(u32 bits) {
  float x;
  asm("{.reg .b16 h; cvt.u16.u32 h, %1; cvt.f32.f16 %0, h;}" : "=f"(x) : "r"(bits));
  return x;
}
// To the nearest whole number; what has none in 32 bits is none of these.
__device__ inline int nearest(float x) { return __float2int_rn(x); }
// Two halves beside each other.
struct TwoHalves {
  float first, second;
};
__device__ inline TwoHalves halves(u32 bits) {
  TwoHalves x;
  asm("{.reg .b16 l, h; mov.b32 {l, h}, %2; cvt.f32.f16 %0, l; cvt.f32.f16 %1, h;}" : "=f"(x.first), "=f"(x.second) : "r"(bits));
  return x;
}
// The same, each time anew: weights that are kept in half precision for want of registers must not become floats once and for all.
__device__ inline TwoHalves halves_here(u32 bits) {
  from_here(bits);
  return halves(bits);
}
__device__ inline u32 as_halves(float first, float second) {
  u32 bits;
  asm("cvt.rn.f16x2.f32 %0, %2, %1;" : "=r"(bits) : "f"(first), "f"(second));
  return bits;
}
// Of a warp: 16 rows of 16 halves times 8 columns of as many, added to sums. Of lane l, with g = l / 4 and t = l % 4: `rows` has of rows g and
// g + 8 the halves 2t and 2t + 1, and then those 8 further on; `low` and `high` have them of column g; the sums are those of row g in columns
// 2t and 2t + 1, and then of row g + 8.
__device__ inline void multiply_halves(float (&sums)[4], const Words4& rows, u32 low, u32 high) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
               : "r"(as_bits(rows.x)), "r"(as_bits(rows.y)), "r"(as_bits(rows.z)), "r"(as_bits(rows.w)), "r"(low), "r"(high));
}
// The same of 16 rows of 8 floats and 8 columns of as many: `rows` has of rows g and g + 8 number t, and then those 4 further on; `low` and
// `high` have them of column g. Of each float the 11 leading bits count.
__device__ inline void multiply_floats(float (&sums)[4], const Words4& rows, float low, float high) {
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
               : "r"(as_bits(rows.x)), "r"(as_bits(rows.y)), "r"(as_bits(rows.z)), "r"(as_bits(rows.w)), "r"(as_bits(low)), "r"(as_bits(high)));
}
// Rounded to nearest, never contracted: Normalizer::apply has the same bits.
__device__ inline float scaled(float x, float mean, float std) { return __fdiv_rn(__fsub_rn(x, mean), std); }
__device__ inline float sum(float a, float b) { return __fadd_rn(a, b); }
__device__ inline float product(float a, float b) { return __fmul_rn(a, b); }
// 2 to the power of x, and 1 / x: within 2 and 1 units of the last place, a handful of cycles each. What is smaller than 2^-126
// is zero to them, which spares a step of a recurrent network eight instructions that wait for each other.
__device__ inline float power_of_two(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ inline float reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

#endif  // TICKRT_EMULATED

}  // namespace resident
}  // namespace tickrt

// What the sixth look at resident kernels asks: calls written into the GPU's own memory through its BAR1, which the kernel polls
// at the price of its L2, against calls in the host's memory, which it polls across PCIe.
//
// The memory is Vulkan's, host visible and device local, exported to CUDA.
//
//   nvcc -O3 -std=c++17 -arch=sm_90a -Xcompiler -march=native -o resident6 resident6.cu -lvulkan -lcuda && ./resident6 [CALLS]
//
// Every loop that waits has an end, and every kernel a time limit.
#include <cuda.h>
#include <vulkan/vulkan.h>

#include "probe.cuh"

__device__ __forceinline__ P2 load_volatile(const void* p) {
  P2 r;
  asm volatile("ld.volatile.global.v2.u64 {%0,%1}, [%2];" : "=l"(r.a), "=l"(r.b) : "l"(p) : "memory");
  return r;
}
// Of each block the first warp looks at its share of the input, 16 bytes a lane. Block 0 answers when all have seen a call, and
// `work` cycles later.
__global__ void ask(const char* in, char* out, u64 calls, u64 limit_ns, u32 pairs, u32 work, bool is_volatile, u64* looked) {
  __shared__ __align__(8) u64 barrier;
  const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, block = rank();
  const u32 bar = (u32)__cvta_generic_to_shared(&barrier);
  if (threadIdx.x == 0) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(gridDim.x) : "memory");
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();
  cluster_sync();
  const u64 until = ns() + limit_ns;
  if (warp == 0) {
    u32 there;
    asm("mapa.shared::cluster.u32 %0, %1, 0;" : "=r"(there) : "r"(bar));
    const char* mine = in + u64(block) * pairs * 16 + lane * 16;
    u64 looks = 0;
    for (u64 s = 1; s <= calls; ++s) {
      bool seen = false;
      for (u64 k = 0; !seen; ++k) {
        P2 v{0, 0};
        if (lane < pairs) v = is_volatile ? load_volatile(mine) : load(mine);
        seen = __all_sync(~0u, lane >= pairs || (u32(v.a >> 32) == u32(s) && u32(v.b >> 32) == u32(s)));
        ++looks;
        if ((k & 63) == 63 && __any_sync(~0u, ns() > until)) break;
      }
      if (!seen) break;
      if (lane == 0) asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(there) : "memory");
    }
    if (lane == 0 && block == 0) *looked = looks;
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

static void vk(VkResult r, const char* what) {
  if (r != VK_SUCCESS) printf("%s: %d\n", what, int(r)), exit(1);
}
struct Bar {
  char* host = nullptr;
  CUdeviceptr device = 0;
};
static Bar map_bar(size_t bytes) {
  VkApplicationInfo app{VK_STRUCTURE_TYPE_APPLICATION_INFO};
  app.apiVersion = VK_API_VERSION_1_1;
  VkInstanceCreateInfo ic{VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO};
  ic.pApplicationInfo = &app;
  VkInstance instance;
  const auto t0 = clk::now();
  vk(vkCreateInstance(&ic, nullptr, &instance), "vkCreateInstance");
  u32 n = 8;
  VkPhysicalDevice all[8];
  vk(vkEnumeratePhysicalDevices(instance, &n, all), "vkEnumeratePhysicalDevices");
  CUuuid uuid;
  cuDeviceGetUuid(&uuid, 0);
  VkPhysicalDevice gpu = nullptr;
  for (u32 i = 0; i < n; ++i) {
    VkPhysicalDeviceIDProperties id{VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_ID_PROPERTIES};
    VkPhysicalDeviceProperties2 p{VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2, &id};
    vkGetPhysicalDeviceProperties2(all[i], &p);
    const bool same = !memcmp(id.deviceUUID, uuid.bytes, 16);
    printf("vulkan device %s%s\n", p.properties.deviceName, same ? ", CUDA's" : "");
    if (same) gpu = all[i];
  }
  if (!gpu) exit(1);
  VkPhysicalDeviceMemoryProperties m;
  vkGetPhysicalDeviceMemoryProperties(gpu, &m);
  int type = -1;
  for (u32 i = 0; i < m.memoryTypeCount; ++i) {
    const u32 f = m.memoryTypes[i].propertyFlags;
    printf("memory type %u: heap %u of %.1f GiB, flags %x\n", i, m.memoryTypes[i].heapIndex, m.memoryHeaps[m.memoryTypes[i].heapIndex].size / 1073741824., f);
    if (type < 0 && (f & 7) == 7 && !(f & VK_MEMORY_PROPERTY_HOST_CACHED_BIT)) type = int(i);
  }
  if (type < 0) printf("no memory that is device local and host visible\n"), exit(1);
  float priority = 1;
  VkDeviceQueueCreateInfo q{VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO};
  q.queueCount = 1, q.pQueuePriorities = &priority;
  const char* names[] = {VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME};
  VkDeviceCreateInfo dc{VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO};
  dc.queueCreateInfoCount = 1, dc.pQueueCreateInfos = &q, dc.enabledExtensionCount = 1, dc.ppEnabledExtensionNames = names;
  VkDevice device;
  vk(vkCreateDevice(gpu, &dc, nullptr, &device), "vkCreateDevice");
  VkExportMemoryAllocateInfo ex{VK_STRUCTURE_TYPE_EXPORT_MEMORY_ALLOCATE_INFO};
  ex.handleTypes = VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD_BIT;
  VkMemoryAllocateInfo ai{VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO, &ex};
  ai.allocationSize = bytes, ai.memoryTypeIndex = u32(type);
  VkDeviceMemory memory;
  vk(vkAllocateMemory(device, &ai, nullptr, &memory), "vkAllocateMemory");
  Bar b;
  vk(vkMapMemory(device, memory, 0, VK_WHOLE_SIZE, 0, (void**)&b.host), "vkMapMemory");
  VkMemoryGetFdInfoKHR fi{VK_STRUCTURE_TYPE_MEMORY_GET_FD_INFO_KHR};
  fi.memory = memory, fi.handleType = VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD_BIT;
  int fd = -1;
  vk(((PFN_vkGetMemoryFdKHR)vkGetDeviceProcAddr(device, "vkGetMemoryFdKHR"))(device, &fi, &fd), "vkGetMemoryFdKHR");
  CUDA_EXTERNAL_MEMORY_HANDLE_DESC d{};
  d.type = CU_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD, d.handle.fd = fd, d.size = bytes;
  CUexternalMemory ext;
  CUresult r = cuImportExternalMemory(&ext, &d);
  if (r) printf("cuImportExternalMemory %d\n", r), exit(1);
  CUDA_EXTERNAL_MEMORY_BUFFER_DESC bd{};
  bd.size = bytes;
  r = cuExternalMemoryGetMappedBuffer(&b.device, ext, &bd);
  if (r) printf("cuExternalMemoryGetMappedBuffer %d\n", r), exit(1);
  printf("mapped at %p and %llx in %.0f ms\n", b.host, b.device, std::chrono::duration<double, std::milli>(clk::now() - t0).count());
  return b;
}

static char *host, *out;
static u64* looked;
static cudaStream_t st;
enum Store { kSse, kStream, k512 };
static void put(char* to, u32 words, u64 n, Store how) {
  if (how == k512) {
    for (u32 i = 0; i < words; i += 8) {
      u64 w[8];
      for (u32 k = 0; k < 8; ++k) w[k] = n << 32 | u32(n + i + k);
#ifdef __AVX512F__
      _mm512_stream_si512((__m512i*)(to + i * 8), _mm512_loadu_si512(w));
#endif
    }
  } else
    for (u32 i = 0; i < words; i += 2) {
      const __m128i v = _mm_set_epi32((int)n, (int)(n + i + 1), (int)n, (int)(n + i));
      how == kSse ? _mm_store_si128((__m128i*)(to + i * 8), v) : _mm_stream_si128((__m128i*)(to + i * 8), v);
    }
}
static void run(const char* name, char* write, const char* read, u64 calls, u32 words, u32 blocks, u32 work, float gap_us, Store how, bool fence, bool is_volatile) {
  CK(cudaStreamSynchronize(st));
  for (u32 i = 0; i < words * 8; i += 16) _mm_store_si128((__m128i*)(write + i), _mm_setzero_si128());
  _mm_sfence();
  memset(out, 0, 64);
  *looked = 0;
  CK(cudaDeviceSynchronize());
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(blocks), config.blockDim = dim3(64), config.stream = st;
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = blocks, attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  config.attrs = &attribute, config.numAttrs = 1;
  CK(cudaFuncSetAttribute(ask, cudaFuncAttributeNonPortableClusterSizeAllowed, 1));
  CK(cudaLaunchKernelEx(&config, ask, read, out, calls, (u64)2000000000ull, words / 2 / blocks, work, is_volatile, looked));
  std::vector<float> us, wrote;
  u64 random = 88172645463325252ull;
  for (u64 n = 1; n <= calls; ++n) {
    random ^= random << 13, random ^= random >> 7, random ^= random << 17;
    const auto wait = std::chrono::nanoseconds(long(gap_us * 1000 * double(random % 1024) / 1024));
    for (const auto t = clk::now(); clk::now() - t < wait;) {}
    const auto t0 = clk::now();
    put(write, words, n, how);
    if (fence) _mm_sfence();
    const auto t2 = clk::now();
    u64 looks = 0;
    while ((__atomic_load_n((const u64*)out, __ATOMIC_RELAXED) >> 32) != n)
      if (++looks > 30000000ull) {
        printf("%-10s no answer to %lu\n", name, n);
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
  printf("%-10s %3u words %2u blocks work %4u gap %3.1f %s%s%s | %5.2f %5.2f p50 %5.2f %5.2f p99 %5.2f p99.9 %6.2f | written %4.2f, looks a call %.2f\n", name, words,
         blocks, work, gap_us, how == kSse ? "sse" : how == kStream ? "stream" : "512", fence ? " fence" : "", is_volatile ? " volatile" : "", at(us, .001),
         at(us, .1), at(us, .5), at(us, .9), at(us, .99), at(us, .999), at(wrote, .5), double(*looked) / double(calls));
  fflush(stdout);
}
int main(int argc, char** argv) {
  const u64 calls = argc > 1 ? atoll(argv[1]) : 30000;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(3, &set);
  sched_setaffinity(0, sizeof set, &set);
  CK(cudaSetDevice(0));
  CK(cudaFree(nullptr));
  CK(cudaStreamCreateWithFlags(&st, cudaStreamNonBlocking));
  CK(cudaHostAlloc(&host, 1 << 20, cudaHostAllocMapped));
  CK(cudaHostAlloc(&out, 1 << 16, cudaHostAllocMapped));
  CK(cudaHostAlloc(&looked, 64, cudaHostAllocMapped));
  Bar b = map_bar(2 << 20);
  const char* gpu = (const char*)b.device;
  run("warm", host, host, calls / 4, 256, 16, 3000, 0, kSse, false, false);
  for (float gap : {0.f, 4.f}) {
    for (u32 words : {2u, 64u}) {
      run("host", host, host, calls, words, 1, 0, gap, kSse, false, false);
      run("bar1", b.host, gpu, calls, words, 1, 0, gap, kSse, true, false);
      run("bar1", b.host, gpu, calls, words, 1, 0, gap, kSse, true, true);
      run("bar1", b.host, gpu, calls, words, 1, 0, gap, kStream, true, false);
      if (words > 2) run("bar1", b.host, gpu, calls, words, 1, 0, gap, k512, true, false);
    }
    run("host", host, host, calls, 256, 16, 3000, gap, kSse, false, false);
    run("bar1", b.host, gpu, calls, 256, 16, 3000, gap, kSse, true, false);
    run("bar1", b.host, gpu, calls, 256, 16, 3000, gap, k512, true, false);
    run("bar1", b.host, gpu, calls, 1024, 16, 3000, gap, k512, true, false);
    run("host", host, host, calls, 1024, 16, 3000, gap, kSse, false, false);
  }
  run("bar1", b.host, gpu, calls, 2, 1, 0, 4, kSse, false, false);
  return 0;
}

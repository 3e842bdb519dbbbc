/* Stands in for Vulkan: the loader, and a driver of the GPU that cuda.c stands in for, as far as src/device/bar1.rs asks. The
 * GPU's memory is a memfd, which cuda.c maps a second time. What TICKRT_STANDIN_VULKAN names is wrong: no-driver, no-device,
 * other-gpu, no-memory, no-extension, no-room, no-map, no-export.
 *
 * The structures are those of vulkan_core.h on 64 bits, as far as they are looked at. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    SUCCESS = 0,
    INCOMPLETE = 5,
    OUT_OF_DEVICE_MEMORY = -2,
    INITIALIZATION_FAILED = -3,
    MEMORY_MAP_FAILED = -5,
    EXTENSION_NOT_PRESENT = -7,
    INCOMPATIBLE_DRIVER = -9,
    TOO_MANY_OBJECTS = -10,
};
/* Types of structures. */
enum {
    INSTANCE_CREATE_INFO = 1,
    DEVICE_CREATE_INFO = 3,
    MEMORY_ALLOCATE_INFO = 5,
    PHYSICAL_DEVICE_PROPERTIES_2 = 1000059001,
    PHYSICAL_DEVICE_ID_PROPERTIES = 1000071004,
    EXPORT_MEMORY_ALLOCATE_INFO = 1000072002,
    MEMORY_GET_FD_INFO_KHR = 1000074002,
};
enum { OPAQUE_FD = 1 };
enum { DEVICE_LOCAL = 1, HOST_VISIBLE = 2, HOST_COHERENT = 4, HOST_CACHED = 8 };

static void note(const char *what) {
    const char *const path = getenv("TICKRT_STANDIN_CALLS");
    FILE *const file = path != NULL ? fopen(path, "a") : NULL;
    if (file != NULL) {
        fprintf(file, "%s\n", what);
        fclose(file);
    }
}

static int is_wrong(const char *what) {
    const char *const named = getenv("TICKRT_STANDIN_VULKAN");
    return named != NULL && strcmp(named, what) == 0;
}

/* What every structure begins with. */
struct Chained { int type; const struct Chained *next; };
static const struct Chained *chained(const struct Chained *first, int type) {
    while (first != NULL && first->type != type) first = first->next;
    return first;
}

/* What a loader finds behind a handle is its own affair. */
static int instances, gpu, devices;

struct ApplicationInfo {
    struct Chained chained;
    const char *application;
    uint32_t application_version;
    const char *engine;
    uint32_t engine_version, api_version;
};
struct InstanceCreateInfo { struct Chained chained; uint32_t flags; const struct ApplicationInfo *application; };
static int create_instance(const struct InstanceCreateInfo *info, const void *allocator, void **instance) {
    (void)allocator;
    if (is_wrong("no-driver")) return INCOMPATIBLE_DRIVER;
    /* vkGetPhysicalDeviceProperties2 came with 1.1. */
    const int is_sane = info->chained.type == INSTANCE_CREATE_INFO && info->application->api_version >= (1u << 22 | 1u << 12);
    *instance = &instances;
    if (is_sane) note("vkCreateInstance");
    return is_sane ? SUCCESS : INITIALIZATION_FAILED;
}
static void destroy_instance(void *instance, const void *allocator) {
    (void)instance;
    (void)allocator;
    note("vkDestroyInstance");
}

static int enumerate_physical_devices(void *instance, uint32_t *count, void **all) {
    (void)instance;
    const uint32_t there = is_wrong("no-device") ? 0 : 1;
    if (all == NULL) {
        *count = there;
        return SUCCESS;
    }
    const uint32_t room = *count;
    *count = room < there ? room : there;
    if (*count > 0) all[0] = &gpu;
    return room < there ? INCOMPLETE : SUCCESS;
}

/* As much of VkPhysicalDeviceProperties as has the name. */
struct Properties { uint32_t api_version, driver_version, vendor, device, type; char name[256]; };
static void get_physical_device_properties(void *device, struct Properties *properties) {
    (void)device;
    strcpy(properties->name, "Stand-in GPU");
}

struct IdProperties {
    struct Chained chained;
    uint8_t device[16], driver[16], luid[8];
    uint32_t node_mask, has_luid;
};
static void get_physical_device_properties_2(void *device, struct Chained *properties) {
    (void)device;
    struct IdProperties *const id = (struct IdProperties *)chained(properties, PHYSICAL_DEVICE_ID_PROPERTIES);
    /* cuda.c has the same. */
    if (id != NULL && properties->type == PHYSICAL_DEVICE_PROPERTIES_2)
        memcpy(id->device, is_wrong("other-gpu") ? "another stand-in" : "tickrt stand-in!", 16);
}

struct MemoryType { uint32_t flags, heap; };
struct MemoryHeap { uint64_t bytes; uint32_t flags; };
struct MemoryProperties {
    uint32_t types;
    struct MemoryType type[32];
    uint32_t heaps;
    struct MemoryHeap heap[16];
};
/* In the order of NVIDIA's driver: the wanted type is the last. */
enum { WANTED = 4 };
static void get_physical_device_memory_properties(void *device, struct MemoryProperties *properties) {
    (void)device;
    *properties = (struct MemoryProperties){
        .types = is_wrong("no-memory") ? WANTED : WANTED + 1,
        .type = {
            {0, 1},
            {DEVICE_LOCAL, 0},
            {HOST_VISIBLE | HOST_COHERENT, 1},
            {HOST_VISIBLE | HOST_COHERENT | HOST_CACHED, 1},
            {DEVICE_LOCAL | HOST_VISIBLE | HOST_COHERENT, 0},
        },
        .heaps = 2,
        .heap = {{(uint64_t)16 << 30, DEVICE_LOCAL}, {(uint64_t)64 << 30, 0}},
    };
}

struct DeviceCreateInfo {
    struct Chained chained;
    uint32_t flags, queues;
    const void *queue;
    uint32_t layers;
    const char *const *layer;
    uint32_t extensions;
    const char *const *extension;
};
static int create_device(void *physical, const struct DeviceCreateInfo *info, const void *allocator, void **device) {
    (void)physical;
    (void)allocator;
    if (is_wrong("no-extension")) return EXTENSION_NOT_PRESENT;
    const int is_sane = info->chained.type == DEVICE_CREATE_INFO && info->queues == 1 && info->extensions == 1 &&
                        strcmp(info->extension[0], "VK_KHR_external_memory_fd") == 0;
    *device = &devices;
    if (is_sane) note("vkCreateDevice");
    return is_sane ? SUCCESS : INITIALIZATION_FAILED;
}
static void destroy_device(void *device, const void *allocator) {
    (void)device;
    (void)allocator;
    note("vkDestroyDevice");
}

struct Memory { int fd; uint64_t bytes; void *host; };
struct MemoryAllocateInfo { struct Chained chained; uint64_t bytes; uint32_t type; };
struct ExportInfo { struct Chained chained; uint32_t types; };
static int allocate_memory(void *device, const struct MemoryAllocateInfo *info, const void *allocator, struct Memory **memory) {
    (void)device;
    (void)allocator;
    if (is_wrong("no-room")) return OUT_OF_DEVICE_MEMORY;
    const struct ExportInfo *const export = (const struct ExportInfo *)chained(&info->chained, EXPORT_MEMORY_ALLOCATE_INFO);
    if (info->chained.type != MEMORY_ALLOCATE_INFO || info->type != WANTED || export == NULL || export->types != OPAQUE_FD)
        return INITIALIZATION_FAILED;
    const int fd = memfd_create("standin-vulkan", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, (off_t)info->bytes) != 0) return OUT_OF_DEVICE_MEMORY;
    *memory = malloc(sizeof **memory);
    **memory = (struct Memory){.fd = fd, .bytes = info->bytes};
    note("vkAllocateMemory");
    return SUCCESS;
}
static int map_memory(void *device, struct Memory *memory, uint64_t offset, uint64_t bytes, uint32_t flags, void **host) {
    (void)device;
    if (is_wrong("no-map") || offset != 0 || bytes != UINT64_MAX || flags != 0) return MEMORY_MAP_FAILED;
    *host = mmap(NULL, memory->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory->fd, 0);
    if (*host == MAP_FAILED) return MEMORY_MAP_FAILED;
    /* Nobody promises zeros. */
    memset(*host, 0xa5, memory->bytes);
    memory->host = *host;
    return SUCCESS;
}
/* Unmaps it, too. */
static void free_memory(void *device, struct Memory *memory, const void *allocator) {
    (void)device;
    (void)allocator;
    if (memory->host != NULL) munmap(memory->host, memory->bytes);
    close(memory->fd);
    free(memory);
    note("vkFreeMemory");
}

struct GetFdInfo { struct Chained chained; struct Memory *memory; uint32_t type; };
static int get_memory_fd(void *device, const struct GetFdInfo *info, int *fd) {
    (void)device;
    if (is_wrong("no-export")) return TOO_MANY_OBJECTS;
    if (info->chained.type != MEMORY_GET_FD_INFO_KHR || info->type != OPAQUE_FD) return INITIALIZATION_FAILED;
    /* The caller's own. */
    *fd = dup(info->memory->fd);
    return *fd >= 0 ? SUCCESS : TOO_MANY_OBJECTS;
}

typedef void (*Function)(void);
static Function get_device_proc_addr(void *device, const char *name);
static Function found(const char *name) {
    static const struct { const char *name; Function function; } all[] = {
        {"vkCreateInstance", (Function)create_instance},
        {"vkDestroyInstance", (Function)destroy_instance},
        {"vkEnumeratePhysicalDevices", (Function)enumerate_physical_devices},
        {"vkGetPhysicalDeviceProperties", (Function)get_physical_device_properties},
        {"vkGetPhysicalDeviceProperties2", (Function)get_physical_device_properties_2},
        {"vkGetPhysicalDeviceMemoryProperties", (Function)get_physical_device_memory_properties},
        {"vkCreateDevice", (Function)create_device},
        {"vkDestroyDevice", (Function)destroy_device},
        {"vkGetDeviceProcAddr", (Function)get_device_proc_addr},
        {"vkAllocateMemory", (Function)allocate_memory},
        {"vkMapMemory", (Function)map_memory},
        {"vkFreeMemory", (Function)free_memory},
        {"vkGetMemoryFdKHR", (Function)get_memory_fd},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; ++i)
        if (strcmp(all[i].name, name) == 0) return all[i].function;
    return NULL;
}
static Function get_device_proc_addr(void *device, const char *name) {
    (void)device;
    return found(name);
}
Function vkGetInstanceProcAddr(void *instance, const char *name) {
    (void)instance;
    return found(name);
}

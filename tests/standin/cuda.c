/* Stands in for libcuda: memory is the host's, kernels and graphs are written down and run nothing. A function is left out by
 * defining WITHOUT_ and its name. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, CAPTURE_UNSUPPORTED = 900 };

/* Somebody in the process always captures in the default mode here: what that forbids to others is refused unless the thread's mode is
 * relaxed. */
enum { GLOBAL = 0, RELAXED = 2 };
static _Thread_local int capture_mode = GLOBAL;
int cuThreadExchangeStreamCaptureMode(int *mode) {
    const int before = capture_mode;
    capture_mode = *mode;
    *mode = before;
    return SUCCESS;
}
#define REFUSED_BESIDE_A_CAPTURE() do { if (capture_mode != RELAXED) return CAPTURE_UNSUPPORTED; } while (0)

static void note(const char *what, const char *which) {
    const char *const path = getenv("TICKRT_STANDIN_CALLS");
    FILE *const file = path != NULL ? fopen(path, "a") : NULL;
    if (file != NULL) {
        fprintf(file, "%s%s%s\n", what, which[0] != '\0' ? " " : "", which);
        fclose(file);
    }
}

int cuInit(unsigned flags) { return flags == 0 ? SUCCESS : INVALID_VALUE; }
int cuDriverGetVersion(int *version) { *version = 11040; return SUCCESS; }
int cuDeviceGetCount(int *count) { *count = 1; return SUCCESS; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return SUCCESS; }
int cuDeviceGetName(char *name, int length, int device) {
    (void)device;
    snprintf(name, (size_t)length, "stand-in");
    return SUCCESS;
}
/* 75 and 76 are the compute capability, major and minor; 33 is the PCI bus: the GPU is 0000:3b:00.0. */
int cuDeviceGetAttribute(int *value, int which, int device) {
    (void)device;
    *value = which == 75 ? 9 : which == 33 ? 0x3b : 0;
    return SUCCESS;
}
int cuDevicePrimaryCtxRetain(void **context, int device) { (void)device; *context = malloc(1); return SUCCESS; }
int cuDevicePrimaryCtxRelease_v2(int device) { (void)device; return SUCCESS; }
int cuCtxSetCurrent(void *context) { return context != NULL ? SUCCESS : INVALID_VALUE; }
int cuMemGetInfo_v2(size_t *free, size_t *total) {
    *free = (size_t)8 << 30;
    *total = (size_t)16 << 30;
    return SUCCESS;
}

static void *take(size_t bytes) { return aligned_alloc(256, (bytes + 255) / 256 * 256); }
#ifndef WITHOUT_cuMemAlloc_v2
int cuMemAlloc_v2(uint64_t *address, size_t bytes) {
    REFUSED_BESIDE_A_CAPTURE();
    *address = (uint64_t)(uintptr_t)take(bytes);
    return *address != 0 ? SUCCESS : OUT_OF_MEMORY;
}
#endif
int cuMemFree_v2(uint64_t address) { REFUSED_BESIDE_A_CAPTURE(); free((void *)(uintptr_t)address); return SUCCESS; }
int cuMemHostAlloc(void **host, size_t bytes, unsigned flags) {
    REFUSED_BESIDE_A_CAPTURE();
    (void)flags;
    *host = take(bytes);
    return *host != NULL ? SUCCESS : OUT_OF_MEMORY;
}
int cuMemFreeHost(void *host) { REFUSED_BESIDE_A_CAPTURE(); free(host); return SUCCESS; }
int cuMemHostGetDevicePointer_v2(uint64_t *address, void *host, unsigned flags) {
    (void)flags;
    *address = (uint64_t)(uintptr_t)host;
    return SUCCESS;
}
int cuMemsetD8_v2(uint64_t address, unsigned char byte, size_t bytes) {
    REFUSED_BESIDE_A_CAPTURE();
    memset((void *)(uintptr_t)address, byte, bytes);
    return SUCCESS;
}
int cuMemcpyHtoD_v2(uint64_t to, const void *from, size_t bytes) {
    REFUSED_BESIDE_A_CAPTURE();
    memcpy((void *)(uintptr_t)to, from, bytes);
    return SUCCESS;
}
int cuMemcpyDtoH_v2(void *to, uint64_t from, size_t bytes) {
    REFUSED_BESIDE_A_CAPTURE();
    memcpy(to, (const void *)(uintptr_t)from, bytes);
    return SUCCESS;
}
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *stream) {
    (void)stream;
    memcpy((void *)(uintptr_t)to, from, bytes);
    return SUCCESS;
}
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *stream) {
    (void)stream;
    memcpy(to, (const void *)(uintptr_t)from, bytes);
    return SUCCESS;
}

int cuStreamCreateWithPriority(void **stream, unsigned flags, int priority) {
    (void)flags;
    (void)priority;
    *stream = malloc(1);
    return SUCCESS;
}
int cuStreamDestroy_v2(void *stream) { free(stream); return SUCCESS; }
int cuStreamQuery(void *stream) { REFUSED_BESIDE_A_CAPTURE(); (void)stream; return SUCCESS; }
int cuStreamSynchronize(void *stream) { REFUSED_BESIDE_A_CAPTURE(); (void)stream; return SUCCESS; }
#ifndef WITHOUT_cuStreamBeginCapture_v2
int cuStreamBeginCapture_v2(void *stream, int mode) {
    (void)stream;
    (void)mode;
    note("cuStreamBeginCapture", "");
    return SUCCESS;
}
#endif
int cuStreamEndCapture(void *stream, void **graph) { (void)stream; *graph = malloc(1); return SUCCESS; }
#ifndef WITHOUT_cuGraphInstantiateWithFlags
int cuGraphInstantiateWithFlags(void **executable, void *graph, unsigned long long flags) {
    (void)graph;
    (void)flags;
    *executable = malloc(1);
    note("cuGraphInstantiate", "");
    return SUCCESS;
}
#endif
#ifndef WITHOUT_cuGraphUpload
int cuGraphUpload(void *executable, void *stream) { (void)executable; (void)stream; return SUCCESS; }
#endif
int cuGraphLaunch(void *executable, void *stream) {
    (void)executable;
    (void)stream;
    note("cuGraphLaunch", "");
    return SUCCESS;
}
int cuGraphDestroy(void *graph) { free(graph); return SUCCESS; }
int cuGraphExecDestroy(void *executable) { free(executable); return SUCCESS; }

int cuModuleLoadData(void **module, const void *image) { REFUSED_BESIDE_A_CAPTURE(); (void)image; *module = malloc(1); return SUCCESS; }
int cuModuleUnload(void *module) { REFUSED_BESIDE_A_CAPTURE(); free(module); return SUCCESS; }
/* A function is its name; few enough to be left to the end of the process. */
int cuModuleGetFunction(void **function, void *module, const char *name) {
    (void)module;
    *function = strdup(name);
    return SUCCESS;
}
#ifndef WITHOUT_cuFuncGetAttribute
int cuFuncGetAttribute(int *value, int which, void *function) {
    (void)which;
    (void)function;
    *value = 90;
    return SUCCESS;
}
#endif
int cuLaunchKernel(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                   unsigned block_z, unsigned shared_bytes, void *stream, void **parameters, void **extra) {
    (void)shared_bytes;
    const int is_sane = grid_x > 0 && grid_y == 1 && grid_z == 1 && block_x > 0 && block_y == 1 && block_z == 1 &&
                        stream != NULL && parameters != NULL && parameters[0] != NULL && extra == NULL;
    note("cuLaunchKernel", function);
    return is_sane ? SUCCESS : INVALID_VALUE;
}
#ifndef WITHOUT_cuLaunchKernelEx
int cuLaunchKernelEx(const void *config, void *function, void **parameters, void **extra) {
    note("cuLaunchKernelEx", function);
    return config != NULL && parameters != NULL && extra == NULL ? SUCCESS : INVALID_VALUE;
}
#endif

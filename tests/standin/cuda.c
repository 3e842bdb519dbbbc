/* Stands in for libcuda: memory is the host's, kernels and graphs are written down and run nothing; but for a resident engine's
 * kernel, which is played for the network identity. A function is left out by defining WITHOUT_ and its name. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_READY = 600, CAPTURE_UNSUPPORTED = 900, UNKNOWN = 999 };

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

/* Whether it is the step that is to fail. */
static int fails(const char *step) {
    const char *const named = getenv("TICKRT_STANDIN_FAIL");
    return named != NULL && strcmp(named, step) == 0;
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
/* 75 and 76 are the compute capability, major and minor; 33 is the PCI bus: the GPU is 0000:3b:00.0. 97 is the shared memory
 * that a block can ask for and 16 the multiprocessors, an H100's. */
int cuDeviceGetAttribute(int *value, int which, int device) {
    (void)device;
    *value = which == 75 ? 9 : which == 33 ? 0x3b : which == 97 ? 232448 : which == 16 ? 132 : 0;
    return SUCCESS;
}
#ifndef WITHOUT_cuDeviceGetUuid_v2
/* vulkan.c has the same. */
int cuDeviceGetUuid_v2(unsigned char *uuid, int device) {
    (void)device;
    memcpy(uuid, "tickrt stand-in!", 16);
    return SUCCESS;
}
#endif
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

/* Memory of another library's, mapped a second time. */
struct External { void *start; size_t bytes; int is_mapped; struct External *next; };
static struct External *externals = NULL;
static pthread_mutex_t externals_lock = PTHREAD_MUTEX_INITIALIZER;

/* CUDA_EXTERNAL_MEMORY_HANDLE_DESC, as far as it is looked at. */
struct ExternalHandle { int type; union { int fd; void *windows[2]; } handle; unsigned long long bytes; unsigned flags; };
enum { OPAQUE_FD = 1 };
int cuImportExternalMemory(struct External **external, const struct ExternalHandle *handle) {
    REFUSED_BESIDE_A_CAPTURE();
    if (fails("cuImportExternalMemory")) return UNKNOWN;
    if (handle->type != OPAQUE_FD || handle->flags != 0) return INVALID_VALUE;
    void *const start = mmap(NULL, handle->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, handle->handle.fd, 0);
    if (start == MAP_FAILED) return INVALID_VALUE;
    /* The descriptor is CUDA's from here on. */
    close(handle->handle.fd);
    note("cuImportExternalMemory", "");
    *external = malloc(sizeof **external);
    **external = (struct External){.start = start, .bytes = handle->bytes};
    pthread_mutex_lock(&externals_lock);
    (*external)->next = externals;
    externals = *external;
    pthread_mutex_unlock(&externals_lock);
    return SUCCESS;
}
struct ExternalRange { unsigned long long offset, bytes; unsigned flags; };
int cuExternalMemoryGetMappedBuffer(uint64_t *address, struct External *external, const struct ExternalRange *range) {
    REFUSED_BESIDE_A_CAPTURE();
    if (fails("cuExternalMemoryGetMappedBuffer")) return OUT_OF_MEMORY;
    if (range->offset != 0 || range->bytes > external->bytes || range->flags != 0) return INVALID_VALUE;
    external->is_mapped = 1;
    *address = (uint64_t)(uintptr_t)external->start;
    return SUCCESS;
}
int cuDestroyExternalMemory(struct External *external) {
    REFUSED_BESIDE_A_CAPTURE();
    /* What was mapped of it is to be freed before. */
    if (external->is_mapped) return INVALID_VALUE;
    pthread_mutex_lock(&externals_lock);
    struct External **place = &externals;
    while (*place != external) place = &(*place)->next;
    *place = external->next;
    pthread_mutex_unlock(&externals_lock);
    munmap(external->start, external->bytes);
    free(external);
    note("cuDestroyExternalMemory", "");
    return SUCCESS;
}
static int is_external(uint64_t address) {
    pthread_mutex_lock(&externals_lock);
    struct External *external = externals;
    while (external != NULL && (uint64_t)(uintptr_t)external->start != address) external = external->next;
    if (external != NULL) external->is_mapped = 0;
    pthread_mutex_unlock(&externals_lock);
    return external != NULL;
}

int cuMemFree_v2(uint64_t address) {
    REFUSED_BESIDE_A_CAPTURE();
    if (!is_external(address)) free((void *)(uintptr_t)address);
    return SUCCESS;
}
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

/* What a turn of a resident engine is handed: kernels/resident/turn.cuh. */
struct Turn {
    uint64_t constants, input, answer, progress, report, limit_ns, state;
    uint32_t input_stride, answer_stride, depth, flags;
    uint64_t rows;
    uint32_t rows_stride, reserved;
};

/* Turns run on a thread of the stream's own, one behind the other. */
enum { MOST_QUEUED = 64 };
struct Stream {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t thread;
    int has_thread, is_ending;
    /* The first of those queued runs. */
    unsigned queued;
    struct Turn turns[MOST_QUEUED];
};

static uint64_t nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}
static uint64_t *words_at(uint64_t address) { return (uint64_t *)(uintptr_t)address; }
static uint64_t load(const uint64_t *word) { return __atomic_load_n(word, __ATOMIC_RELAXED); }
static void store(uint64_t *word, uint64_t value) { __atomic_store_n(word, value, __ATOMIC_RELAXED); }

enum { IDENTITY_WORDS = 8, STAGES = 12 };
enum { TURNS, NEXT, MET, STOPPED, CYCLES };
#define STOP 0x80000000u

/* One turn of the network identity. With weights that are no longer what they were, the answer is another: those are where the
 * file of TICKRT_STANDIN_SPOILED is. */
static void play(const struct Turn *turn) {
    const char *const spoiled = getenv("TICKRT_STANDIN_SPOILED");
    const uint64_t first = load(words_at(turn->progress)), until = nanoseconds() + turn->limit_ns;
    uint64_t call = first;
    int has_met = 0, is_stopped = 0;
    for (;; ++call) {
        const uint64_t slot = (call - 1) % turn->depth;
        const uint64_t *const input = words_at(turn->input + slot * turn->input_stride);
        uint64_t *const answer = words_at(turn->answer + slot * turn->answer_stride);
        uint64_t seen[IDENTITY_WORDS];
        for (unsigned looks = 0;; ++looks) {
            unsigned there = 0;
            for (unsigned i = 0; i < IDENTITY_WORDS; ++i) {
                seen[i] = load(&input[i]);
                there += (uint32_t)(seen[i] >> 32) == (uint32_t)call;
            }
            if (there == IDENTITY_WORDS) {
                has_met |= call == first && looks == 0;
                break;
            }
            is_stopped = (uint32_t)(seen[0] >> 32) == ((uint32_t)call ^ STOP);
            if (is_stopped || ((looks & 7) == 7 && nanoseconds() > until)) goto over;
            /* The host's threads may have no other core. */
            if ((looks & 15) == 15) sched_yield();
        }
        const uint32_t wrong = spoiled != NULL && access(spoiled, F_OK) == 0;
        const uint64_t tag = (uint64_t)((uint32_t)call << 8) << 32;
        /* In no order that the host could rely on. */
        for (unsigned i = 0; i < IDENTITY_WORDS; ++i) {
            const unsigned place = (unsigned)((i + call) % IDENTITY_WORDS);
            store(&answer[place], tag | ((uint32_t)seen[place] ^ wrong));
        }
    }
over:
    store(words_at(turn->progress), call);
    uint64_t *const report = words_at(turn->report);
    store(&report[NEXT], call);
    store(&report[MET], load(&report[MET]) + (uint64_t)has_met);
    store(&report[STOPPED], load(&report[STOPPED]) + (uint64_t)is_stopped);
    __atomic_store_n(&report[TURNS], load(&report[TURNS]) + 1, __ATOMIC_RELEASE);
}

static void *play_all(void *argument) {
    struct Stream *const stream = argument;
    pthread_mutex_lock(&stream->lock);
    for (;;) {
        while (stream->queued == 0 && !stream->is_ending) pthread_cond_wait(&stream->changed, &stream->lock);
        if (stream->queued == 0) break;
        const struct Turn turn = stream->turns[0];
        pthread_mutex_unlock(&stream->lock);
        play(&turn);
        pthread_mutex_lock(&stream->lock);
        --stream->queued;
        memmove(&stream->turns[0], &stream->turns[1], stream->queued * sizeof turn);
        pthread_cond_broadcast(&stream->changed);
    }
    pthread_mutex_unlock(&stream->lock);
    return NULL;
}
static int queue(struct Stream *stream, const struct Turn *turn) {
    pthread_mutex_lock(&stream->lock);
    if (!stream->has_thread) {
        stream->has_thread = pthread_create(&stream->thread, NULL, play_all, stream) == 0;
        if (stream->has_thread) pthread_setname_np(stream->thread, "standin-stream");
    }
    const int is_queued = stream->has_thread && stream->queued < MOST_QUEUED;
    if (is_queued) stream->turns[stream->queued++] = *turn;
    pthread_cond_broadcast(&stream->changed);
    pthread_mutex_unlock(&stream->lock);
    return is_queued ? SUCCESS : UNKNOWN;
}

int cuStreamCreateWithPriority(struct Stream **stream, unsigned flags, int priority) {
    (void)flags;
    (void)priority;
    *stream = calloc(1, sizeof **stream);
    pthread_mutex_init(&(*stream)->lock, NULL);
    pthread_cond_init(&(*stream)->changed, NULL);
    return SUCCESS;
}
/* What is queued runs to its end. */
int cuStreamDestroy_v2(struct Stream *stream) {
    pthread_mutex_lock(&stream->lock);
    stream->is_ending = 1;
    pthread_cond_broadcast(&stream->changed);
    pthread_mutex_unlock(&stream->lock);
    if (stream->has_thread) pthread_join(stream->thread, NULL);
    pthread_mutex_destroy(&stream->lock);
    pthread_cond_destroy(&stream->changed);
    free(stream);
    return SUCCESS;
}
/* The default stream is none of ours: NULL. */
int cuStreamQuery(struct Stream *stream) {
    REFUSED_BESIDE_A_CAPTURE();
    if (stream == NULL) return SUCCESS;
    pthread_mutex_lock(&stream->lock);
    const int is_idle = stream->queued == 0;
    pthread_mutex_unlock(&stream->lock);
    return is_idle ? SUCCESS : NOT_READY;
}
int cuStreamSynchronize(struct Stream *stream) {
    REFUSED_BESIDE_A_CAPTURE();
    if (stream == NULL) return SUCCESS;
    pthread_mutex_lock(&stream->lock);
    while (stream->queued > 0) pthread_cond_wait(&stream->changed, &stream->lock);
    pthread_mutex_unlock(&stream->lock);
    return SUCCESS;
}
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
#ifndef WITHOUT_cuFuncSetAttribute
int cuFuncSetAttribute(void *function, int which, int value) {
    (void)which;
    return function != NULL && value >= 0 ? SUCCESS : INVALID_VALUE;
}
#endif
#ifndef WITHOUT_cuOccupancyMaxActiveClusters
int cuOccupancyMaxActiveClusters(int *clusters, void *function, const void *config) {
    *clusters = 132;
    return function != NULL && config != NULL ? SUCCESS : INVALID_VALUE;
}
#endif
static int run(const char *function, struct Stream *stream, void **parameters) {
    return strcmp(function, "tickrt_resident") == 0 ? queue(stream, parameters[0]) : SUCCESS;
}
int cuLaunchKernel(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                   unsigned block_z, unsigned shared_bytes, void *stream, void **parameters, void **extra) {
    (void)shared_bytes;
    const int is_sane = grid_x > 0 && grid_y == 1 && grid_z == 1 && block_x > 0 && block_y == 1 && block_z == 1 &&
                        stream != NULL && parameters != NULL && parameters[0] != NULL && extra == NULL;
    note("cuLaunchKernel", function);
    return is_sane ? run(function, stream, parameters) : INVALID_VALUE;
}
#ifndef WITHOUT_cuLaunchKernelEx
/* CUlaunchConfig, as far as it is looked at. */
struct LaunchConfig { unsigned grid[3], block[3], shared_bytes; void *stream; };
int cuLaunchKernelEx(const struct LaunchConfig *config, void *function, void **parameters, void **extra) {
    note("cuLaunchKernelEx", function);
    const int is_sane = config != NULL && parameters != NULL && extra == NULL;
    return is_sane ? run(function, config->stream, parameters) : INVALID_VALUE;
}
#endif

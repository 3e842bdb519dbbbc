/* Preloaded: counts, by thread, what a program asks of libc that can make it wait, and passes it on. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

enum { ALLOCATIONS, FREES, LOCKS, YIELDS, IOCTLS, KINDS };
/* Of the initial block: any other storage is asked for with malloc once a library with its own has been loaded, and that
   malloc, which counts, would ask for it again. */
static __thread uint64_t counts[KINDS] __attribute__((tls_model("initial-exec")));

/* This thread's counts since it began. */
void tickrt_test_counts(uint64_t out[KINDS]) {
  for (int kind = 0; kind < KINDS; ++kind) out[kind] = counts[kind];
}

extern void* __libc_malloc(size_t);
extern void* __libc_calloc(size_t, size_t);
extern void* __libc_realloc(void*, size_t);
extern void* __libc_memalign(size_t, size_t);
extern void __libc_free(void*);

void* malloc(size_t bytes) { ++counts[ALLOCATIONS]; return __libc_malloc(bytes); }
void* calloc(size_t count, size_t bytes) { ++counts[ALLOCATIONS]; return __libc_calloc(count, bytes); }
void* realloc(void* old, size_t bytes) { ++counts[ALLOCATIONS]; return __libc_realloc(old, bytes); }
void* aligned_alloc(size_t align, size_t bytes) { ++counts[ALLOCATIONS]; return __libc_memalign(align, bytes); }
void* memalign(size_t align, size_t bytes) { ++counts[ALLOCATIONS]; return __libc_memalign(align, bytes); }
int posix_memalign(void** out, size_t align, size_t bytes) {
  ++counts[ALLOCATIONS];
  *out = __libc_memalign(align, bytes);
  return *out ? 0 : 12;
}
void free(void* memory) { ++counts[FREES]; __libc_free(memory); }

/* Found before anything else runs: dlsym may itself ask for a lock. */
#define PASS_ON(kind, type, name, parameters, arguments)                                        \
  static type(*real_##name) parameters;                                                         \
  __attribute__((constructor)) static void find_##name(void) {                                  \
    real_##name = (type(*) parameters)dlsym(RTLD_NEXT, #name);                                  \
  }                                                                                             \
  type name parameters {                                                                        \
    if (!real_##name) return 0; /* so early that there is one thread, which needs no lock */    \
    ++counts[kind];                                                                             \
    return real_##name arguments;                                                               \
  }
PASS_ON(LOCKS, int, pthread_mutex_lock, (pthread_mutex_t* m), (m))
PASS_ON(LOCKS, int, pthread_mutex_trylock, (pthread_mutex_t* m), (m))
PASS_ON(LOCKS, int, pthread_rwlock_rdlock, (pthread_rwlock_t* m), (m))
PASS_ON(LOCKS, int, pthread_rwlock_wrlock, (pthread_rwlock_t* m), (m))
PASS_ON(LOCKS, int, pthread_spin_lock, (pthread_spinlock_t* m), (m))
PASS_ON(YIELDS, int, sched_yield, (void), ())
PASS_ON(IOCTLS, int, ioctl, (int file, unsigned long request, void* argument), (file, request, argument))

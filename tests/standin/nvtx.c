/* What a profiler puts into a process by NVTX_INJECTION64_PATH: writes down where ranges begin and end. The layouts and numbers are
 * those of NVTX 3's nvtxTypes.h, which do not change. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

enum { CALLBACKS = 1, MODULE_CORE = 1, RANGE_PUSH = 9, RANGE_POP = 11 };

typedef struct {
    size_t struct_size;
    int (*functions_of)(int module, void ****table, unsigned *size);
} Callbacks;

static void note(const char *what) {
    FILE *const file = fopen(getenv("TICKRT_STANDIN_CALLS"), "a");
    if (file == NULL) abort();
    fprintf(file, "%s\n", what);
    fclose(file);
}

static int push(const char *name) {
    note(name);
    return 0;
}

static int pop(void) {
    note("end");
    return 0;
}

int InitializeInjectionNvtx2(const void *(*table)(unsigned number)) {
    const Callbacks *const callbacks = table(CALLBACKS);
    void ***functions = NULL;
    unsigned size = 0;
    if (callbacks == NULL || !callbacks->functions_of(MODULE_CORE, &functions, &size) || size <= RANGE_POP) return 0;
    *functions[RANGE_PUSH] = (void *)push;
    *functions[RANGE_POP] = (void *)pop;
    return 1;
}

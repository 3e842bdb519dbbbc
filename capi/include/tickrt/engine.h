/* An engine: a plan, checked and handed to TensorRT. */
#ifndef TICKRT_ENGINE_H
#define TICKRT_ENGINE_H

#include "error.h"
#include "types.h"

TICKRT_BEGIN

/* Any number of threads may make sessions on it. */
typedef struct tickrt_engine tickrt_engine;

/* An input or output; name and shape live as long as the engine. */
typedef struct tickrt_tensor {
    const char *name;
    const int64_t *shape; /* -1 where a dimension is dynamic */
    size_t dimensions;
    tickrt_type type;
    bool is_input;
} tickrt_tensor;

/* Loads the plan in `path`, with the sidecar beside it, on GPU number `device`. */
TICKRT_MUST_USE tickrt_error *tickrt_engine_load(const char *path, size_t device, tickrt_engine **engine);

/* The same of a plan that has no sidecar, such as trtexec's, on the caller's word: damaged plans have crashed TensorRT.
 */
TICKRT_MUST_USE tickrt_error *tickrt_engine_load_unverified(const char *path, size_t device, tickrt_engine **engine);

/* Frees it; sessions on it live on. NULL is fine. */
void tickrt_engine_free(tickrt_engine *engine);

/* How many inputs and outputs it has. */
size_t tickrt_engine_tensor_count(const tickrt_engine *engine);

TICKRT_MUST_USE tickrt_error *tickrt_engine_tensor(const tickrt_engine *engine, size_t index, tickrt_tensor *tensor);

/* The library that runs it: "TensorRT 8.6.1". Lives as long as the engine. */
const char *tickrt_engine_library(const tickrt_engine *engine);

/* Bytes of device memory that it took when it was loaded. */
uint64_t tickrt_engine_device_memory(const tickrt_engine *engine);

TICKRT_END

#endif

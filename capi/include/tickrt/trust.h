/* What may run in this process: plans, models and libraries are code. */
#ifndef TICKRT_TRUST_H
#define TICKRT_TRUST_H

#include "error.h"
#include "types.h"

TICKRT_BEGIN

/* Keys and libraries, to be enforced. */
typedef struct tickrt_trust tickrt_trust;

/* Nothing is trusted yet. Never NULL. */
tickrt_trust *tickrt_trust_new(void);

/* Frees what was not enforced; NULL is fine. */
void tickrt_trust_free(tickrt_trust *trust);

/* Trusts what the key of these 32 bytes has signed. */
TICKRT_MUST_USE tickrt_error *tickrt_trust_add_key(tickrt_trust *trust, const uint8_t *key);

/* Trusts what the key in the file `path` has signed, as `tickrt keygen` writes it. */
TICKRT_MUST_USE tickrt_error *tickrt_trust_add_key_file(tickrt_trust *trust, const char *path);

/* Trusts a TensorRT or an ONNX Runtime by its absolute path, and only with the 32 bytes of this SHA-256 unless that is
 * NULL. ONNX Runtime's CUDA provider has two libraries of its own, libonnxruntime_providers_shared.so and
 * libonnxruntime_providers_cuda.so beside it: both have to be named as well. */
TICKRT_MUST_USE tickrt_error *tickrt_trust_add_library(tickrt_trust *trust, const char *path, const uint8_t *sha256);

/* From here on, to the end of the process: plans and models load only with a true signature of one of the keys beside
 * them, nothing is built, and no other library is opened. To be called once, at start. `trust` is used up, whatever
 * comes of it. */
TICKRT_MUST_USE tickrt_error *tickrt_trust_enforce(tickrt_trust *trust);

TICKRT_END

#endif

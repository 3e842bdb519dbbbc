/* From an ONNX model to a TensorRT plan and its sidecar. */
#ifndef TICKRT_BUILDER_H
#define TICKRT_BUILDER_H

#include "error.h"
#include "normalization.h"
#include "types.h"

TICKRT_BEGIN

/* What a build is asked for. An option that the TensorRT at hand lacks is refused by tickrt_builder_build. */
typedef struct tickrt_builder tickrt_builder;

/* TensorRT's defaults. Never NULL. */
tickrt_builder *tickrt_builder_new(void);

/* Frees it; NULL is fine. */
void tickrt_builder_free(tickrt_builder *builder);

/* Limits the layers' scratch memory. */
TICKRT_MUST_USE tickrt_error *tickrt_builder_set_workspace(tickrt_builder *builder, uint64_t bytes);

/* Allows 16-bit floats; TensorRT 8 and 10 alone. */
TICKRT_MUST_USE tickrt_error *tickrt_builder_set_fp16(tickrt_builder *builder);

/* Matrix products in full 32-bit precision. */
TICKRT_MUST_USE tickrt_error *tickrt_builder_set_no_tf32(tickrt_builder *builder);

/* How long TensorRT may search, 0 to 5. */
TICKRT_MUST_USE tickrt_error *tickrt_builder_set_optimization_level(tickrt_builder *builder, uint8_t level);

/* A file that keeps measured kernels from build to build. */
TICKRT_MUST_USE tickrt_error *tickrt_builder_set_timing_cache(tickrt_builder *builder, const char *path);

/* The range of a dynamic input, and the shape to tune for: three arrays of `dimensions`. */
TICKRT_MUST_USE tickrt_error *tickrt_builder_set_shapes(tickrt_builder *builder, const char *input, const int64_t *min,
                                                        const int64_t *opt, const int64_t *max, size_t dimensions);

/* Puts a normalisation into the sidecar, by copy. */
TICKRT_MUST_USE tickrt_error *tickrt_builder_add_normalization(tickrt_builder *builder,
                                                               const tickrt_normalization *normalization);

/* Elements of a row, for a network that takes rolling windows. */
TICKRT_MUST_USE tickrt_error *tickrt_builder_set_window_row(tickrt_builder *builder, size_t elements);

/* Which TensorRT: trt8, trt10, trt11, rtx, or the path of a library or of its folder. The first that is found
 * otherwise. */
TICKRT_MUST_USE tickrt_error *tickrt_builder_set_tensorrt(tickrt_builder *builder, const char *which);

/* Builds the model in the file `onnx` and writes the plan to `engine` and its sidecar beside it. Takes milliseconds to
 * many minutes, uses all cores, and other than with TensorRT-RTX the GPU. */
TICKRT_MUST_USE tickrt_error *tickrt_builder_build(const tickrt_builder *builder, const char *onnx, const char *engine);

TICKRT_END

#endif

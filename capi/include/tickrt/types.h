/* What all headers share: numbers, tickets, answers, outputs.
 *
 * A function that can fail returns an owned tickrt_error, NULL for success (see error.h), and writes its outputs only
 * on success. A handle is used by one thread at a time and may move between threads. */
#ifndef TICKRT_TYPES_H
#define TICKRT_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
#define TICKRT_BEGIN extern "C" {
#define TICKRT_END }
#else
#define TICKRT_BEGIN
#define TICKRT_END
#endif

/* An error that nobody looks at is a leak, and worse. */
#if defined(__GNUC__)
#define TICKRT_MUST_USE __attribute__((warn_unused_result))
#else
#define TICKRT_MUST_USE
#endif

TICKRT_BEGIN

/* The type of a tensor's elements. TICKRT_BOOL and TICKRT_U8 are twins: both are a byte, a bool's is 0 or 1, and where one
 * is asked for the other is taken. */
typedef enum tickrt_type {
    TICKRT_F32 = 0,
    TICKRT_F16 = 1,
    TICKRT_BF16 = 2,
    TICKRT_F64 = 3,
    TICKRT_I8 = 4,
    TICKRT_U8 = 5,
    TICKRT_I16 = 6,
    TICKRT_I32 = 7,
    TICKRT_I64 = 8,
    TICKRT_BOOL = 9
} tickrt_type;

/* What answers. */
typedef enum tickrt_backend {
    TICKRT_BACKEND_TENSORRT = 0,
    TICKRT_BACKEND_ORT_CUDA = 1,
    TICKRT_BACKEND_ORT_CPU = 2,
    TICKRT_BACKEND_CUSTOM = 3,
    /* A kernel of tickrt's own that stays on the GPU and polls for calls. */
    TICKRT_BACKEND_RESIDENT = 4
} tickrt_backend;

/* A call on its way. To be copied at will, and given back to the session or predictor that issued it. */
typedef struct tickrt_ticket {
    uint64_t parts[2];
} tickrt_ticket;

/* Where an answer came from, and when; times are those of clock.h. */
typedef struct tickrt_answer {
    uint64_t tag;      /* the caller's number */
    uint64_t sequence; /* the call's number in its session, from 1 */
    uint64_t submitted_ns;
    uint64_t done_ns;   /* when the answer was seen */
    uint8_t engine[32]; /* SHA-256 of the plan or ONNX model that computed it */
    tickrt_backend backend;
} tickrt_answer;

/* Where output number `index` is to go: `count` elements of `type`, the output's own number and type (f16 and bf16 are
 * delivered as f32). */
typedef struct tickrt_output {
    size_t index;
    void *data;
    size_t count;
    tickrt_type type;
} tickrt_output;

TICKRT_END

#endif

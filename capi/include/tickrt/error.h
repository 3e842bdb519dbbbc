/* Errors: owned, with a code to switch on and a message for people. */
#ifndef TICKRT_ERROR_H
#define TICKRT_ERROR_H

#include "types.h"

TICKRT_BEGIN

/* What went wrong. Numbers stay what they are; new ones may come. */
typedef enum tickrt_code {
    TICKRT_OK = 0,

    /* The data plane's. */
    TICKRT_FULL = 1,            /* every slot of the ring is in flight or not yet collected */
    TICKRT_DEADLINE_MISSED = 2, /* the session stays usable; the late answer is discarded */
    TICKRT_STALE_TICKET = 3,    /* already collected, given up, or another session's */
    TICKRT_WINDOW_NOT_FULL = 4, /* the message says how many rows are missing */
    TICKRT_UNKNOWN_SYMBOL = 5,
    TICKRT_NO_WINDOWS = 6, /* the session was made without */
    TICKRT_NON_FINITE_INPUT = 7,
    TICKRT_NON_FINITE_OUTPUT = 8,
    TICKRT_OUT_OF_RANGE = 9, /* an output outside the range that was set */
    TICKRT_WRONG_LENGTH = 10,
    TICKRT_WRONG_TYPE = 11,
    TICKRT_UNKNOWN_TENSOR = 12,
    TICKRT_UNAVAILABLE = 13,  /* no backend can answer in what is left of the deadline */
    TICKRT_FORKED = 15,       /* the session belongs to the process that forked this one */
    TICKRT_DEVICE_LOST = 14,  /* every CUDA user of the process is finished */
    TICKRT_WRONG_ANSWER = 16, /* the backend answered a question whose answer is known otherwise */
    TICKRT_XID = 17,          /* the GPU has reported an Xid that ends it */

    /* The control plane's. */
    TICKRT_INVALID_ARGUMENT = 40, /* the caller's mistake, NULL included */
    TICKRT_IO = 41,
    TICKRT_ONNX = 42,
    TICKRT_UNSUPPORTED_OPERATOR = 43,
    TICKRT_BUILD = 44,
    TICKRT_CANCELLED = 45,
    TICKRT_UNSUPPORTED = 46,
    TICKRT_NOT_A_PLAN = 47,
    TICKRT_PLAN_TRUNCATED = 48,
    TICKRT_PLAN_ALTERED = 49,
    TICKRT_PLAN_VERSION = 50,
    TICKRT_PLAN_GPU = 51,
    TICKRT_PLAN_UNVERIFIED = 52,
    TICKRT_SIDECAR_DAMAGED = 53,
    TICKRT_PLAN_REFUSED = 54,
    TICKRT_SHAPE = 55,
    TICKRT_TENSORRT_MISSING = 56,
    TICKRT_NO_GPU = 57,
    TICKRT_OUT_OF_MEMORY = 58,
    TICKRT_CUDA = 59,
    TICKRT_EXECUTION = 60,
    TICKRT_ONNXRUNTIME_MISSING = 61,
    TICKRT_ONNXRUNTIME_TOO_OLD = 62,
    TICKRT_ONNXRUNTIME = 63,
    TICKRT_NO_BACKEND = 64, /* no entry of the chain could start */
    TICKRT_UNTRUSTED = 65,  /* not what was signed, where signatures are enforced */

    TICKRT_PANIC = 100, /* tickrt itself failed; the handle can only be freed */
    TICKRT_OTHER = 101
} tickrt_code;

/* To be freed by tickrt_error_free, by any thread. */
typedef struct tickrt_error tickrt_error;

/* Frees an error; NULL is fine. The next error of this thread takes its memory. */
void tickrt_error_free(tickrt_error *error);

/* TICKRT_OK for NULL. */
tickrt_code tickrt_error_code(const tickrt_error *error);

/* Operation, what was expected, what was there instead, what to do about it, and below it the native library's own
 * lines. Made when it is first asked for, by one thread; lives as long as the error. */
const char *tickrt_error_message(const tickrt_error *error);

/* Whether CUDA is finished in this process: only a restart brings it back. */
bool tickrt_error_is_sticky(const tickrt_error *error);

TICKRT_END

#endif

/* What this is, and which TensorRT it can drive. */
#ifndef TICKRT_VERSION_H
#define TICKRT_VERSION_H

#include "error.h"
#include "types.h"

/* The version of these headers. */
#define TICKRT_VERSION "0.1.0"

TICKRT_BEGIN

/* Which of TensorRT's own lines are printed to stderr. */
typedef enum tickrt_log_level {
    TICKRT_LOG_OFF = 0,
    TICKRT_LOG_ERROR = 1,
    TICKRT_LOG_WARNING = 2,
    TICKRT_LOG_INFO = 3,
    TICKRT_LOG_VERBOSE = 4
} tickrt_log_level;

/* The version of the library, to be held against TICKRT_VERSION. Lives for ever, as the next one. */
const char *tickrt_version(void);

/* The header sets of TensorRT that are compiled in: "TensorRT 11.4.0, TensorRT-RTX 1.7.1". */
const char *tickrt_compiled_in(void);

TICKRT_MUST_USE tickrt_error *tickrt_set_log_level(tickrt_log_level level);

TICKRT_END

#endif

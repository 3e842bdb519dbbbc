/* Points in time: nanoseconds of CLOCK_MONOTONIC, which is what std::chrono::steady_clock counts, too. */
#ifndef TICKRT_CLOCK_H
#define TICKRT_CLOCK_H

#include "types.h"

TICKRT_BEGIN

/* Now. A deadline is tickrt_now_ns() + what is left. */
uint64_t tickrt_now_ns(void);

TICKRT_END

#endif

/* Latencies from a nanosecond to an hour, to three digits, so that their tail can be told. */
#ifndef TICKRT_HISTOGRAM_H
#define TICKRT_HISTOGRAM_H

#include "error.h"
#include "types.h"

TICKRT_BEGIN

typedef struct tickrt_histogram tickrt_histogram;

TICKRT_MUST_USE tickrt_error *tickrt_histogram_new(tickrt_histogram **histogram);

/* Frees it; NULL is fine. */
void tickrt_histogram_free(tickrt_histogram *histogram);

/* Adds one. Allocates nothing and cannot fail. */
void tickrt_histogram_record_ns(tickrt_histogram *histogram, uint64_t latency_ns);

/* Forgets all of them. */
void tickrt_histogram_reset(tickrt_histogram *histogram);

/* Adds all of another's: one a thread, added up at the end. To itself is an error. */
TICKRT_MUST_USE tickrt_error *tickrt_histogram_add(tickrt_histogram *histogram, const tickrt_histogram *other);

uint64_t tickrt_histogram_count(const tickrt_histogram *histogram);

/* The latency that this share of them, 0 to 1, did not exceed. */
TICKRT_MUST_USE tickrt_error *tickrt_histogram_quantile_ns(const tickrt_histogram *histogram, double share,
                                                           uint64_t *latency_ns);

uint64_t tickrt_histogram_max_ns(const tickrt_histogram *histogram);

double tickrt_histogram_mean_ns(const tickrt_histogram *histogram);

TICKRT_END

#endif

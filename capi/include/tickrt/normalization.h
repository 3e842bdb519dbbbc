/* What happens to an input before the network: type, (x - mean) / std, clamp, NaN, layout. */
#ifndef TICKRT_NORMALIZATION_H
#define TICKRT_NORMALIZATION_H

#include "error.h"
#include "types.h"

TICKRT_BEGIN

typedef struct tickrt_normalization tickrt_normalization;

/* What a pair of mean and standard deviation is for. */
typedef enum tickrt_stats {
    TICKRT_STATS_PER_TENSOR = 0,  /* one pair for all */
    TICKRT_STATS_PER_FEATURE = 1, /* one along the last axis of the input as it is handed over */
    TICKRT_STATS_PER_CHANNEL = 2  /* one along axis 1 of the network's tensor */
} tickrt_stats;

/* What to do with NaN and infinity. */
typedef enum tickrt_non_finite {
    TICKRT_NON_FINITE_PASS = 0,
    TICKRT_NON_FINITE_REPLACE = 1,
    TICKRT_NON_FINITE_REFUSE = 2
} tickrt_non_finite;

/* How the input lies in memory, against how the network takes it. */
typedef enum tickrt_layout {
    TICKRT_LAYOUT_AS_IS = 0,
    TICKRT_LAYOUT_CHANNELS_LAST_TO_FIRST = 1 /* NHWC to NCHW, a window of rows to features x time */
} tickrt_layout;

/* Reads the JSON form, as models/toy_cnn.normalization.json has it. */
TICKRT_MUST_USE tickrt_error *tickrt_normalization_read(const char *path, tickrt_normalization **normalization);

/* Of the input tensor `input`, handed over as `input_type`: converts only, until more is set. */
TICKRT_MUST_USE tickrt_error *tickrt_normalization_new(const char *input, tickrt_type input_type,
                                                       tickrt_normalization **normalization);

/* Frees it; NULL is fine. */
void tickrt_normalization_free(tickrt_normalization *normalization);

/* `count` means and as many standard deviations. Whether they fit the tensor is seen when a session is made. */
TICKRT_MUST_USE tickrt_error *tickrt_normalization_set_stats(tickrt_normalization *normalization, tickrt_stats kind,
                                                             const double *mean, const double *std, size_t count);

/* The lowest and highest value after the division. */
TICKRT_MUST_USE tickrt_error *tickrt_normalization_set_clamp(tickrt_normalization *normalization, float lowest,
                                                             float highest);

/* `replacement`, in normalised units, counts for TICKRT_NON_FINITE_REPLACE alone. */
TICKRT_MUST_USE tickrt_error *tickrt_normalization_set_non_finite(tickrt_normalization *normalization,
                                                                  tickrt_non_finite policy, float replacement);

TICKRT_MUST_USE tickrt_error *tickrt_normalization_set_layout(tickrt_normalization *normalization,
                                                              tickrt_layout layout);

TICKRT_END

#endif

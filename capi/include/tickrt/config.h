/* What a session or a predictor is made for: everything that is fixed at start. */
#ifndef TICKRT_CONFIG_H
#define TICKRT_CONFIG_H

#include "error.h"
#include "normalization.h"
#include "types.h"

TICKRT_BEGIN

typedef struct tickrt_config tickrt_config;

/* What a gap in a symbol's feed does to its window. */
typedef enum tickrt_gap_policy {
    TICKRT_GAP_REFILL = 0,   /* the window must fill anew */
    TICKRT_GAP_HOLD_LAST = 1 /* the last row stands in for the missing one */
} tickrt_gap_policy;

/* How a thread that waits for an answer spends its time. */
typedef enum tickrt_wait_strategy {
    TICKRT_WAIT_SPIN = 0,            /* the lowest latency, for a thread with a core of its own; the default */
    TICKRT_WAIT_SPIN_PAUSE = 1,      /* with the processor's pause instruction */
    TICKRT_WAIT_SPIN_THEN_YIELD = 2, /* for 100 us, then gives up the processor between looks */
    TICKRT_WAIT_BLOCK = 3            /* sleeps between looks */
} tickrt_wait_strategy;

/* The defaults: 4 slots, no windows, the normalisation of the plan's sidecar, 200 calls of warm-up, GPU 0. Never NULL.
 */
tickrt_config *tickrt_config_new(void);

/* Frees it; NULL is fine. What was made with it keeps what it needs. */
void tickrt_config_free(tickrt_config *config);

/* Slots in the ring: how many calls can be in flight or wait to be collected, 1 to 64. */
TICKRT_MUST_USE tickrt_error *tickrt_config_set_depth(tickrt_config *config, size_t slots);

/* Rolling windows for symbols 0 to `symbols` - 1, of rows of `row` elements. */
TICKRT_MUST_USE tickrt_error *tickrt_config_set_windows(tickrt_config *config, uint32_t symbols, size_t row,
                                                        tickrt_gap_policy on_gap);

/* Adds the normalisation of one input, by copy, in place of those of the plan's sidecar. */
TICKRT_MUST_USE tickrt_error *tickrt_config_add_normalization(tickrt_config *config,
                                                              const tickrt_normalization *normalization);

/* No normalisation, whatever the plan's sidecar says. */
TICKRT_MUST_USE tickrt_error *tickrt_config_set_no_normalization(tickrt_config *config);

/* The dimensions of `input` in shape number `shape`; the next free number announces one more shape. */
TICKRT_MUST_USE tickrt_error *tickrt_config_set_shape(tickrt_config *config, size_t shape, const char *input,
                                                      const int64_t *dimensions, size_t count);

/* How long a wait waits at most. */
TICKRT_MUST_USE tickrt_error *tickrt_config_set_wait_limit_ns(tickrt_config *config, uint64_t limit_ns);

TICKRT_MUST_USE tickrt_error *tickrt_config_set_wait_strategy(tickrt_config *config, tickrt_wait_strategy strategy);

/* Launches the next call's graph before the call comes, for so long at most; 0 turns it off. TensorRT alone. */
TICKRT_MUST_USE tickrt_error *tickrt_config_set_launch_ahead_ns(tickrt_config *config, uint64_t for_ns);

/* How long the kernel of a resident engine stays on the GPU at a time: 100 us to 1 s, 50 ms unless set. */
TICKRT_MUST_USE tickrt_error *tickrt_config_set_resident_turn_ns(tickrt_config *config, uint64_t turn_ns);

/* Whether a resident engine may start on a GPU on which another process computes. */
TICKRT_MUST_USE tickrt_error *tickrt_config_set_resident_share_gpu(tickrt_config *config, bool share_gpu);

/* Whether calls of a resident engine are written into the GPU's memory, through its BAR1, instead of the host's: sooner seen. Needs
 * the driver's Vulkan part, or the engine does not start (TICKRT_UNAVAILABLE). For engines built with --resident-asks all. */
TICKRT_MUST_USE tickrt_error *tickrt_config_set_resident_bar1(tickrt_config *config, bool bar1);

/* How often a resident engine is asked a question whose answer is known, 1 s unless set; 0: never. If the answer has changed,
 * calls submitted from then on end with TICKRT_WRONG_ANSWER, and a chain goes on to its next entry. */
TICKRT_MUST_USE tickrt_error *tickrt_config_set_resident_known_answer_ns(tickrt_config *config, uint64_t every_ns);

/* Calls made at start. */
TICKRT_MUST_USE tickrt_error *tickrt_config_set_warm_up(tickrt_config *config, size_t calls);

/* Which GPU, in CUDA's order. */
TICKRT_MUST_USE tickrt_error *tickrt_config_set_device(tickrt_config *config, size_t device);

/* Threads that ONNX Runtime computes with on a CPU; 0 leaves it to ONNX Runtime. */
TICKRT_MUST_USE tickrt_error *tickrt_config_set_cpu_threads(tickrt_config *config, size_t threads);

/* Whether every float output is checked for NaN and infinity; it is unless this says otherwise. */
TICKRT_MUST_USE tickrt_error *tickrt_config_set_check_finite(tickrt_config *config, bool check);

/* Lowest and highest value that a float output may have. */
TICKRT_MUST_USE tickrt_error *tickrt_config_set_output_range(tickrt_config *config, float lowest, float highest);

TICKRT_END

#endif

/* A predictor: a chain of backends that are all warmed up. The first that works answers; when it fails in the middle of
 * a call, the next one answers that call. */
#ifndef TICKRT_PREDICTOR_H
#define TICKRT_PREDICTOR_H

#include "config.h"
#include "engine.h"
#include "error.h"
#include "types.h"

TICKRT_BEGIN

/* The entries, in the order in which they are tried. */
typedef struct tickrt_chain tickrt_chain;

/* One thread at a time uses it; it may move between threads. */
typedef struct tickrt_predictor tickrt_predictor;

/* A backend that does not answer. */
typedef struct tickrt_passed_over {
    const char *reason; /* lives as long as the predictor */
    tickrt_backend backend;
    bool restart_helps; /* it has worked here before: a restart of the process could bring it back */
} tickrt_passed_over;

/* An empty chain. Never NULL. */
tickrt_chain *tickrt_chain_new(void);

/* Frees a chain that no predictor was made of. NULL is fine. */
void tickrt_chain_free(tickrt_chain *chain);

/* Adds the plan in `path`, with its sidecar beside it, on TensorRT. */
TICKRT_MUST_USE tickrt_error *tickrt_chain_add_tensorrt(tickrt_chain *chain, const char *path);

/* Adds the resident engine in `path`, with its sidecar beside it: a kernel that stays on the GPU. */
TICKRT_MUST_USE tickrt_error *tickrt_chain_add_resident(tickrt_chain *chain, const char *path);

/* Adds an engine that is loaded already, and keeps it alive. */
TICKRT_MUST_USE tickrt_error *tickrt_chain_add_engine(tickrt_chain *chain, const tickrt_engine *engine);

/* Adds the model in `path` on ONNX Runtime's CUDA provider. */
TICKRT_MUST_USE tickrt_error *tickrt_chain_add_ort_cuda(tickrt_chain *chain, const char *path);

/* Adds the model in `path` on ONNX Runtime's CPU provider. */
TICKRT_MUST_USE tickrt_error *tickrt_chain_add_ort_cpu(tickrt_chain *chain, const char *path);

/* Lets the entries run different ONNX models. */
TICKRT_MUST_USE tickrt_error *tickrt_chain_allow_different_models(tickrt_chain *chain);

/* Lets version-compatible plans run the code for the host that they carry. */
TICKRT_MUST_USE tickrt_error *tickrt_chain_allow_host_code(tickrt_chain *chain);

/* Passes over what signatures (trust.h) forbid, as what is missing, instead of refusing to start. */
TICKRT_MUST_USE tickrt_error *tickrt_chain_pass_over_untrusted(tickrt_chain *chain);

/* Starts and warms up every entry; one that cannot start is passed over. `chain` is used up, whatever comes of it.
 * `config` may be NULL. TICKRT_NO_BACKEND if none starts, with every reason; TICKRT_UNTRUSTED for a file or library that
 * is not what was signed or named. */
TICKRT_MUST_USE tickrt_error *tickrt_predictor_new(tickrt_chain *chain, const tickrt_config *config,
                                                   tickrt_predictor **predictor);

/* Frees it, calls in flight included. NULL is fine. */
void tickrt_predictor_free(tickrt_predictor *predictor);

/* Lends a slot of the ring for shape number `shape` (0 unless several were announced). One slot is lent at a time;
 * until it is submitted or cancelled, every other function but write and free is refused with TICKRT_INVALID_ARGUMENT.
 * TICKRT_FULL, TICKRT_SHAPE. */
TICKRT_MUST_USE tickrt_error *tickrt_predictor_input(tickrt_predictor *predictor, size_t shape);

/* Writes `count` elements of the first input, from place `offset` on. Pieces go from front to back; they may overlap,
 * and leave no hole. TICKRT_WRONG_TYPE, TICKRT_WRONG_LENGTH. */
TICKRT_MUST_USE tickrt_error *tickrt_predictor_write(tickrt_predictor *predictor, size_t offset, const void *data,
                                                     size_t count, tickrt_type type);

/* The same of the input `name`. TICKRT_UNKNOWN_TENSOR. */
TICKRT_MUST_USE tickrt_error *tickrt_predictor_write_named(tickrt_predictor *predictor, const char *name, size_t offset,
                                                           const void *data, size_t count, tickrt_type type);

/* Starts the call and returns at once; ONNX Runtime computes in here. `tag` comes back with the answer. The slot is no
 * longer lent, whatever comes of it. */
TICKRT_MUST_USE tickrt_error *tickrt_predictor_submit(tickrt_predictor *predictor, uint64_t tag, tickrt_ticket *ticket);

/* Gives the lent slot back without a call. */
void tickrt_predictor_cancel(tickrt_predictor *predictor);

/* Keeps the newest row of `symbol`: `count` elements. It goes to the device with the symbol's next call. */
TICKRT_MUST_USE tickrt_error *tickrt_predictor_push(tickrt_predictor *predictor, uint32_t symbol, const void *row,
                                                    size_t count, tickrt_type type);

/* Forgets the rows of `symbol`: its window must fill anew. */
TICKRT_MUST_USE tickrt_error *tickrt_predictor_reset(tickrt_predictor *predictor, uint32_t symbol);

/* Says that a row of `symbol` is missing; the configuration's tickrt_gap_policy says what follows. */
TICKRT_MUST_USE tickrt_error *tickrt_predictor_gap(tickrt_predictor *predictor, uint32_t symbol);

/* Starts a call on the window of `symbol` as it is now, and returns at once; ONNX Runtime computes in here.
 * TICKRT_WINDOW_NOT_FULL, TICKRT_FULL. */
TICKRT_MUST_USE tickrt_error *tickrt_predictor_submit_window(tickrt_predictor *predictor, uint32_t symbol, uint64_t tag,
                                                             tickrt_ticket *ticket);

/* Takes the answer if it is there, and returns at once: `done` says whether it was. `outputs` are `count` places to
 * copy to; all are written or none. `answer` may be NULL. After a wrong length or type the answer can be asked for
 * again. */
TICKRT_MUST_USE tickrt_error *tickrt_predictor_poll(tickrt_predictor *predictor, tickrt_ticket ticket,
                                                    const tickrt_output *outputs, size_t count, bool *done,
                                                    tickrt_answer *answer);

/* Waits for the answer, for the configuration's limit at most. TICKRT_DEADLINE_MISSED if the device still computes
 * then. */
TICKRT_MUST_USE tickrt_error *tickrt_predictor_wait(tickrt_predictor *predictor, tickrt_ticket ticket,
                                                    const tickrt_output *outputs, size_t count, tickrt_answer *answer);

/* Waits for the answer until `deadline_ns` on the clock of clock.h. After TICKRT_DEADLINE_MISSED the predictor stays
 * usable; the late answer is discarded. */
TICKRT_MUST_USE tickrt_error *tickrt_predictor_wait_until(tickrt_predictor *predictor, tickrt_ticket ticket,
                                                          uint64_t deadline_ns, const tickrt_output *outputs,
                                                          size_t count, tickrt_answer *answer);

/* Gives the call up: its answer will be discarded, and its slot goes back to the ring when it has come. */
TICKRT_MUST_USE tickrt_error *tickrt_predictor_give_up(tickrt_predictor *predictor, tickrt_ticket ticket);

/* Keeps an idle GPU's clocks up and launches ahead again where that was asked for: to be called in pauses. */
TICKRT_MUST_USE tickrt_error *tickrt_predictor_keep_warm(tickrt_predictor *predictor);

/* Takes back what was launched ahead, before the process does something that waits for the whole device. */
TICKRT_MUST_USE tickrt_error *tickrt_predictor_rest(tickrt_predictor *predictor);

/* Which backend answers now. */
TICKRT_MUST_USE tickrt_error *tickrt_predictor_active(tickrt_predictor *predictor, tickrt_backend *backend);

/* How many backends were passed over or have failed. Worth a look at start. */
TICKRT_MUST_USE tickrt_error *tickrt_predictor_passed_over_count(tickrt_predictor *predictor, size_t *count);

/* The one of number `index`, in the order in which it happened. */
TICKRT_MUST_USE tickrt_error *tickrt_predictor_passed_over(tickrt_predictor *predictor, size_t index,
                                                           tickrt_passed_over *passed);

/* Goes back to the first backend that still can. An error says that nothing has changed, and the reason for which those
 * ahead of the active one cannot: only a restart of the process brings them back. */
TICKRT_MUST_USE tickrt_error *tickrt_predictor_rearm(tickrt_predictor *predictor);

TICKRT_END

#endif

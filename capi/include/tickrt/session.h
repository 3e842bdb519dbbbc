/* A session: one backend, warmed up, and its ring of slots. */
#ifndef TICKRT_SESSION_H
#define TICKRT_SESSION_H

#include "config.h"
#include "engine.h"
#include "error.h"
#include "types.h"

TICKRT_BEGIN

/* One thread at a time uses it; it may move between threads. */
typedef struct tickrt_session tickrt_session;

/* Starts a session on `engine`: allocates everything, captures the graphs, warms up. `config` may be NULL: the
 * defaults. The session keeps the engine alive. */
TICKRT_MUST_USE tickrt_error *tickrt_session_new(const tickrt_engine *engine, const tickrt_config *config,
                                                 tickrt_session **session);

/* Starts a session on ONNX Runtime's CPU provider, which computes in submit. */
TICKRT_MUST_USE tickrt_error *tickrt_session_new_ort_cpu(const char *onnx, const tickrt_config *config,
                                                         tickrt_session **session);

/* Starts a session on the resident engine in `engine`, with its sidecar beside it: a kernel that stays on the GPU.
 * TICKRT_PLAN_GPU, TICKRT_UNAVAILABLE. */
TICKRT_MUST_USE tickrt_error *tickrt_session_new_resident(const char *engine, const tickrt_config *config,
                                                          tickrt_session **session);

/* Frees it, calls in flight included. NULL is fine. */
void tickrt_session_free(tickrt_session *session);

/* Lends a slot of the ring for shape number `shape` (0 unless several were announced). One slot is lent at a time;
 * until it is submitted or cancelled, every other function but write and free is refused with TICKRT_INVALID_ARGUMENT.
 * TICKRT_FULL, TICKRT_SHAPE. */
TICKRT_MUST_USE tickrt_error *tickrt_session_input(tickrt_session *session, size_t shape);

/* Writes `count` elements of the first input, from place `offset` on. Pieces go from front to back; they may overlap,
 * and leave no hole. TICKRT_WRONG_TYPE, TICKRT_WRONG_LENGTH. */
TICKRT_MUST_USE tickrt_error *tickrt_session_write(tickrt_session *session, size_t offset, const void *data,
                                                   size_t count, tickrt_type type);

/* The same of the input `name`. TICKRT_UNKNOWN_TENSOR. */
TICKRT_MUST_USE tickrt_error *tickrt_session_write_named(tickrt_session *session, const char *name, size_t offset,
                                                         const void *data, size_t count, tickrt_type type);

/* Starts the call and returns at once; ONNX Runtime computes in here. `tag` comes back with the answer. The slot is no
 * longer lent, whatever comes of it. */
TICKRT_MUST_USE tickrt_error *tickrt_session_submit(tickrt_session *session, uint64_t tag, tickrt_ticket *ticket);

/* Gives the lent slot back without a call. */
void tickrt_session_cancel(tickrt_session *session);

/* Keeps the newest row of `symbol`: `count` elements. It goes to the device with the symbol's next call. */
TICKRT_MUST_USE tickrt_error *tickrt_session_push(tickrt_session *session, uint32_t symbol, const void *row,
                                                  size_t count, tickrt_type type);

/* Forgets the rows of `symbol`: its window must fill anew. */
TICKRT_MUST_USE tickrt_error *tickrt_session_reset(tickrt_session *session, uint32_t symbol);

/* Has the next call begin from the network's initial state, as the first call does: of a resident engine that was built
 * with --semantics stateful, each of whose calls is one step. TICKRT_INVALID_ARGUMENT for any other session. */
TICKRT_MUST_USE tickrt_error *tickrt_session_reset_state(tickrt_session *session);

/* Says that a row of `symbol` is missing; the configuration's tickrt_gap_policy says what follows. */
TICKRT_MUST_USE tickrt_error *tickrt_session_gap(tickrt_session *session, uint32_t symbol);

/* Starts a call on the window of `symbol` as it is now, and returns at once; ONNX Runtime computes in here.
 * TICKRT_WINDOW_NOT_FULL, TICKRT_FULL. */
TICKRT_MUST_USE tickrt_error *tickrt_session_submit_window(tickrt_session *session, uint32_t symbol, uint64_t tag,
                                                           tickrt_ticket *ticket);

/* Takes the answer if it is there, and returns at once: `done` says whether it was. `outputs` are `count` places to
 * copy to; all are written or none. `answer` may be NULL. After a wrong length or type the answer can be asked for
 * again. */
TICKRT_MUST_USE tickrt_error *tickrt_session_poll(tickrt_session *session, tickrt_ticket ticket,
                                                  const tickrt_output *outputs, size_t count, bool *done,
                                                  tickrt_answer *answer);

/* Waits for the answer, for the configuration's limit at most. TICKRT_DEADLINE_MISSED if the device still computes
 * then. */
TICKRT_MUST_USE tickrt_error *tickrt_session_wait(tickrt_session *session, tickrt_ticket ticket,
                                                  const tickrt_output *outputs, size_t count, tickrt_answer *answer);

/* Waits for the answer until `deadline_ns` on the clock of clock.h. After TICKRT_DEADLINE_MISSED the session stays
 * usable; the late answer is discarded. */
TICKRT_MUST_USE tickrt_error *tickrt_session_wait_until(tickrt_session *session, tickrt_ticket ticket,
                                                        uint64_t deadline_ns, const tickrt_output *outputs,
                                                        size_t count, tickrt_answer *answer);

/* Gives the call up: its answer will be discarded, and its slot goes back to the ring when it has come. */
TICKRT_MUST_USE tickrt_error *tickrt_session_give_up(tickrt_session *session, tickrt_ticket ticket);

/* Keeps an idle GPU's clocks up and launches ahead again where that was asked for: to be called in pauses. */
TICKRT_MUST_USE tickrt_error *tickrt_session_keep_warm(tickrt_session *session);

/* Takes back what was launched ahead, before the process does something that waits for the whole device. */
TICKRT_MUST_USE tickrt_error *tickrt_session_rest(tickrt_session *session);

/* Which backend answers. */
TICKRT_MUST_USE tickrt_error *tickrt_session_backend(tickrt_session *session, tickrt_backend *backend);

/* Library, version and device, for people; lives as long as the session. */
const char *tickrt_session_description(const tickrt_session *session);

TICKRT_END

#endif

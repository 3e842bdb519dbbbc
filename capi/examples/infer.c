/* Replays ticks from a file in C: every row goes into its symbol's rolling window, every full window is asked about, and the
 * answer looked for between pieces of other work, as long as its deadline lets it.
 *
 *   infer MODEL.onnx NORMALIZATION.json TICKS [ENGINE]
 *
 * TICKS has a line a tick: the symbol's number and 8 features. With ENGINE, a plan that `tickrt build` made of the same
 * model, TensorRT answers; ONNX Runtime stands behind it. */
#include <stdio.h>
#include <stdlib.h>
#include <tickrt/tickrt.h>

#define SYMBOLS 64
#define FEATURES 8
#define CLASSES 3
#define DEADLINE_NS 5000000
/* Before the deadline nothing else is done. */
#define LAST_STRETCH_NS 200000

/* Control plane: an error ends the program with its story. */
static void must(tickrt_error *error) {
    if (error != NULL) {
        fprintf(stderr, "error: %s\n", tickrt_error_message(error));
        tickrt_error_free(error);
        exit(1);
    }
}

static tickrt_predictor *start(const char *model, const char *normalization_path, const char *engine) {
    tickrt_normalization *normalization = NULL;
    must(tickrt_normalization_read(normalization_path, &normalization));
    tickrt_config *config = tickrt_config_new();
    must(tickrt_config_set_windows(config, SYMBOLS, FEATURES, TICKRT_GAP_REFILL));
    must(tickrt_config_add_normalization(config, normalization));
    tickrt_chain *chain = tickrt_chain_new();
    if (engine != NULL) {
        must(tickrt_chain_add_tensorrt(chain, engine));
    }
    must(tickrt_chain_add_ort_cpu(chain, model));
    tickrt_predictor *predictor = NULL;
    must(tickrt_predictor_new(chain, config, &predictor));
    tickrt_config_free(config);
    tickrt_normalization_free(normalization);

    size_t passed = 0;
    must(tickrt_predictor_passed_over_count(predictor, &passed));
    for (size_t i = 0; i < passed; ++i) {
        tickrt_passed_over one;
        must(tickrt_predictor_passed_over(predictor, i, &one));
        fprintf(stderr, "passed over: %s\n", one.reason);
    }
    return predictor;
}

static int class_of(const float scores[CLASSES]) {
    int best = 0;
    for (int i = 1; i < CLASSES; ++i) {
        best = scores[i] > scores[best] ? i : best;
    }
    return best;
}

/* Whether the file had another tick. */
static bool read_tick(FILE *ticks, uint32_t *symbol, float row[FEATURES]) {
    if (fscanf(ticks, "%u", symbol) != 1) {
        return false;
    }
    for (int i = 0; i < FEATURES; ++i) {
        if (fscanf(ticks, "%f", &row[i]) != 1) {
            return false;
        }
    }
    return true;
}

/* What the program does besides. */
static unsigned long other_work(unsigned long done) {
    return done + 1;
}

/* Takes the answer, or the reason why there is none. */
static tickrt_error *answer_by(tickrt_predictor *predictor, tickrt_ticket ticket, uint64_t deadline_ns,
                               float scores[CLASSES], tickrt_answer *answer) {
    const tickrt_output output = {0, scores, CLASSES, TICKRT_F32};
    unsigned long pieces = 0;
    while (tickrt_now_ns() + LAST_STRETCH_NS < deadline_ns) {
        bool done = false;
        tickrt_error *error = tickrt_predictor_poll(predictor, ticket, &output, 1, &done, answer);
        if (error != NULL || done) {
            return error;
        }
        pieces = other_work(pieces);
    }
    return tickrt_predictor_wait_until(predictor, ticket, deadline_ns, &output, 1, answer);
}

int main(int argc, char **argv) {
    if (argc < 4) {
        fprintf(stderr, "usage: infer MODEL.onnx NORMALIZATION.json TICKS [ENGINE]\n");
        return 2;
    }
    FILE *ticks = fopen(argv[3], "r");
    if (ticks == NULL) {
        perror(argv[3]);
        return 1;
    }
    tickrt_predictor *predictor = start(argv[1], argv[2], argc > 4 ? argv[4] : NULL);
    tickrt_histogram *latencies = NULL;
    must(tickrt_histogram_new(&latencies));

    unsigned long acted[CLASSES] = {0}, late = 0;
    uint32_t symbol;
    float row[FEATURES];
    while (read_tick(ticks, &symbol, row)) {
        must(tickrt_predictor_push(predictor, symbol, row, FEATURES, TICKRT_F32));
        const uint64_t deadline = tickrt_now_ns() + DEADLINE_NS;
        tickrt_ticket ticket;
        tickrt_error *error = tickrt_predictor_submit_window(predictor, symbol, symbol, &ticket);
        if (tickrt_error_code(error) == TICKRT_WINDOW_NOT_FULL) {
            tickrt_error_free(error);
            continue;
        }
        must(error);

        float scores[CLASSES];
        tickrt_answer answer;
        error = answer_by(predictor, ticket, deadline, scores, &answer);
        const tickrt_code code = tickrt_error_code(error);
        if (code == TICKRT_DEADLINE_MISSED || code == TICKRT_UNAVAILABLE) {
            tickrt_error_free(error);
            ++late;
            continue;
        }
        must(error);
        ++acted[class_of(scores)];
        tickrt_histogram_record_ns(latencies, answer.done_ns - answer.submitted_ns);
    }
    fclose(ticks);

    uint64_t p99 = 0;
    must(tickrt_histogram_quantile_ns(latencies, 0.99, &p99));
    printf("acted %lu %lu %lu late %lu\n", acted[0], acted[1], acted[2], late);
    fprintf(stderr, "p99 %llu ns\n", (unsigned long long)p99);
    tickrt_histogram_free(latencies);
    tickrt_predictor_free(predictor);
    return 0;
}

/* Two libraries made with Rust and cxx in one program: tickrt and another one. Each has its own copy of Rust's standard
 * library and of cxx's runtime, and neither sees the other's. */
#include <stdio.h>
#include <string.h>
#include <tickrt/tickrt.h>

unsigned int neighbour_answer(void);

int main(void) {
    tickrt_engine *engine = NULL;
    /* Through Rust, cxx and back: a file that is no plan. */
    tickrt_error *error = tickrt_engine_load(__FILE__, 0, &engine);
    if (engine != NULL || tickrt_error_code(error) != TICKRT_NOT_A_PLAN) {
        fprintf(stderr, "%s\n", tickrt_error_message(error));
        return 1;
    }
    tickrt_error_free(error);
    if (strlen(tickrt_compiled_in()) == 0) {
        fprintf(stderr, "no TensorRT is compiled in\n");
    }
    printf("tickrt %s, neighbour %u\n", tickrt_version(), neighbour_answer());
    return 0;
}

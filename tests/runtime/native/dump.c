/* Prints what a pack makes of sentences, floats by their bits, so that outputs of two processors can be compared.

   dump FOLDER KERNELS BEAMS < sentences          one sentence of ids a line; KERNELS "-" for the best, "?" to list them */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mobilenmt.h"

#define MOST 100000

static uint32_t bits(float x)
{
    uint32_t value;
    memcpy(&value, &x, 4);
    return value;
}

int main(int argc, char **argv)
{
    static uint32_t ids[MOST], lengths[MOST], limits[MOST];
    static char line[1 << 16];
    if (argc != 4) return 2;
    if (!strcmp(argv[2], "?")) {
        for (uint32_t i = 0; mn_kernels(i); i++) puts(mn_kernels(i));
        return 0;
    }
    uint32_t count = 0, total = 0;
    while (count < MOST && fgets(line, sizeof line, stdin)) {
        const uint32_t before = total;
        for (char *at = strtok(line, " \r\n"); at && total < MOST; at = strtok(NULL, " \r\n"))
            ids[total++] = (uint32_t)strtoul(at, NULL, 10);
        lengths[count] = total - before;
        limits[count++] = 24;
    }
    const uint32_t beams = (uint32_t)atoi(argv[3]);
    const mn_open_options options = {sizeof options, strcmp(argv[2], "-") ? argv[2] : NULL};
    mn_model *model;
    mn_context *context;
    mn_error error;
    if (mn_open(argv[1], &options, &model, &error) || mn_context_new(model, 0, &context, &error)) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    const mn_request request = {.size = sizeof request, .sentences = count, .ids = ids, .lengths = lengths,
                                .max_lengths = limits, .beam_size = beams, .n_best = beams, .length_penalty = 0.8f,
                                .alignment = 1};
    mn_result result = {.size = sizeof result};
    if (mn_translate(context, &request, &result, &error)) {
        printf("%s\n", error.message); /* what others must say, too */
        return 0;
    }
    for (uint32_t h = 0; h < result.count; h++) {
        printf("%08lx", (unsigned long)bits(result.scores[h]));
        for (uint32_t i = 0; i < result.generated[h]; i++) {
            const int ended = i >= result.lengths[h];
            printf(" %ld@%ld:%08lx", ended ? -1L : (long)result.ids[h][i], ended ? -1L : (long)result.alignments[h][i],
                   (unsigned long)bits(result.token_scores[h][i]));
        }
        putchar('\n');
    }
    mn_context_free(context);
    mn_close(model);
    return 0;
}

/* Fuzzes opening and translating: a length of 4 bytes, so much of a native.bin, then a weights.bin. */

#include <stdlib.h>
#include <string.h>

#include "model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void translate(const mn_model *model, mn_context *context, uint32_t beams, int phrased)
{
    mn_info about = {.size = sizeof about};
    if (mn_model_info(model, &about) != MN_OK) abort();
    const uint32_t last = about.source_vocabulary - 1, most = about.max_positions;
    const uint32_t ids[] = {0, last, last / 2, about.eos, last, about.eos};
    const uint32_t lengths[] = {most < 4 ? most : 4, 2}, limits[] = {most < 7 ? most : 7, 2};
    mn_request request = {.size = sizeof request, .sentences = 2, .ids = ids, .lengths = lengths, .max_lengths = limits,
                          .min_length = 2, .beam_size = beams, .n_best = beams, .length_penalty = 1.0f, .no_repeat_ngram = 2,
                          .alignment = 1, .seconds = 2.0};
    /* for the first sentence three that begin alike, one of them twice; tokens that may end the output are refused */
    const uint32_t top = about.target_vocabulary - 1, phrases[] = {top, top, top / 2, top, top}, phrase_lengths[] = {1, 2, 1, 1};
    const uint32_t phrase_counts[] = {4, 0};
    uint8_t *continuing = phrased ? calloc(about.target_vocabulary, 1) : NULL;
    if (continuing) {
        continuing[top / 2] = 1;
        request.phrases = phrases;
        request.phrase_lengths = phrase_lengths;
        request.phrase_counts = phrase_counts;
        request.continuing = continuing;
    }
    mn_result result = {.size = sizeof result};
    mn_error error;
    const mn_status status = mn_translate(context, &request, &result, &error);
    if (status == MN_OK) {
        uint32_t sum = 0;
        for (uint32_t h = 0; h < result.count; h++) {
            if (result.generated[h] > limits[h / beams] - 1 || result.lengths[h] > result.generated[h]) abort();
            for (uint32_t i = 0; i < result.lengths[h]; i++) {
                if (result.ids[h][i] >= about.target_vocabulary) abort();
                if (result.alignments[h][i] >= lengths[h / beams]) abort();
            }
            for (uint32_t i = 0; i < result.generated[h]; i++) sum += result.token_scores[h][i] > -1.0f;
        }
        if (sum > 1000) abort();
    } else if (status != MN_ERROR_MEMORY && status != MN_ERROR_DEADLINE && status != MN_ERROR_ARGUMENT &&
               status != MN_ERROR_PACK) { /* the last: weights so large that numbers overflow */
        abort();
    }
    free(continuing);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 5) return 0;
    size_t native_bytes = mn_u32(data);
    if (native_bytes > size - 5) native_bytes = size - 5;
    const size_t weights_bytes = size - 4 - native_bytes;
    uint8_t *native = malloc(native_bytes ? native_bytes : 1), *weights = malloc(weights_bytes);
    memcpy(native, data + 4, native_bytes);
    memcpy(weights, data + 4 + native_bytes, weights_bytes);
    if (native_bytes >= 128) /* or nothing but a fuzzer that guesses this number comes further */
        for (int i = 0; i < 8; i++) native[120 + i] = (uint8_t)((uint64_t)weights_bytes >> 8 * i);
    mn_model *model;
    mn_error error;
    const mn_open_options options = {sizeof options, mn_kernels((uint32_t)(size % 5))}; /* all take turns */
    if (mn_open_memory(native, native_bytes, weights, weights_bytes, &options, &model, &error) == MN_OK) {
        mn_context *context;
        if (mn_context_new(model, 1 << 22, &context, &error) == MN_OK) {
            translate(model, context, 1, 0);
            translate(model, context, 2, 0);
            translate(model, context, 3, 1);
            uint32_t found[16];
            char text[32];
            const char *piece;
            size_t count;
            if (mn_encode(context, "the house", 9, found, 16, &count, &error) == MN_OK)
                mn_decode(model, found, count < 16 ? count : 16, text, sizeof text, &count, &error);
            mn_piece(model, 3, &piece, &count);
        }
        mn_context_free(context);
    }
    mn_close(model);
    free(native);
    free(weights);
    return 0;
}

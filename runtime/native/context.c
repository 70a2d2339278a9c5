/* A context, and the checks of what a caller asks for. */

#include "error.h"
#include "search/search.h"

#define USUAL_LIMIT (1ull << 30)
#define MOST_TEXT_KEPT (1u << 16) /* what a paragraph needs; after a longer text all of it is given back */
#define USUAL_ROWS 8 /* at a time in a step: more outgrow the cache of one core before they save anything */

struct mn_context {
    const mn_model *model;
    uint64_t limit; /* of all memory together, whatever calls before have left */
    mn_scratch memory[MN_BUFFERS];
    mn_text_memory text;
    mn_request request; /* of the search that is under way */
    mn_search search;
    int paused;
};

mn_status mn_context_new(const mn_model *model, uint64_t limit, mn_context **context, mn_error *error)
{
    if (!model || !context) return mn_fail(error, MN_ERROR_ARGUMENT, "no model, or no place for the context");
    *context = calloc(1, sizeof **context);
    if (!*context) return mn_fail(error, MN_ERROR_MEMORY, "no memory for a context");
    **context = (mn_context){.model = model, .limit = limit ? limit : USUAL_LIMIT};
    return MN_OK;
}

static void give_one_back(mn_scratch *memory)
{
    mn_pages_free(memory->data, memory->bytes);
    *memory = (mn_scratch){NULL, 0, 0};
}

/* All that translations have left. */
static void give_back(mn_context *context)
{
    for (int i = 0; i < MN_BUFFERS; i++) give_one_back(context->memory + i);
}

void mn_context_free(mn_context *context)
{
    if (!context) return;
    give_back(context);
    mn_text_memory_free(&context->text);
    free(context);
}

static mn_status check_tokens(const uint32_t *tokens, uint32_t count, uint32_t vocabulary, const char *what, mn_error *error)
{
    if (count && !tokens) return mn_fail(error, MN_ERROR_ARGUMENT, "%s: they are not there", what);
    for (uint32_t i = 0; i < count; i++)
        if (tokens[i] >= vocabulary)
            return mn_fail(error, MN_ERROR_ARGUMENT, "%s: %u is outside the vocabulary of %u", what, tokens[i], vocabulary);
    return MN_OK;
}

static mn_status check_phrases(const mn_model *m, const mn_request *r, mn_extent *extent, mn_error *error)
{
    if (!r->phrase_counts) return MN_OK;
    uint64_t phrases = 0, tokens = 0;
    for (uint32_t i = 0; i < r->sentences; i++) {
        const uint32_t count = r->phrase_counts[i];
        if (!count) continue;
        if (!r->phrases || !r->phrase_lengths) return mn_fail(error, MN_ERROR_ARGUMENT, "phrases: they are not there");
        if (r->beam_size < 2) return mn_fail(error, MN_ERROR_ARGUMENT, "phrases need a beam_size of 2 at least");
        if (count > MN_MOST_PHRASES)
            return mn_fail(error, MN_ERROR_ARGUMENT, "sentence %u has %u phrases; %u are the most", i, count, MN_MOST_PHRASES);
        uint64_t total = 0;
        for (uint32_t j = 0; j < count; j++, phrases++) {
            if (!r->phrase_lengths[phrases])
                return mn_fail(error, MN_ERROR_ARGUMENT, "phrase %u of sentence %u is empty", j, i);
            total += r->phrase_lengths[phrases];
        }
        if (total > r->max_lengths[i] - 2)
            return mn_fail(error, MN_ERROR_ARGUMENT, "the phrases of sentence %u do not fit max_length %u", i, r->max_lengths[i]);
        const mn_status status = check_tokens(r->phrases + tokens, (uint32_t)total, m->config.target_vocabulary, "phrases", error);
        if (status != MN_OK) return status;
        for (uint64_t j = 0; j < total; j++)
            if (r->phrases[tokens + j] == m->config.eos)
                return mn_fail(error, MN_ERROR_ARGUMENT, "phrases: %u is the end token", m->config.eos);
        tokens += total;
        if (count > extent->phrases) extent->phrases = count;
        if (total > extent->phrase_tokens) extent->phrase_tokens = total;
    }
    return MN_OK;
}

static mn_status check(const mn_model *m, const mn_request *r, mn_extent *extent, mn_error *error)
{
    uint32_t prefixes = r->prefix_lengths ? 0 : r->prefix_length; /* tokens of all of them */
    const mn_config *c = &m->config;
    const uint32_t widest = c->target_vocabulary / 2 < MN_MOST_BEAMS ? c->target_vocabulary / 2 : MN_MOST_BEAMS;
    if (!r->beam_size || r->beam_size > widest)
        return mn_fail(error, MN_ERROR_ARGUMENT, "beam_size must be from 1 to %u, not %u", widest, r->beam_size);
    if (!r->n_best || r->n_best > r->beam_size)
        return mn_fail(error, MN_ERROR_ARGUMENT, "n_best must be from 1 to beam_size (%u), not %u", r->beam_size, r->n_best);
    if (!(r->length_penalty >= -10.0f && r->length_penalty <= 10.0f)) /* beyond, scores leave the range of a float */
        return mn_fail(error, MN_ERROR_ARGUMENT, "length_penalty must be from -10 to 10");
    if (r->sentences && (!r->lengths || !r->max_lengths || !r->ids))
        return mn_fail(error, MN_ERROR_ARGUMENT, "ids, lengths or max_lengths are not there");
    if (r->sentences > UINT32_MAX / MN_MOST_BEAMS) return mn_fail(error, MN_ERROR_ARGUMENT, "too many sentences");
    *extent = (mn_extent){1, 1, 0, 0, 0};
    const uint32_t *ids = r->ids;
    for (uint32_t i = 0; i < r->sentences; i++) {
        const uint32_t length = r->lengths[i], limit = r->max_lengths[i];
        if (!length || length > c->max_positions)
            return mn_fail(error, MN_ERROR_ARGUMENT, "sentence %u has %u tokens; the model takes 1 to %u", i, length, c->max_positions);
        if (limit < 2 || limit > c->max_positions)
            return mn_fail(error, MN_ERROR_ARGUMENT, "max_length must be from 2 to the model's %u, not %u", c->max_positions, limit);
        const uint32_t prefix = r->prefix_lengths ? r->prefix_lengths[i] : r->prefix_length;
        if (r->prefix_lengths && prefix > UINT32_MAX - prefixes) return mn_fail(error, MN_ERROR_ARGUMENT, "too long prefixes");
        prefixes = r->prefix_lengths ? prefixes + prefix : prefix;
        if (r->min_length > limit || prefix >= limit)
            return mn_fail(error, MN_ERROR_ARGUMENT, "min_length or the prefix do not fit max_length %u", limit);
        const mn_status status = check_tokens(ids, length, c->source_vocabulary, "source ids", error);
        if (status != MN_OK) return status;
        ids += length;
        if (length > extent->positions) extent->positions = length;
        if (limit - 1 > extent->steps) extent->steps = limit - 1;
        extent->tokens = mn_plus(extent->tokens, mn_times(r->n_best, limit - 1));
    }
    mn_status status = check_phrases(m, r, extent, error);
    if (status == MN_OK) status = check_tokens(r->prefix, prefixes, c->target_vocabulary, "prefix", error);
    for (uint32_t i = 0; status == MN_OK && i < prefixes; i++)
        if (r->prefix[i] == c->eos) return mn_fail(error, MN_ERROR_ARGUMENT, "prefix: %u is the end token", c->eos);
    return status != MN_OK ? status : check_tokens(r->forbidden, r->forbidden_count, c->target_vocabulary, "forbidden tokens", error);
}

/* Memory for what was counted; 0 if it is not to be had. */
static int grow(mn_context *context, mn_arena arenas[MN_BUFFERS], mn_error *error)
{
    const uint64_t limit = context->limit;
    uint64_t bytes = 0, most = context->text.bytes; /* needed, and held at most */
    for (int i = 0; i < MN_BUFFERS; i++) {
        mn_scratch *memory = context->memory + i;
        bytes = mn_plus(bytes, arenas[i].used);
        most = mn_plus(most, arenas[i].used > memory->bytes ? arenas[i].used : memory->bytes);
    }
    int there = bytes <= limit;
    if (there && most > limit) {
        give_back(context);
        mn_text_memory_free(&context->text);
    }
    for (int i = 0; there && i < MN_BUFFERS; i++) {
        context->memory[i].limit = limit;
        there = mn_scratch_grow(context->memory + i, arenas[i].used);
        arenas[i] = (mn_arena){context->memory[i].data, 0};
    }
    if (!there)
        mn_fail(error, MN_ERROR_MEMORY, "%llu bytes are needed, %llu allowed", (unsigned long long)bytes, (unsigned long long)limit);
    return there;
}

/* Search until it is done, fails or pauses. */
static mn_status go_on(mn_context *context, mn_result *result, mn_error *error)
{
    mn_search *search = &context->search;
    const mn_status status = mn_search_run(search, error);
    context->paused = status == MN_PAUSED;
    /* Results lie elsewhere; a second try with a beam is no reason to keep this between calls. */
    if (!context->paused && context->memory[MN_CACHES].bytes > MN_SPARE) give_one_back(context->memory + MN_CACHES);
    if (status != MN_OK) return status;
    const mn_result found = {sizeof found, context->request.sentences * context->request.n_best,
                             (const uint32_t *const *)search->ids, search->lengths, search->generated, search->scores,
                             (const float *const *)search->token_scores, (const uint32_t *const *)search->alignments};
    mn_give(result, &found, sizeof found);
    return MN_OK;
}

mn_status mn_translate(mn_context *context, const mn_request *given, mn_result *result, mn_error *error)
{
    if (!context || !given || !result || given->size < sizeof given->size || result->size < sizeof result->size)
        return mn_fail(error, MN_ERROR_ARGUMENT, "no context, request or result, or one without its size");
    context->paused = 0;
    mn_request *request = &context->request;
    memset(request, 0, sizeof *request);
    memcpy(request, given, given->size < sizeof *request ? given->size : sizeof *request);
    mn_extent extent;
    const mn_status status = check(context->model, request, &extent, error);
    if (status != MN_OK) return status;
    mn_search *search = &context->search;
    *search = (mn_search){.model = context->model, .request = request, .beams = request->beam_size};
    const uint32_t rows = request->rows ? request->rows : USUAL_ROWS;
    search->slot_count = rows / request->beam_size ? rows / request->beam_size : 1;
    if (search->slot_count > request->sentences) search->slot_count = request->sentences;
    mn_arena arenas[MN_BUFFERS] = {{NULL, 0}};
    mn_search_take(arenas, &extent, search);
    if (!grow(context, arenas, error)) return MN_ERROR_MEMORY;
    mn_search_take(arenas, &extent, search);
    mn_search_begin(search);
    return go_on(context, result, error);
}

mn_status mn_resume(mn_context *context, mn_result *result, mn_error *error)
{
    if (!context || !result || result->size < sizeof result->size)
        return mn_fail(error, MN_ERROR_ARGUMENT, "no context or result, or one without its size");
    if (!context->paused) return mn_fail(error, MN_ERROR_ARGUMENT, "no search has paused in this context");
    return go_on(context, result, error);
}

static mn_status no_tokenizer(mn_error *error)
{
    return mn_fail(error, MN_ERROR_PACK, "native.bin holds no tokenizer: the host's own has to be used");
}

mn_status mn_encode(mn_context *context, const char *text, size_t bytes, uint32_t *ids, size_t room, size_t *count,
                    mn_error *error)
{
    if (!context || (!text && bytes) || (!ids && room) || !count)
        return mn_fail(error, MN_ERROR_ARGUMENT, "no context, text or room");
    if (!context->model->has_tokenizer) return no_tokenizer(error);
    /* No model's text grows thirtyfold; what a damaged one makes of it may not take all memory. */
    uint64_t left = context->limit;
    for (int i = 0; i < MN_BUFFERS; i++) left -= context->memory[i].bytes;
    const uint64_t most = mn_plus(1 << 16, mn_times(1024, bytes));
    const mn_tokenizer *tokenizer = context->model->tokenizers;
    context->text.limit = (size_t)(most < left ? most : left);
    mn_status status = mn_tokenizer_encode(tokenizer, text, bytes, ids, room, count, &context->text, error);
    /* A search that pauses still needs what it has. */
    if (status == MN_ERROR_MEMORY && left < most && left < context->limit && !context->paused) {
        give_back(context);
        context->text.limit = (size_t)(most < context->limit ? most : context->limit);
        status = mn_tokenizer_encode(tokenizer, text, bytes, ids, room, count, &context->text, error);
    }
    if (context->text.bytes > MOST_TEXT_KEPT) mn_text_memory_free(&context->text);
    return status;
}

mn_status mn_knows(const mn_model *model, const uint32_t *ids, size_t length, int *known)
{
    if (!model || (!ids && length) || !known || !model->has_tokenizer) return MN_ERROR_ARGUMENT;
    *known = mn_tokenizer_knows(model->tokenizers, ids, length);
    return MN_OK;
}

mn_status mn_decode(const mn_model *model, const uint32_t *ids, size_t length, char *text, size_t room, size_t *count,
                    mn_error *error)
{
    if (!model || (!ids && length) || (!text && room) || !count)
        return mn_fail(error, MN_ERROR_ARGUMENT, "no model, ids or room");
    if (!model->has_tokenizer) return no_tokenizer(error);
    return mn_tokenizer_decode(model->tokenizers + 1, ids, length, text, room, count, error);
}

mn_status mn_piece(const mn_model *model, uint32_t id, const char **piece, size_t *bytes)
{
    if (!model || !piece || !bytes || !model->has_tokenizer) return MN_ERROR_ARGUMENT;
    return mn_tokenizer_piece(model->tokenizers + 1, id, piece, bytes);
}

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* clock_gettime, which -std=c11 hides: the other clock jumps when it is set */
#endif

#include "search/search.h"

#include <math.h>
#include <time.h>

#include "error.h"

static double now(void)
{
    struct timespec time;
#if defined(CLOCK_MONOTONIC)
    clock_gettime(CLOCK_MONOTONIC, &time);
#else
    timespec_get(&time, TIME_UTC);
#endif
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static void take_slot(const mn_search *search, mn_arena arenas[MN_BUFFERS], const mn_extent *extent, mn_slot *slot)
{
    mn_arena *arena = arenas + MN_USED;
    const mn_model *m = search->model;
    const uint64_t beams = search->beams, steps = extent->steps, entries = mn_times(steps, beams);
    const int aligned = search->request->alignment != 0;
    mn_slot s = {.sentence = MN_NONE, .beams = search->beams};
    mn_cross_take(m, arena, extent->positions, &s.cross);
    mn_candidates_take(m, arenas + MN_CANDIDATES, extent->positions, extent->phrase_tokens, &s.candidates);
    s.banned = MN_TAKE(arena, uint32_t, (uint64_t)m->bad_count + search->request->forbidden_count);
    const uint64_t pages = mn_times(beams, MN_ROUND_UP(steps) / MN_LANES);
    s.cache = MN_TAKE(arenas + MN_CACHES, uint8_t, mn_times(mn_times(m->config.decoder_layers, pages), mn_page_bytes(m)));
    s.attention = aligned ? MN_TAKE(arena, float, mn_times(beams, MN_ROUND_UP(extent->positions))) : NULL;
    s.history.tokens = MN_TAKE(arena, uint32_t, entries);
    s.history.running = MN_TAKE(arena, float, entries);
    s.history.looked = aligned ? MN_TAKE(arena, uint32_t, entries) : NULL;
    if (search->beams > 1) {
        s.history.parents = MN_TAKE(arena, uint16_t, entries);
        s.history.best_tokens = MN_TAKE(arena, uint32_t, mn_times(2, entries));
        s.history.best_parents = MN_TAKE(arena, uint16_t, mn_times(2, entries));
        s.history.best_scores = MN_TAKE(arena, float, mn_times(2, entries));
        s.running = MN_TAKE(arena, float, beams);
        s.ended = MN_TAKE(arena, float, beams);
        s.tables = MN_TAKE(arena, uint16_t, mn_times(2, pages));
    }
    if (extent->phrases) {
        for (int i = 0; i < 2; i++) s.allocation.progress[i] = MN_TAKE(arena, mn_progress, beams);
        s.allocation.pool = MN_TAKE(arena, mn_continuation, mn_most_pooled(beams, extent->phrases));
        s.allocation.there = MN_TAKE(arena, uint32_t, mn_plus(extent->phrase_tokens, 1));
        s.allocation.share = MN_TAKE(arena, uint32_t, mn_plus(extent->phrase_tokens, 1));
    }
    if (arena->data) *slot = s;
}

void mn_search_take(mn_arena arenas[MN_BUFFERS], const mn_extent *extent, mn_search *search)
{
    mn_arena *arena = arenas + MN_USED;
    const mn_request *request = search->request;
    const uint64_t rows = mn_times(search->slot_count, search->beams), count = mn_times(request->sentences, request->n_best);
    const uint64_t longest = extent->steps > extent->positions ? extent->steps : extent->positions;
    mn_arena encoding = arenas[MN_CACHES];
    if (search->slot_count == 1) { /* encodes where its keys and values will be: nothing is generated before */
        mn_work_take(search->model, &encoding, extent->positions, extent->positions, &search->encoding);
        mn_work_take(search->model, arena, rows, longest, &search->work);
    } else {
        mn_work_take(search->model, arena, rows > extent->positions ? rows : extent->positions, longest, &search->work);
        search->encoding = search->work;
    }
    search->slots = MN_TAKE(arena, mn_slot, search->slot_count);
    search->rows = MN_TAKE(arena, mn_row, rows);
    search->stride = (size_t)mn_most_candidates(search->model, extent->positions, extent->phrase_tokens);
    search->logits = MN_TAKE(arena, float, mn_times(rows, search->stride));
    search->no_repeat_ngram = request->no_repeat_ngram ? request->no_repeat_ngram : search->model->config.no_repeat_ngram;
    search->path = search->no_repeat_ngram ? MN_TAKE(arena, uint32_t, extent->steps) : NULL;
    for (uint32_t i = 0; i < search->slot_count; i++)
        take_slot(search, arenas, extent, arena->data ? search->slots + i : NULL);
    if (arenas[MN_CACHES].used < encoding.used) arenas[MN_CACHES].used = encoding.used;
    search->ids = MN_TAKE(arena, uint32_t *, count);
    search->token_scores = MN_TAKE(arena, float *, count);
    search->alignments = request->alignment ? MN_TAKE(arena, uint32_t *, count) : NULL;
    search->lengths = MN_TAKE(arena, uint32_t, count);
    search->generated = MN_TAKE(arena, uint32_t, count);
    search->scores = MN_TAKE(arena, float, count);
    uint32_t *ids = MN_TAKE(arena, uint32_t, extent->tokens);
    float *scores = MN_TAKE(arena, float, extent->tokens);
    uint32_t *looked = request->alignment ? MN_TAKE(arena, uint32_t, extent->tokens) : NULL;
    if (!arena->data) return;
    size_t place = 0;
    for (uint32_t i = 0; i < count; i++) {
        search->ids[i] = ids + place;
        search->token_scores[i] = scores + place;
        if (looked) search->alignments[i] = looked + place;
        place += request->max_lengths[i / request->n_best] - 1;
    }
}

static void ban_token(mn_slot *slot, uint32_t token)
{
    const uint32_t candidate = mn_candidate_of(&slot->candidates, token);
    if (candidate != MN_NONE) slot->banned[slot->banned_count++] = candidate;
}

/* Its phrases, which are the next of the request's. */
static void take_phrases(mn_search *search, mn_slot *slot, uint32_t sentence)
{
    const uint32_t count = search->request->phrase_counts ? search->request->phrase_counts[sentence] : 0;
    slot->phrases = (mn_phrases){search->phrase_tokens, search->phrase_lengths, count, 0};
    slot->wanted = count ? search->request->n_best : slot->beams;
    if (!count) return; /* there may be no tokens to count from */
    for (uint32_t i = 0; i < count; i++) slot->phrases.total += *search->phrase_lengths++;
    search->phrase_tokens += slot->phrases.total;
    memset(slot->allocation.progress[0], 0, slot->beams * sizeof(mn_progress));
}

/* Where the prefixes of the sentences so far end, `prefixes` is moved to. */
static void start(mn_search *search, mn_slot *slot, uint32_t sentence, const uint32_t *ids, const uint32_t **prefixes)
{
    const mn_model *m = search->model;
    const mn_request *request = search->request;
    slot->sentence = sentence;
    slot->source_length = request->lengths[sentence];
    slot->limit = request->max_lengths[sentence] - 1;
    slot->to_make = m->config.forced_eos == MN_NONE ? slot->limit : slot->limit - 1;
    slot->step = 0;
    slot->prefix = *prefixes;
    slot->prefix_length = request->prefix_lengths ? request->prefix_lengths[sentence] : request->prefix_length;
    if (request->prefix_lengths && slot->prefix_length) *prefixes += slot->prefix_length;
    if (!slot->prefix_length && m->config.forced_bos != MN_NONE) {
        slot->prefix = &m->config.forced_bos;
        slot->prefix_length = 1;
    }
    slot->tables_now = 0;
    take_phrases(search, slot, sentence);
    mn_candidates_choose(m, ids, slot->source_length, slot->phrases.tokens, slot->phrases.total, &slot->candidates);
    slot->banned_count = 0;
    for (uint32_t i = 0; i < m->bad_count; i++) ban_token(slot, mn_u32(m->bad + 4ull * i));
    for (uint32_t i = 0; i < request->forbidden_count; i++) ban_token(slot, request->forbidden[i]);
    mn_encode_source(m, &search->encoding, ids, slot->source_length, &slot->cross);
    if (search->beams > 1)
        for (uint32_t k = 0; k < slot->beams; k++) {
            slot->running[k] = k ? MN_DEAD : 0.0f;
            slot->ended[k] = MN_DEAD;
            slot->tables[k * (MN_ROUND_UP(slot->limit) / MN_LANES)] = (uint16_t)k;
        }
}

static void finish(mn_search *search, mn_slot *slot)
{
    if (search->beams == 1)
        mn_greedy_finish(search, slot);
    else
        mn_beam_finish(search, slot);
    slot->sentence = MN_NONE;
}

static uint32_t add_rows(mn_search *search, mn_slot *slot, uint32_t first)
{
    for (uint32_t k = 0; k < slot->beams; k++) {
        mn_row *row = search->rows + first + k;
        const uint32_t last = slot->step ? slot->history.tokens[(size_t)(slot->step - 1) * slot->beams + k] : 0;
        *row = (mn_row){
            .token = slot->step ? last : search->model->config.start,
            .position = slot->step,
            .cross = &slot->cross,
            .cache = slot->cache,
            .beams = slot->beams,
            .table = slot->tables ? slot->tables + (slot->tables_now * slot->beams + k) * (MN_ROUND_UP(slot->limit) / MN_LANES) : NULL,
            .attention = slot->attention ? slot->attention + k * MN_ROUND_UP(slot->source_length) : NULL,
        };
    }
    return first + slot->beams;
}

static void remember_looks(mn_slot *slot)
{
    const size_t padded = MN_ROUND_UP(slot->source_length);
    for (uint32_t k = 0; k < slot->beams; k++) {
        const float *looked = slot->attention + k * padded;
        uint32_t best = 0;
        for (uint32_t i = 1; i < slot->source_length; i++)
            if (looked[i] > looked[best]) best = i;
        slot->history.looked[(size_t)slot->step * slot->beams + k] = best;
    }
}

static void pad_logits(const mn_slot *slot, float *logits)
{
    for (size_t i = slot->candidates.count; i < MN_ROUND_UP(slot->candidates.count); i++) logits[i] = -INFINITY;
}

static int is_time_to_call(mn_search *search)
{
    const mn_request *request = search->request;
    if (!request->callback) return 0;
    if (!(request->callback_seconds > 0.0)) return 1;
    const double time = now();
    if (time < search->called + request->callback_seconds) return 0;
    search->called = time;
    return 1;
}

/* Weights that are finite can still be too large: a row of which no bytes could be made. */
static int overflows(const mn_work *work, uint32_t rows)
{
    for (uint32_t r = 0; r < rows; r++)
        if (isnan(work->scales[r])) return 1;
    return 0;
}

/* One step of every slot that is at work. */
static mn_status step_all(mn_search *search, mn_error *error)
{
    const mn_model *m = search->model;
    const mn_request *request = search->request;
    const uint32_t beams = search->beams;
    uint32_t count = 0;
    for (uint32_t i = 0; i < search->slot_count; i++)
        if (search->slots[i].sentence != MN_NONE) count = add_rows(search, search->slots + i, count);
    mn_decode_step(m, &search->work, search->rows, count);
    if (overflows(&search->work, count)) return mn_fail(error, MN_ERROR_PACK, "the model's numbers overflow: its weights are damaged");
    const int shared = !m->shortlist.common; /* all rows choose from the same candidates */
    if (shared) mn_logits(m, &search->work, &m->output, 0, count, search->logits, search->stride);
    const int called = is_time_to_call(search);
    uint32_t first = 0;
    for (uint32_t i = 0; i < search->slot_count; i++) {
        mn_slot *slot = search->slots + i;
        if (slot->sentence == MN_NONE) continue;
        float *logits = search->logits + first * search->stride;
        if (!shared) mn_logits(m, &search->work, &slot->candidates.matrix, first, beams, logits, search->stride);
        for (uint32_t k = 0; k < beams; k++) pad_logits(slot, logits + k * search->stride);
        if (slot->attention) remember_looks(slot);
        const uint32_t sentence = slot->sentence;
        const int done = beams == 1 ? mn_greedy_step(search, slot, logits) : mn_beam_step(search, slot, logits);
        const uint32_t token = slot->history.tokens[(size_t)(slot->step - 1) * beams];
        if (done) finish(search, slot);
        if (called && request->callback(request->user, sentence, token)) return mn_fail(error, MN_ERROR_STOPPED, "stopped");
        first += beams;
    }
    return MN_OK;
}

void mn_search_begin(mn_search *search)
{
    const mn_request *request = search->request;
    search->until = request->seconds > 0.0 ? now() + request->seconds : 0.0;
    search->called = request->callback ? now() : 0.0;
    search->next = 0;
    search->next_ids = request->ids;
    search->next_prefix = request->prefix;
    search->phrase_tokens = request->phrases;
    search->phrase_lengths = request->phrase_lengths;
}

/* MN_OK: go on. */
static mn_status look_at_clock(const mn_search *search, double pause, mn_error *error)
{
    const double time = search->until > 0.0 || pause > 0.0 ? now() : 0.0;
    if (search->until > 0.0 && time > search->until) return mn_fail(error, MN_ERROR_DEADLINE, "the time is over");
    return pause > 0.0 && time > pause ? MN_PAUSED : MN_OK;
}

mn_status mn_search_run(mn_search *search, mn_error *error)
{
    const mn_request *request = search->request;
    const double pause = request->pause_seconds > 0.0 ? now() + request->pause_seconds : 0.0;
    for (;;) { /* never a pause before something was done: it would go on for ever */
        uint32_t busy = 0;
        for (uint32_t i = 0; i < search->slot_count; i++) {
            mn_slot *slot = search->slots + i;
            while (slot->sentence == MN_NONE && search->next < request->sentences) {
                start(search, slot, search->next, search->next_ids, &search->next_prefix);
                search->next_ids += request->lengths[search->next++];
                if (!slot->to_make) finish(search, slot); /* nothing but the forced token */
                const mn_status status = look_at_clock(search, pause, error);
                if (status != MN_OK) return status;
            }
            busy += slot->sentence != MN_NONE;
        }
        if (!busy) return MN_OK;
        mn_status status = step_all(search, error);
        if (status == MN_OK) status = look_at_clock(search, pause, error);
        if (status != MN_OK) return status;
    }
}

void mn_path(const mn_slot *slot, uint32_t k, uint32_t count, uint32_t *out)
{
    for (uint32_t step = count; step-- > 0;) {
        const size_t at = (size_t)step * slot->beams + k;
        *out++ = slot->history.tokens[at];
        if (slot->history.parents) k = slot->history.parents[at];
    }
}

void mn_finish_looks(const mn_model *m, uint32_t *looked, uint32_t made, uint32_t length)
{
    if (!m->config.look_later) return;
    for (uint32_t i = 0; i < length && i + 1 < made; i++) looked[i] = looked[i + 1];
}

static int is_among(const uint32_t *tokens, uint32_t count, uint32_t token)
{
    while (count--)
        if (tokens[count] == token) return 1;
    return 0;
}

/* No n-gram twice: what followed an earlier occurrence of the last n - 1 tokens may not come next. The start token
   counts as one, as for transformers. What leads on in a phrase may: it was asked for, perhaps twice. */
static void ban_repeats(const mn_search *search, const mn_slot *slot, uint32_t k, float *scores)
{
    const uint32_t n = search->no_repeat_ngram, made = slot->step; /* this step was counted already */
    uint32_t *path = search->path;
    if (!n || made < n) return;
    mn_path(slot, k, made - 1, path); /* the latest first */
    path[made - 1] = search->model->config.start;
    uint32_t leading[MN_MOST_PHRASES], count = 0;
    if (slot->phrases.count) count = mn_next_of_phrases(&slot->phrases, slot->allocation.progress[0][k], leading);
    for (uint32_t i = 0; i + n - 1 < made; i++) {
        uint32_t same = 0;
        if (is_among(leading, count, path[i])) continue;
        while (same < n - 1 && path[i + 1 + same] == path[same]) same++;
        const uint32_t candidate = same == n - 1 ? mn_candidate_of(&slot->candidates, path[i]) : MN_NONE;
        if (candidate != MN_NONE) scores[candidate] = -INFINITY;
    }
}

void mn_ban(const mn_search *search, const mn_slot *slot, uint32_t k, float *scores)
{
    for (uint32_t i = 0; i < slot->banned_count; i++) scores[slot->banned[i]] = -INFINITY;
    if (slot->step == slot->prefix_length + 1) /* this step was counted already */
        for (uint32_t i = 0; i < search->model->not_first_count; i++) {
            const uint32_t candidate = mn_candidate_of(&slot->candidates, mn_u32(search->model->not_first + 4ull * i));
            if (candidate != MN_NONE) scores[candidate] = -INFINITY;
        }
    /* so many tokens there are, the start token counted */
    if (slot->step < search->request->min_length || slot->step < search->model->config.min_length) {
        const uint32_t end = mn_candidate_of(&slot->candidates, search->model->config.eos);
        if (end != MN_NONE) scores[end] = -INFINITY;
    }
    ban_repeats(search, slot, k, scores);
}

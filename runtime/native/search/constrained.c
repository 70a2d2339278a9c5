/* A step of a beam whose hypotheses have to hold phrases. Without phrases it would be the step of beam.c: one bank that
   has the whole beam. */

#include <math.h>

#include "search/search.h"

static void forbid(const mn_search *search, const mn_slot *slot, const mn_progress *at, float *scores)
{
    if (at->tokens < slot->phrases.total) {
        const uint32_t end = mn_candidate_of(&slot->candidates, search->model->config.eos);
        if (end != MN_NONE) scores[end] = -INFINITY;
    }
    const uint8_t *continuing = search->request->continuing;
    if (at->ended && continuing)
        for (uint32_t i = 0; i < slot->candidates.count; i++)
            if (continuing[mn_token_of(&slot->candidates, i)]) scores[i] = -INFINITY;
}

static void add(const mn_search *search, mn_slot *slot, float score, uint32_t parent, uint32_t candidate)
{
    mn_allocation *room = &slot->allocation;
    if (!(score > MN_DEAD / 2)) return;
    const uint32_t token = mn_token_of(&slot->candidates, candidate);
    mn_continuation one = {score, parent, candidate, token, room->progress[0][parent]};
    if (token != search->model->config.eos) one.progress = mn_advance(&slot->phrases, one.progress, token);
    mn_pool(room, one);
}

/* All that may go on: the best of all, and of each hypothesis its best and what leads on in a phrase. */
static void fill_pool(const mn_search *search, mn_slot *slot, const float *scores)
{
    const uint32_t beams = slot->beams;
    const size_t n = MN_ROUND_UP(slot->candidates.count);
    float best[2 * MN_MOST_BEAMS];
    uint32_t candidates[2 * MN_MOST_BEAMS], next[MN_MOST_PHRASES];
    uint16_t parents[2 * MN_MOST_BEAMS];
    slot->allocation.pooled = 0;
    uint32_t found = mn_best(search->model->kernels, scores, beams, n, search->stride, 2 * beams, best, candidates, parents);
    for (uint32_t i = 0; i < found; i++) add(search, slot, best[i], parents[i], candidates[i]);
    for (uint32_t k = 0; k < beams; k++) {
        const float *row = scores + k * search->stride;
        if (mn_best(search->model->kernels, row, 1, n, search->stride, 1, best, candidates, parents))
            add(search, slot, best[0], k, candidates[0]);
        found = mn_next_of_phrases(&slot->phrases, slot->allocation.progress[0][k], next);
        for (uint32_t i = 0; i < found; i++) {
            const uint32_t candidate = mn_candidate_of(&slot->candidates, next[i]);
            if (candidate != MN_NONE) add(search, slot, row[candidate], k, candidate);
        }
    }
}

void mn_constrained_step(mn_search *search, mn_slot *slot, float *logits, uint32_t *tokens, uint16_t *parents,
                         const mn_endings *endings)
{
    mn_allocation *room = &slot->allocation;
    const uint32_t beams = slot->beams, eos = search->model->config.eos, last = slot->phrases.total;
    for (uint32_t k = 0; k < beams; k++) {
        mn_log_probabilities(search, slot, logits + k * search->stride, k);
        forbid(search, slot, room->progress[0] + k, logits + k * search->stride);
    }
    fill_pool(search, slot, logits);
    memset(room->there, 0, (last + 1) * sizeof(uint32_t));
    for (uint32_t i = 0; i < room->pooled; i++)
        if (room->pool[i].token != eos) room->there[room->pool[i].progress.tokens]++;
    mn_share(room->there, last + 1, beams, room->share);
    const uint32_t may_end = room->share[last] ? room->share[last] : 1;
    const float norm = mn_power(slot->step, search->request->length_penalty); /* this step was counted already */
    uint32_t going = 0, whole = 0, ended = 0;
    for (uint32_t i = 0; i < room->pooled; i++) {
        const mn_continuation *one = room->pool + i;
        const uint32_t bank = one->progress.tokens, rank = bank == last ? whole++ : 0;
        if (one->token == eos) {
            if (rank >= may_end) continue;
            mn_insert_ended(slot, one->score / norm);
        } else {
            if (!room->share[bank]) continue;
            room->share[bank]--;
            slot->running[going] = one->score;
            tokens[going] = one->token;
            parents[going] = (uint16_t)one->parent;
            room->progress[1][going++] = one->progress;
        }
        if (bank == last && ended < 2 * beams) {
            endings->scores[ended] = one->score;
            endings->tokens[ended] = one->token;
            endings->parents[ended++] = (uint16_t)one->parent;
        }
    }
    for (; going < beams; going++) { /* nothing else is allowed */
        slot->running[going] = MN_DEAD;
        tokens[going] = eos;
        parents[going] = 0;
        room->progress[1][going] = (mn_progress){0};
    }
    mn_progress *behind = room->progress[1];
    room->progress[1] = room->progress[0];
    room->progress[0] = behind;
}

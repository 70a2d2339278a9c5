/* Beam search as transformers' generate does it (4.57): a hypothesis that ends leaves the beam, and the search is over
   when no running one can beat the worst of the best that ended. */

#include <math.h>

#include "search/search.h"

/* The `most` greatest of several rows of scores, each n long and `stride` apart, best first; the first of equal ones
   first. Fewer if the rest is -inf. */
static uint32_t choose(const mn_kernel_set *kernels, const float *scores, uint32_t rows, size_t n, size_t stride,
                       uint32_t most, float *best, uint32_t *candidates, uint16_t *parents)
{
    uint32_t found = 0;
    for (uint32_t row = 0; row < rows; row++) {
        const float *x = scores + row * stride;
        float bound = found == most ? best[most - 1] : -INFINITY;
        for (size_t i = 0; (i = kernels->next_above(x, n, i, bound)) < n; i++) {
            uint32_t place = found < most ? found++ : most - 1;
            for (; place && best[place - 1] < x[i]; place--) {
                best[place] = best[place - 1];
                candidates[place] = candidates[place - 1];
                parents[place] = parents[place - 1];
            }
            best[place] = x[i];
            candidates[place] = (uint32_t)i;
            parents[place] = (uint16_t)row;
            if (found == most) bound = best[most - 1];
        }
    }
    return found;
}

/* (generated tokens)^penalty of the best that a hypothesis may still become. */
static float bound_norm(const mn_search *search, const mn_slot *slot, uint32_t made)
{
    const float penalty = search->request->length_penalty;
    const int longest = search->model->config.early_stopping == MN_EARLY_NEVER && penalty > 0.0f;
    return mn_power(longest ? slot->limit : made, penalty);
}

static int improvable(const mn_search *search, const mn_slot *slot, uint32_t made)
{
    const float worst = slot->ended[slot->beams - 1];
    if (!(slot->running[0] / bound_norm(search, slot, made) > worst)) return 0;
    return search->model->config.early_stopping != MN_EARLY_TRUE || worst < MN_DEAD / 2;
}

static void insert_ended(mn_slot *slot, float score)
{
    if (!(score > slot->ended[slot->beams - 1])) return;
    uint32_t place = slot->beams - 1;
    for (; place && slot->ended[place - 1] < score; place--) slot->ended[place] = slot->ended[place - 1];
    slot->ended[place] = score;
}

static void log_probabilities(mn_search *search, mn_slot *slot, float *logits, uint32_t k)
{
    const mn_kernel_set *kernels = search->model->kernels;
    const size_t n = MN_ROUND_UP(slot->candidates.count);
    float greatest;
    float sum = kernels->log_sum(logits, n, &greatest);
    if (!search->model->config.renormalize) {
        kernels->shift(logits, n, greatest, sum, slot->running[k]);
        mn_ban(search, slot, k, logits);
        return;
    }
    kernels->shift(logits, n, greatest, sum, 0.0f);
    mn_ban(search, slot, k, logits);
    sum = kernels->log_sum(logits, n, &greatest);
    if (greatest > -INFINITY) kernels->shift(logits, n, greatest, sum, slot->running[k]);
}

/* Every hypothesis takes over its parent's pages. Full ones are shared. The one that is being filled goes to the parent's
   first child; the others get copies, in the places of those that nobody continues. */
static void follow(const mn_model *m, mn_slot *slot, const uint16_t *parents)
{
    const size_t blocks = MN_ROUND_UP(slot->limit) / MN_LANES, now = slot->step / MN_LANES, beams = slot->beams;
    const size_t bytes = m->config.decoder_layers * mn_page_bytes(m);
    const uint16_t *before = slot->tables + slot->tables_now * beams * blocks;
    slot->tables_now ^= 1;
    uint16_t *table = slot->tables + slot->tables_now * beams * blocks;
    for (size_t k = 0; k < beams; k++) memcpy(table + k * blocks, before + parents[k] * blocks, (now + 1) * sizeof *table);
    if (slot->step % MN_LANES == 0) {
        for (size_t k = 0; k < beams; k++) table[k * blocks + now] = (uint16_t)k;
        return;
    }
    uint8_t *leaves = slot->cache + now * beams * bytes, used[MN_MOST_BEAMS] = {0}, taken[MN_MOST_BEAMS] = {0};
    uint16_t free_leaf = 0;
    for (size_t k = 0; k < beams; k++) used[table[k * blocks + now]] = 1;
    for (size_t k = 0; k < beams; k++) {
        uint16_t *leaf = table + k * blocks + now;
        if (!taken[*leaf]) {
            taken[*leaf] = 1;
            continue;
        }
        while (used[free_leaf]) free_leaf++;
        memcpy(leaves + free_leaf * bytes, leaves + *leaf * bytes, bytes);
        *leaf = free_leaf++;
    }
}

int mn_beam_step(mn_search *search, mn_slot *slot, float *logits)
{
    const uint32_t beams = slot->beams, step = slot->step++, eos = search->model->config.eos;
    mn_history *history = &slot->history;
    uint32_t *tokens = history->tokens + (size_t)step * beams;
    uint16_t *parents = history->parents + (size_t)step * beams;
    float *best = history->best_scores + (size_t)step * 2 * beams;
    uint32_t *best_tokens = history->best_tokens + (size_t)step * 2 * beams;
    uint16_t *best_parents = history->best_parents + (size_t)step * 2 * beams;
    for (uint32_t i = 0; i < 2 * beams; i++) best[i] = -INFINITY;
    if (step < slot->prefix_length) {
        for (uint32_t k = 0; k < beams; k++) {
            tokens[k] = slot->prefix[step];
            parents[k] = (uint16_t)k;
        }
        best[0] = 0.0f; /* the prefix may be all there is room for */
        best_tokens[0] = tokens[0];
        best_parents[0] = 0;
    } else {
        for (uint32_t k = 0; k < beams; k++) log_probabilities(search, slot, logits + k * search->stride, k);
        const uint32_t found = choose(search->model->kernels, logits, beams, MN_ROUND_UP(slot->candidates.count),
                                      search->stride, 2 * beams, best, best_tokens, best_parents);
        const float norm = mn_power(step + 1, search->request->length_penalty);
        uint32_t going = 0;
        for (uint32_t i = 0; i < found; i++) {
            best_tokens[i] = mn_token_of(&slot->candidates, best_tokens[i]);
            if (best_tokens[i] == eos) {
                if (i < beams) insert_ended(slot, best[i] / norm);
            } else if (going < beams) {
                slot->running[going] = best[i];
                tokens[going] = best_tokens[i];
                parents[going++] = best_parents[i];
            }
        }
        for (; going < beams; going++) { /* nothing else is allowed */
            slot->running[going] = MN_DEAD;
            tokens[going] = eos;
            parents[going] = 0;
        }
    }
    memcpy(history->running + (size_t)step * beams, slot->running, beams * sizeof(float));
    if (slot->step == slot->to_make) return 1;
    if (step >= slot->prefix_length && !improvable(search, slot, slot->step)) return 1;
    follow(search->model, slot, parents);
    return 0;
}

/* A hypothesis that ended: with `token` at `step`, after hypothesis `parent` of the step before. */
typedef struct ending {
    float score, sum;
    uint32_t step, token, parent;
} ending;

static void write_result(mn_search *search, const mn_slot *slot, uint32_t place, const ending *end)
{
    const mn_history *history = &slot->history;
    const uint32_t beams = slot->beams, made = end->step + 1;
    const uint32_t length = made - (end->token == search->model->config.eos);
    search->scores[place] = end->score;
    search->generated[place] = made;
    search->lengths[place] = length;
    uint32_t k = end->parent, token = end->token;
    float sum = end->sum;
    for (uint32_t step = end->step + 1; step-- > 0;) { /* k is the row that chose `token` in this step */
        const size_t before = step ? (size_t)(step - 1) * beams + k : 0;
        const float until = step ? history->running[before] : 0.0f;
        search->token_scores[place][step] = sum - until;
        if (step < length) search->ids[place][step] = token;
        if (history->looked) { /* where a last token is forced there was no step */
            const uint32_t last = step < slot->step || !step ? step : step - 1;
            const uint32_t row = last < step ? history->parents[(size_t)last * beams + k] : k;
            search->alignments[place][step] = slot->step ? history->looked[(size_t)last * beams + row] : 0;
        }
        if (!step) break;
        token = history->tokens[before];
        k = history->parents[before];
        sum = until;
    }
    if (history->looked) mn_finish_looks(search->model, search->alignments[place], made, length);
}

/* Keep it if it is among the `wanted` best; of equal ones the first stays in front. */
static void offer(ending *best, uint32_t *found, uint32_t wanted, ending one)
{
    uint32_t place = *found;
    if (place < wanted)
        ++*found;
    else if (!(one.score > best[--place].score))
        return;
    for (; place && best[place - 1].score < one.score; place--) best[place] = best[place - 1];
    best[place] = one;
}

void mn_beam_finish(mn_search *search, mn_slot *slot)
{
    const mn_config *c = &search->model->config;
    const mn_history *history = &slot->history;
    const uint32_t beams = slot->beams, made = slot->step, wanted = search->request->n_best;
    const float penalty = search->request->length_penalty;
    ending best[MN_MOST_BEAMS];
    uint32_t found = 0;
    for (uint32_t step = 0; step < made; step++) {
        const float norm = mn_power(step + 1, penalty);
        const int at_limit = c->forced_eos == MN_NONE && step + 1 == slot->limit;
        for (uint32_t i = 0; i < beams; i++) {
            const size_t at = (size_t)step * 2 * beams + i;
            const float score = history->best_scores[at];
            if (score > -INFINITY && (at_limit || history->best_tokens[at] == c->eos))
                offer(best, &found, wanted, (ending){score / norm, score, step, history->best_tokens[at], history->best_parents[at]});
        }
    }
    if (c->forced_eos != MN_NONE && made + 1 == slot->limit && (!made || improvable(search, slot, made))) {
        const float norm = mn_power(slot->limit, penalty);
        for (uint32_t k = 0; k < beams; k++)
            offer(best, &found, wanted, (ending){slot->running[k] / norm, slot->running[k], made, c->forced_eos, k});
    }
    if (!found) best[found++] = (ending){-INFINITY, -INFINITY, 0, c->eos, 0}; /* nothing was allowed */
    for (uint32_t i = 0; i < wanted; i++)
        write_result(search, slot, slot->sentence * wanted + i, best + (i < found ? i : found - 1));
}

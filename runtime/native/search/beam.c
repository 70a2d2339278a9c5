/* Beam search as transformers' generate does it (4.57): a hypothesis that ends leaves the beam, and the search is over
   when no running one can beat the worst of the best that ended. */

#include <math.h>

#include "search/search.h"

uint32_t mn_best(const mn_kernel_set *kernels, const float *scores, uint32_t rows, size_t n, size_t stride, uint32_t most,
                 float *best, uint32_t *candidates, uint16_t *parents)
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
    const float worst = slot->ended[slot->wanted - 1];
    if (!(slot->running[0] / bound_norm(search, slot, made) > worst)) return 0;
    return search->model->config.early_stopping != MN_EARLY_TRUE || worst < MN_DEAD / 2;
}

void mn_insert_ended(mn_slot *slot, float score)
{
    if (!(score > slot->ended[slot->wanted - 1])) return;
    uint32_t place = slot->wanted - 1;
    for (; place && slot->ended[place - 1] < score; place--) slot->ended[place] = slot->ended[place - 1];
    slot->ended[place] = score;
}

void mn_log_probabilities(mn_search *search, mn_slot *slot, float *logits, uint32_t k)
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
            if (slot->phrases.count) { /* what the prefix holds is held */
                mn_progress *at = slot->allocation.progress[0] + k;
                *at = mn_advance(&slot->phrases, *at, tokens[k]);
            }
        }
        best[0] = 0.0f; /* the prefix may be all there is room for */
        best_tokens[0] = tokens[0];
        best_parents[0] = 0;
    } else if (slot->phrases.count) {
        mn_constrained_step(search, slot, logits, tokens, parents, &(mn_endings){best, best_tokens, best_parents});
    } else {
        for (uint32_t k = 0; k < beams; k++) mn_log_probabilities(search, slot, logits + k * search->stride, k);
        const uint32_t found = mn_best(search->model->kernels, logits, beams, MN_ROUND_UP(slot->candidates.count),
                                       search->stride, 2 * beams, best, best_tokens, best_parents);
        const float norm = mn_power(step + 1, search->request->length_penalty);
        uint32_t going = 0;
        for (uint32_t i = 0; i < found; i++) {
            best_tokens[i] = mn_token_of(&slot->candidates, best_tokens[i]);
            if (best_tokens[i] == eos) {
                if (i < beams) mn_insert_ended(slot, best[i] / norm);
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

static int is_whole(const mn_slot *slot, uint32_t k)
{
    return slot->running[k] > MN_DEAD / 2 && slot->allocation.progress[0][k].tokens == slot->phrases.total;
}

/* Where no hypothesis holds all phrases: those that hold the most tokens of them. */
static uint32_t take_incomplete(const mn_slot *slot, uint32_t wanted, float norm, uint32_t forced, ending *best)
{
    const mn_history *history = &slot->history;
    const mn_progress *progress = slot->allocation.progress[0];
    const uint32_t last = slot->step - 1;
    uint32_t found = 0, most = 0;
    for (uint32_t k = 0; k < slot->beams; k++)
        if (slot->running[k] > MN_DEAD / 2 && progress[k].tokens > most) most = progress[k].tokens;
    for (uint32_t k = 0; k < slot->beams; k++) {
        const size_t at = (size_t)last * slot->beams + k;
        const float score = slot->running[k];
        if (!(score > MN_DEAD / 2) || progress[k].tokens < most) continue;
        offer(best, &found, wanted, forced == MN_NONE ? (ending){score / norm, score, last, history->tokens[at], history->parents[at]}
                                                      : (ending){score / norm, score, slot->step, forced, k});
    }
    return found;
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
        for (uint32_t i = 0; i < (slot->phrases.count ? 2 * beams : beams); i++) {
            const size_t at = (size_t)step * 2 * beams + i;
            const float score = history->best_scores[at];
            if (score > -INFINITY && (at_limit || history->best_tokens[at] == c->eos))
                offer(best, &found, wanted, (ending){score / norm, score, step, history->best_tokens[at], history->best_parents[at]});
        }
    }
    if (c->forced_eos != MN_NONE && made + 1 == slot->limit && (!made || improvable(search, slot, made))) {
        const float norm = mn_power(slot->limit, penalty);
        for (uint32_t k = 0; k < beams; k++)
            if (!slot->phrases.count || is_whole(slot, k))
                offer(best, &found, wanted, (ending){slot->running[k] / norm, slot->running[k], made, c->forced_eos, k});
    }
    if (!found && slot->phrases.count && made) {
        const int at_limit = c->forced_eos != MN_NONE && made + 1 == slot->limit;
        found = take_incomplete(slot, wanted, mn_power(made + at_limit, penalty), at_limit ? c->forced_eos : MN_NONE, best);
    }
    if (!found) best[found++] = (ending){-INFINITY, -INFINITY, 0, c->eos, 0}; /* nothing was allowed */
    for (uint32_t i = 0; i < wanted; i++)
        write_result(search, slot, slot->sentence * wanted + i, best + (i < found ? i : found - 1));
}

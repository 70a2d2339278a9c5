/* Greedy search: the likeliest candidate of each step. */

#include <math.h>

#include "search/search.h"

int mn_greedy_step(mn_search *search, mn_slot *slot, float *logits)
{
    const mn_model *m = search->model;
    mn_history *history = &slot->history;
    const uint32_t step = slot->step++;
    if (step < slot->prefix_length) {
        history->tokens[step] = slot->prefix[step];
        history->running[step] = 0.0f;
    } else {
        mn_ban(search, slot, 0, logits);
        const size_t padded = MN_ROUND_UP(slot->candidates.count);
        float greatest;
        const float sum = m->kernels->log_sum(logits, padded, &greatest);
        if (greatest > -INFINITY) {
            size_t best = 0;
            while (best + 1 < slot->candidates.count && logits[best] != greatest) best++;
            history->tokens[step] = mn_token_of(&slot->candidates, (uint32_t)best);
            history->running[step] = 0.0f - sum; /* not -0 */
        } else { /* nothing is allowed */
            history->tokens[step] = m->config.eos;
            history->running[step] = -INFINITY;
        }
    }
    return history->tokens[step] == m->config.eos || slot->step == slot->to_make;
}

void mn_greedy_finish(mn_search *search, mn_slot *slot)
{
    const mn_config *c = &search->model->config;
    mn_history *history = &slot->history;
    uint32_t made = slot->step;
    if (made < slot->limit && (!made || history->tokens[made - 1] != c->eos)) { /* the step that need not be made */
        history->tokens[made] = c->forced_eos;
        history->running[made] = 0.0f;
        if (history->looked) history->looked[made] = made ? history->looked[made - 1] : 0;
        made++;
    }
    float sum = 0.0f;
    for (uint32_t i = 0; i < made; i++) sum += history->running[i];
    const uint32_t length = made - (history->tokens[made - 1] == c->eos), place = slot->sentence;
    search->lengths[place] = length;
    search->generated[place] = made;
    search->scores[place] = sum / mn_power(made, search->request->length_penalty);
    memcpy(search->ids[place], history->tokens, length * sizeof(uint32_t));
    memcpy(search->token_scores[place], history->running, made * sizeof(float));
    if (!history->looked) return;
    memcpy(search->alignments[place], history->looked, made * sizeof(uint32_t));
    mn_finish_looks(search->model, search->alignments[place], made, length);
}

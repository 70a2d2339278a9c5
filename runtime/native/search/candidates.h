/* Which target tokens a sentence may become: all, or with a shortlist those that its source suggests. */

#ifndef MN_CANDIDATES_H
#define MN_CANDIDATES_H

#include "model.h"

typedef struct mn_candidates {
    mn_matrix matrix; /* their rows of the output layer; made for each sentence where there is a shortlist */
    int8_t *weights; /* or, where the table is fp32, */
    float *floats;
    uint8_t *rows; /* [16][width], of 4 bits, while a block is made */
    float *scale, *bias;
    int32_t *sums;
    uint8_t *chosen;  /* [target vocabulary], while they are collected */
    uint32_t *tokens; /* [count], ascending; NULL: candidate i is token i */
    uint32_t count;
} mn_candidates;

/* Room for sentences of `positions` source tokens, and so many tokens more. */
void mn_candidates_take(const mn_model *model, mn_arena *arena, uint64_t positions, uint64_t more, mn_candidates *candidates);

/* The most candidates that such a sentence may have, rounded up to 16. */
uint64_t mn_most_candidates(const mn_model *model, uint64_t positions, uint64_t more);

/* Collect those of a source of `count` ids, and `extra` tokens. */
void mn_candidates_choose(const mn_model *model, const uint32_t *ids, uint32_t count, const uint32_t *extra,
                          uint32_t extra_count, mn_candidates *candidates);

/* Which candidate a token is; MN_NONE if none. */
uint32_t mn_candidate_of(const mn_candidates *candidates, uint32_t token);

static inline uint32_t mn_token_of(const mn_candidates *candidates, uint32_t candidate)
{
    return candidates->tokens ? candidates->tokens[candidate] : candidate;
}

#endif

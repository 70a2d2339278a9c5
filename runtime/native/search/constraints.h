/* Phrases that a translation has to hold, word for word: beam search with dynamic beam allocation (Post and Vilar 2018;
   Hu et al. 2019). A hypothesis knows which phrases it holds and how far it is into one; the beam is divided among
   banks of hypotheses that hold equally many tokens of phrases, so that those that pay for a phrase are not crowded out;
   and only one that holds all may end. */

#ifndef MN_CONSTRAINTS_H
#define MN_CONSTRAINTS_H

#include "model.h"

#define MN_MOST_PHRASES 64

/* Those of a sentence. */
typedef struct mn_phrases {
    const uint32_t *tokens;  /* one phrase after the other */
    const uint32_t *lengths; /* [count] */
    uint32_t count, total;   /* phrases, and their tokens */
} mn_phrases;

/* How far a hypothesis is. */
typedef struct mn_progress {
    uint64_t held; /* a bit for each phrase */
    uint32_t phrase, length; /* its last `length` tokens are the first of this phrase, which it does not hold yet */
    uint32_t tokens; /* of phrases, those of the one it is in counted: the number of its bank */
    uint32_t ended;  /* its last token ended a phrase */
} mn_progress;

/* A continuation: of the hypothesis in row `parent`, with a candidate. */
typedef struct mn_continuation {
    float score;
    uint32_t parent, candidate, token;
    mn_progress progress;
} mn_continuation;

/* Room for a step. */
typedef struct mn_allocation {
    mn_progress *progress[2]; /* [beams]: now, and behind the step */
    mn_continuation *pool;    /* those to choose from, best first */
    uint32_t pooled;
    uint32_t *there, *share; /* [banks]: continuations, and places in the beam */
} mn_allocation;

/* The most continuations that a step of so many beams may have to choose from. */
static inline uint64_t mn_most_pooled(uint64_t beams, uint64_t phrases)
{
    return mn_times(beams, mn_plus(3, phrases));
}

/* How far a hypothesis is behind one token more. */
mn_progress mn_advance(const mn_phrases *phrases, mn_progress before, uint32_t token);

/* The tokens that lead on in a phrase, each once, into `next` of MN_MOST_PHRASES; their number. */
uint32_t mn_next_of_phrases(const mn_phrases *phrases, mn_progress at, uint32_t *next);

/* Divide `beams` places among banks. */
void mn_share(const uint32_t *there, uint32_t banks, uint32_t beams, uint32_t *share);

/* Put a continuation in its place in the pool; once only. */
void mn_pool(mn_allocation *room, mn_continuation one);

#endif

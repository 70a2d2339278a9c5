/* The search for what comes out: sentences take slots, each slot has as many rows in a step as the beam is wide, and a
   slot whose sentence is done takes the next one. */

#ifndef MN_SEARCH_H
#define MN_SEARCH_H

#include "search/candidates.h"
#include "search/constraints.h"
#include "layers.h"

#define MN_MOST_BEAMS 64
#define MN_DEAD -1.0e9f /* the score transformers gives to a hypothesis that may not be chosen */

/* What a search went through; step s, hypothesis k is number s * beams + k. */
typedef struct mn_history {
    uint32_t *tokens;       /* [steps][beams], those that went on */
    uint16_t *parents;      /* [steps][beams] */
    float *running;         /* [steps][beams], their scores after the step */
    uint32_t *looked;       /* [steps][beams], the source position row k looked at in this step */
    uint32_t *best_tokens;  /* [steps][2 * beams], the best continuations, ended ones too; with phrases those that hold all */
    uint16_t *best_parents; /* likewise */
    float *best_scores;     /* likewise */
} mn_history;

typedef struct mn_slot {
    uint32_t sentence; /* MN_NONE: free */
    uint32_t source_length;
    uint32_t limit;    /* tokens to generate at most */
    uint32_t to_make;  /* steps at most: one less where the last token is forced */
    uint32_t step;
    uint32_t beams;
    mn_cross cross;
    mn_candidates candidates;
    const uint32_t *prefix; /* tokens that its outputs begin with */
    uint32_t prefix_length;
    uint32_t *banned; /* candidates that are never chosen */
    uint32_t banned_count;
    uint8_t *cache;
    float *attention; /* [beams][positions rounded up to 16], or NULL */
    mn_history history;
    float *running, *ended;   /* [beams] */
    uint32_t wanted;          /* ended hypotheses that the search looks for: the first so many of `ended` */
    mn_phrases phrases;       /* that its outputs have to hold */
    mn_allocation allocation;
    uint16_t *tables;         /* [2][beams][steps / 16 rounded up]: which beam's pages each has */
    uint32_t tables_now;      /* which of the two */
} mn_slot;

/* Memory of a call: what is used from end to end; and two that are as large as it might come to, of which only the first
   part is ever touched: keys and values up to the longest translation, and rows of the most candidates. In one buffer
   they would begin elsewhere in every call, and touch all of its pages in time. */
typedef enum mn_buffer { MN_USED, MN_CACHES, MN_CANDIDATES, MN_BUFFERS } mn_buffer;

/* All of one call. */
typedef struct mn_search {
    const mn_model *model;
    const mn_request *request;
    mn_work work, encoding;
    mn_slot *slots;
    uint32_t slot_count, beams;
    mn_row *rows;
    const uint32_t *phrase_tokens, *phrase_lengths; /* of the sentences that have not begun */
    float *logits;      /* [rows][stride] */
    size_t stride;
    double called; /* when the callback was called last */
    double until;  /* when the time is over; 0: never */
    uint32_t next; /* sentence to start, and where its source and its prefix lie */
    const uint32_t *next_ids, *next_prefix;
    uint32_t no_repeat_ngram;
    uint32_t *path; /* [steps], for the rule about n-grams: the start token and all but the last of the others */
    /* results, number s * n_best + h */
    uint32_t **ids, **alignments;
    float **token_scores;
    uint32_t *lengths, *generated;
    float *scores;
} mn_search;

/* What is possible for this request at most. */
typedef struct mn_extent {
    uint64_t positions; /* of the longest source */
    uint64_t steps;     /* of the longest output */
    uint64_t tokens;    /* outputs altogether */
    uint64_t phrases, phrase_tokens; /* of one sentence */
} mn_extent;

void mn_search_take(mn_arena arenas[MN_BUFFERS], const mn_extent *extent, mn_search *search);

/* Once, before the first mn_search_run. */
void mn_search_begin(mn_search *search);

/* MN_PAUSED where the request wants pauses: the next call goes on. */
mn_status mn_search_run(mn_search *search, mn_error *error);

/* How each kind of search ends a step and a sentence: `logits` are those of the slot's rows. 1 if the slot is done. */
int mn_greedy_step(mn_search *search, mn_slot *slot, float *logits);
void mn_greedy_finish(mn_search *search, mn_slot *slot);
int mn_beam_step(mn_search *search, mn_slot *slot, float *logits);
void mn_beam_finish(mn_search *search, mn_slot *slot);

/* The same for a slot with phrases: which tokens go on in each row, and what ends or might, were this the last step. */
typedef struct mn_endings {
    float *scores; /* [2 * beams] each; -inf for none */
    uint32_t *tokens;
    uint16_t *parents;
} mn_endings;
void mn_constrained_step(mn_search *search, mn_slot *slot, float *logits, uint32_t *tokens, uint16_t *parents,
                         const mn_endings *endings);

/* Of both beams: logits of hypothesis k to scores of its continuations. */
void mn_log_probabilities(mn_search *search, mn_slot *slot, float *logits, uint32_t k);

/* The `most` greatest of several rows of scores, each n long and `stride` apart, best first; the first of equal ones
   first. Fewer if the rest is -inf. */
uint32_t mn_best(const mn_kernel_set *kernels, const float *scores, uint32_t rows, size_t n, size_t stride, uint32_t most,
                 float *best, uint32_t *candidates, uint16_t *parents);

/* A hypothesis that ended, among the best so far. */
void mn_insert_ended(mn_slot *slot, float score);

/* Shared by all: mark what may not come next for hypothesis k, whose scores these are. */
void mn_ban(const mn_search *search, const mn_slot *slot, uint32_t k, float *scores);

/* The tokens of hypothesis k after `count` steps, latest first, into `out`. */
void mn_path(const mn_slot *slot, uint32_t k, uint32_t count, uint32_t *out);

/* What the row of each of `made` steps looked at, to what each of its `length` tokens looks at, in place. */
void mn_finish_looks(const mn_model *model, uint32_t *looked, uint32_t made, uint32_t length);

/* base^exponent for base >= 1, the same on every processor. */
float mn_power(uint32_t base, float exponent);

#endif

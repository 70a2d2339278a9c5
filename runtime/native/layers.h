/* Encoder and decoder: rows of floats in, rows of floats out. */

#ifndef MN_LAYERS_H
#define MN_LAYERS_H

#include "model.h"

/* Room for the values between layers, for `rows` rows at a time and sentences of `positions`. */
typedef struct mn_work {
    float *state;  /* [rows][width]: what a layer takes and gives */
    float *normal; /* [rows][width]: what it takes after a norm, in pre-norm models */
    float *branch; /* [rows][width]: what is added */
    float *wide;   /* [rows][most of 3 * inner, hidden] */
    float *inner;  /* [rows][inner] */
    float *scores; /* [4][positions rounded up to 16] */
    uint8_t *looks; /* bytes of queries and weights: kernels.h, `attend` */
    uint8_t *bytes;
    float *scales; /* [rows] */
    uint8_t *kept; /* the encoder's keys and values of one layer: pages */
    const uint8_t **pages;
} mn_work;

void mn_work_take(const mn_model *model, mn_arena *arena, uint64_t rows, uint64_t positions, mn_work *work);

/* Bytes of a page of a decoder layer. */
static inline size_t mn_page_bytes(const mn_model *m) { return m->config.decoder_heads * MN_PAGE_HEAD(m->decoder_head); }

/* Keys and values of one source sentence for every decoder layer: pages, [layers][count / 16 rounded up]. */
typedef struct mn_cross {
    uint8_t *pages;
    uint32_t count;
} mn_cross;

void mn_cross_take(const mn_model *model, mn_arena *arena, uint64_t positions, mn_cross *cross);

/* Encode `count` ids, at most as many as `work` has rows and `cross` has positions. */
void mn_encode_source(const mn_model *model, mn_work *work, const uint32_t *ids, uint32_t count, mn_cross *cross);

/* One hypothesis in a step. */
typedef struct mn_row {
    uint32_t token;
    uint32_t position; /* steps before this one */
    const mn_cross *cross;
    uint8_t *cache;        /* pages, [steps / 16 rounded up][beams][layers] */
    uint32_t beams;
    const uint16_t *table; /* [steps / 16 rounded up]: which beam's pages it has; NULL if there is one */
    float *attention;            /* [count rounded up to 16]: where it looked, by the heads of the alignment, or NULL */
} mn_row;

/* A step of `count` rows; work->state holds what the output layer takes, work->bytes and scales the same quantized. */
void mn_decode_step(const mn_model *model, mn_work *work, const mn_row *rows, uint32_t count);

/* Logits of `count` of these rows from row `first` on, `stride` floats apart. */
void mn_logits(const mn_model *model, const mn_work *work, const mn_matrix *output, uint32_t first, uint32_t count,
               float *logits, size_t stride);

#endif

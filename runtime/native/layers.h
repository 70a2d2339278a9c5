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
    float *keys;   /* the encoder's keys of one head */
    float *scores; /* [most of 4, decoder heads][positions rounded up to 16] */
    uint8_t *bytes;
    float *scales; /* [rows] */
    const float **key_rows, **value_rows;
} mn_work;

void mn_work_take(const mn_model *model, mn_arena *arena, uint64_t rows, uint64_t positions, mn_work *work);

/* Keys and values of one source sentence for every decoder layer: for each layer `key_size` floats, heads one after the
   other as mn_memory has them, and [count][inner] values. */
typedef struct mn_cross {
    float *keys, *values;
    size_t key_size;
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
    float *cache;                /* [layers][steps][beams][2][inner] */
    uint32_t steps, beams, beam; /* of the cache; where this step's keys and values go */
    const uint16_t *ancestors;   /* [position]: which beam it continues at each step before; NULL if there is one */
    float *attention;            /* [count rounded up to 16]: where it looked, by the heads of the alignment, or NULL */
} mn_row;

/* A step of `count` rows; work->state holds what the output layer takes, work->bytes and scales the same quantized. */
void mn_decode_step(const mn_model *model, mn_work *work, const mn_row *rows, uint32_t count);

/* Logits of `count` of these rows from row `first` on, `stride` floats apart. */
void mn_logits(const mn_model *model, const mn_work *work, const mn_matrix *output, uint32_t first, uint32_t count,
               float *logits, size_t stride);

#endif

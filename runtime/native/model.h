/* A model as it is after opening: the configuration, and where each layer's weights are. Nothing here is ever written
   to again. */

#ifndef MN_MODEL_H
#define MN_MODEL_H

#include "kernels/kernels.h"
#include "memory.h"
#include "mobilenmt.h"
#include "tokenizer.h"

typedef enum mn_early_stopping { MN_EARLY_FALSE, MN_EARLY_TRUE, MN_EARLY_NEVER } mn_early_stopping;

typedef struct mn_config {
    uint32_t d_model, encoder_layers, decoder_layers, encoder_heads, decoder_heads, encoder_ffn, decoder_ffn;
    uint32_t activation;
    uint32_t source_vocabulary, target_vocabulary, max_positions;
    uint32_t start, eos, pad, unk, forced_eos; /* unk and forced_eos may be MN_NONE */
    uint32_t early_stopping;
    uint32_t forced_bos;                  /* MN_NONE: none */
    uint32_t no_repeat_ngram, min_length; /* what a request gets that does not say */
    uint32_t look_layer, look_head;       /* whose attention is the alignment; MN_NONE: all heads of the layer */
    uint32_t look_later;                  /* 1: a token looks at its source in the step behind it */
    float embedding_factor;
    int pre_norm, renormalize;
} mn_config;

typedef struct mn_norm {
    const float *weight, *bias; /* [width]; NULL if there is none */
} mn_norm;

/* Embeddings: rows in the file, or, where the same bytes are the output layer's, its blocks. */
typedef struct mn_table {
    const mn_matrix *matrix; /* NULL: `rows` */
    const uint8_t *rows;
    size_t stride; /* bytes */
    uint8_t flip;  /* 0x80 where the zero point is 128 */
    uint8_t floats; /* 1 for fp32, which has no scale */
    const uint8_t *scale;
    size_t scale_stride; /* bytes */
    const uint8_t *multipliers; /* of rows of 4 bits, one for each block; NULL: a byte is a value */
    uint32_t block;
} mn_table;

/* Positions: a table of floats, or the two tables of sinusoids from which rows are put together. */
typedef struct mn_positions {
    const uint8_t *table;                /* fp32 [max_positions, d_model], or NULL */
    const uint8_t *blocks, *sines, *cosines;
} mn_positions;

typedef struct mn_encoder_layer {
    mn_matrix qkv, out, fc1, fc2;
    mn_norm attention_norm, last_norm;
} mn_encoder_layer;

typedef struct mn_decoder_layer {
    mn_matrix qkv, out, cross_q, cross_kv, cross_out, fc1, fc2;
    mn_norm attention_norm, cross_norm, last_norm;
} mn_decoder_layer;

typedef struct mn_shortlist {
    const uint8_t *common;  /* [target vocabulary], 1 for tokens that are always candidates; NULL: no shortlist */
    const uint8_t *lexical; /* [source vocabulary, width], uint16 or int32 */
    uint32_t width, bytes;
    uint32_t always; /* how many of `common` are 1 */
} mn_shortlist;

typedef struct mn_span {
    const uint8_t *data;
    uint64_t bytes;
} mn_span;

/* Take back the pages of some bytes that were read, those beside them too: they lie in a mapped file, which is read again
   if they are wanted again. */
typedef void mn_give_back(mn_span whole, uint64_t offset, uint64_t bytes);

struct mn_model {
    const mn_kernel_set *kernels;
    mn_config config;
    mn_span native, weights;
    mn_give_back *give_back; /* of weights; NULL: they are the host's */
    mn_tokenizer tokenizers[2]; /* source, target */
    int has_tokenizer;
    size_t width;                        /* d_model rounded up to 16: floats of a row */
    size_t encoder_head, decoder_head;   /* a head's width rounded up to 16 */
    size_t encoder_inner, decoder_inner; /* heads times that: floats of a row of queries */
    size_t encoder_hidden, decoder_hidden;
    mn_table source, target;
    mn_table output_rows; /* with a shortlist: where candidates are taken from */
    mn_matrix output;     /* without one */
    const uint8_t *output_bias; /* fp32 [target vocabulary] in the file, or NULL */
    mn_positions encoder_positions, decoder_positions;
    mn_shortlist shortlist;
    const uint8_t *bad; /* u32 [bad_count] */
    uint32_t bad_count;
    const uint8_t *not_first; /* u32 [not_first_count], tokens that are not the first */
    uint32_t not_first_count;
    mn_norm encoder_norm, decoder_norm;
    mn_encoder_layer *encoder;
    mn_decoder_layer *decoder;
    uint8_t *block; /* all that was allocated for the layers */
    uint64_t bytes;
    void *mapping[2]; /* files that mn_open mapped, and their sizes */
    size_t mapped[2];
};

/* Little-endian values anywhere in a file. */
static inline uint32_t mn_u32(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static inline uint64_t mn_u64(const uint8_t *at) { return mn_u32(at) | (uint64_t)mn_u32(at + 4) << 32; }

static inline float mn_f32(const uint8_t *at)
{
    float value;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    memcpy(&value, at, 4); /* which compilers do several at once */
#else
    const uint32_t bits = mn_u32(at);
    memcpy(&value, &bits, 4);
#endif
    return value;
}

/* A row of n values of 4 bits, the first in the lower ones, zero point 8, times the multipliers of their blocks: `to` has
   room for n rounded up to 2. Products that are no int8, which no exporter writes, wrap. */
void mn_expand(const uint8_t *row, const uint8_t *multipliers, uint32_t block, size_t n, uint8_t *to);

#endif

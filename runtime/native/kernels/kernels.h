/* What differs between processors: products of bytes, and the loops over floats around them.

   Every set of kernels gives the same bits. Products of bytes are exact in 32 bits. Floats are summed in 16 lanes, lane
   i taking elements i, i + 16, ...; then lanes i and i + 8 are added, i and i + 4, and so on. Nothing is contracted into
   fused operations, and exp, erf and log are our own.

   Lengths of float rows are multiples of 16, rows start at multiples of 64 bytes, and what pads a row is zero. */

#ifndef MN_KERNELS_H
#define MN_KERNELS_H

#include <stddef.h>
#include <stdint.h>

/* AVX-VNNI and I8MM are younger than some compilers that know all else. */
#if defined(__clang__)
#define MN_NEW_COMPILER (__clang_major__ >= 13)
#else
#define MN_NEW_COMPILER (__GNUC__ >= 11)
#endif

#define MN_LANES 16
#define MN_ROUND_UP(n) (((n) + 15u) & ~(size_t)15)

/* Weights of a linear layer in blocks of 16 outputs; in a block, four inputs of each output lie together:
   weights[(block * inputs / 4 + input / 4) * 64 + output % 16 * 4 + input % 4]. */
typedef struct mn_matrix {
    const int8_t *weights;
    const float *scale;  /* [outputs] */
    const float *bias;   /* [outputs], or NULL */
    const int32_t *sums; /* [outputs], the sum of each output's weights */
    uint32_t outputs;    /* a multiple of 16 */
    uint32_t inputs;     /* a multiple of 16 */
    uint32_t wide;       /* some weight lies outside -64 to 63: two products may not fit 16 bits */
    const float *floats; /* fp32 weights, floats[(block * inputs + input) * 16 + output % 16]; NULL: bytes, as above */
} mn_matrix;

typedef enum mn_activation {
    MN_RELU, MN_GELU, MN_GELU_TANH, MN_GELU_10, MN_SILU, MN_QUICK_GELU, MN_TANH, MN_SIGMOID, MN_LINEAR,
    MN_LEAKY_RELU, MN_MISH, MN_RELU2, MN_RELU6, MN_LAPLACE, MN_ACTIVATIONS
} mn_activation;

/* Keys and values are kept in bytes (-127 to 127) with a scale for every position and head, 16 positions a page. For each
   head, one after the other, a page has

       int8 keys[width / 4][16 positions][4], a block of mn_matrix's layout whose outputs are positions
       int8 values[width / 16][16 positions / 4][16][4], blocks whose inputs are positions
       fp32 key_scales[16], int32 key_sums[16], fp32 value_scales[16] */
#define MN_PAGE_HEAD(width) (32 * (size_t)(width) + 192)

/* What queries look at. */
typedef struct mn_memory {
    const uint8_t *const *pages;
    uint32_t count; /* positions */
    uint32_t head;  /* of the first query */
    int apart;      /* 1: each query has the next head; 0: all have the same */
} mn_memory;

typedef struct mn_kernel_set {
    const char *name;

    /* Bytes of a row: x = (byte - zero) * scale, zero 128, or 0 for rows that have no negative value. The bytes are for
       `multiply` of the same set only. A row with a number above 1e15, or none, has NaN for its scale: what it is
       multiplied with is NaN, and the search ends with an error. */
    void (*quantize)(const float *x, size_t n, int positive, uint8_t *bytes, float *scale);

    /* y[r] = W x[r] + bias for rows of bytes, `inputs` apart; rows of y are `stride` floats apart. */
    void (*multiply)(const mn_matrix *matrix, const uint8_t *bytes, const float *scales, int positive, size_t rows,
                     float *y, size_t stride);

    /* y[r] = W x[r] + bias for a matrix of floats and rows of floats, `x_stride` and `stride` floats apart. The inputs
       are summed in their order. */
    void (*multiply_floats)(const mn_matrix *matrix, const float *x, size_t x_stride, size_t rows, float *y, size_t stride);

    /* sums[o] of a matrix whose weights stand. */
    void (*sum)(const mn_matrix *matrix, int32_t *sums);

    /* x = LayerNorm(x + y) over the first n elements (y may be NULL): out = normalized * weight + bias. */
    void (*norm)(const float *x, const float *y, const float *weight, const float *bias, size_t n, float *out);

    void (*add)(const float *x, const float *y, size_t n, float *out);

    void (*activate)(mn_activation kind, float *x, size_t n);

    /* Put keys and values of `count` positions, rows `stride` floats apart, into a page: 16 at most from lane 0 on, which
       clears it first, or one behind those that are there. */
    void (*keep)(const float *keys, const float *values, size_t stride, size_t count, size_t heads, size_t width,
                 size_t lane, uint8_t *page);

    /* Queries `q_stride` floats apart attend; `width` is the head's. `scores` has room for 4 rows of count rounded up to
       16, `bytes` for 8 of these and 4 times the width. `looked`, if it is not NULL, gets the probabilities added, of
       all queries. */
    void (*attend)(const float *q, size_t q_stride, size_t queries, const mn_memory *memory, size_t width, float factor,
                   float *looked, float *scores, uint8_t *bytes, float *out, size_t out_stride);

    /* The greatest of n logits, and log(sum(exp(logits - greatest))); what pads the row must be -inf. */
    float (*log_sum)(const float *logits, size_t n, float *greatest);

    /* x = (x - greatest - log_sum) + add, in this order. */
    void (*shift)(float *x, size_t n, float greatest, float log_sum, float add);

    /* The first element from `from` on that is greater than `bound`; n if there is none. */
    size_t (*next_above)(const float *x, size_t n, size_t from, float bound);
} mn_kernel_set;

/* Sets this library was built with, best first, and whether this processor has what one needs. */
extern const mn_kernel_set *const mn_kernel_sets[];
extern const size_t mn_kernel_set_count;
int mn_kernel_set_runs(const mn_kernel_set *set);

#endif

/* What the kernels with AVX2's registers share: sixteen sums in two of them, the way of weights and activations to
   their products, and sixteen integers to bytes. */

#define WIDTH 8
#define SIGNED 0
#define ROWS 3
#define BLOCKS 2
#define FEW 1
#define SPLIT 4
#define LARGER(a, b) ((vf)_mm256_max_ps((__m256)(a), (__m256)(b)))
#define LARGER_INTEGER(a, b) ((vi)_mm256_max_epi32((__m256i)(a), (__m256i)(b)))
#define SMALLER(a, b) ((vf)_mm256_min_ps((__m256)(a), (__m256)(b)))

#include "floats.h"

typedef struct sums { __m256i half[2]; } sums;

INLINE sums sums_zero(void) { return (sums){{_mm256_setzero_si256(), _mm256_setzero_si256()}}; }

INLINE i16 sums_get(sums s)
{
    return (i16){{(vi)s.half[0], (vi)s.half[1]}};
}

INLINE void put_bytes(uint8_t *to, i16 values)
{
    const __m256i words = _mm256_packs_epi32((__m256i)values.part[0], (__m256i)values.part[1]);
    const __m256i ordered = _mm256_permute4x64_epi64(words, 0xD8);
    const __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1));
    _mm_storeu_si128((__m128i *)to, bytes);
}

/* To eight sums, the products of four bytes each: what the file that includes this differs in. */
INLINE __m256i add_products(__m256i sum, __m256i bytes, __m256i weights, int wide);

INLINE sums dot(sums s, const int8_t *weights, const uint8_t *four, int wide)
{
    int32_t x;
    memcpy(&x, four, 4);
    const __m256i bytes = _mm256_set1_epi32(x);
    UNROLL for (int h = 0; h < 2; h++)
        s.half[h] = add_products(s.half[h], bytes, _mm256_loadu_si256((const __m256i *)(weights + 32 * h)), wide);
    return s;
}

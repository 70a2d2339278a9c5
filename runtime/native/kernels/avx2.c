/* x86-64 with AVX2: Haswell, Zen and later. */

#include "kernels.h"

#if defined(__x86_64__) || defined(_M_X64)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC target("avx2")
#endif

#include <immintrin.h>
#include <math.h>
#include <string.h>

#define SET avx2
#define NAME "avx2"
#define WIDTH 8
#define SIGNED 0
#define ROWS 3
#define BLOCKS 2
#define FEW 1
#define SPLIT 4
#define WIDENS 1

#include "floats.h"

typedef struct sums { __m256i half[2]; } sums;

INLINE sums sums_zero(void) { return (sums){{_mm256_setzero_si256(), _mm256_setzero_si256()}}; }

INLINE i16 sums_get(sums s)
{
    return (i16){{(vi)s.half[0], (vi)s.half[1]}};
}

/* Pairs of products are added in 16 bits, which holds 2 * 255 * 64; wider weights take even and odd inputs in turn. */
INLINE sums dot(sums s, const int8_t *weights, const uint8_t *four, int wide)
{
    int32_t x;
    memcpy(&x, four, 4);
    const __m256i a = _mm256_set1_epi32(x), ones = _mm256_set1_epi16(1);
    UNROLL for (int h = 0; h < 2; h++) {
        const __m256i w = _mm256_loadu_si256((const __m256i *)(weights + 32 * h));
        if (wide) {
            const __m256i even = _mm256_set1_epi16(0x00FF), odd = _mm256_set1_epi16((short)0xFF00);
            const __m256i first = _mm256_maddubs_epi16(_mm256_and_si256(a, even), w);
            const __m256i second = _mm256_maddubs_epi16(_mm256_and_si256(a, odd), w);
            s.half[h] = _mm256_add_epi32(s.half[h], _mm256_madd_epi16(first, ones));
            s.half[h] = _mm256_add_epi32(s.half[h], _mm256_madd_epi16(second, ones));
        } else {
            s.half[h] = _mm256_add_epi32(s.half[h], _mm256_madd_epi16(_mm256_maddubs_epi16(a, w), ones));
        }
    }
    return s;
}

INLINE void put_bytes(uint8_t *to, i16 values)
{
    const __m256i words = _mm256_packs_epi32((__m256i)values.part[0], (__m256i)values.part[1]);
    const __m256i ordered = _mm256_permute4x64_epi64(words, 0xD8);
    const __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1));
    _mm_storeu_si128((__m128i *)to, bytes);
}

#include "body.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif

#else
typedef int mn_not_for_this_processor;
#endif

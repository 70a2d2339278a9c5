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
#define LARGER(a, b) ((vf)_mm256_max_ps((__m256)(a), (__m256)(b)))
#define SMALLER(a, b) ((vf)_mm256_min_ps((__m256)(a), (__m256)(b)))

#include "floats.h"
#include "sums256.h"

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

#include "body.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif

#else
typedef int mn_not_for_this_processor;
#endif

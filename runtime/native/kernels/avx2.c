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
#define WIDENS 1

#include "sums256.h"

/* Pairs of products are added in 16 bits, which holds 2 * 255 * 64; wider weights take even and odd inputs in turn. */
INLINE __m256i add_products(__m256i sum, __m256i bytes, __m256i weights, int wide)
{
    const __m256i ones = _mm256_set1_epi16(1);
    if (!wide) return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(bytes, weights), ones));
    const __m256i even = _mm256_set1_epi16(0x00FF), odd = _mm256_set1_epi16((short)0xFF00);
    const __m256i first = _mm256_maddubs_epi16(_mm256_and_si256(bytes, even), weights);
    const __m256i second = _mm256_maddubs_epi16(_mm256_and_si256(bytes, odd), weights);
    return _mm256_add_epi32(_mm256_add_epi32(sum, _mm256_madd_epi16(first, ones)), _mm256_madd_epi16(second, ones));
}

#include "body.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif

#else
typedef int mn_not_for_this_processor;
#endif

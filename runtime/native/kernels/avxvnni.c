/* x86-64 with AVX2 and products of bytes (AVX-VNNI): Alder Lake and later. */

#include "kernels.h"

#if (defined(__x86_64__) || defined(_M_X64)) && MN_NEW_COMPILER

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,avxvnni"))), apply_to = function)
#else
#pragma GCC target("avx2,avxvnni")
#endif

#include <immintrin.h>
#include <math.h>
#include <string.h>

#define SET avxvnni
#define NAME "avxvnni"
#define WIDTH 8
#define SIGNED 0
#define ROWS 3
#define BLOCKS 2
#define FEW 1
#define SPLIT 4
#define WIDENS 0
#define LARGER(a, b) ((vf)_mm256_max_ps((__m256)(a), (__m256)(b)))
#define SMALLER(a, b) ((vf)_mm256_min_ps((__m256)(a), (__m256)(b)))

#include "floats.h"
#include "sums256.h"

INLINE sums dot(sums s, const int8_t *weights, const uint8_t *four, int wide)
{
    (void)wide;
    int32_t x;
    memcpy(&x, four, 4);
    const __m256i a = _mm256_set1_epi32(x);
    UNROLL for (int h = 0; h < 2; h++)
        s.half[h] = _mm256_dpbusd_avx_epi32(s.half[h], a, _mm256_loadu_si256((const __m256i *)(weights + 32 * h)));
    return s;
}

#include "body.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif

#else
typedef int mn_not_for_this_processor;
#endif

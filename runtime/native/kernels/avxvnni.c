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
#define WIDENS 0

#include "sums256.h"

INLINE __m256i add_products(__m256i sum, __m256i bytes, __m256i weights, int wide)
{
    (void)wide;
    return _mm256_dpbusd_avx_epi32(sum, bytes, weights);
}

#include "body.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif

#else
typedef int mn_not_for_this_processor;
#endif

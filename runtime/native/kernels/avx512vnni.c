/* x86-64 with AVX-512 and its products of bytes (VNNI): Ice Lake, Zen 4 and later. */

#include "kernels.h"

#if defined(__x86_64__) || defined(_M_X64)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"))), apply_to = function)
#else
#pragma GCC target("avx2,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
#endif

#include <immintrin.h>
#include <math.h>
#include <string.h>

#define SET avx512vnni
#define NAME "avx512vnni"
#define WIDTH 16
#define SIGNED 0
#define ROWS 4
#define BLOCKS 4
#define FEW 1
#define SPLIT 4
#define WIDENS 0
#define LARGER(a, b) ((vf)_mm512_max_ps((__m512)(a), (__m512)(b)))
#define LARGER_INTEGER(a, b) ((vi)_mm512_max_epi32((__m512i)(a), (__m512i)(b)))
#define SMALLER(a, b) ((vf)_mm512_min_ps((__m512)(a), (__m512)(b)))

#include "floats.h"

/* The vector types of floats.h are 64 bytes wide: one register each. */
typedef __m512i sums;

INLINE sums sums_zero(void) { return _mm512_setzero_si512(); }

INLINE i16 sums_get(sums s)
{
    return (i16){{(vi)s}};
}

/* GCC copies the sums from register to register around the intrinsic, a fifth of the time of a translation. */
INLINE sums products(sums s, __m512i bytes, __m512i weights)
{
#if defined(__clang__)
    return _mm512_dpbusd_epi32(s, bytes, weights);
#else
    __asm__("vpdpbusd %2, %1, %0" : "+v"(s) : "v"(bytes), "vm"(weights));
    return s;
#endif
}

INLINE sums dot(sums s, const int8_t *weights, const uint8_t *four, int wide)
{
    (void)wide;
    int32_t x;
    memcpy(&x, four, 4);
    return products(s, _mm512_set1_epi32(x), _mm512_loadu_si512(weights));
}

INLINE void put_bytes(uint8_t *to, i16 values)
{
    _mm_storeu_si128((__m128i *)to, _mm512_cvtepi32_epi8((__m512i)values.part[0]));
}

#include "body.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif

#else
typedef int mn_not_for_this_processor;
#endif

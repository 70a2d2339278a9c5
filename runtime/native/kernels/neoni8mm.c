/* 64-bit ARM with products of matrices of bytes (SMMLA): Cortex-A510, A710, X2, Apple A15 and later. */

#include "kernels.h"

#if defined(__aarch64__) && MN_NEW_COMPILER

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("dotprod,i8mm"))), apply_to = function)
#elif defined(__GNUC__)
#pragma GCC target("arch=armv8.2-a+dotprod+i8mm")
#endif

#include <arm_neon.h>
#include <math.h>
#include <string.h>

#define SET neoni8mm
#define NAME "neoni8mm"
#define WIDTH 4
#define SIGNED 1
#define ROWS 4
#define BLOCKS 1
#define FEW 2
#define SPLIT 1
#define WIDENS 0

#include "floats.h"
#include "sumsneon.h"

/* Sixteen outputs of up to four rows (the sums of six do not fit the registers), in pairs: an instruction multiplies
   eight inputs of two rows by those of two outputs, 32 products to SDOT's 16. A register of weights has four inputs of
   four outputs, so two of them are zipped, once for all rows. */
#define OWN_SUMS
INLINE void sum_rows(const int rows, const int8_t *weights, const int8_t *bytes, size_t inputs, sums *s)
{
    const int pairs = (rows + 1) / 2;
    int32x4_t square[2][8];
    UNROLL for (int j = 0; j < 8 * pairs; j++) square[j / 8][j % 8] = vdupq_n_s32(0);
    for (size_t i = 0; i < inputs; i += 8, weights += 128) {
        int8x16_t x[2];
        UNROLL for (int p = 0; p < pairs; p++) {
            const int8_t *first = bytes + (size_t)(2 * p) * inputs + i, *second = 2 * p + 1 < rows ? first + inputs : first;
            x[p] = vcombine_s8(vld1_s8(first), vld1_s8(second));
        }
        UNROLL for (int q = 0; q < 4; q++) {
            const int32x4_t low = vreinterpretq_s32_s8(vld1q_s8(weights + 16 * q));
            const int32x4_t high = vreinterpretq_s32_s8(vld1q_s8(weights + 64 + 16 * q));
            const int8x16_t w[2] = {vreinterpretq_s8_s32(vzip1q_s32(low, high)), vreinterpretq_s8_s32(vzip2q_s32(low, high))};
            UNROLL for (int j = 0; j < 2 * pairs; j++)
                square[j / 2][2 * q + j % 2] = vmmlaq_s32(square[j / 2][2 * q + j % 2], x[j / 2], w[j % 2]);
        }
    }
    UNROLL for (int j = 0; j < 4 * rows; j++) {
        const int64x2_t a = vreinterpretq_s64_s32(square[j / 8][2 * (j % 4)]);
        const int64x2_t b = vreinterpretq_s64_s32(square[j / 8][2 * (j % 4) + 1]);
        s[j / 4].part[j % 4] = vreinterpretq_s32_s64(j / 4 % 2 ? vzip2q_s64(a, b) : vzip1q_s64(a, b));
    }
}

#include "body.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif

#else
typedef int mn_not_for_this_processor;
#endif

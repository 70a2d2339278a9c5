/* 64-bit ARM without products of bytes: Cortex-A53, A72 and their like. */

#include "kernels.h"

#if defined(__aarch64__)

#include <arm_neon.h>
#include <math.h>
#include <string.h>

#define SET neon
#define NAME "neon"
#define WIDTH 4
#define MOST_SUMS 16
#define SIGNED 1
#define ROWS 2
#define BLOCKS 2
#define FEW 2
#define SPLIT 1
#define WIDENS 0

#include "floats.h"
#include "sumsneon.h"

/* Two products fit 16 bits: 2 * 128 * 127; they are added to 32 bits pair by pair. */
INLINE sums dot(sums s, const int8_t *weights, const uint8_t *four, int wide)
{
    (void)wide;
    int32_t x;
    memcpy(&x, four, 4);
    const int8x16_t a = vreinterpretq_s8_s32(vdupq_n_s32(x));
    UNROLL for (int i = 0; i < 4; i++) {
        const int8x16_t w = vld1q_s8(weights + 16 * i);
        const int16x8_t low = vmull_s8(vget_low_s8(w), vget_low_s8(a));
        const int16x8_t high = vmull_s8(vget_high_s8(w), vget_high_s8(a));
        s.quarter[i] = vaddq_s32(s.quarter[i], vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)));
    }
    return s;
}

#include "body.h"

#else
typedef int mn_not_for_this_processor;
#endif

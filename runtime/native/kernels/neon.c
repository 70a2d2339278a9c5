/* 64-bit ARM without products of bytes: Cortex-A53, A72 and their like. */

#include "kernels.h"

#if defined(__aarch64__)

#include <arm_neon.h>
#include <math.h>
#include <string.h>

#define SET neon
#define NAME "neon"
#define WIDTH 4
#define SIGNED 1
#define ROWS 2
#define BLOCKS 2
#define FEW 2
#define SPLIT 1
#define WIDENS 0

#include "floats.h"

typedef struct sums { int32x4_t quarter[4]; } sums;

INLINE sums sums_zero(void)
{
    sums s;
    UNROLL for (int i = 0; i < 4; i++) s.quarter[i] = vdupq_n_s32(0);
    return s;
}

INLINE i16 sums_get(sums s)
{
    return (i16){{(vi)s.quarter[0], (vi)s.quarter[1], (vi)s.quarter[2], (vi)s.quarter[3]}};
}

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

INLINE void put_bytes(uint8_t *to, i16 values)
{
    const int32x4_t *v = (const int32x4_t *)values.part;
    const int16x8_t low = vcombine_s16(vmovn_s32(v[0]), vmovn_s32(v[1])), high = vcombine_s16(vmovn_s32(v[2]), vmovn_s32(v[3]));
    vst1q_u8(to, vreinterpretq_u8_s8(vcombine_s8(vmovn_s16(low), vmovn_s16(high))));
}

#include "body.h"

#else
typedef int mn_not_for_this_processor;
#endif

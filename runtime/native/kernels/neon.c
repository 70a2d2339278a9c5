/* ARM without products of bytes: Cortex-A53, A72 and their like, and 32-bit processors with NEON. */

#include "kernels.h"

#if defined(__aarch64__) || (defined(__arm__) && defined(__ARM_NEON))

#include <arm_neon.h>
#include <math.h>
#include <string.h>

#define SET neon
#define NAME "neon"
#define WIDTH 4
#define SIGNED 1
#define BLOCKS 1
#if defined(__aarch64__) /* 32 registers, 16 on 32-bit processors */
#define ROWS 2
#define FEW 2
#else
#define ROWS 1
#define FEW 1
#endif
#define SPLIT 1
#define WIDENS 0

#include "floats.h"

#define PAIRS
#include "sumsneon.h"

/* Two neighbours' products are added to one 32-bit sum. */
INLINE sums dot(sums s, const int8_t *weights, const uint8_t *four, int wide)
{
    (void)wide;
    int32_t x;
    memcpy(&x, four, 4);
    const int8x8_t a = vreinterpret_s8_s32(vdup_n_s32(x));
    UNROLL for (int i = 0; i < 8; i++) s.part[i] = vpadalq_s16(s.part[i], vmull_s8(vld1_s8(weights + 8 * i), a));
    return s;
}

#include "body.h"

#else
typedef int mn_not_for_this_processor;
#endif

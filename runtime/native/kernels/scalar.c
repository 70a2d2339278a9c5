/* The reference, for any processor: products of bytes one by one. */

#include "kernels.h"

#include <math.h>
#include <string.h>

#define SET scalar
#define NAME "scalar"
#define WIDTH 4
#define SIGNED 0
#define ROWS 1
#define BLOCKS 1
#define FEW 1
#define SPLIT 1
#define WIDENS 0

#include "floats.h"

typedef struct sums { int32_t lane[MN_LANES]; } sums;

INLINE sums sums_zero(void) { return (sums){{0}}; }

INLINE i16 sums_get(sums s)
{
    i16 r;
    memcpy(&r, &s, sizeof r);
    return r;
}

INLINE sums dot(sums s, const int8_t *weights, const uint8_t *four, int wide)
{
    (void)wide;
    for (int o = 0; o < MN_LANES; o++)
        for (int j = 0; j < 4; j++) s.lane[o] += weights[4 * o + j] * four[j];
    return s;
}

INLINE void put_bytes(uint8_t *to, i16 values)
{
    for (int i = 0; i < MN_LANES; i++) to[i] = (uint8_t)values.part[i / WIDTH][i % WIDTH];
}

#include "body.h"

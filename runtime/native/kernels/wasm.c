/* WebAssembly with 128-bit vectors (-msimd128), which every browser has had since 2023. */

#include "kernels.h"

#if defined(__wasm_simd128__)

#include <math.h>
#include <string.h>
#include <wasm_simd128.h>

#define SET wasm
#define NAME "wasm"
#define WIDTH 4
#define SIGNED 1
#define ROWS 2
#define BLOCKS 1
#define FEW 1
#define SPLIT 1
#define WIDENS 0

#include "floats.h"

/* Two sums for each output, of pairs of inputs: they are put together at the end. */
typedef struct sums { v128_t eighth[8]; } sums;

INLINE sums sums_zero(void)
{
    sums s;
    UNROLL for (int i = 0; i < 8; i++) s.eighth[i] = wasm_i32x4_const_splat(0);
    return s;
}

INLINE i16 sums_get(sums s)
{
    i16 r;
    UNROLL for (int i = 0; i < 4; i++) {
        const v128_t a = s.eighth[2 * i], b = s.eighth[2 * i + 1];
        r.part[i] = (vi)wasm_i32x4_add(wasm_i32x4_shuffle(a, b, 0, 2, 4, 6), wasm_i32x4_shuffle(a, b, 1, 3, 5, 7));
    }
    return r;
}

INLINE sums dot(sums s, const int8_t *weights, const uint8_t *four, int wide)
{
    (void)wide;
    int32_t x;
    memcpy(&x, four, 4);
    const v128_t a = wasm_i16x8_extend_low_i8x16(wasm_i32x4_splat(x));
    UNROLL for (int i = 0; i < 8; i++) {
        const v128_t w = wasm_i16x8_load8x8(weights + 8 * i);
        s.eighth[i] = wasm_i32x4_add(s.eighth[i], wasm_i32x4_dot_i16x8(w, a));
    }
    return s;
}

INLINE void put_bytes(uint8_t *to, i16 values)
{
    const v128_t low = wasm_i16x8_narrow_i32x4((v128_t)values.part[0], (v128_t)values.part[1]);
    const v128_t high = wasm_i16x8_narrow_i32x4((v128_t)values.part[2], (v128_t)values.part[3]);
    wasm_v128_store(to, wasm_i8x16_narrow_i16x8(low, high));
}

#include "body.h"

#else
typedef int mn_not_for_this_processor;
#endif

/* WebAssembly with relaxed vectors (-mrelaxed-simd), whose products of bytes are one instruction of the processor. */

#include "kernels.h"

#if defined(__wasm_relaxed_simd__)

#include <math.h>
#include <string.h>
#include <wasm_simd128.h>

#define SET wasmrelaxed
#define NAME "wasm-relaxed"
#define WIDTH 4
#define SIGNED 1
#define ROWS 2
#define BLOCKS 1
#define FEW 1
#define SPLIT 1
#define WIDENS 1

#include "floats.h"

/* The instruction is exact where one side has seven bits without a sign: 64 is added to the weights, and `added` sums
   what that brings. */
typedef struct sums { v128_t quarter[4], added; } sums;

INLINE sums sums_zero(void)
{
    const v128_t zero = wasm_i32x4_const_splat(0);
    return (sums){{zero, zero, zero, zero}, zero};
}

INLINE i16 sums_get(sums s)
{
    i16 r;
    UNROLL for (int i = 0; i < 4; i++) r.part[i] = (vi)wasm_i32x4_sub(s.quarter[i], s.added);
    return r;
}

/* Wider weights are twice their upper seven bits and their last one. */
INLINE sums dot(sums s, const int8_t *weights, const uint8_t *four, int wide)
{
    int32_t x;
    memcpy(&x, four, 4);
    const v128_t a = wasm_i32x4_splat(x), middle = wasm_i8x16_const_splat(64), zero = wasm_i32x4_const_splat(0);
    s.added = wasm_i32x4_relaxed_dot_i8x16_i7x16_add(a, middle, s.added);
    if (wide) s.added = wasm_i32x4_relaxed_dot_i8x16_i7x16_add(a, middle, s.added);
    UNROLL for (int i = 0; i < 4; i++) {
        const v128_t w = wasm_v128_load(weights + 16 * i);
        if (wide) {
            const v128_t upper = wasm_i8x16_add(wasm_i8x16_shr(w, 1), middle);
            const v128_t last = wasm_v128_and(w, wasm_i8x16_const_splat(1));
            const v128_t half = wasm_i32x4_relaxed_dot_i8x16_i7x16_add(a, upper, zero);
            s.quarter[i] = wasm_i32x4_add(s.quarter[i], wasm_i32x4_add(half, half));
            s.quarter[i] = wasm_i32x4_relaxed_dot_i8x16_i7x16_add(a, last, s.quarter[i]);
        } else {
            s.quarter[i] = wasm_i32x4_relaxed_dot_i8x16_i7x16_add(a, wasm_i8x16_add(w, middle), s.quarter[i]);
        }
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

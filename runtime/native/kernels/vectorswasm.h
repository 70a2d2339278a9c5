/* What WebAssembly's two sets of kernels share: how many rows and blocks at once, and sixteen integers to bytes. */

#define WIDTH 4
#define SIGNED 1
#define ROWS 2
#define BLOCKS 1
#define FEW 1
#define SPLIT 1

#include "floats.h"

INLINE void put_bytes(uint8_t *to, i16 values)
{
    const v128_t low = wasm_i16x8_narrow_i32x4((v128_t)values.part[0], (v128_t)values.part[1]);
    const v128_t high = wasm_i16x8_narrow_i32x4((v128_t)values.part[2], (v128_t)values.part[3]);
    wasm_v128_store(to, wasm_i8x16_narrow_i16x8(low, high));
}

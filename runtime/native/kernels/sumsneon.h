/* Sixteen sums in four registers of NEON, and sixteen integers to bytes. With PAIRS, each output has two sums side by
   side in eight registers, which are put together at the end; without, the processor has products of bytes. */

#ifdef PAIRS
typedef struct sums { int32x4_t part[8]; } sums;
#else
typedef struct sums { int32x4_t part[4]; } sums;
#endif

INLINE sums sums_zero(void)
{
    sums s;
    UNROLL for (size_t i = 0; i < sizeof s.part / sizeof *s.part; i++) s.part[i] = vdupq_n_s32(0);
    return s;
}

INLINE i16 sums_get(sums s)
{
    i16 r;
#ifdef PAIRS
    UNROLL for (int i = 0; i < 4; i++) {
        const int32x4_t a = s.part[2 * i], b = s.part[2 * i + 1];
        r.part[i] = (vi)vcombine_s32(vpadd_s32(vget_low_s32(a), vget_high_s32(a)), vpadd_s32(vget_low_s32(b), vget_high_s32(b)));
    }
#else
    UNROLL for (int i = 0; i < 4; i++) r.part[i] = (vi)s.part[i];
#endif
    return r;
}

INLINE void put_bytes(uint8_t *to, i16 values)
{
    const int32x4_t *v = (const int32x4_t *)values.part;
    const int16x8_t low = vcombine_s16(vmovn_s32(v[0]), vmovn_s32(v[1])), high = vcombine_s16(vmovn_s32(v[2]), vmovn_s32(v[3]));
    vst1q_u8(to, vreinterpretq_u8_s8(vcombine_s8(vmovn_s16(low), vmovn_s16(high))));
}

#ifndef PAIRS
INLINE sums dot(sums s, const int8_t *weights, const uint8_t *four, int wide)
{
    (void)wide;
    int32_t x;
    memcpy(&x, four, 4);
    const int8x16_t a = vreinterpretq_s8_s32(vdupq_n_s32(x));
    UNROLL for (int i = 0; i < 4; i++) s.part[i] = vdotq_s32(s.part[i], vld1q_s8(weights + 16 * i), a);
    return s;
}
#endif

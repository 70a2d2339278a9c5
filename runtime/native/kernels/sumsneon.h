/* Sixteen sums in four registers of NEON, and sixteen integers to bytes. */

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

INLINE void put_bytes(uint8_t *to, i16 values)
{
    const int32x4_t *v = (const int32x4_t *)values.part;
    const int16x8_t low = vcombine_s16(vmovn_s32(v[0]), vmovn_s32(v[1])), high = vcombine_s16(vmovn_s32(v[2]), vmovn_s32(v[3]));
    vst1q_u8(to, vreinterpretq_u8_s8(vcombine_s8(vmovn_s16(low), vmovn_s16(high))));
}

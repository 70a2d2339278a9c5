/* Sixteen sums in two registers of AVX2, and sixteen integers to bytes. */

typedef struct sums { __m256i half[2]; } sums;

INLINE sums sums_zero(void) { return (sums){{_mm256_setzero_si256(), _mm256_setzero_si256()}}; }

INLINE i16 sums_get(sums s)
{
    return (i16){{(vi)s.half[0], (vi)s.half[1]}};
}

INLINE void put_bytes(uint8_t *to, i16 values)
{
    const __m256i words = _mm256_packs_epi32((__m256i)values.part[0], (__m256i)values.part[1]);
    const __m256i ordered = _mm256_permute4x64_epi64(words, 0xD8);
    const __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1));
    _mm_storeu_si128((__m128i *)to, bytes);
}

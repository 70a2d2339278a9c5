/* Attention over keys and values in bytes, a few looks at a time: queries of one head, or heads of one query. Included
   by body.h alone. */

#define LOOKS (WIDTH / 4)
#define WEIGHT_LEVELS 16383 /* two bytes of seven bits, which are the same with a sign and without */

/* A head's part of a page, as kernels.h has it. */
INLINE const float *key_scales(const uint8_t *head, size_t width) { return (const float *)(head + 32 * width); }
INLINE const int32_t *key_sums(const uint8_t *head, size_t width) { return (const int32_t *)(head + 32 * width + 64); }

/* Sixteen numbers rounded; zeros where nothing can be told of their row. */
INLINE i16 level(const float *x, float factor)
{
    return nearest(factor == 0.0f ? all(0) : mul(load(x), all(factor)));
}

static void keep(const float *keys, const float *values, size_t stride, size_t count, size_t heads, size_t width,
                 size_t lane, uint8_t *page)
{
    static const uint8_t ones[4] = {1, 1, 1, 1};
    const int32_t shift = SIGNED ? 0 : 128;
    const uint32_t flip = SIGNED ? 0 : 0x80808080u;
    if (!lane) memset(page, 0, heads * MN_PAGE_HEAD(width));
    for (size_t head = 0; head < heads; head++, page += MN_PAGE_HEAD(width)) {
        for (size_t t = lane; t < lane + count; t++) {
            const float *key = keys + (t - lane) * stride + head * width, *value = values + (t - lane) * stride + head * width;
            float scales[2];
            const float key_factor = byte_factor(key, width, 127.0f, scales);
            const float value_factor = byte_factor(value, width, 127.0f, scales + 1);
            if (isnan(scales[0])) scales[1] = NAN; /* looked for at the values alone */
            memcpy(page + 32 * width + 4 * t, scales, 4);
            memcpy(page + 32 * width + 128 + 4 * t, scales + 1, 4);
            for (size_t d = 0; d < width; d += MN_LANES) {
                i16 q = level(key + d, key_factor);
                uint8_t bytes[MN_LANES];
                EACH q.part[p] += shift;
                put_bytes(bytes, q);
                UNROLL for (size_t i = 0; i < 4; i++) {
                    uint32_t four;
                    memcpy(&four, bytes + 4 * i, 4);
                    four ^= flip;
                    memcpy(page + (d / 4 + i) * 64 + 4 * t, &four, 4);
                }
                int32_t *fours = (int32_t *)(page + 16 * width + d * MN_LANES + t / 4 * 64);
                const i16 v = level(value + d, value_factor), before = load_i(fours);
                const int bits = 8 * (int)(t % 4);
                EACH q.part[p] = before.part[p] | (v.part[p] & 255) << bits;
                memcpy(fours, &q, sizeof q);
            }
        }
        sums s = sums_zero();
        for (size_t i = 0; i < width; i += 4) s = dot(s, (const int8_t *)page + i * MN_LANES, ones, 1);
        const i16 got = sums_get(s);
        memcpy(page + 32 * width + 64, &got, sizeof got);
    }
}

/* What the looks that are worked on together share. */
typedef struct looking {
    const mn_memory *memory;
    size_t width, blocks, head; /* `head`: where the first look's head begins in a page */
    const uint8_t *queries;     /* [looks][width] */
    uint8_t *weights;           /* [looks][2][blocks][16], upper and lower seven bits */
    float *scores;              /* [looks][blocks][16] */
} looking;

/* Scores for some pages from page `first` on. */
INLINE void score_pages(const int looks, const int pages, const int apart, const looking *l, size_t first, const float *factors)
{
    const size_t width = l->width, step = apart ? MN_PAGE_HEAD(width) : 0;
    const uint8_t *const *page = l->memory->pages + first;
    const int32_t shift = SIGNED ? 0 : -128;
    sums s[LOOKS * 2];
    UNROLL for (int j = 0; j < looks * pages; j++) s[j] = sums_zero();
    for (size_t i = 0; i < width; i += 4) {
        UNROLL for (int j = 0; j < looks * pages; j++) {
            const size_t k = (size_t)(j % looks), b = (size_t)(j / looks);
            s[j] = dot(s[j], (const int8_t *)page[b] + l->head + k * step + i * MN_LANES, l->queries + k * width + i, 1);
        }
    }
    UNROLL for (int j = 0; j < looks * pages; j++) {
        const size_t k = (size_t)(j % looks), b = (size_t)(j / looks);
        const uint8_t *head = page[b] + l->head + k * step;
        i16 sum = sums_get(s[j]), keys = load_i(key_sums(head, width));
        f16 value;
        EACH sum.part[p] += keys.part[p] * shift;
        EACH value.part[p] = __builtin_convertvector(sum.part[p], vf);
        value = mul(value, mul(load(key_scales(head, width)), all(factors[k])));
        store(l->scores + (k * l->blocks + first + b) * MN_LANES, value);
    }
}

/* Scores of a look to the bytes of its weights: e^(score - greatest) times the scale of the position's values, of which
   the greatest there is counts as 16383. Gives what the weights' sums have to be multiplied with. For `looked` the powers
   are kept in the place of the scores, and `sum` becomes one over their sum: multiplied, they are probabilities. */
APART float weights_of(const looking *l, size_t look, size_t step, const float *looked, float *sum)
{
    const size_t last = l->blocks - 1, head = l->head + look * step + 32 * l->width + 128;
    const uint8_t *const *pages = l->memory->pages;
    float *scores = l->scores + look * l->blocks * MN_LANES;
    uint8_t *upper = l->weights + look * 2 * l->blocks * MN_LANES, *lower = upper + l->blocks * MN_LANES;
    const i16 mask = below(l->memory->count - last * MN_LANES);
    store(scores + last * MN_LANES, pick(mask, load(scores + last * MN_LANES), all(-3e38f)));
    f16 most = load(scores);
    i16 widest = load_i((const int32_t *)(pages[0] + head)); /* bits of what is never below zero: NaN above all others */
    for (size_t b = 1; b <= last; b++) {
        const i16 scales = load_i((const int32_t *)(pages[b] + head));
        most = larger(load(scores + b * MN_LANES), most);
        EACH widest.part[p] = LARGER_INTEGER(scales.part[p], widest.part[p]);
    }
    const f16 greatest = all(greatest_of(most));
    const float scale = greatest_of_bits(widest);
    const int usable = scale > 1e-20f && scale < MN_MOST;
    const f16 factor = all(usable ? (float)WEIGHT_LEVELS / scale : 0.0f);
    f16 powers = all(0);
    for (size_t b = 0; b <= last; b++) {
        f16 e = power_below_one(sub(load(scores + b * MN_LANES), greatest));
        if (b == last) e = pick(mask, e, all(0));
        powers = add(powers, e);
        if (looked) store(scores + b * MN_LANES, e);
        i16 q = nearest(mul(e, mul(load((const float *)(pages[b] + head)), factor))), part;
        EACH part.part[p] = q.part[p] >> 7 & 127;
        put_bytes(upper + b * MN_LANES, part);
        EACH part.part[p] = q.part[p] & 127;
        put_bytes(lower + b * MN_LANES, part);
    }
    *sum = 1.0f / total(powers);
    return usable ? scale / (float)WEIGHT_LEVELS * *sum : scale <= 1e-20f ? 0.0f : NAN;
}

/* out = the values' rows, each times its weight. */
INLINE void weigh(const int looks, const int apart, const looking *l, const float *factors, float *out, size_t out_stride)
{
    const size_t width = l->width, padded = l->blocks * MN_LANES, step = apart ? MN_PAGE_HEAD(width) : 0;
    for (size_t d = 0; d < width; d += MN_LANES) {
        sums s[LOOKS * 2];
        UNROLL for (int j = 0; j < 2 * looks; j++) s[j] = sums_zero();
        for (size_t b = 0; b < l->blocks; b++) {
            const int8_t *values = (const int8_t *)l->memory->pages[b] + l->head + 16 * width + d * MN_LANES;
            for (size_t i = 0; i < 4; i++) {
                UNROLL for (int j = 0; j < 2 * looks; j++)
                    s[j] = dot(s[j], values + (size_t)(j / 2) * step + i * 64, l->weights + (size_t)j * padded + b * MN_LANES + 4 * i, 1);
            }
        }
        UNROLL for (int k = 0; k < looks; k++) {
            const i16 upper = sums_get(s[2 * k]), lower = sums_get(s[2 * k + 1]);
            f16 x, y;
            EACH x.part[p] = __builtin_convertvector(upper.part[p], vf);
            EACH y.part[p] = __builtin_convertvector(lower.part[p], vf);
            store(out + (size_t)k * out_stride + d, mul(add(mul(x, all(128)), y), all(factors[k])));
        }
    }
}

INLINE void look(const int looks, const int apart, const looking *l, const float *q, size_t q_stride, float factor,
                 float *looked, float *out, size_t out_stride)
{
    const size_t step = apart ? MN_PAGE_HEAD(l->width) : 0;
    float factors[LOOKS], sum = 0.0f;
    UNROLL for (int k = 0; k < looks; k++) {
        quantize(q + (size_t)k * q_stride, l->width, 0, (uint8_t *)l->queries + (size_t)k * l->width, factors + k);
        factors[k] *= factor;
    }
    size_t b = 0;
    for (; b + 2 <= l->blocks; b += 2) score_pages(looks, 2, apart, l, b, factors);
    if (b < l->blocks) score_pages(looks, 1, apart, l, b, factors);
    UNROLL for (int k = 0; k < looks; k++) {
        const float weights = weights_of(l, (size_t)k, step, looked, &sum);
        factors[k] = isnan(factors[k]) ? NAN : weights; /* a query that overflows leaves nothing behind it that is a number */
    }
    weigh(looks, apart, l, factors, out, out_stride);
    if (!looked) return;
    for (size_t i = 0; i < l->blocks * MN_LANES; i += MN_LANES)
        store(looked + i, add(load(looked + i), mul(load(l->scores + i), all(sum))));
}

static void attend(const float *q, size_t q_stride, size_t queries, const mn_memory *memory, size_t width, float factor,
                   float *looked, float *scores, uint8_t *bytes, float *out, size_t out_stride)
{
    const size_t blocks = MN_ROUND_UP(memory->count) / MN_LANES;
    looking l = {memory, width, blocks, memory->head * MN_PAGE_HEAD(width), bytes + 8 * blocks * MN_LANES, bytes, scores};
    for (size_t i = 0; i < queries;) {
        const size_t some = !looked && queries - i >= LOOKS ? LOOKS : 1;
        if (LOOKS == 1 || some == 1)
            look(1, 0, &l, q + i * q_stride, q_stride, factor, looked, out + i * out_stride, out_stride);
        else if (memory->apart)
            look(LOOKS, 1, &l, q + i * q_stride, q_stride, factor, NULL, out + i * out_stride, out_stride);
        else
            look(LOOKS, 0, &l, q + i * q_stride, q_stride, factor, NULL, out + i * out_stride, out_stride);
        i += some;
        if (memory->apart) l.head += some * MN_PAGE_HEAD(width);
    }
}

/* Attention, a few queries or heads at a time. Included by body.h alone. */

/* Scores of one query to probabilities, in place; lanes from count on become 0. */
static void softmax(float *scores, size_t count)
{
    const size_t padded = MN_ROUND_UP(count), last = padded - MN_LANES;
    store(scores + last, pick(below(count - last), load(scores + last), all(-3e38f)));
    f16 most = load(scores);
    for (size_t i = MN_LANES; i < padded; i += MN_LANES) most = larger(load(scores + i), most);
    const f16 greatest = all(greatest_of(most));
    f16 sum = all(0);
    for (size_t i = 0; i < padded; i += MN_LANES) {
        f16 e = exponential(sub(load(scores + i), greatest));
        if (i == last) e = pick(below(count - last), e, all(0));
        sum = add(sum, e);
        store(scores + i, e);
    }
    const f16 factor = all(1.0f / total(sum));
    for (size_t i = 0; i < padded; i += MN_LANES) store(scores + i, mul(load(scores + i), factor));
}

/* Where the queries that are worked on together have their keys, values and results. */
typedef struct looks {
    const mn_memory *memory;
    const float *q;
    const float *const *rows; /* of values, each somewhere else; NULL: memory->values */
    float *scores, *out;
    size_t start; /* in such a row */
    size_t q_stride, width, padded, out_stride;
} looks;

/* Scores of some queries for some blocks of 16 positions from block `first` on. */
INLINE void score_tile(const int queries, const int blocks, const size_t key_step, const looks *l, size_t first, float factor)
{
    const float *keys = l->memory->keys + first * l->width * MN_LANES, *q = l->q;
    f16 s[16];
    UNROLL for (int j = 0; j < queries * blocks; j++) s[j] = all(0);
    for (size_t d = 0; d < l->width; d++) {
        UNROLL for (int j = 0; j < queries * blocks; j++) {
            const size_t i = (size_t)(j % queries), b = (size_t)(j / queries);
            s[j] = add(s[j], mul(all(q[i * l->q_stride + d]), load(keys + i * key_step + (b * l->width + d) * MN_LANES)));
        }
    }
    UNROLL for (int j = 0; j < queries * blocks; j++)
        store(l->scores + (size_t)(j % queries) * l->padded + (first + (size_t)(j / queries)) * MN_LANES, mul(s[j], all(factor)));
}

/* out = the sum of the values' rows, each times its score, for some queries: `parts` times 16 floats from d on. */
INLINE void weigh_tile(const int queries, const int parts, const size_t value_step, const looks *l, size_t count, size_t d)
{
    const float *values = l->memory->values, *scores = l->scores;
    const size_t stride = l->memory->stride, padded = l->padded;
    f16 sum[16];
    UNROLL for (int j = 0; j < queries * parts; j++) sum[j] = all(0);
    for (size_t t = 0; t < count; t++) {
        const float *row = (l->rows ? l->rows[t] + l->start : values + t * stride) + d;
        UNROLL for (int j = 0; j < queries * parts; j++) {
            const size_t i = (size_t)(j / parts), part = (size_t)(j % parts);
            sum[j] = add(sum[j], mul(all(scores[i * padded + t]), load(row + i * value_step + part * MN_LANES)));
        }
    }
    UNROLL for (int j = 0; j < queries * parts; j++)
        store(l->out + (size_t)(j / parts) * l->out_stride + d + (size_t)(j % parts) * MN_LANES, sum[j]);
}

INLINE void weigh(const int queries, const size_t value_step, const looks *l, size_t count)
{
    size_t d = 0;
#define WEIGH(parts)                                                          \
    for (; d + (parts) * MN_LANES <= l->width; d += (parts) * MN_LANES)       \
        weigh_tile(queries, parts, value_step, l, count, d);
    if (queries * 4 * PARTS <= MOST_SUMS) WEIGH(4)
    if (queries * 3 * PARTS <= MOST_SUMS) WEIGH(3)
    if (queries * 2 * PARTS <= MOST_SUMS) WEIGH(2)
    WEIGH(1)
#undef WEIGH
}

/* Scores, probabilities and results of some queries. */
INLINE void look(const int queries, const size_t key_step, const size_t value_step, const looks *l, float factor)
{
    const size_t blocks = l->padded / MN_LANES;
    size_t b = 0;
#define SCORE(some)                                                                       \
    for (; b + (some) <= blocks; b += (some)) score_tile(queries, some, key_step, l, b, factor);
    if (queries * 4 * PARTS <= MOST_SUMS / 2) SCORE(4)
    if (queries * 2 * PARTS <= MOST_SUMS) SCORE(2)
    SCORE(1)
#undef SCORE
    for (int i = 0; i < queries; i++) softmax(l->scores + (size_t)i * l->padded, l->memory->count);
    weigh(queries, value_step, l, l->memory->count);
}

static void attend(const float *q, size_t q_stride, size_t queries, const mn_memory *memory, size_t width, float factor,
                   float *scores, float *out, size_t out_stride)
{
    looks l = {memory, q, NULL, scores, out, 0, q_stride, width, MN_ROUND_UP(memory->count), out_stride};
    mn_memory own = *memory;
    l.memory = &own;
    for (size_t i = 0; i < queries;) {
        const size_t some = queries - i >= 4 ? 4 : 1;
        l.q = q + i * q_stride;
        l.out = out + i * out_stride;
        own.keys = memory->keys + i * memory->key_step;
        own.values = memory->values + i * memory->value_step;
        if (some == 1)
            look(1, 0, 0, &l, factor);
        else if (memory->key_step)
            look(4, memory->key_step, memory->value_step, &l, factor);
        else
            look(4, 0, 0, &l, factor);
        i += some;
    }
}

static void attend_rows(const float *q, const float *const *keys, const float *const *values, size_t count,
                        size_t heads, size_t width, float factor, float *scores, float *out)
{
    const size_t padded = MN_ROUND_UP(count);
    for (size_t head = 0; head < heads; head++) {
        const size_t start = head * width;
        float *s = scores + head * padded;
        size_t i = 0;
        for (; i + 4 <= count; i += 4) {
            f16 sum[4] = {all(0), all(0), all(0), all(0)};
            for (size_t d = start; d < start + width; d += MN_LANES) {
                const f16 x = load(q + d);
                UNROLL for (int j = 0; j < 4; j++) sum[j] = add(sum[j], mul(x, load(keys[i + (size_t)j] + d)));
            }
            const v4 four = totals(sum) * factor;
            memcpy(s + i, &four, sizeof four);
        }
        for (; i < count; i++) {
            f16 sum = all(0);
            for (size_t d = start; d < start + width; d += MN_LANES) sum = add(sum, mul(load(q + d), load(keys[i] + d)));
            s[i] = total(sum) * factor;
        }
        softmax(s, count);
    }
    for (size_t head = 0; head < heads;) {
        const size_t some = heads - head >= 4 ? 4 : 1, start = head * width;
        const mn_memory memory = {NULL, NULL, 0, (uint32_t)count, 0, 0};
        const looks l = {&memory, NULL, values, scores + head * padded, out + start, start, 0, width, padded, width};
        if (some == 4)
            weigh(4, width, &l, count);
        else
            weigh(1, width, &l, count);
        head += some;
    }
}

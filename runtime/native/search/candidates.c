#include "search/candidates.h"

uint64_t mn_most_candidates(const mn_model *m, uint64_t positions, uint64_t more)
{
    const uint64_t all = m->config.target_vocabulary;
    if (!m->shortlist.common) return MN_ROUND_UP(all);
    /* the end token is one in any case */
    const uint64_t found = mn_plus(mn_plus(mn_times(positions, m->shortlist.width), more), m->shortlist.always + 1ull);
    return MN_ROUND_UP(found < all ? found : all);
}

void mn_candidates_take(const mn_model *m, mn_arena *arena, uint64_t positions, uint64_t more, mn_candidates *c)
{
    *c = (mn_candidates){.matrix = m->output, .count = m->config.target_vocabulary};
    if (!m->shortlist.common) return;
    const uint64_t most = mn_most_candidates(m, positions, more);
    c->scale = MN_TAKE(arena, float, most);
    c->bias = m->output_bias ? MN_TAKE(arena, float, most) : NULL;
    c->sums = MN_TAKE(arena, int32_t, most);
    c->tokens = MN_TAKE(arena, uint32_t, most);
    c->chosen = MN_TAKE(arena, uint8_t, MN_ROUND_UP(m->config.target_vocabulary));
    if (m->output_rows.floats)
        c->floats = MN_TAKE(arena, float, mn_times(most, m->width));
    else
        c->weights = MN_TAKE(arena, int8_t, mn_times(most, m->width));
    if (m->output_rows.multipliers) c->rows = MN_TAKE(arena, uint8_t, MN_LANES * m->width);
}

static void collect(const mn_model *m, const uint32_t *ids, uint32_t count, const uint32_t *extra, uint32_t extra_count,
                    mn_candidates *c)
{
    const mn_shortlist *s = &m->shortlist;
    memset(c->chosen, 0, MN_ROUND_UP(m->config.target_vocabulary));
    memcpy(c->chosen, s->common, m->config.target_vocabulary);
    c->chosen[m->config.eos] = 1;
    for (uint32_t i = 0; i < extra_count; i++) c->chosen[extra[i]] = 1;
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *row = s->lexical + (size_t)ids[i] * s->width * s->bytes;
        for (uint32_t j = 0; j < s->width; j++, row += s->bytes)
            c->chosen[s->bytes == 2 ? (uint32_t)(row[0] | row[1] << 8) : mn_u32(row)] = 1;
    }
    c->count = 0;
    for (uint32_t first = 0; first < m->config.target_vocabulary; first += 8) {
        if (!mn_u64(c->chosen + first)) continue;
        for (uint32_t token = first; token < first + 8; token++)
            if (c->chosen[token]) c->tokens[c->count++] = token;
    }
}

#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define SHUFFLE(a, b, i, j, k, l) __builtin_shuffle(a, b, (u4){i, j, k, l})
#endif

typedef uint32_t u4 __attribute__((vector_size(16)));

/* Sixteen bytes of four rows, four by four, side by side in a block. What it returns is zero at the highest bit of all
   bytes if no weight lies outside -64 to 63. */
static inline uint32_t turn_four(const uint8_t *const *rows, size_t at, uint32_t flip, int8_t *to)
{
    u4 x[4], wide = {0, 0, 0, 0};
    for (int o = 0; o < 4; o++) {
        memcpy(x + o, rows[o] + at, 16);
        x[o] ^= flip;
        wide |= x[o] ^ x[o] << 1;
    }
    const u4 a = SHUFFLE(x[0], x[1], 0, 4, 1, 5), b = SHUFFLE(x[2], x[3], 0, 4, 1, 5);
    const u4 c = SHUFFLE(x[0], x[1], 2, 6, 3, 7), d = SHUFFLE(x[2], x[3], 2, 6, 3, 7);
    const u4 turned[4] = {SHUFFLE(a, b, 0, 1, 4, 5), SHUFFLE(a, b, 2, 3, 6, 7), SHUFFLE(c, d, 0, 1, 4, 5), SHUFFLE(c, d, 2, 3, 6, 7)};
    for (int i = 0; i < 4; i++) memcpy(to + 64 * i, turned + i, 16);
    return wide[0] | wide[1] | wide[2] | wide[3];
}

/* Sixteen rows of bytes to a block; those from `count` on stay zero. 1 if some weight lies outside -64 to 63, which is
   where the highest two bits differ. */
static uint32_t copy_rows(const mn_model *m, const uint32_t *tokens, size_t count, uint8_t *expanded, int8_t *block)
{
    const mn_table *table = &m->output_rows;
    const size_t whole = m->config.d_model / 4 * 4;
    const uint32_t flip = table->flip * 0x01010101u;
    const uint8_t *rows[MN_LANES];
    uint32_t wide = 0;
    for (size_t o = 0; o < count; o++) rows[o] = table->rows + tokens[o] * table->stride;
    for (size_t o = 0; table->multipliers && o < count; o++) {
        const size_t blocks = (m->config.d_model + table->block - 1) / table->block;
        mn_expand(rows[o], table->multipliers + tokens[o] * blocks, table->block, m->config.d_model, expanded + o * m->width);
        rows[o] = expanded + o * m->width;
    }
    if (count < MN_LANES || whole < m->width) memset(block, 0, m->width * MN_LANES);
    size_t i = 0;
    if (count == MN_LANES)
        for (; i + 16 <= whole; i += 16)
            for (size_t o = 0; o < MN_LANES; o += 4) wide |= turn_four(rows + o, i, flip, block + i * MN_LANES + o * 4);
    for (; i < whole; i += 4) {
        for (size_t o = 0; o < count; o++) {
            uint32_t four;
            memcpy(&four, rows[o] + i, 4);
            four ^= flip;
            wide |= four ^ four << 1;
            memcpy(block + i * MN_LANES + o * 4, &four, 4);
        }
    }
    wide &= 0x80808080u;
    for (i = whole; i < m->config.d_model; i++)
        for (size_t o = 0; o < count; o++) block[whole * MN_LANES + o * 4 + i % 4] = (int8_t)(rows[o][i] ^ table->flip);
    return wide || whole < m->config.d_model;
}

/* Likewise of floats. */
MN_SMALL static void copy_floats(const mn_model *m, const uint32_t *tokens, size_t count, float *block)
{
    memset(block, 0, m->width * MN_LANES * sizeof(float));
    for (size_t o = 0; o < count; o++) {
        const uint8_t *row = m->output_rows.rows + tokens[o] * m->output_rows.stride;
        for (size_t i = 0; i < m->config.d_model; i++) block[i * MN_LANES + o] = mn_f32(row + 4 * i);
    }
}

void mn_candidates_choose(const mn_model *m, const uint32_t *ids, uint32_t count, const uint32_t *extra,
                          uint32_t extra_count, mn_candidates *c)
{
    if (!m->shortlist.common) return;
    collect(m, ids, count, extra, extra_count, c);
    const uint32_t padded = (uint32_t)MN_ROUND_UP(c->count);
    const mn_table *table = &m->output_rows;
    uint32_t wide = 0;
    for (uint32_t first = 0; first < padded; first += MN_LANES) {
        const uint32_t some = c->count - first < MN_LANES ? c->count - first : MN_LANES;
        if (c->floats)
            copy_floats(m, c->tokens + first, some, c->floats + (size_t)first * m->width);
        else
            wide |= copy_rows(m, c->tokens + first, some, c->rows, c->weights + (size_t)first * m->width);
    }
    for (uint32_t i = 0; i < padded; i++) {
        c->scale[i] = i < c->count && !c->floats ? mn_f32(table->scale + c->tokens[i] * table->scale_stride) : 0.0f;
        if (c->bias) c->bias[i] = i < c->count ? mn_f32(m->output_bias + 4ull * c->tokens[i]) : 0.0f;
    }
    c->matrix = (mn_matrix){c->weights, c->scale, c->bias, c->sums, padded, (uint32_t)m->width, wide, c->floats};
    if (!c->floats) m->kernels->sum(&c->matrix, c->sums);
}

uint32_t mn_candidate_of(const mn_candidates *c, uint32_t token)
{
    if (!c->tokens) return token < c->count ? token : MN_NONE;
    uint32_t low = 0, high = c->count;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (c->tokens[middle] < token)
            low = middle + 1;
        else
            high = middle;
    }
    return low < c->count && c->tokens[low] == token ? low : MN_NONE;
}

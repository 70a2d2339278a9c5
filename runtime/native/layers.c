#include "layers.h"

#include <math.h>

static size_t most(size_t a, size_t b) { return a > b ? a : b; }

void mn_work_take(const mn_model *m, mn_arena *arena, uint64_t rows, uint64_t positions, mn_work *work)
{
    const size_t inner = most(m->encoder_inner, m->decoder_inner);
    const size_t wide = most(3 * inner, most(m->encoder_hidden, m->decoder_hidden));
    const uint64_t padded = MN_ROUND_UP(positions);
    work->state = MN_TAKE(arena, float, mn_times(rows, m->width));
    work->normal = m->config.pre_norm ? MN_TAKE(arena, float, mn_times(rows, m->width)) : work->state;
    work->branch = MN_TAKE(arena, float, mn_times(rows, m->width));
    work->wide = MN_TAKE(arena, float, mn_times(rows, wide));
    work->inner = MN_TAKE(arena, float, mn_times(rows, inner));
    work->keys = MN_TAKE(arena, float, mn_times(padded, m->encoder_head));
    work->scores = MN_TAKE(arena, float, mn_times(most(4, m->config.decoder_heads), padded));
    work->bytes = MN_TAKE(arena, uint8_t, mn_times(rows, most(wide, most(inner, m->width))));
    work->scales = MN_TAKE(arena, float, rows);
    work->key_rows = MN_TAKE(arena, const float *, positions);
    work->value_rows = MN_TAKE(arena, const float *, positions);
}

void mn_cross_take(const mn_model *m, mn_arena *arena, uint64_t positions, mn_cross *cross)
{
    const uint64_t layers = m->config.decoder_layers, size = mn_times(positions, m->decoder_inner);
    const uint64_t keys = mn_times(MN_ROUND_UP(positions), m->decoder_inner);
    cross->key_size = (size_t)keys;
    cross->keys = MN_TAKE(arena, float, mn_times(layers, keys));
    cross->values = MN_TAKE(arena, float, mn_times(layers, size));
}

/* The embedding of a token times its factor, plus the vector of its position. */
static void embed(const mn_model *m, const mn_table *table, const mn_positions *positions, uint32_t token,
                  uint32_t position, float *x)
{
    const uint32_t n = m->config.d_model, half = (n + 1) / 2;
    if (table->matrix) {
        const mn_matrix *t = table->matrix;
        const int8_t *weights = t->weights + (token / MN_LANES * (size_t)t->inputs) * MN_LANES + token % MN_LANES * 4;
        const float scale = t->scale[token] * m->config.embedding_factor;
        for (uint32_t i = 0; i < n; i++) x[i] = (float)weights[i / 4 * 64 + i % 4] * scale;
    } else {
        const uint8_t *row = table->rows + token * table->stride;
        const float scale = mn_f32(table->scale + token * table->scale_stride) * m->config.embedding_factor;
        for (uint32_t i = 0; i < n; i++) x[i] = (float)(int8_t)(row[i] ^ table->flip) * scale;
    }
    if (positions->table) {
        const uint8_t *row = positions->table + (size_t)position * n * 4;
        for (uint32_t i = 0; i < n; i++) x[i] += mn_f32(row + 4 * i);
    } else { /* sin(a + b) and cos(a + b), where a is that of every sixteenth row */
        const uint8_t *sin_a = positions->blocks + (size_t)(position / 16) * 8 * half, *cos_a = sin_a + 4 * half;
        const uint8_t *sin_b = positions->sines + (size_t)(position % 16) * 4 * half;
        const uint8_t *cos_b = positions->cosines + (size_t)(position % 16) * 4 * half;
        for (uint32_t i = 0; i < half; i++) {
            const float sa = mn_f32(sin_a + 4 * i), ca = mn_f32(cos_a + 4 * i);
            const float sb = mn_f32(sin_b + 4 * i), cb = mn_f32(cos_b + 4 * i);
            x[i] += sa * cb + ca * sb;
            if (half + i < n) x[half + i] += ca * cb - sa * sb;
        }
    }
    for (size_t i = n; i < m->width; i++) x[i] = 0.0f;
}

static void quantize(const mn_model *m, mn_work *work, const float *x, size_t stride, size_t n, size_t rows, int positive)
{
    for (size_t r = 0; r < rows; r++)
        m->kernels->quantize(x + r * stride, n, positive, work->bytes + r * n, work->scales + r);
}

static void linear(const mn_model *m, mn_work *work, const mn_matrix *matrix, const float *x, size_t stride, size_t rows,
                   int positive, float *y)
{
    quantize(m, work, x, stride, matrix->inputs, rows, positive);
    m->kernels->multiply(matrix, work->bytes, work->scales, positive, rows, y, matrix->outputs);
}

/* What a block takes: the state, or in a pre-norm model its norm. */
static const float *block_input(const mn_model *m, mn_work *work, const mn_norm *norm, size_t rows)
{
    if (!m->config.pre_norm) return work->state;
    for (size_t r = 0; r < rows; r++)
        m->kernels->norm(work->state + r * m->width, NULL, norm->weight, norm->bias, m->config.d_model,
                         work->normal + r * m->width);
    return work->normal;
}

/* Add the branch to the state, and normalize it in a post-norm model. */
static void close_block(const mn_model *m, mn_work *work, const mn_norm *norm, size_t rows)
{
    for (size_t r = 0; r < rows; r++) {
        float *state = work->state + r * m->width;
        const float *branch = work->branch + r * m->width;
        if (m->config.pre_norm)
            m->kernels->add(state, branch, m->width, state);
        else
            m->kernels->norm(state, branch, norm->weight, norm->bias, m->config.d_model, state);
    }
}

static int never_negative(uint32_t activation)
{
    return activation == MN_RELU || activation == MN_RELU2 || activation == MN_RELU6 || activation == MN_SIGMOID;
}

static void feed_forward(const mn_model *m, mn_work *work, const mn_matrix *fc1, const mn_matrix *fc2, const mn_norm *norm,
                         size_t used, size_t rows)
{
    const mn_activation kind = (mn_activation)m->config.activation;
    linear(m, work, fc1, block_input(m, work, norm, rows), m->width, rows, 0, work->wide);
    m->kernels->activate(kind, work->wide, rows * fc1->outputs);
    if (used < fc1->outputs) /* sigmoid(0) is not 0: what pads a row must not reach its scale */
        for (size_t r = 0; r < rows; r++)
            memset(work->wide + r * fc1->outputs + used, 0, (fc1->outputs - used) * sizeof(float));
    linear(m, work, fc2, work->wide, fc1->outputs, rows, never_negative(kind), work->branch);
    close_block(m, work, norm, rows);
}

/* Keys of one head, [count] rows `stride` apart, to blocks of 16 positions. */
static void pack_keys(const float *rows, size_t stride, uint32_t count, size_t width, float *keys)
{
    const size_t padded = MN_ROUND_UP(count);
    for (size_t first = 0; first < padded; first += MN_LANES)
        for (size_t d = 0; d < width; d++)
            for (size_t i = 0; i < MN_LANES; i++)
                keys[(first * width) + d * MN_LANES + i] = first + i < count ? rows[(first + i) * stride + d] : 0.0f;
}

static float head_factor(uint32_t d_model, uint32_t heads) { return 1.0f / sqrtf((float)(d_model / heads)); }

static void encoder_attention(const mn_model *m, mn_work *work, const mn_encoder_layer *layer, uint32_t count)
{
    const size_t inner = m->encoder_inner, width = m->encoder_head, stride = layer->qkv.outputs;
    const float factor = head_factor(m->config.d_model, m->config.encoder_heads);
    linear(m, work, &layer->qkv, block_input(m, work, &layer->attention_norm, count), m->width, count, 0, work->wide);
    for (uint32_t head = 0; head < m->config.encoder_heads; head++) {
        const float *q = work->wide + head * width;
        pack_keys(q + inner, stride, count, width, work->keys);
        const mn_memory memory = {work->keys, q + 2 * inner, stride, count, 0, 0};
        m->kernels->attend(q, stride, count, &memory, width, factor, work->scores, work->inner + head * width, inner);
    }
    linear(m, work, &layer->out, work->inner, inner, count, 0, work->branch);
    close_block(m, work, &layer->attention_norm, count);
}

void mn_encode_source(const mn_model *m, mn_work *work, const uint32_t *ids, uint32_t count, mn_cross *cross)
{
    for (uint32_t i = 0; i < count; i++)
        embed(m, &m->source, &m->encoder_positions, ids[i], i, work->state + i * m->width);
    for (uint32_t i = 0; i < m->config.encoder_layers; i++) {
        const mn_encoder_layer *layer = m->encoder + i;
        encoder_attention(m, work, layer, count);
        feed_forward(m, work, &layer->fc1, &layer->fc2, &layer->last_norm, m->config.encoder_ffn, count);
    }
    const float *encoded = block_input(m, work, &m->encoder_norm, count);
    cross->count = count;
    quantize(m, work, encoded, m->width, m->width, count, 0);
    for (uint32_t i = 0; i < m->config.decoder_layers; i++) {
        const mn_matrix *kv = &m->decoder[i].cross_kv;
        const size_t inner = m->decoder_inner, width = m->decoder_head, padded = MN_ROUND_UP(count);
        float *keys = cross->keys + i * cross->key_size, *values = cross->values + i * count * inner;
        m->kernels->multiply(kv, work->bytes, work->scales, 0, count, work->wide, kv->outputs);
        for (uint32_t head = 0; head < m->config.decoder_heads; head++)
            pack_keys(work->wide + head * width, kv->outputs, count, width, keys + head * width * padded);
        for (uint32_t t = 0; t < count; t++)
            memcpy(values + t * inner, work->wide + t * kv->outputs + inner, inner * sizeof(float));
    }
}

static void self_attention(const mn_model *m, mn_work *work, uint32_t index, const mn_row *rows, uint32_t count)
{
    const mn_decoder_layer *layer = m->decoder + index;
    const size_t inner = m->decoder_inner, pair = 2 * inner;
    const float factor = head_factor(m->config.d_model, m->config.decoder_heads);
    linear(m, work, &layer->qkv, block_input(m, work, &layer->attention_norm, count), m->width, count, 0, work->wide);
    for (uint32_t r = 0; r < count; r++) {
        const mn_row *row = rows + r;
        const float *q = work->wide + r * layer->qkv.outputs;
        float *cache = row->cache + (size_t)index * row->steps * row->beams * pair;
        memcpy(cache + ((size_t)row->position * row->beams + row->beam) * pair, q + inner, pair * sizeof(float));
        for (uint32_t t = 0; t <= row->position; t++) {
            const uint32_t beam = t == row->position ? row->beam : row->ancestors ? row->ancestors[t] : 0;
            work->key_rows[t] = cache + ((size_t)t * row->beams + beam) * pair;
            work->value_rows[t] = work->key_rows[t] + inner;
        }
        m->kernels->attend_rows(q, work->key_rows, work->value_rows, row->position + 1, m->config.decoder_heads,
                                m->decoder_head, factor, work->scores, work->inner + r * inner);
    }
    linear(m, work, &layer->out, work->inner, inner, count, 0, work->branch);
    close_block(m, work, &layer->attention_norm, count);
}

static void cross_attention(const mn_model *m, mn_work *work, uint32_t index, const mn_row *rows, uint32_t count)
{
    const mn_decoder_layer *layer = m->decoder + index;
    const size_t inner = m->decoder_inner, width = m->decoder_head;
    const float factor = head_factor(m->config.d_model, m->config.decoder_heads);
    const uint32_t look_head = m->config.look_head;
    linear(m, work, &layer->cross_q, block_input(m, work, &layer->cross_norm, count), m->width, count, 0, work->wide);
    for (uint32_t r = 0, some; r < count; r += some) {
        const mn_cross *cross = rows[r].cross;
        const size_t padded = MN_ROUND_UP(cross->count), stride = layer->cross_q.outputs;
        float *looked = index == m->config.look_layer ? rows[r].attention : NULL;
        for (some = 1; !looked && r + some < count && rows[r + some].cross == cross;) some++; /* a beam looks together */
        if (looked) memset(looked, 0, padded * sizeof(float));
        const float *keys = cross->keys + index * cross->key_size;
        const float *values = cross->values + (size_t)index * cross->count * inner;
        if (!looked && some < 4) { /* too few rows: take the heads together */
            const mn_memory memory = {keys, values, inner, cross->count, width * padded, width};
            for (uint32_t i = r; i < r + some; i++)
                m->kernels->attend(work->wide + i * stride, width, m->config.decoder_heads, &memory, width, factor,
                                   work->scores, work->inner + i * inner, width);
            continue;
        }
        for (uint32_t head = 0; head < m->config.decoder_heads; head++) {
            const mn_memory memory = {keys + head * width * padded, values + head * width, inner, cross->count, 0, 0};
            m->kernels->attend(work->wide + r * stride + head * width, stride, some, &memory, width, factor,
                               work->scores, work->inner + r * inner + head * width, inner);
            if (looked && (look_head == MN_NONE || look_head == head))
                m->kernels->add(looked, work->scores, padded, looked);
        }
    }
    linear(m, work, &layer->cross_out, work->inner, inner, count, 0, work->branch);
    close_block(m, work, &layer->cross_norm, count);
}

void mn_decode_step(const mn_model *m, mn_work *work, const mn_row *rows, uint32_t count)
{
    for (uint32_t r = 0; r < count; r++)
        embed(m, &m->target, &m->decoder_positions, rows[r].token, rows[r].position, work->state + r * m->width);
    for (uint32_t i = 0; i < m->config.decoder_layers; i++) {
        const mn_decoder_layer *layer = m->decoder + i;
        self_attention(m, work, i, rows, count);
        cross_attention(m, work, i, rows, count);
        feed_forward(m, work, &layer->fc1, &layer->fc2, &layer->last_norm, m->config.decoder_ffn, count);
    }
    quantize(m, work, block_input(m, work, &m->decoder_norm, count), m->width, m->width, count, 0);
}

void mn_logits(const mn_model *m, const mn_work *work, const mn_matrix *output, uint32_t first, uint32_t count,
               float *logits, size_t stride)
{
    m->kernels->multiply(output, work->bytes + first * m->width, work->scales + first, 0, count, logits, stride);
}

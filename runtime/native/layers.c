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
    work->scores = MN_TAKE(arena, float, mn_times(4, padded));
    work->looks = MN_TAKE(arena, uint8_t, mn_plus(mn_times(8, padded), 4 * most(m->encoder_head, m->decoder_head)));
    work->bytes = MN_TAKE(arena, uint8_t, mn_times(rows, most(wide, most(inner, m->width))));
    work->scales = MN_TAKE(arena, float, rows);
    work->kept = MN_TAKE(arena, uint8_t, mn_times(padded / MN_LANES, m->config.encoder_heads * MN_PAGE_HEAD(m->encoder_head)));
    work->pages = MN_TAKE(arena, const uint8_t *, padded / MN_LANES);
}

void mn_cross_take(const mn_model *m, mn_arena *arena, uint64_t positions, mn_cross *cross)
{
    const uint64_t pages = mn_times(m->config.decoder_layers, MN_ROUND_UP(positions) / MN_LANES);
    cross->pages = MN_TAKE(arena, uint8_t, mn_times(pages, mn_page_bytes(m)));
}

/* The embedding of a token times its factor, plus the vector of its position. */
static void embed(const mn_model *m, const mn_table *table, const mn_positions *positions, uint32_t token,
                  uint32_t position, float *x)
{
    const uint32_t n = m->config.d_model, half = (n + 1) / 2;
    if (table->floats) {
        const mn_matrix *t = table->matrix;
        const float *blocks = t ? t->floats + token / MN_LANES * (size_t)t->inputs * MN_LANES + token % MN_LANES : NULL;
        const uint8_t *row = table->rows + token * table->stride;
        for (uint32_t i = 0; i < n; i++) x[i] = (blocks ? blocks[(size_t)i * MN_LANES] : mn_f32(row + 4 * i)) * m->config.embedding_factor;
    } else if (table->matrix) {
        const mn_matrix *t = table->matrix;
        const int8_t *weights = t->weights + (token / MN_LANES * (size_t)t->inputs) * MN_LANES + token % MN_LANES * 4;
        const float scale = t->scale[token] * m->config.embedding_factor;
        for (uint32_t i = 0; i < n; i++) x[i] = (float)weights[i / 4 * 64 + i % 4] * scale;
    } else {
        const uint8_t *row = table->rows + token * table->stride;
        const float scale = mn_f32(table->scale + token * table->scale_stride) * m->config.embedding_factor;
        if (table->multipliers) { /* in the place of the floats, from whose end they are taken before it is written over */
            uint8_t *const bytes = (uint8_t *)x;
            mn_expand(row, table->multipliers + token * (size_t)((n + table->block - 1) / table->block), table->block, n, bytes);
            for (uint32_t i = n; i-- > 0;) x[i] = (float)(int8_t)bytes[i] * scale;
        } else {
            for (uint32_t i = 0; i < n; i++) x[i] = (float)(int8_t)(row[i] ^ table->flip) * scale;
        }
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
    if (matrix->floats) {
        m->kernels->multiply_floats(matrix, x, stride, rows, y, matrix->outputs);
        return;
    }
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

/* Pages of `count` positions, whose keys and values are rows `stride` floats apart. */
static void keep_all(const mn_model *m, const float *keys, const float *values, size_t stride, uint32_t count,
                     uint32_t heads, size_t width, uint8_t *pages)
{
    for (uint32_t first = 0; first < count; first += MN_LANES, pages += heads * MN_PAGE_HEAD(width))
        m->kernels->keep(keys + first * stride, values + first * stride, stride, count - first < MN_LANES ? count - first : MN_LANES,
                         heads, width, 0, pages);
}

static float head_factor(uint32_t d_model, uint32_t heads) { return 1.0f / sqrtf((float)(d_model / heads)); }

static void encoder_attention(const mn_model *m, mn_work *work, const mn_encoder_layer *layer, uint32_t count)
{
    const size_t inner = m->encoder_inner, width = m->encoder_head, stride = layer->qkv.outputs;
    const float factor = head_factor(m->config.d_model, m->config.encoder_heads);
    linear(m, work, &layer->qkv, block_input(m, work, &layer->attention_norm, count), m->width, count, 0, work->wide);
    keep_all(m, work->wide + inner, work->wide + 2 * inner, stride, count, m->config.encoder_heads, width, work->kept);
    for (uint32_t i = 0; i * MN_LANES < count; i++)
        work->pages[i] = work->kept + i * m->config.encoder_heads * MN_PAGE_HEAD(width);
    for (uint32_t head = 0; head < m->config.encoder_heads; head++) {
        const mn_memory memory = {work->pages, count, head, 0};
        m->kernels->attend(work->wide + head * width, stride, count, &memory, width, factor, NULL, work->scores, work->looks,
                           work->inner + head * width, inner);
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
        if (kv->floats)
            m->kernels->multiply_floats(kv, encoded, m->width, count, work->wide, kv->outputs);
        else
            m->kernels->multiply(kv, work->bytes, work->scales, 0, count, work->wide, kv->outputs);
        keep_all(m, work->wide, work->wide + m->decoder_inner, kv->outputs, count, m->config.decoder_heads, m->decoder_head,
                 cross->pages + i * (MN_ROUND_UP(count) / MN_LANES) * mn_page_bytes(m));
    }
}

static void self_attention(const mn_model *m, mn_work *work, uint32_t index, const mn_row *rows, uint32_t count)
{
    const mn_decoder_layer *layer = m->decoder + index;
    const size_t inner = m->decoder_inner, width = m->decoder_head, page = mn_page_bytes(m);
    const float factor = head_factor(m->config.d_model, m->config.decoder_heads);
    linear(m, work, &layer->qkv, block_input(m, work, &layer->attention_norm, count), m->width, count, 0, work->wide);
    for (uint32_t r = 0; r < count; r++) {
        const mn_row *row = rows + r;
        const uint32_t heads = m->config.decoder_heads, last = row->position / MN_LANES;
        const float *q = work->wide + r * layer->qkv.outputs;
        uint8_t *to = NULL;
        for (uint32_t i = 0; i <= last; i++) {
            const size_t leaf = (size_t)i * row->beams + (row->table ? row->table[i] : 0);
            work->pages[i] = to = row->cache + (leaf * m->config.decoder_layers + index) * page;
        }
        m->kernels->keep(q + inner, q + 2 * inner, 0, 1, heads, width, row->position % MN_LANES, to);
        const mn_memory memory = {work->pages, row->position + 1, 0, 1};
        m->kernels->attend(q, width, heads, &memory, width, factor, NULL, work->scores, work->looks, work->inner + r * inner, width);
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
        const size_t padded = MN_ROUND_UP(cross->count), stride = layer->cross_q.outputs, blocks = padded / MN_LANES;
        float *looked = index == m->config.look_layer ? rows[r].attention : NULL;
        for (some = 1; !looked && r + some < count && rows[r + some].cross == cross;) some++; /* a beam looks together */
        if (looked) memset(looked, 0, padded * sizeof(float));
        for (size_t i = 0; i < blocks; i++) work->pages[i] = cross->pages + (index * blocks + i) * mn_page_bytes(m);
        mn_memory memory = {work->pages, cross->count, 0, 1};
        if (!looked && some < 4) { /* too few rows: take the heads together */
            for (uint32_t i = r; i < r + some; i++)
                m->kernels->attend(work->wide + i * stride, width, m->config.decoder_heads, &memory, width, factor, NULL,
                                   work->scores, work->looks, work->inner + i * inner, width);
            continue;
        }
        memory.apart = 0;
        for (; memory.head < m->config.decoder_heads; memory.head++)
            m->kernels->attend(work->wide + r * stride + memory.head * width, stride, some, &memory, width, factor,
                               look_head == MN_NONE || look_head == memory.head ? looked : NULL, work->scores, work->looks,
                               work->inner + r * inner + memory.head * width, inner);
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
    if (output->floats) /* `normal` is what the last norm gave, in a post-norm model the state itself */
        m->kernels->multiply_floats(output, work->normal + first * m->width, m->width, count, logits, stride);
    else
        m->kernels->multiply(output, work->bytes + first * m->width, work->scales + first, 0, count, logits, stride);
}

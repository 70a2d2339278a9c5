/* Why the blocks are made at opening and not stored: weights.bin stays one file for both engines, and the pages it is
   read from are the system's, to be taken back. */

#include "layout.h"

#include "error.h"

enum { SOURCE, TARGET, OUTPUT, ENCODER_POSITIONS, DECODER_POSITIONS, BLOCKS, SINES, COSINES, COMMON, LEXICAL,
       ENCODER_NORM, DECODER_NORM };
enum { ABSENT, INT8_COLUMNS, UINT8_ROWS, INT8_ROWS, NORM, FLOATS, FLAGS, UINT16, INT32, INT4_ROWS, FLOAT_ROWS };

#define NO_BIAS UINT64_MAX
#define MOST_COLUMNS 65536 /* the widest layer that open.c lets pass */

typedef struct record {
    uint32_t index, kind, rows, columns, stride, scale_stride;
    uint64_t values, scale, bias;
    uint64_t multipliers; /* of 4 bits, as `block` is */
    uint32_t block;
} record;

/* What a model is made of while it is laid out: first only counted, then filled. */
typedef struct maker {
    mn_model *model;
    const mn_tensors *tensors;
    mn_error *error;
    mn_arena arena;
    uint8_t *row; /* of 4 bits, expanded */
    uint32_t next;
    mn_status status;
} maker;

static void fail(maker *make, uint32_t index, const char *what)
{
    if (make->status == MN_OK) make->status = mn_fail(make->error, MN_ERROR_PACK, "native.bin: tensor %u: %s", index, what);
}

MN_SMALL static record read(const maker *make, uint32_t index)
{
    const uint8_t *at = make->tensors->records + 48ull * index;
    const int blocks = mn_u32(at) == INT4_ROWS;
    return (record){index, mn_u32(at), mn_u32(at + 4), mn_u32(at + 8), mn_u32(at + 12), blocks ? 1 : mn_u32(at + 40),
                    mn_u64(at + 16), mn_u64(at + 24), mn_u64(at + 32), blocks ? mn_u64(at + 40) >> 8 : 0,
                    blocks ? mn_u32(at + 40) & 0xFF : 0};
}

/* Do `count` groups of `bytes`, `stride` apart, lie in weights.bin? */
static int inside(const maker *make, uint64_t offset, uint64_t count, uint64_t stride, uint64_t bytes)
{
    const uint64_t size = make->model->weights.bytes;
    if (!count) return offset <= size;
    const uint64_t end = mn_plus(offset, mn_plus(mn_times(count - 1, stride), bytes));
    return end <= size;
}

static const uint8_t *bytes_at(const maker *make, uint64_t offset) { return make->model->weights.data + offset; }

/* What was read for good need not stay while the rest is made: else a model would take twice its memory for a moment. */
static void give_back(const maker *make, uint64_t offset, uint64_t bytes)
{
    if (make->model->give_back) make->model->give_back(make->model->weights, offset, bytes);
}

void mn_expand(const uint8_t *row, const uint8_t *multipliers, uint32_t block, size_t n, uint8_t *to)
{
    for (size_t first = 0; first < n; first += block) {
        const unsigned m = *multipliers++;
        const size_t pairs = ((n - first < block ? n - first : block) + 1) / 2;
        for (size_t i = 0; i < pairs; i++, to += 2) {
            const unsigned two = *row++;
            to[0] = (uint8_t)(((two & 15) - 8) * m);
            to[1] = (uint8_t)(((two >> 4) - 8) * m);
        }
    }
}

#define READ_AT_ONCE (1u << 20)

/* Bytes of so many elements of a row. */
static uint64_t bytes_of(const record *r, uint64_t elements)
{
    return r->kind == INT4_ROWS ? (elements + 1) / 2 : r->kind == FLOAT_ROWS ? 4 * elements : elements;
}

static uint64_t blocks_of(const record *r) { return r->block ? (r->columns + (uint64_t)r->block - 1) / r->block : 0; }

/* Checks the record of a matrix; 1 if all of it is there. */
MN_SMALL static int check_matrix(maker *make, const record *r, uint32_t rows, uint32_t columns)
{
    const int by_columns = r->kind == INT8_COLUMNS;
    if (!by_columns && r->kind != UINT8_ROWS && r->kind != INT8_ROWS && r->kind != INT4_ROWS && r->kind != FLOAT_ROWS)
        return fail(make, r->index, "no matrix"), 0;
    if (r->rows != rows || r->columns != columns) return fail(make, r->index, "a matrix of another size"), 0;
    if (r->stride < (by_columns ? rows : columns)) return fail(make, r->index, "rows that overlap"), 0;
    if (r->kind == INT4_ROWS && (r->block < 16 || r->block > 128 || (r->block & (r->block - 1)) || r->stride % 2))
        return fail(make, r->index, "4 bits in blocks of no known size"), 0;
    if (!inside(make, r->values, by_columns ? columns : rows, bytes_of(r, r->stride), bytes_of(r, by_columns ? rows : columns)) ||
        (r->kind != FLOAT_ROWS && !inside(make, r->scale, rows, 4ull * r->scale_stride, 4)) ||
        (r->block && !inside(make, r->multipliers, rows, blocks_of(r), blocks_of(r))) ||
        (r->bias != NO_BIAS && !inside(make, r->bias, rows, 4, 4)))
        return fail(make, r->index, "it lies outside weights.bin"), 0;
    return 1;
}

static int check_plain(maker *make, const record *r, uint32_t kind, uint64_t rows, uint64_t columns, uint64_t size)
{
    if (r->kind != kind || r->rows != rows || r->columns != columns) return fail(make, r->index, "of another kind or size"), 0;
    if (!inside(make, r->values, rows, columns * size, columns * size))
        return fail(make, r->index, "it lies outside weights.bin"), 0;
    return 1;
}

/* Rows or columns of a matrix, `groups` groups of `used` that take `padded` places each: heads are padded to 16. */
typedef struct spread {
    uint32_t groups, used;
    size_t padded;
} spread;

/* Which of the file's rows goes to a place, or MN_NONE for padding. */
static uint32_t source_of(const spread *s, size_t place)
{
    const size_t group = place / s->padded, in_group = place % s->padded;
    return group < s->groups && in_group < s->used ? (uint32_t)(group * s->used + in_group) : MN_NONE;
}

MN_SMALL static void copy_floats(const maker *make, const record *r, size_t first, const spread *outputs,
                                 const spread *inputs, float *to)
{
    for (size_t o = 0; o < MN_LANES; o++) {
        const uint32_t row = source_of(outputs, first + o);
        if (row == MN_NONE) continue;
        const uint8_t *from = bytes_at(make, r->values + bytes_of(r, r->stride) * row);
        for (size_t group = 0; group < inputs->groups; group++)
            for (size_t i = 0; i < inputs->used; i++, from += 4) to[(group * inputs->padded + i) * MN_LANES + o] = mn_f32(from);
    }
}

static void copy_block(const maker *make, const record *r, size_t first, const spread *outputs, const spread *inputs,
                       int8_t *to)
{
    const uint8_t *values = bytes_at(make, r->values);
    const uint8_t flip = r->kind == UINT8_ROWS ? 0x80 : 0;
    const size_t row_step = r->kind == INT8_COLUMNS ? 1 : r->stride, column_step = r->kind == INT8_COLUMNS ? r->stride : 1;
    for (size_t o = 0; o < MN_LANES; o++) {
        const uint32_t row = source_of(outputs, first + o);
        if (row == MN_NONE) continue;
        const uint8_t *start = values + row * row_step;
        if (r->block) {
            mn_expand(bytes_at(make, r->values + r->stride / 2ull * row), bytes_at(make, r->multipliers + blocks_of(r) * row),
                      r->block, r->columns, make->row);
            start = make->row;
        }
        for (size_t group = 0; group < inputs->groups; group++) {
            const uint8_t *from = start + group * inputs->used * column_step;
            const size_t place = group * inputs->padded;
            for (size_t i = 0; i < inputs->used; i++)
                to[(place + i) / 4 * 64 + o * 4 + (place + i) % 4] = (int8_t)(from[i * column_step] ^ flip);
        }
    }
}

static void fill_matrix(const maker *make, const record *r, const spread *outputs, const spread *inputs, mn_matrix *matrix,
                        int8_t *weights, float *floats, float *scale, float *bias, int32_t *sums)
{
    const uint64_t size = (uint64_t)matrix->outputs * matrix->inputs;
    const uint64_t lines = r->kind == INT8_COLUMNS ? r->columns : r->rows, stride = bytes_of(r, r->stride);
    uint64_t given = 0; /* rows */
    if (floats)
        memset(floats, 0, (size_t)size * sizeof(float));
    else
        memset(weights, 0, (size_t)size);
    for (size_t first = 0; first < matrix->outputs; first += MN_LANES) {
        if (floats)
            copy_floats(make, r, first, outputs, inputs, floats + first * matrix->inputs);
        else
            copy_block(make, r, first, outputs, inputs, weights + first * matrix->inputs);
        const uint32_t row = source_of(outputs, first);
        if (r->kind == INT8_COLUMNS || row == MN_NONE || (row - given) * stride < READ_AT_ONCE) continue;
        give_back(make, r->values + given * stride, (row - given) * stride);
        given = row;
    }
    give_back(make, r->values + given * stride, (lines - given) * stride); /* ends with the file at the latest */
    for (size_t o = 0; o < matrix->outputs; o++) {
        const uint32_t row = source_of(outputs, o);
        if (!floats) scale[o] = row == MN_NONE ? 0.0f : mn_f32(bytes_at(make, r->scale + 4ull * r->scale_stride * row));
        if (bias) bias[o] = row == MN_NONE ? 0.0f : mn_f32(bytes_at(make, r->bias + 4ull * row));
    }
    if (floats) return;
    int wide = 0;
    for (uint64_t i = 0; i < size; i++) wide |= weights[i] > 63 || weights[i] < -64;
    matrix->wide = (uint32_t)wide;
    make->model->kernels->sum(matrix, sums);
}

static void add_matrix(maker *make, const record *r, const spread *outputs, const spread *inputs, mn_matrix *matrix)
{
    if (make->status != MN_OK || !check_matrix(make, r, outputs->groups * outputs->used, inputs->groups * inputs->used))
        return;
    const uint64_t n = MN_ROUND_UP(outputs->groups * outputs->padded), k = MN_ROUND_UP(inputs->groups * inputs->padded);
    const int plain = r->kind == FLOAT_ROWS;
    float *floats = plain ? MN_TAKE(&make->arena, float, mn_times(n, k)) : NULL;
    int8_t *weights = plain ? NULL : MN_TAKE(&make->arena, int8_t, mn_times(n, k));
    float *scale = plain ? NULL : MN_TAKE(&make->arena, float, n);
    float *bias = r->bias == NO_BIAS ? NULL : MN_TAKE(&make->arena, float, n);
    int32_t *sums = plain ? NULL : MN_TAKE(&make->arena, int32_t, n);
    if (!make->arena.data) return;
    *matrix = (mn_matrix){weights, scale, bias, sums, (uint32_t)n, (uint32_t)k, 0, floats};
    fill_matrix(make, r, outputs, inputs, matrix, weights, floats, scale, bias, sums);
}

static void next_matrix(maker *make, spread outputs, spread inputs, mn_matrix *matrix)
{
    const record r = read(make, make->next++);
    add_matrix(make, &r, &outputs, &inputs, matrix);
}

MN_SMALL static void add_norm(maker *make, uint32_t index, mn_norm *norm)
{
    const record r = read(make, index);
    const uint32_t n = make->model->config.d_model;
    if (make->status != MN_OK || !check_plain(make, &r, NORM, n, 1, 4)) return;
    if (!inside(make, r.bias, n, 4, 4)) {
        fail(make, index, "its bias lies outside weights.bin");
        return;
    }
    float *weight = MN_TAKE(&make->arena, float, make->model->width), *bias = MN_TAKE(&make->arena, float, make->model->width);
    if (!make->arena.data) return;
    memset(weight, 0, make->model->width * sizeof(float));
    memset(bias, 0, make->model->width * sizeof(float));
    for (uint32_t i = 0; i < n; i++) {
        weight[i] = mn_f32(bytes_at(make, r.values + 4ull * i));
        bias[i] = mn_f32(bytes_at(make, r.bias + 4ull * i));
    }
    *norm = (mn_norm){weight, bias};
}

MN_SMALL static void add_table(maker *make, uint32_t index, uint32_t rows, mn_table *table)
{
    const record r = read(make, index);
    if (make->status != MN_OK || !check_matrix(make, &r, rows, make->model->config.d_model)) return;
    if (r.kind == INT8_COLUMNS) {
        fail(make, index, "embeddings that do not lie row by row");
        return;
    }
    const int floats = r.kind == FLOAT_ROWS;
    *table = (mn_table){NULL, bytes_at(make, r.values), (size_t)bytes_of(&r, r.stride), r.kind == UINT8_ROWS ? 0x80 : 0,
                        (uint8_t)floats, floats ? NULL : bytes_at(make, r.scale), 4ull * r.scale_stride,
                        r.block ? bytes_at(make, r.multipliers) : NULL, r.block};
}

MN_SMALL static void add_positions(maker *make, uint32_t index, mn_positions *positions)
{
    const mn_config *c = &make->model->config;
    const record r = read(make, index);
    if (make->status != MN_OK) return;
    if (r.kind != ABSENT) {
        if (check_plain(make, &r, FLOATS, c->max_positions, c->d_model, 4)) positions->table = bytes_at(make, r.values);
        return;
    }
    const record blocks = read(make, BLOCKS), sines = read(make, SINES), cosines = read(make, COSINES);
    const uint32_t half = (c->d_model + 1) / 2;
    if (check_plain(make, &blocks, FLOATS, (c->max_positions + 15) / 16, 2 * half, 4) &&
        check_plain(make, &sines, FLOATS, 16, half, 4) && check_plain(make, &cosines, FLOATS, 16, half, 4))
        *positions = (mn_positions){NULL, bytes_at(make, blocks.values), bytes_at(make, sines.values),
                                    bytes_at(make, cosines.values)};
}

static void add_shortlist(maker *make, mn_shortlist *shortlist)
{
    const mn_config *c = &make->model->config;
    const record common = read(make, COMMON), lexical = read(make, LEXICAL);
    if (make->status != MN_OK || common.kind == ABSENT || make->arena.data) return; /* the first pass read it all */
    const uint32_t size = lexical.kind == UINT16 ? 2 : 4;
    if (lexical.kind != UINT16 && lexical.kind != INT32) {
        fail(make, LEXICAL, "no shortlist");
        return;
    }
    if (!check_plain(make, &common, FLAGS, c->target_vocabulary, 1, 1) ||
        !check_plain(make, &lexical, lexical.kind, c->source_vocabulary, lexical.columns, size))
        return;
    *shortlist = (mn_shortlist){bytes_at(make, common.values), bytes_at(make, lexical.values), lexical.columns, size, 0};
    for (uint32_t i = 0; i < c->target_vocabulary; i++) shortlist->always += shortlist->common[i] != 0;
    const uint64_t entries = (uint64_t)c->source_vocabulary * lexical.columns;
    for (uint64_t i = 0; i < entries; i++) {
        const uint8_t *at = shortlist->lexical + i * size;
        if ((size == 2 ? (uint32_t)(at[0] | at[1] << 8) : mn_u32(at)) >= c->target_vocabulary) {
            fail(make, LEXICAL, "a candidate outside the vocabulary");
            return;
        }
    }
    give_back(make, lexical.values, entries * size);
}

/* The same rows with the same scales; those may be stored twice. */
MN_SMALL static int same_table(const mn_table *a, const mn_table *b, uint32_t rows)
{
    if (a->rows != b->rows || a->stride != b->stride || a->flip != b->flip || a->floats != b->floats ||
        a->multipliers != b->multipliers || a->block != b->block)
        return 0;
    for (size_t i = 0; i < rows && !a->floats; i++)
        if (memcmp(a->scale + i * a->scale_stride, b->scale + i * b->scale_stride, 4)) return 0;
    return 1;
}

/* Embeddings and output layer. Bytes that serve both are kept once: in the file where candidates are taken from it,
   else in blocks. */
static void add_tables(maker *make)
{
    mn_model *m = make->model;
    const mn_config *c = &m->config;
    add_shortlist(make, &m->shortlist);
    add_table(make, SOURCE, c->source_vocabulary, &m->source);
    add_table(make, TARGET, c->target_vocabulary, &m->target);
    const record output = read(make, OUTPUT);
    add_table(make, OUTPUT, c->target_vocabulary, &m->output_rows);
    if (make->status != MN_OK) return;
    m->output_bias = output.bias == NO_BIAS ? NULL : bytes_at(make, output.bias);
    if (m->shortlist.common) return;
    const spread rows = {1, c->target_vocabulary, MN_ROUND_UP(c->target_vocabulary)}, columns = {1, c->d_model, m->width};
    add_matrix(make, &output, &rows, &columns, &m->output);
    const uint32_t n = c->target_vocabulary;
    if (c->source_vocabulary == n && same_table(&m->source, &m->output_rows, n)) m->source.matrix = &m->output;
    if (same_table(&m->target, &m->output_rows, n)) m->target.matrix = &m->output;
}

static void add_layers(maker *make)
{
    mn_model *m = make->model;
    const mn_config *c = &m->config;
    const spread width = {1, c->d_model, m->width};
    const uint32_t e = c->encoder_heads, d = c->decoder_heads;
    m->encoder = MN_TAKE(&make->arena, mn_encoder_layer, c->encoder_layers);
    m->decoder = MN_TAKE(&make->arena, mn_decoder_layer, c->decoder_layers);
    mn_encoder_layer unused_encoder;
    mn_decoder_layer unused_decoder;
    make->next = MN_FIXED_TENSORS;
    for (uint32_t i = 0; i < c->encoder_layers; i++) {
        mn_encoder_layer *layer = make->arena.data ? m->encoder + i : &unused_encoder;
        const spread heads = {e, c->d_model / e, m->encoder_head}, hidden = {1, c->encoder_ffn, m->encoder_hidden};
        next_matrix(make, (spread){3 * e, heads.used, heads.padded}, width, &layer->qkv);
        next_matrix(make, width, heads, &layer->out);
        add_norm(make, make->next++, &layer->attention_norm);
        next_matrix(make, hidden, width, &layer->fc1);
        next_matrix(make, width, hidden, &layer->fc2);
        add_norm(make, make->next++, &layer->last_norm);
    }
    for (uint32_t i = 0; i < c->decoder_layers; i++) {
        mn_decoder_layer *layer = make->arena.data ? m->decoder + i : &unused_decoder;
        const spread heads = {d, c->d_model / d, m->decoder_head}, hidden = {1, c->decoder_ffn, m->decoder_hidden};
        next_matrix(make, (spread){3 * d, heads.used, heads.padded}, width, &layer->qkv);
        next_matrix(make, width, heads, &layer->out);
        add_norm(make, make->next++, &layer->attention_norm);
        next_matrix(make, heads, width, &layer->cross_q);
        next_matrix(make, (spread){2 * d, heads.used, heads.padded}, width, &layer->cross_kv);
        next_matrix(make, width, heads, &layer->cross_out);
        add_norm(make, make->next++, &layer->cross_norm);
        next_matrix(make, hidden, width, &layer->fc1);
        next_matrix(make, width, hidden, &layer->fc2);
        add_norm(make, make->next++, &layer->last_norm);
    }
    if (c->pre_norm) {
        add_norm(make, ENCODER_NORM, &m->encoder_norm);
        add_norm(make, DECODER_NORM, &m->decoder_norm);
    }
}

static void lay_out(maker *make)
{
    add_tables(make);
    add_positions(make, ENCODER_POSITIONS, &make->model->encoder_positions);
    add_positions(make, DECODER_POSITIONS, &make->model->decoder_positions);
    add_layers(make);
}

mn_status mn_lay_out(mn_model *m, const mn_tensors *tensors, mn_error *error)
{
    maker make = {m, tensors, error, {NULL, 0}, NULL, 0, MN_OK};
    lay_out(&make);
    if (make.status != MN_OK) return make.status;
    /* Padding can multiply what a file holds, tied layers can share it; more than this is no model but an attack. */
    const uint64_t most = mn_plus(1 << 20, mn_times(16, mn_plus(m->weights.bytes, m->native.bytes)));
    if (make.arena.used > most) return mn_fail(error, MN_ERROR_PACK, "native.bin: its layers need far more memory than it has");
    m->bytes = make.arena.used;
    uint8_t *data = m->block = mn_pages_take(make.arena.used);
    if (!data) return mn_fail(error, MN_ERROR_MEMORY, "no memory for %llu bytes of weights", (unsigned long long)m->bytes);
    make.arena = (mn_arena){data, 0};
    make.row = malloc(MOST_COLUMNS);
    if (!make.row) return mn_fail(error, MN_ERROR_MEMORY, "no memory for a row of weights");
    lay_out(&make);
    free(make.row);
    give_back(&make, 0, m->weights.bytes); /* scales and biases */
    return make.status;
}

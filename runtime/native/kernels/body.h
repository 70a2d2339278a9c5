/* One set of kernels. The file that includes this has defined: WIDTH, the floats in a vector; SIGNED, 1 if its products
   take signed activations; MOST_SUMS, how many vectors of sums the registers hold; ROWS and BLOCKS, how many rows and blocks of 16 outputs are summed at once; SET, the name;
   sums, sixteen 32-bit sums, with sums_zero, sums_get; and

       sums dot(sums s, const int8_t *weights, const uint8_t *four, int wide)

   which adds to each sum the products of four weights (64 bytes in all) and the same four bytes of the activations;
   and put_bytes(uint8_t *to, i16 values), which stores sixteen integers as bytes. With OWN_SUMS it has a sum_rows for
   two to ROWS rows of one block, too. */

#define CAT_(a, b) a##b
#define CAT(a, b) CAT_(a, b)

static void quantize(const float *x, size_t n, int positive, uint8_t *bytes, float *scale)
{
    f16 most = all(0);
    for (size_t i = 0; i < n; i += MN_LANES) most = larger(magnitude(load(x + i)), most);
    const float greatest = greatest_of(most), levels = positive ? 255.0f : 127.0f;
    const int usable = greatest > 1e-20f && greatest < 1e30f;
    const f16 factor = all(usable ? levels / greatest : 0.0f);
    const int32_t shift = (positive ? 0 : 128) - (SIGNED ? 128 : 0);
    *scale = usable ? greatest / levels : 0.0f;
    for (size_t i = 0; i < n; i += MN_LANES) {
        i16 q = nearest(mul(load(x + i), factor));
        EACH q.part[p] += shift;
        put_bytes(bytes + i, q);
    }
}

INLINE void tile(const int rows, const int blocks, const int wide, const mn_matrix *matrix, size_t block,
                 const uint8_t *bytes, const float *scales, int32_t shift, float *y, size_t stride)
{
    const size_t inputs = matrix->inputs;
    const int8_t *weights = matrix->weights + block * inputs * MN_LANES;
    /* With one row there are few chains of additions that each wait for the last one: take the inputs in turn. */
    const int chains = rows == 1 ? SPLIT : 1;
    const int count = chains * rows * blocks; /* one flat loop: GCC keeps what nested ones hold in memory */
    sums s[(ROWS > SPLIT ? ROWS : SPLIT) * BLOCKS];
    UNROLL for (int j = 0; j < count; j++) s[j] = sums_zero();
#ifdef OWN_SUMS
    if (rows > 1) sum_rows(rows, weights, (const int8_t *)bytes, inputs, s);
    for (size_t i = rows > 1 ? inputs : 0; i < inputs; i += 4 * (size_t)chains) {
#else
    for (size_t i = 0; i < inputs; i += 4 * (size_t)chains) {
#endif
        UNROLL for (int j = 0; j < count; j++) {
            const size_t r = (size_t)(j % rows), b = (size_t)(j / rows % blocks), c = (size_t)(j / rows / blocks);
            s[j] = dot(s[j], weights + (b * inputs + i + 4 * c) * MN_LANES, bytes + r * inputs + i + 4 * c, wide);
        }
    }
    f16 scale[BLOCKS], bias[BLOCKS]; /* before anything is stored, which might change them for all the compiler knows */
    i16 shifted[BLOCKS];
    UNROLL for (int b = 0; b < blocks; b++) {
        const size_t output = (block + (size_t)b) * MN_LANES;
        scale[b] = load(matrix->scale + output);
        bias[b] = matrix->bias ? load(matrix->bias + output) : all(-0.0f); /* x - 0 is x, of either sign */
        shifted[b] = load_i(matrix->sums + output);
        EACH shifted[b].part[p] *= shift;
    }
    UNROLL for (int j = 0; j < rows * blocks; j++) {
        const size_t r = (size_t)(j % rows), output = (block + (size_t)(j / rows)) * MN_LANES;
        i16 total = sums_get(s[j]);
        UNROLL for (int c = 1; c < chains; c++) {
            const i16 other = sums_get(s[c * blocks + j]);
            EACH total.part[p] += other.part[p];
        }
        f16 value;
        EACH total.part[p] += shifted[j / rows].part[p];
        EACH value.part[p] = __builtin_convertvector(total.part[p], vf);
        value = mul(value, mul(scale[j / rows], all(scales[r])));
        store(y + r * stride + output, add(value, bias[j / rows]));
    }
}

INLINE void strip(const int blocks, const int wide, const mn_matrix *matrix, size_t block, const uint8_t *bytes,
                  const float *scales, int32_t shift, size_t rows, float *y, size_t stride)
{
#define TILE(n) tile(n, blocks, wide, matrix, block, bytes + r * matrix->inputs, scales + r, shift, y + r * stride, stride)
    size_t r = 0;
    for (; rows - r >= ROWS; r += ROWS) TILE(ROWS);
    switch (rows - r) {
#if ROWS > 5
    case 5: TILE(5); break;
#endif
#if ROWS > 4
    case 4: TILE(4); break;
#endif
#if ROWS > 3
    case 3: TILE(3); break;
#endif
#if ROWS > 2
    case 2: TILE(2); break;
#endif
    case 1: TILE(1); break;
    default: break;
    }
#undef TILE
}

INLINE void multiply_all(const int wide, const mn_matrix *matrix, const uint8_t *bytes, const float *scales,
                         int positive, size_t rows, float *y, size_t stride)
{
    const int32_t shift = (SIGNED ? 128 : 0) - (positive ? 0 : 128);
    const size_t blocks = matrix->outputs / MN_LANES;
    size_t b = 0;
    if (rows == 1)
        for (; b + FEW <= blocks; b += FEW) tile(1, FEW, wide, matrix, b, bytes, scales, shift, y, stride);
    for (; b + BLOCKS <= blocks; b += BLOCKS) strip(BLOCKS, wide, matrix, b, bytes, scales, shift, rows, y, stride);
    for (; b < blocks; b++) strip(1, wide, matrix, b, bytes, scales, shift, rows, y, stride);
}

static void multiply(const mn_matrix *matrix, const uint8_t *bytes, const float *scales, int positive, size_t rows,
                     float *y, size_t stride)
{
    if (WIDENS && matrix->wide)
        multiply_all(1, matrix, bytes, scales, positive, rows, y, stride);
    else
        multiply_all(0, matrix, bytes, scales, positive, rows, y, stride);
}

static void sum(const mn_matrix *matrix, int32_t *result)
{
    static const uint8_t ones[4] = {1, 1, 1, 1};
    const int8_t *weights = matrix->weights;
    for (size_t o = 0; o < matrix->outputs; o += MN_LANES) {
        sums s = sums_zero();
        for (size_t i = 0; i < matrix->inputs; i += 4, weights += 64) s = dot(s, weights, ones, WIDENS);
        const i16 got = sums_get(s);
        memcpy(result + o, &got, sizeof got);
    }
}

static void norm(const float *x, const float *y, const float *weight, const float *bias, size_t n, float *out)
{
    f16 sum = all(0), squares = all(0);
    for (size_t i = 0; i < n; i += MN_LANES) {
        const f16 v = y ? add(load(x + i), load(y + i)) : load(x + i);
        sum = add(sum, v);
        store(out + i, v);
    }
    const f16 mean = all(total(sum) / (float)n);
    for (size_t i = 0; i < n; i += MN_LANES) {
        const f16 v = pick(below(n - i), sub(load(out + i), mean), all(0));
        squares = add(squares, mul(v, v));
        store(out + i, v);
    }
    const f16 factor = all(1.0f / sqrtf(total(squares) / (float)n + 1e-5f));
    for (size_t i = 0; i < n; i += MN_LANES)
        store(out + i, add(mul(mul(load(out + i), factor), load(weight + i)), load(bias + i)));
}

static void sum_of(const float *x, const float *y, size_t n, float *out)
{
    for (size_t i = 0; i < n; i += MN_LANES) store(out + i, add(load(x + i), load(y + i)));
}

INLINE f16 gelu(f16 x) { return mul(mul(x, all(0.5f)), add(all(1), error_function(mul(x, all(0.70710678f))))); }

INLINE f16 gelu_tanh(f16 x)
{
    const f16 cubic = mul(mul(mul(x, x), x), all(0.044715f));
    return mul(mul(x, all(0.5f)), add(all(1), tangent(mul(add(x, cubic), all(0.79788456f)))));
}

INLINE f16 mish(f16 x) /* x tanh(log(1 + e^x)) */
{
    const f16 soft = logarithms(add(all(1), exponential(smaller(x, all(20)))));
    return mul(x, tangent(pick(greater(x, all(20)), x, soft)));
}

INLINE f16 laplace(f16 x)
{
    const f16 centred = quotient(sub(x, all(0.707107f)), all(0.39894258f));
    return mul(add(error_function(centred), all(1)), all(0.5f));
}

static void activate(mn_activation kind, float *x, size_t n)
{
#define APPLY(value) for (size_t i = 0; i < n; i += MN_LANES) { const f16 v = load(x + i); store(x + i, value); } break
    const f16 zero = all(0);
    switch (kind) {
    case MN_RELU: APPLY(larger(v, zero));
    case MN_GELU: APPLY(gelu(v));
    case MN_GELU_TANH: APPLY(gelu_tanh(v));
    case MN_GELU_10: APPLY(larger(smaller(gelu(v), all(10)), all(-10)));
    case MN_SILU: APPLY(mul(v, sigmoid(v)));
    case MN_QUICK_GELU: APPLY(mul(v, sigmoid(mul(v, all(1.702f)))));
    case MN_TANH: APPLY(tangent(v));
    case MN_SIGMOID: APPLY(sigmoid(v));
    case MN_LEAKY_RELU: APPLY(pick(greater(v, zero), v, mul(v, all(0.01f))));
    case MN_MISH: APPLY(mish(v));
    case MN_RELU2: APPLY(mul(larger(v, zero), larger(v, zero)));
    case MN_RELU6: APPLY(smaller(larger(v, zero), all(6)));
    case MN_LAPLACE: APPLY(laplace(v));
    case MN_LINEAR:
    case MN_ACTIVATIONS: break;
    }
#undef APPLY
}

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

static float log_sum(const float *logits, size_t n, float *greatest)
{
    f16 most = load(logits);
    for (size_t i = MN_LANES; i < n; i += MN_LANES) most = larger(load(logits + i), most);
    *greatest = greatest_of(most);
    const f16 shift = all(*greatest);
    f16 sum = all(0);
    for (size_t i = 0; i < n; i += MN_LANES) sum = add(sum, exponential(sub(load(logits + i), shift)));
    return logarithm(total(sum));
}

static void shift_all(float *x, size_t n, float greatest, float log_sum, float addend)
{
    const f16 most = all(greatest), sum = all(log_sum), more = all(addend);
    for (size_t i = 0; i < n; i += MN_LANES) store(x + i, add(sub(sub(load(x + i), most), sum), more));
}

static size_t next_above(const float *x, size_t n, size_t from, float bound)
{
    const f16 limit = all(bound);
    size_t i = from;
    for (; i % MN_LANES && i < n; i++)
        if (x[i] > bound) return i;
    for (; i < n; i += MN_LANES) {
        const i16 found = greater(load(x + i), limit);
        vi any = found.part[0];
        UNROLL for (int p = 1; p < PARTS; p++) any |= found.part[p];
        int64_t words[WIDTH / 2], some = 0;
        memcpy(words, &any, sizeof any);
        UNROLL for (int w = 0; w < WIDTH / 2; w++) some |= words[w];
        if (some)
            for (size_t j = i; j < i + MN_LANES; j++)
                if (x[j] > bound) return j;
    }
    return n;
}

const mn_kernel_set CAT(mn_kernels_, SET) = {
    .name = NAME,
    .quantize = quantize,
    .multiply = multiply,
    .sum = sum,
    .norm = norm,
    .add = sum_of,
    .activate = activate,
    .attend = attend,
    .attend_rows = attend_rows,
    .log_sum = log_sum,
    .shift = shift_all,
    .next_above = next_above,
};

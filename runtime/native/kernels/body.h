/* One set of kernels. The file that includes this has defined: WIDTH, the floats in a vector; SIGNED, 1 if its products
   take signed activations; ROWS and BLOCKS, how many rows and blocks of 16 outputs are summed at once; SET, the name;
   sums, sixteen 32-bit sums, with sums_zero, sums_get; and

       sums dot(sums s, const int8_t *weights, const uint8_t *four, int wide)

   which adds to each sum the products of four weights (64 bytes in all) and the same four bytes of the activations;
   and put_bytes(uint8_t *to, i16 values), which stores sixteen integers as bytes. With OWN_SUMS it has a sum_rows for
   two to ROWS rows of one block, too. */

#define CAT_(a, b) a##b
#define CAT(a, b) CAT_(a, b)

#define MN_MOST 1e15f /* so that no product of two rows' scales comes near infinity */

/* What a row is multiplied with before it is rounded to `levels` on each side; 0 if nothing of it can be told: all zeros,
   or numbers that overflow, whose scale is NaN. */
INLINE float byte_factor(const float *x, size_t n, float levels, float *scale)
{
    i16 most = {{{0}}}; /* bits of magnitudes are ordered like these, infinity and NaN above all others */
    for (size_t i = 0; i < n; i += MN_LANES) {
        const f16 size = magnitude(load(x + i));
        EACH most.part[p] = LARGER_INTEGER((vi)size.part[p], most.part[p]);
    }
    const float greatest = greatest_of_bits(most);
    const int usable = greatest > 1e-20f && greatest < MN_MOST;
    *scale = usable ? greatest / levels : greatest <= 1e-20f ? 0.0f : NAN;
    return usable ? levels / greatest : 0.0f;
}

static void quantize(const float *x, size_t n, int positive, uint8_t *bytes, float *scale)
{
    const float known = byte_factor(x, n, positive ? 255.0f : 127.0f, scale);
    const int32_t shift = (positive ? 0 : 128) - (SIGNED ? 128 : 0);
    if (known == 0.0f) {
        memset(bytes, shift, n);
        return;
    }
    const f16 factor = all(known);
    for (size_t i = 0; i < n; i += MN_LANES) {
        i16 q = nearest(mul(load(x + i), factor));
        EACH q.part[p] += shift;
        put_bytes(bytes + i, q);
    }
}

#define NONZERO (WIDTH / 2) /* blocks at a time where inputs are left out */

/* Sums of `rows` rows and `blocks` blocks, `chains` of each, to floats. */
INLINE void put_sums(const int rows, const int blocks, const int chains, const sums *s, const mn_matrix *matrix,
                     size_t block, const float *scales, int32_t shift, float *y, size_t stride)
{
    enum { MOST = BLOCKS > FEW ? BLOCKS > NONZERO ? BLOCKS : NONZERO : FEW > NONZERO ? FEW : NONZERO };
    f16 scale[MOST], bias[MOST]; /* before anything is stored, which might change them for all the compiler knows */
    i16 shifted[MOST];
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
    put_sums(rows, blocks, chains, s, matrix, block, scales, shift, y, stride);
}

#if !SIGNED
/* One row that a ReLU has left: fours of inputs that are all zero are not read. (Where bytes have a sign, zero is -128.)
   0 if that is not worth it. */
INLINE void tile_nonzero(const int blocks, const int wide, const mn_matrix *matrix, size_t block, const uint8_t *bytes,
                         const uint16_t *fours, size_t count, const float *scales, float *y)
{
    const size_t inputs = matrix->inputs;
    const int8_t *weights = matrix->weights + block * inputs * MN_LANES;
    sums s[NONZERO];
    UNROLL for (int b = 0; b < blocks; b++) s[b] = sums_zero();
    for (size_t i = 0; i < count; i++) {
        const size_t at = 4 * (size_t)fours[i];
        UNROLL for (int b = 0; b < blocks; b++) s[b] = dot(s[b], weights + ((size_t)b * inputs + at) * MN_LANES, bytes + at, wide);
    }
    put_sums(1, blocks, 1, s, matrix, block, scales, 0, y, 0);
}

INLINE int multiply_nonzero(const int wide, const mn_matrix *matrix, const uint8_t *bytes, const float *scales, float *y)
{
    uint16_t fours[1024];
    const size_t most = matrix->inputs / 4, blocks = matrix->outputs / MN_LANES;
    size_t count = 0, b = 0;
    if (most > 1024) return 0;
    for (size_t i = 0; i < most; i++) {
        uint32_t four;
        memcpy(&four, bytes + 4 * i, 4);
        fours[count] = (uint16_t)i;
        count += four != 0;
    }
    if (count > most / 4 * 3) return 0;
    for (; b + NONZERO <= blocks; b += NONZERO) tile_nonzero(NONZERO, wide, matrix, b, bytes, fours, count, scales, y);
    for (; b + NONZERO / 2 <= blocks; b += NONZERO / 2)
        tile_nonzero(NONZERO / 2, wide, matrix, b, bytes, fours, count, scales, y);
    for (; b < blocks; b++) tile_nonzero(1, wide, matrix, b, bytes, fours, count, scales, y);
    return 1;
}
#endif

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
#if !SIGNED
    if (rows == 1 && positive && multiply_nonzero(wide, matrix, bytes, scales, y)) return;
#endif
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

#define FLOAT_BLOCKS (WIDTH / 4) /* with two rows as many chains of additions as hide that each waits for the last one */

INLINE void float_tile(const int rows, const int blocks, const mn_matrix *matrix, size_t block, const float *x,
                       size_t x_stride, float *y, size_t stride)
{
    const size_t inputs = matrix->inputs;
    const float *weights = matrix->floats + block * inputs * MN_LANES;
    f16 s[2 * FLOAT_BLOCKS];
    UNROLL for (int j = 0; j < rows * blocks; j++) s[j] = all(0);
    for (size_t i = 0; i < inputs; i++) {
        UNROLL for (int j = 0; j < rows * blocks; j++)
            s[j] = add(s[j], mul(load(weights + ((size_t)(j / rows) * inputs + i) * MN_LANES), all(x[(size_t)(j % rows) * x_stride + i])));
    }
    UNROLL for (int j = 0; j < rows * blocks; j++) {
        const size_t output = (block + (size_t)(j / rows)) * MN_LANES;
        store(y + (size_t)(j % rows) * stride + output, matrix->bias ? add(s[j], load(matrix->bias + output)) : s[j]);
    }
}

static void multiply_floats(const mn_matrix *matrix, const float *x, size_t x_stride, size_t rows, float *y, size_t stride)
{
    const size_t blocks = matrix->outputs / MN_LANES;
    for (size_t b = 0, some; b < blocks; b += some) {
        some = blocks - b >= FLOAT_BLOCKS ? FLOAT_BLOCKS : 1;
        for (size_t r = 0; r < rows; r += 2) {
#define TILE(n, m) float_tile(n, m, matrix, b, x + r * x_stride, x_stride, y + r * stride, stride)
            if (some == FLOAT_BLOCKS && rows - r > 1) TILE(2, FLOAT_BLOCKS);
            else if (some == FLOAT_BLOCKS) TILE(1, FLOAT_BLOCKS);
            else if (rows - r > 1) TILE(2, 1);
            else TILE(1, 1);
#undef TILE
        }
    }
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

INLINE f16 gelu(f16 x) { return mul(mul(x, all(0.5f)), add(all(1), error_function(0, mul(x, all(0.70710678f))))); }

INLINE f16 gelu_tanh(f16 x)
{
    const f16 cubic = mul(mul(mul(x, x), x), all(0.044715f));
    return mul(mul(x, all(0.5f)), add(all(1), tangent(0, mul(add(x, cubic), all(0.79788456f)))));
}

INLINE f16 mish(f16 x) /* x tanh(log(1 + e^x)) */
{
    const f16 soft = logarithms(add(all(1), exponential_by(1, smaller(x, all(20)))));
    return mul(x, tangent(1, pick(greater(x, all(20)), x, soft)));
}

INLINE f16 laplace(f16 x)
{
    const f16 centred = quotient(sub(x, all(0.707107f)), all(0.39894258f));
    return mul(add(error_function(1, centred), all(1)), all(0.5f));
}

static void activate(mn_activation kind, float *x, size_t n)
{
#define APPLY(value) for (size_t i = 0; i < n; i += MN_LANES) { const f16 v = load(x + i); store(x + i, value); } break
    const f16 zero = all(0), steep = all(kind == MN_QUICK_GELU ? 1.702f : 1.0f);
    switch (kind) {
    case MN_RELU: APPLY(larger(v, zero));
    case MN_GELU:
    case MN_GELU_10:
        for (size_t i = 0; i < n; i += MN_LANES) store(x + i, gelu(load(x + i)));
        if (kind == MN_GELU) break;
        APPLY(larger(smaller(v, all(10)), all(-10)));
    case MN_GELU_TANH: APPLY(gelu_tanh(v));
    case MN_SILU:
    case MN_QUICK_GELU: APPLY(mul(v, sigmoid(0, mul(v, steep))));
    case MN_TANH: APPLY(tangent(1, v));
    case MN_SIGMOID: APPLY(sigmoid(1, v));
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

#include "attention.h"

static float log_sum(const float *logits, size_t n, float *greatest)
{
    f16 most = load(logits), other = most; /* two chains: one waits for the last comparison */
    size_t at = MN_LANES;
    for (; at + 2 * MN_LANES <= n; at += 2 * MN_LANES) {
        most = larger(load(logits + at), most);
        other = larger(load(logits + at + MN_LANES), other);
    }
    if (at < n) most = larger(load(logits + at), most);
    *greatest = greatest_of(larger(most, other));
    const f16 shift = all(*greatest);
    f16 sum = all(0);
    for (size_t i = 0; i < n; i += MN_LANES) sum = add(sum, power_below_one(sub(load(logits + i), shift)));
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
    .multiply_floats = multiply_floats,
    .sum = sum,
    .norm = norm,
    .add = sum_of,
    .activate = activate,
    .keep = keep,
    .attend = attend,
    .log_sum = log_sum,
    .shift = shift_all,
    .next_above = next_above,
};

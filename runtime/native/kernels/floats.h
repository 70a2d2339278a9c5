/* Sixteen floats at a time, in vectors as wide as the processor's: WIDTH is 16, 8 or 4. Included by body.h alone. */

#define PARTS (MN_LANES / WIDTH)
#define INLINE static inline __attribute__((always_inline))
#define APART static __attribute__((noinline)) /* for what is long, and used in some places: a call costs less than it does */

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

typedef float vf __attribute__((vector_size(4 * WIDTH)));
typedef int32_t vi __attribute__((vector_size(4 * WIDTH)));
typedef struct f16 { vf part[PARTS]; } f16;
typedef struct i16 { vi part[PARTS]; } i16; /* sixteen integers, or sixteen masks of 0 and -1 */

#define EACH UNROLL for (int p = 0; p < PARTS; p++)

INLINE f16 load(const float *x)
{
    f16 r;
    EACH memcpy(&r.part[p], x + p * WIDTH, sizeof(vf));
    return r;
}

INLINE void store(float *x, f16 a)
{
    EACH memcpy(x + p * WIDTH, &a.part[p], sizeof(vf));
}

INLINE i16 load_i(const int32_t *x)
{
    i16 r;
    EACH memcpy(&r.part[p], x + p * WIDTH, sizeof(vi));
    return r;
}

INLINE f16 all(float x)
{
    f16 r;
#if WIDTH == 16 /* written out, or GCC puts in one element after the other */
    const vf v = {x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
#elif WIDTH == 8
    const vf v = {x, x, x, x, x, x, x, x};
#else
    const vf v = {x, x, x, x};
#endif
    EACH r.part[p] = v;
    return r;
}

INLINE f16 add(f16 a, f16 b) { EACH a.part[p] = a.part[p] + b.part[p]; return a; }
INLINE f16 sub(f16 a, f16 b) { EACH a.part[p] = a.part[p] - b.part[p]; return a; }
INLINE f16 mul(f16 a, f16 b) { EACH a.part[p] = a.part[p] * b.part[p]; return a; }
INLINE f16 quotient(f16 a, f16 b) { EACH a.part[p] = a.part[p] / b.part[p]; return a; }
INLINE i16 greater(f16 a, f16 b) { i16 r; EACH r.part[p] = a.part[p] > b.part[p]; return r; }

INLINE f16 pick(i16 mask, f16 yes, f16 no)
{
    EACH no.part[p] = (vf)((mask.part[p] & (vi)yes.part[p]) | (~mask.part[p] & (vi)no.part[p]));
    return no;
}

/* a > b ? a : b and b > a ? a : b, NaNs and zeros of two signs likewise: what x86 has instructions for. */
#if defined(LARGER)
INLINE f16 larger(f16 a, f16 b) { EACH a.part[p] = LARGER(a.part[p], b.part[p]); return a; }
INLINE f16 smaller(f16 a, f16 b) { EACH a.part[p] = SMALLER(a.part[p], b.part[p]); return a; }
#else
INLINE f16 larger(f16 a, f16 b) { return pick(greater(a, b), a, b); }
INLINE f16 smaller(f16 a, f16 b) { return pick(greater(b, a), a, b); }
#endif

#if !defined(LARGER_INTEGER)
INLINE vi larger_integer(vi a, vi b)
{
    const vi mask = a > b;
    return (mask & a) | (~mask & b);
}
#define LARGER_INTEGER larger_integer
#endif

INLINE f16 magnitude(f16 a)
{
    EACH a.part[p] = (vf)((vi)a.part[p] & 0x7FFFFFFF);
    return a;
}

/* The nearest integer, ties to even: adding 1.5 * 2^23 leaves no bits behind the point. Right up to 2^22. */
#define ROUNDER 12582912.0f
INLINE i16 nearest(f16 a)
{
    i16 r;
    EACH r.part[p] = (vi)(a.part[p] + ROUNDER) - 0x4B400000;
    return r;
}

/* Sixteen masks: lanes below n. */
INLINE i16 below(size_t n)
{
    static const int32_t masks[32] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
    return load_i(masks + 16 - (n < 16 ? n : 16));
}

/* Lanes i and i + 8, then i and i + 4, and so on, in vectors of four: loops over one array are slow with GCC. */
typedef float v4 __attribute__((vector_size(16)));
typedef int32_t i4 __attribute__((vector_size(16)));

/* Lanes 4 i to 4 i + 3. */
INLINE v4 quarter(const float *x, int i)
{
    v4 r;
    memcpy(&r, x + 4 * i, sizeof r);
    return r;
}

INLINE v4 quarters(f16 a)
{
    float x[MN_LANES];
    store(x, a);
    return (quarter(x, 0) + quarter(x, 2)) + (quarter(x, 1) + quarter(x, 3));
}

INLINE float total(f16 a)
{
    const v4 sum = quarters(a);
    return (sum[0] + sum[2]) + (sum[1] + sum[3]);
}

#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define SHUFFLE(a, b, i, j, k, l) __builtin_shuffle(a, b, (i4){i, j, k, l})
#endif

/* Four times `total`, side by side. */
INLINE v4 totals(const f16 *a)
{
    v4 sum[4];
    UNROLL for (int j = 0; j < 4; j++) sum[j] = quarters(a[j]);
    const v4 first = SHUFFLE(sum[0], sum[1], 0, 4, 1, 5) + SHUFFLE(sum[0], sum[1], 2, 6, 3, 7);
    const v4 second = SHUFFLE(sum[2], sum[3], 0, 4, 1, 5) + SHUFFLE(sum[2], sum[3], 2, 6, 3, 7);
    return SHUFFLE(first, second, 0, 1, 4, 5) + SHUFFLE(first, second, 2, 3, 6, 7);
}

INLINE v4 larger_of(v4 a, v4 b)
{
    const i4 mask = a > b;
    return (v4)((mask & (i4)a) | (~mask & (i4)b));
}

INLINE float greatest_of(f16 a)
{
    float x[MN_LANES];
    store(x, a);
    const v4 most = larger_of(larger_of(quarter(x, 3), quarter(x, 1)), larger_of(quarter(x, 2), quarter(x, 0)));
    const float even = most[2] > most[0] ? most[2] : most[0], odd = most[3] > most[1] ? most[3] : most[1];
    return odd > even ? odd : even;
}

/* The greatest number of those whose bits these are, none of them negative; NaN if there is one. */
INLINE float greatest_of_bits(i16 a)
{
    int32_t x[MN_LANES], most = 0;
    memcpy(x, &a, sizeof x);
    for (int i = 0; i < MN_LANES; i++) most = x[i] > most ? x[i] : most;
    float greatest;
    memcpy(&greatest, &most, sizeof greatest);
    return greatest;
}

/* e^x to 2 units in the last place; 0 below -87.3. Cody-Waite reduction and the polynomial of Cephes' expf. */
INLINE f16 exponential(f16 x)
{
    const i16 tiny = greater(all(-87.3f), x);
    x = smaller(larger(x, all(-87.3f)), all(88.0f));
    f16 n = all(0);
    i16 k = nearest(mul(x, all(1.44269504f)));
    EACH n.part[p] = (vf)(k.part[p] + 0x4B400000) - ROUNDER;
    f16 r = sub(sub(x, mul(n, all(0.693359375f))), mul(n, all(-2.12194440e-4f)));
    f16 y = all(1.9875691500e-4f);
    y = add(mul(y, r), all(1.3981999507e-3f));
    y = add(mul(y, r), all(8.3334519073e-3f));
    y = add(mul(y, r), all(4.1665795894e-2f));
    y = add(mul(y, r), all(1.6666665459e-1f));
    y = add(mul(y, r), all(5.0000001201e-1f));
    y = add(add(mul(mul(y, r), r), r), all(1.0f));
    f16 power;
    EACH power.part[p] = (vf)((k.part[p] + 127) << 23);
    return pick(tiny, all(0), mul(y, power));
}

/* e^x for x <= 0, to 2e-7 of it where the result is above 0.1; not below 2^-125. The nearest power of two, and a polynomial
   for what is left (least squares, then the greatest error made small): half the operations of the one above. */
INLINE f16 power_below_one(f16 x)
{
    x = larger(mul(x, all(1.44269504f)), all(-125));
    const i16 k = nearest(x);
    EACH x.part[p] -= (vf)(k.part[p] + 0x4B400000) - ROUNDER;
    f16 y = all(1.326472615e-3f);
    y = add(mul(y, x), all(9.671512991e-3f));
    y = add(mul(y, x), all(5.550733581e-2f));
    y = add(mul(y, x), all(2.402224243e-1f));
    y = add(mul(y, x), all(6.931470037e-1f));
    y = add(mul(y, x), all(1));
    EACH y.part[p] = (vf)((vi)y.part[p] + k.part[p] * (1 << 23));
    return y;
}

APART void exponential_of(float *x) { store(x, exponential(load(x))); }

/* What few models ask for (`rare`) calls it, since each copy has some 600 bytes. By memory: GCC hands over vectors in halves. */
INLINE f16 exponential_by(const int rare, f16 x)
{
    float kept[MN_LANES] __attribute__((aligned(64)));
    if (!rare) return exponential(x);
    store(kept, x);
    exponential_of(kept);
    return load(kept);
}

INLINE f16 sigmoid(const int rare, f16 x) { return quotient(all(1), add(all(1), exponential_by(rare, sub(all(0), x)))); }

INLINE f16 tangent(const int rare, f16 x) /* tanh */
{
    const f16 e = exponential_by(rare, mul(smaller(larger(x, all(-20)), all(20)), all(2)));
    return quotient(sub(e, all(1)), add(e, all(1)));
}

/* erf to 1.5e-7: Abramowitz and Stegun 7.1.26. */
INLINE f16 error_function(const int rare, f16 x)
{
    const f16 a = magnitude(x);
    const f16 t = quotient(all(1), add(all(1), mul(a, all(0.3275911f))));
    f16 y = all(1.061405429f);
    y = add(mul(y, t), all(-1.453152027f));
    y = add(mul(y, t), all(1.421413741f));
    y = add(mul(y, t), all(-0.284496736f));
    y = add(mul(y, t), all(0.254829592f));
    y = sub(all(1), mul(mul(y, t), exponential_by(rare, sub(all(0), mul(a, a)))));
    return pick(greater(all(0), x), sub(all(0), y), y);
}

/* log x for positive finite x, to 1 unit in the last place or two: Cephes' logf. */
static float logarithm(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    int32_t exponent = (int32_t)(bits >> 23) - 126;
    bits = (bits & 0x7FFFFF) | 0x3F000000; /* from 0.5 to 1 */
    memcpy(&x, &bits, 4);
    if (x < 0.707106781f) {
        exponent -= 1;
        x = x + x - 1.0f;
    } else {
        x = x - 1.0f;
    }
    const float z = x * x;
    float y = 7.0376836292e-2f;
    y = y * x + -1.1514610310e-1f;
    y = y * x + 1.1676998740e-1f;
    y = y * x + -1.2420140846e-1f;
    y = y * x + 1.4249322787e-1f;
    y = y * x + -1.6668057665e-1f;
    y = y * x + 2.0000714765e-1f;
    y = y * x + -2.4999993993e-1f;
    y = y * x + 3.3333331174e-1f;
    y = y * x * z;
    y = y + (float)exponent * -2.12194440e-4f;
    y = y - 0.5f * z;
    return x + y + (float)exponent * 0.693359375f;
}

/* log x lane by lane, for mish alone. */
INLINE f16 logarithms(f16 a)
{
    float x[MN_LANES];
    store(x, a);
    for (int i = 0; i < MN_LANES; i++) x[i] = logarithm(x[i]);
    return load(x);
}

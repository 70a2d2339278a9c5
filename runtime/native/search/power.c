/* The power function of the score: libraries round differently, and scores must not. */

#include <string.h>

#include "search/search.h"

/* log x = exponent log 2 + 2 atanh((m - 1) / (m + 1)), m from 0.7 to 1.4: the series ends below a double's precision. */
static double natural_log(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, 8);
    int64_t exponent = (int64_t)(bits >> 52 & 0x7FF) - 1023;
    bits = (bits & 0xFFFFFFFFFFFFF) | 0x3FF0000000000000;
    double m;
    memcpy(&m, &bits, 8);
    if (m > 1.4142135623730951) {
        m = m * 0.5;
        exponent++;
    }
    const double s = (m - 1.0) / (m + 1.0), square = s * s;
    double sum = 0.0;
    for (int i = 23; i >= 1; i -= 2) sum = sum * square + 1.0 / i;
    return (double)exponent * 0.6931471805599453 + 2.0 * s * sum;
}

static double exponential(double x)
{
    if (x > 700.0) x = 700.0;
    if (x < -700.0) x = -700.0;
    const double scaled = x * 1.4426950408889634;
    const int64_t n = (int64_t)(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
    const double r = x - (double)n * 0.6931471805599453;
    double sum = 1.0;
    for (int i = 14; i >= 1; i--) sum = sum * r / i + 1.0;
    const uint64_t bits = (uint64_t)(n + 1023) << 52;
    double power;
    memcpy(&power, &bits, 8);
    return sum * power;
}

float mn_power(uint32_t base, float exponent)
{
    if (exponent == 1.0f) return (float)base;
    if (exponent == 0.0f || base <= 1) return 1.0f;
    return (float)exponential(natural_log(base) * (double)exponent);
}

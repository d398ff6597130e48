/* fmath.h - exp, tanh, erf and friends as branch-free C that compilers vectorise. Errors are a few units in the last place of float;
 * NaN in gives NaN out, overflow gives Inf, and results do not depend on the instruction set; the CUDA kernels use the same functions. */
#ifndef QX_KERNELS_LOOPS_FMATH_H
#define QX_KERNELS_LOOPS_FMATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "kernels/scalar.h"
#ifndef __CUDACC__
#include "kernels/loops/multi.h"
#endif

QX_HD int32_t fm_bits(float x)
{
    int32_t i;
    memcpy(&i, &x, sizeof i);
    return i;
}

QX_HD float fm_float(int32_t i)
{
    float x;
    memcpy(&x, &i, sizeof x);
    return x;
}

/* c = n ln2 + r, |r| <= ln2 / 2, for |c| <= 104: gives e^r - 1 and n. */
QX_HD float fm_exp_rest(float c, int32_t *n)
{
    float t = c * 1.44269504f + 12582912.0f;
    *n = fm_bits(t) - 0x4B400000;
    t -= 12582912.0f;
    float r = c - t * 0.693359375f;
    r = r + t * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    return p * r * r + r;
}

QX_HD float fm_pow2(int32_t n) { return fm_float((int32_t)((uint32_t)(n + 127) * 8388608u)); } /* unsigned: n of a NaN is any number */

/* The power of two is applied in two halves so that the ends of the range come out right. */
QX_HD float fm_exp(float x)
{
    float c = x < -104.0f ? -104.0f : x;
    int32_t n;
    c = c > 89.0f ? 89.0f : c;
    const float p = fm_exp_rest(c, &n) + 1.0f;
    const int32_t h = n >> 1;
    return p * fm_pow2(h) * fm_pow2(n - h);
}

/* e^x - 1 for x <= 88. */
QX_HD float fm_expm1(float x)
{
    int32_t n;
    const float rest = fm_exp_rest(x < -25.0f ? -25.0f : x, &n), scale = fm_pow2(n);
    return scale * rest + (scale - 1.0f);
}

QX_HD float fm_sigmoid(float x)
{
    float e = fm_exp(x < 0 ? x : -x); /* e^-|x| <= 1 */
    return (x < 0 ? e : 1.0f) / (1.0f + e) + (x != x ? x : 0.0f);
}

QX_HD float fm_tanh(float x)
{
    float a = fabsf(x), s = x * x;
    float big = 1.0f - 2.0f / (fm_exp(2.0f * a) + 1.0f);
    float p = -5.70498872745e-3f;
    p = p * s + 2.06390887954e-2f;
    p = p * s - 5.37397155531e-2f;
    p = p * s + 1.33314422036e-1f;
    p = p * s - 3.33332819422e-1f;
    float small = x + x * s * p;
    float r = x < 0 ? -big : big;
    return a < 0.625f ? small : r;
}

QX_HD float fm_erf(float x)
{
    float t = fabsf(x), s = x * x;
    float r = -1.72853470e-5f * t + 3.83197126e-4f, u = -3.88396438e-3f * t + 2.42546219e-2f;
    r = r * s + u;
    r = r * t - 1.06777877e-1f;
    r = r * t - 6.34846687e-1f;
    r = r * t - 1.28717512e-1f;
    r = r * t - t;
    float big = 1.0f - fm_exp(r);
    big = t > 4.0f ? 1.0f : big; /* also when r is -Inf - -Inf */
    big = x < 0 ? -big : big;
    float q = -5.96761703e-4f;
    q = q * s + 4.99119423e-3f;
    q = q * s - 2.67681349e-2f;
    q = q * s + 1.12819925e-1f;
    q = q * s - 3.76125336e-1f;
    q = q * s + 1.28379166e-1f;
    float small = q * x + x;
    float y = t > 0.927734375f ? big : small;
    return x != x ? x : y;
}

/* Clamped to [0, 1]; NaN stays. */
QX_HD float fm_unit(float x)
{
    const float low = x < 0.0f ? 0.0f : x;
    return low > 1.0f ? 1.0f : low;
}

/* x tanh(log(1 + e^x)), which is x (u^2 - 1) / (u^2 + 1) with u = 1 + e^x; from 20 on x. */
QX_HD float fm_mish(float x)
{
    const float e = fm_exp(x > 20.0f ? 20.0f : x), n = e * (e + 2.0f);
    return x > 20.0f ? x : x * (n / (n + 2.0f));
}

/* sin(x + quarters pi/2) for |x| <= FM_TRIG_MOST, reduced in double. */
#define FM_TRIG_MOST 1e6f
QX_HD float fm_trig(float x, int32_t quarters)
{
    const double at = (double)x * 0.63661977236758134 + 6755399441055744.0, n = at - 6755399441055744.0;
    const float r = (float)(((double)x - n * 1.5707963267948966) - n * 6.123233995736766e-17), s = r * r;
    uint64_t bits; /* of `at`: the low ones are n, or anything where x is too large */
    memcpy(&bits, &at, sizeof bits);
    const uint32_t q = (uint32_t)bits + (uint32_t)quarters;
    float c = 2.443315711809948e-5f, d = -1.9515295891e-4f;
    c = c * s - 1.388731625493765e-3f;
    c = c * s + 4.166664568298827e-2f;
    d = d * s + 8.3321608736e-3f;
    d = d * s - 1.6666654611e-1f;
    const float cosine = c * s * s - 0.5f * s + 1.0f, sine = d * s * r + r, v = q & 1 ? cosine : sine;
    return q & 2 ? -v : v;
}

QX_HD float fm_gelu(float x) { return 0.5f * x * (1.0f + fm_erf(x * 0.70710678118654752f)); }

QX_HD float fm_gelu_tanh(float x)
{
    return 0.5f * x * (1.0f + fm_tanh(0.7978845608028654f * (x + 0.044715f * x * x * x)));
}

#endif

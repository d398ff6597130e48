/* scalar.h - the definition of every number format, one element at a time, without branches that a vectoriser would mind.
 *
 * Both the reference loops and the fast loops are built from these functions, and the CUDA kernels
 * (kernels/cuda) include the file as it is, so there is one place that says what a format means. Rounding is half to even. The
 * tricks: a float's bits are an integer that orders like its magnitude, so rounding to fewer mantissa bits is an integer add;
 * below the smallest normal of the narrow format, adding 2^23 units of its smallest step lets the FPU round. */
#ifndef QX_KERNELS_SCALAR_H
#define QX_KERNELS_SCALAR_H

#include <stdint.h>
#include <string.h>

#ifndef QX_HD
#ifdef __CUDACC__
#define QX_HD static __host__ __device__ __forceinline__
#else
#define QX_HD static inline __attribute__((always_inline, unused))
#endif
#endif

QX_HD uint32_t qx_bits_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

QX_HD float qx_of_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* 2^e for a normal exponent. */
QX_HD float qx_pow2(int e) { return qx_of_bits((uint32_t)(e + 127) << 23); }

/* Rounds half to even; exact for |f| < 2^22, which every caller makes sure of by clamping. */
QX_HD float qx_rne(float f) { return (f + 12582912.0f) - 12582912.0f; }

/* rne(f) clamped to [lo, hi]; NaN gives 0 (clamped). lo and hi are integers below 2^22, so clamping first changes nothing. */
QX_HD float qx_rne_clamp(float f, float lo, float hi)
{
    f = f != f ? 0.0f : f;
    f = f < lo ? lo : f;
    f = f > hi ? hi : f;
    return qx_rne(f);
}

/* ---- small floats: magnitude only; `mbits` mantissa bits, exponent bias `bias`; the caller clamps and adds sign and specials */
QX_HD uint32_t qx_mini_from_abs(uint32_t a, int mbits, int bias)
{
    const int sh = 23 - mbits;
    const float unit = qx_pow2(23 + 1 - bias - mbits);
    const uint32_t normal = ((a + (1u << (sh - 1)) - 1u + ((a >> sh) & 1u)) >> sh) - ((uint32_t)(127 - bias) << mbits);
    const uint32_t tiny = qx_bits_of(qx_of_bits(a) + unit) - qx_bits_of(unit);
    return a < ((uint32_t)(128 - bias) << 23) ? tiny : normal;
}

QX_HD float qx_mini_to_abs(uint32_t c, int mbits, int bias)
{
    const uint32_t m = c & ((1u << mbits) - 1u), e = c >> mbits;
    const float tiny = (float)(int32_t)m * qx_pow2(1 - bias - mbits);
    return e == 0 ? tiny : qx_of_bits(((e + (uint32_t)(127 - bias)) << 23) | (m << (23 - mbits)));
}

/* The value that a small float would hold for y, saturated at `top` (a value of the format): decode(encode(y)) in one go. NaN gives top. */
QX_HD float qx_mini_round(float y, int mbits, int bias, float top)
{
    const int sh = 23 - mbits;
    const uint32_t x = qx_bits_of(y), most = qx_bits_of(top), b = x & 0x7fffffffu, a = b < most ? b : most;
    const float unit = qx_pow2(23 + 1 - bias - mbits);
    const uint32_t normal = (a + (1u << (sh - 1)) - 1u + ((a >> sh) & 1u)) & ~((1u << sh) - 1u);
    const uint32_t tiny = qx_bits_of((qx_of_bits(a) + unit) - unit);
    return qx_of_bits((a < ((uint32_t)(128 - bias) << 23) ? tiny : normal) | (x & 0x80000000u));
}

QX_HD float qx_with_sign(float mag, uint32_t sign_bit31) { return qx_of_bits(qx_bits_of(mag) | sign_bit31); }

/* ---- f16, bf16: overflow goes to Inf; NaN keeps sign and the upper payload bits and becomes quiet */
QX_HD float qx_sc_f16_to_f32(uint16_t h)
{
    const uint32_t a = h & 0x7fffu, sign = (uint32_t)(h & 0x8000u) << 16;
    const uint32_t special = 0x7f800000u | (a << 13) | (a > 0x7c00u ? 0x400000u : 0u);
    const uint32_t finite = qx_bits_of(qx_mini_to_abs(a, 10, 15));
    return qx_of_bits((a >= 0x7c00u ? special : finite) | sign);
}

QX_HD uint16_t qx_sc_f32_to_f16(float f)
{
    const uint32_t x = qx_bits_of(f), a = x & 0x7fffffffu, sign = (x >> 16) & 0x8000u;
    const uint32_t finite = qx_mini_from_abs(a, 10, 15);
    const uint32_t nan = 0x7e00u | ((a >> 13) & 0x3ffu);
    uint32_t r = a >= 0x47800000u ? 0x7c00u : finite;
    r = a > 0x7f800000u ? nan : r;
    return (uint16_t)(r | sign);
}

QX_HD float qx_sc_bf16_to_f32(uint16_t h) { return qx_of_bits((uint32_t)h << 16); }

QX_HD uint16_t qx_sc_f32_to_bf16(float f)
{
    const uint32_t x = qx_bits_of(f);
    const uint32_t r = (x + 0x7fffu + ((x >> 16) & 1u)) >> 16;
    const uint32_t nan = (x >> 16) | 0x40u;
    return (uint16_t)((x & 0x7fffffffu) > 0x7f800000u ? nan : r);
}

/* ---- 8-bit floats. e4m3fn: max 448 = 0x7E, NaN 0x7F, no Inf. e5m2: max 57344 = 0x7B, Inf 0x7C, NaN written as 0x7F. */
QX_HD float qx_sc_e4m3_to_f32(uint8_t c)
{
    const uint32_t a = c & 0x7fu;
    return qx_with_sign(a == 0x7fu ? qx_of_bits(0x7fc00000u) : qx_mini_to_abs(a, 3, 7), (uint32_t)(c & 0x80u) << 24);
}

QX_HD uint8_t qx_sc_f32_to_e4m3(float f, int saturate)
{
    const uint32_t x = qx_bits_of(f), a = x & 0x7fffffffu;
    const uint32_t r = qx_mini_from_abs(a > 0x44000000u ? 0x44000000u : a, 3, 7), top = saturate ? 0x7eu : 0x7fu;
    const uint32_t mag = a > 0x7f800000u ? 0x7fu : (r > 0x7eu ? top : r);
    return (uint8_t)(mag | ((x >> 24) & 0x80u));
}

QX_HD float qx_sc_e5m2_to_f32(uint8_t c) { return qx_sc_f16_to_f32((uint16_t)((uint32_t)c << 8)); }

QX_HD uint8_t qx_sc_f32_to_e5m2(float f, int saturate)
{
    const uint32_t x = qx_bits_of(f), a = x & 0x7fffffffu;
    const uint32_t r = qx_mini_from_abs(a > 0x47800000u ? 0x47800000u : a, 2, 15), top = saturate ? 0x7bu : 0x7cu;
    const uint32_t mag = a > 0x7f800000u ? 0x7fu : (r > 0x7bu ? top : r);
    return (uint8_t)(mag | ((x >> 24) & 0x80u));
}

/* fnuz forms: no Inf, no -0, the only NaN is 0x80. e4m3fnuz bias 8, max 240; e5m2fnuz bias 16, max 57344. */
QX_HD float qx_sc_fnuz_to_f32(uint8_t c, int mbits, int bias)
{
    const float mag = qx_mini_to_abs(c & 0x7fu, mbits, bias);
    return c == 0x80u ? qx_of_bits(0x7fc00000u) : qx_with_sign(mag, (uint32_t)(c & 0x80u) << 24);
}

QX_HD uint8_t qx_sc_f32_to_fnuz(float f, int mbits, int bias, int saturate)
{
    const uint32_t x = qx_bits_of(f), a = x & 0x7fffffffu;
    const uint32_t r = qx_mini_from_abs(a > 0x48000000u ? 0x48000000u : a, mbits, bias), sign = (x >> 24) & 0x80u;
    const uint32_t finite = r == 0 ? 0u : r | sign;
    const uint32_t over = saturate ? 0x7fu | sign : 0x80u;
    return (uint8_t)(a > 0x7f800000u ? 0x80u : (r > 0x7fu ? over : finite));
}

/* ---- e2m1: 0 .5 1 1.5 2 3 4 6; no Inf, no NaN. Zero of either sign and NaN give code 0; a negative value that rounds to zero gives 8. */
QX_HD float qx_sc_e2m1_to_f32(uint8_t c)
{
    return qx_with_sign(qx_mini_to_abs(c & 7u, 1, 1), (uint32_t)(c & 8u) << 28);
}

QX_HD uint8_t qx_sc_f32_to_e2m1(float f)
{
    const uint32_t a = qx_bits_of(f) & 0x7fffffffu;
    const uint32_t r = qx_mini_from_abs(a > 0x40c00000u ? 0x40c00000u : a, 1, 1);
    const uint32_t code = r | (f < 0.0f ? 8u : 0u);
    return (uint8_t)(a > 0x7f800000u ? 0u : code);
}

/* ---- e8m0: 2^(c - 127), 255 is NaN */
QX_HD float qx_sc_e8m0_to_f32(uint8_t c)
{
    const uint32_t normal = (uint32_t)c << 23;
    return qx_of_bits(c == 0 ? 0x00400000u : (c == 255u ? 0x7fc00000u : normal));
}

QX_HD uint8_t qx_sc_f32_to_e8m0_ceil(float f)
{
    const uint32_t x = qx_bits_of(f), a = x & 0x7fffffffu;
    uint32_t r = a <= 0x00400000u ? 0u : (a >> 23) + ((a & 0x7fffffu) != 0);
    r = r > 254u ? 254u : r;
    r = x > 0x7fffffffu ? 0u : r; /* negative */
    return (uint8_t)(a > 0x7f800000u ? 255u : r);
}

/* ---- wide integers: half to even, saturating, NaN to 0. Floats of 2^23 and more are integers already. */
QX_HD double qx_rne_wide(float f)
{
    const double d = (double)f, magic = 6755399441055744.0; /* 1.5 * 2^52 */
    return (f < 0 ? -f : f) < 4194304.0f ? (d + magic) - magic : d;
}
QX_HD int64_t qx_sc_f32_to_i64(float f)
{
    if (f != f) return 0;
    if (f >= 9223372036854775808.0f) return INT64_MAX;
    if (f < -9223372036854775808.0f) return INT64_MIN;
    return (int64_t)qx_rne_wide(f);
}
QX_HD uint64_t qx_sc_f32_to_u64(float f)
{
    if (!(f > 0.0f)) return 0;
    if (f >= 18446744073709551616.0f) return UINT64_MAX;
    return (uint64_t)qx_rne_wide(f);
}
QX_HD int32_t qx_sc_f32_to_i32(float f)
{
    const int64_t v = qx_sc_f32_to_i64(f);
    return (int32_t)(v > INT32_MAX ? INT32_MAX : v < INT32_MIN ? INT32_MIN : v);
}
QX_HD uint32_t qx_sc_f32_to_u32(float f)
{
    const int64_t v = qx_sc_f32_to_i64(f);
    return (uint32_t)(v < 0 ? 0 : v > (int64_t)UINT32_MAX ? (int64_t)UINT32_MAX : v);
}

/* Sign-extends the low `bits` bits. */
QX_HD int32_t qx_sc_sext(uint32_t v, int bits) { return (int32_t)(v << (32 - bits)) >> (32 - bits); }

#endif

/* convert_loops.h - array conversion loops for every element type, written once and compiled once per instruction set.
 * The includer defines FN(name) (the suffix) and TARGET (the function attribute), and gets a table FN(conv_rows) by dtype.
 * No include guard: it is meant to be included several times. */

#define TO_LOOP(name, ctype, expr)                                                   \
    TARGET static void FN(name##_to)(const void *src, int64_t n, float *dst)         \
    {                                                                                \
        const ctype *s = src;                                                        \
        for (int64_t i = 0; i < n; i++) {                                            \
            const ctype v = s[i];                                                    \
            dst[i] = (expr);                                                         \
        }                                                                            \
    }
#define FROM_LOOP(name, ctype, expr)                                                 \
    TARGET static void FN(name##_from)(const float *src, int64_t n, void *dst)       \
    {                                                                                \
        ctype *d = dst;                                                              \
        for (int64_t i = 0; i < n; i++) {                                            \
            const float v = src[i];                                                  \
            d[i] = (ctype)(expr);                                                    \
        }                                                                            \
    }
/* The two halves of a byte in two words, the low one first in memory: what vectors can do with 32 bytes at once. */
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define QX_NIBBLES(w) (((w) & 15) << 32 | (w) >> 4)
#else
#define QX_NIBBLES(w) ((w) >> 4 << 32 | ((w) & 15))
#endif
/* Types of `bits` bits, per = 8 / bits to a byte, first element lowest; the last byte is padded with zero bits. */
#define PACKED_LOOPS(name, bits, to_expr, from_expr)                                 \
    TARGET static void FN(name##_to)(const void *src, int64_t n, float *dst)         \
    {                                                                                \
        enum { PER = 8 / (bits), MASK = (1 << (bits)) - 1 };                         \
        const uint8_t *s = src;                                                      \
        const int64_t full = n / PER;                                                \
        int64_t i = 0;                                                               \
        for (; (bits) == 4 && i + 32 <= full; i += 32) {                             \
            union { uint64_t pair[32]; uint32_t c[64]; } t;                          \
            for (int j = 0; j < 32; j++) t.pair[j] = QX_NIBBLES((uint64_t)s[i + j]); \
            for (int j = 0; j < 64; j++) {                                           \
                const uint32_t c = t.c[j];                                           \
                dst[i * PER + j] = (to_expr);                                        \
            }                                                                        \
        }                                                                            \
        for (; i < full; i++)                                                        \
            for (int j = 0; j < PER; j++) {                                          \
                const uint32_t c = ((uint32_t)s[i] >> (j * (bits))) & MASK;          \
                dst[i * PER + j] = (to_expr);                                        \
            }                                                                        \
        for (int64_t e = full * PER; e < n; e++) {                                   \
            const uint32_t c = ((uint32_t)s[full] >> ((e - full * PER) * (bits))) & MASK; \
            dst[e] = (to_expr);                                                      \
        }                                                                            \
    }                                                                                \
    TARGET static void FN(name##_from)(const float *src, int64_t n, void *dst)       \
    {                                                                                \
        enum { PER = 8 / (bits), MASK = (1 << (bits)) - 1 };                         \
        uint8_t *d = dst;                                                            \
        const int64_t full = n / PER;                                                \
        for (int64_t i = 0; i < full; i++) {                                         \
            uint32_t byte = 0;                                                       \
            for (int j = 0; j < PER; j++) {                                          \
                const float v = src[i * PER + j];                                    \
                byte |= ((uint32_t)(from_expr) & MASK) << (j * (bits));              \
            }                                                                        \
            d[i] = (uint8_t)byte;                                                    \
        }                                                                            \
        if (full * PER < n) {                                                        \
            uint32_t byte = 0;                                                       \
            for (int64_t e = full * PER; e < n; e++) {                               \
                const float v = src[e];                                              \
                byte |= ((uint32_t)(from_expr) & MASK) << ((e - full * PER) * (bits)); \
            }                                                                        \
            d[full] = (uint8_t)byte;                                                 \
        }                                                                            \
    }

TO_LOOP(f32, float, v)
FROM_LOOP(f32, float, v)
TO_LOOP(f64, double, (float)v)
FROM_LOOP(f64, double, v)
TO_LOOP(bf16, uint16_t, qx_sc_bf16_to_f32(v))
FROM_LOOP(bf16, uint16_t, qx_sc_f32_to_bf16(v))
TO_LOOP(bool, uint8_t, v != 0 ? 1.0f : 0.0f)
FROM_LOOP(bool, uint8_t, v != 0.0f)
TO_LOOP(u8, uint8_t, (float)v)
FROM_LOOP(u8, uint8_t, (int32_t)qx_rne_clamp(v, 0.0f, 255.0f))
TO_LOOP(i8, int8_t, (float)v)
FROM_LOOP(i8, int8_t, (int32_t)qx_rne_clamp(v, -128.0f, 127.0f))
TO_LOOP(u16, uint16_t, (float)v)
FROM_LOOP(u16, uint16_t, (int32_t)qx_rne_clamp(v, 0.0f, 65535.0f))
TO_LOOP(i16, int16_t, (float)v)
FROM_LOOP(i16, int16_t, (int32_t)qx_rne_clamp(v, -32768.0f, 32767.0f))
TO_LOOP(i32, int32_t, (float)v)
FROM_LOOP(i32, int32_t, qx_sc_f32_to_i32(v))
TO_LOOP(u32, uint32_t, (float)v)
FROM_LOOP(u32, uint32_t, qx_sc_f32_to_u32(v))
TO_LOOP(i64, int64_t, (float)v)
FROM_LOOP(i64, int64_t, qx_sc_f32_to_i64(v))
TO_LOOP(u64, uint64_t, (float)v)
FROM_LOOP(u64, uint64_t, qx_sc_f32_to_u64(v))
#ifdef HAVE_F16C
#include "kernels/loops/half_loops.h"
#else
TO_LOOP(f16, uint16_t, qx_sc_f16_to_f32(v))
FROM_LOOP(f16, uint16_t, qx_sc_f32_to_f16(v))
TARGET static void FN(f16_round)(float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) x[i] = qx_sc_f16_to_f32(qx_sc_f32_to_f16(x[i]));
}
#endif
TARGET static void FN(bf16_round)(float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) x[i] = qx_sc_bf16_to_f32(qx_sc_f32_to_bf16(x[i]));
}
TO_LOOP(e4m3, uint8_t, qx_sc_e4m3_to_f32(v))
FROM_LOOP(e4m3, uint8_t, qx_sc_f32_to_e4m3(v, 1))
TO_LOOP(e5m2, uint8_t, qx_sc_e5m2_to_f32(v))
FROM_LOOP(e5m2, uint8_t, qx_sc_f32_to_e5m2(v, 1))
TO_LOOP(e4m3fnuz, uint8_t, qx_sc_fnuz_to_f32(v, 3, 8))
FROM_LOOP(e4m3fnuz, uint8_t, qx_sc_f32_to_fnuz(v, 3, 8, 1))
TO_LOOP(e5m2fnuz, uint8_t, qx_sc_fnuz_to_f32(v, 2, 16))
FROM_LOOP(e5m2fnuz, uint8_t, qx_sc_f32_to_fnuz(v, 2, 16, 1))
TO_LOOP(e8m0, uint8_t, qx_sc_e8m0_to_f32(v))
FROM_LOOP(e8m0, uint8_t, qx_sc_f32_to_e8m0_ceil(v))
PACKED_LOOPS(u4, 4, (float)(int32_t)c, (int32_t)qx_rne_clamp(v, 0.0f, 15.0f))
PACKED_LOOPS(i4, 4, (float)qx_sc_sext(c, 4), (int32_t)qx_rne_clamp(v, -8.0f, 7.0f))
PACKED_LOOPS(e2m1, 4, qx_sc_e2m1_to_f32((uint8_t)c), qx_sc_f32_to_e2m1(v))
PACKED_LOOPS(u2, 2, (float)(int32_t)c, (int32_t)qx_rne_clamp(v, 0.0f, 3.0f))
PACKED_LOOPS(i2, 2, (float)qx_sc_sext(c, 2), (int32_t)qx_rne_clamp(v, -2.0f, 1.0f))

#define ROW(code, name) [QX_DT_##code] = {FN(name##_to), FN(name##_from), NULL}
#define ROW_16(code, name) [QX_DT_##code] = {FN(name##_to), FN(name##_from), FN(name##_round)}
static const qx_conv_row FN(conv_rows)[QX_DT_COUNT_] = {
    ROW(FLOAT, f32), ROW(UINT8, u8), ROW(INT8, i8), ROW(UINT16, u16), ROW(INT16, i16), ROW(INT32, i32),
    ROW(INT64, i64), ROW(BOOL, bool), ROW_16(FLOAT16, f16), ROW(DOUBLE, f64), ROW(UINT32, u32), ROW(UINT64, u64),
    ROW_16(BFLOAT16, bf16), ROW(FLOAT8E4M3FN, e4m3), ROW(FLOAT8E4M3FNUZ, e4m3fnuz), ROW(FLOAT8E5M2, e5m2),
    ROW(FLOAT8E5M2FNUZ, e5m2fnuz), ROW(UINT4, u4), ROW(INT4, i4), ROW(FLOAT4E2M1, e2m1), ROW(FLOAT8E8M0, e8m0),
    ROW(UINT2, u2), ROW(INT2, i2),
};
#undef ROW
#undef ROW_16
#undef TO_LOOP
#undef FROM_LOOP
#undef PACKED_LOOPS
#undef QX_NIBBLES

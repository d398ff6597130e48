/* test_dtype.c - number formats: every code of every small float against a decoder written here from the definition, encoding
 * against a nearest-value search, the published vectors, and every instruction set against the reference bit by bit. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/convert.h"

enum { N_SPECIAL = 64, N_RANDOM = 4099, N = N_SPECIAL + N_RANDOM };

typedef struct mini { int dtype, ebits, mbits, bias, codes; uint8_t max, nan; bool inf; } mini;
static const mini minis[] = {
    {QX_DT_FLOAT8E4M3FN, 4, 3, 7, 256, 0x7e, 0x7f, false},
    {QX_DT_FLOAT8E5M2, 5, 2, 15, 256, 0x7b, 0x7d, true},
    {QX_DT_FLOAT8E4M3FNUZ, 4, 3, 8, 256, 0x7f, 0x80, false},
    {QX_DT_FLOAT8E5M2FNUZ, 5, 2, 16, 256, 0x7f, 0x80, false},
    {QX_DT_FLOAT4E2M1, 2, 1, 1, 16, 7, 0xff, false},
};

static double mini_value(const mini *m, int code) /* magnitude code, finite */
{
    const int e = code >> m->mbits, f = code & ((1 << m->mbits) - 1);
    return e == 0 ? ldexp(f, 1 - m->bias - m->mbits) : ldexp((1 << m->mbits) + f, e - m->bias - m->mbits);
}

static uint32_t rng_state = 12345;
static uint32_t rng(void)
{
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 17;
    rng_state ^= rng_state << 5;
    return rng_state;
}
static float of_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, 4);
    return f;
}

static int encode_one(const mini *m, float f)
{
    uint8_t out = 0xee;
    assert_true(qx_ref_from_f32(m->dtype, &f, 1, &out));
    return out;
}

/* Nearest magnitude by distance in double, ties to the even code, saturating. */
static int nearest(const mini *m, float f)
{
    int best = 0;
    double bd = INFINITY;
    for (int c = 0; c <= m->max; c++) {
        const double d = fabs(mini_value(m, c) - fabs((double)f));
        if (d < bd || (d == bd && c % 2 == 0)) best = c, bd = d;
    }
    return best;
}

static void decode_all_codes(void **state)
{
    (void)state;
    for (size_t k = 0; k < sizeof minis / sizeof *minis; k++) {
        const mini *m = &minis[k];
        const int half = m->codes / 2;
        for (int c = 0; c < m->codes; c++) {
            const uint8_t byte = (uint8_t)c;
            float f = 0;
            assert_true(qx_ref_to_f32(m->dtype, &byte, 1, &f));
            const int mag = c % half;
            if (m->nan == 0x80 ? c == 0x80 : m->codes == 256 && mag > m->max && !(m->inf && mag == 0x7c)) assert_true(isnan(f));
            else if (mag > m->max) assert_true(isinf(f) && (signbit(f) != 0) == (c >= half));
            else {
                assert_true((double)fabsf(f) == mini_value(m, mag));
                assert_int_equal(signbit(f) != 0, c >= half);
                if (c != half || m->codes == 256) assert_int_equal(encode_one(m, f), c); /* finite codes round-trip; E2M1 -0 does not */
            }
        }
    }
}

static void encode_is_nearest(void **state)
{
    (void)state;
    for (size_t k = 0; k < sizeof minis / sizeof *minis; k++) {
        const mini *m = &minis[k];
        for (int c = 0; c < m->max; c++) { /* each midpoint, and one ulp to both sides */
            const float mid = (float)(0.5 * (mini_value(m, c) + mini_value(m, c + 1)));
            const float at[3] = {nextafterf(mid, 0), mid, nextafterf(mid, INFINITY)};
            for (int i = 0; i < 3; i++) assert_int_equal(encode_one(m, at[i]), nearest(m, at[i]));
        }
        for (int i = 0; i < 20000; i++) {
            const float f = of_bits((rng() & 0x7fffffu) | ((uint32_t)(127 - 24 + rng() % 48) << 23));
            assert_int_equal(encode_one(m, f), nearest(m, f));
        }
        assert_int_equal(encode_one(m, 1e30f), m->max);
        assert_int_equal(encode_one(m, INFINITY), m->max);
        assert_int_equal(encode_one(m, -INFINITY), m->max | m->codes / 2);
        const int nan = encode_one(m, NAN);
        assert_int_equal(nan & 0xff, m->codes == 16 ? 0 : m->nan == 0x80 ? 0x80 : 0x7f);
    }
}

static void published_vectors(void **state)
{
    (void)state;
    static const struct { float f; uint8_t code; } e4m3[] = {
        {1, 0x38}, {.5f, 0x30}, {2, 0x40}, {-1, 0xB8}, {-0.0f, 0x80}, {1e10f, 0x7E}, {-1e10f, 0xFE}, {1e-10f, 0}, {-1e-10f, 0x80},
        {464, 0x7E}, {465, 0x7E}, {1.0625f, 0x38}, {1.1875f, 0x3A}, {0x1p-10f, 0}, {0x1.8p-10f, 1}, {.1f, 0x1D}, {.3f, 0x2A},
        {-.7f, 0xB3}, {17, 0x58}, {240, 0x77}, {1.8131605f, 0x3F}};
    for (size_t i = 0; i < sizeof e4m3 / sizeof *e4m3; i++) assert_int_equal(qx_f32_to_e4m3(e4m3[i].f, 1), e4m3[i].code);
    assert_int_equal(qx_f32_to_e4m3(465, 0), 0x7F);
    assert_int_equal(qx_f32_to_e4m3(INFINITY, 0), 0x7F);
    assert_int_equal(qx_f32_to_e5m2(INFINITY, 0), 0x7C);
    assert_int_equal(qx_f32_to_e5m2(1e10f, 0), 0x7C);
    assert_int_equal(qx_f32_to_e5m2(1e10f, 1), 0x7B);
    static const struct { float f; uint8_t code; } e2m1[] = {{.25f, 0}, {.26f, 1}, {.75f, 2}, {1.25f, 2}, {1.75f, 4}, {2.5f, 4}, {2.51f, 5},
        {3.5f, 6}, {5, 6}, {5.01f, 7}, {7, 7}, {-.1f, 8}, {-.75f, 0xA}, {-5, 0xE}, {-0.0f, 0}, {0, 0}};
    for (size_t i = 0; i < sizeof e2m1 / sizeof *e2m1; i++) assert_int_equal(qx_f32_to_e2m1(e2m1[i].f), e2m1[i].code);
    static const struct { float amax; int code; } e8m0[] = {{1, 119}, {2, 120}, {.5f, 118}, {3, 120}, {4, 121}, {7, 121}, {8, 122},
                                                            {448, 127},
        {449, 128}, {0, 0}};
    for (size_t i = 0; i < sizeof e8m0 / sizeof *e8m0; i++) assert_int_equal(qx_f32_to_e8m0_ceil(e8m0[i].amax / 448.0f), e8m0[i].code);
    assert_int_equal(qx_f32_to_e8m0_ceil(INFINITY), 254);
    assert_int_equal(qx_f32_to_e8m0_ceil(-3), 0);
    assert_true(qx_e8m0_to_f32(0) == 0x1p-127f && qx_e8m0_to_f32(254) == 0x1p127f && isnan(qx_e8m0_to_f32(255)));
}

static void pack(int dtype, const float *f, int n, const char *hex)
{
    uint8_t out[64];
    memset(out, 0xcc, sizeof out);
    char text[130] = "";
    size_t bytes = 0;
    assert_true(qx_dtype_bytes(dtype, n, &bytes));
    assert_true(qx_from_f32(dtype, f, n, out));
    assert_int_equal(out[bytes], 0xcc);
    for (size_t i = 0; i < bytes; i++) snprintf(text + 2 * i, 3, "%02X", out[i]);
    assert_string_equal(text, hex);
}
#define PACK(dtype, hex, ...) pack(dtype, (const float[]){__VA_ARGS__}, (int)(sizeof(float[]){__VA_ARGS__} / sizeof(float)), hex)

static void packing(void **state)
{
    (void)state;
    PACK(QX_DT_INT4, "080778", -8, 0, 7, 0, -8, 7);
    PACK(QX_DT_UINT4, "0F07", 15, 0, 7, 0);
    PACK(QX_DT_INT4, "732B8140", 3, 7, -5, 2, 1, -8, 0, 4);
    PACK(QX_DT_INT4, "7887", -10, 15, 9, -20);
    PACK(QX_DT_INT4, "3316", 2.7f, 3.2f, 5.6f, 1.4f);
    PACK(QX_DT_INT4, "21436577", 1, 2, 3, 4, 5, 6, 7, 8);
    PACK(QX_DT_INT4, "0807", -8, 0, 7);
    PACK(QX_DT_FLOAT4E2M1, "1032", 0, .5f, 1, 1.5f);
    PACK(QX_DT_FLOAT4E2M1, "A94B", -.5f, -1, -1.5f, 1.75f);
    PACK(QX_DT_FLOAT4E2M1, "2064", 0, .75f, 1.75f, 3.5f);
    PACK(QX_DT_FLOAT4E2M1, "F7", 10, -10);
    PACK(QX_DT_FLOAT4E2M1, "80", .1f, -.1f);
    PACK(QX_DT_UINT2, "E401", 0, 1, 2, 3, 1.2f);
    PACK(QX_DT_INT2, "B1", 1, 0, -1, -7);
    PACK(QX_DT_INT8, "850200" "7F807F01FE", -123.4f, 2.3f, .23f, 12345.1f, -20123.4f, 256.7f, .83f, -1.54f);
    PACK(QX_DT_UINT8, "000200FF00FF0100", -123.4f, 2.3f, .23f, 12345.1f, -20123.4f, 256.7f, .83f, -1.54f);
}

static void wide_integers(void **state)
{
    (void)state;
    const float f[] = {2.5f, 3.5f, -2.5f, 3e9f, -3e9f, NAN, INFINITY, -INFINITY, 8388609.0f, 1e19f, -0.5f, 4294967040.0f};
    int32_t i32[12];
    int64_t i64[12];
    uint32_t u32[12];
    uint64_t u64[12];
    qx_from_f32(QX_DT_INT32, f, 12, i32);
    qx_from_f32(QX_DT_INT64, f, 12, i64);
    qx_from_f32(QX_DT_UINT32, f, 12, u32);
    qx_from_f32(QX_DT_UINT64, f, 12, u64);
    const int32_t e32[] = {2, 4, -2, INT32_MAX, INT32_MIN, 0, INT32_MAX, INT32_MIN, 8388609, INT32_MAX, 0, INT32_MAX};
    const int64_t e64[] = {2, 4, -2, 3000000000, -3000000000, 0, INT64_MAX, INT64_MIN, 8388609, INT64_MAX, 0, 4294967040};
    const uint32_t f32[] = {2, 4, 0, 3000000000u, 0, 0, UINT32_MAX, 0, 8388609, UINT32_MAX, 0, 4294967040u};
    for (int i = 0; i < 12; i++) {
        assert_int_equal(i32[i], e32[i]);
        assert_true(i64[i] == e64[i]);
        assert_true(u32[i] == f32[i]);
        assert_true(u64[i] == (i == 6 ? UINT64_MAX : i == 9 ? 9999999980506447872u : i64[i] < 0 ? 0 : (uint64_t)i64[i]));
    }
}

static void half_and_brain(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        const float f = qx_f16_to_f32((uint16_t)h), b = qx_bf16_to_f32((uint16_t)h);
        const int e = (h >> 10) & 31, m = h & 1023;
        const double mag = e ? ldexp(1024 + m, e - 25) : ldexp(m, -24);
        if (e == 31) assert_true(m ? isnan(f) : isinf(f));
        else assert_true((double)fabsf(f) == mag && (signbit(f) != 0) == (h >> 15));
        if (!isnan(f)) assert_int_equal(qx_f32_to_f16(f), h);
        if (!isnan(b)) assert_int_equal(qx_f32_to_bf16(b), h);
    }
    assert_int_equal(qx_f32_to_f16(65519.996f), 0x7bff);
    assert_int_equal(qx_f32_to_f16(65520), 0x7c00);
    assert_int_equal(qx_f32_to_f16(0x1p-25f), 0);
    assert_int_equal(qx_f32_to_f16(0x1.000002p-25f), 1);
    assert_true(isnan(qx_f16_to_f32(qx_f32_to_f16(NAN))) && isnan(qx_bf16_to_f32(qx_f32_to_bf16(of_bits(0x7f800001)))));
    assert_int_equal(qx_f32_to_bf16(of_bits(0x3f808000)), 0x3f80);
    assert_int_equal(qx_f32_to_bf16(of_bits(0x3f818000)), 0x3f82);
}

static void fill(float *f)
{
    static const float special[] = {0, -0.0f, 1, -1, .5f, -.5f, 1.5f, 2.5f, 127.5f, -128.5f, 255.5f, 7.5f, 8.5f, 448, 464, 465, -465,
                                    65504, 65520,
        1e30f, -1e30f, 0x1p-149f, -0x1p-149f, 0x1p-126f, 0x1p-127f, 0x1p-24f, 0x1.8p-25f, 2147483520, 2147483648.0f, -2147483648.0f,
        9.2233715e18f, 1e19f, 2e19f, 4194303.5f, 4194304.5f, 8388607.5f, 57344, 61440, 240, 248, 256};
    const size_t n = sizeof special / sizeof *special;
    for (int i = 0; i < N_SPECIAL; i++)
        f[i] = i < (int)n ? special[i] : of_bits(0x7f800000u + (i % 2 ? 0u : rng() % 0x7fffffu) + (i % 4 < 2 ? 0x80000000u : 0));
    for (int i = N_SPECIAL; i < N; i++) f[i] = i % 3 ? of_bits(rng()) : (float)((double)rng() / 4294967296.0 * 600 - 300);
}

/* Every isa that this machine has, every dtype, lengths from 0 to odd ones, unaligned by one element: same bytes, nothing past the end. */
static void isa_equals_reference(void **state)
{
    (void)state;
    static float src[N + 1];
    static uint8_t want[8 * (N + 2)], got[8 * (N + 2)];
    static float fw[N + 2], fg[N + 2];
    static const int lengths[] = {0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 65, 127, N - 1};
    fill(src);
    for (int isa = 0; isa <= (int)qx_isa_best(); isa++)
        for (int t = 0; t < QX_DT_COUNT_; t++) {
            const qx_conv_row *cpu = &qx_conv_cpu((qx_isa)isa)[t], *ref = &qx_conv_ref()[t];
            assert_int_equal(cpu->to_f32 == NULL, ref->to_f32 == NULL);
            if (!ref->to_f32) continue;
            for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++)
                for (int off = 0; off < 2; off++) {
                    const int n = lengths[l];
                    memset(want, 0xa5, sizeof want), memset(got, 0xa5, sizeof got);
                    memset(fw, 0x5a, sizeof fw), memset(fg, 0x5a, sizeof fg);
                    ref->from_f32(src + off, n, want);
                    cpu->from_f32(src + off, n, got);
                    assert_memory_equal(want, got, sizeof want);
                    ref->to_f32(want, n, fw + off);
                    cpu->to_f32(want, n, fg + off);
                    assert_memory_equal(fw, fg, sizeof fw);
                }
            assert_int_equal(cpu->round == NULL, t != QX_DT_FLOAT16 && t != QX_DT_BFLOAT16);
            if (cpu->round) {
                ref->from_f32(src, N, want);
                ref->to_f32(want, N, fw);
                memcpy(fg, src, N * sizeof *fg);
                cpu->round(fg, N - 3);
                assert_memory_equal(fw, fg, (N - 3) * sizeof *fg);
                assert_memory_equal(fg + N - 3, src + N - 3, 3 * sizeof *fg);
                memcpy(fg, fw, sizeof fg);
            }
            for (size_t i = 0; i < sizeof want; i++) want[i] = (uint8_t)rng(); /* arbitrary codes */
            if (t == QX_DT_DOUBLE || t == QX_DT_BOOL) continue;                /* NaN payloads; a byte that is no bool */
            ref->to_f32(want, N, fw);
            cpu->to_f32(want, N, fg);
            assert_memory_equal(fw, fg, sizeof fw);
        }
}

static void names_and_sizes(void **state)
{
    (void)state;
    size_t b = 99;
    assert_int_equal(qx_dtype_parse("f32"), QX_DT_FLOAT);
    assert_int_equal(qx_dtype_parse("Float16"), QX_DT_FLOAT16);
    assert_int_equal(qx_dtype_parse("fp8"), QX_DT_FLOAT8E4M3FN);
    assert_int_equal(qx_dtype_parse("BFLOAT16"), QX_DT_BFLOAT16);
    assert_int_equal(qx_dtype_parse("?"), QX_DT_UNDEFINED);
    assert_int_equal(qx_dtype_parse("nonsense"), QX_DT_UNDEFINED);
    assert_int_equal(qx_dtype_parse(NULL), QX_DT_UNDEFINED);
    assert_true(qx_dtype_bytes(QX_DT_INT4, 5, &b) && b == 3);
    assert_true(qx_dtype_bytes(QX_DT_UINT2, 5, &b) && b == 2);
    assert_true(qx_dtype_bytes(QX_DT_INT4, INT64_MAX, &b) && b == (size_t)1 << 62);
    assert_true(qx_dtype_bytes(QX_DT_DOUBLE, 0, &b) && b == 0);
    assert_false(qx_dtype_bytes(QX_DT_DOUBLE, INT64_MAX / 4, &b));
    assert_false(qx_dtype_bytes(QX_DT_FLOAT, -1, &b));
    assert_false(qx_dtype_bytes(QX_DT_STRING, 1, &b));
    assert_false(qx_dtype_bytes(-3, 1, &b));
    assert_string_equal(qx_dtype_get(1000)->text, "?");
    assert_int_equal(qx_dtype_bits(QX_DT_FLOAT4E2M1), 4);
    float f = 0;
    assert_false(qx_to_f32(QX_DT_STRING, &b, 1, &f));
    assert_false(qx_to_f32(99, &b, 1, &f));
    assert_false(qx_from_f32(-1, &f, 1, &b));
    assert_false(qx_ref_to_f32(QX_DT_COMPLEX64, &b, 1, &f));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decode_all_codes), cmocka_unit_test(encode_is_nearest), cmocka_unit_test(published_vectors),
        cmocka_unit_test(packing), cmocka_unit_test(wide_integers), cmocka_unit_test(half_and_brain),
        cmocka_unit_test(isa_equals_reference), cmocka_unit_test(names_and_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

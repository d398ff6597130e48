/* test_quant.c - quantize, dequantize and ranges: one table of layouts and formats; each is run against an element-by-element oracle
 * written here from the definition, and on every instruction set of this machine. Then the published vectors. */
#include "kernels.h"

#include "kernels/loops/quant_leaf.h"

typedef struct layout { const char *name; int64_t rows, cols, block_r, block_c; } layout;
static const layout layouts[] = {
    {"empty", 0, 7, 1, 7}, {"no columns", 4, 0, 1, 1}, {"one", 1, 1, 1, 1}, {"tensor", 5, 37, 5, 37}, {"rows", 7, 33, 1, 33},
    {"columns", 9, 19, 9, 1}, {"blocks 16", 3, 100, 1, 16}, {"blocks 32 partial", 5, 33, 1, 32}, {"block larger than row", 3, 20, 1, 128},
    {"blocks 5", 4, 23, 1, 5}, {"axis 0 blocks", 11, 13, 4, 1}, {"2-D", 13, 21, 4, 8}, {"long rows", 3, 5003, 1, 5003},
    {"long blocks", 2, 6001, 1, 4096}, {"long blocks 48", 3, 2999, 1, 48}, {"wide columns", 3, 4100, 3, 1}, {"tall", 5000, 3, 1, 3}};

typedef struct form { qx_dtype codes; bool narrow, zero, no_saturate, unpacked; } form;
static const form forms[] = {
    {QX_DT_INT8, false, false, false, false}, {QX_DT_INT8, true, false, false, false}, {QX_DT_INT8, false, true, false, false},
    {QX_DT_UINT8, false, true, false, false}, {QX_DT_UINT8, false, false, false, false}, {QX_DT_INT16, false, true, false, false},
    {QX_DT_UINT16, false, true, false, false}, {QX_DT_INT4, false, false, false, false}, {QX_DT_INT4, false, false, false, true},
    {QX_DT_UINT4, false, true, false, false}, {QX_DT_UINT4, false, true, false, true}, {QX_DT_INT2, false, false, false, false},
    {QX_DT_UINT2, false, true, false, true}, {QX_DT_FLOAT8E4M3FN, false, false, false, false},
    {QX_DT_FLOAT8E4M3FN, false, false, true, false},
    {QX_DT_FLOAT8E5M2, false, false, false, false}, {QX_DT_FLOAT8E5M2, false, false, true, false},
    {QX_DT_FLOAT8E4M3FNUZ, false, false, false, false},
    {QX_DT_FLOAT8E5M2FNUZ, false, false, true, false}, {QX_DT_FLOAT4E2M1, false, false, false, false},
        {QX_DT_FLOAT4E2M1, false, false, false, true}};
static const qx_dtype sources[] = {QX_DT_FLOAT, QX_DT_FLOAT16, QX_DT_BFLOAT16};

enum { MAX_N = 20000 };
static float values[MAX_N], scale[MAX_N], work[MAX_N];
static int32_t zero[MAX_N];
static uint8_t src[MAX_N * 4 + 64], beside[MAX_N * 4 + 64], want[MAX_N * 2 + 64], got[MAX_N * 2 + 64];

static int64_t cell_of(const layout *l, int64_t r, int64_t c) { return r / l->block_r * qx_cells_of(l->cols, l->block_c) + c / l->block_c; }

static int oracle_code(const form *f, float x, float s, int32_t z)
{
    const float y = x / s;
    uint8_t code = 0;
    switch ((int)f->codes) {
    case QX_DT_FLOAT8E4M3FN: return qx_f32_to_e4m3(y, !f->no_saturate);
    case QX_DT_FLOAT8E5M2: return qx_f32_to_e5m2(y, !f->no_saturate);
    case QX_DT_FLOAT4E2M1: return qx_f32_to_e2m1(y);
    case QX_DT_FLOAT8E4M3FNUZ: qx_ref_from_f32(f->codes, &y, 1, &code); return code;
    case QX_DT_FLOAT8E5M2FNUZ: qx_ref_from_f32(f->codes, &y, 1, &code); return f->no_saturate && fabsf(y) > 61439 ? 0x80 : code;
    default: break;
    }
    float lo = 0, hi = 0;
    qx_format_range(&(qx_format){.codes = f->codes, .narrow = f->narrow}, &lo, &hi);
    double v = isnan(y) ? 0.0 : nearbyint((double)y);
    v += z;
    v = v < (double)lo ? (double)lo : v > (double)hi ? (double)hi : v;
    return (int)v & (qx_dtype_bits(f->codes) == 16 ? 0xffff : qx_dtype_bits(f->codes) == 4 ? 15 : qx_dtype_bits(f->codes) == 2 ? 3 : 0xff);
}

static void oracle_quantize(const layout *l, const form *f, const float *x, uint8_t *out)
{
    const int bits = qx_dtype_bits(f->codes);
    const bool packed = bits < 8 && !f->unpacked;
    for (int64_t e = 0; e < l->rows * l->cols; e++) {
        const int64_t cell = cell_of(l, e / l->cols, e % l->cols);
        const int code = oracle_code(f, x[e], scale[cell], f->zero ? zero[cell] : 0);
        if (bits == 16) memcpy(out + 2 * e, &(uint16_t){(uint16_t)code}, 2);
        else if (!packed) out[e] = (uint8_t)code;
        else {
            const int64_t at = e * bits / 8, sh = e * bits % 8;
            out[at] = (uint8_t)((sh ? out[at] : 0) | code << sh);
        }
    }
}

static void fill(const layout *l, const form *f, int nonfinite, uint32_t seed)
{
    float lo = 0, hi = 1;
    qx_format_range(&(qx_format){.codes = f->codes}, &lo, &hi);
    uint32_t s = seed * 2654435761u + 1;
    for (int64_t i = 0; i < l->rows * l->cols; i++) values[i] = adversarial(&s, nonfinite);
    for (int64_t i = 0; i < MAX_N; i++) {
        scale[i] = rng_next(&s) % 11 == 0 ? -0.37f : 0.5f * (float)(1 + rng_next(&s) % 5);
        zero[i] = (int32_t)lo + (int32_t)(rng_next(&s) % (uint32_t)(hi - lo + 1));
    }
}

static qx_quant quant_of(const layout *l, const form *f)
{
    return (qx_quant){.grid = {l->rows, l->cols, l->block_r, l->block_c}, .format = {.codes = f->codes, .narrow = f->narrow},
                      .scale = scale,
                      .zero = f->zero ? zero : NULL, .no_saturate = f->no_saturate, .unpacked = f->unpacked};
}

static void check_case(const layout *l, const form *f, qx_dtype sd, uint32_t seed)
{
    const int64_t n = l->rows * l->cols;
    fill(l, f, 1, seed);
    qx_ref_from_f32(sd, values, n, src);
    qx_ref_to_f32(sd, src, n, values);
    const qx_quant q = quant_of(l, f);
    memset(want, 0xa5, sizeof want);
    oracle_quantize(l, f, values, want);
    for (int isa = -1; isa <= (int)qx_isa_best(); isa++) {
        const qx_leaf *leaf = isa < 0 ? qx_leaf_ref() : qx_leaf_cpu((qx_isa)isa);
        memset(got, 0xa5, sizeof got);
        for (int off = 0; off < 4; off++) { /* every alignment of the source */
            const size_t bytes = (size_t)qx_dtype_bits(sd) / 8;
            memcpy(beside + (size_t)off * bytes, src, (size_t)n * bytes);
            assert_true(qx_quantize_using(leaf, &q, sd, beside + (size_t)off * bytes, got));
            if (memcmp(want, got, sizeof want))
                fail_msg("%s, %s from %s, isa %d, offset %d", l->name, qx_dtype_get(f->codes)->text, qx_dtype_get(sd)->text, isa, off);
        }
        float back[4] = {0};
        memset(work, 0x5a, sizeof work);
        assert_true(qx_dequantize_using(leaf, &q, got, QX_DT_FLOAT, work));
        memcpy(src + sizeof src - 8, back, 4);
        for (int64_t e = 0; e < n; e++) { /* one code at a time */
            const int64_t cell = cell_of(l, e / l->cols, e % l->cols);
            const int bits = qx_dtype_bits(f->codes);
            const uint8_t low = (uint8_t)(bits == 16 || bits == 8 || f->unpacked ? 0 : want[e * bits / 8] >> (e * bits % 8));
            const void *code = bits == 16 ? want + 2 * e : bits == 8 || f->unpacked ? want + e : &low;
            qx_ref_to_f32(f->codes, code, 1, back);
            const float y = (back[0] - (f->zero ? (float)zero[cell] : 0.0f)) * scale[cell];
            if (!(isnan(y) && isnan(work[e])) && memcmp(&y, work + e, 4))
                fail_msg("dequantize %s %s: %g is not %g", l->name, qx_dtype_get(f->codes)->text, (double)work[e], (double)y);
        }
        assert_int_equal(((uint8_t *)(work + n))[0], 0x5a);
        static float fake[MAX_N];
        memcpy(fake, values, (size_t)n * 4);
        assert_true(qx_fake_quantize_using(leaf, &q, fake));
        for (int64_t e = 0; e < n; e++) assert_true((isnan(fake[e]) && isnan(work[e])) || !memcmp(fake + e, work + e, 4));
    }
}

static void codes_of_every_layout(void **state)
{
    (void)state;
    for (int i = 0; i < COUNT(layouts); i++)
        for (int j = 0; j < COUNT(forms); j++)
            for (int k = 0; k < COUNT(sources); k++) check_case(&layouts[i], &forms[j], sources[k], (uint32_t)(i * 1000 + j * 10 + k));
}

static void ranges_of_every_layout(void **state)
{
    (void)state;
    static float amax[MAX_N], lo[MAX_N], hi[MAX_N], wa[MAX_N], wl[MAX_N], wh[MAX_N];
    for (int i = 0; i < COUNT(layouts); i++)
        for (int k = 0; k < COUNT(sources) * 2; k++) {
            const layout *l = &layouts[i];
            const int64_t n = l->rows * l->cols;
            fill(l, &forms[0], k % 2, (uint32_t)(i + 77 * k));
            qx_ref_from_f32(sources[k / 2], values, n, src);
            qx_ref_to_f32(sources[k / 2], src, n, values);
            memset(wa, 0, sizeof wa), memset(wl, 0, sizeof wl), memset(wh, 0, sizeof wh);
            qx_nonfinite bad = QX_NONFINITE_NONE;
            for (int64_t e = 0; e < n; e++) {
                const float x = values[e];
                const int64_t c = cell_of(l, e / l->cols, e % l->cols);
                if (!isfinite(x)) {
                    if (bad.first < 0) bad.first = e;
                    if (isnan(x)) bad.nan++;
                    else bad.inf++;
                    continue;
                }
                wa[c] = fmaxf(wa[c], fabsf(x)), wl[c] = x < wl[c] ? x : wl[c], wh[c] = x > wh[c] ? x : wh[c];
            }
            for (int isa = -1; isa <= (int)qx_isa_best(); isa++) {
                const qx_leaf *leaf = isa < 0 ? qx_leaf_ref() : qx_leaf_cpu((qx_isa)isa);
                const qx_grid g = {l->rows, l->cols, l->block_r, l->block_c};
                qx_nonfinite b1 = QX_NONFINITE_NONE, b2 = QX_NONFINITE_NONE;
                memset(amax, 0, sizeof amax), memset(lo, 0, sizeof lo), memset(hi, 0, sizeof hi);
                assert_true(qx_amax_using(leaf, &g, sources[k / 2], src, amax, &b1));
                assert_true(qx_min_max_using(leaf, &g, sources[k / 2], src, lo, hi, &b2));
                assert_memory_equal(amax, wa, sizeof wa);
                assert_memory_equal(&b1, &bad, sizeof bad);
                assert_memory_equal(&b2, &bad, sizeof bad);
                assert_memory_equal(lo, wl, sizeof wl);
                assert_memory_equal(hi, wh, sizeof wh);
                assert_true(qx_amax_using(leaf, &g, sources[k / 2], src, amax, NULL));
            }
        }
}

/* x quantized with the amax rule must come back as expected (portable vectors). */
static void amax_round_trip(const layout *l, qx_dtype codes, const float *x, const float *expect, float tol)
{
    const qx_grid g = {l->rows, l->cols, l->block_r, l->block_c};
    const qx_format f = {.codes = codes, .scale = QX_DT_FLOAT};
    float amax[64] = {0}, s[64], y[64];
    assert_true(qx_amax(&g, QX_DT_FLOAT, x, amax, NULL));
    qx_scale_from_amax(&f, amax, qx_grid_cells(&g), s, NULL);
    memcpy(y, x, sizeof(float) * (size_t)(l->rows * l->cols));
    assert_true(qx_fake_quantize(&(qx_quant){.grid = g, .format = f, .scale = s}, y));
    for (int64_t i = 0; i < l->rows * l->cols; i++) assert_true(fabsf(y[i] - expect[i]) <= tol);
}
#define TRIP(r, c, br, bc, codes, tol, ...) \
    amax_round_trip(&(layout){"", r, c, br, bc}, codes, (const float[]){0, 1, 2, 3, 4, 5, 6, 7}, (const float[]){__VA_ARGS__}, tol)

static void published_round_trips(void **state)
{
    (void)state;
    TRIP(1, 8, 1, 8, QX_DT_FLOAT8E4M3FN, 0, 0, 1, 2, 3, 4, 5, 6, 7);
    TRIP(1, 4, 1, 4, QX_DT_FLOAT8E4M3FN, 1e-4f, 0, .9643f, 1.9286f, 3);
    TRIP(2, 4, 1, 2, QX_DT_FLOAT8E4M3FN, 1e-4f, 0, 1, 1.9286f, 3, 3.9286f, 5, 6, 7);
    TRIP(2, 4, 2, 2, QX_DT_FLOAT8E4M3FN, 1e-4f, 0, .9821f, 2, 3, 3.9286f, 5, 6, 7);
    TRIP(2, 4, 1, 4, QX_DT_INT4, 1e-4f, 0, .8571f, 2.1429f, 3, 4, 5, 6, 7);
    TRIP(1, 8, 8, 8, QX_DT_INT8, .05f, 0, 1, 2, 3, 4, 5, 6, 7);
    const float x[8] = {0, 1, 2, 3, 4, 5, 6, 7}, s = 7.0f / 127.0f;
    int8_t codes[8];
    const qx_quant q = {.grid = {1, 8, 1, 8}, .format = {.codes = QX_DT_INT8}, .scale = &s};
    assert_true(qx_quantize(&q, QX_DT_FLOAT, x, codes));
    assert_memory_equal(codes, ((const int8_t[]){0, 18, 36, 54, 73, 91, 109, 127}), 8);
}

/* Blocks of 8 along K: two rows only, and one column of two blocks. */
static void block_scales(void **state)
{
    (void)state;
    const qx_format i4 = {.codes = QX_DT_INT4, .scale = QX_DT_FLOAT};
    const float few[4] = {.5f, 1.5f, .875f, 1.75f};
    const float column[16] = {.5f, -.5f, .75f, -.75f, .875f, -.875f, .5f, -.5f, .25f, -.25f, .4375f, -.4375f, 0, 0, .25f, -.25f};
    float amax[2] = {0}, s[2];
    qx_amax(&(qx_grid){2, 2, 8, 1}, QX_DT_FLOAT, few, amax, NULL);
    qx_scale_from_amax(&i4, amax, 2, s, NULL);
    assert_true(s[0] == .125f && s[1] == .25f);
    memset(amax, 0, sizeof amax);
    qx_amax(&(qx_grid){16, 1, 8, 1}, QX_DT_FLOAT, column, amax, NULL);
    qx_scale_from_amax(&i4, amax, 2, s, NULL);
    assert_true(s[0] == .125f && s[1] == .0625f);
}

static void onnx_blocked_vectors(void **state)
{
    (void)state;
    const int8_t c1[8] = {9, 9, 9, 9, 9, 9, 9, 9};
    const float s1[4] = {1, 2, 3, 4}, e1[8] = {8, 8, 14, 14, 18, 18, 20, 20};
    const int32_t z1[4] = {1, 2, 3, 4};
    float y[8];
    assert_true(qx_dequantize(&(qx_quant){.grid = {1, 8, 1, 2}, .format = {.codes = QX_DT_INT8}, .scale = s1, .zero = z1}, c1,
                              QX_DT_FLOAT, y));
    assert_memory_equal(y, e1, sizeof y);
    const uint8_t c2[8] = {10, 20, 30, 40, 50, 60, 70, 80};
    const float s2[2] = {.5f, 2}, e2[8] = {5, 10, 15, 20, 80, 100, 120, 140};
    const int32_t z2[2] = {0, 10};
    assert_true(qx_dequantize(&(qx_quant){.grid = {8, 1, 4, 1}, .format = {.codes = QX_DT_UINT8}, .scale = s2, .zero = z2}, c2,
                              QX_DT_FLOAT, y));
    assert_memory_equal(y, e2, sizeof y);
}

static void amax_axes(void **state) /* I10 */
{
    (void)state;
    const float x[4] = {1, 2, -3, 4};
    float a[2] = {0}, b[2] = {0};
    qx_amax(&(qx_grid){2, 2, 2, 1}, QX_DT_FLOAT, x, a, NULL);
    qx_amax(&(qx_grid){2, 2, 1, 2}, QX_DT_FLOAT, x, b, NULL);
    assert_true(a[0] == 3 && a[1] == 4 && b[0] == 2 && b[1] == 4);
}

static void scales(void **state)
{
    (void)state;
    const qx_format u8 = {.codes = QX_DT_UINT8}, i4h = {.codes = QX_DT_INT4, .scale = QX_DT_FLOAT16}, fp8 = {.codes = QX_DT_FLOAT8E4M3FN};
    const float lo[] = {-3, -4, 0, 1, -3, 0}, hi[] = {2, 0, 4, 4, -1, 0}; /* the first three: ONNX's DynamicQuantizeLinear vectors */
    float s[6];
    int32_t z[6];
    qx_scale_from_range(&u8, lo, hi, 6, s, z, NULL);
    assert_true(fabsf(s[0] - .0196078438f) < 1e-9f && z[0] == 153);
    const float lo2[] = {-4, 0}, hi2[] = {-1, 4};
    qx_scale_from_range(&u8, lo2, hi2, 2, s, z, NULL);
    assert_true(fabsf(s[0] - .0156862754f) < 1e-9f && z[0] == 255 && fabsf(s[1] - .0156862754f) < 1e-9f && z[1] == 0);
    qx_scale_from_range(&u8, lo + 3, hi + 3, 3, s, z, NULL);
    assert_true(fabsf(s[0] - 4.0f / 255) < 1e-9f && z[0] == 0 && z[1] == 255 && s[2] == 1 && z[2] == 0);
    const float big_lo = -3e38f, big_hi = 3e38f;
    qx_scale_from_range(&u8, &big_lo, &big_hi, 1, s, z, NULL);
    assert_true(isfinite(s[0]) && s[0] > 2e36f && (z[0] == 127 || z[0] == 128));
    int64_t moved = 0;
    const float amax[] = {0, 1e-8f, 7e9f, 3.5f, 1e-44f};
    qx_scale_from_amax(&i4h, amax, 5, s, &moved);
    assert_true(s[0] == 1 && s[1] == 0x1p-24f && s[2] == 65504 && s[3] == .5f && s[4] == 0x1p-24f && moved == 3);
    qx_scale_from_amax(&fp8, amax + 3, 2, s, &moved);
    assert_true(s[0] == 3.5f / 448.0f && s[1] >= 0x1p-126f && moved == 4);
    assert_true(qx_scale_stored(&i4h, -0.1f, NULL) == -qx_f16_to_f32(qx_f32_to_f16(0.1f)));
    assert_true(qx_scale_stored(&fp8, NAN, &moved) == 1 && qx_scale_stored(&fp8, -INFINITY, &moved) == 1 && moved == 6);
    assert_true(qx_scale_stored(&(qx_format){.codes = QX_DT_FLOAT8E4M3FN, .scale = QX_DT_FLOAT8E8M0}, 1.0f / 448, NULL) == 0x1p-8f);
    assert_true(qx_scale_stored(&(qx_format){.codes = QX_DT_FLOAT4E2M1, .scale = QX_DT_FLOAT8E4M3FN}, 1e-20f, NULL) == 0x1p-9f);
    assert_true(qx_scale_stored(&(qx_format){.codes = QX_DT_FLOAT4E2M1, .scale = QX_DT_FLOAT8E4M3FN}, 1e9f, NULL) == 448);
}

static void zero_scale_and_refusals(void **state)
{
    (void)state;
    const float x[4] = {1, -1, 0, NAN}, s = 0;
    int8_t c[4];
    const int32_t z = 3;
    qx_quant q = {.grid = {1, 4, 1, 4}, .format = {.codes = QX_DT_INT8}, .scale = &s, .zero = &z};
    assert_true(qx_quantize(&q, QX_DT_FLOAT, x, c));
    assert_true(c[0] == 127 && c[1] == -128 && c[2] == 3 && c[3] == 3);
    assert_false(qx_quantize(&q, QX_DT_STRING, x, c));
    assert_false(qx_quantize(&q, 77, x, c));
    q.format.codes = QX_DT_FLOAT;
    assert_false(qx_quantize(&q, QX_DT_FLOAT, x, c));
    float amax = 0;
    assert_false(qx_amax(&q.grid, QX_DT_COMPLEX64, x, &amax, NULL));
    const int32_t bias[2] = {-70000, 5};
    float y[2];
    const float half = .5f;
    assert_true(qx_dequantize(&(qx_quant){.grid = {1, 2, 1, 2}, .format = {.codes = QX_DT_INT32}, .scale = &half}, bias, QX_DT_FLOAT, y));
    assert_true(y[0] == -35000 && y[1] == 2.5f);
    uint16_t h[2];
    assert_true(qx_dequantize(&(qx_quant){.grid = {1, 2, 1, 2}, .format = {.codes = QX_DT_INT32}, .scale = &half}, bias, QX_DT_FLOAT16, h));
    assert_int_equal(h[1], 0x4100);
}

static void pack_and_unpack(void **state)
{
    (void)state;
    uint32_t s = 5;
    for (int bits = 2; bits <= 4; bits += 2)
        for (int n = 0; n < 70; n++) {
            uint8_t c[80], p[48], back[80];
            for (int i = 0; i < 80; i++) c[i] = (uint8_t)rng_next(&s);
            memset(p, 0xcc, sizeof p), memset(back, 0xcc, sizeof back);
            qx_pack(bits, c, n, p);
            assert_int_equal(p[(n * bits + 7) / 8], 0xcc);
            qx_unpack(bits, false, p, n, back);
            for (int i = 0; i < n; i++) assert_int_equal(back[i], c[i] & ((1 << bits) - 1));
            assert_int_equal(back[n], 0xcc);
            qx_unpack(bits, true, p, n, back);
            for (int i = 0; i < n; i++) assert_int_equal((int8_t)back[i], (int8_t)(c[i] << (8 - bits)) >> (8 - bits));
        }
}

static void packed_columns(void **state) /* codes turned and packed at once: odd sizes, every width, moved up */
{
    (void)state;
    enum { ROWS = 137, COLS = 101 };
    static uint8_t codes[ROWS * COLS], row[ROWS], packed[ROWS], out[COLS * (ROWS + 3)];
    for (int bits = 2; bits <= 8; bits *= 2)
        for (int up = 0; up <= 1 << (bits - 1); up += 1 << (bits - 1)) {
            const int64_t ld = (ROWS * bits + 7) / 8 + 3;
            for (int i = 0; i < ROWS * COLS; i++) codes[i] = (uint8_t)((i * 7919 + i / 13) & ((1 << bits) - 1));
            memset(out, 0xee, sizeof out);
            qx_pack_columns(bits, up, ROWS, COLS, codes, out, ld);
            for (int c = 0; c < COLS; c++) {
                for (int r = 0; r < ROWS; r++) row[r] = (uint8_t)((codes[r * COLS + c] + up) & ((1 << bits) - 1));
                if (bits == 8) memcpy(packed, row, ROWS);
                else qx_pack(bits, row, ROWS, packed);
                assert_memory_equal(out + c * ld, packed, (size_t)(ld - 3));
                assert_true(c == COLS - 1 || out[c * ld + ld - 1] == 0xee);
            }
        }
}

static void transposes(void **state)
{
    (void)state;
    static uint8_t a[70 * 45 * 8], b[70 * 45 * 8];
    for (size_t i = 0; i < sizeof a; i++) a[i] = (uint8_t)(i * 31 + i / 256);
    for (int size = 1; size <= 8; size *= 2) {
        assert_true(qx_transpose(size, 67, 43, a, 45, b, 70));
        for (int r = 0; r < 67; r++)
            for (int c = 0; c < 43; c++) assert_memory_equal(a + (r * 45 + c) * size, b + (c * 70 + r) * size, (size_t)size);
    }
    assert_false(qx_transpose(3, 1, 1, a, 1, b, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(codes_of_every_layout), cmocka_unit_test(ranges_of_every_layout), cmocka_unit_test(published_round_trips),
        cmocka_unit_test(onnx_blocked_vectors), cmocka_unit_test(block_scales), cmocka_unit_test(amax_axes), cmocka_unit_test(scales),
        cmocka_unit_test(zero_scale_and_refusals),
        cmocka_unit_test(pack_and_unpack), cmocka_unit_test(transposes), cmocka_unit_test(packed_columns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

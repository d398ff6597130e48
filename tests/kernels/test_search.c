/* test_search.c - scale search: same bits on every instruction set, never worse than the amax rule, errors that are true, the published
 * numbers as upper bounds; NVFP4 against exhaustive search; MX exponents. */
#include "kernels.h"

#include "kernels/loops/search_leaf.h"

enum { MAX_N = 8192 };
static float x[MAX_N], w[MAX_N], y[MAX_N], scale[MAX_N], scale2[MAX_N];
static int32_t zero[MAX_N], zero2[MAX_N];
static double err[MAX_N], err2[MAX_N];

static const qx_search_leaf *leaf_at(int isa) { return isa < 0 ? qx_search_leaf_ref() : qx_search_leaf_cpu((qx_isa)isa); }

static void normals(int64_t n, uint32_t seed)
{
    uint32_t s = seed * 7919u + 3u;
    for (int64_t i = 0; i < n; i++) x[i] = rng_normal(&s), w[i] = rng_uniform(&s) + .01f;
}

/* sum w (x - Q(x))^2 in double through the real codes. */
static double true_error(const qx_format *f, int64_t rows, int64_t k, int64_t block, const float *sc, const int32_t *z, const float *weight)
{
    memcpy(y, x, sizeof(float) * (size_t)(rows * k));
    assert_true(qx_fake_quantize(&(qx_quant){.grid = {rows, k, 1, block}, .format = *f, .scale = sc, .zero = z}, y));
    double e = 0;
    for (int64_t i = 0; i < rows * k; i++) e += (double)(weight ? weight[i % k] : 1.0f) * pow((double)x[i] - (double)y[i], 2);
    return e;
}

static double amax_error(const qx_format *f, int64_t rows, int64_t k, int64_t block, bool zp, const float *weight)
{
    const qx_grid g = {rows, k, 1, block};
    static float lo[MAX_N], hi[MAX_N];
    memset(lo, 0, sizeof lo), memset(hi, 0, sizeof hi);
    if (zp) {
        qx_min_max(&g, QX_DT_FLOAT, x, lo, hi, NULL);
        qx_scale_from_range(f, lo, hi, qx_grid_cells(&g), scale2, zero2, NULL);
    } else {
        qx_amax(&g, QX_DT_FLOAT, x, hi, NULL);
        qx_scale_from_amax(f, hi, qx_grid_cells(&g), scale2, NULL);
    }
    return true_error(f, rows, k, block, scale2, zp ? zero2 : NULL, weight);
}

typedef struct scase { qx_dtype codes, scale; bool zero, narrow, negative; int64_t rows, k, block; } scase;
static const scase cases[] = {
    {QX_DT_INT4, QX_DT_FLOAT, false, false, true, 8, 128, 32}, {QX_DT_INT4, QX_DT_FLOAT16, false, false, false, 8, 100, 32},
    {QX_DT_INT4, QX_DT_FLOAT16, false, true, false, 3, 129, 128}, {QX_DT_UINT4, QX_DT_FLOAT16, true, false, false, 7, 96, 32},
    {QX_DT_INT2, QX_DT_BFLOAT16, false, false, true, 5, 64, 16}, {QX_DT_INT8, QX_DT_FLOAT, false, true, false, 4, 700, 700},
    {QX_DT_INT8, QX_DT_FLOAT16, false, false, true, 4, 513, 513}, {QX_DT_UINT8, QX_DT_FLOAT, true, false, false, 4, 300, 300},
    {QX_DT_INT8, QX_DT_FLOAT, true, false, false, 4, 33, 33}, {QX_DT_FLOAT8E4M3FN, QX_DT_FLOAT, false, false, false, 4, 500, 500},
    {QX_DT_FLOAT8E5M2, QX_DT_FLOAT16, false, false, false, 4, 64, 64}, {QX_DT_FLOAT4E2M1, QX_DT_FLOAT, false, false, false, 4, 64, 16},
    {QX_DT_FLOAT8E4M3FN, QX_DT_FLOAT8E8M0, false, false, false, 4, 65, 32},
    {QX_DT_FLOAT4E2M1, QX_DT_FLOAT8E8M0, false, false, false, 4, 100, 32},
    {QX_DT_INT4, QX_DT_FLOAT16, false, false, true, 5, 1, 1}, {QX_DT_INT4, QX_DT_FLOAT16, false, false, true, 0, 64, 32}};

static void search_never_loses(void **state)
{
    (void)state;
    for (int i = 0; i < COUNT(cases); i++)
        for (int kind = 0; kind < 4; kind++) { /* weighted or not, coarse or not */
            const scase *c = &cases[i];
            const bool weighted = kind & 1, coarse = kind & 2;
            const int64_t nb = qx_cells_of(c->k, c->block), n = c->rows * nb;
            normals(MAX_N, (uint32_t)i);
            for (int64_t j = 0; j < c->rows * c->k; j += 37) x[j] *= 8.0f; /* some outliers */
            const qx_search s = {.format = {c->codes, c->scale, c->narrow, c->negative}, .block = c->block, .zero_point = c->zero,
                                 .weight = weighted ? w : NULL, .coarse = coarse};
            for (int isa = -1; isa <= (int)qx_isa_best(); isa++) {
                memset(scale, 0x77, sizeof scale), memset(zero, 0x77, sizeof zero);
                assert_true(qx_search_rows_using(leaf_at(isa), &s, x, c->rows, c->k, scale, c->zero ? zero : NULL, err));
                if (isa < 0) memcpy(scale2, scale, sizeof scale), memcpy(zero2, zero, sizeof zero), memcpy(err2, err, sizeof err);
                assert_memory_equal(scale, scale2, sizeof scale);
                assert_memory_equal(zero, zero2, sizeof zero);
                assert_memory_equal(err, err2, sizeof(double) * (size_t)n);
            }
            double sum = 0;
            for (int64_t j = 0; j < n; j++) {
                sum += err[j];
                assert_true(scale[j] == qx_scale_stored(&s.format, scale[j], NULL)); /* what is stored is what was compared */
                if (!c->negative) assert_true(scale[j] > 0);
            }
            const double e = true_error(&s.format, c->rows, c->k, c->block, scale, c->zero ? zero : NULL, s.weight);
            assert_true(fabs(e - sum) <= 1e-5 * e + 1e-12);
            assert_true(e <= amax_error(&s.format, c->rows, c->k, c->block, c->zero, s.weight) * (1 + 1e-6) + 1e-12);
        }
}

/* Relative MSE of int4 on Gaussian rows, amax/7 = 1. The bounds are those of the best grid known to us without least squares. */
static void int4_gaussian_gain(void **state)
{
    (void)state;
    static const struct { int64_t block; double bound; } rows[] = {{16, .71}, {32, .71}, {64, .71}, {128, .685}};
    const qx_format f = {.codes = QX_DT_INT4, .scale = QX_DT_FLOAT16, .negative = true};
    normals(MAX_N, 99); /* 64 blocks of 128 */
    for (int i = 0; i < COUNT(rows); i++) {
        const qx_search s = {.format = f, .block = rows[i].block};
        assert_true(qx_search_rows(&s, x, MAX_N / 512, 512, scale, NULL, err));
        const double e = true_error(&f, MAX_N / 512, 512, rows[i].block, scale, NULL, NULL);
        const double ratio = e / amax_error(&f, MAX_N / 512, 512, rows[i].block, false, NULL);
        if (!(ratio <= rows[i].bound)) fail_msg("block %d: %.3f", (int)rows[i].block, ratio);
    }
}

/* Weights of 1 change nothing but the arithmetic and, in long blocks, how many scales are tried: the weighted search must find
 * what the one in fixed point finds. */
static void weights_of_one(void **state)
{
    (void)state;
    static const struct { qx_dtype codes; bool zero; int64_t block; } rows[] =
        {{QX_DT_INT4, false, 32}, {QX_DT_INT4, false, 128}, {QX_DT_UINT4, true, 32}};
    normals(MAX_N, 5);
    for (int i = 0; i < MAX_N; i++) w[i] = 1.0f;
    for (int i = 0; i < COUNT(rows); i++) {
        qx_search s = {.format = {.codes = rows[i].codes, .scale = QX_DT_FLOAT16, .negative = true}, .zero_point = rows[i].zero,
                       .block = rows[i].block};
        double plain = 0, weighted = 0;
        assert_true(qx_search_rows(&s, x, MAX_N / 512, 512, scale, zero, err));
        for (int j = 0; j < MAX_N / rows[i].block; j++) plain += err[j];
        s.weight = w;
        assert_true(qx_search_rows(&s, x, MAX_N / 512, 512, scale, zero, err));
        for (int j = 0; j < MAX_N / rows[i].block; j++) weighted += err[j];
        if (fabs(weighted / plain - 1) > (rows[i].block > 32 ? .02 : .01)) fail_msg("case %d: %.5g and %.5g", i, plain, weighted);
    }
}

static void observers_bounds(void **state) /* arange(24)/24 as 6 x 4, int8: means of squared errors that a peer reaches */
{
    (void)state;
    for (int i = 0; i < 24; i++) x[i] = (float)i / 24.0f;
    const qx_format f = {.codes = QX_DT_INT8, .scale = QX_DT_FLOAT};
    qx_search s = {.format = f};
    assert_true(qx_search_rows(&s, x, 1, 24, scale, NULL, err) && err[0] / 24 <= 4.81e-6);
    assert_true(qx_search_rows(&s, x, 6, 4, scale, NULL, err));
    double sum = 0;
    for (int i = 0; i < 6; i++) sum += err[i];
    assert_true(sum / 24 <= 2.57e-6);
    s.zero_point = true;
    assert_true(qx_search_rows(&s, x, 1, 24, scale, zero, err) && err[0] / 24 <= 1.13e-6);
    assert_true(qx_search_rows(&s, x, 6, 4, scale, zero, err));
    for (sum = 0, zero[6] = 0; zero[6] < 6; zero[6]++) sum += err[zero[6]];
    assert_true(sum / 24 <= 2.37e-7);
}

static void negative_scales(void **state)
{
    (void)state;
    const float block[8] = {8, -7, -6, -5, 4, 3, 2, 1}; /* exact on the codes -8..7 only with a negative scale */
    memcpy(x, block, sizeof block);
    qx_search s = {.format = {.codes = QX_DT_INT4, .scale = QX_DT_FLOAT16, .negative = true}};
    assert_true(qx_search_rows(&s, x, 1, 8, scale, NULL, err));
    assert_true(scale[0] == -1 && err[0] == 0);
    s.format.negative = false;
    assert_true(qx_search_rows(&s, x, 1, 8, scale, NULL, err));
    assert_true(scale[0] > 0 && err[0] > 0);
}

static void degenerate_blocks(void **state)
{
    (void)state;
    memset(x, 0, 64 * sizeof *x);
    qx_search s = {.format = {.codes = QX_DT_INT4, .scale = QX_DT_FLOAT16}, .block = 16};
    assert_true(qx_search_rows(&s, x, 2, 32, scale, NULL, err) && scale[0] == 1 && scale[3] == 1 && err[0] == 0);
    s.format.codes = QX_DT_UINT4, s.zero_point = true;
    for (int i = 0; i < 16; i++) x[i] = 5, x[16 + i] = -5;
    assert_true(qx_search_rows(&s, x, 2, 32, scale, zero, err));
    assert_true(zero[0] == 0 && zero[1] == 15 && zero[2] == 0 && scale[2] == 1); /* ranges include 0 */
    assert_true(fabs(5.0 - 15.0 * (double)scale[0]) < .01 && fabs(5.0 - 15.0 * (double)scale[1]) < .01);
    assert_false(qx_search_rows(&s, x, 1, 16, scale, NULL, NULL));
    s.format.codes = QX_DT_FLOAT;
    assert_false(qx_search_rows(&s, x, 1, 16, scale, zero, NULL));
    s.format.codes = QX_DT_FLOAT8E4M3FN;
    assert_false(qx_search_rows(&s, x, 1, 16, scale, zero, NULL));
}

static void errors_over_tiles(void **state)
{
    (void)state;
    normals(2048, 4);
    const qx_search s = {.format = {.codes = QX_DT_FLOAT8E4M3FN}};
    float cand[200];
    double whole[200] = {0}, tiles[200] = {0};
    for (int i = 0; i < 200; i++) cand[i] = .001f * (float)(i + 1);
    assert_true(qx_search_errors(&s, x, 2048, cand, NULL, 200, whole));
    for (int t = 0; t < 4; t++) assert_true(qx_search_errors(&s, x + 512 * t, 512, cand, NULL, 200, tiles));
    for (int i = 0; i < 200; i++) assert_true(fabs(whole[i] - tiles[i]) <= 1e-12 * whole[i]);
    assert_true(fabs(whole[7] - true_error(&s.format, 1, 2048, 2048, cand + 7, NULL, NULL)) <= 1e-5 * whole[7]);
}

/* ---- NVFP4 ---- */

static uint8_t code[MAX_N], code2[MAX_N];

static double block_error(const float *b, float s, const float *weight)
{
    double e = 0;
    for (int i = 0; i < 16; i++) {
        const double d = (double)b[i] - (double)(qx_e2m1_to_f32(qx_f32_to_e2m1(b[i] / s)) * s);
        e += (double)(weight ? weight[i] : 1.0f) * d * d;
    }
    return e;
}

static void nvfp4_vectors(void **state)
{
    (void)state;
    static const float grid[16] = {-6, -4, -3, -2, -1.5f, -1, -.5f, 0, .5f, 1, 1.5f, 2, 3, 4, 6, 1};
    assert_true(fabsf(qx_nvfp4_global(1.1f) - 1.1f / 448 / 6) < 1e-10f);
    assert_true(qx_nvfp4_global(0) == 1);
    const qx_nvfp4 p = {.global = qx_nvfp4_global(1.6f)};
    assert_true(fabsf(p.global - 5.952381e-4f) < 1e-10f);
    for (int i = 0; i < 16; i++) x[i] = grid[i] * (22.0f * p.global); /* exact under one code only */
    qx_nvfp4_search(&p, x, 1, 16, code, scale, err);
    assert_int_equal(code[0], 0x5B);
    assert_true(scale[0] == 22.0f * p.global && err[0] < 1e-12);
    uint8_t packed[8];
    const qx_quant q = {.grid = {1, 16, 1, 16}, .format = {.codes = QX_DT_FLOAT4E2M1}, .scale = scale};
    assert_true(qx_quantize(&q, QX_DT_FLOAT, x, packed));
    assert_memory_equal(packed, ((const uint8_t[]){0xEF, 0xCD, 0xAB, 0x09, 0x21, 0x43, 0x65, 0x27}), 8);
}

static void nvfp4_extremes(void **state)
{
    (void)state;
    for (int i = 0; i < 48; i++) x[i] = i < 16 ? 1e-10f : i < 32 ? 1e9f : 0;
    qx_nvfp4_search(&(qx_nvfp4){.global = qx_nvfp4_global(1)}, x, 1, 48, code, scale, err);
    assert_true(code[0] >= 1 && code[1] == 0x7e && code[2] == 0x38 && err[2] == 0);
    qx_nvfp4_search(&(qx_nvfp4){.global = qx_nvfp4_global(1e-44f)}, x, 1, 48, code, scale, err);
    for (int i = 0; i < 3; i++) assert_true(code[i] >= 1 && code[i] <= 0x7e && isfinite(scale[i]) && scale[i] > 0);
}

/* Blocks of many kinds: normal, with one outlier, all but equal, mostly zeros, far below the tensor's largest. */
static void nvfp4_blocks(int blocks)
{
    uint32_t s = 77;
    normals(16 * blocks, 12);
    for (int i = 0; i < 16 * blocks; i++) {
        const int kind = i / 16 % 6;
        if (kind == 1 && i % 16 == 3) x[i] *= 20;
        if (kind == 2) x[i] = 1 + .1f * rng_uniform(&s);
        if (kind == 3 && i % 4) x[i] = 0;
        if (kind == 4) x[i] *= ldexpf(1, -(int)(16 * rng_uniform(&s)));
        if (kind == 5) x[i] = copysignf(expf(2 * x[i]), x[i]);
    }
}

/* As good as each of the 126 codes tried one by one, on every instruction set, along rows and along columns. */
static void nvfp4_exhaustive(void **state)
{
    (void)state;
    enum { BLOCKS = MAX_N / 16, ROWS = 32, K = MAX_N / ROWS };
    static float turned[MAX_N];
    nvfp4_blocks(BLOCKS);
    (void)qx_transpose(4, ROWS, K, x, K, turned, ROWS);
    for (int weighted = 0; weighted < 2; weighted++) {
        qx_nvfp4 p = {.global = qx_nvfp4_global(30), .weight = weighted ? w : NULL};
        for (int isa = -1; isa <= (int)qx_isa_best(); isa++) {
            p.columns = false;
            qx_nvfp4_search_using(leaf_at(isa), &p, x, ROWS, K, code, scale, err);
            if (isa < 0) memcpy(code2, code, sizeof code), memcpy(err2, err, sizeof err);
            assert_memory_equal(code, code2, BLOCKS);
            assert_memory_equal(err, err2, BLOCKS * sizeof *err);
            p.columns = true;
            qx_nvfp4_search_using(leaf_at(isa), &p, turned, ROWS, K, code, scale2, NULL);
            for (int b = 0; b < BLOCKS; b++) assert_int_equal(code[b % (K / 16) * ROWS + b / (K / 16)], code2[b]);
        }
        for (int b = 0; b < BLOCKS; b++) {
            const float *block = x + 16 * b, *weight = weighted ? w + 16 * b % K : NULL;
            const double got = block_error(block, scale[b], weight);
            assert_true(fabs(got - err[b]) <= 1e-4 * got + 1e-9);
            for (int c = 1; c < 0x7f; c++) {
                const double e = block_error(block, qx_e4m3_to_f32((uint8_t)c) * p.global, weight);
                if (!(got <= e * (1 + 1e-4) + 1e-9)) fail_msg("block %d: code %d costs %g, code %d %g", b, code2[b], got, c, e);
            }
        }
    }
}

static void nvfp4_partial_block(void **state)
{
    (void)state;
    normals(40, 5);
    qx_nvfp4_search(&(qx_nvfp4){.global = qx_nvfp4_global(3), .weight = w}, x, 2, 20, code, scale, err);
    memcpy(y, x, 4 * sizeof *x);
    float pad[16] = {0};
    memcpy(pad, x + 16, 4 * sizeof *pad);
    qx_nvfp4_search(&(qx_nvfp4){.global = qx_nvfp4_global(3), .weight = w + 16}, pad, 1, 16, code2, scale2, err2);
    assert_int_equal(code[1], code2[0]);
}

static void mx_exponents(void **state) /* ceil rule: 1 2 .5 448 give 119 120 118 127; K of 65, 100, 33 gives ceil(K/32) scales */
{
    (void)state;
    const qx_format f = {.codes = QX_DT_FLOAT8E4M3FN, .scale = QX_DT_FLOAT8E8M0};
    const float amax[] = {1, 448, 2, .5f, 0};
    const int want[] = {119, 127, 120, 118, 0};
    qx_scale_from_amax(&f, amax, 5, scale, NULL);
    for (int i = 0; i < 5; i++) assert_int_equal(qx_f32_to_e8m0_ceil(scale[i]), want[i]);
    assert_int_equal(qx_grid_cells(&(qx_grid){1, 65, 1, 32}), 3);
    assert_int_equal(qx_grid_cells(&(qx_grid){1, 100, 1, 32}), 4);
    assert_int_equal(qx_grid_cells(&(qx_grid){1, 33, 1, 32}), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(search_never_loses), cmocka_unit_test(int4_gaussian_gain), cmocka_unit_test(weights_of_one),
        cmocka_unit_test(observers_bounds),
        cmocka_unit_test(negative_scales), cmocka_unit_test(degenerate_blocks), cmocka_unit_test(errors_over_tiles),
        cmocka_unit_test(nvfp4_vectors), cmocka_unit_test(nvfp4_extremes), cmocka_unit_test(nvfp4_exhaustive),
        cmocka_unit_test(nvfp4_partial_block), cmocka_unit_test(mx_exponents),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

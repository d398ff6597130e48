/* test_codes.c - a candidate of smoothquant's search judged by codes has the error that it has in float. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "unit.h"
#include "kernels/dot.h"
#include "passes/search/codes.h"

enum { ROWS = 37, N = 70, K = 100 };

static float x[ROWS * K], w[N * K], y[ROWS * N], weigh[ROWS];

static void fill(void)
{
    for (int i = 0; i < ROWS * K; i++) x[i] = (float)(sin(1.3 * i) * (i % K == 7 ? 20 : 1));
    for (int i = 0; i < N * K; i++) w[i] = (float)(cos(2.1 * i) * (1 + i / K % 5));
    for (int i = 0; i < ROWS; i++) weigh[i] = 1 / (1 + (float)(i % 4));
}

/* Everything rounded to floats, multiplied as floats. */
static double in_float(const qx_qspec *spec, const qx_act_grid *g, float amax)
{
    static float xq[ROWS * K], wq[N * K], scale[N * K];
    static int32_t zero[N * K];
    memcpy(xq, x, sizeof xq);
    memcpy(wq, w, sizeof wq);
    qx_act_fake(g, ROWS, K, xq);
    for (int i = 0; i < ROWS * K; i++) xq[i] *= weigh[i / K];
    qx_spec_fake(spec, &(qx_row_tile){.rows = N, .k = K, .x = wq, .amax = amax, .scale = scale, .zero = zero});
    return qx_gemm_nt_error(ROWS, N, K, xq, K, wq, K, y, N);
}

static double in_codes(qx_ctx *ctx, const qx_qspec *spec, const qx_act_grid *g, float amax)
{
    static int8_t codes[ROWS * K];
    static float scale[ROWS];
    const qx_row_tile tile = {.rows = N, .k = K, .x = w, .amax = amax};
    double error;
    for (int i = 0; i < ROWS; i++) qx_codes_row(g, K, x + i * K, weigh[i], codes + i * K, &scale[i]);
    assert_int_equal(qx_codes_error(ctx, spec, &tile, &(qx_code_rows){ROWS, codes, scale}, y, &error), QX_OK);
    return error;
}

/* y: what the floats give, so that the error is what rounding does. */
static void same_error(void **state)
{
    static const qx_qspec specs[] = {{.codes = QX_DT_INT8}, {.codes = QX_DT_INT8, .narrow = true}, {.codes = QX_DT_INT8, .block = -1},
                                     {.codes = QX_DT_INT8, .rule = QX_SCALE_SEARCH}, {.codes = QX_DT_INT8, .scale = QX_DT_FLOAT16}};
    static const qx_act_grid grids[] = {{.act = QX_DT_INT8, .scale = 20.0f / 127}, {.act = QX_DT_UINT8, .scale = 5.0f / 127},
                                        {.dynamic = QX_DYNAMIC_ROW}};
    qx_ctx *ctx = qx_ctx_new(NULL);
    (void)state;
    fill();
    qx_gemm_nt(ROWS, N, K, x, K, w, K, y, N);
    for (int i = 0; i < ROWS * N; i++) y[i] *= weigh[i / N];
    for (size_t s = 0; s < sizeof specs / sizeof *specs; s++)
        for (size_t g = 0; g < sizeof grids / sizeof *grids; g++) {
            assert_true(qx_codes_weight(&specs[s]) && qx_codes_input(&grids[g], K));
            const double want = in_float(&specs[s], &grids[g], 5), got = in_codes(ctx, &specs[s], &grids[g], 5);
            if (!(want > 0 && fabs(got - want) < 1e-4 * want)) fail_msg("spec %zu, grid %zu: %g instead of %g", s, g, got, want);
        }
    assert_int_equal(qx_mem_in_use(ctx), 0);
    qx_ctx_free(ctx);
}

static void what_has_no_codes(void **state)
{
    (void)state;
    assert_false(qx_codes_weight(&(qx_qspec){.codes = QX_DT_INT4}));
    assert_false(qx_codes_weight(&(qx_qspec){.codes = QX_DT_INT8, .block = 32}));
    assert_false(qx_codes_weight(&(qx_qspec){.codes = QX_DT_UINT8, .zero_point = true}));
    assert_false(qx_codes_weight(&(qx_qspec){.codes = QX_DT_UNDEFINED})); /* stays float */
    assert_false(qx_codes_input(&(qx_act_grid){.act = QX_DT_FLOAT8E4M3FN, .scale = 1}, K));
    assert_false(qx_codes_input(&(qx_act_grid){.act = QX_DT_UINT8, .dynamic = QX_DYNAMIC_TENSOR}, K));
    assert_false(qx_codes_input(&(qx_act_grid){.act = QX_DT_INT8, .scale = 1}, 70000)); /* 32 bits do not hold the sum */
    assert_true(qx_codes_input(&(qx_act_grid){.act = QX_DT_INT8, .scale = 1}, 60000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(same_error), cmocka_unit_test(what_has_no_codes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

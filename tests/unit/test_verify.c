/* test_verify.c - what the end of a run says of an output: decibels, equal codes, the largest score, values that are not finite,
 * numbers of values that differ. */
#include <math.h>

#include "passes/job/verify_outputs.h"
#include "tests/unit/unit.h"

static qx_tensor tensor(qx_dtype dtype, int rank, const int64_t *dims, void *data)
{
    qx_tensor t = {.dtype = dtype, .rank = rank, .data = data, .numel = 1};
    for (int i = 0; i < rank; i++) t.dims[i] = dims[i], t.numel *= dims[i];
    return t;
}

/* The report of one output that was a in float and b quantized. */
static qx_report *judge(qx_ctx *ctx, const char *name, const qx_tensor *a, const qx_tensor *b)
{
    qx_output_meter m;
    qx_report *r;
    qx_meter_start(&m, name, NULL);
    qx_meter_add(&m, a, b);
    assert_int_equal(qx_report_new(ctx, &r), QX_OK);
    assert_int_equal(qx_meters_report(&m, 1, r), QX_OK);
    return r;
}

static void decibels(void **state)
{
    static const struct { float error; const char *words; } cases[] =
        {{0.001f, "very close"}, {0.05f, "close to"}, {0.2f, "results will differ"}, {0.9f, "far from"}};
    const int64_t dims[] = {4};
    float a[4] = {1, -1, 1, -1}, b[4];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (int k = 0; k < 4; k++) b[k] = a[k] + cases[i].error;
        const qx_tensor x = tensor(QX_DT_FLOAT, 1, dims, a), y = tensor(QX_DT_FLOAT, 1, dims, b);
        qx_report *r = judge(*state, "y", &x, &y);
        assert_true(fabs(r->outputs[0].sqnr_db + 20 * log10((double)cases[i].error)) < 0.01 && isnan(r->outputs[0].equal) &&
                    isnan(r->outputs[0].top1));
        assert_non_null(strstr(r->verdict, cases[i].words));
        qx_report_free(r);
    }
}

/* Three of four rows keep their largest score: that decides, although the decibels are fine. */
static void scores(void **state)
{
    const int64_t dims[] = {1, 4, 3};
    float a[12] = {5, 1, 0, 0, 5, 1, 1, 0, 5, 5, 4.9f, 0}, b[12] = {5, 1, 0, 0, 5, 1, 1, 0, 5, 4.9f, 5, 0};
    const qx_tensor x = tensor(QX_DT_FLOAT, 3, dims, a), y = tensor(QX_DT_FLOAT, 3, dims, b);
    qx_report *r = judge(*state, "logits", &x, &y);
    assert_true(r->outputs[0].top1 == 0.75 && r->outputs[0].sqnr_db > 30);
    assert_non_null(strstr(r->verdict, "far from"));
    qx_report_free(r);
}

static void codes(void **state)
{
    const int64_t dims[] = {5}, fewer[] = {3};
    /* float could not tell the last ones apart */
    int64_t a[5] = {1, 2, 3, (int64_t)1 << 60, 7}, b[5] = {1, 2, 4, ((int64_t)1 << 60) + 1, 7};
    const qx_tensor x = tensor(QX_DT_INT64, 1, dims, a), y = tensor(QX_DT_INT64, 1, dims, b), z = tensor(QX_DT_INT64, 1, fewer, b);
    qx_report *r = judge(*state, "ids", &x, &y);
    assert_true(r->outputs[0].equal == 0.6 && isnan(r->outputs[0].sqnr_db) && !r->verdict);
    qx_report_free(r);
    r = judge(*state, "ids", &x, &z);
    assert_string_equal(r->outputs[0].note, "5 values in float and 3 quantized: not compared");
    qx_report_free(r);
}

static void not_finite(void **state)
{
    const int64_t dims[] = {2};
    float a[2] = {1, 2}, b[2] = {1, NAN};
    const qx_tensor x = tensor(QX_DT_FLOAT, 1, dims, a), y = tensor(QX_DT_FLOAT, 1, dims, b);
    qx_report *r = judge(*state, "y", &x, &y);
    assert_non_null(strstr(r->verdict, "BROKEN"));
    assert_non_null(strstr(r->outputs[0].note, "1 of 2 values"));
    qx_report_free(r);
    r = judge(*state, "y", &y, &x); /* the float model's own fault */
    assert_null(r->verdict);
    assert_non_null(strstr(r->outputs[0].note, "of the model before are not finite"));
    qx_report_free(r);
}

/* An empty output says nothing, and is not reported. */
static void empty(void **state)
{
    const int64_t dims[] = {0};
    float none;
    const qx_tensor x = tensor(QX_DT_FLOAT, 1, dims, &none);
    qx_report *r = judge(*state, "y", &x, &x);
    assert_true(r->n_outputs == 0 && !r->verdict);
    qx_report_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(decibels), cmocka_unit_test(scores), cmocka_unit_test(codes),
                                       cmocka_unit_test(not_finite), cmocka_unit_test(empty)};
    return cmocka_run_group_tests(tests, with_ctx, free_ctx);
}

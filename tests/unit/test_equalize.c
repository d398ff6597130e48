/* test_equalize.c - cross-layer equalization is exact in float and gives back what uneven channels cost; bias correction brings
 * the mean of the output back. On a small MobileNet-like network (tests/data/convnet/make.py) whose channels were made uneven. */
#include "unit.h"

#include <math.h>

#include "passes/linear/bias.h"
#include "passes/pipeline.h"

#define DATA TEST_SOURCE_DIR "/tests/data/convnet/"

static void out_path(char *path, size_t cap) { snprintf(path, cap, "/tmp/qonnx_test_equalize_%ld.onnx", (long)getpid()); }

/* SQNR of the scores, on the samples that it was calibrated with: nothing but rounding is judged. */
static double quality(qx_ctx *ctx, const char *passes)
{
    qx_report *r;
    char out[128];
    const char *calib = DATA "sample.npz";
    out_path(out, sizeof out);
    qx_quantize_options o = {.input = DATA "mobile.onnx", .output = out, .passes = passes, .force = true, .verify = &calib,
                             .n_verify = 1, .verify_each = true};
    o.samples = (qx_samples_options){.paths = &calib, .n_paths = 1};
    OK(qx_report_new(ctx, &r));
    if (qx_quantize_file(ctx, &o, r) != QX_OK) fail_msg("%s: %s", passes, qx_ctx_error(ctx));
    const double db = r->outputs[0].sqnr_db;
    print_message("%-48s %.1f dB\n", passes, db);
    qx_report_free(r);
    unlink(out);
    return db;
}

static void exact(void **state)
{
    assert_true(quality(*state, "equalize(absorb=false)") > 100);
    assert_true(quality(*state, "equalize") > 100); /* absorbed channels never fell below the bound here */
}

static void uneven_channels(void **state)
{
    const double tensor = quality(*state, "int8(weights=tensor)"), even = quality(*state, "equalize(absorb=false),int8(weights=tensor)"),
                 absorbed = quality(*state, "equalize,int8(weights=tensor)"), channel = quality(*state, "int8"),
                 both = quality(*state, "equalize,int8");
    assert_true(even > tensor + 4 && absorbed > tensor + 4);
    assert_true(both > channel + 4); /* activations have one scale a tensor in any case */
}

static void mean_error(void **state)
{
    const double weights = quality(*state, "int8-weights"), corrected = quality(*state, "bias-correction,int8-weights");
    assert_true(corrected > weights + 4);
    const double even = quality(*state, "equalize,int8(weights=tensor)"),
        both = quality(*state, "equalize,bias-correction,int8(weights=tensor)");
    assert_true(both > even + 2);
    assert_true(quality(*state, "bias-correction,gptq,int8-weights") > 25); /* after a solver too */
}

/* bias' = bias * factor + add, against the numbers; a Conv without a bias gets one. */
static void bias_change(void **state)
{
    qx_model *m;
    qx_linears ls;
    float before[32], after[32], factor[32], add[32];
    OK(qx_model_read(*state, DATA "mobile.onnx", NULL, &m));
    OK(qx_linears_find(m, &ls));
    qx_linear *l = &ls.items[2];
    const qx_view view = {1, 1, l->n, 0};
    assert_int_equal(l->n, 32);
    assert_true(qx_bias_can_change(l));
    OK(qx_rows_read(*state, qx_value_const(l->bias), &view, NULL, 0, 1, before));
    for (int i = 0; i < 32; i++) factor[i] = 1 + (float)i, add[i] = 0.5f * (float)i;
    OK(qx_bias_change(m, l, factor, add));
    OK(qx_rows_read(*state, qx_value_const(l->node->in[2]), &view, NULL, 0, 1, after));
    for (int i = 0; i < 32; i++) assert_true(after[i] == before[i] * factor[i] + add[i]);
    OK(qx_node_truncate_in(l->node, 2));
    l->bias = NULL;
    OK(qx_bias_change(m, l, NULL, add));
    OK(qx_rows_read(*state, qx_value_const(l->node->in[2]), &view, NULL, 0, 1, after));
    for (int i = 0; i < 32; i++) assert_true(after[i] == add[i]);
    OK(qx_verify(m));
    qx_model_free(m);
}

static void refuse(qx_ctx *ctx, const char *model, const char *passes, const char *part)
{
    qx_report *r;
    char out[128];
    out_path(out, sizeof out);
    qx_quantize_options o = {.input = model, .output = out, .passes = passes, .force = true};
    o.samples = (qx_samples_options){.random = 2};
    OK(qx_report_new(ctx, &r));
    qx_ctx_clear_error(ctx);
    assert_int_not_equal(qx_quantize_file(ctx, &o, r), QX_OK);
    MESSAGE_HAS(ctx, part);
    qx_report_free(r);
}

static void refused(void **state)
{
    refuse(*state, TEST_SOURCE_DIR "/samples/models/llama-dynamo/model.onnx", "equalize,int8-weights", "no two layers");
    refuse(*state, DATA "mobile.onnx", "bias-correction", "does nothing by itself");
    refuse(*state, DATA "mobile.onnx", "int8,equalize", "must come before the format");
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(exact), TEST(uneven_channels), TEST(mean_error), TEST(bias_change), TEST(refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

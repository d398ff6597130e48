/* Pipeline text: names, options, bounds, order, expansion; job options by name; rules of names and levels. */
#include "unit.h"

#include "passes/place/plan.h"
#include "passes/place/rules.h"
#include "passes/job/settings.h"

static void expect_text(qx_ctx *ctx, const char *text, const char *expanded)
{
    qx_pipeline *p = NULL;
    assert_int_equal(qx_pipeline_parse(ctx, text, &p), QX_OK);
    assert_string_equal(qx_pipeline_text(p), expanded);
    /* What was expanded parses to itself. */
    qx_pipeline *again = NULL;
    assert_int_equal(qx_pipeline_parse(ctx, qx_pipeline_text(p), &again), QX_OK);
    assert_string_equal(qx_pipeline_text(again), expanded);
    qx_pipeline_free(again);
    qx_pipeline_free(p);
}

static void expect_error(qx_ctx *ctx, const char *text, const char *part)
{
    qx_pipeline *p = (void *)1;
    qx_ctx_clear_error(ctx);
    assert_int_equal(qx_pipeline_parse(ctx, text, &p), QX_E_USAGE);
    assert_null(p);
    if (!strstr(qx_ctx_error(ctx), part)) fail_msg("'%s' is not in: %s", part, qx_ctx_error(ctx));
}

static void test_expansion(void **state)
{
    qx_ctx *ctx = qx_ctx_new(NULL);
    (void)state;
    expect_text(ctx, "none", "none");
    expect_text(ctx, "int4", "int4(block=32,zero-point=false,scale=search,negative-scale=true,half-scales=true,unblocked=int8,accuracy-level=4)");
    expect_text(ctx, " int4 ( block = 128 , zero-point ) ",
                "int4(block=128,zero-point=true,scale=search,negative-scale=true,half-scales=true,unblocked=int8,accuracy-level=4)");
    expect_text(ctx, "int4(amax,zero-point=no)", "int4(block=32,zero-point=false,scale=amax,negative-scale=true,half-scales=true,unblocked=int8,accuracy-level=4)");
    expect_text(ctx, "int8-weights()", "int8-weights(block=0,scale=amax,half-scales=true,accuracy-level=4)");
    expect_text(ctx, "bias-correction?, int8-weights", "bias-correction?,int8-weights(block=0,scale=amax,half-scales=true,accuracy-level=4)");
    qx_ctx_free(ctx);
}

/* "name?" is an ordinary pass when there are samples and none when there are not. */
static void test_optional(void **state)
{
    qx_ctx *ctx = qx_ctx_new(NULL);
    (void)state;
    for (int with = 0; with < 2; with++) {
        qx_pipeline *p;
        assert_int_equal(qx_pipeline_parse(ctx, "bias-correction ? ,int8-weights", &p), QX_OK);
        assert_int_equal(qx_pipeline_settle(p, with), QX_OK);
        assert_string_equal(qx_pipeline_text(p), with ? "bias-correction,int8-weights(block=0,scale=amax,half-scales=true,accuracy-level=4)"
                            : "int8-weights(block=0,scale=amax,half-scales=true,accuracy-level=4)");
        qx_pipeline_free(p);
    }
    expect_error(ctx, "int4?", "int4 is a format");
    expect_error(ctx, "rotate?,int4", "rotate is one that needs none");
    qx_ctx_free(ctx);
}

static void test_errors(void **state)
{
    qx_ctx *ctx = qx_ctx_new(NULL);
    (void)state;
    expect_error(ctx, "", "a pass name is expected");
    expect_error(ctx, "int4,", "a pass name is expected");
    expect_error(ctx, "int5", "there is no pass 'int5'");
    expect_error(ctx, "int4(block=7)", "int4(block=7): not in [8, 65536]");
    expect_error(ctx, "int4(block=32", "')' is missing");
    expect_error(ctx, "int4(block=1e3)", "int4(block=1e3)");
    expect_error(ctx, "int4(block=32,block=64)", "given twice");
    expect_error(ctx, "int4(blok=32)", "it has: block, zero-point");
    expect_error(ctx, "int4(scale=best)", "write one of search|amax");
    expect_error(ctx, "int4(zero-point=maybe)", "write true or false");
    expect_error(ctx, "int8(percentile=nan)", "percentile");
    expect_error(ctx, "int8(percentile=101)", "not in [50, 100]");
    expect_error(ctx, "int8,int4", "both formats");
    expect_error(ctx, "int8,int8", "given twice");
    expect_error(ctx, "int4 int8", "',' is expected");
    expect_error(ctx, "int4(=3)", "without a name");
    qx_ctx_free(ctx);
}

static void test_presets(void **state)
{
    int n;
    const qx_preset *all = qx_presets(&n);
    qx_ctx *ctx = qx_ctx_new(NULL);
    (void)state;
    for (int i = 0; i < n; i++) {
        const char *texts[] = {all[i].text, all[i].with_text};
        assert_ptr_equal(qx_preset_find(all[i].name), &all[i]);
        for (int k = 0; k < 2 && texts[k]; k++) {
            qx_pipeline *p = NULL;
            if (qx_pipeline_parse(ctx, texts[k], &p) != QX_OK) fail_msg("preset %s: %s", texts[k], qx_ctx_error(ctx));
            qx_pipeline_free(p);
        }
    }
    assert_null(qx_preset_find("nothing"));
    qx_ctx_free(ctx);
}

/* Every option of every pass: default accepted, one step out of bounds refused. */
static void test_bounds(void **state)
{
    int n;
    qx_ctx *ctx = qx_ctx_new(NULL);
    const qx_passdef *const *all = qx_passes(&n);
    (void)state;
    for (int i = 0; i < n; i++)
        for (const qx_option *o = all[i]->options; o && o->name; o++) {
            char text[160];
            if (o->type != QX_OPT_INT && o->type != QX_OPT_FLOAT) continue;
            snprintf(text, sizeof text, "%s(%s=%.17g)", all[i]->name, o->name, o->max + 1);
            expect_error(ctx, text, "not in [");
            snprintf(text, sizeof text, "%s(%s=%.17g)", all[i]->name, o->name, o->min - 1);
            expect_error(ctx, text, "not in [");
        }
    qx_ctx_free(ctx);
}

static void expect_setting_error(qx_ctx *ctx, qx_job_args *a, const char *name, const char *value, const char *part)
{
    qx_ctx_clear_error(ctx);
    assert_int_equal(qx_job_args_set(a, name, value), QX_E_USAGE);
    if (!strstr(qx_ctx_error(ctx), part)) fail_msg("'%s' is not in: %s", part, qx_ctx_error(ctx));
}

static void test_settings(void **state)
{
    qx_ctx *ctx = qx_ctx_new(NULL);
    qx_job_args *a;
    const qx_quantize_options *o;
    (void)state;
    assert_int_equal(qx_job_args_new(ctx, &a), QX_OK);
    assert_int_equal(qx_job_args_options(a, &o), QX_E_USAGE);
    assert_int_equal(qx_job_args_set(a, "int8", "1"), QX_OK);
    assert_int_equal(qx_job_args_set(a, "set", "a=b=int4(block=64)"), QX_OK);
    assert_int_equal(qx_job_args_set(a, "dim", "batch=2"), QX_OK);
    for (int i = 0; i < 20; i++) assert_int_equal(qx_job_args_set(a, "exclude", i % 2 ? "x*" : "y*"), QX_OK);
    assert_int_equal(qx_job_args_set(a, "min-sqnr", "12.5"), QX_OK);
    assert_int_equal(qx_job_args_set(a, "target", "ort"), QX_OK);
    expect_setting_error(ctx, a, "int4", NULL, "two formats");
    expect_setting_error(ctx, a, "nosuch", "1", "there is no option");
    expect_setting_error(ctx, a, "force", "yes", "write 1 or 0");
    expect_setting_error(ctx, a, "seq-len", "0", "not in [1,");
    expect_setting_error(ctx, a, "seq-len", "4x", "seq-len");
    expect_setting_error(ctx, a, "seed", "-1", "negative");
    expect_setting_error(ctx, a, "target", "cpu", "write one of generic|ort|tensorrt");
    expect_setting_error(ctx, a, "dim", "batch", "write name=value");
    expect_setting_error(ctx, a, "dim", "batch=0", "at least 1");
    expect_setting_error(ctx, a, "set", "=int8", "write PATTERN=FORMAT");
    expect_setting_error(ctx, a, "preset", "nosuch", "there is no preset");
    assert_int_equal(qx_job_args_options(a, &o), QX_OK);
    assert_string_equal(o->passes, "smoothquant,bias-correction,int8");
    assert_string_equal(o->settings[0].pattern, "a=b");
    assert_string_equal(o->settings[0].format, "int4(block=64)");
    assert_int_equal(o->n_exclude, 20);
    assert_string_equal(o->exclude[19], "x*");
    assert_true(o->has_min_sqnr && o->min_sqnr == 12.5);
    assert_int_equal(o->target, QX_TARGET_ORT);
    assert_int_equal(o->dims[0].value, 2);
    qx_job_args_free(a);
    qx_ctx_free(ctx);
}

static void test_paths(void **state)
{
    (void)state;
    assert_true(qx_path_has("/model/layers.0/block_sparse_moe/gate/MatMul", "block_sparse_moe.gate", false));
    assert_false(qx_path_has("/model/layers.0/mlp/gate_proj/MatMul", "mlp.gate", false));
    assert_true(qx_path_has("model.layers.0.mlp.gate.weight", "mlp.gate", false));
    assert_true(qx_path_has("/lm_head/MatMul", "lm_head", false));
    assert_true(qx_path_has("lm_head", "lm_head", true));
    assert_false(qx_path_has("/x/proj_out/MatMul", "proj_out", true));
    assert_true(qx_path_has("/proj_out/MatMul", "proj_out", true));
    assert_false(qx_path_has("conv_in2.weight", "conv_in", false));
    assert_false(qx_path_has("", "conv_in", false));
    assert_false(qx_path_has("///", "conv_in", false));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_expansion), cmocka_unit_test(test_optional), cmocka_unit_test(test_errors), cmocka_unit_test(test_presets),
        cmocka_unit_test(test_bounds),    cmocka_unit_test(test_settings), cmocka_unit_test(test_paths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

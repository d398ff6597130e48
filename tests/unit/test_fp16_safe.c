/* fp16-safe: a float16 VAE decoder whose sums exceed 65,504 (tests/data/make_pipelines.py) gives the float32 picture afterwards;
 * what is scaled, and what is not. */
#include "unit.h"

#include <math.h>
#include <qonnx.h>

#include "onnx/infer/infer.h"
#include "onnx/file/io.h"
#include "passes/pipeline.h"

#define DATA TEST_SOURCE_DIR "/tests/data/pipelines/overflow/"

static void out_path(char *path, size_t cap, const char *name)
{
    snprintf(path, cap, "/tmp/qonnx_test_fp16_safe_%ld_%s.onnx", (long)getpid(), name);
}

static qx_status rewrite(qx_ctx *ctx, const char *in, const char *passes, const char *out)
{
    qx_report *r;
    qx_quantize_options o = {.input = in, .output = out, .passes = passes, .force = true, .no_verify = true, .verify_each = true};
    OK(qx_report_new(ctx, &r));
    const qx_status st = qx_quantize_file(ctx, &o, r);
    qx_report_free(r);
    return st;
}

static void first_of(qonnx_ctx *q, const char *path, qonnx_npz **z, qonnx_tensor *t)
{
    if (qonnx_npz_open(q, path, z) != QONNX_OK || qonnx_npz_get(*z, 0, t) != QONNX_OK) fail_msg("%s", qonnx_error(q));
}

/* Signal to noise of the picture against expect.npz; NaN when any value is not finite. */
static double picture(const char *model)
{
    qonnx_ctx *q = qonnx_open();
    qonnx_npz *in, *want;
    qonnx_tensor x, y, got;
    qonnx_session *s;
    double aa = 0, dd = 0;
    first_of(q, DATA "sample.npz", &in, &x);
    first_of(q, DATA "expect.npz", &want, &y);
    if (qonnx_session_open(q, model, "device=cpu", &s) != QONNX_OK || qonnx_session_run(s, &x, 1, NULL, 1, &got) != QONNX_OK)
        fail_msg("%s", qonnx_error(q));
    const int64_t n = qonnx_tensor_numel(&y);
    float *a = malloc((size_t)n * sizeof *a), *b = malloc((size_t)n * sizeof *b);
    assert_int_equal(qonnx_tensor_numel(&got), n);
    OK((qx_status)qonnx_to_float(q, y.dtype, y.data, n, a));
    OK((qx_status)qonnx_to_float(q, got.dtype, got.data, n, b));
    for (int64_t i = 0; i < n; i++) aa += (double)a[i] * a[i], dd += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
    free(a);
    free(b);
    qonnx_session_close(s);
    qonnx_npz_close(in);
    qonnx_npz_close(want);
    qonnx_close(q);
    return 10 * log10(aa / dd);
}

static void overflow(void **state)
{
    char out[128];
    out_path(out, sizeof out, "vae");
    assert_true(isnan(picture(DATA "model.onnx")));
    if (rewrite(*state, DATA "model.onnx", "fp16-safe", out) != QX_OK) fail_msg("%s", qx_ctx_error(*state));
    assert_true(picture(out) > 45);
    if (rewrite(*state, DATA "model.onnx", "fp16-safe(factor=1024),int8-weights", out) != QX_OK) fail_msg("%s", qx_ctx_error(*state));
    assert_true(picture(out) > 20);
    unlink(out);
}

/* A file with `nodes` between x[1,2,2,2] and y. */
static void write_text(qx_ctx *ctx, const char *path, const char *nodes)
{
    char text[1200];
    qx_model *m;
    snprintf(text, sizeof text, "<ir_version: 8, opset_import: [\"\" : 17]> g (float[1,2,2,2] x) => (y) <float[2,2,1,1] w = {1, "
                                "2, 3, 4}, float[2] b = {5, 6}, float[2] one = {1, 1}, "
             "float[1,2,2,2] c = {1, 2, 3, 4, 5, 6, 7, 8}> { %s }", nodes);
    if (qx_model_parse_text(ctx, text, &m) != QX_OK) fail_msg("%s", qx_ctx_error(ctx));
    if (qx_model_write(m, path, &(qx_write_options){.force = true}, NULL) != QX_OK) fail_msg("%s", qx_ctx_error(ctx));
    qx_model_free(m);
}

static float weight_at(const qx_model *m, const qx_value *v, int64_t i)
{
    float x[8];
    const qx_weight *w = qx_value_const(v);
    OK(qx_rows_read(m->ctx, w, &(qx_view){1, 1, w->numel, 0}, NULL, 0, 1, x));
    return x[i];
}

static void what_is_scaled(void **state)
{
    char in[128], out[128];
    qx_model *m;
    out_path(in, sizeof in, "in");
    out_path(out, sizeof out, "out");
    write_text(*state, in, "p = Conv (x, w, b) q = Relu (p) r = Add (p, q) n = InstanceNormalization <epsilon = 0.25> (r, one, b) "
                           "s = Sigmoid (n) y = Conv (s, w, b)");
    /* two readers of one weight, one of which must not change */
    assert_int_equal(rewrite(*state, in, "fp16-safe(factor=2)", out), QX_E_UNSUPPORTED);
    write_text(*state, in, "p = Conv (x, w, b) q = Relu (p) r = Add (p, q) n = InstanceNormalization <epsilon = 0.25> (r, one, b) "
                           "y = Sigmoid (n)");
    OK(rewrite(*state, in, "fp16-safe(factor=2)", out));
    OK(qx_model_read(*state, out, NULL, &m));
    QX_FOR_NODES(m->graph, n) {
        if (n->op->id == QX_OP_Conv) assert_true(weight_at(m, n->in[1], 3) == 2 && weight_at(m, n->in[2], 0) == 2.5f);
        if (n->op->id == QX_OP_InstanceNormalization)
            assert_true(qx_attr_float(n, "epsilon", 0) == 0.0625f && weight_at(m, n->in[2], 0) == 5);
    }
    qx_model_free(m);
    unlink(in);
    unlink(out);
}

static void what_is_not(void **state)
{
    static const char *const rows[] = {
        "p = Conv (x, w, b) y = Sigmoid (p)",
        /* a graph output */
        "y = Conv (x, w, b) n = InstanceNormalization (y, one, b)",
        /* a constant is added */
        "p = Conv (x, w, b) q = Add (p, c) y = InstanceNormalization (q, one, b)",
        /* or stands beside */
        "p = Conv (x, w, b) q = Concat <axis = 0> (p, c) y = InstanceNormalization (q, one, b)",
        "p = Conv (x, w, b) q = Mul (p, p) y = InstanceNormalization (q, one, b)",
    };
    char in[128], out[128];
    out_path(in, sizeof in, "not");
    out_path(out, sizeof out, "not_out");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        write_text(*state, in, rows[i]);
        qx_ctx_clear_error(*state);
        assert_int_equal(rewrite(*state, in, "fp16-safe", out), QX_E_UNSUPPORTED);
        MESSAGE_HAS(*state, "no value lies between");
    }
    qx_ctx_clear_error(*state);
    assert_int_equal(rewrite(*state, in, "fp16-safe(factor=48)", out), QX_E_USAGE);
    MESSAGE_HAS(*state, "factor is 48, expected a power of two");
    assert_int_not_equal(access(out, F_OK), 0);
    unlink(in);
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(overflow), TEST(what_is_scaled), TEST(what_is_not)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

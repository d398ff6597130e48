/* test_thin.c - calibration data that says almost nothing: one sample of two tokens, or one word over and over. H has rank one or
 * two, most channels of rows were never apart, ranges come from a handful of values. Every algorithm has to give a model that
 * still works on other text. */
#include <math.h>

#include "tmp_dir.h"
#include "unit.h"
#include "passes/job/settings.h"

#define LM(name) TEST_SOURCE_DIR "/samples/models/micro-llama/" name

static tmp_dir dir;
static int make_dir(void **state) { return (void)state, tmp_make(&dir, "/tmp"); }
static int remove_dir(void **state) { return (void)state, tmp_remove(&dir); }

/* Decibels of the logits on unseen text (the folder's own sample), or the job's error. */
static double left(const char *passes, const char *text, int64_t seq_len)
{
    qx_ctx *ctx = qx_ctx_new(NULL);
    qx_report *r;
    const char *const unseen[] = {LM("sample.npz")};
    const qx_quantize_options o = {.input = LM("model.onnx"), .output = tmp_path(&dir, "out.onnx"), .passes = passes, .force = true,
                                   .verify = unseen, .n_verify = 1,
                                   .samples = {.text = text, .tokenizer = LM("tokenizer.json"), .seq_len = seq_len, .limit = 1}};
    assert_int_equal(qx_report_new(ctx, &r), QX_OK);
    if (qx_quantize_file(ctx, &o, r) != QX_OK) fail_msg("%s: %s", passes, qx_ctx_error(ctx));
    assert_true(r->n_outputs > 0);
    const double db = r->outputs[0].sqnr_db;
    qx_report_free(r);
    assert_int_equal(qx_mem_in_use(ctx), 0);
    qx_ctx_free(ctx);
    return db;
}

/* Weights alone: what the data does not say must not make them worse than rounding by more than chance. */
static const char *const weight_only[] = {"gptq,int4", "awq,int4", "awq,gptq,int4(block=128)", "gptq,nvfp4", "gptq,mxfp4",
                                          "svdquant,int4", "gptq,int8-weights", "gptq,fp8-weights"};
/* Activations too: two tokens do not show how large others are, so only that it works is asked. */
static const char *const activations[] = {"smoothquant,int8", "smoothquant,gptq,fp8", "sparsity,int8"};

static void two_tokens(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof weight_only / sizeof *weight_only; i++) {
        const char *format = strrchr(weight_only[i], ',') + 1;
        const double plain = left(format, LM("calib.txt"), 2), db = left(weight_only[i], LM("calib.txt"), 2);
        print_message("%s: %.1f dB, rounded to nearest %.1f\n", weight_only[i], db, plain);
        assert_true(db > plain - 1.5);
    }
    for (size_t i = 0; i < sizeof activations / sizeof *activations; i++) {
        const double db = left(activations[i], LM("calib.txt"), 2);
        print_message("%s: %.1f dB\n", activations[i], db);
        assert_true(isfinite(db));
    }
}

static void one_word(void **state)
{
    (void)state;
    char text[3001];
    for (size_t i = 0; i < 3000; i++) text[i] = "the "[i % 4];
    put_file(tmp_path(&dir, "words.txt"), text, 3000);
    static const char *const jobs[] = {"gptq,int4", "awq,int4", "smoothquant,int8", "sparsity,int8-weights"};
    for (size_t i = 0; i < sizeof jobs / sizeof *jobs; i++) {
        const double db = left(jobs[i], tmp_path(&dir, "words.txt"), 64);
        print_message("%s: %.1f dB\n", jobs[i], db);
        assert_true(isfinite(db));
    }
}

/* Of the weights that a job writes: sqnr [n], what the job warned about. */
static int64_t errors_of(const char *passes, const char *samples, double sqnr[2])
{
    qx_ctx *ctx = qx_ctx_new(NULL);
    qx_report *r;
    const qx_quantize_options o = {.input = TEST_SOURCE_DIR "/tests/data/mlp/model.onnx", .output = tmp_path(&dir, "out.onnx"),
                                   .passes = passes, .force = true, .no_verify = true, .samples = {.paths = &samples, .n_paths = 1}};
    assert_int_equal(qx_report_new(ctx, &r), QX_OK);
    if (qx_quantize_file(ctx, &o, r) != QX_OK) fail_msg("%s: %s", passes, qx_ctx_error(ctx));
    assert_int_equal(r->n_tensors, 2);
    for (int i = 0; i < 2; i++) sqnr[i] = r->tensors[i].sqnr;
    const int64_t warnings = r->warnings;
    qx_report_free(r);
    qx_ctx_free(ctx);
    return warnings;
}

/* Squares of such inputs are beyond float32: no H can be factored, which is said of each weight, and they are rounded to nearest. */
static void no_factor(void **state)
{
    enum { ROWS = 8, K = 64 };
    static float x[ROWS * K];
    char samples[600];
    double solved[2], rounded[2];
    (void)state;
    for (int i = 0; i < ROWS * K; i++) x[i] = (float)(1e25 * sin(1.3 * i));
    put_file(tmp_path(&dir, "large.raw"), x, sizeof x);
    snprintf(samples, sizeof samples, "x=%s:f32[%d,%d]", tmp_path(&dir, "large.raw"), ROWS, K);
    assert_int_equal(errors_of("gptq,int4", samples, solved), 2);
    assert_int_equal(errors_of("int4", samples, rounded), 0);
    for (int i = 0; i < 2; i++) assert_true(rounded[i] > 15 && fabs(solved[i] - rounded[i]) < 0.01);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(two_tokens, make_dir, remove_dir),
                                       cmocka_unit_test_setup_teardown(one_word, make_dir, remove_dir),
                                       cmocka_unit_test_setup_teardown(no_factor, make_dir, remove_dir)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

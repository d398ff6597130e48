/* test_record.c - --like replays what a model's metadata says; a model comes from anybody, so only what a record holds is taken from it. */
#include "unit.h"
#include "passes/job/record.h"

static bool nothing_given(void *user, const char *name) { return (void)user, (void)name, false; }

static qx_status replay(qx_ctx *ctx, const char *options, const qx_quantize_options **out)
{
    static qx_job_args *a;
    qx_job_args_free(a);
    a = NULL;
    if (!ctx) return QX_OK; /* only frees the last one */
    OK(qx_job_args_new(ctx, &a));
    QX_TRY(qx_record_replay(ctx, &(qx_record){.path = "made.onnx", .passes = "int8-weights", .options = options}, a, nothing_given, NULL));
    return qx_job_args_options(a, out);
}

/* Where to write, which code to load, what else may be read: never by a model's word. */
static void what_no_record_holds(void **state)
{
    static const char *const names[] = {"plugin-dir", "output", "force", "save-stats", "resume", "frontier", "external-data-root",
                                        "allow-symlinks", "like", "device", "no-such-option"};
    qx_ctx *ctx = *state;
    const qx_quantize_options *o;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char options[64];
        snprintf(options, sizeof options, "{\"%s\":\"1\"}", names[i]);
        FAILS(replay(ctx, options, &o), QX_E_USAGE);
        MESSAGE_HAS(ctx, names[i]);
        qx_ctx_clear_error(ctx);
    }
    (void)replay(NULL, NULL, NULL);
}

/* All that qx_record_options can write is taken back, and says the same again. */
static void what_a_record_holds(void **state)
{
    static const char text[] = "{\"include\":[\"a*\"],\"exclude\":[\"b*\"],\"set\":[\"c*=float\"],\"dim\":[\"n=4\"],\"target\":\"ort\",\"max-opset\":\"21\",\"max-ir\":\"10\",\"external-data\":\"1\","
                               "\"allow-requantize\":\"1\",\"calib\":[\"x.npz\"],\"tokenizer\":\"t.json\",\"load-stats\":\"s\",\"seq-len\":\"64\",\"samples\":\"3\",\"random\":\"2\",\"seed\":\"5\",\"no-verify\":\"1\"}";
    qx_ctx *ctx = *state;
    const qx_quantize_options *o;
    qx_buf again = QX_BUF_INIT(ctx);
    OK(replay(ctx, text, &o));
    OK(qx_record_options(ctx, o, &again));
    assert_string_equal(again.data, text);
    qx_buf_free(&again);
    (void)replay(NULL, NULL, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(what_no_record_holds), TEST(what_a_record_holds)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

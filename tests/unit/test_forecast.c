/* test_forecast.c - the memory that a job says it will take is what it takes: stage by stage, whole, and under --max-memory.
 * Formula by formula on a graph whose sizes are known by hand. */
#include <math.h>

#include "model_text.h"
#include "tmp_dir.h"
#include "passes/job/settings.h"
#include "runtime/exec.h"

#define LM(name) TEST_SOURCE_DIR "/samples/models/micro-llama/" name

static tmp_dir dir;
static int make_dir(void **state) { return (void)state, tmp_make(&dir, "/tmp"); }
static int remove_dir(void **state) { return (void)state, tmp_remove(&dir); }

static qx_status job(qx_ctx *ctx, const char *passes, qx_report *r)
{
    const qx_quantize_options o = {.input = LM("model.onnx"), .output = tmp_path(&dir, "out.onnx"), .passes = passes, .force = true,
                                   .samples = {.text = LM("calib.txt"), .tokenizer = LM("tokenizer.json"), .seq_len = 128, .limit = 4}};
    return qx_quantize_file(ctx, &o, r);
}

static int64_t measured(const qx_report *r, const char *stage)
{
    for (int64_t i = 0; i < r->n_stages; i++)
        if (strcmp(r->stages[i].name, stage) == 0) return r->stages[i].bytes;
    return 0;
}

/* Stages of a small model: its own terms are megabytes, so that constants weigh as much as they ever do. */
static void stages(void **state)
{
    static const char *const jobs[] = {"int8", "smoothquant,int8", "gptq,int4", "awq,int4", "sparsity,int8"};
    (void)state;
    for (size_t j = 0; j < sizeof jobs / sizeof *jobs; j++) {
        qx_ctx *ctx = qx_ctx_new(NULL);
        qx_report *r;
        OK(qx_report_new(ctx, &r));
        OK(job(ctx, jobs[j], r));
        double worst = 0, most = 0;
        for (int64_t i = 0; i < r->n_forecast; i++) {
            const double said = (double)r->forecast[i].bytes, was = (double)measured(r, r->forecast[i].stage);
            print_message("%s, %s: %.1f MB said, %.1f MB used\n", jobs[j], r->forecast[i].stage, said / 1e6, was / 1e6);
            assert_true(was > 0);
            assert_true(said > was / 1.15 && said < was * 2);
            worst = fmax(worst, said), most = fmax(most, was);
        }
        assert_true(r->n_forecast >= 3);
        assert_true(worst > most / 1.15 && worst < most * 1.25); /* what decides */
        qx_report_free(r);
        assert_int_equal(qx_mem_in_use(ctx), 0);
        qx_ctx_free(ctx);
    }
}

/* Less than it needs: told before the work. As much as was said: it is done. */
static void limits(void **state)
{
    qx_ctx *ctx = qx_ctx_new(NULL);
    qx_report *r;
    int64_t need = 0;
    (void)state;
    OK(qx_report_new(ctx, &r));
    OK(job(ctx, "smoothquant,int8", r));
    for (int64_t i = 0; i < r->n_forecast; i++) need = r->forecast[i].bytes > need ? r->forecast[i].bytes : need;
    qx_report_free(r);
    for (int fits = 0; fits < 2; fits++) {
        qx_ctx_configure(ctx, &(qx_ctx_options){.max_memory = (size_t)(fits ? need : 18 << 20)}); /* 18 MiB: the tokenizer alone takes 16 */
        OK(qx_report_new(ctx, &r));
        const qx_status st = job(ctx, "smoothquant,int8", r);
        assert_int_equal(st, fits ? QX_OK : QX_E_BUDGET);
        if (!fits) MESSAGE_HAS(ctx, "needs about");
        if (!fits) MESSAGE_HAS(ctx, "--max-memory is");
        assert_int_equal(measured(r, "calibrate") > 0, fits);
        qx_report_free(r);
        qx_ctx_clear_error(ctx);
    }
    qx_ctx_free(ctx);
}

/* With 100 rows: x A and its Relu are alive together, and nothing else; the output is counted apart. */
static void by_hand(void **state)
{
    qx_exec *x;
    qx_exec_need need;
    qx_tensor t;
    (void)state;
    fixture f = load(HEAD(17) "g (float[rows, 4] x) => (float[rows, 3] y) <float[4, 2] a = {1, 2, 3, 4, 5, 6, 7, 8}, float[2, 3] "
                              "b = {1, 2, 3, 4, 5, 6}> { h = MatMul(x, a) r = Relu(h) y = MatMul(r, b) }");
    OK(qx_infer_shapes(f.m, NULL, 0));
    OK(qx_exec_new(f.ctx, f.m, NULL, &x));
    OK(qx_tensor_new(f.ctx, &t, QX_DT_FLOAT, 2, (const int64_t[]){100, 4}));
    OK(qx_exec_forecast(x, &(qx_feed){"x", &t}, 1, NULL, &need));
    assert_int_equal(need.weights, (4 * 2 + 2 * 3) * 4);
    assert_int_equal(need.outputs, 100 * 3 * 4);
    assert_int_equal(need.activations, 2 * 100 * 2 * 4);
    assert_int_equal(need.unknown, 0);
    qx_tensor_free(f.ctx, &t);
    qx_exec_free(x);
    unload(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(stages, make_dir, remove_dir),
                                       cmocka_unit_test_setup_teardown(limits, make_dir, remove_dir), cmocka_unit_test(by_hand)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

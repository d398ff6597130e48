/* test_algorithms.c - chained passes on a trained model, from file to file: what each is for shows in the measured output, and
 * 2:4 files hold the pattern. */
#include "unit.h"

#include <math.h>

#include "passes/pipeline.h"
#include "passes/job/sparse_check.h"

#define MODEL TEST_SOURCE_DIR "/samples/models/micro-llama/"

/* SQNR of the logits on held-out text; the file stays at out. */
static double quality(qx_ctx *ctx, const char *passes, const char *out)
{
    qx_report *r;
    qx_quantize_options o = {.input = MODEL "model.onnx", .output = out, .passes = passes, .force = true};
    o.samples = (qx_samples_options){.text = MODEL "calib.txt", .tokenizer = MODEL "tokenizer.json", .seq_len = 128, .limit = 12,
                                     .hold_out = true};
    OK(qx_report_new(ctx, &r));
    if (qx_quantize_file(ctx, &o, r) != QX_OK) fail_msg("%s: %s", passes, qx_ctx_error(ctx));
    assert_true(r->n_outputs > 0);
    const double db = r->outputs[0].sqnr_db;
    print_message("%-40s %.2f dB\n", passes, db);
    qx_report_free(r);
    return db;
}

static void temp_path(char *path, size_t cap)
{
    snprintf(path, cap, "/tmp/qonnx_test_algorithms_%ld.onnx", (long)getpid());
}

static void weights_only(void **state)
{
    char out[128];
    temp_path(out, sizeof out);
    const double amax = quality(*state, "int4(scale=amax)", out), rtn = quality(*state, "int4", out),
    awq = quality(*state, "awq,int4", out), gptq = quality(*state, "gptq,int4", out),
                 svd = quality(*state, "svdquant(rank=16),int4", out);
    assert_true(rtn > amax + 1);
    assert_true(awq > rtn - 0.3); /* a model without outlier channels: nothing to win, and the output is asked before anything is lost */
    assert_true(gptq > amax + 1);
    assert_true(svd > rtn + 0.3);
    unlink(out);
}

static void activations(void **state)
{
    char out[128];
    temp_path(out, sizeof out);
    const double plain = quality(*state, "int8", out), smooth = quality(*state, "smoothquant,int8", out),
        fixed = quality(*state, "smoothquant(alpha=0.5),int8", out);
    assert_true(smooth > plain);
    assert_true(quality(*state, "smoothquant,fp8", out) > 28);
    assert_true(fixed > 20); /* folded wrongly, nothing would be left */
    assert_true(quality(*state, "smoothquant,int8-dynamic", out) > quality(*state, "int8-dynamic", out) + 1);
    assert_true(quality(*state, "smoothquant,int8-dynamic(scale=tensor)", out) > quality(*state, "int8-dynamic(scale=tensor)", out) + 1);
    unlink(out);
}

/* How many operators keep a float input for their error (their weights get 8 bits all the same), and how many do not. */
static void count_kept(qx_ctx *ctx, const char *passes, int64_t *kept, int64_t *done)
{
    qx_report *r;
    char out[128];
    temp_path(out, sizeof out);
    qx_quantize_options o = {.input = MODEL "model.onnx", .output = out, .passes = passes, .tables = "float", .force = true, .no_verify = true};
    o.samples = (qx_samples_options){.text = MODEL "calib.txt", .tokenizer = MODEL "tokenizer.json", .seq_len = 64, .limit = 4};
    OK(qx_report_new(ctx, &r));
    OK(qx_quantize_file(ctx, &o, r));
    *kept = *done = 0;
    for (int64_t i = 0; i < r->n_nodes; i++) {
        if (!r->nodes[i].format) continue;
        ++*(strcmp(r->nodes[i].format, "int8-weights") ? done : kept);
    }
    qx_report_free(r);
    unlink(out);
}

/* Operators that hurt the output most keep float inputs, never more than the share that was given; without measurements those with
 * the largest errors. */
static void worst_stay_float(void **state)
{
    int64_t kept, done;
    count_kept(*state, "smoothquant(float-effect=0,probes=6,float-share=30),int8", &kept, &done);
    assert_true(kept > 0 && done > 2 * kept);
    count_kept(*state, "smoothquant(probes=0,float-below=100,float-share=30),int8", &kept, &done);
    assert_true(kept > 0 && done > 2 * kept);
    count_kept(*state, "smoothquant(float-effect=100,float-below=0,probes=2),int8", &kept, &done);
    assert_int_equal(kept, 0);
    count_kept(*state, "smoothquant(float-share=0,probes=2),int8", &kept, &done);
    assert_int_equal(kept, 0);
}

static int64_t proven(qx_ctx *ctx, const char *path, int64_t *all)
{
    qx_model *m;
    qx_sparse_row *rows;
    int64_t n, good = 0;
    OK(qx_model_read(ctx, path, NULL, &m));
    OK(qx_sparse_check(m, m->arena, &rows, &n));
    for (int64_t i = 0; i < n; i++) good += !rows[i].note && rows[i].groups && !rows[i].broken;
    *all = n;
    qx_model_free(m);
    return good;
}

static void two_of_four(void **state)
{
    static const char *const chains[] = {"sparsity", "sparsity,int8", "sparsity,gptq,int4", "sparsity(method=wanda),fp8"};
    char out[128];
    int64_t all;
    temp_path(out, sizeof out);
    for (size_t i = 0; i < sizeof chains / sizeof *chains; i++) {
        (void)quality(*state, chains[i], out);
        assert_int_equal(proven(*state, out, &all), 35);
        assert_int_equal(all, 36); /* the head stays dense */
    }
    const double magnitude = quality(*state, "sparsity(method=magnitude),int8", out), solved = quality(*state, "sparsity,int8", out);
    assert_true(solved > magnitude + 1);
    unlink(out);
}

#define CONVNET TEST_SOURCE_DIR "/tests/data/convnet/"

static double convnet_quality(qx_ctx *ctx, const char *passes, const char *out)
{
    qx_report *r;
    const char *const samples[] = {CONVNET "sample.npz"};
    qx_quantize_options o = {.input = CONVNET "mobile.onnx", .output = out, .passes = passes, .force = true, .verify = samples,
                             .n_verify = 1};
    o.samples = (qx_samples_options){.paths = samples, .n_paths = 1};
    OK(qx_report_new(ctx, &r));
    if (qx_quantize_file(ctx, &o, r) != QX_OK) fail_msg("%s: %s", passes, qx_ctx_error(ctx));
    const double db = r->outputs[0].sqnr_db;
    print_message("%-40s %.2f dB\n", passes, db);
    qx_report_free(r);
    return db;
}

/* Layers make up for what their inputs lack; 2:4 holds, factors that other passes folded are in both streams, and corrections of
 * biases read what was solved. */
static void in_turn(void **state)
{
    char out[128];
    int64_t all;
    temp_path(out, sizeof out);
    assert_true(convnet_quality(*state, "sparsity(sequential=true),int8", out) > convnet_quality(*state, "sparsity,int8", out) + 0.5);
    assert_true(quality(*state, "sparsity(sequential=true),gptq(sequential=true),nvfp4", out) > 15);
    assert_int_equal(proven(*state, out, &all), 35);
    assert_true(quality(*state, "sparsity(sequential=true)", out) > 16);
    assert_int_equal(proven(*state, out, &all), 35);
    const double plain = quality(*state, "int4(block=128)", out);
    assert_true(quality(*state, "awq,bias-correction,gptq(sequential=true),int4(block=128)", out) > plain + 1);
    unlink(out);
}

static void in_turn_refused(void **state)
{
    static const struct { const char *passes, *resume, *says; } bad[] = {
        {"sparsity(method=wanda,sequential=true)", NULL, "write sparsity(method=sparsegpt)"},
        {"gptq(sequential=true),int4", "/tmp/none.resume", "leave out --resume or sequential"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        qx_report *r;
        qx_quantize_options o = {.input = MODEL "model.onnx", .output = "/tmp/none.onnx", .passes = bad[i].passes,
                                 .resume = bad[i].resume};
        o.samples = (qx_samples_options){.text = MODEL "calib.txt", .tokenizer = MODEL "tokenizer.json", .seq_len = 32, .limit = 1};
        OK(qx_report_new(*state, &r));
        assert_int_equal(qx_quantize_file(*state, &o, r), QX_E_USAGE);
        if (!strstr(qx_ctx_error(*state), bad[i].says)) fail_msg("%s", qx_ctx_error(*state));
        qx_ctx_clear_error(*state);
        qx_report_free(r);
    }
}

/* A MoE's layers read channels of very unequal size: its router takes the factor too, and the probe of the output, which cannot make
 * what the node makes, judges by the layers' errors. */
static double mixture_quality(qx_ctx *ctx, const char *in, const char *passes, qx_target target)
{
    char out[128];
    qx_report *r;
    temp_path(out, sizeof out);
    qx_quantize_options o = {.input = in, .output = out, .passes = passes, .force = true, .target = target};
    o.samples = (qx_samples_options){.random = 16, .seed = 1, .hold_out = true};
    OK(qx_report_new(ctx, &r));
    if (qx_quantize_file(ctx, &o, r) != QX_OK) fail_msg("%s: %s", passes, qx_ctx_error(ctx));
    const double db = r->outputs[0].sqnr_db;
    print_message("%-40s %.2f dB\n", passes, db);
    assert_true(r->n_nodes > 0 && r->n_quantized == 1); /* one node, though it has two layers */
    qx_report_free(r);
    unlink(out);
    return db;
}

static void mixture(void **state)
{
    static const char text[] = "<ir_version: 8, opset_import: [\"\" : 18, \"com.microsoft\" : 1]> g (float[24,32] x) => (float[24,32] y) <float[32] "
        "gamma = {1,90,1,1,1,1,1,60,1,1,1,1,1,1,1,1,1,1,1,120,1,1,1,1,1,1,1,1,1,1,1,1}, float[32,4] router = random(2), "
        "float[4,48,32] up = random(3), float[4,32,48] down = random(4)> { h = Mul(x, gamma) [\"/router/MatMul\"] p = MatMul(h, router)"
        " [\"/moe/MoE\"] y = com.microsoft.MoE<k=2, activation_type=\"silu\", normalize_routing_weights=1>(h, p, up, , down) }";
    char in[160];
    qx_model *m;
    snprintf(in, sizeof in, "/tmp/qonnx_test_algorithms_%ld_in.onnx", (long)getpid());
    OK(qx_model_parse_text(*state, text, &m));
    OK(qx_model_write(m, in, &(qx_write_options){.force = true}, NULL));
    qx_model_free(m);
    const double plain = mixture_quality(*state, in, "int4", QX_TARGET_ORT);
    assert_true(mixture_quality(*state, in, "awq,int4", QX_TARGET_ORT) > plain + 0.5);
    assert_true(mixture_quality(*state, in, "gptq,int4", QX_TARGET_ORT) > plain - 1); /* 32 columns leave little to make up with */
    assert_true(fabs(mixture_quality(*state, in, "int4(block=16)", QX_TARGET_GENERIC) - plain) < 0.01); /* the same codes in another form */
    assert_true(mixture_quality(*state, in, "int8", QX_TARGET_ORT) > 28);
    unlink(in);
}

static void small_floats(void **state)
{
    char out[128];
    temp_path(out, sizeof out);
    const double nv = quality(*state, "nvfp4", out), mx8 = quality(*state, "mxfp8", out), mx4 = quality(*state, "mxfp4", out),
        nv_gptq = quality(*state, "gptq,nvfp4", out);
    assert_true(mx8 > nv && nv > mx4 && nv_gptq > nv);
    unlink(out);
}

static void wrong_order(void **state)
{
    qx_report *r;
    qx_quantize_options o = {.input = MODEL "model.onnx", .output = "/tmp/qonnx_never_written.onnx",
                             .passes = "sparsity,smoothquant,int8", .force = true};
    o.samples = (qx_samples_options){.text = MODEL "calib.txt", .tokenizer = MODEL "tokenizer.json", .seq_len = 64, .limit = 2};
    OK(qx_report_new(*state, &r));
    assert_int_not_equal(qx_quantize_file(*state, &o, r), QX_OK);
    MESSAGE_HAS(*state, "smoothquant");
    assert_int_equal(access("/tmp/qonnx_never_written.onnx", F_OK), -1);
    qx_report_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(weights_only), TEST(activations), TEST(worst_stay_float), TEST(two_of_four),
                                       TEST(in_turn), TEST(in_turn_refused), TEST(mixture),
                                       TEST(small_floats), TEST(wrong_order)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

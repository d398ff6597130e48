/* test_reorder.c - channels in another order leave the float outputs as they were, whatever lies between the products; what
 * pruning would lose falls; where somebody else reads a channel nothing moves. */
#include "unit.h"

#include <unistd.h>

#include "npz_feeds.h"
#include "passes/pipeline.h"
#include "passes/search/reorder.h"

/* How many readers got a new order; every one of them must gain. */
static int64_t reorder(qx_ctx *ctx, qx_model *m)
{
    qx_linears ls;
    qx_reorders all;
    OK(qx_linears_find(m, &ls));
    OK(qx_reorders_find(m, &ls, &all));
    for (int64_t i = 0; i < all.n; i++) {
        double left;
        OK(qx_reorder_apply(m, &all.items[i], &left));
        assert_true(left > 0.3 && left < 0.97);
    }
    OK(qx_verify(m));
    (void)ctx;
    return all.n;
}

static void same_outputs(qx_ctx *ctx, qx_model *m, const feeds *fs, const char *name, int64_t expected)
{
    qx_tensor before, after;
    run_model(ctx, m, fs, &before);
    const int64_t n = reorder(ctx, m);
    run_model(ctx, m, fs, &after);
    const double db = sqnr(&before, &after);
    print_message("%s: %lld readers, %.1f dB\n", name, (long long)n, db);
    assert_int_equal(n, expected);
    assert_true(db > 100);
    qx_tensor_free(ctx, &before);
    qx_tensor_free(ctx, &after);
}

static void file(qx_ctx *ctx, const char *model, const char *sample, int64_t expected)
{
    feeds fs;
    qx_model *m;
    load_feeds(ctx, sample, &fs);
    OK(qx_model_read(ctx, model, NULL, &m));
    same_outputs(ctx, m, &fs, model, expected);
    free_feeds(&(fixture){.ctx = ctx}, &fs);
    qx_model_free(m);
}

#define SAMPLES TEST_SOURCE_DIR "/samples/models/"
#define DATA TEST_SOURCE_DIR "/tests/data/"

static void models(void **state)
{
    file(*state, SAMPLES "micro-llama/model.onnx", SAMPLES "micro-llama/sample.npz", 10); /* down and output projections of five layers */
    file(*state, SAMPLES "llama-dynamo/model.onnx", SAMPLES "llama-dynamo/sample.npz", 6);
    file(*state, SAMPLES "bert/model.onnx", SAMPLES "bert/sample.npz", 4);
    file(*state, DATA "cache/gqa.onnx", DATA "cache/ids.npz", 0); /* values go to a cache that the caller sees */
}

static void text(const char *body, int64_t expected)
{
    fixture f = load(body);
    feeds in;
    make_feeds(&f, &in);
    same_outputs(f.ctx, f.m, &in, "text", expected);
    free_feeds(&f, &in);
    unload(&f);
}

static void forms(void **state)
{
    (void)state;
    text(HEAD(18) "g (float[6,32] x) => (float[6,32] y) <float[32,128] w = random(1), float[64,32] d = random(2), float[128] b = random(3)>"
         " { p = MatMul(x, w) q = Add(p, b) u, g = Split <axis = -1, num_outputs = 2> (q) s = Sigmoid(g) t = Mul(g, s) h = Mul(t, "
         "u) y = MatMul(h, d) }", 1);
    text(HEAD(18) "g (float[1,4,12,12] x) => (float[1,8,3,3] y) <float[32,4,3,3] w = random(1), float[32] b = random(2), "
                  "float[32] s = random(3), float[32] o = random(4), float[32] m = random(5),"
         " float[32] v = {1,2,3,1,2,3,1,2,3,1,2,3,1,2,3,1,2,3,1,2,3,1,2,3,1,2,3,1,2,3,1,2}, float[32,1,1] c = random(7), "
         "float[8,32,3,3] d = random(8)>"
         " { p = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w, b) q = BatchNormalization(p, s, o, m, v) r = LeakyRelu(q) t "
         "= Mul(r, c) k = MaxPool <kernel_shape = [2, 2]> (t) y = Conv <pads = [0, 0, 0, 0]> (k, d) }", 1);
    text(HEAD(18) "g (float[1,4,12,12] x) => (float[1,8,6,6] y) <float[32,4,3,3] w = random(1), float[32] b = random(2), "
                  "float[32,1,1] c = random(7), float[8,32,3,3] d = random(8)>"
         " { p = Conv <pads = [1, 1, 1, 1]> (x, w, b) r = Relu(p) t = Mul(r, c) k = MaxPool <kernel_shape = [2, 2], strides = [2, "
         "2]> (t) y = Conv <pads = [1, 1, 1, 1]> (k, d) }", 1);
    text(HEAD(18) "g (float[6,32] x) => (float[6,32] y) <float[32,64] w = random(1), float[64,32] d = random(2), float[1,64] c = "
                  "random(3), float[64,32] e = random(4)>"
         " { p = MatMul(x, w) q = Add(p, c) r = Relu(q) a = MatMul(r, d) b = MatMul(r, e) y = Add(a, b) }", 0); /* two readers */
    text(HEAD(18) "g (float[6,32] x) => (float[6,32] y) <float[32,64] w = random(1), float[64,32] d = random(2), float[64] c = random(3)>"
         /* a sum over channels on the way */
         " { p = MatMul(x, w) q = Softmax(p) y0 = MatMul(q, d) z = ReduceMean <keepdims = 1> (p) y = Add(y0, z) }", 0);
}

/* What was observed in another order is refused; without an order of its own a job takes what any other has observed. */
static void statistics(void **state)
{
    static const char *const wrong = "sparsity,int8", *const right = "sparsity(permute=off),int8";
    qx_report *r;
    char out[80], stats[80];
    snprintf(out, sizeof out, "/tmp/qonnx_test_reorder_%ld.onnx", (long)getpid());
    snprintf(stats, sizeof stats, "/tmp/qonnx_test_reorder_%ld.stats", (long)getpid());
    qx_quantize_options o = {.input = SAMPLES "bert/model.onnx", .output = out, .passes = "gptq,int8", .force = true, .no_verify = true,
                             .save_gram = true, .save_stats = stats};
    const char *calib = SAMPLES "bert/sample.npz";
    o.samples = (qx_samples_options){.paths = &calib, .n_paths = 1};
    OK(qx_report_new(*state, &r));
    if (qx_quantize_file(*state, &o, r) != QX_OK) fail_msg("%s", qx_ctx_error(*state));
    o = (qx_quantize_options){.input = o.input, .output = o.output, .passes = right, .force = true, .no_verify = true, .load_stats = stats};
    if (qx_quantize_file(*state, &o, r) != QX_OK) fail_msg("%s", qx_ctx_error(*state));
    o.passes = wrong;
    FAILS(qx_quantize_file(*state, &o, r), QX_E_USAGE);
    qx_report_free(r);
    unlink(out);
    unlink(stats);
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(models), TEST(forms), TEST(statistics)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

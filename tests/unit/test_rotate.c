/* test_rotate.c - rotations are exact: the float model's outputs stay, on every Llama-like graph there is, and graphs that cannot
 * be turned are refused by the node that stands in the way. QONNX_MODELS adds real exports. */
#include "unit.h"

#include "onnx/weight/weight.h"
#include "passes/pipeline.h"

#define SAMPLES TEST_SOURCE_DIR "/samples/models/"
#define CACHE TEST_SOURCE_DIR "/tests/data/cache/"

/* A block of a language model without its embedding and its head. */
#define HEAD "<ir_version: 8, opset_import: [\"\" : 17]> g (int64[1,4] ids) => (float[1,4,64] logits) <float[32] g1 = random(2), " \
    "float[32,64] wu = random(3), float[64,32] wd = random(4), float[32] g2 = random(5)"
#define TAIL " n = SimplifiedLayerNormalization<axis=-1, epsilon=0.00001>(h, g1) u = MatMul(n, wu) a = Relu(u) d = MatMul(a, wd) " \
    "r = Add(h, d) n2 = SimplifiedLayerNormalization<axis=-1, epsilon=0.00001>(r, g2) "

static void out_path(char *path, size_t cap) { snprintf(path, cap, "/tmp/qonnx_test_rotate_%ld.onnx", (long)getpid()); }

static qx_status run(qx_ctx *ctx, const char *model, const char *calib, const char *passes, const char *out, qx_report **r)
{
    qx_quantize_options o = {.input = model, .output = out, .passes = passes, .force = true};
    if (calib) o.samples = (qx_samples_options){.paths = &calib, .n_paths = 1};
    if (strstr(model, ".in")) o.samples.random = 2; /* nothing lies beside it */
    OK(qx_report_new(ctx, r));
    return qx_quantize_file(ctx, &o, *r);
}

/* Every output within 1e-4 of the float model's: 80 dB. */
static void exact(qx_ctx *ctx, const char *model, const char *calib, const char *passes, const char *out)
{
    qx_report *r;
    if (run(ctx, model, calib, passes, out, &r) != QX_OK) fail_msg("%s %s: %s", model, passes, qx_ctx_error(ctx));
    assert_true(r->n_outputs > 0);
    for (int64_t i = 0; i < r->n_outputs; i++)
        if (!(r->outputs[i].sqnr_db > 100))
            fail_msg("%s %s: output '%s' has %.1f dB", model, passes, r->outputs[i].name, r->outputs[i].sqnr_db);
    qx_report_free(r);
}

/* The stored weight `name` of both files differs: something was turned. */
static bool differs(qx_ctx *ctx, const char *a, const char *b, const char *name)
{
    uint64_t h[2] = {0, 0};
    const char *const paths[2] = {a, b};
    for (int i = 0; i < 2; i++) {
        qx_model *m;
        OK(qx_model_read(ctx, paths[i], NULL, &m));
        const qx_value *v = qx_graph_find(m->graph, name);
        assert_non_null(v);
        OK(qx_weight_hash(ctx, qx_value_const(v), &h[i]));
        qx_model_free(m);
    }
    return h[0] != h[1];
}

static void bundled(void **state)
{
    char out[128];
    out_path(out, sizeof out);
    exact(*state, SAMPLES "llama-dynamo/model.onnx", NULL, "rotate", out);
    assert_true(differs(*state, SAMPLES "llama-dynamo/model.onnx", out, "m.model.embed_tokens.weight"));
    exact(*state, SAMPLES "llama-dynamo/model.onnx", NULL, "rotate(r1=false)", out);
    assert_false(differs(*state, SAMPLES "llama-dynamo/model.onnx", out, "m.model.embed_tokens.weight"));
    exact(*state, SAMPLES "llama-dynamo/model.onnx", NULL, "rotate(r2=false,seed=7)", out);
    exact(*state, SAMPLES "micro-llama/model.onnx", NULL, "rotate", out);
    exact(*state, CACHE "gqa.onnx", CACHE "ids.npz", "rotate", out);
    exact(*state, CACHE "concat.onnx", CACHE "ids.npz", "rotate", out);
    unlink(out);
}

/* The table of the embedding is the head's too, lies transposed, or both: what the head reads stays as it was. */
static const char *const tables[] = {
    "float[64,32] emb = random(1)> { h = Gather(emb, ids)" TAIL "et = Transpose<perm=[1,0]>(emb) logits = MatMul(n2, et) }",
    "float[32,64] emb = random(1)> { e = Transpose<perm=[1,0]>(emb) h = Gather(e, ids)" TAIL "logits = MatMul(n2, emb) }",
    "float[32,64] emb = random(1), float[32,64] head = random(6)> { e = Transpose<perm=[1,0]>(emb) h = Gather(e, ids)" TAIL
    "logits = MatMul(n2, head) }",
};

static void embeddings(void **state)
{
    char path[144], text[1024], out[128];
    out_path(out, sizeof out);
    snprintf(path, sizeof path, "%s.in", out);
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        qx_model *m;
        snprintf(text, sizeof text, "%s, %s", HEAD, tables[i]);
        if (qx_model_parse_text(*state, text, &m) != QX_OK) fail_msg("%s", qx_ctx_error(*state));
        OK(qx_model_write(m, path, &(qx_write_options){.force = true}, NULL));
        qx_model_free(m);
        exact(*state, path, NULL, "rotate", out);
    }
    unlink(path);
    unlink(out);
}

static void real_exports(void **state)
{
    static const char *const names[] = {"llama", "llama-with-past", "mistral", "gemma"};
    const char *folder = getenv("QONNX_MODELS");
    char out[128], path[512];
    if (!folder) {
        print_message("QONNX_MODELS is not set\n");
        skip();
    }
    out_path(out, sizeof out);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s/model.onnx", folder, names[i]);
        if (access(path, R_OK) == 0) exact(*state, path, NULL, "rotate", out);
    }
    unlink(out);
}

static void refuse(qx_ctx *ctx, const char *model, const char *passes, const char *part)
{
    qx_report *r;
    char out[128];
    out_path(out, sizeof out);
    qx_ctx_clear_error(ctx);
    assert_int_not_equal(run(ctx, model, NULL, passes, out, &r), QX_OK);
    MESSAGE_HAS(ctx, part);
    assert_int_equal(access(out, F_OK), -1);
    qx_report_free(r);
}

static void refused(void **state)
{
    refuse(*state, SAMPLES "gpt3-dynamo/model.onnx", "rotate", "rotate cannot turn the residual stream");
    refuse(*state, SAMPLES "bert/model.onnx", "rotate,int4", "rotate cannot turn the residual stream");
    refuse(*state, TEST_SOURCE_DIR "/tests/data/mlp/model.onnx", "rotate", "there is no embedding");
    refuse(*state, SAMPLES "llama-dynamo/model.onnx", "rotate(r1=false,r2=false)", "does nothing");
    refuse(*state, SAMPLES "llama-dynamo/model.onnx", "int8-weights,rotate", "must come before the format");
    refuse(*state, SAMPLES "llama-dynamo/model.onnx", "smoothquant,rotate,int8", "write \"rotate,smoothquant,...\"");
}

/* Statistics of a turned model are not those of the model: a file of one is refused for the other. */
static void statistics_apart(void **state)
{
    qx_report *r;
    char out[128], stats[144];
    out_path(out, sizeof out);
    snprintf(stats, sizeof stats, "%s.stats", out);
    qx_quantize_options o = {.input = CACHE "gqa.onnx", .output = out, .passes = "rotate,int8", .force = true, .save_stats = stats,
                             .no_verify = true};
    const char *calib = CACHE "ids.npz";
    o.samples = (qx_samples_options){.paths = &calib, .n_paths = 1};
    OK(qx_report_new(*state, &r));
    if (qx_quantize_file(*state, &o, r) != QX_OK) fail_msg("%s", qx_ctx_error(*state));
    o.save_stats = NULL;
    o.load_stats = stats;
    o.samples = (qx_samples_options){0};
    if (qx_quantize_file(*state, &o, r) != QX_OK) fail_msg("%s", qx_ctx_error(*state));
    o.passes = "int8";
    FAILS(qx_quantize_file(*state, &o, r), QX_E_USAGE);
    qx_report_free(r);
    unlink(out);
    unlink(stats);
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(bundled), TEST(embeddings), TEST(real_exports), TEST(refused), TEST(statistics_apart)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

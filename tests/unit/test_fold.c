/* test_fold.c - folding a random factor into every group of linears leaves the float outputs as they were: norms, rows of the
 * linear before, packed projections, repeated key/value heads, experts with their router, and the Mul that stays where nothing
 * else fits. */
#include "unit.h"

#include "npz_feeds.h"
#include "passes/search/fold.h"

static float factor_at(int64_t i)
{
    return 0.5f + (float)((uint32_t)(i * 2654435761u + 12345u) >> 8 & 1023) / 682.0f; /* 0.5 .. 2 */
}

/* Statistics are asked for and collected, because folding rescales them. */
static void collect(qx_ctx *ctx, qx_model *m, qx_stats *stats, const qx_group *groups, int64_t n, const feeds *fs)
{
    qx_exec *x;
    qx_tensor out;
    const char *name = m->graph->outputs[0]->name;
    for (int64_t i = 0; i < n; i++) OK(qx_group_want(&groups[i], stats, QX_STAT_RANGE | QX_STAT_CHANNELS | QX_STAT_ROWS));
    OK(qx_exec_new(ctx, m, NULL, &x));
    OK(qx_stats_attach(stats, x));
    OK(qx_exec_run(x, fs->f, fs->n, &name, 1, &out));
    OK(qx_stats_finish(stats));
    qx_exec_free(x);
    qx_tensor_free(ctx, &out);
}

/* A factor of its own for every group; how many groups took it without a Mul. */
static int fold_groups(qx_ctx *ctx, qx_pipeline *p, qx_stats *stats, qx_group *groups, int64_t n)
{
    int folded = 0;
    for (int64_t i = 0; i < n; i++) {
        qx_fold f;
        float *s;
        OK(QX_NEW_ARRAY(ctx, groups[i].k, &s));
        for (int64_t j = 0; j < groups[i].k; j++) s[j] = factor_at(i * 7919 + j);
        qx_fold_find(p, &groups[i], &f);
        qx_fold_constrain(&f, groups[i].k, s);
        OK(qx_fold_apply(p->passes[0], &groups[i], &f, s, stats));
        folded += f.kind != QX_FOLD_MUL;
        qx_free(ctx, s);
    }
    return folded;
}

/* The statistics that were scaled say of every value that a linear reads what running the folded model says of it. */
static void statistics_follow(qx_ctx *ctx, qx_model *m, const qx_stats *scaled, qx_group *groups, int64_t n, const feeds *fs)
{
    qx_stats *seen;
    OK(qx_stats_new(ctx, m->graph_hash, &seen));
    collect(ctx, m, seen, groups, n, fs);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < groups[i].n; j++) {
            const qx_value *rows = groups[i].items[j]->lin->rows;
            const qx_value_stats *a = qx_stats_get(scaled, rows), *b = qx_stats_get(seen, rows);
            assert_true(a && b && b->absmax > 0);
            if (fabsf(a->absmax - b->absmax) > 1e-4f * b->absmax)
                fail_msg("'%s': the largest value is said to be %g and is %g", rows->name, (double)a->absmax, (double)b->absmax);
        }
    qx_stats_free(seen);
}

typedef struct outcome { int64_t groups, largest; int folded; } outcome; /* largest: operators in one group */

/* Frees the model. */
static outcome fold_model(qx_ctx *ctx, const char *name, qx_model *m, const feeds *fs, double least_db)
{
    qx_pipeline *p;
    qx_stats *stats;
    qx_group *groups;
    qx_tensor before, after;
    outcome out = {0};
    run_model(ctx, m, fs, &before);
    OK(qx_stats_new(ctx, m->graph_hash, &stats));
    OK(qx_pipeline_parse(ctx, "int8", &p));
    const qx_quantize_options opt = {.target = QX_TARGET_GENERIC};
    OK(qx_pipeline_plan(p, m, &opt, stats));
    OK(qx_groups_find(p, &groups, &out.groups));
    for (int64_t i = 0; i < out.groups; i++) out.largest = groups[i].n > out.largest ? groups[i].n : out.largest;
    collect(ctx, m, stats, groups, out.groups, fs);
    out.folded = fold_groups(ctx, p, stats, groups, out.groups);
    OK(qx_plan_store_rest(p));
    OK(qx_verify(m));
    run_model(ctx, m, fs, &after);
    statistics_follow(ctx, m, stats, groups, out.groups, fs);
    const double db = sqnr(&before, &after);
    print_message("%s: %d of %lld groups folded without a Mul, %.1f dB\n", name, out.folded, (long long)out.groups, db);
    assert_true(db >= least_db);
    qx_tensor_free(ctx, &before);
    qx_tensor_free(ctx, &after);
    qx_stats_free(stats);
    qx_pipeline_free(p);
    qx_model_free(m);
    return out;
}

/* Returns how many groups were folded into something other than a Mul. */
static int fold_all(qx_ctx *ctx, const char *folder, double least_db)
{
    char path[512], sample[512];
    feeds fs = {.n = 0};
    qx_model *m;
    snprintf(path, sizeof path, "%s/samples/models/%s/model.onnx", TEST_SOURCE_DIR, folder);
    snprintf(sample, sizeof sample, "%s/samples/models/%s/sample.npz", TEST_SOURCE_DIR, folder);
    load_feeds(ctx, sample, &fs);
    OK(qx_model_read(ctx, path, NULL, &m));
    const outcome out = fold_model(ctx, folder, m, &fs, least_db);
    assert_true(out.groups > 3);
    free_feeds(&(fixture){.ctx = ctx}, &fs);
    return out.folded;
}

static void llama(void **state)
{
    assert_int_equal(fold_all(*state, "micro-llama", 100), 21);
}

static void dynamo_llama(void **state)
{
    assert_true(fold_all(*state, "llama-dynamo", 100) >= 13);
}

static void dynamo_gpt(void **state)
{
    assert_true(fold_all(*state, "gpt3-dynamo", 100) >= 6);
}

static void encoder(void **state)
{
    (void)fold_all(*state, "bert", 100);
}

static void diffusion_transformer(void **state)
{
    (void)fold_all(*state, "sd3-mmdit-dynamo", 90);
}

/* Rows of the norm's output reach the router, two experts of each token (matrices picked by number, gate and up in one) and a
 * shared expert, by ways of their own. %s: how the experts multiply and take their halves. */
#define EXPERTS(weights, body) \
    "<ir_version: 8, opset_import: [\"\" : 18]> g (float[6,32] x) => (float[6,32] y) <float[32] gamma = random(1), float[4,32] wr = random(2), " weights \
    ", float[32,48] sg = random(5), float[48,32] sd = random(6), int64[1] two = {2}, int64[1] one = {1}, int64[1] last = {-1}, int64[3] each = {1,2,1}, int64[2] rows = {12,32}, int64[2] column = {12,1}, int64[3] back = {6,2,32}," \
    " int64[1] zero = {0}, int64[1] middle = {48}, int64[1] end = {96}> {" \
    " h = Mul(x, gamma) flat = Reshape(h, wide) r = Gemm<transB=1>(flat, wr) p = Softmax(r) mix, chosen = TopK(p, two) number = Reshape(chosen, column)" \
    " h3 = Unsqueeze(h, one) many = Tile(h3, each) tokens = Reshape(many, rows) " body \
    " outs = Reshape(out, back) by = Unsqueeze(mix, last) parts = Mul(outs, by) sum = ReduceSum<keepdims=0>(parts, one) s1 = MatMul(h, sg) s2 = Relu(s1) s3 = MatMul(s2, sd) y = Add(sum, s3) }"
#define LEFT "float[4,96,32] up = random(3), float[4,32,48] down = random(4), int64[2] wide = {6,32}"
#define RIGHT "float[4,32,96] up = random(3), float[4,48,32] down = random(4), int64[2] wide = {6,32}"
#define GATED " act = Sigmoid(a) silu = Mul(a, act) z = Mul(silu, b)"

static const struct { const char *name, *text; int64_t groups, largest; int folded; } routed[] = {
    {"W x, Split", EXPERTS(LEFT, "wu = GatherND(up, number) t1 = Unsqueeze(tokens, last) u1 = MatMul(wu, t1) u = Squeeze(u1, "
                                 "last) a, b = Split<axis=-1, num_outputs=2>(u)" GATED
                                 " wd = GatherND(down, number) z1 = Unsqueeze(z, last) d1 = MatMul(wd, z1) out = Squeeze(d1, last)"), 3,
                                 3, 3},
    {"W x, Slices", EXPERTS(LEFT, "id = Squeeze(number, last) wu = Gather(up, id) t1 = Unsqueeze(tokens, last) u1 = MatMul(wu, "
                                  "t1) u = Squeeze(u1, last) a = Slice(u, zero, middle, one) b = Slice(u, middle, end, one)" GATED
                                  " wd = Gather(down, id) z1 = Unsqueeze(z, last) d1 = MatMul(wd, z1) out = Squeeze(d1, last)"), 3, 3, 3},
    {"x W", EXPERTS(RIGHT, "wu = GatherND(up, number) t1 = Unsqueeze(tokens, one) u1 = MatMul(t1, wu) u = Squeeze(u1, one) a, b = "
                           "Split<axis=-1, num_outputs=2>(u)" GATED
                           " wd = GatherND(down, number) z1 = Unsqueeze(z, one) d1 = MatMul(z1, wd) out = Squeeze(d1, one)"), 3, 3, 3},
    {"overlapping Slices", EXPERTS(LEFT, "wu = GatherND(up, number) t1 = Unsqueeze(tokens, last) u1 = MatMul(wu, t1) u = "
                                         "Squeeze(u1, last) a = Slice(u, zero, middle, one) b = Slice(u, zero, middle, one)" GATED
                                         " wd = GatherND(down, number) z1 = Unsqueeze(z, last) d1 = MatMul(wd, z1) out = "
                                         "Squeeze(d1, last)"), 3, 3, 2},
    {"a MoE", "<ir_version: 8, opset_import: [\"\" : 18, \"com.microsoft\" : 1]> g (float[6,32] x) => (float[6,32] y) <float[32] gamma = "
              "random(1), float[32,4] wr = random(2), float[4,48,32] up = random(3), float[4,32,48] down = random(4), float[4,48,32] gate = "
              "random(5)> { h = Mul(x, gamma) p = MatMul(h, wr) y = com.microsoft.MoE<k=2, activation_type=\"silu\">(h, p, up, , down, , "
              "gate) }", 1, 3, 1},
    {"one expert after the other", "<ir_version: 8, opset_import: [\"\" : 18]> g (float[6,32] x) => (float[6,32] y) <float[32] "
                                   "gamma = random(1), float[32,3] wr = random(2), float[32,48] u0 = random(3), float[48,32] d0 = random(4),"
     " float[32,48] u1 = random(5), float[48,32] d1 = random(6), int64[4] t0 = {0,2,3,5}, int64[3] t1 = {1,2,4}, int64[4,1] to0 = "
     "{0,2,3,5}, int64[3,1] to1 = {1,2,4}>"
     " { h = Mul(x, gamma) r = MatMul(h, wr) x0 = Gather(h, t0) a0 = MatMul(x0, u0) b0 = Relu(a0) c0 = MatMul(b0, d0) x1 = "
     "Gather(h, t1) a1 = MatMul(x1, u1) b1 = Relu(a1) c1 = MatMul(b1, d1)"
     " s0 = ScatterND<reduction=\"add\">(x, to0, c0) s1 = ScatterND<reduction=\"add\">(s0, to1, c1) m = ReduceMean(r) y = Add(s1, m) }",
     3, 3, 3},
    {"the norm is read beside", "<ir_version: 8, opset_import: [\"\" : 18]> g (float[6,32] x) => (float[6,48] y) <float[32] gamma "
                                "= random(1), float[32,48] w = random(2), int64[2] wide = {6,32}>"
     " { h = Mul(x, gamma) r = Reshape(h, wide) a = MatMul(r, w) m = ReduceMean(h) y = Add(a, m) }", 1, 1, 0},
    {"channels are picked", "<ir_version: 8, opset_import: [\"\" : 18]> g (float[6,64] x) => (float[6,48] y) <float[64] gamma = "
                            "random(1), float[32,48] w = random(2), int64[32] odd = {1,3,5,7,9,11,13,15,17,19,21,23,25,27,29,31,33,35,37,39,41,43,45,47,49,51,53,55,57,59,61,63}>"
     " { h = Mul(x, gamma) r = Gather<axis=1>(h, odd) y = MatMul(r, w) }", 1, 1, 0},
};

static void experts(void **state)
{
    for (size_t i = 0; i < sizeof routed / sizeof *routed; i++) {
        fixture f = {.ctx = *state};
        feeds fs;
        if (qx_model_parse_text(f.ctx, routed[i].text, &f.m) != QX_OK) fail_msg("%s: %s", routed[i].name, qx_ctx_error(f.ctx));
        make_feeds(&f, &fs);
        const outcome out = fold_model(f.ctx, routed[i].name, f.m, &fs, 100);
        if (out.groups != routed[i].groups || out.largest != routed[i].largest || out.folded != routed[i].folded)
            fail_msg("%s: %lld groups, the largest of %lld, %d folded", routed[i].name, (long long)out.groups, (long long)out.largest,
                     out.folded);
        free_feeds(&f, &fs);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(experts), TEST(llama), TEST(dynamo_llama), TEST(dynamo_gpt), TEST(encoder), TEST(diffusion_transformer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* test_fold.c - folding a random factor into every group of linears leaves the float outputs as they were: norms, rows of the linear before, packed
 * projections, repeated key/value heads, and the Mul that stays where nothing else fits. */
#include "unit.h"

#include <math.h>
#include <stdio.h>

#include "calib/data/samples.h"
#include "passes/search/fold.h"
#include "runtime/exec.h"

enum { MAX = 16 };

typedef struct feeds { qx_tensor t[MAX]; qx_feed f[MAX]; int n; } feeds;

static void load_feeds(qx_ctx *ctx, const char *path, feeds *fs)
{
    qx_npz *z;
    OK(qx_npz_open(ctx, path, &z));
    fs->n = qx_npz_count(z);
    assert_true(fs->n <= MAX);
    static char names[MAX][128];
    for (int i = 0; i < fs->n; i++) {
        OK(qx_npz_read(z, i, &fs->t[i]));
        snprintf(names[i], sizeof names[i], "%s", qx_npz_name(z, i));
        fs->f[i] = (qx_feed){names[i], &fs->t[i]};
    }
    qx_npz_close(z);
}

static void run_model(qx_ctx *ctx, qx_model *m, const feeds *fs, qx_tensor *out)
{
    qx_exec *x;
    OK(qx_exec_new(ctx, m, &(qx_exec_options){.no_fuse = true}, &x));
    const char *name = m->graph->outputs[0]->name;
    OK(qx_exec_run(x, fs->f, fs->n, &name, 1, out));
    qx_exec_free(x);
}

static float factor_at(int64_t i)
{
    return 0.5f + (float)((uint32_t)(i * 2654435761u + 12345u) >> 8 & 1023) / 682.0f; /* 0.5 .. 2 */
}

static double sqnr(const qx_tensor *a, const qx_tensor *b)
{
    double s = 0, e = 0;
    assert_int_equal(a->numel, b->numel);
    for (int64_t i = 0; i < a->numel; i++) {
        const double x = (double)((const float *)a->data)[i], d = x - (double)((const float *)b->data)[i];
        s += x * x;
        e += d * d;
    }
    return 10 * log10(s / fmax(e, 1e-300));
}

/* Statistics are asked for and collected, because folding rescales them. */
static void collect(qx_ctx *ctx, qx_model *m, qx_stats *stats, const qx_group *groups, int64_t n, const feeds *fs)
{
    qx_exec *x;
    qx_tensor out;
    const char *name = m->graph->outputs[0]->name;
    for (int64_t i = 0; i < n; i++) OK(qx_stats_want(stats, &(qx_stat_request){.value = groups[i].x, .kinds = QX_STAT_RANGE | QX_STAT_CHANNELS | QX_STAT_ROWS, .axis = -1}));
    OK(qx_exec_new(ctx, m, NULL, &x));
    OK(qx_stats_attach(stats, x, m));
    OK(qx_exec_run(x, fs->f, fs->n, &name, 1, &out));
    OK(qx_stats_finish(stats));
    qx_exec_free(x);
    qx_tensor_free(ctx, &out);
}

/* Returns how many groups were folded into something other than a Mul. */
static int fold_all(qx_ctx *ctx, const char *folder, double least_db)
{
    char path[512], sample[512];
    feeds fs = {.n = 0};
    qx_model *m;
    qx_pipeline *p;
    qx_stats *stats;
    qx_group *groups;
    int64_t n;
    qx_tensor before, after;
    int folded = 0;
    snprintf(path, sizeof path, "%s/samples/models/%s/model.onnx", TEST_SOURCE_DIR, folder);
    snprintf(sample, sizeof sample, "%s/samples/models/%s/sample.npz", TEST_SOURCE_DIR, folder);
    load_feeds(ctx, sample, &fs);
    OK(qx_model_read(ctx, path, NULL, &m));
    run_model(ctx, m, &fs, &before);
    OK(qx_stats_new(ctx, m->graph_hash, &stats));
    OK(qx_pipeline_parse(ctx, "int8", &p));
    const qx_quantize_options opt = {.target = QX_TARGET_GENERIC};
    OK(qx_pipeline_plan(p, m, &opt, stats));
    OK(qx_groups_find(p, &groups, &n));
    assert_true(n > 3);
    collect(ctx, m, stats, groups, n, &fs);
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
    OK(qx_plan_store_rest(p));
    OK(qx_verify(m));
    run_model(ctx, m, &fs, &after);
    const double db = sqnr(&before, &after);
    print_message("%s: %d of %lld groups folded without a Mul, %.1f dB\n", folder, folded, (long long)n, db);
    assert_true(db >= least_db);
    qx_tensor_free(ctx, &before);
    qx_tensor_free(ctx, &after);
    for (int i = 0; i < fs.n; i++) qx_tensor_free(ctx, &fs.t[i]);
    qx_stats_free(stats);
    qx_pipeline_free(p);
    qx_model_free(m);
    return folded;
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(llama), TEST(dynamo_llama), TEST(dynamo_gpt), TEST(encoder), TEST(diffusion_transformer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

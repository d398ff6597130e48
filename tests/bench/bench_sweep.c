/* bench_sweep.c - what calibration costs beside running the model: bench_sweep MODEL INPUTS.npz [ROUNDS [THREADS]] runs one
 * sample by turns plainly (all outputs, as `qonnx run` does) and with the inputs of all linear operators observed, once for each
 * set of statistics, and prints the least processor time of each and its ratio to the plain run's. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "calib/stats/observer.h"
#include "passes/linear/linear.h"

enum { RANGE = QX_STAT_RANGE, INT8 = RANGE | QX_STAT_HISTOGRAM, ROWS = QX_STAT_CHANNELS | QX_STAT_ROWS, GRAM = QX_STAT_GRAM };
/* sparse: of Gram matrices as many rows as half of the stream has */
typedef struct kind { const char *name; uint32_t kinds; bool sparse; } kind;
static const kind list[] = {
    {"nothing, as far as the last linear operator", 0, false},
    {"range", RANGE, false},
    {"range, histogram (int8)", INT8, false},
    {"range, channels, rows (awq,int4)", RANGE | ROWS, false},
    {"range, histogram, channels, rows (smoothquant,int8)", INT8 | ROWS, false},
    {"range, Gram matrices (gptq,int4)", RANGE | GRAM, false},
    {"range, Gram matrices of every other row", RANGE | GRAM, true},
    {"all of them (smoothquant,gptq,int8)", INT8 | ROWS | GRAM, false},
};
enum { KINDS = sizeof list / sizeof *list, MOST = 64, RUNS = 2 }; /* runs: half as many rows make a whole block in two */

typedef struct bench {
    qx_ctx *ctx;
    qx_tensor in[MOST];
    qx_feed feeds[MOST];
    qx_value **watched; int n, n_watched;
    qx_observer *observers;  /* [KINDS][n_watched] */
    int now;                 /* the set that observes */
} bench;

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static qx_status load(bench *b, qx_npz *z)
{
    for (; b->n < (int)qx_npz_count(z) && b->n < MOST; b->n++) {
        QX_TRY(qx_npz_read(z, b->n, &b->in[b->n]));
        b->feeds[b->n] = (qx_feed){qx_npz_name(z, b->n), &b->in[b->n]};
    }
    return QX_OK;
}

static qx_status observe(void *user, int watch, const qx_value *v, const qx_tensor *t)
{
    const bench *b = user;
    (void)v;
    return list[b->now].kinds ? qx_observer_add(b->ctx, &b->observers[b->now * b->n_watched + watch], t, 0) : QX_OK;
}

/* Inputs of operators that a format would quantize; what several read, once. The head of a language model is not among them. */
static qx_status find_watched(bench *b, qx_model *m)
{
    qx_linears all;
    QX_TRY(qx_linears_find(m, &all));
    QX_TRY(QX_NEW_ARRAY(b->ctx, all.count + 1, &b->watched));
    QX_TRY(QX_NEW_ARRAY(b->ctx, KINDS * (all.count + 1), &b->observers));
    const qx_linear *of[all.count + 1];
    for (int64_t i = 0; i < all.count; i++) {
        const qx_linear *l = &all.items[i];
        bool seen = !l->rows || l->x->graph != m->graph || l->node->out[0]->is_output;
        for (int w = 0; w < b->n_watched && !seen; w++) seen = b->watched[w] == l->x;
        if (!seen) of[b->n_watched] = l, b->watched[b->n_watched++] = l->x;
    }
    for (int k = 0; k < KINDS; k++)
        for (int w = 0; w < b->n_watched; w++)
            b->observers[k * b->n_watched + w] = (qx_observer){.name = b->watched[w]->name, .doing = list[k].kinds,
                                                               .axis = of[w]->is_conv ? 1 : -1, .has_window = of[w]->is_conv,
                                                               .window = of[w]->window, .rows_cap = QX_ROWS_DEFAULT,
                                                                   .thin_gram = {.every = list[k].sparse ? 2 : 0}};
    return QX_OK;
}

static qx_status run_plainly(bench *b, qx_exec *x, const qx_graph *g)
{
    qx_tensor out[MOST];
    if (g->n_outputs > MOST) QX_FAIL(b->ctx, QX_E_UNSUPPORTED, "%u outputs", g->n_outputs);
    QX_TRY(qx_exec_run(x, b->feeds, b->n, NULL, (int)g->n_outputs, out));
    for (uint32_t i = 0; i < g->n_outputs; i++) qx_tensor_free(b->ctx, &out[i]);
    return QX_OK;
}

static qx_status measure(bench *b, qx_model *m, qx_exec *plain, qx_exec *watched, int rounds)
{
    static const char *const none[1] = {NULL};
    double best[KINDS + 1];
    for (int r = -1; r < rounds; r++) /* the first packs weights and makes room */
        for (int k = 0; k <= KINDS; k++) {
            b->now = k;
            const double t = seconds();
            for (int i = 0; i < RUNS; i++)
                QX_TRY(k == KINDS ? run_plainly(b, plain, m->graph) : qx_exec_run(watched, b->feeds, b->n, none, 0, NULL));
            const double took = (seconds() - t) / RUNS;
            if (r < 1 || took < best[k]) best[k] = took;
        }
    printf("%-60s %8.1f ms\n", "plain run, all outputs", 1e3 * best[KINDS]);
    for (int k = 0; k < KINDS; k++) printf("%-60s %8.1f ms %6.3f\n", list[k].name, 1e3 * best[k], best[k] / best[KINDS]);
    return QX_OK;
}

static qx_status run(bench *b, const char *model, const char *inputs, int rounds)
{
    qx_model *m;
    qx_npz *z;
    qx_exec *plain, *watched;
    qx_exec_options eo = {.device = QX_DEVICE_CPU};
    QX_TRY(qx_model_read(b->ctx, model, NULL, &m));
    QX_TRY(qx_infer_shapes(m, NULL, 0));
    QX_TRY(qx_npz_open(b->ctx, inputs, &z));
    QX_TRY(load(b, z));
    QX_TRY(find_watched(b, m));
    QX_TRY(qx_exec_new(b->ctx, m, &eo, &plain));
    eo.only_watched = true;
    QX_TRY(qx_exec_new(b->ctx, m, &eo, &watched));
    QX_TRY(qx_exec_watch(watched, b->watched, b->n_watched, observe, b));
    printf("%d inputs of linear operators\n", b->n_watched);
    return measure(b, m, plain, watched, rounds);
}

int main(int argc, char **argv)
{
    const qx_ctx_options o = {.threads = argc > 4 ? atoi(argv[4]) : 1};
    bench b = {.ctx = qx_ctx_new(&o)};
    if (argc < 3 || !b.ctx) return fprintf(stderr, "bench_sweep MODEL INPUTS.npz [ROUNDS [THREADS]]\n"), 2;
    if (run(&b, argv[1], argv[2], argc > 3 ? atoi(argv[3]) : 5) == QX_OK) return 0;
    fprintf(stderr, "bench_sweep: %s\n", qx_ctx_error(b.ctx));
    return 1;
}

/* time.c - says before the work about how long it will take: operations, counted from the graph and the shapes of the first
 * sample, over what a core does at a product that it is given now. What else costs time counts as operations too, by shares that were
 * measured on language models and convolution networks (docs/calibration.md). Other work on the machine is not foreseen. */
#include <math.h>
#include <time.h>

#include "kernels/dot.h"
#include "passes/job/job.h"
#include "passes/search/probe.h"
#include "passes/search/sequence.h"

/* Operations of the product below that take as long as: an operation of a run's products; a byte of a run's results; a byte that
 * is observed; an operation of a Gram matrix; a byte of weights that is read and packed; n k^2 of a solver; a weight that is
 * rounded and written. */
static const double run_flop = 1.1, run_byte = 16, seen_byte = 10, gram_flop = 1.0, packed_byte = 25, solved_nk2 = 26,
                    written_weight = 150;
static const double start_seconds = 0.1;
enum { CANDIDATES = 12, JUDGED_ROWS = 160, JUDGED_WEIGHTS = 512 }; /* of a search of factors, as far as all weights are looked at */
static const double probe_runs = 4; /* runs of whole samples that effects on the output take */

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Operations a second of this thread, by the best of a few products of a millisecond. */
static qx_status measure_core(qx_ctx *ctx, double *out)
{
    enum { M = 128, N = 256, K = 512, ROUNDS = 5 };
    float *a;
    double best = INFINITY;
    *out = 0;
    QX_TRY(qx_alloc_array(ctx, (size_t)(M * K + N * K + M * N), sizeof *a, (void **)&a));
    for (int i = 0; i < M * K + N * K; i++) a[i] = (float)(i % 13) - 6;
    for (int r = 0; r < ROUNDS; r++) {
        const double since = cpu_seconds();
        qx_gemm_nt(M, N, K, a, K, a + M * K, K, a + M * K + N * K, N);
        best = fmin(best, cpu_seconds() - since);
    }
    qx_free(ctx, a);
    *out = best > 0 ? 2.0 * M * N * K / best : 0;
    return QX_OK;
}

static double run_work(const qx_exec_need *n) { return run_flop * n->flops + run_byte * n->moved; }

static double solve_work(const qx_pipeline *p, const qx_stats *stats)
{
    double sum = 0;
    for (int64_t i = 0; i < p->plan->n_weights; i++) {
        const qx_plan_weight *w = &p->plan->weights[i];
        const double k = (double)qx_solved_columns(p, stats, w);
        sum += solved_nk2 * (double)w->tensor->numel * k;
        if (w->spec.codes) sum += written_weight * (double)w->tensor->numel;
    }
    return sum;
}

static bool searches(const qx_pipeline *p)
{
    for (int i = 0; i < p->n_passes; i++)
        if (p->passes[i]->def->flags & (QX_PASS_FOR_X | QX_PASS_FOR_FLOAT_X)) return true;
    return false;
}

static double search_work(const qx_pipeline *p, const qx_stats *stats)
{
    double sum = 0;
    for (int64_t i = 0; i < p->plan->linears.count && searches(p); i++) {
        const qx_linear *l = p->plan->items[i].lin;
        if (!p->plan->items[i].weight || l->is_conv || !qx_stats_wanted(stats, l->x, NULL, QX_STAT_ROWS)) continue;
        sum += 2.0 * CANDIDATES * JUDGED_ROWS * (double)(l->n < JUDGED_WEIGHTS ? l->n : JUDGED_WEIGHTS) * (double)l->k;
    }
    return sum;
}

static double all_weights(const qx_plan *plan)
{
    double n = 0;
    for (int64_t i = 0; i < plan->n_weights; i++) n += (double)plan->weights[i].tensor->numel;
    return n;
}

double qx_seconds_forecast(const qx_pipeline *p, const qx_stats *stats, const qx_work *w)
{
    double core;
    const double samples = p->shapes ? (double)qx_samples_count(p->shapes) : 0, weights = all_weights(p->plan);
    if (measure_core(p->ctx, &core) != QX_OK || !(core > 0)) return qx_ctx_clear_error(p->ctx), 0;
    double work = samples * (run_work(&w->sweep->run) + seen_byte * w->sweep->observed) + gram_flop * w->sweep->gram_flops +
        packed_byte * (double)w->sweep->run.weights + solve_work(p, stats) + search_work(p, stats);
    if (w->probes) work += probe_runs * (double)qx_probe_samples((int64_t)weights) * run_work(w->run);
    const double verified = fmin(fmax(samples / 16, 2), 8);
    if (w->verifies) work += 2 * (verified * run_work(w->run) + packed_byte * (double)w->run->weights);
    return start_seconds + work / core / qx_ctx_threads(p->ctx);
}

const char *qx_seconds_without(const qx_pipeline *p)
{
    const char *names = NULL;
    for (int i = 0; i < p->n_passes; i++) {
        if (!(p->passes[i]->def->flags & QX_PASS_UNTIMED)) continue;
        names = qx_arena_printf(p->arena, "%s%s%s", names ? names : "", names ? ", " : "", p->passes[i]->def->name);
        if (!names) return NULL;
    }
    if (!qx_sequence_bytes(p)) return names;
    return qx_arena_printf(p->arena, "%s%ssequential", names ? names : "", names ? ", " : "");
}

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
 * is observed; an operation of a Gram matrix; a byte of weights that is read and packed to be kept, or for one use; n k^2 of a
 * solver, and n k of it (scales, codes, refinement); a weight that is rounded and written. */
static const double run_flop = 1.1, run_byte = 16, seen_byte = 10, gram_flop = 1.0, packed_byte = 25, streamed_byte = 60,
                    solved_nk2 = 15, solved_nk = 10000, written_weight = 150;
static const double written_pack = 0.5; /* of packing the float model's weights, of those that were written */
static const double start_seconds = 0.1;
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

/* Weights are packed once for all runs, or for each, then in pages that the kernel clears anew. */
static double pack_work(const qx_exec_need *n, double runs)
{
    return n->packed * (n->streamed ? streamed_byte * runs : packed_byte);
}

/* All sweeps; but for Gram matrices everything is observed in the first. */
static double sweep_work(const qx_stats_need *n, double samples)
{
    const double sweeps = (double)n->sweeps;
    return sweeps * samples * run_work(&n->run) + samples * seen_byte * n->observed + gram_flop * n->gram_flops +
        (n->layered ? streamed_byte * n->run.packed * sweeps : pack_work(&n->run, sweeps * samples));
}

static double solve_work(const qx_pipeline *p, const qx_stats *stats)
{
    double sum = 0;
    for (int64_t i = 0; i < p->plan->n_weights; i++) {
        const qx_plan_weight *w = &p->plan->weights[i];
        const double k = (double)qx_solved_columns(p, stats, w);
        if (k > 0) sum += (solved_nk2 * k + solved_nk) * (double)w->tensor->numel;
        if (w->spec.codes) sum += written_weight * (double)w->tensor->numel;
    }
    return sum;
}

static double passes_work(const qx_pipeline *p, const qx_stats *stats)
{
    double sum = 0;
    for (int i = 0; i < p->n_passes; i++)
        if (p->passes[i]->def->work) sum += p->passes[i]->def->work(p->passes[i], stats);
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
    double work = sweep_work(w->sweep, samples) + solve_work(p, stats) + passes_work(p, stats);
    const double probed = w->probes ? probe_runs * (double)qx_probe_samples((int64_t)weights) : 0;
    work += probed * run_work(w->run) + (probed > 0 && w->run->streamed ? pack_work(w->run, probed) : 0);
    const double verified = fmin(fmax(samples / 16, 2), 8);
    if (w->verifies) work += (1 + written_pack) * pack_work(w->run, verified) + 2 * verified * run_work(w->run);
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

/* memory.c - says before the work what memory it will take: every stage from the plan, the shapes of the first sample and what
 * was asked of calibration. Where --max-memory makes a stage work in pieces (layer by layer, several sweeps for Gram matrices,
 * weights read for each use), the pieces count. A job that cannot fit ends here, with the number that it needs. */
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "passes/job/job.h"
#include "passes/search/sequence.h"

/* program, libraries and what the heap keeps, more where the library for convolutions makes its code; plan and scratch of an
 * executor: as measured; what a thread reads of a weight while it is packed (runtime/cpu/matmul/pack.c) */
enum { PROCESS = 16 << 20, CONVOLUTIONS = 7 << 20, RUN_ROOM = 1 << 20, PACK_ROOM = 1 << 20 };
enum { WORTH_TELLING = 256 << 20 }; /* of less a line says it when asked (--verbose, --dry-run) */
enum { DOUBT = 8 }; /* a forecast may be wrong by one part in so many */
enum { TILE_ROOM = 8 << 20, TILE_BYTES = 12 }; /* what a thread that codes weights holds, at most; and for each of them */

typedef struct forecast {
    qx_pipeline *p;
    qx_report *report;
    const qx_feed *feeds; int n_feeds;
    int64_t base;          /* there already: graph and plan */
    qx_stats_need stats;
    qx_exec_need run;      /* of the float model from end to end */
} forecast;

static qx_status say(forecast *f, const char *stage, int64_t bytes)
{
    const int64_t cap = (int64_t)qx_ctx_max_memory(f->p->ctx), all = f->base + bytes;
    char need[32], limit[32];
    QX_TRY(qx_report_add_forecast(f->report, stage, all));
    if (!cap || all <= cap) return QX_OK;
    qx_format_bytes(all, need, sizeof need);
    qx_format_bytes(cap, limit, sizeof limit);
    if (all / DOUBT * (DOUBT - 1) <= cap)
        return qx_warn(f->p->ctx, "stage '%s' will take about %s, --max-memory is %s: it may not be enough", stage, need, limit), QX_OK;
    QX_FAIL(f->p->ctx, QX_E_BUDGET, "stage '%s' needs about %s, --max-memory is %s: raise it, or give shorter samples (--seq-len)%s",
            stage, need, limit,
            strcmp(stage, "verify") == 0 ? "; --no-verify leaves the stage out" : "");
}

static int64_t process_bytes(const qx_plan *plan)
{
    bool conv = false;
    for (int64_t i = 0; i < plan->linears.count; i++) conv = conv || plan->linears.items[i].is_conv;
    return PROCESS + (conv ? CONVOLUTIONS : 0);
}

static qx_status tell(const forecast *f)
{
    const char *worst = "";
    char text[32];
    qx_report *r = f->report;
    const int64_t process = process_bytes(f->p->plan);
    for (int64_t i = 0; i < r->n_forecast; i++)
        if (r->forecast[i].bytes + process > r->expected_bytes)
            r->expected_bytes = r->forecast[i].bytes + process, worst = r->forecast[i].stage;
    qx_log(f->p->ctx, r->expected_bytes >= WORTH_TELLING ? QX_LOG_INFO : QX_LOG_DEBUG, "memory: about %s, most of it to %s%s",
           qx_format_bytes(r->expected_bytes, text, sizeof text), worst,
           f->run.unknown || f->stats.unknown ? " (sizes of some results are guessed)" : "");
    return QX_OK;
}

static qx_status sweep_need(forecast *f, qx_stats *stats, qx_exec *exec)
{
    const int64_t samples = f->p->shapes ? qx_samples_count(f->p->shapes) : 1;
    return qx_stats_forecast(stats, exec, f->feeds, f->n_feeds, samples, &f->stats);
}

static qx_status run_need(forecast *f, qx_stats *stats, qx_exec *exec)
{
    (void)stats;
    (void)qx_exec_want_outputs(exec, true);
    return qx_exec_forecast(exec, f->feeds, f->n_feeds, NULL, &f->run);
}

/* As calibration and verification will open it, on the CPU: a device has its own memory. Operators without a kernel are told by
 * who needs them. */
static qx_status with_exec(forecast *f, qx_stats *stats, qx_status (*fn)(forecast *, qx_stats *, qx_exec *))
{
    qx_exec *exec = NULL;
    const qx_exec_options eo = {.device = QX_DEVICE_CPU, .only_watched = true};
    qx_status st = qx_exec_new(f->p->ctx, f->p->model, &eo, &exec);
    if (st == QX_OK) st = fn(f, stats, exec);
    qx_exec_free(exec);
    if (st == QX_E_UNSUPPORTED) return qx_ctx_clear_error(f->p->ctx), QX_OK;
    return st;
}

/* ---- writing ---- */

/* As the writer has it: jobs of fewer elements run side by side, one a thread. */
enum { BIG_JOB = 8 << 20 };

int64_t qx_solved_columns(const qx_pipeline *p, const qx_stats *stats, const qx_plan_weight *w)
{
    const qx_plan *plan = p->plan;
    if (!w->spec.codes) return 0;
    for (int64_t i = 0; i < plan->linears.count; i++) {
        const qx_linear *l = plan->items[i].lin;
        if (plan->items[i].weight == w && l->rows && qx_stats_wanted(stats, l->rows, qx_linear_window(l), QX_STAT_GRAM))
            return qx_view_k(&l->view);
    }
    return 0;
}

/* Codes that wait for their last row: a panel's; all where codes of less than a byte lie in rows of an odd length. */
static int64_t waiting_codes(const qx_plan_weight *w)
{
    enum { PANEL_BYTES = 16 << 20 }; /* as onnx/weight/job_run.c has it */
    const int64_t n = w->tensor->numel;
    const bool whole = qx_dtype_bits(w->spec.codes) < 8 && w->view.n % 2;
    return whole || n < PANEL_BYTES ? n : PANEL_BYTES;
}

/* Of one weight, and of each thread that has rows of it. A solver has H in its order and the factor, and a tile of rows several times. */
typedef struct coding { int64_t job, thread; } coding;
static coding coding_of(const forecast *f, const qx_stats *stats, const qx_plan_weight *w)
{
    enum { SOLVED_ROWS = 32, COPIES = 10 };
    const int64_t n = w->tensor->numel, tile = n * TILE_BYTES < TILE_ROOM ? n * TILE_BYTES : TILE_ROOM;
    const int64_t k = f->stats.largest_gram ? qx_solved_columns(f->p, stats, w) : 0;
    const int64_t h = k * k * (int64_t)sizeof(float), most = f->stats.largest_gram;
    return (coding){waiting_codes(w) + 2 * (h < most ? h : most), tile + SOLVED_ROWS * COPIES * k * (int64_t)sizeof(float)};
}

static int by_size(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x < y) - (x > y);
}

/* The largest jobs that may run side by side, or a big one with all threads. */
static qx_status writing(const forecast *f, const qx_stats *stats, int64_t *out)
{
    const qx_plan *plan = f->p->plan;
    const int64_t threads = qx_ctx_threads(f->p->ctx);
    int64_t *small, n = 0, together = 0;
    QX_TRY(qx_alloc_array(f->p->ctx, (size_t)plan->n_weights + 1, sizeof *small, (void **)&small));
    *out = 0;
    for (int64_t i = 0; i < plan->n_weights; i++) {
        if (!plan->weights[i].spec.codes) continue;
        const coding c = coding_of(f, stats, &plan->weights[i]);
        if (plan->weights[i].tensor->numel < BIG_JOB) small[n++] = c.job + c.thread;
        else if (c.job + threads * c.thread > *out) *out = c.job + threads * c.thread;
    }
    qsort(small, (size_t)n, sizeof *small, by_size);
    for (int64_t i = 0; i < n && i < threads; i++) together += small[i];
    qx_free(f->p->ctx, small);
    if (together > *out) *out = together;
    return QX_OK;
}

/* Candidates of a search of factors: their copies of the judged rows, and the weights that judge (passes/search/candidates.c). */
static int64_t searching(const qx_pipeline *p, const qx_stats *stats)
{
    enum { CANDIDATES = 8, ROWS = 160, WEIGHTS = 1024 };
    int64_t k = 0;
    for (int64_t i = 0; i < p->plan->linears.count; i++) {
        const qx_linear *l = p->plan->items[i].lin;
        if (l->k > k && qx_stats_wanted(stats, l->x, NULL, QX_STAT_ROWS)) k = l->k;
    }
    return (CANDIDATES * ROWS + WEIGHTS) * k * (int64_t)sizeof(float);
}

/* Both streams have their activations, and the inputs that are being compared twice. */
static int64_t in_turn(const forecast *f)
{
    const int64_t bytes = qx_sequence_bytes(f->p);
    return bytes ? f->stats.kept + bytes + 2 * f->run.activations : 0;
}

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

static int64_t scale_bytes(const qx_plan_weight *w)
{
    const int64_t rows = qx_view_k(&w->view) > 0 ? w->tensor->numel / qx_view_k(&w->view) : 1;
    return (w->spec.block > 0 ? w->tensor->numel / w->spec.block : rows) * qx_dtype_bits(w->spec.scale) / 8;
}

static bool is_first_item(const qx_plan *plan, int64_t i)
{
    for (int64_t k = 0; k < i; k++)
        if (plan->items[k].weight == plan->items[i].weight) return false;
    return true;
}

/* Weights of the written model: what an executor counts to decide whether they are kept, and what they take then. Floats, FP8 and
 * filters whose input is not quantized are kept as float32, other codes as they are stored. */
typedef struct kept { int64_t counted, packed; } kept;

static void keep_weight(const qx_pipeline *p, kept *k, const qx_weight *w, int64_t sign)
{
    k->counted += sign * qx_exec_counted_bytes(p->ctx, w, false);
    k->packed += sign * (qx_dtype_is_float(w->dtype) ? qx_exec_float_bytes(w, true) : (int64_t)w->bytes);
}

static kept written_weights(const qx_pipeline *p)
{
    const qx_graph *g = p->model->graph;
    kept k = {0, 0};
    for (uint32_t i = 0; i < g->n_inits; i++)
        if (g->inits[i]->init) keep_weight(p, &k, g->inits[i]->init, 1);
    for (int64_t i = 0; i < p->plan->linears.count; i++) {
        const qx_plan_item *it = &p->plan->items[i];
        const qx_plan_weight *w = it->weight;
        const bool codes = it->pass && w && w->spec.codes && !qx_dtype_is_float(w->spec.codes) && !(it->lin->is_conv && !it->act);
        if (!codes || !w->value->init || (w->items > 1 && !is_first_item(p->plan, i))) continue;
        const int64_t bytes = w->tensor->numel * qx_dtype_bits(w->spec.codes) / 8 + scale_bytes(w);
        keep_weight(p, &k, w->tensor, -1);
        k.counted += bytes;
        k.packed += bytes;
    }
    return k;
}

/* Where the float model's weights are read for each use, the written one's may be few enough to be kept. */
static int64_t verified_weights(const forecast *f)
{
    const kept k = written_weights(f->p);
    return qx_exec_would_stream(f->p->ctx, (uint64_t)larger(k.counted, 0)) ? f->run.weights : larger(f->run.weights, k.packed);
}

/* ---- all of it ---- */

static void tell_time(const forecast *f, const qx_stats *stats, bool probes, bool verifies)
{
    const char *without = qx_seconds_without(f->p);
    f->report->expected_seconds = qx_seconds_forecast(f->p, stats, &(qx_work){&f->stats, &f->run, probes, verifies});
    f->report->expected_without = without ? qx_arena_strdup(f->report->arena, without) : NULL;
}

qx_status qx_job_forecast(qx_pipeline *p, qx_stats *stats, bool sweeps, bool verifies, qx_report *report)
{
    const bool probes = sweeps && qx_pipeline_probes(p);
    int64_t code = 0;
    forecast f = {.p = p, .report = report, .base = (int64_t)qx_mem_in_use(p->ctx)};
    if (p->shapes) QX_TRY(qx_samples_get(p->shapes, 0, &f.feeds, &f.n_feeds));
    if (sweeps) QX_TRY(with_exec(&f, stats, sweep_need));
    QX_TRY(writing(&f, stats, &code));
    if (p->shapes && (verifies || probes || qx_sequence_bytes(p))) QX_TRY(with_exec(&f, stats, run_need));
    const int64_t outputs = 2 * f.run.outputs; /* of a run, beside those that it is compared with */
    const int64_t room = RUN_ROOM + qx_ctx_threads(p->ctx) * (int64_t)PACK_ROOM;
    const int64_t passing = f.run.activations + larger(f.run.scratch, f.stats.run.scratch) + outputs;
    const int64_t run = f.run.weights ? f.run.weights + passing + room : 0;
    if (f.stats.sweep) QX_TRY(say(&f, "calibrate", f.stats.sweep + room));
    if (probes && run) QX_TRY(say(&f, "choose", f.stats.kept + run - passing + larger(passing, searching(p, stats))));
    if (in_turn(&f)) QX_TRY(say(&f, "rewrite", in_turn(&f) + room));
    QX_TRY(say(&f, "write", f.stats.kept + f.stats.grams + code));
    const int64_t graphs = 2 * f.base; /* both are read from their files */
    if (verifies && run) QX_TRY(say(&f, "verify", run - f.run.weights + verified_weights(&f) + graphs));
    if (sweeps) tell_time(&f, stats, probes, verifies);
    return tell(&f);
}

/* memory.c - says before the work what memory it will take: every stage from the plan, the shapes of the first sample and what
 * was asked of calibration. Where --max-memory makes a stage work in pieces (layer by layer, several sweeps for Gram matrices,
 * weights read for each use), the pieces count. A job that cannot fit ends here, with the number that it needs. */
#include <string.h>

#include "base/text.h"
#include "passes/job/job.h"

/* program, libraries and what the heap keeps; plan and scratch of an executor: as measured; what a thread reads of a weight
 * while it is packed (runtime/cpu/pack.c) */
enum { PROCESS = 20 << 20, RUN_ROOM = 3 << 20, PACK_ROOM = 1 << 20 };
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

static qx_status tell(const forecast *f)
{
    const char *worst = "";
    char text[32];
    qx_report *r = f->report;
    for (int64_t i = 0; i < r->n_forecast; i++)
        if (r->forecast[i].bytes + PROCESS > r->expected_bytes)
            r->expected_bytes = r->forecast[i].bytes + PROCESS, worst = r->forecast[i].stage;
    qx_log(f->p->ctx, r->expected_bytes >= WORTH_TELLING ? QX_LOG_INFO : QX_LOG_DEBUG, "memory: about %s, most of it to %s%s",
           qx_format_bytes(r->expected_bytes, text, sizeof text), worst,
           f->run.unknown || f->stats.unknown ? " (sizes of some results are guessed)" : "");
    return QX_OK;
}

static qx_status sweep_need(forecast *f, qx_stats *stats, qx_exec *exec)
{
    return qx_stats_forecast(stats, exec, f->feeds, f->n_feeds, &f->stats);
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

/* Codes of a whole weight may wait for their last row; factoring H takes two more of it. */
static int64_t writing(const forecast *f)
{
    const qx_plan *plan = f->p->plan;
    int64_t codes = 0;
    for (int64_t i = 0; i < plan->n_weights; i++)
        if (plan->weights[i].spec.codes && plan->weights[i].tensor->numel > codes) codes = plan->weights[i].tensor->numel;
    return codes + 2 * f->stats.largest_gram + qx_ctx_threads(f->p->ctx) * (codes * TILE_BYTES < TILE_ROOM ? codes * TILE_BYTES
        : TILE_ROOM);
}

qx_status qx_memory_forecast(qx_pipeline *p, qx_stats *stats, bool sweeps, bool verifies, qx_report *report)
{
    const bool probes = sweeps && qx_pipeline_probes(p);
    forecast f = {.p = p, .report = report, .base = (int64_t)qx_mem_in_use(p->ctx)};
    if (p->shapes) QX_TRY(qx_samples_get(p->shapes, 0, &f.feeds, &f.n_feeds));
    if (sweeps) QX_TRY(with_exec(&f, stats, sweep_need));
    if (p->shapes && (verifies || probes)) QX_TRY(with_exec(&f, stats, run_need));
    const int64_t outputs = 2 * f.run.outputs; /* of a run, beside those that it is compared with */
    const int64_t room = RUN_ROOM + qx_ctx_threads(p->ctx) * (int64_t)PACK_ROOM;
    const int64_t run = f.run.weights ? f.run.weights + f.run.activations + outputs + room : 0;
    if (f.stats.sweep) QX_TRY(say(&f, "calibrate", f.stats.sweep + room));
    if (probes && run) QX_TRY(say(&f, "choose", f.stats.kept + run));
    QX_TRY(say(&f, "write", f.stats.kept + f.stats.grams + writing(&f)));
    if (verifies && run) QX_TRY(say(&f, "verify", run + 2 * f.base)); /* both graphs are read from their files */
    return tell(&f);
}

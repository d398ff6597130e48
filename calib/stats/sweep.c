/* sweep.c - one sweep over the samples feeds every observer. Statistics that are there already (loaded) are not collected again.
 *
 * Gram matrices that do not fit the memory budget are collected in several sweeps over the same samples; those of finished sweeps
 * are moved to an unnamed file on disk and mapped, so that the budget holds for the whole job. */
#include "calib/stats/sweep.h"

#include <string.h>
#include <strings.h>

#include "base/text.h"

/* Value of the timestep input of these feeds: the one whose name says so; 0 when there is none. */
static double step_of(const qx_feed *feeds, int n)
{
    for (int i = 0; i < n; i++) {
        const qx_tensor *t = feeds[i].tensor;
        if (!strcasestr(feeds[i].name, "timestep") && strcasecmp(feeds[i].name, "t") && !strcasestr(feeds[i].name, "sigma")) continue;
        float v;
        int64_t whole;
        if (t->numel < 1 || !t->data) continue;
        if (t->dtype == QX_DT_INT64) return memcpy(&whole, t->data, sizeof whole), (double)whole;
        if (qx_to_f32(t->dtype, t->data, 1, &v)) return (double)v;
    }
    return 0;
}

/* ---- layer by layer ---- */

typedef struct layered { qx_stats *s; qx_samples *samples; int64_t first; } layered;

static qx_status layer_feeds(void *user, int64_t i, const qx_feed **feeds, int *n)
{
    const layered *l = user;
    QX_TRY(qx_samples_get(l->samples, l->first + i, feeds, n));
    l->s->step = step_of(*feeds, *n);
    l->s->runs = l->first + i;
    return QX_OK;
}

qx_status qx_sweep_stretch(const qx_stats *s, qx_exec *exec, int64_t *weights, int64_t *largest, int64_t *budget)
{
    size_t cap = qx_ctx_max_memory(s->ctx), used = qx_mem_in_use(s->ctx), rest = cap > used ? cap - used : 0;
    *budget = 0;
    QX_TRY(qx_exec_weight_bytes(exec, weights, largest));
    if (cap && strcmp(qx_exec_device_name(exec), "cpu") == 0 && *weights > (int64_t)(rest / 2)) *budget = (int64_t)(rest / 8) + 1;
    return QX_OK;
}

static void say_layered(const qx_stats *s, int64_t weights, int64_t budget)
{
    char a[32], b[32];
    qx_log(s->ctx, QX_LOG_INFO, "weights of %s do not fit the memory limit: layer by layer, %s at a time",
           qx_format_bytes(weights, a, sizeof a), qx_format_bytes(budget, b, sizeof b));
}

static qx_status run_sample(qx_stats *s, qx_exec *exec, qx_samples *samples, int64_t i)
{
    static const char *const none[1] = {NULL};
    const qx_feed *feeds;
    int n;
    QX_TRY(qx_samples_get(samples, i, &feeds, &n));
    s->step = step_of(feeds, n);
    s->runs = i;
    return qx_exec_run(exec, feeds, n, none, 0, NULL);
}

/* All samples but the `first`, which a checkpoint has seen. */
static qx_status run_samples(qx_stats *s, qx_exec *exec, qx_samples *samples, int64_t first)
{
    const int64_t n = qx_samples_count(samples);
    for (int64_t i = first; i < n; i++) {
        qx_progress(s->ctx, "calibrate", i, n);
        QX_TRY(qx_check_cancel(s->ctx));
        QX_TRY(run_sample(s, exec, samples, i));
        if (i + 1 < n && qx_checkpoint_due(s)) QX_TRY(qx_checkpoint_write(s, &(qx_mark){.samples = i + 1}));
    }
    qx_progress(s->ctx, "calibrate", n, n);
    return QX_OK;
}

/* What was observed so far, and the activations that go on, are a checkpoint. */
static qx_status between_layers(void *user, qx_sweep_mark *mark, const qx_spool *activations, bool *kept)
{
    const layered *l = user;
    if (!qx_checkpoint_due(l->s)) return QX_OK;
    QX_TRY(qx_spool_hash(activations, mark->bytes, &mark->hash));
    QX_TRY(qx_checkpoint_write(l->s, &(qx_mark){l->first, *mark}));
    *kept = true;
    return QX_OK;
}

/* Where a checkpoint had come to with fewer weights in memory is gone on from layer by layer in any case. */
static qx_status sweep(qx_stats *s, qx_exec *exec, qx_samples *samples, const qx_mark *mark)
{
    int64_t weights, largest, budget;
    layered l = {s, samples, mark->samples};
    QX_TRY(qx_sweep_stretch(s, exec, &weights, &largest, &budget));
    if (budget) say_layered(s, weights, budget);
    if (!budget && mark->layers.steps) budget = weights + 1;
    const bool keeps = s->checkpoint.path != NULL;
    const qx_sweep_job job = {.samples = qx_samples_count(samples) - l.first, .weight_budget = budget, .get = layer_feeds,
                              .between = keeps ? between_layers : NULL, .user = &l,
                              .keep = s->checkpoint.activations, .from = mark->layers};
    QX_TRY(budget ? qx_exec_sweep(exec, &job) : run_samples(s, exec, samples, l.first));
    return qx_watch_finish(s);
}

/* Shows what a run and everything but Gram matrices takes; what it collects is thrown away. */
static qx_status measure(qx_stats *s, qx_exec *exec, qx_samples *samples)
{
    int64_t weights, largest, budget;
    qx_watch_start(s, QX_STAT_GRAM);
    QX_TRY(qx_sweep_stretch(s, exec, &weights, &largest, &budget));
    layered l = {s, samples, 0};
    return budget ? qx_exec_sweep(exec, &(qx_sweep_job){.samples = 1, .weight_budget = budget, .get = layer_feeds, .user = &l})
        : run_sample(s, exec, samples, 0);
}

/* ---- as many sweeps as it takes ---- */

qx_status qx_stats_park(qx_stats *s, size_t least)
{
    for (int64_t i = 0; i < qx_stats_count(s); i++) {
        qx_entry *e = qx_stats_entry_at(s, i);
        if (!(e->o.have & QX_STAT_GRAM) || (size_t)(e->o.gram.groups * e->o.gram.k * e->o.gram.k) * sizeof(float) < least) continue;
        QX_TRY(qx_gram_spill(s->ctx, &e->o.gram));
        e->o.view.gram = e->o.gram.full;
        e->o.view.gram_file = e->o.gram.disk;
    }
    return QX_OK;
}

static void say_part(const qx_stats *s, int part, size_t need, size_t budget, size_t bytes)
{
    char a[32], b[32], c[32];
    qx_format_bytes((int64_t)need, a, sizeof a);
    if (bytes == need) qx_log(s->ctx, QX_LOG_DEBUG, "Gram matrices take %s", a);
    else
        qx_log(s->ctx, QX_LOG_INFO, "Gram matrices take %s and %s are free: sweep %d collects %s of them", a,
               qx_format_bytes((int64_t)budget, b, sizeof b), part, qx_format_bytes((int64_t)bytes, c, sizeof c));
}

/* Sweeps over all samples until all is there: one, or as many as the Gram matrices need to fit into the budget. Where a
 * checkpoint had come to is gone on from. */
static qx_status sweep_all(qx_stats *s, qx_exec *exec, qx_samples *samples, size_t budget)
{
    const size_t need = qx_grams_need(s);
    qx_mark mark;
    bool any;
    qx_watch_start(s, QX_STAT_GRAM);
    QX_TRY(qx_checkpoint_begin(s, s->described, qx_samples_count(samples), &mark));
    for (int part = 1;; part++, mark = (qx_mark){0}) {
        if (!mark.samples && !mark.layers.steps) (void)qx_grams_choose(s, budget, QX_STAT_GRAM);
        const size_t bytes = qx_grams_on(s, &any);
        if (!any) return qx_checkpoint_end(s), QX_OK;
        if (bytes > budget)
            QX_FAIL(s->ctx, QX_E_USAGE, "%s: a checkpoint of a sweep with more memory (%zu bytes of Gram matrices, %zu fit now): "
                                        "give --max-memory as then, or remove it", s->checkpoint.path, bytes, budget);
        say_part(s, part, need, budget, bytes);
        QX_TRY(sweep(s, exec, samples, &mark));
        if (bytes == need) continue;
        QX_TRY(qx_stats_park(s, 0));
        if (qx_watch_wanted(s) && qx_checkpoint_due(s)) QX_TRY(qx_checkpoint_write(s, &(qx_mark){0}));
    }
}

qx_status qx_stats_collect(qx_stats *s, qx_exec *exec, qx_samples *samples)
{
    if (!qx_watch_wanted(s)) return QX_OK;
    if (qx_samples_count(samples) < 1) QX_FAIL(s->ctx, QX_E_USAGE, "statistics are wanted, but there are no samples");
    if (!(s->described = qx_arena_strdup(s->arena, qx_samples_describe(samples)))) return QX_E_NOMEM;
    bool outputs = qx_exec_want_outputs(exec, false);
    QX_TRY(qx_watch_pending(s, exec));
    qx_stats_expect(s, qx_samples_count(samples));
    size_t need = qx_grams_need(s), cap = qx_ctx_max_memory(s->ctx), in_use = qx_mem_in_use(s->ctx);
    bool plenty = need == 0 || (cap ? need < (cap - (in_use < cap ? in_use : cap)) / 16 : need < qx_gram_budget(s, exec));
    qx_status st = plenty ? QX_OK : measure(s, exec, samples);
    if (st == QX_OK) st = sweep_all(s, exec, samples, plenty ? SIZE_MAX : qx_grams_drop(s, exec));
    (void)qx_stats_take_grams(s, false); /* left behind by a sweep that failed */
    qx_exec_want_outputs(exec, outputs);
    qx_status off = qx_exec_watch(exec, NULL, 0, NULL, NULL);
    return st == QX_OK ? off : st;
}

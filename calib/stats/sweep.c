/* sweep.c - one sweep over the samples feeds every observer. Statistics that are there already (loaded) are not collected again.
 *
 * Gram matrices that do not fit the memory budget are collected in several sweeps over the same samples; those of finished sweeps
 * are moved to an unnamed file on disk and mapped, so that the budget holds for the whole job. */
#include "calib/stats/store.h"

#include "base/text.h"

#include <math.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

/* ---- watching ---- */

/* Where the tensor lies, when all that is wanted can be had there; on the host otherwise. */
static qx_status add(qx_stats *s, qx_observer *o, const qx_value *v, const qx_tensor **t)
{
    bool taken = false;
    if ((*t)->on_device) {
        QX_TRY(qx_observer_add_on_device(s->ctx, s->watching, o, *t, s->step, s->runs, &taken));
        if (taken) return QX_OK;
        QX_TRY(qx_exec_fetch(s->watching, v, t));
    }
    return qx_observer_add(s->ctx, o, *t, s->step);
}

static qx_status observed(void *user, int watch, const qx_value *v, const qx_tensor *t)
{
    qx_stats *s = user;
    for (qx_entry *e = s->watched[watch]; e; e = e->next) {
        if (!e->o.doing) continue;
        qx_status st = add(s, &e->o, v, &t);
        if (st == QX_OK) continue;
        return qx_note(s->ctx, st, "sample %lld, node '%s' (%s)", (long long)s->runs, v->def && *v->def->name ? v->def->name : "(input)",
                       v->def ? v->def->op_type : "input");
    }
    return QX_OK;
}

/* One watch a value; entries of the same value (other windows) are chained. */
static qx_status watch_pending(qx_stats *s, qx_exec *exec)
{
    int64_t n = qx_stats_count(s);
    qx_value **values;
    qx_free(s->ctx, s->watched);
    s->watched = NULL;
    s->n_watched = 0;
    QX_TRY(QX_NEW_ARRAY(s->ctx, n + 1, &s->watched));
    QX_TRY(QX_NEW_ARRAY(s->ctx, n + 1, &values));
    for (int64_t i = 0; i < n; i++) {
        qx_entry *e = qx_stats_entry_at(s, i);
        if (!e->value || !(e->o.want & ~e->o.have)) continue;
        int at = 0;
        while (at < s->n_watched && values[at] != e->value) at++;
        if (at == s->n_watched) values[s->n_watched++] = (qx_value *)(uintptr_t)e->value;
        e->next = s->watched[at];
        s->watched[at] = e;
    }
    qx_status st = qx_exec_watch(exec, values, s->n_watched, observed, s);
    s->watching = exec;
    if (st == QX_OK) qx_exec_watch_in_place(exec, true);
    qx_free(s->ctx, values);
    return st;
}

static bool pending(const qx_stats *s)
{
    for (int64_t i = 0; i < qx_stats_count(s); i++) {
        const qx_entry *e = qx_stats_entry_at(s, i);
        if (e->value && (e->o.want & ~e->o.have)) return true;
    }
    return false;
}

/* What is incomplete is collected from the start: a range of some samples and a histogram of others would not belong together. */
static void start_all(qx_stats *s, uint32_t without)
{
    for (int w = 0; w < s->n_watched; w++)
        for (qx_entry *e = s->watched[w]; e; e = e->next) {
            e->o.want |= e->o.have;
            qx_observer_reset(s->ctx, &e->o);
            e->o.thin_rows.runs = e->o.thin_gram.runs = s->expected;
            e->o.doing = e->o.want & ~without;
        }
}

qx_status qx_stats_take_grams(qx_stats *s, bool wanted)
{
    qx_status st = QX_OK;
    for (int w = 0; w < s->n_watched; w++)
        for (qx_entry *e = s->watched[w]; e; e = e->next) {
            const qx_status one = qx_gram_take(s->ctx, s->watching, &e->o.gram, wanted && st == QX_OK);
            if (st == QX_OK) st = one;
        }
    return st;
}

static qx_status finish_all(qx_stats *s)
{
    QX_TRY(qx_stats_take_grams(s, true));
    for (int w = 0; w < s->n_watched; w++)
        for (qx_entry *e = s->watched[w]; e; e = e->next)
            if (e->o.doing) QX_TRY(qx_observer_finish(s->ctx, &e->o));
    return QX_OK;
}

/* ---- for a caller that runs the model itself ---- */

qx_status qx_stats_attach(qx_stats *s, qx_exec *exec, qx_model *m)
{
    if (m->graph_hash && s->model_hash && m->graph_hash != s->model_hash)
        QX_FAIL(s->ctx, QX_E_USAGE, "statistics of model %016llx are attached to model %016llx", (unsigned long long)s->model_hash,
                (unsigned long long)m->graph_hash);
    QX_TRY(watch_pending(s, exec));
    start_all(s, 0);
    s->exec = exec;
    s->runs = 0;
    return QX_OK;
}

void qx_stats_expect(qx_stats *s, int64_t runs)
{
    s->expected = runs;
    for (int w = 0; w < s->n_watched; w++)
        for (qx_entry *e = s->watched[w]; e; e = e->next) e->o.thin_rows.runs = e->o.thin_gram.runs = runs;
}

void qx_stats_set_step(qx_stats *s, double timestep) { s->step = timestep; }

qx_status qx_stats_finish(qx_stats *s)
{
    if (!s->exec) return QX_OK;
    qx_status st = qx_exec_watch(s->exec, NULL, 0, NULL, NULL);
    s->exec = NULL;
    return st == QX_OK ? finish_all(s) : st;
}

/* ---- sweeping over samples ---- */

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

/* Weights of one stretch when the model's do not fit the cap; 0: they fit. */
static qx_status layer_budget(const qx_stats *s, qx_exec *exec, int64_t *weights, int64_t *largest, int64_t *budget)
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
    QX_TRY(layer_budget(s, exec, &weights, &largest, &budget));
    if (budget) say_layered(s, weights, budget);
    if (!budget && mark->layers.steps) budget = weights + 1;
    const bool keeps = s->checkpoint.path != NULL;
    const qx_sweep_job job = {.samples = qx_samples_count(samples) - l.first, .weight_budget = budget, .get = layer_feeds,
                              .between = keeps ? between_layers : NULL, .user = &l,
                              .keep = s->checkpoint.activations, .from = mark->layers};
    QX_TRY(budget ? qx_exec_sweep(exec, &job) : run_samples(s, exec, samples, l.first));
    return finish_all(s);
}

/* Shows what a run and everything but Gram matrices takes; what it collects is thrown away. */
static qx_status measure(qx_stats *s, qx_exec *exec, qx_samples *samples)
{
    int64_t weights, largest, budget;
    start_all(s, QX_STAT_GRAM);
    QX_TRY(layer_budget(s, exec, &weights, &largest, &budget));
    layered l = {s, samples, 0};
    return budget ? qx_exec_sweep(exec, &(qx_sweep_job){.samples = 1, .weight_budget = budget, .get = layer_feeds, .user = &l})
        : run_sample(s, exec, samples, 0);
}

/* ---- the memory budget of Gram matrices ---- */

/* Columns are only known from the data when the graph has no shape for the value. */
typedef size_t gram_size_fn(int64_t k, int64_t groups);

static size_t gram_size(const qx_entry *e, gram_size_fn *size)
{
    const qx_type *t = &e->value->type;
    if (!(e->o.want & QX_STAT_GRAM) || t->kind != QX_KIND_TENSOR || !t->has_shape || t->rank < 1) return 0;
    int64_t dims[QX_MAX_RANK];
    if (t->rank > QX_MAX_RANK) return 0;
    for (int d = 0; d < t->rank; d++) dims[d] = t->dims[d].n;
    int64_t k = qx_rows_length(t->rank, dims, e->o.has_window ? &e->o.window : NULL),
        groups = e->o.has_window && e->o.window.group > 1 ? e->o.window.group : 1;
    return k > 0 && k % groups == 0 ? size(k / groups, groups) : 0;
}

static size_t gram_need(const qx_entry *e) { return gram_size(e, qx_gram_bytes); }

static size_t grams_need(const qx_stats *s)
{
    size_t sum = 0;
    for (int w = 0; w < s->n_watched; w++)
        for (const qx_entry *e = s->watched[w]; e; e = e->next) sum += gram_need(e);
    return sum;
}

static size_t largest_extra(const qx_stats *s)
{
    size_t most = 0;
    for (int w = 0; w < s->n_watched; w++)
        for (const qx_entry *e = s->watched[w]; e; e = e->next)
            most = gram_size(e, qx_gram_extra) > most ? gram_size(e, qx_gram_extra) : most;
    return most;
}

/* Memory that Gram matrices may take: what is left of the cap once a sample has run, or three quarters of the machine's memory. */
static size_t gram_budget(const qx_stats *s, const qx_exec *exec)
{
    size_t cap = qx_ctx_max_memory(s->ctx), used = qx_mem_in_use(s->ctx) + qx_exec_peak_bytes(exec) + largest_extra(s);
    if (cap) return cap > used ? (cap - used) / 10 * 9 : 0;
    long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    size_t total = pages > 0 && size > 0 ? (size_t)pages * (size_t)size / 4 * 3 : SIZE_MAX;
    return total > used ? total - used : 0;
}

static qx_entry *largest_gram(const qx_stats *s)
{
    qx_entry *most = NULL;
    for (int w = 0; w < s->n_watched; w++)
        for (qx_entry *e = s->watched[w]; e; e = e->next)
            if (gram_need(e) > (most ? gram_need(most) : 0)) most = e;
    return most;
}

/* Gram matrices that no sweep could hold are not collected; who asked for them does without. What is left for the others: */
static size_t drop_too_large(qx_stats *s, const qx_exec *exec)
{
    size_t budget;
    for (qx_entry *e; (budget = gram_budget(s, exec), e = largest_gram(s)) && gram_need(e) > budget;) {
        char a[32], b[32];
        qx_warn(s->ctx, "the Gram matrix of '%s' takes %s, %s are left of the memory budget: not collected, its weights are "
                        "rounded to nearest or pruned by size; --max-memory allows more", e->o.name,
                qx_format_bytes((int64_t)gram_need(e), a, sizeof a), qx_format_bytes((int64_t)budget, b, sizeof b));
        e->o.want &= ~(uint32_t)QX_STAT_GRAM;
    }
    return budget;
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

/* The next Gram matrices that fit, in bytes, and switched on: `on` is QX_STAT_GRAM, or 0 to be told alone. */
static size_t choose_grams(const qx_stats *s, size_t budget, uint32_t on)
{
    size_t bytes = 0;
    for (int w = 0; w < s->n_watched; w++)
        for (qx_entry *e = s->watched[w]; e; e = e->next) {
            size_t need = gram_need(e);
            if (!(e->o.want & QX_STAT_GRAM) || (e->o.have & QX_STAT_GRAM)) continue;
            if (need > budget - bytes) continue;
            e->o.doing |= on;
            bytes += need;
        }
    return bytes;
}

/* Bytes of the Gram matrices that are switched on; *any: something is. */
static size_t switched_on(const qx_stats *s, bool *any)
{
    size_t bytes = 0;
    *any = false;
    for (int w = 0; w < s->n_watched; w++)
        for (const qx_entry *e = s->watched[w]; e; e = e->next) {
            *any = *any || e->o.doing;
            if (e->o.doing & QX_STAT_GRAM) bytes += gram_need(e);
        }
    return bytes;
}

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

/* Sweeps over all samples until all is there: one, or as many as the Gram matrices need to fit into the budget. Where a
 * checkpoint had come to is gone on from. */
static qx_status sweep_all(qx_stats *s, qx_exec *exec, qx_samples *samples, size_t budget)
{
    const size_t need = grams_need(s);
    qx_mark mark;
    bool any;
    start_all(s, QX_STAT_GRAM);
    QX_TRY(qx_checkpoint_begin(s, s->described, qx_samples_count(samples), &mark));
    for (int part = 1;; part++, mark = (qx_mark){0}) {
        if (!mark.samples && !mark.layers.steps) (void)choose_grams(s, budget, QX_STAT_GRAM);
        const size_t bytes = switched_on(s, &any);
        if (!any) return qx_checkpoint_end(s), QX_OK;
        if (bytes > budget)
            QX_FAIL(s->ctx, QX_E_USAGE, "%s: a checkpoint of a sweep with more memory (%zu bytes of Gram matrices, %zu fit now): "
                                        "give --max-memory as then, or remove it", s->checkpoint.path, bytes, budget);
        say_part(s, part, need, budget, bytes);
        QX_TRY(sweep(s, exec, samples, &mark));
        if (bytes == need) continue;
        QX_TRY(qx_stats_park(s, 0));
        if (pending(s) && qx_checkpoint_due(s)) QX_TRY(qx_checkpoint_write(s, &(qx_mark){0}));
    }
}

/* ---- told before ---- */

/* Floats and sums of a channel while it is collected. */
enum { CHANNEL_BYTES = sizeof(float) * 3 + sizeof(qx_dd) * 3, SHOWN_BYTES = sizeof(float) * 7 };

/* Rows that an operator sees of a value of so many bytes: of patches as many as the strides leave. */
static double rows_seen(const qx_entry *e, int64_t bytes)
{
    const qx_type *t = &e->value->type;
    const qx_conv_window *w = e->o.has_window ? &e->o.window : NULL;
    const double elements = (double)bytes * 8 / qx_dtype_bits(t->dtype),
        channels = (double)t->dims[!w || t->rank < 2 ? t->rank - 1 : w->rank ? 1 : t->rank - 2].n;
    double rows = elements / (channels > 0 ? channels : 1);
    for (int d = 0; w && d < w->rank; d++) rows /= (double)(w->stride[d] > 0 ? w->stride[d] : 1);
    return rows;
}

/* Room for rows as it grows (obs_rows.c); bytes 0: not known, all of it. */
static int64_t rows_room(const qx_entry *e, int64_t bytes, int64_t samples)
{
    const double of_one = ceil(rows_seen(e, bytes)), cap = (double)e->o.rows_cap;
    double room = of_one;
    if (bytes <= 0 || of_one < 1 || of_one >= cap) return e->o.rows_cap;
    while (room < of_one * (double)samples && room < cap) room *= 2;
    return room < cap ? (int64_t)room : e->o.rows_cap;
}

static int64_t kept_of(const qx_entry *e, int64_t value_bytes, int64_t samples)
{
    const qx_type *t = &e->value->type;
    const uint32_t want = e->o.want;
    int64_t bytes = want & QX_STAT_HISTOGRAM ? QX_HIST_BINS * (int64_t)sizeof(uint64_t) : 0, dims[QX_MAX_RANK];
    if (t->kind != QX_KIND_TENSOR || !t->has_shape || t->rank < 1 || t->rank > QX_MAX_RANK) return bytes;
    for (int d = 0; d < t->rank; d++) dims[d] = t->dims[d].n;
    const int axis = e->o.axis < 0 ? t->rank + e->o.axis : e->o.axis;
    const int64_t len = qx_rows_length(t->rank, dims, e->o.has_window ? &e->o.window : NULL),
        channels = axis >= 0 && axis < t->rank ? dims[axis] : 0;
    if ((want & QX_STAT_CHANNELS) && channels > 0) bytes += channels * (CHANNEL_BYTES + SHOWN_BYTES);
    if ((want & QX_STAT_ROWS) && len > 0) bytes += (rows_room(e, value_bytes, samples) + QX_TOPS) * len * (int64_t)sizeof(float);
    return bytes;
}

/* A Gram matrix without the room for rows that wait until a block is full, where those of a sample make whole ones. bytes: of the
 * value in a run; 0: not known. */
static int64_t gram_taken(const qx_entry *e, int64_t bytes)
{
    const qx_type *t = &e->value->type;
    const int64_t need = (int64_t)gram_need(e), k = t->has_shape && t->rank > 0 ? t->dims[t->rank - 1].n : 0,
        block = k * qx_dtype_bits(t->dtype) / 8 * QX_GRAM_ROWS;
    const bool whole = need && !e->o.has_window && bytes > 0 && block > 0 && bytes % block == 0;
    return whole ? need - k * QX_GRAM_ROWS * (int64_t)sizeof(float) : need;
}

/* k^2 a row. */
static double gram_flops(const qx_entry *e, int64_t bytes, int64_t samples)
{
    const qx_type *t = &e->value->type;
    int64_t dims[QX_MAX_RANK];
    if (!gram_need(e) || bytes <= 0) return 0;
    for (int d = 0; d < t->rank; d++) dims[d] = t->dims[d].n;
    const qx_conv_window *w = e->o.has_window ? &e->o.window : NULL;
    const double k = (double)qx_rows_length(t->rank, dims, w), groups = w && w->group > 1 ? (double)w->group : 1,
        rows = rows_seen(e, bytes) * (double)samples, enough = e->o.thin_gram.enough ? (double)e->o.thin_gram.enough * k : rows;
    return (rows < enough ? rows : enough) * k * k / groups;
}

static void add_need(const qx_stats *s, const int64_t *bytes, int64_t samples, qx_stats_need *n)
{
    for (int w = 0; w < s->n_watched; w++)
        for (qx_entry *e = s->watched[w]; e; e = e->next) {
            const int64_t gram = gram_taken(e, bytes[w]);
            e->rows_to_come = bytes[w] > 0 && e->value->type.rank > 0 ? rows_seen(e, bytes[w]) * (double)samples : 0;
            n->observed += (double)bytes[w];
            n->gram_flops += gram_flops(e, bytes[w], samples);
            n->kept += kept_of(e, bytes[w], samples);
            n->grams += gram;
            if (gram > n->largest_gram) n->largest_gram = gram;
        }
}

qx_status qx_stats_forecast(qx_stats *s, qx_exec *exec, const qx_feed *feeds, int n, int64_t samples, qx_stats_need *out)
{
    qx_exec_need run;
    int64_t weights, largest, stretch, *bytes;
    *out = (qx_stats_need){0};
    if (!pending(s)) return QX_OK;
    (void)qx_exec_want_outputs(exec, false);
    QX_TRY(watch_pending(s, exec));
    QX_TRY(QX_NEW_ARRAY(s->ctx, s->n_watched + 1, &bytes));
    const qx_status st = qx_exec_forecast(exec, feeds, n, bytes, &run);
    if (st == QX_OK) add_need(s, bytes, samples, out);
    qx_free(s->ctx, bytes);
    QX_TRY(st);
    QX_TRY(layer_budget(s, exec, &weights, &largest, &stretch));
    const int64_t cap = (int64_t)qx_ctx_max_memory(s->ctx), extra = (int64_t)largest_extra(s);
    out->unknown = run.unknown;
    out->run = run;
    out->sweep = (!stretch ? run.weights : stretch > largest ? stretch : largest) + run.activations + out->kept;
    const int64_t room = cap ? cap - (int64_t)qx_mem_in_use(s->ctx) - out->sweep - extra : INT64_MAX;
    const bool parts = (int64_t)grams_need(s) > room; /* in several sweeps, those of finished ones on disk */
    /* as gram_budget has it */
    const int64_t together = parts ? (int64_t)choose_grams(s, room > 0 ? (size_t)room / 10 * 9 : 0, 0) : out->grams;
    out->sweep += (!parts || together > out->largest_gram ? together : out->largest_gram) + extra;
    out->sweeps = parts && together > 0 ? (out->grams + together - 1) / together : 1;
    out->layered = stretch > 0;
    if (parts) out->grams = out->largest_gram;
    return qx_exec_watch(exec, NULL, 0, NULL, NULL);
}

qx_status qx_stats_collect(qx_stats *s, qx_exec *exec, qx_samples *samples)
{
    if (!pending(s)) return QX_OK;
    if (qx_samples_count(samples) < 1) QX_FAIL(s->ctx, QX_E_USAGE, "statistics are wanted, but there are no samples");
    if (!(s->described = qx_arena_strdup(s->arena, qx_samples_describe(samples)))) return QX_E_NOMEM;
    bool outputs = qx_exec_want_outputs(exec, false);
    QX_TRY(watch_pending(s, exec));
    qx_stats_expect(s, qx_samples_count(samples));
    size_t need = grams_need(s), cap = qx_ctx_max_memory(s->ctx), in_use = qx_mem_in_use(s->ctx);
    bool plenty = need == 0 || (cap ? need < (cap - (in_use < cap ? in_use : cap)) / 16 : need < gram_budget(s, exec));
    qx_status st = plenty ? QX_OK : measure(s, exec, samples);
    if (st == QX_OK) st = sweep_all(s, exec, samples, plenty ? SIZE_MAX : drop_too_large(s, exec));
    (void)qx_stats_take_grams(s, false); /* left behind by a sweep that failed */
    qx_exec_want_outputs(exec, outputs);
    qx_status off = qx_exec_watch(exec, NULL, 0, NULL, NULL);
    return st == QX_OK ? off : st;
}

/* mixed_effect.c - what the smallest format of each group alone does to the model's output. */
#include "passes/search/mixed.h"

#include <math.h>
#include <string.h>

#include "base/buf.h"
#include "base/map.h"

/* Sum of the members' relative errors. */
static double group_error(const qx_mix *m, int64_t g, int format)
{
    double sum = 0;
    for (int64_t i = 0; i < m->pass->pipe->plan->linears.count; i++)
        if (m->group[i] == g) sum += qx_mix_at(m, i, format)->error;
    return sum;
}

static int smallest_format(const qx_mix *m, int64_t g)
{
    int best = m->n;
    int64_t least = INT64_MAX, bytes;
    for (int f = 0; f < m->n; f++)
        if (qx_mix_allowed(m, g, f, &bytes) && bytes < least) best = f, least = bytes;
    return best;
}

void qx_mixed_changes(const qx_mix *m, int64_t g, int format, qx_probe_change *out, int64_t *n)
{
    for (int64_t i = 0; i < m->pass->pipe->plan->linears.count && format < m->n; i++) {
        const qx_mix_cell *c = qx_mix_at(m, i, format);
        if (m->group[i] != g) continue;
        out[(*n)++] = (qx_probe_change){.item = i, .spec = &c->spec, .error = c->error,
                                        .x = {.act = c->act, .dynamic = c->dynamic, .scale = c->act_scale, .blocks = &c->spec}};
    }
}

/* How many samples each group is measured on; 0: none. */
static int64_t probe_count(const qx_mixed *x)
{
    const char *score = qx_opt_text(x->pass, "score");
    const int64_t asked = qx_opt_int(x->pass, "probes");
    const int64_t usual = qx_probe_samples(x->weights);
    if (!x->pass->pipe->samples || !strcmp(score, "layer") || (!strcmp(score, "auto") && !usual)) return 0;
    return asked ? asked : usual ? usual : 1;
}

/* Of what a run measures the effect: these operators rounded so, on these samples (whose statistics have the hash). */
static qx_status name_changes(const qx_mixed *x, const qx_probe_change *changes, int64_t n, char key[33])
{
    const qx_plan_item *items = x->pass->pipe->plan->items;
    qx_buf b = QX_BUF_INIT(x->pass->ctx);
    qx_status st = qx_buf_printf(&b, "%016llx %lld", (unsigned long long)x->pass->pipe->stats_hash, (long long)probe_count(x));
    for (int64_t i = 0; i < n && st == QX_OK; i++) {
        const qx_qspec *s = changes[i].spec;
        st = qx_buf_printf(&b, ";%s %d %d %lld %d %d %d %d %d %d %.9g", items[changes[i].item].lin->node->name, s->codes, s->scale,
                           (long long)s->block, s->zero_point, s->narrow, s->allow_negative_scale, s->rule, changes[i].x.act,
                           changes[i].x.dynamic, (double)changes[i].x.scale);
    }
    if (st == QX_OK) qx_hash128_hex(b.data, b.len, key);
    qx_buf_free(&b);
    return st;
}

/* One run, unless statistics from an earlier job say what it gave. */
static qx_status measure_group(qx_mixed *x, int64_t g, int format, qx_stats *stats, qx_probe_change *changes, qx_probe_effect *out)
{
    int64_t n = 0;
    char key[33];
    *out = (qx_probe_effect){.kl = NAN, .noise = group_error(x->mix, g, format)};
    if (!x->probe) return QX_OK;
    qx_mixed_changes(x->mix, g, format, changes, &n);
    QX_TRY(name_changes(x, changes, n, key));
    if (qx_stats_noted(stats, key, &out->kl, &out->noise)) return QX_OK;
    QX_TRY(qx_probe_run(x->probe, changes, n, out));
    return qx_stats_note(stats, key, out->kl, out->noise);
}

static void fill_group(qx_mixed *x, int64_t g, int base, const qx_probe_effect *e)
{
    const qx_mix *m = x->mix;
    const double error = group_error(m, g, base);
    for (int f = 0; f <= m->n; f++) {
        const int64_t at = g * (m->n + 1) + f;
        const double share = f == m->n || !(error > 0) ? 0 : group_error(m, g, f) / error;
        x->kl[at] = share * fmax(e->kl, 0) + (isnan(e->kl) ? NAN : 0);
        x->noise[at] = share * e->noise;
    }
}

/* Groups are measured alone: what lies before them need not run each time. */
static qx_status new_probe(qx_mixed *x, const qx_stats *stats, int64_t count)
{
    enum { BEGINS = 16 };
    const qx_linears *all = &x->pass->pipe->plan->linears;
    const qx_value *begins[BEGINS];
    const int n = all->count < BEGINS ? (int)all->count : BEGINS;
    for (int i = 0; i < n; i++) begins[i] = all->items[i * all->count / n].x;
    return qx_probe_new(x->pass->pipe, stats, &(qx_probe_runs){count, false, begins, n}, &x->probe);
}

static qx_status open_probe(qx_mixed *x, qx_stats *stats)
{
    const int64_t count = probe_count(x);
    if (count) return new_probe(x, stats, count);
    if (x->goal.sqnr > 0)
        QX_FAIL(x->pass->ctx, QX_E_USAGE, "mixed(sqnr=%g) measures the output and needs samples and score=output", x->goal.sqnr);
    if (!strcmp(qx_opt_text(x->pass, "score"), "output"))
        QX_FAIL(x->pass->ctx, QX_E_USAGE, "mixed(score=output) runs the model and needs samples, not only statistics");
    qx_log(x->pass->ctx, QX_LOG_INFO, "formats are chosen by each layer's own error: %s",
           x->pass->pipe->samples ? "score=layer, or a model too large for score=auto" : "there are no samples to run");
    return QX_OK;
}

qx_status qx_mixed_measure(qx_mixed *x, qx_stats *stats)
{
    const qx_mix *m = x->mix;
    qx_probe_change *changes;
    QX_TRY(open_probe(x, stats));
    QX_TRY(qx_alloc_array(x->pass->ctx, (size_t)x->pass->pipe->plan->linears.count + 1, sizeof *changes, (void **)&changes));
    qx_status st = QX_OK;
    for (int64_t g = 0; g < m->n_groups && st == QX_OK; g++) {
        const int base = smallest_format(m, g);
        qx_probe_effect e = {.kl = x->probe ? 0 : NAN};
        qx_progress(x->pass->ctx, "effect on the output", g, m->n_groups);
        if (base < m->n) st = measure_group(x, g, base, stats, changes, &e);
        if (st == QX_OK) fill_group(x, g, base, &e);
    }
    qx_progress(x->pass->ctx, "effect on the output", m->n_groups, m->n_groups);
    qx_free(x->pass->ctx, changes);
    return st;
}

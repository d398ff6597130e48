/* stats_threshold.c - what a range is taken to be: thresholds read off what was collected, by every method, without a new sweep. */
#include "calib/stats/store.h"

#include <math.h>

static double mean_of(const float *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i];
    return sum / (double)n;
}

/* Over the first floor(n * fraction) steps (at least one): the least mean, or the mean of the maxima. */
static float step_threshold(const qx_value_stats *v, const qx_range_options *o)
{
    double fraction = o->step_fraction > 0 && o->step_fraction <= 1 ? o->step_fraction : 1;
    int64_t n = (int64_t)floor((double)v->n_steps * fraction + 1e-9);
    if (n < 1) n = 1;
    if (o->method == QX_RANGE_STEPS_MEAN_MAX) return (float)mean_of(v->step_max, n);
    float least = v->step_absmax[0];
    for (int64_t i = 1; i < n; i++)
        if (v->step_absmax[i] < least) least = v->step_absmax[i];
    return least;
}

static qx_status need(const qx_stats *s, const qx_entry *e, const char *name, uint32_t kind, const char *what)
{
    if (e && (e->o.have & kind)) return QX_OK;
    QX_FAIL(s->ctx, QX_E_FAIL, "value '%s': %s was not collected", name, what);
}

static qx_status threshold(const qx_stats *s, const qx_entry *e, const char *name, const qx_range_options *o, float *out)
{
    QX_TRY(need(s, e, name, QX_STAT_RANGE, "its range"));
    const qx_observer *b = &e->o;
    bool steps = o->method == QX_RANGE_STEPS_MIN_MEAN || o->method == QX_RANGE_STEPS_MEAN_MAX;
    if (o->method == QX_RANGE_PERCENTILE && !(o->percentile >= 0 && o->percentile <= 100))
        QX_FAIL(s->ctx, QX_E_USAGE, "percentile %g is not in [0, 100]", o->percentile);
    if (o->method == QX_RANGE_MAX) return *out = b->range.absmax, QX_OK;
    QX_TRY(need(s, e, name, steps ? QX_STAT_STEPS : QX_STAT_HISTOGRAM, steps ? "its range per timestep" : "its histogram"));
    if (steps) *out = b->steps.n ? step_threshold(&b->view, o) : 0;
    else if (o->method == QX_RANGE_PERCENTILE) *out = qx_hist_percentile(&b->hist, &b->range, o->percentile, o->skip_zeros);
    else if (o->method == QX_RANGE_ENTROPY) *out = qx_hist_entropy(&b->hist, &b->range);
    else *out = qx_hist_mse(&b->hist, &b->range, o->levels > 0 ? o->levels : 127, o->format);
    return QX_OK;
}

qx_status qx_stats_threshold(const qx_stats *s, const qx_value *v, const qx_range_options *o, float *out)
{
    return threshold(s, qx_stats_find(s, v), v->name, o, out);
}

qx_status qx_stats_threshold_at(const qx_stats *s, int64_t i, const qx_range_options *o, float *out)
{
    const qx_entry *e = qx_stats_entry_at(s, i);
    return threshold(s, e, e->o.name, o, out);
}

qx_status qx_stats_min_max(const qx_stats *s, const qx_value *v, float reach, float *min, float *max)
{
    const qx_entry *e = qx_stats_find(s, v);
    QX_TRY(need(s, e, v->name, QX_STAT_RANGE, "its range"));
    *min = fminf(0, fmaxf(e->o.range.min, -reach));
    *max = fmaxf(0, fminf(e->o.range.max, reach));
    return QX_OK;
}

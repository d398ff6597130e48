/* stats_sane.c - whether what a statistics file says of a value can be true of any data. The hash at the file's end keeps
 * accidents out, not malice, and whoever works with statistics relies on how they fit together: rows and channels lie within the
 * range, squares are not negative, everything is finite. */
#include "calib/stats/store.h"

#include <math.h>

/* NaN lies within nothing. */
static bool within(const float *x, int64_t n, float low, float high)
{
    for (int64_t i = 0; i < n; i++)
        if (!(x[i] >= low && x[i] <= high)) return false;
    return true;
}

static bool finite_sum(qx_dd d, double least) { return isfinite(d.hi) && isfinite(d.lo) && qx_dd_value(d) >= least; }

static bool sane_range(const qx_observer *o)
{
    const qx_scan *r = &o->range;
    return r->absmax == fmaxf(fabsf(r->min), fabsf(r->max)) && finite_sum(r->sum, -INFINITY) && finite_sum(r->sumsq, 0);
}

static bool sane_histogram(const qx_observer *o)
{
    uint64_t total = 0;
    for (int i = 0; o->hist.bins && i < QX_HIST_BINS; i++) {
        if (o->hist.bins[i] > INT64_MAX / QX_HIST_BINS) return false;
        total += o->hist.bins[i];
    }
    return total <= (uint64_t)o->range.n;
}

static bool sane_channels(const qx_observer *o)
{
    const qx_channels *c = &o->channels;
    if (!(c->rows >= 0 && isfinite(c->rows)) || !within(c->acc.min, c->n, o->range.min, o->range.max) ||
        !within(c->acc.max, c->n, o->range.min, o->range.max))
        return false;
    for (int64_t i = 0; i < c->n; i++)
        if (c->acc.min[i] > c->acc.max[i] || !finite_sum(c->acc.sum[i], -INFINITY) || !finite_sum(c->acc.abs[i], 0) ||
            !finite_sum(c->acc.sq[i], 0))
            return false;
    return true;
}

/* Rows of patches hold zeros where the picture ends. */
static bool sane_rows(const qx_observer *o, const qx_reservoir *v)
{
    return !v->n || within(v->data, v->n * v->len, -o->range.absmax, o->range.absmax);
}

static bool sane_steps(const qx_steps *s)
{
    for (int64_t i = 0; i < s->n; i++)
        if (!isfinite(s->rows[i].key) || !finite_sum(s->rows[i].sum, 0) || !(s->rows[i].max >= 0 && isfinite(s->rows[i].max))) return false;
    return true;
}

const char *qx_stats_insane(const qx_observer *o)
{
    if (!sane_range(o)) return "its range and its sums do not belong together";
    if (!sane_histogram(o)) return "its histogram counts more than its range";
    if (!sane_channels(o)) return "its channels leave its range";
    if (!sane_rows(o, &o->rows) || !sane_rows(o, &o->tops)) return "its rows leave its range";
    return sane_steps(&o->steps) ? NULL : "its timesteps are not finite";
}

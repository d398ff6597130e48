/* stats_scale.c - statistics of a value whose channels are scaled or shifted, without looking at data again: ranges, channels, rows
 * and Gram matrices follow exactly, the histogram is made anew from the rows that were kept. */
#include "calib/stats/store.h"

#include <math.h>
#include <string.h>

/* ---- scaling channels ---- */

static void scale_columns(qx_channels *c, const float *f)
{
    for (int64_t i = 0; i < c->n; i++) {
        double a = fabs((double)f[i]);
        float lo = c->acc.min[i] * f[i], hi = c->acc.max[i] * f[i];
        c->acc.min[i] = fminf(lo, hi);
        c->acc.max[i] = fmaxf(lo, hi);
        c->acc.sum[i].hi *= f[i], c->acc.sum[i].lo *= f[i];
        c->acc.abs[i].hi *= a, c->acc.abs[i].lo *= a;
        c->acc.sq[i].hi *= a * a, c->acc.sq[i].lo *= a * a;
    }
}

/* Elements of a row (of a Gram matrix) that belong to channel c: a run of `run` places. */
static void scale_row_data(float *x, int64_t rows, int64_t len, const float *f, int64_t n)
{
    const int64_t run = len / n;
    for (float *row = x; row < x + rows * len; row += len)
        for (int64_t c = 0; c < n; c++)
            for (int64_t i = c * run; i < (c + 1) * run; i++) row[i] *= f[c];
}

static void scale_gram(qx_gram *g, const float *f, int64_t n)
{
    const int64_t run = g->k * g->groups / n, k = g->k, channels = k / run; /* of a group */
    for (int64_t i = 0; i < g->groups * k; i++) {
        const float *of_group = f + i / k * channels, mine = f[i / run];
        float *row = g->full + i * k;
        for (int64_t c = 0; c < channels; c++)
            for (int64_t j = c * run; j < (c + 1) * run; j++) row[j] *= mine * of_group[c];
    }
}

/* Which bin x >= 0 is counted in. */
static int bin_of(const qx_hist *h, double x)
{
    const double at = x / ldexp(1, h->exp);
    return at < QX_HIST_BINS - 1 ? (int)at : QX_HIST_BINS - 1;
}

/* Each channel is taken to be distributed over its range as the whole value was over its own; counts stay the number of values. */
static qx_status hist_from_channels(qx_ctx *ctx, qx_hist *h, const qx_hist *old, float old_max, const qx_channels *c, float absmax)
{
    QX_TRY(qx_hist_cover(ctx, h, absmax));
    uint64_t total = 0;
    for (int i = 0; i < QX_HIST_BINS; i++) total += old->bins[i];
    double share = (double)total / (double)c->n, *sum;
    QX_TRY(QX_NEW_ARRAY(ctx, QX_HIST_BINS, &sum));
    for (int64_t ch = 0; ch < c->n && old_max > 0; ch++) {
        double top = fmax(fabs((double)c->acc.min[ch]), fabs((double)c->acc.max[ch]));
        for (int i = 0; i < QX_HIST_BINS; i++) {
            if (!old->bins[i]) continue;
            double x = fmin((i + 0.5) * ldexp(1, old->exp) / (double)old_max, 1) * top;
            sum[bin_of(h, x)] += share * (double)old->bins[i] / (double)total;
        }
    }
    for (int i = 0; i < QX_HIST_BINS; i++) h->bins[i] = (uint64_t)(sum[i] + 0.5);
    qx_free(ctx, sum);
    return QX_OK;
}

/* What the kept rows cannot show: the largest of n rows of N is exceeded by about N / n of them. So each channel has that many
 * values between the largest kept one and its largest of all, more of them near the former; and that largest one is there at
 * least once. Without this every method would clip far too much. */
static void add_tail(qx_hist *h, const qx_observer *o, const float *kept, double share)
{
    enum { PARTS = 8 };
    for (int64_t c = 0; c < o->channels.n; c++) {
        double low = (double)kept[c], top = fmax(fabs((double)o->channels.acc.min[c]), fabs((double)o->channels.acc.max[c])), left = 0;
        for (int i = 1; i <= PARTS; i++) {
            double x = low + (top - low) * i * i / (PARTS * PARTS), many = left + (share - 1) / PARTS;
            uint64_t whole = (uint64_t)many;
            left = many - (double)whole;
            h->bins[bin_of(h, x)] += i == PARTS && !whole ? 1 : whole;
        }
    }
}

/* The largest |x| of each channel in the kept rows. */
static void largest_kept(const qx_reservoir *r, int64_t channels, float *out)
{
    const int64_t run = r->len / channels; /* elements of a row that belong to one channel */
    for (const float *row = r->data; row < r->data + r->n * r->len; row += r->len)
        for (int64_t c = 0; c < channels; c++)
            for (int64_t i = c * run; i < (c + 1) * run; i++) {
                const float x = fabsf(row[i]);
                out[c] = x > out[c] ? x : out[c];
            }
}

static qx_status hist_from_rows(qx_ctx *ctx, qx_hist *h, const qx_observer *o)
{
    const qx_reservoir *r = &o->rows;
    int64_t zeros = 0, n = r->n * r->len;
    float *kept;
    for (int64_t i = 0; i < n; i++) zeros += r->data[i] == 0;
    QX_TRY(qx_hist_add(ctx, h, r->data, n, o->range.absmax, zeros));
    double share = fmax(1, (double)o->range.n / (double)n);
    for (int i = 0; i < QX_HIST_BINS; i++) h->bins[i] = (uint64_t)((double)h->bins[i] * share + 0.5);
    QX_TRY(QX_NEW_ARRAY(ctx, o->channels.n + 1, &kept));
    if (o->channels.n) largest_kept(r, o->channels.n, kept);
    add_tail(h, o, kept, share);
    qx_free(ctx, kept);
    return QX_OK;
}

static qx_status new_histogram(qx_ctx *ctx, qx_observer *o, float old_max)
{
    qx_hist fresh = {0};
    if (!o->hist.set) return QX_OK;
    qx_status st = o->rows.n ? hist_from_rows(ctx, &fresh, o) : hist_from_channels(ctx, &fresh, &o->hist, old_max, &o->channels,
        o->range.absmax);
    if (st != QX_OK) {
        qx_hist_free(ctx, &fresh);
        return st;
    }
    qx_hist_free(ctx, &o->hist);
    o->hist = fresh;
    return QX_OK;
}

static void range_from_channels(qx_observer *o)
{
    const qx_channels *c = &o->channels;
    qx_scan r = {.n = o->range.n, .zeros = o->range.zeros, .min = c->acc.min[0], .max = c->acc.max[0]};
    for (int64_t i = 0; i < c->n; i++) {
        r.min = fminf(r.min, c->acc.min[i]);
        r.max = fmaxf(r.max, c->acc.max[i]);
        r.sum = qx_dd_join(r.sum, c->acc.sum[i]);
        r.sumsq = qx_dd_join(r.sumsq, c->acc.sq[i]);
    }
    r.absmax = fmaxf(fabsf(r.min), fabsf(r.max));
    o->range = r;
}

static qx_status scale_entry(qx_stats *s, qx_observer *o, const float *f, int64_t n)
{
    bool rows_fit = !o->rows.n || o->rows.len % n == 0, gram_fits = !o->gram.full || o->gram.k * o->gram.groups % n == 0;
    if ((o->channels.n && o->channels.n != n) || !rows_fit || !gram_fits)
        QX_FAIL(s->ctx, QX_E_SHAPE, "statistics of '%s': %lld factors for %lld channels", o->name, (long long)n, (long long)o->channels.n);
    float old_max = o->range.absmax;
    scale_columns(&o->channels, f);
    if (o->rows.n) scale_row_data(o->rows.data, o->rows.n, o->rows.len, f, n);
    if (o->tops.n) scale_row_data(o->tops.data, o->tops.n, o->rows.len, f, n);
    const bool parked = o->gram.disk != NULL;
    if (o->gram.full) {
        QX_TRY(qx_gram_own(s->ctx, &o->gram));
        scale_gram(&o->gram, f, n);
        if (parked) QX_TRY(qx_gram_spill(s->ctx, &o->gram));
    }
    if (o->channels.n) {
        range_from_channels(o);
        QX_TRY(new_histogram(s->ctx, o, old_max));
    }
    return qx_observer_finish(s->ctx, o);
}

/* The value's own entry, or one of its other windows. */
static bool is_of(const qx_entry *e, const char *name)
{
    size_t len = strlen(name);
    return !strncmp(e->o.name, name, len) && (!e->o.name[len] || !strncmp(e->o.name + len, " [rows", 6));
}

static qx_status copy_entry(qx_stats *s, const qx_entry *from, const char *name)
{
    qx_entry *e;
    if (!name) return QX_E_NOMEM;
    QX_TRY(qx_stats_entry(s, name, &e));
    e->o.axis = from->o.axis, e->o.has_window = from->o.has_window, e->o.window = from->o.window, e->o.rows_cap = from->o.rows_cap;
    return qx_observer_join(s->ctx, &e->o, &from->o);
}

/* An alias that is about to differ from what it stood for gets entries of its own. */
static qx_status split_alias(qx_stats *s, const qx_value *v)
{
    qx_stats_name k;
    const char *own = qx_stats_key(v, &k);
    const qx_entry *from = qx_map_get(s->aliases, own), *there = qx_map_get(s->by_name, own);
    if (!from || (there && there->o.range.n)) return QX_OK;
    const char *name = from->o.name;
    for (int64_t i = 0, n = qx_stats_count(s); i < n; i++) {
        const qx_entry *e = qx_stats_entry_at(s, i);
        if (is_of(e, name)) QX_TRY(copy_entry(s, e, qx_arena_printf(s->arena, "%s%s", own, e->o.name + strlen(name))));
    }
    return QX_OK;
}

/* The entry and those of its other windows. */
static qx_status each_window(qx_stats *s, const qx_entry *e, const float *by, int64_t n,
                             qx_status (*fn)(qx_stats *, qx_observer *, const float *, int64_t))
{
    const char *name = e->o.name;
    for (int64_t i = 0; i < qx_stats_count(s); i++) {
        qx_entry *other = qx_stats_entry_at(s, i);
        if (is_of(other, name)) QX_TRY(fn(s, &other->o, by, n));
    }
    return QX_OK;
}

qx_status qx_stats_scale_channels(qx_stats *s, const qx_value *v, const float *factor, int64_t n)
{
    QX_TRY(split_alias(s, v));
    qx_entry *e = qx_stats_find(s, v);
    if (!e) QX_FAIL(s->ctx, QX_E_FAIL, "no statistics of '%s' to scale", v->name);
    if (!e->o.channels.n && e->o.range.n)
        QX_FAIL(s->ctx, QX_E_FAIL, "statistics of '%s': channels were not collected, so the scaled range is unknown", v->name);
    return each_window(s, e, factor, n, scale_entry);
}

/* ---- shifting channels ---- */

static void shift_columns(qx_channels *c, const float *d, double count)
{
    for (int64_t i = 0; i < c->n; i++) {
        const double sum = qx_dd_value(c->acc.sum[i]), sq = qx_dd_value(c->acc.sq[i]), by = (double)d[i];
        c->acc.min[i] += d[i];
        c->acc.max[i] += d[i];
        c->acc.sq[i] = (qx_dd){fmax(sq + 2 * by * sum + count * by * by, 0), 0};
        c->acc.sum[i] = (qx_dd){sum + count * by, 0};
        if (by != 0)
            c->acc.abs[i] = (qx_dd){c->acc.min[i] >= 0 ? sum + count * by
                                    : fmin(qx_dd_value(c->acc.abs[i]) + count * fabs(by), sqrt(count * c->acc.sq[i].hi)), 0};
    }
}

/* X'X of rows x + d, from the sums of the columns before. */
static void shift_gram(qx_gram *g, const qx_channels *c, const float *d, double count)
{
    const double rows = (double)g->rows;
    for (int64_t i = 0; i < g->k; i++)
        for (int64_t j = 0; j < g->k; j++) {
            const double si = qx_dd_value(c->acc.sum[i]) * rows / count, sj = qx_dd_value(c->acc.sum[j]) * rows / count;
            g->full[i * g->k + j] += (float)(si * (double)d[j] + sj * (double)d[i] + rows * (double)d[i] * (double)d[j]);
        }
}

static qx_status shift_entry(qx_stats *s, qx_observer *o, const float *d, int64_t n)
{
    const double count = n ? (double)o->range.n / (double)n : 0;
    const float old_max = o->range.absmax;
    if (o->channels.n != n || (o->rows.n && o->rows.len % n))
        QX_FAIL(s->ctx, QX_E_SHAPE, "statistics of '%s': %lld shifts for %lld channels", o->name, (long long)n, (long long)o->channels.n);
    if (o->gram.full && (o->gram.k != n || o->gram.groups != 1))
        QX_FAIL(s->ctx, QX_E_UNSUPPORTED, "statistics of '%s': a Gram matrix of %lld columns cannot be shifted by %lld channels",
                o->name, (long long)o->gram.k, (long long)n);
    const bool parked = o->gram.disk != NULL;
    if (o->gram.full) {
        QX_TRY(qx_gram_own(s->ctx, &o->gram));
        shift_gram(&o->gram, &o->channels, d, count);
        if (parked) QX_TRY(qx_gram_spill(s->ctx, &o->gram));
    }
    shift_columns(&o->channels, d, count);
    for (int64_t i = 0; i < o->rows.n * o->rows.len; i++) o->rows.data[i] += d[i % o->rows.len / (o->rows.len / n)];
    for (int64_t i = 0; i < o->tops.n * o->rows.len; i++) o->tops.data[i] += d[i % o->rows.len / (o->rows.len / n)];
    range_from_channels(o);
    QX_TRY(new_histogram(s->ctx, o, old_max));
    return qx_observer_finish(s->ctx, o);
}

qx_status qx_stats_shift_channels(qx_stats *s, const qx_value *v, const float *delta, int64_t n)
{
    QX_TRY(split_alias(s, v));
    qx_entry *e = qx_stats_find(s, v);
    if (!e) QX_FAIL(s->ctx, QX_E_FAIL, "no statistics of '%s' to shift", v->name);
    return each_window(s, e, delta, n, shift_entry);
}

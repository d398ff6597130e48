/* observer.c - one value's statistics: hands each tensor to the parts that were asked for, and shows the result as qx_value_stats. */
#include "calib/stats/observer.h"

#include <math.h>
#include <string.h>

void qx_observer_reset(qx_ctx *ctx, qx_observer *o)
{
    qx_hist_free(ctx, &o->hist);
    qx_channels_free(ctx, &o->channels);
    qx_reservoir_free(ctx, &o->rows);
    qx_reservoir_free(ctx, &o->tops);
    qx_gram_free(ctx, &o->gram);
    qx_steps_free(ctx, &o->steps);
    qx_free(ctx, o->shown);
    o->shown = NULL;
    o->range = (qx_scan){0};
    o->samples = 0;
    o->thin_rows.every = o->thin_rows.seen = o->thin_gram.every = o->thin_gram.seen = 0;
    o->have = 0;
    o->view = (qx_value_stats){.name = o->name};
}

typedef struct feeding { qx_ctx *ctx; qx_observer *o; int64_t groups; } feeding;

static qx_status add_rows(qx_ctx *ctx, qx_observer *o, const float *x, int64_t rows, int64_t stride, int64_t len)
{
    o->tops.by_size = true;
    QX_TRY(qx_reservoir_add(ctx, &o->rows, x, rows, stride, len, o->rows_cap));
    return qx_reservoir_add(ctx, &o->tops, x, rows, stride, len, QX_TOPS);
}

static qx_status feed_rows(void *user, const float *x, int64_t rows, int64_t stride, int64_t len)
{
    feeding *f = user;
    return add_rows(f->ctx, f->o, x, rows, stride, len);
}

static qx_status feed_gram(void *user, const float *x, int64_t rows, int64_t stride, int64_t len)
{
    feeding *f = user;
    return qx_gram_add(f->ctx, &f->o->gram, x, rows, stride, len / f->groups, f->groups);
}

static qx_status feed_both(void *user, const float *x, int64_t rows, int64_t stride, int64_t len)
{
    QX_TRY(feed_rows(user, x, rows, stride, len));
    return feed_gram(user, x, rows, stride, len);
}

static bool takes_all(const qx_thinning *t) { return !t->enough || t->every == 1; }

/* The sample of rows and the Gram matrix: patches that both want are made once. */
static qx_status feed_linear(qx_ctx *ctx, qx_observer *o, const float *x, const qx_tensor *t)
{
    const qx_conv_window *w = o->has_window ? &o->window : NULL;
    const bool rows = o->doing & QX_STAT_ROWS, gram = o->doing & QX_STAT_GRAM;
    const qx_seen_by seen = {x, t->rank, t->dims, w, o->name};
    feeding f = {ctx, o, w && w->group > 1 ? w->group : 1};
    int64_t len = qx_rows_length(t->rank, t->dims, w);
    if (len % f.groups)
        QX_FAIL(ctx, QX_E_SHAPE, "statistics of '%s': %lld columns in %lld groups", o->name, (long long)len, (long long)f.groups);
    if (rows && gram && takes_all(&o->thin_rows) && takes_all(&o->thin_gram))
        return qx_rows_each(ctx, &seen, NULL, feed_both, &f);
    if (rows) QX_TRY(qx_rows_each(ctx, &seen, &o->thin_rows, feed_rows, &f));
    return gram ? qx_rows_each(ctx, &seen, &o->thin_gram, feed_gram, &f) : QX_OK;
}

static qx_status feed(qx_ctx *ctx, qx_observer *o, const float *x, const qx_tensor *t, double step)
{
    qx_scan s;
    if (o->doing & QX_STAT_CHANNELS) QX_TRY(qx_channels_add(ctx, &o->channels, x, t->rank, t->dims, o->axis, o->name, &s));
    else QX_TRY(qx_range_of(ctx, x, t->numel, &s));
    if (s.nonfinite) {
        int64_t at = qx_first_nonfinite(x, t->numel);
        QX_FAIL(ctx, QX_E_NUMERIC, "'%s' holds %s at index %lld of %lld", o->name, isnan(x[at]) ? "NaN" : "Inf", (long long)at,
                (long long)t->numel);
    }
    if (o->doing & QX_STAT_RANGE) qx_range_join(&o->range, &s);
    if (o->doing & QX_STAT_HISTOGRAM) QX_TRY(qx_hist_add(ctx, &o->hist, x, t->numel, s.absmax, s.zeros));
    if (o->doing & QX_STAT_STEPS) QX_TRY(qx_steps_add(ctx, &o->steps, &(qx_step_row){step, {s.absmax, 0}, s.absmax, 1}));
    return o->doing & (QX_STAT_ROWS | QX_STAT_GRAM) ? feed_linear(ctx, o, x, t) : QX_OK;
}

qx_status qx_observer_add(qx_ctx *ctx, qx_observer *o, const qx_tensor *t, double step)
{
    if (t->is_sequence || t->is_optional) QX_FAIL(ctx, QX_E_TYPE, "statistics of '%s': not a tensor", o->name);
    if (t->numel == 0) return QX_OK; /* contributes nothing */
    if (o->doing & QX_STAT_RANGE) o->samples++;
    if (t->dtype == QX_DT_FLOAT) return feed(ctx, o, t->data, t, step);
    float *x;
    QX_TRY(qx_alloc_raw(ctx, (size_t)t->numel * sizeof *x, (void **)&x));
    qx_status st = qx_to_f32(t->dtype, t->data, t->numel, x) ? feed(ctx, o, x, t, step)
                                                              : qx_fail(ctx, QX_E_TYPE, "statistics of '%s': elements of type %s",
                                                                        o->name, qx_dtype_get(t->dtype)->text);
    qx_free(ctx, x);
    return st;
}

/* ---- on a device ---- */

enum { GRAM_ON_DEVICE = 32768 }; /* columns: 8 GB there and, for a moment, here */

typedef struct looking { qx_ctx *ctx; qx_observer *o; double step; int64_t sample; } looking;

static qx_status add_seen(const looking *l, const qx_seen *seen)
{
    qx_observer *o = l->o;
    const qx_scan *s = &seen->scan;
    if (s->nonfinite)
        QX_FAIL(l->ctx, QX_E_NUMERIC, "sample %lld: '%s' holds NaN or Inf (--device cpu says where)", (long long)l->sample, o->name);
    if (o->doing & QX_STAT_RANGE) {
        o->samples++;
        qx_range_join(&o->range, s);
    }
    if (seen->bins) QX_TRY(qx_hist_add_seen(l->ctx, &o->hist, seen->bins, seen->exp, s->zeros));
    if (seen->channels) qx_channels_add_seen(&o->channels, &seen->columns);
    return o->doing & QX_STAT_STEPS ? qx_steps_add(l->ctx, &o->steps, &(qx_step_row){l->step, {s->absmax, 0}, s->absmax, 1}) : QX_OK;
}

static qx_status looked(void *user, const qx_seen *seen)
{
    const looking l = *(const looking *)user;
    qx_free(l.ctx, user);
    return seen ? add_seen(&l, seen) : QX_OK;
}

static qx_status look_at(qx_ctx *ctx, qx_exec *exec, qx_observer *o, const qx_tensor *t, double step, int64_t sample)
{
    qx_look what = {.histogram = (o->doing & QX_STAT_HISTOGRAM) != 0};
    looking *l;
    if (o->doing & QX_STAT_CHANNELS) QX_TRY(qx_channels_ask(ctx, &o->channels, t, o->axis, o->name, &what));
    QX_TRY(QX_NEW(ctx, &l));
    *l = (looking){ctx, o, step, sample};
    const qx_status st = qx_exec_look(exec, t, &what, looked, l);
    if (st != QX_OK) qx_free(ctx, l);
    return st;
}

qx_status qx_observer_add_on_device(qx_ctx *ctx, qx_exec *exec, qx_observer *o, const qx_tensor *t, double step, int64_t sample,
                                    bool *taken)
{
    const bool gram = o->doing & QX_STAT_GRAM;
    *taken = t->numel == 0;
    if (*taken || (o->doing & QX_STAT_ROWS) || t->numel > INT32_MAX) return QX_OK;
    if (gram && (o->has_window || t->rank < 1 || t->dims[t->rank - 1] > GRAM_ON_DEVICE)) return QX_OK;
    if (gram) {
        const qx_status st = qx_gram_add_on_device(ctx, exec, &o->gram, t);
        if (st == QX_E_NOMEM && !o->gram.on_device) { /* no room for the sum there: it is made here */
            qx_ctx_clear_error(ctx);
            return QX_OK;
        }
        QX_TRY(st);
    }
    *taken = true;
    return look_at(ctx, exec, o, t, step, sample);
}

/* ---- settling ---- */

/* Rounds a sum to 68 bits below its scale: far above the noise that the order of additions leaves in the pair (about 2^-90), far below
 * anything that is shown, so that the same data gives the same bytes in memory and on disk. */
static void settle(qx_dd *d, double scale)
{
    if (!(scale > 0)) return;
    double hi = d->hi + d->lo, lo = d->lo - (hi - d->hi), grid = ldexp(1, ilogb(scale) - 68);
    if (fabs(hi) < grid * 0x1p52) *d = (qx_dd){nearbyint((hi + lo) / grid) * grid, 0};
    else *d = (qx_dd){hi, nearbyint(lo / grid) * grid};
}

static void settle_range(qx_scan *r)
{
    settle(&r->sumsq, qx_dd_value(r->sumsq));
    settle(&r->sum, sqrt((double)r->n * qx_dd_value(r->sumsq))); /* at least the sum of |x|: Cauchy and Schwarz */
}

static void settle_all(qx_observer *o)
{
    const qx_columns *a = &o->channels.acc;
    settle_range(&o->range);
    for (int64_t i = 0; i < o->channels.n; i++) {
        settle(&a->sum[i], qx_dd_value(a->abs[i]));
        settle(&a->abs[i], qx_dd_value(a->abs[i]));
        settle(&a->sq[i], qx_dd_value(a->sq[i]));
    }
}

/* ---- the view ---- */

enum { SHOWN = 7 }; /* arrays of a channel's statistics */

/* A search that weighs columns by mean squares of a few rows fits those rows: as many rows as FEW count as if all channels were
 * alike in them. */
static void share_out(const float *mean_sq, int64_t n, double rows, float *importance)
{
    enum { FEW = 256 };
    double mean = 0;
    for (int64_t i = 0; i < n; i++) mean += (double)mean_sq[i] / (double)n;
    for (int64_t i = 0; i < n; i++) importance[i] = (float)((rows * (double)mean_sq[i] + FEW * mean) / (rows + FEW));
}

static float *show_channels(qx_observer *o, float *at)
{
    const qx_channels *c = &o->channels;
    double inv = c->rows > 0 ? 1 / c->rows : 0;
    float *absmax = at, *min = at + c->n, *max = at + 2 * c->n, *mean_abs = at + 3 * c->n, *mean_sq = at + 4 * c->n,
        *mean = at + 5 * c->n, *importance = at + 6 * c->n;
    for (int64_t i = 0; i < c->n; i++) {
        min[i] = c->acc.min[i];
        max[i] = c->acc.max[i];
        absmax[i] = fmaxf(fabsf(min[i]), fabsf(max[i]));
        mean_abs[i] = (float)(qx_dd_value(c->acc.abs[i]) * inv);
        mean_sq[i] = (float)(qx_dd_value(c->acc.sq[i]) * inv);
        mean[i] = (float)(qx_dd_value(c->acc.sum[i]) * inv);
    }
    share_out(mean_sq, c->n, c->rows, importance);
    o->view.channels = (qx_channel_stats){c->n, absmax, min, max, mean_abs, mean_sq, mean, importance};
    return at + SHOWN * c->n;
}

static void show_steps(qx_observer *o, double *at)
{
    const qx_steps *s = &o->steps;
    int64_t *batches = (int64_t *)(void *)(at + s->n);
    float *mean = (float *)(void *)(batches + s->n), *max = mean + s->n;
    for (int64_t i = 0; i < s->n; i++) {
        at[i] = s->rows[i].key;
        batches[i] = s->rows[i].batches;
        mean[i] = (float)(qx_dd_value(s->rows[i].sum) / (double)s->rows[i].batches);
        max[i] = s->rows[i].max;
    }
    o->view.step_keys = at;
    o->view.step_batches = batches;
    o->view.step_absmax = mean;
    o->view.step_max = max;
    o->view.n_steps = s->n;
}

qx_status qx_observer_finish(qx_ctx *ctx, qx_observer *o)
{
    QX_TRY(qx_gram_finish(ctx, &o->gram));
    QX_TRY(qx_reservoir_sort(ctx, &o->rows));
    QX_TRY(qx_reservoir_sort(ctx, &o->tops));
    settle_all(o);
    size_t steps = (size_t)o->steps.n * (2 * sizeof(double) + 2 * sizeof(float));
    void *shown;
    QX_TRY(qx_alloc(ctx, steps + (size_t)o->channels.n * SHOWN * sizeof(float), &shown));
    qx_free(ctx, o->shown);
    o->shown = shown;
    const qx_scan *r = &o->range;
    o->view = (qx_value_stats){.name = o->name, .count = r->n, .zeros = r->zeros, .samples = o->samples, .min = r->min, .max = r->max,
                               .absmax = r->absmax,
                               .sum = qx_dd_value(r->sum), .sumsq = qx_dd_value(r->sumsq), .has_nonfinite = r->nonfinite};
    show_steps(o, shown);
    show_channels(o, (float *)(void *)((char *)shown + steps));
    o->view.rows = o->rows.data;
    o->view.n_rows = o->rows.n;
    o->view.row_len = o->rows.len;
    o->view.tops = o->tops.data;
    o->view.n_tops = o->tops.n;
    o->view.gram = o->gram.full;
    o->view.gram_file = o->gram.disk;
    o->view.gram_k = o->gram.full ? o->gram.k : 0;
    o->view.gram_groups = o->gram.full ? o->gram.groups : 0;
    o->view.gram_rows = o->gram.full ? o->gram.rows : 0;
    o->have |= o->doing;
    o->doing = 0;
    return QX_OK;
}

static qx_status join_rows(qx_ctx *ctx, qx_reservoir *into, const qx_reservoir *from)
{
    if (!from->n) return QX_OK;
    return qx_reservoir_add(ctx, into, from->data, from->n, from->len, from->len, from->cap);
}

qx_status qx_observer_join(qx_ctx *ctx, qx_observer *into, const qx_observer *from)
{
    qx_range_join(&into->range, &from->range);
    into->samples += from->samples;
    QX_TRY(qx_hist_join(ctx, &into->hist, &from->hist));
    QX_TRY(qx_channels_join(ctx, &into->channels, &from->channels, into->name));
    into->tops.by_size = true;
    QX_TRY(join_rows(ctx, &into->rows, &from->rows));
    QX_TRY(join_rows(ctx, &into->tops, &from->tops));
    QX_TRY(qx_gram_join(ctx, &into->gram, &from->gram, into->name));
    for (int64_t i = 0; i < from->steps.n; i++) QX_TRY(qx_steps_add(ctx, &into->steps, &from->steps.rows[i]));
    into->have |= from->have;
    return qx_observer_finish(ctx, into);
}

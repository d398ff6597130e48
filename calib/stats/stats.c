/* stats.c - the store of statistics: what was asked for, what is there, and what follows from it without looking at data again. */
#include "calib/stats/store.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

qx_status qx_stats_new(qx_ctx *ctx, uint64_t model_hash, qx_stats **out)
{
    qx_stats *s;
    *out = NULL;
    QX_TRY(QX_NEW(ctx, &s));
    s->ctx = ctx;
    s->model_hash = model_hash;
    qx_status st = qx_arena_new(ctx, &s->arena);
    if (st == QX_OK) st = qx_map_new(ctx, &s->by_name);
    if (st == QX_OK) st = qx_map_new(ctx, &s->aliases);
    if (st != QX_OK) qx_stats_free(s);
    else *out = s;
    return st;
}

qx_entry *qx_stats_entry_at(const qx_stats *s, int64_t i)
{
    void *e = NULL;
    qx_map_key_at(s->by_name, (size_t)i, &e);
    return e;
}

qx_status qx_stats_keep_file(qx_stats *s, qx_file *file)
{
    const qx_status st = qx_arena_grow(s->arena, (void **)&s->files, s->n_files, &s->cap_files, sizeof file);
    if (st == QX_OK) s->files[s->n_files++] = file;
    else qx_file_close(file);
    return st;
}

void qx_stats_free(qx_stats *s)
{
    if (!s) return;
    if (s->exec) qx_exec_watch(s->exec, NULL, 0, NULL, NULL);
    for (int64_t i = 0; s->by_name && i < qx_stats_count(s); i++) qx_observer_reset(s->ctx, &qx_stats_entry_at(s, i)->o);
    for (int64_t i = 0; i < s->n_files; i++) qx_file_close(s->files[i]);
    qx_map_free(s->by_name);
    qx_map_free(s->aliases);
    qx_free(s->ctx, s->watched);
    qx_arena_free(s->arena);
    qx_free(s->ctx, s);
}

int64_t qx_stats_count(const qx_stats *s) { return (int64_t)qx_map_count(s->by_name); }
const qx_value_stats *qx_stats_at(const qx_stats *s, int64_t i) { return &qx_stats_entry_at(s, i)->o.view; }
uint32_t qx_stats_kinds(const qx_stats *s, int64_t i) { return qx_stats_entry_at(s, i)->o.have; }
int64_t qx_stats_lacking(const qx_stats *s, const char **first)
{
    int64_t n = 0;
    for (int64_t i = 0; i < qx_stats_count(s); i++) {
        const qx_observer *o = &qx_stats_entry_at(s, i)->o;
        if (!(o->want & ~o->have)) continue;
        if (!n++ && first) *first = o->name;
    }
    return n;
}

uint64_t qx_stats_model(const qx_stats *s) { return s->model_hash; }
const char *qx_stats_described(const qx_stats *s) { return s->described ? s->described : ""; }

qx_status qx_stats_entry(qx_stats *s, const char *name, qx_entry **out)
{
    *out = qx_map_get(s->by_name, name);
    if (*out) return QX_OK;
    qx_entry *e = qx_arena_alloc(s->arena, sizeof *e);
    if (!e || !(e->o.name = qx_arena_strdup(s->arena, name))) return QX_E_NOMEM;
    e->o.view.name = e->o.name;
    e->o.axis = -1;
    e->o.rows_cap = QX_ROWS_DEFAULT;
    *out = e;
    return qx_map_put(s->by_name, name, e);
}

/* What the store calls a value. Those of the main graph go by their name; the branches of an If may give one name to two values
 * (merged decoders do), so inside subgraphs the number counts. */
typedef struct value_key { char text[320]; } value_key;

static const char *key_of(const qx_value *v, value_key *k)
{
    if (!v->graph->owner) return v->name;
    snprintf(k->text, sizeof k->text, "%.240s in %.40s #%u", v->name, v->graph->name ? v->graph->name : "", v->id);
    return k->text;
}

/* ---- asking ---- */

static bool same_window(const qx_observer *o, const qx_conv_window *w)
{
    if (!w) return !o->has_window;
    const qx_conv_window *a = &o->window;
    if (!o->has_window || a->rank != w->rank || a->group != w->group) return false;
    for (int d = 0; d < w->rank; d++)
        if (a->kernel[d] != w->kernel[d] || a->stride[d] != w->stride[d] || a->dilation[d] != w->dilation[d] ||
            a->pad_begin[d] != w->pad_begin[d] || a->pad_end[d] != w->pad_end[d])
            return false;
    return true;
}

static qx_entry *find(const qx_stats *s, const qx_value *v)
{
    value_key k;
    const char *name = key_of(v, &k);
    qx_entry *e = qx_map_get(s->by_name, name), *alias = e && e->o.range.n ? NULL : qx_map_get(s->aliases, name);
    return alias ? alias : e;
}

/* Name of the second, third... way in which rows are cut from a value: convolutions with other windows on the same input. */
static const char *window_name(qx_arena *a, const char *name, const qx_conv_window *w)
{
    char text[256] = "rows";
    size_t n = 4;
    for (int d = 0; w && d < w->rank && d < 3; d++)
        n += (size_t)snprintf(text + n, sizeof text - n, " %lld/%lld/%lld/%lld/%lld", (long long)w->kernel[d], (long long)w->stride[d],
                              (long long)w->dilation[d], (long long)w->pad_begin[d], (long long)w->pad_end[d]);
    if (w && w->group > 1) snprintf(text + n, sizeof text - n, " g%lld", (long long)w->group);
    return qx_arena_printf(a, "%s [%s]", name, text);
}

static const uint32_t row_kinds = QX_STAT_ROWS | QX_STAT_GRAM;

static qx_entry *find_rows(const qx_stats *s, const qx_value *v, const qx_conv_window *w)
{
    qx_entry *e = find(s, v);
    if (!e || !((e->o.want | e->o.have) & row_kinds) || same_window(&e->o, w)) return e;
    qx_arena *scratch;
    if (qx_arena_new(s->ctx, &scratch) != QX_OK) return NULL;
    const char *other = window_name(scratch, e->o.name, w);
    e = other ? qx_map_get(s->by_name, other) : NULL;
    qx_arena_free(scratch);
    return e;
}

static qx_status entry_for(qx_stats *s, const qx_stat_request *r, qx_entry **out)
{
    value_key k;
    QX_TRY(qx_stats_entry(s, key_of(r->value, &k), out));
    qx_observer *o = &(*out)->o;
    if (!(r->kinds & row_kinds)) return QX_OK;
    if ((o->want | o->have) & row_kinds) {
        if (same_window(o, r->window)) return QX_OK;
        const char *other = window_name(s->arena, o->name, r->window);
        if (!other) return QX_E_NOMEM;
        QX_TRY(qx_stats_entry(s, other, out));
        o = &(*out)->o;
    }
    o->has_window = r->window != NULL;
    if (r->window) o->window = *r->window;
    return QX_OK;
}

/* An axis counted from the front is the same as from the back when the rank is known. */
static int last_based(const qx_value *v, int axis)
{
    return axis >= 0 && v->type.kind == QX_KIND_TENSOR && v->type.has_shape && axis < v->type.rank && axis == v->type.rank - 1 ? -1 : axis;
}

/* Of two numbers of rows that are enough; 0 stands for all. */
static int64_t more_rows(int64_t a, int64_t b) { return !a || !b ? 0 : a > b ? a : b; }

qx_status qx_stats_want(qx_stats *s, const qx_stat_request *r)
{
    qx_entry *e;
    QX_TRY(entry_for(s, r, &e));
    qx_observer *o = &e->o;
    int axis = last_based(r->value, r->axis);
    if ((r->kinds & QX_STAT_CHANNELS) && ((o->want | o->have) & QX_STAT_CHANNELS) && o->axis != axis)
        QX_FAIL(s->ctx, QX_E_USAGE, "statistics of '%s': channels along axis %d asked for, axis %d before", o->name, axis, o->axis);
    if (r->kinds & QX_STAT_CHANNELS) o->axis = axis;
    int64_t rows = r->rows > 0 ? r->rows : QX_ROWS_DEFAULT;
    if ((r->kinds & QX_STAT_ROWS) && rows > o->rows_cap) {
        o->rows_cap = rows;
        o->have &= ~(uint32_t)QX_STAT_ROWS;
    }
    if (r->kinds & QX_STAT_ROWS) o->thin_rows.enough = o->want & QX_STAT_ROWS ? more_rows(o->thin_rows.enough, r->enough) : r->enough;
    if (r->kinds & QX_STAT_GRAM) o->thin_gram.enough = o->want & QX_STAT_GRAM ? more_rows(o->thin_gram.enough, r->enough) : r->enough;
    o->want |= r->kinds | QX_STAT_RANGE;
    e->value = r->value;
    return QX_OK;
}

/* ---- looking ---- */

const qx_value_stats *qx_stats_get(const qx_stats *s, const qx_value *v)
{
    const qx_entry *e = find(s, v);
    return e && e->o.have ? &e->o.view : NULL;
}

bool qx_stats_wanted(const qx_stats *s, const qx_value *v, const qx_conv_window *window, uint32_t kinds)
{
    const qx_entry *e = find_rows(s, v, window);
    return e && (e->o.want & kinds);
}

const qx_value_stats *qx_stats_get_rows(const qx_stats *s, const qx_value *v, const qx_conv_window *window)
{
    const qx_entry *e = find_rows(s, v, window);
    return e && (e->o.have & row_kinds) && same_window(&e->o, window) ? &e->o.view : NULL;
}

qx_status qx_stats_alias(qx_stats *s, const qx_value *from, const qx_value *to)
{
    qx_entry *e = find(s, from);
    if (!e) QX_FAIL(s->ctx, QX_E_FAIL, "no statistics of '%s' for '%s' to share", from->name, to->name);
    value_key k;
    return qx_map_put(s->aliases, key_of(to, &k), e);
}

/* ---- thresholds ---- */

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
    return threshold(s, find(s, v), v->name, o, out);
}

qx_status qx_stats_threshold_at(const qx_stats *s, int64_t i, const qx_range_options *o, float *out)
{
    const qx_entry *e = qx_stats_entry_at(s, i);
    return threshold(s, e, e->o.name, o, out);
}

qx_status qx_stats_min_max(const qx_stats *s, const qx_value *v, float reach, float *min, float *max)
{
    const qx_entry *e = find(s, v);
    QX_TRY(need(s, e, v->name, QX_STAT_RANGE, "its range"));
    *min = fminf(0, fmaxf(e->o.range.min, -reach));
    *max = fmaxf(0, fminf(e->o.range.max, reach));
    return QX_OK;
}

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
    value_key k;
    const char *own = key_of(v, &k);
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
    qx_entry *e = find(s, v);
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
    qx_entry *e = find(s, v);
    if (!e) QX_FAIL(s->ctx, QX_E_FAIL, "no statistics of '%s' to shift", v->name);
    return each_window(s, e, delta, n, shift_entry);
}

qx_status qx_stats_merge(qx_stats *into, const qx_stats *from)
{
    if (into->model_hash && from->model_hash && into->model_hash != from->model_hash)
        QX_FAIL(into->ctx, QX_E_USAGE, "statistics of model %016llx cannot be merged with those of model %016llx",
                (unsigned long long)from->model_hash, (unsigned long long)into->model_hash);
    if (!into->model_hash) into->model_hash = from->model_hash;
    if (from->described)
        into->described = into->described ? qx_arena_printf(into->arena, "%s + %s", into->described, from->described)
            : qx_arena_strdup(into->arena, from->described);
    for (int64_t i = 0; i < qx_stats_count(from); i++) {
        const qx_observer *b = &qx_stats_entry_at(from, i)->o;
        qx_entry *e;
        QX_TRY(qx_stats_entry(into, b->name, &e));
        qx_observer *o = &e->o;
        if (!b->have) continue;
        if (!o->have) o->axis = b->axis, o->has_window = b->has_window, o->window = b->window, o->rows_cap = b->rows_cap;
        else if (o->have != b->have || o->axis != b->axis || ((o->have & row_kinds) && !same_window(o, b->has_window ? &b->window : NULL)))
            QX_FAIL(into->ctx, QX_E_USAGE, "statistics of '%s' are of different kinds (0x%x and 0x%x): collect both with the same passes",
                    o->name, o->have, b->have);
        QX_TRY(qx_observer_join(into->ctx, o, b));
    }
    return QX_OK;
}

/* sweep_need.c - what a sweep will take of memory and time, told before it. */
#include "calib/stats/sweep.h"

#include <math.h>

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
    const int64_t need = (int64_t)qx_gram_need(e), k = t->has_shape && t->rank > 0 ? t->dims[t->rank - 1].n : 0,
        block = k * qx_dtype_bits(t->dtype) / 8 * QX_GRAM_ROWS;
    const bool whole = need && !e->o.has_window && bytes > 0 && block > 0 && bytes % block == 0;
    return whole ? need - k * QX_GRAM_ROWS * (int64_t)sizeof(float) : need;
}

/* k^2 a row. */
static double gram_flops(const qx_entry *e, int64_t bytes, int64_t samples)
{
    const qx_type *t = &e->value->type;
    int64_t dims[QX_MAX_RANK];
    if (!qx_gram_need(e) || bytes <= 0) return 0;
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
    if (!qx_watch_wanted(s)) return QX_OK;
    (void)qx_exec_want_outputs(exec, false);
    QX_TRY(qx_watch_pending(s, exec));
    QX_TRY(QX_NEW_ARRAY(s->ctx, s->n_watched + 1, &bytes));
    const qx_status st = qx_exec_forecast(exec, feeds, n, bytes, &run);
    if (st == QX_OK) add_need(s, bytes, samples, out);
    qx_free(s->ctx, bytes);
    QX_TRY(st);
    QX_TRY(qx_sweep_stretch(s, exec, &weights, &largest, &stretch));
    const int64_t cap = (int64_t)qx_ctx_max_memory(s->ctx), extra = (int64_t)qx_grams_extra(s);
    out->unknown = run.unknown;
    out->run = run;
    out->sweep = (!stretch ? run.weights : stretch > largest ? stretch : largest) + run.activations + run.scratch + out->kept;
    const int64_t room = cap ? cap - (int64_t)qx_mem_in_use(s->ctx) - out->sweep - extra : INT64_MAX;
    const bool parts = (int64_t)qx_grams_need(s) > room; /* in several sweeps, those of finished ones on disk */
    /* as gram_budget has it */
    const int64_t together = parts ? (int64_t)qx_grams_choose(s, room > 0 ? (size_t)room / 10 * 9 : 0, 0) : out->grams;
    out->sweep += (!parts || together > out->largest_gram ? together : out->largest_gram) + extra;
    out->sweeps = parts && together > 0 ? (out->grams + together - 1) / together : 1;
    out->layered = stretch > 0;
    if (parts) out->grams = out->largest_gram;
    return qx_exec_watch(exec, NULL, 0, NULL, NULL);
}

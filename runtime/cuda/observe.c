/* observe.c - observers on the device: only results come back (some KB a tensor), never a tensor, and nobody waits for them. A
 * look is a few kernels and a copy into pinned memory of the host, all in the queue; what they left there is read when the
 * executor gathers, at the end of a run. Gram matrices are summed on the device until they are taken. */
#include <string.h>

#include "runtime/cuda/lib.h"

enum { PARTS = 1024, PART_ELEMENTS = 1024, BINS = 4096, ROOM = 64 << 20 }; /* a part: 128 threads with eight elements each at least */

/* Where the parts of a result lie in its block, which is the same on the device and in pinned memory. */
typedef struct look { int64_t channels; int32_t n_parts; size_t at, columns, bins, exp, bytes; bool histogram; } look;
struct cu_looks { char *pinned; size_t room, used; look *all; int64_t n, cap; };

static qx_dev_status done(qx_status st)
{
    return st == QX_OK ? QX_DEV_OK : st == QX_E_NOMEM ? QX_DEV_NOMEM : QX_DEV_FAILED;
}

static look layout(const qx_dev_tensor *t, const qx_dev_look *what)
{
    const int64_t parts = (t->numel + PART_ELEMENTS - 1) / PART_ELEMENTS;
    look l = {.channels = what->channels, .n_parts = (int32_t)(parts > PARTS ? PARTS : parts), .histogram = what->histogram};
    l.columns = cu_round((size_t)l.n_parts * sizeof(qk_scan_part));
    l.bins = l.columns + cu_round((size_t)l.channels * (6 * sizeof(double) + 2 * sizeof(float)));
    l.exp = l.bins + (l.histogram ? BINS * sizeof(uint32_t) : 0);
    l.bytes = cu_round(l.exp + sizeof(int32_t));
    return l;
}

/* Room for one more result; *full: only after gather(). */
static qx_status make_room(qx_dev *d, look *l, bool *full)
{
    struct cu_looks *s = d->looks;
    *full = false;
    if (!s) QX_TRY(QX_NEW(d->ctx, &d->looks));
    s = d->looks;
    if (s->used + l->bytes > s->room) {
        *full = s->n > 0;
        if (*full) return QX_OK;
        cu_unpin(d->m, s->pinned);
        s->pinned = NULL;
        s->room = 0;
        const size_t room = l->bytes > ROOM ? l->bytes : ROOM;
        QX_TRY(cu_pinned(d->m, room, (void **)&s->pinned));
        s->room = room;
    }
    QX_TRY(qx_grow(d->ctx, (void **)&s->all, s->n, &s->cap, sizeof *s->all));
    l->at = s->used;
    return QX_OK;
}

/* Columns: sums (pairs) first, for their alignment. */
static qk_columns_args columns_args(const qx_dev_tensor *t, const qx_dev_look *what, char *block)
{
    double *s = (double *)(void *)block;
    const int64_t n = what->channels;
    float *f = (float *)(void *)(s + 6 * n);
    return (qk_columns_args){.x = t->data, .min = f, .max = f + n, .sum = s, .abs = s + 2 * n, .sq = s + 4 * n, .outer = what->outer,
                             .channels = n, .inner = what->inner, .dtype = t->dtype};
}

static qx_status launch(qx_dev *d, const qx_dev_tensor *t, const qx_dev_look *what, const look *l, char *block)
{
    qk_scan_part *parts = (qk_scan_part *)(void *)block;
    const qk_scan_args scan = {.x = t->data, .parts = parts, .n = t->numel, .dtype = t->dtype, .n_parts = l->n_parts};
    QX_TRY(cu_launched(d->m, qk_scan(d->q, &scan)));
    if (l->channels) {
        const qk_columns_args c = columns_args(t, what, block + l->columns);
        QX_TRY(cu_launched(d->m, qk_columns(d->q, &c)));
    }
    if (!l->histogram) return QX_OK;
    const qk_hist_args h = {.x = t->data, .parts = parts, .bins = (uint32_t *)(void *)(block + l->bins),
                            .exp = (int32_t *)(void *)(block + l->exp), .n = t->numel, .dtype = t->dtype, .n_parts = l->n_parts};
    QX_TRY(cu_zero(d->m, h.bins, BINS * sizeof *h.bins));
    return cu_launched(d->m, qk_histogram(d->q, &h));
}

static qx_status add_look(qx_dev *d, const qx_dev_tensor *t, const qx_dev_look *what, bool *full)
{
    look l = layout(t, what);
    void *block;
    if (t->numel < 1 || t->numel > UINT32_MAX || what->channels < 0)
        QX_FAIL(d->ctx, QX_E_UNSUPPORTED, "a look at %lld elements", (long long)t->numel);
    QX_TRY(make_room(d, &l, full));
    if (*full) return QX_OK;
    struct cu_looks *s = d->looks;
    QX_TRY(cu_alloc(d->m, l.bytes, &block));
    qx_status st = launch(d, t, what, &l, block);
    if (st == QX_OK) st = cu_download_later(d->m, s->pinned + l.at, block, l.bytes);
    cu_release(d->m, block);
    if (st != QX_OK) return st;
    s->used += l.bytes;
    s->all[s->n++] = l;
    return QX_OK;
}

qx_dev_status cu_observe_look(qx_dev *d, const qx_dev_tensor *t, const qx_dev_look *what)
{
    bool full = false;
    qx_ctx_clear_error(d->ctx);
    cu_machine_enter(d->m);
    const qx_dev_status st = done(add_look(d, t, what, &full));
    return st == QX_DEV_OK && full ? QX_DEV_FULL : st;
}

/* ---- what they saw ---- */

static void pair_add(double *p, double v)
{
    const double s = p[0] + v, t = s - p[0];
    p[1] += (p[0] - (s - t)) + (v - t);
    p[0] = s;
}

static void join(qx_dev_scan *into, const qk_scan_part *p, bool first)
{
    if (first || p->min < into->min) into->min = p->min;
    if (first || p->max > into->max) into->max = p->max;
    if (p->absmax > into->absmax) into->absmax = p->absmax;
    into->zeros += p->zeros;
    into->nonfinite += p->nonfinite;
    for (int j = 0; j < 2; j++) {
        pair_add(into->sum, p->sum[j]);
        pair_add(into->abs, p->abs[j]);
        pair_add(into->sumsq, p->sq[j]);
    }
}

static void read_look(const struct cu_looks *s, const look *l, qx_dev_seen *out)
{
    const char *block = s->pinned + l->at;
    const qk_scan_part *parts = (const qk_scan_part *)(const void *)block;
    memset(out, 0, sizeof *out);
    for (int i = 0; i < l->n_parts; i++) join(&out->scan, &parts[i], i == 0);
    if (l->histogram) {
        out->bins = (const uint32_t *)(const void *)(block + l->bins);
        memcpy(&out->exp, block + l->exp, sizeof out->exp);
    }
    if (!(out->channels = l->channels)) return;
    out->sum = (const double *)(const void *)(block + l->columns);
    out->abs = out->sum + 2 * l->channels;
    out->sumsq = out->abs + 2 * l->channels;
    out->min = (const float *)(const void *)(out->sumsq + 2 * l->channels);
    out->max = out->min + l->channels;
}

qx_dev_status cu_observe_gather(qx_dev *d, qx_dev_seen *out, int64_t n)
{
    struct cu_looks *s = d->looks;
    qx_ctx_clear_error(d->ctx);
    cu_machine_enter(d->m);
    qx_status st = cu_sync(d->m);
    if (st == QX_OK && n != (s ? s->n : 0))
        st = qx_fail(d->ctx, QX_E_FAIL, "%lld looks are gathered, there were %lld", (long long)n, (long long)(s ? s->n : 0));
    for (int64_t i = 0; i < n && st == QX_OK; i++) read_look(s, &s->all[i], &out[i]);
    if (s) s->n = 0, s->used = 0;
    return done(st);
}

void cu_observe_close(qx_dev *d)
{
    struct cu_looks *s = d->looks;
    if (!s) return;
    cu_sync(d->m); /* copies may still be under way */
    cu_unpin(d->m, s->pinned);
    qx_free(d->ctx, s->all);
    qx_free(d->ctx, s);
    d->looks = NULL;
}

/* ---- Gram matrices ---- */

struct qx_dev_gram { void *sums; int64_t k; };

/* Half of what is free at most: the model needs the rest. */
static qx_status gram_new(qx_dev *d, int64_t k, qx_dev_gram **out)
{
    const size_t bytes = (size_t)(k * k) * sizeof(double);
    qx_dev_info info;
    qx_dev_gram *g = NULL;
    cu_machine_info(d->m, &info);
    if (bytes > info.memory_free / 2) QX_FAIL(d->ctx, QX_E_NOMEM, "a Gram matrix of %zu bytes, %zu are free", bytes, info.memory_free);
    QX_TRY(QX_NEW(d->ctx, &g));
    g->k = k;
    qx_status st = cu_alloc(d->m, bytes, &g->sums);
    if (st == QX_OK) st = cu_zero(d->m, g->sums, bytes);
    if (st == QX_OK) *out = g;
    else {
        cu_release(d->m, g->sums);
        qx_free(d->ctx, g);
    }
    return st;
}

static qx_status gram_add(qx_dev *d, const qx_dev_tensor *t, int64_t rows, int64_t k, qx_dev_gram **g)
{
    if (k < 1 || k > INT32_MAX) QX_FAIL(d->ctx, QX_E_UNSUPPORTED, "a Gram matrix of %lld columns", (long long)k);
    if (!*g) QX_TRY(gram_new(d, k, g));
    if ((*g)->k != k) QX_FAIL(d->ctx, QX_E_SHAPE, "rows of %lld elements now, %lld before", (long long)k, (long long)(*g)->k);
    const qk_gram_args a = {.x = t->data, .gram = (*g)->sums, .rows = rows, .k = k, .dtype = t->dtype};
    return rows ? cu_launched(d->m, qk_gram(d->q, &a)) : QX_OK;
}

qx_dev_status cu_observe_gram_add(qx_dev *d, const qx_dev_tensor *t, int64_t rows, int64_t k, qx_dev_gram **g)
{
    qx_ctx_clear_error(d->ctx);
    cu_machine_enter(d->m);
    return done(gram_add(d, t, rows, k, g));
}

qx_dev_status cu_observe_gram_take(qx_dev *d, qx_dev_gram *g, double *gram)
{
    qx_ctx_clear_error(d->ctx);
    cu_machine_enter(d->m);
    const qx_status st = gram ? cu_download(d->m, gram, g->sums, (size_t)(g->k * g->k) * sizeof *gram) : QX_OK;
    cu_release(d->m, g->sums);
    qx_free(d->ctx, g);
    return done(st);
}

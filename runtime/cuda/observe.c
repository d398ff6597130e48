/* observe.c - observers on the device: only results come back (a few KB), never a tensor. */
#include <string.h>

#include "runtime/cuda/lib.h"

static qx_dev_status done(qx_status st)
{
    return st == QX_OK ? QX_DEV_OK : st == QX_E_NOMEM ? QX_DEV_NOMEM : QX_DEV_FAILED;
}

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

enum { PARTS = 1024, PART_ELEMENTS = 1024, BINS = 4096 }; /* a part: 128 threads with eight elements each at least */

static qx_status scan(qx_dev *d, const qx_dev_tensor *t, qx_dev_scan *out)
{
    qk_scan_part *host = NULL;
    qk_scan_args a = {.x = t->data, .n = t->numel, .dtype = t->dtype};
    int64_t parts = (t->numel + PART_ELEMENTS - 1) / PART_ELEMENTS;
    memset(out, 0, sizeof *out);
    if (t->numel == 0) return QX_OK;
    a.n_parts = (int32_t)(parts > PARTS ? PARTS : parts);
    const size_t bytes = (size_t)a.n_parts * sizeof *host;
    void *dev = NULL;
    QX_TRY(QX_NEW_ARRAY(d->ctx, (size_t)a.n_parts, &host));
    qx_status st = cu_alloc(d->m, bytes, &dev);
    a.parts = dev;
    if (st == QX_OK) st = cu_launched(d->m, qk_scan(d->q, &a));
    if (st == QX_OK) st = cu_download(d->m, host, dev, bytes);
    if (dev) cu_release(d->m, dev);
    for (int i = 0; i < a.n_parts && st == QX_OK; i++) join(out, &host[i], i == 0);
    qx_free(d->ctx, host);
    return st;
}

qx_dev_status cu_observe_scan(qx_dev *d, const qx_dev_tensor *t, qx_dev_scan *out)
{
    qx_ctx_clear_error(d->ctx);
    cu_machine_enter(d->m);
    return done(scan(d, t, out));
}

static qx_status histogram(qx_dev *d, const qx_dev_tensor *t, float inv_width, uint64_t *bins)
{
    uint32_t *host = NULL;
    void *dev;
    if (t->numel > UINT32_MAX) QX_FAIL(d->ctx, QX_E_UNSUPPORTED, "a histogram of %lld elements", (long long)t->numel);
    QX_TRY(QX_NEW_ARRAY(d->ctx, BINS, &host));
    qx_status st = cu_alloc(d->m, BINS * sizeof *host, &dev);
    if (st == QX_OK) {
        const qk_hist_args a = {.x = t->data, .bins = dev, .n = t->numel, .dtype = t->dtype, .inv_width = inv_width};
        st = cu_zero(d->m, dev, BINS * sizeof *host);
        if (st == QX_OK && t->numel) st = cu_launched(d->m, qk_histogram(d->q, &a));
        if (st == QX_OK) st = cu_download(d->m, host, dev, BINS * sizeof *host);
        cu_release(d->m, dev);
    }
    for (int i = 0; i < BINS && st == QX_OK; i++) bins[i] += host[i];
    qx_free(d->ctx, host);
    return st;
}

qx_dev_status cu_observe_histogram(qx_dev *d, const qx_dev_tensor *t, float inv_width, uint64_t *bins)
{
    qx_ctx_clear_error(d->ctx);
    cu_machine_enter(d->m);
    return done(histogram(d, t, inv_width, bins));
}

/* One block of device memory: sums (pairs) first, for their alignment. */
static qx_status columns(qx_dev *d, const qx_dev_tensor *t, const qx_dev_columns *c)
{
    const size_t n = (size_t)c->channels, bytes = n * (6 * sizeof(double) + 2 * sizeof(float));
    void *dev, *host = NULL;
    QX_TRY(qx_alloc(d->ctx, bytes, &host));
    qx_status st = cu_alloc(d->m, bytes, &dev);
    if (st == QX_OK) {
        double *s = dev;
        float *f = (float *)(void *)(s + 6 * n);
        const qk_columns_args a = {.x = t->data, .min = f, .max = f + n, .sum = s, .abs = s + 2 * n, .sq = s + 4 * n, .outer = c->outer, .channels = c->channels, .inner = c->inner, .dtype = t->dtype};
        st = cu_launched(d->m, qk_columns(d->q, &a));
        if (st == QX_OK) st = cu_download(d->m, host, dev, bytes);
        cu_release(d->m, dev);
    }
    if (st == QX_OK) {
        const double *s = host;
        const float *f = (const float *)(const void *)(s + 6 * n);
        memcpy(c->sum, s, 2 * n * sizeof *s);
        memcpy(c->abs, s + 2 * n, 2 * n * sizeof *s);
        memcpy(c->sumsq, s + 4 * n, 2 * n * sizeof *s);
        memcpy(c->min, f, n * sizeof *f);
        memcpy(c->max, f + n, n * sizeof *f);
    }
    qx_free(d->ctx, host);
    return st;
}

qx_dev_status cu_observe_columns(qx_dev *d, const qx_dev_tensor *t, const qx_dev_columns *c)
{
    qx_ctx_clear_error(d->ctx);
    cu_machine_enter(d->m);
    return done(columns(d, t, c));
}

static qx_status gram(qx_dev *d, const qx_dev_tensor *t, int64_t rows, int64_t k, double *out)
{
    const size_t bytes = (size_t)(k * k) * sizeof *out;
    void *dev;
    if (k < 1) return QX_OK;
    QX_TRY(cu_alloc(d->m, bytes, &dev));
    const qk_gram_args a = {.x = t->data, .gram = dev, .rows = rows, .stride = k, .k = k, .dtype = t->dtype};
    qx_status st = cu_zero(d->m, dev, bytes);
    if (st == QX_OK && rows) st = cu_launched(d->m, qk_gram(d->q, &a));
    if (st == QX_OK) st = cu_download(d->m, out, dev, bytes);
    cu_release(d->m, dev);
    return st;
}

qx_dev_status cu_observe_gram(qx_dev *d, const qx_dev_tensor *t, int64_t rows, int64_t k, double *out)
{
    qx_ctx_clear_error(d->ctx);
    cu_machine_enter(d->m);
    return done(gram(d, t, rows, k, out));
}

/* device_observe.c - observers of watched values that lie on a device: only results come to the host. */
#include "kernels/observe.h"
#include "runtime/device.h"

qx_status qx_exec_fetch(qx_exec *x, const qx_value *v, const qx_tensor **t)
{
    QX_TRY(qx_device_fetch(x, v->id));
    *t = &x->slots[v->id].t;
    return QX_OK;
}

static qx_dev_tensor plain_view(const qx_tensor *t)
{
    qx_dev_tensor d = {.dtype = (int32_t)t->dtype, .rank = t->rank, .numel = t->numel, .bytes = t->bytes, .data = t->data};
    for (int i = 0; i < t->rank; i++) d.dims[i] = t->dims[i];
    return d;
}

qx_status qx_exec_scan(qx_exec *x, const qx_tensor *t, qx_scan *out)
{
    const qx_dev_tensor d = plain_view(t);
    qx_dev_scan s;
    QX_TRY(qx_device_status(x, x->device->b->scan(x->device->dev, &d, &s), "scan"));
    *out = (qx_scan){.min = s.min, .max = s.max, .absmax = s.absmax, .n = t->numel, .zeros = s.zeros, .nonfinite = s.nonfinite != 0, .sum = {s.sum[0], s.sum[1]},
                     .abs = {s.abs[0], s.abs[1]}, .sumsq = {s.sumsq[0], s.sumsq[1]}};
    return QX_OK;
}

qx_status qx_exec_histogram(qx_exec *x, const qx_tensor *t, float inv_width, uint64_t *bins)
{
    const qx_dev_tensor d = plain_view(t);
    return qx_device_status(x, x->device->b->histogram(x->device->dev, &d, inv_width, bins), "histogram");
}

static void join(const qx_columns *acc, const qx_dev_columns *c)
{
    for (int64_t i = 0; i < c->channels; i++) {
        if (c->min[i] < acc->min[i]) acc->min[i] = c->min[i];
        if (c->max[i] > acc->max[i]) acc->max[i] = c->max[i];
        acc->sum[i] = qx_dd_join(acc->sum[i], (qx_dd){c->sum[2 * i], c->sum[2 * i + 1]});
        acc->abs[i] = qx_dd_join(acc->abs[i], (qx_dd){c->abs[2 * i], c->abs[2 * i + 1]});
        acc->sq[i] = qx_dd_join(acc->sq[i], (qx_dd){c->sumsq[2 * i], c->sumsq[2 * i + 1]});
    }
}

qx_status qx_exec_columns(qx_exec *x, const qx_tensor *t, int64_t outer, int64_t n, int64_t inner, const qx_columns *acc)
{
    const qx_dev_tensor d = plain_view(t);
    double *sums = NULL;
    float *ends = NULL;
    QX_TRY(QX_NEW_ARRAY(x->ctx, 6 * n, &sums));
    qx_status st = QX_NEW_ARRAY(x->ctx, 2 * n, &ends);
    const qx_dev_columns c = {outer, n, inner, ends, ends + n, sums, sums + 2 * n, sums + 4 * n};
    if (st == QX_OK) st = qx_device_status(x, x->device->b->columns(x->device->dev, &d, &c), "columns");
    if (st == QX_OK) join(acc, &c);
    qx_free(x->ctx, sums);
    qx_free(x->ctx, ends);
    return st;
}

qx_status qx_exec_gram(qx_exec *x, const qx_tensor *t, double *gram)
{
    const qx_dev_tensor d = plain_view(t);
    const int64_t k = t->rank ? t->dims[t->rank - 1] : 1;
    return qx_device_status(x, x->device->b->gram(x->device->dev, &d, k ? t->numel / k : 0, k, gram), "Gram matrix");
}

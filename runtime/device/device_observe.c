/* device_observe.c - observers of watched values that lie on a device: only results come to the host, and nobody waits for them
 * before the run ends or the device has no room for more of them. */
#include "kernels/observe.h"
#include "runtime/device/device.h"

typedef struct qx_pending_look { qx_look_fn *fn; void *user; int64_t numel; } qx_pending_look;

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

static qx_dd *pairs(const double *p) { return (qx_dd *)(uintptr_t)p; } /* hi, lo */

static qx_seen seen_of(const qx_dev_seen *s, int64_t numel)
{
    const qx_dev_scan *r = &s->scan;
    return (qx_seen){.scan = {.min = r->min, .max = r->max, .absmax = r->absmax, .n = numel, .zeros = r->zeros,
                              .nonfinite = r->nonfinite != 0, .sum = {r->sum[0], r->sum[1]},
                              .abs = {r->abs[0], r->abs[1]}, .sumsq = {r->sumsq[0], r->sumsq[1]}},
                     .exp = s->exp, .bins = s->bins, .channels = s->channels,
                     .columns = {(float *)(uintptr_t)s->min, (float *)(uintptr_t)s->max, pairs(s->sum), pairs(s->abs), pairs(s->sumsq)}};
}

/* Everyone is told once, whatever happens: what they keep for it is theirs to free. */
qx_status qx_device_gather(qx_exec *x, qx_status st)
{
    qx_gpu *d = x->device;
    const int64_t n = d->n_looks;
    qx_dev_seen *seen = NULL;
    if (!n) return st;
    d->n_looks = 0;
    const qx_status room = qx_alloc_array(x->ctx, (size_t)n, sizeof *seen, (void **)&seen);
    if (st == QX_OK) st = room;
    const qx_dev_status got = d->b->gather(d->dev, seen, room == QX_OK ? n : 0); /* a failed run's too: they are out of the way then */
    if (st == QX_OK) st = qx_device_status(x, got, "gather what was observed");
    for (int64_t i = 0; i < n; i++) {
        const qx_pending_look *l = &d->looks[i];
        const qx_seen s = st == QX_OK ? seen_of(&seen[i], l->numel) : (qx_seen){.exp = 0};
        const qx_status told = l->fn(l->user, st == QX_OK ? &s : NULL);
        if (st == QX_OK) st = told;
    }
    qx_free(x->ctx, seen);
    return st;
}

qx_status qx_exec_look(qx_exec *x, const qx_tensor *t, const qx_look *what, qx_look_fn *fn, void *user)
{
    qx_gpu *d = x->device;
    const qx_dev_tensor v = plain_view(t);
    const qx_dev_look w = {what->histogram, what->outer, what->channels, what->inner};
    const qx_pending_look look = {fn, user, t->numel};
    QX_TRY(qx_grow(x->ctx, (void **)&d->looks, d->n_looks, &d->cap_looks, sizeof *d->looks));
    qx_dev_status st = d->b->look(d->dev, &v, &w);
    if (st == QX_DEV_FULL) {
        QX_TRY(qx_device_gather(x, QX_OK));
        st = d->b->look(d->dev, &v, &w);
    }
    QX_TRY(qx_device_status(x, st, "observe"));
    d->looks[d->n_looks++] = look;
    return QX_OK;
}

qx_status qx_exec_gram_add(qx_exec *x, const qx_tensor *t, void **sum)
{
    const qx_dev_tensor v = plain_view(t);
    const int64_t k = t->rank ? t->dims[t->rank - 1] : 1;
    return qx_device_status(x, x->device->b->gram_add(x->device->dev, &v, k ? t->numel / k : 0, k, (qx_dev_gram **)sum), "Gram matrix");
}

qx_status qx_exec_gram_take(qx_exec *x, void *sum, double *gram)
{
    return qx_device_status(x, x->device->b->gram_take(x->device->dev, sum, gram), "Gram matrix");
}

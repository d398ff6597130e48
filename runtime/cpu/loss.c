/* loss.c - NegativeLogLikelihoodLoss and SoftmaxCrossEntropyLoss over [N, C, d1..] scores and [N, d1..] labels. */
#include <math.h>
#include <string.h>

#include "runtime/cpu/op.h"

typedef struct loss {
    const qx_tensor *x, *labels;
    const float *w;
    const int64_t *t;
    int64_t n, c, d;
    bool has_ignore;
    int64_t ignore;
    const char *reduction;
} loss;

static qx_status setup(qx_call *c, loss *l)
{
    int64_t n;
    QX_TRY(qx_call_need(c, 0, &l->x));
    QX_TRY(qx_call_need(c, 1, &l->labels));
    QX_TRY(qx_call_in_i64(c, 1, &l->t, &n));
    if (l->x->rank < 2 || l->labels->rank != l->x->rank - 1)
        QX_CALL_FAIL(c, QX_E_SHAPE, "scores of rank %d, labels of rank %d", l->x->rank, l->labels->rank);
    l->n = l->x->dims[0];
    l->c = l->x->dims[1];
    l->d = qx_prod(l->x->dims, 2, l->x->rank);
    if (n != l->n * l->d) QX_CALL_FAIL(c, QX_E_SHAPE, "%lld labels for %lld positions", (long long)n, (long long)(l->n * l->d));
    l->w = NULL;
    if (qx_call_in(c, 2)) QX_TRY(qx_call_in_f32(c, 2, &l->w));
    if (l->w && qx_call_in(c, 2)->numel != l->c)
        QX_CALL_FAIL(c, QX_E_SHAPE, "%lld class weights for %lld classes", (long long)qx_call_in(c, 2)->numel, (long long)l->c);
    l->has_ignore = qx_call_attr(c, "ignore_index") != NULL;
    l->ignore = qx_call_int(c, "ignore_index", 0);
    l->reduction = qx_call_str(c, "reduction", "mean");
    return QX_OK;
}

/* From log-probabilities lp[N, C, D] to the loss at output 0. */
static qx_status reduce(qx_call *c, const loss *l, const float *lp)
{
    const bool none = !strcmp(l->reduction, "none");
    double sum = 0, weight = 0;
    float *y;
    QX_TRY(qx_call_out_f32(c, 0, l->x->dtype, none ? l->labels->rank : 0, l->labels->dims, &y));
    for (int64_t i = 0; i < l->n * l->d; i++) {
        const int64_t t = l->t[i], b = i / l->d, p = i % l->d;
        float v = 0;
        if (!(l->has_ignore && t == l->ignore)) {
            if (t < 0 || t >= l->c) QX_CALL_FAIL(c, QX_E_SHAPE, "label %lld of %lld classes", (long long)t, (long long)l->c);
            const float w = l->w ? l->w[t] : 1;
            v = -lp[(b * l->c + t) * l->d + p] * w;
            weight += (double)w;
        }
        if (none) y[i] = v;
        sum += (double)v;
    }
    if (!none) y[0] = (float)(!strcmp(l->reduction, "sum") ? sum : sum / weight);
    return QX_OK;
}

qx_status qx_cpu_nll_loss(qx_call *c)
{
    loss l;
    const float *x;
    QX_TRY(setup(c, &l));
    QX_TRY(qx_call_in_f32(c, 0, &x));
    return reduce(c, &l, x);
}

static void log_softmax(const float *x, int64_t n, int64_t classes, int64_t d, float *y)
{
    for (int64_t i = 0; i < n * d; i++) {
        const float *s = x + i / d * classes * d + i % d;
        float *o = y + i / d * classes * d + i % d, top = -INFINITY;
        double sum = 0;
        for (int64_t k = 0; k < classes; k++) top = fmaxf(top, s[k * d]);
        for (int64_t k = 0; k < classes; k++) sum += exp((double)(s[k * d] - top));
        for (int64_t k = 0; k < classes; k++) o[k * d] = (float)((double)(s[k * d] - top) - log(sum));
    }
}

qx_status qx_cpu_sce_loss(qx_call *c)
{
    loss l;
    const float *x;
    float *lp;
    QX_TRY(setup(c, &l));
    QX_TRY(qx_call_in_f32(c, 0, &x));
    if (c->n_out > 1) QX_TRY(qx_call_out_f32(c, 1, l.x->dtype, l.x->rank, l.x->dims, &lp));
    else QX_TRY(QX_CALL_SCRATCH(c, l.x->numel + 1, &lp));
    log_softmax(x, l.n, l.c, l.d, lp);
    return reduce(c, &l, lp);
}

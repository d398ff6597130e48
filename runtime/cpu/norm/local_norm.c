/* local_norm.c - LRN (a channel is divided by the energy of its neighbours) and MeanVarianceNormalization (mean 0 and variance 1
 * along axes). */
#include <math.h>

#include "kernels/rows.h"
#include "runtime/cpu/move/strided.h"

typedef struct lrn { const float *x; float *y; int64_t channels, pixels, size; double alpha, beta, bias; } lrn;

/* One channel of one picture: the standard's window [c - floor((size - 1) / 2), c + ceil((size - 1) / 2)]. */
static qx_status lrn_channel(void *user, int64_t i)
{
    const lrn *l = user;
    const int64_t c = i % l->channels, base = i - c, lo = c - (l->size - 1) / 2, hi = c + l->size / 2;
    for (int64_t p = 0; p < l->pixels; p++) {
        double sum = 0;
        for (int64_t k = lo < 0 ? 0 : lo; k <= hi && k < l->channels; k++) {
            const double v = (double)l->x[(base + k) * l->pixels + p];
            sum += v * v;
        }
        l->y[i * l->pixels + p] = (float)((double)l->x[i * l->pixels + p] / pow(l->bias + l->alpha / (double)l->size * sum, l->beta));
    }
    return QX_OK;
}

qx_status qx_cpu_lrn(qx_call *c)
{
    const qx_tensor *x;
    lrn l = {.size = qx_call_int(c, "size", 0), .alpha = (double)qx_call_float(c, "alpha", 1e-4f),
             .beta = (double)qx_call_float(c, "beta", 0.75f), .bias = (double)qx_call_float(c, "bias", 1.0f)};
    QX_TRY(qx_call_need(c, 0, &x));
    if (x->rank < 2 || l.size < 1) QX_CALL_FAIL(c, QX_E_SHAPE, "size %lld and an input of rank %d", (long long)l.size, x->rank);
    l.channels = x->dims[1];
    l.pixels = qx_prod(x->dims, 2, x->rank);
    QX_TRY(qx_call_in_f32(c, 0, &l.x));
    QX_TRY(qx_call_out_f32(c, 0, x->dtype, x->rank, x->dims, &l.y));
    return qx_parallel(c->ctx, x->dims[0] * l.channels, lrn_channel, &l);
}

typedef struct mvn { float *rows; int64_t n; } mvn;

/* The function's definition: (x - mean) / (sqrt(E(x^2) - mean^2) + 1e-9), in double where it subtracts. */
static qx_status mvn_row(void *user, int64_t i)
{
    const mvn *m = user;
    float *x = m->rows + i * m->n;
    double s = 0, v = 0;
    for (int64_t k = 0; k < m->n; k++) s += (double)x[k];
    s /= (double)m->n;
    for (int64_t k = 0; k < m->n; k++) v += ((double)x[k] - s) * ((double)x[k] - s);
    const double inv = 1.0 / (sqrt(v / (double)m->n) + 1e-9);
    for (int64_t k = 0; k < m->n; k++) x[k] = (float)(((double)x[k] - s) * inv);
    return QX_OK;
}

/* The axes are brought behind the others, normalized as rows, and brought back. */
qx_status qx_cpu_mvn(qx_call *c)
{
    static const int64_t usual[3] = {0, 2, 3};
    const qx_tensor *x;
    const float *f;
    float *y, *t = NULL;
    int64_t count;
    const int64_t *axes = qx_call_ints(c, "axes", &count);
    bool inner[QX_MAX_RANK] = {false};
    QX_TRY(qx_call_need(c, 0, &x));
    if (!axes) axes = usual, count = 3;
    for (int64_t i = 0; i < count; i++) {
        int a;
        QX_TRY(qx_call_axis(c, axes[i], x->rank, &a));
        inner[a] = true;
    }
    QX_TRY(qx_call_in_f32(c, 0, &f));
    QX_TRY(qx_call_out_f32(c, 0, x->dtype, x->rank, x->dims, &y));
    if (x->numel == 0) return QX_OK;
    qx_strided there = {.rank = x->rank}, back = {.rank = x->rank};
    int order[QX_MAX_RANK], at = 0;
    mvn m = {.n = 1};
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < x->rank; i++)
            if (inner[i] == (pass == 1)) order[at++] = i;
    int64_t step = 1;
    for (int i = x->rank - 1; i >= 0; i--) {
        const int a = order[i];
        there.dims[i] = back.dims[a] = x->dims[a];
        there.stride[i] = qx_prod(x->dims, a + 1, x->rank);
        back.dims[a] = x->dims[a];
        back.stride[a] = step;
        step *= x->dims[a];
        if (inner[a]) m.n *= x->dims[a];
    }
    QX_TRY(QX_CALL_SCRATCH(c, x->numel, &t));
    QX_TRY(qx_strided_copy(c->ctx, &there, f, t, sizeof *t));
    m.rows = t;
    QX_TRY(qx_parallel(c->ctx, x->numel / m.n, mvn_row, &m));
    return qx_strided_copy(c->ctx, &back, t, y, sizeof *t);
}

/* pool.c - MaxPool, AveragePool, LpPool and their global forms; Clip, CumSum, CumProd, BatchNormalization.
 * Windows may reach beyond the input: MaxPool and LpPool skip what is outside, AveragePool counts it when count_include_pad says so (never what
 * ceil_mode adds behind the padding). */
#include <math.h>
#include <string.h>

#include "runtime/cpu/strided.h"

typedef struct pool {
    const float *x;
    float *y;
    int64_t *arg;                /* flat index of the maximum in the input; NULL: not asked for */
    int spatial;
    int64_t in[3], out[3], kernel[3], stride[3], dilation[3], begin[3], end[3];
    int64_t plane, out_plane;
    float p;
    bool count_pad, column;
    qx_op_id op;
} pool;

static qx_status values(const qx_call *c, const char *name, int n, int64_t fallback, int64_t min, int64_t *out)
{
    int64_t count;
    const int64_t *v = qx_call_ints(c, name, &count);
    if (v && count != n) QX_CALL_FAIL(c, QX_E_SHAPE, "%s has %lld entries, %d are needed", name, (long long)count, n);
    for (int i = 0; i < n; i++) {
        out[i] = v ? v[i] : fallback;
        if (out[i] < min || out[i] > INT32_MAX) QX_CALL_FAIL(c, QX_E_SHAPE, "%s entry %d is %lld", name, i, (long long)out[i]);
    }
    return QX_OK;
}

static qx_status extent(const qx_call *c, pool *p, int i, const char *mode, bool ceil_mode)
{
    const int64_t span = (p->kernel[i] - 1) * p->dilation[i] + 1, s = p->stride[i];
    if (strncmp(mode, "SAME", 4) == 0) {
        p->out[i] = (p->in[i] + s - 1) / s;
        int64_t total = (p->out[i] - 1) * s + span - p->in[i];
        total = total < 0 ? 0 : total;
        p->begin[i] = strcmp(mode, "SAME_LOWER") == 0 ? total - total / 2 : total / 2;
        p->end[i] = total - p->begin[i];
        return QX_OK;
    }
    if (strcmp(mode, "VALID") == 0) p->begin[i] = p->end[i] = 0;
    const int64_t room = p->in[i] + p->begin[i] + p->end[i] - span;
    if (room < 0) QX_CALL_FAIL(c, QX_E_SHAPE, "kernel spans %lld of axis %d, the padded input has %lld", (long long)span, i, (long long)(room + span));
    p->out[i] = (ceil_mode ? room + s - 1 : room) / s + 1;
    if (ceil_mode && (p->out[i] - 1) * s >= p->in[i] + p->begin[i]) p->out[i]--; /* a window that starts behind the input */
    return QX_OK;
}

static qx_status setup(qx_call *c, const qx_tensor *x, pool *p)
{
    int64_t ends[6];
    p->spatial = x->rank - 2;
    if (p->spatial < 1 || p->spatial > 3) QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "%d spatial axes", p->spatial);
    if (!qx_call_attr(c, "kernel_shape")) QX_CALL_FAIL(c, QX_E_SHAPE, "no kernel_shape");
    QX_TRY(values(c, "kernel_shape", p->spatial, 1, 1, p->kernel));
    QX_TRY(values(c, "strides", p->spatial, 1, 1, p->stride));
    QX_TRY(values(c, "dilations", p->spatial, 1, 1, p->dilation));
    QX_TRY(values(c, "pads", 2 * p->spatial, 0, 0, ends));
    p->plane = p->out_plane = 1;
    for (int i = 0; i < p->spatial; i++) {
        p->in[i] = x->dims[2 + i];
        p->begin[i] = ends[i];
        p->end[i] = ends[i + p->spatial];
        QX_TRY(extent(c, p, i, qx_call_str(c, "auto_pad", "NOTSET"), qx_call_int(c, "ceil_mode", 0) != 0));
        p->plane *= p->in[i];
        p->out_plane *= p->out[i];
    }
    p->p = qx_call_float(c, "p", (float)qx_call_int(c, "p", 2));
    p->count_pad = qx_call_int(c, "count_include_pad", 0) != 0;
    p->column = qx_call_int(c, "storage_order", 0) != 0;
    p->op = c->node->op->id;
    return QX_OK;
}

typedef struct window { int64_t lo[3], n[3]; int64_t padded; } window; /* taps [lo, lo + n) are inside; padded: taps inside of input and padding */

static void window_at(const pool *p, int64_t o, window *w)
{
    w->padded = 1;
    for (int i = p->spatial - 1; i >= 0; o /= p->out[i], i--) {
        const int64_t first = o % p->out[i] * p->stride[i] - p->begin[i], d = p->dilation[i];
        const int64_t lo = first < 0 ? (-first + d - 1) / d : 0;
        int64_t hi = p->in[i] > first ? (p->in[i] - first + d - 1) / d : 0, pad = p->in[i] + p->end[i] > first ? (p->in[i] + p->end[i] - first + d - 1) / d : 0;
        hi = hi > p->kernel[i] ? p->kernel[i] : hi;
        w->padded *= pad > p->kernel[i] ? p->kernel[i] : pad;
        w->lo[i] = first + lo * d;
        w->n[i] = hi > lo ? hi - lo : 0;
    }
}

static void pool_one(const pool *p, const float *x, int64_t o, int64_t plane, float *y)
{
    window w;
    int64_t n = 1, best = -1;
    float m = -INFINITY;
    double s = 0;
    window_at(p, o, &w);
    for (int i = 0; i < p->spatial; i++) n *= w.n[i];
    for (int64_t t = 0; t < n; t++) {
        int64_t at = 0, rest = t, pos[3] = {0, 0, 0};
        for (int i = p->spatial - 1; i >= 0; rest /= w.n[i], i--) pos[i] = w.lo[i] + rest % w.n[i] * p->dilation[i];
        for (int i = 0; i < p->spatial; i++) at = at * p->in[i] + pos[i];
        if (p->op == QX_OP_AveragePool) s += (double)x[at];
        else if (p->op == QX_OP_LpPool) s += pow(fabs((double)x[at]), (double)p->p);
        else if (best < 0 || x[at] > m || isnan(x[at])) {
            m = x[at];
            best = at;
            if (p->column) for (int i = p->spatial - 1, k = best = 0; i >= k; i--) best = best * p->in[i] + pos[i];
        }
    }
    if (p->arg) p->arg[plane * p->out_plane + o] = plane * p->plane + (best < 0 ? 0 : best);
    if (p->op == QX_OP_AveragePool) *y = (float)(s / (double)(p->count_pad ? w.padded : n));
    else *y = p->op == QX_OP_LpPool ? (float)pow(s, 1.0 / (double)p->p) : m;
}

static qx_status pool_piece(void *user, int64_t plane)
{
    const pool *p = user;
    for (int64_t o = 0; o < p->out_plane; o++) pool_one(p, p->x + plane * p->plane, o, plane, p->y + plane * p->out_plane + o);
    return QX_OK;
}

qx_status qx_cpu_pool(qx_call *c)
{
    const qx_tensor *x;
    pool p = {0};
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(setup(c, x, &p));
    QX_TRY(qx_call_in_f32(c, 0, &p.x));
    int64_t dims[5] = {x->dims[0], x->dims[1], p.out[0], p.out[1], p.out[2]};
    qx_tensor *arg = NULL, *y = NULL;
    if (qx_dtype_is_float(x->dtype)) {
        QX_TRY(qx_call_out_f32(c, 0, x->dtype, x->rank, dims, &p.y));
    } else { /* 8-bit maxima are exact in float */
        if (qx_dtype_bits((int)x->dtype) != 8) QX_CALL_FAIL(c, QX_E_TYPE, "not defined for %s", qx_dtype_get((int)x->dtype)->text);
        QX_TRY(qx_call_out(c, 0, x->dtype, x->rank, dims, &y));
        QX_TRY(QX_CALL_SCRATCH(c, y->numel + 1, &p.y));
    }
    if (p.op == QX_OP_MaxPool && c->n_out > 1) {
        QX_TRY(qx_call_out(c, 1, QX_DT_INT64, x->rank, dims, &arg));
        p.arg = arg->data;
    }
    QX_TRY(qx_parallel(c->ctx, x->dims[0] * x->dims[1], pool_piece, &p));
    if (y) qx_from_f32((int)x->dtype, p.y, y->numel, y->data);
    return QX_OK;
}

qx_status qx_cpu_global_pool(qx_call *c)
{
    const qx_tensor *x;
    const float *f;
    float *y;
    int64_t dims[QX_MAX_RANK];
    const qx_op_id op = c->node->op->id;
    const double p = qx_call_attr(c, "p") && c->version == 1 ? (double)qx_call_float(c, "p", 2) : (double)qx_call_int(c, "p", 2);
    QX_TRY(qx_call_need(c, 0, &x));
    if (x->rank < 3) QX_CALL_FAIL(c, QX_E_SHAPE, "input of rank %d", x->rank);
    QX_TRY(qx_call_in_f32(c, 0, &f));
    for (int i = 0; i < x->rank; i++) dims[i] = i < 2 ? x->dims[i] : 1;
    QX_TRY(qx_call_out_f32(c, 0, x->dtype, x->rank, dims, &y));
    const int64_t n = qx_prod(x->dims, 2, x->rank), planes = x->dims[0] * x->dims[1];
    for (int64_t i = 0; i < planes; i++, f += n) {
        double s = op == QX_OP_GlobalMaxPool ? -INFINITY : 0;
        for (int64_t k = 0; k < n; k++) {
            const double v = (double)f[k];
            if (op == QX_OP_GlobalMaxPool) s = v > s || isnan(v) ? v : s;
            else s += op == QX_OP_GlobalAveragePool ? v : pow(fabs(v), p);
        }
        y[i] = (float)(op == QX_OP_GlobalAveragePool ? s / (double)n : op == QX_OP_GlobalLpPool ? pow(s, 1.0 / p) : s);
    }
    return QX_OK;
}

/* ---- Clip: numpy's minimum(maximum(x, lo), hi), so hi wins when lo is larger; NaN stays ---- */

#define CLIP(T) { const T *a = x->data; T *b = y->data, lo = 0, hi = 0; \
    if (tl) memcpy(&lo, tl->data, sizeof lo); \
    if (th) memcpy(&hi, th->data, sizeof hi); \
    for (int64_t i = 0; i < x->numel; i++) { T v = a[i]; v = tl && v < lo ? lo : v; b[i] = th && v > hi ? hi : v; } }

static qx_status clip_float(qx_call *c, const qx_tensor *x)
{
    double lo, hi;
    const float *f;
    float *y;
    if (c->version < 11) {
        lo = (double)qx_call_float(c, "min", -INFINITY);
        hi = (double)qx_call_float(c, "max", INFINITY);
    } else {
        QX_TRY(qx_call_scalar_f64(c, 1, -INFINITY, &lo));
        QX_TRY(qx_call_scalar_f64(c, 2, INFINITY, &hi));
    }
    QX_TRY(qx_call_in_f32(c, 0, &f));
    QX_TRY(qx_call_out_f32(c, 0, x->dtype, x->rank, x->dims, &y));
    const float l = (float)lo, h = (float)hi;
    for (int64_t i = 0; i < x->numel; i++) {
        const float v = f[i] < l ? l : f[i];
        y[i] = v > h ? h : v;
    }
    return QX_OK;
}

qx_status qx_cpu_clip(qx_call *c)
{
    const qx_tensor *x, *tl = qx_call_in(c, 1), *th = qx_call_in(c, 2);
    qx_tensor *y;
    QX_TRY(qx_call_need(c, 0, &x));
    if (x->dtype != QX_DT_DOUBLE && qx_dtype_is_float(x->dtype)) return clip_float(c, x);
    if ((tl && (tl->dtype != x->dtype || tl->numel != 1)) || (th && (th->dtype != x->dtype || th->numel != 1))) QX_CALL_FAIL(c, QX_E_TYPE, "min and max must be one %s each", qx_dtype_get((int)x->dtype)->text);
    QX_TRY(qx_call_out(c, 0, x->dtype, x->rank, x->dims, &y));
    switch (x->dtype) {
    case QX_DT_DOUBLE: CLIP(double) return QX_OK;
    case QX_DT_INT64: CLIP(int64_t) return QX_OK;
    case QX_DT_UINT64: CLIP(uint64_t) return QX_OK;
    case QX_DT_INT32: CLIP(int32_t) return QX_OK;
    case QX_DT_UINT32: CLIP(uint32_t) return QX_OK;
    case QX_DT_INT16: CLIP(int16_t) return QX_OK;
    case QX_DT_UINT16: CLIP(uint16_t) return QX_OK;
    case QX_DT_INT8: CLIP(int8_t) return QX_OK;
    case QX_DT_UINT8: CLIP(uint8_t) return QX_OK;
    default: QX_CALL_FAIL(c, QX_E_TYPE, "not defined for %s", qx_dtype_get((int)x->dtype)->text);
    }
}

/* ---- CumSum, CumProd ---- */

#define CUMULATE(T, W) { const T *a = xd; T *b = yd; \
    for (int64_t i = 0; i < outer * inner; i++) { \
        W s = prod ? 1 : 0; \
        for (int64_t k = 0; k < n; k++) { \
            const int64_t at = (i / inner * n + (reverse ? n - 1 - k : k)) * inner + i % inner; \
            const W next = prod ? s * (W)a[at] : s + (W)a[at]; \
            b[at] = (T)(exclusive ? s : next); \
            s = next; } } }

qx_status qx_cpu_cumulate(qx_call *c)
{
    const qx_tensor *x;
    int64_t where;
    int axis;
    const bool prod = c->node->op->id == QX_OP_CumProd, reverse = qx_call_int(c, "reverse", 0) != 0, exclusive = qx_call_int(c, "exclusive", 0) != 0;
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_scalar_i64(c, 1, 0, &where));
    QX_TRY(qx_call_axis(c, where, x->rank, &axis));
    const int64_t n = x->dims[axis], outer = qx_prod(x->dims, 0, axis), inner = qx_prod(x->dims, axis + 1, x->rank);
    const void *xd = x->data;
    void *yd = NULL;
    if (x->dtype != QX_DT_DOUBLE && qx_dtype_is_float(x->dtype)) {
        const float *f;
        float *y;
        QX_TRY(qx_call_in_f32(c, 0, &f));
        QX_TRY(qx_call_out_f32(c, 0, x->dtype, x->rank, x->dims, &y));
        xd = f;
        yd = y;
        if (x->numel) CUMULATE(float, float)
        return QX_OK;
    }
    qx_tensor *y;
    QX_TRY(qx_call_out(c, 0, x->dtype, x->rank, x->dims, &y));
    yd = y->data;
    if (x->numel == 0) return QX_OK;
    switch (x->dtype) {
    case QX_DT_DOUBLE: CUMULATE(double, double) return QX_OK;
    case QX_DT_INT64: CUMULATE(int64_t, uint64_t) return QX_OK;
    case QX_DT_UINT64: CUMULATE(uint64_t, uint64_t) return QX_OK;
    case QX_DT_INT32: CUMULATE(int32_t, uint32_t) return QX_OK;
    case QX_DT_UINT32: CUMULATE(uint32_t, uint32_t) return QX_OK;
    default: QX_CALL_FAIL(c, QX_E_TYPE, "not defined for %s", qx_dtype_get((int)x->dtype)->text);
    }
}

/* ---- BatchNormalization with given statistics ---- */

qx_status qx_cpu_batch_norm(qx_call *c)
{
    const qx_tensor *x;
    const float *f, *p[4];
    float *y;
    QX_TRY(qx_call_need(c, 0, &x));
    if (qx_call_int(c, "training_mode", 0) || (c->version < 7 && !qx_call_int(c, "is_test", 0))) QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "training mode");
    const int64_t ch = x->rank > 1 ? x->dims[1] : 1, inner = x->rank > 1 ? qx_prod(x->dims, 2, x->rank) : 1;
    for (uint32_t i = 0; i < 4; i++) {
        const qx_tensor *t;
        QX_TRY(qx_call_need(c, i + 1, &t));
        if (t->numel != ch) QX_CALL_FAIL(c, QX_E_SHAPE, "input %u has %lld elements for %lld channels", i + 1, (long long)t->numel, (long long)ch);
        QX_TRY(qx_call_in_f32(c, i + 1, &p[i]));
    }
    QX_TRY(qx_call_in_f32(c, 0, &f));
    QX_TRY(qx_call_out_f32(c, 0, x->dtype, x->rank, x->dims, &y));
    const double eps = (double)qx_call_float(c, "epsilon", 1e-5f);
    for (int64_t r = 0; inner && r < x->numel / inner; r++) {
        const int64_t k = r % ch;
        const float a = (float)((double)p[0][k] / sqrt((double)p[3][k] + eps)), m = p[2][k], b = p[1][k];
        for (int64_t i = r * inner; i < (r + 1) * inner; i++) y[i] = (f[i] - m) * a + b;
    }
    return QX_OK;
}

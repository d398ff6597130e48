/* clip.c - Clip: numpy's minimum(maximum(x, lo), hi), so hi wins when lo is larger; NaN stays. Every numeric type in its own arithmetic. */
#include <math.h>
#include <string.h>

#include "runtime/cpu/op.h"

#define CLIP(T) { const T *a = x->data; T *b = y->data, lo = 0, hi = 0; \
    if (tl) memcpy(&lo, tl->data, sizeof lo); \
    if (th) memcpy(&hi, th->data, sizeof hi); \
    for (int64_t i = 0; i < x->numel; i++) { T v = a[i]; v = tl && v < lo ? lo : v; b[i] = th && v > hi ? hi : v; } }

enum { PIECE = 1 << 14 };
typedef struct job { const float *x; float *y; int64_t n; float lo, hi; } job;

static qx_status piece(void *user, int64_t i)
{
    const job *j = user;
    const int64_t first = i * PIECE, n = j->n - first < PIECE ? j->n - first : PIECE;
    const float *x = j->x + first, lo = j->lo, hi = j->hi;
    float *y = j->y + first;
    for (int64_t k = 0; k < n; k++) {
        const float v = x[k] < lo ? lo : x[k];
        y[k] = v > hi ? hi : v;
    }
    return QX_OK;
}

static qx_status clip_float(qx_call *c, const qx_tensor *x)
{
    double lo, hi;
    qx_tensor *y = NULL;
    job j = {.n = x->numel};
    if (c->version < 11) {
        lo = (double)qx_call_float(c, "min", -INFINITY);
        hi = (double)qx_call_float(c, "max", INFINITY);
    } else {
        QX_TRY(qx_call_scalar_f64(c, 1, -INFINITY, &lo));
        QX_TRY(qx_call_scalar_f64(c, 2, INFINITY, &hi));
    }
    j.lo = (float)lo;
    j.hi = (float)hi;
    QX_TRY(qx_call_in_f32(c, 0, &j.x));
    if (x->dtype == QX_DT_FLOAT) {
        QX_TRY(qx_call_out_reuse(c, 0, 0, x->dtype, x->rank, x->dims, &y));
        j.y = y->data;
    } else {
        QX_TRY(qx_call_out_f32(c, 0, x->dtype, x->rank, x->dims, &j.y));
    }
    return qx_parallel(c->ctx, (j.n + PIECE - 1) / PIECE, piece, &j);
}

qx_status qx_cpu_clip(qx_call *c)
{
    const qx_tensor *x, *tl = qx_call_in(c, 1), *th = qx_call_in(c, 2);
    qx_tensor *y;
    QX_TRY(qx_call_need(c, 0, &x));
    if (x->dtype != QX_DT_DOUBLE && qx_dtype_is_float(x->dtype)) return clip_float(c, x);
    if ((tl && (tl->dtype != x->dtype || tl->numel != 1)) || (th && (th->dtype != x->dtype || th->numel != 1)))
        QX_CALL_FAIL(c, QX_E_TYPE, "min and max must be one %s each", qx_dtype_get((int)x->dtype)->text);
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

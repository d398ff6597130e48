/* cumulate.c - CumSum and CumProd along one axis, forwards or backwards, with or without the element itself. Integers wrap. */
#include "runtime/cpu/op.h"

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
    const bool prod = c->node->op->id == QX_OP_CumProd, reverse = qx_call_int(c, "reverse", 0) != 0,
        exclusive = qx_call_int(c, "exclusive", 0) != 0;
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

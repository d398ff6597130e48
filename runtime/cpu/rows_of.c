/* rows_of.c - the step behind runtime/fuse_rows.c. */
#include "onnx/weight.h"
#include "runtime/fuse.h"

qx_status qx_cpu_rows_of(qx_call *c)
{
    const qx_weight *w = ((const qx_rows_params *)c->fused)->table;
    const qx_tensor *ix;
    const int64_t *idx;
    int64_t n, dims[2 * QX_MAX_RANK], row = qx_prod(w->dims, 1, w->rank);
    qx_tensor *y = NULL;
    QX_TRY(qx_call_need(c, 0, &ix));
    QX_TRY(qx_call_in_i64(c, 0, &idx, &n));
    for (int i = 0; i < ix->rank; i++) dims[i] = ix->dims[i];
    if (ix->rank + w->rank - 1 > QX_MAX_RANK) QX_CALL_FAIL(c, QX_E_SHAPE, "the result has rank %d", ix->rank + w->rank - 1);
    for (int i = 1; i < w->rank; i++) dims[ix->rank + i - 1] = w->dims[i];
    QX_TRY(qx_call_out(c, 0, w->dtype, ix->rank + w->rank - 1, dims, &y));
    for (int64_t i = 0; i < n; i++) {
        int64_t at = idx[i] < 0 ? idx[i] + w->dims[0] : idx[i];
        if (at < 0 || at >= w->dims[0]) QX_CALL_FAIL(c, QX_E_SHAPE, "index %lld of %lld", (long long)idx[i], (long long)w->dims[0]);
        QX_TRY(qx_weight_read_f32(c->ctx, w, at * row, row, (float *)y->data + i * row));
    }
    return QX_OK;
}

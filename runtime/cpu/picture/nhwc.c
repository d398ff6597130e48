/* nhwc.c - see nhwc.h. Both directions are one transposition of [channels, pixels]. */
#include "runtime/cpu/picture/nhwc.h"

#include "runtime/cpu/move/strided.h"
#include "runtime/dnnl/door.h"

qx_status qx_nhwc_view(const qx_call *c, const qx_tensor *t, qx_tensor *view)
{
    char a[96];
    if (t->rank < 3) QX_CALL_FAIL(c, QX_E_SHAPE, "%s is no channels-last picture", qx_tensor_describe(t, a, sizeof a));
    *view = *t;
    view->dims[1] = t->dims[t->rank - 1];
    for (int i = 2; i < t->rank; i++) view->dims[i] = t->dims[i - 1];
    return QX_OK;
}

void qx_nhwc_dims(int rank, const int64_t *nchw, int64_t *nhwc)
{
    nhwc[0] = nchw[0];
    nhwc[rank - 1] = nchw[1];
    for (int i = 2; i < rank; i++) nhwc[i - 1] = nchw[i];
}

static qx_status to_plain(qx_call *c, int64_t n, int64_t ch, int64_t px, const void *x, void *y, int size)
{
    const qx_strided s = {3, {n, ch, px}, {ch * px, 1, ch}};
    return qx_strided_copy(c->ctx, &s, x, y, size);
}

static qx_status to_last(qx_call *c, int64_t n, int64_t ch, int64_t px, const void *x, void *y, int size)
{
    const qx_strided s = {3, {n, px, ch}, {ch * px, 1, px}};
    return qx_strided_copy(c->ctx, &s, x, y, size);
}

qx_status qx_reblock(qx_call *c, qx_dtype type, const int64_t dims[4], int from, const void *x, int to, void *y)
{
    const int size = qx_dtype_bits((int)type) / 8;
    if (from > 0 || to > 0) return qx_dnnl_reblock(c, dims, from, x, to, y);
    return (to < 0 ? to_last : to_plain)(c, dims[0], dims[1], dims[2] * dims[3], x, y, size);
}

qx_status qx_nhwc_to_nchw(qx_call *c, const qx_tensor *view, const float *x, const float **out)
{
    float *t = NULL;
    QX_TRY(QX_CALL_SCRATCH(c, view->numel, &t));
    *out = t;
    return to_plain(c, view->dims[0], view->dims[1], qx_prod(view->dims, 2, view->rank), x, t, sizeof *t);
}

qx_status qx_nchw_to_nhwc(qx_call *c, int rank, const int64_t *nchw, const float *y, float *out)
{
    return to_last(c, nchw[0], nchw[1], qx_prod(nchw, 2, rank), y, out, sizeof *out);
}

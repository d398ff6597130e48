/* nhwc.c - see nhwc.h. Both directions are one transposition of [channels, pixels]. */
#include "runtime/cpu/nhwc.h"

#include "runtime/cpu/strided.h"

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

qx_status qx_nhwc_to_nchw(qx_call *c, const qx_tensor *view, const float *x, const float **out)
{
    const int64_t n = view->dims[0], ch = view->dims[1], px = qx_prod(view->dims, 2, view->rank);
    const qx_strided s = {3, {n, ch, px}, {ch * px, 1, ch}};
    float *t = NULL;
    QX_TRY(QX_CALL_SCRATCH(c, view->numel, &t));
    *out = t;
    return qx_strided_copy(c->ctx, &s, x, t, sizeof *t);
}

qx_status qx_nchw_to_nhwc(qx_call *c, int rank, const int64_t *nchw, const float *y, float *out)
{
    const int64_t n = nchw[0], ch = nchw[1], px = qx_prod(nchw, 2, rank);
    const qx_strided s = {3, {n, px, ch}, {ch * px, 1, px}};
    return qx_strided_copy(c->ctx, &s, y, out, sizeof *out);
}

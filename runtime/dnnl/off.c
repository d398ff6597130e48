/* off.c - the door of runtime/dnnl/door.h in a build without oneDNN: there is never a kernel, so everything goes through our own. */
#include "runtime/dnnl/door.h"
#include "runtime/cpu/codes/int8.h"

#ifndef QONNX_HAVE_DNNL

int qx_dnnl_block(void) { return 0; }
bool qx_dnnl_has_bf16(void) { return false; }
qx_status qx_dnnl_reblock(qx_call *c, const int64_t dims[4], int from, const float *x, int to, float *y)
{
    (void)dims, (void)from, (void)x, (void)to, (void)y;
    QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "built without oneDNN");
}
qx_status qx_dnnl_mm_new(qx_call *c, const qx_matrix *w, int64_t m_hint, qx_dnnl_mm **out)
{
    (void)c, (void)w, (void)m_hint;
    *out = NULL;
    return QX_OK;
}
qx_status qx_dnnl_mm_run(qx_call *c, qx_dnnl_mm *s, const qx_gemm *g)
{
    (void)s, (void)g;
    QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "built without oneDNN");
}
void qx_dnnl_mm_free(qx_ctx *ctx, qx_dnnl_mm *s) { (void)ctx, (void)s; }
qx_status qx_dnnl_bmm_run(qx_call *c, qx_dnnl_bmm **state, const qx_bmm *g, bool *done)
{
    (void)c, (void)state, (void)g;
    *done = false;
    return QX_OK;
}
void qx_dnnl_bmm_free(qx_ctx *ctx, qx_dnnl_bmm *s) { (void)ctx, (void)s; }
qx_status qx_dnnl_conv_new(qx_call *c, const qx_conv_shape *s, const float *w, qx_dnnl_conv **out)
{
    (void)c, (void)s, (void)w;
    *out = NULL;
    return QX_OK;
}
qx_status qx_dnnl_conv_run(qx_call *c, qx_dnnl_conv *s, const qx_conv_shape *shape, const qx_conv_op *op)
{
    (void)s, (void)shape, (void)op;
    QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "built without oneDNN");
}
void qx_dnnl_conv_free(qx_ctx *ctx, qx_dnnl_conv *s) { (void)ctx, (void)s; }
qx_status qx_dnnl_int8_run(qx_call *c, qx_dnnl_int8 **state, const qx_int8_op *op, bool *done, bool *need_w)
{
    (void)c, (void)state, (void)op;
    *done = *need_w = false;
    return QX_OK;
}
qx_status qx_dnnl_int8_panels(qx_call *c, qx_dnnl_int8 **state, const qx_int8_op *op, qx_int8_panels *out)
{
    (void)c, (void)state, (void)op;
    out->data = NULL;
    return QX_OK;
}

void qx_dnnl_int8_free(qx_ctx *ctx, qx_dnnl_int8 *s) { (void)ctx, (void)s; }
void qx_dnnl_free(qx_ctx *ctx, void *handle) { (void)ctx, (void)handle; }

#endif

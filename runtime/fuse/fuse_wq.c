/* fuse_wq.c - MatMul and Gemm whose weight is a DequantizeLinear of constant 2, 4 or 8 bit integer codes (any layout of scales)
 * and whose activation is float: the codes are never expanded in memory. */
#include "onnx/weight/weight.h"
#include "runtime/fuse/fuse.h"

static bool is_code(qx_dtype t)
{
    return t == QX_DT_INT8 || t == QX_DT_UINT8 || t == QX_DT_INT4 || t == QX_DT_UINT4 || t == QX_DT_INT2 || t == QX_DT_UINT2;
}

/* Scales lie along k in blocks, or there is one a column, or one. */
static bool layout_fits(const qx_fuse_weight *q, bool nk)
{
    const qx_weight *w = qx_fuse_const(q->codes), *s = qx_fuse_const(q->scale);
    const int64_t per = qx_dtype_bits(w->dtype) == 8 ? 1 : 16;
    if (q->block > 0) return q->axis == (nk ? 1 : 0) && q->block % per == 0 && s->rank == 2;
    return s->numel == 1 || (q->axis == (nk ? 0 : 1) && s->numel == w->dims[q->axis]);
}

static bool gemm_is_plain(const qx_node *n, const qx_value *bias, int64_t cols)
{
    const qx_weight *b = qx_fuse_const(bias);
    float alpha = qx_attr_float(n, "alpha", 1.0f), beta = qx_attr_float(n, "beta", 1.0f);
    if (qx_attr_int(n, "transA", 0) || alpha < 1 || alpha > 1) return false;
    return !bias || (b && b->numel == cols && beta >= 1 && beta <= 1);
}

qx_status qx_fuse_wq(qx_fuser *f, qx_rstep *s)
{
    const qx_node *n = s->node;
    qx_fuse_weight q;
    const bool gemm = n->op->id == QX_OP_Gemm;
    if (f->x->opt.simulate || (!gemm && n->op->id != QX_OP_MatMul)) return QX_OK;
    const qx_weight *w = qx_fuse_dequantized(f, n->in[1], &q) ? qx_fuse_const(q.codes) : NULL;
    if (!w || w->rank != 2 || !is_code(w->dtype)) return QX_OK;
    if (n->in[0]->type.kind == QX_KIND_TENSOR && n->in[0]->type.dtype == QX_DT_DOUBLE) return QX_OK;
    const bool nk = q.swapped != (gemm && qx_attr_int(n, "transB", 0) != 0);
    const qx_value *bias = gemm ? qx_node_in(n, 2) : NULL;
    if (!layout_fits(&q, nk) || (gemm && !gemm_is_plain(n, bias, w->dims[nk ? 0 : 1]))) return QX_OK;
    qx_wq_params *p = qx_arena_alloc(f->x->mem, sizeof *p);
    if (!p) QX_FAIL(f->x->ctx, QX_E_NOMEM, "plan: out of memory");
    *p = (qx_wq_params){q.block, nk};
    const qx_value *in[QX_WQ_INPUTS] = {n->in[0], qx_fuse_behind(q.codes), qx_fuse_behind(q.scale), qx_fuse_behind(q.zero),
                                        qx_fuse_behind(bias)};
    return qx_fuse_set(f, s, qx_cpu_wq_linear, p, in, QX_WQ_INPUTS, n->out[0]);
}

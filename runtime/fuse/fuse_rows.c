/* fuse_rows.c - Gather of rows of a large constant table (an embedding): a run looks at a few rows. Those of a float table are
 * read from the file each time, so that it takes no memory; those of a quantized one are dequantized alone, whatever its
 * DequantizeLinear says about the rest. */
#include "onnx/weight/weight.h"
#include "runtime/fuse/fuse.h"

enum { LARGE = 4 << 20 }; /* bytes: smaller tables are kept */

const qx_node *qx_fuse_code_table(const qx_fuser *f, const qx_value *table)
{
    const qx_node *dq = qx_fuse_is(qx_fuse_def(f, qx_fuse_behind(table)), QX_OP_DequantizeLinear);
    const qx_weight *codes = dq ? qx_fuse_const(dq->in[0]) : NULL, *scale = codes ? qx_fuse_const(qx_fuse_scale(dq)) : NULL;
    if (!scale || codes->rank < 2 || codes->numel == 0 || (qx_node_in(dq, 2) && !qx_fuse_const(dq->in[2]))) return NULL;
    const int64_t axis = qx_attr_int(dq, "axis", 1), row = codes->numel / codes->dims[0];
    const bool over_rows = qx_attr_int(dq, "block_size", 0) > 0 && (axis == 0 || axis == -codes->rank);
    return over_rows || row * qx_dtype_bits(codes->dtype) % 8 || !qx_dtype_is_float(dq->out[0]->type.dtype) ? NULL : dq;
}

qx_rows_dq_params qx_fuse_code_params(const qx_node *dq)
{
    return (qx_rows_dq_params){qx_attr_int(dq, "axis", 1), qx_attr_int(dq, "block_size", 0), dq->out[0]->type.dtype};
}

static qx_status fuse_quantized(qx_fuser *f, qx_rstep *s, const qx_node *gather, const qx_node *dq)
{
    qx_rows_dq_params *p = qx_arena_alloc(f->x->mem, sizeof *p);
    if (!p) QX_FAIL(f->x->ctx, QX_E_NOMEM, "plan: out of memory");
    *p = qx_fuse_code_params(dq);
    const qx_value *in[QX_ROWS_DQ_INPUTS] = {gather->in[1], dq->in[0], qx_fuse_scale(dq), qx_node_in(dq, 2)};
    return qx_fuse_set(f, s, qx_cpu_rows_dq, p, in, QX_ROWS_DQ_INPUTS, gather->out[0]);
}

qx_status qx_fuse_rows(qx_fuser *f, qx_rstep *s)
{
    const qx_node *n = qx_fuse_is(s, QX_OP_Gather);
    if (!n || f->x->device || qx_attr_int(n, "axis", 0) != 0) return QX_OK;
    const qx_node *dq = qx_fuse_code_table(f, n->in[0]);
    if (dq) return fuse_quantized(f, s, n, dq);
    const qx_weight *w = qx_fuse_const(n->in[0]);
    if (!w || w->job || w->dtype != QX_DT_FLOAT || w->rank < 2 || w->bytes < LARGE) return QX_OK;
    qx_rows_params *p = qx_arena_alloc(f->x->mem, sizeof *p);
    if (!p) QX_FAIL(f->x->ctx, QX_E_NOMEM, "plan: out of memory");
    p->table = w;
    const qx_value *in[1] = {n->in[1]};
    return qx_fuse_set(f, s, qx_cpu_rows_of, p, in, 1, n->out[0]);
}

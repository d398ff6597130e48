/* fuse_experts.c - MatMul by matrices that a Gather (or GatherND) picks from a constant table: exporters write a mixture of
 * experts so, with a copy of the expert's whole matrix for each token (dequantized for each token, in a quantized model). The
 * step multiplies by the table itself. */
#include "onnx/weight/weight.h"
#include "runtime/fuse/fuse.h"

/* GatherND picks whole matrices when its indices are single numbers. */
static bool single_numbers(const qx_node *nd)
{
    const qx_type *t = &nd->in[1]->type;
    return qx_attr_int(nd, "batch_dims", 0) == 0 && t->kind == QX_KIND_TENSOR && t->has_shape && t->rank > 0 && t->dims[t->rank - 1].n == 1;
}

/* A constant [experts, a, b] in floats, or in codes that are dequantized expert by expert. */
static bool is_table(const qx_fuser *f, const qx_value *v)
{
    const qx_node *dq = qx_fuse_code_table(f, v);
    const qx_weight *w = qx_fuse_const(dq ? dq->in[0] : v);
    const bool floats = w && qx_dtype_is_real(w->dtype);
    return w && (dq || floats) && w->rank == 3 && w->numel > 0;
}

/* The node that picks matrices from a table to make v, which nothing else reads; NULL when it is none. */
static const qx_node *picks_matrices(const qx_fuser *f, const qx_value *v)
{
    const qx_rstep *s = qx_fuse_def(f, v);
    const qx_node *g = qx_fuse_is(s, QX_OP_Gather), *nd = qx_fuse_is(s, QX_OP_GatherND), *n = g ? g : nd;
    if (!n || s->ref_attrs || !qx_fuse_inner(f, v) || (g && qx_attr_int(g, "axis", 0) != 0) || (nd && !single_numbers(nd))) return NULL;
    return is_table(f, n->in[0]) ? n : NULL;
}

qx_status qx_fuse_experts(qx_fuser *f, qx_rstep *s)
{
    const qx_node *mm = qx_fuse_is(s, QX_OP_MatMul);
    if (!mm || f->x->device) return QX_OK;
    const qx_node *left = picks_matrices(f, mm->in[0]), *pick = left ? left : picks_matrices(f, mm->in[1]);
    if (!pick) return QX_OK;
    qx_experts_params *p = qx_arena_alloc(f->x->mem, sizeof *p);
    if (!p) QX_FAIL(f->x->ctx, QX_E_NOMEM, "plan: out of memory");
    *p = (qx_experts_params){.left = left != NULL, .nd = pick->op->id == QX_OP_GatherND};
    const qx_value *in[QX_EXPERTS_INPUTS] = {mm->in[left != NULL], pick->in[1], qx_fuse_behind(pick->in[0])};
    const qx_node *dq = qx_fuse_code_table(f, pick->in[0]);
    if (dq) {
        p->dq = qx_fuse_code_params(dq);
        for (uint32_t i = 0; i < 3; i++) in[QX_EXPERTS_TABLE + i] = i == 1 ? qx_fuse_scale(dq) : qx_node_in(dq, i);
    } else if (in[QX_EXPERTS_TABLE]->init && !in[QX_EXPERTS_TABLE]->init->job) {
        s->stored = 1 << QX_EXPERTS_TABLE;
    }
    return qx_fuse_set(f, s, qx_cpu_experts, p, in, QX_EXPERTS_INPUTS, mm->out[0]);
}

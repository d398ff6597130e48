/* fuse_between.c - what lies between two integer products: the sum of two tensors, an activation, and QuantizeLinear by one scale, in
 * this order, the first two if they are there; operands may be codes too, dequantized by one scale. One pass over memory instead of
 * one a node. Every number is rounded as the nodes round it. */
#include "onnx/weight/weight.h"
#include "runtime/fuse/fuse.h"

typedef struct chain { const qx_value *in[QX_BETWEEN_INPUTS]; qx_between_params p; } chain;

static bool is_codes(qx_dtype t) { return t == QX_DT_INT8 || t == QX_DT_UINT8; }

static bool is_float(const qx_value *v) { return v->type.kind == QX_KIND_TENSOR && v->type.dtype == QX_DT_FLOAT; }

/* One constant scale of floats, and a constant zero point or none. */
static bool one_scale(const qx_node *n)
{
    const qx_weight *s = qx_fuse_const(n->in[1]);
    return s && s->numel == 1 && s->dtype == QX_DT_FLOAT && !qx_attr_int(n, "block_size", 0) &&
        (!qx_node_in(n, 2) || qx_fuse_const(n->in[2]));
}

/* v, or what its DequantizeLinear reads, as operand `at`. */
static void take_operand(const qx_fuser *f, chain *c, uint32_t at, const qx_value *v)
{
    const qx_rstep *s = qx_fuse_def(f, v);
    const qx_node *n = qx_fuse_is(s, QX_OP_DequantizeLinear);
    c->in[at] = v;
    if (!n || s->ref_attrs || !one_scale(n) || n->in[0]->type.kind != QX_KIND_TENSOR || !is_codes(n->in[0]->type.dtype)) return;
    c->in[at] = n->in[0];
    c->in[at + 1] = qx_fuse_behind(n->in[1]);
    c->in[at + 2] = qx_fuse_behind(qx_node_in(n, 2));
}

/* The activation that makes v, and what it reads, where that may vanish; else v. */
static const qx_value *take_act(const qx_fuser *f, chain *c, const qx_value *v)
{
    qx_rstep *s = f->def[v->id];
    const qx_value *x = s && s->n_in ? s->in_value[0] : NULL;
    if (!x || !is_float(x) || s->ref_attrs) return v;
    if (s->fn == qx_cpu_act) {
        c->p.act = (qx_activation){.fn = qx_act_unary(((const qx_act_params *)s->fused)->act), .p = {1, 0}};
        return x;
    }
    qx_activation a;
    if (s->fused || !qx_fuse_activation(f, s->node, &a)) return v;
    c->p.act = a;
    return x;
}

/* v is read by what makes `by` alone. */
static bool may_vanish(const qx_fuser *f, const qx_value *v, const qx_value *by)
{
    return qx_fuse_inner(f, v) || qx_fuse_act_behind(f, v) == f->def[by->id];
}

static bool take_sum(const qx_fuser *f, chain *c, const qx_value *v)
{
    const qx_rstep *s = qx_fuse_def(f, v);
    const qx_node *n = qx_fuse_is(s, QX_OP_Add);
    if (!n || s->ref_attrs || n->op->since < 7) return false;
    for (int i = 0; i < 2; i++)
        if (!is_float(n->in[i]) || !n->in[i]->type.has_shape || !qx_type_same_dims(&n->in[i]->type, &v->type)) return false;
    take_operand(f, c, QX_BETWEEN_A, n->in[0]);
    take_operand(f, c, QX_BETWEEN_B, n->in[1]);
    return true;
}

qx_status qx_fuse_between(qx_fuser *f, qx_rstep *s)
{
    const qx_node *q = qx_fuse_is(s, QX_OP_QuantizeLinear);
    chain c = {.p.act.none = true};
    if (!q || f->x->device || !one_scale(q) || !is_float(q->in[0]) || !qx_fuse_inner(f, q->in[0])) return QX_OK;
    const qx_weight *z = qx_fuse_const(qx_node_in(q, 2));
    c.p.codes = z ? z->dtype : (qx_dtype)qx_attr_int(q, "output_dtype", QX_DT_UINT8);
    const qx_value *v = q->in[0], *x = take_act(f, &c, v);
    const bool sum = (x == v || may_vanish(f, x, v)) && take_sum(f, &c, x);
    if (!is_codes(c.p.codes) || (x == v && !sum)) return QX_OK;
    if (!sum) take_operand(f, &c, QX_BETWEEN_A, x);
    c.in[QX_BETWEEN_Y_SCALE] = qx_fuse_behind(q->in[1]);
    c.in[QX_BETWEEN_Y_ZERO] = qx_fuse_behind(qx_node_in(q, 2));
    qx_between_params *p = qx_arena_alloc(f->x->mem, sizeof *p);
    if (!p) QX_FAIL(f->x->ctx, QX_E_NOMEM, "plan: out of memory");
    *p = c.p;
    return qx_fuse_set(f, s, qx_cpu_between, p, c.in, QX_BETWEEN_INPUTS, q->out[0]);
}

/* fuse_int8.c - MatMul, Gemm and Conv whose activation comes from a per-tensor DequantizeLinear and whose weight from a constant
 * one with a scale per output channel (or one scale) and zero points 0: run on the codes with integer sums. E4M3 codes, on
 * devices: also with a scale for each 128 along k. */
#include <math.h>

#include "kernels/int8.h"
#include "onnx/weight/weight.h"
#include "runtime/fuse/fuse.h"

static bool is_int8(qx_dtype t, bool also_unsigned) { return t == QX_DT_INT8 || (also_unsigned && t == QX_DT_UINT8); }

/* E4M3 codes: only a device multiplies them as they are. */
static bool is_fp8(const qx_fuser *f, qx_dtype t) { return f->x->device && t == QX_DT_FLOAT8E4M3FN; }

/* Type of the codes that a DequantizeLinear reads. */
static qx_dtype code_type(const qx_node *dq)
{
    const qx_weight *z = qx_fuse_const(qx_node_in(dq, 2));
    if (z) return z->dtype;
    if (qx_fuse_const(dq->in[0])) return qx_fuse_const(dq->in[0])->dtype;
    return dq->in[0]->type.kind == QX_KIND_TENSOR ? dq->in[0]->type.dtype : QX_DT_UNDEFINED;
}

/* DequantizeLinear of a variable tensor with one constant scale. */
static const qx_node *activation(const qx_fuser *f, const qx_value *v)
{
    const qx_node *n = qx_fuse_is(qx_fuse_def(f, v), QX_OP_DequantizeLinear);
    if (!n || qx_fuse_const(n->in[0]) || qx_attr_int(n, "block_size", 0)) return NULL;
    const qx_weight *s = qx_fuse_const(n->in[1]);
    if (!s || s->numel != 1 || !(is_int8(code_type(n), true) || is_fp8(f, code_type(n)))) return NULL;
    return n;
}

static bool all_zero(const qx_fuser *f, const qx_weight *z)
{
    int8_t buf[4096];
    if (!z) return true;
    if (z->bytes > sizeof buf || !qx_fuse_ok(f, qx_weight_read(f->x->ctx, z, buf))) return false;
    for (size_t i = 0; i < z->bytes; i++)
        if (buf[i]) return false;
    return true;
}

/* As qx_fuse_dequantized, of codes that can be multiplied as they are. */
static const qx_weight *weight(const qx_fuser *f, const qx_value *v, qx_fuse_weight *out)
{
    const qx_weight *w = qx_fuse_dequantized(f, v, out) ? qx_fuse_const(out->codes) : NULL;
    return w && (w->dtype == QX_DT_INT8 || is_fp8(f, w->dtype)) && all_zero(f, qx_fuse_const(out->zero)) ? w : NULL;
}

/* The scale varies along `axis` of the codes, or not at all. */
static bool scale_along(const qx_fuse_weight *q, int axis)
{
    const qx_weight *w = qx_fuse_const(q->codes), *s = qx_fuse_const(q->scale);
    return s->numel == 1 || (s->rank == 1 && q->axis == axis && s->numel == w->dims[axis]);
}

/* Scales of an E4M3 matrix by block along k. */
static bool scale_by_block(const qx_fuser *f, const qx_fuse_weight *q, bool nk)
{
    const qx_weight *w = qx_fuse_const(q->codes), *s = qx_fuse_const(q->scale);
    const int k_axis = nk ? 1 : 0;
    if (!is_fp8(f, w->dtype) || w->rank != 2 || s->rank != 2 || q->block != QX_FP8_BLOCK || q->axis != k_axis) return false;
    return s->dims[1 - k_axis] == w->dims[1 - k_axis] && s->dims[k_axis] == (w->dims[k_axis] + QX_FP8_BLOCK - 1) / QX_FP8_BLOCK;
}

static bool gemm_is_plain(const qx_node *n, const qx_value *bias)
{
    const qx_weight *b = qx_fuse_const(bias);
    float alpha = qx_attr_float(n, "alpha", 1.0f), beta = qx_attr_float(n, "beta", 1.0f);
    if (qx_attr_int(n, "transA", 0) || alpha < 1 || alpha > 1 || (bias && (beta < 1 || beta > 1))) return false;
    if (!bias) return true;
    if (b) return b->rank == 1;
    return bias->type.kind == QX_KIND_TENSOR && bias->type.has_shape && bias->type.rank == 1;
}

/* What follows a convolution as long as nothing else reads the result; last: the step that makes v. */
typedef struct tail { qx_rstep *last; const qx_value *v; qx_activation act; const qx_node *quantize; } tail;

/* Those that round nothing, so that no code becomes another. */
static void take_act(const qx_fuser *f, tail *t)
{
    qx_rstep *reader = qx_fuse_user(f, t->v);
    qx_activation a;
    if (!reader || reader->fused || reader->ref_attrs || !qx_fuse_activation(f, reader->node, &a)) return;
    if (a.clip ? !isfinite(a.p[0]) || !isfinite(a.p[1]) : a.fn != QX_U_RELU) return;
    *t = (tail){reader, reader->out_value[0], a, NULL};
}

static qx_dtype codes_of(const qx_node *q)
{
    const qx_weight *z = qx_fuse_const(qx_node_in(q, 2));
    return z ? z->dtype : (qx_dtype)qx_attr_int(q, "output_dtype", QX_DT_UINT8);
}

/* By one constant scale, to 8 bits. */
static void take_codes(const qx_fuser *f, tail *t)
{
    qx_rstep *reader = qx_fuse_user(f, t->v);
    const qx_node *q = qx_fuse_is(reader, QX_OP_QuantizeLinear);
    const qx_weight *s = q ? qx_fuse_const(q->in[1]) : NULL;
    if (!s || reader->ref_attrs || q->in[0] != t->v || s->numel != 1 || s->dtype != QX_DT_FLOAT || qx_attr_int(q, "block_size", 0)) return;
    if ((qx_node_in(q, 2) && !qx_fuse_const(q->in[2])) || !is_int8(codes_of(q), true)) return;
    *t = (tail){reader, reader->out_value[0], t->act, q};
}

static tail tail_of(const qx_fuser *f, qx_rstep *s, const qx_node *dq)
{
    tail t = {.last = s, .v = s->node->out[0], .act.none = true};
    const qx_weight *scale = qx_fuse_const(dq->in[1]);
    if (s->node->op->id != QX_OP_Conv || f->x->device || scale->dtype != QX_DT_FLOAT) return t;
    take_act(f, &t);
    take_codes(f, &t);
    return t;
}

qx_status qx_fuse_int8(qx_fuser *f, qx_rstep *s)
{
    const qx_node *n = s->node;
    qx_fuse_weight q;
    const bool conv = n->op->id == QX_OP_Conv, gemm = n->op->id == QX_OP_Gemm;
    if (f->x->opt.simulate || (!conv && !gemm && n->op->id != QX_OP_MatMul)) return QX_OK;
    const qx_node *a = activation(f, n->in[0]);
    const qx_weight *codes = a ? weight(f, n->in[1], &q) : NULL;
    if (!codes || (q.swapped && conv)) return QX_OK;
    const bool fp8 = is_fp8(f, code_type(a));
    if (fp8 != is_fp8(f, codes->dtype)) return QX_OK;
    const qx_value *bias = qx_node_in(n, 2);
    if (gemm && !gemm_is_plain(n, bias)) return QX_OK;
    const bool nk = conv || q.swapped != (gemm && qx_attr_int(n, "transB", 0) != 0);
    const bool blocked = q.block != 0;
    if ((!conv && codes->rank != 2) || (blocked ? conv || !scale_by_block(f, &q, nk) : !scale_along(&q, nk ? 0 : 1))) return QX_OK;
    int64_t n_out = codes->dims[nk ? 0 : 1];
    if (n_out < 1 || codes->numel / n_out > QX_INT8_MAX_K) return QX_OK;
    qx_int8_params *p = qx_arena_alloc(f->x->mem, sizeof *p);
    if (!p) QX_FAIL(f->x->ctx, QX_E_NOMEM, "plan: out of memory");
    const tail t = tail_of(f, s, a);
    const qx_node *y = t.quantize;
    *p = (qx_int8_params){conv ? QX_INT8_CONV : gemm ? QX_INT8_GEMM : QX_INT8_MATMUL, nk, fp8, blocked, t.act,
                          y ? codes_of(y) : QX_DT_UNDEFINED};
    const qx_value *in[QX_INT8_Y_INPUTS] = {a->in[0], qx_fuse_behind(a->in[1]), qx_fuse_behind(qx_node_in(a, 2)), qx_fuse_behind(q.codes),
                                            qx_fuse_behind(q.scale), qx_fuse_behind(bias), y ? qx_fuse_behind(y->in[1]) : NULL,
                                            y ? qx_fuse_behind(qx_node_in(y, 2)) : NULL};
    t.last->node = n; /* whose attributes the adapter reads */
    return qx_fuse_set(f, t.last, qx_cpu_int8_linear, p, in, y ? QX_INT8_Y_INPUTS : QX_INT8_INPUTS, t.v);
}

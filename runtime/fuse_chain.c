/* fuse_chain.c - chains of pointwise nodes that are one function: x * Sigmoid(x), GELU written with Erf, and a product with its bias and
 * activation. Also group normalisation in the form Reshape, InstanceNormalization, Reshape, Mul, Add. */
#include <math.h>
#include <string.h>

#include "onnx/weight.h"
#include "runtime/fuse.h"

static bool near(double a, double b) { return fabs(a - b) <= 1e-3 * fabs(b); }

/* The other operand of a commutative node when one operand is the number c (within rounding of fp16). */
static const qx_value *other_than(const qx_fuser *f, const qx_node *n, double c)
{
    double v;
    for (uint32_t i = 0; i < 2; i++)
        if (qx_fuse_scalar(f, n->in[i], &v) && near(v, c)) return n->in[1 - i];
    return NULL;
}

static qx_status set_act(qx_fuser *f, qx_rstep *s, qx_act act, const qx_value *x)
{
    qx_act_params *p = qx_arena_alloc(f->x->mem, sizeof *p);
    if (!p) QX_FAIL(f->x->ctx, QX_E_NOMEM, "plan: out of memory");
    p->act = act;
    f->act[x->id] = s;
    return qx_fuse_set(f, s, qx_cpu_act, p, &x, 1, s->node->out[0]);
}

/* Mul(x, Sigmoid(x)) */
qx_status qx_fuse_silu(qx_fuser *f, qx_rstep *s)
{
    const qx_node *n = qx_fuse_is(s, QX_OP_Mul);
    for (uint32_t i = 0; n && i < 2; i++) {
        const qx_node *g = qx_fuse_inner(f, n->in[i]) ? qx_fuse_is(qx_fuse_def(f, n->in[i]), QX_OP_Sigmoid) : NULL;
        if (g && g->in[0] == n->in[1 - i]) return set_act(f, s, QX_ACT_SILU, g->in[0]);
    }
    return QX_OK;
}

/* v = 1 + Erf(x / sqrt 2): the x; every value on the way is read once. */
static const qx_value *one_plus_erf(const qx_fuser *f, const qx_value *v)
{
    if (!qx_fuse_inner(f, v)) return NULL;
    const qx_node *add = qx_fuse_is(qx_fuse_def(f, v), QX_OP_Add);
    const qx_value *e = add ? other_than(f, add, 1.0) : NULL;
    const qx_node *erf = e && qx_fuse_inner(f, e) ? qx_fuse_is(qx_fuse_def(f, e), QX_OP_Erf) : NULL;
    if (!erf || !qx_fuse_inner(f, erf->in[0])) return NULL;
    const qx_rstep *d = qx_fuse_def(f, erf->in[0]);
    double c;
    const qx_node *div = qx_fuse_is(d, QX_OP_Div), *mul = qx_fuse_is(d, QX_OP_Mul);
    if (div && qx_fuse_scalar(f, div->in[1], &c) && near(c, 1.4142135623730951)) return div->in[0];
    return mul ? other_than(f, mul, 0.7071067811865476) : NULL;
}

/* a * b in which one is x, or 0.5 x, and the other 1 + Erf(x / sqrt 2); *half tells which. */
static const qx_value *gelu_product(const qx_fuser *f, const qx_node *n, bool *half)
{
    for (uint32_t i = 0; i < 2; i++) {
        const qx_value *x = one_plus_erf(f, n->in[i]), *y = n->in[1 - i];
        if (!x) continue;
        *half = false;
        if (y == x) return x;
        const qx_node *m = qx_fuse_inner(f, y) ? qx_fuse_is(qx_fuse_def(f, y), QX_OP_Mul) : NULL;
        if (m && other_than(f, m, 0.5) == x) {
            *half = true;
            return x;
        }
    }
    return NULL;
}

/* 0.5 * (x * (1 + erf)), or (0.5 x) * (1 + erf). */
qx_status qx_fuse_gelu(qx_fuser *f, qx_rstep *s)
{
    bool half;
    const qx_node *n = qx_fuse_is(s, QX_OP_Mul);
    if (!n) return QX_OK;
    const qx_value *x = gelu_product(f, n, &half);
    if (x && half) return set_act(f, s, QX_ACT_GELU, x);
    const qx_value *inner = other_than(f, n, 0.5);
    if (!inner || !qx_fuse_inner(f, inner)) return QX_OK;
    const qx_node *p = qx_fuse_is(qx_fuse_def(f, inner), QX_OP_Mul);
    x = p ? gelu_product(f, p, &half) : NULL;
    return x && !half ? set_act(f, s, QX_ACT_GELU, x) : QX_OK;
}

/* The activation that stands for every reader of v (a chain reads it twice); v itself may vanish. */
static qx_rstep *act_behind(const qx_fuser *f, const qx_value *v)
{
    const qx_vinfo *i = &f->x->info[v->id];
    qx_rstep *a = f->act[v->id];
    return a && a->fn == qx_cpu_act && v->n_uses == 2 && !v->is_output && !i->keep && !i->watched ? a : NULL;
}

/* ---- Group normalisation ---- */

static const qx_weight *constant(const qx_value *v) { return v && !v->is_input ? qx_value_const(v) : NULL; }

static bool same_dims(const qx_type *a, const qx_type *b)
{
    if (a->kind != QX_KIND_TENSOR || b->kind != QX_KIND_TENSOR || !a->has_shape || !b->has_shape || a->rank != b->rank) return false;
    for (int i = 0; i < a->rank; i++)
        if (a->dims[i].n != b->dims[i].n || (a->dims[i].n < 0 && (!a->dims[i].sym || a->dims[i].sym != b->dims[i].sym))) return false;
    return true;
}

/* All elements of a small constant equal `want`. */
static bool all_are(const qx_fuser *f, const qx_weight *w, float want)
{
    float v[256];
    if (!w || w->job || w->numel > 256 || qx_weight_read_f32(f->x->ctx, w, 0, w->numel, v) != QX_OK) return false;
    for (int64_t i = 0; i < w->numel; i++)
        if (v[i] < want || v[i] > want) return false;
    return true;
}

/* A constant that is one number a channel of [N, C, H, W]. */
static bool per_channel(const qx_value *v, int64_t channels)
{
    const qx_weight *w = constant(v);
    return w && w->rank >= 3 && w->numel == channels && w->dims[w->rank - 3] == channels;
}

/* The constant operand of a Mul or Add on an inner value; the other goes to *x. */
static const qx_value *channel_operand(const qx_node *n, int64_t channels, const qx_value **x)
{
    for (uint32_t i = 0; i < 2; i++)
        if (per_channel(n->in[i], channels)) {
            *x = n->in[1 - i];
            return n->in[i];
        }
    return NULL;
}

static const qx_node *inner_node(const qx_fuser *f, const qx_value *v, qx_op_id op)
{
    return v && qx_fuse_inner(f, v) ? qx_fuse_is(qx_fuse_def(f, v), op) : NULL;
}

qx_status qx_fuse_group_norm(qx_fuser *f, qx_rstep *s)
{
    const qx_node *add = qx_fuse_is(s, QX_OP_Add);
    if (!add || add->out[0]->type.kind != QX_KIND_TENSOR || !add->out[0]->type.has_shape || add->out[0]->type.rank != 4) return QX_OK;
    int64_t channels = add->out[0]->type.dims[1].n;
    const qx_value *v = NULL, *beta = channels > 0 ? channel_operand(add, channels, &v) : NULL, *gamma = NULL;
    const qx_node *mul = beta ? inner_node(f, v, QX_OP_Mul) : NULL;
    if (mul) gamma = channel_operand(mul, channels, &v);
    const qx_node *back = gamma ? inner_node(f, v, QX_OP_Reshape) : NULL, *in = back ? inner_node(f, back->in[0], QX_OP_InstanceNormalization) : NULL;
    const qx_node *there = in ? inner_node(f, in->in[0], QX_OP_Reshape) : NULL;
    if (!there || !same_dims(&there->in[0]->type, &back->out[0]->type) || !same_dims(&there->in[0]->type, &add->out[0]->type)) return QX_OK;
    const qx_weight *scale = constant(in->in[1]);
    if (!scale || channels % scale->numel || !all_are(f, scale, 1.0f) || !all_are(f, constant(in->in[2]), 0.0f)) return QX_OK;
    const qx_type *t = &in->in[0]->type; /* [N, groups, rest] */
    if (t->kind != QX_KIND_TENSOR || !t->has_shape || t->rank != 3 || t->dims[1].n != scale->numel) return QX_OK;
    qx_gn_params *p = qx_arena_alloc(f->x->mem, sizeof *p);
    if (!p) QX_FAIL(f->x->ctx, QX_E_NOMEM, "plan: out of memory");
    *p = (qx_gn_params){scale->numel, qx_attr_float(in, "epsilon", 1e-5f), false};
    const qx_value *ins[3] = {there->in[0], gamma, beta}, *out = add->out[0];
    qx_rstep *silu = act_behind(f, out);
    if (silu && ((const qx_act_params *)silu->fused)->act == QX_ACT_SILU) {
        p->silu = true;
        return qx_fuse_set(f, silu, qx_cpu_gn, p, ins, 3, silu->out_value[0]);
    }
    return qx_fuse_set(f, s, qx_cpu_gn, p, ins, 3, out);
}

/* ---- Product, bias, activation ---- */

static bool is_float_matrix(const qx_value *v)
{
    const qx_weight *w = constant(v);
    return w && w->rank == 2 && (w->dtype == QX_DT_FLOAT || w->dtype == QX_DT_FLOAT16 || w->dtype == QX_DT_BFLOAT16);
}

/* Add(MatMul(x, W), b) with b one number a column; the activation behind it is taken along. */
qx_status qx_fuse_linear(qx_fuser *f, qx_rstep *s)
{
    const qx_node *add = qx_fuse_is(s, QX_OP_Add);
    for (uint32_t i = 0; add && i < 2; i++) {
        const qx_node *mm = inner_node(f, add->in[i], QX_OP_MatMul);
        const qx_weight *b = constant(add->in[1 - i]);
        if (!mm || !is_float_matrix(mm->in[1]) || !b || b->rank != 1 || b->numel != constant(mm->in[1])->dims[1]) continue;
        qx_linear_params *p = qx_arena_alloc(f->x->mem, sizeof *p);
        if (!p) QX_FAIL(f->x->ctx, QX_E_NOMEM, "plan: out of memory");
        const qx_value *in[3] = {mm->in[0], mm->in[1], add->in[1 - i]};
        qx_rstep *act = act_behind(f, add->out[0]);
        p->act = act ? ((const qx_act_params *)act->fused)->act : QX_ACT_NONE;
        return qx_fuse_set(f, act ? act : s, qx_cpu_linear, p, in, 3, act ? act->out_value[0] : add->out[0]);
    }
    return QX_OK;
}

/* fuse_group_norm.c - group normalisation in the form that exporters without the operator write: Reshape to groups,
 * InstanceNormalization, Reshape back, Mul, Add; the activation behind it is taken along. */
#include "onnx/weight/weight.h"
#include "runtime/fuse/fuse_match.h"

/* All elements of a small constant equal `want`. */
static bool all_are(const qx_fuser *f, const qx_weight *w, float want)
{
    float v[256];
    if (!w || w->job || w->numel > 256 || !qx_fuse_ok(f, qx_weight_read_f32(f->x->ctx, w, 0, w->numel, v))) return false;
    for (int64_t i = 0; i < w->numel; i++)
        if (v[i] < want || v[i] > want) return false;
    return true;
}

/* A constant that is one number a channel of [N, C, H, W]. */
static bool per_channel(const qx_value *v, int64_t channels)
{
    const qx_weight *w = qx_fuse_const(v);
    return w && w->rank >= 3 && w->numel == channels && w->dims[w->rank - 3] == channels;
}

qx_status qx_fuse_group_norm(qx_fuser *f, qx_rstep *s)
{
    qx_match m;
    if (!qx_fuse_is(s, QX_OP_Add) || !qx_fuse_match(f, s, "Add(Mul(k:Reshape(i:InstanceNormalization(j:Reshape(x), s, z)), g), b)", &m))
        return QX_OK;
    const qx_value *x = m.v[QX_LETTER('x')], *gamma = m.v[QX_LETTER('g')], *beta = m.v[QX_LETTER('b')], *out = s->out_value[0];
    const qx_weight *scale = qx_fuse_const(m.v[QX_LETTER('s')]);
    const qx_type *t = &m.v[QX_LETTER('j')]->type; /* [N, groups, rest] */
    const qx_type *back = &m.v[QX_LETTER('k')]->type;
    if (!qx_type_same_dims(&x->type, back) || !qx_type_same_dims(&x->type, &out->type) || x->type.rank != 4) return QX_OK;
    int64_t channels = x->type.dims[1].n;
    if (!per_channel(gamma, channels) || !per_channel(beta, channels)) return QX_OK;
    if (!scale || channels % scale->numel || !all_are(f, scale, 1.0f) || !all_are(f, qx_fuse_const(m.v[QX_LETTER('z')]), 0.0f))
        return QX_OK;
    if (t->kind != QX_KIND_TENSOR || !t->has_shape || t->rank != 3 || t->dims[1].n != scale->numel) return QX_OK;
    qx_gn_params *p = qx_arena_alloc(f->x->mem, sizeof *p);
    if (!p) QX_FAIL(f->x->ctx, QX_E_NOMEM, "plan: out of memory");
    *p = (qx_gn_params){scale->numel, qx_attr_float(m.v[QX_LETTER('i')]->def, "epsilon", 1e-5f), false};
    const qx_value *ins[3] = {x, gamma, beta};
    qx_rstep *silu = qx_fuse_act_behind(f, out);
    if (silu && ((const qx_act_params *)silu->fused)->act == QX_ACT_SILU) {
        p->silu = true;
        return qx_fuse_set(f, silu, qx_cpu_gn, p, ins, 3, silu->out_value[0]);
    }
    return qx_fuse_set(f, s, qx_cpu_gn, p, ins, 3, out);
}

/* fuse_attention.c - attention in its primitive form: MatMul(softmax(scale * MatMul(Q, K') + mask), V), with whatever
 * transpositions, scalings and casts exporters put in between. Run in tiles, so that the scores never exist as a whole; the
 * transpositions become strides.
 *
 * Found from the second product backwards. Scalar factors on Q, K or the scores are collected in one factor; a transposition of
 * two middle axes before or behind is read (or written) through; heads that were repeated by Unsqueeze, Expand, Reshape are read
 * where they were. */
#include <math.h>

#include "onnx/weight/weight.h"
#include "runtime/fuse/fuse.h"

typedef struct match { const qx_value *q, *k, *v, *mask, *k_scale, *v_scale, *out; qx_rstep *at; qx_attn_params p; } match;

static bool perm_is(const qx_node *n, int64_t a, int64_t b, int64_t c, int64_t d)
{
    int64_t count;
    const int64_t *p = qx_attr_ints(n, "perm", &count);
    return p && count == 4 && p[0] == a && p[1] == b && p[2] == c && p[3] == d;
}

/* Transposition of the last two axes, of rank 3 or 4. */
static bool swaps_last(const qx_node *n)
{
    int64_t count;
    const int64_t *p = qx_attr_ints(n, "perm", &count);
    if (p && count == 3) return p[0] == 0 && p[1] == 2 && p[2] == 1;
    return perm_is(n, 0, 1, 3, 2);
}

/* Through Mul and Div by one constant number; their product goes to *scale. */
static const qx_value *peel_scale(const qx_fuser *f, const qx_value *v, double *scale)
{
    for (int depth = 0; depth < 4; depth++) {
        qx_rstep *s = qx_fuse_def(f, v);
        const qx_node *mul = qx_fuse_is(s, QX_OP_Mul), *div = qx_fuse_is(s, QX_OP_Div), *n = mul ? mul : div;
        double c;
        if (!n) return v;
        if (qx_fuse_scalar(f, n->in[1], &c)) v = n->in[0];
        else if (mul && qx_fuse_scalar(f, n->in[0], &c)) v = n->in[1];
        else return v;
        if (div && !(c > 0 || c < 0)) return v;
        *scale *= mul ? c : 1.0 / c;
    }
    return v;
}

static bool known_rank(const qx_value *v, int rank) { return v->type.kind == QX_KIND_TENSOR && v->type.has_shape && v->type.rank == rank; }

/* Key and value heads repeated for groups of query heads: [B, kv, S, D] -> Unsqueeze(2), Expand, Reshape -> [B, H, S, D]. */
static const qx_value *peel_repeat(const qx_fuser *f, const qx_value *v)
{
    const qx_node *r = qx_fuse_is(qx_fuse_def(f, v), QX_OP_Reshape), *e = r ? qx_fuse_is(qx_fuse_def(f, r->in[0]), QX_OP_Expand) : NULL;
    const qx_node *u = e ? qx_fuse_is(qx_fuse_def(f, e->in[0]), QX_OP_Unsqueeze) : NULL;
    double axis;
    int64_t n;
    if (!u || !known_rank(v, 4) || !known_rank(u->in[0], 4)) return v;
    const int64_t *axes = qx_attr_ints(u, "axes", &n);
    if (axes ? n != 1 || axes[0] != 2 : !qx_fuse_scalar(f, qx_node_in(u, 1), &axis) || axis < 2 || axis > 2) return v;
    const qx_dim *a = v->type.dims, *b = u->in[0]->type.dims; /* heads, not positions, must have grown */
    bool same_d = a[3].n >= 0 && a[3].n == b[3].n, same_s = (a[2].n >= 0 && a[2].n == b[2].n) || (a[2].sym && a[2].sym == b[2].sym);
    return same_d && same_s ? u->in[0] : v;
}

static const qx_value *peel_heads(const qx_fuser *f, const qx_value *v, bool *bshd)
{
    const qx_node *t = qx_fuse_is(qx_fuse_def(f, v), QX_OP_Transpose);
    *bshd = t && perm_is(t, 0, 2, 1, 3);
    return *bshd ? t->in[0] : v;
}

/* A value that only the next node reads, through casts between float types. */
static qx_rstep *inner_def(const qx_fuser *f, const qx_value **v)
{
    for (int depth = 0; depth < 3; depth++) {
        if (!qx_fuse_inner(f, *v)) return NULL;
        qx_rstep *s = qx_fuse_def(f, *v);
        const qx_node *n = qx_fuse_is(s, QX_OP_Cast);
        int64_t to = n ? qx_attr_int(n, "to", 0) : 0;
        if (!n || !qx_dtype_is_real((int)to)) return s;
        *v = n->in[0];
    }
    return NULL;
}

static bool last_axis(const qx_node *n)
{
    int64_t axis = qx_attr_int(n, "axis", n->op->since < 13 ? 1 : -1);
    return axis == -1 || known_rank(n->in[0], (int)axis + 1);
}

/* Scores: MatMul, or Mul / Div of it by a number; both read by the next node only. */
static const qx_node *scores(const qx_fuser *f, const qx_value *v, double *scale)
{
    qx_rstep *s = inner_def(f, &v);
    const qx_node *n = s && !s->fused ? s->node : NULL;
    double c;
    if (n && (n->op->id == QX_OP_Mul || n->op->id == QX_OP_Div)) {
        uint32_t side = n->op->id == QX_OP_Mul && qx_fuse_scalar(f, n->in[0], &c) ? 1 : 0;
        if (side == 0 && !qx_fuse_scalar(f, n->in[1], &c)) return NULL;
        *scale *= n->op->id == QX_OP_Mul ? c : 1.0 / c;
        const qx_value *below = n->in[side];
        s = inner_def(f, &below);
    }
    n = qx_fuse_is(s, QX_OP_MatMul);
    if (!n || (n->in[0]->type.kind == QX_KIND_TENSOR && n->in[0]->type.dtype == QX_DT_DOUBLE)) return NULL;
    return n;
}

static const qx_value *key(const qx_fuser *f, const qx_value *v, double *scale, qx_attn_params *p, bool *repeated)
{
    *repeated = false;
    v = peel_scale(f, v, scale);
    const qx_node *t = qx_fuse_is(qx_fuse_def(f, v), QX_OP_Transpose);
    bool bshd;
    p->k_layout = QX_K_BHDS;
    if (!t) return v;
    if (perm_is(t, 0, 2, 3, 1)) {
        p->k_layout = QX_K_BSHD;
        return t->in[0];
    }
    if (!swaps_last(t)) return v;
    p->k_layout = QX_K_BHSD;
    const qx_value *all = peel_scale(f, t->in[0], scale), *heads = peel_repeat(f, all);
    *repeated = heads != all;
    v = peel_heads(f, heads, &bshd);
    if (bshd) p->k_layout = QX_K_BSHD;
    return v;
}

/* The zero point of a pair's node; not there: 0. */
static bool zero_point(const qx_fuser *f, const qx_node *n, double *z)
{
    *z = 0;
    return !qx_node_in(n, 2) || qx_fuse_scalar(f, n->in[2], z);
}

/* Through a pair of one scale that makes codes of the probabilities, on devices, whose kernel does that: scale, zero point and
 * type go to *to. */
static const qx_value *peel_codes(const qx_fuser *f, const qx_value *p, qx_attn_params *to)
{
    const qx_node *dq = f->x->device && qx_fuse_inner(f, p) ? qx_fuse_is(qx_fuse_def(f, p), QX_OP_DequantizeLinear) : NULL;
    const qx_value *codes = dq ? dq->in[0] : NULL;
    const qx_dtype type = codes ? codes->type.dtype : QX_DT_UNDEFINED;
    const bool known = type == QX_DT_FLOAT8E4M3FN || type == QX_DT_INT8 || type == QX_DT_UINT8;
    const qx_node *q = dq && known && qx_fuse_inner(f, codes) ? qx_fuse_is(qx_fuse_def(f, codes), QX_OP_QuantizeLinear) : NULL;
    double a, b, za, zb;
    if (!q || !qx_fuse_scalar(f, q->in[1], &a) || !qx_fuse_scalar(f, dq->in[1], &b) || !(a > 0) || a < b || a > b) return p;
    if (type != QX_DT_FLOAT8E4M3FN && (!zero_point(f, q, &za) || !zero_point(f, dq, &zb) || za != zb)) return p;
    to->p_scale = (float)a;
    to->p_codes = type;
    to->p_zero = type == QX_DT_FLOAT8E4M3FN ? 0 : (int32_t)za;
    return q->in[0];
}

/* Codes that a DequantizeLinear of one scale makes keys or values of: a cache is read as it is stored, not made floats as a whole. */
static const qx_value *peel_dequantized(const qx_fuser *f, const qx_value *v, const qx_value **scale, float *zero)
{
    const qx_node *dq = f->x->device || f->x->opt.simulate ? NULL : qx_fuse_is(qx_fuse_def(f, v), QX_OP_DequantizeLinear);
    const qx_dtype type = dq ? dq->in[0]->type.dtype : QX_DT_UNDEFINED;
    double s, z = 0;
    if (type != QX_DT_INT8 && type != QX_DT_UINT8 && type != QX_DT_FLOAT8E4M3FN) return v;
    if (!known_rank(dq->in[0], 4) || !qx_fuse_scalar(f, dq->in[1], &s) || !zero_point(f, dq, &z)) return v;
    *scale = qx_fuse_behind(dq->in[1]);
    *zero = (float)z;
    return dq->in[0];
}

/* All operands have batches and heads of their own; a matrix (a constant codebook in the place of keys or values) has none. */
static bool same_rank(const qx_node *qk, const qx_node *pv, int rank)
{
    return known_rank(qk->in[0], rank) && known_rank(qk->in[1], rank) && known_rank(pv->in[1], rank);
}

/* Scores that a mask of more matrices repeats: attention has one for each query. */
static bool repeats(const qx_value *scores, const qx_value *sum)
{
    const qx_type *a = &scores->type, *b = &sum->type;
    bool more = a->has_shape && b->has_shape && a->rank < b->rank;
    for (int i = 0; a->has_shape && b->has_shape && a->rank == b->rank && i < a->rank; i++)
        more = more || (a->dims[i].n == 1 && b->dims[i].n > 1);
    return more;
}

/* One number everywhere, which a factor makes 0, added to scores whose shape it does not change: what baddbmm with beta = 0
 * becomes. Made, it would be as large as the scores are. */
static bool adds_nothing(const qx_fuser *f, const qx_node *add, uint32_t side)
{
    double scale = 1;
    const qx_node *n = qx_fuse_is(qx_fuse_def(f, peel_scale(f, add->in[side], &scale)), QX_OP_ConstantOfShape);
    const qx_attr *value = n ? qx_node_attr(n, "value") : NULL;
    float fill = 0;
    if (!n || !qx_type_same_dims(&add->in[1 - side]->type, &add->out[0]->type)) return false;
    if (value && (!value->tensor || value->tensor->dtype != QX_DT_FLOAT || value->tensor->numel != 1 ||
        !qx_fuse_ok(f, qx_weight_read(f->x->ctx, value->tensor, &fill)))) return false;
    return isfinite(fill) && (double)fill * scale == 0;
}

static bool find(const qx_fuser *f, qx_rstep *s, match *m)
{
    double scale = 1;
    const qx_node *pv = qx_fuse_is(s, QX_OP_MatMul);
    if (!pv) return false;
    const qx_value *p = peel_codes(f, pv->in[0], &m->p);
    qx_rstep *sm = inner_def(f, &p);
    const qx_node *softmax = qx_fuse_is(sm, QX_OP_Softmax);
    if (!softmax || !last_axis(softmax) || !(known_rank(softmax->in[0], 3) || known_rank(softmax->in[0], 4))) return false;
    const qx_value *v = softmax->in[0];
    qx_rstep *d = inner_def(f, &v);
    const qx_node *add = qx_fuse_is(d, QX_OP_Add), *qk = NULL;
    if (add) {
        for (uint32_t side = 0; side < 2 && !qk; side++) {
            scale = 1;
            qk = scores(f, add->in[side], &scale);
            m->mask = qk && adds_nothing(f, add, 1 - side) ? NULL : add->in[1 - side];
            if (qk && repeats(add->in[side], add->out[0])) return false;
        }
    } else {
        qk = scores(f, softmax->in[0], &scale);
    }
    if (!qk || !same_rank(qk, pv, softmax->in[0]->type.rank)) return false;
    m->q = peel_heads(f, peel_scale(f, qk->in[0], &scale), &m->p.q_bshd);
    bool repeated;
    m->k = key(f, qk->in[1], &scale, &m->p, &repeated);
    const qx_value *heads = repeated ? peel_repeat(f, pv->in[1]) : pv->in[1]; /* keys and values must have as many heads */
    if (repeated && heads == pv->in[1]) return false;
    m->v = peel_dequantized(f, peel_heads(f, heads, &m->p.v_bshd), &m->v_scale, &m->p.v_zero);
    if (m->p.k_layout != QX_K_BHDS) m->k = peel_dequantized(f, m->k, &m->k_scale, &m->p.k_zero);
    m->p.scale = (float)scale;
    m->out = pv->out[0];
    m->at = s;
    qx_rstep *after = qx_fuse_user(f, pv->out[0]);
    const qx_node *t = qx_fuse_is(after, QX_OP_Transpose);
    if (t && perm_is(t, 0, 2, 1, 3)) {
        m->p.out_bshd = true;
        m->out = t->out[0];
        m->at = after;
    }
    return true;
}

qx_status qx_fuse_attention(qx_fuser *f, qx_rstep *s)
{
    match m = {0};
    if (!find(f, s, &m)) return QX_OK;
    qx_attn_params *p = qx_arena_memdup(f->x->mem, &m.p, sizeof m.p);
    if (!p) QX_FAIL(f->x->ctx, QX_E_NOMEM, "plan: out of memory");
    const qx_value *in[QX_ATTN_INPUTS] = {m.q, m.k, m.v, m.mask, m.k_scale, m.v_scale};
    return qx_fuse_set(f, m.at, qx_cpu_attn, p, in, m.k_scale || m.v_scale ? QX_ATTN_INPUTS : QX_ATTN_K_SCALE, m.out);
}

/* infer_point.c - inference of element-wise operators, and their arithmetic on known content: shapes are computed with Add, Mul,
 * Div, Where, Equal, Cast... in every exported model. */
#include <math.h>
#include <string.h>

#include "base/checked.h"
#include "onnx/infer/infer_op.h"
#include "onnx/weight/weight.h"

/* ---- same type ------------------------------------------------------------------------------------------------------- */

int qx_infer_same(qx_infer *ix, qx_node *n) { return qx_ix_same(ix, n, 0, 0); }

int qx_infer_axis_same(qx_infer *ix, qx_node *n)
{
    const qx_type *t;
    int axis;
    if (!qx_ix_shaped(ix, n, 0, &t)) return qx_ix_same(ix, n, 0, 0);
    int64_t given = qx_ix_int(ix, n, "axis", n->op->since < 13 && n->op->id != QX_OP_LpNormalization ? 1 : -1);
    bool flattens = n->op->since < 13 && given == t->rank; /* the old form: axis = rank was allowed */
    if (t->rank && !flattens) QX_TRY(qx_ix_axis(ix, n, given, t->rank, &axis));
    return qx_ix_same(ix, n, 0, 0);
}

int qx_infer_trilu(qx_infer *ix, qx_node *n)
{
    const qx_type *t;
    if (qx_ix_shaped(ix, n, 0, &t) && t->rank < 2) QX_IX_FAIL(ix, n, QX_E_SHAPE, "its input has rank %d and needs at least 2", t->rank);
    return qx_ix_same(ix, n, 0, 0);
}

int qx_infer_dropout(qx_infer *ix, qx_node *n)
{
    const qx_type *t = qx_ix_in(ix, n, 0);
    QX_TRY(qx_ix_same(ix, n, 0, 0));
    if (t->kind != QX_KIND_TENSOR) return QX_OK;
    int mask = n->op->since >= 10 ? QX_DT_BOOL : (int)t->dtype;
    return t->has_shape ? qx_ix_out(ix, n, 1, mask, t->rank, t->dims) : qx_ix_out_unranked(ix, n, 1, mask);
}

int qx_infer_identity(qx_infer *ix, qx_node *n)
{
    const qx_value *out = qx_node_out(n, 0);
    const qx_content *c = qx_ix_content(ix, n, 0);
    if (out && c) qx_ix_out_content(ix, n, 0, (qx_content *)c);
    return qx_ix_same(ix, n, 0, 0);
}

static qx_status same_shape(qx_infer *ix, qx_node *n, uint32_t in, int dtype)
{
    const qx_type *t;
    if (!qx_ix_shaped(ix, n, in, &t)) return qx_ix_out_unranked(ix, n, 0, dtype);
    return qx_ix_out(ix, n, 0, dtype, t->rank, t->dims);
}

int qx_infer_is_test(qx_infer *ix, qx_node *n) { return same_shape(ix, n, 0, QX_DT_BOOL); }
int qx_infer_regex_match(qx_infer *ix, qx_node *n) { return same_shape(ix, n, 0, QX_DT_BOOL); }

/* ---- content: one operand ------------------------------------------------------------------------------------------------ */

/* A real number as the type can hold it. */
static qx_num fit(int dtype, qx_num v)
{
    if (v.kind != QX_NUM_REAL) return v;
    if (dtype == QX_DT_FLOAT) v.f = (float)v.f;
    if (dtype == QX_DT_FLOAT16) v.f = qx_f16_to_f32(qx_f32_to_f16((float)v.f));
    if (dtype == QX_DT_BFLOAT16) v.f = qx_bf16_to_f32(qx_f32_to_bf16((float)v.f));
    return v;
}

static qx_num negate(qx_infer *ix, qx_num v) { return qx_num_sub(ix, qx_num_of(0), v); }

static qx_num apply_unary(qx_infer *ix, int id, qx_num v)
{
    double x;
    switch (id) {
    case QX_OP_Neg: return negate(ix, v);
    case QX_OP_Abs: return qx_num_nonneg(v) ? v : v.kind == QX_NUM_INT || v.kind == QX_NUM_REAL ? negate(ix, v) : (qx_num){0};
    case QX_OP_Floor: return qx_num_floor(ix, v);
    case QX_OP_Ceil: return qx_num_ceil(ix, v);
    case QX_OP_Round: return v.kind == QX_NUM_REAL ? qx_num_real(rint(v.f)) : v.kind == QX_NUM_EXPR && v.i != 1 ? (qx_num){0} : v;
    case QX_OP_Sqrt: return qx_num_as_real(v, &x) && x >= 0 ? qx_num_real(sqrt(x)) : (qx_num){0};
    case QX_OP_Reciprocal: return qx_num_div(ix, qx_num_of(1), v);
    case QX_OP_Sign: return qx_num_as_real(v, &x) ? qx_num_of((x > 0) - (x < 0)) : (qx_num){0};
    default: return (qx_num){0};
    }
}

int qx_infer_unary(qx_infer *ix, qx_node *n)
{
    const qx_content *c = qx_ix_content(ix, n, 0);
    int dtype = (int)qx_ix_in(ix, n, 0)->dtype;
    qx_content *out = c ? qx_ix_new_content(ix, c->n) : NULL;
    for (int64_t i = 0; out && i < c->n; i++) out->v[i] = fit(dtype, apply_unary(ix, (int)n->op->id, c->v[i]));
    qx_ix_out_content(ix, n, 0, out);
    return qx_ix_same(ix, n, 0, 0);
}

int qx_infer_logical_not(qx_infer *ix, qx_node *n)
{
    const qx_content *c = qx_ix_content(ix, n, 0);
    qx_content *out = c ? qx_ix_new_content(ix, c->n) : NULL;
    for (int64_t i = 0; out && i < c->n; i++) {
        if (c->v[i].kind == QX_NUM_INT) out->v[i] = qx_num_of(!c->v[i].i);
    }
    qx_ix_out_content(ix, n, 0, out);
    return qx_ix_same(ix, n, 0, 0);
}

/* ---- content: several operands, broadcast ---------------------------------------------------------------------------------- */

typedef qx_num combine_fn(qx_infer *ix, const qx_node *n, const qx_num *args, int dtype);

/* Flat index into a tensor of shape t for flat index `at` of the broadcast shape. */
static int64_t source_index(const qx_type *t, const qx_dim *dims, int rank, int64_t at)
{
    int64_t index = 0, stride = 1;
    for (int i = rank - 1; i >= 0; i--) {
        int64_t place = dims[i].n ? at % dims[i].n : 0;
        int k = i - (rank - t->rank);
        at = dims[i].n ? at / dims[i].n : 0;
        if (k < 0) continue;
        if (t->dims[k].n != 1) index += place * stride;
        stride *= t->dims[k].n;
    }
    return index;
}

static void combine_content(qx_infer *ix, qx_node *n, const qx_dim *dims, int rank, uint32_t count, int dtype, combine_fn *fn)
{
    const qx_type *types[3];
    const qx_content *in[3];
    int64_t total = 1;
    for (int i = 0; i < rank; i++) {
        if (dims[i].n < 0 || !qx_mul_i64(total, dims[i].n, &total) || total > QX_CONTENT_MAX) return;
    }
    for (uint32_t i = 0; i < count; i++) {
        in[i] = qx_ix_content(ix, n, i);
        if (!in[i] || !qx_ix_shaped(ix, n, i, &types[i])) return;
    }
    qx_content *out = qx_ix_new_content(ix, total);
    for (int64_t k = 0; out && k < total; k++) {
        qx_num args[3] = {{0}};
        for (uint32_t i = 0; i < count; i++) args[i] = in[i]->v[source_index(types[i], dims, rank, k)];
        out->v[k] = fit(dtype, fn(ix, n, args, dtype));
    }
    qx_ix_out_content(ix, n, 0, out);
}

static qx_num int_div(qx_infer *ix, qx_num a, qx_num b)
{
    if (a.kind == QX_NUM_INT && b.kind == QX_NUM_INT) { /* C's division, towards zero */
        if (b.i == 0 || (b.i == -1 && a.i == INT64_MIN)) return (qx_num){0};
        return qx_num_of(a.i / b.i);
    }
    return qx_num_floordiv(ix, a, b);
}

static qx_num modulo(qx_infer *ix, const qx_node *n, qx_num a, qx_num b, bool real)
{
    double x, y;
    bool c_like = qx_ix_int(ix, n, "fmod", 0) != 0;
    if (real || c_like) {
        if (!qx_num_as_real(a, &x) || !qx_num_as_real(b, &y) || y == 0) return (qx_num){0};
        return real ? qx_num_real(fmod(x, y)) : qx_num_of((int64_t)fmod(x, y));
    }
    return qx_num_sub(ix, a, qx_num_mul(ix, b, qx_num_floordiv(ix, a, b)));
}

static qx_num power(qx_infer *ix, qx_num a, qx_num b, bool real)
{
    int64_t e;
    double x, y;
    if (qx_num_as_int(b, &e) && e >= 0 && e <= 8 && !real) {
        qx_num p = qx_num_of(1);
        for (int64_t i = 0; i < e; i++) p = qx_num_mul(ix, p, a);
        return p;
    }
    return real && qx_num_as_real(a, &x) && qx_num_as_real(b, &y) ? qx_num_real(pow(x, y)) : (qx_num){0};
}

static qx_num apply_arith(qx_infer *ix, const qx_node *n, const qx_num *v, int dtype)
{
    bool real = qx_dtype_is_float(dtype);
    switch (n->op->id) {
    case QX_OP_Add: case QX_OP_Sum: return qx_num_add(ix, v[0], v[1]);
    case QX_OP_Sub: return qx_num_sub(ix, v[0], v[1]);
    case QX_OP_Mul: return qx_num_mul(ix, v[0], v[1]);
    case QX_OP_Div: return real ? qx_num_div(ix, v[0], v[1]) : int_div(ix, v[0], v[1]);
    case QX_OP_Mod: return modulo(ix, n, v[0], v[1], real);
    case QX_OP_Pow: return power(ix, v[0], v[1], real);
    case QX_OP_Min: return qx_num_min(ix, v[0], v[1]);
    case QX_OP_Max: return qx_num_max(ix, v[0], v[1]);
    default: return (qx_num){0};
    }
}

/* The element type that all inputs from..to-1 share; 0 when unknown. */
static qx_status common_dtype(qx_infer *ix, const qx_node *n, uint32_t from, uint32_t to, int *out)
{
    *out = 0;
    for (uint32_t i = from; i < to; i++) {
        int d = (int)qx_ix_in(ix, n, i)->dtype;
        if (*out && d && d != *out)
            QX_IX_FAIL(ix, n, QX_E_TYPE, "input %u is %s but input %u is %s", from, qx_dtype_get(*out)->text, i, qx_dtype_get(d)->text);
        if (!*out) *out = d;
    }
    return QX_OK;
}

static qx_status broadcast_all(qx_infer *ix, qx_node *n, uint32_t from, uint32_t to, int dtype, qx_dim **dims, int *rank)
{
    QX_TRY(qx_ix_broadcast_inputs(ix, n, from, to, dims, rank));
    return *rank < 0 ? qx_ix_out_unranked(ix, n, 0, dtype) : qx_ix_out(ix, n, 0, dtype, *rank, *dims);
}

/* Before opset 7 the second operand was aligned by attributes: the result has the shape of the first. */
static bool is_legacy_broadcast(const qx_node *n)
{
    return n->op->since < 7 && n->op->max_in == 2 && n->op->domain[0] == '\0';
}

int qx_infer_arith(qx_infer *ix, qx_node *n)
{
    int dtype = (int)qx_ix_in(ix, n, 0)->dtype, rank;
    qx_dim *dims;
    if (n->op->id != QX_OP_Pow) QX_TRY(common_dtype(ix, n, 0, n->n_in, &dtype));
    if (is_legacy_broadcast(n)) return same_shape(ix, n, 0, dtype);
    QX_TRY(broadcast_all(ix, n, 0, n->n_in, dtype, &dims, &rank));
    if (n->n_in == 2 && rank >= 0) combine_content(ix, n, dims, rank, 2, dtype, apply_arith);
    else if (n->n_in == 1 && qx_ix_content(ix, n, 0)) qx_ix_out_content(ix, n, 0, (qx_content *)qx_ix_content(ix, n, 0));
    return QX_OK;
}

int qx_infer_broadcast(qx_infer *ix, qx_node *n)
{
    int rank;
    qx_dim *dims;
    return broadcast_all(ix, n, 0, n->n_in, (int)qx_ix_in(ix, n, 0)->dtype, &dims, &rank);
}

/* The slope is broadcast to X, never the other way round. */
int qx_infer_prelu(qx_infer *ix, qx_node *n)
{
    const qx_type *x, *slope;
    if (n->op->since >= 7 && qx_ix_shaped(ix, n, 0, &x) && qx_ix_shaped(ix, n, 1, &slope) && slope->rank > x->rank)
        QX_IX_FAIL(ix, n, QX_E_SHAPE, "the slope has rank %d, more than X with rank %d", slope->rank, x->rank);
    return qx_ix_same(ix, n, 0, 0);
}

static qx_num apply_compare(qx_infer *ix, const qx_node *n, const qx_num *v, int dtype)
{
    double x, y;
    (void)dtype;
    if (v[0].kind == QX_NUM_EXPR || v[1].kind == QX_NUM_EXPR) { /* a dim equals itself, and is never negative */
        if (v[0].kind == QX_NUM_UNKNOWN || v[1].kind == QX_NUM_UNKNOWN) return (qx_num){0};
        qx_num d = qx_num_sub(ix, v[0], v[1]);
        bool equal = d.kind == QX_NUM_INT && d.i == 0;
        qx_num below = qx_num_sub(ix, qx_num_sub(ix, v[0], v[1]), qx_num_of(1)),
            above = qx_num_sub(ix, qx_num_sub(ix, v[1], v[0]), qx_num_of(1));
        bool differ = d.kind == QX_NUM_INT ? d.i != 0 : qx_num_nonneg(below) || qx_num_nonneg(above);
        if (n->op->id == QX_OP_Equal && (equal || differ)) return qx_num_of(equal);
        if (d.kind != QX_NUM_INT) return (qx_num){0};
        return apply_compare(ix, n, (qx_num[]){d, qx_num_of(0)}, dtype);
    }
    if (!qx_num_as_real(v[0], &x) || !qx_num_as_real(v[1], &y)) return (qx_num){0};
    switch (n->op->id) {
    case QX_OP_Equal: return qx_num_of(v[0].kind == QX_NUM_INT && v[1].kind == QX_NUM_INT ? v[0].i == v[1].i : x == y);
    case QX_OP_Greater: return qx_num_of(x > y);
    case QX_OP_GreaterOrEqual: return qx_num_of(x >= y);
    case QX_OP_Less: return qx_num_of(x < y);
    case QX_OP_LessOrEqual: return qx_num_of(x <= y);
    case QX_OP_And: return qx_num_of(x != 0 && y != 0);
    case QX_OP_Or: return qx_num_of(x != 0 || y != 0);
    case QX_OP_Xor: return qx_num_of((x != 0) != (y != 0));
    default: return (qx_num){0};
    }
}

int qx_infer_compare(qx_infer *ix, qx_node *n)
{
    int dtype, rank;
    qx_dim *dims;
    QX_TRY(common_dtype(ix, n, 0, n->n_in, &dtype));
    if (is_legacy_broadcast(n)) return same_shape(ix, n, 0, QX_DT_BOOL);
    QX_TRY(broadcast_all(ix, n, 0, n->n_in, QX_DT_BOOL, &dims, &rank));
    if (n->n_in == 2 && rank >= 0) combine_content(ix, n, dims, rank, 2, QX_DT_BOOL, apply_compare);
    return QX_OK;
}

static qx_num apply_where(qx_infer *ix, const qx_node *n, const qx_num *v, int dtype)
{
    (void)ix, (void)n, (void)dtype;
    if (v[0].kind != QX_NUM_INT) return (qx_num){0};
    return v[0].i ? v[1] : v[2];
}

int qx_infer_where(qx_infer *ix, qx_node *n)
{
    int dtype, rank;
    qx_dim *dims;
    QX_TRY(common_dtype(ix, n, 1, n->n_in, &dtype));
    QX_TRY(broadcast_all(ix, n, 0, n->n_in, dtype, &dims, &rank));
    if (n->n_in == 3 && rank >= 0) combine_content(ix, n, dims, rank, 3, dtype, apply_where);
    return QX_OK;
}

/* ---- casts ---------------------------------------------------------------------------------------------------------------- */

static qx_num convert(int to, qx_num v)
{
    char cls = qx_dtype_get(to)->cls;
    if (cls == 'F') return v.kind == QX_NUM_INT ? fit(to, qx_num_real((double)v.i)) : fit(to, v);
    if (cls == 'B') return v.kind == QX_NUM_INT ? qx_num_of(v.i != 0) : v.kind == QX_NUM_REAL ? qx_num_of(v.f != 0) : (qx_num){0};
    if (cls != 'I' && cls != 'U') return (qx_num){0};
    if (v.kind == QX_NUM_REAL) return fabs(v.f) < 9e18 ? qx_num_of((int64_t)v.f) : (qx_num){0};
    return v.kind == QX_NUM_EXPR && v.i != 1 ? (qx_num){0} : v;
}

static qx_status cast_to(qx_infer *ix, qx_node *n, int to)
{
    const qx_content *c = qx_ix_content(ix, n, 0);
    qx_content *out = c ? qx_ix_new_content(ix, c->n) : NULL;
    for (int64_t i = 0; out && i < c->n; i++) {
        bool floors = c->v[i].kind == QX_NUM_EXPR && c->v[i].i != 1 && !qx_dtype_is_float(to) && qx_num_nonneg(c->v[i]);
        out->v[i] = convert(to, floors ? qx_num_floor(ix, c->v[i]) : c->v[i]);
    }
    qx_ix_out_content(ix, n, 0, out);
    return same_shape(ix, n, 0, to);
}

int qx_infer_cast(qx_infer *ix, qx_node *n)
{
    const qx_attr *a = qx_ix_attr(ix, n, "to");
    int64_t to = qx_ix_int(ix, n, "to", 0);
    if (a && a->type == QX_ATTR_STRING) to = qx_dtype_parse(a->s); /* version 1 wrote the name */
    if (a && (to < 1 || to > INT32_MAX || !qx_dtype_get((int)to)->cls))
        QX_IX_FAIL(ix, n, QX_E_TYPE, "it casts to unknown type %lld", (long long)to);
    return a ? cast_to(ix, n, (int)to) : QX_OK;
}

int qx_infer_cast_like(qx_infer *ix, qx_node *n)
{
    int to = (int)qx_ix_in(ix, n, 1)->dtype;
    return to ? cast_to(ix, n, to) : QX_OK;
}

int qx_infer_bit_cast(qx_infer *ix, qx_node *n)
{
    int64_t to = qx_ix_int(ix, n, "to", 0);
    int from = (int)qx_ix_in(ix, n, 0)->dtype;
    if (to < 1 || to > INT32_MAX || !qx_dtype_get((int)to)->cls)
        QX_IX_FAIL(ix, n, QX_E_TYPE, "it casts to unknown type %lld", (long long)to);
    if (from && qx_dtype_bits(from) != qx_dtype_bits((int)to))
        QX_IX_FAIL(ix, n, QX_E_TYPE, "it reads %s as %s, which has another size", qx_dtype_get(from)->text, qx_dtype_get((int)to)->text);
    return same_shape(ix, n, 0, (int)to);
}

/* infer_rules.c - accessors of inference functions and the rules that many operators share: broadcasting, axes, dims from content. */
#include <stdio.h>
#include <string.h>

#include "onnx/infer/infer_state.h"

static const qx_type no_type;

qx_ctx *qx_ix_ctx(const qx_infer *ix) { return ix->ctx; }
qx_arena *qx_ix_arena(const qx_infer *ix) { return ix->arena; }
qx_exprs *qx_ix_exprs(const qx_infer *ix) { return ix->exprs; }
bool qx_ix_is_concrete(const qx_infer *ix) { return ix->concrete; }

/* ---- inputs ---------------------------------------------------------------------------------------------------------- */

bool qx_ix_given(const qx_node *n, uint32_t i)
{
    return qx_node_in(n, i) != NULL;
}

const qx_type *qx_ix_in(qx_infer *ix, const qx_node *n, uint32_t i)
{
    const qx_value *v = qx_node_in(n, i);
    return v ? qx_infer_type(ix, v) : &no_type;
}

bool qx_ix_shaped(qx_infer *ix, const qx_node *n, uint32_t i, const qx_type **out)
{
    *out = qx_ix_in(ix, n, i);
    return (*out)->kind == QX_KIND_TENSOR && (*out)->has_shape;
}

const qx_content *qx_ix_content(qx_infer *ix, const qx_node *n, uint32_t i)
{
    const qx_value *v = qx_node_in(n, i);
    return v ? qx_infer_content(ix, v) : NULL;
}

bool qx_ix_ints_of(qx_infer *ix, const qx_node *n, uint32_t i, int64_t *out, int64_t cap, int64_t *count)
{
    const qx_content *c = qx_ix_content(ix, n, i);
    if (!c || c->n > cap) return false;
    for (int64_t k = 0; k < c->n; k++) {
        if (!qx_num_as_int(c->v[k], &out[k])) return false;
    }
    *count = c->n;
    return true;
}

const qx_attr *qx_ix_attr(const qx_infer *ix, const qx_node *n, const char *name)
{
    const qx_attr *a = qx_node_attr(n, name);
    for (const qx_frame *f = ix->frame; a && a->ref_name; f = f->up) {
        if (!f) return NULL;
        const char *wanted = a->ref_name;
        a = qx_node_attr(f->call, wanted);
        const qx_function *fn = f->call->callee;
        for (uint32_t i = 0; !a && i < fn->n_attr_defaults; i++) {
            if (strcmp(fn->attr_defaults[i].name, wanted) == 0) return &fn->attr_defaults[i];
        }
    }
    return a;
}

static const qx_attr *typed(const qx_infer *ix, const qx_node *n, const char *name, qx_attr_type type)
{
    const qx_attr *a = qx_ix_attr(ix, n, name);
    return a && a->type == type ? a : NULL;
}

int64_t qx_ix_int(const qx_infer *ix, const qx_node *n, const char *name, int64_t fallback)
{
    const qx_attr *a = typed(ix, n, name, QX_ATTR_INT);
    return a ? a->i : fallback;
}

float qx_ix_float(const qx_infer *ix, const qx_node *n, const char *name, float fallback)
{
    const qx_attr *a = typed(ix, n, name, QX_ATTR_FLOAT);
    return a ? a->f : fallback;
}

const char *qx_ix_string(const qx_infer *ix, const qx_node *n, const char *name, const char *fallback)
{
    const qx_attr *a = typed(ix, n, name, QX_ATTR_STRING);
    return a ? a->s : fallback;
}

const int64_t *qx_ix_ints(const qx_infer *ix, const qx_node *n, const char *name, int64_t *count)
{
    const qx_attr *a = typed(ix, n, name, QX_ATTR_INTS);
    *count = a ? a->n : 0;
    return a ? a->ints : NULL;
}

qx_graph *qx_ix_body(const qx_infer *ix, const qx_node *n, const char *name)
{
    const qx_attr *a = qx_ix_attr(ix, n, name);
    return a && a->type == QX_ATTR_GRAPH ? a->graph : NULL;
}

/* ---- outputs ----------------------------------------------------------------------------------------------------------- */

qx_dim *qx_ix_dims(qx_infer *ix, int rank)
{
    return qx_arena_array(ix->arena, rank > 0 ? (size_t)rank : 1, sizeof(qx_dim));
}

qx_status qx_ix_out_type(qx_infer *ix, const qx_node *n, uint32_t i, const qx_type *t)
{
    const qx_value *v = qx_node_out(n, i);
    if (v) qx_ix_set_type(ix, v, t);
    return QX_OK;
}

qx_status qx_ix_out(qx_infer *ix, const qx_node *n, uint32_t i, int dtype, int rank, qx_dim *dims)
{
    if (!dims) return QX_IX_NOMEM(ix);
    if (rank > QX_MAX_DIMS) QX_IX_FAIL(ix, n, QX_E_SHAPE, "its result has rank %d; at most %d is supported", rank, QX_MAX_DIMS);
    qx_type t = {.kind = QX_KIND_TENSOR, .dtype = (qx_dtype)dtype, .has_shape = true, .rank = rank, .dims = dims};
    return qx_ix_out_type(ix, n, i, &t);
}

qx_status qx_ix_out_unranked(qx_infer *ix, const qx_node *n, uint32_t i, int dtype)
{
    qx_type t = {.kind = QX_KIND_TENSOR, .dtype = (qx_dtype)dtype};
    return qx_ix_out_type(ix, n, i, &t);
}

qx_content *qx_ix_new_content(qx_infer *ix, int64_t count)
{
    if (count < 0 || count > QX_CONTENT_MAX) return NULL;
    qx_content *c = qx_arena_alloc(ix->arena, sizeof *c);
    qx_num *v = qx_arena_array(ix->arena, count ? (size_t)count : 1, sizeof *v);
    if (!c || !v) return NULL;
    *c = (qx_content){.n = count, .v = v};
    return c;
}

void qx_ix_out_content(qx_infer *ix, const qx_node *n, uint32_t i, qx_content *c)
{
    const qx_value *v = qx_node_out(n, i);
    if (v && c) qx_ix_set_content(ix, v, c);
}

qx_status qx_ix_fail(qx_infer *ix, const qx_node *n, qx_status code, const char *fmt, ...)
{
    char text[512], label[256];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return n ? qx_fail(ix->ctx, code, "%s: %s", qx_node_label(n, label, sizeof label), text) : qx_fail(ix->ctx, code, "%s", text);
}

/* ---- shared rules -------------------------------------------------------------------------------------------------------- */

qx_status qx_ix_axis(qx_infer *ix, const qx_node *n, int64_t axis, int rank, int *out)
{
    if (axis < -(int64_t)rank || axis >= rank)
        QX_IX_FAIL(ix, n, QX_E_SHAPE, "axis %lld is outside [%d, %d] of a tensor of rank %d", (long long)axis, -rank, rank - 1, rank);
    *out = (int)(axis < 0 ? axis + rank : axis);
    return QX_OK;
}

static bool is_name(qx_infer *ix, qx_dim d)
{
    if (!d.sym) return false;
    const qx_expr *e = qx_expr_parse(ix->exprs, d.sym);
    return e && qx_expr_is_name(e);
}

qx_status qx_ix_equal(qx_infer *ix, const qx_node *n, const char *what, qx_dim *a, qx_dim b)
{
    if (a->n >= 0 && b.n >= 0 && a->n != b.n)
        QX_IX_FAIL(ix, n, QX_E_SHAPE, "%s differ: %lld and %lld", what, (long long)a->n, (long long)b.n);
    if (a->n >= 0 || (b.n < 0 && !b.sym)) return QX_OK;
    if (b.n >= 0 || !a->sym || (!is_name(ix, *a) && is_name(ix, b))) *a = b;
    return QX_OK;
}

static qx_status broadcast_dim(qx_infer *ix, const qx_node *n, qx_dim a, qx_dim b, qx_dim *out)
{
    if (qx_dim_same(a, b) || b.n == 1) {
        *out = a;
    } else if (a.n == 1) {
        *out = b;
    } else if (a.n >= 0 && b.n >= 0) {
        QX_IX_FAIL(ix, n, QX_E_SHAPE, "dims %lld and %lld cannot be broadcast", (long long)a.n, (long long)b.n);
    } else if (a.n >= 0 || b.n >= 0) {
        *out = a.n >= 0 ? a : b; /* the other is 1 or the same */
    } else { /* both are equal, or one is 1: the larger */
        *out = qx_dim_of_num(ix, qx_num_max(ix, qx_num_of_dim(ix, a), qx_num_of_dim(ix, b)));
    }
    return QX_OK;
}

qx_status qx_ix_broadcast(qx_infer *ix, const qx_node *n, const qx_dim *a, int ra, const qx_dim *b, int rb, qx_dim **out, int *rank)
{
    int r = ra > rb ? ra : rb;
    qx_dim *d = qx_ix_dims(ix, r);
    if (!d) return QX_IX_NOMEM(ix);
    for (int i = 0; i < r; i++) {
        qx_dim da = i < r - ra ? qx_dim_of(1) : a[i - (r - ra)], db = i < r - rb ? qx_dim_of(1) : b[i - (r - rb)];
        QX_TRY(broadcast_dim(ix, n, da, db, &d[i]));
    }
    *out = d;
    *rank = r;
    return QX_OK;
}

qx_status qx_ix_broadcast_inputs(qx_infer *ix, const qx_node *n, uint32_t from, uint32_t to, qx_dim **out, int *rank)
{
    *rank = -1;
    *out = NULL;
    for (uint32_t i = from; i < to; i++) {
        const qx_type *t;
        if (!qx_ix_given(n, i)) continue;
        if (!qx_ix_shaped(ix, n, i, &t)) {
            *rank = -1;
            return QX_OK;
        }
        if (*rank < 0) {
            *out = t->dims;
            *rank = t->rank;
        } else {
            QX_TRY(qx_ix_broadcast(ix, n, *out, *rank, t->dims, t->rank, out, rank));
        }
    }
    return QX_OK;
}

qx_status qx_ix_same(qx_infer *ix, const qx_node *n, uint32_t out, uint32_t in)
{
    return qx_ix_out_type(ix, n, out, qx_ix_in(ix, n, in));
}

qx_status qx_ix_dims_from_content(qx_infer *ix, const qx_node *n, uint32_t input, qx_dim **out, int *rank)
{
    const qx_content *c = qx_ix_content(ix, n, input);
    const qx_type *t;
    *rank = -1;
    *out = NULL;
    if (!c) {
        if (!qx_ix_shaped(ix, n, input, &t) || t->rank != 1 || t->dims[0].n < 0 || t->dims[0].n > 64) return QX_OK;
        *rank = (int)t->dims[0].n;
    } else {
        *rank = (int)c->n;
    }
    *out = qx_ix_dims(ix, *rank);
    if (!*out) return QX_IX_NOMEM(ix);
    for (int i = 0; i < *rank; i++) {
        int64_t v;
        (*out)[i] = c ? qx_dim_of_num(ix, c->v[i]) : qx_dim_unknown();
        if (c && qx_num_as_int(c->v[i], &v) && v < 0) QX_IX_FAIL(ix, n, QX_E_SHAPE, "dim %d of the wanted shape is %lld", i, (long long)v);
    }
    return QX_OK;
}

bool qx_type_equal(const qx_type *a, const qx_type *b)
{
    if (a->kind != b->kind || a->dtype != b->dtype || a->has_shape != b->has_shape || (a->elem == NULL) != (b->elem == NULL)) return false;
    if (a->has_shape && a->rank != b->rank) return false;
    for (int i = 0; a->has_shape && i < a->rank; i++) {
        if (a->dims[i].n != b->dims[i].n || a->dims[i].sym != b->dims[i].sym) return false;
    }
    return !a->elem || qx_type_equal(a->elem, b->elem);
}

qx_status qx_ix_join(qx_infer *ix, const qx_node *n, const qx_type *a, const qx_type *b, qx_type *out)
{
    char ta[120], tb[120];
    const qx_type left = *a; /* out may be a */
    a = &left;
    *out = left;
    if (a->kind == QX_KIND_NONE || b->kind == QX_KIND_NONE) {
        *out = no_type;
        return QX_OK;
    }
    if (a->kind != b->kind || (a->dtype && b->dtype && a->dtype != b->dtype))
        QX_IX_FAIL(ix, n, QX_E_TYPE, "types %s and %s do not go together", qx_type_describe(a, ta, sizeof ta),
                   qx_type_describe(b, tb, sizeof tb));
    if (!out->dtype) out->dtype = b->dtype;
    if (a->elem && b->elem) {
        qx_type *elem = qx_arena_alloc(ix->arena, sizeof *elem);
        if (!elem) return QX_IX_NOMEM(ix);
        QX_TRY(qx_ix_join(ix, n, a->elem, b->elem, elem));
        out->elem = elem;
    }
    if (!a->has_shape || !b->has_shape || a->rank != b->rank) {
        out->has_shape = false;
        out->rank = 0;
        out->dims = NULL;
        return QX_OK;
    }
    out->dims = qx_ix_dims(ix, a->rank);
    if (!out->dims) return QX_IX_NOMEM(ix);
    for (int i = 0; i < a->rank; i++) out->dims[i] = qx_dim_same(a->dims[i], b->dims[i]) ? a->dims[i] : qx_dim_unknown();
    return QX_OK;
}

bool qx_dtype_is_numeric(int dtype)
{
    char c = qx_dtype_get(dtype)->cls;
    return c == 'F' || c == 'I' || c == 'U';
}

/* infer_seq.c - inference of sequences and optionals. */
#include <string.h>

#include "onnx/infer/infer_op.h"

enum { MOST_NESTING = 16 }; /* types are copied and compared by recursion */

static qx_status wrap(qx_infer *ix, qx_node *n, qx_kind kind, const qx_type *elem)
{
    int depth = 0;
    for (const qx_type *t = elem; t; t = t->elem) depth++;
    if (depth > MOST_NESTING) QX_IX_FAIL(ix, n, QX_E_TYPE, "its result is a type nested deeper than %d", MOST_NESTING);
    qx_type *copy = qx_arena_memdup(qx_ix_arena(ix), elem, sizeof *copy);
    if (!copy) return QX_IX_NOMEM(ix);
    return qx_ix_out_type(ix, n, 0, &(qx_type){.kind = kind, .elem = copy});
}

static const qx_type *element(qx_infer *ix, const qx_node *n, uint32_t i)
{
    const qx_type *t = qx_ix_in(ix, n, i);
    return t->kind == QX_KIND_SEQUENCE || t->kind == QX_KIND_OPTIONAL ? t->elem : NULL;
}

int qx_infer_sequence_construct(qx_infer *ix, qx_node *n)
{
    qx_type t = *qx_ix_in(ix, n, 0);
    for (uint32_t i = 1; i < n->n_in; i++) QX_TRY(qx_ix_join(ix, n, &t, qx_ix_in(ix, n, i), &t));
    return t.kind == QX_KIND_NONE ? QX_OK : wrap(ix, n, QX_KIND_SEQUENCE, &t);
}

int qx_infer_sequence_empty(qx_infer *ix, qx_node *n)
{
    qx_type t = {.kind = QX_KIND_TENSOR, .dtype = (qx_dtype)qx_ix_int(ix, n, "dtype", QX_DT_FLOAT)};
    return wrap(ix, n, QX_KIND_SEQUENCE, &t);
}

int qx_infer_sequence_at(qx_infer *ix, qx_node *n)
{
    const qx_type *e = element(ix, n, 0);
    return e ? qx_ix_out_type(ix, n, 0, e) : QX_OK;
}

int qx_infer_sequence_insert(qx_infer *ix, qx_node *n)
{
    const qx_type *e = element(ix, n, 0), *t = qx_ix_in(ix, n, 1);
    qx_type joined;
    if (!e || t->kind == QX_KIND_NONE) return qx_ix_same(ix, n, 0, 0);
    QX_TRY(qx_ix_join(ix, n, e, t, &joined));
    return wrap(ix, n, QX_KIND_SEQUENCE, &joined);
}

int qx_infer_sequence_erase(qx_infer *ix, qx_node *n) { return qx_ix_same(ix, n, 0, 0); }
int qx_infer_sequence_length(qx_infer *ix, qx_node *n) { return qx_ix_out(ix, n, 0, QX_DT_INT64, 0, qx_ix_dims(ix, 0)); }

int qx_infer_split_to_sequence(qx_infer *ix, qx_node *n)
{
    const qx_type *x, *split;
    int axis;
    qx_type t = *qx_ix_in(ix, n, 0);
    if (!qx_ix_shaped(ix, n, 0, &x)) return t.kind == QX_KIND_TENSOR ? wrap(ix, n, QX_KIND_SEQUENCE, &t) : QX_OK;
    QX_TRY(qx_ix_axis(ix, n, qx_ix_int(ix, n, "axis", 0), x->rank, &axis));
    bool drops = !qx_ix_given(n, 1) && qx_ix_int(ix, n, "keepdims", 1) == 0;
    t.dims = qx_ix_dims(ix, x->rank);
    if (!t.dims) return QX_IX_NOMEM(ix);
    t.rank = 0;
    const qx_content *c = qx_ix_content(ix, n, 1);
    bool one_size = qx_ix_shaped(ix, n, 1, &split) && split->rank == 0 && c && c->n == 1 && c->v[0].kind == QX_NUM_INT &&
        c->v[0].i > 0 && x->dims[axis].n >= 0 && x->dims[axis].n % c->v[0].i == 0;
    for (int i = 0; i < x->rank; i++) {
        if (i != axis) t.dims[t.rank++] = x->dims[i];
        else if (!drops) t.dims[t.rank++] = !qx_ix_given(n, 1) ? qx_dim_of(1) : one_size ? qx_dim_of(c->v[0].i) : qx_dim_unknown();
    }
    return wrap(ix, n, QX_KIND_SEQUENCE, &t);
}

int qx_infer_concat_from_sequence(qx_infer *ix, qx_node *n)
{
    const qx_type *e = element(ix, n, 0);
    int axis;
    if (!e || e->kind != QX_KIND_TENSOR) return QX_OK;
    if (!e->has_shape) return qx_ix_out_unranked(ix, n, 0, (int)e->dtype);
    bool adds = qx_ix_int(ix, n, "new_axis", 0) != 0;
    int rank = e->rank + adds;
    qx_dim *dims = qx_ix_dims(ix, rank);
    if (!dims) return QX_IX_NOMEM(ix);
    QX_TRY(qx_ix_axis(ix, n, qx_ix_int(ix, n, "axis", 0), rank, &axis));
    for (int i = 0, k = 0; i < rank; i++) {
        if (i == axis && !adds) k++;
        dims[i] = i == axis ? qx_dim_unknown() : e->dims[k++];
    }
    return qx_ix_out(ix, n, 0, (int)e->dtype, rank, dims);
}

int qx_infer_optional(qx_infer *ix, qx_node *n)
{
    const qx_attr *a = qx_ix_attr(ix, n, "type");
    if (qx_ix_given(n, 0)) return qx_ix_in(ix, n, 0)->kind == QX_KIND_NONE ? QX_OK : wrap(ix, n, QX_KIND_OPTIONAL, qx_ix_in(ix, n, 0));
    return a && a->type_value ? wrap(ix, n, QX_KIND_OPTIONAL, a->type_value) : QX_OK;
}

int qx_infer_optional_get(qx_infer *ix, qx_node *n)
{
    const qx_type *t = qx_ix_in(ix, n, 0);
    return qx_ix_out_type(ix, n, 0, t->kind == QX_KIND_OPTIONAL && t->elem ? t->elem : t);
}

int qx_infer_optional_has(qx_infer *ix, qx_node *n) { return qx_ix_out(ix, n, 0, QX_DT_BOOL, 0, qx_ix_dims(ix, 0)); }

/* infer_reduce.c - inference of operators that fold axes: Reduce*, ArgMax, ArgMin, CumSum's axis, TopK, Unique. */
#include <string.h>

#include "onnx/infer/infer_op.h"

enum { MAX_AXES = 64 };

/* Axes from the attribute or from input `from` (0: there is none). *known false when they cannot be told. */
static qx_status read_axes(qx_infer *ix, qx_node *n, uint32_t from, int rank, bool *reduce, bool *known, int64_t *count)
{
    int64_t attr_count, axes[MAX_AXES];
    const int64_t *attr = qx_ix_ints(ix, n, "axes", &attr_count);
    *known = true;
    *count = attr_count;
    if (from && qx_ix_given(n, from)) {
        attr = axes;
        *known = qx_ix_ints_of(ix, n, from, axes, MAX_AXES, count);
    }
    for (int64_t i = 0; *known && attr && i < *count; i++) {
        int axis;
        QX_TRY(qx_ix_axis(ix, n, attr[i], rank, &axis));
        reduce[axis] = true;
    }
    return QX_OK;
}

/* Which axes a Reduce node folds. */
static qx_status reduced_axes(qx_infer *ix, qx_node *n, const qx_type *x, bool *reduce, bool *known)
{
    int64_t count;
    uint32_t from = n->op->max_in > 1 ? 1 : 0;
    QX_TRY(read_axes(ix, n, from, x->rank, reduce, known, &count));
    if (*known && count == 0 && !qx_ix_int(ix, n, "noop_with_empty_axes", 0)) memset(reduce, 1, (size_t)x->rank * sizeof *reduce);
    return QX_OK;
}

/* Number of output dims when only the number of axes is known. */
static int rank_after(qx_infer *ix, qx_node *n, const qx_type *x, bool keep)
{
    const qx_type *axes;
    if (keep) return x->rank;
    if (!qx_ix_shaped(ix, n, 1, &axes) || axes->rank != 1 || axes->dims[0].n < 1 || axes->dims[0].n > x->rank) return -1;
    return x->rank - (int)axes->dims[0].n;
}

static void fold_content(qx_infer *ix, qx_node *n, const qx_type *x, const bool *reduce)
{
    const qx_content *c = qx_ix_content(ix, n, 0);
    qx_content *out = c && x->rank <= 1 ? qx_ix_new_content(ix, x->rank == 1 && !reduce[0] ? c->n : 1) : NULL;
    if (!out || c->n == 0 || out->n != 1) return;
    qx_num v = c->v[0];
    for (int64_t i = 1; i < c->n; i++) {
        switch (n->op->id) {
        case QX_OP_ReduceProd: v = qx_num_mul(ix, v, c->v[i]); break;
        case QX_OP_ReduceSum: v = qx_num_add(ix, v, c->v[i]); break;
        case QX_OP_ReduceMax: v = qx_num_max(ix, v, c->v[i]); break;
        case QX_OP_ReduceMin: v = qx_num_min(ix, v, c->v[i]); break;
        default: return;
        }
    }
    bool plain = n->op->id == QX_OP_ReduceProd || n->op->id == QX_OP_ReduceSum || n->op->id == QX_OP_ReduceMax ||
        n->op->id == QX_OP_ReduceMin;
    out->v[0] = v;
    if (plain) qx_ix_out_content(ix, n, 0, out);
}

static qx_status fold(qx_infer *ix, qx_node *n, const qx_type *x, const bool *reduce, bool keep, int dtype)
{
    qx_dim *dims = qx_ix_dims(ix, x->rank);
    int rank = 0;
    if (!dims) return QX_IX_NOMEM(ix);
    for (int i = 0; i < x->rank; i++) {
        if (!reduce[i]) dims[rank++] = x->dims[i];
        else if (keep) dims[rank++] = qx_dim_of(1);
    }
    return qx_ix_out(ix, n, 0, dtype, rank, dims);
}

int qx_infer_reduce(qx_infer *ix, qx_node *n)
{
    const qx_type *x;
    bool known, keep = qx_ix_int(ix, n, "keepdims", 1) != 0;
    int dtype = (int)qx_ix_in(ix, n, 0)->dtype;
    if (!qx_ix_shaped(ix, n, 0, &x)) return qx_ix_out_unranked(ix, n, 0, dtype);
    bool *reduce = qx_arena_array(qx_ix_arena(ix), (size_t)x->rank + 1, sizeof *reduce);
    if (!reduce) return QX_IX_NOMEM(ix);
    QX_TRY(reduced_axes(ix, n, x, reduce, &known));
    if (!known) {
        int rank = rank_after(ix, n, x, keep);
        qx_dim *dims = rank >= 0 ? qx_ix_dims(ix, rank) : NULL;
        for (int i = 0; dims && i < rank; i++) dims[i] = qx_dim_unknown();
        return dims ? qx_ix_out(ix, n, 0, dtype, rank, dims) : qx_ix_out_unranked(ix, n, 0, dtype);
    }
    fold_content(ix, n, x, reduce);
    return fold(ix, n, x, reduce, keep, dtype);
}

int qx_infer_arg_reduce(qx_infer *ix, qx_node *n)
{
    const qx_type *x;
    int axis;
    if (!qx_ix_shaped(ix, n, 0, &x)) return qx_ix_out_unranked(ix, n, 0, QX_DT_INT64);
    bool *reduce = qx_arena_array(qx_ix_arena(ix), (size_t)x->rank + 1, sizeof *reduce);
    if (!reduce) return QX_IX_NOMEM(ix);
    QX_TRY(qx_ix_axis(ix, n, qx_ix_int(ix, n, "axis", 0), x->rank, &axis));
    reduce[axis] = true;
    return fold(ix, n, x, reduce, qx_ix_int(ix, n, "keepdims", 1) != 0, QX_DT_INT64);
}

int qx_infer_cumsum(qx_infer *ix, qx_node *n)
{
    const qx_type *x;
    int64_t axis, count;
    int ignored;
    if (qx_ix_shaped(ix, n, 0, &x) && qx_ix_ints_of(ix, n, 1, &axis, 1, &count) && count == 1)
        QX_TRY(qx_ix_axis(ix, n, axis, x->rank, &ignored));
    return qx_ix_same(ix, n, 0, 0);
}

/* k: attribute in version 1, input 1 after. */
static qx_dim top_k(qx_infer *ix, qx_node *n)
{
    if (n->op->since < 10) {
        int64_t k = qx_ix_int(ix, n, "k", -1);
        return k >= 0 ? qx_dim_of(k) : qx_dim_unknown();
    }
    const qx_content *c = qx_ix_content(ix, n, 1);
    return c && c->n == 1 ? qx_dim_of_num(ix, c->v[0]) : qx_dim_unknown();
}

int qx_infer_topk(qx_infer *ix, qx_node *n)
{
    const qx_type *x;
    int axis, dtype = (int)qx_ix_in(ix, n, 0)->dtype;
    if (!qx_ix_shaped(ix, n, 0, &x)) {
        QX_TRY(qx_ix_out_unranked(ix, n, 0, dtype));
        return qx_ix_out_unranked(ix, n, 1, QX_DT_INT64);
    }
    qx_dim *dims = qx_ix_dims(ix, x->rank);
    if (!dims) return QX_IX_NOMEM(ix);
    QX_TRY(qx_ix_axis(ix, n, qx_ix_int(ix, n, "axis", -1), x->rank, &axis));
    memcpy(dims, x->dims, (size_t)x->rank * sizeof *dims);
    dims[axis] = top_k(ix, n);
    if (dims[axis].n > x->dims[axis].n && x->dims[axis].n >= 0)
        QX_IX_FAIL(ix, n, QX_E_SHAPE, "k is %lld but axis %d has %lld elements", (long long)dims[axis].n, axis, (long long)x->dims[axis].n);
    QX_TRY(qx_ix_out(ix, n, 0, dtype, x->rank, dims));
    return qx_ix_out(ix, n, 1, QX_DT_INT64, x->rank, dims);
}

int qx_infer_unique(qx_infer *ix, qx_node *n)
{
    const qx_type *x;
    int axis, dtype = (int)qx_ix_in(ix, n, 0)->dtype;
    qx_dim *one = qx_ix_dims(ix, 1);
    if (!one) return QX_IX_NOMEM(ix);
    one[0] = qx_dim_unknown();
    for (uint32_t i = 1; i < 4; i++) QX_TRY(qx_ix_out(ix, n, i, QX_DT_INT64, 1, one));
    if (!qx_ix_attr(ix, n, "axis")) return qx_ix_out(ix, n, 0, dtype, 1, one);
    if (!qx_ix_shaped(ix, n, 0, &x)) return qx_ix_out_unranked(ix, n, 0, dtype);
    qx_dim *dims = qx_ix_dims(ix, x->rank);
    if (!dims) return QX_IX_NOMEM(ix);
    QX_TRY(qx_ix_axis(ix, n, qx_ix_int(ix, n, "axis", 0), x->rank, &axis));
    memcpy(dims, x->dims, (size_t)x->rank * sizeof *dims);
    dims[axis] = qx_dim_unknown();
    return qx_ix_out(ix, n, 0, dtype, x->rank, dims);
}

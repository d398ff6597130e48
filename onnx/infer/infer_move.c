/* infer_move.c - inference of operators that pick, join and cut elements. Content is followed through Gather, Concat, Slice and Split
 * of 1-D tensors, which is what shape arithmetic consists of. */
#include <string.h>

#include "onnx/infer/infer_op.h"

static qx_status copy_dims(qx_infer *ix, const qx_type *x, qx_dim **out)
{
    *out = qx_ix_dims(ix, x->rank);
    if (!*out) return QX_IX_NOMEM(ix);
    if (x->rank) memcpy(*out, x->dims, (size_t)x->rank * sizeof **out);
    return QX_OK;
}

static qx_status unknown_dims(qx_infer *ix, const qx_node *n, uint32_t out, int dtype, int rank)
{
    qx_dim *dims = qx_ix_dims(ix, rank);
    for (int i = 0; dims && i < rank; i++) dims[i] = qx_dim_unknown();
    return qx_ix_out(ix, n, out, dtype, rank, dims);
}

/* ---- Gather and its kin ------------------------------------------------------------------------------------------------- */

static qx_status gather_content(qx_infer *ix, qx_node *n, const qx_type *x)
{
    const qx_content *data = qx_ix_content(ix, n, 0), *at = qx_ix_content(ix, n, 1);
    if (x->rank != 1 || !at) return QX_OK;
    qx_content *out = data ? qx_ix_new_content(ix, at->n) : NULL;
    for (int64_t i = 0; i < at->n; i++) {
        int64_t k, count = x->dims[0].n;
        if (count < 0 || !qx_num_as_int(at->v[i], &k)) continue;
        if (k < -count || k >= count)
            QX_IX_FAIL(ix, n, QX_E_SHAPE, "index %lld is outside of an axis with %lld elements", (long long)k, (long long)count);
        if (out) out->v[i] = data->v[k < 0 ? k + count : k];
    }
    qx_ix_out_content(ix, n, 0, out);
    return QX_OK;
}

int qx_infer_gather(qx_infer *ix, qx_node *n)
{
    const qx_type *x, *at;
    int axis, rank = 0;
    if (!qx_ix_shaped(ix, n, 0, &x) || !qx_ix_shaped(ix, n, 1, &at)) return qx_ix_out_unranked(ix, n, 0, qx_ix_dtype(ix, n, 0));
    if (x->rank == 0) QX_IX_FAIL(ix, n, QX_E_SHAPE, "its data is a scalar");
    QX_TRY(qx_ix_axis(ix, n, qx_ix_int(ix, n, "axis", 0), x->rank, &axis));
    qx_dim *dims = qx_ix_dims(ix, x->rank + at->rank);
    if (!dims) return QX_IX_NOMEM(ix);
    for (int i = 0; i < axis; i++) dims[rank++] = x->dims[i];
    for (int i = 0; i < at->rank; i++) dims[rank++] = at->dims[i];
    for (int i = axis + 1; i < x->rank; i++) dims[rank++] = x->dims[i];
    QX_TRY(gather_content(ix, n, x));
    return qx_ix_out(ix, n, 0, (int)x->dtype, rank, dims);
}

int qx_infer_gather_elements(qx_infer *ix, qx_node *n)
{
    const qx_type *x, *at;
    int axis;
    bool shaped = qx_ix_shaped(ix, n, 0, &x);
    if (!qx_ix_shaped(ix, n, 1, &at)) return qx_ix_out_unranked(ix, n, 0, qx_ix_dtype(ix, n, 0));
    if (shaped && x->rank != at->rank) QX_IX_FAIL(ix, n, QX_E_SHAPE, "data has rank %d and indices have rank %d", x->rank, at->rank);
    QX_TRY(qx_ix_axis(ix, n, qx_ix_int(ix, n, "axis", 0), at->rank, &axis));
    return qx_ix_out(ix, n, 0, qx_ix_dtype(ix, n, 0), at->rank, at->dims);
}

int qx_infer_gather_nd(qx_infer *ix, qx_node *n)
{
    const qx_type *x, *at;
    int64_t batch = qx_ix_int(ix, n, "batch_dims", 0);
    int dtype = qx_ix_dtype(ix, n, 0), rank = 0;
    if (!qx_ix_shaped(ix, n, 0, &x) || !qx_ix_shaped(ix, n, 1, &at)) return qx_ix_out_unranked(ix, n, 0, dtype);
    if (at->rank == 0 || x->rank == 0)
        QX_IX_FAIL(ix, n, QX_E_SHAPE, "data has rank %d and indices have rank %d; both must be at least 1", x->rank, at->rank);
    int64_t depth = at->dims[at->rank - 1].n;
    if (batch < 0 || batch >= at->rank || batch >= x->rank)
        QX_IX_FAIL(ix, n, QX_E_SHAPE, "batch_dims is %lld for data of rank %d and indices of rank %d", (long long)batch, x->rank, at->rank);
    if (depth < 0) return qx_ix_out_unranked(ix, n, 0, dtype);
    if (depth > x->rank - batch)
        QX_IX_FAIL(ix, n, QX_E_SHAPE, "indices have %lld entries for %lld axes", (long long)depth, (long long)(x->rank - batch));
    qx_dim *dims = qx_ix_dims(ix, at->rank + x->rank);
    if (!dims) return QX_IX_NOMEM(ix);
    for (int i = 0; i < at->rank - 1; i++) dims[rank++] = at->dims[i];
    for (int64_t i = batch + depth; i < x->rank; i++) dims[rank++] = x->dims[i];
    return qx_ix_out(ix, n, 0, dtype, rank, dims);
}

int qx_infer_scatter(qx_infer *ix, qx_node *n)
{
    const qx_type *x;
    int axis;
    if (qx_ix_shaped(ix, n, 0, &x)) QX_TRY(qx_ix_axis(ix, n, qx_ix_int(ix, n, "axis", 0), x->rank, &axis));
    return qx_ix_same(ix, n, 0, 0);
}

int qx_infer_scatter_nd(qx_infer *ix, qx_node *n)
{
    const qx_type *x, *at;
    if (qx_ix_shaped(ix, n, 0, &x) && qx_ix_shaped(ix, n, 1, &at) && at->rank && at->dims[at->rank - 1].n > x->rank)
        QX_IX_FAIL(ix, n, QX_E_SHAPE, "indices have %lld entries for data of rank %d", (long long)at->dims[at->rank - 1].n, x->rank);
    return qx_ix_same(ix, n, 0, 0);
}

int qx_infer_tensor_scatter(qx_infer *ix, qx_node *n)
{
    const qx_type *x, *update;
    int axis;
    if (qx_ix_shaped(ix, n, 0, &x)) QX_TRY(qx_ix_axis(ix, n, qx_ix_int(ix, n, "axis", -2), x->rank, &axis));
    if (qx_ix_shaped(ix, n, 0, &x) && qx_ix_shaped(ix, n, 1, &update) && x->rank != update->rank)
        QX_IX_FAIL(ix, n, QX_E_SHAPE, "the cache has rank %d and the update rank %d", x->rank, update->rank);
    return qx_ix_same(ix, n, 0, 0);
}

int qx_infer_compress(qx_infer *ix, qx_node *n)
{
    const qx_type *x;
    qx_dim *dims;
    int axis, dtype = qx_ix_dtype(ix, n, 0);
    if (!qx_ix_attr(ix, n, "axis")) return unknown_dims(ix, n, 0, dtype, 1);
    if (!qx_ix_shaped(ix, n, 0, &x)) return qx_ix_out_unranked(ix, n, 0, dtype);
    QX_TRY(qx_ix_axis(ix, n, qx_ix_int(ix, n, "axis", 0), x->rank, &axis));
    QX_TRY(copy_dims(ix, x, &dims));
    dims[axis] = qx_dim_unknown();
    return qx_ix_out(ix, n, 0, dtype, x->rank, dims);
}

int qx_infer_nonzero(qx_infer *ix, qx_node *n)
{
    const qx_type *x;
    qx_dim *dims = qx_ix_dims(ix, 2);
    const qx_content *c = qx_ix_content(ix, n, 0);
    if (!dims) return QX_IX_NOMEM(ix);
    dims[0] = dims[1] = qx_dim_unknown();
    if (qx_ix_shaped(ix, n, 0, &x)) dims[0] = qx_dim_of(x->rank ? x->rank : 1);
    int64_t count = 0;
    for (int64_t i = 0; c && i < c->n; i++) {
        double v;
        if (!qx_num_as_real(c->v[i], &v)) c = NULL;
        else count += v != 0;
        if (!c) break;
    }
    if (c) dims[1] = qx_dim_of(count);
    if (c && dims[0].n == 1) {
        qx_content *out = qx_ix_new_content(ix, count);
        int64_t k = 0;
        for (int64_t i = 0; out && i < c->n; i++) {
            double v;
            if (qx_num_as_real(c->v[i], &v) && v != 0) out->v[k++] = qx_num_of(i);
        }
        qx_ix_out_content(ix, n, 0, out);
    }
    return qx_ix_out(ix, n, 0, QX_DT_INT64, 2, dims);
}

int qx_infer_one_hot(qx_infer *ix, qx_node *n)
{
    const qx_type *at;
    const qx_content *depth = qx_ix_content(ix, n, 1);
    int dtype = qx_ix_dtype(ix, n, 2), axis;
    if (!qx_ix_shaped(ix, n, 0, &at)) return qx_ix_out_unranked(ix, n, 0, dtype);
    QX_TRY(qx_ix_axis(ix, n, qx_ix_int(ix, n, "axis", -1), at->rank + 1, &axis));
    qx_dim *dims = qx_ix_dims(ix, at->rank + 1);
    if (!dims) return QX_IX_NOMEM(ix);
    for (int i = 0, k = 0; i <= at->rank; i++)
        dims[i] = i == axis ? (depth && depth->n == 1 ? qx_dim_of_num(ix, depth->v[0]) : qx_dim_unknown()) : at->dims[k++];
    return qx_ix_out(ix, n, 0, dtype, at->rank + 1, dims);
}

/* ---- Concat, Split ---------------------------------------------------------------------------------------------------------- */

static void concat_content(qx_infer *ix, qx_node *n)
{
    int64_t total = 0, at = 0;
    for (uint32_t i = 0; i < n->n_in; i++) {
        const qx_type *t;
        if (!qx_ix_shaped(ix, n, i, &t) || t->dims[0].n < 0 || t->dims[0].n > QX_CONTENT_MAX || (total += t->dims[0].n) > QX_CONTENT_MAX)
            return;
    }
    qx_content *out = qx_ix_new_content(ix, total);
    for (uint32_t i = 0; out && i < n->n_in; i++) {
        const qx_content *c = qx_ix_content(ix, n, i);
        for (int64_t k = 0; c && k < c->n; k++) out->v[at + k] = c->v[k];
        at += qx_ix_in(ix, n, i)->dims[0].n;
    }
    qx_ix_out_content(ix, n, 0, out);
}

static qx_status concat_dtype(qx_infer *ix, const qx_node *n, int *out)
{
    *out = 0;
    for (uint32_t i = 0; i < n->n_in; i++) {
        int d = qx_ix_dtype(ix, n, i);
        if (d && *out && d != *out)
            QX_IX_FAIL(ix, n, QX_E_TYPE, "input %u is %s but others are %s", i, qx_dtype_get(d)->text, qx_dtype_get(*out)->text);
        if (d) *out = d;
    }
    return QX_OK;
}

static qx_status concat_dims(qx_infer *ix, const qx_node *n, const qx_type *first, int axis, qx_dim *dims)
{
    dims[axis] = qx_dim_of(0);
    for (uint32_t i = 0; i < n->n_in; i++) {
        const qx_type *t = qx_ix_in(ix, n, i);
        if (!t->has_shape) {
            dims[axis] = qx_dim_unknown();
            continue;
        }
        if (t->rank != first->rank) QX_IX_FAIL(ix, n, QX_E_SHAPE, "input %u has rank %d, others %d", i, t->rank, first->rank);
        for (int k = 0; k < t->rank; k++) {
            if (k != axis) QX_TRY(qx_ix_equal(ix, n, "dims of its inputs", &dims[k], t->dims[k]));
        }
        dims[axis] = qx_dim_add(ix, dims[axis], t->dims[axis]);
    }
    return QX_OK;
}

int qx_infer_concat(qx_infer *ix, qx_node *n)
{
    const qx_type *first = NULL;
    qx_dim *dims;
    int axis, dtype;
    QX_TRY(concat_dtype(ix, n, &dtype));
    for (uint32_t i = 0; i < n->n_in && !first; i++) {
        const qx_type *t;
        if (qx_ix_shaped(ix, n, i, &t)) first = t;
    }
    if (!first) return qx_ix_out_unranked(ix, n, 0, dtype);
    QX_TRY(qx_ix_axis(ix, n, qx_ix_int(ix, n, "axis", n->op->since < 4 ? 1 : 0), first->rank, &axis));
    QX_TRY(copy_dims(ix, first, &dims));
    QX_TRY(concat_dims(ix, n, first, axis, dims));
    if (first->rank == 1) concat_content(ix, n);
    return qx_ix_out(ix, n, 0, dtype, first->rank, dims);
}

/* Sizes of the pieces along an axis of size `whole` into sizes[n_out]. */
static qx_status split_sizes(qx_infer *ix, qx_node *n, qx_dim whole, qx_dim *sizes)
{
    enum { CAP = 1024 };
    int64_t buf[CAP], count = 0, sum = 0, pieces = n->n_out;
    const int64_t *given = qx_ix_ints(ix, n, "split", &count);
    bool dynamic = qx_ix_given(n, 1);
    if (dynamic) given = qx_ix_ints_of(ix, n, 1, buf, CAP, &count) ? buf : NULL;
    for (int64_t i = 0; i < pieces; i++) sizes[i] = qx_dim_unknown();
    if (dynamic && !given) { /* symbolic sizes */
        const qx_content *c = qx_ix_content(ix, n, 1);
        for (int64_t i = 0; c && c->n == pieces && i < pieces; i++) sizes[i] = qx_dim_of_num(ix, c->v[i]);
        return QX_OK;
    }
    if (given) {
        if (count != pieces) QX_IX_FAIL(ix, n, QX_E_SHAPE, "it has %lld sizes for %lld outputs", (long long)count, (long long)pieces);
        for (int64_t i = 0; i < count; i++) {
            if (given[i] < 0) QX_IX_FAIL(ix, n, QX_E_SHAPE, "size %lld of the split is %lld", (long long)i, (long long)given[i]);
            sizes[i] = qx_dim_of(given[i]);
            sum += given[i] < INT64_MAX / 2048 ? given[i] : INT64_MAX / 2048;
        }
        if (whole.n >= 0 && sum != whole.n)
            QX_IX_FAIL(ix, n, QX_E_SHAPE, "the sizes of the split add up to %lld, the axis has %lld elements", (long long)sum,
                       (long long)whole.n);
        return QX_OK;
    }
    pieces = qx_ix_int(ix, n, "num_outputs", pieces);
    if (pieces < 1 || pieces < (int64_t)n->n_out)
        QX_IX_FAIL(ix, n, QX_E_SHAPE, "num_outputs is %lld for %u outputs", (long long)pieces, n->n_out);
    if (n->op->since < 18 && whole.n >= 0 && whole.n % pieces != 0)
        QX_IX_FAIL(ix, n, QX_E_SHAPE, "an axis of %lld elements does not split into %lld equal parts", (long long)whole.n,
                   (long long)pieces);
    qx_num all = qx_num_of_dim(ix, whole), part = qx_num_floordiv(ix, qx_num_add(ix, all, qx_num_of(pieces - 1)), qx_num_of(pieces));
    if (whole.n < 0) part = qx_num_floordiv(ix, all, qx_num_of(pieces)); /* a named axis is taken to be divisible */
    for (uint32_t i = 0; i < n->n_out; i++) {
        sizes[i] = qx_dim_of_num(ix, part);
        if (whole.n < 0 || part.kind != QX_NUM_INT) continue;
        int64_t rest = whole.n - (int64_t)i * part.i;
        sizes[i] = qx_dim_of(rest < 0 ? 0 : rest < part.i ? rest : part.i);
    }
    return QX_OK;
}

int qx_infer_split(qx_infer *ix, qx_node *n)
{
    const qx_type *x;
    int axis;
    if (!qx_ix_shaped(ix, n, 0, &x)) {
        for (uint32_t i = 0; i < n->n_out; i++) QX_TRY(qx_ix_out_unranked(ix, n, i, qx_ix_dtype(ix, n, 0)));
        return QX_OK;
    }
    qx_dim *sizes = qx_ix_dims(ix, (int)n->n_out);
    if (!sizes) return QX_IX_NOMEM(ix);
    QX_TRY(qx_ix_axis(ix, n, qx_ix_int(ix, n, "axis", 0), x->rank, &axis));
    QX_TRY(split_sizes(ix, n, x->dims[axis], sizes));
    const qx_content *c = x->rank == 1 ? qx_ix_content(ix, n, 0) : NULL;
    int64_t at = 0;
    for (uint32_t i = 0; i < n->n_out; i++) {
        qx_dim *dims;
        QX_TRY(copy_dims(ix, x, &dims));
        dims[axis] = sizes[i];
        QX_TRY(qx_ix_out(ix, n, i, (int)x->dtype, x->rank, dims));
        qx_content *piece = c && at >= 0 && sizes[i].n >= 0 && at + sizes[i].n <= c->n ? qx_ix_new_content(ix, sizes[i].n) : NULL;
        for (int64_t k = 0; piece && k < piece->n; k++) piece->v[k] = c->v[at + k];
        qx_ix_out_content(ix, n, i, piece);
        at = piece ? at + piece->n : -1;
    }
    return QX_OK;
}

/* ---- Slice ------------------------------------------------------------------------------------------------------------------- */

/* One bound counted from the front and kept inside the axis. A named bound on an axis whose size is a number (a table of positions)
 * is taken to lie inside: a run where it does not would fail elsewhere. */
static qx_num slice_bound(qx_infer *ix, qx_num at, qx_num size, bool backwards, bool is_start)
{
    int64_t v, whole;
    qx_num zero = qx_num_of(0);
    if (at.kind == QX_NUM_UNKNOWN) return at;
    bool number = qx_num_as_int(at, &v), negative = number ? v < 0 : !qx_num_nonneg(at) && qx_num_nonneg(qx_num_sub(ix, zero, at));
    if (number && v >= 0 && v >= INT32_MAX && size.kind == QX_NUM_EXPR) return size; /* "to the end" */
    if (number && v < 0 && v <= -INT64_C(0x7fffffff)) return backwards ? qx_num_of(-1) : zero;
    if (number && v >= 0 && size.kind == QX_NUM_EXPR && (is_start || v <= 1)) return at; /* x[1:] of a named axis is not empty */
    if (negative) at = qx_num_add(ix, at, size);
    if (qx_num_as_int(at, &v) && qx_num_as_int(size, &whole)) {
        int64_t low = backwards ? -1 : 0, high = backwards ? whole - 1 : whole;
        return qx_num_of(v < low ? low : v > high ? high : v);
    }
    if (negative || size.kind == QX_NUM_UNKNOWN) return negative ? at : (qx_num){0};
    return at.kind == QX_NUM_EXPR && size.kind == QX_NUM_INT ? at : qx_num_min(ix, at, size);
}

static qx_num slice_count(qx_infer *ix, qx_num start, qx_num end, int64_t step)
{
    qx_num span = step > 0 ? qx_num_sub(ix, end, start) : qx_num_sub(ix, start, end);
    int64_t d = step > 0 ? step : -step;
    if (span.kind == QX_NUM_INT && span.i <= 0) return qx_num_of(0);
    return d == 1 ? span : qx_num_floordiv(ix, qx_num_add(ix, span, qx_num_of(d - 1)), qx_num_of(d));
}

typedef struct slice { const qx_content *starts, *ends, *axes, *steps; } slice;

static const qx_content *list_content(qx_infer *ix, qx_node *n, const char *attr, uint32_t input)
{
    int64_t count;
    const int64_t *v = qx_ix_ints(ix, n, attr, &count);
    if (n->op->since >= 10) return qx_ix_content(ix, n, input);
    qx_content *c = v ? qx_ix_new_content(ix, count) : NULL;
    for (int64_t i = 0; c && i < count; i++) c->v[i] = qx_num_of(v[i]);
    return c;
}

/* Where along each axis a slice picks, for following content. */
enum { PICK_RANK = 4 };
typedef struct picks { bool known, anywhere; int64_t start[PICK_RANK], step[PICK_RANK]; } picks;

static void slice_content(qx_infer *ix, qx_node *n, const qx_type *x, const picks *p, const qx_dim *dims)
{
    const qx_content *c = qx_ix_content(ix, n, 0);
    int64_t total = 1;
    if (!c || !p->known) return;
    for (int i = 0; i < x->rank; i++) {
        if (dims[i].n < 0 || dims[i].n > QX_CONTENT_MAX || x->dims[i].n < 0) return;
        total *= dims[i].n ? dims[i].n : 1;
        total = dims[i].n ? total : 0;
        if (total > QX_CONTENT_MAX) return;
    }
    qx_content *out = qx_ix_new_content(ix, total);
    for (int64_t k = 0; out && k < total; k++) {
        int64_t rest = k, from = 0, stride = 1;
        for (int i = x->rank - 1; i >= 0; i--) {
            from += (p->start[i] + rest % dims[i].n * p->step[i]) * stride;
            rest /= dims[i].n;
            stride *= x->dims[i].n;
        }
        if (from < 0 || from >= c->n) return;
        out->v[k] = c->v[from];
    }
    qx_ix_out_content(ix, n, 0, out);
}

static qx_status slice_axis(qx_infer *ix, qx_node *n, const qx_type *x, const slice *s, int64_t i, qx_dim *dims, picks *p)
{
    int64_t axis_in = i, step = 1;
    int axis;
    if (s->axes && !qx_num_as_int(s->axes->v[i], &axis_in)) { /* any axis may be meant */
        p->anywhere = true;
        p->known = false;
        return QX_OK;
    }
    QX_TRY(qx_ix_axis(ix, n, axis_in, x->rank, &axis));
    bool stepped = !s->steps || qx_num_as_int(s->steps->v[i], &step);
    if (stepped && step == 0) QX_IX_FAIL(ix, n, QX_E_SHAPE, "step %lld of the slice is 0", (long long)i);
    if (!stepped || step == INT64_MIN) {
        dims[axis] = qx_dim_unknown();
        p->known = false;
        return QX_OK;
    }
    qx_num size = qx_num_of_dim(ix, x->dims[axis]);
    qx_num start = slice_bound(ix, s->starts->v[i], size, step < 0, true), end = slice_bound(ix, s->ends->v[i], size, step < 0, false);
    if (step < 0 && start.kind == QX_NUM_EXPR && size.kind == QX_NUM_EXPR && start.e == size.e) start = qx_num_sub(ix, size, qx_num_of(1));
    dims[axis] = qx_dim_of_num(ix, slice_count(ix, start, end, step));
    if (start.kind != QX_NUM_INT) p->known = false;
    if (p->known) p->start[axis] = start.i, p->step[axis] = step;
    return QX_OK;
}

int qx_infer_slice(qx_infer *ix, qx_node *n)
{
    const qx_type *x, *t;
    qx_dim *dims;
    slice s = {.starts = list_content(ix, n, "starts", 1), .ends = list_content(ix, n, "ends", 2),
               .axes = list_content(ix, n, "axes", 3), .steps = n->op->since >= 10 ? qx_ix_content(ix, n, 4) : NULL};
    if (!qx_ix_shaped(ix, n, 0, &x)) return qx_ix_out_unranked(ix, n, 0, qx_ix_dtype(ix, n, 0));
    if (x->rank == 0) QX_IX_FAIL(ix, n, QX_E_SHAPE, "its data is a scalar");
    QX_TRY(copy_dims(ix, x, &dims));
    bool axes_known = n->op->since < 10 || !qx_ix_given(n, 3) || s.axes, steps_known = n->op->since < 10 || !qx_ix_given(n, 4) || s.steps;
    if (!s.starts || !s.ends || !axes_known || !steps_known) {
        bool counted = axes_known && s.axes, all = !counted && !(n->op->since >= 10 && !qx_ix_given(n, 3) && qx_ix_shaped(ix, n, 1, &t));
        int64_t touched = counted ? s.axes->n : all ? x->rank : t->rank == 1 && t->dims[0].n >= 0 ? t->dims[0].n : x->rank;
        for (int64_t i = 0; i < touched && i < (counted ? touched : x->rank); i++) {
            int64_t v = i;
            int axis;
            if (counted && !qx_num_as_int(s.axes->v[i], &v)) continue;
            QX_TRY(qx_ix_axis(ix, n, v, x->rank, &axis));
            dims[axis] = qx_dim_unknown();
        }
        return qx_ix_out(ix, n, 0, (int)x->dtype, x->rank, dims);
    }
    int64_t count = s.starts->n;
    if (s.ends->n != count || (s.axes && s.axes->n != count) || (s.steps && s.steps->n != count))
        QX_IX_FAIL(ix, n, QX_E_SHAPE, "it has %lld starts, %lld ends, %lld axes and %lld steps", (long long)count, (long long)s.ends->n,
                   (long long)(s.axes ? s.axes->n : count), (long long)(s.steps ? s.steps->n : count));
    if (count > x->rank) QX_IX_FAIL(ix, n, QX_E_SHAPE, "it slices %lld axes of data of rank %d", (long long)count, x->rank);
    picks p = {.known = x->rank <= PICK_RANK, .step = {1, 1, 1, 1}};
    for (int64_t i = 0; i < count; i++) QX_TRY(slice_axis(ix, n, x, &s, i, dims, &p));
    for (int i = 0; p.anywhere && i < x->rank; i++) dims[i] = qx_dim_unknown();
    slice_content(ix, n, x, &p, dims);
    return qx_ix_out(ix, n, 0, (int)x->dtype, x->rank, dims);
}

/* ---- Pad and the rest ----------------------------------------------------------------------------------------------------------- */

static qx_status pad_dims(qx_infer *ix, qx_node *n, const qx_type *x, const qx_content *pads, const qx_content *axes, qx_dim *dims)
{
    int64_t count = axes ? axes->n : x->rank;
    if (pads->n != 2 * count) QX_IX_FAIL(ix, n, QX_E_SHAPE, "it has %lld pads for %lld axes", (long long)pads->n, (long long)count);
    for (int64_t i = 0; i < count; i++) {
        int64_t where = i;
        int axis;
        if (axes && !qx_num_as_int(axes->v[i], &where)) return QX_OK;
        QX_TRY(qx_ix_axis(ix, n, where, x->rank, &axis));
        qx_num both = qx_num_add(ix, pads->v[i], pads->v[i + count]), size = qx_num_add(ix, qx_num_of_dim(ix, x->dims[axis]), both);
        if (size.kind == QX_NUM_INT && size.i < 0)
            QX_IX_FAIL(ix, n, QX_E_SHAPE, "axis %d of %lld elements cannot be padded by %lld", axis, (long long)x->dims[axis].n,
                       (long long)both.i);
        dims[axis] = qx_dim_of_num(ix, size);
    }
    return QX_OK;
}

int qx_infer_pad(qx_infer *ix, qx_node *n)
{
    const qx_type *x;
    qx_dim *dims;
    if (!qx_ix_shaped(ix, n, 0, &x)) return qx_ix_out_unranked(ix, n, 0, qx_ix_dtype(ix, n, 0));
    QX_TRY(copy_dims(ix, x, &dims));
    const qx_content *pads = n->op->since >= 11 ? qx_ix_content(ix, n, 1) : NULL,
        *axes = n->op->since >= 18 ? qx_ix_content(ix, n, 3) : NULL;
    if (n->op->since < 11) {
        int64_t count;
        const int64_t *v = qx_ix_ints(ix, n, n->op->since < 2 ? "paddings" : "pads", &count);
        qx_content *c = v ? qx_ix_new_content(ix, count) : NULL;
        for (int64_t i = 0; c && i < count; i++) c->v[i] = qx_num_of(v[i]);
        pads = c;
    }
    if (!pads || (n->op->since >= 18 && qx_ix_given(n, 3) && !axes)) return unknown_dims(ix, n, 0, (int)x->dtype, x->rank);
    QX_TRY(pad_dims(ix, n, x, pads, axes, dims));
    return qx_ix_out(ix, n, 0, (int)x->dtype, x->rank, dims);
}

static qx_status block_size(qx_infer *ix, qx_node *n, const qx_type *x, int64_t *out)
{
    *out = qx_ix_int(ix, n, "blocksize", 0);
    if (x->rank != 4) QX_IX_FAIL(ix, n, QX_E_SHAPE, "its input has rank %d instead of 4", x->rank);
    if (*out < 1 || *out > INT32_MAX) QX_IX_FAIL(ix, n, QX_E_SHAPE, "blocksize is %lld", (long long)*out);
    return QX_OK;
}

int qx_infer_depth_to_space(qx_infer *ix, qx_node *n)
{
    const qx_type *x;
    int64_t b;
    qx_dim *dims;
    if (!qx_ix_shaped(ix, n, 0, &x)) return qx_ix_out_unranked(ix, n, 0, qx_ix_dtype(ix, n, 0));
    QX_TRY(block_size(ix, n, x, &b));
    if (x->dims[1].n >= 0 && x->dims[1].n % (b * b) != 0)
        QX_IX_FAIL(ix, n, QX_E_SHAPE, "%lld channels do not divide by blocksize %lld squared", (long long)x->dims[1].n, (long long)b);
    QX_TRY(copy_dims(ix, x, &dims));
    dims[1] = qx_dim_of_num(ix, qx_num_floordiv(ix, qx_num_of_dim(ix, x->dims[1]), qx_num_of(b * b)));
    for (int i = 2; i < 4; i++) dims[i] = qx_dim_mul(ix, x->dims[i], qx_dim_of(b));
    return qx_ix_out(ix, n, 0, (int)x->dtype, 4, dims);
}

int qx_infer_space_to_depth(qx_infer *ix, qx_node *n)
{
    const qx_type *x;
    int64_t b;
    qx_dim *dims;
    if (!qx_ix_shaped(ix, n, 0, &x)) return qx_ix_out_unranked(ix, n, 0, qx_ix_dtype(ix, n, 0));
    QX_TRY(block_size(ix, n, x, &b));
    QX_TRY(copy_dims(ix, x, &dims));
    dims[1] = qx_dim_mul(ix, x->dims[1], qx_dim_of(b * b));
    for (int i = 2; i < 4; i++) {
        if (x->dims[i].n >= 0 && x->dims[i].n % b != 0)
            QX_IX_FAIL(ix, n, QX_E_SHAPE, "axis %d of %lld elements does not divide by blocksize %lld", i, (long long)x->dims[i].n,
                       (long long)b);
        dims[i] = qx_dim_of_num(ix, qx_num_floordiv(ix, qx_num_of_dim(ix, x->dims[i]), qx_num_of(b)));
    }
    return qx_ix_out(ix, n, 0, (int)x->dtype, 4, dims);
}

int qx_infer_center_crop_pad(qx_infer *ix, qx_node *n)
{
    const qx_type *x;
    const qx_content *shape = qx_ix_content(ix, n, 1);
    int64_t count;
    qx_dim *dims;
    if (!qx_ix_shaped(ix, n, 0, &x)) return qx_ix_out_unranked(ix, n, 0, qx_ix_dtype(ix, n, 0));
    const int64_t *axes = qx_ix_ints(ix, n, "axes", &count);
    if (!axes) count = x->rank;
    QX_TRY(copy_dims(ix, x, &dims));
    if (shape && shape->n != count)
        QX_IX_FAIL(ix, n, QX_E_SHAPE, "the wanted shape has %lld dims for %lld axes", (long long)shape->n, (long long)count);
    for (int64_t i = 0; i < count; i++) {
        int axis;
        QX_TRY(qx_ix_axis(ix, n, axes ? axes[i] : i, x->rank, &axis));
        dims[axis] = shape ? qx_dim_of_num(ix, shape->v[i]) : qx_dim_unknown();
    }
    return qx_ix_out(ix, n, 0, (int)x->dtype, x->rank, dims);
}

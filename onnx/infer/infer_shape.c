/* infer_shape.c - inference of operators that give a tensor another shape without moving its elements, and of those that make
 * tensors from shapes (Shape, Size, ConstantOfShape, Range, Constant). */
#include <math.h>
#include <string.h>

#include "base/checked.h"
#include "onnx/infer/infer_op.h"
#include "onnx/weight/weight.h"

enum { MAX_AXES = 64 };
#define MAX_ELEMENTS (INT64_C(1) << 40) /* more is refused: no machine that runs this has the memory */

static void keep_content(qx_infer *ix, const qx_node *n)
{
    qx_ix_out_content(ix, n, 0, (qx_content *)qx_ix_content(ix, n, 0));
}

static qx_status limit_elements(qx_infer *ix, const qx_node *n, const qx_dim *dims, int rank)
{
    int64_t total = 1;
    for (int i = 0; i < rank; i++) {
        if (dims[i].n < 0) return QX_OK;
        if (dims[i].n == 0) return QX_OK;
        if (!qx_mul_i64(total, dims[i].n, &total) || total >= MAX_ELEMENTS)
            QX_IX_FAIL(ix, n, QX_E_BUDGET, "it makes a tensor of 2^40 elements or more");
    }
    return QX_OK;
}

static qx_status unknown_dims(qx_infer *ix, const qx_node *n, int dtype, int rank)
{
    qx_dim *dims = qx_ix_dims(ix, rank);
    if (!dims) return QX_IX_NOMEM(ix);
    for (int i = 0; i < rank; i++) dims[i] = qx_dim_unknown();
    return qx_ix_out(ix, n, 0, dtype, rank, dims);
}

/* ---- Reshape ----------------------------------------------------------------------------------------------------------- */

typedef struct reshape {
    qx_infer *ix;
    const qx_node *n;
    const qx_type *x;   /* NULL: shape of the data unknown */
    qx_dim *dims;
    int rank;
    int open;           /* place of the -1 (or of the only dim nobody knows); -1: none */
    bool asked;         /* open stands for a -1 */
    bool *copied;       /* dims taken over with 0 */
} reshape;

static qx_status reshape_entry(reshape *r, int i, qx_num v, bool allow_zero)
{
    int64_t k;
    bool number = qx_num_as_int(v, &k);
    if (number && k < -1) QX_IX_FAIL(r->ix, r->n, QX_E_SHAPE, "dim %d of the wanted shape is %lld", i, (long long)k);
    if (number && k == -1) {
        if (r->asked) QX_IX_FAIL(r->ix, r->n, QX_E_SHAPE, "the wanted shape has two -1, at %d and %d", r->open, i);
        r->open = i;
        r->asked = true;
        r->dims[i] = qx_dim_unknown();
        return QX_OK;
    }
    if (!number || k != 0 || allow_zero) {
        r->dims[i] = qx_dim_of_num(r->ix, v);
        return QX_OK;
    }
    if (r->x && i >= r->x->rank)
        QX_IX_FAIL(r->ix, r->n, QX_E_SHAPE, "dim %d of the wanted shape copies a dim of data that has rank %d", i, r->x->rank);
    r->dims[i] = r->x ? r->x->dims[i] : qx_dim_unknown();
    r->copied[i] = r->x != NULL;
    return QX_OK;
}

/* Product of the dims that are not copied; equal dims on both sides cancel, so that unknown ones do less harm. */
static qx_status reshape_totals(reshape *r, qx_num *in, qx_num *out)
{
    bool *gone = qx_arena_array(qx_ix_arena(r->ix), (size_t)(r->rank + r->x->rank) + 1, sizeof *gone), *left = gone ? gone + r->rank : NULL;
    if (!gone) return QX_IX_NOMEM(r->ix);
    for (int i = 0; i < r->rank; i++) {
        if (!r->copied[i]) continue;
        gone[i] = left[i] = true;
    }
    for (int i = 0; i < r->rank; i++) {
        for (int k = 0; !gone[i] && i != r->open && k < r->x->rank; k++) {
            if (left[k] || !qx_dim_same(r->dims[i], r->x->dims[k]) || r->dims[i].n == 0) continue;
            gone[i] = left[k] = true;
        }
    }
    *in = *out = qx_num_of(1);
    for (int k = 0; k < r->x->rank; k++) {
        if (!left[k]) *in = qx_num_mul(r->ix, *in, qx_num_of_dim(r->ix, r->x->dims[k]));
    }
    for (int i = 0; i < r->rank; i++) {
        if (!gone[i] && i != r->open) *out = qx_num_mul(r->ix, *out, qx_num_of_dim(r->ix, r->dims[i]));
    }
    return QX_OK;
}

static int64_t total_of(const qx_dim *dims, int rank, int except)
{
    int64_t n = 1;
    for (int i = 0; i < rank; i++) {
        if (i != except && (dims[i].n < 0 || !qx_mul_i64(n, dims[i].n, &n))) return -1;
    }
    return n;
}

static qx_status wrong_total(const reshape *r, qx_num in, qx_num out)
{
    int64_t have = total_of(r->x->dims, r->x->rank, -1), want = total_of(r->dims, r->rank, r->open);
    if (have < 0 || want < 0) have = in.i, want = out.i; /* beside the dims that are the same */
    QX_IX_FAIL(r->ix, r->n, QX_E_SHAPE, "the data has %lld elements, the wanted shape %lld%s", (long long)have, (long long)want,
               r->open < 0 ? "" : " beside the -1");
}

static qx_status reshape_solve(reshape *r)
{
    qx_num in, out;
    int64_t total;
    int unknown = 0, last = -1;
    if (!r->x) return QX_OK;
    for (int i = 0; i < r->rank; i++) {
        if (r->dims[i].n < 0 && !r->dims[i].sym && !r->copied[i]) unknown++, last = i;
    }
    if (unknown == 1) r->open = last; /* the product tells it, asked for or not */
    QX_TRY(reshape_totals(r, &in, &out));
    bool numbers = in.kind == QX_NUM_INT && out.kind == QX_NUM_INT;
    if (r->open < 0) {
        if (numbers && in.i != out.i) return wrong_total(r, in, out);
        return QX_OK;
    }
    if (qx_num_as_int(out, &total) && total == 0) {
        r->dims[r->open] = numbers && in.i == 0 && r->asked ? qx_dim_of(0) : qx_dim_unknown();
        return QX_OK;
    }
    if (numbers && in.i % out.i != 0) return wrong_total(r, in, out);
    r->dims[r->open] = qx_dim_of_num(r->ix, qx_num_floordiv(r->ix, in, out));
    return QX_OK;
}

/* Before opset 5 the shape was an attribute. */
static const qx_content *wanted_shape(qx_infer *ix, qx_node *n)
{
    int64_t count;
    const int64_t *attr = qx_ix_ints(ix, n, "shape", &count);
    if (n->op->since >= 5 || !attr) return qx_ix_content(ix, n, 1);
    qx_content *c = qx_ix_new_content(ix, count);
    for (int64_t i = 0; c && i < count; i++) c->v[i] = qx_num_of(attr[i]);
    return c;
}

int qx_infer_reshape(qx_infer *ix, qx_node *n)
{
    const qx_type *x, *shape;
    int dtype = (int)qx_ix_in(ix, n, 0)->dtype;
    const qx_content *c = wanted_shape(ix, n);
    bool shaped = qx_ix_shaped(ix, n, 0, &x);
    if (!c) {
        bool counted = qx_ix_shaped(ix, n, 1, &shape) && shape->rank == 1 && shape->dims[0].n >= 0 && shape->dims[0].n <= 64;
        return counted ? unknown_dims(ix, n, dtype, (int)shape->dims[0].n) : qx_ix_out_unranked(ix, n, 0, dtype);
    }
    reshape r = {.ix = ix, .n = n, .x = shaped ? x : NULL, .rank = (int)c->n, .open = -1};
    r.dims = qx_ix_dims(ix, r.rank);
    r.copied = qx_arena_array(qx_ix_arena(ix), (size_t)r.rank + 1, sizeof *r.copied);
    if (!r.dims || !r.copied) return QX_IX_NOMEM(ix);
    bool allow_zero = qx_ix_int(ix, n, "allowzero", 0) != 0;
    for (int i = 0; i < r.rank; i++) QX_TRY(reshape_entry(&r, i, c->v[i], allow_zero));
    QX_TRY(reshape_solve(&r));
    keep_content(ix, n);
    return qx_ix_out(ix, n, 0, dtype, r.rank, r.dims);
}

int qx_infer_flatten(qx_infer *ix, qx_node *n)
{
    const qx_type *x;
    int dtype = (int)qx_ix_in(ix, n, 0)->dtype;
    int64_t axis = qx_ix_int(ix, n, "axis", 1);
    if (!qx_ix_shaped(ix, n, 0, &x)) return unknown_dims(ix, n, dtype, 2);
    if (axis < -(int64_t)x->rank || axis > x->rank)
        QX_IX_FAIL(ix, n, QX_E_SHAPE, "axis %lld is outside [%d, %d]", (long long)axis, -x->rank, x->rank);
    if (axis < 0) axis += x->rank;
    qx_dim *dims = qx_ix_dims(ix, 2);
    if (!dims) return QX_IX_NOMEM(ix);
    dims[0] = qx_dim_product(ix, x->dims, (int)axis);
    dims[1] = qx_dim_product(ix, x->dims + axis, x->rank - (int)axis);
    keep_content(ix, n);
    return qx_ix_out(ix, n, 0, dtype, 2, dims);
}

/* ---- Squeeze, Unsqueeze, Transpose --------------------------------------------------------------------------------------- */

/* Axes from the attribute (before opset 13) or input 1. NULL with *given true: an input that is not constant. */
static const int64_t *axes_of(qx_infer *ix, qx_node *n, int64_t *buf, int64_t *count, bool *given)
{
    const int64_t *attr = qx_ix_ints(ix, n, "axes", count);
    *given = attr != NULL || qx_ix_given(n, 1);
    if (!qx_ix_given(n, 1)) return attr;
    return qx_ix_ints_of(ix, n, 1, buf, MAX_AXES, count) ? buf : NULL;
}

static qx_status squeeze_rank(qx_infer *ix, qx_node *n, const qx_type *x, int sign)
{
    const qx_type *axes;
    if (!qx_ix_shaped(ix, n, 1, &axes) || axes->rank != 1 || axes->dims[0].n < 0 || axes->dims[0].n > 64)
        return qx_ix_out_unranked(ix, n, 0, (int)x->dtype);
    int rank = x->rank + sign * (int)axes->dims[0].n;
    return rank >= 0 ? unknown_dims(ix, n, (int)x->dtype, rank) : qx_ix_out_unranked(ix, n, 0, (int)x->dtype);
}

int qx_infer_squeeze(qx_infer *ix, qx_node *n)
{
    const qx_type *x;
    int64_t buf[MAX_AXES], count;
    bool given;
    if (!qx_ix_shaped(ix, n, 0, &x)) return qx_ix_out_unranked(ix, n, 0, (int)qx_ix_in(ix, n, 0)->dtype);
    const int64_t *axes = axes_of(ix, n, buf, &count, &given);
    if (given && !axes) return squeeze_rank(ix, n, x, -1);
    bool *drop = qx_arena_array(qx_ix_arena(ix), (size_t)x->rank + 1, sizeof *drop);
    qx_dim *dims = qx_ix_dims(ix, x->rank);
    if (!drop || !dims) return QX_IX_NOMEM(ix);
    for (int64_t i = 0; given && i < count; i++) {
        int axis;
        QX_TRY(qx_ix_axis(ix, n, axes[i], x->rank, &axis));
        if (x->dims[axis].n >= 0 && x->dims[axis].n != 1)
            QX_IX_FAIL(ix, n, QX_E_SHAPE, "it squeezes axis %d, which has %lld elements", axis, (long long)x->dims[axis].n);
        drop[axis] = true;
    }
    for (int i = 0; !given && i < x->rank; i++) {
        if (x->dims[i].n < 0) return qx_ix_out_unranked(ix, n, 0, (int)x->dtype); /* it might be 1 */
        drop[i] = x->dims[i].n == 1;
    }
    int rank = 0;
    for (int i = 0; i < x->rank; i++) {
        if (!drop[i]) dims[rank++] = x->dims[i];
    }
    keep_content(ix, n);
    return qx_ix_out(ix, n, 0, (int)x->dtype, rank, dims);
}

int qx_infer_unsqueeze(qx_infer *ix, qx_node *n)
{
    const qx_type *x;
    int64_t buf[MAX_AXES], count;
    bool given;
    if (!qx_ix_shaped(ix, n, 0, &x)) return qx_ix_out_unranked(ix, n, 0, (int)qx_ix_in(ix, n, 0)->dtype);
    const int64_t *axes = axes_of(ix, n, buf, &count, &given);
    if (!axes) return given ? squeeze_rank(ix, n, x, 1) : qx_ix_same(ix, n, 0, 0);
    if (count > MAX_AXES) QX_IX_FAIL(ix, n, QX_E_SHAPE, "it inserts %lld axes", (long long)count);
    int rank = x->rank + (int)count;
    bool *added = qx_arena_array(qx_ix_arena(ix), (size_t)rank + 1, sizeof *added);
    qx_dim *dims = qx_ix_dims(ix, rank);
    if (!added || !dims) return QX_IX_NOMEM(ix);
    for (int64_t i = 0; i < count; i++) {
        int axis;
        QX_TRY(qx_ix_axis(ix, n, axes[i], rank, &axis));
        if (added[axis]) QX_IX_FAIL(ix, n, QX_E_SHAPE, "it inserts axis %d twice", axis);
        added[axis] = true;
    }
    for (int i = 0, k = 0; i < rank; i++) dims[i] = added[i] ? qx_dim_of(1) : x->dims[k++];
    keep_content(ix, n);
    return qx_ix_out(ix, n, 0, (int)x->dtype, rank, dims);
}

/* Of a matrix with its axes swapped (pads are computed that way); for a square one that stays, swapping would be wrong. */
static void transpose_content(qx_infer *ix, qx_node *n, const qx_type *x)
{
    int64_t count, rows = x->dims[0].n, cols = x->dims[1].n;
    const int64_t *perm = qx_ix_ints(ix, n, "perm", &count);
    const qx_content *c = qx_ix_content(ix, n, 0);
    qx_content *out = c && rows >= 0 && cols >= 0 && !(perm && perm[0] == 0) ? qx_ix_new_content(ix, c->n) : NULL;
    for (int64_t i = 0; out && i < c->n; i++) out->v[i] = c->v[i % rows * cols + i / rows];
    qx_ix_out_content(ix, n, 0, out);
}

int qx_infer_transpose(qx_infer *ix, qx_node *n)
{
    const qx_type *x;
    int64_t count;
    const int64_t *perm = qx_ix_ints(ix, n, "perm", &count);
    if (!qx_ix_shaped(ix, n, 0, &x)) {
        int dtype = (int)qx_ix_in(ix, n, 0)->dtype;
        return perm && count <= 64 ? unknown_dims(ix, n, dtype, (int)count) : qx_ix_out_unranked(ix, n, 0, dtype);
    }
    if (perm && count != x->rank) QX_IX_FAIL(ix, n, QX_E_SHAPE, "perm has %lld entries for data of rank %d", (long long)count, x->rank);
    qx_dim *dims = qx_ix_dims(ix, x->rank);
    bool *seen = qx_arena_array(qx_ix_arena(ix), (size_t)x->rank + 1, sizeof *seen);
    if (!dims || !seen) return QX_IX_NOMEM(ix);
    for (int i = 0; i < x->rank; i++) {
        int64_t from = perm ? perm[i] : x->rank - 1 - i;
        if (from < 0 || from >= x->rank || seen[from])
            QX_IX_FAIL(ix, n, QX_E_SHAPE, "perm is no permutation: entry %d is %lld", i, (long long)from);
        seen[from] = true;
        dims[i] = x->dims[from];
    }
    if (x->rank < 2) keep_content(ix, n);
    else if (x->rank == 2 && dims[0].n == x->dims[1].n) transpose_content(ix, n, x);
    return qx_ix_out(ix, n, 0, (int)x->dtype, x->rank, dims);
}

/* ---- from shapes ----------------------------------------------------------------------------------------------------------- */

int qx_infer_shape(qx_infer *ix, qx_node *n)
{
    const qx_type *x;
    qx_dim *one = qx_ix_dims(ix, 1);
    if (!one) return QX_IX_NOMEM(ix);
    one[0] = qx_dim_unknown();
    if (!qx_ix_shaped(ix, n, 0, &x)) return qx_ix_out(ix, n, 0, QX_DT_INT64, 1, one);
    int64_t start = qx_ix_int(ix, n, "start", 0), end = qx_ix_int(ix, n, "end", x->rank);
    if (start < 0) start += x->rank;
    if (end < 0) end += x->rank;
    start = start < 0 ? 0 : start > x->rank ? x->rank : start;
    end = end > x->rank ? x->rank : end < start ? start : end;
    qx_content *c = qx_ix_new_content(ix, end - start);
    for (int64_t i = start; c && i < end; i++) c->v[i - start] = qx_num_of_dim(ix, x->dims[i]);
    qx_ix_out_content(ix, n, 0, c);
    one[0] = qx_dim_of(end - start);
    return qx_ix_out(ix, n, 0, QX_DT_INT64, 1, one);
}

int qx_infer_size(qx_infer *ix, qx_node *n)
{
    const qx_type *x;
    if (qx_ix_shaped(ix, n, 0, &x)) {
        qx_content *c = qx_ix_new_content(ix, 1);
        if (c) c->v[0] = qx_num_of_dim(ix, qx_dim_product(ix, x->dims, x->rank));
        qx_ix_out_content(ix, n, 0, c);
    }
    return qx_ix_out(ix, n, 0, QX_DT_INT64, 0, qx_ix_dims(ix, 0));
}

/* A tensor from an attribute: its type, and its content when it is small. */
static qx_status from_weight(qx_infer *ix, const qx_node *n, const qx_weight *w)
{
    qx_dim *dims = qx_ix_dims(ix, w->rank);
    if (!dims) return QX_IX_NOMEM(ix);
    for (int i = 0; i < w->rank; i++) dims[i].n = w->dims[i];
    qx_ix_out_content(ix, n, 0, qx_ix_weight_content(ix, w));
    return qx_ix_out(ix, n, 0, (int)w->dtype, w->rank, dims);
}

static qx_status from_list(qx_infer *ix, const qx_node *n, const qx_attr *a)
{
    bool list = a->type == QX_ATTR_INTS || a->type == QX_ATTR_FLOATS || a->type == QX_ATTR_STRINGS;
    bool ints = a->type == QX_ATTR_INT || a->type == QX_ATTR_INTS, strings = a->type == QX_ATTR_STRING || a->type == QX_ATTR_STRINGS;
    int64_t count = list ? a->n : 1;
    qx_content *c = strings ? NULL : qx_ix_new_content(ix, count);
    for (int64_t i = 0; c && i < count; i++) {
        if (ints) c->v[i] = qx_num_of(list ? a->ints[i] : a->i);
        else c->v[i] = qx_num_real(list ? a->floats[i] : a->f);
    }
    qx_dim *dims = qx_ix_dims(ix, 1);
    if (!dims) return QX_IX_NOMEM(ix);
    dims[0] = qx_dim_of(count);
    qx_ix_out_content(ix, n, 0, c);
    return qx_ix_out(ix, n, 0, ints ? QX_DT_INT64 : strings ? QX_DT_STRING : QX_DT_FLOAT, list ? 1 : 0, dims);
}

int qx_infer_constant(qx_infer *ix, qx_node *n)
{
    static const char *const names[] = {"value", "value_float", "value_floats", "value_int", "value_ints", "value_string", "value_strings"};
    const qx_attr *sparse = qx_ix_attr(ix, n, "sparse_value");
    if (sparse && sparse->sparse) {
        const qx_sparse *s = sparse->sparse;
        qx_dim *dims = qx_ix_dims(ix, s->rank);
        for (int i = 0; dims && i < s->rank; i++) dims[i] = qx_dim_of(s->dims[i]);
        return qx_ix_out(ix, n, 0, (int)s->values->dtype, s->rank, dims);
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const qx_attr *a = qx_ix_attr(ix, n, names[i]);
        if (a && a->type == QX_ATTR_TENSOR && a->tensor) return from_weight(ix, n, a->tensor);
        if (a && a->type != QX_ATTR_TENSOR) return from_list(ix, n, a);
    }
    return QX_OK;
}

int qx_infer_constant_of_shape(qx_infer *ix, qx_node *n)
{
    const qx_attr *value = qx_ix_attr(ix, n, "value");
    const qx_weight *w = value ? value->tensor : NULL;
    int dtype = w ? (int)w->dtype : QX_DT_FLOAT, rank;
    int64_t total = 1;
    qx_dim *dims;
    QX_TRY(qx_ix_dims_from_content(ix, n, 0, &dims, &rank));
    if (rank < 0) return qx_ix_out_unranked(ix, n, 0, dtype);
    QX_TRY(limit_elements(ix, n, dims, rank));
    for (int i = 0; i < rank; i++) total = dims[i].n < 0 || total < 0 || !qx_mul_i64(total, dims[i].n, &total) ? -1 : total;
    qx_content *c = qx_ix_new_content(ix, total);
    const qx_content *fill = w ? qx_ix_weight_content(ix, w) : NULL;
    for (int64_t i = 0; c && i < total; i++) c->v[i] = fill && fill->n == 1 ? fill->v[0] : w ? (qx_num){0} : qx_num_real(0);
    qx_ix_out_content(ix, n, 0, c);
    return qx_ix_out(ix, n, 0, dtype, rank, dims);
}

static qx_num range_count(qx_infer *ix, const qx_num *v)
{
    double start, limit, delta;
    bool ints = v[0].kind != QX_NUM_REAL && v[1].kind != QX_NUM_REAL && v[2].kind != QX_NUM_REAL;
    if (!ints && qx_num_as_real(v[0], &start) && qx_num_as_real(v[1], &limit) && qx_num_as_real(v[2], &delta)) {
        double count = delta != 0 ? ceil((limit - start) / delta) : 0;
        return count < 9e15 ? qx_num_of(count > 0 ? (int64_t)count : 0) : (qx_num){0};
    }
    qx_num span = qx_num_sub(ix, v[1], v[0]);
    int64_t d;
    if (!qx_num_as_int(v[2], &d) || d == 0 || d == INT64_MIN) return (qx_num){0};
    if (d < 0) span = qx_num_sub(ix, qx_num_of(0), span), d = -d;
    qx_num count = qx_num_floordiv(ix, qx_num_add(ix, span, qx_num_of(d - 1)), qx_num_of(d));
    return count.kind == QX_NUM_INT && count.i < 0 ? qx_num_of(0) : count;
}

int qx_infer_range(qx_infer *ix, qx_node *n)
{
    int dtype = (int)qx_ix_in(ix, n, 0)->dtype;
    qx_num v[3];
    bool known = true;
    qx_dim *one = qx_ix_dims(ix, 1);
    if (!one) return QX_IX_NOMEM(ix);
    for (uint32_t i = 0; i < 3; i++) {
        const qx_content *c = qx_ix_content(ix, n, i);
        known = known && c && c->n == 1;
        if (known) v[i] = c->v[0];
    }
    if (known && (v[2].kind == QX_NUM_INT ? v[2].i == 0 : v[2].kind == QX_NUM_REAL && v[2].f == 0))
        QX_IX_FAIL(ix, n, QX_E_SHAPE, "its step is 0");
    one[0] = known ? qx_dim_of_num(ix, range_count(ix, v)) : qx_dim_unknown();
    qx_content *c = known ? qx_ix_new_content(ix, one[0].n) : NULL;
    for (int64_t i = 0; c && i < c->n; i++) c->v[i] = i ? qx_num_add(ix, c->v[i - 1], v[2]) : v[0];
    qx_ix_out_content(ix, n, 0, c);
    return qx_ix_out(ix, n, 0, dtype, 1, one);
}

/* ---- Expand, Tile ------------------------------------------------------------------------------------------------------------ */

int qx_infer_expand(qx_infer *ix, qx_node *n)
{
    const qx_type *x;
    int dtype = (int)qx_ix_in(ix, n, 0)->dtype, rank, wanted_rank;
    qx_dim *dims, *wanted;
    QX_TRY(qx_ix_dims_from_content(ix, n, 1, &wanted, &wanted_rank));
    if (wanted_rank < 0 || !qx_ix_shaped(ix, n, 0, &x)) return qx_ix_out_unranked(ix, n, 0, dtype);
    QX_TRY(qx_ix_broadcast(ix, n, x->dims, x->rank, wanted, wanted_rank, &dims, &rank));
    QX_TRY(limit_elements(ix, n, dims, rank));
    const qx_content *c = qx_ix_content(ix, n, 0);
    int64_t total = 1;
    for (int i = 0; i < rank; i++) total = dims[i].n < 0 || total < 0 || !qx_mul_i64(total, dims[i].n, &total) ? -1 : total;
    qx_content *out = c && (c->n == 1 || c->n == total) ? qx_ix_new_content(ix, total) : NULL;
    for (int64_t i = 0; out && i < total; i++) out->v[i] = c->v[c->n == 1 ? 0 : i];
    qx_ix_out_content(ix, n, 0, out);
    return qx_ix_out(ix, n, 0, dtype, rank, dims);
}

int qx_infer_tile(qx_infer *ix, qx_node *n)
{
    const qx_type *x;
    int dtype = (int)qx_ix_in(ix, n, 0)->dtype;
    const qx_content *c = qx_ix_content(ix, n, 1);
    if (!qx_ix_shaped(ix, n, 0, &x)) return qx_ix_out_unranked(ix, n, 0, dtype);
    if (n->op->since < 6 || !c) return unknown_dims(ix, n, dtype, x->rank);
    if (c->n != x->rank) QX_IX_FAIL(ix, n, QX_E_SHAPE, "it has %lld repeats for data of rank %d", (long long)c->n, x->rank);
    qx_dim *dims = qx_ix_dims(ix, x->rank);
    if (!dims) return QX_IX_NOMEM(ix);
    for (int i = 0; i < x->rank; i++) {
        int64_t v;
        if (qx_num_as_int(c->v[i], &v) && v < 0) QX_IX_FAIL(ix, n, QX_E_SHAPE, "repeat %d is %lld", i, (long long)v);
        dims[i] = qx_dim_of_num(ix, qx_num_mul(ix, qx_num_of_dim(ix, x->dims[i]), c->v[i]));
    }
    QX_TRY(limit_elements(ix, n, dims, x->rank));
    return qx_ix_out(ix, n, 0, dtype, x->rank, dims);
}

int qx_infer_eye_like(qx_infer *ix, qx_node *n)
{
    const qx_type *x;
    int dtype = (int)qx_ix_int(ix, n, "dtype", (int64_t)qx_ix_in(ix, n, 0)->dtype);
    if (!qx_ix_shaped(ix, n, 0, &x)) return unknown_dims(ix, n, dtype, 2);
    if (x->rank != 2) QX_IX_FAIL(ix, n, QX_E_SHAPE, "its input has rank %d instead of 2", x->rank);
    return qx_ix_out(ix, n, 0, dtype, 2, x->dims);
}

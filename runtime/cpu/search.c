/* search.c - operators whose output depends on what they find: NonZero, Compress, Unique, OneHot, Hardmax, EyeLike,
 * ReverseSequence, Det, CumProd. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "runtime/cpu/op.h"

qx_status qx_cpu_nonzero(qx_call *c)
{
    const qx_tensor *x;
    const float *f = NULL;
    const int64_t *v = NULL;
    int64_t n, count = 0, at = 0, strides[QX_MAX_RANK], dims[2];
    qx_tensor *y;
    QX_TRY(qx_call_need(c, 0, &x));
    const char cls = qx_dtype_get((int)x->dtype)->cls;
    if (cls == 'F') QX_TRY(qx_call_in_f32(c, 0, &f));
    else QX_TRY(qx_call_in_i64(c, 0, &v, &n));
    for (int64_t i = 0; i < x->numel; i++) count += f ? f[i] != 0 : v[i] != 0;
    dims[0] = x->rank ? x->rank : 1;
    dims[1] = count;
    QX_TRY(qx_call_out(c, 0, QX_DT_INT64, 2, dims, &y));
    qx_strides(x->dims, x->rank, strides);
    for (int64_t i = 0; i < x->numel; i++) {
        if (!(f ? f[i] != 0 : v[i] != 0)) continue;
        for (int d = 0; d < x->rank; d++) ((int64_t *)y->data)[d * count + at] = i / strides[d] % x->dims[d];
        if (!x->rank) ((int64_t *)y->data)[at] = 0;
        at++;
    }
    return QX_OK;
}

qx_status qx_cpu_compress(qx_call *c)
{
    const qx_tensor *x;
    const int64_t *keep;
    int64_t n_keep, count = 0, dims[QX_MAX_RANK], one = 0;
    qx_tensor *y;
    int axis = 0;
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_in_i64(c, 1, &keep, &n_keep));
    const bool flat = !qx_call_attr(c, "axis");
    if (!flat) QX_TRY(qx_call_axis(c, qx_call_int(c, "axis", 0), x->rank, &axis));
    const size_t elem = (size_t)qx_dtype_bits((int)x->dtype) / 8;
    const int64_t extent = flat ? x->numel : x->dims[axis], outer = flat ? 1 : qx_prod(x->dims, 0, axis),
        inner = flat ? 1 : qx_prod(x->dims, axis + 1, x->rank);
    if (!elem) QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "type %s", qx_dtype_get((int)x->dtype)->name);
    if (n_keep > extent) n_keep = extent;
    for (int64_t i = 0; i < n_keep; i++) count += keep[i] != 0;
    memcpy(dims, x->dims, sizeof dims);
    dims[flat ? 0 : axis] = count;
    QX_TRY(qx_call_out(c, 0, x->dtype, flat ? 1 : x->rank, dims, &y));
    for (int64_t o = 0; o < outer; o++)
        for (int64_t i = 0; i < n_keep; i++)
            if (keep[i])
                memcpy((char *)y->data + (size_t)(one++ * inner) * elem,
                       (const char *)x->data + (size_t)((o * extent + i) * inner) * elem, (size_t)inner * elem);
    return QX_OK;
}

/* ---- Unique: slices along an axis (or single elements), compared by value ---- */

typedef struct unique { const float *f; const int64_t *v; int64_t outer, extent, inner; int64_t *order, *first, *count, *inverse; } unique;

static int compare(const unique *u, int64_t a, int64_t b)
{
    for (int64_t o = 0; o < u->outer; o++)
        for (int64_t i = 0; i < u->inner; i++) {
            const int64_t ia = (o * u->extent + a) * u->inner + i, ib = (o * u->extent + b) * u->inner + i;
            if (u->f ? u->f[ia] < u->f[ib] : u->v[ia] < u->v[ib]) return -1;
            if (u->f ? u->f[ia] > u->f[ib] : u->v[ia] > u->v[ib]) return 1;
        }
    return 0;
}

/* Merge sort of u->order by content, stable; tmp has the same size. */
static void sort_order(const unique *u, int64_t *a, int64_t *tmp, int64_t n)
{
    if (n < 2) return;
    const int64_t half = n / 2;
    sort_order(u, a, tmp, half);
    sort_order(u, a + half, tmp, n - half);
    int64_t i = 0, j = half, k = 0;
    while (i < half && j < n) tmp[k++] = compare(u, a[i], a[j]) <= 0 ? a[i++] : a[j++];
    while (i < half) tmp[k++] = a[i++];
    while (j < n) tmp[k++] = a[j++];
    memcpy(a, tmp, (size_t)n * sizeof *a);
}

static int by_value(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Groups equal neighbours of the sorted order; when not sorted output is asked, groups are numbered by first appearance. Returns
 * how many. */
static int64_t group_equal(unique *u, bool sorted, int64_t *tmp)
{
    int64_t n = 0;
    for (int64_t i = 0; i < u->extent; i++) {
        if (!i || compare(u, u->order[i - 1], u->order[i])) {
            u->first[n] = u->order[i];
            u->count[n++] = 0;
        }
        u->count[n - 1]++;
        u->inverse[u->order[i]] = n - 1;
    }
    if (sorted) return n;
    memcpy(tmp, u->first, (size_t)n * sizeof *tmp);
    qsort(tmp, (size_t)n, sizeof *tmp, by_value);
    int64_t *old_count = u->order; /* no longer needed */
    memcpy(old_count, u->count, (size_t)n * sizeof *old_count);
    for (int64_t k = 0; k < n; k++) u->count[k] = old_count[u->inverse[tmp[k]]];
    memcpy(u->first, tmp, (size_t)n * sizeof *tmp);
    for (int64_t i = 0; i < u->extent; i++) tmp[u->inverse[i]] = -1;
    for (int64_t k = 0; k < n; k++) tmp[u->inverse[u->first[k]]] = k;
    for (int64_t i = 0; i < u->extent; i++) u->inverse[i] = tmp[u->inverse[i]];
    return n;
}

static qx_status put_indices(qx_call *c, uint32_t i, const int64_t *v, int64_t n)
{
    qx_tensor *y;
    if (i >= c->n_out) return QX_OK;
    QX_TRY(qx_call_out(c, i, QX_DT_INT64, 1, &n, &y));
    if (n) memcpy(y->data, v, (size_t)n * sizeof *v);
    return QX_OK;
}

qx_status qx_cpu_unique(qx_call *c)
{
    const qx_tensor *x;
    int64_t n, dims[QX_MAX_RANK], *tmp;
    qx_tensor *y;
    unique u = {.outer = 1, .inner = 1};
    int axis = 0;
    QX_TRY(qx_call_need(c, 0, &x));
    const bool flat = !qx_call_attr(c, "axis");
    if (!flat) QX_TRY(qx_call_axis(c, qx_call_int(c, "axis", 0), x->rank, &axis));
    if (qx_dtype_get((int)x->dtype)->cls == 'F') QX_TRY(qx_call_in_f32(c, 0, &u.f));
    else QX_TRY(qx_call_in_i64(c, 0, &u.v, &n));
    u.extent = flat ? x->numel : x->dims[axis];
    if (!flat) u.outer = qx_prod(x->dims, 0, axis), u.inner = qx_prod(x->dims, axis + 1, x->rank);
    QX_TRY(QX_CALL_SCRATCH(c, u.extent + 1, &u.order));
    QX_TRY(QX_CALL_SCRATCH(c, u.extent + 1, &u.first));
    QX_TRY(QX_CALL_SCRATCH(c, u.extent + 1, &u.count));
    QX_TRY(QX_CALL_SCRATCH(c, u.extent + 1, &u.inverse));
    QX_TRY(QX_CALL_SCRATCH(c, u.extent + 1, &tmp));
    for (int64_t i = 0; i < u.extent; i++) u.order[i] = i;
    sort_order(&u, u.order, tmp, u.extent);
    n = group_equal(&u, qx_call_int(c, "sorted", 1) != 0, tmp);
    const size_t elem = (size_t)qx_dtype_bits((int)x->dtype) / 8;
    memcpy(dims, x->dims, sizeof dims);
    dims[flat ? 0 : axis] = n;
    QX_TRY(qx_call_out(c, 0, x->dtype, flat ? 1 : x->rank, dims, &y));
    for (int64_t o = 0; o < u.outer; o++)
        for (int64_t i = 0; i < n; i++)
            memcpy((char *)y->data + (size_t)((o * n + i) * u.inner) * elem,
                   (const char *)x->data + (size_t)((o * u.extent + u.first[i]) * u.inner) * elem, (size_t)u.inner * elem);
    QX_TRY(put_indices(c, 1, u.first, n));
    QX_TRY(put_indices(c, 2, u.inverse, u.extent));
    return put_indices(c, 3, u.count, n);
}

/* ---- OneHot, Hardmax, EyeLike ---- */

qx_status qx_cpu_onehot(qx_call *c)
{
    const qx_tensor *ind, *vals;
    const int64_t *idx;
    const float *fi = NULL;
    int64_t n, depth, dims[QX_MAX_RANK + 1];
    double depth_f;
    qx_tensor *y;
    int axis;
    QX_TRY(qx_call_need(c, 0, &ind));
    QX_TRY(qx_call_need(c, 2, &vals));
    QX_TRY(qx_call_scalar_f64(c, 1, 0, &depth_f));
    depth = qx_f64_to_i64(depth_f);
    if (qx_dtype_is_float((int)ind->dtype)) QX_TRY(qx_call_in_f32(c, 0, &fi));
    else QX_TRY(qx_call_in_i64(c, 0, &idx, &n));
    const size_t elem = (size_t)qx_dtype_bits((int)vals->dtype) / 8;
    if (depth < 0 || vals->numel != 2 || !elem || ind->rank + 1 > QX_MAX_RANK)
        QX_CALL_FAIL(c, QX_E_SHAPE, "depth %lld with %lld values", (long long)depth, (long long)vals->numel);
    QX_TRY(qx_call_axis(c, qx_call_int(c, "axis", -1), ind->rank + 1, &axis));
    for (int d = 0; d <= ind->rank; d++) dims[d] = d == axis ? depth : ind->dims[d - (d > axis)];
    QX_TRY(qx_call_out(c, 0, vals->dtype, ind->rank + 1, dims, &y));
    const int64_t outer = qx_prod(dims, 0, axis), inner = qx_prod(dims, axis + 1, ind->rank + 1);
    const char *off = vals->data, *on = off + elem;
    for (int64_t o = 0; o < outer; o++)
        for (int64_t i = 0; i < inner; i++) {
            int64_t hot = fi ? qx_f64_to_i64((double)fi[o * inner + i]) : idx[o * inner + i];
            if (hot < 0) hot += depth;
            for (int64_t d = 0; d < depth; d++)
                memcpy((char *)y->data + (size_t)((o * depth + d) * inner + i) * elem, d == hot ? on : off, elem);
        }
    return QX_OK;
}

qx_status qx_cpu_hardmax(qx_call *c)
{
    const qx_tensor *x;
    const float *f;
    float *y;
    int axis;
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_in_f32(c, 0, &f));
    QX_TRY(qx_call_axis(c, qx_call_int(c, "axis", c->version >= 13 ? -1 : 1), x->rank, &axis));
    QX_TRY(qx_call_out_f32(c, 0, x->dtype, x->rank, x->dims, &y));
    const bool coerce = c->version < 13; /* old form: all dims from axis on are one */
    const int64_t outer = qx_prod(x->dims, 0, axis), n = coerce ? qx_prod(x->dims, axis, x->rank) : x->dims[axis],
        inner = coerce ? 1 : qx_prod(x->dims, axis + 1, x->rank);
    for (int64_t o = 0; o < outer; o++)
        for (int64_t i = 0; i < inner; i++) {
            int64_t best = 0;
            for (int64_t k = 1; k < n; k++)
                if (f[(o * n + k) * inner + i] > f[(o * n + best) * inner + i]) best = k;
            for (int64_t k = 0; k < n; k++) y[(o * n + k) * inner + i] = k == best ? 1 : 0;
        }
    return QX_OK;
}

qx_status qx_cpu_eye_like(qx_call *c)
{
    const qx_tensor *x;
    qx_tensor *y;
    float one = 1;
    char bytes[16] = {0};
    QX_TRY(qx_call_need(c, 0, &x));
    if (x->rank != 2) QX_CALL_FAIL(c, QX_E_SHAPE, "rank %d, expected 2", x->rank);
    const qx_dtype dtype = (qx_dtype)qx_call_int(c, "dtype", x->dtype);
    const int64_t k = qx_call_int(c, "k", 0);
    const size_t elem = (size_t)qx_dtype_bits((int)dtype) / 8;
    if (!elem || elem > sizeof bytes || !qx_from_f32((int)dtype, &one, 1, bytes))
        QX_CALL_FAIL(c, QX_E_TYPE, "type %s", qx_dtype_get((int)dtype)->name);
    QX_TRY(qx_call_out(c, 0, dtype, 2, x->dims, &y));
    memset(y->data, 0, y->bytes);
    for (int64_t i = 0; i < x->dims[0]; i++)
        if (i + k >= 0 && i + k < x->dims[1]) memcpy((char *)y->data + (size_t)(i * x->dims[1] + i + k) * elem, bytes, elem);
    return QX_OK;
}

qx_status qx_cpu_reverse_sequence(qx_call *c)
{
    const qx_tensor *x;
    const int64_t *lens;
    int64_t n;
    qx_tensor *y;
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_in_i64(c, 1, &lens, &n));
    const int64_t t_axis = qx_call_int(c, "time_axis", 0), b_axis = qx_call_int(c, "batch_axis", 1);
    const size_t elem = (size_t)qx_dtype_bits((int)x->dtype) / 8;
    if (x->rank < 2 || t_axis < 0 || b_axis < 0 || t_axis + b_axis != 1 || !elem)
        QX_CALL_FAIL(c, QX_E_SHAPE, "time_axis %lld, batch_axis %lld", (long long)t_axis, (long long)b_axis);
    const int64_t steps = x->dims[t_axis], batch = x->dims[b_axis], inner = qx_prod(x->dims, 2, x->rank);
    if (n != batch) QX_CALL_FAIL(c, QX_E_SHAPE, "%lld lengths for a batch of %lld", (long long)n, (long long)batch);
    QX_TRY(qx_call_out(c, 0, x->dtype, x->rank, x->dims, &y));
    for (int64_t b = 0; b < batch; b++)
        for (int64_t t = 0; t < steps; t++) {
            if (lens[b] < 0 || lens[b] > steps) QX_CALL_FAIL(c, QX_E_SHAPE, "length %lld of %lld", (long long)lens[b], (long long)steps);
            const int64_t from = t < lens[b] ? lens[b] - 1 - t : t;
            const int64_t src = t_axis ? b * steps + from : from * batch + b, dst = t_axis ? b * steps + t : t * batch + b;
            memcpy((char *)y->data + (size_t)(dst * inner) * elem, (const char *)x->data + (size_t)(src * inner) * elem,
                   (size_t)inner * elem);
        }
    return QX_OK;
}

/* ---- Det: Gaussian elimination with pivots, in double ---- */

static double det(double *a, int64_t n)
{
    double d = 1;
    for (int64_t i = 0; i < n; i++) {
        int64_t p = i;
        for (int64_t r = i + 1; r < n; r++)
            if (fabs(a[r * n + i]) > fabs(a[p * n + i])) p = r;
        if (a[p * n + i] == 0) return 0;
        for (int64_t j = 0; p != i && j < n; j++) {
            const double t = a[i * n + j];
            a[i * n + j] = a[p * n + j];
            a[p * n + j] = t;
        }
        d *= p != i ? -a[i * n + i] : a[i * n + i];
        for (int64_t r = i + 1; r < n; r++) {
            const double f = a[r * n + i] / a[i * n + i];
            for (int64_t j = i; j < n; j++) a[r * n + j] -= f * a[i * n + j];
        }
    }
    return d;
}

qx_status qx_cpu_det(qx_call *c)
{
    const qx_tensor *x;
    const float *f;
    float *y;
    double *a;
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_in_f32(c, 0, &f));
    if (x->rank < 2 || x->dims[x->rank - 1] != x->dims[x->rank - 2]) QX_CALL_FAIL(c, QX_E_SHAPE, "the matrices are not square");
    const int64_t n = x->dims[x->rank - 1], count = qx_prod(x->dims, 0, x->rank - 2);
    QX_TRY(qx_call_out_f32(c, 0, x->dtype, x->rank - 2, x->dims, &y));
    QX_TRY(QX_CALL_SCRATCH(c, n * n + 1, &a));
    for (int64_t i = 0; i < count; i++) {
        for (int64_t j = 0; j < n * n; j++) a[j] = (double)f[i * n * n + j];
        y[i] = (float)det(a, n);
    }
    return QX_OK;
}

/* place.c - operators that only put elements somewhere: Trilu, DepthToSpace, SpaceToDepth, BitCast, Scatter, ScatterElements, ScatterND,
 * TensorScatter. Scatters copy the data, then write or combine in the order of the updates, so repeated indices have one result. */
#include <string.h>

#include "runtime/cpu/move/strided.h"

qx_status qx_cpu_trilu(qx_call *c)
{
    const qx_tensor *x;
    qx_tensor *y;
    int64_t k;
    int size;
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_elem_size(c, x, &size));
    QX_TRY(qx_call_scalar_i64(c, 1, 0, &k));
    if (x->rank < 2 || x->dtype == QX_DT_STRING) QX_CALL_FAIL(c, QX_E_SHAPE, "a matrix of numbers is needed, not rank %d", x->rank);
    const bool upper = qx_call_int(c, "upper", 1) != 0;
    const int64_t cols = x->dims[x->rank - 1], rows = x->dims[x->rank - 2], n = x->numel;
    k = k < -rows ? -rows - 1 : k > cols ? cols + 1 : k;
    QX_TRY(qx_call_out(c, 0, x->dtype, x->rank, x->dims, &y));
    if (n == 0) return QX_OK;
    memset(y->data, 0, y->bytes);
    for (int64_t r = 0; r < n / cols; r++) {
        int64_t at = r % rows + k, first = upper ? at : 0, last = upper ? cols : at + 1;
        first = first < 0 ? 0 : first;
        last = last > cols ? cols : last;
        if (first < last)
            memcpy((char *)y->data + (r * cols + first) * size, (const char *)x->data + (r * cols + first) * size,
                   (size_t)((last - first) * size));
    }
    return QX_OK;
}

/* ---- DepthToSpace, SpaceToDepth: a view with the block axes apart, transposed ---- */

static qx_status regroup(qx_call *c, const qx_tensor *x, const int64_t *view, const int *perm, const int64_t *dims)
{
    qx_strided s = {.rank = 6};
    int64_t strides[6];
    qx_strides(view, 6, strides);
    for (int i = 0; i < 6; i++) {
        s.dims[i] = view[perm[i]];
        s.stride[i] = strides[perm[i]];
    }
    return qx_strided_out(c, 0, x, 0, 4, dims, &s);
}

static qx_status block_of(const qx_call *c, const qx_tensor **x, int64_t *b)
{
    QX_TRY(qx_call_need(c, 0, x));
    *b = qx_call_int(c, "blocksize", 0);
    if ((*x)->rank != 4 || *b < 1 || *b > 1 << 15)
        QX_CALL_FAIL(c, QX_E_SHAPE, "blocksize %lld, input of rank %d", (long long)*b, (*x)->rank);
    return QX_OK;
}

qx_status qx_cpu_depth_to_space(qx_call *c)
{
    const qx_tensor *x;
    int64_t b;
    QX_TRY(block_of(c, &x, &b));
    const int64_t *d = x->dims, ch = d[1] / (b * b);
    if (d[1] % (b * b)) QX_CALL_FAIL(c, QX_E_SHAPE, "%lld channels for blocks of %lld", (long long)d[1], (long long)b);
    const int64_t dims[4] = {d[0], ch, d[2] * b, d[3] * b};
    if (strcmp(qx_call_str(c, "mode", "DCR"), "CRD") == 0)
        return regroup(c, x, (int64_t[]){d[0], ch, b, b, d[2], d[3]}, (int[]){0, 1, 4, 2, 5, 3}, dims);
    return regroup(c, x, (int64_t[]){d[0], b, b, ch, d[2], d[3]}, (int[]){0, 3, 4, 1, 5, 2}, dims);
}

qx_status qx_cpu_space_to_depth(qx_call *c)
{
    const qx_tensor *x;
    int64_t b;
    QX_TRY(block_of(c, &x, &b));
    const int64_t *d = x->dims;
    if (d[2] % b || d[3] % b) QX_CALL_FAIL(c, QX_E_SHAPE, "%lld x %lld for blocks of %lld", (long long)d[2], (long long)d[3], (long long)b);
    const int64_t dims[4] = {d[0], d[1] * b * b, d[2] / b, d[3] / b}, view[6] = {d[0], d[1], d[2] / b, b, d[3] / b, b};
    const bool crd = strcmp(qx_call_str(c, "mode", "DCR"), "CRD") == 0;
    return regroup(c, x, view, crd ? (int[]){0, 1, 3, 5, 2, 4} : (int[]){0, 3, 5, 1, 2, 4}, dims);
}

qx_status qx_cpu_bit_cast(qx_call *c)
{
    const qx_tensor *x;
    qx_tensor *y;
    const int to = (int)qx_call_int(c, "to", 0);
    QX_TRY(qx_call_need(c, 0, &x));
    if (!qx_dtype_bits(to) || qx_dtype_bits(to) != qx_dtype_bits((int)x->dtype))
        QX_CALL_FAIL(c, QX_E_TYPE, "%s has %d bits, %s has %d", qx_dtype_get((int)x->dtype)->text, qx_dtype_bits((int)x->dtype),
                     qx_dtype_get(to)->text, qx_dtype_bits(to));
    QX_TRY(qx_call_out(c, 0, (qx_dtype)to, x->rank, x->dims, &y));
    if (x->bytes) memcpy(y->data, x->data, x->bytes);
    return QX_OK;
}

/* ---- Scatters ---- */

typedef enum { SET, ADD, MUL, MIN, MAX } combine;
static const char *const combine_names[] = {"none", "add", "mul", "min", "max"};

static qx_status combine_of(const qx_call *c, combine *op)
{
    const char *name = qx_call_str(c, "reduction", "none");
    for (int i = 0; i < 5; i++)
        if (strcmp(name, combine_names[i]) == 0) {
            *op = (combine)i;
            return QX_OK;
        }
    QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "reduction \"%s\"", name);
}

#define TAKE(T, W) { T a, b; memcpy(&a, y, sizeof a); memcpy(&b, u, sizeof b); \
    a = op == ADD ? (T)((W)a + (W)b) : op == MUL ? (T)((W)a * (W)b) : (op == MIN ? b < a : b > a) ? b : a; memcpy(y, &a, sizeof a); }

/* One element y combined with u. Types of up to 16 bits go through float, which is exact or rounds once. */
static void combine_one(combine op, qx_dtype dt, int size, char *y, const char *u)
{
    if (op == SET) { memcpy(y, u, (size_t)size); return; }
    switch (dt) {
    case QX_DT_FLOAT: TAKE(float, float) return;
    case QX_DT_DOUBLE: TAKE(double, double) return;
    case QX_DT_INT64: TAKE(int64_t, uint64_t) return;
    case QX_DT_UINT64: TAKE(uint64_t, uint64_t) return;
    case QX_DT_INT32: TAKE(int32_t, uint32_t) return;
    case QX_DT_UINT32: TAKE(uint32_t, uint32_t) return;
    default: break;
    }
    float a, b;
    qx_to_f32((int)dt, y, 1, &a);
    qx_to_f32((int)dt, u, 1, &b);
    a = op == ADD ? a + b : op == MUL ? a * b : (op == MIN ? b < a : b > a) ? b : a;
    qx_from_f32((int)dt, &a, 1, y);
}

/* Data copied to the output. */
static qx_status start(qx_call *c, const qx_tensor *x, const qx_tensor *u, combine op, int *size, qx_tensor **y)
{
    QX_TRY(qx_elem_size(c, x, size));
    if (u->dtype != x->dtype)
        QX_CALL_FAIL(c, QX_E_TYPE, "data is %s, updates are %s", qx_dtype_get((int)x->dtype)->text, qx_dtype_get((int)u->dtype)->text);
    if (op != SET && (x->dtype == QX_DT_STRING || qx_dtype_get((int)x->dtype)->cls == 'C'))
        QX_CALL_FAIL(c, QX_E_TYPE, "reduction of %s", qx_dtype_get((int)x->dtype)->text);
    QX_TRY(qx_call_out(c, 0, x->dtype, x->rank, x->dims, y));
    if (x->bytes) memcpy((*y)->data, x->data, x->bytes);
    return QX_OK;
}

qx_status qx_cpu_scatter(qx_call *c)
{
    const qx_tensor *x, *ti, *u;
    const int64_t *idx;
    int64_t n, xs[QX_MAX_RANK], us[QX_MAX_RANK];
    int axis, size;
    qx_tensor *y;
    combine op;
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_need(c, 1, &ti));
    QX_TRY(qx_call_need(c, 2, &u));
    QX_TRY(qx_call_in_i64(c, 1, &idx, &n));
    QX_TRY(qx_call_axis(c, qx_call_int(c, "axis", 0), x->rank, &axis));
    QX_TRY(combine_of(c, &op));
    bool fits = ti->rank == x->rank && u->rank == x->rank;
    for (int d = 0; fits && d < x->rank; d++) fits = u->dims[d] == ti->dims[d] && (d == axis || ti->dims[d] <= x->dims[d]);
    if (!fits) QX_CALL_FAIL(c, QX_E_SHAPE, "indices, updates and data do not fit");
    for (int64_t i = 0; i < n; i++)
        if (idx[i] < -x->dims[axis] || idx[i] >= x->dims[axis])
            QX_CALL_FAIL(c, QX_E_SHAPE, "index %lld, axis %d has %lld", (long long)idx[i], axis, (long long)x->dims[axis]);
    QX_TRY(start(c, x, u, op, &size, &y));
    qx_strides(x->dims, x->rank, xs);
    qx_strides(u->dims, u->rank, us);
    const int last = x->rank - 1;
    const int64_t line = u->dims[last]; /* updates along the last axis: where the others lead to is the same for all */
    for (int64_t i = 0; i < n; i += line) {
        int64_t base = 0;
        for (int d = 0; d < last; d++) base += d == axis ? 0 : i / us[d] % u->dims[d] * xs[d];
        for (int64_t k = i; k < i + line; k++) {
            const int64_t at = base + (axis == last ? 0 : k - i) + (idx[k] + (idx[k] < 0 ? x->dims[axis] : 0)) * xs[axis];
            char *to = (char *)y->data + at * size;
            if (op == SET && size == 4) memcpy(to, (const char *)u->data + 4 * k, 4);
            else combine_one(op, x->dtype, size, to, (const char *)u->data + k * size);
        }
    }
    return x->dtype == QX_DT_STRING ? qx_own_strings(c, y) : QX_OK;
}

qx_status qx_cpu_scatter_nd(qx_call *c)
{
    const qx_tensor *x, *ti, *u;
    const int64_t *idx;
    int64_t n;
    int size;
    qx_tensor *y;
    combine op;
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_need(c, 1, &ti));
    QX_TRY(qx_call_need(c, 2, &u));
    QX_TRY(qx_call_in_i64(c, 1, &idx, &n));
    QX_TRY(combine_of(c, &op));
    const int64_t k = ti->rank ? ti->dims[ti->rank - 1] : 0;
    if (ti->rank < 1 || k < 1 || k > x->rank)
        QX_CALL_FAIL(c, QX_E_SHAPE, "index tuples of %lld for data of rank %d", (long long)k, x->rank);
    const int64_t rows = qx_prod(ti->dims, 0, ti->rank - 1), slice = qx_prod(x->dims, (int)k, x->rank);
    if (u->numel != rows * slice)
        QX_CALL_FAIL(c, QX_E_SHAPE, "updates have %lld elements, %lld slices of %lld are needed", (long long)u->numel, (long long)rows,
                     (long long)slice);
    for (int64_t i = 0; i < n; i++)
        if (idx[i] < -x->dims[i % k] || idx[i] >= x->dims[i % k])
            QX_CALL_FAIL(c, QX_E_SHAPE, "index %lld, axis %lld has %lld", (long long)idx[i], (long long)(i % k), (long long)x->dims[i % k]);
    QX_TRY(start(c, x, u, op, &size, &y));
    for (int64_t r = 0; r < rows; r++) {
        int64_t at = 0;
        for (int64_t d = 0; d < k; d++) at = at * x->dims[d] + idx[r * k + d] + (idx[r * k + d] < 0 ? x->dims[d] : 0);
        char *to = (char *)y->data + at * slice * size;
        const char *from = (const char *)u->data + r * slice * size;
        if (op == SET) memcpy(to, from, (size_t)(slice * size));
        for (int64_t i = 0; op != SET && i < slice; i++) combine_one(op, x->dtype, size, to + i * size, from + i * size);
    }
    return x->dtype == QX_DT_STRING ? qx_own_strings(c, y) : QX_OK;
}

qx_status qx_cpu_tensor_scatter(qx_call *c)
{
    const qx_tensor *x, *u;
    const int64_t *write;
    int64_t n;
    int axis, size;
    qx_tensor *y;
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_need(c, 1, &u));
    QX_TRY(qx_call_in_i64(c, 2, &write, &n));
    QX_TRY(qx_call_axis(c, qx_call_int(c, "axis", -2), x->rank, &axis));
    const bool circular = strcmp(qx_call_str(c, "mode", "linear"), "circular") == 0;
    bool fits = axis > 0 && u->rank == x->rank && u->dims[axis] <= x->dims[axis] && (!write || n == x->dims[0]);
    for (int d = 0; fits && d < x->rank; d++) fits = d == axis || u->dims[d] == x->dims[d];
    if (!fits) QX_CALL_FAIL(c, QX_E_SHAPE, "update, write_indices and cache do not fit");
    const int64_t cap = x->dims[axis], steps = u->dims[axis], outer = qx_prod(x->dims, 0, axis),
        inner = qx_prod(x->dims, axis + 1, x->rank);
    for (int64_t b = 0; write && b < n; b++)
        if (write[b] < 0 || (circular ? write[b] >= cap && cap : write[b] > cap - steps))
            QX_CALL_FAIL(c, QX_E_SHAPE, "write index %lld, %lld new in a cache of %lld", (long long)write[b], (long long)steps,
                         (long long)cap);
    QX_TRY(start(c, x, u, SET, &size, &y));
    const size_t bytes = (size_t)(inner * size);
    for (int64_t i = 0; bytes && i < outer * steps; i++) {
        const int64_t o = i / steps, at = ((write ? write[o / (outer / x->dims[0])] : 0) + i % steps) % cap;
        memcpy((char *)y->data + (size_t)(o * cap + at) * bytes, (const char *)u->data + (size_t)i * bytes, bytes);
    }
    return x->dtype == QX_DT_STRING ? qx_own_strings(c, y) : QX_OK;
}

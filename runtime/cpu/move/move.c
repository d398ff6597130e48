/* move.c - operators that put elements elsewhere: Transpose, Slice, Expand, Tile, Concat, Split, Gather*, Pad. */
#include <string.h>

#include "kernels/move.h"
#include "runtime/cpu/move/strided.h"

qx_status qx_cpu_transpose(qx_call *c)
{
    const qx_tensor *x;
    const int64_t *perm;
    int64_t n, strides[QX_MAX_RANK], dims[QX_MAX_RANK];
    bool seen[QX_MAX_RANK] = {false};
    qx_strided s = {0};
    QX_TRY(qx_call_need(c, 0, &x));
    perm = qx_call_ints(c, "perm", &n);
    if (perm && n != x->rank) QX_CALL_FAIL(c, QX_E_SHAPE, "perm has %lld entries, the input has rank %d", (long long)n, x->rank);
    qx_strides(x->dims, x->rank, strides);
    bool moved = false;
    int64_t last = -1;
    for (int i = 0; i < x->rank; i++) {
        int64_t p = perm ? perm[i] : x->rank - 1 - i;
        if (p < 0 || p >= x->rank || seen[p]) QX_CALL_FAIL(c, QX_E_SHAPE, "perm entry %d is %lld", i, (long long)p);
        seen[p] = true;
        dims[i] = s.dims[i] = x->dims[p];
        s.stride[i] = strides[p];
        if (dims[i] == 1) continue;
        moved = moved || p < last; /* only axes of one element change places: no copy */
        last = p;
    }
    s.rank = x->rank;
    if (!moved && x->dtype != QX_DT_STRING) return qx_call_out_view(c, 0, 0, x->rank, dims);
    return qx_strided_out(c, 0, x, 0, x->rank, dims, &s);
}

qx_status qx_cpu_expand(qx_call *c)
{
    const qx_tensor *x;
    const int64_t *want;
    int64_t n, dims[QX_MAX_RANK], strides[QX_MAX_RANK];
    int rank;
    qx_strided s = {0};
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_in_i64(c, 1, &want, &n));
    if (n > QX_MAX_RANK) QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "rank %lld: at most %d is run", (long long)n, QX_MAX_RANK);
    if (!qx_broadcast(x->dims, x->rank, want, (int)n, dims, &rank))
        QX_CALL_FAIL(c, QX_E_SHAPE, "the input cannot be expanded to the shape given");
    qx_strides(x->dims, x->rank, strides);
    int64_t numel;
    if (!qx_dims_product(dims, rank, &numel)) QX_CALL_FAIL(c, QX_E_SHAPE, "the shape given is negative or overflows");
    if (numel == x->numel) return qx_call_out_view(c, 0, 0, rank, dims);
    for (int i = 0; i < rank; i++) {
        int own = i - (rank - x->rank);
        s.dims[i] = dims[i];
        s.stride[i] = own < 0 || x->dims[own] == 1 ? 0 : strides[own];
    }
    s.rank = rank;
    return qx_strided_out(c, 0, x, 0, rank, dims, &s);
}

qx_status qx_cpu_tile(qx_call *c)
{
    const qx_tensor *x;
    const int64_t *reps;
    int64_t n, dims[QX_MAX_RANK], strides[QX_MAX_RANK];
    qx_strided s = {0};
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_in_i64(c, 1, &reps, &n));
    if (n != x->rank) QX_CALL_FAIL(c, QX_E_SHAPE, "%lld repeats for rank %d", (long long)n, x->rank);
    qx_strides(x->dims, x->rank, strides);
    for (int i = 0; i < x->rank; i++) {
        if (reps[i] < 0 || !qx_mul_i64(x->dims[i], reps[i], &dims[i]))
            QX_CALL_FAIL(c, QX_E_SHAPE, "repeat %lld at axis %d", (long long)reps[i], i);
        s.dims[s.rank] = reps[i];
        s.stride[s.rank++] = 0;
        s.dims[s.rank] = x->dims[i];
        s.stride[s.rank++] = strides[i];
    }
    return qx_strided_out(c, 0, x, 0, x->rank, dims, &s);
}

/* ---- Slice ---- */

static qx_status slice_axis(const qx_call *c, int64_t dim, int64_t start, int64_t end, int64_t step, int64_t *first, int64_t *count)
{
    if (step == 0) QX_CALL_FAIL(c, QX_E_SHAPE, "step 0");
    start = start < 0 ? start + dim : start;
    end = end < 0 ? end + dim : end;
    if (step > 0) {
        start = start < 0 ? 0 : start > dim ? dim : start;
        end = end < 0 ? 0 : end > dim ? dim : end;
        *count = end > start ? (end - start - 1) / step + 1 : 0;
    } else {
        start = start < 0 ? -1 : start >= dim ? dim - 1 : start;
        end = end < -1 ? -1 : end >= dim ? dim - 1 : end;
        *count = start > end && step != INT64_MIN ? (start - end - 1) / -step + 1 : start > end;
    }
    *first = start < 0 ? 0 : start;
    return QX_OK;
}

qx_status qx_cpu_slice(qx_call *c)
{
    const qx_tensor *x;
    const int64_t *starts, *ends, *axes, *steps;
    int64_t n, n_ends, n_axes, n_steps, offset = 0, dims[QX_MAX_RANK], strides[QX_MAX_RANK];
    qx_strided s = {0};
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_list(c, "starts", 1, &starts, &n));
    QX_TRY(qx_call_list(c, "ends", 2, &ends, &n_ends));
    QX_TRY(qx_call_list(c, "axes", 3, &axes, &n_axes));
    QX_TRY(qx_call_in_i64(c, 4, &steps, &n_steps));
    if (n != n_ends || (axes && n_axes != n) || (steps && n_steps != n) || n > x->rank)
        QX_CALL_FAIL(c, QX_E_SHAPE, "%lld starts, %lld ends, %lld axes, %lld steps for rank %d", (long long)n, (long long)n_ends,
                     (long long)n_axes, (long long)n_steps, x->rank);
    qx_strides(x->dims, x->rank, strides);
    s.rank = x->rank;
    for (int i = 0; i < x->rank; i++) {
        dims[i] = s.dims[i] = x->dims[i];
        s.stride[i] = strides[i];
    }
    bool all = true;
    for (int64_t k = 0; k < n; k++) {
        int a;
        int64_t first, step = steps ? steps[k] : 1;
        QX_TRY(qx_call_axis(c, axes ? axes[k] : k, x->rank, &a));
        if (x->rank == 0) QX_CALL_FAIL(c, QX_E_SHAPE, "slice of a scalar");
        QX_TRY(slice_axis(c, x->dims[a], starts[k], ends[k], step, &first, &dims[a]));
        s.dims[a] = dims[a];
        s.stride[a] = dims[a] > 1 ? strides[a] * step : strides[a];
        offset += dims[a] ? first * strides[a] : 0;
        all = all && dims[a] == x->dims[a] && (step > 0 || dims[a] <= 1);
    }
    if (all && x->dtype != QX_DT_STRING && !x->is_sequence) return qx_call_out_view(c, 0, 0, x->rank, dims);
    return qx_strided_out(c, 0, x, offset, x->rank, dims, &s);
}

/* ---- Concat and Split: blocks of contiguous bytes ---- */

typedef struct block_job { const char *src; char *dst; int64_t src_row, dst_row, n; int64_t rows, per; } block_job; /* bytes */

/* A number of bytes that the compiler knows is a move, any other a call. */
static qx_status block_piece(void *user, int64_t i)
{
    const block_job *j = user;
    int64_t last = (i + 1) * j->per < j->rows ? (i + 1) * j->per : j->rows;
#define ROWS_OF(bytes) for (int64_t r = i * j->per; r < last; r++) memcpy(j->dst + r * j->dst_row, j->src + r * j->src_row, (bytes))
    switch (j->n) {
    case 1: ROWS_OF(1); break;
    case 2: ROWS_OF(2); break;
    case 4: ROWS_OF(4); break;
    case 8: ROWS_OF(8); break;
    case 16: ROWS_OF(16); break;
    default: ROWS_OF((size_t)j->n); break;
    }
#undef ROWS_OF
    return QX_OK;
}

static qx_status copy_blocks(qx_ctx *ctx, block_job *j)
{
    if (j->n == 0 || j->rows == 0) return QX_OK;
    j->per = (1 << 16) / j->n + 1;
    return qx_parallel(ctx, (j->rows + j->per - 1) / j->per, block_piece, j);
}

qx_status qx_cpu_concat(qx_call *c)
{
    const qx_tensor *first, *t;
    qx_tensor *y = NULL;
    int axis, size;
    int64_t dims[QX_MAX_RANK], at = 0;
    QX_TRY(qx_call_need(c, 0, &first));
    QX_TRY(qx_call_axis(c, qx_call_int(c, "axis", 1), first->rank, &axis));
    if (first->rank == 0) QX_CALL_FAIL(c, QX_E_SHAPE, "concat of scalars");
    QX_TRY(qx_elem_size(c, first, &size));
    memcpy(dims, first->dims, sizeof dims);
    dims[axis] = 0;
    for (uint32_t i = 0; i < c->n_in; i++) {
        QX_TRY(qx_call_need(c, i, &t));
        bool fits = t->rank == first->rank && t->dtype == first->dtype;
        for (int d = 0; fits && d < t->rank; d++) fits = d == axis || t->dims[d] == first->dims[d];
        char a[96], b[96];
        if (!fits)
            QX_CALL_FAIL(c, QX_E_SHAPE, "input %u is %s, input 0 is %s (axis %d)", i, qx_tensor_describe(t, a, sizeof a),
                         qx_tensor_describe(first, b, sizeof b), axis);
        dims[axis] += t->dims[axis];
    }
    QX_TRY(qx_call_out(c, 0, first->dtype, first->rank, dims, &y));
    int64_t outer = qx_prod(dims, 0, axis), inner = qx_prod(dims, axis + 1, first->rank) * size;
    if (qx_call_out_layout(c, 0) < 0) outer *= inner / size, inner = size; /* channels last, and the axis is theirs */
    for (uint32_t i = 0; i < c->n_in; i++) {
        int64_t n = c->in[i]->dims[axis] * inner;
        block_job j = {c->in[i]->data, (char *)y->data + at, n, dims[axis] * inner, n, outer, 1};
        QX_TRY(copy_blocks(c->ctx, &j));
        at += n;
    }
    return first->dtype == QX_DT_STRING ? qx_own_strings(c, y) : QX_OK;
}

/* Sizes of the parts: given, or as even as can be (the last is smaller). */
static qx_status split_sizes(qx_call *c, int64_t dim, int64_t *sizes)
{
    const int64_t *given;
    int64_t n, total = 0, parts = qx_call_int(c, "num_outputs", c->n_out);
    QX_TRY(qx_call_list(c, "split", 1, &given, &n));
    if (given && n != (int64_t)c->n_out) QX_CALL_FAIL(c, QX_E_SHAPE, "%lld sizes for %u outputs", (long long)n, c->n_out);
    if (parts != (int64_t)c->n_out || parts < 1)
        QX_CALL_FAIL(c, QX_E_SHAPE, "num_outputs is %lld, the node has %u outputs", (long long)parts, c->n_out);
    int64_t each = (dim + parts - 1) / parts;
    for (uint32_t i = 0; i < c->n_out; i++) {
        int64_t left = dim - each * (int64_t)i;
        sizes[i] = given ? given[i] : left < 0 ? 0 : left < each ? left : each;
        if (sizes[i] < 0 || sizes[i] > dim - total)
            QX_CALL_FAIL(c, QX_E_SHAPE, "part %u has size %lld, but %lld of %lld are left", i, (long long)sizes[i],
                         (long long)(dim - total), (long long)dim);
        total += sizes[i];
    }
    if (total != dim) QX_CALL_FAIL(c, QX_E_SHAPE, "parts add up to %lld, the axis has %lld", (long long)total, (long long)dim);
    return QX_OK;
}

qx_status qx_cpu_split(qx_call *c)
{
    const qx_tensor *x;
    int axis, size;
    int64_t *sizes = NULL, dims[QX_MAX_RANK], at = 0;
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_axis(c, qx_call_int(c, "axis", 0), x->rank, &axis));
    if (x->rank == 0) QX_CALL_FAIL(c, QX_E_SHAPE, "split of a scalar");
    QX_TRY(qx_elem_size(c, x, &size));
    QX_TRY(QX_CALL_SCRATCH(c, c->n_out, &sizes));
    QX_TRY(split_sizes(c, x->dims[axis], sizes));
    memcpy(dims, x->dims, sizeof dims);
    int64_t outer = qx_prod(dims, 0, axis), inner = qx_prod(dims, axis + 1, x->rank) * size;
    if (qx_call_in_layout(c, 0) < 0) outer *= inner / size, inner = size; /* as in Concat */
    const int64_t row = x->dims[axis] * inner;
    for (uint32_t i = 0; i < c->n_out; i++) {
        qx_tensor *y = NULL;
        dims[axis] = sizes[i];
        QX_TRY(qx_call_out(c, i, x->dtype, x->rank, dims, &y));
        block_job j = {(const char *)x->data + at, y->data, row, sizes[i] * inner, sizes[i] * inner, outer, 1};
        QX_TRY(copy_blocks(c->ctx, &j));
        if (x->dtype == QX_DT_STRING) QX_TRY(qx_own_strings(c, y));
        at += sizes[i] * inner;
    }
    return QX_OK;
}

/* ---- Gather ---- */

static qx_status wrap_index(const qx_call *c, int64_t v, int64_t dim, int64_t *out)
{
    if (v < -dim || v >= dim)
        QX_CALL_FAIL(c, QX_E_SHAPE, "index %lld is outside of [%lld, %lld)", (long long)v, (long long)-dim, (long long)dim);
    *out = v < 0 ? v + dim : v;
    return QX_OK;
}

/* inner in bytes */
typedef struct gather_job { const char *src; char *dst; const int64_t *idx; int64_t n, dim, inner, outer, per; } gather_job;

static qx_status gather_piece(void *user, int64_t p)
{
    const gather_job *j = user;
    int64_t last = (p + 1) * j->per < j->outer * j->n ? (p + 1) * j->per : j->outer * j->n;
    for (int64_t k = p * j->per; k < last; k++) {
        int64_t o = k / j->n, i = j->idx[k % j->n];
        memcpy(j->dst + k * j->inner, j->src + (o * j->dim + (i < 0 ? i + j->dim : i)) * j->inner, (size_t)j->inner);
    }
    return QX_OK;
}

qx_status qx_cpu_gather(qx_call *c)
{
    const qx_tensor *x, *ix;
    const int64_t *idx;
    int axis, size;
    int64_t n, ignored, dims[2 * QX_MAX_RANK];
    qx_tensor *y = NULL;
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_need(c, 1, &ix));
    QX_TRY(qx_call_axis(c, qx_call_int(c, "axis", 0), x->rank, &axis));
    if (x->rank == 0) QX_CALL_FAIL(c, QX_E_SHAPE, "gather from a scalar");
    QX_TRY(qx_elem_size(c, x, &size));
    QX_TRY(qx_call_in_i64(c, 1, &idx, &n));
    for (int64_t i = 0; i < n; i++) QX_TRY(wrap_index(c, idx[i], x->dims[axis], &ignored));
    int rank = 0;
    for (int i = 0; i < axis; i++) dims[rank++] = x->dims[i];
    for (int i = 0; i < ix->rank; i++) dims[rank++] = ix->dims[i];
    for (int i = axis + 1; i < x->rank; i++) dims[rank++] = x->dims[i];
    QX_TRY(qx_call_out(c, 0, x->dtype, rank, dims, &y));
    if (y->numel == 0) return QX_OK;
    gather_job j = {x->data, y->data, idx, n, x->dims[axis], qx_prod(x->dims, axis + 1, x->rank) * size, qx_prod(x->dims, 0, axis), 1};
    j.per = (1 << 16) / j.inner + 1;
    QX_TRY(qx_parallel(c->ctx, (j.outer * n + j.per - 1) / j.per, gather_piece, &j));
    return x->dtype == QX_DT_STRING ? qx_own_strings(c, y) : QX_OK;
}

qx_status qx_cpu_gather_elements(qx_call *c)
{
    const qx_tensor *x, *ix;
    const int64_t *idx;
    int axis, size;
    int64_t n, strides[QX_MAX_RANK];
    qx_tensor *y = NULL;
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_need(c, 1, &ix));
    QX_TRY(qx_call_axis(c, qx_call_int(c, "axis", 0), x->rank, &axis));
    if (x->rank != ix->rank || x->rank == 0) QX_CALL_FAIL(c, QX_E_SHAPE, "data has rank %d, indices rank %d", x->rank, ix->rank);
    for (int i = 0; i < x->rank; i++)
        if (i != axis && ix->dims[i] > x->dims[i])
            QX_CALL_FAIL(c, QX_E_SHAPE, "indices have %lld at axis %d, data has %lld", (long long)ix->dims[i], i, (long long)x->dims[i]);
    QX_TRY(qx_elem_size(c, x, &size));
    QX_TRY(qx_call_in_i64(c, 1, &idx, &n));
    QX_TRY(qx_call_out(c, 0, x->dtype, ix->rank, ix->dims, &y));
    qx_strides(x->dims, x->rank, strides);
    for (int64_t k = 0; k < n; k++) {
        int64_t rest = k, at, off = 0;
        QX_TRY(wrap_index(c, idx[k], x->dims[axis], &at));
        for (int i = ix->rank - 1; i >= 0; i--) {
            off += (i == axis ? at : rest % ix->dims[i]) * strides[i];
            rest /= ix->dims[i];
        }
        memcpy((char *)y->data + k * size, (const char *)x->data + off * size, (size_t)size);
    }
    return x->dtype == QX_DT_STRING ? qx_own_strings(c, y) : QX_OK;
}

qx_status qx_cpu_gather_nd(qx_call *c)
{
    const qx_tensor *x, *ix;
    const int64_t *idx;
    int size;
    int64_t n, dims[2 * QX_MAX_RANK], strides[QX_MAX_RANK], b = qx_call_int(c, "batch_dims", 0);
    qx_tensor *y = NULL;
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_need(c, 1, &ix));
    int64_t depth = ix->rank ? ix->dims[ix->rank - 1] : 0;
    if (b < 0 || b >= ix->rank || b >= x->rank || depth < 1 || b + depth > x->rank)
        QX_CALL_FAIL(c, QX_E_SHAPE, "indices of depth %lld after %lld batch axes into rank %d", (long long)depth, (long long)b, x->rank);
    for (int i = 0; i < b; i++)
        if (ix->dims[i] != x->dims[i])
            QX_CALL_FAIL(c, QX_E_SHAPE, "batch axis %d is %lld in the data, %lld in the indices", i, (long long)x->dims[i],
                         (long long)ix->dims[i]);
    QX_TRY(qx_elem_size(c, x, &size));
    QX_TRY(qx_call_in_i64(c, 1, &idx, &n));
    int rank = 0;
    for (int i = 0; i + 1 < ix->rank; i++) dims[rank++] = ix->dims[i];
    for (int64_t i = b + depth; i < x->rank; i++) dims[rank++] = x->dims[i];
    QX_TRY(qx_call_out(c, 0, x->dtype, rank, dims, &y));
    qx_strides(x->dims, x->rank, strides);
    int64_t tuples = n / depth, per_batch = tuples / (qx_prod(ix->dims, 0, (int)b) ? qx_prod(ix->dims, 0, (int)b) : 1);
    int64_t inner = qx_prod(x->dims, (int)(b + depth), x->rank) * size, batch = qx_prod(x->dims, (int)b, x->rank);
    for (int64_t t = 0; t < tuples; t++) {
        int64_t off = per_batch ? t / per_batch * batch : 0, at;
        for (int64_t k = 0; k < depth; k++) {
            QX_TRY(wrap_index(c, idx[t * depth + k], x->dims[b + k], &at));
            off += at * strides[b + k];
        }
        memcpy((char *)y->data + t * inner, (const char *)x->data + off * size, (size_t)inner);
    }
    return x->dtype == QX_DT_STRING ? qx_own_strings(c, y) : QX_OK;
}

/* ---- Pad ---- */

typedef enum pad_mode { PAD_CONSTANT, PAD_REFLECT, PAD_EDGE, PAD_WRAP } pad_mode;

/* Source index of output index i, or -1 for the constant. */
static int64_t pad_index(pad_mode mode, int64_t i, int64_t begin, int64_t dim)
{
    int64_t at = i - begin;
    if (at >= 0 && at < dim) return at;
    if (mode == PAD_CONSTANT || dim == 0) return -1;
    if (mode == PAD_EDGE) return at < 0 ? 0 : dim - 1;
    if (mode == PAD_WRAP) return ((at % dim) + dim) % dim;
    if (dim == 1) return 0;
    int64_t period = 2 * (dim - 1), m = ((at % period) + period) % period;
    return m < dim ? m : period - m;
}

/* Elements [lo, hi) of an output row are a piece of an input row as it lies. */
typedef struct pad_job {
    const qx_tensor *x;
    qx_tensor *y;
    int rank;
    int64_t in[QX_MAX_RANK], out[QX_MAX_RANK], begin[QX_MAX_RANK];
    int64_t *map[QX_MAX_RANK];
    int64_t strides[QX_MAX_RANK], lo, hi;
    int size;
    uint64_t fill[2];
} pad_job;

/* Output elements [from, to) of a row, one by one; row NULL: all of them the constant. */
static void pad_elements(const pad_job *j, const char *row, int64_t from, int64_t to, char *dst)
{
    const int64_t *map = j->map[j->rank - 1];
    for (int64_t i = from; i < to; i++)
        memcpy(dst + i * j->size, !row || map[i] < 0 ? (const char *)j->fill : row + map[i] * j->size, (size_t)j->size);
}

static qx_status pad_row(void *user, int64_t row)
{
    const pad_job *j = user;
    int last = j->rank - 1;
    int64_t off = 0, rest = row, n = j->out[last];
    char *dst = (char *)j->y->data + row * n * j->size;
    bool hole = false;
    for (int i = last - 1; i >= 0; i--) {
        int64_t at = j->map[i][rest % j->out[i]];
        rest /= j->out[i];
        hole = hole || at < 0;
        off += at * j->strides[i];
    }
    const char *src = hole ? NULL : (const char *)j->x->data + off * j->size;
    if (src && j->lo < j->hi) {
        pad_elements(j, src, 0, j->lo, dst);
        memcpy(dst + j->lo * j->size, src + j->map[last][j->lo] * j->size, (size_t)((j->hi - j->lo) * j->size));
        pad_elements(j, src, j->hi, n, dst);
    } else {
        pad_elements(j, src, 0, n, dst);
    }
    return QX_OK;
}

enum { SHORT_ROW = 4096 };

/* Short rows that are not padded themselves (channels last, of which there may be one) become part of longer ones. */
static void join_rows(pad_job *j, pad_mode mode)
{
    while (j->rank > 1) {
        const int last = j->rank - 1;
        const int64_t n = j->in[last];
        if (j->begin[last] || j->out[last] != n || (n != 1 && mode != PAD_CONSTANT) || n * j->out[last - 1] > SHORT_ROW) return;
        j->in[last - 1] *= n, j->out[last - 1] *= n, j->begin[last - 1] *= n;
        j->rank--;
    }
}

static qx_status pad_amounts(qx_call *c, const qx_tensor *x, int64_t *begin, int64_t *end)
{
    const int64_t *pads, *axes;
    int64_t n, n_axes;
    QX_TRY(qx_call_list(c, qx_call_attr(c, "paddings") ? "paddings" : "pads", 1, &pads, &n));
    QX_TRY(qx_call_in_i64(c, 3, &axes, &n_axes));
    int64_t m = axes ? n_axes : x->rank;
    if (n != 2 * m) QX_CALL_FAIL(c, QX_E_SHAPE, "%lld pads for %lld axes", (long long)n, (long long)m);
    for (int i = 0; i < x->rank; i++) begin[i] = end[i] = 0;
    for (int64_t k = 0; k < m; k++) {
        int a;
        QX_TRY(qx_call_axis(c, axes ? axes[k] : k, x->rank, &a));
        begin[a] = pads[k];
        end[a] = pads[k + m];
    }
    return QX_OK;
}

qx_status qx_cpu_pad(qx_call *c)
{
    const qx_tensor *x, *v = NULL;
    int64_t begin[QX_MAX_RANK], end[QX_MAX_RANK], dims[QX_MAX_RANK];
    pad_job j = {0};
    const char *m = qx_call_str(c, "mode", "constant");
    pad_mode mode = *m == 'r' ? PAD_REFLECT : *m == 'e' ? PAD_EDGE : *m == 'w' ? PAD_WRAP : PAD_CONSTANT;
    QX_TRY(qx_call_need(c, 0, &x));
    if (x->rank == 0) return qx_call_out_view(c, 0, 0, 0, NULL);
    QX_TRY(qx_elem_size(c, x, &j.size));
    if (x->dtype == QX_DT_STRING) QX_CALL_FAIL(c, QX_E_TYPE, "strings are not padded");
    QX_TRY(pad_amounts(c, x, begin, end));
    for (int i = 0; i < x->rank; i++)
        if (!qx_add_i64(x->dims[i], begin[i], &dims[i]) || !qx_add_i64(dims[i], end[i], &dims[i]) || dims[i] < 0)
            QX_CALL_FAIL(c, QX_E_SHAPE, "pads %lld and %lld at axis %d of %lld", (long long)begin[i], (long long)end[i], i,
                         (long long)x->dims[i]);
    const bool by_input = c->version >= 11 || c->node->op->id == QX_OP_ms_Pad; /* the old form has attributes */
    v = by_input ? qx_call_in(c, 2) : NULL;
    if (v && v->numel > 0 && v->dtype == x->dtype) memcpy(j.fill, v->data, (size_t)j.size);
    float old = qx_call_float(c, "value", 0.0f);
    if (!by_input) {
        if (x->dtype == QX_DT_DOUBLE) { double d = (double)old; memcpy(j.fill, &d, sizeof d); }
        else qx_from_f32(x->dtype, &old, 1, j.fill);
    }
    QX_TRY(qx_call_out(c, 0, x->dtype, x->rank, dims, &j.y));
    if (j.y->numel == 0) return QX_OK;
    j.x = x;
    j.rank = x->rank;
    for (int i = 0; i < x->rank; i++) j.in[i] = x->dims[i], j.out[i] = dims[i], j.begin[i] = begin[i];
    join_rows(&j, mode);
    qx_strides(j.in, j.rank, j.strides);
    for (int i = 0; i < j.rank; i++) {
        QX_TRY(QX_CALL_SCRATCH(c, j.out[i], &j.map[i]));
        for (int64_t k = 0; k < j.out[i]; k++) j.map[i][k] = pad_index(mode, k, j.begin[i], j.in[i]);
    }
    const int last = j.rank - 1;
    j.lo = j.begin[last] > 0 ? j.begin[last] : 0;
    j.hi = j.begin[last] + j.in[last] < j.out[last] ? j.begin[last] + j.in[last] : j.out[last];
    return qx_parallel(c->ctx, j.y->numel / j.out[last], pad_row, &j);
}

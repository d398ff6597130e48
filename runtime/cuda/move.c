/* move.c - adapters of operators that put elements elsewhere: views, Transpose, Slice, Split, Concat, Expand, Tile, Pad, gathers
 * and scatters. */
#include <string.h>

#include "runtime/cuda/node.h"

/* ---- views: other dims, same bytes ---- */

static qx_status view_place(const cu_build *b)
{
    b->place->view = 1;
    return cu_host_in(b, 1, 31);
}
static qx_status view_compile(cu_build *b) { CU_NO(b, "a view is not compiled"); }
const cu_adapter qx_cuda_view = {view_place, view_compile};

/* ---- strided copies ---- */

typedef struct copies { int n; qk_copy_args of[QK_RANK * 4]; bool out_of_one; } copies; /* several inputs or several outputs */

static qx_status copy_run(const cu_run *r)
{
    const copies *c = r->args;
    for (int i = 0; i < c->n; i++) {
        qk_copy_args a = c->of[i];
        a.src = r->in[c->out_of_one ? 0 : i].data;
        a.dst = r->out[c->out_of_one ? i : 0].data;
        if (a.n && a.dst) QX_TRY(cu_launched(r->d->m, qk_copy(r->q, &a)));
    }
    return QX_OK;
}

/* dims with strides on both sides, collapsed. */
static void copy_set(qk_copy_args *a, int rank, const int64_t *dims, const int64_t *ss, const int64_t *ds, int size)
{
    int64_t s[2][QK_RANK] = {{0}};
    memcpy(a->dims, dims, (size_t)rank * sizeof *dims);
    memcpy(s[0], ss, (size_t)rank * sizeof *ss);
    memcpy(s[1], ds, (size_t)rank * sizeof *ds);
    a->n = cu_prod(dims, 0, rank);
    a->size = size;
    a->rank = cu_collapse(rank, a->dims, 2, s);
    memcpy(a->ss, s[0], sizeof s[0]);
    memcpy(a->ds, s[1], sizeof s[1]);
}

static qx_status one_copy(cu_build *b, int64_t offset, int rank, const int64_t *dims, const int64_t *ss)
{
    copies c = {.n = 1};
    int64_t ds[QK_RANK];
    int size = cu_bytes(b->in[0].dtype);
    if (!size) CU_NO(b, "no CUDA kernel for elements of %s", qx_dtype_get(b->in[0].dtype)->text);
    cu_strides(dims, rank, ds);
    copy_set(&c.of[0], rank, dims, ss, ds, size);
    c.of[0].s0 = offset;
    return cu_step(b, copy_run, &c, sizeof c);
}

static qx_status plain_place(const cu_build *b) { return cu_want_plain(b, 0); }
static qx_status shaped_place(const cu_build *b)
{
    QX_TRY(cu_want_plain(b, 0));
    return cu_host_in(b, 1, 31);
}

static qx_status turn_run(const cu_run *r)
{
    qk_turn_args a = *(const qk_turn_args *)r->args;
    a.src = r->in[0].data;
    a.dst = r->out[0].data;
    return cu_launched(r->d->m, qk_turn(r->q, &a));
}

static qx_status turned(cu_build *b, const int64_t *perm, int64_t n)
{
    const qx_dev_tensor *x = &b->in[0];
    int64_t xs[QK_RANK], dims[QK_RANK] = {0}, ss[1][QK_RANK] = {{0}}, plain[QK_RANK];
    bool seen[QK_RANK] = {false};
    if (perm && n != x->rank) CU_BAD(b, "perm has %lld entries, the input has rank %d", (long long)n, x->rank);
    cu_strides(x->dims, x->rank, xs);
    for (int i = 0; i < x->rank; i++) {
        int64_t p = perm ? perm[i] : x->rank - 1 - i;
        if (p < 0 || p >= x->rank || seen[p]) CU_BAD(b, "perm entry %d is %lld", i, (long long)p);
        seen[p] = true;
        dims[i] = x->dims[p];
        ss[0][i] = xs[p];
    }
    int rank = cu_collapse(x->rank, dims, 1, ss), size = cu_bytes(x->dtype);
    cu_strides(dims, rank, plain);
    bool pair = rank >= 2 && rank <= 3 && ss[0][rank - 2] == 1 && ss[0][rank - 1] == dims[rank - 2];
    if (rank == 3) pair = pair && ss[0][0] == dims[1] * dims[2];
    if (size && pair) { /* [batch, rows, cols] -> [batch, cols, rows] */
        const qk_turn_args a = {.batch = rank == 3 ? dims[0] : 1, .rows = dims[rank - 1], .cols = dims[rank - 2], .size = size};
        return cu_step(b, turn_run, &a, sizeof a);
    }
    return one_copy(b, 0, rank, dims, ss[0]);
}

static qx_status transpose_compile(cu_build *b)
{
    int64_t n;
    const int64_t *perm = cu_ints(b, "perm", &n);
    return turned(b, perm, n);
}

/* Einsum of one operand whose letters only change places ("nhwpqc->nchpwq": pixel shuffles of exporters). */
static bool permutation(const cu_build *b, int64_t perm[QK_RANK], int *rank)
{
    const qx_dev_attr *a = cu_attr(b, "equation");
    char in[QK_RANK + 1] = "", out[QK_RANK + 1] = "", *to = in;
    size_t n = 0;
    for (const char *c = a && a->kind == QX_DEV_STRING ? a->s : ""; *c; c++) {
        if (*c == ' ') continue;
        if (c[0] == '-' && c[1] == '>' && to == in) {
            to = out;
            n = 0;
            c++;
            continue;
        }
        if (!((*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z')) || n == QK_RANK || memchr(to, *c, n)) return false;
        to[n++] = *c;
    }
    *rank = (int)strlen(in);
    for (int i = 0; to == out && i < *rank; i++) {
        const char *at = out[i] ? strchr(in, out[i]) : NULL;
        if (!at) return false;
        perm[i] = at - in;
    }
    return to == out && strlen(out) == strlen(in);
}

static qx_status einsum_place(const cu_build *b)
{
    int64_t perm[QK_RANK];
    int rank;
    if (b->node->n_in != 1 || !permutation(b, perm, &rank)) CU_NO(b, "an Einsum that is no permutation");
    return cu_want_plain(b, 0);
}

static qx_status einsum_compile(cu_build *b)
{
    int64_t perm[QK_RANK];
    int rank;
    if (!permutation(b, perm, &rank) || rank != b->in[0].rank) CU_BAD(b, "the equation does not fit rank %d", b->in[0].rank);
    return turned(b, perm, rank);
}
const cu_adapter qx_cuda_einsum = {einsum_place, einsum_compile};
const cu_adapter qx_cuda_transpose = {plain_place, transpose_compile};

static qx_status expand_compile(cu_build *b)
{
    int64_t s[QK_RANK];
    QX_TRY(cu_broadcast(b, &b->in[0], &b->out[0], s));
    return one_copy(b, 0, b->out[0].rank, b->out[0].dims, s);
}
const cu_adapter qx_cuda_expand = {shaped_place, expand_compile};

static qx_status tile_compile(cu_build *b)
{
    const qx_dev_tensor *x = &b->in[0];
    int64_t xs[QK_RANK], dims[QK_RANK], ss[QK_RANK];
    int rank = 0;
    cu_strides(x->dims, x->rank, xs);
    for (int i = 0; i < x->rank; i++) {
        int64_t reps = x->dims[i] ? b->out[0].dims[i] / x->dims[i] : 0;
        if (rank + 2 > QK_RANK && reps > 1) CU_NO(b, "a tile of rank %d", x->rank);
        if (reps != 1) {
            dims[rank] = reps;
            ss[rank++] = 0;
        }
        if (rank == QK_RANK) CU_NO(b, "a tile of rank %d", x->rank);
        dims[rank] = x->dims[i];
        ss[rank++] = xs[i];
    }
    return one_copy(b, 0, rank, dims, ss);
}
const cu_adapter qx_cuda_tile = {shaped_place, tile_compile};

static int64_t slice_first(int64_t dim, int64_t start, int64_t step)
{
    start = start < 0 ? start + dim : start;
    if (step > 0) return start < 0 ? 0 : start > dim ? dim : start;
    return start < 0 ? 0 : start >= dim ? dim - 1 : start;
}

static qx_status slice_compile(cu_build *b)
{
    const qx_dev_tensor *x = &b->in[0];
    int64_t starts[64], axes[64], steps[64], n, n_axes, n_steps, ss[QK_RANK], offset = 0;
    QX_TRY(cu_list(b, "starts", 1, starts, &n));
    QX_TRY(cu_list(b, "axes", 3, axes, &n_axes));
    QX_TRY(cu_list(b, NULL, 4, steps, &n_steps));
    if (n < 0 || n > x->rank || (n_axes >= 0 && n_axes != n) || (n_steps >= 0 && n_steps != n))
        CU_BAD(b, "%lld starts for rank %d", (long long)n, x->rank);
    cu_strides(x->dims, x->rank, ss);
    for (int64_t k = 0; k < n; k++) {
        int axis;
        QX_TRY(cu_axis(b, n_axes >= 0 ? axes[k] : k, x->rank, &axis));
        int64_t step = n_steps >= 0 ? steps[k] : 1, stride = ss[axis];
        if (b->out[0].dims[axis] == 0) continue;
        offset += slice_first(x->dims[axis], starts[k], step) * stride;
        if (b->out[0].dims[axis] > 1) ss[axis] = stride * step;
    }
    return one_copy(b, offset, x->rank, b->out[0].dims, ss);
}
const cu_adapter qx_cuda_slice = {shaped_place, slice_compile};

static qx_status concat_compile(cu_build *b)
{
    const qx_dev_tensor *y = &b->out[0];
    int axis, size = cu_bytes(y->dtype);
    copies c = {.n = (int)b->node->n_in};
    int64_t ds[QK_RANK], at = 0;
    if (c.n > (int)(sizeof c.of / sizeof *c.of) || !size)
        CU_NO(b, "a concatenation of %d tensors of %s", c.n, qx_dtype_get(y->dtype)->text);
    QX_TRY(cu_axis(b, cu_int(b, "axis", 1), y->rank, &axis));
    cu_strides(y->dims, y->rank, ds);
    for (int i = 0; i < c.n; i++) {
        int64_t ss[QK_RANK];
        if (b->in[i].rank != y->rank || b->in[i].dtype != y->dtype)
            CU_BAD(b, "input %d has rank %d and type %s", i, b->in[i].rank, qx_dtype_get(b->in[i].dtype)->text);
        cu_strides(b->in[i].dims, y->rank, ss);
        copy_set(&c.of[i], y->rank, b->in[i].dims, ss, ds, size);
        c.of[i].d0 = at * ds[axis];
        at += b->in[i].dims[axis];
    }
    if (at != y->dims[axis]) CU_BAD(b, "parts add up to %lld, the output has %lld", (long long)at, (long long)y->dims[axis]);
    return cu_step(b, copy_run, &c, sizeof c);
}
const cu_adapter qx_cuda_concat = {plain_place, concat_compile};

static qx_status split_compile(cu_build *b)
{
    const qx_dev_tensor *x = &b->in[0];
    int axis, size = cu_bytes(x->dtype);
    copies c = {.n = (int)b->node->n_out, .out_of_one = true};
    int64_t ss[QK_RANK], at = 0;
    if (c.n > 16 || !size) CU_NO(b, "%d parts of %s", c.n, qx_dtype_get(x->dtype)->text);
    QX_TRY(cu_axis(b, cu_int(b, "axis", 0), x->rank, &axis));
    cu_strides(x->dims, x->rank, ss);
    for (int i = 0; i < c.n; i++) {
        const qx_dev_tensor *y = &b->out[i];
        int64_t ds[QK_RANK];
        if (y->rank != x->rank) CU_NO(b, "a part that nobody reads"); /* its size is not known then */
        cu_strides(y->dims, y->rank, ds);
        copy_set(&c.of[i], y->rank, y->dims, ss, ds, size);
        c.of[i].s0 = at * ss[axis];
        at += y->dims[axis];
    }
    if (at != x->dims[axis]) CU_BAD(b, "parts add up to %lld, the axis has %lld", (long long)at, (long long)x->dims[axis]);
    return cu_step(b, copy_run, &c, sizeof c);
}
const cu_adapter qx_cuda_split = {shaped_place, split_compile};

/* ---- Pad ---- */

typedef struct pad_args { qk_fill_args fill; qk_copy_args copy; qk_pad_args pad; bool constant; } pad_args;

static qx_status pad_run(const cu_run *r)
{
    pad_args a = *(const pad_args *)r->args;
    a.fill.dst = a.copy.dst = a.pad.dst = r->out[0].data;
    a.copy.src = a.pad.src = r->in[0].data;
    if (!a.constant) return cu_launched(r->d->m, qk_pad(r->q, &a.pad));
    QX_TRY(cu_launched(r->d->m, qk_fill(r->q, &a.fill)));
    return a.copy.n ? cu_launched(r->d->m, qk_copy(r->q, &a.copy)) : QX_OK;
}

/* Begins of all axes; from attribute or input, for some axes or all. */
static qx_status pad_begins(cu_build *b, int64_t *begin)
{
    int64_t pads[64], axes[64], n, n_axes;
    int rank = b->in[0].rank;
    QX_TRY(cu_list(b, b->node->version < 11 ? (cu_attr(b, "pads") ? "pads" : "paddings") : NULL, 1, pads, &n));
    QX_TRY(cu_list(b, NULL, 3, axes, &n_axes));
    int64_t count = n_axes >= 0 ? n_axes : rank;
    if (n != 2 * count) CU_BAD(b, "%lld pads for %lld axes", (long long)n, (long long)count);
    for (int i = 0; i < rank; i++) begin[i] = 0;
    for (int64_t k = 0; k < count; k++) {
        int axis;
        QX_TRY(cu_axis(b, n_axes >= 0 ? axes[k] : k, rank, &axis));
        begin[axis] = pads[k];
    }
    return QX_OK;
}

static qx_status pad_compile(cu_build *b)
{
    const qx_dev_tensor *x = &b->in[0], *y = &b->out[0];
    int size = cu_bytes(x->dtype);
    pad_args a = {.constant = cu_is(b, "mode", "constant", true)};
    int64_t begin[QK_RANK], xs[QK_RANK], ys[QK_RANK], dims[QK_RANK];
    if (!size) CU_NO(b, "no CUDA kernel for elements of %s", qx_dtype_get(x->dtype)->text);
    QX_TRY(pad_begins(b, begin));
    cu_strides(x->dims, x->rank, xs);
    cu_strides(y->dims, y->rank, ys);
    a.fill = (qk_fill_args){.n = y->numel, .size = size};
    float v = cu_float(b, "value", 0.0f);
    if (cu_has(b, 2) && b->in[2].bytes <= sizeof a.fill.value) memcpy(&a.fill.value, b->in[2].host, b->in[2].bytes);
    else if (cu_real(x->dtype)) qx_from_f32(x->dtype, &v, 1, &a.fill.value);
    a.pad = (qk_pad_args){.n = y->numel, .rank = x->rank, .size = size,
                          .mode = cu_is(b, "mode", "edge", false) ? 1 : cu_is(b, "mode", "wrap", false) ? 3 : 2};
    for (int i = 0; i < x->rank; i++) { /* a negative pad cuts */
        int64_t from = begin[i] < 0 ? -begin[i] : 0, to = begin[i] > 0 ? begin[i] : 0, left = x->dims[i] - from, room = y->dims[i] - to;
        dims[i] = left < room ? left : room;
        if (dims[i] < 0) dims[i] = 0;
        a.copy.s0 += from * xs[i];
        a.copy.d0 += to * ys[i];
        a.pad.dims[i] = y->dims[i];
        a.pad.in[i] = x->dims[i];
        a.pad.begin[i] = begin[i];
        a.pad.ss[i] = xs[i];
        if (x->dims[i] == 0 && !a.constant) CU_BAD(b, "axis %d is empty", i);
    }
    int64_t s0 = a.copy.s0, d0 = a.copy.d0;
    copy_set(&a.copy, x->rank, dims, xs, ys, size);
    a.copy.s0 = s0;
    a.copy.d0 = d0;
    return cu_step(b, pad_run, &a, sizeof a);
}
const cu_adapter qx_cuda_pad = {shaped_place, pad_compile};

/* ---- gathers ---- */

static qx_status indices_place(const cu_build *b)
{
    QX_TRY(cu_want_plain(b, 0));
    if (b->in[1].dtype && b->in[1].dtype != QX_DT_INT64 && b->in[1].dtype != QX_DT_INT32)
        CU_NO(b, "indices of %s", qx_dtype_get(b->in[1].dtype)->text);
    return QX_OK;
}

static qx_status gather_run(const cu_run *r)
{
    qk_gather_args a = *(const qk_gather_args *)r->args;
    a.x = r->in[0].data;
    a.idx = r->in[1].data;
    a.y = r->out[0].data;
    a.bad = r->d->bad;
    return cu_launched(r->d->m, qk_gather(r->q, &a));
}

static qx_status gather_compile(cu_build *b)
{
    const qx_dev_tensor *x = &b->in[0];
    int axis;
    QX_TRY(cu_axis(b, cu_int(b, "axis", 0), x->rank, &axis));
    const qk_gather_args a = {.outer = cu_prod(x->dims, 0, axis), .d = x->rank ? x->dims[axis] : 1, .count = b->in[1].numel,
                              .inner = cu_prod(x->dims, axis + 1, x->rank),
                              .size = cu_bytes(x->dtype), .wide = b->in[1].dtype == QX_DT_INT64};
    if (!a.size || x->rank == 0) CU_NO(b, "no CUDA kernel for %s of rank %d", qx_dtype_get(x->dtype)->text, x->rank);
    return cu_step(b, gather_run, &a, sizeof a);
}
const cu_adapter qx_cuda_gather = {indices_place, gather_compile};

static qx_status gather_elements_run(const cu_run *r)
{
    qk_gather_elements_args a = *(const qk_gather_elements_args *)r->args;
    a.x = r->in[0].data;
    a.idx = r->in[1].data;
    a.y = r->out[0].data;
    a.bad = r->d->bad;
    return cu_launched(r->d->m, qk_gather_elements(r->q, &a));
}

static qx_status gather_elements_compile(cu_build *b)
{
    const qx_dev_tensor *x = &b->in[0], *y = &b->out[0];
    int axis;
    QX_TRY(cu_axis(b, cu_int(b, "axis", 0), x->rank, &axis));
    qk_gather_elements_args a = {.n = y->numel, .d = x->rank ? x->dims[axis] : 1, .rank = y->rank, .size = cu_bytes(x->dtype),
                                 .wide = b->in[1].dtype == QX_DT_INT64};
    if (!a.size || x->rank == 0 || y->rank != x->rank) CU_NO(b, "no CUDA kernel for %s of rank %d", qx_dtype_get(x->dtype)->text, x->rank);
    cu_strides(x->dims, x->rank, a.ss);
    for (int i = 0; i < y->rank; i++) {
        a.dims[i] = y->dims[i];
        if (i != axis && y->dims[i] > x->dims[i]) CU_BAD(b, "indices reach past axis %d", i);
    }
    a.along = a.ss[axis];
    a.ss[axis] = 0;
    return cu_step(b, gather_elements_run, &a, sizeof a);
}
const cu_adapter qx_cuda_gather_elements = {indices_place, gather_elements_compile};

static qx_status nd_place(const cu_build *b)
{
    QX_TRY(cu_want_plain(b, 0));
    if (b->in[1].dtype && b->in[1].dtype != QX_DT_INT64) CU_NO(b, "indices of %s", qx_dtype_get(b->in[1].dtype)->text);
    if (cu_attr(b, "reduction") && !cu_is(b, "reduction", "none", true)) CU_NO(b, "a scatter that reduces");
    return QX_OK;
}

static qx_status nd_run(const cu_run *r)
{
    qk_nd_args a = *(const qk_nd_args *)r->args;
    a.x = a.scatter ? r->in[2].data : r->in[0].data;
    a.idx = r->in[1].data;
    a.y = r->out[0].data;
    a.bad = r->d->bad;
    if (a.scatter) QX_TRY(cu_copy(r->d->m, a.y, r->in[0].data, r->in[0].bytes));
    return a.batch * a.per_batch * a.inner > 0 ? cu_launched(r->d->m, qk_nd(r->q, &a)) : QX_OK;
}

static qx_status nd_compile(cu_build *b)
{
    const qx_dev_tensor *x = &b->in[0], *idx = &b->in[1];
    int64_t batch_dims = cu_int(b, "batch_dims", 0), depth = idx->rank ? idx->dims[idx->rank - 1] : 0;
    qk_nd_args a = {.size = cu_bytes(x->dtype), .scatter = b->op == QX_OP_ScatterND, .depth = (int32_t)depth};
    int64_t xs[QK_RANK];
    if (!a.size || batch_dims < 0 || batch_dims >= idx->rank || batch_dims + depth > x->rank || depth < 1)
        CU_BAD(b, "tuples of %lld in rank %d", (long long)depth, x->rank);
    cu_strides(x->dims, x->rank, xs);
    a.batch = cu_prod(x->dims, 0, (int)batch_dims);
    a.per_batch = a.batch ? cu_prod(idx->dims, 0, idx->rank - 1) / a.batch : 0;
    a.inner = cu_prod(x->dims, (int)(batch_dims + depth), x->rank);
    a.x_batch = cu_prod(x->dims, (int)batch_dims, x->rank);
    for (int64_t k = 0; k < depth; k++) {
        a.d[k] = x->dims[batch_dims + k];
        a.stride[k] = xs[batch_dims + k];
    }
    return cu_step(b, nd_run, &a, sizeof a);
}
const cu_adapter qx_cuda_nd = {nd_place, nd_compile};

/* unfold.c - values put back where they belong in a larger picture: Col2Im adds up windows, MaxUnpool places maxima, CenterCropPad
 * cuts or surrounds. Plain loops in float, formulas as in the standard. */
#include <string.h>

#include "base/checked.h"
#include "runtime/cpu/op.h"

/* ---- Col2Im ---- */

enum { MOST_DIMS = 4 };
typedef struct windows { /* by dim of the picture; the block has the same number of dims */
    int r;
    int64_t image[MOST_DIMS], block[MOST_DIMS], stride[MOST_DIMS], dilation[MOST_DIMS], before[MOST_DIMS], steps[MOST_DIMS];
    int64_t elements, positions, pixels; /* of a block, of blocks, of the picture */
} windows;

/* How many blocks fit along dim d. Sizes are anybody's numbers. */
static qx_status read_dim(qx_call *c, windows *w, int d, int64_t after)
{
    int64_t room, extent;
    if (w->image[d] <= 0 || w->block[d] <= 0 || w->stride[d] <= 0 || w->dilation[d] <= 0 || w->before[d] < 0 || after < 0)
        QX_CALL_FAIL(c, QX_E_SHAPE, "image, block, stride or dilation of dim %d is not positive, or a pad is negative", d);
    if (!qx_add_i64(w->image[d], w->before[d], &room) || !qx_add_i64(room, after, &room) ||
        !qx_mul_i64(w->dilation[d], w->block[d] - 1, &extent) || extent >= room)
        QX_CALL_FAIL(c, QX_E_SHAPE, "dim %d: %lld elements %lld apart do not fit into %lld", d, (long long)w->block[d],
                     (long long)w->dilation[d], (long long)w->image[d]);
    w->steps[d] = (room - extent - 1) / w->stride[d] + 1;
    if (!qx_mul_i64(w->elements, w->block[d], &w->elements) || !qx_mul_i64(w->positions, w->steps[d], &w->positions) ||
        !qx_mul_i64(w->pixels, w->image[d], &w->pixels))
        QX_CALL_FAIL(c, QX_E_SHAPE, "its blocks or its image have more elements than can be counted");
    return QX_OK;
}

static qx_status read_windows(qx_call *c, windows *w)
{
    const int64_t *image, *block;
    int64_t n, n_block, ns, nd, np;
    QX_TRY(qx_call_in_i64(c, 1, &image, &n));
    QX_TRY(qx_call_in_i64(c, 2, &block, &n_block));
    const int64_t *stride = qx_call_ints(c, "strides", &ns), *dilation = qx_call_ints(c, "dilations", &nd),
                  *pads = qx_call_ints(c, "pads", &np);
    if (n < 1 || n > MOST_DIMS || n_block != n || (stride && ns != n) || (dilation && nd != n) || (pads && np != 2 * n))
        QX_CALL_FAIL(c, QX_E_SHAPE, "image, block, strides, dilations, pads do not agree");
    *w = (windows){.r = (int)n, .elements = 1, .positions = 1, .pixels = 1};
    for (int d = 0; d < w->r; d++) {
        w->image[d] = image[d];
        w->block[d] = block[d];
        w->stride[d] = stride ? stride[d] : 1;
        w->dilation[d] = dilation ? dilation[d] : 1;
        w->before[d] = pads ? pads[d] : 0;
        QX_TRY(read_dim(c, w, d, pads ? pads[n + d] : 0));
    }
    return QX_OK;
}

/* The pixel of an element of the block at a position; -1: in the padding. */
static int64_t pixel_of(const windows *w, int64_t element, int64_t position)
{
    int64_t flat = 0, mul = 1;
    for (int d = w->r - 1; d >= 0; d--) {
        const int64_t p = position % w->steps[d] * w->stride[d] + element % w->block[d] * w->dilation[d] - w->before[d];
        if (p < 0 || p >= w->image[d]) return -1;
        position /= w->steps[d];
        element /= w->block[d];
        flat += p * mul;
        mul *= w->image[d];
    }
    return flat;
}

qx_status qx_cpu_col2im(qx_call *c)
{
    const qx_tensor *x;
    const float *xf;
    int64_t dims[2 + MOST_DIMS];
    windows w;
    float *y;
    QX_TRY(qx_call_rank(c, 0, 3, &x));
    QX_TRY(qx_call_in_f32(c, 0, &xf));
    QX_TRY(read_windows(c, &w));
    if (x->dims[1] % w.elements || x->dims[2] != w.positions)
        QX_CALL_FAIL(c, QX_E_SHAPE, "input [%lld, %lld] for %lld block elements and %lld positions", (long long)x->dims[1],
                     (long long)x->dims[2], (long long)w.elements, (long long)w.positions);
    dims[0] = x->dims[0];
    dims[1] = x->dims[1] / w.elements;
    memcpy(dims + 2, w.image, (size_t)w.r * sizeof *dims);
    QX_TRY(qx_call_out_f32(c, 0, x->dtype, w.r + 2, dims, &y));
    const int64_t pictures = dims[0] * dims[1];
    memset(y, 0, (size_t)(pictures * w.pixels) * sizeof *y);
    for (int64_t nc = 0; nc < pictures; nc++, y += w.pixels)
        for (int64_t k = 0; k < w.elements; k++)
            for (int64_t t = 0; t < w.positions; t++, xf++) {
                const int64_t at = pixel_of(&w, k, t);
                if (at >= 0) y[at] += *xf;
            }
    return QX_OK;
}

/* ---- CenterCropPad ---- */

qx_status qx_cpu_center_crop_pad(qx_call *c)
{
    const qx_tensor *x;
    const int64_t *shape, *axes;
    int64_t n_shape, n_axes, dims[QX_MAX_RANK], src[QX_MAX_RANK] = {0}, dst[QX_MAX_RANK] = {0}, len[QX_MAX_RANK], sx[QX_MAX_RANK],
        sy[QX_MAX_RANK];
    qx_tensor *y;
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_in_i64(c, 1, &shape, &n_shape));
    axes = qx_call_ints(c, "axes", &n_axes);
    const size_t elem = (size_t)qx_dtype_bits((int)x->dtype) / 8;
    if ((axes ? n_axes : x->rank) != n_shape || !elem)
        QX_CALL_FAIL(c, QX_E_SHAPE, "%lld sizes for %lld axes", (long long)n_shape, (long long)(axes ? n_axes : x->rank));
    memcpy(dims, x->dims, sizeof dims);
    memcpy(len, x->dims, sizeof len);
    for (int64_t i = 0; i < n_shape; i++) {
        int a;
        QX_TRY(qx_call_axis(c, axes ? axes[i] : i, x->rank, &a));
        if (shape[i] < 0) QX_CALL_FAIL(c, QX_E_SHAPE, "size %lld", (long long)shape[i]);
        dims[a] = shape[i];
        len[a] = shape[i] < x->dims[a] ? shape[i] : x->dims[a];
        src[a] = (x->dims[a] - len[a]) / 2;
        dst[a] = (shape[i] - len[a]) / 2;
    }
    QX_TRY(qx_call_out(c, 0, x->dtype, x->rank, dims, &y));
    memset(y->data, 0, y->bytes);
    qx_strides(x->dims, x->rank, sx);
    qx_strides(dims, x->rank, sy);
    const int64_t n = qx_prod(len, 0, x->rank);
    for (int64_t i = 0; i < n; i++) {
        int64_t rest = i, from = 0, to = 0;
        for (int d = x->rank - 1; d >= 0; d--) {
            const int64_t p = rest % len[d];
            rest /= len[d];
            from += (src[d] + p) * sx[d];
            to += (dst[d] + p) * sy[d];
        }
        memcpy((char *)y->data + (size_t)to * elem, (const char *)x->data + (size_t)from * elem, elem);
    }
    return QX_OK;
}

/* ---- MaxUnpool ---- */

static int64_t unpool_dim(const qx_tensor *x, int d, const int64_t *kernel, const int64_t *stride, const int64_t *pads, int nd)
{
    return (x->dims[2 + d] - 1) * (stride ? stride[d] : 1) + kernel[d] - (pads ? pads[d] + pads[nd + d] : 0);
}

qx_status qx_cpu_max_unpool(qx_call *c)
{
    const qx_tensor *x, *idx;
    const float *xf;
    const int64_t *at, *shape, *kernel, *stride, *pads;
    int64_t n_at, n_shape, nk, ns, np, dims[QX_MAX_RANK], own[QX_MAX_RANK], p[QX_MAX_RANK];
    float *y;
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_need(c, 1, &idx));
    QX_TRY(qx_call_in_f32(c, 0, &xf));
    QX_TRY(qx_call_in_i64(c, 1, &at, &n_at));
    QX_TRY(qx_call_in_i64(c, 2, &shape, &n_shape));
    kernel = qx_call_ints(c, "kernel_shape", &nk);
    stride = qx_call_ints(c, "strides", &ns);
    pads = qx_call_ints(c, "pads", &np);
    const int nd = x->rank - 2;
    if (nd < 1 || nk != nd || n_at != x->numel || (stride && ns != nd) || (pads && np != 2 * nd) || (shape && n_shape != x->rank))
        QX_CALL_FAIL(c, QX_E_SHAPE, "inputs and attributes do not fit");
    own[0] = dims[0] = x->dims[0];
    own[1] = dims[1] = x->dims[1];
    for (int d = 0; d < nd; d++) {
        own[2 + d] = unpool_dim(x, d, kernel, stride, pads, nd);
        dims[2 + d] = shape ? shape[2 + d] : own[2 + d];
        if (own[2 + d] <= 0 || dims[2 + d] < own[2 + d])
            QX_CALL_FAIL(c, QX_E_SHAPE, "output dim %d is %lld, unpooling needs %lld", 2 + d, (long long)dims[2 + d],
                         (long long)own[2 + d]);
    }
    QX_TRY(qx_call_out_f32(c, 0, x->dtype, x->rank, dims, &y));
    const int64_t n_own = qx_prod(own, 0, x->rank), n_out = qx_prod(dims, 0, x->rank);
    memset(y, 0, (size_t)n_out * sizeof *y);
    for (int64_t i = 0; i < x->numel; i++) {
        int64_t rest = at[i], to = 0;
        if (at[i] < 0 || at[i] >= n_own) QX_CALL_FAIL(c, QX_E_SHAPE, "index %lld of %lld", (long long)at[i], (long long)n_own);
        for (int d = x->rank - 1; d >= 0; d--, rest /= own[d + 1]) p[d] = rest % own[d];
        for (int d = 0; d < x->rank; d++) to = to * dims[d] + p[d];
        y[to] = xf[i];
    }
    return QX_OK;
}

/* resize.c - adapter of Resize (nearest and linear): the source positions and weights of every output position are worked out on
 * the host, as runtime/cpu/picture/resize.c does, and lie with the step on the device. */
#include <math.h>
#include <string.h>

#include "runtime/cuda/node.h"

typedef struct args { qk_resize_args r; bool linear; } args;

static qx_status place(const cu_build *b)
{
    bool nearest = cu_is(b, "mode", "nearest", true), linear = cu_is(b, "mode", "linear", false);
    if (!nearest && !linear) CU_NO(b, "this mode of interpolation");
    if (cu_is(b, "coordinate_transformation_mode", "tf_crop_and_resize", false) || cu_int(b, "antialias", 0) ||
        cu_int(b, "exclude_outside", 0) || cu_attr(b, "axes") ||
        !cu_is(b, "keep_aspect_ratio_policy", "stretch", true))
        CU_NO(b, "cropping, antialiasing, axes or a kept aspect ratio");
    QX_TRY(nearest ? cu_want_plain(b, 0) : cu_want_real(b, 0));
    return cu_host_in(b, 1, 3);
}

static double source_at(const cu_build *b, int64_t i, int64_t in, int64_t out, double scale)
{
    double length = scale * (double)in, x = (double)i;
    const qx_dev_attr *a = cu_attr(b, "coordinate_transformation_mode");
    const char *mode = a && a->kind == QX_DEV_STRING ? a->s : "half_pixel";
    if (b->node->version < 11 || strcmp(mode, "asymmetric") == 0) return x / scale;
    if (strcmp(mode, "align_corners") == 0) return length <= 1 ? 0 : x * (double)(in - 1) / (length - 1);
    if (strcmp(mode, "pytorch_half_pixel") == 0) return length <= 1 ? 0 : (x + 0.5) / scale - 0.5;
    if (strcmp(mode, "tf_half_pixel_for_nn") == 0) return (x + 0.5) / scale;
    if (strcmp(mode, "half_pixel_symmetric") == 0) return (double)in / 2 * (1 - (double)out / length) + (x + 0.5) / scale - 0.5;
    return (x + 0.5) / scale - 0.5;
}

static int64_t nearest_of(const cu_build *b, double x)
{
    if (b->node->version < 11 || cu_is(b, "nearest_mode", "floor", false)) return (int64_t)floor(x);
    if (cu_is(b, "nearest_mode", "ceil", false)) return (int64_t)ceil(x);
    if (cu_is(b, "nearest_mode", "round_prefer_ceil", false)) return (int64_t)floor(x + 0.5);
    return (int64_t)ceil(x - 0.5);
}

static int32_t clamp(int64_t v, int64_t n) { return (int32_t)(v < 0 ? 0 : v >= n ? n - 1 : v); }

/* Tables of one axis: first and second position, weight of the second. */
static void fill(const cu_build *b, int64_t in, int64_t out, double scale, bool linear, int32_t *i0, int32_t *i1, float *w)
{
    for (int64_t i = 0; i < out; i++) {
        double x = source_at(b, i, in, out, scale);
        int64_t first = linear ? (int64_t)floor(x) : nearest_of(b, x);
        i0[i] = clamp(first, in);
        i1[i] = clamp(first + 1, in);
        w[i] = (float)(x - floor(x));
    }
}

static qx_status scale_of(const cu_build *b, int axis, double *out)
{
    uint32_t at = b->node->version < 11 ? 1 : 2;
    *out = (double)b->out[0].dims[axis] / (double)b->in[0].dims[axis];
    if (!cu_has(b, at) || b->in[at].numel == 0) return QX_OK;
    if (b->in[at].dtype != QX_DT_FLOAT || b->in[at].numel != b->in[0].rank)
        CU_BAD(b, "%lld scales for rank %d", (long long)b->in[at].numel, b->in[0].rank);
    *out = (double)((const float *)b->in[at].host)[axis];
    if (!(*out > 0)) CU_BAD(b, "scale %g of axis %d", *out, axis);
    return QX_OK;
}

static qx_status run(const cu_run *r)
{
    qk_resize_args a = ((const args *)r->args)->r;
    a.x = r->in[0].data;
    a.y = r->out[0].data;
    return cu_launched(r->d->m, qk_resize(r->q, &a));
}

static qx_status tables(cu_build *b, args *p, int keep)
{
    const qx_dev_tensor *x = &b->in[0], *y = &b->out[0];
    int64_t total = 3;
    for (int i = keep; i < x->rank; i++) total += y->dims[i];
    int32_t *host = NULL;
    void *dev;
    QX_TRY(qx_alloc_array(b->d->ctx, (size_t)(3 * total), sizeof *host, (void **)&host));
    int64_t at = 0, off[3], len[3];
    qx_status st = QX_OK;
    for (int k = 0; k < 3 && st == QX_OK; k++) { /* missing axes are one element */
        int axis = x->rank - 3 + k;
        bool there = axis >= keep;
        double scale = 1;
        p->r.in[k] = there ? x->dims[axis] : 1;
        p->r.out[k] = len[k] = there ? y->dims[axis] : 1;
        off[k] = at;
        if (there) st = scale_of(b, axis, &scale);
        fill(b, p->r.in[k], len[k], scale, p->linear, host + at, host + at + len[k], (float *)(void *)(host + at + 2 * len[k]));
        if (!there) *(float *)(void *)(host + at + 2 * len[k]) = 0;
        at += 3 * len[k];
    }
    if (st == QX_OK) st = cu_step_memory(b, host, (size_t)at * sizeof *host, &dev);
    qx_free(b->d->ctx, host);
    for (int k = 0; k < 3 && st == QX_OK; k++) {
        const int32_t *t = (const int32_t *)dev + off[k];
        p->r.i0[k] = t;
        p->r.i1[k] = t + len[k];
        p->r.w[k] = p->linear ? (const float *)(const void *)(t + 2 * len[k]) : NULL;
    }
    return st;
}

static qx_status compile(cu_build *b)
{
    const qx_dev_tensor *x = &b->in[0], *y = &b->out[0];
    args p = {.r = {.dtype = x->dtype, .size = cu_bytes(x->dtype)}, .linear = cu_is(b, "mode", "linear", false)};
    int keep = 0;
    if (x->rank != y->rank || x->numel == 0) CU_BAD(b, "rank %d to rank %d", x->rank, y->rank);
    while (keep < x->rank && (x->dims[keep] == y->dims[keep] || x->rank - keep > 3)) keep++;
    for (int i = 0; i < keep; i++)
        if (x->dims[i] != y->dims[i]) CU_NO(b, "resizing axis %d of rank %d", i, x->rank);
    if (p.linear && !cu_real(x->dtype)) CU_NO(b, "no CUDA kernel for elements of %s", qx_dtype_get(x->dtype)->text);
    p.r.planes = cu_prod(x->dims, 0, keep);
    QX_TRY(tables(b, &p, keep));
    return cu_step(b, run, &p, sizeof p);
}
const cu_adapter qx_cuda_resize = {place, compile};

/* conv.c - adapters of convolutions, of reals and of integer codes. cuDNN where it has an engine; else patches as rows (kernels/cuda/conv.cu) and a product a
 * picture and group. */
#include <string.h>

#include "runtime/cuda/lib.h"
#include "runtime/fuse.h"

static qx_status list3(const cu_build *b, const char *name, int n, int64_t fallback, int64_t min, int64_t *out)
{
    int64_t count;
    const int64_t *v = cu_ints(b, name, &count);
    if (v && count != n) CU_BAD(b, "%s has %lld entries for %d spatial axes", name, (long long)count, n);
    for (int i = 0; i < 3; i++) {
        out[i] = i < n ? (v ? v[i] : fallback) : min;
        if (out[i] < min || out[i] > INT32_MAX) CU_BAD(b, "%s entry %d is %lld", name, i, (long long)out[i]);
    }
    return QX_OK;
}

static qx_status pads(const cu_build *b, cu_conv *c)
{
    int64_t n;
    const int64_t *given = cu_ints(b, "pads", &n);
    bool lower = cu_is(b, "auto_pad", "SAME_LOWER", false), same = lower || cu_is(b, "auto_pad", "SAME_UPPER", false), valid = cu_is(b, "auto_pad", "VALID", false);
    if (given && n != 2 * c->spatial) CU_BAD(b, "pads has %lld entries for %d spatial axes", (long long)n, c->spatial);
    for (int i = 0; i < c->spatial; i++) {
        int64_t span = (c->kernel[i] - 1) * c->dilation[i] + 1, total = ((c->in[i] + c->stride[i] - 1) / c->stride[i] - 1) * c->stride[i] + span - c->in[i];
        c->begin[i] = given && !valid ? given[i] : 0;
        c->end[i] = given && !valid ? given[i + c->spatial] : 0;
        if (same) {
            total = total < 0 ? 0 : total;
            c->begin[i] = lower ? total - total / 2 : total / 2;
            c->end[i] = total - c->begin[i];
        }
        if (c->begin[i] < 0 || c->end[i] < 0 || c->in[i] + c->begin[i] + c->end[i] < span) CU_BAD(b, "kernel spans %lld of axis %d of %lld", (long long)span, i, (long long)c->in[i]);
    }
    return QX_OK;
}

/* Dims of x, w, y into the form of up to three spatial axes (missing ones: one element). */
static qx_status describe(const cu_build *b, const qx_dev_tensor *x, const qx_dev_tensor *w, cu_conv *c)
{
    const qx_dev_tensor *y = &b->out[0];
    *c = (cu_conv){.spatial = x->rank - 2, .group = cu_int(b, "group", 1)};
    if (x->rank < 3 || x->rank > 5 || w->rank != x->rank || y->rank != x->rank) CU_NO(b, "a convolution of rank %d", x->rank);
    c->batch = x->dims[0];
    c->in_ch = x->dims[1];
    c->out_ch = w->dims[0];
    if (c->group < 1 || c->in_ch % c->group || c->out_ch % c->group || w->dims[1] != c->in_ch / c->group) CU_BAD(b, "%lld channels by a weight of %lld in %lld groups", (long long)c->in_ch, (long long)w->dims[1], (long long)c->group);
    QX_TRY(list3(b, "strides", c->spatial, 1, 1, c->stride));
    QX_TRY(list3(b, "dilations", c->spatial, 1, 1, c->dilation));
    for (int i = 0; i < 3; i++) {
        bool there = i < c->spatial;
        c->in[i] = there ? x->dims[2 + i] : 1;
        c->out[i] = there ? y->dims[2 + i] : 1;
        c->kernel[i] = there ? w->dims[2 + i] : 1;
    }
    return pads(b, c);
}

typedef struct conv_args { qk_im2col_args cols; qk_gemm_args g; qk_int8_args i8; cu_conv c; int64_t k, pixels; int bias; bool codes; const cu_conv_plan *plan; } conv_args;

static qk_im2col_args columns_of(const cu_conv *c, int size, int zero)
{
    qk_im2col_args a = {.batch = 1, .channels = c->in_ch, .group_channels = c->in_ch / c->group, .spatial = c->spatial, .size = size, .zero = zero};
    memcpy(a.in, c->in, sizeof a.in);
    memcpy(a.out, c->out, sizeof a.out);
    memcpy(a.kernel, c->kernel, sizeof a.kernel);
    memcpy(a.stride, c->stride, sizeof a.stride);
    memcpy(a.dilation, c->dilation, sizeof a.dilation);
    memcpy(a.begin, c->begin, sizeof a.begin);
    return a;
}

/* One picture and group: its patches, then the product with the group's weight, written as [out channels, pixels]. */
static qx_status one_part(const cu_run *r, const conv_args *p, int64_t image, int64_t group, const void *x, const void *w, const void *bias)
{
    const cu_conv *c = &p->c;
    const int64_t per = c->out_ch / c->group, first = group * per;
    const size_t esize = (size_t)p->cols.size, ysize = (size_t)cu_bytes(r->out[0].dtype);
    qk_im2col_args cols = p->cols;
    cols.x = (const char *)x + (size_t)(image * c->in_ch * c->in[0] * c->in[1] * c->in[2]) * esize;
    cols.y = r->ws;
    cols.first_channel = group * cols.group_channels;
    QX_TRY(cu_launched(r->d->m, qk_im2col(r->q, &cols)));
    const void *wg = (const char *)w + (size_t)(first * p->k) * esize;
    const void *bg = bias ? (const char *)bias + (size_t)first * (size_t)cu_bytes(p->codes ? p->i8.btype : p->g.btype) : NULL;
    void *y = (char *)r->out[0].data + (size_t)((image * c->out_ch + first) * p->pixels) * ysize;
    if (!p->codes) {
        qk_gemm_args g = p->g;
        g.x = r->ws;
        g.w = wg;
        g.bias = bg;
        g.y = y;
        return cu_launched(r->d->m, qk_gemm(r->q, &g));
    }
    qk_int8_args a = p->i8;
    a.x = r->ws;
    a.w = wg;
    a.bias = bg;
    a.y = y;
    a.sw += a.sw_one ? 0 : first;
    return cu_launched(r->d->m, qk_int8_gemm(r->q, &a));
}

static qx_status conv_run(const cu_run *r)
{
    const conv_args *p = r->args;
    const void *x = r->in[0].data, *w = r->in[p->codes ? QX_INT8_W : 1].data, *bias = p->bias ? r->in[p->bias].data : NULL;
    if (p->plan) return cu_conv_run(r->d, p->plan, x, w, bias, r->out[0].data, r->ws);
    for (int64_t i = 0; i < p->c.batch; i++)
        for (int64_t g = 0; g < p->c.group; g++) QX_TRY(one_part(r, p, i, g, x, w, bias));
    return QX_OK;
}

static qx_status own_conv(cu_build *b, conv_args *p, int size, int zero)
{
    const cu_conv *c = &p->c;
    p->cols = columns_of(c, size, zero);
    p->pixels = c->out[0] * c->out[1] * c->out[2];
    p->k = c->in_ch / c->group * c->kernel[0] * c->kernel[1] * c->kernel[2];
    b->step->workspace = (size_t)(p->pixels * p->k) * (size_t)size;
    b->step->kernel = "patches";
    return cu_step(b, conv_run, p, sizeof *p);
}

static qx_status conv_place(const cu_build *b)
{
    QX_TRY(cu_want_real(b, 0));
    return cu_want_real(b, 1);
}

static qx_status conv_compile(cu_build *b)
{
    const qx_dev_tensor *x = &b->in[0], *w = &b->in[1];
    conv_args p = {.bias = cu_has(b, 2) ? 2 : 0};
    QX_TRY(describe(b, x, w, &p.c));
    if (!cu_real(x->dtype) || w->dtype != x->dtype || (p.bias && (b->in[2].numel != p.c.out_ch || b->in[2].dtype != x->dtype)))
        CU_NO(b, "a convolution of %s by %s", qx_dtype_get(x->dtype)->text, qx_dtype_get(w->dtype)->text);
    p.c.type = x->dtype;
    p.c.has_bias = p.bias != 0;
    cu_conv_plan *plan = NULL;
    bool taken = false;
    QX_TRY(cu_conv_new(b->d, &p.c, &plan, &b->step->workspace, &taken));
    if (taken) {
        cu_step_plan(b, plan, cu_conv_free, "cuDNN");
        p.plan = plan;
        return cu_step(b, conv_run, &p, sizeof p);
    }
    int64_t pixels = p.c.out[0] * p.c.out[1] * p.c.out[2], k = p.c.in_ch / p.c.group * p.c.kernel[0] * p.c.kernel[1] * p.c.kernel[2];
    p.g = (qk_gemm_args){.m = pixels, .n = p.c.out_ch / p.c.group, .k = k, .batch = 1, .xr = k, .xc = 1, .wr = 1, .wc = k, .yr = 1, .yc = pixels, .dtype = x->dtype, .wtype = x->dtype,
                         .ytype = b->out[0].dtype, .btype = x->dtype, .alpha = 1};
    return own_conv(b, &p, cu_bytes(x->dtype), 0);
}
const cu_adapter qx_cuda_conv = {conv_place, conv_compile};

/* ---- integer codes: the plan's Int8Linear (runtime/fuse.h); products in lowp.c ---- */

static qx_status int8_conv(cu_build *b, qk_int8_args *a)
{
    const qx_dev_tensor *x = &b->in[QX_INT8_X], *w = &b->in[QX_INT8_W];
    conv_args p = {.codes = true, .bias = cu_has(b, QX_INT8_BIAS) ? QX_INT8_BIAS : 0};
    QX_TRY(describe(b, x, w, &p.c));
    if (p.bias && b->in[p.bias].numel != p.c.out_ch) CU_NO(b, "bias of %lld elements for %lld channels", (long long)b->in[p.bias].numel, (long long)p.c.out_ch);
    bool one;
    float sx;
    QX_TRY(cu_codes_scales(b, p.c.out_ch, &a->sw, &one, &sx));
    a->sw_one = one;
    a->sx = 1;
    a->zx = cu_codes_zero(b);
    int64_t pixels = p.c.out[0] * p.c.out[1] * p.c.out[2], k = p.c.in_ch / p.c.group * p.c.kernel[0] * p.c.kernel[1] * p.c.kernel[2];
    p.i8 = *a;
    p.i8.m = pixels;
    p.i8.n = p.c.out_ch / p.c.group;
    p.i8.k = k;
    p.i8.wr = 1;
    p.i8.wc = k;
    p.i8.yr = 1;
    p.i8.yc = pixels;
    return own_conv(b, &p, 1, a->zx & 0xff);
}

static qx_status int8_compile(cu_build *b)
{
    const int x = b->in[QX_INT8_X].dtype, w = b->in[QX_INT8_W].dtype;
    if (cu_int(b, "kind", 0) != QX_INT8_CONV) return cu_int8_product(b);
    if ((x != QX_DT_INT8 && x != QX_DT_UINT8) || w != QX_DT_INT8 || !cu_real(b->out[0].dtype) || (cu_has(b, QX_INT8_BIAS) && !cu_real(b->in[QX_INT8_BIAS].dtype)))
        CU_NO(b, "codes of %s by %s", qx_dtype_get(x)->text, qx_dtype_get(w)->text);
    qk_int8_args a = {.x_unsigned = x == QX_DT_UINT8, .ytype = b->out[0].dtype, .btype = cu_has(b, QX_INT8_BIAS) ? b->in[QX_INT8_BIAS].dtype : 0};
    return int8_conv(b, &a);
}
extern const cu_adapter cu_int8_linear;
const cu_adapter cu_int8_linear = {cu_codes_place, int8_compile};

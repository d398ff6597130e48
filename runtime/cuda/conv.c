/* conv.c - adapters of convolutions, of reals and of integer codes. cuDNN where it has an engine; else patches as rows
 * (kernels/cuda/conv.cu) and a product a picture and group. */
#include <string.h>

#include "runtime/cuda/lib.h"
#include "runtime/fuse/fuse.h"

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
    bool lower = cu_is(b, "auto_pad", "SAME_LOWER", false), same = lower || cu_is(b, "auto_pad", "SAME_UPPER", false),
        valid = cu_is(b, "auto_pad", "VALID", false);
    if (given && n != 2 * c->spatial) CU_BAD(b, "pads has %lld entries for %d spatial axes", (long long)n, c->spatial);
    for (int i = 0; i < c->spatial; i++) {
        int64_t span = (c->kernel[i] - 1) * c->dilation[i] + 1, total =
            ((c->in[i] + c->stride[i] - 1) / c->stride[i] - 1) * c->stride[i] + span - c->in[i];
        c->begin[i] = given && !valid ? given[i] : 0;
        c->end[i] = given && !valid ? given[i + c->spatial] : 0;
        if (same) {
            total = total < 0 ? 0 : total;
            c->begin[i] = lower ? total - total / 2 : total / 2;
            c->end[i] = total - c->begin[i];
        }
        if (c->begin[i] < 0 || c->end[i] < 0 || c->in[i] + c->begin[i] + c->end[i] < span)
            CU_BAD(b, "kernel spans %lld of axis %d of %lld", (long long)span, i, (long long)c->in[i]);
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
    if (c->group < 1 || c->in_ch % c->group || c->out_ch % c->group || w->dims[1] != c->in_ch / c->group)
        CU_BAD(b, "%lld channels by a weight of %lld in %lld groups", (long long)c->in_ch, (long long)w->dims[1], (long long)c->group);
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

/* w, bias, x_zero, w_zero: input numbers, 0: none; the zero points are codes that are known on the device only. */
typedef struct conv_args {
    qk_im2col_args cols;
    qk_gemm_args g;
    qk_int8_args i8;
    cu_conv c;
    int64_t k, pixels;
    uint32_t w, bias, x_zero, w_zero;
    bool codes, fp8;
} conv_args;

static qk_im2col_args columns_of(const cu_conv *c, int size, int zero)
{
    qk_im2col_args a = {.batch = 1, .channels = c->in_ch, .group_channels = c->in_ch / c->group, .spatial = c->spatial, .size = size,
                        .zero = zero};
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
    cols.zero_at = p->x_zero ? r->in[p->x_zero].data : NULL;
    QX_TRY(cu_launched(r->d->m, qk_im2col(r->q, &cols)));
    const void *wg = (const char *)w + (size_t)(first * p->k) * esize;
    const void *bg = bias ? (const char *)bias + (size_t)first * (size_t)cu_bytes(p->g.btype) : NULL;
    void *y = (char *)r->out[0].data + (size_t)((image * c->out_ch + first) * p->pixels) * ysize;
    if (!p->codes || p->fp8) {
        qk_gemm_args g = p->g;
        if (g.col_scale && !g.col_one) g.col_scale += first;
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
    a.x_zero = cols.zero_at;
    a.w_zero = p->w_zero ? (const char *)r->in[p->w_zero].data + (a.w_zeros > 1 ? first : 0) : NULL;
    if (a.sw && !a.sw_one) a.sw += first;
    return cu_launched(r->d->m, qk_int8_gemm(r->q, &a));
}

static qx_status conv_run(const cu_run *r)
{
    const conv_args *p = r->args;
    const void *x = r->in[0].data, *w = r->in[p->w].data, *bias = p->bias ? r->in[p->bias].data : NULL;
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
    conv_args p = {.w = 1, .bias = cu_has(b, 2) ? 2u : 0};
    QX_TRY(describe(b, x, w, &p.c));
    if (!cu_real(x->dtype) || w->dtype != x->dtype || (p.bias && (b->in[2].numel != p.c.out_ch || b->in[2].dtype != x->dtype)))
        CU_NO(b, "a convolution of %s by %s", qx_dtype_get(x->dtype)->text, qx_dtype_get(w->dtype)->text);
    bool taken;
    cu_lib_conv q = {.c = p.c, .x = 0, .w = 1, .bias = p.bias};
    q.c.type = q.c.ytype = x->dtype;
    QX_TRY(cu_conv_by_library(b, &q, &taken));
    if (taken) return QX_OK;
    int64_t pixels = p.c.out[0] * p.c.out[1] * p.c.out[2], k = p.c.in_ch / p.c.group * p.c.kernel[0] * p.c.kernel[1] * p.c.kernel[2];
    p.g = (qk_gemm_args){.m = pixels, .n = p.c.out_ch / p.c.group, .k = k, .batch = 1, .xr = k, .xc = 1, .wr = 1, .wc = k, .yr = 1,
                         .yc = pixels, .dtype = x->dtype, .wtype = x->dtype,
                         .ytype = b->out[0].dtype, .btype = x->dtype, .alpha = 1};
    return own_conv(b, &p, cu_bytes(x->dtype), 0);
}
const cu_adapter qx_cuda_conv = {conv_place, conv_compile};

/* ---- codes: the plan's Int8Linear and Fp8Linear (runtime/fuse/fuse.h); products in lowp.c ---- */

/* Our own: E4M3 goes through the product of any types, integers through theirs. */
static void own_product(const cu_build *b, conv_args *p, const cu_lib_conv *q, int64_t pixels, int64_t k)
{
    const int64_t n = p->c.out_ch / p->c.group;
    const int btype = p->bias ? b->in[p->bias].dtype : 0, ytype = b->out[0].dtype;
    p->i8 = (qk_int8_args){.m = pixels, .n = n, .k = k, .wr = 1, .wc = k, .yr = 1, .yc = pixels,
                           .x_unsigned = b->in[q->x].dtype == QX_DT_UINT8, .zx = q->zero + (q->flip ? 128 : 0), .ytype = ytype,
                           .btype = btype, .sw = q->scale, .sw_one = q->one, .batch = 1};
    p->g = (qk_gemm_args){.m = pixels, .n = n, .k = k, .batch = 1, .xr = k, .xc = 1, .wr = 1, .wc = k, .yr = 1, .yc = pixels,
                          .dtype = b->in[q->x].dtype, .wtype = b->in[q->w].dtype, .ytype = ytype,
                          .btype = btype, .alpha = 1, .col_scale = q->scale, .col_one = q->one};
}

static qx_status codes_conv(cu_build *b, bool fp8)
{
    const qx_dev_tensor *x = &b->in[QX_INT8_X], *w = &b->in[QX_INT8_W];
    conv_args p = {.codes = true, .fp8 = fp8, .w = QX_INT8_W, .bias = cu_has(b, QX_INT8_BIAS) ? QX_INT8_BIAS : 0};
    cu_lib_conv q = {.x = QX_INT8_X, .w = QX_INT8_W, .bias = p.bias, .flip = x->dtype == QX_DT_UINT8};
    bool taken;
    float sx;
    QX_TRY(describe(b, x, w, &p.c));
    if (!cu_real(b->out[0].dtype) || (p.bias && (!cu_real(b->in[p.bias].dtype) || b->in[p.bias].numel != p.c.out_ch)))
        CU_NO(b, "a result of %s, a bias of %lld elements for %lld channels", qx_dtype_get(b->out[0].dtype)->text,
              p.bias ? (long long)b->in[p.bias].numel : 0LL, (long long)p.c.out_ch);
    QX_TRY(cu_codes_scales(b, p.c.out_ch, &q.scale, &q.one, &sx));
    q.zero = fp8 ? 0 : cu_codes_zero(b) - (q.flip ? 128 : 0);
    q.c = p.c;
    q.c.type = fp8 ? QX_DT_FLOAT8E4M3FN : QX_DT_INT8;
    q.c.ytype = b->out[0].dtype;
    QX_TRY(cu_conv_by_library(b, &q, &taken));
    if (taken) return QX_OK;
    const int64_t pixels = cu_prod(p.c.out, 0, 3), k = p.c.in_ch / p.c.group * cu_prod(p.c.kernel, 0, 3);
    own_product(b, &p, &q, pixels, k);
    return own_conv(b, &p, 1, p.fp8 ? 0 : p.i8.zx & 0xff);
}

/* ---- ConvInteger: the INT32 sums themselves, by our own ---- */

enum { INTEGER_W = 1, INTEGER_X_ZERO, INTEGER_W_ZERO };
static bool code8(int dtype) { return dtype == QX_DT_INT8 || dtype == QX_DT_UINT8; }

static qx_status integer_place(const cu_build *b)
{
    for (uint32_t i = 0; i < 2; i++)
        if (b->in[i].dtype && !code8(b->in[i].dtype)) CU_NO(b, "codes of %s", qx_dtype_get(b->in[i].dtype)->text);
    return QX_OK;
}

static qx_status integer_compile(cu_build *b)
{
    const qx_dev_tensor *x = &b->in[0], *w = &b->in[INTEGER_W];
    conv_args p = {.codes = true, .w = INTEGER_W, .x_zero = cu_has(b, INTEGER_X_ZERO) ? INTEGER_X_ZERO : 0,
                   .w_zero = cu_has(b, INTEGER_W_ZERO) ? INTEGER_W_ZERO : 0};
    if (!code8(x->dtype) || !code8(w->dtype)) CU_NO(b, "codes of %s by %s", qx_dtype_get(x->dtype)->text, qx_dtype_get(w->dtype)->text);
    QX_TRY(describe(b, x, w, &p.c));
    const int64_t pixels = cu_prod(p.c.out, 0, 3), k = p.c.in_ch / p.c.group * cu_prod(p.c.kernel, 0, 3),
        zeros = p.w_zero ? b->in[p.w_zero].numel : 1;
    if ((p.x_zero && b->in[p.x_zero].numel != 1) || (zeros != 1 && zeros != p.c.out_ch))
        CU_BAD(b, "%lld zero points for %lld channels", (long long)zeros, (long long)p.c.out_ch);
    p.i8 = (qk_int8_args){.m = pixels, .n = p.c.out_ch / p.c.group, .k = k, .batch = 1, .wr = 1, .wc = k, .yr = 1, .yc = pixels,
                          .x_zeros = 1, .w_zeros = zeros, .x_unsigned = x->dtype == QX_DT_UINT8,
                          .w_unsigned = w->dtype == QX_DT_UINT8};
    return own_conv(b, &p, 1, 0);
}
const cu_adapter qx_cuda_conv_integer = {integer_place, integer_compile};

static qx_status int8_compile(cu_build *b)
{
    const int x = b->in[QX_INT8_X].dtype, w = b->in[QX_INT8_W].dtype;
    if ((x != QX_DT_INT8 && x != QX_DT_UINT8) || w != QX_DT_INT8)
        CU_NO(b, "codes of %s by %s", qx_dtype_get(x)->text, qx_dtype_get(w)->text);
    return cu_int(b, "kind", 0) == QX_INT8_CONV ? codes_conv(b, false) : cu_codes_product(b, false);
}
extern const cu_adapter cu_int8_linear;
const cu_adapter cu_int8_linear = {cu_codes_place, int8_compile};

static qx_status fp8_compile(cu_build *b)
{
    const int x = b->in[QX_INT8_X].dtype, w = b->in[QX_INT8_W].dtype;
    if (x != QX_DT_FLOAT8E4M3FN || w != QX_DT_FLOAT8E4M3FN) CU_NO(b, "codes of %s by %s", qx_dtype_get(x)->text, qx_dtype_get(w)->text);
    if (cu_int(b, "blocked", 0)) return cu_blocks_product(b);
    return cu_int(b, "kind", 0) == QX_INT8_CONV ? codes_conv(b, true) : cu_codes_product(b, true);
}
extern const cu_adapter cu_fp8_linear;
const cu_adapter cu_fp8_linear = {cu_codes_place, fp8_compile};

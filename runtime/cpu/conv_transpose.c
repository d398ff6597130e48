/* conv_transpose.c - ConvTranspose: every input element adds its kernel to the output. 1 to 3 spatial axes, groups, dilation, output padding. */
#include <string.h>

#include "runtime/cpu/op.h"

typedef struct ct { int nd; int64_t batch, cin, cout, group, in[3], out[3], k[3], stride[3], dil[3], begin[3]; const float *x, *w, *b; float *y; } ct;

static int64_t at_or(const int64_t *v, int64_t n, int i, int64_t fallback) { return v && i < n ? v[i] : fallback; }

static qx_status setup(qx_call *c, ct *t, const qx_tensor *x, const qx_tensor *w)
{
    int64_t ns, nd, np, no, nsh;
    const int64_t *s = qx_call_ints(c, "strides", &ns), *d = qx_call_ints(c, "dilations", &nd), *p = qx_call_ints(c, "pads", &np), *op = qx_call_ints(c, "output_padding", &no),
                  *shape = qx_call_ints(c, "output_shape", &nsh);
    const char *mode = qx_call_str(c, "auto_pad", "NOTSET");
    t->nd = x->rank - 2;
    t->group = qx_call_int(c, "group", 1);
    if (t->nd < 1 || t->nd > 3 || w->rank != x->rank || t->group < 1 || x->dims[1] != w->dims[0] || x->dims[1] % t->group) QX_CALL_FAIL(c, QX_E_SHAPE, "X of rank %d, W of rank %d, %lld groups", x->rank, w->rank, (long long)t->group);
    t->batch = x->dims[0];
    t->cin = x->dims[1];
    t->cout = w->dims[1] * t->group;
    for (int i = 0; i < t->nd; i++) {
        t->in[i] = x->dims[2 + i];
        t->k[i] = w->dims[2 + i];
        t->stride[i] = at_or(s, ns, i, 1);
        t->dil[i] = at_or(d, nd, i, 1);
        if (t->stride[i] < 1 || t->dil[i] < 1 || t->k[i] < 1) QX_CALL_FAIL(c, QX_E_SHAPE, "stride %lld, dilation %lld, kernel %lld", (long long)t->stride[i], (long long)t->dil[i], (long long)t->k[i]);
        const int64_t full = (t->in[i] - 1) * t->stride[i] + at_or(op, no, i, 0) + (t->k[i] - 1) * t->dil[i] + 1;
        const bool same = !strncmp(mode, "SAME", 4);
        if (shape || same) {
            t->out[i] = shape ? at_or(shape, nsh, nsh == x->rank ? i + 2 : i, 0) : t->in[i] * t->stride[i];
            const int64_t total = full - t->out[i] > 0 ? full - t->out[i] : 0;
            t->begin[i] = !strcmp(mode, "SAME_UPPER") ? total / 2 : total - total / 2;
            if (!same) t->begin[i] = total / 2;
        } else {
            t->begin[i] = at_or(p, np, i, 0);
            t->out[i] = full - t->begin[i] - at_or(p, np, i + t->nd, 0);
        }
        if (t->out[i] < 0 || t->out[i] > INT32_MAX) QX_CALL_FAIL(c, QX_E_SHAPE, "output of %lld along axis %d", (long long)t->out[i], i);
    }
    for (int i = t->nd; i < 3; i++) t->in[i] = t->out[i] = t->k[i] = t->stride[i] = t->dil[i] = 1;
    return QX_OK;
}

/* One output channel of one batch entry. */
static qx_status channel(void *user, int64_t piece)
{
    const ct *t = user;
    const int64_t b = piece / t->cout, m = piece % t->cout, per = t->cout / t->group, g = m / per, cg = t->cin / t->group;
    const int64_t in = t->in[0] * t->in[1] * t->in[2], out = t->out[0] * t->out[1] * t->out[2], kv = t->k[0] * t->k[1] * t->k[2];
    float *y = t->y + piece * out;
    for (int64_t i = 0; i < out; i++) y[i] = t->b ? t->b[m] : 0;
    for (int64_t ci = g * cg; ci < (g + 1) * cg; ci++) {
        const float *x = t->x + (b * t->cin + ci) * in, *w = t->w + (ci * per + m % per) * kv;
        for (int64_t i = 0; i < in; i++) {
            const int64_t p[3] = {i / (t->in[1] * t->in[2]), i / t->in[2] % t->in[1], i % t->in[2]};
            for (int64_t q = 0; q < kv; q++) {
                const int64_t r[3] = {q / (t->k[1] * t->k[2]), q / t->k[2] % t->k[1], q % t->k[2]};
                int64_t to = 0;
                bool inside = true;
                for (int d = 0; d < 3; d++) {
                    const int64_t o = p[d] * t->stride[d] - t->begin[d] + r[d] * t->dil[d];
                    inside = inside && o >= 0 && o < t->out[d];
                    to = to * t->out[d] + o;
                }
                if (inside) y[to] += x[i] * w[q];
            }
        }
    }
    return QX_OK;
}

qx_status qx_cpu_conv_transpose(qx_call *c)
{
    const qx_tensor *x, *w, *b = qx_call_in(c, 2);
    ct t = {0};
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_need(c, 1, &w));
    QX_TRY(setup(c, &t, x, w));
    QX_TRY(qx_call_in_f32(c, 0, &t.x));
    QX_TRY(qx_call_in_f32(c, 1, &t.w));
    if (b) QX_TRY(qx_call_in_f32(c, 2, &t.b));
    if (b && b->numel != t.cout) QX_CALL_FAIL(c, QX_E_SHAPE, "bias of %lld for %lld channels", (long long)b->numel, (long long)t.cout);
    const int64_t dims[5] = {t.batch, t.cout, t.out[0], t.nd > 1 ? t.out[1] : 0, t.nd > 2 ? t.out[2] : 0};
    QX_TRY(qx_call_out_f32(c, 0, x->dtype, x->rank, dims, &t.y));
    return qx_parallel(c->ctx, t.batch * t.cout, channel, &t);
}

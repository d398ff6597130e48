/* conv_transpose.c - ConvTranspose: every input element adds its kernel to the output. The products are one matrix product
 * (weights by pixels) a block of output channels; adding them up is done channel by channel in a fixed order. 1 to 3 spatial
 * axes, groups, dilation, output padding. */
#include <string.h>

#include "runtime/cpu/matmul/gemm.h"

typedef struct ct {
    int nd;
    int64_t batch, cin, cout, group, in[3], out[3], k[3], stride[3], dil[3], begin[3];
    const float *x, *w, *b;
    float *y;
} ct;

static int64_t at_or(const int64_t *v, int64_t n, int i, int64_t fallback) { return v && i < n ? v[i] : fallback; }

/* Missing axes become axes of 1 in front, so that the last one is the one that lies dense. */
static void three_axes(ct *t)
{
    int64_t *const lists[] = {t->in, t->out, t->k, t->stride, t->dil, t->begin};
    for (int l = 0; l < 6; l++)
        for (int i = 2; i >= 0; i--) lists[l][i] = i >= 3 - t->nd ? lists[l][i - (3 - t->nd)] : l < 5;
}

static qx_status setup(qx_call *c, ct *t, const qx_tensor *x, const qx_tensor *w)
{
    int64_t ns, nd, np, no, nsh;
    const int64_t *s = qx_call_ints(c, "strides", &ns), *d = qx_call_ints(c, "dilations", &nd), *p = qx_call_ints(c, "pads", &np),
    *op = qx_call_ints(c, "output_padding", &no),
                  *shape = qx_call_ints(c, "output_shape", &nsh);
    const char *mode = qx_call_str(c, "auto_pad", "NOTSET");
    t->nd = x->rank - 2;
    t->group = qx_call_int(c, "group", 1);
    if (t->nd < 1 || t->nd > 3 || w->rank != x->rank || t->group < 1 || x->dims[1] != w->dims[0] || x->dims[1] % t->group)
        QX_CALL_FAIL(c, QX_E_SHAPE, "X of rank %d, W of rank %d, %lld groups", x->rank, w->rank, (long long)t->group);
    t->batch = x->dims[0];
    t->cin = x->dims[1];
    t->cout = w->dims[1] * t->group;
    for (int i = 0; i < t->nd; i++) {
        t->in[i] = x->dims[2 + i];
        t->k[i] = w->dims[2 + i];
        t->stride[i] = at_or(s, ns, i, 1);
        t->dil[i] = at_or(d, nd, i, 1);
        const int64_t most = INT32_MAX; /* keeps the sums below far from overflow */
        if (t->stride[i] < 1 || t->dil[i] < 1 || t->k[i] < 1 || t->stride[i] > most || t->dil[i] > most || t->k[i] > most ||
            t->in[i] > most)
            QX_CALL_FAIL(c, QX_E_SHAPE, "stride %lld, dilation %lld, kernel %lld", (long long)t->stride[i], (long long)t->dil[i],
                         (long long)t->k[i]);
        const int64_t full = (t->in[i] - 1) * t->stride[i] + at_or(op, no, i, 0) + (t->k[i] - 1) * t->dil[i] + 1;
        const bool same = !strncmp(mode, "SAME", 4);
        if (shape || same) {
            t->out[i] = shape ? at_or(shape, nsh, nsh == x->rank ? i + 2 : i, 0) : t->in[i] * t->stride[i];
            const int64_t total = full - t->out[i] > 0 ? full - t->out[i] : 0;
            t->begin[i] = !strcmp(mode, "SAME_UPPER") ? total / 2 : total - total / 2;
        } else {
            t->begin[i] = at_or(p, np, i, 0);
            t->out[i] = full - t->begin[i] - at_or(p, np, i + t->nd, 0);
        }
        if (t->out[i] < 0 || t->out[i] > INT32_MAX) QX_CALL_FAIL(c, QX_E_SHAPE, "output of %lld along axis %d", (long long)t->out[i], i);
    }
    three_axes(t);
    return QX_OK;
}

/* ---- A block of output channels: columns[channel][kernel position][input position] by one product, then each channel's are
 * added up ---- */

enum { BLOCK_BYTES = 8 << 20 }; /* of columns */
typedef struct state { qx_bmm_state *bmm; } state;

static void drop(qx_ctx *ctx, void *block)
{
    qx_bmm_free(ctx, ((state *)block)->bmm);
}

typedef struct add_job { const ct *t; const float *columns; float *y; const float *bias; int64_t in, out, kv; } add_job;

/* Output positions lo <= o < hi of input positions p = 0.. along axis d, for kernel position r: o = p * stride + shift. */
static void span(const ct *t, int d, int64_t r, int64_t *first, int64_t *last, int64_t *shift)
{
    *shift = r * t->dil[d] - t->begin[d];
    *first = *shift >= 0 ? 0 : (-*shift + t->stride[d] - 1) / t->stride[d];
    *last = t->out[d] > *shift ? (t->out[d] - *shift + t->stride[d] - 1) / t->stride[d] : 0;
    if (*last > t->in[d]) *last = t->in[d];
}

/* One channel: bias, then kernel positions in order. */
static qx_status add_channel(void *user, int64_t m)
{
    const add_job *j = user;
    const ct *t = j->t;
    float *y = j->y + m * j->out;
    const float *col = j->columns + m * j->kv * j->in;
    for (int64_t i = 0; i < j->out; i++) y[i] = j->bias ? j->bias[m] : 0.0f;
    for (int64_t q = 0; q < j->kv; q++, col += j->in) {
        int64_t lo[3], hi[3], shift[3];
        const int64_t r[3] = {q / (t->k[1] * t->k[2]), q / t->k[2] % t->k[1], q % t->k[2]};
        for (int d = 0; d < 3; d++) span(t, d, r[d], &lo[d], &hi[d], &shift[d]);
        for (int64_t a = lo[0]; a < hi[0]; a++)
            for (int64_t b = lo[1]; b < hi[1]; b++) {
                const float *from = col + (a * t->in[1] + b) * t->in[2];
                float *to = y + ((a * t->stride[0] + shift[0]) * t->out[1] + b * t->stride[1] + shift[1]) * t->out[2] + shift[2];
                for (int64_t c = lo[2]; c < hi[2]; c++) to[c * t->stride[2]] += from[c];
            }
    }
    return QX_OK;
}

/* All channels of one group of one picture. */
static qx_status group(qx_call *c, const ct *t, state *st, int64_t b, int64_t g, int64_t block, float *columns)
{
    const int64_t in = t->in[0] * t->in[1] * t->in[2], out = t->out[0] * t->out[1] * t->out[2], kv = t->k[0] * t->k[1] * t->k[2];
    const int64_t per = t->cout / t->group, cg = t->cin / t->group;
    for (int64_t m = 0; m < per; m += block) {
        const int64_t n = per - m < block ? per - m : block, ch = g * per + m;
        const qx_bmm p = {1, n * kv, in, cg, t->w + g * cg * per * kv + m * kv, t->x + (b * t->cin + g * cg) * in, columns,
                          {0, 1, per * kv}, {0, in, 1}};
        add_job j = {t, columns, t->y + (b * t->cout + ch) * out, t->b ? t->b + ch : NULL, in, out, kv};
        QX_TRY(qx_bmm_run(c, &st->bmm, &p));
        QX_TRY(qx_parallel(c->ctx, n, add_channel, &j));
    }
    return QX_OK;
}

static qx_status run(qx_call *c, const ct *t)
{
    const int64_t in = t->in[0] * t->in[1] * t->in[2], kv = t->k[0] * t->k[1] * t->k[2], per = t->cout / t->group;
    state *st = NULL;
    float *columns = NULL;
    int64_t block = BLOCK_BYTES / (int64_t)sizeof *columns / (in * kv);
    block = block < 1 ? 1 : block > per ? per : block;
    QX_TRY(qx_call_state(c, sizeof *st, drop, (void **)&st));
    QX_TRY(QX_CALL_SCRATCH(c, block * kv * in, &columns));
    for (int64_t b = 0; b < t->batch; b++)
        for (int64_t g = 0; g < t->group; g++) QX_TRY(group(c, t, st, b, g, block, columns));
    return QX_OK;
}

/* Without input channels or positions there is only the bias. */
static void fill_bias(const ct *t)
{
    const int64_t out = t->out[0] * t->out[1] * t->out[2];
    for (int64_t i = 0; i < t->batch * t->cout * out; i++) t->y[i] = t->b ? t->b[i / out % t->cout] : 0.0f;
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
    int64_t dims[5] = {t.batch, t.cout};
    for (int i = 0; i < t.nd; i++) dims[2 + i] = t.out[3 - t.nd + i];
    QX_TRY(qx_call_out_f32(c, 0, x->dtype, x->rank, dims, &t.y));
    if (qx_prod(dims, 0, x->rank) == 0) return QX_OK;
    if (x->numel == 0 || w->numel == 0) {
        fill_bias(&t);
        return QX_OK;
    }
    return run(c, &t);
}

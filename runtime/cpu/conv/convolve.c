/* convolve.c - how one convolution is worked out: few pixels as a product of rows; Winograd's algorithm; oneDNN where it has a
 * kernel that does not depend on the thread count; else a product of the weights with windows of the picture. What each of them
 * packs is made when it is first needed: calls may bring pictures of other sizes. */
#include <string.h>

#include "kernels/gemm.h"
#include "runtime/cpu/conv/conv_rows.h"
#include "runtime/cpu/picture/nhwc.h"
#include "runtime/cpu/conv/winograd.h"
#include "runtime/dnnl/door.h"

/* Of the kernel's taps along each axis, `all` of them, those that an output can see: [first, first + n). */
typedef struct reach { int64_t all[3], first[3], n[3]; } reach;

struct qx_conv {
    reach reach;
    qx_packed *rows;
    float *wino;
    bool asked;
    /* the library, which may have none */ qx_dnnl_conv *dnnl;
    float *w;
    /* plain, for the own path */
};

static void drop_packed(qx_ctx *ctx, qx_conv *s)
{
    qx_packed_free(ctx, s->rows);
    qx_free(ctx, s->wino);
    qx_dnnl_conv_free(ctx, s->dnnl);
    qx_free(ctx, s->w);
    *s = (qx_conv){.asked = false};
}

void qx_conv_free(qx_ctx *ctx, qx_conv *s)
{
    if (s) drop_packed(ctx, s);
    qx_free(ctx, s);
}

static int64_t at_most(int64_t a, int64_t most) { return a < most ? a : most; }
/* ---- Windows ---- */

/* Output positions of one row side by side: n of them from column `at` of a panel on; the first is (o[0], o[1], o[2]). */
typedef struct run { int64_t o[3], n, at; } run;

static int runs_of(const qx_conv_shape *s, int64_t first, int64_t count, run *r)
{
    int n = 0;
    for (int64_t at = 0; at < count; at += r[n++].n) {
        const int64_t p = first + at, x = p % s->out[2], left = s->out[2] - x;
        r[n] = (run){{p / s->out[2] / s->out[1], p / s->out[2] % s->out[1], x}, left < count - at ? left : count - at, at};
    }
    return n;
}

/* What a tap sees of one channel's row: outputs [lo, hi) are inside, and the first of a run would lie at `from`. */
typedef struct sight { int64_t lo, hi, from, step; } sight;

static sight sight_of(const qx_conv_shape *s, const int64_t q[3], const run *r)
{
    int64_t at[3];
    for (int d = 0; d < 3; d++) at[d] = r->o[d] * s->stride[d] - s->begin[d] + q[d] * s->dilation[d];
    const int64_t step = s->stride[2], c = at[2];
    sight v = {c < 0 ? (-c + step - 1) / step : 0, c < s->in[2] ? (s->in[2] - 1 - c) / step + 1 : 0,
               (at[0] * s->in[1] + at[1]) * s->in[2] + c, step};
    if (v.hi > r->n) v.hi = r->n;
    if (at[0] < 0 || at[0] >= s->in[0] || at[1] < 0 || at[1] >= s->in[1] || v.lo > v.hi) v.lo = v.hi = r->n;
    return v;
}

static void copy_run(const sight *v, const float *x, int64_t n, float *dst)
{
    if (v->lo == 0 && v->hi == QX_GEMM_NR && v->step == 1) { /* a whole row of the panel */
        memcpy(dst, x + v->from, QX_GEMM_NR * sizeof *dst);
        return;
    }
    for (int64_t i = 0; i < v->lo; i++) dst[i] = 0.0f;
    for (int64_t i = v->lo; i < v->hi; i++) dst[i] = x[v->from + i * v->step];
    for (int64_t i = v->hi; i < n; i++) dst[i] = 0.0f;
}

/* The windows of at most QX_GEMM_NR output positions over some channels as a panel of the product: [channel, tap][QX_GEMM_NR]. */
static void fill_panel(const qx_conv_shape *s, const float *x, int64_t channels, int64_t first, int64_t count, float *panel)
{
    run runs[QX_GEMM_NR];
    const int n = runs_of(s, first, count, runs);
    const int64_t plane = s->in[0] * s->in[1] * s->in[2], taps = s->kernel[0] * s->kernel[1] * s->kernel[2];
    for (int64_t t = 0; t < taps; t++) {
        const int64_t q[3] = {t / (s->kernel[1] * s->kernel[2]), t / s->kernel[2] % s->kernel[1], t % s->kernel[2]};
        for (int k = 0; k < n; k++) {
            const sight v = sight_of(s, q, &runs[k]);
            for (int64_t i = 0; i < channels; i++) copy_run(&v, x + i * plane, runs[k].n, panel + (i * taps + t) * QX_GEMM_NR + runs[k].at);
        }
    }
    for (int64_t i = 0; i < channels * taps && count < QX_GEMM_NR; i++)
        memset(panel + i * QX_GEMM_NR + count, 0, (size_t)(QX_GEMM_NR - count) * sizeof *panel);
}

typedef struct conv_job {
    const qx_conv_shape *s;
    const float *x, *w, *bias;
    float *y;
    float *scratch;
    int64_t blocks, per_thread, k, taps, channels; /* that panels hold at a time */
} conv_job;
enum { CONV_BLOCK = 2 * QX_GEMM_NR, PANELS = 1 << 18 /* numbers, about: in the second cache */ };

/* One block of output positions of one group: y[out_ch, positions] = W [out_ch, k] * windows'. */
static qx_status conv_piece(void *user, int64_t i)
{
    const conv_job *j = user;
    const qx_conv_shape *s = j->s;
    int64_t positions = s->out[0] * s->out[1] * s->out[2], per = s->out_ch / s->group, ich = s->in_ch / s->group,
        plane = s->in[0] * s->in[1] * s->in[2];
    int64_t blk = i % j->blocks, g = i / j->blocks % s->group, b = i / j->blocks / s->group;
    int64_t first = blk * CONV_BLOCK, count = positions - first < CONV_BLOCK ? positions - first : CONV_BLOCK;
    float *panels = j->scratch + qx_thread_index() * j->per_thread;
    float *y = j->y + (b * s->out_ch + g * per) * positions + first;
    for (int64_t ch = 0; ch < ich; ch += j->channels) {
        const int64_t n = ich - ch < j->channels ? ich - ch : j->channels, k = n * j->taps;
        for (int64_t p = 0; p < count; p += QX_GEMM_NR)
            fill_panel(s, j->x + (b * s->in_ch + g * ich + ch) * plane, n, first + p, count - p < QX_GEMM_NR ? count - p : QX_GEMM_NR,
                       panels + p * k);
        const qx_sgemm t = {.m = per, .k = k, .n = count, .x = j->w + g * per * j->k + ch * j->taps, .ldx = j->k, .cx = 1,
                            .panels = panels, .step = QX_GEMM_NR * k,
                            .y = y, .ldy = positions, .alpha = 1.0f, .add = ch > 0};
        qx_sgemm_run(&t);
    }
    for (int64_t r = 0; j->bias && r < per; r++)
        for (int64_t p = 0; p < count; p++) y[r * positions + p] += j->bias[g * per + r];
    return QX_OK;
}

static qx_status own_conv(qx_call *c, const qx_conv_shape *s, const float *x, const float *w, const float *bias, float *y)
{
    qx_conv_shape full = *s; /* three spatial axes, missing ones of size 1 in front */
    for (int d = 2; d >= 0; d--) {
        int from = d - (3 - s->spatial);
        bool there = from >= 0;
        full.in[d] = there ? s->in[from] : 1;
        full.out[d] = there ? s->out[from] : 1;
        full.kernel[d] = there ? s->kernel[from] : 1;
        full.stride[d] = there ? s->stride[from] : 1;
        full.dilation[d] = there ? s->dilation[from] : 1;
        full.begin[d] = there ? s->begin[from] : 0;
    }
    int64_t positions = full.out[0] * full.out[1] * full.out[2];
    conv_job j = {.s = &full, .x = x, .w = w, .bias = bias, .y = y, .blocks = (positions + CONV_BLOCK - 1) / CONV_BLOCK,
                  .taps = full.kernel[0] * full.kernel[1] * full.kernel[2]};
    j.k = s->in_ch / s->group * j.taps;
    j.channels = at_most(PANELS / (CONV_BLOCK * j.taps) + 1, s->in_ch / s->group);
    j.per_thread = CONV_BLOCK * j.taps * j.channels;
    QX_TRY(QX_CALL_SCRATCH(c, j.per_thread * qx_ctx_threads(c->ctx), &j.scratch));
    qx_call_note_kernel(c, "own", 2.0 * (double)(s->batch * s->out_ch * positions) * (double)j.k);
    return qx_parallel(c->ctx, s->batch * s->group * j.blocks, conv_piece, &j);
}

/* The own path knows the plain layout only. */
static qx_status own_conv_any_layout(qx_call *c, const qx_conv_shape *s, const float *x, const float *w, const float *bias, float *y)
{
    const int64_t dx[4] = {s->batch, s->in_ch, s->in[0], s->in[1]}, dy[4] = {s->batch, s->out_ch, s->out[0], s->out[1]};
    float *in = NULL, *out = y;
    if (s->x_block) {
        QX_TRY(QX_CALL_SCRATCH(c, qx_prod(dx, 0, 4), &in));
        QX_TRY(qx_reblock(c, QX_DT_FLOAT, dx, s->x_block, x, 0, in));
        x = in;
    }
    if (s->y_block) QX_TRY(QX_CALL_SCRATCH(c, qx_prod(dy, 0, 4), &out));
    QX_TRY(own_conv(c, s, x, w, bias, out));
    return s->y_block ? qx_reblock(c, QX_DT_FLOAT, dy, 0, out, s->y_block, y) : QX_OK;
}

/* ---- Shapes that the library has no kernel for ---- */

static void move_axis(qx_conv_shape *s, int from, int to)
{
    s->in[to] = s->in[from], s->out[to] = s->out[from], s->kernel[to] = s->kernel[from], s->stride[to] = s->stride[from],
        s->dilation[to] = s->dilation[from];
    s->begin[to] = s->begin[from], s->end[to] = s->end[from];
    s->in[from] = s->out[from] = s->kernel[from] = s->stride[from] = s->dilation[from] = 1;
    s->begin[from] = s->end[from] = 0;
}

/* A line, or a picture of width 1, is a picture of height 1: the library's kernels work along rows, and it has none for some lines. */
static void as_picture(qx_conv_shape *s)
{
    const bool thin = s->spatial == 2 && s->in[1] == 1 && s->out[1] == 1 && s->kernel[1] == 1 && s->begin[1] == 0 && s->end[1] == 0;
    if (s->spatial != 1 && !thin) return;
    s->spatial = 2;
    move_axis(s, 0, 1);
}

/* Several outputs from each channel: as many copies of the channel make it an ordinary depthwise convolution, which the library has. */
static qx_status repeat_channels(qx_call *c, qx_conv_shape *s, const float **x)
{
    const int64_t times = s->out_ch / s->in_ch, plane = qx_prod(s->in, 0, s->spatial);
    float *plain = NULL, *all = NULL;
    if (s->group == 1 || s->group != s->in_ch || times == 1) return QX_OK;
    if (s->x_block) {
        QX_TRY(QX_CALL_SCRATCH(c, s->batch * s->in_ch * plane, &plain));
        QX_TRY(qx_reblock(c, QX_DT_FLOAT, (int64_t[]){s->batch, s->in_ch, s->in[0], s->in[1]}, s->x_block, *x, 0, plain));
        *x = plain;
    }
    QX_TRY(QX_CALL_SCRATCH(c, s->batch * s->out_ch * plane, &all));
    for (int64_t i = 0; i < s->batch * s->out_ch; i++) memcpy(all + i * plane, *x + i / times * plane, (size_t)plane * sizeof *all);
    *x = all;
    s->in_ch = s->group = s->out_ch;
    s->x_block = 0;
    return QX_OK;
}

/* ---- Taps in the padding ---- */

static int64_t between(int64_t a, int64_t most) { return a < 0 ? 0 : at_most(a, most); }

/* A kernel on a small picture has taps that every output sees in the padding: 3 x 3 on one pixel is 1 x 1. They are cut off, and
 * so are never read. */
static reach cut_kernel(qx_conv_shape *s)
{
    reach r = {{1, 1, 1}, {0}, {1, 1, 1}};
    for (int i = 0; i < s->spatial; i++) {
        /* where the last window begins, in the padded picture */
        const int64_t d = s->dilation[i], k = s->kernel[i], last = (s->out[i] - 1) * s->stride[i];
        const int64_t before = (s->begin[i] - last + d - 1) / d, after = k - 1 - (s->in[i] - 1 + s->begin[i]) / d;
        const int64_t lo = between(before, at_most(s->begin[i] / d, k - 1)), hi = between(after, at_most(s->end[i] / d, k - 1 - lo));
        r.all[i] = k;
        r.first[i] = lo;
        s->kernel[i] = r.n[i] = k - lo - hi;
        s->begin[i] -= lo * d;
        s->end[i] -= hi * d;
    }
    return r;
}

typedef struct cut_job { const reach *r; const float *w; float *out; } cut_job;

/* One output's and one input's taps. */
static qx_status cut_piece(void *user, int64_t i)
{
    const cut_job *j = user;
    const reach *r = j->r;
    const float *w = j->w + i * r->all[0] * r->all[1] * r->all[2];
    float *to = j->out + i * r->n[0] * r->n[1] * r->n[2];
    for (int64_t a = r->first[0]; a < r->first[0] + r->n[0]; a++)
        for (int64_t b = r->first[1]; b < r->first[1] + r->n[1]; b++, to += r->n[2])
            memcpy(to, w + (a * r->all[1] + b) * r->all[2] + r->first[2], (size_t)r->n[2] * sizeof *to);
    return QX_OK;
}

static qx_status cut_weights(qx_call *c, const qx_conv_shape *s, const reach *r, const float **w)
{
    cut_job j = {r, *w, NULL};
    if (memcmp(r->all, r->n, sizeof r->n) == 0) return QX_OK;
    const int64_t pairs = s->out_ch * s->in_ch / s->group;
    QX_TRY(QX_CALL_SCRATCH(c, pairs * r->n[0] * r->n[1] * r->n[2], &j.out));
    *w = j.out;
    return qx_parallel(c->ctx, pairs, cut_piece, &j);
}

/* ---- The choice ---- */

static int64_t taps(const qx_conv_shape *s) { return s->in_ch / s->group * qx_prod(s->kernel, 0, s->spatial); }

/* Of the taps that are seen, as given or the constant read once more, by the scales. */
static qx_status plain_weights(qx_call *c, const qx_conv *v, const qx_conv_shape *s, const qx_conv_op *op, const float **w)
{
    const int64_t k = taps(s);
    float *scaled = NULL;
    *w = op->w;
    if (!*w) QX_TRY(qx_call_const_again_f32(c, 1, w));
    QX_TRY(cut_weights(c, s, &v->reach, w));
    if (!op->scale) return QX_OK;
    QX_TRY(QX_CALL_SCRATCH(c, s->out_ch * k, &scaled));
    for (int64_t i = 0; i < s->out_ch * k; i++) scaled[i] = (*w)[i] * op->scale[i / k];
    *w = scaled;
    return QX_OK;
}

static qx_status pack_rows(qx_call *c, qx_conv *v, const qx_conv_shape *s, const qx_conv_op *op)
{
    const float *w;
    QX_TRY(plain_weights(c, v, s, op, &w));
    return qx_conv_rows_pack(c, s, w, &v->rows);
}

static qx_status pack_wino(qx_call *c, qx_conv *v, const qx_conv_shape *s, const qx_conv_op *op)
{
    const float *w;
    QX_TRY(plain_weights(c, v, s, op, &w));
    return qx_wino_pack(c, s, w, &v->wino);
}

static qx_status pack_pictures(qx_call *c, qx_conv *v, const qx_conv_shape *s, const qx_conv_op *op)
{
    const float *w;
    const size_t bytes = (size_t)(s->out_ch * taps(s)) * sizeof *w;
    QX_TRY(plain_weights(c, v, s, op, &w));
    QX_TRY(qx_dnnl_conv_new(c, s, w, &v->dnnl));
    v->asked = true;
    if (v->dnnl) return QX_OK;
    QX_TRY(qx_alloc_raw(c->ctx, bytes, (void **)&v->w));
    memcpy(v->w, w, bytes);
    return QX_OK;
}

enum { PIECE = 1 << 13 };
typedef struct finish_job { const qx_conv_op *op; int64_t n; } finish_job;

static qx_status finish_piece(void *user, int64_t i)
{
    const finish_job *j = user;
    const int64_t n = j->n - i * PIECE < PIECE ? j->n - i * PIECE : PIECE;
    float *y = j->op->y + i * PIECE;
    if (j->op->add) qx_binary_find(QX_B_ADD, QX_DT_FLOAT)(y, 1, j->op->add + i * PIECE, 1, y, n);
    qx_activation_piece(j->op->act, y, n);
    return QX_OK;
}

qx_status qx_conv_finish(qx_call *c, const qx_conv_op *op, int64_t n)
{
    finish_job j = {op, n};
    return op->act->none && !op->add ? QX_OK : qx_parallel(c->ctx, (n + PIECE - 1) / PIECE, finish_piece, &j);
}

qx_status qx_conv_run(qx_call *c, qx_conv **state, const qx_conv_shape *shape, const qx_conv_op *given)
{
    qx_conv_shape seen = *shape, *s = &seen;
    qx_conv_op op = *given;
    as_picture(s);
    if (!*state) QX_TRY(QX_NEW(c->ctx, state));
    qx_conv *v = *state;
    const reach r = cut_kernel(s);
    if (memcmp(&r, &v->reach, sizeof r) != 0) {
        drop_packed(c->ctx, v);
        v->reach = r;
    }
    if (qx_conv_rows_pay(s)) {
        if (!v->rows) QX_TRY(pack_rows(c, v, s, &op));
        return qx_conv_rows_run(c, v->rows, s, &op);
    }
    if (qx_wino_pays(s) && !qx_call_bf16(c)) {
        if (!v->wino) QX_TRY(pack_wino(c, v, s, &op));
        return qx_wino_run(c, v->wino, s, &op);
    }
    QX_TRY(repeat_channels(c, s, &op.x));
    if (!v->asked) QX_TRY(pack_pictures(c, v, s, &op));
    if (v->dnnl) return qx_dnnl_conv_run(c, v->dnnl, s, &op);
    QX_TRY(own_conv_any_layout(c, s, op.x, v->w, op.bias, op.y));
    return qx_conv_finish(c, &op, s->batch * s->out_ch * qx_prod(s->out, 0, s->spatial));
}

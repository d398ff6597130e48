/* int8.c - the fused step for Q/DQ around MatMul, Gemm and Conv (runtime/fuse/fuse_int8.c). Sums are exact integers whatever
 * computes them; the one rounding is the product with scale (and the addition of the bias), as when the codes were dequantized
 * first and nothing else rounded. */
#include "runtime/cpu/codes/int8.h"

#include <math.h>
#include <string.h>

#include "kernels/igemm.h"
#include "kernels/int8.h"
#include "runtime/cpu/picture/nhwc.h"
#include "runtime/cpu/codes/qdq.h"
#include "runtime/fuse/fuse.h"

typedef struct state {
    qx_dnnl_int8 *dnnl;
    float *scale;
    int64_t n_scales;
    int32_t zero;
    float *bias;
    int32_t *sums; /* of columns, for few rows */
    qx_int8_codes codes; /* that a convolution makes */
    bool apart;          /* the library has no kernel for what follows, or the numbers are none for it */
} state;

static void drop(qx_ctx *ctx, void *block)
{
    state *s = block;
    qx_dnnl_int8_free(ctx, s->dnnl);
    qx_free(ctx, s->scale);
    qx_free(ctx, s->bias);
    qx_free(ctx, s->sums);
}

/* ---- Own kernels ---- */

typedef struct own_job { const qx_int8_op *op; int64_t per, k, n, positions, per_thread; char *scratch; } own_job;

static void widen(const qx_int8_op *op, const void *x, int64_t first, int64_t n, int16_t *out)
{
    if (op->x_type == QX_DT_UINT8)
        for (int64_t i = 0; i < n; i++) out[i] = (int16_t)(((const uint8_t *)x)[first + i] - op->zero);
    else
        for (int64_t i = 0; i < n; i++) out[i] = (int16_t)(((const int8_t *)x)[first + i] - op->zero);
}

static qx_status mm_piece(void *user, int64_t i)
{
    const own_job *j = user;
    const qx_int8_op *op = j->op;
    char *mine = j->scratch + qx_thread_index() * j->per_thread;
    int32_t *acc = (int32_t *)(void *)mine;
    int16_t *x = (int16_t *)(void *)(mine + (j->n + 15) / 16 * 64);
    int64_t last = (i + 1) * j->per < op->m ? (i + 1) * j->per : op->m;
    for (int64_t r = i * j->per; r < last; r++) {
        widen(op, op->x, r * op->k, op->k, x);
        qx_int8_row(x, op->w, op->k, op->n, op->w_row, op->w_col, acc);
        qx_int8_finish(acc, op->scale, op->n_scales > 1, op->bias, op->y + r * op->n, op->n);
    }
    return QX_OK;
}

/* One window of one group; positions outside of the picture are the zero point, that is 0. */
static void window(const own_job *j, int64_t b, int64_t g, int64_t p, int16_t *out)
{
    const qx_conv_shape *s = &j->op->shape;
    int64_t ch = s->in_ch / s->group, kvol = 1, plane = 1, o[3], rest = p;
    for (int d = s->spatial - 1; d >= 0; d--) {
        o[d] = rest % s->out[d];
        rest /= s->out[d];
        kvol *= s->kernel[d];
        plane *= s->in[d];
    }
    int64_t base = (b * s->in_ch + g * ch) * plane;
    for (int64_t q = 0; q < kvol; q++) {
        int64_t off = 0, r = q, at[3];
        bool in = true;
        for (int d = s->spatial - 1; d >= 0; d--) {
            at[d] = o[d] * s->stride[d] - s->begin[d] + r % s->kernel[d] * s->dilation[d];
            in = in && at[d] >= 0 && at[d] < s->in[d];
            r /= s->kernel[d];
        }
        for (int d = 0; d < s->spatial; d++) off = off * s->in[d] + at[d];
        for (int64_t i = 0; i < ch; i++) {
            if (in) widen(j->op, j->op->x, base + i * plane + off, 1, &out[i * kvol + q]);
            else out[i * kvol + q] = 0;
        }
    }
}

static qx_status conv_piece(void *user, int64_t i)
{
    const own_job *j = user;
    const qx_int8_op *op = j->op;
    const qx_conv_shape *s = &op->shape;
    char *mine = j->scratch + qx_thread_index() * j->per_thread;
    int32_t *acc = (int32_t *)(void *)mine;
    int64_t per = s->out_ch / s->group, p = i % j->positions, g = i / j->positions % s->group, b = i / j->positions / s->group;
    int16_t *x = (int16_t *)(void *)(mine + (per + 15) / 16 * 64);
    window(j, b, g, p, x);
    qx_int8_row(x, op->w + g * per * j->k, j->k, per, 1, j->k, acc);
    for (int64_t o = 0; o < per; o++) {
        int64_t ch = g * per + o;
        qx_int8_finish(&acc[o], op->scale + (op->n_scales > 1 ? ch : 0), 0, op->bias ? op->bias + ch : NULL,
                       &op->y[(b * s->out_ch + ch) * j->positions + p], 1);
    }
    return QX_OK;
}

/* Several rows: the weight is packed for this call (a pass over it is little beside several rows of products), then panels by
 * blocks of rows. */
enum { PACK_FROM_ROWS = 4, BLOCK_ROWS = 128 };
typedef struct panel_job { const qx_int8_op *op; qx_igemm g; int8_t *packed; int32_t *sums; int64_t panels; } panel_job;

static qx_status pack_piece(void *user, int64_t i)
{
    const panel_job *j = user;
    qx_igemm_pack_panel(j->op->w, true, j->op->k, j->op->n, j->op->w_row, j->op->w_col, i, j->packed, j->sums);
    return QX_OK;
}

static qx_status panel_piece(void *user, int64_t i)
{
    const panel_job *j = user;
    const int64_t first = i / j->panels * BLOCK_ROWS, last = first + BLOCK_ROWS < j->g.m ? first + BLOCK_ROWS : j->g.m;
    qx_igemm_run(&j->g, i % j->panels, first, last);
    return QX_OK;
}

static qx_status panels_run(qx_call *c, const qx_int8_op *op)
{
    static const float one = 1.0f;
    panel_job j = {.op = op, .panels = qx_igemm_panels(op->n)};
    const int64_t bytes = (int64_t)qx_igemm_packed_bytes(op->k, op->n);
    QX_TRY(QX_CALL_SCRATCH(c, bytes + qx_igemm_sums(op->n) * (int64_t)sizeof *j.sums, &j.packed));
    j.sums = (int32_t *)(void *)(j.packed + bytes); /* bytes is a multiple of 128 */
    j.g = (qx_igemm){.m = op->m, .n = op->n, .k = op->k, .a = op->x, .lda = op->k, .a_signed = op->x_type == QX_DT_INT8, .za = &op->zero,
                     .packed = j.packed,
                     .sums = j.sums, .b_signed = true, .y = op->y, .ldy = op->n, .scale_a = &one, .scale_b = op->scale,
                         .scale_b_per_col = op->n_scales > 1, .bias = op->bias};
    qx_call_note_kernel(c, "own int8 panels", 2.0 * (double)op->m * (double)op->n * (double)op->k);
    QX_TRY(qx_parallel(c->ctx, j.panels, pack_piece, &j));
    return qx_parallel(c->ctx, j.panels * ((op->m + BLOCK_ROWS - 1) / BLOCK_ROWS), panel_piece, &j);
}

static qx_status own_run(qx_call *c, const qx_int8_op *op);

/* Our loops know plain pictures. */
static qx_status own_conv_any_layout(qx_call *c, const qx_int8_op *op)
{
    const qx_conv_shape *s = &op->shape;
    const int64_t dx[4] = {s->batch, s->in_ch, s->in[0], s->in[1]}, dy[4] = {s->batch, s->out_ch, s->out[0], s->out[1]};
    qx_int8_op plain = *op;
    char *x = NULL;
    plain.shape.x_block = plain.shape.y_block = 0;
    if (s->x_block) {
        QX_TRY(QX_CALL_SCRATCH(c, qx_prod(dx, 0, 4), &x));
        QX_TRY(qx_reblock(c, op->x_type, dx, s->x_block, op->x, 0, x));
        plain.x = x;
    }
    if (s->y_block) QX_TRY(QX_CALL_SCRATCH(c, qx_prod(dy, 0, 4), &plain.y));
    QX_TRY(own_run(c, &plain));
    return s->y_block ? qx_reblock(c, QX_DT_FLOAT, dy, 0, plain.y, s->y_block, op->y) : QX_OK;
}

static qx_status own_run(qx_call *c, const qx_int8_op *op)
{
    if (op->conv && (op->shape.x_block || op->shape.y_block)) return own_conv_any_layout(c, op);
    if (!op->conv && op->m >= PACK_FROM_ROWS) return panels_run(c, op);
    own_job j = {.op = op, .k = op->k, .n = op->n, .positions = 1, .per = 4};
    if (op->conv) {
        j.k = op->shape.in_ch / op->shape.group;
        for (int d = 0; d < op->shape.spatial; d++) {
            j.k *= op->shape.kernel[d];
            j.positions *= op->shape.out[d];
        }
        j.n = op->shape.out_ch / op->shape.group;
    }
    j.per_thread = (j.n + 15) / 16 * 64 + (j.k + 31) / 32 * 64;
    QX_TRY(QX_CALL_SCRATCH(c, j.per_thread * qx_ctx_threads(c->ctx), &j.scratch));
    qx_call_note_kernel(c, "own int8", 0);
    if (op->conv) return qx_parallel(c->ctx, op->shape.batch * op->shape.group * j.positions, conv_piece, &j);
    return qx_parallel(c->ctx, (op->m + j.per - 1) / j.per, mm_piece, &j);
}

/* ---- Few rows: a token of a language model ---- */

typedef struct few_job {
    const qx_int8_op *op;
    const qx_int8_panels *w;
    const uint8_t *x;
    int64_t ld, quads;
    int32_t zero;
    const int32_t *sums;
} few_job;

static qx_status few_piece(void *user, int64_t i)
{
    const few_job *j = user;
    const qx_int8_op *op = j->op;
    const int64_t first = i * j->w->width, n = op->n - first < j->w->width ? op->n - first : j->w->width;
    int32_t acc[QX_IGEMM_FEW * QX_IGEMM_WIDEST];
    qx_igemm_few(op->m, j->x, j->ld, j->w->data + i * j->w->stride, j->quads, j->w->width, acc);
    for (int64_t r = 0; r < op->m; r++) {
        int32_t *a = acc + r * j->w->width;
        for (int64_t k = 0; k < n; k++) a[k] -= j->zero * j->sums[first + k];
        qx_int8_finish(a, op->scale + (op->n_scales > 1 ? first : 0), op->n_scales > 1, op->bias ? op->bias + first : NULL,
                       op->y + r * op->n + first, n);
    }
    return QX_OK;
}

typedef struct sums_job { const qx_int8_panels *w; int64_t quads; int32_t *sums; } sums_job;

static qx_status sums_piece(void *user, int64_t i)
{
    const sums_job *j = user;
    qx_igemm_panel_sums(j->w->data + i * j->w->stride, j->quads, j->w->width, j->sums + i * j->w->width);
    return QX_OK;
}

/* Signed codes are 128 more, and so is their zero point. */
static qx_status few_run(qx_call *c, state *st, const qx_int8_op *op, const qx_int8_panels *w)
{
    const int64_t quads = (op->k + 3) / 4, panels = (op->n + w->width - 1) / w->width;
    const uint8_t flip = op->x_type == QX_DT_INT8 ? 0x80 : 0;
    uint8_t *x = NULL;
    if (!st->sums) {
        QX_TRY(qx_alloc_array(c->ctx, (size_t)(panels * w->width), sizeof *st->sums, (void **)&st->sums));
        sums_job sums = {w, quads, st->sums};
        QX_TRY(qx_parallel(c->ctx, panels, sums_piece, &sums));
    }
    QX_TRY(QX_CALL_SCRATCH(c, op->m * quads * 4, &x));
    for (int64_t r = 0; r < op->m; r++)
        for (int64_t i = 0; i < quads * 4; i++) x[r * quads * 4 + i] = i < op->k ? ((const uint8_t *)op->x)[r * op->k + i] ^ flip : 0;
    few_job j = {op, w, x, quads * 4, quads, op->zero + flip, st->sums};
    qx_call_note_kernel(c, "few int8", 2.0 * (double)op->m * (double)op->n * (double)op->k);
    return qx_parallel(c->ctx, panels, few_piece, &j);
}

/* ---- The step ---- */

static qx_status first_time(qx_call *c, state *st, int64_t n)
{
    const float *xs, *ws, *b;
    const int32_t *z;
    const qx_tensor *tw = c->in[QX_INT8_W_SCALE], *tb = c->in[QX_INT8_BIAS];
    static const float one = 1;
    xs = &one;
    if (c->in[QX_INT8_X_SCALE]) QX_TRY(qx_call_in_f32(c, QX_INT8_X_SCALE, &xs));
    QX_TRY(qx_call_in_f32(c, QX_INT8_W_SCALE, &ws));
    QX_TRY(qx_q_zeros(c, c->in[QX_INT8_X_ZERO], &z));
    if (tw->numel != 1 && tw->numel != n)
        QX_CALL_FAIL(c, QX_E_SHAPE, "weight scale has %lld elements for %lld channels", (long long)tw->numel, (long long)n);
    st->n_scales = tw->numel;
    st->zero = z ? z[0] : 0;
    QX_TRY(qx_alloc_array(c->ctx, (size_t)st->n_scales, sizeof *st->scale, (void **)&st->scale));
    for (int64_t i = 0; i < st->n_scales; i++) st->scale[i] = xs[0] * ws[i];
    if (!tb || !qx_call_in_const(c, QX_INT8_BIAS)) return QX_OK;
    QX_TRY(qx_call_in_f32(c, QX_INT8_BIAS, &b));
    if (tb->numel != 1 && tb->numel != n)
        QX_CALL_FAIL(c, QX_E_SHAPE, "bias has %lld elements for %lld channels", (long long)tb->numel, (long long)n);
    QX_TRY(qx_alloc_array(c->ctx, (size_t)n, sizeof *st->bias, (void **)&st->bias));
    for (int64_t i = 0; i < n; i++) st->bias[i] = b[tb->numel == 1 ? 0 : i];
    return QX_OK;
}

/* Dims of op and of the output. */
static qx_status describe(qx_call *c, const qx_int8_params *p, qx_int8_op *op, int64_t *dims, int *rank)
{
    const qx_tensor *x = c->in[QX_INT8_X], *w = c->in[QX_INT8_W];
    char a[96], b[96];
    if (p->kind == QX_INT8_CONV) {
        op->conv = true;
        QX_TRY(qx_conv_shape_of(c, x, w, &op->shape));
        op->shape.x_block = qx_call_in_layout(c, QX_INT8_X);
        op->shape.y_block = qx_call_out_layout(c, 0);
        *rank = x->rank;
        dims[0] = op->shape.batch;
        dims[1] = op->n = op->shape.out_ch;
        for (int i = 0; i < op->shape.spatial; i++) dims[2 + i] = op->shape.out[i];
        return QX_OK;
    }
    op->n = w->dims[p->w_nk ? 0 : 1];
    op->k = w->dims[p->w_nk ? 1 : 0];
    op->w_row = p->w_nk ? 1 : op->n;
    op->w_col = p->w_nk ? op->k : 1;
    if (x->rank < 1 || x->dims[x->rank - 1] != op->k)
        QX_CALL_FAIL(c, QX_E_SHAPE, "%s by codes %s", qx_tensor_describe(x, a, sizeof a), qx_tensor_describe(w, b, sizeof b));
    op->m = qx_prod(x->dims, 0, x->rank - 1);
    *rank = x->rank;
    memcpy(dims, x->dims, sizeof x->dims);
    dims[x->rank - 1] = op->n;
    return QX_OK;
}

/* ---- What follows a convolution ---- */

static bool all_finite(const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(x[i])) return false;
    return true;
}

/* The library's maximum has no NaN, and rounding to codes none either. */
static qx_status codes_first_time(qx_call *c, state *st, const qx_int8_params *p, int64_t n)
{
    const float *s;
    const int32_t *z;
    st->apart = !all_finite(st->scale, st->n_scales) || (st->bias && !all_finite(st->bias, n)) || (!st->bias && c->in[QX_INT8_BIAS]);
    if (!p->codes) return QX_OK;
    QX_TRY(qx_call_in_f32(c, QX_INT8_Y_SCALE, &s));
    QX_TRY(qx_q_zeros(c, c->in[QX_INT8_Y_ZERO], &z));
    st->codes = (qx_int8_codes){.type = p->codes, .scale = s[0], .zero = z ? (float)z[0] : 0};
    st->apart = st->apart || !isnormal(s[0]);
    return QX_OK;
}

/* Of floats, for whatever does not work it out by itself. */
static qx_status follow(qx_call *c, const qx_int8_params *p, const qx_int8_codes *codes, float *y, int64_t n)
{
    const int32_t zero = (int32_t)codes->zero;
    const qx_qparams q = {.layout = {.scalar = true, .outer = 1, .d = n, .inner = 1, .block = 1, .blocks = n}, .codes = codes->type,
                          .scale = &codes->scale, .zero = &zero};
    QX_TRY(qx_activation_run(c, &p->act, y, n));
    return p->codes ? qx_q_tensor(c, &q, QX_DT_FLOAT, y, n, codes->data) : QX_OK;
}

typedef struct rows_job { float *y; const float *scale; int64_t m, n; } rows_job;

static qx_status scale_row(void *user, int64_t r)
{
    const rows_job *j = user;
    for (int64_t i = 0; i < j->n; i++) j->y[r * j->n + i] *= j->scale[r];
    return QX_OK;
}

/* Scales of x that are one a row come last. */
static qx_status scale_rows(qx_call *c, const qx_int8_op *op)
{
    rows_job j = {op->y, NULL, op->m, op->n};
    if (op->conv || c->n_in <= QX_INT8_ROW_SCALE) return QX_OK;
    QX_TRY(qx_call_in_f32(c, QX_INT8_ROW_SCALE, &j.scale));
    if (c->in[QX_INT8_ROW_SCALE]->numel != op->m)
        QX_CALL_FAIL(c, QX_E_SHAPE, "%lld scales for %lld rows", (long long)c->in[QX_INT8_ROW_SCALE]->numel, (long long)op->m);
    return qx_parallel(c->ctx, op->m, scale_row, &j);
}

/* By the library; *done false: it has no kernel. */
static qx_status library(qx_call *c, state *st, qx_int8_op *op, bool *done)
{
    bool need_w;
    QX_TRY(qx_dnnl_int8_run(c, &st->dnnl, op, done, &need_w));
    if (need_w) { /* packed for other dims, and the codes were dropped: they are read again */
        QX_TRY(qx_call_const_again(c, QX_INT8_W, (const void **)&op->w));
        QX_TRY(qx_dnnl_int8_run(c, &st->dnnl, op, done, &need_w));
    }
    if (*done && qx_call_can_read_again(c, QX_INT8_W)) qx_call_drop_const(c, QX_INT8_W);
    return QX_OK;
}

/* The numbers, as floats. */
static qx_status sums(qx_call *c, state *st, qx_int8_op *op)
{
    qx_int8_panels panels = {.data = NULL};
    bool done = false;
    if (op->m <= QX_IGEMM_FEW) QX_TRY(qx_dnnl_int8_panels(c, &st->dnnl, op, &panels));
    if (panels.data && qx_igemm_has_few(panels.width)) {
        QX_TRY(few_run(c, st, op, &panels));
        if (qx_call_can_read_again(c, QX_INT8_W)) qx_call_drop_const(c, QX_INT8_W);
        return QX_OK;
    }
    QX_TRY(library(c, st, op, &done));
    return done ? QX_OK : own_run(c, op);
}

/* With what follows: in the library's kernel, or behind the floats. */
static qx_status conv_and_more(qx_call *c, const qx_int8_params *p, state *st, qx_int8_op *op, int64_t n)
{
    bool done = false;
    if (!st->apart) {
        op->act = p->act.none ? NULL : &p->act;
        op->codes = p->codes ? &st->codes : NULL;
        QX_TRY(library(c, st, op, &done));
        st->apart = !done;
        if (done) return QX_OK;
    }
    op->act = NULL;
    op->codes = NULL;
    if (p->codes) QX_TRY(QX_CALL_SCRATCH(c, n, &op->y));
    QX_TRY(sums(c, st, op));
    return follow(c, p, &st->codes, op->y, n);
}

/* Floats in *y, or codes, which the state has. */
static qx_status make_output(qx_call *c, const qx_int8_params *p, state *st, int rank, const int64_t *dims, float **y)
{
    const qx_tensor *scale = c->in[QX_INT8_X_SCALE];
    qx_tensor *t = NULL;
    if (!p->codes) return qx_call_out_f32(c, 0, scale ? scale->dtype : QX_DT_FLOAT, rank, dims, y);
    QX_TRY(qx_call_out(c, 0, p->codes, rank, dims, &t));
    st->codes.data = t->data;
    return QX_OK;
}

qx_status qx_cpu_int8_linear(qx_call *c)
{
    const qx_int8_params *p = c->fused;
    const qx_tensor *x, *w;
    qx_int8_op op = {0};
    state *st = NULL;
    int64_t dims[QX_MAX_RANK], k;
    int rank = 0;
    QX_TRY(qx_call_need(c, QX_INT8_X, &x));
    QX_TRY(qx_call_need(c, QX_INT8_W, &w));
    QX_TRY(describe(c, p, &op, dims, &rank));
    if (x->dtype != QX_DT_INT8 && x->dtype != QX_DT_UINT8)
        QX_CALL_FAIL(c, QX_E_TYPE, "activation codes are %s", qx_dtype_get(x->dtype)->text);
    k = op.conv ? w->numel / (op.n ? op.n : 1) : op.k;
    if (k > QX_INT8_MAX_K) QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "sums of %lld products may overflow 32 bits", (long long)k);
    QX_TRY(qx_call_state(c, sizeof *st, drop, (void **)&st));
    if (!st->scale) {
        QX_TRY(first_time(c, st, op.n));
        QX_TRY(codes_first_time(c, st, p, op.n));
    }
    QX_TRY(make_output(c, p, st, rank, dims, &op.y));
    if (qx_prod(dims, 0, rank) == 0) return QX_OK;
    op.x_type = x->dtype;
    op.x = x->data;
    op.zero = st->zero;
    op.w = w->data;
    op.scale = st->scale;
    op.n_scales = st->n_scales;
    op.bias = st->bias;
    if (!op.bias && c->in[QX_INT8_BIAS]) QX_TRY(qx_call_in_f32(c, QX_INT8_BIAS, &op.bias));
    if (p->kind == QX_INT8_CONV && (p->codes || !p->act.none)) return conv_and_more(c, p, st, &op, qx_prod(dims, 0, rank));
    QX_TRY(sums(c, st, &op));
    return scale_rows(c, &op);
}

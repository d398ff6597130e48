/* conv_integer.c - ConvInteger and QLinearConv (the standard's, and com.microsoft's with channels_last): windows of codes times
 * packed weights, sums exact in int32. Positions outside of the picture count as the zero point, that is 0. */
#include <string.h>

#include "runtime/cpu/codes/codes.h"
#include "runtime/cpu/codes/int8.h"
#include "runtime/cpu/picture/nhwc.h"
#include "runtime/cpu/codes/qdq.h"
#include "runtime/cpu/move/strided.h"

typedef struct state { qx_code_panels w; } state;

static void drop(qx_ctx *ctx, void *block)
{
    qx_code_panels_free(ctx, &((state *)block)->w);
}

typedef struct job {
    qx_conv_shape s;
    bool last;                         /* channels_last */
    const uint8_t *x; bool x_signed;
    const qx_code_panels *w;
    int32_t zx;
    const int32_t *zw; bool zw_per;
    float sx; const float *sw; bool sw_per;
    const int32_t *bias;
    qx_code_out out;
    char *y; int y_size;
    int64_t k, per, positions, blocks, per_thread;
    uint8_t *scratch;
} job;

/* Window of output position p of one group: dst[kernel position][channel]. x has channels last. */
static void window(const job *j, int64_t b, int64_t g, int64_t p, uint8_t *dst)
{
    const qx_conv_shape *s = &j->s;
    int64_t ch = s->in_ch / s->group, kvol = j->k / ch, plane = 1, o[3], rest = p;
    for (int d = s->spatial - 1; d >= 0; rest /= s->out[d], d--) {
        o[d] = rest % s->out[d] * s->stride[d] - s->begin[d];
        plane *= s->in[d];
    }
    const uint8_t *x = j->x + b * s->in_ch * plane + g * ch;
    for (int64_t q = 0; q < kvol; q++, dst += ch) {
        int64_t off = 0, r = q, at[3];
        bool in = true;
        for (int d = s->spatial - 1; d >= 0; r /= s->kernel[d], d--) {
            at[d] = o[d] + r % s->kernel[d] * s->dilation[d];
            in = in && at[d] >= 0 && at[d] < s->in[d];
        }
        for (int d = 0; d < s->spatial; d++) off = off * s->in[d] + at[d];
        if (in) memcpy(dst, x + off * s->in_ch, (size_t)ch);
        else memset(dst, (uint8_t)j->zx, (size_t)ch);
    }
}

static qx_status piece(void *user, int64_t i)
{
    const job *j = user;
    const int64_t block = i % j->blocks, g = i / j->blocks % j->s.group, b = i / j->blocks / j->s.group, first = block * QX_CODE_ROWS;
    const int64_t rows = j->positions - first < QX_CODE_ROWS ? j->positions - first : QX_CODE_ROWS, out_ch = j->s.out_ch;
    uint8_t *win = j->scratch + qx_thread_index() * j->per_thread;
    qx_code_out out = j->out;
    out.ibias = j->bias ? j->bias + g * j->per : NULL;
    for (int64_t r = 0; r < rows; r++) window(j, b, g, first + r, win + r * j->k);
    for (int64_t p = 0; p < qx_igemm_panels(j->per); p++) {
        const int64_t ch = g * j->per + p * QX_IGEMM_PANEL;
        const int64_t at = j->last ? (b * j->positions + first) * out_ch + ch : (b * out_ch + ch) * j->positions + first;
        const qx_code_tile t = {
            .w = j->w, .matrix = g, .panel = p, .rows = rows, .a = win, .lda = j->k, .a_signed = j->x_signed, .za = &j->zx,
            .zb = j->zw && j->zw_per ? j->zw + g * j->per : j->zw, .zb_per_col = j->zw_per, .sa = &j->sx,
            .sb = j->sw_per ? j->sw + g * j->per : j->sw,
            .sb_per_col = j->sw_per, .out = &out, .y = j->y + at * j->y_size, .row = j->last ? out_ch : 1,
                .col = j->last ? 1 : j->positions};
        qx_code_tile_run(&t);
    }
    return QX_OK;
}

/* One element, or one an output channel. */
static qx_status per_channel(const qx_call *c, uint32_t i, int64_t out_ch, bool *per)
{
    const qx_tensor *t = qx_call_in(c, i);
    *per = t && t->numel != 1;
    if (t && t->numel != 1 && t->numel != out_ch)
        QX_CALL_FAIL(c, QX_E_SHAPE, "input %u has %lld elements for %lld output channels", i, (long long)t->numel, (long long)out_ch);
    return QX_OK;
}

/* ConvInteger: x, w, x_zero, w_zero. QLinearConv: x, scale, zero, w, scale, zero, y scale, zero, bias. */
static qx_status parameters(qx_call *c, job *j, bool qlinear)
{
    double sx = 1, sy = 1;
    int64_t zx, zy;
    const uint32_t z_in = 2, zw_in = qlinear ? 5 : 3;
    QX_TRY(qx_call_scalar_i64(c, z_in, 0, &zx));
    j->zx = (int32_t)zx;
    QX_TRY(per_channel(c, zw_in, j->s.out_ch, &j->zw_per));
    QX_TRY(qx_q_zeros(c, qx_call_in(c, zw_in), &j->zw));
    if (!qlinear) return QX_OK;
    const qx_tensor *yz = qx_call_in(c, 7), *bias = qx_call_in(c, 8);
    QX_TRY(qx_call_scalar_f64(c, 1, 1, &sx));
    QX_TRY(qx_call_scalar_f64(c, 6, 1, &sy));
    QX_TRY(qx_call_scalar_i64(c, 7, 0, &zy));
    QX_TRY(per_channel(c, 4, j->s.out_ch, &j->sw_per));
    QX_TRY(qx_call_in_f32(c, 4, &j->sw));
    j->sx = (float)sx;
    j->out = (qx_code_out){.kind = QX_CODE_CODES, .codes = yz ? yz->dtype : QX_DT_UINT8, .sy = (float)sy, .zy = (int32_t)zy};
    if (j->out.codes != QX_DT_INT8 && j->out.codes != QX_DT_UINT8)
        QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "an output of %s codes", qx_dtype_get(j->out.codes)->text);
    if (!bias) return QX_OK;
    if (bias->dtype != QX_DT_INT32 || bias->numel != j->s.out_ch)
        QX_CALL_FAIL(c, QX_E_SHAPE, "the bias has %lld elements of %s; %lld of int32 are needed", (long long)bias->numel,
                     qx_dtype_get(bias->dtype)->text, (long long)j->s.out_ch);
    j->bias = bias->data;
    return QX_OK;
}

/* Packed [kernel position][channel] by output channel, a group a matrix; the file has channels before positions. */
static qx_status weights(qx_call *c, job *j, uint32_t w_in, qx_code_panels *fresh)
{
    const qx_tensor *w = c->in[w_in];
    const bool keep = qx_call_in_const(c, w_in);
    const int64_t ch = j->s.in_ch / j->s.group, kvol = j->k / ch;
    const qx_strided turned = {3, {j->s.out_ch, kvol, ch}, {j->k, 1, kvol}};
    state *st = NULL;
    uint8_t *codes = NULL;
    QX_TRY(qx_call_state(c, sizeof *st, drop, (void **)&st));
    qx_code_panels *p = keep ? &st->w : fresh;
    j->w = p;
    if (keep && p->packed) return QX_OK;
    *p = (qx_code_panels){.k = j->k, .n = j->per, .count = j->s.group, .is_signed = w->dtype == QX_DT_INT8};
    QX_TRY(QX_CALL_SCRATCH(c, w->numel, &codes));
    QX_TRY(qx_strided_copy(c->ctx, &turned, w->data, codes, 1));
    const qx_code_source src = {codes, j->per * j->k, 1, j->k};
    QX_TRY(qx_code_pack(c, &src, keep, p));
    if (keep) qx_call_drop_const(c, w_in);
    return QX_OK;
}

/* The picture with channels last: its own, or a copy. */
static qx_status picture(qx_call *c, job *j, const qx_tensor *x)
{
    const int64_t px = x->numel / (j->s.batch * j->s.in_ch);
    const qx_strided turned = {3, {j->s.batch, px, j->s.in_ch}, {px * j->s.in_ch, 1, px}};
    uint8_t *copy = NULL;
    j->x = x->data;
    j->x_signed = x->dtype == QX_DT_INT8;
    if (j->last || px == 1) return QX_OK;
    QX_TRY(QX_CALL_SCRATCH(c, x->numel, &copy));
    j->x = copy;
    return qx_strided_copy(c->ctx, &turned, x->data, copy, 1);
}

qx_status qx_cpu_conv_integer(qx_call *c)
{
    const bool qlinear = c->node->op->id != QX_OP_ConvInteger;
    const uint32_t w_in = qlinear ? 3 : 1;
    const qx_tensor *x, *w;
    qx_tensor view, *y = NULL;
    qx_code_panels fresh = {0};
    int64_t dims[QX_MAX_RANK];
    job j = {.last = qx_call_int(c, "channels_last", 0) != 0};
    QX_TRY(qx_code_input(c, 0, &x));
    QX_TRY(qx_code_input(c, w_in, &w));
    view = *x;
    if (j.last) QX_TRY(qx_nhwc_view(c, x, &view));
    QX_TRY(qx_conv_shape_of(c, &view, w, &j.s));
    QX_TRY(parameters(c, &j, qlinear));
    memcpy(dims, (int64_t[5]){j.s.batch, j.s.out_ch, j.s.out[0], j.s.out[1], j.s.out[2]}, 5 * sizeof *dims);
    if (j.last) qx_nhwc_dims(x->rank, (int64_t[5]){j.s.batch, j.s.out_ch, j.s.out[0], j.s.out[1], j.s.out[2]}, dims);
    QX_TRY(qx_call_out(c, 0, qlinear ? j.out.codes : QX_DT_INT32, x->rank, dims, &y));
    if (y->numel == 0) return QX_OK;
    j.per = j.s.out_ch / j.s.group;
    j.k = w->numel / j.s.out_ch;
    if (j.k == 0 || x->numel == 0) QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "a picture or weight without elements");
    QX_TRY(weights(c, &j, w_in, &fresh));
    QX_TRY(picture(c, &j, x));
    j.y = y->data;
    j.y_size = qlinear ? 1 : 4;
    j.positions = y->numel / (j.s.batch * j.s.out_ch);
    j.blocks = (j.positions + QX_CODE_ROWS - 1) / QX_CODE_ROWS;
    j.per_thread = (QX_CODE_ROWS * j.k + 63) / 64 * 64;
    QX_TRY(QX_CALL_SCRATCH(c, j.per_thread * qx_ctx_threads(c->ctx), &j.scratch));
    qx_call_note_kernel(c, "own int8 panels", 2.0 * (double)y->numel * (double)j.k);
    return qx_parallel(c->ctx, j.s.batch * j.s.group * j.blocks, piece, &j);
}

/* conv_rows.c - see conv_rows.h. Windows lie tap by tap, in each the channels side by side, so that they are copied in runs from
 * pictures whose channels lie so. */
#include "runtime/cpu/conv/conv_rows.h"

#include <string.h>

#include "kernels/gemm.h"

static int64_t pixels(const qx_conv_shape *s) { return s->batch * qx_prod(s->out, 0, s->spatial); }
static int64_t taps(const qx_conv_shape *s) { return qx_prod(s->kernel, 0, s->spatial); }

/* Each output pixel sees its own input pixel and nothing else. */
static bool one_to_one(const qx_conv_shape *s)
{
    for (int i = 0; i < s->spatial; i++)
        if (s->kernel[i] != 1 || s->stride[i] != 1 || s->begin[i] || s->end[i]) return false;
    return true;
}

/* The channels of a pixel lie side by side, pixel after pixel. */
static bool is_rows(const int64_t *dims, int spatial, int layout) { return layout < 0 || qx_prod(dims, 0, spatial) == 1; }

bool qx_conv_rows_pay(const qx_conv_shape *s)
{
    return s->group == 1 && pixels(s) <= QX_GEMM_FEW;
}

typedef struct pack_job { const float *w; float *turned; int64_t in, taps; } pack_job;

static qx_status turn_piece(void *user, int64_t o)
{
    const pack_job *j = user;
    const float *from = j->w + o * j->in * j->taps;
    float *to = j->turned + o * j->in * j->taps;
    for (int64_t i = 0; i < j->in; i++)
        for (int64_t t = 0; t < j->taps; t++) to[t * j->in + i] = from[i * j->taps + t];
    return QX_OK;
}

qx_status qx_conv_rows_pack(qx_call *c, const qx_conv_shape *s, const float *w, qx_packed **out)
{
    const int64_t k = taps(s) * s->in_ch;
    pack_job j = {.w = w, .in = s->in_ch, .taps = taps(s)};
    if (j.taps > 1) {
        QX_TRY(QX_CALL_SCRATCH(c, s->out_ch * k, &j.turned));
        QX_TRY(qx_parallel(c->ctx, s->out_ch, turn_piece, &j));
        w = j.turned;
    }
    return qx_packed_new(c, &(qx_matrix){.k = k, .n = s->out_ch, .row = 1, .col = k, .data = w}, pixels(s), out);
}

/* A picture: the first of `channels`, of which `block` lie side by side; plane: pixels. */
typedef struct picture { float *data; int64_t channels, block, plane; } picture;

static picture picture_of(const float *data, int64_t channels, const int64_t *dims, int spatial, int layout)
{
    return (picture){(float *)(uintptr_t)data, channels, layout > 0 ? layout : layout < 0 ? channels : 1, qx_prod(dims, 0, spatial)};
}

static void read_pixel(const picture *p, int64_t n, int64_t at, float *row)
{
    const float *x = p->data + n * p->channels * p->plane + at * p->block;
    if (p->block == 1) for (int64_t c = 0; c < p->channels; c++) row[c] = x[c * p->plane];
    else for (int64_t c = 0; c < p->channels; c += p->block) memcpy(row + c, x + c * p->plane, (size_t)p->block * sizeof *row);
}

static void write_pixel(const picture *p, int64_t n, int64_t at, const float *row)
{
    float *y = p->data + n * p->channels * p->plane + at * p->block;
    if (p->block == 1) for (int64_t c = 0; c < p->channels; c++) y[c * p->plane] = row[c];
    else for (int64_t c = 0; c < p->channels; c += p->block) memcpy(y + c * p->plane, row + c, (size_t)p->block * sizeof *row);
}

typedef struct rows_job {
    const qx_conv_shape *s;
    const qx_conv_op *op;
    picture x, y, add;
    float *in, *out, *more;
    int64_t k;
    bool bare_in, bare_out;
} rows_job;

/* Where tap t of output pixel o is in the input; -1: outside. */
static int64_t seen(const qx_conv_shape *s, int64_t o, int64_t t)
{
    int64_t at = 0, pixel = 1;
    for (int d = s->spatial - 1; d >= 0; d--) {
        const int64_t p = o % s->out[d] * s->stride[d] - s->begin[d] + t % s->kernel[d] * s->dilation[d];
        if (p < 0 || p >= s->in[d]) return -1;
        at += p * pixel;
        pixel *= s->in[d];
        o /= s->out[d];
        t /= s->kernel[d];
    }
    return at;
}

static qx_status read_piece(void *user, int64_t i)
{
    const rows_job *j = user;
    const qx_conv_shape *s = j->s;
    const int64_t n = i / j->y.plane, o = i % j->y.plane, all = taps(s);
    for (int64_t t = 0; t < all && !j->bare_in; t++) {
        float *row = j->in + i * j->k + t * s->in_ch;
        const int64_t at = seen(s, o, t);
        if (at < 0) memset(row, 0, (size_t)s->in_ch * sizeof *row);
        else read_pixel(&j->x, n, at, row);
    }
    if (j->more) read_pixel(&j->add, n, o, j->more + i * s->out_ch);
    return QX_OK;
}

static qx_status write_piece(void *user, int64_t i)
{
    const rows_job *j = user;
    float *row = j->out + i * j->s->out_ch;
    qx_activation_piece(j->op->act, row, j->s->out_ch);
    if (!j->bare_out) write_pixel(&j->y, i / j->y.plane, i % j->y.plane, row);
    return QX_OK;
}

enum { ALONE = 1 << 14 }; /* numbers that are copied before a second thread has begun */

static qx_status each_pixel(qx_call *c, int64_t n, int64_t numbers, qx_piece_fn *fn, rows_job *j)
{
    if (n * numbers > ALONE) return qx_parallel(c->ctx, n, fn, j);
    for (int64_t i = 0; i < n; i++) QX_TRY(fn(j, i));
    return QX_OK;
}

qx_status qx_conv_rows_run(qx_call *c, qx_packed *w, const qx_conv_shape *s, const qx_conv_op *op)
{
    const int64_t m = pixels(s);
    rows_job j = {.s = s, .op = op, .k = taps(s) * s->in_ch, .x = picture_of(op->x, s->in_ch, s->in, s->spatial, s->x_block),
                  .y = picture_of(op->y, s->out_ch, s->out, s->spatial, s->y_block),
                  .add = picture_of(op->add, s->out_ch, s->out, s->spatial, s->y_block)};
    j.bare_in = one_to_one(s) && is_rows(s->in, s->spatial, s->x_block);
    j.bare_out = is_rows(s->out, s->spatial, s->y_block);
    j.out = op->y;
    if (!j.bare_in) QX_TRY(QX_CALL_SCRATCH(c, m * j.k, &j.in));
    if (!j.bare_out) QX_TRY(QX_CALL_SCRATCH(c, m * s->out_ch, &j.out));
    if (!j.bare_out && op->add) QX_TRY(QX_CALL_SCRATCH(c, m * s->out_ch, &j.more));
    if (!j.bare_in || j.more) QX_TRY(each_pixel(c, m, j.k + s->out_ch, read_piece, &j));
    const qx_gemm g = {.m = m, .x = j.bare_in ? op->x : j.in, .bias = op->bias, .add = j.more ? j.more : op->add, .y = j.out};
    QX_TRY(qx_gemm_run(c, w, &g));
    return j.bare_out && op->act->none ? QX_OK : each_pixel(c, m, s->out_ch, write_piece, &j);
}

/* batch_norm.c - BatchNormalization: with the statistics that it is given, and (training) with those of the batch, which also
 * move the running ones. With the activation behind it, when that is part of the step. */
#include <math.h>

#include "kernels/loops/multi.h"
#include "runtime/cpu/pointwise/activation.h"
#include "runtime/fuse/fuse.h"

typedef struct bn {
    const qx_activation *act;
    int64_t batch, ch, inner, block, all, per_piece;
    const float *x, *scale, *bias, *mean, *var;
    float *y, *factor;
    double eps;
} bn;

static qx_status read(qx_call *c, bn *b)
{
    const qx_tensor *x;
    const float *p[4];
    QX_TRY(qx_call_need(c, 0, &x));
    b->ch = x->rank > 1 ? x->dims[1] : 1;
    b->batch = x->rank ? x->dims[0] : 1;
    b->inner = x->rank > 1 ? qx_prod(x->dims, 2, x->rank) : 1;
    for (uint32_t i = 0; i < 4; i++) {
        const qx_tensor *t;
        QX_TRY(qx_call_need(c, i + 1, &t));
        if (t->numel != b->ch)
            QX_CALL_FAIL(c, QX_E_SHAPE, "input %u has %lld elements for %lld channels", i + 1, (long long)t->numel, (long long)b->ch);
        QX_TRY(qx_call_in_f32(c, i + 1, &p[i]));
    }
    b->scale = p[0], b->bias = p[1], b->mean = p[2], b->var = p[3];
    b->eps = (double)qx_call_float(c, "epsilon", 1e-5f);
    return qx_call_in_f32(c, 0, &b->x);
}

typedef struct state { float *factor; } state;

static void drop(qx_ctx *ctx, void *block) { qx_free(ctx, ((state *)block)->factor); }

/* scale / sqrt(var + eps) of each channel: once where they are constant. */
static qx_status factors(qx_call *c, bn *b, bool trains)
{
    state *st = NULL;
    if (trains || !qx_call_in_const(c, 1) || !qx_call_in_const(c, 4)) {
        QX_TRY(QX_CALL_SCRATCH(c, b->ch + 1, &b->factor));
    } else {
        QX_TRY(qx_call_state(c, sizeof *st, drop, (void **)&st));
        b->factor = st->factor;
        if (b->factor) return QX_OK;
        QX_TRY(qx_alloc_array(c->ctx, (size_t)b->ch + 1, sizeof *b->factor, (void **)&st->factor));
        b->factor = st->factor;
    }
    for (int64_t k = 0; k < b->ch; k++) b->factor[k] = (float)((double)b->scale[k] / sqrt((double)b->var[k] + b->eps));
    return QX_OK;
}

/* One number after the other of one channel; of several that lie side by side. */
QX_INLINE void affine_body(int64_t n, const float *restrict x, float a, float m, float add, float *restrict y)
{
    for (int64_t i = 0; i < n; i++) y[i] = (x[i] - m) * a + add;
}
QX_MULTI(static, affine, (int64_t n, const float *x, float a, float m, float add, float *y), (n, x, a, m, add, y))

QX_INLINE void lanes_any_body(int64_t n, int64_t points, const float *restrict x, const float *restrict a, const float *restrict m,
                              const float *restrict add, float *restrict y)
{
    for (int64_t i = 0; i < points; i++)
        for (int64_t l = 0; l < n; l++) y[i * n + l] = (x[i * n + l] - m[l]) * a[l] + add[l];
}
QX_INLINE void lanes16_body(int64_t points, const float *x, const float *a, const float *m, const float *add, float *y)
{
    lanes_any_body(16, points, x, a, m, add, y);
}
QX_MULTI(static, lanes16, (int64_t points, const float *x, const float *a, const float *m, const float *add, float *y),
         (points, x, a, m, add, y))
QX_MULTI(static, lanes_any, (int64_t n, int64_t points, const float *x, const float *a, const float *m, const float *add, float *y),
         (n, points, x, a, m, add, y))

enum { PIECE = 4096 }; /* numbers, about */

/* Runs of `inner` pixels of `block` channels, per_piece of all; where these are all channels, a run is a pixel, and they are
 * taken together. */
static qx_status piece(void *user, int64_t i)
{
    const bn *b = user;
    const int64_t run = b->inner * b->block, first = i * b->per_piece, end = first + b->per_piece < b->all ? first + b->per_piece : b->all;
    const int64_t at_once = b->block == b->ch ? end - first : 1;
    for (int64_t r = first; r < end; r += at_once) {
        const int64_t k = r * b->block % b->ch;
        const float *x = b->x + r * run;
        float *y = b->y + r * run;
        if (b->block == 1) affine(run * at_once, x, b->factor[k], b->mean[k], b->bias[k], y);
        else if (b->block == 16) lanes16(b->inner * at_once, x, b->factor + k, b->mean + k, b->bias + k, y);
        else lanes_any(b->block, b->inner * at_once, x, b->factor + k, b->mean + k, b->bias + k, y);
    }
    qx_activation_piece(b->act, b->y + first * run, (end - first) * run);
    return QX_OK;
}

static qx_status apply(qx_call *c, bn *b, int block)
{
    const int64_t numel = b->batch * b->ch * b->inner;
    if (numel == 0) return QX_OK;
    b->block = b->inner == 1 ? b->ch : block ? block : 1;
    if (b->block == b->ch) b->inner = 1;
    b->all = numel / (b->block * b->inner);
    b->per_piece = PIECE / (b->block * b->inner) + 1;
    return qx_parallel(c->ctx, (b->all + b->per_piece - 1) / b->per_piece, piece, b);
}

/* Mean and variance (of the population) of channel k. */
static void moments(const bn *b, int64_t k, double *mean, double *var)
{
    const double n = (double)(b->batch * b->inner);
    double s = 0, v = 0;
    for (int64_t i = 0; i < b->batch; i++)
        for (int64_t j = 0; j < b->inner; j++) s += (double)b->x[(i * b->ch + k) * b->inner + j];
    for (int64_t i = 0; i < b->batch; i++)
        for (int64_t j = 0; j < b->inner; j++) {
            const double d = (double)b->x[(i * b->ch + k) * b->inner + j] - s / n;
            v += d * d;
        }
    *mean = s / n;
    *var = v / n;
}

/* running = momentum * running + (1 - momentum) * batch; outputs 1 and 2. */
static qx_status train(qx_call *c, bn *b)
{
    float *mean = NULL, *var = NULL, *out_mean, *out_var;
    const double keep = (double)qx_call_float(c, "momentum", 0.9f);
    if (c->version < 14) QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "training mode before version 14");
    if (b->batch * b->inner == 0) QX_CALL_FAIL(c, QX_E_SHAPE, "statistics of an empty batch");
    QX_TRY(QX_CALL_SCRATCH(c, b->ch + 1, &mean));
    QX_TRY(QX_CALL_SCRATCH(c, b->ch + 1, &var));
    QX_TRY(qx_call_out_f32(c, 1, c->in[3]->dtype, 1, &b->ch, &out_mean));
    QX_TRY(qx_call_out_f32(c, 2, c->in[4]->dtype, 1, &b->ch, &out_var));
    for (int64_t k = 0; k < b->ch; k++) {
        double m, v;
        moments(b, k, &m, &v);
        mean[k] = (float)m;
        var[k] = (float)v;
        out_mean[k] = (float)((double)b->mean[k] * keep + m * (1 - keep));
        out_var[k] = (float)((double)b->var[k] * keep + v * (1 - keep));
    }
    b->mean = mean;
    b->var = var;
    return QX_OK;
}

qx_status qx_cpu_batch_norm(qx_call *c)
{
    static const qx_activation none = {.none = true};
    bn b = {.act = c->fused ? &((const qx_conv_params *)c->fused)->act : &none};
    QX_TRY(read(c, &b));
    QX_TRY(qx_call_out_f32(c, 0, c->in[0]->dtype, c->in[0]->rank, c->in[0]->dims, &b.y));
    const bool trains = qx_call_int(c, "training_mode", 0) || (c->version < 7 && !qx_call_int(c, "is_test", 0));
    if (trains) QX_TRY(train(c, &b));
    QX_TRY(factors(c, &b, trains));
    return apply(c, &b, qx_call_in_block(c, 0));
}

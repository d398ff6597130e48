/* batch_norm.c - BatchNormalization: with the statistics that it is given, and (training) with those of the batch, which also move the running ones. With the
 * activation behind it, when that is part of the step. */
#include <math.h>

#include "kernels/multi.h"
#include "runtime/cpu/activation.h"
#include "runtime/fuse/fuse.h"

typedef struct bn { const qx_activation *act; int64_t batch, ch, inner; int block; const float *x, *scale, *bias, *mean, *var; float *y, *factor; double eps; } bn;

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
        if (t->numel != b->ch) QX_CALL_FAIL(c, QX_E_SHAPE, "input %u has %lld elements for %lld channels", i + 1, (long long)t->numel, (long long)b->ch);
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

static qx_status apply(void *user, int64_t r)
{
    const bn *b = user;
    const int64_t k = r % b->ch;
    const float a = b->factor[k], m = b->mean[k], add = b->bias[k];
    for (int64_t i = r * b->inner; i < (r + 1) * b->inner; i++) b->y[i] = (b->x[i] - m) * a + add;
    qx_activation_piece(b->act, b->y + r * b->inner, b->inner);
    return QX_OK;
}

enum { ROWS = 64 }; /* rows of channels a piece */

/* Channels last: inner is 1. */
static qx_status apply_rows(void *user, int64_t piece)
{
    const bn *b = user;
    const int64_t end = (piece + 1) * ROWS < b->batch ? (piece + 1) * ROWS : b->batch;
    const float *restrict a = b->factor, *restrict m = b->mean, *restrict add = b->bias;
    for (int64_t r = piece * ROWS; r < end; r++) {
        const float *x = b->x + r * b->ch;
        float *y = b->y + r * b->ch;
        for (int64_t k = 0; k < b->ch; k++) y[k] = (x[k] - m[k]) * a[k] + add[k];
    }
    qx_activation_piece(b->act, b->y + piece * ROWS * b->ch, (end - piece * ROWS) * b->ch);
    return QX_OK;
}

/* Channels side by side, as convolutions leave them. */
QX_INLINE void lanes_any_body(int n, int64_t points, const float *restrict x, const float *restrict a, const float *restrict m, const float *restrict add, float *restrict y)
{
    for (int64_t i = 0; i < points; i++)
        for (int l = 0; l < n; l++) y[i * n + l] = (x[i * n + l] - m[l]) * a[l] + add[l];
}
QX_INLINE void lanes16_body(int64_t points, const float *x, const float *a, const float *m, const float *add, float *y) { lanes_any_body(16, points, x, a, m, add, y); }
QX_MULTI(static, lanes16, (int64_t points, const float *x, const float *a, const float *m, const float *add, float *y), (points, x, a, m, add, y))

QX_MULTI(static, lanes_any, (int n, int64_t points, const float *x, const float *a, const float *m, const float *add, float *y), (n, points, x, a, m, add, y))

static qx_status apply_lanes(void *user, int64_t r)
{
    const bn *b = user;
    const int64_t k = r * b->block % b->ch, at = r * b->block * b->inner;
    if (b->block == 16) lanes16(b->inner, b->x + at, b->factor + k, b->mean + k, b->bias + k, b->y + at);
    else lanes_any(b->block, b->inner, b->x + at, b->factor + k, b->mean + k, b->bias + k, b->y + at);
    qx_activation_piece(b->act, b->y + at, b->inner * b->block);
    return QX_OK;
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
    b.block = qx_call_in_block(c, 0);
    if (b.block) return qx_parallel(c->ctx, b.batch * b.ch / b.block, apply_lanes, &b);
    if (b.inner == 1) return qx_parallel(c->ctx, (b.batch + ROWS - 1) / ROWS, apply_rows, &b);
    return b.inner ? qx_parallel(c->ctx, b.batch * b.ch, apply, &b) : QX_OK;
}

/* causal_conv.c - CausalConvWithState of the standard and of com.microsoft: every channel by its own short kernel over the
 * present and the positions before it; what comes before the first is the carried state, or zeros. */
#include <string.h>

#include "kernels/pointwise.h"
#include "runtime/cpu/op.h"

typedef struct job { const float *x, *w, *bias, *past; float *y, *present; int64_t channels, length, k; bool silu; qx_dtype type; } job;

/* Element t of the padded row: state first, then input. */
static float at(const job *j, int64_t row, int64_t t)
{
    if (t >= j->k - 1) return j->x[row * j->length + t - (j->k - 1)];
    return j->past ? j->past[row * (j->k - 1) + t] : 0.0f;
}

static qx_status piece(void *user, int64_t row)
{
    const job *j = user;
    const int64_t ch = row % j->channels;
    const float *w = j->w + ch * j->k, one[2] = {1, 0};
    float *y = j->y + row * j->length;
    for (int64_t t = 0; t < j->length; t++) {
        float s = 0;
        for (int64_t i = 0; i < j->k; i++) s += w[i] * at(j, row, t + i);
        y[t] = s + (j->bias ? j->bias[ch] : 0.0f);
    }
    if (j->silu && j->type != QX_DT_FLOAT) /* the product is rounded to the type before the activation */
        for (int64_t t = 0; t < j->length; t++) {
            uint16_t h;
            qx_from_f32(j->type, &y[t], 1, &h);
            qx_to_f32((int)j->type, &h, 1, &y[t]);
        }
    if (j->silu) qx_unary_find(QX_U_SWISH, QX_DT_FLOAT)(y, y, j->length, one);
    for (int64_t i = 0; i < j->k - 1; i++) j->present[row * (j->k - 1) + i] = at(j, row, j->length + i);
    return QX_OK;
}

/* What com.microsoft's form has beyond the standard's. */
static qx_status refuse_extras(const qx_call *c)
{
    static const struct { const char *name; int64_t plain; } extras[] =
        {{"ndim", 1}, {"dilation", 1}, {"channels_last", 0}, {"state_window", 0}};
    for (size_t i = 0; i < sizeof extras / sizeof *extras; i++) {
        const int64_t v = qx_call_int(c, extras[i].name, extras[i].plain);
        if (v != extras[i].plain)
            QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "%s is %lld; only %lld is there", extras[i].name, (long long)v, (long long)extras[i].plain);
    }
    return QX_OK;
}

qx_status qx_cpu_causal_conv(qx_call *c)
{
    const qx_tensor *x, *w, *bias = qx_call_in(c, 2), *past = qx_call_in(c, 3);
    const char *act = qx_call_str(c, "activation", "none");
    char a[96], b[96];
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_need(c, 1, &w));
    QX_TRY(refuse_extras(c));
    if (x->rank != 3 || w->rank != 3 || w->dims[0] != x->dims[1] || w->dims[1] != 1 || w->dims[2] < 1)
        QX_CALL_FAIL(c, QX_E_SHAPE, "input %s and weight %s; [batch, channels, length] and [channels, 1, k] are needed",
                     qx_tensor_describe(x, a, sizeof a), qx_tensor_describe(w, b, sizeof b));
    job j = {.channels = x->dims[1], .length = x->dims[2], .k = w->dims[2], .silu = !strcmp(act, "silu") || !strcmp(act, "swish"),
             .type = x->dtype};
    if (!j.silu && strcmp(act, "none") != 0 && *act) QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "activation '%s'", act);
    if (bias && bias->numel != j.channels)
        QX_CALL_FAIL(c, QX_E_SHAPE, "bias has %lld elements for %lld channels", (long long)bias->numel, (long long)j.channels);
    const int64_t state[3] = {x->dims[0], j.channels, j.k - 1};
    if (past && (past->rank != 3 || memcmp(past->dims, state, sizeof state) != 0))
        QX_CALL_FAIL(c, QX_E_SHAPE, "past state %s, [%lld,%lld,%lld] is needed", qx_tensor_describe(past, a, sizeof a),
                     (long long)state[0], (long long)state[1], (long long)state[2]);
    QX_TRY(qx_call_in_f32(c, 0, &j.x));
    QX_TRY(qx_call_in_f32(c, 1, &j.w));
    if (bias) QX_TRY(qx_call_in_f32(c, 2, &j.bias));
    if (past) QX_TRY(qx_call_in_f32(c, 3, &j.past));
    QX_TRY(qx_call_out_f32(c, 0, x->dtype, 3, x->dims, &j.y));
    QX_TRY(qx_call_out_f32(c, 1, x->dtype, 3, state, &j.present));
    return qx_parallel(c->ctx, x->dims[0] * j.channels, piece, &j);
}

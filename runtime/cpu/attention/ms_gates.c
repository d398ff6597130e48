/* ms_gates.c - the gates of com.microsoft's linear attention and shared experts: LinearAttentionGate, GatedAdd. */
#include <math.h>
#include <string.h>

#include "runtime/cpu/op.h"

/* log(1 + exp(v)), which for large v is v. */
static float softplus(float v) { return v > 0 ? v + log1pf(expf(-v)) : log1pf(expf(v)); }

/* A vector of one number a head, at input i. */
static qx_status per_head(qx_call *c, uint32_t i, int64_t heads, const float **out)
{
    const qx_tensor *t;
    QX_TRY(qx_call_need(c, i, &t));
    if (t->numel != heads)
        QX_CALL_FAIL(c, QX_E_SHAPE, "input %u has %lld elements for %lld heads", i, (long long)t->numel, (long long)heads);
    return qx_call_in_f32(c, i, out);
}

/* decay = decay_scale * softplus(a + dt_bias), beta = sigmoid(b); a and b are [batch, tokens, heads]. */
qx_status qx_cpu_ms_linear_attention_gate(qx_call *c)
{
    const qx_tensor *a, *b = qx_call_in(c, 3);
    const float *af, *bf, *bias, *scale;
    float *decay, *beta;
    QX_TRY(qx_call_need(c, 0, &a));
    if (a->rank < 1) QX_CALL_FAIL(c, QX_E_SHAPE, "the input is a scalar");
    const int64_t heads = a->dims[a->rank - 1];
    QX_TRY(per_head(c, 1, heads, &bias));
    QX_TRY(per_head(c, 2, heads, &scale));
    QX_TRY(qx_call_in_f32(c, 0, &af));
    QX_TRY(qx_call_out_f32(c, 0, a->dtype, a->rank, a->dims, &decay));
    for (int64_t i = 0; i < a->numel; i++) decay[i] = scale[i % heads] * softplus(af[i] + bias[i % heads]);
    if (c->n_out < 2) return QX_OK;
    QX_TRY(qx_call_need(c, 3, &b));
    if (b->rank != a->rank || memcmp(a->dims, b->dims, (size_t)a->rank * sizeof *a->dims) != 0)
        QX_CALL_FAIL(c, QX_E_SHAPE, "a has %lld elements, b %lld", (long long)a->numel, (long long)b->numel);
    QX_TRY(qx_call_in_f32(c, 3, &bf));
    QX_TRY(qx_call_out_f32(c, 1, b->dtype, b->rank, b->dims, &beta));
    for (int64_t i = 0; i < b->numel; i++) beta[i] = 1.0f / (1.0f + expf(-bf[i]));
    return QX_OK;
}

/* x + y * gate, one gate a row. */
qx_status qx_cpu_ms_gated_add(qx_call *c)
{
    const qx_tensor *x, *y, *gate;
    const float *xf, *yf, *gf;
    float *out;
    QX_TRY(qx_call_need(c, 0, &x));
    QX_TRY(qx_call_need(c, 1, &y));
    QX_TRY(qx_call_need(c, 2, &gate));
    if (qx_call_in(c, 3)) QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "gate_weight is given; only a gate that is computed before is there");
    const int64_t n = x->rank < 1 ? 1 : x->dims[x->rank - 1], rows = x->rank < 1 ? 1 : qx_prod(x->dims, 0, x->rank - 1);
    if (y->numel != x->numel || gate->numel != rows)
        QX_CALL_FAIL(c, QX_E_SHAPE, "x has %lld elements, y %lld; %lld gates for %lld rows", (long long)x->numel, (long long)y->numel,
                     (long long)gate->numel, (long long)rows);
    QX_TRY(qx_call_in_f32(c, 0, &xf));
    QX_TRY(qx_call_in_f32(c, 1, &yf));
    QX_TRY(qx_call_in_f32(c, 2, &gf));
    QX_TRY(qx_call_out_f32(c, 0, x->dtype, x->rank, x->dims, &out));
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = r * n; i < (r + 1) * n; i++) out[i] = xf[i] + yf[i] * gf[r];
    return QX_OK;
}

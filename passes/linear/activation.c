/* activation.c - see activation.h. */
#include "passes/linear/activation.h"

#include <math.h>

#include "onnx/match.h"
#include "onnx/weight/weight.h"
#include "passes/linear/linear.h"

static const struct { qx_activation what; const char *form; } forms[] = {
    {QX_ACTIVATION_SILU, QX_FORM_SILU},
    {QX_ACTIVATION_HARD_SWISH, "{HardSwish(x)|Mul(x, HardSigmoid[alpha=0.16666667, beta=0.5?](x))}"},
    {QX_ACTIVATION_HARD_SWISH, QX_FORM_HARD_SWISH},
    {QX_ACTIVATION_GELU, QX_FORM_GELU},
};

static bool made(const void *user, const qx_value *v, qx_made *out)
{
    const qx_graph *graph = user;
    const qx_node *n = v->def;
    if (!n || n->graph != graph || n->n_out != 1 || *n->domain) return false;
    *out = (qx_made){.op = n->op_type, .node = n, .in = (const qx_value *const *)n->in, .n_in = n->n_in, .reads = 1};
    return true;
}

static bool number(const void *user, const qx_value *v, double *out)
{
    qx_const_view c;
    float one;
    (void)user;
    if (!qx_const_trace(v, &c) || c.quantized || c.tensor->numel != 1 || c.tensor->dtype != QX_DT_FLOAT ||
        qx_weight_read_f32(v->graph->model->ctx, c.tensor, 0, 1, &one) != QX_OK) return false;
    *out = (double)one;
    return true;
}

static bool vanishes(const void *user, const qx_value *v) { return v->graph == user; }

qx_activation qx_activation_ends(const qx_node *n, qx_value **x)
{
    const qx_match_graph g = {n->graph, made, number, vanishes};
    qx_match m;
    for (size_t i = 0; i < sizeof forms / sizeof *forms && n->n_out == 1; i++) {
        if (!qx_match_value(&g, n->out[0], forms[i].form, &m)) continue;
        *x = (qx_value *)(uintptr_t)m.v[QX_LETTER('x')];
        return forms[i].what;
    }
    return QX_ACTIVATION_NONE;
}

qx_activation qx_activation_of(const qx_value *v, const qx_node *reader, qx_node **last)
{
    enum { LONGEST = 6 };
    for (int i = 0; i < LONGEST && reader->n_out == 1; i++) {
        qx_value *x, *y = reader->out[0];
        const qx_activation a = qx_activation_ends(reader, &x);
        if (a && x == v) {
            if (last) *last = (qx_node *)(uintptr_t)reader;
            return a;
        }
        if (y->n_uses != 1 || y->is_output) return QX_ACTIVATION_NONE;
        reader = y->uses->node;
    }
    return QX_ACTIVATION_NONE;
}

qx_activation qx_activation_made(const qx_node *n, qx_value **x, float *slope)
{
    *slope = 1;
    if (n->op->id != QX_OP_LeakyRelu) return qx_activation_ends(n, x);
    *x = n->in[0];
    *slope = qx_attr_float(n, "alpha", 0.01f);
    return QX_ACTIVATION_LEAKY;
}

float qx_activation_at(qx_activation a, float slope, float x)
{
    switch (a) {
    case QX_ACTIVATION_SILU: return x / (1 + expf(-x));
    case QX_ACTIVATION_HARD_SWISH: return x * fminf(fmaxf(x / 6 + 0.5f, 0), 1);
    case QX_ACTIVATION_GELU: return 0.5f * x * (1 + erff(x * 0.70710678f));
    case QX_ACTIVATION_LEAKY: return x < 0 ? slope * x : x;
    default: return x;
    }
}

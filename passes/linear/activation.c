/* activation.c - see activation.h. Forms as text, matched backwards from the last node; depth is that of the text.
 *
 *     Op(p, q)   made by this operator from these inputs; Add and Mul in either order
 *     x          what the activation is of, everywhere the same value
 *     =0.5       a constant number near 0.5
 *     Clip06(p)  p between 0 and 6, whichever way the operator's version says so
 *     HardSig(p) HardSigmoid with the slope of HardSwish
 *     {p|q}      p, or else q */
#include "passes/linear/activation.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "onnx/weight/weight.h"
#include "passes/linear/linear.h"

#define HALF(E) "{Mul(=0.5, Mul(x, " E "))|Mul(Mul(=0.5, x), " E ")|Mul(x, Mul(=0.5, " E "))}"
#define ERF "Add(=1, Erf({Div(x, =1.41421356)|Mul(x, =0.70710678)}))"
#define RELU6 "Clip06(Add(=3, x))"
#define SIXTH(E) "{Div(" E ", =6)|Mul(" E ", =0.16666667)}"
static const struct { qx_activation what; const char *form; } forms[] = {
    {QX_ACTIVATION_SILU, "Mul(x, Sigmoid(x))"},
    {QX_ACTIVATION_HARD_SWISH, "{HardSwish(x)|Mul(x, HardSig(x))}"},
    {QX_ACTIVATION_HARD_SWISH, "{Mul(x, " SIXTH(RELU6) ")|" SIXTH("Mul(x, " RELU6 ")") "}"},
    {QX_ACTIVATION_GELU, HALF(ERF)},
};

typedef struct matcher { const qx_graph *graph; qx_value *x; } matcher;

static const char *match(matcher *t, const char *p, qx_value *v, bool outermost);

static bool scalar(const qx_value *v, float *out)
{
    qx_const_view c;
    return v && qx_const_trace(v, &c) && !c.quantized && c.tensor->numel == 1 && c.tensor->dtype == QX_DT_FLOAT &&
        qx_weight_read_f32(v->graph->model->ctx, c.tensor, 0, 1, out) == QX_OK;
}

static bool is_number(const qx_value *v, double want)
{
    float c;
    return scalar(v, &c) && fabs((double)c - want) <= 1e-3 * fabs(want);
}

static bool clips_0_6(const qx_node *n)
{
    if (n->op->id != QX_OP_Clip) return false;
    if (n->n_in > 1) return is_number(qx_node_in(n, 1), 0) && is_number(qx_node_in(n, 2), 6);
    const float lo = qx_attr_float(n, "min", -1), hi = qx_attr_float(n, "max", -1);
    return lo >= 0 && lo <= 0 && hi >= 6 && hi <= 6;
}

static bool is_sixth(const qx_node *n)
{
    return n->op->id == QX_OP_HardSigmoid && fabsf(qx_attr_float(n, "alpha", 0.2f) - 1.0f / 6) < 1e-4f &&
        fabsf(qx_attr_float(n, "beta", 0.5f) - 0.5f) < 1e-6f;
}

static bool is_op(const qx_node *n, const char *name, size_t len)
{
    if (*n->domain) return false;
    if (len == 6 && memcmp(name, "Clip06", len) == 0) return clips_0_6(n);
    if (len == 7 && memcmp(name, "HardSig", len) == 0) return is_sixth(n);
    return strlen(n->op_type) == len && memcmp(n->op_type, name, len) == 0;
}

/* Past one expression. */
static const char *skip(const char *p)
{
    for (int depth = 0; *p; p++) {
        if (depth == 0 && strchr(",)|}", *p)) return p;
        if (*p == '(' || *p == '{') depth++;
        if (*p == ')' || *p == '}') depth--;
    }
    return p;
}

static const char *match_args(matcher *t, const char *p, qx_value *const *in, uint32_t n)
{
    for (uint32_t i = 0; *p && *p != ')'; i++) {
        if (i >= n || !in[i] || !(p = match(t, p, in[i], false))) return NULL;
        while (*p == ',' || *p == ' ') p++;
    }
    return *p ? p + 1 : NULL;
}

static const char *match_op(matcher *t, const char *p, qx_value *v, bool outermost)
{
    const size_t len = strcspn(p, "(");
    const qx_node *n = v->def;
    if (!n || n->graph != t->graph || !is_op(n, p, len) || n->n_out != 1) return NULL;
    if (!outermost && (v->n_uses != 1 || v->is_output)) return NULL;
    const matcher before = *t;
    const char *end = match_args(t, p + len + 1, n->in, n->n_in);
    if (end || n->n_in != 2 || (n->op->id != QX_OP_Add && n->op->id != QX_OP_Mul)) return end;
    *t = before;
    return match_args(t, p + len + 1, (qx_value *const[]){n->in[1], n->in[0]}, 2);
}

static const char *match_choice(matcher *t, const char *p, qx_value *v, bool outermost)
{
    const matcher before = *t;
    const char *close = skip(p);
    while (*p != '}') {
        *t = before;
        if (match(t, p + 1, v, outermost)) return close;
        p = skip(p + 1);
    }
    return NULL;
}

static const char *match(matcher *t, const char *p, qx_value *v, bool outermost)
{
    char *end;
    if (*p == '{') return match_choice(t, p, v, outermost);
    if (*p == '=') {
        const double want = strtod(p + 1, &end);
        return is_number(v, want) ? end : NULL;
    }
    if (!islower((unsigned char)*p)) return match_op(t, p, v, outermost);
    if (t->x && t->x != v) return NULL;
    t->x = v;
    return p + 1;
}

qx_activation qx_activation_ends(const qx_node *n, qx_value **x)
{
    for (size_t i = 0; i < sizeof forms / sizeof *forms && n->n_out == 1; i++) {
        matcher t = {.graph = n->graph};
        if (!match(&t, forms[i].form, n->out[0], true)) continue;
        *x = t.x;
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

/* ort_forms.c - what stands between pairs, in the form that ONNX Runtime runs fastest; nothing is rounded that was not before. It gives
 * every reader of a pair a DequantizeLinear of its own, so that its fusions of activations that read x twice fail; it moves a
 * QuantizeLinear up through a MaxPool, whose loop for codes is fast only where the convolution before it has codes too; and what it
 * copies in codes (Concat, Resize) it has to be shown pairs on both sides of. */
#include <math.h>
#include <string.h>

#include "onnx/weight/weight.h"
#include "passes/linear/activation.h"
#include "passes/linear/linear.h"
#include "passes/place/emit.h"
#include "passes/place/nodes.h"

typedef struct grid { qx_value *codes; float scale; int32_t zero; } grid;

static bool number(const qx_value *v, qx_dtype dtype, float *out)
{
    const qx_weight *w = v ? qx_value_const(v) : NULL;
    return w && w->numel == 1 && w->dtype == dtype && qx_weight_read_f32(v->graph->model->ctx, w, 0, 1, out) == QX_OK;
}

/* UINT8 codes of one scale, into or out of which n turns a float32 value. */
static bool read_grid(const qx_node *n, qx_op_id op, grid *out)
{
    float zero;
    if (!n || n->op->id != op || !number(qx_node_in(n, 1), QX_DT_FLOAT, &out->scale) || !number(qx_node_in(n, 2), QX_DT_UINT8, &zero))
        return false;
    out->zero = (int32_t)zero;
    out->codes = op == QX_OP_QuantizeLinear ? n->out[0] : n->in[0];
    return !qx_value_const(out->codes);
}

/* The one QuantizeLinear that reads v. */
static bool becomes_codes(const qx_value *v, grid *out)
{
    return v->n_uses == 1 && !v->is_output && read_grid(v->uses->node, QX_OP_QuantizeLinear, out);
}

/* ---- activations --------------------------------------------------------------------------------------------------------- */

/* `made` takes the place of what n computes, and its name. */
static qx_status replace(qx_node *n, qx_value *made)
{
    qx_value *old = n->out[0];
    QX_TRY(qx_value_replace_uses(old, made, NULL));
    return qx_value_swap_names(old, made);
}

static qx_status one_node(qx_pipeline *pipe, qx_node *n, qx_value *x, const char *op)
{
    qx_node *new;
    const char *base = n->out[0]->name;
    qx_node_spec s = {.op_type = op, .domain = "com.microsoft", .name = qx_arena_printf(pipe->model->arena, "%s_%s", base, op), .in = &x,
                      .n_in = 1, .out_names = &base, .n_out = 1};
    if (!s.name) return QX_E_NOMEM;
    if (!qx_graph_opset(pipe->model->graph, s.domain)) QX_TRY(qx_model_set_opset(pipe->model, s.domain, 1));
    QX_TRY(qx_node_add(n->graph, &s, n, &new));
    QX_TRY(qx_value_set_type(new->out[0], &n->out[0]->type));
    return replace(n, new->out[0]);
}

static qx_status quick_gelu(qx_pipeline *pipe, qx_node *n, qx_value *x)
{
    QX_TRY(one_node(pipe, n, x, "QuickGelu"));
    return qx_attr_set_float(n->prev, "alpha", 1);
}

/* x clip(x + 3, 0, 6) / 6: the second factor has the codes of x itself, between -3 and 3, on a grid of its own. Then the product is one of
 * codes (QLinearMul) and exact as before. */
static qx_status hard_swish_of_codes(qx_node *n, qx_value *x, const grid *g, bool *done)
{
    const int32_t three = (int32_t)rintf(3 / g->scale), low = g->zero - three, high = g->zero + three;
    const char *base = n->out[0]->name;
    qx_value *bound[2], *scale, *zero;
    qx_node *clip, *dq, *mul;
    *done = low >= 0 && three > 0;
    if (!*done) return QX_OK;
    QX_TRY(qx_scalar_put(n->graph, base, "low", QX_DT_UINT8, (float)low, &bound[0]));
    QX_TRY(qx_scalar_put(n->graph, base, "high", QX_DT_UINT8, (float)(high < 255 ? high : 255), &bound[1]));
    QX_TRY(qx_scalar_put(n->graph, base, "gate_scale", QX_DT_FLOAT, 1.0f / (float)(2 * three), &scale));
    QX_TRY(qx_scalar_put(n->graph, base, "gate_zero_point", QX_DT_UINT8, (float)low, &zero));
    QX_TRY(qx_node_put(n->graph, n, &(qx_new_node){"Clip", {g->codes, bound[0], bound[1]}, 3, &x->type, QX_DT_UINT8, base, "Clip"}, &clip));
    QX_TRY(qx_node_put(n->graph, n, &(qx_new_node){"DequantizeLinear", {clip->out[0], scale, zero}, 3, &x->type, QX_DT_FLOAT, base,
                                                   "gate_DequantizeLinear"}, &dq));
    QX_TRY(qx_node_put(n->graph, n, &(qx_new_node){"Mul", {x, dq->out[0]}, 2, &x->type, QX_DT_FLOAT, base, "Mul"}, &mul));
    return replace(n, mul->out[0]);
}

/* Two passes over x instead of the four of its parts. */
static qx_status hard_swish(qx_node *n, qx_value *x)
{
    qx_node *gate, *mul;
    const char *base = n->out[0]->name;
    if (n->op->id == QX_OP_HardSwish) return QX_OK;
    QX_TRY(qx_node_put(n->graph, n, &(qx_new_node){"HardSigmoid", {x}, 1, &x->type, QX_DT_FLOAT, base, "HardSigmoid"}, &gate));
    QX_TRY(qx_attr_set_float(gate, "alpha", 1.0f / 6));
    QX_TRY(qx_attr_set_float(gate, "beta", 0.5f));
    QX_TRY(qx_node_put(n->graph, n, &(qx_new_node){"Mul", {x, gate->out[0]}, 2, &x->type, QX_DT_FLOAT, base, "Mul"}, &mul));
    return replace(n, mul->out[0]);
}

static qx_status write_activation(qx_pipeline *pipe, qx_node *n)
{
    grid g, y;
    qx_value *x;
    bool done = false;
    const qx_activation what = qx_activation_ends(n, &x);
    if (!what || n->out[0]->is_output || x->type.dtype != QX_DT_FLOAT || !read_grid(x->def, QX_OP_DequantizeLinear, &g)) return QX_OK;
    if (what == QX_ACTIVATION_SILU || what == QX_ACTIVATION_GELU) {
        if (!qx_target_has(pipe->opt->target, QX_TARGET_CONTRIB)) return QX_OK;
        return what == QX_ACTIVATION_SILU ? quick_gelu(pipe, n, x) : one_node(pipe, n, x, "Gelu");
    }
    if (becomes_codes(n->out[0], &y) && qx_graph_opset(n->graph, "") >= 12) /* Clip of codes */
        QX_TRY(hard_swish_of_codes(n, x, &g, &done));
    return done ? QX_OK : hard_swish(n, x);
}

/* ---- poolings ------------------------------------------------------------------------------------------------------------ */

static bool not_negative(const qx_value *slope)
{
    float a[1024];
    enum { PIXELS = 2 };
    const qx_weight *w = slope ? qx_value_const(slope) : NULL;
    if (!w || w->dtype != QX_DT_FLOAT || w->numel > (int64_t)(sizeof a / sizeof *a)) return false;
    for (int i = 0; i < w->rank; i++)
        if (i >= w->rank - PIXELS && w->dims[i] != 1) return false; /* a slope a pixel */
    if (qx_weight_read_f32(slope->graph->model->ctx, w, 0, w->numel, a) != QX_OK) return false;
    for (int64_t i = 0; i < w->numel; i++)
        if (!(a[i] >= 0)) return false;
    return true;
}

/* Whether the largest of y is y of the largest, in every channel, and nobody else reads what is before or behind n. */
static bool never_falls(const qx_node *n)
{
    const qx_value *x = n->in[0], *y = n->out[0];
    if (!x || x->n_uses != 1 || x->is_output || y->n_uses != 1 || y->is_output) return false;
    switch (n->op->id) {
    case QX_OP_Relu: return true;
    case QX_OP_LeakyRelu: return qx_attr_float(n, "alpha", 0.01f) >= 0;
    case QX_OP_PRelu: return not_negative(qx_node_in(n, 1));
    default: return false;
    }
}

/* Whether a convolution that ONNX Runtime computes in float makes v, with at most activations between. */
static bool of_float_conv(const qx_value *v)
{
    enum { MOST = 4 };
    for (int i = 0; i < MOST && v->def && !v->is_output; i++) {
        const qx_node *n = v->def;
        qx_value *x;
        grid g;
        if (n->op->id == QX_OP_Conv) return !read_grid(n->in[0]->def, QX_OP_DequantizeLinear, &g);
        if (!(n->op->traits & QX_T_POINTWISE) || !n->n_in || !n->in[0]) return false;
        v = qx_activation_ends(n, &x) ? x : n->in[0];
    }
    return false;
}

/* Conv, Relu, MaxPool, codes becomes Conv, MaxPool, Relu, codes: with the Relu in between the QuantizeLinear stays where it is, MaxPool in
 * the layout of the float convolution (P.808's three poolings: 10 of 21 ms), and there is less of it to compute. */
static qx_status pool_first(qx_node *pool, qx_node *act)
{
    qx_value *y = pool->out[0], *x = pool->in[0];
    QX_TRY(qx_node_set_in(pool, 0, act->in[0]));
    QX_TRY(qx_value_replace_uses(y, x, NULL));
    QX_TRY(qx_node_set_in(act, 0, y));
    QX_TRY(qx_value_set_type(x, &y->type));
    QX_TRY(qx_value_swap_names(x, y));
    return qx_node_move(act, pool->next);
}

/* A Clip to what the codes reach anyway holds the QuantizeLinear back just as well; then it becomes a part of it. */
static qx_status clip_between(qx_node *pool, const grid *g)
{
    qx_value *y = pool->out[0], *low, *high;
    const float reach[2] = {(float)-g->zero * g->scale, (float)(255 - g->zero) * g->scale};
    const bool as_inputs = qx_graph_opset(pool->graph, "") >= 11;
    qx_new_node s = {"Clip", {y}, as_inputs ? 3 : 1, &y->type, QX_DT_FLOAT, y->name, "Clip"};
    qx_node *clip;
    if (as_inputs) {
        QX_TRY(qx_scalar_put(pool->graph, y->name, "low", QX_DT_FLOAT, reach[0], &low));
        QX_TRY(qx_scalar_put(pool->graph, y->name, "high", QX_DT_FLOAT, reach[1], &high));
        s.in[1] = low;
        s.in[2] = high;
    }
    QX_TRY(qx_node_put(pool->graph, pool->next, &s, &clip));
    if (!as_inputs) {
        QX_TRY(qx_attr_set_float(clip, "min", reach[0]));
        QX_TRY(qx_attr_set_float(clip, "max", reach[1]));
    }
    return qx_value_replace_uses(y, clip->out[0], clip);
}

/* Codes, LeakyRelu, MaxPool becomes codes, MaxPool of codes, LeakyRelu of those few that are left: the same numbers. */
static qx_status pool_codes(qx_pipeline *pipe, qx_node *pool, qx_node *act, const grid *g)
{
    qx_value *pair;
    QX_TRY(pool_first(pool, act));
    QX_TRY(qx_emit_pair(pipe, pool->out[0], QX_DT_UINT8, g->scale, g->zero, &pair));
    return qx_node_set_in(act, 0, pair);
}

static qx_status write_pool(qx_pipeline *pipe, qx_node *pool)
{
    grid g;
    const qx_value *x = pool->in[0];
    if (qx_node_out(pool, 1) || pool->out[0]->is_output || x->type.dtype != QX_DT_FLOAT || !x->def) return QX_OK;
    if (never_falls(x->def) && x->def->graph == pool->graph && read_grid(x->def->in[0]->def, QX_OP_DequantizeLinear, &g))
        return pool_codes(pipe, pool, x->def, &g);
    if (!becomes_codes(pool->out[0], &g) || !of_float_conv(x)) return QX_OK;
    return x->def->op->id != QX_OP_Conv && never_falls(x->def) ? pool_first(pool, x->def) : clip_between(pool, &g);
}

/* ---- copies -------------------------------------------------------------------------------------------------------------- */

static bool is_nearest(const qx_node *n)
{
    const char *mode = qx_attr_string(n, "mode", "nearest");
    return (n->op->id == QX_OP_Resize || n->op->id == QX_OP_Upsample) && strcmp(mode, "nearest") == 0;
}

/* What only moves values and is turned into codes then may as well move codes; so may what stands before it. */
static qx_status copy_codes(qx_pipeline *pipe, qx_node *n, int depth)
{
    enum { DEEPEST = 8 };
    grid g, have;
    const bool concat = n->op->id == QX_OP_Concat;
    if ((!concat && !is_nearest(n)) || !becomes_codes(n->out[0], &g) || n->out[0]->type.dtype != QX_DT_FLOAT) return QX_OK;
    for (uint32_t i = 0; i < (concat ? n->n_in : 1); i++)
        if (!n->in[i] || qx_value_const(n->in[i]) || n->in[i]->graph != n->graph) return QX_OK;
    for (uint32_t i = 0; i < (concat ? n->n_in : 1); i++) {
        qx_value *q, *v = n->in[i];
        if (read_grid(n->in[i]->def, QX_OP_DequantizeLinear, &have) && (concat || (have.scale == g.scale && have.zero == g.zero))) continue;
        QX_TRY(qx_emit_pair(pipe, v, QX_DT_UINT8, g.scale, g.zero, &q));
        QX_TRY(qx_node_set_in(n, i, q));
        if (v->def && depth < DEEPEST) QX_TRY(copy_codes(pipe, v->def, depth + 1));
    }
    return QX_OK;
}

static qx_status visit(void *user, qx_node *n)
{
    qx_pipeline *pipe = user;
    if (n->graph->function) return QX_OK;
    if (n->op->id == QX_OP_MaxPool) return write_pool(pipe, n);
    QX_TRY(copy_codes(pipe, n, 0));
    return write_activation(pipe, n);
}

qx_status qx_ort_forms(qx_pipeline *pipe)
{
    return qx_target_has(pipe->opt->target, QX_TARGET_FUSES_CODES) ? qx_model_each_node(pipe->model, visit, pipe) : QX_OK;
}

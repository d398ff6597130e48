/* fp16_safe.c - keeps a float16 network inside float16's range without changing what it computes. The VAE of SDXL carries sums
 * beyond 65,504 between its normalisations, and a normalisation does not care how large its input is. So every value that only
 * weights make and only normalisations (or other weights) read is carried divided by `factor`, a power of two: the weights and
 * biases that make it shrink, the epsilon of the normalisation that reads it shrinks by factor squared, and the normalised value
 * is what it was.
 *
 * Values that must have the same factor (the two sides of a residual Add, what a Resize reads and makes) form one class; a class
 * that a graph input or output, an activation function or any operator not listed here touches keeps its size. It happens before
 * the sweep (rewrite). */
#include <math.h>
#include <string.h>

#include "onnx/weight/weight.h"
#include "passes/linear/bias.h"
#include "passes/place/plan.h"

typedef struct state {
    uint32_t *parent;        /* [n_values] union-find: classes of values that share a factor */
    bool *fixed;             /* [n_values] by root: the class keeps its size */
    const qx_linear **maker; /* [n_node_ids] usable linear operator of a node, or of the Add that is its bias; NULL: none */
    int64_t n_scaled;
} state;

/* ---- classes --------------------------------------------------------------------------------------------------------------- */

static uint32_t root(state *s, uint32_t id)
{
    while (s->parent[id] != id) id = s->parent[id] = s->parent[s->parent[id]];
    return id;
}

static void fix(state *s, const qx_value *v)
{
    if (v) s->fixed[root(s, v->id)] = true;
}

static void unite(state *s, const qx_value *a, const qx_value *b)
{
    const uint32_t x = root(s, a->id), y = root(s, b->id);
    s->parent[y] = x;
    s->fixed[x] = s->fixed[x] || s->fixed[y];
}

static void fix_all(state *s, const qx_node *n)
{
    for (uint32_t i = 0; i < n->n_in; i++) fix(s, n->in[i]);
    for (uint32_t i = 0; i < n->n_out; i++) fix(s, n->out[i]);
}

/* Data inputs and every output: f(c x) = c f(x). */
static void unite_node(state *s, const qx_node *n, uint32_t n_data)
{
    for (uint32_t i = 1; i < n_data; i++) unite(s, n->in[0], n->in[i]);
    for (uint32_t i = 0; i < n->n_out; i++)
        if (n->out[i]) unite(s, n->in[0], n->out[i]);
}

static bool is_float(const qx_value *v) { return v && v->type.kind == QX_KIND_TENSOR && qx_dtype_is_float(v->type.dtype); }

/* A normalisation whose result does not depend on the size of x, once epsilon follows. */
static bool ignores_size(const qx_node *n)
{
    switch (n->op->id) {
    case QX_OP_InstanceNormalization: case QX_OP_GroupNormalization: case QX_OP_LayerNormalization:
    case QX_OP_RMSNormalization:
        return n->n_out == 1;
    default: return false;
    }
}

/* Number of inputs that carry data when the operator is homogeneous of degree 1 in them; 0: it is not. */
static uint32_t data_inputs(const qx_node *n)
{
    switch (n->op->id) {
    case QX_OP_Add: case QX_OP_Sub: return qx_value_const(n->in[0]) || qx_value_const(n->in[1]) ? 0 : 2;
    case QX_OP_Concat: case QX_OP_Sum: return n->n_in;
    case QX_OP_Mul: case QX_OP_Div: return qx_value_const(n->in[1]) ? 1 : 0;
    case QX_OP_Resize: case QX_OP_Upsample: case QX_OP_AveragePool: case QX_OP_MaxPool: case QX_OP_Relu:
    case QX_OP_LeakyRelu:
        return n->n_out == 1 ? 1 : 0;
    case QX_OP_Cast: return is_float(n->in[0]) && is_float(n->out[0]) ? 1 : 0;
    default: return n->op->traits & QX_T_COPY ? 1 : 0;
    }
}

static void visit(state *s, const qx_node *n)
{
    const qx_linear *l = s->maker[n->id];
    for (uint32_t i = 0; i < n->n_in; i++)
        if (n->in[i] && qx_value_const(n->in[i])) fix(s, n->in[i]); /* a constant that is joined to data keeps its size */
    if (l && l->node == n) return; /* its weight takes up whatever differs between input and output */
    if (l) unite(s, l->node->out[0], n->out[0]);
    else if (n->op->traits & QX_T_SHAPE_ONLY) return;
    else if (ignores_size(n)) fix(s, n->out[0]);
    else if (data_inputs(n)) unite_node(s, n, data_inputs(n));
    else fix_all(s, n);
}

static bool usable(const qx_linear *l)
{
    if (!l->w || !l->w_init->init || l->w->job || l->quantized || l->embedding || l->channel_axis < 0 || l->w_init->n_uses != 1)
        return false;
    if (l->w_in != l->w_init && (l->w_in->n_uses != 1 || l->w_in->def->in[0] != l->w_init)) return false;
    return (l->plain || l->is_conv) && (!l->bias || qx_bias_can_change(l)) && qx_attr_float(l->node, "alpha", 1) == 1;
}

static qx_status find_classes(qx_model *m, state *s, const qx_linears *ls)
{
    s->parent = qx_arena_array(m->arena, m->n_values, sizeof *s->parent);
    s->fixed = qx_arena_array(m->arena, m->n_values, sizeof *s->fixed);
    s->maker = qx_arena_array(m->arena, m->n_node_ids, sizeof *s->maker);
    if (!s->parent || !s->fixed || !s->maker) return QX_E_NOMEM;
    for (uint32_t i = 0; i < m->n_values; i++) s->parent[i] = i;
    for (int64_t i = 0; i < ls->count; i++) {
        const qx_linear *l = &ls->items[i];
        if (l->node->graph != m->graph || !usable(l)) continue;
        s->maker[l->node->id] = l;
        if (l->bias_add) s->maker[l->bias_add->id] = l;
    }
    for (uint32_t i = 0; i < m->graph->n_inputs; i++) fix(s, m->graph->inputs[i]);
    for (uint32_t i = 0; i < m->graph->n_outputs; i++) fix(s, m->graph->outputs[i]);
    QX_FOR_NODES(m->graph, n) {
        visit(s, n);
        for (uint32_t i = 0; i < n->n_out; i++)
            for (const qx_use *u = n->out[i] ? n->out[i]->uses : NULL; u; u = u->next)
                if (u->node->graph != m->graph) fix(s, n->out[i]); /* a subgraph reads it */
    }
    return QX_OK;
}

static bool is_scaled(state *s, const qx_value *v) { return !s->fixed[root(s, v->id)]; }

/* ---- applying ---------------------------------------------------------------------------------------------------------------- */

static qx_status scale_weight(qx_model *m, const qx_linear *l, float factor)
{
    float *rows = qx_arena_array(m->arena, (size_t)l->n, sizeof *rows);
    if (!rows) return QX_E_NOMEM;
    for (int64_t i = 0; i < l->n; i++) rows[i] = factor;
    return qx_linear_store(m, l, qx_step_new(m, &qx_step_scale_rows, NULL, rows));
}

static qx_status scale_bias(qx_model *m, qx_linear *l, float factor)
{
    float *f = qx_arena_array(m->arena, (size_t)l->n, sizeof *f);
    if (!f) return QX_E_NOMEM;
    for (int64_t i = 0; i < l->n; i++) f[i] = factor;
    return qx_bias_change(m, l, f, NULL);
}

static qx_status scale_linear(qx_model *m, state *s, qx_linear *l, float small)
{
    const float in = is_scaled(s, l->x) ? small : 1, out = is_scaled(s, l->node->out[0]) ? small : 1;
    if (out != in) QX_TRY(scale_weight(m, l, out / in));
    if (out != 1 && l->bias) QX_TRY(scale_bias(m, l, out));
    s->n_scaled += out != 1;
    return QX_OK;
}

static qx_status rewrite(qx_pass *p, qx_model *m)
{
    const float small = 1 / (float)qx_opt_int(p, "factor");
    state *s = qx_arena_alloc(m->arena, sizeof *s);
    qx_linears ls;
    if (frexpf(small, &(int){0}) != 0.5f)
        QX_FAIL(p->ctx, QX_E_USAGE, "factor is %lld, expected a power of two", (long long)qx_opt_int(p, "factor"));
    if (!s) return QX_E_NOMEM;
    QX_TRY(qx_linears_find(m, &ls));
    QX_TRY(find_classes(m, s, &ls));
    for (int64_t i = 0; i < ls.count; i++)
        if (s->maker[ls.items[i].node->id] == &ls.items[i]) QX_TRY(scale_linear(m, s, &ls.items[i], small));
    if (!s->n_scaled) QX_FAIL(p->ctx, QX_E_UNSUPPORTED, "no value lies between weights and normalisations alone; leave it out");
    QX_FOR_NODES(m->graph, n) {
        if (!ignores_size(n) || !is_scaled(s, n->in[0])) continue;
        QX_TRY(qx_attr_set_float(n, "epsilon", qx_attr_float(n, "epsilon", 1e-5f) * small * small));
    }
    return QX_OK;
}

static qx_status run(qx_pass *p, qx_model *m, qx_stats *stats)
{
    (void)p, (void)m, (void)stats; /* all was done before the sweep */
    return QX_OK;
}

static const qx_option options[] = {
    {"factor", QX_OPT_INT, "64", 2, 4096, NULL, "what the values are divided by, a power of two; larger when float16 still overflows"},
    {NULL, QX_OPT_BOOL, NULL, 0, 0, NULL, NULL},
};

const qx_passdef qx_pass_fp16_safe = {
    .name = "fp16-safe", .brief = "carry what only normalisations read in smaller numbers, so that float16 does not overflow "
                                  "(SDXL's VAE)", .options = options, .flags = QX_PASS_WEIGHTS,
    .rewrite = rewrite, .run = run,
    .doc = "y = norm(x / f, epsilon / f^2) is norm(x, epsilon). Values between weights (Conv, MatMul, Gemm) and "
           "InstanceNormalization, GroupNormalization,\n"
           "LayerNormalization or RMSNormalization, through residual Adds, Resize, reshapes, pooling and constant factors, are "
           "carried divided by `factor`: weights,\n"
           "biases and epsilon take it up, no node is added. Exact (a power of two) but for float16's smallest numbers. The "
           "file's types stay as they are."};

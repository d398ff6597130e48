/* rotate_find.c - see rotate_find.h. The residual stream is followed from the embedding forwards, one value at a time. */
#include "passes/rotate_find.h"

#include <string.h>

#include "onnx/weight/weight.h"
#include "passes/search/group.h"

typedef enum kind { NONE, STREAM, NORMED, SCALED } kind; /* stream; behind x / rms(x); behind gamma as well */

typedef struct walk {
    qx_model *m;
    const qx_linears *ls;
    const qx_linear **of;        /* node id -> linear or NULL */
    uint8_t *kind;               /* by value id */
    qx_spin_param *gamma;        /* by value id: of SCALED values */
    qx_value **queue; int64_t head, tail;
    qx_spins *out;
} walk;

/* ---- small facts --------------------------------------------------------------------------------------------------------- */

static int64_t last_dim(const qx_value *v) { return v && v->type.has_shape && v->type.rank > 0 ? v->type.dims[v->type.rank - 1].n : -1; }

static qx_weight *constant(const qx_value *v)
{
    qx_const_view c;
    return v && qx_const_trace(v, &c) && !c.quantized ? c.tensor : NULL;
}

static bool is_scalar(const qx_value *v)
{
    const qx_weight *w = constant(v);
    return w && w->numel == 1;
}

static bool is_vector(const qx_value *v, int64_t n)
{
    const qx_weight *w = constant(v);
    return w && w->numel == n && qx_dtype_is_float(w->dtype);
}

static qx_status stop(const walk *w, const qx_node *n, const char *why)
{
    char label[300];
    QX_FAIL(w->m->ctx, QX_E_UNSUPPORTED,
            "rotate cannot turn the residual stream: %s: %s; leave rotate out, or write rotate(r1=false) to turn heads alone",
            qx_node_label(n, label, sizeof label), why);
}

/* The one reader of what v holds, beside any of its shape; NULL: there are several, or the caller of the model. */
static const qx_use *only_use(const qx_value *v)
{
    const qx_use *found = NULL;
    for (const qx_use *u = v->uses; u; u = u->next) {
        if (!qx_use_reads_values(u)) continue;
        if (found) return NULL;
        found = u;
    }
    return v->is_output ? NULL : found;
}

static void push(walk *w, qx_value *v, kind k, qx_spin_param gamma)
{
    if (!v || w->kind[v->id]) return;
    w->kind[v->id] = (uint8_t)k;
    w->gamma[v->id] = gamma;
    w->queue[w->tail++] = v;
}

static const qx_linear *linear_of(const walk *w, const qx_node *n)
{
    return n && w->of[n->id] && w->of[n->id]->w && !w->of[n->id]->embedding ? w->of[n->id] : NULL;
}

/* Same elements, same last axis. */
static bool keeps_last(const qx_node *n, uint32_t index)
{
    switch (n->op->id) {
    case QX_OP_Cast: case QX_OP_Identity: return true;
    case QX_OP_Reshape: case QX_OP_Squeeze: case QX_OP_Unsqueeze: case QX_OP_Flatten:
        return index == 0 && last_dim(n->in[0]) > 0 && last_dim(n->in[0]) == last_dim(n->out[0]);
    case QX_OP_Gather: {
        const int64_t axis = qx_attr_int(n, "axis", 0), rank = n->in[0]->type.has_shape ? n->in[0]->type.rank : 0;
        return index == 0 && rank > 0 && axis != -1 && axis != rank - 1;
    }
    case QX_OP_Slice: return index == 0 && last_dim(n->in[0]) > 0 && last_dim(n->in[0]) == last_dim(n->out[0]);
    default: return false;
    }
}

/* ---- what adds to the stream ---------------------------------------------------------------------------------------------------- */

/* Upwards from an operand of a residual Add to the linear operator that makes it; NULL: something else does. */
static const qx_linear *writer_of(const walk *w, const qx_value *v)
{
    for (int i = 0; i < 8 && v && v->def && only_use(v); i++) {
        const qx_node *n = v->def;
        const qx_linear *l = linear_of(w, n);
        if (l) return l->plain && l->n == w->out->width && (!l->bias || is_vector(l->bias, l->n)) ? l : NULL;
        if (n->op->id == QX_OP_Add) {
            const int bias = is_vector(n->in[0], w->out->width) ? 0 : is_vector(n->in[1], w->out->width) ? 1 : -1;
            if (bias < 0) return NULL;
            v = n->in[1 - bias];
        } else if (keeps_last(n, 0) && n->op->id != QX_OP_Gather) {
            v = n->in[0];
        } else {
            return NULL;
        }
    }
    return NULL;
}

static qx_status add_writer(walk *w, const qx_node *n, const qx_value *v)
{
    if (w->kind[v->id] == STREAM) return QX_OK;
    const qx_linear *l = writer_of(w, v);
    if (!l)
        return stop(w, n, "what is added to the stream does not come straight from a linear operator (a norm behind it, experts, "
                          "another embedding)");
    for (int64_t i = 0; i < w->out->n_writers; i++)
        if (w->out->writers[i].lin == l) return QX_OK;
    w->out->writers[w->out->n_writers++] = (qx_spin_linear){.lin = l};
    return QX_OK;
}

static void add_gamma(walk *w, qx_node *n, uint32_t index)
{
    for (int64_t i = 0; i < w->out->n_gammas; i++)
        if (w->out->gammas[i].node == n) return;
    w->out->gammas[w->out->n_gammas++] = (qx_spin_param){n, index};
}

/* ---- one use of a value on the way ------------------------------------------------------------------------------------------------ */

static qx_status add_reader(walk *w, const qx_linear *l, uint32_t index, qx_spin_param gamma)
{
    if (index != l->x_index || l->k != w->out->width || !l->plain)
        return stop(w, l->node, "reads the stream in another way than as the rows of X W");
    w->out->readers[w->out->n_readers++] = (qx_spin_linear){.lin = l, .gamma = gamma};
    return QX_OK;
}

/* Pow(x, 2) or x * x that only feeds a mean over the last axis. */
static bool is_square(const qx_node *n)
{
    const bool pow = n->op->id == QX_OP_Pow && is_scalar(n->in[1]), mul = n->op->id == QX_OP_Mul && n->in[0] == n->in[1];
    if (!pow && !mul) return false;
    for (const qx_use *u = n->out[0]->uses; u; u = u->next) {
        const qx_op_id id = u->node->op->id;
        if ((id != QX_OP_ReduceMean && id != QX_OP_ReduceSum) || last_dim(u->node->out[0]) != 1) return false;
    }
    return true;
}

static qx_status norm_op(walk *w, qx_node *n, uint32_t gamma, qx_value *sum)
{
    if (!is_vector(qx_node_in(n, gamma), w->out->width)) return stop(w, n, "its gamma is not a constant vector");
    add_gamma(w, n, gamma);
    push(w, n->out[0], SCALED, (qx_spin_param){n, gamma});
    push(w, sum, STREAM, (qx_spin_param){0});
    return QX_OK;
}

static qx_status stream_use(walk *w, qx_node *n, uint32_t index)
{
    const qx_spin_param none = {0};
    switch (n->op->id) {
    case QX_OP_Shape: return QX_OK;
    case QX_OP_Add:
        QX_TRY(add_writer(w, n, n->in[1 - index]));
        push(w, n->out[0], STREAM, none);
        return QX_OK;
    case QX_OP_SimplifiedLayerNormalization: case QX_OP_RMSNormalization: return norm_op(w, n, 1, NULL);
    case QX_OP_ms_SkipSimplifiedLayerNormalization:
        if (index > 1 || qx_node_in(n, 3)) return stop(w, n, "has a bias of its own");
        QX_TRY(add_writer(w, n, n->in[1 - index]));
        return norm_op(w, n, 2, qx_node_out(n, 3));
    case QX_OP_LayerNormalization: case QX_OP_ms_SkipLayerNormalization: case QX_OP_ReduceMean:
        return stop(w, n, "a LayerNorm subtracts the mean, which a rotation does not keep");
    default: break;
    }
    if (is_square(n)) return QX_OK;
    if (n->op->id == QX_OP_Mul || n->op->id == QX_OP_Div) {
        const qx_value *other = n->in[1 - index];
        if (index > 0 && n->op->id == QX_OP_Div) return stop(w, n, "divides by the stream");
        if (is_scalar(other)) { push(w, n->out[0], STREAM, none); return QX_OK; }
        if (last_dim(other) == 1 && !constant(other)) { push(w, n->out[0], NORMED, none); return QX_OK; }
    }
    if (keeps_last(n, index)) { push(w, n->out[0], STREAM, none); return QX_OK; }
    const qx_linear *l = linear_of(w, n);
    return l ? add_reader(w, l, index, none) : stop(w, n, "reads the stream before a norm");
}

static qx_status normed_use(walk *w, qx_value *v, qx_node *n, uint32_t index)
{
    const qx_spin_param gamma = w->gamma[v->id];
    const kind k = (kind)w->kind[v->id];
    const qx_linear *l = linear_of(w, n);
    if (l) return add_reader(w, l, index, gamma);
    if (n->op->id == QX_OP_Shape) return QX_OK;
    if (keeps_last(n, index)) { push(w, n->out[0], k, gamma); return QX_OK; }
    if (k == NORMED && n->op->id == QX_OP_Mul && is_vector(n->in[1 - index], w->out->width)) {
        add_gamma(w, n, 1 - index);
        push(w, n->out[0], SCALED, (qx_spin_param){n, 1 - index});
        return QX_OK;
    }
    return stop(w, n, "reads a norm's result and is no linear operator with a constant weight");
}

static qx_status follow(walk *w)
{
    while (w->head < w->tail) {
        qx_value *v = w->queue[w->head++];
        if (v->is_output)
            QX_FAIL(w->m->ctx, QX_E_UNSUPPORTED, "rotate cannot turn the residual stream: '%s' on its way is an output of the graph",
                    v->name);
        for (const qx_use *u = v->uses; u; u = u->next) {
            if (u->node->graph != w->m->graph) return stop(w, u->node, "reads the stream inside a subgraph");
            QX_TRY(w->kind[v->id] == STREAM ? stream_use(w, u->node, u->index) : normed_use(w, v, u->node, u->index));
        }
    }
    return QX_OK;
}

/* The largest constant matrix that a Gather reads rows of: the embedding (position caches are smaller). */
static qx_node *find_embedding(qx_model *m)
{
    qx_node *best = NULL;
    int64_t most = 0;
    QX_FOR_NODES(m->graph, n) {
        if (n->op->id != QX_OP_Gather || qx_attr_int(n, "axis", 0) != 0) continue;
        const qx_weight *w = constant(n->in[0]);
        if (w && w->rank == 2 && qx_dtype_is_float(w->dtype) && w->numel > most) best = n, most = w->numel;
    }
    return best;
}

/* ---- making it -------------------------------------------------------------------------------------------------------------------- */

static qx_status start(walk *w, qx_model *m, const qx_linears *ls, qx_spins *out)
{
    const size_t values = m->n_values + 1u, items = (size_t)ls->count + 1;
    *w = (walk){.m = m, .ls = ls, .out = out};
    w->of = qx_arena_array(m->arena, m->n_node_ids + 1u, sizeof *w->of);
    w->kind = qx_arena_alloc(m->arena, values);
    w->gamma = qx_arena_array(m->arena, values, sizeof *w->gamma);
    w->queue = qx_arena_array(m->arena, values, sizeof(qx_value *));
    out->readers = qx_arena_array(m->arena, items, sizeof *out->readers);
    out->writers = qx_arena_array(m->arena, items, sizeof *out->writers);
    out->gammas = qx_arena_array(m->arena, m->n_node_ids + 1u, sizeof *out->gammas);
    out->outputs = qx_arena_array(m->arena, items, sizeof *out->outputs);
    out->values = qx_arena_array(m->arena, items, sizeof *out->values);
    if (!w->of || !w->kind || !w->gamma || !w->queue || !out->readers || !out->writers || !out->gammas || !out->outputs || !out->values)
        return QX_E_NOMEM;
    for (int64_t i = 0; i < ls->count; i++) w->of[ls->items[i].node->id] = &ls->items[i];
    return QX_OK;
}

qx_status qx_spins_stream(qx_model *m, const qx_linears *ls, qx_spins *out)
{
    walk w;
    QX_TRY(start(&w, m, ls, out));
    out->embedding = find_embedding(m);
    if (!out->embedding)
        QX_FAIL(m->ctx, QX_E_UNSUPPORTED,
                "rotate cannot turn the residual stream: there is no embedding (a Gather of rows of a constant matrix) in the graph");
    out->width = last_dim(out->embedding->out[0]);
    if (out->width < 2)
        QX_FAIL(m->ctx, QX_E_UNSUPPORTED, "rotate cannot turn the residual stream: the width of the embedding is not known");
    push(&w, out->embedding->out[0], STREAM, (qx_spin_param){0});
    QX_TRY(follow(&w));
    if (out->n_readers && out->n_writers) return QX_OK;
    QX_FAIL(m->ctx, QX_E_UNSUPPORTED,
            "rotate cannot turn the residual stream: %lld linear operators read and %lld write what comes from '%s'",
            (long long)out->n_readers, (long long)out->n_writers, out->embedding->name);
}

/* ---- heads ------------------------------------------------------------------------------------------------------------------------- */

static bool moves_heads(const qx_node *n)
{
    switch (n->op->id) {
    case QX_OP_Reshape: case QX_OP_Transpose: case QX_OP_Unsqueeze: case QX_OP_Squeeze: case QX_OP_Expand:
    case QX_OP_Identity: case QX_OP_Cast:
        return true;
    default: return false;
    }
}

/* Upwards from the values that the softmax meets to their projection. A cache that is a graph output stays as it is: its content
 * is part of the interface. */
static const qx_linear *value_projection(const walk *w, const qx_value *v, int64_t head)
{
    for (int i = 0; i < 16 && v && v->def && only_use(v); i++) {
        const qx_node *n = v->def;
        const qx_linear *l = linear_of(w, n);
        if (l) return l->n % head == 0 && l->plain ? l : NULL;
        if (n->op->id == QX_OP_Add) { /* bias */
            const int bias = constant(n->in[0]) ? 0 : 1;
            l = linear_of(w, n->in[1 - bias]->def);
            return l && l->plain && l->bias_add == n && l->n % head == 0 && is_vector(l->bias, l->n) &&
                only_use(n->in[1 - bias]) ? l : NULL;
        }
        if (n->op->id == QX_OP_Concat) v = n->in[n->n_in - 1];
        else if (moves_heads(n)) v = n->in[0];
        else return NULL;
        if (last_dim(v) != head && last_dim(v) % head != 0) return NULL;
    }
    return NULL;
}

/* Downwards from the product to the output projection. */
static const qx_linear *output_projection(const walk *w, const qx_value *v, int64_t head)
{
    for (int i = 0; i < 8 && v && only_use(v); i++) {
        const qx_use *u = only_use(v);
        const qx_node *n = u->node;
        const qx_linear *l = linear_of(w, n);
        if (l) return u->index == l->x_index && l->plain && l->k % head == 0 ? l : NULL;
        if (!moves_heads(n) || u->index != 0) return NULL;
        v = n->out[0];
        if (last_dim(v) < head || last_dim(v) % head) return NULL;
    }
    return NULL;
}

static void add_pair(walk *w, const qx_linear *value, const qx_linear *output, int64_t head)
{
    qx_spins *s = w->out;
    if (!value || !output || value == output || output->k % value->n) return;
    for (int64_t i = 0; i < s->n_heads; i++)
        if (s->values[i].lin == value || s->outputs[i].lin == output) return;
    s->values[s->n_heads] = (qx_spin_linear){.lin = value, .head = head};
    s->outputs[s->n_heads++] = (qx_spin_linear){.lin = output, .head = head};
}

static const struct { qx_op_id op; const char *heads; } fused[] =
    {{QX_OP_ms_GroupQueryAttention, "kv_num_heads"}, {QX_OP_ms_MultiHeadAttention, "num_heads"}};

static void fused_pair(walk *w, const qx_node *n)
{
    for (size_t i = 0; i < sizeof fused / sizeof *fused; i++) {
        const qx_value *v = n->op->id == fused[i].op ? qx_node_in(n, 2) : NULL, *cache = qx_node_out(n, 2);
        if (cache && cache->is_output) continue;
        const int64_t heads = qx_attr_int(n, fused[i].heads, 0), width = last_dim(v);
        if (v && heads > 0 && width > 0 && width % heads == 0)
            add_pair(w, value_projection(w, v, width / heads), output_projection(w, n->out[0], width / heads), width / heads);
    }
}

qx_status qx_spins_heads(qx_model *m, const qx_linears *ls, qx_spins *out)
{
    walk w;
    qx_attention *a;
    int64_t n;
    qx_spins keep = *out, fresh = {0};
    QX_TRY(start(&w, m, ls, &fresh));
    QX_TRY(qx_attentions_find(m, &a, &n));
    for (int64_t i = 0; i < n; i++) {
        const qx_value *v = a[i].pv->in[1];
        const int64_t head = last_dim(v);
        if (head > 1 && last_dim(a[i].pv->out[0]) == head)
            add_pair(&w, value_projection(&w, v, head), output_projection(&w, a[i].pv->out[0], head), head);
    }
    QX_FOR_NODES(m->graph, node) fused_pair(&w, node);
    keep.values = fresh.values;
    keep.outputs = fresh.outputs;
    keep.n_heads = fresh.n_heads;
    *out = keep;
    return QX_OK;
}

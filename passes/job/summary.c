/* summary.c - counts by walking the graph once; no weight is read. */
#include "passes/job/summary.h"

#include <stdlib.h>
#include <string.h>

#include "calib/data/fill.h"
#include "onnx/weight/weight.h"
#include "passes/linear/quantized.h"
#include "passes/place/rules.h"

static bool has_role(const qx_model *m, qx_role role)
{
    for (uint32_t i = 0; i < m->graph->n_inputs; i++)
        if (!m->graph->inputs[i]->init && qx_role_of(m->graph->inputs[i]) == role) return true;
    return false;
}

/* Diffusion models take a timestep; patches of transformers come from one or two convolutions, those of UNets from dozens. */
qx_genre qx_model_genre(const qx_model *m)
{
    enum { MANY = 8 };
    int convolutions = 0;
    if (has_role(m, QX_ROLE_IDS)) return QX_GENRE_TEXT;
    if (!has_role(m, QX_ROLE_TIMESTEP)) return QX_GENRE_NETWORK;
    for (const qx_node *n = m->graph->first; n && convolutions < MANY; n = n->next) convolutions += n->op->id == QX_OP_Conv;
    return convolutions == MANY ? QX_GENRE_UNET : QX_GENRE_DIFFUSION_TRANSFORMER;
}

enum { MAX_TYPES = 40 };
typedef struct counter { qx_summary *s; qx_arena *arena; qx_map *ops; int64_t cap; } counter;

static qx_type_total *type_row(qx_summary *s, qx_dtype t)
{
    for (int64_t i = 0; i < s->n_types; i++)
        if (s->types[i].dtype == t) return &s->types[i];
    if (s->n_types == MAX_TYPES) return NULL;
    s->types[s->n_types] = (qx_type_total){.dtype = t};
    return &s->types[s->n_types++];
}

static void count_weight(qx_summary *s, const qx_weight *w)
{
    qx_type_total *row = w ? type_row(s, w->dtype) : NULL;
    if (!row) return;
    row->tensors++;
    row->elements += w->numel;
    row->bytes += (int64_t)w->bytes;
    s->tensors++;
    s->bytes += (int64_t)w->bytes;
    if (qx_dtype_is_float(w->dtype) || qx_dtype_bits(w->dtype) <= 8) s->parameters += w->numel;
}

static qx_status count_graph(void *user, qx_graph *g)
{
    counter *c = user;
    c->s->graphs++;
    for (uint32_t i = 0; i < g->n_inits; i++) count_weight(c->s, g->inits[i]->init);
    return QX_OK;
}

/* Some exporters write weights as Constant nodes; the many constants of shapes and scalars are none. */
enum { SMALLEST_WEIGHT = 512 };
static void count_constant(qx_summary *s, const qx_node *n)
{
    const qx_weight *w = n->op->id == QX_OP_Constant && qx_node_out(n, 0) ? qx_value_const(n->out[0]) : NULL;
    if (w && w->bytes >= SMALLEST_WEIGHT) count_weight(s, w);
}

static qx_status op_row(counter *c, const qx_node *n, qx_op_total **out)
{
    qx_summary *s = c->s;
    const char *key = qx_arena_printf(c->arena, "%s|%s", n->op_type, n->domain);
    if (!key) return QX_E_NOMEM;
    int64_t at = (int64_t)(uintptr_t)qx_map_get(c->ops, key);
    if (!at) {
        QX_TRY(qx_arena_grow(c->arena, (void **)&s->ops, s->n_ops, &c->cap, sizeof *s->ops));
        s->ops[s->n_ops++] = (qx_op_total){.op = n->op_type, .domain = n->domain};
        at = s->n_ops;
        QX_TRY(qx_map_put(c->ops, key, (void *)(uintptr_t)at));
    }
    *out = &s->ops[at - 1];
    return QX_OK;
}

static qx_status count_node(void *user, qx_node *n)
{
    counter *c = user;
    qx_op_total *row;
    QX_TRY(op_row(c, n, &row));
    row->nodes++;
    c->s->nodes++;
    count_constant(c->s, n);
    c->s->quantized_nodes += qx_quantized_node(n);
    c->s->attentions += (n->op->traits & QX_T_ATTENTION) != 0;
    return QX_OK;
}

/* Bytes of a weight in 8 bit per channel, and in 4 bit with a scale of its own type for 32 elements. Embeddings and heads have 8 bits
 * in both. */
static void count_linear(counter *c, const qx_linear *l, bool counted)
{
    qx_summary *s = c->s;
    s->linear += !l->embedding;
    if (!l->w) return;
    s->linear_constant += !l->embedding;
    if (counted) return;
    const int64_t bytes = (int64_t)l->w->bytes, elem = qx_dtype_bits(l->w->dtype) / 8, numel = l->w->numel;
    const bool table = qx_rule_is_table(l) && !qx_rule_float_table(l, s->bytes);
    *(l->embedding ? &s->embedding_bytes : &s->linear_bytes) += bytes;
    if (!table && qx_rule_name(l, false)) { s->kept_bytes += l->embedding ? 0 : bytes; return; }
    s->saves_8bit += bytes - (numel + l->n * elem);
    if (table) { s->saves_4bit += bytes - (numel + l->n * elem); return; }
    if (!l->is_conv && l->contract_axis >= 0) s->saves_4bit += bytes - ((numel + 1) / 2 + l->n * ((l->k + 31) / 32) * elem);
}

static int by_bytes(const void *a, const void *b)
{
    const qx_type_total *x = a, *y = b;
    return x->bytes < y->bytes ? 1 : x->bytes > y->bytes ? -1 : (int)x->dtype - (int)y->dtype;
}

static int by_nodes(const void *a, const void *b)
{
    const qx_op_total *x = a, *y = b;
    if (x->nodes != y->nodes) return x->nodes < y->nodes ? 1 : -1;
    int name = strcmp(x->op, y->op);
    return name ? name : strcmp(x->domain, y->domain);
}

static qx_status count_linears(counter *c, qx_model *m)
{
    qx_linears ls;
    qx_attention *attentions;
    bool *seen;
    int64_t in_nodes;
    QX_TRY(qx_linears_find(m, &ls));
    QX_TRY(qx_attentions_find(m, &attentions, &in_nodes));
    c->s->attentions += in_nodes;
    QX_TRY(qx_alloc(m->ctx, (size_t)m->n_values + 1, (void **)&seen));
    qx_status st = QX_OK;
    for (int64_t k = 0; k < 2 * ls.count && st == QX_OK; k++) { /* embeddings last: a table that a head shares is the head's */
        const qx_linear *l = &ls.items[k % ls.count];
        if (l->embedding != (k >= ls.count)) continue;
        bool counted = l->w && seen[l->w_init->id];
        count_linear(c, l, counted);
        if (!l->w || counted) continue;
        seen[l->w_init->id] = true;
        qx_op_total *row;
        st = op_row(c, l->node, &row);
        if (st == QX_OK) row->weight_bytes += (int64_t)l->w->bytes;
    }
    qx_free(m->ctx, seen);
    return st;
}

qx_status qx_summarize(qx_model *m, qx_arena *arena, qx_summary *out)
{
    *out = (qx_summary){.functions = m->n_functions};
    counter c = {out, arena, NULL, 0};
    out->types = qx_arena_array(arena, MAX_TYPES, sizeof *out->types);
    if (!out->types) return QX_E_NOMEM;
    QX_TRY(qx_map_new(m->ctx, &c.ops));
    qx_status st = qx_model_each_graph(m, count_graph, &c);
    if (st == QX_OK) st = qx_model_each_node(m, count_node, &c);
    if (st == QX_OK) st = count_linears(&c, m);
    qx_map_free(c.ops);
    if (st != QX_OK) return st;
    qsort(out->types, (size_t)out->n_types, sizeof *out->types, by_bytes);
    qsort(out->ops, (size_t)out->n_ops, sizeof *out->ops, by_nodes);
    return QX_OK;
}

/* kv_find.c - finds caches, and what a quantized cache is read with; see kv_cache.h. */
#include <string.h>

#include "passes/kv_cache.h"

static bool is_cache_input(const qx_value *v)
{
    const bool named = strstr(v->name, "past") || strstr(v->name, "cache");
    return named && !v->init && qx_value_is_real(v) && v->type.has_shape && v->type.rank >= 3;
}

/* The only use of v that reads more than its shape; NULL: none, or several. */
static const qx_use *only_reader(const qx_value *v)
{
    const qx_use *found = NULL;
    for (const qx_use *u = v->uses; u; u = u->next) {
        if (u->node->op->id == QX_OP_Shape) continue;
        if (found) return NULL;
        found = u;
    }
    return found;
}

/* Through operators that hand on what they get. */
static const qx_use *through_copies(const qx_use *u)
{
    while (u && (u->node->op->id == QX_OP_Identity || (u->node->op->id == QX_OP_Concat && u->node->n_in == 1)) &&
           !u->node->out[0]->is_output)
        u = only_reader(u->node->out[0]);
    return u;
}

static bool is_cache_axis(const qx_node *concat)
{
    const qx_type *t = &concat->out[0]->type;
    const int64_t axis = qx_attr_int(concat, "axis", 0);
    return concat->n_in == 2 && t->has_shape && axis != -1 && axis != t->rank - 1;
}

/* Attention operators that put their cache behind the past by themselves: the input that is the past of the keys, and the output
 * that is their present; those of the values stand behind them. */
static const struct attention { qx_op_id op; uint32_t past, present; qx_kv_form form; } attentions[] = {
    {QX_OP_ms_GroupQueryAttention, 3, 1, QX_KV_FUSED}, {QX_OP_Attention, 4, 1, QX_KV_AROUND},
    {QX_OP_ms_MultiHeadAttention, 6, 1, QX_KV_AROUND},
};

static const struct attention *attention_with(const qx_use *u)
{
    for (size_t i = 0; i < sizeof attentions / sizeof *attentions; i++)
        if (attentions[i].op == u->node->op->id && u->index - attentions[i].past < 2) return &attentions[i];
    return NULL;
}

/* The Concat, or the attention, that takes the past and puts out the present. */
static bool by_dataflow(qx_kv_pair *p)
{
    for (const qx_use *u = p->past->uses; u; u = u->next) {
        const qx_use *end = through_copies(u);
        qx_node *n = end ? end->node : NULL;
        if (!n || n->graph != p->past->graph) continue;
        if (n->op->id == QX_OP_Concat && end->index == 0 && is_cache_axis(n) && n->out[0]->is_output) {
            p->node = n;
            p->present = n->out[0];
            p->form = QX_KV_CONCAT;
            return true;
        }
        const struct attention *at = u == end ? attention_with(u) : NULL;
        qx_value *present = at ? qx_node_out(n, at->present + u->index - at->past) : NULL;
        if (!present || !present->is_output) continue;
        if (at->form == QX_KV_FUSED && (qx_node_in(n, 12) || qx_node_in(n, 13))) return false; /* it has scales already */
        p->node = n;
        p->present = present;
        p->form = at->form;
        p->key = u->index == at->past;
        return true;
    }
    return false;
}

/* "past_key_values.3.key" goes on as "present.3.key": what stands behind the first '.' is the same. */
static bool by_name(const qx_model *m, qx_kv_pair *p)
{
    const char *tail = strchr(p->past->name, '.');
    for (uint32_t i = 0; tail && i < m->graph->n_outputs; i++) {
        qx_value *v = m->graph->outputs[i];
        const char *other = strchr(v->name, '.');
        if (strncmp(v->name, "present", 7) || !other || strcmp(tail, other) || v->type.dtype != p->past->type.dtype || !v->def) continue;
        p->present = v;
        p->form = QX_KV_AROUND;
        return true;
    }
    return false;
}

qx_status qx_kv_find(qx_model *m, qx_kv_pair **out, int64_t *n)
{
    qx_kv_pair *list = qx_arena_array(m->arena, m->graph->n_inputs + 1u, sizeof *list);
    if (!list) return QX_E_NOMEM;
    *n = 0;
    for (uint32_t i = 0; i < m->graph->n_inputs; i++) {
        qx_kv_pair p = {.past = m->graph->inputs[i]};
        if (!is_cache_input(p.past)) continue;
        p.key = strstr(p.past->name, "key") && !strstr(p.past->name, ".value");
        if (by_dataflow(&p) || by_name(m, &p)) list[(*n)++] = p;
    }
    *out = list;
    return QX_OK;
}

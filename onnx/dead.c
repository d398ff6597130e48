/* dead.c - nodes and initializers that no output needs (edit.h). */
#include "onnx/edit_own.h"

static bool is_dead(const qx_node *n)
{
    for (uint32_t i = 0; i < n->n_out; i++) {
        if (n->out[i] && (n->out[i]->n_uses || n->out[i]->is_output)) return false;
    }
    return true;
}

static qx_status dead_in_graph(qx_graph *g, int64_t *removed);

static qx_status dead_in_bodies(qx_node *n, int64_t *removed)
{
    for (uint32_t i = 0; i < n->n_attrs; i++) {
        if (n->attrs[i].graph) QX_TRY(dead_in_graph(n->attrs[i].graph, removed));
        for (int64_t k = 0; n->attrs[i].graphs && k < n->attrs[i].n; k++) QX_TRY(dead_in_graph(n->attrs[i].graphs[k], removed));
    }
    return QX_OK;
}

/* Backwards, so that one sweep sees every user gone before its producer. */
static qx_status dead_in_graph(qx_graph *g, int64_t *removed)
{
    for (qx_node *n = g->last, *prev; n; n = prev) {
        prev = n->prev;
        if (!is_dead(n)) {
            QX_TRY(dead_in_bodies(n, removed));
            continue;
        }
        QX_TRY(qx_node_erase(n));
        ++*removed;
    }
    return QX_OK;
}

static qx_status drop_dead_inits(void *user, qx_graph *g)
{
    int64_t *removed = user;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < g->n_inits; i++) {
        qx_value *v = g->inits[i];
        if (v->n_uses || v->is_output || v->is_input) {
            g->inits[kept++] = v;
            continue;
        }
        qx_value_forget(v);
        qx_touch_graph(g);
        ++*removed;
    }
    g->n_inits = kept;
    return QX_OK;
}

qx_status qx_dead_code(qx_model *m, int64_t *removed)
{
    int64_t count = 0;
    QX_TRY(dead_in_graph(m->graph, &count));
    for (uint32_t i = 0; i < m->n_functions; i++) QX_TRY(dead_in_graph(m->functions[i]->body, &count));
    QX_TRY(qx_model_each_graph(m, drop_dead_inits, &count));
    if (removed) *removed = count;
    return QX_OK;
}

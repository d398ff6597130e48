/* reach.c - how far the executor gets in a model with operators that it has no kernel for (a classifier's ZipMap, a plugin behind
 * a detector): what stands in for the outputs that lie behind them. Nothing is planned or run. */
#include "runtime/plan.h"

enum { MAX_DEPTH = 100 }; /* of subgraphs and functions; a function that calls itself ends here */

typedef struct reach { const qx_model *m; uint8_t *can; } reach; /* can: by value id */

static bool graph_runs(const reach *r, const qx_graph *g, int depth);

static bool node_runs(const reach *r, const qx_node *n, int depth)
{
    for (uint32_t i = 0; i < n->n_in; i++)
        if (n->in[i] && !r->can[n->in[i]->id]) return false;
    const qx_function *f = qx_plan_function(r->m, n);
    if (f ? !graph_runs(r, f->body, depth + 1) : qx_cpu_find(n->op) == qx_cpu_none) return false;
    for (uint32_t i = 0; i < n->n_attrs; i++) {
        const qx_attr *a = &n->attrs[i];
        if (a->graph && !graph_runs(r, a->graph, depth + 1)) return false;
        for (int64_t k = 0; a->graphs && k < a->n; k++)
            if (!graph_runs(r, a->graphs[k], depth + 1)) return false;
    }
    return true;
}

static bool graph_runs(const reach *r, const qx_graph *g, int depth)
{
    bool all = depth < MAX_DEPTH;
    for (uint32_t i = 0; i < g->n_inputs; i++) r->can[g->inputs[i]->id] = 1;
    for (uint32_t i = 0; i < g->n_inits; i++) r->can[g->inits[i]->id] = 1;
    if (!all) return false;
    QX_FOR_NODES(g, n) {
        const bool runs = node_runs(r, n, depth);
        for (uint32_t i = 0; i < n->n_out; i++)
            if (n->out[i]) r->can[n->out[i]->id] = runs;
        all = all && runs;
    }
    return all;
}

/* Backwards from the outputs: need marks what is out of reach, ends what the nodes out of reach read. */
static void mark_ends(const reach *r, uint8_t *need, uint8_t *ends)
{
    const qx_graph *g = r->m->graph;
    for (uint32_t i = 0; i < g->n_outputs; i++) *(r->can[g->outputs[i]->id] ? &ends[g->outputs[i]->id] : &need[g->outputs[i]->id]) = 1;
    for (const qx_node *n = g->last; n; n = n->prev) {
        bool needed = false;
        for (uint32_t i = 0; i < n->n_out; i++) needed = needed || (n->out[i] && need[n->out[i]->id]);
        for (uint32_t i = 0; needed && i < n->n_in; i++) {
            const qx_value *v = n->in[i];
            if (v && !r->can[v->id]) need[v->id] = 1;
            else if (v && v->def) ends[v->id] = 1;
        }
    }
}

static qx_status list(qx_ctx *ctx, const qx_graph *g, const uint8_t *ends, qx_ends *out)
{
    uint32_t n = g->n_outputs;
    QX_FOR_NODES(g, node) n += node->n_out;
    QX_TRY(qx_alloc_array(ctx, n + 1u, sizeof *out->names, (void **)&out->names));
    for (uint32_t i = 0; i < g->n_outputs; i++)
        if (ends[g->outputs[i]->id]) out->names[out->n++] = g->outputs[i]->name;
    QX_FOR_NODES(g, node)
        for (uint32_t i = 0; i < node->n_out; i++)
            if (node->out[i] && ends[node->out[i]->id] && !node->out[i]->is_output) out->names[out->n++] = node->out[i]->name;
    return QX_OK;
}

qx_status qx_exec_ends(qx_ctx *ctx, const qx_model *m, qx_ends *out)
{
    reach r = {.m = m};
    uint8_t *need = NULL, *ends = NULL;
    qx_status st;
    *out = (qx_ends){0};
    QX_TRY_GOTO(st, qx_alloc_array(ctx, m->n_values + 1u, 1, (void **)&r.can));
    QX_TRY_GOTO(st, qx_alloc_array(ctx, m->n_values + 1u, 1, (void **)&need));
    QX_TRY_GOTO(st, qx_alloc_array(ctx, m->n_values + 1u, 1, (void **)&ends));
    out->all = graph_runs(&r, m->graph, 0);
    mark_ends(&r, need, ends);
    st = list(ctx, m->graph, ends, out);
done:
    out->can = r.can;
    qx_free(ctx, need);
    qx_free(ctx, ends);
    if (st != QX_OK) qx_ends_free(ctx, out);
    return st;
}

void qx_ends_free(qx_ctx *ctx, qx_ends *e)
{
    qx_free(ctx, e->names);
    qx_free(ctx, e->can);
    *e = (qx_ends){0};
}

/* check_graph.c - one graph: its interface, its initializers, that every name is produced before it is used, and that bodies do not
 * define again what is visible in them. */
#include <string.h>

#include "base/text.h"
#include "onnx/check/check.h"

static bool is_defined(const qx_value *v)
{
    return v->def || v->is_input || v->init || v->sparse;
}

static const char *where(const qx_graph *g)
{
    return g->function ? "function" : g->parent ? "subgraph" : "graph";
}

/* ---- interface ------------------------------------------------------------------------------------------------------- */

static qx_status check_element(qx_checker *c, const qx_value *v, const qx_type *t, const char *what)
{
    if (t->kind == QX_KIND_NONE) QX_REFUSE(c, "%s '%s' has no type", what, QX_SHOWN(v->name));
    if (t->kind == QX_KIND_SEQUENCE || t->kind == QX_KIND_OPTIONAL)
        return t->elem ? QX_OK : qx_fail(c->ctx, QX_E_FORMAT, "%s '%s' has no element type", what, QX_SHOWN(v->name));
    if (qx_dtype_get(t->dtype)->cls == 0) QX_REFUSE(c, "%s '%s' has unknown element type %d", what, QX_SHOWN(v->name), (int)t->dtype);
    return QX_OK;
}

static qx_status check_default(qx_checker *c, const qx_graph *g, const qx_value *v)
{
    const qx_weight *w = v->init;
    if (!w) return QX_OK;
    if (!v->is_input && !g->parent && !g->function && c->m->ir_version < 4)
        QX_REFUSE(c, "initializer '%s' is not a graph input, which IR version %lld requires", QX_SHOWN(v->name),
                  (long long)c->m->ir_version);
    if (!v->is_input || v->type.kind != QX_KIND_TENSOR) return QX_OK;
    if (v->type.dtype != w->dtype)
        QX_REFUSE(c, "input '%s' is %s but its default is %s", QX_SHOWN(v->name), qx_dtype_get(v->type.dtype)->text,
                  qx_dtype_get(w->dtype)->text);
    if (v->type.has_shape && v->type.rank != w->rank)
        QX_REFUSE(c, "input '%s' has rank %d but its default has rank %d", QX_SHOWN(v->name), v->type.rank, w->rank);
    for (int i = 0; v->type.has_shape && i < w->rank; i++) {
        if (v->type.dims[i].n >= 0 && v->type.dims[i].n != w->dims[i])
            QX_REFUSE(c, "input '%s': dim %d is %lld but its default has %lld", QX_SHOWN(v->name), i, (long long)v->type.dims[i].n,
                      (long long)w->dims[i]);
    }
    return QX_OK;
}

static qx_status check_interface(qx_checker *c, const qx_graph *g)
{
    bool main_graph = !g->parent && !g->function;
    for (uint32_t i = 0; main_graph && i < g->n_inputs; i++) QX_TRY(check_element(c, g->inputs[i], &g->inputs[i]->type, "graph input"));
    for (uint32_t i = 0; i < g->n_outputs; i++) {
        const qx_value *v = g->outputs[i];
        if (!is_defined(v)) QX_REFUSE(c, "output '%s' of %s '%s' is never produced", QX_SHOWN(v->name), where(g), QX_SHOWN(g->name));
    }
    for (uint32_t i = 0; i < g->n_inits; i++) {
        QX_TRY(check_default(c, g, g->inits[i]));
        if (g->inits[i]->sparse) QX_TRY(qx_check_sparse(c, g->inits[i]->name, g->inits[i]->sparse));
    }
    return QX_OK;
}

/* ---- order ------------------------------------------------------------------------------------------------------------ */

static const qx_node *ancestor_in(const qx_node *n, const qx_graph *g)
{
    while (n && n->graph != g) n = n->graph->owner;
    return n;
}

typedef struct visit { const qx_node *node; const qx_node **pending; int64_t n, cap; uint8_t *seen; qx_ctx *ctx; } visit;

static qx_status want(visit *s, const qx_node *n)
{
    if (!n || s->seen[n->id]) return QX_OK;
    s->seen[n->id] = 1;
    QX_TRY(qx_grow(s->ctx, (void **)&s->pending, s->n, &s->cap, sizeof *s->pending));
    s->pending[s->n++] = n;
    return QX_OK;
}

/* Does `from` lead, over uses in their graph, to `to`? (Only asked once, when the order is already known to be wrong.) */
static qx_status leads_to(qx_checker *c, const qx_node *from, const qx_node *to, bool *yes)
{
    visit s = {.ctx = c->ctx};
    qx_status st;
    *yes = false;
    QX_TRY_GOTO(st, QX_NEW_ARRAY(c->ctx, c->m->n_node_ids + 1, &s.seen));
    QX_TRY_GOTO(st, want(&s, from));
    while (s.n && !*yes) {
        const qx_node *n = s.pending[--s.n];
        *yes = n == to;
        for (uint32_t i = 0; i < n->n_out; i++) {
            for (const qx_use *u = n->out[i] ? n->out[i]->uses : NULL; u; u = u->next)
                QX_TRY_GOTO(st, want(&s, ancestor_in(u->node, to->graph)));
        }
    }
done:
    qx_free(c->ctx, s.pending);
    qx_free(c->ctx, s.seen);
    return st;
}

static qx_status wrong_order(qx_checker *c, const qx_node *n, const qx_value *v)
{
    const qx_node *outer = ancestor_in(n, v->graph);
    bool cycle;
    if (!outer) QX_REFUSE(c, "%s uses '%s' of a graph that does not enclose it", QX_LABEL(n), QX_SHOWN(v->name));
    QX_TRY(leads_to(c, outer, v->def, &cycle));
    if (cycle) QX_REFUSE(c, "%s is part of a cycle: it uses '%s', which depends on it", QX_LABEL(n), QX_SHOWN(v->name));
    QX_REFUSE(c, "nodes are not sorted: %s uses '%s' before %s makes it (--fix-order puts them in order)", QX_LABEL(n),
              QX_SHOWN(v->name), QX_LABEL(v->def));
}

static qx_status check_uses(qx_checker *c, const qx_node *n)
{
    for (uint32_t i = 0; i < n->n_in; i++) {
        const qx_value *v = n->in[i];
        if (!v) continue;
        if (!is_defined(v)) QX_REFUSE(c, "%s: input %u '%s' is never produced", QX_LABEL(n), i, QX_SHOWN(v->name));
        if (v->def && c->place[v->def->id] >= c->place[n->id]) return wrong_order(c, n, v);
    }
    return QX_OK;
}

/* An output of a body must not have the name of something that is already visible there. */
static qx_status check_shadow(qx_checker *c, const qx_node *n)
{
    const qx_graph *g = n->graph;
    for (uint32_t i = 0; g->parent && i < n->n_out; i++) {
        const qx_value *v = n->out[i] ? qx_graph_find(g->parent, n->out[i]->name) : NULL;
        if (!v || !is_defined(v) || (v->def && c->place[v->def->id] >= c->place[g->owner->id])) continue;
        QX_REFUSE(c, "%s: output '%s' has the name of a value outside of subgraph '%s'", QX_LABEL(n), QX_SHOWN(v->name), QX_SHOWN(g->name));
    }
    return QX_OK;
}

qx_status qx_check_graph(void *user, qx_graph *g)
{
    qx_checker *c = user;
    QX_TRY(check_interface(c, g));
    QX_FOR_NODES(g, n) {
        QX_TRY(check_uses(c, n));
        QX_TRY(check_shadow(c, n));
    }
    return QX_OK;
}

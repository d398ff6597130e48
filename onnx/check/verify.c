/* verify.c - is the graph in memory consistent? A failure here is a bug of ours (an edit that lied), so it is QX_E_FAIL and names
 * the first thing that is wrong. Linear in the size of the graph; run after passes and always before writing. */
#include <string.h>

#include "onnx/edit.h"
#include "onnx/make.h"
#include "onnx/weight/weight.h"

typedef struct verifier {
    qx_model *m;
    uint32_t *place; /* by node id: position in a walk that visits a node before its bodies; 0: not in the model */
    uint32_t *seen;  /* by value id: how many node inputs name it */
    uint32_t next_place;
} verifier;

#define LABEL(n) qx_node_label((n), (char[256]){0}, 256)

static qx_status number_node(void *user, qx_node *n)
{
    verifier *v = user;
    if (n->id >= v->m->n_node_ids) QX_FAIL(v->m->ctx, QX_E_FAIL, "%s has id %u of %u", LABEL(n), n->id, v->m->n_node_ids);
    if (v->place[n->id]) QX_FAIL(v->m->ctx, QX_E_FAIL, "%s is in the model twice", LABEL(n));
    v->place[n->id] = ++v->next_place;
    return QX_OK;
}

static bool encloses(const qx_graph *outer, const qx_graph *g)
{
    while (g && g != outer) g = g->parent;
    return g == outer;
}

/* Is v there when n runs? */
static qx_status check_input(verifier *c, const qx_node *n, uint32_t i)
{
    const qx_value *v = n->in[i];
    qx_ctx *ctx = c->m->ctx;
    if (!v) return QX_OK;
    c->seen[v->id]++;
    if (!encloses(v->graph, n->graph))
        QX_FAIL(ctx, QX_E_FAIL, "%s input %u '%s' belongs to a graph that does not enclose it", LABEL(n), i, v->name);
    if (!v->def) {
        if (!v->is_input && !v->init && !v->sparse) QX_FAIL(ctx, QX_E_FAIL, "%s input %u '%s' is never produced", LABEL(n), i, v->name);
        return QX_OK;
    }
    if (!c->place[v->def->id]) QX_FAIL(ctx, QX_E_FAIL, "%s input %u '%s' comes from a node that was erased", LABEL(n), i, v->name);
    if (c->place[v->def->id] >= c->place[n->id])
        QX_FAIL(ctx, QX_E_FAIL, "%s uses '%s' before %s makes it", LABEL(n), v->name, LABEL(v->def));
    return QX_OK;
}

static qx_status check_counts(verifier *c, const qx_node *n)
{
    const qx_op *op = n->op;
    if (op->id == QX_OP_UNKNOWN || n->callee) return QX_OK;
    if ((int64_t)n->n_in > op->max_in || (int64_t)n->n_out > op->max_out)
        QX_FAIL(c->m->ctx, QX_E_FAIL, "%s has %u inputs and %u outputs; version %d allows %d and %d", LABEL(n), n->n_in, n->n_out,
                op->since, op->max_in, op->max_out);
    for (int i = 0; i < op->min_in; i++) {
        if (!qx_node_in(n, (uint32_t)i) && op->max_in != INT32_MAX && !op->domain[0])
            QX_FAIL(c->m->ctx, QX_E_FAIL, "%s lacks input %d of %d that version %d requires", LABEL(n), i, op->min_in, op->since);
    }
    return QX_OK;
}

static qx_status check_outputs(verifier *c, const qx_node *n)
{
    for (uint32_t i = 0; i < n->n_out; i++) {
        const qx_value *v = n->out[i];
        if (!v) continue;
        if (v->def != n || v->def_index != i || v->graph != n->graph)
            QX_FAIL(c->m->ctx, QX_E_FAIL, "%s output %u '%s' does not point back at it", LABEL(n), i, v->name);
        if (v->init) QX_FAIL(c->m->ctx, QX_E_FAIL, "%s makes '%s', which is an initializer too", LABEL(n), v->name);
        if (qx_map_get(n->graph->values, v->name) != v)
            QX_FAIL(c->m->ctx, QX_E_FAIL, "'%s' is not what its graph finds under that name", v->name);
    }
    return QX_OK;
}

static qx_status check_attrs(verifier *c, const qx_node *n)
{
    for (uint32_t i = 0; i < n->n_attrs; i++) {
        const qx_attr *a = &n->attrs[i];
        if (a->graph && (a->graph->owner != n || a->graph->parent != n->graph))
            QX_FAIL(c->m->ctx, QX_E_FAIL, "%s: the graph in attribute '%s' belongs elsewhere", LABEL(n), a->name);
        for (uint32_t k = 0; k < i; k++) {
            if (a->name == n->attrs[k].name) QX_FAIL(c->m->ctx, QX_E_FAIL, "%s has attribute '%s' twice", LABEL(n), a->name);
        }
    }
    return QX_OK;
}

static qx_status check_node(void *user, qx_node *n)
{
    verifier *c = user;
    if (n->next ? n->next->prev != n : n->graph->last != n) QX_FAIL(c->m->ctx, QX_E_FAIL, "%s is not linked both ways", LABEL(n));
    if (n->op->id != QX_OP_UNKNOWN && n->op != qx_op_resolve(n->graph, n->domain, n->op_type))
        QX_FAIL(c->m->ctx, QX_E_FAIL, "%s stands for version %d, which is not in force at opset %lld", LABEL(n), n->op->since,
                (long long)qx_graph_opset(n->graph, n->domain));
    QX_TRY(check_counts(c, n));
    QX_TRY(check_outputs(c, n));
    QX_TRY(check_attrs(c, n));
    for (uint32_t i = 0; i < n->n_in; i++) QX_TRY(check_input(c, n, i));
    return QX_OK;
}

static qx_status check_uses(verifier *c, const qx_value *v)
{
    uint32_t n = 0;
    for (const qx_use *u = v->uses; u; u = u->next, n++) {
        if (n >= v->n_uses || qx_node_in(u->node, u->index) != v)
            QX_FAIL(c->m->ctx, QX_E_FAIL, "'%s': its list of uses is wrong at entry %u of %u", v->name, n, v->n_uses);
    }
    if (n != v->n_uses || n != c->seen[v->id])
        QX_FAIL(c->m->ctx, QX_E_FAIL, "'%s' says %u uses, lists %u, and nodes name it %u times", v->name, v->n_uses, n, c->seen[v->id]);
    return QX_OK;
}

static qx_status check_init(verifier *c, const qx_value *v)
{
    const qx_weight *w = v->init;
    if (!w) return QX_OK;
    if (v->type.kind != QX_KIND_TENSOR || v->type.dtype != w->dtype)
        QX_FAIL(c->m->ctx, QX_E_FAIL, "initializer '%s' is %s but its value says %s", v->name, qx_dtype_get(w->dtype)->text,
                qx_dtype_get(v->type.dtype)->text);
    if (v->type.has_shape && v->type.rank != w->rank)
        QX_FAIL(c->m->ctx, QX_E_FAIL, "initializer '%s' has rank %d but its value says %d", v->name, w->rank, v->type.rank);
    if (w->name != v->name && (!w->name || strcmp(w->name, v->name) != 0))
        QX_FAIL(c->m->ctx, QX_E_FAIL, "initializer '%s' has a weight called '%s'", v->name, w->name ? w->name : "");
    return QX_OK;
}

static qx_status check_graph(void *user, qx_graph *g)
{
    verifier *c = user;
    uint32_t n = 0;
    QX_FOR_NODES(g, node) {
        if (node->graph != g) QX_FAIL(c->m->ctx, QX_E_FAIL, "%s is listed in a graph that is not its own", LABEL(node));
        n++;
    }
    if (n != g->n_nodes) QX_FAIL(c->m->ctx, QX_E_FAIL, "graph '%s' says %u nodes and has %u", g->name, g->n_nodes, n);
    for (size_t i = 0; i < qx_map_count(g->values); i++) {
        void *p;
        const char *key = qx_map_key_at(g->values, i, &p);
        const qx_value *v = p;
        if (strcmp(key, v->name) != 0) QX_FAIL(c->m->ctx, QX_E_FAIL, "'%s' is found under the name '%s'", v->name, key);
        QX_TRY(check_uses(c, v));
        QX_TRY(check_init(c, v));
    }
    for (uint32_t i = 0; i < g->n_outputs; i++) {
        const qx_value *v = g->outputs[i];
        if (!v->is_output) QX_FAIL(c->m->ctx, QX_E_FAIL, "output '%s' of graph '%s' is not marked as one", v->name, g->name);
        if (v->def ? !c->place[v->def->id] : !v->init && !v->sparse && !v->is_input && encloses(v->graph, g))
            QX_FAIL(c->m->ctx, QX_E_FAIL, "output '%s' of graph '%s' is not produced", v->name, g->name);
    }
    return QX_OK;
}

qx_status qx_verify(qx_model *m)
{
    verifier c = {.m = m};
    qx_status st;
    QX_TRY_GOTO(st, QX_NEW_ARRAY(m->ctx, m->n_node_ids + 1, &c.place));
    QX_TRY_GOTO(st, QX_NEW_ARRAY(m->ctx, m->n_values + 1, &c.seen));
    QX_TRY_GOTO(st, qx_model_each_node(m, number_node, &c));
    QX_TRY_GOTO(st, qx_model_each_node(m, check_node, &c));
    QX_TRY_GOTO(st, qx_model_each_graph(m, check_graph, &c));
done:
    qx_free(m->ctx, c.place);
    qx_free(m->ctx, c.seen);
    if (st == QX_OK) return st;
    return qx_note(m->ctx, st, "the graph in memory is inconsistent (a bug)");
}

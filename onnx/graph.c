/* graph.c - reading the graph: lookups, attributes, walks. Nothing here changes it. */
#include "onnx/graph.h"

#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "base/text.h"
#include "onnx/make.h"
#include "onnx/weight/weight.h"

static int64_t opset_in(const qx_opset *list, uint32_t n, const char *domain)
{
    for (uint32_t i = 0; i < n; i++) {
        if (strcmp(list[i].domain, domain) == 0) return list[i].version;
    }
    return 0;
}

/* The function whose body g belongs to (also from inside its subgraphs), or NULL. */
static const qx_function *function_of(const qx_graph *g)
{
    while (g->parent) g = g->parent;
    return g->function;
}

int64_t qx_graph_opset(const qx_graph *g, const char *domain)
{
    if (strcmp(domain, "ai.onnx") == 0) domain = "";
    const qx_function *f = function_of(g);
    return f ? opset_in(f->opsets, f->n_opsets, domain) : opset_in(g->model->opsets, g->model->n_opsets, domain);
}

qx_value *qx_graph_find(const qx_graph *g, const char *name)
{
    for (; g; g = g->parent) {
        qx_value *v = qx_map_get(g->values, name);
        if (v) return v;
    }
    return NULL;
}

const qx_attr *qx_node_attr(const qx_node *n, const char *name)
{
    for (uint32_t i = 0; i < n->n_attrs; i++) {
        if (strcmp(n->attrs[i].name, name) == 0) return &n->attrs[i];
    }
    return NULL;
}

bool qx_type_same_dims(const qx_type *a, const qx_type *b)
{
    if (a->kind != QX_KIND_TENSOR || b->kind != QX_KIND_TENSOR || !a->has_shape || !b->has_shape || a->rank != b->rank) return false;
    for (int i = 0; i < a->rank; i++)
        if (!qx_dim_same(a->dims[i], b->dims[i])) return false;
    return true;
}

static const qx_attr *typed(const qx_node *n, const char *name, qx_attr_type type)
{
    const qx_attr *a = qx_node_attr(n, name);
    return a && a->type == type && !a->ref_name ? a : NULL;
}

int64_t qx_attr_int(const qx_node *n, const char *name, int64_t fallback)
{
    const qx_attr *a = typed(n, name, QX_ATTR_INT);
    return a ? a->i : fallback;
}

float qx_attr_float(const qx_node *n, const char *name, float fallback)
{
    const qx_attr *a = typed(n, name, QX_ATTR_FLOAT);
    return a ? a->f : fallback;
}

const char *qx_attr_string(const qx_node *n, const char *name, const char *fallback)
{
    const qx_attr *a = typed(n, name, QX_ATTR_STRING);
    return a ? a->s : fallback;
}

const int64_t *qx_attr_ints(const qx_node *n, const char *name, int64_t *count)
{
    const qx_attr *a = typed(n, name, QX_ATTR_INTS);
    *count = a ? a->n : 0;
    return a ? a->ints : NULL;
}

int64_t qx_type_numel(const qx_type *t)
{
    if (t->kind != QX_KIND_TENSOR || !t->has_shape) return -1;
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++) {
        if (t->dims[i].n < 0 || !qx_mul_i64(n, t->dims[i].n, &n)) return -1;
    }
    return n;
}

qx_weight *qx_value_const(const qx_value *v)
{
    if (v->init) return v->is_input ? NULL : v->init; /* an input's default is not a constant: the caller may feed another */
    const qx_node *n = v->def;
    if (!n || n->op->id != QX_OP_Constant || n->n_attrs == 0) return NULL;
    for (uint32_t i = 0; i < n->n_attrs; i++) {
        if (n->attrs[i].tensor && !n->attrs[i].ref_name) return n->attrs[i].tensor;
    }
    return NULL;
}

/* Key of a function in model->function_ids. A name with a unit separator in it could stand for another: find_function compares. */
static char *function_key(const qx_model *m, const char *domain, const char *name, const char *overload, char *buf, size_t cap)
{
    int n = snprintf(buf, cap, "%s\x1f%s\x1f%s", domain, overload, name);
    return n >= 0 && (size_t)n < cap ? buf : qx_arena_printf(m->arena, "%s\x1f%s\x1f%s", domain, overload, name);
}

static bool is_function(const qx_function *f, const char *domain, const char *name, const char *overload)
{
    return f && strcmp(f->name, name) == 0 && strcmp(f->domain, domain) == 0 && strcmp(f->overload, overload) == 0;
}

qx_function *qx_model_function(const qx_model *m, const char *domain, const char *name, const char *overload)
{
    char buf[256];
    if (!m->n_functions) return NULL;
    char *key = function_key(m, domain, name, overload, buf, sizeof buf);
    qx_function *f = key && m->function_ids ? qx_map_get(m->function_ids, key) : NULL;
    if (!f || is_function(f, domain, name, overload)) return f;
    for (uint32_t i = 0; i < m->n_functions; i++) {
        if (is_function(m->functions[i], domain, name, overload)) return m->functions[i];
    }
    return NULL;
}

qx_status qx_model_index_function(qx_model *m, qx_function *f)
{
    char buf[256];
    char *key = function_key(m, f->domain, f->name, f->overload, buf, sizeof buf);
    if (!key) return qx_fail(m->ctx, QX_E_NOMEM, "out of memory for the graph");
    if (!m->function_ids) QX_TRY(qx_map_new(m->ctx, &m->function_ids));
    return qx_map_has(m->function_ids, key) ? QX_OK : qx_map_put(m->function_ids, key, f);
}

const char *qx_node_label(const qx_node *n, char *buf, size_t cap)
{
    char name[200];
    if (n->name[0]) {
        snprintf(buf, cap, "node '%s' (%s)", qx_printable(n->name, name, sizeof name), n->op_type);
        return buf;
    }
    for (uint32_t i = 0; i < n->n_out; i++) {
        if (!n->out[i]) continue;
        snprintf(buf, cap, "node (%s) that makes '%s'", n->op_type, qx_printable(n->out[i]->name, name, sizeof name));
        return buf;
    }
    snprintf(buf, cap, "node (%s) without outputs", n->op_type);
    return buf;
}

/* Subgraphs of n's attributes, one after the other: i counts them. NULL at the end. */
static qx_graph *body_at(const qx_node *n, int64_t i)
{
    for (uint32_t k = 0; k < n->n_attrs; k++) {
        const qx_attr *a = &n->attrs[k];
        if (a->type == QX_ATTR_GRAPH && a->graph && i-- == 0) return a->graph;
        if (a->type != QX_ATTR_GRAPHS) continue;
        if (i < a->n) return a->graphs[i];
        i -= a->n;
    }
    return NULL;
}

static qx_status walk(qx_graph *g, int depth, qx_graph_fn *on_graph, qx_node_fn *on_node, void *user)
{
    if (depth > QX_MAX_NESTING) QX_FAIL(g->model->ctx, QX_E_FORMAT, "subgraphs are nested deeper than %d", QX_MAX_NESTING);
    if (on_graph) QX_TRY(on_graph(user, g));
    QX_FOR_NODES(g, n) {
        if (on_node) QX_TRY(on_node(user, n));
        for (int64_t i = 0; n->n_attrs && body_at(n, i); i++) QX_TRY(walk(body_at(n, i), depth + 1, on_graph, on_node, user));
    }
    return QX_OK;
}

static qx_status walk_model(qx_model *m, qx_graph_fn *on_graph, qx_node_fn *on_node, void *user)
{
    if (m->graph) QX_TRY(walk(m->graph, 0, on_graph, on_node, user));
    for (uint32_t i = 0; i < m->n_functions; i++) QX_TRY(walk(m->functions[i]->body, 0, on_graph, on_node, user));
    return QX_OK;
}

qx_status qx_model_each_node(qx_model *m, qx_node_fn *fn, void *user)
{
    return walk_model(m, NULL, fn, user);
}

qx_status qx_model_each_graph(qx_model *m, qx_graph_fn *fn, void *user)
{
    return walk_model(m, fn, NULL, user);
}

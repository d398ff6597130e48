/* make.c - making and linking graph objects, and releasing what they hold outside the arena (their name maps). */
#include "onnx/make.h"

#include <string.h>

#include "onnx/file/wire.h"

void *qx_list_grow(qx_model *m, void *items, uint32_t count)
{
    if (count & (count - 1)) return items; /* room was made at the last of 0, 1, 2, 4, 8... */
    void *more = qx_arena_array(m->arena, count ? 2 * (size_t)count : 1, sizeof(void *));
    if (more && count) memcpy(more, items, count * sizeof(void *));
    return more;
}

qx_status qx_name_take(qx_model *m, const char *name)
{
    if (!m->taken) QX_TRY(qx_map_new(m->ctx, &m->taken));
    return qx_map_has(m->taken, name) ? QX_OK : qx_map_put_interned(m->taken, name, NULL);
}

qx_status qx_graph_make(qx_model *m, const char *name, qx_graph *parent, qx_node *owner, qx_graph **out)
{
    qx_graph *g = qx_arena_alloc(m->arena, sizeof *g);
    if (!g) return QX_NOMEM(m);
    *g = (qx_graph){.model = m, .name = name, .parent = parent, .owner = owner};
    QX_TRY(qx_map_new(m->ctx, &g->values));
    g->made_before = m->last_made;
    m->last_made = g;
    *out = g;
    return QX_OK;
}

void qx_model_drop_graphs(qx_model *m)
{
    for (qx_graph *g = m->last_made; g; g = g->made_before) {
        qx_map_free(g->values);
        g->values = NULL;
    }
    m->last_made = NULL;
    if (m->taken) qx_map_free(m->taken);
    if (m->function_ids) qx_map_free(m->function_ids);
    m->taken = m->function_ids = NULL;
}

qx_status qx_value_make(qx_graph *g, const char *name, qx_value **out)
{
    qx_model *m = g->model;
    qx_value *v = qx_arena_alloc(m->arena, sizeof *v);
    if (!v || !name) return QX_NOMEM(m);
    v->id = m->n_values++;
    v->name = name;
    v->graph = g;
    QX_TRY(qx_map_put_interned(g->values, name, v));
    QX_TRY(qx_name_take(m, name));
    *out = v;
    return QX_OK;
}

const qx_op *qx_op_resolve(const qx_graph *g, const char *domain, const char *op_type)
{
    const qx_op *op = qx_op_find(domain, op_type, qx_graph_opset(g, domain));
    return op ? op : &qx_op_unknown;
}

qx_status qx_node_make(qx_graph *g, const char *op_type, const char *domain, const char *name, uint32_t n_in, uint32_t n_out, qx_node **out)
{
    qx_model *m = g->model;
    qx_node *n = qx_arena_alloc(m->arena, sizeof *n);
    if (!n) return QX_NOMEM(m);
    n->in = qx_arena_array(m->arena, n_in ? n_in : 1, sizeof(qx_value *));
    n->out = qx_arena_array(m->arena, n_out ? n_out : 1, sizeof(qx_value *));
    if (!n->in || !n->out) return QX_NOMEM(m);
    n->id = m->n_node_ids++;
    n->n_in = n_in;
    n->n_out = n_out;
    n->op_type = op_type;
    n->domain = domain;
    n->name = name;
    n->overload = "";
    n->graph = g;
    n->op = qx_op_resolve(g, domain, op_type);
    if (name[0]) QX_TRY(qx_name_take(m, name));
    *out = n;
    return QX_OK;
}

void qx_node_link(qx_graph *g, qx_node *n, qx_node *before)
{
    n->next = before;
    n->prev = before ? before->prev : g->last;
    if (n->prev) n->prev->next = n;
    else g->first = n;
    if (before) before->prev = n;
    else g->last = n;
    g->n_nodes++;
}

void qx_node_unlink(qx_node *n)
{
    qx_graph *g = n->graph;
    if (n->prev) n->prev->next = n->next;
    else g->first = n->next;
    if (n->next) n->next->prev = n->prev;
    else g->last = n->prev;
    n->prev = n->next = NULL;
    g->n_nodes--;
}

qx_status qx_use_add(qx_value *v, qx_node *n, uint32_t index)
{
    if (!v) return QX_OK;
    qx_use *u = qx_arena_alloc(n->graph->model->arena, sizeof *u);
    if (!u) return QX_NOMEM(n->graph->model);
    *u = (qx_use){.node = n, .index = index, .next = v->uses};
    v->uses = u;
    v->n_uses++;
    return QX_OK;
}

void qx_use_remove(qx_value *v, qx_node *n, uint32_t index)
{
    if (!v) return;
    for (qx_use **u = &v->uses; *u; u = &(*u)->next) {
        if ((*u)->node != n || (*u)->index != index) continue;
        *u = (*u)->next;
        v->n_uses--;
        return;
    }
}

qx_status qx_type_tensor(qx_model *m, qx_dtype dtype, int rank, const int64_t *dims, qx_type *out)
{
    *out = (qx_type){.kind = QX_KIND_TENSOR, .dtype = dtype, .has_shape = true, .rank = rank};
    out->dims = qx_arena_array(m->arena, rank ? (size_t)rank : 1, sizeof(qx_dim));
    if (!out->dims) return QX_NOMEM(m);
    for (int i = 0; i < rank; i++) out->dims[i].n = dims[i];
    return QX_OK;
}

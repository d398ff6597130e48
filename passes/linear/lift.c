/* lift.c - see lift.h. Exporters of scripted modules slice and join the weights of an LSTM in the branch that runs it. */
#include "passes/linear/lift.h"

#include "onnx/edit.h"
#include "onnx/weight/weight.h"
#include "passes/linear/same.h"

qx_status qx_lifter_open(qx_model *m, qx_lifter *out)
{
    *out = (qx_lifter){.m = m, .key = QX_BUF_INIT(m->ctx)};
    QX_TRY(qx_alloc_array(m->ctx, (size_t)m->n_values + 1, sizeof *out->up, (void **)&out->up));
    return qx_map_new(m->ctx, &out->seen);
}

void qx_lifter_close(qx_lifter *l)
{
    qx_buf_free(&l->key);
    qx_map_free(l->seen);
    qx_free(l->m->ctx, l->up);
}

bool qx_lift_may(const qx_node *n)
{
    for (uint32_t i = 0; i < n->n_attrs; i++) {
        const qx_attr *a = &n->attrs[i];
        const bool plain = a->type == QX_ATTR_INT || a->type == QX_ATTR_FLOAT || a->type == QX_ATTR_STRING || a->type == QX_ATTR_INTS;
        if (a->ref_name || !plain) return false;
    }
    return n->n_out == 1 && n->out[0];
}

static qx_status copy_attr(qx_node *n, const qx_attr *a)
{
    switch (a->type) {
    case QX_ATTR_INT: return qx_attr_set_int(n, a->name, a->i);
    case QX_ATTR_FLOAT: return qx_attr_set_float(n, a->name, a->f);
    case QX_ATTR_STRING: return qx_attr_set_string(n, a->name, a->s);
    default: return qx_attr_set_ints(n, a->name, a->ints, a->n);
    }
}

/* The node of the main graph whose body, or body's body, v lies in. */
static qx_node *user_of(const qx_lifter *l, const qx_value *v)
{
    const qx_graph *g = v->graph;
    while (g->parent != l->m->graph) g = g->parent;
    return g->owner;
}

static qx_status lift_constant(qx_lifter *l, const qx_value *v, const qx_weight *w, qx_value **out)
{
    bool known;
    qx_buf_clear(&l->key);
    QX_TRY(qx_same_tensor(&l->key, w, &known));
    if (known && (*out = qx_map_get(l->seen, l->key.data))) return QX_OK;
    qx_weight *copy = qx_arena_alloc(l->m->arena, sizeof *copy);
    if (!copy) return QX_E_NOMEM;
    *copy = *w;
    copy->wire = NULL;
    QX_TRY(qx_init_add(l->m->graph, v->name, copy, out));
    return known ? qx_map_put(l->seen, l->key.data, *out) : QX_OK;
}

static qx_status lift_node(qx_lifter *l, const qx_value *v, qx_value **out)
{
    const qx_node *from = v->def;
    qx_value **in = qx_arena_array(l->m->arena, (size_t)from->n_in + 1, sizeof *in);
    bool known;
    qx_node *n;
    if (!in) return QX_E_NOMEM;
    for (uint32_t i = 0; i < from->n_in; i++)
        if (from->in[i]) QX_TRY(qx_lift(l, from->in[i], &in[i]));
    const qx_node_spec spec = {.op_type = from->op_type, .domain = from->domain, .name = qx_unique_name(l->m, from->name), .in = in,
                               .n_in = from->n_in, .out_names = &v->name, .n_out = 1};
    QX_TRY(qx_node_add(l->m->graph, &spec, user_of(l, v), &n));
    for (uint32_t i = 0; i < from->n_attrs; i++) QX_TRY(copy_attr(n, &from->attrs[i]));
    QX_TRY(qx_value_set_type(n->out[0], &v->type));
    qx_buf_clear(&l->key);
    QX_TRY(qx_same_node(&l->key, n, &known));
    if (known && (*out = qx_map_get(l->seen, l->key.data))) return qx_node_erase(n);
    *out = n->out[0];
    return known ? qx_map_put(l->seen, l->key.data, *out) : QX_OK;
}

qx_status qx_lift(qx_lifter *l, qx_value *v, qx_value **out)
{
    const qx_weight *w = qx_value_const(v);
    *out = v;
    if (v->graph == l->m->graph) return QX_OK;
    qx_value **up = &l->up[v->id];
    if (!*up) QX_TRY(w ? lift_constant(l, v, w, up) : lift_node(l, v, up));
    *out = *up;
    return QX_OK;
}

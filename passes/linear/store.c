/* store.c - see store.h. */
#include "passes/linear/store.h"

qx_status qx_store_matrix(qx_model *m, const qx_weight *w, const qx_view *view, const qx_stepdef *def, const void *arg, qx_layout layout,
                          qx_weight **out)
{
    const qx_step *step = qx_step_new(m, def, NULL, arg);
    qx_qspec *spec = qx_arena_alloc(m->arena, sizeof *spec);
    qx_job *job;
    if (!step || !spec) return QX_E_NOMEM;
    spec->codes = w->dtype;
    QX_TRY(qx_job_new(m, w, view, step, spec, layout, &job));
    *out = job->part[QX_PART_CODES];
    return QX_OK;
}

/* Columns of W as rows. Only for one matrix. */
static qx_view swapped(const qx_view *v) { return v->outer > 1 ? (qx_view){v->outer, 1, v->n, 0} : (qx_view){v->inner, v->n, 1, 0}; }

/* The weight that l reads becomes `fresh`; other readers of the stored tensor keep it. */
static qx_status replace_weight(qx_model *m, const qx_linear *l, qx_weight *fresh)
{
    qx_value *old = l->w_init, *v;
    if (old->init && old->n_uses == 1 && !old->is_output && !old->is_input) return qx_init_replace(old, fresh);
    QX_TRY(qx_init_add(m->graph, qx_unique_name(m, old->name), fresh, &v));
    if (l->w_in == old) return qx_node_set_in(l->node, l->w_index, v);
    if (old->n_uses == 1) return qx_value_replace_uses(old, v, NULL);
    qx_node *t = l->w_in->def, *copy;
    if (t->op->id != QX_OP_Transpose || t->in[0] != old || t->graph != m->graph)
        QX_FAIL(m->ctx, QX_E_UNSUPPORTED, "weight '%s' is shared and '%s' reads it through %s; give each its own copy first", old->name,
                l->node->name, t->op_type);
    const char *name = qx_unique_name(m, t->out[0]->name);
    int64_t rank;
    const int64_t *perm = qx_attr_ints(t, "perm", &rank);
    if (!name) return QX_E_NOMEM;
    QX_TRY(qx_node_add(m->graph, &(qx_node_spec){.op_type = "Transpose", .domain = "", .name = name, .in = &v, .n_in = 1,
                                                 .out_names = &name, .n_out = 1}, t, &copy));
    if (perm) QX_TRY(qx_attr_set_ints(copy, "perm", perm, rank));
    QX_TRY(qx_value_set_type(copy->out[0], &t->out[0]->type));
    return qx_node_set_in(l->node, l->w_index, copy->out[0]);
}

static qx_status store(qx_model *m, const qx_linear *l, const qx_view *view, const qx_stepdef *def, const void *arg)
{
    qx_weight *fresh;
    QX_TRY(qx_store_matrix(m, l->w_init->init ? l->w_init->init : l->w, view, def, arg, QX_LAYOUT_SAME, &fresh));
    return replace_weight(m, l, fresh);
}

qx_status qx_store_inputs(qx_model *m, const qx_linear *l, const qx_stepdef *def, const void *arg)
{
    return store(m, l, &l->view, def, arg);
}

qx_status qx_store_vector(qx_model *m, qx_node *node, uint32_t index, const qx_stepdef *def, const void *arg)
{
    qx_const_view c;
    qx_weight *fresh;
    qx_value *v;
    if (!qx_const_trace(node->in[index], &c)) QX_FAIL(m->ctx, QX_E_FAIL, "input %u of '%s' is not constant", (unsigned)index, node->name);
    const qx_view view = {1, 1, c.tensor->numel, 0};
    QX_TRY(qx_store_matrix(m, c.tensor, &view, def, arg, QX_LAYOUT_SAME, &fresh));
    qx_value *old = node->in[index];
    QX_TRY(qx_init_add(m->graph, qx_unique_name(m, old->name), fresh, &v));
    QX_TRY(qx_node_set_in(node, index, v));
    return old->init && !old->n_uses && !old->is_input && !old->is_output ? qx_init_erase(old) : QX_OK;
}

qx_status qx_store_outputs(qx_model *m, const qx_linear *l, const qx_stepdef *def, const void *arg)
{
    const qx_view view = swapped(&l->view);
    if (qx_view_span(&l->view) != l->view.n)
        QX_FAIL(m->ctx, QX_E_UNSUPPORTED, "weight of '%s' is several matrices, one is needed", l->node->name);
    QX_TRY(store(m, l, &view, def, arg));
    if (!l->bias) return QX_OK;
    qx_node *at = l->bias_add ? l->bias_add : l->node;
    for (uint32_t i = 0; i < at->n_in; i++)
        if (at->in[i] == l->bias) return qx_store_vector(m, at, i, def, arg);
    return QX_OK;
}

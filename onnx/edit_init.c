/* edit_init.c - initializers: new, other content, gone (edit.h). */
#include "onnx/edit_own.h"

#include <string.h>

#include "onnx/weight/weight.h"

static qx_status attach(qx_value *v, qx_weight *w)
{
    qx_model *m = v->graph->model;
    if (w->name != v->name) {
        if (w->name) { /* the weight serves another value under its own name */
            w = qx_arena_memdup(m->arena, w, sizeof *w);
            if (!w) return QX_NOMEM(m);
        }
        w->name = v->name;
    }
    v->init = w;
    v->wire = NULL;
    qx_touch_graph(v->graph);
    return qx_type_tensor(m, w->dtype, w->rank, w->dims, &v->type);
}

qx_status qx_init_add(qx_graph *g, const char *name, qx_weight *w, qx_value **out)
{
    qx_value *v;
    QX_TRY(qx_value_make(g, qx_unique_name(g->model, name), &v));
    QX_TRY(QX_LIST_PUSH(g->model, &g->inits, &g->n_inits, v));
    QX_TRY(attach(v, w));
    *out = v;
    return QX_OK;
}

qx_status qx_init_replace(qx_value *v, qx_weight *w)
{
    if (!v->init) QX_FAIL(v->graph->model->ctx, QX_E_FAIL, "'%s' is not an initializer", v->name);
    return attach(v, w);
}

qx_status qx_input_fix(qx_value *v)
{
    qx_graph *g = v->graph;
    uint32_t kept = 0;
    if (!v->init || !v->is_input) QX_FAIL(g->model->ctx, QX_E_FAIL, "'%s' is not a graph input with a default", v->name);
    for (uint32_t i = 0; i < g->n_inputs; i++)
        if (g->inputs[i] != v) g->inputs[kept++] = g->inputs[i];
    g->n_inputs = kept;
    v->is_input = false;
    qx_touch_graph(g);
    return QX_OK;
}

static void remove_init(qx_value *v)
{
    qx_graph *g = v->graph;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < g->n_inits; i++) {
        if (g->inits[i] != v) g->inits[kept++] = g->inits[i];
    }
    g->n_inits = kept;
    v->init = NULL;
    v->sparse = NULL;
    if (!v->is_input) qx_value_forget(v);
}

qx_status qx_init_erase(qx_value *v)
{
    if (v->n_uses || v->is_output) QX_FAIL(v->graph->model->ctx, QX_E_FAIL, "initializer '%s' is used and cannot be erased", v->name);
    remove_init(v);
    qx_touch_graph(v->graph);
    return QX_OK;
}

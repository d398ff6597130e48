/* nodes.c - see nodes.h. */
#include "passes/place/nodes.h"

#include "onnx/weight/weight.h"

qx_status qx_node_put(qx_graph *g, qx_node *before, const qx_new_node *s, qx_node **out)
{
    qx_model *m = g->model;
    const char *name = qx_arena_printf(m->arena, "%s_%s", s->base, s->suffix);
    const char *result = qx_arena_printf(m->arena, "%s_%s_Output", s->base, s->suffix);
    if (!name || !result) return QX_E_NOMEM;
    qx_node_spec ns = {.op_type = s->op, .domain = "", .name = name, .in = s->in, .n_in = s->n_in, .out_names = &result, .n_out = 1};
    QX_TRY(qx_node_add(g, &ns, before, out));
    qx_type t = *s->like;
    t.kind = QX_KIND_TENSOR;
    t.dtype = s->dtype;
    return qx_value_set_type((*out)->out[0], &t);
}

qx_status qx_scalar_put(qx_graph *g, const char *base, const char *suffix, qx_dtype dtype, float v, qx_value **out)
{
    qx_weight *w;
    uint8_t bytes[8] = {0};
    if (!qx_from_f32(dtype, &v, 1, bytes)) QX_FAIL(g->model->ctx, QX_E_TYPE, "'%s': no scale of type %s", base, qx_dtype_get(dtype)->name);
    const char *name = qx_arena_printf(g->model->arena, "%s_%s", base, suffix);
    if (!name) return QX_E_NOMEM;
    QX_TRY(qx_weight_from_bytes(g->model, dtype, 0, NULL, bytes, &w));
    return qx_init_add(g, name, w, out);
}

qx_node *qx_place_behind(const qx_value *v) { return v->def ? v->def->next : v->graph->first; }

/* ends.c - the pass io-half: graph inputs and outputs in 16-bit floats, so that a pipeline in half precision feeds and reads them
 * as they are. Behind everything else (finish), so that the formats and the sweep meet the model as it was. A Cast stands behind
 * an input and before an output, unless the graph has those numbers already: of --float fp16 nothing is left of the Casts at its
 * ends. */
#include "passes/place/emit.h"

static qx_type typed(const qx_value *v, qx_dtype dtype)
{
    qx_type t = v->type;
    t.dtype = dtype;
    return t;
}

/* A Cast of v in front of `before` (NULL: at the end), whose result has the given type. Its name tells the type that v has now:
 * what stays inside the graph. */
static qx_status add_cast(qx_value *v, qx_dtype dtype, qx_node *before, qx_node **out)
{
    qx_arena *arena = v->graph->model->arena;
    const char *name = qx_arena_printf(arena, "%s_%s", v->name, qx_dtype_get(v->type.dtype)->text),
        *node = qx_arena_printf(arena, "%s_Cast", v->name);
    const qx_node_spec spec = {.op_type = "Cast", .domain = "", .name = node, .in = &v, .n_in = 1, .out_names = &name, .n_out = 1};
    const qx_type type = typed(v, dtype);
    if (!name || !node) return QX_E_NOMEM;
    QX_TRY(qx_node_add(v->graph, &spec, before, out));
    QX_TRY(qx_attr_set_int(*out, "to", dtype));
    return qx_value_set_type((*out)->out[0], &type);
}

/* Readers that cast v to the type which it has now read v itself. */
static qx_status skip_casts(qx_value *numbers, qx_value *v)
{
    for (const qx_use *u = numbers->uses, *next; u; u = next) {
        next = u->next;
        if (u->node->op->id != QX_OP_Cast || u->node->out[0]->type.dtype != v->type.dtype || u->node->out[0]->is_output) continue;
        QX_TRY(qx_value_replace_uses(u->node->out[0], v, NULL));
    }
    return QX_OK;
}

static qx_status change_input(qx_value *v, qx_dtype dtype)
{
    const qx_type type = typed(v, dtype);
    qx_node *cast;
    QX_TRY(add_cast(v, v->type.dtype, v->graph->first, &cast));
    QX_TRY(qx_value_replace_uses(v, cast->out[0], cast));
    QX_TRY(qx_value_set_type(v, &type));
    return skip_casts(cast->out[0], v);
}

/* What a Cast made v of, where that has the wanted type and may take v's name. */
static qx_value *before_cast(const qx_value *v, qx_dtype dtype)
{
    qx_value *from = v->def->op->id == QX_OP_Cast ? v->def->in[0] : NULL;
    return from && from->type.dtype == dtype && from->def && from->graph == v->graph && !from->is_output ? from : NULL;
}

static qx_status change_output(qx_value *v, qx_dtype dtype)
{
    qx_value *to = before_cast(v, dtype);
    const qx_type type = typed(v, dtype);
    qx_node *cast;
    if (!to) {
        QX_TRY(add_cast(v, dtype, NULL, &cast));
        to = cast->out[0];
    }
    QX_TRY(qx_output_rewire(v, to));
    return qx_value_set_type(to, &type);
}

static qx_status change_ends(qx_model *m, qx_dtype type, char ends, uint32_t *n_in, uint32_t *n_out)
{
    for (uint32_t i = 0; ends != 'o' && i < m->graph->n_inputs; i++) {
        qx_value *v = m->graph->inputs[i];
        if (!qx_value_is_real(v) || v->type.dtype == type || v->is_output || v->init || !v->uses) continue;
        QX_TRY(change_input(v, type));
        ++*n_in;
    }
    for (uint32_t i = 0; ends != 'i' && i < m->graph->n_outputs; i++) {
        qx_value *v = m->graph->outputs[i];
        if (!qx_value_is_real(v) || v->type.dtype == type || !v->def) continue;
        QX_TRY(change_output(v, type));
        ++*n_out;
    }
    return QX_OK;
}

static qx_status finish(qx_pass *p, qx_model *m, qx_stats *stats)
{
    (void)stats;
    const qx_dtype type = qx_opt_text(p, "type")[0] == 'b' ? QX_DT_BFLOAT16 : QX_DT_FLOAT16;
    uint32_t n_in = 0, n_out = 0;
    QX_TRY(qx_emit_raise(p->pipe, (qx_need){.opset = type == QX_DT_BFLOAT16 ? 13 : 7, .ir = 3}, qx_dtype_get(type)->name));
    QX_TRY(change_ends(m, type, qx_opt_text(p, "ends")[0], &n_in, &n_out));
    if (n_in || n_out)
        qx_log(p->ctx, QX_LOG_INFO, "io-half: %u input%s and %u output%s are %s now", n_in, n_in == 1 ? "" : "s", n_out,
               n_out == 1 ? "" : "s",
               qx_dtype_get(type)->text);
    else qx_warn(p->ctx, "io-half: no input or output is a float of another type than %s", qx_dtype_get(type)->text);
    return QX_OK;
}

static qx_status run(qx_pass *p, qx_model *m, qx_stats *stats)
{
    (void)p, (void)m, (void)stats; /* formats first, see finish() */
    return QX_OK;
}

static const qx_option options[] = {
    {"type", QX_OPT_CHOICE, "float16", 0, 0, "float16|bfloat16", "what float inputs and outputs become"},
    {"ends", QX_OPT_CHOICE, "both", 0, 0, "both|inputs|outputs", "which of them"},
    {NULL, QX_OPT_BOOL, NULL, 0, 0, NULL, NULL},
};

const qx_passdef qx_pass_io_half = {
    .name = "io-half", .brief = "graph inputs and outputs in 16-bit floats (--io float16, --io bfloat16)", .options = options,
    .run = run, .finish = finish,
    .doc = "Float inputs and outputs of the graph become float16 or bfloat16, for pipelines in half precision. Casts stand behind "
           "inputs and before outputs where the\n"
           "graph computes in another type. Goes with any format, and with --float: \"fp16,int8,io-half\"."};

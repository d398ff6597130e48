/* widen.c - the pass fp32, and what fp16 and bf16 begin with: floats of other types (bfloat16, float16, float64) become float32
 * wherever they stand: weights, inputs, results, attributes that name a type. bfloat16 exports run where there are no kernels for
 * that type (ONNX Runtime on a CPU), and models in float64, as some converters of tabular models write them, can be quantized. */
#include "passes/half/half.h"

#include "onnx/infer/infer.h"
#include "onnx/weight/weight.h"

typedef struct widen {
    qx_model *m;
    qx_dtype keep;        /* a type that stays; FLOAT: none */
    const qx_view **view; /* [n_values] how the linear operator that reads this weight sees it */
    bool *touched;        /* [n_node_ids] a result of it changed */
    uint32_t n_nodes;
    int64_t changed;
} widen;

static bool is_other(const widen *w, int type)
{
    return (type == QX_DT_BFLOAT16 || type == QX_DT_FLOAT16 || type == QX_DT_DOUBLE) && type != (int)w->keep;
}

/* ---- types --------------------------------------------------------------------------------------------------------------------- */

/* Of sequences and optionals the elements, which nest no deeper than this. */
static qx_status float_type(const widen *w, const qx_type *is, int depth, qx_type *out)
{
    *out = *is;
    if (is->kind == QX_KIND_TENSOR && is_other(w, (int)is->dtype)) out->dtype = QX_DT_FLOAT;
    if (!is->elem || depth > 4) return QX_OK;
    qx_type *elem = qx_arena_alloc(w->m->arena, sizeof *elem);
    if (!elem) return QX_E_NOMEM;
    out->elem = elem;
    return float_type(w, is->elem, depth + 1, elem);
}

static qx_status retype(const widen *w, qx_value *v)
{
    qx_type t;
    QX_TRY(float_type(w, &v->type, 0, &t));
    return qx_value_set_type(v, &t);
}

/* ---- contents ------------------------------------------------------------------------------------------------------------------ */

/* Numbers that later passes look at (epsilons, masks, factors) are converted at once, weights while the file is written. */
static qx_status store(const widen *w, const qx_value *v, const qx_weight *is, qx_weight **out)
{
    enum { FEW = 64 };
    float x[FEW];
    if (is->job || is->numel > FEW) return qx_half_store(w->m, is, w->view[v->id], QX_DT_FLOAT, NULL, out);
    QX_TRY(qx_weight_read_f32(w->m->ctx, is, 0, is->numel, x));
    return qx_weight_from_bytes(w->m, QX_DT_FLOAT, is->rank, is->dims, x, out);
}

static qx_status widen_init(widen *w, qx_value *v)
{
    qx_weight *fresh;
    QX_TRY(store(w, v, v->init, &fresh));
    w->changed++;
    return qx_init_replace(v, fresh);
}

/* A Constant becomes an initializer: weights are converted while the file is written, attributes are not. */
static qx_status widen_constant(widen *w, qx_node *n, const qx_weight *is)
{
    qx_weight *fresh;
    qx_value *v;
    if (n->out[0]->is_output)
        QX_FAIL(w->m->ctx, QX_E_UNSUPPORTED, "Constant '%s' of %s is an output of the graph: not made float32", n->out[0]->name,
                qx_dtype_get(is->dtype)->text);
    QX_TRY(store(w, n->out[0], is, &fresh));
    QX_TRY(qx_init_add(n->graph, qx_unique_name(w->m, n->out[0]->name), fresh, &v));
    QX_TRY(qx_value_replace_uses(n->out[0], v, NULL));
    return qx_node_erase(n);
}

/* ConstantOfShape's one number. */
static qx_status widen_attribute(widen *w, qx_node *n, const qx_attr *a)
{
    qx_weight *fresh;
    if (a->tensor->numel != 1)
        QX_FAIL(w->m->ctx, QX_E_UNSUPPORTED, "attribute '%s' of '%s' has %lld numbers, 1 is expected", a->name, n->name,
                (long long)a->tensor->numel);
    QX_TRY(store(w, n->out[0], a->tensor, &fresh));
    return qx_attr_set_tensor(n, a->name, fresh);
}

static qx_status widen_attributes(widen *w, qx_node *n)
{
    static const char *const types[] = {"to", "dtype", "output_dtype", "output_datatype"};
    const qx_attr *a = qx_node_attr(n, "value");
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (is_other(w, (int)qx_attr_int(n, types[i], 0))) QX_TRY(qx_attr_set_int(n, types[i], QX_DT_FLOAT));
    return a && a->type == QX_ATTR_TENSOR && is_other(w, (int)a->tensor->dtype) ? widen_attribute(w, n, a) : QX_OK;
}

static qx_status widen_node(void *user, qx_node *n)
{
    widen *w = user;
    const qx_weight *constant = n->op->id == QX_OP_Constant && n->n_out && n->out[0] ? qx_value_const(n->out[0]) : NULL;
    for (uint32_t i = 0; i < n->n_out; i++) {
        if (!n->out[i]) continue;
        w->touched[n->id] |= n->out[i]->type.kind == QX_KIND_TENSOR && is_other(w, (int)n->out[i]->type.dtype);
        QX_TRY(retype(w, n->out[i]));
    }
    w->changed += w->touched[n->id];
    return constant && is_other(w, (int)constant->dtype) ? widen_constant(w, n, constant) : widen_attributes(w, n);
}

static qx_status widen_graph(void *user, qx_graph *g)
{
    widen *w = user;
    for (uint32_t i = 0; i < g->n_inputs; i++) QX_TRY(retype(w, g->inputs[i]));
    for (uint32_t i = 0; i < g->n_inits; i++)
        if (g->inits[i]->init && is_other(w, (int)g->inits[i]->init->dtype)) QX_TRY(widen_init(w, g->inits[i]));
    return QX_OK;
}

/* Casts between types that are one now. */
static qx_status drop_cast(void *user, qx_node *n)
{
    (void)user;
    if (n->op->id != QX_OP_Cast || n->out[0]->is_output || n->in[0]->type.dtype != QX_DT_FLOAT || qx_attr_int(n, "to", 0) != QX_DT_FLOAT)
        return QX_OK;
    QX_TRY(qx_value_replace_uses(n->out[0], n->in[0], NULL));
    return qx_node_erase(n);
}

static qx_status widen_all(qx_pass *p, widen *w)
{
    const qx_quantize_options *o = p->pipe->opt;
    qx_model *m = w->m;
    qx_linears linears;
    w->view = qx_arena_array(m->arena, m->n_values + 1, sizeof *w->view);
    w->touched = qx_arena_array(m->arena, m->n_node_ids + 1, sizeof *w->touched);
    if (!w->view || !w->touched) return QX_E_NOMEM;
    QX_TRY(qx_infer_shapes(m, o->dims, o->n_dims)); /* of what was written out, and types that the file does not state */
    QX_TRY(qx_linears_find(m, &linears));
    for (int64_t i = 0; i < linears.count; i++)
        if (linears.items[i].w && linears.items[i].w_init) w->view[linears.items[i].w_init->id] = &linears.items[i].view;
    QX_TRY(qx_model_each_graph(m, widen_graph, w));
    QX_TRY(qx_model_each_node(m, widen_node, w));
    if (!w->changed) return QX_OK;
    QX_TRY(qx_model_each_node(m, drop_cast, NULL));
    return qx_infer_shapes(m, o->dims, o->n_dims);
}

qx_status qx_widen(qx_pass *p, qx_model *m, qx_dtype keep)
{
    widen w = {.m = m, .keep = keep};
    if (m->n_functions) QX_TRY(qx_functions_inline(m));
    return widen_all(p, &w);
}

/* ---- the pass ------------------------------------------------------------------------------------------------------------------ */

static qx_status rewrite(qx_pass *p, qx_model *m)
{
    widen *w = qx_arena_alloc(m->arena, sizeof *w);
    if (!w) return QX_E_NOMEM;
    *w = (widen){.m = m, .keep = QX_DT_FLOAT};
    p->state = w;
    if (m->n_functions) QX_TRY(qx_functions_inline(m));
    w->n_nodes = m->n_node_ids;
    QX_TRY(widen_all(p, w));
    return w->changed ? QX_OK : qx_half_nothing(p, "nothing in the model is bfloat16, float16 or float64");
}

static qx_status tell(void *user, qx_node *n)
{
    qx_pass *p = user;
    const widen *w = p->state;
    if (n->id < w->n_nodes && w->touched[n->id]) qx_applied(p, n, p->def->name);
    else qx_skip(p, n, QX_WHY_NOT_FLOAT);
    return QX_OK;
}

/* Beside a format the report is about that. */
static qx_status run(qx_pass *p, qx_model *m, qx_stats *stats)
{
    (void)stats;
    return qx_half_alone(p) ? qx_model_each_node(m, tell, p) : QX_OK;
}

const qx_passdef qx_pass_fp32 = {
    .name = "fp32", .brief = "bfloat16, float16 and float64 become float32: alone, or before a format", .flags = QX_PASS_WEIGHTS,
    .rewrite = rewrite, .run = run,
    .doc = "Weights, inputs, outputs and everything between them; for bfloat16 exports on runtimes without kernels for them, and "
           "for models in float64.\n"
           "fp16 and bf16 do the same first with floats of any third type. --float fp32 is short for this pass in front."};

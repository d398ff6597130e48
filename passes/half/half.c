/* half.c - the passes fp16 and bf16: what stays float becomes 16 bits. Before the sweep (rewrite), so that the formats behind it
 * meet a model in 16 bits as if it had been exported so: their scales have that type, and the ranges are those of the model that
 * will run. */
#include "passes/half/half.h"

#include "onnx/infer/infer.h"
#include "passes/place/opset.h"

static const char *const why[] = {
    [QX_FULL_FORM] = "the operator has no such form at this opset", [QX_FULL_CAST] = "makes float32 of something else",
    [QX_FULL_RANGE] = "sums, powers and angles need float32's range or digits",
    [QX_FULL_PLACE] = "computes positions, sizes or angles", [QX_FULL_CONSTANT] = "has a constant that 16 bits cannot hold",
    [QX_FULL_CHAIN] = "stands between nodes in float32",
    [QX_FULL_MERGED] = "ONNX Runtime merges it with the product in front of it, in one type",
    [QX_FULL_MEASURED] = "met values over the limit on a sample", [QX_FULL_EXCLUDED] = "--exclude",
};

static qx_status find_floats(qx_half *h, qx_graph *g)
{
    for (uint32_t i = 0; i < g->n_inputs; i++)
        h->was_float[g->inputs[i]->id] = g->inputs[i]->type.kind == QX_KIND_TENSOR && g->inputs[i]->type.dtype == QX_DT_FLOAT;
    for (uint32_t i = 0; i < g->n_inits; i++) h->was_float[g->inits[i]->id] = g->inits[i]->type.dtype == QX_DT_FLOAT;
    QX_FOR_NODES(g, n)
        for (uint32_t i = 0; i < n->n_out; i++)
            if (n->out[i]) h->was_float[n->out[i]->id] = n->out[i]->type.kind == QX_KIND_TENSOR && n->out[i]->type.dtype == QX_DT_FLOAT;
    return QX_OK;
}

static qx_status floats_of(void *user, qx_graph *g) { return find_floats(user, g); }

/* bfloat16 came to most operators with opset 13, to convolutions with 22. */
static qx_status find_convolution(void *user, qx_node *n)
{
    bool *found = user;
    *found |= n->op->id == QX_OP_Conv || n->op->id == QX_OP_ConvTranspose;
    return QX_OK;
}

static qx_status raise_opset(qx_pass *p, qx_model *m)
{
    bool convolves = false;
    QX_TRY(qx_model_each_node(m, find_convolution, &convolves));
    return qx_opset_raise(m, (qx_need){.opset = convolves ? 22 : 13, .ir = convolves ? 10 : 7}, p->def->name);
}

static qx_status count_half(void *user, qx_node *n)
{
    qx_half *h = user;
    h->n_half += n->op->id != QX_OP_Constant && !h->full[n->id];
    return QX_OK;
}

qx_status qx_half_nothing(const qx_pass *p, const char *what)
{
    if (!what) return QX_E_NOMEM;
    if (qx_half_alone(p)) QX_FAIL(p->ctx, QX_E_UNSUPPORTED, "%s; leave it out", what);
    qx_log(p->ctx, QX_LOG_INFO, "%s: pass %s changes nothing", what, p->def->name);
    return QX_OK;
}

static qx_status rewrite(qx_pass *p, qx_model *m)
{
    qx_half *h = qx_arena_alloc(m->arena, sizeof *h);
    const bool brain = p->def->name[0] == 'b';
    if (!h) return QX_E_NOMEM;
    const qx_dtype type = brain ? QX_DT_BFLOAT16 : QX_DT_FLOAT16;
    QX_TRY(qx_widen(p, m, type));
    if (brain) QX_TRY(raise_opset(p, m));
    *h = (qx_half){.p = p, .m = m, .type = type, .n_nodes = m->n_node_ids, .n_values = m->n_values};
    h->full = qx_arena_array(m->arena, h->n_nodes + 1, sizeof *h->full);
    h->was_float = qx_arena_array(m->arena, h->n_values + 1, sizeof *h->was_float);
    if (!h->full || !h->was_float) return QX_E_NOMEM;
    p->state = h;
    QX_TRY(qx_model_each_graph(m, floats_of, h));
    QX_TRY(qx_plan_excluded(p->pipe, h->full, QX_FULL_EXCLUDED));
    QX_TRY(qx_half_choose(h, brain ? 0 : qx_opt_float(p, "limit")));
    QX_TRY(qx_model_each_node(m, count_half, h));
    if (!h->n_half) return qx_half_nothing(p, qx_arena_printf(m->arena, "nothing in the model can change to %s", p->def->name));
    QX_TRY(qx_half_apply(h));
    return qx_infer_shapes(m, p->pipe->opt->dims, p->pipe->opt->n_dims);
}

static qx_status tell(void *user, qx_node *n)
{
    const qx_half *h = user;
    if (n->id >= h->n_nodes || n->op->id == QX_OP_Constant) return QX_OK;
    if (h->full[n->id] == QX_FULL_OTHER) qx_skip(h->p, n, QX_WHY_NOT_FLOAT);
    else if (h->full[n->id])
        qx_skipf(h->p, n, h->full[n->id] == QX_FULL_EXCLUDED ? QX_WHY_EXCLUDED : QX_WHY_FULL, "%s", why[h->full[n->id]]);
    else qx_applied(h->p, n, h->p->def->name);
    return QX_OK;
}

bool qx_half_alone(const qx_pass *p)
{
    for (int i = 0; i < p->pipe->n_passes; i++)
        if (p->pipe->passes[i]->def->flags & QX_PASS_FORMAT) return false;
    return true;
}

static qx_status run(qx_pass *p, qx_model *m, qx_stats *stats)
{
    (void)stats;
    return qx_half_alone(p) ? qx_model_each_node(m, tell, p->state) : QX_OK;
}

static const qx_option fp16_options[] = {
    {"limit", QX_OPT_FLOAT, "16384", 0, 65504, NULL,
     "with samples: nodes that met larger values on the first one stay in float32 (float16 ends at 65,504); 0: nothing is measured"},
    {NULL, QX_OPT_BOOL, NULL, 0, 0, NULL, NULL},
};

const qx_passdef qx_pass_fp16 = {
    .name = "fp16", .brief = "what stays float in float16: alone, or before a format (\"fp16,int8\")", .options = fp16_options,
    .flags = QX_PASS_WEIGHTS, .rewrite = rewrite, .run = run,
    .doc = "Weights, products, convolutions, normalisations and what lies between them in float16. In float32 stay sums, powers, "
           "exponentials and angles, what is\n"
           "computed from positions and timesteps alone, nodes with constants that float16 cannot hold (epsilons), what the "
           "standard has no float16 for, and, with\n"
           "samples, nodes that met values over `limit`. Masks of float32's lowest number are clipped. Inputs and outputs of the "
           "graph keep float32, by Casts\n"
           "(--io float16 changes them too). --exclude keeps nodes in float32. --float fp16 is short for this pass in front."};

const qx_passdef qx_pass_bf16 = {
    .name = "bf16", .brief = "the same in bfloat16, which keeps float32's range and has 8 bits of digits", .flags = QX_PASS_WEIGHTS,
    .rewrite = rewrite, .run = run,
    .doc = "As fp16, in bfloat16: nothing but masks overflows, each number is less exact. Raises the opset to 13, with convolutions\n"
           "to 22, where operators take the type.\n"
           "--float bf16 is short for this pass in front."};

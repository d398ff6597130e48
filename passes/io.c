/* io.c - graph inputs and outputs as codes: for runtimes at the edge, whose sensors and consumers speak 8 bits, and which then
 * copy a quarter of the bytes.
 *
 * An input that a format quantizes anyway loses its QuantizeLinear and takes the codes of it; any other gets a DequantizeLinear
 * behind it. An output gets a QuantizeLinear, which becomes the output. Names stay; what code stands for what number is said, and
 * stands in the file as the scale of those nodes. */
#include "passes/place/scheme.h"

typedef struct io_state { qx_scheme scheme; bool inputs, outputs; } io_state;

/* A float input that is read and is no output itself; a float output that a node of the graph makes. */
static bool is_end(const io_state *s, const qx_value *v)
{
    if (!qx_value_is_real(v)) return false;
    return v->is_input ? s->inputs && !v->is_output && !v->init && v->uses : s->outputs && v->def;
}

static qx_status plan(qx_pass *p, qx_model *m, qx_stats *stats)
{
    io_state *s = qx_arena_alloc(m->arena, sizeof *s);
    if (!s) return QX_E_NOMEM;
    const char *ends = qx_opt_text(p, "ends");
    const qx_range_options range = qx_scheme_range(p, 127, QX_DT_INT8, QX_RANGE_MAX);
    *s = (io_state){.scheme = {.name = "int8", .act = QX_DT_INT8, .levels = 127, .range = range}, .inputs = ends[0] != 'o',
                    .outputs = ends[0] != 'i'};
    p->state = s;
    for (uint32_t i = 0; i < m->graph->n_inputs; i++)
        if (is_end(s, m->graph->inputs[i])) QX_TRY(qx_scheme_want_range(&s->scheme, stats, m->graph->inputs[i]));
    for (uint32_t i = 0; i < m->graph->n_outputs; i++)
        if (is_end(s, m->graph->outputs[i])) QX_TRY(qx_scheme_want_range(&s->scheme, stats, m->graph->outputs[i]));
    return QX_OK;
}

/* The QuantizeLinear to 8-bit integers of one scale that reads v and that only DequantizeLinear follow; NULL: none. */
static qx_node *quantizer_of(const qx_value *v)
{
    for (const qx_use *u = v->uses; u; u = u->next) {
        qx_node *q = u->node;
        const qx_weight *scale = q->op->id == QX_OP_QuantizeLinear && u->index == 0 ? qx_value_const(q->in[1]) : NULL;
        bool only = scale && scale->numel == 1 && q->graph == v->graph && q->out[0]->uses && !qx_dtype_is_float(q->out[0]->type.dtype);
        for (const qx_use *r = only ? q->out[0]->uses : NULL; r; r = r->next) only = only && r->node->op->id == QX_OP_DequantizeLinear;
        if (only) return q;
    }
    return NULL;
}

/* The pair of v, made where there is none; NULL (with a warning) when v has no scale. */
static qx_status find_pair(qx_pass *p, qx_value *v, const qx_stats *stats, qx_node **q)
{
    const io_state *s = p->state;
    char detail[120];
    qx_act_codes c;
    qx_value *out;
    *q = v->is_input ? quantizer_of(v) : NULL;
    if (*q) return QX_OK;
    const qx_why why = qx_scheme_act_scale(p, &s->scheme, stats, v, &c, detail);
    if (why != QX_WHY_NONE) {
        qx_warn(p->ctx, "io: '%s' %s and stays float: %s", v->name, *detail ? detail : "has no range", qx_why_text(why));
        return QX_OK;
    }
    QX_TRY(qx_emit_raise(p->pipe, qx_emit_pair_need(p->pipe, v, QX_DT_INT8), "INT8"));
    QX_TRY(qx_emit_pair(p->pipe, v, QX_DT_INT8, c.scale, c.zero, &out));
    *q = out->def->in[0]->def;
    return QX_OK;
}

static qx_status tell(qx_pass *p, const qx_value *v, const qx_node *q)
{
    float scale, zero = 0;
    if (p->pipe->no_stats) return QX_OK; /* a plan: no scale is known yet */
    QX_TRY(qx_weight_read_f32(p->ctx, qx_value_const(q->in[1]), 0, 1, &scale));
    if (qx_node_in(q, 2)) QX_TRY(qx_weight_read_f32(p->ctx, qx_value_const(q->in[2]), 0, 1, &zero));
    qx_log(p->ctx, QX_LOG_INFO, "io: %s '%s' is %s now: number = (code - %g) * %.9g", v->is_input ? "input" : "output", v->name,
           qx_dtype_get(v->type.dtype)->text, (double)zero, (double)scale);
    return QX_OK;
}

static qx_type coded(const qx_value *v, const qx_node *q)
{
    qx_type t = v->type;
    t.dtype = q->out[0]->type.dtype;
    return t;
}

/* Whoever read the numbers reads what the codes stand for; who read the codes reads the input. */
static qx_status code_input(qx_pass *p, qx_value *v, const qx_stats *stats)
{
    qx_node *q;
    QX_TRY(find_pair(p, v, stats, &q));
    if (!q) return QX_OK;
    const qx_type type = coded(v, q);
    QX_TRY(qx_value_replace_uses(v, q->out[0]->uses->node->out[0], q));
    QX_TRY(qx_value_replace_uses(q->out[0], v, NULL));
    QX_TRY(qx_value_set_type(v, &type));
    QX_TRY(tell(p, v, q));
    return qx_node_erase(q);
}

static qx_status code_output(qx_pass *p, qx_value *v, const qx_stats *stats)
{
    qx_node *q;
    QX_TRY(find_pair(p, v, stats, &q));
    if (!q) return QX_OK;
    const qx_type type = coded(v, q);
    QX_TRY(qx_output_rewire(v, q->out[0]));
    QX_TRY(qx_value_set_type(q->out[0], &type));
    return tell(p, q->out[0], q);
}

static qx_status finish(qx_pass *p, qx_model *m, qx_stats *stats)
{
    const io_state *s = p->state;
    for (uint32_t i = 0; i < m->graph->n_inputs; i++)
        if (is_end(s, m->graph->inputs[i])) QX_TRY(code_input(p, m->graph->inputs[i], stats));
    for (uint32_t i = 0; i < m->graph->n_outputs; i++)
        if (is_end(s, m->graph->outputs[i])) QX_TRY(code_output(p, m->graph->outputs[i], stats));
    return QX_OK;
}

static qx_status run(qx_pass *p, qx_model *m, qx_stats *stats)
{
    (void)p, (void)m, (void)stats; /* formats first: finish() takes the codes that they gave the inputs */
    return QX_OK;
}

static const qx_option options[] = {
    {"ends", QX_OPT_CHOICE, "both", 0, 0, "both|inputs|outputs", "which of them become codes"},
    QX_SCHEME_RANGE_OPTIONS("max"),
    {NULL, QX_OPT_BOOL, NULL, 0, 0, NULL, NULL},
};

const qx_passdef qx_pass_io = {
    .name = "io", .brief = "graph inputs and outputs as 8-bit codes (--io int8)", .options = options, .flags = QX_PASS_CALIBRATED,
    .plan = plan, .run = run, .finish = finish,
    .doc = "Float inputs and outputs of the graph become INT8; an input that the format quantizes has the format's codes (UINT8 "
           "where those are). The scale\n"
           "is that of the DequantizeLinear behind an input and of the QuantizeLinear before an output. Goes with any format: "
           "\"int8,io\"."};

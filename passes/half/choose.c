/* choose.c - which nodes run in 16 bits. Float32 stay
 *   - operators whose results leave float16's range or need more digits (half.def), Mul(x, x), a square, and Scatters that sum what
 *     meets at one place (ONNX Runtime has no float16 kernel for those);
 *   - places: what is computed from positions, sizes and timesteps alone, and everything that leads to a Sin or Cos, coordinates times
 *     a matrix of frequencies too. A position of 2,049 is no float16 number;
 *   - nodes with a constant that 16 bits cannot hold: an epsilon under the smallest normal number, a factor over the largest; and
 *     what divides by such a sum;
 *   - BatchNormalization behind a MatMul, which ONNX Runtime merges with it;
 *   - what stands between such nodes: between a ReduceMean and the division by its root nothing is gained by 16 bits, and each
 *     change of type costs a Cast;
 *   - nodes whose inputs or results were larger than a limit when the float model ran on a sample.
 * Products with weights run in 16 bits unless excluded or measured. */
#include "passes/half/half.h"

#include <math.h>
#include <string.h>

#include "onnx/weight/weight.h"

enum { NEVER = 1 << 20 };
#define ALL UINT32_MAX

static const struct { qx_op_id op; uint32_t in, out; int fp16, bf16; } forms[] = {
#define QX_HALF(op, in, out, fp16, bf16) {QX_OP_##op, in, out, fp16, bf16},
#include "passes/half/half.def"
};
static const qx_op_id always_full[] = {
#define QX_FULL(op) QX_OP_##op,
#include "passes/half/half.def"
};

enum { BY_TRAIT = QX_T_COPY | QX_T_POINTWISE | QX_T_LINEAR | QX_T_NORM | QX_T_ATTENTION, BF16_SINCE = 13 };

bool qx_half_reads_any(const qx_node *n) { return n->op->id == QX_OP_Cast || n->op->traits & QX_T_SHAPE_ONLY; }

bool qx_half_form(const qx_node *n, qx_dtype type, uint32_t *in, uint32_t *out)
{
    const bool brain = type == QX_DT_BFLOAT16;
    const int64_t opset = qx_graph_opset(n->graph, n->domain);
    *in = *out = 0;
    if (qx_half_reads_any(n)) return true;
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        if (forms[i].op != n->op->id) continue;
        *in = forms[i].in;
        *out = forms[i].out;
        return opset >= (brain ? forms[i].bf16 : forms[i].fp16);
    }
    if (!(n->op->traits & BY_TRAIT) || n->op->traits & (QX_T_QUANTIZED | QX_T_QDQ | QX_T_CONTROL) || n->callee) return false;
    *in = *out = ALL;
    return !n->domain[0] && (!brain || opset >= BF16_SINCE); /* of other domains those of the table: many have kernels for float32 alone */
}

/* ---- what is read --------------------------------------------------------------------------------------------------------------- */

typedef struct chooser {
    qx_half *h;
    bool *place; /* [n_values] made of positions, sizes and constants alone */
    bool *angle; /* [n_node_ids] leads to a Sin or Cos */
    qx_node **nodes; uint32_t n; /* of all graphs, in order, bodies behind the nodes that own them */
} chooser;

/* A float input that is no constant. */
static bool is_data(const chooser *c, const qx_value *v) { return v && c->h->was_float[v->id] && !qx_value_const(v) && !v->sparse; }

/* More than one dimension of more than one element: a weight or table, no list of frequencies. */
static bool is_matrix(const qx_weight *w)
{
    int wide = 0;
    for (int i = 0; w && i < w->rank; i++) wide += w->dims[i] > 1;
    return wide > 1;
}

static bool reads_weights(const chooser *c, const qx_node *n)
{
    for (uint32_t i = 0; i < n->n_in; i++)
        if (n->in[i] && c->h->was_float[n->in[i]->id] && is_matrix(qx_value_const(n->in[i]))) return true;
    return false;
}

/* Coordinates times a matrix of frequencies, as in SAM's prompts: a product over so few is no layer of a network. */
static bool spreads_coordinates(const qx_node *n)
{
    enum { AXES = 4 };
    const bool gemm = n->op->id == QX_OP_Gemm;
    const qx_weight *w = (gemm || n->op->id == QX_OP_MatMul) && n->n_in > 1 ? qx_value_const(n->in[1]) : NULL;
    return w && w->rank == 2 && w->dims[gemm && qx_attr_int(n, "transB", 0)] <= AXES;
}

static bool makes_place(const chooser *c, const qx_node *n)
{
    if (n->op->traits & (QX_T_RANDOM | QX_T_CONTROL) || reads_weights(c, n)) return false;
    for (uint32_t i = 0; i < n->n_in; i++)
        if (is_data(c, n->in[i]) && !c->place[n->in[i]->id]) return false;
    return true;
}

static void find_places(chooser *c)
{
    for (uint32_t i = 0; i < c->n; i++) {
        const bool place = makes_place(c, c->nodes[i]);
        for (uint32_t k = 0; place && k < c->nodes[i]->n_out; k++)
            if (c->nodes[i]->out[k]) c->place[c->nodes[i]->out[k]->id] = true;
    }
}

static bool feeds_angle(const chooser *c, const qx_node *n)
{
    for (uint32_t k = 0; k < n->n_out; k++)
        for (const qx_use *u = n->out[k] ? n->out[k]->uses : NULL; u; u = u->next)
            if (c->angle[u->node->id]) return true;
    return false;
}

/* Operators whose results are angles when an angle is made of them. A Scatter writes one coordinate among others. */
static bool passes_angles_on(const chooser *c, const qx_node *n)
{
    if (reads_weights(c, n) && !spreads_coordinates(n)) return false;
    return n->op->traits & (QX_T_COPY | QX_T_POINTWISE | QX_T_LINEAR) || n->op->id == QX_OP_ScatterND || n->op->id == QX_OP_ScatterElements;
}

static void find_angles(chooser *c)
{
    for (uint32_t i = c->n; i-- > 0;) {
        const qx_node *n = c->nodes[i];
        const bool turns = n->op->id == QX_OP_Sin || n->op->id == QX_OP_Cos;
        c->angle[n->id] = turns || (passes_angles_on(c, n) && feeds_angle(c, n));
    }
}

/* ---- constants ------------------------------------------------------------------------------------------------------------------ */

enum { FEW = 16 }; /* elements of a constant that is a number and no weight */

/* Where a constant is added or compared, a large one is as good as infinite (masks) and is clipped; as a factor it is not. */
static bool large_is_infinite(const qx_node *n)
{
    switch (n->op->id) {
    case QX_OP_Add: case QX_OP_Sub: case QX_OP_Where: case QX_OP_Max: case QX_OP_Min: case QX_OP_Clip: case QX_OP_Pad:
    case QX_OP_Less: case QX_OP_Greater:
        return true;
    default: return n->op->traits & QX_T_COPY;
    }
}

static qx_status constant_fits(const chooser *c, const qx_node *n, const qx_weight *w, bool *fits)
{
    const qx_view view = {1, 1, w->numel, 0};
    float v[FEW];
    *fits = true;
    if (c->h->type != QX_DT_FLOAT16 || w->numel > FEW || !w->numel) return QX_OK;
    QX_TRY(qx_rows_read(c->h->m->ctx, w, &view, NULL, 0, 1, v)); /* of bfloat16 or float64 before, too */
    for (int64_t i = 0; i < w->numel; i++) {
        const float a = fabsf(v[i]);
        if (a > 0 && (a < 0x1p-14f || (a > 65504 && isfinite(a) && !large_is_infinite(n)))) *fits = false;
    }
    return QX_OK;
}

static qx_status constants_fit(const chooser *c, const qx_node *n, bool *fit)
{
    *fit = true;
    for (uint32_t i = 0; *fit && i < n->n_in; i++) {
        const qx_weight *w = n->in[i] && c->h->was_float[n->in[i]->id] ? qx_value_const(n->in[i]) : NULL;
        if (w) QX_TRY(constant_fits(c, n, w, fit));
    }
    return QX_OK;
}

/* ---- one node ------------------------------------------------------------------------------------------------------------------- */

static bool needs_range(const qx_node *n)
{
    for (size_t i = 0; i < sizeof always_full / sizeof *always_full; i++)
        if (always_full[i] == n->op->id) return true;
    if (n->op->id == QX_OP_ScatterElements || n->op->id == QX_OP_ScatterND)
        return strcmp(qx_attr_string(n, "reduction", "none"), "none") != 0;
    return n->op->id == QX_OP_Mul && n->in[0] == n->in[1];
}

/* What an epsilon that 16 bits cannot hold was added to is divided by, or has its root taken: rounded in between it would be 0. */
static bool divides_by_small(const chooser *c, const qx_node *n)
{
    const uint32_t at = n->op->id == QX_OP_Div;
    const bool takes = at || n->op->id == QX_OP_Sqrt || n->op->id == QX_OP_Reciprocal;
    const qx_value *v = takes ? qx_node_in(n, at) : NULL;
    return v && v->def && c->h->full[v->def->id] == QX_FULL_CONSTANT;
}

/* Nothing but float32 results goes in: it may as well stay so. */
static bool in_chain(const chooser *c, const qx_node *n)
{
    bool any = false;
    if (n->op->traits & (QX_T_LINEAR | QX_T_ATTENTION)) return false;
    for (uint32_t i = 0; i < n->n_in; i++) {
        const qx_value *v = n->in[i];
        if (!is_data(c, v)) continue;
        if (!v->def || !c->h->full[v->def->id]) return false;
        any = true;
    }
    return any;
}

static const qx_node *maker(const qx_node *n) { return n->n_in && n->in[0] ? n->in[0]->def : NULL; }

/* A BatchNormalization behind a MatMul: ONNX Runtime's fusion of the two divides one constant by the other, and refuses the model
 * when their types differ. It looks through what only moves values, and drops Dropout first. */
static bool is_merged(const qx_node *n)
{
    if (n->op->id != QX_OP_BatchNormalization) return false;
    do n = maker(n);
    while (n && (n->op->id == QX_OP_Reshape || n->op->id == QX_OP_Transpose || n->op->id == QX_OP_Identity || n->op->id == QX_OP_Dropout));
    return n && n->op->id == QX_OP_MatMul;
}

static bool touches_float(const qx_half *h, const qx_node *n)
{
    for (uint32_t i = 0; i < n->n_in; i++)
        if (n->in[i] && h->was_float[n->in[i]->id]) return true;
    for (uint32_t i = 0; i < n->n_out; i++)
        if (n->out[i] && h->was_float[n->out[i]->id]) return true;
    return false;
}

static qx_status judge(chooser *c, const qx_node *n)
{
    qx_half *h = c->h;
    uint32_t in, out;
    bool fit;
    uint8_t *full = &h->full[n->id];
    if (*full) return QX_OK;
    if (!touches_float(h, n) || n->op->traits & QX_T_SHAPE_ONLY) *full = QX_FULL_OTHER;
    else if (n->op->id == QX_OP_Cast) *full = n->out[0] && h->was_float[n->out[0]->id] ? QX_FULL_CAST : QX_FULL_OTHER;
    else if (needs_range(n)) *full = QX_FULL_RANGE;
    else if (!qx_half_form(n, h->type, &in, &out)) *full = QX_FULL_FORM;
    else if (c->angle[n->id] || (n->n_out && n->out[0] && c->place[n->out[0]->id] && h->was_float[n->out[0]->id])) *full = QX_FULL_PLACE;
    else if (divides_by_small(c, n)) *full = QX_FULL_CONSTANT;
    else if (in_chain(c, n)) *full = QX_FULL_CHAIN;
    else if (is_merged(n)) *full = QX_FULL_MERGED;
    if (*full) return QX_OK;
    QX_TRY(constants_fit(c, n, &fit));
    if (!fit) *full = QX_FULL_CONSTANT;
    return QX_OK;
}

/* ---- a sample ------------------------------------------------------------------------------------------------------------------- */

typedef struct probe { qx_half *h; double limit; } probe;

static qx_status look(void *user, int watch, const qx_value *v, const qx_tensor *t)
{
    const probe *pr = user;
    const float *x = t->data;
    float most = 0;
    (void)watch;
    for (int64_t i = 0; i < t->numel; i++) most = fabsf(x[i]) > most && fabsf(x[i]) < QX_HALF_MASKED ? fabsf(x[i]) : most;
    if (most <= pr->limit) return QX_OK;
    if (v->def) pr->h->full[v->def->id] = QX_FULL_MEASURED;
    for (const qx_use *u = v->uses; u; u = u->next)
        if (!qx_half_reads_any(u->node)) pr->h->full[u->node->id] = QX_FULL_MEASURED;
    return QX_OK;
}

/* Runs the float model once. An operator without a kernel: nothing is measured behind it. */
static qx_status measure(chooser *c, double limit)
{
    qx_half *h = c->h;
    qx_pipeline *pipe = h->p->pipe;
    probe pr = {h, limit};
    const qx_feed *feeds;
    qx_exec *exec = NULL;
    qx_value **watched;
    int n = 0, n_feeds;
    qx_status st;
    qx_exec_options eo = pipe->opt->exec;
    eo.allow_fallback = eo.only_watched = true;
    QX_TRY(qx_alloc_array(h->m->ctx, h->n_values + 1, sizeof(qx_value *), (void **)&watched));
    for (uint32_t i = 0; i < c->n; i++)
        for (uint32_t k = 0; k < c->nodes[i]->n_out; k++)
            if (c->nodes[i]->out[k] && h->was_float[c->nodes[i]->out[k]->id] && !qx_value_const(c->nodes[i]->out[k]))
                watched[n++] = c->nodes[i]->out[k];
    QX_TRY_GOTO(st, qx_samples_get(pipe->shapes, 0, &feeds, &n_feeds));
    QX_TRY_GOTO(st, qx_exec_new(h->m->ctx, h->m, &eo, &exec));
    QX_TRY_GOTO(st, qx_exec_watch(exec, watched, n, look, &pr));
    (void)qx_exec_want_outputs(exec, false);
    st = qx_exec_run(exec, feeds, n_feeds, (const char *const[]){NULL}, 0, NULL);
done:
    qx_exec_free(exec);
    qx_free(h->m->ctx, watched);
    if (st != QX_E_UNSUPPORTED) return st;
    qx_ctx_clear_error(h->m->ctx);
    return QX_OK;
}

/* ---- all ------------------------------------------------------------------------------------------------------------------------ */

static qx_status list_node(void *user, qx_node *n)
{
    chooser *c = user;
    c->nodes[c->n++] = n;
    return QX_OK;
}

qx_status qx_half_choose(qx_half *h, double limit)
{
    qx_arena *a = h->m->arena;
    chooser c = {.h = h, .place = qx_arena_array(a, h->n_values + 1, sizeof(bool)),
                 .angle = qx_arena_array(a, h->n_nodes + 1, sizeof(bool)),
                 .nodes = qx_arena_array(a, h->n_nodes + 1, sizeof(qx_node *))};
    if (!c.place || !c.angle || !c.nodes) return QX_E_NOMEM;
    QX_TRY(qx_model_each_node(h->m, list_node, &c));
    find_places(&c);
    find_angles(&c);
    if (limit > 0 && h->type == QX_DT_FLOAT16 && h->p->pipe->shapes && !h->p->pipe->no_stats) QX_TRY(measure(&c, limit));
    for (uint32_t i = 0; i < c.n; i++) QX_TRY(judge(&c, c.nodes[i]));
    return QX_OK;
}

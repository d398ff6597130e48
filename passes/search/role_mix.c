/* role_mix.c - more bits where language models are known to need them, by the part an operator plays: llama.cpp's rule for its
 * K_M mixes (ggml-org/llama.cpp, llama-quant.cpp: use_more_bits), which onnxruntime-genai and Model Optimizer share.
 *
 * The value projection (or the packed q/k/v) and the down projection of the first and the last eighth of the layers and of every
 * third between get `more`, the language model head too, everything else `base`. Parts are found by structure: the linear whose
 * result is multiplied by the softmax, the linear that contracts at least twice as much as it puts out. No statistics are needed. */
#include "passes/search/mix.h"

typedef struct role_mix { qx_mix *mix; bool *more; /* [groups] */ } role_mix;

enum { MAX_WALK = 24 };

static bool moves_values(const qx_node *n)
{
    switch (n->op->id) {
    case QX_OP_Reshape: case QX_OP_Transpose: case QX_OP_Unsqueeze: case QX_OP_Squeeze: case QX_OP_Expand:
    case QX_OP_Identity: case QX_OP_Concat: case QX_OP_Cast:
    case QX_OP_Split: case QX_OP_Slice: case QX_OP_Add: return true;
    default: return false;
    }
}

/* Upwards over head splitting, the cache's Concat (whose last input is new) and a bias to the linear operator behind v. */
static int64_t linear_behind(const qx_plan *plan, const qx_value *v)
{
    for (int i = 0; i < MAX_WALK && v && v->def; i++) {
        const qx_node *n = v->def;
        const qx_plan_item *it = qx_plan_item_of(plan, n);
        if (it && it->weight) return it - plan->items;
        if (!moves_values(n)) return -1;
        const bool last = n->op->id == QX_OP_Concat || (n->op->id == QX_OP_Add && (!n->in[0] || !n->in[0]->def));
        v = n->in[last ? n->n_in - 1 : 0];
    }
    return -1;
}

/* Inputs of fused attention operators that hold the values; packed projections come as input 0. */
static const struct { qx_op_id op; uint32_t value; } fused[] = {{QX_OP_ms_GroupQueryAttention, 2}, {QX_OP_ms_MultiHeadAttention, 2},
                                                                {QX_OP_Attention, 2}, {QX_OP_ms_Attention, 0}};

typedef struct marks { const qx_plan *plan; bool *value; } marks;

static qx_status mark_fused(void *user, qx_node *n)
{
    const marks *m = user;
    for (size_t i = 0; i < sizeof fused / sizeof *fused; i++) {
        if (n->op->id != fused[i].op) continue;
        const qx_value *v = qx_node_in(n, fused[i].value) ? n->in[fused[i].value] : qx_node_in(n, 0);
        const int64_t at = linear_behind(m->plan, v);
        if (at >= 0) m->value[at] = true;
    }
    return QX_OK;
}

static qx_status mark_values(const qx_pass *p, bool *value)
{
    const qx_plan *plan = p->pipe->plan;
    marks m = {plan, value};
    for (int64_t i = 0; i < plan->n_attentions; i++) {
        const int64_t at = linear_behind(plan, plan->attentions[i].pv->in[1]);
        if (at >= 0) value[at] = true;
    }
    return qx_model_each_node(p->pipe->model, mark_fused, &m);
}

static bool is_head(const qx_linear *l) { return qx_rule_names_head(l); }

/* Contracts at least twice what it puts out, and reads its input alone (key and value projections of grouped attention share
 * theirs with the query's). */
static bool is_down(const qx_plan *plan, const qx_linear *l)
{
    if (!l->w || !l->plain || l->k < 2 * l->n || is_head(l)) return false;
    for (int64_t i = 0; i < plan->linears.count; i++)
        if (i != l->index && plan->linears.items[i].group_id == l->group_id) return false;
    return true;
}

/* llama.cpp's use_more_bits. */
static bool more_bits(int64_t layer, int64_t layers)
{
    return layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2;
}

/* Layers are counted by their down projections, in graph order: what stands before the first one is layer 0. */
static void assign(role_mix *r, const qx_plan *plan, const bool *value)
{
    int64_t layers = 0, layer = 0;
    for (int64_t i = 0; i < plan->linears.count; i++) layers += r->mix->group[i] >= 0 && is_down(plan, &plan->linears.items[i]);
    for (int64_t i = 0; i < plan->linears.count; i++) {
        const qx_linear *l = &plan->linears.items[i];
        if (r->mix->group[i] < 0) continue;
        if (is_head(l) || ((value[i] || is_down(plan, l)) && more_bits(layer, layers))) r->more[i] = true;
        layer += is_down(plan, l);
    }
}

/* Roles are single operators here: v may differ from q and k, as in llama.cpp. */
static void give(const role_mix *r)
{
    const qx_plan *plan = r->mix->pass->pipe->plan;
    for (int64_t i = 0; i < plan->linears.count; i++) {
        if (r->mix->group[i] < 0) continue;
        int format = r->more[i] ? 1 : 0;
        while (format < 2 && !qx_mix_at(r->mix, i, format)->ok) format++;
        if (format == 2 && qx_mix_at(r->mix, i, 0)->ok) format = 0;
        qx_mix_give(r->mix, i, format);
    }
}

static qx_status plan(qx_pass *p, qx_model *m, qx_stats *stats)
{
    role_mix *r = qx_arena_alloc(m->arena, sizeof *r);
    const size_t n = (size_t)p->pipe->plan->linears.count + 1;
    if (!r) return QX_E_NOMEM;
    p->state = r;
    const char *formats = qx_arena_printf(p->pipe->arena, "%s+%s", qx_opt_text(p, "base"), qx_opt_text(p, "more"));
    bool *value = qx_arena_array(m->arena, n, sizeof *value);
    r->more = qx_arena_array(m->arena, n, sizeof *r->more);
    if (!formats || !value || !r->more) return QX_E_NOMEM;
    QX_TRY(qx_mix_plan(p, formats, false, stats, &r->mix));
    if (r->mix->n != 2) QX_FAIL(p->ctx, QX_E_USAGE, "role-mix needs two formats, base and more, not '%.100s'", formats);
    QX_TRY(mark_values(p, value));
    assign(r, p->pipe->plan, value);
    give(r);
    return QX_OK;
}

static qx_status run(qx_pass *p, qx_model *m, qx_stats *stats)
{
    const role_mix *r = p->state;
    return qx_mix_run(r->mix, m, stats);
}

static const qx_option options[] = {
    {"base", QX_OPT_TEXT, "int4", 0, 0, NULL, "format of most operators"},
    {"more", QX_OPT_TEXT, "int8-weights", 0, 0, NULL,
     "format of the head, and of value and down projections in the first and last eighth of the layers and every third between"},
    {NULL, QX_OPT_BOOL, NULL, 0, 0, NULL, NULL},
};

const qx_passdef qx_pass_role_mix = {
    .name = "role-mix", .brief = "two formats by the role of an operator, as llama.cpp's K_M mixes", .options = options,
    .flags = QX_PASS_FORMAT | QX_PASS_MIXES, .plan = plan, .run = run,
    .doc = "The head, and the value (or packed q/k/v) and down projections of layers i < L/8, i >= 7L/8 or (i - L/8) % 3 == 2 get "
           "`more`, the rest\n"
           "`base`. Found by structure, so it works without names and needs no samples. With samples, mixed finds a better mix "
           "for the same size."};

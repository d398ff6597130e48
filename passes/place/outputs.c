/* outputs.c - what a quantized convolution writes gets a pair too. ONNX Runtime has one operator for a convolution between pairs
 * (QLinearConv) and none for codes in, floats out: there it dequantizes the weight at each run and convolves in float, which is slower
 * than the float model. Every reader then reads the pair, because a convolution with a second reader is not fused either. */
#include <math.h>

#include "passes/linear/activation.h"
#include "passes/place/scheme.h"

/* Below -flat an activation is as good as constant (HardSwish exactly): codes need not reach further. */
typedef struct flat { qx_op_id op; float below; } flat;
static const flat flats[] = {{QX_OP_HardSwish, 3}, {QX_OP_Swish, 8}, {QX_OP_Gelu, 4}, {QX_OP_Mish, 10}};
static const float of_parts[] = {[QX_ACTIVATION_SILU] = 8, [QX_ACTIVATION_HARD_SWISH] = 3, [QX_ACTIVATION_GELU] = 4};

static bool is_constant(const qx_value *v)
{
    qx_const_view c;
    return !v || qx_const_trace(v, &c);
}

/* Relu and Clip become part of the codes' range, so the pair goes behind them. */
static qx_value *end_of(const qx_node *conv)
{
    qx_value *v = conv->out[0];
    if (v->is_output || v->n_uses != 1) return v;
    const qx_node *next = v->uses->node;
    const bool clips = next->op->id == QX_OP_Clip && is_constant(qx_node_in(next, 1)) && is_constant(qx_node_in(next, 2));
    return next->graph == conv->graph && (next->op->id == QX_OP_Relu || clips) ? next->out[0] : v;
}

static float flat_of(const qx_value *v, const qx_node *reader)
{
    const float alpha = reader->op->id == QX_OP_Swish ? qx_attr_float(reader, "alpha", 1) : 1; /* x sigmoid(alpha x) */
    for (size_t i = 0; i < sizeof flats / sizeof *flats && alpha > 0; i++)
        if (reader->op->id == flats[i].op) return flats[i].below / alpha;
    return of_parts[qx_activation_of(v, reader, NULL)];
}

/* What lies below -result is the same to every reader of v; 0: to some it is not. */
static float flat_below(const qx_value *v)
{
    float most = 0;
    for (const qx_use *u = v->uses; u; u = u->next) {
        const float f = flat_of(v, u->node);
        if (!(f > 0)) return 0;
        most = fmaxf(most, f);
    }
    return most;
}

static qx_plan_item *codes_of(const qx_pass *p, const qx_use *u)
{
    qx_plan_item *it = qx_plan_item_of(p->pipe->plan, u->node);
    return it && it->pass && it->act && u->index == it->lin->x_index ? it : NULL;
}

/* What a pooling that picks the largest makes of v, as far as this reader is one: codes come through it as they are. */
static qx_value *pooled(const qx_use *u)
{
    const bool picks = u->node->op->id == QX_OP_MaxPool && u->index == 0 && !qx_node_out(u->node, 1);
    return picks ? qx_node_out(u->node, 0) : NULL;
}

/* Whether nobody reads v as it is: pairs of the readers serve, behind operators that only move elements too. */
static bool all_read_codes(const qx_pass *p, qx_value *v, int depth)
{
    enum { DEEPEST = 8 };
    if (v->is_output || depth > DEEPEST || !v->uses) return false;
    for (const qx_use *u = v->uses; u; u = u->next) {
        if (codes_of(p, u)) continue;
        qx_value *moved = qx_node_out(u->node, 0);
        if (!moved || qx_same_elements(moved) != qx_same_elements(v) || !all_read_codes(p, moved, depth + 1)) return false;
    }
    return true;
}

/* A reader of v's codes: of v itself, or behind poolings alone. */
static qx_plan_item *direct_reader(const qx_pass *p, const qx_value *v)
{
    for (const qx_use *u = v->uses; u; u = u->next)
        if (codes_of(p, u)) return codes_of(p, u);
    return NULL;
}

/* One that reads what poolings make of v, where all readers do: its codes are v's too, in front of them, and nothing is rounded twice. */
static qx_plan_item *reader_of_pooled(const qx_pass *p, const qx_value *v)
{
    qx_plan_item *found = NULL;
    if (v->is_output) return NULL;
    for (const qx_use *u = v->uses; u; u = u->next) {
        const qx_value *y = pooled(u);
        if (!y || y->is_output || !all_read_codes(p, (qx_value *)(uintptr_t)y, 0)) return NULL;
        if (!found) found = direct_reader(p, y);
    }
    return found;
}

/* Whether operators of float numbers read in the end what Concats make of v, and nothing else does: maps of a detector, which leave as they
 * are (and no skips of a UNet, whose normalisations read them). A pair would do nothing but round them. (With one OpenVINO 2026.4
 * computes other anchors from their shapes: NudeNet 12.8 dB.) */
static bool leaves_in_concats(const qx_pass *p, const qx_value *v, bool joined, int depth)
{
    enum { DEEPEST = 8 };
    if (depth > DEEPEST) return false;
    for (const qx_use *u = v->uses; u; u = u->next) {
        const qx_node *n = u->node;
        const bool moves = n->op->id == QX_OP_Concat || n->op->traits & QX_T_COPY;
        if (codes_of(p, u) || n->op->traits & QX_T_NORM || (!moves && !joined && n->op->id != QX_OP_Shape)) return false;
        for (uint32_t i = 0; moves && i < n->n_out; i++)
            if (n->out[i] && !leaves_in_concats(p, n->out[i], joined || n->op->id == QX_OP_Concat, depth + 1)) return false;
    }
    return joined || v->n_uses > 0;
}

/* Whether a logarithm reads v, or what is computed of it element by element: of a spectrum (real and imaginary part, magnitude, bands of a
 * constant matrix) the smallest values count as much as the largest, and codes make them zero. Each part alone looks harmless to a
 * search that tries them one by one (speech quality from sound: 12 dB with these results in codes, 31 without). */
static bool feeds_logarithm(const qx_value *v, int depth)
{
    static const qx_op_id through[] = {QX_OP_Mul, QX_OP_Add, QX_OP_Sub, QX_OP_Pow, QX_OP_Sqrt, QX_OP_Abs, QX_OP_Max, QX_OP_Clip,
                                       QX_OP_Concat, QX_OP_MatMul, QX_OP_ReduceSum, QX_OP_ReduceSumSquare, QX_OP_ReduceL2};
    enum { DEEPEST = 12 };
    for (const qx_use *u = v->uses; u && depth < DEEPEST; u = u->next) {
        const qx_node *n = u->node;
        bool on = n->op->traits & QX_T_COPY;
        if (n->op->id == QX_OP_Log || n->op->id == QX_OP_ReduceLogSum) return true;
        for (size_t i = 0; i < sizeof through / sizeof *through && !on; i++) on = n->op->id == through[i];
        for (uint32_t i = 0; on && i < n->n_out; i++)
            if (n->out[i] && feeds_logarithm(n->out[i], depth + 1)) return true;
    }
    return false;
}

/* There is no such operator of float16. */
static bool takes_part(const qx_pass *p, const qx_plan_item *it)
{
    const qx_node *n = it->lin->node;
    return it->pass == p && it->act && !it->float_output && n->op->id == QX_OP_Conv && !n->graph->function &&
        n->out[0]->type.dtype == QX_DT_FLOAT;
}

qx_status qx_outputs_plan(qx_pass *p, qx_stats *stats, const qx_scheme *s)
{
    const qx_plan *plan = p->pipe->plan;
    for (int64_t i = 0; i < plan->linears.count; i++) {
        const qx_plan_item *it = &plan->items[i];
        if (!takes_part(p, it)) continue;
        qx_value *v = end_of(it->lin->node);
        if (!v->is_output) QX_TRY(qx_scheme_want_range(s, stats, v));
        QX_TRY(qx_slope_plan(s, stats, it, v));
    }
    return QX_OK;
}

static bool only_hard_swish(const qx_value *v)
{
    for (const qx_use *u = v->uses; u; u = u->next)
        if (qx_activation_of(v, u->node, NULL) != QX_ACTIVATION_HARD_SWISH) return false;
    return v->uses != NULL;
}

/* Codes that reach from -3 on, with 3 a whole number of steps: both factors of HardSwish lie on them exactly (ort_forms.c). */
static void three_on_grid(qx_act_codes *c)
{
    const float top = (float)(255 - c->zero) * c->scale, step = (top + 3) / 255, least = 8;
    const float three = floorf(3 / step);
    if (c->act != QX_DT_UINT8 || step > 1.15f * c->scale || three < least) return;
    c->scale = 3 / three;
    c->zero = (int32_t)three;
}

/* Codes of what maker writes, v: those of its readers that have some, so that one pair serves all, or a range of its own. */
static qx_why choose(qx_pass *p, const qx_stats *stats, const qx_scheme *s, const qx_plan_item *maker, qx_act_codes *c, char detail[120])
{
    qx_scheme mine = *s;
    const qx_value *v = end_of(maker->lin->node);
    const qx_plan_item *it = direct_reader(p, v);
    if (!it) it = reader_of_pooled(p, v);
    if (it) {
        *c = (qx_act_codes){it->act, it->act_scale, it->act_zero};
        return it->act_scale > 0 ? QX_WHY_NONE : qx_scheme_input_codes(it, stats, c, detail);
    }
    if (p->pipe->opt->target != QX_TARGET_TENSORRT) {
        mine.act_zero = true;
        mine.range.format = QX_DT_UINT8;
        mine.flat = flat_below(v);
        const qx_status st = mine.flat > 0 ? QX_OK : qx_slope_reach(&mine, stats, maker, v, &mine.flat);
        if (st != QX_OK) p->pipe->failed = st;
    }
    c->act = mine.act_zero ? QX_DT_UINT8 : s->act;
    const qx_why why = qx_scheme_act_scale(p, &mine, stats, v, c, detail);
    if (why == QX_WHY_NONE && qx_target_has(p->pipe->opt->target, QX_TARGET_FUSES_CODES) && only_hard_swish(v)) three_on_grid(c);
    return why;
}

/* Whether some reader needs the value itself, and would get the pair instead. */
static bool needs_pair(const qx_pass *p, qx_value *v)
{
    const bool kept = !qx_target_has(p->pipe->opt->target, QX_TARGET_CONTRIB) && leaves_in_concats(p, v, false, 0);
    return !v->is_output && v->n_uses && !kept && !feeds_logarithm(v, 0) && !all_read_codes(p, v, 0);
}

qx_twice qx_output_twice(const qx_plan *plan, const qx_plan_item *it)
{
    qx_twice t = {.f = QX_ACTIVATION_NONE};
    qx_value *y = NULL;
    if (!it->lin->x->def) return t;
    const qx_activation f = qx_activation_made(it->lin->x->def, &y, &t.slope);
    if (!f || !y->def || y->def->op->id != QX_OP_Conv) return t;
    t.maker = qx_plan_item_of(plan, y->def);
    t.y = y;
    if (t.maker && t.maker->weight) t.f = f;
    return t;
}

const qx_value *qx_output_end(const qx_plan_item *it) { return end_of(it->lin->node); }

bool qx_output_codes(const qx_plan_item *it, const qx_stats *stats, qx_act_codes *out)
{
    char detail[120];
    qx_pass *p = it->pass;
    const qx_scheme *s = p ? p->state : NULL;
    if (!s || !s->outputs || !takes_part(p, it)) return false;
    qx_value *v = end_of(it->lin->node);
    /* codes of what a pooling makes of v are told with its reader */
    return needs_pair(p, v) && !reader_of_pooled(p, v) && choose(p, stats, s, it, out, detail) == QX_WHY_NONE;
}

static void agree(qx_pass *p, const qx_value *v, const qx_act_codes *c)
{
    for (const qx_use *u = v->uses; u; u = u->next) {
        qx_plan_item *it = codes_of(p, u);
        if (pooled(u)) agree(p, pooled(u), c);
        if (!it) continue;
        it->act = c->act;
        it->act_scale = c->scale;
        it->act_zero = c->zero;
    }
}

/* A factor that was folded into the convolution since is not in the statistics of what it writes, unless a quantized reader's
 * statistics, which the fold has scaled, are the same. */
static bool is_stale(const qx_pass *p, const qx_plan_item *it, const qx_value *v)
{
    return it->rescaled && !direct_reader(p, v) && !reader_of_pooled(p, v);
}

static qx_status write_output(qx_pass *p, const qx_stats *stats, const qx_scheme *s, qx_plan_item *it)
{
    qx_act_codes c;
    char detail[120];
    qx_value *v = end_of(it->lin->node), *out;
    if (!needs_pair(p, v) || (!s->outputs && !reader_of_pooled(p, v))) return QX_OK;
    const qx_why why = is_stale(p, it, v) ? QX_WHY_NOT_OBSERVED : choose(p, stats, s, it, &c, detail);
    if (why != QX_WHY_NONE) return qx_item_note(p->pipe, it, "output stays float");
    agree(p, v, &c);
    it->out_act = c.act, it->out_scale = c.scale, it->out_zero = c.zero;
    QX_TRY(qx_emit_raise(p->pipe, qx_emit_pair_need(p->pipe, v, c.act), qx_dtype_get(c.act)->name));
    QX_TRY(qx_emit_pair(p->pipe, v, c.act, c.scale, c.zero, &out));
    return qx_value_replace_uses(v, out, out->def->in[0]->def);
}

qx_status qx_outputs_run(qx_pass *p, const qx_stats *stats, const qx_scheme *s)
{
    const qx_plan *plan = p->pipe->plan;
    for (int64_t i = 0; i < plan->linears.count; i++)
        if (takes_part(p, &plan->items[i])) QX_TRY(write_output(p, stats, s, &plan->items[i]));
    return p->pipe->failed;
}

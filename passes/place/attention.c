/* attention.c - the two products of an attention in low precision: Q, K, softmax(P) and V get a pair each, the result stays float.
 * P lies in [0, 1], so its scale is 1/448 or 1/127 without calibration. */
#include "passes/place/scheme.h"

static qx_why check(const qx_scheme *s, const qx_pipeline *pipe, const qx_attention *a)
{
    if (s->family == QX_FAMILY_FP8 && a->head_size > 0 && (a->head_size > 256 || a->head_size <= 8)) return QX_WHY_HEAD_SIZE;
    if (pipe->opt->target == QX_TARGET_TENSORRT && a->head_size > 0 && a->head_size % 16) return QX_WHY_HEAD_SIZE;
    if (!qx_value_is_real(a->qk->in[0]) || !qx_value_is_real(a->qk->in[1]) || !qx_value_is_real(a->pv->in[0]) ||
        !qx_value_is_real(a->pv->in[1]))
        return QX_WHY_NOT_FLOAT;
    if (a->qk->graph->function || a->pv->graph != a->qk->graph) return QX_WHY_FUNCTION;
    return QX_WHY_NONE;
}

static bool is_mine(const qx_pass *p, const qx_attention *a)
{
    const qx_plan_item *qk = qx_plan_item_of(p->pipe->plan, a->qk), *pv = qx_plan_item_of(p->pipe->plan, a->pv);
    return qk && pv && qk->attention_pass == p && pv->attention_pass == p;
}

static void keep_both(qx_pass *p, const qx_attention *a, qx_why why, const char *detail)
{
    qx_node *const nodes[2] = {a->qk, a->pv};
    for (int i = 0; i < 2; i++) {
        qx_plan_item *it = qx_plan_item_of(p->pipe->plan, nodes[i]);
        qx_item_keep(p->pipe, it, why, detail ? "%s" : NULL, detail);
        it->attention_pass = NULL;
    }
}

qx_status qx_attention_plan(qx_pass *p, qx_stats *stats, const qx_scheme *s)
{
    const qx_plan *plan = p->pipe->plan;
    for (int64_t i = 0; i < plan->n_attentions; i++) {
        const qx_attention *a = &plan->attentions[i];
        if (!is_mine(p, a)) continue;
        qx_why why = check(s, p->pipe, a);
        if (why != QX_WHY_NONE) { keep_both(p, a, why, NULL); continue; }
        QX_TRY(qx_scheme_want_range(s, stats, qx_same_elements(a->qk->in[0])));
        QX_TRY(qx_scheme_want_range(s, stats, qx_same_elements(a->qk->in[1])));
        QX_TRY(qx_scheme_want_range(s, stats, qx_same_elements(a->pv->in[1])));
    }
    return QX_OK;
}

typedef struct operand { qx_node *node; uint32_t index; qx_act_codes c; } operand;

static qx_why scales(qx_pass *p, const qx_stats *stats, const qx_scheme *s, operand *o, int n, char detail[120])
{
    for (int i = 0; i < n; i++) {
        qx_why why = qx_scheme_act_scale(p, s, stats, qx_same_elements(o[i].node->in[o[i].index]), &o[i].c, detail);
        if (why != QX_WHY_NONE) return why;
    }
    return QX_WHY_NONE;
}

/* The scale of P in the type of P: 1/448 is exact enough in float16. */
static float p_scale(const qx_scheme *s, qx_dtype type)
{
    float one = 1.0f / (s->act_zero ? 255.0f : s->levels), stored;
    uint16_t half;
    if (type != QX_DT_FLOAT16 && type != QX_DT_BFLOAT16) return one;
    qx_from_f32(type, &one, 1, &half);
    qx_to_f32(type, &half, 1, &stored);
    return stored;
}

static qx_status write(qx_pass *p, const qx_scheme *s, const qx_attention *a, operand *o, int n)
{
    for (int i = 0; i < n; i++) {
        qx_value *out;
        QX_TRY(qx_emit_raise(p->pipe, qx_emit_pair_need(p->pipe, o[i].node->in[o[i].index], s->act), qx_dtype_get(s->act)->name));
        QX_TRY(qx_emit_pair(p->pipe, o[i].node->in[o[i].index], s->act, o[i].c.scale, o[i].c.zero, &out));
        QX_TRY(qx_node_set_in(o[i].node, o[i].index, out));
    }
    qx_applied(p, a->qk, s->name);
    qx_applied(p, a->pv, s->name);
    return QX_OK;
}

qx_status qx_attention_run(qx_pass *p, const qx_stats *stats, const qx_scheme *s)
{
    const qx_plan *plan = p->pipe->plan;
    for (int64_t i = 0; i < plan->n_attentions; i++) {
        const qx_attention *a = &plan->attentions[i];
        char detail[120] = "";
        if (!is_mine(p, a)) continue;
        operand o[4] = {{.node = a->qk}, {.node = a->qk, .index = 1}, {.node = a->pv, .index = 1}, {.node = a->pv}};
        o[3].c.scale = p_scale(s, a->pv->in[0]->type.dtype);
        qx_why why = scales(p, stats, s, o, 3, detail);
        if (why != QX_WHY_NONE) { keep_both(p, a, why, detail); continue; }
        QX_TRY(write(p, s, a, o, 4));
    }
    return QX_OK;
}

/* skips.c - what goes past convolutions in codes. ONNX Runtime adds codes to codes (QLinearAdd) where both inputs of the Add and its
 * result have pairs: the result, maybe behind a Relu, has one where a quantized convolution reads it, and so has the skip input,
 * which a convolution before read. What is new is only that the skip is rounded too: all readers of such a value read its pair. */
#include "passes/place/scheme.h"
#include "passes/linear/linear_read.h"

static const qx_value *behind_relu(const qx_value *v)
{
    if (v->is_output || v->n_uses != 1 || v->uses->node->op->id != QX_OP_Relu) return v;
    return v->uses->node->out[0];
}

/* The quantized convolution that reads v. */
static qx_plan_item *conv_of(const qx_pass *p, const qx_value *v)
{
    for (const qx_use *u = v->uses; u; u = u->next) {
        qx_plan_item *it = qx_plan_item_of(p->pipe->plan, u->node);
        if (it && it->pass && it->act && it->lin->is_conv && u->index == it->lin->x_index) return it;
    }
    return NULL;
}

/* Whether v is codes for a convolution that reads it, or as what one writes. */
static bool has_codes(const qx_pass *p, const qx_value *v)
{
    const qx_node *made = v->def;
    if (!qx_is_variable(v) || v->is_output || v->type.dtype != QX_DT_FLOAT) return false;
    if (conv_of(p, v)) return true;
    if (made && made->op->id == QX_OP_Relu) made = made->in[0]->def;
    const qx_plan_item *it = made && made->op->id == QX_OP_Conv ? qx_plan_item_of(p->pipe->plan, made) : NULL;
    return it && it->pass && it->act && !it->float_output;
}

static bool adds_codes(const qx_pass *p, const qx_node *n)
{
    if (n->op->id != QX_OP_Add || n->graph->function || !qx_type_same_dims(&n->in[0]->type, &n->in[1]->type)) return false;
    return has_codes(p, n->in[0]) && has_codes(p, n->in[1]) && conv_of(p, behind_relu(n->out[0]));
}

/* Whether some Add reads what convolutions read as codes, and nobody else does. */
static bool is_skip(const qx_pass *p, const qx_value *v)
{
    bool any = false;
    if (v->is_output || v->graph->function || v->type.dtype != QX_DT_FLOAT) return false;
    for (const qx_use *u = v->uses; u; u = u->next) {
        const qx_plan_item *it = qx_plan_item_of(p->pipe->plan, u->node);
        if (it && it->pass && it->act && it->lin->is_conv && u->index == it->lin->x_index) continue;
        if (!adds_codes(p, u->node)) return false;
        any = true;
    }
    return any;
}

void qx_skips_mark(qx_pass *p, bool first)
{
    const qx_plan *plan = p->pipe->plan;
    for (int64_t i = 0; i < plan->linears.count; i++) {
        qx_plan_item *it = &plan->items[i];
        it->skips_too = (first || it->skips_too) && it->pass == p && it->act && it->lin->is_conv && is_skip(p, it->lin->x);
    }
}

qx_status qx_skips_write(qx_pass *p)
{
    const qx_plan *plan = p->pipe->plan;
    for (int64_t i = 0; i < plan->linears.count; i++) {
        const qx_plan_item *it = &plan->items[i];
        qx_value *out, *v = it->lin->x;
        if (!it->skips_too || v->n_uses < 2) continue;
        QX_TRY(qx_emit_pair(p->pipe, v, it->act, it->act_scale, it->act_zero, &out));
        QX_TRY(qx_value_replace_uses(v, out, out->def->in[0]->def));
    }
    return QX_OK;
}

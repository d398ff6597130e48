/* concat.c - one scale for a Concat's output and those of its inputs that are quantized themselves: a runtime that fuses pairs
 * then moves codes instead of rescaling them. The largest scale wins, which costs the others precision; each says how much. */
#include <math.h>

#include "passes/place/scheme.h"

typedef struct classes { qx_pass *p; uint32_t *of; float *scale; bool *quantized; } classes;

static uint32_t root(uint32_t *of, uint32_t v)
{
    while (of[v] != v) v = of[v] = of[of[v]];
    return v;
}

static qx_status join(void *user, qx_node *n)
{
    classes *c = user;
    if (n->op->id != QX_OP_Concat || !c->quantized[n->out[0]->id]) return QX_OK;
    for (uint32_t i = 0; i < n->n_in; i++) {
        const qx_value *v = qx_same_elements(n->in[i]);
        if (c->quantized[v->id]) c->of[root(c->of, v->id)] = root(c->of, n->out[0]->id);
    }
    return QX_OK;
}

static bool takes_part(const qx_pass *p, const qx_plan_item *it) { return it->pass == p && it->act && it->act_scale > 0; }

static qx_status share(classes *c)
{
    const qx_plan *plan = c->p->pipe->plan;
    for (int64_t i = 0; i < plan->linears.count; i++) {
        const qx_plan_item *it = &plan->items[i];
        if (takes_part(c->p, it)) c->scale[root(c->of, it->x_stat->id)] = fmaxf(c->scale[root(c->of, it->x_stat->id)], it->act_scale);
    }
    for (int64_t i = 0; i < plan->linears.count; i++) {
        qx_plan_item *it = &plan->items[i];
        const float scale = takes_part(c->p, it) ? c->scale[root(c->of, it->x_stat->id)] : 0;
        if (!(scale > it->act_scale)) continue;
        QX_TRY(qx_item_note(c->p->pipe, it, "scale of its Concat, %.1f dB coarser", 20 * log10((double)(scale / it->act_scale))));
        it->act_scale = scale;
    }
    return QX_OK;
}

qx_status qx_concat_share(qx_pass *p)
{
    qx_pipeline *pipe = p->pipe;
    const uint32_t n = pipe->model->n_values;
    classes c = {.p = p};
    qx_status st;
    QX_TRY_GOTO(st, QX_NEW_ARRAY(pipe->ctx, n + 1, &c.of));
    QX_TRY_GOTO(st, QX_NEW_ARRAY(pipe->ctx, n + 1, &c.scale));
    QX_TRY_GOTO(st, QX_NEW_ARRAY(pipe->ctx, n + 1, &c.quantized));
    for (uint32_t i = 0; i < n; i++) c.of[i] = i;
    for (int64_t i = 0; i < pipe->plan->linears.count; i++)
        if (takes_part(p, &pipe->plan->items[i])) c.quantized[pipe->plan->items[i].x_stat->id] = true;
    QX_TRY_GOTO(st, qx_model_each_node(pipe->model, join, &c));
    st = share(&c);
done:
    qx_free(pipe->ctx, c.of);
    qx_free(pipe->ctx, c.scale);
    qx_free(pipe->ctx, c.quantized);
    return st;
}

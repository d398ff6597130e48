/* explain.c - what happened to every node, for the report; and why nothing did. */
#include "passes/explain.h"

#include <stdio.h>

#include "passes/linear/quantized.h"

static qx_status remember_node(void *user, qx_node *n)
{
    qx_pipeline *p = user;
    const char *name = n->name[0] ? n->name : n->n_out && n->out[0] ? n->out[0]->name : "";
    p->decisions[n->id] = (qx_decision){.node = n, .name = name, .op = n->op_type,
                                        .graph = n->graph->owner || n->graph->function ? n->graph->name : ""};
    return QX_OK;
}

qx_status qx_decisions_new(qx_pipeline *p, qx_model *m)
{
    p->n_decisions = m->n_node_ids;
    p->decisions = qx_arena_array(m->arena, (size_t)p->n_decisions + 1, sizeof *p->decisions);
    return p->decisions ? qx_model_each_node(m, remember_node, p) : QX_E_NOMEM;
}

/* Linear operators that stayed float say so, with the reason of the plan. Of a mixture's layers the first that has something to say. */
static qx_status explain_items(qx_pipeline *p)
{
    for (int64_t i = 0; i < p->plan->linears.count; i++) {
        const qx_plan_item *it = &p->plan->items[i];
        qx_decision *d = &p->decisions[it->lin->node->id];
        d->notes = d->notes ? d->notes : it->notes;
        d->rescaled |= it->rescaled;
        if (it->weight && !it->weight->job && qx_plan_first_reader(p->plan, i)) d->float_bytes += (int64_t)it->weight->tensor->bytes;
        if (it->why == QX_WHY_NONE || d->format || d->reason) continue;
        d->reason = it->detail ? qx_arena_printf(p->model->arena, "%s: %s", qx_why_text(it->why), it->detail) : qx_why_text(it->why);
        if (!d->reason) return QX_E_NOMEM;
    }
    return QX_OK;
}

static bool reads_first(const qx_node *n, const qx_value *v)
{
    for (const qx_use *u = v->uses; u; u = u->next)
        if (u->node->id < n->id && !(u->node->op->traits & QX_T_SHAPE_ONLY)) return false;
    return true;
}

/* Bytes of float constants that n reads, when they are large enough to be what a file's size is about: recurrences, mixtures in
 * one node, tables that are added. Not of those that linear operators read behind n (a Transpose): their items tell. */
static int64_t other_weights(const qx_node *n, const bool *of_linear)
{
    enum { LEAST = 16384 };
    int64_t bytes = 0;
    for (uint32_t i = 0; i < n->n_in && !(n->op->traits & (QX_T_QDQ | QX_T_QUANTIZED | QX_T_SHAPE_ONLY)); i++) {
        const qx_weight *w = n->in[i] && !of_linear[n->in[i]->id] ? qx_value_const(n->in[i]) : NULL;
        if (w && w->rank > 1 && qx_dtype_is_float(w->dtype) && w->bytes >= LEAST && reads_first(n, n->in[i])) bytes += (int64_t)w->bytes;
    }
    return bytes;
}

/* What holds weights and is no linear operator says that too: a file that hardly shrank has its reason there. */
static qx_status explain_rest(qx_pipeline *p, qx_decision *d, const bool *of_linear)
{
    if (d->format || d->reason) return QX_OK;
    d->float_bytes = other_weights(d->node, of_linear);
    d->reason = d->float_bytes ? qx_arena_printf(p->model->arena, "%s: %s", qx_why_text(QX_WHY_NO_FORMAT), d->op)
        : qx_why_text(QX_WHY_NOT_LINEAR);
    return d->reason ? QX_OK : QX_E_NOMEM;
}

qx_status qx_explain(qx_pipeline *p, qx_report *r)
{
    QX_TRY(explain_items(p));
    if (!r) return QX_OK;
    bool *of_linear = qx_arena_array(p->model->arena, (size_t)p->model->n_values + 1, sizeof *of_linear);
    if (!of_linear) return QX_E_NOMEM;
    for (int64_t i = 0; i < p->plan->n_weights; i++) of_linear[p->plan->weights[i].value->id] = true;
    for (uint32_t i = 0; i < p->n_decisions; i++) {
        qx_decision *d = &p->decisions[i];
        if (!d->node) continue;
        QX_TRY(explain_rest(p, d, of_linear));
        qx_report_node n = {d->name, d->op, d->graph, d->node->scope, d->pass ? d->pass->def->name : NULL, d->format,
                            d->format ? NULL : d->reason, d->notes, d->float_bytes, d->rescaled};
        QX_TRY(qx_report_add_node(r, &n));
    }
    r->n_quantized = p->n_quantized;
    r->pipeline = qx_arena_strdup(r->arena, p->text);
    return r->pipeline ? QX_OK : QX_E_NOMEM;
}

static bool any_double(const qx_pipeline *p)
{
    for (int64_t i = 0; i < p->plan->linears.count; i++)
        if (p->plan->linears.items[i].x->type.dtype == QX_DT_DOUBLE) return true;
    return false;
}

/* Not a single one: integer operators, for one who allowed them, are told beside it. */
static qx_status nothing_linear(qx_pipeline *p)
{
    char already[200] = "";
    qx_already s = {.of_codes = true};
    QX_TRY(qx_already_quantized(p->model, &s));
    if (s.first)
        (void)snprintf(already, sizeof already, "; %lld nodes such as '%.100s' (%.40s) are quantized already", (long long)s.count,
                       s.first->name, s.first->op_type);
    QX_FAIL(p->ctx, QX_E_UNSUPPORTED, "no node was quantized: the model has no linear operator (MatMul, Gemm, Conv, Einsum ...)%s",
            already);
}

/* "12 few channels, 3 excluded" of the linear operators that stayed float. */
qx_status qx_explain_nothing(qx_pipeline *p)
{
    int64_t counts[QX_WHY_COUNT_] = {0};
    char text[600] = "";
    size_t at = 0;
    if (!p->plan->linears.count) return nothing_linear(p);
    for (int64_t i = 0; i < p->plan->linears.count; i++) counts[p->plan->items[i].why]++;
    for (int w = 1; w < QX_WHY_COUNT_ && at + 100 < sizeof text; w++)
        if (counts[w])
            at += (size_t)snprintf(text + at, sizeof text - at, "%s%lld %s", at ? ", " : "", (long long)counts[w], qx_why_text((qx_why)w));
    QX_FAIL(p->ctx, QX_E_UNSUPPORTED, "no node was quantized: of %lld linear operators %.500s%s", (long long)p->plan->linears.count, text,
            counts[QX_WHY_NOT_FLOAT] && any_double(p) ? "; float64 becomes float32 by --float fp32 (pass fp32) in front" : "");
}

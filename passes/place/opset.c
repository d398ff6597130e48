/* opset.c - raises opset and IR of a model and of its local functions, which import their own. Most operator versions only widened
 * their types; the others are in the table of opset_convert.c with what converts them. */
#include "passes/place/opset.h"

#include "passes/place/opset_convert.h"

qx_need qx_need_for(qx_dtype codes, qx_dtype scale, bool axis, bool blocked)
{
    qx_need n = {axis ? 13 : 10, 3};
#define AT_LEAST(o, i) do { if (n.opset < (o)) n.opset = (o); if (n.ir < (i)) n.ir = (i); } while (0)
    bool fp8 = codes == QX_DT_FLOAT8E4M3FN || codes == QX_DT_FLOAT8E5M2;
    if (axis) AT_LEAST(13, 7);
    if (fp8 || scale == QX_DT_FLOAT16 || scale == QX_DT_BFLOAT16) AT_LEAST(19, 9);
    if (blocked || codes == QX_DT_INT4 || codes == QX_DT_UINT4 || codes == QX_DT_INT16 || codes == QX_DT_UINT16) AT_LEAST(21, 10);
    if (codes == QX_DT_FLOAT4E2M1 || scale == QX_DT_FLOAT8E4M3FN) AT_LEAST(23, 11);
    if (scale == QX_DT_FLOAT8E8M0) AT_LEAST(24, 12);
    if (codes == QX_DT_INT2 || codes == QX_DT_UINT2) AT_LEAST(25, 13);
#undef AT_LEAST
    return n;
}

/* ---- raising --------------------------------------------------------------------------------------------------------------- */

/* One set of imports: the model's, or a function's. */
typedef struct raising {
    qx_model *m;
    qx_function *function; /* NULL: everything outside of functions */
    int64_t from, to;
    bool dry;
    const char *because;
    qx_node **nodes; uint32_t n_nodes; /* collected first: conversions add nodes */
} raising;

static const qx_function *function_of(const qx_node *n)
{
    const qx_graph *g = n->graph;
    while (g->parent) g = g->parent;
    return g->function;
}

static qx_status collect(void *user, qx_node *n)
{
    raising *r = user;
    if (n->domain[0] || n->callee || function_of(n) != r->function) return QX_OK;
    r->nodes[r->n_nodes++] = n;
    return QX_OK;
}

static qx_status explain(const raising *r, const qx_node *n, qx_status st)
{
    char label[256];
    if (st == QX_OK) return st;
    return qx_note(r->m->ctx, st, "%s needs opset %lld, the model has %lld: %s cannot be converted", r->because, (long long)r->to,
                   (long long)r->from, qx_node_label(n, label, sizeof label));
}

static qx_status convert_node(const raising *r, qx_node *n)
{
    const qx_op *old = qx_op_find("", n->op_type, r->from), *now = qx_op_find("", n->op_type, r->to);
    if (!old || !now) return explain(r, n, qx_fail(r->m->ctx, QX_E_UNSUPPORTED, "it does not exist in opset %lld", (long long)r->to));
    qx_conversion c = {.node = n, .old_since = old->since, .to = r->to, .dry = r->dry};
    for (const qx_change *change = qx_changes; change->convert; change++) {
        if (change->op != old->id || change->since <= old->since || change->since > now->since) continue;
        QX_TRY(explain(r, n, change->convert(&c)));
    }
    return QX_OK;
}

static qx_status convert_all(raising *r, bool dry)
{
    r->dry = dry;
    for (uint32_t i = 0; i < r->n_nodes; i++) QX_TRY(convert_node(r, r->nodes[i]));
    return QX_OK;
}

static qx_status prepare(raising *r)
{
    if (r->from >= r->to) return QX_OK;
    r->nodes = qx_arena_array(r->m->arena, (size_t)r->m->n_node_ids + 1, sizeof(qx_node *));
    if (!r->nodes) return QX_E_NOMEM;
    QX_TRY(qx_model_each_node(r->m, collect, r));
    if (r->from < QX_OPSET_MIN && r->n_nodes)
        QX_FAIL(r->m->ctx, QX_E_UNSUPPORTED, "%s needs opset %lld; models of opset %lld (below %d) are not converted", r->because,
                (long long)r->to, (long long)r->from, QX_OPSET_MIN);
    return convert_all(r, true); /* first look, then change: a refusal leaves the model alone */
}

static qx_status carry_out(raising *r)
{
    if (r->from >= r->to) return QX_OK;
    QX_TRY(r->function ? qx_function_set_opset(r->function, "", r->to) : qx_model_set_opset(r->m, "", r->to));
    return convert_all(r, false);
}

qx_status qx_opset_raise(qx_model *m, qx_need need, const char *because)
{
    raising *all = qx_arena_array(m->arena, (size_t)m->n_functions + 1, sizeof *all);
    if (!all) return QX_E_NOMEM;
    for (uint32_t i = 0; i <= m->n_functions; i++) {
        qx_function *f = i ? m->functions[i - 1] : NULL;
        int64_t has = qx_graph_opset(f ? f->body : m->graph, "");
        all[i] = (raising){.m = m, .function = f, .from = has ? has : need.opset, .to = need.opset, .because = because};
        QX_TRY(prepare(&all[i]));
    }
    for (uint32_t i = 0; i <= m->n_functions; i++) QX_TRY(carry_out(&all[i]));
    if (all[0].from < need.opset)
        qx_log(m->ctx, QX_LOG_INFO, "opset raised from %lld to %lld: %s needs it", (long long)all[0].from, (long long)need.opset, because);
    int64_t ir = need.ir < 4 ? 4 : need.ir; /* before 4 an initializer had to be a graph input too */
    return m->ir_version < ir && (m->ir_version < need.ir || all[0].from < need.opset) ? qx_model_set_ir(m, ir) : QX_OK;
}

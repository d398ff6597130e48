/* opset.c - raises opset and IR. Most operator versions only widened their types; the others are in a table with what converts them.
 * Operators that are not in the table keep their meaning, because a new version that changes it has to be listed here. */
#include "passes/opset.h"

#include <string.h>

#include "onnx/weight.h"

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

/* ---- converters: called after the new opset is stamped --------------------------------------------------------------- */

/* axes and similar lists moved from an attribute to an input. */
static qx_status attribute_to_input(qx_node *n, const char *name, uint32_t index)
{
    int64_t count;
    const int64_t *v = qx_attr_ints(n, name, &count);
    if (!v) return QX_OK;
    qx_weight *w;
    qx_value *init;
    qx_model *m = n->graph->model;
    char *base = qx_arena_printf(m->arena, "%s_%s", n->out[0]->name, name);
    if (!base) return QX_E_NOMEM;
    QX_TRY(qx_weight_from_bytes(m, QX_DT_INT64, 1, &count, v, &w));
    QX_TRY(qx_init_add(n->graph, base, w, &init));
    QX_TRY(qx_node_set_in(n, index, init));
    return qx_attr_remove(n, name);
}

static qx_status reduce_axes(qx_node *n) { return attribute_to_input(n, "axes", 1); }
static qx_status squeeze_axes(qx_node *n) { return attribute_to_input(n, "axes", 1); }

/* Split-18: either the sizes are an input, or num_outputs is written. */
static qx_status split_outputs(qx_node *n)
{
    QX_TRY(attribute_to_input(n, "split", 1));
    return qx_node_in(n, 1) ? QX_OK : qx_attr_set_int(n, "num_outputs", n->n_out);
}

static qx_status cannot(qx_node *n)
{
    QX_FAIL(n->graph->model->ctx, QX_E_UNSUPPORTED, "node '%s': %s has another meaning in a newer opset and there is no conversion for it", n->name, n->op_type);
}

/* Versions that changed more than types: (operator, first version with the new form, converter). */
static const struct change { qx_op_id op; int since; qx_status (*convert)(qx_node *n); } changes[] = {
    {QX_OP_ReduceSum, 13, reduce_axes},
    {QX_OP_ReduceMean, 18, reduce_axes}, {QX_OP_ReduceMax, 18, reduce_axes}, {QX_OP_ReduceMin, 18, reduce_axes},
    {QX_OP_ReduceProd, 18, reduce_axes}, {QX_OP_ReduceL1, 18, reduce_axes}, {QX_OP_ReduceL2, 18, reduce_axes},
    {QX_OP_ReduceLogSum, 18, reduce_axes}, {QX_OP_ReduceLogSumExp, 18, reduce_axes}, {QX_OP_ReduceSumSquare, 18, reduce_axes},
    {QX_OP_Squeeze, 13, squeeze_axes}, {QX_OP_Unsqueeze, 13, squeeze_axes}, {QX_OP_Split, 13, split_outputs}, {QX_OP_Split, 18, split_outputs},
    {QX_OP_Upsample, 10, cannot}, {QX_OP_Resize, 11, cannot}, {QX_OP_Softmax, 13, cannot}, {QX_OP_LogSoftmax, 13, cannot},
    {QX_OP_Hardmax, 13, cannot}, {QX_OP_Slice, 10, cannot}, {QX_OP_Clip, 11, cannot}, {QX_OP_Pad, 11, cannot}, {QX_OP_TopK, 10, cannot},
    {QX_OP_Dropout, 12, cannot}, {QX_OP_BatchNormalization, 14, cannot}, {QX_OP_GroupNormalization, 21, cannot}, {QX_OP_GridSample, 20, cannot},
    {QX_OP_DFT, 20, cannot}, {QX_OP_OneHot, 9, cannot}, {QX_OP_Scan, 9, cannot}, {QX_OP_Scatter, 11, cannot},
};

typedef struct raise { qx_model *m; int64_t from, to; bool converting; const char *because; } raise_job;

static const struct change *find_change(const qx_node *n, int old_since, int new_since)
{
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++)
        if (changes[i].op == n->op->id && changes[i].since > old_since && changes[i].since <= new_since) return &changes[i];
    return NULL;
}

static qx_status visit(void *user, qx_node *n)
{
    raise_job *r = user;
    if (n->domain[0] || n->graph->function || n->op->id == QX_OP_UNKNOWN) return QX_OK;
    const qx_op *old = qx_op_find("", n->op_type, r->from), *now = qx_op_find("", n->op_type, r->to);
    if (!old || !now)
        QX_FAIL(r->m->ctx, QX_E_UNSUPPORTED, "node '%s': %s does not exist in opset %lld, which %s needs", n->name, n->op_type, (long long)r->to, r->because);
    const struct change *c = find_change(n, old->since, now->since);
    if (!c) return QX_OK;
    if (r->converting) return c->convert(n);
    if (c->convert != cannot) return QX_OK;
    return qx_note(r->m->ctx, cannot(n), "%s needs opset %lld, the model has %lld", r->because, (long long)r->to, (long long)r->from);
}

qx_status qx_opset_raise(qx_model *m, qx_need need, const char *because)
{
    raise_job r = {m, qx_graph_opset(m->graph, ""), need.opset, false, because};
    if (r.from < need.opset) {
        QX_TRY(qx_model_each_node(m, visit, &r)); /* first look, then change: a refusal leaves the model alone */
        QX_TRY(qx_model_set_opset(m, "", need.opset));
        r.converting = true;
        QX_TRY(qx_model_each_node(m, visit, &r));
        qx_log(m->ctx, QX_LOG_INFO, "opset raised from %lld to %lld: %s needs it", (long long)r.from, (long long)need.opset, because);
    }
    if (m->ir_version < need.ir) QX_TRY(qx_model_set_ir(m, need.ir));
    return QX_OK;
}

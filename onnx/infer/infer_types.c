/* infer_types.c - inputs that hold places, sizes or counts must be whole numbers: the standard allows int32 and int64 there.
 * Without this a model whose indices are floats passes every check of shapes and is refused only when it runs. */
#include "onnx/infer/infer_state.h"

static const struct { qx_op_id op; unsigned inputs; } whole_numbers[] = { /* inputs: bit i for input i */
    {QX_OP_ConstantOfShape, 1u << 0}, {QX_OP_Expand, 1u << 1}, {QX_OP_Gather, 1u << 1}, {QX_OP_GatherElements, 1u << 1},
    {QX_OP_GatherND, 1u << 1},
    {QX_OP_Loop, 1u << 0}, {QX_OP_Pad, 1u << 1 | 1u << 3}, {QX_OP_Reshape, 1u << 1}, {QX_OP_Resize, 1u << 3},
    {QX_OP_ReverseSequence, 1u << 1},
    {QX_OP_Scatter, 1u << 1}, {QX_OP_ScatterElements, 1u << 1}, {QX_OP_ScatterND, 1u << 1},
    {QX_OP_Slice, 1u << 1 | 1u << 2 | 1u << 3 | 1u << 4},
    {QX_OP_Split, 1u << 1}, {QX_OP_Squeeze, 1u << 1}, {QX_OP_Tile, 1u << 1}, {QX_OP_TopK, 1u << 1}, {QX_OP_Trilu, 1u << 1},
    {QX_OP_Unsqueeze, 1u << 1},
};

static unsigned whole_inputs(const qx_node *n)
{
    for (size_t i = 0; i < sizeof whole_numbers / sizeof *whole_numbers; i++)
        if (whole_numbers[i].op == n->op->id) return whole_numbers[i].inputs;
    return 0;
}

qx_status qx_ix_check_types(qx_infer *ix, const qx_node *n)
{
    const unsigned inputs = whole_inputs(n);
    for (uint32_t i = 0; inputs >> i; i++) {
        const qx_type *t = qx_ix_in(ix, n, i);
        if (!(inputs >> i & 1) || t->kind != QX_KIND_TENSOR || t->dtype == QX_DT_UNDEFINED || t->dtype == QX_DT_INT64 ||
            t->dtype == QX_DT_INT32)
            continue;
        QX_IX_FAIL(ix, n, QX_E_TYPE, "input %u '%s' is %s; it must be i64 or i32", i, n->in[i]->name, qx_dtype_get(t->dtype)->text);
    }
    return QX_OK;
}

/* table.c - from a row of the operator table to its adapter; expanded from the same rows, so the two cannot disagree. */
#include "runtime/cpu/op.h"

static qx_cpu_fn *const adapters[] = {
#define QX_OP(prefix, name, since, min_in, max_in, min_out, max_out, traits, infer, cpu, cuda) qx_cpu_##cpu,
#include "onnx/ops.def"
#undef QX_OP
};

qx_cpu_fn *qx_cpu_find(const qx_op *op)
{
    int count;
    const qx_op *rows = qx_op_table(&count);
    if (!op || op->id == QX_OP_UNKNOWN || op < rows || op >= rows + count) return qx_cpu_none;
    return adapters[op - rows];
}

qx_status qx_cpu_none(qx_call *c)
{
    QX_CALL_FAIL(c, QX_E_UNSUPPORTED, "operator has no CPU kernel at version %d", c->version);
}

/* pointwise_ops.c - see pointwise_ops.h. */
#include "runtime/pointwise_ops.h"

static const qx_unary_row unary_rows[] = {
#define UNARY_OP(op, fn, p0, d0, p1, d1) {op, fn, p0, d0, p1, d1},
#include "runtime/unary_ops.def"
#undef UNARY_OP
};

static const qx_binary_row binary_rows[] = {
#define BINARY_OP(op, fn, to_bool) {op, fn, to_bool},
#include "runtime/binary_ops.def"
#undef BINARY_OP
};

const qx_unary_row *qx_unary_row_of(qx_op_id op)
{
    for (size_t i = 0; i < sizeof unary_rows / sizeof *unary_rows; i++)
        if (unary_rows[i].op == op) return &unary_rows[i];
    return NULL;
}

const qx_binary_row *qx_binary_row_of(qx_op_id op)
{
    for (size_t i = 0; i < sizeof binary_rows / sizeof *binary_rows; i++)
        if (binary_rows[i].op == op) return &binary_rows[i];
    return NULL;
}

/* pointwise_ops.h - which operators are one function of one element, and which of two broadcast operands (unary_ops.def,
 * binary_ops.def). For the CPU's adapters, the plugin's, and the plan, which joins them to chains. */
#ifndef QX_RUNTIME_POINTWISE_OPS_H
#define QX_RUNTIME_POINTWISE_OPS_H

#include "kernels/pointwise.h"
#include "onnx/ops.h"

/* p0, p1: attributes that are its parameters, with their defaults; NULL: none. */
typedef struct qx_unary_row { qx_op_id op; qx_unary fn; const char *p0; float d0; const char *p1; float d1; } qx_unary_row;
typedef struct qx_binary_row { qx_op_id op; qx_binary fn; bool to_bool; } qx_binary_row;
/* NULL: it is none. */
const qx_unary_row *qx_unary_row_of(qx_op_id op);
const qx_binary_row *qx_binary_row_of(qx_op_id op);

#endif

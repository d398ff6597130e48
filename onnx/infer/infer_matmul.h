/* infer_matmul.h - shapes of matrix products, for ai.onnx and com.microsoft. */
#ifndef QX_ONNX_INFER_MATMUL_H
#define QX_ONNX_INFER_MATMUL_H

#include "onnx/infer/infer_op.h"

/* numpy's matmul. */
qx_status qx_matmul_shape(qx_infer *ix, qx_node *n, const qx_type *a, const qx_type *b, int dtype);
/* Gemm with B at input b_in and transA, transB; C (input 2) is checked when b_in is 1. */
qx_status qx_gemm_shape(qx_infer *ix, qx_node *n, uint32_t b_in, int dtype);

#endif

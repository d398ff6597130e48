/* trt.h - TensorRT's quantization operators that the standard has not: which types of codes and scales they have. What its ONNX
 * parser reads (onnx-tensorrt 10.x), for inference and for kernels. */
#ifndef QX_ONNX_TRT_H
#define QX_ONNX_TRT_H

#include "kernels/dtype.h"
#include "onnx/ops.h"

/* Codes of a pair that has them in its name. */
qx_dtype qx_trt_codes(qx_op_id op);
/* Scales are powers of two, stored as UINT8: the parser has no element type FLOAT8E8M0. */
bool qx_trt_powers(qx_op_id op);

typedef struct qx_trt_dynamic { qx_dtype codes, scale, stored; } qx_trt_dynamic; /* stored: scale, or UINT8 for FLOAT8E8M0 */
/* Of an operator that finds scales when it runs; output_type and scale_type are attributes of TRT_DynamicQuantize, 0: not given. */
qx_trt_dynamic qx_trt_dynamic_types(qx_op_id op, int output_type, int scale_type);

#endif

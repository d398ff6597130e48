/* trt.c - see trt.h. */
#include "onnx/trt.h"

qx_dtype qx_trt_codes(qx_op_id op)
{
    switch (op) {
    case QX_OP_trt_TRT_FP8QuantizeLinear: case QX_OP_trt_TRT_FP8DequantizeLinear:
    case QX_OP_trt_TRT_MXFP8QuantizeLinear: case QX_OP_trt_TRT_MXFP8DequantizeLinear: return QX_DT_FLOAT8E4M3FN;
    case QX_OP_trt_TRT_INT4QuantizeLinear: case QX_OP_trt_TRT_INT4DequantizeLinear: return QX_DT_INT4;
    default: return QX_DT_UNDEFINED;
    }
}

bool qx_trt_powers(qx_op_id op)
{
    return op == QX_OP_trt_TRT_MXFP8QuantizeLinear || op == QX_OP_trt_TRT_MXFP8DequantizeLinear;
}

qx_trt_dynamic qx_trt_dynamic_types(qx_op_id op, int output_type, int scale_type)
{
    switch (op) {
    case QX_OP_trt_TRT_FP4DynamicQuantize: return (qx_trt_dynamic){QX_DT_FLOAT4E2M1, QX_DT_FLOAT8E4M3FN, QX_DT_FLOAT8E4M3FN};
    case QX_OP_trt_TRT_MXFP8DynamicQuantize: return (qx_trt_dynamic){QX_DT_FLOAT8E4M3FN, QX_DT_FLOAT8E8M0, QX_DT_UINT8};
    default: break;
    }
    const qx_dtype scale = scale_type ? (qx_dtype)scale_type : QX_DT_FLOAT;
    return (qx_trt_dynamic){(qx_dtype)output_type, scale, scale};
}

/* ops.h - the operator table, expanded from ops.def: one row per operator version. */
#ifndef QX_ONNX_OPS_H
#define QX_ONNX_OPS_H

#include <stdint.h>

/* Traits: what passes may assume about an operator, so that they never compare names. */
enum {
    QX_T_LINEAR = 1u << 0,        /* partition root: Conv ConvTranspose Gemm MatMul (weight at input 1) */
    QX_T_COPY = 1u << 1,          /* moves elements of input 0 without changing them: ranges pass through */
    QX_T_POINTWISE = 1u << 2,     /* element by element, broadcasting */
    QX_T_NORM = 1u << 3,          /* normalisation with a gamma at a fixed input */
    QX_T_ABSORBS_SCALE = 1u << 4, /* a per-channel scale can be folded into its parameters */
    QX_T_REDUCE = 1u << 5,
    QX_T_ATTENTION = 1u << 6,
    QX_T_QDQ = 1u << 7,           /* QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear */
    QX_T_QUANTIZED = 1u << 8,     /* holds low-precision weights or does integer arithmetic itself: MatMulNBits, QLinear*, ... */
    QX_T_CONTROL = 1u << 9,       /* has subgraphs */
    QX_T_RANDOM = 1u << 10,       /* result differs from run to run unless seeded: never folded */
    QX_T_SHAPE_ONLY = 1u << 11,   /* result depends on shapes of inputs only */
};

/* Operator identity without version: QX_OP_MatMul for ai.onnx, QX_OP_ms_MatMulNBits for com.microsoft, QX_OP_trt_... for TensorRT. */
typedef enum qx_op_id {
    QX_OP_UNKNOWN = 0,
#define QX_OP_NAME(prefix, name) QX_OP_##prefix##name,
#include "onnx/op_names.def"
#undef QX_OP_NAME
    QX_OP_COUNT_
} qx_op_id;

struct qx_infer; /* onnx/infer/infer.h */
struct qx_node;
typedef int qx_infer_fn(struct qx_infer *ix, struct qx_node *n); /* returns a qx_status */

typedef struct qx_op {
    qx_op_id id;
    const char *domain; /* "", "ai.onnx.preview", "com.microsoft" or "trt"; of TRT_ operators not always the node's own */
    const char *name;
    int since;
    int min_in, max_in, min_out, max_out; /* max INT32_MAX when variadic */
    uint32_t traits;
    qx_infer_fn *infer; /* NULL: none */
} qx_op;

/* The row that is in force at `opset` (largest since <= opset); NULL when the domain has no such operator at that opset. */
const qx_op *qx_op_find(const char *domain, const char *name, int64_t opset);
/* True when the domain is one that the table is complete for ("" through QX_OPSET_MAX), so that a name not in it is an error. */
int qx_op_domain_is_known(const char *domain);
/* All rows, in file order. */
const qx_op *qx_op_table(int *count);
/* Element types that an input may have (op_types.def): bit n is type n of the format; 0: any, or not known. */
uint32_t qx_op_input_types(const qx_op *op, uint32_t input);
extern const qx_op qx_op_unknown; /* id QX_OP_UNKNOWN */

enum { QX_OPSET_MIN = 7, QX_OPSET_MAX = 28, QX_IR_MIN = 3, QX_IR_MAX = 14 };

#endif

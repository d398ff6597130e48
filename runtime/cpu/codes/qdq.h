/* qdq.h - QuantizeLinear and DequantizeLinear of a whole tensor, for adapters and fused steps. */
#ifndef QX_RUNTIME_CPU_CODES_QDQ_H
#define QX_RUNTIME_CPU_CODES_QDQ_H

#include "runtime/cpu/op.h"

/* How scales lie over a tensor: per tensor, per index of one axis, or per block of it. */
typedef struct qx_qlayout {
    bool scalar, blocked;
    int axis;
    int64_t outer, d, inner, block, blocks; /* tensor as [outer, d, inner]; blocks = ceil(d / block) */
} qx_qlayout;
/* From a tensor's shape, the shape of its scale, and the attributes axis and block_size; checks that they fit. */
qx_status qx_qlayout_make(const qx_call *c, const qx_tensor *x, const qx_tensor *scale, int64_t axis, int64_t block, qx_qlayout *out);

typedef struct qx_qparams { qx_qlayout layout; qx_dtype codes; const float *scale; const int32_t *zero; bool no_saturate; } qx_qparams;
/* Whole tensors of n elements; codes packed. */
qx_status qx_q_tensor(qx_call *c, const qx_qparams *p, qx_dtype src_type, const void *src, int64_t n, void *codes);
qx_status qx_dq_tensor(qx_call *c, const qx_qparams *p, const void *codes, int64_t n, qx_dtype dst_type, void *dst);
/* Zero points as int32 in scratch; NULL when the tensor is NULL or of a float type (float zero points must be 0). */
qx_status qx_q_zeros(qx_call *c, const qx_tensor *zp, const int32_t **out);

/* A whole node: codes where no input and no attribute says which, whether a scale of UINT8 holds powers of two, and whether blocks may go
 * without saying. */
typedef struct qx_qdefault { qx_dtype codes; bool powers, by_shape; } qx_qdefault;
qx_status qx_q_node(qx_call *c, const qx_qdefault *d);
qx_status qx_dq_node(qx_call *c, const qx_qdefault *d);

/* DynamicQuantizeLinear's rule: the range of the finite elements with 0 in it, and the uint8 scale and zero point of a range. */
void qx_dynamic_range(const float *x, int64_t n, float *lo, float *hi);
void qx_dynamic_scale(float lo, float hi, float *scale, int32_t *zero);

#endif

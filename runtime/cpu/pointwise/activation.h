/* activation.h - the `activation` attribute of com.microsoft's fused operators (FusedConv, FusedGemm, NhwcFusedConv, MoE),
 * applied to floats in place. */
#ifndef QX_RUNTIME_CPU_POINTWISE_ACTIVATION_H
#define QX_RUNTIME_CPU_POINTWISE_ACTIVATION_H

#include "kernels/pointwise.h"
#include "runtime/cpu/op.h"

typedef struct qx_activation { bool none, clip; qx_unary fn; float p[2]; /* of fn; of clip: lowest, highest */ } qx_activation;
/* From attributes activation and activation_params, or activation_alpha and activation_beta. Absent or empty: none. An unknown
 * name is QX_E_UNSUPPORTED. */
qx_status qx_activation_read(const qx_call *c, qx_activation *a);
void qx_activation_piece(const qx_activation *a, float *y, int64_t n); /* by one thread */
qx_status qx_activation_run(qx_call *c, const qx_activation *a, float *y, int64_t n);

#endif

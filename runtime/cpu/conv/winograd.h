/* winograd.h - 3x3 convolutions by kernels/winograd.h, where that takes fewer operations than it adds. */
#ifndef QX_RUNTIME_CPU_CONV_WINOGRAD_H
#define QX_RUNTIME_CPU_CONV_WINOGRAD_H

#include "runtime/cpu/matmul/gemm.h"

/* By shape alone, so that every number of threads takes the same way. */
bool qx_wino_pays(const qx_conv_shape *s);
/* Whether weights [out, in, 3, 3] may be such a convolution's, and whether one of `pixels` results then is: what is known before
 * it runs. */
bool qx_wino_weights_fit(int64_t out, int64_t in);
bool qx_wino_pixels_pay(int64_t pixels);
/* w [out, in, 3, 3] to *u, four times as large. */
qx_status qx_wino_pack(qx_call *c, const qx_conv_shape *s, const float *w, float **u);
/* As qx_conv_run. */
qx_status qx_wino_run(qx_call *c, const float *u, const qx_conv_shape *s, const qx_conv_op *op);

#endif

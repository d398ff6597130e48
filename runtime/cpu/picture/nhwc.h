/* nhwc.h - channels-last pictures for adapters that think in NCHW: [n, spatial..., c] seen as [n, c, spatial...]. */
#ifndef QX_RUNTIME_CPU_PICTURE_NHWC_H
#define QX_RUNTIME_CPU_PICTURE_NHWC_H

#include "runtime/cpu/op.h"

/* t with the channel axis second; data untouched. Rank below 3: E_SHAPE. */
qx_status qx_nhwc_view(const qx_call *c, const qx_tensor *t, qx_tensor *view);
/* dims of NCHW in channels-last order, and back. */
void qx_nhwc_dims(int rank, const int64_t *nchw, int64_t *nhwc);
/* A picture of dims [N, C, H, W] from one layout to another, as qx_call_in_layout has them; blocks of channels: floats only. x and y do
 * not overlap. */
qx_status qx_reblock(qx_call *c, qx_dtype type, const int64_t dims[4], int from, const void *x, int to, void *y);
/* x as NCHW floats in scratch; and NCHW floats y written channels-last to out. view: the NCHW dims. */
qx_status qx_nhwc_to_nchw(qx_call *c, const qx_tensor *view, const float *x, const float **out);
qx_status qx_nchw_to_nhwc(qx_call *c, int rank, const int64_t *nchw, const float *y, float *out);

#endif

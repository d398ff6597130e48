/* pool.h - pooling of NCHW floats by the attributes of a node, for adapters whose data is stored otherwise. */
#ifndef QX_RUNTIME_CPU_PICTURE_POOL_H
#define QX_RUNTIME_CPU_PICTURE_POOL_H

#include "runtime/cpu/picture/nhwc.h"

/* x: NCHW dims (data is not read); dims and *y (scratch): the output. */
qx_status qx_pool_f32(qx_call *c, const qx_tensor *x, const float *data, int64_t *dims, float **y);

#endif

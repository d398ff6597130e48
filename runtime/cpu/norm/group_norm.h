/* group_norm.h - normalisation of the channel groups of pictures, plain or blocked, with what may follow it. */
#ifndef QX_RUNTIME_CPU_NORM_GROUP_NORM_H
#define QX_RUNTIME_CPU_NORM_GROUP_NORM_H

#include "runtime/cpu/op.h"

typedef struct qx_group_norm {
    int64_t batch, channels, groups, pixels; /* channels is a multiple of groups */
    int block;                   /* layout of x and y; 0: plain */
    float eps;
    const float *x, *gamma, *beta; /* gamma, beta: [channels] */
    bool silu;                   /* y = z sigmoid(z) of the normalised z */
    float *y;                    /* may be x */
} qx_group_norm;
qx_status qx_group_norm_run(qx_call *c, const qx_group_norm *g);

#endif

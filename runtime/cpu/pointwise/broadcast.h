/* broadcast.h - walks two or three broadcast operands as runs in which each advances or stays. */
#ifndef QX_RUNTIME_CPU_POINTWISE_BROADCAST_H
#define QX_RUNTIME_CPU_POINTWISE_BROADCAST_H

#include "runtime/cpu/op.h"

/* A broadcast with neighbouring dims merged where all operands allow it. The innermost dim is the run. */
typedef struct qx_bcast {
    int rank, n_ops;
    int64_t dims[QX_MAX_RANK];           /* merged; at least one */
    int64_t stride[3][QX_MAX_RANK];      /* elements; 0 where the operand stays */
    int out_rank;
    int64_t out_dims[QX_MAX_RANK];
    int64_t run, runs;                   /* length of the innermost dim, product of the others */
} qx_bcast;

/* ops[k] NULL is not allowed. QX_E_SHAPE with both shapes when they do not fit. */
qx_status qx_bcast_make(const qx_call *c, const qx_tensor *const *ops, int n_ops, qx_bcast *out);
/* Offsets in elements of operand k at the start of run r. */
void qx_bcast_at(const qx_bcast *b, int64_t r, int64_t off[3]);

#endif

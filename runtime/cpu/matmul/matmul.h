/* matmul.h - the shape rule of matrix products: operands of rank 1 are a row on the left and a column on the right, axes in front
 * of the last two broadcast. For adapters of every product, float and integer. */
#ifndef QX_RUNTIME_CPU_MATMUL_MATMUL_H
#define QX_RUNTIME_CPU_MATMUL_MATMUL_H

#include "runtime/cpu/op.h"

typedef struct qx_mm_shape {
    int64_t m, n, k;
    int64_t batch_dims[QX_MAX_RANK]; int n_batch; /* broadcast axes of the output */
    int64_t dims[QX_MAX_RANK]; int rank;          /* the output */
} qx_mm_shape;
/* E_SHAPE naming both shapes when they do not fit. */
qx_status qx_mm_shape_of(const qx_call *c, const qx_tensor *a, const qx_tensor *b, qx_mm_shape *s);
/* Offset, in matrices, of operand t at batch index i of the output. */
int64_t qx_mm_batch_at(const qx_mm_shape *s, const qx_tensor *t, int64_t i);
/* Matrices of an operand. */
int64_t qx_mm_batches(const qx_tensor *t);

#endif

/* sparse_check.h - proves (or disproves) the 2:4 pattern of the weights in a file, float or quantized. */
#ifndef QX_PASSES_SPARSE_CHECK_H
#define QX_PASSES_SPARSE_CHECK_H

#include "onnx/weight/weight.h"

typedef struct qx_sparse_row {
    const char *node, *weight;
    int64_t groups, broken;  /* groups of 4 along the contraction; those with more than two values that are not 0 */
    double zeros;            /* share of all values */
    const char *note;        /* why it was not looked at; NULL: it was */
} qx_sparse_row;

/* Every linear operator of the model with a constant weight. Rows in the arena. Reads each weight once, a few rows at a time. */
qx_status qx_sparse_check(qx_model *m, qx_arena *arena, qx_sparse_row **out, int64_t *n);

#endif

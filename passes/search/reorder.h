/* reorder.h - channels between linear operators in another order, so that 2:4 pruning of what reads them loses less. Exact in
 * float: rows of what makes the channels move (weights, biases, vectors in between), columns of what reads them follow. Before
 * the sweep, so that statistics are those of the new order. */
#ifndef QX_PASSES_REORDER_H
#define QX_PASSES_REORDER_H

#include "passes/linear/linear.h"

enum { QX_REORDER_MOST = 8 };
/* One reader, and everything that makes what it reads. */
typedef struct qx_reorder {
    const qx_linear *to;
    /* each makes the channels, once or (packed) several times behind each other */
    const qx_linear *from[QX_REORDER_MOST]; int n_from;
    struct { qx_node *node; uint32_t index; } vector[QX_REORDER_MOST]; int n_vectors;  /* constants [channels] on the way */
    int64_t channels;   /* that `to` reads */
    int64_t head;       /* channels move within heads of so many; all of them where there are no heads */
    int64_t repeat;     /* so many heads of `to` in a row read one head of `from` */
} qx_reorder;
typedef struct qx_reorders { qx_reorder *items; int64_t n; } qx_reorders;

/* Pointwise operators, pooling and batch normalization between products (gate and up before down, convolutions in a row), and
 * values before the output projection of an attention. Only structure is looked at, nothing is changed. In the model's arena. */
qx_status qx_reorders_find(qx_model *m, const qx_linears *ls, qx_reorders *out);
/* Chooses an order by the squares of the reader's weights and stores it. *left: share of what pruning the smallest two of four
 * would lose that still is lost. */
qx_status qx_reorder_apply(qx_model *m, const qx_reorder *r, double *left);

#endif

/* gram_leaf.h - the loops behind gram.h that one instruction set gives. */
#ifndef QX_KERNELS_LOOPS_GRAM_LEAF_H
#define QX_KERNELS_LOOPS_GRAM_LEAF_H

#include "kernels/gram.h"
#include "kernels/loops/isa.h"

/* Adds tiles (i, j), i <= j, of i in [i0, i1) and j in [j0, j1). */
typedef void qx_gram_add_fn(const qx_gram_block *b, int64_t i0, int64_t i1, int64_t j0, int64_t j1);
qx_gram_add_fn qx_gram_ref;
qx_gram_add_fn *qx_gram_cpu(qx_isa isa);

static inline const float *qx_gram_panel(const qx_gram_block *b, int64_t i) { return b->panels + i * b->rows * QX_GRAM_TILE; }
static inline double *qx_gram_tile(const qx_gram_block *b, int64_t i, int64_t j)
{
    return b->tiles + qx_gram_at(b->p, i, j) * QX_GRAM_CELLS;
}

#endif

/* pool_leaf.h - the loops of pool.h, one for each instruction set. Internal. */
#ifndef QX_KERNELS_LOOPS_POOL_LEAF_H
#define QX_KERNELS_LOOPS_POOL_LEAF_H

#include "kernels/loops/isa.h"
#include "kernels/pool.h"

/* Pixels of a line of folded rows: those that windows see. Behind the last line are numbers that a fold with a step may read
 * beyond them. */
enum { QX_POOL_SLACK = 64 };
static inline int64_t qx_pool_pitch(const qx_windows *w)
{
    return (w->out[2] - 1) * w->stride[2] + (w->kernel[2] - 1) * w->dilation[2] + 1;
}

typedef void qx_pool_leaf(const qx_windows *w, const qx_pool_band *b);
qx_pool_leaf qx_pool_rows_ref;
#if defined(__x86_64__)
qx_pool_leaf qx_pool_rows_avx2, qx_pool_rows_avx512;
#endif
static inline qx_pool_leaf *qx_pool_leaf_cpu(qx_isa isa)
{
#if defined(__x86_64__)
    if (isa == QX_ISA_AVX512) return qx_pool_rows_avx512;
    if (isa == QX_ISA_AVX2) return qx_pool_rows_avx2;
#endif
    (void)isa;
    return qx_pool_rows_ref;
}

#endif

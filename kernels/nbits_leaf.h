/* nbits_leaf.h - dot products of nbits.c, one table per instruction set. Internal. */
#ifndef QX_KERNELS_NBITS_LEAF_H
#define QX_KERNELS_NBITS_LEAF_H

#include "kernels/isa.h"
#include "kernels/nbits.h"

typedef struct qx_nbits_leaf {
    /* sum over blocks of scale[b] * (dot(x block, codes block) - zero[b] * sum[b]); x in prepared order, flip is xor-ed into each byte. */
    float (*dot4)(const uint8_t *c, const float *x, int64_t blocks, int64_t block, const float *scale, const float *zero, const float *sum, uint8_t flip);
    float (*dot8)(const uint8_t *c, const float *x, int64_t blocks, int64_t block, const float *scale, const float *zero, const float *sum, uint8_t flip);
} qx_nbits_leaf;

const qx_nbits_leaf *qx_nbits_leaf_ref(void);
#if defined(__x86_64__)
const qx_nbits_leaf *qx_nbits_leaf_avx2(void);
const qx_nbits_leaf *qx_nbits_leaf_avx512(void);
#endif
static inline const qx_nbits_leaf *qx_nbits_leaf_cpu(qx_isa isa)
{
#if defined(__x86_64__)
    if (isa == QX_ISA_AVX512) return qx_nbits_leaf_avx512();
    if (isa == QX_ISA_AVX2) return qx_nbits_leaf_avx2();
#endif
    (void)isa;
    return qx_nbits_leaf_ref();
}
void qx_nbits_piece_using(const qx_nbits_leaf *l, const qx_nbits *w, int64_t m, const float *x, int64_t ldx, const float *scratch, float *y, int64_t ldy, int64_t piece);

#endif

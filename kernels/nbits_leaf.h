/* nbits_leaf.h - dot products of nbits.c, one table per instruction set. Internal. */
#ifndef QX_KERNELS_NBITS_LEAF_H
#define QX_KERNELS_NBITS_LEAF_H

#include "kernels/isa.h"
#include "kernels/nbits.h"

enum { QX_NBITS_ROWS = 4 }; /* whose prepared x lies side by side, sixteen floats each, for 4-bit codes */

/* Columns side by side that read one x: codes and scales of the next one row_bytes and ld_scale further. */
typedef struct qx_nbits_dot {
    const uint8_t *codes; int64_t row_bytes;
    const float *scale; int64_t ld_scale;
    const float *zero; int64_t ld_zero;  /* zero points by block; NULL: zero_all everywhere */
    float zero_all;
    const float *x, *sum;                /* rows in prepared order; sums of their blocks, those of the next row ld_sum further */
    int64_t ld_sum;
    int64_t blocks, block;
    uint8_t flip;                        /* xor-ed into each byte */
} qx_nbits_dot;

typedef struct qx_nbits_leaf {
    /* y[r * ldy + c] += sum over blocks of scale[b] * (dot(x block, codes block) - zero[b] * sum[b]), for r < rows, c < cols.
     * dot4 takes up to QX_NBITS_ROWS rows, dot8 one. */
    void (*dot4)(const qx_nbits_dot *p, int64_t rows, int64_t cols, float *y, int64_t ldy);
    void (*dot8)(const qx_nbits_dot *p, int64_t rows, int64_t cols, float *y, int64_t ldy);
    /* n 4-bit codes, a multiple of 32, as (code - zero) * scale: those at even places, and those at odd ones. */
    void (*halves4)(const uint8_t *codes, int64_t n, uint8_t flip, float zero, float scale, float *even, float *odd);
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
void qx_nbits_piece_using(const qx_nbits_leaf *l, const qx_nbits *w, int64_t m, const float *x, int64_t ldx, const float *scratch,
                          float *y, int64_t ldy, int64_t piece);

#endif

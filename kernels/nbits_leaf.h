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
    /* out[i * ld + c] = (code i of column c - zero[c]) * scale[c] for 32 4-bit codes of `cols` <= 16 columns; what is there for
     * columns from cols on, up to 16, is made of the last one's codes and their zero and scale. */
    void (*panel4)(const uint8_t *codes, int64_t row_bytes, int64_t cols, uint8_t flip, const float *zero, const float *scale,
                   float *out, int64_t ld);
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

/* gemm.h - float matrix product of our own: panels of packed columns and a register tile, the same bits on every instruction set (no fused
 * multiply-add) and for every split of the rows. The path for machines and builds without a better library, and the reference for those with. */
#ifndef QX_KERNELS_GEMM_H
#define QX_KERNELS_GEMM_H

#include <stddef.h>
#include <stdint.h>

enum { QX_GEMM_NR = 32 }; /* columns of a panel */
/* Floats that packing W[k, n] takes: panels of QX_GEMM_NR columns, zero-padded. */
int64_t qx_gemm_packed_size(int64_t k, int64_t n);
/* Panel p (columns from p * QX_GEMM_NR): dst[i * QX_GEMM_NR + j] = w[i * row + (p * QX_GEMM_NR + j) * col]. */
void qx_gemm_pack_panel(const float *w, int64_t k, int64_t n, int64_t row, int64_t col, int64_t p, float *dst);
/* Rows [0, m) of y (row stride ldy) for panel p of packed: y = x W (+ bias). x has row stride ldx and column stride cx. */
void qx_gemm_panel(const float *x, int64_t ldx, int64_t cx, int64_t m, int64_t k, const float *packed, int64_t p, int64_t n, const float *bias, float *y, int64_t ldy);

#endif

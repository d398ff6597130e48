/* dot.h - float matrix products for searches and solvers: C = A B' with both operands contiguous along k (the shape that X W' has
 * when rows of W are tiles). One thread, no packing, no scratch; the executor's big products go through oneDNN instead. Sums run
 * in an order that depends on the instruction set only, so results are the same for any number of threads. */
#ifndef QX_KERNELS_DOT_H
#define QX_KERNELS_DOT_H

#include <stdint.h>

/* c[i][j] = sum over p of a[i][p] * b[j][p];  a [m, k] (lda), b [n, k] (ldb), c [m, n] (ldc). */
void qx_gemm_nt(int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, const float *b, int64_t ldb, float *c, int64_t ldc);
/* The same, and adds up: returns the sum over i, j of (c[i][j] - sum)^2, leaving c alone. What a search asks: how far is this
 * from the reference c. */
double qx_gemm_nt_error(int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, const float *b, int64_t ldb, const float *c,
                        int64_t ldc);

/* y[j] = sum over p of a[p] b[p][j]: one row by a matrix as it is stored; b [k, n] (ldb). Without fused multiply-add: the same
 * bits everywhere. */
void qx_row_times(int64_t n, int64_t k, const float *a, const float *b, int64_t ldb, float *y);

/* The same for many rows and a panel of b, QX_PANEL columns wide and dense: y[i][j] = sum over p of a[i][p] b[p][j], the bits of
 * qx_row_times; a [m, k] (lda), b [k, QX_PANEL], y [m, QX_PANEL] (ldy). */
enum { QX_PANEL = 32 };
void qx_rows_times(int64_t m, int64_t k, const float *a, int64_t lda, const float *b, float *y, int64_t ldy);

#endif

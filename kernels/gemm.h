/* gemm.h - float matrix product of our own: panels of packed columns and a register tile. Every output is one sum in order of k, so its bits do
 * not depend on how rows and panels are spread over threads (instruction sets with fused multiply-add differ from those without).
 * The path for machines and builds without a better library, and the core of attention. */
#ifndef QX_KERNELS_GEMM_H
#define QX_KERNELS_GEMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { QX_GEMM_NR = 32, QX_GEMM_FEW = 6 }; /* columns of a panel; rows up to which a product takes the time of reading the panel, not of multiplying */
/* Floats that packing W[k, n] takes: panels of QX_GEMM_NR columns, zero-padded. */
int64_t qx_gemm_packed_size(int64_t k, int64_t n);
/* Panel p (columns from p * width): dst[i * width + j] = w[i * row + (p * width + j) * col]; 0 for columns from n on. */
void qx_gemm_pack_panel(const float *w, int64_t k, int64_t n, int64_t row, int64_t col, int64_t p, int64_t width, float *dst);

/* Rows [0, m) of y for columns [0, cols) of one packed panel: y = x P + (add ? y : 0) + bias. The panel may be wider than QX_GEMM_NR: it has ldp
 * columns, a multiple of it, and cols rounded up to whole QX_GEMM_NR are readable. The bits of an output depend on its row of x and its column only. */
typedef struct qx_gemm_tile {
    const float *x; int64_t ldx, cx; /* x[r * ldx + i * cx] */
    const float *panel; int64_t ldp;
    const float *bias;               /* [cols] or NULL */
    float *y; int64_t ldy;
    int64_t m, k, cols;
    bool add;
} qx_gemm_tile;
void qx_gemm_panel(const qx_gemm_tile *t);

#endif

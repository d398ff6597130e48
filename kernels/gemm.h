/* gemm.h - the float matrix product: y = x W with W in panels of QX_GEMM_NR columns. A block of rows of x is packed for the
 * second cache, a tile of rows by one panel stays in registers while k runs, and y carries the sums from one stretch of k to the
 * next: so every output is one sum in order of k, begun with what y or the bias holds, and its bits depend on its row of x and
 * its column of W only, however rows, columns and k are cut and spread over threads (instruction sets with fused multiply-add
 * differ from those without).
 *
 * How to call it: pack W once with qx_gemm_pack_panel (panels of k * QX_GEMM_NR floats, one after the other, 64-byte aligned),
 * then give every thread some rows and columns (whole panels) of qx_sgemm_run; pieces of 100 to 256 rows by 500 to 2,000 columns
 * run at 80 to 90 % of the multiply-adds that a core can do. A 1x1 convolution over channels-last pictures is this product: m
 * pixels, k and n channels. It takes about 450 KiB of stack. */
#ifndef QX_KERNELS_GEMM_H
#define QX_KERNELS_GEMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/loops/isa.h"

enum {
    QX_GEMM_NR = 32,    /* columns of a panel */
    QX_GEMM_FEW = 6,    /* rows up to which a product takes the time of reading the panels, not of multiplying: x is not packed for them */
    QX_GEMM_ROWS = 256, /* rows of x that are taken at a time: they and a stretch of a panel stay in the second cache */
    QX_GEMM_K = 384     /* rows of a panel that are made at a time; a multiple of 32. Of stored panels twice as many are worked through */
};
/* Floats that packing W[k, n] takes: panels of QX_GEMM_NR columns, zero-padded. */
int64_t qx_gemm_packed_size(int64_t k, int64_t n);
/* Panel p (columns from p * QX_GEMM_NR on): dst[i * QX_GEMM_NR + j] = w[i * row + (p * QX_GEMM_NR + j) * col]; 0 for columns from n on. */
void qx_gemm_pack_panel(const float *w, int64_t k, int64_t n, int64_t row, int64_t col, int64_t p, float *dst);

/* Makes rows [k0, k0 + kc), kc <= QX_GEMM_K, k0 a multiple of 32, of the panel of columns [j0, j0 + nc): dst[i * QX_GEMM_NR + j],
 * 0 for j >= nc. */
typedef void qx_gemm_make_fn(const void *user, int64_t k0, int64_t kc, int64_t j0, int64_t nc, float *dst);

/* y[m, n] = alpha x W + (add ? y : bias). */
typedef struct qx_sgemm {
    int64_t m, k, n;
    const float *x; int64_t ldx, cx;   /* x[r * ldx + i * cx] */
    const float *panels; int64_t step; /* panel p of W at panels + p * step; ... */
    /* ... or, not NULL, made when it is needed, once for QX_GEMM_ROWS rows: for weights that are stored otherwise */
    qx_gemm_make_fn *make; const void *user;
    const float *bias;                 /* [n] or NULL; not looked at with add */
    float *y; int64_t ldy;             /* must not overlap x or W */
    float alpha;                       /* factor of x; usually 1 */
    bool add;
} qx_sgemm;
void qx_sgemm_run(const qx_sgemm *g);
void qx_sgemm_using(qx_isa isa, const qx_sgemm *g); /* an instruction set that the CPU has: for tests */

#endif

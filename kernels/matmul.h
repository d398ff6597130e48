/* matmul.h - C = beta C + alpha A B with any strides: the product that the solvers are made of.
 *
 * Solvers take it as a function, so that a caller can hand in a threaded or library product; NULL means the one here, on the
 * calling thread. Cut by qx_matmul_pieces, the pieces give the same bits as the whole, whoever runs them. Uses fused multiply-add
 * where the CPU has it: the last bits may differ between instruction sets, never between thread counts. No scratch: packing goes
 * through 450 KiB of stack (gemm.h, which also takes weights that are packed once, or made a panel at a time). */
#ifndef QX_KERNELS_MATMUL_H
#define QX_KERNELS_MATMUL_H

#include <stdint.h>

typedef struct qx_matmul {
    int64_t m, n, k;
    const float *a; int64_t ra, ca; /* A(i, p) = a[i * ra + p * ca] */
    const float *b; int64_t rb, cb; /* B(p, j) = b[p * rb + j * cb] */
    float *c; int64_t ldc;          /* C(i, j) = c[i * ldc + j]; must not overlap A or B */
    float alpha, beta;              /* beta 0: C is not read */
} qx_matmul;

typedef void qx_matmul_fn(void *user, const qx_matmul *p);
void qx_matmul_f32(void *user, const qx_matmul *p); /* user is not used */

/* The same work as independent pieces (row ranges of C): for i in [0, pieces) qx_matmul_piece(p, i), on any threads. */
int64_t qx_matmul_pieces(const qx_matmul *p);
void qx_matmul_piece(const qx_matmul *p, int64_t i);

#endif

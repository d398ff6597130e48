/* matmul.c - see matmul.h. Panels of B are packed on the stack for the product of gemm.h. */
#include "kernels/matmul.h"

#include <string.h>

#include "kernels/gemm.h"
#include "kernels/quant.h"

enum { NR = QX_GEMM_NR, PIECE_ROWS = QX_GEMM_ROWS / 2 };

static void pack_panel(const void *user, int64_t k0, int64_t kc, int64_t j0, int64_t nc, float *panel)
{
    const qx_matmul *p = user;
    qx_gemm_pack_panel(p->b + k0 * p->rb + j0 * p->cb, kc, nc, p->rb, p->cb, 0, panel);
}

static void scale_c(const qx_matmul *p)
{
    for (int64_t i = 0; i < p->m && p->beta != 0.0f && p->beta != 1.0f; i++)
        for (int64_t j = 0; j < p->n; j++) p->c[i * p->ldc + j] *= p->beta;
}

void qx_matmul_f32(void *user, const qx_matmul *p)
{
    (void)user;
    scale_c(p);
    const qx_sgemm g = {.m = p->m, .k = p->k, .n = p->n, .x = p->a, .ldx = p->ra, .cx = p->ca, .make = pack_panel, .user = p, .y = p->c,
                        .ldy = p->ldc, .alpha = p->alpha, .add = p->beta != 0.0f};
    qx_sgemm_run(&g);
}

int64_t qx_matmul_pieces(const qx_matmul *p) { return (p->m + PIECE_ROWS - 1) / PIECE_ROWS; }

void qx_matmul_piece(const qx_matmul *p, int64_t i)
{
    qx_matmul q = *p;
    const int64_t first = i * PIECE_ROWS;
    q.m = p->m - first < PIECE_ROWS ? p->m - first : PIECE_ROWS;
    q.a += first * p->ra, q.c += first * p->ldc;
    qx_matmul_f32(0, &q);
}

/* gemm.c - see gemm.h. Four rows by one panel stay in registers while k runs; every output is one sum in order of k. */
#include "kernels/gemm.h"

#include "kernels/multi.h"

enum { NR = QX_GEMM_NR, MR = 4 };

int64_t qx_gemm_packed_size(int64_t k, int64_t n) { return (n + NR - 1) / NR * NR * k; }

void qx_gemm_pack_panel(const float *w, int64_t k, int64_t n, int64_t row, int64_t col, int64_t p, float *dst)
{
    int64_t first = p * NR, cols = n - first < NR ? n - first : NR;
    for (int64_t i = 0; i < k; i++)
        for (int64_t j = 0; j < NR; j++) dst[i * NR + j] = j < cols ? w[i * row + (first + j) * col] : 0.0f;
}

typedef float vec __attribute__((vector_size(32), aligned(4)));
enum { VECS = NR / 8 };

/* rows: a constant where it is called, so that the tile lives in registers. */
QX_INLINE void tile(const float *x, int64_t ldx, int64_t cx, int64_t k, const float *panel, const float *bias, float *y, int64_t ldy, int64_t cols, const int rows)
{
    vec acc[MR][VECS];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < VECS; v++) acc[r][v] = (vec){0};
    for (int64_t i = 0; i < k; i++) {
        const vec *b = (const vec *)(const void *)(panel + i * NR);
        for (int r = 0; r < rows; r++) {
            float a = x[r * ldx + i * cx];
            for (int v = 0; v < VECS; v++) acc[r][v] += a * b[v];
        }
    }
    for (int r = 0; r < rows; r++)
        for (int64_t j = 0; j < cols; j++) y[r * ldy + j] = acc[r][j / 8][j % 8] + (bias ? bias[j] : 0.0f);
}

QX_INLINE void qx_gemm_panel_body(const float *x, int64_t ldx, int64_t cx, int64_t m, int64_t k, const float *packed, int64_t p, int64_t n, const float *bias, float *y, int64_t ldy)
{
    const float *panel = packed + p * NR * k, *b = bias ? bias + p * NR : 0;
    int64_t cols = n - p * NR < NR ? n - p * NR : NR, i = 0;
    y += p * NR;
    for (; i + MR <= m; i += MR) tile(x + i * ldx, ldx, cx, k, panel, b, y + i * ldy, ldy, cols, MR);
    for (; i < m; i++) tile(x + i * ldx, ldx, cx, k, panel, b, y + i * ldy, ldy, cols, 1);
}
QX_MULTI(, qx_gemm_panel,
         (const float *x, int64_t ldx, int64_t cx, int64_t m, int64_t k, const float *packed, int64_t p, int64_t n, const float *bias, float *y, int64_t ldy),
         (x, ldx, cx, m, k, packed, p, n, bias, y, ldy))

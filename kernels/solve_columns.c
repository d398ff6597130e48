/* solve_columns.c - see solve_columns.h. Loops over rows, sixteen and more at a time. */
#include "kernels/solve_columns.h"

#include "kernels/multi.h"

QX_INLINE void qx_columns_pull_body(int64_t wide, int64_t np, int columns, const float *u, int64_t ldu, const float *e, float *x)
{
    for (int64_t i = 0; i < wide; i += QX_COLUMNS_WIDE) {
        float acc[QX_COLUMNS_FOUR][QX_COLUMNS_WIDE];
        for (int c = 0; c < QX_COLUMNS_FOUR; c++)
            for (int j = 0; j < QX_COLUMNS_WIDE; j++) acc[c][j] = c < columns ? x[c * wide + i + j] : 0.0f;
        for (int64_t p = 0; p < np; p++) {
            const float *ep = e + p * wide + i, *up = u + p * ldu;
            const float f[QX_COLUMNS_FOUR] = {up[0], columns > 1 ? up[1] : 0.0f, columns > 2 ? up[2] : 0.0f, columns > 3 ? up[3] : 0.0f};
            for (int c = 0; c < QX_COLUMNS_FOUR; c++)
                for (int j = 0; j < QX_COLUMNS_WIDE; j++) acc[c][j] -= f[c] * ep[j];
        }
        for (int c = 0; c < columns; c++)
            for (int j = 0; j < QX_COLUMNS_WIDE; j++) x[c * wide + i + j] = acc[c][j];
    }
}
QX_MULTI(, qx_columns_pull, (int64_t wide, int64_t np, int columns, const float *u, int64_t ldu, const float *e, float *x), (wide, np, columns, u, ldu, e, x))

QX_INLINE void qx_columns_push_body(int64_t wide, float f, const float *restrict e, float *restrict x)
{
    for (int64_t i = 0; i < wide; i++) x[i] -= f * e[i];
}
QX_MULTI(, qx_columns_push, (int64_t wide, float f, const float *e, float *x), (wide, f, e, x))

/* solve_columns.h - what solvers do to a few columns of a tile that lies turned: column j of all rows is x[j * wide], rows padded
 * to a multiple of QX_COLUMNS_WIDE. Inside a panel of columns errors are pulled in as each column's turn comes; behind the panel
 * one product settles all others. */
#ifndef QX_KERNELS_SOLVE_SOLVE_COLUMNS_H
#define QX_KERNELS_SOLVE_SOLVE_COLUMNS_H

#include <stdint.h>

enum { QX_COLUMNS_WIDE = 16, QX_COLUMNS_FOUR = 4, QX_COLUMNS_PANEL = 64 };
static inline int64_t qx_columns_padded(int64_t rows) { return (rows + QX_COLUMNS_WIDE - 1) / QX_COLUMNS_WIDE * QX_COLUMNS_WIDE; }

/* x[c] -= sum over p < np of u[p * ldu + c] e[p], for `columns` <= 4 columns beside each other. */
void qx_columns_pull(int64_t wide, int64_t np, int columns, const float *u, int64_t ldu, const float *e, float *x);
/* x -= f e, one column. */
void qx_columns_push(int64_t wide, float f, const float *e, float *x);

#endif

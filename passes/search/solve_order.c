/* solve_order.c - see solve_order.h. */
#include "passes/search/solve_order.h"

int64_t qx_solver_column(int64_t spatial, int64_t k, int64_t j)
{
    return spatial <= 1 ? j : j % (k / spatial) * spatial + j / (k / spatial);
}

void qx_to_solver_order(int64_t spatial, int64_t rows, int64_t k, const float *x, float *y)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t j = 0; j < k; j++) y[r * k + j] = x[r * k + qx_solver_column(spatial, k, j)];
}

void qx_from_solver_order(int64_t spatial, int64_t rows, int64_t k, const float *y, float *x)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t j = 0; j < k; j++) x[r * k + qx_solver_column(spatial, k, j)] = y[r * k + j];
}

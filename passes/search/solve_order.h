/* solve_order.h - the order of columns that solvers see. A convolution's weight has columns (channel, position), its Gram matrix
 * (position, channel); spatial is the number of positions, 1 for a product. */
#ifndef QX_SEARCH_SOLVE_ORDER_H
#define QX_SEARCH_SOLVE_ORDER_H

#include <stdint.h>

int64_t qx_solver_column(int64_t spatial, int64_t k, int64_t j); /* the weight's column that is the solver's j-th */
void qx_to_solver_order(int64_t spatial, int64_t rows, int64_t k, const float *x, float *y);
void qx_from_solver_order(int64_t spatial, int64_t rows, int64_t k, const float *y, float *x);

#endif

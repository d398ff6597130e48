/* codes.h - the product that a candidate of the search really gives where both sides are INT8 (search.c): in integers, so exact, and a
 * multiple faster than the same numbers in float. */
#ifndef QX_PASSES_CODES_H
#define QX_PASSES_CODES_H

#include "passes/search/search.h"

/* Rows of x as they are read: codes[rows][k] times scale[rows]. */
typedef struct qx_code_rows { int8_t *codes; float *scale; } qx_code_rows;

/* Whether this weight has one INT8 scale a row (or one for all) and no zero points. */
bool qx_codes_weight(const qx_qspec *spec);
/* Whether rows of k numbers have codes around zero (a tensor's own UINT8 does not), and 32 bits hold their sums. */
bool qx_codes_input(const qx_act_grid *g, int64_t k);
/* One row of x on its grid, which weighs as much as said. */
void qx_codes_row(const qx_act_grid *g, int64_t k, const float *x, float weigh, int8_t *codes, float *scale);
/* The sum over the rows of (y - x W')^2, with w[n][k] rounded as the spec says; y[rows][n]. */
qx_status qx_codes_error(qx_ctx *ctx, const qx_qspec *spec, const qx_code_rows *x, int64_t rows, int64_t n, int64_t k,
                         float tensor_amax, const float *importance, const float *w, const float *y, double *error);

#endif

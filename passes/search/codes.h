/* codes.h - the product that a candidate of the search really gives where both sides are INT8 (candidates.c): in integers, so exact, and a
 * multiple faster than the same numbers in float. */
#ifndef QX_PASSES_CODES_H
#define QX_PASSES_CODES_H

#include "passes/search/rounding.h"

/* Rows of x as they are read: codes[n][k] times scale[n]. */
typedef struct qx_code_rows { int64_t n; int8_t *codes; float *scale; } qx_code_rows;

/* Whether this weight has one INT8 scale a row (or one for all) and no zero points. */
bool qx_codes_weight(const qx_qspec *spec);
/* Whether rows of k numbers have codes around zero (a tensor's own UINT8 does not), and 32 bits hold their sums. */
bool qx_codes_input(const qx_act_grid *g, int64_t k);
/* One row of x on its grid, which weighs as much as said. */
void qx_codes_row(const qx_act_grid *g, int64_t k, const float *x, float weigh, int8_t *codes, float *scale);
/* The sum over the rows of (y - x W')^2, with W rounded as the spec says (its own room for scales is not used); y[x->n][w->rows]. */
qx_status qx_codes_error(qx_ctx *ctx, const qx_qspec *spec, const qx_row_tile *w, const qx_code_rows *x, const float *y, double *error);

#endif

/* shift.h - what a layer's weight must become when its input is not x any more but xq, because the layers before it are rounded: for
 * all rows W (x - xq) shall be W S xq, so that W (1 + S) xq is what the float layer gives. S = D inv(H), D = sum w (x - xq) xq',
 * H = sum w xq xq', is the best of all in least squares (arXiv 2504.02692 and 2505.11695 correct by the same term, rows alike).
 *
 * Rows are weighed by w = 1 / (|x - xq|^2 + |xq|^2 / 10000). Unweighted, a few rows are given up for many: behind the layer that makes the
 * enormous values of first tokens (SmolLM2's twelfth), all other tokens carry its rounding error along the very direction that is all of
 * a first token. S then took that direction for noise, the first token lost its key, and with it every token's attention was wrong. It had
 * no error to begin with, which is what the weight sees.
 *
 * What was fitted to few rows may be chance: rows of every eighth sample are not fitted to but judge, and each weight takes the share of
 * S between none and all that serves them best. So on rows that nothing was fitted to no layer gets worse. */
#ifndef QX_PASSES_SHIFT_H
#define QX_PASSES_SHIFT_H

#include "onnx/weight/weight.h"

typedef struct qx_shift qx_shift;

qx_status qx_shift_new(qx_ctx *ctx, int64_t k, qx_shift **out);
void qx_shift_free(qx_ctx *ctx, qx_shift *s);
/* Rows of x and, k elements behind it, of xq. judges: they are held back. */
qx_status qx_shift_add(qx_ctx *ctx, qx_shift *s, const float *both, int64_t rows, int64_t stride, bool judges);
/* matrix[k][k] = S', the caller's to free; NULL: there is nothing to make up for, or H cannot be factored. */
qx_status qx_shift_find(qx_ctx *ctx, qx_shift *s, float **matrix);
/* How much of it the rows that judge want for this weight: 0 to 1. */
qx_status qx_shift_share(qx_ctx *ctx, const qx_shift *s, const float *matrix, const qx_weight *w, const qx_view *view, const qx_step *steps,
                         double *share);
/* Memory that the two matrices and what finds S take, at most. */
int64_t qx_shift_bytes(int64_t k);

#endif

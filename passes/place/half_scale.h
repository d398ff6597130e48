/* half_scale.h - block scales of float32 weights stored as float16, with a Cast between them and their reader: half a bit less for
 * each weight of a block of 32, an error of 0.03 % of a step. Runtimes fold the Cast when they load a file. */
#ifndef QX_PASSES_HALF_SCALE_H
#define QX_PASSES_HALF_SCALE_H

#include "passes/place/plan.h"

/* Before a format is settled: how large scales of the weight will be. */
qx_status qx_half_scale_measure(qx_pass *p, const qx_plan_item *it);
/* Of an item whose format and blocks are settled. */
void qx_half_scale_settle(const qx_pass *p, const qx_plan_item *it);
/* What readers of the weight take for its scale: `stored`, or that as the type of the weight. */
qx_status qx_half_scale_cast(const qx_plan_weight *w, qx_value *stored, qx_value **out);

/* Calls fn for some rows of W from all over it, as its steps so far leave them. */
typedef void qx_row_fn(void *user, const float *row, int64_t k);
qx_status qx_some_rows(qx_pass *p, const qx_plan_item *it, int64_t rows, qx_row_fn *fn, void *user);

#endif

/* square.h - one scale for several output channels and a block of the contraction: squares of 128 x 128, as FP8 checkpoints have them. */
#ifndef QX_PASSES_SQUARE_H
#define QX_PASSES_SQUARE_H

#include "passes/place/plan.h"

/* Whether the weight can have squares of spec.given_rows rows for this target; else every row has scales of its own. */
bool qx_square_fits(const qx_pipeline *pipe, const qx_plan_item *it);
/* For the items that pass p has, behind all float steps and before their jobs are made: the scales of squares, amax / largest
 * code, as scales that are given. */
qx_status qx_square_scales(qx_pass *p);
/* The stored scales, [squares of n, blocks] or, beside codes of [k, n], turned; and, but for TensorRT, the same for each row, as
 * DequantizeLinear wants them. Of weights whose spec.given_rows is above 1. */
qx_status qx_square_value(qx_pipeline *pipe, const qx_plan_weight *w, bool turned, qx_value **out);
/* Bytes of the stored scales. */
int64_t qx_square_bytes(const qx_plan_weight *w);

#endif

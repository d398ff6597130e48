/* dynamic.h - products whose input is quantized when the model runs, by the values it has then: no calibration, integer operators
 * of the standard. */
#ifndef QX_PASSES_DYNAMIC_H
#define QX_PASSES_DYNAMIC_H

#include "passes/place/plan.h"

/* Whether the operator has this form; else why not, in words. */
bool qx_dynamic_fits(const qx_plan_item *it, const char **detail);
/* Every dynamic item of the weight becomes MatMulInteger on the same codes (stored as the weight was) and their scales, one a
 * channel. *rest: others read the weight too. */
qx_status qx_dynamic_write(struct qx_pipeline *pipe, const qx_plan_weight *w, qx_value *codes, qx_value *scale, bool *rest);

#endif

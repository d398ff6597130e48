/* blocks.h - inputs whose block scales are found when the model runs (NVFP4 and MX formats of activations): which inputs can be so, and
 * the nodes. */
#ifndef QX_PASSES_BLOCKS_H
#define QX_PASSES_BLOCKS_H

#include "passes/place/opset.h"
#include "passes/place/plan.h"

/* Whether x of this operator can be quantized in the blocks of its weight's format; detail: why not. */
bool qx_blocks_fit(const qx_pipeline *pipe, const qx_plan_item *it, const qx_qspec *spec, const char **detail);
/* Codes and block scales of v along its last axis, and back: for TensorRT its own operators, else the standard's. second: what block
 * scales of E4M3 are multiples of. */
qx_status qx_blocks_put(qx_pipeline *pipe, qx_value *v, const qx_qspec *spec, float second, qx_value **out);
/* What these nodes need. */
qx_need qx_blocks_need(const qx_pipeline *pipe, const qx_qspec *spec);

#endif

/* merge.h - what multiplies or shifts the channels behind a convolution becomes part of its weight and bias. */
#ifndef QX_PASSES_MERGE_H
#define QX_PASSES_MERGE_H

#include "onnx/graph.h"

/* BatchNormalization, Mul and Add of one constant a channel (or one for all) behind a float32 Conv whose constant weight nothing else
 * reads. The convolution takes over the name of what it now computes. Weights become jobs, before the sweep; values change by
 * rounding alone. *merged (may be NULL): nodes that are gone. */
qx_status qx_merge_scales(qx_model *m, int64_t *merged);

#endif

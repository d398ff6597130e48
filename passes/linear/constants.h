/* constants.h - weights that the graph computes from constants become initializers. */
#ifndef QX_PASSES_CONSTANTS_H
#define QX_PASSES_CONSTANTS_H

#include "onnx/graph.h"

struct qx_exec_options;
/* Weight inputs of linear operators that are made of constants alone, by nodes that do more than rearrange, and that are no
 * larger than all of those constants together: computed on the CPU and replaced. At most 2 GiB together; operators without a
 * kernel: nothing, and it is logged. */
qx_status qx_fold_computed_weights(qx_model *m, const struct qx_exec_options *options);

#endif

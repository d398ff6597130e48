/* quantized.h - what tells that a model, or a weight, is in low precision already. */
#ifndef QX_PASSES_QUANTIZED_H
#define QX_PASSES_QUANTIZED_H

#include "onnx/graph.h"

/* Q/DQ and operators with low-precision weights; operators that we do not know and whose name says it (TensorRT's, Quark's); a
 * Cast that expands stored codes (torchao's weights). */
bool qx_quantized_node(const qx_node *n);
/* Whether v is computed from codes that a Cast expands, times a scale, less a zero point, in another shape. */
bool qx_expands_codes(const qx_value *v);

/* Counts the nodes of a model that are quantized already, in bodies and functions too; of_codes: operators on codes alone. */
typedef struct qx_already { bool of_codes; const qx_node *first; int64_t count; } qx_already;
qx_status qx_already_quantized(qx_model *m, qx_already *a);

#endif

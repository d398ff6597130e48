/* opset.h - raising a model to a newer opset: operators whose definition changed on the way are converted, never just restamped. */
#ifndef QX_PASSES_OPSET_H
#define QX_PASSES_OPSET_H

#include "onnx/edit.h"

/* What a graph must declare for the types and operators in it. */
typedef struct qx_need { int64_t opset, ir; } qx_need;
/* For Q/DQ of a code type with scales of a type, per axis and blocked or not. */
qx_need qx_need_for(qx_dtype codes, qx_dtype scale, bool axis, bool blocked);

/* Raises opset and IR version to at least these; lower or equal: nothing happens. A node that cannot be converted is
 * QX_E_UNSUPPORTED, named, and `because` says what needs the opset ("FLOAT8E4M3FN"). */
qx_status qx_opset_raise(qx_model *m, qx_need need, const char *because);

#endif

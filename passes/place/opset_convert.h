/* opset_convert.h - the table of operators whose definition changed, for opset.c only. */
#ifndef QX_PASSES_OPSET_CONVERT_H
#define QX_PASSES_OPSET_CONVERT_H

#include "onnx/edit.h"

/* What converts one node. The new opset is stamped already; old_since is the version that the node was written for. */
typedef struct qx_conversion { qx_node *node; int old_since; int64_t to; bool dry; } qx_conversion;
/* With dry set only says whether it can be done (QX_E_UNSUPPORTED with the reason), and changes nothing. */
typedef qx_status qx_convert_fn(const qx_conversion *c);
typedef struct qx_change { qx_op_id op; int since; qx_convert_fn *convert; } qx_change;

/* Ends with op QX_OP_UNKNOWN; several changes of one operator stand in the order of their versions. */
extern const qx_change qx_changes[];

#endif

/* same.h - what two nodes that compute the same have in common, as text. */
#ifndef QX_PASSES_SAME_H
#define QX_PASSES_SAME_H

#include "base/buf.h"
#include "onnx/graph.h"

enum { QX_SAME_CONSTANT = 512 }; /* bytes of a constant that is compared by what it holds */

/* Adds operator, inputs (by value) and attributes to `key`, attributes in the order they stand: an order that differs only costs a merge.
 * *known false: it has an attribute that is not compared, and the key says nothing. */
qx_status qx_same_node(qx_buf *key, const qx_node *n, bool *known);
/* The same for a constant: type, shape and content. *known false: it is larger than QX_SAME_CONSTANT, or holds strings. */
qx_status qx_same_tensor(qx_buf *key, const qx_weight *w, bool *known);

#endif

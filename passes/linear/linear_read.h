/* linear_read.h - one operator as a product with a constant weight: who reads it and how. For linear.c alone. */
#ifndef QX_PASSES_LINEAR_READ_H
#define QX_PASSES_LINEAR_READ_H

#include "passes/linear/linear.h"

/* The node's product number `part` (a MoE has up to three, a recurrence two, others only number 0). False: there is none; the node is no
 * linear operator (nor an embedding). True with out->w NULL: it is one, but its weight is not constant. index and group_id are left to
 * the caller. */
bool qx_linear_read(qx_node *n, uint32_t part, qx_linear *out);
/* Neither a constant nor a dequantized constant. */
bool qx_is_variable(const qx_value *v);

#endif

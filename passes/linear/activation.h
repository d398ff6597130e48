/* activation.h - activations that exporters write as several nodes, found as what they compute. */
#ifndef QX_PASSES_ACTIVATION_H
#define QX_PASSES_ACTIVATION_H

#include "onnx/graph.h"

typedef enum qx_activation {
    QX_ACTIVATION_NONE, QX_ACTIVATION_SILU, QX_ACTIVATION_HARD_SWISH, QX_ACTIVATION_GELU, QX_ACTIVATION_LEAKY /* none of those below */
} qx_activation;
/* What the chain that ends at n computes from *x, in any of the usual forms; nobody else reads a part of it. NONE: none of these. */
qx_activation qx_activation_ends(const qx_node *n, qx_value **x);
/* The same for the chain that a reader of v belongs to; *last (may be NULL): where it ends. */
qx_activation qx_activation_of(const qx_value *v, const qx_node *reader, qx_node **last);
/* What n, the last of such a chain or a LeakyRelu (then *slope is its), makes of *x. */
qx_activation qx_activation_made(const qx_node *n, qx_value **x, float *slope);
float qx_activation_at(qx_activation a, float slope, float x);

#endif

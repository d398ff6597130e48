/* nodes.h - small pieces that the written forms are put together from: a node with one output, a constant scalar. */
#ifndef QX_PASSES_NODES_H
#define QX_PASSES_NODES_H

#include "onnx/edit.h"

/* A node of the default domain, whose one output has the shape of `like` and the given type. Named BASE_SUFFIX; the output
 * BASE_SUFFIX_Output. */
typedef struct qx_new_node {
    const char *op;
    qx_value *in[3];
    uint32_t n_in;
    const qx_type *like;
    qx_dtype dtype;
    const char *base, *suffix;
} qx_new_node;
qx_status qx_node_put(qx_graph *g, qx_node *before, const qx_new_node *s, qx_node **out);
/* An initializer BASE_SUFFIX of rank 0, v rounded to its type. */
qx_status qx_scalar_put(qx_graph *g, const char *base, const char *suffix, qx_dtype dtype, float v, qx_value **out);
/* First node that may read v: behind its producer, or at the start of its graph. */
qx_node *qx_place_behind(const qx_value *v);

#endif

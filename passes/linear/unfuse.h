/* unfuse.h - ONNX Runtime's FusedConv, FusedGemm and Attention with the product as a node of its own. */
#ifndef QX_PASSES_UNFUSE_H
#define QX_PASSES_UNFUSE_H

#include "onnx/graph.h"

/* Every com.microsoft FusedConv and FusedGemm becomes Conv or Gemm, an Add of what FusedConv adds, and the activation; names of node
 * and result stay. Activations without an operator of their own at the model's opset: the node stays as it is.
 * Attention without a past becomes MatMul, Split and MultiHeadAttention. */
qx_status qx_unfuse(qx_model *m);

#endif

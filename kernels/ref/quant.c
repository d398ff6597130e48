/* quant.c - the innermost quantization loops in plain C: the reference. */
#include "kernels/loops/quant_leaf.h"
#include "kernels/scalar.h"

#define FN(name) ref_##name
#define TARGET
#define CONV qx_conv_ref
#include "kernels/loops/quant_loops.h"

const qx_leaf *qx_leaf_ref(void) { return &ref_leaf; }

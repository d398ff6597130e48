/* nbits.c - dot products with few-bit weights in plain C. */
#define LANES_ISA 0
#include "kernels/loops/nbits_leaf.h"
#include "kernels/loops/lanes.h"
#include "kernels/loops/nbits_loops.h"

const qx_nbits_leaf *qx_nbits_leaf_ref(void) { return &leaf; }

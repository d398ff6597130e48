/* nbits.c - dot products with few-bit weights in plain C. */
#define LANES_ISA 0
#include "kernels/nbits_leaf.h"
#include "kernels/lanes.h"
#include "kernels/nbits_loops.h"

const qx_nbits_leaf *qx_nbits_leaf_ref(void) { return &leaf; }

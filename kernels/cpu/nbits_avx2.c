/* nbits_avx2.c - dot products with few-bit weights for AVX2. */
#if defined(__x86_64__)
#define LANES_ISA 2
#include "kernels/loops/nbits_leaf.h"
#include "kernels/loops/lanes.h"
#include "kernels/loops/nbits_loops.h"

const qx_nbits_leaf *qx_nbits_leaf_avx2(void) { return &leaf; }
#endif

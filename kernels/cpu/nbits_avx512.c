/* nbits_avx512.c - dot products with few-bit weights for AVX512. */
#if defined(__x86_64__)
#define LANES_ISA 512
#include "kernels/nbits_leaf.h"
#include "kernels/lanes.h"
#include "kernels/nbits_loops.h"

const qx_nbits_leaf *qx_nbits_leaf_avx512(void) { return &leaf; }
#endif

/* search_avx2.c - error sums of the scale search for AVX2. */
#if defined(__x86_64__)
#define LANES_ISA 2
#include "kernels/loops/search_leaf.h"
#include "kernels/loops/lanes.h"
#include "kernels/loops/search_loops.h"

const qx_search_leaf *qx_search_leaf_avx2(void) { return &leaf; }
#endif

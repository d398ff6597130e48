/* search_avx512.c - error sums of the scale search for AVX512. */
#if defined(__x86_64__)
#define LANES_ISA 512
#include "kernels/loops/search_leaf.h"
#include "kernels/loops/lanes.h"
#include "kernels/loops/search_loops.h"

const qx_search_leaf *qx_search_leaf_avx512(void) { return &leaf; }
#endif

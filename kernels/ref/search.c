/* search.c - error sums of the scale search in plain C: the reference. */
#define LANES_ISA 0
#include "kernels/loops/search_leaf.h"
#include "kernels/loops/lanes.h"
#include "kernels/loops/search_loops.h"

const qx_search_leaf *qx_search_leaf_ref(void) { return &leaf; }

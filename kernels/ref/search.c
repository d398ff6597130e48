/* search.c - error sums of the scale search in plain C: the reference. */
#define LANES_ISA 0
#include "kernels/search_leaf.h"
#include "kernels/lanes.h"
#include "kernels/search_loops.h"

const qx_search_leaf *qx_search_leaf_ref(void) { return &leaf; }

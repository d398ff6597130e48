/* pool.c - sliding windows in plain C. */
#include <math.h>

#define LANES_ISA 0
#include "kernels/loops/pool_leaf.h"
#include "kernels/loops/lanes.h"
#include "kernels/loops/pool_loops.h"

void qx_pool_rows_ref(const qx_windows *w, const qx_pool_band *b) { pool_rows(w, b); }
